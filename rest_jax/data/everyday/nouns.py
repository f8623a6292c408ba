"""German nouns with gender, plural and English, grouped by semantic class.

An entry reads `article singular, plural = english/synonym[, english plural]`.
`*` after the singular marks a weak noun (den Jungen), plural `-` a mass noun,
article `pl` a noun with a plural only. Inside a class the entries stand in
order of frequency: the sampler draws them with Zipf-like weights.
"""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Noun:
  """One noun; `gender` is m, f, n, or p for a noun with a plural only."""

  lemma: str
  gender: str
  plural: str | None  # None for mass nouns
  weak: bool
  english: tuple[str, ...]
  english_plural: tuple[str, ...]
  noun_class: str

  @property
  def is_mass(self) -> bool:
    """Whether the noun has no plural."""
    return self.plural is None


_TABLE = """
kin: die Mutter, Mütter = mother; der Vater, Väter = father
  der Bruder, Brüder = brother; die Schwester, Schwestern = sister
  der Freund, Freunde = friend/boyfriend, friends
  die Freundin, Freundinnen = girlfriend/friend, friends
  pl Eltern = parents; der Sohn, Söhne = son; die Tochter, Töchter = daughter
  die Oma, Omas = grandma/grandmother; der Opa, Opas = grandpa/grandfather
  der Chef, Chefs = boss; die Frau, - = wife; der Mann, - = husband
  der Nachbar*, Nachbarn = neighbor/neighbour
  die Nachbarin, Nachbarinnen = neighbor/neighbour
  der Kollege*, Kollegen = colleague/coworker; die Kollegin, Kolleginnen = colleague
  der Onkel, Onkel = uncle; die Tante, Tanten = aunt; die Chefin, Chefinnen = boss
  die Cousine, Cousinen = cousin; pl Großeltern = grandparents
person: der Mann, Männer = man, men; die Frau, Frauen = woman, women
  das Kind, Kinder = child, children; der Junge*, Jungen = boy
  das Mädchen, Mädchen = girl; der Lehrer, Lehrer = teacher
  die Lehrerin, Lehrerinnen = teacher; der Arzt, Ärzte = doctor
  die Ärztin, Ärztinnen = doctor; der Student*, Studenten = student
  die Studentin, Studentinnen = student; pl Leute = people
  der Verkäufer, Verkäufer = salesman/salesperson, salesmen/salespeople
  die Verkäuferin, Verkäuferinnen = saleswoman/salesperson, saleswomen/salespeople
  der Polizist*, Polizisten = policeman/police officer, policemen/police officers
  der Gast, Gäste = guest; der Kellner, Kellner = waiter
  die Kellnerin, Kellnerinnen = waitress; der Schüler, Schüler = pupil/student
  die Schülerin, Schülerinnen = pupil/student; der Koch, Köche = cook/chef
  der Bäcker, Bäcker = baker; der Tourist*, Touristen = tourist
  der Fahrer, Fahrer = driver; der Künstler, Künstler = artist
  die Sängerin, Sängerinnen = singer; der Anwalt, Anwälte = lawyer
  der Ingenieur, Ingenieure = engineer; der Bauer*, Bauern = farmer
  die Krankenschwester, Krankenschwestern = nurse
  der Musiker, Musiker = musician; die Journalistin, Journalistinnen = journalist
  der Schauspieler, Schauspieler = actor
small: das Kind, Kinder = child, children; das Baby, Babys = baby
  der Hund, Hunde = dog; die Katze, Katzen = cat
animal: der Hund, Hunde = dog; die Katze, Katzen = cat; das Pferd, Pferde = horse
  der Vogel, Vögel = bird; die Kuh, Kühe = cow; das Huhn, Hühner = chicken
  das Schwein, Schweine = pig; die Ente, Enten = duck; die Maus, Mäuse = mouse, mice
food: der Apfel, Äpfel = apple; das Brot, - = bread; der Käse, - = cheese
  das Ei, Eier = egg; der Kuchen, Kuchen = cake; die Suppe, Suppen = soup
  das Fleisch, - = meat; der Fisch, - = fish; der Salat, Salate = salad
  die Pizza, Pizzen = pizza; die Kartoffel, Kartoffeln = potato, potatoes
  die Banane, Bananen = banana; das Gemüse, - = vegetables
  das Obst, - = fruit; der Reis, - = rice; pl Nudeln = noodles
  die Tomate, Tomaten = tomato, tomatoes; das Eis, - = ice cream
  das Brötchen, Brötchen = roll/bread roll; die Schokolade, - = chocolate
  die Wurst, Würste = sausage; die Orange, Orangen = orange
  der Keks, Kekse = cookie/biscuit; die Birne, Birnen = pear
  der Schinken, - = ham; der Joghurt, Joghurts = yogurt; die Butter, - = butter
  die Gurke, Gurken = cucumber; die Karotte, Karotten = carrot
  die Erdbeere, Erdbeeren = strawberry
dish: die Suppe, Suppen = soup; der Fisch, - = fish; der Reis, - = rice
  pl Nudeln = noodles; das Gemüse, - = vegetables; das Fleisch, - = meat
  das Ei, Eier = egg; die Kartoffel, Kartoffeln = potato, potatoes
  das Mittagessen, - = lunch; das Abendessen, - = dinner
baked: der Kuchen, Kuchen = cake; das Brot, - = bread; die Pizza, Pizzen = pizza
  der Keks, Kekse = cookie/biscuit; das Brötchen, Brötchen = roll/bread roll
drink: das Wasser, - = water; der Kaffee, - = coffee; der Tee, - = tea
  die Milch, - = milk; das Bier, - = beer; der Wein, - = wine
  der Saft, - = juice; die Limonade, - = lemonade
readable: das Buch, Bücher = book; die Zeitung, Zeitungen = newspaper
  der Brief, Briefe = letter; die E-Mail, E-Mails = email
  die Geschichte, Geschichten = story; die Nachricht, Nachrichten = message
  der Text, Texte = text; der Roman, Romane = novel
  die Zeitschrift, Zeitschriften = magazine; der Bericht, Berichte = report
  das Gedicht, Gedichte = poem; die Postkarte, Postkarten = postcard
writable: der Brief, Briefe = letter; die E-Mail, E-Mails = email
  die Nachricht, Nachrichten = message; das Buch, Bücher = book
  der Text, Texte = text; der Bericht, Berichte = report
  die Postkarte, Postkarten = postcard; das Gedicht, Gedichte = poem
printed: das Buch, Bücher = book; die Zeitung, Zeitungen = newspaper
  die Zeitschrift, Zeitschriften = magazine; der Roman, Romane = novel
  die Postkarte, Postkarten = postcard; die Landkarte, Landkarten = map
text: der Text, Texte = text; der Film, Filme = movie/film
  die Geschichte, Geschichten = story; der Brief, Briefe = letter
  das Gedicht, Gedichte = poem; die E-Mail, E-Mails = email
flat: die Wohnung, Wohnungen = apartment/flat; das Haus, Häuser = house
  das Zimmer, Zimmer = room
mailable: der Brief, Briefe = letter; die E-Mail, E-Mails = email
  das Paket, Pakete = package/parcel; die Nachricht, Nachrichten = message
  die Postkarte, Postkarten = postcard; das Foto, Fotos = photo/picture
clothes: das Hemd, Hemden = shirt; die Jacke, Jacken = jacket
  das Kleid, Kleider = dress; der Mantel, Mäntel = coat; pl Schuhe = shoes
  der Pullover, Pullover = sweater/pullover; der Rock, Röcke = skirt
  das T-Shirt, T-Shirts = T-shirt; der Hut, Hüte = hat; die Mütze, Mützen = cap/hat
  der Schal, Schals = scarf, scarves; die Bluse, Blusen = blouse
  pl Handschuhe = gloves; die Krawatte, Krawatten = tie; pl Stiefel = boots
vehicle: das Auto, Autos = car; das Fahrrad, Fahrräder = bike/bicycle
  das Motorrad, Motorräder = motorcycle/motorbike; das Boot, Boote = boat
transit: der Zug, Züge = train; der Bus, Busse = bus; das Taxi, Taxis = taxi
  die Straßenbahn, Straßenbahnen = tram; die U-Bahn, U-Bahnen = subway
device: das Handy, Handys = cell phone/mobile phone; der Computer, Computer = computer
  der Fernseher, Fernseher = TV/television; die Kamera, Kameras = camera
  der Kühlschrank, Kühlschränke = fridge/refrigerator; die Lampe, Lampen = lamp
  die Waschmaschine, Waschmaschinen = washing machine; das Radio, Radios = radio
  der Laptop, Laptops = laptop; der Drucker, Drucker = printer
switchable: das Licht, Lichter = light; der Fernseher, Fernseher = TV/television
  das Radio, Radios = radio; der Computer, Computer = computer
  die Lampe, Lampen = lamp; die Heizung, Heizungen = heating
  der Drucker, Drucker = printer
openable: das Fenster, Fenster = window; die Tür, Türen = door
  die Flasche, Flaschen = bottle; der Koffer, Koffer = suitcase
  der Schrank, Schränke = cupboard/closet; das Paket, Pakete = package/parcel
furniture: der Tisch, Tische = table; der Stuhl, Stühle = chair
  das Bett, Betten = bed; das Sofa, Sofas = sofa/couch
  der Schrank, Schränke = cupboard/closet; das Regal, Regale = shelf, shelves
  der Sessel, Sessel = armchair; der Teppich, Teppiche = carpet/rug
  der Spiegel, Spiegel = mirror
thing: der Schlüssel, Schlüssel = key; das Geschenk, Geschenke = gift/present
  der Ball, Bälle = ball; die Blume, Blumen = flower; das Glas, Gläser = glass
  die Tasse, Tassen = cup; das Foto, Fotos = photo/picture
  der Regenschirm, Regenschirme = umbrella; die Uhr, Uhren = watch/clock
  der Teller, Teller = plate; das Messer, Messer = knife, knives
  die Gabel, Gabeln = fork; der Löffel, Löffel = spoon; der Stift, Stifte = pen
  das Heft, Hefte = notebook; der Ring, Ringe = ring; die Kerze, Kerzen = candle
  die Fahrkarte, Fahrkarten = ticket; das Bild, Bilder = picture
  die Puppe, Puppen = doll
owned: der Schlüssel, Schlüssel = key; das Handy, Handys = cell phone/mobile phone
  die Tasche, Taschen = bag; der Regenschirm, Regenschirme = umbrella
  die Fahrkarte, Fahrkarten = ticket; der Ausweis, Ausweise = ID card/ID
  der Pass, Pässe = passport; der Geldbeutel, Geldbeutel = wallet
  der Stift, Stifte = pen; der Ring, Ringe = ring; die Kamera, Kameras = camera
bag: die Tasche, Taschen = bag; der Koffer, Koffer = suitcase
  der Rucksack, Rucksäcke = backpack; das Paket, Pakete = package/parcel
  die Kiste, Kisten = box/crate; der Korb, Körbe = basket
building: das Haus, Häuser = house; die Wohnung, Wohnungen = apartment/flat
  das Hotel, Hotels = hotel; das Restaurant, Restaurants = restaurant
  die Schule, Schulen = school; die Kirche, Kirchen = church
  das Büro, Büros = office; das Krankenhaus, Krankenhäuser = hospital
  das Museum, Museen = museum; der Bahnhof, Bahnhöfe = train station/station
  das Theater, Theater = theater/theatre; die Brücke, Brücken = bridge
home: die Wohnung, Wohnungen = apartment/flat; das Haus, Häuser = house
  das Zimmer, Zimmer = room; der Garten, Gärten = garden
room: die Küche, Küchen = kitchen; das Zimmer, Zimmer = room
  das Wohnzimmer, Wohnzimmer = living room; die Wohnung, Wohnungen = apartment/flat
  das Bad, Bäder = bathroom; das Schlafzimmer, Schlafzimmer = bedroom
  der Keller, Keller = basement/cellar; die Garage, Garagen = garage
town: die Stadt, Städte = city/town, cities/towns; das Dorf, Dörfer = village
  der Park, Parks = park; die Straße, Straßen = street; der Garten, Gärten = garden
  der See, Seen = lake; der Wald, Wälder = forest/woods, forests
  der Strand, Strände = beach; der Berg, Berge = mountain
  der Fluss, Flüsse = river; die Insel, Inseln = island
media: der Film, Filme = movie/film; das Lied, Lieder = song; das Spiel, Spiele = game
  das Konzert, Konzerte = concert; die Serie, Serien = series, series
show: der Film, Filme = movie/film; das Spiel, Spiele = game
  die Serie, Serien = series, series; das Theaterstück, Theaterstücke = play
sound: die Musik, - = music; das Radio, - = the radio
question: die Frage, Fragen = question; das Problem, Probleme = problem
  die Aufgabe, Aufgaben = task; die Übung, Übungen = exercise
  die Prüfung, Prüfungen = exam/test; die Regel, Regeln = rule
idea: die Idee, Ideen = idea; der Plan, Pläne = plan; die Antwort, Antworten = answer
  das Wort, Wörter = word; der Fehler, Fehler = mistake; der Satz, Sätze = sentence
  der Name*, Namen = name; die Adresse, Adressen = address
event: die Party, Partys = party; die Reise, Reisen = trip/journey
  die Hochzeit, Hochzeiten = wedding; das Konzert, Konzerte = concert
  der Kurs, Kurse = course/class; die Besprechung, Besprechungen = meeting
  das Fest, Feste = celebration/party; die Prüfung, Prüfungen = exam/test
holiday: das Wochenende, Wochenenden = weekend; die Reise, Reisen = trip/journey
  der Urlaub, - = vacation/holiday; die Party, Partys = party
  das Konzert, Konzerte = concert; pl Ferien = holidays/vacation
  die Hochzeit, Hochzeiten = wedding; das Abendessen, - = dinner
weather: das Wetter, - = weather; die Sonne, - = sun; der Wind, - = wind
opening: das Fenster, Fenster = window; die Tür, Türen = door
  das Tor, Tore = gate; der Koffer, Koffer = suitcase
window: das Fenster, Fenster = window; pl Schuhe = shoes
auto: das Auto, Autos = car
restaurant: das Restaurant, Restaurants = restaurant; das Hotel, Hotels = hotel
story: die Geschichte, Geschichten = story; der Witz, Witze = joke
song: das Lied, Lieder = song
picture: das Bild, Bilder = picture
mail: der Brief, Briefe = letter; die E-Mail, E-Mails = email
  die Nachricht, Nachrichten = message; die Postkarte, Postkarten = postcard
answerable: die Frage, Fragen = question; der Brief, Briefe = letter
  die E-Mail, E-Mails = email
solvable: das Problem, Probleme = problem; die Aufgabe, Aufgaben = task
exam: die Prüfung, Prüfungen = exam/test; der Test, Tests = test
feast: der Geburtstag, Geburtstage = birthday; die Hochzeit, Hochzeiten = wedding
chore: pl Hausaufgaben = homework; die Hausarbeit, - = housework
  die Wäsche, - = laundry
sport: der Fußball, - = soccer/football; das Tennis, - = tennis
  der Basketball, - = basketball; das Schach, - = chess
  pl Karten = cards; der Handball, - = handball
  der Volleyball, - = volleyball
instrument: das Klavier, - = the piano/piano; die Gitarre, - = the guitar/guitar
  die Geige, - = the violin/violin; die Flöte, - = the flute/flute
  die Trompete, - = the trumpet/trumpet; das Schlagzeug, - = the drums/drums
language: das Deutsch, - = German; das Englisch, - = English
  das Französisch, - = French; das Spanisch, - = Spanish
  das Italienisch, - = Italian; das Russisch, - = Russian
subject: die Medizin, - = medicine; die Mathematik, - = mathematics/math
  die Biologie, - = biology; die Physik, - = physics; die Chemie, - = chemistry
  die Musik, - = music; die Kunst, - = art
topic: die Musik, - = music; die Kunst, - = art; der Sport, - = sports
  die Politik, - = politics; die Mode, - = fashion
bills: die Rechnung, Rechnungen = bill; die Miete, - = rent
purchase: die Fahrkarte, Fahrkarten = ticket; das Essen, - = food/meal
  der Kaffee, - = coffee; die Pizza, Pizzen = pizza; das Hotel, Hotels = hotel
"""

_IRREGULAR_ENDINGS = (('s', 'es'), ('x', 'es'), ('ch', 'es'), ('sh', 'es'))


def english_plural(singular: str) -> str:
  """Regular English plural: key -> keys, city -> cities, bus -> buses."""
  for ending, suffix in _IRREGULAR_ENDINGS:
    if singular.endswith(ending):
      return singular + suffix
  if re.search('[^aeiou]y$', singular):
    return singular[:-1] + 'ies'
  return singular + 's'


def _parse_noun(entry: str, noun_class: str) -> Noun:
  german, english = (side.strip() for side in entry.split(' = '))
  article, words = german.split(' ', 1)
  english_parts = [tuple(part.strip().split('/')) for part in english.split(',')]
  singulars = english_parts[0]
  if article == 'pl':
    return Noun(words, 'p', words, False, singulars, singulars, noun_class)
  lemma, plural = (word.strip() for word in words.split(','))
  plurals = (
    english_parts[1]
    if len(english_parts) > 1
    else tuple(english_plural(word) for word in singulars)
  )
  return Noun(
    lemma=lemma.rstrip('*'),
    gender={'der': 'm', 'die': 'f', 'das': 'n'}[article],
    plural=None if plural == '-' else plural,
    weak=lemma.endswith('*'),
    english=singulars,
    english_plural=plurals,
    noun_class=noun_class,
  )


def _parse_table(table: str) -> dict[str, tuple[Noun, ...]]:
  classes: dict[str, tuple[Noun, ...]] = {}
  for block in re.split(r'\n(?=\w+:)', table.strip()):
    noun_class, rows = block.split(':', 1)
    entries = [entry for entry in re.split(r'[;\n]', rows) if entry.strip()]
    classes[noun_class] = tuple(
      _parse_noun(entry.strip(), noun_class) for entry in entries
    )
  return classes


NOUNS: dict[str, tuple[Noun, ...]] = _parse_table(_TABLE)

"""Adjectives, adverbials, places, names: the words that are neither noun nor verb.

Pairs read `German = English/alternative`, the canonical English first, and stand
in order of frequency.
"""

import dataclasses

Adverbial = tuple[str, tuple[str, ...]]  # German, all English wordings


@dataclasses.dataclass(frozen=True)
class Adjective:
  """One adjective with comparison and the noun classes it can describe."""

  german: str
  comparative: str
  superlative: str  # stem: 'größt'
  english: tuple[str, ...]
  english_comparative: tuple[str, ...]
  english_superlative: tuple[str, ...]
  classes: frozenset[str]
  gradable: bool


# German[, comparative, superlative] = English : noun classes. '-' after the
# German word: not gradable.
_ADJECTIVES = """
groß, größer, größt = big/large : animal building home flat furniture town bag
groß, größer, größt = tall : person kin
klein = small/little : animal building home flat furniture town thing device bag small
neu, neuer, neuest = new : vehicle device building clothes furniture readable \
  printed flat thing auto home bag
gut, besser, best = good : food dish drink readable printed text media idea \
  restaurant show
alt, älter, ältest = old : person animal building furniture vehicle clothes device \
  printed
schön = beautiful/nice : clothes town building home picture thing furniture song
jung, jünger, jüngst = young : person
lang, länger, längst = long : mail text media story show holiday writable
nett = nice/kind : person
teuer, teurer, teuerst = expensive : vehicle clothes device furniture home
interessant = interesting : readable text media show story topic idea town
schwarz - = black : clothes vehicle bag auto animal
rot - = red : clothes vehicle bag auto
frisch, frischer, frischest = fresh : food dish
kalt, kälter, kältest = cold : drink dish
warm, wärmer, wärmst = warm : clothes dish
billig = cheap : vehicle clothes device furniture
kurz, kürzer, kürzest = short : mail text media story show writable
schwierig = difficult/hard : question solvable exam
wichtig = important : idea question mail event exam
müde = tired : kin person
blau - = blue : clothes vehicle bag auto
krank - = sick/ill : kin person small animal
einfach = easy/simple : question exam solvable
weiß - = white : clothes vehicle auto animal
schnell = fast : vehicle auto animal
langweilig = boring : readable media show story
lecker = delicious/tasty : food dish baked
spannend, spannender, spannendst = exciting : readable media show story
freundlich = friendly : person kin animal
glücklich = happy : person kin
heiß, heißer, heißest = hot : drink
hungrig = hungry : person kin animal small
lustig = funny : media story show person readable
grün - = green : clothes bag vehicle
traurig = sad : story song person kin media
schwer = heavy : furniture bag
modern = modern : building device furniture home
gesund, gesünder, gesündest = healthy : animal person kin
laut, lauter, lautest = loud : device
kaputt - = broken : vehicle device furniture
schmutzig = dirty : clothes vehicle room
sauber = clean : clothes room
bequem = comfortable : furniture clothes
stark, stärker, stärkst = strong : person animal
braun - = brown : animal bag furniture
berühmt = famous : person building
leise, leiser, leisest = quiet : device animal
klug, klüger, klügst = clever/smart : person animal kin
leicht = light : bag
gelb - = yellow : clothes bag
streng = strict : kin person
reich = rich : person
süß, süßer, süßest = sweet : food
fleißig = hard-working : person
langsam = slow : vehicle device
gefährlich = dangerous : animal
ruhig = quiet : town home
"""

_COMPARISON = {
  'good': ('better', 'best'),
  'hard-working': None,
  'boring': None,
  'tired': None,
  'famous': None,
  'strict': ('stricter', 'strictest'),
  'little': ('smaller', 'smallest'),
  'friendly': ('friendlier', 'friendliest'),
  'quiet': ('quieter', 'quietest'),
  'simple': ('simpler', 'simplest'),
  'clever': ('cleverer', 'cleverest'),
  'sick': None,
  'ill': None,
  'healthy': ('healthier', 'healthiest'),
  'modern': None,
}


def compare(word: str) -> tuple[str, str]:
  """English comparative and superlative: big -> bigger, biggest."""
  if word in _COMPARISON:
    return _COMPARISON[word] or (f'more {word}', f'most {word}')
  vowel_groups = len(
    [
      i
      for i, letter in enumerate(word)
      if letter in 'aeiouy' and (i == 0 or word[i - 1] not in 'aeiouy')
    ]
  ) - (word.endswith('e') and word[-2] not in 'aeiouy')
  if word.endswith('y') and vowel_groups == 2:
    return word[:-1] + 'ier', word[:-1] + 'iest'
  if vowel_groups > 1:
    return f'more {word}', f'most {word}'
  if word.endswith('e'):
    return word + 'r', word + 'st'
  if word[-1] in 'gdtn' and word[-2] in 'aiou' and word[-3] not in 'aeiou':
    return word + word[-1] + 'er', word + word[-1] + 'est'
  return word + 'er', word + 'est'


def _parse_adjective(row: str) -> Adjective:
  german, rest = row.split(' = ')
  english, classes = rest.split(' : ')
  forms = [form.strip() for form in german.split(',')]
  gradable = not forms[0].endswith('-')
  base = forms[0].rstrip(' -')
  if len(forms) == 1:
    forms = [base, base + ('r' if base.endswith('e') else 'er'), base + 'st']
    if base[-1] in 'dtßsz':
      forms[2] = base + 'est'
  words = tuple(english.split('/'))
  compared = [compare(word) for word in words]
  return Adjective(
    base,
    forms[1],
    forms[2],
    words,
    tuple(dict.fromkeys(pair[0] for pair in compared)),
    tuple(dict.fromkeys(pair[1] for pair in compared)),
    frozenset(classes.split()),
    gradable,
  )


ADJECTIVES = tuple(_parse_adjective(row) for row in _ADJECTIVES.strip().splitlines())


def _pairs(table: str) -> tuple[Adverbial, ...]:
  rows = [row for row in table.replace('\n', ';').split(';') if row.strip()]
  return tuple(
    (german.strip(), tuple(word.strip() for word in english.split('/')))
    for german, english in (row.split('=') for row in rows)
  )


WEEKDAYS = _pairs("""
Montag=Monday; Samstag=Saturday; Sonntag=Sunday; Freitag=Friday
Dienstag=Tuesday; Mittwoch=Wednesday; Donnerstag=Thursday
""")
_ON_WEEKDAYS = tuple((f'am {de}', (f'on {en[0]}',)) for de, en in WEEKDAYS)
PAST = (
  _pairs("""
gestern=yesterday; letzte Woche=last week; gestern Abend=last night/yesterday evening
heute Morgen=this morning; am Wochenende=on the weekend/at the weekend
vor zwei Tagen=two days ago; letztes Jahr=last year; letzten Sommer=last summer
vorgestern=the day before yesterday; vor einer Stunde=an hour ago/one hour ago
letzten Monat=last month; vor drei Wochen=three weeks ago
""")
  + _ON_WEEKDAYS
)
PAST_DAYS = tuple(pair for pair in PAST if not pair[0].startswith('vor '))
FUTURE = (
  _pairs("""
morgen=tomorrow; heute Abend=tonight/this evening; nächste Woche=next week
am Wochenende=on the weekend/at the weekend; bald=soon; später=later
morgen Abend=tomorrow evening/tomorrow night; nächstes Jahr=next year
übermorgen=the day after tomorrow; nächsten Monat=next month
in zwei Wochen=in two weeks; nächsten Sommer=next summer
""")
  + _ON_WEEKDAYS
)
HABIT = _pairs("""
jeden Tag=every day; jedes Wochenende=every weekend
abends=in the evening/in the evenings; jeden Morgen=every morning
morgens=in the morning/in the mornings; jede Woche=every week
im Sommer=in the summer/in summer; jeden Abend=every evening
einmal pro Woche=once a week; im Winter=in the winter/in winter
""") + tuple(
  (f'{de.lower()}s', (f'on {en[0]}s', f'every {en[0]}')) for de, en in WEEKDAYS
)
OFTEN = _pairs("""
oft=often; immer=always; manchmal=sometimes; selten=rarely/seldom
meistens=usually/mostly; normalerweise=usually/normally; nie=never
""")
NOW = _pairs('jetzt=now; gerade=right now/at the moment; im Moment=at the moment')
TODAY = _pairs('heute=today')

CITIES = _pairs("""
Berlin=Berlin; Hamburg=Hamburg; München=Munich; Köln=Cologne; Wien=Vienna
Paris=Paris; London=London; Rom=Rome; Zürich=Zurich; Frankfurt=Frankfurt
Dresden=Dresden; Prag=Prague; Leipzig=Leipzig; Salzburg=Salzburg
""")
COUNTRIES = _pairs("""
Deutschland=Germany; Italien=Italy; Frankreich=France; Spanien=Spain
Österreich=Austria; Polen=Poland; England=England; Griechenland=Greece
Schweden=Sweden; Japan=Japan; Kanada=Canada
""")
_IN_TOWN = tuple((f'in {de}', (f'in {en[0]}',)) for de, en in CITIES)
_IN_COUNTRY = tuple((f'in {de}', (f'in {en[0]}',)) for de, en in COUNTRIES) + _pairs(
  'in der Schweiz=in Switzerland; in den USA=in the USA/in the US'
)
_TO_TOWN = tuple((f'nach {de}', (f'to {en[0]}',)) for de, en in CITIES)
_TO_COUNTRY = tuple((f'nach {de}', (f'to {en[0]}',)) for de, en in COUNTRIES) + _pairs(
  'in die Schweiz=to Switzerland; in die USA=to the USA/to the US'
)

PLACES: dict[str, tuple[Adverbial, ...]] = {
  'meet': _pairs("""
im Park=in the park; am Bahnhof=at the train station/at the station; im Café=at the café
in der Stadt=in town/in the city; auf dem Markt=at the market; im Museum=at the museum
vor dem Kino=in front of the movie theater/in front of the cinema
in der Schule=at school; auf der Party=at the party"""),
  'eat': _pairs("""
zu Hause=at home; im Restaurant=at the restaurant/in the restaurant
in der Küche=in the kitchen; im Garten=in the garden; im Café=at the café
auf dem Balkon=on the balcony; bei uns=at our place; im Hotel=at the hotel"""),
  'drink': _pairs("""
zu Hause=at home; im Café=at the café; auf dem Balkon=on the balcony
im Garten=in the garden; bei Freunden=at a friend's place/at friends' place"""),
  'read': _pairs("""
im Bett=in bed; im Zug=on the train; im Garten=in the garden; zu Hause=at home
in der Bibliothek=in the library/at the library; im Park=in the park
im Wohnzimmer=in the living room; auf dem Sofa=on the sofa/on the couch"""),
  'shop': _pairs("""
im Supermarkt=at the supermarket/in the supermarket; auf dem Markt=at the market
in der Stadt=in town/in the city; im Internet=online/on the internet"""),
  'watch': _pairs("""
im Kino=at the movies/at the cinema; zu Hause=at home; im Fernsehen=on TV"""),
  'home': _pairs("""
zu Hause=at home; bei meinen Eltern=at my parents' house/at my parents' place
bei uns=at our place; bei Freunden=at a friend's place/at friends' place"""),
  'play': _pairs("""
im Garten=in the garden; im Park=in the park; auf der Straße=in the street/on the street
am Strand=on the beach/at the beach; in der Stadt=in town/in the city"""),
  'outdoors': _pairs("""
im Park=in the park; im Wald=in the forest/in the woods
in der Stadt=in town/in the city
am See=by the lake/at the lake; am Strand=on the beach/at the beach"""),
  'sleep': _pairs("""
zu Hause=at home; im Hotel=at the hotel/in the hotel
auf dem Sofa=on the sofa/on the couch
im Zelt=in the tent; bei Freunden=at a friend's place/at friends' place"""),
  'learn': _pairs("""
in der Schule=at school; zu Hause=at home
in der Bibliothek=in the library/at the library"""),
  'work': _pairs("""
im Büro=at the office/in the office; zu Hause=at home/from home
in einer Bank=at a bank/in a bank; im Krankenhaus=at the hospital/in the hospital
in einer Fabrik=in a factory/at a factory; im Garten=in the garden
in einem Restaurant=at a restaurant/in a restaurant""")
  + _IN_TOWN[:6],
  'study': _IN_TOWN,
  'swim': _pairs("""
im See=in the lake; im Meer=in the sea/in the ocean; im Fluss=in the river
im Schwimmbad=at the swimming pool/in the swimming pool"""),
  'hike': _pairs('in den Bergen=in the mountains; im Wald=in the forest/in the woods'),
  'arrive': _pairs("""
am Bahnhof=at the train station/at the station; am Flughafen=at the airport
im Hotel=at the hotel; zu Hause=home/at home""")
  + _IN_TOWN[:8],
  'live': _IN_TOWN
  + _IN_COUNTRY
  + _pairs("""
auf dem Land=in the country/in the countryside; in der Stadt=in the city/in town
in einem Dorf=in a village; bei meinen Eltern=with my parents
in einer kleinen Wohnung=in a small apartment/in a small flat"""),
  'stay': _pairs("""
zu Hause=at home/home; im Bett=in bed; hier=here; im Hotel=at the hotel; bei uns=with us
""")
  + _IN_TOWN[:5],
}
DIRECTIONS: dict[str, tuple[Adverbial, ...]] = {
  'walk': _pairs("""
nach Hause=home; in die Schule=to school; in den Park=to the park; zur Arbeit=to work
ins Kino=to the movies/to the cinema; zum Arzt=to the doctor
zum Bahnhof=to the station/to the train station
in die Stadt=into town/to town/to the city; zum Supermarkt=to the supermarket
ins Museum=to the museum; in die Kirche=to church; zur Post=to the post office
zum Bäcker=to the bakery/to the baker's; in die Bibliothek=to the library
auf den Markt=to the market; ins Theater=to the theater/to the theatre"""),
  'ride': _pairs("""
nach Hause=home; zur Arbeit=to work; in die Stadt=into town/to town/to the city
zum Flughafen=to the airport; ans Meer=to the sea/to the seaside
in die Berge=to the mountains; zu meinen Eltern=to my parents' house/to my parents
""")
  + _TO_TOWN
  + _TO_COUNTRY[:5],
  'fly': _TO_COUNTRY + _TO_TOWN,
}
VEHICLES = _pairs("""
mit dem Auto=by car; mit dem Zug=by train; mit dem Bus=by bus
mit dem Fahrrad=by bike/by bicycle; mit dem Taxi=by taxi
""")
WOMEN = 'Anna Maria Julia Lena Sarah Laura Lisa Emma Sophie Eva Clara Nina'.split()
MEN = 'Paul Peter Thomas Max Felix Jan Martin Lukas Tim David Karl Simon'.split()
JOBS = (
  ('Lehrer', 'Lehrerin', 'a teacher'),
  ('Arzt', 'Ärztin', 'a doctor'),
  ('Student', 'Studentin', 'a student'),
  ('Verkäufer', 'Verkäuferin', 'a salesperson'),
  ('Ingenieur', 'Ingenieurin', 'an engineer'),
  ('Koch', 'Köchin', 'a cook/a chef'),
  ('Polizist', 'Polizistin', 'a police officer'),
  ('Anwalt', 'Anwältin', 'a lawyer'),
  ('Künstler', 'Künstlerin', 'an artist'),
  ('Bäcker', 'Bäckerin', 'a baker'),
  ('Journalist', 'Journalistin', 'a journalist'),
  ('Sänger', 'Sängerin', 'a singer'),
)

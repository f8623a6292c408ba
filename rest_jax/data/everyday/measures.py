"""Sentences with numbers: prices, ages, distances, amounts, durations.

Each function draws one sentence and returns (German, English wordings, topic).
"""

import random

from rest_jax.data.everyday import (
  clauses,
  english,
  morphology,
  numbers,
  phrases,
  referents,
  words,
)
from rest_jax.data.everyday.clauses import Clause
from rest_jax.data.everyday.descriptions import Drawn, finish, state_or_ask
from rest_jax.data.everyday.phrases import NOUNS

_BY_LEMMA = {noun.lemma: noun for listed in NOUNS.values() for noun in listed}
_PRICED = {  # class: euros, with or without cents
  'food': (1, 4),
  'printed': (8, 30),
  'clothes': (10, 200),
  'purchase': (2, 90),
  'device': (40, 900),
  'furniture': (30, 800),
  'bag': (10, 150),
  'thing': (3, 40),
  'vehicle': (300, 20_000),
}
_PRICED_LEMMA = {
  'Kuchen': (8, 25),
  'Pizza': (7, 15),
  'Suppe': (4, 9),
  'Salat': (4, 12),
  'Zeitung': (1, 4),
  'Postkarte': (1, 3),
  'Zeitschrift': (3, 8),
  'Ring': (60, 900),
  'Hotel': (60, 180),
  'Essen': (8, 40),
  'Kaffee': (2, 5),
  'Fahrkarte': (3, 90),
  'Uhr': (30, 600),
  'Auto': (3000, 40_000),
  'Fahrrad': (150, 900),
  'Fisch': (5, 20),
  'Fleisch': (5, 20),
  'Lampe': (20, 150),
  'Radio': (20, 150),
}


def _priced(rng: random.Random) -> tuple[phrases.Phrase, numbers.Wording]:
  noun_class = phrases.zipf(rng, tuple(_PRICED))
  noun = phrases.zipf(rng, NOUNS[noun_class])
  low, high = _PRICED_LEMMA.get(noun.lemma, _PRICED[noun_class])
  euros = rng.randint(low, high)
  if euros > 100:
    euros -= euros % (1000 if euros > 2000 else 50)
  cents = rng.choice((0, 0, 20, 50, 50, 80, 90)) if euros < 20 else 0
  determiner = 'der' if rng.random() < 0.7 else 'dies'
  plural = not noun.is_mass and noun_class == 'food' and rng.random() < 0.4
  return phrases.noun_phrase(noun, determiner, None, plural), numbers.price(
    euros, cents
  )


def price(rng: random.Random) -> Drawn:
  """'Das Buch kostet zwölf Euro fünfzig.', 'Wie viel kosten die Schuhe?'"""
  subject, (german, wordings) = _priced(rng)
  kosten = 'kosten' if subject.person == 5 else 'kostet'
  draw = rng.random()
  plural = subject.english_person == 5
  if draw < 0.15:
    how = rng.choice(('Wie viel', 'Was'))
    does, is_ = ('do', 'are') if plural else ('does', 'is')
    return (
      f'{how} {kosten} {subject.german[0]}?',
      clauses.renderings(
        [
          [(f'how much {does}',), subject.english, ('cost',)],
          [(f'how much {is_}',), subject.english, ('',)],
        ],
        '?',
      ),
      'price',
    )
  if draw < 0.4:
    buyer = referents.subject(rng)
    clause = Clause(
      buyer,
      morphology.weak('bezahlen'),
      tuple(
        ('pay', f' {wording} for {thing}')
        for wording in wordings
        for thing in subject.english
      ),
      ('past', 'perfect'),
      'perfect',
      topic='price',
    )
    clause.middle.append((clauses.INDEFINITE, german))
    clause.middle.append((clauses.DEFINITE, f'für {subject.german[1]}'))
    return finish(clause)
  cheap = len(german) < 14
  nur, only = rng.choice(
    (('', ''), ('', ''), ('nur ', ' only'), ('', '') if cheap else ('über ', ''))
  )
  clause = Clause(
    subject,
    morphology.weak('kosten'),
    tuple(('cost', f' {"over " if nur == "über " else ""}{w}') for w in wordings),
    topic='price',
  )
  if nur == 'über ':
    clause.patterns += tuple(('cost', f' more than {w}') for w in wordings)
  elif only:
    clause.adverb = (only,)
  if rng.random() < 0.2:
    clause.tense, clause.aspects = 'perfect', ('past',)
  clause.middle.append((clauses.FIXED, nur + german))
  return finish(clause)


_GENERATIONS = frozenset(
  {
    'Mutter',
    'Vater',
    'Oma',
    'Opa',
    'Sohn',
    'Tochter',
    'Onkel',
    'Tante',
    'Baby',
    'Kind',
    'Junge',
    'Mädchen',
    'Schüler',
    'Schülerin',
  }
)


def age(rng: random.Random) -> Drawn:
  """'Meine Oma ist einundachtzig Jahre alt.', 'Er ist drei Jahre älter als ich.'"""
  subject = referents.subject(rng)
  if subject.person >= 3:
    return age(rng)
  clause = Clause(subject, morphology.SEIN, (), topic='age')
  if rng.random() < 0.25:
    years = rng.randint(2, 12)
    comparative, wording = rng.choice((('älter', 'older'), ('jünger', 'younger')))
    other = referents.name(rng) if rng.random() < 0.6 else referents.kin(rng, 'mein')
    if (
      other.lemma == subject.lemma
      or other.person == 5
      or ({other.lemma, subject.lemma} & _GENERATIONS)
    ):
      return age(rng)
    clause.middle.append(
      (
        clauses.FIXED,
        f'{numbers.german_number(years)} Jahre {comparative} als {other.german[0]}',
      )
    )
    clause.patterns = tuple(
      ('be', f' {english.numbers_word(years)} years {wording} than {o}')
      for o in other.english
    )
  else:
    low, high = {
      'Oma': (60, 95),
      'Opa': (60, 95),
      'Vater': (38, 75),
      'Mutter': (38, 75),
      'Sohn': (3, 30),
      'Tochter': (3, 30),
      'Baby': (1, 2),
      'Kind': (3, 12),
      'Junge': (4, 14),
      'Mädchen': (4, 14),
      'Schüler': (7, 18),
      'Schülerin': (7, 18),
      'Student': (19, 29),
      'Studentin': (19, 29),
    }.get(subject.lemma, (19, 70))
    years = rng.randint(low, high)
    suffix = ' Jahre alt' if rng.random() < 0.7 else ''
    clause.middle.append((clauses.FIXED, numbers.german_number(years) + suffix))
    word = english.numbers_word(years)
    both = (f' {word} years old', f' {word}')
    clause.patterns = tuple(('be', w) for w in (both if suffix else both[::-1]))
    if rng.random() < 0.15:
      clause.time = (('nächstes Jahr'), ('next year',))
      clause.german, clause.tense = morphology.WERDEN, 'present'
      clause.aspects = ('future', 'going_to')
      clause.middle = [(clauses.FIXED, numbers.german_number(years))]
      clause.patterns = (('be', f' {word}'), ('turn', f' {word}'))
  return state_or_ask(rng, clause, 0.1)


_FAR = (
  ('Bahnhof', 'zum Bahnhof', ('station', 'train station')),
  ('Supermarkt', 'zum Supermarkt', ('supermarket',)),
  ('Schule', 'zur Schule', ('school',)),
  ('See', 'zum See', ('lake',)),
  ('Flughafen', 'zum Flughafen', ('airport',)),
  ('Hotel', 'zum Hotel', ('hotel',)),
  ('Dorf', 'zum Dorf', ('village',)),
  ('Krankenhaus', 'zum Krankenhaus', ('hospital',)),
  ('Strand', 'zum Strand', ('beach',)),
  ('Büro', 'zum Büro', ('office',)),
)
_ARTICLE = {
  'Schule': 'die',
  'Hotel': 'das',
  'Dorf': 'das',
  'Krankenhaus': 'das',
  'Büro': 'das',
}


def distance(rng: random.Random) -> Drawn:
  """'Der Bahnhof ist drei Kilometer von hier entfernt.'"""
  lemma, to, heads = phrases.zipf(rng, _FAR)
  if rng.random() < 0.35:
    count, unit, units = 50 * rng.randint(2, 18), 'Meter', ('meter', 'metre')
  else:
    far_away = lemma in ('Flughafen', 'Strand', 'See', 'Dorf')
    count, unit, units = (
      rng.randint(1, 60 if far_away else 9),
      'Kilometer',
      ('kilometer', 'kilometre'),
    )
  german = ('ein' if count == 1 else numbers.german_number(count)) + f' {unit}'
  far = tuple(
    f'{word} {u}{"s" if count > 1 else ""}'
    for u in units
    for word in numbers.english_number(count)[:2]
  )
  draw = rng.random()
  if draw < 0.4:
    accusative = german.replace('ein ', 'einen ', 1) if count == 1 else german
    the = tuple(f'the {head} is' for head in heads)
    return (
      f'{_ARTICLE.get(lemma, "der").capitalize()} {lemma} ist {accusative} von '
      'hier entfernt.',
      clauses.renderings([[the, far, ('from here', 'away from here')]]),
      'distance',
    )
  if draw < 0.7:
    ist = 'ist' if count == 1 else 'sind'
    return (
      f'Bis {to} {ist} es {german}.',
      clauses.renderings(
        [[('it is', "it's"), far, tuple(f'to the {head}' for head in heads)]]
      ),
      'distance',
    )
  subject = referents.subject(rng)
  count = rng.randint(2, 25)
  infinitive, er, preterite, participle, wordings, times = rng.choice(
    (
      ('laufen', 'läuft', 'lief', 'gelaufen', ('run', 'walk'), True),
      ('wandern', 'wandert', 'wanderte', 'gewandert', ('hike',), True),
      ('schwimmen', 'schwimmt', 'schwamm', 'geschwommen', ('swim',), False),
    )
  )
  if not times:
    count = rng.randint(2, 5)
  verb = morphology.strong(infinitive, er, preterite, participle, auxiliary='sein')
  clause = Clause(
    subject,
    verb,
    tuple(
      (word, f' {english.numbers_word(count)} {u}s')
      for u in ('kilometer', 'kilometre')
      for word in wordings
    ),
    topic='distance',
  )
  clause.middle.append(
    (clauses.INDEFINITE, f'{numbers.german_number(count)} Kilometer')
  )
  if rng.random() < 0.6:
    clause.tense, clause.aspects = 'perfect', ('past', 'perfect')
    if rng.random() < 0.5:
      clause.time, clause.aspects = phrases.zipf(rng, words.PAST[:4]), ('past',)
  else:
    clause.time = phrases.zipf(rng, words.HABIT)
  return state_or_ask(rng, clause, 0.1)

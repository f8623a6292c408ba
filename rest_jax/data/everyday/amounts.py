"""Sentences with amounts and durations.

Each function draws one sentence and returns (German, English wordings, topic).
"""

import random

from rest_jax.data.everyday import (
  clauses,
  english,
  morphology,
  numbers,
  phrases,
  predicates,
  referents,
  verbs,
  words,
)
from rest_jax.data.everyday.clauses import Clause
from rest_jax.data.everyday.descriptions import Drawn, ask, finish, state_or_ask
from rest_jax.data.everyday.phrases import NOUNS

_BY_LEMMA = {noun.lemma: noun for listed in NOUNS.values() for noun in listed}


_AMOUNTS = (  # German measure one, many; English one, many; things
  ('ein Glas', 'Gläser', 'glass', 'glasses', ('Wasser', 'Wein', 'Saft', 'Milch')),
  ('eine Tasse', 'Tassen', 'cup', 'cups', ('Kaffee', 'Tee')),
  ('eine Flasche', 'Flaschen', 'bottle', 'bottles', ('Wasser', 'Wein', 'Bier', 'Saft')),
  (
    'ein Stück',
    'Stück',
    'piece',
    'pieces',
    ('Kuchen', 'Pizza', 'Brot', 'Käse', 'Schokolade'),
  ),
  (
    'ein Kilo',
    'Kilo',
    'kilo',
    'kilos',
    ('Kartoffeln', 'Tomaten', 'Äpfel', 'Fleisch', 'Reis', 'Bananen'),
  ),
)
_AMOUNT_ENGLISH = {
  'Wasser': 'water',
  'Wein': 'wine',
  'Saft': 'juice',
  'Milch': 'milk',
  'Kaffee': 'coffee',
  'Tee': 'tea',
  'Bier': 'beer',
  'Kuchen': 'cake',
  'Pizza': 'pizza',
  'Brot': 'bread',
  'Käse': 'cheese',
  'Schokolade': 'chocolate',
  'Kartoffeln': 'potatoes',
  'Tomaten': 'tomatoes',
  'Äpfel': 'apples',
  'Fleisch': 'meat',
  'Reis': 'rice',
  'Bananen': 'bananas',
}


def amount(rng: random.Random) -> Drawn:
  """'Ich möchte eine Tasse Tee.', 'Wir brauchen zwei Kilo Kartoffeln.'"""
  index = rng.randrange(len(_AMOUNTS))
  one, many, unit, units, things = _AMOUNTS[index]
  stuff = phrases.zipf(rng, things)
  count = rng.choice((1, 1, 1, 2, 2, 3, 4, 5, 6))
  german = (
    f'{one} {stuff}'
    if count == 1
    else (f'{numbers.german_number(count)} {many} {stuff}')
  )
  measure = (
    (f'a {unit}', f'one {unit}')
    if count == 1
    else (f'{english.numbers_word(count)} {units}',)
  )
  what = tuple(f'{m} of {_AMOUNT_ENGLISH[stuff]}' for m in measure)
  question = rng.random() < 0.2
  subject = referents.subject(rng, question=question)
  draw = rng.random()
  if draw < 0.3:  # möchte without infinitive
    clause = Clause(
      subject,
      morphology.MODALS['möchten'],
      tuple((verb, f' {w}') for verb in ('like', 'want') for w in what),
      ('would',),
    )
    clause.patterns = tuple(('like', f' {w}') for w in what)
  else:
    verb = rng.choice(
      [
        v
        for v in predicates.BY_FRAME['a']
        if v.german.infinitive
        in (
          ('kaufen', 'brauchen', 'bestellen')
          if index > 3
          else ('kaufen', 'brauchen', 'bestellen', 'essen')
          if index == 3
          else ('bestellen', 'trinken')
        )
        and 'O' not in v.flags
      ]
    )
    clause = Clause(
      subject,
      verb.german,
      tuple((head, tail % w) for head, tail in verb.english[:1] for w in what),
    )
    if verb.is_stative:
      clause.aspects = ('simple',)
    elif draw < 0.6:
      clause.tense, clause.aspects = 'perfect', ('past', 'perfect')
      if draw < 0.5:
        clause.time, clause.aspects = phrases.zipf(rng, words.PAST), ('past',)
    elif draw < 0.8:
      clause.modal = morphology.MODALS['wollen']
      clause.aspects = ('want_to',)
    else:
      clause.aspects = ('progressive', 'simple')
  clause.middle.append((clauses.INDEFINITE, german))
  clause.topic = 'amount'
  return (
    ask(clause)
    if question and subject.lemma not in ('ich', 'wir')
    else (finish(clause, front_time=rng.random() < 0.3))
  )


_LASTS = ('Film', 'Konzert', 'Reise', 'Kurs', 'Besprechung', 'Prüfung', 'Spiel')


def duration(rng: random.Random) -> Drawn:
  """'Der Film dauert zwei Stunden.', 'Ich lerne seit drei Jahren Deutsch.'"""
  count = rng.choice((1, 2, 2, 3, 3, 4, 5, 6, 8, 10))
  word = english.numbers_word(count)
  if rng.random() < 0.4:
    lemma = rng.choice(_LASTS)
    if lemma not in ('Reise', 'Kurs'):
      count = min(count, 4)
      word = english.numbers_word(count)
    one, many, unit = {
      'Reise': ('einen Tag', 'Tage', 'day'),
      'Kurs': ('eine Woche', 'Wochen', 'week'),
    }.get(lemma, ('eine Stunde', 'Stunden', 'hour'))
    german = one if count == 1 else f'{numbers.german_number(count)} {many}'
    long = (
      (english.article(unit), f'one {unit}') if count == 1 else (f'{word} {unit}s',)
    )
    clause = Clause(
      phrases.noun_phrase(_BY_LEMMA[lemma], rng.choice(('der', 'der', 'dies'))),
      morphology.weak('dauern'),
      tuple((verb, f' {w}') for verb in ('last', 'take') for w in long),
      topic='duration',
    )
    if rng.random() < 0.35:
      clause.tense, clause.aspects = 'perfect', ('past',)
    clause.middle.append((clauses.FIXED, german))
    return state_or_ask(rng, clause, 0.1)
  one, many, unit = rng.choice(
    (
      ('einem Jahr', 'Jahren', 'year'),
      ('einer Woche', 'Wochen', 'week'),
      ('einem Monat', 'Monaten', 'month'),
      ('einer Stunde', 'Stunden', 'hour'),
    )
  )
  since = f'seit {one if count == 1 else f"{numbers.german_number(count)} {many}"}'
  long = (english.article(unit), f'one {unit}') if count == 1 else (f'{word} {unit}s',)
  if unit == 'hour':
    verb = rng.choice(
      [
        v
        for v in predicates.BY_FRAME['-']
        if v.german.infinitive
        in ('warten', 'schlafen', 'arbeiten', 'lernen', 'telefonieren', 'tanzen')
      ]
    )
  else:
    pool = [
      v
      for v in verbs.VERBS
      if v.object_classes
      and v.object_classes[0] in ('language', 'instrument', 'subject')
      and v.german.infinitive != 'sprechen'
    ]
    pool += list(predicates.BY_FRAME['loc'][:2]) * 2
    verb = rng.choice(pool)
  clause = predicates.verb_clause(
    rng, verb=verb, tense='present', timed=False, may_negate=False, placed=False
  )
  clause.patterns = (
    tuple(
      ('be', f' {english.verb_form(head, "ing")}{tail}')
      for head, tail in clause.patterns
      if head != 'be'
    )
    or clause.patterns
  )
  clause.aspects, clause.topic = ('perfect',), 'duration'
  if verb.places in ('live',):
    clause.patterns += tuple(verb.english)
  clause.time = (since, tuple(f'for {w}' for w in long))
  front = rng.random() < 0.25
  german = clause.german_statement(front_time=front)
  return (
    english.sentence(german),
    clauses.renderings(clause.english_slots(may_front=False, initial=not front)),
    'duration',
  )

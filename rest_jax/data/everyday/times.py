"""Sentences with clock times and dates.

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
  words,
)
from rest_jax.data.everyday.clauses import Clause
from rest_jax.data.everyday.descriptions import Drawn, finish, state_or_ask
from rest_jax.data.everyday.phrases import NOUNS

_HOURS = (8, 7, 9, 10, 6, 3, 5, 4, 2, 1, 12, 11)
_MINUTES = (30, 0, 15, 45, 10, 20, 5, 50, 40, 25, 55, 35)


def _clock(rng: random.Random) -> numbers.Wording:
  return numbers.clock(
    phrases.zipf(rng, _HOURS), phrases.zipf(rng, _MINUTES), official=rng.random() < 0.25
  )


def clock_now(rng: random.Random) -> Drawn:
  """'Es ist halb fünf.', 'Jetzt ist es Viertel nach drei.'"""
  german, wordings = _clock(rng)
  it_is: tuple[str, ...] = ('it is', "it's")
  draw = rng.random()
  if draw < 0.1:
    return (
      f'Ist es schon {german}?',
      clauses.renderings(
        [[('is it',), wordings, ('already',)], [('is it already',), wordings, ('',)]],
        '?',
      ),
      'clock',
    )
  if draw < 0.22:
    return (
      f'Jetzt ist es {german}.',
      clauses.renderings([[('now',), it_is, wordings], [it_is, wordings, ('now',)]]),
      'clock',
    )
  if draw < 0.34:
    return (
      f'Es ist schon {german}.',
      clauses.renderings(
        [
          [('it is already', "it's already"), wordings],
          [it_is, tuple(f'{w} already' for w in wordings)],
        ]
      ),
      'clock',
    )
  if draw < 0.44:
    return (
      f'Es ist erst {german}.',
      clauses.renderings([[('it is only', "it's only"), wordings]]),
      'clock',
    )
  return f'Es ist {german}.', clauses.renderings([[it_is, wordings]]), 'clock'


_TIMETABLE = (  # nouns, parts of the verb, English
  (('Zug', 'Bus'), ('an_kommen', 'kommt_an', 'kam_an', 'angekommen', 'sein'), 'arrive'),
  (
    ('Zug', 'Bus'),
    ('ab_fahren', 'fährt_ab', 'fuhr_ab', 'abgefahren', 'sein'),
    'leave/depart',
  ),
  (
    ('Film', 'Konzert', 'Kurs', 'Party', 'Spiel', 'Besprechung', 'Hochzeit', 'Prüfung'),
    ('an_fangen', 'fängt_an', 'fing_an', 'angefangen', 'haben'),
    'start/begin',
  ),
  (
    ('Film', 'Konzert', 'Kurs', 'Party', 'Spiel', 'Besprechung', 'Prüfung'),
    ('beginnen', 'beginnt', 'begann', 'begonnen', 'haben'),
    'begin/start',
  ),
  (
    ('Museum', 'Restaurant', 'Schule'),
    ('öffnen', 'öffnet', 'öffnete', 'geöffnet', 'haben'),
    'open',
  ),
  (
    ('Museum', 'Restaurant', 'Büro'),
    ('schließen', 'schließt', 'schloss', 'geschlossen', 'haben'),
    'close',
  ),
)
_BY_LEMMA = {noun.lemma: noun for listed in NOUNS.values() for noun in listed}
_TRIPS = tuple(
  verb
  for verb in predicates.ACTIONS['-']
  if verb.german.infinitive
  in (
    'aufstehen',
    'frühstücken',
    'einkaufen',
    'lernen',
    'arbeiten',
    'duschen',
    'zurückkommen',
    'anfangen',
    'aufhören',
    'kochen',
    'ausgehen',
  )
)


def timetable(rng: random.Random) -> Drawn:
  """'Der Zug kommt um Viertel nach drei an.', 'Um acht Uhr stehe ich auf.'"""
  german, wordings = _clock(rng)
  at = (f'um {german}', tuple(f'at {wording}' for wording in wordings))
  if rng.random() < 0.45:
    tense = (
      'perfect'
      if rng.random() < 0.3
      else 'modal'
      if rng.random() < 0.25
      else ('present')
    )
    clause = predicates.verb_clause(
      rng,
      tense=tense,
      may_negate=False,
      timed=False,
      placed=False,
      verb=rng.choice(_TRIPS) if rng.random() < 0.5 else None,
      frame='dir',
    )
    if tense == 'present':
      clause.aspects = ('simple', 'progressive', 'future')
    elif tense == 'perfect':
      clause.aspects = ('past',)
  else:
    lemmas, parts, wording = rng.choice(_TIMETABLE)
    noun = _BY_LEMMA[phrases.zipf(rng, lemmas)]
    determiner = 'der' if rng.random() < 0.8 else rng.choice(('mein', 'unser', 'dies'))
    if noun.lemma in ('Museum', 'Restaurant', 'Party', 'Hochzeit'):
      determiner = 'der'
    verb = morphology.strong(*parts[:4], auxiliary=parts[4])
    clause = Clause(
      phrases.noun_phrase(noun, determiner),
      verb,
      tuple((word, '') for word in wording.split('/')),
    )
    draw = rng.random()
    if draw < 0.25:
      clause.tense, clause.aspects = 'perfect', ('past',)
    elif draw < 0.4:
      clause.tense, clause.aspects = 'future', ('future', 'going_to')
    else:
      clause.aspects = ('simple', 'future')
  clause.time, clause.topic = at, 'clock'
  return state_or_ask(rng, clause)


_OWN = {
  'mein': 'my',
  'dein': 'your',
  'sein': 'his',
  'ihr:her': 'her',
  'unser': 'our',
  'euer': 'your',
  'ihr:their': 'their',
}


def _birthday(rng: random.Random, on: words.Adverbial) -> Drawn:
  """'Ich habe am elften Juli Geburtstag.'"""
  subject = referents.subject(rng)
  while subject.person >= 3:
    subject = referents.subject(rng)
  own = _OWN[subject.owner]
  haben = morphology.HABEN.present[subject.person]
  if subject.is_pronoun:
    starts: tuple[str, ...] = (f'{own} birthday is',)
  else:
    names = subject.english
    starts = tuple(
      f'{name}{chr(39) if name.endswith("s") else chr(39) + "s"} birthday is'
      for name in names
    )
  has = 'has' if subject.english_person == 2 else 'have'
  starts += tuple(f'{name} {has} {own} birthday' for name in subject.english)
  if rng.random() < 0.3:
    german = f'{on[0]} {haben} {subject.german[0]} Geburtstag'
  else:
    german = f'{subject.german[0]} {haben} {on[0]} Geburtstag'
    if subject.initial:
      starts += tuple(f"{name}'s birthday is" for name in subject.initial)
  starts = tuple(dict.fromkeys(starts))
  return english.sentence(german), clauses.renderings([[starts, on[1]]]), 'date'


def date(rng: random.Random) -> Drawn:
  """'Heute ist der dritte Mai.', 'Am dritten Mai fliege ich nach Rom.'"""
  month = rng.randint(1, 12)
  day = rng.randint(1, numbers.DAYS_OF_MONTH[month - 1])
  after_am, after_der, wordings = numbers.date(day, month)
  on = (f'am {after_am}', tuple(f'on {wording}' for wording in wordings))
  draw = rng.random()
  if draw < 0.2:
    german, day_words, is_ = rng.choice(
      (
        ('heute', ('today',), ('is',)),
        ('morgen', ('tomorrow',), ('is',)),
        ('gestern', ('yesterday',), ('was',)),
        ('übermorgen', ('the day after tomorrow',), ('is',)),
      )
    )
    past = 'war' if german == 'gestern' else 'ist'
    return (
      english.sentence(f'{german} {past} der {after_der}'),
      clauses.renderings([[day_words, is_, wordings]]),
      'date',
    )
  if draw < 0.42:
    return _birthday(rng, on)
  if draw < 0.62:
    noun = phrases.zipf(rng, NOUNS['event'])
    owner_word = rng.choice(('der', 'der', 'unser'))
    clause = Clause(
      phrases.noun_phrase(noun, owner_word),
      morphology.SEIN,
      (('be', ''),),
      topic='date',
    )
    if rng.random() < 0.3:
      clause.tense, clause.aspects = 'preterite', ('past',)
    clause.middle.append((clauses.FIXED, on[0]))
    clause.place = on[1]
    return state_or_ask(rng, clause, 0.12)
  tense = rng.choice(('perfect', 'present', 'modal', 'future', 'perfect'))
  clause = predicates.verb_clause(
    rng,
    tense=tense,
    timed=False,
    placed=False,
    may_negate=False,
    frame=rng.choice(('dir', 'a')),
  )
  if tense == 'present':
    clause.aspects = ('future', 'progressive', 'going_to')
    if clause.patterns and clause.german.infinitive in (
      'kennen',
      'sprechen',
      'verstehen',
      'lieben',
      'sehen',
      'brauchen',
    ):
      return date(rng)
  elif tense == 'perfect':
    clause.aspects = ('past',)
  clause.time, clause.topic = on, 'date'
  return finish(clause, front_time=rng.random() < 0.5)

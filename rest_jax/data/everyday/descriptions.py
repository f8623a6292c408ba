"""Sentences with sein, haben, es gibt; comparison, weather, likes, positions.

Each function draws one sentence and returns (German, English wordings, topic).
"""

import random

from rest_jax.data.everyday import (
  clauses,
  english,
  morphology,
  phrases,
  referents,
  words,
)
from rest_jax.data.everyday.clauses import Clause
from rest_jax.data.everyday.phrases import NOUNS

Drawn = tuple[str, tuple[str, ...], str]

DESCRIBED = (
  'building',
  'clothes',
  'printed',
  'vehicle',
  'home',
  'device',
  'media',
  'dish',
  'furniture',
  'town',
  'question',
  'text',
  'animal',
  'bag',
  'drink',
  'exam',
  'food',
)
STATES = frozenset({'müde', 'krank', 'hungrig', 'glücklich', 'traurig'})
_DEGREES = (('', ''), ('sehr', 'very '), ('zu', 'too '), ('ziemlich', 'quite '))
_GRADES = (55, 75, 88, 100)
_NO_DEGREE = frozenset({'kaputt', 'lecker'})
OWNABLE = frozenset(
  {
    'clothes',
    'vehicle',
    'home',
    'device',
    'furniture',
    'bag',
    'printed',
    'question',
  }
)


def finish(clause: Clause, *, front_time: bool = False, mark: str = '.') -> Drawn:
  """A statement made of one clause."""
  german = clause.german_statement(front_time=front_time)
  orders = clause.english_slots(front_time=front_time, initial=not front_time)
  return english.sentence(german, mark), clauses.renderings(orders, mark), clause.topic


def ask(clause: Clause, german: str = '', wh: tuple[str, ...] = ()) -> Drawn:
  """A question: yes/no, or with the question word before it."""
  text = f'{german} {clause.german_question()}'.strip()
  slots = clause.english_slots(question=True)[0]
  return (
    english.sentence(text, '?'),
    clauses.renderings([[wh, *slots] if wh else slots], '?'),
    clause.topic,
  )


def state_or_ask(rng: random.Random, clause: Clause, chance: float = 0.18) -> Drawn:
  """A statement, or with some chance the yes/no question."""
  if rng.random() < chance and clause.subject.lemma not in ('ich', 'wir'):
    return ask(clause)
  front = clause.time is not None and rng.random() < 0.35
  return finish(clause, front_time=front)


def described_thing(
  rng: random.Random, noun_class: str, *, determiner: str = ''
) -> phrases.Phrase:
  """'das Haus', 'dieses Buch', 'deine Schuhe' as a subject."""
  noun = phrases.zipf(rng, NOUNS[noun_class])
  if not determiner:
    draw = rng.random()
    determiner = (
      'der'
      if draw < 0.6
      else 'dies'
      if draw < 0.78 or (noun_class not in OWNABLE)
      else rng.choice(('mein', 'dein', 'sein', 'ihr', 'unser', 'mein'))
    )
  plural = not noun.is_mass and noun_class not in ('town',) and rng.random() < 0.2
  return phrases.noun_phrase(noun, determiner, None, plural)


def fitting(noun_class: str, subject: phrases.Phrase) -> tuple[words.Adjective, ...]:
  """The adjectives that fit the noun of a phrase."""
  noun = next(
    (n for n in NOUNS[noun_class] if n.lemma == subject.lemma), NOUNS[noun_class][0]
  )
  return phrases.adjectives_for(noun_class, noun)


def adjective_sentence(rng: random.Random) -> Drawn:
  """'Das Haus ist sehr groß.', 'Gestern war mein Bruder krank.'"""
  if rng.random() < 0.45:
    subject, noun_class = referents.subject(rng), 'kin'
    adjective = phrases.zipf(
      rng,
      [
        adjective
        for adjective in words.ADJECTIVES
        if adjective.classes & {'kin', 'person'}
      ],
    )
  else:
    noun_class = phrases.zipf(rng, DESCRIBED)
    subject = described_thing(rng, noun_class)
    adjective = phrases.zipf(rng, fitting(noun_class, subject))
  german, wordings = adjective.german, adjective.english
  topic = 'predicate adjective'
  clause = Clause(subject, morphology.SEIN, (), topic=topic)
  draw = rng.random()
  if draw < 0.18:
    clause.negated_english = True
    clause.middle.append((clauses.NEGATION, 'nicht'))
  if adjective.gradable and german not in _NO_DEGREE:
    degree, english_degree = rng.choices(_DEGREES, cum_weights=_GRADES)[0]
    if degree not in ('zu', 'ziemlich') or not clause.negated_english:
      german = f'{degree} {german}'.strip()
      wordings = tuple(english_degree + word for word in wordings)
  clause.middle.append((clauses.FIXED, german))
  clause.patterns = tuple(('be', f' {word}') for word in wordings)
  draw = rng.random()
  if adjective.german in STATES and draw < 0.3:
    clause.time = words.TODAY[0]
  elif draw < 0.5 and (
    adjective.german in STATES
    or noun_class in ('media', 'dish', 'exam', 'question', 'drink')
  ):
    clause.tense, clause.aspects = 'preterite', ('past',)
    if adjective.german in STATES and rng.random() < 0.6:
      clause.time = phrases.zipf(rng, words.PAST)
  return state_or_ask(rng, clause)


def job(rng: random.Random) -> Drawn:
  """'Meine Tante ist Ärztin.', 'Er möchte Koch werden.'"""
  subject = referents.subject(rng)
  while (subject.person != 2 and subject.lemma not in ('ich', 'du')) or (
    subject.lemma in {'Junge', 'Mädchen', 'Kind'}
    or any(subject.lemma == n.lemma for n in NOUNS['person'][3:])
  ):
    subject = referents.subject(rng)
  man, woman, wordings = phrases.zipf(rng, words.JOBS)
  if man == 'Student' and subject.lemma in _ELDERS:
    man, woman, wordings = words.JOBS[0]
  if subject.person == 2:
    german = woman if subject.owner == 'ihr:her' else man
  else:
    german = rng.choice((man, woman))
  heads = wordings.split('/')
  clause = Clause(subject, morphology.SEIN, (), topic='predicate noun')
  draw = rng.random()
  if draw < 0.25:
    clause.german = morphology.WERDEN
    clause.modal = morphology.MODALS['wollen' if draw < 0.1 else 'möchten']
    clause.aspects = ('want_to',) if draw < 0.1 else ('would_like', 'want_to')
    clause.patterns = tuple((v, f' {h}') for v in ('become', 'be') for h in heads)
  else:
    clause.patterns = tuple(('be', f' {h}') for h in heads)
    if draw < 0.4:
      clause.tense, clause.aspects = 'preterite', ('past',)
    elif draw < 0.5:
      clause.negated_english = True
      german = f'kein{"e" if german == woman else ""} {german}'
  clause.middle.append((clauses.FIXED, german))
  return state_or_ask(rng, clause)


_ELDERS = frozenset({'Mutter', 'Vater', 'Oma', 'Opa', 'Onkel', 'Tante', 'Mann', 'Frau'})
_HAVE = (  # German, with kein, English, negative English where it differs
  ('Hunger', 'keinen Hunger', 'be hungry'),
  ('Zeit', 'keine Zeit', 'have time'),
  ('Durst', 'keinen Durst', 'be thirsty'),
  ('Angst', 'keine Angst', 'be afraid/be scared'),
  ('Fieber', 'kein Fieber', 'have a fever'),
  ('recht', '', 'be right'),
  ('Kopfschmerzen', 'keine Kopfschmerzen', 'have a headache'),
  ('Glück', 'kein Glück', 'be lucky'),
  ('viel Arbeit', '', 'have a lot of work'),
  ('wenig Geld', '', 'have little money'),
  ('viele Freunde', '', 'have many friends/have a lot of friends'),
)
_OWNED = ('animal', 'vehicle', 'device', 'question', 'bag', 'furniture', 'flat')


def possession(rng: random.Random) -> Drawn:
  """'Wir haben keine Zeit.', 'Sie hatte einen kleinen Hund.'"""
  subject = referents.subject(rng)
  clause = Clause(subject, morphology.HABEN, (), topic='haben')
  negated = rng.random() < 0.25
  draw = rng.random()
  if draw < 0.45:
    german, kein, wordings = phrases.zipf(rng, _HAVE)
    if negated and kein:
      german, clause.negated_english = kein, True
    patterns = [wording.partition(' ') for wording in wordings.split('/')]
    clause.patterns = tuple((head, f' {tail}') for head, _, tail in patterns)
  else:
    if draw < 0.6 and not negated:
      noun = phrases.zipf(
        rng,
        [
          n
          for n in NOUNS['kin']
          if n.lemma
          in ('Bruder', 'Schwester', 'Sohn', 'Tochter', 'Tante', 'Onkel', 'Cousine')
        ],
      )
      count = rng.choice((1, 1, 2, 2, 3, 4))
      found = phrases.noun_phrase(
        noun, 'ein' if count == 1 else '', None, count > 1, count if count > 1 else 0
      )
    else:
      noun_class = phrases.zipf(rng, _OWNED)
      noun = phrases.zipf(rng, NOUNS[noun_class])
      adjective = None
      if rng.random() < 0.35:
        pool = [
          a for a in phrases.adjectives_for(noun_class, noun) if a.german not in STATES
        ]
        adjective = phrases.zipf(rng, pool) if pool else None
      found = phrases.noun_phrase(
        noun, 'kein' if negated else 'ein', adjective, noun.gender == 'p'
      )
      clause.negated_english = negated
    german = found.german[1]
    clause.patterns = tuple(('have', f' {o}') for o in found.english_object)
  clause.middle.append((clauses.INDEFINITE, german))
  if rng.random() < 0.22:
    clause.tense, clause.aspects = 'preterite', ('past',)
    if draw < 0.45 and rng.random() < 0.5:
      clause.time = phrases.zipf(rng, words.PAST[:4])
  elif draw < 0.35 and rng.random() < 0.2:
    clause.time = words.TODAY[0]
  return state_or_ask(rng, clause)


def existence(rng: random.Random) -> Drawn:
  """'In Köln gibt es viele Museen.', 'Hier gibt es keinen Supermarkt.'"""
  places = words.PLACES['study'] + (
    ('hier', ('here',)),
    ('in der Stadt', ('in the city', 'in town')),
    ('im Dorf', ('in the village',)),
    ('in dieser Straße', ('on this street', 'in this street')),
  )
  german_place, english_place = phrases.zipf(rng, places[::-1])
  noun_class = rng.choice(('building', 'building', 'town'))
  noun = phrases.zipf(rng, NOUNS[noun_class][2:])
  if noun.lemma in ('Straße', 'Strand', 'Berg', 'Insel', 'Garten', 'Wald', 'Büro'):
    noun = NOUNS['building'][rng.choice((2, 3, 4, 5, 8, 10))]
  draw = rng.random()
  adjective = None
  if rng.random() < 0.3:
    adjective = phrases.zipf(rng, phrases.adjectives_for(noun.noun_class, noun))
  if draw < 0.45:
    found = phrases.noun_phrase(noun, 'ein', adjective)
    verb, object_ = 'there is', found.english
    short = "there's"
  elif draw < 0.6:
    found = phrases.noun_phrase(noun, 'kein', adjective)
    verb, object_, short = 'there is', found.english, "there's"
    object_ = found.english
  else:
    count = rng.choice((0, 0, 2, 2, 3, 4, 5))
    found = phrases.noun_phrase(noun, '', adjective, True, count)
    verb, short, object_ = 'there are', '', found.english
    if not count:
      found = found._replace(german=(found.german[0], f'viele {found.german[1]}', ''))
      object_ = tuple(f'{many} {o}' for many in ('many', 'a lot of') for o in object_)
  heads = tuple(w for w in (verb, short) if w)
  if rng.random() < 0.25 and draw < 0.45:
    return (
      f'Gibt es {german_place} {found.german[1]}?',
      clauses.renderings([[('is there',), object_, english_place]], '?'),
      'existence',
    )
  if rng.random() < 0.7:
    german = f'{german_place} gibt es {found.german[1]}'
  else:
    german = f'es gibt {german_place} {found.german[1]}'
  orders = [[heads, object_, english_place], [english_place, heads, object_]]
  if german.startswith('es') or german_place == 'hier':
    return english.sentence(german), clauses.renderings(orders), 'existence'
  return english.sentence(german), clauses.renderings(orders[::-1]), 'existence'

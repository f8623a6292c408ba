"""Imperatives, suggestions, wishes.

Each function draws one sentence and returns (German, English wordings, topic).
"""

import random

from rest_jax.data.everyday import (
  clauses,
  english,
  morphology,
  phrases,
  predicates,
  referents,
  words,
)
from rest_jax.data.everyday.descriptions import Drawn, ask

_CALM = (
  ('ruhig', 'quiet'),
  ('vorsichtig', 'careful'),
  ('nett', 'nice/kind'),
  ('pünktlich', 'on time/punctual'),
  ('ehrlich', 'honest'),
  ('leise', 'quiet'),
  ('freundlich', 'friendly'),
  ('nicht traurig', 'sad'),
  ('nicht so laut', 'so loud'),
  ('nicht böse', 'angry'),
)


def _be_calm(rng: random.Random, address: str, *, bitte: bool, mark: str) -> Drawn:
  """'Sei bitte leise!', 'Seien Sie vorsichtig.'"""
  adjective, wordings = rng.choice(_CALM)
  verb = {'du': 'sei', 'ihr': 'seid', 'Sie': 'seien Sie'}[address]
  heads = ("don't be", 'do not be') if adjective.startswith('nicht') else ('be',)
  core = tuple(f'{be} {word}' for be in heads for word in wordings.split('/'))
  german = english.sentence(f'{verb}{" bitte" if bitte else ""} {adjective}', mark)
  if not bitte:
    return german, clauses.renderings([[core]], mark), 'imperative'
  return (
    german,
    (
      *clauses.renderings([[('please',), core]], mark),
      *clauses.renderings([[core]], f', please{mark}'),
    ),
    'imperative',
  )


def imperative(rng: random.Random) -> Drawn:
  """'Ruf bitte deine Mutter an!', 'Seid leise!', 'Machen Sie das Fenster auf.'"""
  address = rng.choices(('du', 'ihr', 'Sie'), cum_weights=(50, 70, 100))[0]
  bitte = rng.random() < 0.4
  mark = '!' if rng.random() < 0.5 else '.'
  if rng.random() < 0.1:
    return _be_calm(rng, address, bitte=bitte, mark=mark)
  clause = predicates.verb_clause(
    rng,
    subject=phrases.PRONOUNS[address],
    it=True,
    tense='bare',
    actions=True,
    frame=rng.choices(
      ('a', 'da', 'd', 'p', '-', 'dir'), cum_weights=(42, 58, 70, 80, 92, 100)
    )[0],
  )
  if clause.german.infinitive in (
    'weinen',
    'rauchen',
    'studieren',
    'leihen',
    'träumen',
  ):
    return imperative(rng)
  draw = rng.random()
  if draw < 0.25:
    clause.time = rng.choice(
      (
        ('heute', ('today',)),
        ('morgen', ('tomorrow',)),
        ('jetzt', ('now',)),
        ('sofort', ('immediately', 'right away', 'at once')),
      )
    )
    if clause.negated_english and clause.time[0] in ('jetzt', 'sofort'):
      clause.time = None
  german = clause.german_imperative(address)
  slots = clause.english_imperative()
  if not bitte:
    return (
      english.sentence(german, mark),
      clauses.renderings([slots], mark),
      'imperative',
    )
  if rng.random() < 0.5:
    german = f'bitte {german}'
  else:
    german = _insert_bitte(german, 2 if address == 'Sie' else 1)
  wordings = (
    *clauses.renderings([[('please',), *slots]], mark)[:20],
    *clauses.renderings([slots], f', please{mark}')[:12],
  )
  return english.sentence(german, mark), wordings, 'imperative'


_SHORT_WORDS = frozenset('mich mir uns ihn ihm sie ihr es ihnen dich euch sich'.split())


def _insert_bitte(german: str, position: int) -> str:
  """Puts 'bitte' behind the verb and the pronouns: 'Ruf mich bitte an'."""
  parts = german.split(' ')
  while position < len(parts) and parts[position] in _SHORT_WORDS:
    position += 1
  return ' '.join([*parts[:position], 'bitte', *parts[position:]])


def lets(rng: random.Random) -> Drawn:
  """'Lass uns morgen ins Kino gehen.'"""
  clause = predicates.verb_clause(
    rng, subject=phrases.PRONOUNS['wir'], tense='bare', actions=True, may_negate=False
  )
  if clause.reflexive:
    return lets(rng)
  if rng.random() < 0.5:
    clause.time = phrases.zipf(rng, (*words.FUTURE, *words.TODAY))
  lass = 'lass' if rng.random() < 0.7 else 'lasst'
  slots = clause.english_imperative()
  lets_ = ("let's", 'let us')
  return (
    english.sentence(f'{lass} uns {clause.german_infinitive()}'),
    clauses.renderings([[lets_, *slots]]),
    'imperative',
  )


_WUERDE = morphology.irregular(
  'würden', 'würde würdest würde würden würdet würden', 'würde', '', 'haben'
)


def wish(rng: random.Random) -> Drawn:
  """'Ich würde gern nach Italien reisen.'"""
  question = rng.random() < 0.2
  subject = referents.subject(rng, question=question)
  clause = predicates.verb_clause(
    rng, subject=subject, tense='bare', actions=True, may_negate=False
  )
  clause.modal, clause.aspects = _WUERDE, ('would_like', 'would_love')
  clause.middle.append((clauses.OFTEN, 'gern'))
  if rng.random() < 0.4:
    clause.time = phrases.zipf(rng, words.FUTURE)
  clause.topic = 'wish'
  if question and subject.lemma not in ('ich', 'wir'):
    return ask(clause)
  from_time = clause.time is not None and rng.random() < 0.3
  german = clause.german_statement(front_time=from_time)
  return (
    english.sentence(german),
    clauses.renderings(
      clause.english_slots(front_time=from_time, initial=not from_time)
    ),
    'wish',
  )

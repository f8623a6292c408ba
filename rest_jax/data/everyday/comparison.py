"""Comparative, so ... wie, superlative.

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
from rest_jax.data.everyday.descriptions import (
  DESCRIBED,
  OWNABLE,
  STATES,
  Drawn,
  described_thing,
  fitting,
  state_or_ask,
)
from rest_jax.data.everyday.phrases import NOUNS


def comparison(rng: random.Random) -> Drawn:
  """'Anna ist älter als Paul.', 'so alt wie', 'Dieses Auto ist am schnellsten.'"""
  people = rng.random() < 0.5
  if people:
    pool = [
      a
      for a in words.ADJECTIVES
      if a.gradable and a.classes & {'person'} and a.german not in STATES
    ]
    first = referents.subject(rng)
    second = referents.kin(rng, 'mein') if rng.random() < 0.5 else referents.name(rng)
    if second.lemma == first.lemma or second.german[0].startswith(first.owner):
      second = referents.name(rng)
    if second.lemma == first.lemma:
      return comparison(rng)
    adjective = phrases.zipf(rng, pool)
  else:
    noun_class = phrases.zipf(rng, DESCRIBED)
    first = described_thing(rng, noun_class)
    pool = [a for a in fitting(noun_class, first) if a.gradable]
    second = described_thing(
      rng,
      noun_class,
      determiner='der'
      if rng.random() < 0.6
      else 'mein'
      if noun_class in OWNABLE
      else 'der',
    )
    if second.lemma == first.lemma or not pool:
      return comparison(rng)
    adjective = phrases.zipf(rng, pool)
  other, others = second.german[0], second.english
  clause = Clause(first, morphology.SEIN, (), topic='comparison')
  asked = 0.12
  draw = rng.random()
  if draw < 0.5:
    german = f'{adjective.comparative} als {other}'
    wordings = tuple(
      f' {word} than {o}' for word in adjective.english_comparative for o in others
    )
    if rng.random() < 0.2:
      german = f'viel {german}'
      wordings = tuple(f' much{word}' for word in wordings)
  elif draw < 0.78:
    german = f'so {adjective.german} wie {other}'
    wordings = tuple(f' as {word} as {o}' for word in adjective.english for o in others)
    if draw < 0.66:
      german, clause.negated_english = f'nicht {german}', True
    else:
      german = f'genau{german}' if rng.random() < 0.5 else german
      if german.startswith('genau'):
        wordings = tuple(f' just{w}' for w in wordings) + wordings
  else:
    german = f'am {adjective.superlative}en'
    asked = 0.0
    wordings = tuple(f' the {word}' for word in adjective.english_superlative)
  clause.middle.append((clauses.FIXED, german))
  clause.patterns = tuple(('be', word) for word in wordings)
  return state_or_ask(rng, clause, asked)


_OF_ALL: tuple[words.Adverbial, ...] = (
  ('von allen', ('of all',)),
  ('der Welt', ('in the world',)),
)
_AMONG: dict[str, tuple[words.Adverbial, ...]] = {
  'building': words.PLACES['study'],
  'town': words.PLACES['study'],
  'person': (
    ('in der Schule', ('in the school', 'at the school')),
    ('in der Stadt', ('in the city', 'in town')),
  ),
}


_PUPILS = frozenset('Kind Junge Mädchen Lehrer Lehrerin Schüler Schülerin'.split())


def superlative(rng: random.Random) -> Drawn:
  """'Das ist der schönste Park in Berlin.', 'Das ist mein ältester Bruder.'"""
  noun_class = phrases.zipf(
    rng, ('building', 'media', 'town', 'printed', 'animal', 'person', 'vehicle')
  )
  noun = phrases.zipf(rng, NOUNS[noun_class])
  pool = [
    a
    for a in phrases.adjectives_for(noun_class, noun)
    if a.gradable and a.german not in STATES
  ]
  if (
    noun.gender == 'p'
    or not pool
    or noun.lemma in ('Berg', 'Strand', 'Insel', 'Fluss', 'Wald', 'Dorf', 'Stadt')
  ):
    return superlative(rng)
  adjective = phrases.zipf(rng, pool)
  ending = morphology.adjective(adjective.superlative, 'der', noun.gender, 0)
  article = morphology.determiner('der', noun.gender, 0)
  german = f'das ist {article} {ending} {noun.lemma}'
  nouns_ = tuple(
    f'the {word} {head}'
    for head in noun.english
    for word in adjective.english_superlative
  )
  slots: list[tuple[str, ...]] = [
    ('that is', "that's", 'this is')
    if noun_class == 'person'
    else ('that is', "that's", 'this is', 'it is', "it's"),
    nouns_,
  ]
  if noun_class != 'animal':
    group = _AMONG.get(noun_class, _OF_ALL)
    if noun_class == 'person' and noun.lemma not in _PUPILS:
      group = _AMONG['person'][1:]
    german_place, wordings = phrases.zipf(rng, group)
    german = f'{german} {german_place}'
    slots.append(wordings)
  return english.sentence(german), clauses.renderings([slots]), 'superlative'

"""Who and what sentences are about: subjects and objects by semantic class.

Persons act; kin is owned by somebody; a thing's determiner and number follow from
its class (a key is 'my key', a door 'the door', bread has no article).
"""

import functools
import random
from collections.abc import Sequence

from rest_jax.data.everyday import words
from rest_jax.data.everyday.phrases import (
  MEALS,
  NOUNS,
  PRONOUNS,
  Phrase,
  adjectives_for,
  noun_phrase,
  zipf,
)

_OBJECT_PRONOUNS = ('ich', 'du', 'er', 'sie', 'wir', 'ihr', 'sie_plural', 'Sie')


@functools.cache
def _name(name: str, owner: str) -> Phrase:
  return Phrase((name,) * 3, (name,), (name,), owner=owner, lemma=name)


def name(rng: random.Random) -> Phrase:
  """A first name."""
  if rng.random() < 0.5:
    return _name(zipf(rng, words.WOMEN), 'ihr:her')
  return _name(zipf(rng, words.MEN), 'sein')


def couple(rng: random.Random) -> Phrase:
  """'Anna und Paul'."""
  first, second = zipf(rng, words.WOMEN), zipf(rng, words.MEN)
  return Phrase(
    (f'{first} und {second}',) * 3,
    (f'{first} and {second}',),
    (f'{first} and {second}',),
    5,
    5,
    owner='ihr:their',
    lemma='couple',
  )


def kin(rng: random.Random, owner: str) -> Phrase:
  """'meine Schwester', with the given owner."""
  noun = zipf(rng, NOUNS['kin'])
  plural = (
    noun.plural is not None
    and noun.lemma
    in (
      'Freund',
      'Freundin',
      'Kollege',
      'Nachbar',
      'Schwester',
      'Bruder',
      'Sohn',
      'Tochter',
      'Tante',
      'Onkel',
    )
    and rng.random() < 0.2
  )
  return noun_phrase(noun, owner, None, plural)


def person(rng: random.Random, *, allow_indefinite: bool = False) -> Phrase:
  """'der alte Mann', 'die Kinder', 'diese Frau', 'ein Polizist'."""
  noun = zipf(rng, NOUNS['person'])
  adjective = None
  if rng.random() < 0.2:
    fitting = adjectives_for('person', noun)
    adjective = zipf(rng, fitting)
    if adjective.german in ('müde', 'glücklich', 'hungrig', 'reich'):
      adjective = None
  draw = rng.random()
  determiner = (
    'der' if draw < 0.75 else 'dies' if draw < 0.87 or not (allow_indefinite) else 'ein'
  )
  return noun_phrase(
    noun, determiner, adjective, determiner != 'ein' and rng.random() < 0.22
  )


_SUBJECTS = ('ich', 'er', 'sie', 'wir', 'du', 'sie_plural', 'ihr')
_SUBJECT_SUMS = (30, 44, 58, 72, 81, 88, 92)
_ASKED = ('du', 'Sie', 'er', 'sie', 'ihr', 'sie_plural', 'wir')
_ASKED_SUMS = (38, 56, 66, 76, 84, 89, 92)
_OWNERS = ('mein', 'unser', 'dein', 'sein', 'ihr', 'euer')
_OWNER_SUMS = (50, 66, 78, 88, 96, 100)


def subject(rng: random.Random, *, question: bool = False) -> Phrase:
  """A person as the subject of a statement or a question."""
  draw = rng.random()
  if draw < 0.5:
    if question:
      return PRONOUNS[rng.choices(_ASKED, cum_weights=_ASKED_SUMS)[0]]
    return PRONOUNS[rng.choices(_SUBJECTS, cum_weights=_SUBJECT_SUMS)[0]]
  if draw < 0.65:
    return name(rng)
  if draw < 0.82:
    if question:
      return kin(rng, rng.choice(('dein', 'Ihr', 'euer', 'dein', 'sein')))
    return kin(rng, rng.choices(_OWNERS, cum_weights=_OWNER_SUMS)[0])
  if draw < 0.86:
    return couple(rng)
  return person(rng)


def persons_object(rng: random.Random, of: Phrase) -> Phrase:
  """A person as an object that differs from the subject `of`."""
  while True:
    draw = rng.random()
    if draw < 0.33:
      key = rng.choice(_OBJECT_PRONOUNS)
      found = PRONOUNS[key]
      speakers = (('ich', 'wir'), ('du', 'ihr', 'Sie'))
      if of.lemma == key or any(of.lemma in s and key in s for s in speakers):
        continue
      return found
    if draw < 0.5:
      found = name(rng)
      if of.lemma == 'couple':
        continue
    elif draw < 0.78:
      bound = of.is_pronoun or (of.owner != 'ihr:their' and len(of.german[0]) < 8)
      found = kin(rng, of.owner if bound and of.owner else 'mein')
    else:
      found = person(rng)
    if found.lemma != of.lemma:
      return found


BARE = frozenset({'sport', 'instrument', 'language', 'subject', 'topic', 'sound'})
_DEFINITE_ONLY = frozenset({'weather', 'bills', 'feast', 'purchase'})
_KNOWN = frozenset(
  {
    'holiday',
    'room',
    'chore',
    'switchable',
    'openable',
    'opening',
    'window',
    'town',
    'idea',
    'exam',
    'event',
    'solvable',
    'question',
  }
)
_UNOWNED = frozenset(
  {
    'food',
    'dish',
    'baked',
    'drink',
    'town',
    'show',
    'media',
    'transit',
    'event',
    'song',
    'sound',
    'small',
    'animal',
    'restaurant',
    'solvable',
    'openable',
    'opening',
    'window',
    'switchable',
    'thing',
  }
)


_COUNTED = frozenset(
  {'device', 'vehicle', 'furniture', 'home', 'flat', 'auto', 'building', 'bag', 'room'}
)  # 'zwei Computer kaufen', hardly 'Computer kaufen'


def thing(
  rng: random.Random,
  classes: Sequence[str],
  of: Phrase | None,
  *,
  generic: bool = False,
  negated: bool = False,
  may_own: bool = True,
) -> Phrase:
  """An object of one of the classes, determined as suits the class.

  Args:
    rng: the source of chance.
    classes: semantic classes; the first is the most frequent.
    of: the subject, whose possessive may be used.
    generic: for habits: no single definite thing.
    negated: 'kein' where the phrase would be indefinite.
    may_own: allows the subject's possessive.
  """
  noun_class = classes[0] if len(classes) == 1 else zipf(rng, classes)
  noun = zipf(rng, NOUNS[noun_class])
  if noun_class in BARE:
    return noun_phrase(noun, '', None, noun.gender == 'p')
  owner = of.owner if of is not None and of.owner else 'mein'
  if noun_class == 'kin':
    return kin(rng, owner)
  draw = rng.random()
  if noun_class == 'owned':
    determiner = owner if draw < 0.8 else 'der'
  elif noun_class == 'chore':
    determiner = owner if noun.gender == 'p' and draw < 0.6 else 'der'
  elif noun_class in _DEFINITE_ONLY:
    determiner = 'der'
  elif noun_class in _KNOWN:
    can_own = noun_class not in _UNOWNED and noun_class != 'question'
    determiner = (
      'der' if draw < 0.72 else (owner if can_own and draw < 0.92 else 'dies')
    )
  elif generic or draw < 0.45:
    determiner = 'ein'
  elif draw < 0.75:
    determiner = 'der'
  elif draw < 0.84:
    determiner = 'dies'
  elif noun_class not in _UNOWNED and may_own:
    determiner = owner
  else:
    determiner = 'ein'
  if determiner == 'dies' and noun.lemma in ('Urlaub', 'Weihnachten', 'Licht'):
    determiner = 'der'
  singular_only = noun_class in (
    'holiday',
    'chore',
    'exam',
    'switchable',
    'feast',
    'bills',
    'purchase',
    'transit',
  )
  if noun.lemma in MEALS:
    determiner = 'der'
  if (
    noun_class == 'clothes'
    and owner == determiner
    and owner in ('unser', 'euer', 'ihr:their')
  ):
    determiner = 'der'  # two people rarely share a dress
  one_of_it = noun_class == 'room' and noun.lemma != 'Zimmer'
  is_plural = not (noun.is_mass or singular_only or one_of_it) and rng.random() < 0.2
  count = 0
  if determiner == 'ein':
    if negated:
      determiner = 'kein'
    elif noun.is_mass or is_plural or noun.gender == 'p':
      determiner = ''
      if is_plural and (noun_class in _COUNTED or rng.random() < 0.6):
        count = 2 + min(int(rng.expovariate(0.8)), 10)
  elif is_plural and owner == determiner and noun_class in ('home', 'auto'):
    is_plural = False
  adjective = None
  if rng.random() < 0.22:
    fitting = adjectives_for(noun_class, noun)
    fitting = tuple(a for a in fitting if a.german != 'sauber')  # 'wash the clean ...'
    if fitting:
      adjective = zipf(rng, fitting)
  return noun_phrase(noun, determiner, adjective, is_plural, count)

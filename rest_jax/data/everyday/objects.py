"""Adds to a clause what its verb governs: objects, fixed words, places.

One function per frame of the verb table. Each appends the German words to the
middle field and fills the English patterns, and returns whether an indefinite
object took the negation ('kein').
"""

import random
from collections.abc import Callable

from rest_jax.data.everyday import clauses, morphology, phrases, referents, verbs, words
from rest_jax.data.everyday.clauses import Clause
from rest_jax.data.everyday.english import Wordings

Patterns = tuple[tuple[str, str], ...]  # English (head, tail)

_NEVER_PRONOUN = frozenset(
  {
    'chore',
    'town',
    'food',
    'dish',
    'baked',
    'drink',
    'exam',
    'feast',
    'animal',
  }
)
# Their objects do not belong to the subject yet.
_NEW_THINGS = frozenset(
  {'kaufen', 'bestellen', 'mieten', 'schenken', 'backen', 'kochen'}
)
_PARTICLES = ('on', 'off', 'up')


def _pronoun_patterns(verb: verbs.Verb) -> Patterns:
  """With a pronoun the particle stands last: turn it on, pick him up."""
  if any(verb.moves_particle):
    pairs = zip(verb.english, verb.moves_particle, strict=True)
    return tuple(pattern for pattern, moves in pairs if moves)
  return tuple(
    (head, f' %s {tail.split()[0]}')
    if head in ('turn', 'switch', 'tidy', 'clean') and tail.split()[0] in _PARTICLES
    else (head, tail)
    for head, tail in verb.english
  )


def _fill(patterns: Patterns, found: Wordings) -> Patterns:
  return tuple(
    (head, filled) for head, tail in patterns for filled in clauses.tail_of(tail, found)
  )


def _accusative_rank(found: phrases.Phrase) -> int:
  if found.is_pronoun:
    return clauses.PRONOUN_ACCUSATIVE
  return clauses.INDEFINITE if found.is_indefinite else clauses.DEFINITE


def _dative_english(person: phrases.Phrase) -> Wordings:
  """ihr and ihnen say which 'sie' is meant, so the first wording is the only one."""
  return person.english_object[:1] if person.is_pronoun else person.english_object


def _settles_sie(found: phrases.Phrase, case: int) -> bool:
  """Whether the object says which 'Sie' a subject is: they, not you.

  A possessive ihr does (you would be Ihr), and so does you as the object.
  """
  if found.lemma in ('du', 'ihr', 'Sie'):
    return True
  german = found.german[case]
  return ' ' in german and german.startswith('ihr')


def _bare(
  rng: random.Random,
  clause: Clause,
  verb: verbs.Verb,
  noun_class: str,
  *,
  negated: bool,
) -> bool:
  """Fußball spielen, Deutsch lernen: no article; nicht Fußball but kein Deutsch."""
  found = referents.thing(rng, (noun_class,), clause.subject)
  clause.patterns = _fill(verb.english, found.english)
  takes_kein = negated and noun_class != 'sport'
  german = found.german[1]
  if takes_kein:
    noun = next(n for n in phrases.NOUNS[noun_class] if n.lemma == found.lemma)
    german = phrases.noun_phrase(noun, 'kein').german[1]
  clause.middle.append((clauses.INDEFINITE, german))
  return takes_kein


def _accusative(
  rng: random.Random,
  clause: Clause,
  verb: verbs.Verb,
  *,
  generic: bool,
  negated: bool,
  it: bool,
) -> bool:
  classes = verb.object_classes
  first = phrases.zipf(rng, classes)
  if first in referents.BARE:
    return _bare(rng, clause, verb, first, negated=negated)
  may_be_pronoun = it and not (
    generic or first in _NEVER_PRONOUN or 'persons' in classes or 'T' in verb.flags
  )
  if first == 'persons':
    found = referents.persons_object(rng, clause.subject)
  elif may_be_pronoun and rng.random() < 0.1:
    found = phrases.THINGS[phrases.zipf(rng, phrases.NOUNS[first]).gender]
  else:
    found = referents.thing(
      rng,
      (first,),
      clause.subject,
      generic=generic,
      negated=negated,
      may_own=verb.german.infinitive not in _NEW_THINGS,
    )
  clause.middle.append((_accusative_rank(found), found.german[1]))
  patterns = _pronoun_patterns(verb) if found.is_pronoun else verb.english
  clause.patterns = _fill(patterns, found.english_object)
  clause.bound = _settles_sie(found, morphology.ACCUSATIVE)
  return found.german[1].startswith('kein')


def _dative(
  rng: random.Random,
  clause: Clause,
  verb: verbs.Verb,
  *,
  generic: bool,
  negated: bool,
  it: bool,
) -> bool:
  del generic, negated, it  # persons are definite
  person = referents.persons_object(rng, clause.subject)
  rank = clauses.PRONOUN_DATIVE if person.is_pronoun else clauses.DATIVE
  clause.middle.append((rank, person.german[2]))
  clause.patterns = _fill(verb.english, _dative_english(person))
  clause.bound = _settles_sie(person, morphology.DATIVE)
  return False


def _two(
  rng: random.Random,
  clause: Clause,
  verb: verbs.Verb,
  *,
  generic: bool,
  negated: bool,
  it: bool,
) -> bool:
  person = referents.persons_object(rng, clause.subject)
  rank = clauses.PRONOUN_DATIVE if person.is_pronoun else clauses.DATIVE
  clause.middle.append((rank, person.german[2]))
  first = phrases.zipf(rng, verb.object_classes)
  patterns = verb.english
  with_to = tuple(pattern for pattern in patterns if pattern[1].startswith(' {a}'))
  if with_to and it and not generic and rng.random() < 0.1:
    found = phrases.THINGS[phrases.zipf(rng, phrases.NOUNS[first]).gender]
    patterns = with_to  # give it to him
  else:
    found = referents.thing(
      rng,
      (first,),
      clause.subject,
      generic=generic,
      negated=negated,
      may_own=verb.german.infinitive not in _NEW_THINGS,
    )
  clause.middle.append((_accusative_rank(found), found.german[1]))
  clause.patterns = tuple(
    (head, tail.replace('{d}', who).replace('{a}', what))
    for head, tail in patterns
    for who in _dative_english(person)[:2]
    for what in found.english_object[:2]
  )
  clause.bound = _settles_sie(person, morphology.DATIVE) or _settles_sie(
    found, morphology.ACCUSATIVE
  )
  return found.german[1].startswith('kein')


def _prepositional(
  rng: random.Random,
  clause: Clause,
  verb: verbs.Verb,
  *,
  generic: bool,
  negated: bool,
  it: bool,
) -> bool:
  del negated, it  # nicht, never kein
  case = morphology.ACCUSATIVE if verb.case == 'a' else morphology.DATIVE
  first = phrases.zipf(rng, verb.object_classes)
  if first == 'persons':
    found = referents.persons_object(rng, clause.subject)
  else:
    found = referents.thing(rng, (first,), clause.subject, generic=generic)
  wordings = (
    _dative_english(found) if case == morphology.DATIVE else found.english_object
  )
  german = morphology.with_preposition(verb.preposition, found.german[case])
  clause.middle.append((clauses.PREPOSITIONAL, german))
  clause.patterns = _fill(verb.english, wordings)
  clause.bound = _settles_sie(found, case)
  return False


def _fixed(
  rng: random.Random,
  clause: Clause,
  verb: verbs.Verb,
  *,
  generic: bool,
  negated: bool,
  it: bool,
) -> bool:
  del rng, generic, it
  text = verb.fixed
  takes_kein = negated and text in ('eine Pause', 'Sport')
  if takes_kein:
    text = {'eine Pause': 'keine Pause', 'Sport': 'keinen Sport'}[text]
  clause.middle.append((clauses.FIXED, text))
  return takes_kein


_FRAMES: dict[str, Callable[..., bool]] = {
  'a': _accusative,
  'd': _dative,
  'da': _two,
  'p': _prepositional,
  'f': _fixed,
}


def add_objects(
  rng: random.Random,
  clause: Clause,
  verb: verbs.Verb,
  *,
  generic: bool,
  negated: bool,
  it: bool,
) -> bool:
  """Adds the verb's objects; returns whether an indefinite object took 'kein'.

  Args:
    rng: the source of chance.
    clause: changed in place.
    verb: its frame says which objects.
    generic: a habit, without single definite things.
    negated: indefinite objects take kein.
    it: a thing may be a pronoun: the sentence stands alone.
  """
  clause.patterns = verb.english
  add = _FRAMES.get(verb.frame)
  return (
    add(rng, clause, verb, generic=generic, negated=negated, it=it) if add else False
  )


def _add_direction(
  rng: random.Random, clause: Clause, verb: verbs.Verb, *, allowed: bool
) -> None:
  """Where to, and by what: 'mit dem Zug nach Berlin', to Berlin by train."""
  kind = verb.object_classes[0]
  german, clause.place = phrases.zipf(rng, words.DIRECTIONS[kind])
  clause.middle.append((clauses.DIRECTION, german))
  draw = rng.random() if allowed else 1.0
  if kind == 'ride' and draw < 0.25:
    german, wordings = phrases.zipf(rng, words.VEHICLES)
    clause.patterns = tuple(p for p in verb.english if p[0] == 'go')
  elif verb.german.infinitive == 'gehen' and draw < 0.08:
    german, wordings = 'zu Fuß', ('on foot',)
  else:
    return
  clause.middle.append((clauses.MANNER, german))
  clause.manner, clause.place = clause.place, wordings


def add_place(
  rng: random.Random, clause: Clause, verb: verbs.Verb, *, allowed: bool
) -> None:
  """Adds the direction or location; an optional one only where `allowed`."""
  if verb.frame == 'dir':
    _add_direction(rng, clause, verb, allowed=allowed)
  elif verb.frame == 'loc':
    german, clause.place = phrases.zipf(rng, words.PLACES[verb.places])
    clause.middle.append((clauses.DIRECTION, german))
  elif verb.places and allowed:
    if rng.random() < (0.7 if verb.places == 'arrive' else 0.26):
      german, clause.place = phrases.zipf(rng, words.PLACES[verb.places])
      clause.middle.append((clauses.PLACE, german))
  if (
    verb.frame in ('-', 'dir')
    and allowed
    and not clause.manner
    and clause.modal is None
    and rng.random() < 0.06
  ):
    if clause.subject.person >= 3:
      clause.manner = ('together',)
      clause.middle.append((clauses.MANNER, 'zusammen'))
    elif verb.frame == '-' and not verb.reflexive and not set(verb.flags) & set('NO'):
      clause.manner = ('alone',)
      clause.middle.append((clauses.MANNER, 'allein'))

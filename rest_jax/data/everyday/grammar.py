"""The grammar as a whole: families of sentences, their weights, the generator.

A family draws one German sentence together with every correct English rendering
it knows. All chance comes from one seeded generator, so the same seed gives the
same corpus on every machine.
"""

import collections.abc
import dataclasses
import random
from collections.abc import Callable

from rest_jax.data.everyday import (
  amounts,
  circumstances,
  comparison,
  conjunctions,
  descriptions,
  measures,
  nouns,
  phrases,
  positions,
  predicates,
  questions,
  referents,
  relative_clauses,
  requests,
  sequences,
  subordination,
  times,
  verbs,
  words,
)

MAX_WORDS = 16  # of the German source
_ATTEMPTS_PER_SENTENCE = 200


@dataclasses.dataclass(frozen=True)
class Sentence:
  """A German sentence with its translations.

  Attributes:
    source: German.
    renderings: all correct English known to the grammar (at most 32), the
      canonical one first.
    topic: the family of the grammar it comes from, for inspection.
  """

  source: str
  renderings: tuple[str, ...]
  topic: str


def _statement(rng: random.Random) -> descriptions.Drawn:
  """Any verb of the table in a main clause, subject or time first."""
  clause = predicates.verb_clause(rng, it=True)
  return descriptions.finish(
    clause, front_time=clause.time is not None and rng.random() < 0.35
  )


# Weight per family, in parts of their sum.
FAMILIES: tuple[tuple[float, Callable[[random.Random], descriptions.Drawn]], ...] = (
  (300, _statement),
  (40, questions.yes_no),
  (22, questions.when_or_why),
  (14, questions.where),
  (26, questions.who_or_what),
  (10, questions.which),
  (6, questions.preposition_question),
  (34, requests.imperative),
  (8, requests.lets),
  (14, requests.wish),
  (50, descriptions.adjective_sentence),
  (34, comparison.comparison),
  (12, comparison.superlative),
  (20, descriptions.job),
  (36, descriptions.possession),
  (16, descriptions.existence),
  (6, times.clock_now),
  (24, times.timetable),
  (18, times.date),
  (18, measures.price),
  (14, measures.age),
  (10, measures.distance),
  (18, amounts.amount),
  (14, amounts.duration),
  (14, circumstances.weather),
  (30, positions.position),
  (24, circumstances.liking),
  (18, circumstances.belonging),
  (12, circumstances.wellbeing),
  (30, subordination.that),
  (20, subordination.indirect_question),
  (26, conjunctions.reason),
  (22, conjunctions.condition),
  (16, sequences.past_time),
  (12, sequences.before),
  (28, subordination.zu_infinitive),
  (14, subordination.purpose),
  (24, relative_clauses.relative),
  (14, sequences.contrast),
  (8, sequences.preference),
)


def _cumulative_weights() -> list[float]:
  total, sums = 0.0, []
  for weight, _ in FAMILIES:
    total += weight
    sums.append(total)
  return sums


def generate(
  num_sentences: int,
  *,
  seed: int,
  excluded: collections.abc.Set[str] = frozenset(),
) -> list[Sentence]:
  """Draws sentences with distinct sources.

  Args:
    num_sentences: how many, 0 or more.
    seed: fixes the result; a longer list with the same seed and the same
      `excluded` begins with the shorter one.
    excluded: sources that must not occur, such as those of the training set.

  Raises:
    ValueError: num_sentences is negative, or so large that new sentences have
      become too rare to find.
  """
  if num_sentences < 0:
    raise ValueError(f'num_sentences must be 0 or more, got {num_sentences}')
  rng = random.Random(f'everyday/{seed}')
  families, sums = [family for _, family in FAMILIES], _cumulative_weights()
  found: dict[str, Sentence] = {}
  attempts = 0
  while len(found) < num_sentences:
    attempts += 1
    if attempts > 1000 + _ATTEMPTS_PER_SENTENCE * num_sentences:
      raise ValueError(
        f'num_sentences={num_sentences} is more than this grammar yields in '
        f'{attempts} draws ({len(found)} found); ask for fewer sentences'
      )
    source, renderings, topic = rng.choices(families, cum_weights=sums)[0](rng)
    if source in found or source in excluded or source.count(' ') >= MAX_WORDS:
      continue
    found[source] = Sentence(source, renderings, topic)
  return list(found.values())


def num_lemmas() -> int:
  """Distinct nouns, verbs, adjectives, adverbials, places and names."""
  noun_lemmas = {
    (noun.lemma, noun.gender) for listed in nouns.NOUNS.values() for noun in listed
  }
  verb_lemmas = {verb.german.infinitive for verb in verbs.VERBS}
  adverbials = {
    pair[0]
    for pair in (
      *words.PAST,
      *words.FUTURE,
      *words.HABIT,
      *words.OFTEN,
      *words.NOW,
      *words.TODAY,
      *words.CITIES,
      *words.COUNTRIES,
    )
  }
  adjectives = {adjective.german for adjective in words.ADJECTIVES}
  names = {*words.WOMEN, *words.MEN}
  return (
    len(noun_lemmas) + len(verb_lemmas) + len(adverbials) + len(adjectives) + len(names)
  )


def num_distinct_lower_bound() -> int:
  """A lower bound of the number of distinct German sources.

  Counts one corner of the statements only: a name or 'mein ... Bruder' as the
  subject, a verb with accusative object in the perfect, the definite singular
  without adjective, and a past time at the front, inside, or absent:

    subjects * distinct (object, participle) * (1 + 2 * times)

  Each choice appears verbatim in the sentence, so all of them differ.
  """
  subjects = {*words.WOMEN, *words.MEN}
  for noun in nouns.NOUNS['kin']:
    if noun.gender != 'p':
      for owner in ('mein', 'unser', 'dein', 'sein', 'ihr', 'euer'):
        subjects.add(phrases.noun_phrase(noun, owner).german[0])
  predicates_ = {
    (phrases.noun_phrase(noun, 'der').german[1], verb.german.participle)
    for verb in verbs.VERBS
    if verb.frame == 'a' and ('S' not in verb.flags or 'P' in verb.flags)
    for noun_class in verb.object_classes
    if noun_class != 'persons'
    and noun_class not in referents.BARE
    and noun_class not in ('owned', 'chore')
    for noun in nouns.NOUNS[noun_class]
  }
  past_times = {time for time, _ in words.PAST}
  return len(subjects) * len(predicates_) * (1 + 2 * len(past_times))

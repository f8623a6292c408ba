"""Probes: unit tests of a reward, as pairs of a better and a worse text.

A **probe** is a pure function of what is known of one source and of random numbers,

    probe(material, rng) -> pairs

where the better text of every pair should have the higher reward; its name is the
function's. No pair means that the probe does not apply to that source: the text is
too short for it, or what it makes is itself a correct translation. Where a pair is
not said to be otherwise, its better text is the material's reference.

Source: ReST (arXiv:2308.08998), appendix A.4, probes its reward models with permuted
and repeated sentences and finds rewards that rise when a sentence is repeated. The
other probes are ours: one for each way in which a policy could please a reward
without translating.

Words are what white space parts; a text without any, of letters without case as in
Chinese, Japanese or Thai, is cut into characters. The marks that end a sentence stay
at its end, so that no misplaced mark gives a pair away.
"""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# Marks that part clauses: where white space follows, or in scripts that have none.
_CLAUSE_MARKS = ',;:'
_WIDE_CLAUSE_MARKS = '，；：、'
# Between two letters or digits these are spelling, as in "don't" and "3.5".
_SPELLING_MARKS = "'’-.,:/_"


class Pair(NamedTuple):
  """Two texts for one source, of which the better should have the higher reward."""

  better: str
  worse: str


@dataclasses.dataclass(frozen=True)
class Material:
  """What a probe may use of one source.

  Attributes:
    source: the source's text.
    reference: a correct translation of it.
    correct: all that are known to be correct, the reference among them.
    others: correct translations of other sources.
    samples: candidates of a policy, correct ones possibly among them.
  """

  source: str
  reference: str
  correct: tuple[str, ...]
  others: tuple[str, ...] = ()
  samples: tuple[str, ...] = ()


Probe = Callable[[Material, np.random.Generator], tuple[Pair, ...]]


def source_rng(seed: int, probe: str, source_id: str) -> np.random.Generator:
  """Random numbers of one probe of one source: of their names, not of their places."""
  digest = hashlib.sha256(f'{probe}/{source_id}'.encode()).digest()
  return np.random.default_rng([seed, *np.frombuffer(digest[:16], '<u4').tolist()])


def dropped_clause(material: Material, rng: np.random.Generator) -> tuple[Pair, ...]:
  """Under-translation: all that follows a mark between two clauses is left out.

  Does not apply without a mark that has two words on either side.
  """
  words = _words(material.reference)
  ends = [
    place + 1
    for place, word in enumerate(words.body)
    if _ends_clause(words, word) and 1 <= place < len(words.body) - 2
  ]
  if not ends:
    return ()
  kept = words.body[: ends[rng.integers(len(ends))]]
  return _flawed(material, words.text([*kept[:-1], kept[-1][:-1]]))


def dropped_words(material: Material, rng: np.random.Generator) -> tuple[Pair, ...]:
  """Under-translation: a run of a third of the words is left out.

  Does not apply to fewer than three words.
  """
  words = _words(material.reference)
  if len(words.body) < 3:
    return ()
  start, stop = _run(len(words.body), rng)
  return _flawed(material, words.text([*words.body[:start], *words.body[stop:]]))


def added_sentence(material: Material, rng: np.random.Generator) -> tuple[Pair, ...]:
  """Over-translation: the translation of another source follows.

  Does not apply where there is no other source.
  """
  if not material.others:
    return ()
  words = _words(material.reference)
  return _flawed(
    material, words.joiner.join([material.reference, _other(material, rng)])
  )


def added_words(material: Material, rng: np.random.Generator) -> tuple[Pair, ...]:
  """Over-translation: a third of another source's translation ends the sentence.

  Does not apply where there is no other source, or where it has fewer than three
  words.
  """
  if not material.others:
    return ()
  words, other = _words(material.reference), _words(_other(material, rng))
  if len(other.body) < 3:
    return ()
  start, stop = _run(len(other.body), rng)
  return _flawed(material, words.text([*words.body, *other.body[start:stop]]))


def replaced_word(material: Material, rng: np.random.Generator) -> tuple[Pair, ...]:
  """Mistranslation: one word gives way to one of another source's translation.

  Does not apply where there is no other source, to fewer than two words, or where the
  two words are alike.
  """
  words = _words(material.reference)
  if not material.others or len(words.body) < 2:
    return ()
  other = _words(_other(material, rng))
  place = int(rng.integers(len(words.body)))
  word = other.body[rng.integers(len(other.body))]
  return _flawed(
    material, words.text([*words.body[:place], word, *words.body[place + 1 :]])
  )


def repeated_sentence(material: Material, rng: np.random.Generator) -> tuple[Pair, ...]:
  """Repetition: the whole reference, twice. Applies to every source."""
  del rng
  joiner = _words(material.reference).joiner
  return _flawed(material, joiner.join([material.reference] * 2))


def repeated_phrase(material: Material, rng: np.random.Generator) -> tuple[Pair, ...]:
  """Repetition: a run of a third of the words, at least two, twice in its place.

  Does not apply to fewer than three words.
  """
  words = _words(material.reference)
  if len(words.body) < 3:
    return ()
  start, stop = _run(len(words.body), rng, least=2)
  return _flawed(material, words.text([*words.body[:stop], *words.body[start:]]))


def repeated_word(material: Material, rng: np.random.Generator) -> tuple[Pair, ...]:
  """Repetition: one word twice in its place.

  Does not apply to fewer than two words: that would be a repeated sentence.
  """
  words = _words(material.reference)
  if len(words.body) < 2:
    return ()
  place = int(rng.integers(len(words.body)))
  return _flawed(material, words.text([*words.body[: place + 1], *words.body[place:]]))


def shuffled_words(material: Material, rng: np.random.Generator) -> tuple[Pair, ...]:
  """Permutation: the same words in a random order.

  Does not apply to fewer than two distinct words; an order that gives the reference,
  or another correct translation, is drawn again up to eight times.
  """
  words = _words(material.reference)
  if len(set(words.body)) < 2:
    return ()
  for _ in range(8):
    order = rng.permutation(len(words.body))
    pairs = _flawed(material, words.text([words.body[i] for i in order]))
    if pairs:
      return pairs
  return ()


def unrelated_sentence(
  material: Material, rng: np.random.Generator
) -> tuple[Pair, ...]:
  """Fluent, and of another source: its correct translation.

  Does not apply where there is no other source, or where the two share it.
  """
  if not material.others:
    return ()
  return _flawed(material, _other(material, rng))


def gibberish(material: Material, rng: np.random.Generator) -> tuple[Pair, ...]:
  """No words: as many of the same lengths, of letters drawn from the reference.

  So a closed vocabulary can spell it. Does not apply to fewer than two distinct
  letters.
  """
  words = _words(material.reference)
  letters = sorted({c.lower() for word in words.body for c in word if c.isalpha()})
  if len(letters) < 2:
    return ()
  drawn = [
    ''.join(letters[i] for i in rng.integers(len(letters), size=len(word)))
    for word in words.body
  ]
  return _flawed(material, words.text(drawn))


def missing_punctuation(
  material: Material, rng: np.random.Generator
) -> tuple[Pair, ...]:
  """Every punctuation mark is left out, but not an apostrophe inside a word.

  Does not apply to a text without one.
  """
  del rng
  text = material.reference
  kept = [c for place, c in enumerate(text) if not _is_mark(text, place)]
  return _flawed(material, ' '.join(''.join(kept).split()))


def copied_source(material: Material, rng: np.random.Generator) -> tuple[Pair, ...]:
  """Not translated: the source itself.

  Does not apply where that is a correct translation, as of a name.
  """
  del rng
  return _flawed(material, material.source)


def empty_output(material: Material, rng: np.random.Generator) -> tuple[Pair, ...]:
  """Nothing at all. Applies to every source."""
  del rng
  return _flawed(material, '')


def sampled_candidates(
  material: Material, rng: np.random.Generator
) -> tuple[Pair, ...]:
  """The exact reference against each distinct sample of a policy.

  Samples that are known to be correct are left out. Where only the reference is
  known, others may be no worse than it: then read the share beside that of another
  scorer, not against 100 %. Does not apply without samples.
  """
  del rng
  distinct = dict.fromkeys(material.samples)
  return tuple(pair for text in distinct for pair in _flawed(material, text))


ALL: tuple[Probe, ...] = (
  dropped_clause,
  dropped_words,
  added_sentence,
  added_words,
  replaced_word,
  repeated_sentence,
  repeated_phrase,
  repeated_word,
  shuffled_words,
  unrelated_sentence,
  gibberish,
  missing_punctuation,
  copied_source,
  empty_output,
  sampled_candidates,
)


class _Words(NamedTuple):
  """A text as words, and the marks that end it."""

  body: list[str]
  end: str
  joiner: str

  def text(self, body: Sequence[str]) -> str:
    """Other words in the place of these."""
    return self.joiner.join(body) + self.end


def _words(text: str) -> _Words:
  text = ' '.join(text.split())
  body = text
  while body and unicodedata.category(body[-1]).startswith('P'):
    body = body[:-1]
  if not body:  # marks alone
    body = text
  end = text[len(body) :]
  parts = body.split()
  if len(parts) == 1 and any(unicodedata.category(c) == 'Lo' for c in body):
    return _Words(list(body), end, '')
  return _Words(parts, end, ' ')


def _run(length: int, rng: np.random.Generator, least: int = 1) -> tuple[int, int]:
  """Start and end of a random run of a third of so many words."""
  size = max(least, round(length / 3))
  start = int(rng.integers(length - size + 1))
  return start, start + size


def _other(material: Material, rng: np.random.Generator) -> str:
  return material.others[rng.integers(len(material.others))]


def _ends_clause(words: _Words, word: str) -> bool:
  if words.joiner:
    return len(word) > 1 and word[-1] in _CLAUSE_MARKS
  return word in _WIDE_CLAUSE_MARKS


def _is_mark(text: str, place: int) -> bool:
  """Whether the character is punctuation, and not part of a word's spelling."""
  if not unicodedata.category(text[place]).startswith('P'):
    return False
  inside = text[place - 1 : place].isalnum() and text[place + 1 : place + 2].isalnum()
  return not (inside and text[place] in _SPELLING_MARKS)


def _flawed(material: Material, worse: str) -> tuple[Pair, ...]:
  """The reference against a worse text, or nothing where that one is correct."""
  correct = {' '.join(text.split()) for text in (*material.correct, material.reference)}
  if ' '.join(worse.split()) in correct:
    return ()
  return (Pair(material.reference, worse),)

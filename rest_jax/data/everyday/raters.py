"""Simulated human raters, and the gold measure no stage trains on.

The noiseless judgement is 6 minus the cheapest word edits to the nearest correct
rendering, floored at 0. A content word that is wrong, missing or too much costs 2,
a function word 1, a word in the wrong form (number, tense, person) 1, letter case or
punctuation alone 0.5, and words in the wrong order at least 1.
"""

import collections
import dataclasses
import functools
import random
import re
from collections.abc import Sequence

import numpy as np

from rest_jax.data.everyday import english, nouns, verbs
from rest_jax.evaluation import chrf

BEST = 6.0
_CONTENT, _FUNCTION, _FORM, _SURFACE, _ORDER = 2.0, 1.0, 1.0, 0.5, 1.0
_NEAREST = 6  # renderings compared word by word, those that share most words first
_WORD = re.compile(r"[\w'-]+")

_FUNCTION_WORDS = frozenset(
  """
a an the this that these those some any no not my your his her its our their of to in on
at by for with from about into than as and but or if whether when because although
though even since so i you he she it we they me him us them who whom which what
there am is are
was were be been being do does did have has had will would can could may must should
shall let lets please very too quite just up down off out
""".split()
)


def _lemmas() -> dict[str, str]:
  found: dict[str, str] = {}
  heads = {head for verb in verbs.VERBS for head, _ in verb.english}
  heads |= {
    'like',
    'cost',
    'lie',
    'stand',
    'hang',
    'put',
    'belong',
    'hurt',
    'last',
    'rain',
    'snow',
    'hope',
    'want',
    'prefer',
    'say',
    'promise',
    'become',
    'leave',
  }
  for head in heads:
    for form in ('s', 'ing', 'past', 'participle'):
      found[english.verb_form(head, form)] = head
  for listed in nouns.NOUNS.values():
    for noun in listed:
      for one, many in zip(noun.english, noun.english_plural, strict=False):
        if one != many:
          found[many.split()[-1].lower()] = one.split()[-1].lower()
  for be in ('am', 'is', 'are', 'was', 'were', 'been', 'being'):
    found[be] = 'be'
  found.update(
    {
      'has': 'have',
      'had': 'have',
      'does': 'do',
      'did': 'do',
      'an': 'a',
      'would': 'will',
      'could': 'can',
      'these': 'this',
      'those': 'that',
    }
  )
  return found


_LEMMAS = _lemmas()
_EXPANDED = (
  ("can't", 'can not'),
  ('cannot', 'can not'),
  ("won't", 'will not'),
  ("n't", ' not'),
  ("'m", ' am'),
  ("'re", ' are'),
  ("'ve", ' have'),
  ("'ll", ' will'),
  ("'d", ' would'),
  ("let's", 'let us'),
)


@functools.lru_cache(maxsize=1 << 13)
def _words(text: str) -> tuple[str, ...]:
  """Lower-cased words, contractions written out."""
  text = text.lower()
  for short, long in _EXPANDED:
    text = text.replace(short, long)
  return tuple(_WORD.findall(text))


def _weight(word: str) -> float:
  return _FUNCTION if word in _FUNCTION_WORDS else _CONTENT


def _substitution(a: str, b: str) -> float:
  if a == b:
    return 0.0
  if _LEMMAS.get(a, a) == _LEMMAS.get(b, b):
    return _FORM
  return max(_weight(a), _weight(b))


def _edit_cost(a: Sequence[str], b: Sequence[str]) -> float:
  """Weighted edit distance of two word sequences."""
  while a and b and a[0] == b[0]:
    a, b = a[1:], b[1:]
  while a and b and a[-1] == b[-1]:
    a, b = a[:-1], b[:-1]
  row = [0.0]
  for word in b:
    row.append(row[-1] + _weight(word))
  for word in a:
    deletion = _weight(word)
    diagonal, row[0] = row[0], row[0] + deletion
    for j, other in enumerate(b):
      best = min(
        diagonal + _substitution(word, other),
        row[j + 1] + deletion,
        row[j] + _weight(other),
      )
      diagonal, row[j + 1] = row[j + 1], best
  return row[-1]


def judgement(candidate: str, renderings: Sequence[str]) -> float:
  """The noiseless judgement, 0 to 6, of a candidate translation.

  Args:
    candidate: any text; an empty one is worth 0.
    renderings: the correct translations, at least one.

  Raises:
    ValueError: no renderings.
  """
  if not renderings:
    raise ValueError('a judgement needs at least one correct rendering, got none')
  candidate = candidate.strip()
  if candidate in renderings:
    return BEST
  own = _words(candidate)
  if not own:
    return 0.0
  counts = collections.Counter(own)

  def distance(other: tuple[str, ...]) -> int:
    theirs = collections.Counter(other)
    return sum(((counts - theirs) + (theirs - counts)).values())

  others = sorted(
    {_words(rendering) for rendering in renderings},
    key=lambda other: (distance(other), other),
  )
  cost = BEST
  for other in others[:_NEAREST]:
    edits = _edit_cost(own, other)
    if not edits:
      edits = _SURFACE
    elif not distance(other):  # the same words in another order
      edits = max(_ORDER, edits / 2)
    cost = min(cost, edits)
  return BEST - cost


@dataclasses.dataclass(frozen=True)
class SimulatedRaters:
  """Raters who see adequacy and fluency through a bias and noise of their own.

    score = clip(round_to_half(judgement + bias[rater] + noise), 0, 6)

  Both are normal. They are fixed by (seed, rater) and by (seed, rater, candidate,
  renderings[0]), not by the order of calls, so a candidate is rated the same
  wherever it stands.

  Source: the paper's human evaluation asks raters for 0 to 6.
  """

  num_raters: int = 3
  bias_stddev: float = 0.3
  noise_stddev: float = 0.5
  seed: int = 0

  def __post_init__(self) -> None:
    if self.num_raters < 1:
      raise ValueError(f'num_raters must be 1 or more, got {self.num_raters}')
    for name in ('bias_stddev', 'noise_stddev'):
      if getattr(self, name) < 0:
        raise ValueError(f'{name} must be 0 or more, got {getattr(self, name)}')

  def __call__(
    self, candidates: Sequence[str], renderings: Sequence[str]
  ) -> np.ndarray:  # [samples, num_raters] float32, 0 to 6 in halves
    """Rates the candidates of one source.

    Args:
      candidates: [samples] texts.
      renderings: the correct translations of the source, canonical first.

    Raises:
      ValueError: no renderings.
    """
    scores = np.zeros((len(candidates), self.num_raters), np.float32)
    for i, candidate in enumerate(candidates):
      plain = judgement(candidate, renderings)
      for rater in range(self.num_raters):
        bias = random.Random(f'bias/{self.seed}/{rater}').gauss(0.0, self.bias_stddev)
        noise = random.Random(
          f'noise/{self.seed}/{rater}/{candidate}\0{renderings[0]}'
        ).gauss(0.0, self.noise_stddev)
        scores[i, rater] = min(max(round(2 * (plain + bias + noise)) / 2, 0.0), BEST)
    return scores


def gold(candidate: str, renderings: Sequence[str]) -> float:
  """Best sentence chrF, 0 to 1, against the set of correct renderings.

  Raises:
    ValueError: no renderings.
  """
  return float(chrf.best_chrf([candidate], renderings)[0])


def exact_match(candidate: str, renderings: Sequence[str]) -> bool:
  """Whether the candidate, without surrounding space, is a correct rendering."""
  return candidate.strip() in renderings

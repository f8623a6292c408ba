"""Sentence chrF, fast: character n-gram F-score with cached reference counts.

Source: Popović, "chrF: character n-gram F-score for automatic MT evaluation"
(WMT 2015), as sacreBLEU computes it by default: characters without whitespace,
orders 1 to 6, beta 2, case kept, precision and recall averaged over the orders that
both sides have ('effective order'). Departure: scores run from 0 to 1.
"""

import collections
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CHARACTER_ORDER = 6
BETA = 2.0
_CACHED_REFERENCES = 2048  # about 20 kB each for a sentence of 40 characters


class _Ngrams(NamedTuple):
  """A text's character n-grams, so that most of a match is intersecting sets."""

  distinct: tuple[frozenset[str], ...]  # by order
  repeated: tuple[dict[str, int], ...]  # by order: the counts above 1
  length: int  # characters without whitespace


def _count(text: str) -> _Ngrams:
  characters = ''.join(text.split())
  length = len(characters)
  distinct: list[frozenset[str]] = []
  repeated: list[dict[str, int]] = []
  for order in range(1, min(CHARACTER_ORDER, length) + 1):
    ngrams = [characters[i : i + order] for i in range(length - order + 1)]
    kinds = frozenset(ngrams)
    distinct.append(kinds)
    if len(kinds) == len(ngrams):
      repeated.append({})
    else:
      counts = collections.Counter(ngrams)
      repeated.append({ngram: n for ngram, n in counts.items() if n > 1})
  return _Ngrams(tuple(distinct), tuple(repeated), length)


_count_reference = functools.lru_cache(maxsize=_CACHED_REFERENCES)(_count)


def _f_score(candidate: _Ngrams, reference: _Ngrams) -> float:
  """F-beta of the precision and recall averaged over the effective orders."""
  orders = min(CHARACTER_ORDER, candidate.length, reference.length)
  if not orders:
    return 0.0
  precision = recall = 0.0
  for order in range(orders):
    matches = len(candidate.distinct[order] & reference.distinct[order])
    if not matches:
      break  # nor is there a longer one
    own, other = candidate.repeated[order], reference.repeated[order]
    for ngram in own.keys() & other.keys():
      matches += min(own[ngram], other[ngram]) - 1
    precision += matches / (candidate.length - order)
    recall += matches / (reference.length - order)
  if not precision + recall:
    return 0.0
  precision, recall = precision / orders, recall / orders
  return (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)


def sentence_chrf(candidate: str, reference: str) -> float:
  """chrF of one candidate against one reference, 0 to 1.

  An empty candidate or reference scores 0, also against each other.
  """
  return _f_score(_count(candidate), _count_reference(reference))


def best_chrf(candidates: Sequence[str], references: Sequence[str]) -> np.ndarray:
  """The best chrF of each candidate over a set of correct references.

  Args:
    candidates: texts, any number.
    references: correct texts of one source, at least one.

  Returns:
    [candidates] float32, 0 to 1; 1 exactly where a candidate is a reference.

  Raises:
    ValueError: no references.
  """
  if not references:
    raise ValueError('best_chrf needs at least one reference, got none')
  known = {reference for reference in references if reference.strip()}
  scores = np.zeros(len(candidates), np.float32)
  for i, candidate in enumerate(candidates):
    if candidate in known:
      scores[i] = 1.0
      continue
    own = _count(candidate)
    scores[i] = max(_f_score(own, _count_reference(text)) for text in references)
  return scores

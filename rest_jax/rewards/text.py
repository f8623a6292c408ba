"""Programmatic rewards: scorers that read the texts of groups.

A **scorer** is a callable object with

    name                   its name in tables
    identity()             its JSON parameters, for the fingerprint
    scorer(groups)         one [samples] float32 array per group

Any callable of (source, candidate, reference) becomes one with PerCandidate. Learned
rewards are in learned.py.
"""

import dataclasses
import hashlib
import inspect
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from rest_jax.data.group_store import Group
from rest_jax.evaluation import chrf

_LARGEST = float(np.finfo(np.float32).max)


class Scorer(Protocol):
  """What every scorer is."""

  name: str

  def identity(self) -> dict[str, Any]:
    """JSON-able: what tells this scorer from another."""
    ...

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Rewards, one [samples] float32 array per group."""
    ...


class ChrfReward:
  """Sentence chrF of each candidate against the reference, 0 to 1."""

  name = 'chrf'

  def identity(self) -> dict[str, Any]:
    """No parameters."""
    return {'scorer': self.name}

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Rewards; a group without a reference raises ValueError."""
    return [
      _array(chrf.sentence_chrf(text, reference) for text in group.texts)
      for group, reference in ((group, _reference(group)) for group in groups)
    ]


class ExactMatch:
  """1 where a candidate is a known correct translation, else 0."""

  name = 'exact_match'

  def identity(self) -> dict[str, Any]:
    """No parameters."""
    return {'scorer': self.name}

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Rewards; a group with neither reference nor renderings raises ValueError."""
    return [exact_matches(group) for group in groups]


class Gold:
  """The gold measure, 0 to 1, which no stage trains on.

  The best sentence chrF against the group's `renderings`, all correct translations
  where the corpus knows them, or against the reference where it does not.
  """

  name = 'gold'

  def identity(self) -> dict[str, Any]:
    """No parameters."""
    return {'scorer': self.name}

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Rewards; a group with neither reference nor renderings raises ValueError."""
    return [chrf.best_chrf(group.texts, correct_texts(group)) for group in groups]


class PerCandidate:
  """Any function of (source, candidate, reference) as a scorer.

      def shorter_is_better(source, candidate, reference):
        return -len(candidate)

      scorer = PerCandidate(shorter_is_better)

  The identity is the function's name and the hash of its source text, so that an
  edit makes a new artifact. It cannot see what the function reads elsewhere: other
  functions that it calls, global variables, arguments bound by gin, or a decorator
  (the innermost function counts). Pass what may vary as `parameters`.

  Args:
    fn: fn(source: str, candidate: str, reference: str | None, **parameters) -> a
      finite number. `reference` is None for source-only corpora.
    name: its name in tables; the function's own by default.
    parameters: JSON-able keyword arguments for every call; part of the identity.

  Raises:
    ValueError: the function's source cannot be read, or it captures variables of an
      enclosing function, which the identity could not tell apart.
  """

  def __init__(
    self,
    fn: Callable[..., float],
    *,
    name: str | None = None,
    parameters: dict[str, Any] | None = None,
  ):
    self._fn = fn
    self._parameters = dict(parameters or {})
    self._identity = function_identity(fn)
    self.name = name or inspect.unwrap(fn).__name__

  def identity(self) -> dict[str, Any]:
    """The function's qualified name, the hash of its source, and the parameters."""
    return {
      'scorer': 'per_candidate',
      **self._identity,
      'parameters': self._parameters,
    }

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Rewards; an answer that is no finite number raises ValueError."""
    return [
      _array(self._score(group, index) for index in range(len(group.texts)))
      for group in groups
    ]

  def _score(self, group: Group, index: int) -> float:
    value = self._fn(
      group.source, group.texts[index], group.reference, **self._parameters
    )
    # A NaN fails the comparison too.
    if _is_number(value) and abs(float(value)) <= _LARGEST:
      return float(value)
    raise ValueError(
      f'{self._identity["function"]} returned {value!r} for candidate {index} of '
      f'source {group.source_id!r} ({group.texts[index][:80]!r}); it must return one '
      'finite number (float32).'
    )


class RatingScorer:
  """Raters as a scorer: the reward is the mean of their ratings.

  Args:
    raters: raters(candidates, correct) -> [samples, raters], where `correct` are
      the group's renderings, or its reference where there are none. If it has an
      identity(), that becomes part of this one's; else it must be a function, which
      is identified as PerCandidate does it.
    name: its name in tables.
  """

  def __init__(
    self,
    raters: Callable[[Sequence[str], Sequence[str]], np.ndarray],
    *,
    name: str = 'raters',
  ):
    self._raters = raters
    self.name = name
    if hasattr(raters, 'identity'):
      self._identity = raters.identity()
    elif dataclasses.is_dataclass(raters) and not isinstance(raters, type):
      self._identity = {'raters': repr(raters)}  # a frozen dataclass's repr is all
    else:
      self._identity = function_identity(raters)

  def identity(self) -> dict[str, Any]:
    """The raters' identity."""
    return {'scorer': 'ratings', 'raters': self._identity}

  def ratings(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Every rater's rating, one [samples, raters] float32 array per group.

    Raises:
      ValueError: a group has neither reference nor renderings, or the raters'
        answer has another shape or is not finite.
    """
    ratings = []
    for group in groups:
      values = np.asarray(self._raters(group.texts, correct_texts(group)), np.float32)
      if values.ndim != 2 or len(values) != len(group.texts) or not values.shape[1]:
        raise ValueError(
          f'source {group.source_id!r}: the raters returned shape {values.shape} for '
          f'{len(group.texts)} candidates; it must be [samples, raters].'
        )
      if not np.isfinite(values).all():
        sample, rater = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
          f'source {group.source_id!r}: rater {rater} gave {values[sample, rater]} to '
          f'candidate {sample} ({group.texts[sample][:80]!r}); ratings must be finite.'
        )
      ratings.append(values)
    return ratings

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Mean ratings; see `ratings` for each rater's."""
    return [
      values.mean(axis=1, dtype=np.float64).astype(np.float32)
      for values in self.ratings(groups)
    ]


def exact_matches(group: Group) -> np.ndarray:
  """[samples] float32, 1 where a candidate is a known correct translation.

  It equals one of the renderings, or the reference where there are none; runs of
  white space count as one space, and case and punctuation matter.

  Raises:
    ValueError: the group has neither.
  """
  correct = {' '.join(text.split()) for text in correct_texts(group)}
  return _array(' '.join(text.split()) in correct for text in group.texts)


def correct_texts(group: Group) -> tuple[str, ...]:
  """The renderings of a group, or its reference alone where it has none.

  Raises:
    ValueError: the group has neither.
  """
  return group.renderings or (_reference(group),)


def function_identity(fn: Callable[..., Any]) -> dict[str, str]:
  """The name of a plain function and the hash of its source.

  Raises:
    ValueError: see PerCandidate.
  """
  plain = inspect.unwrap(fn)
  if not inspect.isfunction(plain):
    raise ValueError(
      f'{fn!r} is not a plain Python function, whose source could enter the '
      'fingerprint: give one, and bind arguments with parameters={...} instead of '
      'functools.partial.'
    )
  name = f'{plain.__module__}.{plain.__qualname__}'
  if plain.__code__.co_freevars:
    raise ValueError(
      f'{name} captures {", ".join(plain.__code__.co_freevars)} from an enclosing '
      'function, which its source does not show: pass them with parameters={...}.'
    )
  try:
    source = inspect.getsource(plain)
  except (OSError, TypeError) as error:
    raise ValueError(
      f'The source of {name} cannot be read ({error}): define it in a module file.'
    ) from error
  digest = hashlib.sha256(source.encode()).hexdigest()
  return {'function': name, 'source_sha256': digest}


def _reference(group: Group) -> str:
  if group.reference is None:
    raise ValueError(
      f'source {group.source_id!r} has no reference, and this scorer compares with '
      'one: use a corpus with references, or a reference-free scorer such as a '
      'learned reward model.'
    )
  return group.reference


def _array(values: Any) -> np.ndarray:
  return np.array(list(values), np.float32)


def _is_number(value: Any) -> bool:
  """A Python or NumPy number, or an array of shape []; not a string, not None."""
  if isinstance(value, numbers.Real):
    return True
  kind = getattr(getattr(value, 'dtype', None), 'kind', '')
  return getattr(value, 'shape', None) == () and kind in ('b', 'i', 'u', 'f')

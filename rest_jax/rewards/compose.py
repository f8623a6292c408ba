"""Scorers made of scorers: ensembles, normalised and clipped rewards, penalties.

Each class here is a scorer (see text.py) around others, so they nest. All that they
are made of is in their identity, and so in the artifact's stage.json.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from rest_jax import paths
from rest_jax.data.group_store import Group
from rest_jax.evaluation import text_metrics
from rest_jax.rewards import normalisers
from rest_jax.rewards.text import Scorer

_DESCRIBED = 64  # knots of a normaliser that are written out; more are hashed


class Combine(Protocol):
  """How the members' rewards of one candidate become one."""

  def __call__(self, rewards: np.ndarray) -> np.ndarray:
    """[members, candidates] float64 -> [candidates]."""
    ...

  def identity(self) -> dict[str, Any]:
    """JSON-able."""
    ...


@dataclasses.dataclass(frozen=True)
class Mean:
  """sum_m w_m R_m / sum_m w_m.

  Args:
    weights: one for each member, not negative; None weighs them alike.
  """

  weights: tuple[float, ...] | None = None

  def __post_init__(self) -> None:
    if self.weights is not None and not (
      all(math.isfinite(w) and w >= 0 for w in self.weights) and sum(self.weights) > 0
    ):
      raise ValueError(
        f'Mean(weights={self.weights}): weights must be finite, not negative, and not '
        'all 0; turn a reward around with compose.Scaled(factor=-1.0)'
      )

  def __call__(self, rewards: np.ndarray) -> np.ndarray:
    """The mean over members; ValueError where there are not as many as weights."""
    if self.weights is not None and len(self.weights) != len(rewards):
      raise ValueError(
        f'Mean has {len(self.weights)} weights for {len(rewards)} members: give one '
        'for each'
      )
    return np.average(rewards, axis=0, weights=self.weights)

  def identity(self) -> dict[str, Any]:
    """The weights."""
    return {'combine': 'mean', 'weights': self.weights and list(self.weights)}


@dataclasses.dataclass(frozen=True)
class Minimum:
  """min_m R_m: no member may be fooled alone."""

  def __call__(self, rewards: np.ndarray) -> np.ndarray:
    """The smallest over members."""
    return rewards.min(axis=0)

  def identity(self) -> dict[str, Any]:
    """No parameters."""
    return {'combine': 'minimum'}


@dataclasses.dataclass(frozen=True)
class MeanMinusDeviations:
  """mean_m R_m - k * std_m R_m: candidates that members disagree about count less.

  The standard deviation is the population's (divided by the number of members), so
  one member alone has 0. Source: the conservative ensembles of Coste et al. 2023
  (arXiv:2310.02743), who subtract a multiple of the variance instead.

  Args:
    k: how many standard deviations; not negative.
  """

  k: float = 1.0

  def __post_init__(self) -> None:
    if not (math.isfinite(self.k) and self.k >= 0):
      raise ValueError(f'MeanMinusDeviations(k={self.k}): k must be at least 0')

  def __call__(self, rewards: np.ndarray) -> np.ndarray:
    """Mean minus k deviations over members."""
    return rewards.mean(axis=0) - self.k * rewards.std(axis=0)

  def identity(self) -> dict[str, Any]:
    """k."""
    return {'combine': 'mean_minus_deviations', 'k': self.k}


class Ensemble:
  """Several scorers as one.

  Members should be on one scale: wrap each in `Normalised` where they are not.

  Args:
    members: the scorers.
    combine: Mean(), Minimum() or MeanMinusDeviations().
    name: its name in tables.

  Raises:
    ValueError: no member.
  """

  def __init__(
    self,
    members: Sequence[Scorer],
    *,
    combine: Combine = Mean(),
    name: str = 'ensemble',
  ):
    if not members:
      raise ValueError('Ensemble(members=()) has no member: give at least one scorer')
    self._members = tuple(members)
    self._combine = combine
    self.name = name

  def identity(self) -> dict[str, Any]:
    """The members' identities in order, and how they are combined."""
    return {
      'scorer': 'ensemble',
      'members': [member.identity() for member in self._members],
      'combine': self._combine.identity(),
    }

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Rewards, one [samples] float32 array per group; computed in float64."""
    flat = np.stack([_flat(member(groups)) for member in self._members])
    return _split(self._combine(flat), groups)


class Normalised:
  """A scorer on another scale.

  Args:
    scorer: whose rewards are mapped.
    normaliser: a fitted map of `normalisers`: MinMax(low, high), or one that
      `read_normaliser` reads. It is never fitted here: then a reward would depend on
      what else is scored.
  """

  def __init__(self, scorer: Scorer, normaliser: normalisers.Normaliser):
    self._scorer = scorer
    self._normaliser = normaliser
    self.name = scorer.name

  def identity(self) -> dict[str, Any]:
    """The scorer and the map; of many knots, their hash."""
    fields = self._normaliser.to_dict()
    if len(fields.get('knots', ())) > _DESCRIBED:
      text = json.dumps(fields, sort_keys=True)
      fields = {
        'kind': fields['kind'],
        'num_knots': len(fields['knots']),
        'range': [fields['knots'][0], fields['knots'][-1]],
        'sha256': hashlib.sha256(text.encode()).hexdigest(),
      }
    return {
      'scorer': 'normalised',
      'of': self._scorer.identity(),
      'normaliser': fields,
    }

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Normalised rewards, one [samples] float32 array per group."""
    return [self._normaliser(values) for values in self._scorer(groups)]


class Scaled:
  """factor * R + offset, clipped to [low, high]; a negative factor turns R around.

  Args:
    scorer: whose rewards are mapped.
    factor, offset: finite; the factor not 0.
    low, high: bounds of the result; None leaves that side open.

  Raises:
    ValueError: an argument that cannot be.
  """

  def __init__(
    self,
    scorer: Scorer,
    *,
    factor: float = 1.0,
    offset: float = 0.0,
    low: float | None = None,
    high: float | None = None,
  ):
    if not (math.isfinite(factor) and factor and math.isfinite(offset)):
      raise ValueError(
        f'Scaled(factor={factor}, offset={offset}): both must be finite and the factor '
        'not 0'
      )
    if low is not None and high is not None and not low < high:
      raise ValueError(f'Scaled(low={low}, high={high}): low must be below high')
    self._scorer = scorer
    self._factor = factor
    self._offset = offset
    self._low = low
    self._high = high
    self.name = scorer.name

  def identity(self) -> dict[str, Any]:
    """The scorer and all four numbers."""
    return {
      'scorer': 'scaled',
      'of': self._scorer.identity(),
      'factor': self._factor,
      'offset': self._offset,
      'low': self._low,
      'high': self._high,
    }

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Rewards, one [samples] float32 array per group."""
    flat = self._factor * _flat(self._scorer(groups)) + self._offset
    low = -math.inf if self._low is None else self._low
    high = math.inf if self._high is None else self._high
    return _split(np.clip(flat, low, high), groups)


class Penalty(Protocol):
  """What is wrong with a candidate, from its text alone."""

  def __call__(self, source: str, candidate: str) -> float:
    """0 where nothing is; larger is worse."""
    ...

  def identity(self) -> dict[str, Any]:
    """JSON-able."""
    ...


@dataclasses.dataclass(frozen=True)
class LengthPenalty:
  """How far a candidate's length is outside of what its source makes plausible.

    max(0, log(low / r), log(r / high)),  r = characters of candidate / of source

  A guard where the learned reward fails on texts that are far too long or too short.
  White space around a text does not count, and one without characters counts as one.

  Args:
    low, high: the plausible ratios, which depend on the pair of languages; 0 < low
      <= high. Measure them on your corpus: its 1st and 99th percentiles are a start.
    weight: reward taken off for each factor of e outside.
  """

  low: float = 0.5
  high: float = 2.0
  weight: float = 1.0

  def __post_init__(self) -> None:
    if not 0 < self.low <= self.high < math.inf:
      raise ValueError(
        f'LengthPenalty(low={self.low}, high={self.high}): ratios need 0 < low <= high'
      )
    _check_weight(self)

  def __call__(self, source: str, candidate: str) -> float:
    """The weighted penalty."""
    lengths = [max(1, len(text.strip())) for text in (candidate, source)]
    ratio = lengths[0] / lengths[1]
    outside = max(0.0, math.log(self.low / ratio), math.log(ratio / self.high))
    return self.weight * outside

  def identity(self) -> dict[str, Any]:
    """All parameters."""
    return {'penalty': 'length', **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class RepetitionPenalty:
  """The share of a candidate's n-grams that are repetitions of an earlier one.

    1 - distinct n-grams / n-grams,  0 for a candidate that has none

  ReST's own reward model sometimes rose when a sentence was repeated
  (arXiv:2308.08998, A.4).

  Args:
    n: of the n-grams.
    weight: reward taken off a candidate that is nothing but repetition.
    split: text -> units: `text_metrics.words`, or `text_metrics.characters` for
      languages written without spaces.
  """

  n: int = 3
  weight: float = 1.0
  split: Callable[[str], list[str]] = text_metrics.words

  def __post_init__(self) -> None:
    if self.n < 1:
      raise ValueError(f'RepetitionPenalty(n={self.n}): n must be at least 1')
    _check_weight(self)

  def __call__(self, source: str, candidate: str) -> float:
    """The weighted penalty."""
    del source
    units = self.split(candidate)
    grams = [tuple(units[i : i + self.n]) for i in range(len(units) - self.n + 1)]
    if not grams:
      return 0.0
    return self.weight * (1 - len(set(grams)) / len(grams))

  def identity(self) -> dict[str, Any]:
    """All parameters."""
    split = f'{self.split.__module__}.{self.split.__qualname__}'
    return {'penalty': 'repetition', 'n': self.n, 'weight': self.weight, 'split': split}


class Penalised:
  """R - the sum of penalties.

  Args:
    scorer: R.
    penalties: LengthPenalty(), RepetitionPenalty(), or others of the kind.

  Raises:
    ValueError: no penalty.
  """

  def __init__(self, scorer: Scorer, penalties: Sequence[Penalty]):
    if not penalties:
      raise ValueError('Penalised(penalties=()) takes nothing off: give a penalty')
    self._scorer = scorer
    self._penalties = tuple(penalties)
    self.name = scorer.name

  def identity(self) -> dict[str, Any]:
    """The scorer and the penalties."""
    return {
      'scorer': 'penalised',
      'of': self._scorer.identity(),
      'penalties': [penalty.identity() for penalty in self._penalties],
    }

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Rewards, one [samples] float32 array per group."""
    taken = [
      sum(penalty(group.source, text) for penalty in self._penalties)
      for group in groups
      for text in group.texts
    ]
    return _split(_flat(self._scorer(groups)) - np.array(taken, np.float64), groups)


def read_normaliser(path: paths.PathLike) -> normalisers.Normaliser:
  """Reads the map that a score stage fitted.

  Args:
    path: a finished score's directory, or its normaliser.json.

  Raises:
    ValueError: there is none.
  """
  file = paths.as_path(path)
  if file.suffix != '.json':
    file = file / normalisers.FILE_NAME
  if not file.exists():
    raise ValueError(
      f'{file} does not exist: give the directory of a finished score with a '
      'normaliser, such as runs/first/score_1'
    )
  return normalisers.from_dict(paths.read_json(file))


def _check_weight(penalty: Any) -> None:
  if not (math.isfinite(penalty.weight) and penalty.weight > 0):
    raise ValueError(
      f'{type(penalty).__name__}(weight={penalty.weight}): the weight must be above 0'
    )


def _flat(rewards: Sequence[np.ndarray]) -> np.ndarray:
  """All rewards in order, float64."""
  return np.concatenate([np.zeros(0), *rewards])


def _split(flat: np.ndarray, groups: Sequence[Group]) -> list[np.ndarray]:
  """[candidates] as one [samples] float32 array per group."""
  stops = np.cumsum([len(group.texts) for group in groups])
  return np.split(flat.astype(np.float32), stops[:-1]) if len(groups) else []

"""Maps of rewards to [0, 1], fitted once on the first Grow's rewards, then frozen.

A threshold means the same in every Improve and Grow step only if the scale stays
where it was: fit on the first Grow, store `to_dict()` as JSON, read it back with
`from_dict` ever after.

    normaliser = EmpiricalCdf.fit(rewards)   # rewards: any shape, float
    normalised = normaliser(rewards)         # the same shape, float32 in [0, 1]

Both are monotone non-decreasing: normalising never reverses two candidates.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np

FILE_NAME = 'normaliser.json'  # beside the rewards that it was fitted to


class Normaliser(Protocol):
  """A fitted map of rewards to [0, 1]."""

  def __call__(self, rewards: np.ndarray) -> np.ndarray:
    """Normalised rewards of the same shape, float32."""
    ...

  def to_dict(self) -> dict[str, Any]:
    """JSON-able, with the key `kind`; `from_dict` reads it back exactly."""
    ...


@dataclasses.dataclass(frozen=True)
class MinMax:
  """(R - low) / (high - low), clipped to [0, 1].

  Give the bounds of a known scale, MinMax(0.0, 6.0), or fit them to rewards. The
  worst fitted reward becomes exactly 0, which a strict threshold of 0 drops. One
  outlier moves every other reward: prefer EmpiricalCdf for learned rewards.

  Raises:
    ValueError: low and high are not finite numbers with low < high.
  """

  low: float
  high: float

  def __post_init__(self) -> None:
    # Written so that a NaN fails too; the difference must not overflow either.
    if not (self.low < self.high and math.isfinite(self.high - self.low)):
      raise ValueError(
        f'MinMax(low={self.low}, high={self.high}): both must be finite, with '
        'low < high. Where a lower score is better, negate the rewards first.'
      )

  @classmethod
  def fit(cls, rewards: np.ndarray) -> Self:
    """Bounds at the smallest and largest reward.

    Raises:
      ValueError: no reward, a non-finite one, or all are equal.
    """
    values = _checked_to_fit(rewards, cls.__name__)
    return cls(low=float(values.min()), high=float(values.max()))

  def __call__(self, rewards: np.ndarray) -> np.ndarray:
    """Normalised rewards; a non-finite reward raises ValueError."""
    values = _finite(rewards).astype(np.float64)
    scaled = (values - self.low) / (self.high - self.low)
    return np.clip(scaled, 0, 1).astype(np.float32)

  def to_dict(self) -> dict[str, Any]:
    """JSON-able: kind, low, high."""
    return {'kind': 'min_max', 'low': float(self.low), 'high': float(self.high)}


@dataclasses.dataclass(frozen=True)
class EmpiricalCdf:
  """The share of the fitted rewards that a reward beats: a threshold is a quantile.

  F(r) = (#{R < r} + #{R = r} / 2) / n, the mid-rank, at the knots, and linear
  between them. Rewards beyond the fitted ones get the level of the nearest knot.
  So with n fitted rewards without ties the levels run from 1/(2n) to 1 - 1/(2n):
  all lie above a threshold of 0.0. A reward that a share s of the candidates holds
  has the middle of its step, so a best reward shared by 30 % becomes 0.85, and a
  threshold of 0.9 keeps nothing.

  Args:
    knots: rewards, strictly increasing.
    levels: F at the knots, strictly increasing, in (0, 1).

  Raises:
    ValueError: fewer than two knots, or not as described.
  """

  knots: tuple[float, ...]
  levels: tuple[float, ...]

  def __post_init__(self) -> None:
    rising = lambda values: bool(np.all(np.diff(values) > 0))
    if (
      len(self.knots) != len(self.levels)
      or len(self.knots) < 2
      or not (rising(self.knots) and rising(self.levels))
      or not np.isfinite(self.knots).all()
      or not 0 <= self.levels[0] < self.levels[-1] <= 1
    ):
      raise ValueError(
        f'EmpiricalCdf with {len(self.knots)} knots and {len(self.levels)} levels: '
        'both must be strictly increasing, equally many, at least two, and the '
        'levels in [0, 1]; make one with EmpiricalCdf.fit(rewards).'
      )

  @classmethod
  def fit(cls, rewards: np.ndarray, *, num_knots: int = 1024) -> Self:
    """The CDF of these rewards, with at most `num_knots` knots.

    With that many distinct rewards or fewer, every one is a knot and F is exact.
    Otherwise half of the knots stand at equally spaced quantiles and half at the
    next smaller reward, so that a step shared by many candidates stays a step:
    F is within 1 / (num_knots // 2 - 1) of the exact one at every fitted reward,
    0.2 % with 1,024 knots.

    Sorts a copy of the rewards, 4 bytes each; beyond some 10^9, pass a sample.

    Raises:
      ValueError: no reward, a non-finite one, all are equal, or num_knots < 4.
    """
    if num_knots < 4:
      raise ValueError(f'num_knots={num_knots}: choose at least 4, as 1024.')
    values = _checked_to_fit(rewards, cls.__name__)
    distinct, counts = np.unique(values, return_counts=True)
    levels = (np.cumsum(counts) - counts / 2) / values.size  # mid-ranks
    if distinct.size > num_knots:
      # The first reward at or above each of the equally spaced levels, and the one
      # before it.
      wanted = np.linspace(levels[0], levels[-1], num_knots // 2)
      at = np.minimum(np.searchsorted(levels, wanted), distinct.size - 1)
      chosen = np.unique(np.concatenate([at, np.maximum(at - 1, 0)]))
      distinct, levels = distinct[chosen], levels[chosen]
    return cls(knots=tuple(distinct.tolist()), levels=tuple(levels.tolist()))

  def __call__(self, rewards: np.ndarray) -> np.ndarray:
    """Normalised rewards; a non-finite reward raises ValueError."""
    values = _finite(rewards).astype(np.float64)
    knots, levels, slopes = self._arrays
    left = np.clip(np.searchsorted(knots, values, 'right') - 1, 0, len(knots) - 2)
    inside = np.clip(values, knots[0], knots[-1])
    level = levels[left] + slopes[left] * (inside - knots[left])
    return level.astype(np.float32)

  @functools.cached_property
  def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Knots, levels and the slope of each segment, float64."""
    knots, levels = np.array(self.knots), np.array(self.levels)
    return knots, levels, np.diff(levels) / np.diff(knots)

  def to_dict(self) -> dict[str, Any]:
    """JSON-able: kind, knots, levels."""
    return {
      'kind': 'empirical_cdf',
      'knots': list(self.knots),
      'levels': list(self.levels),
    }


def from_dict(values: Mapping[str, Any]) -> Normaliser:
  """Reads back what `to_dict` of any normaliser wrote.

  Raises:
    ValueError: unknown or missing kind, or missing parameters.
  """
  kinds = ('empirical_cdf', 'min_max')
  kind = values.get('kind')
  if kind not in kinds:
    raise ValueError(f'Unknown normaliser kind {kind!r}; known: {", ".join(kinds)}.')
  try:
    if kind == 'min_max':
      return MinMax(low=values['low'], high=values['high'])
    return EmpiricalCdf(knots=tuple(values['knots']), levels=tuple(values['levels']))
  except KeyError as error:
    raise ValueError(
      f'The {kind} normaliser lacks {error}; it has {sorted(values)}. Write it with '
      'to_dict().'
    ) from error


def _finite(rewards: np.ndarray) -> np.ndarray:
  """The rewards as float32.

  Raises:
    ValueError: a reward is not finite; says how many and where the first is.
  """
  values = np.asarray(rewards, np.float32)
  bad = np.flatnonzero(~np.isfinite(values))
  if bad.size:
    raise ValueError(
      f'{bad.size} of {values.size} rewards are not finite (the first, at flat index '
      f'{bad[0]}, is {values.ravel()[bad[0]]}): score those candidates again.'
    )
  return values


def _checked_to_fit(rewards: np.ndarray, name: str) -> np.ndarray:
  """[n] float32, with at least two distinct finite values."""
  values = _finite(rewards).ravel()
  if not values.size:
    raise ValueError(f'{name}.fit got no reward: score a group set first.')
  if values.min() == values.max():
    raise ValueError(
      f'{name}.fit: all {values.size} rewards are {values[0]:g}, so there is nothing '
      'to rank: the scorer does not tell candidates apart. Train the reward model '
      'longer, or check the scorer.'
    )
  return values

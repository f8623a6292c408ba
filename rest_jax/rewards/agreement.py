"""How well one set of rewards ranks candidates as another does.

Two views. *Over all pairs* mixes two questions: which source is easy, and which
candidate is good. *Inside groups* asks the second alone, and that is what a filter
per source, Best-of-N and the online learners use: a correlation per source, then
the mean over sources. The first is often far higher than the second, so both are
always reported.

Pearson, Spearman (Pearson of mid-ranks) and Kendall's tau-b, all in float64.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

# Above this group size Kendall's tau goes by sorting, n log n a group; below it by
# comparing all pairs of a block of groups at once.
_MAX_PAIRWISE = 128
_MAX_COMPARISONS = 4_000_000


@dataclasses.dataclass(frozen=True)
class Agreement:
  """Correlations in [-1, 1]; None where undefined (one side does not vary)."""

  pearson: float | None
  spearman: float | None
  kendall: float | None
  pearson_in_groups: float | None  # means over `groups_used`
  spearman_in_groups: float | None
  kendall_in_groups: float | None
  pairs: int
  groups_used: int
  groups_skipped: int  # fewer than two distinct values on one side

  def to_dict(self) -> dict[str, float | int | None]:
    """JSON-able: every field."""
    return dataclasses.asdict(self)


class GroupCorrelations(NamedTuple):
  """One correlation per source, NaN for the sources that are skipped."""

  pearson: np.ndarray  # [sources] float64
  spearman: np.ndarray
  kendall: np.ndarray


def agreement(
  predicted: Sequence[np.ndarray], target: Sequence[np.ndarray]
) -> Agreement:
  """Agreement of two sets of rewards of the same candidates.

  Args:
    predicted: per source [samples], such as a reward model's.
    target: per source [samples], such as gold or human ratings.

  Raises:
    ValueError: the shapes differ for a source, or a value is not finite.
  """
  predicted, target = _checked(predicted, target)
  groups = correlations_in_groups(predicted, target)
  used = np.isfinite(groups.pearson)
  inside = [
    float(values[used].mean()) if used.any() else None
    for values in (groups.pearson, groups.spearman, groups.kendall)
  ]
  x = np.concatenate([np.zeros(0), *predicted])
  y = np.concatenate([np.zeros(0), *target])
  overall: list[float | None] = [None, None, None]
  if x.size and np.ptp(x) > 0 and np.ptp(y) > 0:
    overall = [*_correlations(x, y)]
  return Agreement(
    pearson=overall[0],
    spearman=overall[1],
    kendall=overall[2],
    pearson_in_groups=inside[0],
    spearman_in_groups=inside[1],
    kendall_in_groups=inside[2],
    pairs=x.size,
    groups_used=int(used.sum()),
    groups_skipped=int((~used).sum()),
  )


def resampled_correlations(
  predicted: Sequence[np.ndarray],
  target: Sequence[np.ndarray],
  *,
  seed: int,
  num_resamples: int = 1000,
) -> np.ndarray:  # [resamples, 3] float64, Pearson, Spearman and Kendall over all pairs
  """The correlations over all pairs in bootstrap resamples of the sources.

  A source takes all its candidates along. Quantiles give an interval; differences of
  two scorers' rows, of one seed, that of their difference.

  Raises:
    ValueError: as `agreement`, or a resample in which one side does not vary.
  """
  predicted, target = _checked(predicted, target)
  rng = np.random.default_rng(seed)
  rows = np.empty((num_resamples, 3))
  for row in rows:
    drawn = rng.integers(len(predicted), size=len(predicted))
    x = np.concatenate([predicted[source] for source in drawn])
    y = np.concatenate([target[source] for source in drawn])
    if not (np.ptp(x) > 0 and np.ptp(y) > 0):
      raise ValueError(
        f'a resample of {len(predicted)} sources has equal values on one side: '
        'correlations need more sources, or rewards that differ'
      )
    row[:] = _correlations(x, y)
  return rows


def _correlations(x: np.ndarray, y: np.ndarray) -> list[float]:
  """Pearson, Spearman and Kendall of two [pairs] arrays that vary."""
  ranks = (scipy.stats.rankdata(side)[None] for side in (x, y))
  return [
    float(_pearson(x[None], y[None])[0]),
    float(_pearson(*ranks)[0]),
    float(scipy.stats.kendalltau(x, y).statistic),
  ]


def correlations_in_groups(
  predicted: Sequence[np.ndarray], target: Sequence[np.ndarray]
) -> GroupCorrelations:
  """The correlations of every source; sources of one size are computed together.

  A source with fewer than two distinct values on either side has none: NaN.

  Raises:
    ValueError: as `agreement`.
  """
  predicted, target = _checked(predicted, target)
  sizes = np.array([len(values) for values in predicted], np.int64)
  results = np.full((3, len(sizes)), np.nan)
  for size in np.unique(sizes[sizes > 1]):
    rows = np.flatnonzero(sizes == size)
    x = np.stack([predicted[row] for row in rows])  # [groups, size]
    y = np.stack([target[row] for row in rows])
    varied = (np.ptp(x, axis=1) > 0) & (np.ptp(y, axis=1) > 0)
    rows, x, y = rows[varied], x[varied], y[varied]
    if rows.size:
      ranks = (scipy.stats.rankdata(side, axis=1) for side in (x, y))
      results[0, rows] = _pearson(x, y)
      results[1, rows] = _pearson(*ranks)
      results[2, rows] = _kendall(x, y)
  return GroupCorrelations(*results)


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Pearson's r of each row of [groups, size]; every row varies on both sides."""
  x, y = (v - v.mean(axis=1, keepdims=True) for v in (x, y))
  covariance = np.einsum('gs,gs->g', x, y)
  variances = np.einsum('gs,gs->g', x, x) * np.einsum('gs,gs->g', y, y)
  return np.clip(covariance / np.sqrt(variances), -1, 1)


def _kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Kendall's tau-b of each row of [groups, size]; every row varies on both sides.

  (concordant - discordant) / sqrt(pairs untied in x * pairs untied in y)
  """
  groups, size = x.shape
  if size > _MAX_PAIRWISE:
    pairs = zip(x, y, strict=True)
    return np.array([scipy.stats.kendalltau(a, b).statistic for a, b in pairs])
  first, second = np.triu_indices(size, 1)
  block = max(1, _MAX_COMPARISONS // len(first))
  taus = []
  for start in range(0, groups, block):
    signs_x, signs_y = (
      np.sign(side[start : start + block, first] - side[start : start + block, second])
      for side in (x, y)
    )  # [block, pairs], 0 where tied
    untied = np.abs(signs_x).sum(1) * np.abs(signs_y).sum(1)
    taus.append((signs_x * signs_y).sum(1) / np.sqrt(untied))
  return np.concatenate(taus)


def _checked(
  predicted: Sequence[np.ndarray], target: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """Both sides as lists of [samples] float64."""
  if len(predicted) != len(target):
    raise ValueError(
      f'{len(predicted)} predicted groups and {len(target)} target groups: give both '
      'for the same sources.'
    )
  sides = [[np.asarray(v, np.float64) for v in side] for side in (predicted, target)]
  for index, (mine, theirs) in enumerate(zip(*sides, strict=True)):
    if mine.ndim != 1 or mine.shape != theirs.shape:
      raise ValueError(
        f'group {index}: predicted has shape {mine.shape} and target {theirs.shape}; '
        'both must be [samples], one value per candidate.'
      )
    if not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
      raise ValueError(
        f'group {index} has a value that is not finite: leave that candidate out of '
        'both sides.'
      )
  return sides[0], sides[1]

"""How far raters agree: Krippendorff's alpha, and Spearman's rho of each pair.

Alpha for interval data (Krippendorff, "Computing Krippendorff's Alpha-Reliability",
2011) compares the disagreement inside units with that expected of the same ratings
dealt out at random:

    alpha = 1 - (n - 1) sum_ck o_ck (c - k)^2 / sum_ck n_c n_k (c - k)^2

where o_ck, the coincidences, count the ordered pairs of ratings c and k of one unit by
two raters, each unit's pairs divided by its number of ratings less one; n_c and n are
their sums. 1 is perfect agreement, 0 is chance. Units with one rating count nothing.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import scipy.stats

from rest_jax.evaluation import intervals


@dataclasses.dataclass(frozen=True)
class PairAgreement:
  """Spearman's rho of two raters over the units that both have rated."""

  first: int  # the raters' rows
  second: int
  units: int
  spearman: float | None  # None where either does not vary


def coincidences(
  ratings: np.ndarray,  # [raters, units] float, whole numbers, NaN where not rated
  num_values: int,
) -> np.ndarray:  # [units, num_values, num_values] float64
  """The coincidence matrix of every unit; zero where fewer than two have rated it.

  Args:
    ratings: values 0 to num_values - 1.
    num_values: of the scale.

  Raises:
    ValueError: a rating that is not on the scale.
  """
  rated = np.isfinite(ratings)
  given = ratings[rated]
  if given.size and ((given % 1).any() or given.min() < 0 or given.max() >= num_values):
    raise ValueError(
      f'ratings from {given.min()} to {given.max()}: they must be whole numbers from 0 '
      f'to {num_values - 1}'
    )
  values = np.arange(num_values)
  # [units, values]: how many raters gave each value.
  counts = (ratings[:, :, None] == values).sum(axis=0).astype(np.float64)
  num_raters = counts.sum(axis=1)
  # Ordered pairs of two raters: all pairs, less each rating with itself.
  pairs = np.einsum('uc,uk->uck', counts, counts)
  pairs[:, values, values] -= counts
  weights = np.where(num_raters > 1, 1 / np.maximum(num_raters - 1, 1), 0.0)
  return pairs * weights[:, None, None]


def alpha_of_coincidences(
  sums: np.ndarray,  # [sums, num_values * num_values]
) -> np.ndarray:  # [sums] float64
  """Alpha of each row of summed coincidences; 1 where all ratings are the same."""
  num_values = round(sums.shape[1] ** 0.5)
  matrices = sums.reshape(-1, num_values, num_values)
  values = np.arange(num_values)
  distances = ((values[:, None] - values[None, :]) ** 2).astype(np.float64)
  margins = matrices.sum(axis=2)  # [sums, values]
  total = margins.sum(axis=1)
  observed = np.einsum('sck,ck->s', matrices, distances)
  expected = np.einsum('sc,sk,ck->s', margins, margins, distances)
  ratio = (total - 1) * observed / np.where(expected > 0, expected, 1)
  return np.where(expected > 0, 1 - ratio, 1.0)


def krippendorff_alpha(
  ratings: np.ndarray,  # [raters, units], NaN where not rated
  sources: Sequence[int],
  *,
  num_values: int,
  seed: int,
) -> intervals.Interval | None:
  """Alpha for interval data, with a bootstrap interval over sources.

  Args:
    ratings: see `coincidences`.
    sources: each unit's source; the units of one are resampled together.
    num_values: see `coincidences`.
    seed: of the resamples.

  Returns:
    None where alpha is undefined: fewer than two sources with a unit that two have
    rated, or no two ratings that differ.
  """
  by_unit = coincidences(ratings, num_values).reshape(ratings.shape[1], -1)
  _, rows = np.unique(np.asarray(sources), return_inverse=True)
  by_source = np.zeros((rows.max(initial=-1) + 1, by_unit.shape[1]))
  np.add.at(by_source, rows, by_unit)
  by_source = by_source[by_source.any(axis=1)]
  margins = by_source.sum(axis=0).reshape(num_values, num_values).sum(axis=1)
  if len(by_source) < 2 or np.count_nonzero(margins) < 2:
    return None
  return intervals.bootstrap_counts(
    by_source[:, None], alpha_of_coincidences, seed=seed
  )


def pairwise_spearman(
  ratings: np.ndarray,  # [raters, units], NaN where not rated
) -> list[PairAgreement]:
  """Spearman's rho of every pair of raters who have a unit in common."""
  found = []
  for first, second in itertools.combinations(range(len(ratings)), 2):
    both = np.isfinite(ratings[[first, second]]).all(axis=0)
    x, y = ratings[first, both], ratings[second, both]
    if not x.size:
      continue
    varied = np.ptp(x) > 0 and np.ptp(y) > 0
    spearman = float(scipy.stats.spearmanr(x, y).statistic) if varied else None
    found.append(PairAgreement(first, second, int(both.sum()), spearman))
  return found

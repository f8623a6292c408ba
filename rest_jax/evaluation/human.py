"""The paper's human evaluation: how much better than BC people find each policy.

Ratings of one source by one rater are compared with that rater's ratings of the same
source only, so that neither a strict rater nor a hard source counts for or against a
policy. All intervals are bootstrap intervals over sources (`intervals`), paired.
"""

import dataclasses

import numpy as np

from rest_jax.evaluation import intervals


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A system against the baseline, over the sources where someone rated both.

  Attributes:
    num_sources: such sources.
    difference: of the mean ratings, the system's less the baseline's.
    win_rate: the share of judgements that prefer the system, ties counting half.
    wins, ties, losses: shares of judgements, 1 together. A judgement is one rater's
      two ratings (means over samples) of one source; sources weigh the same.
  """

  num_sources: int
  difference: intervals.Interval
  win_rate: intervals.Interval
  wins: float
  ties: float
  losses: float


def mean_over(values: np.ndarray, axis: int) -> np.ndarray:
  """The mean of what is not NaN; NaN where all is."""
  known = np.isfinite(values)
  counts = known.sum(axis=axis)
  sums = np.where(known, values, 0.0).sum(axis=axis)
  return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def mean_rating(
  ratings: np.ndarray,  # [raters, sources, samples], NaN where not rated
  *,
  seed: int,
) -> tuple[intervals.Interval, int] | None:
  """A system's mean rating and the number of sources; None with fewer than two.

  Samples are reduced to a rater's mean, raters to a source's, sources weigh the same.
  """
  by_source = mean_over(mean_over(ratings, 2), 0)
  by_source = by_source[np.isfinite(by_source)]
  if len(by_source) < 2:
    return None
  return intervals.bootstrap_mean(by_source, seed=seed), len(by_source)


def compare(
  ratings: np.ndarray,  # [raters, sources, samples], NaN where not rated
  baseline: np.ndarray,  # [raters, sources, samples], likewise
  *,
  seed: int,
) -> Comparison | None:
  """Compares a system with the baseline; None with fewer than two sources."""
  # [raters, sources]: NaN unless the rater has rated both.
  differences = mean_over(ratings, 2) - mean_over(baseline, 2)
  judged = np.isfinite(differences).any(axis=0)
  if judged.sum() < 2:
    return None
  differences = differences[:, judged]

  def share(event: np.ndarray) -> np.ndarray:  # [sources]
    return mean_over(np.where(np.isfinite(differences), event, np.nan), 0)

  wins, ties = share(differences > 0), share(differences == 0)
  return Comparison(
    num_sources=int(judged.sum()),
    difference=intervals.bootstrap_mean(mean_over(differences, 0), seed=seed),
    win_rate=intervals.bootstrap_mean(wins + ties / 2, seed=seed),
    wins=float(wins.mean()),
    ties=float(ties.mean()),
    losses=float(share(differences < 0).mean()),
  )

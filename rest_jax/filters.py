"""The filters F(x, y; tau) that choose which candidates an Improve step trains on.

A filter is a small frozen object called on one batch of groups:

    keep = filter(rewards, mask)

  rewards  [batch, samples] float32, normalised rewards; contents are ignored
           where `mask` is False
  mask     [batch, samples] bool, True where a candidate exists
  keep     [batch, samples] bool, True where the candidate is trained on;
           never True where `mask` is False

Source: ReST (arXiv:2308.08998), Algorithm 1 and appendix A.7. Every threshold is
strict, as in the paper: a candidate is kept when its reward is *greater* than the
threshold. A source none of whose candidates is kept is *emptied*; FilterReport
counts those.

Filters are NumPy: they run on the host, on reward columns, before a token is read.
`identity()` is the JSON dictionary that enters a stage's fingerprint. How a global
threshold is chosen and checked is in thresholds.py.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from rest_jax.thresholds import (
  PAPER_THRESHOLDS,
  check_threshold,
  exact_decimal,
  exact_quantile,
)

__all__ = (
  'PAPER_THRESHOLDS',
  'Filter',
  'FilterReport',
  'GlobalQuantile',
  'GlobalThreshold',
  'KeepAll',
  'SourceInterpolation',
  'SourcePercentile',
  'TopK',
  'check_threshold',
)


class Filter(Protocol):
  """What every filter is: a pure function of a batch of groups, with an identity."""

  def __call__(self, rewards: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The candidates to train on, [batch, samples] bool."""
    ...

  def identity(self) -> dict[str, Any]:
    """JSON-able: what tells this filter from another."""
    ...


class _Identity:
  """Gives a frozen dataclass its `identity()`."""

  def identity(self) -> dict[str, Any]:
    """JSON-able: the filter's name and its parameters."""
    return {'filter': type(self).__name__, **vars(self)}


@dataclasses.dataclass(frozen=True)
class KeepAll(_Identity):
  """Keeps every candidate: behavioural cloning on all of D_g (the paper's I=0)."""

  def __call__(self, rewards: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """keep = mask."""
    _, mask = _checked(rewards, mask)
    return mask.copy()


@dataclasses.dataclass(frozen=True)
class GlobalThreshold(_Identity):
  """One threshold for all sources: R > tau.

  Rewards and `tau` are compared as float32, so a reward stored as float32(0.8) is
  not above tau = 0.8. A global threshold mostly chooses easy sources where rewards
  differ more between sources than inside a group: read the emptied sources in the
  report.

  The paper writes its row I=0 as tau_0 = 0.0 and means all of D_g. A strict
  threshold at 0.0 drops a candidate whose reward is exactly 0 (or below), such as
  the worst one under a min-max normaliser: use KeepAll for that row.

  Raises:
    ValueError: `tau` is not finite.
  """

  tau: float

  def __post_init__(self) -> None:
    if not math.isfinite(self.tau):
      raise ValueError(
        f'GlobalThreshold(tau={self.tau}): tau must be a finite number on the scale '
        'of the normalised reward; use KeepAll() to keep every candidate.'
      )

  def __call__(self, rewards: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """keep = mask and R > tau."""
    rewards, mask = _checked(rewards, mask)
    return mask & (rewards > np.float32(self.tau))


@dataclasses.dataclass(frozen=True)
class GlobalQuantile(_Identity):
  """The global threshold at a quantile of all rewards, as RAFT fixes it.

  Two steps, since one batch does not know the distribution:

      threshold_filter = GlobalQuantile(0.9).fit(reward_batches)

  tau is the ceil(q * n)-th smallest of the n rewards (the inverse of the empirical
  CDF; q is read as the decimal it was written as), so that n - ceil(q * n)
  candidates are kept when no two rewards are equal, and fewer with ties at tau.

  Raises:
    ValueError: q is not inside (0, 1); called before it was fitted.
  """

  q: float

  def __post_init__(self) -> None:
    if not 0 < self.q < 1:
      raise ValueError(
        f'GlobalQuantile(q={self.q}): q must lie inside (0, 1); 0.9 keeps the best '
        '10 % of all candidates. Use KeepAll() to keep every candidate.'
      )

  def __call__(self, rewards: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Always raises: a quantile must be fitted first."""
    raise ValueError(
      f'GlobalQuantile(q={self.q}) needs all rewards before it can filter a batch: '
      'call .fit(reward_batches) and use the GlobalThreshold that it returns.'
    )

  def fit(
    self, reward_batches: Iterable[tuple[np.ndarray, np.ndarray]]
  ) -> GlobalThreshold:
    """The threshold for these rewards; exact, whatever their number.

    Args:
      reward_batches: pairs (rewards [batch, samples], mask [batch, samples]). A
        list, or any object that can be iterated again, is read twice and costs
        512 KiB of counters; a one-shot iterator (a generator) is first copied to
        memory, 4 bytes per candidate.

    Raises:
      ValueError: there is no candidate, or the quantile is also the largest reward
        (many candidates share it), so that nothing would be kept.
    """
    if iter(reward_batches) is reward_batches:
      reward_batches = [
        (column[None], np.ones((1, column.size), bool))
        for column in (_present(*pair) for pair in reward_batches)
      ]
    quantile = exact_quantile(
      lambda: (_present(*pair) for pair in reward_batches), self.q
    )
    if quantile.value < quantile.largest:
      return GlobalThreshold(quantile.value)
    share = quantile.num_below_largest / quantile.num_values
    remedy = 'All rewards are equal: look at the reward model'
    if share:
      remedy = f'{share:.2%} of them lie below it: choose q <= {share:.4g}'
    raise ValueError(
      f'GlobalQuantile(q={self.q}) gives tau = {quantile.value:.6g}, which is also '
      f'the largest of {quantile.num_values} rewards, and R > tau would keep '
      f'nothing. {remedy}, or use TopK, which breaks ties.'
    )


@dataclasses.dataclass(frozen=True)
class SourcePercentile(_Identity):
  """Keeps what lies strictly above the p-th percentile of its own source.

  With the n rewards of a source sorted, r_0 <= ... <= r_(n-1), the percentile is
  the linear interpolation at position p / 100 * (n - 1) (NumPy's default). Without
  ties it keeps n - 1 - floor(p / 100 * (n - 1)) candidates: at p = 90, one of 8 and
  10 of 100.

  Ties: candidates equal to the percentile are dropped, all of them. So a source
  whose candidates are all equal, or share the best reward from the percentile's
  position on, is emptied, and so is a source with one candidate (nothing is above
  itself). A supervised pair kept as a group of its own is therefore always
  dropped: put the reference inside the source's group, or mix the pairs in
  unfiltered. TopK breaks ties instead.

  Source: ReST, appendix A.7 (gains saturate after p = 90).

  Raises:
    ValueError: p is not inside [0, 100).
  """

  p: float

  def __post_init__(self) -> None:
    if not 0 <= self.p < 100:
      raise ValueError(
        f'SourcePercentile(p={self.p}): p must lie in [0, 100); nothing is strictly '
        'above the 100th percentile. 90 keeps about the best tenth of each source.'
      )

  def __call__(self, rewards: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """keep = mask and R > the percentile of the row."""
    rewards, mask = _checked(rewards, mask)
    num_samples = rewards.shape[1]
    if not num_samples:
      return mask.copy()
    # Position of the percentile for every possible number of candidates, in exact
    # arithmetic: 0.29 * 100 in floats is just below 29 and would keep one too many.
    positions = [
      exact_decimal(self.p) * max(count - 1, 0) / 100
      for count in range(num_samples + 1)
    ]
    floors = np.array([math.floor(position) for position in positions])
    fractions_ = np.array([float(position % 1) for position in positions])
    count = mask.sum(axis=1)  # [batch]
    ascending = np.sort(np.where(mask, rewards, np.inf), axis=1).astype(np.float64)
    index = floors[count][:, None]  # [batch, 1]
    below = np.take_along_axis(ascending, index, axis=1)
    next_index = np.minimum(index + 1, np.maximum(count - 1, 0)[:, None])
    above = np.take_along_axis(ascending, next_index, axis=1)
    # Groups without a candidate would compute inf - inf; they keep nothing anyway.
    empty = (count == 0)[:, None]
    below, above = np.where(empty, 0, below), np.where(empty, 0, above)
    tau = below + fractions_[count][:, None] * (above - below)  # [batch, 1]
    return mask & (rewards > tau)


@dataclasses.dataclass(frozen=True)
class SourceInterpolation(_Identity):
  """Keeps what lies above a point between its source's mean and maximum.

  tau(x) = mean_j R(x, y_j) + gamma * (max_j R(x, y_j) - mean_j R(x, y_j)),

  which equals the paper's gamma * max + (1 - gamma) * mean, and is exact where
  max = mean. gamma = 0 keeps what is better than the source's mean; gamma close to
  1 keeps the best alone. A source with one candidate, or whose candidates are all
  equal, is emptied (see SourcePercentile). Every other source keeps its best.

  Source: ReST, appendix A.7; raise gamma with each Improve step.

  Raises:
    ValueError: gamma is not inside [0, 1). At 1 the threshold is the maximum, and
      a strict comparison keeps nothing; the paper does not say what it does there.
  """

  gamma: float

  def __post_init__(self) -> None:
    if not 0 <= self.gamma < 1:
      raise ValueError(
        f'SourceInterpolation(gamma={self.gamma}): gamma must lie in [0, 1); at 1 '
        'the threshold is the maximum of the source and R > tau keeps nothing. Use '
        'TopK(1) for the best candidate of every source.'
      )

  def __call__(self, rewards: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """keep = mask and R > tau(x), one tau for each row."""
    rewards, mask = _checked(rewards, mask)
    if not rewards.shape[1]:
      return mask.copy()
    count = mask.sum(axis=1, keepdims=True)  # [batch, 1]
    best = np.where(mask, rewards, -np.inf).max(axis=1, keepdims=True)
    best = np.where(count > 0, best, 0).astype(np.float64)
    # Summed in sorted order with the padding (zeros) last, so that neither the
    # order of the candidates nor the width of the batch changes a rounding.
    order = np.argsort(np.where(mask, rewards, np.inf), axis=1)
    ascending = np.take_along_axis(np.where(mask, rewards, 0), order, axis=1)
    total = np.cumsum(ascending, axis=1, dtype=np.float64)[:, -1:]
    mean = total / np.maximum(count, 1)
    tau = mean + self.gamma * (best - mean)
    return mask & (rewards > tau)


@dataclasses.dataclass(frozen=True)
class TopK(_Identity):
  """Keeps the k best candidates of every source; all of them where there are fewer.

  Equal rewards are ordered by candidate index, the earlier one first, so exactly
  min(k, candidates) are kept and no source is emptied.

  Raises:
    ValueError: k is not a whole number of at least 1.
  """

  k: int

  def __post_init__(self) -> None:
    if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
      raise ValueError(
        f'TopK(k={self.k}): k must be a whole number of at least 1, the number of '
        'candidates to keep for each source.'
      )

  def __call__(self, rewards: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """keep = mask and rank in the row < k."""
    rewards, mask = _checked(rewards, mask)
    order = np.argsort(np.where(mask, -rewards, np.inf), axis=1, kind='stable')
    rank = np.argsort(order, axis=1, kind='stable')  # the inverse permutation
    return mask & (rank < self.k)


@dataclasses.dataclass(frozen=True)
class SourceExtremes(_Identity):
  """Keeps both ends of every source: what preference losses take their pairs from.

  keep = R above the p-th percentile of its source, or -R above that of -R

  so that a rising p leaves pairs that are further apart. Percentiles and ties are
  those of SourcePercentile: a source whose candidates are all equal is emptied.

  Raises:
    ValueError: p is not inside [50, 100).
  """

  p: float

  def __post_init__(self) -> None:
    if not 50 <= self.p < 100:
      raise ValueError(
        f'SourceExtremes(p={self.p}): p must lie in [50, 100); 75 keeps the best and '
        'the worst quarter of each source. KeepAll keeps all.'
      )

  def __call__(self, rewards: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """keep = mask and R in the upper or the lower tail of the row."""
    upper = SourcePercentile(self.p)
    rewards, mask = _checked(rewards, mask)
    return upper(rewards, mask) | upper(-rewards, mask)


@dataclasses.dataclass
class FilterReport:
  """What a filter kept, accumulated batch by batch.

  A source counts when it has a candidate; rows of padding do not. `most_kept` is the
  largest number of candidates kept of one source. `tokens` and `kept_tokens` stay 0
  when no token counts are given.
  """

  candidates: int = 0
  kept_candidates: int = 0
  sources: int = 0
  kept_sources: int = 0
  most_kept: int = 0
  tokens: int = 0
  kept_tokens: int = 0
  first_emptied: list[str] = dataclasses.field(default_factory=list)
  max_emptied_ids: int = 10

  def update(
    self,
    keep: np.ndarray,  # [batch, samples] bool
    mask: np.ndarray,  # [batch, samples] bool
    *,
    source_ids: Sequence[str],  # [batch]
    num_tokens: np.ndarray | None = None,  # [batch, samples] int, candidate lengths
  ) -> None:
    """Adds one batch.

    Raises:
      ValueError: shapes differ, or a candidate is kept that does not exist.
    """
    keep, mask = np.asarray(keep), np.asarray(mask)
    if keep.shape != mask.shape or keep.ndim != 2 or len(source_ids) != len(keep):
      raise ValueError(
        f'keep {keep.shape} and mask {mask.shape} must both be [batch, samples], '
        f'with one source id per row; got {len(source_ids)} ids.'
      )
    if keep.dtype != np.bool_ or mask.dtype != np.bool_:
      raise ValueError(f'keep ({keep.dtype}) and mask ({mask.dtype}) must be bool.')
    stray = (keep & ~mask).any(axis=1)
    if stray.any():
      raise ValueError(
        f'source {source_ids[int(stray.argmax())]!r}: keep is True where mask says '
        'that there is no candidate; a filter returns mask & (reward > threshold).'
      )
    present, left = mask.any(axis=1), keep.any(axis=1)
    self.candidates += int(mask.sum())
    self.kept_candidates += int(keep.sum())
    self.sources += int(present.sum())
    self.kept_sources += int(left.sum())
    self.most_kept = max(self.most_kept, int(keep.sum(axis=1).max(initial=0)))
    if num_tokens is not None:
      num_tokens = np.asarray(num_tokens)
      if num_tokens.shape != mask.shape:
        raise ValueError(
          f'num_tokens {num_tokens.shape} must have the shape of mask {mask.shape}.'
        )
      self.tokens += int(num_tokens[mask].sum())
      self.kept_tokens += int(num_tokens[keep].sum())
    for row in np.flatnonzero(present & ~left):
      if len(self.first_emptied) >= self.max_emptied_ids:
        break
      self.first_emptied.append(source_ids[int(row)])

  @property
  def emptied_sources(self) -> int:
    """Sources that had candidates and lost them all."""
    return self.sources - self.kept_sources

  @property
  def kept_fraction(self) -> float:
    """Kept candidates / candidates; 0 when there was none."""
    return self.kept_candidates / self.candidates if self.candidates else 0.0

  def to_dict(self) -> dict[str, Any]:
    """JSON-able: every count, the fraction, and the first emptied source ids."""
    return {
      'candidates': self.candidates,
      'kept_candidates': self.kept_candidates,
      'kept_fraction': self.kept_fraction,
      'sources': self.sources,
      'kept_sources': self.kept_sources,
      'most_kept': self.most_kept,
      'emptied_sources': self.emptied_sources,
      'first_emptied': list(self.first_emptied),
      'tokens': self.tokens,
      'kept_tokens': self.kept_tokens,
    }


def _checked(rewards: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Rewards as float32 with 0 where no candidate exists, and the mask; validated."""
  rewards, mask = np.asarray(rewards), np.asarray(mask)
  if rewards.ndim != 2 or rewards.shape != mask.shape:
    raise ValueError(
      f'rewards {rewards.shape} and mask {mask.shape} must both be [batch, samples]; '
      'add a batch axis for one source: rewards[None, :].'
    )
  if mask.dtype != np.bool_ or not np.issubdtype(rewards.dtype, np.floating):
    raise ValueError(
      f'rewards must be floating point and mask bool; got {rewards.dtype} and '
      f'{mask.dtype}.'
    )
  rewards = np.where(mask, rewards, 0).astype(np.float32)
  if not np.isfinite(rewards).all():
    row, column = np.argwhere(~np.isfinite(rewards))[0]
    raise ValueError(
      f'reward {rewards[row, column]} of candidate {column} in row {row} is not '
      'finite: score the group again, or mask the candidate.'
    )
  return rewards, mask


def _present(rewards: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """[n] float32, the rewards of the candidates that exist."""
  rewards, mask = _checked(rewards, mask)
  return rewards[mask]

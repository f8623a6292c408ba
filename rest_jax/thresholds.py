"""Choosing a global threshold: the paper's sequence, its rules, and quantiles.

Source: ReST (arXiv:2308.08998), Algorithm 1. NumPy; used by filters.py.
"""

import fractions
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

# The paper's thresholds on the normalised reward, tau_0 to tau_5. The first one is
# the row I=0, which trains on all of D_g: use KeepAll for it (see GlobalThreshold).
PAPER_THRESHOLDS = (0.0, 0.7, 0.8, 0.9, 0.95, 0.99)


def check_threshold(
  tau: float,
  *,
  mean_reward: float,
  max_reward: float,
  previous_tau: float | None = None,
  rewards: np.ndarray | None = None,
) -> None:
  """Checks Algorithm 1's rules for the next global threshold.

  tau_1 > V = E_{D_g}[R];   tau_{i+1} > tau_i;   and something is kept: tau < max R.

  Call it for each Improve step with a threshold, not for the row I=0.

  Args:
    tau: the threshold to check, on the normalised reward.
    mean_reward: V, the mean reward over D_g.
    max_reward: the largest reward in D_g.
    previous_tau: the last Improve step's threshold in this Grow step, or None.
    rewards: a sample of D_g's rewards, any shape; with it the message says what
      share of the candidates the thresholds that would work keep.

  Raises:
    ValueError: tau breaks a rule; the message names it and the values that work.
  """
  first = previous_tau is None
  floor = mean_reward if previous_tau is None else max(mean_reward, previous_tau)
  if not math.isfinite(tau):
    problem = 'it must be a finite number'
  elif previous_tau is not None and tau <= previous_tau:
    problem = (
      f'each Improve step needs a higher threshold than the last one, {previous_tau:g}'
    )
  elif tau <= mean_reward:
    problem = (
      f'{"tau_1" if first else "every threshold"} must exceed the mean reward of '
      f'D_g, V = {mean_reward:.6g}'
    )
  elif not np.float32(tau) < np.float32(max_reward):
    problem = f'R > tau keeps nothing: the largest reward is {max_reward:.6g}'
  else:
    return
  if not floor < max_reward:
    remedy = (
      f'No threshold works: it would have to lie between {floor:.6g} and the '
      f'largest reward, {max_reward:.6g}. Start a new Grow step, or filter per '
      'source (SourcePercentile, SourceInterpolation, TopK).'
    )
  else:
    remedy = f'Choose tau with {floor:.6g} < tau < {max_reward:.6g}'
    paper = [str(t) for t in PAPER_THRESHOLDS if floor < t < max_reward]
    remedy += f" (of the paper's: {', '.join(paper)})." if paper else '.'
    remedy += _kept_shares(rewards, floor, max_reward)
  raise ValueError(f'Threshold tau = {tau:g}: {problem}. {remedy}')


def _kept_shares(rewards: np.ndarray | None, floor: float, max_reward: float) -> str:
  """' tau = 0.62 keeps 50 %, ...' for quantiles of `rewards` that would work."""
  if rewards is None or not np.size(rewards):
    return ''
  values = np.asarray(rewards, np.float32).ravel()
  choices = []
  for q in (0.5, 0.75, 0.9, 0.95, 0.99):
    # Rounded up to 4 digits, so that what is printed is what was counted.
    tau = math.ceil(float(np.quantile(values, q)) * 1e4) / 1e4
    kept = float(np.mean(values > np.float32(tau)))
    text = f'{tau:g} keeps {kept:.1%}'
    if floor < tau < max_reward and kept > 0 and text not in choices:
      choices.append(text)
  return f' In the given rewards tau = {"; ".join(choices)}.' if choices else ''


class Quantile(NamedTuple):
  """An order statistic and what was seen on the way."""

  value: float
  largest: float
  num_values: int
  num_below_largest: int


def exact_quantile(
  columns_fn: Callable[[], Iterable[np.ndarray]], q: float
) -> Quantile:
  """The ceil(q * n)-th smallest of n float32 values, exactly, in bounded memory.

  A radix selection in two passes. Pass one counts the upper 16 bits of every
  value's order key and finds the bucket that holds the wanted rank; pass two counts
  the lower 16 bits inside that bucket. Two tables of 65,536 counters are all it
  keeps.

  Args:
    columns_fn: called once per pass; gives [n_i] float32 arrays, finite.
    q: inside (0, 1), read as the decimal it was written as.

  Raises:
    ValueError: there is no value.
  """
  upper = np.zeros(2**16, np.int64)
  largest = -math.inf
  for column in columns_fn():
    if column.size:
      upper += np.bincount(_order_key(column) >> 16, minlength=2**16)
      largest = max(largest, float(column.max()))
  num_values = int(upper.sum())
  if not num_values:
    raise ValueError(
      f'The {q} quantile of no rewards: the group set is empty, or every mask False.'
    )
  rank = math.ceil(exact_decimal(q) * num_values)  # 1 is the smallest value
  bucket = int(np.searchsorted(np.cumsum(upper), rank))
  rank -= int(upper[:bucket].sum())
  lower = np.zeros(2**16, np.int64)
  num_below_largest = 0
  for column in columns_fn():
    key = _order_key(column)
    inside = key[(key >> 16) == bucket] & 0xFFFF
    lower += np.bincount(inside, minlength=2**16)
    num_below_largest += int(np.count_nonzero(column < largest))
  key_low = int(np.searchsorted(np.cumsum(lower), rank))
  value = _from_order_key((bucket << 16) | key_low)
  return Quantile(value, largest, num_values, num_below_largest)


def exact_decimal(value: float) -> fractions.Fraction:
  """The decimal that a person wrote: 0.1 is 1/10, not the nearest binary float."""
  return fractions.Fraction(repr(float(value)))


def _order_key(values: np.ndarray) -> np.ndarray:
  """uint32 keys in the same order as the float32 values."""
  bits = values.view(np.uint32)
  negative = bits >> 31 == 1
  return np.where(negative, ~bits, bits | np.uint32(0x80000000))


def _from_order_key(key: int) -> float:
  """The float32 value of an order key."""
  bits = key & 0x7FFFFFFF if key >> 31 else ~key & 0xFFFFFFFF
  return float(np.array(bits, np.uint32).view(np.float32))

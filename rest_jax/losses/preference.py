"""Preference losses, DPO and IPO, and the makers of the pairs they learn from.

A pair is two candidates of one group. Makers are NumPy and run on the host, on reward
columns, before a token is read; losses take a candidate's log-probability once,
whatever the number of pairs it is in:

    pairs = best_against_worst(rewards, mask)
    sums = dpo_loss(log_probs, reference_log_probs, keep, *pairs, beta=0.1)
"""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.losses.behavioural_cloning import kept_weights


class Pairs(NamedTuple):
  """Indices into the samples axis; a slot whose weight is 0 is empty."""

  chosen: np.ndarray  # [batch, pairs] int32
  rejected: np.ndarray  # [batch, pairs] int32
  weights: np.ndarray  # [batch, pairs] float32


class PreferenceSums(NamedTuple):
  """The loss, mean margin and accuracy are *_sum / weight_sum over the global batch."""

  loss_sum: jax.Array  # [] float32
  weight_sum: jax.Array  # [] float32, pairs
  margin_sum: jax.Array  # [] float32, implicit reward of chosen less rejected
  correct_sum: jax.Array  # [] float32, pairs with a margin above 0; a margin of 0: 1/2


def sequence_log_probs(
  token_log_probs: jax.Array,  # [batch, samples, length] float32, nats
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  keep: jax.Array,  # [batch, samples] bool
) -> jax.Array:  # [batch, samples] float32, nats
  """Sum of a candidate's token log-probabilities: log p(y | x); 0 where not kept.

  Where the weight is 0, token_log_probs may be -inf or NaN: neither value nor
  gradient sees them. Raises ValueError when traced: shapes are not as above.
  """
  kept = kept_weights(token_log_probs, weights, keep)
  used = jnp.where(kept != 0, token_log_probs.astype(jnp.float32), jnp.float32(0))
  return jnp.sum(kept * used, axis=-1)


def mean_token_log_probs(
  token_log_probs: jax.Array,  # [batch, samples, length] float32, nats
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  keep: jax.Array,  # [batch, samples] bool
) -> jax.Array:  # [batch, samples] float32, nats per token
  """sequence_log_probs over the candidate's number of tokens; 0 without any."""
  tokens = jnp.sum(kept_weights(token_log_probs, weights, keep), axis=-1)
  total = sequence_log_probs(token_log_probs, weights, keep)
  return total / jnp.where(tokens > 0, tokens, jnp.float32(1))


def dpo_loss(
  log_probs: jax.Array,  # [batch, samples] float32, sequence_log_probs of the policy
  reference_log_probs: jax.Array,  # [batch, samples] float32, of the reference policy
  keep: jax.Array,  # [batch, samples] bool
  chosen: jax.Array | np.ndarray,  # [batch, pairs] int32
  rejected: jax.Array | np.ndarray,  # [batch, pairs] int32
  pair_weights: jax.Array | np.ndarray,  # [batch, pairs] float32, 0 on empty slots
  *,
  beta: float,
) -> PreferenceSums:
  """Direct preference optimisation.

  h = (log_probs - reference_log_probs)[chosen] - (same)[rejected]
  loss = -sum_pairs w * log(sigmoid(beta * h)),   margin = beta * h

  Source: Rafailov et al. 2023 (arXiv:2305.18290), equation 7. RSO (arXiv:2309.06657)
  calls this beta gamma, 0.05 there, apart from the beta of its sampling. Departure:
  pairs are weighted and their sums returned, so that a batch may be cut anywhere.

  A pair counts when its weight is not 0 and both its candidates are kept. Contents of
  other slots, and log-probs that no such pair names, may be anything: neither value
  nor gradient sees them. No gradient reaches the reference. No pair gives zeros, and
  a zero gradient: divide by max(weight_sum, 1). An index outside [0, samples) in a
  pair that counts gives NaN.

  Raises:
    ValueError: beta is not a positive finite number; when traced: ranks, shapes or
      dtypes are not as above.
  """
  _check_positive('beta', beta, 'the strength of the KL constraint; 0.1 is usual')
  h, weights = _log_ratio_gaps(
    log_probs, reference_log_probs, keep, chosen, rejected, pair_weights
  )
  return _sums(jax.nn.softplus(-beta * h), beta * h, weights)


def ipo_loss(
  log_probs: jax.Array,  # [batch, samples] float32, see below
  reference_log_probs: jax.Array,  # [batch, samples] float32, likewise
  keep: jax.Array,  # [batch, samples] bool
  chosen: jax.Array | np.ndarray,  # [batch, pairs] int32
  rejected: jax.Array | np.ndarray,  # [batch, pairs] int32
  pair_weights: jax.Array | np.ndarray,  # [batch, pairs] float32, 0 on empty slots
  *,
  tau: float,
) -> PreferenceSums:
  """Identity preference optimisation: regresses the gap h of dpo_loss to 1 / (2 tau).

  loss = sum_pairs w * (h - 1 / (2 tau))^2,   margin = tau * h (its target is 1/2)

  Source: Azar et al. 2023 (arXiv:2310.12036), equation 17, where h is made of
  probabilities of whole sequences: pass `sequence_log_probs`. TRL passes means per
  token instead (`mean_token_log_probs`), on the authors' advice, so that the best
  tau depends less on the candidates' lengths; a tau chosen for one does not fit the
  other. Nothing is divided by lengths in here.

  Which pairs count, edge cases and errors are those of dpo_loss, with tau for beta.
  """
  _check_positive('tau', tau, 'the strength of the regularisation; 0.1 is usual')
  h, weights = _log_ratio_gaps(
    log_probs, reference_log_probs, keep, chosen, rejected, pair_weights
  )
  return _sums(jnp.square(h - 1 / (2 * tau)), tau * h, weights)


def best_against_worst(
  rewards: np.ndarray,  # [batch, samples] float32
  mask: np.ndarray,  # [batch, samples] bool, True where a candidate exists
) -> Pairs:  # [batch, 1]
  """One pair for each source: its best candidate against its worst.

  Of equal rewards the earlier candidate is taken. A source with fewer than two
  different rewards has no pair.

  Raises:
    ValueError: shapes or dtypes are not as above, or a reward is not finite.
  """
  rewards, mask = _checked(rewards, mask)
  best = np.where(mask, rewards, -np.inf).argmax(axis=1)
  worst = np.where(mask, rewards, np.inf).argmin(axis=1)
  rows = np.arange(len(rewards))
  exists = mask.any(axis=1) & (rewards[rows, best] > rewards[rows, worst])
  return _pairs(np.stack([best, worst], axis=-1)[:, None], exists[:, None])


def all_pairs(
  rewards: np.ndarray,  # [batch, samples] float32
  mask: np.ndarray,  # [batch, samples] bool, True where a candidate exists
  *,
  margin: float = 0.0,
) -> Pairs:  # [batch, samples * (samples - 1) / 2]
  """Every pair of a source's candidates whose rewards differ by more than `margin`.

  Strictly more, so equal rewards never make a pair. Slots stand for (0, 1), (0, 2),
  ... (1, 2), ...: their number depends on the width of the batch alone. Every pair
  weighs 1: a source with many pairs counts more than one with few.

  Raises:
    ValueError: margin is negative or not finite; otherwise as best_against_worst.
  """
  if not (margin >= 0 and math.isfinite(margin)):
    raise ValueError(
      f'margin={margin} must be a finite number of at least 0, in units of the '
      'reward; 0 takes every pair of unequal rewards.'
    )
  rewards, mask = _checked(rewards, mask)
  first, second = np.triu_indices(rewards.shape[1], k=1)  # [pairs] each
  gap = rewards[:, first].astype(np.float64) - rewards[:, second]  # [batch, pairs]
  exists = mask[:, first] & mask[:, second] & (np.abs(gap) > margin)
  ahead = np.stack([first, second], axis=-1)  # [pairs, 2]
  indices = np.where(gap[..., None] > 0, ahead, ahead[:, ::-1])  # [batch, pairs, 2]
  return _pairs(indices, exists)


def rejection_sampled_pairs(
  rewards: np.ndarray,  # [batch, samples] float32
  mask: np.ndarray,  # [batch, samples] bool, True where a candidate exists
  uniforms: np.ndarray,  # [batch, samples, rounds] float64 in [0, 1)
  *,
  beta: float,
  num_pairs: int,
) -> Pairs:  # [batch, num_pairs]
  """RSO: candidates as the optimal policy would draw them, paired as they come.

  In round t candidate i is accepted when

      uniforms[i, t] < exp((r_i - r_max) / beta),

  with r_max the best reward not accepted in an earlier round; rounds go on until
  2 * num_pairs are accepted, the last round's excess dropped from its end. The first
  accepted is paired with the second, the third with the fourth, and so on; the
  higher reward is chosen. Large beta accepts everything (pairs of neighbours), beta
  near 0 accepts the best in order.

  Source: Liu et al. 2023 (arXiv:2309.06657), algorithm 1 and "first-round-rank" of
  its section 5; 64 candidates, 8 accepted and beta = 0.5 there. Departures: a source
  with fewer candidates than 2 * num_pairs has all of them accepted, and fewer pairs;
  two equal rewards leave their slot empty (the paper draws a label).

  The result is a function of its arguments: draw `uniforms` with source_uniforms.
  Every round accepts at least the best, so 2 * num_pairs rounds are always enough.

  Raises:
    ValueError: beta is not a positive finite number, num_pairs is not at least 1,
      uniforms are too few or outside [0, 1); otherwise as best_against_worst.
  """
  _check_positive('beta', beta, 'in units of the reward; large trusts it less')
  rewards, mask = _checked(rewards, mask)
  uniforms = np.asarray(uniforms)
  wanted = 2 * num_pairs
  enough = uniforms.ndim == 3 and uniforms.shape[2] >= wanted
  if num_pairs < 1 or not enough or uniforms.shape[:2] != rewards.shape:
    raise ValueError(
      f'num_pairs={num_pairs} must be at least 1 and uniforms {uniforms.shape} be '
      f'[batch, samples, rounds] with [batch, samples] = {rewards.shape} and rounds '
      f'>= 2 * num_pairs = {wanted}; draw them with source_uniforms.'
    )
  if not ((uniforms >= 0) & (uniforms < 1)).all():
    raise ValueError('uniforms must lie in [0, 1); draw them with source_uniforms.')
  indices = np.zeros((len(rewards), num_pairs, 2), np.int32)
  exists = np.zeros((len(rewards), num_pairs), bool)
  for row, (r, left) in enumerate(zip(rewards.astype(np.float64), mask, strict=True)):
    left = left.copy()
    accepted: list[int] = []
    for turn in range(wanted):
      if len(accepted) >= wanted or not left.any():
        break
      # At most 1 for those left; the others' are not looked at and must not overflow.
      chance = np.exp(np.minimum(r - r[left].max(), 0) / beta)
      new = np.flatnonzero(left & (uniforms[row, :, turn] < chance))
      accepted.extend(new.tolist())
      left[new] = False
    for slot in range(min(len(accepted) // 2, num_pairs)):
      a, b = accepted[2 * slot : 2 * slot + 2]
      indices[row, slot] = (a, b) if r[a] > r[b] else (b, a)
      exists[row, slot] = r[a] != r[b]
  return _pairs(indices, exists)


def source_uniforms(
  source_ids: Sequence[str],  # [batch]
  *,
  seed: int,
  grow_step: int,
  num_samples: int,
  num_rounds: int,
) -> np.ndarray:  # [batch, samples, rounds] float64 in [0, 1)
  """Uniform numbers from identity: a candidate's do not depend on batch or width.

  They are a function of (seed, grow_step, source id, candidate index, num_rounds).
  """
  uniforms = np.empty((len(source_ids), num_samples, num_rounds))
  for row, source_id in enumerate(source_ids):
    identity = f'preference pairs/{seed}/{grow_step}/{source_id}'
    digest = hashlib.blake2b(identity.encode(), digest_size=16).digest()
    # Filled candidate by candidate: a wider batch only adds numbers at the end.
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest, 'little')))
    uniforms[row] = rng.random((num_samples, num_rounds))
  return uniforms


def _log_ratio_gaps(
  log_probs: jax.Array,
  reference_log_probs: jax.Array,
  keep: jax.Array,
  chosen: jax.Array | np.ndarray,
  rejected: jax.Array | np.ndarray,
  pair_weights: jax.Array | np.ndarray,
) -> tuple[jax.Array, jax.Array]:
  """h [batch, pairs] float32, 0 where a pair does not count, and the weights."""
  shape = log_probs.shape
  if len(shape) != 2 or not shape == reference_log_probs.shape == keep.shape:
    raise ValueError(
      f'log_probs {shape}, reference_log_probs {reference_log_probs.shape} and keep '
      f'{keep.shape} must all be [batch, samples]; sequence_log_probs makes them from '
      "tokens'."
    )
  if keep.dtype != jnp.bool_:
    raise ValueError(f'keep must be bool, the verdict of a filter; got {keep.dtype}.')
  slots = chosen.shape
  if len(slots) != 2 or slots[0] != shape[0]:
    raise ValueError(f'chosen {slots} must be [batch, pairs], with batch {shape[0]}.')
  if not slots == rejected.shape == pair_weights.shape:
    raise ValueError(
      f'chosen {slots}, rejected {rejected.shape} and pair_weights '
      f'{pair_weights.shape} must all be [batch, pairs], as the pair makers give them.'
    )
  if not all(jnp.issubdtype(x.dtype, jnp.integer) for x in (chosen, rejected)):
    raise ValueError(
      f'chosen ({chosen.dtype}) and rejected ({rejected.dtype}) must be integers, '
      'indices into the samples axis.'
    )
  reference = jax.lax.stop_gradient(reference_log_probs.astype(jnp.float32))
  ratios = log_probs.astype(jnp.float32) - reference
  used = pair_weights != 0
  sides = []
  for indices in (jnp.asarray(chosen), jnp.asarray(rejected)):
    known = (indices >= 0) & (indices < shape[1])
    safe = jnp.where(known, indices, 0)
    used = used & (jnp.take_along_axis(keep, safe, axis=1) | ~known)
    side = jnp.take_along_axis(ratios, safe, axis=1)  # [batch, pairs]
    sides.append(jnp.where(known, side, jnp.float32(jnp.nan)))
  # Selected before any product: 0 * NaN must reach neither value nor gradient.
  h = jnp.where(used, sides[0] - sides[1], jnp.float32(0))
  weights = jnp.asarray(pair_weights).astype(jnp.float32)
  weights = jax.lax.stop_gradient(jnp.where(used, weights, jnp.float32(0)))
  return h, weights


def _sums(losses: jax.Array, margins: jax.Array, weights: jax.Array) -> PreferenceSums:
  """Weighted sums of [batch, pairs] arrays, all finite where the weight is 0."""
  margins = jax.lax.stop_gradient(margins)
  correct = (jnp.sign(margins) + 1) / 2
  return PreferenceSums(
    jnp.sum(weights * losses),
    jnp.sum(weights),
    jnp.sum(weights * margins),
    jnp.sum(weights * correct),
  )


def _pairs(indices: np.ndarray, exists: np.ndarray) -> Pairs:
  """Pairs from indices [batch, pairs, 2]; empty slots are zeros throughout."""
  indices = np.where(exists[..., None], indices, 0).astype(np.int32)
  return Pairs(indices[..., 0], indices[..., 1], exists.astype(np.float32))


def _check_positive(name: str, value: float, meaning: str) -> None:
  if not (value > 0 and math.isfinite(value)):
    raise ValueError(
      f'{name}={value} must be a positive finite number: it is {meaning}.'
    )


def _checked(rewards: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Float32 rewards, 0 where no candidate exists, and the mask; validated."""
  rewards, mask = np.asarray(rewards), np.asarray(mask)
  shape = rewards.shape
  if len(shape) != 2 or not shape[1] or shape != mask.shape or mask.dtype != np.bool_:
    raise ValueError(
      f'rewards {shape} and mask {mask.shape} {mask.dtype} must both be [batch, '
      'samples] with samples >= 1, and mask bool: True where a candidate exists.'
    )
  rewards = np.where(mask, rewards, 0).astype(np.float32)
  if not np.isfinite(rewards).all():
    row, column = np.argwhere(~np.isfinite(rewards))[0]
    raise ValueError(
      f'reward {rewards[row, column]} of candidate {column} in row {row} is not '
      'finite: score the group again, or mask the candidate.'
    )
  return rewards, mask

"""Online policy gradients on groups: PPO, GRPO, RLOO, REINFORCE and their KL terms.

An algorithm is an advantage, a loss and a normalisation; each is a function here:

  REINFORCE  any advantages           reinforce_loss          per_candidate_sum
  RLOO       leave_one_out_advantages reinforce_loss          per_candidate_sum
  GRPO       standardised_advantages  clipped_surrogate_loss  per_candidate
             + kl_weight * k3_loss
  Dr. GRPO   centred_advantages       clipped_surrogate_loss  per_candidate_sum
  PPO        advantages of a critic   clipped_surrogate_loss  per_token
             (on kl_shaped_rewards)   + clipped_value_loss

The behaviour policy is the one that drew the candidates, untempered; the reference
policy is the anchor of the KL.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rest_jax.losses import returns as returns_lib
from rest_jax.losses.behavioural_cloning import LossSums, kept_weights

# exp(20) = 4.9e8: far beyond any ratio that is learnt from, far below float32's
# largest number, so that one absurd token gives a large loss and not an infinite one.
MAX_LOG_RATIO = 20.0

# From the kept weights [batch, samples, length] to the weights of the sum and the
# sum's denominator []. All of them add up over any cut of the batch into groups.
Normalisation = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


class SurrogateSums(NamedTuple):
  """PPO's loss is loss_sum / weight_sum; its metrics are *_sum / token_sum."""

  loss_sum: jax.Array  # [] float32
  weight_sum: jax.Array  # [] float32, the normalisation's denominator
  token_sum: jax.Array  # [] float32, kept tokens
  clipped_sum: jax.Array  # [] float32, kept tokens whose gradient the clip removed
  kl_sum: jax.Array  # [] float32, nats; k3 estimate of KL(behaviour || policy)


def per_token(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean over the kept tokens: long candidates count more."""
  return weights, jnp.sum(weights)


def per_candidate(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean over a candidate's tokens, then over the candidates, as GRPO does.

  Departure: GRPO takes the mean of each group first, which differs when groups
  have different numbers of kept candidates. A candidate without tokens does not
  count.
  """
  tokens = jnp.sum(weights, axis=-1, keepdims=True)  # [batch, samples, 1]
  return weights / jnp.where(tokens > 0, tokens, jnp.float32(1)), _candidates(weights)


def per_candidate_sum(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Sum over a candidate's tokens, mean over the candidates.

  The gradient of the sequence's log-probability, without a bias by length. Dr. GRPO
  (arXiv:2503.20783) divides by a constant length besides: a matter of learning rate.
  """
  return weights, _candidates(weights)


def standardised_advantages(
  rewards: jax.Array,  # [batch, samples] float32 or bfloat16
  mask: jax.Array,  # [batch, samples] bool, True where a candidate exists
  *,
  eps: float = 1e-4,
) -> jax.Array:  # [batch, samples] float32, 0 where masked
  """GRPO's advantage: the reward's distance to its group's mean, in deviations.

  A_i = (r_i - mean_j r_j) / (std_j r_j + eps)

  Source: DeepSeekMath (arXiv:2402.03300), section 4.1.2, which writes no eps. The
  deviation is the population's, sqrt(mean_j (r_j - mean)^2); libraries that divide
  by n - 1 get advantages smaller by sqrt((n - 1) / n). eps is in units of the
  reward; it keeps differences that are only rounding (6e-8 near 1) small.

  A group with one candidate, or whose rewards are all equal, gets exactly 0; one
  with none, too. Contents of masked slots are not seen. No gradient flows.

  Raises:
    ValueError: eps is not positive; when traced: shapes or dtypes are not as above.
  """
  if not eps > 0:
    raise ValueError(f'eps={eps} must be positive; 1e-4 suits rewards in [0, 1].')
  centred, count = _centred(rewards, mask)
  variance = jnp.sum(jnp.square(centred), axis=1, keepdims=True) / count
  return centred / (jnp.sqrt(variance) + eps)


def centred_advantages(
  rewards: jax.Array,  # [batch, samples] float32 or bfloat16
  mask: jax.Array,  # [batch, samples] bool, True where a candidate exists
) -> jax.Array:  # [batch, samples] float32, 0 where masked
  """GRPO's advantage without the deviation: A_i = r_i - mean_j r_j.

  Source: Dr. GRPO (Liu et al. 2025, arXiv:2503.20783): dividing by the deviation
  gives groups weights of their own, so that very easy and very hard sources count
  more. Edge cases and errors are those of `standardised_advantages`.
  """
  return _centred(rewards, mask)[0]


def leave_one_out_advantages(
  rewards: jax.Array,  # [batch, samples] float32 or bfloat16
  mask: jax.Array,  # [batch, samples] bool, True where a candidate exists
) -> jax.Array:  # [batch, samples] float32, 0 where masked
  """RLOO's advantage: the baseline is the mean reward of the *other* candidates.

  A_i = r_i - sum_{j != i} r_j / (n - 1) = n / (n - 1) * (r_i - mean_j r_j)

  Source: Ahmadian et al. 2024 (arXiv:2402.14740), section 2.2; Kool et al. 2019.
  The baseline does not depend on candidate i: the gradient is unbiased. There the
  reward includes -kl_weight * sum_t k1: the sum of kl_shaped_rewards over length.

  A group with one candidate has no other to compare with and gets 0 (departure: the
  baseline is undefined there); other edge cases and errors are those of
  `standardised_advantages`.
  """
  centred, count = _centred(rewards, mask)
  return centred * (count / jnp.maximum(count - 1, 1))


def reinforce_loss(
  log_probs: jax.Array,  # [batch, samples, length] float32, nats; the policy's
  advantages: jax.Array,  # [batch, samples] or [batch, samples, length] float32
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  keep: jax.Array,  # [batch, samples] bool
  *,
  normalisation: Normalisation = per_candidate_sum,
) -> LossSums:
  """REINFORCE: -sum_t w_t * stop_gradient(A_t) * log_probs_t.

  Its gradient is the policy gradient when the candidates are the policy's own; its
  value means nothing. Source: Williams 1992. Nothing kept gives two zeros, and a
  zero gradient: divide by max(weight_sum, 1). Where the weight is 0, log_probs and
  advantages may be -inf or NaN: neither value nor gradient sees them.

  Raises:
    ValueError: when traced: ranks, shapes or dtypes are not as above.
  """
  kept = kept_weights(log_probs, weights, keep)
  used = kept != 0
  weights, weight_sum = normalisation(kept)
  advantages = _used_advantages(advantages, used)
  return LossSums(
    -jnp.sum(weights * advantages * _where_used(log_probs, used)), weight_sum
  )


def clipped_surrogate_loss(
  log_probs: jax.Array,  # [batch, samples, length] float32, nats; the policy's
  behaviour_log_probs: jax.Array,  # [batch, samples, length] float32, nats
  advantages: jax.Array,  # [batch, samples] or [batch, samples, length] float32
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  keep: jax.Array,  # [batch, samples] bool
  *,
  clip_range: float = 0.2,
  normalisation: Normalisation = per_token,
) -> SurrogateSums:
  """PPO's clipped surrogate, token by token.

  ratio = exp(log_probs - behaviour_log_probs)
  loss  = -sum_t w_t * min(ratio_t * A_t, clip(ratio_t, 1 - c, 1 + c) * A_t)

  so that a token has no gradient once its ratio has left [1 - c, 1 + c] in the
  direction in which its advantage pushes. Source: Schulman et al. 2017
  (arXiv:1707.06347), equation 7; GRPO's equation 3 is the same with its advantages.
  At ratio 1 the gradient is reinforce_loss's.

  Departure: log ratios above MAX_LOG_RATIO are held there, without a gradient.
  Gradients reach log_probs alone. Nothing kept, and contents of weight 0: as in
  reinforce_loss; behaviour_log_probs must be finite at kept tokens.

  Raises:
    ValueError: clip_range is not in (0, 1); when traced: ranks, shapes or dtypes
      are not as above.
  """
  if not 0 < clip_range < 1:
    raise ValueError(
      f'clip_range={clip_range} must lie in (0, 1): ratios are clipped to 1 -+ '
      'clip_range; 0.2 is usual.'
    )
  kept = kept_weights(log_probs, weights, keep)
  used = kept != 0
  weights, weight_sum = normalisation(kept)
  advantages = _used_advantages(advantages, used)
  behaviour_log_probs = _fixed(behaviour_log_probs, used, 'behaviour_log_probs')
  log_ratio = _where_used(log_probs, used) - behaviour_log_probs
  log_ratio = jnp.minimum(log_ratio, MAX_LOG_RATIO)
  ratio = jnp.exp(log_ratio)
  # min(...) as a selection: the clipped side is a constant, and can be counted.
  bound = jnp.where(advantages > 0, jnp.float32(1 + clip_range), 1 - clip_range)
  clipped = ((advantages > 0) & (ratio > bound)) | ((advantages < 0) & (ratio < bound))
  surrogate = advantages * jnp.where(clipped, bound, ratio)
  return SurrogateSums(
    -jnp.sum(weights * surrogate),
    weight_sum,
    jnp.sum(kept),
    jnp.sum(kept * clipped.astype(jnp.float32)),
    # Under the behaviour policy's samples the ratio of k3 is policy / behaviour.
    jax.lax.stop_gradient(jnp.sum(kept * (ratio - 1 - log_ratio))),
  )


def clipped_value_loss(
  values: jax.Array,  # [batch, samples, length] float32
  old_values: jax.Array,  # [batch, samples, length] float32, when it was sampled
  returns: jax.Array,  # [batch, samples, length] float32
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  keep: jax.Array,  # [batch, samples] bool
  *,
  clip_range: float,
) -> LossSums:
  """Squared error of the critic, whose values may not gain by moving far.

  clipped = clip(values, old_values - c, old_values + c)
  loss    = sum_t w_t * max((values - returns)^2, (clipped - returns)^2)

  so that a value that has moved by more than c has no gradient while it is nearer to
  its return than the clipped one. c is clip_range, in units of the values; with
  math.inf this is `values.value_loss`.

  Source: OpenAI's Baselines (ppo2), with a factor 1/2 there; not in the paper, and
  Andrychowicz et al. 2020 (arXiv:2006.05990) found that it hurts. Gradients reach
  `values` alone. Normalised per kept token; edge cases as in reinforce_loss.

  Raises:
    ValueError: clip_range is not positive; when traced: ranks, shapes or dtypes are
      not as above.
  """
  if not clip_range > 0:
    raise ValueError(
      f'clip_range={clip_range} must be positive, in units of the values; math.inf '
      'turns clipping off.'
    )
  kept = kept_weights(values, weights, keep)
  used = kept != 0
  values = _where_used(values, used)
  old_values = _fixed(old_values, used, 'old_values')
  returns = _fixed(returns, used, 'returns')
  error = jnp.square(values - returns)
  clipped = jnp.clip(values, old_values - clip_range, old_values + clip_range)
  clipped_error = jnp.square(clipped - returns)
  larger = jnp.where(clipped_error > error, clipped_error, error)
  return LossSums(jnp.sum(kept * larger), jnp.sum(kept))


def kl_shaped_rewards(
  rewards: jax.Array,  # [batch, samples] float32, of the whole candidates
  log_probs: jax.Array,  # [batch, samples, length] float32, of who drew them
  reference_log_probs: jax.Array,  # [batch, samples, length] float32, nats
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  keep: jax.Array,  # [batch, samples] bool
  *,
  kl_weight: float,
) -> jax.Array:  # [batch, samples, length] float32, 0 where the weight is 0
  """Token rewards: a KL penalty at every token, the candidate's reward at its last.

  r_t = -kl_weight * (log_probs_t - reference_log_probs_t) + [t is last] * reward

  The bracketed difference is Schulman's k1 estimate of KL(policy || reference). The
  last token is the last one whose weight is not 0: a gap before it does no harm.
  Source: Ziegler et al. 2019 (arXiv:1909.08593), Ouyang et al. 2022. No gradient
  flows. A candidate that is not kept, or has no token, gets zeros; contents of
  weight 0 are not seen.

  Raises:
    ValueError: kl_weight is negative or not finite; when traced: ranks, shapes or
      dtypes are not as above.
  """
  if not (kl_weight >= 0 and math.isfinite(kl_weight)):
    raise ValueError(
      f'kl_weight={kl_weight} must be a finite number of at least 0; 0 turns the '
      'penalty off, 0.05 is usual.'
    )
  used = kept_weights(log_probs, weights, keep) != 0
  reference_log_probs = _fixed(reference_log_probs, used, 'reference_log_probs')
  k1 = _fixed(log_probs, used, 'log_probs') - reference_log_probs
  final = returns_lib.rewards_at_last_token(rewards, used.astype(jnp.float32))
  return final - kl_weight * k1


def k3_loss(
  log_probs: jax.Array,  # [batch, samples, length] float32, nats; the policy's
  reference_log_probs: jax.Array,  # [batch, samples, length] float32, nats
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  keep: jax.Array,  # [batch, samples] bool
  *,
  normalisation: Normalisation = per_token,
) -> LossSums:
  """Schulman's k3 estimate of KL(policy || reference), as a loss.

  d = reference_log_probs - log_probs;  k3 = exp(d) - 1 - d  >= 0

  On the policy's own samples the *value* is an unbiased estimate of KL(policy ||
  reference) at the states visited. The *gradient* is not that KL's: the sampling is
  not differentiated, and what is left is in expectation the gradient of KL(reference
  || policy). Both vanish at the reference. GRPO uses it so, without an importance
  ratio once the policy has moved from the behaviour policy; so do we.

  Source: Schulman, "Approximating KL divergence" (2020); DeepSeekMath
  (arXiv:2402.03300), equation 4. Departure: d above MAX_LOG_RATIO is held there,
  without a gradient. Edge cases and errors are those of reinforce_loss; both inputs
  must be finite at kept tokens.
  """
  kept = kept_weights(log_probs, weights, keep)
  used = kept != 0
  weights, weight_sum = normalisation(kept)
  reference_log_probs = _fixed(reference_log_probs, used, 'reference_log_probs')
  d = reference_log_probs - _where_used(log_probs, used)
  d = jnp.minimum(d, MAX_LOG_RATIO)
  return LossSums(jnp.sum(weights * (jnp.exp(d) - 1 - d)), weight_sum)


def _candidates(weights: jax.Array) -> jax.Array:
  """[] float32, the candidates that have a kept token."""
  return jnp.sum(jnp.any(weights != 0, axis=-1), dtype=jnp.float32)


def _centred(rewards: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  """r_i - mean_j r_j [batch, samples], 0 where masked; max(count, 1) [batch, 1]."""
  if rewards.ndim != 2 or rewards.shape != mask.shape or mask.dtype != jnp.bool_:
    raise ValueError(
      f'rewards {rewards.shape} and mask {mask.shape} {mask.dtype} must both be '
      '[batch, samples], and mask bool: True where a candidate exists.'
    )
  rewards = jax.lax.stop_gradient(rewards.astype(jnp.float32))
  count = jnp.sum(mask, axis=1, keepdims=True, dtype=jnp.float32)
  count = jnp.maximum(count, 1)
  # Distances to the best are exactly 0 when all rewards are equal; a mean of the
  # rewards themselves is off by a rounding (0.1 * 3 / 3), which a deviation of the
  # same size would blow up.
  best = jnp.max(rewards, axis=1, keepdims=True, where=mask, initial=-jnp.inf)
  distance = jnp.where(mask, rewards - best, jnp.float32(0))
  mean = jnp.sum(distance, axis=1, keepdims=True) / count
  return jnp.where(mask, distance - mean, jnp.float32(0)), count


def _where_used(values: jax.Array, used: jax.Array) -> jax.Array:
  """Float32 values, 0 where unused: 0 * NaN must reach neither sum nor gradient."""
  return jnp.where(used, values.astype(jnp.float32), jnp.float32(0))


def _fixed(values: jax.Array, used: jax.Array, name: str) -> jax.Array:
  """`values` where used, without a gradient; the shape is checked."""
  if values.shape != used.shape:
    raise ValueError(
      f'{name} {values.shape} must be [batch, samples, length] = {used.shape}.'
    )
  return jax.lax.stop_gradient(_where_used(values, used))


def _used_advantages(advantages: jax.Array, used: jax.Array) -> jax.Array:
  """[batch, samples, length] float32: one per token, or the candidate's at each."""
  if advantages.shape == used.shape[:2]:
    advantages = jnp.broadcast_to(advantages[..., None], used.shape)
  if advantages.shape != used.shape:
    raise ValueError(
      f'advantages {advantages.shape} must be [batch, samples, length] = '
      f'{used.shape}, or one for each candidate, {used.shape[:2]}.'
    )
  return _fixed(advantages, used, 'advantages')

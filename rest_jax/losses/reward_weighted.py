"""Reward-weighted and advantage-weighted regression: soft filters."""

import math

import jax
import jax.numpy as jnp

from rest_jax.losses.behavioural_cloning import LossSums, kept_weights


def reward_weighted_loss(
  log_probs: jax.Array,  # [batch, samples, length] float32, nats
  rewards: jax.Array,  # [batch, samples] float32
  baselines: jax.Array,  # [batch, samples] float32, in units of the rewards
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  keep: jax.Array,  # [batch, samples] bool, the filter's verdict
  *,
  temperature: float,
  max_weight: float = 20.0,
) -> LossSums:
  """Log-likelihood of the kept candidates, each weighted by its advantage.

  -sum(keep * w * omega(x, y) * log pi(y_t)) / sum(keep * w),
  omega(x, y) = min(exp((R(x, y) - b(x, y)) / temperature), max_weight)

  as its numerator and denominator: the caller adds both up over microbatches and
  devices and divides once. omega is a constant: the gradient with respect to
  log_probs is -keep * w * omega, and none reaches rewards and baselines.

  The baseline names the method:
  - 0: reward-weighted regression. Every weight then grows with the rewards' level,
    and all may be clipped: normalise the rewards, or choose another baseline.
  - `group_means`: the advantage inside a source's group, which favours no source.
  - a value model's first value, values[..., 0] = V(x): advantage-weighted regression.

  Every candidate whose reward equals its baseline has omega = 1, so that constant
  rewards (with means as baselines) give behavioural cloning exactly. A very large
  temperature does as well; a small one leaves the best candidates alone, at
  max_weight.

  Args:
    log_probs: of the policy in training.
    rewards: one per candidate.
    baselines: one per candidate; constant inside a group, as a rule.
    weights, keep: as in behavioural_cloning_loss; `keep` may be the mask of all.
    temperature: beta, in units of the rewards.
    max_weight: the cap of omega; math.inf removes it. Clipping is of the weight, so
      a capped candidate keeps its gradient.

  Source: Peters & Schaal 2007; Peng et al. 2019 (arXiv:1910.00177), whose cap 20 is.
  Departures: normalised per kept token, not by the sum of omega (the loss and the
  gradient grow with the mean omega); one advantage for a candidate's tokens, not one
  for each state.

  Nothing kept gives two zeros, and a zero gradient: divide by max(weight_sum, 1).
  Where the weight is 0 or the candidate dropped, all arrays may be -inf or NaN.

  Raises:
    ValueError: temperature or max_weight is not positive; when traced: ranks, shapes
      or dtypes are not as above.
  """
  if not (temperature > 0 and math.isfinite(temperature)):
    raise ValueError(
      f'temperature={temperature} must be a positive finite number, in units of the '
      'rewards; for all weights equal use behavioural_cloning_loss.'
    )
  if not max_weight > 0:
    raise ValueError(
      f'max_weight={max_weight} must be positive; 20 is usual, math.inf means no cap.'
    )
  kept = kept_weights(log_probs, weights, keep)
  if not rewards.shape == baselines.shape == keep.shape:
    raise ValueError(
      f'rewards {rewards.shape} and baselines {baselines.shape} must be [batch, '
      f'samples] = {keep.shape}; jnp.zeros_like(rewards) is no baseline.'
    )
  advantages = rewards.astype(jnp.float32) - baselines.astype(jnp.float32)
  # Capped before exp, which overflows beyond 88.
  cap = jnp.float32(math.log(max_weight))
  omega = jnp.exp(jnp.minimum(advantages / temperature, cap))
  used = kept != 0
  # Selected before any product: 0 * inf is NaN, in the value and in the gradient.
  factors = jnp.where(used, kept * omega[..., None], jnp.float32(0))
  log_probs = jnp.where(used, log_probs.astype(jnp.float32), jnp.float32(0))
  return LossSums(-jnp.sum(jax.lax.stop_gradient(factors) * log_probs), jnp.sum(kept))


def group_means(
  rewards: jax.Array,  # [batch, samples] float32
  mask: jax.Array,  # [batch, samples] bool, True where a candidate counts
) -> jax.Array:  # [batch, samples] float32
  """Each group's mean reward, at every one of its slots.

  b(x) = sum_j mask_j R(x, y_j) / sum_j mask_j

  The mean is over the slots of this batch: a source whose candidates lie in two rows
  has two means. A group with one candidate has that candidate's reward, and so an
  advantage of 0; an empty group has 0. Rewards that are masked out may be NaN.

  Raises:
    ValueError: when traced: ranks, shapes or dtypes are not as above.
  """
  if rewards.ndim != 2 or mask.shape != rewards.shape or mask.dtype != jnp.bool_:
    raise ValueError(
      f'rewards {rewards.shape} and mask {mask.shape} {mask.dtype} must be [batch, '
      'samples], the mask bool; jnp.ones(..., bool) takes the mean of all.'
    )
  used = jnp.where(mask, rewards.astype(jnp.float32), jnp.float32(0))
  count = jnp.sum(mask, axis=-1, keepdims=True, dtype=jnp.float32)
  means = jnp.sum(used, axis=-1, keepdims=True) / jnp.maximum(count, jnp.float32(1))
  return jnp.broadcast_to(means, rewards.shape)

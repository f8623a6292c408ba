"""Behavioural cloning: the negative log-likelihood of the kept candidates."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rest_jax.losses import token_log_probs as token_log_probs_lib


class LossSums(NamedTuple):
  """The loss is loss_sum / weight_sum, both summed over the whole global batch."""

  loss_sum: jax.Array  # [] float32, nats
  weight_sum: jax.Array  # [] float32, kept tokens


class SmoothedLossSums(NamedTuple):
  """LossSums, and the part of loss_sum that is the z-loss."""

  loss_sum: jax.Array  # [] float32, nats; with the z-loss
  weight_sum: jax.Array  # [] float32, kept tokens
  z_loss_sum: jax.Array  # [] float32, for logging


def behavioural_cloning_loss(
  log_probs: jax.Array,  # [batch, samples, length] float32, nats
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  keep: jax.Array,  # [batch, samples] bool, the filter's verdict
) -> LossSums:
  """Negative log-likelihood of the kept candidates.

  -sum(keep * w * log_probs) / sum(keep * w)

  as its numerator and denominator: the caller adds both up over microbatches and
  devices and divides once, so that a batch may be cut anywhere.

  Source: ReST (arXiv:2308.08998), equations 1 and 2. Departure: normalised
  per kept token. Nothing kept gives two zeros, and a zero gradient: divide by
  max(weight_sum, 1). Where the weight is 0, log_probs may be -inf or NaN: neither
  value nor gradient sees them.

  Raises:
    ValueError: when traced: ranks, shapes or dtypes are not as above.
  """
  weights = kept_weights(log_probs, weights, keep)
  return LossSums(-_weighted_sum(log_probs, weights), jnp.sum(weights))


def behavioural_cloning_loss_from_logits(
  logits: jax.Array,  # [batch, samples, length, vocab] float32 or bfloat16
  targets: jax.Array,  # [batch, samples, length] int32
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  keep: jax.Array,  # [batch, samples] bool, the filter's verdict
  *,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
) -> SmoothedLossSums:
  """behavioural_cloning_loss with T5X's label smoothing and z-loss.

  Per token, with c = 1 - label_smoothing and l = label_smoothing / (vocab - 1),

      -c log p[target] - l sum_{v != target} log p[v]
      + c log c + (vocab - 1) l log l
      + z_loss * log(z)^2,      z = sum_v exp(logits[v])

  The second line is minus the entropy of the smoothed target, so that the loss of a
  perfect fit is 0. The third keeps the logits near normalised. With both at 0 this
  equals behavioural_cloning_loss of token_log_probs.

  Source: T5X, `compute_weighted_cross_entropy` and `cross_entropy_with_logits`,
  whose sums these are. Departure: T5X adds 1e-20 inside log l.

  A logit of -inf makes the smoothed loss infinite: forbid tokens only without
  label smoothing.

  Raises:
    ValueError: label_smoothing is not in [0, 1), z_loss is negative or not finite;
      when traced: ranks, shapes or dtypes are not as above.
  """
  if not 0 <= label_smoothing < 1:
    raise ValueError(
      f'label_smoothing={label_smoothing} must lie in [0, 1); 0 turns it off, 0.1 is '
      'usual.'
    )
  if not (z_loss >= 0 and math.isfinite(z_loss)):
    raise ValueError(
      f'z_loss={z_loss} must be a finite number of at least 0; 0 turns it off, 1e-4 '
      'is usual.'
    )
  log_probs, log_z = token_log_probs_lib.log_probs_and_log_z(logits, targets)
  weights = kept_weights(log_probs, weights, keep)
  loss_sum = -_weighted_sum(log_probs, weights)
  vocab = logits.shape[-1]
  if label_smoothing:
    if vocab < 2:
      raise ValueError(f'label_smoothing needs a vocabulary of at least 2, not {vocab}')
    confidence, low = 1 - label_smoothing, label_smoothing / (vocab - 1)
    all_log_probs = jnp.sum(logits.astype(jnp.float32), axis=-1) - vocab * log_z
    entropy = -(confidence * math.log(confidence) + label_smoothing * math.log(low))
    # -c log p[t] - l (sum_v log p[v] - log p[t]), less what is in loss_sum already.
    extra = (1 - confidence + low) * log_probs - low * all_log_probs - entropy
    loss_sum += _weighted_sum(extra, weights)
  # Selected before the square: its gradient, 2 log_z, would be 0 * inf on padding.
  log_z = jnp.where(weights != 0, log_z, jnp.float32(0))
  z_loss_sum = z_loss * _weighted_sum(jnp.square(log_z), weights)
  return SmoothedLossSums(loss_sum + z_loss_sum, jnp.sum(weights), z_loss_sum)


def kept_weights(
  log_probs: jax.Array,  # [batch, samples, length]
  weights: jax.Array,  # [batch, samples, length]
  keep: jax.Array,  # [batch, samples] bool
) -> jax.Array:  # [batch, samples, length] float32
  """weights * keep, with a gradient of 0.

  Raises:
    ValueError: when traced: ranks, shapes or dtypes are not as above.
  """
  if log_probs.ndim != 3 or weights.shape != log_probs.shape:
    raise ValueError(
      f'log_probs {log_probs.shape} and weights {weights.shape} must both be [batch, '
      'samples, length]; a plain batch has samples = 1: log_probs[:, None].'
    )
  if keep.shape != log_probs.shape[:2] or keep.dtype != jnp.bool_:
    raise ValueError(
      f'keep {keep.shape} {keep.dtype} must be bool [batch, samples] = '
      f'{log_probs.shape[:2]}, the verdict of a filter; jnp.ones(..., bool) keeps all.'
    )
  kept = jnp.where(keep[..., None], weights.astype(jnp.float32), jnp.float32(0))
  return jax.lax.stop_gradient(kept)


def _weighted_sum(values: jax.Array, weights: jax.Array) -> jax.Array:
  """sum(weights * values) in float32; values of weight 0 may be anything."""
  # Selected before the product: 0 * inf is NaN, in the value and in the gradient.
  used = jnp.where(weights != 0, values.astype(jnp.float32), jnp.float32(0))
  return jnp.sum(used * weights)

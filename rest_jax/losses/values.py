"""The value function's loss: squared error of each token's value to its return."""

import jax
import jax.numpy as jnp

from rest_jax.losses.behavioural_cloning import LossSums, kept_weights


def value_loss(
  values: jax.Array,  # [batch, samples, length] float32 or bfloat16
  returns: jax.Array,  # [batch, samples, length] float32
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  keep: jax.Array,  # [batch, samples] bool, True where a rewarded candidate exists
) -> LossSums:
  """Squared errors of all tokens of the candidates, and the number of tokens.

  sum(keep * w * (V(s_t) - G_t)^2)  and  sum(keep * w)

  as numerator and denominator: the caller adds both up over microbatches and devices
  and divides once. Differences are taken in float32, no gradient reaches the returns,
  and there is no factor 1/2. Every token counts alike, so that a long candidate
  counts more than a short one.

  The minimum is the mean return over the candidates that are kept here: give the mask
  of all candidates to learn the behaviour policy's value, not a filter's verdict.

  Source: ReST (arXiv:2308.08998), appendix A.8; returns are those of
  `returns.monte_carlo_returns`.

  Nothing kept gives two zeros, and a zero gradient: divide by max(weight_sum, 1).
  Where the weight is 0 or the candidate dropped, both sides may be NaN: neither value
  nor gradient sees them.

  Raises:
    ValueError: when traced: ranks, shapes or dtypes are not as above.
  """
  kept = kept_weights(values, weights, keep)
  if returns.shape != values.shape:
    raise ValueError(
      f'returns {returns.shape} must have the shape of values {values.shape}, [batch, '
      'samples, length]; returns.monte_carlo_returns spreads one reward over its '
      'tokens.'
    )
  returns = jax.lax.stop_gradient(returns.astype(jnp.float32))
  # Selected before the square, whose gradient would be 0 * NaN on padding.
  errors = values.astype(jnp.float32) - returns
  errors = jnp.where(kept != 0, errors, jnp.float32(0))
  return LossSums(jnp.sum(kept * jnp.square(errors)), jnp.sum(kept))

"""Squared error: fits the reward model to ratings."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class RegressionSums(NamedTuple):
  """The mean squared error is loss_sum / weight_sum over the whole global batch."""

  loss_sum: jax.Array  # [] float32, squared units of the ratings
  weight_sum: jax.Array  # [] float32, rated candidates


def regression_loss(
  predictions: jax.Array,  # [batch, samples] float32 or bfloat16
  ratings: jax.Array,  # [batch, samples] float32
  mask: jax.Array,  # [batch, samples] bool, True where a rating exists
) -> RegressionSums:
  """Sum of squared errors over the rated candidates, and their number.

  sum(mask * (predictions - ratings)^2)  and  sum(mask)

  as numerator and denominator: the caller adds both up over microbatches and
  devices and divides once. Differences are taken in float32. No gradient reaches
  the ratings. Where the mask is False, both sides may be NaN: neither value nor
  gradient sees them. All masked gives two zeros, and a zero gradient: divide by
  max(weight_sum, 1).

  Source: the loss that MetricX is trained with on human ratings (Juraska et al.
  2023).

  Raises:
    ValueError: when traced: ranks or shapes are not as above, or mask is not bool.
  """
  if predictions.ndim != 2 or not predictions.shape == ratings.shape == mask.shape:
    raise ValueError(
      f'predictions {predictions.shape}, ratings {ratings.shape} and mask '
      f'{mask.shape} must all be [batch, samples].'
    )
  if mask.dtype != jnp.bool_:
    raise ValueError(
      f'mask must be bool, True where a rating exists; got {mask.dtype}.'
    )
  ratings = jax.lax.stop_gradient(ratings.astype(jnp.float32))
  # Selected before the square, whose gradient would be 0 * NaN in a masked slot.
  errors = jnp.where(mask, predictions.astype(jnp.float32) - ratings, jnp.float32(0))
  return RegressionSums(jnp.sum(jnp.square(errors)), jnp.sum(mask, dtype=jnp.float32))

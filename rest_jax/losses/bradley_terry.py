"""Bradley-Terry: fits a reward model to preferences between candidates of a group.

The preferences of a group are a matrix: how often candidate i was preferred to
candidate j. So comparisons that raters gave, and comparisons made of ratings, are one
kind of array, whose shape does not depend on how many there are.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp


class BradleyTerrySums(NamedTuple):
  """Mean loss and accuracy are *_sum / weight_sum over the whole global batch."""

  loss_sum: jax.Array  # [] float32, nats
  weight_sum: jax.Array  # [] float32, preferences
  correct_sum: jax.Array  # [] float32, where the preferred one is ahead; a tie: 1/2


def bradley_terry_loss(
  rewards: jax.Array,  # [batch, samples] float32 or bfloat16
  preferences: jax.Array,  # [batch, samples, samples] float32, at least 0
  mask: jax.Array,  # [batch, samples] bool, True where a candidate exists
) -> BradleyTerrySums:
  """Negative log-likelihood of the preferences, and their number.

  sum_ij n_ij * -log(sigmoid(r_i - r_j))  and  sum_ij n_ij

  where n_ij = preferences[:, i, j] is how often i was preferred to j. As numerator
  and denominator: the caller adds both up over microbatches and devices and divides
  once. Gaps are taken in float32. A constant added to all rewards of a row changes
  nothing, so the scale's origin is free. No gradient reaches the preferences.

  A preference counts when both its candidates exist. Contents of the other slots may
  be anything: neither value nor gradient sees them. A candidate preferred to itself
  adds log 2 and no gradient. None at all gives zeros, and a zero gradient: divide by
  max(weight_sum, 1).

  Source: Bradley and Terry 1952; as the loss of a reward model Stiennon et al. 2020
  (arXiv:2009.01325), section 3.4.

  Raises:
    ValueError: when traced: ranks or shapes are not as above, or mask is not bool.
  """
  _check(rewards, mask, 'rewards')
  if preferences.shape != (*rewards.shape, rewards.shape[-1]):
    raise ValueError(
      f'preferences {preferences.shape} must be [batch, samples, samples] for rewards '
      f'{rewards.shape}.'
    )
  both = mask[:, :, None] & mask[:, None, :]  # [batch, samples, samples]
  counts = jnp.where(both, preferences.astype(jnp.float32), jnp.float32(0))
  counts = jax.lax.stop_gradient(counts)
  # Selected before the gap, whose gradient would be 0 * NaN in a masked slot.
  known = jnp.where(mask, rewards.astype(jnp.float32), jnp.float32(0))
  gaps = known[:, :, None] - known[:, None, :]  # [batch, samples, samples]
  right = (1 + jnp.sign(gaps)) / 2
  return BradleyTerrySums(
    loss_sum=jnp.sum(counts * jax.nn.softplus(-gaps)),
    weight_sum=jnp.sum(counts),
    correct_sum=jnp.sum(counts * right),
  )


def rating_preferences(
  ratings: jax.Array,  # [batch, samples] float32
  mask: jax.Array,  # [batch, samples] bool, True where a rating exists
  *,
  margin: float = 0.0,
) -> jax.Array:  # [batch, samples, samples] float32, 1 or 0
  """The preferences that ratings amount to: i to j where it is better by `margin`.

  n_ij = 1 if ratings_i - ratings_j > margin else 0

  Strictly more, so equal ratings make none. A margin leaves out what raters hardly
  tell apart. Where the mask is False a rating may be NaN.

  Raises:
    ValueError: margin is negative or not finite; when traced: ranks or shapes are
      not as above, or mask is not bool.
  """
  if not (margin >= 0 and math.isfinite(margin)):
    raise ValueError(
      f'margin={margin} must be a finite number of at least 0, in units of the '
      'ratings; 0 takes every pair of unequal ratings.'
    )
  _check(ratings, mask, 'ratings')
  ratings = ratings.astype(jnp.float32)
  gaps = ratings[:, :, None] - ratings[:, None, :]  # [batch, samples, samples]
  both = mask[:, :, None] & mask[:, None, :]
  return (both & (gaps > jnp.float32(margin))).astype(jnp.float32)


def _check(values: jax.Array, mask: jax.Array, name: str) -> None:
  if values.ndim != 2 or values.shape != mask.shape:
    raise ValueError(
      f'{name} {values.shape} and mask {mask.shape} must both be [batch, samples].'
    )
  if mask.dtype != jnp.bool_:
    raise ValueError(f'mask must be bool, True where one exists; got {mask.dtype}.')

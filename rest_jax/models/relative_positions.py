"""T5's relative position bias: buckets of distances, one learned bias each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rest_jax.models import layers


@functools.cache
def _bucket_starts(num_buckets: int, max_distance: int) -> tuple[int, ...]:
  """First distance of each bucket past the exact ones, for one direction."""
  exact = num_buckets // 2
  distances = np.arange(exact, max_distance + 1, dtype=np.float32)
  # Float32 and the epsilon as in T5X, so that borders fall where theirs do.
  fractions = np.log(distances / exact + np.finfo(np.float32).eps) / np.log(
    max_distance / exact
  )
  buckets = exact + (fractions * (num_buckets - exact)).astype(np.int32)
  buckets = np.minimum(buckets, num_buckets - 1)
  return tuple(
    int(exact + np.argmax(buckets >= bucket))
    for bucket in range(exact + 1, num_buckets)
  )


def relative_position_buckets(
  relative_positions: jax.Array,  # [...] int32, key position - query position
  *,
  bidirectional: bool,
  num_buckets: int,
  max_distance: int,
) -> jax.Array:  # [...] int32 in [0, num_buckets)
  """T5's bucket of a relative position.

  Half of the buckets hold one distance each, the others grow logarithmically
  up to max_distance; all beyond share the last. Bidirectional: the upper half
  of the buckets is for keys after the query. Otherwise those are bucket 0.

  Source: T5 (arXiv:1910.10683). The logarithmic borders are found on the host
  and compared as integers, so the result is exact under jit and for a traced
  position.
  """
  offset = jnp.zeros_like(relative_positions)
  if bidirectional:
    num_buckets //= 2
    offset = jnp.where(relative_positions > 0, num_buckets, 0)
    distance = jnp.abs(relative_positions)
  else:
    distance = jnp.maximum(-relative_positions, 0)
  bucket = jnp.minimum(distance, num_buckets // 2)
  for start in _bucket_starts(num_buckets, max_distance):
    bucket = bucket + (distance >= start).astype(bucket.dtype)
  return offset.astype(bucket.dtype) + bucket


class RelativePositionBias(nn.Module):
  """One learned bias per head and bucket, of a whole stack or of one layer.

  Attributes:
    num_heads: rows of the table `rel_embedding` [heads, buckets].
    num_buckets: its columns.
    max_distance: distance in tokens where the last bucket begins at the latest.
    bidirectional: True in the encoder.
  """

  num_heads: int
  num_buckets: int
  max_distance: int
  bidirectional: bool

  def setup(self) -> None:
    """Declares the table."""
    self.rel_embedding = layers.parameter(
      self,
      'rel_embedding',
      nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform'),
      ('heads', 'relpos_buckets'),
      (self.num_heads, self.num_buckets),
    )

  def _buckets(self, relative_positions: jax.Array) -> jax.Array:
    return relative_position_buckets(
      relative_positions,
      bidirectional=self.bidirectional,
      num_buckets=self.num_buckets,
      max_distance=self.max_distance,
    )

  def __call__(
    self,
    query_positions: jax.Array,  # [..., query_length] int32
    key_positions: jax.Array,  # [..., key_length] int32
  ) -> jax.Array:  # [..., heads, query_length, key_length] float32
    """The bias of each head from each query to each key.

    Leading axes are those of sequences with positions of their own.
    """
    table = self.rel_embedding
    buckets = self._buckets(key_positions[..., None, :] - query_positions[..., :, None])
    if buckets.ndim > 2:
      # Looked up: one hot, the buckets of every sequence would take num_buckets
      # times their memory. [heads, ..., query, key] -> [..., heads, query, key]
      return jnp.moveaxis(jnp.take(table, buckets, axis=1, mode='clip'), 0, -3)
    # A one-hot contraction: its gradient is a matmul, not a scatter. Highest
    # precision, since a TPU would otherwise round the biases to bfloat16.
    one_hot = jax.nn.one_hot(buckets, self.num_buckets, dtype=jnp.float32)
    return jnp.einsum(
      'hr,qkr->hqk', table, one_hot, precision=jax.lax.Precision.HIGHEST
    )

  def of_rows(
    self,
    query_positions: jax.Array,  # [rows] int32, one query of each row
    key_positions: jax.Array,  # [keys, rows] int32, or [keys, 1]
  ) -> jax.Array:  # [keys, heads, rows] float32
    """The bias of each row's one query to its keys, rows last."""
    buckets = self._buckets(key_positions - query_positions[None])
    one_hot = jax.nn.one_hot(buckets, self.num_buckets, dtype=jnp.float32, axis=1)
    return jnp.einsum(
      'hb,kbr->khr',
      self.rel_embedding,
      one_hot,
      precision=jax.lax.Precision.HIGHEST,
    )

"""What a decoding loop carries: the past of each candidate, and the sources.

Plain pytrees that go in and come out of `T5.decode_step`; nothing is kept in a
Flax collection.
"""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from rest_jax.models.config import T5Config

# Axes of a SelfCache array, from the end: they hold for one layer's array and
# for the stacked arrays of a scanned model.
CACHE_BATCH_AXIS = -5
CACHE_SAMPLES_AXIS = -4
CACHE_LENGTH_AXIS = -2


class KeysValues(NamedTuple):
  """Keys and values of one attention, two arrays of one shape.

  Cross-attention: [batch, heads, source_length, head_dim]; self-attention:
  [batch, samples, heads, length, head_dim]. Scanned models put [layers] in
  front.
  """

  keys: jax.Array
  values: jax.Array


# One KeysValues per decoder layer, or one with stacked arrays when scanned.
CrossCache: TypeAlias = tuple[KeysValues, ...] | KeysValues
# Length comes right before head_dim. Measured on two CPU cores, one step of a
# 6-layer decoder (512 wide, 8 heads of 64, vocabulary 4,096, 16 sources x 25
# samples, source 16, cache 64): 128 ms; with [batch, samples, length, heads,
# head_dim] 239 ms, with [batch, samples, heads, head_dim, length] 146 ms. On a
# TPU the last axis fills lanes of 128, as head_dim = 128 does; the compiler may
# lay out a loop's buffers anew.
SelfCache: TypeAlias = tuple[KeysValues, ...] | KeysValues


def init_cache(config: T5Config, batch: int, samples: int, length: int) -> SelfCache:
  """An empty past: zeros of `config.dtype`, see `T5.init_cache`."""
  shape: tuple[int, ...] = (batch, samples, config.num_heads, length, config.head_dim)
  if config.scan_layers:
    shape = (config.num_decoder_layers, *shape)
    return KeysValues(jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype))
  return tuple(
    KeysValues(jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype))
    for _ in range(config.num_decoder_layers)
  )


def pad_cache(cache: SelfCache, length: int) -> SelfCache:
  """Extends a SelfCache to `length` positions with zeros.

  Raises:
    ValueError: when the cache is longer already.
  """

  def pad(x: jax.Array) -> jax.Array:
    extra = length - x.shape[CACHE_LENGTH_AXIS]
    if extra < 0:
      raise ValueError(
        f'the cache holds {x.shape[CACHE_LENGTH_AXIS]} positions; it cannot be '
        f'padded to {length}. Ask for a length that is at least as large.'
      )
    widths = [(0, 0)] * x.ndim
    widths[CACHE_LENGTH_AXIS] = (0, extra)
    return jnp.pad(x, widths)

  return jax.tree.map(pad, cache)


def cache_length(cache: SelfCache) -> int:
  """Positions that a SelfCache has room for."""
  return jax.tree.leaves(cache)[0].shape[CACHE_LENGTH_AXIS]


def write_positions(
  cache: KeysValues,
  keys: jax.Array,  # [batch, samples, 1, heads, head_dim]
  values: jax.Array,  # [batch, samples, 1, heads, head_dim]
  positions: jax.Array,  # [batch, samples] int32
  layer: jax.Array | None,  # [] int32, row of a stacked cache
) -> KeysValues:
  """Writes one position of each row and touches nothing else, in place under XLA."""

  def write_row(old: jax.Array, new: jax.Array, position: jax.Array) -> jax.Array:
    # [heads, length, head_dim], or with [layers] in front, <- [heads, 1, head_dim]
    zero = jnp.zeros((), jnp.int32)
    if layer is None:
      return jax.lax.dynamic_update_slice(old, new, (zero, position, zero))
    return jax.lax.dynamic_update_slice(old, new[None], (layer, zero, position, zero))

  def write(old: jax.Array, new: jax.Array) -> jax.Array:
    # [batch, samples, 1, heads, head_dim] -> [batch, samples, heads, 1, head_dim]
    new = jnp.swapaxes(new, -3, -2).astype(old.dtype)
    # Mapped over the rows, not indexed by them: the compiler then knows that no
    # row of a sharded batch reaches into another's shard.
    axis = 0 if layer is None else 1
    samples = jax.vmap(write_row, in_axes=(axis, 0, 0), out_axes=axis)
    return jax.vmap(samples, in_axes=(axis, 0, 0), out_axes=axis)(old, new, positions)

  return KeysValues(write(cache.keys, keys), write(cache.values, values))


def read_layer(cache: KeysValues, layer: jax.Array | None) -> KeysValues:
  """One layer's past, [batch, samples, heads, length, head_dim] each."""
  if layer is None:
    return cache
  return jax.tree.map(
    lambda x: jax.lax.dynamic_index_in_dim(x, layer, keepdims=False), cache
  )

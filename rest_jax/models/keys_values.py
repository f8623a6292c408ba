"""Keys and values of attention: a layer's, or stacked over the layers of a scan."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from rest_jax.models.config import T5Config


class KeysValues(NamedTuple):
  """Keys and values of one attention, two arrays of one shape.

  Cross-attention: [batch, heads, source_length, head_dim]. Self-attention: see the
  modules of the cache layouts, `rows_first` and `rows_last`. Scanned models put
  [layers] in front.
  """

  keys: Any  # jax.Array, or `rows_last.Rounded`
  values: Any


# One KeysValues per decoder layer, or one with stacked arrays when scanned.
CrossCache: TypeAlias = tuple[KeysValues, ...] | KeysValues


def zeros(config: T5Config, shape: tuple[int, ...]) -> KeysValues:
  """Keys and values of 0 in `config.dtype`."""
  return KeysValues(jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype))


def for_layers(config: T5Config, make: Callable[[tuple[int, ...]], Any]) -> Any:
  """What decoder layers hold: a tuple, or one with stacked arrays when scanned.

  Args:
    config: the model's shape.
    make: from the axes in front of a layer's own to what one layer holds.
  """
  if config.scan_layers:
    return make((config.num_decoder_layers,))
  return tuple(make(()) for _ in range(config.num_decoder_layers))


def read_layer(cache: KeysValues, layer: jax.Array | None) -> KeysValues:
  """One layer's keys and values; `layer` [] int32 is the row of stacked arrays."""
  if layer is None:
    return cache
  return jax.tree.map(
    lambda x: jax.lax.dynamic_index_in_dim(x, layer, keepdims=False), cache
  )

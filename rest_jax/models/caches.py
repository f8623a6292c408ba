"""What a decoding loop carries: the past of each candidate, in either layout.

Plain pytrees that go in and come out of `T5.decode_step`; nothing is kept in a
Flax collection. `T5Config.cache_layout` chooses among modules of the same functions:

    rows_first    a row's past lies together; best on CPUs
    rows_last     rows are the last axis, written in one slot; best on TPUs
"""

import types
from collections.abc import Callable
from typing import Any, TypeAlias

import jax

from rest_jax.models import rows_first, rows_last
from rest_jax.models.config import T5Config

SelfCache: TypeAlias = rows_first.Cache | rows_last.Cache

_LAYOUTS: dict[str, types.ModuleType] = {
  'rows_first': rows_first,
  'rows_last': rows_last,
}


def layout(config: T5Config) -> types.ModuleType:
  """The module of the config's layout, which a step of the decoder calls."""
  return _LAYOUTS[config.cache_layout]


def _layout_of(cache: SelfCache) -> types.ModuleType:
  return rows_last if isinstance(cache, rows_last.Cache) else rows_first


def init_cache(config: T5Config, batch: int, samples: int, length: int) -> SelfCache:
  """An empty past, see `T5.init_cache`."""
  return layout(config).init_cache(config, batch, samples, length)


def cache_axes(cache: SelfCache) -> Any:
  """Logical names of the axes, a PartitionSpec for each array of the cache.

  `batch` names the axis that is spread over devices with the batch, `heads` that of
  the heads.
  """
  return _layout_of(cache).cache_axes(cache)


def cache_length(cache: SelfCache) -> int:
  """Positions that a SelfCache has room for."""
  return _layout_of(cache).cache_length(cache)


def pad_cache(cache: SelfCache, length: int) -> SelfCache:
  """Extends a SelfCache to `length` positions with zeros.

  Raises:
    ValueError: when the cache is longer already.
  """
  extra = length - cache_length(cache)
  if extra < 0:
    raise ValueError(
      f'the cache holds {cache_length(cache)} positions; it cannot be '
      f'padded to {length}. Ask for a length that is at least as large.'
    )
  return _layout_of(cache).pad_cache(cache, extra)


def make_room(cache: SelfCache) -> SelfCache:
  """What a layout does between two steps, now and then."""
  return _layout_of(cache).make_room(cache)


def map_batch(
  cache: SelfCache, function: Callable[[jax.Array, int], jax.Array], batch: int
) -> SelfCache:
  """Maps a function over what belongs to the members of the batch.

  Args:
    cache: of `batch` members.
    function: takes an array and the number of its batch axis, which it may shorten
      (to keep some members) or put in another order.
    batch: how many members.
  """
  return _layout_of(cache).map_batch(cache, function, batch)

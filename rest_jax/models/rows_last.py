"""The cache layout 'rows_last': rows are the last axis, all are written in one slot.

    past      keys, values [length, heads, head_dim, rows], indexed by position
    recent    keys, values [RECENT, heads, head_dim, rows], indexed by slot

rows = batch * samples, merged. A TPU keeps the last axis in lanes of 128 and has no
fast write to a place of each row's own: written one row after the other it took
hundreds of milliseconds a step by the compiler's own figures, and a head_dim of 64
filled half of the lanes. Here the slot, clock % RECENT, is common to all rows: one
slice, written in place. Which position of its row a slot holds differs from row to
row and is kept aside:

    recent_positions [RECENT, rows]   -1 where a slot is not on its row's path
    num_past [rows]                   positions below are in `past`

A step at position p forgets what its row holds at or after p (recent_positions >= p
become -1, num_past becomes min(num_past, p)); so a row may go back to an earlier
position, or begin another source at 0. When all slots are full, `flush` moves them
to their rows' positions in `past`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rest_jax.models import keys_values, layers, relative_positions
from rest_jax.models.config import T5Config
from rest_jax.models.keys_values import KeysValues

# More slots: more to attend to in each step, and fewer flushes.
RECENT = 8


class LayerCache(NamedTuple):
  """What a layer holds, or all of them with [layers] in front."""

  past: KeysValues  # [length, heads, head_dim, rows]
  recent: KeysValues  # [RECENT, heads, head_dim, rows]


class Cache(NamedTuple):
  """The layers' keys and values, and which of them are on their rows' paths."""

  layers: tuple[LayerCache, ...] | LayerCache
  recent_positions: jax.Array  # [RECENT, rows] int32, -1: not on the row's path
  num_past: jax.Array  # [rows] int32
  clock: jax.Array  # [] int32, the slot that is written next


class Step(NamedTuple):
  """What the layers share in one step."""

  positions: jax.Array  # [rows] int32, of the queries
  past_bias: jax.Array  # [length, heads or 1, rows] float32, the mask included
  recent_bias: jax.Array  # [RECENT, heads or 1, rows] float32, the mask included
  recent_positions: jax.Array  # [RECENT, rows] int32, after the write
  num_past: jax.Array  # [rows] int32
  clock: jax.Array  # [] int32, the slot of this step


def init_cache(config: T5Config, batch: int, samples: int, length: int) -> Cache:
  """An empty past: zeros of `config.dtype`."""
  rows = batch * samples
  shape = (config.num_heads, config.head_dim, rows)

  def make(lead: tuple[int, ...]) -> LayerCache:
    return LayerCache(
      keys_values.zeros(config, (*lead, length, *shape)),
      keys_values.zeros(config, (*lead, RECENT, *shape)),
    )

  return Cache(
    layers=keys_values.for_layers(config, make),
    recent_positions=jnp.full((RECENT, rows), -1, jnp.int32),
    num_past=jnp.zeros((rows,), jnp.int32),
    clock=jnp.zeros((), jnp.int32),
  )


def cache_axes(cache: Cache) -> Cache:
  """Logical names of the axes of each array; the rows' are named batch."""
  spec: Any = jax.sharding.PartitionSpec
  names = ('length', 'heads', 'kv', 'batch')
  return Cache(
    layers=jax.tree.map(
      lambda x: spec(*(('layers',) * (x.ndim - 4)), *names), cache.layers
    ),
    recent_positions=spec(None, 'batch'),
    num_past=spec('batch'),
    clock=spec(),
  )


def _map_past(cache: Cache, function: Callable[[jax.Array], jax.Array]) -> Cache:
  def one(layer: LayerCache) -> LayerCache:
    return layer._replace(past=jax.tree.map(function, layer.past))

  return cache._replace(layers=_map_layers(one, cache.layers))


def _map_layers(function: Callable[[LayerCache], LayerCache], held: Any) -> Any:
  return jax.tree.map(function, held, is_leaf=lambda x: isinstance(x, LayerCache))


def cache_length(cache: Cache) -> int:
  """Positions that there is room for."""
  held = cache.layers
  first = held if isinstance(held, LayerCache) else held[0]
  return first.past.keys.shape[-4]


def pad_cache(cache: Cache, extra: int) -> Cache:
  """Appends `extra` positions of zeros."""

  def pad(x: jax.Array) -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[-4] = (0, extra)
    return jnp.pad(x, widths)

  return _map_past(cache, pad)


def map_batch(
  cache: Cache, function: Callable[[jax.Array, int], jax.Array], batch: int
) -> Cache:
  """Maps a function of an array and its batch axis over the arrays."""

  def one(x: jax.Array) -> jax.Array:
    # [..., rows] -> [..., batch, samples] -> [..., rows]
    unmerged = x.reshape(*x.shape[:-1], batch, -1)
    return function(unmerged, x.ndim - 1).reshape(*x.shape[:-1], -1)

  of_rows = (cache.layers, cache.recent_positions, cache.num_past)
  held, recent_positions, num_past = jax.tree.map(one, of_rows)
  return Cache(held, recent_positions, num_past, cache.clock)


def begin_step(
  cache: Cache,
  positions: jax.Array,  # [batch, samples] int32
) -> tuple[Step, Any]:
  """What the layers of a step share, and what each has of its own."""
  at = positions.reshape(-1)  # [rows]
  kept = jnp.where(cache.recent_positions < at[None], cache.recent_positions, -1)
  recent = jax.lax.dynamic_update_slice(kept, at[None], (cache.clock, 0))
  num_past = jnp.minimum(cache.num_past, at)
  past = jnp.arange(cache_length(cache), dtype=jnp.int32)[:, None]  # [length, 1]
  past_mask = layers.mask_bias(past < num_past[None])  # [length, rows]
  step = Step(
    positions=at,
    past_bias=past_mask[:, None],
    recent_bias=layers.mask_bias(recent >= 0)[:, None],
    recent_positions=recent,
    num_past=num_past,
    clock=cache.clock,
  )
  return step, cache.layers


def add_relative_bias(
  step: Step, relative_bias: relative_positions.RelativePositionBias
) -> Step:
  """Adds what a query's distance from each key gives, for all layers or for one."""
  past = jnp.arange(len(step.past_bias), dtype=jnp.int32)[:, None]  # [length, 1]
  of_rows = relative_bias.of_rows
  return step._replace(
    past_bias=of_rows(step.positions, past) + step.past_bias,
    recent_bias=of_rows(step.positions, step.recent_positions) + step.recent_bias,
  )


def end_step(step: Step, written: Any) -> Cache:
  """The cache of what the layers have written."""
  return Cache(
    layers=written,
    recent_positions=step.recent_positions,
    num_past=step.num_past,
    clock=step.clock + 1,
  )


def flush_when_full(cache: Cache) -> Cache:
  """Flushes when all slots are taken; to be called after each step."""
  return jax.lax.cond(cache.clock == RECENT, flush, lambda cache: cache, cache)


def flush(cache: Cache) -> Cache:
  """Moves the slots to their rows' positions in `past` and empties them."""
  positions = jnp.arange(cache_length(cache), dtype=jnp.int32)[:, None]  # [length, 1]

  def move(past: jax.Array, recent: jax.Array) -> jax.Array:
    # One pass over `past`, which the compiler fuses.
    for slot in range(RECENT):
      here = cache.recent_positions[slot][None] == positions  # [length, rows]
      here = here.reshape((1,) * (past.ndim - 4) + (len(positions), 1, 1, -1))
      found = jax.lax.index_in_dim(recent, slot, axis=past.ndim - 4)
      past = jnp.where(here, found, past)
    return past

  def one(layer: LayerCache) -> LayerCache:
    return layer._replace(past=jax.tree.map(move, layer.past, layer.recent))

  last = jnp.max(cache.recent_positions, axis=0)  # [rows], -1 where all are off
  return Cache(
    layers=_map_layers(one, cache.layers),
    recent_positions=jnp.full_like(cache.recent_positions, -1),
    num_past=jnp.maximum(cache.num_past, last + 1),
    clock=jnp.zeros_like(cache.clock),
  )


def attend(
  query: jax.Array,  # [batch, samples, 1, heads, head_dim]
  keys: jax.Array,  # [batch, samples, 1, heads, head_dim]
  values: jax.Array,  # [batch, samples, 1, heads, head_dim]
  cache: LayerCache,  # the layer's, or stacked
  step: Step,
  layer: jax.Array | None,  # [] int32, row of a stacked cache
) -> tuple[jax.Array, LayerCache]:  # [batch, samples, 1, heads, head_dim]
  """Writes the keys and values of one step and attends to the past with them.

  One softmax over both parts, divided after the values are mixed.
  """

  def rows_last(x: jax.Array) -> jax.Array:
    # [batch, samples, 1, heads, head_dim] -> [heads, head_dim, rows]
    return jnp.moveaxis(x.reshape(-1, *x.shape[-2:]), 0, -1)

  def write(old: jax.Array, new: jax.Array) -> jax.Array:
    new = rows_last(new).astype(old.dtype)[None]
    start: tuple[Any, ...] = (step.clock, 0, 0, 0)
    if layer is not None:
      new, start = new[None], (layer, *start)
    return jax.lax.dynamic_update_slice(old, new, start)

  recent = KeysValues(
    write(cache.recent.keys, keys), write(cache.recent.values, values)
  )
  cache = cache._replace(recent=recent)
  parts = [
    (keys_values.read_layer(cache.past, layer), step.past_bias),
    (keys_values.read_layer(cache.recent, layer), step.recent_bias),
  ]
  one = rows_last(query).astype(jnp.float32)[None]
  # Products and sums, not contractions: a row has one query, so there is no matrix
  # product to make, and the cache is read as it lies. [keys, heads, rows]
  scores = [
    jnp.sum(one * part.keys.astype(jnp.float32), axis=2) + bias for part, bias in parts
  ]
  highest = jnp.maximum(*(jnp.max(score, axis=0) for score in scores))
  weights = [jnp.exp(score - highest[None]) for score in scores]
  total = functools.reduce(jnp.add, (jnp.sum(x, axis=0) for x in weights))
  mixed = functools.reduce(
    jnp.add,
    (
      jnp.sum(weight[:, :, None] * part.values.astype(jnp.float32), axis=0)
      for weight, (part, _) in zip(weights, parts, strict=True)
    ),
  )  # [heads, head_dim, rows], divided by [heads, 1, rows]
  mixed = (mixed / total[:, None]).astype(query.dtype)
  return jnp.moveaxis(mixed, -1, 0).reshape(query.shape), cache

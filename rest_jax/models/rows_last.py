"""The cache layout 'rows_last': rows are the last axis, all are written in one slot.

    keys, values [slots, heads, head_dim, rows]   slots = length + SPARE
    positions [slots, rows]                       -1 where a slot is off its row's path

rows = batch * samples, merged. A TPU keeps the last axis in lanes of 128 and has no
fast write to a place of each row's own: written one row after the other it took
hundreds of milliseconds a step by the compiler's own figures, and a head_dim of 64
filled half of the lanes. Here the slots are a ring: the one at `clock` is written by
all rows in a step, one slice, in place. Which position of its row it holds differs
from row to row and is kept aside.

A step at position p forgets what its row holds at or after p (those slots leave its
path); so a row may go back to an earlier position, or begin another source at 0. A row
that walks straight on, or that began anew within the last `length` steps, has nothing
left in the slot that is written next. One that went back may have: then `move` brings
what is in the next SPARE slots to slots that are off their rows' paths. A row's path
has at most `length` positions, so there are enough.

With `T5Config.int8_cache` keys and values are `Rounded`: 8-bit integers, and a scale
for each slot and row, common to the heads. With one for each head half of what the
integers save was lost, by the compiler's estimate for a v5p.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rest_jax.models import keys_values, layers, relative_positions
from rest_jax.models.config import T5Config
from rest_jax.models.keys_values import KeysValues

# More slots: more to attend to in each step, and fewer moves where rows go back.
SPARE = 8


class Rounded(NamedTuple):
  """Stands for numbers * scales."""

  numbers: jax.Array  # [slots, heads, head_dim, rows] int8
  scales: jax.Array  # [slots, rows] float32


class Cache(NamedTuple):
  """The layers' keys and values, and which of them are on their rows' paths."""

  layers: tuple[KeysValues, ...] | KeysValues  # [slots, heads, head_dim, rows]
  positions: jax.Array  # [slots, rows] int32, -1: not on the row's path
  clock: jax.Array  # [] int32, the slot that is written next


class Step(NamedTuple):
  """What the layers share in one step."""

  query_positions: jax.Array  # [rows] int32
  positions: jax.Array  # [slots, rows] int32, after the write
  bias: jax.Array  # [slots, heads or 1, rows] float32, the mask included
  clock: jax.Array  # [] int32, the slot of this step


def init_cache(config: T5Config, batch: int, samples: int, length: int) -> Cache:
  """An empty past: zeros of `config.dtype`, or of 8 bits."""
  slots, rows = length + SPARE, batch * samples

  def make(lead: tuple[int, ...]) -> KeysValues:
    shape = (*lead, slots, config.num_heads, config.head_dim, rows)
    if not config.int8_cache:
      return keys_values.zeros(config, shape)

    def rounded() -> Rounded:
      return Rounded(jnp.zeros(shape, jnp.int8), jnp.zeros((*lead, slots, rows)))

    return KeysValues(rounded(), rounded())

  return Cache(
    layers=keys_values.for_layers(config, make),
    positions=jnp.full((slots, rows), -1, jnp.int32),
    clock=jnp.zeros((), jnp.int32),
  )


def cache_axes(cache: Cache) -> Cache:
  """Logical names of the axes of each array; the rows' are named batch."""
  spec: Any = jax.sharding.PartitionSpec
  lead = ('layers',) * _slot_axis(cache)

  def names(x: jax.Array) -> Any:
    inner = ('heads', 'kv') if x.ndim - len(lead) == 4 else ()
    return spec(*lead, 'length', *inner, 'batch')

  return Cache(
    layers=jax.tree.map(names, cache.layers),
    positions=spec(None, 'batch'),
    clock=spec(),
  )


def _slot_axis(cache: Cache) -> int:
  return int(isinstance(cache.layers, KeysValues))  # stacked layers lie in front


def cache_length(cache: Cache) -> int:
  """Positions that there is room for."""
  return len(cache.positions) - SPARE


def pad_cache(cache: Cache, extra: int) -> Cache:
  """Appends `extra` slots, which are written next."""
  if not extra:
    return cache

  def pad(x: jax.Array) -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[_slot_axis(cache)] = (0, extra)
    return jnp.pad(x, widths)

  return Cache(
    layers=jax.tree.map(pad, cache.layers),
    positions=jnp.pad(cache.positions, ((0, extra), (0, 0)), constant_values=-1),
    clock=jnp.full_like(cache.clock, len(cache.positions)),
  )


def map_batch(
  cache: Cache, function: Callable[[jax.Array, int], jax.Array], batch: int
) -> Cache:
  """Maps a function of an array and its batch axis over the arrays."""

  def one(x: jax.Array) -> jax.Array:
    # [..., rows] -> [..., batch, samples] -> [..., rows]
    unmerged = x.reshape(*x.shape[:-1], batch, -1)
    return function(unmerged, x.ndim - 1).reshape(*x.shape[:-1], -1)

  held, positions = jax.tree.map(one, (cache.layers, cache.positions))
  return Cache(held, positions, cache.clock)


def begin_step(
  cache: Cache,
  positions: jax.Array,  # [batch, samples] int32
) -> tuple[Step, Any]:
  """What the layers of a step share, and what each has of its own."""
  at = positions.reshape(1, -1)  # [1, rows]
  kept = jnp.where(cache.positions < at, cache.positions, -1)
  held = jax.lax.dynamic_update_slice(kept, at, (cache.clock, 0))
  step = Step(
    query_positions=at[0],
    positions=held,
    bias=layers.mask_bias(held >= 0)[:, None],
    clock=cache.clock,
  )
  return step, cache.layers


def add_relative_bias(
  step: Step, relative_bias: relative_positions.RelativePositionBias
) -> Step:
  """Adds what a query's distance from each key gives, for all layers or for one."""
  bias = relative_bias.of_rows(step.query_positions, step.positions)
  return step._replace(bias=bias + step.bias)


def end_step(step: Step, written: Any) -> Cache:
  """The cache of what the layers have written."""
  clock = jnp.where(step.clock + 1 == len(step.positions), 0, step.clock + 1)
  return Cache(layers=written, positions=step.positions, clock=clock)


def make_room(cache: Cache) -> Cache:
  """Sees that no row has the slot that is written next on its path."""
  following = jax.lax.dynamic_index_in_dim(cache.positions, cache.clock)
  return jax.lax.cond(jnp.any(following >= 0), move, lambda cache: cache, cache)


def move(cache: Cache) -> Cache:
  """Empties the next SPARE slots into those that are off their rows' paths.

  The slots that were written last are taken first: their turn comes last.
  """
  slots = len(cache.positions)
  ages = (cache.clock - 1 - jnp.arange(slots, dtype=jnp.int32)) % slots  # 0: the last
  is_next = (ages >= slots - SPARE)[:, None]  # [slots, 1]
  vacant = (cache.positions < 0) & ~is_next  # [slots, rows]
  younger = (ages[None, :] < ages[:, None]).astype(jnp.float32)  # [slot, younger slot]
  # How many vacant slots are younger. Small integers: exact in any precision.
  rank = jnp.einsum('st,tr->sr', younger, vacant.astype(jnp.float32))
  sources, targets = [], []
  moved = jnp.zeros_like(rank[0])  # [rows]
  for place in range(SPARE):
    source = (cache.clock + place) % slots
    leaves = jax.lax.dynamic_index_in_dim(cache.positions, source, keepdims=False) >= 0
    sources.append(source)
    targets.append(vacant & leaves[None] & (rank == moved[None]))  # [slots, rows]
    moved = moved + leaves.astype(moved.dtype)

  def one(x: jax.Array, axis: int) -> jax.Array:
    # One pass over an array, which the compiler fuses.
    result = x
    for source, target in zip(sources, targets, strict=True):
      here = target.reshape((1,) * axis + (slots,) + (1,) * (x.ndim - axis - 2) + (-1,))
      found = jax.lax.dynamic_index_in_dim(x, source, axis=axis)
      result = jnp.where(here, found, result)
    return result

  return Cache(
    layers=jax.tree.map(lambda x: one(x, _slot_axis(cache)), cache.layers),
    positions=jnp.where(is_next, -1, one(cache.positions, 0)),
    clock=cache.clock,
  )


def attend(
  query: jax.Array,  # [batch, samples, 1, heads, head_dim]
  keys: jax.Array,  # [batch, samples, 1, heads, head_dim]
  values: jax.Array,  # [batch, samples, 1, heads, head_dim]
  cache: KeysValues,  # the layer's, or stacked
  step: Step,
  layer: jax.Array | None,  # [] int32, row of a stacked cache
) -> tuple[jax.Array, KeysValues]:  # [batch, samples, 1, heads, head_dim]
  """Writes the keys and values of one step and attends to the past with them.

  The softmax is divided after the values are mixed.
  """

  def rows_last(x: jax.Array) -> jax.Array:
    # [batch, samples, 1, heads, head_dim] -> [heads, head_dim, rows]
    return jnp.moveaxis(x.reshape(-1, *x.shape[-2:]), 0, -1)

  def write(old: Any, new: jax.Array) -> Any:
    new = rows_last(new)
    written = _round(new) if isinstance(old, Rounded) else new.astype(old.dtype)
    return jax.tree.map(put, old, written)

  def put(old: jax.Array, new: jax.Array) -> jax.Array:
    lead = (step.clock,) if layer is None else (layer, step.clock)
    new = new.reshape((1,) * len(lead) + new.shape)
    return jax.lax.dynamic_update_slice(old, new, lead + (0,) * (old.ndim - len(lead)))

  cache = KeysValues(write(cache.keys, keys), write(cache.values, values))
  past = keys_values.read_layer(cache, layer)
  # Products and sums, not contractions: a row has one query, so there is no matrix
  # product to make, and the cache is read as it lies.
  one = rows_last(query).astype(jnp.float32)[None]
  numbers, scales = _parts(past.keys)
  scores = jnp.sum(one * numbers.astype(jnp.float32), axis=2) * scales + step.bias
  weights = jnp.exp(scores - jnp.max(scores, axis=0, keepdims=True))
  total = jnp.sum(weights, axis=0)  # [heads, rows]
  numbers, scales = _parts(past.values)
  weights = (weights * scales)[:, :, None]  # [slots, heads, 1, rows]
  mixed = jnp.sum(weights * numbers.astype(jnp.float32), axis=0)
  mixed = (mixed / total[:, None]).astype(query.dtype)  # [heads, head_dim, rows]
  return jnp.moveaxis(mixed, -1, 0).reshape(query.shape), cache


def _round(x: jax.Array) -> Rounded:  # [heads, head_dim, rows]
  """The nearest multiples of 1 / 127 of each row's greatest magnitude."""
  x = x.astype(jnp.float32)
  scales = jnp.max(jnp.abs(x), axis=(0, 1)) / 127  # [rows]
  numbers = jnp.round(x / jnp.where(scales > 0, scales, 1.0)[None, None])
  return Rounded(numbers.astype(jnp.int8), scales)


def _parts(x: jax.Array | Rounded) -> tuple[jax.Array, jax.Array]:
  """Numbers [slots, heads, head_dim, rows], scales [slots or 1, 1, rows or 1]."""
  if isinstance(x, Rounded):
    return x.numbers, x.scales[:, None]
  return x, jnp.ones((1, 1, 1), jnp.float32)

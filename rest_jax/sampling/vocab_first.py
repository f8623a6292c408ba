"""Draws with the vocabulary as the first axis and rows as the last: best on TPUs.

The same tokens as `draws.draw`, on the same three levels. What differs is what is
done with the logits [vocab, rows], the largest array of a step by far. They are read
three times and never copied:

    with the product that makes them    the highest of each row
    masses of the first two levels      exponentials, summed by column
    the third level                     the FAN logits of each draw's column, and the
                                        normaliser of the untempered policy

With the vocabulary last a TPU padded them, split them into blocks and gathered from
them: four copies more. By its compiler's estimate, for 2,048 rows of 32,128 tokens on
a v5p, projection and draw take 0.72 ms in place of 1.45 ms, and 1.1 ms in place of
3.4 ms where eight candidates draw from each row.
"""

import functools

import jax
import jax.numpy as jnp

from rest_jax.sampling import draws


def draw_with_log_probs(
  logits: jax.Array,  # [batch, slots, vocab] float32
  allowed: jax.Array,  # broadcasts to [batch, slots, vocab] bool
  uniform: jax.Array,  # [batch, slots, draws] float32 in [0, 1)
  decoding: draws.Decoding,
) -> tuple[jax.Array, jax.Array]:  # [batch, slots, draws] int32, float32
  """As `draws.draw_with_log_probs`."""
  if decoding.temperature == 0:
    return draws.draw_with_log_probs(logits, allowed, uniform, decoding)
  allowed = draws.cut(logits, allowed, decoding)
  if allowed.shape[:2] != (1, 1):
    allowed = jnp.broadcast_to(allowed, logits.shape)
  tokens, log_probs = _draw(
    _first(logits), _first(allowed), _first(uniform), decoding.temperature
  )

  def last(x: jax.Array) -> jax.Array:
    # [draws, rows] -> [batch, slots, draws]
    return jnp.moveaxis(x, 0, -1).reshape(uniform.shape)

  return last(tokens), last(log_probs)


def _first(x: jax.Array) -> jax.Array:
  # [batch, slots, size] -> [size, rows]
  return jnp.moveaxis(x, -1, 0).reshape(x.shape[-1], -1)


def _draw(
  logits: jax.Array,  # [vocab, rows]
  allowed: jax.Array,  # [vocab, rows or 1]
  uniform: jax.Array,  # [draws, rows]
  temperature: float,
) -> tuple[jax.Array, jax.Array]:  # [draws, rows] int32, float32
  vocab = len(logits)
  num_columns = -(-vocab // draws.FAN)
  num_blocks = -(-num_columns // draws.FAN)
  starts = range(0, vocab, num_columns)
  highest = jnp.max(logits, axis=0)
  peak = jnp.max(jnp.where(allowed, logits, -jnp.inf), axis=0)

  def mass(logits: jax.Array, allowed: jax.Array) -> jax.Array:
    peaks = peak.reshape((1,) * (logits.ndim - 1) + peak.shape)
    return jnp.where(allowed, jnp.exp((logits - peaks) / temperature), 0.0)

  # Slices: padded to whole rows of columns, the logits would be copied.
  parts = [
    (logits[start : start + num_columns], allowed[start : start + num_columns])
    for start in starts
  ]
  columns = functools.reduce(
    jnp.add, (_padded(mass(*part), num_columns) for part in parts)
  )
  columns = _padded(columns, draws.FAN * num_blocks)
  block, rest = _choose_block(columns.reshape(draws.FAN, num_blocks, -1), uniform)
  row, rest = draws.first_above(_of_block(columns, block), rest)
  column = row * num_blocks + block  # [draws, rows]
  inside, allowed_inside, normalisers = zip(
    *(_read_column(*part, column, highest) for part in parts), strict=True
  )
  # [parts, draws, rows]
  found = jnp.stack(inside)
  row, _ = draws.first_above(mass(found, jnp.stack(allowed_inside)), rest)
  log_z = jnp.log(functools.reduce(jnp.add, normalisers)) + highest
  log_probs = _pick(found, row) - log_z[None]
  return row * num_columns + column, log_probs


def _padded(x: jax.Array, size: int) -> jax.Array:
  return jnp.pad(x, ((0, size - len(x)), (0, 0)))


def _one_hot(index: jax.Array, size: int) -> jax.Array:
  # [draws, rows] -> [size, draws, rows]
  return jnp.arange(size, dtype=jnp.int32)[:, None, None] == index[None]


def _pick(
  x: jax.Array,  # [size, draws, rows]
  index: jax.Array,  # [draws, rows]
) -> jax.Array:  # [draws, rows]
  # Not gathered: a TPU would do it one number after the other.
  return jnp.max(jnp.where(_one_hot(index, len(x)), x, -jnp.inf), axis=0)


def _choose_block(
  columns: jax.Array,  # [FAN, blocks, rows], their masses
  uniform: jax.Array,  # [draws, rows]
) -> tuple[jax.Array, jax.Array]:  # [draws, rows] int32, what is left of the mass
  ends = jnp.cumsum(jnp.sum(columns, axis=0), axis=0)  # [blocks, rows]
  # Below the whole sum, whatever the rounding: a block of mass is found.
  whole = ends[-1:]
  rest = jnp.minimum(uniform * whole, jnp.nextafter(whole, 0.0))
  block = jnp.sum(ends[:, None] <= rest[None], axis=0, dtype=jnp.int32)
  start = _pick(jnp.broadcast_to(ends[:, None], (len(ends), *rest.shape)), block - 1)
  return block, rest - jnp.where(block > 0, start, 0.0)


def _of_block(
  columns: jax.Array,  # [FAN * blocks, rows]
  block: jax.Array,  # [draws, rows] int32
) -> jax.Array:  # [FAN, draws, rows], masses of the block's columns
  by_row = columns.reshape(draws.FAN, -1, columns.shape[-1])
  here = _one_hot(block, by_row.shape[1])[None]
  return jnp.sum(jnp.where(here, by_row[:, :, None], 0.0), axis=1)


def _read_column(
  logits: jax.Array,  # [columns, rows], or fewer: those from one place of the order
  allowed: jax.Array,  # [columns, rows or 1]
  column: jax.Array,  # [draws, rows] int32
  highest: jax.Array,  # [rows]
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Each draw's logit and verdict, [draws, rows]; exp(logits) summed, [rows]."""
  here = _one_hot(column, len(logits))
  allowed_here = jnp.any(here & allowed[:, None], axis=0)
  chosen = jnp.where(here, logits[:, None], -jnp.inf)
  masses = jnp.exp(logits - highest[None])
  if len(column) > 1:
    return jnp.max(chosen, axis=0), allowed_here, jnp.sum(masses, axis=0)
  # One pass for both, which the compiler would not make of two reductions.
  found, normaliser = jax.lax.reduce(
    (chosen[:, 0], masses),
    (jnp.float32(-jnp.inf), jnp.float32(0)),
    lambda a, b: (jnp.maximum(a[0], b[0]), a[1] + b[1]),
    (0,),
  )
  return found[None], allowed_here, normaliser

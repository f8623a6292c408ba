"""Draws of the next token: randomness from identity, exact, cheap.

A candidate's key is folded from (seed, grow step, source id, candidate index),
and each token's uniform number from that key and the token's position. Nothing
depends on where in a batch a candidate happens to be computed.
"""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

_LOWEST_KEY = -0x7F800001  # minus infinity, see _in_top_p
FAN = 16  # entries summed together at each of the two lower levels of a draw


@dataclasses.dataclass(frozen=True)
class Decoding:
  """How to draw: T5X's `temperature_sample` settings, with an honest default.

  Attributes:
    temperature: divides the logits; 0 takes the most probable token (greedy).
    top_k: draw among the k most probable tokens only; 0 means all. Ties with
      the k-th are kept.
    top_p: draw among the fewest most probable tokens whose probabilities sum to
      at least p (after temperature and top-k); 1 means all.
    min_tokens: EOS is not drawn before so many other tokens were; 0 allows it
      at once.
  """

  temperature: float = 0.8
  top_k: int = 0
  top_p: float = 1.0
  min_tokens: int = 0

  def __post_init__(self) -> None:
    if not 0 <= self.temperature < float('inf'):
      raise ValueError(
        f'temperature={self.temperature} must be finite and at least 0 (0 is greedy)'
      )
    if self.top_k < 0:
      raise ValueError(f'top_k={self.top_k} must be at least 0 (0 means all tokens)')
    if not 0 < self.top_p <= 1:
      raise ValueError(f'top_p={self.top_p} must be in (0, 1] (1 means all tokens)')
    if self.min_tokens < 0:
      raise ValueError(f'min_tokens={self.min_tokens} must be at least 0')


GREEDY = Decoding(temperature=0.0)


def source_words(source_ids: list[str]) -> np.ndarray:
  """Returns [sources, 2] uint32 that stand for the source ids (BLAKE2b)."""
  digests = [hashlib.blake2b(s.encode(), digest_size=8).digest() for s in source_ids]
  return np.frombuffer(b''.join(digests), dtype='<u4').reshape(-1, 2)


def candidate_keys(
  seed: jax.Array | int,
  grow_step: jax.Array | int,
  words: jax.Array,  # [batch, 2] uint32, from `source_words`
  candidates: jax.Array,  # [batch, samples] int32, candidate indices
) -> jax.Array:  # [batch, samples] keys
  """Folds each candidate's key from its identity."""
  root = jax.random.fold_in(jax.random.key(seed), grow_step)

  def of_source(pair: jax.Array, indices: jax.Array) -> jax.Array:
    key = jax.random.fold_in(jax.random.fold_in(root, pair[0]), pair[1])
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)

  return jax.vmap(of_source)(words, candidates)


def uniforms(keys: jax.Array, num_positions: int) -> jax.Array:
  """One uniform number in [0, 1) for each token that a candidate may have.

  Args:
    keys: [...] keys from `candidate_keys`.
    num_positions: tokens. The number of a position does not depend on it.

  Returns:
    [..., num_positions] float32 with 24 random bits.
  """

  def one(key: jax.Array, position: jax.Array) -> jax.Array:
    bits = jax.random.bits(jax.random.fold_in(key, position), dtype=jnp.uint32)
    return (bits >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)

  positions = jnp.arange(num_positions, dtype=jnp.int32)
  rows = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))
  return rows(keys.reshape(-1), positions).reshape(*keys.shape, num_positions)


def draw_with_log_probs(
  logits: jax.Array,  # [batch, slots, vocab] float32
  allowed: jax.Array,  # broadcasts to [batch, slots, vocab] bool
  uniform: jax.Array,  # [batch, slots, draws] float32 in [0, 1)
  decoding: Decoding,
) -> tuple[jax.Array, jax.Array]:  # [batch, slots, draws] int32, float32
  """As `draw`, and the tokens' log-probabilities, nats, untempered and uncut."""
  drawn = draw(logits, allowed, uniform, decoding)
  return drawn, log_probs_of(logits, drawn)


def log_probs_of(
  logits: jax.Array,  # [batch, slots, vocab] float32
  tokens: jax.Array,  # [batch, slots, draws] int32
) -> jax.Array:  # [batch, slots, draws] float32, nats
  """Log-probabilities of tokens under softmax(logits)."""
  log_z = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
  return jnp.take_along_axis(logits, tokens, axis=-1) - log_z


def draw(
  logits: jax.Array,  # [..., vocab] float32
  allowed: jax.Array,  # broadcasts to [..., vocab] bool; False is never drawn
  uniform: jax.Array,  # [..., draws] float32 in [0, 1)
  decoding: Decoding,
) -> jax.Array:  # [..., draws] int32
  """Draws tokens from softmax(logits / temperature), cut as asked.

  The inverse of the cumulative distribution, one uniform number for each draw:
  exact up to float32 rounding of the sums. One pass over the vocabulary serves
  all draws from a distribution.
  """
  if decoding.temperature == 0:
    best = jnp.argmax(jnp.where(allowed, logits, -jnp.inf), axis=-1)
    return jnp.broadcast_to(best.astype(jnp.int32)[..., None], uniform.shape)
  allowed = cut(logits, allowed, decoding)
  return _inverse_cdf(logits, allowed, uniform, decoding.temperature)


def cut(
  logits: jax.Array,  # [..., vocab] float32
  allowed: jax.Array,  # broadcasts to [..., vocab] bool
  decoding: Decoding,
) -> jax.Array:  # broadcasts to [..., vocab] bool
  """What of the allowed tokens top-k and top-p leave."""
  if not decoding.top_k and decoding.top_p == 1:
    return allowed
  peak = jnp.max(jnp.where(allowed, logits, -jnp.inf), axis=-1, keepdims=True)
  scaled = (logits - peak) / decoding.temperature
  if decoding.top_k:
    allowed = allowed & _in_top_k(jnp.where(allowed, scaled, -jnp.inf), decoding.top_k)
  if decoding.top_p < 1:
    allowed = allowed & _in_top_p(jnp.where(allowed, scaled, -jnp.inf), decoding.top_p)
  return allowed


def _in_top_k(scaled: jax.Array, k: int) -> jax.Array:
  kth = jax.lax.top_k(scaled, min(k, scaled.shape[-1]))[0][..., -1:]
  return scaled >= kth


def _in_top_p(
  scaled: jax.Array,  # [..., vocab] float32, at most 0
  p: float,
) -> jax.Array:  # [..., vocab] bool
  """The fewest greatest that have a mass of p, ties included.

  Halves the range of the threshold's bits: 32 sums over the vocabulary. Sorting
  256 x 8,000 numbers takes 20 times as long on two CPU cores.
  """
  probabilities = jax.nn.softmax(scaled, axis=-1)
  bits = jax.lax.bitcast_convert_type(scaled, jnp.int32)
  keys = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # in the order of the values
  low = jnp.full_like(keys[..., :1], _LOWEST_KEY)
  high = jnp.ones_like(low)

  def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    low, high = ends
    middle = low + (high - low) // 2
    masses = jnp.where(keys >= middle, probabilities, 0.0)
    enough = jnp.sum(masses, axis=-1, keepdims=True) >= p
    return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

  low, _ = jax.lax.fori_loop(0, 32, halve, (low, high))
  return keys >= low


def _inverse_cdf(
  logits: jax.Array,  # [..., vocab]
  allowed: jax.Array,  # broadcasts to [..., vocab]
  uniform: jax.Array,  # [..., draws]
  temperature: float,
) -> jax.Array:  # [..., draws] int32
  """Three levels: sums of blocks, of their rows, and single tokens.

  Token a * columns + b, with a below FAN, stands in column b; column c * blocks + d,
  with c below FAN, in block d. The order of the tokens under the cumulative
  distribution is free, and with this one every sum runs over whole rows. A draw
  reads blocks + 2 FAN numbers instead of the vocabulary, and the masses are summed as
  they are computed: those of a draw's column are computed once more. What is not
  allowed loses its mass, not its logit: with that, the logits would be copied.
  """
  lead = logits.shape[:-1]
  num_columns = -(-logits.shape[-1] // FAN)
  num_blocks = -(-num_columns // FAN)
  # Added, not put in place: a CPU adds as it compares, and would copy all logits else.
  never = jnp.where(allowed, 0.0, -jnp.inf)
  peak = jnp.max(logits + never, axis=-1, keepdims=True)
  allowed = jnp.broadcast_to(allowed, logits.shape)

  def in_rows(x: jax.Array, value: float) -> jax.Array:  # [..., FAN, columns]
    padded = _padded(x, FAN * num_columns, value)
    return padded.reshape(*lead, FAN, num_columns)

  logits, allowed = in_rows(logits, -jnp.inf), in_rows(allowed, False)

  def masses(logits: jax.Array, allowed: jax.Array) -> jax.Array:
    mass = jnp.exp((logits - peak[..., None]) / temperature)
    return jnp.where(allowed, mass, 0.0)

  columns = jnp.sum(masses(logits, allowed), axis=-2)  # [..., columns]
  columns = _padded(columns, FAN * num_blocks, 0.0).reshape(*lead, FAN, num_blocks)
  ends = jnp.cumsum(jnp.sum(columns, axis=-2), axis=-1)  # [..., blocks]
  # Below the whole sum, whatever the rounding: a block of mass is found.
  whole = ends[..., -1:]
  rest = jnp.minimum(uniform * whole, jnp.nextafter(whole, 0.0))  # [..., draws]
  # The first block whose running sum exceeds the rest.
  block = jnp.sum(ends[..., None] <= rest[..., None, :], axis=-2, dtype=jnp.int32)
  start = jnp.take_along_axis(ends, jnp.maximum(block - 1, 0), axis=-1)
  rest = rest - jnp.where(block > 0, start, 0.0)

  def read(x: jax.Array, place: jax.Array) -> jax.Array:  # [..., FAN, draws]
    places = place[..., None, :]
    return jnp.take_along_axis(x, places, axis=-1, mode='promise_in_bounds')

  inside = read(columns, block)
  row, rest = first_above(jnp.moveaxis(inside, -2, 0), rest)
  column = row * num_blocks + block
  inside = masses(read(logits, column), read(allowed, column))
  row, _ = first_above(jnp.moveaxis(inside, -2, 0), rest)
  return row * num_columns + column


def _padded(x: jax.Array, size: int, value: float) -> jax.Array:
  """Fills up the last axis."""
  pad = [(0, 0)] * (x.ndim - 1) + [(0, size - x.shape[-1])]
  return jnp.pad(x, pad, constant_values=value)


def first_above(
  masses: jax.Array,  # [FAN, ...], or fewer
  rest: jax.Array,  # [...]
) -> tuple[jax.Array, jax.Array]:
  """The first of FAN masses whose running sum exceeds the rest.

  Rounding can leave the rest at or above the last sum: the last one that has any
  mass is taken then.

  Returns:
    Its index, [...] int32, and what of the rest is left for it.
  """
  total = jnp.zeros_like(rest)
  index = jnp.zeros(rest.shape, jnp.int32)
  start = jnp.zeros_like(rest)
  for i in range(len(masses)):  # unrolled: one pass over the draws
    mass = masses[i]
    # It is this one, unless an earlier one's sum exceeds the rest already.
    here = (mass > 0) & (total <= rest)
    index = jnp.where(here, i, index)
    start = jnp.where(here, total, start)
    total = total + mass
  return index, rest - start

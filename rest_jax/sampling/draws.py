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

BLOCK = 128  # vocabulary entries summed together in the first level of a draw


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


def draw(
  logits: jax.Array,  # [..., vocab] float32, -inf where not allowed
  uniform: jax.Array,  # [..., draws] float32 in [0, 1)
  decoding: Decoding,
) -> jax.Array:  # [..., draws] int32
  """Draws tokens from softmax(logits / temperature), cut as asked.

  The inverse of the cumulative distribution, one uniform number for each draw:
  exact up to float32 rounding of the sums. One pass over the vocabulary serves
  all draws from a distribution.
  """
  if decoding.temperature == 0:
    best = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return jnp.broadcast_to(best[..., None], uniform.shape)
  scaled = logits / decoding.temperature
  if decoding.top_k:
    scaled = _keep_top_k(scaled, decoding.top_k)
  if decoding.top_p < 1:
    scaled = _keep_top_p(scaled, decoding.top_p)
  return _inverse_cdf(scaled, uniform)


def _keep_top_k(scaled: jax.Array, k: int) -> jax.Array:
  kth = jax.lax.top_k(scaled, min(k, scaled.shape[-1]))[0][..., -1:]
  return jnp.where(scaled >= kth, scaled, -jnp.inf)


def _keep_top_p(scaled: jax.Array, p: float) -> jax.Array:
  descending = jnp.flip(jnp.sort(scaled, axis=-1), axis=-1)
  probabilities = jax.nn.softmax(descending, axis=-1)
  before = jnp.cumsum(probabilities, axis=-1) - probabilities
  # The first token always stays: nothing comes before it.
  smallest = jnp.min(jnp.where(before < p, descending, jnp.inf), axis=-1, keepdims=True)
  return jnp.where(scaled >= smallest, scaled, -jnp.inf)


def _inverse_cdf(scaled: jax.Array, uniform: jax.Array) -> jax.Array:
  """Two levels: find the block where the sum passes u, then the token in it."""
  vocab = scaled.shape[-1]
  pad = -vocab % BLOCK
  masses = jnp.exp(scaled - jnp.max(scaled, axis=-1, keepdims=True))
  masses = jnp.pad(masses, [(0, 0)] * (masses.ndim - 1) + [(0, pad)])
  blocks = masses.reshape(*masses.shape[:-1], -1, BLOCK)  # [.., blocks, BLOCK]
  block_ends = jnp.cumsum(jnp.sum(blocks, axis=-1), axis=-1)  # [.., blocks]
  target = uniform * block_ends[..., -1:]  # [.., draws]
  block = _first_above(block_ends[..., None, :], target)  # [.., draws]
  start = jnp.take_along_axis(block_ends, jnp.maximum(block - 1, 0), axis=-1)
  rest = target - jnp.where(block > 0, start, 0.0)
  inside = jnp.take_along_axis(blocks, block[..., None], axis=-2)  # [.., draws, BLOCK]
  token = _first_above(jnp.cumsum(inside, axis=-1), rest)
  # Rounding can leave the target at or above the last sum: take the block's last
  # token that has mass at all.
  last = BLOCK - 1 - jnp.argmax(jnp.flip(inside > 0, axis=-1), axis=-1)
  return (block * BLOCK + jnp.minimum(token, last)).astype(jnp.int32)


def _first_above(sums: jax.Array, target: jax.Array) -> jax.Array:
  """Returns the first index whose running sum exceeds the target (or the last)."""
  index = jnp.sum(sums <= target[..., None], axis=-1)
  return jnp.minimum(index, sums.shape[-1] - 1)

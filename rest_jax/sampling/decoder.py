"""The decoder loop: all candidates of a batch of groups, one token at a time.

Each source is encoded once, its cross-attention keys and values are projected
once, and all its candidates attend to them. The self-attention cache grows in
steps with the length that is reached, so short candidates never pay for the
limit.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rest_jax.models import t5
from rest_jax.sampling import draws

PAD_ID = 0  # also the decoder's start token
EOS_ID = 1
FIRST_CACHE_LENGTH = 16  # tokens; doubles until the limit


class Samples(NamedTuple):
  """What the loop draws for a batch of groups."""

  tokens: jax.Array  # [batch, samples, length] int32, 0 after EOS
  token_log_probs: jax.Array  # [batch, samples, length] float32 nats, 0 after EOS
  finished: jax.Array  # [batch, samples] bool, EOS was drawn


class _Loop(NamedTuple):
  position: jax.Array  # [] int32, of the token being drawn
  token: jax.Array  # [batch, samples] int32, the last one drawn
  finished: jax.Array  # [batch, samples] bool
  tokens: jax.Array  # [batch, samples, limit] int32
  token_log_probs: jax.Array  # [batch, samples, limit] float32
  cache: Any  # t5.SelfCache


@functools.partial(
  jax.jit,
  static_argnames=('config', 'num_samples', 'limit', 'num_tokens', 'decoding'),
)
def sample(
  params: Any,
  encoder_input_tokens: jax.Array,  # [batch, source_length] int32
  words: jax.Array,  # [batch, 2] uint32, the sources' identities
  seed: jax.Array,  # [] int32
  grow_step: jax.Array,  # [] int32
  first_candidate: jax.Array,  # [] int32, index of the first candidate drawn here
  *,
  config: t5.T5Config,
  num_samples: int,
  limit: int,
  num_tokens: int,
  decoding: draws.Decoding,
) -> Samples:
  """Draws `num_samples` candidates for each source of a batch.

  The log-probability of each token is recorded under the untempered, uncut
  policy. Padding is never drawn, nor ids from `num_tokens` on, which pad the
  embedding to a convenient size; EOS ends a candidate and is part of it. Rows
  that are all padding (an empty source) are finished from the start.

  Args:
    params: the policy's parameters.
    encoder_input_tokens: padded with 0.
    words: from `draws.source_words`.
    seed, grow_step, first_candidate: the rest of the candidates' identities.
    config: the policy's shape.
    num_samples: candidates per source in this call.
    limit: the most tokens of a candidate, EOS included.
    num_tokens: size of the vocabulary, at most the embedding's.
    decoding: temperature, top-k, top-p.

  Returns:
    Samples, padded to `limit`.
  """
  model = t5.T5(config)
  apply = functools.partial(model.apply, {'params': params})
  batch = encoder_input_tokens.shape[0]
  encoder_mask = encoder_input_tokens != PAD_ID
  encoded = apply(encoder_input_tokens, method='encode')
  cross = apply(encoded, method='cross_keys_values')
  candidates = jnp.arange(num_samples, dtype=jnp.int32) + first_candidate
  candidates = jnp.broadcast_to(candidates, (batch, num_samples))
  keys = draws.candidate_keys(seed, grow_step, words, candidates)
  ids = jnp.arange(config.vocab_size)
  allowed = (ids != PAD_ID) & (ids < num_tokens)  # [vocab]
  empty = ~jnp.any(encoder_mask, axis=1)  # [batch]

  def step(loop: _Loop) -> _Loop:
    logits, cache = apply(
      loop.token, loop.position, loop.cache, cross, encoder_mask, method='decode_step'
    )
    log_z = jax.nn.logsumexp(logits, axis=-1)
    uniform = draws.uniforms(keys, loop.position)
    allowed_logits = jnp.where(allowed, logits, -jnp.inf)
    token = draws.draw(allowed_logits, uniform, decoding)
    log_prob = jnp.take_along_axis(logits, token[..., None], -1)[..., 0] - log_z
    token = jnp.where(loop.finished, PAD_ID, token)
    log_prob = jnp.where(loop.finished, 0.0, log_prob)
    return _Loop(
      position=loop.position + 1,
      token=token,
      finished=loop.finished | (token == EOS_ID),
      tokens=loop.tokens.at[:, :, loop.position].set(token),
      token_log_probs=loop.token_log_probs.at[:, :, loop.position].set(log_prob),
      cache=cache,
    )

  lengths = cache_lengths(limit)
  loop = _Loop(
    position=jnp.zeros((), jnp.int32),
    token=jnp.full((batch, num_samples), PAD_ID, jnp.int32),
    finished=jnp.broadcast_to(empty[:, None], (batch, num_samples)),
    tokens=jnp.zeros((batch, num_samples, limit), jnp.int32),
    token_log_probs=jnp.zeros((batch, num_samples, limit), jnp.float32),
    cache=model.init_cache(batch, num_samples, lengths[0]),
  )
  for length in lengths:
    loop = loop._replace(cache=t5.pad_cache(loop.cache, length))

    def goes_on(loop: _Loop, length: int = length) -> jax.Array:
      return (loop.position < length) & ~jnp.all(loop.finished)

    loop = jax.lax.while_loop(goes_on, step, loop)
  return Samples(loop.tokens, loop.token_log_probs, loop.finished & ~empty[:, None])


def cache_lengths(limit: int) -> list[int]:
  """Returns the cache lengths that a candidate may pass through: doubling."""
  if limit < 1:
    raise ValueError(f'the length limit {limit} must be at least 1 token')
  lengths = [min(FIRST_CACHE_LENGTH, limit)]
  while lengths[-1] < limit:
    lengths.append(min(2 * lengths[-1], limit))
  return lengths

"""Beam search: the most probable candidate of a source, for evaluation.

All beams of all sources of a batch stand at the same position. The cross-attention
keys and values of a source are computed once and attended by all its beams, as in
the decoder loop.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.data import buckets, group_store, vocabularies
from rest_jax.models import t5
from rest_jax.sampling import decoder, sampler, tickets
from rest_jax.training import mesh as mesh_lib


class Search(NamedTuple):
  """Hypotheses that go on and those that have ended, each from best to worst.

  The sums and scores of empty places are -inf.
  """

  step: jax.Array  # [] int32, tokens of each hypothesis that goes on
  encoder_mask: jax.Array  # [batch, source_length] bool
  cross: t5.CrossCache  # keys and values [batch, heads, source_length, head_dim]
  cache: t5.SelfCache  # of rows [batch, beams], in the layout of the config
  token: jax.Array  # [batch, beams] int32, the next input
  tokens: jax.Array  # [batch, beams, limit] int32
  log_probs: jax.Array  # [batch, beams, limit] float32 nats
  sums: jax.Array  # [batch, beams] float32 nats, of log_probs
  ended_tokens: jax.Array  # [batch, beams, limit] int32
  ended_log_probs: jax.Array  # [batch, beams, limit] float32 nats
  ended_scores: jax.Array  # [batch, beams] float32


class Found(NamedTuple):
  """The beams of each source, those that ended first, each part from best to worst.

  Where fewer hypotheses exist than beams, the rest are empty, with a score of -inf.
  """

  tokens: jax.Array  # [batch, beams, limit] int32, EOS included, 0 after the last
  log_probs: jax.Array  # [batch, beams, limit] float32 nats, 0 after the last
  num_tokens: jax.Array  # [batch, beams] int32
  scores: jax.Array  # [batch, beams] float32, see `beam_search`
  finished: jax.Array  # [batch, beams] bool, ended with EOS
  steps: jax.Array  # [] int32, decoder steps taken


def brevity_penalty(alpha: jax.Array, num_tokens: jax.Array | int) -> jax.Array:
  """((5 + num_tokens) / 6)^alpha, EOS counted.

  Source: T5X's `decoding.brevity_penalty`, after Wu et al. (arXiv:1609.08144,
  equation 14).
  """
  return ((5.0 + jnp.asarray(num_tokens, jnp.float32)) / 6.0) ** alpha


def beam_search(
  params: Any,
  encoder_input_tokens: Any,  # [batch, source_length] int32, 0 is padding
  *,
  config: t5.T5Config,
  num_tokens: int,
  beams: int,
  limit: int,
  alpha: float = 0.6,
  mesh: jax.sharding.Mesh | None = None,
) -> Found:
  """Searches for the candidates with the highest scores.

    score = sum of log_probs / ((5 + number of tokens) / 6)^alpha

  At each step the 2 * beams most probable extensions are looked at: those that end
  compete for `beams` places by their scores, the others for `beams` places by their
  sums. A source's search is over when the best sum, divided by the penalty of
  `limit` tokens, does not exceed the worst score; it bounds all scores to come.

  Source: T5X's `decoding.beam_search`. Departures:
  - one beam looks at one extension, and so is greedy decoding (in T5X the runner-up
    may end a candidate, and a longer one with a better score replaces it);
  - padding, and ids from `num_tokens` on, are never taken, as in sampling; the
    log-probabilities stay those of the uncut policy;
  - hypotheses without EOS at the limit fill the places that those with EOS leave,
    scored by the same formula (T5X returns them only where none has ended, and
    scores them by their sums);
  - the bound takes the penalty of the limit (T5X: of one token more), and a tie
    ends the search. Neither changes what is found.

  The loop is compiled once for each cache length that it reaches, see
  `decoder.cache_lengths`; between these the host is asked whether it goes on.

  Args:
    params: the policy's parameters.
    encoder_input_tokens: the sources. A row of padding has no candidate and costs
      no steps.
    config: the policy's shape.
    num_tokens: size of the vocabulary, at most the embedding's.
    beams: hypotheses kept for each source.
    limit: the most tokens of a candidate, EOS included.
    alpha: 0 compares log-probabilities; more favours longer candidates.
    mesh: spreads sources over its data and fsdp axes, heads over model; None leaves
      it to the compiler.

  Raises:
    ValueError: beams or limit is below 1, or alpha is negative or not finite.
  """
  _check(beams, alpha)
  lengths = decoder.cache_lengths(limit)
  power = np.float32(alpha)
  search = begin(
    params,
    encoder_input_tokens,
    config=config,
    beams=beams,
    length=lengths[0],
    limit=limit,
    mesh=mesh,
  )
  for length in lengths:
    if length > lengths[0]:
      search = search._replace(cache=extend(search.cache, length=length))
    search, goes_on = advance(
      params, search, power, config=config, num_tokens=num_tokens
    )
    if not goes_on:
      break
  return _finish(search, power)


def _check(beams: int, alpha: float) -> None:
  if beams < 1:
    raise ValueError(f'beams={beams} must be at least 1 (1 is greedy)')
  if not 0 <= alpha < math.inf:
    raise ValueError(
      f'alpha={alpha} must be finite and at least 0 (0 is no length normalisation)'
    )


@functools.partial(
  jax.jit, static_argnames=('config', 'beams', 'length', 'limit', 'mesh')
)
def begin(
  params: Any,
  encoder_input_tokens: jax.Array,  # [batch, source_length] int32
  *,
  config: t5.T5Config,
  beams: int,
  length: int,
  limit: int,
  mesh: jax.sharding.Mesh | None,
) -> Search:
  """Encodes the sources; each has one hypothesis, without tokens."""
  apply = functools.partial(t5.T5(config).apply, {'params': params})
  encoded = apply(encoder_input_tokens, method='encode')
  encoder_mask = encoder_input_tokens != decoder.PAD_ID
  batch = len(encoder_mask)

  def rows(shape: tuple[int, ...], dtype: Any, fill: float = 0) -> jax.Array:
    array = jnp.full((batch, beams, *shape), fill, dtype)
    if mesh is None:
      return array
    return jax.lax.with_sharding_constraint(array, mesh_lib.batch_sharding(mesh))

  # Beams that start equal would stay equal: only the first is taken.
  real = jnp.any(encoder_mask, axis=-1)[:, None]  # [batch, 1]
  start = real & (jnp.arange(beams) == 0)[None]  # [batch, beams]
  return Search(
    step=jnp.zeros((), jnp.int32),
    encoder_mask=encoder_mask,
    cross=apply(encoded, method='cross_keys_values'),
    cache=_spread(t5.T5(config).init_cache(batch, beams, length), mesh),
    token=rows((), jnp.int32, decoder.PAD_ID),
    tokens=rows((limit,), jnp.int32),
    log_probs=rows((limit,), jnp.float32),
    sums=jnp.where(start, 0.0, rows((), jnp.float32, -jnp.inf)),
    ended_tokens=rows((limit,), jnp.int32),
    ended_log_probs=rows((limit,), jnp.float32),
    ended_scores=rows((), jnp.float32, -jnp.inf),
  )


def _spread(cache: t5.SelfCache, mesh: jax.sharding.Mesh | None) -> t5.SelfCache:
  """Sources over data and fsdp, heads over model where it divides them."""
  if mesh is None:
    return cache

  def constrain(x: jax.Array, names: jax.sharding.PartitionSpec) -> jax.Array:
    sharding = decoder.past_sharding(mesh, x, names)
    return jax.lax.with_sharding_constraint(x, sharding)

  return jax.tree.map(constrain, cache, t5.cache_axes(cache))


extend = jax.jit(t5.pad_cache, static_argnames=('length',))


@functools.partial(
  jax.jit, static_argnames=('config', 'num_tokens'), donate_argnames=('search',)
)
def advance(
  params: Any,
  search: Search,
  alpha: jax.Array,  # [] float32
  *,
  config: t5.T5Config,
  num_tokens: int,
) -> tuple[Search, jax.Array]:
  """Searches until all is over or the cache is full; tells whether any goes on."""
  length = t5.cache_length(search.cache)

  def goes_on(search: Search) -> jax.Array:
    return (search.step < length) & jnp.any(_open(search, alpha))

  def step(search: Search) -> Search:
    logits, cache = t5.T5(config).apply(
      {'params': params},
      search.token,
      jnp.broadcast_to(search.step, search.token.shape),
      search.cache,
      search.cross,
      search.encoder_mask,
      method='decode_step',
    )
    ids = jnp.arange(config.vocab_size)[None, None]  # [1, 1, vocab]
    allowed = (ids != decoder.PAD_ID) & (ids < num_tokens)
    return _choose(search._replace(cache=cache), logits, allowed, alpha)

  search = jax.lax.while_loop(goes_on, step, search)
  return search, jnp.any(_open(search, alpha))


def _open(search: Search, alpha: jax.Array) -> jax.Array:  # [batch] bool
  """Which sources can still find a candidate that is better than their worst."""
  limit = search.tokens.shape[-1]
  bound = search.sums[:, 0] / brevity_penalty(alpha, limit)
  return bound > search.ended_scores[:, -1]


def _choose(
  search: Search,
  logits: jax.Array,  # [batch, beams, vocab] float32, after the hypotheses
  allowed: jax.Array,  # [1, 1, vocab] bool
  alpha: jax.Array,  # [] float32
) -> Search:
  """Extends the hypotheses by one token and keeps the best."""
  batch, beams, limit = search.tokens.shape
  extensions = 1 if beams == 1 else 2 * beams
  width = min(extensions, logits.shape[-1])

  # First inside each beam, by the logits, so that rounding of a long sum does not
  # make equal what is not. [batch, beams, width]
  best, token = jax.lax.top_k(jnp.where(allowed, logits, -jnp.inf), width)
  log_prob = best - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
  sums = search.sums[..., None] + log_prob
  # Then among all beams. [batch, beams, width] -> [batch, extensions]
  sums, place = jax.lax.top_k(sums.reshape(batch, -1), extensions)
  token = _take(token.reshape(batch, -1), place)
  log_prob = _take(log_prob.reshape(batch, -1), place)
  parent = place // width

  here = (jnp.arange(limit) == search.step)[None, None]  # [1, 1, limit]
  tokens = jnp.where(here, token[..., None], _take(search.tokens, parent))
  log_probs = jnp.where(here, log_prob[..., None], _take(search.log_probs, parent))

  ends = token == decoder.EOS_ID
  kept_sums, kept = jax.lax.top_k(jnp.where(ends, -jnp.inf, sums), beams)
  # A search that is over stays as it is while others of the batch go on.
  ends &= _open(search, alpha)[:, None]
  scores = sums / brevity_penalty(alpha, search.step + 1)
  scores = jnp.where(ends, scores, -jnp.inf)

  # [batch, beams] and [batch, extensions] -> [batch, beams + extensions]
  def join(old: jax.Array, new: jax.Array) -> jax.Array:
    return jnp.concatenate([old, new], axis=1)

  ended_scores, best = jax.lax.top_k(join(search.ended_scores, scores), beams)
  return search._replace(
    step=search.step + 1,
    cache=_reorder(search.cache, _take(parent, kept)),
    token=_take(token, kept),
    tokens=_take(tokens, kept),
    log_probs=_take(log_probs, kept),
    sums=kept_sums,
    ended_tokens=_take(join(search.ended_tokens, tokens), best),
    ended_log_probs=_take(join(search.ended_log_probs, log_probs), best),
    ended_scores=ended_scores,
  )


def _take(x: jax.Array, index: jax.Array) -> jax.Array:
  """Rows of [batch, rows, ...] by [batch, taken] -> [batch, taken, ...]."""
  return jax.vmap(lambda rows, index: rows[index])(x, index)


def _reorder(cache: t5.SelfCache, parent: jax.Array) -> t5.SelfCache:
  """Gives each beam [batch, beams] the past of the one that it extends."""

  def of_all(past: jax.Array, axis: int) -> jax.Array:
    # [..., batch, beams, ...]. Mapped over the sources, so that no row of a sharded
    # batch reaches into another's shard; the beams then stand at `axis`.
    of_source = functools.partial(jnp.take, axis=axis, mode='clip')
    return jax.vmap(of_source, in_axes=(axis, 0), out_axes=axis)(past, parent)

  return t5.map_batch(cache, of_all, len(parent))


@jax.jit
def _finish(search: Search, alpha: jax.Array) -> Found:
  """Puts those that ended before those at the limit, and cuts to `beams`."""
  beams, limit = search.tokens.shape[1:]
  at_limit = search.sums / brevity_penalty(alpha, limit)
  at_limit = jnp.where(search.step == limit, at_limit, -jnp.inf)
  scores = jnp.concatenate([search.ended_scores, at_limit], axis=1)
  empty = jnp.isneginf(scores)
  # Each half falls already, with its empty places last.
  order = jnp.argsort(empty, axis=1, stable=True)[:, :beams]
  some = ~_take(empty, order)
  tokens = jnp.concatenate([search.ended_tokens, search.tokens], axis=1)
  tokens = jnp.where(some[..., None], _take(tokens, order), decoder.PAD_ID)
  log_probs = jnp.concatenate([search.ended_log_probs, search.log_probs], axis=1)
  return Found(
    tokens=tokens,
    log_probs=jnp.where(some[..., None], _take(log_probs, order), 0.0),
    num_tokens=jnp.sum(tokens != decoder.PAD_ID, axis=-1, dtype=jnp.int32),
    scores=_take(scores, order),
    finished=some & (order < beams),
    steps=search.step,
  )


def sources_together(
  mesh: jax.sharding.Mesh, settings: sampler.SamplerSettings, beams: int
) -> int:
  """Sources searched together, so that beams are about as many as sampling's lanes."""
  shards = mesh_lib.batch_shards(mesh)
  return shards * max(1, settings.batch_size // (shards * beams))


class BeamSearch:
  """Finds the best candidate of each source under one policy.

  Args:
    params: the policy's parameters, on the mesh.
    config: the policy's shape.
    vocabulary: to detokenise.
    mesh: sources are spread over its data and fsdp axes.
    source_length: the most tokens of a source, EOS included.
    target_length: the most tokens of a candidate, EOS included.
    beams: hypotheses kept for each source; 1 is greedy.
    alpha: of the length normalisation, see `beam_search`.
    batch_size: sources searched together; a multiple of the mesh's data and fsdp
      axes. Changes no candidate, beyond rounding.

  Raises:
    ValueError: a value is out of its range.
  """

  def __init__(
    self,
    params: Any,
    config: t5.T5Config,
    vocabulary: vocabularies.Vocabulary,
    *,
    mesh: jax.sharding.Mesh,
    source_length: int,
    target_length: int,
    beams: int = 4,
    alpha: float = 0.6,
    batch_size: int = 32,
  ):
    _check(beams, alpha)
    shards = mesh_lib.batch_shards(mesh)
    if batch_size < 1 or batch_size % shards:
      raise ValueError(
        f"batch_size={batch_size} must be a positive multiple of the mesh's "
        f'data x fsdp = {shards}'
      )
    self._params = params
    self._config = config
    self._vocabulary = vocabulary
    self._mesh = mesh
    self._source_lengths = decoder.cache_lengths(source_length)
    self._target_length = target_length
    self._beams = beams
    self._alpha = alpha
    self._batch_size = batch_size

  def search(self, groups: Sequence[group_store.Group]) -> list[group_store.Group]:
    """Returns the groups in their order, each with its best candidate alone.

    The candidate has origin 'model'. It is unfinished only where no hypothesis
    ended within the limit.

    Raises:
      ValueError: a source is longer than `source_length`.
    """
    # Sources of similar length together, so that little is padding.
    order = sorted(range(len(groups)), key=lambda row: len(groups[row].source_tokens))
    results: dict[int, group_store.Group] = {}
    for start in range(0, len(order), self._batch_size):
      rows = order[start : start + self._batch_size]
      some = [groups[row] for row in rows]
      results.update(zip(rows, self._search_batch(some), strict=True))
    return [results[row] for row in range(len(groups))]

  def _search_batch(
    self, groups: Sequence[group_store.Group]
  ) -> list[group_store.Group]:
    longest = max(len(group.source_tokens) for group in groups)
    length = buckets.bucket(longest, self._source_lengths)
    sources = np.zeros((self._batch_size, length), np.int32)
    for row, group in enumerate(groups):
      sources[row, : len(group.source_tokens)] = group.source_tokens
    batch = mesh_lib.put_batch(self._mesh, {'encoder_input_tokens': sources})
    found = beam_search(
      self._params,
      batch['encoder_input_tokens'],
      config=self._config,
      num_tokens=self._vocabulary.size,
      beams=self._beams,
      limit=self._target_length,
      alpha=self._alpha,
      mesh=self._mesh,
    )
    found = mesh_lib.fetch(found)
    best = []
    for row in range(len(groups)):
      size = found.num_tokens[row, 0]
      tokens, log_probs = found.tokens[row, 0, :size], found.log_probs[row, 0, :size]
      best.append([tickets.Drawn(tokens, log_probs)])
    return list(sampler.with_candidates(groups, best, self._vocabulary))

"""The decoder loop: candidates of many sources, each prefix computed once.

A *lane* holds one source: it is encoded once, and its cross-attention keys and
values are projected once. A lane has one *slot* or more: rows of the decoder, each
with a self-attention cache. A slot owns a share of its source's candidates and walks
the tree of their prefixes (`prefix_walk`).

Lanes whose candidates have all ended are free for the next sources (`exchange`).
Every array keeps its shape meanwhile, so a program is compiled once for a
(source length, cache length) and serves the whole corpus.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from rest_jax.data import vocabularies
from rest_jax.models import t5
from rest_jax.sampling import draws, prefix_walk, vocab_first
from rest_jax.training import mesh as mesh_lib

Array: TypeAlias = Any  # jax.Array on the devices, np.ndarray on the host

PAD_ID = vocabularies.PAD_ID  # also the decoder's start token
EOS_ID = vocabularies.EOS_ID

_EXCHANGE: Any = {'static_argnames': ('config', 'shards'), 'donate_argnames': 'lanes'}
_ADVANCE: Any = {
  'static_argnames': ('config', 'num_tokens', 'decoding', 'mesh'),
  'donate_argnames': 'lanes',
}


class Lanes(NamedTuple):
  """The sources in flight and how far their candidates are.

  `length` is the cache's and may grow; `limit` is the most tokens of a candidate.
  """

  encoder_mask: jax.Array  # [batch, source_length] bool
  cross: t5.CrossCache  # keys and values [batch, heads, source_length, head_dim]
  cache: t5.SelfCache  # of rows [batch, slots], in the layout of the config
  token: jax.Array  # [batch, slots] int32, the next input
  position: jax.Array  # [batch, slots] int32, where it is written
  candidates: prefix_walk.Candidates


class Incoming(NamedTuple):
  """Sources for free lanes, with the share of each of the lane's slots.

  `place` counts within a shard of the lanes; the number of lanes of a shard, or
  more, means that a row is unused.
  """

  place: Array  # [incoming] int32, the lane to take
  encoder_input_tokens: Array  # [incoming, at most source_length] int32
  words: Array  # [incoming, 2] uint32, from `draws.source_words`
  indices: Array  # [incoming, slots, share] int32, candidate indices, -1 is none
  tokens: Array  # [incoming, slots, share, length] int32, known already
  log_probs: Array  # [incoming, slots, share, length] float32
  num_known: Array  # [incoming, slots, share] int32


class Ended(NamedTuple):
  """What lanes held that are taken for other sources."""

  tokens: Array  # [incoming, slots, share, length] int32, 0 after the last
  log_probs: Array  # [incoming, slots, share, length] float32 nats, untempered
  num_tokens: Array  # [incoming, slots, share] int32


def empty_lanes(
  config: t5.T5Config,
  mesh: jax.sharding.Mesh,
  *,
  batch: int,
  slots: int,
  share: int,
  source_length: int,
  length: int,
  limit: int,
) -> Lanes:
  """Lanes that are all free, spread over the mesh.

  Args:
    config: the policy's shape.
    mesh: lanes lie along its data and fsdp axes, heads along model.
    batch: lanes.
    slots: of a lane.
    share: candidates of a slot.
    source_length: the most tokens of a source for now, see `extend`.
    length: of the cache for now.
    limit: the most tokens of a candidate.
  """
  sizes = (batch, slots, share, source_length, length, limit)
  return _lanes_maker(config, mesh, sizes)()


@functools.lru_cache
def _lanes_maker(
  config: t5.T5Config, mesh: jax.sharding.Mesh, sizes: tuple[int, ...]
) -> Callable[[], Lanes]:
  """Makes empty lanes in their shards; one program for a shape, not one a call."""
  make = functools.partial(_make_lanes, config, sizes)
  shardings = lanes_shardings(jax.eval_shape(make), mesh)
  made: Callable[[], Lanes] = jax.jit(make, out_shardings=shardings)
  return made


def _make_lanes(config: t5.T5Config, sizes: tuple[int, ...]) -> Lanes:
  batch, slots, share, source_length, length, limit = sizes  # as `empty_lanes` has them
  places = (batch, slots, share)
  model = t5.T5(config)

  def cross() -> t5.CrossCache:
    encoded = jnp.zeros((batch, source_length, config.emb_dim), config.dtype)
    return model.init_with_output(
      jax.random.key(0), encoded, method='cross_keys_values'
    )[0]

  def past(x: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.zeros(x.shape, x.dtype)

  return Lanes(
    encoder_mask=jnp.zeros((batch, source_length), bool),
    cross=jax.tree.map(past, jax.eval_shape(cross)),
    cache=model.init_cache(batch, slots, length),
    token=jnp.zeros((batch, slots), jnp.int32),
    position=jnp.zeros((batch, slots), jnp.int32),
    candidates=prefix_walk.Candidates(
      uniforms=jnp.zeros((*places, limit), jnp.float32),
      tokens=jnp.zeros((*places, length), jnp.int32),
      log_probs=jnp.zeros((*places, length), jnp.float32),
      num_tokens=jnp.zeros(places, jnp.int32),
      num_known=jnp.zeros(places, jnp.int32),
      walking=jnp.zeros(places, bool),
      done=jnp.ones(places, bool),
    ),
  )


def lanes_shardings(lanes: Lanes, mesh: jax.sharding.Mesh) -> Any:
  """Where lanes lie: over data and fsdp, their heads over model.

  Args:
    lanes: arrays, or shapes.
    mesh: that they lie on.

  Returns:
    Lanes with a NamedSharding in place of each array.
  """
  rows = mesh_lib.batch_sharding(mesh)
  spread = jax.tree.map(lambda x: rows, lanes)
  return spread._replace(
    cross=jax.tree.map(functools.partial(cross_sharding, mesh), lanes.cross),
    cache=jax.tree.map(
      functools.partial(past_sharding, mesh), lanes.cache, t5.cache_axes(lanes.cache)
    ),
  )


def cross_sharding(
  mesh: jax.sharding.Mesh, x: jax.Array | jax.ShapeDtypeStruct
) -> jax.sharding.NamedSharding:
  """Of the sources' keys and values, of one layer or stacked."""
  names = ('batch', 'heads', 'source_length', 'kv')
  return past_sharding(mesh, x, ('layers',) * (x.ndim - len(names)) + names)


def past_sharding(
  mesh: jax.sharding.Mesh,
  x: jax.Array | jax.ShapeDtypeStruct,
  names: Iterable[Any],
) -> jax.sharding.NamedSharding:
  """Of keys, values and the like: batch over data and fsdp, heads over model."""

  def mesh_axes(name: str | None, size: int) -> Any:
    if name == 'batch':
      return mesh_lib.BATCH_AXES
    return 'model' if name == 'heads' and size % mesh.shape['model'] == 0 else None

  spec = map(mesh_axes, names, x.shape)
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))


@functools.partial(jax.jit, **_EXCHANGE)
def exchange(
  params: Any,
  lanes: Lanes,
  incoming: Incoming,
  seed: jax.Array,  # [] int32
  grow_step: jax.Array,  # [] int32
  *,
  config: t5.T5Config,
  shards: int,
) -> tuple[Lanes, Ended]:
  """Encodes sources into lanes and returns what the lanes held before.

  Args:
    params: the policy's parameters.
    lanes: given up: the caller goes on with those that are returned.
    incoming: as many rows for each shard.
    seed, grow_step: the run's part of the candidates' identities.
    config: the policy's shape.
    shards: parts that the lanes are cut into over the mesh.

  Returns:
    The lanes, and what the places held that were taken.
  """
  apply = functools.partial(t5.T5(config).apply, {'params': params})
  encoded = apply(incoming.encoder_input_tokens, method='encode')
  keys = draws.candidate_keys(
    seed, grow_step, incoming.words, incoming.indices.reshape(len(incoming.words), -1)
  )
  limit = lanes.candidates.uniforms.shape[-1]
  uniforms = draws.uniforms(keys.reshape(incoming.indices.shape), limit)
  real = incoming.indices >= 0
  fresh = prefix_walk.Candidates(
    uniforms=uniforms,
    tokens=incoming.tokens,
    log_probs=incoming.log_probs,
    num_tokens=jnp.zeros_like(incoming.indices),
    num_known=incoming.num_known,
    walking=real,  # all start at the root, which is a prefix of every candidate
    done=~real,
  )

  def take(old: jax.Array) -> jax.Array:
    return _by_shard(lambda rows, place: rows[place], shards)(old, incoming.place)

  def put(old: jax.Array, new: jax.Array, axis: int = 0) -> jax.Array:
    def set_rows(rows: jax.Array, place: jax.Array, values: jax.Array) -> jax.Array:
      return rows.at[place].set(values, mode='drop')

    moved = _by_shard(set_rows, shards)(
      jnp.moveaxis(old, axis, 0), incoming.place, jnp.moveaxis(new, axis, 0)
    )
    return jnp.moveaxis(moved, 0, axis)

  old = lanes.candidates
  ended = Ended(take(old.tokens), take(old.log_probs), take(old.num_tokens))
  cross = apply(encoded, method='cross_keys_values')
  mask = incoming.encoder_input_tokens != PAD_ID
  extra = lanes.encoder_mask.shape[-1] - mask.shape[-1]
  zero = jnp.zeros(incoming.indices.shape[:2], jnp.int32)
  lanes = Lanes(
    encoder_mask=put(lanes.encoder_mask, _pad(mask, -1, extra)),
    cross=jax.tree.map(
      lambda old, new: put(old, _pad(new, -2, extra), axis=int(config.scan_layers)),
      lanes.cross,
      cross,
    ),
    cache=lanes.cache,  # each position is written before it is read
    token=put(lanes.token, zero),
    position=put(lanes.position, zero),
    candidates=jax.tree.map(put, lanes.candidates, fresh),
  )
  return lanes, ended


@functools.partial(jax.jit, **_ADVANCE)
def advance(
  params: Any,
  lanes: Lanes,
  enough: jax.Array,  # [] int32
  *,
  config: t5.T5Config,
  num_tokens: int,
  decoding: draws.Decoding,
  mesh: jax.sharding.Mesh | None = None,
) -> tuple[Lanes, jax.Array, jax.Array]:
  """Decodes until `enough` lanes are free.

  The log-probability of each token is recorded under the untempered, uncut
  policy. Padding is never drawn, nor ids from `num_tokens` on, which pad the
  embedding to a convenient size; EOS ends a candidate and is part of it. A
  candidate is done, too, when it has filled the cache.

  Args:
    params: the policy's parameters.
    lanes: given up: the caller goes on with those that are returned.
    enough: free lanes at which to stop; the number of lanes decodes all to the end.
    config: the policy's shape.
    num_tokens: size of the vocabulary, at most the embedding's.
    decoding: temperature, top-k, top-p, min_tokens.
    mesh: that the lanes lie on. Where it has a model axis, lanes are spread over that
      as well for the logits and the draw, whose parameters are copied for it: a draw
      from logits whose vocabulary is spread moves them all (docs/sampling.md).

  Returns:
    The lanes; which are free, [batch] bool; and the steps taken, [] int32.
  """

  def constrain(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    if mesh is None or mesh.shape['model'] == 1 or len(x) % mesh.size:
      return x
    spec = jax.sharding.PartitionSpec(axes)
    return jax.lax.with_sharding_constraint(x, jax.sharding.NamedSharding(mesh, spec))

  def everywhere(x: jax.Array) -> jax.Array:
    return constrain(x, mesh_lib.AXES)

  def home(x: jax.Array) -> jax.Array:
    return constrain(x, mesh_lib.BATCH_AXES)

  params = _vocabulary_copied(params, mesh)
  by_layout = {'rows_first': draws, 'rows_last': vocab_first}
  draw_fn = by_layout[config.cache_layout].draw_with_log_probs

  def goes_on(state: tuple[Lanes, jax.Array]) -> jax.Array:
    return jnp.sum(_free(state[0])) < enough

  def step(state: tuple[Lanes, jax.Array]) -> tuple[Lanes, jax.Array]:
    lanes, steps = state
    logits, cache = t5.T5(config).apply(
      {'params': params},
      lanes.token,
      lanes.position,
      lanes.cache,
      lanes.cross,
      lanes.encoder_mask,
      spread_fn=everywhere,
      method='decode_step',
    )
    ids = jnp.arange(config.vocab_size)[None, None]  # [1, 1, vocab]
    allowed = (ids != PAD_ID) & (ids < num_tokens)
    if decoding.min_tokens:
      early = lanes.position[..., None] < decoding.min_tokens  # [batch, slots, 1]
      allowed &= (ids != EOS_ID) | ~early
    candidates = prefix_walk.draw(
      lanes.candidates,
      lambda u: jax.tree.map(home, draw_fn(logits, allowed, u, decoding)),
    )
    candidates, token, position = prefix_walk.choose_node(candidates)
    lanes = lanes._replace(
      cache=cache, token=token, position=position, candidates=candidates
    )
    return lanes, steps + 1

  lanes, steps = jax.lax.while_loop(goes_on, step, (lanes, jnp.zeros((), jnp.int32)))
  return lanes, _free(lanes), steps


class Programs(NamedTuple):
  """The loop's two programs, compiled alike."""

  exchange: Any  # as `exchange`
  advance: Any  # as `advance`


def programs(options: tuple[tuple[str, str], ...] = ()) -> Programs:
  """`exchange` and `advance`, compiled with these of XLA's options."""
  return _with_options(options) if options else Programs(exchange, advance)


@functools.cache
def _with_options(options: tuple[tuple[str, str], ...]) -> Programs:
  def compiled(program: Any, kept: dict[str, Any]) -> Any:
    return jax.jit(program.__wrapped__, **kept, compiler_options=dict(options))

  return Programs(compiled(exchange, _EXCHANGE), compiled(advance, _ADVANCE))


def _vocabulary_copied(params: Any, mesh: jax.sharding.Mesh | None) -> Any:
  """Copies what is as wide as the vocabulary to all devices of the model axis."""
  if mesh is None or mesh.shape['model'] == 1:
    return params
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

  def one(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    names = {getattr(key, 'key', None) for key in path}
    if not names & {'token_embedder', 'logits_dense'}:
      return leaf
    return jax.lax.with_sharding_constraint(leaf, everywhere)

  return jax.tree_util.tree_map_with_path(one, params)


def _free(lanes: Lanes) -> jax.Array:  # [batch] bool
  return jnp.all(lanes.candidates.done, axis=(1, 2))


def _by_shard(function: Any, shards: int) -> Any:
  """Maps a function of rows over the shards of the leading axes."""

  def mapped(*arrays: jax.Array) -> jax.Array:
    cut = [x.reshape(shards, -1, *x.shape[1:]) for x in arrays]
    result = jax.vmap(function)(*cut)
    return result.reshape(-1, *result.shape[2:])

  return mapped


@functools.partial(jax.jit, static_argnames=('source_length', 'length'))
def extend(lanes: Lanes, *, source_length: int, length: int) -> Lanes:
  """Pads lanes to longer sources and a longer cache."""
  extra_source = source_length - lanes.encoder_mask.shape[-1]
  candidates = lanes.candidates
  extra = length - candidates.tokens.shape[-1]
  return lanes._replace(
    encoder_mask=_pad(lanes.encoder_mask, -1, extra_source),
    cross=jax.tree.map(lambda x: _pad(x, -2, extra_source), lanes.cross),
    cache=t5.pad_cache(lanes.cache, length),
    candidates=candidates._replace(
      tokens=_pad(candidates.tokens, -1, extra),
      log_probs=_pad(candidates.log_probs, -1, extra),
    ),
  )


def _pad(x: jax.Array, axis: int, extra: int) -> jax.Array:
  """Appends zeros to one axis."""
  widths = [(0, 0)] * x.ndim
  widths[axis] = (0, extra)
  return jnp.pad(x, widths)


@functools.partial(jax.jit, static_argnames=('config', 'shards'))
def narrow(
  lanes: Lanes,
  keep: jax.Array,  # [kept] int32, counted within a shard of the lanes
  *,
  config: t5.T5Config,
  shards: int,
) -> Lanes:
  """Keeps some lanes of each shard and gives up the others."""
  axis = int(config.scan_layers)

  def pick(x: jax.Array, axis: int = 0) -> jax.Array:
    rows = _by_shard(lambda rows, place: rows[place], shards)
    return jnp.moveaxis(rows(jnp.moveaxis(x, axis, 0), keep), 0, axis)

  return Lanes(
    encoder_mask=pick(lanes.encoder_mask),
    cross=jax.tree.map(functools.partial(pick, axis=axis), lanes.cross),
    cache=t5.map_batch(lanes.cache, pick, len(lanes.encoder_mask)),
    token=pick(lanes.token),
    position=pick(lanes.position),
    candidates=jax.tree.map(pick, lanes.candidates),
  )


def cache_lengths(limit: int, first: int = 16) -> tuple[int, ...]:
  """Returns the cache lengths that are compiled for: 16, 24, 32, 48, ... limit.

  Raises:
    ValueError: the limit is below 1.
  """
  if limit < 1:
    raise ValueError(f'the length limit {limit} must be at least 1 token')
  lengths = []
  length = first
  while length < limit:
    lengths += [length, length * 3 // 2]
    length *= 2
  return (*(n for n in lengths if n < limit), limit)

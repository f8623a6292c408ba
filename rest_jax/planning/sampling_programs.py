"""What sampling compiles: the decoder loop, and beam search."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from rest_jax.models import rows_last, t5
from rest_jax.planning import programs as programs_lib
from rest_jax.planning import samplings, shapes
from rest_jax.sampling import beam, draws, flow
from rest_jax.sampling import decoder as decoder_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.training import mesh as mesh_lib


def sample(context: programs_lib.Context, held_bytes: int = 0) -> programs_lib.Made:
  """All that a stage samples."""
  settings: sampler_lib.SamplerSettings = context.said['sampler']
  shards = mesh_lib.batch_shards(context.mesh)
  if settings.batch_size % shards:
    raise ValueError(
      f'the sampler decodes {settings.batch_size} sources together, which cannot be '
      f'spread over data x fsdp = {shards} devices: set SamplerSettings.batch_size to '
      f'a multiple of {shards}'
    )
  quantisation = context.said.get('quantisation')
  params = shapes.quantised(context.params(t5.T5), quantisation)
  for sampling in samplings.of_stage(context.entry, context.entries):
    yield from _sampler(context, settings, sampling, params, held_bytes)


def _sampler(
  context: programs_lib.Context,
  settings: sampler_lib.SamplerSettings,
  sampling: samplings.Sampling,
  params: Any,
  held_bytes: int,
) -> programs_lib.Made:
  """What one sampler runs: sources into free lanes, a longer cache, decoder steps."""
  config, mesh = context.undropped, context.mesh
  source_length, length = context.lengths
  shards = mesh_lib.batch_shards(mesh)
  share = sampling.share(settings)
  drawn = None
  if sampling.num_sources is not None:
    drawn = sampling.num_sources * sampling.num_samples * sampling.times
  lanes_of = functools.partial(
    shapes.lanes,
    config,
    mesh,
    settings=settings,
    share=share,
    source_length=source_length,
  )
  lanes = lanes_of(length=length)
  quantisation = context.said.get('quantisation')
  identity = (config, mesh, settings, source_length, length, quantisation)
  names = tuple(_kinds(sampling.decoding))
  precision = programs_lib.precision(quantisation)
  marks = ''.join(f' {name}' for name in (*precision, *names))
  rows = shards * flow.lanes_of_turn(settings.batch_size // shards, share)
  scalar = shapes.placed(jax.ShapeDtypeStruct((), jnp.int32), mesh_lib.replicated(mesh))
  program = functools.partial(programs_lib.Program, mesh=mesh, held_bytes=held_bytes)
  encode = program(
    f'sampler encode {programs_lib.sized(rows, source_length)}'
    + ''.join(f' {name}' for name in precision),
    trace=functools.partial(
      decoder_lib.exchange.trace,
      params,
      lanes,
      _incoming(mesh, rows, settings.slots, share, source_length, length),
      scalar,
      scalar,
      config=config,
      shards=shards,
    ),
    tokens=rows * source_length,
    identity=('exchange', *identity),
    size=share,
  )
  yield encode, drawn and drawn / (rows * settings.slots * share)
  cache_lengths = decoder_lib.cache_lengths(length)
  if len(cache_lengths) > 1:
    sizes = (settings.batch_size, settings.slots, length)
    extend = program(
      f'sampler extend {programs_lib.sized(*sizes)}',
      trace=functools.partial(
        decoder_lib.extend.trace,
        lanes_of(length=cache_lengths[-2], limit=length),
        source_length=source_length,
        length=length,
      ),
      tokens=0,
      # The parameters are no argument of it.
      held_bytes=held_bytes + shapes.device_bytes(params),
      identity=('extend', *identity[:-1]),
      size=share,
    )
    yield extend, (len(cache_lengths) - 1) * sampling.times
  decoder_rows = settings.batch_size * settings.slots
  shape = (settings.batch_size, settings.slots, source_length, length)
  step = program(
    f'sampler step {programs_lib.sized(*shape)}{marks}',
    trace=functools.partial(
      decoder_lib.advance.trace,
      params,
      lanes,
      scalar,
      config=config,
      num_tokens=config.vocab_size,
      decoding=sampling.decoding,
      mesh=mesh,
    ),
    tokens=decoder_rows,
    one_turn=True,
    # The cache of that layout is put in order once in so many steps at most.
    branch_share=1 / rows_last.SPARE if config.cache_layout == 'rows_last' else 1.0,
    identity=('advance', *identity, names),
    size=share,
  )
  yield step, drawn and drawn * length / decoder_rows


def _incoming(
  mesh: jax.sharding.Mesh,
  rows: int,
  slots: int,
  share: int,
  source_length: int,
  length: int,
) -> decoder_lib.Incoming:
  """Sources for free lanes."""
  spread = mesh_lib.batch_sharding(mesh)

  def batch(shape: tuple[int, ...], dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=spread)

  places = (rows, slots, share)
  return decoder_lib.Incoming(
    place=batch((rows,)),
    encoder_input_tokens=batch((rows, source_length)),
    words=batch((rows, 2), jnp.uint32),
    indices=batch(places),
    tokens=batch((*places, length)),
    log_probs=batch((*places, length), jnp.float32),
    num_known=batch(places),
  )


def _kinds(decoding: draws.Decoding) -> Iterator[str]:
  """What in a decoding makes another program of it, apart from its numbers."""
  if decoding.temperature == 0:
    yield 'greedy'
  else:
    if decoding.top_k:
      yield 'top-k'
    if decoding.top_p < 1:
      yield 'top-p'
  if decoding.min_tokens:
    yield 'min-tokens'


def search(context: programs_lib.Context, held_bytes: int) -> programs_lib.Made:
  """What beam search runs, where a stage searches."""
  beams = context.said.get('beams', 0)
  if not beams:
    return
  config, mesh = context.undropped, context.mesh
  source_length, length = context.lengths
  batch = beam.sources_together(mesh, context.said['sampler'], beams)
  params = context.params(t5.T5)
  spread = mesh_lib.batch_sharding(mesh)
  sources = jax.ShapeDtypeStruct((batch, source_length), jnp.int32, sharding=spread)
  begin = functools.partial(
    beam.begin.trace,
    params,
    sources,
    config=config,
    beams=beams,
    limit=length,
    mesh=mesh,
  )
  cache_lengths = decoder_lib.cache_lengths(length)
  num_sources = samplings.num_sources(context.entry, context.entries)
  batches = None if num_sources is None else -(-num_sources // batch)
  identity = (config, mesh, batch, beams, source_length, length)
  program = functools.partial(programs_lib.Program, mesh=mesh, held_bytes=held_bytes)
  encode = program(
    f'beam encode {programs_lib.sized(batch, source_length)}',
    trace=functools.partial(begin, length=cache_lengths[0]),
    tokens=batch * source_length,
    identity=('beam encode', *identity),
  )
  yield encode, batches
  found = _search_shapes(begin(length=length).out_info, mesh)
  if len(cache_lengths) > 1:
    extend = program(
      f'beam extend {programs_lib.sized(batch, beams, length)}',
      trace=lambda: beam.extend.trace(
        _search_shapes(begin(length=cache_lengths[-2]).out_info, mesh).cache,
        length=length,
      ),
      tokens=0,
      # Of what lies there the cache alone is an argument.
      held_bytes=held_bytes
      + shapes.device_bytes(params)
      + shapes.device_bytes(found)
      - shapes.device_bytes(found.cache),
      identity=('beam extend', *identity),
    )
    yield extend, batches and batches * (len(cache_lengths) - 1)
  step = program(
    f'beam step {programs_lib.sized(batch, beams, source_length, length)}',
    trace=functools.partial(
      beam.advance.trace,
      params,
      found,
      jax.ShapeDtypeStruct((), jnp.float32, sharding=mesh_lib.replicated(mesh)),
      config=config,
      num_tokens=config.vocab_size,
    ),
    tokens=batch * beams,
    one_turn=True,
    branch_share=1 / rows_last.SPARE if config.cache_layout == 'rows_last' else 1.0,
    identity=('beam step', *identity),
  )
  yield step, batches and batches * length


def _search_shapes(found: Any, mesh: jax.sharding.Mesh) -> beam.Search:
  """A search as `beam.begin` leaves it on a mesh."""
  spread = mesh_lib.batch_sharding(mesh)
  placed: beam.Search = jax.tree.map(
    lambda x: shapes.placed(x, spread if x.ndim else mesh_lib.replicated(mesh)), found
  )
  return placed._replace(
    cross=shapes.cross(found.cross, mesh),
    cache=shapes.cache(found.cache, mesh),
  )

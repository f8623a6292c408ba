"""Which programs a run compiles, from its plan alone: shapes in, traces out.

A program of a stage is the one of its longest lengths (training: one for each
bucket). Stages that work `apart` run on the mesh of one host, see `docs/hosts.md`.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rest_jax.data import batches, buckets
from rest_jax.models import heads, reward, rows_last, t5
from rest_jax.planning import arithmetic, memory, tpu
from rest_jax.rewards import learned
from rest_jax.sampling import decoder as decoder_lib
from rest_jax.sampling import draws, flow
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, policies
from rest_jax.training import mesh as mesh_lib
from rest_jax.training import step as step_lib

# What says how many candidates a row of a training batch has; else it has one.
_SAMPLES = {
  'train_reward': 'max_samples',
  'train_value': 'max_samples',
  'improve': 'samples_per_row',
}


@dataclasses.dataclass(frozen=True)
class Program:
  """One program, ready to be compiled.

  Attributes:
    name: such as 'improve step [128, 4, 128]'.
    mesh: of the devices that it runs on.
    trace: makes what `jax.jit(...).trace(...)` returns.
    tokens: target positions that one execution handles, on the whole mesh, padding
      included; for a program that loops until it is done, in one turn of its loop.
    held_bytes: of arrays that lie on each device meanwhile and are no argument.
    one_turn: whether the figures are of one turn of its loop of unknown length.
    branch_share: how often a choice inside it is taken, see `compiled_text.read`.
    identity: equal for programs so alike that the largest stands for all.
    size: by which of them is the largest.
  """

  name: str
  mesh: jax.sharding.Mesh
  trace: Callable[[], Any] = dataclasses.field(compare=False)
  tokens: int
  held_bytes: int = 0
  one_turn: bool = False
  branch_share: float = 1.0
  identity: Hashable = None
  size: int = 0


@dataclasses.dataclass(frozen=True)
class Use:
  """That a stage executes a program.

  Attributes:
    artifact: of the stage, such as 'improve_1_2'.
    program: its identity.
    executions: at most; None where no stage says how many.
    at_once: meshes of the program's that work side by side (hosts in Grow).
  """

  artifact: str
  program: Hashable
  executions: float | None
  at_once: int = 1


@dataclasses.dataclass
class Programs:
  """What `of_run` found.

  Attributes:
    programs: by identity, in the order of the run.
    uses: who executes them.
    problems: (artifact, what is wrong): programs that the mesh does not allow.
  """

  programs: dict[Hashable, Program] = dataclasses.field(default_factory=dict)
  uses: list[Use] = dataclasses.field(default_factory=list)
  problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def of_run(run: artifact.Run, *, batch_scale: float = 1.0) -> Programs:
  """The programs of a run.

  Args:
    run: after its algorithm has gone through it, as a dry run.
    batch_scale: multiplies the batch sizes of training.
  """
  found = Programs()
  entries = {entry.artifact.name: entry for entry in run.history}
  for name, entry in entries.items():
    config = memory.model_config(entry, entries)
    maker = _MAKERS.get(entry.artifact.stage)
    if config is None or maker is None:
      continue
    context = _Context(run, run.mesh, entry, entries, config, batch_scale)
    try:
      for program, executions, at_once in maker(context):
        known = found.programs.get(program.identity, program)
        larger = max(known, program, key=lambda one: one.size)
        held = max(known.held_bytes, program.held_bytes)
        found.programs[program.identity] = dataclasses.replace(larger, held_bytes=held)
        found.uses.append(Use(name, program.identity, executions, at_once))
    except ValueError as error:
      found.problems.append((name, str(error)))
  return found


@dataclasses.dataclass(frozen=True)
class _Context:
  """One line of the plan with all that its programs depend on."""

  run: artifact.Run
  mesh: jax.sharding.Mesh
  entry: artifact.HistoryEntry
  entries: Mapping[str, artifact.HistoryEntry]
  config: t5.T5Config
  batch_scale: float

  @property
  def said(self) -> Mapping[str, Any]:
    """The stage's parameters and how its work is cut."""
    return {**self.entry.params, **self.entry.cut}

  @property
  def lengths(self) -> tuple[int, int]:
    """The longest source and target."""
    return buckets.feature_lengths(self.said['task_feature_lengths'])

  @property
  def rules(self) -> mesh_lib.Rules:
    """Logical to mesh axes."""
    return self.run.rules

  def params(self, module: Any, mesh: jax.sharding.Mesh) -> Any:
    """Shapes and shardings of a module's parameters."""
    return _placed_params(module, self.config, mesh, self.rules)


@functools.lru_cache
def _placed_params(
  module: Any, config: t5.T5Config, mesh: jax.sharding.Mesh, rules: mesh_lib.Rules
) -> Any:
  boxed = policies.abstract_params(module, config)
  return jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    nn.meta.unbox(boxed),
    mesh_lib.param_shardings(mesh, boxed, rules),
  )


Made = Iterator[tuple[Program, float | None, int]]


def _train(context: _Context, module: Any) -> Made:
  """The train step of each bucket."""
  said, mesh = context.said, context.mesh
  stage = context.entry.artifact.stage
  objective, needs = said['objective'], getattr(said['objective'], 'needs', ())
  frozen = {need: context.params(arithmetic.FROZEN[need], mesh) for need in needs}
  start = getattr(objective, 'start', lambda params: params)
  init = policies.init_fn(module, context.config)
  transformation = said['optimiser']()
  microbatches = said.get('num_microbatches', 1)
  loss_fn = objective.loss_fn(
    context.config, *([dict.fromkeys(needs, context.config)] if needs else [])
  )
  train_step = step_lib.make_train_step(
    loss_fn,
    transformation,
    mesh=mesh,
    rules=context.rules,
    num_microbatches=microbatches,
  )
  state = step_lib.abstract_state(
    lambda rng: start(init(rng)), transformation, mesh, context.rules
  )
  rng = _key(mesh)
  batch = round(said['batch_size'] * context.batch_scale)
  samples = said[_SAMPLES[stage]] if stage in _SAMPLES else 1
  held = _held_in_training(context, state.params)
  shapes = buckets.training_buckets(
    said['task_feature_lengths'], said.get('bucket_shares', (1.0,))
  )
  steps = said['num_steps']
  for shape in shapes:
    features = abstract_batch(
      stage, objective, (batch, samples, *shape), mesh, microbatches
    )
    identity = (
      (stage, context.config, objective, said['optimiser'], microbatches, mesh),
      (batch, samples, *shape),
    )
    program = Program(
      f'{stage} step {_shape(batch, samples, *shape)}',
      mesh,
      functools.partial(train_step.traced, state, features, rng, frozen),
      tokens=batch * samples * shape[1],
      held_bytes=held,
      identity=identity,
    )
    # Which bucket a step has the data decide: all of the longest is the most.
    yield program, float(steps) if shape == shapes[-1] else 0.0, 1


def _held_in_training(context: _Context, params: Any) -> int:
  """What lies on a device beside the train step's arguments."""
  held = memory.device_bytes(params)  # the best so far
  if context.entry.artifact.stage == 'improve':
    held += memory.device_bytes(context.params(t5.T5, context.mesh))  # the start
    if 'reward_model' in context.entry.inputs:
      held += memory.device_bytes(context.params(reward.RewardT5, context.mesh))
  return held


def abstract_batch(
  stage: str,
  objective: Any,
  shape: tuple[int, int, int, int],
  mesh: jax.sharding.Mesh,
  microbatches: int = 1,
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and shardings of a training batch, what the objective adds included.

  Args:
    stage: which trains on it.
    objective: of `training`.
    shape: batch, samples, source_length, target_length.
    mesh: where the batch would go.
    microbatches: parts of it.

  Raises:
    ValueError: the mesh does not divide the batch.
  """
  batch, samples, source_length, target_length = shape
  parts = mesh_lib.batch_shards(mesh) * microbatches
  if batch % parts:
    cut = f' in {microbatches} microbatches' if microbatches > 1 else ''
    raise ValueError(
      f'a batch of {batch} sources{cut} cannot be spread over data x fsdp = '
      f'{mesh_lib.batch_shards(mesh)} devices: make it a multiple of {parts}, or give '
      'more devices to the model axis'
    )
  row: Mapping[str, Any] = batches.empty_batch(
    batch=1,
    samples=samples,
    source_length=source_length,
    target_length=target_length,
    rewards=stage in ('improve', 'train_value'),
  )
  if stage == 'train_reward':
    row = {
      **row,
      'ratings': np.zeros((1, samples), np.float32),
      'preferences': np.zeros((1, samples, samples), np.float32),
    }
  if hasattr(objective, 'features'):
    row = objective.features(dict(row), done=0.0)
  spread, whole = mesh_lib.batch_sharding(mesh), mesh_lib.replicated(mesh)
  return {
    name: jax.ShapeDtypeStruct(
      (batch, *np.shape(x)[1:]) if np.ndim(x) else (),
      np.asarray(x).dtype,
      sharding=spread if np.ndim(x) else whole,
    )
    for name, x in row.items()
  }


def _sample(
  context: _Context,
  mesh: jax.sharding.Mesh,
  *,
  num_samples: int,
  num_sources: int | None,
  at_once: int,
  held_bytes: int = 0,
) -> Made:
  """What a sampler runs: encoding into free lanes, and the decoder's loop."""
  said = context.said
  settings: sampler_lib.SamplerSettings = said['sampler']
  shards = mesh_lib.batch_shards(mesh)
  if settings.batch_size % shards:
    raise ValueError(
      f'the sampler decodes {settings.batch_size} sources together, which cannot be '
      f'spread over data x fsdp = {shards} devices: set SamplerSettings.batch_size to '
      f'a multiple of {shards}'
    )
  source_length, length = context.lengths
  params = context.params(t5.T5, mesh)
  few = settings.batch_size * sampler_lib.ROUNDS
  share = settings.share_of(num_samples, num_sources or few)
  lanes = memory.lane_shapes(
    context.config,
    mesh,
    settings=settings,
    share=share,
    source_length=source_length,
    length=length,
  )
  spread, whole = mesh_lib.batch_sharding(mesh), mesh_lib.replicated(mesh)
  rows = shards * max(1, settings.batch_size // shards // flow.LANES_PER_TURN)
  places = (rows, settings.slots, share)

  def batch(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=spread)

  scalar = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
  incoming = decoder_lib.Incoming(
    place=batch((rows,), jnp.int32),
    encoder_input_tokens=batch((rows, source_length), jnp.int32),
    words=batch((rows, 2), jnp.uint32),
    indices=batch(places, jnp.int32),
    tokens=batch((*places, length), jnp.int32),
    log_probs=batch((*places, length), jnp.float32),
    num_known=batch(places, jnp.int32),
  )
  decoding: draws.Decoding = said['decoding']
  shape = _shape(settings.batch_size, settings.slots, source_length, length)
  identity = (context.config, mesh, settings, source_length, length)
  drawn = None if num_sources is None else num_sources * num_samples
  decoder_rows = settings.batch_size * settings.slots
  encode = Program(
    f'sampler encode {_shape(rows, source_length)}',
    mesh,
    functools.partial(
      decoder_lib.exchange.trace,
      params,
      lanes,
      incoming,
      scalar,
      scalar,
      config=context.config,
      shards=shards,
    ),
    tokens=rows * source_length,
    held_bytes=held_bytes,
    identity=('exchange', *identity),
    size=share,
  )
  yield encode, drawn and drawn / (rows * settings.slots * share), at_once
  decode = Program(
    f'sampler step {shape}',
    mesh,
    functools.partial(
      decoder_lib.advance.trace,
      params,
      lanes,
      scalar,
      config=context.config,
      num_tokens=context.config.vocab_size,
      decoding=decoding,
      mesh=mesh,
    ),
    tokens=decoder_rows,
    held_bytes=held_bytes,
    one_turn=True,
    # The cache of that layout is put in order once in so many steps at most.
    branch_share=1 / rows_last.SPARE
    if context.config.cache_layout == 'rows_last'
    else 1.0,
    identity=('advance', *identity),
    size=share,
  )
  yield decode, drawn and drawn * length / decoder_rows, at_once


def _grow(context: _Context) -> Made:
  mesh = one_host(context.mesh)
  yield from _sample(
    context,
    mesh,
    num_samples=context.said['num_samples'],
    num_sources=num_sources(context.entry, context.entries),
    at_once=context.mesh.size // mesh.size,
  )


def _improve(context: _Context) -> Made:
  yield from _train(context, t5.T5)
  said = context.said
  # The held-out samples that choose the parameters; the train state stays meanwhile.
  state = step_lib.abstract_state(
    policies.init_fn(t5.T5, context.config),
    said['optimiser'](),
    context.mesh,
    context.rules,
  )
  held = memory.device_bytes(state) + _held_in_training(context, state.params)
  evaluations = 1 + said['num_steps'] // said['eval_period_steps']
  made = _sample(
    context,
    context.mesh,
    num_samples=said['num_eval_samples'],
    num_sources=said['num_eval_sources'],
    at_once=1,
    held_bytes=held - memory.device_bytes(state.params),  # those are an argument
  )
  for program, executions, at_once in made:
    yield program, executions and executions * evaluations, at_once


def _score(context: _Context) -> Made:
  """Encoding and prefix trees of the learned reward model."""
  if 'reward_model' not in context.entry.inputs:
    return
  mesh = one_host(context.mesh)
  said = context.said
  source_length, target_length = context.lengths
  scorer = learned.LearnedReward(
    context.params(reward.RewardT5, mesh),
    context.config,
    learned.RatingScale(0.0, 1.0),
    mesh=mesh,
    batch_size=said['batch_size'],
    source_length=source_length,
    target_length=target_length,
  )
  samples = context.entries[context.entry.inputs['samples'].name]
  sources = num_sources(samples, context.entries)
  drawn = sources and sources * samples.params['num_samples'] * target_length
  for name, trace, shape, tokens, sources_a_batch in scorer.largest_programs():
    program = Program(
      f'scorer {name} {_shape(*shape)}',
      mesh,
      trace,
      tokens=tokens,
      identity=('score', name, context.config, mesh, shape),
    )
    if name == 'encode':
      executions = sources and sources / sources_a_batch
    else:
      executions = drawn and drawn / tokens
    yield program, executions, context.mesh.size // mesh.size


def one_host(mesh: jax.sharding.Mesh) -> jax.sharding.Mesh:
  """The mesh of the first host's devices, on which Grow and scoring run.

  The compiler refuses programs of some chips of a v5e or v6e slice ("on platforms with
  limited ICI routing device assignment should include all slice devices"): there the
  host is described as a slice of its own.

  Raises:
    ValueError: the model axis is wider than a host.
  """
  local = mesh_lib.local_mesh(mesh)
  chip = tpu.LIMITED_ROUTING.get(local.devices.flat[0].device_kind)
  shape = {1: '1x1', 4: '2x2', 8: '2x4'}.get(local.size)
  if chip is None or shape is None or local.size == mesh.size:
    return local
  devices = _host_devices(f'{chip}:{shape}')
  return mesh_lib.make_mesh(mesh_lib.MeshConfig(*local.devices.shape), devices)


@functools.cache
def _host_devices(topology: str) -> list[Any]:
  return tpu.devices(topology)


def num_sources(
  entry: artifact.HistoryEntry, entries: Mapping[str, artifact.HistoryEntry]
) -> int | None:
  """The sources that a Grow samples for; None where nothing says it."""
  limit = entry.params.get('num_sources')
  origin = entry.inputs.get('sources') or entry.inputs.get('corpus')
  found = None
  if origin is not None and origin.name in entries:
    ingested = entries[origin.name]
    split = entry.params.get('split', 'train')
    if ingested.artifact.finished:
      found = ingested.artifact.results['splits'][split]['sources']
    else:
      found = getattr(ingested.params.get('corpus'), f'num_{split}', None)
  counts = [n for n in (limit, found) if n is not None]
  return min(counts) if counts else None


def _key(mesh: jax.sharding.Mesh) -> Any:
  key = jax.eval_shape(lambda: jax.random.key(0))
  whole = mesh_lib.replicated(mesh)
  return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=whole)


def _shape(*sizes: int) -> str:
  return f'[{", ".join(map(str, sizes))}]'


_MAKERS: Mapping[str, Callable[[_Context], Made]] = {
  'supervise': functools.partial(_train, module=t5.T5),
  'train_reward': functools.partial(_train, module=reward.RewardT5),
  'train_value': functools.partial(_train, module=heads.ScalarHeadT5),
  'improve': _improve,
  'grow': _grow,
  'score': _score,
}

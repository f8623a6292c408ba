"""What each stage of a run holds on a device.

From shapes and shardings alone: nothing is allocated and nothing compiled. Counted
are the arrays that a stage holds all along. Activations, and what the compiler sets
aside, are not: of a large batch they may be the larger part.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import linen as nn

from rest_jax.data import buckets
from rest_jax.models import caches, heads, reward, t5
from rest_jax.planning import arithmetic
from rest_jax.sampling import decoder
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, policies
from rest_jax.training import mesh as mesh_lib
from rest_jax.training import step as step_lib

# The modules that stages train, and the parameter that says how many candidates a
# row of a batch has room for.
TRAINED: Mapping[str, tuple[Any, str | None]] = {
  'supervise': (t5.T5, None),
  'train_reward': (reward.RewardT5, 'max_samples'),
  'train_value': (heads.ScalarHeadT5, 'max_samples'),
  'improve': (t5.T5, 'samples_per_row'),
}
# Those of them that sample held-out sources meanwhile, and score what they sampled.
_SAMPLE_TO_EVALUATE = ('improve',)


@dataclasses.dataclass(frozen=True)
class Memory:
  """What one device holds during a stage, in bytes.

  Attributes:
    parameters: of the model at work.
    optimiser: its state.
    gradients: of a step; twice where they are added up over microbatches.
    others: the best parameters so far, and the models that the loss or the
      evaluation reads.
    cache: of the sampler's lanes at their full lengths.
    trained_bytes, checkpoint_bytes: on disk, of the trained model and of one
      checkpoint of its training; all devices together.
    flops: of a training step, all devices together: the matrix products of the step
      as it is traced (recomputation included), nothing else; None where unknown.
  """

  parameters: int
  optimiser: int = 0
  gradients: int = 0
  others: int = 0
  cache: int = 0
  trained_bytes: int = 0
  checkpoint_bytes: int = 0
  flops: int | None = None

  @property
  def total(self) -> int:
    """The most that is held at once; a step's gradients and the cache take turns."""
    held = self.parameters + self.optimiser + self.others
    return held + max(self.gradients, self.cache)


def by_stage(run: artifact.Run) -> dict[str, Memory]:
  """The memory of each planned or finished stage that works on devices, by name.

  Args:
    run: after its algorithm has gone through it, as a dry run.

  Raises:
    ValueError: the mesh does not leave each host a copy of the policy.
  """
  entries = {entry.artifact.name: entry for entry in run.history}
  alone = mesh_lib.local_mesh(run.mesh)  # hosts sample and score apart
  found: dict[str, Memory] = {}
  for name, entry in entries.items():
    stage = entry.artifact.stage
    config = model_config(entry, entries)
    if config is None:
      continue
    if stage in TRAINED:
      found[name] = _training(run, entry, config)
    elif stage == 'grow':
      parameters = _params_bytes(run, alone, t5.T5, config)
      found[name] = Memory(parameters, cache=_cache_of(alone, entry, config))
    elif stage == 'score' and 'reward_model' in entry.inputs:
      found[name] = Memory(_params_bytes(run, alone, reward.RewardT5, config))
  return found


def misfits(run: artifact.Run) -> list[str]:
  """What the mesh does not divide, in one sentence each, with the remedy.

  Args:
    run: after its algorithm has gone through it, as a dry run.
  """
  shards = mesh_lib.batch_shards(run.mesh)
  parts = f'data x fsdp = {shards} devices'
  found: dict[str, list[str]] = {}  # by what is wrong, the artifacts
  for entry in run.history:
    rows, lanes = entry.params.get('batch_size'), entry.cut.get('sampler')
    cut = shards * entry.cut.get('num_microbatches', 1)
    wrong = []
    if entry.artifact.stage in TRAINED and rows % cut:
      micro = f' x {cut // shards} microbatches' if cut > shards else ''
      near = max(cut, round(rows / cut) * cut)
      wrong.append(f'batch_size={rows} is no multiple of {parts}{micro}: {near} is')
    if lanes is not None and lanes.batch_size % shards:
      near = max(shards, round(lanes.batch_size / shards) * shards)
      wrong.append(
        f'SamplerSettings.batch_size={lanes.batch_size} is no multiple of {parts}: '
        f'{near} is'
      )
    for problem in wrong:
      found.setdefault(problem, []).append(entry.artifact.name)
  return [f'{", ".join(names)}: {problem}' for problem, names in found.items()]


def model_config(
  entry: artifact.HistoryEntry, entries: Mapping[str, artifact.HistoryEntry]
) -> t5.T5Config | None:
  """The shape of the model that a stage works with: its own, or its policy's.

  None where no stage of the run says it.
  """
  seen = set()
  while entry.artifact.name not in seen:
    seen.add(entry.artifact.name)
    if isinstance(config := entry.params.get('config'), t5.T5Config):
      return config
    for key in ('policy', 'reward_model', 'samples'):
      before = entry.inputs.get(key)
      if before is not None and before.name in entries:
        entry = entries[before.name]
        break
  return None


def device_bytes(tree: Any) -> int:
  """Bytes of a tree of arrays, or of shapes with shardings, on one device."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def _whole_bytes(tree: Any) -> int:
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def lane_shapes(
  config: t5.T5Config,
  mesh: jax.sharding.Mesh,
  *,
  settings: sampler_lib.SamplerSettings,
  share: int,
  source_length: int,
  length: int,
) -> decoder.Lanes:
  """Shapes and shardings of `decoder.empty_lanes` at their full lengths."""
  shapes = jax.eval_shape(
    functools.partial(
      decoder.empty_lanes,
      config,
      mesh,
      batch=settings.batch_size,
      slots=settings.slots,
      share=share,
      source_length=source_length,
      length=length,
      limit=length,
    )
  )

  def placed(x: jax.ShapeDtypeStruct, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  def past(x: jax.ShapeDtypeStruct, names: Sequence[Any]) -> jax.ShapeDtypeStruct:
    return placed(x, decoder.past_sharding(mesh, x, names))

  def cross(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    names = ('batch', 'heads', 'source_length', 'kv')
    return past(x, ('layers',) * (x.ndim - len(names)) + names)

  rows = mesh_lib.batch_sharding(mesh)
  others = shapes._replace(cross=None, cache=None)
  spread: decoder.Lanes = jax.tree.map(lambda x: placed(x, rows), others)
  return spread._replace(
    cross=jax.tree.map(cross, shapes.cross),
    cache=jax.tree.map(past, shapes.cache, caches.cache_axes(shapes.cache)),
  )


def _params_bytes(
  run: artifact.Run, mesh: jax.sharding.Mesh, module: Any, config: t5.T5Config
) -> int:
  boxed = policies.abstract_params(module, config)
  placed = jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    nn.meta.unbox(boxed),
    mesh_lib.param_shardings(mesh, boxed, run.rules),
  )
  return device_bytes(placed)


def _training(
  run: artifact.Run, entry: artifact.HistoryEntry, config: t5.T5Config
) -> Memory:
  module, _ = TRAINED[entry.artifact.stage]
  params, opt_state = _placed_state(
    module, config, entry.params['optimiser'], run.mesh, run.rules
  )
  parameters = device_bytes(params)
  accumulated = 1 + (entry.cut.get('num_microbatches', 1) > 1)
  others = parameters  # the best so far
  cache = 0
  if entry.artifact.stage in _SAMPLE_TO_EVALUATE:
    others += parameters  # those that it started from
    cache = _cache_of(run.mesh, entry, config)
    if 'reward_model' in entry.inputs:
      others += _params_bytes(run, run.mesh, reward.RewardT5, config)
  for need in getattr(entry.params['objective'], 'needs', ()):
    others += _params_bytes(run, run.mesh, arithmetic.FROZEN[need], config)
  return Memory(
    parameters,
    optimiser=device_bytes(opt_state),
    gradients=parameters * accumulated,
    others=others,
    cache=cache,
    trained_bytes=_whole_bytes(params),
    checkpoint_bytes=2 * _whole_bytes(params) + _whole_bytes(opt_state),
    flops=_flops_of(entry, config),
  )


@functools.lru_cache
def _placed_state(
  module: Any,
  config: t5.T5Config,
  optimiser: Any,
  mesh: jax.sharding.Mesh,
  rules: mesh_lib.Rules,
) -> tuple[Any, Any]:
  """Shapes and shardings of the parameters and of the optimiser's state."""
  init_fn = policies.init_fn(module, config)
  state = step_lib.abstract_state(init_fn, optimiser(), mesh, rules)
  return state.params, state.opt_state


def _cache_of(
  mesh: jax.sharding.Mesh, entry: artifact.HistoryEntry, config: t5.T5Config
) -> int:
  said = {**entry.params, **entry.cut}
  source_length, length = buckets.feature_lengths(said['task_feature_lengths'])
  settings: sampler_lib.SamplerSettings = said['sampler']
  samples = said.get('num_samples') or said['num_eval_samples']
  sources = said.get('num_eval_sources') or settings.batch_size * sampler_lib.ROUNDS
  lanes = lane_shapes(
    config,
    mesh,
    settings=settings,
    share=settings.share_of(samples, sources),
    source_length=source_length,
    length=length,
  )
  return device_bytes(lanes)


def _flops_of(entry: artifact.HistoryEntry, config: t5.T5Config) -> int:
  """Of a step at the longest bucket."""
  said = {**entry.params, **entry.cut}
  module, samples_key = TRAINED[entry.artifact.stage]
  longest = buckets.training_buckets(
    said['task_feature_lengths'], said.get('bucket_shares', (1.0,))
  )[-1]
  samples = 1 if samples_key is None else said[samples_key]
  return arithmetic.step_flops(
    module,
    config,
    said['objective'],
    said['optimiser'],
    (said['batch_size'], samples, *longest),
    said.get('num_microbatches', 1),
  )

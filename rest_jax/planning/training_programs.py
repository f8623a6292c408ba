"""What training compiles: its steps, and what judges the parameters meanwhile."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from rest_jax.data import batches, buckets
from rest_jax.models import reward, t5
from rest_jax.planning import arithmetic, memory, samplings, shapes
from rest_jax.planning import programs as programs_lib
from rest_jax.stages import fitting, rollouts, train_value
from rest_jax.training import mesh as mesh_lib
from rest_jax.training import objectives
from rest_jax.training import step as step_lib


class Held(NamedTuple):
  """Bytes on a device while a stage trains.

  Attributes:
    state: the parameters in training and the optimiser's state.
    params: of the state, the policy's or another model's own.
    others: what lies beside the state.
  """

  state: int
  params: int
  others: int

  @property
  def beside_params(self) -> int:
    """What lies beside the model that is sampled from or evaluated."""
    return self.state - self.params + self.others


def trained(context: programs_lib.Context, module: Any) -> tuple[Any, Any]:
  """The state of a training and the model in it, shapes and shardings."""
  said, run = context.said, context.run
  objective = said['objective']
  state = shapes.state(
    module, context.config, objective, said['optimiser'], context.mesh, run.rules
  )
  policy = getattr(objective, 'policy', lambda tree: tree)
  return state, policy(state.params)


def held(context: programs_lib.Context, module: Any) -> Held:
  """What a training holds."""
  state, model = trained(context, module)
  others = shapes.device_bytes(state.params)  # the best so far
  if context.stage in ('improve', 'online'):
    others += shapes.device_bytes(context.params(t5.T5))  # the start
    if 'reward_model' in context.entry.inputs:
      others += shapes.device_bytes(context.params(reward.RewardT5))
  return Held(shapes.device_bytes(state), shapes.device_bytes(model), others)


def _samples(context: programs_lib.Context) -> int:
  """Candidates that a row of a training batch has room for."""
  _, key = memory.TRAINED[context.stage]
  return 1 if key is None else int(context.said[key])


def train(context: programs_lib.Context, module: Any) -> programs_lib.Made:
  """The train step of each bucket."""
  said, stage = context.said, context.stage
  objective = said['objective']
  batch = round(said['batch_size'] * context.batch_scale)
  samples = _samples(context)
  longest = said['task_feature_lengths']
  if stage == 'train_reward':
    longest = memory.reward_lengths(context.entry, context.entries)
  bucketed = buckets.training_buckets(longest, said.get('bucket_shares', (1.0,)))
  for lengths in bucketed:
    shape = (batch, samples, *lengths)
    features = abstract_batch(
      stage, objective, shape, context.mesh, said.get('num_microbatches', 1)
    )
    # Which bucket a step has the data decide: all of the longest is the most.
    steps = float(said['num_steps']) if lengths == bucketed[-1] else 0.0
    yield _step(context, module, context.config, features, shape), steps


def _step(
  context: programs_lib.Context,
  module: Any,
  config: t5.T5Config,
  features: Mapping[str, Any],
  shape: tuple[int, int, int, int],
) -> programs_lib.Program:
  said, mesh, stage = context.said, context.mesh, context.stage
  objective, needs = said['objective'], getattr(said['objective'], 'needs', ())
  microbatches = said.get('num_microbatches', 1)
  loss_fn = objective.loss_fn(
    config, *([dict.fromkeys(needs, config)] if needs else [])
  )
  train_step = step_lib.make_train_step(
    loss_fn,
    said['optimiser'](),
    mesh=mesh,
    rules=context.run.rules,
    num_microbatches=microbatches,
  )
  state, _ = trained(context, module)
  frozen = {need: context.params(arithmetic.FROZEN[need]) for need in needs}
  return programs_lib.Program(
    f'{stage} step {programs_lib.sized(*shape)}',
    mesh,
    functools.partial(train_step.traced, state, features, _key(mesh), frozen),
    tokens=shape[0] * shape[1] * shape[3],
    held_bytes=held(context, module).others,
    identity=(
      (stage, config, objective, said['optimiser'], microbatches, mesh),
      shape,
    ),
  )


def evaluate(
  context: programs_lib.Context, module: Any, evaluate_fn: Any, **static: Any
) -> programs_lib.Made:
  """What a held-out batch is judged by: one of the longest bucket, in one part.

  How many there are the data decide: they are not counted.
  """
  said, mesh, stage = context.said, context.mesh, context.stage
  _, model = trained(context, module)
  batch = round(said['batch_size'] * context.batch_scale)
  samples = _samples(context)
  shape = (batch, samples, *context.lengths)
  plain = objectives.BehaviouralCloning()  # adds no features of its own
  features = abstract_batch(stage, plain, shape, mesh)
  trace = functools.partial(
    evaluate_fn.trace, model, features, config=context.config, **static
  )
  program = programs_lib.Program(
    f'{stage} held-out batch {programs_lib.sized(*shape)}',
    mesh,
    trace,
    tokens=batch * samples * shape[3],
    held_bytes=held(context, module).beside_params,
    identity=(stage, 'held-out batch', context.undropped, mesh, shape),
  )
  yield program, 0.0


held_out_loss = functools.partial(evaluate, evaluate_fn=fitting.loss_sums)


def held_out_values(context: programs_lib.Context, module: Any) -> programs_lib.Made:
  """What a value model is measured by."""
  discount = context.said['objective'].discount
  yield from evaluate(
    context, module, train_value.values_and_returns, discount=discount
  )


def online(context: programs_lib.Context) -> programs_lib.Made:
  """What an online learner does with the candidates of a phase."""
  said, mesh, config = context.said, context.mesh, context.undropped
  objective, rollout = said['objective'], said['rollout']
  state, _ = trained(context, t5.T5)
  reference = context.params(t5.T5)
  shape = (rollout.batch_size, rollout.samples, *context.lengths)
  annotate = rollouts.annotate_fn(objective, config, mesh, context.run.rules)
  placed = _spread(arithmetic.rollout_features(shape), mesh, said['num_microbatches'])
  phases = samplings.phases(said)
  most = held(context, t5.T5)
  program = programs_lib.Program(
    f'online annotation {programs_lib.sized(*shape)}',
    mesh,
    functools.partial(annotate.trace, state.params, placed, reference),
    tokens=shape[0] * shape[1] * shape[3],
    # The state and the reference are arguments, its optimiser's part is not.
    held_bytes=most.state
    - shapes.device_bytes(state.params)
    + most.others
    - shapes.device_bytes(reference),
    identity=('annotation', config, objective, mesh, shape),
  )
  yield program, float(phases * rollout.sources // rollout.batch_size)
  features = arithmetic.learnt_features(
    objective, shape, state.params, reference, config
  )
  placed = _spread(features, mesh, said['num_microbatches'])
  yield _step(context, t5.T5, config, placed, shape), float(phases * rollout.updates)


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
  features = {
    name: jax.ShapeDtypeStruct(
      (batch, *np.shape(x)[1:]) if np.ndim(x) else (), np.asarray(x).dtype
    )
    for name, x in row.items()
  }
  return _spread(features, mesh, microbatches)


def _spread(
  features: Mapping[str, Any], mesh: jax.sharding.Mesh, microbatches: int = 1
) -> dict[str, jax.ShapeDtypeStruct]:
  """Rows over the mesh, scalars whole.

  Raises:
    ValueError: the mesh does not divide the rows.
  """
  batch = features['encoder_input_tokens'].shape[0]
  parts = mesh_lib.batch_shards(mesh) * microbatches
  if batch % parts:
    cut = f' in {microbatches} microbatches' if microbatches > 1 else ''
    raise ValueError(
      f'a batch of {batch} sources{cut} cannot be spread over data x fsdp = '
      f'{mesh_lib.batch_shards(mesh)} devices: make it a multiple of {parts}, or give '
      'more devices to the model axis'
    )
  rows, whole = mesh_lib.batch_sharding(mesh), mesh_lib.replicated(mesh)
  return {
    name: shapes.placed(x, rows if x.ndim else whole) for name, x in features.items()
  }


def _key(mesh: jax.sharding.Mesh) -> Any:
  key = jax.eval_shape(lambda: jax.random.key(0))
  return shapes.placed(key, mesh_lib.replicated(mesh))

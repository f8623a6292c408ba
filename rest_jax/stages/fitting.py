"""Training inside a stage: the trainer with the stage's files, bars and figures."""

import dataclasses
import functools
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, cast

import jax
import numpy as np
from flax import linen as nn

from rest_jax.models import t5
from rest_jax.stages import artifact, policies
from rest_jax.stages import progress as progress_lib
from rest_jax.training import events as events_lib
from rest_jax.training import loop, objectives
from rest_jax.training import mesh as mesh_lib
from rest_jax.training import step as step_lib

COST_PERIOD_S = 10.0  # between two times that a training stage's cost is written


@dataclasses.dataclass(frozen=True)
class FitSettings:
  """How long and how carefully to train; see `training.loop.fit`."""

  num_steps: int
  eval_period_steps: int
  patience: int | None
  num_microbatches: int
  checkpoint_period_steps: int
  seed: int
  learning_rate_scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Fitted:
  """What `fit` returns, with the name of the loss."""

  loss_name: str
  result: loop.FitResult

  @property
  def best_params(self) -> Any:
    """The parameters of the best evaluation."""
    return self.result.best_params

  @property
  def best_step(self) -> int:
    """The training step of the best evaluation."""
    return self.result.best_step

  @property
  def best_evaluation(self) -> dict[str, float]:
    """All values of the best evaluation."""
    lines = [h for h in self.result.history if h['step'] == self.best_step]
    prefix = 'eval_'  # the trainer's, for what evaluate returned
    return {
      name.removeprefix(prefix): value
      for line in lines
      for name, value in line.items()
      if name.startswith(prefix)
    }

  def results(self) -> dict[str, Any]:
    """JSON values for stage.json: where the best lay, and the curves."""
    curves: dict[str, dict[str, list[float]]] = {}
    for line in self.result.history:
      for metric, value in line.items():
        if metric != 'step' and value is not None and np.isfinite(value):
          curve = curves.setdefault(metric, {'steps': [], 'values': []})
          curve['steps'].append(line['step'])
          curve['values'].append(value)
    return {
      'loss_name': self.loss_name,
      'best_step': self.best_step,
      'best_metric': self.result.best_metric,
      'steps': int(self.result.state.step),
      'curves': curves,
    }


def fit(
  work: artifact.Work,
  run: artifact.Run,
  *,
  module: type[nn.Module],
  config: t5.T5Config,
  objective: objectives.Objective,
  optimiser: Any,
  batch_fn: Callable[[int], Mapping[str, np.ndarray]],
  frozen: Mapping[str, policies.Model] | None = None,
  settings: FitSettings,
  warm_start: Callable[[Any], Any] | None = None,
  evaluate: Callable[[Any], Mapping[str, float]],
  eval_metric: str,
  mode: str,
) -> Fitted:
  """Trains a module, going on from where an earlier attempt was killed.

  Args:
    work: the stage's unfinished artifact; events go into it, checkpoints into
      its scratch.
    run: on whose mesh to train.
    module, config: what to train.
    objective, optimiser: of `training`.
    batch_fn: step -> batch.
    frozen: the models that the objective needs, by name; on the run's mesh.
    settings: how long and how carefully.
    warm_start: initial parameters -> those to start from; None keeps them.
    evaluate: parameters -> values by name.
    eval_metric, mode: which of the values chooses the best, 'max' or 'min'.
  """
  transformation = _transformation(optimiser)
  frozen = frozen or {}
  train_step = _train_step(
    config,
    tuple((name, frozen[name].config) for name in sorted(frozen)),
    cast(Hashable, objective),
    optimiser,
    run.mesh,
    run.rules,
    settings.num_microbatches,
  )
  state = step_lib.init_state(
    policies.init_fn(module, config),
    transformation,
    run.mesh,
    run.rules,
    rng=jax.random.key(settings.seed),
    learning_rate_scale=settings.learning_rate_scale,
  )
  if warm_start is not None:
    initial = state.params
    del state  # its optimiser's arrays are not needed while parameters are made
    state = step_lib.state_from_params(
      warm_start(initial),
      transformation,
      run.mesh,
      learning_rate_scale=settings.learning_rate_scale,
    )
  done = loop.resume_step(work.scratch) or 0
  bar = progress_lib.progress(work.name, settings.num_steps, unit='steps', done=done)
  with (
    bar as advance,
    events_lib.EventWriter(work.path / 'events') as events,
    work.devices(),
  ):
    result = loop.fit(
      state=state,
      train_step=train_step,
      batch_fn=batch_fn,
      frozen={name: model.params for name, model in frozen.items()},
      num_steps=settings.num_steps,
      work_dir=work.scratch,
      seed=settings.seed,
      evaluate=evaluate,
      eval_period_steps=settings.eval_period_steps,
      eval_metric=eval_metric,
      mode=mode,
      patience=settings.patience,
      checkpoint_period_steps=settings.checkpoint_period_steps,
      log_period_steps=max(1, min(100, settings.num_steps // 20)),
      progress=_saving_cost(work, advance),
      events=events,
    )
  return Fitted(objective.name, result)


def _saving_cost(
  work: artifact.Work, advance: progress_lib.Advance
) -> progress_lib.Advance:
  """Writes the cost down now and then, so that a kill loses little of it."""
  saved = time.monotonic()

  def advance_and_save(steps: int, note: str = '') -> None:
    nonlocal saved
    advance(steps, note)
    if time.monotonic() - saved > COST_PERIOD_S:
      saved = time.monotonic()
      work.save_cost()

  return advance_and_save


def trainer(
  run: artifact.Run,
  *,
  params: Any,
  config: t5.T5Config,
  objective: Any,
  optimiser: Any,
  num_microbatches: int,
) -> tuple[step_lib.TrainStep, step_lib.TrainState]:
  """The step and the state of a training that starts from given parameters.

  Args:
    run: on whose mesh to train, where the parameters lie.
    params: to start from; they are copied.
    config: the model's shape.
    objective, optimiser: of `training`; the objective needs no frozen model.
    num_microbatches: parts of a batch.
  """
  train_step = _train_step(
    config, (), objective, optimiser, run.mesh, run.rules, num_microbatches
  )
  state = step_lib.state_from_params(params, _transformation(optimiser), run.mesh)
  return train_step, state


@functools.cache
def _transformation(optimiser: Any) -> Any:
  return optimiser()


@functools.cache
def _train_step(
  config: t5.T5Config,
  frozen: tuple[tuple[str, t5.T5Config], ...],
  objective: Any,
  optimiser: Any,
  mesh: jax.sharding.Mesh,
  rules: mesh_lib.Rules,
  num_microbatches: int,
) -> step_lib.TrainStep:
  """One step object for equal settings: all Improve steps share its programs."""
  return step_lib.make_train_step(
    objective.loss_fn(config, dict(frozen)) if frozen else objective.loss_fn(config),
    _transformation(optimiser),
    mesh=mesh,
    rules=rules,
    num_microbatches=num_microbatches,
  )


def held_out_loss(
  mesh: jax.sharding.Mesh,
  config: t5.T5Config,
  batches: Callable[[], Iterator[Mapping[str, np.ndarray]]],
  params: Any,
) -> dict[str, float]:
  """Returns {'held_out_loss': nats per token} of a policy, without dropout."""
  loss_sum = weight_sum = 0.0
  for batch in batches():
    sums = loss_sums(params, mesh_lib.put_batch(mesh, batch), config=config)
    loss_sum += float(sums[0])
    weight_sum += float(sums[1])
  return {'held_out_loss': loss_sum / weight_sum}


@functools.partial(jax.jit, static_argnames=('config',))
def loss_sums(
  params: Any, batch: dict[str, jax.Array], *, config: t5.T5Config
) -> tuple[jax.Array, jax.Array]:
  """Of a policy, without dropout: the loss [] summed over a batch, and its weight."""
  without_dropout = dataclasses.replace(config, dropout_rate=0.0)
  loss = objectives.BehaviouralCloning().loss_fn(without_dropout)
  loss_sum, weight_sum, _ = loss(params, batch, jax.random.key(0))
  return loss_sum, weight_sum

"""The online loop: in every phase candidates are drawn, then learnt from.

A phase is a function of its number and of the parameters it begins with, and
checkpoints lie between phases. A run that was killed at any moment and started again
with the same arguments therefore ends with the same bits as one that was not (one
program, one kind of device), and loses one phase at most.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from rest_jax import paths
from rest_jax.training import checkpoints as checkpoints_lib
from rest_jax.training import events as events_lib
from rest_jax.training import loop
from rest_jax.training import step as step_lib


class Phase(NamedTuple):
  """What a rollout gives to learn from."""

  batches: Iterable[Mapping[str, np.ndarray]]  # one for each update
  values: Mapping[str, float]  # of the rollout, for the history


def fit(
  *,
  state: step_lib.TrainState,
  train_step: step_lib.TrainStep,
  rollout: Callable[[Any, int], Phase],
  updates_per_phase: int,
  num_phases: int,
  work_dir: paths.PathLike,
  seed: int,
  evaluate: Callable[[Any], Mapping[str, float]],
  eval_period_phases: int,
  eval_metric: str,
  checkpoint_period_phases: int = 1,
  keep: int = 2,
  events: events_lib.EventWriter | None = None,
) -> loop.FitResult:
  """Trains for `num_phases` phases and keeps the best parameters.

  Whatever an earlier attempt left in `work_dir` is gone on from. The parameters are
  evaluated before the first phase, every `eval_period_phases` and after the last; a
  higher value is better. The history has one line a phase: the means of the updates'
  metrics, and the rollout's values.

  Args:
    state: a fresh state; consumed.
    train_step: of `step.make_train_step`.
    rollout: (parameters, phase) -> Phase; the parameters are the state's and are gone
      after the first update.
    updates_per_phase: the number of a phase's batches, the same in all.
    num_phases: how many.
    work_dir: holds `checkpoints/`.
    seed: of the step's key.
    evaluate: parameters -> values by name.
    eval_period_phases: phases between evaluations.
    eval_metric: which of the values chooses.
    checkpoint_period_phases: phases between checkpoints: what a kill can lose.
    keep: how many checkpoints to keep.
    events: takes every line of the history.

  Raises:
    loop.NonFiniteLossError: a loss, gradient or update is not finite.
    ValueError: a period that is not positive, or a `work_dir` that does not fit.
  """
  for name, value in (
    ('eval_period_phases', eval_period_phases),
    ('checkpoint_period_phases', checkpoint_period_phases),
  ):
    if value < 1:
      raise ValueError(f'{name}={value} must be at least 1')
  files = checkpoints_lib.TrainingCheckpoints(
    paths.as_path(work_dir) / loop.CHECKPOINTS_DIR, keep=keep
  )
  settings = {'seed': seed, 'eval_metric': eval_metric, 'mode': 'max'}
  fitting = loop.Fitting(state, None, files, settings, events, None)

  def assess() -> None:
    values = {name: float(x) for name, x in evaluate(fitting.state.params).items()}
    fitting.evaluated(values, eval_metric, 1.0, 0.0)

  try:
    fitting.resume(best_is_kept=True)
    if fitting.record.best_step < 0:
      assess()
    rng = train_step.key(seed)
    for phase in range(fitting.step // updates_per_phase, num_phases):
      found = rollout(fitting.state.params, phase)
      for batch in found.batches:
        fitting.advance(train_step, train_step.put_batch(batch), rng)
      assert fitting.step == (phase + 1) * updates_per_phase, 'a batch too many or few'
      fitting.log_now(found.values)
      last = phase + 1 == num_phases
      if (phase + 1) % eval_period_phases == 0 or last:
        assess()
      if (phase + 1) % checkpoint_period_phases == 0 or last:
        fitting.save()
    files.wait()
    return fitting.result()
  finally:
    files.close()


def resume_phase(work_dir: paths.PathLike, updates_per_phase: int) -> int:
  """The phase from which `fit` would go on in this directory."""
  return (loop.resume_step(work_dir) or 0) // updates_per_phase

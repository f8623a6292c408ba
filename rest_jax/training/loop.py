"""The loop around a train step: evaluate, keep the best, survive a kill.

The batch of a step is a function of the step, and so is dropout; a checkpoint
holds the state, the best parameters and the history. A run that was killed at any
moment and started again with the same arguments therefore ends with the same bits
as one that was not (one program, one kind of device).

The device is never waited for to fetch a metric of the step it is at: batches are
made one ahead in a thread, and metrics are fetched every `log_period_steps`, one
step late.
"""

import concurrent.futures
import dataclasses
import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from rest_jax import paths
from rest_jax.training import checkpoint_copies, hosts, preemption
from rest_jax.training import checkpoints as checkpoints_lib
from rest_jax.training import events as events_lib
from rest_jax.training import step as step_lib

CHECKPOINTS_DIR = 'checkpoints'
MAX_UNCHECKED_STEPS = 100  # metrics are looked at this often at least
MAX_STEPS_IN_FLIGHT = 2  # dispatched and not finished; each holds its batch
PROGRESS_PERIOD_S = 0.2

_MODES = {'max': 1.0, 'min': -1.0}
_GUARDED = ('loss', 'grad_norm', 'update_norm')  # must be finite


class NonFiniteLossError(FloatingPointError):
  """A loss, gradient or update is NaN or infinite.

  Attributes:
    step: how many steps had been taken, the bad one included.
    metric: 'loss', 'grad_norm' or 'update_norm', the first that is not finite.
  """

  def __init__(self, step: int, metrics: Mapping[str, float], last_good: int | None):
    self.step = step
    self.metric = next(n for n in _GUARDED if not math.isfinite(metrics.get(n, 0.0)))
    values = ', '.join(f'{name} {value:g}' for name, value in metrics.items())
    kept = (
      'no checkpoint was written before it'
      if last_good is None
      else f'the checkpoint of step {last_good} is kept'
    )
    super().__init__(
      f'{self.metric} is {metrics[self.metric]} at step {step} '
      f'(batch_fn({step - 1})): {values}. Training stops; {kept}. Try a lower learning '
      'rate, a longer warmup, clip_norm=1.0 in the optimiser or float32 activations, '
      'or look at that batch'
    )


class FitResult(NamedTuple):
  """What `fit` returns."""

  state: step_lib.TrainState  # after the last step
  best_params: Any  # the state's own where nothing was evaluated
  best_step: int
  best_metric: float | None  # None where nothing was evaluated
  history: list[dict[str, Any]]  # {'step': ..., name: value}, in order of time


@dataclasses.dataclass
class _Record:
  """What a checkpoint must hold besides arrays; all of it JSON."""

  history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  # Metrics since the last line of the log.
  pending: list[dict[str, float]] = dataclasses.field(default_factory=list)
  best_step: int = -1  # -1: nothing was evaluated yet
  best_metric: float | None = None
  evaluations_since_best: int = 0


class _Batches:
  """Makes the batch of the next step in a thread while the device is at this one."""

  def __init__(self, make: Callable[[int], Any], start: int, stop: int):
    self._make, self._stop = make, stop
    self._pool = concurrent.futures.ThreadPoolExecutor(1, 'batches')
    self._next = self._submit(start)

  def _submit(self, step: int) -> Any:
    return self._pool.submit(self._make, step) if step < self._stop else None

  def take(self, step: int) -> Any:
    batch = self._next.result()
    self._next = self._submit(step + 1)
    return batch

  def close(self) -> None:
    self._pool.shutdown(wait=True, cancel_futures=True)


def resume_step(work_dir: paths.PathLike) -> int | None:
  """The step from which `fit` would go on in this directory; None for the start."""
  folder = paths.as_path(work_dir) / CHECKPOINTS_DIR
  return next(iter(checkpoint_copies.steps(folder)), None)


def fit(
  *,
  state: step_lib.TrainState,
  train_step: step_lib.TrainStep,
  batch_fn: Callable[[int], Mapping[str, np.ndarray]],
  frozen: Mapping[str, Any] | None = None,
  num_steps: int,
  work_dir: paths.PathLike,
  seed: int,
  evaluate: Callable[[Any], Mapping[str, float]] | None = None,
  eval_period_steps: int = 1000,
  eval_metric: str = 'loss',
  mode: str = 'min',
  patience: int | None = None,
  min_improvement: float = 0.0,
  checkpoint_period_steps: int = 1000,
  keep: int = 2,
  log_period_steps: int = 100,
  progress: Callable[..., None] | None = None,
  events: events_lib.EventWriter | None = None,
) -> FitResult:
  """Trains until `num_steps`, or until the evaluation stops improving.

  Whatever an earlier attempt left in `work_dir` is gone on from. The parameters
  are evaluated before the first step, every `eval_period_steps` and after the
  last; the best are those of the evaluation that improves on the best so far by
  more than `min_improvement`, the incoming parameters being the first best. A
  metric that is NaN never improves. One copy of the best parameters stays on the
  devices.

  Args:
    state: a fresh state; consumed. `state.step` is where it starts.
    train_step: of `step.make_train_step`.
    batch_fn: step (0 is the first) -> this host's rows. It is called in another
      thread, once for each step, in order.
    frozen: parameters of other models that the loss reads, by name.
    num_steps: value of `state.step` at the end.
    work_dir: holds `checkpoints/`.
    seed: of dropout.
    evaluate: parameters -> values by name; of several hosts the first's count.
    eval_period_steps: steps between evaluations.
    eval_metric: which of the values decides.
    mode: 'max' or 'min', which values of it are better.
    patience: stop after so many evaluations in a row without improvement; None
      never does.
    min_improvement: see above.
    checkpoint_period_steps: steps between checkpoints: what a kill can lose. One
      is written at the end too.
    keep: how many checkpoints to keep.
    log_period_steps: steps between lines of the history, each the mean over
      those steps. Metrics are checked at least every 100 steps.
    progress: called as progress(steps, note) a few times a second, for the steps
      taken in this call (see `resume_step` for those taken before).
    events: takes every line of the history.

  Raises:
    NonFiniteLossError: a loss, gradient or update is not finite. No checkpoint
      is written after that step.
    preemption.Stopped: SIGTERM came; a checkpoint of the last step is written.
    ValueError: an argument, or what lies in `work_dir`, does not fit.
  """
  _check_arguments(
    eval_period_steps=eval_period_steps,
    checkpoint_period_steps=checkpoint_period_steps,
    log_period_steps=log_period_steps,
    patience=1 if patience is None else patience,
  )
  if mode not in _MODES:
    raise ValueError(f"mode {mode!r} is not one of 'max', 'min'")
  if min_improvement < 0:
    raise ValueError(f'min_improvement={min_improvement} must not be negative')
  settings = {'seed': seed, 'eval_metric': eval_metric, 'mode': mode}
  files = checkpoints_lib.TrainingCheckpoints(
    paths.as_path(work_dir) / CHECKPOINTS_DIR, keep=keep
  )
  fitting = Fitting(state, frozen, files, settings, events, progress)
  try:
    fitting.resume(best_is_kept=evaluate is not None)

    def assess() -> None:
      if evaluate is not None:
        values = _values(evaluate(fitting.state.params), eval_metric)
        fitting.evaluated(values, eval_metric, _MODES[mode], min_improvement)

    def out_of_patience() -> bool:
      return patience is not None and fitting.record.evaluations_since_best >= patience

    def train() -> None:
      put, rng = train_step.put_batch, train_step.key(seed)
      batches = _Batches(lambda step: put(batch_fn(step)), fitting.step, num_steps)
      try:
        while fitting.step < num_steps and not out_of_patience():
          fitting.advance(train_step, batches.take(fitting.step), rng)
          last = fitting.step == num_steps
          if fitting.step % log_period_steps == 0 or last:
            fitting.log_soon()
          if fitting.step % min(log_period_steps, MAX_UNCHECKED_STEPS) == 0:
            fitting.check_soon()
          if fitting.step % eval_period_steps == 0 or last:
            fitting.check_now()
            assess()
          if fitting.step % checkpoint_period_steps == 0:
            fitting.save()
          if hosts.must_stop(fitting.step):
            break  # `deferred` raises, when the checkpoint is written
      finally:
        batches.close()

    if fitting.record.best_step < 0:
      assess()
    with preemption.deferred():
      if fitting.step < num_steps and not out_of_patience():
        train()
      fitting.save()
      files.wait()
    return fitting.result()
  finally:
    fitting.report_progress(always=True)
    files.close()


def _check_arguments(**counts: int) -> None:
  for name, value in counts.items():
    if value < 1:
      raise ValueError(f'{name}={value} must be at least 1')


def _values(found: Mapping[str, float], eval_metric: str) -> dict[str, float]:
  if eval_metric not in found:
    raise ValueError(
      f'eval_metric {eval_metric!r} is not among what evaluate returns: '
      f'{", ".join(sorted(found))}'
    )
  return {name: float(value) for name, value in found.items()}


def _improves(
  value: float, best: float | None, sign: float, min_improvement: float
) -> bool:
  """Whether `value` is the new best; NaN never is, anything else beats NaN."""
  if math.isnan(value):
    return False
  if best is None or math.isnan(best):
    return True
  return sign * (value - best) > min_improvement


class Fitting:
  """The moving parts of one training: state, record, what is in flight."""

  def __init__(
    self,
    state: step_lib.TrainState,
    frozen: Mapping[str, Any] | None,
    files: checkpoints_lib.TrainingCheckpoints,
    settings: dict[str, Any],
    events: events_lib.EventWriter | None,
    progress: Callable[..., None] | None,
  ):
    self.state, self._frozen = state, frozen
    self.step = int(state.step)
    self.record = _Record()
    self._best_params: Any = None
    self._files, self._settings, self._events = files, settings, events
    self._saved_step: int | None = None
    # (step, metrics on the device), not yet fetched.
    self._unfetched: list[tuple[int, dict[str, jax.Array]]] = []
    self._in_flight: deque[jax.Array] = deque()
    self._due: list[Callable[[], None]] = []
    self._progress, self._progress_step, self._progress_time = progress, self.step, 0.0
    self._note = ''

  def resume(self, *, best_is_kept: bool) -> None:
    """Takes up the newest checkpoint, if there is one."""
    found = self._files.restore(self.state)
    if found is None:
      if self._events is not None:
        self._events.truncate_after(self.step - 1)
      return
    self.step, snapshot = found
    record = dict(snapshot.record)
    old = record.pop('settings', None)
    if old != self._settings:
      raise ValueError(
        f'{self._files.directory} was written with {old} and this call has '
        f'{self._settings}: use those again, or remove that directory to start over'
      )
    jax.tree.map(lambda x: x.delete(), self.state)  # the incoming one
    self.state = snapshot.state
    self.record = _Record(**record)
    self._saved_step = self._progress_step = self.step
    if best_is_kept and self.record.best_step >= 0:
      self._best_params = snapshot.best_params
      if self._best_params is None:  # the state's own were the best
        self._best_params = _copy(self.state.params)
    if self._events is not None:
      self._events.truncate_after(self.step)
    logging.info('training goes on from step %d', self.step)

  def advance(self, train_step: step_lib.TrainStep, batch: Any, rng: jax.Array) -> None:
    """Dispatches one step, then does what the step before left to do."""
    if len(self._in_flight) >= MAX_STEPS_IN_FLIGHT:
      self._in_flight.popleft().block_until_ready()
    self.state, metrics = train_step(self.state, batch, rng, self._frozen)
    self._in_flight.append(metrics['loss'])
    due, self._due = self._due, []
    for action in due:  # on steps before this one, which the device is now at
      action()
    self.step += 1
    self._unfetched.append((self.step, metrics))
    self.report_progress()

  def check_soon(self) -> None:
    """Fetches and checks the metrics so far when the device has more to do."""
    self._due.append(self._fetch)

  def log_soon(self) -> None:
    """Adds the mean since the last line to the history, in the same way."""
    step = self.step
    self._due.append(lambda: self._log(step))

  def check_now(self) -> None:
    """Fetches and checks all metrics, and does what is due."""
    due, self._due = self._due, []
    for action in due:
      action()
    self._fetch()

  def _fetch(self) -> None:
    unfetched, self._unfetched = self._unfetched, []
    fetched = jax.device_get([metrics for _, metrics in unfetched])
    for (step, _), metrics in zip(unfetched, fetched, strict=True):
      values = {name: float(value) for name, value in metrics.items()}
      if not all(math.isfinite(values.get(name, 0.0)) for name in _GUARDED):
        raise NonFiniteLossError(step, values, self._saved_step)
      self._note = f'loss {values["loss"]:.4g}'
      if values['weight_sum'] == 0.0:
        values['loss'] = math.nan  # of nothing: not part of the mean
      self.record.pending.append(values)

  def log_now(self, values: Mapping[str, float]) -> None:
    """Adds the mean since the last line, and other values, to the history."""
    self.check_now()
    self._log(self.step, values)

  def _log(self, step: int, values: Mapping[str, float] = MappingProxyType({})) -> None:
    self._fetch()
    pending, self.record.pending = self.record.pending, []
    names = dict.fromkeys(name for found in pending for name in found)
    self._write(step, {name: _mean(pending, name) for name in names} | dict(values))

  def _write(self, step: int, values: dict[str, float]) -> None:
    self.record.history.append({'step': step, **values})
    if self._events is not None:
      self._events.write(step, values)

  def evaluated(
    self, values: dict[str, float], metric: str, sign: float, min_improvement: float
  ) -> None:
    """Takes note of an evaluation of the present parameters.

    Of several hosts the first's values count: what a scorer of a user's own answers
    may differ between them, and all must choose and stop alike.
    """
    values = json.loads(hosts.gather('evaluation', json.dumps(values))[0])
    record = self.record
    self._write(self.step, {f'eval_{name}': value for name, value in values.items()})
    value = values[metric]
    best = record.best_metric
    if record.best_step < 0 or _improves(value, best, sign, min_improvement):
      record.best_step, record.best_metric = self.step, value
      record.evaluations_since_best = 0
      self._best_params = None  # freed before the new copy is made
      self._best_params = _copy(self.state.params)
    else:
      record.evaluations_since_best += 1
    if math.isnan(value):
      logging.warning('the evaluation at step %d gives %s = nan', self.step, metric)

  def save(self) -> None:
    """Writes a checkpoint of this step, once."""
    self.check_now()
    if self._saved_step == self.step:
      return
    if self._events is not None:
      self._events.flush()
    best = None if self.record.best_step in (-1, self.step) else self._best_params
    record = {'settings': self._settings, **dataclasses.asdict(self.record)}
    self._files.save(self.step, checkpoints_lib.Snapshot(self.state, best, record))
    self._saved_step = self.step

  def report_progress(self, *, always: bool = False) -> None:
    """Tells how many steps have been taken since the last call."""
    if self._progress is None:
      return
    now = time.monotonic()
    if always or now - self._progress_time >= PROGRESS_PERIOD_S:
      self._progress_time = now
      if self.step > self._progress_step:
        self._progress(self.step - self._progress_step, self._note)
        self._progress_step = self.step

  def result(self) -> FitResult:
    """What `fit` returns."""
    record = self.record
    if self._best_params is None:
      return FitResult(self.state, self.state.params, self.step, None, record.history)
    return FitResult(
      self.state,
      self._best_params,
      record.best_step,
      record.best_metric,
      record.history,
    )


def _mean(rows: list[dict[str, float]], name: str) -> float:
  """The mean of the rows' numbers, without those that are not a number."""
  numbers = [row[name] for row in rows if not math.isnan(row.get(name, math.nan))]
  return sum(numbers) / len(numbers) if numbers else math.nan


@jax.jit
def _copy(params: Any) -> Any:
  """A copy that the next train step, which consumes its state, leaves alone."""
  return jax.tree.map(jax.numpy.copy, params)

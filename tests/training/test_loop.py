import logging as std_logging
import math
import os
import random
import signal
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rest_jax.training import events as events_lib
from rest_jax.training import loop
from rest_jax.training import mesh as mesh_lib
from rest_jax.training import step as step_lib
from tests.training import killed_run

MESH = mesh_lib.make_mesh(devices=jax.devices()[:1])


def loss_fn(params, batch, rng):
  """Under SGD of rate 1, p goes up by x in each step; the loss is p + offset."""
  del rng
  move = -batch['x'] * params['p']
  value = jax.lax.stop_gradient(params['p'] - move)  # the loss is p; its gradient -x
  return move + value + batch['offset'], batch['weight'], {}


OPTIMISER = optax.sgd(1.0)
STEP = step_lib.make_train_step(loss_fn, OPTIMISER, mesh=MESH)


def make_batch(step, x=1.0, offset=0.0, weight=1.0):
  del step
  return {
    'x': np.float32(x),
    'offset': np.float32(offset),
    'weight': np.float32(weight),
  }


def fit(work_dir, **kwargs):
  """fit(), in which p is the number of steps done, unless batch_fn says otherwise."""
  init_fn = lambda rng: {'p': jnp.float32(0.0)}
  state = step_lib.init_state(init_fn, OPTIMISER, MESH, rng=jax.random.key(0))
  arguments = {
    'state': state,
    'train_step': STEP,
    'batch_fn': make_batch,
    'num_steps': 12,
    'work_dir': work_dir,
    'seed': 0,
    'eval_period_steps': 2,
    'eval_metric': 'reward',
    'mode': 'max',
    'checkpoint_period_steps': 5,
    'log_period_steps': 3,
  }
  return loop.fit(**{**arguments, **kwargs})


def reward_of(table):
  """An evaluation that knows its values by the number of steps done."""
  return lambda params: {'reward': table[int(params['p'])], 'other': 1.0}


def test_every_step_is_taken_once_and_logged(tmp_path):
  result = fit(tmp_path, num_steps=7)
  assert float(result.state.params['p']) == 7.0 and int(result.state.step) == 7
  assert result.best_step == 7 and result.best_metric is None
  # The loss of step s is s - 1: means of (0, 1, 2), (3, 4, 5), and 6, the rest.
  assert [(h['step'], h['loss']) for h in result.history] == [(3, 1), (6, 4), (7, 6)]
  assert result.history[0]['grad_norm'] == 1.0
  assert STEP.num_compilations == 1


def test_the_best_is_kept_and_not_the_last(tmp_path):
  rewards = {0: 0.5, 2: 0.6, 4: 0.9, 6: 0.8, 8: 0.9, 10: 0.1, 12: 0.2}
  result = fit(tmp_path, evaluate=reward_of(rewards))
  assert (result.best_step, result.best_metric) == (4, 0.9)
  assert float(result.best_params['p']) == 4.0
  assert float(result.state.params['p']) == 12.0
  evaluations = [h for h in result.history if 'eval_reward' in h]
  assert {h['step']: h['eval_reward'] for h in evaluations} == rewards
  assert evaluations[0]['eval_other'] == 1.0


def test_the_incoming_parameters_may_be_the_best(tmp_path):
  loss = lambda params: {'loss': float(params['p'])}
  result = fit(tmp_path, evaluate=loss, eval_metric='loss', mode='min')
  assert (result.best_step, result.best_metric) == (0, 0.0)
  assert float(result.best_params['p']) == 0.0


def test_patience_counts_evaluations_in_a_row(tmp_path):
  rewards = {0: 0.5, 2: 0.4, 4: 0.6, 6: 0.5, 8: 0.6, 10: 0.9, 12: 1.0}
  result = fit(tmp_path / '2', evaluate=reward_of(rewards), patience=2)
  assert int(result.state.step) == 8 and result.best_step == 4
  result = fit(tmp_path / '1', evaluate=reward_of(rewards), patience=1)
  assert int(result.state.step) == 2 and result.best_step == 0
  # Restarted, it does not go on.
  again = fit(tmp_path / '1', evaluate=None, patience=1)
  assert int(again.state.step) == 2
  again = fit(tmp_path / '1', evaluate=reward_of({}), patience=1)
  assert int(again.state.step) == 2 and again.history == result.history
  assert float(again.best_params['p']) == 0.0


def test_an_improvement_must_exceed_the_smallest_that_counts(tmp_path):
  # Steps of 0.25 are exact in binary: 0.5 is not more than 0.5, 0.75 is.
  rewards = {0: 0.0, 2: 0.25, 4: 0.5, 6: 0.75, 8: 1.0, 10: 1.25, 12: 1.25}
  result = fit(tmp_path, evaluate=reward_of(rewards), min_improvement=0.5)
  assert (result.best_step, result.best_metric) == (6, 0.75)


def test_an_evaluation_that_is_nan_is_never_the_best(tmp_path, caplog):
  rewards = {0: math.nan, 2: 0.1, 4: math.nan, 6: 0.05, 8: 0.0, 10: 0.0, 12: 0.0}
  with caplog.at_level(std_logging.WARNING):
    result = fit(tmp_path, evaluate=reward_of(rewards))
  assert (result.best_step, result.best_metric) == (2, 0.1)
  assert sum('reward = nan' in r.getMessage() for r in caplog.records) == 2


@pytest.mark.parametrize('broken', ['loss', 'grad_norm'])
def test_a_number_that_is_not_finite_stops_and_says_where(tmp_path, broken):
  """Batch 7, which makes step 8, between two log lines and two checkpoints."""

  def batch_fn(step):
    value = {'loss': {'offset': math.inf}, 'grad_norm': {'x': math.inf}}[broken]
    return make_batch(step, **(value if step == 7 else {}))

  with pytest.raises(loop.NonFiniteLossError) as caught:
    fit(tmp_path, batch_fn=batch_fn)
  assert caught.value.step == 8
  text = str(caught.value)
  # With an infinite x the loss, p (1 + x) - p x, is NaN as well.
  assert caught.value.metric == 'loss'
  assert 'at step 8 (batch_fn(7))' in text and 'step 5 is kept' in text
  assert 'learning rate' in text
  assert loop.resume_step(tmp_path) == 5
  # With the batch mended, training goes on from there.
  result = fit(tmp_path)
  assert float(result.state.params['p']) == 12.0


def test_no_checkpoint_is_written_after_a_number_that_is_not_finite(tmp_path):
  batch_fn = lambda step: make_batch(step, offset=math.nan if step == 4 else 0.0)
  with pytest.raises(loop.NonFiniteLossError, match='no checkpoint was written'):
    fit(tmp_path, batch_fn=batch_fn, log_period_steps=1000)
  assert loop.resume_step(tmp_path) is None


def test_batches_of_weight_0_are_not_part_of_the_mean_loss(tmp_path):
  batch_fn = lambda step: make_batch(step, weight=float(step % 2))
  result = fit(tmp_path, batch_fn=batch_fn, num_steps=6, log_period_steps=1)
  losses = [h['loss'] for h in result.history]
  assert [math.isnan(loss) for loss in losses] == [True, False] * 3
  assert losses[1::2] == [0.0, 1.0, 2.0]
  assert float(result.state.params['p']) == 3.0


def test_batches_are_asked_for_in_order_one_ahead(tmp_path):
  asked, threads = [], set()

  def batch_fn(step):
    asked.append(step)
    threads.add(threading.current_thread())
    return make_batch(step)

  fit(tmp_path, batch_fn=batch_fn, num_steps=7)
  assert asked == list(range(7))
  assert len(threads) == 1 and threading.current_thread() not in threads
  assert not any(t.name.startswith('batches') for t in threading.enumerate())


def test_an_error_in_batch_fn_arrives(tmp_path):
  def batch_fn(step):
    if step == 6:
      raise OSError('disk gone')
    return make_batch(step)

  with pytest.raises(OSError, match='disk gone'):
    fit(tmp_path, batch_fn=batch_fn)
  assert loop.resume_step(tmp_path) == 5


def test_resuming_continues_state_history_and_events(tmp_path):
  rewards = {0: 0.5, 2: 0.6, 4: 0.9, 6: 0.8, 8: 0.9, 10: 0.1, 12: 0.2}
  expected = fit(tmp_path / 'whole', evaluate=reward_of(rewards))

  def failing(params):
    if int(params['p']) == 8:
      raise KeyboardInterrupt
    return reward_of(rewards)(params)

  directory = tmp_path / 'cut'
  with events_lib.EventWriter(directory) as events, pytest.raises(KeyboardInterrupt):
    fit(directory, evaluate=failing, events=events)
  assert loop.resume_step(directory) == 5
  asked = []

  def batch_fn(step):
    asked.append(step)
    return make_batch(step)

  with events_lib.EventWriter(directory) as events:
    found = fit(
      directory, evaluate=reward_of(rewards), events=events, batch_fn=batch_fn
    )
  assert asked == list(range(5, 12))
  assert found.history == expected.history
  assert (found.best_step, found.best_metric) == (4, 0.9)
  assert float(found.best_params['p']) == 4.0
  lines = events_lib.read_metrics(directory)
  assert [line['step'] for line in lines] == [h['step'] for h in found.history]


def test_the_best_that_is_the_checkpoint_itself_comes_back(tmp_path):
  rewards = {0: 0.1, 5: 0.9, 10: 0.2}
  arguments = {'eval_period_steps': 5, 'evaluate': reward_of(rewards)}

  def batch_fn(step):
    if step == 8:
      raise KeyboardInterrupt
    return make_batch(step)

  with pytest.raises(KeyboardInterrupt):
    fit(tmp_path, batch_fn=batch_fn, num_steps=10, **arguments)
  found = fit(tmp_path, num_steps=10, **arguments)
  assert found.best_step == 5 and float(found.best_params['p']) == 5.0


def test_a_run_with_other_settings_is_refused(tmp_path):
  fit(tmp_path, num_steps=5)
  with pytest.raises(ValueError, match=r"'seed': 0.*'seed': 1.*remove that directory"):
    fit(tmp_path, seed=1)


def test_progress_counts_the_steps_of_this_call(tmp_path):
  calls = []
  fit(tmp_path, num_steps=5, progress=lambda steps, note: calls.append(steps))
  assert sum(calls) == 5
  calls.clear()
  assert loop.resume_step(tmp_path) == 5
  fit(tmp_path, num_steps=8, progress=lambda steps, note: calls.append(steps))
  assert sum(calls) == 3


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ({'mode': 'best'}, "mode 'best' is not one of 'max', 'min'"),
    ({'patience': 0}, 'patience=0 must be at least 1'),
    ({'log_period_steps': 0}, 'log_period_steps=0'),
    ({'min_improvement': -0.1}, 'min_improvement=-0.1'),
    ({'evaluate': lambda p: {'bleu': 1.0, 'chrf': 2.0}}, "'reward' is.*bleu, chrf"),
  ],
)
def test_wrong_arguments_are_refused(tmp_path, arguments, words):
  with pytest.raises(ValueError, match=words):
    fit(tmp_path, **arguments)


@pytest.mark.slow
def test_killed_and_resumed_is_bit_equal(tmp_path):
  """SIGKILL at two random steps, then to the end; compared with a run left alone."""
  seed = int.from_bytes(os.urandom(4), 'little')
  kills = sorted(random.Random(seed).sample(range(8, killed_run.NUM_STEPS), 2))
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}

  def run(directory, *arguments):
    command = [sys.executable, '-m', 'tests.training.killed_run', os.fspath(directory)]
    return subprocess.run(
      [*command, *map(str, arguments)], env=environment, capture_output=True, text=True
    )

  for kill in kills:
    done = run(tmp_path / 'killed', kill)
    assert done.returncode == -signal.SIGKILL, done.stderr
  done = run(tmp_path / 'killed')
  assert done.returncode == 0, done.stderr
  killed_run.main(tmp_path / 'whole')

  found = np.load(tmp_path / 'killed' / 'result.npz')
  expected = np.load(tmp_path / 'whole' / 'result.npz')
  assert set(found) == set(expected)
  for name in expected:
    np.testing.assert_array_equal(found[name], expected[name], f'{name}, kills {kills}')
  story = str(expected['story'])
  assert f'"step": {killed_run.NUM_STEPS}' in story
  lines = [events_lib.read_metrics(tmp_path / d) for d in ('killed', 'whole')]
  without_time = [[{**r, 'wall_time': 0} for r in records] for records in lines]
  assert without_time[0] == without_time[1], kills

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rest_jax.training import mesh as mesh_lib
from rest_jax.training import optimiser as optimiser_lib
from rest_jax.training import step as step_lib
from tests import devices
from tests.training import example

MESH = mesh_lib.make_mesh(devices=jax.devices()[:1])
SGD = optax.sgd(0.1)


def fresh(optimiser=SGD, **kwargs):
  rng = jax.random.key(0)
  return step_lib.init_state(example.init_fn, optimiser, MESH, rng=rng, **kwargs)


def host(tree):
  return jax.tree.map(np.array, tree)  # copies: the state will be donated


def assert_close(found, expected, rtol=2e-6, atol=1e-7):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, expected
  )


def assert_equal(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def linear_loss(params, batch, rng):
  """sum_i w_i x_i p: its gradient is sum w x / sum w."""
  del rng
  loss = jnp.sum(batch['weights'] * batch['x']) * params['p']
  return loss, jnp.sum(batch['weights']), {}


def linear_state(optimiser, value=1.0, **kwargs):
  init_fn = lambda rng: {'p': jnp.float32(value)}
  return step_lib.init_state(init_fn, optimiser, MESH, rng=jax.random.key(0), **kwargs)


def linear_batch(x, weights):
  return {'x': np.float32(x), 'weights': np.float32(weights)}


def test_one_step_by_hand():
  step = step_lib.make_train_step(linear_loss, SGD, mesh=MESH)
  batch = linear_batch([1, 2, 3, 100], [1, 2, 1, 0])
  state, metrics = step(linear_state(SGD, 4.0), batch, jax.random.key(0))
  # Gradient (1 + 4 + 3) / 4 = 2; without weights it would be 106 / 4.
  assert float(metrics['loss']) == 8.0
  assert float(metrics['grad_norm']) == 2.0
  assert float(metrics['update_norm']) == pytest.approx(0.2)
  assert float(metrics['weight_sum']) == 4.0
  assert float(state.params['p']) == pytest.approx(3.8)
  assert int(state.step) == 1


@pytest.mark.parametrize('num_microbatches', [2, 4, 16])
def test_accumulation_equals_the_full_batch(num_microbatches):
  """Weights differ between microbatches; averaging their losses would be wrong."""
  results = []
  for parts in (1, num_microbatches):
    step = step_lib.make_train_step(
      example.loss_fn, SGD, mesh=MESH, num_microbatches=parts
    )
    batch = example.batch_fn(0)
    batch['weights'][: example.ROWS // 2] *= 10.0
    state, metrics = step(fresh(), batch, jax.random.key(0))
    results.append((host(state.params), host(metrics)))
  assert_close(*results, rtol=1e-5)


def test_rows_go_to_microbatches_in_turn():
  """Row r is in microbatch r modulo M, and scalars are in all of them."""

  def loss_fn(params, batch, rng):
    square_of_sum = jnp.square(jnp.sum(batch['x'])) * batch['factor']
    return params['p'] * square_of_sum, jnp.sum(batch['weights']), {}

  step = step_lib.make_train_step(loss_fn, SGD, mesh=MESH, num_microbatches=2)
  batch = {**linear_batch([1, 2, 3, 4], [1, 1, 1, 1]), 'factor': np.float32(0.5)}
  _, metrics = step(linear_state(SGD, 1.0), batch, jax.random.key(0))
  # ((1 + 3)^2 + (2 + 4)^2) / 2 / 4 = 6.5; halves in order would give 7.25.
  assert float(metrics['loss']) == 6.5


def test_a_batch_of_weight_0_moves_nothing():
  optimiser = optimiser_lib.adamw(0.1, weight_decay=0.5, b1=0.9)
  step = step_lib.make_train_step(example.loss_fn, optimiser, mesh=MESH)
  rng = jax.random.key(0)
  state, _ = step(fresh(optimiser), example.batch_fn(0), rng)
  before = host(state)
  batch = example.batch_fn(1)
  batch['weights'][:] = 0.0
  batch['y'][0] = np.nan  # of a row that is not there: 0 * nan is nan
  state, metrics = step(state, batch, rng)
  assert_equal(host(state.params), before.params)
  assert_equal(host(state.opt_state), before.opt_state)
  assert int(state.step) == 2
  for name in ('loss', 'grad_norm', 'update_norm', 'weight_sum'):
    assert float(metrics[name]) == 0.0, name
  _, metrics = step(state, example.batch_fn(2), rng)
  assert float(metrics['update_norm']) > 0.0


def test_a_weight_that_is_nan_is_not_taken_for_0():
  step = step_lib.make_train_step(linear_loss, SGD, mesh=MESH)
  batch = linear_batch([1, 2], [1, np.nan])
  _, metrics = step(linear_state(SGD), batch, jax.random.key(0))
  assert np.isnan(metrics['loss']) and np.isnan(metrics['grad_norm'])


def test_metrics_are_sum_over_weight():
  def loss_fn(params, batch, rng):
    loss, weight, _ = linear_loss(params, batch, rng)
    return loss, weight, {'a': (jnp.sum(batch['x']), 4.0), 'none': (0.0, 0.0)}

  step = step_lib.make_train_step(loss_fn, SGD, mesh=MESH, num_microbatches=2)
  batch = linear_batch([1, 2, 3, 4], [1, 1, 1, 1])
  _, metrics = step(linear_state(SGD), batch, jax.random.key(0))
  assert float(metrics['a']) == 10.0 / 8.0
  assert np.isnan(metrics['none'])
  assert 'learning_rate' not in metrics  # optax's own sgd does not tell


def test_learning_rate_scale_scales_the_update_without_compiling_again():
  schedule = optimiser_lib.constant_schedule(0.4, 2)
  optimiser = optimiser_lib.adamw(schedule, weight_decay=0.1)
  step = step_lib.make_train_step(example.loss_fn, optimiser, mesh=MESH)
  rng = step.key(0)
  moves = {}
  for scale in (1.0, 0.25, 0.0):
    state = fresh(optimiser, learning_rate_scale=scale)
    before = host(state.params)
    state, metrics = step(state, step.put_batch(example.batch_fn(0)), rng)
    assert float(metrics['learning_rate']) == pytest.approx(0.2 * scale)
    moves[scale] = jax.tree.map(lambda a, b: a - b, host(state.params), before)
    state, metrics = step(state, step.put_batch(example.batch_fn(1)), rng)
    assert float(metrics['learning_rate']) == pytest.approx(0.4 * scale)
  assert step.num_compilations == 1
  quarter = jax.tree.map(lambda move: 0.25 * move, moves[1.0])
  assert_close(moves[0.25], quarter, rtol=1e-4, atol=1e-6)
  assert all(np.all(move == 0) for move in jax.tree.leaves(moves[0.0]))


def test_the_state_is_donated():
  step = step_lib.make_train_step(example.loss_fn, SGD, mesh=MESH)
  state = fresh()
  step(state, example.batch_fn(0), jax.random.key(0))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_dropout_depends_on_seed_step_and_microbatch():
  loss_fn = functools.partial(example.loss_fn, dropout_rate=0.5)

  def loss(seed, step, parts=1):
    train_step = step_lib.make_train_step(
      loss_fn, SGD, mesh=MESH, num_microbatches=parts
    )
    state = fresh()._replace(step=jnp.int32(step))
    _, metrics = train_step(state, example.batch_fn(0), jax.random.key(seed))
    return float(metrics['loss'])

  assert loss(0, 0) == loss(0, 0)
  assert len({loss(0, 0), loss(0, 1), loss(1, 0)}) == 3

  def noise(params, batch, rng):
    draw = jax.random.uniform(rng)
    return params['p'] * draw, jnp.sum(batch['weights']), {'sq': (draw**2, 1.0)}

  step = step_lib.make_train_step(noise, SGD, mesh=MESH, num_microbatches=2)
  batch = linear_batch([1, 1], [1, 1])
  _, metrics = step(linear_state(SGD), batch, jax.random.key(0))
  # The mean draw of two microbatches, and the mean square: one key for both would
  # make the variance 0.
  assert float(metrics['sq']) - float(metrics['loss']) ** 2 > 1e-6


def test_state_from_params_leaves_them_valid():
  params = fresh().params
  optimiser = optimiser_lib.adafactor(0.1)
  state = step_lib.state_from_params(params, optimiser, MESH, learning_rate_scale=0.5)
  assert float(state.learning_rate_scale) == 0.5 and int(state.step) == 0
  assert_equal(host(state.params), host(params))
  step = step_lib.make_train_step(example.loss_fn, optimiser, mesh=MESH)
  before = host(params)
  state, _ = step(state, example.batch_fn(0), jax.random.key(0))
  assert_equal(host(params), before)
  born = fresh(optimiser)
  assert jax.tree.structure(state) == jax.tree.structure(born)


@pytest.mark.parametrize(
  ('metrics', 'words'),
  [
    ({'loss': (1.0, 1.0)}, r"metrics \['loss'\], names of the train step"),
    ({'a': (jnp.ones(3), 1.0)}, r"'a'.* is not \(sum, weight\).*\(3,\)"),
  ],
)
def test_wrong_metrics_are_refused(metrics, words):
  def loss_fn(params, batch, rng):
    return *linear_loss(params, batch, rng)[:2], metrics

  step = step_lib.make_train_step(loss_fn, SGD, mesh=MESH)
  with pytest.raises(ValueError, match=words):
    step(linear_state(SGD), linear_batch([1], [1]), jax.random.key(0))


def test_a_batch_that_microbatches_do_not_divide_is_refused():
  step = step_lib.make_train_step(linear_loss, SGD, mesh=MESH, num_microbatches=3)
  with pytest.raises(ValueError, match=r'4 rows.*num_microbatches=3.*multiple of 3'):
    step(linear_state(SGD), linear_batch([1] * 4, [1] * 4), jax.random.key(0))
  with pytest.raises(ValueError, match='num_microbatches=0'):
    step_lib.make_train_step(linear_loss, SGD, mesh=MESH, num_microbatches=0)


def test_lower_needs_no_arrays():
  optimiser = optimiser_lib.adafactor(0.1)
  step = step_lib.make_train_step(example.loss_fn, optimiser, mesh=MESH)
  abstract = step_lib.abstract_state(example.init_fn, optimiser, MESH)
  state = fresh(optimiser)
  same = lambda a, b: (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)
  assert jax.tree.all(jax.tree.map(same, abstract, state))
  batch = jax.eval_shape(lambda: example.batch_fn(0))
  key = jax.eval_shape(lambda: jax.random.key(0))
  text = step.lower(abstract, batch, key).as_text()
  assert 'module' in text


@pytest.mark.slow
def test_eight_devices_equal_one():
  environment = {
    **os.environ,
    'XLA_FLAGS': devices.xla_flags(8),
    'PYTHONPATH': os.pathsep.join(sys.path),
  }
  done = subprocess.run(
    [sys.executable, '-m', 'tests.training.eight_devices'],
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  results = json.loads(done.stdout)
  assert len(results) == 3
  for name, found in results.items():
    # Parameters and metrics are of the order of 1 to 10; sums over devices are in
    # another order, a few units in the last place after three steps.
    assert found['params'] < 2e-6, name
    assert found['metrics'] < 2e-5, name
    assert found['compilations'] == 1, name
  # embed lies over fsdp and mlp over model, in Adam's moments as in parameters.
  for name, shard in {
    'adamw (2, 2, 2)': [4, 8],
    'adamw (1, 1, 8)': [8, 2],
    'adafactor (4, 2, 1)': [4, 16],
  }.items():
    assert results[name]['shard'] == shard
    moments = [shard, shard] if name.startswith('adamw') else []
    assert results[name]['moment_shards'] == moments
  assert "third: axis 'heads' of size 3 is replicated" in done.stderr

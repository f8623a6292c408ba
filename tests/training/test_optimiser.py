import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rest_jax.training import optimiser as optimiser_lib


def rates(schedule, steps):
  return [float(schedule(jnp.int32(step))) for step in steps]


def test_constant_schedule_by_hand():
  schedule = optimiser_lib.constant_schedule(0.8, 4)
  # (t + 1) / 4 of 0.8; a warmup from t would begin with 0.
  assert rates(schedule, [0, 1, 3, 4, 100]) == pytest.approx([0.2, 0.4, 0.8, 0.8, 0.8])
  assert rates(optimiser_lib.constant_schedule(0.8), [0, 9]) == pytest.approx([0.8] * 2)


def test_inverse_square_root_schedule_by_hand():
  schedule = optimiser_lib.inverse_square_root_schedule(0.6, 4)
  # 0.6 is reached in the 4th update; the 16th has sqrt(4 / 16) = 1/2 of it.
  found = rates(schedule, [0, 3, 15, 63])
  assert found == pytest.approx([0.15, 0.6, 0.3, 0.15])
  found = rates(optimiser_lib.inverse_square_root_schedule(1.0), [0, 3, 99])
  assert found == pytest.approx([1.0, 0.5, 0.1])


def test_linear_decay_schedule_by_hand():
  schedule = optimiser_lib.linear_decay_schedule(1.0, 2, num_steps=12, end_fraction=0.5)
  # Falls from 1 at t = 2 to 1/2 at t = 12, 0.05 an update.
  found = rates(schedule, [0, 1, 2, 7, 11, 12, 50])
  assert found == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.55, 0.5, 0.5])


def test_cosine_decay_schedule_by_hand():
  schedule = optimiser_lib.cosine_decay_schedule(2.0, num_steps=12)
  # cos(pi / 3) = 1/2 at a third of the way: 3/4 of the rate is left.
  assert rates(schedule, [0, 4, 6, 8, 12]) == pytest.approx(
    [2.0, 1.5, 1.0, 0.5, 0.0], abs=1e-6
  )


@pytest.mark.parametrize(
  ('make', 'words'),
  [
    (lambda: optimiser_lib.constant_schedule(-1.0), 'learning_rate=-1.0'),
    (lambda: optimiser_lib.constant_schedule(1.0, -3), 'warmup_steps=-3'),
    (
      lambda: optimiser_lib.linear_decay_schedule(1.0, 5, num_steps=5),
      'num_steps=5 must exceed warmup_steps=5',
    ),
    (
      lambda: optimiser_lib.cosine_decay_schedule(1.0, num_steps=5, end_fraction=2.0),
      'end_fraction=2.0',
    ),
    (lambda: optimiser_lib.adamw(1.0, clip_norm=-1.0), 'clip_norm=-1.0'),
  ],
)
def test_wrong_arguments_are_refused(make, words):
  with pytest.raises(ValueError, match=words):
    make()


def params_and_grads(num_steps):
  rng = np.random.default_rng(0)
  shapes = {'kernel': (130, 140), 'scale': (5,)}  # one factored, one not
  draw = lambda: {
    name: jnp.asarray(rng.normal(size=shape), jnp.float32)
    for name, shape in shapes.items()
  }
  return draw(), [draw() for _ in range(num_steps)]


def run(optimiser, params, grads):
  state = optimiser.init(params)
  for grad in grads:
    updates, state = optimiser.update(grad, state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def assert_close(found, expected):
  # The factors are multiplied in another order: a few units in the last place.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7), found, expected
  )


def test_adafactor_is_optax_adafactor():
  params, grads = params_and_grads(4)
  found, _ = run(optimiser_lib.adafactor(0.01), params, grads)
  expected, _ = run(optax.adafactor(0.01), params, grads)
  assert_close(found, expected)


def test_adamw_is_optax_adamw():
  params, grads = params_and_grads(4)
  schedule = optimiser_lib.linear_decay_schedule(0.01, 2, num_steps=10)
  found, _ = run(optimiser_lib.adamw(schedule, weight_decay=0.1), params, grads)
  rank_2 = lambda tree: {'kernel': True, 'scale': False}
  expected, _ = run(optax.adamw(schedule, weight_decay=0.1, mask=rank_2), params, grads)
  assert_close(found, expected)


def test_clip_norm_is_of_all_gradients_together():
  params = {'a': jnp.zeros(1), 'b': jnp.zeros(1)}
  grads = {'a': jnp.array([30.0]), 'b': jnp.array([40.0])}  # norm 50
  adam = lambda clip: optimiser_lib.adamw(
    1.0, b1=0.0, b2=0.0, epsilon=1.0, clip_norm=clip
  )
  # b1 = b2 = 0: update = -g / (|g| + 1), g after clipping.
  found, _ = run(adam(5.0), params, [grads])
  np.testing.assert_allclose(found['a'], [-3 / 4], rtol=1e-6)
  np.testing.assert_allclose(found['b'], [-4 / 5], rtol=1e-6)
  found, _ = run(adam(None), params, [grads])
  np.testing.assert_allclose(found['a'], [-30 / 31], rtol=1e-6)


def test_learning_rate_is_that_of_the_latest_update():
  params, grads = params_and_grads(3)
  optimiser = optimiser_lib.adamw(optimiser_lib.constant_schedule(0.8, 4))
  _, state = run(optimiser, params, grads)
  assert float(optimiser_lib.learning_rate_of(state)) == pytest.approx(0.6)
  assert optimiser_lib.learning_rate_of(optax.sgd(0.1).init(params)) is None


@pytest.mark.parametrize(
  'optimiser',
  [optimiser_lib.adafactor(0.05), optimiser_lib.adamw(0.05)],
  ids=['adafactor', 'adamw'],
)
def test_a_quadratic_goes_down(optimiser):
  target = jnp.linspace(1.0, 3.0, 8)
  loss = lambda params: jnp.sum(jnp.square(params - target))

  @jax.jit
  def step(params, state):
    updates, state = optimiser.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  params = jnp.full(8, 0.5)
  state = optimiser.init(params)
  first = float(loss(params))
  for _ in range(200):
    params, state = step(params, state)
  assert float(loss(params)) < 1e-2 * first


def test_settings_build_the_optimiser_they_describe():
  params, grads = params_and_grads(3)
  settings = optimiser_lib.AdamW(
    learning_rate=0.1,
    warmup_steps=2,
    schedule=optimiser_lib.inverse_square_root_schedule,
    clip_norm=0.5,
    weight_decay=0.01,
  )
  schedule = optimiser_lib.inverse_square_root_schedule(0.1, 2)
  direct = optimiser_lib.adamw(schedule, clip_norm=0.5, weight_decay=0.01)
  assert_close(run(settings(), params, grads)[0], run(direct, params, grads)[0])
  settings = optimiser_lib.Adafactor(learning_rate=0.1, decay_rate=0.7, clip_norm=0.5)
  direct = optimiser_lib.adafactor(0.1, decay_rate=0.7, clip_norm=0.5)
  assert_close(run(settings(), params, grads)[0], run(direct, params, grads)[0])
  assert math.isfinite(float(run(settings(), params, grads)[0]['scale'][0]))

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import behavioural_cloning
from rest_jax.losses import offline_actor_critic as lib
from rest_jax.losses import returns as returns_lib

SHAPE = (2, 3, 4)

# Compiled whole: op by op, every small operation would be a program of its own.
_compiled = jax.jit(lib.offline_actor_critic_loss)
_gradient = jax.jit(
  jax.value_and_grad(
    lambda *args: lib.offline_actor_critic_loss(*args).loss_sum, argnums=(0, 1, 2, 3)
  )
)


def _inputs(seed=0):
  rng = np.random.default_rng(seed)
  log_probs = jnp.asarray(-rng.gamma(1.0, size=SHAPE), jnp.float32)
  values = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
  rewards = jnp.asarray(rng.normal(size=SHAPE[:2]), jnp.float32)
  lengths = rng.integers(1, 5, size=SHAPE[:2])
  weights = jnp.asarray(np.arange(4) < lengths[..., None], jnp.float32)
  keep = jnp.asarray([[True, False, True], [True, False, True]])
  returns = returns_lib.monte_carlo_returns(rewards, weights, discount=0.9)
  return log_probs, returns, values, weights, keep


def _slow(log_probs, returns, values, weights, keep):
  """Token by token, in float64."""
  log_probs, returns, values, weights, keep = map(
    np.asarray, (log_probs, returns, values, weights, keep)
  )
  total = count = 0.0
  for index in np.ndindex(*SHAPE):
    if keep[index[:2]] and weights[index]:
      advantage = float(returns[index]) - float(values[index])
      total -= float(weights[index]) * advantage * float(log_probs[index])
      count += float(weights[index])
  return total, count


def test_worked_by_hand():
  # Reward 1 at the second token, discount 1/2: returns 1/2 and 1. Values 1/4 and 3/2
  # leave advantages 1/4 and -1/2. With log pi = log 1/16 and log 1/4 the loss is
  # log 16 / 4 - log 4 / 2 = 0; with values added, or swapped signs, it is not:
  # 3/4 log 16 + 5/2 log 4 = 4 log 4. At log 1/2 for the second, it is log 2 / 2.
  returns = returns_lib.monte_carlo_returns(
    jnp.array([[1.0]]), jnp.array([[[1.0, 1.0, 0.0]]]), discount=0.5
  )
  values = jnp.array([[[0.25, 1.5, 7.0]]])
  weights = jnp.array([[[1.0, 1.0, 0.0]]])
  keep = jnp.array([[True]])
  for second, expected in ((Fraction(1, 4), 0.0), (Fraction(1, 2), math.log(2) / 2)):
    probabilities = [[[Fraction(1, 16), second, Fraction(1, 2)]]]
    log_probs = jnp.log(jnp.array(np.array(probabilities, float), jnp.float32))
    loss = _compiled(log_probs, returns, values, weights, keep)
    np.testing.assert_allclose(loss, (expected, 2), atol=1e-6)


@pytest.mark.parametrize('jit', [False, True])
def test_equals_a_slow_loop(jit):
  args = _inputs()
  loss = (_compiled if jit else lib.offline_actor_critic_loss)(*args)
  np.testing.assert_allclose(loss, _slow(*args), rtol=2e-6)
  assert loss.loss_sum.dtype == loss.weight_sum.dtype == jnp.float32


def test_gradient_equals_finite_differences_and_stays_out_of_the_values():
  log_probs, returns, values, weights, keep = _inputs()
  weights *= 0.5
  _, gradients = _gradient(log_probs, returns, values, weights, keep)
  step = 1e-3
  for index in np.ndindex(*SHAPE):
    sides = []
    for sign in (1, -1):
      moved = np.array(log_probs, np.float64)
      moved[index] += sign * step
      sides.append(_slow(moved, returns, values, weights, keep)[0])
    difference = (sides[0] - sides[1]) / (2 * step)
    np.testing.assert_allclose(gradients[0][index], difference, atol=1e-6)
  assert gradients[0].any()
  for gradient in gradients[1:]:  # the advantage is a constant
    assert not gradient.any()


@pytest.mark.parametrize('filler', [np.nan, np.inf, -np.inf])
def test_padding_and_dropped_candidates_may_hold_anything(filler):
  *arrays, weights, keep = _inputs()
  used = (weights != 0) & keep[..., None]
  other = [jnp.where(used, x, jnp.float32(filler)) for x in arrays]
  expected, actual = (_gradient(*x, weights, keep) for x in (arrays, other))
  eager = lib.offline_actor_critic_loss(*other, weights, keep).loss_sum
  np.testing.assert_allclose(eager, expected[0], rtol=1e-5)
  np.testing.assert_array_equal(actual[0], expected[0])
  np.testing.assert_array_equal(actual[1][0], expected[1][0])


def test_nothing_kept_is_zero_with_a_zero_gradient():
  *arrays, keep = _inputs()
  loss, gradients = _gradient(*arrays, jnp.zeros_like(keep))
  assert loss == 0 and not gradients[0].any()
  assert _compiled(*arrays, jnp.zeros_like(keep)).weight_sum == 0


def test_all_kept_is_the_filtered_loss_and_the_rest():
  *arrays, keep = _inputs()
  whole = _compiled(*arrays, jnp.ones_like(keep))
  parts = [_compiled(*arrays, verdict) for verdict in (keep, ~keep)]
  np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=2e-6)


def test_constant_rewards_and_right_values_teach_nothing():
  log_probs, _, _, weights, keep = _inputs()
  rewards = jnp.full(SHAPE[:2], 0.7, jnp.float32)
  returns = returns_lib.monte_carlo_returns(rewards, weights, discount=0.9)
  loss, gradients = _gradient(log_probs, returns, returns, weights, keep)
  assert loss == 0 and not gradients[0].any()


def test_an_advantage_of_one_is_behavioural_cloning():
  log_probs, returns, _, weights, keep = _inputs()
  loss = _compiled(log_probs, returns, returns - 1, weights, keep)
  cloning = behavioural_cloning.behavioural_cloning_loss(log_probs, weights, keep)
  np.testing.assert_allclose(loss, cloning, rtol=1e-6)


def test_grouped_equals_ungrouped_in_any_order_and_cut():
  args = _inputs()
  whole = _compiled(*args)
  order = np.random.default_rng(1).permutation(6)
  flat = [x.reshape(6, 1, *x.shape[2:])[order] for x in args]
  np.testing.assert_allclose(_compiled(*flat), whole, rtol=2e-6)
  parts = [_compiled(*(x[i : i + 1] for x in flat)) for i in range(6)]
  np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=2e-6)


@pytest.mark.parametrize(
  ('shapes', 'message'),
  [
    (((6, 4), (6, 4), (6, 4), (6, 4), (6,)), 'samples = 1'),
    ((SHAPE, (2, 3), SHAPE, SHAPE, (2, 3)), 'monte_carlo_returns'),
    ((SHAPE, SHAPE, (2, 3), SHAPE, (2, 3)), r'values \(2, 3\)'),
  ],
)
def test_ranks_are_checked_when_traced(shapes, message):
  dtypes = (jnp.float32,) * 4 + (bool,)
  args = [jax.ShapeDtypeStruct(*pair) for pair in zip(shapes, dtypes, strict=True)]
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(lib.offline_actor_critic_loss, *args)

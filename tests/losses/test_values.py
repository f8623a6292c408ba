import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from rest_jax.losses import returns as returns_lib
from rest_jax.losses import values as lib

SHAPE = (2, 3, 4)

# Compiled whole: op by op, every small operation would be a program of its own.
_compiled = jax.jit(lib.value_loss)
_gradient = jax.jit(
  jax.value_and_grad(lambda *args: lib.value_loss(*args).loss_sum, argnums=(0, 1, 2))
)


def _inputs(seed=0):
  rng = np.random.default_rng(seed)
  values = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
  rewards = jnp.asarray(rng.normal(size=SHAPE[:2]), jnp.float32)
  lengths = rng.integers(1, 5, size=SHAPE[:2])
  weights = jnp.asarray(np.arange(4) < lengths[..., None], jnp.float32)
  keep = jnp.asarray([[True, False, True], [False, False, True]])
  returns = returns_lib.monte_carlo_returns(rewards, weights, discount=0.9)
  return values, returns, weights, keep


def test_worked_by_hand():
  # Errors 1/2 and -3/2 of weight 1, and 1 of weight 1/2: 1/4 + 9/4 + 1/2 = 3 over
  # 5/2. The padded error would add 81, the dropped candidate's 16 over 4 tokens more.
  values = jnp.array([[[1.5, 0.5, 2.0, 10.0], [3.0, 3.0, 3.0, 3.0]]])
  returns = jnp.array([[[1.0, 2.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]])
  weights = jnp.array([[[1.0, 1.0, 0.5, 0.0], [1.0, 1.0, 1.0, 1.0]]])
  loss = _compiled(values, returns, weights, jnp.array([[True, False]]))
  assert loss == (3, 2.5)
  assert loss.loss_sum.dtype == loss.weight_sum.dtype == jnp.float32


@pytest.mark.parametrize('jit', [False, True])
def test_equals_a_slow_loop(jit):
  values, returns, weights, keep = _inputs()
  loss = (_compiled if jit else lib.value_loss)(values, returns, weights, keep)
  values, returns, weights, keep = map(np.asarray, (values, returns, weights, keep))
  total = count = 0.0
  for index in np.ndindex(*SHAPE):
    if keep[index[:2]] and weights[index]:
      total += (float(values[index]) - float(returns[index])) ** 2
      count += 1
  np.testing.assert_allclose(loss, (total, count), rtol=1e-6)


def test_gradient_equals_finite_differences_and_stays_out_of_the_returns():
  values, returns, weights, keep = _inputs()
  check = lambda values: _compiled(values, returns, weights, keep).loss_sum
  jax.test_util.check_grads(check, (values,), 1, ['rev'], atol=1e-2, rtol=1e-2)
  _, gradients = _gradient(values, returns, weights, keep)
  kept = weights * keep[..., None].astype(jnp.float32)
  np.testing.assert_allclose(gradients[0], 2 * kept * (values - returns), rtol=1e-6)
  assert gradients[0].any() and not gradients[1].any() and not gradients[2].any()


@pytest.mark.parametrize('filler', [np.nan, np.inf, -np.inf])
def test_padding_and_dropped_candidates_may_hold_anything(filler):
  values, returns, weights, keep = _inputs()
  used = (weights != 0) & keep[..., None]
  other = [jnp.where(used, x, jnp.float32(filler)) for x in (values, returns)]
  expected = _gradient(values, returns, weights, keep)
  # Not compiled too: XLA turns a product with a mask into a selection by itself.
  eager = lib.value_loss(*other, weights, keep).loss_sum
  np.testing.assert_allclose(eager, expected[0], rtol=1e-6)
  actual = _gradient(*other, weights, keep)
  np.testing.assert_array_equal(actual[0], expected[0])
  np.testing.assert_array_equal(actual[1][0], expected[1][0])


def test_nothing_kept_is_zero_with_a_zero_gradient():
  values, returns, weights, keep = _inputs()
  args = (values, returns, weights, jnp.zeros_like(keep))
  loss, gradients = _gradient(*args)
  assert loss == 0 and _compiled(*args).weight_sum == 0
  assert not gradients[0].any()


def test_the_best_constant_value_is_the_mean_return_of_what_is_kept():
  _, returns, weights, keep = _inputs()
  kept = np.asarray(weights) * np.asarray(keep)[..., None]
  mean = np.average(returns, weights=kept)
  _, gradients = _gradient(jnp.full(SHAPE, mean, jnp.float32), returns, weights, keep)
  np.testing.assert_allclose(gradients[0].sum(), 0, atol=1e-5)
  everything = jnp.ones_like(keep)
  _, gradients = _gradient(
    jnp.full(SHAPE, mean, jnp.float32), returns, weights, everything
  )
  assert abs(gradients[0].sum()) > 0.1  # of other candidates, another mean


def test_grouped_equals_ungrouped_in_any_order_and_cut():
  args = _inputs()
  whole = _compiled(*args)
  order = np.random.default_rng(1).permutation(6)
  flat = [x.reshape(6, 1, *x.shape[2:])[order] for x in args]
  np.testing.assert_allclose(_compiled(*flat), whole, rtol=1e-6)
  parts = [_compiled(*(x[i : i + 1] for x in flat)) for i in range(6)]
  np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=1e-6)


def test_bfloat16_values_are_compared_in_float32():
  values = jnp.full((1, 1, 1), 1.0, jnp.bfloat16)
  returns = jnp.full((1, 1, 1), 1.001, jnp.float32)
  loss = _compiled(values, returns, jnp.ones((1, 1, 1)), jnp.ones((1, 1), bool))
  # bfloat16(1.001) is 1: a difference in bfloat16 would be 0.
  np.testing.assert_allclose(loss.loss_sum, 1e-6, rtol=1e-3)


@pytest.mark.parametrize(
  ('shapes', 'message'),
  [
    (((6, 4), (6, 4), (6, 4), (6,)), 'samples = 1'),
    ((SHAPE, (2, 3), SHAPE, (2, 3)), 'monte_carlo_returns'),
    ((SHAPE, SHAPE, SHAPE, SHAPE), 'must be bool'),
  ],
)
def test_ranks_are_checked_when_traced(shapes, message):
  dtypes = (jnp.float32, jnp.float32, jnp.float32, bool)
  args = [jax.ShapeDtypeStruct(*pair) for pair in zip(shapes, dtypes, strict=True)]
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(lib.value_loss, *args)

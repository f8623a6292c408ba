import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from rest_jax.losses import regression

PREDICTIONS = [[0.5, 2.0, -1.0], [0.25, 0.0, 3.0]]
RATINGS = [[1.0, 2.0, 1.0], [0.75, 9.0, 2.0]]
MASK = [[True, True, False], [True, False, True]]


_compiled = jax.jit(regression.regression_loss)
_gradient = jax.jit(
  jax.value_and_grad(
    lambda p, r, mask: regression.regression_loss(p, r, mask).loss_sum, argnums=(0, 1)
  )
)


def _inputs():
  return jnp.array(PREDICTIONS), jnp.array(RATINGS), jnp.array(MASK)


@pytest.mark.parametrize('jit', [False, True])
def test_worked_by_hand(jit):
  # 1/4 + 0 + 1/4 + 1 over 4; the masked errors would add 4 and 81 over 6.
  loss = (_compiled if jit else regression.regression_loss)(*_inputs())
  assert (loss.loss_sum, loss.weight_sum) == (1.5, 4)
  assert loss.loss_sum.dtype == loss.weight_sum.dtype == jnp.float32


def test_gradient_by_hand_and_none_into_the_ratings():
  predictions, ratings, mask = _inputs()
  _, gradients = _gradient(predictions, ratings, mask)
  # 2 * (prediction - rating)
  np.testing.assert_array_equal(gradients[0], [[-1, 0, 0], [-1, 0, 2]])
  assert not gradients[1].any()
  check = lambda p: _compiled(p, ratings, mask).loss_sum
  jax.test_util.check_grads(check, (predictions,), 1, ['rev'], atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize('filler', [np.nan, np.inf, -np.inf, 1e30])
def test_masked_slots_may_hold_anything(filler):
  predictions, ratings, mask = _inputs()
  expected = _gradient(predictions, ratings, mask)
  filler = jnp.float32(filler)
  other = [jnp.where(mask, side, filler) for side in (predictions, ratings)]
  # Not compiled too: XLA turns a product with a mask into a selection by itself.
  assert regression.regression_loss(*other, mask).loss_sum == expected[0]
  actual = _gradient(*other, mask)
  np.testing.assert_array_equal(actual[0], expected[0])
  np.testing.assert_array_equal(actual[1][0], expected[1][0])


def test_all_masked_is_zero_with_a_zero_gradient():
  predictions, ratings, mask = _inputs()
  none = jnp.zeros_like(mask)
  loss, (gradient, _) = _gradient(predictions, ratings, none)
  assert loss == 0 and not gradient.any()
  assert _compiled(predictions, ratings, none).weight_sum == 0


def test_sums_add_up_over_any_cut_of_the_batch():
  whole = _compiled(*_inputs())
  parts = [
    _compiled(*(np.asarray(x)[i:, j:][:1, :1] for x in _inputs()))
    for i, j in np.ndindex(2, 3)
  ]
  assert sum(p.loss_sum for p in parts) == whole.loss_sum
  assert sum(p.weight_sum for p in parts) == whole.weight_sum


def test_bfloat16_predictions_are_compared_in_float32():
  predictions = jnp.full((1, 1), 1.0, jnp.bfloat16)
  ratings = jnp.full((1, 1), 1.001, jnp.float32)
  mask = jnp.ones((1, 1), bool)
  loss = _compiled(predictions, ratings, mask)
  # bfloat16(1.001) is 1: a difference in bfloat16 would be 0.
  np.testing.assert_allclose(loss.loss_sum, 1e-6, rtol=1e-3)


@pytest.mark.parametrize(
  ('shapes', 'mask_dtype', 'message'),
  [
    (((6,), (6,), (6,)), bool, r'\[batch, samples\]'),
    (((2, 3), (2, 1), (2, 3)), bool, r'\[batch, samples\]'),
    (((2, 3), (2, 3), (2,)), bool, r'\[batch, samples\]'),
    (((2, 3), (2, 3), (2, 3)), jnp.float32, 'must be bool'),
  ],
)
def test_ranks_are_checked_when_traced(shapes, mask_dtype, message):
  dtypes = (jnp.float32, jnp.float32, mask_dtype)
  args = [jax.ShapeDtypeStruct(*pair) for pair in zip(shapes, dtypes, strict=True)]
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(regression.regression_loss, *args)

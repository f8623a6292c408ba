import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from rest_jax.losses import bradley_terry

REWARDS = [[0.5, -1.0, 2.0], [1.5, 1.5, 0.0]]
MASK = [[True, True, True], [True, True, False]]
PREFERENCES = [
  [[0, 2, 0], [1, 0, 0], [3, 0, 0]],
  [[0, 1, 4], [0, 0, 0], [4, 4, 4]],  # the last row and column are of an empty slot
]


_compiled = jax.jit(bradley_terry.bradley_terry_loss)
_gradient = jax.jit(
  jax.value_and_grad(
    lambda r, n, mask: bradley_terry.bradley_terry_loss(r, n, mask).loss_sum,
    argnums=(0, 1),
  )
)
_preferences = jax.jit(bradley_terry.rating_preferences, static_argnames=('margin',))


def _inputs():
  return (
    jnp.array(REWARDS, jnp.float32),
    jnp.array(PREFERENCES, jnp.float32),
    jnp.array(MASK),
  )


@pytest.mark.parametrize('jit', [False, True])
def test_worked_by_hand(jit):
  # Candidate 0 is ahead by log 3, so it wins with 3/4: preferred to 1 twice and beaten
  # once, -2 log(3/4) - log(1/4). The wrong sign would give -2 log(1/4) - log(3/4).
  rewards = jnp.array([[jnp.log(3.0), 0.0]])
  preferences = jnp.array([[[0, 2], [1, 0]]], jnp.float32)
  function = _compiled if jit else bradley_terry.bradley_terry_loss
  sums = function(rewards, preferences, jnp.ones((1, 2), bool))
  expected = -2 * np.log(3 / 4) - np.log(1 / 4)
  np.testing.assert_allclose(sums.loss_sum, expected, rtol=1e-6)
  assert (sums.weight_sum, sums.correct_sum) == (3, 2)
  assert {x.dtype for x in sums} == {jnp.dtype(jnp.float32)}


def test_gradient_by_hand_and_none_into_the_preferences():
  # d/d(gap) of -log sigmoid(gap) is -(1 - 3/4) for the two, and of -log sigmoid(-gap)
  # 3/4 for the one: 1/4 in all, and the opposite for the other candidate.
  rewards = jnp.array([[jnp.log(3.0), 0.0]])
  preferences = jnp.array([[[0, 2], [1, 0]]], jnp.float32)
  _, gradients = _gradient(rewards, preferences, jnp.ones((1, 2), bool))
  np.testing.assert_allclose(gradients[0], [[0.25, -0.25]], rtol=1e-5)
  assert not gradients[1].any()
  inputs = _inputs()
  check = lambda r: _compiled(r, *inputs[1:]).loss_sum
  jax.test_util.check_grads(check, inputs[:1], 1, ['rev'], atol=1e-2, rtol=1e-2)


def test_a_loop_over_pairs_in_numpy():
  rng = np.random.default_rng(0)
  rewards = rng.normal(size=(4, 5)).astype(np.float32)
  rewards[0, 1] = rewards[0, 0]  # a tie
  preferences = rng.integers(0, 3, (4, 5, 5)).astype(np.float32)
  mask = rng.random((4, 5)) < 0.7
  loss = count = right = 0.0
  for b, i, j in np.ndindex(4, 5, 5):
    if mask[b, i] and mask[b, j]:
      gap = float(rewards[b, i]) - float(rewards[b, j])
      loss += preferences[b, i, j] * -np.log(1 / (1 + np.exp(-gap)))
      count += preferences[b, i, j]
      right += preferences[b, i, j] * (1 if gap > 0 else 0.5 if gap == 0 else 0)
  sums = _compiled(rewards, preferences, mask)
  np.testing.assert_allclose(sums, (loss, count, right), rtol=1e-5)


def test_a_constant_added_to_a_row_changes_nothing():
  rewards, preferences, mask = _inputs()
  shifted = rewards + jnp.array([[8.0], [-4.0]])  # exact in float32
  np.testing.assert_allclose(
    _compiled(shifted, preferences, mask), _compiled(rewards, preferences, mask)
  )


def test_the_order_of_candidates_and_rows_changes_nothing():
  rewards, preferences, mask = (np.asarray(x) for x in _inputs())
  order = [2, 0, 1]
  other = _compiled(
    rewards[::-1, order], preferences[::-1][:, order][:, :, order], mask[::-1, order]
  )
  np.testing.assert_allclose(other, _compiled(*_inputs()), rtol=1e-6)


def test_sums_add_up_over_any_cut_of_the_batch():
  whole = _compiled(*_inputs())
  parts = [_compiled(*(x[i : i + 1] for x in _inputs())) for i in range(2)]
  np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=1e-6)


@pytest.mark.parametrize('filler', [np.nan, np.inf, -np.inf, 1e30])
def test_empty_slots_may_hold_anything(filler):
  rewards, preferences, mask = _inputs()
  expected = _gradient(rewards, preferences, mask)
  both = mask[:, :, None] & mask[:, None, :]
  other = (
    jnp.where(mask, rewards, jnp.float32(filler)),
    jnp.where(both, preferences, jnp.float32(filler)),
  )
  # Not compiled too: XLA turns a product with a mask into a selection by itself.
  eager = bradley_terry.bradley_terry_loss(*other, mask)
  np.testing.assert_allclose(eager.loss_sum, expected[0], rtol=1e-6)
  actual = _gradient(*other, mask)
  np.testing.assert_array_equal(actual[0], expected[0])
  np.testing.assert_array_equal(actual[1][0], expected[1][0])


def test_no_preference_is_zero_with_a_zero_gradient():
  rewards, preferences, mask = _inputs()
  for none in (
    (rewards, jnp.zeros_like(preferences), mask),
    (rewards, preferences, jnp.zeros_like(mask)),
  ):
    loss, (gradient, _) = _gradient(*none)
    assert loss == 0 and not gradient.any()
    assert _compiled(*none).weight_sum == 0


def test_gaps_of_bfloat16_rewards_are_taken_in_float32():
  # In bfloat16 the loss, 0.6892, would be off by up to 0.002.
  rewards = jnp.array([[2.0, 1.9921875]], jnp.bfloat16)
  preferences = jnp.array([[[0, 1], [0, 0]]], jnp.float32)
  loss = _compiled(rewards, preferences, jnp.ones((1, 2), bool)).loss_sum
  assert loss.dtype == jnp.float32
  np.testing.assert_allclose(loss, np.log1p(np.exp(-0.0078125)), rtol=1e-6)


def test_far_apart_rewards_stay_finite():
  rewards = jnp.array([[1e4, -1e4]])
  preferences = jnp.array([[[0, 0], [1, 0]]], jnp.float32)
  loss, (gradient, _) = _gradient(rewards, preferences, jnp.ones((1, 2), bool))
  assert loss == 2e4
  np.testing.assert_array_equal(gradient, [[1, -1]])


def test_preferences_of_ratings():
  ratings = jnp.array([[3.0, 1.0, 1.0, jnp.nan], [0.0, 2.0, 5.0, 9.0]])
  mask = jnp.array([[True, True, True, False], [True, True, True, True]])
  found = _preferences(ratings, mask, margin=0.0)
  assert found.dtype == jnp.float32
  assert found[0].tolist() == [[0, 1, 1, 0], [0] * 4, [0] * 4, [0] * 4]
  assert found[1].sum() == 6
  # A gap as large as the margin is no preference: 2 - 0 and 3 - 1 go.
  beyond = _preferences(ratings, mask, margin=2.0)
  assert beyond[0].sum() == 0
  assert beyond[1].tolist() == [[0] * 4, [0] * 4, [1, 1, 0, 0], [1, 1, 1, 0]]


@pytest.mark.parametrize('margin', [-1.0, np.inf, np.nan])
def test_bad_margins(margin):
  with pytest.raises(ValueError, match='must be a finite number of at least 0'):
    bradley_terry.rating_preferences(
      jnp.ones((1, 2)), jnp.ones((1, 2), bool), margin=margin
    )


@pytest.mark.parametrize(
  ('shapes', 'mask_dtype', 'message'),
  [
    (((6,), (6, 6), (6,)), bool, r'\[batch, samples\]'),
    (((2, 3), (2, 3, 3), (2, 1)), bool, r'\[batch, samples\]'),
    (((2, 3), (2, 3, 2), (2, 3)), bool, r'\[batch, samples, samples\]'),
    (((2, 3), (2, 3, 3), (2, 3)), jnp.float32, 'must be bool'),
  ],
)
def test_ranks_are_checked_when_traced(shapes, mask_dtype, message):
  dtypes = (jnp.float32, jnp.float32, mask_dtype)
  args = [jax.ShapeDtypeStruct(*pair) for pair in zip(shapes, dtypes, strict=True)]
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(bradley_terry.bradley_terry_loss, *args)

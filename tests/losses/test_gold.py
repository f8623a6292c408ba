import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import behavioural_cloning
from rest_jax.losses import gold as lib

SHAPE = (2, 3, 8)
UNBOUNDED = {'baseline': 0.0, 'floor': -math.inf}  # bare log-probabilities

# Compiled whole: op by op, every small operation would be a program of its own.
_RETURNS = ('baseline', 'floor', 'num_future_tokens', 'discount')
_product = jax.jit(lib.gold_p_returns, static_argnames=_RETURNS)
_sum = jax.jit(lib.gold_s_returns, static_argnames=_RETURNS[1:])
_future = jax.jit(lib.future_returns, static_argnames=('past_the_end', *_RETURNS[2:]))
_compiled = jax.jit(lib.gold_loss, static_argnames='lower_bound')


@functools.partial(jax.jit, static_argnames='lower_bound')
def _gradient(log_probs, returns, weights, keep, rewards, lower_bound=0.2):
  def loss(log_probs, returns, weights, rewards):
    return lib.gold_loss(
      log_probs, returns, weights, keep, rewards=rewards, lower_bound=lower_bound
    ).loss_sum

  return jax.value_and_grad(loss, argnums=(0, 1, 2, 3))(
    log_probs, returns, weights, rewards
  )


def _inputs(seed=0):
  """Log-probs of policy and BC model, weights, keep, and candidate rewards."""
  rng = np.random.default_rng(seed)
  log_probs, reference = (
    jnp.asarray(-rng.gamma(1.5, size=SHAPE), jnp.float32) for _ in range(2)
  )
  lengths = np.array([[8, 1, 5], [3, 7, 2]])
  weights = jnp.asarray(np.arange(SHAPE[2]) < lengths[..., None], jnp.float32)
  keep = jnp.asarray([[True, False, True], [True, False, True]])
  rewards = jnp.asarray(rng.uniform(size=SHAPE[:2]), jnp.float32)
  return log_probs, reference, weights, keep, rewards


def _slow_returns(token_reward, reference, weights, k, discount):
  """For each token, its and the k next rewards; certain tokens past the end."""
  reference, weights = np.asarray(reference, np.float64), np.asarray(weights)
  result = np.zeros(SHAPE)
  for b, s in np.ndindex(*SHAPE[:2]):
    length = int(weights[b, s].sum())
    for t in range(length):
      for i in range(k + 1):
        log_prob = reference[b, s, t + i] if t + i < length else 0.0
        result[b, s, t] += discount**i * token_reward(log_prob)
  return result


def _slow_loss(log_probs, frozen, returns, weights, keep, rewards, bound):
  """Token by token in float64; the importance weight is that of `frozen`."""
  log_probs, frozen, returns = (
    np.asarray(x, np.float64) for x in (log_probs, frozen, returns)
  )
  weights, keep, rewards = map(np.asarray, (weights, keep, rewards))
  total = count = 0.0
  for index in np.ndindex(*SHAPE):
    if keep[index[:2]]:
      omega = max(math.exp(frozen[index]), bound)
      reward = float(rewards[index[:2]]) * returns[index]
      total -= float(weights[index]) * omega * reward * log_probs[index]
      count += float(weights[index])
  return total, count


def test_sum_form_worked_by_hand():
  # BC probabilities 1/2, 1/4, 1/20 (floor 1/10), k = 1; past the end 1:
  # returns 3/4, 7/20, 11/10. Without the own token the first would be 1/4; with 0
  # past the end, the last 1/10; without the floor, the second 3/10.
  reference = jnp.log(jnp.array([[[0.5, 0.25, 0.05, 0.9]]]))
  weights = jnp.array([[[1.0, 1.0, 1.0, 0.0]]])
  actual = _sum(reference, weights, num_future_tokens=1)
  expected = [[[Fraction(3, 4), Fraction(7, 20), Fraction(11, 10), Fraction(0)]]]
  np.testing.assert_allclose(actual, np.array(expected, float), rtol=1e-6)


def test_product_form_worked_by_hand():
  # Log-probabilities -1, -4, -20 and baseline -10: rewards 9, 6, and not -10 but the
  # floor 1. k = 1: 15, 7, and 1 + 10 past the end.
  reference = jnp.array([[[-1.0, -4.0, -20.0, -2.0]]])
  weights = jnp.array([[[1.0, 1.0, 1.0, 0.0]]])
  actual = _product(reference, weights, num_future_tokens=1)
  np.testing.assert_array_equal(actual, [[[15, 7, 11, 0]]])
  # Bare log-probabilities: the log of the product of the next probabilities.
  actual = _product(reference, weights, num_future_tokens=1, **UNBOUNDED)
  np.testing.assert_array_equal(actual, [[[-5, -24, -20, 0]]])


def test_five_future_tokens_are_six_with_the_own_one():
  ones = jnp.zeros(SHAPE)  # log-probabilities of certain tokens
  np.testing.assert_array_equal(_sum(ones, jnp.ones(SHAPE)), jnp.full(SHAPE, 6.0))
  np.testing.assert_array_equal(_product(ones, jnp.ones(SHAPE)), jnp.full(SHAPE, 60.0))


@pytest.mark.parametrize(('k', 'discount'), [(0, 1.0), (2, 0.5), (5, 1.0), (20, 0.9)])
def test_returns_equal_a_slow_loop(k, discount):
  _, reference, weights, _, _ = _inputs()
  options = {'num_future_tokens': k, 'discount': discount}
  for fn, reward in (
    (_product, lambda x: max(x + 10, 1)),
    (_sum, lambda x: max(math.exp(x), 0.1)),
    (functools.partial(_product, **UNBOUNDED), lambda x: x),
  ):
    expected = _slow_returns(reward, reference, weights, k, discount)
    np.testing.assert_allclose(
      fn(reference, weights, **options), expected, rtol=1e-6, atol=1e-6
    )


def test_zero_past_the_end_cuts_the_sum():
  rewards = jnp.arange(1.0, 5.0)[None, None]
  weights = jnp.array([[[1.0, 1.0, 1.0, 0.0]]])
  actual = _future(rewards, weights, past_the_end=0.0, num_future_tokens=1)
  np.testing.assert_array_equal(actual, [[[3, 5, 3, 0]]])


@pytest.mark.parametrize('fn', [_product, _sum])
def test_returns_do_not_depend_on_the_width_of_the_batch(fn):
  _, reference, weights, _, _ = _inputs()
  expected = fn(reference, weights)
  wider = jnp.pad(reference, ((0, 0), (0, 0), (0, 3)), constant_values=-1.0)
  actual = fn(wider, jnp.pad(weights, ((0, 0), (0, 0), (0, 3))))
  np.testing.assert_array_equal(actual[..., : SHAPE[2]], expected)
  assert not actual[..., SHAPE[2] :].any()


def test_loss_worked_by_hand():
  # Probabilities 1/2 (omega 1/2, return 3), 1/8 (omega the bound 1/4, return 2): the
  # loss is 3/2 log 2 + 1/2 log 8 = 3 log 2. Unbounded it would be 9/4 log 2; the
  # padded and the dropped tokens would add to it. A reward of 1/2 halves it.
  probabilities = [[[Fraction(1, 2), Fraction(1, 8), Fraction(1, 9)]] * 2]
  log_probs = jnp.log(jnp.array(np.array(probabilities, float), jnp.float32))[0][None]
  log_probs = log_probs.reshape(1, 2, 3)
  returns = jnp.broadcast_to(jnp.array([3.0, 2.0, 5.0]), (1, 2, 3))
  weights = jnp.broadcast_to(jnp.array([1.0, 1.0, 0.0]), (1, 2, 3))
  keep = jnp.array([[True, False]])
  args = (log_probs, returns, weights, keep)
  loss = _compiled(*args, lower_bound=0.25)
  np.testing.assert_allclose(loss, (3 * math.log(2), 2), rtol=1e-6)
  halved = _compiled(*args, rewards=jnp.full((1, 2), 0.5), lower_bound=0.25)
  np.testing.assert_allclose(halved, (1.5 * math.log(2), 2), rtol=1e-6)


@pytest.mark.parametrize('jit', [False, True])
@pytest.mark.parametrize('bound', [0.0, 0.2])
def test_loss_equals_a_slow_loop(jit, bound):
  log_probs, reference, weights, keep, rewards = _inputs()
  returns = _product(reference, weights)
  loss = (_compiled if jit else lib.gold_loss)(
    log_probs, returns, weights, keep, rewards=rewards, lower_bound=bound
  )
  expected = _slow_loss(log_probs, log_probs, returns, weights, keep, rewards, bound)
  np.testing.assert_allclose(loss, expected, rtol=2e-6)
  assert loss.loss_sum.dtype == loss.weight_sum.dtype == jnp.float32


def test_gradient_equals_finite_differences_with_the_importance_weight_frozen():
  log_probs, reference, weights, keep, rewards = _inputs()
  returns = _sum(reference, weights)
  _, gradients = _gradient(log_probs, returns, weights, keep, rewards)
  slow = lambda x, frozen: _slow_loss(x, frozen, returns, weights, keep, rewards, 0.2)
  step, expected, through = 1e-3, np.zeros(SHAPE), np.zeros(SHAPE)
  for index in np.ndindex(*SHAPE):
    move = np.zeros(SHAPE)
    move[index] = step
    up, down = (np.asarray(log_probs, np.float64) + sign * move for sign in (1, -1))
    expected[index] = slow(up, log_probs)[0] - slow(down, log_probs)[0]
    through[index] = slow(up, up)[0] - slow(down, down)[0]
  np.testing.assert_allclose(gradients[0], expected / (2 * step), atol=1e-5)
  # Through the importance weight it would be another one.
  assert np.abs(through - expected).max() / (2 * step) > 0.05
  for gradient in gradients[1:]:
    assert not gradient.any()


@pytest.mark.parametrize('filler', [np.nan, np.inf, -np.inf])
def test_padding_and_dropped_candidates_may_hold_anything(filler):
  log_probs, reference, weights, keep, rewards = _inputs()
  weights = weights.at[0, 2].set(0.0)  # kept, but an empty slot
  exists = weights != 0
  broken = jnp.where(exists, reference, jnp.float32(filler))
  for fn in (_product, _sum):
    np.testing.assert_array_equal(fn(broken, weights), fn(reference, weights))
  returns = _product(reference, weights)
  used = exists & keep[..., None]
  other = [jnp.where(used, x, jnp.float32(filler)) for x in (log_probs, returns)]
  others = jnp.where(used.any(-1), rewards, jnp.float32(filler))
  expected = _gradient(log_probs, returns, weights, keep, rewards)
  actual = _gradient(*other, weights, keep, others)
  eager = lib.gold_loss(*other, weights, keep, rewards=others).loss_sum
  np.testing.assert_allclose(eager, expected[0], rtol=1e-6)
  np.testing.assert_array_equal(actual[0], expected[0])
  np.testing.assert_array_equal(actual[1][0], expected[1][0])


def test_nothing_kept_is_zero_with_a_zero_gradient():
  log_probs, reference, weights, keep, rewards = _inputs()
  returns, none = _sum(reference, weights), jnp.zeros_like(keep)
  loss, gradients = _gradient(log_probs, returns, weights, none, rewards)
  assert loss == 0 and not gradients[0].any()
  assert _compiled(log_probs, returns, weights, none).weight_sum == 0


def test_the_filter_splits_the_loss_of_all():
  log_probs, reference, weights, keep, rewards = _inputs()
  returns = _sum(reference, weights)
  sums = lambda verdict: _compiled(
    log_probs, returns, weights, verdict, rewards=rewards
  )
  parts = np.add(sums(keep), sums(~keep))
  np.testing.assert_allclose(parts, sums(jnp.ones_like(keep)), rtol=2e-6)


def test_constant_rewards_scale_the_loss_and_constant_returns_are_cloning():
  log_probs, reference, weights, keep, _ = _inputs()
  returns = _sum(reference, weights)
  plain = _compiled(log_probs, returns, weights, keep)
  half = jnp.full(keep.shape, 0.5, jnp.float32)
  scaled = _compiled(log_probs, returns, weights, keep, rewards=half)
  np.testing.assert_allclose(scaled.loss_sum, plain.loss_sum / 2, rtol=1e-6)
  assert scaled.weight_sum == plain.weight_sum
  # Importance weighting off and returns of 1 leave behavioural cloning.
  loss = _compiled(log_probs, jnp.ones(SHAPE), weights, keep, lower_bound=1.0)
  cloning = behavioural_cloning.behavioural_cloning_loss(log_probs, weights, keep)
  np.testing.assert_allclose(loss, cloning, rtol=1e-6)


def test_grouped_equals_ungrouped_in_any_order_and_cut():
  args = _inputs()

  def loss(log_probs, reference, weights, keep, rewards):
    returns = lib.gold_p_returns(reference, weights)
    return lib.gold_loss(log_probs, returns, weights, keep, rewards=rewards)

  whole, loss = loss(*args), jax.jit(loss)
  order = np.random.default_rng(1).permutation(6)
  flat = [x.reshape(6, 1, *x.shape[2:])[order] for x in args]
  np.testing.assert_allclose(loss(*flat), whole, rtol=2e-6)
  parts = [loss(*(x[i : i + 1] for x in flat)) for i in range(6)]
  np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=2e-6)


@pytest.mark.parametrize(
  ('fn', 'options', 'message'),
  [
    (lib.gold_p_returns, {'baseline': math.inf}, 'baseline=inf must be a finite'),
    (lib.gold_p_returns, {'floor': math.nan}, 'floor=nan must be a number below'),
    (lib.gold_s_returns, {'floor': math.inf}, '-inf turns it off'),
    (lib.gold_s_returns, {'num_future_tokens': -1}, 'at least 0'),
    (lib.gold_s_returns, {'discount': 1.5}, r'\[0, 1\]'),
  ],
)
def test_options_of_the_returns_are_checked(fn, options, message):
  _, reference, weights, _, _ = _inputs()
  with pytest.raises(ValueError, match=message):
    fn(reference, weights, **options)


@pytest.mark.parametrize('bound', [-0.1, 1.1, math.nan])
def test_the_bound_is_checked(bound):
  log_probs, reference, weights, keep, _ = _inputs()
  with pytest.raises(ValueError, match=rf'lower_bound={bound} must lie in \[0, 1\]'):
    lib.gold_loss(log_probs, reference, weights, keep, lower_bound=bound)


def test_ranks_are_checked_when_traced():
  array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  keep = jax.ShapeDtypeStruct(SHAPE[:2], bool)
  full = array(*SHAPE)
  for fn in (lib.gold_p_returns, lib.gold_s_returns):
    with pytest.raises(ValueError, match='must both be'):
      jax.eval_shape(fn, full, array(2, 3))
  with pytest.raises(ValueError, match=r'returns \(2, 3\)'):
    jax.eval_shape(lib.gold_loss, full, array(2, 3), full, keep)
  with pytest.raises(ValueError, match=r'rewards \(2,\)'):
    jax.eval_shape(
      lambda *args: lib.gold_loss(*args[:4], rewards=args[4]),
      full, full, full, keep, array(2),
    )  # fmt: skip

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import behavioural_cloning
from rest_jax.losses import reward_weighted as lib

SHAPE = (2, 3, 4)

# Compiled whole: op by op, every small operation would be a program of its own.
_OPTIONS = ('temperature', 'max_weight')
_compiled = jax.jit(lib.reward_weighted_loss, static_argnames=_OPTIONS)
_means = jax.jit(lib.group_means)


@functools.partial(jax.jit, static_argnames=_OPTIONS)
def _gradient(*args, **options):
  *arrays, keep = args
  loss = lambda *arrays: lib.reward_weighted_loss(*arrays, keep, **options).loss_sum
  return jax.value_and_grad(loss, argnums=(0, 1, 2, 3))(*arrays)


def _inputs(seed=0):
  rng = np.random.default_rng(seed)
  log_probs = jnp.asarray(-rng.gamma(1.0, size=SHAPE), jnp.float32)
  rewards, baselines = (
    jnp.asarray(rng.normal(size=SHAPE[:2]), jnp.float32) for _ in range(2)
  )
  lengths = rng.integers(1, 5, size=SHAPE[:2])
  weights = jnp.asarray(np.arange(4) < lengths[..., None], jnp.float32)
  keep = jnp.asarray([[True, True, True], [True, False, True]])
  return log_probs, rewards, baselines, weights, keep


def _slow(
  log_probs, rewards, baselines, weights, keep, *, temperature, max_weight=20.0
):
  """Token by token, in float64."""
  log_probs, rewards, baselines, weights, keep = map(
    np.asarray, (log_probs, rewards, baselines, weights, keep)
  )
  total = count = 0.0
  for index in np.ndindex(*SHAPE):
    if keep[index[:2]]:
      advantage = float(rewards[index[:2]]) - float(baselines[index[:2]])
      omega = min(math.exp(advantage / temperature), max_weight)
      total -= float(weights[index]) * omega * float(log_probs[index])
      count += float(weights[index])
  return total, count


def test_worked_by_hand():
  # exp(A / beta) = 3, 1/2 and 9 (capped at 4), with log pi = log 1/2 at 2, 2 and 1
  # tokens: (3 * 2 + 2/2 + 4) log 2 = 11 log 2 over 5. Uncapped it would be 16 log 2;
  # dividing by the weights' sum instead would give (2 * 3 + 2/2 + 4) = 11 below.
  omegas = np.array([[Fraction(3), Fraction(1, 2), Fraction(9)]], float)
  rewards = jnp.asarray(1 + 0.5 * np.log(omegas), jnp.float32)
  baselines = jnp.ones((1, 3))
  log_probs = jnp.full((1, 3, 2), math.log(0.5), jnp.float32)
  weights = jnp.array([[[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]])
  loss = _compiled(
    log_probs, rewards, baselines, weights, jnp.ones((1, 3), bool),
    temperature=0.5, max_weight=4.0,
  )  # fmt: skip
  np.testing.assert_allclose(loss, (11 * math.log(2), 5), rtol=1e-6)


@pytest.mark.parametrize('jit', [False, True])
@pytest.mark.parametrize(('temperature', 'max_weight'), [(0.5, 2.0), (2.0, math.inf)])
def test_equals_a_slow_loop(jit, temperature, max_weight):
  args, options = _inputs(), {'temperature': temperature, 'max_weight': max_weight}
  loss = (_compiled if jit else lib.reward_weighted_loss)(*args, **options)
  np.testing.assert_allclose(loss, _slow(*args, **options), rtol=2e-6)
  assert loss.loss_sum.dtype == loss.weight_sum.dtype == jnp.float32


def test_gradient_equals_finite_differences_and_stays_out_of_the_rewards():
  log_probs, *others = _inputs()
  _, gradients = _gradient(log_probs, *others, temperature=0.5, max_weight=2.0)
  step = 1e-3
  for index in np.ndindex(*SHAPE):
    sides = []
    for sign in (1, -1):
      moved = np.array(log_probs, np.float64)
      moved[index] += sign * step
      sides.append(_slow(moved, *others, temperature=0.5, max_weight=2.0)[0])
    difference = (sides[0] - sides[1]) / (2 * step)
    np.testing.assert_allclose(gradients[0][index], difference, atol=1e-5)
  assert gradients[0].any()
  for gradient in gradients[1:]:
    assert not gradient.any()


@pytest.mark.parametrize('filler', [np.nan, np.inf, -np.inf])
def test_padding_and_dropped_candidates_may_hold_anything(filler):
  log_probs, rewards, baselines, weights, keep = _inputs()
  weights = weights.at[0, 2].set(0.0)  # kept, but an empty slot
  used = (weights != 0) & keep[..., None]
  pad = lambda x: jnp.where(used.any(-1), x, jnp.float32(filler))
  other = (
    jnp.where(used, log_probs, jnp.float32(filler)), pad(rewards), pad(baselines)
  )  # fmt: skip
  options = {'temperature': 0.5}
  expected = _gradient(log_probs, rewards, baselines, weights, keep, **options)
  actual = _gradient(*other, weights, keep, **options)
  eager = lib.reward_weighted_loss(*other, weights, keep, **options).loss_sum
  np.testing.assert_allclose(eager, expected[0], rtol=1e-6)
  np.testing.assert_array_equal(actual[0], expected[0])
  np.testing.assert_array_equal(actual[1][0], expected[1][0])


def test_nothing_kept_is_zero_with_a_zero_gradient():
  *arrays, keep = _inputs()
  none = jnp.zeros_like(keep)
  loss, gradients = _gradient(*arrays, none, temperature=0.5)
  assert loss == 0 and not gradients[0].any()
  assert _compiled(*arrays, none, temperature=0.5).weight_sum == 0


@pytest.mark.parametrize('case', ['constant rewards', 'one candidate', 'hot'])
def test_without_a_preference_it_is_behavioural_cloning(case):
  log_probs, rewards, _, weights, keep = _inputs()
  temperature = 0.1
  if case == 'constant rewards':
    rewards = jnp.full_like(rewards, 0.7)
  elif case == 'one candidate':
    log_probs, weights = log_probs[:, :1], weights[:, :1]
    rewards, keep = rewards[:, :1], keep[:, :1]
  else:
    temperature = 1e9
  baselines = _means(rewards, keep)
  loss = _compiled(
    log_probs, rewards, baselines, weights, keep, temperature=temperature
  )
  cloning = behavioural_cloning.behavioural_cloning_loss(log_probs, weights, keep)
  np.testing.assert_allclose(loss, cloning, rtol=1e-5)


def test_huge_advantages_stop_at_the_cap():
  log_probs, rewards, baselines, weights, keep = _inputs()
  loss, gradients = _gradient(
    log_probs, rewards + 1e6, baselines, weights, keep, temperature=1e-3
  )
  cloning = behavioural_cloning.behavioural_cloning_loss(log_probs, weights, keep)
  np.testing.assert_allclose(loss, 20 * cloning.loss_sum, rtol=1e-5)
  np.testing.assert_allclose(
    gradients[0], -20 * weights * keep[..., None].astype(jnp.float32), rtol=1e-5
  )


def test_all_kept_is_the_filtered_loss_and_the_rest():
  *arrays, keep = _inputs()
  whole = _compiled(*arrays, jnp.ones_like(keep), temperature=0.5)
  parts = [_compiled(*arrays, verdict, temperature=0.5) for verdict in (keep, ~keep)]
  np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=2e-6)


def test_grouped_equals_ungrouped_in_any_order_and_cut():
  # Baselines are taken in the groups, before these are cut.
  args = _inputs()
  whole = _compiled(*args, temperature=0.5)
  order = np.random.default_rng(1).permutation(6)
  flat = [x.reshape(6, 1, *x.shape[2:])[order] for x in args]
  np.testing.assert_allclose(_compiled(*flat, temperature=0.5), whole, rtol=2e-6)
  parts = [_compiled(*(x[i : i + 1] for x in flat), temperature=0.5) for i in range(6)]
  np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=2e-6)


def test_group_means_by_hand():
  rewards = jnp.array([[1.0, 2.0, np.nan], [5.0, np.nan, np.nan], [np.nan] * 3])
  mask = jnp.array([[True, True, False], [True, False, False], [False] * 3])
  expected = [[1.5] * 3, [5.0] * 3, [0.0] * 3]  # over all three slots: 1 and 5/3
  np.testing.assert_array_equal(_means(rewards, mask), expected)


def test_a_reward_that_favours_one_source_favours_no_source_inside_groups():
  log_probs, rewards, _, weights, keep = _inputs()
  easier = rewards + jnp.array([[3.0], [0.0]]) * jnp.ones((1, 3))
  losses = [
    _compiled(log_probs, r, _means(r, keep), weights, keep, temperature=0.5).loss_sum
    for r in (rewards, easier)
  ]
  np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'temperature': 0.0}, 'temperature=0.0 must be a positive'),
    ({'temperature': math.inf}, 'behavioural_cloning_loss'),
    ({'temperature': 1.0, 'max_weight': 0.0}, 'max_weight=0.0 must be positive'),
  ],
)
def test_options_are_checked(options, message):
  with pytest.raises(ValueError, match=message):
    lib.reward_weighted_loss(*_inputs(), **options)


def test_ranks_are_checked_when_traced():
  array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  full, group = array(*SHAPE), array(2, 3)
  keep = jax.ShapeDtypeStruct((2, 3), bool)
  fn = functools.partial(lib.reward_weighted_loss, temperature=1.0)
  with pytest.raises(ValueError, match='samples = 1'):
    jax.eval_shape(fn, array(6, 4), array(6), array(6), array(6, 4), keep)
  for args in ((full, array(2, 1), group), (full, group, array(2, 1))):
    with pytest.raises(ValueError, match='is no baseline'):
      jax.eval_shape(fn, *args, full, keep)
  with pytest.raises(ValueError, match='the mask bool'):
    jax.eval_shape(lib.group_means, group, group)

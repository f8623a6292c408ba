import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import returns as lib

SHAPE = (2, 3, 4)

# Compiled whole: op by op, every small operation would be a program of its own.
_monte_carlo = jax.jit(lib.monte_carlo_returns, static_argnames='discount')
_at_last_token = jax.jit(lib.rewards_at_last_token)
_advantages = jax.jit(
  lib.generalised_advantages, static_argnames=('discount', 'trace_decay')
)


def _inputs(seed=0):
  """Rewards, token rewards, values and weights, with an empty slot."""
  rng = np.random.default_rng(seed)
  rewards = jnp.asarray(rng.normal(size=SHAPE[:2]), jnp.float32)
  token_rewards = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
  values = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
  lengths = np.array([[4, 1, 3], [0, 2, 4]])
  weights = jnp.asarray(np.arange(4) < lengths[..., None], jnp.float32)
  return rewards, token_rewards, values, weights


def _slow_advantages(token_rewards, values, weights, discount, trace_decay):
  """The sum over all later deltas, token by token, in float64."""
  token_rewards, values, weights = map(np.asarray, (token_rewards, values, weights))
  result = np.zeros(SHAPE)
  for b, s in np.ndindex(*SHAPE[:2]):
    tokens = [t for t in range(SHAPE[2]) if weights[b, s, t] > 0]
    for i, t in enumerate(tokens):
      for j in range(i, len(tokens)):
        after = float(values[b, s, tokens[j + 1]]) if j + 1 < len(tokens) else 0.0
        u = tokens[j]
        delta = float(token_rewards[b, s, u]) + discount * after
        delta -= float(values[b, s, u])
        result[b, s, t] += (discount * trace_decay) ** (j - i) * delta
  return result


def test_monte_carlo_returns_by_hand():
  # Three tokens, then padding: 3/4, 3/2 and 3 at a discount of 1/2. Counting from the
  # array's end, not the candidate's, would give 3/8 first; an off-by-one 3/2 last.
  rewards, weights = jnp.array([[3.0]]), jnp.array([[[1.0, 1.0, 1.0, 0.0]]])
  expected = [[[Fraction(3, 4), Fraction(3, 2), Fraction(3), Fraction(0)]]]
  actual = _monte_carlo(rewards, weights, discount=0.5)
  np.testing.assert_array_equal(actual, np.array(expected, float))
  assert actual.dtype == jnp.float32


@pytest.mark.parametrize('discount', [0.0, 0.9, 1.0])
def test_monte_carlo_returns_equal_a_slow_loop(discount):
  rewards, _, _, weights = _inputs()
  expected = np.zeros(SHAPE)
  for b, s in np.ndindex(*SHAPE[:2]):
    length = int(weights[b, s].sum())
    for t in range(length):
      expected[b, s, t] = discount ** (length - 1 - t) * float(rewards[b, s])
  actual = _monte_carlo(rewards, weights, discount=discount)
  np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_rewards_at_last_token_by_hand():
  rewards = jnp.array([[3.0, 5.0, 7.0]])
  weights = jnp.array([[[1.0, 0.5, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]])
  expected = [[[0, 3, 0], [0, 0, 5], [0, 0, 0]]]
  np.testing.assert_array_equal(_at_last_token(rewards, weights), expected)


def test_generalised_advantages_by_hand():
  # Values 1, 2, reward 4 at the second token, discount 1/2, trace decay 1/2:
  # delta_2 = 4 - 2 = 2, delta_1 = 2/2 - 1 = 0, A_1 = 0 + 2/4 = 1/2.
  # Reading the padded 9s would give delta_2 = 2 + 9/2.
  rewards = jnp.array([[[0.0, 4.0, 9.0]]])
  values = jnp.array([[[1.0, 2.0, 9.0]]])
  weights = jnp.array([[[1.0, 1.0, 0.0]]])
  actual = _advantages(rewards, values, weights, discount=0.5, trace_decay=0.5)
  np.testing.assert_array_equal(actual, [[[float(Fraction(1, 2)), 2, 0]]])


@pytest.mark.parametrize('discount', [0.7, 1.0])
@pytest.mark.parametrize('trace_decay', [0.0, 0.95])
def test_generalised_advantages_equal_a_slow_loop(discount, trace_decay):
  _, *arrays = _inputs()
  options = {'discount': discount, 'trace_decay': trace_decay}
  expected = _slow_advantages(*arrays, **options)
  np.testing.assert_allclose(_advantages(*arrays, **options), expected, atol=2e-6)


def test_a_gap_is_skipped():
  _, token_rewards, values, _ = _inputs()
  weights = jnp.ones(SHAPE).at[:, :, 1].set(0.0)
  options = {'discount': 0.9, 'trace_decay': 0.8}
  expected = _slow_advantages(token_rewards, values, weights, **options)
  actual = _advantages(token_rewards, values, weights, **options)
  np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_full_traces_are_monte_carlo_returns_less_the_values():
  rewards, _, values, weights = _inputs()
  token_rewards = _at_last_token(rewards, weights)
  advantages = _advantages(
    token_rewards, values, weights, discount=0.9, trace_decay=1.0
  )
  expected = _monte_carlo(rewards, weights, discount=0.9) - values * weights
  np.testing.assert_allclose(advantages, expected, atol=1e-6)


def test_right_values_leave_no_advantage():
  # V = the discounted return: every delta is 0, whatever the trace decay.
  rewards, _, _, weights = _inputs()
  values = _monte_carlo(rewards, weights, discount=0.5)
  token_rewards = _at_last_token(rewards, weights)
  actual = _advantages(token_rewards, values, weights, discount=0.5, trace_decay=0.9)
  np.testing.assert_array_equal(actual, jnp.zeros(SHAPE))  # powers of 1/2 are exact


@pytest.mark.parametrize('filler', [np.nan, np.inf])
def test_padding_and_empty_slots_may_hold_anything(filler):
  rewards, token_rewards, values, weights = _inputs()
  options = {'discount': 0.9, 'trace_decay': 0.8}
  expected = _advantages(token_rewards, values, weights, **options)
  pad = lambda x: jnp.where(weights > 0, x, jnp.float32(filler))
  actual = _advantages(pad(token_rewards), pad(values), weights, **options)
  np.testing.assert_array_equal(actual, expected)
  other = rewards.at[1, 0].set(filler)  # the empty slot
  for fn in (functools.partial(_monte_carlo, discount=0.9), _at_last_token):
    np.testing.assert_array_equal(fn(other, weights), fn(rewards, weights))


def test_grouped_equals_ungrouped_in_any_order():
  rewards, token_rewards, values, weights = _inputs()
  order = np.random.default_rng(1).permutation(6)
  flat = lambda x: x.reshape(6, 1, *x.shape[2:])[order]
  for fn, args in (
    (functools.partial(_monte_carlo, discount=0.9), (rewards, weights)),
    (functools.partial(_advantages, discount=0.9), (token_rewards, values, weights)),
  ):
    np.testing.assert_array_equal(flat(fn(*args)), fn(*map(flat, args)))


def test_results_are_constants():
  rewards, token_rewards, values, weights = _inputs()

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1, 2, 3))
  def gradients(rewards, token_rewards, values, weights):
    return (
      lib.monte_carlo_returns(rewards, weights).sum()
      + lib.rewards_at_last_token(rewards, weights).sum()
      + lib.generalised_advantages(token_rewards, values, weights).sum()
    )

  for gradient in gradients(rewards, token_rewards, values, weights):
    assert not gradient.any()


@pytest.mark.parametrize('value', [-0.1, 1.1, float('nan')])
def test_options_are_checked(value):
  rewards, token_rewards, values, weights = _inputs()
  with pytest.raises(ValueError, match=rf'discount={value} must lie in \[0, 1\]'):
    lib.monte_carlo_returns(rewards, weights, discount=value)
  with pytest.raises(ValueError, match=rf'trace_decay={value} must lie in \[0, 1\]'):
    lib.generalised_advantages(token_rewards, values, weights, trace_decay=value)


def test_ranks_are_checked_when_traced():
  array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  for fn in (lib.monte_carlo_returns, lib.rewards_at_last_token):
    with pytest.raises(ValueError, match='samples = 1'):
      jax.eval_shape(fn, array(6), array(6, 4))
    with pytest.raises(ValueError, match=r'rewards \(2, 1\)'):
      jax.eval_shape(fn, array(2, 1), array(*SHAPE))
  with pytest.raises(ValueError, match='must all be'):
    jax.eval_shape(
      lib.generalised_advantages, array(*SHAPE), array(2, 3), array(*SHAPE)
    )

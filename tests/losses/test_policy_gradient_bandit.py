"""Policy gradients in exact expectation, on a policy that is a small table."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import policy_gradient as pg

# Five sequences, (EOS), (a, x), (a, y), (b, x), (b, y), and every group of
# three of them with its probability, so that expectations are exact.

GROUP = 3
FIRST = np.array([0, 1, 1, 2, 2])
SECOND = np.array([[0, 0], [0, 0], [0, 1], [1, 0], [1, 1]])
BANDIT_WEIGHTS = np.array([[1, 0], [1, 1], [1, 1], [1, 1], [1, 1]], np.float32)
GROUPS = np.array(list(itertools.product(range(5), repeat=GROUP)))  # [125, 3]
REWARDS = np.array([0.25, 0.125, 1.0, 0.5, 0.0], np.float32)
BEST = 2


def _start():
  # The best sequence is rare: 0.07 * 0.27 = 0.02.
  return {
    'first': jnp.array([1.0, -1.5, 0.5]),
    'second': jnp.array([[0.5, -0.5], [0.0, 0.3]]),
  }


@jax.jit
def _tabular(params):
  """Log-probs [5, 2] of the tokens; that of EOS's padding is -inf."""
  first = jax.nn.log_softmax(params['first'])[FIRST]
  second = jax.nn.log_softmax(params['second'])[SECOND[:, 0], SECOND[:, 1]]
  second = jnp.where(BANDIT_WEIGHTS[:, 1] > 0, second, -jnp.inf)
  return jnp.stack([first, second], axis=-1)


@jax.jit
def _probabilities(params):
  tokens = jnp.where(BANDIT_WEIGHTS > 0, _tabular(params), jnp.float32(0))
  return jnp.exp(jnp.sum(tokens, axis=-1))  # [5]


def _expected(loss, params, behaviour, rewards):
  """Expectation of a group's loss over the groups the behaviour policy draws."""
  log_probs, old = _tabular(params), _tabular(behaviour)

  def one(group):
    sums = loss(
      *(x[None, group] for x in (log_probs, old)),
      rewards[None, group],
      jnp.asarray(BANDIT_WEIGHTS)[None, group],
      jnp.ones((1, GROUP), bool),
    )
    return sums.loss_sum / sums.weight_sum

  chances = jnp.prod(_probabilities(behaviour)[GROUPS], axis=1)  # [125]
  return jnp.sum(jax.lax.stop_gradient(chances) * jax.vmap(one)(jnp.asarray(GROUPS)))


def _rloo(log_probs, _, rewards, weights, keep):
  advantages = pg.leave_one_out_advantages(rewards, keep)
  return pg.reinforce_loss(log_probs, advantages, weights, keep)


def _grpo(log_probs, old, rewards, weights, keep):
  advantages = pg.standardised_advantages(rewards, keep)
  return pg.clipped_surrogate_loss(
    log_probs, old, advantages, weights, keep, normalisation=pg.per_candidate
  )


def _dr_grpo(log_probs, old, rewards, weights, keep):
  advantages = pg.centred_advantages(rewards, keep)
  return pg.clipped_surrogate_loss(
    log_probs, old, advantages, weights, keep, normalisation=pg.per_candidate_sum
  )


def _ppo(params, behaviour, rewards):
  """PPO with the exact critic of the behaviour policy, over the five sequences."""
  chances = _probabilities(behaviour)
  second = jax.nn.softmax(behaviour['second'], axis=-1)
  # V(s_0); Q of the first tokens EOS, a, b, which is V(s_1) of the last two.
  following = jnp.sum(second * rewards[1:].reshape(2, 2), axis=-1)
  q = jnp.concatenate([rewards[:1], following])
  start = jnp.sum(jax.nn.softmax(behaviour['first']) * q)
  advantages = jnp.stack([q[FIRST] - start, rewards - q[FIRST]], axis=-1)  # [5, 2]
  sums = pg.clipped_surrogate_loss(
    _tabular(params)[None],
    _tabular(behaviour)[None],
    advantages[None],
    BANDIT_WEIGHTS[None] * chances[None, :, None],
    jnp.ones((1, 5), bool),
  )
  return sums.loss_sum / sums.weight_sum


ALGORITHMS = {
  'rloo': functools.partial(_expected, _rloo),
  'grpo': functools.partial(_expected, _grpo),
  'dr_grpo': functools.partial(_expected, _dr_grpo),
  'ppo': _ppo,
}


@functools.partial(jax.jit, static_argnames='name')
def _learn(params, rewards, *, name):
  """300 iterations of four gradient steps of rate 1 each on one behaviour policy."""

  def step(params, behaviour):
    gradient = jax.grad(ALGORITHMS[name])(params, behaviour, rewards)
    return jax.tree.map(lambda p, g: p - g, params, gradient)

  def iteration(params, _):
    behaviour = params
    # REINFORCE has no ratio: its steps must be on the policy's own candidates.
    old = lambda params: params if name == 'rloo' else behaviour
    for _ in range(4):
      params = step(params, old(params))
    return params, None

  return jax.lax.scan(iteration, params, length=300)[0]


@pytest.mark.parametrize('name', ALGORITHMS)
def test_a_bandit_finds_its_best_sequence_and_learns_nothing_from_equal_rewards(name):
  assert _probabilities(_start())[BEST] < 0.03
  learnt = _learn(_start(), jnp.asarray(REWARDS), name=name)
  assert _probabilities(learnt)[BEST] > 0.95
  # 0.1 is no binary fraction. The exact critic's expectation rounds, by 1e-8 a step.
  unmoved = _learn(_start(), jnp.full(5, 0.1, jnp.float32), name=name)
  tolerance = 1e-4 if name == 'ppo' else 0
  for key, value in _start().items():
    np.testing.assert_allclose(unmoved[key], value, rtol=0, atol=tolerance)


def test_rloo_is_unbiased_and_the_mean_of_all_shrinks_it():
  # The gradient of the expected reward itself. With oneself in the baseline (Dr.
  # GRPO) it is smaller by (N - 1) / N; a baseline of n instead of n - 1 others would
  # scale it too.
  rewards, params = jnp.asarray(REWARDS), _start()
  exact = jax.jit(jax.grad(lambda p: -jnp.sum(_probabilities(p) * rewards)))(params)
  for name, scale in (('rloo', 1), ('dr_grpo', 2 / 3)):
    gradient = jax.jit(jax.grad(ALGORITHMS[name]))(params, params, rewards)
    for key, value in exact.items():
      np.testing.assert_allclose(gradient[key], scale * value, rtol=1e-4, atol=1e-6)


def _reference():
  return {
    'first': jnp.array([0.0, 0.5, -0.5]),
    'second': jnp.array([[0.2, 0.7], [-0.4, 0.4]]),
  }


def _kl(p, q):
  """KL of softmaxes of logits over the last axis."""
  p, q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
  return jnp.sum(jnp.exp(p) * (p - q), axis=-1)


def test_k3_has_the_value_of_one_kl_and_the_gradient_of_the_other():
  policy, reference = _start(), _reference()
  arrived = jax.nn.softmax(policy['first'])[1:]  # at the states after a and b

  def kl(p, q):
    later = jnp.sum(arrived * _kl(p['second'], q['second']))
    return _kl(p['first'], q['first']) + later

  def k3(params):
    # Weights are the chances of the sequences under the policy, held fixed.
    chances = jax.lax.stop_gradient(_probabilities(params))
    return pg.k3_loss(
      _tabular(params)[None],
      _tabular(reference)[None],
      BANDIT_WEIGHTS[None] * chances[None, :, None],
      jnp.ones((1, 5), bool),
    ).loss_sum

  value, gradient = jax.jit(jax.value_and_grad(k3))(policy)
  np.testing.assert_allclose(value, jax.jit(kl)(policy, reference), rtol=1e-5)
  towards = jax.jit(jax.grad(lambda p: kl(reference, p)))(policy)
  other = jax.jit(jax.grad(lambda p: kl(p, reference)))(policy)
  for key, expected in towards.items():
    np.testing.assert_allclose(gradient[key], expected, rtol=1e-4, atol=1e-6)
    assert not np.allclose(gradient[key], other[key], rtol=0.1)


def test_shaped_rewards_are_level_at_the_regularised_optimum():
  # The optimum of E[R] - kl_weight * KL(policy || reference) is
  # reference * exp(R / kl_weight) / Z, where every sequence's shaped rewards sum to
  # kl_weight * log Z, and no advantage is left.
  kl_weight, reference = 0.3, _tabular(_reference())
  chances = _probabilities(_reference()) * np.exp(REWARDS / np.float32(kl_weight))
  z = jnp.sum(chances)
  first = jnp.stack([chances[0], chances[1] + chances[2], chances[3] + chances[4]])
  optimum = {'first': jnp.log(first), 'second': jnp.log(chances[1:].reshape(2, 2))}
  shaped_fn = jax.jit(pg.kl_shaped_rewards, static_argnames='kl_weight')
  shaped = shaped_fn(
    REWARDS[None], _tabular(optimum)[None], reference[None], BANDIT_WEIGHTS[None],
    jnp.ones((1, 5), bool), kl_weight=kl_weight,
  )  # fmt: skip
  totals = jnp.sum(shaped, axis=-1)
  np.testing.assert_allclose(totals[0], np.full(5, kl_weight * math.log(z)), rtol=1e-5)

"""The offline losses bound to models: against loops over the models' own outputs."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import gold
from rest_jax.models import heads, t5
from rest_jax.training import objectives, offline_objectives
from rest_jax.training import step as step_lib
from rest_jax.training.mesh import MeshConfig, make_mesh
from rest_jax.training.optimiser import AdamW
from tests.models import test_reward

CONFIG = test_reward.CONFIG
KEEP = np.array([[True, False, True], [True, True, False]])
REWARDS = np.array([[0.9, 0.1, 0.4], [0.2, 0.7, 9.0]], np.float32)
FROZEN = {objectives.REFERENCE: CONFIG, objectives.VALUE: CONFIG}
ALL = (
  offline_objectives.Gold(),
  offline_objectives.Gold(gold.gold_s_returns, reward_weighted=True),
  offline_objectives.OfflineActorCritic(discount=0.9),
  offline_objectives.BehaviourVMPO(),
  offline_objectives.RewardWeighted(),
  offline_objectives.RewardWeighted(offline_objectives.group_mean),
  offline_objectives.AdvantageWeighted(),
)
# One of each kind of frozen model; losses' own tests have these cases for all of them.
SOME = (ALL[0], ALL[3], ALL[6])


def make_batch(**shape):
  return test_reward.make_batch(**shape) | {'keep': KEEP, 'rewards': REWARDS}


@functools.cache
def policy(seed=0):
  params = test_reward.make_params(seed=seed)
  return {k: v for k, v in params.items() if k not in ('head', 'likelihood')}


@functools.cache
def frozen_params():
  params = test_reward.init(heads.ScalarHeadT5(CONFIG), jax.random.key(7))
  kernel = jax.random.normal(jax.random.key(8), params['head']['kernel'].shape)
  value = params | {'head': {'kernel': kernel, 'bias': jnp.full((1,), 0.5)}}
  return {objectives.REFERENCE: policy(3), objectives.VALUE: value}


@functools.partial(jax.jit, static_argnames=('objective',))
def _loss(params, batch, *, objective):
  return objective.loss_fn(CONFIG, FROZEN)(params, batch, jax.random.key(0))


@functools.partial(jax.jit, static_argnames=('objective',))
def _gradient(params, batch, *, objective):
  return jax.grad(lambda p: _loss(p, batch, objective=objective)[0])(params)


def loss_of(objective, batch, params=None):
  batch = objective.features(batch, done=0.5)
  given = objective.start(policy()) if params is None else params
  return _loss(given, {**batch, **frozen_params()}, objective=objective)


def tokens_of(batch):
  """(row, slot, t, number of tokens) of every kept token."""
  for row, slot in np.argwhere(batch['keep']):
    n = int(batch['decoder_loss_weights'][row, slot].sum())
    for t in range(n):
      yield row, slot, t, n


def log_softmax(params, batch):
  logits = np.asarray(test_reward.apply(t5.T5(CONFIG), params, batch), np.float64)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def chosen(table, batch, row, slot, t):
  return table[row, slot, t, batch['decoder_target_tokens'][row, slot, t]]


def values_of(batch):
  module = heads.ScalarHeadT5(CONFIG)
  found = test_reward.apply(module, frozen_params()[objectives.VALUE], batch)
  return np.asarray(found, np.float64)


def slow_gold(batch, log_pi, log_beta, values, *, product, by_reward):
  del values
  total = 0.0
  for row, slot, t, n in tokens_of(batch):
    terms = []
    for i in range(t, t + 6):
      if i >= n:
        terms.append(10.0 if product else 1.0)  # a certain token
        continue
      beta = chosen(log_beta, batch, row, slot, i)
      terms.append(max(beta + 10, 1) if product else max(math.exp(beta), 0.1))
    log_p = chosen(log_pi, batch, row, slot, t)
    omega = max(math.exp(log_p), 0.2)
    reward = REWARDS[row, slot] if by_reward else 1.0
    total -= omega * sum(terms) * reward * log_p
  return total


def slow_oac(batch, log_pi, log_beta, values):
  total = 0.0
  for row, slot, t, n in tokens_of(batch):
    advantage = 0.9 ** (n - 1 - t) * REWARDS[row, slot] - values[row, slot, t]
    total -= advantage * chosen(log_pi, batch, row, slot, t)
  return total


def slow_bvmpo(batch, log_pi, log_beta, values):
  found = list(tokens_of(batch))
  advantages = {
    (row, slot, t): REWARDS[row, slot] - values[row, slot, t]
    for row, slot, t, _ in found
  }
  ranked = sorted(advantages.values(), reverse=True)
  half = math.ceil(len(ranked) / 2)
  eta = 0.1
  better = {
    k: math.exp(a / eta) for k, a in advantages.items() if a >= ranked[half - 1]
  }
  total, count = sum(better.values()), len(ranked)
  policy_loss = kl = 0.0
  for row, slot, t, _ in found:
    weight = better.get((row, slot, t), 0.0) / total * count
    policy_loss -= weight * chosen(log_pi, batch, row, slot, t)
    beta = log_beta[row, slot, t]
    kl += (np.exp(beta) * (beta - log_pi[row, slot, t])).sum()
  temperature = eta * 0.1 + eta * math.log(total / len(better))
  kl_weight = math.sqrt(1e-5)  # half-way from 1 to 1e-5, geometrically
  return policy_loss + kl_weight * kl + temperature * count


def slow_weighted(batch, log_pi, log_beta, values, *, baseline):
  means = [REWARDS[row][KEEP[row]].mean() for row in range(2)]
  total = 0.0
  for row, slot, t, _ in tokens_of(batch):
    base = {'highest': 1.0, 'mean': means[row], 'value': values[row, slot, 0]}[baseline]
    weight = min(math.exp((REWARDS[row, slot] - base) / 0.2), 20)
    total -= weight * chosen(log_pi, batch, row, slot, t)
  return total


SLOW = (
  functools.partial(slow_gold, product=True, by_reward=False),
  functools.partial(slow_gold, product=False, by_reward=True),
  slow_oac,
  slow_bvmpo,
  functools.partial(slow_weighted, baseline='highest'),
  functools.partial(slow_weighted, baseline='mean'),
  functools.partial(slow_weighted, baseline='value'),
)


@pytest.mark.parametrize(('objective', 'slow'), list(zip(ALL, SLOW, strict=True)))
def test_an_objective_is_its_equation_over_the_kept_tokens(objective, slow):
  batch = make_batch()
  arguments = (
    log_softmax(policy(), batch),
    log_softmax(policy(3), batch),
    values_of(batch),
  )
  loss_sum, weight_sum, _ = loss_of(objective, batch)
  assert float(weight_sum) == 4 + 1 + 2 + 3
  # float32 logits of order 10, in sums of ten terms with weights of up to 60.
  assert float(loss_sum) == pytest.approx(slow(batch, *arguments), rel=2e-5)


@pytest.mark.parametrize('objective', SOME, ids=lambda o: o.name)
def test_padding_and_the_order_of_rows_change_nothing(objective):
  expected = float(loss_of(objective, make_batch())[0])
  padded = make_batch(source_length=7, length=9, fill=5)
  assert float(loss_of(objective, padded)[0]) == pytest.approx(expected, rel=1e-5)
  swapped = {k: v[::-1].copy() for k, v in make_batch().items()}
  assert float(loss_of(objective, swapped)[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('objective', SOME, ids=lambda o: o.name)
def test_nothing_kept_is_zero_with_a_zero_gradient(objective):
  batch = make_batch() | {'keep': np.zeros_like(KEEP)}
  loss_sum, weight_sum, _ = loss_of(objective, batch)
  assert float(loss_sum) == float(weight_sum) == 0
  given = {**objective.features(batch, done=0.0), **frozen_params()}
  gradient = _gradient(objective.start(policy()), given, objective=objective)
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_a_constant_reward_that_the_values_know_teaches_oac_nothing():
  value = jax.tree.map(jnp.zeros_like, frozen_params()[objectives.VALUE])
  value = value | {'head': {**value['head'], 'bias': jnp.full((1,), 0.25)}}
  batch = make_batch() | {'rewards': np.full((2, 3), 0.25, np.float32)}
  given = {**batch, **frozen_params(), objectives.VALUE: value}
  objective = offline_objectives.OfflineActorCritic()
  gradient = _gradient(policy(), given, objective=objective)
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_the_temperature_of_bvmpo_is_trained_beside_the_policy():
  objective = offline_objectives.BehaviourVMPO(initial_temperature=0.3)
  params = objective.start(policy())
  assert float(params['log_temperature']) == pytest.approx(math.log(0.3))
  batch = {**objective.features(make_batch(), done=0.0), **frozen_params()}
  gradient = _gradient(params, batch, objective=objective)
  assert float(gradient['log_temperature']) != 0
  jax.tree.map(np.testing.assert_array_equal, objective.policy(params), policy())


@pytest.mark.parametrize(
  ('done', 'weight'), [(0.0, 1.0), (0.5, math.sqrt(1e-5)), (1.0, 1e-5)]
)
def test_the_kl_weight_of_bvmpo_falls_by_decades(done, weight):
  features = offline_objectives.BehaviourVMPO().features({}, done=done)
  assert float(features['kl_weight']) == pytest.approx(weight, rel=1e-5)


def test_a_weighted_sum_is_the_sum_of_the_means():
  parts = ((objectives.BehaviouralCloning(), 2.0), (offline_objectives.Gold(), 0.5))
  both = objectives.WeightedSum(parts)
  assert both.needs == (objectives.REFERENCE,) and not both.whole_groups
  batch = make_batch()
  means = [
    float(loss_sum) / float(weight_sum)
    for loss_sum, weight_sum, _ in (loss_of(part, batch) for part, _ in parts)
  ]
  loss_sum, weight_sum, metrics = loss_of(both, batch)
  expected = 2.0 * means[0] + 0.5 * means[1]
  assert float(loss_sum) / float(weight_sum) == pytest.approx(expected, rel=1e-6)
  assert {'loss_bc', 'loss_gold', 'bc_accuracy', 'gold_return'} <= set(metrics)


def test_a_weighted_sum_refuses_what_it_cannot_train():
  with pytest.raises(ValueError, match='positive weights'):
    objectives.WeightedSum(((objectives.BehaviouralCloning(), 0.0),))
  with pytest.raises(ValueError, match='parameters of its own'):
    objectives.WeightedSum(((offline_objectives.BehaviourVMPO(), 1.0),))


def test_a_step_neither_consumes_nor_cuts_the_frozen_parameters():
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  objective = offline_objectives.Gold()
  batch = make_batch()
  losses = []
  for num_microbatches in (1, 2):
    step = step_lib.make_train_step(
      objective.loss_fn(CONFIG, FROZEN),
      AdamW(0.1)(),
      mesh=mesh,
      num_microbatches=num_microbatches,
    )
    params = jax.device_put(policy(), jax.NamedSharding(mesh, jax.P()))
    state = step_lib.state_from_params(params, AdamW(0.1)(), mesh)
    frozen = jax.device_put(frozen_params(), jax.NamedSharding(mesh, jax.P()))
    for _ in range(2):
      state, metrics = step(state, step.put_batch(batch), step.key(0), frozen)
    losses.append(float(metrics['loss']))
    np.testing.assert_array_equal(
      frozen[objectives.VALUE]['head']['bias'],
      frozen_params()['value_model']['head']['bias'],
    )
  assert losses[0] == pytest.approx(losses[1], rel=1e-5)

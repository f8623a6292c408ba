"""The reward model: head + likelihood * mean log-probability, padding ignored."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rest_jax.models import heads, reward, t5

CONFIG = t5.T5Config(
  vocab_size=24,
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  mlp_dim=16,
  num_encoder_layers=1,
  num_decoder_layers=1,
)
PREDICT = jax.jit(reward.predict, static_argnames=('config',))


@functools.partial(jax.jit, static_argnames=('module',))
def apply(module, params, batch):
  inputs = batch['encoder_input_tokens'], batch['decoder_input_tokens']
  return module.apply({'params': params}, *inputs)


@functools.partial(jax.jit, static_argnames=('module',))
def init(module, rng):
  tokens = jnp.ones((1, 1), jnp.int32)
  return nn.meta.unbox(module.init(rng, tokens, tokens[:, None])['params'])


def make_params(config=CONFIG, seed=0):
  """Parameters whose head and weight are neither 0 nor 1."""
  params = init(reward.RewardT5(config), jax.random.key(seed))
  kernel = jax.random.normal(jax.random.key(1), params['head']['kernel'].shape)
  return params | {
    'head': {'kernel': kernel, 'bias': jnp.full((1,), 0.3)},
    'likelihood': {'weight': jnp.full((1,), 0.7)},
  }


def make_batch(source_length=5, length=6, fill=0):
  """Two sources with three slots: lengths 4, 6, 1 and 2, 3, none.

  `fill` stands where nothing is: under a mask of 0.
  """
  rng = np.random.default_rng(0)
  lengths = np.array([[4, 6, 1], [2, 3, 0]])
  batch = {
    'encoder_input_tokens': np.zeros((2, source_length), np.int32),
    'decoder_input_tokens': np.full((2, 3, length), fill, np.int32),
    'decoder_target_tokens': np.full((2, 3, length), fill, np.int32),
    'decoder_loss_weights': np.zeros((2, 3, length), np.float32),
  }
  for row in range(2):
    source = np.append(rng.integers(2, 24, 2 + row), 1)
    batch['encoder_input_tokens'][row, : len(source)] = source
    for slot, n in enumerate(lengths[row]):
      tokens = np.append(rng.integers(2, 24, max(n - 1, 0)), 1)[:n]
      batch['decoder_target_tokens'][row, slot, :n] = tokens
      batch['decoder_input_tokens'][row, slot, :n] = np.append(0, tokens)[:n]
      batch['decoder_loss_weights'][row, slot, :n] = 1
  return batch


@pytest.mark.parametrize('tied', [False, True])
def test_predict_is_the_head_and_the_weighted_mean_log_probability(tied):
  config = t5.T5Config(**CONFIG.to_dict() | {'logits_via_embedding': tied})
  params, batch = make_params(config), make_batch()
  scalars, logits, weight = apply(reward.RewardT5(config), params, batch)
  assert float(weight) == np.float32(0.7)
  logits = np.asarray(logits, np.float64)
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  expected = np.zeros((2, 3))
  for row in range(2):
    for slot in range(3):
      n = int(batch['decoder_loss_weights'][row, slot].sum())
      if n:
        tokens = batch['decoder_target_tokens'][row, slot, :n]
        chosen = log_probs[row, slot, np.arange(n), tokens]
        expected[row, slot] = scalars[row, slot, n - 1] + 0.7 * chosen.mean()
  found = PREDICT(params, batch, config=config)
  # float32 sums of at most six log-probabilities of size 10.
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  assert found[1, 2] == 0  # an empty slot


def test_the_logits_are_the_policys():
  params, batch = make_params(), make_batch()
  _, logits, _ = apply(reward.RewardT5(CONFIG), params, batch)
  policy = {k: v for k, v in params.items() if k not in ('head', 'likelihood')}
  expected = apply(t5.T5(CONFIG), policy, batch)
  np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_padding_changes_no_reward():
  params = make_params()
  expected = PREDICT(params, make_batch(), config=CONFIG)
  for batch in (
    make_batch(fill=7),
    make_batch(source_length=9),
    make_batch(length=11, fill=5),
  ):
    found = PREDICT(params, batch, config=CONFIG)
    # Other shapes may sum in another order.
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_candidates_reward_does_not_depend_on_the_others_of_its_group():
  params, batch = make_params(), make_batch()
  expected = PREDICT(params, batch, config=CONFIG)
  order = np.array([2, 0, 1])
  shuffled = {
    k: v if v.ndim == 2 else np.ascontiguousarray(v[:, order]) for k, v in batch.items()
  }
  found = PREDICT(params, shuffled, config=CONFIG)
  np.testing.assert_allclose(found, expected[:, order], atol=1e-6)


def test_starting_from_a_policy_ranks_by_its_likelihood_alone():
  policy = init(t5.T5(CONFIG), jax.random.key(4))
  fresh = init(reward.RewardT5(CONFIG), jax.random.key(5))
  assert float(fresh['likelihood']['weight'][0]) == 1
  started = heads.warm_start(fresh, policy)
  for name in policy:
    jax.tree.map(np.testing.assert_array_equal, started[name], policy[name])
  started['head'] = jax.tree.map(jnp.zeros_like, started['head'])
  batch = make_batch()
  log_probs = jax.nn.log_softmax(apply(t5.T5(CONFIG), policy, batch))
  targets = batch['decoder_target_tokens'][..., None]
  chosen = np.take_along_axis(np.asarray(log_probs), targets, -1)[..., 0]
  weights = batch['decoder_loss_weights']
  expected = (chosen * weights).sum(-1) / np.maximum(weights.sum(-1), 1)
  found = PREDICT(started, batch, config=CONFIG)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_every_part_of_the_reward_is_trained():
  params, batch = make_params(), make_batch()

  @jax.jit
  def gradients(params):
    return jax.grad(lambda p: reward.predict(p, batch, config=CONFIG).sum())(params)

  found = gradients(params)
  for path, leaf in jax.tree_util.tree_leaves_with_path(found):
    assert np.isfinite(leaf).all() and np.any(leaf != 0), path


def test_rescaled_parameters_predict_the_rewards_on_another_scale():
  params, batch = make_params(), make_batch()
  expected = 2.5 * PREDICT(params, batch, config=CONFIG) - 0.75
  other = reward.rescale(params, factor=2.5, shift=-0.75)
  actual = PREDICT(other, batch, config=CONFIG)
  filled = batch['decoder_loss_weights'].any(axis=-1)
  np.testing.assert_allclose(actual[filled], expected[filled], rtol=1e-5, atol=1e-6)
  assert actual[1, 2] == 0  # the empty slot

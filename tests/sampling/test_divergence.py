"""KL to another policy: exact over the vocabulary, summed over a sample."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rest_jax.data import batches, group_store
from rest_jax.models import t5
from rest_jax.sampling import divergence
from rest_jax.training import mesh as mesh_lib

CONFIG = t5.T5Config(
  vocab_size=20,
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  mlp_dim=16,
  num_encoder_layers=1,
  num_decoder_layers=1,
)


@functools.cache
def _params(seed):
  tokens = jnp.ones((1, 1), jnp.int32)
  init = jax.jit(t5.T5(CONFIG).init)
  params = nn.meta.unbox(init(jax.random.key(seed), tokens, tokens[:, None])['params'])
  # Larger logits, so that the policies differ.
  kernel = params['decoder']['logits_dense']['kernel'] * 3
  return params | {'decoder': params['decoder'] | {'logits_dense': {'kernel': kernel}}}


def _samples(counts=(2, 1, 3, 2, 1)):
  rng = np.random.default_rng(1)
  groups = []
  for i, count in enumerate(counts):
    source = np.append(rng.integers(2, 20, 6 - i), 1).astype(np.int32)
    tokens = tuple(
      rng.integers(1, 20, int(rng.integers(1, 6))).astype(np.int32)
      for _ in range(count)
    )
    group = group_store.pair(f's/{i}', 'x', source, None, None)
    groups.append(
      group_store.Group(
        **{
          **group.__dict__,
          'texts': ('y',) * count,
          'tokens': tokens,
          'finished': np.ones(count, bool),
          'origins': ('model',) * count,
        }
      )
    )
  return groups


def _kl(policy, base, samples, batch_size=3):
  return divergence.sequence_kl(
    (CONFIG, _params(policy)),
    (CONFIG, _params(base)),
    samples,
    mesh=mesh_lib.make_mesh(devices=jax.devices()[:1]),
    source_length=7,
    target_length=5,
    batch_size=batch_size,
  )


def test_equal_policies_are_0_apart():
  for values in _kl(0, 0, _samples()):
    np.testing.assert_array_equal(values, 0)


def test_the_divergence_is_that_of_a_loop():
  samples = _samples()
  found = _kl(0, 1, samples)
  batch = batches.group_batch(samples, samples=3, source_length=7, target_length=5)
  log_probs = []
  for seed in (0, 1):
    logits = jax.jit(t5.T5(CONFIG).apply)(
      {'params': _params(seed)},
      batch['encoder_input_tokens'],
      batch['decoder_input_tokens'],
    )
    logits = np.asarray(logits, np.float64)
    log_probs.append(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
  p, q = log_probs
  for row, group in enumerate(samples):
    assert found[row].shape == (group.num_candidates,)
    for slot, tokens in enumerate(group.tokens):
      expected = 0.0
      for t in range(len(tokens)):
        for v in range(CONFIG.vocab_size):
          log_p, log_q = p[row, slot, t, v], q[row, slot, t, v]
          expected += np.exp(log_p) * (log_p - log_q)
      assert expected > 0.01
      # float32 sums over 20 entries; another shape of program.
      np.testing.assert_allclose(found[row][slot], expected, rtol=1e-4, atol=1e-5)


def test_groups_keep_their_order_and_batches_change_nothing():
  samples = _samples()
  expected = _kl(0, 1, samples)
  for found, values in zip(_kl(0, 1, samples, batch_size=5), expected, strict=True):
    np.testing.assert_allclose(found, values, rtol=1e-5)
  reverse = _kl(0, 1, samples[::-1])
  for found, values in zip(reverse[::-1], expected, strict=True):
    np.testing.assert_allclose(found, values, rtol=1e-5)


def test_the_divergence_has_a_direction():
  samples = _samples()
  forward, backward = _kl(0, 1, samples), _kl(1, 0, samples)
  assert not np.allclose(np.concatenate(forward), np.concatenate(backward), rtol=0.01)


def test_tokens_of_no_probability_add_nothing():
  logits = jnp.array([[0.0, jnp.log(3.0), -jnp.inf]])
  base = jnp.array([[0.0, 0.0, 0.0]])
  # 1/4 log(1/4 * 3) + 3/4 log(3/4 * 3)
  expected = 0.25 * np.log(0.75) + 0.75 * np.log(2.25)
  np.testing.assert_allclose(divergence.token_kl(logits, base), [expected], rtol=1e-6)
  rng = np.random.default_rng(0)
  many = rng.normal(size=(2, 200, 7)).astype(np.float32) * 5
  assert np.all(divergence.token_kl(jnp.array(many[0]), jnp.array(many[1])) >= 0)

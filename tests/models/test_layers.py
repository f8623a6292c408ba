"""Norm, initialisers, dropout and embedding."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.models import layers


def test_norm_is_root_mean_square_without_mean():
  x = jnp.array([[3.0, 4.0], [1.0, 1.0]])
  scale = jnp.array([1.0, 2.0])
  got = layers.RootMeanSquareNorm().apply({'params': {'scale': scale}}, x)
  rms = math.sqrt(12.5)
  # Layer norm with a mean would give -1, 1 and 0, 0.
  np.testing.assert_allclose(got, [[3 / rms, 8 / rms], [1.0, 2.0]], rtol=1e-6)


def test_norm_statistics_stay_float32_in_bfloat16():
  # 65,536 squared ones: a bfloat16 sum would stop growing at 256.
  x = jnp.ones((1, 65536), jnp.bfloat16) * 3
  got = layers.RootMeanSquareNorm('bfloat16').apply(
    {'params': {'scale': jnp.ones(65536)}}, x
  )
  assert got.dtype == jnp.bfloat16
  np.testing.assert_array_equal(got.astype(jnp.float32), 1.0)


def test_initialisers_fold_the_attention_scale_into_the_query():
  module = layers.Attention(num_heads=8, head_dim=64, emb_dim=256)
  x = jnp.zeros((1, 1, 256))

  def project(module, x):
    keys, values = module.keys_values(x)
    return module.attend(x, keys, values, jnp.zeros((8, 1, 1)))

  params = layers.nn.unbox(module.init(jax.random.key(0), x, method=project))['params']
  # 131,072 draws: the deviation's standard error is 0.2 %, five of it are 1 %.
  deviation = {name: float(jnp.std(leaf['kernel'])) for name, leaf in params.items()}
  assert deviation['query'] == pytest.approx(1 / math.sqrt(256 * 64), rel=0.01)
  assert deviation['key'] == pytest.approx(1 / math.sqrt(256), rel=0.01)
  assert deviation['value'] == pytest.approx(1 / math.sqrt(256), rel=0.01)
  assert deviation['out'] == pytest.approx(1 / math.sqrt(512), rel=0.01)


def test_attention_dropout_drops_whole_keys_for_a_sequence():
  # Values are one-hot per key and `out` is the identity, so the result shows the
  # probabilities: a dropped key is 0 for all queries of one candidate.
  module = layers.Attention(num_heads=1, head_dim=8, emb_dim=8, dropout_rate=0.5)
  identity = {'kernel': jnp.eye(8)}
  params = dict.fromkeys(('query', 'key', 'value', 'out'), identity)
  x = jnp.ones((2, 3, 4, 8))  # [batch, samples, length, embed]
  keys = jnp.zeros((2, 1, 8, 8))  # [batch, heads, source_length, head_dim]
  values = jnp.broadcast_to(jnp.eye(8), (2, 1, 8, 8))
  got = module.apply(
    {'params': params},
    x,
    keys,
    values,
    jnp.zeros((2, 1, 1, 8)),
    enable_dropout=True,
    rngs={'dropout': jax.random.key(0)},
    method='attend_shared',
  )
  got = np.asarray(got)
  assert set(np.unique(got)) == {0.0, 0.25}  # 1/8, kept and divided by 0.5
  np.testing.assert_array_equal(got, np.broadcast_to(got[:, :, :1], got.shape))
  # A mask shared by a whole group would give one row per source.
  for candidates in got[:, :, 0]:
    assert len(np.unique(candidates, axis=0)) == 3


def test_an_id_past_the_table_is_not_silent():
  module = layers.TokenEmbedder(5, 3)
  params = {'params': {'embedding': jnp.ones((5, 3))}}
  assert jnp.isfinite(module.apply(params, jnp.array([[4]]))).all()
  assert jnp.isnan(module.apply(params, jnp.array([[5]]))).all()

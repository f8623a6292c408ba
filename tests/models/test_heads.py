"""The scalar head: names, reading the last token, starting from a policy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from rest_jax.models import heads, t5

CONFIG = t5.T5Config(
  vocab_size=30,
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  mlp_dim=12,
  num_encoder_layers=1,
  num_decoder_layers=1,
)
SOURCE = np.array([[5, 6, 1, 0], [7, 1, 0, 0]], np.int32)
TARGET = np.array(
  [[[0, 3, 4], [0, 9, 1], [0, 3, 8]], [[0, 2, 2], [0, 5, 0], [0, 0, 0]]], np.int32
)


def draw(config, model, seed):
  """Parameters drawn on the host, so that nothing is compiled for them."""
  rng = np.random.default_rng(seed)
  shapes = traverse_util.flatten_dict(t5.parameter_shapes(config, model), sep='/')
  return traverse_util.unflatten_dict(
    {
      name: rng.normal(0.0, 0.5, leaf.shape).astype(np.float32)
      for name, leaf in shapes.items()
    },
    sep='/',
  )


@pytest.mark.parametrize('tied', [False, True])
@pytest.mark.parametrize('scan', [False, True])
def test_the_tree_is_the_policy_with_a_head_for_the_logits(tied, scan):
  config = dataclasses.replace(CONFIG, logits_via_embedding=tied, scan_layers=scan)
  head = traverse_util.flatten_dict(
    t5.parameter_shapes(config, heads.ScalarHeadT5), sep='/'
  )
  policy = traverse_util.flatten_dict(t5.parameter_shapes(config), sep='/')
  assert head['head/kernel'].shape == (8, 1)
  assert head['head/bias'].shape == (1,)
  shared = {k: v for k, v in head.items() if not k.startswith('head/')}
  expected = {k: v for k, v in policy.items() if 'logits_dense' not in k}
  assert shared == expected
  assert ('decoder/logits_dense/kernel' in policy) != tied
  extra = t5.count_parameters(config, heads.ScalarHeadT5) - t5.count_parameters(config)
  assert extra == (9 if tied else 9 - 8 * 30)


def test_scalars_are_the_policys_features_through_the_head():
  policy = draw(CONFIG, t5.T5, 0)
  start = draw(CONFIG, heads.ScalarHeadT5, 1)
  params = heads.warm_start(start, policy)
  scalars = heads.ScalarHeadT5(CONFIG).apply({'params': params}, SOURCE, TARGET)
  assert scalars.shape == (2, 3, 3)
  assert scalars.dtype == jnp.float32
  model = t5.T5(CONFIG)
  encoded = model.apply({'params': policy}, SOURCE, method='encode')
  features = model.apply(
    {'params': policy}, encoded, SOURCE, TARGET, method='decode_features'
  )
  kernel, bias = start['head']['kernel'], start['head']['bias']
  np.testing.assert_allclose(
    scalars, (np.asarray(features) @ kernel)[..., 0] + bias[0], rtol=1e-5, atol=1e-5
  )


def test_an_untrained_head_starts_near_zero():
  variables = heads.ScalarHead().init(jax.random.key(0), jnp.zeros((1, 512)))
  head = nn.unbox(variables)['params']
  assert 0 < float(jnp.std(head['kernel'])) < 0.02
  np.testing.assert_array_equal(head['bias'], 0.0)


def test_read_last_reads_the_last_token():
  scalars = jnp.arange(12, dtype=jnp.float32).reshape(1, 3, 4) + 1
  lengths = jnp.array([[1, 3, 4]], jnp.int32)
  # Index `lengths` instead of lengths - 1 would give 2, 8 and 12.
  np.testing.assert_array_equal(heads.read_last(scalars, lengths), [[1.0, 7.0, 12.0]])


def test_read_last_of_nothing_is_zero_and_of_too_much_the_end():
  scalars = jnp.array([[[jnp.nan, jnp.nan], [3.0, 4.0]]])
  lengths = jnp.array([[0, 9]], jnp.int32)
  np.testing.assert_array_equal(heads.read_last(scalars, lengths), [[0.0, 4.0]])
  gradient = jax.grad(lambda x: jnp.sum(heads.read_last(x, lengths)))(scalars)
  np.testing.assert_array_equal(gradient, [[[0.0, 0.0], [0.0, 1.0]]])


@pytest.mark.parametrize('shape', [(2, 4), (3,), (2, 3, 4)])
def test_read_last_names_shapes_that_disagree(shape):
  with pytest.raises(ValueError, match='one length per candidate'):
    heads.read_last(jnp.zeros((2, 3, 4)), jnp.zeros(shape, jnp.int32))


def test_warm_start_copies_everything_but_the_head():
  policy = draw(CONFIG, t5.T5, 0)
  start = draw(CONFIG, heads.ScalarHeadT5, 1)
  before = jax.tree.map(np.copy, start)
  params = heads.warm_start(start, policy)
  assert jax.tree.structure(params) == jax.tree.structure(start)
  got = traverse_util.flatten_dict(params, sep='/')
  for name, leaf in traverse_util.flatten_dict(start, sep='/').items():
    flat_policy = traverse_util.flatten_dict(policy, sep='/')
    source = leaf if name.startswith('head/') else flat_policy[name]
    np.testing.assert_array_equal(got[name], source)
  jax.tree.map(np.testing.assert_array_equal, start, before)  # the input is intact


@pytest.mark.parametrize(
  ('change', 'named'),
  [
    ({'mlp_dim': 16}, 'decoder/layers_0/mlp/wi_0/kernel'),
    ({'vocab_size': 31}, 'token_embedder/embedding'),
    ({'num_decoder_layers': 2}, 'decoder/layers_1/'),  # the policy has more
    ({'scan_layers': True}, 'decoder/layers_0/'),
    ({'mlp_activations': ('relu',)}, 'decoder/layers_0/mlp/wi_0/kernel'),
  ],
)
def test_warm_start_names_the_first_mismatch(change, named):
  policy = draw(dataclasses.replace(CONFIG, **change), t5.T5, 0)
  start = draw(CONFIG, heads.ScalarHeadT5, 1)
  with pytest.raises(ValueError, match=f"'{named}"):
    heads.warm_start(start, policy)

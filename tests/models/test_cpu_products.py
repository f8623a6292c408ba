"""Float32 products on a CPU: the same numbers, from programs compiled otherwise."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rest_jax.models import cpu_products, quantisation, t5
from rest_jax.sampling import decoder
from rest_jax.training import mesh as mesh_lib

CONFIG = t5.T5Config(
  vocab_size=40,
  emb_dim=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=32,
  num_encoder_layers=1,
  num_decoder_layers=1,
  logits_via_embedding=True,
)
UNTIED = dataclasses.replace(CONFIG, logits_via_embedding=False)


@functools.cache
def _params(config=CONFIG):
  tokens = jnp.ones((1, 1), jnp.int32)
  init = jax.jit(t5.T5(config).init)
  return nn.meta.unbox(init(jax.random.key(0), tokens, tokens[:, None])['params'])


def _mesh():
  return mesh_lib.make_mesh(mesh_lib.MeshConfig(data=1), jax.devices()[:1])


def _for_decoding(params, config=CONFIG):
  return cpu_products.for_decoding(params, config, _mesh())


def test_a_tied_embedding_lies_both_ways():
  params, options = _for_decoding(_params())
  table = params['token_embedder']['embedding']
  embedding = _params()['token_embedder']['embedding']
  np.testing.assert_array_equal(table.rows, embedding)
  np.testing.assert_array_equal(table.turned, embedding.T)
  assert options == cpu_products.OPTIONS
  assert params['decoder'] is _params()['decoder']


@pytest.mark.parametrize('layout', ['rows_first', 'rows_last'])
def test_the_logits_stay_what_they_are(layout):
  config = dataclasses.replace(CONFIG, cache_layout=layout)
  rng = np.random.default_rng(0)
  encoded = rng.standard_normal((3, 5, 16)).astype(np.float32)
  tokens = rng.integers(2, 40, (3, 2)).astype(np.int32)

  @jax.jit
  def step_logits(params):
    model = t5.T5(config)
    apply = functools.partial(model.apply, {'params': params})
    return apply(
      tokens,
      jnp.zeros((3, 2), jnp.int32),
      model.init_cache(3, 2, 4),
      apply(encoded, method='cross_keys_values'),
      jnp.ones((3, 5), bool),
      method='decode_step',
    )[0]

  expected = step_logits(_params())
  np.testing.assert_allclose(
    step_logits(_for_decoding(_params())[0]), expected, rtol=1e-5, atol=1e-5
  )


def test_logits_of_their_own_need_no_turning():
  params, options = _for_decoding(_params(UNTIED), UNTIED)
  assert params is _params(UNTIED) and options == cpu_products.OPTIONS


@pytest.mark.parametrize(
  ('params', 'config'),
  [
    (quantisation.quantise(_params(), quantisation.Bfloat16()), CONFIG),
    (_params(), dataclasses.replace(CONFIG, dtype='bfloat16')),
  ],
  ids=['kernels', 'activations'],
)
def test_what_multiplies_bfloat16_stays_as_it_is(params, config):
  found, options = _for_decoding(params, config)
  assert found is params and options == ()


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
  monkeypatch.setattr(cpu_products, 'OPTIONS', (('xla_cpu_no_such_option', '1'),))
  cpu_products.options.cache_clear()
  try:
    params, options = _for_decoding(_params())
  finally:
    cpu_products.options.cache_clear()
  assert params is _params() and options == ()


def test_programs_of_other_options_are_others_and_kept():
  assert decoder.programs() == (decoder.exchange, decoder.advance)
  others = decoder.programs(cpu_products.OPTIONS)
  assert others.advance is not decoder.advance
  assert decoder.programs(cpu_products.OPTIONS).advance is others.advance

"""Kernels in fewer bits: near the originals, applied as said, sampled from honestly."""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from rest_jax.data import batches, group_store
from rest_jax.models import layers, quantisation, reward, stacking, t5
from rest_jax.sampling import draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.training import mesh as mesh_lib

CONFIG = t5.T5Config(
  vocab_size=40,
  emb_dim=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=32,
  num_encoder_layers=1,
  num_decoder_layers=2,
)
WEIGHTS, BOTH = quantisation.Int8(), quantisation.Int8(inputs=True)
BFLOAT16 = quantisation.Bfloat16()


@pytest.fixture(autouse=True)
def library(request):
  name = request.node.name
  without = name.startswith(('test_without_the_library', 'test_the_head'))
  if not without and 'bfloat16_kernels' not in name:
    pytest.importorskip('qwix', reason="needs the extra 'quantised'")


@functools.cache
def _params(config=CONFIG):
  tokens = jnp.ones((1, 1), jnp.int32)
  init = jax.jit(t5.T5(config).init)
  return nn.meta.unbox(init(jax.random.key(0), tokens, tokens[:, None])['params'])


@functools.cache
def _quantised(settings=WEIGHTS):
  return quantisation.quantise(_params(), settings)


def _tokens(seed=0, candidates=4):
  rng = np.random.default_rng(seed)
  sources = rng.integers(2, 36, (3, 7)).astype(np.int32)
  return sources, rng.integers(2, 36, (3, candidates, 5)).astype(np.int32)


def _logits(params, config=CONFIG):
  return jax.jit(t5.T5(config).apply)({'params': params}, *_tokens())


def _by_name(params):
  return traverse_util.flatten_dict(params, sep='/')


def test_weights_are_within_half_a_step_of_their_channel():
  original, restored = (
    _by_name(tree) for tree in (_params(), quantisation.dequantise(_quantised()))
  )
  for name, kernel in original.items():
    if not name.endswith(('/kernel', '/embedding')):
      continue
    stored = _by_name(_quantised())[name].weights
    assert stored.qvalue.dtype == jnp.int8
    assert stored.qvalue.shape == kernel.shape
    inputs = 1 if name.endswith('/embedding') else 0
    steps = np.abs(kernel).max(axis=inputs, keepdims=True) / 127
    np.testing.assert_allclose(stored.scale, steps, rtol=1e-6)
    error = np.abs(restored[name] - kernel)
    # 1e-5 of a step for the division's rounding. One scale for the whole kernel
    # would be off by more than half a step of its smaller channels.
    assert np.all(error <= (0.5 + 1e-5) * steps)
    assert np.max(error / steps) > 0.4


def test_all_projections_and_the_embedding_are_quantised_and_nothing_else():
  original, quantised = _by_name(_params()), _by_name(_quantised())
  assert original.keys() == quantised.keys()
  kept = set()
  for name, leaf in quantised.items():
    if not isinstance(leaf, quantisation.QuantisedKernel):
      assert leaf is original[name]
      kept.add(name.split('/')[-1])
  assert kept == {'rel_embedding', 'scale'}
  assert 'decoder/logits_dense/kernel' not in {
    name for name, leaf in quantised.items() if isinstance(leaf, jax.Array)
  }


def test_the_head_of_a_reward_model_stays_as_it_is():
  tokens = jnp.ones((1, 1), jnp.int32)
  init = jax.jit(reward.RewardT5(CONFIG).init)
  params = nn.meta.unbox(init(jax.random.key(0), tokens, tokens[:, None])['params'])
  kept = params['head']
  fewer = quantisation.quantise(params, BFLOAT16)
  assert fewer['head']['kernel'] is kept['kernel']
  assert fewer['decoder']['logits_dense']['kernel'].dtype == jnp.bfloat16
  rng = np.random.default_rng(0)
  sources = rng.integers(3, CONFIG.vocab_size, (4, 6)).astype(np.int32)
  targets = rng.integers(3, CONFIG.vocab_size, (4, 2, 5)).astype(np.int32)
  predict = functools.partial(
    reward.predict,
    batch={
      'encoder_input_tokens': sources,
      'decoder_input_tokens': np.pad(targets, ((0, 0), (0, 0), (1, 0)))[..., :-1],
      'decoder_target_tokens': targets,
      'decoder_loss_weights': np.ones(targets.shape, np.float32),
    },
    config=CONFIG,
  )
  found, expected = predict(fewer), predict(params)
  assert not np.array_equal(found, expected)
  # Eight bits of each weight and input, averaged over a candidate's five tokens.
  np.testing.assert_allclose(found, expected, atol=0.02)


def test_bytes_are_those_of_the_arrays():
  assert quantisation.bytes_a_parameter(_params()) == 4
  num_bytes = num_parameters = 0
  for name, leaf in _by_name(_params()).items():
    num_parameters += leaf.size
    if name.endswith('kernel'):
      num_bytes += leaf.size + 4 * leaf.shape[1]
    elif name.endswith('/embedding'):
      num_bytes += leaf.size + 4 * leaf.shape[0]
    else:
      num_bytes += 4 * leaf.size
  found = quantisation.bytes_a_parameter(_quantised())
  assert found == num_bytes / num_parameters
  assert 1 < found < 2


@pytest.mark.parametrize('tied', [False, True])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_model_applies_the_dequantised_weights(dtype, tied):
  config = dataclasses.replace(CONFIG, logits_via_embedding=tied)
  params = quantisation.quantise(_params(config), WEIGHTS)
  config = dataclasses.replace(config, dtype=dtype)
  found = _logits(params, config)
  expected = _logits(quantisation.dequantise(params), config)
  assert found.dtype == jnp.float32
  # The same weights; the products may be fused in another way. In bfloat16 a
  # different order of sums can round the other way, by 2^-8 of a stream near 1.
  atol = 1e-5 if dtype == 'float32' else 0.05
  np.testing.assert_allclose(found, expected, atol=atol)


@pytest.mark.parametrize(
  'settings', [WEIGHTS, BOTH, BFLOAT16], ids=['weights', 'both', 'bfloat16_kernels']
)
def test_logits_are_close_and_not_equal(settings):
  original, found = _logits(_params()), _logits(_quantised(settings))
  error = np.std(found - original) / np.std(original)
  # Each rounding adds noise of 0.3 steps; a step is 1/127 of the channel's largest
  # weight, so about 0.5 % of the spread of a product, and there are eight in a row.
  # bfloat16 keeps 8 bits of each number: 0.1 % to 0.3 % of it.
  assert 0.001 < error < 0.05


def test_inputs_are_rounded_by_row():
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(16, 3)).astype(np.float32)
  # Rows of very different sizes: with one scale for all, the small would vanish.
  x = (rng.normal(size=(2, 2, 16)) * [[[1e-3], [1.0]], [[1.0], [50.0]]]).astype('f')
  quantised = quantisation.quantise({'kernel': jnp.asarray(kernel)}, BOTH)['kernel']
  found = jax.jit(quantisation.project)(jnp.asarray(x), quantised)
  row_steps = np.abs(x).max(axis=-1, keepdims=True) / 127
  steps = np.abs(kernel).max(axis=0) / 127

  def whole(values):
    return np.round(values)

  expected = whole(x / row_steps) @ whole(kernel / steps) * row_steps * steps
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * row_steps.max())
  unrounded = x @ (whole(kernel / steps) * steps)
  assert not np.allclose(found, unrounded, rtol=1e-4, atol=1e-6)


def _rounded(x):
  """x in bfloat16, as float64."""
  return np.asarray(jnp.asarray(x, jnp.float32).astype(jnp.bfloat16)).astype(np.float64)


@pytest.mark.parametrize('transposed', [False, True])
def test_bfloat16_kernels_multiply_rounded_inputs_and_sum_in_float32(transposed):
  rng = np.random.default_rng(0)
  # Long sums: in bfloat16 they would be off by more than the tolerance.
  x = rng.normal(size=(3, 512)).astype(np.float32)
  kernel = rng.normal(size=(512, 5)).astype(np.float32)
  params = quantisation.quantise({'kernel': jnp.asarray(kernel)}, BFLOAT16)
  assert params['kernel'].dtype == jnp.bfloat16
  found = layers.Projection(5, ('embed', 'mlp')).apply(
    {'params': params}, jnp.asarray(x), transposed=transposed
  )
  found = np.asarray(found).T if transposed else np.asarray(found)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, _rounded(x) @ _rounded(kernel), atol=1e-4)
  assert np.abs(found - x @ kernel).max() > 1e-2


def test_bfloat16_kernels_reach_tied_logits_and_leave_the_rest():
  config = dataclasses.replace(CONFIG, logits_via_embedding=True)
  original = _by_name(_params(config))
  params = quantisation.quantise(_params(config), BFLOAT16)
  for name, leaf in _by_name(params).items():
    if name.endswith(('/kernel', '/embedding')):
      assert leaf.dtype == jnp.bfloat16
    else:
      assert leaf is original[name]
  assert 2 < quantisation.bytes_a_parameter(params) < 2.1
  features = np.random.default_rng(0).normal(size=(1, 2, 16)).astype(np.float32)
  model = t5.T5(config)
  logits = model.apply({'params': params}, features, method='logits')
  table = _rounded(original['token_embedder/embedding'])
  expected = _rounded(features / np.float32(4)) @ table.T  # sqrt(emb_dim) = 4
  np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_bfloat16_kernels_change_nothing_where_all_is_bfloat16():
  config = dataclasses.replace(CONFIG, dtype='bfloat16')
  params = dict(quantisation.quantise(_params(), BFLOAT16))
  params['decoder'] = {
    **params['decoder'],
    'logits_dense': _params()['decoder']['logits_dense'],  # float32 in any case
  }
  np.testing.assert_array_equal(_logits(params, config), _logits(_params(), config))


@pytest.mark.parametrize('transposed', [False, True])
def test_tied_logits_multiply_integers(transposed):
  config = dataclasses.replace(CONFIG, logits_via_embedding=True)
  table = np.asarray(_params(config)['token_embedder']['embedding'])
  features = np.random.default_rng(0).normal(size=(1, 2, 16)).astype(np.float32)
  params = {'params': quantisation.quantise(_params(config), BOTH)['token_embedder']}
  embedder = layers.TokenEmbedder(config.vocab_size, config.emb_dim)
  logits = embedder.apply(params, features, transposed=transposed, method='attend')
  logits = np.moveaxis(np.asarray(logits), 0, -1) if transposed else logits
  rows = features / 4  # sqrt(emb_dim)
  row_steps, steps = (
    np.abs(x).max(axis=-1, keepdims=True) / 127 for x in (rows, table)
  )
  expected = np.round(rows / row_steps) @ np.round(table / steps).T
  np.testing.assert_allclose(logits, expected * row_steps * steps.T, rtol=1e-4)
  assert np.abs(logits - rows @ table.T).max() > 1e-3


def test_an_embedding_of_8_bits_gives_nan_past_its_end():
  embedder = layers.TokenEmbedder(CONFIG.vocab_size, CONFIG.emb_dim)
  params = {'params': _quantised()['token_embedder']}
  tokens = jnp.asarray([[3, CONFIG.vocab_size]])
  found = np.isnan(embedder.apply(params, tokens))
  np.testing.assert_array_equal(found.all(axis=-1), [[False, True]])
  assert not found[0, 0].any()


def test_a_row_of_zeros_gives_zeros():
  kernel = jnp.ones((4, 2))
  quantised = quantisation.quantise({'kernel': kernel}, BOTH)['kernel']
  np.testing.assert_array_equal(quantisation.project(jnp.zeros((1, 4)), quantised), 0)


def test_scanned_layers_have_scales_of_their_own():
  config = dataclasses.replace(CONFIG, scan_layers=True)
  stacked = stacking.stack_layers(_params())
  quantised = quantisation.quantise(stacked, WEIGHTS)
  weights = quantised['decoder']['decoder']['mlp']['wi_0']['kernel'].weights
  assert weights.scale.shape == (1, CONFIG.num_decoder_layers, CONFIG.mlp_dim)
  found = _logits(quantised, config)
  # The same integers as looped, in another program.
  np.testing.assert_allclose(found, _logits(_quantised()), atol=1e-5)


class LetterVocabulary:
  """Token i is the i-th letter after '0'; the model's embedding is larger."""

  size = 36

  def decode_batch(self, tokens):
    return [''.join(chr(48 + t) for t in row if t > 1) for row in tokens]


def _recorded_and_forced(samples, params):
  """Recorded log-probabilities and those of teacher forcing, of all tokens."""
  batch = batches.group_batch(samples, samples=6, source_length=16, target_length=12)
  logits = jax.jit(t5.T5(CONFIG).apply)(
    {'params': params}, batch['encoder_input_tokens'], batch['decoder_input_tokens']
  )
  log_probs = np.asarray(jax.nn.log_softmax(logits))
  recorded, forced = [], []
  for row, group in enumerate(samples):
    for slot, tokens in enumerate(group.tokens):
      recorded.append(group.token_log_probs[slot])
      forced.append(log_probs[row, slot, np.arange(len(tokens)), tokens])
  return np.concatenate(recorded), np.concatenate(forced)


@pytest.mark.parametrize(
  'settings', [WEIGHTS, BOTH, BFLOAT16], ids=['weights', 'both', 'bfloat16_kernels']
)
def test_recorded_log_probs_are_those_of_the_quantised_policy(settings):
  params = _quantised(settings)
  sources, _ = _tokens()
  groups = [
    group_store.pair(f's/{i}', 'x', np.append(source, 1).astype(np.int32), None, None)
    for i, source in enumerate(sources)
  ]
  sampler = sampler_lib.Sampler(
    params,
    CONFIG,
    LetterVocabulary(),
    mesh=mesh_lib.make_mesh(),
    source_length=16,
    target_length=12,
    decoding=draws.Decoding(temperature=0.8),
    seed=3,
    grow_step=1,
    settings=sampler_lib.SamplerSettings(batch_size=4, share=6),
  )
  samples = sampler.sample_in_order(groups, 6)
  recorded, forced = _recorded_and_forced(samples, params)
  # float32 sums in another order. An input midway between two integers may go
  # either way, which moves its row by a step: rarely. With the largest input of each
  # row midway, as the library has it by default, 44 % of the tokens differed.
  near = np.abs(recorded - forced) < 2e-5
  assert np.mean(near) >= (1.0 if settings == WEIGHTS else 0.9)
  _, unquantised = _recorded_and_forced(samples, _params())
  assert np.mean(np.abs(recorded - unquantised) < 2e-5) < 0.1


def test_kernels_in_shards_stay_in_shards():
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ('model',))
  spec = jax.sharding.PartitionSpec(None, 'model')
  kernel = jax.device_put(jnp.ones((4, 2)), jax.sharding.NamedSharding(mesh, spec))
  weights = quantisation.quantise({'kernel': kernel}, WEIGHTS)['kernel'].weights
  assert weights.qvalue.sharding.is_equivalent_to(kernel.sharding, 2)


def test_a_tree_that_has_no_float_kernels_is_refused():
  with pytest.raises(ValueError, match='nothing to quantise'):
    quantisation.quantise({'embedding': jnp.ones((3, 2))}, WEIGHTS)
  with pytest.raises(ValueError, match='quantised already'):
    quantisation.quantise(_quantised(), WEIGHTS)
  with pytest.raises(ValueError, match='quantised already'):
    quantisation.quantise(quantisation.quantise(_params(), BFLOAT16), BFLOAT16)


def test_without_the_library_the_error_names_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, 'qwix', None)
  with pytest.raises(ValueError, match=r"pip install 'rest_jax\[quantised\]'"):
    quantisation.quantise({'kernel': jnp.ones((3, 2))}, WEIGHTS)


def test_without_the_library_the_model_runs(monkeypatch):
  monkeypatch.setitem(sys.modules, 'qwix', None)
  projection = layers.Projection(2, ('embed', 'mlp'))
  params = {'params': {'kernel': jnp.ones((3, 2))}}
  np.testing.assert_array_equal(projection.apply(params, jnp.ones((1, 3))), 3)

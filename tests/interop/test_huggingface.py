"""Hugging Face names, in both directions; the logits are in models/test_t5.py."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from rest_jax.interop import huggingface
from rest_jax.models import t5

GOLDENS = pathlib.Path(__file__).parents[1] / 'goldens'
NAMES = ('t5_v1_0', 't5_v1_1')


def load(name):
  golden = np.load(GOLDENS / f'{name}.npz')
  state = {
    key.removeprefix('state/'): golden[key]
    for key in golden.files
    if key.startswith('state/')
  }
  return huggingface.config_from_huggingface(json.loads(str(golden['config']))), state


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('scan', [False, True])
def test_round_trip(name, scan):
  config, state = load(name)
  config = dataclasses.replace(config, scan_layers=scan)
  params = huggingface.params_from_huggingface(state, config)
  shapes = jax.tree.map(lambda leaf: leaf.shape, t5.parameter_shapes(config))
  assert jax.tree.map(np.shape, params) == shapes
  back = huggingface.params_to_huggingface(params, config)
  copies = {'encoder.embed_tokens.weight', 'decoder.embed_tokens.weight'}
  if name == 't5_v1_0':
    copies.add('lm_head.weight')
  assert set(back) == set(state) | copies
  for key, value in back.items():
    np.testing.assert_array_equal(value, state.get(key, state['shared.weight']))
    assert value.dtype == np.float32
  again = huggingface.params_from_huggingface(back, config)  # with the copies
  np.testing.assert_equal(again, params)


def test_the_goldens_buckets_are_ours():
  from rest_jax.models import relative_positions

  golden = np.load(GOLDENS / 't5_v1_1.npz')
  for side in ('encoder', 'decoder'):
    ours = relative_positions.relative_position_buckets(
      np.arange(-200, 201, dtype=np.int32),
      bidirectional=side == 'encoder',
      num_buckets=32,
      max_distance=128,
    )
    np.testing.assert_array_equal(ours, golden[f'buckets/{side}'])


def test_published_configurations():
  small = {
    'd_ff': 1024, 'd_kv': 64, 'd_model': 512, 'dropout_rate': 0.1,
    'feed_forward_proj': 'gated-gelu', 'is_encoder_decoder': True,
    'layer_norm_epsilon': 1e-06, 'model_type': 'mt5', 'num_decoder_layers': 8,
    'num_heads': 6, 'num_layers': 8, 'relative_attention_num_buckets': 32,
    'tie_word_embeddings': False, 'vocab_size': 250112,
  }  # fmt: skip
  config = huggingface.config_from_huggingface(small)
  assert t5.count_parameters(config) == 300_176_768
  assert not config.logits_via_embedding
  assert config.dropout_rate == 0.1
  # T5 1.0 small's file has neither num_decoder_layers nor tie_word_embeddings.
  old = {
    'd_ff': 2048, 'd_kv': 64, 'd_model': 512, 'model_type': 't5', 'num_heads': 8,
    'num_layers': 6, 'vocab_size': 32128,
  }  # fmt: skip
  config = huggingface.config_from_huggingface(old, dtype='bfloat16', scan_layers=True)
  assert t5.count_parameters(config) == 60_506_624
  assert config.logits_via_embedding and config.mlp_activations == ('relu',)
  assert config.dtype == 'bfloat16' and config.scan_layers


def test_multilingual_models_are_untied_whatever_their_file_says():
  # Transformers 5 writes tie_word_embeddings = True for them.
  for model_type, per_layer in (('mt5', False), ('umt5', True)):
    config = huggingface.config_from_huggingface(
      {'model_type': model_type, 'tie_word_embeddings': True}
    )
    assert config.vocab_size == 250112 and config.num_heads == 6
    assert config.mlp_activations == ('gelu', 'linear')
    assert not config.logits_via_embedding
    assert config.relative_bias_per_layer == per_layer


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'mlp_activations': ('relu',), 'logits_via_embedding': True},
    {'mlp_activations': ('silu', 'linear'), 'dropout_rate': 0.1},
    {'relative_bias_per_layer': True, 'num_decoder_layers': 3},
  ],
)
def test_configurations_come_back(options):
  config = t5.T5Config(vocab_size=40, **options)
  fields = huggingface.config_to_huggingface(config)
  assert huggingface.config_from_huggingface(fields) == config


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'mlp_activations': ('relu', 'linear')}, 'mlp_activations is'),
    (
      {'relative_bias_per_layer': True, 'logits_via_embedding': True},
      'relative_bias_per_layer is umT5',
    ),
  ],
)
def test_a_shape_that_transformers_lacks_is_refused(options, words):
  config = t5.T5Config(vocab_size=40, **options)
  with pytest.raises(ValueError, match=words):
    huggingface.config_to_huggingface(config)


def test_scale_decoder_outputs_overrules_the_tie():
  fields = {'tie_word_embeddings': True, 'scale_decoder_outputs': False}
  assert not huggingface.config_from_huggingface(fields).logits_via_embedding


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('model_type', 'bart'),
    ('decoder_start_token_id', 2),
    ('is_encoder_decoder', False),
    ('feed_forward_proj', 'gelu'),
    ('layer_norm_epsilon', 1e-5),
  ],
)
def test_what_is_not_t5_is_refused(field, value):
  with pytest.raises(ValueError, match=f'^{field} is {value!r}'):
    huggingface.config_from_huggingface({field: value})


def test_a_missing_entry_is_named():
  config, state = load('t5_v1_1')
  del state['decoder.block.1.layer.1.EncDecAttention.k.weight']
  with pytest.raises(ValueError, match=r'no .decoder\.block\.1.*EncDecAttention\.k'):
    huggingface.params_from_huggingface(state, config)


def test_an_unknown_entry_is_named():
  config, state = load('t5_v1_1')
  state['encoder.block.9.layer.0.layer_norm.weight'] = np.ones(16)
  with pytest.raises(ValueError, match=r'encoder\.block\.9.*1 unknown'):
    huggingface.params_from_huggingface(state, config)


def test_a_wrong_shape_is_named():
  config, state = load('t5_v1_1')
  key = 'encoder.block.0.layer.0.SelfAttention.q.weight'
  state[key] = state[key].T  # ours, not PyTorch's
  with pytest.raises(ValueError, match=r'SelfAttention\.q.*\(16, 24\).*\(24, 16\)'):
    huggingface.params_from_huggingface(state, config)


def test_a_tied_copy_must_be_a_copy():
  config, state = load('t5_v1_0')
  state['lm_head.weight'] = state['shared.weight'].copy()
  huggingface.params_from_huggingface(state, config)
  state['lm_head.weight'][3, 2] += 1
  with pytest.raises(ValueError, match=r'lm_head\.weight.*differs'):
    huggingface.params_from_huggingface(state, config)


def test_the_unused_table_of_old_files_is_left_aside():
  config, state = load('t5_v1_0')
  name = 'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight'
  state[name] = np.ones((32, 4))
  huggingface.params_from_huggingface(state, config)


def test_wrong_parameters_are_named_on_the_way_out():
  config, state = load('t5_v1_1')
  params = huggingface.params_from_huggingface(state, config)
  tied = dataclasses.replace(config, logits_via_embedding=True)
  with pytest.raises(ValueError, match='decoder/logits_dense/kernel'):
    huggingface.params_to_huggingface(params, tied)
  del params['encoder']['encoder_norm']
  with pytest.raises(ValueError, match='encoder/encoder_norm/scale'):
    huggingface.params_to_huggingface(params, config)
  params['encoder']['encoder_norm'] = {'scale': np.ones(3)}
  with pytest.raises(ValueError, match=r'encoder_norm/scale.*\(3,\)'):
    huggingface.params_to_huggingface(params, config)

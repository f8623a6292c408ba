"""T5Config: validation, JSON, and every model file in gin_configs/models."""

import dataclasses
import json
import pathlib
import re

import gin
import pytest

from rest_jax.models import t5

FILES = sorted(
  (pathlib.Path(__file__).parents[2] / 'gin_configs' / 'models').glob('*.gin')
)
HEADER = re.compile(r'^# .+: ([\d,]+) parameters at vocabulary ([\d,]+)\.$')
# Trained and published, so their vocabulary is part of the model. Totals of
# Hugging Face's models of the same name.
PUBLISHED = {
  't5_1_0_small': 60_506_624,
  't5_1_0_base': 222_903_552,
  't5_1_0_large': 737_668_096,
  't5_1_1_small': 76_961_152,
  't5_1_1_base': 247_577_856,
  'mt5_small': 300_176_768,
  'byt5_small': 299_637_760,
}


@pytest.fixture(autouse=True)
def clean_gin():
  gin.clear_config()
  yield
  gin.clear_config()


def build(path: pathlib.Path, *bindings: str) -> t5.T5Config:
  gin.parse_config_files_and_bindings([str(path)], list(bindings))
  return gin.get_configurable(t5.T5Config)()


def formula(config: t5.T5Config) -> int:
  """Parameters counted on paper, without building the model."""
  attention = 4 * config.emb_dim * config.num_heads * config.head_dim
  mlp = (len(config.mlp_activations) + 1) * config.emb_dim * config.mlp_dim
  encoder = attention + mlp + 2 * config.emb_dim
  decoder = 2 * attention + mlp + 3 * config.emb_dim
  tables = 1 if config.logits_via_embedding else 2
  return (
    tables * config.vocab_size * config.emb_dim
    + config.num_encoder_layers * encoder
    + config.num_decoder_layers * decoder
    + 2 * config.emb_dim
    + 2 * config.num_heads * config.relative_attention_num_buckets
  )


def test_the_folder_is_complete():
  names = {path.stem for path in FILES}
  expected = {
    'tiny',
    'tiny_v1_0',
    'toy_multi30k',
    'paper_iwslt',
    'paper_wmt',
    'paper_web',
  }
  expected |= {f't5_1_0_{size}' for size in ('small', 'base', 'large')}
  for family in ('t5_1_1', 'mt5', 'byt5'):
    expected |= {f'{family}_{size}' for size in ('small', 'base', 'large', 'xl', 'xxl')}
  assert names == expected


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_model_file_gives_the_parameters_of_its_header(path):
  header = HEADER.match(path.read_text().splitlines()[0])
  assert header, f'{path.name} must open with its parameter count'
  stated, vocab = (int(group.replace(',', '')) for group in header.groups())
  config = build(path, f'VOCAB_SIZE = {vocab}', 'DROPOUT_RATE = 0.25')
  assert config.vocab_size == vocab
  assert config.dropout_rate == 0.25
  counted = t5.count_parameters(config)
  assert counted == pytest.approx(stated, rel=0.01)
  assert counted == formula(config)
  assert counted == PUBLISHED.get(path.stem, counted)
  assert config.scan_layers == config.remat
  assert config.scan_layers == path.stem.endswith(('large', 'xl'))


def test_the_vocabulary_is_required_unless_published():
  for path in FILES:
    if path.stem.startswith(('t5_', 'mt5_', 'byt5_')):
      assert build(path).vocab_size % 128 == 0
    else:
      with pytest.raises(ValueError, match='VOCAB_SIZE'):
        build(path)
    gin.clear_config()


def test_a_saved_gin_config_builds_the_same_model():
  path = next(path for path in FILES if path.stem == 'tiny')
  config = build(path, 'VOCAB_SIZE = 50')
  saved = gin.operative_config_str()
  gin.clear_config()
  gin.parse_config(saved)
  assert gin.get_configurable(t5.T5Config)() == config


def test_json_round_trip():
  config = t5.T5Config(
    vocab_size=40, mlp_activations=('relu',), dtype='bfloat16', dropout_rate=0.1
  )
  assert t5.T5Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_configs_are_hashable_also_from_lists():
  config = t5.T5Config(vocab_size=40, mlp_activations=['gelu', 'linear'])
  assert hash(config) == hash(t5.T5Config(vocab_size=40))


def test_from_dict_names_an_unknown_field_and_the_known_ones():
  with pytest.raises(ValueError, match=r"'d_model'.*known.*emb_dim"):
    t5.T5Config.from_dict({'vocab_size': 40, 'd_model': 8})


def test_from_dict_needs_a_vocabulary():
  with pytest.raises(ValueError, match='vocab_size'):
    t5.T5Config.from_dict({'emb_dim': 8})


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('vocab_size', 2),
    ('emb_dim', 0),
    ('num_heads', 2.0),
    ('head_dim', True),
    ('num_encoder_layers', 0),
    ('dropout_rate', 1.0),
    ('dropout_rate', -0.1),
    ('dtype', 'float16'),
    ('cache_layout', 'rows'),
    ('int8_cache', True),  # without cache_layout='rows_last'
    ('mlp_activations', ()),
    ('mlp_activations', ('swish',)),
    ('mlp_activations', 'gelu'),
    ('scan_layers', 1),
    ('relative_attention_num_buckets', 30),
    ('relative_attention_max_distance', 16),
  ],
)
def test_a_bad_value_is_named(field, value):
  good = t5.T5Config(vocab_size=40)
  with pytest.raises(ValueError, match=rf'T5Config\.{field}'):
    dataclasses.replace(good, **{field: value})


def test_a_later_field_that_is_off_leaves_fingerprints_as_they_were():
  config = t5.T5Config(vocab_size=40)
  assert 'relative_bias_per_layer' not in config.identity()
  assert set(config.to_dict()) - set(config.identity()) == {
    'relative_bias_per_layer',
    'int8_cache',
  }
  own = dataclasses.replace(config, relative_bias_per_layer=True)
  assert own.identity()['relative_bias_per_layer'] is True

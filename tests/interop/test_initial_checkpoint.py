"""Starting from checkpoints of every format, layout and family; what is wrong is named.

The logits that a family's parameters give are in models/test_t5.py.
"""

import dataclasses
import functools
import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import serialization, traverse_util

from rest_jax.interop import checkpoint_layouts, initial_checkpoint
from rest_jax.models import stacking, t5
from rest_jax.stages import policies
from rest_jax.training import checkpoints
from rest_jax.training import mesh as mesh_lib
from tests.interop import example_checkpoints as example

CONFIG = example.CONFIG
V1_0 = dataclasses.replace(CONFIG, mlp_activations=('relu',), logits_via_embedding=True)
UMT5 = dataclasses.replace(CONFIG, relative_bias_per_layer=True)
FAMILIES = {'1.0': V1_0, '1.1': CONFIG, 'umT5': UMT5}
MESH = mesh_lib.make_mesh(devices=jax.devices()[:1])


@functools.cache
def shardings(config):
  abstract = policies.abstract_params(t5.T5, config)
  return mesh_lib.param_shardings(MESH, abstract, mesh_lib.DEFAULT_RULES)


def restore(path, config, **options):
  return initial_checkpoint.restore(path, config, shardings(config), **options)


def assert_equal(found, expected):
  found = traverse_util.flatten_dict(found, sep='/')
  expected = traverse_util.flatten_dict(expected, sep='/')
  assert set(found) == set(expected)
  for name, value in expected.items():
    assert isinstance(found[name], jax.Array) and found[name].dtype == np.float32
    np.testing.assert_array_equal(found[name], value, err_msg=name)


def scalable(params, config):
  """As T5X's scalable T5 has them."""
  return checkpoint_layouts.in_t5x_layout(params, config, 'scalable')


WRITERS = {
  'Orbax': lambda folder, params, config: example.write_orbax(folder, params),
  'legacy': lambda folder, params, config: example.write_legacy(folder, params),
  'legacy, scalable': lambda folder, params, config: example.write_legacy(
    folder, scalable(params, config)
  ),
  'Hugging Face': example.write_huggingface,
  'Hugging Face, sharded': lambda *args: example.write_huggingface(*args, shards=3),
}


@pytest.mark.parametrize(
  ('writer', 'family'),
  [
    ('Orbax', '1.1'),
    ('Orbax', 'umT5'),
    ('legacy', '1.0'),
    ('legacy, scalable', 'umT5'),
    ('legacy, scalable', '1.1'),
    ('Hugging Face', '1.0'),
    ('Hugging Face', 'umT5'),
    ('Hugging Face, sharded', '1.1'),
  ],
)
def test_every_source_and_layout_gives_the_same_bits(tmp_path, writer, family):
  looped = FAMILIES[family]
  scanned = dataclasses.replace(looped, scan_layers=True)
  params = example.make_params(looped)
  stacked = stacking.stack_layers(params)
  stored = {looped: params, scanned: stacked}
  if writer.startswith('Hugging Face'):
    del stored[scanned]
  for config, tree in stored.items():
    path = tmp_path / str(config.scan_layers)
    WRITERS[writer](path, tree, config)
    assert_equal(restore(path, looped), params)
    assert_equal(restore(path, scanned), stacked)


@pytest.mark.parametrize('writer', [example.write_legacy, example.write_huggingface])
def test_bfloat16_is_widened(tmp_path, writer):
  params = example.make_params(CONFIG)
  options = {'dtype': ml_dtypes.bfloat16}
  if writer is example.write_huggingface:
    writer(tmp_path / 'x', params, CONFIG, **options)
  else:
    writer(tmp_path / 'x', params, **options)
  rounded = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), params)
  found = restore(tmp_path / 'x', CONFIG)
  assert_equal(found, jax.tree.map(lambda x: x.astype(np.float32), rounded))


def test_a_checkpoint_goes_into_its_shards(tmp_path):
  if jax.device_count() < 2:
    mesh = MESH
  else:
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(fsdp=2), jax.devices()[:2])
  abstract = policies.abstract_params(t5.T5, CONFIG)
  where = mesh_lib.param_shardings(mesh, abstract, mesh_lib.DEFAULT_RULES)
  params = example.make_params(CONFIG)
  example.write_huggingface(tmp_path, params, CONFIG)
  found = initial_checkpoint.restore(tmp_path, CONFIG, where)
  assert jax.tree.map(lambda x: x.sharding, found) == where
  assert_equal(found, params)


def test_biases_that_differ_need_a_place_each(tmp_path):
  umt5 = example.make_params(UMT5)
  example.write_orbax(tmp_path, scalable(umt5, UMT5))
  with pytest.raises(
    ValueError, match=r"checkpoint_7: 'decoder/decoder/relpos_bias.*per_layer = True"
  ):
    restore(tmp_path, CONFIG)
  assert_equal(restore(tmp_path, UMT5), umt5)


def test_the_scalable_layout_is_t5x_s():
  tree = traverse_util.flatten_dict(scalable(example.make_params(V1_0), V1_0), sep='/')
  shapes = {name: leaf.shape for name, leaf in tree.items()}
  assert shapes['decoder/decoder/self_attention/query/kernel'] == (8, 2, 2, 3)
  assert shapes['decoder/decoder/self_attention/out/kernel'] == (2, 2, 3, 8)
  assert shapes['decoder/decoder/relpos_bias/rel_embedding'] == (2, 2, 32)
  assert shapes['encoder/encoder/mlp/wi/kernel'] == (8, 1, 10)
  assert shapes['encoder/encoder/pre_mlp_layer_norm/scale'] == (8, 1)
  assert 'encoder/relpos_bias/rel_embedding' not in shapes
  with pytest.raises(ValueError, match=r"bias in every layer.*as 'scalable'"):
    checkpoint_layouts.in_t5x_layout(example.make_params(UMT5), UMT5, 'minimal')
  with pytest.raises(ValueError, match="layout 'small' is unknown; known: minimal"):
    checkpoint_layouts.in_t5x_layout({}, V1_0, 'small')


def test_the_highest_step_counts_and_a_step_can_be_named(tmp_path):
  params = [example.make_params(CONFIG, seed) for seed in (1, 2)]
  example.write_legacy(tmp_path, params[0], step=90)
  example.write_orbax(tmp_path, params[1], step=100)
  assert_equal(restore(tmp_path, CONFIG), params[1])
  assert_equal(restore(tmp_path / 'checkpoint_90', CONFIG), params[0])
  assert_equal(restore(tmp_path / 'checkpoint_100' / 'state', CONFIG), params[1])


def test_rows_are_put_into_our_order(tmp_path):
  params = example.make_params(CONFIG)
  rows = np.arange(24)
  rows[[1, 2]] = 2, 1
  expected = traverse_util.flatten_dict(params, sep='/')
  embedding, kernel = 'token_embedder/embedding', 'decoder/logits_dense/kernel'
  expected[embedding] = expected[embedding][rows]
  expected[kernel] = expected[kernel][:, rows]
  expected = traverse_util.unflatten_dict(expected, sep='/')
  example.write_huggingface(tmp_path / 'hf', params, CONFIG)
  assert_equal(restore(tmp_path / 'hf', CONFIG, rows=rows), expected)
  example.write_orbax(tmp_path / 't5x', params)
  assert_equal(restore(tmp_path / 't5x', CONFIG, rows=rows), expected)
  # A policy of a run here is in our order already.
  (tmp_path / 't5x' / 'model.json').write_text(json.dumps(CONFIG.to_dict()))
  assert_equal(restore(tmp_path / 't5x', CONFIG, rows=rows), params)


def test_the_shape_is_read_where_it_is_told(tmp_path):
  for family, config in FAMILIES.items():
    folder = example.write_huggingface(
      tmp_path / family, example.make_params(config), config
    )
    assert initial_checkpoint.model_config(folder) == config
  found = initial_checkpoint.model_config(
    folder, dtype='bfloat16', dropout_rate=0.2, scan_layers=True
  )
  assert found == dataclasses.replace(
    UMT5, dtype='bfloat16', dropout_rate=0.2, scan_layers=True
  )
  path = example.write_orbax(tmp_path / 't5x', example.make_params(CONFIG))
  with pytest.raises(ValueError, match='does not tell its shape'):
    initial_checkpoint.model_config(path)
  (path.parent / 'model.json').write_text(json.dumps(CONFIG.to_dict()))
  assert initial_checkpoint.model_config(path) == CONFIG


def test_another_function_of_the_same_parameters_is_refused(tmp_path):
  example.write_huggingface(tmp_path, example.make_params(CONFIG), CONFIG)
  other = dataclasses.replace(CONFIG, mlp_activations=('silu', 'linear'))
  with pytest.raises(ValueError, match=r"mlp_activations is \('gelu', 'linear'\) in"):
    restore(tmp_path, other)


def test_identity_is_of_the_content(tmp_path):
  params = example.make_params(CONFIG)
  example.write_legacy(tmp_path / 'a', params)
  shutil.copytree(tmp_path / 'a', tmp_path / 'b')
  first = initial_checkpoint.identity(tmp_path / 'a')
  assert first == initial_checkpoint.identity(tmp_path / 'b')
  assert first['format'] == 'legacy T5X'
  params['encoder']['encoder_norm']['scale'][3] += 1
  example.write_legacy(tmp_path / 'c', params)
  assert initial_checkpoint.identity(tmp_path / 'c') != first


@pytest.mark.parametrize('writer', ['Orbax', 'legacy'])
@pytest.mark.parametrize(
  ('name', 'leaf', 'words'),
  [
    (
      'decoder/layers_1/mlp/wo/kernel',
      None,
      r"lacks parameter '{}' of shape \(10, 8\)",
    ),
    (
      'encoder/layers_0/mlp/wi_1/kernel',
      np.ones((8, 9), np.float32),
      r"holds parameter '{}' with shape \(8, 9\); the model expects \(8, 10\)",
    ),
    ('decoder/extra/kernel', np.ones((2, 2), np.float32), r"holds parameter '{}'.*not"),
  ],
)
def test_a_parameter_that_does_not_fit_is_named(tmp_path, writer, name, leaf, words):
  flat = traverse_util.flatten_dict(example.make_params(CONFIG), sep='/')
  flat.pop(name, None)
  if leaf is not None:
    flat[name] = leaf
  params = traverse_util.unflatten_dict(flat, sep='/')
  WRITERS[writer](tmp_path, params, CONFIG)
  with pytest.raises(ValueError, match=words.format(name)):
    restore(tmp_path, CONFIG)


def test_hugging_face_s_errors_name_the_directory(tmp_path):
  example.write_huggingface(tmp_path, example.make_params(CONFIG), CONFIG)
  file = tmp_path / 'config.json'
  fields = json.loads(file.read_text()) | {'num_decoder_layers': 1}
  file.write_text(json.dumps(fields))
  smaller = dataclasses.replace(CONFIG, num_decoder_layers=1)
  with pytest.raises(ValueError, match=rf'^{tmp_path}: .*decoder\.block\.1'):
    restore(tmp_path, smaller)


def test_a_truncated_legacy_checkpoint_is_named(tmp_path):
  target = example.write_legacy(tmp_path, example.make_params(CONFIG))
  name = 'encoder/layers_0/attention/key/kernel'
  array = target / ('target.' + name.replace('/', '.'))
  chunk = array / '1.0'
  content = chunk.read_bytes()
  for damage in (lambda: chunk.write_bytes(content[:5]), chunk.unlink):
    damage()  # a chunk that is missing would else be read as zeros
    with pytest.raises(ValueError, match=f'parameter {name!r} cannot be read from'):
      restore(tmp_path, CONFIG)
  shutil.rmtree(array)
  with pytest.raises(ValueError, match=f'parameter {name!r} cannot be read from'):
    restore(tmp_path, CONFIG)
  file = target / 'checkpoint'
  file.write_bytes(file.read_bytes()[:-30])
  with pytest.raises(ValueError, match=rf'{file} is damaged'):
    restore(tmp_path, CONFIG)


@pytest.mark.parametrize(
  ('content', 'words'),
  [
    ({'version': 1}, r'version 1; known versions: \(2, 3\)'),
    ({'version': 3, 'optimizer': {}}, 'holds no parameters'),
    ({'version': 3, 'optimizer': {'target': {'a': np.ones(2, int)}}}, "'a' is of type"),
    (
      {'version': 3, 'optimizer': {'target': {'a': {'driver': 'zarr'}}}},
      "parameter 'a' names no path",
    ),
  ],
)
def test_a_strange_legacy_checkpoint_is_explained(tmp_path, content, words):
  folder = tmp_path / 'checkpoint_1'
  folder.mkdir()
  (folder / 'checkpoint').write_bytes(serialization.msgpack_serialize(content))
  with pytest.raises(ValueError, match=words):
    restore(tmp_path, CONFIG)


def test_a_stack_that_lacks_a_layer_s_parameter_is_named(tmp_path):
  params = example.make_params(CONFIG)
  del params['decoder']['layers_1']['mlp']['wo']
  example.write_legacy(tmp_path, params)
  scanned = dataclasses.replace(CONFIG, scan_layers=True)
  with pytest.raises(
    ValueError, match=r'checkpoint_7: parameter decoder/layers_1/mlp/wo'
  ):
    restore(tmp_path, scanned)


def test_what_is_no_checkpoint(tmp_path):
  with pytest.raises(ValueError, match='is not a directory'):
    initial_checkpoint.find(tmp_path / 'nothing')
  (tmp_path / 'checkpoint_5').mkdir()
  with pytest.raises(ValueError, match='is no checkpoint of the T5 family'):
    initial_checkpoint.find(tmp_path)


def test_ours_is_found_with_its_shape(tmp_path):
  checkpoints.save_params(tmp_path, example.make_params(CONFIG), step=3)
  assert initial_checkpoint.find(tmp_path).artifact is None
  (tmp_path / 'model.json').write_text(json.dumps(CONFIG.to_dict()))
  assert str(initial_checkpoint.find(tmp_path).artifact) == str(tmp_path)

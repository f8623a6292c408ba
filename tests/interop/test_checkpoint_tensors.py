"""The safetensors format, beside its library where that is present."""

import json

import ml_dtypes
import numpy as np
import pytest

from rest_jax.interop import checkpoint_tensors

RNG = np.random.default_rng(0)
TENSORS = {
  'b.weight': RNG.normal(size=(3, 5)).astype(np.float32),
  'a.weight': RNG.normal(size=(4,)).astype(ml_dtypes.bfloat16),
  'empty': np.zeros((0, 2), np.float16),
  'scalar': np.asarray(7, np.int64),
}


def assert_same(found, expected):
  assert set(found) == set(expected)
  for name, tensor in expected.items():
    assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
    np.testing.assert_array_equal(found[name], tensor)


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'model.safetensors'
  checkpoint_tensors.write_tensors(path, TENSORS)
  return path


def shard(folder, **places):
  """An index over files written here: tensor -> file."""
  for name in set(places.values()):
    held = {t: TENSORS[t] for t, place in places.items() if place == name}
    checkpoint_tensors.write_tensors(folder / name, held)
  index = {'metadata': {'total_size': 1}, 'weight_map': places}
  (folder / checkpoint_tensors.INDEX_FILE).write_text(json.dumps(index))


def test_round_trip(file, tmp_path):
  assert_same(checkpoint_tensors.open_tensors(tmp_path), TENSORS)
  # A local tensor is a view of the file, not a copy of it.
  assert not checkpoint_tensors.TensorFile(file)['b.weight'].flags.owndata


def test_the_library_reads_what_is_written(file):
  library = pytest.importorskip('safetensors', reason='its own reader')
  for name, entry in library.deserialize(file.read_bytes()):
    assert tuple(entry['shape']) == TENSORS[name].shape
    assert bytes(entry['data']) == TENSORS[name].tobytes()


def test_what_the_library_writes_is_read(tmp_path):
  library = pytest.importorskip('safetensors.numpy', reason='its own writer')
  plain = {n: t for n, t in TENSORS.items() if t.dtype != ml_dtypes.bfloat16}
  library.save_file(plain, tmp_path / 'model.safetensors')
  assert_same(checkpoint_tensors.open_tensors(tmp_path), plain)


def test_shards_are_one_mapping(tmp_path):
  places = {'a.weight': '1.safetensors', 'b.weight': '2.safetensors'}
  shard(tmp_path, **places)
  found = checkpoint_tensors.open_tensors(tmp_path)
  assert_same(found, {name: TENSORS[name] for name in places})


def test_a_missing_shard_or_tensor_is_named(tmp_path):
  shard(tmp_path, **{'a.weight': '1.safetensors', 'b.weight': '2.safetensors'})
  checkpoint_tensors.write_tensors(
    tmp_path / '2.safetensors', {'a.weight': TENSORS['a.weight']}
  )
  with pytest.raises(ValueError, match=r"2\.safetensors lacks .*'b\.weight'"):
    checkpoint_tensors.open_tensors(tmp_path)
  (tmp_path / '1.safetensors').unlink()
  with pytest.raises(ValueError, match=r'1\.safetensors does not exist'):
    checkpoint_tensors.open_tensors(tmp_path)


def test_no_tensors_at_all(tmp_path):
  with pytest.raises(ValueError, match=r'neither model\.safetensors nor'):
    checkpoint_tensors.open_tensors(tmp_path)


def test_a_cut_file_names_its_first_lost_tensor(file):
  whole = file.read_bytes()
  file.write_bytes(whole[:-4])  # the last by name is the scalar
  with pytest.raises(ValueError, match=r"cut short at .*'scalar' of shape \(\)"):
    checkpoint_tensors.TensorFile(file)
  for keep in (0, 5, 40):
    file.write_bytes(whole[:keep])
    with pytest.raises(ValueError, match='was cut short'):
      checkpoint_tensors.TensorFile(file)


@pytest.mark.parametrize(
  ('old', 'new', 'words'),
  [
    (b'"F32"', b'"F8_"', r"'b\.weight' has the type 'F8_'; known types: F64"),
    (b'[3,5]', b'[3,6]', r"'b\.weight' of shape \(3, 6\) takes 72 bytes.* 60"),
    (b'"shape"', b'"shepe"', 'header of .* is damaged'),
    (b'{"', b'["', 'header of .* is damaged'),
  ],
)
def test_a_damaged_header_is_named(file, old, new, words):
  content = file.read_bytes()
  assert old in content
  file.write_bytes(content.replace(old, new))
  with pytest.raises(ValueError, match=words):
    checkpoint_tensors.TensorFile(file)


def test_an_unknown_type_is_not_written(tmp_path):
  with pytest.raises(ValueError, match="'x' is complex64; known types"):
    checkpoint_tensors.write_tensors(tmp_path / 'f', {'x': np.ones(2, np.complex64)})

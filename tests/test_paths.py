"""Paths: files and directories appear whole or not at all, here and on a store."""

import pathlib

import fsspec
import pytest
from etils.epath import backend, gpath

from rest_jax import paths
from rest_jax.data import group_store


@pytest.fixture
def store(monkeypatch):
  """gs:// on an object store in memory, in place of the network."""
  memory = fsspec.filesystem('memory')
  memory.store.clear()
  monkeypatch.setattr(gpath, '_is_tf_installed', lambda: False)
  monkeypatch.setattr(
    backend.fsspec_backend,
    '_get_filesystem',
    lambda name: memory if name == 'gcs' else fsspec.filesystem(name),
  )
  yield memory.store
  memory.store.clear()


def make_artifact(folder: pathlib.Path) -> pathlib.Path:
  (folder / 'part').mkdir(parents=True)
  (folder / 'stage.json').write_text('{}')
  (folder / 'zz.txt').write_text('after the marker in the alphabet')
  (folder / 'part' / 'a.txt').write_text('a')
  return folder


def test_atomic_files(tmp_path):
  path = tmp_path / 'new' / 'x.txt'
  paths.write_text_atomic(path, 'ä\r\n')
  assert path.read_bytes() == 'ä\r\n'.encode()
  with pytest.raises(RuntimeError), paths.open_atomic(path) as handle:
    handle.write('half')
    raise RuntimeError
  assert path.read_text(encoding='utf-8').startswith('ä')
  with open(path, 'rb') as reader:  # who reads the old file goes on reading it
    paths.write_bytes_atomic(path, b'2')
    assert reader.read().startswith('ä'.encode())
  assert path.read_bytes() == b'2'
  assert [entry.name for entry in path.parent.iterdir()] == ['x.txt']
  with pytest.raises(ValueError, match="mode 'a'"), paths.open_atomic(path, 'a'):
    pass
  with pytest.raises(ValueError, match='is empty'):
    paths.as_path('')


def test_json(tmp_path):
  path = tmp_path / 'x.json'
  paths.write_json_atomic(path, {'b': [1, None], 'a': 'ü'})
  assert paths.read_json(path) == {'b': [1, None], 'a': 'ü'}
  with pytest.raises(ValueError, match='not JSON compliant'):
    paths.write_json_atomic(path, float('nan'))
  path.write_text('{"b": ')
  with pytest.raises(ValueError, match=r'x\.json is not JSON .* cut short'):
    paths.read_json(path)
  with pytest.raises(ValueError, match='does not exist'):
    paths.read_json(tmp_path / 'y.json')


def test_publish_locally(tmp_path):
  source = make_artifact(tmp_path / 'aside')
  target = paths.publish(source, tmp_path / 'runs' / 'grow')
  assert (target / 'part' / 'a.txt').read_text() == 'a' and not source.exists()
  with pytest.raises(FileExistsError, match='grow exists already'):
    paths.publish(make_artifact(tmp_path / 'second'), target)
  assert (tmp_path / 'second' / 'stage.json').exists()
  with pytest.raises(ValueError, match='is not a directory'):
    paths.publish(tmp_path / 'none', tmp_path / 'x')


def test_publish_to_another_file_system(tmp_path, monkeypatch):
  def across(source, target):
    if '.aside' not in str(source):
      raise OSError(paths.errno.EXDEV, 'cross-device')
    return rename(source, target)

  rename = paths.os.rename
  monkeypatch.setattr(paths.os, 'rename', across)
  source = make_artifact(tmp_path / 'src')
  target = paths.publish(source, tmp_path / 'dst')
  assert (target / 'part' / 'a.txt').exists() and not source.exists()
  assert sorted(entry.name for entry in tmp_path.iterdir()) == ['dst']


def test_publish_to_a_store_writes_the_marker_last(tmp_path, store):
  target = paths.publish(make_artifact(tmp_path / 'a'), 'gs://bucket/grow')
  names = [name.removeprefix('gs://bucket/grow/') for name in store]
  assert sorted(names) == ['part/a.txt', 'stage.json', 'zz.txt']
  assert names[-1] == 'stage.json'
  with pytest.raises(FileExistsError, match='exists already'):
    paths.publish(make_artifact(tmp_path / 'b'), target)
  (target / 'stage.json').unlink()  # what an interrupted copy leaves
  paths.publish(tmp_path / 'b', target)
  assert (target / 'stage.json').exists() and not (tmp_path / 'b').exists()
  paths.remove_tree(target)
  paths.remove_tree(target)
  assert not store


def test_groups_on_a_store(store, make_group_on_store):
  groups = make_group_on_store
  group_store.write_group_set('gs://bucket/set', groups, num_shards=2)
  assert group_store.num_groups('gs://bucket/set') == 3
  read = list(group_store.iterate_groups('gs://bucket/set'))
  assert [group.texts for group in read] == [group.texts for group in groups]
  assert paths.content_hash('gs://bucket/set/groups-00000-of-00002.parquet')


@pytest.fixture
def make_group_on_store():
  import numpy as np

  tokens = np.array([5, 1], np.int32)
  return [group_store.pair(f'x/{i}', 'a', tokens, f't{i}', tokens) for i in range(3)]


def test_remove_tree(tmp_path):
  artifact = make_artifact(tmp_path / 'a')
  link = tmp_path / 'link'
  link.symlink_to(artifact)
  paths.remove_tree(link)
  assert (artifact / 'stage.json').exists()
  paths.remove_tree(artifact / 'stage.json')
  paths.remove_tree(artifact)
  paths.remove_tree(artifact)
  assert not artifact.exists()

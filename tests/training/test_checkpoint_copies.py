"""Checkpoints on an s3:// in memory: whole or not counted, whenever a copy ends."""

import contextlib
import logging as std_logging

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils.epath import backend, gpath

from rest_jax import paths
from rest_jax.training import checkpoint_copies, checkpoints, loop
from rest_jax.training import mesh as mesh_lib
from rest_jax.training import optimiser as optimiser_lib
from rest_jax.training import step as step_lib
from tests.interop import example_checkpoints
from tests.training import example

# As in test_checkpoints: of an array that cannot be read, while others are being read.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)

FOLDER = 's3://bucket/run'
DIRECTORY = f'{FOLDER}/checkpoints'
MARKER = checkpoint_copies.MARKER


@pytest.fixture(autouse=True)
def store(monkeypatch):
  """{path: file} of an object store in memory, in place of the network."""
  memory = fsspec.filesystem('memory')
  memory.store.clear()
  monkeypatch.setattr(paths, '_use_s3fs', lambda: None)
  monkeypatch.setattr(gpath, '_is_tf_installed', lambda: False)
  monkeypatch.setattr(
    backend.fsspec_backend,
    '_get_filesystem',
    lambda name: memory if name == 's3' else fsspec.filesystem(name),
  )
  yield memory.store
  memory.store.clear()


class CutError(Exception):
  """What ends a copy, in place of a kill."""


@contextlib.contextmanager
def cut():
  """Inside, copies to the store end before the files that are no folders."""
  copy = paths.copy_tree

  def cut_short(source, target, *, last=None):
    if last is None:
      copy(source, target)
      return
    for entry in source.iterdir():
      if entry.is_dir():
        copy(entry, target / entry.name)
    raise CutError

  with pytest.MonkeyPatch.context() as patch, pytest.raises(CutError):
    patch.setattr(paths, 'copy_tree', cut_short)
    yield


def params(scale=1.0):
  kernel = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
  return {'encoder': {'kernel': jnp.asarray(scale * kernel)}, 'bias': jnp.arange(4.0)}


def assert_equal(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def names(store, folder):
  return [name.removeprefix(f'{folder}/') for name in store if folder in name]


# ---- Finished policies ----


def test_params_come_back(store):
  path = checkpoints.save_params(FOLDER, params(), step=3)
  assert names(store, f'{FOLDER}/checkpoint_3')[-1] == f'state/{MARKER}'
  assert_equal(checkpoints.load_params(path), params())
  assert_equal(checkpoints.stored_shapes(path), jax.eval_shape(params))
  abstract = jax.eval_shape(params)
  whole = mesh_lib.replicated(mesh_lib.make_mesh(devices=jax.devices()[:1]))
  shardings = jax.tree.map(lambda _: whole, abstract)
  found = checkpoints.load_params(path, abstract=abstract, shardings=shardings)
  assert all(leaf.sharding == whole for leaf in jax.tree.leaves(found))
  assert_equal(found, params())


def test_the_same_step_is_replaced(store):
  checkpoints.save_params(FOLDER, params(), step=3)
  left_over = f'{FOLDER}/checkpoint_3/state/d/old'
  paths.write_text_atomic(left_over, 'of another checkpoint')
  path = checkpoints.save_params(FOLDER, params(2.0), step=3)
  assert_equal(checkpoints.load_params(path), params(2.0))
  assert left_over not in store


def test_what_was_cut_short_does_not_count():
  checkpoints.save_params(FOLDER, params(), step=3)
  with cut():
    checkpoints.save_params(FOLDER, params(), step=4)
  assert (paths.as_path(FOLDER) / 'checkpoint_4' / 'state' / 'd').exists()
  assert checkpoints.latest_checkpoint(FOLDER).name == 'checkpoint_3'


def test_one_that_is_half_replaced_does_not_count():
  checkpoints.save_params(FOLDER, params(), step=3)
  with cut():
    checkpoints.save_params(FOLDER, params(), step=3)
  with pytest.raises(ValueError, match='holds no checkpoint'):
    checkpoints.latest_checkpoint(FOLDER)


def test_errors_name_the_place_on_the_store(store):
  path = checkpoints.save_params(FOLDER, params(), step=3)
  with pytest.raises(ValueError, match=rf'{FOLDER}/checkpoint_3/state holds .*bias'):
    checkpoints.load_params(path, abstract={'encoder': params()['encoder']})
  for name in [name for name in store if '/d/' in name]:
    paths.as_path(name).unlink()
  with pytest.raises(ValueError, match=f'{FOLDER}/checkpoint_3/state is damaged'):
    checkpoints.load_params(path)


def test_a_checkpoint_from_before_orbax_is_read(tmp_path):
  from rest_jax.interop import legacy_checkpoint

  expected = example_checkpoints.make_params(example_checkpoints.CONFIG)
  local = example_checkpoints.write_legacy(tmp_path, expected)
  paths.copy_tree(local, f'{FOLDER}/checkpoint_7')
  assert_equal(legacy_checkpoint.read_params(f'{FOLDER}/checkpoint_7'), expected)


# ---- Training in progress ----


@pytest.fixture(scope='module')
def state():
  mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
  return step_lib.init_state(
    example.init_fn, optimiser_lib.adafactor(0.1), mesh, rng=jax.random.key(0)
  )


def open_files(keep=2):
  return checkpoints.TrainingCheckpoints(DIRECTORY, keep=keep)


def save(files, state, *steps):
  for step in steps:
    best = jax.tree.map(lambda x, k=step: x + k, state.params)
    files.save(step, checkpoints.Snapshot(state, best, {'at': step}))
  files.wait()


def restored(state):
  """The step that a new process finds; what it holds is of that step."""
  files = open_files()
  found = files.restore(state)
  files.close()
  if found is None:
    return None
  step, snapshot = found
  assert snapshot.record == {'at': step}
  assert_equal(jax.device_get(snapshot.state), jax.device_get(state))
  expected = jax.tree.map(lambda x: x + step, state.params)
  assert_equal(jax.device_get(snapshot.best_params), jax.device_get(expected))
  return step


def test_the_latest_few_are_kept(store, state):
  assert restored(state) is None
  files = open_files()
  save(files, state, 5, 10, 15)
  local = files._mirror.folder
  files.close()
  found = {name.split('/')[0] for name in names(store, DIRECTORY)}
  assert found == {'10', '15'}
  assert names(store, f'{DIRECTORY}/15')[-1] == MARKER
  assert restored(state) == 15 == loop.resume_step(FOLDER)
  assert not local.exists()


def test_what_is_donated_after_save_was_saved_before(state):
  files = open_files()
  moving = jax.tree.map(jnp.copy, state)
  files.save(5, checkpoints.Snapshot(moving, None, {}))
  jax.tree.map(lambda x: x.delete(), moving)
  found = files.restore(state)[1]
  files.close()
  assert_equal(jax.device_get(found.state), jax.device_get(state))


def test_an_upload_that_was_cut_short_leaves_the_one_before(store, state):
  files = open_files()
  save(files, state, 5)
  with cut():
    save(files, state, 10)
  files.close()
  assert any(name.startswith('10/state/') for name in names(store, DIRECTORY))
  assert restored(state) == 5 == loop.resume_step(FOLDER)
  files = open_files()
  assert files.restore(state)[0] == 5
  save(files, state, 8)  # removes what was left of 10
  files.close()
  assert restored(state) == 8
  assert {name.split('/')[0] for name in names(store, DIRECTORY)} == {'5', '8'}


def test_one_that_cannot_be_read_is_moved_aside(store, state, caplog):
  files = open_files()
  save(files, state, 5, 10)
  files.close()
  for name in [n for n in store if '/10/state/' in n and '/d/' in n]:
    paths.as_path(name).write_bytes(b'')
  with caplog.at_level(std_logging.WARNING):
    assert restored(state) == 5
  assert any(
    f'{DIRECTORY}/10 cannot be read' in record.getMessage() for record in caplog.records
  )
  assert names(store, f'{FOLDER}/unreadable/10')
  assert not names(store, f'{DIRECTORY}/10')


def test_the_place_of_the_only_one_is_free_when_it_was_moved_aside(store, state):
  files = open_files()
  save(files, state, 5)
  files.close()
  paths.as_path(f'{DIRECTORY}/5/record/metadata').write_text('{')
  files = open_files()
  assert files.restore(state) is None
  save(files, state, 5)
  files.close()
  assert restored(state) == 5


def test_another_optimisers_state_is_refused_and_kept(store, state):
  files = open_files()
  save(files, state, 5)
  mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
  other = step_lib.init_state(
    example.init_fn, optimiser_lib.adamw(0.1), mesh, rng=jax.random.key(0)
  )
  with pytest.raises(checkpoints.MismatchError, match=f'{DIRECTORY}/5: .*opt_state'):
    files.restore(other)
  files.close()
  assert names(store, f'{DIRECTORY}/5')

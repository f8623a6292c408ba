import logging as std_logging
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from rest_jax.training import checkpoints
from rest_jax.training import mesh as mesh_lib
from rest_jax.training import optimiser as optimiser_lib
from rest_jax.training import step as step_lib
from tests.training import example

# When one array cannot be read, Orbax closes its event loop while the reads of others
# are under way, which Python reports as they end.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)

MESH = mesh_lib.make_mesh(devices=jax.devices()[:1])


def params():
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(4, 6)).astype(np.float32)
  return {
    'encoder': {'kernel': jnp.asarray(kernel), 'scale': jnp.arange(4.0)},
    'decoder': {'kernel': jnp.asarray(2.0 * kernel)},
  }


def assert_equal(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def data_files(folder):
  files = [f for f in pathlib.Path(folder).rglob('d/*') if f.is_file()]
  assert files
  return files


def damage(folder, *, keep_bytes=20):
  """Cuts every data file of a checkpoint short."""
  for file in data_files(folder):
    file.write_bytes(file.read_bytes()[:keep_bytes])


def test_layout_is_t5x(tmp_path):
  path = checkpoints.save_params(tmp_path, params(), step=1200)
  assert path.name == 'checkpoint_1200'
  # Read with Orbax alone, as T5X's users do; it warns that it chooses the devices.
  with pytest.warns(UserWarning, match='Sharding info not provided'):
    tree = ocp.PyTreeCheckpointer().restore(path / 'state')
  assert set(tree) == {'target', 'state'}
  assert tree['state']['param_states'] == {}
  assert tree['state']['step'] == 1200 and tree['state']['step'].dtype == np.int32
  assert_equal(tree['target'], params())


def test_params_come_back(tmp_path):
  path = checkpoints.save_params(tmp_path, params(), step=3)
  found = checkpoints.load_params(path)
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))
  assert_equal(found, params())
  assert_equal(checkpoints.load_params(path / 'state'), params())
  abstract = jax.eval_shape(params)
  assert_equal(checkpoints.load_params(path, abstract=abstract), params())


def test_params_come_back_into_their_shardings_and_types(tmp_path):
  path = checkpoints.save_params(tmp_path, params(), step=3)
  abstract = jax.eval_shape(params)
  abstract['decoder']['kernel'] = jax.ShapeDtypeStruct((4, 6), jnp.bfloat16)
  whole = mesh_lib.replicated(MESH)
  shardings = jax.tree.map(lambda _: whole, abstract)
  found = checkpoints.load_params(path, abstract=abstract, shardings=shardings)
  assert all(leaf.sharding == whole for leaf in jax.tree.leaves(found))
  assert found['decoder']['kernel'].dtype == jnp.bfloat16
  assert_equal(found['encoder'], params()['encoder'])


def test_the_optimisers_state_of_t5x_is_left_out(tmp_path):
  """T5X keeps `param_states` beside the parameters."""
  tree = {
    'target': params(),
    'state': {'step': jnp.int32(5), 'param_states': {'v': jnp.ones(7)}},
  }
  path = tmp_path / 'checkpoint_5' / 'state'
  ocp.PyTreeCheckpointer().save(path, tree)
  assert_equal(checkpoints.load_params(path.parent), params())


def test_latest_is_by_number_and_complete(tmp_path):
  for step in (9, 10):
    checkpoints.save_params(tmp_path, {'p': jnp.float32(step)}, step=step)
  (tmp_path / 'checkpoint_11').mkdir()  # a kill before it was complete
  (tmp_path / 'checkpoint_12.aside' / 'state').mkdir(parents=True)
  latest = checkpoints.latest_checkpoint(tmp_path)
  assert latest.name == 'checkpoint_10' and checkpoints.step_of(latest) == 10
  with pytest.raises(ValueError, match='holds no checkpoint'):
    checkpoints.latest_checkpoint(tmp_path / 'absent')
  with pytest.raises(ValueError, match="'model' is not the name"):
    checkpoints.step_of(tmp_path / 'model')


def test_the_same_step_is_replaced(tmp_path):
  checkpoints.save_params(tmp_path, {'p': jnp.float32(1)}, step=1)
  path = checkpoints.save_params(tmp_path, {'p': jnp.float32(2)}, step=1)
  assert checkpoints.load_params(path)['p'] == 2


def change(tree, name, leaf):
  part, key = name.split('/')
  if leaf is None:
    del tree[part][key]
  else:
    tree[part][key] = leaf
  return tree


@pytest.mark.parametrize(
  ('name', 'leaf', 'words'),
  [
    (
      'encoder/kernel',
      jax.ShapeDtypeStruct((4, 7), np.float32),
      r"'encoder/kernel' with shape \(4, 6\); the model expects \(4, 7\)",
    ),
    ('encoder/scale', None, r"holds parameter 'encoder/scale' of shape \(4,\), which"),
    (
      'decoder/bias',
      jax.ShapeDtypeStruct((6,), np.float32),
      r"lacks parameter 'decoder/bias' of shape \(6,\)",
    ),
  ],
)
def test_the_first_parameter_that_does_not_match_is_named(tmp_path, name, leaf, words):
  path = checkpoints.save_params(tmp_path, params(), step=1)
  abstract = change(jax.eval_shape(params), name, leaf)
  shardings = jax.tree.map(lambda _: mesh_lib.replicated(MESH), abstract)
  with pytest.raises(ValueError, match=words + '.*another configuration'):
    checkpoints.load_params(path, abstract=abstract, shardings=shardings)


def test_damage_is_named(tmp_path):
  path = checkpoints.save_params(tmp_path, params(), step=1)
  damage(path)
  with pytest.raises(ValueError, match='is damaged'):
    checkpoints.load_params(path)
  (path / 'state' / '_METADATA').write_text('{')
  with pytest.raises(ValueError, match='is damaged: its list of parameters'):
    checkpoints.load_params(path)
  with pytest.raises(ValueError, match='does not exist'):
    checkpoints.load_params(tmp_path / 'checkpoint_7')


def test_a_parameter_that_cannot_be_read_is_named(tmp_path):
  """The array that is not small has a file of its own, which is cut short."""
  noise = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
  tree = {'a': jnp.ones((8, 8)), 'm': jnp.asarray(noise), 'z': jnp.ones(3)}
  path = checkpoints.save_params(tmp_path, tree, step=1)
  for file in data_files(path):
    if file.stat().st_size > 100_000:
      file.write_bytes(file.read_bytes()[:1000])
  with pytest.raises(ValueError, match="parameter 'm' cannot be read"):
    checkpoints.load_params(path)


# ---- Training in progress ----


def state_and_step(optimiser=None):
  optimiser = optimiser or optimiser_lib.adafactor(0.1)
  state = step_lib.init_state(
    example.init_fn, optimiser, MESH, rng=jax.random.key(0), learning_rate_scale=0.5
  )
  return state, step_lib.make_train_step(example.loss_fn, optimiser, mesh=MESH)


def host(tree):
  return jax.tree.map(np.array, tree)


@pytest.fixture
def files(tmp_path):
  found = checkpoints.TrainingCheckpoints(tmp_path / 'checkpoints', keep=2)
  yield found
  found.close()


def test_what_is_donated_after_save_was_saved_before(files):
  """Saving is asynchronous; the next steps reuse the buffers of what is saved."""
  state, step = state_and_step()
  rng = step.key(0)
  expected = host(state)
  files.save(0, checkpoints.Snapshot(state, None, {'history': [0.1, float('nan')]}))
  for index in range(20):
    state, _ = step(state, example.batch_fn(index), rng)
  found_step, found = files.restore(state)
  assert found_step == 0
  assert_equal(host(found.state), expected)
  assert found.best_params is None
  assert found.record['history'][0] == 0.1 and np.isnan(found.record['history'][1])
  same = lambda a, b: a.sharding == b.sharding and a.dtype == b.dtype
  assert jax.tree.all(jax.tree.map(same, found.state, state))


def test_restoring_waits_for_what_is_being_saved(files):
  state, _ = state_and_step()
  for step in (5, 10, 15):
    files.save(step, checkpoints.Snapshot(state, state.params, {'at': step}))
    assert files.restore(state)[0] == step


def test_the_latest_few_are_kept_with_their_best_params(files):
  state, _ = state_and_step()
  assert files.restore(state) is None
  for step in (5, 10, 15):
    best = jax.tree.map(lambda x, k=step: x + k, state.params)
    files.save(step, checkpoints.Snapshot(state, best, {'at': step}))
  files.wait()
  assert sorted(f.name for f in files.directory.iterdir()) == ['10', '15']
  step, found = files.restore(state)
  assert step == 15 and found.record == {'at': 15}
  assert_equal(host(found.best_params), host(best))


@pytest.mark.parametrize('kind', ['cut', 'lost', 'record', 'metadata'])
def test_a_damaged_newest_checkpoint_falls_back(files, caplog, kind):
  state, _ = state_and_step()
  for step in (5, 10):
    files.save(step, checkpoints.Snapshot(state, None, {'at': step}))
  files.wait()
  folder = files.directory / '10'
  if kind == 'cut':
    damage(folder)
  elif kind == 'lost':
    (folder / 'state').rmtree()
  elif kind == 'record':
    (folder / 'record' / 'metadata').write_text('{"at"')
  else:
    (folder / 'state' / '_METADATA').write_text('')
  with caplog.at_level(std_logging.WARNING):
    step, found = files.restore(state)
  assert step == 5 and found.record == {'at': 5}
  assert_equal(host(found.state), host(state))
  assert any('10 cannot be read' in r.getMessage() for r in caplog.records)
  assert (files.directory.parent / 'unreadable' / '10').exists()
  # Its place is free again.
  files.save(10, checkpoints.Snapshot(state, None, {'at': 'again'}))
  files.wait()
  assert files.restore(state)[1].record == {'at': 'again'}


def test_another_optimisers_state_is_refused_and_kept(files):
  state, _ = state_and_step()
  files.save(5, checkpoints.Snapshot(state, None, {}))
  files.wait()
  other, _ = state_and_step(optimiser_lib.adamw(0.1))
  with pytest.raises(checkpoints.MismatchError, match=r'opt_state.*has changed'):
    files.restore(other)
  assert (files.directory / '5').exists()
  with pytest.raises(ValueError, match='keep=0'):
    checkpoints.TrainingCheckpoints(files.directory, keep=0)

"""A run that is killed again and again ends as one that was left alone."""

import shutil
import signal

import numpy as np
import pytest

from rest_jax.data import group_store, reward_store, shards
from tests import minimal_run

# In the order of the run: in the middle of training, between two shards of Grow,
# in the middle of Improve. Each dies as a second file of its kind takes its name.
MOMENTS = {
  'bc': r'/\.work/bc-.*/scratch/.*\d+$',
  'grow_1': r'/\.work/grow_1-.*/artifact/groups-',
  'improve_1_2': r'/\.work/improve_1_2-.*/scratch/.*\d+$',
}


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  return minimal_run.finished(tmp_path_factory)


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
  """The MODEL_DIR of a run that died at every one of MOMENTS."""
  model_dir = tmp_path_factory.mktemp('kill') / 'run'
  for name, pattern in MOMENTS.items():
    done = minimal_run.start_program(model_dir, f'--kill={pattern}')
    assert done.returncode == -signal.SIGKILL, (name, done.stderr[-3000:])
    assert not (model_dir / name).exists()
    assert list(model_dir.glob(f'.work/{name}-*')), 'it died in another stage'
    left = shutil.copytree(model_dir / '.work', model_dir.parent / f'left_{name}')
    assert left.exists()
  minimal_run.start(model_dir)
  return model_dir


pytestmark = pytest.mark.slow


def test_each_kill_left_something_to_go_on_from(killed):
  left = {name: killed.parent / f'left_{name}' for name in MOMENTS}
  assert len(list(left['grow_1'].glob('*/artifact/groups-*.parquet'))) == 1
  for name in ('bc', 'improve_1_2'):
    assert list(left[name].glob('*/scratch/checkpoints/*/*')), name
  assert minimal_run.record(killed, 'grow_1')['cost']['attempts'] == 2
  assert not list((killed / '.work').iterdir())


@pytest.mark.parametrize('name', ['rating_samples', 'grow_1', 'grow_2'])
def test_the_group_sets_are_equal(killed, undisturbed, name):
  one = list(group_store.iterate_groups(undisturbed / name))
  two = list(group_store.iterate_groups(killed / name))
  assert [g.source_id for g in one] == [g.source_id for g in two] and one
  for a, b in zip(one, two, strict=True):
    assert a.texts == b.texts and a.origins == b.origins
    for field in ('tokens', 'token_log_probs'):
      for x, y in zip(getattr(a, field), getattr(b, field), strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(a.finished, b.finished)


@pytest.mark.parametrize('name', ['ratings', 'score_1', 'score_2'])
def test_the_rewards_are_equal(killed, undisturbed, name):
  paths = [
    shards.list_shards(d / name, reward_store.KIND) for d in (undisturbed, killed)
  ]
  assert paths[0]
  for one, two in zip(*paths, strict=True):
    a, b = reward_store.read_rewards(one), reward_store.read_rewards(two)
    np.testing.assert_array_equal(
      np.concatenate(a.for_training()), np.concatenate(b.for_training())
    )


@pytest.mark.parametrize('name', [*minimal_run.POLICIES, 'reward_model'])
def test_the_parameters_are_bit_equal(killed, undisturbed, name):
  one = minimal_run.params(undisturbed, name)
  two = minimal_run.params(killed, name)
  assert one.keys() == two.keys() and one
  for key in one:
    np.testing.assert_array_equal(one[key], two[key], err_msg=key)


def test_the_training_curves_are_equal(killed, undisturbed):
  for name in (*minimal_run.POLICIES, 'reward_model'):
    one = minimal_run.record(undisturbed, name)['results']
    assert minimal_run.record(killed, name)['results'] == one, name


def test_the_report_says_the_same(killed, undisturbed):
  assert minimal_run.fingerprints(killed) == minimal_run.fingerprints(undisturbed)
  one = minimal_run.summary(undisturbed)['policies']
  assert minimal_run.summary(killed)['policies'] == one

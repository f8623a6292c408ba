"""Two and four hosts make what one makes, however they are stopped, and end alike."""

import signal
import time

import numpy as np
import pytest

from rest_jax import paths
from rest_jax.data import group_store, reward_store, shards
from rest_jax.training import hosts as hosts_lib
from rest_jax.training import loop
from tests import minimal_run, several_hosts

# The fixture starts a run three times.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Sums over devices are made in another order than on one: rounding of float32.
TOLERANCE = 1e-5


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  return minimal_run.finished(tmp_path_factory)


BINDINGS = ['THRESHOLDS = ((0.6,),)']


@pytest.fixture(scope='module')
def several(tmp_path_factory):
  """A MODEL_DIR of two, one and four hosts: in BC and in Grow the first dies."""
  folder = tmp_path_factory.mktemp('several')
  kill = r'--kill=/\.work/bc-.*/scratch/.*\d+$'
  hosts = several_hosts.Hosts(
    folder / 'bc', folder / 'run', 2, of={0: [kill]}, bindings=BINDINGS
  )
  first, second = hosts.wait()
  assert first == -signal.SIGKILL, hosts.printed()
  assert second in (hosts_lib.LOST, -signal.SIGABRT), hosts.printed()
  assert list(folder.glob('run/.work/bc-*/scratch/checkpoints/*/*'))
  kill = r'--kill=/\.work/grow_1-.*/artifact/groups-'
  hosts = several_hosts.Hosts(
    folder / 'grow', folder / 'run', 1, kill, bindings=BINDINGS
  )
  assert hosts.wait() == [-signal.SIGKILL], hosts.printed()
  assert list(folder.glob('run/.work/grow_1-*/artifact/groups-*'))
  several_hosts.run(folder / 'rest', folder / 'run', 4, bindings=BINDINGS)
  return folder / 'run'


def test_the_artifacts_are_those_of_one_host(one, several):
  names = minimal_run.fingerprints(several)
  assert {'bc', 'reward_model', 'grow_1', 'score_1', 'improve_1_1'} <= names.keys()
  expected = minimal_run.fingerprints(one)
  assert names == {name: expected[name] for name in names}
  assert not list((several / '.work').iterdir())


@pytest.mark.parametrize('split', ['train', 'validation', 'test'])
def test_the_corpus_is_equal(one, several, split):
  left, right = (shards.list_shards(d / 'corpus' / split) for d in (one, several))
  assert [paths.content_hash(p) for p in left] == [paths.content_hash(p) for p in right]


@pytest.mark.parametrize('name', ['rating_samples', 'grow_1'])
def test_the_samples_are_equal(one, several, name):
  left, right = (list(group_store.iterate_groups(d / name)) for d in (one, several))
  assert [g.source_id for g in left] == [g.source_id for g in right] and left
  for a, b in zip(left, right, strict=True):
    assert a.texts == b.texts and a.origins == b.origins
    for x, y in zip(a.token_log_probs, b.token_log_probs, strict=True):
      np.testing.assert_allclose(x, y, atol=TOLERANCE)


def test_attempts_are_counted_and_not_by_host(several):
  attempts = {
    name: minimal_run.record(several, name)['cost']['attempts']
    for name in ('bc', 'grow_1', 'score_1')
  }
  assert attempts == {'bc': 2, 'grow_1': 2, 'score_1': 1}
  assert minimal_run.record(several, 'grow_1')['cost']['counts']['decoder_steps'] > 0


def test_the_counts_of_the_hosts_add_up(one, several):
  left, right = (minimal_run.record(d, 'grow_1')['results'] for d in (one, several))
  assert left == right and left['candidates'] == 72


def test_the_rewards_are_equal(one, several):
  found = [shards.list_shards(d / 'score_1', reward_store.KIND) for d in (one, several)]
  assert len(found[0]) == len(found[1]) > 1
  for left, right in zip(*found, strict=True):
    a, b = reward_store.read_rewards(left), reward_store.read_rewards(right)
    for x, y in zip(a.rewards, b.rewards, strict=True):
      np.testing.assert_allclose(x, y, atol=TOLERANCE)


@pytest.mark.parametrize('name', ['evaluate_bc', 'evaluate_improve_1_1'])
def test_the_evaluations_are_equal(one, several, name):
  left, right = (minimal_run.record(d, name) for d in (one, several))
  assert left['files'].keys() == right['files'].keys()
  assert left['results'].keys() == right['results'].keys()
  for key, value in left['results'].items():
    near = value if isinstance(value, str) else pytest.approx(value, abs=TOLERANCE)
    assert right['results'][key] == near, key
  for folder in ('.', 'greedy'):
    texts = [
      [g.texts for g in group_store.iterate_groups(d / name / folder)]
      for d in (one, several)
    ]
    assert texts[0] == texts[1] and len(texts[0]) >= 8  # several parts


@pytest.mark.parametrize('name', ['bc', 'reward_model', 'improve_1_1'])
def test_the_parameters_are_equal(one, several, name):
  left, right = minimal_run.params(one, name), minimal_run.params(several, name)
  assert left.keys() == right.keys() and left
  for key in left:
    np.testing.assert_allclose(left[key], right[key], atol=TOLERANCE, err_msg=key)


def test_a_mistake_ends_both_hosts(tmp_path):
  hosts = several_hosts.Hosts(
    tmp_path, tmp_path / 'run', 2, bindings=['THRESHOLDS = ((0.7, 0.6),)']
  )
  assert hosts.wait() == [1, 1], hosts.printed()
  assert 'must rise' in hosts.printed()


def test_the_signal_to_one_host_stops_both_with_a_checkpoint(tmp_path):
  long = (
    'TRAIN_STEPS = 1000000',
    'supervise.supervise.eval_period_steps = 1000000',
    'supervise.supervise.checkpoint_period_steps = 1000000',
  )
  hosts = several_hosts.Hosts(
    tmp_path, tmp_path / 'run', 2, '--run_mode=supervise', bindings=long
  )
  end = time.monotonic() + 200
  while 'bc: ' not in hosts.logs[0].read_text().replace('bc: started', ''):
    assert time.monotonic() < end and hosts.processes[1].poll() is None, hosts.printed()
    time.sleep(0.5)
  hosts.processes[1].send_signal(signal.SIGTERM)
  assert hosts.wait(60) == [143, 143], hosts.printed()
  (folder,) = tmp_path.glob('run/.work/bc-*/scratch/checkpoints')
  assert loop.resume_step(folder.parent) > 0
  assert len(list(folder.iterdir())) == 1


def test_a_host_that_hangs_is_named(one, tmp_path):
  hosts = several_hosts.Hosts(
    tmp_path,
    tmp_path / 'run',
    2,
    '--run_mode=grow',
    '--host_timeout_s=25',
    of={1: [r'--hang=/\.work/grow_1-.*/artifact/groups-']},
    bindings=[
      *BINDINGS,
      'grow.grow.seed = 7',
      'sampler.SamplerSettings.tickets = 1',  # a shard a call
      f'REUSE_FROM = ({str(one)!r},)',
    ],
  )
  assert hosts.wait() == [hosts_lib.LOST] * 2, hosts.printed()
  assert 'host 1 (' in hosts.printed()
  assert 'has not advanced for 25 s' in hosts.printed()

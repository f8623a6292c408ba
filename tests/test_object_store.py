"""A run whose MODEL_DIR is on an object store makes what one on a disk makes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import pytest

from rest_jax import paths
from rest_jax.training import hosts as hosts_lib
from rest_jax.training.checkpoint_copies import MARKER
from tests import minimal_run, several_hosts, survival
from tests.training import killed_run

# A run and what it is compared with, over thousands of requests.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COPY = (
  'import sys; from tests import minimal_run; minimal_run._block()\n'
  'from rest_jax import paths; paths.copy_tree(*sys.argv[1:])'
)


class Store(NamedTuple):
  """A store of this machine."""

  root: str  # of all paths in it
  environment: dict[str, str]  # of processes that have it

  def python(self, *arguments):
    return subprocess.run(
      [sys.executable, *arguments],
      cwd=minimal_run.ROOT,
      env=self.environment,
      capture_output=True,
      text=True,
      timeout=290,
      check=False,
    )

  def copy(self, url, folder):
    copied = self.python('-c', COPY, url, str(folder))
    assert copied.returncode == 0, copied.stderr[-3000:]


@contextlib.contextmanager
def running(scheme):
  name = f'tests.{scheme}_store'
  module = pytest.importorskip(
    name, reason='needs the extras gcs and dev, or s3-dev', exc_type=ImportError
  )
  port = several_hosts.free_port()
  server = subprocess.Popen(
    [sys.executable, '-m', name, str(port)],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  try:
    end = time.monotonic() + 60
    while True:
      try:
        socket.create_connection(('127.0.0.1', port), timeout=5).close()
        break
      except OSError:
        assert server.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    yield Store(f'{scheme}://{module.BUCKET}', os.environ | module.environment(port))
  finally:
    server.kill()
    server.wait()


@pytest.fixture(scope='module')
def gs():
  with running('gs') as store:
    yield store


@pytest.fixture(scope='module')
def s3():
  with running('s3') as store:
    yield store


def test_a_run_on_gs_makes_the_same(gs, tmp_path, tmp_path_factory):
  url = f'{gs.root}/runs/one'
  arguments = ['rest', *survival.BINDINGS]
  # TensorFlow, where it is there, would take gs:// to Google itself.
  first = gs.python('-m', 'tests.minimal_run', url, '--block', *arguments)
  assert first.returncode == 0, first.stderr[-3000:]
  _check_run(gs, url, tmp_path / 'run', minimal_run.finished(tmp_path_factory))


@pytest.mark.timeout(900)
def test_two_hosts_on_s3_make_the_same_though_the_first_is_killed(
  s3, tmp_path, tmp_path_factory, monkeypatch
):
  for name, value in s3.environment.items():
    monkeypatch.setenv(name, value)
  url = f'{s3.root}/runs/two'
  # As the second checkpoint of BC is written, which the first has left by then.
  kill = r'--kill=/rest_jax_checkpoint_\w+/checkpoints/\d+$'
  bindings = survival.BINDINGS
  hosts = several_hosts.Hosts(
    tmp_path / 'killed', url, 2, of={0: [kill]}, bindings=bindings
  )
  first, second = hosts.wait()
  assert first == -signal.SIGKILL, hosts.printed()
  assert second in (hosts_lib.LOST, -signal.SIGABRT), hosts.printed()
  s3.copy(f'{url}/.work', tmp_path / 'left')
  assert list(tmp_path.glob(f'left/bc-*/scratch/checkpoints/3/{MARKER}'))
  # The lock that was left behind takes two minutes to be known as that.
  hosts = several_hosts.Hosts(tmp_path / 'rest', url, 2, bindings=bindings)
  assert hosts.wait(600) == [0, 0], hosts.printed()
  _check_run(s3, url, tmp_path / 'run', minimal_run.finished(tmp_path_factory))


def _check_run(store, url, folder, expected):
  store.copy(url, folder)
  assert not (folder / '.lock').exists()
  found = minimal_run.fingerprints(folder)
  assert {'bc', 'reward_model', 'grow_1', 'score_1', 'improve_1_1'} <= found.keys()
  paths.remove_tree(folder / '.work')  # folders are no objects
  assert survival.differences(expected, folder, of=found) == []
  events = list((folder / 'bc' / 'events').iterdir())
  assert {path.name.split('.')[0] for path in events} == {'metrics', 'events'}


KILLED = """
import os, signal, sys
from rest_jax import paths
from tests.training import killed_run

copy, sent = paths.copy_tree, []

def cut(source, target, *, last=None):
  sent.extend([target] if last else [])
  if last is None or len(sent) < 2:
    return copy(source, target, last=last)
  copy(source / 'state', target / 'state')
  os.kill(os.getpid(), signal.SIGKILL)

paths.copy_tree = cut
killed_run.main(sys.argv[1])
"""


def test_training_goes_on_after_a_kill_half_way_of_an_upload(s3, tmp_path):
  url = f'{s3.root}/training'
  killed = s3.python('-c', KILLED, url)
  assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
  s3.copy(url, tmp_path / 'left')
  left = {path.name: path for path in (tmp_path / 'left' / 'checkpoints').iterdir()}
  assert left.keys() == {'7', '14'}
  assert (left['14'] / 'state').exists() and not (left['14'] / 'record').exists()
  resumed = s3.python(
    '-c',
    'import sys\nfrom rest_jax.training import loop\nfrom tests.training import '
    'killed_run\nprint(loop.resume_step(sys.argv[1]))\nkilled_run.main(sys.argv[1])',
    url,
  )
  assert resumed.returncode == 0, resumed.stderr[-3000:]
  assert resumed.stdout.splitlines()[0] == '7'
  s3.copy(url, tmp_path / 'resumed')
  steps = {path.name for path in (tmp_path / 'resumed' / 'checkpoints').iterdir()}
  assert steps == {'56', '60'}
  killed_run.main(tmp_path / 'whole')
  expected, found = (
    np.load(tmp_path / name / 'result.npz') for name in ('whole', 'resumed')
  )
  assert expected.keys() == found.keys()
  for key in expected:
    np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


LEFT_BEHIND = """
import sys
from rest_jax import paths
from rest_jax.stages import lock

lock.SETTLING_S, lock.STALE_S, lock.POLL_S = 0.0, 3.0, 0.5
paths.write_text_atomic(sys.argv[1] + '/.lock', '{}')
with lock.hold(sys.argv[1]):
  print('taken over')
"""


def test_a_lock_on_s3_that_was_left_behind_is_taken_over(s3):
  found = s3.python('-c', LEFT_BEHIND, f'{s3.root}/locked')
  assert found.stdout == 'taken over\n', found.stderr[-3000:]

"""A run whose MODEL_DIR is on an object store makes what one on a disk makes."""

import os
import subprocess
import sys
import time
import urllib.request

import pytest

from rest_jax import paths
from tests import minimal_run, several_hosts, survival

pytestmark = pytest.mark.slow

object_store = pytest.importorskip(
  'tests.object_store', reason='needs the extras gcs and dev', exc_type=ImportError
)
MODEL_DIR = f'gs://{object_store.BUCKET}/runs/one'


@pytest.fixture(scope='module')
def store():
  """The environment of processes that have the store."""
  port = several_hosts.free_port()
  command = [sys.executable, '-m', 'tests.object_store', str(port)]
  server = subprocess.Popen(
    command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  )
  try:
    end = time.monotonic() + 60
    while True:
      try:
        urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=5).close()
        break
      except OSError:
        assert server.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    yield os.environ | object_store.environment(port)
  finally:
    server.kill()
    server.wait()


def _python(store, *arguments):
  return subprocess.run(
    [sys.executable, *arguments],
    cwd=minimal_run.ROOT,
    env=store,
    capture_output=True,
    text=True,
    timeout=290,
    check=False,
  )


def test_a_run_on_an_object_store_makes_the_same(store, tmp_path, tmp_path_factory):
  one = minimal_run.finished(tmp_path_factory)
  arguments = ['rest', *survival.BINDINGS]
  # TensorFlow, where it is there, would take these paths to Google itself.
  first = _python(store, '-m', 'tests.minimal_run', MODEL_DIR, '--block', *arguments)
  assert first.returncode == 0, first.stderr[-3000:]
  copy = (
    'import sys; from tests import minimal_run; minimal_run._block()\n'
    'from rest_jax import paths; paths.copy_tree(*sys.argv[1:])'
  )
  copied = _python(store, '-c', copy, MODEL_DIR, str(tmp_path / 'run'))
  assert copied.returncode == 0, copied.stderr[-3000:]
  assert not (tmp_path / 'run' / '.lock').exists()
  found = minimal_run.fingerprints(tmp_path / 'run')
  assert {'bc', 'reward_model', 'grow_1', 'score_1', 'improve_1_1'} <= found.keys()
  paths.remove_tree(tmp_path / 'run' / '.work')  # folders are no objects
  assert survival.differences(one, tmp_path / 'run', of=found) == []
  events = list((tmp_path / 'run' / 'bc' / 'events').iterdir())
  assert {path.name.split('.')[0] for path in events} == {'metrics', 'events'}

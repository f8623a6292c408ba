"""One run at a time in a MODEL_DIR, and no lock is left behind by a dead one."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from rest_jax.stages import lock


def test_the_second_is_refused_and_told_who_the_first_is(tmp_path):
  with lock.hold(tmp_path / 'run'):
    with pytest.raises(ValueError, match=r'run is in use: process \d+ on .* since'):
      with lock.hold(tmp_path / 'run'):
        pass
  with lock.hold(tmp_path / 'run'):
    pass


def test_the_lock_of_a_killed_process_is_gone(tmp_path):
  program = (
    'import sys, time\nfrom rest_jax.stages import lock\n'
    'with lock.hold(sys.argv[1]):\n  print("held", flush=True)\n  time.sleep(60)\n'
  )
  other = subprocess.Popen(
    [sys.executable, '-c', program, str(tmp_path)], stdout=subprocess.PIPE, text=True
  )
  try:
    assert other.stdout.readline() == 'held\n'
    with pytest.raises(ValueError, match=f'process {other.pid} '):
      with lock.hold(tmp_path):
        pass
  finally:
    other.send_signal(signal.SIGKILL)
    other.wait()
    other.stdout.close()
  with lock.hold(tmp_path):
    pass


@pytest.fixture
def object_store(tmp_path, monkeypatch):
  """The lock of another run, on what passes for an object store."""
  monkeypatch.setattr(lock.paths, 'is_remote', lambda path: True)
  monkeypatch.setattr(lock, 'SETTLING_S', 0.0)
  monkeypatch.setattr(lock, 'POLL_S', 0.01)
  monkeypatch.setattr(
    lock.paths, 'write_text_atomic', lambda p, text: p.write_text(text)
  )
  holder = {'host': 'tpu-3', 'process': 7, 'since': '2026-01-01'}
  file = lock.paths.as_path(tmp_path) / lock.LOCK_FILE
  file.write_text(json.dumps(holder))
  return file


def test_an_object_store_takes_over_what_is_not_renewed(object_store, monkeypatch):
  monkeypatch.setattr(lock, 'STALE_S', 0.2)
  with lock.hold(object_store.parent):
    assert json.loads(object_store.read_text())['process'] != 7
  assert not object_store.exists()


def test_on_an_object_store_what_is_renewed_is_another_run_at_work(
  object_store, monkeypatch
):
  polls = []

  def sleep(seconds):
    polls.append(seconds)
    if len(polls) == 2:
      os.utime(object_store, (0, object_store.stat().mtime + 20))

  monkeypatch.setattr(lock.time, 'sleep', sleep)
  with pytest.raises(ValueError, match='process 7 on tpu-3 since 2026-01-01'):
    with lock.hold(object_store.parent):
      pass
  assert len(polls) == 2


def test_on_an_object_store_a_run_may_end_while_another_waits(
  object_store, monkeypatch
):
  monkeypatch.setattr(
    lock.time, 'sleep', lambda s: object_store.unlink() if s == lock.POLL_S else None
  )
  with lock.hold(object_store.parent):
    assert json.loads(object_store.read_text())['process'] != 7


def test_a_directory_that_cannot_be_written_to_is_not_locked(tmp_path, monkeypatch):
  def refuse(*arguments):
    raise PermissionError(errno.EACCES, 'Permission denied', '.lock')

  monkeypatch.setattr(lock.os, 'open', refuse)
  with lock.hold(tmp_path):
    assert not (tmp_path / lock.LOCK_FILE).exists()

"""One run at a time in a MODEL_DIR.

On a disk the lock is the operating system's, on MODEL_DIR/.lock: it goes with the
process that holds it, however that ends, so none is ever left behind. An object store
has no such thing. There the file itself is the lock, and its holder writes it again
every RENEWAL_S; one that was not written for STALE_S was left behind by a machine that
is gone, and is taken over. A start that finds one waits to see which of the two it is:
a launcher starts again at once after a machine was lost. Ages are read off the store's
own clock.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from absl import logging
from etils import epath

from rest_jax import paths

LOCK_FILE = '.lock'
RENEWAL_S = 20.0
STALE_S = 120.0
# Two that take a lock at once see each other's word within so long.
SETTLING_S = 2.0
POLL_S = 5.0  # of a lock that may have been left behind
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def hold(model_dir: paths.PathLike) -> Iterator[None]:
  """Holds the lock of a MODEL_DIR; the directory is made if absent.

  One that cannot be written to is not locked: a finished run in it can be looked at.

  Raises:
    ValueError: another run holds it; says which.
  """
  folder = paths.as_path(model_dir)
  folder.mkdir(parents=True, exist_ok=True)
  held = _hold_object if paths.is_remote(folder) else _hold_file
  with held(folder / LOCK_FILE):
    yield


def _identity() -> dict[str, Any]:
  return {
    'host': socket.gethostname(),
    'process': os.getpid(),
    'since': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
  }


def _refusal(path: epath.Path, text: str) -> ValueError:
  try:
    holder = json.loads(text)
    who = f'process {holder["process"]} on {holder["host"]} since {holder["since"]}'
  except (ValueError, TypeError, KeyError):
    who = 'another process'
  return ValueError(
    f'{path.parent} is in use: {who} is at work in it. Wait for it, end it, or choose '
    'another --gin.MODEL_DIR (REUSE_FROM shares what is finished)'
  )


@contextlib.contextmanager
def _hold_file(path: epath.Path) -> Iterator[None]:
  # Not emptied before it is ours: it says who holds it.
  try:
    handle = os.open(os.fspath(path), os.O_RDWR | os.O_CREAT, 0o644)
  except OSError as error:
    if error.errno not in _READ_ONLY:
      raise
    handle = None
  if handle is None:
    yield
    return
  try:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise _refusal(path, path.read_text()) from error
    except OSError as error:
      if error.errno not in _UNSUPPORTED:
        raise
      logging.warning(
        '%s: this file system has no locks (%s): nothing keeps a second run away',
        path,
        error,
      )
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps(_identity()).encode())
    yield
  finally:
    os.close(handle)  # which lets go of it


@contextlib.contextmanager
def _hold_object(path: epath.Path) -> Iterator[None]:
  with contextlib.suppress(FileNotFoundError):  # none there, or let go of meanwhile
    _await_left_behind(path)
  mine = json.dumps(_identity() | {'word': os.urandom(8).hex()})
  paths.write_text_atomic(path, mine)
  time.sleep(SETTLING_S)
  if (found := path.read_text()) != mine:
    raise _refusal(path, found)
  done = threading.Event()

  def renew() -> None:
    while not done.wait(RENEWAL_S):
      try:
        paths.write_text_atomic(path, mine)
      except Exception as error:  # of whatever kind the store's library raises
        logging.warning('%s could not be written again: %s', path, error)

  thread = threading.Thread(target=renew, name='lock', daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()
    path.unlink(missing_ok=True)


def _await_left_behind(path: epath.Path) -> None:
  """Returns when an object has not been renewed for too long; raises if it is."""
  written = paths.modified_s(path)
  age = _age_s(path)
  if age < STALE_S:
    logging.warning(
      '%s was written %.0f s ago: waiting for up to %.0f s to see whether its run is '
      'still at work',
      path,
      age,
      STALE_S - age,
    )
  while age < STALE_S:
    time.sleep(POLL_S)
    if paths.modified_s(path) != written:
      raise _refusal(path, path.read_text())
    age = _age_s(path)
  logging.warning(
    '%s was left behind %.0f s ago: its run is taken to be gone', path, age
  )


def _age_s(path: epath.Path) -> float:
  """Seconds since an object was written, by the clock that stamps objects."""
  probe = path.parent / f'{path.name}.{os.urandom(4).hex()}'
  probe.write_text('')
  try:
    return paths.modified_s(probe) - paths.modified_s(path)
  finally:
    probe.unlink()

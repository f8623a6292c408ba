"""Local copies of checkpoints on s3://, to which Orbax does not write.

Orbax 0.12 knows disks and gs:// alone. A checkpoint for s3:// is written to a temporary
folder (TMPDIR says where) and copied to the store from there; before it is read it is
copied back. Its file MARKER is copied last and removed first: a checkpoint without it
was cut short and does not count. Paths elsewhere are used as they are.

Of several hosts the first writes, all of the checkpoint: the arrays are gathered there,
one after the other. Each reads a copy of its own.
"""

import concurrent.futures
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from rest_jax import paths
from rest_jax.training import hosts

MARKER = '_CHECKPOINT_METADATA'  # Orbax writes one into every checkpoint


def gathered(tree: Any) -> Any | None:
  """The whole arrays on the first host, as NumPy; None on the others.

  Args:
    tree: arrays that lie on all hosts, who all call it.
  """

  def one(x: Any) -> np.ndarray | None:
    whole = multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(whole) if hosts.is_primary() else None

  found = jax.tree.map(one, tree)
  return found if hosts.is_primary() else None


def is_whole(checkpoint: epath.Path) -> bool:
  """Whether a checkpoint is there, and on s3:// all of it."""
  found = checkpoint / MARKER if paths.is_s3(checkpoint) else checkpoint
  return found.exists()


def steps(directory: epath.Path) -> list[int]:
  """The steps of the checkpoints of training in a directory, the newest first."""
  names = [entry.name for entry in directory.iterdir()] if directory.is_dir() else []
  found = [name for name in names if name.isdecimal() and is_whole(directory / name)]
  return sorted(map(int, found), reverse=True)


@contextlib.contextmanager
def fetched(folder: epath.Path) -> Iterator[epath.Path]:
  """Yields `folder` where it can be read: on s3:// a copy, gone after the block."""
  if not paths.is_s3(folder):
    yield folder
    return
  with _temporary() as temporary:
    local = paths.as_path(temporary) / folder.name
    paths.copy_tree(folder, local)
    yield local


@contextlib.contextmanager
def replaced(folder: epath.Path) -> Iterator[epath.Path]:
  """Yields where a checkpoint is written that is `folder` when the block has ended."""
  if not paths.is_s3(folder):
    yield folder
    return
  with _temporary() as temporary:
    local = paths.as_path(temporary) / folder.name
    yield local
    _send(local, folder)


def _temporary() -> tempfile.TemporaryDirectory[str]:
  return tempfile.TemporaryDirectory(prefix='rest_jax_checkpoint_')


def _send(local: epath.Path, folder: epath.Path) -> None:
  assert (local / MARKER).exists(), f'{local} has no {MARKER}'
  remove(folder)
  paths.copy_tree(local, folder, last=MARKER)


def remove(folder: epath.Path) -> None:
  """Removes a checkpoint; one that is half removed does not count."""
  (folder / MARKER).unlink(missing_ok=True)
  paths.remove_tree(folder)


class Mirror:
  """Checkpoints of training on s3://, and the local folder of those at hand.

  Args:
    directory: on the store.
    keep: how many the store keeps.

  Attributes:
    folder: local, where checkpoints are written and read.
  """

  def __init__(self, directory: epath.Path, *, keep: int):
    self._directory, self._keep = directory, keep
    self._temporary = _temporary()
    self.folder = paths.as_path(self._temporary.name) / directory.name
    self._pool = concurrent.futures.ThreadPoolExecutor(1, 'checkpoint copies')
    self._sending: concurrent.futures.Future[None] | None = None

  def fetch(self, step: int) -> None:
    """Makes a checkpoint of the store the only one in the folder."""
    paths.remove_tree(self.folder)
    paths.copy_tree(self._directory / str(step), self.folder / str(step))

  def send(self, step: int, wait_until_written: Callable[[], None]) -> None:
    """Starts to copy a checkpoint to the store, and then removes old ones there."""
    self._sending = self._pool.submit(self._send, step, wait_until_written)

  def _send(self, step: int, wait_until_written: Callable[[], None]) -> None:
    wait_until_written()
    _send(self.folder / str(step), self._directory / str(step))
    kept = {str(step) for step in steps(self._directory)[: self._keep]}
    for entry in list(self._directory.iterdir()):
      if entry.name not in kept:
        remove(entry)

  def wait(self) -> None:
    """Waits until what was sent is there; raises what went wrong."""
    sending, self._sending = self._sending, None
    if sending is not None:
      sending.result()

  def close(self) -> None:
    """Waits, and removes the folder."""
    self._pool.shutdown()
    self._temporary.cleanup()

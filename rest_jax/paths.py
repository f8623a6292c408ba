"""Paths of artifacts: local folders, gs:// and s3:// under one set of calls.

Everything the project writes is written aside and then published in one step:
a reader sees a file or a directory complete, or not at all. On a local disk the
step is a rename. Object stores have no rename of a directory, but an object
itself appears only when its upload has ended; there a directory is copied with
its marker file (`stage.json`) last, and counts as complete once it is there.

Remote paths go through `etils.epath`: gs:// needs TensorFlow or gcsfs (the extra gcs),
s3:// needs s3fs (the extra s3), and in a run that has a path there gs:// needs gcsfs.
"""

import contextlib
import errno
import functools
import hashlib
import importlib.util
import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import IO, Any

import fsspec
from etils import epath
from etils.epath import gpath

PathLike = str | os.PathLike[str]

MARKER = 'stage.json'
_BLOCK_BYTES = 1 << 20


def as_path(path: PathLike) -> epath.Path:
  """`path` as an `epath.Path`, with `~` expanded.

  Raises:
    ValueError: `path` is empty, or on s3:// without s3fs.
  """
  if not os.fspath(path):
    raise ValueError("path '' is empty: give a folder, gs://... or s3://...")
  if is_s3(path):
    _use_s3fs()
  return epath.Path(path).expanduser()


def is_remote(path: PathLike) -> bool:
  """Whether `path` lies on an object store rather than on a mounted disk."""
  return '://' in os.fspath(path)


def is_s3(path: PathLike) -> bool:
  """Whether `path` lies on s3://."""
  return os.fspath(path).startswith('s3://')


@functools.cache
def _use_s3fs() -> None:
  """Has all remote paths go through fsspec, and nothing of s3:// remembered.

  Where TensorFlow is installed `epath` would ask it, and it has no s3://. s3fs keeps
  listings, to which other processes add meanwhile.
  """
  if importlib.util.find_spec('s3fs') is None:
    raise ValueError("s3:// needs s3fs: pip install 'rest_jax[s3]'")
  os.environ.setdefault('EPATH_USE_TF', '0')
  gpath._is_tf_installed.cache_clear()
  fsspec.config.conf.setdefault('s3', {}).setdefault('use_listings_cache', False)


def modified_s(path: PathLike) -> float:
  """When a file was written: seconds since 1970 by the clock of its disk or store."""
  target = as_path(path)
  if is_s3(target):  # of which `epath` says 0
    found = fsspec.filesystem('s3').modified(os.fspath(target))
    return float(found.timestamp())
  return float(target.stat().mtime)


def _aside(path: epath.Path) -> epath.Path:
  """A name beside `path` that no reader looks at and no other writer has."""
  return path.parent / f'.{path.name}.{uuid.uuid4().hex[:12]}.aside'


@contextlib.contextmanager
def write_aside(path: PathLike) -> Iterator[str]:
  """Yields a local file name to write; publishes it as `path` on a clean exit.

  The parent folder is made. An exception inside the block leaves `path` as it
  was. The content is flushed to disk before it is published.
  """
  target = as_path(path)
  target.parent.mkdir(parents=True, exist_ok=True)
  if is_remote(target):
    with tempfile.TemporaryDirectory() as folder:
      local = os.path.join(folder, target.name)
      yield local
      epath.Path(local).copy(target, overwrite=True)
    return
  aside = os.fspath(_aside(target))
  try:
    yield aside
    with open(aside, 'rb') as handle:
      os.fsync(handle.fileno())
    os.replace(aside, os.fspath(target))
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.unlink(aside)


@contextlib.contextmanager
def open_atomic(path: PathLike, mode: str = 'w') -> Iterator[IO[Any]]:
  """Opens `path` for writing; it appears, whole, when the block ends cleanly.

  Args:
    path: the file to write or to replace.
    mode: 'w' (UTF-8 text, newlines untouched) or 'wb'.

  Raises:
    ValueError: another mode.
  """
  if mode not in ('w', 'wb'):
    raise ValueError(f"mode {mode!r} is not one of 'w', 'wb'")
  text: dict[str, Any] = {}
  if mode == 'w':
    text = {'encoding': 'utf-8', 'newline': ''}
  with write_aside(path) as local, open(local, mode, **text) as handle:
    yield handle


def write_text_atomic(path: PathLike, text: str) -> None:
  """Writes `text` (UTF-8) as the file `path`, in one step."""
  with open_atomic(path) as handle:
    handle.write(text)


def write_bytes_atomic(path: PathLike, data: bytes) -> None:
  """Writes `data` as the file `path`, in one step."""
  with open_atomic(path, 'wb') as handle:
    handle.write(data)


def write_json_atomic(path: PathLike, value: Any) -> None:
  """Writes `value` as readable JSON, keys in their order, in one step."""
  text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
  write_text_atomic(path, text + '\n')


def read_json(path: PathLike) -> Any:
  """Reads a JSON file.

  Raises:
    ValueError: the file is missing or does not parse; names it.
  """
  target = as_path(path)
  if not target.exists():
    raise ValueError(f'{target} does not exist: check the path')
  try:
    return json.loads(target.read_text())
  except ValueError as error:
    raise ValueError(
      f'{target} is not JSON ({error}): it was cut short or edited; write it again'
    ) from error


def publish(src: PathLike, dst: PathLike, *, marker: str = MARKER) -> epath.Path:
  """Makes the finished directory `src` appear as `dst`, in one step.

  One file system: a rename. Another file system, or an object store: the files
  are copied, on a local disk into a folder aside that is renamed, on an object
  store with `marker` last. `src` is gone afterwards.

  Args:
    src: a complete directory.
    dst: its final name; must not exist, except as a remainder without `marker`
      of an earlier, interrupted copy to an object store, which is overwritten.
    marker: the file whose presence means "complete".

  Raises:
    ValueError: `src` is not a directory.
    FileExistsError: `dst` exists (another process may have been faster).
  """
  source, target = as_path(src), as_path(dst)
  if not source.is_dir():
    raise ValueError(f'{source} is not a directory: nothing to publish')
  target.parent.mkdir(parents=True, exist_ok=True)
  taken = f'{target} exists already: remove it, or publish under another name'
  if is_remote(target):
    if (target / marker).exists():
      raise FileExistsError(taken)
    copy_tree(source, target, last=marker)
    source.rmtree()
    return target
  if target.exists():
    raise FileExistsError(taken)
  if is_remote(source):
    _copy_then_rename(source, target)
    return target
  try:
    os.rename(source, target)
  except OSError as error:
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
      raise FileExistsError(taken) from error
    if error.errno != errno.EXDEV:
      raise
    _copy_then_rename(source, target)
  return target


def _copy_then_rename(source: epath.Path, target: epath.Path) -> None:
  aside = _aside(target)
  try:
    copy_tree(source, aside)
    os.rename(aside, target)
  finally:
    remove_tree(aside)
  source.rmtree()


def copy_tree(src: PathLike, dst: PathLike, *, last: str | None = None) -> None:
  """Copies every file under `src` to `dst`, the file `last` after all others."""
  source, target = as_path(src), as_path(dst)
  target.mkdir(parents=True, exist_ok=True)
  held = None
  for entry in sorted(source.iterdir(), key=lambda entry: entry.name):
    if entry.name == last:
      held = entry
    elif entry.is_dir():
      copy_tree(entry, target / entry.name)
    else:
      entry.copy(target / entry.name, overwrite=True)
  if held is not None:
    held.copy(target / held.name, overwrite=True)


def remove_tree(path: PathLike) -> None:
  """Removes a file or a directory with all it holds; nothing there is fine."""
  target = as_path(path)
  if is_remote(target):
    if target.exists():
      target.rmtree()
  elif os.path.isdir(target) and not os.path.islink(target):
    shutil.rmtree(target)
  else:
    target.unlink(missing_ok=True)


class _Seekable(io.RawIOBase):
  """A remote handle (read, seek, tell) as the raw file that Arrow expects."""

  def __init__(self, handle: Any, size: int):
    self._handle = handle
    self._size = size

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def seek(self, offset: int, whence: int = 0) -> int:
    base = (0, self._handle.tell(), self._size)[whence]
    self._handle.seek(base + offset)
    return base + offset

  def tell(self) -> int:
    return self._handle.tell()

  def readinto(self, buffer: Any) -> int:
    data = self._handle.read(len(buffer))
    buffer[: len(data)] = data
    return len(data)

  def close(self) -> None:
    if not self.closed:
      self._handle.close()
    super().close()


@contextlib.contextmanager
def open_binary(path: PathLike) -> Iterator[IO[bytes]]:
  """Opens `path` for reading bytes, seekable, wherever it lies."""
  target = as_path(path)
  if not is_remote(target):
    with open(target, 'rb') as handle:
      yield handle
    return
  size = target.stat().length
  with target.open('rb') as handle:
    raw = _Seekable(handle, size)
    yield io.BufferedReader(raw, _BLOCK_BYTES)


def content_hash(path: PathLike) -> str:
  """SHA-256 of a file's bytes, in hexadecimal."""
  digest = hashlib.sha256()
  with open_binary(path) as handle:
    while block := handle.read(_BLOCK_BYTES):
      digest.update(block)
  return digest.hexdigest()

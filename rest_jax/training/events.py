"""What training writes as it goes: TensorBoard events and JSON lines.

`metrics.jsonl` has one object a line: "step", the values by name, and
"wall_time" in seconds since 1970. A value that is not finite is null there.
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import jax

from rest_jax import paths

METRICS_FILE = 'metrics.jsonl'
_CACHE_OPTIONS = {
  'jax_compilation_cache_dir': None,
  'jax_persistent_cache_min_compile_time_secs': 0.0,
  'jax_persistent_cache_min_entry_size_bytes': 0,
}


class EventWriter:
  """Writes scalars for TensorBoard and as JSON lines; a context manager.

  Only the first of several hosts writes. Lines reach the file at once: a kill
  loses none. On an object store, which cannot append, the file is written whole,
  at every `flush`.

  Args:
    directory: made if absent; an earlier attempt's lines there are kept until
      `truncate_after`.
  """

  def __init__(self, directory: paths.PathLike):
    self._directory = paths.as_path(directory)
    self._path = self._directory / METRICS_FILE
    self._active = jax.process_index() == 0
    self._remote = paths.is_remote(directory)
    self._purge_step: int | None = None
    self._board: Any = None
    self._file: Any = None
    self._lines: list[str] = []  # of a remote file, all of them
    self._events: Any = None  # of a remote directory, where TensorBoard's are written
    if self._active:
      self._directory.mkdir(parents=True, exist_ok=True)
      if self._remote:
        self._lines = self._read()

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes the values of a step; nothing where there are none."""
    if not self._active or not values:
      return
    now = time.time()
    numbers = {name: float(value) for name, value in values.items()}
    line = json.dumps(
      {
        'step': int(step),
        **{n: v if math.isfinite(v) else None for n, v in numbers.items()},
        'wall_time': round(now, 3),
      }
    )
    if self._remote:
      self._lines.append(line)
    else:
      if self._file is None:
        self._file = open(self._path, 'a', encoding='utf-8', buffering=1)
      self._file.write(line + '\n')
    board = self._tensorboard()
    for name, value in numbers.items():
      board.add_scalar(name, value, int(step), walltime=now)

  def truncate_after(self, step: int) -> None:
    """Forgets what was written for later steps, so that nothing counts twice.

    A line that a kill cut short goes too. TensorBoard is told to drop the later
    steps when the next value is written.
    """
    if not self._active:
      return
    self.close()
    self._purge_step = step + 1
    old = self._lines if self._remote else self._read()
    kept = [line for line in old if _step_of(line) <= step]
    if self._remote:
      self._lines = kept
    if kept != old or self._path.exists():
      paths.write_text_atomic(self._path, ''.join(line + '\n' for line in kept))

  def flush(self) -> None:
    """Hands everything written so far to the file system."""
    if self._board is not None:
      self._board.flush()
    if self._remote and self._active:
      paths.write_text_atomic(self._path, ''.join(line + '\n' for line in self._lines))
    if self._events is not None:
      paths.copy_tree(self._events.name, self._directory)

  def close(self) -> None:
    """Flushes and closes the files; a later `write` opens them again."""
    if self._board is not None:
      self._board.close()
      self._board = None
    self.flush()
    if self._events is not None:
      self._events.cleanup()
      self._events = None
    if self._file is not None:
      self._file.close()
      self._file = None

  def __enter__(self) -> 'EventWriter':
    return self

  def __exit__(self, *unused: object) -> None:
    self.close()

  def _read(self) -> list[str]:
    return self._path.read_text().splitlines() if self._path.exists() else []

  def _tensorboard(self) -> Any:
    if self._board is None:
      import tensorboardX  # 0.2 s that a run without events need not pay

      folder = os.fspath(self._directory)
      if self._remote:
        self._events = tempfile.TemporaryDirectory()
        folder = self._events.name
      self._board = tensorboardX.SummaryWriter(
        folder, purge_step=self._purge_step, flush_secs=30
      )
    return self._board


def _step_of(line: str) -> float:
  """The step of a JSON line; infinite where the line is damaged."""
  try:
    return json.loads(line)['step']
  except (ValueError, KeyError, TypeError):
    return math.inf


def read_metrics(directory: paths.PathLike) -> list[dict[str, Any]]:
  """The lines of a run's metrics.jsonl, whole ones only; [] where there is none."""
  path = paths.as_path(directory) / METRICS_FILE
  lines = path.read_text().splitlines() if path.exists() else []
  return [json.loads(line) for line in lines if math.isfinite(_step_of(line))]


def enable_compilation_cache(directory: paths.PathLike) -> str | None:
  """Keeps compiled programs on disk, so that a restart does not compile again.

  JAX's own environment variables win: JAX_COMPILATION_CACHE_DIR names another
  place, JAX_ENABLE_COMPILATION_CACHE=0 turns the cache off, and
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS and ..._MIN_ENTRY_SIZE_BYTES leave
  small programs out. Call it before the first program is compiled.

  Returns:
    The folder in use; None where the cache is off.
  """
  options = {**_CACHE_OPTIONS}
  options['jax_compilation_cache_dir'] = os.fspath(paths.as_path(directory))
  config: Any = jax.config  # its options are not typed
  for name, value in options.items():
    if name.upper() not in os.environ:
      config.update(name, value)
  if not config.jax_enable_compilation_cache:
    return None
  return config.jax_compilation_cache_dir or None

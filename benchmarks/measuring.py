"""Interleaved timing, peak memory, tables and the line that records a run."""

import datetime
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax

PACKAGES = (
  'rest_jax',
  'jax',
  'jaxlib',
  'flax',
  'numpy',
  'torch',
  'transformers',
  'ctranslate2',
)
ROOT = pathlib.Path(__file__).resolve().parent.parent

T = TypeVar('T')


class Turn(NamedTuple):
  """One timed call."""

  seconds: float
  result: Any


def interleave(
  calls: Mapping[str, Callable[[int], T]], *, repeats: int
) -> dict[str, list[Turn]]:
  """Times every call once a round, in an order that rotates from round to round.

  What slows the machine down for a while so meets all rivals alike. A call gets
  the round's number and must return host values: its time ends when it returns.

  Raises:
    ValueError: fewer than one round.
  """
  if repeats < 1:
    raise ValueError(f'repeats={repeats} must be at least 1')
  turns: dict[str, list[Turn]] = {name: [] for name in calls}
  names = list(calls)
  for number in range(repeats):
    shift = number % len(names)
    for name in names[shift:] + names[:shift]:
      turns[name].append(timed(functools.partial(calls[name], number)))
      say(f'round {number + 1} of {repeats}: {name}, {turns[name][-1].seconds:.2f} s')
  return turns


def timed(call: Callable[[], Any]) -> Turn:
  """Times one call."""
  started = time.perf_counter()
  result = call()
  return Turn(time.perf_counter() - started, result)


def median_seconds(turns: Sequence[Turn]) -> float:
  """The median of the rounds."""
  return statistics.median(turn.seconds for turn in turns)


def ratios(base: Sequence[Turn], other: Sequence[Turn]) -> dict[str, float]:
  """How many times as long as `base` the other took, round by round.

  Returns:
    `ratio` (the median of the rounds' ratios), `ratio_min`, `ratio_max`.
  """
  each = [b.seconds / a.seconds for a, b in zip(base, other, strict=True)]
  return {
    'ratio': statistics.median(each),
    'ratio_min': min(each),
    'ratio_max': max(each),
  }


def resident_bytes() -> int:
  """This process's resident memory now (Linux; elsewhere 0)."""
  return _status_bytes('VmRSS')


def peak_bytes() -> int:
  """The most resident memory since `reset_peak` or the start (Linux; else 0)."""
  return _status_bytes('VmHWM')


def reset_peak() -> None:
  """Sets the peak back to what is resident now, where the system allows it."""
  try:
    pathlib.Path('/proc/self/clear_refs').write_text('5')
  except OSError:
    say('the peak of memory cannot be reset here: it counts from the start')


def device_peak_bytes() -> int | None:
  """The most that JAX has held on its first device; None on a CPU."""
  return (jax.local_devices()[0].memory_stats() or {}).get('peak_bytes_in_use')


def _status_bytes(field: str) -> int:
  try:
    lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  except OSError:
    return 0
  found = [line for line in lines if line.startswith(f'{field}:')]
  return int(found[0].split()[1]) * 1024 if found else 0


def in_child(module: str, arguments: Sequence[str]) -> dict[str, Any]:
  """Runs `python -m module arguments` and returns the JSON of its last line.

  Raises:
    RuntimeError: it failed; with the end of what it wrote.
  """
  command = [sys.executable, '-m', module, *arguments]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  lines = done.stdout.strip().splitlines()
  if done.returncode or not lines:
    tail = '\n'.join((done.stdout + done.stderr).splitlines()[-20:])
    raise RuntimeError(f'{" ".join(command)} failed ({done.returncode}):\n{tail}')
  return json.loads(lines[-1])


def environment() -> dict[str, Any]:
  """Versions, device and date, for the record."""
  versions = {'python': platform.python_version()}
  for package in PACKAGES:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return {
    'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
    'device': jax.devices()[0].device_kind,
    'processor': _processor(),
    'cores': num_cores(),
    'versions': versions,
  }


def num_cores() -> int:
  """The cores that this process may run on."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _processor() -> str:
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return platform.processor()
  names = [line.split(':', 1)[1].strip() for line in lines if 'model name' in line]
  return names[0] if names else platform.processor()


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """The rows as a Markdown table; columns in the order of their first appearance."""
  columns = list(dict.fromkeys(key for row in rows for key in row))
  cells = [columns, *([_cell(row.get(key)) for key in columns] for row in rows)]
  widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]

  def line(texts: Sequence[str]) -> str:
    padded = [text.rjust(width) for text, width in zip(texts, widths, strict=True)]
    return f'| {" | ".join(padded)} |'

  rule = '|' + '|'.join('-' * (width + 1) + ':' for width in widths) + '|'
  return '\n'.join([line(cells[0]), rule, *map(line, cells[1:])])


def _cell(value: Any) -> str:
  if value is None:
    return ''
  if isinstance(value, float):
    # Four figures, and no exponent for what people read as a number.
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4g}'
  return f'{value:,}' if type(value) is int else str(value)


def say(text: str) -> None:
  """Prints a line of progress, which is not part of the result."""
  print(text, file=sys.stderr, flush=True)


def report(question: str, rows: Sequence[Mapping[str, Any]], **facts: Any) -> None:
  """Prints the table, and as the last line the same as JSON with the environment."""
  print(f'{question}\n\n{table(rows)}\n')
  record = {'question': question, 'rows': list(rows), **facts, **environment()}
  print(json.dumps(record), flush=True)

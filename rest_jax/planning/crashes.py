"""The TPU compiler can end the process that calls it; what was compiled is kept.

T5 1.1 XL's Improve step on v5p:4x4x4 with fsdp=16 and model=4 ends libtpu 0.0.42.1 by
a segmentation fault. So the work is done in a child, which writes down each program
before and after it is compiled; where the child dies, the next one goes on after the
program that killed it.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from rest_jax.planning import compiled_text, precompile, tpu
from rest_jax.planning import programs as programs_lib

JOURNAL = 'REST_JAX_PRECOMPILE_JOURNAL'  # the file, in a child's environment
MOST_CRASHES = 20
CRASHED = 'the compiler itself crashed (a fault of libtpu): try another mesh or batch'


def supervise(command: Sequence[str]) -> int | None:
  """Runs the command in children until one ends by itself.

  Args:
    command: of this program, as it was started.

  Returns:
    The exit status; None where this is a child, which has to do the work.
  """
  if JOURNAL in os.environ:
    return None
  with tempfile.TemporaryDirectory() as folder:
    environment = {**os.environ, JOURNAL: os.path.join(folder, 'journal.jsonl')}
    status = 1
    for _ in range(MOST_CRASHES):
      status = subprocess.run(command, env=environment, check=False).returncode
      if status >= 0:
        return status
      print(f'the TPU compiler crashed (signal {-status}); going on', file=sys.stderr)
  return 128 - status


def own_command() -> list[str]:
  """How this program was started, for a child that does the same."""
  return [sys.executable, '-m', 'rest_jax.main', *sys.argv[1:]]


class Journal:
  """Compiles each program once, however often the process dies.

  Args:
    path: of the file; None keeps nothing.
  """

  def __init__(self, path: str | None):
    self._path = path
    self._asked = 0
    self._known: dict[str, dict[str, Any] | None] = {}
    for line in self._lines():
      self._known[line['program']] = line['estimate']

  def compile_program(
    self, program: programs_lib.Program, chip: tpu.Chip
  ) -> precompile.Estimate:
    """As `precompile.compile_program`; a refusal where it killed an earlier child."""
    # Children ask in one order; programs of one name can differ in their model.
    self._asked += 1
    key = f'{self._asked} {program.name} {dict(program.mesh.shape)}'
    if key in self._known:
      found = self._known[key]
      return precompile.refused(program, CRASHED) if found is None else _read(found)
    self._write(key, None)
    estimate = precompile.compile_program(program, chip)
    self._write(key, dataclasses.asdict(estimate))
    return estimate

  def _write(self, key: str, estimate: dict[str, Any] | None) -> None:
    self._known[key] = estimate
    if self._path is not None:
      with open(self._path, 'a', encoding='utf-8') as file:
        file.write(json.dumps({'program': key, 'estimate': estimate}) + '\n')

  def _lines(self) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError):
      if self._path is not None:
        with open(self._path, encoding='utf-8') as file:
          yield from map(json.loads, file)


def _read(fields: dict[str, Any]) -> precompile.Estimate:
  collectives = (compiled_text.Collective(**one) for one in fields['collectives'])
  return precompile.Estimate(**{**fields, 'collectives': tuple(collectives)})

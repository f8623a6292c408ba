"""A compiler that ends its process costs one program, not all."""

import sys
import types

import pytest

from rest_jax.planning import crashes, precompile, tpu
from tests.planning import estimates

CHIP = tpu.CHIPS['v5e']
# Writes to the journal's folder how often it ran; dies twice, then ends with 3.
CHILD = """
import os, pathlib, signal
runs = pathlib.Path(os.environ['REST_JAX_PRECOMPILE_JOURNAL']).with_name('runs')
count = len(runs.read_text()) if runs.exists() else 0
runs.write_text('x' * (count + 1))
if count < 2:
  os.kill(os.getpid(), signal.SIGSEGV)
raise SystemExit(3)
"""


def program(name):
  mesh = types.SimpleNamespace(shape={'data': 4}, size=4)
  return types.SimpleNamespace(name=name, mesh=mesh, held_bytes=0, tokens=8)


def test_children_go_on_until_one_ends_by_itself(capfd):
  assert crashes.supervise([sys.executable, '-c', CHILD]) == 3
  assert capfd.readouterr().err.count('crashed (signal 11)') == 2


def test_a_child_does_the_work_itself(monkeypatch):
  monkeypatch.setenv(crashes.JOURNAL, 'somewhere')
  assert crashes.supervise([sys.executable, '-c', 'raise SystemExit(1)']) is None


def test_the_next_child_goes_on_after_the_program_that_killed(tmp_path, monkeypatch):
  compiled = []

  def compile_program(program, chip):
    if program.name == 'deadly':
      raise KeyboardInterrupt  # as if the process had ended here
    compiled.append(program.name)
    collective = crashes.compiled_text.Collective('all-reduce', 4, 1, 8)
    return estimates.estimate(program=program.name, collectives=(collective,))

  monkeypatch.setattr(precompile, 'compile_program', compile_program)
  path = str(tmp_path / 'journal')
  first = crashes.Journal(path)
  done = first.compile_program(program('first'), CHIP)
  with pytest.raises(KeyboardInterrupt):
    first.compile_program(program('deadly'), CHIP)

  second = crashes.Journal(path)
  assert second.compile_program(program('first'), CHIP) == done
  refused = second.compile_program(program('deadly'), CHIP)
  assert 'crashed' in refused.refusal
  assert not refused.fits(CHIP)
  second.compile_program(program('last'), CHIP)
  assert compiled == ['first', 'last']

"""The command line: T5X's flags, and one clear sentence for a mistake."""

import errno
import os
import subprocess
import sys

import gin
import pytest

from rest_jax import main
from tests import minimal_run

LOCAL = 'gin_configs/runs/local.gin'


def _write(directory, text):
  file = directory / 'run.gin'
  file.write_text(text)
  return str(file)


def test_t5xs_way_of_binding_is_rewritten():
  args = ['main', '--gin_file=a.gin', "--gin.MODEL_DIR='x'", '--gin.a.b.c=(1,\n2)']
  assert main.rewrite_gin_args(args) == [
    'main',
    '--gin_file=a.gin',
    "--gin_bindings=MODEL_DIR = 'x'",
    '--gin_bindings=a.b.c = (1,\n2)',
  ]
  # Only the first '=' divides.
  assert main.rewrite_gin_args(["--gin.A='b=c'"]) == ["--gin_bindings=A = 'b=c'"]


def test_a_binding_without_a_value_is_refused():
  with pytest.raises(ValueError, match=r"'--gin.MODEL_DIR' binds nothing"):
    main.rewrite_gin_args(['main', '--gin.MODEL_DIR'])


def test_a_later_binding_wins_and_nothing_stays_from_the_run_before():
  main.parse_gin([LOCAL], ['NUM_SAMPLES = 5', 'NUM_SAMPLES = 6'])
  assert gin.query_parameter('NUM_SAMPLES/macro.value') == 6
  main.parse_gin([LOCAL], [])
  assert gin.query_parameter('NUM_SAMPLES/macro.value') != 6


def test_a_later_file_wins(tmp_path):
  file = _write(tmp_path, 'NUM_SAMPLES = 7\n')
  main.parse_gin([LOCAL, file], [])
  assert gin.query_parameter('NUM_SAMPLES/macro.value') == 7


def test_an_unknown_file_is_named_with_those_near_it():
  with pytest.raises(ValueError, match=r"'gin_configs/runs/locl.gin'.*near it: ") as e:
    main.parse_gin(['gin_configs/runs/locl.gin'], [])
  assert LOCAL in str(e.value) and '\n' not in str(e.value)


def test_the_checkout_on_the_path_hides_no_file_from_another_folder(
  tmp_path, monkeypatch
):
  # Where gin_configs/runs can be imported, as a namespace that has no origin.
  monkeypatch.syspath_prepend(minimal_run.ROOT)
  monkeypatch.chdir(tmp_path)
  main.parse_gin(['gin_configs/runs/local.gin'], [])


def test_a_file_that_includes_an_unknown_one_is_refused(tmp_path):
  file = _write(tmp_path, "include 'gin_configs/nothing.gin'\n")
  with pytest.raises(ValueError, match=r'run\.gin'):
    main.parse_gin([file], [])


@pytest.mark.parametrize(
  'text',
  [
    'A = = 3\n',
    'from __gin__ import dynamic_registration\nfrom rest_jax import nothing_of_it\n',
    'from __gin__ import dynamic_registration\nimport rest_jax\nrest_jax.gone.a = 1\n',
  ],
)
def test_a_file_that_gin_cannot_read_is_named(tmp_path, text):
  with pytest.raises(ValueError, match=r'gin file .*run\.gin: '):
    main.parse_gin([_write(tmp_path, text)], [])


def test_an_unknown_macro_is_refused_with_the_likely_one():
  with pytest.raises(ValueError, match=r'the macro NUM_SAMPELS.*did you mean NUM_SAMP'):
    main.parse_gin([LOCAL], ['NUM_SAMPELS = 3'])


@pytest.mark.parametrize(
  'binding', ['NUM_SAMPLES = ', 'grow.gruw.seed = 1', 'grow.grow.num_sample = 1']
)
def test_a_binding_that_means_nothing_is_named(binding):
  with pytest.raises(ValueError, match='--gin_bindings=') as error:
    main.parse_gin([LOCAL], [binding])
  assert binding in str(error.value)


def test_macros_without_a_default_must_be_set():
  main.parse_gin(['gin_configs/rest.gin'], [])
  with pytest.raises(ValueError, match=r'CORPUS, MODEL_DIR, RATER must be set.*--gin'):
    main.require_macros()
  main.parse_gin([LOCAL], [])
  main.require_macros()


def test_an_unknown_run_mode_lists_those_there_are(tmp_path):
  main.parse_gin([LOCAL], [f'MODEL_DIR = {str(tmp_path / "x")!r}'])
  with pytest.raises(ValueError, match=r"unknown run mode 'gro': choose rest, ingest"):
    main.run('gro', dry_run=True)
  assert not (tmp_path / 'x').exists()


def test_a_dry_run_prints_the_plan_and_builds_nothing(tmp_path):
  printed = minimal_run.start(tmp_path / 'x', dry_run=True)
  for name in ('corpus', 'bc', 'grow_2', 'improve_1_2', 'evaluate_improve_2_1'):
    assert name in printed
  assert 'improve_1_3' not in printed and 'to build' in printed and 'mesh' in printed
  assert not (tmp_path / 'x').exists()


@pytest.fixture(scope='module')
def command():
  """Runs the command as a user does."""

  def start(*args):
    return subprocess.run(
      [sys.executable, '-m', 'rest_jax.main', *args],
      cwd=minimal_run.ROOT,
      capture_output=True,
      text=True,
      timeout=120,
      check=False,
      env={k: v for k, v in os.environ.items() if k != 'REST_JAX_TRACEBACK'},
    )

  return start


def test_a_mistake_ends_in_one_sentence_and_status_1(command):
  done = command(f'--gin_file={LOCAL}', '--gin.NUM_SAMPELS=3')
  assert done.returncode == 1
  assert 'error: no gin file of this run defines the macro NUM_SAMPELS' in done.stderr
  assert 'Traceback' not in done.stderr and done.stdout == ''


def test_an_error_inside_a_stage_ends_in_one_sentence_too(command, tmp_path):
  (tmp_path / 'corpus').mkdir()
  done = command(f'--gin_file={LOCAL}', f'--gin.MODEL_DIR={str(tmp_path)!r}')
  assert done.returncode == 1
  assert 'corpus exists and has no stage.json' in done.stderr
  assert 'Traceback' not in done.stderr and 'In call to' not in done.stderr


def test_without_a_gin_file_the_command_names_one(command):
  done = command()
  assert done.returncode == 1
  assert f'error: no gin file: give --gin_file={LOCAL}' in done.stderr


def test_a_binding_without_a_value_ends_with_status_1(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['rest_jax', '--gin.MODEL_DIR'])
  with pytest.raises(SystemExit) as exit_:
    main.console()
  assert exit_.value.code == 1
  assert 'error: ' in capsys.readouterr().err


@pytest.mark.parametrize(
  'error',
  [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    # As TensorStore says it, through Orbax.
    ValueError(
      'RESOURCE_EXHAUSTED: Error writing local file "d/a": Failed to write 9 bytes to '
      "file 9: No space left on device [os_error_code='28']"
    ),
  ],
)
def test_a_full_disk_is_called_that(error, capsys):
  assert main.fail(error) == 1
  assert '\nerror: the disk is full: make room' in capsys.readouterr().err


def test_full_memory_is_not_called_a_full_disk(capsys):
  assert main.fail(ValueError('RESOURCE_EXHAUSTED: Out of memory')) == 1
  assert 'disk' not in capsys.readouterr().err

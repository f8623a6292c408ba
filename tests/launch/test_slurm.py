"""slurm.sbatch under a real Slurm of one node: what is queued again, and what is not.

Skipped where Slurm is not installed or is not ours to start (slurm_node.py).
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

from tests import devices, minimal_run, several_hosts
from tests.launch import slurm_node

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / 'launch' / 'slurm.sbatch'
# The interpreter's place: notes its arguments, and ends as ENDINGS says of each start,
# or waits for SIGTERM.
STUB = """#!/usr/bin/env bash
[[ $1 != -c ]] || exit 0
start=${SLURM_RESTART_COUNT:-0}
echo "$SLURM_PROCID $*" >> "$FOLDER/started.$start"
endings=($ENDINGS)
[[ ${endings[$start]} == wait ]] || exit "${endings[$start]}"
trap 'exit 143' TERM
for _ in {1..300}; do sleep 0.1; done
"""

needs_slurm = pytest.mark.skipif(
  bool(slurm_node.missing()), reason=slurm_node.missing() or 'Slurm is here'
)


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
  with slurm_node.cluster(tmp_path_factory.mktemp('slurm')) as environment:
    yield environment


class Job:
  """One job, of two tasks on the one node."""

  def __init__(self, slurm, folder, *flags, options=(), **environment):
    self.environment = slurm | environment
    self.log = folder / 'log'
    printed = self.call(
      'sbatch',
      '--ntasks-per-node=2',
      f'--output={self.log}',
      *options,
      SCRIPT,
      *flags,
    )
    self.id = printed.split()[-1]

  def call(self, *command):
    return subprocess.run(
      [str(part) for part in command],
      cwd=ROOT,
      env=self.environment,
      check=True,
      capture_output=True,
      text=True,
      timeout=60,
    ).stdout

  def printed(self):
    return self.log.read_text() if self.log.exists() else ''

  def shown(self):
    return self.call('scontrol', 'show', 'job', self.id)

  def state(self):
    return re.search(r'JobState=(\w+)', self.shown())[1]

  def wait_for(self, condition, timeout_s=60):
    end = time.monotonic() + timeout_s
    while not condition():
      if 'JobState=PENDING Reason=BeginTime' in self.shown():
        # Slurm holds back for two minutes what comes again. The start before must have
        # ended, or its end would be taken for that of the next.
        time.sleep(2)
        self.call('scontrol', 'update', f'JobId={self.id}', 'StartTime=now')
      assert time.monotonic() < end, f'{self.state()}\n{self.printed()}'
      time.sleep(0.2)

  def wait(self, timeout_s=60):
    over = {'COMPLETED', 'FAILED', 'CANCELLED', 'TIMEOUT'}
    self.wait_for(lambda: self.state() in over, timeout_s)
    return self.state()


@pytest.fixture
def stub(slurm, tmp_path):
  """Starts a job of stubs."""
  python = tmp_path / 'python'
  python.write_text(STUB)
  python.chmod(0o755)

  def start(endings, *flags, **options):
    return Job(
      slurm,
      tmp_path,
      *flags,
      PYTHON=str(python),
      FOLDER=str(tmp_path),
      ENDINGS=endings,
      **options,
    )

  return start


@needs_slurm
def test_every_task_gets_the_flags(stub, tmp_path):
  flags = ['--gin_file=a.gin', "--gin.MODEL_DIR='/shared/a b'"]
  assert stub('0', *flags).wait() == 'COMPLETED'
  started = sorted((tmp_path / 'started.0').read_text().splitlines())
  expected = ' '.join(['-m rest_jax.main --multihost', *flags])
  assert started == [f'0 {expected}', f'1 {expected}']


@needs_slurm
@pytest.mark.parametrize('endings', ['143 0', '75 0', '134 0'])
def test_what_was_stopped_or_lost_is_queued_again(stub, tmp_path, endings):
  job = stub(endings)
  assert job.wait() == 'COMPLETED', job.printed()
  assert (tmp_path / 'started.1').exists() and not (tmp_path / 'started.2').exists()
  assert f'ended with status {endings[:-2]}; queued again' in job.printed()


@needs_slurm
def test_a_mistake_is_not_made_again(stub, tmp_path):
  job = stub('1 0')
  assert job.wait() == 'FAILED'
  assert 'ended by a mistake' in job.printed()
  assert not (tmp_path / 'started.1').exists()


@needs_slurm
def test_not_for_ever(stub, tmp_path):
  job = stub('143 143 0', MAX_RESTARTS='1')
  assert job.wait() == 'FAILED'
  assert 'was started 2 times already' in job.printed()
  assert not (tmp_path / 'started.2').exists()


@needs_slurm
def test_the_signal_before_the_end_of_its_time_reaches_the_tasks(stub, tmp_path):
  job = stub('wait 0')
  job.wait_for((tmp_path / 'started.0').exists)
  time.sleep(0.5)
  job.call('scancel', '--batch', '--signal=TERM', job.id)  # as --signal=B:TERM@90 does
  assert job.wait() == 'COMPLETED', job.printed()
  assert 'ended with status 143; queued again' in job.printed()


@needs_slurm
def test_what_its_owner_cancels_stays_away(stub, tmp_path):
  job = stub('wait 0')
  job.wait_for((tmp_path / 'started.0').exists)
  time.sleep(0.5)
  job.call('scancel', job.id)
  assert job.wait() == 'CANCELLED'
  job.wait_for(lambda: 'and the job is' in job.printed())
  time.sleep(3)
  assert job.state() == 'CANCELLED' and not (tmp_path / 'started.1').exists()


@needs_slurm
@pytest.mark.slow
@pytest.mark.skipif(
  'REST_JAX_SLURM_RUN' not in os.environ,
  reason='takes two minutes: REST_JAX_SLURM_RUN=1',
)
def test_a_run_of_two_processes_is_stopped_and_goes_on(slurm, tmp_path):
  model_dir = tmp_path / 'run'
  file = several_hosts.gin_file(
    tmp_path,
    (
      'TRAIN_STEPS = 60',
      'supervise.supervise.eval_period_steps = 1000',
      'supervise.supervise.checkpoint_period_steps = 1000',
    ),
  )
  job = Job(
    slurm,
    tmp_path,
    f'--gin_file={minimal_run.GIN_FILE}',
    f'--gin_file={file}',
    f'--gin.MODEL_DIR={str(model_dir)!r}',
    '--run_mode=supervise',
    PYTHON=sys.executable,
    XLA_FLAGS=devices.xla_flags(1),
    JAX_PLATFORMS='cpu',
    TF_CPP_MIN_LOG_LEVEL='3',
  )
  job.wait_for(lambda: re.search(r'bc: \d+/60', job.printed()), 120)
  job.call('scancel', '--signal=TERM', job.id)
  assert job.wait(150) == 'COMPLETED', job.printed()
  assert 'ended with status 143; queued again' in job.printed()
  assert 'Traceback' not in job.printed(), job.printed()
  record = json.loads((model_dir / 'bc' / 'stage.json').read_text())
  assert record['cost']['attempts'] == 2


def test_printed_it_starts_nothing():
  environment = {key: os.environ[key] for key in ('PATH', 'HOME') if key in os.environ}
  printed = subprocess.run(
    ['bash', SCRIPT, '--print', "--gin.MODEL_DIR='/shared/a b'"],
    env=environment | {'SLURM_CPUS_PER_TASK': '8'},
    capture_output=True,
    text=True,
    check=True,
  )
  assert printed.stdout.startswith(
    'srun --kill-on-bad-exit=1 --label --cpus-per-task=8 .venv/bin/python '
    '-m rest_jax.main --multihost '
  )
  assert printed.stderr == ''
  outside = subprocess.run(
    ['bash', SCRIPT, '--x'], env=environment, capture_output=True, text=True
  )
  assert outside.returncode == 1 and 'start it by sbatch' in outside.stderr

"""tpu_pod.sh against a gcloud that has its two workers in folders of this machine."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / 'launch' / 'tpu_pod.sh'
# What the script asks of gcloud, with its exit status: of the first worker that fails.
GCLOUD = """#!/usr/bin/env bash
echo "$*" >> "$FAKE/calls"
case "$*" in
  *'tpu-vm describe'*) cat "$FAKE/slice" ;;
  *'queued-resources describe'*) cat "$FAKE/request" ;;
  *create*missing-*) echo 'Permission denied'; exit 1 ;;
  *'queued-resources create'*)
    echo READY > "$FAKE/slice"
    echo ACTIVE > "$FAKE/request" ;;
  *'queued-resources delete'*) : > "$FAKE/slice"; : > "$FAKE/request" ;;
  *'tpu-vm scp'*) for w in 0 1; do mkdir -p "$FAKE/$w"; cp "$5" "$FAKE/$w/"; done ;;
  *'tpu-vm ssh'*)
    for argument; do
      case $argument in --command=*) command=${argument#*=} ;; esac
    done
    for w in 0 1; do
      (cd "$FAKE/$w" && HOME=$FAKE/$w exec bash -c "$command") &
      workers[w]=$!
    done
    status=0
    for w in 1 0; do wait "${workers[w]}" || status=$?; done
    exit "$status" ;;
esac
"""
# The program's place: ends as ENDINGS says of each start, or waits for SIGTERM.
STUB = """#!/usr/bin/env bash
start=$(cat "$HOME"/started 2>/dev/null | wc -l)
trap 'echo stopped >> "$HOME/started.$start"; exit 143' TERM
printf '%q ' "$@" >> "$HOME/started"; echo >> "$HOME/started"
echo "step of start $start with $GIVEN"
endings=($ENDINGS)
if [[ ${endings[$start]} == lost ]]; then echo PREEMPTED > "$FAKE/slice"; exit 75; fi
[[ ${endings[$start]} == wait ]] || exit "${endings[$start]}"
for _ in {1..300}; do sleep 0.1; done
"""


@pytest.fixture
def pod(tmp_path):
  """Starts the script; a function of ENDINGS and options."""
  fake = tmp_path / 'fake'
  fake.mkdir()
  for name, text in (('gcloud', GCLOUD), ('rest_jax.main', STUB)):
    (tmp_path / name).write_text(text)
    (tmp_path / name).chmod(0o755)
  for name in ('slice', 'request', 'calls'):
    (fake / name).write_text('')
  started = []

  def start(endings, *options, flags=("--gin.MODEL_DIR='gs://bucket/a b'",)):
    process = subprocess.Popen(
      [
        'bash',
        SCRIPT,
        '--name=rest',
        '--zone=here',
        '--max_restarts=3',
        *options,
        '--',
        *flags,
      ],
      env=os.environ
      | {
        'PATH': f'{tmp_path}:{os.environ["PATH"]}',
        'FAKE': str(fake),
        'ENDINGS': endings,
        'PYTHON': str(tmp_path / 'rest_jax.main'),
        'TPU_POD_POLL_S': '0.1',
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      start_new_session=True,
    )
    started.append(process)
    return process

  start.fake = fake
  yield start
  for process in started:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def end(process):
  printed, _ = process.communicate(timeout=60)
  return process.returncode, printed


def starts(pod, worker=0):
  path = pod.fake / str(worker) / 'started'
  return path.read_text().splitlines() if path.exists() else []


def wait_for(condition):
  limit = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < limit
    time.sleep(0.05)


def test_a_slice_is_made_and_every_worker_gets_the_flags(pod):
  status, printed = end(
    pod('0', '--type=v6e-8', '--spot', '--env=GIVEN=a b', '--delete')
  )
  assert status == 0, printed
  for worker in (0, 1):
    assert starts(pod, worker) == [
      r'-m rest_jax.main --multihost --gin.MODEL_DIR=\'gs://bucket/a\ b\' '
    ]
    files = pod.fake / str(worker) / 'rest_jax'
    assert (files / 'rest_jax' / 'main.py').exists() and not (files / '.git').exists()
  assert printed.count('step of start 0 with a b') == 2
  calls = (pod.fake / 'calls').read_text()
  assert (
    'queued-resources create rest --node-id=rest --accelerator-type=v6e-8 '
    '--runtime-version=v2-alpha-tpuv6e --spot --zone=here --quiet' in calls
  )
  assert 'queued-resources delete rest --force --zone=here' in calls


def test_what_was_stopped_is_started_again_on_the_same_slice(pod):
  (pod.fake / 'slice').write_text('READY\n')
  status, printed = end(pod('143 137 0'))
  assert status == 0 and len(starts(pod)) == 3, printed
  assert 'ended with status 143; start 2 goes on' in printed
  calls = (pod.fake / 'calls').read_text()
  assert 'create' not in calls and 'delete' not in calls


def test_a_slice_that_was_taken_away_is_made_again(pod):
  status, printed = end(pod('lost 0', '--type=v5p-16', '--spot'))
  assert status == 0 and 'rest was taken away (PREEMPTED, ACTIVE)' in printed
  calls = (pod.fake / 'calls').read_text()
  assert calls.count('queued-resources create') == 2
  assert calls.count('queued-resources delete') == 1
  assert len(starts(pod)) == 2


def test_a_mistake_is_not_made_again(pod):
  (pod.fake / 'slice').write_text('READY\n')
  status, printed = end(pod('1 0'))
  assert status == 1 and len(starts(pod)) == 1
  assert 'ended by a mistake' in printed


def test_ctrl_c_stops_the_workers_with_a_checkpoint(pod):
  (pod.fake / 'slice').write_text('READY\n')
  process = pod('wait 0')
  wait_for(lambda: starts(pod, 0) and starts(pod, 1))
  os.killpg(process.pid, signal.SIGINT)
  status, printed = end(process)
  assert status == 130, printed
  for worker in (0, 1):
    assert (pod.fake / str(worker) / 'started.0').read_text() == 'stopped\n'


def test_the_workers_outlive_the_script_and_are_stopped_by_the_next_start(pod):
  (pod.fake / 'slice').write_text('READY\n')
  process = pod('wait 0')
  wait_for(lambda: starts(pod, 0) and starts(pod, 1))
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  left = int((pod.fake / '1' / 'rest_jax.pid').read_text())
  os.kill(left, 0)
  status, printed = end(pod('wait 0'))
  assert status == 0 and 'stopping what runs, with a checkpoint' in printed
  assert (pod.fake / '1' / 'started.0').read_text() == 'stopped\n'


def test_printed_it_does_nothing(pod):
  status, printed = end(pod('0', '--type=v6e-8', '--print'))
  assert status == 0 and (pod.fake / 'calls').read_text() == ''
  assert [line.split()[3] for line in printed.splitlines()] == [
    'queued-resources',
    'tpu-vm',
    'tpu-vm',
    'tpu-vm',
  ]


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (['--typ=v6e-8'], 'unknown option --typ=v6e-8'),
    ([], 'there is no TPU rest in here'),
    (['--type=missing-8'], 'Permission denied'),
  ],
)
def test_what_is_missing_is_named(pod, options, message):
  status, printed = end(pod('0', *options))
  assert status == 1 and message in printed

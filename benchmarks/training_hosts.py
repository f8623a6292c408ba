"""How do training steps scale over hosts, and how long does a restart take?

    python -m benchmarks.training_hosts --repeats 3

The real command trains BC of gin_configs/runs/local.gin on the embedded corpus: on one
core; on two cores as two devices of one process; and on two cores as two processes,
each with one core and one device, that `jax.distributed` joins on 127.0.0.1. Strong
scaling keeps the batch, weak scaling gives each device as much as the one has. Steps a
second are those between the first and the last line of metrics.jsonl, compilation left
out.

A restart is the same command after a SIGKILL behind the first checkpoint: seconds from
its start to its first step, with an empty cache of compiled programs and with the one
that the first start has left.
"""

import argparse
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks import measuring
from rest_jax.training import events

GIN_FILE = 'gin_configs/runs/local.gin'
TIMEOUT_S = 600


class Layout(NamedTuple):
  """Processes, devices of each, and the cores of each."""

  name: str
  processes: int
  devices: int
  cores: tuple[frozenset[int], ...]

  @property
  def all_devices(self) -> int:
    """Of all processes."""
    return self.processes * self.devices


def layouts() -> list[Layout]:
  """On the first two cores of this machine."""
  one, two = sorted(os.sched_getaffinity(0))[:2]
  both = frozenset({one, two})
  alone = (frozenset({one}), frozenset({two}))
  return [
    Layout('one core', 1, 1, alone[:1]),
    Layout('two devices of a process', 1, 2, (both,)),
    Layout('two processes', 2, 1, alone),
  ]


def _free_port() -> int:
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    return int(found.getsockname()[1])


def start(
  layout: Layout, model_dir: pathlib.Path, home: pathlib.Path, *bindings: str
) -> list[subprocess.Popen[str]]:
  """Starts the processes of a layout; the first writes `model_dir`.log."""
  port = _free_port()
  found = []
  for index, cores in enumerate(layout.cores):
    several = [
      f'--coordinator_address=127.0.0.1:{port}',
      f'--process_count={layout.processes}',
      f'--process_index={index}',
    ]
    flags = f'--xla_force_host_platform_device_count={layout.devices}'
    with pathlib.Path(f'{model_dir}.{index}.log').open('w') as log:
      found.append(
        subprocess.Popen(
          [
            *(sys.executable, '-m', 'rest_jax.main', f'--gin_file={GIN_FILE}'),
            *('--run_mode=supervise', f'--gin.MODEL_DIR={str(model_dir)!r}'),
            *(f'--gin_bindings={binding}' for binding in bindings),
            *(several if layout.processes > 1 else []),
          ],
          cwd=measuring.ROOT,
          env=os.environ
          | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu', 'HOME': str(home)},
          stdout=log,
          stderr=subprocess.STDOUT,
          text=True,
          preexec_fn=lambda cores=cores: os.sched_setaffinity(0, cores),
        )
      )
  return found


def finish(processes: Sequence[subprocess.Popen[str]], model_dir: pathlib.Path) -> None:
  """Waits for all.

  Raises:
    RuntimeError: one failed; with the end of what it wrote.
  """
  for index, process in enumerate(processes):
    if process.wait(TIMEOUT_S):
      tail = pathlib.Path(f'{model_dir}.{index}.log').read_text()[-2000:]
      raise RuntimeError(f'process {index} ended with {process.returncode}:\n{tail}')


def steps_a_second(model_dir: pathlib.Path) -> float:
  """Of training, from the first line of metrics to the last."""
  lines = [
    line for line in events.read_metrics(model_dir / 'bc' / 'events') if 'loss' in line
  ]
  first, last = lines[0], lines[-1]
  return (last['step'] - first['step']) / (last['wall_time'] - first['wall_time'])


def rates(
  folder: pathlib.Path, steps: int, repeats: int, size: Sequence[str]
) -> list[dict[str, Any]]:
  """Steps a second of every layout, strong and weak, in turns."""
  home = folder / 'home'
  batch = 64
  cases = [(layout, batch) for layout in layouts()]
  cases += [(layout, 2 * batch) for layout in layouts()[1:]]
  found: dict[tuple[str, int], list[float]] = {(one.name, b): [] for one, b in cases}
  corpus = folder / 'corpus'
  for number in range(repeats):
    shift = number % len(cases)
    for layout, rows in cases[shift:] + cases[:shift]:
      model_dir = folder / f'run_{number}_{cases.index((layout, rows))}'
      processes = start(
        layout,
        model_dir,
        home,
        *size,
        f'REUSE_FROM = ({str(corpus)!r},)',
        f'TRAIN_STEPS = {steps}',
        f'BATCH_SIZE = {rows}',
        f'supervise.supervise.eval_period_steps = {steps}',
        f'supervise.supervise.checkpoint_period_steps = {steps}',
      )
      finish(processes, model_dir)
      rate = steps_a_second(model_dir)
      found[layout.name, rows].append(rate)
      measuring.say(f'round {number + 1}: {layout.name}, {rows}: {rate:.2f} steps/s')
      shutil.rmtree(model_dir)
  (base, *_) = cases
  table = []
  for layout, rows in cases:
    own = sorted(found[layout.name, rows])
    each = [
      b * rows / (a * batch)
      for a, b in zip(found[base[0].name, batch], found[layout.name, rows], strict=True)
    ]
    each.sort()
    middle = each[len(each) // 2]
    table.append(
      {
        'layout': layout.name,
        'batch': rows,
        'steps/s': own[len(own) // 2],
        'sources/s to one core': middle,
        'from': each[0],
        'to': each[-1],
        'efficiency': middle / layout.all_devices,
      }
    )
  return table


def restarts(
  folder: pathlib.Path, repeats: int, size: Sequence[str]
) -> list[dict[str, Any]]:
  """Seconds from a start to the first step, before and after a kill."""
  layout = layouts()[1]._replace(name='all cores', devices=1)
  bindings = [
    *size,
    f'REUSE_FROM = ({str(folder / "corpus")!r},)',
    'TRAIN_STEPS = 100000',
    'supervise.supervise.eval_period_steps = 100000',
    'supervise.supervise.checkpoint_period_steps = 40',
  ]
  seconds: dict[str, list[float]] = {'first start, empty cache': [], 'restart': []}
  for number in range(repeats):
    model_dir, home = folder / f'restart_{number}', folder / f'home_{number}'
    for name in seconds:
      began = time.monotonic()
      (process,) = start(layout, model_dir, home, *bindings)
      log = pathlib.Path(f'{model_dir}.0.log')
      while ' steps, ' not in log.read_text():
        if process.poll() is not None or time.monotonic() - began > TIMEOUT_S:
          raise RuntimeError(f'{name} took no step:\n{log.read_text()[-2000:]}')
        time.sleep(0.02)
      seconds[name].append(time.monotonic() - began)
      measuring.say(f'round {number + 1}: {name}: {seconds[name][-1]:.1f} s')
      while not list(model_dir.glob('.work/bc-*/scratch/checkpoints/40')):
        time.sleep(0.1)
      process.send_signal(signal.SIGKILL)
      process.wait()
  return [
    {
      'start': name,
      'seconds to the first step': sorted(each)[len(each) // 2],
      'from': min(each),
      'to': max(each),
    }
    for name, each in seconds.items()
  ]


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
  """Prints both tables; returns the rows of both."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--steps', type=int, default=240)
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--num_train', type=int, default=20_000)
  given = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    size = [f'NUM_TRAIN = {given.num_train}']
    prepared = start(
      layouts()[1]._replace(devices=1),
      folder / 'corpus',
      folder / 'home',
      *size,
      'TRAIN_STEPS = 1',
      'WARMUP_STEPS = 0',
    )
    finish(prepared, folder / 'corpus')
    scaling = rates(folder, given.steps, given.repeats, size)
    starts = restarts(folder, given.repeats, size)
  measuring.report('How do training steps scale over hosts?', scaling)
  measuring.report('How long does a restart take?', starts)
  return scaling + starts


if __name__ == '__main__':
  main()

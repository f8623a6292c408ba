"""Several hosts on this machine: each a process of the real command, with one device.

  python -m tests.several_hosts [--kill=REGEX] [--hang=REGEX] FLAGS OF rest_jax.main

With --kill the process dies by SIGKILL as `minimal_run` describes. With --hang it lives
and does not go on when the first file whose final path matches is about to be written.
"""

import os
import pathlib
import re
import socket
import subprocess
import sys
import time

from rest_jax import main
from tests import devices, minimal_run

HEADER = 'from __gin__ import dynamic_registration\n'


def free_port():
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    return found.getsockname()[1]


def gin_file(folder, bindings=()):
  """A gin file of the smallest run; the later bindings win."""
  parsed = minimal_run.BINDINGS
  names = [binding.split('=')[0].split('.')[0] for binding in parsed if '.' in binding]
  modules = sorted({name.split('/')[-1] for name in names} & MODULES.keys())
  path = pathlib.Path(folder) / 'minimal.gin'
  imports = [f'from rest_jax.{MODULES[name]} import {name}' for name in modules]
  path.write_text('\n'.join([HEADER, *imports, *parsed, *bindings, '']))
  return path


MODULES = {
  'evaluate': 'stages',
  'grow': 'stages',
  'improve': 'stages',
  'ingest': 'stages',
  'optimiser': 'training',
  'sampler': 'sampling',
  'supervise': 'stages',
  't5': 'models',
  'train_reward': 'stages',
}


class Hosts:
  """The processes of one start.

  Args:
    folder: for the gin file and what the processes print.
    model_dir: of the run.
    count: how many.
    flags: further flags of all.
    of: {index: flags} of some of them.
    bindings: gin bindings on top of the smallest run's.
  """

  def __init__(self, folder, model_dir, count, *flags, of=None, bindings=()):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = gin_file(folder, bindings)
    port = free_port()
    environment = os.environ | {
      'XLA_FLAGS': devices.xla_flags(1),
      'JAX_PLATFORMS': 'cpu',
      'TF_CPP_MIN_LOG_LEVEL': '3',
    }
    self.logs = [folder / f'host_{index}.log' for index in range(count)]
    self.processes = []
    for index, log in enumerate(self.logs):
      several = [
        f'--coordinator_address=127.0.0.1:{port}',
        f'--process_count={count}',
        f'--process_index={index}',
        '--heartbeat_timeout_s=10',
      ]
      with log.open('w') as output:
        self.processes.append(
          subprocess.Popen(
            [
              sys.executable,
              '-m',
              'tests.several_hosts',
              f'--gin_file={minimal_run.GIN_FILE}',
              f'--gin_file={file}',
              f'--gin.MODEL_DIR={str(model_dir)!r}',
              *(several if count > 1 else []),
              *flags,
              *(of or {}).get(index, []),
            ],
            cwd=minimal_run.ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
          )
        )

  def wait(self, timeout_s=240):
    """The exit statuses; none is left running."""
    end = time.monotonic() + timeout_s
    try:
      return [p.wait(max(0.1, end - time.monotonic())) for p in self.processes]
    finally:
      self.kill()

  def kill(self):
    for process in self.processes:
      process.kill()
      process.wait()

  def printed(self):
    """What all printed, for a failing test."""
    return '\n'.join(f'--- {log.name}\n{log.read_text()[-3000:]}' for log in self.logs)


def run(folder, model_dir, count, *flags, **options):
  """Starts and waits; all must end well."""
  hosts = Hosts(folder, model_dir, count, *flags, **options)
  statuses = hosts.wait()
  assert statuses == [0] * count, hosts.printed()
  return hosts


def _hang_at(pattern):
  def hook(event, arguments):
    if event == 'os.rename' and re.search(pattern, os.fspath(arguments[1])):
      time.sleep(1000)

  sys.addaudithook(hook)


if __name__ == '__main__':
  disturb = {'--kill': minimal_run._kill_at, '--hang': _hang_at}
  for argument in list(sys.argv):
    flag, _, value = argument.partition('=')
    if flag in disturb:
      disturb[flag](value)
      sys.argv.remove(argument)
  main.console()

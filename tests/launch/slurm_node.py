"""A Slurm cluster of one node, this machine, for as long as a test or a shell needs it.

  python -m tests.launch.slurm_node FOLDER [COMMAND ...]

starts munged, slurmctld and slurmd with all of their files in FOLDER (which must be on
a path that every user can read), runs COMMAND, or a shell, with SLURM_CONF set, and
ends them. Needs root and Debian's packages: apt-get install slurmctld slurmd munge.
Nothing of a Slurm that the machine has already is read or changed.
"""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'srun', 'scontrol', 'scancel')

CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=2
ReturnToService=2
JobRequeue=1
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE OverSubscribe=NO State=UP
"""


def missing():
  """Why no cluster can be started here; '' where one can."""
  path = f'{os.environ.get("PATH", "")}:/usr/sbin:/sbin'
  absent = [program for program in PROGRAMS if not shutil.which(program, path=path)]
  if absent:
    return f'no {", ".join(absent)}: apt-get install slurmctld slurmd munge'
  return '' if os.geteuid() == 0 else 'slurmd needs root'


def _free_ports(count):
  with contextlib.ExitStack() as stack:
    found = [stack.enter_context(socket.socket()) for _ in range(count)]
    for one in found:
      one.bind(('127.0.0.1', 0))
    return [one.getsockname()[1] for one in found]


@contextlib.contextmanager
def cluster(folder, cpus=2):
  """Yields the environment in which sbatch and its kin speak to this cluster."""
  folder = pathlib.Path(folder).resolve()
  for name in ('state', 'spool'):
    (folder / name).mkdir(parents=True, exist_ok=True)
  ctld_port, slurmd_port = _free_ports(2)
  conf = folder / 'slurm.conf'
  conf.write_text(
    CONF.format(
      host=socket.gethostname().split('.')[0],
      folder=folder,
      cpus=cpus,
      ctld_port=ctld_port,
      slurmd_port=slurmd_port,
    )
  )
  key = folder / 'munge.key'
  key.write_bytes(os.urandom(128))
  key.chmod(0o600)
  environment = os.environ | {
    'SLURM_CONF': str(conf),
    'PATH': f'{os.environ["PATH"]}:/usr/sbin:/sbin',
  }
  commands = (
    [
      'munged',
      '--foreground',
      '--force',
      f'--key-file={key}',
      f'--socket={folder}/munge.socket',
      f'--pid-file={folder}/munged.pid',
      f'--seed-file={folder}/munge.seed',
      f'--log-file={folder}/munged.log',
    ],
    ['slurmctld', '-D', '-i', '-f', str(conf)],
    ['slurmd', '-D', '-f', str(conf)],
  )
  started = []
  try:
    for command in commands:
      with (folder / f'{command[0]}.out').open('w') as output:
        started.append(
          subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        )
      time.sleep(0.5)
    _wait_until_idle(environment, folder, started)
    yield environment
  finally:
    # A failed test may leave a job, whose tasks would outlive slurmd.
    leave = ['scancel', '--signal=KILL', '--full', '--user=root']
    subprocess.run(leave, env=environment)
    time.sleep(0.5)
    for process in reversed(started):
      process.terminate()
      try:
        process.wait(10)
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_idle(environment, folder, started):
  end = time.monotonic() + 30
  while time.monotonic() < end:
    state = subprocess.run(
      ['sinfo', '-h', '-o', '%T'], env=environment, capture_output=True, text=True
    ).stdout
    if 'idle' in state:
      return
    if any(process.poll() is not None for process in started):
      break
    time.sleep(0.2)
  logs = [*folder.glob('*.out'), *folder.glob('*.log')]
  tails = '\n'.join(f'--- {log.name}\n{log.read_text()[-1500:]}' for log in logs)
  raise RuntimeError(f'the cluster did not start:\n{tails}')


if __name__ == '__main__':
  with cluster(sys.argv[1]) as found:
    shell = [os.environ.get('SHELL', '/bin/bash')]
    sys.exit(subprocess.run(sys.argv[2:] or shell, env=found).returncode)

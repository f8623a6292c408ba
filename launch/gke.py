"""Starts a run on Kubernetes: fills gke_jobset.yaml and hands it to kubectl.

  python launch/gke.py --name=rest --image=IMAGE --tpu=v6e --topology=4x4 -- FLAGS
  python launch/gke.py --name=rest --image=IMAGE --gpu=nvidia-h100-80gb \
    --gpus_per_host=8 --hosts=2 -- FLAGS
  python launch/gke.py --name=rest --image=IMAGE --cpu=8 --hosts=2 -- FLAGS

With --print the manifest is printed and nothing is started. FLAGS are those of
`python -m rest_jax.main`; MODEL_DIR must be in a bucket that --service_account may
write to, or under the path of a --claim. The image is launch/Dockerfile's. The cluster
needs JobSet's controller (0.6 or later) and, for TPUs, a node pool of that topology. To
look at it, and to end it for good, with a checkpoint:

  kubectl logs --follow jobs/rest-hosts-0
  kubectl delete jobset rest

Needs Python alone, and kubectl to start.
"""

import argparse
import json
import math
import pathlib
import re
import string
import subprocess
import sys

TEMPLATE = pathlib.Path(__file__).with_name('gke_jobset.yaml')
# The node pools' label for each generation of TPU.
TPUS = {
  'v4': 'tpu-v4-podslice',
  'v5e': 'tpu-v5-lite-podslice',
  'v5p': 'tpu-v5p-slice',
  'v6e': 'tpu-v6e-slice',
  'tpu7x': 'tpu7x',
}
PORT = 8476
JOB = 'hosts'


def parse(argv: list[str]) -> argparse.Namespace:
  """Reads the options and, after --, the flags of the run.

  Raises:
    SystemExit: with the reason, as argparse does.
  """
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--name', required=True, help='of the JobSet')
  add('--image', required=True, help='of launch/Dockerfile, in a registry')
  add('--tpu', choices=sorted(TPUS), help='generation')
  add('--topology', help='of the slice, such as 2x4 or 2x2x4')
  add('--chips_per_host', type=int, help='4, or 1 for topology 1x1')
  add('--gpu', help="the node pools' label, such as nvidia-h100-80gb")
  add('--gpus_per_host', type=int, default=8)
  add('--cpu', type=int, help='cores of each host, for a run without accelerators')
  add('--hosts', type=int, default=1, help='with --gpu or --cpu')
  add('--memory', help='asked for each host, such as 64Gi')
  add('--spot', action='store_true', help='on machines that may be taken away')
  add('--max_restarts', type=int, default=100)
  add('--grace_s', type=int, default=120, help='for the checkpoint; spot has 15 to 25')
  add('--service_account', default='default', help="Kubernetes', for the bucket")
  add('--namespace', help="kubectl's own by default")
  add('--queue', help="a LocalQueue of Kueue's")
  add('--claim', action='append', default=[], metavar='CLAIM:/PATH', help='mounted')
  add('--env', action='append', default=[], metavar='NAME=VALUE')
  add('--print', action='store_true', help='the manifest; start nothing')
  add('flags', nargs='*', metavar='FLAGS', help='of the run, after --')
  args = parser.parse_args(argv)
  if sum(kind is not None for kind in (args.tpu, args.gpu, args.cpu)) != 1:
    parser.error('give one of --tpu=v6e, --gpu=nvidia-h100-80gb, --cpu=8')
  if not args.flags:
    parser.error('no flags of the run after --: --gin_file=... --gin.MODEL_DIR=...')
  # The pods' names are NAME-hosts-0-INDEX-xxxxx, and labels have 63 characters.
  if not re.fullmatch(r'[a-z]([a-z0-9-]{0,38}[a-z0-9])?', args.name):
    parser.error(
      f'--name={args.name} must be up to 40 small letters, digits and -, begin with a '
      'letter and not end with -'
    )
  if args.tpu is not None and not re.fullmatch(r'\d+x\d+(x\d+)?', args.topology or ''):
    parser.error(
      f'--topology={args.topology} must be such as 4x4, or 2x2x4 for v4, v5p'
    )
  for given, form in (('claim', r'[^:]+:/.+'), ('env', r'[A-Za-z_]\w*=.*')):
    for value in getattr(args, given):
      if not re.fullmatch(form, value, re.DOTALL):
        parser.error(f'--{given}={value} is not of the form that --help gives')
  return args


def tpu_hosts(topology: str, chips_per_host: int | None) -> tuple[int, int]:
  """How many hosts a slice has, and how many chips each.

  Raises:
    ValueError: the chips of the slice are no multiple of a host's.
  """
  chips = math.prod(int(side) for side in topology.split('x'))
  if chips_per_host is None:
    chips_per_host = 1 if chips == 1 else 4
  if chips % chips_per_host:
    raise ValueError(
      f'topology {topology} has {chips} chips, which hosts of {chips_per_host} do not '
      'make up: see --chips_per_host'
    )
  return chips // chips_per_host, chips_per_host


def values(args: argparse.Namespace) -> dict[str, object]:
  """What stands for each ${...} of the template."""
  selector: dict[str, str] = {}
  tolerations = []
  limits: dict[str, object] = {}
  requests: dict[str, object] = {}
  hosts = args.hosts
  if args.tpu is not None:
    hosts, chips = tpu_hosts(args.topology, args.chips_per_host)
    selector['cloud.google.com/gke-tpu-accelerator'] = TPUS[args.tpu]
    selector['cloud.google.com/gke-tpu-topology'] = args.topology
    tolerations.append({'key': 'google.com/tpu', 'operator': 'Exists'})
    limits['google.com/tpu'] = chips
  elif args.gpu is not None:
    selector['cloud.google.com/gke-accelerator'] = args.gpu
    tolerations.append({'key': 'nvidia.com/gpu', 'operator': 'Exists'})
    limits['nvidia.com/gpu'] = args.gpus_per_host
  else:
    requests['cpu'] = args.cpu
  if args.memory is not None:
    requests['memory'] = args.memory
  if args.spot:
    selector['cloud.google.com/gke-spot'] = 'true'
    tolerations.append(
      {'key': 'cloud.google.com/gke-spot', 'operator': 'Equal', 'value': 'true'}
    )
  claims = [claim.split(':', 1) for claim in args.claim]
  env = [dict(zip(('name', 'value'), e.split('=', 1), strict=True)) for e in args.env]
  is_tpu = args.tpu is not None
  return {
    'name': args.name,
    'labels': {'kueue.x-k8s.io/queue-name': args.queue} if args.queue else {},
    # Its hosts are those of one slice, and no other's.
    'annotations': {
      'alpha.jobset.sigs.k8s.io/exclusive-topology': 'cloud.google.com/gke-nodepool'
    }
    if is_tpu and hosts > 1
    else {},
    'max_restarts': args.max_restarts,
    'hosts': hosts,
    'service_account': args.service_account,
    'grace_s': args.grace_s,
    'node_selector': selector,
    'tolerations': tolerations,
    'host_network': is_tpu,
    'dns_policy': 'ClusterFirstWithHostNet' if is_tpu else 'ClusterFirst',
    'image': args.image,
    'args': [*map(literal, args.flags), *host_flags(args.name, hosts, is_tpu)],
    'env': env,
    'resources': {'limits': limits, 'requests': requests},
    'privileged': is_tpu,
    'volume_mounts': [
      {'name': f'claim-{i}', 'mountPath': path} for i, (_, path) in enumerate(claims)
    ],
    'volumes': [
      {'name': f'claim-{i}', 'persistentVolumeClaim': {'claimName': claim}}
      for i, (claim, _) in enumerate(claims)
    ],
  }


def literal(flag: str) -> str:
  """Keeps Kubernetes from putting a variable in the place of $(NAME)."""
  return flag.replace('$(', '$$(')


def host_flags(name: str, hosts: int, is_tpu: bool) -> list[str]:
  """How the hosts find each other."""
  if hosts == 1:
    return []
  if is_tpu:  # GKE says it in the environment, in the order of the chips
    return ['--multihost']
  return [
    f'--coordinator_address={name}-{JOB}-0-0.{name}:{PORT}',
    f'--process_count={hosts}',
    '--process_index=$(JOB_COMPLETION_INDEX)',  # Kubernetes fills it in
  ]


def manifest(args: argparse.Namespace) -> str:
  """The filled template: YAML, since JSON is."""
  filled = {key: json.dumps(value) for key, value in values(args).items()}
  return string.Template(without_comments(TEMPLATE.read_text())).substitute(filled)


def without_comments(text: str) -> str:
  """The template's lines but those that are comments."""
  return re.sub(r'^ *#.*\n', '', text, flags=re.MULTILINE)


def main(argv: list[str]) -> int:
  """Prints or applies; returns kubectl's exit status."""
  args = parse(argv)
  try:
    text = manifest(args)
  except ValueError as error:
    print(f'gke: {error}', file=sys.stderr)
    return 1
  if args.print:
    print(text, end='')
    return 0
  # Not `apply`: a JobSet cannot be changed, and a second of that name is a mistake.
  command = ['kubectl', 'create', '-f', '-']
  if args.namespace:
    command.append(f'--namespace={args.namespace}')
  return subprocess.run(command, input=text, text=True, check=False).returncode


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))

"""gke.py fills a JobSet that its schema allows, and that restarts what it should."""

import json
import os
import pathlib
import runpy
import subprocess
import sys

import jsonschema
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / 'launch' / 'gke.py'
SCHEMA = json.loads((pathlib.Path(__file__).parent / 'jobset_schema.json').read_text())
TPU = ('--tpu=v6e', '--topology=4x4')


@pytest.fixture(scope='module')
def gke():
  return runpy.run_path(str(SCRIPT))


@pytest.fixture
def fill(gke):
  """The manifest of some options and flags of the run."""

  def fill(*options, flags=('--gin_file=a.gin',)):
    argv = ['--name=rest', '--image=registry/rest_jax:1', *options, '--', *flags]
    return yaml.safe_load(gke['manifest'](gke['parse'](argv)))

  return fill


def pod(manifest):
  job = manifest['spec']['replicatedJobs'][0]['template']['spec']
  return job, job['template']['spec'], job['template']['spec']['containers'][0]


@pytest.mark.parametrize(
  'options',
  [
    TPU,
    ('--tpu=v5p', '--topology=2x2x4', '--spot', '--queue=users', '--memory=64Gi'),
    ('--tpu=v5e', '--topology=1x1'),
    ('--gpu=nvidia-h100-80gb', '--hosts=2', '--claim=data:/data', '--env=A=b=c'),
    ('--cpu=8', '--hosts=2', '--service_account=rest', '--max_restarts=3'),
  ],
)
def test_the_schema_allows_it(fill, options):
  jsonschema.validate(fill(*options), SCHEMA)


def test_the_schema_refuses_what_jobset_does_not_know(fill):
  manifest = fill(*TPU)
  manifest['spec']['failurePolicy']['maxRestart'] = 3
  with pytest.raises(jsonschema.ValidationError, match='maxRestart'):
    jsonschema.validate(manifest, SCHEMA)


@pytest.mark.parametrize(
  ('tpu', 'topology', 'hosts', 'chips'),
  [
    ('v5e', '1x1', 1, 1),
    ('v5e', '2x2', 1, 4),
    ('v6e', '4x4', 4, 4),
    ('v5p', '2x2x4', 4, 4),
    ('v4', '4x4x8', 32, 4),
  ],
)
def test_a_slice_has_the_hosts_of_its_topology(fill, tpu, topology, hosts, chips):
  job, spec, container = pod(fill(f'--tpu={tpu}', f'--topology={topology}'))
  assert job['parallelism'] == job['completions'] == hosts
  assert container['resources']['limits'] == {'google.com/tpu': chips}
  assert spec['nodeSelector']['cloud.google.com/gke-tpu-topology'] == topology
  assert ('--multihost' in container['args']) == (hosts > 1)


def test_eight_chips_may_be_one_host(fill):
  job, _, container = pod(fill('--tpu=v5e', '--topology=2x4', '--chips_per_host=8'))
  assert job['parallelism'] == 1 and container['args'] == ['--gin_file=a.gin']


def test_hosts_without_tpus_are_told_of_each_other(fill):
  job, _, container = pod(fill('--gpu=nvidia-l4', '--gpus_per_host=2', '--hosts=3'))
  assert job['completionMode'] == 'Indexed' and job['parallelism'] == 3
  assert container['args'][1:] == [
    '--coordinator_address=rest-hosts-0-0.rest:8476',
    '--process_count=3',
    '--process_index=$(JOB_COMPLETION_INDEX)',
  ]


def test_a_mistake_ends_it_and_all_else_starts_it_again(fill):
  manifest = fill(*TPU)
  job, spec, container = pod(manifest)
  (rule,) = job['podFailurePolicy']['rules']
  assert rule['action'] == 'FailJob'
  assert rule['onExitCodes']['values'] == [1]
  assert rule['onExitCodes']['containerName'] == container['name']
  (on_failure,) = manifest['spec']['failurePolicy']['rules']
  assert on_failure['action'] == 'FailJobSet'
  assert on_failure['onJobFailureReasons'] == ['PodFailurePolicy']
  assert job['backoffLimit'] == 0 and spec['restartPolicy'] == 'Never'


def test_flags_arrive_as_they_are(fill):
  flags = ("--gin.MODEL_DIR='gs://b/a: {x}'", '--gin.A="$(B) ${C} \\n"')
  _, _, container = pod(fill('--cpu=1', flags=flags))
  # Kubernetes makes one $ of two before a bracket.
  assert [a.replace('$$(', '$(') for a in container['args']] == list(flags)
  assert '$(B)' not in container['args'][1].replace('$$(', '')


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (['--cpu=1', *TPU], 'give one of'),
    (['--tpu=v6e'], '--topology=None must be such as'),
    (['--cpu=1', '--name=Rest'], '--name=Rest must be'),
    (['--cpu=1', '--claim=data'], '--claim=data is not of the form'),
    (['--tpu=v5e', '--topology=3x3'], 'has 9 chips, which hosts of 4'),
  ],
)
def test_mistakes_are_named(options, message):
  done = subprocess.run(
    [sys.executable, SCRIPT, '--name=rest', '--image=i', *options, '--', '--x'],
    capture_output=True,
    text=True,
  )
  assert done.returncode and message in done.stderr.replace('\n', ' ')


def test_kubectl_gets_what_print_shows(tmp_path):
  (tmp_path / 'kubectl').write_text(
    '#!/bin/sh\necho "$@"\ncat > "$(dirname "$0")/given"\nexit 3\n'
  )
  (tmp_path / 'kubectl').chmod(0o755)
  command = [sys.executable, SCRIPT, '--name=rest', '--image=i', '--cpu=1']
  environment = os.environ | {'PATH': f'{tmp_path}:{os.environ["PATH"]}'}
  done, shown = (
    subprocess.run(
      [*command, option, '--', '--gin_file=a.gin'],
      env=environment,
      capture_output=True,
      text=True,
    )
    for option in ('--namespace=users', '--print')
  )
  assert done.returncode == 3 and done.stdout == 'create -f - --namespace=users\n'
  assert shown.returncode == 0 and (tmp_path / 'given').read_text() == shown.stdout

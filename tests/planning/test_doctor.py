"""The doctor finds what was broken on purpose, and says what to do."""

import collections
import importlib.metadata
import json
import os
import shutil

import fsspec
import gin
import jax
import pytest
from etils.epath import backend, gpath

from rest_jax import main
from rest_jax.planning import checks, doctor, memory
from rest_jax.training import hosts
from tests import minimal_run, several_hosts
from tests.planning import test_memory

Usage = collections.namedtuple('Usage', 'total used free')


def start(tmp_path, *bindings):
  """The exit status of --run_mode=doctor, and nothing left in MODEL_DIR."""
  given = [*minimal_run.BINDINGS, f'MODEL_DIR = {str(tmp_path / "x")!r}', *bindings]
  main.parse_gin([minimal_run.GIN_FILE], given)
  status = main.run('doctor', dry_run=False)
  assert not (tmp_path / 'x').exists()
  return status


def test_a_healthy_machine(tmp_path, capsys):
  assert start(tmp_path) == 0
  printed = ' '.join(capsys.readouterr().out.split())
  assert ' 0 failed' in printed
  for name in ('devices', 'versions', 'disk', 'collective', 'clocks', 'host memory'):
    assert name in printed
  assert 'renamed' in printed


def test_a_mesh_that_does_not_fit_fails_and_the_rest_is_looked_at(tmp_path, capsys):
  assert start(tmp_path, 'mesh.MeshConfig.model = 3') == 1
  printed = ' '.join(capsys.readouterr().out.split())
  assert '1 failed' in printed and '│ mesh │ failed │ mesh data=-1' in printed
  assert 'improve_1_1 holds' in printed  # planned on all devices as they come
  assert 'sum of 1 MiB over 1 devices is right' in printed


def test_settings_that_a_run_would_stop_at_fail(tmp_path, capsys):
  assert start(tmp_path, 'THRESHOLDS = ((0.7, 0.6),)') == 1
  assert 'must rise' in ' '.join(capsys.readouterr().out.split())


def test_batches_that_the_mesh_does_not_divide_fail(tmp_path, monkeypatch):
  run = test_memory.planned(tmp_path)
  assert [check.status for check in checks.mesh(run)] == ['ok']
  monkeypatch.setattr(memory.mesh_lib, 'batch_shards', lambda mesh: 16)
  found = checks.mesh(run)
  assert {check.status for check in found} == {'failed'}
  assert 'bc' in found[0].found and '16 is' in found[0].found


def test_a_full_disk_fails_and_a_nearly_full_one_warns(tmp_path, monkeypatch):
  run = test_memory.planned(tmp_path)
  need, _ = doctor.checks.storage.disk_bytes(run, memory.by_stage(run))
  for free, status in ((need - 1, 'failed'), (need + 1, 'warning'), (2 * need, 'ok')):
    usage = Usage(0, 0, free)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path, usage=usage: usage)
    found = checks.disk(tmp_path / 'x', run, memory.by_stage(run))
    assert found.status == status and 'free at' in found.found
  assert checks.disk('gs://bucket/x', run, {}).status == 'ok'


def test_sets_of_unknown_size_warn(tmp_path):
  run = test_memory.planned(tmp_path, 'grow.grow.num_sources = None')
  found = checks.disk(tmp_path, run, memory.by_stage(run))
  assert found.status == 'warning' and 'grow_1, grow_2, of unknown size' in found.found


def test_too_little_memory_fails(tmp_path, monkeypatch):
  run = test_memory.planned(tmp_path)
  needs = memory.by_stage(run)
  assert checks.host_memory(run, needs).status == 'ok'
  monkeypatch.setattr(checks, 'available_memory', lambda: 1000)
  assert checks.host_memory(run, needs).status == 'failed'


@pytest.mark.parametrize(
  ('limit', 'status'), [(0.9, 'failed'), (1.1, 'warning'), (2, 'ok')]
)
def test_a_stage_that_does_not_fit_a_device_fails(monkeypatch, limit, status):
  class Device:
    def memory_stats(self):
      return {'bytes_limit': int(limit * 1000)}

  monkeypatch.setattr(jax, 'local_devices', lambda: [Device()])
  needs = {'small': memory.Memory(10), 'large': memory.Memory(400, others=600)}
  found = checks.device_memory(needs)
  assert found.status == status and 'large holds 1 kB' in found.found


def test_a_folder_that_cannot_be_written_fails(tmp_path):
  (tmp_path / 'file').write_text('')
  found = checks.writing(tmp_path / 'file' / 'run')
  assert found.status == 'failed' and 'cannot write in' in found.found


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_a_read_only_folder_fails(tmp_path):
  tmp_path.chmod(0o500)
  assert checks.writing(tmp_path / 'run').status == 'failed'


def test_a_read_only_file_system_fails(tmp_path, monkeypatch):
  def refuse(*args, **kwargs):
    raise OSError(30, 'Read-only file system')

  monkeypatch.setattr(checks.paths, 'write_bytes_atomic', refuse)
  found = checks.writing(tmp_path / 'run')
  assert found.status == 'failed' and 'Read-only file system' in found.found


@pytest.mark.parametrize('step', ['read', 'rename'])
def test_a_disk_that_does_not_keep_its_word_fails(tmp_path, monkeypatch, step):
  if step == 'read':
    monkeypatch.setattr(checks.uuid, 'uuid4', Word)
  else:
    monkeypatch.setattr(checks.paths, 'publish', lambda a, b, marker: a)
  found = checks.writing(tmp_path / 'run')
  assert found.status == 'failed' and f'cannot {step} in' in found.found
  assert list((tmp_path / 'run').iterdir()) == []


class Word:
  """A word that is another each time it is looked at."""

  hex = 'abcdefabcdefabcdef'

  @property
  def bytes(self):
    return Mutable(b'0')


class Mutable(bytes):
  def __eq__(self, other):
    return False

  def __ne__(self, other):
    return True

  __hash__ = bytes.__hash__


def test_an_object_store_is_written_too(monkeypatch):
  store = fsspec.filesystem('memory')
  store.store.clear()
  monkeypatch.setattr(gpath, '_is_tf_installed', lambda: False)
  monkeypatch.setattr(
    backend.fsspec_backend,
    '_get_filesystem',
    lambda name: store if name == 'gcs' else fsspec.filesystem(name),
  )
  assert checks.writing('gs://bucket/run').status == 'ok'
  assert not store.store


def test_versions_that_setup_py_does_not_ask_for_fail(monkeypatch):
  assert checks.versions().status == 'ok'
  real = importlib.metadata.version
  old = {'flax': '0.8.0', 'jaxlib': '0.4.1'}
  monkeypatch.setattr(
    importlib.metadata, 'version', lambda name: old.get(name) or real(name)
  )
  found = checks.versions()
  assert found.status == 'failed'
  assert 'flax 0.8.0 is installed' in found.found
  assert 'jaxlib 0.4.1 is installed' in found.found


def test_libtpu_must_be_the_one_of_this_jax(monkeypatch):
  real = importlib.metadata.version
  monkeypatch.setattr(
    importlib.metadata,
    'version',
    lambda name: '0.0.1' if name == 'libtpu' else real(name),
  )
  assert 'libtpu 0.0.1 is installed' in checks.versions().found


def test_an_accelerator_that_jax_overlooks_fails(monkeypatch):
  assert checks.devices().status == 'ok'
  monkeypatch.setattr(checks.glob, 'glob', lambda pattern: ['/dev/accel0'])
  found = checks.devices()
  assert found.status == 'failed' and 'rest_jax[tpu]' in found.remedy


def two_hosts(monkeypatch, *texts):
  """As if there were others, who say these texts."""
  monkeypatch.setattr(hosts, 'count', lambda: 1 + len(texts))
  monkeypatch.setattr(hosts, 'gather', lambda name, own: [own, *texts])


@pytest.mark.parametrize(
  ('skew_s', 'status'), [(0.5, 'ok'), (8.0, 'warning'), (-300.0, 'failed')]
)
def test_a_clock_that_goes_wrong_is_named(monkeypatch, skew_s, status):
  monkeypatch.setattr(doctor.time, 'time', lambda: 1000.0)
  two_hosts(monkeypatch, f'{1000.0 + skew_s!r} far', '1000.1 near')
  found = doctor.clocks()
  assert found.status == status
  if status != 'ok':
    side = 'ahead of' if skew_s > 0 else 'behind'
    assert 'host 1 (far)' in found.found and f'{side} the others' in found.found


def test_a_sum_that_comes_out_wrong_fails(monkeypatch):
  mesh = memory.mesh_lib.make_mesh(devices=jax.devices()[:1])
  assert doctor.collective(mesh).status == 'ok'
  monkeypatch.setattr(jax.lax, 'psum', lambda x, axes: x + 1)
  assert doctor.collective(mesh).status == 'failed'


def report(*found):
  return 'other ' + json.dumps([vars(checks.Check(*one)) for one in found])


def test_the_worst_of_all_hosts_counts_and_says_whose_it_is(monkeypatch):
  own = [
    checks.Check('devices', 'ok', 'a chip'),
    checks.Check('disk', 'ok', '5 GB'),
    checks.Check('mesh', 'failed', 'x', 'y'),
  ]
  two_hosts(
    monkeypatch,
    report(
      ('devices', 'ok', 'another chip'),
      ('disk', 'failed', '1 GB', 'room'),
      ('mesh', 'failed', 'x', 'y'),
    ),
  )
  found = {check.name: check for check in doctor.merge(own)}
  assert found['disk'] == checks.Check('disk', 'failed', 'host 1 (other): 1 GB', 'room')
  assert found['mesh'] == own[2]  # all have it alike
  assert found['alike'].status == 'failed' and 'another chip' in found['alike'].found


@pytest.mark.slow
def test_two_hosts_look_at_one_another(tmp_path):
  found = several_hosts.Hosts(
    tmp_path,
    tmp_path / 'run',
    2,
    '--run_mode=doctor',
    of={1: ['--gin.NUM_SAMPLES=4']},
  )
  # One of them was started with other settings.
  assert found.wait() == [1, 1], found.printed()
  printed = ' '.join(found.logs[0].read_text().split())
  assert '1 failed' in printed and 'alike' in printed and 'configuration' in printed
  assert 'all 2 hosts see' in printed and '2 hosts, at most' in printed
  assert 'sum of 1 MiB over 2 devices is right' in printed
  assert not (tmp_path / 'run').exists()
  gin.clear_config()

"""What can be said of TPUs without their compiler, and with it where it is."""

import importlib.util

import pytest

from rest_jax.planning import programs, tpu
from rest_jax.training import mesh as mesh_lib


@pytest.mark.parametrize('name', ['v5p', 'v7:2x2', 'v5e:4', 'v5e:2x2x2x2', 'v5e:axb'])
def test_an_unknown_topology_names_the_known(name):
  with pytest.raises(ValueError, match=r'v4, v5e, v5p, v6e.*v5p:8x8x16'):
    tpu.chip_of(name)


def test_chips_have_the_memory_that_they_are_sold_with():
  sold = {'v4:2x2x1': 32, 'v5e:2x2': 16, 'v5p:2x2x1': 95, 'v6e:2x2': 32}
  for name, gib in sold.items():
    assert tpu.chip_of(name).memory_bytes == gib * 2**30


def test_without_libtpu_it_says_how_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r"pip install 'rest_jax\[tpu\]'"):
    tpu.devices('v5e:2x2')


needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='libtpu is absent'
)


@needs_libtpu
@pytest.mark.parametrize('name, chips', [('v5e:4x4', 16), ('v5p:2x2x2', 8)])
def test_a_topology_has_its_chips(name, chips):
  assert len(tpu.devices(name)) == chips


@needs_libtpu
def test_a_topology_that_is_none_is_refused_with_the_rule():
  with pytest.raises(ValueError, match='multiples of those of one host'):
    tpu.devices('v5p:3x5x7')


@needs_libtpu
@pytest.mark.parametrize('name, whole', [('v5e:4x4', True), ('v5p:2x2x2', False)])
def test_the_host_of_a_v5e_slice_is_a_slice_of_its_own(name, whole):
  config = mesh_lib.MeshConfig(data=-1, model=2)
  mesh = mesh_lib.make_mesh(config, tpu.devices(name))
  host = programs.one_host(mesh)
  assert dict(host.shape) == {'data': 2, 'fsdp': 1, 'model': 2}
  assert host.is_multi_process is False
  slice_of_it = {device.client for device in mesh.devices.flat}
  assert ({device.client for device in host.devices.flat} != slice_of_it) is whole


def test_the_refusal_of_the_compiler_is_read():
  text = (
    'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory '
    'space hbm. Used 17.50G of 15.75G hbm. Exceeded hbm capacity by 1.75G.'
  )
  assert tpu.used_bytes(text) == 17.5 * 2**30
  assert tpu.used_bytes('RESOURCE_EXHAUSTED: of something else') is None

"""The client for CPUs whose programs stay on the core that calls them."""

import os

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.sampling import cpu_cores
from rest_jax.training import mesh as mesh_lib


def _mesh():
  return mesh_lib.make_mesh(mesh_lib.MeshConfig(data=1), jax.devices()[:1])


def _text(device):
  def function(x):
    return jnp.sin(x) * jnp.exp(x) + jnp.cos(x)

  x = jax.device_put(jnp.ones((4096, 512)), device)
  return jax.jit(function).lower(x).compile().as_text()


def test_operations_are_not_cut():
  (device,) = cpu_cores.uncut(_mesh()).devices.flat
  assert device != jax.devices()[0]
  cut = 'outer_dimension_partitions'
  assert cut not in _text(device)
  if cpu_cores.count() > 1:
    assert cut in _text(jax.devices()[0])


def test_a_call_returns_with_the_result():
  mesh = cpu_cores.uncut(_mesh())
  x = jax.device_put(np.ones((1000, 1000), np.float32), mesh_lib.replicated(mesh))
  product = jax.jit(lambda x: x @ x @ x)
  for _ in range(5):
    found = product(x)
    assert found.is_ready()
  assert found[0, 0] == 1e6


def test_the_mesh_is_another_device_in_the_same_place():
  mesh, before = _mesh(), dict(os.environ)
  uncut = cpu_cores.uncut(mesh)
  assert dict(os.environ) == before
  assert uncut == cpu_cores.uncut(mesh) != mesh  # so programs are compiled once
  assert uncut.axis_names == mesh.axis_names and uncut.shape == mesh.shape
  assert uncut.axis_types == mesh.axis_types
  assert not uncut.is_multi_process


def test_arrays_are_not_copied():
  there = jax.jit(lambda: jnp.arange(1 << 20))()
  mesh = cpu_cores.uncut(_mesh())
  here = cpu_cores.put(mesh, {'x': there})['x']
  assert here.sharding == mesh_lib.replicated(mesh)
  assert here.unsafe_buffer_pointer() == there.unsafe_buffer_pointer()
  # Nor does an update in place, as in training, reach what lies there.
  jax.jit(lambda x: x + 1, donate_argnums=0)(there)
  np.testing.assert_array_equal(here, np.arange(1 << 20))


def test_without_such_a_client_the_mesh_stays(monkeypatch):
  monkeypatch.delattr(cpu_cores.xla_client, 'make_cpu_client')
  cpu_cores._device.cache_clear()
  try:
    mesh = _mesh()
    assert cpu_cores.uncut(mesh) == mesh
  finally:
    cpu_cores._device.cache_clear()

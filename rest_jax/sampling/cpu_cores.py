"""A CPU whose cores each run a decoder loop of their own.

XLA's client for CPUs cuts each operation into a part for every core. A decoder step is
hundreds of operations of some 100 microseconds: cut in two, they take nearly as long on
two cores as on one. Two loops side by side share the cores better, but as long as their
operations are cut they need a fifth more time of the cores than uncut ones do
(benchmarks/README.md). So the loops run on a client of their own, each of whose
programs stays on the core of the thread that calls it.
"""

import functools
import os
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxlib import xla_client

from rest_jax.training import mesh as mesh_lib


def count() -> int:
  """How many cores this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def uncut(mesh: jax.sharding.Mesh) -> jax.sharding.Mesh:
  """The mesh of one CPU device whose operations are not cut.

  Args:
    mesh: of one CPU device, whose place it takes.

  Returns:
    The same mesh where jaxlib offers no such client: operations are cut there.
  """
  device = _device()
  if device is None:
    return mesh
  return jax.sharding.Mesh(
    np.array([device]).reshape(mesh.devices.shape),
    mesh.axis_names,
    axis_types=mesh.axis_types,
  )


def put(mesh: jax.sharding.Mesh, arrays: Any) -> Any:
  """Puts arrays of the default client on a mesh of `uncut`, in the memory they are in.

  Args:
    mesh: of one device.
    arrays: a tree of them.
  """
  sharding = mesh_lib.replicated(mesh)

  def one(array: jax.Array) -> jax.Array:
    # Put on the sharding at once, it would be copied.
    there = jax.device_put(array, mesh.devices.item())
    return jax.make_array_from_single_device_arrays(array.shape, sharding, [there])

  return jax.tree.map(one, arrays)


@functools.cache
def _device() -> jax.Device | None:
  """A device of a client with one thread; programs run in the thread that calls."""
  before = os.environ.get('NPROC')
  os.environ['NPROC'] = '1'  # XLA asks it for the threads of a client that it makes
  try:
    client: Any = xla_client.make_cpu_client(asynchronous=False, num_devices=1)
  except (AttributeError, TypeError) as error:
    logging.info('Loops share the threads of the default client: %s', error)
    return None
  finally:
    if before is None:
      del os.environ['NPROC']
    else:
      os.environ['NPROC'] = before
  device: jax.Device = client.local_devices()[0]
  return device

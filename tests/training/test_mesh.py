import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, PartitionSpec

from rest_jax.training import mesh as mesh_lib
from rest_jax.training.mesh import MeshConfig
from tests import devices, several_hosts

P = PartitionSpec


def fake_mesh(data: int, fsdp: int, model: int) -> jax.sharding.Mesh:
  """A mesh of more devices than there are; for its shape only."""
  devices = np.full((data, fsdp, model), jax.devices()[0])
  return jax.sharding.Mesh(devices, mesh_lib.AXES)


def boxed(shape: tuple[int, ...], *names: str | None) -> nn.LogicallyPartitioned:
  return nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, np.float32), names)


def spec(leaf: nn.LogicallyPartitioned, mesh: jax.sharding.Mesh, **kwargs):
  return mesh_lib.param_shardings(mesh, {'p': leaf}, **kwargs)['p'].spec


def test_mesh_has_three_auto_axes():
  mesh = mesh_lib.make_mesh()
  assert mesh.axis_names == ('data', 'fsdp', 'model')
  assert mesh.axis_types == (AxisType.Auto,) * 3
  assert mesh.devices.size == len(jax.devices())


@pytest.mark.parametrize(
  ('config', 'shape'),
  [
    (MeshConfig(), (8, 1, 1)),
    (MeshConfig(fsdp=4), (2, 4, 1)),
    (MeshConfig(data=2, fsdp=-1, model=2), (2, 2, 2)),
    (MeshConfig(data=1, fsdp=1, model=8), (1, 1, 8)),
  ],
)
def test_what_is_left_goes_to_the_axis_of_minus_one(config, shape):
  assert mesh_lib._resolve(config, 8) == shape


@pytest.mark.parametrize(
  ('config', 'words'),
  [
    (MeshConfig(model=3), 'data=-1 x fsdp=1 x model=3 .*there are 8.* 1, 2, 4, 8'),
    (MeshConfig(data=2, model=2), 'needs 4 devices and there are 8'),
    (MeshConfig(data=16), 'needs 16 devices'),
    (MeshConfig(data=-1, fsdp=-1), 'on one axis only'),
    (MeshConfig(data=0), 'at least 1'),
    (MeshConfig(model=-2), 'at least 1'),
  ],
)
def test_a_mesh_that_does_not_fit_is_refused(config, words):
  with pytest.raises(ValueError, match=words):
    mesh_lib._resolve(config, 8)


def test_rules_map_logical_axes():
  mesh = fake_mesh(2, 2, 2)
  assert spec(boxed((32, 16), 'vocab', 'embed'), mesh) == P('model', 'fsdp')
  assert spec(boxed((16, 32), 'embed', 'mlp'), mesh) == P('fsdp', 'model')
  assert spec(boxed((16,), 'embed'), mesh) == P('fsdp')
  assert spec(boxed((4, 32), 'heads', 'relpos_buckets'), mesh) == P('model')
  # An axis that no rule names is replicated.
  assert spec(boxed((4, 16), 'unheard', 'embed'), mesh) == P(None, 'fsdp')
  assert spec(boxed((4, 16), None, 'mlp'), mesh) == P(None, 'model')


def test_a_mesh_axis_serves_one_axis_and_the_earlier_rule_wins():
  mesh = fake_mesh(2, 2, 2)
  leaf = boxed((8, 8), 'embed', 'batch')
  # batch stands first in the rules though second in the array.
  assert spec(leaf, mesh) == P(None, ('data', 'fsdp'))
  assert spec(boxed((8, 8), 'mlp', 'vocab'), mesh) == P(None, 'model')


def test_a_second_rule_serves_where_the_first_does_not_fit():
  mesh = fake_mesh(2, 4, 2)
  rules = (('embed', 'fsdp'), ('embed', 'model'))
  assert spec(boxed((8,), 'embed'), mesh, rules=rules) == P('fsdp')
  assert spec(boxed((6,), 'embed'), mesh, rules=rules) == P('model')
  assert mesh_lib.replicated_axes(mesh, {'p': boxed((6,), 'embed')}, rules) == []


def test_a_dimension_that_does_not_divide_is_replicated_and_listed():
  mesh = fake_mesh(1, 2, 4)
  params = {
    'decoder': {'kernel': boxed((16, 6), 'embed', 'mlp')},
    'scale': boxed((16,), 'embed'),
  }
  shardings = mesh_lib.param_shardings(mesh, params)
  assert shardings['decoder']['kernel'].spec == P('fsdp')
  assert shardings['scale'].spec == P('fsdp')
  (lost,) = mesh_lib.replicated_axes(mesh, params)
  assert lost == ('decoder/kernel', 'mlp', 6, ('model',), 4)
  assert 'decoder/kernel' in str(lost) and 'size 6' in str(lost) and '4' in str(lost)


def test_unboxed_parameters_are_replicated():
  mesh = fake_mesh(2, 2, 2)
  shardings = mesh_lib.param_shardings(mesh, {'p': np.ones((4, 4))})
  assert shardings['p'].spec == P()


def test_a_rule_of_an_unknown_mesh_axis_is_refused():
  rules = (('embed', 'tensor'),)
  with pytest.raises(ValueError, match="no axis 'tensor', only data, fsdp, model"):
    mesh_lib.param_shardings(fake_mesh(1, 1, 1), {'p': boxed((4,), 'embed')}, rules)


def test_lists_as_gin_writes_them_are_rules_too():
  rules = [['batch', ['data', 'fsdp']], ['embed', 'model'], ['mlp', None]]
  mesh = fake_mesh(2, 2, 2)
  assert spec(boxed((8, 8), 'embed', 'mlp'), mesh, rules=rules) == P('model')
  assert spec(boxed((8,), 'batch'), mesh, rules=rules) == P(('data', 'fsdp'))


def test_each_host_has_its_rows_of_a_batch():
  mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
  assert mesh_lib.host_rows(mesh, 3).tolist() == [0, 1, 2]
  port = several_hosts.free_port()
  processes = [
    subprocess.Popen(
      [
        *(sys.executable, '-m', 'tests.training.rows_of_hosts'),
        *map(str, (port, 2, index)),
      ],
      env=os.environ | {'XLA_FLAGS': devices.xla_flags(2)},
      stdout=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  rows = [json.loads(process.communicate(timeout=300)[0]) for process in processes]
  assert sorted(rows) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_batch_that_does_not_divide_has_no_rows_of_a_host():
  with pytest.raises(ValueError, match='a batch has 3 rows, which the 4 parts'):
    mesh_lib.host_rows(fake_mesh(2, 2, 2), 3)


def test_put_batch_keeps_the_values():
  mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
  batch = {'x': np.arange(12.0).reshape(4, 3), 'anneal': np.float32(0.5)}
  placed = mesh_lib.put_batch(mesh, batch)
  np.testing.assert_array_equal(placed['x'], batch['x'])
  assert placed['x'].sharding == mesh_lib.batch_sharding(mesh)
  assert placed['anneal'] == 0.5

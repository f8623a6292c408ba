"""The mesh of devices, and which array goes where on it.

One mesh serves training, sampling and scoring. Its axes:

    data    groups are spread over it; parameters are copied
    fsdp    groups are spread over it, and so are parameters (their `embed` axis)
    model   the width of layers is spread over it (tensor parallelism)

Models name the axes of their arrays ('embed', 'mlp', ...); *rules* map those
logical axes to mesh axes. A mesh axis serves one axis of an array at most, and
the earlier rule wins: `batch` stands before `embed`, so an activation's rows,
not its width, are spread over fsdp. A logical axis may have several rules: the
first that fits is taken.

A parameter's dimension that its mesh axes do not divide is replicated, that
dimension only, with a warning; `replicated_axes` lists these for a dry run.

Axis types are Auto: the compiler propagates shardings from the constraints. JAX
0.10's default, Explicit, puts shardings into types, which Flax linen cannot use.
"""

import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXES = ('data', 'fsdp', 'model')
BATCH_AXES = ('data', 'fsdp')

# (logical axis, mesh axis, several mesh axes, or None), by falling priority.
Rules = Sequence[tuple[str, str | Sequence[str] | None]]

DEFAULT_RULES: Rules = (
  ('batch', BATCH_AXES),
  ('vocab', 'model'),
  ('heads', 'model'),
  ('joined_kv', 'model'),
  ('mlp', 'model'),
  ('embed', 'fsdp'),
  ('samples', None),
  ('length', None),
  ('source_length', None),
  ('kv', None),
  ('relpos_buckets', None),
  ('layers', None),
)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """How many devices each mesh axis has; -1 on one axis takes what is left."""

  data: int = -1
  fsdp: int = 1
  model: int = 1


class ReplicatedAxis(NamedTuple):
  """A dimension of a parameter that the rules spread and the mesh does not divide."""

  parameter: str  # such as 'decoder/logits_dense/kernel'
  axis: str  # the logical axis
  size: int  # of the dimension
  mesh_axes: tuple[str, ...]
  mesh_size: int  # devices along those axes

  def __str__(self) -> str:
    return (
      f'{self.parameter}: axis {self.axis!r} of size {self.size} is replicated, as '
      f'{self.mesh_size} devices of {"+".join(self.mesh_axes)} do not divide it'
    )


_DESCRIBED: contextvars.ContextVar[Sequence[Any] | None] = contextvars.ContextVar(
  'devices that are described, not there', default=None
)


@contextlib.contextmanager
def described_devices(devices: Sequence[Any]) -> Iterator[None]:
  """Inside, meshes are made of these devices, which need not be there.

  Programs can be compiled for such a mesh, and arrays cannot be put on it.
  """
  token = _DESCRIBED.set(tuple(devices))
  try:
    yield
  finally:
    _DESCRIBED.reset(token)


def available_devices() -> Sequence[Any]:
  """All devices of all hosts, or those that are described instead."""
  described = _DESCRIBED.get()
  return jax.devices() if described is None else described


def make_mesh(
  config: MeshConfig = MeshConfig(), devices: Sequence[Any] | None = None
) -> Mesh:
  """Arranges the devices of all hosts as a mesh of axes data, fsdp, model.

  Neighbours along `model` are the closest devices. Where devices come in slices
  that a slower network joins, the slices lie along `data`.

  Args:
    config: the counts.
    devices: which to use, in order; `available_devices` by default.

  Raises:
    ValueError: the counts do not multiply to the number of devices.
  """
  devices = list(available_devices() if devices is None else devices)
  shape = _resolve(config, len(devices))
  grid = _device_grid(shape, devices)
  return Mesh(grid, AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES))


def _resolve(config: MeshConfig, num_devices: int) -> tuple[int, ...]:
  """The three counts, -1 replaced."""
  counts = dataclasses.astuple(config)
  text = ' x '.join(f'{axis}={n}' for axis, n in zip(AXES, counts, strict=True))
  free = [axis for axis, n in zip(AXES, counts, strict=True) if n == -1]
  if len(free) > 1 or any(n < 1 and n != -1 for n in counts):
    raise ValueError(
      f'mesh {text}: every count must be at least 1, or -1 (what is left) on one '
      'axis only'
    )
  fixed = math.prod(n for n in counts if n != -1)
  if num_devices % fixed or (not free and fixed != num_devices):
    divisors = [n for n in range(1, num_devices + 1) if num_devices % n == 0]
    rule = (
      f'{free[0]}=-1 needs the others to multiply to a divisor of {num_devices}'
      if free
      else f'the counts must multiply to {num_devices}; -1 takes what is left'
    )
    raise ValueError(
      f'mesh {text} needs {"a multiple of " if free else ""}{fixed} devices and there '
      f'are {num_devices}: {rule}. Counts that work: '
      f'{", ".join(map(str, divisors))}'
    )
  return tuple(num_devices // fixed if n == -1 else n for n in counts)


def _device_grid(shape: tuple[int, ...], devices: Sequence[Any]) -> np.ndarray:
  """Devices as an array of `shape`, near ones side by side where that is known."""
  slices = {getattr(device, 'slice_index', 0) for device in devices}
  try:
    if len(slices) > 1 and shape[0] % len(slices) == 0:
      inside = (shape[0] // len(slices), *shape[1:])
      across = (len(slices), *(1 for _ in shape[1:]))
      return mesh_utils.create_hybrid_device_mesh(inside, across, devices=devices)
    return mesh_utils.create_device_mesh(shape, devices=devices)
  except (AssertionError, NotImplementedError, ValueError) as error:
    logging.warning('the mesh follows the order of the devices: %s', error)
    return np.asarray(devices).reshape(shape)


def _rule_axes(mesh: Mesh, rules: Rules) -> list[tuple[str, tuple[str, ...]]]:
  """The rules with mesh axes as tuples, () for None.

  Raises:
    ValueError: a rule names an axis that the mesh lacks.
  """
  pairs = []
  for logical, axes in rules:
    names = (axes,) if isinstance(axes, str) else tuple(axes or ())
    for name in names:
      if name not in mesh.axis_names:
        raise ValueError(
          f'rule ({logical!r}, {axes!r}): the mesh has no axis {name!r}, only '
          f'{", ".join(mesh.axis_names)}'
        )
    pairs.append((logical, names))
  return pairs


def _is_box(leaf: Any) -> bool:
  return isinstance(leaf, nn.Partitioned)  # nn.LogicallyPartitioned is one


def _spec(
  mesh: Mesh, boxed: Any, rules: Rules, name: str
) -> tuple[PartitionSpec, list[ReplicatedAxis]]:
  """One parameter's partition, and its dimensions that stay whole for their size."""
  names = tuple(getattr(boxed, 'names', None) or ())
  shape = boxed.value.shape if _is_box(boxed) else boxed.shape
  chosen: list[tuple[str, ...] | None] = [None] * len(shape)
  refused: dict[int, ReplicatedAxis] = {}
  used: set[str] = set()
  for logical, axes in _rule_axes(mesh, rules):
    if logical not in names:
      continue
    place = names.index(logical)
    if chosen[place] is not None or used & set(axes):
      continue
    size = math.prod(mesh.shape[axis] for axis in axes)
    if shape[place] % size:
      refused[place] = ReplicatedAxis(name, logical, shape[place], axes, size)
      continue
    chosen[place] = axes
    used |= set(axes)
  entries = [axes[0] if axes and len(axes) == 1 else axes or None for axes in chosen]
  while entries and entries[-1] is None:
    entries.pop()  # P('model', None) and P('model') would be two jit cache entries
  lost = [axis for place, axis in refused.items() if not chosen[place]]
  return PartitionSpec(*entries), lost


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
  pairs = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_box)
  return [
    (jax.tree_util.keystr(path, simple=True, separator='/'), leaf)
    for path, leaf in pairs
  ]


@functools.cache
def _warn_once(text: str) -> None:
  logging.warning('%s', text)


def param_shardings(mesh: Mesh, boxed: Any, rules: Rules = DEFAULT_RULES) -> Any:
  """The sharding of every parameter.

  Args:
    mesh: of `make_mesh`.
    boxed: parameters, or their shapes, boxed with their logical axes
      (`nn.with_logical_partitioning`); an unboxed leaf is replicated.
    rules: logical to mesh axes.

  Returns:
    A tree of NamedSharding, of the structure of the unboxed parameters.
  """
  for lost in replicated_axes(mesh, boxed, rules):
    _warn_once(str(lost))
  return jax.tree.map(
    lambda leaf: NamedSharding(mesh, _spec(mesh, leaf, rules, '')[0]),
    boxed,
    is_leaf=_is_box,
  )


def replicated_axes(
  mesh: Mesh, boxed: Any, rules: Rules = DEFAULT_RULES
) -> list[ReplicatedAxis]:
  """The dimensions that the rules would spread and whose size does not allow it."""
  found: list[ReplicatedAxis] = []
  for name, leaf in _named_leaves(boxed):
    found += _spec(mesh, leaf, rules, name)[1]
  return found


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The sharding of arrays whose leading axis is batch: over data and fsdp."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_shards(mesh: Mesh) -> int:
  """Into how many parts a batch is cut; a batch size must be a multiple of it."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def host_rows(mesh: Mesh, batch: int) -> np.ndarray:
  """[rows] int, which rows of a batch lie on this host's devices, rising.

  Raises:
    ValueError: the mesh does not divide the batch.
  """
  _check_divides(mesh, batch, 'a batch')
  indices = batch_sharding(mesh).addressable_devices_indices_map((batch,)).values()
  slices = [index[0] for index in indices if index is not None]
  mine = {row for rows in slices for row in range(*rows.indices(batch))}
  return np.array(sorted(mine))


def _check_divides(mesh: Mesh, rows: int, name: str) -> None:
  shards = batch_shards(mesh)
  if rows % shards:
    raise ValueError(
      f'{name} has {rows} rows, which the {shards} parts of a batch (mesh '
      f'data={mesh.shape["data"]} x fsdp={mesh.shape["fsdp"]}) do not divide: the '
      f'batch size must be a multiple of {shards}'
    )


def put_batch(mesh: Mesh, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
  """Puts a batch on the mesh, its leading axis spread over data and fsdp.

  With several hosts each passes a batch of the full size, and its devices take
  their rows: those of `host_rows`. A scalar goes to every device whole.

  Raises:
    ValueError: the mesh does not divide a batch; names the array.
  """
  for name, array in batch.items():
    if np.ndim(array):
      _check_divides(mesh, np.shape(array)[0], repr(name))
  shardings = {
    name: batch_sharding(mesh) if np.ndim(array) else replicated(mesh)
    for name, array in batch.items()
  }
  if not mesh.is_multi_process:
    return jax.device_put(dict(batch), shardings)
  host = {name: np.asarray(array) for name, array in batch.items()}
  return {
    name: jax.make_array_from_callback(array.shape, shardings[name], array.__getitem__)
    for name, array in host.items()
  }


def fetch(tree: Any) -> Any:
  """The arrays of a tree on the host, whole, on every host.

  As `jax.device_get`, also of arrays that lie partly on other hosts' devices; these
  travel, and all hosts must ask for them.
  """
  leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
  partial = [x for x in leaves if not (x.is_fully_addressable or x.is_fully_replicated)]
  if partial:
    sharding = partial[0].sharding
    assert isinstance(sharding, NamedSharding), sharding
    tree = _replicate(sharding.mesh)(tree)
  return jax.device_get(tree)


@functools.cache
def _replicate(mesh: Any) -> Any:
  return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def local_mesh(mesh: Mesh) -> Mesh:
  """The mesh of this host's devices alone, its axes as wide as they can be.

  What hosts do apart from one another (Grow, scoring) runs on it. `model` is as wide
  as in `mesh`, `fsdp` as wide as fits, and `data` takes the rest. With one host it is
  `mesh` itself.

  Raises:
    ValueError: the model axis is wider than a host, or does not divide its devices.
  """
  if not mesh.is_multi_process:
    return mesh
  mine = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
  model = mesh.shape['model']
  if len(mine) % model:
    raise ValueError(
      f'mesh model={model} does not fit into a host, which has {len(mine)} devices: '
      'hosts sample and score apart, each with a whole copy of the policy on its own '
      'devices. Make model a divisor of that and spread the parameters over fsdp'
    )
  fsdp = math.gcd(mesh.shape['fsdp'], len(mine) // model)
  return make_mesh(MeshConfig(data=-1, fsdp=fsdp, model=model), mine)


@contextlib.contextmanager
def sharding_context(mesh: Mesh, rules: Rules = DEFAULT_RULES) -> Iterator[None]:
  """Inside, models' `with_logical_constraint` follows the mesh and the rules.

  Enter it inside the function that is traced, not around the call of `jit` (where
  `jax.set_mesh` belongs, which would change the key of jit's cache).
  """
  pairs = [(name, axes or None) for name, axes in _rule_axes(mesh, rules)]
  with (
    jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
    nn.logical_axis_rules(pairs),
  ):
    yield

"""Shapes and shardings of what stages hold on devices; no array is made."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn
from flax import traverse_util

from rest_jax.models import caches, quantisation, t5
from rest_jax.sampling import decoder
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import policies
from rest_jax.training import mesh as mesh_lib
from rest_jax.training import online_objectives
from rest_jax.training import step as step_lib


def placed(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
  """The shape of an array that lies so."""
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


@functools.lru_cache
def params(
  module: Any, config: t5.T5Config, mesh: jax.sharding.Mesh, rules: mesh_lib.Rules
) -> Any:
  """A module's parameters on a mesh."""
  boxed = policies.abstract_params(module, config)
  shardings = mesh_lib.param_shardings(mesh, boxed, rules)
  return jax.tree.map(placed, nn.meta.unbox(boxed), shardings)


def quantised(
  given: Any, settings: quantisation.Int8 | quantisation.Bfloat16 | None
) -> Any:
  """The parameters as Grow and score use them; scales lie along their kernels.

  Raises:
    ValueError: 8-bit kernels are asked for, and Qwix is not installed.
  """
  if settings is None:
    return given
  made = jax.eval_shape(lambda tree: quantisation.quantise(tree, settings), given)
  found = traverse_util.flatten_dict(made)
  for path, kernel in traverse_util.flatten_dict(given).items():
    found[path] = jax.tree.map(functools.partial(_beside, kernel), found[path])
  return traverse_util.unflatten_dict(found)


def _beside(kernel: Any, leaf: Any) -> jax.ShapeDtypeStruct:
  """The shape of what has a kernel's axes, of 1 where it is the same all along."""
  names = tuple(kernel.sharding.spec) + (None,) * len(kernel.shape)
  pairs = zip(names, leaf.shape, strict=False)
  spec = [name if size > 1 else None for name, size in pairs]
  mesh = kernel.sharding.mesh
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
  return placed(leaf, sharding)


def started(objective: Any, policy: Any, config: t5.T5Config) -> Any:
  """What an objective trains when it starts from a policy's parameters.

  A critic's parameters lie as the policy's of the same name, all else on every device.
  """
  start = getattr(objective, 'start', None)
  if start is None:
    return policy
  if isinstance(objective, online_objectives.OnlineObjective):
    start = functools.partial(start, config=config)
  found = jax.eval_shape(start, policy)
  known = traverse_util.flatten_dict(policy)
  whole = mesh_lib.replicated(jax.tree.leaves(policy)[0].sharding.mesh)
  return traverse_util.unflatten_dict(
    {
      path: placed(
        leaf, getattr(known.get(path, known.get(path[1:])), 'sharding', whole)
      )
      for path, leaf in traverse_util.flatten_dict(found).items()
    }
  )


@functools.lru_cache
def state(
  module: Any,
  config: t5.T5Config,
  objective: Any,
  optimiser: Any,
  mesh: jax.sharding.Mesh,
  rules: mesh_lib.Rules,
) -> step_lib.TrainState:
  """The state of a training."""
  given = started(objective, params(module, config, mesh, rules), config)
  return step_lib.abstract_state_from_params(given, optimiser(), mesh)


def device_bytes(tree: Any) -> int:
  """Bytes of a tree of arrays, or of shapes with shardings, on one device."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def whole_bytes(tree: Any) -> int:
  """Bytes of a tree of arrays, or of shapes, all devices together."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def lanes(
  config: t5.T5Config,
  mesh: jax.sharding.Mesh,
  *,
  settings: sampler_lib.SamplerSettings,
  share: int,
  source_length: int,
  length: int,
  limit: int | None = None,
) -> decoder.Lanes:
  """`decoder.empty_lanes`; at their full length unless `limit` is greater."""
  found = jax.eval_shape(
    functools.partial(
      decoder.empty_lanes,
      config,
      mesh,
      batch=settings.batch_size,
      slots=settings.slots,
      share=share,
      source_length=source_length,
      length=length,
      limit=limit or length,
    )
  )
  spread: decoder.Lanes = jax.tree.map(
    placed, found, decoder.lanes_shardings(found, mesh)
  )
  return spread


def cross(found: Any, mesh: jax.sharding.Mesh) -> Any:
  """Keys and values of the sources, on a mesh."""
  return jax.tree.map(lambda x: placed(x, decoder.cross_sharding(mesh, x)), found)


def cache(found: Any, mesh: jax.sharding.Mesh) -> Any:
  """Keys and values of the candidates, on a mesh."""
  return jax.tree.map(functools.partial(_past, mesh), found, caches.cache_axes(found))


def _past(mesh: jax.sharding.Mesh, x: Any, names: Sequence[Any]) -> Any:
  return placed(x, decoder.past_sharding(mesh, x, names))

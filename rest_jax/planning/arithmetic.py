"""The arithmetic of a training step: its matrix products, counted in the trace."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rest_jax.data import batches
from rest_jax.models import heads, t5
from rest_jax.planning import shapes
from rest_jax.training import mesh as mesh_lib
from rest_jax.training import objectives, online_objectives
from rest_jax.training import step as step_lib

# The modules of the frozen models that a loss may read.
FROZEN = {objectives.REFERENCE: t5.T5, objectives.VALUE: heads.ScalarHeadT5}


def matrix_flops(jaxpr: Any) -> int:
  """Floating-point operations of the matrix products of a traced function.

  2 x (elements of the result) x (length of the contraction), loops of known length as
  often as they run, the larger branch of a choice.
  """
  total = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      left = equation.invars[0].aval.shape
      length = math.prod(left[axis] for axis in contracted)
      total += 2 * math.prod(equation.outvars[0].aval.shape) * length
      continue
    inner = [matrix_flops(sub) for sub in _subjaxprs(equation.params)]
    if equation.primitive.name == 'cond':
      total += max(inner, default=0)
    else:
      total += equation.params.get('length', 1) * sum(inner)
  return total


def _subjaxprs(params: Mapping[str, Any]) -> list[Any]:
  """The functions inside an equation, such as the body of a scan."""
  found = []
  for value in params.values():
    for one in value if isinstance(value, tuple | list) else (value,):
      inner = getattr(one, 'jaxpr', one)  # a closed one holds it
      if hasattr(inner, 'eqns'):
        found.append(inner)
  return found


def rollout_features(shape: tuple[int, int, int, int]) -> dict[str, Any]:
  """Shapes of the features of drawn candidates, with their rewards.

  Args:
    shape: batch, samples, source_length, target_length.
  """
  batch, samples, source_length, target_length = shape
  row = batches.empty_batch(
    batch=1,
    samples=samples,
    source_length=source_length,
    target_length=target_length,
    rewards=True,
    log_probs=True,
  )
  return {
    name: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
    for name, x in row.items()
  }


def learnt_features(
  objective: online_objectives.OnlineObjective,
  shape: tuple[int, int, int, int],
  params: Any,
  reference: Any,
  config: t5.T5Config,
) -> dict[str, Any]:
  """Shapes of all features that an update of an online learner has.

  Args:
    objective: of `training.online_objectives`.
    shape: batch, samples, source_length, target_length.
    params, reference: what is trained and the reference policy's parameters, shapes.
    config: the policy's.
  """

  def found(params: Any, reference: Any, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    known = {**batch, objectives.REFERENCE: reference}
    return {**batch, **objective.annotate(params, known, config)}

  annotated = jax.eval_shape(found, params, reference, rollout_features(shape))
  return {**annotated, **jax.eval_shape(objective.advantages, annotated)}


@functools.lru_cache
def step_flops(
  module: Any,
  config: t5.T5Config,
  objective: Any,
  optimiser: Any,
  shape: tuple[int, int, int, int],
  num_microbatches: int = 1,
) -> int:
  """`matrix_flops` of a training step, all devices together.

  Args:
    module, config: what is trained.
    objective, optimiser: of `training`.
    shape: batch, samples, source_length and target_length of a batch.
    num_microbatches: parts of it.
  """
  # A scanned layer is traced once and counted as often as it runs: soon done.
  config = dataclasses.replace(config, scan_layers=True)
  online = isinstance(objective, online_objectives.OnlineObjective)
  if online:
    config = dataclasses.replace(config, dropout_rate=0.0)
  mesh, rules = mesh_lib.make_mesh(devices=jax.devices()[:1]), mesh_lib.DEFAULT_RULES
  state = shapes.state(module, config, objective, optimiser, mesh, rules)
  if online:
    reference = shapes.params(module, config, mesh, rules)
    features = learnt_features(objective, shape, state.params, reference, config)
  else:
    features = _stored_features(objective, shape)
  needs = getattr(objective, 'needs', ())
  frozen = {need: shapes.params(FROZEN[need], config, mesh, rules) for need in needs}
  loss_fn = (
    objective.loss_fn(config, dict.fromkeys(needs, config))
    if needs
    else objective.loss_fn(config)
  )
  step = step_lib.make_train_step(
    loss_fn, optimiser(), mesh=mesh, num_microbatches=num_microbatches
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  return matrix_flops(step.trace(state, features, key, frozen).jaxpr)


def _stored_features(
  objective: Any, shape: tuple[int, int, int, int]
) -> dict[str, Any]:
  """Shapes of what a loss may read of a row, what the objective adds included."""
  batch, samples, source_length, target_length = shape
  # One row is made, since objectives add features of their own on the host.
  row = batches.empty_batch(
    batch=1,
    samples=samples,
    source_length=source_length,
    target_length=target_length,
    rewards=True,
  )
  row['ratings'] = row['rewards']
  row['preferences'] = np.zeros((1, samples, samples), np.float32)
  if hasattr(objective, 'features'):
    row = objective.features(row, done=0.0)
  return {
    name: jax.ShapeDtypeStruct((batch, *x.shape[1:]) if x.ndim else (), x.dtype)
    for name, x in {name: np.asarray(x) for name, x in row.items()}.items()
  }

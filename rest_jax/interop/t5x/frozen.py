"""Frozen models under T5X: constants of its train step.

T5X's step has one model's parameters and a batch; what else a loss reads has to be a
constant of the compiled program. Every device then holds the whole of it, and the
program is as large as it: meant for models of up to some hundred million parameters.
With our own trainer frozen models are arguments, sharded like the policy.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rest_jax import paths
from rest_jax.interop.t5x import shapes
from rest_jax.models import heads, t5
from rest_jax.training import checkpoints, objectives

MODULES: dict[str, type[nn.Module]] = {
  objectives.REFERENCE: t5.T5,
  objectives.VALUE: heads.ScalarHeadT5,
}


def load(
  needs: Sequence[str], directories: Mapping[str, paths.PathLike]
) -> tuple[dict[str, t5.T5Config], dict[str, Any]]:
  """Reads the models that an objective needs.

  Args:
    needs: their names, those of `objectives`.
    directories: for each the artifact of a run, such as {'reference_policy':
      'runs/local/bc'}.

  Returns:
    Their shapes, and their parameters as NumPy arrays.

  Raises:
    ValueError: one is not given, one is given that is not needed, or its checkpoint
      does not fit its shape.
  """
  missing = [need for need in needs if need not in directories]
  if missing or set(directories) - set(needs):
    raise ValueError(
      f'PolicyModel.frozen = {dict(directories)!r} must name the artifacts of '
      f'{", ".join(needs) or "no model"}, which the objective needs'
    )
  configs = {need: shapes.config_of(directories[need]) for need in needs}
  params = {need: _params(need, configs[need], directories[need]) for need in needs}
  return configs, params


def _params(need: str, config: t5.T5Config, directory: paths.PathLike) -> Any:
  tokens = jnp.ones((1, 1), jnp.int32)
  boxed = jax.eval_shape(
    lambda rng: MODULES[need](config).init(rng, tokens, tokens[:, None])['params'],
    jax.random.key(0),
  )
  checkpoint = checkpoints.latest_checkpoint(paths.as_path(directory))
  return checkpoints.load_params(checkpoint, abstract=nn.meta.unbox(boxed))

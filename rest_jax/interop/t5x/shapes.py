"""Shapes of policies that runs of ours have left."""

import json

from rest_jax import paths
from rest_jax.models import t5


def config_of(directory: paths.PathLike) -> t5.T5Config:
  """The shape of a trained policy, from the `model.json` of its artifact.

  Raises:
    ValueError: there is no such file.
  """
  file = paths.as_path(directory) / 'model.json'
  if not file.exists():
    raise ValueError(
      f'{file} does not exist: give the artifact of a policy, such as MODEL_DIR/bc'
    )
  return t5.T5Config.from_dict(json.loads(file.read_text()))

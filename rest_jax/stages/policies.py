"""What a trained model's artifact holds: shape, parameters, vocabulary.

model.json             T5Config
vocabulary.model       a copy, so that the artifact stands alone
checkpoint_<step>/     parameters, in T5X's Orbax layout
"""

import functools
import json
from collections.abc import Hashable
from typing import Any, NamedTuple, cast

import jax
from etils import epath
from flax import linen as nn

from rest_jax import paths
from rest_jax.data import vocabularies
from rest_jax.models import t5
from rest_jax.stages import artifact
from rest_jax.training import checkpoints, hosts
from rest_jax.training import mesh as mesh_lib

MODEL_FILE = 'model.json'
VOCABULARY_FILE = 'vocabulary.model'


class Model(NamedTuple):
  """A trained model, on the mesh."""

  config: t5.T5Config
  params: Any
  vocabulary: vocabularies.Vocabulary
  step: int  # of the checkpoint


def save_model(
  directory: epath.Path,
  *,
  config: t5.T5Config,
  params: Any,
  vocabulary: epath.Path,
  step: int,
) -> None:
  """Writes a trained model into an artifact; with several hosts all call it."""
  if hosts.is_primary():
    text = json.dumps(config.to_dict(), indent=1)
    paths.write_text_atomic(directory / MODEL_FILE, text)
    paths.write_bytes_atomic(directory / VOCABULARY_FILE, vocabulary.read_bytes())
  checkpoints.save_params(directory, params, step=step)


def load_model(
  directory: epath.Path, module: type[nn.Module], run: artifact.Run
) -> Model:
  """Reads a trained model, its parameters straight into their shards.

  Args:
    directory: of the artifact.
    module: the Flax module that the parameters belong to, t5.T5 or a head.
    run: on whose mesh the parameters go.

  Raises:
    ValueError: a file is missing or a parameter is not of the module's shape.
  """
  config = load_config(directory)
  abstract = abstract_params(cast(Hashable, module), config)
  shardings = mesh_lib.param_shardings(run.mesh, abstract, run.rules)
  latest = checkpoints.latest_checkpoint(directory)
  params = checkpoints.load_params(
    latest, abstract=nn.meta.unbox(abstract), shardings=shardings
  )
  vocabulary = vocabularies.Vocabulary.load(directory / VOCABULARY_FILE)
  return Model(config, params, vocabulary, checkpoints.step_of(latest))


def load_config(directory: epath.Path) -> t5.T5Config:
  """Reads the shape of a trained model."""
  return t5.T5Config.from_dict(json.loads((directory / MODEL_FILE).read_text()))


def init_fn(module: type[nn.Module], config: t5.T5Config) -> Any:
  """Returns `init(rng) -> boxed params` for a module of this shape."""
  tokens = jax.numpy.ones((1, 1), jax.numpy.int32)

  def init(rng: jax.Array) -> Any:
    return module(config).init(rng, tokens, tokens[:, None, :])['params']

  return init


@functools.lru_cache
def abstract_params(module: Any, config: t5.T5Config) -> Any:
  """Returns the boxed shapes of a module's parameters; builds no array."""
  return jax.eval_shape(init_fn(module, config), jax.random.key(0))

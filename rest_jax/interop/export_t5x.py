"""A model as T5X has them: an Orbax checkpoint, and the gin file of its shape.

    checkpoint_<step>/state/    target, in T5X's minimal or scalable layout
    model.gin                   for T5X: MODEL, VOCABULARY, INITIAL_CHECKPOINT_PATH
    vocabulary.model            a SentencePiece model; of bytes there is none

A reward model's head lies beside the T5 (`target/head`, `target/likelihood`), where
T5X's example models have no place for it; `rest_jax` reads it again.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from rest_jax import paths
from rest_jax.data import vocabularies
from rest_jax.interop import checkpoint_layouts
from rest_jax.models import t5
from rest_jax.training import checkpoints

GIN_FILE = 'model.gin'
VOCABULARY_FILE = 'vocabulary.model'
_NETWORKS = {
  checkpoint_layouts.MINIMAL: 't5x.examples.t5',
  checkpoint_layouts.SCALABLE: 't5x.examples.scalable_t5',
}
# What T5X's example networks have fixed.
_FIXED = {
  'relative_attention_num_buckets': 32,
  'relative_attention_max_distance': 128,
}


def write(
  directory: paths.PathLike,
  params: Mapping[str, Any],
  config: t5.T5Config,
  vocabulary: vocabularies.Vocabulary,
  *,
  step: int,
  layout: str | None = None,
  location: paths.PathLike | None = None,
) -> None:
  """Writes a model.

  Args:
    directory: to write into; made if absent.
    params: NumPy arrays, of T5 or with a head beside it.
    config: their shape.
    vocabulary: whose ids they have. Rows are written in its own order.
    step: of the checkpoint's name.
    layout: 'minimal' or 'scalable'; None is scalable for a bias per layer, else
      minimal.
    location: where the directory will lie when the gin file is read.

  Raises:
    ValueError: a shape that T5X's example models do not compute in that layout.
  """
  folder = paths.as_path(directory)
  if layout is None:
    own = config.relative_bias_per_layer
    layout = checkpoint_layouts.SCALABLE if own else checkpoint_layouts.MINIMAL
  for name, value in _FIXED.items():
    if getattr(config, name) != value:
      raise ValueError(
        f"{name} is {getattr(config, name)}; T5X's models have it fixed at {value}. "
        "Export with formats = ('huggingface',)"
      )
  tree = checkpoint_layouts.in_t5x_layout(params, config, layout)
  rows = vocabulary.checkpoint_rows(config.vocab_size)
  if rows is not None:
    tree = _in_vocabulary_order(tree, np.argsort(rows))
  checkpoint = checkpoints.save_params(folder, tree, step=step)
  if not isinstance(vocabulary, vocabularies.ByteVocabulary):
    vocabulary.save(folder / VOCABULARY_FILE)
  where = paths.as_path(folder if location is None else location)
  text = gin_text(config, vocabulary, layout, where / checkpoint.name)
  paths.write_text_atomic(folder / GIN_FILE, text)


def _in_vocabulary_order(tree: Mapping[str, Any], rows: np.ndarray) -> dict[str, Any]:
  flat = traverse_util.flatten_dict(tree, sep='/')
  embedding, kernel = 'token_embedder/embedding', 'decoder/logits_dense/kernel'
  flat[embedding] = flat[embedding][rows]
  if kernel in flat:
    flat[kernel] = flat[kernel][:, rows]
  return traverse_util.unflatten_dict(flat, sep='/')


def gin_text(
  config: t5.T5Config,
  vocabulary: vocabularies.Vocabulary,
  layout: str,
  checkpoint: paths.PathLike,
) -> str:
  """The gin file with which T5X has the model."""
  place = paths.as_path(checkpoint)
  if isinstance(vocabulary, vocabularies.ByteVocabulary):
    made = 'seqio.ByteVocabulary'
    bound = f'{made}.extra_ids = 0'
  else:
    made = 'seqio.SentencePieceVocabulary'
    file = str(place.parent / VOCABULARY_FILE)
    bound = f'{made}.sentencepiece_model_file = {file!r}'
  return f"""# A model of rest_jax for T5X, to be named before a run file of T5X's:
#   --gin_file={place.parent / GIN_FILE}
# It has no optimiser's state. To train on from it, T5X begins with a fresh one:
#   utils.RestoreCheckpointConfig.fallback_to_scratch = True
#   utils.RestoreCheckpointConfig.assignment_map = (('state/param_states.*', None),)
from __gin__ import dynamic_registration

import seqio
from t5x import adafactor
from t5x import models
from {_NETWORKS[layout]} import network

INITIAL_CHECKPOINT_PATH = {str(place)!r}
DROPOUT_RATE = {config.dropout_rate}
Z_LOSS = 0.0001
LABEL_SMOOTHING = 0.0
LOSS_NORMALIZING_FACTOR = None

VOCABULARY = @{made}()
{bound}

OPTIMIZER = @adafactor.Adafactor()
adafactor.Adafactor:
  decay_rate = 0.8
  step_offset = 0
  logical_factor_rules = @adafactor.standard_logical_factor_rules()

MODEL = @models.EncoderDecoderModel()
models.EncoderDecoderModel:
  module = @network.Transformer()
  input_vocabulary = %VOCABULARY
  output_vocabulary = %VOCABULARY
  optimizer_def = %OPTIMIZER
  z_loss = %Z_LOSS
  label_smoothing = %LABEL_SMOOTHING
  loss_normalizing_factor = %LOSS_NORMALIZING_FACTOR

network.Transformer.config = @network.T5Config()
network.T5Config:
  vocab_size = {config.vocab_size}
  dtype = {config.dtype!r}
  emb_dim = {config.emb_dim}
  num_heads = {config.num_heads}
  num_encoder_layers = {config.num_encoder_layers}
  num_decoder_layers = {config.num_decoder_layers}
  head_dim = {config.head_dim}
  mlp_dim = {config.mlp_dim}
  mlp_activations = {config.mlp_activations!r}
  dropout_rate = %DROPOUT_RATE
  logits_via_embedding = {config.logits_via_embedding}
"""

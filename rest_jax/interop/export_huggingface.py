"""A model as a Hugging Face directory: `AutoModelForSeq2SeqLM` and `AutoTokenizer`.

    config.json, generation_config.json
    model.safetensors                    T5, or umT5 for a bias per layer
    tokenizer.json, spiece.model, ...    see `export_tokenizer`
    reward_head.safetensors, reward.json  of a reward model, see `write_head`

CTranslate2 converts the directory as it is.
"""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from rest_jax import paths
from rest_jax.data import vocabularies
from rest_jax.interop import checkpoint_tensors, export_tokenizer, huggingface
from rest_jax.models import t5

DTYPES = {'float32': np.dtype(np.float32), 'bfloat16': np.dtype(ml_dtypes.bfloat16)}
HEAD_FILE = 'reward_head.safetensors'
REWARD_FILE = 'reward.json'


def write(
  directory: paths.PathLike,
  params: Mapping[str, Any],
  config: t5.T5Config,
  vocabulary: vocabularies.Vocabulary,
  *,
  dtype: str = 'float32',
  task_feature_lengths: Mapping[str, int],
) -> None:
  """Writes a policy, or the encoder-decoder of a reward model.

  Args:
    directory: to write into; made if absent.
    params: of T5, NumPy arrays.
    config: their shape.
    vocabulary: whose ids they have. Rows are written in its own order.
    dtype: of the weights: 'float32' keeps every bit.
    task_feature_lengths: the most tokens of a source, and of what is generated.

  Raises:
    ValueError: an unknown dtype, or a shape or vocabulary that Transformers lacks.
  """
  if dtype not in DTYPES:
    raise ValueError(f'dtype {dtype!r} is unknown; known types: {", ".join(DTYPES)}')
  folder = paths.as_path(directory)
  rows = vocabulary.checkpoint_rows(config.vocab_size)
  eos = vocabularies.EOS_ID if rows is None else int(rows[vocabularies.EOS_ID])
  pad = vocabularies.PAD_ID if rows is None else int(rows[vocabularies.UNK_ID])
  tokens = {'decoder_start_token_id': 0, 'eos_token_id': eos, 'pad_token_id': pad}
  fields = huggingface.config_to_huggingface(config) | tokens
  export_tokenizer.write_tokenizer(
    folder,
    vocabulary,
    max_length=int(task_feature_lengths['inputs']),
  )
  paths.write_json_atomic(folder / 'config.json', fields | {'torch_dtype': dtype})
  # What the sampler here never draws: padding, and rows without a piece.
  never = [0, *range(vocabulary.size, config.vocab_size)]
  paths.write_json_atomic(
    folder / 'generation_config.json',
    tokens
    | {
      'max_new_tokens': int(task_feature_lengths['targets']),
      'suppress_tokens': never,
    },
  )
  state = {
    name: _reordered(name, value, rows).astype(DTYPES[dtype], copy=False)
    for name, value in huggingface.params_to_huggingface(params, config).items()
    if name not in huggingface.EMBEDDING_COPIES
    and not (config.logits_via_embedding and name == 'lm_head.weight')
  }
  checkpoint_tensors.write_tensors(folder / checkpoint_tensors.SINGLE_FILE, state)


def write_head(
  directory: paths.PathLike,
  params: Mapping[str, Any],
  *,
  rating_scale: Mapping[str, float],
) -> None:
  """Writes what a reward model has besides T5, which Transformers has no place for.

  Args:
    directory: of the model.
    params: of RewardT5.
    rating_scale: {'mean', 'stddev'} of the ratings that it was fitted to.
  """
  folder = paths.as_path(directory)
  tensors = {
    'head.kernel': np.asarray(params['head']['kernel'], np.float32),
    'head.bias': np.asarray(params['head']['bias'], np.float32),
    'likelihood.weight': np.asarray(params['likelihood']['weight'], np.float32),
  }
  checkpoint_tensors.write_tensors(folder / HEAD_FILE, tensors)
  paths.write_json_atomic(
    folder / REWARD_FILE,
    {
      'reward': 'mean + stddev * (h . head.kernel + head.bias + likelihood.weight * l)',
      'h': "the decoder's last hidden state, after its final norm, at the step that "
      "predicts the candidate's last token (EOS, where it has one)",
      'l': "mean over the candidate's tokens, EOS included, of their natural "
      "log-probability given the source, under this model's own logits",
      **rating_scale,
    },
  )


def _reordered(name: str, value: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
  """Rows by token id in the vocabulary's own order."""
  if rows is None or name not in ('shared.weight', 'lm_head.weight'):
    return value
  return value[np.argsort(rows)]

"""Our weights as a Transformers model, and as a CTranslate2 one."""

import importlib
from typing import Any

import numpy as np

from rest_jax.interop import huggingface
from rest_jax.models import t5

PAD_ID = 0  # also the decoder's start
EOS_ID = 1
UNK_ID = 2


class MissingRival(ImportError):
  """A rival's package is not installed."""


def module(name: str) -> Any:
  """Imports what only a rival needs; MissingRival says what to install."""
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise MissingRival(
      f'a rival needs {name}, which cannot be imported ({error}): install '
      "benchmarks/requirements.txt, or leave it out; --rivals '' runs ours alone"
    ) from error


def transformers_model(config: t5.T5Config, params: Any) -> Any:
  """Our policy as a `T5ForConditionalGeneration` in float32.

  Raises:
    ValueError: activations that Transformers' T5 does not name.
    MissingRival: torch or transformers is not installed.
  """
  torch, transformers = module('torch'), module('transformers')
  projections = {('gelu', 'linear'): 'gated-gelu', ('relu',): 'relu'}
  projections |= {('silu', 'linear'): 'gated-silu'}
  if config.mlp_activations not in projections:
    raise ValueError(
      f'Transformers has no name for mlp_activations={config.mlp_activations}; '
      f'known: {list(projections)}'
    )
  theirs = transformers.T5Config(
    vocab_size=config.vocab_size,
    d_model=config.emb_dim,
    d_kv=config.head_dim,
    d_ff=config.mlp_dim,
    num_layers=config.num_encoder_layers,
    num_decoder_layers=config.num_decoder_layers,
    num_heads=config.num_heads,
    relative_attention_num_buckets=config.relative_attention_num_buckets,
    relative_attention_max_distance=config.relative_attention_max_distance,
    feed_forward_proj=projections[config.mlp_activations],
    tie_word_embeddings=config.logits_via_embedding,
    dropout_rate=0.0,
    pad_token_id=PAD_ID,
    eos_token_id=EOS_ID,
    decoder_start_token_id=PAD_ID,
  )
  model = transformers.T5ForConditionalGeneration(theirs)
  if not config.logits_via_embedding:
    # Transformers 5 ties the logits of every T5 until weights are loaded.
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
  state = huggingface.params_to_huggingface(params, config)
  state.setdefault('lm_head.weight', state['shared.weight'])
  model.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
  return model.eval()


def save_ctranslate2(config: t5.T5Config, params: Any, folder: str) -> None:
  """Writes the policy in CTranslate2's format, through its own converter."""
  converter = module('ctranslate2.converters.transformers')
  model = transformers_model(config, params)
  spec = converter.T5Loader().get_model_spec(model)
  # Its loader takes this from tie_word_embeddings, which Transformers 5 sets for
  # every T5; only T5 1.0 scales.
  scale = config.emb_dim**-0.5 if config.logits_via_embedding else 1.0
  spec.decoder.scale_outputs = np.dtype('float32').type(scale)
  tokens = [str(token) for token in range(config.vocab_size)]
  spec.register_source_vocabulary(tokens)
  spec.register_target_vocabulary(tokens)
  spec.config.bos_token = tokens[PAD_ID]
  spec.config.eos_token = tokens[EOS_ID]
  spec.config.unk_token = tokens[UNK_ID]
  spec.config.decoder_start_token = tokens[PAD_ID]
  spec.validate()
  spec.optimize()
  spec.save(folder)

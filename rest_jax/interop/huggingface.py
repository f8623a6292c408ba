"""T5 weights to and from the names of Hugging Face Transformers.

Works on a plain mapping of NumPy arrays, as `{k: v.numpy() for k, v in
model.state_dict().items()}` or `checkpoint_tensors` gives it, so neither PyTorch
nor Transformers is needed. Covers T5 1.0, T5 1.1, Flan-T5, mT5, ByT5, umT5 and
MADLAD-400.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from rest_jax.models import layers, stacking, t5

_ACTIVATIONS = {
  'relu': ('relu',),
  'gated-gelu': ('gelu', 'linear'),
  'gated-silu': ('silu', 'linear'),
}
_MULTILINGUAL = {
  'vocab_size': 250112,
  'd_ff': 1024,
  'num_layers': 8,
  'num_heads': 6,
  'feed_forward_proj': 'gated-gelu',
}
# What Transformers takes for an absent field, by type of model.
_DEFAULTS: dict[str, dict[str, Any]] = {
  't5': {
    'vocab_size': 32128,
    'd_ff': 2048,
    'num_layers': 6,
    'num_heads': 8,
    'feed_forward_proj': 'relu',
  },
  'mt5': _MULTILINGUAL,
  'umt5': _MULTILINGUAL,
}

# Copies of the embedding that a state dict may hold beside `shared.weight`.
EMBEDDING_COPIES = ('encoder.embed_tokens.weight', 'decoder.embed_tokens.weight')
# In T5 1.0 files, from before the library dropped this table; nothing reads it.
_UNUSED = ('decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight',)


def config_from_huggingface(
  fields: Mapping[str, Any],
  *,
  dtype: str = 'float32',
  scan_layers: bool = False,
  remat: bool = False,
) -> t5.T5Config:
  """Our config of a Hugging Face `config.json`, read as a dict.

  Args:
    fields: the JSON object. Absent fields take Transformers' defaults.
    dtype: activation type, see T5Config.
    scan_layers: see T5Config.
    remat: see T5Config.

  Raises:
    ValueError: for a model or option that T5 here does not compute.
  """
  model_type = fields.get('model_type', 't5')
  if model_type not in _DEFAULTS:
    raise ValueError(
      f'model_type is {model_type!r}; known types: {", ".join(_DEFAULTS)}. '
      'Convert an encoder-decoder of the T5 family.'
    )
  fields = _DEFAULTS[model_type] | dict(fields)
  if not fields.get('is_encoder_decoder', True):
    raise ValueError(
      'is_encoder_decoder is False; an encoder alone cannot be a policy. '
      'Convert an encoder-decoder.'
    )
  projection = fields['feed_forward_proj']
  if projection not in _ACTIVATIONS:
    raise ValueError(
      f'feed_forward_proj is {projection!r}; known values: {", ".join(_ACTIVATIONS)}.'
    )
  epsilon = fields.get('layer_norm_epsilon', layers.NORM_EPSILON)
  if epsilon != layers.NORM_EPSILON:
    raise ValueError(
      f'layer_norm_epsilon is {epsilon!r}; it must be {layers.NORM_EPSILON}, '
      "T5's value, which is fixed here."
    )
  start = fields.get('decoder_start_token_id')
  if start not in (None, 0):
    raise ValueError(
      f'decoder_start_token_id is {start!r}; it must be 0, with which every model of '
      'the family begins.'
    )
  # Transformers 5 writes tie_word_embeddings = True for every T5 and keeps the
  # model's real kind (T5 1.0 scales and ties) in scale_decoder_outputs. It writes
  # the same for mT5 and umT5, all of which are untied.
  tied = model_type == 't5' and fields.get(
    'scale_decoder_outputs', fields.get('tie_word_embeddings', True)
  )
  num_layers = fields['num_layers']
  num_decoder_layers = fields.get('num_decoder_layers')
  return t5.T5Config(
    vocab_size=fields['vocab_size'],
    emb_dim=fields.get('d_model', 512),
    num_heads=fields['num_heads'],
    head_dim=fields.get('d_kv', 64),
    mlp_dim=fields['d_ff'],
    num_encoder_layers=num_layers,
    num_decoder_layers=(
      num_layers if num_decoder_layers is None else num_decoder_layers
    ),
    mlp_activations=_ACTIVATIONS[projection],
    dropout_rate=float(fields.get('dropout_rate', 0.1)),
    logits_via_embedding=bool(tied),
    dtype=dtype,
    relative_attention_num_buckets=fields.get('relative_attention_num_buckets', 32),
    relative_attention_max_distance=fields.get('relative_attention_max_distance', 128),
    relative_bias_per_layer=model_type == 'umt5',
    scan_layers=scan_layers,
    remat=remat,
  )


def config_to_huggingface(config: t5.T5Config) -> dict[str, Any]:
  """The `config.json` of a shape, token ids and types left out.

  Untied models become T5 1.1, which computes what mT5, ByT5, Flan-T5 and MADLAD-400
  do; a bias per layer makes it umT5.

  Raises:
    ValueError: for activations that Transformers' T5 does not compute, or a bias per
      layer with tied logits.
  """
  known = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
  if config.mlp_activations not in known:
    raise ValueError(
      f'mlp_activations is {config.mlp_activations!r}; Hugging Face models have one '
      f'of {", ".join(map(str, known))}. Export to T5X.'
    )
  if config.relative_bias_per_layer and config.logits_via_embedding:
    raise ValueError(
      'relative_bias_per_layer is umT5, whose logits are untied: with '
      'logits_via_embedding there is no such model in Transformers. Export to T5X.'
    )
  model = 'UMT5' if config.relative_bias_per_layer else 'T5'
  return {
    'architectures': [f'{model}ForConditionalGeneration'],
    'model_type': model.lower(),
    'is_encoder_decoder': True,
    'vocab_size': config.vocab_size,
    'd_model': config.emb_dim,
    'd_kv': config.head_dim,
    'd_ff': config.mlp_dim,
    'num_layers': config.num_encoder_layers,
    'num_decoder_layers': config.num_decoder_layers,
    'num_heads': config.num_heads,
    'feed_forward_proj': known[config.mlp_activations],
    'dropout_rate': config.dropout_rate,
    'layer_norm_epsilon': layers.NORM_EPSILON,
    'relative_attention_num_buckets': config.relative_attention_num_buckets,
    'relative_attention_max_distance': config.relative_attention_max_distance,
    'tie_word_embeddings': config.logits_via_embedding,
  }


def _block_names(
  ours: str, theirs: str, config: t5.T5Config, decoder: bool
) -> Iterator[tuple[str, str, bool]]:
  attentions = [('attention', 'SelfAttention', 'pre_attention_layer_norm')]
  if decoder:
    attentions = [
      ('self_attention', 'SelfAttention', 'pre_self_attention_layer_norm'),
      (
        'encoder_decoder_attention',
        'EncDecAttention',
        'pre_cross_attention_layer_norm',
      ),
    ]
  for i, (attention, their_attention, norm) in enumerate(attentions):
    yield f'{ours}/{norm}/scale', f'{theirs}.layer.{i}.layer_norm.weight', False
    for name in ('query', 'key', 'value', 'out'):
      letter = 'o' if name == 'out' else name[0]
      yield (
        f'{ours}/{attention}/{name}/kernel',
        f'{theirs}.layer.{i}.{their_attention}.{letter}.weight',
        True,
      )
  mlp = f'{theirs}.layer.{len(attentions)}'
  yield f'{ours}/pre_mlp_layer_norm/scale', f'{mlp}.layer_norm.weight', False
  gates = len(config.mlp_activations)
  hidden = ['wi'] if gates == 1 else [f'wi_{i}' for i in range(gates)]
  for name in [*hidden, 'wo']:
    yield f'{ours}/mlp/{name}/kernel', f'{mlp}.DenseReluDense.{name}.weight', True


def _names(config: t5.T5Config) -> Iterator[tuple[str, str, bool]]:
  """Yields (our name, their name, whether the matrix is transposed)."""
  yield 'token_embedder/embedding', 'shared.weight', False
  sizes = {'encoder': config.num_encoder_layers, 'decoder': config.num_decoder_layers}
  for side, size in sizes.items():
    # PyTorch keeps linear maps as [outputs, inputs] and the relative position
    # table as [buckets, heads]; ours are [inputs, outputs] and [heads, buckets].
    for i in range(size if config.relative_bias_per_layer else 1):
      owner = f'{side}/layers_{i}' if config.relative_bias_per_layer else side
      yield (
        f'{owner}/relpos_bias/rel_embedding',
        f'{side}.block.{i}.layer.0.SelfAttention.relative_attention_bias.weight',
        True,
      )
    for i in range(size):
      yield from _block_names(
        f'{side}/layers_{i}', f'{side}.block.{i}', config, side == 'decoder'
      )
    yield f'{side}/{side}_norm/scale', f'{side}.final_layer_norm.weight', False
  if not config.logits_via_embedding:
    yield 'decoder/logits_dense/kernel', 'lm_head.weight', True


def params_from_huggingface(
  state: Mapping[str, np.ndarray],
  config: t5.T5Config,
) -> dict[str, Any]:
  """Our parameter tree, float32 NumPy arrays, from a T5 state dict.

  T5 1.0 ties `lm_head` to `shared` and scales by d_model**-0.5, which is
  `logits_via_embedding=True` here; tied copies may be in the state or not.

  Args:
    state: arrays by Hugging Face name; read one by one, float32 ones not copied.
    config: the model's shape (`config_from_huggingface`). With scan_layers the
      layers are stacked.

  Raises:
    ValueError: naming an entry that is missing, unknown, of a wrong shape, or a
      tied copy that differs from the embedding.
  """
  copies: tuple[str, ...] = EMBEDDING_COPIES
  if config.logits_via_embedding:
    copies += ('lm_head.weight',)
  shapes = _looped_shapes(config)
  left = set(state)
  params = {}
  for ours, theirs, transposed in _names(config):
    if theirs not in left:
      raise ValueError(
        f'the state has no {theirs!r}, which {ours!r} needs. Check that the '
        'configuration belongs to these weights: number of layers, '
        'activations, tied or untied logits.'
      )
    left.remove(theirs)
    value = np.asarray(state[theirs], np.float32)
    expected = shapes[ours][::-1] if transposed else shapes[ours]
    if value.shape != expected:
      raise ValueError(
        f'{theirs!r} has shape {value.shape}; the configuration asks for '
        f'{expected}. Use the configuration that belongs to these weights.'
      )
    params[ours] = value.T if transposed else value
  for name in copies:
    if name not in left:
      continue
    left.remove(name)
    if not np.array_equal(
      np.asarray(state[name], np.float32), params['token_embedder/embedding']
    ):
      raise ValueError(
        f"{name!r} differs from 'shared.weight', to which this configuration "
        'ties it. For untied logits set logits_via_embedding to False.'
      )
  unknown = sorted(left - set(_UNUSED))
  if unknown:
    raise ValueError(
      f'the state holds {unknown[0]!r} ({len(unknown)} unknown in all), which '
      'this configuration has no place for. Check the number of layers, the '
      'activations, and tied or untied logits.'
    )
  tree = traverse_util.unflatten_dict(params, sep='/')
  return stacking.stack_layers(tree) if config.scan_layers else tree


def params_to_huggingface(
  params: Mapping[str, Any],
  config: t5.T5Config,
) -> dict[str, np.ndarray]:
  """The state dict of our parameters, float32, tied copies included.

  The inverse of `params_from_huggingface`; arrays are views of the parameters. For
  `model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})`.

  Raises:
    ValueError: naming a parameter that is missing, unknown or of a wrong shape.
  """
  looped = stacking.unstack_layers(params) if config.scan_layers else params
  left = traverse_util.flatten_dict(looped, sep='/')
  shapes = _looped_shapes(config)
  state = {}
  for ours, theirs, transposed in _names(config):
    if ours not in left:
      raise ValueError(
        f'the parameters lack {ours!r}. Use the configuration that made them.'
      )
    value = np.asarray(left.pop(ours), np.float32)
    if value.shape != shapes[ours]:
      raise ValueError(
        f'parameter {ours!r} has shape {value.shape}; the configuration asks '
        f'for {shapes[ours]}. Use the configuration that made them.'
      )
    state[theirs] = value.T if transposed else value
  if left:
    raise ValueError(
      f'parameter {min(left)!r} has no Hugging Face name under this '
      'configuration. Use the configuration that made it.'
    )
  for name in EMBEDDING_COPIES:
    state[name] = state['shared.weight']
  if config.logits_via_embedding:
    state['lm_head.weight'] = state['shared.weight']
  return state


def _looped_shapes(config: t5.T5Config) -> dict[str, tuple[int, ...]]:
  """Shapes of the parameters by name, with one entry per layer."""
  tree = t5.parameter_shapes(_looped(config))
  flat = traverse_util.flatten_dict(tree, sep='/')
  return {name: leaf.shape for name, leaf in flat.items()}


def _looped(config: t5.T5Config) -> t5.T5Config:
  return t5.T5Config.from_dict({**config.to_dict(), 'scan_layers': False})

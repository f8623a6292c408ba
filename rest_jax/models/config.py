"""The hyperparameters of a T5 model, checked when they are made."""

import dataclasses
from collections.abc import Mapping
from typing import Any

DTYPES = ('float32', 'bfloat16')
CACHE_LAYOUTS = ('rows_first', 'rows_last')
ACTIVATIONS = ('gelu', 'linear', 'relu', 'silu')

_POSITIVE_INTEGERS = (
  'vocab_size',
  'emb_dim',
  'num_heads',
  'head_dim',
  'mlp_dim',
  'num_encoder_layers',
  'num_decoder_layers',
  'relative_attention_num_buckets',
  'relative_attention_max_distance',
)
_BOOLEANS = (
  'logits_via_embedding',
  'relative_bias_per_layer',
  'int8_cache',
  'scan_layers',
  'remat',
)


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Shape and behaviour of a T5 encoder-decoder, under T5X's field names.

  The defaults are T5 1.1 small. T5 1.0 is `mlp_activations=('relu',)` and
  `logits_via_embedding=True`. Instances are hashable, so they can be static
  arguments of `jax.jit`.

  Attributes:
    vocab_size: rows of the embedding table; at least 3 (pad 0, EOS 1, UNK 2).
    emb_dim: width of the residual stream.
    num_heads: attention heads.
    head_dim: width of one head; num_heads * head_dim may differ from emb_dim.
    mlp_dim: hidden width of the feed-forward block.
    num_encoder_layers: layers of the encoder.
    num_decoder_layers: layers of the decoder.
    mlp_activations: one activation per hidden projection; their results are
      multiplied. 'gelu' is the tanh approximation.
    dropout_rate: probability of dropping, in [0, 1).
    logits_via_embedding: whether the embedding also makes the logits, divided
      by sqrt(emb_dim).
    dtype: type of the activations, 'float32' or 'bfloat16'. Parameters, norm
      statistics, softmax and logits are float32 always.
    relative_attention_num_buckets: buckets of the relative position bias.
    relative_attention_max_distance: distance in tokens from which on all
      positions share the last bucket.
    relative_bias_per_layer: whether every layer has a relative position bias of its
      own, as in umT5, instead of one for its stack.
    scan_layers: whether the layers of a stack are one layer with stacked
      parameters (axis 1), compiled once.
    remat: whether a layer's activations are computed again in the backward
      pass instead of stored.
    cache_layout: how a decoding loop keeps the past of its rows: 'rows_first',
      best on CPUs and GPUs, or 'rows_last', best on TPUs. The logits are the same.
    int8_cache: whether that past is rounded to 8 bits, with a scale for each row and
      position: half the memory of bfloat16 and half the reading. For 'rows_last'
      alone. It changes the samples a little.
  """

  vocab_size: int
  emb_dim: int = 512
  num_heads: int = 6
  head_dim: int = 64
  mlp_dim: int = 1024
  num_encoder_layers: int = 8
  num_decoder_layers: int = 8
  mlp_activations: tuple[str, ...] = ('gelu', 'linear')
  dropout_rate: float = 0.0
  logits_via_embedding: bool = False
  dtype: str = 'float32'
  relative_attention_num_buckets: int = 32
  relative_attention_max_distance: int = 128
  scan_layers: bool = False
  remat: bool = False
  cache_layout: str = 'rows_first'
  relative_bias_per_layer: bool = False
  int8_cache: bool = False

  def __post_init__(self) -> None:
    # Gin and JSON bring lists; a tuple keeps the instance hashable.
    if isinstance(self.mlp_activations, list):
      object.__setattr__(self, 'mlp_activations', tuple(self.mlp_activations))
    for name in _POSITIVE_INTEGERS:
      value = getattr(self, name)
      if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
          f'T5Config.{name} is {value!r}; it must be a positive integer. '
          f'Set {name} to a whole number of at least 1.'
        )
    for name in _BOOLEANS:
      value = getattr(self, name)
      if not isinstance(value, bool):
        raise ValueError(f'T5Config.{name} is {value!r}; it must be True or False.')
    if self.vocab_size < 3:
      raise ValueError(
        f'T5Config.vocab_size is {self.vocab_size}; it must be at least 3, '
        'since ids 0, 1 and 2 are padding, EOS and UNK. Use the size of the '
        'vocabulary.'
      )
    if not 0.0 <= self.dropout_rate < 1.0:
      raise ValueError(
        f'T5Config.dropout_rate is {self.dropout_rate!r}; it must be in '
        '[0, 1). Use 0.0 for no dropout.'
      )
    if self.dtype not in DTYPES:
      raise ValueError(
        f'T5Config.dtype is {self.dtype!r}; known types: {", ".join(DTYPES)}.'
      )
    if self.cache_layout not in CACHE_LAYOUTS:
      raise ValueError(
        f'T5Config.cache_layout is {self.cache_layout!r}; known layouts: '
        f'{", ".join(CACHE_LAYOUTS)}.'
      )
    if self.int8_cache and self.cache_layout != 'rows_last':
      raise ValueError(
        f'T5Config.int8_cache needs cache_layout rows_last, not {self.cache_layout!r}: '
        'set that, or leave the cache in the type of the activations.'
      )
    self._check_activations()
    self._check_buckets()

  def _check_activations(self) -> None:
    names = self.mlp_activations
    if not isinstance(names, tuple) or not names:
      raise ValueError(
        f'T5Config.mlp_activations is {names!r}; it must be a tuple of at '
        "least one name. Use ('gelu', 'linear') for T5 1.1 or ('relu',) for "
        'T5 1.0.'
      )
    unknown = [name for name in names if name not in ACTIVATIONS]
    if unknown:
      raise ValueError(
        f'T5Config.mlp_activations holds {unknown[0]!r}; known activations: '
        f'{", ".join(ACTIVATIONS)}.'
      )

  def _check_buckets(self) -> None:
    buckets = self.relative_attention_num_buckets
    distance = self.relative_attention_max_distance
    if buckets % 4:
      raise ValueError(
        f'T5Config.relative_attention_num_buckets is {buckets}; it must be a '
        'multiple of 4: half for each direction, half of those for exact '
        'distances. T5 uses 32.'
      )
    if distance <= buckets // 2:
      raise ValueError(
        f'T5Config.relative_attention_max_distance is {distance}; it must be '
        f'above {buckets // 2}, half of relative_attention_num_buckets. T5 '
        'uses 128.'
      )

  @property
  def joined_dim(self) -> int:
    """Width of all heads side by side, num_heads * head_dim."""
    return self.num_heads * self.head_dim

  def identity(self) -> dict[str, Any]:
    """The fields that name this shape in a fingerprint.

    `relative_bias_per_layer` and `int8_cache` count where they are on: shapes from
    before there were such fields keep their fingerprints.
    """
    fields = self.to_dict()
    for name in ('relative_bias_per_layer', 'int8_cache'):
      if not fields[name]:
        del fields[name]
    return fields

  def to_dict(self) -> dict[str, Any]:
    """Returns the fields as JSON values (tuples become lists)."""
    fields = dataclasses.asdict(self)
    fields['mlp_activations'] = list(self.mlp_activations)
    return fields

  @classmethod
  def from_dict(cls, fields: Mapping[str, Any]) -> 'T5Config':
    """Makes a config from `to_dict`'s result; absent fields take defaults.

    Raises:
      ValueError: for an unknown field, a missing vocab_size, a bad value.
    """
    known = [field.name for field in dataclasses.fields(cls)]
    unknown = sorted(set(fields) - set(known))
    if unknown:
      raise ValueError(
        f'unknown T5Config field {unknown[0]!r}; known fields: {", ".join(known)}.'
      )
    if 'vocab_size' not in fields:
      raise ValueError(
        'T5Config needs vocab_size, which is absent; add the size of the vocabulary.'
      )
    return cls(**fields)

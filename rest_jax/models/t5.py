"""The T5 encoder-decoder over groups: one source, encoded once, N candidates."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rest_jax.models import caches, layers, stacks
from rest_jax.models.caches import (
  SelfCache,
  cache_axes,
  cache_length,
  map_batch,
  pad_cache,
)
from rest_jax.models.config import T5Config
from rest_jax.models.keys_values import CrossCache, KeysValues

__all__ = [
  'T5',
  'CrossCache',
  'GroupEncoderDecoder',
  'KeysValues',
  'SelfCache',
  'T5Config',
  'cache_axes',
  'cache_length',
  'count_parameters',
  'map_batch',
  'pad_cache',
  'parameter_shapes',
]


def _check_rank(name: str, x: jax.Array, axes: tuple[str, ...]) -> None:
  if x.ndim != len(axes):
    raise ValueError(
      f'{name} has shape {x.shape}; it must be [{", ".join(axes)}]. A '
      'supervised pair is a group with one candidate: add a samples axis of 1.'
    )


def _check_tree(
  tokens: jax.Array, positions: jax.Array | None, mask: jax.Array | None
) -> None:
  shapes = tuple(None if x is None else x.shape for x in (positions, mask))
  wanted = (tokens.shape, (*tokens.shape, tokens.shape[-1]))
  if shapes not in ((None, None), wanted):
    raise ValueError(
      f'decoder_positions and decoder_mask have shapes {shapes}; tokens '
      f'{tokens.shape} need both, of shapes {wanted}, or neither.'
    )


class GroupEncoderDecoder(nn.Module):
  """What T5 and the scalar-head model share: embedding, encoder, decoder.

  Attributes:
    config: the model's shape.
  """

  config: T5Config

  # Whether the decoder owns a logits kernel when the logits are untied.
  has_logits = True

  def setup(self) -> None:
    """Makes the sub-modules."""
    config = self.config
    self.token_embedder = layers.TokenEmbedder(
      config.vocab_size, config.emb_dim, config.dtype
    )
    self.encoder = stacks.Encoder(config)
    self.decoder = stacks.Decoder(config, has_logits=self.has_logits)

  def encode(
    self,
    encoder_input_tokens: jax.Array,  # [batch, source_length] int32, 0 is padding
    *,
    enable_dropout: bool = False,
  ) -> jax.Array:  # [batch, source_length, embed]
    """Encodes each source, once."""
    _check_rank(
      'encoder_input_tokens', encoder_input_tokens, ('batch', 'source_length')
    )
    return self.encoder(
      self.token_embedder(encoder_input_tokens),
      encoder_input_tokens != 0,
      enable_dropout=enable_dropout,
    )

  def decode_features(
    self,
    encoded: jax.Array,  # [batch, source_length, embed]
    encoder_input_tokens: jax.Array,  # [batch, source_length] int32, for the mask
    decoder_input_tokens: jax.Array,  # [batch, samples, length] int32
    *,
    decoder_positions: jax.Array | None = None,  # [batch, samples, length] int32
    decoder_mask: jax.Array | None = None,  # [batch, samples, length, length] bool
    enable_dropout: bool = False,
  ) -> jax.Array:  # [batch, samples, length, embed]
    """Features after the final norm, at every position of every candidate.

    Causal; padding in the targets is not masked, since nothing but padding can
    attend to it and its loss weights are 0.

    With `decoder_positions` and `decoder_mask` (from which query to which key) a
    row of tokens need not be a sequence: it may be a prefix tree of candidates,
    see `rest_jax.models.trees`.

    Raises:
      ValueError: positions without a mask or the other way round, or of other
        shapes than the tokens ask for.
    """
    _check_rank(
      'decoder_input_tokens', decoder_input_tokens, ('batch', 'samples', 'length')
    )
    _check_tree(decoder_input_tokens, decoder_positions, decoder_mask)
    return self.decoder(
      self.token_embedder(decoder_input_tokens),
      encoded,
      encoder_input_tokens != 0,
      positions=decoder_positions,
      visible=decoder_mask,
      enable_dropout=enable_dropout,
    )


class T5(GroupEncoderDecoder):
  """The policy: next-token logits for every candidate of every source.

  Parameter names and shapes are T5X's. `init` returns boxed parameters that
  carry logical axis names; `flax.linen.unbox` gives the plain arrays, and
  `apply` takes either. Dropout needs `rngs={'dropout': key}`.
  """

  def __call__(
    self,
    encoder_input_tokens: jax.Array,  # [batch, source_length] int32, 0 is padding
    decoder_input_tokens: jax.Array,  # [batch, samples, length] int32
    *,
    enable_dropout: bool = False,
  ) -> jax.Array:  # [batch, samples, length, vocab] float32
    """Logits of all positions at once, from tokens alone."""
    encoded = self.encode(encoder_input_tokens, enable_dropout=enable_dropout)
    return self.decode(
      encoded, encoder_input_tokens, decoder_input_tokens, enable_dropout=enable_dropout
    )

  def decode(
    self,
    encoded: jax.Array,  # [batch, source_length, embed]
    encoder_input_tokens: jax.Array,  # [batch, source_length] int32, for the mask
    decoder_input_tokens: jax.Array,  # [batch, samples, length] int32
    *,
    decoder_positions: jax.Array | None = None,  # as in decode_features
    decoder_mask: jax.Array | None = None,
    enable_dropout: bool = False,
  ) -> jax.Array:  # [batch, samples, length, vocab] float32
    """Logits of all positions at once (teacher forcing)."""
    features = self.decode_features(
      encoded,
      encoder_input_tokens,
      decoder_input_tokens,
      decoder_positions=decoder_positions,
      decoder_mask=decoder_mask,
      enable_dropout=enable_dropout,
    )
    return self.logits(features)

  def logits(self, features: jax.Array) -> jax.Array:
    """Logits [batch, samples, (length,) vocab] of features, in float32."""
    logits = self._project_logits(features)
    lengths = ('length',) * (features.ndim - 3)
    return layers.constrain(logits, 'batch', 'samples', *lengths, 'vocab')

  def _project_logits(self, features: jax.Array, **options: bool) -> jax.Array:
    if self.config.logits_via_embedding:
      return self.token_embedder.attend(features, **options)
    return self.decoder.logits_dense(features, **options)

  def _step_logits(self, features: jax.Array) -> jax.Array:
    """As `logits`, of [batch, samples, embed], laid out as the draw will read them.

    Only the order in memory differs: with 'rows_last' [vocab, rows].
    """
    if self.config.cache_layout == 'rows_first':
      return self.logits(features)
    # The barrier: the norm and the sum of all layers would be made for each tile.
    rows = jax.lax.optimization_barrier(features.reshape(-1, features.shape[-1]))
    logits = self._project_logits(rows, transposed=True)  # [vocab, rows]
    logits = jnp.moveaxis(logits.reshape(-1, *features.shape[:2]), 0, -1)
    return layers.constrain(logits, 'batch', 'samples', 'vocab')

  def cross_keys_values(self, encoded: jax.Array) -> CrossCache:
    """Projects an encoding [batch, source_length, embed] once per layer.

    Returns keys and values [batch, heads, source_length, head_dim] of every
    decoder layer: a tuple of KeysValues, or one KeysValues with a leading
    layer axis when layers are scanned.
    """
    return self.decoder.cross_keys_values(encoded)

  def init_cache(self, batch: int, samples: int, length: int) -> SelfCache:
    """An empty past of `config.dtype`, in the layout of `config.cache_layout`.

    For 'rows_first' zeros of [batch, samples, heads, length, head_dim]: a tuple with
    one KeysValues per layer, or one KeysValues with a leading layer axis when layers
    are scanned. For 'rows_last' see `rest_jax.models.rows_last`. A loop may start
    short and grow it with `pad_cache`.
    """
    return caches.init_cache(self.config, batch, samples, length)

  def decode_step(
    self,
    tokens: jax.Array,  # [batch, samples] int32, the inputs at `positions`
    positions: jax.Array,  # [batch, samples] int32, counted from 0
    cache: SelfCache,
    cross: CrossCache,
    encoder_mask: jax.Array,  # [batch, source_length] bool, False on padding
    *,
    spread_fn: Callable[[jax.Array], jax.Array] = lambda features: features,
  ) -> tuple[jax.Array, SelfCache]:  # [batch, samples, vocab] float32, the new cache
    """Logits after one more token of every row, each row at its own position.

    Writes the token's keys and values and attends to the row's positions up to its
    own. Later ones are masked: a row may go back to an earlier position and continue
    from there with another token, but it may not skip positions. Positions must be
    below the cache's length: they are traced, so a larger one cannot be refused; it
    would overwrite the last ('rows_first') or be lost ('rows_last').

    `spread_fn` may place the features [batch, samples, embed] elsewhere on a mesh
    before the logits are made of them.
    """
    _check_rank('tokens', tokens, ('batch', 'samples'))
    _check_rank('positions', positions, ('batch', 'samples'))
    # [batch, samples] -> [batch, samples, 1, embed]
    x = self.token_embedder(tokens[:, :, None])
    x, cache = self.decoder.step(x, positions, cache, cross, encoder_mask)
    return self._step_logits(spread_fn(x[:, :, 0])), caches.make_room(cache)


def parameter_shapes(
  config: T5Config,
  model: type[GroupEncoderDecoder] = T5,
) -> dict[str, Any]:
  """The parameter tree as jax.ShapeDtypeStruct leaves; builds no arrays."""
  source = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  target = jax.ShapeDtypeStruct((1, 1, 1), jnp.int32)
  variables = jax.eval_shape(
    model(config).init, jax.eval_shape(lambda: jax.random.key(0)), source, target
  )
  return nn.unbox(variables)['params']


def count_parameters(
  config: T5Config,
  model: type[GroupEncoderDecoder] = T5,
) -> int:
  """Number of parameters of the model; builds no arrays."""
  return sum(leaf.size for leaf in jax.tree.leaves(parameter_shapes(config, model)))

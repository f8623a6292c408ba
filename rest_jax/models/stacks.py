"""The encoder and decoder stacks.

A source is encoded once, its cross-attention keys and values are projected
once, and all candidates of its group attend to them.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from rest_jax.models import caches, layers, relative_positions
from rest_jax.models.caches import SelfCache
from rest_jax.models.config import T5Config
from rest_jax.models.keys_values import CrossCache, KeysValues

# (module, carry, this layer's entry, *shared) -> (carry, output)
LayerFn: TypeAlias = Callable[..., tuple[Any, Any]]


def _attention(config: T5Config) -> layers.Attention:
  return layers.Attention(
    num_heads=config.num_heads,
    head_dim=config.head_dim,
    emb_dim=config.emb_dim,
    dropout_rate=config.dropout_rate,
    dtype=config.dtype,
  )


def _mlp(config: T5Config) -> layers.Mlp:
  return layers.Mlp(
    mlp_dim=config.mlp_dim,
    activations=config.mlp_activations,
    dropout_rate=config.dropout_rate,
    dtype=config.dtype,
  )


def _relative_bias(
  config: T5Config, *, bidirectional: bool
) -> relative_positions.RelativePositionBias:
  return relative_positions.RelativePositionBias(
    num_heads=config.num_heads,
    num_buckets=config.relative_attention_num_buckets,
    max_distance=config.relative_attention_max_distance,
    bidirectional=bidirectional,
  )


def _shared_bias(
  config: T5Config, *, bidirectional: bool
) -> relative_positions.RelativePositionBias | None:
  """The bias that the layers of a stack share; None where each has its own."""
  if config.relative_bias_per_layer:
    return None
  return _relative_bias(config, bidirectional=bidirectional)


def _own_bias(
  config: T5Config, *, bidirectional: bool
) -> relative_positions.RelativePositionBias | None:
  """A layer's own bias; None where it is the stack's."""
  if not config.relative_bias_per_layer:
    return None
  return _relative_bias(config, bidirectional=bidirectional)


def _run_layers(
  layer_fn: LayerFn,
  modules: nn.Module | Sequence[nn.Module],
  carry: Any,
  per_layer: Any,
  shared: tuple[Any, ...],
  config: T5Config,
  num_layers: int,
) -> tuple[Any, Any]:
  """Threads `carry` through all layers of a stack, looped or scanned.

  Args:
    layer_fn: what a layer does.
    modules: the layers, or the one scanned layer.
    carry: what goes from layer to layer.
    per_layer: a tuple with one entry per layer (looped), or a pytree of arrays
      with a leading layer axis (scanned); None when there is nothing.
    shared: arguments that are the same for every layer.
    config: chooses scan and rematerialisation.
    num_layers: layers of the stack.

  Returns:
    The last carry, and the outputs as a tuple (looped) or stacked (scanned).
  """
  if config.remat:
    layer_fn = nn.remat(layer_fn, prevent_cse=not config.scan_layers)
  if not config.scan_layers:
    outputs = []
    for i, module in enumerate(modules):
      entry = None if per_layer is None else per_layer[i]
      carry, output = layer_fn(module, carry, entry, *shared)
      outputs.append(output)
    return carry, tuple(outputs)
  scanned = nn.scan(
    layer_fn,
    variable_axes={'params': 1},
    split_rngs={'params': True, 'dropout': True},
    in_axes=(0,) + (nn.broadcast,) * len(shared),
    out_axes=0,
    length=num_layers,
    metadata_params={nn.PARTITION_NAME: 'layers'},
  )
  return scanned(modules, carry, per_layer, *shared)


class EncoderLayer(nn.Module):
  """Self-attention and feed-forward, each after a norm, each added back."""

  config: T5Config

  def setup(self) -> None:
    """Makes the sub-modules."""
    config = self.config
    self.relpos_bias = _own_bias(config, bidirectional=True)
    self.pre_attention_layer_norm = layers.RootMeanSquareNorm(config.dtype)
    self.attention = _attention(config)
    self.pre_mlp_layer_norm = layers.RootMeanSquareNorm(config.dtype)
    self.mlp = _mlp(config)
    self.dropout = nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))

  def __call__(
    self,
    x: jax.Array,  # [batch, source_length, embed]
    bias: jax.Array,  # [batch, heads or 1, source_length or 1, source_length]
    *,
    enable_dropout: bool = False,
  ) -> jax.Array:  # [batch, source_length, embed]
    """Runs the layer; adds its own relative position bias where it has one."""
    x = layers.constrain_stream(x, 'embed')
    if self.relpos_bias is not None:
      positions = jnp.arange(x.shape[1], dtype=jnp.int32)
      bias = self.relpos_bias(positions, positions)[None] + bias
    y = self.pre_attention_layer_norm(x)
    keys, values = self.attention.keys_values(y)
    y = self.attention.attend(y, keys, values, bias, enable_dropout=enable_dropout)
    x = x + self.dropout(y, deterministic=not enable_dropout)
    y = self.mlp(self.pre_mlp_layer_norm(x), enable_dropout=enable_dropout)
    x = x + self.dropout(y, deterministic=not enable_dropout)
    return layers.constrain_stream(x, 'embed')


class Encoder(nn.Module):
  """From embedded source tokens to the encoding that a whole group attends."""

  config: T5Config

  def setup(self) -> None:
    """Makes the sub-modules."""
    config = self.config
    self.relpos_bias = _shared_bias(config, bidirectional=True)
    if config.scan_layers:
      self.encoder = EncoderLayer(config)
    else:
      self.layers = [EncoderLayer(config) for _ in range(config.num_encoder_layers)]
    self.encoder_norm = layers.RootMeanSquareNorm(config.dtype)
    self.embedding_dropout = nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))
    self.output_dropout = nn.Dropout(config.dropout_rate)

  def __call__(
    self,
    x: jax.Array,  # [batch, source_length, embed]
    mask: jax.Array,  # [batch, source_length] bool, False on padding
    *,
    enable_dropout: bool = False,
  ) -> jax.Array:  # [batch, source_length, embed]
    """Encodes embedded sources."""
    config = self.config
    x = self.embedding_dropout(x, deterministic=not enable_dropout)
    bias = layers.mask_bias(mask)[:, None, None, :]
    if self.relpos_bias is not None:
      positions = jnp.arange(x.shape[1], dtype=jnp.int32)
      # [1, heads, source, source] + [batch, 1, 1, source]
      bias = self.relpos_bias(positions, positions)[None] + bias

    def layer_fn(
      layer: EncoderLayer, x: jax.Array, _: None, bias: jax.Array
    ) -> tuple[jax.Array, None]:
      return layer(x, bias, enable_dropout=enable_dropout), None

    modules = self.encoder if config.scan_layers else self.layers
    x, _ = _run_layers(
      layer_fn, modules, x, None, (bias,), config, config.num_encoder_layers
    )
    return self.output_dropout(self.encoder_norm(x), deterministic=not enable_dropout)


class DecoderLayer(nn.Module):
  """Self-attention, attention to the source and feed-forward, added back."""

  config: T5Config

  def setup(self) -> None:
    """Makes the sub-modules."""
    config = self.config
    self.relpos_bias = _own_bias(config, bidirectional=False)
    self.pre_self_attention_layer_norm = layers.RootMeanSquareNorm(config.dtype)
    self.self_attention = _attention(config)
    self.pre_cross_attention_layer_norm = layers.RootMeanSquareNorm(config.dtype)
    self.encoder_decoder_attention = _attention(config)
    self.pre_mlp_layer_norm = layers.RootMeanSquareNorm(config.dtype)
    self.mlp = _mlp(config)
    self.dropout = nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))

  def cross_keys_values(self, encoded: jax.Array) -> KeysValues:
    """Projects the encoding once for all candidates of each source."""
    keys, values = self.encoder_decoder_attention.keys_values(encoded)
    # [batch, source_length, heads, head_dim] -> [batch, heads, source_length, head_dim]
    return KeysValues(jnp.swapaxes(keys, 1, 2), jnp.swapaxes(values, 1, 2))

  def __call__(
    self,
    x: jax.Array,  # [batch, samples, length, embed]
    cross: KeysValues,  # [batch, heads, source_length, head_dim] each
    self_bias: jax.Array | None,  # [..., heads or 1, length, keys], the mask included
    cross_bias: jax.Array,  # [batch, 1, 1, source_length]
    *,
    positions: jax.Array | None = None,  # [..., length] int32, of whole targets
    cache: Any = None,  # the layer's past, of a single step
    step: Any = None,  # what the layers share in it, from `begin_step`
    layer: jax.Array | None = None,  # [] int32, row of a stacked cache
    enable_dropout: bool = False,
  ) -> tuple[jax.Array, Any]:  # the stream, and the written cache
    """Runs the layer on whole targets, or on one step given a cache.

    Adds the layer's own relative position bias where it has one.
    """
    x = layers.constrain_stream(x, 'embed')
    y = self.pre_self_attention_layer_norm(x)
    keys, values = self.self_attention.keys_values(y)
    if cache is not None:
      query = self.self_attention.queries(y)
      layout = caches.layout(self.config)
      if self.relpos_bias is not None:
        step = layout.add_relative_bias(step, self.relpos_bias)
      mixed, cache = layout.attend(query, keys, values, cache, step, layer)
      y = self.self_attention.joined(mixed)
    else:
      assert self_bias is not None
      if self.relpos_bias is not None:
        assert positions is not None
        self_bias = self.relpos_bias(positions, positions) + self_bias
      y = self.self_attention.attend(
        y, keys, values, self_bias, enable_dropout=enable_dropout
      )
    x = x + self.dropout(y, deterministic=not enable_dropout)
    y = self.encoder_decoder_attention.attend_shared(
      self.pre_cross_attention_layer_norm(x),
      cross.keys,
      cross.values,
      cross_bias,
      enable_dropout=enable_dropout,
    )
    x = x + self.dropout(y, deterministic=not enable_dropout)
    y = self.mlp(self.pre_mlp_layer_norm(x), enable_dropout=enable_dropout)
    x = x + self.dropout(y, deterministic=not enable_dropout)
    return layers.constrain_stream(x, 'embed'), cache


class Decoder(nn.Module):
  """From embedded target tokens to features; holds the untied logits kernel.

  Attributes:
    config: the model's shape.
    has_logits: whether to own `logits_dense` (an untied language model).
  """

  config: T5Config
  has_logits: bool = True

  def setup(self) -> None:
    """Makes the sub-modules."""
    config = self.config
    self.relpos_bias = _shared_bias(config, bidirectional=False)
    if config.scan_layers:
      self.decoder = DecoderLayer(config)
    else:
      self.layers = [DecoderLayer(config) for _ in range(config.num_decoder_layers)]
    self.decoder_norm = layers.RootMeanSquareNorm(config.dtype)
    self.embedding_dropout = nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))
    self.output_dropout = nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))
    if self.has_logits and not config.logits_via_embedding:
      self.logits_dense = layers.Projection(config.vocab_size, ('embed', 'vocab'))

  def _run(
    self, layer_fn: LayerFn, carry: Any, per_layer: Any, shared: tuple[Any, ...]
  ) -> tuple[Any, Any]:
    config = self.config
    modules = self.decoder if config.scan_layers else self.layers
    return _run_layers(
      layer_fn, modules, carry, per_layer, shared, config, config.num_decoder_layers
    )

  def cross_keys_values(self, encoded: jax.Array) -> CrossCache:
    """Cross-attention keys and values of every layer, for one encoding."""

    def layer_fn(
      layer: DecoderLayer, carry: None, _: None, encoded: jax.Array
    ) -> tuple[None, KeysValues]:
      return carry, layer.cross_keys_values(encoded)

    return self._run(layer_fn, None, None, (encoded,))[1]

  def __call__(
    self,
    x: jax.Array,  # [batch, samples, length, embed]
    encoded: jax.Array,  # [batch, source_length, embed]
    mask: jax.Array,  # [batch, source_length] bool, False on padding
    *,
    positions: jax.Array | None = None,  # [batch, samples, length] int32
    visible: jax.Array | None = None,  # [batch, samples, length, keys] bool
    enable_dropout: bool = False,
  ) -> jax.Array:  # [batch, samples, length, embed]
    """Features after the final norm, at all positions at once.

    Without `positions` and `visible` each candidate is a sequence: positions
    count from 0 and each attends to itself and those before it.
    """
    x = self.embedding_dropout(x, deterministic=not enable_dropout)
    if positions is None or visible is None:
      positions = jnp.arange(x.shape[2], dtype=jnp.int32)
      causal = positions[None, :] <= positions[:, None]  # [query, key]
      bias = layers.mask_bias(causal)[None]
    else:  # [batch, samples, 1, length, keys]
      bias = layers.mask_bias(visible)[:, :, None]
    if self.relpos_bias is not None:  # 1 becomes heads
      bias = self.relpos_bias(positions, positions) + bias
    cross_bias = layers.mask_bias(mask)[:, None, None, :]

    def layer_fn(
      layer: DecoderLayer,
      x: jax.Array,
      _: None,
      encoded: jax.Array,
      bias: jax.Array,
      cross_bias: jax.Array,
      positions: jax.Array,
    ) -> tuple[jax.Array, None]:
      # Projected here, inside the layer, so that rematerialisation covers it.
      cross = layer.cross_keys_values(encoded)
      y, _cache = layer(
        x,
        cross,
        bias,
        cross_bias,
        positions=positions,
        enable_dropout=enable_dropout,
      )
      return y, None

    x, _ = self._run(layer_fn, x, None, (encoded, bias, cross_bias, positions))
    return self.output_dropout(self.decoder_norm(x), deterministic=not enable_dropout)

  def step(
    self,
    x: jax.Array,  # [batch, samples, 1, embed]
    positions: jax.Array,  # [batch, samples] int32
    cache: SelfCache,
    cross: CrossCache,
    mask: jax.Array,  # [batch, source_length] bool, False on padding
  ) -> tuple[jax.Array, SelfCache]:  # [batch, samples, 1, embed], written cache
    """One position of every row, each at its own, attending to its cached past."""
    config = self.config
    layout = caches.layout(config)
    step, past = layout.begin_step(cache, positions)
    if self.relpos_bias is not None:
      step = layout.add_relative_bias(step, self.relpos_bias)
    shared = (step, layers.mask_bias(mask)[:, None, None, :])

    if not config.scan_layers:

      def layer_fn(
        layer: DecoderLayer,
        x: jax.Array,
        held: tuple[Any, KeysValues],
        step: Any,
        cross_bias: jax.Array,
      ) -> tuple[jax.Array, Any]:
        past, cross = held
        return layer(x, cross, None, cross_bias, cache=past, step=step)

      x, past = self._run(layer_fn, x, tuple(zip(past, cross, strict=True)), shared)
    else:
      # The whole cache is carried and written in place; as a scanned input and
      # output it would be copied at every step.
      def scanned_fn(
        layer: DecoderLayer,
        carry: tuple[jax.Array, Any],
        held: tuple[jax.Array, KeysValues],
        step: Any,
        cross_bias: jax.Array,
      ) -> tuple[tuple[jax.Array, Any], None]:
        x, past = carry
        row, cross = held
        x, written = layer(x, cross, None, cross_bias, cache=past, step=step, layer=row)
        return (x, written), None

      rows = jnp.arange(config.num_decoder_layers, dtype=jnp.int32)
      (x, past), _ = self._run(scanned_fn, (x, past), (rows, cross), shared)
    return self.decoder_norm(x), layout.end_step(step, past)

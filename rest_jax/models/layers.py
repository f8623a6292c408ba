"""Building blocks of T5: projections, norm, embedding, attention, MLP.

Parameters are float32 under T5X's names and shapes. Each carries logical axis
names, for the sharding rules of the mesh to map:

    vocab           rows of the embedding table, columns of the logits kernel
    embed           the residual stream
    joined_kv       all heads side by side, heads * head_dim
    heads           heads of the relative position table
    relpos_buckets  columns of that table
    mlp             hidden width of the feed-forward block
    layers          the stacked axis (axis 1) when layers are scanned

Activations are constrained by: batch, samples, length (decoder positions),
source_length, vocab, embed, heads, kv (head_dim), mlp. A mesh axis serves one
array axis at most and the earlier rule wins, so rules list `batch` before
`embed`. Without rules the constraints do nothing.

Source: T5 (arXiv:1910.10683) and GLU variants (arXiv:2002.05202), in the
parametrisation of T5X. No biases anywhere; attention is not divided by
sqrt(head_dim), the query initialiser is.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rest_jax.models import cpu_products, quantisation

# Added to masked attention scores; finite, so that a row without any visible
# key (a source of padding alone) gives a uniform average and no NaN.
MASKED = -1e10
NORM_EPSILON = 1e-6

Initialiser = Callable[..., jax.Array]

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'gelu': functools.partial(jax.nn.gelu, approximate=True),
  'linear': lambda x: x,
  'relu': jax.nn.relu,
  'silu': jax.nn.silu,
}

_attention_init = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
dense_init = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
  """Names x's axes for the sharding rules, if there are any."""
  return nn.with_logical_constraint(x, axes)


def constrain_stream(x: jax.Array, width: str) -> jax.Array:
  """As `constrain`, for an encoder (rank 3) or decoder (rank 4) stream."""
  if x.ndim == 3:  # [batch, source_length, width]
    return constrain(x, 'batch', 'source_length', width)
  return constrain(x, 'batch', 'samples', 'length', width)


def parameter(
  module: nn.Module,
  name: str,
  init: Initialiser,
  axes: tuple[str | None, ...],
  shape: tuple[int, ...],
) -> jax.Array:
  """Declares a float32 parameter with a logical name for each axis."""
  value: Any = module.param(
    name, nn.with_logical_partitioning(init, axes), shape, jnp.float32
  )
  return value


def operand_type(kernel: jax.Array, dtype: str) -> Any:
  """What a kernel and what meets it are rounded to before they are multiplied.

  `dtype`, but bfloat16 where the kernel is: see `quantisation.Bfloat16`.
  """
  return kernel.dtype if kernel.dtype == jnp.bfloat16 else dtype


class Projection(nn.Module):
  """A linear map of the last axis, without bias.

  Attributes:
    features: width of the result.
    axes: logical names of the kernel's two axes.
    dtype: type of the computation and of the result.
    kernel_init: initialiser of the kernel [inputs, features].
  """

  features: int
  axes: tuple[str | None, str | None]
  dtype: str = 'float32'
  kernel_init: Initialiser = dense_init

  @nn.compact
  def __call__(self, x: jax.Array, *, transposed: bool = False) -> jax.Array:
    """Maps [..., inputs] to [..., features]; transposed, to [features, ...].

    Transposed by the product itself: a TPU's compiler copied the logits otherwise.
    """
    kernel = parameter(
      self, 'kernel', self.kernel_init, self.axes, (x.shape[-1], self.features)
    )
    if isinstance(kernel, quantisation.QuantisedKernel):
      projected = quantisation.project(x.astype(self.dtype), kernel)
      return jnp.moveaxis(projected, -1, 0) if transposed else projected
    narrow = operand_type(kernel, self.dtype)
    kernel, x = kernel.astype(narrow), x.astype(narrow)
    einsum = functools.partial(jnp.einsum, preferred_element_type=self.dtype)
    if transposed:
      return einsum('io,...i->o...', kernel, x)
    return einsum('...i,io->...o', x, kernel)


class RootMeanSquareNorm(nn.Module):
  """x * scale / sqrt(mean(x^2) + 1e-6) over the last axis, computed in float32.

  Source: arXiv:1910.07467, as T5 uses it: no mean, no bias. Departure from
  T5X: the scale multiplies before the result is cast to `dtype`.
  """

  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises [..., embed]."""
    scale = parameter(self, 'scale', nn.initializers.ones, ('embed',), (x.shape[-1],))
    x = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    scale = scale.reshape((1,) * (x.ndim - 1) + scale.shape)
    return (x * jax.lax.rsqrt(mean_square + NORM_EPSILON) * scale).astype(self.dtype)


class TokenEmbedder(nn.Module):
  """The embedding table, read by token and, when tied, by the logits.

  Attributes:
    vocab_size: rows of the table.
    emb_dim: columns of the table.
    dtype: type of the embedded tokens.
  """

  vocab_size: int
  emb_dim: int
  dtype: str = 'float32'

  def setup(self) -> None:
    """Declares the table."""
    self.embedding = parameter(
      self,
      'embedding',
      nn.initializers.normal(stddev=1.0),
      ('vocab', 'embed'),
      (self.vocab_size, self.emb_dim),
    )

  def __call__(self, tokens: jax.Array) -> jax.Array:
    """Embeds [batch, source_length] or [batch, samples, length] tokens.

    An id past the table gives NaN: clamped, it would go unnoticed.
    """
    axes = ('source_length',) if tokens.ndim == 2 else ('samples', 'length')
    tokens = constrain(tokens, 'batch', *axes)
    # Whole rows of the table: with `embed` sharded, the compiler would else pick
    # pieces of rows for all tokens and replicate them to shard by `batch` again.
    table = self.embedding
    if isinstance(table, cpu_products.TwoWayTable):
      table = table.rows
    table = jax.tree.map(lambda x: constrain(x, 'vocab', None), table)
    if isinstance(table, quantisation.QuantisedKernel):
      embedded = quantisation.rows_of(table, tokens)
    else:
      embedded = jnp.take(table, tokens, axis=0)
    return constrain_stream(embedded.astype(self.dtype), 'embed')

  def attend(self, x: jax.Array, *, transposed: bool = False) -> jax.Array:
    """Tied logits [..., vocab], float32: x / sqrt(embed) . embedding^T.

    Transposed: [vocab, ...], see `Projection`.

    Departure from T5X, which divides the logits: x is far narrower.
    """
    x = x.astype(jnp.float32) / math.sqrt(self.emb_dim)
    if isinstance(self.embedding, quantisation.QuantisedKernel):
      logits = quantisation.project(x, self.embedding, inputs_axis=1)
      return jnp.moveaxis(logits, -1, 0) if transposed else logits
    table = self.embedding
    if isinstance(table, cpu_products.TwoWayTable):
      if not transposed:
        return jnp.einsum('...e,ev->...v', x, table.turned)
      table = table.rows
    x = x.astype(operand_type(table, 'float32'))
    einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    if transposed:
      return einsum('ve,...e->v...', table, x)
    return einsum('...e,ve->...v', x, table)


def mask_bias(mask: jax.Array) -> jax.Array:
  """0 where the boolean mask keeps, a large negative number elsewhere."""
  return jnp.where(mask, 0.0, MASKED).astype(jnp.float32)


class Attention(nn.Module):
  """Multi-head attention of T5; the callers hold the keys and values.

  softmax(q . k + bias) v, with scores and softmax in float32.

  Attributes:
    num_heads: heads.
    head_dim: width of a head.
    emb_dim: width of the residual stream.
    dropout_rate: of the probabilities, one mask for all queries of a sequence.
    dtype: type of the projections.
  """

  num_heads: int
  head_dim: int
  emb_dim: int
  dropout_rate: float = 0.0
  dtype: str = 'float32'

  def setup(self) -> None:
    """Makes the sub-modules."""

    def query_init(*args: Any) -> jax.Array:
      return _attention_init(*args) / math.sqrt(self.head_dim)

    def projection(init: Initialiser) -> Projection:
      return Projection(
        self.num_heads * self.head_dim, ('embed', 'joined_kv'), self.dtype, init
      )

    self.query = projection(query_init)
    self.key = projection(_attention_init)
    self.value = projection(_attention_init)
    self.out = Projection(
      self.emb_dim, ('joined_kv', 'embed'), self.dtype, _attention_init
    )
    self.dropout = nn.Dropout(self.dropout_rate, broadcast_dims=(-2,))

  def _split(self, x: jax.Array) -> jax.Array:
    # [..., heads * head_dim] -> [..., heads, head_dim]
    x = x.reshape(x.shape[:-1] + (self.num_heads, self.head_dim))
    lengths = ('source_length',) if x.ndim == 4 else ('samples', 'length')
    return constrain(x, 'batch', *lengths, 'heads', 'kv')

  def keys_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Projects [..., length, embed] to twice [..., length, heads, head_dim]."""
    return self._split(self.key(x)), self._split(self.value(x))

  def attend(
    self,
    x: jax.Array,  # [..., query_length, embed], the queries' stream
    keys: jax.Array,  # [..., key_length, heads, head_dim]
    values: jax.Array,  # [..., key_length, heads, head_dim]
    bias: jax.Array,  # broadcasts to [..., heads, query_length, key_length]
    *,
    enable_dropout: bool = False,
  ) -> jax.Array:  # [..., query_length, embed]
    """Attends from each sequence to its own keys (self-attention)."""
    query = self._split(self.query(x))  # [..., query_length, heads, head_dim]
    probs = self._probabilities(query, keys, bias)
    probs = self.dropout(probs, deterministic=not enable_dropout)
    mixed = jnp.einsum('...hqk,...khd->...qhd', probs.astype(self.dtype), values)
    return self.out(mixed.reshape(x.shape[:-1] + (-1,)))

  def attend_shared(
    self,
    x: jax.Array,  # [batch, samples, length, embed]
    keys: jax.Array,  # [batch, heads, source_length, head_dim]
    values: jax.Array,  # [batch, heads, source_length, head_dim]
    bias: jax.Array,  # [batch, 1, 1, source_length], from `mask_bias`
    *,
    enable_dropout: bool = False,
  ) -> jax.Array:  # [batch, samples, length, embed]
    """Attends from all candidates of a group to the keys of their one source.

    Samples and length become one axis of queries, so one matrix product per
    source and head serves the whole group and no key is copied. Copying the
    keys to every sample made a whole decoding step 1.6 times as long on two CPU
    cores (6 layers, 512 wide, 16 sources x 25 samples, source 16, cache 64).
    """
    batch, samples, length, _ = x.shape
    query = self._split(self.query(x))
    # [batch, samples, length, heads, head_dim] -> [batch, queries, heads, head_dim]
    query = query.reshape(batch, samples * length, self.num_heads, self.head_dim)
    scores = jnp.einsum(
      'bqhd,bhkd->bhqk', query, keys, preferred_element_type=jnp.float32
    )
    probs = jax.nn.softmax(scores + bias, axis=-1)  # [batch, heads, queries, source]
    if enable_dropout and self.dropout_rate:
      # One mask per candidate: [batch, heads, samples, 1, source_length].
      unfolded = probs.reshape(batch, self.num_heads, samples, length, probs.shape[-1])
      probs = self.dropout(unfolded, deterministic=False).reshape(probs.shape)
    mixed = jnp.einsum('bhqk,bhkd->bqhd', probs.astype(self.dtype), values)
    return self.out(mixed.reshape(batch, samples, length, -1))

  def queries(self, x: jax.Array) -> jax.Array:
    """Projects [..., length, embed] to [..., length, heads, head_dim]."""
    return self._split(self.query(x))

  def joined(self, mixed: jax.Array) -> jax.Array:
    """Projects mixed values [..., heads, head_dim] to [..., embed]."""
    return self.out(mixed.reshape(*mixed.shape[:-2], -1))

  def _probabilities(
    self, query: jax.Array, keys: jax.Array, bias: jax.Array
  ) -> jax.Array:
    scores = jnp.einsum(
      '...qhd,...khd->...hqk', query, keys, preferred_element_type=jnp.float32
    )
    bias = bias.reshape((1,) * (scores.ndim - bias.ndim) + bias.shape)
    return jax.nn.softmax(scores + bias, axis=-1)


class Mlp(nn.Module):
  """Feed-forward block: wo(product over i of activation_i(wi_i(x))).

  One activation gives the kernel `wi` (T5 1.0), more give `wi_0`, `wi_1`.

  Attributes:
    mlp_dim: hidden width.
    activations: names of the activations.
    dropout_rate: of the hidden layer, one mask along length.
    dtype: type of the computation.
  """

  mlp_dim: int
  activations: Sequence[str]
  dropout_rate: float = 0.0
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: jax.Array, *, enable_dropout: bool = False) -> jax.Array:
    """Maps [..., length, embed] to the same shape."""
    hidden = []
    for i, name in enumerate(self.activations):
      kernel_name = 'wi' if len(self.activations) == 1 else f'wi_{i}'
      projected = Projection(
        self.mlp_dim, ('embed', 'mlp'), self.dtype, name=kernel_name
      )(x)
      hidden.append(_ACTIVATIONS[name](projected))
    product = functools.reduce(operator.mul, hidden)
    product = nn.Dropout(self.dropout_rate, broadcast_dims=(-2,))(
      product, deterministic=not enable_dropout
    )
    product = constrain_stream(product, 'mlp')
    return Projection(x.shape[-1], ('mlp', 'embed'), self.dtype, name='wo')(product)

"""Kernels in fewer bits: 8-bit integers by the library Qwix, or bfloat16.

**Int8.** Each output of a kernel is a channel with a scale of its own, symmetric
about 0:

    scale[o] = max_i |kernel[i, o]| / 127
    q[i, o]  = round(kernel[i, o] / scale[o]), from -127 to 127

so a dequantised weight q * scale lies within half a scale of the original. A row of
the embedding, a token's, is a channel as well: an output where logits are tied.

**Bfloat16.** Kernels and embeddings are rounded to bfloat16. What meets them in a
product is rounded too, and the product's sums are those of the config's dtype.

Either way every projection is rounded (of attention, of the feed-forward blocks, the
logits') and the embedding; attention, norms, softmax, the residual stream, relative
position biases and the heads of reward and value models stay as they are. A CPU with
AVX512_BF16 multiplies bfloat16 at twice its rate of float32; one with AMX at six
times, and 8-bit integers at twelve (jax 0.10, benchmarks/README.md).

Quantised parameters take the place of the originals in the tree that `T5.apply`
gets; the model finds out from the tree, so whoever holds parameters and config,
such as the sampler or the scorer, needs no other argument. They are for inference only.

Qwix is optional, the extra `quantised`, and imported when it is needed: for Int8.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

KERNEL = 'kernel'  # the name of every projection's parameter, see `layers`
EMBEDDING = 'embedding'  # the name of the embedding table
HEAD = 'head'  # the module of a reward or value model's scalars, see `heads`
# Qwix maps the largest magnitude to 127.5, midway between two integers: of the inputs
# of one product, the last bit decided whether -127 or -128 was meant, so that two
# programs of one policy disagreed by 0.04 nats. With this factor it is 127.
CALIBRATION = f'absmax,{127.5 / 127!r}'


@dataclasses.dataclass(frozen=True)
class Int8:
  """How 8-bit kernels are multiplied.

  Attributes:
    inputs: whether each row that meets a kernel is rounded to 8 bits as well, with
      a scale of its own: products of integers, summed in int32. Without it the
      kernel is dequantised where it is used and multiplies in the config's dtype,
      which saves memory but no arithmetic.
  """

  inputs: bool = False


@dataclasses.dataclass(frozen=True)
class Bfloat16:
  """Kernels and embeddings in bfloat16, multiplied as such."""


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['weights'],
  meta_fields=['settings'],
)
@dataclasses.dataclass(frozen=True)
class QuantisedKernel:
  """Stands for a kernel or the embedding in the parameter tree.

  Attributes:
    weights: a qwix.QArray: `qvalue` int8 of the kernel's shape, `scale` float32 of
      1 in place of the inputs. Scanned layers lie on axis 1 of both.
    settings: how it multiplies.
  """

  weights: Any
  settings: Int8


def quantise(params: Mapping[str, Any], settings: Int8 | Bfloat16) -> dict[str, Any]:
  """Replaces every kernel and the embedding of a model by fewer bits.

  Args:
    params: as `T5.apply` takes them, unboxed; looped or scanned. Kernels that lie
      in shards stay so.
    settings: which, and how the kernels multiply.

  Returns:
    The tree with its kernels and embedding as QuantisedKernel (Int8) or in bfloat16
    (Bfloat16), and the other parameters as they are.

  Raises:
    ValueError: Qwix is not installed and Int8 asked for, or there is no float32
      kernel to quantise.
  """
  replaced = traverse_util.flatten_dict(params)
  kernels = [path for path in replaced if path[-1] == KERNEL and path[0] != HEAD]
  if not kernels:
    raise ValueError(
      f'no parameter is named {KERNEL!r}, so there is nothing to quantise; give the '
      'whole tree of a model'
    )
  for path in kernels:
    if getattr(replaced[path], 'dtype', None) != jnp.float32:
      raise ValueError(
        f'{"/".join(path)} is quantised already; give the float32 parameters'
      )
  if isinstance(settings, Int8):
    _library()  # fails at once without it
  for path in replaced:
    if path in kernels or path[-1] == EMBEDDING:
      replaced[path] = _shrink(replaced[path], settings, path[-1] == EMBEDDING)
  return traverse_util.unflatten_dict(replaced)


@functools.partial(jax.jit, static_argnames=('settings', 'is_embedding'))
def _shrink(kernel: jax.Array, settings: Int8 | Bfloat16, is_embedding: bool) -> Any:
  """What takes the place of a kernel, or of the embedding."""
  if isinstance(settings, Bfloat16):
    return kernel.astype(jnp.bfloat16)
  # Every axis but that of the inputs has scales of its own: [inputs, outputs],
  # [inputs, layers, outputs], or the embedding's [outputs, inputs].
  channels = [0] if is_embedding else range(1, kernel.ndim)
  return QuantisedKernel(_round(kernel, channels), settings)


def project(
  x: jax.Array,  # [..., inputs]
  kernel: QuantisedKernel,  # [inputs, outputs]; of the embedding, [outputs, inputs]
  *,
  inputs_axis: int = 0,
) -> jax.Array:  # [..., outputs], of x's type
  """x . kernel, as `kernel.settings` say; inputs_axis is the kernel's.

  Rows and scales are float32 whatever the type of x: in bfloat16 a scale would
  lose 16 of its 24 bits for all weights of its channel alike.
  """
  qwix = _library()
  contracted = ((x.ndim - 1,), (inputs_axis,)), ((), ())
  if not kernel.settings.inputs:
    weights = qwix.dequantize(kernel.weights).astype(x.dtype)
    return jax.lax.dot_general(x, weights, contracted)
  rows = _round(x.astype(jnp.float32), range(x.ndim - 1))
  # Qwix multiplies int32 sums by float32 scales, which 'strict' would refuse.
  with jax.numpy_dtype_promotion('standard'):
    return qwix.dot_general(rows, kernel.weights, contracted).astype(x.dtype)


def rows_of(
  table: QuantisedKernel,  # [vocab, embed]
  tokens: jax.Array,  # [...] int32
) -> jax.Array:  # [..., embed] float32
  """The embeddings of tokens; NaN for an id past the table."""
  scales = jnp.take(table.weights.scale, tokens, axis=0)
  return jnp.take(table.weights.qvalue, tokens, axis=0).astype(jnp.float32) * scales


def dequantise(params: Mapping[str, Any]) -> dict[str, Any]:
  """The tree with float32 kernels again: those that the quantised ones stand for."""
  qwix = _library()

  def widen(leaf: Any) -> Any:
    if not isinstance(leaf, QuantisedKernel):
      return leaf
    return qwix.dequantize(leaf.weights)

  return jax.tree.map(widen, dict(params), is_leaf=_is_quantised)


def bytes_a_parameter(params: Any) -> float:
  """Bytes that a tree's arrays take, scales included, for each parameter.

  4 for float32; between 1 and 4 with quantised kernels, about 2 in bfloat16.
  """
  leaves = jax.tree.leaves(params, is_leaf=_is_quantised)
  arrays = jax.tree.leaves(params)
  num_parameters = sum(
    leaf.weights.qvalue.size if _is_quantised(leaf) else leaf.size for leaf in leaves
  )
  return sum(x.size * x.dtype.itemsize for x in arrays) / num_parameters


def _round(x: jax.Array, axes: Sequence[int]) -> Any:
  """A qwix.QArray of x, with a scale for each place along these axes."""
  return _library().quantize(
    x, jnp.int8, channelwise_axes=axes, calibration_method=CALIBRATION
  )


def _is_quantised(leaf: Any) -> bool:
  return isinstance(leaf, QuantisedKernel)


def _library() -> Any:
  try:
    import qwix
  except ImportError as error:
    raise ValueError(
      '8-bit kernels need the package qwix, which cannot be imported '
      f"({error}): install the extra, pip install 'rest_jax[quantised]', or leave "
      'quantisation out'
    ) from error
  return qwix

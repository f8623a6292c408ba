"""A T5 that gives one number per decoder position: reward and value models."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from rest_jax.models import layers
from rest_jax.models.t5 import GroupEncoderDecoder


class ScalarHead(nn.Module):
  """x . kernel + bias, a scalar per position in float32, starting near 0."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:  # [..., embed] -> [...]
    """One scalar per position."""
    kernel = layers.parameter(
      self,
      'kernel',
      nn.initializers.normal(stddev=0.01),
      ('embed', None),
      (x.shape[-1], 1),
    )
    bias = layers.parameter(self, 'bias', nn.initializers.zeros, (None,), (1,))
    scalars = jnp.einsum('...e,eo->...o', x.astype(jnp.float32), kernel)[..., 0]
    return scalars + bias[0]


class ScalarHeadT5(GroupEncoderDecoder):
  """The policy's encoder-decoder with a scalar head in place of the logits.

  Has the sub-modules of T5 under the same names, without `logits_dense`, and
  `head` (kernel [embed, 1], bias [1]). A reward model reads the scalar of each
  candidate's last token (`read_last`), a value model all of them.
  """

  has_logits = False

  def setup(self) -> None:
    """Makes the sub-modules."""
    super().setup()
    self.head = ScalarHead()

  def __call__(
    self,
    encoder_input_tokens: jax.Array,  # [batch, source_length] int32, 0 is padding
    decoder_input_tokens: jax.Array,  # [batch, samples, length] int32
    *,
    enable_dropout: bool = False,
  ) -> jax.Array:  # [batch, samples, length] float32
    """A scalar at every decoder position of every candidate."""
    encoded = self.encode(encoder_input_tokens, enable_dropout=enable_dropout)
    return self.head(
      self.decode_features(
        encoded,
        encoder_input_tokens,
        decoder_input_tokens,
        enable_dropout=enable_dropout,
      )
    )


def read_last(
  scalars: jax.Array,  # [batch, samples, length]
  lengths: jax.Array,  # [batch, samples] int32, tokens per candidate
) -> jax.Array:  # [batch, samples]
  """The scalar at index lengths - 1, each candidate's last token.

  A length of 0 (an empty sample slot) gives exactly 0 and a zero gradient, also
  where the scalars are not finite. A length beyond the array, a candidate cut
  by the batch, reads the last position.

  Raises:
    ValueError: when the shapes disagree.
  """
  if scalars.ndim != 3 or lengths.shape != scalars.shape[:2]:
    raise ValueError(
      f'scalars has shape {scalars.shape} and lengths {lengths.shape}; they must '
      'be [batch, samples, length] and [batch, samples]. Give one length per '
      'candidate.'
    )
  last = jnp.clip(lengths - 1, 0, scalars.shape[2] - 1)
  picked = jnp.take_along_axis(scalars, last[:, :, None], axis=2)[:, :, 0]
  return jnp.where(lengths > 0, picked, jnp.zeros_like(picked))


def warm_start(
  head_params: Mapping[str, Any],
  policy_params: Mapping[str, Any],
) -> dict[str, Any]:
  """Starts a scalar-head model from a policy: all shared parameters are copied.

  The head keeps its own initial values; the policy's `logits_dense` is not
  used. Both trees hold arrays (see `flax.linen.unbox`). The leaves are shared,
  not duplicated: JAX arrays do not change, but donating one tree's buffers
  takes them from the other.

  Args:
    head_params: parameters of ScalarHeadT5.
    policy_params: parameters of T5 of the same shape.

  Returns:
    A new tree with the structure of `head_params`.

  Raises:
    ValueError: naming the first parameter that is absent or differs in shape,
      or that the policy has and the head model lacks.
  """
  head = traverse_util.flatten_dict(head_params, sep='/')
  policy = traverse_util.flatten_dict(policy_params, sep='/')
  remedy = (
    'Give both models one configuration: layers, widths, vocabulary, '
    'activations and scan_layers.'
  )
  started = {}
  for name in sorted(head):
    if name.startswith(('head/', 'likelihood/')):
      started[name] = head[name]
      continue
    if name not in policy:
      raise ValueError(f'the policy has no parameter {name!r}. {remedy}')
    if policy[name].shape != head[name].shape:
      raise ValueError(
        f'parameter {name!r} is {policy[name].shape} in the policy and '
        f'{head[name].shape} in the scalar-head model. {remedy}'
      )
    started[name] = policy[name]
  for name in sorted(set(policy) - set(head)):
    if not name.startswith('decoder/logits_dense/'):
      raise ValueError(
        f'the scalar-head model has no parameter {name!r}, which the policy '
        f'has. {remedy}'
      )
  return traverse_util.unflatten_dict(started, sep='/')

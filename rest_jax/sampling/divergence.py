"""How far a policy has moved: the KL divergence to another, on its own samples."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.data import batches, buckets, group_store
from rest_jax.models import t5
from rest_jax.training import mesh as mesh_lib

Policy = tuple[t5.T5Config, Any]  # shape and parameters

BATCH_SIZE = 32  # sources compared together, in whole shards of the mesh


def token_kl(
  logits: jax.Array,  # [..., vocab] float32
  base_logits: jax.Array,  # [..., vocab] float32
) -> jax.Array:  # [...] float32, nats
  """KL(softmax(logits) || softmax(base_logits)), exact over the vocabulary.

  sum_v p_v (log p_v - log q_v); a token with p = 0 adds nothing.
  """
  log_p = jax.nn.log_softmax(logits, axis=-1)
  log_q = jax.nn.log_softmax(base_logits, axis=-1)
  p = jnp.exp(log_p)
  return jnp.sum(jnp.where(p > 0, p * (log_p - log_q), 0.0), axis=-1)


@functools.partial(jax.jit, static_argnames=('config', 'base_config'))
def batch_kl(
  params: Any,
  base_params: Any,
  batch: dict[str, jax.Array],
  *,
  config: t5.T5Config,
  base_config: t5.T5Config,
) -> jax.Array:  # [batch, samples] float32, nats
  """KL(policy || base) of each candidate of a batch, see `sequence_kl`."""
  inputs = batch['encoder_input_tokens'], batch['decoder_input_tokens']
  logits = t5.T5(config).apply({'params': params}, *inputs)
  base_logits = t5.T5(base_config).apply({'params': base_params}, *inputs)
  kl = token_kl(logits, base_logits)  # [batch, samples, length]
  return jnp.sum(kl * batch['decoder_loss_weights'], axis=-1)


def sequence_kl(
  policy: Policy,
  base: Policy,
  samples: Sequence[group_store.Group],
  *,
  mesh: jax.sharding.Mesh,
  source_length: int,
  target_length: int,
  batch_size: int = BATCH_SIZE,
) -> list[np.ndarray]:
  """Returns per group [samples] float32: KL(policy || base) in nats a sequence.

  At each prefix of each sample the divergence of the next token is summed over
  the whole vocabulary, not estimated from the token that was drawn, and the
  prefixes of a sample are added up. Both policies are untempered; the prefixes
  are those that the samples visit. Never negative, and 0 for equal policies.

  Args:
    policy, base: shape and parameters of both.
    samples: of the policy.
    mesh: the devices.
    source_length, target_length: the most tokens of a source and of a sample, for the
      few padded lengths that programs are compiled for.
    batch_size: sources compared together.
  """
  (config, params), (base_config, base_params) = policy, base
  batch_size = whole_rows(mesh, batch_size)
  divergences: list[np.ndarray] = [np.zeros(0, np.float32)] * len(samples)
  order = np.argsort([len(group.source_tokens) for group in samples], kind='stable')
  most = max(group.num_candidates for group in samples)
  source_lengths = buckets.lengths_up_to(source_length)
  target_lengths = buckets.lengths_up_to(target_length)
  for start in range(0, len(order), batch_size):
    rows = order[start : start + batch_size]
    groups = [samples[row] for row in rows]
    longest_source = max(len(group.source_tokens) for group in groups)
    longest = max(len(tokens) for group in groups for tokens in group.tokens)
    batch = batches.group_batch(
      groups,
      batch=batch_size,
      samples=most,
      source_length=buckets.bucket(longest_source, source_lengths),
      target_length=buckets.bucket(longest, target_lengths),
    )
    kl = mesh_lib.fetch(
      batch_kl(
        params,
        base_params,
        mesh_lib.put_batch(mesh, batch),
        config=config,
        base_config=base_config,
      )
    )
    for place, row in enumerate(rows):
      divergences[row] = kl[place, : samples[row].num_candidates]
  return divergences


def whole_rows(mesh: jax.sharding.Mesh, batch_size: int = BATCH_SIZE) -> int:
  """So many sources that the mesh divides them, at least one a shard."""
  shards = mesh_lib.batch_shards(mesh)
  return max(shards, batch_size // shards * shards)

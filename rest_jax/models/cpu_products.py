"""Float32 products on a CPU, in the library and the order that are faster there.

XLA's compiler for CPUs gives products to YNNPACK, or, where that is kept from them, to
Eigen. On a CPU with AVX-512 and AMX, one core, GFLOP/s (jax 0.10.2; [128, inputs] times
[inputs, outputs]):

    inputs, outputs     192, 4000   192, 512   512, 192   192, 192
    YNNPACK                   140        154        144        143
    Eigen                     167        180        174        193
    Eigen, [outputs, inputs]   94        101        102        154

So the decoder loop of a float32 policy is compiled for Eigen, and of an embedding that
is tied to the logits a turned copy lies beside the original: `for_decoding`. All else
stays with YNNPACK, which alone knows AMX: bfloat16 and 8-bit products take four times
as long in Eigen. So do the forward and backward passes of training and scoring, which
are as fast with either.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from rest_jax.models.config import T5Config

# What YNNPACK is left with, of products, sums and element-wise operations: its sums of
# exponentials are faster than XLA's own.
OPTIONS = (('xla_cpu_experimental_ynn_fusion_type', 'LIBRARY_FUSION_TYPE_REDUCE'),)

Options = tuple[tuple[str, str], ...]


@functools.cache
def options(device: jax.Device) -> Options:
  """OPTIONS where float32 products gain by them: on CPUs, if this jaxlib knows them."""
  if device.platform != 'cpu':
    return ()
  try:
    jax.jit(jnp.negative, compiler_options=dict(OPTIONS))(jax.device_put(0.0, device))
  except jax.errors.JaxRuntimeError as error:
    logging.info("Float32 products stay in the library of XLA's choice: %s", error)
    return ()
  return OPTIONS


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=['rows', 'turned'], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class TwoWayTable:
  """Stands for the embedding in the parameter tree.

  Attributes:
    rows: [vocab, embed], a token's embedding each.
    turned: [embed, vocab], the kernel of the tied logits.
  """

  rows: jax.Array
  turned: jax.Array


def for_decoding(
  params: Mapping[str, Any], config: T5Config, mesh: jax.sharding.Mesh
) -> tuple[Mapping[str, Any], Options]:
  """What the decoder loop is to run with.

  Args:
    params: as `T5.apply` takes them, on the mesh.
    config: the policy's shape.
    mesh: where it runs.

  Returns:
    The parameters, a tied embedding as TwoWayTable, and the options that XLA
    compiles the loop with. Both as they were, and no options, on other devices than
    CPUs and for policies that multiply anything but float32.
  """
  found = options(mesh.local_devices[0])
  in_float32 = config.dtype == 'float32' and all(
    leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params)
  )
  if not found or not in_float32:
    return params, ()
  if config.logits_via_embedding:
    embedder = dict(params['token_embedder'])
    embedder['embedding'] = _both_ways(embedder['embedding'])
    params = {**params, 'token_embedder': embedder}
  return params, found


def _both_ways(table: jax.Array) -> TwoWayTable:
  """The table and its transpose, which lies on the same devices along its axes."""
  sharding = table.sharding
  if isinstance(sharding, jax.sharding.NamedSharding):
    axes = (*sharding.spec, None, None)[:2]
    sharding = jax.sharding.NamedSharding(
      sharding.mesh, jax.sharding.PartitionSpec(*axes[::-1])
    )
  return TwoWayTable(table, jax.jit(jnp.transpose, out_shardings=sharding)(table))

"""How fast the machine multiplies matrices, and what a generated token needs."""

import functools
import time

import jax
import jax.numpy as jnp

from rest_jax.models import cpu_products, t5

# [rows, inner] x [inner, columns]: a decoder step of 512 candidates on a CPU. An
# accelerator needs larger ones to reach its ceiling.
CPU_SHAPE = (512, 512, 2048)
ACCELERATOR_SHAPE = (8192, 8192, 8192)
# The types that are multiplied, and that of the sums.
SUMS = {'float32': jnp.float32, 'bfloat16': jnp.float32, 'int8': jnp.int32}


def matmul_gflops(dtype: str, *, seconds: float = 1.0) -> float:
  """The best rate of a matrix product in 1e9 operations a second.

  2 * rows * inner * columns operations; the fastest of the calls that fit into
  `seconds`, in float32 on a CPU with the faster of XLA's libraries. It depends on what
  else runs: measure it in the same run.

  Args:
    dtype: of the factors, a key of SUMS.
    seconds: how long to try, at least three calls.
  """
  on_cpu = jax.default_backend() == 'cpu'
  rows, inner, columns = CPU_SHAPE if on_cpu else ACCELERATOR_SHAPE
  left = jnp.ones((rows, inner), dtype)
  right = jnp.ones((inner, columns), dtype)
  product = functools.partial(jnp.matmul, preferred_element_type=SUMS[dtype])
  faster = cpu_products.options(jax.devices()[0]) if dtype == 'float32' else ()
  libraries = {(), faster}
  best = float('inf')
  for options in libraries:
    multiply = jax.jit(product, compiler_options=dict(options))
    multiply(left, right).block_until_ready()
    calls = 0
    end = time.perf_counter() + seconds / len(libraries)
    while calls < 3 or time.perf_counter() < end:
      started = time.perf_counter()
      multiply(left, right).block_until_ready()
      best = min(best, time.perf_counter() - started)
      calls += 1
  return 2e-9 * rows * inner * columns / best


@functools.cache
def token_flops(
  config: t5.T5Config, *, source_length: float, target_length: float
) -> float:
  """Floating-point operations of the decoder for one generated token.

  2 * (parameters of the decoder's matrices that a token meets)
  + 4 * layers * heads * head_dim * (source_length + target_length / 2)

  The matrices: self-attention's four, cross-attention's query and output (its
  keys and values are projected once a source), the feed-forward block's, and the
  logits'. Left out: the encoder, the keys and values of the source, norms,
  softmax, the draw. A candidate is counted as if decoded alone: what is shared
  between candidates raises the rate, not the count.

  Args:
    config: the model's shape.
    source_length: mean tokens of a source.
    target_length: mean tokens of a candidate; half of them are past on average.
  """
  width, joined = config.emb_dim, config.joined_dim
  attention = 6 * width * joined
  mlp = (len(config.mlp_activations) + 1) * width * config.mlp_dim
  matrices = config.num_decoder_layers * (attention + mlp) + width * config.vocab_size
  past = source_length + target_length / 2
  return 2 * matrices + 4 * config.num_decoder_layers * joined * past

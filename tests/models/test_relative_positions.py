"""Relative position buckets against exact arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.models import relative_positions


def slow_bucket(relative: int, bidirectional: bool, buckets: int, far: int) -> int:
  """T5's bucket of one relative position, in exact integers.

  A distance d lands exact + b whenever (d / exact)^(buckets - exact) is at least
  (far / exact)^b, the formula's logarithms removed.
  """
  result = 0
  if bidirectional:
    buckets //= 2
    result = buckets if relative > 0 else 0
    distance = abs(relative)
  else:
    distance = max(-relative, 0)
  exact = buckets // 2
  if distance < exact:
    return result + distance
  steps = buckets - exact
  b = 0
  while b + 1 < steps and (
    distance**steps * exact ** (b + 1) >= far ** (b + 1) * exact**steps
  ):
    b += 1
  return result + exact + b


@pytest.mark.parametrize('bidirectional', [True, False])
@pytest.mark.parametrize(('buckets', 'far'), [(32, 128), (16, 40), (4, 9)])
def test_buckets_equal_exact_arithmetic(bidirectional, buckets, far):
  relative = np.arange(-300, 301, dtype=np.int32)
  got = jax.jit(
    lambda x: relative_positions.relative_position_buckets(
      x, bidirectional=bidirectional, num_buckets=buckets, max_distance=far
    )
  )(relative)
  want = [slow_bucket(int(r), bidirectional, buckets, far) for r in relative]
  np.testing.assert_array_equal(got, want)
  assert got.dtype == jnp.int32


def test_buckets_worked_by_hand():
  # Causal, 32 buckets, 128: exact below 16; 16 * 8^(b/16) gives the borders:
  # 16, 18.2, 20.7, 23.6, ... so 18 is still bucket 16 and 19 is bucket 17.
  relative = jnp.array([5, 0, -1, -15, -16, -18, -19, -127, -128, -1000], jnp.int32)
  got = relative_positions.relative_position_buckets(
    relative, bidirectional=False, num_buckets=32, max_distance=128
  )
  np.testing.assert_array_equal(got, [0, 0, 1, 15, 16, 16, 17, 31, 31, 31])


def test_relative_bias_reads_the_table_by_bucket():
  module = relative_positions.RelativePositionBias(2, 8, 20, bidirectional=True)
  table = jnp.arange(16, dtype=jnp.float32).reshape(2, 8)
  positions = jnp.arange(30, dtype=jnp.int32)
  bias = module.apply({'params': {'rel_embedding': table}}, positions[3:5], positions)
  assert bias.shape == (2, 2, 30)
  for head in range(2):
    for q in range(2):
      for k in range(30):
        bucket = slow_bucket(k - (q + 3), True, 8, 20)
        assert bias[head, q, k] == 8 * head + bucket

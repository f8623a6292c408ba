"""Which errors a launcher should start the same command after."""

import jax
import pytest

from rest_jax.training import hosts


@pytest.mark.parametrize(
  'error',
  [
    jax.errors.JaxRuntimeError(
      'UNKNOWN: Gloo all-reduce failed: Read error [127.0.0.1]:8349: Connection reset'
    ),
    jax.errors.JaxRuntimeError('UNAVAILABLE: TPU initialization failed'),
    ConnectionResetError('the object store'),
    TimeoutError('the hosts did not come together'),
  ],
)
def test_what_is_lost_may_come_back(error):
  assert hosts.status_of(error) == hosts.LOST == 75


@pytest.mark.parametrize(
  'error',
  [
    jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes'),
    jax.errors.JaxRuntimeError('INVALID_ARGUMENT: Executable expected 2 arguments'),
    ValueError('THRESHOLDS must rise'),
    FileNotFoundError('train.de.gz'),
  ],
)
def test_what_would_fail_again_is_a_mistake(error):
  assert hosts.status_of(error) == hosts.FAILED == 1

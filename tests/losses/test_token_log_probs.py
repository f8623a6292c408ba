import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
import scipy.special

from rest_jax.losses import token_log_probs as lib

# Compiled whole: op by op, every small operation would be a program of its own.
_compiled = jax.jit(lib.log_probs_and_log_z)
_gradient = jax.jit(jax.grad(lambda x, t: lib.token_log_probs(x, t).sum()))


def _inputs(seed=0, shape=(2, 3, 4, 7), dtype=jnp.float32):
  rng = np.random.default_rng(seed)
  logits = jnp.asarray(3 * rng.normal(size=shape), dtype)
  return logits, jnp.asarray(rng.integers(shape[-1], size=shape[:-1]), jnp.int32)


def _slow(logits, targets):
  """Loops over tokens, in float64."""
  logits = np.asarray(logits.astype(jnp.float32), np.float64)
  log_probs, log_z = np.zeros(targets.shape), np.zeros(targets.shape)
  for index in np.ndindex(*targets.shape):
    log_z[index] = math.log(sum(math.exp(logit) for logit in logits[index]))
    log_probs[index] = logits[index][targets[index]] - log_z[index]
  return log_probs, log_z


def _naive(logits, targets):
  """What autodiff does on its own."""
  log_softmax = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
  chosen = jnp.take_along_axis(log_softmax, targets[..., None], axis=-1)[..., 0]
  return chosen, jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1)


def test_worked_by_hand():
  # Logits log 1, log 2, log 5: probabilities 1/8, 2/8, 5/8 and z = 8.
  logits = jnp.log(jnp.array([1.0, 2.0, 5.0]))[None, None, None] * jnp.ones(
    (1, 1, 3, 1)
  )
  log_probs, log_z = _compiled(logits, jnp.array([[[0, 1, 2]]]))
  expected = [Fraction(1, 8), Fraction(2, 8), Fraction(5, 8)]
  np.testing.assert_allclose(np.exp(log_probs)[0, 0], np.array(expected, float), 1e-6)
  np.testing.assert_allclose(np.exp(log_z)[0, 0], 8, 1e-6)


@pytest.mark.parametrize('jit', [False, True])
def test_equals_a_slow_loop_in_float64(jit):
  logits, targets = _inputs()
  fn = _compiled if jit else lib.log_probs_and_log_z
  for actual, expected in zip(fn(logits, targets), _slow(*_inputs()), strict=True):
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, atol=2e-6)  # float32 at |x| < 16
  alone = lib.token_log_probs(logits, targets)
  np.testing.assert_array_equal(alone, lib.log_probs_and_log_z(logits, targets)[0])


def test_gradients_equal_finite_differences_and_plain_autodiff():
  logits, targets = _inputs(shape=(1, 2, 3, 5))
  rng = np.random.default_rng(1)
  a, b = (jnp.asarray(rng.normal(size=targets.shape), jnp.float32) for _ in range(2))

  def value(fn, logits):
    log_probs, log_z = fn(logits, targets)
    return jnp.sum(a * log_probs + b * jnp.square(log_z))

  ours = jax.jit(lambda logits: value(lib.log_probs_and_log_z, logits))
  naive = jax.jit(lambda logits: value(_naive, logits))
  jax.test_util.check_grads(ours, (logits,), 1, ['rev'], atol=1e-2, rtol=1e-2)
  np.testing.assert_allclose(jax.grad(ours)(logits), jax.grad(naive)(logits), atol=1e-5)


def test_bfloat16_logits_are_summed_in_float32():
  logits, targets = _inputs(shape=(1, 2, 3, 4000), dtype=jnp.bfloat16)
  log_probs, log_z = _compiled(logits, targets)
  assert log_probs.dtype == log_z.dtype == jnp.float32
  # A sum in bfloat16 has three significant digits: off by 0.03 here.
  for actual, expected in zip((log_probs, log_z), _slow(logits, targets), strict=True):
    np.testing.assert_allclose(actual, expected, atol=5e-6)
  gradient = _gradient(logits, targets)
  assert gradient.dtype == jnp.bfloat16
  exact = jax.jit(jax.grad(lambda x: _naive(x, targets)[0].sum()))(
    logits.astype(jnp.float32)
  )
  np.testing.assert_allclose(gradient.astype(jnp.float32), exact, rtol=2**-8, atol=1e-9)


def test_shifting_all_logits_changes_log_z_alone():
  logits, targets = _inputs()
  log_probs, log_z = _compiled(logits, targets)
  shifted, shifted_z = _compiled(logits + 64.0, targets)
  np.testing.assert_allclose(shifted, log_probs, atol=2e-5)  # an ulp at 64 is 8e-6
  np.testing.assert_allclose(shifted_z, log_z + 64.0, atol=2e-5)


def test_huge_logits_do_not_overflow():
  logits = jnp.array([[[[1e4, 0.0, -1e4]]]])
  log_probs, log_z = _compiled(logits, jnp.array([[[2]]]))
  assert log_probs[0, 0, 0] == -2e4 and log_z[0, 0, 0] == 1e4


def test_forbidden_tokens_have_no_gradient_and_no_nan():
  logits, targets = _inputs()
  logits = logits.at[..., 3].set(-jnp.inf)
  targets = jnp.where(targets == 3, 4, targets)
  log_probs, gradient = _compiled(logits, targets)[0], _gradient(logits, targets)
  assert np.isfinite(log_probs).all()
  assert np.isfinite(gradient).all()
  assert not gradient[..., 3].any()
  without = scipy.special.log_softmax(np.delete(logits, 3, axis=-1), axis=-1)
  index = np.asarray(targets) - (np.asarray(targets) > 3)
  expected = np.take_along_axis(without, index[..., None], -1)[..., 0]
  np.testing.assert_allclose(log_probs, expected, atol=2e-6)


def test_a_forbidden_target_is_minus_infinity_with_a_finite_gradient():
  logits = jnp.array([[[[0.0, -jnp.inf, 0.0]]]])
  targets = jnp.array([[[1]]])
  assert lib.token_log_probs(logits, targets)[0, 0, 0] == -jnp.inf
  gradient = _gradient(logits, targets)
  np.testing.assert_allclose(gradient[0, 0, 0], [-0.5, 1, -0.5])


@pytest.mark.parametrize('filler', [np.nan, np.inf, -np.inf])
def test_a_token_without_incoming_gradient_sends_none_on(filler):
  logits, targets = _inputs()
  broken = logits.at[0, 1, 2].set(filler)
  weights = jnp.ones(targets.shape).at[0, 1, 2].set(0.0)

  @jax.jit
  @jax.grad
  def gradient(logits):
    log_probs, log_z = _compiled(logits, targets)
    zero = jnp.zeros(())
    return jnp.sum(jnp.where(weights != 0, log_probs + log_z, zero))

  np.testing.assert_array_equal(
    gradient(broken),
    jnp.where(weights[..., None] != 0, gradient(logits), 0.0),
  )


@pytest.mark.parametrize('target', [-1, 7])
def test_a_target_outside_the_vocabulary_is_nan(target):
  logits, targets = _inputs()
  log_probs, _ = _compiled(logits, targets.at[0, 0, 0].set(target))
  assert np.isnan(log_probs[0, 0, 0])
  assert np.isnan(log_probs).sum() == 1


def test_no_second_array_of_the_logits_size_is_made():
  logits = jax.ShapeDtypeStruct((2, 2, 16, 8192), jnp.float32)
  targets = jax.ShapeDtypeStruct((2, 2, 16), jnp.int32)

  def temporary(fn):  # in arrays of the logits' size
    compiled = jax.jit(fn).lower(logits, targets).compile()
    return compiled.memory_analysis().temp_size_in_bytes / (2 * 2 * 16 * 8192 * 4)

  gradient = lambda fn: jax.grad(lambda x, t: jnp.sum(jnp.square(fn(x, t))))
  assert temporary(lib.token_log_probs) < 0.1
  assert temporary(gradient(lib.token_log_probs)) < 0.1  # its result is one
  # Plain autodiff keeps at least one besides.
  assert temporary(gradient(lambda x, t: _naive(x, t)[0])) > 0.9


@pytest.mark.parametrize(
  ('logits_shape', 'targets_shape', 'target_dtype', 'logits_dtype', 'message'),
  [
    ((2, 4, 7), (2, 4), jnp.int32, jnp.float32, 'samples = 1'),
    ((2, 3, 4, 7), (2, 3), jnp.int32, jnp.float32, 'first three axes'),
    ((2, 3, 4, 7), (2, 3, 1), jnp.int32, jnp.float32, 'first three axes'),
    ((2, 3, 4, 7), (2, 3, 4), jnp.float32, jnp.float32, 'must be integers'),
    ((2, 3, 4, 7), (2, 3, 4), jnp.int32, jnp.int32, 'floating point'),
  ],
)
def test_ranks_are_checked_when_traced(
  logits_shape, targets_shape, target_dtype, logits_dtype, message
):
  logits = jax.ShapeDtypeStruct(logits_shape, logits_dtype)
  targets = jax.ShapeDtypeStruct(targets_shape, target_dtype)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(lib.token_log_probs, logits, targets)

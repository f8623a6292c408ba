import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import optax
import pytest

from rest_jax.losses import behavioural_cloning as bc
from rest_jax.losses import token_log_probs

SHAPE = (2, 3, 4)
VOCAB = 6

# Compiled whole: op by op, every small operation would be a program of its own.
_OPTIONS = ('label_smoothing', 'z_loss')
_from_logits = jax.jit(
  bc.behavioural_cloning_loss_from_logits, static_argnames=_OPTIONS
)
_from_logits_gradient = jax.jit(
  jax.value_and_grad(
    lambda *args, **options: (
      bc.behavioural_cloning_loss_from_logits(*args, **options).loss_sum
    )
  ),
  static_argnames=_OPTIONS,
)
_gradient = jax.jit(
  jax.value_and_grad(
    lambda *args: bc.behavioural_cloning_loss(*args).loss_sum, argnums=(0, 1)
  )
)


def _inputs(seed=0):
  rng = np.random.default_rng(seed)
  log_probs = jnp.asarray(-rng.gamma(1.0, size=SHAPE), jnp.float32)
  lengths = rng.integers(1, 5, size=SHAPE[:2])
  weights = jnp.asarray(np.arange(4) < lengths[..., None], jnp.float32)
  keep = jnp.asarray([[True, False, True], [False, False, True]])
  return log_probs, weights, keep


def _logit_inputs(seed=0, dtype=jnp.float32):
  rng = np.random.default_rng(seed)
  _, weights, keep = _inputs(seed)
  logits = jnp.asarray(2 * rng.normal(size=(*SHAPE, VOCAB)), dtype)
  targets = jnp.asarray(rng.integers(VOCAB, size=SHAPE), jnp.int32)
  return logits, targets, weights, keep


def _slow_t5x(logits, targets, weights, keep, label_smoothing, z_loss):
  """T5X's compute_weighted_cross_entropy, token by token, in float64."""
  confidence = 1 - label_smoothing
  low = (1 - confidence) / (VOCAB - 1)
  constant = -(
    confidence * math.log(confidence) + (VOCAB - 1) * low * math.log(low + 1e-20)
  )
  loss_sum = weight_sum = z_sum = 0.0
  for index in np.ndindex(*SHAPE):
    weight = float(weights[index]) * bool(keep[index[:2]])
    row = np.asarray(logits[index].astype(jnp.float32), np.float64)
    log_z = math.log(np.exp(row).sum())
    soft = [confidence if v == int(targets[index]) else low for v in range(VOCAB)]
    cross_entropy = -sum(q * (x - log_z) for q, x in zip(soft, row, strict=True))
    z = z_loss * log_z**2
    loss_sum += weight * (cross_entropy - constant + z)
    z_sum += weight * z
    weight_sum += weight
  return loss_sum, weight_sum, z_sum


def test_worked_by_hand():
  # Kept tokens have probabilities 1/2, 1/4 (first) and 1/8 (third candidate, whose
  # second token is padding): the sum is log 64 over 3 tokens. Including the dropped
  # candidate would give 4 or 5 tokens; forgetting the padding, 4.
  probabilities = [[[Fraction(1, 2), Fraction(1, 4)], [Fraction(1, 3)] * 2,
                    [Fraction(1, 8), Fraction(1, 9)]]]  # fmt: skip
  log_probs = jnp.log(jnp.array(np.array(probabilities, float), jnp.float32))
  weights = jnp.array([[[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]])
  keep = jnp.array([[True, False, True]])
  loss = bc.behavioural_cloning_loss(log_probs, weights, keep)
  assert loss.weight_sum == 3
  np.testing.assert_allclose(loss.loss_sum, math.log(64), rtol=1e-6)


@pytest.mark.parametrize('jit', [False, True])
def test_equals_a_slow_loop(jit):
  log_probs, weights, keep = _inputs()
  fn = bc.behavioural_cloning_loss
  loss = (jax.jit(fn) if jit else fn)(log_probs, weights, keep)
  total = count = 0.0
  for b, s, t in np.ndindex(*SHAPE):
    if keep[b, s]:
      total -= float(weights[b, s, t]) * float(log_probs[b, s, t])
      count += float(weights[b, s, t])
  np.testing.assert_allclose(loss.loss_sum, total, rtol=1e-6)
  assert loss.weight_sum == count
  assert loss.loss_sum.dtype == loss.weight_sum.dtype == jnp.float32


def test_gradient_is_minus_the_kept_weight():
  log_probs, weights, keep = _inputs()
  weights = weights * 0.5
  _, gradients = _gradient(log_probs, weights, keep)
  np.testing.assert_array_equal(gradients[0], jnp.where(keep[..., None], -weights, 0.0))
  assert not gradients[1].any()  # no gradient into weights


@pytest.mark.parametrize('filler', [np.nan, -np.inf, 7.0])
def test_padding_and_dropped_candidates_may_hold_anything(filler):
  log_probs, weights, keep = _inputs()
  used = (weights != 0) & keep[..., None]
  other = jnp.where(used, log_probs, jnp.float32(filler))
  expected, actual = (_gradient(x, weights, keep) for x in (log_probs, other))
  np.testing.assert_array_equal(expected[0], actual[0])
  np.testing.assert_array_equal(expected[1][0], actual[1][0])


@pytest.mark.parametrize('filler', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('label_smoothing', [0.0, 0.1])
def test_padding_logits_may_hold_anything(filler, label_smoothing):
  logits, targets, weights, keep = _logit_inputs()
  used = (weights != 0) & keep[..., None]
  other = jnp.where(used[..., None], logits, jnp.float32(filler))
  expected, actual = (
    _from_logits_gradient(
      x, targets, weights, keep, label_smoothing=label_smoothing, z_loss=0.01
    )
    for x in (logits, other)
  )
  np.testing.assert_array_equal(expected[0], actual[0])
  np.testing.assert_array_equal(expected[1], actual[1])
  assert np.isfinite(actual[0]) and actual[1].any()


def test_nothing_kept_is_zero_with_a_zero_gradient():
  logits, targets, weights, keep = _logit_inputs()
  args = (logits, targets, weights, jnp.zeros_like(keep))
  sums = _from_logits(*args, label_smoothing=0.1, z_loss=0.1)
  assert sums.loss_sum == sums.weight_sum == sums.z_loss_sum == 0
  loss, gradient = _from_logits_gradient(*args, label_smoothing=0.1, z_loss=0.1)
  assert loss == 0 and not gradient.any()


def test_everything_kept_is_plain_cross_entropy():
  logits, targets, weights, keep = _logit_inputs()
  args = (logits, targets, weights, jnp.ones_like(keep))
  expected = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
  sums = _from_logits(*args)
  np.testing.assert_allclose(sums.loss_sum, (weights * expected).sum(), rtol=1e-6)
  # The two dropped by the other tests' `keep` count; padding still does not.
  assert sums.weight_sum == weights.sum() > weights[keep].sum()
  log_probs = token_log_probs.token_log_probs(logits, targets)
  _, gradients = _gradient(log_probs, weights, args[3])
  np.testing.assert_array_equal(gradients[0], -weights)


def test_the_order_of_sources_and_of_candidates_does_not_matter():
  log_probs, weights, keep = _inputs()
  loss, (gradient, _) = _gradient(log_probs, weights, keep)
  for rows, columns in (([1, 0], [0, 1, 2]), ([0, 1], [2, 0, 1]), ([1, 0], [1, 2, 0])):
    moved = [
      x[np.array(rows)][:, np.array(columns)] for x in (log_probs, weights, keep)
    ]
    found, (theirs, _) = _gradient(*moved)
    # Sums in another order: the last bits differ.
    np.testing.assert_allclose(found, loss, rtol=1e-6)
    np.testing.assert_array_equal(
      theirs, gradient[np.array(rows)][:, np.array(columns)]
    )


def test_sums_add_up_over_any_cut_of_the_batch():
  log_probs, weights, keep = _inputs()
  whole = bc.behavioural_cloning_loss(log_probs, weights, keep)
  parts = [
    bc.behavioural_cloning_loss(log_probs[i:, j:][:1, :1], weights[i:, j:][:1, :1],
                                keep[i:, j:][:1, :1])
    for i, j in np.ndindex(2, 3)
  ]  # fmt: skip
  np.testing.assert_allclose(sum(p.loss_sum for p in parts), whole.loss_sum, rtol=1e-6)
  assert sum(p.weight_sum for p in parts) == whole.weight_sum


def test_grouped_equals_ungrouped():
  log_probs, weights, keep = _inputs()
  flat = (x.reshape(6, 1, *x.shape[2:]) for x in (log_probs, weights, keep))
  ungrouped = bc.behavioural_cloning_loss(*flat)
  grouped = bc.behavioural_cloning_loss(log_probs, weights, keep)
  np.testing.assert_allclose(ungrouped.loss_sum, grouped.loss_sum, rtol=1e-6)
  assert ungrouped.weight_sum == grouped.weight_sum


@pytest.mark.parametrize('label_smoothing', [0.0, 0.1, 0.7])
@pytest.mark.parametrize('z_loss', [0.0, 0.05])
def test_label_smoothing_and_z_loss_are_t5xs(label_smoothing, z_loss):
  inputs = _logit_inputs()
  sums = _from_logits(*inputs, label_smoothing=label_smoothing, z_loss=z_loss)
  expected = _slow_t5x(*inputs, label_smoothing, z_loss)
  np.testing.assert_allclose(sums, expected, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize('label_smoothing', [0.0, 0.2])
def test_gradient_from_logits_equals_finite_differences(label_smoothing):
  logits, targets, weights, keep = _logit_inputs()
  loss = lambda logits: (
    _from_logits(
      logits, targets, weights, keep, label_smoothing=label_smoothing, z_loss=0.05
    ).loss_sum
  )
  jax.test_util.check_grads(loss, (logits,), 1, ['rev'], atol=2e-2, rtol=2e-2)


def test_gradient_of_smoothing_vanishes_at_the_smoothed_distribution():
  # With the softmax equal to the smoothed target, loss and gradient are 0.
  targets = np.arange(VOCAB, dtype=np.int32)[None, None]
  soft = np.where(np.eye(VOCAB, dtype=bool), 0.9, 0.1 / (VOCAB - 1))[None, None]
  ones, keep = np.ones((1, 1, VOCAB), np.float32), np.ones((1, 1), bool)
  value, gradient = _from_logits_gradient(
    np.log(soft).astype(np.float32), targets, ones, keep, label_smoothing=0.1
  )
  np.testing.assert_allclose(value, 0, atol=1e-5)
  np.testing.assert_allclose(gradient, jnp.zeros_like(gradient), atol=1e-6)


def test_without_options_it_is_the_plain_loss_of_the_log_probs():
  logits, targets, weights, keep = _logit_inputs()
  sums = _from_logits(logits, targets, weights, keep)
  log_probs = token_log_probs.token_log_probs(logits, targets)
  plain = bc.behavioural_cloning_loss(log_probs, weights, keep)
  np.testing.assert_allclose(sums[:2], plain, rtol=1e-6)
  assert sums.z_loss_sum == 0


def test_bfloat16_logits_are_close_to_float32():
  logits, *others = _logit_inputs(dtype=jnp.bfloat16)
  options = {'label_smoothing': 0.1, 'z_loss': 0.05}
  loss, gradient = _from_logits_gradient(logits, *others, **options)
  expected, exact = _from_logits_gradient(
    logits.astype(jnp.float32), *others, **options
  )
  # The same (rounded) logits: only arithmetic could differ, and it is float32.
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert gradient.dtype == jnp.bfloat16
  # Two gradients are rounded to 8 bits and added.
  np.testing.assert_allclose(gradient.astype(jnp.float32), exact, atol=2**-7)


def test_forbidden_tokens_keep_loss_and_gradient_finite():
  logits, targets, weights, keep = _logit_inputs()
  logits = logits.at[..., 2].set(-jnp.inf)
  targets = jnp.where(targets == 2, 3, targets)
  value, gradient = _from_logits_gradient(logits, targets, weights, keep, z_loss=0.01)
  assert np.isfinite(value) and np.isfinite(gradient).all()
  assert not gradient[..., 2].any() and gradient.any()


def test_it_is_compiled_once_for_one_shape():
  count = 0

  @jax.jit
  def loss(*args):
    nonlocal count
    count += 1
    return bc.behavioural_cloning_loss(*args)

  for seed in range(3):
    loss(*_inputs(seed))
  assert count == 1


@pytest.mark.parametrize(
  ('shapes', 'keep_dtype', 'message'),
  [
    (((6, 4), (6, 4), (6,)), bool, 'samples = 1'),
    ((SHAPE, (2, 3, 1), (2, 3)), bool, 'must both be'),
    ((SHAPE, SHAPE, (2, 1)), bool, r'keep \(2, 1\)'),
    ((SHAPE, SHAPE, SHAPE), bool, 'must be bool'),
    ((SHAPE, SHAPE, (2, 3)), jnp.float32, 'must be bool'),
  ],
)
def test_ranks_are_checked_when_traced(shapes, keep_dtype, message):
  dtypes = (jnp.float32, jnp.float32, keep_dtype)
  args = [jax.ShapeDtypeStruct(*pair) for pair in zip(shapes, dtypes, strict=True)]
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(bc.behavioural_cloning_loss, *args)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'label_smoothing': 1.0}, r'label_smoothing=1.0 must lie in \[0, 1\)'),
    ({'label_smoothing': -0.1}, r'\[0, 1\)'),
    ({'z_loss': -1e-4}, 'at least 0'),
    ({'z_loss': math.nan}, 'at least 0'),
  ],
)
def test_options_are_checked(options, message):
  with pytest.raises(ValueError, match=message):
    bc.behavioural_cloning_loss_from_logits(*_logit_inputs(), **options)

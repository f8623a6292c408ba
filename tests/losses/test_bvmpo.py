import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
import scipy.optimize

from rest_jax.losses import behavioural_cloning, token_log_probs
from rest_jax.losses import bvmpo as lib

SHAPE = (2, 3, 4)
VOCAB = 5

# Compiled whole: op by op, every small operation would be a program of its own.
_e_step = jax.jit(lib.top_half_weights, static_argnames='epsilon')
_kl = jax.jit(lib.behaviour_kl)


def _inputs(seed=0):
  """Logits of policy and BC model, targets, advantages, weights and keep."""
  rng = np.random.default_rng(seed)
  logits, behaviour_logits = (
    jnp.asarray(2 * rng.normal(size=(*SHAPE, VOCAB)), jnp.float32) for _ in range(2)
  )
  targets = jnp.asarray(rng.integers(VOCAB, size=SHAPE), jnp.int32)
  advantages = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
  lengths = np.array([[4, 1, 3], [2, 3, 4]])
  weights = jnp.asarray(np.arange(4) < lengths[..., None], jnp.float32)
  keep = jnp.asarray([[True, False, True], [True, False, True]])
  return logits, behaviour_logits, targets, advantages, weights, keep


def _loss(
  logits,
  behaviour_logits,
  targets,
  advantages,
  weights,
  keep,
  log_temperature=0.3,
  *,
  kl_weight=0.5,
):
  e_step = lib.top_half_weights(advantages, weights, keep, log_temperature, epsilon=0.1)
  return lib.bvmpo_loss(
    token_log_probs.token_log_probs(logits, targets),
    lib.behaviour_kl(logits, behaviour_logits),
    e_step,
    weights,
    keep,
    kl_weight=kl_weight,
  )


_compiled = jax.jit(_loss, static_argnames='kl_weight')


@functools.partial(jax.jit, static_argnames='kl_weight')
def _gradient(*args, **options):
  """With respect to logits, behaviour logits, advantages and log_temperature."""

  def loss(logits, behaviour_logits, advantages, log_temperature):
    _, _, targets, _, weights, keep = args[:6]
    args_ = (logits, behaviour_logits, targets, advantages, weights, keep)
    return _loss(*args_, log_temperature, **options).loss_sum

  log_temperature = args[6] if len(args) > 6 else jnp.float32(0.3)
  return jax.value_and_grad(loss, argnums=(0, 1, 2, 3))(
    args[0], args[1], args[3], log_temperature
  )


def _slow_e_step(advantages, weights, keep, log_temperature, epsilon):
  """Sorts a list of tokens, in float64."""
  advantages, weights, keep = map(np.asarray, (advantages, weights, keep))
  eta = math.exp(log_temperature)
  tokens = [
    (float(advantages[i]), float(weights[i]), i)
    for i in np.ndindex(*advantages.shape)
    if keep[i[:2]] and weights[i] > 0
  ]
  tokens.sort(key=lambda token: -token[0])
  half = math.ceil(len(tokens) / 2)
  chosen = [token for token in tokens if token[0] >= tokens[half - 1][0]]
  total = sum(w * math.exp(a / eta) for a, w, _ in chosen)
  psi = np.zeros(advantages.shape)
  for a, w, i in chosen:
    psi[i] = w * math.exp(a / eta) / total
  mean = total / sum(w for _, w, _ in chosen)
  loss = eta * epsilon + eta * math.log(mean)
  return psi * sum(w for _, w, _ in tokens), loss, len(chosen)


def _slow_kl(logits, behaviour_logits):
  logits, behaviour_logits = (
    np.asarray(x, np.float64) for x in (logits, behaviour_logits)
  )
  result = np.zeros(logits.shape[:-1])
  for i in np.ndindex(*result.shape):
    pi, beta = (np.exp(x[i]) / np.exp(x[i]).sum() for x in (logits, behaviour_logits))
    result[i] = sum(b * math.log(b / p) for p, b in zip(pi, beta, strict=True))
  return result


def test_e_step_worked_by_hand():
  # eta = 2. The better half of 0, 2 log 3, -1, -2 is the first two, with
  # psi = 1/4 and 3/4 (times 4 tokens), and mean exp(A / eta) = (1 + 3) / 2 = 2. Over
  # all four, psi would be less; the padded 9 and the dropped 8s would take it all.
  advantages = jnp.array(
    [[[0.0, 2 * math.log(3), -1.0, -2.0, 9.0], [8.0, 8.0, 8.0, 8.0, 8.0]]]
  )
  weights = jnp.ones((1, 2, 5)).at[0, 0, 4].set(0.0)
  keep = jnp.array([[True, False]])
  e_step = _e_step(advantages, weights, keep, math.log(2), epsilon=0.25)
  expected = [[[Fraction(1), Fraction(3), 0, 0, 0], [0] * 5]]
  np.testing.assert_allclose(e_step.token_weights, np.array(expected, float), rtol=1e-6)
  np.testing.assert_allclose(
    e_step.temperature_loss, 2 * (0.25 + math.log(2)), rtol=1e-6
  )
  assert e_step.num_chosen == 2


def test_kl_worked_by_hand():
  # beta = (1/2, 1/2), pi = (1/4, 3/4): log 2 / 2 + log(2/3) / 2 = log(4/3) / 2. The
  # other direction would be log(1/2) / 4 + 3 log(3/2) / 4 = log(27/16) / 4.
  logits = jnp.log(jnp.array([1.0, 3.0]))[None, None, None]
  behaviour_logits = jnp.full((1, 1, 1, 2), 7.0)
  np.testing.assert_allclose(
    _kl(logits, behaviour_logits), [[[math.log(4 / 3) / 2]]], rtol=1e-6
  )


def test_loss_worked_by_hand():
  # Two tokens, A = 1 and 0, so that psi is 1 for the first, in all 2. log pi of both
  # is log 1/4, the KLs are 1/2 and 1/4 with lambda 2, the temperature loss
  # eta * (1/8 + A / eta) = 1/8 + 1, for 2 tokens: 2 log 4 + 3/2 + 9/4.
  advantages, weights = jnp.array([[[1.0, 0.0]]]), jnp.ones((1, 1, 2))
  keep = jnp.ones((1, 1), bool)
  e_step = _e_step(advantages, weights, keep, 0.0, epsilon=0.125)
  sums = lib.bvmpo_loss(
    jnp.full((1, 1, 2), math.log(0.25), jnp.float32),
    jnp.array([[[0.5, 0.25]]]),
    e_step, weights, keep, kl_weight=2.0,
  )  # fmt: skip
  expected = 2 * math.log(4), Fraction(3, 4), Fraction(9, 4)
  np.testing.assert_allclose(sums[2:], np.array(expected, float), rtol=1e-6)
  np.testing.assert_allclose(sums.loss_sum, 2 * math.log(4) + 3.75, rtol=1e-6)
  assert sums.weight_sum == 2


@pytest.mark.parametrize('jit', [False, True])
@pytest.mark.parametrize('log_temperature', [-1.0, 0.5])
def test_e_step_equals_a_slow_loop(jit, log_temperature):
  *_, advantages, weights, keep = _inputs()
  weights *= jnp.where(advantages > 0.5, jnp.float32(0.5), jnp.float32(1))
  args = (advantages, weights, keep, log_temperature)
  actual = (_e_step if jit else lib.top_half_weights)(*args, epsilon=0.1)
  expected = _slow_e_step(*args, 0.1)
  np.testing.assert_allclose(actual.token_weights, expected[0], rtol=1e-5)
  np.testing.assert_allclose(actual.temperature_loss, expected[1], rtol=1e-5)
  assert actual.num_chosen == expected[2]


@pytest.mark.parametrize(
  ('advantages', 'chosen'),
  [
    ([3.0, 2.0, 1.0, 0.0], [1, 1, 0, 0]),
    ([0.0, 1.0, 2.0], [0, 1, 1]),  # half of three is two
    ([5.0], [1]),
    ([1.0, 1.0, 0.0, 0.0], [1, 1, 0, 0]),
    ([2.0, 1.0, 1.0, 1.0], [1, 1, 1, 1]),  # ties with the last go in
    ([-1.0, -2.0, -3.0, -4.0], [1, 1, 0, 0]),  # better, not positive
  ],
)
def test_the_better_half(advantages, chosen):
  advantages = jnp.pad(jnp.array(advantages), (0, 4 - len(advantages)))[None, None]
  weights = (jnp.arange(4) < len(chosen)).astype(jnp.float32)[None, None]
  e_step = _e_step(advantages, weights, jnp.ones((1, 1), bool), 0.0, epsilon=0.1)
  actual = (e_step.token_weights[0, 0, : len(chosen)] > 0).astype(jnp.int32)
  np.testing.assert_array_equal(actual, chosen)
  assert e_step.num_chosen == sum(chosen)


def test_the_best_temperature_has_the_kl_that_was_asked_for():
  *_, advantages, weights, keep = _inputs()
  epsilon = 0.2
  loss = lambda x: float(
    _e_step(advantages, weights, keep, jnp.float32(x), epsilon=epsilon).temperature_loss
  )
  best = scipy.optimize.minimize_scalar(loss, bounds=(-4, 4), method='bounded').x
  e_step = _e_step(advantages, weights, keep, jnp.float32(best), epsilon=epsilon)
  psi = np.asarray(e_step.token_weights) / np.asarray(e_step.token_weights).sum()
  psi = psi[psi > 0]
  # The loss is flat at its minimum, which float32 finds to some digits only.
  np.testing.assert_allclose((psi * np.log(psi * psi.size)).sum(), epsilon, atol=2e-3)


def test_kl_equals_a_slow_loop_and_vanishes_at_the_behaviour_policy():
  logits, behaviour_logits, *_ = _inputs()
  expected = _slow_kl(logits, behaviour_logits)
  np.testing.assert_allclose(_kl(logits, behaviour_logits), expected, atol=2e-6)
  shifted = _kl(behaviour_logits + 3.0, behaviour_logits)
  np.testing.assert_allclose(shifted, jnp.zeros(SHAPE), atol=1e-6)


def test_gradients_equal_finite_differences_of_the_slow_loss():
  logits, behaviour_logits, targets, advantages, weights, keep = _inputs()
  token_weights, _, _ = _slow_e_step(advantages, weights, keep, 0.3, 0.1)
  kept = np.asarray(weights) * np.asarray(keep)[..., None]

  def slow(logits, log_temperature):  # the E-step's weights stay as they are
    log_z = np.log(np.exp(logits).sum(-1))
    chosen = np.take_along_axis(logits, np.asarray(targets)[..., None], -1)[..., 0]
    loss = _slow_e_step(advantages, weights, keep, log_temperature, 0.1)[1]
    kl = _slow_kl(logits, behaviour_logits)
    return (-token_weights * (chosen - log_z) + kept * (0.5 * kl + loss)).sum()

  gradients = _gradient(*_inputs())[1]
  exact = np.asarray(logits, np.float64)
  step = 1e-4
  for index in list(np.ndindex(*logits.shape))[::7]:
    move = np.zeros(logits.shape)
    move[index] = step
    difference = (slow(exact + move, 0.3) - slow(exact - move, 0.3)) / (2 * step)
    np.testing.assert_allclose(gradients[0][index], difference, atol=2e-5)
  difference = (slow(exact, 0.3 + step) - slow(exact, 0.3 - step)) / (2 * step)
  np.testing.assert_allclose(gradients[3], difference, rtol=1e-4)
  assert not gradients[1].any() and not gradients[2].any()


def test_kl_gradient_is_that_of_plain_autodiff():
  logits, behaviour_logits, *_, weights, _ = _inputs()

  def naive(logits):
    log_pi, log_beta = map(jax.nn.log_softmax, (logits, behaviour_logits))
    return jnp.sum(weights * jnp.sum(jnp.exp(log_beta) * (log_beta - log_pi), axis=-1))

  ours = lambda logits: jnp.sum(weights * lib.behaviour_kl(logits, behaviour_logits))
  np.testing.assert_allclose(
    jax.jit(jax.grad(ours))(logits), jax.jit(jax.grad(naive))(logits), atol=1e-6
  )
  low = jax.jit(jax.grad(ours))(logits.astype(jnp.bfloat16))
  assert low.dtype == jnp.bfloat16


@pytest.mark.parametrize('filler', [np.nan, np.inf, -np.inf])
def test_padding_and_dropped_candidates_may_hold_anything(filler):
  logits, behaviour_logits, targets, advantages, weights, keep = _inputs()
  used = (weights != 0) & keep[..., None]
  pad = lambda x, where: jnp.where(where, x, jnp.float32(filler))
  other = (
    pad(logits, used[..., None]), pad(behaviour_logits, used[..., None]), targets,
    pad(advantages, used), weights, keep,
  )  # fmt: skip
  expected, actual = _gradient(*_inputs()), _gradient(*other)
  np.testing.assert_array_equal(actual[0], expected[0])
  for a, e in zip(actual[1], expected[1], strict=True):
    np.testing.assert_array_equal(a, e)
  # Not compiled too: XLA turns a product with a mask into a selection by itself.
  np.testing.assert_allclose(_loss(*other).loss_sum, expected[0], rtol=1e-6)


def test_forbidden_tokens():
  logits, behaviour_logits, *_ = _inputs()
  forbid = lambda x: x.at[..., 2].set(-jnp.inf)
  gradient = jax.jit(jax.grad(lambda *args: lib.behaviour_kl(*args).sum()))
  both = forbid(logits), forbid(behaviour_logits)
  rest = [jnp.delete(x, 2, axis=-1) for x in (logits, behaviour_logits)]
  np.testing.assert_allclose(_kl(*both), _slow_kl(*rest), atol=2e-6)
  assert not gradient(*both)[..., 2].any()
  # Only the policy may say it: no more than probability wasted.
  assert np.isfinite(_kl(logits, both[1])).all()
  # Only the BC policy may say it: infinite.
  assert (_kl(both[0], behaviour_logits) == jnp.inf).all()
  for args in (both, (logits, both[1]), (both[0], behaviour_logits)):
    assert np.isfinite(gradient(*args)).all()


def test_a_kept_nan_shows():
  logits, behaviour_logits, targets, advantages, weights, keep = _inputs()
  broken = advantages.at[0, 0, 1].set(jnp.nan)
  args = (logits, behaviour_logits, targets, broken, weights, keep)
  assert np.isnan(_compiled(*args).loss_sum)
  broken = behaviour_logits.at[0, 0, 1, 0].set(jnp.nan)
  args = (logits, broken, targets, advantages, weights, keep)
  assert np.isnan(_compiled(*args).loss_sum)


def test_nothing_kept_is_zero_with_zero_gradients():
  *arrays, keep = _inputs()
  none = jnp.zeros_like(keep)
  assert all(x == 0 for x in _compiled(*arrays, none))
  loss, gradients = _gradient(*arrays, none)
  assert loss == 0
  for gradient in gradients:
    assert not gradient.any()  # NaN would count as something


def test_all_kept_counts_every_token():
  *arrays, keep = _inputs()
  weights = arrays[-1]
  sums = _compiled(*arrays, jnp.ones_like(keep))
  e_step = _e_step(arrays[3], weights, jnp.ones_like(keep), 0.3, epsilon=0.1)
  assert sums.weight_sum == weights.sum() == 17
  assert e_step.num_chosen == 9
  np.testing.assert_allclose(e_step.token_weights.sum(), 17, rtol=1e-6)


def test_constant_advantages_are_behavioural_cloning():
  logits, behaviour_logits, targets, _, weights, keep = _inputs()
  args = (logits, behaviour_logits, targets, jnp.full(SHAPE, 0.7), weights, keep)
  sums = _compiled(*args, kl_weight=0.0)
  log_probs = token_log_probs.token_log_probs(logits, targets)
  cloning = behavioural_cloning.behavioural_cloning_loss(log_probs, weights, keep)
  np.testing.assert_allclose(sums.policy_loss_sum, cloning.loss_sum, rtol=1e-5)
  assert sums.weight_sum == cloning.weight_sum
  # The dual is then eta * epsilon + A: it asks for a lower temperature.
  mean = sums.temperature_loss_sum / sums.weight_sum
  np.testing.assert_allclose(mean, 0.1 * math.exp(0.3) + 0.7, rtol=1e-6)
  assert _gradient(*args)[1][3] > 0


def test_one_candidate_of_one_token():
  arrays = [x[:1, :1, :1] for x in _inputs()[:5]]
  sums = _compiled(*arrays, jnp.ones((1, 1), bool))
  log_probs = token_log_probs.token_log_probs(arrays[0], arrays[2])
  np.testing.assert_allclose(sums.policy_loss_sum, -log_probs.sum(), rtol=1e-6)


def test_a_constant_added_to_the_advantages_changes_the_dual_alone():
  *arrays, weights, keep = _inputs()
  plain, moved = (
    _e_step(arrays[3] + shift, weights, keep, 0.3, epsilon=0.1) for shift in (0.0, 4.0)
  )
  np.testing.assert_allclose(moved.token_weights, plain.token_weights, atol=1e-5)
  np.testing.assert_allclose(
    moved.temperature_loss, plain.temperature_loss + 4, rtol=1e-6
  )


@pytest.mark.parametrize('log_temperature', [-1e4, -12.0])
def test_a_tiny_temperature_takes_the_best_token_without_nan(log_temperature):
  *arrays, weights, keep = _inputs()
  e_step = _e_step(arrays[3], weights, keep, log_temperature, epsilon=0.1)
  used = jnp.where((weights > 0) & keep[..., None], arrays[3], -jnp.inf)
  np.testing.assert_array_equal(e_step.token_weights > 0, used == used.max())
  np.testing.assert_allclose(e_step.temperature_loss, used.max(), atol=1e-4)
  _, gradients = _gradient(*_inputs(), jnp.float32(log_temperature))
  assert all(np.isfinite(g).all() for g in gradients)


def test_grouped_equals_ungrouped_in_any_order():
  args = _inputs()
  order = np.random.default_rng(1).permutation(6)
  flat = [x.reshape(6, 1, *x.shape[2:])[order] for x in args]
  np.testing.assert_allclose(_compiled(*flat), _compiled(*args), rtol=1e-5)


def test_with_the_e_step_of_the_batch_the_loss_may_be_cut_anywhere():
  logits, behaviour_logits, targets, advantages, weights, keep = _inputs()
  e_step = _e_step(advantages, weights, keep, 0.3, epsilon=0.1)
  log_probs = token_log_probs.token_log_probs(logits, targets)
  kl = _kl(logits, behaviour_logits)
  loss = jax.jit(functools.partial(lib.bvmpo_loss, kl_weight=0.5))

  def part(rows):
    cut = e_step._replace(token_weights=e_step.token_weights[rows])
    return loss(log_probs[rows], kl[rows], cut, weights[rows], keep[rows])

  whole = loss(log_probs, kl, e_step, weights, keep)
  parts = np.add(part(slice(0, 1)), part(slice(1, 2)))
  np.testing.assert_allclose(parts, whole, rtol=1e-5)
  # An E-step inside each part chooses other tokens, as the docstring warns.
  inside = [_compiled(*(x[i : i + 1] for x in _inputs())).loss_sum for i in range(2)]
  assert abs(sum(inside) - whole.loss_sum) > 0.1


def test_kl_keeps_no_third_array_of_the_logits_size():
  logits = jax.ShapeDtypeStruct((2, 2, 16, 8192), jnp.float32)

  def temporary(fn):  # in arrays of the logits' size
    compiled = jax.jit(fn).lower(logits, logits).compile()
    return compiled.memory_analysis().temp_size_in_bytes / (2 * 2 * 16 * 8192 * 4)

  assert temporary(lib.behaviour_kl) < 0.1
  assert temporary(jax.grad(lambda *args: lib.behaviour_kl(*args).sum())) < 0.1


def test_annealing_by_hand():
  weight = functools.partial(lib.annealed_kl_weight, num_steps=1000)
  # A fifth of the way is a decade; a linear path would be at 0.8.
  expected = {0: 1.0, 200: 0.1, 600: 1e-3, 1000: 1e-5, 5000: 1e-5}
  for step, value in expected.items():
    np.testing.assert_allclose(weight(step), value, rtol=1e-5)
  traced = jax.jit(weight)(jnp.int32(200))
  np.testing.assert_allclose(traced, 0.1, rtol=1e-5)
  assert traced.dtype == jnp.float32
  half = lib.annealed_kl_weight(1, num_steps=2, start=4.0, end=1.0)
  np.testing.assert_allclose(half, 2.0, rtol=1e-6)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'num_steps': 0}, 'num_steps=0 must be at least 1'),
    ({'num_steps': 9, 'end': 0.0}, 'must be positive'),
    ({'num_steps': 9, 'start': math.nan}, 'must be positive'),
  ],
)
def test_options_of_the_annealing_are_checked(options, message):
  with pytest.raises(ValueError, match=message):
    lib.annealed_kl_weight(0, **options)


def test_epsilon_is_checked():
  *_, advantages, weights, keep = _inputs()
  with pytest.raises(ValueError, match=r'epsilon=0\.0 must be positive'):
    lib.top_half_weights(advantages, weights, keep, 0.0, epsilon=0.0)


def test_ranks_are_checked_when_traced():
  array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  full, keep = array(*SHAPE), jax.ShapeDtypeStruct((2, 3), bool)
  logits = array(*SHAPE, VOCAB)
  e_step = functools.partial(lib.top_half_weights, log_temperature=0.0, epsilon=0.1)
  with pytest.raises(ValueError, match='samples = 1'):
    jax.eval_shape(e_step, array(6, 4), array(6, 4), keep)
  with pytest.raises(ValueError, match='one vocabulary'):
    jax.eval_shape(lib.behaviour_kl, logits, array(*SHAPE, VOCAB + 1))
  with pytest.raises(ValueError, match='must both'):
    jax.eval_shape(lib.behaviour_kl, full, full)
  with pytest.raises(ValueError, match='floating point'):
    jax.eval_shape(
      lib.behaviour_kl, logits, jax.ShapeDtypeStruct(logits.shape, jnp.int32)
    )
  found = jax.eval_shape(e_step, full, full, keep)
  with pytest.raises(ValueError, match=r'divergence \(2, 3\)'):
    jax.eval_shape(
      functools.partial(lib.bvmpo_loss, kl_weight=1.0),
      full, array(2, 3), found, full, keep,
    )  # fmt: skip

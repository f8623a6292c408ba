import math
from fractions import Fraction as F

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from rest_jax.losses import policy_gradient as pg
from rest_jax.losses import values as values_lib

SHAPE = (3, 4, 5)
NORMALISATIONS = (pg.per_token, pg.per_candidate, pg.per_candidate_sum)
ADVANTAGES = (
  pg.standardised_advantages,
  pg.centred_advantages,
  pg.leave_one_out_advantages,
)
FILLERS = (np.nan, -np.inf, np.inf, 1e30)

_reinforce = jax.jit(pg.reinforce_loss, static_argnames='normalisation')
_surrogate = jax.jit(
  pg.clipped_surrogate_loss, static_argnames=('clip_range', 'normalisation')
)
_values = jax.jit(pg.clipped_value_loss, static_argnames='clip_range')
_k3 = jax.jit(pg.k3_loss, static_argnames='normalisation')
# Each loss, how many [batch, samples, length] arrays it takes before weights and
# keep, and its options: what holds for all of them is tested on all of them.
LOSSES = {
  'reinforce': (_reinforce, 2, {}),
  'surrogate': (_surrogate, 3, {'clip_range': 0.2}),
  'values': (_values, 3, {'clip_range': 0.3}),
  'k3': (_k3, 2, {}),
}


def _inputs(seed=0):
  """log_probs, behaviour or reference log_probs, advantages; weights; keep."""
  rng = np.random.default_rng(seed)
  log_probs = -rng.gamma(1.0, size=SHAPE)
  others = log_probs + 0.4 * rng.normal(size=SHAPE)
  advantages = rng.normal(size=SHAPE)
  lengths = rng.integers(1, 6, size=SHAPE[:2])
  weights = np.where(np.arange(5) < lengths[..., None], 0.75, 0.0)
  keep = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 0]], bool)
  arrays = [jnp.asarray(x, jnp.float32) for x in (log_probs, others, advantages)]
  return arrays, jnp.asarray(weights, jnp.float32), jnp.asarray(keep)


def _arguments(name, seed=0):
  (log_probs, others, advantages), weights, keep = _inputs(seed)
  arrays = {
    'reinforce': [log_probs, advantages],
    'surrogate': [log_probs, others, advantages],
    'values': [log_probs, others, advantages],
    'k3': [log_probs, others],
  }[name]
  return arrays, weights, keep


def _value_and_gradients(name, arrays, weights, keep):
  fn, count, options = LOSSES[name]
  loss = lambda *arrays: fn(*arrays, weights, keep, **options).loss_sum
  return jax.value_and_grad(loss, argnums=tuple(range(count)))(*arrays)


def _slow_normalisation(normalisation, weights, keep):
  """The weights of the sum and its denominator, candidate by candidate."""
  result, denominator = np.zeros(SHAPE), 0.0
  for b, s in np.ndindex(*SHAPE[:2]):
    row = np.asarray(weights[b, s], np.float64)
    if not keep[b, s] or not row.any():
      continue
    scale = row.sum() if normalisation is pg.per_candidate else 1.0
    result[b, s] = row / scale
    denominator += row.sum() if normalisation is pg.per_token else 1.0
  return result, denominator


def _slow(name, arrays, index):
  """One token's loss in float64."""
  values = [float(x[index]) for x in arrays]
  if name == 'reinforce':
    return -values[0] * values[1]
  if name == 'k3':
    d = values[1] - values[0]
    return math.exp(d) - 1 - d
  if name == 'values':
    value, old, target = values
    moved = old + max(-0.3, min(0.3, value - old))
    return max((value - target) ** 2, (moved - target) ** 2)
  ratio, advantage = math.exp(values[0] - values[1]), values[2]
  return -min(ratio * advantage, max(0.8, min(1.2, ratio)) * advantage)


def _slow_advantages(fn, rewards, mask):
  """In exact fractions but for the root; plain loops."""
  result = np.zeros(rewards.shape)
  for b in range(len(rewards)):
    there = [i for i in range(rewards.shape[1]) if mask[b, i]]
    group = {i: F(float(rewards[b, i])) for i in there}
    for i in there:
      if fn is pg.leave_one_out_advantages:
        others = [group[j] for j in there if j != i]
        result[b, i] = group[i] - sum(others) / len(others) if others else 0
        continue
      mean = sum(group.values()) / len(group)
      scale = 1.0
      if fn is pg.standardised_advantages:
        variance = sum((r - mean) ** 2 for r in group.values()) / len(group)
        scale = math.sqrt(variance) + 1e-4
      result[b, i] = float(group[i] - mean) / scale
  return result


# Advantages


def test_advantages_worked_by_hand():
  # Rewards 0, 1/2, 1 and a masked 9: mean 1/2, deviation sqrt(1/6) (the sample's
  # would be 1/2). Others' means are 3/4, 1/2, 1/4; counting oneself gives -1/2, 0,
  # 1/2 and counting the masked one moves everything.
  rewards = jnp.array([[0.0, 0.5, 9.0, 1.0]])
  mask = jnp.array([[True, True, False, True]])
  deviation = 0.5 / (math.sqrt(1 / 6) + 1e-4)
  for fn, expected in zip(
    ADVANTAGES,
    ([-deviation, 0, 0, deviation], [-0.5, 0, 0, 0.5], [-0.75, 0, 0, 0.75]),
    strict=True,
  ):
    np.testing.assert_allclose(fn(rewards, mask), [expected], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('fn', ADVANTAGES)
def test_advantages_equal_slow_loops_with_any_padding_and_offset(fn):
  rng = np.random.default_rng(0)
  mask = rng.random((6, 5)) < 0.7
  mask[0], mask[1], mask[2] = True, False, [False, True, False, False, False]
  rewards = np.where(mask, rng.normal(size=mask.shape), 1.0).astype(np.float32)
  expected = _slow_advantages(fn, rewards, mask)
  compiled = jax.jit(fn)
  for filler in (7.0, np.nan, np.inf, -np.inf):
    filled = np.where(mask, rewards, np.float32(filler))
    actual = compiled(filled, mask)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    # One candidate, or none, has nothing to be compared with: 0.
    assert not actual[1:3].any()
  order = rng.permutation(6)
  shuffled = compiled(rewards[order], mask[order])
  np.testing.assert_array_equal(shuffled, compiled(rewards, mask)[order])


@pytest.mark.parametrize('fn', ADVANTAGES)
@pytest.mark.parametrize('reward', [0.1, 0.7, 1e6 / 3, -1 / 3, 0.0])
def test_equal_rewards_have_no_advantage(fn, reward):
  # Exactly: 0.1 + 0.1 + 0.1 is not 3 * 0.1, so that a mean of the rewards would leave
  # a rounding error, which a deviation of the same size turns into 1e-3 or even 1.
  for count in range(1, 12):
    rewards = jnp.full((1, 12), reward, jnp.float32)
    mask = jnp.arange(12)[None] < count
    assert not fn(rewards, mask).any()


def test_no_gradient_through_advantages():
  rewards, mask = jnp.array([[0.0, 1.0, 1.0]]), jnp.ones((1, 3), bool)
  for fn in ADVANTAGES:
    for r in (rewards, jnp.ones_like(rewards)):
      gradient = jax.grad(lambda r, fn=fn: jnp.sum(fn(r, mask)[0, :1]))(r)
      assert not gradient.any()  # and not NaN, the root's at 0


# Losses


def test_reinforce_worked_by_hand():
  # Candidate 0: two tokens of log-prob log 1/2 and advantage 3/2; candidate 2: one
  # of log 1/4 and advantage -1/2. 3 log 2 - log 2 = 2 log 2, over 3 tokens or 2
  # candidates; per_candidate halves the first: 3/2 log 2 - log 2.
  log_probs = jnp.log(jnp.array([[[0.5, 0.5], [0.1, 0.1], [0.25, 0.3]]]))
  advantages = jnp.array([[1.5, 4.0, -0.5]])
  weights = jnp.array([[[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]])
  keep = jnp.array([[True, False, True]])
  expected = {pg.per_token: (2, 3), pg.per_candidate: (0.5, 2)}
  expected[pg.per_candidate_sum] = (2, 2)
  for normalisation, (loss, weight) in expected.items():
    sums = pg.reinforce_loss(
      log_probs, advantages, weights, keep, normalisation=normalisation
    )
    np.testing.assert_allclose(sums, (loss * math.log(2), weight), rtol=1e-6)


def test_surrogate_worked_by_hand():
  # Ratios 3/2, 3/2, 1/2, 1/2, 1 with advantages 1, -1, 1, -1, 2 and c = 1/4: the
  # terms are 5/4, -3/2, 1/2, -3/4, 2, sum 3/2; two are clipped. Without the min (clip
  # alone) it would be 5/4 - 5/4 + 3/4 - 3/4 + 2 = 2; without the clip, 2 as well.
  ratios = np.array([1.5, 1.5, 0.5, 0.5, 1.0])
  log_probs = jnp.asarray(np.log(ratios / 4), jnp.float32)[None, None]
  behaviour = jnp.full_like(log_probs, math.log(1 / 4))
  advantages = jnp.array([[[1.0, -1.0, 1.0, -1.0, 2.0]]])
  ones, keep = jnp.ones_like(log_probs), jnp.ones((1, 1), bool)
  loss = lambda log_probs: pg.clipped_surrogate_loss(
    log_probs, behaviour, advantages, ones, keep, clip_range=0.25
  )
  sums = loss(log_probs)
  np.testing.assert_allclose(sums[:4], (-1.5, 5, 5, 2), rtol=1e-6)
  kl = (ratios - 1 - np.log(ratios)).sum()
  np.testing.assert_allclose(sums.kl_sum, kl, rtol=1e-5)
  gradient = jax.grad(lambda x: loss(x).loss_sum)(log_probs)
  # -ratio * advantage where not clipped.
  np.testing.assert_allclose(gradient[0, 0], [0, 1.5, -0.5, 0, -2], rtol=1e-6)


def test_clipped_values_worked_by_hand():
  # Old values 0, c = 1, returns 4: at 2 the clipped value 1 is worse, 9 and no
  # gradient; at 1/2 it is 49/4. At 10 the plain error is worse, 36.
  values = jnp.array([[[2.0, 0.5, 10.0]]])
  old, returns = jnp.zeros_like(values), jnp.full_like(values, 4.0)
  ones, keep = jnp.ones_like(values), jnp.ones((1, 1), bool)
  loss = lambda v, c: _values(v, old, returns, ones, keep, clip_range=c)
  np.testing.assert_allclose(loss(values, 1.0), (9 + 12.25 + 36, 3), rtol=1e-6)
  gradient = jax.grad(lambda v: loss(v, 1.0).loss_sum)(values)
  np.testing.assert_allclose(gradient[0, 0], [0, -7, 12], rtol=1e-6)
  plain = values_lib.value_loss(values, returns, ones, keep)
  np.testing.assert_array_equal(loss(values, math.inf), plain)


def test_k3_worked_by_hand():
  # reference / policy = 2, 1/2, 1: k3 is 1 - log 2, log 2 - 1/2, 0. Turned around it
  # would be the same sum: the first token alone tells.
  policy = jnp.log(jnp.array([[[0.25, 0.5, 0.3]]]))
  reference = jnp.log(jnp.array([[[0.5, 0.25, 0.3]]]))
  keep = jnp.ones((1, 1), bool)
  for weights, expected in (
    ([1.0, 0.0, 0.0], 1 - math.log(2)),
    ([1.0, 1.0, 1.0], 0.5),
  ):
    sums = pg.k3_loss(policy, reference, jnp.array([[weights]]), keep)
    np.testing.assert_allclose(sums, (expected, sum(weights)), rtol=1e-5)


def test_shaped_rewards_worked_by_hand():
  # kl_weight 1/2; log ratios log 2, -log 2, ...; the last token of candidate 0 is its
  # second. Candidate 1 is dropped, 2 is empty.
  log_probs = jnp.log(jnp.array([[[0.5, 0.25, 0.1]] * 3]))
  reference = jnp.log(jnp.array([[[0.25, 0.5, 0.1]] * 3]))
  weights = jnp.array([[[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]])
  keep = jnp.array([[True, False, True]])
  rewards = jnp.array([[3.0, jnp.nan, jnp.nan]])
  shaped = pg.kl_shaped_rewards(
    rewards, log_probs, reference, weights, keep, kl_weight=0.5
  )
  half = 0.5 * math.log(2)
  np.testing.assert_allclose(shaped[0, 0], [-half, 3 + half, 0], rtol=1e-6)
  assert not shaped[0, 1:].any()
  total = jax.grad(
    lambda *x: jnp.sum(pg.kl_shaped_rewards(*x, weights, keep, kl_weight=0.5)),
    argnums=(0, 1, 2),
  )(jnp.array([[3.0, 1.0, 1.0]]), log_probs, reference)
  assert not any(x.any() for x in total)


@pytest.mark.parametrize('all_kept', [False, True])
@pytest.mark.parametrize('normalisation', NORMALISATIONS)
@pytest.mark.parametrize('name', LOSSES)
def test_losses_equal_slow_loops(name, normalisation, all_kept):
  arrays, weights, keep = _arguments(name)
  if all_kept:
    weights, keep = jnp.ones_like(weights), jnp.ones_like(keep)
  fn, _, options = LOSSES[name]
  if name == 'values':  # always per token
    normalisation = pg.per_token
  else:
    options = {**options, 'normalisation': normalisation}
  sums = fn(*arrays, weights, keep, **options)
  slow_weights, denominator = _slow_normalisation(normalisation, weights, keep)
  expected = sum(
    slow_weights[index] * _slow(name, arrays, index) for index in np.ndindex(*SHAPE)
  )
  np.testing.assert_allclose(sums[:2], (expected, denominator), rtol=3e-6)
  assert {x.dtype for x in sums} == {jnp.dtype(jnp.float32)}


# What holds for every loss


@pytest.mark.parametrize('name', LOSSES)
def test_gradient_equals_finite_differences_and_reaches_the_policy_alone(name):
  arrays, weights, keep = _arguments(name)
  fn, _, options = LOSSES[name]
  loss = lambda first: fn(first, *arrays[1:], weights, keep, **options).loss_sum
  jax.test_util.check_grads(loss, arrays[:1], 1, ['rev'], atol=2e-2, rtol=2e-2)
  _, gradients = _value_and_gradients(name, arrays, weights, keep)
  assert gradients[0].any() and not any(x.any() for x in gradients[1:])


@pytest.mark.parametrize('filler', FILLERS)
@pytest.mark.parametrize('name', LOSSES)
def test_padding_and_dropped_candidates_may_hold_anything(name, filler):
  arrays, weights, keep = _arguments(name)
  used = (weights != 0) & keep[..., None]
  other = [jnp.where(used, x, jnp.float32(filler)) for x in arrays]
  expected = _value_and_gradients(name, arrays, weights, keep)
  actual = _value_and_gradients(name, other, weights, keep)
  np.testing.assert_array_equal(actual[0], expected[0])
  np.testing.assert_array_equal(actual[1][0], expected[1][0])


@pytest.mark.parametrize('name', LOSSES)
def test_uncompiled_padding_with_a_gradient_is_not_seen(name):
  # XLA turns a product with a mask into a selection by itself; op by op it does not.
  arrays, weights, keep = _arguments(name)
  used = (weights != 0) & keep[..., None]
  other = [jnp.where(used, x, jnp.float32(np.nan)) for x in arrays]
  fn, _, options = LOSSES[name]
  loss = lambda first: (
    fn.__wrapped__(first, *other[1:], weights, keep, **options).loss_sum
  )
  value, gradient = jax.value_and_grad(loss)(other[0])
  assert np.isfinite(value) and np.isfinite(gradient).all() and gradient.any()


@pytest.mark.parametrize('name', LOSSES)
def test_nothing_kept_is_zero_with_a_zero_gradient(name):
  arrays, weights, keep = _arguments(name)
  arrays = [x.at[0].set(jnp.nan) for x in arrays]
  none = jnp.zeros_like(keep)
  fn, _, options = LOSSES[name]
  assert not any(fn(*arrays, weights, none, **options))
  _, gradients = _value_and_gradients(name, arrays, weights, none)
  assert not gradients[0].any()


@pytest.mark.parametrize('normalisation', NORMALISATIONS)
@pytest.mark.parametrize('name', ['reinforce', 'surrogate', 'k3'])
def test_sums_add_up_over_any_cut_and_order_of_the_batch(name, normalisation):
  arrays, weights, keep = _arguments(name)
  fn, _, options = LOSSES[name]
  loss = lambda cut: fn(
    *(x[cut] for x in (*arrays, weights, keep)), normalisation=normalisation, **options
  )
  whole = loss(np.s_[:])
  parts = [
    loss((slice(b, b + 1), slice(s, s + 1))) for b, s in np.ndindex(*SHAPE[:2])
  ]  # one candidate each
  summed = [sum(part[i] for part in parts) for i in range(len(whole))]
  np.testing.assert_allclose(summed, whole, rtol=1e-5)
  np.testing.assert_allclose(loss(np.array([2, 0, 1])), whole, rtol=1e-5)


@pytest.mark.parametrize('name', ['reinforce', 'surrogate'])
def test_equal_rewards_teach_nothing(name):
  arrays, weights, keep = _arguments(name)
  rewards = jnp.full(SHAPE[:2], 0.1, jnp.float32)
  for advantages_fn in ADVANTAGES:
    arrays[-1] = jnp.broadcast_to(advantages_fn(rewards, keep)[..., None], SHAPE)
    value, gradients = _value_and_gradients(name, arrays, weights, keep)
    assert value == 0 and not gradients[0].any()


def test_one_advantage_for_each_candidate_equals_one_for_each_token():
  (log_probs, behaviour, advantages), weights, keep = _inputs()
  short = advantages[..., 0]
  long = jnp.broadcast_to(short[..., None], SHAPE)
  for a, b in (
    (_reinforce(log_probs, short, weights, keep),
     _reinforce(log_probs, long, weights, keep)),
    (_surrogate(log_probs, behaviour, short, weights, keep),
     _surrogate(log_probs, behaviour, long, weights, keep)),
  ):  # fmt: skip
    np.testing.assert_array_equal(a, b)


def test_at_ratio_one_ppo_has_the_gradient_of_reinforce():
  (log_probs, _, advantages), weights, keep = _inputs()
  ppo = jax.grad(
    lambda x: _surrogate(x, log_probs, advantages, weights, keep).loss_sum
  )(log_probs)
  reinforce = jax.grad(lambda x: _reinforce(x, advantages, weights, keep).loss_sum)
  np.testing.assert_allclose(ppo, reinforce(log_probs), rtol=1e-6)


def test_absurd_ratios_stay_finite():
  # exp(200) is infinite in float32, and infinity times an advantage of 0 is NaN.
  far = jnp.array([[[-200.0, 0.0, -200.0]]])
  near = jnp.array([[[0.0, -200.0, 0.0]]])
  advantages = jnp.array([[[1.0, -1.0, 0.0]]])
  ones, keep = jnp.ones_like(far), jnp.ones((1, 1), bool)
  for loss in (
    lambda x: _surrogate(x, -200 - x, advantages, ones, keep).loss_sum,
    lambda x: _k3(x, -200 - x, ones, keep).loss_sum,
  ):
    for x in (far, near):
      value, gradient = jax.value_and_grad(loss)(x)
      assert np.isfinite(value) and np.isfinite(gradient).all()


def test_bfloat16_log_probs_are_summed_in_float32():
  (log_probs, behaviour, advantages), weights, keep = _inputs()
  rounded = [x.astype(jnp.bfloat16) for x in (log_probs, behaviour, advantages)]
  exact = [x.astype(jnp.float32) for x in rounded]
  # The same rounded inputs: only arithmetic could differ.
  np.testing.assert_allclose(
    _surrogate(*rounded, weights, keep), _surrogate(*exact, weights, keep), rtol=1e-6
  )


# Refusals


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda a, w, k: pg.reinforce_loss(a[0][0], a[1], w, k), 'must both be'),
    (lambda a, w, k: pg.reinforce_loss(a[0], a[1][:, :1], w, k), 'advantages'),
    (lambda a, w, k: pg.reinforce_loss(a[0], a[1], w, w), 'bool'),
    (lambda a, w, k: pg.k3_loss(a[0], a[1][:1], w, k), 'reference_log_probs'),
    (lambda a, w, k: pg.clipped_surrogate_loss(
      a[0], a[1][:1], a[2], w, k), 'behaviour_log_probs'),
    (lambda a, w, k: pg.clipped_value_loss(
      a[0], a[1][:1], a[2], w, k, clip_range=1.0), 'old_values'),
    (lambda a, w, k: pg.clipped_value_loss(
      *a, w, k, clip_range=0.0), 'clip_range=0.0 must be positive'),
    (lambda a, w, k: pg.clipped_surrogate_loss(
      *a, w, k, clip_range=1.0), r'clip_range=1.0 must lie in \(0, 1\)'),
    (lambda a, w, k: pg.kl_shaped_rewards(
      a[0], a[0], a[1], w, k, kl_weight=0.1), 'rewards'),
    (lambda a, w, k: pg.kl_shaped_rewards(
      a[0][..., 0], a[0], a[1], w, k, kl_weight=math.inf), 'kl_weight=inf'),
    (lambda a, w, k: pg.leave_one_out_advantages(a[0], k), 'rewards'),
    (lambda a, w, k: pg.centred_advantages(a[0][..., 0], w[..., 0]), 'bool'),
    (lambda a, w, k: pg.standardised_advantages(a[0][..., 0], k, eps=0.0), 'eps=0.0'),
  ],
)  # fmt: skip
def test_wrong_arguments_are_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call(*_inputs())

import math

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from rest_jax.losses import preference

SHAPE = (3, 4)  # batch, samples
NUM_PAIRS = 5

_dpo = jax.jit(preference.dpo_loss, static_argnames='beta')
_ipo = jax.jit(preference.ipo_loss, static_argnames='tau')
LOSSES = {
  'dpo': lambda *args: _dpo(*args, beta=0.3),
  'ipo': lambda *args: _ipo(*args, tau=0.3),
}


def _inputs(seed=0):
  """log_probs, reference, keep, chosen, rejected, pair weights."""
  rng = np.random.default_rng(seed)
  log_probs = -rng.gamma(2.0, 3.0, size=SHAPE)
  reference = log_probs + rng.normal(size=SHAPE)
  keep = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
  chosen = rng.integers(4, size=(3, NUM_PAIRS))
  rejected = (chosen + rng.integers(1, 4, size=chosen.shape)) % 4
  weights = rng.choice([0.0, 0.5, 1.0], size=chosen.shape)
  return (
    jnp.asarray(log_probs, jnp.float32),
    jnp.asarray(reference, jnp.float32),
    jnp.asarray(keep),
    chosen.astype(np.int32),
    rejected.astype(np.int32),
    weights.astype(np.float32),
  )


def _gradients(name, *args):
  loss = lambda *sides: LOSSES[name](*sides, *args[2:]).loss_sum
  return jax.value_and_grad(loss, argnums=(0, 1))(*args[:2])


def _slow(name, log_probs, reference, keep, chosen, rejected, weights):
  """Pair by pair in float64."""
  sums = np.zeros(4)
  for b, p in np.ndindex(*chosen.shape):
    i, j, weight = chosen[b, p], rejected[b, p], float(weights[b, p])
    if weight and keep[b, i] and keep[b, j]:
      h = float(log_probs[b, i]) - float(reference[b, i])
      h -= float(log_probs[b, j]) - float(reference[b, j])
      loss = (h - 1 / 0.6) ** 2 if name == 'ipo' else math.log1p(math.exp(-0.3 * h))
      sums += weight * np.array([loss, 1, 0.3 * h, (h > 0) + 0.5 * (h == 0)])
  return sums


# Losses


def test_losses_worked_by_hand():
  # Policy / reference is 4 for candidate 0, 1/2 for 1, 1 for 2; pairs (0, 1) and (1,
  # 2): h = log 8 and -log 2. With beta = 1 sigmoid(h) = 8/9 and 1/3: the loss is
  # log(9/8 * 3) = log(27/8). Forgetting the reference, probabilities 0.4, 0.3, 0.2
  # would give h = log 4/3, log 3/2. Third slot: empty; fourth: not kept.
  log_probs = jnp.log(jnp.array([[0.4, 0.3, 0.2, 0.1]]))
  reference = jnp.log(jnp.array([[0.1, 0.6, 0.2, 0.9]]))
  keep = jnp.array([[True, True, True, False]])
  chosen = np.array([[0, 1, 0, 0]], np.int32)
  rejected = np.array([[1, 2, 2, 3]], np.int32)
  weights = np.array([[1, 1, 0, 1]], np.float32)
  args = (log_probs, reference, keep, chosen, rejected, weights)
  dpo = preference.dpo_loss(*args, beta=1.0)
  np.testing.assert_allclose(dpo, (math.log(27 / 8), 2, math.log(4), 1), rtol=1e-5)
  # tau = 1/4: the target is h = 2, and margins are a quarter.
  ipo = preference.ipo_loss(*args, tau=0.25)
  loss = (math.log(8) - 2) ** 2 + (math.log(2) + 2) ** 2
  np.testing.assert_allclose(ipo, (loss, 2, math.log(4) / 4, 1), rtol=1e-5)


@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('all_kept', [False, True])
def test_losses_equal_a_slow_loop(name, all_kept):
  args = list(_inputs())
  if all_kept:
    args[2] = jnp.ones_like(args[2])
    args[5] = np.ones_like(args[5])
  sums = LOSSES[name](*args)
  np.testing.assert_allclose(sums, _slow(name, *args), rtol=1e-5)
  assert {x.dtype for x in sums} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize('name', LOSSES)
def test_gradient_equals_finite_differences_and_reaches_the_policy_alone(name):
  args = _inputs()
  loss = lambda log_probs: LOSSES[name](log_probs, *args[1:]).loss_sum
  jax.test_util.check_grads(loss, args[:1], 1, ['rev'], atol=2e-2, rtol=2e-2)
  _, (policy, reference) = _gradients(name, *args)
  assert policy.any() and not reference.any()


def test_gradient_by_hand():
  # d/dh of -log sigmoid(beta h) is -beta * sigmoid(-beta h): -beta / 2 at h = 0.
  args = (jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.ones((1, 2), bool))
  pair = (np.array([[1]]), np.array([[0]]), np.ones((1, 1), np.float32))
  _, (gradient, _) = _gradients('dpo', *args, *pair)
  np.testing.assert_allclose(gradient, [[0.15, -0.15]], rtol=1e-6)
  sums = LOSSES['dpo'](*args, *pair)
  np.testing.assert_allclose(sums, (math.log(2), 1, 0, 0.5), rtol=1e-6)


@pytest.mark.parametrize('compiled', [True, False])
@pytest.mark.parametrize('filler', [np.nan, -np.inf, np.inf])
@pytest.mark.parametrize('name', LOSSES)
def test_dropped_candidates_and_empty_slots_may_hold_anything(name, filler, compiled):
  log_probs, reference, keep, chosen, rejected, weights = _inputs()
  # Candidate 3 of the last group is kept and in no pair that counts.
  weights = np.where((chosen == 3) | (rejected == 3), np.float32(0), weights)
  used = np.asarray(keep) & (np.arange(4) < 3)
  filled = [jnp.where(used, x, jnp.float32(filler)) for x in (log_probs, reference)]
  wild = [np.where(weights != 0, x, np.int32(-99)) for x in (chosen, rejected)]
  expected = _gradients(name, log_probs, reference, keep, chosen, rejected, weights)
  # Op by op too: XLA turns a product with a mask into a selection by itself.
  with jax.disable_jit(not compiled):
    actual = _gradients(name, *filled, keep, *wild, weights)
  np.testing.assert_allclose(actual[0], expected[0], rtol=1e-6)
  np.testing.assert_allclose(actual[1][0], expected[1][0], rtol=1e-5, atol=1e-7)
  assert actual[1][0].any()


@pytest.mark.parametrize('wild', [-1, 4, 99])
def test_an_index_out_of_range_in_a_pair_that_counts_is_nan(wild):
  log_probs, reference, keep, chosen, rejected, _ = _inputs()
  chosen = np.full_like(chosen, wild)
  ones = np.ones(chosen.shape, np.float32)
  assert np.isnan(_dpo(log_probs, reference, keep, chosen, rejected, ones, beta=1.0)[0])


@pytest.mark.parametrize('name', LOSSES)
def test_no_pair_is_zero_with_a_zero_gradient(name):
  args = _inputs()
  nothing = (
    (*args[:2], jnp.zeros_like(args[2]), *args[3:]),
    (*args[:5], np.zeros_like(args[5])),
  )
  for given in nothing:
    assert not any(LOSSES[name](*given))
    value, (gradient, _) = _gradients(name, *given)
    assert value == 0 and not gradient.any()


@pytest.mark.parametrize('name', LOSSES)
def test_sums_add_up_over_any_cut_and_order(name):
  args = _inputs()
  whole = LOSSES[name](*args)
  rows = [LOSSES[name](*(x[b : b + 1] for x in args)) for b in range(3)]
  order = np.array([2, 0, 1])
  np.testing.assert_allclose(
    [sum(row[i] for row in rows) for i in range(4)], whole, rtol=1e-5
  )
  np.testing.assert_allclose(LOSSES[name](*(x[order] for x in args)), whole, rtol=1e-5)
  # The candidates of each group in another order, the indices with them.
  back = np.array([3, 1, 0, 2], np.int32)  # candidate i moves to back[i]
  moved = [x[:, np.argsort(back)] for x in args[:3]]
  sums = LOSSES[name](*moved, back[args[3]], back[args[4]], args[5])
  np.testing.assert_allclose(sums, whole, rtol=1e-5)


def test_far_margins_stay_finite_and_bfloat16_is_summed_in_float32():
  keep, one = jnp.ones((1, 2), bool), np.ones((1, 1), np.float32)
  pair = (np.array([[0]]), np.array([[1]]), one)
  far = jnp.array([[-1e4, 1e4]])
  value, (gradient, _) = _gradients('dpo', far, jnp.zeros((1, 2)), keep, *pair)
  np.testing.assert_allclose(value, 6000, rtol=1e-6)
  np.testing.assert_allclose(gradient, [[-0.3, 0.3]], rtol=1e-6)
  sums = _dpo(
    jnp.array([[1.0, 0.0]], jnp.bfloat16),
    jnp.array([[1.001, 0.0]]),
    keep,
    *pair,
    beta=1.0,
  )
  # bfloat16(1.001) is 1, which would make the margin 0.
  np.testing.assert_allclose(sums.margin_sum, -0.001, rtol=1e-3)


def test_dpo_is_least_at_the_regularised_optimum_and_ipo_at_its_own():
  # Every ordered pair with its Bradley-Terry chance: DPO's gradient vanishes at
  # reference * exp(r / beta), and IPO's where h = (chance - 1/2) / tau.
  rewards, reference = np.array([0.0, 0.3, 1.0]), np.log([0.5, 0.3, 0.2])
  first, second = np.nonzero(~np.eye(3, dtype=bool))
  chances = 1 / (1 + np.exp(rewards[second] - rewards[first]))
  pairs = [
    first[None].astype(np.int32),
    second[None].astype(np.int32),
    chances[None].astype(np.float32),
  ]
  keep, beta = jnp.ones((1, 3), bool), 0.3
  optimum = jnp.asarray(reference + rewards / beta, jnp.float32)[None]
  base = jnp.asarray(reference, jnp.float32)[None]
  _, (gradient, _) = _gradients('dpo', optimum, base, keep, *pairs)
  np.testing.assert_allclose(gradient, np.zeros((1, 3)), atol=1e-6)
  _, (elsewhere, _) = _gradients('dpo', base, base, keep, *pairs)
  assert (np.abs(elsewhere) > 0.05).sum() == 2
  # Two candidates, since with three the chances' logits add up and chances do not.
  two = [x[:, [0, 2]] for x in pairs]  # (0, 1) and (1, 0)
  assert (two[0] + two[1] == 1).all()
  h = (chances[0] - 0.5) / 0.3
  optimum = base.at[0, 0].add(h)
  _, (gradient, _) = _gradients('ipo', optimum, base, keep, *two)
  np.testing.assert_allclose(gradient, np.zeros((1, 3)), atol=1e-5)


def test_dpo_moves_a_table_to_the_better_sequences_and_equal_rewards_do_not():
  # A softmax over four sequences with pairs from rewards: the log-probabilities end
  # in the rewards' order; equal rewards make no pair, and nothing moves.
  mask, keep = np.ones((1, 4), bool), jnp.ones((1, 4), bool)
  start = jnp.array([[1.0, 0.0, -0.5, 0.2]])

  @jax.jit
  def learn(logits, pairs):
    base = jax.nn.log_softmax(start)
    loss = lambda x: (
      preference.dpo_loss(jax.nn.log_softmax(x), base, keep, *pairs, beta=0.5).loss_sum
    )
    step = lambda x, _: (x - 0.5 * jax.grad(loss)(x), None)
    return jax.lax.scan(step, logits, length=100)[0]

  rewards = np.array([[0.1, 0.9, 0.5, 0.0]], np.float32)
  learnt = learn(start, preference.all_pairs(rewards, mask))
  assert np.argsort(learnt[0]).tolist() == np.argsort(rewards[0]).tolist()
  equal = preference.all_pairs(np.full((1, 4), 0.1, np.float32), mask)
  np.testing.assert_array_equal(learn(start, equal), start)


def test_sequence_log_probs_and_means():
  token = jnp.array([[[-1.0, -2.0, jnp.nan], [-4.0, -jnp.inf, jnp.nan], [-7.0] * 3]])
  weights = jnp.array([[[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0] * 3]])
  keep = jnp.array([[True, True, False]])
  total = preference.sequence_log_probs(token, weights, keep)
  mean = preference.mean_token_log_probs(token, weights, keep)
  np.testing.assert_array_equal(total, [[-3, -4, 0]])
  np.testing.assert_array_equal(mean, [[-1.5, -4, 0]])
  gradient = jax.grad(
    lambda x: jnp.sum(preference.mean_token_log_probs(x, weights, keep))
  )(token)
  np.testing.assert_array_equal(gradient, [[[0.5, 0.5, 0], [1, 0, 0], [0, 0, 0]]])


# Makers of pairs


def _listed(pairs):
  """[(chosen, rejected), ...] of each row's pairs; empty slots must be zeros."""
  chosen, rejected, weights = pairs
  assert chosen.dtype == rejected.dtype == np.int32 and weights.dtype == np.float32
  assert not chosen[weights == 0].any() and not rejected[weights == 0].any()
  assert set(np.unique(weights)) <= {0, 1}
  return [
    [(int(c), int(r)) for c, r, w in zip(*row, strict=True) if w]
    for row in zip(*pairs, strict=True)
  ]


REWARDS = np.array(
  [
    [0.5, 0.1, 0.9, 9.0],  # the last one is masked
    [0.5, 0.9, 0.5, 0.9],  # ties
    [0.1, 0.1, 0.1, 0.1],
    [0.7, 0.2, 0.3, 0.4],  # one candidate
    [0.7, 0.2, 0.3, 0.4],  # none
  ],
  np.float32,
)
MASK = np.array(
  [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]], bool
)


def _uniforms(fill, rounds=4):
  return np.full((*REWARDS.shape, rounds), fill)


def test_best_against_worst_by_hand():
  pairs = preference.best_against_worst(REWARDS, MASK)
  assert _listed(pairs) == [[(2, 1)], [(1, 0)], [], [], []]


def test_all_pairs_by_hand():
  pairs = preference.all_pairs(REWARDS, MASK)
  assert pairs.chosen.shape == (5, 6)
  assert _listed(pairs)[:2] == [
    [(0, 1), (2, 0), (2, 1)],
    [(1, 0), (3, 0), (1, 2), (3, 2)],
  ]
  assert _listed(pairs)[2:] == [[], [], []]
  # Strict: a gap of 0.5 exactly is not more than 0.5.
  quarters = np.array([[0.25, 0.75, 1.0]], np.float32)
  pairs = preference.all_pairs(quarters, np.ones((1, 3), bool), margin=0.5)
  assert _listed(pairs) == [[(2, 0)]]


def test_rejection_sampling_by_hand():
  make = lambda uniforms, beta, n: _listed(
    preference.rejection_sampled_pairs(REWARDS, MASK, uniforms, beta=beta, num_pairs=n)
  )
  # Uniforms of 0 accept everything in the first round: neighbours are paired, and an
  # odd one is left over.
  assert make(_uniforms(0.0), 1.0, 2) == [[(0, 1)], [(1, 0), (3, 2)], [], [], []]
  # Nearly 1: only the best of each round, that is, by reward; ties go together.
  assert make(_uniforms(0.999), 0.1, 2)[:2] == [[(2, 0)], []]
  # Row 0, beta 0.4: chances exp(-1) = 0.37, exp(-2) = 0.14 and 1 in round 0. Both
  # uniforms just above, and round 0 accepts candidate 2 alone; in round 1 the best
  # left is 0, accepted at any uniform, ahead of 1. Just below, 1 comes before 2.
  for first, second, expected in (
    (0.36, 0.2, [(2, 0)]),
    (0.38, 0.13, [(2, 1)]),
    (0.38, 0.2, [(2, 0)]),
  ):
    uniforms = _uniforms(0.5)
    uniforms[0, :2, 0] = first, second
    assert make(uniforms, 0.4, 1)[0] == expected


def _slow_rejection_sampling(rewards, mask, uniforms, beta, wanted):
  """The paper's algorithm 1, one candidate at a time."""
  left = {i: float(rewards[i]) for i in range(len(rewards)) if mask[i]}
  accepted, turn = [], 0
  while len(accepted) < wanted and left:
    best = max(left.values())
    passed = [
      i for i, r in left.items() if uniforms[i, turn] < math.exp((r - best) / beta)
    ]
    accepted += passed[: wanted - len(accepted)]
    for i in passed:
      del left[i]
    turn += 1
  return accepted


@pytest.mark.parametrize('beta', [0.05, 0.5, 5.0])
def test_rejection_sampling_equals_the_papers_loop(beta):
  rng = np.random.default_rng(0)
  rewards = rng.random((30, 9)).astype(np.float32)
  mask = rng.random((30, 9)) < 0.8
  ids = [f'train/{i:08d}' for i in range(30)]
  uniforms = preference.source_uniforms(
    ids, seed=1, grow_step=2, num_samples=9, num_rounds=6
  )
  pairs = preference.rejection_sampled_pairs(
    rewards, mask, uniforms, beta=beta, num_pairs=3
  )
  for row, listed in enumerate(_listed(pairs)):
    order = _slow_rejection_sampling(rewards[row], mask[row], uniforms[row], beta, 6)
    expected = [
      tuple(sorted(order[k : k + 2], key=lambda i: -rewards[row, i]))
      for k in range(0, len(order) - 1, 2)
    ]
    assert listed == expected


def test_rejection_sampling_has_the_chances_of_the_formula():
  # Gaps of 1 and 2 with exp(-1 / beta) = 1/4: round 0 accepts candidate 0 with chance
  # 1/4, 1 surely and 2 with chance 1/16. The first two are paired: 1 with 2 when 0
  # is not accepted and 2 is, 3/64; else 0 with 1, for 0 is the best left in round 1.
  num = 4000
  rewards = np.tile(np.array([0.0, 1.0, -1.0, 5.0], np.float32), (num, 1))
  mask = np.tile(np.array([True, True, True, False]), (num, 1))
  beta = 1 / math.log(4)
  uniforms = preference.source_uniforms(
    [str(i) for i in range(num)], seed=0, grow_step=0, num_samples=4, num_rounds=2
  )
  chosen, rejected, weights = preference.rejection_sampled_pairs(
    rewards, mask, uniforms, beta=beta, num_pairs=1
  )
  assert weights.all() and (chosen == 1).all()
  share = (rejected == 2).mean()
  expected = 3 / 64
  deviation = math.sqrt(expected * (1 - expected) / num)
  assert abs(share - expected) < 4 * deviation


def test_pairs_ignore_padding_width_and_batch():
  rng = np.random.default_rng(0)
  rewards = rng.random((4, 5)).astype(np.float32)
  mask = rng.random((4, 5)) < 0.7
  ids = ['a', 'b', 'c', 'd']

  def makers(rewards, mask, ids):
    uniforms = preference.source_uniforms(
      ids, seed=3, grow_step=1, num_samples=rewards.shape[1], num_rounds=4
    )
    return (
      _listed(preference.best_against_worst(rewards, mask)),
      _listed(preference.all_pairs(rewards, mask, margin=0.1)),
      _listed(
        preference.rejection_sampled_pairs(
          rewards, mask, uniforms, beta=0.3, num_pairs=2
        )
      ),
    )

  expected = makers(rewards, mask, ids)
  assert all(sum(map(len, rows)) > 2 for rows in expected)
  for filler in (np.nan, np.inf, 5.0):
    filled = np.where(mask, rewards, np.float32(filler))
    assert makers(filled, mask, ids) == expected
  wide = np.pad(rewards, ((0, 0), (0, 3))), np.pad(mask, ((0, 0), (0, 3)))
  assert makers(*wide, ids) == expected
  order = [2, 0, 3]
  cut = makers(rewards[order], mask[order], [ids[i] for i in order])
  assert cut == tuple([rows[i] for i in order] for rows in expected)


def test_uniforms_are_a_function_of_identity():
  draw = lambda ids, seed=0, step=0, samples=3: preference.source_uniforms(
    ids, seed=seed, grow_step=step, num_samples=samples, num_rounds=4
  )
  one = draw(['a', 'b'])
  np.testing.assert_array_equal(one, draw(['b', 'a'])[::-1])
  np.testing.assert_array_equal(one, draw(['a', 'b'], samples=7)[:, :3])
  for other in (draw(['a', 'b'], seed=1), draw(['a', 'b'], step=1), draw(['c', 'd'])):
    assert not (one == other).any()
  assert not (one[0] == one[1]).any()


# Refusals


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({0: (4,)}, r'must all be \[batch, samples\]'),
    ({1: (3, 1)}, r'reference_log_probs \(3, 1\)'),
    ({2: (3, 1)}, r'keep \(3, 1\)'),
    ({3: (2, 5)}, 'chosen'),
    ({4: (3, 4)}, 'rejected'),
    ({5: (3, 4)}, 'pair_weights'),
  ],
)
def test_shapes_are_checked_when_traced(change, message):
  args = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in _inputs()]
  for index, shape in change.items():
    args[index] = jax.ShapeDtypeStruct(shape, args[index].dtype)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(LOSSES['dpo'], *args)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda args, _: preference.dpo_loss(*args, beta=0.0), 'beta=0.0 must be'),
    (lambda args, _: preference.ipo_loss(*args, tau=math.inf), 'tau=inf must be'),
    (lambda args, _: preference.dpo_loss(
      args[0], args[1], args[0], *args[3:], beta=1.0), 'keep must be bool'),
    (lambda args, _: preference.dpo_loss(
      *args[:3], args[5], *args[4:], beta=1.0), 'must be integers'),
    (lambda _, r: preference.best_against_worst(r[0], MASK[0]), 'samples'),
    (lambda _, r: preference.best_against_worst(r, r), 'mask bool'),
    (lambda _, r: preference.best_against_worst(r[:, :0], MASK[:, :0]), 'samples >= 1'),
    (lambda _, r: preference.all_pairs(r * np.float32(np.nan), MASK), 'nan of cand'),
    (lambda _, r: preference.all_pairs(r, MASK, margin=-0.1), 'margin=-0.1'),
    (lambda _, r: preference.rejection_sampled_pairs(
      r, MASK, _uniforms(0.0), beta=0.0, num_pairs=2), 'beta=0.0'),
    (lambda _, r: preference.rejection_sampled_pairs(
      r, MASK, _uniforms(0.0), beta=1.0, num_pairs=0), 'num_pairs=0'),
    (lambda _, r: preference.rejection_sampled_pairs(
      r, MASK, _uniforms(0.0), beta=1.0, num_pairs=3), r'rounds >= 2 \* num_pairs = 6'),
    (lambda _, r: preference.rejection_sampled_pairs(
      r, MASK, _uniforms(1.0), beta=1.0, num_pairs=2), r'in \[0, 1\)'),
  ],
)  # fmt: skip
def test_wrong_arguments_are_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call(_inputs(), REWARDS)

import json
from fractions import Fraction

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from rest_jax.rewards import normalisers

_QUICK = hypothesis.settings(max_examples=80, deadline=None)
_FINITE = st.one_of(
  st.sampled_from([0.0, -0.0, 0.5, 1.0, 25.0]),
  st.floats(width=32, allow_nan=False, allow_infinity=False),
)
_REWARDS = hnp.arrays(np.float32, st.integers(2, 40), elements=_FINITE).filter(
  lambda values: values.min() < values.max()
)
_FITS = [
  normalisers.MinMax.fit,
  normalisers.EmpiricalCdf.fit,
  lambda rewards: normalisers.EmpiricalCdf.fit(rewards, num_knots=4),
]


@_QUICK
@hypothesis.given(_REWARDS, _REWARDS, st.sampled_from(_FITS))
def test_monotone_in_the_unit_interval_and_read_back_exactly(fitted_on, others, fit):
  normaliser = fit(fitted_on)
  values = np.sort(np.concatenate([fitted_on, others]))
  normalised = normaliser(values)
  assert normalised.dtype == np.float32 and normalised.shape == values.shape
  assert (np.diff(normalised) >= 0).all()
  assert normalised.min() >= 0 and normalised.max() <= 1
  again = normalisers.from_dict(json.loads(json.dumps(normaliser.to_dict())))
  assert again == normaliser
  np.testing.assert_array_equal(again(values), normalised)


def test_monotone_between_neighbouring_floats():
  # Dense points around each knot, where a segment's rounded end meets the next.
  rng = np.random.default_rng(0)
  cdf = normalisers.EmpiricalCdf.fit(rng.normal(size=3000), num_knots=64)
  knots = np.array(cdf.knots, np.float32)
  values = [knots]
  for direction in (-np.inf, np.inf):
    step = knots
    for _ in range(4):
      step = np.nextafter(step, np.float32(direction))
      values.append(step)
  assert (np.diff(cdf(np.sort(np.concatenate(values)))) >= 0).all()


def test_min_max_by_hand():
  normaliser = normalisers.MinMax.fit(np.array([[2.0, 6.0], [3.0, 4.0]], np.float32))
  assert normaliser == normalisers.MinMax(low=2.0, high=6.0)
  values = np.array([[1.0, 2.0, 3.0], [4.0, 6.0, 9.0]], np.float32)
  np.testing.assert_array_equal(normaliser(values), [[0, 0, 0.25], [0.5, 1, 1]])


def test_cdf_uses_mid_ranks_on_ties():
  # n = 8: one -1, four 0, two 2, one 3.
  rewards = np.array([0, 2, 0, 3, -1, 0, 2, 0], np.float32)
  cdf = normalisers.EmpiricalCdf.fit(rewards)
  expected = [Fraction(1, 16), Fraction(3, 8), Fraction(6, 8), Fraction(15, 16)]
  values = np.array([-1, 0, 2, 3], np.float32)
  np.testing.assert_array_equal(cdf(values), np.array(expected, float))
  # Linear between knots, clipped outside.
  np.testing.assert_array_equal(
    cdf(np.array([1, -9, 9, 2.5], np.float32)), [9 / 16, 1 / 16, 15 / 16, 27 / 32]
  )


@_QUICK
@hypothesis.given(_REWARDS)
def test_cdf_is_exact_with_a_knot_for_every_reward(rewards):
  cdf = normalisers.EmpiricalCdf.fit(rewards)
  slow = [
    ((rewards < r).sum() + Fraction(int((rewards == r).sum()), 2)) / len(rewards)
    for r in rewards
  ]
  np.testing.assert_allclose(cdf(rewards), np.array(slow, float), rtol=1e-6)


def test_cdf_does_not_depend_on_the_order_of_the_rewards():
  rewards = np.random.default_rng(0).normal(size=5000).astype(np.float32)
  first = normalisers.EmpiricalCdf.fit(rewards)
  assert first == normalisers.EmpiricalCdf.fit(rewards[::-1].reshape(50, 100))


@pytest.mark.parametrize('num_knots', [8, 64, 1024])
@pytest.mark.parametrize('shape', ['normal', 'atoms', 'one_atom', 'outlier'])
def test_cdf_error_is_within_the_documented_bound(num_knots, shape):
  rng = np.random.default_rng(0)
  rewards = rng.normal(size=20_000)
  if shape == 'atoms':  # a scorer that rounds, on a smooth background
    rewards[:14_000] = np.round(rewards[:14_000])
  elif shape == 'one_atom':  # half of the candidates share one reward
    rewards[::2] = 0.3
  elif shape == 'outlier':
    rewards[0] = 1e6
  rewards = rewards.astype(np.float32)
  cdf = normalisers.EmpiricalCdf.fit(rewards, num_knots=num_knots)
  assert len(cdf.knots) <= num_knots
  exact = normalisers.EmpiricalCdf.fit(rewards, num_knots=10**6)
  error = np.abs(cdf(rewards) - exact(rewards)).max()
  assert error <= 1 / (num_knots // 2 - 1) + 1e-6
  # The bound is worth something: a fit at ten times fewer knots breaks it.
  if num_knots > 64 and shape == 'normal':
    coarse = normalisers.EmpiricalCdf.fit(rewards, num_knots=20)
    assert np.abs(coarse(rewards) - exact(rewards)).max() > 1 / (num_knots // 2 - 1)


def test_cdf_levels_are_uniform_so_a_threshold_is_a_quantile():
  rewards = np.random.default_rng(0).gamma(2.0, size=30_000).astype(np.float32)
  normalised = normalisers.EmpiricalCdf.fit(rewards)(rewards)
  for tau in (0.7, 0.8, 0.9, 0.95, 0.99):
    assert np.mean(normalised > tau) == pytest.approx(1 - tau, abs=0.002)
  assert (normalised > 0).all()


@pytest.mark.parametrize('fit', _FITS)
def test_errors_when_fitting(fit):
  with pytest.raises(ValueError, match=r'all 3 rewards are 0.5, so there is nothing'):
    fit(np.full(3, 0.5, np.float32))
  with pytest.raises(ValueError, match='got no reward'):
    fit(np.zeros(0, np.float32))
  with pytest.raises(ValueError, match=r'2 of 4 rewards .* index 1, is nan'):
    fit(np.array([0.0, np.nan, 1.0, np.inf], np.float32))
  with pytest.raises(ValueError, match='1 of 1 rewards'):
    fit(np.array([0.0, 1.0], np.float32))(np.array([np.nan], np.float32))


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: normalisers.MinMax(1.0, 1.0), 'low < high'),
    (lambda: normalisers.MinMax(25.0, 0.0), 'negate'),
    (lambda: normalisers.MinMax(np.nan, 1.0), 'finite'),
    (lambda: normalisers.MinMax(0.0, np.inf), 'finite'),
    (lambda: normalisers.EmpiricalCdf((0.0,), (0.5,)), 'at least two'),
    (lambda: normalisers.EmpiricalCdf((0.0, 0.0), (0.1, 0.5)), 'increasing'),
    (lambda: normalisers.EmpiricalCdf((0.0, 1.0), (0.5, 0.1)), 'increasing'),
    (lambda: normalisers.EmpiricalCdf((0.0, 1.0), (0.5, 1.1)), r'\[0, 1\]'),
    (lambda: normalisers.EmpiricalCdf.fit(np.arange(9), num_knots=3), 'at least 4'),
    (lambda: normalisers.from_dict({'kind': 'z'}), "'z'; known: empirical_cdf, min"),
    (lambda: normalisers.from_dict({}), 'kind None'),
    (lambda: normalisers.from_dict({'kind': 'min_max', 'low': 0}), "lacks 'high'"),
  ],
)
def test_errors(call, message):
  with pytest.raises(ValueError, match=message):
    call()

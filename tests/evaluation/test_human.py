"""Policies compared by people's ratings, worked by hand."""

import numpy as np
import pytest

from rest_jax.evaluation import human

N = np.nan


def _ratings(rows):
  """[raters, sources] as [raters, sources, samples]."""
  return np.array(rows, float)[:, :, None]


def test_a_raters_severity_does_not_count():
  # Ben is two points stricter and rated the policy only where Anna did not rate both.
  base = _ratings([[4, 4, N], [2, 2, 2]])
  policy = _ratings([[5, N, N], [3, 3, 1]])
  found = human.compare(policy, base, seed=0)
  # Sources: (1 + 1) / 2 = 1; 1; -1. Unpaired means would give 8/3 - 8/3.
  assert found.difference.mean == pytest.approx(1 / 3)
  assert found.num_sources == 3
  assert (found.wins, found.ties, found.losses) == (
    pytest.approx(2 / 3),
    0,
    pytest.approx(1 / 3),
  )
  assert found.win_rate.mean == pytest.approx(2 / 3)


def test_ties_count_half_and_shares_add_up():
  base = _ratings([[3, 3, 3, 3], [3, 3, N, N]])
  policy = _ratings([[4, 3, 2, 3], [3, 3, N, N]])
  found = human.compare(policy, base, seed=0)
  # Per source: wins 1/2, 0, 0, 0; ties 1/2, 1, 0, 1; losses 0, 0, 1, 0.
  assert (found.wins, found.ties, found.losses) == (0.125, 0.625, 0.25)
  assert found.win_rate.mean == pytest.approx(0.125 + 0.625 / 2)


def test_samples_are_reduced_to_their_mean_first():
  base = np.array([[[2, 4], [3, N]]], float)
  policy = np.array([[[3, 3], [6, 0]]], float)
  found = human.compare(policy, base, seed=0)
  assert found.ties == 1.0 and found.difference.mean == 0.0


def test_intervals_are_paired():
  rng = np.random.default_rng(0)
  quality = rng.integers(0, 6, 200)
  base, policy = _ratings([quality]), _ratings([quality + 1])
  found = human.compare(policy, base, seed=0)
  assert (found.difference.low, found.difference.mean, found.difference.high) == (
    1,
    1,
    1,
  )
  mean, num_sources = human.mean_rating(policy, seed=0)
  assert mean.mean == pytest.approx(quality.mean() + 1) and num_sources == 200
  assert mean.low < mean.mean < mean.high


def test_a_mean_weighs_sources_the_same():
  ratings = _ratings([[6, 0], [6, N], [6, N]])
  mean, num_sources = human.mean_rating(ratings, seed=0)
  assert mean.mean == 3.0 and num_sources == 2  # not 18 / 4


def test_less_than_two_sources_give_none():
  one, other = _ratings([[3, N]]), _ratings([[N, 3]])
  assert human.mean_rating(one, seed=0) is None
  assert human.compare(one, one, seed=0) is None
  assert human.compare(one, other, seed=0) is None

"""Acquisition by hand."""

import numpy as np
import pytest

from rest_jax.data import group_store
from rest_jax.rewards import acquisition
from tests.rewards.test_damaged import GROUPS, Lengths

REWARDS = [np.array([0.1, 0.2, 0.3, 0.1], np.float32)] * len(GROUPS)


class Backwards(Lengths):
  """Fewer words are better."""

  def __call__(self, groups):
    return [-values for values in super().__call__(groups)]


def test_the_highest_reward_is_the_reward():
  found = acquisition.HighestReward()(GROUPS[:1], REWARDS[:1])[0]
  np.testing.assert_array_equal(found, REWARDS[0].astype(np.float64))


def test_random_depends_on_the_identity_alone():
  choice = acquisition.Random(seed=1)
  found = choice(GROUPS, REWARDS)
  np.testing.assert_array_equal(found[5], choice(GROUPS[5:6], REWARDS[:1])[0])
  assert found[0][0] == found[0][3]  # the same text
  numbers = np.concatenate([values[:3] for values in found])
  # 1,200 uniform numbers: a deviation of 0.008 of the mean.
  assert numbers.mean() == pytest.approx(0.5, abs=0.04)
  assert not np.array_equal(found[0], acquisition.Random(seed=2)(GROUPS, REWARDS)[0])


def test_a_committee_disagrees_where_ranks_differ():
  # Ranks by reward and by length: (1/6, 2/3, 1, 1/6), ties sharing their mean.
  agreeing = acquisition.Disagreement((Lengths(),))(GROUPS[:1], REWARDS[:1])[0]
  np.testing.assert_allclose(agreeing, 0, atol=1e-12)
  # Backwards: (5/6, 1/3, 0, 5/6); the deviation of two is half their distance.
  found = acquisition.Disagreement((Backwards(),))(GROUPS[:1], REWARDS[:1])[0]
  np.testing.assert_allclose(found, [1 / 3, 1 / 6, 1 / 2, 1 / 3], atol=1e-12)


def test_nobody_disagrees_on_one_candidate():
  one = group_store.take(GROUPS[0], slice(0, 1))
  found = acquisition.Disagreement((Backwards(),))([one], [np.ones(1, np.float32)])
  np.testing.assert_array_equal(found[0], [0.0])
  with pytest.raises(ValueError, match='needs a scorer'):
    acquisition.Disagreement(())

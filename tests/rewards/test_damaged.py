"""Damaged rewards: what each destroys, and that it is the same again."""

import numpy as np
import pytest

from rest_jax.data.group_store import Group
from rest_jax.rewards import damaged

TEXTS = ('a', 'b b', 'c c c', 'a')
GROUPS = [
  Group(
    source_id=f's{i}',
    source='x',
    source_tokens=np.array([1], np.int32),
    reference='b b',
    texts=TEXTS,
    tokens=(np.array([1], np.int32),) * len(TEXTS),
    token_log_probs=None,
    finished=np.ones(len(TEXTS), bool),
    origins=('model',) * len(TEXTS),
  )
  for i in range(400)
]


class Lengths:
  """The number of words."""

  name = 'lengths'

  def identity(self):
    return {'scorer': self.name}

  def __call__(self, groups):
    return [np.array([len(t.split()) for t in g.texts], np.float32) for g in groups]


def test_a_random_reward_is_uniform_and_of_the_text():
  scorer = damaged.RandomReward(seed=3)
  rewards = np.array(scorer(GROUPS))
  np.testing.assert_array_equal(rewards[:, 0], rewards[:, 3])  # the same text
  np.testing.assert_array_equal(rewards[7], scorer(GROUPS[7:8])[0])
  distinct = rewards[:, :3].ravel()
  # 1,200 uniform numbers: the mean has a deviation of 0.29 / sqrt(1200) = 0.008.
  assert distinct.mean() == pytest.approx(0.5, abs=0.04)
  assert distinct.min() < 0.01 and distinct.max() > 0.99
  assert not np.array_equal(rewards, np.array(damaged.RandomReward(4)(GROUPS)))


def test_a_shuffle_keeps_each_group_and_loses_the_order():
  scorer = damaged.ShuffledInGroups(Lengths())
  rewards = np.array(scorer(GROUPS))
  np.testing.assert_array_equal(np.sort(rewards, axis=1), [[1, 1, 2, 3]] * 400)
  # The longest lands on each of four places alike: 100 +- 8.7.
  places = np.bincount(rewards.argmax(axis=1), minlength=4)
  assert places.min() > 60
  np.testing.assert_array_equal(rewards[9], scorer(GROUPS[9:10])[0])


def test_noise_has_the_deviation_asked_for():
  rewards = np.array(damaged.NoisyRatings(Lengths(), 2.0)(GROUPS))
  noise = (rewards - [1, 2, 3, 1])[:, :3]
  # 1,200 normal numbers: the deviation is known to 2 / sqrt(2400) = 0.04.
  assert noise.std() == pytest.approx(2.0, abs=0.2)
  assert noise.mean() == pytest.approx(0.0, abs=0.3)
  clean = damaged.NoisyRatings(Lengths(), 0.0)(GROUPS[:1])[0]
  np.testing.assert_array_equal(clean, [1, 2, 3, 1])
  with pytest.raises(ValueError, match='at least 0'):
    damaged.NoisyRatings(Lengths(), -1.0)


def test_a_flaw_adds_its_bonus_for_each_word():
  rewards = damaged.LengthFlaw(Lengths(), 0.5)(GROUPS[:1])[0]
  np.testing.assert_array_equal(rewards, [1.5, 3.0, 4.5, 1.5])


def test_identities_tell_settings_apart():
  scorers = [
    damaged.RandomReward(0),
    damaged.RandomReward(1),
    damaged.NoisyRatings(Lengths(), 1.0),
    damaged.NoisyRatings(Lengths(), 2.0),
    damaged.LengthFlaw(Lengths(), 0.5),
    damaged.ShuffledInGroups(Lengths(), 0),
  ]
  assert len({str(scorer.identity()) for scorer in scorers}) == len(scorers)

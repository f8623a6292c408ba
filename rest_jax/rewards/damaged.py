"""Rewards and ratings that are damaged on purpose, to see where ReST breaks.

    RandomReward       a number drawn for each candidate: no information
    ShuffledInGroups   another scorer's rewards, permuted inside each group: knows
                       which sources are easy, not which candidates are good
    NoisyRatings       ratings with normal noise added
    LengthFlaw         ratings that also like long candidates

The first two take the reward model's place, the last two the rater's, so that a reward
model learns from them. What is drawn depends on (seed, source id, text) alone, so
scoring again gives the same.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from rest_jax.data.group_store import Group
from rest_jax.rewards.text import Scorer


def _generator(purpose: str, seed: int, *identity: str) -> np.random.Generator:
  """Random numbers of an identity."""
  text = '\x1f'.join([purpose, str(seed), *identity])
  digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
  return np.random.Generator(np.random.PCG64(int.from_bytes(digest, 'little')))


class RandomReward:
  """A uniform number in [0, 1) for each candidate; equal texts of a source share it.

  Args:
    seed: of the numbers.
  """

  name = 'random'

  def __init__(self, seed: int = 0):
    self._seed = seed

  def identity(self) -> dict[str, Any]:
    """The seed."""
    return {'scorer': self.name, 'seed': self._seed}

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Rewards, one [samples] float32 array per group."""
    return [
      np.array(
        [
          _generator('random', self._seed, group.source_id, text).random()
          for text in group.texts
        ],
        np.float32,
      )
      for group in groups
    ]


class ShuffledInGroups:
  """Another scorer's rewards, in another order inside each group.

  Args:
    scorer: whose rewards.
    seed: of the permutations.
  """

  name = 'shuffled_in_groups'

  def __init__(self, scorer: Scorer, seed: int = 0):
    self._scorer, self._seed = scorer, seed

  def identity(self) -> dict[str, Any]:
    """The scorer and the seed."""
    return {
      'scorer': self.name,
      'seed': self._seed,
      'shuffled': self._scorer.identity(),
    }

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Rewards, one [samples] float32 array per group."""
    shuffled = []
    for group, rewards in zip(groups, self._scorer(groups), strict=True):
      draw = _generator('shuffle', self._seed, group.source_id)
      shuffled.append(rewards[draw.permutation(len(rewards))])
    return shuffled


class NoisyRatings:
  """Another rater's ratings with normal noise, independent for each text.

  Args:
    rater: whose ratings.
    stddev: of the noise, in units of the ratings.
    seed: of the noise.

  Raises:
    ValueError: stddev is negative.
  """

  name = 'noisy'

  def __init__(self, rater: Scorer, stddev: float, seed: int = 0):
    if not stddev >= 0:
      raise ValueError(
        f'NoisyRatings(stddev={stddev}) must be at least 0, in units of the ratings'
      )
    self._rater, self._stddev, self._seed = rater, stddev, seed

  def identity(self) -> dict[str, Any]:
    """The rater, the noise and the seed."""
    return {
      'scorer': self.name,
      'stddev': self._stddev,
      'seed': self._seed,
      'rater': self._rater.identity(),
    }

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Ratings, one [samples] float32 array per group; not clipped to the scale."""
    noisy = []
    for group, ratings in zip(groups, self._rater(groups), strict=True):
      noise = [
        _generator('noise', self._seed, group.source_id, text).normal()
        for text in group.texts
      ]
      noisy.append((ratings + self._stddev * np.array(noise)).astype(np.float32))
    return noisy


class LengthFlaw:
  """Another rater's ratings plus a bonus for every word of the candidate.

  Args:
    rater: whose ratings.
    bonus: for a word, in units of the ratings.
  """

  name = 'length_flaw'

  def __init__(self, rater: Scorer, bonus: float):
    self._rater, self._bonus = rater, bonus

  def identity(self) -> dict[str, Any]:
    """The rater and the bonus."""
    return {
      'scorer': self.name,
      'bonus': self._bonus,
      'rater': self._rater.identity(),
    }

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Ratings, one [samples] float32 array per group; not clipped to the scale."""
    return [
      np.array(
        ratings + self._bonus * np.array([len(text.split()) for text in group.texts]),
        np.float32,
      )
      for group, ratings in zip(groups, self._rater(groups), strict=True)
    ]

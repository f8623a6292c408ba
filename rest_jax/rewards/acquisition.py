"""Acquisition: which candidates a rater should see next.

An acquisition is a frozen object that gives every candidate of some groups a priority;
the highest are rated (`stages.choose`).

    Random          any candidate is as good as another: the baseline
    HighestReward   those that the reward model likes best, where it is exploited first
    Disagreement    those on which a committee of scorers disagrees

The names are those of active learning (Settles 2009, "Active learning literature
survey"): random sampling, exploitation, query by committee.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import scipy.stats

from rest_jax.data.group_store import Group
from rest_jax.rewards.text import Scorer


class Acquisition(Protocol):
  """What every acquisition is."""

  def __call__(
    self, groups: Sequence[Group], rewards: Sequence[np.ndarray]
  ) -> list[np.ndarray]:
    """Priorities, one [samples] float64 array per group; higher is rated first.

    Args:
      groups: groups with at least one candidate.
      rewards: of the reward model in use, [samples] for each group.
    """
    ...

  def identity(self) -> dict[str, Any]:
    """JSON values that tell this acquisition from others."""
    ...


@dataclasses.dataclass(frozen=True)
class Random:
  """A number in [0, 1) from (seed, source id, text): the same whenever asked.

  Attributes:
    seed: of the numbers.
  """

  seed: int = 0

  def __call__(
    self, groups: Sequence[Group], rewards: Sequence[np.ndarray]
  ) -> list[np.ndarray]:
    """Priorities; rewards are not read."""
    return [
      np.array([self._number(group.source_id, text) for text in group.texts])
      for group in groups
    ]

  def _number(self, source_id: str, text: str) -> float:
    identity = f'acquisition/{self.seed}/{source_id}/{text}'.encode()
    digest = hashlib.blake2b(identity, digest_size=8).digest()
    return int.from_bytes(digest, 'little') / 2**64

  def identity(self) -> dict[str, Any]:
    """The seed."""
    return {'acquisition': 'random', 'seed': self.seed}


@dataclasses.dataclass(frozen=True)
class HighestReward:
  """The reward itself."""

  def __call__(
    self, groups: Sequence[Group], rewards: Sequence[np.ndarray]
  ) -> list[np.ndarray]:
    """Priorities."""
    return [np.asarray(values, np.float64) for values in rewards]

  def identity(self) -> dict[str, Any]:
    """No parameters."""
    return {'acquisition': 'highest_reward'}


@dataclasses.dataclass(frozen=True)
class Disagreement:
  """The standard deviation over a committee of a candidate's rank in its group.

  The committee is the reward model and `members`. Ranks run from 0 (worst) to 1 (best),
  ties share their mean, so that members of any scale can sit on it; in a group of one
  candidate nobody disagrees.

  Attributes:
    members: scorers, such as rewards.consensus.MinimumBayesRiskReward or the reward
      models of other runs (stages.reward_artifact.RewardArtifact).

  Raises:
    ValueError: there is no member.
  """

  members: tuple[Scorer, ...]

  def __post_init__(self) -> None:
    object.__setattr__(self, 'members', tuple(self.members))
    if not self.members:
      raise ValueError(
        'Disagreement(members=()) needs a scorer beside the reward model to disagree '
        'with it, such as consensus.MinimumBayesRiskReward()'
      )

  def __call__(
    self, groups: Sequence[Group], rewards: Sequence[np.ndarray]
  ) -> list[np.ndarray]:
    """Priorities."""
    votes = [rewards, *(member(groups) for member in self.members)]
    return [
      np.std([_ranks(vote[place]) for vote in votes], axis=0)
      for place in range(len(groups))
    ]

  def identity(self) -> dict[str, Any]:
    """The members."""
    members = [member.identity() for member in self.members]
    return {'acquisition': 'disagreement', 'members': members}


def _ranks(values: np.ndarray) -> np.ndarray:
  """[samples] in [0, 1]: the share of the others that a candidate is above."""
  if len(values) < 2:
    return np.zeros(len(values))
  return (scipy.stats.rankdata(values) - 1) / (len(values) - 1)

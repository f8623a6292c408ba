"""Consensus as a reward: minimum Bayes risk, which needs no reward model."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from rest_jax.data.group_store import Group
from rest_jax.evaluation import minimum_bayes_risk
from rest_jax.rewards import text


class MinimumBayesRiskReward:
  """A candidate's mean utility against the policy's other samples of its source.

  Training on the candidates that it rates best is MBR self-training: the policy
  learns in one pass what it would decide with N samples. Source: Finkelstein &
  Freitag 2023 (arXiv:2309.10966); the estimate is minimum_bayes_risk's.

  The data's candidates, of origin 'data', are rated like the others, against the
  policy's samples, and by default are no pseudo-references: the expectation is over
  the policy, and a reference among them would leak the label into a reward that is
  to need none. `data_as_pseudo_references` makes each count as one more sample.

  A reward depends on the whole group: score a group set whole. Rewards of a smaller N
  have the same mean and more noise, so a threshold fitted at one N suits no other.

  Args:
    utility: (candidates, pseudo_references) -> [candidates, pseudo_references].
      chrF by default; a plain function, identified as PerCandidate does it.
    data_as_pseudo_references: see above.
    alone: the reward of a candidate without a pseudo-reference but itself, such as
      the only sample, or a pair of the data in a group without samples. Nothing is
      known of it; 0, the lowest chrF, drops it first. Bind 1 to keep such pairs.

  Raises:
    ValueError: the utility is not a plain function, or its answer is not a finite
      matrix of that shape.
  """

  name = 'minimum_bayes_risk'

  def __init__(
    self,
    *,
    utility: minimum_bayes_risk.Utility = minimum_bayes_risk.chrf_utilities,
    data_as_pseudo_references: bool = False,
    alone: float = 0.0,
  ):
    self._utility = utility
    self._data_as_pseudo_references = data_as_pseudo_references
    self._alone = alone
    self._utility_identity: Any = 'chrf'
    # gin's reference to a function is a wrapper of it.
    if inspect.unwrap(utility) is not minimum_bayes_risk.chrf_utilities:
      self._utility_identity = text.function_identity(utility)

  def identity(self) -> dict[str, Any]:
    """The utility and both choices."""
    return {
      'scorer': self.name,
      'utility': self._utility_identity,
      'data_as_pseudo_references': self._data_as_pseudo_references,
      'alone': self._alone,
    }

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Rewards, one [samples] float32 array per group."""
    return [self._rewards(group) for group in groups]

  def _rewards(self, group: Group) -> np.ndarray:
    drawn = [
      self._data_as_pseudo_references or origin == 'model' for origin in group.origins
    ]
    return minimum_bayes_risk.expected_utilities(
      group.texts,
      pseudo_references=np.array(drawn, bool),
      utility=self._utility,
      alone=self._alone,
    ).astype(np.float32)

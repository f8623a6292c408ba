"""The learned reward model: scores groups, each source encoded once."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from rest_jax.data import batches, buckets, group_store
from rest_jax.models import reward, t5
from rest_jax.training import mesh as mesh_lib


@dataclasses.dataclass(frozen=True)
class RatingScale:
  """The affine map between ratings and what the head is trained to predict.

  prediction = (rating - mean) / stddev
  """

  mean: float
  stddev: float

  @classmethod
  def fit(cls, ratings: np.ndarray) -> 'RatingScale':
    """Fits mean and standard deviation; a constant rating has nothing to teach."""
    ratings = np.asarray(ratings, np.float64)
    if not np.isfinite(ratings).all():
      raise ValueError('the ratings hold a value that is not finite: drop that row')
    if ratings.size == 0 or ratings.std() == 0:
      found = f'all are {ratings.flat[0]}' if ratings.size else 'there are none'
      raise ValueError(
        f'a reward model needs ratings that differ; of {ratings.size} ratings {found}'
      )
    return cls(float(ratings.mean()), float(ratings.std()))

  def standardise(self, ratings: np.ndarray) -> np.ndarray:
    """Returns what the head should predict for these ratings."""
    return ((ratings - self.mean) / self.stddev).astype(np.float32)

  def restore(self, predictions: np.ndarray) -> np.ndarray:
    """Returns predictions on the scale of the ratings."""
    return (predictions * self.stddev + self.mean).astype(np.float32)


_predict = functools.partial(jax.jit, static_argnames=('config',))(reward.predict)


class LearnedReward:
  """Scores groups with a trained reward model.

  Args:
    params: of `reward.RewardT5`, on the mesh.
    config: the model's shape.
    scale: back to the scale of the ratings that it was trained on.
    mesh: groups are spread over its data and fsdp axes.
    batch_size: sources scored together; changes no score beyond rounding.
    max_samples: candidates of one source scored together; more take turns.
    source_length, target_length: the most tokens, EOS included.
  """

  name = 'learned'

  def __init__(
    self,
    params: Any,
    config: t5.T5Config,
    scale: RatingScale,
    *,
    mesh: jax.sharding.Mesh,
    batch_size: int = 32,
    max_samples: int = 32,
    source_length: int,
    target_length: int,
  ):
    self._params = params
    self._config = config
    self._scale = scale
    self._mesh = mesh
    self._batch_size = batch_size
    self._max_samples = max_samples
    self._source_lengths = buckets.lengths_up_to(source_length)
    self._target_lengths = buckets.lengths_up_to(target_length)

  def __call__(self, groups: Sequence[group_store.Group]) -> list[np.ndarray]:
    """Returns [samples] float32 rewards per group, on the ratings' scale."""
    rewards = [np.zeros(len(group.tokens), np.float32) for group in groups]
    order = np.argsort([len(group.source_tokens) for group in groups], kind='stable')
    for start in range(0, len(order), self._batch_size):
      rows = order[start : start + self._batch_size]
      self._fill([groups[row] for row in rows], [rewards[row] for row in rows])
    return rewards

  def _fill(
    self, groups: Sequence[group_store.Group], rewards: Sequence[np.ndarray]
  ) -> None:
    """Scores one batch of sources into `rewards`, a turn of candidates at a time."""
    most = max(len(group.tokens) for group in groups)
    if most == 0:  # bare sources; there is nothing to score
      return
    samples = min(most, self._max_samples)
    longest = max((len(t) for group in groups for t in group.tokens), default=1)
    source_length = max(len(group.source_tokens) for group in groups)
    shape: dict[str, Any] = {
      'samples': samples,
      'source_length': buckets.bucket(source_length, self._source_lengths),
      'target_length': buckets.bucket(longest, self._target_lengths),
    }
    for first in range(0, most, samples):
      turn = slice(first, first + samples)
      part = [group_store.take(group, turn) for group in groups]
      batch = batches.group_batch(part, batch=self._batch_size, **shape)
      placed = mesh_lib.put_batch(self._mesh, batch)
      predictions = _predict(self._params, placed, config=self._config)
      restored = self._scale.restore(np.asarray(jax.device_get(predictions)))
      for row, group in enumerate(part):
        rewards[row][turn] = restored[row, : len(group.tokens)]

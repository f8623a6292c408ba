"""Model features of one pair with its reward."""

from collections.abc import Mapping
from typing import Any

import seqio
import tensorflow as tf

REWARDS = 'rewards'
_SPEC = seqio.FeatureConverter.FeatureSpec(dtype=tf.float32, rank=0)


class RewardedPairs(seqio.EncDecFeatureConverter):
  """SeqIO's encoder-decoder features and `rewards` [] of each example, unpacked.

  `task_feature_lengths` is T5X's, of `inputs` and `targets`.
  """

  TASK_FEATURES: Mapping[str, Any] = {
    **seqio.EncDecFeatureConverter.TASK_FEATURES,
    REWARDS: _SPEC,
  }
  MODEL_FEATURES: Mapping[str, Any] = {
    **seqio.EncDecFeatureConverter.MODEL_FEATURES,
    REWARDS: _SPEC,
  }

  def __init__(self, pack: bool = True, **arguments: Any):
    if pack:
      raise ValueError(
        'pack=True: a packed row holds several pairs and could not keep their rewards '
        'apart. Bind utils.DatasetConfig.pack = False'
      )
    super().__init__(pack=False, **arguments)

  def __call__(self, ds: Any, task_feature_lengths: Mapping[str, int]) -> Any:
    """Converts a data set of task features."""
    return super().__call__(ds, {**task_feature_lengths, REWARDS: 0})

  def _convert_features(self, ds: Any, task_feature_lengths: Mapping[str, int]) -> Any:
    # Without a length a feature is neither cut nor padded.
    lengths = {k: v for k, v in task_feature_lengths.items() if k != REWARDS}
    return super()._convert_features(ds, lengths)

  def _convert_example(self, features: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**super()._convert_example(features), REWARDS: features[REWARDS]}

  def get_model_feature_lengths(
    self, task_feature_lengths: Mapping[str, int]
  ) -> Mapping[str, int]:
    """As the parent's, and 0 for the scalar."""
    return {**super().get_model_feature_lengths(task_feature_lengths), REWARDS: 0}

"""SeqIO tasks of a MODEL_DIR of ours, made where T5X's gin files name a task.

Each function registers a task and returns its name, so that a gin file binds

  MIXTURE_OR_TASK_NAME = @tasks.improve_task()
"""

from collections.abc import Iterator, Mapping
from typing import Any

import seqio
import tensorflow as tf

from rest_jax import filters, paths
from rest_jax.data import group_store, seqio_tasks, vocabularies


def vocabulary(directory: paths.PathLike) -> Any:
  """The SeqIO vocabulary of a policy's artifact, or of a corpus."""
  return seqio_tasks.seqio_vocabulary(paths.as_path(directory) / 'vocabulary.model')


def improve_task(
  group_dir: paths.PathLike,
  reward_dir: paths.PathLike,
  policy_dir: paths.PathLike,
  task_feature_lengths: Mapping[str, int],
  *,
  threshold: float,
  filter_fn: Any = filters.GlobalThreshold,
  name: str = 'rest_jax_improve',
) -> str:
  """Registers the pairs that an Improve step trains on, with their rewards.

  Args:
    group_dir: D_g, the artifact of a Grow.
    reward_dir: its scores.
    policy_dir: the policy to improve, whose vocabulary made the tokens.
    task_feature_lengths: T5X's; longer pairs are an error.
    threshold: of the filter; 0.0 keeps all of D_g.
    filter_fn: makes the filter of a threshold.
    name: of the task, whose name ends in '_pairs'.

  Returns:
    The name of the task; its one split is 'train'.
  """
  _, pairs = seqio_tasks.register_improve_task(
    name,
    group_dir,
    vocabulary_path=paths.as_path(policy_dir) / 'vocabulary.model',
    samples=1,
    buckets=((task_feature_lengths['inputs'], task_feature_lengths['targets']),),
    reward_dir=reward_dir,
    keep_fn=filters.KeepAll() if threshold == 0.0 else filter_fn(threshold),
    replace=True,
  )
  return pairs


def grow_task(
  group_dir: paths.PathLike,
  policy_dir: paths.PathLike,
  *,
  num_sources: int | None = None,
  name: str = 'rest_jax_grow',
) -> str:
  """Registers the sources of a group set, for `t5x.infer` to sample from.

  An example has the tokens `inputs`, the texts `inputs_pretokenized` and `source_id`,
  by which `inferences` finds the source again. `targets` is EOS alone: T5X takes from
  it the length that it decodes to, no more.

  Args:
    group_dir: a group set, such as MODEL_DIR/corpus/train.
    policy_dir: the policy that samples, whose vocabulary made the tokens.
    num_sources: the first so many; None for all.
    name: of the task.

  Returns:
    The name of the task; its one split is 'train'.
  """

  def examples() -> Iterator[dict[str, Any]]:
    columns = ('source_id', 'source', 'source_tokens')
    groups = group_store.iterate_groups(group_dir, columns=columns)
    for index, group in enumerate(groups):
      if num_sources is not None and index >= num_sources:
        return
      yield {
        'inputs': group.source_tokens,
        'targets': [vocabularies.EOS_ID],
        'inputs_pretokenized': group.source,
        'source_id': group.source_id,
      }

  signature = {
    'inputs': tf.TensorSpec((None,), tf.int32),
    'targets': tf.TensorSpec((None,), tf.int32),
    'inputs_pretokenized': tf.TensorSpec((), tf.string),
    'source_id': tf.TensorSpec((), tf.string),
  }

  def dataset_fn(split: str, shuffle_files: bool, seed: int | None = None) -> Any:
    return tf.data.Dataset.from_generator(examples, output_signature=signature)

  feature = seqio.Feature(vocabulary(policy_dir), add_eos=False)  # EOS is stored
  if name in seqio.TaskRegistry.names():
    seqio.TaskRegistry.remove(name)
  seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(dataset_fn, splits=('train',)),
    preprocessors=[],
    output_features={'inputs': feature, 'targets': feature},
  )
  return name

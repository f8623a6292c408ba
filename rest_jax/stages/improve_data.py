"""The data of one Improve step: what the filter keeps, as a SeqIO task or without."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from rest_jax import filters
from rest_jax.data import batches, group_store, reward_store
from rest_jax.stages import artifact, policies

BatchFn = Callable[[int], batches.Batch]


def batch_fn(
  name: str,
  *,
  corpus: artifact.Artifact,
  samples: artifact.Artifact,
  rewards: artifact.Artifact,
  keep: filters.Filter,
  batch_size: int,
  samples_per_row: int,
  buckets: Sequence[tuple[int, int]],
  mix_with: Sequence[tuple[str, float]],
  seed: int,
  start_step: int,
  places: np.ndarray,
) -> BatchFn:
  """Returns step -> batch over what the filter keeps of D_g.

  Where SeqIO is installed the step's data are a SeqIO task, `rest_jax_<name>`,
  and stream through it. Where it is not, the TensorFlow-free reader gives the same
  batches; only `mix_with` needs SeqIO.

  Args:
    name: of the Improve step's artifact.
    corpus: for its vocabulary.
    samples, rewards: D_g and its rewards.
    keep: the filter.
    batch_size, samples_per_row, buckets: shapes of the batches.
    mix_with: (task or mixture, rate) pairs to mix in; this step's task has rate 1.
    seed: of the order.
    start_step: the first step that will be asked for; from there in order.
    places: which rows of a batch this host fills.

  Raises:
    ValueError: `mix_with` without SeqIO.
  """
  shape: dict[str, Any] = {'samples': samples_per_row, 'buckets': buckets}
  if importlib.util.find_spec('seqio') is None:
    if mix_with:
      raise ValueError(
        f'{name} mixes in {[task for task, _ in mix_with]}, which needs SeqIO: '
        "pip install 'rest_jax[seqio]', or leave MIX_WITH empty"
      )
    reader = batches.GroupBatches(
      samples.path,
      reward_dir=rewards.path,
      keep_fn=keep,
      batch=batch_size,
      seed=seed,
      places=places,
      **shape,
    )
    return reader.batch

  from rest_jax.data import seqio_tasks, task_batches

  task, _ = seqio_tasks.register_improve_task(
    f'rest_jax_{name}',
    samples.path,
    reward_dir=rewards.path,
    keep_fn=keep,
    vocabulary_path=corpus.path / policies.VOCABULARY_FILE,
    replace=True,
    **shape,
  )
  if mix_with:
    task = seqio_tasks.register_mixture(f'{task}_mixture', [(task, 1.0), *mix_with])
  stream = task_batches.batches_from_task(
    task, batch=batch_size, seed=seed, start_step=start_step, places=places, **shape
  )
  expected = start_step

  def next_batch(step: int) -> batches.Batch:
    nonlocal expected
    assert step == expected, f'step {step} was asked for instead of {expected}'
    expected += 1
    return next(stream)

  return next_batch


def fitted(
  keep: filters.Filter, samples: artifact.Artifact, rewards: artifact.Artifact
) -> filters.Filter:
  """The filter that a batch can be given: a global quantile becomes its threshold.

  The quantile is exact and over all of D_g, read once or twice, column by column.

  Raises:
    ValueError: the quantile would keep nothing.
  """
  if not isinstance(keep, filters.GlobalQuantile):
    return keep
  return keep.fit(_RewardColumns(samples, rewards))


class _RewardColumns:
  """The rewards of D_g, shard by shard, as often as it is asked."""

  def __init__(self, samples: artifact.Artifact, rewards: artifact.Artifact):
    self._directories = samples.path, rewards.path

  def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for _, reward_path in reward_store.paired_shards(*self._directories):
      scores = reward_store.read_rewards(reward_path)
      yield reward_store.padded(scores.for_training())


def check(
  keep: filters.Filter, rewards: artifact.Artifact, previous_threshold: float | None
) -> None:
  """Raises ValueError for a global threshold that breaks Algorithm 1's rules."""
  if isinstance(keep, filters.GlobalThreshold):
    filters.check_threshold(
      keep.tau,
      mean_reward=rewards.results['mean_reward'],
      max_reward=rewards.results['max_reward'],
      previous_tau=previous_threshold,
    )


def count(
  keep: filters.Filter, samples: artifact.Artifact, rewards: artifact.Artifact
) -> dict[str, Any]:
  """Counts what a (fitted) filter keeps: candidates, sources and tokens.

  Raises:
    ValueError: it keeps nothing.
  """
  report = filters.FilterReport()
  for group_path, reward_path in reward_store.paired_shards(samples.path, rewards.path):
    scores = reward_store.read_rewards(reward_path)
    groups = group_store.read_groups(group_path, columns=['source_id', 'tokens'])
    values, mask = reward_store.padded(scores.for_training())
    lengths, _ = reward_store.padded(
      [np.array([len(t) for t in g.tokens], np.float32) for g in groups]
    )
    report.update(
      keep(values, mask),
      mask,
      source_ids=scores.source_ids,
      num_tokens=lengths.astype(np.int64),
    )
  if not report.kept_candidates:
    raise ValueError(
      f'the filter {keep} keeps none of {report.candidates:,} candidates, whose '
      f'rewards reach {rewards.results["max_reward"]:.4g}: choose a lower threshold'
    )
  return report.to_dict()

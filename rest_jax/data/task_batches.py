"""Fixed-shape batches out of any SeqIO task or mixture, as `batches` makes them.

TensorFlow and SeqIO are imported inside the functions.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rest_jax.data import batches, row_index, tensorflow_corpora


def batches_from_task(
  name: str,
  *,
  batch: int,
  samples: int,
  buckets: Sequence[tuple[int, int]],
  seed: int = 0,
  split: str = 'train',
  start_step: int = 0,
  shuffle: bool = True,
  overlong: row_index.Overlong = 'error',
  missing_reward: float = 0.0,
  sequence_length: Mapping[str, int] | None = None,
  places: np.ndarray | None = None,
) -> 'TaskBatches':
  """An endless iterator over training batches of a SeqIO task or mixture.

  Examples are dealt to the first length bucket that holds them, and a bucket
  gives a batch whenever it is full. For a task of `register_improve_task` alone,
  registered with the same samples and buckets, the batches equal those of
  `batches.GroupBatches`, and starting at a step costs nothing. A mixture draws
  from its tasks by their rates, and starts at a step by reading all before it.

  Args:
    name: a registered task or mixture. An example of an ordinary task is a group
      with one candidate.
    batch: rows in a batch.
    samples: slots in a row.
    buckets: (source_length, target_length) pairs, rising.
    seed: of the shuffle and of the mixture.
    split: of every task.
    start_step: the step whose batch comes first.
    shuffle: False for the stored order.
    overlong: 'error', 'truncate' or 'drop'; counted in `counts`.
    missing_reward: reward of examples that have none, where others do.
    sequence_length: passed to the tasks' preprocessors, for those that need it.
    places: which rows of a batch this host fills; the others are empty. Of a mixture
      all are read even so, since which examples are in a batch is known only then.

  Raises:
    ValueError: an unknown task (lists near names) or split, tasks of different
      vocabularies, or bad arguments.
  """
  if start_step < 0:
    raise ValueError(f'start_step {start_step} must not be negative')
  if overlong not in row_index.OVERLONG:
    raise ValueError(f'overlong {overlong!r} is unknown; known: {row_index.OVERLONG}')
  limits = row_index.checked_buckets(buckets)
  provider = tensorflow_corpora.find_provider(name)
  if split not in provider.splits:
    raise ValueError(f'{name} has no split {split!r}; known: {sorted(provider.splits)}')
  source: Any = getattr(provider, 'source', None)
  arguments: dict[str, Any] = {'seed': seed, 'shuffle': shuffle}
  skip, read = start_step, None
  if (
    hasattr(source, 'dataset_from_step')
    and provider.shuffle_buffer_size is None
    and np.array_equal(source.buckets, limits)
  ):
    dataset = source.dataset_from_step(
      start_step, batch=batch, places=places, **arguments
    )
    dataset = provider.preprocess_postcache(dataset, sequence_length, seed=seed)
    skip, read = 0, places
  elif source is not None:
    dataset = _task_dataset(provider, split, sequence_length, **arguments)
  else:
    dataset = _mixed(provider, split, sequence_length, missing_reward, **arguments)
  result = TaskBatches(
    _untuned(dataset),
    batch=batch,
    samples=samples,
    limits=limits,
    overlong=overlong,
    missing_reward=missing_reward,
    places=read,
  )
  for _ in range(skip):
    next(result)
  return result


def _untuned(dataset: Any) -> Any:
  """Without tf.data's tuner, whose thread sleeps longer and longer between its rounds.

  An iterator that is let go of waits for it: 35 to 40 s at the end of an Improve of 45
  s on one or two CPU cores.
  """
  import tensorflow as tf

  options = tf.data.Options()
  options.autotune.enabled = False
  return dataset.with_options(options)


def _task_dataset(
  task: Any,
  split: str,
  sequence_length: Mapping[str, int] | None,
  *,
  seed: int,
  shuffle: bool,
) -> Any:
  return task.get_dataset(
    sequence_length=sequence_length,
    split=split,
    seed=seed,
    shuffle=shuffle,
    num_epochs=None,
    trim_output_features=False,  # too long a text is counted here, not cut there
    try_in_mem_cache=False,  # which would repeat the first epoch's order
  )


def _mixed(
  mixture: Any,
  split: str,
  sequence_length: Mapping[str, int] | None,
  missing_reward: float,
  *,
  seed: int,
  shuffle: bool,
) -> Any:
  """The mixture's tasks, each example made a group, drawn by their rates.

  seqio.Mixture itself cannot: its tasks must agree in every feature and rank.
  """
  import tensorflow as tf

  tasks = [task for task in mixture.tasks if split in task.splits]
  first = tasks[0]
  for task in tasks[1:]:
    for feature in ('inputs', 'targets'):
      mine = task.output_features[feature].vocabulary
      theirs = first.output_features[feature].vocabulary
      if mine != theirs:
        raise ValueError(
          f'tasks {first.name!r} and {task.name!r} have different vocabularies for '
          f'{feature!r} ({theirs}, {mine}): a mixture needs one'
        )
  datasets = [
    _task_dataset(task, split, sequence_length, seed=seed, shuffle=shuffle)
    for task in tasks
  ]
  rewarded = any('rewards' in dataset.element_spec for dataset in datasets)

  def as_group(example: dict[str, Any]) -> dict[str, Any]:
    targets = example['targets']
    if targets.shape.rank == 1:
      targets = targets[tf.newaxis]  # [1, target_length]
    shape = tf.shape(targets)
    group = {
      'inputs': example['inputs'],
      'targets': targets,
      'target_lengths': example.get('target_lengths', tf.fill(shape[:1], shape[1])),
    }
    if rewarded:
      rewards = example.get('rewards', tf.fill(shape[:1], missing_reward))
      group['rewards'] = tf.reshape(rewards, [-1])
    return group

  # Adapted first: sample_from_datasets wants one structure.
  return tf.data.Dataset.sample_from_datasets(
    [dataset.map(as_group) for dataset in datasets],
    [mixture.get_rate(task) for task in tasks],
    seed=seed,
    stop_on_empty_dataset=True,
  )


class TaskBatches(Iterator[batches.Batch]):
  """Deals a tf.data stream of examples to length buckets; see `batches_from_task`.

  `places`: where in a batch the stream's examples belong, None for all of it.
  `counts`: examples read, and sources and candidates truncated or dropped, so far.
  """

  def __init__(
    self,
    dataset: Any,
    *,
    batch: int,
    samples: int,
    limits: np.ndarray,  # [buckets, 2]
    overlong: row_index.Overlong,
    missing_reward: float,
    places: np.ndarray | None = None,
  ):
    self.counts: collections.Counter[str] = collections.Counter()
    self._examples = dataset.as_numpy_iterator()
    self._rewarded = 'rewards' in dataset.element_spec
    self._batch = batch
    self._places = np.arange(batch) if places is None else places
    self._samples = samples
    self._limits = limits
    self._overlong = overlong
    self._missing_reward = missing_reward
    self._waiting: list[list[dict[str, Any]]] = [[] for _ in limits]

  def __next__(self) -> batches.Batch:
    while True:
      row = self._row(next(self._examples))
      if row is None:
        continue
      fits = [
        np.searchsorted(self._limits[:, 0], len(row['source_tokens'])),
        np.searchsorted(self._limits[:, 1], max(map(len, row['candidates']))),
      ]
      bucket = min(int(max(fits)), len(self._limits) - 1)
      self._waiting[bucket].append(row)
      if len(self._waiting[bucket]) == len(self._places):
        rows, self._waiting[bucket] = self._waiting[bucket], []
        return self._assemble(rows, bucket)

  def _row(self, example: dict[str, np.ndarray]) -> dict[str, Any] | None:
    """The example as arguments of `batches.fill_row`; None where it is dropped."""
    self.counts['examples'] += 1
    targets = np.atleast_2d(example['targets'])
    lengths = example.get('target_lengths', np.full(len(targets), targets.shape[1]))
    candidates = [
      tokens[:length] for tokens, length in zip(targets, lengths, strict=True)
    ]
    rewards = np.atleast_1d(example.get('rewards', self._missing_reward))
    source = example['inputs']
    if len(candidates) > self._samples:
      raise ValueError(
        f'an example has {len(candidates)} candidates for {self._samples} slots: '
        'register the task with that many samples, or raise them here'
      )
    too_long = np.array([len(c) > self._limits[-1, 1] for c in candidates], bool)
    long_source = len(source) > self._limits[-1, 0]
    if long_source or too_long.any():
      if self._overlong == 'error':
        raise ValueError(
          f'an example has {len(source)} source tokens and a candidate of '
          f'{max(map(len, candidates))}; the last bucket is '
          f'{tuple(self._limits[-1].tolist())}: add a longer one, or set overlong='
          "'truncate' or 'drop'"
        )
      verb = 'truncated' if self._overlong == 'truncate' else 'dropped'
      self.counts[f'{verb}_sources'] += int(long_source)
      gone = np.ones_like(too_long) if verb == 'dropped' and long_source else too_long
      self.counts[f'{verb}_candidates'] += int(gone.sum())
      if verb == 'dropped':
        candidates = [c for c, bad in zip(candidates, gone, strict=True) if not bad]
        rewards = np.broadcast_to(rewards, gone.shape)[~gone]
    if not candidates:
      return None
    return {
      'source_tokens': source,
      'candidates': candidates,
      'rewards': rewards if self._rewarded else None,
    }

  def _assemble(self, rows: list[dict[str, Any]], bucket: int) -> batches.Batch:
    source_length, target_length = self._limits[bucket].tolist()
    features = batches.empty_batch(
      batch=self._batch,
      samples=self._samples,
      source_length=source_length,
      target_length=target_length,
      rewards=self._rewarded,
    )
    for place, row in zip(self._places.tolist(), rows, strict=True):
      batches.fill_row(features, place, **row)
    return features

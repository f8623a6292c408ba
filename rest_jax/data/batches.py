"""Batches of fixed shape from groups, without TensorFlow.

Features (NumPy; every shape static within a length bucket):

    encoder_input_tokens   [batch, source_length] int32
    decoder_input_tokens   [batch, samples, target_length] int32, shifted right,
                           starts with 0
    decoder_target_tokens  [batch, samples, target_length] int32
    decoder_loss_weights   [batch, samples, target_length] float32, 1 on every token
                           of a candidate, EOS included, 0 on padding and on empty
                           slots
    keep                   [batch, samples] bool, True where a slot holds a candidate
    rewards                [batch, samples] float32, 0 on empty slots; with rewards
    behaviour_log_probs    [batch, samples, target_length] float32, nats; on request

`group_batch` makes one batch of given groups; `GroupBatches` streams a stored set,
filtered and packed as `row_index` describes, shuffled as `row_order` does.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rest_jax import paths
from rest_jax.data import group_store, row_index, row_order, row_reader
from rest_jax.data.vocabularies import EOS_ID

Batch = dict[str, np.ndarray]


def empty_batch(
  *,
  batch: int,
  samples: int,
  source_length: int,
  target_length: int,
  rewards: bool = False,
  log_probs: bool = False,
) -> Batch:
  """A batch of nothing but padding, in the shapes above."""
  targets = (batch, samples, target_length)
  features: Batch = {
    'encoder_input_tokens': np.zeros((batch, source_length), np.int32),
    'decoder_input_tokens': np.zeros(targets, np.int32),
    'decoder_target_tokens': np.zeros(targets, np.int32),
    'decoder_loss_weights': np.zeros(targets, np.float32),
    'keep': np.zeros((batch, samples), bool),
  }
  if rewards:
    features['rewards'] = np.zeros((batch, samples), np.float32)
  if log_probs:
    features['behaviour_log_probs'] = np.zeros(targets, np.float32)
  return features


def fill_row(
  features: Batch,
  row: int,
  source_tokens: np.ndarray,  # [length] int32
  candidates: Sequence[np.ndarray],  # each [length_i] int32
  *,
  rewards: np.ndarray | None = None,  # [candidates] float32
  log_probs: Sequence[np.ndarray] | None = None,  # each [length_i] float32
) -> None:
  """Writes one source and its candidates into a row of `empty_batch`.

  What is longer than the shapes is cut: a source keeps its EOS at the end, a
  candidate loses it, since its text does not end there.
  """
  encoder = features['encoder_input_tokens'][row]  # [source_length]
  inputs = features['decoder_input_tokens'][row]  # [samples, target_length]
  targets = features['decoder_target_tokens'][row]
  weights = features['decoder_loss_weights'][row]
  length = min(len(source_tokens), len(encoder))
  encoder[:length] = source_tokens[:length]
  if length < len(source_tokens):
    encoder[-1] = EOS_ID
  limit = targets.shape[1]
  for slot, tokens in enumerate(candidates):
    cut = tokens[:limit]
    targets[slot, : len(cut)] = cut
    inputs[slot, 1 : len(cut)] = cut[:-1]
    weights[slot, : len(cut)] = 1.0
    if log_probs is not None:
      features['behaviour_log_probs'][row, slot, : len(cut)] = log_probs[slot][:limit]
  features['keep'][row, : len(candidates)] = True
  if rewards is not None:
    features['rewards'][row, : len(candidates)] = rewards


def group_batch(
  groups: Sequence[group_store.Group],
  *,
  samples: int,
  source_length: int,
  target_length: int,
  batch: int | None = None,
  rewards: Sequence[np.ndarray] | None = None,
  log_probs: bool = False,
  truncate: bool = False,
) -> Batch:
  """One batch: a row per group, candidates in their own order and slots.

  Args:
    groups: the groups; one may have no candidate.
    samples: slots in a row.
    source_length: tokens of a source.
    target_length: tokens of a candidate.
    batch: rows in the batch, those after the groups empty; None for as many as
      there are groups.
    rewards: per group [candidates], or None.
    log_probs: whether to add behaviour_log_probs.
    truncate: whether to cut what is too long (as `fill_row` does).

  Raises:
    ValueError: more groups than rows, more candidates than slots (see
      `chunk_groups`), a text that is too long without `truncate`, or missing
      log-probabilities.
  """
  rows = len(groups) if batch is None else batch
  if len(groups) > rows:
    raise ValueError(f'{len(groups)} groups do not fit in a batch of {rows} rows')
  features = empty_batch(
    batch=rows,
    samples=samples,
    source_length=source_length,
    target_length=target_length,
    rewards=rewards is not None,
    log_probs=log_probs,
  )
  for row, group in enumerate(groups):
    _check_fits(group, samples, source_length, target_length, truncate)
    if log_probs and group.token_log_probs is None and group.tokens:
      raise ValueError(
        f'group {group.source_id!r} has no token_log_probs: they are known for '
        'sampled candidates only; score its candidates with the behaviour policy'
      )
    fill_row(
      features,
      row,
      group.source_tokens,
      group.tokens,
      rewards=None if rewards is None else rewards[row],
      log_probs=group.token_log_probs if log_probs else None,
    )
  return features


def _check_fits(
  group: group_store.Group,
  samples: int,
  source_length: int,
  target_length: int,
  truncate: bool,
) -> None:
  if len(group.tokens) > samples:
    raise ValueError(
      f'group {group.source_id!r} has {len(group.tokens)} candidates for {samples} '
      'slots: raise samples, or cut it with chunk_groups'
    )
  longest = max(map(len, group.tokens), default=0)
  if not truncate and (
    len(group.source_tokens) > source_length or longest > target_length
  ):
    raise ValueError(
      f'group {group.source_id!r} has {len(group.source_tokens)} source tokens and a '
      f'longest candidate of {longest}, for lengths {source_length} and '
      f'{target_length}: raise them, or set truncate=True'
    )


def chunk_groups(
  groups: Sequence[group_store.Group], samples: int
) -> list[group_store.Group]:
  """Cuts groups so that none has more than `samples` candidates, in order."""
  if samples < 1:
    raise ValueError(f'samples {samples} must be at least 1')
  return [
    group
    if len(group.tokens) <= samples
    else group_store.take(group, slice(first, first + samples))
    for group in groups
    for first in range(0, max(1, len(group.tokens)), samples)
  ]


class GroupBatches:
  """The training and evaluation batches of a stored group set.

  `batch(step)` depends on the step alone: a run that resumes asks for the step it
  is at. Reading is thread-safe. Rows are read by Parquet row group; of each, only
  the kept candidates stay in memory, as flat arrays (4 bytes a token). Without
  `window_row_groups` all of them stay; with it, as many as the windows in use need.

  Args:
    group_dir: a group set.
    batch: rows in a batch.
    samples: slots in a row; a source with more kept candidates has several rows.
    buckets: (source_length, target_length) pairs, rising; each is one shape.
    seed: of the shuffle.
    reward_dir: a reward set of these groups; adds the feature `rewards`, which are
      normalised where the set has that.
    keep_fn: a filter (see `rest_jax.filters`) on those rewards.
    source_fn: which sources to use, by their ids; None for all.
    overlong: 'error', 'truncate' or 'drop' what exceeds the last bucket; counted.
    log_probs: adds the feature `behaviour_log_probs`.
    shuffle: False keeps the stored order.
    window_row_groups: shuffle inside windows of so many row groups, to bound the
      memory; None shuffles over the whole set.
    places: which rows of a training batch this host reads (see
      `training.mesh.host_rows`); it leaves the others empty. None for all.

  Raises:
    ValueError: arguments or sets that do not fit together; nothing to train on.
  """

  def __init__(
    self,
    group_dir: paths.PathLike,
    *,
    batch: int,
    samples: int,
    buckets: Sequence[tuple[int, int]],
    seed: int = 0,
    reward_dir: paths.PathLike | None = None,
    keep_fn: row_index.KeepFn | None = None,
    source_fn: row_index.SourceFn | None = None,
    overlong: row_index.Overlong = 'error',
    log_probs: bool = False,
    shuffle: bool = True,
    window_row_groups: int | None = None,
    places: np.ndarray | None = None,
  ):
    self.index = row_index.build(
      group_dir,
      samples=samples,
      buckets=buckets,
      reward_dir=reward_dir,
      keep_fn=keep_fn,
      source_fn=source_fn,
      overlong=overlong,
    )
    self.order = row_order.Order(
      self.index,
      batch=batch,
      seed=seed,
      shuffle=shuffle,
      window_row_groups=window_row_groups,
    )
    self.buckets = tuple((int(source), int(target)) for source, target in buckets)
    self.batch_size = batch
    self.samples = samples
    self._log_probs = log_probs
    self._places = np.arange(batch) if places is None else places
    # A bucket's batch may reach back one window; the next one may have begun.
    held = None if window_row_groups is None else window_row_groups * (len(buckets) + 2)
    self.reader = row_reader.RowReader(
      self.index, log_probs=log_probs, max_row_groups=held
    )

  @property
  def counts(self) -> row_index.Counts:
    """What was kept, emptied, truncated and dropped."""
    return self.index.counts

  @property
  def steps_per_epoch(self) -> float:
    """Rows divided by the batch size."""
    return self.index.num_rows / self.batch_size

  def batch(self, step: int) -> Batch:
    """The training batch of a step; always the same."""
    bucket, rows = self.order.rows(step)
    return self._batch(rows[self._places], self._places, bucket)

  def batch_of_rows(self, rows: Sequence[int] | np.ndarray, bucket: int) -> Batch:
    """The batch of given rows in a bucket's shape, empty rows after them."""
    return self._batch(np.asarray(rows), np.arange(len(rows)), bucket)

  def _batch(self, rows: np.ndarray, places: np.ndarray, bucket: int) -> Batch:
    source_length, target_length = self.buckets[bucket]
    features = empty_batch(
      batch=self.batch_size,
      samples=self.samples,
      source_length=source_length,
      target_length=target_length,
      rewards=self.index.slot_reward is not None,
      log_probs=self._log_probs,
    )
    for place, row in zip(places.tolist(), rows.tolist(), strict=True):
      found = self.reader.row(row)
      fill_row(
        features,
        place,
        found.source_tokens,
        found.candidates,
        rewards=found.rewards,
        log_probs=found.log_probs,
      )
    return features

  def evaluation_batches(self) -> Iterator[Batch]:
    """Every row once, in the stored order within a bucket, buckets one by one.

    The last batch of a bucket is filled up with empty rows (weights 0, keep
    False).
    """
    for bucket in range(len(self.buckets)):
      rows = np.flatnonzero(self.index.row_bucket == bucket)
      for start in range(0, len(rows), self.batch_size):
        some = rows[start : start + self.batch_size]
        yield self.batch_of_rows(some, bucket)

  def describe(self) -> dict[str, Any]:
    """The counts as JSON values."""
    return dataclasses.asdict(self.counts)

"""Which candidates go into which row: a group set, filtered, packed and counted.

A **row** is one source with up to `samples` of its kept candidates. A source
with more of them spans several rows; one with none has no row. The index holds a
few integers per row and none of the tokens, so it fits in memory for any corpus.

The order of the rows in training is in `row_order`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from rest_jax import paths
from rest_jax.data import columns, group_store, reward_store

KeepFn = Callable[[np.ndarray, np.ndarray], np.ndarray]
SourceFn = Callable[[Sequence[str]], np.ndarray]
Overlong = Literal['error', 'truncate', 'drop']
OVERLONG = ('error', 'truncate', 'drop')


@dataclasses.dataclass
class Counts:
  """What became of a group set; nothing is left out without being counted here."""

  sources: int = 0
  candidates: int = 0
  other_sources: int = 0  # left to others by source_fn, with their candidates
  kept_candidates: int = 0  # chosen by the filter
  emptied_sources: int = 0  # with candidates, of which the filter kept none
  truncated_sources: int = 0
  truncated_candidates: int = 0
  dropped_sources: int = 0  # too long; their kept candidates are counted below too
  dropped_candidates: int = 0  # too long, or of a source that is
  rows: int = 0
  rows_per_bucket: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class RowIndex:
  """The rows of a group set; chunks are Parquet row groups, in order."""

  shard_paths: tuple[paths.PathLike, ...]
  chunk_shard: np.ndarray  # [chunks] int32
  chunk_start: np.ndarray  # [chunks] int64, first source in its shard
  chunk_stop: np.ndarray  # [chunks] int64
  chunk_rows: np.ndarray  # [chunks + 1] int64, first row of each chunk
  row_source: np.ndarray  # [rows] int32, the source's place in its shard
  row_bucket: np.ndarray  # [rows] int8
  row_slots: np.ndarray  # [rows + 1] int64, first slot of each row
  slot_candidate: np.ndarray  # [slots] int32, the candidate's place in its source
  slot_reward: np.ndarray | None  # [slots] float32
  counts: Counts

  @property
  def num_rows(self) -> int:
    """Number of rows in an epoch."""
    return len(self.row_source)

  def source_slots(self) -> np.ndarray:  # [sources with a row + 1] int64
    """First slot of each source that has a row, then the number of slots."""
    chunks = np.repeat(np.arange(len(self.chunk_shard)), np.diff(self.chunk_rows))
    names = np.stack([self.chunk_shard[chunks], self.row_source])  # [2, rows]
    begins = (np.diff(names, axis=1) != 0).any(axis=0)  # a source's rows lie together
    firsts = np.concatenate([[0], np.flatnonzero(begins) + 1])
    return np.append(self.row_slots[firsts], self.row_slots[-1])

  def chunk_of(self, row: int) -> int:
    """The chunk that holds a row."""
    return int(np.searchsorted(self.chunk_rows, row, side='right')) - 1


def build(
  group_dir: paths.PathLike,
  *,
  samples: int,
  buckets: Sequence[tuple[int, int]],
  reward_dir: paths.PathLike | None = None,
  keep_fn: KeepFn | None = None,
  source_fn: SourceFn | None = None,
  overlong: Overlong = 'error',
) -> RowIndex:
  """Lays out the rows of a group set from its length and reward columns.

  Args:
    group_dir: a group set.
    samples: slots in a row.
    buckets: (source_length, target_length), each at least the one before; a row
      goes to the first that holds all of it.
    reward_dir: a reward set for it, or None.
    keep_fn: a filter, see `rest_jax.filters`; called once per shard on
      (rewards [sources, samples], mask); None keeps every candidate.
    source_fn: which sources to use, such as `source_split.Between`; called once per
      shard on the source ids, gives [sources] bool; None uses all.
    overlong: what happens to texts longer than the last bucket: 'error',
      'truncate' or 'drop'.

  Raises:
    ValueError: bad arguments, sets that do not belong together, an overlong text
      under 'error', or nothing left to train on.
  """
  limits = checked_buckets(buckets)
  if samples < 1:
    raise ValueError(f'samples {samples} must be at least 1')
  if overlong not in OVERLONG:
    raise ValueError(f'overlong {overlong!r} is unknown; known: {OVERLONG}')
  if keep_fn is not None and reward_dir is None:
    raise ValueError('a keep_fn filters on rewards: give reward_dir too')
  if reward_dir is None:
    group_paths = group_store.list_shards(group_dir)
    shards: list[tuple[Any, Any]] = [(path, None) for path in group_paths]
  else:
    shards = list(reward_store.paired_shards(group_dir, reward_dir))
  counts = Counts()
  parts = [
    _Shard(
      number,
      group_path,
      reward_path,
      samples,
      limits,
      keep_fn,
      source_fn,
      overlong,
      counts,
    )
    for number, (group_path, reward_path) in enumerate(shards)
  ]
  row_bucket = np.concatenate([part.row_bucket for part in parts])
  counts.rows = len(row_bucket)
  counts.rows_per_bucket = tuple(
    np.bincount(row_bucket, minlength=len(limits)).tolist()
  )
  if not counts.rows:
    raise ValueError(
      f'{group_dir}: no candidate is left ({counts}): loosen the filter or the '
      'lengths, or use more sources'
    )
  chunk_counts = np.concatenate([part.rows_per_chunk for part in parts])
  row_sizes = np.concatenate([part.row_sizes for part in parts])
  return RowIndex(
    shard_paths=tuple(path for path, _ in shards),
    chunk_shard=np.concatenate([part.chunk_shard for part in parts]),
    chunk_start=np.concatenate([part.spans[:, 0] for part in parts]),
    chunk_stop=np.concatenate([part.spans[:, 1] for part in parts]),
    chunk_rows=_starts(chunk_counts),
    row_source=np.concatenate([part.row_source for part in parts]),
    row_bucket=row_bucket,
    row_slots=_starts(row_sizes),
    slot_candidate=np.concatenate([part.slot_candidate for part in parts]),
    slot_reward=None
    if reward_dir is None
    else np.concatenate([part.slot_reward for part in parts]),
    counts=counts,
  )


def _starts(sizes: np.ndarray) -> np.ndarray:
  return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def checked_buckets(buckets: Sequence[tuple[int, int]]) -> np.ndarray:
  """Buckets as [buckets, 2] int64; ValueError unless positive and never falling."""
  limits = np.array(buckets, np.int64).reshape(-1, 2)
  if not len(limits) or limits.min() < 1 or (np.diff(limits, axis=0) < 0).any():
    raise ValueError(
      f'buckets {list(buckets)} must be pairs (source_length, target_length) of '
      'positive lengths, none smaller than the one before'
    )
  return limits


class _Shard:
  """The rows of one shard: the arrays of RowIndex before they are joined."""

  def __init__(
    self,
    number: int,
    group_path: paths.PathLike,
    reward_path: paths.PathLike | None,
    samples: int,
    limits: np.ndarray,
    keep_fn: KeepFn | None,
    source_fn: SourceFn | None,
    overlong: Overlong,
    counts: Counts,
  ):
    self.spans = np.array(columns.row_group_ranges(group_path), np.int64).reshape(-1, 2)
    self.chunk_shard = np.full(len(self.spans), number, np.int32)
    names = ['source_id', 'source_length', 'candidate_lengths']
    table = columns.read_table(group_path, names, schema=group_store.SCHEMA)
    identifiers = table.column('source_id').to_pylist()
    source_lengths = columns.single(table, 'source_length').to_numpy()
    lists = columns.single(table, 'candidate_lengths')
    lengths, bounds = columns.flat_numpy(lists), columns.list_bounds(lists)
    per_source = np.diff(bounds)
    source_of = np.repeat(np.arange(len(per_source)), per_source)  # [candidates]
    used = np.ones(len(per_source), bool)
    if source_fn is not None:
      used = np.asarray(source_fn(identifiers), bool)
    keep = used[source_of]
    rewards = None
    if reward_path is not None:
      found = reward_store.read_rewards(reward_path)
      reward_store.check_join(group_path, reward_path, identifiers, per_source, found)
      rewards = columns.concatenate(found.for_training(), np.float32)
      if keep_fn is not None and len(lengths):
        keep &= _filtered(keep_fn, found.for_training())
    counts.sources += len(per_source)
    counts.candidates += len(lengths)
    counts.other_sources += int((~used).sum())
    counts.kept_candidates += int(keep.sum())
    kept_per_source = np.bincount(source_of[keep], minlength=len(per_source))
    emptied = used & (per_source > 0) & (kept_per_source == 0)
    counts.emptied_sources += int(emptied.sum())
    # Lengths: sources without kept candidates do not matter.
    matters = kept_per_source > 0
    long_source = (source_lengths > limits[-1, 0]) & matters
    long_candidate = (lengths > limits[-1, 1]) & keep
    if overlong == 'error' and (long_source.any() or long_candidate.any()):
      at = long_source.argmax() if long_source.any() else source_of[long_candidate][0]
      raise ValueError(
        f'source {identifiers[at]!r} of {group_path} has {source_lengths[at]} tokens, '
        f'its longest candidate {lengths[bounds[at] : bounds[at + 1]].max()}; the last '
        f'bucket is {tuple(limits[-1].tolist())}: add a longer one, or set overlong='
        "'truncate' or 'drop'"
      )
    if overlong == 'drop':
      dropped = keep & (long_candidate | long_source[source_of])
      counts.dropped_sources += int(long_source.sum())
      counts.dropped_candidates += int(dropped.sum())
      keep &= ~dropped
    else:
      counts.truncated_sources += int(long_source.sum())
      counts.truncated_candidates += int(long_candidate.sum())
    self._pack(keep, source_of, bounds, lengths, source_lengths, samples, limits)
    self.slot_reward = None if rewards is None else rewards[np.flatnonzero(keep)]

  def _pack(
    self,
    keep: np.ndarray,
    source_of: np.ndarray,
    bounds: np.ndarray,
    lengths: np.ndarray,
    source_lengths: np.ndarray,
    samples: int,
    limits: np.ndarray,
  ) -> None:
    """Packs the kept candidates of each source, in order, `samples` to a row."""
    kept = np.flatnonzero(keep)
    owner = source_of[kept]  # [slots], rising
    num_kept = np.bincount(owner, minlength=len(source_lengths))
    first = np.cumsum(num_kept) - num_kept
    place = np.arange(len(kept)) - first[owner]  # among the source's kept ones
    opens = place % samples == 0  # [slots] True where a row begins
    starts = np.flatnonzero(opens)
    self.row_source = owner[starts].astype(np.int32)
    self.row_sizes = np.diff(np.append(starts, len(kept)))
    self.slot_candidate = (kept - bounds[owner]).astype(np.int32)
    longest = np.maximum.reduceat(lengths[kept], starts) if len(kept) else starts
    fits = np.stack(
      [
        np.searchsorted(limits[:, 0], source_lengths[self.row_source]),
        np.searchsorted(limits[:, 1], longest),
      ]
    ).max(axis=0)
    self.row_bucket = np.minimum(fits, len(limits) - 1).astype(np.int8)
    chunk = np.searchsorted(self.spans[:, 1], self.row_source, side='right')
    self.rows_per_chunk = np.bincount(chunk, minlength=len(self.spans))


def _filtered(keep_fn: KeepFn, rewards: Sequence[np.ndarray]) -> np.ndarray:
  """[candidates] bool, the filter's verdict in the order of the candidates."""
  values, mask = reward_store.padded(rewards)
  keep = np.asarray(keep_fn(values, mask))
  if keep.shape != mask.shape or keep.dtype != np.bool_:
    raise ValueError(
      f'the filter {keep_fn!r} gave {keep.dtype} {keep.shape} for rewards '
      f'{mask.shape}: it must return a bool for each candidate'
    )
  return keep[mask]

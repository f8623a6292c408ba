"""Reads rows of a group set: by Parquet row group, only the kept candidates held."""

import collections
import dataclasses
import itertools
import threading

import numpy as np

from rest_jax.data import columns, group_store, row_index


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
  """One source with the kept candidates of one row, uncut."""

  source_tokens: np.ndarray  # [length] int32
  candidates: list[np.ndarray]  # each [length_i] int32
  rewards: np.ndarray | None  # [candidates] float32
  log_probs: list[np.ndarray] | None  # each [length_i] float32, nats


@dataclasses.dataclass(frozen=True, eq=False)
class _Chunk:
  """The kept candidates of one Parquet row group: flat arrays, no Python objects."""

  first_source: int  # place in the shard of the chunk's first source
  first_slot: int  # number in the index of the chunk's first kept candidate
  source_tokens: np.ndarray
  source_bounds: np.ndarray  # [sources + 1]
  tokens: np.ndarray
  bounds: np.ndarray  # [slots + 1]
  log_probs: np.ndarray | None


class RowReader:
  """Reads rows by number; thread-safe.

  A row group is read once and kept as flat arrays (4 bytes a token, 8 with
  log-probabilities).

  Args:
    index: the rows.
    log_probs: whether to read log-probabilities.
    max_row_groups: hold so many row groups, the latest used; None for all.
  """

  def __init__(
    self,
    index: row_index.RowIndex,
    *,
    log_probs: bool = False,
    max_row_groups: int | None = None,
  ):
    self._index = index
    self._log_probs = log_probs
    self._max_row_groups = max_row_groups
    self._chunks: collections.OrderedDict[int, _Chunk] = collections.OrderedDict()
    self._lock = threading.Lock()

  @property
  def num_held(self) -> int:
    """Number of row groups in memory."""
    return len(self._chunks)

  def row(self, row: int) -> Row:
    """Reads a row.

    Raises:
      ValueError: a damaged file, or log-probabilities that are not there.
    """
    index = self._index
    chunk = self._chunk(index.chunk_of(row))
    source = int(index.row_source[row]) - chunk.first_source
    begin, end = chunk.source_bounds[source : source + 2]
    first, last = index.row_slots[row : row + 2].tolist()
    bounds = chunk.bounds[first - chunk.first_slot : last - chunk.first_slot + 1]
    ends = bounds.tolist()
    spans = list(itertools.pairwise(ends))
    rewards = None if index.slot_reward is None else index.slot_reward[first:last]
    log_probs = None
    if chunk.log_probs is not None:
      log_probs = [chunk.log_probs[a:b] for a, b in spans]
    return Row(
      source_tokens=chunk.source_tokens[begin:end],
      candidates=[chunk.tokens[a:b] for a, b in spans],
      rewards=rewards,
      log_probs=log_probs,
    )

  def _chunk(self, number: int) -> _Chunk:
    with self._lock:
      if number not in self._chunks:
        self._chunks[number] = self._read(number)
        if (
          self._max_row_groups is not None and len(self._chunks) > self._max_row_groups
        ):
          self._chunks.popitem(last=False)
      self._chunks.move_to_end(number)
      return self._chunks[number]

  def _read(self, number: int) -> _Chunk:
    index = self._index
    start, stop = int(index.chunk_start[number]), int(index.chunk_stop[number])
    path = index.shard_paths[index.chunk_shard[number]]
    names = ['source_id', 'source_tokens', 'candidate_tokens']
    if self._log_probs:
      names.append('candidate_token_log_probs')
    rows = np.arange(start, stop)
    table = columns.read_table(path, names, schema=group_store.SCHEMA, rows=rows)
    sources = columns.single(table, 'source_tokens')
    nested = columns.single(table, 'candidate_tokens')
    # The kept candidates' places in the chunk's flat list of candidates.
    first_row, last_row = index.chunk_rows[number : number + 2]
    first_slot, last_slot = index.row_slots[[first_row, last_row]].tolist()
    slots_per_row = np.diff(index.row_slots[first_row : last_row + 1])
    owner = np.repeat(index.row_source[first_row:last_row] - start, slots_per_row)
    firsts = columns.list_bounds(nested)
    kept = firsts[owner] + index.slot_candidate[first_slot:last_slot]
    candidates = nested.flatten().take(kept)
    log_probs = None
    if self._log_probs:
      column = columns.single(table, 'candidate_token_log_probs')
      missing = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
      if np.isin(missing, owner).any():
        where = missing[np.isin(missing, owner)][0]
        raise ValueError(
          f'source {table.column("source_id")[int(where)].as_py()!r} of {path} has no '
          'log-probabilities: they are known for sampled candidates only'
        )
      bounds = columns.list_bounds(column)
      places = bounds[owner] + index.slot_candidate[first_slot:last_slot]
      log_probs = columns.flat_numpy(column.flatten().take(places))
    return _Chunk(
      first_source=start,
      first_slot=first_slot,
      source_tokens=columns.flat_numpy(sources),
      source_bounds=columns.list_bounds(sources),
      tokens=columns.flat_numpy(candidates),
      bounds=columns.list_bounds(candidates),
      log_probs=log_probs,
    )

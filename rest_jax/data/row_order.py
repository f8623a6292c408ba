"""The order of rows in training: shuffled by epoch, dealt to length buckets.

In epoch e the rows stand in an order drawn from (seed, e) alone. They are
dealt, in that order, to the length bucket that each belongs to; whenever a
bucket holds `batch` rows it gives a batch. What is left in a bucket at the end of
an epoch stays for the next one. So every row is used exactly once per epoch, no
training batch is padded, and which rows step s uses is a pure function of
(index, seed, s): the batches finished by the end of epoch e are

    sum over buckets b of floor((e + 1) * rows_b / batch)

With `window_row_groups` the order is local: Parquet row groups are shuffled,
then rows are shuffled inside windows of so many row groups, so that a reader
needs few of them at a time.
"""

import collections
import itertools
import threading
from collections.abc import Iterator

import numpy as np

from rest_jax.data import row_index


class Order:
  """The rows of each training step; see the module's description.

  Args:
    index: the rows.
    batch: rows in a batch.
    seed: of the shuffle.
    shuffle: False keeps the stored order in every epoch.
    window_row_groups: None shuffles over the whole set; otherwise inside windows
      of so many Parquet row groups.
  """

  _EPOCHS_HELD = 4

  def __init__(
    self,
    index: row_index.RowIndex,
    *,
    batch: int,
    seed: int,
    shuffle: bool = True,
    window_row_groups: int | None = None,
  ):
    if batch < 1:
      raise ValueError(f'batch {batch} must be at least 1')
    if window_row_groups is not None and window_row_groups < 1:
      raise ValueError(f'window_row_groups {window_row_groups} must be at least 1')
    if seed < 0:
      raise ValueError(f'seed {seed} must not be negative')
    self._index = index
    self._batch = batch
    self._seed = seed
    self._shuffle = shuffle
    self._window = window_row_groups
    self._bucket_rows = np.array(index.counts.rows_per_bucket, np.int64)
    self._epochs: collections.OrderedDict[int, _Epoch] = collections.OrderedDict()
    self._lock = threading.Lock()

  def rows_in_epoch(self, epoch: int) -> np.ndarray:
    """[rows] int64, the order of the rows in an epoch."""
    num = self._index.num_rows
    if not self._shuffle:
      return np.arange(num)
    # Raw bits of Philox are the same in every NumPy; `permutation` need not be.
    bits = np.random.Philox(np.random.SeedSequence([self._seed, epoch]))
    if self._window is None:
      return np.argsort(bits.random_raw(num), kind='stable')
    chunks = len(self._index.chunk_shard)
    rank = np.argsort(np.argsort(bits.random_raw(chunks), kind='stable'))
    window = np.repeat(rank // self._window, np.diff(self._index.chunk_rows))
    return np.lexsort((bits.random_raw(num), window))

  def steps_before(self, epoch: int) -> int:
    """Batches finished before an epoch begins."""
    return int((epoch * self._bucket_rows // self._batch).sum())

  def epoch_of(self, step: int) -> int:
    """The epoch in which the batch of a step is finished."""
    # A lower bound: rows wait in their buckets, less than a batch in each.
    epoch = max(0, step * self._batch // self._index.num_rows)
    while self.steps_before(epoch + 1) <= step:
      epoch += 1
    return epoch

  def rows(self, step: int) -> tuple[int, np.ndarray]:
    """(bucket, rows [batch]) of a training step.

    Raises:
      ValueError: a negative step.
    """
    if step < 0:
      raise ValueError(f'step {step} must not be negative')
    epoch = self.epoch_of(step)
    number = step - self.steps_before(epoch)
    bucket, last = self._epoch(epoch).schedule(number)
    # `last` is the place, in the bucket's rows of this epoch, of the batch's last
    # row; the places before it may belong to earlier epochs.
    size = int(self._bucket_rows[bucket])
    places = epoch * size + last - np.arange(self._batch)[::-1]
    epochs, inner = np.divmod(places, size)
    rows = np.empty(self._batch, np.int64)
    for used in np.unique(epochs).tolist():
      mine = epochs == used
      rows[mine] = self._epoch(used).bucket_rows[bucket][inner[mine]]
    return bucket, rows

  def stream(self, step: int = 0, places: np.ndarray | None = None) -> Iterator[int]:
    """Yields the rows of the batches from `step` on, for ever.

    Args:
      step: whose batch comes first.
      places: in each batch, of the rows to yield; None for all.
    """
    chosen = slice(None) if places is None else places
    for later in itertools.count(step):
      _, rows = self.rows(later)
      yield from rows[chosen].tolist()

  def _epoch(self, epoch: int) -> '_Epoch':
    with self._lock:
      if epoch not in self._epochs:
        order = self.rows_in_epoch(epoch)
        carried = epoch * self._bucket_rows % self._batch
        buckets = self._index.row_bucket[order]
        self._epochs[epoch] = _Epoch(order, buckets, carried, self._batch)
        while len(self._epochs) > self._EPOCHS_HELD:
          self._epochs.popitem(last=False)
      self._epochs.move_to_end(epoch)
      return self._epochs[epoch]


class _Epoch:
  """One epoch's rows per bucket, and the order in which its batches are finished."""

  def __init__(
    self, order: np.ndarray, buckets: np.ndarray, carried: np.ndarray, batch: int
  ):
    self.bucket_rows: list[np.ndarray] = []
    finished_at, finished_by, last = [], [], []
    for bucket, waiting in enumerate(carried.tolist()):
      places = np.flatnonzero(buckets == bucket)
      self.bucket_rows.append(order[places].astype(np.int32))
      ends = np.arange(batch - 1 - waiting, len(places), batch)
      finished_at.append(places[ends])
      finished_by.append(np.full(len(ends), bucket, np.int8))
      last.append(ends)
    ends_at = np.concatenate(finished_at)
    turn = np.argsort(ends_at)
    self._bucket = np.concatenate(finished_by)[turn]
    self._last = np.concatenate(last)[turn]

  def schedule(self, number: int) -> tuple[int, int]:
    """(bucket, place of its last row) of the epoch's batch `number`."""
    return int(self._bucket[number]), int(self._last[number])

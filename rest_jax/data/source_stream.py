"""Sources of a group set in a shuffled order, a few shards of them in memory."""

from collections.abc import Sequence

import numpy as np
from etils import epath

from rest_jax.data import columns, group_store


class SourceStream:
  """The sources that each phase of an online learner takes.

  `take(phase)` depends on the phase and the seed alone. Each epoch visits the shards
  in an order of its own; rows are shuffled inside windows of `window_shards` of them,
  which is what stays in memory. What is left of an epoch after its last whole phase
  waits for another: no phase holds a source twice.

  Args:
    shards: of the group set.
    count: sources in a phase.
    seed: of the order.
    window_shards: shards that are shuffled together.

  Raises:
    ValueError: fewer than one source a phase, or more than there are.
  """

  def __init__(
    self,
    shards: Sequence[epath.Path],
    *,
    count: int,
    seed: int,
    window_shards: int = 8,
  ):
    self._shards = shards
    self._rows = np.array([columns.num_rows(shard) for shard in shards])
    self._count, self._seed, self._window_shards = count, seed, window_shards
    self.num_sources = int(self._rows.sum())
    if not 1 <= count <= self.num_sources:
      raise ValueError(
        f'a phase of {count} sources must have at least 1 and at most all '
        f'{self.num_sources} of them'
      )
    self._window: tuple[int, int] | None = None  # the epoch and window in memory
    self._groups: list[group_store.Group] = []

  def take(self, phase: int) -> list[group_store.Group]:
    """The sources of a phase, with the candidates that the set has for them."""
    epoch, index = divmod(phase, self.num_sources // self._count)
    shards = np.random.default_rng((self._seed, epoch)).permutation(len(self._shards))
    first, last = index * self._count, (index + 1) * self._count
    taken: list[group_store.Group] = []
    begin = 0
    for window, start in enumerate(range(0, len(shards), self._window_shards)):
      members = shards[start : start + self._window_shards]
      end = begin + int(self._rows[members].sum())
      if begin < last and first < end:
        groups = self._read(epoch, window, members)
        taken += groups[max(first - begin, 0) : last - begin]
      begin = end
    return taken

  def _read(
    self, epoch: int, window: int, members: np.ndarray
  ) -> list[group_store.Group]:
    """A window's groups in their order; those of the last one asked for are kept."""
    if self._window != (epoch, window):
      self._window, self._groups = None, []
      groups = [g for i in members for g in group_store.read_groups(self._shards[i])]
      order = np.random.default_rng((self._seed, epoch, window)).permutation(
        len(groups)
      )
      self._groups = [groups[i] for i in order]
      self._window = (epoch, window)
    return self._groups

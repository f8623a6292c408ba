"""Which sources are held out: each one's place in [0, 1), by its identity alone.

A source's share depends on (seed, source id), so that what is added to a set later
moves no source from one side to the other.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np


def share(source_id: str, seed: int) -> float:
  """A source's place in [0, 1), uniform over sources."""
  digest = hashlib.blake2b(f'{seed}/{source_id}'.encode(), digest_size=8)
  return int.from_bytes(digest.digest(), 'little') / 2**64


@dataclasses.dataclass(frozen=True)
class Between:
  """The sources whose share lies in [low, high): a `row_index.SourceFn`."""

  low: float
  high: float
  seed: int

  def __call__(self, source_ids: Sequence[str]) -> np.ndarray:  # [sources] bool
    """Tells for each source whether it is chosen."""
    shares = np.array([share(name, self.seed) for name in source_ids], np.float64)
    return (self.low <= shares) & (shares < self.high)

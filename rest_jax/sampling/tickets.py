"""What is left to decode: sources cut into tickets, in the order of their length.

Plain Python on the host. A ticket is the share of one source that a lane takes: the
candidates of each of its slots, and what is known of them already. A candidate that
fills a cache before it ends comes back as part of a ticket for a longer cache, which
walks through its known tokens again.
"""

import dataclasses
import heapq
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from rest_jax.data import buckets

# A source of 20 tokens is first decoded in a cache that holds 25.
EXPECTED_RATIO = 1.25
# The last sources are cut finer, so that the lanes end together: the last ticket of
# each lane holds an eighth of a share, the one before a quarter, the one before that a
# half. They share fewer prefixes for it. This takes 6 % fewer rows than cutting as many
# sources as fill the lanes once into four did (507 sources of Multi30k, 25 candidates
# each, 128 lanes); a sixteenth for the very last takes none fewer.
FINER_AT_THE_END = (8, 4, 2)


@dataclasses.dataclass(frozen=True)
class Drawn:
  """A candidate, or its first tokens."""

  tokens: np.ndarray  # [num_tokens] int32
  log_probs: np.ndarray  # [num_tokens] float32, nats


@dataclasses.dataclass(frozen=True)
class Ticket:
  """Candidates of one source for one lane."""

  row: int  # the group's place among those that are sampled
  indices: Sequence[int]  # of the candidates, in order
  cut: int  # so many for each slot
  known: dict[int, Drawn]  # by candidate index
  length: int  # of the cache that it wants

  def places(self) -> Iterator[tuple[int, int, int]]:
    """Yields slot, place in the slot's share, and index of each candidate."""
    for count, index in enumerate(self.indices):
      yield count // self.cut, count % self.cut, index


class Queue:
  """Tickets by rising cache length, then by source length, then as they came.

  Args:
    source_lengths: tokens of each source, EOS included.
    num_samples: candidates of each source.
    slots, share: of a lane.
    lanes: how many take tickets at a time.
    lengths: the rising cache lengths; the last is the limit of a candidate.
  """

  def __init__(
    self,
    source_lengths: Sequence[int],
    num_samples: int,
    *,
    slots: int,
    share: int,
    lanes: int,
    lengths: Sequence[int],
  ):
    self._source_lengths = source_lengths
    self._slots = slots
    self._share = share
    self._lengths = lengths
    self._count = itertools.count()
    self._heap: list[tuple[int, int, int, Ticket]] = []
    candidates = range(num_samples)
    order = np.argsort(source_lengths, kind='stable').tolist()
    cuts = self._cuts(len(order), num_samples, lanes)
    for row, cut in zip(order, cuts, strict=True):
      expected = min(int(source_lengths[row] * EXPECTED_RATIO), lengths[-1])
      self._push(row, candidates, {}, buckets.bucket(expected, lengths), cut)

  def __len__(self) -> int:
    return len(self._heap)

  def peek(self) -> Ticket:
    """The next ticket, which stays."""
    return self._heap[0][-1]

  def pop(self) -> Ticket:
    """Takes the next ticket."""
    return heapq.heappop(self._heap)[-1]

  def put_back(self, row: int, known: dict[int, Drawn]) -> None:
    """Adds candidates of a source that have outgrown their cache."""
    longest = max(len(start.tokens) for start in known.values())
    # Twice as long, so that a candidate comes back a few times at most.
    wanted = min(2 * longest, self._lengths[-1])
    length = buckets.bucket(wanted, self._lengths)
    self._push(row, sorted(known), known, length, self._share)

  def _cuts(self, num_sources: int, num_samples: int, lanes: int) -> list[int]:
    """The candidates that a slot gets of each source, in the order of the sources."""
    cuts: list[int] = []  # from the last source backwards
    for parts in FINER_AT_THE_END:
      cut = -(-self._share // parts)
      tickets = -(-num_samples // (cut * self._slots))  # of one source
      cuts += [cut] * -(-lanes // tickets)
    cuts += [self._share] * max(0, num_sources - len(cuts))
    return cuts[:num_sources][::-1]

  def _push(
    self,
    row: int,
    candidates: Sequence[int],
    known: dict[int, Drawn],
    length: int,
    cut: int,
  ) -> None:
    size = self._slots * cut
    for start in range(0, len(candidates), size):
      some = candidates[start : start + size]
      ticket = Ticket(row, some, cut, known, length)
      order = (length, self._source_lengths[row], next(self._count), ticket)
      heapq.heappush(self._heap, order)

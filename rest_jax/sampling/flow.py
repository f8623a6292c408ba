"""Which source is in which lane: the host's side of the decoder loop.

Plain NumPy. Each turn of the loop takes what has ended out of some lanes and puts
waiting sources into them, with one call of `decoder.exchange`.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from rest_jax.data import buckets
from rest_jax.sampling import decoder, draws, tickets

# A turn begins when one lane in so many is free. More often costs turns (each
# waits for the devices once), less often costs idle lanes.
LANES_PER_TURN = 16
# At the end, when nothing waits, lanes are given up by this factor as they empty:
# the last long candidates shall not be decoded at the full width.
NARROWING = 4
# Not below so many: each width is compiled for, and a step of fewer rows than this
# hardly takes less time, since it reads the same parameters.
FEWEST_LANES = 16


@dataclasses.dataclass(frozen=True)
class Turn:
  """One exchange: what goes in where, and whose lanes those were."""

  incoming: decoder.Incoming  # NumPy arrays
  leaving: list[tickets.Ticket | None]  # [incoming], the owners until now
  keep: np.ndarray | None  # [kept] int32, lanes that stay, counted within a shard
  enough: int  # free lanes at which the next turn begins
  source_length: int  # that the lanes need from now on
  length: int


class Flow:
  """What is queued, in flight and complete of one set of sources.

  Args:
    sources: tokens of each source [source_length] int32, EOS included.
    source_ids: their identities.
    num_samples: candidates of each.
    batch: lanes.
    slots, share: of a lane.
    shards: parts of the lanes over the mesh; each takes in as many per turn.
    source_lengths, lengths: the rising lengths that are compiled for.
  """

  def __init__(
    self,
    sources: Sequence[np.ndarray],
    source_ids: Sequence[str],
    num_samples: int,
    *,
    batch: int,
    slots: int,
    share: int,
    shards: int,
    source_lengths: Sequence[int],
    lengths: Sequence[int],
  ):
    self._sources = sources
    self._words = draws.source_words(list(source_ids))
    self._source_lengths = source_lengths
    self._limit = lengths[-1]
    self._places = (slots, share)
    self._queue = tickets.Queue(
      [len(tokens) for tokens in sources],
      num_samples,
      slots=slots,
      share=share,
      lanes=batch,
      lengths=lengths,
    )
    self._num_samples = num_samples
    self._drawn: list[dict[int, tickets.Drawn]] = [{} for _ in sources]
    self._owners = np.full(batch, None, object)  # [batch] Ticket or None
    self._shards = shards
    first = self._queue.peek()
    self._source_length = self._bucket(first)
    self._length = first.length

  def goes_on(self) -> bool:
    """Whether anything is queued or in flight."""
    return bool(self._queue) or any(owner is not None for owner in self._owners)

  def turn(self, free: np.ndarray) -> Turn:
    """Plans the next exchange.

    Args:
      free: [batch] bool, the lanes whose candidates have all ended.
    """
    places, lanes = self._choose(free)
    leaving = [None if lane is None else self._owners[lane] for lane in lanes]
    begins: list[tickets.Ticket | None] = []
    for lane in lanes:
      ticket = self._queue.pop() if lane is not None and self._queue else None
      begins.append(ticket)
      if lane is not None:
        self._owners[lane] = ticket
    for ticket in begins:
      if ticket is not None:
        self._source_length = max(self._source_length, self._bucket(ticket))
        self._length = max(self._length, ticket.length)
    keep = self._narrow() if not self._queue else None
    idle = sum(owner is None for owner in self._owners)
    more = self._shards * self._per_shard()
    return Turn(
      incoming=self._incoming(places, begins),
      leaving=leaving,
      keep=keep,
      # While tickets wait, lanes that are idle are reason enough for a turn.
      enough=more if self._queue else min(idle + more, len(self._owners)),
      source_length=self._source_length,
      length=self._length,
    )

  def _per_shard(self) -> int:
    """Lanes of a shard that a turn empties and fills."""
    return max(1, len(self._owners) // self._shards // LANES_PER_TURN)

  def _narrow(self) -> np.ndarray | None:
    """Gives up lanes that nobody owns, where enough of them can go."""
    by_shard = self._owners.reshape(self._shards, -1)
    kept = by_shard.shape[1] // NARROWING
    owned = by_shard != None  # noqa: E711, elementwise
    if kept * self._shards < FEWEST_LANES or owned.sum(axis=1).max() > kept:
      return None
    # Those that are owned come first, in their order.
    keep = np.argsort(~owned, axis=1, kind='stable')[:, :kept].astype(np.int32)
    self._owners = np.take_along_axis(by_shard, keep, axis=1).reshape(-1)
    return keep.reshape(-1)

  def finish(
    self, leaving: Sequence[tickets.Ticket | None], ended: decoder.Ended
  ) -> Iterator[tuple[int, list[tickets.Drawn]]]:
    """Takes in what the lanes of a turn held; yields the sources now complete.

    Args:
      leaving: the turn's.
      ended: what `decoder.exchange` returned, on the host.

    Yields:
      A source's row, and its candidates in order.
    """
    for place, ticket in enumerate(leaving):
      if ticket is not None:
        yield from self._take(ticket, place, ended)

  def _take(
    self, ticket: tickets.Ticket, place: int, ended: decoder.Ended
  ) -> Iterator[tuple[int, list[tickets.Drawn]]]:
    done = self._drawn[ticket.row]
    outgrown: dict[int, tickets.Drawn] = {}
    for slot, one in zip(*np.nonzero(ticket.indices >= 0), strict=True):
      size = int(ended.num_tokens[place, slot, one])
      candidate = tickets.Drawn(
        np.array(ended.tokens[place, slot, one, :size]),
        np.array(ended.log_probs[place, slot, one, :size]),
      )
      complete = candidate.tokens[-1] == decoder.EOS_ID or size == self._limit
      index = int(ticket.indices[slot, one])
      (done if complete else outgrown)[index] = candidate
    if outgrown:
      self._queue.put_back(ticket.row, outgrown)
    if len(done) == self._num_samples:
      self._drawn[ticket.row] = {}
      yield ticket.row, [done[index] for index in range(self._num_samples)]

  def _bucket(self, ticket: tickets.Ticket) -> int:
    return buckets.bucket(len(self._sources[ticket.row]), self._source_lengths)

  def _choose(self, free: np.ndarray) -> tuple[np.ndarray, list[int | None]]:
    """Chooses free lanes of each shard: those to empty first.

    Returns:
      Their places inside the shards [incoming] (too large where there is none), and
      the lanes themselves, None where there is none.
    """
    size = len(free) // self._shards
    per_shard = self._per_shard()
    places = np.full((self._shards, per_shard), size, np.int32)
    lanes: list[int | None] = []
    for shard in range(self._shards):
      found = np.flatnonzero(free[shard * size : (shard + 1) * size])
      owned = [self._owners[shard * size + place] is not None for place in found]
      found = found[np.argsort(~np.array(owned, bool), kind='stable')]
      some = found[:per_shard]
      places[shard, : len(some)] = some
      lanes += [shard * size + int(place) for place in some]
      lanes += [None] * (per_shard - len(some))
    return places.reshape(-1), lanes

  def _incoming(
    self, places: np.ndarray, begins: Sequence[tickets.Ticket | None]
  ) -> decoder.Incoming:
    size = (len(begins), *self._places)
    sources = np.zeros((len(begins), self._source_length), np.int32)
    words = np.zeros((len(begins), 2), np.uint32)
    indices = np.full(size, -1, np.int32)
    tokens = np.zeros((*size, self._length), np.int32)
    log_probs = np.zeros((*size, self._length), np.float32)
    num_known = np.zeros(size, np.int32)
    for i, ticket in enumerate(begins):
      if ticket is None:
        continue
      source = self._sources[ticket.row]
      sources[i, : len(source)] = source
      words[i] = self._words[ticket.row]
      indices[i] = ticket.indices
      for slot, one in zip(*np.nonzero(ticket.indices >= 0), strict=True):
        start = ticket.known.get(int(ticket.indices[slot, one]))
        if start is not None:
          known = len(start.tokens)
          tokens[i, slot, one, :known] = start.tokens
          log_probs[i, slot, one, :known] = start.log_probs
          num_known[i, slot, one] = known
    return decoder.Incoming(
      places, sources, words, indices, tokens, log_probs, num_known
    )

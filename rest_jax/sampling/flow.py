"""Which source is in which lane: the host's side of the decoder loop.

Plain NumPy. Each turn of the loop takes what has ended out of some lanes and puts
waiting sources into them, with one call of `decoder.exchange`.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from rest_jax.data import buckets
from rest_jax.sampling import decoder, draws, tickets

# A turn begins when one lane in so many is free: with less of them turns cost more
# (each waits for the devices once), with more of them lanes idle for longer.
LANES_PER_TURN = 16
# So many where a lane's work is short, which makes many turns: with one candidate a
# source, 507 sources of Multi30k on 128 lanes and one core take 0.89 s for 0.94; with
# five 2.55 s for 2.63. With 25, 256 lanes take 3 % more rows and time for it.
LANES_PER_SHORT_TURN = 8
SHORT_SHARE = 8  # candidates of a slot
# Such work is padded finer, too, and its lanes are given up sooner at the end, if each
# lane takes so many tickets: small calls, as an online learner's, would each meet other
# lengths and compile for them.
TICKETS_OF_FINE_WORK = 3
# At the end, when nothing waits, lanes are given up by this factor as they empty:
# the last long candidates shall not be decoded at the full width. Where work is fine
# the end is much of it, and half of the lanes go first: 507 sources of Multi30k, one
# candidate each, on 128 lanes take 3 % fewer rows, for as many widths. By halves all
# the way they take 7 % fewer, for twice as many widths and 1 % less time.
NARROWING = 4
FIRST_FINE_NARROWING = 2
# Not below so many: each width is compiled for, and a step of fewer rows than this
# hardly takes less time, since it reads the same parameters.
FEWEST_LANES = 8


def lanes_of_turn(lanes: int, share: int) -> int:
  """How many of a shard's lanes a turn empties and fills.

  Args:
    lanes: of the shard.
    share: the most candidates of a slot.
  """
  parts = LANES_PER_SHORT_TURN if _is_short(share) else LANES_PER_TURN
  return max(1, lanes // parts)


def _is_short(share: int) -> bool:
  return share <= SHORT_SHARE


def encoder_lengths(limit: int) -> tuple[int, ...]:
  """The padded lengths of sources where work is fine: 8, 12, ... 32, 40, ... limit."""
  lengths = []
  length = 8
  while length < limit:
    lengths.append(length)
    length += max(4, (1 << length.bit_length()) // 8)  # four to a doubling
  return (*lengths, limit)


@dataclasses.dataclass(frozen=True)
class Turn:
  """One exchange: what goes in where, and whose lanes those were.

  Once nothing waits, lanes are emptied all together where that lets some be given up.
  """

  incoming: decoder.Incoming | None  # NumPy arrays; None where nothing waits
  # Owners until now of the lanes that `incoming` takes; without it, of all lanes
  # [batch]. None where there is nothing to take out.
  leaving: list[tickets.Ticket | None]
  keep: np.ndarray | None  # [kept] int32, lanes that stay, counted within a shard
  free: np.ndarray  # [batch or kept] bool, lanes that are not at work after it
  enough: int  # free lanes at which the next turn begins; 0 if it does at once
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
    self._lengths = lengths
    self._encoder_lengths = encoder_lengths(source_lengths[-1])
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
    self._fine = _is_short(share) and len(self._queue) >= TICKETS_OF_FINE_WORK * batch
    self._narrowing = FIRST_FINE_NARROWING if self._fine else NARROWING
    self._num_samples = num_samples
    self._drawn: list[dict[int, tickets.Drawn]] = [{} for _ in sources]
    self._owners = np.full(batch, None, object)  # [batch] Ticket or None
    self._shards = shards
    first = self._queue.peek()
    self._length = 0
    self._source_length = 0
    self._make_room(first)

  def goes_on(self) -> bool:
    """Whether anything is queued or in flight."""
    return bool(self._queue) or any(owner is not None for owner in self._owners)

  def turn(self, free: np.ndarray) -> Turn:
    """Plans the next exchange.

    Args:
      free: [batch] bool, the lanes whose candidates have all ended.
    """
    return self._exchange(free) if self._queue else self._drain(free)

  def _exchange(self, free: np.ndarray) -> Turn:
    """Takes what has ended out of some lanes and puts waiting tickets into them."""
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
        self._make_room(ticket)
    free = free.copy()
    for lane, ticket in zip(lanes, begins, strict=True):
      if ticket is not None:
        free[lane] = False
    # While tickets wait, lanes that are idle are reason enough for a turn.
    more = self._shards * self._per_shard()
    enough = more if self._queue else self._enough_to_drain()
    return Turn(
      incoming=self._incoming(places, begins),
      leaving=leaving,
      keep=None,
      free=free,
      enough=0 if free.sum() >= enough else enough,
      source_length=self._source_length,
      length=self._length,
    )

  def _drain(self, free: np.ndarray) -> Turn:
    """Takes all that has ended out, where fewer lanes then do or none is at work."""
    busy = ~free
    leaving: list[tickets.Ticket | None] = [None] * len(free)
    keep = self._narrow(busy) if busy.any() else None
    enough = 0
    if keep is not None or not busy.any():
      for lane in np.flatnonzero(free):
        leaving[lane], self._owners[lane] = self._owners[lane], None
    if keep is not None:
      kept = self._lanes_of(keep)
      self._owners, free = self._owners[kept], free[kept]
      # As much longer as they are fewer: the last candidates need not come back.
      longer = min(self._narrowing * self._length, self._limit)
      self._length = buckets.bucket(longer, self._lengths)
      self._narrowing = NARROWING
      enough = self._enough_to_drain()
    elif busy.any():
      # One shard may have too many at work: until the next lane ends, then.
      enough = max(self._enough_to_drain(), int(free.sum()) + 1)
    return Turn(
      incoming=None,
      leaving=leaving,
      keep=keep,
      free=free,
      enough=0 if free.sum() >= enough else enough,
      source_length=self._source_length,
      length=self._length,
    )

  def _per_shard(self) -> int:
    """Lanes of a shard that a turn empties and fills."""
    return lanes_of_turn(len(self._owners) // self._shards, self._places[1])

  def _narrower(self) -> int | None:
    """The next smaller number of lanes of a shard, None if there is none."""
    kept = len(self._owners) // self._shards // self._narrowing
    return kept if kept * self._shards >= FEWEST_LANES else None

  def _enough_to_drain(self) -> int:
    """Free lanes at which, with nothing waiting, some can be given up."""
    kept = self._narrower()
    return len(self._owners) - (0 if kept is None else kept * self._shards)

  def _narrow(self, busy: np.ndarray) -> np.ndarray | None:
    """Chooses the lanes to keep, where enough of them are not at work."""
    kept = self._narrower()
    by_shard = busy.reshape(self._shards, -1)
    if kept is None or by_shard.sum(axis=1).max() > kept:
      return None
    # Those at work come first, in their order.
    keep = np.argsort(~by_shard, axis=1, kind='stable')[:, :kept].astype(np.int32)
    return keep.reshape(-1)

  def _lanes_of(self, keep: np.ndarray) -> np.ndarray:
    """Lanes [kept] from their places within the shards."""
    size = len(self._owners) // self._shards
    first = np.arange(self._shards)[:, None] * size
    return (keep.reshape(self._shards, -1) + first).reshape(-1)

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
    tokens, log_probs = ended.tokens[place], ended.log_probs[place]
    sizes = ended.num_tokens[place].tolist()
    for slot, one, index in ticket.places():
      size = sizes[slot][one]
      candidate = tickets.Drawn(
        np.array(tokens[slot, one, :size]), np.array(log_probs[slot, one, :size])
      )
      complete = candidate.tokens[-1] == decoder.EOS_ID or size == self._limit
      (done if complete else outgrown)[index] = candidate
    if outgrown:
      self._queue.put_back(ticket.row, outgrown)
    if len(done) == self._num_samples:
      self._drawn[ticket.row] = {}
      yield ticket.row, [done[index] for index in range(self._num_samples)]

  def _make_room(self, ticket: tickets.Ticket) -> None:
    """Makes the lanes as long as a ticket needs."""
    longest = len(self._sources[ticket.row])
    if self._fine and ticket.length > self._length:
      # Room for all sources that want this cache: lanes are copied once for both.
      longest = max(longest, min(ticket.length, self._source_lengths[-1]))
    wanted = buckets.bucket(longest, self._source_lengths)
    self._source_length = max(self._source_length, wanted)
    self._length = max(self._length, ticket.length)

  def _encoder_length(self, begins: Sequence[tickets.Ticket | None]) -> int:
    """What the sources that come are padded to."""
    if not self._fine:
      return self._source_length
    longest = max(len(self._sources[one.row]) for one in begins if one is not None)
    return buckets.bucket(longest, self._encoder_lengths)

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
    sources = np.zeros((len(begins), self._encoder_length(begins)), np.int32)
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
      for slot, one, index in ticket.places():
        indices[i, slot, one] = index
        start = ticket.known.get(index)
        if start is not None:
          known = len(start.tokens)
          tokens[i, slot, one, :known] = start.tokens
          log_probs[i, slot, one, :known] = start.log_probs
          num_known[i, slot, one] = known
    return decoder.Incoming(
      places, sources, words, indices, tokens, log_probs, num_known
    )

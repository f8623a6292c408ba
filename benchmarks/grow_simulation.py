"""Grow's hosts as events: who takes which block when, and what a lost host costs.

The protocol of `rest_jax.training.hosts` and `rest_jax.stages.grow`, in virtual time:

    claims    blocks go out in their order, each to the host that asks next; a request
              takes its time on the way, and the service answers one after the other
    loss      a host that dies takes its block with it. JAX notices after the heartbeat
              and ends the others, whose blocks are lost as well; what is written stays.
              When the lost host is back, all are started again
    survival  the variant that is not built: the others go on, and only the lost block
              goes back to the heap

`tests/benchmarks/test_grow_simulation.py` holds it against two real processes.
"""

import dataclasses
import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

# (seconds since the first start, host), rising: when a host is lost.
Losses = Iterable[tuple[float, int]]


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How hosts claim, die and come back; all in seconds.

  Attributes:
    start_s: from the start of the processes to the first claim.
    heartbeat_s: until a death is noticed.
    return_s: until a lost host is there again.
    latency_s: of a request for a piece of work, on the way.
    service_s: that the service needs for one request.
    by_name: asks for each block by its name until one is free, as it was done before
      blocks were handed out by number.
    survive: the variant in which hosts survive one another.
    patience_s: a Grow that has not ended by then is given up: its `seconds` are
      infinite. Losses that come faster than starts let none end.
  """

  start_s: float = 120.0
  heartbeat_s: float = 100.0
  return_s: float = 300.0
  latency_s: float = 0.0
  service_s: float = 0.0
  by_name: bool = False
  survive: bool = False
  patience_s: float = 14 * 86_400.0


@dataclasses.dataclass
class Outcome:
  """What came of a Grow.

  Attributes:
    seconds: from the first start to the last block.
    claims: (seconds, host, block), in order.
    starts: of all hosts.
    lost_s: host-seconds of work that was thrown away.
    worked_s: host-seconds of work that was kept.
    requests: for pieces of work.
  """

  seconds: float = 0.0
  claims: list[tuple[float, int, int]] = dataclasses.field(default_factory=list)
  starts: int = 0
  lost_s: float = 0.0
  worked_s: float = 0.0
  requests: int = 0

  def efficiency(self, hosts: int) -> float:
    """The part of the hosts' time that made what is kept."""
    return self.worked_s / (hosts * self.seconds)


class _Service:
  """Answers requests for blocks, one after the other."""

  def __init__(self, protocol: Protocol, left: Sequence[int], hosts: int):
    self._protocol = protocol
    self._left = left
    self._next = 0
    self._asked = [0] * hosts  # by name: the first that a host has not asked for
    self._free = 0.0
    self.requests = 0

  def ask(self, host: int, now: float) -> tuple[float, int | None]:
    """When the host has its answer, and the block, None where nothing is left."""
    protocol, place = self._protocol, self._next
    number = 1
    if protocol.by_name:
      number = min(place + 1, len(self._left)) - self._asked[host]
      self._asked[host] = place + 1
    self.requests += number
    self._free = max(self._free, now) + number * protocol.service_s
    answered = max(now + number * protocol.latency_s, self._free)
    if place >= len(self._left):
      return answered, None
    self._next += 1
    return answered, self._left[place]


def simulate(
  work_s: Sequence[float],
  speeds: Sequence[float],
  losses: Losses = (),
  protocol: Protocol = Protocol(),
) -> Outcome:
  """Runs a Grow to its end.

  Args:
    work_s: of each block, on a host of speed 1.
    speeds: of each host.
    losses: of hosts; may be without end. One of a host that is not there is no loss.
    protocol: see there.
  """
  run = _survive if protocol.survive else _together
  return run(list(work_s), list(speeds), iter(losses), protocol)


def _together(
  work_s: Sequence[float],
  speeds: Sequence[float],
  losses: Iterator[tuple[float, int]],
  protocol: Protocol,
) -> Outcome:
  outcome, left, now = Outcome(), list(range(len(work_s))), 0.0
  loss = next(losses, None)
  while True:
    outcome.starts += 1
    while loss is not None and loss[0] < now:  # of hosts that were down
      loss = next(losses, None)
    died, victim = loss or (math.inf, -1)
    ended = died + protocol.heartbeat_s
    service = _Service(protocol, left, len(speeds))
    idle = [(now + protocol.start_s, host) for host in range(len(speeds))]
    heapq.heapify(idle)
    done, last = set(), now
    while idle:
      asked, host = heapq.heappop(idle)
      until = died if host == victim else ended
      if asked >= until:
        continue
      answered, block = service.ask(host, asked)
      if block is None:
        last = max(last, answered)
        continue
      outcome.claims.append((answered, host, block))
      spent = work_s[block] / speeds[host]
      finished = answered + spent
      if finished <= until:
        done.add(block)
        last = max(last, finished)
        outcome.worked_s += spent
        heapq.heappush(idle, (finished, host))
      else:
        outcome.lost_s += max(0.0, until - answered)
    outcome.requests += service.requests
    left = [block for block in left if block not in done]
    if not left and died > last:
      outcome.seconds = last
      return outcome
    now = max(ended, died + protocol.return_s)
    if now > protocol.patience_s:
      outcome.seconds = math.inf
      return outcome


def _survive(
  work_s: Sequence[float],
  speeds: Sequence[float],
  losses: Iterator[tuple[float, int]],
  protocol: Protocol,
) -> Outcome:
  outcome = Outcome(starts=1)
  left = list(range(len(work_s)))  # rising, so a heap
  order = itertools.count()
  events: list[tuple[float, int, str, int, int]] = []  # when, order, what, host, block

  def at(when: float, what: str, host: int, block: int = -1) -> None:
    heapq.heappush(events, (when, next(order), what, host, block))

  def next_loss() -> None:
    loss = next(losses, None)
    if loss is not None:
      at(loss[0], 'lost', loss[1])

  working: dict[int, tuple[int, float]] = {}  # host: its block, and since when
  up, waiting = set(), set()
  for host in range(len(speeds)):
    up.add(host)
    at(protocol.start_s, 'asks', host)
  next_loss()
  unfinished, free = len(left), 0.0
  while unfinished:
    now, _, what, host, block = heapq.heappop(events)
    if now > protocol.patience_s:
      outcome.seconds = math.inf
      break
    if what == 'lost':
      next_loss()
      if host in up:
        up.discard(host)
        waiting.discard(host)
        if host in working:
          block, since = working.pop(host)
          outcome.lost_s += max(0.0, now - since)
          at(now + protocol.heartbeat_s, 'again', host, block)
        at(now + protocol.return_s + protocol.start_s, 'back', host)
    elif what == 'back':
      up.add(host)
      at(now, 'asks', host)
    elif what == 'again':
      heapq.heappush(left, block)
      for idle in sorted(waiting):
        at(now, 'asks', idle)
      waiting.clear()
    elif what == 'done' and working.get(host, (-1, 0.0))[0] == block:
      _, since = working.pop(host)
      unfinished -= 1
      outcome.worked_s += now - since
      outcome.seconds = now
      at(now, 'asks', host)
    elif what == 'asks' and host in up and host not in working:
      outcome.requests += 1
      free = max(free, now) + protocol.service_s
      answered = max(now + protocol.latency_s, free)
      if not left:
        waiting.add(host)
        continue
      block = heapq.heappop(left)
      working[host] = (block, answered)
      outcome.claims.append((answered, host, block))
      at(answered + work_s[block] / speeds[host], 'done', host, block)
  return outcome


def random_losses(
  hosts: int, mean_between_s: float, seed: int
) -> Iterator[tuple[float, int]]:
  """Losses without memory: each host's come `mean_between_s` apart on average."""
  rng = np.random.default_rng(seed)
  now = 0.0
  while math.isfinite(mean_between_s):
    now += float(rng.exponential(mean_between_s / hosts))
    yield now, int(rng.integers(hosts))

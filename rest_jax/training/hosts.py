"""The hosts of a run: who is there, who does what, and how all of them end.

Every host runs the same program. Work on the global mesh (training) needs no word
between them but the compiler's collectives; what is not on it goes through the
key-value store of JAX's coordination service, on the first host:

    barrier   all have come to this point of the program
    share     a piece of work belongs to whoever asked first
    gather    a short text from each

When a host fails, or is told to stop, every host ends with the same exit status, so
that a launcher starts all of them again. A host that dies without a word is noticed
by JAX itself, which ends the others; one that lives and does not advance is noticed
by the first host, which names it. With one host nothing here waits or talks.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax._src import distributed  # the only door to the key-value store

from rest_jax.training import preemption

FAILED = 1  # a mistake: the same command would fail again
LOST = 75  # EX_TEMPFAIL: a host or a device is gone, and the same command goes on
POLL_S = 1.0
BEAT_PERIOD_S = 10.0
# The others hear of the end before the first host, which tells them, is gone.
FAREWELL_S = 3.0
DEFAULT_TIMEOUT_S = 1800.0

# A training loop may go so many steps on while the hosts agree where to stop.
STOP_MARGIN_STEPS = 3

# What the runtime, or a library that hands its words on, says of connections and peers.
_PASSING = re.compile(
  '(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED|DATA_LOSS): '
)

_PREFIX = 'rest_jax/'
_END = f'{_PREFIX}end'
_STOP = f'{_PREFIX}stop/'


@dataclasses.dataclass(frozen=True)
class End:
  """Why and how every host ends."""

  message: str
  status: int


class _Hosts:
  """This host's part of the conversation; one object in a process."""

  client: Any  # of the coordination service

  def __init__(self, timeout_s: float):
    self.client = distributed.global_state.client
    self.timeout_s = timeout_s
    self.barriers = itertools.count()
    self.advances = 0
    self.waiting = False
    self._lock = threading.Lock()
    self._step = 0  # of the training loop
    self._stop_here: int | None = None  # where this host can stop at the earliest
    self._stop_step: int | None = None  # where all stop
    self._stopping = threading.Event()
    self._thread = threading.Thread(target=self._watch, name='hosts', daemon=True)
    self.client.key_value_set(
      f'{_PREFIX}name/{index()}', f'{socket.gethostname()} {os.getpid()}'
    )
    self._thread.start()

  def name(self, host: int) -> str:
    """A host in words, such as '3 (tpu-vm-3, process 812)'."""
    found = _try_get(self.client, f'{_PREFIX}name/{host}')
    if found is None:
      return f'{host} (which never came)'
    machine, process = found.rsplit(' ', 1)
    return f'{host} ({machine}, process {process})'

  def close(self) -> None:
    self._stopping.set()
    self._thread.join()

  def must_stop(self, step: int) -> bool:
    """See the function of that name."""
    with self._lock:
      self._step = step
    while self._stop_step is None and self._stop_here is not None:
      if step < self._stop_here:
        return False
      time.sleep(0.01)  # for the words of the other hosts' threads, not their loops
    return self._stop_step is not None and step >= self._stop_step

  def _agree_to_stop(self) -> None:
    """The furthest of the steps where the hosts can stop is where they do."""
    if preemption.requested():
      self.client.key_value_set(f'{_STOP}requested', '', allow_overwrite=True)
    if _try_get(self.client, f'{_STOP}requested') is None:
      return
    if self._stop_here is None:
      with self._lock:
        self._stop_here = self._step + STOP_MARGIN_STEPS
      self.client.key_value_set(f'{_STOP}at/{index()}', str(self._stop_here))
    said = self.client.key_value_dir_get(f'{_STOP}at/')
    if len(said) == count():
      self._stop_step = max(int(step) for _, step in said)
      preemption.request()

  def _watch(self) -> None:
    """Until the end: tells of this host's life, and looks for the end."""
    seen: dict[str, tuple[str, float]] = {}  # host -> its last word, and when
    told = -BEAT_PERIOD_S
    while not self._stopping.is_set():
      try:
        end = _try_get(self.client, _END)
        if end is not None:
          leave(End(**json.loads(end)))
        self._agree_to_stop()
        now = time.monotonic()
        if now - told >= BEAT_PERIOD_S or told < 0:
          told = now
          word = json.dumps([self.advances, self.waiting])
          self.client.key_value_set(
            f'{_PREFIX}beat/{index()}', word, allow_overwrite=True
          )
          if is_primary():
            self._look_for_silence(seen, now)
      except jax.errors.JaxRuntimeError:
        pass  # the service is going away; JAX ends this process
      self._stopping.wait(POLL_S)

  def _look_for_silence(self, seen: dict[str, tuple[str, float]], now: float) -> None:
    """Ends the run where a host has not advanced for too long."""
    for key, word in self.client.key_value_dir_get(f'{_PREFIX}beat/'):
      host = key.rsplit('/', 1)[1]
      if host not in seen or seen[host][0] != word:
        seen[host] = (word, now)
    silent = {
      int(host): json.loads(word)[0]
      for host, (word, since) in seen.items()
      if now - since > self.timeout_s and not json.loads(word)[1]
    }
    if silent:
      # In work on all devices the others wait for the one that is furthest behind.
      least = min(silent.values())
      names = [self.name(host) for host in sorted(silent) if silent[host] == least]
      end = _silence(' or '.join(names), self)
      self.client.key_value_set(_END, json.dumps(dataclasses.asdict(end)))


def _silence(name: str, hosts: _Hosts) -> End:
  return End(
    f'host {name} has not advanced for {hosts.timeout_s:,.0f} s: look at that machine. '
    'All hosts end; the same command goes on from here (--host_timeout_s waits longer)',
    LOST,
  )


_hosts: _Hosts | None = None


def join(
  *,
  coordinator_address: str | None = None,
  process_count: int | None = None,
  process_index: int | None = None,
  timeout_s: float = DEFAULT_TIMEOUT_S,
  heartbeat_timeout_s: int = 100,
) -> None:
  """Joins the other hosts; to be called before anything touches a device.

  Args:
    coordinator_address: 'host:port' of the first host. None, with the two below,
      lets JAX find all three from the cluster (Cloud TPU, GKE, Slurm, Open MPI).
    process_count, process_index: of the hosts, and of this one.
    timeout_s: a host that does not advance for so long ends the run.
    heartbeat_timeout_s: a host from whose process nothing is heard for so long has
      died, and JAX ends the others.

  Raises:
    ValueError: only some of the three are given, or the hosts do not come together.
    TimeoutError: some of the hosts did not come in five minutes.
  """
  global _hosts
  given = (coordinator_address, process_count, process_index)
  if None in given and any(value is not None for value in given):
    raise ValueError(
      f'coordinator_address={coordinator_address!r}, process_count={process_count} and '
      f'process_index={process_index} go together: give all three, or none and let JAX '
      'find them from the cluster'
    )
  if process_count is not None and not 0 <= (process_index or 0) < process_count:
    raise ValueError(
      f'process_index={process_index} must be at least 0 and below process_count='
      f'{process_count}'
    )
  try:
    jax.distributed.initialize(
      coordinator_address,
      process_count,
      process_index,
      # Given all three, JAX need not look for a cluster; on Slurm it would, and leave
      # each process one device of its machine.
      cluster_detection_method=None if coordinator_address is None else 'deactivate',
      heartbeat_timeout_seconds=heartbeat_timeout_s,
    )
  except (RuntimeError, ValueError) as error:
    late = 'DEADLINE_EXCEEDED' in str(error)
    raise (TimeoutError if late else ValueError)(
      f'the hosts did not come together ({str(error).splitlines()[0]}): the same '
      'command must be started on every host, the first at '
      f'{coordinator_address or "the address that the cluster gives"}'
    ) from error
  if count() > 1:
    _hosts = _Hosts(timeout_s)


def count() -> int:
  """How many hosts there are."""
  return distributed.global_state.num_processes or 1


def index() -> int:
  """Which of the hosts this one is, from 0. Asks no device."""
  return distributed.global_state.process_id or 0


def is_primary() -> bool:
  """Whether this host writes what one host writes for all: the first."""
  return index() == 0


def advance(units: int = 1) -> None:
  """Says that this host is not stuck."""
  if _hosts is not None:
    _hosts.advances += units


@contextlib.contextmanager
def untimed() -> Iterator[None]:
  """Inside, this host is not counted as stuck however long it does not advance.

  For work that the first host does alone, of which nothing says how far it is.
  """
  if _hosts is None:
    yield
    return
  _hosts.waiting = True
  try:
    yield
  finally:
    _hosts.waiting = False


def barrier(name: str) -> None:
  """Waits until every host is at this point of the program.

  While a host waits it is not counted as stuck; the others are.
  """
  if _hosts is None:
    return
  key = f'{_PREFIX}barrier/{next(_hosts.barriers)}-{name}/'
  client = _hosts.client
  client.key_value_set(f'{key}{index()}', '')
  with untimed():
    # One host counts, the others wait for its word: no storm of requests.
    pause_s = 0.01
    while is_primary() and len(client.key_value_dir_get(key)) < count():
      time.sleep(pause_s)
      pause_s = min(2 * pause_s, POLL_S / 4)
    if is_primary():
      client.key_value_set(f'{key}all', '')
    while not _wait_for(client, f'{key}all'):
      pass
  advance()


def share(name: str, num: int) -> Iterator[int]:
  """Which of `num` pieces of work are this host's, each when it is asked for.

  Numbers go out in their order, each to the host that asks next and to no other. All
  hosts must mean the same piece by a number: what they read it off may not change
  between the first host's look and the last's, so a `barrier` stands between looking
  and working. One request for a piece, whatever the number of hosts: `num + hosts`.
  """
  if _hosts is None:
    yield from range(num)
    return
  key = f'{_PREFIX}share/{name}'
  # The service counts from 1, and adds for one host at a time.
  while (number := _hosts.client.key_value_increment(key, 1) - 1) < num:
    yield number


def gather(name: str, text: str) -> list[str]:
  """Returns every host's text, in the order of the hosts, to every host."""
  if _hosts is None:
    return [text]
  key = f'{_PREFIX}gather/{next(_hosts.barriers)}-{name}/'
  _hosts.client.key_value_set(f'{key}{index()}', text)
  barrier(name)
  found = dict(_hosts.client.key_value_dir_get(key))
  return [found[f'{key}{host}'] for host in range(count())]


def must_stop(step: int) -> bool:
  """Whether a training loop that has taken so many steps stops here, for SIGTERM.

  To be called after every step. With several hosts any one's signal stops all of them,
  after the same step; a host that is there first waits.
  """
  return preemption.requested() if _hosts is None else _hosts.must_stop(step)


def status_of(error: BaseException) -> int:
  """FAILED where the same command would fail again, LOST where it may well go on.

  A host that dies takes a collective with it, which its peers learn as an error of the
  runtime, of one type or another; so does a device. Too little memory, and what XLA
  refuses, stay as they are.
  """
  passing = isinstance(error, (ConnectionError, TimeoutError)) or _PASSING.match(
    str(error).strip()
  )
  return LOST if passing else FAILED


def end_all(message: str, status: int, *, details: str = '') -> None:
  """Ends every host, this one at once, with one exit status.

  With one host it does nothing: the caller goes on to end as it likes. Where another
  host has said before why all end, that holds: this host's trouble came of it.

  Args:
    message: why.
    status: of all.
    details: printed here, if it is this host that ends the others.
  """
  if _hosts is None:
    return
  _hosts.close()  # or this host's own thread would say it again
  end = End(f'host {_hosts.name(index())}: {message}', status)
  try:
    _hosts.client.key_value_set(_END, json.dumps(dataclasses.asdict(end)))
  except jax.errors.JaxRuntimeError:
    if (first := _try_get(_hosts.client, _END)) is not None:
      leave(End(**json.loads(first)))
  if details:
    print(details, file=sys.stderr)
  leave(end, told=True)


def leave(end: End, *, told: bool = False) -> None:
  """Ends this process at once; collectives that hang cannot hold it."""
  if not told:
    print(f'\n{end.message}', file=sys.stderr)
  sys.stdout.flush()
  sys.stderr.flush()
  if is_primary():
    time.sleep(FAREWELL_S)  # the store goes with this process
  os._exit(end.status)


def part() -> None:
  """Takes leave of the other hosts at the end of a run that went well."""
  global _hosts
  if _hosts is None:
    return
  barrier('part')
  _hosts.close()
  _hosts = None
  jax.distributed.shutdown()


def _try_get(client: Any, key: str) -> str | None:
  try:
    return str(client.key_value_try_get(key))
  except jax.errors.JaxRuntimeError:
    return None


def _wait_for(client: Any, key: str) -> bool:
  """Waits for a key for a while; whether it came."""
  try:
    client.blocking_key_value_get(key, int(5000 * POLL_S))
  except jax.errors.JaxRuntimeError as error:
    if 'DEADLINE_EXCEEDED' not in str(error):
      raise
    return False
  return True

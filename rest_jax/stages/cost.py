"""What a stage cost: seconds, device-seconds, peak memory, energy.

Everything is measured or None; nothing is guessed.
"""

import collections
import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator, Sequence

import jax


@dataclasses.dataclass
class Cost:
  """The cost of one stage, summed over the attempts that it took."""

  seconds: float = 0.0  # wall clock
  device_seconds: float = 0.0  # wall clock with the devices busy x devices
  peak_memory_bytes: int | None = None  # of one host process, or of one device
  energy_joules: float | None = None  # of the package or board, all of it
  attempts: int = 0
  # What the stage says of its own work, such as decoder steps.
  counts: dict[str, int] = dataclasses.field(default_factory=dict)


class Meter:
  """Measures one attempt at a stage.

  On an accelerator the peak is the device allocator's; on a CPU it is the
  process's peak resident memory since `__init__` (Linux; elsewhere None).
  Energy is read from the powercap counters where the host lets us, and covers
  everything that ran on that package meanwhile.
  """

  def __init__(self, num_devices: int, previous: Cost | None = None):
    self._num_devices = num_devices
    self._previous = previous or Cost()
    self._started = time.monotonic()
    self._device_seconds = 0.0
    self._counts: dict[str, int] = {}
    self._energy_started = _energy_joules()
    _reset_peak_memory()

  @contextlib.contextmanager
  def devices(self) -> Iterator[None]:
    """Counts the time inside as device time, on each of the devices."""
    started = time.monotonic()
    try:
      yield
    finally:
      self._device_seconds += (time.monotonic() - started) * self._num_devices

  def count(self, **totals: int) -> None:
    """Says what this attempt has done so far, in the stage's own units."""
    # Renewed, not changed: another thread may be reading it in `cost`.
    self._counts = self._counts | totals

  def cost(self) -> Cost:
    """Returns the cost so far, earlier attempts included."""
    previous = self._previous
    counts = collections.Counter(previous.counts)
    counts.update(self._counts)
    peaks = [p for p in (previous.peak_memory_bytes, _peak_memory_bytes()) if p]
    return Cost(
      seconds=previous.seconds + time.monotonic() - self._started,
      device_seconds=previous.device_seconds + self._device_seconds,
      peak_memory_bytes=max(peaks) if peaks else None,
      energy_joules=self._energy(),
      attempts=previous.attempts + 1,
      counts=dict(counts),
    )

  def _energy(self) -> float | None:
    now = _energy_joules()
    if now is None or self._energy_started is None:
      return None
    if self._previous.attempts and self._previous.energy_joules is None:
      return None
    spent = now - self._energy_started
    # The counter wraps around; a negative difference says nothing.
    return None if spent < 0 else spent + (self._previous.energy_joules or 0.0)


def total(costs: Sequence[Cost]) -> Cost:
  """What several hosts' work on one stage cost together.

  Hosts work at the same time: seconds, attempts and the peak of memory are the
  largest of any, the rest adds up. Energy is None where one host does not know it.
  """
  counts: collections.Counter[str] = collections.Counter()
  for cost in costs:
    counts.update(cost.counts)
  joules = [cost.energy_joules for cost in costs]
  known = [value for value in joules if value is not None]
  return Cost(
    seconds=max(cost.seconds for cost in costs),
    device_seconds=sum(cost.device_seconds for cost in costs),
    peak_memory_bytes=max(c.peak_memory_bytes or 0 for c in costs) or None,
    energy_joules=sum(known) if len(known) == len(joules) else None,
    attempts=max(cost.attempts for cost in costs),
    counts=dict(counts),
  )


def _reset_peak_memory() -> None:
  with contextlib.suppress(OSError):
    pathlib.Path('/proc/self/clear_refs').write_text('5')


def _peak_memory_bytes() -> int | None:
  device = jax.local_devices()[0]
  if device.platform != 'cpu':
    stats = device.memory_stats() or {}
    return stats.get('peak_bytes_in_use')
  with contextlib.suppress(OSError, StopIteration, ValueError):
    lines = pathlib.Path('/proc/self/status').read_text().splitlines()
    line = next(line for line in lines if line.startswith('VmHWM:'))
    return int(line.split()[1]) * 1024
  return None


def _energy_joules() -> float | None:
  """Sums the CPU packages' energy counters (microjoules on Linux)."""
  counters = pathlib.Path('/sys/class/powercap').glob('intel-rapl:[0-9]/energy_uj')
  try:
    readings = [int(counter.read_text()) for counter in counters]
  except (OSError, ValueError):
    return None
  return sum(readings) * 1e-6 if readings else None

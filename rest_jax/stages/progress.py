"""Progress for long work: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich import console as rich_console
from rich import progress as rich_progress

from rest_jax.training import hosts

PLAIN_PERIOD_S = 10.0  # between two plain lines of one piece of work

# advance(steps, note): `note` is a short text such as 'loss 2.31'.
Advance = Callable[..., None]


@contextlib.contextmanager
def progress(
  description: str,
  total: int,
  *,
  unit: str,
  done: int = 0,
  period_s: float = PLAIN_PERIOD_S,
) -> Iterator[Advance]:
  """Shows how far a piece of work is, its rate and the time left.

  Of several hosts the first shows it: the whole of what all do together, its own
  share of what they do apart.

  Args:
    description: what is being done, such as 'grow_1'.
    total: how many units the whole work has.
    unit: plural name of a unit, such as 'samples'.
    done: units that an earlier attempt finished; they do not count in the rate.
    period_s: seconds between two lines where the output is not a terminal.

  Yields:
    `advance(units, note='')`.
  """
  if not hosts.is_primary():

    def tell(units: int, note: str = '') -> None:
      del note
      hosts.advance(units)

    yield tell
    return
  console = rich_console.Console(file=sys.stderr)
  if console.is_terminal:
    with _bar(console, unit) as bar:
      task = bar.add_task(description, total=total, completed=done, note='')

      def show(units: int, note: str = '') -> None:
        hosts.advance(units)
        bar.update(task, advance=units, note=note)

      yield show
    return
  plain = _PlainLines(description, total, unit, done, period_s)
  yield plain.advance
  plain.finish()


def say(text: str) -> None:
  """Prints one line of the run's story; of several hosts the first speaks."""
  if hosts.is_primary():
    print(text, file=sys.stderr, flush=True)


def _bar(console: rich_console.Console, unit: str) -> rich_progress.Progress:
  return rich_progress.Progress(
    rich_progress.TextColumn('{task.description:<14}'),
    rich_progress.BarColumn(bar_width=30),
    rich_progress.MofNCompleteColumn(),
    rich_progress.TextColumn(unit),
    _RateColumn(unit),
    rich_progress.TimeRemainingColumn(compact=True),
    rich_progress.TextColumn('{task.fields[note]}'),
    console=console,
  )


class _RateColumn(rich_progress.ProgressColumn):
  """Units a second."""

  def __init__(self, unit: str):
    super().__init__()
    self._unit = unit

  def render(self, task: rich_progress.Task) -> str:
    speed = task.finished_speed or task.speed
    return '' if speed is None else f'{speed:,.0f} {self._unit}/s'


class _PlainLines:
  """One line at most every `period_s` seconds, and one at the end."""

  def __init__(
    self, description: str, total: int, unit: str, done: int, period_s: float
  ):
    self._description, self._total, self._unit = description, total, unit
    self._first, self._done, self._period_s = done, done, period_s
    self._started = self._last = time.monotonic()
    self._note = ''

  def advance(self, units: int, note: str = '') -> None:
    hosts.advance(units)
    self._done += units
    self._note = note or self._note
    if time.monotonic() - self._last >= self._period_s:
      self._last = time.monotonic()
      self._print(left=True)

  def finish(self) -> None:
    self._print(left=False)

  def _print(self, *, left: bool) -> None:
    elapsed = time.monotonic() - self._started
    rate = (self._done - self._first) / max(elapsed, 1e-9)
    line = f'{self._description}: {self._done:,}/{self._total:,} {self._unit}'
    line += f', {rate:,.0f} {self._unit}/s'
    if left and rate > 0:
      line += f', {(self._total - self._done) / rate:,.0f} s left'
    else:
      line += f', {elapsed:,.1f} s'
    say(line + (f', {self._note}' if self._note else ''))

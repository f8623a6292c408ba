"""SIGTERM: what a scheduler sends before it takes a machine away.

Outside training the process stops at once: what is finished is on disk. Inside
(`deferred`) the signal is only noted; the loop leaves after its step, and the process
stops when the checkpoint is written. `hosts.must_stop` has all hosts leave after the
same step.
"""

import contextlib
import signal
import threading
import types
from collections.abc import Iterator

# What the shell reports of a process that SIGTERM has ended: launchers start again.
STATUS = 128 + signal.SIGTERM

_requested = threading.Event()
_deferred = 0


class Stopped(BaseException):
  """The process was told to stop; what it was doing can be gone on with."""


def install() -> None:
  """Takes SIGTERM from now on; only the main thread may call it."""
  signal.signal(signal.SIGTERM, _on_signal)


def ignore() -> None:
  """Hears no SIGTERM any more: the process is on its way out."""
  signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _on_signal(number: int, frame: types.FrameType | None) -> None:
  del number, frame
  _requested.set()
  if not _deferred:
    raise Stopped


def request() -> None:
  """Acts as if the signal had come while it is deferred: another host got it."""
  _requested.set()


def requested() -> bool:
  """Whether the signal has come."""
  return _requested.is_set()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
  """Inside, the signal is noted; whoever ends without looking is stopped then."""
  global _deferred
  _deferred += 1
  try:
    yield
  finally:
    _deferred -= 1
  if _requested.is_set():
    raise Stopped

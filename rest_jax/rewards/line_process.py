"""A program that is spoken to in lines: started, fed, read and ended."""

import collections
import contextlib
import os
import selectors
import signal
import subprocess
import time
import weakref
from collections.abc import Sequence

STDERR_LINES = 10  # of the last, kept for messages
_READ_BYTES = 1 << 16
PATIENCE_S = 5.0  # after its input was closed, and again after SIGTERM


class LineProcess:
  """One run of a command.

  Its input and output are never waited for one at a time, so neither side can block
  the other by a full pipe. It leads a process group of its own, which is ended whole
  when this object is dropped, when Python exits, or by `end`. A Python that is killed
  closes the program's input, on which it should end by itself.

  Args:
    command: the program and its arguments; no shell reads them.

  Raises:
    ValueError: it cannot be started.
  """

  def __init__(self, command: Sequence[str]):
    try:
      process = subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
      )
    except OSError as error:
      raise ValueError(
        f'the command {list(command)} cannot be started ({error}): its first word '
        'must be a program on PATH, or the path of one'
      ) from error
    assert process.stdin and process.stdout and process.stderr
    self._process = process
    self._stdin = process.stdin.fileno()
    self._stdout = process.stdout.fileno()
    self._stderr = process.stderr.fileno()
    self._to_send = bytearray()
    self._received = bytearray()
    self._errors = bytearray()
    self._last_errors: collections.deque[str] = collections.deque(maxlen=STDERR_LINES)
    self._open = {self._stdin, self._stdout, self._stderr}
    for handle in self._open:
      os.set_blocking(handle, False)
    self.end = weakref.finalize(self, _end, process)

  @property
  def finished(self) -> bool:
    """Whether it has closed its output: no line will come any more."""
    return self._stdout not in self._open

  def send(self, line: str) -> None:
    """Takes a line, which `receive` writes while it waits."""
    self._to_send += line.encode() + b'\n'

  def receive(self, timeout_s: float) -> list[str]:
    """Writes what was sent, and returns the lines that came.

    Args:
      timeout_s: how long to wait for the first of them.

    Returns:
      At least one line; or none, when it is `finished` or the time is over.
    """
    deadline = time.monotonic() + timeout_s
    while not self.finished:
      if not self._transfer(deadline - time.monotonic()):
        return []
      *lines, rest = self._received.split(b'\n')
      if lines:
        self._received = rest
        return [line.decode(errors='replace') for line in lines]
    return []

  def describe_end(self) -> str:
    """How it ended and the last of what it wrote to stderr, for a message."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      self._process.wait(PATIENCE_S)
    while self._stderr in self._open and self._read(self._stderr):
      pass  # what it wrote before it ended
    status = self._process.returncode
    if status is None:
      how = 'closed its output without ending'
    elif status < 0:
      how = f'was ended by {signal.Signals(-status).name}'
    else:
      how = f'ended with exit status {status}'
    return f'{how}; {self.describe_stderr()}'

  def describe_stderr(self) -> str:
    """The last lines of its stderr, for a message."""
    lines = [*self._last_errors]
    if self._errors.strip():
      lines.append(self._errors.decode(errors='replace'))
    if not lines:
      return 'it wrote nothing to stderr'
    return 'the last of its stderr:\n' + '\n'.join(f'  {line}' for line in lines)

  def _transfer(self, timeout_s: float) -> bool:
    """Moves bytes wherever one side is ready; False when the time is over."""
    with selectors.DefaultSelector() as selector:
      for handle in self._open - {self._stdin}:
        selector.register(handle, selectors.EVENT_READ)
      if self._to_send and self._stdin in self._open:
        selector.register(self._stdin, selectors.EVENT_WRITE)
      ready = selector.select(max(timeout_s, 0.0))
    for key, _ in ready:
      if key.fd == self._stdin:
        self._write()
      else:
        self._read(key.fd)
    return bool(ready)

  def _write(self) -> None:
    try:
      written = os.write(self._stdin, self._to_send[:_READ_BYTES])
      del self._to_send[:written]
    except BrokenPipeError:  # it reads no more; its output will say whether it ended
      self._open.discard(self._stdin)

  def _read(self, handle: int) -> int:
    """Reads what there is; returns how many bytes."""
    try:
      data = os.read(handle, _READ_BYTES)
    except BlockingIOError:
      return 0
    if not data:
      self._open.discard(handle)
    elif handle == self._stdout:
      self._received += data
    else:
      *lines, self._errors = (self._errors + data).split(b'\n')
      self._last_errors += [line.decode(errors='replace') for line in lines]
    return len(data)


def _end(process: subprocess.Popen[bytes]) -> None:
  """Closes its input, and ends it and all that it started."""
  for stream in (process.stdin, process.stdout, process.stderr):
    with contextlib.suppress(OSError):
      assert stream is not None
      stream.close()
  for signal_ in (None, signal.SIGTERM, signal.SIGKILL):
    if signal_ is not None:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal_)
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(PATIENCE_S)
      break
  # What it started may outlive it, in its group.
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)

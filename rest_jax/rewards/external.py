"""A reward from another program, in any language: JSON lines in, JSON lines out.

A request is one line, and so is its answer; `docs/scorers.md` has the protocol, a
program of fifteen lines, and wrappers of COMET and BLEURT.

    {"id": 7, "rows": [{"source": "...", "candidate": "...", "reference": null}, ...]}
    {"id": 7, "scores": [0.71, ...]}
"""

import collections
import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rest_jax.data.group_store import Group
from rest_jax.rewards import line_process

_LARGEST = float(np.finfo(np.float32).max)
_SHOWN = 200  # characters of a line or a text in a message


@dataclasses.dataclass(frozen=True)
class _Settings:
  """All that a program is started and fed with."""

  command: tuple[str, ...]
  batch_size: int
  max_in_flight: int
  timeout_s: float
  max_restarts: int


@dataclasses.dataclass
class _Request:
  """Rows that are sent together."""

  id: int
  rows: range  # of the call
  times_sent: int = 0


@dataclasses.dataclass(frozen=True)
class _Row:
  """What a score is of."""

  source: str
  candidate: str
  reference: str | None


class ExternalScorer:
  """Scores candidates with a program that runs beside this one.

  The program is started at the first call and serves all scorers of the same settings
  until Python exits. Rows that are equal in source, candidate and reference are sent
  once a call. Where the program dies, it is started again and the requests that it
  left are sent again.

  Args:
    command: the program and its arguments, such as ('python', 'my_scorer.py'). No
      shell reads them; the program inherits environment and working directory.
    version: what tells this state of the program from the next. Scores are reused
      while command and version stay the same, so change it with every change of the
      program, its model or its settings.
    name: its name in tables.
    batch_size: rows in a request; the program's answers must not depend on it.
    max_in_flight: requests that may wait for an answer at once. Answers may come in
      any order.
    timeout_s: the longest wait for the next answer, loading the model included.
    max_restarts: how often a request may be sent again after the program died.

  Raises:
    ValueError: an argument that cannot be; or, when called, a program that cannot be
      started, or an answer that breaks the protocol.
    ChildProcessError: the program died once more than max_restarts allow.
    TimeoutError: no answer came in time.
  """

  def __init__(
    self,
    command: Sequence[str],
    *,
    version: str,
    name: str = 'external',
    batch_size: int = 64,
    max_in_flight: int = 4,
    timeout_s: float = 600.0,
    max_restarts: int = 2,
  ):
    if (
      isinstance(command, str)
      or not command
      or not all(isinstance(word, str) for word in command)
    ):
      raise ValueError(
        f'command={command!r} must be a sequence of words, such as '
        "('python', 'my_scorer.py'); ('sh', '-c', '...') runs a shell"
      )
    if not version or not isinstance(version, str):
      raise ValueError(
        f'version={version!r} must be a text that changes whenever the scores may, '
        "such as 'wmt22-comet-da'"
      )
    for key, value, least in (
      ('batch_size', batch_size, 1),
      ('max_in_flight', max_in_flight, 1),
      ('max_restarts', max_restarts, 0),
    ):
      if value < least:
        raise ValueError(f'{key}={value} must be at least {least}')
    if not timeout_s > 0:
      raise ValueError(f'timeout_s={timeout_s} must be above 0')
    self.name = name
    self._version = version
    self._settings = _Settings(
      tuple(command), batch_size, max_in_flight, float(timeout_s), max_restarts
    )

  def identity(self) -> dict[str, Any]:
    """Command and declared version; how rows are sent is no part of it."""
    return {
      'scorer': 'external',
      'command': list(self._settings.command),
      'version': self._version,
    }

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Rewards, one [samples] float32 array per group."""
    places: dict[_Row, int] = {}
    indices = [
      np.array(
        [
          places.setdefault(_Row(group.source, text, group.reference), len(places))
          for text in group.texts
        ],
        np.int64,
      )
      for group in groups
    ]
    scores = _conversation(self._settings).score(list(places))
    return [scores[index] for index in indices]

  def end(self) -> None:
    """Ends the program; the next call starts it again."""
    _conversation(self._settings).end()


class _Conversation:
  """A running program and what it has still to answer."""

  def __init__(self, settings: _Settings):
    self._settings = settings
    self._process: line_process.LineProcess | None = None
    self._num_requests = 0
    self._num_lines = 0  # that the program wrote, for messages

  def score(self, rows: Sequence[_Row]) -> np.ndarray:  # [rows] float32
    """Sends the rows and returns their scores."""
    size = self._settings.batch_size
    waiting: collections.deque[_Request] = collections.deque()
    for start in range(0, len(rows), size):
      part = range(start, min(start + size, len(rows)))
      waiting.append(_Request(self._num_requests, part))
      self._num_requests += 1
    scores = np.full(len(rows), np.nan, np.float32)
    pending: dict[int, _Request] = {}
    try:
      while waiting or pending:
        process = self._started()
        while waiting and len(pending) < self._settings.max_in_flight:
          request = waiting.popleft()
          request.times_sent += 1
          pending[request.id] = request
          process.send(_request_line(request, rows))
        lines = process.receive(self._settings.timeout_s)
        for line in lines:
          self._num_lines += 1
          request, values = self._answer(line, pending, rows)
          scores[request.rows] = values
        if not lines:
          self._send_again(process, pending, waiting, rows)
    except BaseException:
      self.end()  # its answers to come belong to no call any more
      raise
    return scores

  def end(self) -> None:
    """Ends the program if it runs."""
    process, self._process = self._process, None
    if process is not None:
      process.end()

  def _started(self) -> line_process.LineProcess:
    if self._process is None:
      self._num_lines = 0
      self._process = line_process.LineProcess(self._settings.command)
    return self._process

  def _send_again(
    self,
    process: line_process.LineProcess,
    pending: dict[int, _Request],
    waiting: collections.deque[_Request],
    rows: Sequence[_Row],
  ) -> None:
    """Puts what a dead program left back, or raises."""
    first = next(iter(pending.values()))
    row = f'the first row without an answer is {_show(rows[first.rows[0]])}'
    if not process.finished:
      raise TimeoutError(
        f'{self._named()} gave no answer for {self._settings.timeout_s:g} s; {row}; '
        f'{process.describe_stderr()}\nA longer timeout_s waits longer; a smaller '
        'batch_size makes answers come sooner'
      )
    how = process.describe_end()
    self.end()
    if any(r.times_sent > self._settings.max_restarts for r in pending.values()):
      raise ChildProcessError(
        f'{self._named()} {how}\nIt was started again '
        f'{self._settings.max_restarts} times (max_restarts); {row}'
      )
    waiting.extendleft(reversed(pending.values()))
    pending.clear()

  def _answer(
    self, line: str, pending: dict[int, _Request], rows: Sequence[_Row]
  ) -> tuple[_Request, list[float]]:
    """Takes the request that a line answers out of those pending.

    Raises:
      ValueError: the line is no answer to any of them.
    """
    where = f'{self._named()}, line {self._num_lines} of its output'
    try:
      answer = json.loads(line)
    except json.JSONDecodeError as error:
      raise ValueError(
        f'{where}: not JSON ({error}): {line[:_SHOWN]!r}. Only answers belong on '
        'stdout; print everything else to stderr'
      ) from error
    if not isinstance(answer, dict) or set(answer) != {'id', 'scores'}:
      raise ValueError(
        f'{where}: {line[:_SHOWN]!r} is not {{"id": ..., "scores": [...]}}'
      )
    number, values = answer['id'], answer['scores']
    if isinstance(number, bool) or not isinstance(number, int) or number not in pending:
      known = ', '.join(map(str, pending))
      raise ValueError(
        f'{where}: no request waits under the id {number!r}, only under {known}. Give '
        "each request one answer, with the request's id"
      )
    request = pending[number]
    if not isinstance(values, list) or len(values) != len(request.rows):
      count = len(values) if isinstance(values, list) else repr(values)
      raise ValueError(
        f'{where}: {count} scores for the {len(request.rows)} rows of request '
        f'{number}: give one score for each row, in their order'
      )
    for place, value in zip(request.rows, values, strict=True):
      if not _is_finite(value):
        raise ValueError(
          f'{where}: the score {value!r} of row {place - request.rows[0]} '
          f'({_show(rows[place])}): scores must be finite numbers (float32)'
        )
    del pending[number]
    return request, values

  def _named(self) -> str:
    return f'the scorer {" ".join(self._settings.command)!r}'


@functools.cache
def _conversation(settings: _Settings) -> _Conversation:
  """The one program of these settings; gin makes a scorer object for every stage."""
  return _Conversation(settings)


def _request_line(request: _Request, rows: Sequence[_Row]) -> str:
  parts = [dataclasses.asdict(rows[index]) for index in request.rows]
  return json.dumps({'id': request.id, 'rows': parts})


def _is_finite(value: Any) -> bool:
  if isinstance(value, bool) or not isinstance(value, int | float):
    return False
  return math.isfinite(value) and abs(value) <= _LARGEST


def _show(row: _Row) -> str:
  return f'source {row.source[:_SHOWN]!r}, candidate {row.candidate[:_SHOWN]!r}'

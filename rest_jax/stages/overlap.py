"""Files beside the devices: shards are read ahead and written behind.

A thread of its own reads the next piece of work while the devices are busy with this
one, and another writes what is finished. Both are bounded: the host holds the piece
in work, the one that is read ahead, and what the writer's limit allows.
"""

import collections
import contextlib
import os
import types
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

from rest_jax import paths

Item = TypeVar('Item')
Result = TypeVar('Result')


@contextlib.contextmanager
def read_ahead(
  read: Callable[[Item], Result], items: Iterable[Item], *, ahead: int = 1
) -> Iterator[Iterator[tuple[Item, Result]]]:
  """Reads the next item on another thread while the caller works on this one.

  Let go of each before the next is taken: a variable of the caller's that still holds
  the last one would keep it for longer.

  Args:
    read: called with one item at a time, in order; what it raises is raised where
      its result is taken.
    items: what there is to read; asked for the next when that is about to be read.
    ahead: how many to read ahead; 0 reads each when it is wanted.

  Yields:
    An iterator over the items with their results. The thread ends with the context.
  """
  with futures.ThreadPoolExecutor(1, thread_name_prefix='shard-reader') as pool:
    yield _results(pool, read, items, ahead)


def _results(
  pool: futures.Executor,
  read: Callable[[Item], Result],
  items: Iterable[Item],
  ahead: int,
) -> Iterator[tuple[Item, Result]]:
  begun: collections.deque[tuple[Item, futures.Future[Result]]] = collections.deque()
  for item in items:
    begun.append((item, pool.submit(read, item)))
    if len(begun) > ahead:
      yield _finished(begun)
  while begun:
    yield _finished(begun)


def _finished(
  begun: collections.deque[tuple[Item, futures.Future[Result]]],
) -> tuple[Item, Result]:
  item, future = begun.popleft()
  return item, future.result()


class Writer:
  """Writes shards in order on another thread while the caller goes on.

  A context manager: leaving it, in whatever way, waits until all that was handed over
  is written, and ends the thread. A shard appears complete or not at all as long as
  its own writing is atomic.

  What a write raises is raised by the next `put` that meets it or at the end, as a
  ValueError or OSError where it was one (else as a RuntimeError), with the path in
  front. When the caller is failing anyway, it becomes a note of the caller's error.

  Args:
    limit: the most that may be unwritten, in the unit of `put`'s size; `put` waits
      for that. A shard that is larger alone is taken once nothing else is left.
  """

  def __init__(self, limit: int = 1):
    self._limit = limit
    self._size = 0
    self._pending: collections.deque[
      tuple[paths.PathLike, int, futures.Future[None]]
    ] = collections.deque()
    self._pool = futures.ThreadPoolExecutor(1, thread_name_prefix='shard-writer')

  def put(
    self, path: paths.PathLike, write: Callable[[], None], *, size: int = 1
  ) -> None:
    """Hands over one shard.

    Args:
      path: for the message when it fails.
      write: writes it. The caller must drop its own references to the contents.
      size: what it weighs against the limit.
    """
    while self._pending and (
      self._pending[0][-1].done() or self._size + size > self._limit
    ):
      self._finish_first()
    self._pending.append((path, size, self._pool.submit(write)))
    self._size += size

  def _finish_first(self) -> None:
    """Waits for the oldest; raises what it raised."""
    path, size, future = self._pending.popleft()
    self._size -= size
    error = future.exception()
    if error is not None:
      kinds = (kind for kind in (ValueError, OSError) if isinstance(error, kind))
      kind = next(kinds, RuntimeError)
      raise kind(f'{os.fspath(path)} could not be written: {error}') from error

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: types.TracebackType | None,
  ) -> None:
    self._pool.shutdown(wait=True)
    while self._pending:
      try:
        self._finish_first()
      except Exception as failure:
        if error is None:
          raise
        error.add_note(str(failure))

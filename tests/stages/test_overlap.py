"""Reading ahead and writing behind: bounded, in order, and no error is lost."""

import threading
import time

import pytest

from rest_jax.stages import overlap

SOON = 20.0  # seconds; what must happen happens at once, this only ends a hang


def _threads():
  return [t.name for t in threading.enumerate() if t.name.startswith('shard-')]


def test_the_next_item_is_read_while_the_caller_works_and_no_other():
  read, began = [], [threading.Event() for _ in range(5)]

  def read_one(item):
    read.append(item)
    began[item].set()
    return item * 10

  with overlap.read_ahead(read_one, range(5)) as results:
    for item in range(5):
      assert next(results) == (item, item * 10)
      ahead = min(item + 1, 4)
      assert began[ahead].wait(SOON)
      assert read == list(range(ahead + 1))
    assert next(results, None) is None
  assert not _threads()


def test_nothing_is_read_ahead_where_that_is_not_wanted():
  taken = []

  def items():
    for item in range(3):
      taken.append(item)
      yield item

  with overlap.read_ahead(str, items(), ahead=0) as results:
    for item in range(3):
      assert next(results) == (item, str(item))
      assert taken == list(range(item + 1))
  assert not _threads()


def test_a_read_that_fails_is_raised_where_its_result_is_taken():
  def read_one(item):
    if item == 1:
      raise ValueError('shard 1 is damaged')
    return item

  with overlap.read_ahead(read_one, range(3)) as results:
    assert next(results) == (0, 0)
    with pytest.raises(ValueError, match='shard 1 is damaged'):
      next(results)
  assert not _threads()


def test_the_reader_ends_when_the_caller_fails():
  with (
    pytest.raises(ZeroDivisionError),
    overlap.read_ahead(str, range(3)) as results,
  ):
    next(results)
    raise ZeroDivisionError
  assert not _threads()


class Disk:
  """Writes that wait until they are let through."""

  def __init__(self, waiting=True):
    self.written = []
    self.gate = threading.Event()
    if not waiting:
      self.gate.set()

  def write(self, item, error=None):
    def run():
      assert self.gate.wait(SOON)
      if error is not None:
        raise error
      self.written.append(item)

    return run


def test_the_caller_goes_on_while_shards_are_written_in_order():
  disk = Disk()
  with overlap.Writer(limit=3) as writer:
    for item in range(3):
      writer.put(str(item), disk.write(item))
    assert disk.written == []  # and yet we are here
    disk.gate.set()
  assert disk.written == [0, 1, 2]
  assert not _threads()


@pytest.mark.parametrize(('sizes', 'waits_at'), [((2, 2), 1), ((9, 1), 1), ((1, 2), 2)])
def test_put_waits_at_the_limit_and_takes_a_large_one_alone(sizes, waits_at):
  disk, reached = Disk(), []

  def caller():
    with overlap.Writer(limit=3) as writer:
      for item, size in enumerate((*sizes, 3)):
        writer.put(str(item), disk.write(item), size=size)
        reached.append(item)

  thread = threading.Thread(target=caller)
  thread.start()
  end = time.monotonic() + SOON
  while len(reached) < waits_at and time.monotonic() < end:
    time.sleep(0.001)
  thread.join(0.1)
  assert reached == list(range(waits_at))  # the next one waits
  disk.gate.set()
  thread.join(SOON)
  assert not thread.is_alive()
  assert disk.written == [0, 1, 2] == reached


@pytest.mark.parametrize(
  ('error', 'kind'),
  [
    (ValueError('a source_id occurs twice'), ValueError),
    (OSError(28, 'No space left on device'), OSError),
    (KeyError('tokens'), RuntimeError),
  ],
)
def test_a_write_that_fails_is_raised_with_the_name_of_its_shard(error, kind):
  disk = Disk()
  with (
    pytest.raises(kind, match=r'groups-1 could not be written: .*[a-z]') as raised,
    overlap.Writer(limit=3) as writer,
  ):
    for item in range(3):
      writer.put(f'groups-{item}', disk.write(item, error if item == 1 else None))
    disk.gate.set()
  assert raised.value.__cause__ is error
  assert disk.written == [0, 2]  # whatever was handed over and can be written is
  assert not _threads()


def test_a_failure_meets_the_caller_at_the_next_shard_and_not_only_at_the_end():
  disk, reached = Disk(waiting=False), []
  with (
    pytest.raises(ValueError, match='groups-0 could not'),
    overlap.Writer(limit=1) as writer,
  ):
    for item in range(3):
      writer.put(f'groups-{item}', disk.write(item, ValueError('no')))
      reached.append(item)
  assert reached == [0]


def test_what_was_handed_over_is_written_when_the_caller_fails():
  disk = Disk()
  with (
    pytest.raises(KeyboardInterrupt) as raised,
    overlap.Writer(limit=2) as writer,
  ):
    writer.put('groups-0', disk.write(0, ValueError('no')))
    writer.put('groups-1', disk.write(1))
    disk.gate.set()
    raise KeyboardInterrupt
  assert disk.written == [1]
  assert raised.value.__notes__ == ['groups-0 could not be written: no']
  assert not _threads()

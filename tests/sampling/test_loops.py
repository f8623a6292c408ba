"""Iterators side by side: all that they yield, what they raise, and how they end."""

import threading

import pytest

from rest_jax.sampling import loops


def _names():
  return [thread.name for thread in threading.enumerate()]


def test_all_items_of_all_come_in_the_order_of_each():
  found = list(loops.side_by_side([iter(range(0, 9, 3)), iter('ab'), iter(())]))
  assert len(found) == 5
  assert [x for x in found if isinstance(x, int)] == [0, 3, 6]
  assert [x for x in found if isinstance(x, str)] == ['a', 'b']


def test_they_run_at_the_same_time():
  both = threading.Barrier(2, timeout=30)

  def items():
    for number in range(4):
      both.wait()  # passes only when the other is here too
      yield number

  assert sorted(loops.side_by_side([items(), items()])) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_each_is_one_item_ahead_of_the_caller():
  made = [0, 0]

  def items(place):
    for _ in range(50):
      made[place] += 1
      yield place

  taken = [0, 0]
  for place in loops.side_by_side([items(0), items(1)]):
    taken[place] += 1
    assert made[place] <= taken[place] + 1
  assert taken == made == [50, 50]


def test_what_one_raises_is_raised_and_no_thread_is_left():
  def broken():
    yield 1
    raise ValueError('no such source')

  def endless():
    while True:
      yield 0

  with pytest.raises(ValueError, match='no such source'):
    for _ in loops.side_by_side([endless(), broken()]):
      pass
  assert not [name for name in _names() if name.startswith('loop')]


def test_a_caller_that_stops_leaves_no_thread():
  def endless():
    while True:
      yield threading.current_thread().name

  found = loops.side_by_side([endless(), endless()])
  assert next(found).startswith('loop')
  found.close()
  assert not [name for name in _names() if name.startswith('loop')]


def test_one_runs_in_the_thread_of_the_caller():
  def names():
    yield threading.current_thread().name

  assert list(loops.side_by_side([names()])) == [threading.current_thread().name]

"""Progress where there is no terminal: plain lines with rate and time left."""

import types

import pytest

from rest_jax.stages import progress


@pytest.fixture
def clock(monkeypatch):
  """Seconds that pass when the test says so."""
  state = types.SimpleNamespace(now=50.0)
  fake = types.SimpleNamespace(monotonic=lambda: state.now)
  monkeypatch.setattr(progress, 'time', fake)
  return state


def test_plain_lines_have_rate_time_left_and_note(clock, capsys):
  with progress.progress('grow_1', 1000, unit='samples', period_s=10) as advance:
    clock.now += 4
    advance(100)  # too early for a line
    clock.now += 6
    advance(100, note='shard 2')
    clock.now += 10
    advance(800)
  assert capsys.readouterr().err.splitlines() == [
    'grow_1: 200/1,000 samples, 20 samples/s, 40 s left, shard 2',
    'grow_1: 1,000/1,000 samples, 50 samples/s, 0 s left, shard 2',
    'grow_1: 1,000/1,000 samples, 50 samples/s, 20.0 s, shard 2',
  ]


def test_what_an_earlier_attempt_did_is_not_in_the_rate(clock, capsys):
  with progress.progress('bc', 100, unit='steps', done=60, period_s=1) as advance:
    clock.now += 5
    advance(20)
  first = capsys.readouterr().err.splitlines()[0]
  assert first == 'bc: 80/100 steps, 4 steps/s, 5 s left'


def test_no_line_at_the_end_of_work_that_failed(clock, capsys):
  with (
    pytest.raises(ZeroDivisionError),
    progress.progress('bc', 10, unit='steps') as advance,
  ):
    advance(1)
    raise ZeroDivisionError
  assert capsys.readouterr().err == ''

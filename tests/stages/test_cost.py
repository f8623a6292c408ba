"""Cost: measured or None, and summed over the attempts that a stage took."""

import types

from rest_jax.stages import cost


class Clock:
  """Stands in for `time`: seconds that pass when the test says so."""

  def __init__(self, monkeypatch):
    self.now = 100.0
    fake = types.SimpleNamespace(monotonic=lambda: self.now)
    monkeypatch.setattr(cost, 'time', fake)


def test_seconds_and_device_seconds_add_up_over_attempts(monkeypatch):
  clock = Clock(monkeypatch)
  first = cost.Meter(4)
  clock.now += 2
  with first.devices():
    clock.now += 3
  found = first.cost()
  assert (found.seconds, found.device_seconds, found.attempts) == (5, 12, 1)
  second = cost.Meter(4, found)
  with second.devices():
    clock.now += 1
  found = second.cost()
  assert (found.seconds, found.device_seconds, found.attempts) == (6, 16, 2)


def test_device_time_counts_when_the_work_fails(monkeypatch):
  clock = Clock(monkeypatch)
  meter = cost.Meter(1)
  try:
    with meter.devices():
      clock.now += 3
      raise KeyboardInterrupt
  except KeyboardInterrupt:
    pass
  assert meter.cost().device_seconds == 3


def test_peak_memory_is_the_largest_of_all_attempts(monkeypatch):
  monkeypatch.setattr(cost, '_peak_memory_bytes', lambda: 700)
  assert cost.Meter(1).cost().peak_memory_bytes == 700
  assert cost.Meter(1, cost.Cost(peak_memory_bytes=900)).cost().peak_memory_bytes == 900
  monkeypatch.setattr(cost, '_peak_memory_bytes', lambda: None)
  assert cost.Meter(1).cost().peak_memory_bytes is None


def test_counts_are_the_last_said_and_add_up_over_attempts():
  first = cost.Meter(1)
  first.count(steps=3, rows=12)
  first.count(steps=5, rows=20)
  found = first.cost()
  assert found.counts == {'steps': 5, 'rows': 20}
  second = cost.Meter(4, found)
  second.count(steps=2)
  assert second.cost().counts == {'steps': 7, 'rows': 20}
  assert found.counts == {'steps': 5, 'rows': 20}


def _energy(monkeypatch, *readings, previous=None):
  left = iter(readings)
  monkeypatch.setattr(cost, '_energy_joules', lambda: next(left))
  return cost.Meter(1, previous).cost().energy_joules


def test_energy_is_summed_or_unknown_and_never_guessed(monkeypatch):
  assert _energy(monkeypatch, 10.0, 12.5) == 2.5
  earlier = cost.Cost(energy_joules=4.0, attempts=1)
  assert _energy(monkeypatch, 10.0, 12.5, previous=earlier) == 6.5
  assert _energy(monkeypatch, None, None) is None
  assert _energy(monkeypatch, 10.0, 3.0) is None  # the counter wrapped around
  unknown = cost.Cost(energy_joules=None, attempts=1)
  assert _energy(monkeypatch, 10.0, 12.5, previous=unknown) is None


def test_hosts_work_at_the_same_time_and_on_devices_of_their_own():
  one = cost.Cost(5.0, 4.0, 700, 10.0, 1, {'rows': 3})
  two = cost.Cost(6.0, 1.0, 900, 2.0, 2, {'rows': 4, 'steps': 1})
  assert cost.total([one, two]) == cost.Cost(
    6.0, 5.0, 900, 12.0, 2, {'rows': 7, 'steps': 1}
  )
  assert cost.total([one, cost.Cost()]).energy_joules is None

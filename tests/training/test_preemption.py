"""SIGTERM stops at once outside training, and after a checkpoint inside."""

import os
import signal

import pytest

from rest_jax.training import hosts, preemption


@pytest.fixture(autouse=True)
def own_handler():
  before = signal.getsignal(signal.SIGTERM)
  preemption.install()
  yield
  signal.signal(signal.SIGTERM, before)
  preemption._requested.clear()


def test_outside_training_the_signal_stops_at_once():
  with pytest.raises(preemption.Stopped):
    os.kill(os.getpid(), signal.SIGTERM)


def test_inside_it_is_noted_and_stops_at_the_end():
  done = []
  assert not hosts.must_stop(1)
  with pytest.raises(preemption.Stopped):
    with preemption.deferred():
      os.kill(os.getpid(), signal.SIGTERM)
      assert preemption.requested() and hosts.must_stop(2)
      done.append('checkpoint')
  assert done == ['checkpoint']
  assert preemption.STATUS == 143


def test_on_the_way_out_a_second_signal_is_not_heard():
  with pytest.raises(preemption.Stopped):
    os.kill(os.getpid(), signal.SIGTERM)
  preemption.ignore()
  os.kill(os.getpid(), signal.SIGTERM)

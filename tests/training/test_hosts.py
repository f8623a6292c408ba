"""How a host ends: with what another has said before, and with which status."""

import json
import sys
import types

import jax
import pytest

from rest_jax.training import hosts


class Store:
  """The key-value store of the first host, in this process."""

  def __init__(self, values):
    self.values = values

  def key_value_set(self, key, value):
    if key in self.values:
      raise jax.errors.JaxRuntimeError('ALREADY_EXISTS')
    self.values[key] = value

  def key_value_try_get(self, key):
    if key not in self.values:
      raise jax.errors.JaxRuntimeError('NOT_FOUND')
    return self.values[key]


def end(monkeypatch, values, *arguments):
  """Ends this host; returns its exit status."""
  this = types.SimpleNamespace(
    client=Store(values), close=lambda: None, name=lambda host: f'{host} (here)'
  )
  monkeypatch.setattr(hosts, '_hosts', this)
  monkeypatch.setattr(hosts, 'FAREWELL_S', 0.0)
  monkeypatch.setattr(hosts.os, '_exit', sys.exit)
  with pytest.raises(SystemExit) as left:
    hosts.end_all(*arguments, details='a trace')
  return left.value.code


def test_the_first_to_end_says_why(monkeypatch, capsys):
  values = {}
  assert end(monkeypatch, values, 'no more', 143) == 143
  said = json.loads(values['rest_jax/end'])
  assert said == {'message': 'host 0 (here): no more', 'status': 143}
  assert capsys.readouterr().err == 'a trace\n'


def test_what_comes_of_another_hosts_end_is_not_its_reason(monkeypatch, capsys):
  said = json.dumps({'message': 'host 1 was told to stop', 'status': 143})
  values = {'rest_jax/end': said}
  assert end(monkeypatch, values, 'connection closed', hosts.LOST) == 143
  assert values == {'rest_jax/end': said}
  assert capsys.readouterr().err == '\nhost 1 was told to stop\n'


@pytest.mark.parametrize(
  'error',
  [
    jax.errors.JaxRuntimeError(
      'UNKNOWN: Gloo all-reduce failed: Read error [127.0.0.1]:8349: Connection reset'
    ),
    jax.errors.JaxRuntimeError('UNAVAILABLE: TPU initialization failed'),
    ConnectionResetError('the object store'),
    TimeoutError('the hosts did not come together'),
    ValueError('UNKNOWN: Gloo AllGather failed: Connection closed by peer'),
  ],
)
def test_what_is_lost_may_come_back(error):
  assert hosts.status_of(error) == hosts.LOST == 75


@pytest.mark.parametrize(
  'error',
  [
    jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes'),
    jax.errors.JaxRuntimeError('INVALID_ARGUMENT: Executable expected 2 arguments'),
    ValueError('THRESHOLDS must rise'),
    ValueError('the thresholds are UNKNOWN: name them'),
    FileNotFoundError('train.de.gz'),
  ],
)
def test_what_would_fail_again_is_a_mistake(error):
  assert hosts.status_of(error) == hosts.FAILED == 1

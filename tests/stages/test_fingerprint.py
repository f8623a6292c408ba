"""Fingerprints: stable descriptions, and differences that a person can read."""

import dataclasses
import functools
import math
import subprocess
import sys

import numpy as np
import pytest

from rest_jax.rewards import normalisers
from rest_jax.stages import fingerprint


@dataclasses.dataclass(frozen=True)
class Shape:
  width: int
  names: tuple[str, ...] = ('a',)


class WithIdentity:
  def __init__(self, value):
    self._value = value

  def identity(self):
    return {'value': self._value}


def test_what_a_stage_takes_becomes_json():
  described = fingerprint.describe(
    {
      'shape': Shape(3),
      'identity': WithIdentity((1, None)),
      'fit': normalisers.EmpiricalCdf.fit,
      'partial': functools.partial(math.floor, 2.5),
      'array': np.array([1.5, 2.0], np.float32),
      'scalar': np.int64(7),
      'infinite': float('inf'),
      'set': {'b', 'a'},
    }
  )
  assert described == {
    'shape': {'type': f'{__name__}.Shape', 'width': 3, 'names': ['a']},
    'identity': {'type': f'{__name__}.WithIdentity', 'value': [1, None]},
    'fit': 'rest_jax.rewards.normalisers.EmpiricalCdf.fit',
    'partial': {'partial': 'math.floor', 'args': [2.5], 'keywords': {}},
    'array': [1.5, 2.0],
    'scalar': 7,
    'infinite': 'inf',
    'set': ['a', 'b'],
  }


@pytest.mark.parametrize('value', [lambda x: x, object()])
def test_what_changes_from_run_to_run_is_refused(value):
  with pytest.raises(TypeError, match='no stable description'):
    fingerprint.describe({'a': [value]})


def test_a_fingerprint_ignores_the_order_of_keys_and_nothing_else():
  one = fingerprint.fingerprint({'a': 1, 'b': [1, 2]})
  assert one == fingerprint.fingerprint({'b': [1, 2], 'a': 1})
  assert len(one) == 64
  for other in ({'a': 1, 'b': [2, 1]}, {'a': 1.5, 'b': [1, 2]}, {'a': 1}):
    assert fingerprint.fingerprint(other) != one


def test_another_process_makes_the_same_fingerprint():
  program = (
    'from rest_jax.stages import fingerprint as f;'
    'print(f.fingerprint(f.describe({"x": {"q", "w", "e"}, "y": (1, 2.5)})))'
  )
  there = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, check=True
  ).stdout.strip()
  value = {'x': {'e', 'q', 'w'}, 'y': [1, 2.5]}
  assert there == fingerprint.fingerprint(fingerprint.describe(value))


def test_differences_name_the_path_and_both_values():
  old = {'params': {'seed': 0, 'steps': 5}, 'version': 1}
  new = {'params': {'seed': 0, 'steps': 6, 'rate': 0.1}, 'version': 1}
  assert fingerprint.differences(old, new) == [
    'params.rate was None and is 0.1',
    'params.steps was 5 and is 6',
  ]
  assert fingerprint.differences(old, old) == []

"""Grow's `quantisation`: in the fingerprint when it is on, and not otherwise."""

import types

import pytest

from rest_jax.models import quantisation
from rest_jax.stages import fingerprint, grow


class Recorder:
  """Stands for a run: hands back what decides the artifact."""

  def stage(self, stage, *, params, **_):
    return params


def _params(**options):
  corpus = types.SimpleNamespace(finished=False)
  return grow.grow(
    Recorder(),
    name='grow_1',
    corpus=corpus,
    policy=corpus,
    task_feature_lengths={'inputs': 8, 'targets': 8},
    **options,
  )


def test_fingerprints_without_it_stay_what_they_were():
  assert _params().keys() == {
    'split',
    'grow_step',
    'num_samples',
    'num_sources',
    'target_length',
    'decoding',
    'with_data',
    'seed',
  }
  assert _params(quantisation=None) == _params()


@pytest.mark.parametrize('inputs', [False, True])
def test_it_decides_the_samples(inputs):
  params = _params(quantisation=quantisation.Int8(inputs=inputs))
  assert fingerprint.describe(params.pop('quantisation')) == {
    'type': 'rest_jax.models.quantisation.Int8',
    'inputs': inputs,
  }
  assert params == _params()


def test_bfloat16_decides_the_samples():
  params = _params(quantisation=quantisation.Bfloat16())
  assert fingerprint.describe(params.pop('quantisation')) == {
    'type': 'rest_jax.models.quantisation.Bfloat16'
  }
  assert params == _params()

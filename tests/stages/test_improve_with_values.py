"""Improve by the losses that read a value model, on the smallest run."""

import numpy as np
import pytest

from tests import minimal_run

OAC = 'gin_configs/experiments/losses/oac.gin'
BVMPO = 'gin_configs/experiments/losses/bvmpo.gin'
BINDINGS = (
  'THRESHOLDS = ((0.6,),)',
  'VALUE_STEPS = 2',
  'IMPROVE_STEPS = 2',
  'value/optimiser.Adafactor.warmup_steps = 1',
  'train_value.train_value.num_eval_sources = 12',
  'train_value.train_value.held_out_fraction = 0.3',
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  return minimal_run.finished(tmp_path_factory)


@pytest.fixture(scope='module')
def with_oac(finished, tmp_path_factory):
  """The MODEL_DIR of a run whose Improve is OAC, up to it, and a report of BC."""
  model_dir = tmp_path_factory.mktemp('oac') / 'run'
  reuse = f'REUSE_FROM = ({str(finished)!r},)'
  for mode in ('train_value', 'improve', 'report'):
    minimal_run.start(model_dir, mode, [*BINDINGS, reuse], files=[OAC])
  return model_dir


def _moved(finished, model_dir):
  start = minimal_run.params(finished, 'bc')
  end = minimal_run.params(model_dir, 'improve_1_1')
  assert start.keys() == end.keys()
  return any((start[key] != end[key]).any() for key in start)


def test_a_run_with_a_value_model_reports_it(with_oac, finished):
  summary = minimal_run.summary(with_oac)
  (value_model,) = summary['value_models']
  assert value_model['name'] == 'value_1' and value_model['grow'] == 1
  for side in ('train', 'held_out'):
    assert np.isfinite(value_model[side]['explained_variance'])
    assert -1 <= value_model[side]['last']['kendall'] <= 1
  record = minimal_run.record(with_oac, 'improve_1_1')
  assert record['results']['loss_name'] == 'OAC'
  assert record['input_names']['value_model'] == 'value_1'
  assert 'reference_policy' not in record['inputs']
  assert record['results']['curves']['advantage']['values']
  page = (with_oac / 'report' / 'report.html').read_text()
  assert 'Value functions' in page
  assert 'Value functions' not in (finished / 'report' / 'report.html').read_text()


def test_bvmpo_reads_values_and_the_bc_policy(with_oac, finished, tmp_path):
  reuse = f'REUSE_FROM = ({str(finished)!r}, {str(with_oac)!r})'
  minimal_run.start(tmp_path, 'improve', [*BINDINGS, reuse], files=[BVMPO])
  record = minimal_run.record(tmp_path, 'improve_1_1')
  names = {
    key: record['input_names'][key] for key in ('value_model', 'reference_policy')
  }
  assert names == {'value_model': 'value_1', 'reference_policy': 'bc'}
  assert record['results']['loss_name'] == 'BVMPO'
  # What is kept may be the start; then no later step had a higher reward.
  assert _moved(finished, tmp_path) is (record['results']['best_step'] > 0)


@pytest.mark.parametrize(('name', 'file'), [('OAC', OAC), ('BVMPO', BVMPO)])
def test_without_a_value_model_improve_says_what_to_do(name, file, finished, tmp_path):
  without = tmp_path / 'without.gin'
  without.write_text(
    'from __gin__ import dynamic_registration\n'
    'from rest_jax import rest\n'
    'rest.rest.train_value = None\n'
  )
  bindings = ['THRESHOLDS = ((0.6,),)', f'REUSE_FROM = ({str(finished)!r},)']
  with pytest.raises(ValueError, match=rf'{name} needs a value_model.*value\.gin'):
    minimal_run.start(tmp_path / 'run', bindings=bindings, files=[file, str(without)])

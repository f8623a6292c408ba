"""Improve with other losses and filters, on the smallest run there is."""

import numpy as np
import pytest

from rest_jax.data import reward_store
from tests import minimal_run


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  return minimal_run.finished(tmp_path_factory)


def _improve(finished, model_dir, files, *bindings):
  given = [f'REUSE_FROM = ({str(finished)!r},)', *bindings]
  files = [f'gin_configs/experiments/{file}.gin' for file in files]
  minimal_run.start(model_dir, 'improve', given, files=files)
  return minimal_run.record(model_dir, 'improve_1_1')


def test_gold_on_a_quantile_of_this_grow(finished, tmp_path):
  record = _improve(
    finished,
    tmp_path,
    ['losses/gold_s', 'filters/global_quantile'],
    'THRESHOLDS = ((0.75,),)',
  )
  assert record['input_names']['reference_policy'] == 'bc'
  assert record['results']['loss_name'] == 'GOLD'
  assert {'loss', 'return'} <= set(record['results']['curves'])
  rewards = np.concatenate(
    [
      values
      for _, path in reward_store.paired_shards(
        finished / 'grow_1', finished / 'score_1'
      )
      for values in reward_store.read_rewards(path).for_training()
    ]
  )
  # The ceil(0.75 n)-th smallest is the threshold, and what equals it goes.
  tau = np.sort(rewards)[int(np.ceil(0.75 * len(rewards))) - 1]
  assert record['results']['filter']['kept_candidates'] == (rewards > tau).sum()
  moved = minimal_run.params(tmp_path, 'improve_1_1')
  start = minimal_run.params(finished, 'bc')
  assert set(moved) == set(start)


def test_bc_does_not_depend_on_the_models_that_it_does_not_need(finished):
  names = minimal_run.record(finished, 'improve_1_1')['input_names']
  assert 'reference_policy' not in names and 'value_model' not in names


def test_pairs_need_rows_that_hold_a_group(finished, tmp_path):
  with pytest.raises(ValueError, match=r'DPO compares .* keeps up to 4, .* row holds'):
    _improve(
      finished,
      tmp_path,
      ['losses/dpo'],
      'THRESHOLDS = ((50,),)',
      'ROW_SAMPLES = 3',
    )


def test_a_loss_without_its_value_model_says_how_to_get_one(finished, tmp_path):
  with pytest.raises(ValueError, match=r'OAC needs a value_model.*value\.gin'):
    _improve(
      finished,
      tmp_path,
      ['losses/oac'],
      'rest.rest.train_value = None',
    )

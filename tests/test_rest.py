"""Algorithm 1 from the corpus to the report, at the smallest size."""

import json
import re
import shutil

import numpy as np
import pytest

from rest_jax import main, rest
from rest_jax.data import group_store, reward_store, shards
from rest_jax.stages import policies
from tests import minimal_run

pytestmark = pytest.mark.slow  # the run that all look at

STAGES = {
  'corpus': 'ingest',
  'bc': 'supervise',
  'rating_samples': 'grow',
  'ratings': 'score',
  'reward_model': 'train_reward',
  'grow_1': 'grow',
  'score_1': 'score',
  'improve_1_1': 'improve',
  'improve_1_2': 'improve',
  'grow_2': 'grow',
  'score_2': 'score',
  'improve_2_1': 'improve',
  'evaluate_bc': 'evaluate',
  'evaluate_improve_1_1': 'evaluate',
  'evaluate_improve_1_2': 'evaluate',
  'evaluate_improve_2_1': 'evaluate',
}
FIGURES = ('reward_mean', 'gold_mean', 'bleu', 'chrf', 'kl_to_bc')
MONITORS = (
  'length_ratio',
  'distinct_1',
  'distinct_2',
  'distinct_3',
  'copy_rate',
  'repetition_rate',
)
INTERVALS = tuple(name.removesuffix('_mean') for name in FIGURES[:4])


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  return minimal_run.finished(tmp_path_factory)


def _reuse(model_dir):
  return f'REUSE_FROM = ({str(model_dir)!r},)'


def test_the_summary_has_every_policy_in_order(finished):
  rows = minimal_run.summary(finished)['policies']
  assert [row['name'] for row in rows] == [
    'BC (G=0, I=0)',
    'ReST (G=1, I=1)',
    'ReST (G=1, I=2)',
    'ReST (G=2, I=1)',
  ]
  assert [(row['grow'], row['improve']) for row in rows] == [
    (0, 0),
    (1, 1),
    (1, 2),
    (2, 1),
  ]
  assert [row['threshold'] for row in rows] == [None, 0.6, 0.7, 0.7]
  assert [row['loss'] for row in rows] == ['BC'] * 4
  assert rows[0]['kept_fraction'] is None
  corpus = minimal_run.record(finished, 'corpus')['results']
  sources = corpus['splits']['test']['sources']
  # A higher threshold on the same D_g keeps no more.
  assert 1 > rows[1]['kept_fraction'] >= rows[2]['kept_fraction'] > 0
  for row in rows:
    for name in (*FIGURES, *MONITORS):
      assert np.isfinite(row[name]), (row['name'], name)
    for name in INTERVALS:
      low, high = row[f'{name}_interval']
      assert low <= high
    assert row['kl_interval'][0] <= row['kl_to_bc'] <= row['kl_interval'][1]
    assert 0 <= row['reward_mean'] <= 1 and 0 <= row['copy_rate'] <= 1
    assert row['num_sources'] == sources and row['num_samples'] == 2 * sources


def test_the_summary_says_what_each_filter_kept(finished):
  for grow in minimal_run.summary(finished)['grows']:
    directories = (finished / f'{kind}_{grow["grow"]}' for kind in ('grow', 'score'))
    rewards, lengths = [], []
    for group_path, reward_path in reward_store.paired_shards(*directories):
      rewards += reward_store.read_rewards(reward_path).for_training()
      groups = group_store.read_groups(group_path)
      lengths += [np.array([len(tokens) for tokens in g.tokens]) for g in groups]
    for row in grow['thresholds']:
      keep = [values > np.float32(row['threshold']) for values in rewards]
      kept = [n[k].sum() for n, k in zip(lengths, keep, strict=True)]
      assert 0 < row['kept_tokens'] == sum(kept) < row['tokens']
      assert row['tokens'] == sum(n.sum() for n in lengths)
      left = sum(k.any() for k in keep)
      assert row['sources_left'] == left
      assert row['emptied_sources'] == len(keep) - left


def test_divergence_from_bc_is_0_for_bc_and_for_no_trained_policy(finished):
  first, *others = minimal_run.summary(finished)['policies']
  assert first['kl_to_bc'] == 0 and first['kl_interval'] == [0, 0]
  for row in others:
    start = minimal_run.params(finished, 'bc')
    moved = minimal_run.params(finished, row['artifact'])
    same = all(np.array_equal(start[key], moved[key]) for key in start)
    assert (row['kl_to_bc'] > 0) is not same


def test_the_summary_has_the_cost_of_every_stage(finished):
  summary = minimal_run.summary(finished)
  assert {stage['name']: stage['stage'] for stage in summary['stages']} == STAGES
  for stage in summary['stages']:
    assert stage['seconds'] >= stage['device_seconds'] >= 0
    assert stage['peak_memory_bytes'] is None or stage['peak_memory_bytes'] > 0
    assert 'energy_joules' in stage and stage['reused'] is False
  trained = {s['name'] for s in summary['stages'] if s['device_seconds'] > 0}
  assert {'bc', 'reward_model', 'grow_1', 'improve_1_1', 'evaluate_bc'} <= trained


def test_the_summary_has_the_settings(finished):
  settings = minimal_run.summary(finished)['settings']
  assert settings['seed'] == 0
  assert {'python', 'jax', 'flax', 'optax'} <= set(settings['versions'])
  assert settings['devices'] and settings['device_count'] >= 1


def test_grow_unites_samples_and_data(finished):
  results = minimal_run.record(finished, 'grow_1')['results']
  assert results['sources'] == 24
  assert results['candidates'] == 24 * 3 and results['data_candidates'] == 24


def test_the_report_is_one_file_that_needs_no_other(finished):
  page = (finished / 'report' / 'report.html').read_text()
  assert 'ReST (G=2, I=1)' in page
  for tag in re.findall(r'<(?:script|link|img|iframe)\b[^>]*>', page):
    assert not re.search(r'(?:src|href)=["\'](?!data:|#)', tag), tag
  assert not re.search(r'url\((?!["\']?(?:data:|#))|@import', page)


def test_a_second_start_reuses_everything(finished, tmp_path, capsys):
  copy = tmp_path / 'copy'
  shutil.copytree(finished, copy)
  before = {p: p.stat().st_mtime_ns for p in copy.glob('*/stage.json')}
  printed = minimal_run.start(copy)
  assert 'ReST (G=2, I=1)' in printed
  told = capsys.readouterr().err
  for name in STAGES:
    assert f'{name}: reused' in told and f'{name}: started' not in told
  for path, time in before.items():
    assert (path.stat().st_mtime_ns == time) is (path.parent.name != 'report')
  assert all(stage['reused'] for stage in minimal_run.summary(copy)['stages'])
  rows = minimal_run.summary(copy)['policies']
  assert rows == minimal_run.summary(finished)['policies']


def test_a_changed_setting_in_the_same_directory_is_refused(finished):
  before = minimal_run.fingerprints(finished)
  with pytest.raises(ValueError, match=r'params.num_steps was 10 and is 11'):
    minimal_run.start(finished, bindings=['TRAIN_STEPS = 11'])
  assert minimal_run.fingerprints(finished) == before


def test_a_sweep_shares_what_has_not_changed(finished, tmp_path, capsys):
  bindings = [_reuse(finished), 'THRESHOLDS = ((0.6, 0.75),)']
  minimal_run.start(tmp_path, bindings=bindings)
  told = capsys.readouterr().err
  for name in ('corpus', 'bc', 'reward_model', 'grow_1', 'improve_1_1', 'evaluate_bc'):
    assert f'{name}: reused' in told and not (tmp_path / name).exists()
  assert {path.parent.name for path in tmp_path.glob('*/stage.json')} == {
    'improve_1_2',
    'evaluate_improve_1_2',
    'report',
  }
  assert [row['threshold'] for row in minimal_run.summary(tmp_path)['policies']] == [
    None,
    0.6,
    0.75,
  ]


def test_a_reward_model_of_fewer_bits_scores_nearly_alike(finished, tmp_path):
  overlay = tmp_path / 'fewer.gin'
  overlay.write_text(
    'from __gin__ import dynamic_registration\n'
    'from rest_jax.models import quantisation\n'
    'from rest_jax.stages import score\n'
    'score.score.quantisation = @quantisation.Bfloat16()\n'
  )
  run = tmp_path / 'run'
  minimal_run.start(run, 'score', [_reuse(finished)], files=[overlay])
  assert not (run / 'ratings').exists()  # their scorer does not read it
  kept = minimal_run.record(finished, 'score_1')['params']
  assert minimal_run.record(run, 'score_1')['params'] == kept | {
    'quantisation': {'type': 'rest_jax.models.quantisation.Bfloat16'}
  }
  fewer, plain = (
    np.concatenate(
      [
        rewards
        for path in shards.list_shards(folder / 'score_1', reward_store.KIND)
        for rewards in reward_store.read_rewards(path).rewards
      ]
    )
    for folder in (run, finished)
  )
  assert not np.array_equal(fewer, plain)
  # On Multi30k it is 0.003 of the deviation (benchmarks/README.md).
  assert np.sqrt(np.mean((fewer - plain) ** 2)) < 0.05 * np.std(plain)


def test_run_modes_one_after_the_other_do_the_same(finished, tmp_path):
  # 'supervise' ingests, too; the other modes are of stages that this run has not.
  modes = (
    'supervise',
    'train_reward',
    'grow',
    'score',
    'improve',
    'evaluate',
    'report',
  )
  assert set(modes) < set(main.RUN_MODES)
  for _ in range(3):  # Grow 2 follows the Improve steps of Grow 1
    for mode in modes:
      minimal_run.start(tmp_path, mode)
    if (tmp_path / 'evaluate_improve_2_1').exists():
      break
  assert minimal_run.fingerprints(tmp_path) == minimal_run.fingerprints(finished)
  for name in minimal_run.POLICIES:
    one = minimal_run.params(finished, name)
    two = minimal_run.params(tmp_path, name)
    assert all(np.array_equal(one[key], two[key]) for key in one), name
  rows = minimal_run.summary(tmp_path)['policies']
  assert rows == minimal_run.summary(finished)['policies']


def test_a_mode_that_comes_too_early_names_what_comes_first(tmp_path):
  with pytest.raises(ValueError, match=r'corpus \(ingest\), bc \(supervise\)'):
    minimal_run.start(tmp_path, 'grow')


def test_a_mode_that_the_run_has_no_stage_for_says_so(tmp_path):
  with pytest.raises(ValueError, match=r'no stage of the kind.*best_of_n\.gin'):
    minimal_run.start(tmp_path, 'best_of_n')


@pytest.mark.parametrize(
  ('thresholds', 'told'),
  [
    (((0.8, 0.7),), r'must rise .* \(0.7, 0.8\) would work'),
    (((0.7, 0.7),), r'must rise .* \(0.7,\) would work'),
    ((), 'one row for each Grow'),
  ],
)
def test_thresholds_that_cannot_be_right_are_refused_before_any_work(thresholds, told):
  with pytest.raises(ValueError, match=told):
    rest.check_thresholds(thresholds)


@pytest.mark.parametrize(
  ('threshold', 'told'), [(0.05, 'must exceed the mean reward'), (1.0, 'keeps nothing')]
)
def test_a_threshold_that_does_not_suit_the_rewards(
  finished, tmp_path, threshold, told
):
  bindings = [_reuse(finished), f'THRESHOLDS = (({threshold},),)']
  with pytest.raises(ValueError, match=told) as error:
    minimal_run.start(tmp_path, bindings=bindings)
  found = re.search(r'Choose tau with ([\d.]+) < tau < ([\d.]+)', str(error.value))
  results = minimal_run.record(finished, 'score_1')['results']
  # Both are printed with six digits.
  assert float(found[1]) == pytest.approx(results['mean_reward'], rel=1e-5)
  assert float(found[2]) == pytest.approx(results['max_reward'], rel=1e-5)


def test_a_reward_below_its_minimum_is_not_grown_on():
  called = []

  def stage(name):
    def call(run, **inputs):
      called.append(name)
      return name, inputs

    return call

  def refuse(run, *, corpus, policy, reward_model):
    assert (corpus[0], policy[0], reward_model[0]) == ('ingest', 'supervise', 'train')
    raise ValueError('copied_source')

  before = ('ingest', 'supervise', 'sample_to_rate', 'rate')
  stages = {name: stage(name) for name in (*before, 'grow', 'score', 'report')}
  stages |= {name: stage(name) for name in ('improve', 'evaluate')}
  stages |= {'train_reward': stage('train'), 'thresholds': ((),)}
  with pytest.raises(ValueError, match='copied_source'):
    rest.rest(None, **stages, probe=refuse)
  assert called == [*before, 'train']


def test_a_vocabulary_larger_than_the_embedding_is_named(finished, tmp_path):
  bindings = [_reuse(finished), 't5.T5Config.vocab_size = 200']
  with pytest.raises(ValueError, match=r'vocabulary has 300 .* only 200 rows'):
    minimal_run.start(tmp_path, 'supervise', bindings)


def test_a_checkpoint_of_another_shape_is_named(finished, tmp_path):
  shutil.copytree(finished / 'bc', tmp_path / 'bc')
  file = tmp_path / 'bc' / policies.MODEL_FILE
  file.write_text(json.dumps(json.loads(file.read_text()) | {'mlp_dim': 64}))
  with pytest.raises(ValueError, match=r'wi_0.*\(16, 32\).*\(16, 64\)|wi_0.*64.*32'):
    minimal_run.load_model(tmp_path, 'bc')

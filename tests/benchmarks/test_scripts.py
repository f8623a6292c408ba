"""Every script runs, ours alone, on a tiny random model, and prints what it says."""

import json

import pytest

from benchmarks import (
  grow_fixed,
  grow_natural,
  grow_scaling,
  measuring,
  ours,
  regression_scoring,
  rivals,
  scoring,
)

SHAPE = json.dumps(
  {
    'vocab_size': 50,
    'emb_dim': 16,
    'num_heads': 2,
    'head_dim': 8,
    'mlp_dim': 32,
    'num_encoder_layers': 1,
    'num_decoder_layers': 1,
  }
)
ALONE = ['--rivals', '', '--shape', SHAPE, '--repeats', '2']


def _last_line(capsys):
  return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_fixed(capsys):
  sizes = ['--num_sources', '3', '--num_samples', '4', '--num_tokens', '5']
  rows = grow_fixed.main([*ALONE, *sizes, '--no_memory'])
  assert [row['sampler'] for row in rows] == ['ours']
  assert rows[0]['mean_length'] == 5
  assert rows[0]['unfinished'] == 1
  assert rows[0]['ratio'] == 1
  record = _last_line(capsys)
  assert record['rows'] == rows
  assert {'date', 'device', 'cores', 'versions'} <= set(record)


def test_natural(capsys):
  sizes = ['--num_sources', '6', '--num_samples', '2', '--max_tokens', '5']
  rows = grow_natural.main([*ALONE, *sizes, '--no_memory'])
  (row,) = rows
  assert 1 <= row['mean_length'] <= 5
  assert row['length_deviation'] == 0
  # 50 tokens, nearly uniform: about -log(50) = -3.9 nats.
  assert -6 < row['nats_per_token'] < -2
  assert _last_line(capsys)['rows'] == rows


def test_ours_takes_the_faster_number_of_lanes(capsys, monkeypatch):
  timed = iter([2.0, 1.0])  # of the default's lanes, and of half as many

  def by_the_clock(draw):
    draw()
    return measuring.Turn(next(timed), None)

  monkeypatch.setattr(ours.measuring, 'timed', by_the_clock)
  sampler = ours.OurSampler(ours.random_policy(ours.config_of(SHAPE)))
  sources = ours.random_sources(5, length=4, vocab_size=50)
  limits = rivals.Limits(most=3)
  setting = sampler.tune(sources, num_samples=2, limits=limits)
  assert setting == sampler.setting
  assert setting.startswith('SamplerSettings(batch_size=128,')
  assert len(sampler.sample(sources, num_samples=2, limits=limits)) == 5
  assert next(timed, None) is None
  capsys.readouterr()


def test_fixed_in_fewer_bits_and_loops(capsys):
  sizes = ['--num_sources', '5', '--num_samples', '2', '--num_tokens', '4']
  cut = ['--settings', '{"batch_size": 4, "loops": 2}']
  options = ['--precision', 'bfloat16_weights', '--no_memory']
  rows = grow_fixed.main([*ALONE, *sizes, *cut, *options])
  (row,) = rows
  assert row['sampler'] == 'ours_bfloat16_weights'
  assert row['mean_length'] == 4
  assert row['setting'].startswith('SamplerSettings(batch_size=4,')
  assert row['ceiling_gflops'] > 0
  assert _last_line(capsys)['rows'] == rows


def test_scaling(monkeypatch, capsys):
  # The points in this process: starting one for each would take seconds.
  def here(module, arguments):
    assert module == 'benchmarks.grow_scaling'
    grow_scaling.main(arguments)
    return _last_line(capsys)

  monkeypatch.setattr(grow_scaling.measuring, 'in_child', here)
  varied = ['--num_samples', '2', '4', '--source_length', '4', '--num_sources']
  centre = json.dumps({'num_samples': 2, 'source_length': 4, 'num_sources': 2})
  arguments = [*ALONE[2:], *varied, '--centre', centre, '--num_tokens', '3']
  rows = grow_scaling.main(arguments)
  found = [
    (row['varies'], row['num_samples'], row['source_length'], row['num_sources'])
    for row in rows
  ]
  assert found == [
    ('num_samples', 2, 4, 2),
    ('num_samples', 4, 4, 2),
    ('source_length', 2, 4, 2),
  ]
  for row in rows:
    assert row['process_mb'] > 0
    tokens = row['num_samples'] * row['num_sources'] * 3
    assert row['tokens_per_s'] == pytest.approx(tokens / row['seconds'])


def test_scoring(capsys):
  sizes = ['--num_sources', '4', '--num_samples', '3', '--source_length', '3', '6']
  rows = scoring.main([*ALONE, *sizes])
  (row,) = rows
  assert row['scorer'] == 'ours'
  assert row['largest_difference'] == 0
  assert -6 < row['nats_per_token'] < -2
  assert _last_line(capsys)['rows'] == rows


def test_regression_scoring(capsys):
  sizes = ['--num_texts', '6', '--length', '3', '6', '--token', '48']
  rows = regression_scoring.main([*ALONE, *sizes, '--batch_tokens', '128'])
  (row,) = rows
  assert row['scorer'] == 'ours'
  assert row['largest_difference'] == 0
  record = _last_line(capsys)
  assert record['rows'] == rows
  assert record['question'].startswith('6 texts of ')
  assert record['logits'][0] < record['logits'][1]


@pytest.mark.parametrize('name', ['transformer', 'ctranslate2_int4', ''])
def test_an_unknown_rival_is_refused_with_the_known(name):
  with pytest.raises(ValueError, match=r'known: .*ctranslate2_int8'):
    rivals.make(name, None, None)


@pytest.mark.parametrize('name', ['transformers', 'ctranslate2'])
def test_a_missing_rival_is_named_with_the_remedy(name, monkeypatch):
  def fail(module):
    raise ImportError(f'No module named {module!r}')

  monkeypatch.setattr(rivals.conversions.importlib, 'import_module', fail)
  with pytest.raises(SystemExit, match=r"needs (torch|ctranslate2).*--rivals ''"):
    grow_fixed.main(['--rivals', name, '--shape', SHAPE])

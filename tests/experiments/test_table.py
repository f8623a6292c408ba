"""The table of a study, by hand, and what a policy's training cost."""

import json

import pytest
from etils import epath

from rest_jax.experiments import figure, table


def policy(variant, seed, name, reward, **fields):
  record = {'variant': variant, 'seed': seed, 'name': name, 'grow': 1}
  interval = [reward - 0.02, reward + 0.04]
  record |= {'reward_mean': reward, 'reward_interval': interval}
  return record | {'device_seconds': 10.0} | fields


def rows(lines):
  return [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]


def test_bc_stands_once_and_each_variant_has_its_policies():
  records = [
    policy('A', 0, 'BC (G=0, I=0)', 0.5, grow=0),
    policy('A', 0, 'ReST (G=1, I=1)', 0.6),
    policy('B', 0, 'BC (G=0, I=0)', 0.5, grow=0),
    policy('B', 0, 'ReST (G=1, I=1)', 0.7, bleu=31.25),
    policy('B', 0, 'ReST (G=1, I=2)', 0.8),
  ]
  head, _, *body = rows(table.markdown(['A', 'B'], records, 'all'))
  assert head[:3] == ['variant', 'policy', 'seeds']
  reward, bleu = head.index('reward'), head.index('BLEU')
  assert [row[:3] for row in body] == [
    ['BC', '', '1'],
    ['A', 'ReST (G=1, I=1)', '1'],
    ['B', 'ReST (G=1, I=1)', '1'],
    ['B', 'ReST (G=1, I=2)', '1'],
  ]
  # With one seed: half of the interval of 0.06.
  assert [row[reward] for row in body] == [
    '0.500 ± 0.030',
    '0.600 ± 0.030',
    '0.700 ± 0.030',
    '0.800 ± 0.030',
  ]
  assert [row[bleu] for row in body] == ['-', '-', '31.2', '-']
  last = rows(table.markdown(['A', 'B'], records, 'last'))[2:]
  assert [row[1] for row in last] == ['', 'ReST (G=1, I=1)', 'ReST (G=1, I=2)']


def test_several_seeds_give_their_mean_and_deviation():
  records = [policy('A', seed, 'x', 0.5 + 0.1 * seed) for seed in range(3)]
  records += [policy('A', s, 'BC', 0.5, grow=0) for s in (0, 0, 1)]
  head, _, bc, row = rows(table.markdown(['A'], records, 'all'))
  # 0.5, 0.6, 0.7: deviation sqrt(0.02 / 2) = 0.1, not the population's 0.082.
  assert row[head.index('reward')] == '0.600 ± 0.100'
  assert row[2] == '3' and bc[2] == '2'


def test_findings_name_the_step_where_gold_and_reward_part():
  def step(name, grow, reward, gold):
    bounds = [gold - 0.01, gold + 0.01]
    fields = {'grow': grow, 'improve': 1, 'gold_mean': gold, 'gold_interval': bounds}
    return policy('A', 0, name, reward, **fields)

  records = [
    step('BC', 0, 0.5, 0.6),
    step('one', 1, 0.6, 0.7),
    step('two', 1, 0.7, 0.5),
  ]
  (line,) = table.findings(['A', 'B'], records)
  assert line.startswith('- A, seed 0: gold is highest at one, 0.700, and 0.500 at')
  assert 'two may over-optimise the reward model: from one, gold falls' in line
  (line,) = table.findings(['A'], records[:2])
  assert 'over-optimise' not in line


def test_the_figure_has_the_mean_over_seeds_of_every_variant():
  records = [
    policy('A', seed, name, 0.5 + 0.1 * seed + 0.2 * step, gold_mean=0.4)
    for seed in range(2)
    for step, name in enumerate(('BC', 'one'))
  ]
  found = figure.curves(['A', 'absent'], records)
  assert list(found) == ['A']
  assert [s['reward_mean'] for s in found['A']] == pytest.approx([0.55, 0.75])
  svg = figure.draw(['A'], records)
  assert svg.count('<svg') == 1 and '>A<' in svg.replace('\n', '')


@pytest.fixture
def house(tmp_path):
  """bc -> grow_1 -> score_1 -> improve_1_1 in two directories, 2^k seconds each."""
  made = {}

  def make(folder, name, stage, seconds, **inputs):
    made[name] = f'print of {name}'
    record = {
      'fingerprint': made[name],
      'stage': stage,
      'cost': {'device_seconds': seconds},
      'input_names': inputs,
      'inputs': {key: made[below] for key, below in inputs.items()},
    }
    (tmp_path / folder / name).mkdir(parents=True)
    (tmp_path / folder / name / 'stage.json').write_text(json.dumps(record))

  make('base', 'bc', 'supervise', 1)
  make('base', 'reward_model', 'train_reward', 2, policy='bc')
  make('base', 'grow_1', 'grow', 4, policy='bc')
  make('base', 'score_1', 'score', 8, samples='grow_1', reward_model='reward_model')
  make('base', 'scale', 'score', 16, samples='grow_1')
  make(
    'mine',
    'improve_1_1',
    'improve',
    32,
    policy='bc',
    samples='grow_1',
    rewards='score_1',
    first_rewards='scale',
  )
  return tmp_path


def test_a_policy_costs_all_that_it_needed_beyond_bc(house):
  roots = [epath.Path(house / 'mine'), epath.Path(house / 'base')]
  # Grow once although two stages read it; no BC, reward model or scale.
  assert table.device_seconds('improve_1_1', roots) == 4 + 8 + 32
  assert table.device_seconds('bc', roots) == 0
  with pytest.raises(ValueError, match='no finished bc'):
    table.device_seconds('improve_1_1', roots[:1])

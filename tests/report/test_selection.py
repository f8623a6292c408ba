"""Best-of-N in the report: by hand."""

import pytest

from rest_jax.report.selection import reaching, selection_rows


def selection(policy, rewards, judge='reward'):
  rows = [
    {'judge': judge, 'n': n, 'reward_mean': value, 'gold_mean': 0.5, 'bleu': 20.0}
    for n, value in rewards.items()
  ]
  return {'policy': policy, 'num_sources': 3, 'samples_per_source': 200, 'rows': rows}


BC = selection('BC', {1: 0.5, 10: 0.7, 200: 0.8})


def test_rows_pair_the_policies_by_judge_and_number():
  other = selection('ReST', {1: 0.6, 200: 0.9})
  rows = selection_rows([BC, other])
  assert [(row['judge'], row['n']) for row in rows] == [
    ('reward', 1),
    ('reward', 10),
    ('reward', 200),
  ]
  assert [cell and cell['reward_mean'] for cell in rows[0]['cells']] == [0.5, 0.6]
  assert rows[1]['cells'][1] is None


@pytest.mark.parametrize(
  ('rewards', 'told'),
  [
    (
      {1: 0.7, 5: 0.8, 10: 0.85},
      'ReST reaches with the best of 5 what BC reaches with '
      'the best of 200 (reward 0.800).',
    ),
    (
      {1: 0.7, 5: 0.79},
      'ReST does not reach the reward of BC with the best of 200 '
      'samples (0.800): it comes to 0.790.',
    ),
  ],
)
def test_the_claim_of_figure_6_is_the_smallest_number_that_suffices(rewards, told):
  assert reaching([BC, selection('ReST', rewards)]) == told


def test_nothing_is_said_of_one_policy_or_of_another_judge():
  assert reaching([BC]) is None
  assert reaching([BC, selection('ReST', {1: 0.9}, judge='gold')]) is None

"""The stage report: how it names what the other stages made."""

import types

import pytest

from rest_jax.stages import report


@pytest.mark.parametrize(
  ('grow', 'improve', 'algorithm', 'name'),
  [
    (0, 0, None, 'BC (G=0, I=0)'),
    (2, 1, None, 'ReST (G=2, I=1)'),
    (1, 1, 'PPO', 'PPO'),
  ],
)
def test_best_of_n_has_the_policys_name(grow, improve, algorithm, name):
  policy = types.SimpleNamespace(name='the_policy')
  results = {'rows': [], 'num_sources': 3, 'samples_per_source': 4}
  selection = types.SimpleNamespace(name='best_of_n_the_policy', results=results)
  trained = [report.Trained(policy, None, grow, improve, algorithm)]
  found = report._selected(report.Selected(policy, selection), trained)
  assert found['policy'] == trained[0].name == name

"""The order of Algorithm 1 and of its variants: stages that only take notes."""

import types

import pytest

from rest_jax import online_rl, refresh, rest


@pytest.fixture
def run_with():
  """Runs `rest` with recording stages; returns the calls by artifact name."""

  def run(algorithm=rest.rest, last='improve', **options):
    calls = {}

    def stage(default):
      def call(run, *, name=default, **inputs):
        calls[name] = {
          key: getattr(value, 'name', value) for key, value in inputs.items()
        }
        return types.SimpleNamespace(name=name, finished=False)

      return call

    stages = {
      key: stage(key)
      for key in (
        'ingest supervise sample_to_rate rate train_reward grow score '
        f'{last} evaluate report'
      ).split()
    }
    algorithm(
      None,
      **stages,
      **{
        key: stage(value) if isinstance(value, str) else value
        for key, value in options.items()
      },
    )
    return calls

  return run


def test_each_improve_starts_from_the_policy_before_it(run_with):
  calls = run_with(thresholds=((0.6, 0.7), (0.8,)))
  assert calls['grow_1']['policy'] == 'supervise'
  assert calls['improve_1_1']['policy'] == 'supervise'
  assert calls['improve_1_2']['policy'] == 'improve_1_1'
  assert calls['grow_2']['policy'] == 'improve_1_2'
  assert calls['improve_2_1']['policy'] == 'improve_1_2'
  assert calls['improve_2_1']['reference'] == 'supervise'
  assert calls['improve_2_1']['value_model'] is None
  assert calls['improve_1_2']['previous_threshold'] == 0.6
  assert calls['improve_2_1']['previous_threshold'] is None
  assert calls['score_2']['normaliser_from'] == 'score_1'


def test_a_learner_is_what_every_improve_starts_from(run_with):
  calls = run_with(thresholds=((0.6,), (0.6,)), learner='fresh')
  assert calls['improve_1_1']['policy'] == calls['improve_2_1']['policy'] == 'fresh'
  # The newest policy still teaches.
  assert calls['grow_2']['policy'] == 'improve_1_1'


def test_each_grow_has_values_of_its_own(run_with):
  calls = run_with(thresholds=((0.6,), (0.6,)), train_value='value')
  assert calls['value_2'] == {
    'policy': 'supervise',
    'samples': 'grow_2',
    'rewards': 'score_2',
  }
  assert calls['improve_2_1']['value_model'] == 'value_2'


def test_a_grow_may_have_no_improve(run_with):
  calls = run_with(thresholds=((),), best_of_n='best_of_n')
  assert 'improve_1_1' not in calls
  assert calls['evaluate_supervise']['rewards'] == 'score_1'
  (selected,) = calls['report']['selected']
  assert selected.policy.name == 'supervise'  # BC, which is the last as well


@pytest.mark.parametrize(
  ('every_policy', 'asked'),
  [
    (False, ['supervise', 'improve_2_1']),
    (True, ['supervise', 'improve_1_1', 'improve_1_2', 'improve_2_1']),
  ],
)
def test_best_of_n_is_of_the_ends_or_of_every_policy(run_with, every_policy, asked):
  calls = run_with(
    thresholds=((0.6, 0.7), (0.8,)),
    best_of_n='best_of_n',
    best_of_n_every_policy=every_policy,
  )
  selected = calls['report']['selected']
  assert [one.policy.name for one in selected] == asked
  for name in asked:
    assert calls[f'best_of_n_{name}']['policy'] == name
    assert calls[f'best_of_n_{name}']['rewards'] == 'score_1'


def test_best_of_n_is_of_bc_and_of_what_an_online_learner_made(run_with):
  plain = run_with(online_rl.online_rl, last='online')
  assert plain['report']['selected'] == []
  calls = run_with(online_rl.online_rl, last='online', best_of_n='best_of_n')
  selected = calls['report']['selected']
  assert [one.policy.name for one in selected] == ['supervise', 'online']
  for name in ('supervise', 'online'):
    asked = calls[f'best_of_n_{name}']
    assert (asked['policy'], asked['rewards']) == (name, 'score_1')


def test_a_refreshed_reward_model_scores_what_it_was_refreshed_for(run_with):
  asked = []

  def refresh_fn(run, *, grow_step, rewards, rated, reward_model, **inputs):
    asked.append((grow_step, rewards.name, reward_model.name, len(rated)))
    new = types.SimpleNamespace(name=f'reward_model_{grow_step}')
    return refresh.Refreshed(new, (*rated, refresh.RatedSet(None, None)))

  calls = run_with(thresholds=((0.6,), (0.6,), (0.6,)), refresh=refresh_fn)
  # The first Grow's samples are BC's, which the reward model was trained on.
  assert calls['score_1']['reward_model'] == 'train_reward'
  assert asked == [
    (2, 'score_2_stale', 'train_reward', 1),
    (3, 'score_3_stale', 'reward_model_2', 2),
  ]
  assert calls['score_2_stale']['reward_model'] == 'train_reward'
  assert calls['score_2']['reward_model'] == 'reward_model_2'
  assert calls['improve_2_1']['reward_model'] == 'reward_model_2'
  # One yardstick for all policies, and one scale.
  assert calls['evaluate_improve_2_1']['reward_model'] == 'train_reward'
  assert calls['score_2']['normaliser_from'] == 'score_1'


def test_each_reward_model_is_probed_before_it_is_used(run_with):
  asked = []

  def refresh_fn(run, *, grow_step, rated, **inputs):
    new = types.SimpleNamespace(name=f'reward_model_{grow_step}')
    return refresh.Refreshed(new, rated)

  def probe(run, *, policy, reward_model, **inputs):
    asked.append((policy.name, reward_model.name))
    if reward_model.name == 'reward_model_3':
      raise ValueError('below its minimum')
    return types.SimpleNamespace(name=f'probe_{reward_model.name}')

  options = {'refresh': refresh_fn, 'probe': probe}
  calls = run_with(thresholds=((0.6,), (0.6,)), **options)
  assert asked == [('supervise', 'train_reward'), ('supervise', 'reward_model_2')]
  assert calls['report']['probed'] == 'probe_train_reward'
  probed = [one.probed and one.probed.name for one in calls['report']['grown']]
  assert probed == [None, 'probe_reward_model_2']
  with pytest.raises(ValueError, match='below its minimum'):
    run_with(thresholds=((0.6,), (0.6,), (0.6,)), **options)

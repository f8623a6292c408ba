"""What a run pays: its own stages in order, and nothing that is shared."""

import pytest

from benchmarks import online_cost
from rest_jax import paths


def _stage(name, stage, device_seconds, *, energy=None):
  return {
    'name': name,
    'stage': stage,
    'seconds': 2 * device_seconds,
    'device_seconds': device_seconds,
    'peak_memory_bytes': int(1e9 * device_seconds),
    'energy_joules': energy,
  }


def _policy(artifact, name, gold):
  figures = {'reward_mean': gold / 2, 'gold_mean': gold, 'kl_to_bc': 1.0}
  return {'artifact': artifact, 'name': name, **figures}


@pytest.fixture
def model_dir(tmp_path):
  summary = {
    'policies': [
      _policy('bc', 'BC (G=0, I=0)', 0.5),
      _policy('improve_1_1', 'ReST (G=1, I=1)', 0.75),
    ],
    'stages': [
      _stage('bc', 'supervise', 100.0),
      _stage('rating_samples', 'grow', 50.0),
      _stage('reward_model', 'train_reward', 50.0),
      _stage('grow_1', 'grow', 1.0, energy=3.0),
      _stage('score_1', 'score', 2.0, energy=4.0),
      _stage('value_1', 'train_value', 8.0, energy=0.0),
      _stage('improve_1_1', 'improve', 4.0, energy=5.0),
      _stage('evaluate_bc', 'evaluate', 50.0),
    ],
  }
  paths.write_json_atomic(tmp_path / 'report' / 'summary.json', summary)
  lines = ['{"step": 0, "eval_reward": 0.25, "wall_time": 10.0}']
  lines += ['{"step": 1, "loss": 1.0, "wall_time": 11.0}']
  lines += ['{"step": 2, "eval_reward": 0.5, "wall_time": 12.0}']
  lines += ['{"step": 4, "eval_reward": 0.75, "wall_time": 18.0}']
  value = '{"step": 0, "eval_held_out_loss": 1.0, "wall_time": 5.0}\n'
  paths.write_text_atomic(tmp_path / 'value_1' / 'events' / 'metrics.jsonl', value)
  folder = tmp_path / 'improve_1_1' / 'events'
  paths.write_text_atomic(folder / 'metrics.jsonl', '\n'.join([*lines, '']))
  return tmp_path


def test_what_a_run_pays(model_dir, capsys):
  figure = model_dir / 'cost.svg'
  bc, policy = online_cost.main([str(model_dir), '--figure', str(figure)])
  assert (bc['device-seconds'], bc['gold']) == (0.0, 0.5)
  assert (policy['seconds'], policy['device-seconds']) == (30.0, 15.0)
  assert policy['peak memory, GB'] == pytest.approx(8.0)
  assert policy['energy, J'] == 12.0
  assert 'ReST (G=1, I=1)' in capsys.readouterr().out
  assert figure.read_text().startswith('<?xml')


def test_the_curve_of_a_stage_begins_where_those_before_it_end(model_dir):
  run = online_cost.read(model_dir)
  assert run.name == 'ReST'
  assert run.curve == [(11.0, 0.25), (12.0, 0.5), (15.0, 0.75)]

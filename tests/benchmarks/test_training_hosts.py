"""What the scripts on hosts and checkpoints read off a run."""

import json

import pytest

from benchmarks import checkpoint_stall, training_hosts
from rest_jax.training import events


def test_steps_are_counted_between_lines_of_training(tmp_path):
  folder = tmp_path / 'bc' / 'events'
  folder.mkdir(parents=True)
  lines = [
    {'step': 0, 'eval_held_out_loss': 8.2, 'wall_time': 0.0},
    {'step': 30, 'loss': 7.0, 'wall_time': 50.0},  # compilation is over
    {'step': 60, 'loss': 6.0, 'wall_time': 55.0},
    {'step': 90, 'loss': 5.0, 'wall_time': 62.0},
    {'step': 90, 'eval_held_out_loss': 5.1, 'wall_time': 99.0},
  ]
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (folder / events.METRICS_FILE).write_text(text)
  assert training_hosts.steps_a_second(tmp_path) == pytest.approx(60 / 12)


def test_each_device_of_the_layouts_has_a_core():
  if training_hosts.measuring.num_cores() < 2:
    pytest.skip('needs two cores')
  one, devices, processes = training_hosts.layouts()
  assert [layout.all_devices for layout in (one, devices, processes)] == [1, 2, 2]
  assert [len(cores) for cores in devices.cores] == [2]
  assert [len(cores) for cores in processes.cores] == [1, 1]
  assert processes.cores[0] != processes.cores[1]


def test_a_checkpoint_is_whole_after_the_stall(capsys):
  sizes = ['--vocab_size', '64', '--repeats', '1']
  (row,) = checkpoint_stall.main(['--models', 'tiny', *sizes])
  assert 0 < row['stall, s'] <= row['most'] <= row['on disk after, s']
  # The parameters and the best ones, float32, which compression makes 4 % smaller.
  assert row['checkpoint, MB'] * 1e6 > 0.9 * 2 * 4 * row['parameters']
  assert json.loads(capsys.readouterr().out.splitlines()[-1])['rows'] == [row]

import json
import math
import os
import pathlib

import jax
import numpy as np
import pytest

from rest_jax.training import events as events_lib


def steps(directory):
  return [line['step'] for line in events_lib.read_metrics(directory)]


def scalars(directory: pathlib.Path):
  """(step, name, value) of all TensorBoard events, and the purge steps."""
  from tensorboardX import proto
  from tensorboardX.record_writer import crc32c  # noqa: F401  the format's checksum

  found, purges = [], []
  for file in sorted(directory.glob('events.out.tfevents.*')):
    data = file.read_bytes()
    while data:  # length (8), checksum (4), record, checksum (4)
      size = int.from_bytes(data[:8], 'little')
      event = proto.event_pb2.Event.FromString(data[12 : 12 + size])
      data = data[16 + size :]
      if event.HasField('session_log'):
        purges.append(event.step)
      for value in event.summary.value:
        found.append((event.step, value.tag, value.simple_value))
  return found, purges


def test_lines_and_events_hold_what_was_written(tmp_path):
  with events_lib.EventWriter(tmp_path / 'new') as writer:
    writer.write(10, {'loss': 2.5, 'grad_norm': np.float32(0.5)})
    writer.write(20, {})
  (line,) = (tmp_path / 'new' / 'metrics.jsonl').read_text().splitlines()
  record = json.loads(line)
  assert record.pop('wall_time') > 1.7e9
  assert record == {'step': 10, 'loss': 2.5, 'grad_norm': 0.5}
  assert scalars(tmp_path / 'new')[0] == [(10, 'loss', 2.5), (10, 'grad_norm', 0.5)]


def test_values_that_are_not_finite_are_null(tmp_path):
  with events_lib.EventWriter(tmp_path) as writer:
    writer.write(1, {'a': math.nan, 'b': math.inf, 'c': 1.0})
  text = (tmp_path / 'metrics.jsonl').read_text()
  assert 'NaN' not in text and 'Infinity' not in text
  (record,) = events_lib.read_metrics(tmp_path)
  assert (record['a'], record['b'], record['c']) == (None, None, 1.0)


def test_a_line_is_in_the_file_before_close(tmp_path):
  with events_lib.EventWriter(tmp_path) as writer:
    writer.write(1, {'a': 1.0})
    assert steps(tmp_path) == [1]


def test_resuming_counts_nothing_twice(tmp_path):
  with events_lib.EventWriter(tmp_path) as writer:
    for step in (0, 10, 20, 30):
      writer.write(step, {'a': float(step)})
  with open(tmp_path / 'metrics.jsonl', 'a') as handle:
    handle.write('{"step": 40, "a"')  # cut short by a kill
  assert steps(tmp_path) == [0, 10, 20, 30]
  with events_lib.EventWriter(tmp_path) as writer:
    writer.truncate_after(20)
    assert steps(tmp_path) == [0, 10, 20]
    writer.write(30, {'a': -1.0})
  assert steps(tmp_path) == [0, 10, 20, 30]
  assert events_lib.read_metrics(tmp_path)[-1]['a'] == -1.0
  assert scalars(tmp_path)[1] == [21]  # TensorBoard drops steps from 21 on


def test_truncating_before_anything_was_written(tmp_path):
  with events_lib.EventWriter(tmp_path) as writer:
    writer.truncate_after(-1)
    writer.write(0, {'a': 1.0})
  assert steps(tmp_path) == [0]
  assert events_lib.read_metrics(tmp_path / 'absent') == []


CACHE = {
  'jax_compilation_cache_dir': 'JAX_COMPILATION_CACHE_DIR',
  'jax_persistent_cache_min_compile_time_secs': (
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'
  ),
  'jax_persistent_cache_min_entry_size_bytes': (
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'
  ),
}


@pytest.fixture
def cache_options(monkeypatch):
  """No environment variable is set, and JAX's options are put back afterwards."""
  before = {name: getattr(jax.config, name) for name in CACHE}
  for variable in CACHE.values():
    monkeypatch.delenv(variable, raising=False)
  yield
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.mark.usefixtures('cache_options')
def test_compilation_cache_is_on_for_small_programs(tmp_path):
  folder = events_lib.enable_compilation_cache(tmp_path / 'cache')
  assert folder == os.fspath(tmp_path / 'cache')
  assert jax.config.jax_compilation_cache_dir == folder
  assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.0
  assert jax.config.jax_persistent_cache_min_entry_size_bytes == 0


@pytest.mark.usefixtures('cache_options')
def test_the_environment_wins(tmp_path, monkeypatch):
  jax.config.update('jax_compilation_cache_dir', 'theirs')
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'theirs')
  assert events_lib.enable_compilation_cache(tmp_path) == 'theirs'
  assert jax.config.jax_compilation_cache_dir == 'theirs'

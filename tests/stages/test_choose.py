"""The stage choose."""

import numpy as np
import pytest

from rest_jax.data import group_store, judgements, reward_store, shards
from rest_jax.rewards import acquisition
from rest_jax.stages import choose
from tests.stages import untrained


def _group(source_id, texts, origins=None):
  return group_store.Group(
    source_id=source_id,
    source=f'Quelle\t{source_id}',
    source_tokens=np.array([5, 1], np.int32),
    reference='x',
    texts=tuple(texts),
    tokens=tuple(np.array([5, 1], np.int32) for _ in texts),
    token_log_probs=None,
    finished=np.ones(len(texts), bool),
    origins=tuple(origins or ['model'] * len(texts)),
  )


@pytest.fixture
def stage(tmp_path):
  """Calls choose on two shards of three groups."""
  groups = [
    _group('a', ['low', 'high', 'high', 'given'], ['model'] * 3 + ['data']),
    _group('b', ['middle', 'lowest']),
    _group('c', ['given'], ['data']),
  ]
  rewards = [[0.2, 0.9, 0.9, 1.0], [0.5, 0.1], [1.0]]
  run = untrained.run(tmp_path / 'run')

  def make(name, kind, write):
    def build(work):
      for index, part in enumerate((slice(0, 2), slice(2, 3))):
        write(shards.shard_path(work.path, index, 2, kind), part)

    inputs = {}
    return run.stage(name, name=name, version=1, params={}, inputs=inputs, build=build)

  samples = make(
    'grow', 'groups', lambda path, part: group_store.write_groups(path, groups[part])
  )
  scores = make(
    'score',
    'rewards',
    lambda path, part: reward_store.write_rewards(
      path,
      [group.source_id for group in groups[part]],
      [np.array(values, np.float32) for values in rewards[part]],
    ),
  )

  def call(**options):
    return choose.choose(
      run, name='chosen_2', samples=samples, rewards=scores, **options
    )

  return call


def test_the_best_texts_of_the_best_sources_are_chosen_once(stage):
  found = stage(
    acquisition=acquisition.HighestReward(), num_sources=1, num_candidates=2
  )
  (group,) = group_store.iterate_groups(found.path)
  # Means of the best two: (0.9 + 0.2) / 2 and (0.5 + 0.1) / 2. Not the data, not twice.
  assert (group.source_id, group.texts) == ('a', ('high', 'low'))
  assert found.results == {'sources': 1, 'candidates': 2, 'seen_sources': 2}


def test_what_is_to_rate_is_a_table_that_the_reader_reads(stage, tmp_path):
  found = stage(num_sources=9, num_candidates=1)
  assert found.results['sources'] == 2  # 'c' has no sample
  lines = (found.path / choose.FILE).read_text().splitlines()
  assert lines[0].split('\t') == list(choose.HEAD) and len(lines) == 3
  rated = tmp_path / 'rated.tsv'
  rated.write_text(
    '\n'.join([lines[0], *(line.rstrip() + '\t4' for line in lines[1:])])
  )
  read = judgements.Ratings(source_id_column='source_id')(rated)
  assert [(one.source_id, one.rating) for one in read] == [('a', 4.0), ('b', 4.0)]


def test_numbers_below_one_are_refused(stage):
  with pytest.raises(ValueError, match='at least 1'):
    stage(num_sources=0)

"""Which sources and candidates are shown."""

import numpy as np
import pytest

from rest_jax.annotation import items
from tests.annotation import study


def test_equal_texts_are_shown_once_and_count_for_both(tmp_path):
  drawn = study.draw(tmp_path)
  same = next(s for s in drawn.sources if s.source_id == 'test/00000001')
  assert [c.text for c in same.candidates] == ['the same']
  makers = [o.system for o in drawn.outputs if o.source_id == same.source_id]
  assert makers == ['evaluate_bc', 'evaluate_improve_1_1']
  assert len(drawn.outputs) == 2 * study.NUM_SOURCES
  assert sum(len(s.candidates) for s in drawn.sources) == 2 * study.NUM_SOURCES - 1


def test_rewards_come_with_their_candidates(tmp_path):
  rewards = {(o.source_id, o.system): o.reward for o in study.draw(tmp_path).outputs}
  for index in range(study.NUM_SOURCES):
    value = rewards[f'test/{index:08d}', 'evaluate_bc']
    assert value == pytest.approx(0.1 * index, abs=1e-7)  # float32


def test_more_sources_keep_those_of_fewer_and_the_seed_draws(tmp_path):
  systems = study.systems(tmp_path, num_sources=40)

  def drawn(num_sources, seed=0):
    found = items.choose(
      systems, num_sources=num_sources, num_candidates=1, num_shared=3, seed=seed
    )
    return [source.source_id for source in found.sources]

  assert drawn(5) == drawn(20)[:5] and len(drawn(20)) == 20
  assert drawn(20) != sorted(drawn(20)) and drawn(20) != drawn(20, seed=1)
  assert len(drawn(None)) == len(drawn(99)) == 40


def test_the_first_drawn_are_shared(tmp_path):
  shared = [s.shared for s in study.draw(tmp_path).sources]
  assert shared == [True, True] + [False] * 4


def test_of_a_grow_only_the_models_candidates_are_taken(tmp_path):
  grown = [
    study.group(0, ['a', 'b', 'data'], origins=('model', 'model', 'data')),
    study.group(1, ['only data'], origins=('data',)),
    study.group(2, ['data first', 'c'], origins=('data', 'model')),
  ]
  rewards = [np.array([0, 1, 2]), np.array([3]), np.array([4, 5])]
  study.write_system(tmp_path / 'grow', grown, rewards)
  drawn = items.choose(
    [items.System('grow_1', tmp_path / 'grow', tmp_path / 'grow')],
    num_sources=None,
    num_candidates=3,
    num_shared=0,
    seed=0,
  )
  assert {s.source_id for s in drawn.sources} == {'test/00000000', 'test/00000002'}
  texts = {c.candidate_id: c.text for s in drawn.sources for c in s.candidates}
  assert sorted((texts[o.candidate_id], o.reward) for o in drawn.outputs) == [
    ('a', 0.0),
    ('b', 1.0),
    ('c', 5.0),
  ]


def test_only_sources_that_all_systems_have_are_drawn(tmp_path):
  study.write_system(tmp_path / 'a', [study.group(i, ['x']) for i in (1, 2, 3)])
  study.write_system(tmp_path / 'b', [study.group(i, ['y']) for i in (3, 4)])
  study.write_system(tmp_path / 'c', [study.group(i, ['z']) for i in (5, 6)])
  systems = [items.System(name, tmp_path / name) for name in 'abc']
  options = {'num_sources': None, 'num_candidates': 1, 'num_shared': 0, 'seed': 0}
  (source,) = items.choose(systems[:2], **options).sources
  assert source.source_id == 'test/00000003'
  with pytest.raises(ValueError, match=r"no source has samples in all of \['a', 'b', "):
    items.choose(systems, **options)


@pytest.mark.parametrize(
  ('option', 'value'), [('num_sources', 0), ('num_candidates', 0), ('num_shared', -1)]
)
def test_a_number_out_of_range_is_named(tmp_path, option, value):
  with pytest.raises(ValueError, match=f'{option}={value}'):
    study.draw(tmp_path, **{option: value})


def test_systems_need_names_of_their_own(tmp_path):
  twice = [items.System('a', tmp_path), items.System('a', tmp_path)]
  for systems in ([], twice):
    with pytest.raises(ValueError, match='each with its own name'):
      items.choose(systems, num_sources=1, num_candidates=1, num_shared=0, seed=0)


def test_a_source_that_reads_otherwise_in_another_system_is_refused(tmp_path):
  study.write_system(tmp_path / 'a', [study.group(1, ['x'])], num_shards=1)
  other = study.group(1, ['x'])
  object.__setattr__(other, 'source', 'etwas anderes')
  study.write_system(tmp_path / 'b', [other], num_shards=1)
  systems = [items.System(name, tmp_path / name) for name in 'ab']
  with pytest.raises(ValueError, match=r"reads 'Quelle 1' in a but 'etwas anderes'"):
    items.choose(systems, num_sources=1, num_candidates=1, num_shared=0, seed=0)


def test_rewards_of_other_groups_are_refused(tmp_path):
  study.write_system(tmp_path / 'a', [study.group(1, ['x'])], num_shards=1)
  rewards = [np.zeros(1, np.float32)]
  study.write_system(tmp_path / 'b', [study.group(2, ['x'])], rewards, num_shards=1)
  system = items.System('a', tmp_path / 'a', tmp_path / 'b')
  with pytest.raises(ValueError, match=r"'test/00000001'.*'test/00000002'"):
    items.choose([system], num_sources=1, num_candidates=1, num_shared=0, seed=0)

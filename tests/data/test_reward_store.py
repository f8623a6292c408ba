"""Reward sets: round trips and joins."""

import numpy as np
import pytest

from rest_jax.data import group_store, reward_store, row_index


def arrays(*rows):
  return [np.array(row, np.float32) for row in rows]


def test_round_trip(tmp_path):
  path = tmp_path / 'r.parquet'
  rewards, normalised = arrays([1, -2], [], [3]), arrays([0.5, 0], [], [1])
  ratings = [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((0, 3)), [[9]]]
  reward_store.write_rewards(
    path, ['a', 'b', 'c'], rewards, normalised=normalised, ratings=ratings
  )
  read = reward_store.read_rewards(path)
  assert read.source_ids == ('a', 'b', 'c')
  for left, right in zip(rewards, read.rewards, strict=True):
    np.testing.assert_array_equal(left, right)
  np.testing.assert_array_equal(read.for_training()[0], [0.5, 0])
  np.testing.assert_array_equal(read.ratings[0], ratings[0])
  assert read.ratings[1].shape[0] == 0 and read.ratings[2].tolist() == [[9.0]]
  reward_store.write_rewards(path, ['a', 'b', 'c'], rewards)
  read = reward_store.read_rewards(path)
  assert read.normalised is None and read.ratings is None
  np.testing.assert_array_equal(read.for_training()[0], [1, -2])


def test_bad_rewards(tmp_path):
  path = tmp_path / 'r.parquet'
  with pytest.raises(ValueError, match='1 rewards for 2 source_ids'):
    reward_store.write_rewards(path, ['a', 'b'], arrays([1]))
  with pytest.raises(ValueError, match="'b' has 2 rewards but 1 normalised"):
    reward_store.write_rewards(
      path, ['a', 'b'], arrays([1], [1, 2]), normalised=arrays([1], [1])
    )
  assert not path.exists()


def test_padded():
  values, mask = reward_store.padded(arrays([1, 2], [], [3]))
  np.testing.assert_array_equal(values, [[1, 2], [0, 0], [3, 0]])
  np.testing.assert_array_equal(mask, [[1, 1], [0, 0], [1, 0]])
  assert reward_store.padded([])[0].shape == (0, 0)


def test_joins_are_checked(tmp_path, make_group, write_sets):
  groups = [make_group(i) for i in range(4)]
  rewards = write_sets(tmp_path, groups, num_shards=2)
  second = group_store.shard_path(tmp_path / 'rewards', 1, 2, 'rewards')
  ids = [group.source_id for group in groups[2:]]

  def build():
    row_index.build(
      tmp_path / 'groups',
      samples=2,
      buckets=[(9, 9)],
      reward_dir=tmp_path / 'rewards',
    )

  build()
  group_store.write_rewards(second, [ids[0], 'train/other'], rewards[2:])
  with pytest.raises(
    ValueError,
    match=r"row 1 .*'train/00000003' in .*groups-00001.*'train/other' in .*rewards-0",
  ):
    build()
  group_store.write_rewards(second, ids[:1], rewards[2:3])
  with pytest.raises(ValueError, match=r'2 rows but .*rewards-00001.* 1: score'):
    build()
  group_store.write_rewards(second, ids, [rewards[2], rewards[3][:2]])
  with pytest.raises(
    ValueError, match=r"row 1, .*0003', has 3 candidates .* 2 rewards"
  ):
    build()
  second.unlink()
  with pytest.raises(ValueError, match='lacks rewards-00001-of-00002'):
    build()
  group_store.shard_path(tmp_path / 'rewards', 0, 2, 'rewards').unlink()
  group_store.write_rewards(
    group_store.shard_path(tmp_path / 'rewards', 0, 1, 'rewards'), ids, rewards[2:]
  )
  with pytest.raises(ValueError, match=r'2 shards but .* 1: they do not belong'):
    build()

"""The data of an Improve step: what it counts, and that memory does not grow."""

import tracemalloc
import types
import weakref

import numpy as np
import pytest

from rest_jax import filters
from rest_jax.data import batches, group_store, reward_store, shards
from rest_jax.stages import improve_data

SOURCES, SAMPLES, LENGTH = 32, 4, 100  # of a shard
FEW, MANY = 3, 24  # shards
GROUP_BYTES = SAMPLES * LENGTH * 4  # of a source's candidate tokens


def _write(folder, num_shards):
  """A group set and its rewards, as the artifacts that a step reads."""
  rng = np.random.default_rng(0)
  sets = [folder / name for name in ('grow', 'score')]
  for shard in range(num_shards):
    groups = [
      group_store.Group(
        source_id=f'train/{shard:04d}/{place:04d}',
        source='Quelle',
        source_tokens=np.array([5, 1], np.int32),
        reference=None,
        texts=('text',) * SAMPLES,
        tokens=tuple(rng.integers(2, 90, (SAMPLES, LENGTH)).astype(np.int32)),
        token_log_probs=None,
        finished=np.ones(SAMPLES, bool),
        origins=('model',) * SAMPLES,
        renderings=(),
      )
      for place in range(SOURCES)
    ]
    rewards = [rng.random(SAMPLES).astype(np.float32) for _ in groups]
    ids = [group.source_id for group in groups]
    group_store.write_groups(shards.shard_path(sets[0], shard, num_shards), groups)
    reward_store.write_rewards(
      shards.shard_path(sets[1], shard, num_shards, reward_store.KIND), ids, rewards
    )
  return [types.SimpleNamespace(path=s, results={'max_reward': 1.0}) for s in sets]


@pytest.fixture(scope='module')
def stores(tmp_path_factory):
  """The same shards, few and many of them."""
  return [_write(tmp_path_factory.mktemp('sets'), n) for n in (FEW, MANY)]


def _count(samples, rewards):
  return improve_data.count(filters.SourcePercentile(50), samples, rewards)


def _read(samples, rewards):
  """Reads batches from all over the set."""
  reader = batches.GroupBatches(
    samples.path,
    reward_dir=rewards.path,
    keep_fn=filters.SourcePercentile(50),
    batch=8,
    samples=SAMPLES,
    buckets=((4, LENGTH),),
    seed=0,
  )
  return [reader.batch(step)['rewards'].shape for step in range(4)]


@pytest.mark.parametrize('work', [_count, _read])
def test_memory_does_not_grow_with_the_tokens_of_the_set(stores, work):
  peaks = []
  for store in stores:
    work(*store)  # what is imported or compiled once
    tracemalloc.start()
    try:
      work(*store)
      peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
      tracemalloc.stop()
  # An index of rows has some tens of bytes for a source; tokens that stay would be
  # GROUP_BYTES.
  added = (peaks[1] - peaks[0]) / ((MANY - FEW) * SOURCES)
  assert added < GROUP_BYTES / 8


def test_a_quantile_holds_the_rewards_of_a_shard_at_a_time(stores, monkeypatch):
  padded, columns, most = reward_store.padded, [], 0

  def watched(values):
    nonlocal most
    found = padded(values)
    columns.append(weakref.ref(found[0]))
    most = max(most, sum(column() is not None for column in columns))
    return found

  monkeypatch.setattr(reward_store, 'padded', watched)
  keep = improve_data.fitted(filters.GlobalQuantile(0.5), *stores[1])
  assert len(columns) >= MANY  # all were read
  assert most <= 2  # one may still be there while the next is read
  assert 0.45 < keep.tau < 0.55  # of uniform rewards


def test_the_counts_of_many_shards_are_whole(stores):
  samples, rewards = stores[1]
  found = _count(samples, rewards)
  sources = MANY * SOURCES
  assert found['sources'] == found['kept_sources'] == sources
  assert found['candidates'] == sources * SAMPLES
  # The median of four rewards has two above it.
  assert found['kept_candidates'] == 2 * sources
  assert (found['tokens'], found['kept_tokens']) == (
    sources * SAMPLES * LENGTH,
    sources * 2 * LENGTH,
  )

"""Every source once an epoch, in an order that the seed and the epoch give."""

import itertools

import numpy as np
import pytest

from rest_jax.data import group_store, shards, source_stream

SIZES = (5, 3, 4, 6)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  directory = tmp_path_factory.mktemp('sources')
  made, number = [], 0
  for index, size in enumerate(SIZES):
    path = shards.shard_path(directory, index, len(SIZES))
    tokens = np.array([7, 1], np.int32)
    groups = [
      group_store.pair(f's{number + row}', 'x', tokens, 'y', tokens)
      for row in range(size)
    ]
    number += size
    group_store.write_groups(path, groups)
    made.append(path)
  return made


def _ids(stream, phase):
  return [group.source_id for group in stream.take(phase)]


@pytest.mark.parametrize('window_shards', [1, 2, 8])
def test_an_epoch_visits_every_source_but_its_rest_once(files, window_shards):
  options = {'count': 4, 'seed': 3, 'window_shards': window_shards}
  stream = source_stream.SourceStream(files, **options)
  phases = [_ids(stream, phase) for phase in range(8)]
  assert all(len(set(ids)) == 4 for ids in phases)
  first, second = (list(itertools.chain(*phases[i : i + 4])) for i in (0, 4))
  # 18 sources are four phases of 4; two wait for another epoch.
  assert len(set(first)) == len(set(second)) == 16 and first != second
  # A phase does not depend on those before it.
  again = source_stream.SourceStream(files, **options)
  assert [_ids(again, phase) for phase in (6, 1, 2)] == [phases[i] for i in (6, 1, 2)]


def test_another_seed_gives_another_order(files):
  one, two = (source_stream.SourceStream(files, count=9, seed=s) for s in (0, 1))
  assert _ids(one, 0) != _ids(two, 0)


@pytest.mark.parametrize('count', [0, 19])
def test_a_phase_must_fit(files, count):
  with pytest.raises(ValueError, match=r'at most all 18 of them'):
    source_stream.SourceStream(files, count=count, seed=0)

"""Blocks of shards: cut by the plan alone, handed on shard by shard."""

import contextlib
import dataclasses
import pathlib
import types
import weakref

import numpy as np
import pytest

from rest_jax.data import group_store
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import shard_blocks


def _tasks(folder, rows):
  folder = pathlib.Path(folder)
  return [
    shard_blocks.Task(folder / f'source-{i}', n, folder / f'target-{i}')
    for i, n in enumerate(rows)
  ]


def _cut(rows, num_samples=4, **settings):
  cut = {'batch_size': 2, 'share': 4, 'tickets': 5} | settings
  blocks = shard_blocks.blocks(
    _tasks('x', rows), num_samples, sampler_lib.SamplerSettings(**cut)
  )
  return [[task.rows for task in block] for block in blocks]


def test_blocks_by_hand():
  # Two lanes x five tickets: ten sources of up to four candidates.
  assert _cut([4, 4, 2, 4, 7, 3]) == [[4, 4, 2], [4], [7, 3]]
  assert _cut([11, 4, 30, 5, 5, 1]) == [[11], [4], [30], [5, 5], [1]]
  # Nine candidates of a share of four are three tickets: three sources.
  assert _cut([2, 1, 2, 2], num_samples=9) == [[2, 1], [2], [2]]
  assert _cut([2, 1, 2, 2], num_samples=9, slots=2) == [[2, 1, 2], [2]]
  assert _cut([4, 4, 2], tickets=4) == [[4, 4], [2]]
  # A share of more than 32 cuts no larger blocks: 100 candidates are four tickets.
  assert _cut([2, 1, 1], num_samples=100, share=100) == [[2], [1, 1]]
  assert _cut([]) == []
  assert _cut([1, 1], num_samples=1000) == [[1], [1]]  # no block is empty


def _group(i):
  return group_store.pair(f's/{i}', 'x', np.array([5, 1], np.int32), None, None)


class Sampler:
  """Yields its groups in an order of ours."""

  def __init__(self, order):
    self.order = order

  def sample(self, groups, num_samples):
    for row in self.order:
      samples = group_store.take(groups[row], [])
      yield row, samples


WORK = types.SimpleNamespace(devices=contextlib.nullcontext)


def _sample(block, order, finish=None):
  """Returns [(target, ids, the rows complete by then)]."""
  groups = [_group(i) for i in range(sum(task.rows for task in block))]
  done, found = [], []

  def finish_one(task, samples, sources):
    ids = [group.source_id for group in samples]
    assert ids == [group.source_id for group in sources]
    found.append((task.target.name, ids, len(done)))

  shard_blocks.sample(
    WORK,
    Sampler(order),
    block,
    groups,
    1,
    advance=lambda: done.append(1),
    finish=finish or finish_one,
  )
  assert len(done) == len(groups)
  return found


def test_each_shard_is_handed_on_when_its_last_source_is_complete(tmp_path):
  found = _sample(_tasks(tmp_path, [2, 1, 3]), [2, 4, 1, 5, 0, 3])
  assert found == [
    ('target-1', ['s/2'], 1),
    ('target-0', ['s/0', 's/1'], 5),
    ('target-2', ['s/3', 's/4', 's/5'], 6),
  ]


def test_a_shard_that_is_done_is_sampled_but_not_handed_on(tmp_path):
  block = _tasks(tmp_path, [2, 1])
  block[0] = dataclasses.replace(block[0], done=True)
  assert _sample(block, [0, 1, 2]) == [('target-1', ['s/2'], 3)]


def test_samples_that_were_handed_on_are_held_by_nobody_else(tmp_path):
  held = []

  def finish(task, samples, sources):
    assert not any(one() for one in held)  # those of the shard before
    held[:] = [weakref.ref(group) for group in samples]

  _sample(_tasks(tmp_path, [1, 2, 2]), [0, 1, 2, 3, 4], finish)
  assert len(held) == 2


def test_a_source_that_the_sampler_leaves_out_is_an_error(tmp_path):
  with pytest.raises(AssertionError, match='left sources out'):
    _sample(_tasks(tmp_path, [1, 2]), [0, 2])

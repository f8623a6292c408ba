"""Batches: every kept candidate once per epoch, the same at any start."""

import collections
import dataclasses

import numpy as np
import pytest

from rest_jax import filters
from rest_jax.data import batches, group_store, row_order

BUCKETS = [(4, 4), (6, 7), (9, 9)]


@pytest.fixture(scope='module')
def sets(tmp_path_factory, make_group, write_sets):
  folder = tmp_path_factory.mktemp('sets')
  rng = np.random.default_rng(3)
  groups = [make_group(i, int(rng.integers(0, 9))) for i in range(61)]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(group_store, '_CANDIDATES_PER_ROW_GROUP', 16)
    rewards = write_sets(folder, groups, num_shards=3)
  return folder, groups, rewards


def make(sets, **changes):
  arguments = {
    'batch': 5,
    'samples': 3,
    'buckets': BUCKETS,
    'reward_dir': sets[0] / 'rewards',
    'keep_fn': filters.GlobalThreshold(0.4),
    'log_probs': True,
  }
  return batches.GroupBatches(sets[0] / 'groups', **{**arguments, **changes})


def test_a_host_reads_its_own_rows_alone(sets, monkeypatch):
  whole, places = make(sets), np.array([0, 3])
  mine = make(sets, places=places)
  read, row = [], mine.reader.row
  monkeypatch.setattr(mine.reader, 'row', lambda n: (read.append(n), row(n))[1])
  for step in range(30):
    expected, got = whole.batch(step), mine.batch(step)
    for name, value in got.items():
      np.testing.assert_array_equal(value[places], expected[name][places])
      assert value.shape == expected[name].shape
      assert not np.delete(value, places, axis=0).any()
    assert read == whole.order.rows(step)[1][places].tolist()
    read.clear()


def candidates_in(batch):
  """(source number, candidate's first token) of every filled slot."""
  found = []
  for row, slot in zip(*np.nonzero(batch['keep']), strict=True):
    source = batch['encoder_input_tokens'][row, 0] - 3
    found.append((int(source), int(batch['decoder_target_tokens'][row, slot, 0])))
  return found


def kept_candidates(sets, threshold=0.4):
  _, groups, rewards = sets
  return {
    (number, int(tokens[0])): (tokens, float(reward), values)
    for number, group in enumerate(groups)
    for tokens, reward, values in zip(
      group.tokens, rewards[number], group.token_log_probs, strict=True
    )
    if reward > np.float32(threshold)
  }


def assert_equal_batches(left, right):
  assert left.keys() == right.keys()
  for name, value in left.items():
    np.testing.assert_array_equal(value, right[name], err_msg=name)
    assert value.dtype == right[name].dtype


@pytest.mark.parametrize('window', [None, 2])
def test_every_kept_candidate_once_per_epoch(sets, window):
  # After `batch` epochs each bucket's rows divide into whole batches.
  data = make(sets, window_row_groups=window)
  expected = kept_candidates(sets)
  assert data.counts.kept_candidates == len(expected)
  seen = collections.Counter()
  for step in range(data.index.num_rows):
    batch = data.batch(step)
    seen.update(candidates_in(batch))
  assert seen == dict.fromkeys(expected, 5)


def test_contents_of_a_slot(sets):
  data = make(sets)
  expected, shapes = kept_candidates(sets), set()
  for step in range(20):
    batch = data.batch(step)
    shapes.add(batch['decoder_target_tokens'].shape)
    for row in range(5):
      for slot in range(3):
        target = batch['decoder_target_tokens'][row, slot]
        weights = batch['decoder_loss_weights'][row, slot]
        if not batch['keep'][row, slot]:
          assert not target.any() and not weights.any()
          assert batch['rewards'][row, slot] == 0
          continue
        source = int(batch['encoder_input_tokens'][row, 0]) - 3
        tokens, reward, values = expected[source, int(target[0])]
        length = len(tokens)
        np.testing.assert_array_equal(target[:length], tokens)
        assert not target[length:].any()
        assert weights.tolist() == [1.0] * length + [0.0] * (len(weights) - length)
        shifted = np.concatenate([[0], target[:-1]])
        inputs = batch['decoder_input_tokens'][row, slot]
        np.testing.assert_array_equal(inputs[:length], shifted[:length])
        assert batch['rewards'][row, slot] == np.float32(reward)
        np.testing.assert_array_equal(
          batch['behaviour_log_probs'][row, slot, :length], values
        )
        group = sets[1][source]
        encoder = batch['encoder_input_tokens'][row]
        np.testing.assert_array_equal(
          encoder[: len(group.source_tokens)], group.source_tokens
        )
        assert not encoder[len(group.source_tokens) :].any()
  assert shapes == {(5, 3, target) for _, target in BUCKETS}


def test_same_step_same_batch_in_any_order(sets):
  left, right = make(sets), make(sets)
  steps = list(range(25)) + [997]
  forward = {step: left.batch(step) for step in steps}
  for step in reversed(steps):
    assert_equal_batches(forward[step], right.batch(step))
  other = make(sets, seed=1)
  assert any(
    candidates_in(other.batch(step)) != candidates_in(left.batch(step))
    for step in range(3)
  )


def deal(stream, bucket_of, num_buckets, batch, num_steps):
  """The definition, as a loop: rows fill their buckets; a full one is a batch."""
  waiting, steps = [[] for _ in range(num_buckets)], []
  for row in stream:
    bucket = int(bucket_of[row])
    waiting[bucket].append(row)
    if len(waiting[bucket]) == batch:
      steps.append((bucket, waiting[bucket]))
      waiting[bucket] = []
      if len(steps) == num_steps:
        return steps
  raise AssertionError('the stream ended')


@pytest.mark.parametrize('batch', [1, 5, 64, 300])
def test_order_against_a_loop(sets, batch):
  index = make(sets).index
  order = row_order.Order(index, batch=batch, seed=4)

  def stream():
    for epoch in range(10_000):
      yield from order.rows_in_epoch(epoch).tolist()

  num_steps = 40
  expected = deal(stream(), index.row_bucket, 3, batch, num_steps)
  for step, (bucket, rows) in enumerate(expected):
    got_bucket, got = order.rows(step)
    assert got_bucket == bucket
    assert got.tolist() == rows
  for start in (0, 1, 7, 26):
    resumed = deal(order.stream(start), index.row_bucket, 3, batch, num_steps - start)
    assert resumed == expected[start:]


def test_epochs_differ_and_hold_every_row(sets):
  index = make(sets).index
  for window in (None, 2):
    order = row_order.Order(index, batch=4, seed=0, window_row_groups=window)
    first, second = order.rows_in_epoch(0), order.rows_in_epoch(1)
    assert sorted(first) == sorted(second) == list(range(index.num_rows))
    assert first.tolist() != second.tolist() != list(range(index.num_rows))
  plain = row_order.Order(index, batch=4, seed=0, shuffle=False)
  assert plain.rows_in_epoch(3).tolist() == list(range(index.num_rows))


def test_a_window_needs_few_row_groups(sets):
  index = make(sets).index
  order = row_order.Order(index, batch=4, seed=0, window_row_groups=2)
  chunks = [index.chunk_of(row) for row in order.rows_in_epoch(0)]
  assert len(set(chunks)) > 6
  seen, closed = [], set()
  for chunk in chunks:  # a window's two row groups end before the next two begin
    if chunk not in seen:
      seen.append(chunk)
      if len(seen) % 2 == 1:
        closed = set(seen[:-1])
    assert chunk not in closed
  data = make(sets, window_row_groups=2)
  for step in range(60):
    data.batch(step)
  assert data.reader.num_held <= 2 * 5 < len(index.chunk_shard)


def test_longer_padding_changes_nothing(sets):
  short = make(sets, buckets=[(9, 9)])
  long = make(sets, buckets=[(17, 30)])
  for step in range(8):
    left, right = short.batch(step), long.batch(step)
    for name, value in left.items():
      box = tuple(slice(0, size) for size in value.shape)
      np.testing.assert_array_equal(value, right[name][box])
      padding = np.ones(right[name].shape, bool)
      padding[box] = False
      if name != 'decoder_input_tokens':
        assert not right[name][padding].any()


def test_evaluation_batches_hold_every_row_once(sets):
  data = make(sets)
  seen = collections.Counter()
  for batch in data.evaluation_batches():
    assert batch['encoder_input_tokens'].shape[0] == 5
    empty = ~batch['keep'].any(axis=1)
    assert not batch['decoder_loss_weights'][empty].any()
    seen.update(candidates_in(batch))
  assert seen == dict.fromkeys(kept_candidates(sets), 1)


def test_counts(sets):
  folder, groups, rewards = sets
  counts = make(sets).counts
  assert counts.sources == 61
  assert counts.candidates == sum(len(g.tokens) for g in groups)
  emptied = sum(len(r) > 0 and not (r > np.float32(0.4)).any() for r in rewards)
  assert counts.emptied_sources == emptied > 0
  rows = sum(-(-int((r > np.float32(0.4)).sum()) // 3) for r in rewards)
  assert counts.rows == rows == sum(counts.rows_per_bucket)
  assert not counts.truncated_candidates and not counts.dropped_candidates
  everything = batches.GroupBatches(
    folder / 'groups', batch=2, samples=3, buckets=BUCKETS
  )
  assert everything.counts.kept_candidates == counts.candidates
  assert 'rewards' not in everything.batch(0)


def test_overlong(sets):
  limits = [(5, 4)]
  kept = kept_candidates(sets)
  sources = {number: len(sets[1][number].source_tokens) for number, _ in kept}
  with pytest.raises(
    ValueError, match=r"last bucket is \(5, 4\).*'truncate' or 'drop'"
  ):
    make(sets, buckets=limits)

  cut = make(sets, buckets=limits, overlong='truncate')
  assert cut.counts.truncated_sources == sum(n > 5 for n in sources.values())
  assert cut.counts.truncated_candidates == sum(len(v[0]) > 4 for v in kept.values())
  seen = collections.Counter()
  for batch in cut.evaluation_batches():
    seen.update(candidates_in(batch))
    for row, slot in zip(*np.nonzero(batch['keep']), strict=True):
      source = int(batch['encoder_input_tokens'][row, 0]) - 3
      target = batch['decoder_target_tokens'][row, slot]
      tokens = kept[source, int(target[0])][0]
      np.testing.assert_array_equal(target[: len(tokens)], tokens[:4])
      if sources[source] > 5:
        assert batch['encoder_input_tokens'][row, -1] == 1
  assert seen == dict.fromkeys(kept, 1)

  dropped = make(sets, buckets=limits, overlong='drop')
  short = {k for k, v in kept.items() if len(v[0]) <= 4 and sources[k[0]] <= 5}
  seen = collections.Counter()
  for batch in dropped.evaluation_batches():
    seen.update(candidates_in(batch))
  assert seen == dict.fromkeys(short, 1)
  assert dropped.counts.dropped_candidates == len(kept) - len(short)
  assert dropped.counts.dropped_sources == sum(n > 5 for n in sources.values())


def test_bad_arguments(sets):
  folder = sets[0]
  for changes, message in [
    ({'buckets': [(4, 8), (6, 7)]}, 'none smaller than the one before'),
    ({'buckets': []}, 'must be pairs'),
    ({'samples': 0}, 'samples 0'),
    ({'batch': 0}, 'batch 0'),
    ({'overlong': 'cut'}, "known: .*'error', 'truncate', 'drop'"),
    ({'reward_dir': None}, 'give reward_dir'),
    ({'keep_fn': filters.GlobalThreshold(2.0)}, 'no candidate is left.*loosen'),
    ({'keep_fn': lambda rewards, mask: rewards}, 'must return a bool'),
    ({'window_row_groups': 0}, 'window_row_groups 0'),
  ]:
    with pytest.raises(ValueError, match=message):
      make(sets, **changes)
  with pytest.raises(ValueError, match='step -1'):
    make(sets).batch(-1)
  bare = [group_store.take(group, slice(0, 1)) for group in sets[1][:4]]
  bare = [dataclasses.replace(group, token_log_probs=None) for group in bare]
  group_store.write_group_set(folder / 'bare', bare)
  data = batches.GroupBatches(
    folder / 'bare', batch=2, samples=2, buckets=BUCKETS, log_probs=True
  )
  with pytest.raises(ValueError, match='has no log-probabilities'):
    data.batch(0)


def test_group_batch_equals_the_stored_path(sets):
  folder, groups, _ = sets
  data = batches.GroupBatches(
    folder / 'groups',
    batch=4,
    samples=8,
    buckets=[(9, 9)],
    shuffle=False,
    log_probs=True,
  )
  filled = [group for group in groups if group.tokens][:4]
  batch = batches.group_batch(
    filled, samples=8, source_length=9, target_length=9, log_probs=True
  )
  assert_equal_batches(data.batch(0), batch)


def test_group_batch_errors_and_padding(make_group):
  groups = [make_group(0, 3), make_group(1, 0)]
  shape = {'source_length': 9, 'target_length': 9}
  rewards = [np.array([1, 2, 3], np.float32), np.zeros(0, np.float32)]
  batch = batches.group_batch(groups, samples=4, batch=3, rewards=rewards, **shape)
  assert batch['rewards'].tolist() == [[1, 2, 3, 0], [0] * 4, [0] * 4]
  assert batch['keep'].sum() == 3 and batch['encoder_input_tokens'][1].any()
  assert not batch['encoder_input_tokens'][2].any()
  with pytest.raises(ValueError, match='3 candidates for 2 slots'):
    batches.group_batch(groups, samples=2, **shape)
  with pytest.raises(ValueError, match='2 groups do not fit in a batch of 1'):
    batches.group_batch(groups, samples=4, batch=1, **shape)
  with pytest.raises(ValueError, match='truncate=True'):
    batches.group_batch(groups, samples=3, source_length=9, target_length=1)
  cut = batches.group_batch(
    groups, samples=3, source_length=9, target_length=1, truncate=True
  )
  assert cut['decoder_loss_weights'].sum() == 3
  with pytest.raises(ValueError, match='no token_log_probs'):
    batches.group_batch(
      [make_group(0, log_probs=False)], samples=3, log_probs=True, **shape
    )


def test_chunk_groups(make_group):
  groups = [make_group(0, 7), make_group(1, 0), make_group(2, 3)]
  parts = batches.chunk_groups(groups, 3)
  assert [len(p.tokens) for p in parts] == [3, 3, 1, 0, 3]
  assert sum((p.texts for p in parts), ()) == groups[0].texts + groups[2].texts

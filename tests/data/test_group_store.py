"""The group store: what is written comes back; damage is named."""

import dataclasses
import math
import tempfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rest_jax.data import columns, group_store


def assert_same(left, right):
  for field in dataclasses.fields(group_store.Group):
    a, b = getattr(left, field.name), getattr(right, field.name)
    if field.name in ('tokens', 'token_log_probs') and a is not None:
      assert len(a) == len(b)
      for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype
    elif isinstance(a, np.ndarray):
      np.testing.assert_array_equal(a, b)
      assert a.dtype == b.dtype
    else:
      assert a == b, field.name


def group_strategy():
  floats = st.floats(-50, 0, width=32)

  @st.composite
  def groups(draw):
    samples = draw(st.integers(0, 3))
    lengths = [draw(st.integers(0, 4)) for _ in range(samples)]
    token = st.integers(0, 2**31 - 1)

    def tokens(length):
      return np.array(draw(st.lists(token, min_size=length, max_size=length)), np.int32)

    def log_probs(length):
      values = st.lists(floats, min_size=length, max_size=length)
      return np.array(draw(values), np.float32)

    return group_store.Group(
      source_id='',
      source=draw(st.text(max_size=5)),
      source_tokens=tokens(draw(st.integers(0, 3))),
      reference=draw(st.none() | st.text(max_size=5)),
      texts=tuple(draw(st.text(max_size=5)) for _ in range(samples)),
      tokens=tuple(tokens(length) for length in lengths),
      token_log_probs=tuple(log_probs(n) for n in lengths)
      if draw(st.booleans())
      else None,
      finished=np.array([draw(st.booleans()) for _ in range(samples)], bool),
      origins=tuple(draw(st.sampled_from(['model', 'data'])) for _ in range(samples)),
      renderings=tuple(draw(st.lists(st.text(max_size=5), max_size=2))),
    )

  return groups()


@settings(max_examples=40, deadline=None)
@given(st.lists(group_strategy(), max_size=5), st.data())
def test_round_trip(groups, data):
  groups = [
    dataclasses.replace(group, source_id=f'x/{i}') for i, group in enumerate(groups)
  ]
  with tempfile.TemporaryDirectory() as folder:
    path = group_store.shard_path(folder, 0, 1)
    group_store.write_groups(path, groups)
    read = group_store.read_groups(path)
    assert len(read) == len(groups) == group_store.num_groups(folder)
    for left, right in zip(groups, read, strict=True):
      assert_same(left, right)
    if groups:
      rows = data.draw(st.lists(st.integers(0, len(groups) - 1), max_size=4))
      chosen = group_store.read_groups(path, rows=np.array(rows, np.int64))
      for row, right in zip(rows, chosen, strict=True):
        assert_same(groups[row], right)


def test_rows_across_row_groups(tmp_path, make_group, monkeypatch):
  monkeypatch.setattr(group_store, '_CANDIDATES_PER_ROW_GROUP', 6)  # 2 sources each
  groups = [make_group(i) for i in range(11)]
  path = group_store.shard_path(tmp_path, 0, 1)
  group_store.write_groups(path, groups)
  assert columns.row_group_ranges(path)[:2] == [(0, 2), (2, 4)]
  for rows in ([10, 0, 0, 7], [3], [2, 3], []):
    read = group_store.read_groups(path, rows=np.array(rows, np.int64))
    assert [g.source_id for g in read] == [groups[r].source_id for r in rows]
    for row, group in zip(rows, read, strict=True):
      assert_same(groups[row], group)
  ids = [group.source_id for group in group_store.iterate_groups(tmp_path)]
  assert ids == [group.source_id for group in groups]
  with pytest.raises(ValueError, match=r'row 11 .* 11 rows'):
    group_store.read_groups(path, rows=np.array([1, 11]))


def test_columns_for_people(tmp_path, make_group):
  groups = [make_group(1), make_group(2, log_probs=False), make_group(3, 0)]
  path = group_store.shard_path(tmp_path, 0, 1)
  group_store.write_groups(path, groups)
  table = pq.read_table(path).to_pydict()
  expected = [math.fsum(values.tolist()) for values in groups[0].token_log_probs]
  np.testing.assert_allclose(table['candidate_log_probs'][0], expected, rtol=1e-6)
  assert table['candidate_log_probs'][1] is None
  assert table['candidate_token_log_probs'][1] is None
  assert table['candidate_lengths'] == [[len(t) for t in g.tokens] for g in groups]
  assert table['source_length'] == [len(g.source_tokens) for g in groups]
  assert table['reference'][2] is None


def test_an_infinity_stays_in_its_candidate():
  values = np.array([1, -np.inf, 2, 3], np.float32)
  lengths = np.array([0, 2, 0, 2, 0])
  np.testing.assert_array_equal(
    columns.segment_sums(values, lengths), [0, -np.inf, 0, 5, 0]
  )


def test_fields_not_read_are_empty(tmp_path, make_group):
  path = group_store.shard_path(tmp_path, 0, 1)
  group_store.write_groups(path, [make_group(1)])
  (group,) = group_store.read_groups(path, columns=['source_tokens'])
  np.testing.assert_array_equal(group.source_tokens, make_group(1).source_tokens)
  assert group.texts == ('', '', '') and group.token_log_probs is None
  assert len(group.tokens) == 3 and group.source_id == 'train/00000001'
  with pytest.raises(ValueError, match=r"'rewards'.*known.*'tokens'"):
    group_store.read_groups(path, columns=['rewards'])


def test_take_and_pair(make_group):
  group = make_group(4, 5)
  for chosen in (slice(1, 4), [1, 2, 3], np.array([0, 1, 1, 1, 0], bool)):
    part = group_store.take(group, chosen)
    assert part.texts == group.texts[1:4] and part.origins == group.origins[1:4]
    np.testing.assert_array_equal(part.finished, group.finished[1:4])
    np.testing.assert_array_equal(part.token_log_probs[2], group.token_log_probs[3])
  tokens = np.array([5, 1], np.int32)
  pair = group_store.pair('a', 'x', tokens, 'y', tokens, renderings=['y'])
  assert pair.reference == 'y' and pair.origins == ('data',) and pair.finished.all()
  assert group_store.pair('a', 'x', tokens, None, None).num_candidates == 0
  with pytest.raises(ValueError, match='both'):
    group_store.pair('a', 'x', tokens, 'y', None)


def test_bad_groups(tmp_path, make_group):
  path = group_store.shard_path(tmp_path, 0, 1)
  with pytest.raises(ValueError, match=r"'train/00000001' occurs twice"):
    group_store.write_groups(path, [make_group(1), make_group(2), make_group(1)])
  with pytest.raises(ValueError, match=r"'texts': 2"):
    dataclasses.replace(make_group(1), texts=('a', 'b'))
  short = make_group(2)
  values = (*short.token_log_probs[:2], short.token_log_probs[2][:1])
  short = dataclasses.replace(short, token_log_probs=values)
  with pytest.raises(ValueError, match=r"'train/00000002'.*but 1 token_log_probs"):
    group_store.write_groups(path, [make_group(1, log_probs=False), short])
  assert not path.exists() and not list(tmp_path.iterdir())


def test_shards(tmp_path, make_group):
  with pytest.raises(ValueError, match='not a directory'):
    group_store.list_shards(tmp_path / 'none')
  with pytest.raises(ValueError, match='holds no shard groups-00000'):
    group_store.list_shards(tmp_path)
  group_store.write_group_set(tmp_path, [make_group(i) for i in range(5)], num_shards=3)
  names = [path.name for path in group_store.list_shards(tmp_path)]
  assert names == [f'groups-0000{i}-of-00003.parquet' for i in range(3)]
  assert group_store.num_groups(tmp_path) == 5
  group_store.shard_path(tmp_path, 1, 3).unlink()
  with pytest.raises(ValueError, match=r'lacks groups-00001-of-00003\.parquet'):
    group_store.list_shards(tmp_path)
  group_store.write_groups(group_store.shard_path(tmp_path, 0, 1), [])
  with pytest.raises(ValueError, match=r'mixes groups sets of \[1, 3\]'):
    group_store.list_shards(tmp_path)
  with pytest.raises(ValueError, match='shard 3 of 3'):
    group_store.shard_path(tmp_path, 3, 3)


@pytest.mark.parametrize('damage', ['cut', 'garbage', 'empty', 'middle'])
def test_damaged_files_are_named(tmp_path, make_group, damage):
  path = group_store.shard_path(tmp_path, 0, 1)
  group_store.write_groups(path, [make_group(i, 20) for i in range(20)])
  whole = path.read_bytes()
  middle = whole[:4] + b'\xff' * (len(whole) // 2) + whole[4 + len(whole) // 2 :]
  data = {'cut': whole[:-50], 'garbage': b'x' * 300, 'empty': b'', 'middle': middle}
  path.write_bytes(data[damage])
  with pytest.raises(ValueError, match=r'groups-00000.* damaged .*run the stage'):
    group_store.read_groups(path)


def test_a_flipped_bit_changes_no_group(tmp_path, make_group):
  path = group_store.shard_path(tmp_path, 0, 1)
  group_store.write_groups(path, [make_group(i, 20) for i in range(20)])
  whole = path.read_bytes()
  expected = group_store.read_groups(path)
  named = 0
  for at in range(4, len(whole) - 8, len(whole) // 100):
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
    try:
      found = group_store.read_groups(path)
    except ValueError as error:
      assert path.name in str(error)
      named += 1
      continue
    # In what is not read, such as statistics.
    for a, b in zip(found, expected, strict=True):
      assert (a.source_id, a.source, a.texts) == (b.source_id, b.source, b.texts)
      for field in ('tokens', 'token_log_probs'):
        for x, y in zip(getattr(a, field), getattr(b, field), strict=True):
          np.testing.assert_array_equal(x, y)
  assert named > 50


def test_another_kind_of_shard_is_named(tmp_path):
  path = tmp_path / 'x.parquet'
  group_store.write_rewards(path, ['a'], [np.zeros(2, np.float32)])
  with pytest.raises(ValueError, match=r"x\.parquet has nothing in column 'source'"):
    group_store.read_groups(path)
  with pytest.raises(ValueError, match='does not exist'):
    group_store.read_groups(tmp_path / 'y.parquet')

"""Rated groups: joined from several sets, split by source, in batches."""

import numpy as np
import pytest

from rest_jax.data import group_store
from rest_jax.rewards import learned
from rest_jax.stages import rated as rated_lib

SCALE = learned.RatingScale(mean=1.0, stddev=2.0)
NONE = np.nan


def one(source_id, source, texts, ratings, judgements=None, reference=None):
  group = group_store.Group(
    source_id=source_id,
    source=source,
    source_tokens=np.array([7, 1], np.int32),
    reference=reference,
    texts=tuple(texts),
    # The token tells which candidate of a batch is which.
    tokens=tuple(np.array([ord(text), 1], np.int32) for text in texts),
    token_log_probs=None,
    finished=np.ones(len(texts), bool),
    origins=('model',) * len(texts),
  )
  if judgements is None:
    judgements = np.zeros((len(texts), 0))
  return rated_lib.RatedGroup(
    group, np.array(ratings, np.float32), np.array(judgements, np.float32)
  )


def test_what_is_written_is_read_again(tmp_path):
  rated = [
    one('0', 'x', 'ab', [1, 2], [[1, NONE, 0], [2, 3, NONE]]),
    one('1', 'y', 'c', [4], [[4]]),
  ]
  rated_lib.write(tmp_path, rated)
  for wanted, found in zip(rated, rated_lib.read(tmp_path, tmp_path), strict=True):
    assert found.group.texts == wanted.group.texts
    np.testing.assert_array_equal(found.ratings, wanted.ratings)
    np.testing.assert_array_equal(found.judgements, wanted.judgements)


def test_joining_keeps_a_source_in_one_group():
  old = [one('0', 'x', 'ab', [1, 2], [[1], [2]]), one('1', 'y', 'c', [3])]
  new = [
    one('0', 'y', 'cd', [4, 5], [[4, 6], [5, NONE]]),
    one('1', 'z', 'e', [6]),
    one('2', 'x', 'f', [7], reference='r'),  # another input, so another group
  ]
  joined = rated_lib.join([('old', old), ('new', new)])
  found = {r.group.source_id: (r.group.texts, r.ratings.tolist()) for r in joined}
  assert found == {
    '0': (('a', 'b'), [1, 2]),
    '1': (('c', 'c', 'd'), [3, 4, 5]),
    'new/1': (('e',), [6]),
    '2': (('f',), [7]),
  }
  np.testing.assert_array_equal(joined[1].judgements, [[NONE, NONE], [4, 6], [5, NONE]])


def test_raters_of_two_sets_do_not_compare_each_others_candidates():
  old = [one('0', 'x', 'ab', [1, 2], [[1], [2]])]
  new = [one('7', 'x', 'cd', [8, 9], [[8], [9]])]
  (joined,) = rated_lib.join([('old', old), ('new', new)])
  better = joined.judgements[:, None] > joined.judgements[None, :]
  assert np.argwhere(better.any(axis=-1)).tolist() == [[1, 0], [3, 2]]


def test_a_single_set_stays_as_it_is():
  rated = [one('0', 'x', 'a', [1]), one('1', 'x', 'b', [2])]
  assert rated_lib.join([('only', rated)]) == rated


def test_what_is_added_later_moves_no_source_to_the_other_side():
  rated = [one(str(i), str(i), 'a', [1]) for i in range(200)]
  train, held_out = rated_lib.split(rated, 0.3, seed=1)
  assert len(train) + len(held_out) == 200 and 40 < len(held_out) < 80
  more = [one(str(i), str(i), 'b', [1]) for i in range(150, 300)]
  joined = rated_lib.join([('old', rated), ('new', more)])
  sides = rated_lib.split(joined, 0.3, seed=1)
  ids = lambda side: {r.group.source_id for r in side}
  assert ids(train) <= ids(sides[0]) and ids(held_out) <= ids(sides[1])
  with pytest.raises(ValueError, match=r'of 1 rated sources .* rate more sources'):
    rated_lib.split(rated[:1], 0.3, seed=1)


def test_batches_hold_ratings_and_preferences_of_their_candidates(tmp_path):
  rated = [
    one('0', 'x', 'abc', [1, 3, 5], [[1, NONE], [3, 2], [NONE, 4]]),
    one('1', 'y', 'd', [7], [[1]]),
  ]
  data = rated_lib.RatedBatches(
    tmp_path, rated, SCALE, batch=2, samples=2, buckets=((4, 4),), seed=0
  )
  by_text = {text: r for r in rated for text in r.group.texts}
  preferred = {('b', 'a'), ('c', 'b')}  # one rater each; nobody compared a and c
  seen = []
  for step in range(6):
    batch = data.batch(step)
    assert 'rewards' not in batch
    for row in range(2):
      names = [
        chr(batch['decoder_target_tokens'][row, slot, 0])
        for slot in np.flatnonzero(batch['keep'][row])
      ]
      seen.append(''.join(names))
      for slot, name in enumerate(names):
        texts, ratings = by_text[name].group.texts, by_text[name].ratings
        expected = (ratings[texts.index(name)] - 1) / 2
        assert batch['ratings'][row, slot] == expected
      expected = np.zeros((2, 2))
      for i, j in np.ndindex(len(names), len(names)):
        expected[i, j] = (names[i], names[j]) in preferred
      np.testing.assert_array_equal(batch['preferences'][row], expected)
  # The group of three has two rows; every row comes twice an epoch and a half.
  assert set(seen) >= {'ab', 'c', 'd'}

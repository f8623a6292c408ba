"""The learned reward: rating scale, and scores that do not depend on the cut."""

import jax
import numpy as np
import pytest

from rest_jax.data import batches, group_store
from rest_jax.rewards import learned
from rest_jax.training import mesh as mesh_lib
from tests.models import test_reward

CONFIG = test_reward.CONFIG
SCALE = learned.RatingScale(mean=3.0, stddev=2.0)
COUNTS = (3, 1, 5, 0, 2)


def make_groups():
  """Groups of mixed lengths; in each, some candidates begin alike or are equal.

  The third candidate is the first again, the fourth its beginning, without EOS, and
  the fifth has no token at all.
  """
  rng = np.random.default_rng(2)
  groups = []
  for i, count in enumerate(COUNTS):
    source = np.append(rng.integers(2, 24, 7 - i), 1).astype(np.int32)
    tokens = tuple(
      np.append(rng.integers(2, 24, int(rng.integers(0, 9))), 1).astype(np.int32)
      for _ in range(count)
    )
    if count > 2:
      tokens = (*tokens[:2], tokens[0], *tokens[3:])
    if count > 4:
      tokens = (*tokens[:3], tokens[0][:-1], tokens[4][:0])
    groups.append(
      group_store.Group(
        source_id=f's/{i}',
        source='x',
        source_tokens=source,
        reference=None,
        texts=tuple('y' for _ in tokens),
        tokens=tokens,
        token_log_probs=None,
        finished=np.array([1 in part for part in tokens], bool),
        origins=('model',) * count,
        renderings=(),
      )
    )
  return groups


def make_scorer(*, params=None, mesh=None, **settings):
  return learned.LearnedReward(
    params or test_reward.make_params(),
    CONFIG,
    SCALE,
    mesh=mesh or mesh_lib.make_mesh(devices=jax.devices()[:1]),
    **{'batch_size': 4, 'source_length': 16, 'target_length': 12} | settings,
  )


def score(groups, **settings):
  return make_scorer(**settings)(groups)


def test_scores_are_predictions_on_the_scale_of_the_ratings():
  groups = make_groups()
  # Trees of mixed sizes, and a candidate that is longer than most of them.
  assert {len(t) for group in groups for t in group.tokens} >= {0, 1, 9}
  batch = batches.group_batch(groups, samples=5, source_length=16, target_length=12)
  params = test_reward.make_params()
  predictions = test_reward.PREDICT(params, batch, config=CONFIG)
  scores = score(groups)
  assert [len(values) for values in scores] == list(COUNTS)
  for row, values in enumerate(scores):
    expected = np.asarray(predictions)[row, : COUNTS[row]] * 2 + 3
    # Two shapes of program; the rewards are of size 10.
    np.testing.assert_allclose(values, expected, atol=2e-5)


@pytest.mark.parametrize(
  'settings', [{'batch_size': 1}, {'max_nodes': 1}, {'max_nodes': 9}]
)
def test_scores_do_not_depend_on_how_the_work_is_cut(settings):
  groups = [group for group in make_groups() if group.tokens]
  expected = score(groups)
  for found, values in zip(score(groups, **settings), expected, strict=True):
    np.testing.assert_allclose(found, values, atol=2e-5)


def test_a_call_with_little_to_score_has_small_batches(monkeypatch):
  shapes = {'encode': [], 'predict': []}

  def encode(params, tokens, *, config, encode=learned._encode):
    shapes['encode'].append(tokens.shape)
    return encode(params, tokens, config=config)

  def predict(params, encoded, trees, *, config, predict=learned._predict):
    rows, _, nodes = trees['decoder_positions'].shape
    shapes['predict'].append((rows, nodes))
    return predict(params, encoded, trees, config=config)

  monkeypatch.setattr(learned, '_encode', encode)
  monkeypatch.setattr(learned, '_predict', predict)
  scorer = make_scorer(batch_size=32)  # 128 sources, 4,096 positions
  groups = [group for group in make_groups() if group.tokens]
  few = scorer(groups)
  assert shapes == {'encode': [(16, 16)], 'predict': [(512 // 16, 16)]}
  shapes['encode'].clear()
  shapes['predict'].clear()
  many = scorer(groups * 256)  # of one or two trees of 16 nodes
  assert shapes['encode'] == [(128, 16)] * 8
  assert set(shapes['predict'][:-1]) == {(4096 // 16, 16)}
  for found, values in zip(many, few * 256, strict=True):
    np.testing.assert_allclose(found, values, atol=2e-5)


@pytest.mark.parametrize(
  ('total', 'expected'),
  [(1, 16), (64, 16), (65, 32), (128, 32), (257, 100), (9999, 100)],
)
def test_a_call_has_four_batches_where_they_are_not_too_small(total, expected):
  assert learned._batch_of(total, 16, 100) == expected


def test_a_large_group_scores_as_its_candidates_one_by_one():
  rng = np.random.default_rng(3)
  lengths = rng.integers(0, 9, 200)
  tokens = tuple(rng.integers(2, 5, length).astype(np.int32) for length in lengths)
  group = group_store.Group(
    source_id='s/large',
    source='x',
    source_tokens=np.array([5, 9, 1], np.int32),
    reference=None,
    texts=('y',) * 200,
    tokens=tokens,
    token_log_probs=None,
    finished=np.zeros(200, bool),
    origins=('model',) * 200,
  )
  assert len({part.tobytes() for part in tokens}) < 190  # many are drawn twice
  settings = {'max_nodes': 16, 'batch_size': 4}  # 128 sources a block
  alone = score([group_store.take(group, [i]) for i in range(200)], **settings)
  (together,) = score([group], **settings)
  np.testing.assert_allclose(together, np.concatenate(alone), atol=2e-5)
  assert together[lengths == 0].tolist() == [3.0] * (lengths == 0).sum()


def test_a_candidate_beyond_the_longest_is_refused():
  with pytest.raises(ValueError, match=r'9 tokens is longer than the longest.*8'):
    score(make_groups(), target_length=8)


def test_sources_without_any_candidate_have_no_score():
  bare = [group for group in make_groups() if not group.tokens]
  assert [values.size for values in score(bare)] == [0]


def test_scores_follow_their_groups_in_any_order():
  groups = make_groups()
  expected = score(groups)
  for found, values in zip(score(groups[::-1]), expected[::-1], strict=True):
    np.testing.assert_allclose(found, values, atol=2e-5)


def test_padded_lengths_change_no_score():
  groups = make_groups()
  longer = score(groups, source_length=24, target_length=20)
  for found, values in zip(longer, score(groups), strict=True):
    np.testing.assert_allclose(found, values, atol=2e-5)


def test_the_scale_standardises_and_restores():
  ratings = np.array([0, 2, 4, 6], np.float32)
  scale = learned.RatingScale.fit(ratings)
  assert scale.mean == 3 and scale.stddev == pytest.approx(np.sqrt(5))
  standard = scale.standardise(ratings)
  assert standard.dtype == np.float32
  assert standard.mean() == pytest.approx(0, abs=1e-7)
  assert standard.std() == pytest.approx(1, rel=1e-6)
  np.testing.assert_allclose(scale.restore(standard), ratings, atol=1e-6)


@pytest.mark.parametrize(
  ('ratings', 'told'),
  [
    ([2.0, 2.0], r'of 2 ratings all are 2\.0'),
    ([], 'of 0 ratings there are none'),
    ([1.0, float('nan')], 'not finite'),
  ],
)
def test_ratings_that_teach_nothing_are_refused(ratings, told):
  with pytest.raises(ValueError, match=told):
    learned.RatingScale.fit(np.array(ratings))

import json

import numpy as np
import pytest
import scipy.stats

from rest_jax.rewards import agreement


def _groups(sizes, seed=0, levels=None):
  rng = np.random.default_rng(seed)
  predicted = [rng.normal(size=size) for size in sizes]
  target = [p + rng.normal(size=len(p)) for p in predicted]
  if levels:  # ties
    predicted, target = (
      [np.round(v * levels) / levels for v in side] for side in (predicted, target)
    )
  return predicted, target


@pytest.mark.parametrize('levels', [None, 1])
@pytest.mark.parametrize('size', [2, 3, 8, 30, 129, 200])
def test_correlations_in_groups_equal_scipys(size, levels):
  predicted, target = _groups([size] * 6 + [5] * 3, levels=levels)
  result = agreement.correlations_in_groups(predicted, target)
  for index, (x, y) in enumerate(zip(predicted, target, strict=True)):
    if len(set(x)) > 1 and len(set(y)) > 1:
      expected = (
        scipy.stats.pearsonr(x, y).statistic,
        scipy.stats.spearmanr(x, y).statistic,
        scipy.stats.kendalltau(x, y).statistic,  # tau-b
      )
      np.testing.assert_allclose([c[index] for c in result], expected, atol=1e-12)
    else:
      assert all(np.isnan(c[index]) for c in result)


def test_kendall_in_blocks_equals_kendall_at_once(monkeypatch):
  predicted, target = _groups([6] * 40, levels=2)
  whole = agreement.correlations_in_groups(predicted, target)
  monkeypatch.setattr(agreement, '_MAX_COMPARISONS', 15 * 7)
  parts = agreement.correlations_in_groups(predicted, target)
  np.testing.assert_array_equal(whole.kendall, parts.kendall)


def test_agreement_by_hand():
  # Group 0: perfect. Group 1: 1 of 3 pairs discordant, tau 1/3, rho 1/2.
  # Group 2: constant prediction; group 3: one candidate; group 4: none.
  predicted = [[1.0, 2.0], [1.0, 2.0, 3.0], [4.0, 4.0], [5.0], []]
  target = [[0.1, 0.2], [1.0, 3.0, 2.0], [0.0, 9.0], [1.0], []]
  result = agreement.agreement(
    [np.array(p) for p in predicted], [np.array(t) for t in target]
  )
  assert (result.groups_used, result.groups_skipped, result.pairs) == (2, 3, 8)
  assert result.kendall_in_groups == pytest.approx((1 + 1 / 3) / 2)
  assert result.spearman_in_groups == pytest.approx((1 + 1 / 2) / 2)
  assert result.pearson_in_groups == pytest.approx((1 + 1 / 2) / 2)


def test_over_all_pairs_equals_scipy_on_the_pooled_values():
  predicted, target = _groups([3, 8, 8, 1], levels=2)
  result = agreement.agreement(predicted, target)
  x, y = np.concatenate(predicted), np.concatenate(target)
  assert result.pearson == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
  assert result.spearman == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
  assert result.kendall == pytest.approx(scipy.stats.kendalltau(x, y).statistic)


def test_difficulty_of_sources_shows_over_all_pairs_and_not_inside_groups():
  rng = np.random.default_rng(0)
  difficulty = rng.normal(0, 10, 300)
  predicted = [d + rng.normal(size=8) for d in difficulty]
  target = [d + rng.normal(size=8) for d in difficulty]
  result = agreement.agreement(predicted, target)
  assert result.spearman > 0.9
  assert abs(result.spearman_in_groups) < 0.1


def test_monotone_maps_of_one_side_keep_the_ranks():
  predicted, target = _groups([8] * 20 + [4] * 5)
  before = agreement.agreement(predicted, target)
  after = agreement.agreement([np.exp(p) for p in predicted], target)
  for name in ('spearman', 'kendall', 'spearman_in_groups', 'kendall_in_groups'):
    assert getattr(after, name) == pytest.approx(getattr(before, name), abs=1e-12)
  assert after.pearson != pytest.approx(before.pearson, abs=1e-3)
  swapped = agreement.agreement(target, predicted)
  assert swapped.kendall_in_groups == pytest.approx(before.kendall_in_groups)
  opposite = agreement.agreement([-p for p in predicted], target)
  assert opposite.kendall_in_groups == pytest.approx(-before.kendall_in_groups)


@pytest.mark.parametrize('scale', [1e-38, 1e37])
def test_the_ends_of_float32_do_not_underflow(scale):
  x = [np.array([1.0, 2.0, 4.0], np.float32) * np.float32(scale)]
  result = agreement.agreement(x, x)  # squares in float32 would be 0 or infinite
  assert result.pearson_in_groups == pytest.approx(1.0)
  assert result.pearson == pytest.approx(1.0)


def test_undefined_is_none_and_json_able():
  for groups in ([], [np.array([1.0])], [np.array([2.0, 2.0]), np.array([2.0, 2.0])]):
    result = agreement.agreement(groups, groups)
    assert result.spearman is None and result.kendall_in_groups is None
    assert result.groups_used == 0 and result.groups_skipped == len(groups)
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
  ('predicted', 'target', 'message'),
  [
    ([[1.0]], [], '1 predicted groups and 0'),
    ([[1.0], [1.0]], [[1.0], [1.0, 2.0]], 'group 1'),
    ([[[1.0]]], [[[1.0]]], r'must be \[samples\]'),
    ([[1.0, np.nan]], [[1.0, 2.0]], 'group 0 has a value'),
    ([[1.0, 2.0]], [[1.0, -np.inf]], 'not finite'),
  ],
)
def test_errors(predicted, target, message):
  with pytest.raises(ValueError, match=message):
    agreement.agreement(predicted, target)


def test_resamples_take_whole_sources_and_pair_two_scorers():
  predicted, target = _groups([3, 2, 2, 4])
  rows = agreement.resampled_correlations(predicted, target, seed=5, num_resamples=40)
  again = agreement.resampled_correlations(predicted, target, seed=5, num_resamples=40)
  np.testing.assert_array_equal(rows, again)
  # What a resample may be, by its sources: a cut through a group gives none of these.
  possible = []
  for drawn in np.ndindex(4, 4, 4, 4):
    x, y = (np.concatenate([side[i] for i in drawn]) for side in (predicted, target))
    possible.append(
      (
        scipy.stats.pearsonr(x, y).statistic,
        scipy.stats.spearmanr(x, y).statistic,
        scipy.stats.kendalltau(x, y).statistic,
      )
    )
  gaps = np.abs(rows[:, None] - np.array(possible)[None]).max(axis=-1)
  assert gaps.min(axis=1).max() < 1e-9
  assert len(np.unique(rows[:, 0].round(9))) > 10
  # One seed draws the same sources for any scorer: a monotone map keeps the ranks.
  curved = [np.exp(values) for values in predicted]
  other = agreement.resampled_correlations(curved, target, seed=5, num_resamples=40)
  np.testing.assert_allclose(other[:, 1:], rows[:, 1:], atol=1e-12)
  with pytest.raises(ValueError, match='has equal values on one side'):
    agreement.resampled_correlations([np.ones(3)] * 3, target[:1] * 3, seed=0)

import json
import math

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from rest_jax import filters

# Few distinct values, so that ties are common, and arbitrary ones.
_VALUES = st.one_of(
  st.sampled_from([0.0, -0.0, 0.25, 0.5, 0.7, 0.8, 1.0]),
  st.floats(-2, 2, width=32),
)
_QUICK = hypothesis.settings(max_examples=60, deadline=None)


@st.composite
def batches(draw):
  shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 7)))
  rewards = draw(hnp.arrays(np.float32, shape, elements=_VALUES))
  mask = draw(hnp.arrays(np.bool_, shape))
  return rewards, mask


@st.composite
def any_filter(draw):
  return draw(
    st.one_of(
      st.just(filters.KeepAll()),
      st.builds(filters.GlobalThreshold, st.floats(-1, 1)),
      st.builds(filters.SourcePercentile, st.floats(0, 99.9)),
      st.builds(filters.SourceInterpolation, st.floats(0, 0.99)),
      st.builds(filters.TopK, st.integers(1, 9)),
    )
  )


def _row(*rewards):
  rewards = np.array([rewards], np.float32)
  return rewards, np.ones(rewards.shape, bool)


@_QUICK
@hypothesis.given(batches(), any_filter())
def test_masked_candidates_are_never_kept_and_their_contents_never_matter(batch, fn):
  rewards, mask = batch
  keep = fn(rewards, mask)
  assert keep.dtype == np.bool_ and keep.shape == mask.shape
  assert not (keep & ~mask).any()
  for filler in (np.nan, np.inf, -np.inf, 5.0):
    other = np.where(mask, rewards, np.float32(filler))
    np.testing.assert_array_equal(fn(other, mask), keep)


@_QUICK
@hypothesis.given(batches(), any_filter(), st.integers(1, 9))
def test_padding_columns_change_nothing(batch, fn, width):
  rewards, mask = batch
  wide = np.pad(rewards, ((0, 0), (0, width)), constant_values=np.nan)
  keep = fn(wide, np.pad(mask, ((0, 0), (0, width))))
  np.testing.assert_array_equal(keep[:, : mask.shape[1]], fn(rewards, mask))
  assert not keep[:, mask.shape[1] :].any()


@_QUICK
@hypothesis.given(batches(), any_filter(), st.randoms(use_true_random=False))
def test_sources_permute_with_any_filter(batch, fn, random):
  rewards, mask = batch
  order = random.sample(range(len(mask)), len(mask))
  np.testing.assert_array_equal(fn(rewards[order], mask[order]), fn(*batch)[order])


@_QUICK
@hypothesis.given(batches(), any_filter(), st.randoms(use_true_random=False))
def test_candidates_permute_except_for_top_k_on_ties(batch, fn, random):
  rewards, mask = batch
  order = random.sample(range(mask.shape[1]), mask.shape[1])
  keep, permuted = fn(rewards, mask)[:, order], fn(rewards[:, order], mask[:, order])
  if isinstance(fn, filters.TopK):  # the same rewards, whichever of the tied ones
    kept = lambda r, k: np.sort(np.where(k, r, np.inf), axis=1)
    np.testing.assert_array_equal(
      kept(rewards[:, order], keep), kept(rewards[:, order], permuted)
    )
  else:
    np.testing.assert_array_equal(keep, permuted)


@_QUICK
@hypothesis.given(batches(), st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_kept_sets_are_nested_in_the_parameter(batch, pair):
  low, high = sorted(pair)
  families = {
    'threshold': lambda t: filters.GlobalThreshold(t),
    'percentile': lambda t: filters.SourcePercentile(t * 99.9),
    'interpolation': lambda t: filters.SourceInterpolation(t * 0.999),
    'top_k': lambda t: filters.TopK(1 + round((1 - t) * 8)),
  }
  for name, family in families.items():
    more, fewer = family(low)(*batch), family(high)(*batch)
    assert not (fewer & ~more).any(), name


@_QUICK
@hypothesis.given(batches(), st.integers(1, 9))
def test_top_k_keeps_min_k_n_and_nothing_better_is_left_out(batch, k):
  rewards, mask = batch
  keep = filters.TopK(k)(rewards, mask)
  np.testing.assert_array_equal(keep.sum(1), np.minimum(k, mask.sum(1)))
  for r, m, kept in zip(rewards, mask, keep, strict=True):
    if kept.any() and (m & ~kept).any():
      assert r[kept].min() >= r[m & ~kept].max()


def test_top_k_breaks_ties_by_candidate_order():
  keep = filters.TopK(2)(*_row(0.5, 0.9, 0.5, 0.5))
  np.testing.assert_array_equal(keep, [[True, True, False, False]])
  keep = filters.TopK(1)(*_row(0.0, -0.0))
  np.testing.assert_array_equal(keep, [[True, False]])
  # Long enough for an unstable sort to show.
  keep = filters.TopK(3)(*_row(*[0.5] * 200, 0.7, *[0.5] * 200))
  np.testing.assert_array_equal(np.flatnonzero(keep), [0, 1, 200])


@_QUICK
@hypothesis.given(batches(), st.floats(0, 0.999))
def test_interpolation_lies_between_mean_and_maximum(batch, gamma):
  rewards, mask = batch
  keep = filters.SourceInterpolation(gamma)(rewards, mask)
  for r, m, kept in zip(rewards.astype(np.float64), mask, keep, strict=True):
    values = r[m]
    if not len(values) or values.min() == values.max():
      assert not kept.any()
      continue
    tau = gamma * values.max() + (1 - gamma) * values.sum() / len(values)
    clear = m & (np.abs(r - tau) > 1e-9)  # the two formulas round differently
    np.testing.assert_array_equal(kept[clear], (r > tau)[clear])
    if gamma < 0.99 and values.max() - values.mean() > 1e-6:
      assert kept[m & (r == values.max())].all()


def test_interpolation_by_hand():
  # mean 5/8, max 1: gamma = 1/2 gives 13/16, gamma = 0 gives 5/8.
  row = _row(0.25, 0.5, 0.75, 1.0)
  half = filters.SourceInterpolation(0.5)(*row)
  np.testing.assert_array_equal(half, [[False, False, False, True]])
  zero = filters.SourceInterpolation(0.0)(*row)
  np.testing.assert_array_equal(zero, [[False, False, True, True]])


@pytest.mark.parametrize('gamma', [0.1, 0.3, 0.7, 0.9])
@pytest.mark.parametrize('value', [0.1, 0.3, 0.83, 0.95])
def test_interpolation_empties_a_constant_source(gamma, value):
  # gamma * max + (1 - gamma) * mean rounds below the maximum for some of these,
  # and would keep the whole source.
  assert not filters.SourceInterpolation(gamma)(*_row(*[value] * 7)).any()


@pytest.mark.parametrize(
  ('p', 'count', 'kept'),
  [(90, 8, 1), (90, 10, 1), (90, 11, 1), (90, 100, 10), (50, 8, 4), (0, 8, 7)]
  + [(75, 5, 1), (29, 101, 71), (99.9, 1001, 1), (7, 101, 93)],
)
def test_percentile_counts(p, count, kept):
  # Position p / 100 * (n - 1): 29 % of 100 is 29 exactly, so r_29 is dropped too
  # (in floats 0.29 * 100 = 28.999999999999996, which would keep 72).
  assert count - 1 - math.floor(p * (count - 1) / 100) == kept
  rewards = np.random.default_rng(0).permutation(count).astype(np.float32)[None]
  keep = filters.SourcePercentile(p)(rewards, np.ones(rewards.shape, bool))
  assert keep.sum() == kept
  assert rewards[keep].min() == count - kept


@_QUICK
@hypothesis.given(batches(), st.floats(0, 99.9))
def test_percentile_equals_numpy(batch, p):
  rewards, mask = batch
  keep = filters.SourcePercentile(p)(rewards, mask)
  for r, m, kept in zip(rewards.astype(np.float64), mask, keep, strict=True):
    if m.any():
      tau = np.percentile(r[m], p)
      clear = m & (np.abs(r - tau) > 1e-9)
      np.testing.assert_array_equal(kept[clear], (r > tau)[clear])


def test_percentile_ties_and_single_candidates():
  fn = filters.SourcePercentile(50)
  assert not fn(*_row(0.4)).any()
  assert not fn(*_row(0.4, 0.4, 0.4)).any()
  np.testing.assert_array_equal(fn(*_row(0.1, 0.9, 0.5, 0.9)), [[0, 1, 0, 1]])
  assert not fn(*_row(0.1, 0.9, 0.9, 0.9)).any()  # the median is the best reward


def test_global_threshold_is_strict_in_float32():
  row = _row(0.7, 0.8, 0.9, 0.95, 0.99)
  # float32(0.8) > 0.8 in float64: that comparison would keep the tie.
  assert np.float64(np.float32(0.8)) > 0.8
  for index, tau in enumerate(filters.PAPER_THRESHOLDS[1:]):
    expected = [[column > index for column in range(5)]]
    np.testing.assert_array_equal(filters.GlobalThreshold(tau)(*row), expected)


def test_tau_zero_drops_exact_zeros_and_keep_all_does_not():
  row = _row(0.0, -0.0, 1e-30, 0.5)
  np.testing.assert_array_equal(filters.GlobalThreshold(0.0)(*row), [[0, 0, 1, 1]])
  assert filters.KeepAll()(*row).all()


def _split(rewards, random):
  cuts = sorted(random.sample(range(len(rewards) + 1), min(2, len(rewards))))
  parts = np.split(rewards, cuts)
  return [(part[None], np.ones((1, len(part)), bool)) for part in parts]


@_QUICK
@hypothesis.given(
  st.lists(_VALUES, min_size=1, max_size=40),
  st.floats(0.01, 0.99),
  st.randoms(use_true_random=False),
)
def test_global_quantile_is_the_inverted_cdf(values, q, random):
  values = np.array(values, np.float32)
  expected = np.sort(values)[math.ceil(q * len(values)) - 1]
  hypothesis.assume(abs(q * len(values) - round(q * len(values))) > 1e-9)
  parts = _split(values, random)
  if expected == values.max():
    with pytest.raises(ValueError, match=r'keep\s+nothing'):
      filters.GlobalQuantile(q).fit(parts)
  else:
    fitted = filters.GlobalQuantile(q).fit(parts)
    assert fitted.tau == expected
    # A generator can be read once only, and must give the same threshold.
    assert filters.GlobalQuantile(q).fit(part for part in parts) == fitted


@pytest.mark.parametrize(
  ('q', 'kept'), [(0.07, 93), (0.9, 10), (0.29, 71), (0.995, 5), (0.5, 50)]
)
def test_global_quantile_counts_in_decimals(q, kept):
  # 0.07 * 100 is 7.000000000000001 in floats; its ceiling would keep 92.
  count = 1000 if q == 0.995 else 100
  rewards = np.random.default_rng(1).permutation(count).astype(np.float32)
  rewards = (rewards / count - 0.5).reshape(-1, 4)
  mask = np.ones(rewards.shape, bool)
  fitted = filters.GlobalQuantile(q).fit([(rewards, mask)])
  assert fitted(rewards, mask).sum() == kept


def test_global_quantile_ignores_masked_rewards():
  rewards = np.array([[0.1, np.nan, 0.2], [0.3, 9.0, 0.4]], np.float32)
  mask = np.array([[True, False, True], [True, False, True]])
  assert filters.GlobalQuantile(0.5).fit([(rewards, mask)]).tau == np.float32(0.2)


def test_global_quantile_errors_name_the_remedy():
  with pytest.raises(ValueError, match=r'inside \(0, 1\)'):
    filters.GlobalQuantile(1.0)
  with pytest.raises(ValueError, match=r'call \.fit'):
    filters.GlobalQuantile(0.9)(*_row(0.5))
  with pytest.raises(ValueError, match='no rewards'):
    filters.GlobalQuantile(0.9).fit([])
  with pytest.raises(ValueError, match=r'choose q <= 0\.75'):
    filters.GlobalQuantile(0.9).fit([_row(0.1, 0.2, 0.3, 1.0), _row(0.2)][:1] * 3)
  with pytest.raises(ValueError, match='All rewards are equal'):
    filters.GlobalQuantile(0.9).fit([_row(0.5, 0.5)])


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: filters.SourceInterpolation(1.0), r'TopK\(1\)'),
    (lambda: filters.SourceInterpolation(-0.1), r'\[0, 1\)'),
    (lambda: filters.SourceInterpolation(math.nan), r'\[0, 1\)'),
    (lambda: filters.SourcePercentile(100), r'\[0, 100\)'),
    (lambda: filters.GlobalThreshold(math.inf), r'KeepAll\(\)'),
    (lambda: filters.TopK(0), 'at least 1'),
    (lambda: filters.TopK(1.5), 'whole number'),
    (lambda: filters.KeepAll()(np.zeros(3, np.float32), np.ones(3, bool)), r'\[None'),
    (lambda: filters.KeepAll()(np.zeros((1, 3)), np.ones((1, 3))), 'mask bool'),
    (lambda: filters.TopK(1)(*_row(0.5, math.nan)), 'candidate 1 in row 0'),
  ],
)
def test_errors(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_identities_are_json_and_tell_filters_apart():
  made = [
    filters.KeepAll(),
    filters.GlobalThreshold(0.7),
    filters.GlobalThreshold(0.8),
    filters.GlobalQuantile(0.7),
    filters.SourcePercentile(90),
    filters.SourceInterpolation(0.5),
    filters.TopK(2),
  ]
  texts = [json.dumps(fn.identity(), sort_keys=True) for fn in made]
  assert len(set(texts)) == len(made)
  assert filters.GlobalThreshold(0.7).identity() == {
    'filter': 'GlobalThreshold',
    'tau': 0.7,
  }


def test_a_batch_without_candidates_or_rows():
  for shape in ((0, 3), (2, 0), (2, 3)):
    rewards, mask = np.zeros(shape, np.float32), np.zeros(shape, bool)
    for fn in (
      filters.KeepAll(),
      filters.GlobalThreshold(0.5),
      filters.SourcePercentile(50),
      filters.SourceInterpolation(0.5),
      filters.TopK(1),
    ):
      assert fn(rewards, mask).shape == shape
      assert not fn(rewards, mask).any()


def test_extremes_keep_both_ends_by_hand():
  rewards = np.array([[5, 1, 4, 2, 3, 99], [7, 7, 7, 0, 0, 0]], np.float32)
  mask = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]], bool)
  # The 75th percentile of 1..5 is 4: strictly above it is 5, strictly below 2 is 1.
  expected = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], bool)
  np.testing.assert_array_equal(filters.SourceExtremes(75)(rewards, mask), expected)
  # At the median all but the median itself.
  kept = filters.SourceExtremes(50)(rewards, mask)
  np.testing.assert_array_equal(kept[0], [1, 1, 1, 1, 0, 0])
  with pytest.raises(ValueError, match=r'p must lie in \[50, 100\)'):
    filters.SourceExtremes(40)


def test_report_counts_by_hand():
  report = filters.FilterReport()
  mask = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0]], bool)
  keep = np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]], bool)
  tokens = np.array([[3, 5, 99], [7, 1, 2], [99, 99, 99]])
  report.update(keep, mask, source_ids=['a', 'b', ''], num_tokens=tokens)
  report.update(keep[:1], mask[:1], source_ids=['c'], num_tokens=tokens[:1])
  assert report.to_dict() == {
    'candidates': 7,
    'kept_candidates': 2,
    'kept_fraction': 2 / 7,
    'sources': 3,
    'kept_sources': 2,
    'most_kept': 1,
    'emptied_sources': 1,
    'first_emptied': ['b'],
    'tokens': 26,
    'kept_tokens': 10,
  }


@_QUICK
@hypothesis.given(batches(), any_filter())
def test_report_does_not_depend_on_the_batching(batch, fn):
  rewards, mask = batch
  keep = fn(rewards, mask)
  ids = [f's{row}' for row in range(len(mask))]
  whole, parts = filters.FilterReport(), filters.FilterReport()
  whole.update(keep, mask, source_ids=ids)
  for row in range(len(mask)):
    parts.update(keep[row : row + 1], mask[row : row + 1], source_ids=ids[row:][:1])
  assert whole == parts
  assert whole.emptied_sources == len(whole.first_emptied)


def test_report_bounds_the_ids_and_refuses_strays():
  report = filters.FilterReport()
  mask = np.ones((25, 1), bool)
  report.update(~mask, mask, source_ids=[str(i) for i in range(25)])
  assert report.emptied_sources == 25
  assert report.first_emptied == [str(i) for i in range(10)]
  with pytest.raises(ValueError, match="source 'x'"):
    report.update(mask[:1], ~mask[:1], source_ids=['x'])
  assert filters.FilterReport().kept_fraction == 0.0


def _check(tau, **kwargs):
  filters.check_threshold(tau, **{'mean_reward': 0.62, 'max_reward': 1.0} | kwargs)


def test_check_threshold_accepts_the_papers_sequence():
  previous = None
  for tau in filters.PAPER_THRESHOLDS[1:]:
    _check(tau, previous_tau=previous)
    previous = tau


@pytest.mark.parametrize(
  ('tau', 'kwargs', 'messages'),
  [
    (0.6, {}, ['tau_1 must exceed the mean', '0.62 < tau < 1', '0.7, 0.8, 0.9, 0.95']),
    (0.62, {}, ['tau_1 must exceed the mean']),
    (0.8, {'previous_tau': 0.8}, ['higher threshold than the last', '0.8 < tau']),
    (0.9, {'max_reward': 0.85}, ['keeps nothing', '0.62 < tau < 0.85', '0.7, 0.8)']),
    (0.85, {'max_reward': 0.85}, ['keeps nothing']),
    (0.9, {'previous_tau': 0.95, 'max_reward': 0.9}, ['No threshold works', 'TopK']),
    (math.nan, {}, ['finite number']),
  ],
)
def test_check_threshold_says_what_would_work(tau, kwargs, messages):
  with pytest.raises(ValueError, match='Threshold tau') as caught:
    _check(tau, **kwargs)
  for message in messages:
    assert message in str(caught.value)


def test_check_threshold_uses_the_filters_float32_comparison():
  # float32(0.8) > 0.8 in float64, but GlobalThreshold(0.8) drops it.
  with pytest.raises(ValueError, match='keeps nothing'):
    _check(0.8, max_reward=float(np.float32(0.8)))


def test_check_threshold_reports_the_kept_shares():
  rewards = np.linspace(0.24, 1.0, 1000, dtype=np.float32)
  with pytest.raises(ValueError, match='In the given rewards') as caught:
    _check(0.5, rewards=rewards)
  assert '0.8101 keeps 25.0%' in str(caught.value)

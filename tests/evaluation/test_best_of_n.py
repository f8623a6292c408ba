"""Best-of-N from one pool: by hand, against all subsets, against Monte Carlo."""

import fractions
import itertools
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from rest_jax.evaluation import best_of_n, intervals, text_metrics

Fraction = fractions.Fraction


def _all_subsets(judge, n):
  """The selection by definition, in exact fractions: every subset, ties shared."""
  chosen = [Fraction(0)] * len(judge)
  subsets = list(itertools.combinations(range(len(judge)), n))
  for subset in subsets:
    top = max(judge[i] for i in subset)
    best = [i for i in subset if judge[i] == top]
    for i in best:
      chosen[i] += Fraction(1, len(best) * len(subsets))
  return chosen


def test_a_pool_of_four_by_hand():
  # Pairs of four: the best is the winner of 3 of 6 pairs, then 2, 1 and 0. With
  # replacement the best would have 7/16 instead of 1/2.
  judge = np.array([0.3, 0.9, 0.1, 0.5])
  selection = best_of_n.selection_probabilities(judge, [1, 2, 4])
  np.testing.assert_allclose(selection[0], 1 / 4, rtol=1e-15)
  np.testing.assert_allclose(selection[1], [1 / 6, 1 / 2, 0, 1 / 3], rtol=1e-15)
  np.testing.assert_array_equal(selection[2], [0, 1, 0, 0])
  # Values other than the judge's: 10/6 + 20/2 + 30 * 0 + 40/3 = 25.
  expected = best_of_n.expected_values([selection], [np.array([10, 20, 30, 40])])
  np.testing.assert_allclose(expected, [[25, 25, 20]], rtol=1e-15)


def test_ties_by_hand():
  # Pairs of (0, 7, 7, 7): the 0 never wins, and the three are alike. A sort that
  # broke ties by place would give 1/6, 1/3, 1/2.
  selection = best_of_n.selection_probabilities(np.array([7.0, 0, 7, 7]), [2])
  np.testing.assert_allclose(selection, [[1 / 3, 0, 1 / 3, 1 / 3]], rtol=1e-15)
  # Pairs of (5, 5, 8): 8 wins two of three, the others share the pair without it.
  selection = best_of_n.selection_probabilities(np.array([5.0, 8, 5]), [2])
  np.testing.assert_allclose(selection, [[1 / 6, 2 / 3, 1 / 6]], rtol=1e-15)


@hypothesis.given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.data())
@hypothesis.settings(max_examples=60)
def test_equals_the_mean_over_all_subsets(judge, data):
  n = data.draw(st.integers(1, len(judge)))
  selection = best_of_n.selection_probabilities(np.array(judge), [n])[0]
  expected = [float(p) for p in _all_subsets(judge, n)]
  np.testing.assert_allclose(selection, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize(('size', 'n'), [(1000, 200), (1000, 500), (1000, 999)])
def test_a_large_pool_equals_exact_fractions(size, n):
  judge = np.random.default_rng(0).permutation(size)
  selection = best_of_n.selection_probabilities(judge, [n])[0]
  total = math.comb(size, n)
  exact = [float(Fraction(math.comb(int(r), n - 1), total)) for r in judge]
  # 1,000 factors, each rounded to 1.1e-16. The smallest of C(1000, 500) is 1e-300.
  np.testing.assert_allclose(selection, exact, rtol=1e-12, atol=0)
  assert selection.sum() == pytest.approx(1, rel=1e-12)


def test_monte_carlo_agrees():
  rng = np.random.default_rng(0)
  judge = rng.integers(0, 20, 50)  # with ties
  value = 0.1 * judge + rng.normal(size=50)
  selection = best_of_n.selection_probabilities(judge, [10])
  (expected,) = best_of_n.expected_values([selection], [value])
  num = 40_000
  places = rng.permuted(np.tile(np.arange(50), (num, 1)), axis=1)[:, :10]
  # The first of the best in a random order: a random tie-break.
  best = places[np.arange(num), judge[places].argmax(axis=1)]
  found = value[best]
  error = found.std() / np.sqrt(num)
  assert expected[0] == pytest.approx(found.mean(), abs=4 * error)
  assert abs(expected[0] - value.mean()) > 20 * error  # N = 1 would be told apart


def test_a_pool_is_unbiased_for_fresh_samples():
  # Uniform rewards: the best of 5 has the mean 5/6. Sampling 5 of 20 with
  # replacement would be biased to 0.80.
  rng = np.random.default_rng(0)
  pools = list(rng.random((4000, 20)))
  selections = [best_of_n.selection_probabilities(pool, [5]) for pool in pools]
  found = best_of_n.expected_values(selections, pools)
  error = found.std() / np.sqrt(len(pools))
  assert found.mean() == pytest.approx(5 / 6, abs=4 * error)
  assert 4 * error < 0.01


def test_the_curve_is_monotone_in_the_judge_and_ends_at_the_best():
  rng = np.random.default_rng(0)
  judges = list(rng.integers(0, 9, (30, 60)).astype(float))
  numbers = best_of_n.numbers_up_to(60)
  assert numbers == (1, 2, 5, 10, 25, 50)
  selections = [
    best_of_n.selection_probabilities(judge, (*numbers, 60)) for judge in judges
  ]
  rows = best_of_n.curve(
    selections, {'judge': judges, 'minus': [-j for j in judges]}, seed=3
  )
  means = [row['judge'].mean for row in rows]
  assert means == sorted(means)
  assert means[0] == pytest.approx(np.mean(judges), rel=1e-12)
  assert means[-1] == pytest.approx(np.mean([j.max() for j in judges]), rel=1e-12)
  by_source = best_of_n.expected_values(selections, judges)[:, 2]
  assert rows[2]['judge'] == intervals.bootstrap_mean(by_source, seed=3)
  assert rows[2]['minus'].mean == pytest.approx(-means[2], rel=1e-12)


def test_a_constant_judge_selects_evenly_at_every_n():
  selection = best_of_n.selection_probabilities(np.full(7, 2.5), [1, 3, 7])
  np.testing.assert_allclose(selection, 1 / 7, rtol=1e-14)


def test_pools_of_different_sizes_have_one_curve():
  judges = [np.arange(3.0), np.arange(5.0)]
  selections = [best_of_n.selection_probabilities(j, [2]) for j in judges]
  expected = best_of_n.expected_values(selections, judges)
  # Best of 2 of (0, 1, 2): (1 + 2 + 2) / 3; of (0..4): (1 + 2*2 + 3*3 + 4*4) / 10.
  np.testing.assert_allclose(expected, [[5 / 3], [3]], rtol=1e-15)


WORDS = 'the a cat dog sat ran on under mat sofa and then it . slept long'.split()


def _pools(num_sources, size, seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda: ' '.join(rng.choice(WORDS, rng.integers(3, 9)))
  references = [draw() for _ in range(num_sources)]
  pools = [
    tuple(
      ' '.join(w if rng.random() < 0.7 else rng.choice(WORDS) for w in ref.split())
      for _ in range(size)
    )
    for ref in references
  ]
  return [f'test/{i}' for i in range(num_sources)], pools, references


def _bleu_pool(source_ids, pools, references):
  return best_of_n.CorpusPool(
    source_ids,
    pools,
    references,
    counts_fn=intervals.bleu_counts,
    score_fn=intervals.bleu_of_counts,
  )


def test_corpus_bleu_equals_the_mean_over_all_corpora():
  # 3 sources of 4 candidates: 64 corpora, each with its probability.
  source_ids, pools, references = _pools(3, 4)
  rng = np.random.default_rng(1)
  selections = [best_of_n.selection_probabilities(rng.random(4), [1, 2]) for _ in pools]
  pool = _bleu_pool(source_ids, pools, references)
  found = pool.curve(selections, num_draws=400, seed=0)
  for row, estimate in enumerate(found):
    weights, scores = [], []
    for places in itertools.product(range(4), repeat=3):
      picked = list(zip(selections, pools, places, strict=True))
      weights.append(math.prod(s[row, place] for s, _, place in picked))
      texts = [texts[place] for _, texts, place in picked]
      scores.append(text_metrics.corpus_bleu(texts, references).score)
    mean = np.average(scores, weights=weights)
    stddev = np.sqrt(np.average((np.array(scores) - mean) ** 2, weights=weights))
    # Unstratified draws would be as far as 4 standard errors.
    error = stddev / np.sqrt(400)
    assert estimate.interval.mean == pytest.approx(mean, abs=4 * error)
    assert estimate.stddev == pytest.approx(stddev, rel=0.15)
  assert found[1].interval.mean != pytest.approx(found[0].interval.mean, abs=1)


def test_a_certain_selection_has_the_bootstrap_of_plain_bleu():
  source_ids, pools, references = _pools(20, 6)
  judges = np.random.default_rng(1).random((20, 6))
  selections = [best_of_n.selection_probabilities(judge, [6]) for judge in judges]
  texts = [pool[judge.argmax()] for pool, judge in zip(pools, judges, strict=True)]
  pool = _bleu_pool(source_ids, pools, references)
  (found,) = pool.curve(selections, num_draws=3, seed=5)
  expected = intervals.bootstrap_bleu(texts, references, seed=5)
  assert found.stddev == pytest.approx(0, abs=1e-9)
  for name in ('mean', 'low', 'high'):
    assert getattr(found.interval, name) == pytest.approx(getattr(expected, name))
  assert found.interval.mean == pytest.approx(
    text_metrics.corpus_bleu(texts, references).score
  )


def test_chrf_of_the_pool_is_sacrebleus():
  source_ids, pools, references = _pools(5, 3)
  pool = best_of_n.CorpusPool(
    source_ids,
    pools,
    references,
    counts_fn=intervals.chrf_counts,
    score_fn=intervals.chrf_of_counts,
  )
  selections = [np.eye(3)] * 5
  for place, estimate in enumerate(pool.curve(selections, num_draws=2, seed=0)):
    expected = text_metrics.corpus_chrf([p[place] for p in pools], references).score
    assert estimate.interval.mean == pytest.approx(expected, abs=1e-9)


def test_draws_follow_names_and_not_places():
  source_ids, pools, references = _pools(6, 5)
  judges = np.random.default_rng(1).random((6, 5))
  selections = [best_of_n.selection_probabilities(judge, [2]) for judge in judges]
  first = _bleu_pool(source_ids, pools, references).curve(selections, seed=0)
  reverse = [side[::-1] for side in (source_ids, pools, references)]
  second = _bleu_pool(*reverse).curve(selections[::-1], seed=0)
  assert first[0].interval.mean == pytest.approx(second[0].interval.mean, rel=1e-12)
  other = _bleu_pool(source_ids, pools, references).curve(selections, seed=1)
  assert first[0].interval.mean != other[0].interval.mean


def test_each_drawn_candidate_is_counted_once():
  source_ids, pools, references = _pools(4, 5)
  pools[0] = ('the cat', 'the cat', *pools[0][2:])  # a duplicate
  counted = []

  def counts_fn(candidates, references):
    counted.extend(zip(candidates, references, strict=True))
    return intervals.bleu_counts(candidates, references)

  pool = best_of_n.CorpusPool(
    source_ids,
    pools,
    references,
    counts_fn=counts_fn,
    score_fn=intervals.bleu_of_counts,
  )
  selections = [np.full((3, 5), 1 / 5)] * 4
  pool.curve(selections, num_draws=10, seed=0)
  pool.curve(selections, num_draws=20, seed=1)
  assert len(counted) == len(set(counted)) == 19


def test_a_candidate_of_probability_0_is_never_drawn():
  selection = np.array([0.0, 0.5, 0.0, 0.5, 0.0])
  uniform = np.array([0.0, 0.25, np.nextafter(0.5, 0), 0.5, 1 - 2**-53])
  np.testing.assert_array_equal(best_of_n._inverse(selection, uniform), [1, 1, 1, 3, 3])


@pytest.mark.parametrize(
  ('judge', 'numbers', 'told'),
  [
    ([1.0, 2.0], [3], r'N = \[3\]: a pool of 2 samples answers for N in \[1, 2\]'),
    ([1.0, 2.0], [0], r'N = \[0\]'),
    ([1.0, 2.0], [], r'N = \(none\)'),
    ([1.0, np.nan], [1], 'finite'),
    ([[1.0, 2.0]], [1], r'shape \(1, 2\)'),
  ],
)
def test_what_cannot_be_answered_is_refused(judge, numbers, told):
  with pytest.raises(ValueError, match=told):
    best_of_n.selection_probabilities(np.array(judge), numbers)


def test_pools_that_do_not_match_are_refused():
  selections = [np.full((1, 3), 1 / 3)] * 2
  with pytest.raises(ValueError, match='same pools'):
    best_of_n.expected_values(selections, [np.ones(3), np.ones(4)])
  with pytest.raises(ValueError, match='same pools'):
    best_of_n.expected_values(selections, [np.ones(3)])
  pool = _bleu_pool(*_pools(2, 4))
  with pytest.raises(ValueError, match='one per pool'):
    pool.curve(selections, seed=0)
  with pytest.raises(ValueError, match='at least one corpus'):
    pool.curve([np.full((1, 4), 1 / 4)] * 2, num_draws=0, seed=0)
  with pytest.raises(ValueError, match='no N of'):
    best_of_n.numbers_up_to(3, [5, 10])

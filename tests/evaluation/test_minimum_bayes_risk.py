"""Minimum Bayes risk: the chrF matrix pair by pair, the leave-one-out mean by hand."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from rest_jax.evaluation import best_of_n, chrf
from rest_jax.evaluation import minimum_bayes_risk as mbr

GROUP = (
  'A man in a blue shirt stands on a ladder.',
  'A man in a blue shirt is standing on a ladder.',
  'A man in blue stands on a ladder.',
  'A man in a blue shirt stands on a ladder.',  # a duplicate
  'Two dogs play.',
  'aaaaaaa',
  'aaa',
  'a',
  'ab cd',
  'abcd',  # the same characters, another text
  'Straße über Köln 😀',
  '',
  '   ',
)


def _pairwise(candidates, pseudo_references):
  return np.array(
    [[chrf.sentence_chrf(c, r) for r in pseudo_references] for c in candidates]
  ).reshape(len(candidates), len(pseudo_references))


# Addition in another order, over at most 6 orders: a few units of 1.1e-16.
_EXACT = {'rtol': 1e-12, 'atol': 0}


def test_the_matrix_is_the_pairwise_loop():
  found = mbr.chrf_utilities(GROUP, GROUP)
  np.testing.assert_allclose(found, _pairwise(GROUP, GROUP), **_EXACT)
  assert not np.allclose(found, found.T)  # recall counts four times precision


def test_the_matrix_of_different_sides():
  found = mbr.chrf_utilities(GROUP[:5], GROUP[3:])
  np.testing.assert_allclose(found, _pairwise(GROUP[:5], GROUP[3:]), **_EXACT)
  assert mbr.chrf_utilities([], ['a']).shape == (0, 1)
  assert mbr.chrf_utilities(['a'], []).shape == (1, 0)
  np.testing.assert_array_equal(mbr.chrf_utilities(['', ' '], ['']), np.zeros((2, 1)))


_TEXTS = st.lists(st.text(alphabet='ab cß', max_size=14), min_size=1, max_size=7)


@hypothesis.given(_TEXTS, _TEXTS)
@hypothesis.settings(max_examples=150)
def test_the_matrix_is_the_pairwise_loop_on_random_texts(one, two):
  found = mbr.chrf_utilities(one, two)
  np.testing.assert_allclose(found, _pairwise(one, two), **_EXACT)


def _equal_lengths(candidates, pseudo_references):
  """A utility worked by head: shorter length / longer length."""
  return np.array(
    [
      [min(len(c), len(r)) / max(len(c), len(r)) for r in pseudo_references]
      for c in candidates
    ]
  )


def test_leave_one_out_by_hand():
  # Lengths 1, 2, 4: (1/2 + 1/4) / 2, (1/2 + 1/2) / 2, (1/4 + 1/2) / 2. With oneself
  # among the three it would be 7/12, 2/3, 7/12.
  found = mbr.expected_utilities(['a', 'bb', 'cccc'], utility=_equal_lengths)
  np.testing.assert_allclose(found, [3 / 8, 1 / 2, 3 / 8], rtol=1e-15)


def test_duplicates_weigh_by_their_number():
  # 'a' twice and 'bb': each 'a' has (1 + 1/2) / 2, 'bb' (1/2 + 1/2) / 2. Distinct
  # texts alone would give 1/2 to all.
  calls = []

  def utility(candidates, pseudo_references):
    calls.append((tuple(candidates), tuple(pseudo_references)))
    return _equal_lengths(candidates, pseudo_references)

  found = mbr.expected_utilities(['a', 'bb', 'a'], utility=utility)
  np.testing.assert_allclose(found, [3 / 4, 1 / 2, 3 / 4], rtol=1e-15)
  assert calls == [(('a', 'bb'), ('a', 'bb'))]  # each distinct pair once


def test_expected_chrf_is_the_loop_over_the_others():
  found = mbr.expected_utilities(GROUP)
  for j, candidate in enumerate(GROUP):
    others = [text for i, text in enumerate(GROUP) if i != j]
    mean = np.mean([chrf.sentence_chrf(candidate, other) for other in others])
    assert found[j] == pytest.approx(mean, rel=1e-12, abs=1e-15)
  assert found[0] == found[3]


def test_candidates_that_are_no_pseudo_references():
  # 'cccc' is judged against 'a' and 'bb', (1/4 + 1/2) / 2, and judges none.
  found = mbr.expected_utilities(
    ['a', 'bb', 'cccc', 'a'],
    pseudo_references=np.array([True, True, False, False]),
    utility=_equal_lengths,
  )
  # The last 'a' is no pseudo-reference and meets both: (1 + 1/2) / 2.
  np.testing.assert_allclose(found, [1 / 2, 1 / 2, 3 / 8, 3 / 4], rtol=1e-15)


def test_nothing_to_agree_with():
  assert mbr.expected_utilities(['Dogs run.']).tolist() == [0]
  assert mbr.expected_utilities(['Dogs run.'], alone=1.0).tolist() == [1]
  assert mbr.expected_utilities([]).shape == (0,)
  none = np.zeros(2, bool)
  found = mbr.expected_utilities(['a', 'a'], pseudo_references=none, alone=0.25)
  assert found.tolist() == [0.25, 0.25]
  # One pseudo-reference: it has no other, the rest have it.
  one = np.array([True, False])
  found = mbr.expected_utilities(['a', 'a'], pseudo_references=one, alone=0.25)
  np.testing.assert_allclose(found, [0.25, 1.0])


def test_empty_texts_agree_with_nothing():
  np.testing.assert_array_equal(mbr.expected_utilities(['', '', '']), np.zeros(3))
  found = mbr.expected_utilities(['', 'Dogs run.', 'Dogs run.'])
  np.testing.assert_allclose(found, [0, 1 / 2, 1 / 2], rtol=1e-12)


def test_the_order_of_the_group_moves_nothing():
  order = np.random.default_rng(0).permutation(len(GROUP))
  found = mbr.expected_utilities([GROUP[i] for i in order])
  np.testing.assert_allclose(found, mbr.expected_utilities(GROUP)[order], rtol=1e-12)


def test_the_matrix_of_a_group_is_expanded_from_distinct_texts():
  found = mbr.utility_matrix(['a', 'bb', 'a'], _equal_lengths)
  np.testing.assert_array_equal(found, [[1, 0.5, 1], [0.5, 1, 0.5], [1, 0.5, 1]])


def _decide(utilities, subset):
  """The decisions among a subset by definition, ties included."""
  scores = [sum(utilities[j, i] for i in subset if i != j) for j in subset]
  top = max(scores)
  return [j for j, score in zip(subset, scores, strict=True) if score > top - 1e-9]


def _all_subsets(utilities, n):
  size = len(utilities)
  subsets = list(itertools.combinations(range(size), n))
  selection = np.zeros(size)
  for subset in subsets:
    best = _decide(utilities, subset)
    selection[best] += 1 / (len(best) * len(subsets))
  return selection


def test_decisions_among_n_agree_with_all_subsets():
  texts = ['the cat sat', 'the cat sat', 'the cat ran', 'a cat sat', 'dogs', '', 'the']
  utilities = mbr.utility_matrix(texts)
  num_draws = 20_000
  rng = best_of_n.source_rng(0, 'test/0')
  numbers = (1, 2, 3, 5, 7)
  found = mbr.selection_probabilities(utilities, numbers, num_draws=num_draws, rng=rng)
  np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
  for row, n in enumerate(numbers):
    expected = _all_subsets(utilities, n)
    error = np.sqrt(expected * (1 - expected) / num_draws)
    exact = 1e-12 if n in (1, 7) else 0
    assert np.all(np.abs(found[row] - expected) <= 4 * error + exact), n
  # Pseudo-references from the whole pool are another rule.
  whole = mbr.expected_utilities(texts)
  other = best_of_n.selection_probabilities(whole, [3])[0]
  assert np.abs(other - found[2]).max() > 0.02


def test_a_pair_is_decided_by_its_two_utilities():
  # u(0, 1) > u(1, 0), so 0 wins the pair; 2 and 3 tie, being symmetric.
  utilities = np.array([[1.0, 0.6], [0.5, 1.0]])
  rng = np.random.default_rng(0)
  found = mbr.selection_probabilities(utilities, [1, 2], rng=rng)
  np.testing.assert_array_equal(found, [[0.5, 0.5], [1, 0]])
  found = mbr.selection_probabilities(np.full((2, 2), 0.1), [2], rng=rng)
  np.testing.assert_array_equal(found, [[0.5, 0.5]])


def test_a_utility_that_answers_wrongly_is_named():
  def transposed(candidates, pseudo_references):
    return np.zeros((len(pseudo_references), len(candidates)))

  def nothing(candidates, pseudo_references):
    return np.full((len(candidates), len(pseudo_references)), np.nan)

  own = np.array([True, False])
  with pytest.raises(ValueError, match=r"'transposed' gave shape \(1, 2\)"):
    mbr.expected_utilities(['a', 'b'], pseudo_references=own, utility=transposed)
  with pytest.raises(ValueError, match='4 values that are not finite'):
    mbr.utility_matrix(['a', 'b'], nothing)
  with pytest.raises(ValueError, match=r'shape \(2,\) for 3 candidates'):
    mbr.expected_utilities(['a', 'b', 'c'], pseudo_references=own)
  with pytest.raises(ValueError, match='a pool of 2 samples'):
    mbr.selection_probabilities(np.eye(2), [3], rng=np.random.default_rng(0))

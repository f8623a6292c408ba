"""Sentence chrF against sacreBLEU and by hand."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import sacrebleu

from rest_jax.evaluation import chrf

PAIRS = [
  ('The cat sits on the mat.', 'The cat sat on the mat.'),
  ('a', 'a'),
  ('ab', 'abc'),
  ('abcdefg', 'xyz'),
  ('Ich lese ein Buch.', 'I am reading a book.'),
  ('aaaaaaa', 'aaa'),
  ('one two  three', 'onetwothree'),
  ('', 'abc'),
  ('Straße über Köln', 'Strasse uber Koln'),
]


@pytest.mark.parametrize(('candidate', 'reference'), PAIRS)
def test_sentence_chrf_is_sacrebleus(candidate, reference):
  expected = sacrebleu.sentence_chrf(candidate, [reference]).score / 100
  assert chrf.sentence_chrf(candidate, reference) == pytest.approx(expected, abs=1e-9)


@hypothesis.given(
  st.text(alphabet='abc dß', max_size=20), st.text(alphabet='abc dß', max_size=20)
)
@hypothesis.settings(max_examples=200)
def test_sentence_chrf_is_sacrebleus_on_random_texts(candidate, reference):
  expected = sacrebleu.sentence_chrf(candidate, [reference]).score / 100
  assert chrf.sentence_chrf(candidate, reference) == pytest.approx(expected, abs=1e-9)


def test_by_hand():
  # 'ab' and 'abc': order 1 matches 2 of 2 and 2 of 3, order 2 matches 1 of 1 and
  # 1 of 2; P = 1, R = (2/3 + 1/2) / 2 = 7/12; F2 = 5 P R / (4 P + R) = 7/11.
  # With beta 1 it would be 14/19, with all six orders 7/33.
  assert chrf.sentence_chrf('ab', 'abc') == pytest.approx(7 / 11, abs=1e-12)


def test_identical_is_one_and_disjoint_is_zero():
  assert chrf.sentence_chrf('She is late.', 'She is late.') == pytest.approx(1.0)
  assert chrf.sentence_chrf('abc', 'xyz') == 0.0
  assert chrf.sentence_chrf('', '') == 0.0


def test_best_chrf_takes_the_best_reference():
  references = ('The house is big.', 'The house is large.')
  candidates = ['The house is large.', 'The house is larger.', 'Dogs run.', '']
  scores = chrf.best_chrf(candidates, references)
  assert scores.dtype == np.float32 and scores.shape == (4,)
  assert scores[0] == 1.0
  expected = [
    max(sacrebleu.sentence_chrf(text, [ref]).score / 100 for ref in references)
    for text in candidates
  ]
  np.testing.assert_allclose(scores, expected, atol=1e-6)
  assert scores[1] > chrf.sentence_chrf(candidates[1], references[0])
  assert scores[3] == 0.0


def test_best_chrf_does_not_depend_on_the_cache():
  first = chrf.best_chrf(['abc d'], ['abd c', 'abc'])
  for i in range(3000):  # more than the cache holds
    chrf.best_chrf(['x'], [f'filler {i}'])
  np.testing.assert_array_equal(first, chrf.best_chrf(['abc d'], ['abd c', 'abc']))


def test_best_chrf_needs_a_reference():
  with pytest.raises(ValueError, match='at least one reference'):
    chrf.best_chrf(['a'], [])

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import sacrebleu

from rest_jax.evaluation import text_metrics

CANDIDATES = ['The cat sat on the mat.', 'A dog barks!', 'two men are walking']
REFERENCES = ['The cat sat on a mat.', 'The dog barks.', 'Two men walk outside.']
_WORDS = st.sampled_from(['a', 'b', 'c', 'B', 'dog', '.', ',', 'e-f'])
_TEXTS = st.lists(_WORDS, max_size=8).map(' '.join)


def test_bleu_and_chrf_are_sacrebleus():
  bleu = text_metrics.corpus_bleu(CANDIDATES, REFERENCES)
  assert bleu.score == sacrebleu.corpus_bleu(CANDIDATES, [REFERENCES]).score
  assert 20 < bleu.score < 60  # on the scale of 0 to 100
  assert 'tok:13a' in bleu.signature and 'version:' in bleu.signature
  chrf = text_metrics.corpus_chrf(CANDIDATES, REFERENCES)
  assert chrf.score == sacrebleu.corpus_chrf(CANDIDATES, [REFERENCES]).score
  assert 30 < chrf.score < 80
  assert 'nc:6' in chrf.signature and 'nw:0' in chrf.signature


def test_bleu_tokenizer_is_passed_on():
  candidates, references = ['他在看书', '狗在叫'], ['他在看报', '狗在叫']
  zh = text_metrics.corpus_bleu(candidates, references, tokenize='zh')
  assert 'tok:zh' in zh.signature
  # '13a' sees each sentence as one word and finds no bigram at all.
  assert zh.score > 10 * text_metrics.corpus_bleu(candidates, references).score


def test_words_leave_punctuation_out_and_keep_inner_marks():
  text = "Don't stop — a well-known man, 3 cats («Ähre») … !"
  expected = ["Don't", 'stop', 'a', 'well-known', 'man', '3', 'cats', 'Ähre']
  assert text_metrics.words(text) == expected
  assert text_metrics.characters('他 在, 看书。') == list('他在看书')


def test_length_ratio_is_of_the_corpus():
  # 1 / 4 and 3 / 2 words: 4 / 6, where the mean of ratios would be 7 / 8.
  ratio = text_metrics.length_ratio(['a .', 'b c d'], ['a b c d', 'a, b'])
  assert ratio == pytest.approx(2 / 3)
  zh = text_metrics.length_ratio(
    ['他在看。'], ['他在看书'], split=text_metrics.characters
  )
  assert zh == 3 / 4


def test_distinct_n_by_hand():
  texts = [['a b a', 'A b'], ['b a c']]
  # unigrams a b a a b b a c: 3 kinds of 8; bigrams ab ba ab ba ac: 3 kinds of 5.
  # Across candidates (a|a, b|b) no bigram counts: that would be 5 of 7.
  assert text_metrics.distinct_n(texts, 1) == 3 / 8
  assert text_metrics.distinct_n(texts, 2) == 3 / 5
  assert text_metrics.distinct_n(texts, 4) == 0.0
  assert text_metrics.distinct_n([[], ['']], 1) == 0.0


def test_distinct_n_rarefied_equals_the_mean_over_all_draws():
  import itertools

  kinds = 'a a a b b c d'.split()
  for m in range(1, 8):
    draws = list(itertools.combinations(kinds, m))
    expected = np.mean([len(set(draw)) / m for draw in draws])
    value = text_metrics.distinct_n([[' '.join(kinds)]], 1, num_ngrams=m)
    assert value == pytest.approx(expected, rel=1e-12)


def test_distinct_n_rarefied_does_not_fall_with_the_size_of_the_set():
  rng = np.random.default_rng(0)
  vocabulary = np.array([f'w{i}' for i in range(300)])
  text = lambda: ' '.join(rng.choice(vocabulary, 20))
  small, large = ([[text()] for _ in range(size)] for size in (50, 1000))
  plain = [text_metrics.distinct_n(s, 1) for s in (small, large)]
  rarefied = [text_metrics.distinct_n(s, 1, num_ngrams=500) for s in (small, large)]
  assert plain[0] > 10 * plain[1]
  assert rarefied[0] == pytest.approx(rarefied[1], rel=0.05)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.lists(_TEXTS, max_size=6), st.integers(1, 3))
def test_distinct_and_repetition_share_one_definition_for_one_text(texts, n):
  for text in texts:
    distinct = text_metrics.distinct_n([[text]], n)
    repeated = text_metrics.repetition_rate([text], n=n)
    assert distinct + repeated in (0.0, pytest.approx(1.0))
  whole = text_metrics.distinct_n([texts], n)
  assert whole == text_metrics.distinct_n([[text] for text in reversed(texts)], n)
  assert 0 <= whole <= 1


def test_copy_rate_is_clipped_folded_and_of_the_corpus():
  # 'hund' is in the source once and in the candidate three times: 1 of 4 words;
  # without clipping it would be 3 of 4, and with the full stop 2 of 5.
  rate = text_metrics.copy_rate(['Hund hund HUND dog .'], ['Ein Hund .'])
  assert rate == 1 / 4
  rate = text_metrics.copy_rate(['Anna', 'a b c'], ['anna', 'd e f'])
  assert rate == 1 / 4
  assert text_metrics.copy_rate(['...'], ['a']) == 0.0
  assert text_metrics.copy_rate(['ein Hund'], ['ein Hund']) == 1.0


def test_repetition_rate_by_hand():
  # bigrams: the-the the-the the-cat: one of 3 repeats; a-b: none of 1.
  assert text_metrics.repetition_rate(['The the, the cat', 'a b']) == 1 / 4
  # The same text twice is no repetition inside a candidate.
  assert text_metrics.repetition_rate(['a b c', 'a b c']) == 0.0
  assert text_metrics.repetition_rate(['', 'a']) == 0.0


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: text_metrics.corpus_bleu(['a'], []), '1 candidates and 0 references'),
    (lambda: text_metrics.corpus_chrf([], []), 'at least one pair'),
    (lambda: text_metrics.corpus_bleu('abc', 'abc'), 'put it in a list'),
    (lambda: text_metrics.copy_rate(['a'], ['b', 'c']), '2 sources'),
    (lambda: text_metrics.length_ratio(['a'], ['...']), 'characters'),
    (lambda: text_metrics.distinct_n([['a']], 0), 'n >= 1'),
    (lambda: text_metrics.distinct_n([['a b']], 1, num_ngrams=3), r'\[1, 2\]'),
    (lambda: text_metrics.repetition_rate(['a'], n=0), 'n >= 1'),
  ],
)
def test_errors(call, message):
  with pytest.raises(ValueError, match=message):
    call()

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import sacrebleu

from rest_jax.evaluation import intervals

_WORDS = st.sampled_from(['the', 'cat', 'sat', 'on', 'a', 'mat', '.', 'dogs', 'äß'])
_TEXTS = st.lists(_WORDS, max_size=9).map(' '.join)


def _texts(count, seed=0):
  rng = np.random.default_rng(seed)
  words = np.array('the a cat dog sat ran on under mat sofa and then it .'.split())
  references = [' '.join(rng.choice(words, rng.integers(1, 14))) for _ in range(count)]
  candidates = [
    ' '.join(w if rng.random() < 0.8 else rng.choice(words) for w in text.split())
    for text in references
  ]
  return candidates, references


def test_mean_interval_matches_the_normal_theory():
  rng = np.random.default_rng(0)
  values = rng.normal(3.0, 2.0, 2000)
  interval = intervals.bootstrap_mean(values, seed=1, num_resamples=2000)
  half = 1.96 * values.std() / np.sqrt(len(values))
  assert interval.mean == pytest.approx(values.mean(), rel=1e-12)
  # The ends of 2,000 resamples scatter by about 5 % of the half width.
  assert interval.low == pytest.approx(values.mean() - half, abs=0.12 * half)
  assert interval.high == pytest.approx(values.mean() + half, abs=0.12 * half)


def test_a_narrower_confidence_gives_a_narrower_interval():
  values = np.random.default_rng(0).normal(size=500)
  wide = intervals.bootstrap_mean(values, seed=1)
  narrow = intervals.bootstrap_mean(values, seed=1, confidence=0.5)
  half = 0.674 * values.std() / np.sqrt(500)
  assert narrow.high - narrow.low == pytest.approx(2 * half, rel=0.15)
  assert wide.low < narrow.low < narrow.high < wide.high


def test_sources_are_resampled_and_not_candidates():
  rng = np.random.default_rng(0)
  # 100 sources whose 50 candidates are all alike: there are 100 values, not 5,000.
  source = rng.normal(size=100)
  by_source = np.repeat(source[:, None], 50, axis=1)
  interval = intervals.bootstrap_mean(by_source, seed=1)
  once = intervals.bootstrap_mean(source, seed=1)
  assert interval.low == pytest.approx(once.low, abs=1e-12)
  assert interval.high == pytest.approx(once.high, abs=1e-12)
  flat = intervals.bootstrap_mean(by_source.ravel(), seed=1)
  width = lambda i: i.high - i.low
  assert width(interval) > 5 * width(flat)  # sqrt(50) = 7.1


def test_every_source_weighs_the_same():
  ragged = [np.array([1.0, 1.0, 1.0, 1.0]), np.array([0.0])]
  assert intervals.bootstrap_mean(ragged, seed=0).mean == 0.5  # not 0.8
  assert intervals.bootstrap_mean([1.0, 0.0], seed=0).mean == 0.5


def test_intervals_are_a_function_of_the_seed():
  values = np.random.default_rng(0).normal(size=60)
  first = intervals.bootstrap_mean(values, seed=3)
  assert first == intervals.bootstrap_mean(values, seed=3)
  assert first.low != intervals.bootstrap_mean(values, seed=4).low


def test_drawing_in_chunks_changes_nothing(monkeypatch):
  values = np.random.default_rng(0).normal(size=37)
  whole = intervals.bootstrap_mean(values, seed=3)
  monkeypatch.setattr(intervals, '_MAX_DRAWS', 37 * 7)
  parts = intervals.bootstrap_mean(values, seed=3)
  assert parts.low == pytest.approx(whole.low, abs=1e-12)
  assert parts.high == pytest.approx(whole.high, abs=1e-12)


def test_constant_values_have_an_interval_of_no_width():
  interval = intervals.bootstrap_mean(np.full(10, 0.5), seed=0)
  assert (interval.mean, interval.low, interval.high) == (0.5, 0.5, 0.5)


def test_paired_difference_cancels_the_difficulty_of_the_sources():
  rng = np.random.default_rng(0)
  difficulty = rng.normal(0, 10, 300)
  baseline = difficulty + rng.normal(0, 0.1, 300)
  values = [d + 0.05 + rng.normal(0, 0.1, 3) for d in difficulty]
  paired = intervals.bootstrap_difference(values, baseline, seed=0)
  assert 0 < paired.low < paired.mean < paired.high < 0.1
  alone = intervals.bootstrap_mean(baseline, seed=0)
  assert alone.high - alone.low > 50 * (paired.high - paired.low)
  reverse = intervals.bootstrap_difference(baseline, values, seed=0)
  assert reverse.mean == pytest.approx(-paired.mean)


@pytest.mark.parametrize('count', [2, 7, 60])
def test_bleu_and_chrf_points_are_sacrebleus(count):
  candidates, references = _texts(count)
  bleu = intervals.bootstrap_bleu(candidates, references, seed=0, num_resamples=20)
  chrf = intervals.bootstrap_chrf(candidates, references, seed=0, num_resamples=20)
  expected = sacrebleu.corpus_bleu(candidates, [references]).score
  assert bleu.mean == pytest.approx(expected, rel=1e-9)
  expected = sacrebleu.corpus_chrf(candidates, [references]).score
  assert chrf.mean == pytest.approx(expected, rel=1e-9)


@hypothesis.settings(max_examples=80, deadline=None)
@hypothesis.given(st.lists(st.tuples(_TEXTS, _TEXTS), min_size=2, max_size=4))
def test_degenerate_corpora_score_as_sacrebleu_scores_them(pairs):
  # Empty texts, texts shorter than an order, no match at some order (smoothing).
  candidates, references = (list(side) for side in zip(*pairs, strict=True))
  bleu = intervals.bootstrap_bleu(candidates, references, seed=0, num_resamples=1)
  chrf = intervals.bootstrap_chrf(candidates, references, seed=0, num_resamples=1)
  expected = sacrebleu.corpus_bleu(candidates, [references]).score
  assert bleu.mean == pytest.approx(expected, rel=1e-9, abs=1e-9)
  expected = sacrebleu.corpus_chrf(candidates, [references]).score
  assert chrf.mean == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize('name', ['bleu', 'chrf'])
def test_each_resample_is_a_corpus_of_its_own(name, monkeypatch):
  candidates, references = _texts(30)
  drawn = np.random.default_rng(5).integers(30, size=(40, 30))
  corpus_score = getattr(sacrebleu, f'corpus_{name}')
  slow = [
    corpus_score([candidates[i] for i in row], [[references[i] for i in row]]).score
    for row in drawn
  ]
  fast = getattr(intervals, f'bootstrap_{name}')(
    candidates, references, seed=5, num_resamples=40
  )
  assert fast.low == pytest.approx(np.quantile(slow, 0.025), rel=1e-9)
  assert fast.high == pytest.approx(np.quantile(slow, 0.975), rel=1e-9)


@pytest.mark.parametrize('name', ['bleu', 'chrf'])
def test_candidates_of_one_source_are_resampled_together(name):
  candidates, references = _texts(40)
  bootstrap = getattr(intervals, f'bootstrap_{name}')
  alone = bootstrap(candidates, references, seed=1)
  names = [f's{i}' for i in range(40)]
  grouped = bootstrap(candidates * 9, references * 9, seed=1, sources=names * 9)
  # Nine copies of every sentence: the same scores, so the same interval.
  assert grouped.low == pytest.approx(alone.low, rel=1e-9)
  assert grouped.high == pytest.approx(alone.high, rel=1e-9)
  # Different candidates of one source are added up, none is lost.
  both = candidates + [' '.join(text.split()[1:]) for text in candidates]
  mixed = bootstrap(both, references * 2, seed=1, sources=names * 2)
  expected = getattr(sacrebleu, f'corpus_{name}')(both, [references * 2]).score
  assert mixed.mean == pytest.approx(expected, rel=1e-9)
  loose = bootstrap(candidates * 9, references * 9, seed=1)
  assert loose.high - loose.low < 0.5 * (alone.high - alone.low)


def test_interval_is_json_able_and_prints():
  interval = intervals.Interval(0.5, 0.25, 0.75)
  assert interval.to_dict() == {'mean': 0.5, 'low': 0.25, 'high': 0.75}
  assert str(interval) == '0.5 [0.25, 0.75]'


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: intervals.bootstrap_mean([], seed=0), 'at least two'),
    (lambda: intervals.bootstrap_mean(np.zeros(1), seed=0), 'more sources'),
    (lambda: intervals.bootstrap_mean(np.zeros((3, 0)), seed=0), 'no value'),
    (lambda: intervals.bootstrap_mean([[1.0], []], seed=0), 'index 1'),
    (lambda: intervals.bootstrap_mean([1.0, np.nan], seed=0), 'index 1 are not'),
    (lambda: intervals.bootstrap_mean([1.0, 2.0], seed=0, confidence=95), '0.95'),
    (lambda: intervals.bootstrap_mean([1.0, 2.0], seed=0, num_resamples=0), '1000'),
    (lambda: intervals.bootstrap_difference([1.0], [1.0, 2.0], seed=0), 'same source'),
    (lambda: intervals.bootstrap_bleu(['a'], [], seed=0), '1 candidates, 0 ref'),
    (
      lambda: intervals.bootstrap_chrf(['a'], ['b'], seed=0, sources=[1, 2]),
      '2 sources',
    ),
    (lambda: intervals.bootstrap_chrf([], [], seed=0), 'at least two'),
  ],
)
def test_errors(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_draws_of_a_source_are_corpora_of_their_own():
  counts = np.random.default_rng(0).integers(1, 9, (30, 4, 1)).astype(float)
  linear = intervals.bootstrap_counts(counts, lambda sums: sums[:, 0] / 30, seed=2)
  plain = intervals.bootstrap_mean(counts[:, :, 0], seed=2)
  for name in ('mean', 'low', 'high'):
    assert getattr(linear, name) == pytest.approx(getattr(plain, name), rel=1e-12)
  # The mean of the draws' squares, not the square of their mean: 5 rather than 4.
  two = np.array([[[0.0], [2.0]], [[1.0], [1.0]]])
  squared = intervals.bootstrap_counts(two, lambda sums: sums[:, 0] ** 2, seed=0)
  assert squared.mean == 5
  # The resamples of two sources: the first twice, one of each, the second twice,
  # (0 + 16) / 2, 5 and 4. Pooled draws would have 4 everywhere.
  assert (squared.low, squared.high) == (4, 8)

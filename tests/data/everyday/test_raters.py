"""The judgement, the simulated raters, gold and exact match."""

import numpy as np
import pytest
import sacrebleu

from rest_jax.data import everyday
from rest_jax.data.everyday import raters

RENDERINGS = ('Anna bought two houses yesterday.', 'Yesterday Anna bought two houses.')


@pytest.mark.parametrize(
  ('candidate', 'expected'),
  [
    ('Anna bought two houses yesterday.', 6.0),
    ('Yesterday Anna bought two houses.', 6.0),
    ('  Yesterday Anna bought two houses. ', 6.0),
    ('anna bought two houses yesterday', 5.5),  # case and punctuation
    ('Anna bought two house yesterday.', 5.0),  # number
    ('Anna buys two houses yesterday.', 5.0),  # tense
    ('Anna bought the two houses yesterday.', 5.0),  # a function word too much
    ('Anna bought two cars yesterday.', 4.0),  # another content word
    ('Anna bought houses yesterday.', 4.0),  # a content word missing
    ('Anna sold two cars yesterday.', 2.0),
    ('Anna bought two houses yesterday yesterday.', 4.0),
    ('Paul eats bread tomorrow.', 0.0),
    ('', 0.0),
    ('...', 0.0),
  ],
)  # fmt: skip
def test_judgement_by_hand(candidate, expected):
  assert everyday.judgement(candidate, RENDERINGS) == expected


def test_contractions_count_as_written_out():
  assert everyday.judgement("He isn't here.", ('He is not here.',)) == 5.5
  assert everyday.judgement("I'll come.", ('I will come.',)) == 5.5


def test_word_order_costs_a_point_or_more():
  found = everyday.judgement('Two houses bought Anna yesterday.', RENDERINGS)
  assert 0 < found <= 5


def test_edit_cost_is_the_textbook_distance():
  """A slow recursion without trimming or rows."""
  import functools

  def slow(a, b):
    @functools.cache
    def cost(i, j):
      if not i:
        return sum(raters._weight(word) for word in b[:j])
      if not j:
        return sum(raters._weight(word) for word in a[:i])
      return min(
        cost(i - 1, j - 1) + raters._substitution(a[i - 1], b[j - 1]),
        cost(i - 1, j) + raters._weight(a[i - 1]),
        cost(i, j - 1) + raters._weight(b[j - 1]),
      )

    return cost(len(a), len(b))

  rng = np.random.default_rng(0)
  words = np.array(['the', 'house', 'houses', 'is', 'was', 'red', 'a', 'dog'])
  for _ in range(200):
    a = tuple(rng.choice(words, rng.integers(0, 7)))
    b = tuple(rng.choice(words, rng.integers(0, 7)))
    assert raters._edit_cost(a, b) == slow(a, b)


def test_raters_shape_range_and_halves():
  rate = everyday.SimulatedRaters(num_raters=5)
  scores = rate(['Anna bought two cars yesterday.', '', RENDERINGS[0]], RENDERINGS)
  assert scores.shape == (3, 5) and scores.dtype == np.float32
  assert np.all((scores >= 0) & (scores <= 6))
  np.testing.assert_array_equal(scores * 2, np.round(scores * 2))
  assert rate([], RENDERINGS).shape == (0, 5)


def test_raters_do_not_depend_on_position():
  rate = everyday.SimulatedRaters()
  texts = [f'Anna bought {n} houses yesterday.' for n in ('two', 'three', 'no', 'ten')]
  together = rate(texts, RENDERINGS)
  np.testing.assert_array_equal(together[::-1], rate(texts[::-1], RENDERINGS))
  for i, text in enumerate(texts):
    np.testing.assert_array_equal(together[i : i + 1], rate([text], RENDERINGS))
  other = everyday.SimulatedRaters(seed=1)
  many = [f'Anna bought {n} houses.' for n in range(20)]
  assert not np.array_equal(rate(many, RENDERINGS), other(many, RENDERINGS))


def test_raters_without_noise_are_the_judgement():
  rate = everyday.SimulatedRaters(num_raters=2, bias_stddev=0.0, noise_stddev=0.0)
  np.testing.assert_array_equal(
    rate(['Anna bought two cars yesterday.'], RENDERINGS), [[4.0, 4.0]]
  )


def test_raters_have_the_noise_they_claim():
  """Around a judgement of 4, where nothing is clipped: variance + rounding / 12."""
  rate = everyday.SimulatedRaters(num_raters=1, bias_stddev=0.0, noise_stddev=0.5)
  texts = [f'Anna bought two thing{i} yesterday.' for i in range(2000)]
  scores = rate(texts, RENDERINGS)
  assert scores.mean() == pytest.approx(4.0, abs=4 * 0.52 / 2000**0.5)
  assert scores.std() == pytest.approx((0.25 + 0.25 / 12) ** 0.5, rel=0.08)


def test_mean_ratings_are_ordered():
  sentences = everyday.generate(200, seed=11)
  rates = everyday.ImperfectionRates()
  rate = everyday.SimulatedRaters()
  correct, damaged, wrong = [], [], []
  for i, sentence in enumerate(sentences):
    other = sentences[i - 1].renderings[0]
    text = everyday.imperfect_reference(sentence, rates=rates, seed=0)
    correct.append(rate([sentence.renderings[-1]], sentence.renderings).mean())
    wrong.append(rate([other], sentence.renderings).mean())
    if text not in sentence.renderings:
      damaged.append(rate([text], sentence.renderings).mean())
  assert np.mean(correct) > np.mean(damaged) + 0.5 > np.mean(wrong) + 2
  assert np.mean(correct) > 5.5


def test_gold_and_exact_match():
  for sentence in everyday.generate(100, seed=5):
    for text in sentence.renderings:
      assert everyday.gold(text, sentence.renderings) == 1.0
      assert everyday.exact_match(text, sentence.renderings)
  text = 'Anna bought two house.'
  assert not everyday.exact_match(text, RENDERINGS)
  expected = max(sacrebleu.sentence_chrf(text, [r]).score / 100 for r in RENDERINGS)
  assert everyday.gold(text, RENDERINGS) == pytest.approx(expected, abs=1e-6)


def test_errors():
  with pytest.raises(ValueError, match='at least one correct rendering'):
    everyday.judgement('a', ())
  with pytest.raises(ValueError, match='num_raters must be 1 or more, got 0'):
    everyday.SimulatedRaters(num_raters=0)
  with pytest.raises(ValueError, match='noise_stddev must be 0 or more'):
    everyday.SimulatedRaters(noise_stddev=-1)

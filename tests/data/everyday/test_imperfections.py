"""Damaged references: rates, determinism, and what each kind of damage does."""

import dataclasses
import math

import pytest

from rest_jax.data import everyday
from rest_jax.data.everyday import Sentence

NONE = everyday.ImperfectionRates(
  **{field.name: 0.0 for field in dataclasses.fields(everyday.ImperfectionRates)}
)
KINDS = [field.name for field in dataclasses.fields(everyday.ImperfectionRates)]
BREAD = Sentence('Anna kauft zwei Häuser.', ('Anna is buying two houses.',), 'test')


@pytest.fixture(scope='module')
def sentences():
  return everyday.generate(2000, seed=3)


def only(kind, rate=1.0):
  return dataclasses.replace(NONE, **{kind: rate})


def damaged(sentences, rates, seed=0):
  texts = [
    everyday.imperfect_reference(s, rates=rates, seed=seed) for s in sentences
  ]  # fmt: skip
  pairs = zip(texts, sentences, strict=True)
  return [text not in s.renderings for text, s in pairs], texts


def test_no_rates_no_errors(sentences):
  wrong, texts = damaged(sentences, NONE)
  assert not any(wrong)
  first = sum(t == s.renderings[0] for t, s in zip(texts, sentences, strict=True))
  assert first < 0.8 * len(texts)  # any rendering may be drawn, not only the first


def test_default_share_is_about_two_in_five(sentences):
  wrong, _ = damaged(sentences, everyday.ImperfectionRates())
  assert 0.35 < sum(wrong) / len(wrong) < 0.45


@pytest.mark.parametrize('kind', KINDS)
def test_rates_are_kept(sentences, kind):
  """The share is binomial: the rate times the share where the damage applies."""
  certain, _ = damaged(sentences, only(kind))
  applicable = sum(certain) / len(certain)
  assert applicable > 0.7
  rate = 0.3
  wrong, _ = damaged(sentences, only(kind, rate), seed=1)
  expected = rate * applicable
  deviation = math.sqrt(expected * (1 - expected) / len(wrong))
  assert abs(sum(wrong) / len(wrong) - expected) < 4 * deviation


def test_form_survives(sentences):
  _, texts = damaged(sentences, everyday.ImperfectionRates(*[0.5] * len(KINDS)))
  for text, sentence in zip(texts, sentences, strict=True):
    assert text[0] == text[0].upper() and text[-1] == sentence.renderings[0][-1]
    assert '  ' not in text and text.strip() == text


def test_kinds_by_example():
  def texts(kind):
    return {
      everyday.imperfect_reference(BREAD, rates=only(kind), seed=seed)
      for seed in range(60)
    }

  assert 'Anna is buying houses.' in texts('dropped_words')
  assert 'Anna is buying two house.' in texts('wrong_number')
  assert 'Anna was buying two houses.' in texts('wrong_tense')
  assert texts('untranslated_words') == {'Anna is buying two Häuser.'}
  assert 'Anna is two buying houses.' in texts('swapped_words')
  assert all(len(text.split()) == 6 for text in texts('added_words'))
  assert any('two ' not in text for text in texts('wrong_sense'))


def test_deterministic_and_independent_of_order(sentences):
  rates = everyday.ImperfectionRates()
  _, forward = damaged(sentences[:300], rates, seed=5)
  _, backward = damaged(sentences[:300][::-1], rates, seed=5)
  assert forward == backward[::-1]
  _, other = damaged(sentences[:300], rates, seed=6)
  assert forward != other


def test_rates_are_probabilities():
  with pytest.raises(ValueError, match='dropped_words is a probability'):
    everyday.ImperfectionRates(dropped_words=5)

"""Text metrics of a set of candidates: BLEU, chrF, length, diversity, copying.

Every metric is of the whole set (corpus level) unless its docstring says otherwise.
Words are what `words` returns: runs of letters and digits, without punctuation. For
languages written without spaces pass `split=characters`.

BLEU and chrF are sacreBLEU's, on its scale of 0 to 100, with its signature, so that
they compare with published numbers. Sentence-level chrF, as a reward, is in chrf.py.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

# Letters, digits and marks, with inner apostrophes and hyphens: "don't", "well-known".
_WORD = re.compile(r"\w+(?:['’-]\w+)*")

Split = Callable[[str], list[str]]


class CorpusScore(NamedTuple):
  """A corpus score, 0 to 100, and sacreBLEU's signature of how it was computed."""

  score: float
  signature: str


def words(text: str) -> list[str]:
  """The words of a text in order, case kept, punctuation left out."""
  return _WORD.findall(text)


def characters(text: str) -> list[str]:
  """The letters and digits of a text: the unit for unspaced languages."""
  return [character for character in text if character.isalnum()]


def corpus_bleu(
  candidates: Sequence[str], references: Sequence[str], *, tokenize: str = '13a'
) -> CorpusScore:
  """Corpus BLEU of one candidate per reference, 0 to 100.

  Args:
    candidates: detokenised texts.
    references: one detokenised reference per candidate. With N candidates for a
      source, repeat its reference.
    tokenize: sacreBLEU's tokenizer: '13a', 'zh' for Chinese, 'char', ...

  Raises:
    ValueError: the lists differ in length or are empty.
  """
  _check_pairs(candidates, references, 'references')
  metric = BLEU(tokenize=tokenize)
  score = metric.corpus_score(list(candidates), [list(references)]).score
  return CorpusScore(float(score), str(metric.get_signature()))


def corpus_chrf(candidates: Sequence[str], references: Sequence[str]) -> CorpusScore:
  """Corpus chrF2 (character 6-grams, beta 2), 0 to 100; arguments as corpus_bleu."""
  _check_pairs(candidates, references, 'references')
  metric = CHRF()
  score = metric.corpus_score(list(candidates), [list(references)]).score
  return CorpusScore(float(score), str(metric.get_signature()))


def length_ratio(
  candidates: Sequence[str], references: Sequence[str], *, split: Split = words
) -> float:
  """Words of all candidates / words of all references; 1 is as long as they are.

  Raises:
    ValueError: the lists differ in length, or the references have no word.
  """
  _check_pairs(candidates, references, 'references')
  num_reference_words = sum(len(split(text)) for text in references)
  if not num_reference_words:
    raise ValueError(
      f'None of {len(references)} references has a word, so there is no length to '
      'compare with; pass split=characters for unspaced text.'
    )
  return sum(len(split(text)) for text in candidates) / num_reference_words


def distinct_n(
  texts_by_source: Sequence[Sequence[str]],
  n: int,
  *,
  num_ngrams: int | None = None,
  split: Split = words,
) -> float:
  """Distinct n-grams / all n-grams, over the candidates of all sources together.

  Source: Li et al. 2016 (arXiv:1510.03055), with two departures: words are
  case-folded, and the denominator is n-grams, as most later work has it, not words.

  The plain value falls as the set grows, whatever the policy, since new text mostly
  repeats old n-grams: compare it between sets of one size alone. With `num_ngrams`
  = m it is the value expected of m n-grams drawn from the set without replacement
  (rarefaction, computed exactly; T n-grams in all, c_g of kind g):

      1/m * sum_g (1 - C(T - c_g, m) / C(T, m)),

  which compares sets of different sizes. m = T gives the plain value.

  Returns:
    In (0, 1]; 0 when no candidate has an n-gram.

  Raises:
    ValueError: n < 1, or num_ngrams is not in [1, T].
  """
  _check_order(n)
  counts: Counter[tuple[str, ...]] = Counter()
  for texts in texts_by_source:
    for text in texts:
      counts.update(_ngrams(split(text.casefold()), n))
  total = sum(counts.values())
  if num_ngrams is None:
    return len(counts) / total if total else 0.0
  if not 1 <= num_ngrams <= total:
    raise ValueError(
      f'num_ngrams={num_ngrams}: the set has {total} {n}-grams; choose a number in '
      f'[1, {total}], the same for all the sets to be compared.'
    )
  # C(T - c, m) / C(T, m) by log-gamma; the same for all n-grams with one count.
  multiplicity = Counter(counts.values())
  count = np.array(list(multiplicity), np.float64)
  kinds = np.array(list(multiplicity.values()), np.float64)
  possible = total - count >= num_ngrams  # otherwise one must be drawn
  rest = np.where(possible, total - count, num_ngrams)
  log_missed = _log_binomial(rest, num_ngrams) - _log_binomial(total, num_ngrams)
  seen = np.where(possible, -np.expm1(log_missed), 1.0)
  return float((kinds * seen).sum() / num_ngrams)


def copy_rate(
  candidates: Sequence[str], sources: Sequence[str], *, split: Split = words
) -> float:
  """Share of the candidates' words that also stand in their source.

  sum_i sum_w min(count_i(w), source_count_i(w)) / sum_i |candidate_i|, with words
  case-folded: a word is copied at most as often as its source has it. Punctuation
  does not count; names and numbers do, and rightly stay, so read the value beside
  the references' own. 0 when no candidate has a word.

  Raises:
    ValueError: the lists differ in length or are empty.
  """
  _check_pairs(candidates, sources, 'sources')
  copied = total = 0
  for candidate, source in zip(candidates, sources, strict=True):
    candidate_words = Counter(split(candidate.casefold()))
    copied += (candidate_words & Counter(split(source.casefold()))).total()
    total += candidate_words.total()
  return copied / total if total else 0.0


def repetition_rate(
  candidates: Sequence[str], *, n: int = 2, split: Split = words
) -> float:
  """Share of the candidates' n-grams that repeat an earlier one of the same text.

  sum_i (n-grams_i - distinct n-grams_i) / sum_i n-grams_i, words case-folded. 0 when
  no candidate has an n-gram.

  Raises:
    ValueError: n < 1.
  """
  _check_order(n)
  repeated = total = 0
  for candidate in candidates:
    ngrams = list(_ngrams(split(candidate.casefold()), n))
    repeated += len(ngrams) - len(set(ngrams))
    total += len(ngrams)
  return repeated / total if total else 0.0


def _ngrams(tokens: list[str], n: int) -> Iterable[tuple[str, ...]]:
  """All n-grams of one text, in order; none crosses into the next text."""
  return zip(*(tokens[start:] for start in range(n)), strict=False)


def _log_binomial(total: np.ndarray | int, chosen: int) -> np.ndarray:
  """log C(total, chosen), float64."""
  total = np.asarray(total, np.float64)
  gammaln = scipy.special.gammaln
  return gammaln(total + 1) - math.lgamma(chosen + 1) - gammaln(total - chosen + 1)


def _check_order(n: int) -> None:
  if n < 1:
    raise ValueError(f'n={n}: an n-gram has at least one word; choose n >= 1.')


def _check_pairs(first: Sequence[str], second: Sequence[str], name: str) -> None:
  for value in (first, second):
    if isinstance(value, str):
      raise ValueError(
        f'Expected a list of texts, got one text ({value[:40]!r}): put it in a list.'
      )
  if len(first) != len(second) or not len(first):
    raise ValueError(
      f'{len(first)} candidates and {len(second)} {name}: give one of the {name} for '
      'each candidate, and at least one pair.'
    )

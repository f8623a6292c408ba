"""Bootstrap intervals over sources for means, differences, BLEU and chrF.

The unit that is resampled is the *source*, never the candidate: a source's
candidates share its difficulty, and resampling them one by one would give intervals
that are too narrow. Intervals are percentile intervals (Koehn 2004 for BLEU): the
middle 95 % of the statistic over resamples of the sources with replacement.

BLEU and chrF are functions of sums of per-sentence counts, so a resample adds up
rows of a count matrix; no text is read twice.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from sacrebleu.metrics.bleu import BLEU

_BLEU_ORDER = 4
_CHRF_ORDER = 6
_CHRF_BETA_SQUARED = 4.0
# Indices drawn at once; bounds the memory of a resample to about 32 MB.
_MAX_DRAWS = 2_000_000


@dataclasses.dataclass(frozen=True)
class Interval:
  """A point estimate on all sources, and the ends of its bootstrap interval."""

  mean: float
  low: float
  high: float

  def to_dict(self) -> dict[str, float]:
    """JSON-able: mean, low, high."""
    return dataclasses.asdict(self)

  def __str__(self) -> str:
    return f'{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]'


def bootstrap_mean(
  values_by_source: np.ndarray | Sequence[np.ndarray] | Sequence[float],
  *,
  seed: int,
  num_resamples: int = 1000,
  confidence: float = 0.95,
) -> Interval:
  """Interval of a mean over sources.

  Args:
    values_by_source: [sources], or [sources, samples], or one array per source. A
      source with several values is first reduced to their mean, so that every
      source weighs the same, whatever the number of its candidates.
    seed: the resamples are a function of the seed and the number of sources.
    num_resamples: 1,000 place the ends of a 95 % interval to within about 0.1
      standard errors.
    confidence: the share of resamples inside, 0.95.

  Raises:
    ValueError: fewer than two sources, an empty or non-finite one.
  """
  means = _source_means(values_by_source)
  sums = _resampled_sums(means[:, None], seed=seed, num_resamples=num_resamples)
  return _interval(means.mean(), sums[:, 0] / len(means), confidence)


def bootstrap_difference(
  values_by_source: np.ndarray | Sequence[np.ndarray] | Sequence[float],
  baseline_by_source: np.ndarray | Sequence[np.ndarray] | Sequence[float],
  *,
  seed: int,
  num_resamples: int = 1000,
  confidence: float = 0.95,
) -> Interval:
  """Paired interval of mean(values) - mean(baseline) over the same sources.

  Both policies are resampled together, so what makes a source hard for both
  cancels: far narrower than the two intervals apart. The difference is significant
  at 1 - confidence when 0 lies outside. The two need the same sources, in the same
  order, and may have different numbers of candidates.

  Raises:
    ValueError: as bootstrap_mean, and for different numbers of sources.
  """
  values, baseline = _source_means(values_by_source), _source_means(baseline_by_source)
  if len(values) != len(baseline):
    raise ValueError(
      f'{len(values)} sources against {len(baseline)}: a paired difference needs the '
      'same sources in the same order.'
    )
  return bootstrap_mean(
    values - baseline, seed=seed, num_resamples=num_resamples, confidence=confidence
  )


def bootstrap_bleu(
  candidates: Sequence[str],
  references: Sequence[str],
  *,
  seed: int,
  sources: Sequence[int | str] | None = None,
  tokenize: str = '13a',
  num_resamples: int = 1000,
  confidence: float = 0.95,
) -> Interval:
  """Interval of corpus BLEU, 0 to 100; `mean` is corpus_bleu of all sentences.

  Args:
    candidates: detokenised texts.
    references: one per candidate.
    seed: see bootstrap_mean.
    sources: the source of each candidate, where several share one; they are then
      resampled together. None: every candidate has a source of its own.
    tokenize: sacreBLEU's tokenizer.
    num_resamples: see bootstrap_mean.
    confidence: see bootstrap_mean.

  Raises:
    ValueError: lengths differ, or fewer than two sources.
  """
  _check_lengths(candidates, references, sources)
  counts = _sum_by_source(bleu_counts(candidates, references, tokenize), sources)
  return bootstrap_counts(
    counts[:, None],
    bleu_of_counts,
    seed=seed,
    num_resamples=num_resamples,
    confidence=confidence,
  )


def bootstrap_chrf(
  candidates: Sequence[str],
  references: Sequence[str],
  *,
  seed: int,
  sources: Sequence[int | str] | None = None,
  num_resamples: int = 1000,
  confidence: float = 0.95,
) -> Interval:
  """Interval of corpus chrF2, 0 to 100; arguments as bootstrap_bleu."""
  _check_lengths(candidates, references, sources)
  counts = _sum_by_source(chrf_counts(candidates, references), sources)
  return bootstrap_counts(
    counts[:, None],
    chrf_of_counts,
    seed=seed,
    num_resamples=num_resamples,
    confidence=confidence,
  )


def bootstrap_counts(
  counts: np.ndarray,  # [sources, draws, counts] float64
  score_fn: Callable[[np.ndarray], np.ndarray],  # [sums, counts] -> [sums]
  *,
  seed: int,
  num_resamples: int = 1000,
  confidence: float = 0.95,
) -> Interval:
  """Interval of a corpus score that is a function of summed counts.

  Where a source has several draws of its output, each draw is a whole corpus with a
  score of its own; the statistic is their mean. Sources are resampled, and a source
  takes all its draws along.

  Args:
    counts: of every source's output, such as bleu_counts'.
    score_fn: the score of each row of sums, such as bleu_of_counts.
    seed: see bootstrap_mean.
    num_resamples: see bootstrap_mean.
    confidence: see bootstrap_mean.

  Raises:
    ValueError: fewer than two sources.
  """
  num_sources, num_draws, num_counts = counts.shape
  sums = _resampled_sums(
    counts.reshape(num_sources, num_draws * num_counts),
    seed=seed,
    num_resamples=num_resamples,
  )
  # [resamples, draws * counts] -> [resamples * draws, counts] -> [resamples, draws]
  scores = score_fn(sums.reshape(-1, num_counts)).reshape(-1, num_draws)
  point = score_fn(counts.sum(axis=0)).mean()
  return _interval(point, scores.mean(axis=1), confidence)


def _interval(point: float, resampled: np.ndarray, confidence: float) -> Interval:
  if not 0 < confidence < 1:
    raise ValueError(f'confidence={confidence}: choose one inside (0, 1), as 0.95.')
  tail = (1 - confidence) / 2
  low, high = np.quantile(resampled, [tail, 1 - tail])
  return Interval(float(point), float(low), float(high))


def _resampled_sums(
  rows: np.ndarray,  # [sources, counts] float64
  *,
  seed: int,
  num_resamples: int,
) -> np.ndarray:  # [resamples, counts] float64
  """Sums of the rows over `num_resamples` resamples with replacement."""
  num_sources = len(rows)
  if num_sources < 2:
    raise ValueError(
      f'{num_sources} source(s): a bootstrap interval needs at least two; evaluate on '
      'more sources.'
    )
  if num_resamples < 1:
    raise ValueError(f'num_resamples={num_resamples}: choose at least 1, as 1000.')
  rng = np.random.default_rng(seed)
  chunk = max(1, _MAX_DRAWS // num_sources)
  sums = []
  for start in range(0, num_resamples, chunk):
    size = min(chunk, num_resamples - start)
    drawn = rng.integers(num_sources, size=(size, num_sources))
    # How often each resample drew each source: [size, sources]; then one product.
    drawn += np.arange(size)[:, None] * num_sources
    times = np.bincount(drawn.ravel(), minlength=size * num_sources)
    sums.append(times.reshape(size, num_sources).astype(np.float64) @ rows)
  return np.concatenate(sums)


def _source_means(
  values_by_source: np.ndarray | Sequence[np.ndarray] | Sequence[float],
) -> np.ndarray:  # [sources] float64
  if isinstance(values_by_source, np.ndarray) and values_by_source.size:
    rows = values_by_source.astype(np.float64).reshape(len(values_by_source), -1)
    means = rows.mean(axis=1)
  else:
    arrays = [np.asarray(values, np.float64).ravel() for values in values_by_source]
    empty = [index for index, array in enumerate(arrays) if not array.size]
    if empty:
      raise ValueError(
        f'{len(empty)} of {len(arrays)} sources have no value (the first at index '
        f'{empty[0]}): leave them out and say how many.'
      )
    means = np.array([array.mean() for array in arrays], np.float64)
  if not np.isfinite(means).all():
    index = int(np.flatnonzero(~np.isfinite(means))[0])
    raise ValueError(f'The values of the source at index {index} are not finite.')
  return means


def _check_lengths(
  candidates: Sequence[str],
  references: Sequence[str],
  sources: Sequence[int | str] | None,
) -> None:
  sizes = {len(candidates), len(references)}
  sizes |= set() if sources is None else {len(sources)}
  if len(sizes) != 1:
    raise ValueError(
      f'{len(candidates)} candidates, {len(references)} references'
      + ('' if sources is None else f', {len(sources)} sources')
      + ': give one of each per candidate.'
    )


def _sum_by_source(
  counts: np.ndarray, sources: Sequence[int | str] | None
) -> np.ndarray:
  """[candidates, counts] to [sources, counts], in the order of first appearance."""
  if sources is None:
    return counts
  index_of: dict[int | str, int] = {}
  indices = [index_of.setdefault(source, len(index_of)) for source in sources]
  summed = np.zeros((len(index_of), counts.shape[1]))
  np.add.at(summed, indices, counts)
  return summed


def bleu_counts(
  candidates: Sequence[str], references: Sequence[str], tokenize: str = '13a'
) -> np.ndarray:  # [candidates, 10] float64
  """What BLEU adds up, a row per candidate: 4 matches, 4 totals, both lengths."""
  metric = BLEU(tokenize=tokenize, effective_order=True)
  rows = []
  for candidate, reference in zip(candidates, references, strict=True):
    score = metric.sentence_score(candidate, [reference])
    rows.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
  return np.array(rows, np.float64).reshape(-1, 2 * _BLEU_ORDER + 2)


def bleu_of_counts(
  sums: np.ndarray,  # [sums, 10]
) -> np.ndarray:  # [sums] float64
  """BLEU of each row of summed counts, with sacreBLEU's default smoothing ('exp').

  100 * min(1, e^(1 - r/c)) * (p_1 p_2 p_3 p_4)^(1/4), where the i-th order without
  a match, counted from 1, gets p = 1 / (2^i * total). No match at all gives 0.
  """
  matches, totals = sums[:, :_BLEU_ORDER], sums[:, _BLEU_ORDER : 2 * _BLEU_ORDER]
  candidate_length, reference_length = sums[:, -2], sums[:, -1]
  smoothing = 2.0 ** np.cumsum(matches == 0, axis=1)
  # An order without n-grams (no sentence is that long) gives BLEU 0, as there.
  precisions = np.where(matches > 0, matches, 1 / smoothing) / np.maximum(totals, 1)
  usable = (totals > 0).all(axis=1) & matches.any(axis=1)
  ratio = reference_length / np.maximum(candidate_length, 1)
  brevity = np.exp(np.minimum(0, 1 - ratio))
  return np.where(usable, 100 * brevity * np.exp(np.log(precisions).mean(axis=1)), 0)


def chrf_counts(
  candidates: Sequence[str], references: Sequence[str]
) -> np.ndarray:  # [candidates, 18] float64
  """What chrF adds up: per order the candidate's n-grams, the reference's, matches."""
  rows = np.zeros((len(candidates), 3 * _CHRF_ORDER))
  for row, candidate, reference in zip(rows, candidates, references, strict=True):
    # chrF reads text without its white space.
    candidate, reference = ''.join(candidate.split()), ''.join(reference.split())
    for order in range(1, _CHRF_ORDER + 1):
      mine, theirs = (
        Counter(text[i : i + order] for i in range(len(text) - order + 1))
        for text in (candidate, reference)
      )
      matches = sum(min(count, theirs[ngram]) for ngram, count in mine.items())
      # sacreBLEU drops an order that the reference is too short for.
      num_mine = mine.total() if theirs else 0
      row[3 * order - 3 : 3 * order] = num_mine, theirs.total(), matches
  return rows


def chrf_of_counts(
  sums: np.ndarray,  # [sums, 18]
) -> np.ndarray:  # [sums] float64
  """chrF of each row of summed counts: F_2 of the mean precision and recall.

  The means are over the orders that both sides have (sacreBLEU's default).
  """
  mine, theirs, matches = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
  used = (mine > 0) & (theirs > 0)
  orders = np.maximum(used.sum(axis=1), 1)
  precision = (used * matches / np.maximum(mine, 1)).sum(axis=1) / orders
  recall = (used * matches / np.maximum(theirs, 1)).sum(axis=1) / orders
  denominator = _CHRF_BETA_SQUARED * precision + recall
  numerator = (1 + _CHRF_BETA_SQUARED) * precision * recall
  return 100 * numerator / np.where(denominator > 0, denominator, 1)

"""Best-of-N: the quality of the best of N samples, for every N, from one pool.

A pool is M samples per source from one policy, duplicates kept. Best-of-N draws N of
a pool without replacement and answers with the one that a judge prefers. Which
candidate that is has an exact distribution, the **selection**

    p(j) = C(r_j - 1, N - 1) / C(M, N),    r_j the rank of j by the judge, 1 worst,

so the mean over all C(M, N) subsets costs a sort. Since a random subset of M
independent samples is N independent samples, the mean is unbiased for N samples of
the policy at every N <= M, and one pool serves all N.

Source: Nakano et al. 2021 (arXiv:2112.09332), appendix I. Departure: tied candidates
share their ranks' probability evenly, the mean over random orders of the tied.

    selections = [selection_probabilities(judge, numbers) for judge in judges]
    curve(selections, {'gold': gold}, seed=0)        means over sources, exact
    CorpusPool(texts, references, ...).curve(...)    BLEU and chrF, which are no means
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rest_jax.evaluation import intervals

NUMBERS = (1, 2, 5, 10, 25, 50, 100, 200)


def numbers_up_to(pool_size: int, numbers: Sequence[int] = NUMBERS) -> tuple[int, ...]:
  """The N that a pool of this size can answer for.

  Raises:
    ValueError: none of them.
  """
  kept = tuple(n for n in numbers if 1 <= n <= pool_size)
  if not kept:
    raise ValueError(
      f'no N of {tuple(numbers)} lies in [1, {pool_size}], the size of the pool: '
      'sample more candidates per source, or choose a smaller N.'
    )
  return kept


def selection_probabilities(judge: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
  """How likely each candidate of a pool is to be the best of N.

  The weights come from a recurrence of positive factors, so nothing overflows or
  cancels, whatever the pool:

      w_M = N / M,    w_r = w_{r+1} (r + 1 - N) / r    of rank r.

  Args:
    judge: [samples], higher is better; the judge of one source's pool, alone.
    numbers: the N, each in [1, samples].

  Returns:
    [numbers, samples] float64; each row sums to 1. N = 1 gives 1 / M everywhere,
    N = M the best candidate (the best ones evenly).

  Raises:
    ValueError: an N out of range, or a judgement that is not finite.
  """
  judge = np.asarray(judge, np.float64)
  if judge.ndim != 1 or not np.isfinite(judge).all():
    raise ValueError(
      f'a judge of shape {judge.shape} with {np.sum(~np.isfinite(judge))} values that '
      'are not finite: give [samples] finite numbers, one per candidate.'
    )
  size = len(judge)
  check_numbers(numbers, size)
  order = np.argsort(judge, kind='stable')
  ordered = judge[order]
  starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # of ties
  sizes = np.diff(np.r_[starts, size])
  ranks = np.arange(size - 1, 0, -1.0)
  selection = np.empty((len(numbers), size))
  for row, n in enumerate(numbers):
    # Below rank N a factor is 0, and so is all that follows.
    factors = np.maximum(ranks + 1 - n, 0) / ranks
    weights = n / size * np.r_[1.0, np.cumprod(factors)][::-1]  # [samples], by rank
    even = np.add.reduceat(weights, starts) / sizes
    selection[row, order] = np.repeat(even, sizes)
  return selection


def expected_values(
  selections: Sequence[np.ndarray], values: Sequence[np.ndarray]
) -> np.ndarray:
  """The expected value of the selected candidate, per source.

  Args:
    selections: per source [numbers, samples].
    values: per source [samples], any quantity of the candidates.

  Returns:
    [sources, numbers] float64. Two policies at their own N compare by
    intervals.bootstrap_difference of two columns.

  Raises:
    ValueError: the two have different sources or samples.
  """
  if [np.shape(s)[-1:] for s in selections] != [np.shape(v) for v in values]:
    raise ValueError(
      f'{len(selections)} selections and {len(values)} sources of values, or '
      'different numbers of samples in one of them: give both for the same pools.'
    )
  pairs = zip(selections, values, strict=True)
  return np.array([s @ np.asarray(v, np.float64) for s, v in pairs])


def curve(
  selections: Sequence[np.ndarray],
  values: Mapping[str, Sequence[np.ndarray]],
  *,
  seed: int,
) -> list[dict[str, intervals.Interval]]:
  """Means over sources of what Best-of-N selects, for each N.

  Args:
    selections: per source [numbers, samples].
    values: named quantities, each per source [samples].
    seed: of the bootstrap over sources, one for all N, so that they move together.

  Returns:
    A row per N: each quantity's mean and its 95 % interval over sources. The
    intervals know of no noise but that of the sources and their pools.

  Raises:
    ValueError: fewer than two sources, or pools that do not match.
  """
  expected = {name: expected_values(selections, v) for name, v in values.items()}
  return [
    {
      name: intervals.bootstrap_mean(by_source[:, row], seed=seed)
      for name, by_source in expected.items()
    }
    for row in range(len(selections[0]))
  ]


@dataclasses.dataclass(frozen=True)
class CorpusEstimate:
  """A corpus score of Best-of-N outputs, by drawing whole corpora of them.

  Attributes:
    interval: the mean over the drawn corpora, and its interval over sources.
    stddev: between the drawn corpora: how far one corpus of Best-of-N outputs, as
      published, lies from the mean by the luck of its samples.
  """

  interval: intervals.Interval
  stddev: float


class CorpusPool:
  """Pools judged by a score of the whole corpus, such as BLEU, which is no mean.

  The expected score has no closed form. It is estimated: a draw takes one candidate
  of every source from its selection, and has a corpus score; each draw is unbiased
  for a corpus of Best-of-N outputs. A source's draws are stratified (its K draws use
  one uniform number from each K-th of [0, 1), in random order), which leaves every
  single draw as it was and makes their mean more precise. The numbers are functions
  of the seed and the source's name, the same for every N and every policy.

  A candidate's counts are computed when it is first drawn, once.

  Args:
    source_ids: unique names, one per source.
    texts: per source [samples] candidates.
    references: one per source.
    counts_fn: (candidates, references) -> [candidates, counts], such as
      intervals.bleu_counts.
    score_fn: [sums, counts] -> [sums], such as intervals.bleu_of_counts.

  Raises:
    ValueError: the three have different numbers of sources.
  """

  def __init__(
    self,
    source_ids: Sequence[str],
    texts: Sequence[Sequence[str]],
    references: Sequence[str],
    *,
    counts_fn: Callable[[list[str], list[str]], np.ndarray],
    score_fn: Callable[[np.ndarray], np.ndarray],
  ):
    if not len(source_ids) == len(texts) == len(references):
      raise ValueError(
        f'{len(source_ids)} source_ids, {len(texts)} sources of texts and '
        f'{len(references)} references: give one of each per source.'
      )
    self._source_ids = source_ids
    self._counts_fn, self._score_fn = counts_fn, score_fn
    # Distinct (text, reference) pairs, and where each candidate's pair is.
    index_of: dict[tuple[str, str], int] = {}
    self._pair_of = [
      np.array([index_of.setdefault((t, ref), len(index_of)) for t in candidates])
      for candidates, ref in zip(texts, references, strict=True)
    ]
    self._pairs = list(index_of)
    self._known = np.zeros(len(self._pairs), bool)
    self._counts: np.ndarray | None = None  # [pairs, counts]

  def curve(
    self, selections: Sequence[np.ndarray], *, num_draws: int = 32, seed: int
  ) -> list[CorpusEstimate]:
    """The corpus score of what Best-of-N selects, for each N.

    Args:
      selections: per source [numbers, samples].
      num_draws: K, corpora drawn for each N.
      seed: of the draws, and of the bootstrap over sources.

    Raises:
      ValueError: no draw, fewer than two sources, or pools that do not match.
    """
    if num_draws < 1:
      raise ValueError(f'num_draws={num_draws}: draw at least one corpus, as 32.')
    if [np.shape(s)[-1] for s in selections] != [len(p) for p in self._pair_of]:
      raise ValueError(
        f'{len(selections)} selections for {len(self._pair_of)} sources, or of '
        'another number of samples: give one per pool, [numbers, samples].'
      )
    uniform = [_stratified(num_draws, seed, name) for name in self._source_ids]
    estimates = []
    for row in range(len(selections[0])):
      drawn = [
        pair[_inverse(selection[row], u)]
        for pair, selection, u in zip(self._pair_of, selections, uniform, strict=True)
      ]
      counts = self._counts_of(np.stack(drawn))  # [sources, draws, counts]
      scores = self._score_fn(counts.sum(axis=0))  # [draws]
      interval = intervals.bootstrap_counts(counts, self._score_fn, seed=seed)
      estimates.append(CorpusEstimate(interval, float(scores.std())))
    return estimates

  def _counts_of(self, pairs: np.ndarray) -> np.ndarray:
    """[sources, draws] pairs to [sources, draws, counts]."""
    drawn = np.unique(pairs)
    new = drawn[~self._known[drawn]]
    if new.size:
      candidates, references = zip(*(self._pairs[i] for i in new), strict=True)
      counts = self._counts_fn(list(candidates), list(references))
      if self._counts is None:
        self._counts = np.zeros((len(self._pairs), counts.shape[1]))
      self._counts[new] = counts
      self._known[new] = True
    assert self._counts is not None
    return self._counts[pairs]


def source_rng(seed: int, source_id: str) -> np.random.Generator:
  """Random numbers of one source: of its name, not of its place in the set."""
  digest = hashlib.sha256(source_id.encode()).digest()
  return np.random.default_rng([seed, *np.frombuffer(digest[:16], '<u4').tolist()])


def check_numbers(numbers: Sequence[int], pool_size: int) -> None:
  """Raises ValueError where an N is not in [1, pool_size]."""
  wrong = [n for n in numbers if not 1 <= n <= pool_size]
  if wrong or not len(numbers):
    raise ValueError(
      f'N = {wrong or "(none)"}: a pool of {pool_size} samples answers for N in '
      f'[1, {pool_size}]; choose with numbers_up_to(pool_size).'
    )


def _stratified(num_draws: int, seed: int, source_id: str) -> np.ndarray:
  """[draws] uniform numbers in [0, 1), one in each interval of 1 / draws."""
  rng = source_rng(seed, source_id)
  return (rng.permutation(num_draws) + rng.random(num_draws)) / num_draws


def _inverse(probabilities: np.ndarray, uniform: np.ndarray) -> np.ndarray:
  """[draws] indices that the uniform numbers select; none of probability 0."""
  cumulative = np.cumsum(probabilities)
  return np.searchsorted(cumulative, uniform * cumulative[-1], side='right')

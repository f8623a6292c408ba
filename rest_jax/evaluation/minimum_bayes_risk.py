"""Minimum Bayes risk: the candidate that agrees best with the other samples.

A candidate's expected utility under the policy is estimated by the other samples of
its group, the **pseudo-references**; the decision is the candidate with the highest:

    S(y_j) = 1 / (N - 1) * sum_{i != j} u(y_j, y_i).

It needs neither a reference nor a reward model. Source: Eikema & Aziz 2020
(arXiv:2005.10283). Departure: a candidate is not its own pseudo-reference, so that S
is unbiased for the utility against a fresh sample. With a utility that is 1 for equal
texts, as chrF, that reorders nothing, since all candidates lose the same 1 / N.

A **utility** is any function (candidates, pseudo-references) -> matrix of
[candidates, pseudo-references], higher is better.

Cost of a group: O(N^2) utilities. With chrF a utility is a scalar product over the
character n-grams that candidates share, so O(N^2 * n-grams), in six matrix products,
after counting in O(N * length). Measured on one CPU core, sentences of 50 letters:
5 ms for N = 100 (the pairwise loop takes 900 ms), 12 ms for 200, 0.3 s for 1,000.
"""

from collections.abc import Callable, Sequence

import numpy as np

from rest_jax.evaluation import best_of_n, chrf

Utility = Callable[[Sequence[str], Sequence[str]], np.ndarray]

# Scores this close are ties: sums over another order of the same numbers differ so.
_TIE = 1e-9


def chrf_utilities(
  candidates: Sequence[str], pseudo_references: Sequence[str]
) -> np.ndarray:
  """Sentence chrF of every candidate against every pseudo-reference.

  The k-th occurrence of an n-gram in a text is a feature that the text has or has
  not, so the matches min(count_i, count_j), summed over n-grams, are products of two
  rows of a 0/1 matrix. Features of a single text match nothing and are left out.

  Returns:
    [candidates, pseudo_references] float64, 0 to 1; `chrf.sentence_chrf` of each
    pair, to rounding. Not symmetric (beta is 2). An empty text has 0 with every one,
    itself included.
  """
  index_of: dict[str, int] = {}
  rows, columns = (
    np.array([index_of.setdefault(text, len(index_of)) for text in texts], np.int64)
    for texts in (candidates, pseudo_references)
  )
  texts = [''.join(text.split()) for text in index_of]  # chrF reads no white space
  lengths = np.array([len(text) for text in texts], np.int64)
  mine, theirs = lengths[rows][:, None], lengths[columns][None, :]
  equal = rows[:, None] == columns[None, :]
  # Precision and recall are means over the orders that both texts have.
  orders = np.minimum(np.minimum(mine, theirs), chrf.CHARACTER_ORDER)
  precision, recall = np.zeros(equal.shape), np.zeros(equal.shape)
  for order, features in enumerate(_features(texts, lengths)):
    matches = (features[rows] @ features[columns].T).astype(np.float64)
    matches = np.where(equal, np.maximum(mine - order, 0), matches)
    precision += matches / np.maximum(mine - order, 1)
    recall += matches / np.maximum(theirs - order, 1)
  precision /= np.maximum(orders, 1)
  recall /= np.maximum(orders, 1)
  weight = chrf.BETA**2
  denominator = weight * precision + recall
  numerator = (1 + weight) * precision * recall
  return numerator / np.where(denominator > 0, denominator, 1)


def expected_utilities(
  texts: Sequence[str],
  *,
  pseudo_references: np.ndarray | None = None,
  utility: Utility = chrf_utilities,
  alone: float = 0.0,
) -> np.ndarray:
  """Each candidate's mean utility against the rest of its group.

  The utility sees distinct texts only; duplicates weigh by their number. A copy of a
  candidate is a pseudo-reference of it as any other: agreement is what counts.

  Args:
    texts: [samples] candidates of one source.
    pseudo_references: [samples] bool, which of them are; None: all are. The others
      are judged against these as well.
    utility: chrF, or another.
    alone: the value of a candidate without a pseudo-reference but itself. Nothing
      is known of it; 0, the lowest chrF, says that nothing supports it.

  Returns:
    [samples] float64.

  Raises:
    ValueError: the utility's answer has the wrong shape or is not finite.
  """
  own = np.ones(len(texts), bool)
  if pseudo_references is not None:
    own = np.asarray(pseudo_references, bool)
  if own.shape != (len(texts),):
    raise ValueError(
      f'pseudo_references has shape {own.shape} for {len(texts)} candidates: give one '
      'truth value per candidate.'
    )
  distinct, of = _distinct(texts)
  multiplicity = np.bincount(of[own], minlength=len(distinct))  # [distinct]
  used = np.flatnonzero(multiplicity)
  if not used.size:
    return np.full(len(texts), alone)
  utilities = _checked(utility, distinct, [distinct[i] for i in used])
  totals = utilities @ multiplicity[used].astype(np.float64)  # [distinct]
  with_itself = np.zeros(len(distinct))
  with_itself[used] = utilities[used, np.arange(len(used))]
  others = own.sum() - own  # [samples]
  sums = totals[of] - own * with_itself[of]
  return np.where(others > 0, sums / np.maximum(others, 1), alone)


def utility_matrix(
  texts: Sequence[str], utility: Utility = chrf_utilities
) -> np.ndarray:
  """[samples, samples] float64 utilities of all candidates against one another.

  Raises:
    ValueError: as expected_utilities.
  """
  distinct, of = _distinct(texts)
  return _checked(utility, distinct, distinct)[of[:, None], of[None, :]]


def selection_probabilities(
  utilities: np.ndarray,
  numbers: Sequence[int],
  *,
  num_draws: int = 64,
  rng: np.random.Generator,
) -> np.ndarray:
  """How likely each candidate of a pool is to be the decision among N of them.

  Not best_of_n.selection_probabilities of S on the whole pool: a decision among N
  samples has these N - 1 others for pseudo-references and no more, so a candidate's
  score depends on who was drawn with it. There is no closed form; the mean over
  `num_draws` subsets is an unbiased estimate, exact at N = 1 and N = M. A source's
  subsets for different N are nested.

  Args:
    utilities: [samples, samples] of one source's pool, see utility_matrix.
    numbers: the N, each in [1, samples].
    num_draws: subsets of each size.
    rng: of the subsets, see best_of_n.source_rng.

  Returns:
    [numbers, samples] float64; each row sums to 1. Ties share evenly; at N = 1 the
    one candidate is the decision.

  Raises:
    ValueError: an N out of range, or no draw.
  """
  size = len(utilities)
  best_of_n.check_numbers(numbers, size)
  if num_draws < 1:
    raise ValueError(f'num_draws={num_draws}: draw at least one subset, as 64.')
  # [samples, samples]: row i is what a pseudo-reference i gives to each candidate.
  given = np.where(np.eye(size, dtype=bool), 0, utilities).T
  places = rng.permuted(np.tile(np.arange(size), (num_draws, 1)), axis=1)
  selection = np.full((len(numbers), size), 1 / size)
  for row, n in enumerate(numbers):
    if n == 1:
      continue
    drawn = places[: 1 if n == size else None] < n  # [draws, samples]
    scores = np.where(drawn, drawn.astype(np.float64) @ given, -np.inf)
    scale = np.abs(utilities).max() * n
    best = scores >= scores.max(axis=1, keepdims=True) - _TIE * scale
    selection[row] = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
  return selection


def _distinct(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
  """The distinct texts in order of appearance, and the index of each text's."""
  index_of: dict[str, int] = {}
  of = [index_of.setdefault(text, len(index_of)) for text in texts]
  return list(index_of), np.array(of, np.int64)


def _checked(
  utility: Utility, candidates: Sequence[str], pseudo_references: Sequence[str]
) -> np.ndarray:
  """The utility's matrix, float64."""
  matrix = np.asarray(utility(candidates, pseudo_references), np.float64)
  expected = (len(candidates), len(pseudo_references))
  if matrix.shape != expected or not np.isfinite(matrix).all():
    raise ValueError(
      f'the utility {getattr(utility, "__name__", utility)!r} gave shape '
      f'{matrix.shape} with {np.sum(~np.isfinite(matrix))} values that are not '
      f'finite; it must give {expected} finite numbers, [candidates, '
      'pseudo_references].'
    )
  return matrix


def _features(texts: Sequence[str], lengths: np.ndarray) -> list[np.ndarray]:
  """Per order, a [texts, features] float32 matrix of 0 and 1.

  Features are the occurrences of n-grams that more than one text has. float32 holds
  their sums exactly up to 2^24.
  """
  count = len(texts)
  joined = ''.join(texts).encode('utf-32-le', 'surrogatepass')
  codes = np.unique(np.frombuffer(joined, '<u4'), return_inverse=True)[1]
  num_codes = int(codes.max(initial=0)) + 1
  starts = np.arange(len(codes))
  owners = np.repeat(np.arange(count), lengths)
  ends = np.repeat(np.cumsum(lengths), lengths)
  ngrams = codes
  matrices = []
  for order in range(chrf.CHARACTER_ORDER):
    if order:  # one character longer, where the text has one
      fits = starts + order < ends
      starts, owners, ends = starts[fits], owners[fits], ends[fits]
      longer = ngrams[fits] * num_codes + codes[starts + order]
      ngrams = np.unique(longer, return_inverse=True)[1]
    keys = np.sort(ngrams * count + owners)
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    repeats = np.diff(first, append=len(keys))
    occurrence = np.arange(len(keys)) - np.repeat(first, repeats)
    feature = keys // max(count, 1) * (occurrence.max(initial=0) + 1) + occurrence
    _, of, texts_with = np.unique(feature, return_inverse=True, return_counts=True)
    shared = texts_with > 1
    column = np.cumsum(shared) - 1
    used = shared[of]
    matrix = np.zeros((count, int(shared.sum())), np.float32)
    matrix[keys[used] % max(count, 1), column[of[used]]] = 1
    matrices.append(matrix)
  return matrices

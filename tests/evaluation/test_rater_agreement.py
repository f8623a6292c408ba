"""Raters' agreement, against a published example and by hand."""

import numpy as np
import pytest

from rest_jax.evaluation import rater_agreement

N = np.nan
# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example C: four
# observers, twelve units. Published: 0.743 nominal, 0.849 interval.
PUBLISHED = np.array(
  [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
  ]
)


def _alpha(ratings, num_values=7):
  sums = rater_agreement.coincidences(ratings, num_values).sum(axis=0)
  return float(rater_agreement.alpha_of_coincidences(sums.reshape(1, -1))[0])


def _slowly(ratings):
  """Alpha by its words: mean squares of pairs inside units, and of all pairs."""
  units = [column[np.isfinite(column)] for column in ratings.T]
  units = [unit for unit in units if len(unit) > 1]
  total = sum(len(unit) for unit in units)
  observed = sum(
    ((unit[:, None] - unit[None, :]) ** 2).sum() / (len(unit) - 1) for unit in units
  )
  pooled = np.concatenate(units)
  expected = ((pooled[:, None] - pooled[None, :]) ** 2).sum() / (total - 1)
  return 1 - observed / expected


def test_alpha_of_the_published_example():
  assert round(_alpha(PUBLISHED), 3) == 0.849
  counts = rater_agreement.coincidences(PUBLISHED, 6).sum(axis=0)
  # The coincidence matrix that the example prints.
  printed = [[7, 4 / 3, 1 / 3, 1 / 3, 0], [4 / 3, 10, 4 / 3, 1 / 3, 0]]
  np.testing.assert_allclose(counts[1:3, 1:], printed, rtol=1e-12)
  assert counts.sum() == pytest.approx(40)


def test_alpha_is_what_its_definition_says():
  rng = np.random.default_rng(0)
  for _ in range(20):
    ratings = rng.integers(0, 7, (4, 15)).astype(float)
    ratings[rng.random(ratings.shape) < 0.3] = np.nan
    assert _alpha(ratings) == pytest.approx(_slowly(ratings), rel=1e-9)


def test_alpha_at_its_ends():
  same = np.tile(np.arange(7.0), (3, 1))
  assert _alpha(same) == 1.0
  # Two raters who always give the ends, crossed: 1 - (4 - 1) * 4 * 36 / (2 * 4 * 36).
  assert _alpha(np.array([[0.0, 6.0], [6.0, 0.0]])) == pytest.approx(-0.5)


def test_a_unit_with_one_rating_counts_nothing():
  alone = np.array([[6.0], [N], [N], [N]])
  assert _alpha(np.hstack([PUBLISHED, alone])) == pytest.approx(_alpha(PUBLISHED))


def test_the_interval_is_over_sources():
  rng = np.random.default_rng(1)
  quality = rng.integers(1, 6, 60)
  noise = rng.integers(-1, 2, (3, 60))
  ratings = (quality + noise).astype(float)
  single = rater_agreement.krippendorff_alpha(ratings, range(60), num_values=7, seed=0)
  assert single.mean == pytest.approx(_slowly(ratings))
  assert single.low < single.mean < single.high
  # Six copies of a unit in one source are no new evidence: the same interval.
  copied = rater_agreement.krippendorff_alpha(
    np.repeat(ratings, 6, axis=1), np.repeat(np.arange(60), 6), num_values=7, seed=0
  )
  assert copied.high - copied.low == pytest.approx(single.high - single.low, rel=0.02)


@pytest.mark.parametrize(
  'ratings',
  [
    [[1, 2, N, N], [N, N, 3, 4]],  # nothing in common
    [[1, N, N, N], [2, N, N, N]],  # one source
    [[3, 3, 3, 3], [3, 3, 3, 3]],  # nothing varies
  ],
)
def test_alpha_is_none_where_it_is_undefined(ratings):
  found = rater_agreement.krippendorff_alpha(
    np.array(ratings, float), range(4), num_values=7, seed=0
  )
  assert found is None


def test_pairs_of_raters():
  ratings = np.array(
    [[0, 1, 2, 3, N], [1, 2, 3, 6, 5], [6, 4, 2, 0, N], [N, N, N, N, 1]]
  )
  found = rater_agreement.pairwise_spearman(ratings)
  assert [(p.first, p.second, p.units) for p in found] == [
    (0, 1, 4),
    (0, 2, 4),
    (1, 2, 4),
    (1, 3, 1),
  ]
  assert [p.spearman for p in found] == [pytest.approx(1), pytest.approx(-1)] * 1 + [
    pytest.approx(-1),
    None,
  ]


@pytest.mark.parametrize('rating', [-1.0, 7.0, 2.5])
def test_a_rating_off_the_scale_is_refused(rating):
  with pytest.raises(ValueError, match='whole numbers from 0 to 6'):
    rater_agreement.coincidences(np.array([[rating], [3.0]]), 7)

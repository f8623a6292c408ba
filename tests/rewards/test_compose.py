"""Scorers made of scorers, by hand."""

import json
import math

import numpy as np
import pytest

from rest_jax.evaluation import text_metrics
from rest_jax.rewards import compose, normalisers, text
from rest_jax.stages import fingerprint
from tests.rewards import test_text

GROUPS = [
  test_text._group(['a', 'bb']),
  test_text._group([]),
  test_text._group(['ccc']),
]


class Fixed:
  """Gives these rewards, whatever the candidates."""

  def __init__(self, *rewards, name='fixed'):
    self.name = name
    self._rewards = rewards

  def identity(self):
    return {'scorer': self.name, 'rewards': list(self._rewards)}

  def __call__(self, groups):
    sizes = [len(group.texts) for group in groups]
    return np.split(np.array(self._rewards, np.float32), np.cumsum(sizes)[:-1])


ONE, TWO, THREE = Fixed(0.0, 0.5, 1.0), Fixed(1.0, 0.5, 0.0), Fixed(0.5, 2.0, 0.5)


def _flat(scorer, groups=GROUPS):
  rewards = scorer(groups)
  test_text._assert_arrays(rewards, groups)
  return np.concatenate([np.zeros(0), *rewards])


@pytest.mark.parametrize(
  ('combine', 'expected'),
  [
    (compose.Mean(), [0.5, 1.0, 0.5]),
    (compose.Mean((1.0, 0.0, 3.0)), [0.375, 1.625, 0.625]),
    (compose.Minimum(), [0.0, 0.5, 0.0]),
    (compose.MeanMinusDeviations(0.0), [0.5, 1.0, 0.5]),
    # Deviations of (0, 1, 0.5): sqrt(1/6); of (0.5, 0.5, 2): sqrt(1/2).
    (
      compose.MeanMinusDeviations(2.0),
      [0.5 - 2 / math.sqrt(6), 1 - math.sqrt(2), 0.5 - 2 / math.sqrt(6)],
    ),
  ],
)
def test_an_ensemble_combines_its_members(combine, expected):
  found = _flat(compose.Ensemble((ONE, TWO, THREE), combine=combine))
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_one_member_has_no_deviation():
  found = _flat(compose.Ensemble((ONE,), combine=compose.MeanMinusDeviations(3.0)))
  assert found.tolist() == [0.0, 0.5, 1.0]


def test_a_member_has_a_scale_of_its_own(tmp_path):
  fitted = normalisers.EmpiricalCdf.fit(np.array([0.0, 1.0, 2.0, 3.0]))
  path = tmp_path / 'score_1' / 'normaliser.json'
  path.parent.mkdir()
  path.write_text(json.dumps(fitted.to_dict()))
  for place in (path, path.parent):
    read = compose.read_normaliser(place)
    assert read == fitted
  scorer = compose.Ensemble(
    (
      compose.Normalised(THREE, read),  # 0.25, 0.625, 0.25
      compose.Normalised(TWO, normalisers.MinMax(0.0, 4.0)),  # 0.25, 0.125, 0
    ),
    combine=compose.Minimum(),
  )
  np.testing.assert_allclose(_flat(scorer), [0.25, 0.125, 0.0], rtol=1e-6)
  with pytest.raises(ValueError, match=r'score_2.*does not exist'):
    compose.read_normaliser(tmp_path / 'score_2')


def test_scaled_turns_around_and_clips():
  scorer = compose.Scaled(THREE, factor=-1.0, offset=1.0)
  assert _flat(scorer).tolist() == [0.5, -1.0, 0.5]
  assert _flat(compose.Scaled(THREE, high=1.5)).tolist() == [0.5, 1.5, 0.5]
  assert _flat(compose.Scaled(THREE, low=0.75)).tolist() == [0.75, 2.0, 0.75]


@pytest.mark.parametrize(
  ('source', 'candidate', 'expected'),
  [
    ('xxxx', 'yyyy', 0.0),
    ('xxxx', 'yy', 0.0),  # at the bounds
    ('xxxx', 'y' * 8, 0.0),
    ('xxxx', 'y' * 16, 3 * math.log(2)),
    ('xxxx', 'y', 3 * math.log(2)),
    ('xxxx', '', 3 * math.log(2)),  # as one character
    ('xxxx', f'   {"y" * 4}   ', 0.0),
    ('', 'y' * 4, 3 * math.log(2)),
  ],
)
def test_length_penalty(source, candidate, expected):
  penalty = compose.LengthPenalty(low=0.5, high=2.0, weight=3.0)
  assert penalty(source, candidate) == pytest.approx(expected)


@pytest.mark.parametrize(
  ('n', 'candidate', 'expected'),
  [
    (1, 'a b c', 0.0),
    (1, 'a b a', 2 / 3),
    (1, '', 0.0),
    (2, 'a', 0.0),
    (2, 'a b a b a b', 2 * 3 / 5),  # ab ba ab ba ab: two of five are new
    (2, 'A dog. A dog.', 2 * 1 / 3),  # punctuation is no word
  ],
)
def test_repetition_penalty(n, candidate, expected):
  penalty = compose.RepetitionPenalty(n=n, weight=2.0)
  assert penalty('a', candidate) == pytest.approx(expected)


def test_repetition_without_spaces():
  penalty = compose.RepetitionPenalty(n=2, split=text_metrics.characters)
  assert penalty('', '猫猫，猫猫') == pytest.approx(2 / 3)  # 猫猫, three times
  assert compose.RepetitionPenalty(n=2)('', '猫猫，猫猫') == pytest.approx(0)


def test_penalties_are_taken_off():
  groups = [test_text._group(['a a', 'x' * 18]), test_text._group(['abcdefghi'])]
  scorer = compose.Penalised(
    Fixed(1.0, 2.0, 3.0),
    (
      compose.RepetitionPenalty(n=1, weight=0.5),
      compose.LengthPenalty(low=1 / 3, high=1.0, weight=1.0),
    ),
  )
  # The source has 9 characters; the first is at the lower bound, the second doubles
  # the upper one.
  expected = [1 - 0.25, 2 - math.log(2), 3.0]
  np.testing.assert_allclose(_flat(scorer, groups), expected, rtol=1e-6)


def test_rewards_do_not_depend_on_what_is_scored_with_them():
  groups = [test_text._group(['the cat', 'the the', 'dog']), test_text._group(['cat'])]
  scorer = compose.Penalised(
    compose.Ensemble((text.ChrfReward(), text.ExactMatch())),
    (compose.LengthPenalty(), compose.RepetitionPenalty(n=1)),
  )
  whole = scorer(groups)
  for group, values in zip(groups, whole, strict=True):
    np.testing.assert_array_equal(scorer([group])[0], values)
  np.testing.assert_array_equal(scorer(groups[::-1])[1], whole[0])


def _composed(**changes):
  options = {
    'high': 2.0,
    'split': text_metrics.words,
    'combine': compose.Mean((1.0, 2.0)),
    'scale': normalisers.MinMax(0.0, 1.0),
    'factor': 1.0,
    'members': (ONE, TWO),
  } | changes
  first, *rest = options['members']
  return compose.Penalised(
    compose.Ensemble(
      (
        compose.Normalised(first, options['scale']),
        *(compose.Scaled(member, factor=options['factor']) for member in rest),
      ),
      combine=options['combine'],
    ),
    (
      compose.LengthPenalty(high=options['high']),
      compose.RepetitionPenalty(split=options['split']),
    ),
  )


def test_all_of_it_is_in_the_identity():
  cdf = normalisers.EmpiricalCdf.fit
  long = np.arange(200.0)
  changed = [
    {},
    {'high': 3.0},
    {'split': text_metrics.characters},
    {'combine': compose.Mean()},
    {'combine': compose.Minimum()},
    {'combine': compose.MeanMinusDeviations(1.0)},
    {'combine': compose.MeanMinusDeviations(2.0)},
    {'scale': normalisers.MinMax(0.0, 2.0)},
    {'scale': cdf(long)},
    {'scale': cdf(np.append(long, [7.0]))},
    {'factor': 2.0},
    {'members': (ONE, THREE)},
    {'members': (TWO, ONE)},
  ]
  prints = [
    fingerprint.fingerprint({'scorer': fingerprint.describe(_composed(**options))})
    for options in changed
  ]
  assert len(set(prints)) == len(changed)
  assert prints[0] == fingerprint.fingerprint(
    {'scorer': fingerprint.describe(_composed())}
  )
  json.dumps(_composed(scale=cdf(long)).identity())


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: compose.Ensemble(()), 'has no member'),
    (lambda: compose.Mean((1.0, -1.0)), 'not negative'),
    (lambda: compose.Mean((0.0, 0.0)), 'not all 0'),
    (lambda: compose.Mean((1.0, math.nan)), 'must be finite'),
    (lambda: compose.Ensemble((ONE,), combine=compose.Mean((1.0, 1.0)))(GROUPS), '2 w'),
    (lambda: compose.MeanMinusDeviations(-1.0), 'at least 0'),
    (lambda: compose.Scaled(ONE, factor=0.0), 'factor not 0'),
    (lambda: compose.Scaled(ONE, low=1.0, high=1.0), 'low must be below high'),
    (lambda: compose.LengthPenalty(low=2.0, high=1.0), '0 < low <= high'),
    (lambda: compose.LengthPenalty(weight=0.0), 'above 0'),
    (lambda: compose.RepetitionPenalty(n=0), 'at least 1'),
    (lambda: compose.Penalised(ONE, ()), 'give a penalty'),
  ],
)
def test_what_cannot_be_is_named(make, message):
  with pytest.raises(ValueError, match=message):
    make()

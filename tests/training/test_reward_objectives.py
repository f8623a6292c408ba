"""Objectives of the reward model: losses of its predictions, bound to the model."""

import functools
import math

import jax
import numpy as np
import pytest

from rest_jax.models import t5
from rest_jax.stages import fingerprint
from rest_jax.training import reward_objectives
from tests.models import test_reward

CONFIG = test_reward.CONFIG
DROPOUT = t5.T5Config(**CONFIG.to_dict() | {'dropout_rate': 0.5})
# The second row's last candidate is an empty slot.
KEEP = np.array([[True, True, True], [True, True, False]])
RATINGS = np.array([[0.5, 2.0, -1.0], [0.2, 0.1, 9.0]], np.float32)
WITHIN = reward_objectives.RatingPairs()
ACROSS = reward_objectives.RatingPairs(across_sources=True)
MARGIN = reward_objectives.RatingPairs(margin=1.5, across_sources=True)
GIVEN = reward_objectives.GivenPairs()


@functools.partial(jax.jit, static_argnames=('objective', 'config'))
def _loss(params, batch, rng, *, objective, config=CONFIG):
  return objective.loss_fn(config)(params, batch, rng)


def _batch():
  preferences = np.zeros((2, 3, 3), np.float32)
  preferences[0, 0, 1], preferences[0, 1, 0], preferences[1, 1, 0] = 2, 1, 1
  preferences[1, 2, 0] = 5  # of an empty slot
  return test_reward.make_batch() | {
    'keep': KEEP,
    'ratings': RATINGS,
    'preferences': preferences,
  }


def _sums(objective):
  return _loss(
    test_reward.make_params(), _batch(), jax.random.key(0), objective=objective
  )


def _predictions():
  params = test_reward.make_params()
  return np.asarray(test_reward.PREDICT(params, _batch(), config=CONFIG), np.float64)


def _pairs(pairs):
  """((row, slot), (row, slot), times) of every preference, by the words alone."""
  slots = [(int(row), int(slot)) for row, slot in np.argwhere(KEEP)]
  for one in slots:
    for other in slots:
      if pairs == GIVEN:
        if one[0] == other[0]:
          yield one, other, _batch()['preferences'][one[0], one[1], other[1]]
      elif pairs.across_sources or one[0] == other[0]:
        yield one, other, float(RATINGS[one] - RATINGS[other] > pairs.margin)


def test_regression_sums_the_squared_errors_of_what_is_kept():
  predictions = _predictions()
  errors = [predictions[at] - RATINGS[at] for at in map(tuple, np.argwhere(KEEP))]
  loss_sum, weight_sum, _ = _sums(reward_objectives.Regression())
  assert float(loss_sum) == pytest.approx(sum(e**2 for e in errors), rel=1e-5)
  assert float(weight_sum) == KEEP.sum()


@pytest.mark.parametrize(
  # 3 and not 4 beyond the margin: 0.5 and -1 lie apart by the margin itself.
  ('pairs', 'number'),
  [(WITHIN, 4), (ACROSS, 10), (MARGIN, 3), (GIVEN, 4)],
)
def test_bradley_terry_sums_over_the_pairs(pairs, number):
  predictions = _predictions()
  expected = right = count = 0.0
  for one, other, times in _pairs(pairs):
    gap = predictions[one] - predictions[other]
    expected += times * math.log1p(math.exp(-gap))
    right += times * (gap > 0)
    count += times
  loss_sum, weight_sum, metrics = _sums(reward_objectives.BradleyTerry(pairs))
  assert float(weight_sum) == count == number
  assert float(loss_sum) == pytest.approx(expected, rel=1e-5)
  assert float(metrics['pair_accuracy'][0]) == right


def test_both_together_are_the_weighted_sum_of_the_two_means():
  regression, _, _ = _sums(reward_objectives.Regression())
  compared, pairs, _ = _sums(reward_objectives.BradleyTerry(ACROSS))
  loss_sum, weight_sum, _ = _sums(
    reward_objectives.RegressionAndPairs(
      ACROSS, regression_weight=0.5, pairs_weight=3.0
    )
  )
  expected = 0.5 * float(regression) / 5 + 3 * float(compared) / float(pairs)
  assert float(loss_sum) / float(weight_sum) == pytest.approx(expected, rel=1e-5)
  assert float(weight_sum) == KEEP.sum()  # so that microbatches weigh by candidates


@pytest.mark.parametrize(
  'objective',
  [
    reward_objectives.Regression(),
    reward_objectives.BradleyTerry(),
    reward_objectives.RegressionAndPairs(),
  ],
)
def test_dropout_follows_the_key_and_is_off_at_rate_0(objective):
  batch, losses, params = _batch(), {}, test_reward.make_params()
  for config in (CONFIG, DROPOUT):
    losses[config.dropout_rate] = [
      float(
        _loss(params, batch, jax.random.key(k), objective=objective, config=config)[0]
      )
      for k in (0, 0, 1)
    ]
  one, same, other = losses[0.5]
  assert one == same != other
  assert len(set(losses[0.0])) == 1


def test_how_much_a_group_has_to_learn_from():
  ratings = np.array([1.0, 2.0, 2.0], np.float32)
  judgements = np.array([[1, 5], [0, np.nan], [np.nan, 4]], np.float32)
  assert reward_objectives.Regression().num_examples(ratings, judgements) == 3
  for pairs, number in ((WITHIN, 2), (ACROSS, 3), (GIVEN, 2)):
    objective = reward_objectives.BradleyTerry(pairs)
    assert objective.num_examples(ratings, judgements) == number
    both = reward_objectives.RegressionAndPairs(pairs)
    assert both.num_examples(ratings, judgements) == number
  alone = reward_objectives.BradleyTerry().num_examples(ratings[:1], judgements[:1])
  assert alone == 0


def test_fingerprints_tell_objectives_apart_and_know_the_first_one_by_its_name():
  described = [
    str(fingerprint.describe(objective))
    for pairs in (WITHIN, ACROSS, MARGIN, GIVEN)
    for objective in (
      reward_objectives.BradleyTerry(pairs),
      reward_objectives.RegressionAndPairs(pairs),
    )
  ]
  assert len(set(described)) == 8
  # What reward models that were made before have in their stage.json.
  assert fingerprint.describe(reward_objectives.Regression()) == {
    'type': 'rest_jax.training.objectives.Regression'
  }

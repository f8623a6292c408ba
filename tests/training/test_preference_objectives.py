"""Preference losses bound to models, and the pairs that are made of a batch."""

import math

import numpy as np
import pytest

from rest_jax.losses import preference
from rest_jax.training import preference_objectives
from tests.training import test_offline_objectives as offline

OBJECTIVES = (
  preference_objectives.DPO(),
  preference_objectives.DPO(
    beta=0.3,
    pairs_fn=preference_objectives.AllPairs(),
    sequence_fn=preference.mean_token_log_probs,
  ),
  preference_objectives.IPO(tau=0.5),
)
# Kept: slots 0 and 2 of the first row (rewards .9 and .4), 0 and 1 of the second
# (.2 and .7); the best first.
PAIRS = ((0, 0, 2), (1, 1, 0))


def _gaps(batch, *, mean):
  """log pi / pi_ref of the chosen less that of the rejected, for each pair."""
  log_pi = offline.log_softmax(offline.policy(), batch)
  log_ref = offline.log_softmax(offline.policy(3), batch)
  ratios = np.zeros((2, 3))
  for row, slot, t, n in offline.tokens_of(batch):
    difference = offline.chosen(log_pi, batch, row, slot, t) - offline.chosen(
      log_ref, batch, row, slot, t
    )
    ratios[row, slot] += difference / (n if mean else 1)
  return [ratios[row, best] - ratios[row, worst] for row, best, worst in PAIRS]


@pytest.mark.parametrize(
  ('objective', 'loss_of_gap', 'mean'),
  [
    (OBJECTIVES[0], lambda h: math.log1p(math.exp(-0.1 * h)), False),
    (OBJECTIVES[1], lambda h: math.log1p(math.exp(-0.3 * h)), True),
    (OBJECTIVES[2], lambda h: (h - 1) ** 2, False),
  ],
)
def test_a_preference_objective_is_its_equation_over_the_pairs(
  objective, loss_of_gap, mean
):
  batch = offline.make_batch()
  gaps = _gaps(batch, mean=mean)
  loss_sum, weight_sum, metrics = offline.loss_of(objective, batch)
  assert float(weight_sum) == 2
  # float32 sums of log-probabilities; IPO squares gaps of order 10.
  expected = sum(map(loss_of_gap, gaps))
  assert float(loss_sum) == pytest.approx(expected, rel=5e-5)
  assert float(metrics['pair_accuracy'][0]) == sum(gap > 0 for gap in gaps)


@pytest.mark.parametrize('objective', OBJECTIVES)
def test_padding_and_constant_rewards(objective):
  expected, num_pairs, _ = offline.loss_of(objective, offline.make_batch())
  assert float(num_pairs) == 2
  padded = offline.make_batch(source_length=8, length=9, fill=3)
  found = float(offline.loss_of(objective, padded)[0])
  assert found == pytest.approx(float(expected), rel=1e-5)
  constant = offline.make_batch() | {'rewards': np.ones((2, 3), np.float32)}
  loss_sum, weight_sum, _ = offline.loss_of(objective, constant)
  assert float(loss_sum) == float(weight_sum) == 0  # no pair of equal rewards


def test_rejection_sampled_pairs_follow_the_source_and_not_its_place():
  maker = preference_objectives.RejectionSampledPairs(beta=0.3, num_pairs=1)
  batch = offline.make_batch() | {'keep': np.ones((2, 3), bool)}
  batch['rewards'] = np.array([[0.1, 0.2, 0.3], [0.6, 0.5, 0.4]], np.float32)
  one = maker(batch)
  swapped = maker({k: v[::-1] for k, v in batch.items()})
  for name in ('chosen', 'rejected', 'weights'):
    np.testing.assert_array_equal(getattr(one, name), getattr(swapped, name)[::-1])
  wider = {
    **batch,
    'encoder_input_tokens': np.pad(batch['encoder_input_tokens'], ((0, 0), (0, 4))),
  }
  np.testing.assert_array_equal(one.chosen, maker(wider).chosen)
  # 200 seeds: what is drawn is not always the best pair, and not always the same.
  drawn = {
    tuple(preference_objectives.RejectionSampledPairs(0.3, 1, s)(batch).chosen[:, 0])
    for s in range(200)
  }
  assert len(drawn) > 1


def test_preferences_compare_whole_groups():
  assert preference_objectives.DPO().whole_groups
  assert preference_objectives.IPO().needs == ('reference_policy',)

"""Objectives: a loss bound to a model, as the train step takes it."""

import functools

import jax
import numpy as np
import pytest

from rest_jax.models import t5
from rest_jax.training import objectives
from tests.models import test_reward

CONFIG = test_reward.CONFIG
DROPOUT = t5.T5Config(**CONFIG.to_dict() | {'dropout_rate': 0.5})
KEEP = np.array([[True, False, True], [True, True, False]])


@functools.partial(jax.jit, static_argnames=('objective', 'config'))
def _loss(params, batch, rng, *, objective, config=CONFIG):
  return objective.loss_fn(config)(params, batch, rng)


def _batch():
  ratings = np.array([[0.5, 9.0, -1.0], [0.2, 0.1, 9.0]], np.float32)
  return test_reward.make_batch() | {'keep': KEEP, 'ratings': ratings}


def _policy():
  params = test_reward.make_params()
  return {k: v for k, v in params.items() if k not in ('head', 'likelihood')}


def test_cloning_sums_the_negative_log_likelihood_of_what_is_kept():
  batch = _batch()
  logits = np.asarray(test_reward.apply(t5.T5(CONFIG), _policy(), batch), np.float64)
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  expected = kept = right = 0.0
  for row, slot in np.argwhere(KEEP):
    for t in np.flatnonzero(batch['decoder_loss_weights'][row, slot]):
      token = batch['decoder_target_tokens'][row, slot, t]
      expected -= log_probs[row, slot, t, token]
      right += log_probs[row, slot, t].argmax() == token
      kept += 1
  assert kept == 4 + 1 + 2 + 3
  loss_sum, weight_sum, metrics = _loss(
    _policy(), batch, jax.random.key(0), objective=objectives.BehaviouralCloning()
  )
  assert float(loss_sum) == pytest.approx(expected, rel=1e-5)
  assert float(weight_sum) == kept
  assert [float(value) for value in metrics['accuracy']] == [right, kept]


def test_dropout_follows_the_key_and_is_off_at_rate_0():
  batch, losses, params = _batch(), {}, _policy()
  objective = objectives.BehaviouralCloning()
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


def test_objectives_of_equal_settings_are_equal():
  # Improve steps share their compiled programs by this.
  assert objectives.BehaviouralCloning(0.1) == objectives.BehaviouralCloning(0.1)
  assert objectives.BehaviouralCloning(0.1) != objectives.BehaviouralCloning()

"""Minimum Bayes risk as a reward: who judges whom, and what names it."""

import numpy as np
import pytest

from rest_jax.data.group_store import Group
from rest_jax.evaluation import chrf
from rest_jax.rewards import consensus
from rest_jax.stages import fingerprint


def _group(texts, origins=None):
  return Group(
    source_id='train/7',
    source='die Katze',
    source_tokens=np.array([5, 1], np.int32),
    reference=None,
    texts=tuple(texts),
    tokens=tuple(np.array([5, 1], np.int32) for _ in texts),
    token_log_probs=None,
    finished=np.ones(len(texts), bool),
    origins=tuple(origins or ('model',) * len(texts)),
  )


def _mean_chrf(candidate, others):
  return np.mean([chrf.sentence_chrf(candidate, other) for other in others])


def same_length(candidates, pseudo_references):
  return np.array([[len(c) == len(r) for r in pseudo_references] for c in candidates])


TEXTS = ('the cat sat', 'the cat ran', 'a dog')


def test_samples_are_rated_by_one_another():
  groups = [_group(TEXTS), _group(('the cat', 'the cat'))]
  one, two = consensus.MinimumBayesRiskReward()(groups)
  assert one.dtype == two.dtype == np.float32
  expected = [_mean_chrf(t, [o for o in TEXTS if o != t]) for t in TEXTS]
  np.testing.assert_allclose(one, expected, rtol=1e-6)
  np.testing.assert_allclose(two, [1, 1], rtol=1e-6)


def test_the_data_is_rated_by_samples_and_rates_none():
  group = _group((*TEXTS, 'the cat sat'), ('model', 'model', 'model', 'data'))
  (alone,) = consensus.MinimumBayesRiskReward()([_group(TEXTS)])
  (found,) = consensus.MinimumBayesRiskReward()([group])
  np.testing.assert_array_equal(found[:3], alone)  # the label leaks into none
  assert found[3] == pytest.approx(_mean_chrf('the cat sat', TEXTS), rel=1e-6)
  scorer = consensus.MinimumBayesRiskReward(data_as_pseudo_references=True)
  (found,) = scorer([group])
  expected = _mean_chrf('the cat sat', (*TEXTS[1:], 'the cat sat'))
  np.testing.assert_allclose(found[[0, 3]], expected, rtol=1e-6)


def test_a_candidate_alone_has_the_value_asked_for():
  groups = [
    _group(('the cat',)),
    _group(('the cat',), ('data',)),  # a pair of the data, without samples
    _group(()),
  ]
  for alone in (0.0, 1.0):
    found = consensus.MinimumBayesRiskReward(alone=alone)(groups)
    assert [values.tolist() for values in found] == [[alone], [alone], []]


def test_another_utility():
  scorer = consensus.MinimumBayesRiskReward(utility=same_length)
  (found,) = scorer([_group(('ab', 'cd', 'efg'))])
  assert found.tolist() == [0.5, 0.5, 0]


def test_the_identity_tells_the_choices_apart():
  scorers = [
    consensus.MinimumBayesRiskReward(),
    consensus.MinimumBayesRiskReward(alone=1.0),
    consensus.MinimumBayesRiskReward(data_as_pseudo_references=True),
    consensus.MinimumBayesRiskReward(utility=same_length),
  ]
  described = [fingerprint.fingerprint(fingerprint.describe(s)) for s in scorers]
  assert len(set(described)) == 4
  again = fingerprint.describe(consensus.MinimumBayesRiskReward())
  assert fingerprint.fingerprint(again) == described[0]
  with pytest.raises(ValueError, match='not a plain Python function'):
    consensus.MinimumBayesRiskReward(utility=np.minimum.outer)

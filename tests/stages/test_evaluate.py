"""The stage evaluate with beam search, on an untrained policy of the smallest size."""

import numpy as np
import pytest

from rest_jax.data import group_store
from rest_jax.rewards import normalisers, text
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import evaluate, grow, score
from tests.stages import untrained

LENGTHS = {'inputs': 32, 'targets': 16}
SETTINGS = sampler_lib.SamplerSettings(batch_size=4)


def vowels(source, candidate, reference):
  """The reward."""
  del source, reference
  return sum(candidate.count(vowel) for vowel in 'aeiou') / (1 + len(candidate))


@pytest.fixture(scope='module')
def house(tmp_path_factory):
  """What the stage reads, as its arguments, and the MODEL_DIR of it."""
  model_dir = tmp_path_factory.mktemp('evaluate') / 'run'
  run = untrained.run(model_dir)
  corpus = untrained.corpus(run, num_validation=4, num_test=6)
  policy = untrained.policy(run, corpus)
  samples = grow.grow(
    run,
    name='grow_1',
    corpus=corpus,
    policy=policy,
    num_samples=2,
    num_sources=2,
    with_data=False,
    task_feature_lengths=LENGTHS,
    sampler=SETTINGS,
  )
  scorer = text.PerCandidate(vowels)
  rewards = score.score(
    run,
    name='score_1',
    samples=samples,
    scorer=scorer,
    normaliser=normalisers.EmpiricalCdf.fit,
    num_gold_sources=0,
    task_feature_lengths=LENGTHS,
  )
  return model_dir, {
    'corpus': corpus,
    'policy': policy,
    'bc': policy,
    'reward_model': policy,  # not read, since there is a scorer
    'rewards': rewards,
    'scorer': scorer,
  }


def _evaluate(house, directory, **changed):
  model_dir, inputs = house
  run = untrained.run(directory, reuse_from=(str(model_dir),))
  options = {
    'name': 'evaluate_bc',
    'num_samples': 2,
    'task_feature_lengths': LENGTHS,
    'sampler': SETTINGS,
  }
  return evaluate.evaluate(run, **inputs, **(options | changed))


BEAM_FIGURES = {'beam_bleu', 'beam_bleu_interval', 'beam_chrf', 'beam_chrf_interval'}


def test_beam_search_is_reported_beside_greedy(house, tmp_path):
  plain = _evaluate(house, tmp_path / 'plain')
  one = _evaluate(house, tmp_path / 'one', beams=1)
  three = _evaluate(house, tmp_path / 'three', beams=3)

  # Without it nothing is added, to the identity least of all.
  assert 'beams' not in plain.record['params']
  assert not any(name.startswith('beam') for name in plain.results)
  assert not (plain.path / 'beam').exists()
  assert three.record['params'] == plain.record['params'] | {'beams': 3}

  # One beam is greedy, and the figures are made alike.
  greedy = list(group_store.iterate_groups(one.path / 'greedy'))
  searched = list(group_store.iterate_groups(one.path / 'beam'))
  assert [g.source_id for g in searched] == [g.source_id for g in greedy]
  assert [g.texts for g in searched] == [g.texts for g in greedy]
  for name in BEAM_FIGURES:
    assert one.results[name] == one.results[name.removeprefix('beam_')]

  # More beams find candidates with higher scores, and the greedy figures stay.
  assert BEAM_FIGURES <= set(three.results)
  kept = set(plain.results)
  assert {k: three.results[k] for k in kept} == plain.results
  searched = list(group_store.iterate_groups(three.path / 'beam'))
  assert [g.texts for g in searched] != [g.texts for g in greedy]
  assert all(g.reference is not None and len(g.texts) == 1 for g in searched)
  low, high = three.results['beam_chrf_interval']
  assert low <= three.results['beam_chrf'] <= high
  assert np.isfinite(three.results['beam_bleu'])


def test_a_negative_number_of_beams_is_refused(house, tmp_path):
  with pytest.raises(ValueError, match='beams=-1 must be at least 0'):
    _evaluate(house, tmp_path, beams=-1)

"""The stage evaluate, on untrained policies of the smallest size.

Each figure is made again from what the artifact holds; what the measures are is the
matter of their own tests.
"""

import numpy as np
import pytest
import scipy.stats

from rest_jax.data import group_store, reward_store, shards
from rest_jax.evaluation import text_metrics
from rest_jax.models import t5
from rest_jax.rewards import normalisers, text
from rest_jax.sampling import divergence
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import evaluate, grow, held_out, policies, score
from rest_jax.training import hosts
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


@pytest.fixture(scope='module')
def other(house, tmp_path_factory):
  """A policy that is not BC, evaluated; and the run."""
  model_dir, inputs = house
  run = untrained.run(model_dir)
  policy = untrained.policy(run, inputs['corpus'], name='other', seed=1)
  directory = tmp_path_factory.mktemp('other')
  changed = (model_dir, inputs | {'policy': policy})
  return run, _evaluate(changed, directory, name='evaluate_other', num_samples=4)


def _group(source, reference, texts, finished):
  return group_store.Group(
    source_id=f'test/{source}',
    source=source,
    source_tokens=np.array([5, 1], np.int32),
    reference=reference,
    texts=texts,
    tokens=tuple(np.array([5, 1], np.int32) for _ in texts),
    token_log_probs=None,
    finished=np.array(finished),
    origins=('model',) * len(texts),
  )


def test_the_figures_of_samples_by_hand():
  samples = [
    _group(
      'der Hund in Berlin',
      'the dog in Berlin',
      ('the dog in Berlin', 'in in in in in'),
      [True, False],
    ),
    _group('Anna lacht', 'Anna laughs', ('Anna laughs', 'Anna Anna'), [True, True]),
  ]
  proxy, gold, kl = (
    [np.array(values, np.float32) for values in by_source]
    for by_source in ([[1, 2], [3, 4]], [[1, 2], [8, 6]], [[0.5, 1.5], [2, 4]])
  )
  found = evaluate._sampled(samples, proxy, gold, kl, seed=0)
  expected = {
    'reward_mean': 2.5,
    'gold_mean': 17 / 4,
    'exact_match': 1 / 2,
    'kl_to_bc': 2.0,
    'length_ratio': 13 / 12,  # words, against 4 + 4 + 2 + 2 of the references
    'distinct_1': 6 / 13,  # the, dog, in, berlin, anna, laughs
    'distinct_2': 6 / 9,  # of 3 + 4 + 1 + 1
    'distinct_3': 3 / 5,  # of 2 + 3
    'copy_rate': 5 / 13,  # in, berlin; in, once; anna; anna, once
    'repetition_rate': 3 / 9,  # of the bigrams
    'reward_gold_spearman': 0.8,  # ranks 1 2 3 4 and 1 2 4 3
    'reward_gold_spearman_in_groups': 0.0,  # 1 and -1
    'unfinished_fraction': 1 / 4,
    'num_sources': 2,
    'num_samples': 4,
  }
  intervals = {'reward_interval', 'gold_interval', 'kl_interval'}
  assert set(found) == set(expected) | intervals
  assert {name: found[name] for name in expected} == pytest.approx(expected)
  assert found['kl_interval'] == [1, 3]  # of two sources: one of them twice


def test_the_figures_are_those_of_the_samples_that_are_stored(other):
  _, found = other
  groups = list(group_store.iterate_groups(found.path))
  texts = [group.texts for group in groups]
  assert len(texts) == found.results['num_sources'] > 1
  for n in (1, 2, 3):
    expected = text_metrics.distinct_n(texts, n)
    assert found.results[f'distinct_{n}'] == pytest.approx(expected)


def test_the_ranks_of_reward_and_gold_are_of_the_stored_ones(other):
  _, found = other
  proxy, gold = (
    reward_store.read_rewards(shards.shard_path(path, 0, 1, 'rewards')).rewards
    for path in (found.path, found.path / 'gold')
  )
  for name, values in (('reward', proxy), ('gold', gold)):
    mean = np.mean([v.mean() for v in values])
    assert found.results[f'{name}_mean'] == pytest.approx(mean, rel=1e-6)
  whole = scipy.stats.spearmanr(np.concatenate(proxy), np.concatenate(gold))
  inside = [
    scipy.stats.spearmanr(p, g).statistic
    for p, g in zip(proxy, gold, strict=True)
    if np.ptp(p) and np.ptp(g)
  ]
  assert len(inside) > 1
  results = found.results
  assert results['reward_gold_spearman'] == pytest.approx(whole.statistic)
  assert results['reward_gold_spearman_in_groups'] == pytest.approx(np.mean(inside))


def test_the_divergence_is_from_the_policy_to_bc(house, other):
  run, found = other
  bc = house[1]['bc']
  assert found.record['input_names']['bc'] == bc.name
  one, two = (
    policies.load_model(path, t5.T5, run) for path in (run.model_dir / 'other', bc.path)
  )
  groups = list(group_store.iterate_groups(found.path))
  there, back = (
    np.mean(
      [
        values.mean()
        for values in divergence.sequence_kl(
          (p.config, p.params),
          (q.config, q.params),
          groups,
          mesh=run.mesh,
          source_length=LENGTHS['inputs'],
          target_length=LENGTHS['targets'],
        )
      ]
    )
    for p, q in ((one, two), (two, one))
  )
  assert found.results['kl_to_bc'] == pytest.approx(there, rel=1e-5)
  # BC to the policy on the same samples would be told apart.
  assert 0 < there and abs(there - back) > 1e-3 * there
  low, high = found.results['kl_interval']
  assert low < found.results['kl_to_bc'] < high


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


def test_parts_of_the_sources_make_the_same_and_a_kill_loses_one(
  house, tmp_path, monkeypatch
):
  whole = _evaluate(house, tmp_path / 'whole', beams=2)
  monkeypatch.setattr(evaluate, '_num_parts', lambda num_sources: 3)
  plain, seen = held_out.HeldOut.rewards, []

  def rewards(self, samples):
    seen.append(len(samples))
    if len(seen) == 2:
      raise KeyboardInterrupt
    return plain(self, samples)

  monkeypatch.setattr(held_out.HeldOut, 'rewards', rewards)
  with pytest.raises(KeyboardInterrupt):
    _evaluate(house, tmp_path / 'parts', beams=2)
  parts = _evaluate(house, tmp_path / 'parts', beams=2)
  assert seen == [1, 2, 2, 2]  # of five sources: the second part twice
  assert parts.fingerprint == whole.fingerprint
  assert parts.results.keys() == whole.results.keys()
  for name, value in whole.results.items():
    near = value if isinstance(value, str) else pytest.approx(value, rel=1e-4)
    assert parts.results[name] == near, name
  files = [set(found.record['files']) for found in (parts, whole)]
  assert files[0] == files[1]
  for folder in ('.', 'greedy', 'beam'):
    left, right = (
      [(g.source_id, g.texts) for g in group_store.iterate_groups(found.path / folder)]
      for found in (parts, whole)
    )
    assert left == right


def test_hosts_share_out_the_sources(monkeypatch):
  assert evaluate._num_parts(1000) == 1  # one host
  monkeypatch.setattr(hosts, 'count', lambda: 4)
  assert [evaluate._num_parts(n) for n in (1, 9, 24, 1000)] == [1, 2, 6, 16]

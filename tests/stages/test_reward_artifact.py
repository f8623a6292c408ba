"""A reward model named by its path scores as in its own run."""

import dataclasses

import jax
import numpy as np
import pytest

from rest_jax.data import group_store, reward_store, shards, vocabularies
from rest_jax.rewards import compose, normalisers
from rest_jax.stages import reward_artifact, score
from rest_jax.training import mesh as mesh_lib
from tests.stages import untrained

LENGTHS = {'inputs': 32, 'targets': 48}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A run with a reward model and the scores of its corpus' test pairs."""
  current = untrained.run(tmp_path_factory.mktemp('finished'))
  corpus = untrained.corpus(current, num_validation=12, num_test=12)
  score.score(
    current,
    name='score_1',
    samples=_samples(current, corpus),
    reward_model=untrained.reward_model(current, corpus),
    normaliser=normalisers.EmpiricalCdf.fit,
    task_feature_lengths=LENGTHS,
  )
  return current.model_dir


def _samples(current, corpus):
  """Groups of some of the corpus' targets as candidates, two of them equal."""

  def build(work):
    pairs = list(group_store.iterate_groups(corpus.path / 'test'))
    groups = [
      dataclasses.replace(
        pair,
        texts=(*other.texts, *pair.texts, *pair.texts),
        tokens=(*other.tokens, *pair.tokens, *pair.tokens),
        finished=np.ones(3, bool),
        origins=('model', 'model', 'data'),
      )
      for pair, other in zip(pairs, pairs[::-1], strict=True)
    ]
    group_store.write_group_set(work.path, groups, num_shards=1)

  inputs = {'corpus': corpus}
  return current.stage(
    'grow', name='grow_1', version=1, params={}, inputs=inputs, build=build
  )


@pytest.fixture(scope='module')
def groups(finished):
  return list(group_store.iterate_groups(finished / 'grow_1'))


def _scorer(finished, **options):
  mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
  path = finished / 'reward_model'
  return reward_artifact.RewardArtifact(path, mesh=mesh, **options)


def test_it_gives_the_rewards_of_its_own_run(finished, groups):
  path = shards.list_shards(finished / 'score_1', reward_store.KIND)[0]
  expected = reward_store.read_rewards(path)
  assert np.ptp(np.concatenate(expected.rewards)) > 0.01
  scorer = _scorer(finished)
  for found, values in zip(scorer(groups), expected.rewards, strict=True):
    np.testing.assert_array_equal(found, values)
  # On the scale of its own first Grow it gives that run's normalised rewards.
  scale = compose.read_normaliser(finished / 'score_1')
  normalised = compose.Normalised(scorer, scale)
  for found, values in zip(normalised(groups), expected.normalised, strict=True):
    np.testing.assert_array_equal(found, values)


def test_texts_may_be_tokenised_anew(finished, groups):
  foreign = [
    dataclasses.replace(
      group,
      source_tokens=np.array([9, 8, 7, 1], np.int32),
      tokens=tuple(np.array([9, 1], np.int32) for _ in group.tokens),
    )
    for group in groups
  ]
  plain = _scorer(finished)
  with pytest.raises(ValueError, match='Bind retokenise = True'):
    plain(foreign)
  anew = _scorer(finished, retokenise=True)
  for found, expected in zip(anew(foreign), plain(groups), strict=True):
    np.testing.assert_array_equal(found, expected)
  short = _scorer(
    finished, retokenise=True, task_feature_lengths={'inputs': 32, 'targets': 4}
  )
  with pytest.raises(ValueError, match='longer than the longest length'):
    short(groups)


def test_the_prefix_of_a_corpus_stands_before_its_sources(finished, groups):
  vocabulary = vocabularies.Vocabulary.load(finished / 'reward_model/vocabulary.model')
  prefixed = [
    dataclasses.replace(g, source_tokens=vocabulary.encode('zu: ' + g.source))
    for g in groups
  ]
  with pytest.raises(ValueError, match='source_prefix where the corpus has one'):
    _scorer(finished)(prefixed)
  known = _scorer(finished, source_prefix='zu: ')
  anew = _scorer(finished, source_prefix='zu: ', retokenise=True)
  for found, expected in zip(anew(groups), known(prefixed), strict=True):
    np.testing.assert_array_equal(found, expected)
  assert 'source_prefix' not in _scorer(finished).identity()
  assert known.identity()['source_prefix'] == 'zu: '


def test_a_source_that_ingest_has_cut_is_known(finished, groups):
  cut = [
    dataclasses.replace(group, source_tokens=np.append(group.source_tokens[:3], 1))
    for group in groups
  ]
  _scorer(finished)._check_tokens(cut)


def test_the_identity_is_the_fingerprint(finished):
  fingerprint = _scorer(finished)._model.record['fingerprint']
  assert _scorer(finished, batch_size=8).identity() == {
    'scorer': 'reward_artifact',
    'fingerprint': fingerprint,
    'retokenise': False,
  }


def test_other_paths_are_refused(finished, tmp_path):
  with pytest.raises(ValueError, match='not a finished artifact'):
    reward_artifact.RewardArtifact(tmp_path)
  with pytest.raises(ValueError, match=r"made by the stage 'ingest'; a 'train_reward'"):
    reward_artifact.RewardArtifact(finished / 'corpus')

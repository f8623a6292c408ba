"""Train the reward model: from several rated sets, on from an earlier model."""

import dataclasses

import numpy as np
import pytest

from rest_jax.data import group_store
from rest_jax.rewards import inputs
from rest_jax.stages import policies, score, train_reward
from rest_jax.stages import rated as rated_lib
from rest_jax.training import optimiser, reward_objectives
from tests.stages import untrained

LENGTHS = {'inputs': 32, 'targets': 16}  # few shapes, since each is compiled
STILL = optimiser.Adafactor(learning_rate=0.0)  # what comes out is what went in


def rated_set(current, corpus, name, rate, *, split='train', held_out=None):
  """The corpus's sources with two candidates, of which `rate` rates each."""
  vocabulary = policies.vocabularies.Vocabulary.load(
    corpus.path / policies.VOCABULARY_FILE
  )

  def rated(split):
    for group in group_store.iterate_groups(corpus.path / split):
      texts = (group.texts[0][:8], group.texts[0][:4])
      group = dataclasses.replace(
        group,
        texts=texts,
        tokens=tuple(vocabulary.encode_batch(texts)),
        finished=np.ones(2, bool),
        origins=('model',) * 2,
      )
      ratings = np.array([rate(text) for text in texts], np.float32)
      yield rated_lib.RatedGroup(group, ratings, np.zeros((2, 0), np.float32))

  def build(work):
    rated_lib.write(work.path, list(rated(split)))
    if held_out:
      rated_lib.write(work.path / rated_lib.HELD_OUT_DIR, list(rated(held_out)))

  return current.stage(
    'ingest', name=name, version=1, params={}, inputs={'corpus': corpus}, build=build
  )


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  current = untrained.run(tmp_path_factory.mktemp('reward'))
  corpus = untrained.corpus(current, num_validation=12, num_test=8)
  policy = untrained.policy(current, corpus)
  sets = {
    'lengths': rated_set(current, corpus, 'lengths', len, held_out='validation'),
    'scaled': rated_set(
      current, corpus, 'scaled', lambda text: 100 - 3 * len(text), split='test'
    ),
  }
  return current, policy, sets


def train(made, name, samples, **settings):
  current, policy, _ = made
  return train_reward.train_reward(
    current,
    name=name,
    policy=policy,
    **{
      'samples': samples,
      'ratings': samples,
      'optimiser': STILL,
      'reward_input': inputs.SourceAndReference(),
      'num_steps': 2,
      'batch_size': 8,
      'max_samples': 2,
      'task_feature_lengths': LENGTHS,
      'eval_period_steps': 2,
      **settings,
    },
  )


def rewards(made, model, split='scaled'):
  current, _, sets = made
  scorer = score.load_reward_model(model, current, task_feature_lengths=LENGTHS)
  return np.concatenate(scorer(list(group_store.iterate_groups(sets[split].path))))


@pytest.fixture(scope='module')
def earlier(made):
  return train(made, 'reward_model', made[2]['lengths'])


def test_the_held_out_set_that_is_brought_along_chooses(earlier):
  assert earlier.results['held_out_sources'] == 11
  assert earlier.results['held_out']['pairs'] == 22
  assert earlier.results['train_sources'] == 144
  assert earlier.results['train_examples'] == 288


def test_it_goes_on_from_an_earlier_model_on_old_and_new_ratings(made, earlier):
  sets = made[2]
  both = [sets['lengths'], sets['scaled']]
  still = train(made, 'still', both, reward_model=earlier)
  scale = lambda model: score.paths.read_json(model.path / score.SCALE_FILE)
  assert scale(still) != scale(earlier)
  np.testing.assert_allclose(
    rewards(made, still), rewards(made, earlier), rtol=1e-4, atol=1e-3
  )
  assert still.results['train_sources'] == 144 + 7
  assert still.record['input_names'] == {
    'policy': 'bc',
    'reward_model': 'reward_model',
    'samples': 'lengths',
    'ratings': 'lengths',
    'samples_2': 'scaled',
    'ratings_2': 'scaled',
  }


def test_one_set_in_a_list_is_that_set(made, earlier):
  assert train(made, 'reward_model', [made[2]['lengths']]).path == earlier.path


def test_a_model_that_reads_references_scores_by_them_and_not_without(made, earlier):
  current, _, sets = made
  scorer = score.load_reward_model(earlier, current, task_feature_lengths=LENGTHS)
  groups = list(group_store.iterate_groups(sets['scaled'].path))[:2]
  swapped = [
    dataclasses.replace(one, reference=other.reference)
    for one, other in zip(groups, groups[::-1], strict=True)
  ]
  there, back = np.concatenate(scorer(groups)), np.concatenate(scorer(swapped))
  assert (np.abs(there - back) > 1e-3).all()
  without = dataclasses.replace(groups[0], reference=None)
  with pytest.raises(ValueError, match=f'{without.source_id}.* has no reference'):
    scorer([without])
  source = inputs.Source()
  with pytest.raises(
    ValueError, match=r'reads SourceAndReference.*go on with the same'
  ):
    train(made, 'other', sets['scaled'], reward_model=earlier, reward_input=source)


def test_what_cannot_be_trained_on_is_refused(made):
  sets = made[2]
  both = [sets['lengths'], sets['scaled']]
  given = reward_objectives.BradleyTerry(reward_objectives.GivenPairs())
  with pytest.raises(ValueError, match='finds nothing to learn from in the ratings'):
    train(made, 'given', sets['lengths'], objective=given)
  with pytest.raises(ValueError, match='2 samples and 1 ratings: give one set'):
    train(made, 'uneven', both, ratings=sets['lengths'])

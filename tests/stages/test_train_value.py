"""The value function learns conditional mean returns, and is measured as it should."""

import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

from rest_jax.data import batches, group_store, reward_store, shards
from rest_jax.models import heads
from rest_jax.rewards import agreement
from rest_jax.stages import policies, train_value
from rest_jax.training import optimiser, value_objectives
from tests.stages import untrained

EOS, A, B, C, D = 1, 4, 5, 6, 7
CANDIDATES = ((A, C), (A, C), (A, D), (B, C))  # two tokens, EOS after them
REWARDS = {10: (1.0, 1.0, 0.0, 0.5), 11: (0.2, 0.2, 1.0, 0.0)}  # by source
NUM_SOURCES = 40
SETTINGS = {
  'optimiser': optimiser.Adafactor(learning_rate=3e-2, warmup_steps=10),
  'batch_size': 8,
  'max_samples': 3,
  'task_feature_lengths': {'inputs': 4, 'targets': 4},
  'eval_period_steps': 200,
  'held_out_fraction': 0.2,
}


def _group(i, source_token, candidates):
  return group_store.Group(
    source_id=f's/{i}',
    source='x',
    source_tokens=np.array([source_token, EOS], np.int32),
    reference=None,
    texts=('y',) * len(candidates),
    tokens=tuple(np.array([*tokens, EOS], np.int32) for tokens in candidates),
    token_log_probs=None,
    finished=np.ones(len(candidates), bool),
    origins=('model',) * len(candidates),
  )


def _write_sets(group_dir, reward_dir, groups, rewards, num_shards=3):
  group_store.write_group_set(group_dir, groups, num_shards=num_shards)
  for index, (start, stop) in enumerate(shards.ranges(len(groups), num_shards)):
    reward_store.write_rewards(
      shards.shard_path(reward_dir, index, num_shards, reward_store.KIND),
      [group.source_id for group in groups[start:stop]],
      rewards[start:stop],
    )


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
  """A run, an untrained policy, and candidates with two sets of rewards."""
  run = untrained.run(tmp_path_factory.mktemp('inputs'))
  corpus = untrained.corpus(run, num_validation=4, num_test=4)
  groups = [_group(i, 10 + i % 2, CANDIDATES) for i in range(NUM_SOURCES)]
  alternate = [np.array(REWARDS[10 + i % 2], np.float32) for i in range(NUM_SOURCES)]
  same = [np.full(len(CANDIDATES), 3, np.float32)] * NUM_SOURCES

  def stage(kind, name, write):
    return run.stage(
      kind,
      name=name,
      version=1,
      params={},
      inputs={},
      build=lambda work: write(work.path),
    )

  def grow(path):
    group_store.write_group_set(path, groups, num_shards=3)

  def write(rewards):
    scratch = tmp_path_factory.mktemp('groups')
    return lambda path: _write_sets(scratch, path, groups, rewards)

  return {
    'policy': untrained.policy(run, corpus),
    'samples': stage(
      'grow',
      'grow_1',
      lambda path: group_store.write_group_set(path, groups, num_shards=3),
    ),
    'score_1': stage('score', 'score_1', write(alternate)),
    'same_1': stage('score', 'same_1', write(same)),
  }


def _train(inputs, model_dir, *, rewards='score_1', discount=1.0, **settings):
  return train_value.train_value(
    untrained.run(model_dir),
    name='value_1',
    policy=inputs['policy'],
    samples=inputs['samples'],
    rewards=inputs[rewards],
    objective=value_objectives.ValueRegression(discount=discount),
    **SETTINGS | settings,
  )


def _model(trained, model_dir):
  return policies.load_model(trained.path, heads.ScalarHeadT5, untrained.run(model_dir))


@functools.partial(jax.jit, static_argnames=('config',))
def _apply(config, params, sources, inputs):
  return heads.ScalarHeadT5(config).apply({'params': params}, sources, inputs)


def _values(config, params, source_token, candidates):
  """V at all tokens of candidates of one length, EOS included [candidates, length]."""
  inputs = np.array([[[0, *tokens] for tokens in candidates]], np.int32)
  sources = np.array([[source_token, EOS]], np.int32)
  return np.asarray(_apply(config, params, sources, inputs))[0]


def test_values_are_the_conditional_means_of_the_returns(inputs, tmp_path):
  trained = _train(inputs, tmp_path, discount=0.5, num_steps=400)
  model = _model(trained, tmp_path)
  for source, rewards in REWARDS.items():
    rewards = np.array(rewards)
    starts_with_a = rewards[:3].mean()
    expected = np.stack(
      [
        np.full(4, rewards.mean()) / 4,  # two tokens before the last
        np.array([starts_with_a] * 3 + [rewards[3]]) / 2,
        rewards,
      ],
      axis=-1,
    )
    np.testing.assert_allclose(
      _values(model.config, model.params, source, CANDIDATES), expected, atol=0.03
    )
  for side in ('train', 'held_out'):
    found = trained.results[side]
    assert found['last']['spearman_in_groups'] > 0.99
    assert found['first']['spearman_in_groups'] is None
    assert found['last']['spearman'] > found['middle']['spearman']
    assert found['middle']['spearman'] > found['first']['spearman'] > 0
  assert trained.results['loss_name'] == 'value'
  assert trained.results['discount'] == 0.5


def test_a_constant_reward_is_learnt_and_distinguishes_nothing(inputs, tmp_path):
  trained = _train(inputs, tmp_path, rewards='same_1', num_steps=200)
  model = _model(trained, tmp_path)
  values = np.concatenate(
    [_values(model.config, model.params, source, CANDIDATES) for source in REWARDS]
  )
  np.testing.assert_allclose(values, 3.0, atol=0.03)
  for side in ('train', 'held_out'):
    found = trained.results[side]
    assert found['explained_variance'] is None
    assert found['last']['spearman'] is found['last']['kendall_in_groups'] is None


def test_a_run_that_is_cut_ends_as_one_that_is_not(inputs, tmp_path, monkeypatch):
  settings = {'num_steps': 12, 'eval_period_steps': 4, 'checkpoint_period_steps': 2}
  whole = _train(inputs, tmp_path / 'whole', **settings)
  batch = batches.GroupBatches.batch

  def cut(data, step):
    if step == 7:
      raise KeyboardInterrupt
    return batch(data, step)

  with monkeypatch.context() as patch:
    patch.setattr(batches.GroupBatches, 'batch', cut)
    with pytest.raises(KeyboardInterrupt):
      _train(inputs, tmp_path / 'cut', **settings)
  asked = []

  def noted(data, step):
    asked.append(step)
    return batch(data, step)

  monkeypatch.setattr(batches.GroupBatches, 'batch', noted)
  again = _train(inputs, tmp_path / 'cut', **settings)
  assert min(asked) > 0
  assert again.fingerprint == whole.fingerprint and again.results == whole.results
  one, two = _model(whole, tmp_path), _model(again, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, one.params, two.params)


def test_a_random_start_has_the_mean_reward_and_knows_no_more(inputs, tmp_path):
  trained = _train(inputs, tmp_path, num_steps=1, start_from_policy=False)
  explained = trained.results['curves']['eval_explained_variance']
  assert explained['steps'][0] == 0 and abs(explained['values'][0]) < 0.1
  from_policy = _train(inputs, tmp_path / 'other', num_steps=1)
  assert trained.fingerprint != from_policy.fingerprint


def test_measure_equals_a_slow_loop(inputs, tmp_path):
  run = untrained.run(tmp_path)
  config = policies.load_config(inputs['policy'].path)
  init = jax.jit(policies.init_fn(heads.ScalarHeadT5, config))
  params = nn.meta.unbox(init(jax.random.key(0)))
  rng = np.random.default_rng(0)
  # Candidates of 2 to 6 tokens, 0 to 7 of a source: several rows, of two buckets. No
  # two share a prefix, whose value could be rounded now so, now so.
  groups = [
    _group(
      i,
      20 + i,
      [[100 + j, *rng.integers(3, 99, rng.integers(0, 5))] for j in range(i % 8)],
    )
    for i in range(20)
  ]
  rewards = [rng.random(len(group.tokens)).astype(np.float32) for group in groups]
  # Shards of one source and of two: neighbours may have the same place in theirs.
  _write_sets(
    tmp_path / 'samples', tmp_path / 'rewards', groups, rewards, num_shards=13
  )
  data = batches.GroupBatches(
    tmp_path / 'samples',
    reward_dir=tmp_path / 'rewards',
    source_fn=lambda names: np.array([name not in ('s/7', 's/12') for name in names]),
    batch=4,
    samples=3,
    buckets=[(2, 3), (4, 6)],
  )
  found = train_value.measure(data, params, config=config, discount=0.5, mesh=run.mesh)
  used = [i for i in range(20) if groups[i].tokens and i not in (7, 12)]
  at = {position: [] for position in train_value.POSITIONS}
  errors, targets = [], []
  for i in used:
    values = []
    for tokens, reward in zip(groups[i].tokens, rewards[i], strict=True):
      length = len(tokens)
      padded = [*tokens[:-1], *[0] * (6 - length)]
      one = _values(config, params, groups[i].source_tokens[0], [padded])[0]
      values.append((one[0], one[length // 2], one[length - 1]))
      for t in range(length):
        targets.append(0.5 ** (length - 1 - t) * reward)
        errors.append(targets[-1] - one[t])
    for place, position in enumerate(train_value.POSITIONS):
      at[position].append(np.array(values)[:, place])
  for position, predicted in at.items():
    expected = agreement.agreement(predicted, [rewards[i] for i in used]).to_dict()
    for key, value in expected.items():
      if not key.startswith('groups'):
        assert found[position][key] == pytest.approx(value, abs=1e-4), (position, key)
  assert found['tokens'] == len(targets)
  assert found['squared_error'] == pytest.approx(np.mean(np.square(errors)), rel=1e-4)
  explained = 1 - np.var(errors) / np.var(targets)
  assert found['explained_variance'] == pytest.approx(explained, rel=1e-4)


def test_sides_without_a_source_are_named(inputs, tmp_path):
  with pytest.raises(ValueError, match='use more sources'):
    _train(inputs, tmp_path, num_steps=1, held_out_fraction=1e-6)
  with pytest.raises(ValueError, match=r'held_out_fraction=1 must be between'):
    _train(inputs, tmp_path, num_steps=1, held_out_fraction=1)

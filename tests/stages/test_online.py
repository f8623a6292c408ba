"""The stage online: each learner finds a known optimum, a kill changes nothing.

The policy is not trained, and the reward is a number of tokens: the best candidate
ends at once.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.data import group_store
from rest_jax.models import cpu_products, t5
from rest_jax.rewards import normalisers
from rest_jax.sampling import decoder, divergence, draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import grow, online, policies, score
from rest_jax.training import online_objectives, optimiser
from tests.stages import untrained

LENGTHS = {'inputs': 32, 'targets': 6}
SETTINGS = sampler_lib.SamplerSettings(batch_size=16)
SOURCES, SAMPLES, PHASES = 4, 8, 60
OBJECTIVES = {
  'rloo': online_objectives.Rloo(kl_weight=0.0),
  'grpo': online_objectives.Grpo(kl_weight=0.0),
  'ppo': online_objectives.Ppo(kl_weight=0.0),
}


@dataclasses.dataclass(frozen=True)
class Shortness:
  """1 for a candidate of one token, 0.1 for one of the most; all 0.1 at scale 0."""

  scale: float = 0.9

  def __call__(self, groups):
    most = LENGTHS['targets']
    lengths = [np.array([len(tokens) for tokens in g.tokens]) for g in groups]
    rewards = [0.1 + self.scale * (most - length) / (most - 1) for length in lengths]
    return [x.astype(np.float32) for x in rewards]


class Killed(Exception):
  """In the place of a SIGKILL."""


@dataclasses.dataclass(frozen=True)
class _Dying(Shortness):
  """Dies when it has scored so many sets; what it has of its own is no setting."""

  seen: list = dataclasses.field(default_factory=list, compare=False)
  last: int = 0

  def identity(self):
    return dataclasses.asdict(Shortness(self.scale))

  def __call__(self, groups):
    self.seen.append(len(groups))
    if len(self.seen) == self.last:
      raise Killed
    return super().__call__(groups)


@dataclasses.dataclass(frozen=True)
class _Watching(Shortness):
  """Notes how many programs the sampler has whenever it scores."""

  compiled: list = dataclasses.field(default_factory=list, compare=False)

  def identity(self):
    return dataclasses.asdict(Shortness(self.scale))

  def __call__(self, groups):
    programs = decoder.programs(cpu_products.OPTIONS)
    self.compiled.append([program._cache_size() for program in programs])
    return super().__call__(groups)


class _InformedPpo(online_objectives.Ppo):
  """PPO whose critic knows that every reward is 0.1."""

  def start(self, params, config):
    started = super().start(params, config)
    bias = started['critic']['head']['bias']
    started['critic']['head']['bias'] = jnp.full_like(bias, 0.1)
    return started


def as_they_are(rewards):
  """A normaliser's fit that changes nothing."""
  del rewards
  return normalisers.MinMax(0.0, 1.0)


@pytest.fixture(scope='module')
def house(tmp_path_factory):
  """The directory of a corpus, an untrained policy and candidates of it."""
  model_dir = tmp_path_factory.mktemp('online') / 'run'
  run = untrained.run(model_dir)
  corpus = untrained.corpus(run, num_validation=8, num_test=8, sources_per_shard=60)
  policy = untrained.policy(run, corpus)
  samples = grow.grow(
    run,
    name='grow_1',
    corpus=corpus,
    policy=policy,
    num_samples=SAMPLES,
    num_sources=SOURCES,
    with_data=False,
    task_feature_lengths=LENGTHS,
    sampler=SETTINGS,
  )
  return model_dir, {'corpus': corpus, 'policy': policy}, samples


def _online(house, model_dir, scorer, **changed):
  """Runs the stage in a MODEL_DIR of its own, beside the shared one."""
  shared, inputs, samples = house
  run = untrained.run(model_dir, reuse_from=(str(shared),))
  rewards = score.score(
    run,
    name='score_1',
    samples=samples,
    scorer=scorer,
    normaliser=as_they_are,
    num_gold_sources=0,
    task_feature_lengths=LENGTHS,
  )
  options = {
    'objective': OBJECTIVES['grpo'],
    'optimiser': optimiser.AdamW(learning_rate=1e-2),
    'num_samples': PHASES * SOURCES * SAMPLES,
    'sources_per_phase': SOURCES,
    'samples_per_source': SAMPLES,
    'batch_size': SOURCES,
    'task_feature_lengths': LENGTHS,
    'num_eval_sources': 4,
    'eval_period_phases': PHASES,
    'checkpoint_period_phases': PHASES,
    'sampler': SETTINGS,
  }
  return online.online(
    run,
    **inputs,
    reward_model=inputs['policy'],  # not read, since there is a scorer
    first_rewards=rewards,
    scorer=scorer,
    **(options | changed),
  )


def _params(artifact, model_dir):
  model = policies.load_model(artifact.path, t5.T5, untrained.run(model_dir))
  return jax.tree.leaves(jax.device_get(model.params))


@pytest.mark.parametrize('name', OBJECTIVES)
def test_a_learner_finds_the_best_candidate(house, tmp_path, name):
  scorer = _Watching()
  found = _online(house, tmp_path, scorer, objective=OBJECTIVES[name])
  curve = found.results['curves']['rollout_reward']['values']
  # 0.1 for six tokens, 1 for one; a random policy draws EOS once in 300 tokens.
  assert len(curve) == PHASES and curve[0] < 0.2
  assert np.mean(curve[-5:]) > 0.9
  assert found.results['best_metric'] > 0.9
  assert found.results['loss_name'] == name.upper()
  # Each phase has a Sampler of its own and the same programs as the one before.
  assert scorer.compiled[10] == scorer.compiled[-1] and min(scorer.compiled[10]) > 0


CONSTANT = OBJECTIVES | {'ppo': _InformedPpo(kl_weight=0.0)}


@pytest.mark.parametrize('name', CONSTANT)
def test_equal_rewards_teach_nothing(house, tmp_path, name):
  found = _online(
    house,
    tmp_path,
    Shortness(0.0),
    objective=CONSTANT[name],
    num_samples=3 * SOURCES * SAMPLES,
    eval_period_phases=3,
  )
  curves = found.results['curves']
  assert curves['rollout_reward']['values'] == pytest.approx([0.1] * 3)
  assert curves['update_norm']['values'] == [0.0] * 3
  assert curves['rollout_kl_to_bc']['values'] == pytest.approx([0.0] * 3, abs=1e-4)


class _KeptPpo(online_objectives.Ppo):
  """PPO as it is, which keeps the policies that it is asked for."""

  kept: ClassVar[list] = []

  def policy(self, params):
    self.kept.append(jax.device_get(super().policy(params)))
    return super().policy(params)


def test_equal_rewards_move_ppo_little_and_are_no_gain(house, tmp_path):
  # The critic says 0 at first and 0.1 later: what it is wrong by is an advantage.
  _KeptPpo.kept.clear()
  found = _online(
    house,
    tmp_path,
    Shortness(0.0),
    objective=_KeptPpo(),
    optimiser=optimiser.AdamW(learning_rate=3e-4),  # ppo.gin's
    num_samples=10 * SOURCES * SAMPLES,
    eval_period_phases=10,
  )
  curves = found.results['curves']
  assert curves['rollout_reward']['values'] == pytest.approx([0.1] * 10)
  value_loss = curves['value_loss']['values']
  assert value_loss[-1] < 0.8 * value_loss[0]  # the critic learns the constant
  # What a phase began with, the first and the last evaluation, and the choice.
  last, chosen = _KeptPpo.kept[-2:]
  _, inputs, samples = house
  run = untrained.run(tmp_path)
  start = policies.load_model(inputs['policy'].path, t5.T5, run)
  groups = list(group_store.iterate_groups(samples.path))
  moved = divergence.sequence_kl(
    (start.config, jax.device_put(last)),
    (start.config, start.params),
    groups,
    mesh=run.mesh,
    source_length=LENGTHS['inputs'],
    target_length=LENGTHS['targets'],
  )
  # A next token's probability moves by no more than sqrt(KL / 2) (Pinsker).
  assert 0 < np.max(moved) < 0.01
  # No evaluation beats the start's: what the stage leaves is the policy it was given.
  assert found.results['best_step'] == 0
  for mine, theirs in zip(
    jax.tree.leaves(chosen),
    jax.tree.leaves(jax.device_get(start.params)),
    strict=True,
  ):
    np.testing.assert_array_equal(mine, theirs)


@pytest.fixture(scope='module')
def short(house, tmp_path_factory):
  """Four phases, undisturbed, with two epochs of two updates."""
  model_dir = tmp_path_factory.mktemp('short')
  return model_dir, _online(house, model_dir, Shortness(), **SHORT)


SHORT = {
  'objective': online_objectives.Ppo(),
  'num_samples': 4 * SOURCES * SAMPLES,
  'num_epochs': 2,
  'batch_size': SOURCES // 2,
  'eval_period_phases': 2,
  'checkpoint_period_phases': 1,
}


def test_what_was_drawn_is_counted(short):
  _, found = short
  results = found.results
  assert results['phases'] == 4 and results['steps'] == 4 * 2 * 2
  drawn = results['drawn']
  assert drawn['samples'] == 4 * SOURCES * SAMPLES
  assert 0 < drawn['distinct'] <= drawn['samples'] <= drawn['tokens']
  assert drawn['tokens'] <= drawn['samples'] * LENGTHS['targets']
  samples = results['curves']['samples']
  assert samples['steps'] == [0, 4, 8, 8, 12, 16, 16]  # three evaluations' lines too
  drawn_by_then = [0, 1, 2, 2, 3, 4, 4]  # phases
  assert samples['values'] == [n * SOURCES * SAMPLES for n in drawn_by_then]
  assert found.record['cost']['counts']['decoder_steps'] > 0


def test_a_kill_loses_a_phase_and_changes_nothing(house, short, tmp_path):
  model_dir, undisturbed = short
  # Scored: the Grow, the start's held-out samples, two phases, two held out, one more.
  dying = _Dying(last=6)
  with pytest.raises(Killed):
    _online(house, tmp_path, dying, **SHORT)
  counting = _Dying()
  found = _online(house, tmp_path, counting, **SHORT)
  # Two phases and two evaluations were left of four and three.
  assert len(counting.seen) == 2 + 1
  assert found.record['cost']['attempts'] == 2
  one, two = (_params(a, d) for a, d in ((undisturbed, model_dir), (found, tmp_path)))
  for x, y in zip(one, two, strict=True):
    np.testing.assert_array_equal(x, y)
  same = ('best_step', 'best_metric', 'drawn', 'curves')
  for name in same:
    assert found.results[name] == undisturbed.results[name], name


@pytest.mark.parametrize(
  ('changed', 'told'),
  [
    ({'num_samples': 100}, r'multiple of the 32 candidates .* such as 96'),
    ({'batch_size': 3}, r'4 sources must be a multiple of batch_size=3'),
    ({'decoding': draws.Decoding(temperature=0.8)}, r'Decoding\(temperature=1\.0\)'),
    (
      {'objective': OBJECTIVES['rloo'], 'num_epochs': 2},
      r'RLOO has no ratio .* num_epochs=1 and batch_size=4',
    ),
    ({'sources_per_phase': 0}, r'sources=0 must be at least 1'),
  ],
)
def test_settings_that_cannot_be_right_are_refused(house, tmp_path, changed, told):
  with pytest.raises(ValueError, match=told):
    _online(house, tmp_path, Shortness(), **changed)

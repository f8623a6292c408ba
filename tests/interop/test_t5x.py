"""Our policy, objectives and store under the real T5X, beside T5X's own model.

Runs where T5X is installed (docs/t5x.md), which no other test needs. Run by hand:

  python -m pytest tests/interop/test_t5x.py
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
  warnings.simplefilter('ignore')  # T5X's own imports
  pytest.importorskip('t5x', reason='T5X is not installed: docs/t5x.md says how')
  from t5x import adafactor, decoding, models, trainer
  from t5x import train_state as train_state_lib
  from t5x.examples.t5 import network

import jax
import jax.numpy as jnp
import optax
import seqio
from flax import core
from flax import linen as nn

from rest_jax.data import group_store, reward_store
from rest_jax.interop.t5x import features, inferences, policies, shapes, tasks
from rest_jax.interop.t5x import frozen as frozen_lib
from rest_jax.models import t5
from rest_jax.training import (
  checkpoints,
  objectives,
  offline_objectives,
  optimiser,
  preference_objectives,
)
from tests import minimal_run

pytestmark = pytest.mark.filterwarnings('ignore')  # T5X's own and of what it calls


@pytest.fixture(autouse=True)
def rank_promotion():
  """T5X adds arrays of different ranks."""
  with jax.numpy_rank_promotion('allow'):
    yield


BATCH, SOURCE, TARGET = 4, 7, 6
CONFIG = t5.T5Config(
  vocab_size=40,
  emb_dim=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=32,
  num_encoder_layers=2,
  num_decoder_layers=2,
)
VARIANTS = {
  '1.1': CONFIG,
  '1.0': dataclasses.replace(
    CONFIG, mlp_activations=('relu',), logits_via_embedding=True
  ),
}
VOCABULARY = seqio.PassThroughVocabulary(CONFIG.vocab_size, eos_id=1)


def ours(config=CONFIG, **arguments):
  optimiser_def = arguments.pop('optimizer_def', adafactor.Adafactor(decay_rate=0.8))
  return policies.PolicyModel(
    t5.T5(config), VOCABULARY, VOCABULARY, optimiser_def, **arguments
  )


def theirs(config=CONFIG, **arguments):
  shared = {
    field.name: getattr(config, field.name)
    for field in dataclasses.fields(network.T5Config)
    if hasattr(config, field.name) and field.name != 'dtype'
  }
  optimiser_def = arguments.pop('optimizer_def', adafactor.Adafactor(decay_rate=0.8))
  return models.EncoderDecoderModel(
    network.Transformer(network.T5Config(**shared)),
    VOCABULARY,
    VOCABULARY,
    optimiser_def,
    **arguments,
  )


def make_batch(seed=0, batch=BATCH):
  """A batch of pairs with padding on both sides, in T5X's features."""
  rng = np.random.default_rng(seed)
  source = rng.integers(2, CONFIG.vocab_size, (batch, SOURCE)).astype(np.int32)
  target = rng.integers(2, CONFIG.vocab_size, (batch, TARGET)).astype(np.int32)
  source[1, 4:], target[0, 3:], target[2, 5:] = 0, 0, 0
  inputs = np.pad(target, ((0, 0), (1, 0)))[:, :-1]
  return {
    'encoder_input_tokens': jnp.asarray(source),
    'decoder_input_tokens': jnp.asarray(inputs),
    'decoder_target_tokens': jnp.asarray(target),
    'decoder_loss_weights': jnp.asarray((target != 0).astype(np.int32)),
  }


SHAPES = {name: value.shape for name, value in make_batch().items()}


def initial(model):
  return model.get_initial_variables(jax.random.PRNGKey(1), SHAPES)


@pytest.mark.parametrize('name', VARIANTS)
def test_parameters_and_their_axes_are_t5xs(name):
  config = VARIANTS[name]
  own, other = (core.unfreeze(initial(make(config))) for make in (ours, theirs))
  shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree['params'])
  assert shapes(own) == shapes(other)
  assert own['params_axes'] == other['params_axes']


@pytest.mark.parametrize('name', VARIANTS)
def test_logits_are_t5xs(name):
  own, other = ours(VARIANTS[name]), theirs(VARIANTS[name])
  params, batch = initial(other)['params'], make_batch()
  found, expected = (m._compute_logits(params, batch) for m in (own, other))
  assert found.shape == (BATCH, TARGET, CONFIG.vocab_size)
  # T5X hides padding in the targets; what padding predicts has no weight.
  real = np.asarray(batch['decoder_target_tokens'] != 0)
  np.testing.assert_allclose(found[real], expected[real], rtol=1e-4, atol=1e-5)
  scores = [m.score_batch(params, batch) for m in (own, other)]
  np.testing.assert_allclose(*scores, rtol=1e-5)


@pytest.mark.parametrize('smoothing, z_loss', [(0.0, 0.0), (0.1, 1e-2)])
def test_behavioural_cloning_is_t5xs_loss_per_token(smoothing, z_loss):
  """T5X's loss is a sum: 20 tokens here, so a sum would be 20 times as large."""
  batch = make_batch()
  tokens = float(batch['decoder_loss_weights'].sum())
  other = theirs(label_smoothing=smoothing, z_loss=z_loss)
  objective = objectives.BehaviouralCloning(label_smoothing=smoothing, z_loss=z_loss)
  params = initial(other)['params']
  grad = lambda model: jax.value_and_grad(model.loss_fn, has_aux=True)(
    params, batch, None
  )
  (expected, their_metrics), expected_grads = grad(other)
  (total, metrics), grads = grad(ours(objective=objective, loss_normalizing_factor=1.0))
  np.testing.assert_allclose(total, expected, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5),
    core.unfreeze(grads),
    core.unfreeze(expected_grads),
  )
  mean, _ = ours(objective=objective).loss_fn(params, batch, None)
  np.testing.assert_allclose(mean, expected / tokens, rtol=1e-5)
  for name in ('accuracy',):
    np.testing.assert_allclose(
      metrics[name].compute(), their_metrics[name].compute(), rtol=1e-6
    )


def curve_of_t5x(model, batches, learning_rate, num_microbatches=None):
  """Losses of T5X's trainer step, one for each batch, and the last parameters."""
  state = train_state_lib.FlaxOptimTrainState.create(
    model.optimizer_def, initial(model)
  )
  losses = []
  for batch in batches:
    state, metrics = trainer.train_with_lr(
      state,
      batch,
      jnp.float32(learning_rate),
      jax.random.PRNGKey(0),
      model,
      num_microbatches,
    )
    losses.append(float(metrics['loss'].total))
  return np.array(losses), state.params


def curve_of_ours(config, params, batches, settings):
  """The same with our objective and optimiser, as our train step puts them together."""
  loss_fn = objectives.BehaviouralCloning().loss_fn(config)
  transform = settings()
  params = core.unfreeze(params)
  state, losses = transform.init(params), []

  @jax.jit
  def step(params, state, batch):
    def mean(params):
      loss_sum, weight_sum, _ = loss_fn(
        params, policies.groups_of(batch), jax.random.key(0)
      )
      return loss_sum / weight_sum

    loss, grads = jax.value_and_grad(mean)(params)
    updates, state = transform.update(grads, state, params)
    return optax.apply_updates(params, updates), state, loss

  for batch in batches:
    params, state, loss = step(params, state, batch)
    losses.append(float(loss))
  return np.array(losses), params


BATCHES = [make_batch(seed) for seed in range(10)]


def wide():
  """A model whose matrices are large enough to be factored by both optimisers."""
  return dataclasses.replace(
    CONFIG, emb_dim=128, head_dim=64, mlp_dim=256, vocab_size=160
  )


RULES = adafactor.standard_logical_factor_rules()


@pytest.mark.parametrize('rules', [None, RULES], ids=['shapes', 'rules'])
@pytest.mark.parametrize('config', [CONFIG, wide()], ids=['narrow', 'wide'])
def test_ten_steps_of_adafactor_are_t5xs(config, rules):
  """T5X leaves its rules aside where no parameter has more than two axes.

  On one batch again and again the loss falls by more than 0.1 in these steps, a
  thousand times the tolerance.
  """
  definition = adafactor.Adafactor(decay_rate=0.8, logical_factor_rules=rules)
  own = ours(config, optimizer_def=definition)
  params = initial(own)['params']
  expected, their_params = curve_of_t5x(own, BATCHES, 0.05)
  settings = optimiser.Adafactor(learning_rate=0.05)
  found, our_params = curve_of_ours(config, params, BATCHES, settings)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  falling, _ = curve_of_t5x(own, [make_batch()] * 10, 0.05)
  assert falling[0] - falling[-1] > 0.1
  moved = jax.tree.map(
    lambda a, b: float(jnp.max(jnp.abs(a - b))),
    core.unfreeze(their_params),
    core.unfreeze(our_params),
  )
  assert max(jax.tree.leaves(moved)) < 1e-3


def test_microbatches_are_one_batch_with_a_factor():
  model = ours(loss_normalizing_factor=20.0)
  whole, _ = curve_of_t5x(model, BATCHES[:3], 0.05)
  parts, _ = curve_of_t5x(model, BATCHES[:3], 0.05, num_microbatches=2)
  np.testing.assert_allclose(parts, whole, rtol=1e-4)
  with pytest.raises(ValueError, match=r'loss_normalizing_factor=-1.*positive'):
    ours(loss_normalizing_factor=-1)


# ---- Decoding ------------------------------------------------------------------


def sample(**arguments):
  return lambda **given: decoding.temperature_sample(**given, **arguments)


DECODERS = {
  'greedy': (sample(topk=1), 1),
  'samples': (sample(topk=0, temperature=0.7), 5),
  'beams': (decoding.beam_search, 3),
}


@pytest.mark.parametrize('name', DECODERS)
def test_t5xs_decoders_find_the_same_through_our_cache(name):
  decode_fn, num_decodes = DECODERS[name]
  own, other = ours(decode_fn=decode_fn), theirs(decode_fn=decode_fn)
  params, batch = initial(other)['params'], make_batch()
  decode = lambda model: models.EncoderDecoderModel.predict_batch_with_aux(
    model,
    params,
    batch,
    rng=jax.random.PRNGKey(3),
    num_decodes=num_decodes,
    return_all_decodes=True,
  )
  (tokens, aux), (expected, expected_aux) = decode(own), decode(other)
  assert tokens.shape == (BATCH, num_decodes, TARGET)
  np.testing.assert_array_equal(tokens, expected)
  np.testing.assert_allclose(aux['scores'], expected_aux['scores'], rtol=1e-4)


def test_scanned_layers_decode_as_looped_ones():
  from rest_jax.models import stacking

  scanned = dataclasses.replace(CONFIG, scan_layers=True)
  arguments = {'decode_fn': sample(topk=0), 'seed': 2}
  looped = ours(**arguments)
  params = core.unfreeze(initial(looped)['params'])
  stacked = stacking.stack_layers(params)
  batch = make_batch()
  decode = lambda model, p: model.predict_batch_with_aux(p, batch, num_decodes=3)[0]
  np.testing.assert_array_equal(
    decode(ours(scanned, **arguments), stacked), decode(looped, params)
  )


def test_samples_follow_the_seed_and_differ_between_shards():
  params, batch = initial(ours())['params'], make_batch()
  key = jax.random.PRNGKey(0)  # T5X's, the same in every run and shard
  draw = lambda seed, batch=batch: np.asarray(
    ours(decode_fn=sample(topk=0), seed=seed).predict_batch(params, batch, rng=key)
  )
  np.testing.assert_array_equal(draw(0), draw(0))
  assert (draw(0) != draw(1)).any()
  # Another shard: other sources but for one, which must not get the same draws.
  other = {**batch, 'encoder_input_tokens': batch['encoder_input_tokens'][::-1]}
  same = {
    **batch,
    'encoder_input_tokens': batch['encoder_input_tokens'][:1].repeat(4, 0),
  }
  assert (draw(0, other)[::-1] != draw(0)).any()
  assert (draw(0, same)[0] != draw(0)[0]).any()


# ---- Rewards and the store --------------------------------------------------------


def test_an_objective_reads_rewards_and_says_where_they_lack():
  objective = offline_objectives.RewardWeighted(temperature=0.5)
  model, batch = ours(objective=objective), make_batch()
  params = initial(model)['params']
  with pytest.raises(ValueError, match=r"RWR reads the feature 'rewards'.*Reward"):
    model.loss_fn(params, batch, None)
  loss = lambda rewards: float(
    model.loss_fn(params, {**batch, 'rewards': jnp.asarray(rewards)}, None)[0]
  )
  plain = float(ours().loss_fn(params, batch, None)[0])
  np.testing.assert_allclose(loss([1.0] * 4), plain, rtol=1e-6)
  np.testing.assert_allclose(loss([0.5] * 4), plain / np.e, rtol=1e-5)


@pytest.fixture
def frozen(tmp_path):
  """A BC policy and a value model, as artifacts."""
  source, target = jnp.ones((1, 1), jnp.int32), jnp.ones((1, 1, 1), jnp.int32)
  made = {}
  for seed, (name, module) in enumerate(frozen_lib.MODULES.items(), start=5):
    params = module(CONFIG).init(jax.random.key(seed), source, target)['params']
    made[name] = core.unfreeze(nn.meta.unbox(params))
    checkpoints.save_params(tmp_path / name, made[name], step=3)
    (tmp_path / name / 'model.json').write_text(json.dumps(CONFIG.to_dict()))
  return tmp_path, made


@pytest.mark.parametrize(
  'objective',
  [
    offline_objectives.Gold(),
    offline_objectives.OfflineActorCritic(),
    offline_objectives.AdvantageWeighted(),
  ],
  ids=lambda objective: objective.name,
)
def test_frozen_models_are_read_and_the_loss_is_ours(frozen, objective):
  directory, made = frozen
  directories = {need: directory / need for need in objective.needs}
  model = ours(objective=objective, frozen=directories)
  params = core.unfreeze(initial(model)['params'])
  batch = {**make_batch(), 'rewards': jnp.asarray([0.9, 0.1, 0.4, 0.6])}
  groups = {**policies.groups_of(batch), **made}
  loss_fn = objective.loss_fn(CONFIG, dict.fromkeys(objective.needs, CONFIG))
  loss_sum, weight_sum, _ = loss_fn(params, groups, jax.random.key(0))
  found = jax.jit(lambda p: model.loss_fn(p, batch, None)[0])(params)
  np.testing.assert_allclose(found, loss_sum / weight_sum, rtol=1e-5)
  # They are constants: the policy alone has a gradient.
  assert set(jax.grad(lambda p: model.loss_fn(p, batch, None)[0])(params)) == set(
    params
  )


def test_a_frozen_model_that_is_not_given_or_not_needed_is_named(frozen):
  directory, _ = frozen
  with pytest.raises(ValueError, match=r'must name the artifacts of reference_policy'):
    ours(objective=offline_objectives.Gold())
  with pytest.raises(ValueError, match='artifacts of no model'):
    ours(frozen={'value_model': directory / 'value_model'})


@pytest.mark.parametrize(
  'objective, reason',
  [
    (preference_objectives.DPO(), 'DPO compares the candidates'),
    (offline_objectives.BehaviourVMPO(), 'BVMPO trains parameters of its own'),
  ],
)
def test_objectives_that_t5x_cannot_serve_are_refused(objective, reason):
  with pytest.raises(ValueError, match=f'{reason}.*improve.improve'):
    ours(objective=objective)


LENGTHS = {'inputs': 48, 'targets': 32}


@pytest.fixture(scope='module')
def run_dir(tmp_path_factory):
  return minimal_run.finished(tmp_path_factory)


def test_a_task_streams_what_the_filter_keeps_with_its_rewards(run_dir):
  threshold = 0.6
  name = tasks.improve_task(
    run_dir / 'grow_1',
    run_dir / 'score_1',
    run_dir / 'bc',
    LENGTHS,
    threshold=threshold,
  )
  dataset = seqio.get_mixture_or_task(name).get_dataset(
    LENGTHS, 'train', shuffle=False, num_epochs=1, use_cached=False
  )
  converted = features.RewardedPairs(pack=False)(dataset, LENGTHS)
  rows = list(converted.as_numpy_iterator())
  expected = sorted(
    (float(reward), tokens.tolist())
    for groups, scores in reward_store.paired_shards(
      run_dir / 'grow_1', run_dir / 'score_1'
    )
    for group, rewards in zip(
      group_store.read_groups(groups),
      group_store.read_rewards(scores).normalised,
      strict=True,
    )
    for reward, tokens in zip(rewards, group.tokens, strict=True)
    if reward > np.float32(threshold)
  )
  found = sorted(
    (float(row['rewards']), [t for t in row['decoder_target_tokens'].tolist() if t])
    for row in rows
  )
  assert found == expected and found
  with pytest.raises(ValueError, match='pack=True'):
    features.RewardedPairs(pack=True)


def program(module, gin_file, *bindings):
  """Runs one of T5X's programs on a gin file of ours."""
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      f't5x.{module}',
      f'--gin_file=gin_configs/t5x/{gin_file}.gin',
      *(f'--gin.{binding}' for binding in bindings),
    ],
    cwd=minimal_run.ROOT,
    capture_output=True,
    text=True,
    timeout=280,
    check=False,
    env={**os.environ, 'JAX_NUMPY_RANK_PROMOTION': 'allow'},
  )
  assert done.returncode == 0, done.stderr[-3000:]


def logits_of(params, config, batch):
  return t5.T5(config).apply(
    {'params': params},
    batch['encoder_input_tokens'],
    batch['decoder_input_tokens'][:, None],
  )


@pytest.fixture(scope='module')
def improved(run_dir, tmp_path_factory):
  """A MODEL_DIR of T5X's trainer: an Improve step that starts from our BC."""
  model_dir = tmp_path_factory.mktemp('t5x') / 'improve'
  start = checkpoints.latest_checkpoint(run_dir / 'bc')
  program(
    'train',
    'improve',
    f'MODEL_DIR={str(model_dir)!r}',
    f'POLICY={str(run_dir / "bc")!r}',
    f'INITIAL_CHECKPOINT_PATH={str(start)!r}',
    f'GROUPS={str(run_dir / "grow_1")!r}',
    f'REWARDS={str(run_dir / "score_1")!r}',
    f'TASK_FEATURE_LENGTHS={LENGTHS}',
    'THRESHOLD=0.6',
    'TRAIN_STEPS_RELATIVE=4',
    'BATCH_SIZE=8',
    'LEARNING_RATE=0.01',
  )
  return model_dir


def test_t5x_train_improves_our_policy_and_ours_reads_it(run_dir, improved):
  config = shapes.config_of(run_dir / 'bc')
  before = checkpoints.latest_checkpoint(run_dir / 'bc')
  after = checkpoints.latest_checkpoint(improved)
  assert checkpoints.step_of(after) == checkpoints.step_of(before) + 4
  # T5X first saves what it restored: with it, our numbers went in unchanged.
  copied = improved / f'checkpoint_{checkpoints.step_of(before)}'
  abstract = t5.parameter_shapes(config)
  trees = [
    checkpoints.load_params(p, abstract=abstract) for p in (before, copied, after)
  ]
  batch = make_batch()
  first, second, third = (np.asarray(logits_of(p, config, batch)) for p in trees)
  np.testing.assert_array_equal(first, second)
  assert np.abs(third - first).max() > 1e-3
  assert (improved / 'config.gin').exists() and (improved / 'model-info.txt').exists()


def grow(run_dir, output_dir, *bindings):
  program(
    'infer',
    'grow',
    f'POLICY={str(run_dir / "bc")!r}',
    f'CHECKPOINT_PATH={str(checkpoints.latest_checkpoint(run_dir / "bc"))!r}',
    f'GROUPS={str(run_dir / "corpus" / "train")!r}',
    f'TASK_FEATURE_LENGTHS={LENGTHS}',
    f'INFER_OUTPUT_DIR={str(output_dir)!r}',
    'NUM_SAMPLES=3',
    'NUM_SOURCES=12',
    'BATCH_SIZE=8',
    *bindings,
  )
  return sorted(pathlib.Path(output_dir).glob('*.jsonl-*-of-0000?'))


def test_a_grow_of_t5x_infer_comes_back_into_the_store(run_dir, tmp_path):
  files = grow(run_dir, tmp_path / 'infer')
  arguments = {'vocabulary_path': run_dir / 'bc' / 'vocabulary.model'}
  sources = run_dir / 'corpus' / 'train'
  count = inferences.group_set_from_inferences(
    files, sources, tmp_path / 'groups', **arguments
  )
  groups = list(group_store.iterate_groups(tmp_path / 'groups'))
  expected = list(group_store.iterate_groups(sources))[:12]
  assert count == 12 and [g.source_id for g in groups] == [
    g.source_id for g in expected
  ]
  assert {len(g.tokens) for g in groups} == {3}
  assert {o for g in groups for o in g.origins} == {'model'}
  # Sampled, not greedy three times over.
  assert any(len(set(g.texts)) == 3 for g in groups)

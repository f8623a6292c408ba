"""The smallest policy, not trained, as an artifact: what stages do with any."""

import jax
from flax import linen as nn

from rest_jax import paths
from rest_jax.data import corpora
from rest_jax.models import reward, t5
from rest_jax.stages import artifact, ingest, policies, score
from rest_jax.training import mesh as mesh_lib


def run(model_dir, **options):
  """A Run on one device."""
  mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
  return artifact.Run(str(model_dir), mesh=mesh, **options)


def corpus(current, *, num_validation, num_test, **options):
  """A little of the embedded corpus."""
  return ingest.ingest(
    current,
    corpus=corpora.EverydayCorpus(
      num_train=150, num_validation=num_validation, num_test=num_test
    ),
    vocab_size=300,
    byte_fallback=False,
    task_feature_lengths={'inputs': 32, 'targets': 48},
    **options,
  )


CONFIG = t5.T5Config(
  vocab_size=300,
  emb_dim=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=32,
  num_encoder_layers=1,
  num_decoder_layers=1,
)


def _save(work, module, ingested, seed=0):
  init = jax.jit(policies.init_fn(module, CONFIG))
  params = nn.meta.unbox(init(jax.random.key(seed)))
  vocabulary = ingested.path / policies.VOCABULARY_FILE
  policies.save_model(
    work.path, config=CONFIG, params=params, vocabulary=vocabulary, step=0
  )


def reward_model(current, ingested):
  """Random parameters, in the place of a trained reward model."""

  def build(work):
    _save(work, reward.RewardT5, ingested)
    scale = {'mean': 3.0, 'stddev': 2.0}
    paths.write_json_atomic(work.path / score.SCALE_FILE, scale)

  params = {'task_feature_lengths': {'inputs': 32, 'targets': 48}}
  inputs = {'corpus': ingested}
  return current.stage(
    'train_reward',
    name='reward_model',
    version=1,
    params=params,
    inputs=inputs,
    build=build,
  )


def policy(current, ingested, *, name='bc', seed=0):
  """Random parameters, in the place of BC."""

  def build(work):
    _save(work, t5.T5, ingested, seed)

  params, inputs = {'seed': seed}, {'corpus': ingested}
  return current.stage(
    'supervise', name=name, version=1, params=params, inputs=inputs, build=build
  )

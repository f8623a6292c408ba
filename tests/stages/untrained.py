"""The smallest policy, not trained, as an artifact: what stages do with any."""

import jax
from flax import linen as nn

from rest_jax.data import corpora
from rest_jax.models import t5
from rest_jax.stages import artifact, ingest, policies
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


def policy(current, ingested):
  """Random parameters, in the place of BC."""
  config = t5.T5Config(
    vocab_size=300,
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=32,
    num_encoder_layers=1,
    num_decoder_layers=1,
  )

  def build(work):
    init = jax.jit(policies.init_fn(t5.T5, config))
    params = nn.meta.unbox(init(jax.random.key(0)))
    vocabulary = ingested.path / policies.VOCABULARY_FILE
    policies.save_model(
      work.path, config=config, params=params, vocabulary=vocabulary, step=0
    )

  inputs = {'corpus': ingested}
  return current.stage(
    'supervise', name='bc', version=1, params={}, inputs=inputs, build=build
  )

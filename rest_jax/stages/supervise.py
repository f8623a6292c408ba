"""Supervise: train the policy on D by negative log-likelihood (BC, G=0 I=0)."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from rest_jax import paths
from rest_jax.data import batches, buckets, vocabularies
from rest_jax.models import t5
from rest_jax.stages import artifact, fitting, policies
from rest_jax.training import objectives

VERSION = 1
INFO_FILE = 'model-info.txt'


def supervise(
  run: artifact.Run,
  *,
  corpus: artifact.Artifact,
  name: str = 'bc',
  config: t5.T5Config,
  optimiser: Any,
  objective: Any = objectives.BehaviouralCloning(),
  num_steps: int,
  batch_size: int,
  task_feature_lengths: Mapping[str, int],
  bucket_shares: Sequence[float] = (1.0,),
  eval_period_steps: int,
  patience: int | None = None,
  num_microbatches: int = 1,
  checkpoint_period_steps: int = 1000,
  seed: int = 0,
) -> artifact.Artifact:
  """Trains a policy on the pairs of a corpus, from a random start.

  Args:
    run: the MODEL_DIR in use.
    corpus: what `ingest` made.
    name: of the artifact.
    config: the policy's shape; its vocabulary must hold the corpus's.
    optimiser: of `training.optimiser`.
    objective: of `training.objectives`.
    num_steps: training steps.
    batch_size: pairs in a step.
    task_feature_lengths: T5X's {'inputs': ..., 'targets': ...}, in tokens.
    bucket_shares: see buckets.training_buckets.
    eval_period_steps: steps between evaluations of the held-out loss, by which
      the best parameters are chosen.
    patience: stop after so many evaluations without improvement; None never.
    num_microbatches: parts of a batch whose gradients are accumulated.
    checkpoint_period_steps: what a kill can lose.
    seed: of the start, the order of the pairs and dropout.
  """
  params = {
    'config': config,
    'optimiser': optimiser,
    'objective': objective,
    'num_steps': num_steps,
    'batch_size': batch_size,
    'task_feature_lengths': dict(task_feature_lengths),
    'bucket_shares': bucket_shares,
    'eval_period_steps': eval_period_steps,
    'patience': patience,
    'seed': seed,
  }
  parameters = t5.count_parameters(config)

  def build(work: artifact.Work) -> None:
    vocabulary = corpus.path / policies.VOCABULARY_FILE
    check_vocabulary(config, vocabularies.Vocabulary.load(vocabulary))
    shape: dict[str, Any] = {
      'batch': batch_size,
      'samples': 1,
      'buckets': buckets.training_buckets(task_feature_lengths, bucket_shares),
      'seed': seed,
    }
    data = batches.GroupBatches(corpus.path / 'train', **shape)
    held_out = batches.GroupBatches(corpus.path / 'validation', **shape)
    fitted = fitting.fit(
      work,
      run,
      module=t5.T5,
      config=config,
      objective=objective,
      optimiser=optimiser,
      batch_fn=data.batch,
      settings=fitting.FitSettings(
        num_steps=num_steps,
        eval_period_steps=eval_period_steps,
        patience=patience,
        num_microbatches=num_microbatches,
        checkpoint_period_steps=checkpoint_period_steps,
        seed=seed,
      ),
      evaluate=functools.partial(
        fitting.held_out_loss, run.mesh, config, held_out.evaluation_batches
      ),
      eval_metric='held_out_loss',
      mode='min',
    )
    policies.save_model(
      work.path,
      config=config,
      params=fitted.best_params,
      vocabulary=vocabulary,
      step=fitted.best_step,
    )
    paths.write_text_atomic(work.path / INFO_FILE, model_info(config))
    work.results.update(fitted.results(), parameters=parameters)

  return run.stage(
    'supervise',
    name=name,
    version=VERSION,
    params=params,
    inputs={'corpus': corpus},
    build=build,
    size={
      'parameters': parameters,
      'steps': num_steps,
      'batch': f'[{batch_size}, 1, {task_feature_lengths["targets"]}]',
    },
  )


def check_vocabulary(config: t5.T5Config, vocabulary: vocabularies.Vocabulary) -> None:
  """Raises ValueError where a model's embedding cannot hold a vocabulary."""
  if vocabulary.size > config.vocab_size:
    raise ValueError(
      f"the corpus's vocabulary has {vocabulary.size} pieces but the model's "
      f'embedding only {config.vocab_size} rows: raise T5Config.vocab_size to at '
      'least that (a multiple of 128 suits the devices), or lower VOCAB_SIZE'
    )


def model_info(config: t5.T5Config) -> str:
  """Lists every parameter with its shape and axes, as T5X's model-info.txt."""
  boxed = policies.abstract_params(t5.T5, config)
  lines = []
  for path, leaf in jax.tree_util.tree_leaves_with_path(
    boxed, is_leaf=lambda x: hasattr(x, 'names')
  ):
    name = '/'.join(str(key.key) for key in path if hasattr(key, 'key'))
    lines.append(f'{name:<60} {leaf.value.shape!s:<20} {leaf.names}')
  return '\n'.join([*lines, f'total parameters: {t5.count_parameters(config):,}', ''])

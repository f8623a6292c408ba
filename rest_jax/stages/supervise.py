"""Supervise: train the policy on D by negative log-likelihood (BC, G=0 I=0).

From a random start, or from a checkpoint of the T5 family.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from rest_jax import paths
from rest_jax.data import batches, brought_vocabularies, buckets, vocabularies
from rest_jax.interop import initial_checkpoint as initial_checkpoint_lib
from rest_jax.models import t5
from rest_jax.stages import artifact, fitting, policies
from rest_jax.training import hosts, objectives
from rest_jax.training import mesh as mesh_lib
from rest_jax.training import optimiser as optimiser_lib

VERSION = 1
INFO_FILE = 'model-info.txt'


def supervise(
  run: artifact.Run,
  *,
  corpus: artifact.Artifact,
  name: str = 'bc',
  config: t5.T5Config,
  initial_checkpoint: str | None = None,
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
  """Trains a policy on the pairs of a corpus.

  Args:
    run: the MODEL_DIR in use.
    corpus: what `ingest` made.
    name: of the artifact.
    config: the policy's shape; its vocabulary must hold the corpus's.
    initial_checkpoint: to start from instead of random parameters, see
      `interop.initial_checkpoint`; its vocabulary has to be the corpus's.
    optimiser: of `training.optimiser`.
    objective: of `training.objectives`.
    num_steps: training steps; 0 takes the initial checkpoint as it is.
    batch_size: pairs in a step.
    task_feature_lengths: T5X's {'inputs': ..., 'targets': ...}, in tokens.
    bucket_shares: see buckets.training_buckets.
    eval_period_steps: steps between evaluations of the held-out loss, by which
      the best parameters are chosen.
    patience: stop after so many evaluations without improvement; None never.
    num_microbatches: parts of a batch whose gradients are accumulated.
    checkpoint_period_steps: what a kill can lose.
    seed: of the start, the order of the pairs and dropout.

  Raises:
    ValueError: the model cannot hold the vocabulary, or the checkpoint does not fit
      the model or the vocabulary.
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
  if initial_checkpoint is not None:
    params['initial_checkpoint'] = initial_checkpoint_lib.identity(initial_checkpoint)
  parameters = t5.count_parameters(config)

  def build(work: artifact.Work) -> None:
    vocabulary = corpus.path / policies.VOCABULARY_FILE
    loaded = vocabularies.Vocabulary.load(vocabulary)
    check_vocabulary(config, loaded)
    warm_start = None
    if initial_checkpoint is not None:
      check_same_vocabulary(initial_checkpoint, loaded)
      warm_start = functools.partial(_restore, initial_checkpoint, config, loaded)
    shape: dict[str, Any] = {
      'batch': batch_size,
      'samples': 1,
      'buckets': buckets.training_buckets(task_feature_lengths, bucket_shares),
      'seed': seed,
    }
    data = batches.GroupBatches(
      corpus.path / 'train', places=mesh_lib.host_rows(run.mesh, batch_size), **shape
    )
    held_out = batches.GroupBatches(corpus.path / 'validation', **shape)
    fitted = fitting.fit(
      work,
      run,
      module=t5.T5,
      config=config,
      objective=objective,
      # A schedule that decays to the last step has none to decay to.
      optimiser=optimiser if num_steps else optimiser_lib.Adafactor(),
      batch_fn=data.batch,
      settings=fitting.FitSettings(
        num_steps=num_steps,
        eval_period_steps=eval_period_steps,
        patience=patience,
        num_microbatches=num_microbatches,
        checkpoint_period_steps=checkpoint_period_steps,
        seed=seed,
      ),
      warm_start=warm_start,
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
    if hosts.is_primary():
      paths.write_text_atomic(work.path / INFO_FILE, model_info(config))
    work.results.update(fitted.results(), parameters=parameters)

  return run.stage(
    'supervise',
    name=name,
    version=VERSION,
    params=params,
    inputs={'corpus': corpus},
    build=build,
    teamwork='together',
    cut={'num_microbatches': num_microbatches},
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


def check_same_vocabulary(path: str, vocabulary: vocabularies.Vocabulary) -> None:
  """Raises ValueError where a checkpoint came with another vocabulary.

  T5X's come with none, so only their number of rows is checked, elsewhere.
  """
  found = initial_checkpoint_lib.find(path)
  folder = found.artifact or found.folder
  files = [folder / name for name in brought_vocabularies.MODEL_FILES]
  tokenizer = folder / brought_vocabularies.TOKENIZER_FILE
  if not any(file.exists() for file in [*files, tokenizer]):
    return
  theirs = brought_vocabularies.bring(folder)
  if not vocabulary.model_bytes().startswith(theirs.model_bytes()) and not (
    theirs.model_bytes().startswith(vocabulary.model_bytes())
  ):
    raise ValueError(
      f"the corpus's vocabulary of {vocabulary.size} ids is not that of the checkpoint "
      f'{folder}, of {theirs.size}: its rows would stand for other pieces. Set '
      f'--gin.VOCABULARY="\'{folder}\'", and another MODEL_DIR'
    )


def _restore(
  path: str,
  config: t5.T5Config,
  vocabulary: vocabularies.Vocabulary,
  initial: Any,
) -> Any:
  """The checkpoint's parameters where the random ones lay, which are let go of."""
  shardings = jax.tree.map(lambda leaf: leaf.sharding, initial)
  for leaf in jax.tree.leaves(initial):
    leaf.delete()  # the two are never held at once
  rows = vocabulary.checkpoint_rows(config.vocab_size)
  return initial_checkpoint_lib.restore(path, config, shardings, rows=rows)


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

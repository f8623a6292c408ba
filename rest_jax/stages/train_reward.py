"""Train the reward model: a scalar head on the policy, fitted to ratings."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rest_jax import paths
from rest_jax.data import buckets, vocabularies
from rest_jax.models import heads, reward, t5
from rest_jax.rewards import agreement, learned
from rest_jax.rewards import inputs as inputs_lib
from rest_jax.stages import artifact, fitting, policies, score
from rest_jax.stages import rated as rated_lib
from rest_jax.training import hosts, reward_objectives
from rest_jax.training import mesh as mesh_lib

VERSION = 1
RANK_AGREEMENT = 'rank_agreement'


def train_reward(
  run: artifact.Run,
  *,
  name: str = 'reward_model',
  policy: artifact.Artifact,
  samples: artifact.Artifact | Sequence[artifact.Artifact],
  ratings: artifact.Artifact | Sequence[artifact.Artifact],
  reward_model: artifact.Artifact | None = None,
  optimiser: Any,
  objective: Any = reward_objectives.Regression(),
  reward_input: inputs_lib.RewardInput = inputs_lib.Source(),
  num_steps: int,
  batch_size: int,
  task_feature_lengths: Mapping[str, int],
  bucket_shares: Sequence[float] = (1.0,),
  eval_period_steps: int,
  held_out_fraction: float = 0.1,
  max_samples: int = 8,
  patience: int | None = None,
  num_microbatches: int = 1,
  checkpoint_period_steps: int = 1000,
  seed: int = 0,
) -> artifact.Artifact:
  """Fits a reward model to rated candidates, started from a policy or another one.

  A source's candidates share one encoding. Sources are held out whole; the best
  parameters are those with the highest mean of two Spearman correlations, over all
  held-out pairs and inside groups: a global threshold chooses by the first, a
  filter inside groups lives on the second. Where no held-out source has two
  candidates the first counts alone.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact.
    policy: gives the shape, the start and the vocabulary.
    samples: the group set of rated candidates, or several, old and new together.
    ratings: their ratings, on any scale, but all on one; as many sets as `samples`.
    reward_model: an earlier one of the same shape to go on from, head included. At
      the start it gives the rewards that it gave, whatever the ratings' new scale.
    optimiser, objective: of `training`, the latter of `reward_objectives`.
    reward_input: what the encoder reads, of `rewards.inputs`; scoring reads the same.
    num_steps, batch_size: training steps, and sources in each.
    task_feature_lengths: T5X's {'inputs': ..., 'targets': ...}, in tokens.
    bucket_shares, eval_period_steps, patience: as in supervise.
    held_out_fraction: of the sources, for evaluation; not used where a rated set
      brings held-out ones along (`read_ratings`).
    max_samples: candidates of one source in a batch row.
    num_microbatches, checkpoint_period_steps, seed: as in supervise.

  Raises:
    ValueError: an argument out of range, ratings without what the objective learns
      from or references that the input needs, an earlier model of another vocabulary
      or input.
  """
  sets = _rated_sets(samples, ratings)
  if not 0 < held_out_fraction < 1:
    raise ValueError(f'held_out_fraction={held_out_fraction} must be between 0 and 1')
  lengths = buckets.feature_lengths(task_feature_lengths)
  params = {
    'optimiser': optimiser,
    'objective': objective,
    'num_steps': num_steps,
    'batch_size': batch_size,
    'task_feature_lengths': dict(task_feature_lengths),
    'eval_period_steps': eval_period_steps,
    'held_out_fraction': held_out_fraction,
    'max_samples': max_samples,
    'patience': patience,
    'seed': seed,
    **({'bucket_shares': bucket_shares} if tuple(bucket_shares) != (1.0,) else {}),
    **({'reward_input': reward_input} if reward_input != inputs_lib.Source() else {}),
  }

  def build(work: artifact.Work) -> None:
    start = _start(run, policy, reward_model, reward_input)
    source_length = reward_input.longest(start.vocabulary, *lengths)

    def encoder_side(side: list[rated_lib.RatedGroup]) -> list[rated_lib.RatedGroup]:
      groups = inputs_lib.encoder_groups(
        [one.group for one in side], reward_input, start.vocabulary, lengths[1]
      )
      pairs = zip(side, groups, strict=True)
      return [one._replace(group=group) for one, group in pairs]

    sides = rated_lib.load(sets, held_out_fraction, seed)
    rated, held_out = map(encoder_side, sides)
    # Refuses equal ratings, by which no parameters can be chosen.
    learned.RatingScale.fit(np.concatenate([one.ratings for one in held_out]))
    examples = sum(objective.num_examples(one.ratings, one.judgements) for one in rated)
    if not examples:
      raise ValueError(
        f'{objective.name} finds nothing to learn from in the ratings of '
        f'{len(rated):,} sources, such as two candidates of one source of which one is '
        'preferred: choose another objective of training.reward_objectives, or pairs'
      )
    scale = learned.RatingScale.fit(np.concatenate([one.ratings for one in rated]))
    data = rated_lib.RatedBatches(
      work.host_scratch / 'rated',
      rated,
      scale,
      batch=batch_size,
      samples=max_samples,
      buckets=buckets.training_buckets(
        {'inputs': source_length, 'targets': lengths[1]}, bucket_shares
      ),
      seed=seed,
      places=mesh_lib.host_rows(run.mesh, batch_size),
    )

    def evaluate(reward_params: Any) -> dict[str, float]:
      scorer = learned.LearnedReward(
        reward_params,
        start.config,
        scale,
        mesh=run.mesh,
        batch_size=batch_size,
        source_length=source_length,
        target_length=lengths[1],
      )
      found = agreement.agreement(
        scorer([one.group for one in held_out]), [one.ratings for one in held_out]
      )
      known = {k: v for k, v in found.to_dict().items() if v is not None}
      return known | {RANK_AGREEMENT: _rank_agreement(found)}

    fitted = fitting.fit(
      work,
      run,
      module=reward.RewardT5,
      config=start.config,
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
      warm_start=lambda initial: start.params(initial, scale),
      evaluate=evaluate,
      eval_metric=RANK_AGREEMENT,
      mode='max',
    )
    policies.save_model(
      work.path,
      config=start.config,
      params=fitted.best_params,
      vocabulary=policy.path / policies.VOCABULARY_FILE,
      step=fitted.best_step,
    )
    if hosts.is_primary():
      paths.write_json_atomic(work.path / score.SCALE_FILE, dataclasses.asdict(scale))
      if reward_input != inputs_lib.Source():
        paths.write_json_atomic(work.path / score.INPUT_FILE, reward_input.to_dict())
    undefined = {field.name: None for field in dataclasses.fields(agreement.Agreement)}
    work.results.update(
      fitted.results(),
      held_out=undefined | fitted.best_evaluation,
      train_sources=len(rated),
      held_out_sources=len(held_out),
      train_examples=examples,
    )

  inputs = {'policy': policy, 'reward_model': reward_model}
  for number, one in enumerate(sets, start=1):
    suffix = f'_{number}' if number > 1 else ''
    inputs |= {f'samples{suffix}': one.samples, f'ratings{suffix}': one.ratings}

  return run.stage(
    'train_reward',
    name=name,
    version=VERSION,
    params=params,
    inputs=inputs,
    build=build,
    teamwork='together',
    cut={'num_microbatches': num_microbatches},
    size={'steps': num_steps},
  )


def _rank_agreement(found: agreement.Agreement) -> float:
  """What the best parameters are chosen by, see `train_reward`."""
  overall = np.nan if found.spearman is None else found.spearman
  inside = found.spearman_in_groups
  return overall if inside is None else (overall + inside) / 2


class _Start(NamedTuple):
  """What training starts from."""

  config: t5.T5Config
  vocabulary: vocabularies.Vocabulary
  params: Callable[[Any, learned.RatingScale], Any]  # initial parameters, scale -> all


def _start(
  run: artifact.Run,
  policy: artifact.Artifact,
  reward_model: artifact.Artifact | None,
  reward_input: inputs_lib.RewardInput,
) -> _Start:
  """The policy under a fresh head, or an earlier reward model whole."""
  if reward_model is None:
    model = policies.load_model(policy.path, t5.T5, run)
    return _Start(
      model.config,
      model.vocabulary,
      lambda initial, scale: heads.warm_start(initial, model.params),
    )
  files = [one.path / policies.VOCABULARY_FILE for one in (policy, reward_model)]
  if files[0].read_bytes() != files[1].read_bytes():
    raise ValueError(
      f'{reward_model.name} has another vocabulary than {policy.name}: go on from a '
      'reward model that was made with the same corpus'
    )
  if score.load_reward_input(reward_model) != reward_input:
    raise ValueError(
      f'{reward_model.name} reads {score.load_reward_input(reward_model)}, but '
      f'reward_input is {reward_input}: go on with the same input, or start afresh'
    )
  earlier = policies.load_model(reward_model.path, reward.RewardT5, run)
  old = learned.RatingScale(**paths.read_json(reward_model.path / score.SCALE_FILE))
  return _Start(
    earlier.config,
    earlier.vocabulary,
    lambda initial, scale: reward.rescale(
      earlier.params,
      factor=old.stddev / scale.stddev,
      shift=(old.mean - scale.mean) / scale.stddev,
    ),
  )


def _rated_sets(samples: Any, ratings: Any) -> list[rated_lib.RatedSet]:
  """Pairs what may be one artifact or several."""
  groups, rewards = (
    [given] if isinstance(given, artifact.Artifact) else list(given)
    for given in (samples, ratings)
  )
  if len(groups) != len(rewards) or not groups:
    raise ValueError(
      f'{len(groups)} samples and {len(rewards)} ratings: give one set of ratings for '
      'each set of samples, at least one'
    )
  return [rated_lib.RatedSet(*pair) for pair in zip(groups, rewards, strict=True)]

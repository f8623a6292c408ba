"""Train the reward model: a scalar head on the policy, fitted to ratings."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rest_jax import paths
from rest_jax.data import batches, buckets, group_store, reward_store, shards
from rest_jax.models import heads, reward, t5
from rest_jax.rewards import agreement, learned
from rest_jax.stages import artifact, fitting, policies, score
from rest_jax.training import objectives

VERSION = 1
RANK_AGREEMENT = 'rank_agreement'


class Rated(NamedTuple):
  """Groups and the ratings of their candidates."""

  groups: list[group_store.Group]
  ratings: list[np.ndarray]  # each [samples] float32


def train_reward(
  run: artifact.Run,
  *,
  name: str = 'reward_model',
  policy: artifact.Artifact,
  samples: artifact.Artifact,
  ratings: artifact.Artifact,
  optimiser: Any,
  objective: Any = objectives.Regression(),
  num_steps: int,
  batch_size: int,
  task_feature_lengths: Mapping[str, int],
  eval_period_steps: int,
  held_out_fraction: float = 0.1,
  max_samples: int = 8,
  patience: int | None = None,
  num_microbatches: int = 1,
  checkpoint_period_steps: int = 1000,
  seed: int = 0,
) -> artifact.Artifact:
  """Fits a reward model to rated candidates, started from a policy.

  A source's candidates share one encoding. Sources are held out whole; the best
  parameters are those with the highest mean of two Spearman correlations, over all
  held-out pairs and inside groups: a global threshold chooses by the first, a
  filter inside groups lives on the second.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact.
    policy: gives the shape, the start and the vocabulary.
    samples: the group set of rated candidates.
    ratings: their ratings, on any scale.
    optimiser, objective: of `training`.
    num_steps, batch_size: training steps, and sources in each.
    task_feature_lengths: T5X's {'inputs': ..., 'targets': ...}, in tokens.
    eval_period_steps, patience: as in supervise.
    held_out_fraction: of the sources, for evaluation.
    max_samples: candidates of one source in a batch row.
    num_microbatches, checkpoint_period_steps, seed: as in supervise.
  """
  if not 0 < held_out_fraction < 1:
    raise ValueError(f'held_out_fraction={held_out_fraction} must be between 0 and 1')
  source_length, target_length = buckets.feature_lengths(task_feature_lengths)
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
  }

  def build(work: artifact.Work) -> None:
    start = policies.load_model(policy.path, t5.T5, run)
    rated, held_out = split_rated(samples.path, ratings.path, held_out_fraction, seed)
    scale = learned.RatingScale.fit(np.concatenate(rated.ratings))
    _write(work.scratch / 'rated', rated)
    data = batches.GroupBatches(
      work.scratch / 'rated',
      reward_dir=work.scratch / 'rated',
      batch=batch_size,
      samples=max_samples,
      buckets=buckets.training_buckets(task_feature_lengths),
      seed=seed,
    )

    def batch_fn(step: int) -> dict[str, np.ndarray]:
      batch = data.batch(step)
      return batch | {'ratings': scale.standardise(batch['rewards'])}

    def evaluate(reward_params: Any) -> dict[str, float]:
      scorer = learned.LearnedReward(
        reward_params,
        start.config,
        scale,
        mesh=run.mesh,
        batch_size=batch_size,
        source_length=source_length,
        target_length=target_length,
      )
      found = agreement.agreement(scorer(held_out.groups), held_out.ratings)
      values = {k: np.nan if v is None else v for k, v in found.to_dict().items()}
      both = (values['spearman'] + values['spearman_in_groups']) / 2
      return values | {RANK_AGREEMENT: both}

    fitted = fitting.fit(
      work,
      run,
      module=reward.RewardT5,
      config=start.config,
      objective=objective,
      optimiser=optimiser,
      batch_fn=batch_fn,
      settings=fitting.FitSettings(
        num_steps=num_steps,
        eval_period_steps=eval_period_steps,
        patience=patience,
        num_microbatches=num_microbatches,
        checkpoint_period_steps=checkpoint_period_steps,
        seed=seed,
      ),
      warm_start=lambda initial: heads.warm_start(initial, start.params),
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
    paths.write_json_atomic(work.path / score.SCALE_FILE, dataclasses.asdict(scale))
    work.results.update(
      fitted.results(),
      held_out=fitted.best_evaluation,
      train_sources=len(rated.groups),
      held_out_sources=len(held_out.groups),
    )

  return run.stage(
    'train_reward',
    name=name,
    version=VERSION,
    params=params,
    inputs={'policy': policy, 'samples': samples, 'ratings': ratings},
    build=build,
    size={'steps': num_steps},
  )


def split_rated(
  group_dir: paths.PathLike,
  reward_dir: paths.PathLike,
  held_out_fraction: float,
  seed: int,
) -> tuple[Rated, Rated]:
  """Splits rated groups by source into those to train on and those held out.

  A source's side depends on (seed, source id) alone, so ratings that are added
  later move no source from one side to the other.
  """
  rated, held_out = Rated([], []), Rated([], [])
  for group_path, reward_path in reward_store.paired_shards(group_dir, reward_dir):
    groups = group_store.read_groups(group_path)
    rewards = reward_store.read_rewards(reward_path)
    reward_store.check_join(
      group_path,
      reward_path,
      [group.source_id for group in groups],
      np.array([group.num_candidates for group in groups]),
      rewards,
    )
    for group, ratings in zip(groups, rewards.rewards, strict=True):
      digest = hashlib.blake2b(f'{seed}/{group.source_id}'.encode(), digest_size=8)
      share = int.from_bytes(digest.digest(), 'little') / 2**64
      side = held_out if share < held_out_fraction else rated
      side.groups.append(group)
      side.ratings.append(ratings)
  if not rated.groups or not held_out.groups:
    raise ValueError(
      f'of {len(rated.groups) + len(held_out.groups)} rated sources '
      f'{len(held_out.groups)} are held out (held_out_fraction={held_out_fraction}): '
      'both sides need some; rate more sources'
    )
  return rated, held_out


def _write(directory: paths.PathLike, rated: Rated) -> None:
  """Writes rated groups as a group set and a reward set in one directory."""
  group_store.write_group_set(directory, rated.groups)
  reward_store.write_rewards(
    shards.shard_path(directory, 0, 1, reward_store.KIND),
    [group.source_id for group in rated.groups],
    rated.ratings,
  )

"""Improve: fine-tune the policy on what passes the filter, by an offline loss."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rest_jax import filters
from rest_jax.data import buckets
from rest_jax.models import heads, t5
from rest_jax.sampling import draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, fitting, improve_data, policies
from rest_jax.stages import held_out as held_out_lib
from rest_jax.stages import progress as progress_lib
from rest_jax.training import loop, objectives
from rest_jax.training import mesh as mesh_lib

VERSION = 1


def improve(
  run: artifact.Run,
  *,
  name: str,
  corpus: artifact.Artifact,
  policy: artifact.Artifact,
  samples: artifact.Artifact,
  rewards: artifact.Artifact,
  reward_model: artifact.Artifact,
  first_rewards: artifact.Artifact,
  reference: artifact.Artifact | None = None,
  value_model: artifact.Artifact | None = None,
  grow_step: int,
  improve_step: int,
  threshold: float,
  filter_fn: Callable[[float], filters.Filter] = filters.GlobalThreshold,
  previous_threshold: float | None = None,
  optimiser: Any,
  objective: objectives.PolicyObjective = objectives.BehaviouralCloning(),
  learning_rate_decay: float = 0.5,
  num_steps: int,
  batch_size: int,
  samples_per_row: int = 4,
  task_feature_lengths: Mapping[str, int],
  bucket_shares: Sequence[float] = (1.0,),
  mix_with: Sequence[tuple[str, float]] = (),
  scorer: Any = None,
  eval_split: str = 'validation',
  num_eval_sources: int | None = 256,
  num_eval_samples: int = 2,
  decoding: draws.Decoding = draws.Decoding(),
  eval_period_steps: int,
  patience: int | None = 2,
  num_microbatches: int = 1,
  checkpoint_period_steps: int = 1000,
  seed: int = 0,
  sampler: sampler_lib.SamplerSettings = sampler_lib.SamplerSettings(),
) -> artifact.Artifact:
  """One Improve step: argmin of E_{D_g}[F(x, y; τ_i) · L(x, y; θ)].

  Starts from the given policy with a fresh optimiser, at a learning rate of
  `learning_rate_decay ** (improve_step - 1)` times the optimiser's, and keeps the
  parameters with the best mean reward on held-out sources; the start counts, so
  an Improve that never raises the reward returns what it was given.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact, such as 'improve_1_2'.
    corpus: D, for its held-out sources and vocabulary.
    policy: to start from.
    samples, rewards: D_g and its scores.
    reward_model: scores the held-out samples.
    first_rewards: the first Grow's scores, which hold the normaliser.
    reference: BC, for the objectives that need a reference policy.
    value_model: of `train_value` on these samples and rewards, for those that need
      values.
    grow_step, improve_step: g and i.
    threshold: τ_i; 0.0 keeps all of D_g (the paper's row I=0).
    filter_fn: makes the filter of a threshold; the original data pass through it
      like the samples.
    previous_threshold: τ_{i-1} in the same Grow, or None.
    optimiser: of `training.optimiser`.
    objective: of `training`: L(x, y; θ), see `objectives.PolicyObjective`.
    learning_rate_decay: factor from one Improve to the next.
    num_steps, batch_size: training steps, and rows in each.
    samples_per_row: kept candidates of one source in a row; more spill over.
    task_feature_lengths: T5X's {'inputs': ..., 'targets': ...}, in tokens.
    bucket_shares: see buckets.training_buckets.
    mix_with: SeqIO tasks or mixtures to mix in, each with its rate; what the
      filter keeps has rate 1.
    scorer: another scorer in the reward model's place.
    eval_split, num_eval_sources, num_eval_samples, decoding: the held-out samples
      whose mean reward chooses the parameters.
    eval_period_steps: steps between evaluations.
    patience: stop after so many evaluations without a better reward.
    num_microbatches, checkpoint_period_steps, seed: as in supervise.
    sampler: how held-out sampling is cut; changes no sample.

  Raises:
    ValueError: a global threshold that breaks Algorithm 1's rules, a filter that
      keeps nothing, an objective that needs a model which is not there, or rows too
      narrow for one that compares candidates.
  """
  models = {objectives.REFERENCE: reference, objectives.VALUE: value_model}
  needed = {need: _needed(need, models[need], objective) for need in objective.needs}
  keep = filters.KeepAll() if threshold == 0.0 else filter_fn(threshold)
  params = {
    'grow_step': grow_step,
    'improve_step': improve_step,
    'threshold': threshold,
    'filter': keep,
    'previous_threshold': previous_threshold,
    'optimiser': optimiser,
    'objective': objective,
    'learning_rate_decay': learning_rate_decay,
    'num_steps': num_steps,
    'batch_size': batch_size,
    'samples_per_row': samples_per_row,
    'task_feature_lengths': dict(task_feature_lengths),
    'bucket_shares': bucket_shares,
    'mix_with': mix_with,
    'scorer': scorer,
    'eval_split': eval_split,
    'num_eval_sources': num_eval_sources,
    'num_eval_samples': num_eval_samples,
    'decoding': decoding,
    'eval_period_steps': eval_period_steps,
    'patience': patience,
    'seed': seed,
  }

  def build(work: artifact.Work) -> None:
    improve_data.check(keep, rewards, previous_threshold)
    fitted_keep = improve_data.fitted(keep, samples, rewards)
    report = improve_data.count(fitted_keep, samples, rewards)
    if objective.whole_groups and report['most_kept'] > samples_per_row:
      raise ValueError(
        f'{name}: {objective.name} compares the candidates of a source, of which the '
        f'filter keeps up to {report["most_kept"]}, but a row holds samples_per_row='
        f'{samples_per_row}: raise improve.improve.samples_per_row to that'
      )
    progress_lib.say(
      f'{name}: threshold {threshold:g} keeps {report["kept_candidates"]:,} of '
      f'{report["candidates"]:,} candidates, of {report["kept_sources"]:,} of '
      f'{report["sources"]:,} sources'
    )
    start = policies.load_model(policy.path, t5.T5, run)
    held_out = held_out_lib.load(
      run,
      corpus=corpus,
      reward_model=reward_model,
      rewards=first_rewards,
      scorer=scorer,
      split=eval_split,
      num_sources=num_eval_sources,
      num_samples=num_eval_samples,
      task_feature_lengths=task_feature_lengths,
      decoding=decoding,
      seed=seed,
      settings=sampler,
    )
    batch_fn = improve_data.batch_fn(
      name,
      corpus=corpus,
      samples=samples,
      rewards=rewards,
      keep=fitted_keep,
      batch_size=batch_size,
      samples_per_row=samples_per_row,
      buckets=buckets.training_buckets(task_feature_lengths, bucket_shares),
      mix_with=mix_with,
      seed=seed,
      start_step=loop.resume_step(work.scratch) or 0,
      places=mesh_lib.host_rows(run.mesh, batch_size),
    )
    modules = {objectives.REFERENCE: t5.T5, objectives.VALUE: heads.ScalarHeadT5}
    fitted = fitting.fit(
      work,
      run,
      module=t5.T5,
      config=start.config,
      objective=objective,
      optimiser=optimiser,
      batch_fn=lambda step: objective.features(batch_fn(step), done=step / num_steps),
      frozen={
        need: policies.load_model(model.path, modules[need], run)
        for need, model in needed.items()
      },
      settings=fitting.FitSettings(
        num_steps=num_steps,
        eval_period_steps=eval_period_steps,
        patience=patience,
        num_microbatches=num_microbatches,
        checkpoint_period_steps=checkpoint_period_steps,
        seed=seed,
        learning_rate_scale=learning_rate_decay ** (improve_step - 1),
      ),
      warm_start=lambda _: objective.start(start.params),
      evaluate=lambda p: held_out.mean_reward(objective.policy(p), start.config),
      eval_metric='reward',
      mode='max',
    )
    policies.save_model(
      work.path,
      config=start.config,
      params=objective.policy(fitted.best_params),
      vocabulary=policy.path / policies.VOCABULARY_FILE,
      step=start.step + fitted.best_step,
    )
    work.results.update(fitted.results(), filter=report)

  inputs = {
    'corpus': corpus,
    'policy': policy,
    'samples': samples,
    'rewards': rewards,
    'reward_model': reward_model if scorer is None else None,
    'first_rewards': first_rewards,
    **needed,
  }
  return run.stage(
    'improve',
    name=name,
    version=VERSION,
    params=params,
    inputs=inputs,
    build=build,
    teamwork='together',
    cut={'num_microbatches': num_microbatches, 'sampler': sampler},
    size={'steps at most': num_steps, 'threshold': threshold},
  )


def _needed(
  need: str,
  model: artifact.Artifact | None,
  objective: objectives.PolicyObjective,
) -> artifact.Artifact:
  """The artifact of a model that an objective needs.

  Raises:
    ValueError: there is none.
  """
  if model is None:
    remedy = {
      objectives.REFERENCE: 'pass the BC policy as reference',
      objectives.VALUE: 'bind the stage that trains it, as gin_configs/value.gin does',
    }[need]
    raise ValueError(f'{objective.name} needs a {need}, and there is none: {remedy}')
  return model

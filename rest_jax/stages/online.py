"""Online: the policy learns from candidates that it draws as it goes.

The rivals of Grow and Improve: PPO, GRPO and RLOO, with Grow's sampler, ReST's reward
model and normaliser, and an account of samples, distinct samples and cost that can
be put beside a Grow's.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rest_jax.data import shards, source_stream
from rest_jax.models import t5
from rest_jax.sampling import draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, fitting, policies, rollouts
from rest_jax.stages import held_out as held_out_lib
from rest_jax.stages import progress as progress_lib
from rest_jax.training import events as events_lib
from rest_jax.training import online as online_lib
from rest_jax.training import online_objectives

VERSION = 1


def online(
  run: artifact.Run,
  *,
  name: str = 'online',
  corpus: artifact.Artifact,
  policy: artifact.Artifact,
  reward_model: artifact.Artifact,
  first_rewards: artifact.Artifact,
  objective: online_objectives.OnlineObjective,
  optimiser: Any,
  num_samples: int,
  sources_per_phase: int,
  samples_per_source: int = 8,
  num_epochs: int = 1,
  batch_size: int,
  task_feature_lengths: Mapping[str, int],
  scorer: Any = None,
  decoding: draws.Decoding = draws.Decoding(temperature=1.0),
  eval_split: str = 'validation',
  num_eval_sources: int | None = 256,
  num_eval_samples: int = 2,
  eval_decoding: draws.Decoding = draws.Decoding(),
  eval_period_phases: int = 10,
  num_microbatches: int = 1,
  checkpoint_period_phases: int = 1,
  seed: int = 0,
  sampler: sampler_lib.SamplerSettings = sampler_lib.SamplerSettings(),
) -> artifact.Artifact:
  """Trains a policy by reinforcement on its own candidates.

  A phase draws candidates for sources of D's train split, scores them, and makes
  `num_epochs` passes over them. The parameters with the best mean reward on held-out
  sources are kept, the start's included, as in Improve. Dropout is off: the ratio to
  the behaviour policy would be noise.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact.
    corpus: D.
    policy: to start from, and the KL's reference: BC.
    reward_model: scores the candidates.
    first_rewards: the first Grow's scores, which hold the normaliser.
    objective: of `training.online_objectives`.
    optimiser: of `training.optimiser`.
    num_samples: candidates to draw in all: the budget to compare at. A multiple of
      a phase's.
    sources_per_phase, samples_per_source: S and N of a phase.
    num_epochs, batch_size: passes over a phase, and sources in an update.
    task_feature_lengths: T5X's {'inputs': ..., 'targets': ...}, in tokens.
    scorer: another scorer in the reward model's place.
    decoding: of the phases' candidates; the policy's own distribution, temperature 1.
    eval_split, num_eval_sources, num_eval_samples, eval_decoding: the held-out
      samples whose mean reward chooses the parameters; not part of num_samples.
    eval_period_phases: phases between evaluations.
    num_microbatches: parts of an update's batch.
    checkpoint_period_phases: phases that a kill can lose.
    seed: of the order of sources, the draws and the order of updates.
    sampler: how sampling is cut; changes no sample.

  Returns:
    A policy; its results hold what was drawn (samples; distinct ones, within their
    source's group of a phase; tokens; unfinished) and the curves.

  Raises:
    ValueError: sizes that do not divide, a decoding that is not the policy's own, or
      an objective that must be on policy and is not.
  """
  settings = rollouts.RolloutSettings(
    sources=sources_per_phase,
    samples=samples_per_source,
    num_epochs=num_epochs,
    batch_size=batch_size,
    decoding=decoding,
  )
  num_phases = _num_phases(num_samples, settings)
  if objective.on_policy and settings.updates > 1:
    raise ValueError(
      f'{objective.name} has no ratio to the policy that drew the candidates, and '
      f'makes {settings.updates} updates a phase: bind num_epochs=1 and batch_size='
      f'{sources_per_phase}, sources_per_phase'
    )
  params = {
    'objective': objective,
    'optimiser': optimiser,
    'num_samples': num_samples,
    'rollout': settings,
    'task_feature_lengths': dict(task_feature_lengths),
    'scorer': scorer,
    'eval_split': eval_split,
    'num_eval_sources': num_eval_sources,
    'num_eval_samples': num_eval_samples,
    'eval_decoding': eval_decoding,
    'eval_period_phases': eval_period_phases,
    'seed': seed,
  }

  def build(work: artifact.Work) -> None:
    start = policies.load_model(policy.path, t5.T5, run)
    config = dataclasses.replace(start.config, dropout_rate=0.0)
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
      decoding=eval_decoding,
      seed=seed,
      settings=sampler,
    )
    train_step, state = fitting.trainer(
      run,
      params=objective.start(start.params, config),
      config=config,
      objective=objective,
      optimiser=optimiser,
      num_microbatches=num_microbatches,
    )
    done = online_lib.resume_phase(work.scratch, settings.updates)
    bar = progress_lib.progress(
      work.name,
      num_samples,
      unit='samples',
      done=done * settings.sources * settings.samples,
    )
    with (
      bar as advance,
      events_lib.EventWriter(work.path / 'events') as events,
      work.devices(),
    ):
      result = online_lib.fit(
        state=state,
        train_step=train_step,
        rollout=rollouts.Rollouts(
          work,
          run,
          stream=source_stream.SourceStream(
            shards.list_shards(corpus.path / 'train'),
            count=sources_per_phase,
            seed=seed,
          ),
          held_out=held_out,
          objective=objective,
          config=config,
          reference=start.params,
          settings=settings,
          seed=seed,
          sampler=sampler,
          advance=advance,
        ),
        updates_per_phase=settings.updates,
        num_phases=num_phases,
        work_dir=work.scratch,
        seed=seed,
        evaluate=lambda p: held_out.mean_reward(objective.policy(p), config),
        eval_period_phases=eval_period_phases,
        eval_metric='reward',
        checkpoint_period_phases=checkpoint_period_phases,
        events=events,
      )
    result = result._replace(history=rollouts.curves_by_samples(result.history))
    fitted = fitting.Fitted(objective.name, result)
    policies.save_model(
      work.path,
      config=start.config,
      params=objective.policy(fitted.best_params),
      vocabulary=policy.path / policies.VOCABULARY_FILE,
      step=start.step + fitted.best_step,
    )
    drawn = {name: result.history[-1][name] for name in rollouts.COUNTED}
    work.results.update(fitted.results(), phases=num_phases, drawn=drawn)

  inputs = {
    'corpus': corpus,
    'policy': policy,
    'reward_model': reward_model if scorer is None else None,
    'first_rewards': first_rewards,
  }
  return run.stage(
    'online',
    name=name,
    version=VERSION,
    params=params,
    inputs=inputs,
    build=build,
    teamwork='together',
    cut={'num_microbatches': num_microbatches, 'sampler': sampler},
    size={'samples': num_samples, 'phases': num_phases},
  )


def _num_phases(num_samples: int, settings: rollouts.RolloutSettings) -> int:
  """How many phases draw so many candidates.

  Raises:
    ValueError: no whole number of them does.
  """
  per_phase = settings.sources * settings.samples
  if num_samples < per_phase or num_samples % per_phase:
    raise ValueError(
      f'num_samples={num_samples} must be a multiple of the {per_phase} candidates '
      f'of a phase ({settings.sources} sources x {settings.samples}), such as '
      f'{max(1, round(num_samples / per_phase)) * per_phase}'
    )
  return num_samples // per_phase

"""Rollouts: sources in, the policy's own candidates with rewards and features out."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from rest_jax.data import batches, group_store, source_stream
from rest_jax.models import t5
from rest_jax.sampling import draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, grow
from rest_jax.stages import held_out as held_out_lib
from rest_jax.stages import progress as progress_lib
from rest_jax.training import mesh as mesh_lib
from rest_jax.training import objectives, online, online_objectives

# Phases stand in the place of Grow steps in the identities of their samples, above
# all numbers that a Grow has, so that no two share their random numbers.
FIRST_STEP = 2**30
COUNTED = ('samples', 'distinct', 'tokens', 'unfinished')


@dataclasses.dataclass(frozen=True)
class RolloutSettings:
  """How many candidates a phase draws, and how often it learns from them.

  Attributes:
    sources: S, sources in a phase.
    samples: N, candidates of each; they are one group.
    num_epochs: passes over a phase's candidates.
    batch_size: sources in an update; S is a multiple of it.
    decoding: how candidates are drawn.

  Raises:
    ValueError: a number that is not positive, an S that is not a multiple of
      batch_size, or a decoding whose draws are not the policy's own.
  """

  sources: int
  samples: int
  num_epochs: int
  batch_size: int
  decoding: draws.Decoding

  def __post_init__(self) -> None:
    for name in ('sources', 'samples', 'num_epochs', 'batch_size'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name}={getattr(self, name)} must be at least 1')
    if self.sources % self.batch_size:
      raise ValueError(
        f'a phase of {self.sources} sources must be a multiple of batch_size='
        f'{self.batch_size}, the sources in an update'
      )
    if self.decoding != draws.Decoding(temperature=1.0):
      raise ValueError(
        f'online learners need candidates of the policy itself, and {self.decoding} '
        'draws from another distribution than the one whose log-probabilities are '
        'recorded: use draws.Decoding(temperature=1.0)'
      )

  @property
  def updates(self) -> int:
    """Updates in a phase."""
    return self.num_epochs * self.sources // self.batch_size


class Rollouts:
  """Makes the phases of `training.online.fit`.

  Args:
    work: the stage's unfinished artifact; its cost counts decoder steps.
    run: on whose mesh to work.
    stream: the sources.
    held_out: for its scorer, normaliser, lengths and vocabulary.
    objective: of `training.online_objectives`.
    config: the policy's shape, without dropout.
    reference: the reference policy's parameters, of the same shape.
    settings: how many candidates, and how often they are learnt from.
    seed: of the draws and of the order of the updates.
    sampler: how sampling is cut.
    advance: of a progress bar of samples.
  """

  def __init__(
    self,
    work: artifact.Work,
    run: artifact.Run,
    *,
    stream: source_stream.SourceStream,
    held_out: held_out_lib.HeldOut,
    objective: online_objectives.OnlineObjective,
    config: t5.T5Config,
    reference: Any,
    settings: RolloutSettings,
    seed: int,
    sampler: sampler_lib.SamplerSettings,
    advance: progress_lib.Advance,
  ):
    self._work, self._run, self._stream = work, run, stream
    self._held_out, self._objective = held_out, objective
    self._config, self._reference = config, reference
    self._settings, self._seed, self._sampler = settings, seed, sampler
    self._advance = advance
    self._note = ''
    self._counts = sampler_lib.Counts()
    self._annotate = annotate_fn(objective, config, run.mesh, run.rules)
    self._advantages = jax.jit(objective.advantages)

  def __call__(self, params: Any, phase: int) -> online.Phase:
    """Draws, scores and annotates the candidates of a phase."""
    groups = self._sample(self._objective.policy(params), phase)
    rewards = self._held_out.rewards(groups)
    features = self._features(params, groups, rewards)
    drawn = grow.count_candidates(groups)
    mean_reward = float(np.mean(features['rewards'], dtype=np.float64))
    self._note = f'reward {mean_reward:.3f}'
    self._work.save_cost()
    return online.Phase(
      self._batches(features, phase),
      {
        'rollout_reward': mean_reward,
        'rollout_kl_to_bc': _mean_divergence(features),
        'samples': drawn['candidates'],
        **{name: drawn[name] for name in COUNTED[1:]},
      },
    )

  def _sample(self, params: Any, phase: int) -> list[group_store.Group]:
    held_out, settings = self._held_out, self._settings
    draw = sampler_lib.Sampler(
      params,
      self._config,
      held_out.vocabulary,
      mesh=self._run.mesh,
      source_length=held_out.source_length,
      target_length=held_out.target_length,
      decoding=settings.decoding,
      seed=self._seed,
      grow_step=FIRST_STEP + phase,
      settings=self._sampler,
    )
    sources = self._stream.take(phase)
    drawn = {}
    for row, group in draw.sample(sources, settings.samples):
      drawn[row] = group
      self._advance(settings.samples, self._note)
    self._counts.steps += draw.counts.steps
    self._counts.rows += draw.counts.rows
    self._work.count(decoder_steps=self._counts.steps, decoder_rows=self._counts.rows)
    return [drawn[row] for row in range(len(sources))]

  def _features(
    self, params: Any, groups: list[group_store.Group], rewards: list[np.ndarray]
  ) -> dict[str, np.ndarray]:
    """Features of the whole phase, on the host; networks see batch_size rows."""
    rows = self._settings.batch_size
    parts = []
    for start in range(0, len(groups), rows):
      batch = batches.group_batch(
        groups[start : start + rows],
        samples=self._settings.samples,
        source_length=self._held_out.source_length,
        target_length=self._held_out.target_length,
        rewards=rewards[start : start + rows],
        log_probs=True,
      )
      placed = mesh_lib.put_batch(self._run.mesh, batch)
      found = self._annotate(params, placed, self._reference)
      parts.append(batch | mesh_lib.fetch(found))
    features = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return features | mesh_lib.fetch(self._advantages(features))

  def _batches(
    self, features: Mapping[str, np.ndarray], phase: int
  ) -> Iterator[dict[str, np.ndarray]]:
    """Each epoch's updates, whole groups in an order of its own."""
    settings = self._settings
    rng = np.random.default_rng((self._seed, phase))
    for _ in range(settings.num_epochs):
      order = rng.permutation(settings.sources)
      for start in range(0, settings.sources, settings.batch_size):
        rows = order[start : start + settings.batch_size]
        yield {key: value[rows] for key, value in features.items()}


def annotate_fn(
  objective: online_objectives.OnlineObjective,
  config: t5.T5Config,
  mesh: jax.sharding.Mesh,
  rules: mesh_lib.Rules,
) -> Any:
  """The jitted (params, batch, reference) -> features of an objective's `annotate`."""

  def annotated(
    params: Any, batch: Mapping[str, jax.Array], reference: Any
  ) -> dict[str, jax.Array]:
    with mesh_lib.sharding_context(mesh, rules):
      known = {**batch, objectives.REFERENCE: reference}
      return objective.annotate(params, known, config)

  return jax.jit(annotated)


def _mean_divergence(features: Mapping[str, np.ndarray]) -> float:
  """KL(policy || reference) in nats a candidate, estimated from those drawn."""
  log_ratio = features['behaviour_log_probs'] - features['reference_log_probs']
  total = np.sum(features['decoder_loss_weights'] * log_ratio, dtype=np.float64)
  return float(total / max(features['keep'].sum(), 1))


def curves_by_samples(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """The history with its counts added up: how many had been drawn by each line."""
  totals = dict.fromkeys(COUNTED, 0)
  lines = []
  for line in history:
    for name in COUNTED:
      totals[name] += int(line.get(name, 0))
    lines.append(line | totals)
  return lines

"""How good a policy is on held-out sources: samples, rewards, greedy outputs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rest_jax.data import buckets, group_store, vocabularies
from rest_jax.models import t5
from rest_jax.sampling import beam, draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, fingerprint, score

# Stands in the place of a Grow step in the identities of held-out samples, so that
# every policy is evaluated with the same random numbers, and none with a Grow's.
EVALUATION_STEP = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class HeldOut:
  """Held-out sources with all that is needed to judge a policy on them.

  Attributes:
    groups: the sources, each with its reference.
    vocabulary: of the policies.
    scorer: groups -> rewards, the reward model.
    normaliser: rewards -> [0, 1], that of the first Grow.
    mesh: the devices.
    num_samples: candidates for each source.
    source_length, target_length: the most tokens.
    decoding: how candidates are drawn.
    seed: of the draws.
    settings: how the sampler cuts its work.
  """

  groups: list[group_store.Group]
  vocabulary: vocabularies.Vocabulary
  scorer: score.Scorer
  normaliser: Any
  mesh: jax.sharding.Mesh
  num_samples: int
  source_length: int
  target_length: int
  decoding: draws.Decoding
  seed: int
  settings: sampler_lib.SamplerSettings

  def sample(self, params: Any, config: t5.T5Config) -> list[group_store.Group]:
    """Draws candidates for every held-out source."""
    return self._draw(params, config, self.decoding, self.num_samples)

  def greedy(self, params: Any, config: t5.T5Config) -> list[group_store.Group]:
    """Decodes every held-out source greedily: groups of one candidate."""
    return self._draw(params, config, draws.GREEDY, 1)

  def beam_search(
    self, params: Any, config: t5.T5Config, beams: int
  ) -> list[group_store.Group]:
    """Searches the best candidate of every held-out source: groups of one."""
    search = beam.BeamSearch(
      params,
      config,
      self.vocabulary,
      mesh=self.mesh,
      source_length=self.source_length,
      target_length=self.target_length,
      beams=beams,
      batch_size=beam.sources_together(self.mesh, self.settings, beams),
    )
    return search.search(self.groups)

  def rewards(self, samples: list[group_store.Group]) -> list[np.ndarray]:
    """Returns normalised rewards, [samples] float32 per group."""
    return [self.normaliser(values) for values in self.scorer(samples)]

  def mean_reward(self, params: Any, config: t5.T5Config) -> dict[str, float]:
    """The evaluation that Improve is stopped and chosen by."""
    rewards = self.rewards(self.sample(params, config))
    means = [values.mean(dtype=np.float64) for values in rewards]
    return {'reward': float(np.mean(means))}

  def _draw(
    self,
    params: Any,
    config: t5.T5Config,
    decoding: draws.Decoding,
    num_samples: int,
  ) -> list[group_store.Group]:
    sampler = sampler_lib.Sampler(
      params,
      config,
      self.vocabulary,
      mesh=self.mesh,
      source_length=self.source_length,
      target_length=self.target_length,
      decoding=decoding,
      seed=self.seed,
      grow_step=EVALUATION_STEP,
      settings=self.settings,
    )
    return sampler.sample_in_order(self.groups, num_samples)


def load(
  run: artifact.Run,
  *,
  corpus: artifact.Artifact,
  reward_model: artifact.Artifact,
  rewards: artifact.Artifact,
  scorer: Any = None,
  split: str,
  num_sources: int | None,
  num_samples: int,
  task_feature_lengths: Mapping[str, int],
  decoding: draws.Decoding,
  seed: int,
  settings: sampler_lib.SamplerSettings,
) -> HeldOut:
  """Reads a corpus's split, the reward model and the normaliser.

  Args:
    run: the MODEL_DIR in use.
    corpus: whose `split` is held out.
    reward_model: the scorer, unless `scorer` is given.
    rewards: the first Grow's score, which holds the normaliser.
    scorer: another scorer in the reward model's place.
    split: such as 'validation'.
    num_sources: the first so many; None takes all.
    num_samples, task_feature_lengths, decoding, seed, settings: see HeldOut.

  Raises:
    ValueError: `rewards` come from another scorer.
  """
  source_length, target_length = buckets.feature_lengths(task_feature_lengths)
  scored_by = rewards.record['params']['scorer']
  if fingerprint.describe(scorer) != scored_by:
    raise ValueError(
      f'{rewards.name} was scored by {scored_by or "the reward model"}, but held-out '
      f'samples would be by {scorer or "the reward model"}, which its normaliser does '
      'not fit. Bind the same scorer to the stages score, improve and evaluate'
    )
  groups: list[group_store.Group] = []
  for group in group_store.iterate_groups(corpus.path / split):
    if num_sources is not None and len(groups) >= num_sources:
      break
    groups.append(group)
  return HeldOut(
    groups=groups,
    vocabulary=vocabularies.Vocabulary.load(corpus.path / 'vocabulary.model'),
    scorer=scorer
    or score.load_reward_model(
      reward_model,
      run,
      task_feature_lengths=task_feature_lengths,
    ),
    normaliser=score.load_normaliser(rewards),
    mesh=run.mesh,
    num_samples=num_samples,
    source_length=source_length,
    target_length=target_length,
    decoding=decoding,
    seed=seed,
    settings=settings,
  )

"""What each stage of a run holds on a device.

From shapes and shardings alone: nothing is allocated and nothing compiled. Counted
are the arrays that a stage holds all along. Activations, and what the compiler sets
aside, are not: of a large batch they may be the larger part.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rest_jax.data import buckets, vocabularies
from rest_jax.models import heads, reward, t5
from rest_jax.planning import arithmetic, samplings, shapes
from rest_jax.rewards import inputs
from rest_jax.stages import artifact, policies
from rest_jax.training import mesh as mesh_lib

# The modules that stages train, and the parameter that says how many candidates a
# row of a batch has room for.
TRAINED: Mapping[str, tuple[Any, str | None]] = {
  'supervise': (t5.T5, None),
  'train_reward': (reward.RewardT5, 'max_samples'),
  'train_value': (heads.ScalarHeadT5, 'max_samples'),
  'improve': (t5.T5, 'samples_per_row'),
  'online': (t5.T5, None),
}
# Those of them that sample meanwhile, and score what they sampled.
_SAMPLE_TOO = ('improve', 'online')
# Those that sample from a finished policy.
_SAMPLE = ('grow', 'evaluate', 'best_of_n', 'probe')


@dataclasses.dataclass(frozen=True)
class Memory:
  """What one device holds during a stage, in bytes.

  Attributes:
    parameters: of the model at work.
    optimiser: its state.
    gradients: of a step; twice where they are added up over microbatches.
    others: the best parameters so far, and the models that the loss or the
      evaluation reads.
    cache: of the sampler's lanes at their full lengths.
    trained_bytes, checkpoint_bytes: on disk, of the trained model and of one
      checkpoint of its training; all devices together.
    flops: of a training step, all devices together: the matrix products of the step
      as it is traced (recomputation included), nothing else; None where unknown.
  """

  parameters: int
  optimiser: int = 0
  gradients: int = 0
  others: int = 0
  cache: int = 0
  trained_bytes: int = 0
  checkpoint_bytes: int = 0
  flops: int | None = None

  @property
  def total(self) -> int:
    """The most that is held at once; a step's gradients and the cache take turns."""
    held = self.parameters + self.optimiser + self.others
    return held + max(self.gradients, self.cache)


def by_stage(run: artifact.Run) -> dict[str, Memory]:
  """The memory of each planned or finished stage that works on devices, by name.

  Args:
    run: after its algorithm has gone through it, as a dry run.

  Raises:
    ValueError: the mesh does not leave each host a copy of the policy.
  """
  entries = {entry.artifact.name: entry for entry in run.history}
  alone = mesh_lib.local_mesh(run.mesh)  # hosts sample and score apart, or one alone
  found: dict[str, Memory] = {}
  for name, entry in entries.items():
    stage = entry.artifact.stage
    config = model_config(entry, entries)
    if config is None:
      continue
    if stage in TRAINED:
      found[name] = _training(run, entry, entries, config)
    elif stage in _SAMPLE and entry.params['num_samples']:
      found[name] = _sampling(run, alone, entry, entries, config)
    elif stage in ('score', 'probe') and 'reward_model' in entry.inputs:
      scorer = shapes.params(reward.RewardT5, config, alone, run.rules)
      scorer = shapes.quantised(scorer, entry.params.get('quantisation'))
      found[name] = Memory(shapes.device_bytes(scorer))
  return found


def misfits(run: artifact.Run) -> list[str]:
  """What the mesh does not divide, in one sentence each, with the remedy.

  Args:
    run: after its algorithm has gone through it, as a dry run.
  """
  try:
    alone = mesh_lib.batch_shards(mesh_lib.local_mesh(run.mesh))
  except ValueError:
    alone = 1  # `by_stage` says what is wrong
  found: dict[str, list[str]] = {}  # by what is wrong, the artifacts
  for entry in run.history:
    together = entry.teamwork == 'together'
    shards = mesh_lib.batch_shards(run.mesh) if together else alone
    parts = f'data x fsdp = {shards} devices'
    rows, lanes = _batch_size(entry), entry.cut.get('sampler')
    cut = shards * entry.cut.get('num_microbatches', 1)
    wrong = []
    if rows is not None and rows % cut:
      micro = f' x {cut // shards} microbatches' if cut > shards else ''
      near = max(cut, round(rows / cut) * cut)
      wrong.append(f'batch_size={rows} is no multiple of {parts}{micro}: {near} is')
    if lanes is not None and lanes.batch_size % shards:
      near = max(shards, round(lanes.batch_size / shards) * shards)
      wrong.append(
        f'SamplerSettings.batch_size={lanes.batch_size} is no multiple of {parts}: '
        f'{near} is'
      )
    for problem in wrong:
      found.setdefault(problem, []).append(entry.artifact.name)
  return [f'{", ".join(names)}: {problem}' for problem, names in found.items()]


def _batch_size(entry: artifact.HistoryEntry) -> int | None:
  """Sources in a training step; None where a stage does not train."""
  if entry.artifact.stage not in TRAINED:
    return None
  if entry.artifact.stage == 'online':
    return int(entry.params['rollout'].batch_size)
  return int(entry.params['batch_size'])


def model_config(
  entry: artifact.HistoryEntry, entries: Mapping[str, artifact.HistoryEntry]
) -> t5.T5Config | None:
  """The shape of the model that a stage works with: its own, or its policy's.

  None where no stage of the run says it.
  """
  seen = set()
  while entry.artifact.name not in seen:
    seen.add(entry.artifact.name)
    if isinstance(config := entry.params.get('config'), t5.T5Config):
      return config
    for key in ('policy', 'reward_model', 'samples'):
      before = entry.inputs.get(key)
      if before is not None and before.name in entries:
        entry = entries[before.name]
        break
  return None


def reward_lengths(
  entry: artifact.HistoryEntry, entries: Mapping[str, artifact.HistoryEntry]
) -> dict[str, int]:
  """The `task_feature_lengths` of the reward model that a stage trains or scores with.

  Its encoder may read more than the source (`rewards.inputs`); where no vocabulary is
  finished, what it adds is counted in bytes, of which no text has fewer than tokens.
  """
  lengths = {**entry.params, **entry.cut}['task_feature_lengths']
  if entry.artifact.stage != 'train_reward':
    trained = entries.get(entry.inputs['reward_model'].name)
    if trained is None:
      return dict(lengths)
    entry = trained
  reward_input = entry.params.get('reward_input', inputs.Source())
  policy = entry.inputs['policy']
  vocabulary: Any = _Bytes()
  if policy.finished:
    vocabulary = vocabularies.Vocabulary.load(policy.path / policies.VOCABULARY_FILE)
  source_length, target_length = buckets.feature_lengths(lengths)
  longest = reward_input.longest(vocabulary, source_length, target_length)
  return {'inputs': longest, 'targets': target_length}


class _Bytes:
  """Stands for a vocabulary of which only the most tokens of a text are wanted."""

  def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
    """A token for each byte, one for the word's beginning, and EOS."""
    return [np.full(len(text.encode()) + 2, vocabularies.EOS_ID) for text in texts]


def _sampling(
  run: artifact.Run,
  mesh: jax.sharding.Mesh,
  entry: artifact.HistoryEntry,
  entries: samplings.Entries,
  config: t5.T5Config,
) -> Memory:
  """Of a finished policy at work, with what judges it: the reward model, BC."""
  policy = shapes.params(t5.T5, config, mesh, run.rules)
  others = 0
  if 'reward_model' in entry.inputs:
    scorer = shapes.params(reward.RewardT5, config, mesh, run.rules)
    others = shapes.device_bytes(scorer)
  if 'bc' in entry.inputs:
    others += shapes.device_bytes(policy)
  sampled_from = shapes.quantised(policy, entry.params.get('quantisation'))
  return Memory(
    shapes.device_bytes(sampled_from),
    others=others,
    cache=_cache_of(mesh, entry, entries, config),
  )


def _training(
  run: artifact.Run,
  entry: artifact.HistoryEntry,
  entries: samplings.Entries,
  config: t5.T5Config,
) -> Memory:
  stage, said = entry.artifact.stage, entry.params
  module, _ = TRAINED[stage]
  model = shapes.params(module, config, run.mesh, run.rules)
  state = shapes.state(
    module, config, said['objective'], said['optimiser'], run.mesh, run.rules
  )
  parameters = shapes.device_bytes(state.params)
  accumulated = 1 + (entry.cut.get('num_microbatches', 1) > 1)
  others = parameters  # the best so far
  cache = 0
  if stage in _SAMPLE_TOO:
    others += shapes.device_bytes(model)  # those that it started from
    cache = _cache_of(run.mesh, entry, entries, config)
    if 'reward_model' in entry.inputs:
      scorer = shapes.params(reward.RewardT5, config, run.mesh, run.rules)
      others += shapes.device_bytes(scorer)
  for need in getattr(said['objective'], 'needs', ()):
    frozen = shapes.params(arithmetic.FROZEN[need], config, run.mesh, run.rules)
    others += shapes.device_bytes(frozen)
  optimiser = shapes.device_bytes(state.opt_state)
  return Memory(
    parameters,
    optimiser=optimiser,
    gradients=parameters * accumulated,
    others=others,
    cache=cache,
    trained_bytes=shapes.whole_bytes(model),
    checkpoint_bytes=2 * shapes.whole_bytes(state.params)
    + shapes.whole_bytes(state.opt_state),
    flops=_flops_of(entry, entries, config),
  )


def _cache_of(
  mesh: jax.sharding.Mesh,
  entry: artifact.HistoryEntry,
  entries: samplings.Entries,
  config: t5.T5Config,
) -> int:
  """Of the lanes of a stage's samplers, the largest; one is there at a time."""
  said = {**entry.params, **entry.cut}
  source_length, length = buckets.feature_lengths(said['task_feature_lengths'])
  settings = said['sampler']
  shares = {sampling.share(settings) for sampling in samplings.of_stage(entry, entries)}
  return max(
    (
      shapes.device_bytes(
        shapes.lanes(
          config,
          mesh,
          settings=settings,
          share=share,
          source_length=source_length,
          length=length,
        )
      )
      for share in shares
    ),
    default=0,
  )


def _flops_of(
  entry: artifact.HistoryEntry, entries: samplings.Entries, config: t5.T5Config
) -> int:
  """Of a step at the longest bucket."""
  said = {**entry.params, **entry.cut}
  module, samples_key = TRAINED[entry.artifact.stage]
  lengths = said['task_feature_lengths']
  if entry.artifact.stage == 'train_reward':
    lengths = reward_lengths(entry, entries)
  longest = buckets.training_buckets(lengths, said.get('bucket_shares', (1.0,)))[-1]
  samples = 1 if samples_key is None else said[samples_key]
  if entry.artifact.stage == 'online':
    samples = said['rollout'].samples
  return arithmetic.step_flops(
    module,
    config,
    said['objective'],
    said['optimiser'],
    (_batch_size(entry), samples, *longest),
    said.get('num_microbatches', 1),
  )

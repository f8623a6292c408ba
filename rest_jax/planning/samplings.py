"""What each stage samples: how many candidates, of how many sources, how often."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rest_jax.sampling import draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, best_of_n

Entries = Mapping[str, artifact.HistoryEntry]


class Sampling(NamedTuple):
  """What one sampler of a stage draws; the sources are None where nothing says it."""

  decoding: draws.Decoding
  num_samples: int  # of a source
  num_sources: int | None  # of one call
  times: float = 1.0  # that so many sources are sampled
  scored: bool = True  # by the stage itself

  def share(self, settings: sampler_lib.SamplerSettings) -> int:
    """Candidates of a slot; those of many sources where their number is not known."""
    many = settings.batch_size * sampler_lib.ROUNDS
    return settings.share_of(self.num_samples, self.num_sources or many)


def of_stage(entry: artifact.HistoryEntry, entries: Entries) -> Iterator[Sampling]:
  """What a stage samples; nothing where it has no sampler."""
  said, stage = entry.params, entry.artifact.stage
  if stage == 'grow':
    yield Sampling(
      said['decoding'], said['num_samples'], num_sources(entry, entries), scored=False
    )
  elif stage in ('improve', 'online'):
    held_out = num_sources(
      entry, entries, split=said['eval_split'], limit=said['num_eval_sources']
    )
    if stage == 'online':
      rollout = said['rollout']
      num_phases = phases(said)
      yield Sampling(rollout.decoding, rollout.samples, rollout.sources, num_phases)
      times = 1 + -(-num_phases // said['eval_period_phases'])
      decoding = said['eval_decoding']
    else:
      times = 1 + said['num_steps'] // said['eval_period_steps']
      decoding = said['decoding']
    yield Sampling(decoding, said['num_eval_samples'], held_out, times)
  elif stage in ('evaluate', 'best_of_n', 'probe') and said['num_samples']:
    sources, times = num_sources(entry, entries), 1.0
    if stage == 'best_of_n' and sources:
      calls = -(-sources // best_of_n.SOURCES_PER_SHARD)
      sources, times = -(-sources // calls), sources / -(-sources // calls)
    yield Sampling(said['decoding'], said['num_samples'], sources, times)
    if stage == 'evaluate':
      yield Sampling(draws.GREEDY, 1, sources, scored=False)


def phases(said: Mapping[str, Any]) -> int:
  """Of `online`, by its parameters."""
  rollout = said['rollout']
  return int(said['num_samples'] // (rollout.sources * rollout.samples))


def num_sources(
  entry: artifact.HistoryEntry,
  entries: Entries,
  *,
  split: str | None = None,
  limit: int | None = None,
) -> int | None:
  """The sources of a split that a stage reads; None where nothing says it.

  Args:
    entry: of the stage.
    entries: of the run, by name.
    split: of the corpus; None is the stage's own parameter `split`.
    limit: the most; None is the stage's own parameter `num_sources`.
  """
  limit = entry.params.get('num_sources') if limit is None else limit
  origin = entry.inputs.get('sources') or entry.inputs.get('corpus')
  found = None
  if origin is not None and origin.name in entries:
    ingested = entries[origin.name]
    split = split or entry.params.get('split', 'train')
    if ingested.artifact.finished:
      found = ingested.artifact.results['splits'][split]['sources']
    else:
      found = getattr(ingested.params.get('corpus'), f'num_{split}', None)
  counts = [n for n in (limit, found) if n is not None]
  return min(counts) if counts else None

"""How large a run's files will be: D_g, rewards, trained models, checkpoints.

What is finished is read; what is not is reckoned from it, from the corpus, or from
what gin says, and each figure says from which.
"""

import dataclasses
from collections.abc import Mapping

from rest_jax.planning import memory
from rest_jax.stages import artifact

# Measured on 2026-11-25 on the Grows of gin_configs/runs/local.gin (10 tokens a
# candidate, N = 4 and 8): Parquet with zstd, less the source's own bytes, 7.6 bytes a
# token with 6 % of duplicates, 5.8 with 21 %, 4.9 with 44 %. The high end, since a
# disk must not run full.
BYTES_A_TOKEN = 7.6
BYTES_A_SOURCE = 160  # there and on Multi30k 140 to 157: texts, tokens, reference
BYTES_A_REWARD = 9.2  # of a candidate: the raw and the normalised reward
# Of a training's checkpoints two are kept while the third is written.
CHECKPOINTS = 3


@dataclasses.dataclass(frozen=True)
class GrowSize:
  """How large a group set is, or will be.

  Attributes:
    sources, samples: how many sources, and N.
    tokens, bytes: of all candidates drawn, and of the Parquet files.
    how: what the figures follow from.

  What is not known is None.
  """

  samples: int
  sources: int | None = None
  tokens: int | None = None
  bytes: int | None = None
  how: str = 'unknown until the corpus is ingested'

  @property
  def candidates(self) -> int | None:
    """Those of the policy; the data's own come on top, one a source."""
    return None if self.sources is None else self.sources * self.samples


def grow_sizes(run: artifact.Run) -> dict[str, GrowSize]:
  """The size of every group set that the run samples, by name.

  Args:
    run: after its algorithm has gone through it, as a dry run.
  """
  found: dict[str, GrowSize] = {}
  for entry in run.history:
    if entry.artifact.stage == 'grow':
      if entry.artifact.finished:
        found[entry.artifact.name] = _finished_size(entry)
      else:
        found[entry.artifact.name] = _expected_size(entry, found)
  return found


def _finished_size(entry: artifact.HistoryEntry) -> GrowSize:
  results = entry.artifact.results
  return GrowSize(
    samples=entry.params['num_samples'],
    sources=results['sources'],
    tokens=results['tokens'],
    bytes=_parquet_bytes(entry.artifact),
    how='finished',
  )


def _expected_size(
  entry: artifact.HistoryEntry, earlier: Mapping[str, GrowSize]
) -> GrowSize:
  said, inputs = entry.params, entry.inputs
  samples, most = said['num_samples'], said['num_sources']
  corpus = inputs.get('sources') or inputs['corpus']
  sources = most
  where = 'gin'
  if corpus.finished:
    split = corpus.results['splits'][said['split']]
    sources = split['sources'] if most is None else min(most, split['sources'])
    where = corpus.name
  if sources is None:
    return GrowSize(samples)
  length, from_where = said['target_length'], 'the longest that gin allows'
  source_bytes = float(BYTES_A_SOURCE)
  if corpus.finished:
    if split['target_tokens']:
      length = split['target_tokens'] / split['sources']
      from_where = f"the mean of {corpus.name}'s references"
    part = f'{said["split"]}/'
    source_bytes = _parquet_bytes(corpus, part) / max(1, split['sources'])
  known = [size for size in earlier.values() if size.how == 'finished']
  if known and known[-1].tokens and known[-1].candidates:
    length = known[-1].tokens / known[-1].candidates
    from_where = 'the mean of the last samples'
  tokens = sources * samples * length
  return GrowSize(
    samples,
    sources=sources,
    tokens=round(tokens),
    bytes=round(sources * source_bytes + tokens * BYTES_A_TOKEN),
    how=f'sources of {where}; {length:.1f} tokens a candidate, {from_where}; '
    f'{BYTES_A_TOKEN} bytes a token',
  )


def _parquet_bytes(found: artifact.Artifact, prefix: str = '') -> int:
  files: Mapping[str, int] = found.record['files']
  return sum(
    size
    for name, size in files.items()
    if name.startswith(prefix) and name.endswith('.parquet')
  )


def disk_bytes(
  run: artifact.Run, needs: Mapping[str, memory.Memory]
) -> tuple[int, list[str]]:
  """Bytes that MODEL_DIR will grow by, and the artifacts of unknown size.

  Group sets, rewards and trained models that are not there yet, and the checkpoints of
  the one training that has the most of them at once. Reports and evaluations are small.

  Args:
    run: after its algorithm has gone through it, as a dry run.
    needs: of `memory.by_stage`.
  """
  sizes = grow_sizes(run)
  total, checkpoints, unknown = 0.0, 0, []
  for entry in run.history:
    name, stage = entry.artifact.name, entry.artifact.stage
    if entry.artifact.finished:
      continue
    if stage == 'grow':
      total += sizes[name].bytes or 0
      unknown += [name] * (sizes[name].bytes is None)
    elif stage == 'score' and entry.inputs['samples'].name in sizes:
      grown = sizes[entry.inputs['samples'].name]
      with_data = (grown.candidates or 0) + (grown.sources or 0)
      total += with_data * BYTES_A_REWARD
    elif name in needs and needs[name].trained_bytes:
      total += needs[name].trained_bytes
      checkpoints = max(checkpoints, needs[name].checkpoint_bytes)
  return round(total) + CHECKPOINTS * checkpoints, unknown

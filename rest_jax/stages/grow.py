"""Grow: sample N candidates for every source from the latest policy.

The artifact is the group set D_g: the policy's samples united with the data.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rest_jax.data import buckets, columns, group_store
from rest_jax.data import shards as shards_lib
from rest_jax.models import t5
from rest_jax.sampling import draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, policies
from rest_jax.stages import progress as progress_lib

VERSION = 1


def grow(
  run: artifact.Run,
  *,
  name: str,
  corpus: artifact.Artifact,
  policy: artifact.Artifact,
  sources: artifact.Artifact | None = None,
  split: str = 'train',
  grow_step: int = 1,
  num_samples: int = 8,
  num_sources: int | None = None,
  task_feature_lengths: Mapping[str, int],
  decoding: draws.Decoding = draws.Decoding(),
  with_data: bool = True,
  seed: int = 0,
  sampler: sampler_lib.SamplerSettings = sampler_lib.SamplerSettings(),
) -> artifact.Artifact:
  """Samples from a policy into a group set.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact, such as 'grow_1'.
    corpus: D; its sources are sampled unless `sources` is given.
    policy: whose samples to draw.
    sources: another ingested corpus to take sources from (monolingual text,
      x ~ p(x)). D then follows as groups of its own.
    split: of the corpus.
    grow_step: part of the samples' identity; two Grows differ by it.
    num_samples: N, candidates per source.
    num_sources: the first so many sources only; None takes all.
    task_feature_lengths: T5X's {'inputs': ..., 'targets': ...}; the second is the
      most tokens of a candidate, EOS included.
    decoding: temperature, top-k, top-p; the paper's temperature is 0.8.
    with_data: unite the samples with the data; without, only samples are kept.
    seed: of the draws.
    sampler: how the work is cut; changes no sample.

  Returns:
    A group set; its results count candidates, tokens, duplicates, unfinished.
  """
  if num_samples < 1:
    raise ValueError(f'num_samples={num_samples} must be at least 1')
  source_length, target_length = buckets.feature_lengths(task_feature_lengths)
  params = {
    'split': split,
    'grow_step': grow_step,
    'num_samples': num_samples,
    'num_sources': num_sources,
    'target_length': target_length,
    'decoding': decoding,
    'with_data': with_data,
    'seed': seed,
  }

  def build(work: artifact.Work) -> None:
    model = policies.load_model(policy.path, t5.T5, run)
    draw = sampler_lib.Sampler(
      model.params,
      model.config,
      model.vocabulary,
      mesh=run.mesh,
      source_length=source_length,
      target_length=target_length,
      decoding=decoding,
      seed=seed,
      grow_step=grow_step,
      settings=sampler,
    )
    grown = shards_lib.list_shards((sources or corpus).path / split)
    shards = _cut(grown, num_sources)
    appended = []
    if sources is not None and with_data:
      appended = shards_lib.list_shards(corpus.path / split)
    num_shards = len(shards) + len(appended)
    total = sum(rows for _, rows in shards) * num_samples
    with progress_lib.progress(name, total, unit='samples') as advance:
      for index, (shard, rows) in enumerate(shards):
        path = shards_lib.shard_path(work.path, index, num_shards)
        if path.exists():
          advance(rows * num_samples, note='(done before)')
          continue
        groups = group_store.read_groups(shard, rows=np.arange(rows))
        with work.devices():
          samples = _sample(draw, groups, num_samples, advance)
        if with_data:
          samples = [_unite(*pair) for pair in zip(samples, groups, strict=True)]
        group_store.write_groups(path, samples)
        work.save_cost()
    for index, shard in enumerate(appended, start=len(shards)):
      path = shards_lib.shard_path(work.path, index, num_shards)
      if not path.exists():
        group_store.write_groups(path, group_store.read_groups(shard))
    work.results.update(_count(work))

  inputs = {'corpus': corpus, 'policy': policy, 'sources': sources}
  return run.stage(
    'grow',
    name=name,
    version=VERSION,
    params=params,
    inputs=inputs,
    build=build,
    size=_planned_size(
      sources or corpus, split, num_sources, num_samples, target_length
    ),
  )


def _planned_size(
  sources: artifact.Artifact,
  split: str,
  num_sources: int | None,
  num_samples: int,
  target_length: int,
) -> dict[str, Any]:
  """What the plan says: samples, and the bytes of their tokens at full length."""
  counts = [] if num_sources is None else [num_sources]
  if sources.finished:
    counts.append(sources.results['splits'][split]['sources'])
  if not counts:
    return {'samples a source': num_samples}
  samples = min(counts) * num_samples
  bytes_a_token = 8  # int32 and the float32 log-probability, before compression
  return {'samples': samples, 'bytes at most': samples * target_length * bytes_a_token}


def _cut(shards: Sequence, num_sources: int | None) -> list[tuple]:
  """Pairs each shard with how many of its first rows to take."""
  cut, left = [], num_sources
  for shard in shards:
    rows = columns.num_rows(shard)
    rows = rows if left is None else min(rows, left)
    left = None if left is None else left - rows
    if rows:
      cut.append((shard, rows))
  return cut


def _sample(
  draw: sampler_lib.Sampler,
  groups: Sequence[group_store.Group],
  num_samples: int,
  advance: progress_lib.Advance,
) -> list[group_store.Group]:
  """Samples one shard, its groups in their own order again."""
  samples: list[group_store.Group | None] = [None] * len(groups)
  for row, group in draw.sample(groups, num_samples):
    samples[row] = group
    advance(num_samples)
  return [group for group in samples if group is not None]


def _unite(samples: group_store.Group, data: group_store.Group) -> group_store.Group:
  """Appends the data's candidates to the policy's.

  The behaviour policy did not draw them: their log-probabilities are NaN.
  """
  unknown = tuple(np.full(len(tokens), np.nan, np.float32) for tokens in data.tokens)
  return dataclasses.replace(
    samples,
    texts=samples.texts + data.texts,
    tokens=samples.tokens + data.tokens,
    token_log_probs=(samples.token_log_probs or ()) + unknown,
    finished=np.concatenate([samples.finished, data.finished]),
    origins=samples.origins + data.origins,
  )


def _count(work: artifact.Work) -> dict[str, float]:
  """Counts the candidates of origin 'model' in a finished group set."""
  counts = dict.fromkeys(
    ('sources', 'candidates', 'data_candidates', 'tokens', 'unfinished', 'distinct'), 0
  )
  for group in group_store.iterate_groups(work.path):
    drawn = [i for i, origin in enumerate(group.origins) if origin == 'model']
    counts['sources'] += bool(drawn)
    counts['candidates'] += len(drawn)
    counts['data_candidates'] += len(group.origins) - len(drawn)
    counts['tokens'] += sum(len(group.tokens[i]) for i in drawn)
    counts['unfinished'] += sum(not group.finished[i] for i in drawn)
    counts['distinct'] += len({group.tokens[i].tobytes() for i in drawn})
  candidates = max(counts['candidates'], 1)
  return counts | {
    'mean_length': counts['tokens'] / candidates,
    'unfinished_fraction': counts['unfinished'] / candidates,
    'duplicate_fraction': 1 - counts['distinct'] / candidates,
  }

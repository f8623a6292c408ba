"""Grow: sample N candidates for every source from the latest policy.

The artifact is the group set D_g: the policy's samples united with the data.
"""

import collections
import dataclasses
import functools
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from rest_jax.data import buckets, columns, group_store
from rest_jax.data import shards as shards_lib
from rest_jax.models import quantisation as quantisation_lib
from rest_jax.models import t5
from rest_jax.sampling import draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, overlap, policies, shard_blocks
from rest_jax.stages import progress as progress_lib
from rest_jax.training import hosts

VERSION = 1

Counts = collections.Counter[str]


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
  quantisation: quantisation_lib.Int8 | quantisation_lib.Bfloat16 | None = None,
) -> artifact.Artifact:
  """Samples from a policy into a group set.

  The devices wait for no file: while one block of shards (`shard_blocks`) is sampled,
  finished shards are written and the sources of the next block are read. The host
  holds the samples of the block in work, at most as many that wait to be written, and
  the sources of the next block. A kill loses these samples and no more; the finished
  result is, to the bit, the same as without it.

  Several hosts sample apart, each with a copy of the policy on its own devices: a
  block belongs to the host that asks for it first, so that a slow one holds up the
  others for one block at most. How many hosts there are decides nothing else.

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
    quantisation: sample from the policy with kernels of 8 bits, or in bfloat16. That
      is another, near policy; the recorded log-probabilities are its own. None leaves
      it as it is.

  Returns:
    A group set; its results count candidates, tokens, duplicates, unfinished, and
    give the bytes a parameter of a quantised policy.
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
  if quantisation is not None:  # absent otherwise: fingerprints stay what they were
    params['quantisation'] = quantisation

  def build(work: artifact.Work) -> None:
    model = policies.load_model(policy.path, t5.T5, run)
    if quantisation is not None:
      quantised = quantisation_lib.quantise(model.params, quantisation)
      model = model._replace(params=quantised)
      work.results['bytes_a_parameter'] = quantisation_lib.bytes_a_parameter(quantised)
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
    grown = _cut(shards_lib.list_shards((sources or corpus).path / split), num_sources)
    appended = []
    if sources is not None and with_data:
      appended = shards_lib.list_shards(corpus.path / split)
    num_shards = len(grown) + len(appended)
    targets = [
      shards_lib.shard_path(work.path, index, num_shards) for index in range(num_shards)
    ]
    earlier = shards_lib.names(work.path)
    hosts.barrier(f'{name} is seen')  # by all alike, before any writes
    tasks = [
      shard_blocks.Task(shard, rows, target, done=target.name in earlier)
      for (shard, rows), target in zip(grown, targets, strict=False)
    ]
    counts = _sample(work, draw, tasks, num_samples, with_data, sampler)
    pairs = zip(appended, targets[len(grown) :], strict=True)
    left = [(shard, target) for shard, target in pairs if target.name not in earlier]
    for number in hosts.share(f'{name}/data', len(left)):
      shard, target = left[number]
      groups = group_store.read_groups(shard)
      group_store.write_groups(target, groups)
      counts += count_candidates(groups)
    work.results.update(
      _results(counts, [path for path in targets if path.name in earlier])
    )

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
    cut={'task_feature_lengths': dict(task_feature_lengths), 'sampler': sampler},
    teamwork='apart',
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
  work: artifact.Work,
  draw: sampler_lib.Sampler,
  tasks: Sequence[shard_blocks.Task],
  num_samples: int,
  with_data: bool,
  settings: sampler_lib.SamplerSettings,
) -> Counts:
  """Samples and writes the shards of every block that is not done.

  Returns:
    What the shards hold that this host wrote.
  """
  blocks = [
    block
    for block in shard_blocks.blocks(tasks, num_samples, settings)
    if not all(task.done for task in block)
  ]
  sizes = [sum(task.rows for task in block) * num_samples for block in blocks]
  total = sum(task.rows for task in tasks) * num_samples
  done = total - sum(sizes)
  counts: Counts = collections.Counter()
  with (
    progress_lib.progress(work.name, total, unit='samples', done=done) as advance,
    overlap.Writer(limit=max(sizes, default=1)) as writer,
    # Of several hosts none takes a block before it can begin with it.
    overlap.read_ahead(
      shard_blocks.read,
      (blocks[number] for number in hosts.share(f'{work.name}/blocks', len(blocks))),
      ahead=1 if hosts.count() == 1 else 0,
    ) as read,
  ):
    started = time.monotonic()

    def advance_source() -> None:
      work.count(decoder_steps=draw.counts.steps, decoder_rows=draw.counts.rows)
      rate = draw.counts.tokens / max(time.monotonic() - started, 1e-9)
      advance(num_samples, note=f'{rate:,.0f} tokens/s')

    def write(
      path: epath.Path,
      samples: list[group_store.Group],
      data: Sequence[group_store.Group],
    ) -> None:
      if with_data:
        samples = [_unite(*pair) for pair in zip(samples, data, strict=True)]
      group_store.write_groups(path, samples)
      counts.update(count_candidates(samples))
      work.save_cost()

    def finish(
      task: shard_blocks.Task,
      samples: list[group_store.Group],
      data: Sequence[group_store.Group],
    ) -> None:
      writer.put(
        task.target,
        functools.partial(write, task.target, samples, data),
        size=task.rows * num_samples,
      )

    for block, groups in read:
      shard_blocks.sample(
        work,
        draw,
        block,
        groups,
        num_samples,
        advance=advance_source,
        finish=finish,
      )
      del groups
  return counts


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


def count_candidates(groups: Iterable[group_store.Group]) -> Counts:
  """Counts candidates: those of origin 'model' in more detail."""
  counts: Counts = collections.Counter()
  for group in groups:
    drawn = [i for i, origin in enumerate(group.origins) if origin == 'model']
    counts['sources'] += bool(drawn)
    counts['candidates'] += len(drawn)
    counts['data_candidates'] += len(group.origins) - len(drawn)
    counts['tokens'] += sum(len(group.tokens[i]) for i in drawn)
    counts['unfinished'] += sum(not group.finished[i] for i in drawn)
    counts['distinct'] += len({group.tokens[i].tobytes() for i in drawn})
  return counts


def _read_for_count(path: epath.Path) -> Iterator[group_store.Group]:
  """A shard's groups with what `count_candidates` needs, a row group at a time."""
  for start, stop in columns.row_group_ranges(path):
    yield from group_store.read_groups(
      path, columns=['tokens', 'finished', 'origins'], rows=np.arange(start, stop)
    )


def _results(own: Counts, earlier: Sequence[epath.Path]) -> dict[str, float]:
  """What the stage says of a finished group set; all hosts call it.

  Args:
    own: what the shards hold that this host wrote.
    earlier: shards that an earlier attempt wrote; each host reads some of them.
  """
  counts = collections.Counter(own)
  for path in earlier[hosts.index() :: hosts.count()]:
    counts.update(count_candidates(_read_for_count(path)))
    hosts.advance()
  keys = ('sources', 'candidates', 'data_candidates', 'tokens', 'unfinished')
  found = dict.fromkeys((*keys, 'distinct'), 0)
  for text in hosts.gather('counts', json.dumps(counts)):
    found = {key: value + json.loads(text).get(key, 0) for key, value in found.items()}
  candidates = max(found['candidates'], 1)
  return found | {
    'mean_length': found['tokens'] / candidates,
    'unfinished_fraction': found['unfinished'] / candidates,
    'duplicate_fraction': 1 - found['distinct'] / candidates,
  }

"""Which shards of sources are sampled by one call, and that call.

A call of the sampler ends with lanes that idle, since nothing waits any more. Small
shards are therefore sampled several at a time; their files do not depend on it.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from etils import epath

from rest_jax.data import group_store
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact

Finish = Callable[['Task', list[group_store.Group], Sequence[group_store.Group]], None]


@dataclasses.dataclass(frozen=True)
class Task:
  """One shard to sample."""

  source: epath.Path
  rows: int  # the first so many of its rows
  target: epath.Path
  done: bool = False  # an earlier attempt wrote it


def blocks(
  tasks: Sequence[Task], num_samples: int, settings: sampler_lib.SamplerSettings
) -> list[list[Task]]:
  """Cuts the shards into runs of consecutive ones, each for one call.

  A run has at most `settings.sources_of_call` sources, or is one shard alone. It
  depends on the whole plan and never on what is done already.
  """
  most = settings.sources_of_call(num_samples)
  found: list[list[Task]] = []
  left = 0
  for task in tasks:
    if not found or task.rows > left:
      found.append([])
      left = most
    found[-1].append(task)
    left -= task.rows
  return found


def read(block: Sequence[Task]) -> list[group_store.Group]:
  """Reads the sources of a block, one shard after the other."""
  return [
    group
    for task in block
    for group in group_store.read_groups(task.source, rows=np.arange(task.rows))
  ]


def sample(
  work: artifact.Work,
  draw: sampler_lib.Sampler,
  block: Sequence[Task],
  groups: Sequence[group_store.Group],
  num_samples: int,
  *,
  advance: Callable[[], None],
  finish: Finish,
) -> None:
  """Samples a block; every shard that is not done is handed on when it is complete.

  Shards that are done are sampled all the same: what a call decodes together decides
  how its arrays are padded, and with that the last bits of the log-probabilities. So
  the others are, to the bit, what they would have been without the interruption.

  Args:
    work: whose device time this is.
    draw: the sampler.
    block: the shards.
    groups: their sources, from `read`.
    num_samples: candidates of each.
    advance: called after every source.
    finish: called with a shard, its samples in the order of its sources, and its
      sources. Nothing here holds the samples afterwards.
  """
  stops = np.cumsum([task.rows for task in block])
  owners = np.repeat(np.arange(len(block)), [task.rows for task in block])
  wanted = [not task.done for task in block]
  drawn: list[dict[int, group_store.Group]] = [{} for _ in block]
  stream = draw.sample(groups, num_samples)
  while True:
    with work.devices():  # not while the caller waits for its files
      found = next(stream, None)
    if found is None:
      break
    row, samples = found
    place = int(owners[row])
    advance()
    if wanted[place]:
      drawn[place][row] = samples
      if len(drawn[place]) == block[place].rows:
        span = range(stops[place] - block[place].rows, stops[place])
        finish(
          block[place],
          [drawn[place].pop(row) for row in span],
          groups[span.start : span.stop],
        )
        wanted[place] = False
    del found, samples
  assert not any(wanted), 'the sampler left sources out'

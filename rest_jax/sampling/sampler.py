"""The sampler around the decoder loops: groups in, groups with candidates out."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from rest_jax.data import group_store, vocabularies
from rest_jax.models import cpu_products, t5
from rest_jax.sampling import cpu_cores, decoder, draws, loops, tickets
from rest_jax.sampling import flow as flow_lib
from rest_jax.training import mesh as mesh_lib

# Candidates are cut into shares so small that each slot takes so many of them, one
# after the other: with fewer, slots would idle towards the end.
ROUNDS = 3
# So many candidates of a slot count as a ticket, even if more share it: what a call of
# Grow holds, and a kill loses, grows no further with N.
CANDIDATES_OF_A_TICKET = 32
# A core of a CPU gets a loop of its own as long as each has so many rows.
ROWS_OF_A_CORE = 64


@dataclasses.dataclass(frozen=True)
class SamplerSettings:
  """How the sampler cuts its work; no value here changes the samples.

  Attributes:
    batch_size: sources decoded together, the lanes; a multiple of the mesh's data
      and fsdp axes. On two CPU cores a step of 256 rows has 5 to 25 % more rows a
      second than one of 128 (the paper's IWSLT shape and a toy), one of 512 none.
    slots: rows of the decoder for each of them. One is best where arithmetic is
      dear (a CPU); more read a source's keys and values once for several rows.
    share: the most candidates of a slot. They share the decoder steps of their
      common prefixes: with N = 100, a share of 100 takes 12 % fewer rows than one of
      25. With N = 1000 what each step does for all candidates of a slot outweighs
      that from 128 on.
    tickets: that a lane works off in a call of Grow, at most; a ticket is the share of
      one source, up to 32 candidates for each slot. Lanes idle for about half a
      ticket's time at the end of a call. A call is what several hosts share out and
      what a lost one loses: fewer suit a large pod, or one whose hosts come and go
      (benchmarks/README.md).
    loops: on a CPU: so many decoder loops run side by side, each on a thread and a
      core, with its part of the lanes and of the sources. None is one for each core
      as long as each has 64 rows. On two cores two loops take little more than half
      of the time of one (benchmarks/README.md). Elsewhere, and on a mesh of several
      devices, there is one.
  """

  batch_size: int = 256
  slots: int = 1
  share: int = 128
  tickets: int = 32
  loops: int | None = None

  def __post_init__(self) -> None:
    for name, value in dataclasses.asdict(self).items():
      if value is not None and value < 1:
        raise ValueError(f'{name}={value} must be at least 1')
    if self.loops and self.loops > self.batch_size:
      raise ValueError(
        f'loops={self.loops} must not be more than batch_size={self.batch_size}: each '
        'has lanes of its own'
      )

  def loops_on(self, mesh: jax.sharding.Mesh) -> int:
    """How many loops run side by side on a mesh.

    Raises:
      ValueError: several are asked for, and the mesh is not one CPU device.
    """
    if mesh.size > 1 or mesh.devices.item().platform != 'cpu':
      if self.loops and self.loops > 1:
        raise ValueError(
          f'SamplerSettings.loops={self.loops}: several loops are for the cores of one '
          f'CPU device, and the mesh is {mesh.devices.flat[0].device_kind} x '
          f'{mesh.size}; leave loops out, lanes are spread over devices'
        )
      return 1
    most = min(self.batch_size, self.batch_size * self.slots // ROWS_OF_A_CORE)
    return self.loops or max(1, min(cpu_cores.count(), most))

  def sources_of_call(self, num_samples: int) -> int:
    """The most sources of a call of Grow: 8,192 of 32 candidates, 2,048 of 100."""
    share = min(self.share, CANDIDATES_OF_A_TICKET)
    tickets_of_a_source = -(-num_samples // (self.slots * share))
    return self.tickets * self.batch_size // tickets_of_a_source

  def share_of(self, num_samples: int, num_sources: int) -> int:
    """The candidates of a slot: a source's spread evenly, every slot used often."""
    enough = num_samples * num_sources // (ROUNDS * self.batch_size * self.slots)
    most = min(self.share, -(-num_samples // self.slots), max(1, enough))
    return -(-num_samples // -(-num_samples // most))


@dataclasses.dataclass
class Counts:
  """What sampling cost, for reports and benchmarks.

  Attributes:
    steps: decoder steps, of all rows each.
    rows: decoder rows computed, idle ones included.
    tokens: of the candidates, EOS included.
    candidates: drawn.
  """

  steps: int = 0
  rows: int = 0
  tokens: int = 0
  candidates: int = 0


class Sampler:
  """Draws candidates from one policy.

  Args:
    params: the policy's parameters, on the mesh.
    config: the policy's shape.
    vocabulary: to detokenise.
    mesh: sources are spread over its data and fsdp axes.
    source_length: the most tokens of a source, EOS included.
    target_length: the most tokens of a candidate, EOS included.
    decoding: temperature, top-k, top-p, min_tokens.
    seed, grow_step: the run's part of the candidates' identities.
    settings: how the work is cut.

  Attributes:
    counts: what sampling cost so far.
  """

  def __init__(
    self,
    params: Any,
    config: t5.T5Config,
    vocabulary: vocabularies.Vocabulary,
    *,
    mesh: jax.sharding.Mesh,
    source_length: int,
    target_length: int,
    decoding: draws.Decoding,
    seed: int,
    grow_step: int,
    settings: SamplerSettings = SamplerSettings(),
  ):
    shards = mesh_lib.batch_shards(mesh)
    if settings.batch_size % shards:
      raise ValueError(
        f'SamplerSettings.batch_size={settings.batch_size} must be a multiple of the '
        f"mesh's data x fsdp = {shards}"
      )
    self._num_loops = settings.loops_on(mesh)
    if self._num_loops > 1:
      mesh = cpu_cores.uncut(mesh)
      params = cpu_cores.put(mesh, params)
    params, options = cpu_products.for_decoding(params, config, mesh)
    self._policy = loops.Policy(
      params=params,
      programs=decoder.programs(options),
      config=config,
      num_tokens=vocabulary.size,
      mesh=mesh,
      decoding=decoding,
      seed=seed,
      grow_step=grow_step,
    )
    self._vocabulary = vocabulary
    self._source_lengths = decoder.cache_lengths(source_length)
    self._lengths = decoder.cache_lengths(target_length)
    self._settings = settings
    self.counts = Counts()

  def sample(
    self, groups: Sequence[group_store.Group], num_samples: int
  ) -> Iterator[tuple[int, group_store.Group]]:
    """Yields each group's index with `num_samples` candidates in place of its own.

    Groups come as they are complete, short ones first, so the order is not the
    given one. The candidates have origin 'model'; duplicates are kept. While the
    caller works on what was yielded, the devices go on.
    """
    if num_samples < 1:
      raise ValueError(f'num_samples={num_samples} must be at least 1')
    if not groups:
      return
    order = sorted(range(len(groups)), key=lambda row: len(groups[row].source_tokens))
    num = min(self._num_loops, len(groups))
    share = self._settings.share_of(num_samples, len(groups))
    parts = [
      self._loop(groups, sorted(order[start::num]), num_samples, share)
      for start in range(num)
    ]
    for found, turned in loops.side_by_side(parts):
      self.counts.steps += turned.steps
      self.counts.rows += turned.rows
      for drawn in turned.complete.values():
        self.counts.candidates += len(drawn)
        self.counts.tokens += sum(len(candidate.tokens) for candidate in drawn)
      yield from found

  def sample_in_order(
    self, groups: Sequence[group_store.Group], num_samples: int
  ) -> list[group_store.Group]:
    """Returns what `sample` yields, in the order of the given groups."""
    drawn = dict(self.sample(groups, num_samples))
    return [drawn[row] for row in range(len(groups))]

  def _loop(
    self,
    groups: Sequence[group_store.Group],
    rows: Sequence[int],
    num_samples: int,
    share: int,
  ) -> Iterator[tuple[list[tuple[int, group_store.Group]], loops.Turned]]:
    """A loop over some rows of the groups: after each turn, what is complete."""
    settings = self._settings
    batch = settings.batch_size // self._num_loops
    flow = flow_lib.Flow(
      [groups[row].source_tokens for row in rows],
      [groups[row].source_id for row in rows],
      num_samples,
      batch=batch,
      slots=settings.slots,
      share=share,
      shards=mesh_lib.batch_shards(self._policy.mesh),
      source_lengths=self._source_lengths,
      lengths=self._lengths,
    )
    loop = loops.Loop(
      self._policy,
      flow,
      batch=batch,
      slots=settings.slots,
      share=share,
      limit=self._lengths[-1],
    )
    for turned in loop.run():
      complete = [rows[place] for place in turned.complete]
      found = with_candidates(
        [groups[row] for row in complete],
        list(turned.complete.values()),
        self._vocabulary,
      )
      yield list(zip(complete, found, strict=True)), turned


def with_candidates(
  groups: Sequence[group_store.Group],
  drawn: Sequence[Sequence[tickets.Drawn]],
  vocabulary: vocabularies.Vocabulary,
) -> Iterator[group_store.Group]:
  """The groups with a policy's candidates in place of their own.

  Args:
    groups: any number.
    drawn: each group's candidates.
    vocabulary: to detokenise, all of them together.
  """
  texts = iter(
    vocabulary.decode_batch(
      [candidate.tokens for candidates in drawn for candidate in candidates]
    )
  )
  for group, candidates in zip(groups, drawn, strict=True):
    tokens = tuple(candidate.tokens for candidate in candidates)
    yield dataclasses.replace(
      group,
      texts=tuple(itertools.islice(texts, len(tokens))),
      tokens=tokens,
      token_log_probs=tuple(candidate.log_probs for candidate in candidates),
      finished=np.array([t.size and t[-1] == decoder.EOS_ID for t in tokens], bool),
      origins=('model',) * len(tokens),
    )

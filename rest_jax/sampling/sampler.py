"""The sampler around the decoder loop: groups in, groups with candidates out."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from rest_jax.data import group_store, vocabularies
from rest_jax.models import cpu_products, t5
from rest_jax.sampling import decoder, draws, tickets
from rest_jax.sampling import flow as flow_lib
from rest_jax.training import hosts
from rest_jax.training import mesh as mesh_lib

# Candidates are cut into shares so small that each slot takes so many of them, one
# after the other: with fewer, slots would idle towards the end.
ROUNDS = 3
# So many candidates of a slot count as a ticket, even if more share it: what a call of
# Grow holds, and a kill loses, grows no further with N.
CANDIDATES_OF_A_TICKET = 32


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
  """

  batch_size: int = 256
  slots: int = 1
  share: int = 128
  tickets: int = 32

  def __post_init__(self) -> None:
    for name, value in dataclasses.asdict(self).items():
      if value < 1:
        raise ValueError(f'{name}={value} must be at least 1')

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
    self._params, options = cpu_products.for_decoding(params, config, mesh)
    self._programs = decoder.programs(options)
    self._config = config
    self._vocabulary = vocabulary
    self._mesh = mesh
    self._source_lengths = decoder.cache_lengths(source_length)
    self._lengths = decoder.cache_lengths(target_length)
    self._decoding = decoding
    self._seed = np.int32(seed)
    self._grow_step = np.int32(grow_step)
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
    settings = self._settings
    share = settings.share_of(num_samples, len(groups))
    flow = flow_lib.Flow(
      [group.source_tokens for group in groups],
      [group.source_id for group in groups],
      num_samples,
      batch=settings.batch_size,
      slots=settings.slots,
      share=share,
      shards=mesh_lib.batch_shards(self._mesh),
      source_lengths=self._source_lengths,
      lengths=self._lengths,
    )
    lanes: decoder.Lanes | None = None
    free = np.ones(settings.batch_size, bool)
    while flow.goes_on():
      turn = flow.turn(free)
      lanes, ended = self._exchange(lanes, turn, share)
      if turn.enough:
        lanes, freed, steps = self._programs.advance(
          self._params,
          lanes,
          np.int32(turn.enough),
          config=self._config,
          num_tokens=self._vocabulary.size,
          decoding=self._decoding,
          mesh=self._mesh,
        )
      if any(ticket is not None for ticket in turn.leaving):
        # The devices go on while the host works on what has left.
        complete = dict(flow.finish(turn.leaving, mesh_lib.fetch(ended)))
        for drawn in complete.values():
          self.counts.candidates += len(drawn)
          self.counts.tokens += sum(len(candidate.tokens) for candidate in drawn)
        sampled = [groups[row] for row in complete]
        yield from zip(
          complete,
          with_candidates(sampled, list(complete.values()), self._vocabulary),
          strict=True,
        )
      free = turn.free
      if turn.enough:
        free = mesh_lib.fetch(freed)
        self.counts.steps += int(steps)
        self.counts.rows += int(steps) * lanes.token.size
      hosts.advance()

  def sample_in_order(
    self, groups: Sequence[group_store.Group], num_samples: int
  ) -> list[group_store.Group]:
    """Returns what `sample` yields, in the order of the given groups."""
    drawn = dict(self.sample(groups, num_samples))
    return [drawn[row] for row in range(len(groups))]

  def _exchange(
    self, lanes: decoder.Lanes | None, turn: flow_lib.Turn, share: int
  ) -> tuple[decoder.Lanes, decoder.Ended | None]:
    """Puts in what comes and takes out what leaves, if anything does."""
    shards = mesh_lib.batch_shards(self._mesh)
    if turn.incoming is not None:
      return self._programs.exchange(
        self._params,
        self._fit(lanes, turn, share),
        self._put(turn.incoming),
        self._seed,
        self._grow_step,
        config=self._config,
        shards=shards,
      )
    assert lanes is not None, 'nothing is drained before something came'
    ended = None
    if any(ticket is not None for ticket in turn.leaving):
      held = lanes.candidates
      ended = decoder.Ended(held.tokens, held.log_probs, held.num_tokens)
    if turn.keep is not None:
      keep = mesh_lib.put_batch(self._mesh, {'keep': turn.keep})['keep']
      lanes = decoder.narrow(lanes, keep, config=self._config, shards=shards)
    return self._fit(lanes, turn, share), ended

  def _fit(
    self, lanes: decoder.Lanes | None, turn: flow_lib.Turn, share: int
  ) -> decoder.Lanes:
    """Makes the lanes, or makes them longer, as the turn wants."""
    lengths = {'source_length': turn.source_length, 'length': turn.length}
    if lanes is None:
      return decoder.empty_lanes(
        self._config,
        self._mesh,
        batch=self._settings.batch_size,
        slots=self._settings.slots,
        share=share,
        limit=self._lengths[-1],
        **lengths,
      )
    shape = (lanes.encoder_mask.shape[-1], lanes.candidates.tokens.shape[-1])
    if shape == (turn.source_length, turn.length):
      return lanes
    return decoder.extend(lanes, **lengths)

  def _put(self, incoming: decoder.Incoming) -> decoder.Incoming:
    if self._mesh.size == 1:
      return incoming  # the call moves it, at less cost to the host
    placed = mesh_lib.put_batch(self._mesh, incoming._asdict())
    return decoder.Incoming(**placed)


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

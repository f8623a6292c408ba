"""The decoder loop over some of the sources, and several loops side by side."""

import concurrent.futures
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from rest_jax.models import t5
from rest_jax.sampling import decoder, draws, tickets
from rest_jax.sampling import flow as flow_lib
from rest_jax.training import hosts
from rest_jax.training import mesh as mesh_lib

Item = TypeVar('Item')


@dataclasses.dataclass(frozen=True)
class Policy:
  """A policy with what every call of the decoder loop takes.

  Attributes:
    params: as the decoder's programs take them, on the mesh.
    programs: the decoder's, compiled for it.
    config: the policy's shape.
    num_tokens: of the vocabulary.
    mesh: sources are spread over its data and fsdp axes.
    decoding: temperature, top-k, top-p, min_tokens.
    seed, grow_step: the run's part of the candidates' identities.
  """

  params: Any
  programs: decoder.Programs
  config: t5.T5Config
  num_tokens: int
  mesh: jax.sharding.Mesh
  decoding: draws.Decoding
  seed: int
  grow_step: int


@dataclasses.dataclass(frozen=True)
class Turned:
  """What a turn of a loop brought.

  Attributes:
    complete: candidates in order, by the source's row.
    steps: of the decoder, of all the loop's rows each.
    rows: of the decoder that these steps computed, idle ones included.
  """

  complete: dict[int, list[tickets.Drawn]]
  steps: int
  rows: int


class Loop:
  """The decoder loop over the sources of a flow, with lanes of its own.

  Args:
    policy: what to draw from.
    flow: which source is in which lane.
    batch: lanes.
    slots, share: of a lane.
    limit: the most tokens of a candidate.
  """

  def __init__(
    self,
    policy: Policy,
    flow: flow_lib.Flow,
    *,
    batch: int,
    slots: int,
    share: int,
    limit: int,
  ):
    self._policy = policy
    self._flow = flow
    self._sizes = {'batch': batch, 'slots': slots, 'share': share, 'limit': limit}
    self._shards = mesh_lib.batch_shards(policy.mesh)
    self._lanes: decoder.Lanes | None = None

  def run(self) -> Iterator[Turned]:
    """Yields after each turn; the devices go on meanwhile."""
    free = np.ones(self._sizes['batch'], bool)
    steps = rows = 0
    while self._flow.goes_on():
      turn = self._flow.turn(free)
      self._lanes, ended = self._exchange(self._lanes, turn)
      advanced = self._advance(turn.enough) if turn.enough else None
      complete = {}
      if any(ticket is not None for ticket in turn.leaving):
        # The devices go on while the host works on what has left.
        complete = dict(self._flow.finish(turn.leaving, mesh_lib.fetch(ended)))
      yield Turned(complete, steps, rows)
      free, steps, rows = turn.free, 0, 0
      if advanced is not None:
        free, steps = mesh_lib.fetch(advanced[0]), int(advanced[1])
        rows = steps * self._lanes.token.size
      hosts.advance()
    yield Turned({}, steps, rows)

  def _advance(self, enough: int) -> tuple[jax.Array, jax.Array]:
    """Decodes until so many lanes are free; which those are, and the steps."""
    policy = self._policy
    self._lanes, freed, steps = policy.programs.advance(
      policy.params,
      self._lanes,
      np.int32(enough),
      config=policy.config,
      num_tokens=policy.num_tokens,
      decoding=policy.decoding,
      mesh=policy.mesh,
    )
    return freed, steps

  def _exchange(
    self, lanes: decoder.Lanes | None, turn: flow_lib.Turn
  ) -> tuple[decoder.Lanes, decoder.Ended | None]:
    """Puts in what comes and takes out what leaves, if anything does."""
    policy = self._policy
    if turn.incoming is not None:
      return policy.programs.exchange(
        policy.params,
        self._fit(lanes, turn),
        self._put(turn.incoming),
        np.int32(policy.seed),
        np.int32(policy.grow_step),
        config=policy.config,
        shards=self._shards,
      )
    assert lanes is not None, 'nothing is drained before something came'
    ended = None
    if any(ticket is not None for ticket in turn.leaving):
      held = lanes.candidates
      ended = decoder.Ended(held.tokens, held.log_probs, held.num_tokens)
    if turn.keep is not None:
      keep = mesh_lib.put_batch(policy.mesh, {'keep': turn.keep})['keep']
      lanes = decoder.narrow(lanes, keep, config=policy.config, shards=self._shards)
    return self._fit(lanes, turn), ended

  def _fit(self, lanes: decoder.Lanes | None, turn: flow_lib.Turn) -> decoder.Lanes:
    """Makes the lanes, or makes them longer, as the turn wants."""
    lengths = {'source_length': turn.source_length, 'length': turn.length}
    if lanes is None:
      policy = self._policy
      return decoder.empty_lanes(policy.config, policy.mesh, **self._sizes, **lengths)
    shape = (lanes.encoder_mask.shape[-1], lanes.candidates.tokens.shape[-1])
    if shape == (turn.source_length, turn.length):
      return lanes
    return decoder.extend(lanes, **lengths)

  def _put(self, incoming: decoder.Incoming) -> decoder.Incoming:
    mesh = self._policy.mesh
    if mesh.size == 1:
      return incoming  # the call moves it, at less cost to the host
    return decoder.Incoming(**mesh_lib.put_batch(mesh, incoming._asdict()))


def side_by_side(iterators: Sequence[Iterator[Item]]) -> Iterator[Item]:
  """Runs iterators on a thread each; yields what they yield, as it comes.

  Each is at most one item ahead of the caller. What one raises is raised here, after
  the others have ended their items; so it is where the caller stops.
  """
  if len(iterators) == 1:
    yield from iterators[0]
    return
  with concurrent.futures.ThreadPoolExecutor(len(iterators), 'loop') as pool:
    end: Any = object()
    waiting = {pool.submit(next, each, end): each for each in iterators}
    while waiting:
      ready, _ = concurrent.futures.wait(
        waiting, return_when=concurrent.futures.FIRST_COMPLETED
      )
      for future in ready:
        iterator = waiting.pop(future)
        item = future.result()
        if item is not end:
          waiting[pool.submit(next, iterator, end)] = iterator
          yield item

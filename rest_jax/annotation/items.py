"""What raters see: some sources, and what one or more systems made of each.

A *system* is a group set by name: the held-out samples of a policy, its greedy
outputs, or a Grow. Candidates of one source with the same text are one candidate, shown
and rated once; the rating counts for every output that reads so.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rest_jax import paths
from rest_jax.data import columns, group_store, reward_store, shards


@dataclasses.dataclass(frozen=True)
class System:
  """A group set whose candidates are to be rated.

  Attributes:
    name: such as 'evaluate_bc'; raters never see it.
    groups: the group set's directory.
    rewards: the directory of a reward set of the same groups, or None.
  """

  name: str
  groups: paths.PathLike
  rewards: paths.PathLike | None = None


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A text to rate. The id is a digest, so it tells nothing of who made it."""

  candidate_id: str
  text: str


@dataclasses.dataclass(frozen=True)
class Source:
  """A source with its candidates, each text once.

  Attributes:
    source_id: as in the group sets.
    source: its text.
    reference: its reference, None where there is none.
    shared: every rater sees it before any source that is not.
    candidates: in no meaningful order.
  """

  source_id: str
  source: str
  reference: str | None
  shared: bool
  candidates: tuple[Candidate, ...]


@dataclasses.dataclass(frozen=True)
class Output:
  """That a system gave a candidate as its sample of a source."""

  system: str
  source_id: str
  sample: int
  candidate_id: str
  reward: float | None  # the reward model's, where it was scored


@dataclasses.dataclass(frozen=True)
class Items:
  """All that is rated in one study."""

  sources: tuple[Source, ...]
  outputs: tuple[Output, ...]


def digest(*parts: object) -> str:
  """A short name, or a place in a random order, that depends on the parts alone."""
  text = '\x1f'.join(str(part) for part in parts)
  return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def choose(
  systems: Sequence[System],
  *,
  num_sources: int | None,
  num_candidates: int | None,
  num_shared: int,
  seed: int,
) -> Items:
  """Draws sources that all systems have, and takes candidates of each.

  Which sources are drawn depends on the seed and on their ids alone: more of them
  keep those that fewer would have drawn. Only candidates of origin 'model' are taken,
  the first of each source: samples are independent, so these are as good as any.

  Args:
    systems: whose outputs to rate.
    num_sources: how many to draw; None takes all.
    num_candidates: of each system for a source, where it has so many; None takes all.
    num_shared: how many of the sources are shared.
    seed: of the draw.

  Raises:
    ValueError: no system, two of one name, no source that all of them have, a
      number out of range, or texts of one source that differ between systems.
  """
  _check(systems, num_sources, num_candidates, num_shared)
  found = [_sampled_sources(system) for system in systems]
  common = set(found[0]).intersection(*found[1:])
  if not common:
    raise ValueError(
      f'no source has samples in all of {[system.name for system in systems]}: '
      'rate systems that were sampled for the same sources'
    )
  drawn = sorted(common, key=lambda source_id: digest(seed, 'source', source_id))
  drawn = drawn[:num_sources]
  texts: dict[str, tuple[str, str | None]] = {}
  candidates: dict[str, dict[str, Candidate]] = {source_id: {} for source_id in drawn}
  outputs = []
  for system, places in zip(systems, found, strict=True):
    for group, rewards in _read(system, {s: places[s] for s in drawn}):
      known = texts.setdefault(group.source_id, (group.source, group.reference))
      if known[0] != group.source:
        raise ValueError(
          f'source {group.source_id!r} reads {known[0]!r} in {systems[0].name} but '
          f'{group.source!r} in {system.name}: rate systems of one corpus'
        )
      made = [i for i, origin in enumerate(group.origins) if origin == 'model']
      for sample, index in enumerate(made[:num_candidates]):
        text = group.texts[index]
        identifier = digest(seed, 'candidate', group.source_id, text)
        candidates[group.source_id][text] = Candidate(identifier, text)
        reward = None if rewards is None else float(rewards[index])
        outputs.append(Output(system.name, group.source_id, sample, identifier, reward))
  return Items(
    sources=tuple(
      Source(
        source_id,
        *texts[source_id],
        shared=place < num_shared,
        candidates=tuple(candidates[source_id].values()),
      )
      for place, source_id in enumerate(drawn)
    ),
    outputs=tuple(outputs),
  )


def _check(
  systems: Sequence[System],
  num_sources: int | None,
  num_candidates: int | None,
  num_shared: int,
) -> None:
  names = [system.name for system in systems]
  if not names or len(set(names)) < len(names):
    raise ValueError(f'systems {names} must be one or more, each with its own name')
  if num_sources is not None and num_sources < 1:
    raise ValueError(f'num_sources={num_sources} must be at least 1, or None for all')
  if num_candidates is not None and num_candidates < 1:
    raise ValueError(
      f'num_candidates={num_candidates} must be at least 1, or None for all'
    )
  if num_shared < 0:
    raise ValueError(f'num_shared={num_shared} must be at least 0')


def _sampled_sources(system: System) -> dict[str, tuple[int, int]]:
  """(shard, row) of every source of which the model has drawn a candidate."""
  places: dict[str, tuple[int, int]] = {}
  for shard, path in enumerate(shards.list_shards(system.groups)):
    for start, stop in columns.row_group_ranges(path):
      table = columns.read_table(
        path,
        ['source_id', 'candidate_origins'],
        schema=group_store.SCHEMA,
        rows=np.arange(start, stop),
      )
      origins = columns.single(table, 'candidate_origins')
      drawn = pc.equal(origins.flatten(), 'model').cast(pa.int64())
      lengths = np.diff(columns.list_bounds(origins))
      counts = columns.segment_sums(drawn.to_numpy(zero_copy_only=False), lengths)
      identifiers = table.column('source_id').to_pylist()
      places |= {
        source_id: (shard, start + row)
        for row, source_id in enumerate(identifiers)
        if counts[row]
      }
  return places


def _read(
  system: System, places: Mapping[str, tuple[int, int]]
) -> list[tuple[group_store.Group, np.ndarray | None]]:
  """The groups at these places, and their rewards where the system has them."""
  by_shard: dict[int, list[int]] = {}
  for shard, row in places.values():
    by_shard.setdefault(shard, []).append(row)
  paired: Sequence[tuple[paths.PathLike, paths.PathLike | None]]
  if system.rewards is None:
    paired = [(path, None) for path in shards.list_shards(system.groups)]
  else:
    paired = reward_store.paired_shards(system.groups, system.rewards)
  fields = ['source', 'reference', 'texts', 'origins']
  found: list[tuple[group_store.Group, np.ndarray | None]] = []
  for shard, rows in sorted(by_shard.items()):
    groups_path, rewards_path = paired[shard]
    rows = sorted(rows)
    groups = group_store.read_groups(groups_path, columns=fields, rows=np.array(rows))
    if rewards_path is None:
      found += [(group, None) for group in groups]
      continue
    scored = reward_store.read_rewards(rewards_path)
    for row, group in zip(rows, groups, strict=True):
      if scored.source_ids[row] != group.source_id:
        raise ValueError(
          f'row {row} is source {group.source_id!r} in {groups_path} but '
          f'{scored.source_ids[row]!r} in {rewards_path}: score the groups again'
        )
      found.append((group, scored.for_training()[row]))
  return found

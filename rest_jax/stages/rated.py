"""Rated groups: read from one set or several, joined, split by source, in batches."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rest_jax import paths
from rest_jax.data import batches, group_store, reward_store, shards, source_split
from rest_jax.rewards import learned
from rest_jax.stages import artifact

HELD_OUT_DIR = 'held_out'  # a rated set inside a rated set, to choose by
MAX_CANDIDATES = 1 << 24  # whose numbers float32 holds exactly


class RatedGroup(NamedTuple):
  """A group with what is known of its candidates' quality."""

  group: group_store.Group
  ratings: np.ndarray  # [samples] float32
  judgements: np.ndarray  # [samples, raters] float32, NaN where a rater gave none


class RatedSet(NamedTuple):
  """An artifact's candidates and another's, or the same one's, ratings of them."""

  samples: artifact.Artifact
  ratings: artifact.Artifact


def read(group_dir: paths.PathLike, reward_dir: paths.PathLike) -> list[RatedGroup]:
  """Reads a group set with its ratings, row by row."""
  rated: list[RatedGroup] = []
  for group_path, reward_path in reward_store.paired_shards(group_dir, reward_dir):
    groups = group_store.read_groups(group_path)
    rewards = reward_store.read_rewards(reward_path)
    reward_store.check_join(
      group_path,
      reward_path,
      [group.source_id for group in groups],
      np.array([group.num_candidates for group in groups]),
      rewards,
    )
    judgements = rewards.ratings or [
      np.zeros((len(values), 0), np.float32) for values in rewards.rewards
    ]
    rated += map(RatedGroup, groups, rewards.rewards, judgements)
  return rated


def write(directory: paths.PathLike, rated: Sequence[RatedGroup]) -> None:
  """Writes rated groups as a group set and a reward set in one directory."""
  judged = any(one.judgements.shape[1] for one in rated)
  group_store.write_group_set(directory, [one.group for one in rated])
  reward_store.write_rewards(
    shards.shard_path(directory, 0, 1, reward_store.KIND),
    [one.group.source_id for one in rated],
    [one.ratings for one in rated],
    ratings=[one.judgements for one in rated] if judged else None,
  )


def load(
  sets: Sequence[RatedSet], held_out_fraction: float, seed: int
) -> tuple[list[RatedGroup], list[RatedGroup]]:
  """Reads rated sets; returns what to train on and what is held out.

  Held out is what the sets bring along for it (HELD_OUT_DIR); if none does, a share of
  the sources, see `split`. No source is on both sides.
  """
  rated = join([(one.samples.name, read(*_paths(one))) for one in sets])
  brought = join(
    [
      (one.ratings.name, read(directory, directory))
      for one in sets
      if (directory := one.ratings.path / HELD_OUT_DIR).exists()
    ]
  )
  if not brought:
    return split(rated, held_out_fraction, seed)
  taken = {_key(one.group) for one in brought}
  return [one for one in rated if _key(one.group) not in taken], brought


def _paths(one: RatedSet) -> tuple[paths.PathLike, paths.PathLike]:
  return one.samples.path, one.ratings.path


def _key(group: group_store.Group) -> tuple[str, str | None]:
  return group.source, group.reference


def join(sets: Sequence[tuple[str, Sequence[RatedGroup]]]) -> list[RatedGroup]:
  """One list of several named sets: a source that several have is one group.

  A single set stays as it is. Else a group keeps the id that it has first; its
  candidates follow one another, and one that two sets rate is there twice. An id that
  another source has already becomes '<set>/<id>'.
  """
  if len(sets) == 1:
    return list(sets[0][1])
  joined: dict[tuple[str, str | None], RatedGroup] = {}
  ids: set[str] = set()
  for name, rated in sets:
    for one in rated:
      key = _key(one.group)
      if key in joined:
        joined[key] = _merge(joined[key], one)
        continue
      source_id = one.group.source_id
      if source_id in ids:
        source_id = f'{name}/{source_id}'
      ids.add(source_id)
      # Likelihoods, which only some sets have, are no part of a rated group.
      group = dataclasses.replace(one.group, source_id=source_id, token_log_probs=None)
      joined[key] = one._replace(group=group)
  return list(joined.values())


def _merge(one: RatedGroup, other: RatedGroup) -> RatedGroup:
  """The candidates of both; a rater of one says nothing of the other's."""
  group = dataclasses.replace(
    one.group,
    texts=one.group.texts + other.group.texts,
    tokens=one.group.tokens + other.group.tokens,
    finished=np.concatenate([one.group.finished, other.group.finished]),
    origins=one.group.origins + other.group.origins,
  )
  sizes = [part.judgements.shape for part in (one, other)]
  judgements = np.full(np.sum(sizes, axis=0), np.nan, np.float32)
  judgements[: sizes[0][0], : sizes[0][1]] = one.judgements
  judgements[sizes[0][0] :, sizes[0][1] :] = other.judgements
  return RatedGroup(group, np.concatenate([one.ratings, other.ratings]), judgements)


def split(
  rated: Sequence[RatedGroup], held_out_fraction: float, seed: int
) -> tuple[list[RatedGroup], list[RatedGroup]]:
  """Splits rated groups by source into those to train on and those held out.

  A source's side depends on (seed, source id) alone, so ratings that are added
  later move no source from one side to the other.
  """
  sides: tuple[list[RatedGroup], list[RatedGroup]] = [], []
  for one in rated:
    share = source_split.share(one.group.source_id, seed)
    sides[share < held_out_fraction].append(one)
  if not all(sides):
    raise ValueError(
      f'of {len(rated)} rated sources {len(sides[1])} are held out '
      f'(held_out_fraction={held_out_fraction}): both sides need some; rate more '
      'sources'
    )
  return sides


class RatedBatches:
  """`batch(step)` of rated groups, as the reward model's objectives take it.

  The features of `data.batches`, with `ratings` (standardised) and `preferences` in
  place of `rewards`; a source with more candidates than slots has several rows, and
  preferences between them are lost.

  Args:
    directory: written, with the groups whose candidates are numbered.
    rated: what to train on.
    scale: standardises the ratings.
    **settings: of `batches.GroupBatches`.
  """

  def __init__(
    self,
    directory: paths.PathLike,
    rated: Sequence[RatedGroup],
    scale: learned.RatingScale,
    **settings: Any,
  ):
    self._judgements = [one.judgements for one in rated]
    self._ratings = scale.standardise(np.concatenate([one.ratings for one in rated]))
    counts = [len(one.ratings) for one in rated]
    self._owners = np.repeat(np.arange(len(rated)), counts)
    self._starts = np.cumsum([0, *counts])
    if len(self._ratings) > MAX_CANDIDATES:
      raise ValueError(
        f'{len(self._ratings):,} rated candidates are more than {MAX_CANDIDATES:,}: '
        'train on fewer'
      )
    # In place of rewards each candidate has its number, so that a batch says which
    # candidates it holds.
    numbers = np.arange(len(self._ratings), dtype=np.float32)
    numbered = zip(rated, np.split(numbers, self._starts[1:-1]), strict=True)
    write(directory, [one._replace(ratings=number) for one, number in numbered])
    self._data = batches.GroupBatches(directory, reward_dir=directory, **settings)

  def batch(self, step: int) -> dict[str, np.ndarray]:
    """The batch of a training step; always the same."""
    batch = self._data.batch(step)
    numbers = batch.pop('rewards').astype(np.int64)  # [batch, samples]
    ratings = np.where(batch['keep'], self._ratings[numbers], np.float32(0))
    rows, slots = numbers.shape
    preferences = np.zeros((rows, slots, slots), np.float32)
    for row in np.flatnonzero(batch['keep'].any(axis=1)):
      used = np.flatnonzero(batch['keep'][row])
      owner = self._owners[numbers[row, used[0]]]
      judged = self._judgements[owner][numbers[row, used] - self._starts[owner]]
      # [used, used] comparisons of [used, raters]; NaN is neither more nor less.
      preferred = (judged[:, None] > judged[None, :]).sum(axis=-1)
      preferences[row][np.ix_(used, used)] = preferred
    return batch | {'ratings': ratings, 'preferences': preferences}

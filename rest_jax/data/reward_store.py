"""Reward sets: one file of rewards per shard of groups, joined by row.

A **reward set** is a directory of `rewards-00003-of-00012.parquet`, one set per
scorer. Row r of a reward shard belongs to row r of the group shard with the same
number; `source_id` is stored on both sides and compared. Columns:

    source_id   string
    rewards     list<float>        one per candidate, on the scorer's own scale
    normalised  list<float>        null where not normalised
    ratings     list<list<float>>  per candidate one per rater; null where unknown
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rest_jax import paths
from rest_jax.data import columns as columns_lib
from rest_jax.data import shards

KIND = 'rewards'

SCHEMA = pa.schema(
  [
    pa.field('source_id', pa.string(), nullable=False),
    pa.field('rewards', pa.list_(pa.float32()), nullable=False),
    pa.field('normalised', pa.list_(pa.float32())),
    pa.field('ratings', pa.list_(pa.list_(pa.float32()))),
  ],
  metadata={'rest_jax.reward_store': '1'},
)

_ROWS_PER_ROW_GROUP = 65_536


@dataclasses.dataclass(frozen=True, eq=False)
class Rewards:
  """The rewards of one shard, a row per source."""

  source_ids: tuple[str, ...]
  rewards: list[np.ndarray]  # each [samples] float32
  normalised: list[np.ndarray] | None  # each [samples] float32
  ratings: list[np.ndarray] | None  # each [samples, raters] float32

  def for_training(self) -> list[np.ndarray]:
    """The normalised rewards, or the plain ones where there are none."""
    return self.rewards if self.normalised is None else self.normalised


def write_rewards(
  path: paths.PathLike,
  source_ids: Sequence[str],
  rewards: Sequence[np.ndarray],
  *,
  normalised: Sequence[np.ndarray] | None = None,
  ratings: Sequence[np.ndarray] | None = None,
) -> None:
  """Writes one shard of rewards, in one step.

  Args:
    path: a shard, see `shards.shard_path(..., kind='rewards')`.
    source_ids: of the group shard's rows, in order.
    rewards: per source [samples], on the scorer's scale.
    normalised: per source [samples], or None.
    ratings: per source [samples, raters], or None.

  Raises:
    ValueError: the arguments disagree in the number of sources, candidates or
      (inside a source) raters; names the first source that does.
  """
  for name, values in (('normalised', normalised), ('ratings', ratings)):
    if values is not None:
      _check_like(name, values, source_ids, rewards)
  if len(rewards) != len(source_ids):
    raise ValueError(
      f'{len(rewards)} rewards for {len(source_ids)} source_ids: one array per source'
    )
  arrays = {
    'source_id': pa.array(list(source_ids), pa.string()),
    'rewards': columns_lib.lists(list(rewards), np.float32),
    'normalised': _nulls('normalised', len(rewards))
    if normalised is None
    else columns_lib.lists(list(normalised), np.float32),
    'ratings': _nulls('ratings', len(rewards))
    if ratings is None
    else pa.ListArray.from_arrays(
      columns_lib.offsets_of(columns_lib.lengths_of(ratings)),
      columns_lib.lists([row for rows in ratings for row in rows], np.float32),
    ),
  }
  table = pa.Table.from_arrays([arrays[name] for name in SCHEMA.names], schema=SCHEMA)
  columns_lib.write_table(path, table, row_group_size=_ROWS_PER_ROW_GROUP)


def _nulls(name: str, num: int) -> pa.Array:
  return pa.nulls(num, SCHEMA.field(name).type)


def _check_like(
  name: str,
  values: Sequence[np.ndarray],
  source_ids: Sequence[str],
  rewards: Sequence[np.ndarray],
) -> None:
  if len(values) != len(rewards):
    raise ValueError(f'{name} has {len(values)} sources, rewards {len(rewards)}')
  for source_id, mine, theirs in zip(source_ids, values, rewards, strict=True):
    if len(mine) != len(theirs):
      raise ValueError(
        f'source {source_id!r} has {len(theirs)} rewards but {len(mine)} {name}: '
        'there must be one per candidate'
      )


def read_rewards(path: paths.PathLike) -> Rewards:
  """Reads one shard of rewards.

  Raises:
    ValueError: a file that is not a whole reward shard, or one that has
      normalised rewards or ratings for some sources only.
  """
  table = columns_lib.read_table(path, SCHEMA.names, schema=SCHEMA)
  for name in ('normalised', 'ratings'):
    nulls = table.column(name).null_count
    if nulls not in (0, table.num_rows):
      raise ValueError(
        f'{path} has no {name} for {nulls} of its {table.num_rows} sources: score '
        'the whole shard again'
      )
  normalised = columns_lib.single(table, 'normalised')
  ratings = columns_lib.single(table, 'ratings')
  return Rewards(
    source_ids=tuple(table.column('source_id').to_pylist()),
    rewards=columns_lib.views(columns_lib.single(table, 'rewards')),
    normalised=None if normalised.null_count else columns_lib.views(normalised),
    ratings=None
    if ratings.null_count
    else [
      np.stack(rows) if rows else np.zeros((0, 0), np.float32)
      for rows in columns_lib.nested_views(ratings)
    ],
  )


def check_join(
  groups_path: paths.PathLike,
  rewards_path: paths.PathLike,
  group_ids: Sequence[str],
  num_candidates: np.ndarray,
  rewards: Rewards,
) -> None:
  """Checks that a reward shard belongs to a group shard, row by row.

  Raises:
    ValueError: different numbers of rows; a row whose source_id or number of
      candidates differs (names files, row and both values).
  """
  again = 'score the groups again'
  if len(group_ids) != len(rewards.source_ids):
    raise ValueError(
      f'{groups_path} has {len(group_ids)} rows but {rewards_path} '
      f'{len(rewards.source_ids)}: {again}'
    )
  for row, (left, right) in enumerate(zip(group_ids, rewards.source_ids, strict=True)):
    if left != right:
      raise ValueError(
        f'row {row} is source {left!r} in {groups_path} but {right!r} in '
        f'{rewards_path}: they do not belong together; {again}'
      )
  counts = columns_lib.lengths_of(rewards.rewards)
  wrong = np.flatnonzero(counts != num_candidates)
  if len(wrong):
    row = int(wrong[0])
    raise ValueError(
      f'row {row}, source {group_ids[row]!r}, has {num_candidates[row]} candidates in '
      f'{groups_path} but {counts[row]} rewards in {rewards_path}: {again}'
    )


def paired_shards(
  group_dir: paths.PathLike, reward_dir: paths.PathLike
) -> list[tuple[paths.PathLike, paths.PathLike]]:
  """(group shard, reward shard) of two sets.

  Raises:
    ValueError: a set is incomplete, or they have different numbers of shards.
  """
  groups = shards.list_shards(group_dir)
  rewards = shards.list_shards(reward_dir, KIND)
  if len(groups) != len(rewards):
    raise ValueError(
      f'{group_dir} has {len(groups)} shards but {reward_dir} {len(rewards)}: they do '
      'not belong together; score the groups again'
    )
  return list(zip(groups, rewards, strict=True))


def padded(
  rewards: Sequence[np.ndarray], *, fill: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
  """Rewards of many sources as one array.

  Returns:
    (rewards [sources, samples] float32, mask [sources, samples] bool): True where
    a candidate exists; `samples` is the most any source has.
  """
  counts = columns_lib.lengths_of(rewards)
  most = int(counts.max()) if len(counts) else 0
  mask = np.arange(most)[None, :] < counts[:, None]
  values = np.full(mask.shape, fill, np.float32)
  values[mask] = columns_lib.concatenate(list(rewards), np.float32)
  return values, mask

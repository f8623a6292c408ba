"""The group store: sources with their candidates, in Parquet, one row per source.

A **group** is one source with its N candidates; a supervised pair is a group
with one candidate of origin 'data'. A **group set** is a directory of shards
`groups-00003-of-00012.parquet`. Rewards live in files of their own
(`reward_store`), so scoring again never rewrites samples.

Columns, readable with pandas or DuckDB:

    source_id                  string         unique in the set
    source                     string
    source_tokens              list<int32>    ends with EOS
    source_length              int32          number of source tokens
    reference                  string         null for source-only corpora
    candidate_texts            list<string>   detokenised
    candidate_tokens           list<list<int32>>
    candidate_lengths          list<int32>    numbers of tokens
    candidate_token_log_probs  list<list<float>>  nats, untempered behaviour policy;
                                              null where unknown
    candidate_log_probs        list<float>    their sums, for people; null likewise
    candidate_finished         list<bool>     EOS was drawn before the limit
    candidate_origins          list<string>   'model' or 'data'
    renderings                 list<string>   correct translations, where known

The two length columns let `batches` lay out an epoch without reading a token.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rest_jax import paths
from rest_jax.data import columns as columns_lib
from rest_jax.data import shards
from rest_jax.data.reward_store import Rewards as Rewards
from rest_jax.data.reward_store import read_rewards as read_rewards
from rest_jax.data.reward_store import write_rewards as write_rewards
from rest_jax.data.shards import list_shards as list_shards
from rest_jax.data.shards import shard_path as shard_path

FORMAT_VERSION = 1

SCHEMA = pa.schema(
  [
    pa.field('source_id', pa.string(), nullable=False),
    pa.field('source', pa.string(), nullable=False),
    pa.field('source_tokens', pa.list_(pa.int32()), nullable=False),
    pa.field('source_length', pa.int32(), nullable=False),
    pa.field('reference', pa.string()),
    pa.field('candidate_texts', pa.list_(pa.string()), nullable=False),
    pa.field('candidate_tokens', pa.list_(pa.list_(pa.int32())), nullable=False),
    pa.field('candidate_lengths', pa.list_(pa.int32()), nullable=False),
    pa.field('candidate_token_log_probs', pa.list_(pa.list_(pa.float32()))),
    pa.field('candidate_log_probs', pa.list_(pa.float32())),
    pa.field('candidate_finished', pa.list_(pa.bool_()), nullable=False),
    pa.field('candidate_origins', pa.list_(pa.string()), nullable=False),
    pa.field('renderings', pa.list_(pa.string()), nullable=False),
  ],
  metadata={'rest_jax.group_store': str(FORMAT_VERSION)},
)

# The columns behind each field of Group.
FIELD_COLUMNS = {
  'source_id': 'source_id',
  'source': 'source',
  'source_tokens': 'source_tokens',
  'reference': 'reference',
  'texts': 'candidate_texts',
  'tokens': 'candidate_tokens',
  'token_log_probs': 'candidate_token_log_probs',
  'finished': 'candidate_finished',
  'origins': 'candidate_origins',
  'renderings': 'renderings',
}

_CANDIDATES_PER_ROW_GROUP = 16_384


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
  """One source with its candidates, on the host.

  Raises:
    ValueError: the candidates' fields have different lengths.
  """

  source_id: str  # unique in its set, e.g. 'train/00000017'
  source: str
  source_tokens: np.ndarray  # [source_length] int32, ends with EOS (1)
  reference: str | None  # None for source-only corpora
  texts: tuple[str, ...]  # candidates, detokenised
  tokens: tuple[np.ndarray, ...]  # each [target_length_i] int32
  token_log_probs: tuple[np.ndarray, ...] | None  # each [target_length_i] float32
  finished: np.ndarray  # [samples] bool, EOS was drawn before the limit
  origins: tuple[str, ...]  # 'model' or 'data' per candidate
  renderings: tuple[str, ...] = ()  # correct translations known to the corpus

  def __post_init__(self) -> None:
    fields = {
      'texts': self.texts,
      'tokens': self.tokens,
      'finished': self.finished,
      'origins': self.origins,
    }
    if self.token_log_probs is not None:
      fields['token_log_probs'] = self.token_log_probs
    if len(set(map(len, fields.values()))) > 1:
      sizes = {name: len(field) for name, field in fields.items()}
      raise ValueError(
        f'group {self.source_id!r} has fields of different lengths {sizes}: every '
        'candidate needs a text, tokens, a finished flag and an origin'
      )

  @property
  def num_candidates(self) -> int:
    """How many candidates the group holds."""
    return len(self.tokens)


def pair(
  source_id: str,
  source: str,
  source_tokens: np.ndarray,
  target: str | None,
  target_tokens: np.ndarray | None,
  *,
  renderings: Sequence[str] = (),
) -> Group:
  """A corpus pair as a group: one candidate of origin 'data', or none at all."""
  known = target is not None
  if known != (target_tokens is not None):
    raise ValueError(
      f'group {source_id!r}: give both the target and its tokens, or neither'
    )
  tokens = () if target_tokens is None else (target_tokens,)
  return Group(
    source_id=source_id,
    source=source,
    source_tokens=source_tokens,
    reference=target,
    texts=() if target is None else (target,),
    tokens=tokens,
    token_log_probs=None,
    finished=np.ones(int(known), bool),
    origins=('data',) * int(known),
    renderings=tuple(renderings),
  )


def take(group: Group, candidates: slice | Sequence[int] | np.ndarray) -> Group:
  """The group with some of its candidates, in the order asked for.

  Args:
    group: the group.
    candidates: a slice, indices, or a boolean mask over the candidates.
  """
  chosen = np.arange(len(group.tokens))[candidates].tolist()
  log_probs = group.token_log_probs
  return dataclasses.replace(
    group,
    texts=tuple(group.texts[i] for i in chosen),
    tokens=tuple(group.tokens[i] for i in chosen),
    token_log_probs=None if log_probs is None else tuple(log_probs[i] for i in chosen),
    finished=np.asarray(group.finished)[chosen],
    origins=tuple(group.origins[i] for i in chosen),
  )


def to_table(groups: Sequence[Group]) -> pa.Table:
  """Groups as an Arrow table with SCHEMA; see `write_groups` for what is raised."""
  identifiers = [group.source_id for group in groups]
  if len(set(identifiers)) != len(identifiers):
    twice = next(x for x in identifiers if identifiers.count(x) > 1)
    raise ValueError(
      f'source_id {twice!r} occurs twice: identifiers must be unique in a set, '
      'they seed the samples and join the rewards'
    )
  counts = np.fromiter((len(g.tokens) for g in groups), np.int64, len(groups))
  tokens = [candidate for group in groups for candidate in group.tokens]
  lengths = columns_lib.lengths_of(tokens)
  candidates = pa.ListArray.from_arrays(
    columns_lib.offsets_of(counts), columns_lib.lists(tokens, np.int32)
  )
  log_probs, sums = _log_prob_columns(groups, counts, lengths)
  finished = [np.asarray(group.finished, bool) for group in groups]

  def strings(name: str) -> pa.Array:
    return columns_lib.string_lists([getattr(group, name) for group in groups])

  arrays = {
    'source_id': pa.array(identifiers, pa.string()),
    'source': pa.array([group.source for group in groups], pa.string()),
    'source_tokens': columns_lib.lists([g.source_tokens for g in groups], np.int32),
    'source_length': pa.array(
      columns_lib.lengths_of([g.source_tokens for g in groups]), pa.int32()
    ),
    'reference': pa.array([group.reference for group in groups], pa.string()),
    'candidate_texts': strings('texts'),
    'candidate_tokens': candidates,
    'candidate_lengths': pa.ListArray.from_arrays(
      columns_lib.offsets_of(counts), pa.array(lengths, pa.int32())
    ),
    'candidate_token_log_probs': log_probs,
    'candidate_log_probs': sums,
    'candidate_finished': columns_lib.lists(finished, np.bool_),
    'candidate_origins': strings('origins'),
    'renderings': strings('renderings'),
  }
  return pa.Table.from_arrays([arrays[name] for name in SCHEMA.names], schema=SCHEMA)


def _log_prob_columns(
  groups: Sequence[Group], counts: np.ndarray, lengths: np.ndarray
) -> tuple[pa.Array, pa.Array]:
  """Token log-probabilities and their sums; null where a group has none."""
  known = np.array([group.token_log_probs is not None for group in groups], bool)
  flat = [
    values
    for group in groups
    if group.token_log_probs is not None
    for values in group.token_log_probs
  ]
  mine = columns_lib.lengths_of(flat)
  expected = lengths[np.repeat(known, counts)]
  if not np.array_equal(mine, expected):
    wrong = int(np.flatnonzero(mine != expected)[0])
    owner = np.repeat(np.arange(len(groups)), counts * known)[wrong]
    raise ValueError(
      f'group {groups[owner].source_id!r} has a candidate with {expected[wrong]} '
      f'tokens but {mine[wrong]} token_log_probs: there must be one per token'
    )
  offsets = columns_lib.offsets_of(counts * known)
  values = columns_lib.lists(flat, np.float32)
  sums = columns_lib.segment_sums(columns_lib.concatenate(flat, np.float32), mine)
  # from_arrays reads a null from a null offset.
  missing = np.append(~known, False)
  null_offsets = pa.array(offsets.to_numpy(), pa.int32(), mask=missing)
  return (
    pa.ListArray.from_arrays(null_offsets, values),
    pa.ListArray.from_arrays(null_offsets, pa.array(sums, pa.float32())),
  )


def write_groups(path: paths.PathLike, groups: Sequence[Group]) -> None:
  """Writes one shard, zstd-compressed, in one step.

  Raises:
    ValueError: a source_id occurs twice, or a candidate's log-probabilities
      and tokens differ in number.
  """
  table = to_table(groups)
  candidates = len(table['candidate_lengths'].combine_chunks().flatten())
  per_source = max(1, candidates // max(1, len(groups)))
  columns_lib.write_table(
    path, table, row_group_size=max(1, _CANDIDATES_PER_ROW_GROUP // per_source)
  )


def read_groups(
  path: paths.PathLike,
  *,
  columns: Sequence[str] | None = None,
  rows: np.ndarray | None = None,
) -> list[Group]:
  """Reads a shard, or some of its rows, in the order asked for.

  Args:
    path: a shard.
    columns: fields of Group to read ('source_id' and 'tokens' always are); the
      others are left empty: '', None, () or one '' per candidate. None reads all.
    rows: [num] indices into the shard; only the row groups that hold them are
      read. None reads all.

  Raises:
    ValueError: an unknown field, a row out of range, or a file that is not a
      whole group shard (names it and the remedy).
  """
  fields = tuple(FIELD_COLUMNS) if columns is None else tuple(columns)
  unknown = sorted(set(fields) - set(FIELD_COLUMNS))
  if unknown:
    raise ValueError(
      f'columns {unknown} are not fields of Group; known: {list(FIELD_COLUMNS)}'
    )
  read = {FIELD_COLUMNS[name] for name in (*fields, 'source_id', 'tokens')}
  names = [name for name in SCHEMA.names if name in read]
  table = columns_lib.read_table(path, names, schema=SCHEMA, rows=rows)
  return from_table(table)


def from_table(table: pa.Table) -> list[Group]:
  """The groups of a table with some or all columns of SCHEMA."""
  table = table.combine_chunks()
  present = set(table.column_names)

  def column(field: str) -> pa.Array | None:
    name = FIELD_COLUMNS[field]
    return columns_lib.single(table, name) if name in present else None

  def values(field: str, default: Any) -> list[Any]:
    array = column(field)
    return [default] * table.num_rows if array is None else array.to_pylist()

  identifiers = values('source_id', '')
  tokens = columns_lib.nested_views(column('tokens'))
  counts = [len(candidates) for candidates in tokens]
  blanks = [('',) * count for count in counts]
  source_tokens, finished = column('source_tokens'), column('finished')
  log_probs = column('token_log_probs')
  columns: dict[str, Sequence[Any]] = {
    'source_id': identifiers,
    'source': values('source', ''),
    'source_tokens': columns_lib.views(source_tokens)
    if source_tokens is not None
    else [np.zeros(0, np.int32)] * table.num_rows,
    'reference': values('reference', None),
    'tokens': tokens,
    'finished': columns_lib.views(finished)
    if finished is not None
    else [np.zeros(count, bool) for count in counts],
    'token_log_probs': columns_lib.nested_views(log_probs)
    if log_probs is not None
    else [None] * table.num_rows,
  }
  for field, fallback in (('texts', blanks), ('origins', blanks), ('renderings', None)):
    array = column(field)
    if array is not None:
      columns[field] = columns_lib.string_tuples(array)
    else:
      columns[field] = fallback or [()] * table.num_rows
  names = list(columns)
  return [
    Group(**dict(zip(names, row, strict=True)))
    for row in zip(*columns.values(), strict=True)
  ]


def num_groups(directory: paths.PathLike) -> int:
  """Number of sources in a group set, from the files' metadata alone."""
  return sum(columns_lib.num_rows(path) for path in list_shards(directory))


def iterate_groups(
  directory: paths.PathLike, *, columns: Sequence[str] | None = None
) -> Iterator[Group]:
  """Yields the groups of a set in order, holding one row group at a time."""
  for path in list_shards(directory):
    for start, stop in columns_lib.row_group_ranges(path):
      yield from read_groups(path, columns=columns, rows=np.arange(start, stop))


def write_group_set(
  directory: paths.PathLike, groups: Sequence[Group], *, num_shards: int = 1
) -> None:
  """Writes a whole group set, cut into ranges of sources of nearly equal size."""
  for index, (start, stop) in enumerate(shards.ranges(len(groups), num_shards)):
    write_groups(shard_path(directory, index, num_shards), groups[start:stop])

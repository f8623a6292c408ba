"""Between NumPy and Parquet: lists as offsets and values, never element by element.

A list column is two arrays: offsets [rows + 1] and flat values. Writing
concatenates once; reading hands out views of one flat array.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rest_jax import paths

_COMPRESSION = 'zstd'


def lengths_of(arrays: Sequence[Any]) -> np.ndarray:
  """[num] int64, the length of each item."""
  return np.fromiter(map(len, arrays), np.int64, len(arrays))


def concatenate(arrays: Sequence[Any], dtype: Any) -> np.ndarray:
  """All items in one flat array of `dtype`; no items give an empty one."""
  if not arrays:
    return np.zeros(0, dtype)
  return np.concatenate(arrays).astype(dtype, copy=False)


def offsets_of(lengths: np.ndarray) -> pa.Array:
  """[num + 1] int32 list offsets.

  Raises:
    ValueError: more values than a list column can address.
  """
  ends = np.cumsum(lengths, dtype=np.int64)
  if len(ends) and ends[-1] > np.iinfo(np.int32).max:
    raise ValueError(
      f'{ends[-1]} values in one shard exceed 2^31 - 1: use more, smaller shards'
    )
  return pa.array(np.concatenate([[0], ends]).astype(np.int32))


def lists(arrays: Sequence[Any], dtype: Any) -> pa.Array:
  """A list column from one array per row."""
  values = pa.array(concatenate(arrays, dtype))
  return pa.ListArray.from_arrays(offsets_of(lengths_of(arrays)), values)


def string_lists(rows: Sequence[Sequence[str]]) -> pa.Array:
  """A list<string> column from one sequence of strings per row."""
  flat = [text for row in rows for text in row]
  return pa.ListArray.from_arrays(
    offsets_of(lengths_of(rows)), pa.array(flat, pa.string())
  )


def segment_sums(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """[segments] float64 sums of consecutive runs of `values`; an empty run gives 0.

  A run's sum depends on its own values alone, so an infinity stays in its run.
  """
  sums = np.zeros(len(lengths), np.float64)
  filled = lengths > 0
  if filled.any():
    starts = (np.cumsum(lengths) - lengths)[filled]
    sums[filled] = np.add.reduceat(values.astype(np.float64), starts)
  return sums


def single(table: pa.Table, name: str) -> pa.Array:
  """The column as one array."""
  column = table.column(name).combine_chunks()
  if isinstance(column, pa.ChunkedArray):
    return pa.concat_arrays(column.chunks)
  return column


def flat_numpy(array: pa.Array) -> np.ndarray:
  """The values below one level of lists, in NumPy (booleans are unpacked)."""
  return array.flatten().to_numpy(zero_copy_only=False)


def list_bounds(array: pa.Array) -> np.ndarray:
  """[rows + 1] offsets into the flattened values, which start at 0.

  A null list is empty. (Arrow's own offsets may start elsewhere and skip the
  values behind a null; `flatten` does not.)
  """
  lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
  return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _cut(values: Any, bounds: np.ndarray) -> list[Any]:
  ends = bounds.tolist()
  return [values[a:b] for a, b in itertools.pairwise(ends)]


def views(array: pa.Array) -> list[np.ndarray]:
  """One NumPy view per row of a list column."""
  return _cut(flat_numpy(array), list_bounds(array))


def nested_views(array: pa.Array) -> list[Any]:
  """One tuple of NumPy views per row of a list<list<>> column; None for null."""
  rows = _cut(tuple(views(array.flatten())), list_bounds(array))
  if array.null_count:
    valid = array.is_valid().to_pylist()
    return [row if ok else None for row, ok in zip(rows, valid, strict=True)]
  return rows


def string_tuples(array: pa.Array) -> list[tuple[str, ...]]:
  """One tuple of strings per row of a list<string> column."""
  return _cut(tuple(array.flatten().to_pylist()), list_bounds(array))


def write_table(path: paths.PathLike, table: pa.Table, *, row_group_size: int) -> None:
  """Writes a table as Parquet (zstd), in one step, with a checksum of every page."""
  with paths.write_aside(path) as local:
    pq.write_table(
      table,
      local,
      compression=_COMPRESSION,
      row_group_size=row_group_size,
      write_page_checksum=True,
    )


@contextlib.contextmanager
def open_parquet(path: paths.PathLike) -> Iterator[pq.ParquetFile]:
  """Opens a Parquet file, local or remote.

  Raises:
    ValueError: the file is missing, cut short, changed since it was written, or not
      Parquet, also where that shows only while the block reads.
  """
  target = paths.as_path(path)
  if not target.exists():
    raise ValueError(f'{target} does not exist: run the stage that writes it again')
  try:
    with contextlib.ExitStack() as stack:
      where: Any = os.fspath(target)
      if paths.is_remote(target):
        where = stack.enter_context(paths.open_binary(target))
      yield stack.enter_context(pq.ParquetFile(where, page_checksum_verification=True))
  except (pa.ArrowException, OSError) as error:
    if isinstance(error, OSError) and error.errno:
      raise  # the disk's own error, not the file's
    raise ValueError(
      f'{target} is damaged or no Parquet file ({_first_line(error)}): remove it and '
      'run the stage that writes it again'
    ) from error


def _first_line(error: Exception) -> str:
  return str(error).split('\n', 1)[0].rstrip('.')


def num_rows(path: paths.PathLike) -> int:
  """Rows of a Parquet file, from its metadata."""
  with open_parquet(path) as file:
    return file.metadata.num_rows


def row_group_ranges(path: paths.PathLike) -> list[tuple[int, int]]:
  """(first row, end) of each row group, from the metadata."""
  with open_parquet(path) as file:
    return _ranges(file)


def _ranges(file: pq.ParquetFile) -> list[tuple[int, int]]:
  metadata = file.metadata
  sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
  ends = np.cumsum([0, *sizes]).tolist()
  return list(itertools.pairwise(ends))


def read_table(
  path: paths.PathLike,
  names: Sequence[str],
  *,
  schema: pa.Schema,
  rows: np.ndarray | None = None,
) -> pa.Table:
  """Reads columns, of all rows or of the row groups that hold `rows`.

  Raises:
    ValueError: a damaged file, one without a column or with another type in
      it, or a row out of range.
  """
  target = paths.as_path(path)
  with open_parquet(target) as file:
    found = file.schema_arrow
    for name in names:
      have = found.field(name).type if name in found.names else 'nothing'
      if have != schema.field(name).type:
        raise ValueError(
          f'{target} has {have} in column {name!r}, {schema.field(name).type} is '
          'needed: it is not the expected kind of shard, or an older format'
        )
    if rows is None:
      return file.read(columns=list(names), use_threads=True)
    wanted = np.asarray(rows, np.int64)
    total = file.metadata.num_rows
    if len(wanted) and not (0 <= wanted.min() and wanted.max() < total):
      bad = wanted[(wanted < 0) | (wanted >= total)][0]
      raise ValueError(f'row {bad} is not in {target}, which has {total} rows')
    spans = np.array(_ranges(file), np.int64).reshape(-1, 2)
    owner = np.searchsorted(spans[:, 1], wanted, side='right')
    used = np.unique(owner)
    table = file.read_row_groups(used.tolist(), columns=list(names))
    sizes = spans[used, 1] - spans[used, 0]
    first = np.cumsum(sizes) - sizes  # of each used row group, in `table`
    place = first[np.searchsorted(used, owner)] + wanted - spans[owner, 0]
    if np.array_equal(place, np.arange(table.num_rows)):
      return table
    return table.take(place)

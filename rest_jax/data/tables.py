"""Rows of tab-separated text with a header, or of JSON lines; errors name the line."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rest_jax import paths
from rest_jax.data import text_files


class Row(NamedTuple):
  """One row, and where it stands."""

  where: str  # file and line, for messages
  cells: dict[str, Any]  # texts of tab-separated cells, JSON values of JSON lines


def rows(path: paths.PathLike, columns: Sequence[str]) -> Iterator[Row]:
  """Yields the rows of a table, plain or .gz.

  A file whose first line opens with '{' is JSON lines. Tab-separated text has no
  quoting. Blank lines are skipped, other columns are kept.

  Args:
    path: the file.
    columns: names that must be there.

  Raises:
    ValueError: a missing column (lists those there), a row of another width, a line
      that is not a JSON object: names file and line.
  """
  numbered = (
    (f'{path}, line {number}', line)
    for number, line in enumerate(text_files.whole_lines(path), start=1)
  )
  filled = ((where, line) for where, line in numbered if line.strip())
  first = next(filled, None)
  if first is None:
    return
  if first[1].lstrip().startswith('{'):
    for where, line in itertools.chain([first], filled):
      yield Row(where, _json_cells(line, columns, where))
    return
  header = first[1].split('\t')
  _check_columns(header, columns, first[0])
  for where, line in filled:
    cells = line.split('\t')
    if len(cells) != len(header):
      raise ValueError(
        f'{where}: {len(cells)} tab-separated cells where the header has '
        f'{len(header)}: tabs and newlines inside a text must be removed'
      )
    yield Row(where, dict(zip(header, cells, strict=True)))


def text(row: Row, column: str) -> str:
  """The text in a column.

  Raises:
    ValueError: the cell is not a text.
  """
  value = row.cells[column]
  if not isinstance(value, str):
    raise ValueError(f'{row.where}: {column} {value!r} must be a text')
  return value


def optional_text(row: Row, column: str | None) -> str | None:
  """The text in a column that need not be there, or None; an empty one is None too."""
  if column is None or row.cells.get(column) in (None, ''):
    return None
  return text(row, column)


def _json_cells(line: str, columns: Sequence[str], where: str) -> dict[str, Any]:
  try:
    cells = json.loads(line)
  except json.JSONDecodeError as error:
    message = f'{where}: not JSON ({error.msg}): write one object a line'
    raise ValueError(message) from error
  if not isinstance(cells, dict):
    raise ValueError(f'{where}: a JSON object is needed, got {type(cells).__name__}')
  _check_columns(list(cells), columns, where)
  return cells


def _check_columns(found: list[str], columns: Sequence[str], where: str) -> None:
  missing = [name for name in columns if name not in found]
  if missing:
    raise ValueError(
      f'{where}: no column {missing[0]!r}; there are {found}: rename it in the file or '
      'name yours'
    )

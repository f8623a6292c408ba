"""Reading lines of text, aligned files and ratings; errors name file and line."""

import contextlib
import dataclasses
import gzip
import itertools
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from rest_jax import paths


def existing(path: paths.PathLike) -> epath.Path:
  """`path`, checked to be a file.

  Raises:
    ValueError: there is none.
  """
  target = paths.as_path(path)
  if not target.exists() or target.is_dir():
    raise ValueError(f'{target} is not a file: check the path')
  return target


def lines(path: paths.PathLike, *, encoding: str = 'utf-8') -> Iterator[str]:
  """Yields the lines of a plain or .gz file, without surrounding white space.

  Only a newline byte ends a line (U+2028 and the like do not), so aligned files
  stay aligned. A byte order mark is dropped.

  Raises:
    ValueError: a missing file, a line that does not decode, a damaged archive,
      an unknown encoding.
  """
  return map(str.strip, _whole_lines(path, encoding))


def _whole_lines(path: paths.PathLike, encoding: str) -> Iterator[str]:
  """Lines without their newline, other white space kept (a cell may be empty)."""
  target = existing(path)
  number = 0
  try:
    with paths.open_binary(target) as raw, contextlib.ExitStack() as stack:
      handle: Iterable[bytes] = raw
      if target.name.endswith('.gz'):
        handle = stack.enter_context(gzip.GzipFile(fileobj=raw))
      for number, line in enumerate(handle, start=1):
        text = line.decode(encoding)
        text = text.removeprefix('\ufeff') if number == 1 else text
        yield text.removesuffix('\n').removesuffix('\r')
  except UnicodeDecodeError as error:
    raise ValueError(
      f'{target}, line {number}: byte {error.object[error.start]:#04x} is not '
      f'{encoding}: convert the file, or name its encoding'
    ) from error
  except LookupError as error:
    raise ValueError(
      f"encoding {encoding!r} is unknown to Python; for example 'utf-8', 'latin-1'"
    ) from error
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise ValueError(
      f'{target}, after line {number}: the archive is damaged ({error}): fetch it again'
    ) from error


def parallel_lines(
  source: paths.PathLike, target: paths.PathLike, *, encoding: str = 'utf-8'
) -> Iterator[tuple[str, str]]:
  """Yields the lines of two aligned files side by side.

  Raises:
    ValueError: on ending, when one file is longer; names both and their counts.
  """
  counts = [0, 0]
  for left, right in itertools.zip_longest(
    lines(source, encoding=encoding), lines(target, encoding=encoding)
  ):
    counts[0] += left is not None
    counts[1] += right is not None
    if left is not None and right is not None:
      yield left, right
  if counts[0] != counts[1]:
    raise ValueError(
      f'{source} has {counts[0]} lines but {target} has {counts[1]}: aligned files '
      'have one line each per pair'
    )


@dataclasses.dataclass(frozen=True)
class RatedCandidate:
  """One judgement of one candidate."""

  source: str
  candidate: str
  rating: float


def read_ratings(
  path: paths.PathLike,
  *,
  source_column: str = 'source',
  candidate_column: str = 'candidate',
  rating_column: str = 'rating',
) -> list[RatedCandidate]:
  """Reads ratings: tab-separated with a header, or JSON lines; plain or .gz.

  A file whose first line opens with '{' is JSON lines. Tab-separated text has no
  quoting. Several raters of one candidate are several rows. Blank lines are
  skipped.

  Args:
    path: the file.
    source_column: name of the source's column or key.
    candidate_column: likewise for the candidate.
    rating_column: likewise for the rating.

  Raises:
    ValueError: a missing column (lists those there), a rating that is not a
      finite number, a row of another width: names file and line. An empty file.
  """
  names = (source_column, candidate_column, rating_column)
  rows = _rating_rows(paths.as_path(path), names)
  ratings = [_rated(values, names, where) for where, values in rows]
  if not ratings:
    raise ValueError(f'{path} holds no rating: check the file')
  return ratings


def _rating_rows(
  path: epath.Path, names: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
  numbered = (
    (f'{path}, line {number}', line)
    for number, line in enumerate(_whole_lines(path, 'utf-8'), start=1)
  )
  filled = ((where, line) for where, line in numbered if line.strip())
  first = next(filled, None)
  if first is None:
    return
  if first[1].lstrip().startswith('{'):
    for where, line in itertools.chain([first], filled):
      yield where, _json_row(line, names, where)
    return
  header = first[1].split('\t')
  _check_columns(header, names, first[0])
  for where, line in filled:
    cells = line.split('\t')
    if len(cells) != len(header):
      raise ValueError(
        f'{where}: {len(cells)} tab-separated cells where the header has '
        f'{len(header)}: tabs and newlines inside a text must be removed'
      )
    yield where, dict(zip(header, cells, strict=True))


def _json_row(line: str, names: tuple[str, ...], where: str) -> dict[str, Any]:
  try:
    row = json.loads(line)
  except json.JSONDecodeError as error:
    message = f'{where}: not JSON ({error.msg}): write one object a line'
    raise ValueError(message) from error
  if not isinstance(row, dict):
    raise ValueError(f'{where}: a JSON object is needed, got {type(row).__name__}')
  _check_columns(list(row), names, where)
  return row


def _check_columns(found: list[str], names: tuple[str, ...], where: str) -> None:
  missing = [name for name in names if name not in found]
  if missing:
    raise ValueError(
      f'{where}: no column {missing[0]!r}; there are {found}: rename it in the file or '
      'name yours'
    )


def _rated(row: dict[str, Any], names: tuple[str, ...], where: str) -> RatedCandidate:
  source, candidate, value = (row[name] for name in names)
  for name, text in zip(names[:2], (source, candidate), strict=True):
    if not isinstance(text, str):
      raise ValueError(f'{where}: {name} {text!r} must be a text')
  try:
    if isinstance(value, bool):
      raise TypeError
    rating = float(value)
  except (TypeError, ValueError):
    rating = math.nan
  if not math.isfinite(rating):
    raise ValueError(
      f'{where}: {names[2]} {value!r} is not a finite number: remove or mend that row'
    )
  return RatedCandidate(source, candidate, rating)

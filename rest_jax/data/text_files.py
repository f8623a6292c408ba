"""Reading lines of text and aligned files; errors name file and line."""

import contextlib
import gzip
import itertools
import zlib
from collections.abc import Iterable, Iterator

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
  return map(str.strip, whole_lines(path, encoding=encoding))


def whole_lines(path: paths.PathLike, *, encoding: str = 'utf-8') -> Iterator[str]:
  """As `lines`, but white space is kept (a cell of a table may be empty)."""
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

"""Human judgements of candidates, as files hold them: ratings and preferences.

A **judgement** is one rater's number for one candidate. A reader is a small frozen
object: `reader(path)` returns judgements, `identity()` the JSON parameters that enter a
fingerprint. That of MQM is in `multidimensional_quality`; one of your
own needs these two methods. Errors name the file, the line and the rule.
"""

import collections
import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from rest_jax import paths
from rest_jax.data import tables


@dataclasses.dataclass(frozen=True)
class Judgement:
  """One judgement of one candidate."""

  source: str
  candidate: str
  rating: float
  rater: str | None = None  # ratings of one rater may be compared with one another
  reference: str | None = None
  source_id: str | None = None  # in the group set whose candidates were judged
  where: str = dataclasses.field(default='', compare=False)  # file and line


class Reader(Protocol):
  """What every reader is."""

  def __call__(self, path: paths.PathLike) -> list[Judgement]:
    """Returns the judgements of a file, plain or .gz."""
    ...

  def identity(self) -> dict[str, Any]:
    """JSON values that tell this reader from others."""
    ...


@dataclasses.dataclass(frozen=True)
class Ratings:
  """Direct assessment: tab-separated with a header, or JSON lines.

  A row holds one rating; or a list of them, [70, 81, 64], one for each rater; or has a
  column for each rater. Several rows of one candidate are several raters.

  Args:
    source_column, candidate_column: their names in the file.
    rating_column: of the rating or the list; or a tuple of columns, one for each
      rater, whose cells may be empty.
    rater_column: who rated; with lists a list of equal length. None: the place in the
      list or the name of the column stands for the rater.
    reference_column: of a reference translation.
    source_id_column: of the source's id in a group set, see `read_ratings`.
    id_column: of the row's id, which must not occur twice, or not twice by one rater
      where there is a rater_column.
    rating_range: (lowest, highest) that a rating may be, such as (0, 100).
    normalise_raters: replaces each rating by (rating - mean) / standard deviation of
      all ratings by its rater in the file. A rater whose ratings are all equal gets 0.

  Raises:
    ValueError: when read: a missing column (lists those there), a rating that is not a
      finite number or out of range, a row of another width, an id that occurs twice:
      names file and line. An empty file.
  """

  source_column: str = 'source'
  candidate_column: str = 'candidate'
  rating_column: str | tuple[str, ...] = 'rating'
  rater_column: str | None = None
  reference_column: str | None = None
  source_id_column: str | None = None
  id_column: str | None = None
  rating_range: tuple[float, float] | None = None
  normalise_raters: bool = False

  def __post_init__(self) -> None:
    if not isinstance(self.rating_column, str):
      object.__setattr__(self, 'rating_column', tuple(self.rating_column))
      if self.rater_column is not None:
        raise ValueError(
          f'Ratings(rating_column={self.rating_column}) has a column for each rater: '
          'leave rater_column out'
        )
    if self.rating_range is not None:
      low, high = self.rating_range
      object.__setattr__(self, 'rating_range', (low, high))
      if not low < high:
        raise ValueError(f'rating_range={self.rating_range} must be (lowest, highest)')

  def identity(self) -> dict[str, Any]:
    """The columns, and what else is set."""
    columns = [self.source_column, self.candidate_column, self.rating_column]
    defaults = Ratings()
    names = [field.name for field in dataclasses.fields(self)][len(columns) :]
    return {'columns': columns} | {
      name: value
      for name in names
      if (value := getattr(self, name)) != getattr(defaults, name)
    }

  def __call__(self, path: paths.PathLike) -> list[Judgement]:
    """Reads a file."""
    ratings = (
      (self.rating_column,)
      if isinstance(self.rating_column, str)
      else self.rating_column
    )
    columns = [self.source_column, self.candidate_column, *ratings]
    optional = (
      self.rater_column,
      self.reference_column,
      self.source_id_column,
      self.id_column,
    )
    columns += [name for name in optional if name is not None]
    seen: dict[Any, str] = {}
    judgements: list[Judgement] = []
    for row in tables.rows(path, columns):
      rated = list(self._rated(row))
      if self.id_column is not None:
        for rater, _ in rated:
          _check_new((row.cells[self.id_column], rater), row, seen)
      for rater, rating in rated:
        judgements.append(
          Judgement(
            source=tables.text(row, self.source_column),
            candidate=tables.text(row, self.candidate_column),
            rating=rating,
            rater=rater,
            reference=tables.optional_text(row, self.reference_column),
            source_id=tables.optional_text(row, self.source_id_column),
            where=row.where,
          )
        )
    if not judgements:
      raise ValueError(f'{path} holds no rating: check the file')
    return _normalised(judgements) if self.normalise_raters else judgements

  def _rated(self, row: tables.Row) -> Iterator[tuple[str | None, float]]:
    """Yields (rater, rating) of a row."""
    if not isinstance(self.rating_column, str):
      for column in self.rating_column:
        if row.cells[column] not in (None, ''):
          yield column, self._number(row, column, row.cells[column])
      return
    column, rater_column = self.rating_column, self.rater_column
    value = _list_or_value(row.cells[column])
    raters = rater_column and _list_or_value(row.cells[rater_column])
    if not isinstance(value, list):
      yield raters and str(raters), self._number(row, column, value)
      return
    if rater_column is None:
      raters = [str(place) for place in range(len(value))]
    if not isinstance(raters, list) or len(raters) != len(value):
      raise ValueError(
        f'{row.where}: {len(value)} ratings in {column} but {raters!r} in '
        f'{rater_column}: there must be a list with a rater for each'
      )
    for rater, number in zip(raters, value, strict=True):
      yield str(rater), self._number(row, column, number)

  def _number(self, row: tables.Row, column: str, value: Any) -> float:
    try:
      if isinstance(value, bool):
        raise TypeError
      rating = float(value)
    except (TypeError, ValueError):
      rating = math.nan
    if not math.isfinite(rating):
      raise ValueError(
        f'{row.where}: {column} {value!r} is not a finite number: remove or mend that '
        'row'
      )
    if self.rating_range is not None:
      low, high = self.rating_range
      if not low <= rating <= high:
        raise ValueError(
          f'{row.where}: {column} {value!r} is outside the range {low:g} to {high:g} '
          'of rating_range: mend that row, or declare another range'
        )
    return rating


@dataclasses.dataclass(frozen=True)
class Preferences:
  """Preference pairs: JSON lines {source, chosen, rejected[, reference, rater]}.

  Each line becomes two judgements by a rater of its own, 1 for the chosen candidate and
  0 for the rejected one: the mean of a candidate is how often it won, and what was
  compared stays known (`reward_objectives.GivenPairs`). `source_id` may name the source
  in a group set, see `read_ratings`.

  Raises:
    ValueError: when read: a missing key, a text that is none, two equal candidates, a
      pair that one rater judged twice: names file and line. An empty file.
  """

  def identity(self) -> dict[str, Any]:
    """The name of the format."""
    return {'format': 'preferences'}

  def __call__(self, path: paths.PathLike) -> list[Judgement]:
    """Reads a file."""
    seen: dict[Any, str] = {}
    judgements: list[Judgement] = []
    for number, row in enumerate(
      tables.rows(path, ['source', 'chosen', 'rejected']), start=1
    ):
      source = tables.text(row, 'source')
      pair = tables.text(row, 'chosen'), tables.text(row, 'rejected')
      if pair[0] == pair[1]:
        raise ValueError(
          f'{row.where}: chosen and rejected are both {pair[0]!r}: a preference needs '
          'two candidates; remove that line'
        )
      rater = tables.optional_text(row, 'rater')
      if rater is not None:
        _check_new((source, frozenset(pair), rater), row, seen)
      for candidate, rating in zip(pair, (1.0, 0.0), strict=True):
        judgements.append(
          Judgement(
            source=source,
            candidate=candidate,
            rating=rating,
            rater=f'comparison {number}',
            reference=tables.optional_text(row, 'reference'),
            source_id=tables.optional_text(row, 'source_id'),
            where=row.where,
          )
        )
    if not judgements:
      raise ValueError(f'{path} holds no preference: check the file')
    return judgements


class Judged(NamedTuple):
  """A source with the candidates that were judged."""

  source: str
  reference: str | None
  candidates: tuple[str, ...]  # different from one another
  ratings: np.ndarray  # [samples] float32, means over all judgements of each
  by_rater: np.ndarray  # [samples, raters] float32, their means; NaN where none


def group(judgements: Sequence[Judgement]) -> list[Judged]:
  """Judgements by source (and reference), in the order of their first appearance."""
  sources: dict[tuple[str, str | None], dict[str, list[Judgement]]] = {}
  for one in judgements:
    candidates = sources.setdefault((one.source, one.reference), {})
    candidates.setdefault(one.candidate, []).append(one)
  groups = []
  for (source, reference), candidates in sources.items():
    raters = list(
      dict.fromkeys(
        one.rater for ones in candidates.values() for one in ones if one.rater
      )
    )
    by_rater = np.full((len(candidates), len(raters)), np.nan, np.float32)
    for row, ones in enumerate(candidates.values()):
      of_rater = collections.defaultdict(list)
      for one in ones:
        of_rater[one.rater].append(one.rating)
      for column, rater in enumerate(raters):
        if rater in of_rater:
          by_rater[row, column] = np.mean(of_rater[rater])
    means = [np.mean([one.rating for one in ones]) for ones in candidates.values()]
    groups.append(
      Judged(
        source, reference, tuple(candidates), np.array(means, np.float32), by_rater
      )
    )
  return groups


def _list_or_value(cell: Any) -> Any:
  """The list that a text like '[70, 81]' spells; other values as they are."""
  if isinstance(cell, str) and cell.lstrip().startswith('['):
    try:
      return json.loads(cell)
    except json.JSONDecodeError:
      return cell
  return cell


def _check_new(key: Any, row: tables.Row, seen: dict[Any, str]) -> None:
  """Notes a key; raises ValueError where it was there before."""
  if key in seen:
    raise ValueError(
      f'{row.where}: this was judged before, in {seen[key]}, under the same id or by '
      'the same rater: remove one of the two'
    )
  seen[key] = row.where


def _normalised(judgements: Sequence[Judgement]) -> list[Judgement]:
  """Each rating in standard deviations of its rater's ratings."""
  of_rater = collections.defaultdict(list)
  for one in judgements:
    if one.rater is None:
      raise ValueError(
        f'{one.where}: nothing says who rated, so raters cannot be normalised: name a '
        'rater_column, or set normalise_raters=False'
      )
    of_rater[one.rater].append(one.rating)
  means = {rater: float(np.mean(values)) for rater, values in of_rater.items()}
  # Equal ratings differ from their mean by rounding alone.
  stddevs = {
    rater: float(np.std(values)) if len(set(values)) > 1 else math.inf
    for rater, values in of_rater.items()
  }
  return [
    dataclasses.replace(
      one, rating=(one.rating - means[one.rater]) / stddevs[one.rater]
    )
    for one in judgements
    if one.rater is not None
  ]

"""MQM: judgements out of the errors that raters marked, in Google's format."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from rest_jax import paths
from rest_jax.data import judgements, tables

COLUMNS = (
  'system',
  'doc',
  'doc_id',
  'seg_id',
  'rater',
  'source',
  'target',
  'category',
  'severity',
)
SEVERITIES = ('major', 'minor', 'neutral', 'no-error')
_SPAN = re.compile(r'</?v>')  # around the words that an error is in


def standard_weight(category: str, severity: str) -> float:
  """The weight of an error, 0 to 25; letter case does not matter.

  Non-translation 25; else major 5; minor 1, but minor punctuation 0.1; neutral and
  no-error 0.

  Source: Freitag et al. 2021 (arXiv:2104.14478), whose weights these are.

  Raises:
    ValueError: an unknown severity.
  """
  category, severity = category.strip().lower(), severity.strip().lower()
  if severity not in SEVERITIES:
    raise ValueError(f'severity {severity!r} is unknown; known: {list(SEVERITIES)}')
  if category.startswith('non-translation'):
    return 25.0
  if severity == 'minor' and category == 'fluency/punctuation':
    return 0.1
  return {'major': 5.0, 'minor': 1.0}.get(severity, 0.0)


@dataclasses.dataclass(frozen=True)
class MqmErrors:
  """Multidimensional quality metrics: a row for each error that a rater marked.

  rating of a rater = -sum of the weights of the errors in a segment

  so 0 is the best. A segment without an error has a row of severity no-error. The marks
  <v> and </v> around an error's words are removed, so that the systems' translations of
  a segment form a group. Source: github.com/google/wmt-mqm-human-evaluation.

  Args:
    weight_fn: (category, severity) -> weight; a named function.

  Raises:
    ValueError: when read: a missing column, an unknown severity, a segment whose rows
      have different texts: names file and line. An empty file.
  """

  weight_fn: Callable[[str, str], float] = standard_weight

  def identity(self) -> dict[str, Any]:
    """The name of the format, and the weights."""
    weights = f'{self.weight_fn.__module__}.{self.weight_fn.__qualname__}'
    return {'format': 'mqm', 'weight_fn': weights}

  def __call__(self, path: paths.PathLike) -> list[judgements.Judgement]:
    """Reads a file."""
    rated: dict[tuple[str, ...], judgements.Judgement] = {}
    for row in tables.rows(path, COLUMNS):
      cells = {name: tables.text(row, name) for name in COLUMNS}
      key = tuple(cells[name] for name in COLUMNS[:5])
      source, target = (_SPAN.sub('', cells[name]) for name in ('source', 'target'))
      try:
        weight = self.weight_fn(cells['category'], cells['severity'])
      except ValueError as error:
        raise ValueError(f'{row.where}: {error}') from error
      before = rated.setdefault(
        key,
        judgements.Judgement(source, target, 0.0, cells['rater'], where=row.where),
      )
      if (before.source, before.candidate) != (source, target):
        raise ValueError(
          f'{row.where}: system, document, segment and rater are those of '
          f'{before.where}, but the texts differ: a segment has one source and one '
          'target'
        )
      rated[key] = dataclasses.replace(before, rating=before.rating - weight)
    if not rated:
      raise ValueError(f'{path} holds no judgement: check the file')
    return list(rated.values())

"""Ratings as files, in the columns that `data.judgements.Ratings` reads.

One row for each rater and candidate: source, candidate, rating; then rater, source_id,
systems (all that gave this candidate), submitted.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rest_jax import paths
from rest_jax.annotation import database as database_lib
from rest_jax.annotation import items as items_lib

COLUMNS = (
  'source',
  'candidate',
  'rating',
  'rater',
  'source_id',
  'systems',
  'submitted',
)
_SPACES = str.maketrans(dict.fromkeys('\t\n\r', ' '))


def rows(
  items: items_lib.Items, ratings: Sequence[database_lib.Rating]
) -> Iterator[dict[str, Any]]:
  """A row with COLUMNS for each rating, in the order of the ratings."""
  shown = {
    candidate.candidate_id: (source, candidate)
    for source in items.sources
    for candidate in source.candidates
  }
  makers: dict[str, list[str]] = {}
  for output in items.outputs:
    systems = makers.setdefault(output.candidate_id, [])
    if output.system not in systems:
      systems.append(output.system)
  for rating in ratings:
    source, candidate = shown[rating.candidate_id]
    yield {
      'source': source.source,
      'candidate': candidate.text,
      'rating': rating.rating,
      'rater': rating.rater,
      'source_id': source.source_id,
      'systems': makers[rating.candidate_id],
      'submitted': rating.submitted,
    }


def write_jsonl(
  path: paths.PathLike,
  items: items_lib.Items,
  ratings: Sequence[database_lib.Rating],
) -> None:
  """Writes JSON lines; texts as they are."""
  with paths.open_atomic(path) as handle:
    for row in rows(items, ratings):
      handle.write(json.dumps(row, ensure_ascii=False) + '\n')


def write_tsv(
  path: paths.PathLike,
  items: items_lib.Items,
  ratings: Sequence[database_lib.Rating],
) -> int:
  """Writes tab-separated text without quoting, a header first.

  A tab or newline inside a text would end its cell, and becomes a space.

  Returns:
    How many rows were changed so.
  """
  changed = 0
  with paths.open_atomic(path) as handle:
    handle.write('\t'.join(COLUMNS) + '\n')
    for row in rows(items, ratings):
      row['systems'] = ','.join(row['systems'])
      cells = [str(row[name]) for name in COLUMNS]
      plain = [cell.translate(_SPACES) for cell in cells]
      changed += cells != plain
      handle.write('\t'.join(plain) + '\n')
  return changed

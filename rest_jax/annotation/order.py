"""In which order a rater sees what is rated: random, and a function of identity.

A rater's order depends on the seed, the rater's name and the items' ids. It is the same
after a restart, another for the next rater, and says nothing of which system made what.
"""

import dataclasses
from collections.abc import Sequence

from rest_jax.annotation import items as items_lib

SIDE_BY_SIDE = 'side_by_side'
SINGLE = 'single'
VIEWS = (SIDE_BY_SIDE, SINGLE)


@dataclasses.dataclass(frozen=True)
class Task:
  """What is on the screen at a time: a source and one or more of its candidates."""

  source: items_lib.Source
  candidates: tuple[items_lib.Candidate, ...]


def check_view(view: str) -> None:
  """Raises ValueError for a view that there is not."""
  if view not in VIEWS:
    raise ValueError(f'view={view!r} is unknown; choose one of {", ".join(VIEWS)}')


def tasks(
  sources: Sequence[items_lib.Source], *, rater: str, seed: int, view: str
) -> list[Task]:
  """All tasks of a rater, those of shared sources first.

  Args:
    sources: what is rated.
    rater: the rater's name.
    seed: of the study.
    view: 'side_by_side' shows a source with all of its candidates, 'single' with one
      candidate, so that candidates are not compared.

  Raises:
    ValueError: an unknown view.
  """
  check_view(view)

  def place(identifier: str) -> str:
    return items_lib.digest(seed, 'order', rater, identifier)

  shuffled = [
    (source, tuple(sorted(source.candidates, key=lambda c: place(c.candidate_id))))
    for source in sources
  ]
  if view == SIDE_BY_SIDE:
    made = [Task(source, candidates) for source, candidates in shuffled]
    return sorted(made, key=lambda t: (not t.source.shared, place(t.source.source_id)))
  made = [Task(source, (one,)) for source, candidates in shuffled for one in candidates]
  return sorted(
    made, key=lambda t: (not t.source.shared, place(t.candidates[0].candidate_id))
  )

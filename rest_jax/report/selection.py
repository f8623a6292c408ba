"""Best-of-N in the report: the table of judges and N, and what it says of figure 6."""

from collections.abc import Sequence

from rest_jax.report.data import Record, number


def selection_rows(selections: Sequence[Record]) -> list[Record]:
  """One row for each judge and N: {judge, n, cells: one record per policy, or None}."""
  found: dict[tuple[str, int], list[Record | None]] = {}
  for place, selection in enumerate(selections):
    for row in selection['rows']:
      key = (row['judge'], row['n'])
      found.setdefault(key, [None] * len(selections))[place] = row
  return [
    {'judge': judge, 'n': n, 'cells': cells} for (judge, n), cells in found.items()
  ]


def reaching(selections: Sequence[Record], judge: str = 'reward') -> str | None:
  """Figure 6 of the paper as a sentence: how few samples the last policy needs.

  Compares the reward of the best of N of the last policy with the first one's at its
  largest N. None where there are not two policies, or the judge has no rewards.
  """
  if len(selections) < 2:
    return None
  first, last = (
    [
      (row['n'], value)
      for row in selection['rows']
      if row['judge'] == judge and (value := number(row, 'reward_mean')) is not None
    ]
    for selection in (selections[0], selections[-1])
  )
  if not first or not last:
    return None
  most, goal = max(first)
  base, policy = selections[0]['policy'], selections[-1]['policy']
  enough = [n for n, value in sorted(last) if value >= goal]
  if not enough:
    best = max(value for _, value in last)
    return (
      f'{policy} does not reach the reward of {base} with the best of {most} samples '
      f'({goal:.3f}): it comes to {best:.3f}.'
    )
  return (
    f'{policy} reaches with the best of {enough[0]} what {base} reaches with the best '
    f'of {most} (reward {goal:.3f}).'
  )

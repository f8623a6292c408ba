"""What the probes found: a figure and examples for the page, a table for the terminal.

`summary["probes"]` is null, or {name (of the artifact), scorer, split, num_sources,
overall, rows}, where a row is {name, pairs, sources, share, interval, ties, gap,
not_applicable, left_out, worst: [{source_id, source, better, worse, reward_better,
reward_worse}]}. Shares, their intervals and ties run from 0 to 1; the gap has the
scorer's units.
"""

from collections.abc import Sequence

import numpy as np
import rich.box
import rich.console
import rich.table
import rich.text

from rest_jax.report import formatting
from rest_jax.report.data import Record, ReportData, interval, number
from rest_jax.report.drawing import Drawing, Panel, error_arms
from rest_jax.report.style import COLOUR, new_axes
from rest_jax.report.table import plain

MAX_COLUMNS = 110  # characters, where the output is not a terminal
CHANCE = 0.5


def label(row: Record) -> str:
  """'copied source'."""
  return str(row['name']).replace('_', ' ')


def poor_rows(probes: Record) -> list[Record]:
  """The probes that are not surely ranked better than by a coin."""
  bounds = [(row, interval(row, 'interval')) for row in probes['rows']]
  return [row for row, ends in bounds if ends is not None and ends[0] <= CHANCE]


def probe_shares(data: ReportData) -> Drawing | None:
  """The share of pairs that the scorer ranks rightly, for each probe."""
  probes = data.summary.get('probes')
  if not probes:
    return None
  rows = [row for row in probes['rows'] if number(row, 'share') is not None]
  if not rows:
    return None
  figure, axes = new_axes(wide=True, height=0.9 + 0.25 * len(rows))
  poor = {row['name'] for row in poor_rows(probes)}
  places = np.arange(len(rows))
  shares = np.array([100 * row['share'] for row in rows])
  arms = 100 * error_arms(rows, 'share', 'interval')
  words = []
  for members, colour, marker, gid in (
    ([row['name'] not in poor for row in rows], COLOUR['proxy'], 'o', 'share'),
    ([row['name'] in poor for row in rows], COLOUR['alarm'], '^', 'poor-share'),
  ):
    chosen = np.flatnonzero(members)
    points = axes.errorbar(
      shares[chosen],
      places[chosen],
      xerr=arms[:, chosen],
      fmt=marker,
      color=colour,
      ecolor=colour,
      elinewidth=1.4,
      capsize=3.5,
      capthick=1.4,
      zorder=3,
    )
    points.lines[0].set_gid(gid)
  for row in rows:
    low, high = interval(row, 'interval') or (row['share'], row['share'])
    words.append(
      f'{label(row)} {formatting.percent(row["share"])} '
      f'({formatting.percent(low)} to {formatting.percent(high)})'
    )
  axes.axvline(
    100 * CHANCE,
    color=COLOUR['muted'],
    linewidth=1.2,
    linestyle=(0, (4, 3)),
    gid='chance',
  )
  axes.text(
    100 * CHANCE,
    1.01,
    'a coin',
    transform=axes.get_xaxis_transform(),
    ha='center',
    va='bottom',
    fontsize=8.5,
    color=COLOUR['muted'],
  )
  axes.set_yticks(places, [label(row) for row in rows])
  axes.set_ylim(len(rows) - 0.5, -0.5)
  axes.set_xlim(-2, 102)
  axes.grid(axis='x', visible=True)
  axes.set_xlabel('pairs ranked rightly (%)')
  caption = (
    'Of pairs of a correct translation and one with a known flaw, the share in which '
    f'the scorer {probes["scorer"]} gives the correct one more reward, with 95 % '
    'intervals; a tie counts half.'
  )
  if poor:
    caption += ' ▲ marks probes that are not surely ranked better than by a coin.'
  return Drawing(
    'probes',
    'What the reward sees',
    caption,
    (Panel(figure, f'Pairs ranked rightly: {"; ".join(words)}.', wide=True),),
  )


def probes_table(
  probes: Record, *, ascii_only: bool = False, narrow: bool = False
) -> rich.table.Table:
  """One row for each probe; '!' marks those that are not surely better than a coin."""
  table = rich.table.Table(
    box=rich.box.ASCII2 if ascii_only else rich.box.SIMPLE_HEAD,
    pad_edge=ascii_only,
    padding=(0, 1),
  )
  cells = {
    'pairs': lambda row: formatting.count(number(row, 'pairs')),
    'ranked rightly': _share,
    'ties': lambda row: formatting.percent(number(row, 'ties')),
    'mean gap': lambda row: formatting.score(number(row, 'gap')),
    'does not apply': lambda row: formatting.count(number(row, 'not_applicable')),
    'left out': lambda row: formatting.count(number(row, 'left_out')),
  }
  if narrow:
    cells = {name: cells[name] for name in ('pairs', 'ranked rightly')}
  table.add_column('probe', overflow='fold', min_width=12)
  for name in cells:
    table.add_column(plain(name, ascii_only), justify='right', no_wrap=True)
  poor = {row['name'] for row in poor_rows(probes)}
  for row in probes['rows']:
    bad = row['name'] in poor
    texts = [
      str(row['name']) + (' !' if bad else ''),
      *(f(row) for f in cells.values()),
    ]
    table.add_row(
      *(rich.text.Text(plain(text, ascii_only)) for text in texts),
      style='red' if bad else None,
    )
  return table


def print_probes(probes: Record, console: rich.console.Console | None = None) -> None:
  """Prints the table and the overall share, and says which probes are failed.

  Plain ASCII where the console is not a terminal or cannot encode Unicode.
  """
  if console is None:
    console = rich.console.Console()
    if not console.is_terminal:
      console = rich.console.Console(width=MAX_COLUMNS)
  ascii_only = not console.is_terminal or console.options.ascii_only
  console.print(probes_table(probes, ascii_only=ascii_only, narrow=console.width < 80))
  overall = formatting.percent(number(probes, 'overall'))
  lines = [
    f'{probes["name"]}: {probes["scorer"]} ranks {overall} rightly, the mean over '
    f'probes of {formatting.count(number(probes, "num_sources"))} sources of '
    f'{probes["split"]}'
  ]
  if poor := poor_rows(probes):
    names = ', '.join(str(row['name']) for row in poor)
    lines.append(f'not surely better than a coin (!): {names}')
  for line in lines:
    console.print(rich.text.Text(plain(line, ascii_only)), soft_wrap=True)


def warnings(probes: Record) -> list[str]:
  """A sentence for each probe that is not surely ranked better than by a coin."""
  return [
    f'{probes["scorer"]} fails the probe {row["name"]}: it ranks '
    f'{formatting.percent(number(row, "share"))} of {formatting.count(row["pairs"])} '
    'pairs rightly, not surely more than a coin'
    for row in poor_rows(probes)
  ]


def shown_rows(probes: Record) -> Sequence[Record]:
  """The page's rows: the record's, with words for what the table shows."""
  poor = {row['name'] for row in poor_rows(probes)}
  return [
    {
      **row,
      'label': label(row),
      'poor': row['name'] in poor,
      'range': _range(row),
    }
    for row in probes['rows']
  ]


def _share(row: Record) -> str:
  return ' '.join([formatting.percent(number(row, 'share')), _range(row)]).strip()


def _range(row: Record) -> str:
  """'(98.2 to 100)': an interval of a share is not even around it."""
  ends = interval(row, 'interval')
  return '' if ends is None else f'({100 * ends[0]:.1f} to {100 * ends[1]:.1f})'

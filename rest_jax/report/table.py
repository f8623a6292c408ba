"""The run's policies as a table on the terminal."""

from collections.abc import Callable, Sequence

import rich.box
import rich.console
import rich.measure
import rich.table
import rich.text

from rest_jax.report import formatting, human
from rest_jax.report.data import Record, half_interval, number
from rest_jax.report.outcome import headline, over_optimisation

MAX_COLUMNS = 120  # characters

_ASCII = str.maketrans(
  {
    '–': '-',
    '−': '-',
    '—': '-',
    '±': '+/-',
    'τ': 'tau',
    'ρ': 'rho',
    'α': 'alpha',
    'γ': 'gamma',
    '…': '...',
    '·': '-',
    '×': 'x',
    '‘': "'",
    '’': "'",
    '“': '"',
    '”': '"',
    '\xa0': ' ',
  }
)


def _scored(
  key: str, digits: int, interval_key: str | None = None
) -> Callable[[Record], str]:
  def cell(policy: Record) -> str:
    value = number(policy, key)
    text = formatting.score(value, digits)
    half = half_interval(policy, interval_key) if interval_key else None
    if value is None or half is None:
      return text
    return f'{text} ± {formatting.score(half, digits)}'

  return cell


def _percent(key: str) -> Callable[[Record], str]:
  return lambda policy: formatting.percent(number(policy, key))


# Most wanted first: where the terminal is narrow the last ones go. Shown in the
# order of _PLACES.
_CELLS: dict[str, Callable[[Record], str]] = {
  'reward': _scored('reward_mean', 3, 'reward_interval'),
  'gold': _scored('gold_mean', 3, 'gold_interval'),
  'BLEU': _scored('bleu', 1, 'bleu_interval'),
  'kept': _percent('kept_fraction'),
  'KL': _scored('kl_to_bc', 2),
  'chrF': _scored('chrf', 1, 'chrf_interval'),
  'length': _scored('length_ratio', 2),
  'distinct-2': _scored('distinct_2', 3),
  'ρ in groups': _scored('reward_gold_spearman_in_groups', 2),
  'copied': _percent('copy_rate'),
}
_HUMAN_COLUMNS = (
  'Rating',
  'Difference',
  'Win rate',
  'Rank by people',
  'Rank by reward',
)
_PLACES = (
  'kept',
  'reward',
  'gold',
  'BLEU',
  'chrF',
  'KL',
  'length',
  'distinct-2',
  'copied',
  'ρ in groups',
)


def plain(text: str, ascii_only: bool) -> str:
  """The text on one line, in ASCII where asked: unknown characters become '?'."""
  text = ' '.join(text.split())
  if ascii_only:
    text = text.translate(_ASCII).encode('ascii', 'replace').decode('ascii')
  return text


def _table(
  policies: Sequence[Record], columns: Sequence[str], ascii_only: bool
) -> rich.table.Table:
  table = rich.table.Table(
    box=rich.box.ASCII2 if ascii_only else rich.box.SIMPLE_HEAD,
    pad_edge=ascii_only,
    padding=(0, 1),
  )
  table.add_column('policy', overflow='fold', min_width=12)
  for column in columns:
    table.add_column(plain(column, ascii_only), justify='right', no_wrap=True)
  flagged = {finding.index for finding in over_optimisation(policies)}
  for index, policy in enumerate(policies):
    name = str(policy['name']) + (' !' if index in flagged else '')
    cells = [plain(_CELLS[column](policy), ascii_only) for column in columns]
    table.add_row(
      # Text, not markup: a name may hold brackets.
      *(rich.text.Text(plain(cell, ascii_only)) for cell in (name, *cells)),
      style='red' if index in flagged else None,
    )
  return table


def policies_table(
  summary: Record, *, ascii_only: bool = False, width: int = MAX_COLUMNS
) -> rich.table.Table:
  """One row for each policy in the order trained, means with half their intervals.

  A measure that no policy has is left out, as are the least wanted ones that do not
  fit. '!' marks a policy whose gold falls while the proxy rises.

  Args:
    summary: what summary.json holds; see ReportData.
    ascii_only: draw and write with ASCII characters alone.
    width: characters the table may take, at most MAX_COLUMNS of which are used.
  """
  policies = summary['policies']
  width = min(width, MAX_COLUMNS)
  wanted = [
    column
    for column, cell in _CELLS.items()
    if any(cell(policy) != formatting.MISSING for policy in policies)
  ]
  console = rich.console.Console(width=10 * MAX_COLUMNS)
  while True:
    shown = [column for column in _PLACES if column in wanted]
    table = _table(policies, shown, ascii_only)
    needed = rich.measure.Measurement.get(console, console.options, table)
    if needed.maximum <= width or not wanted:
      return table
    wanted.pop()


def human_table(found: Record, *, ascii_only: bool = False) -> rich.table.Table:
  """One row for each system that people rated, with what fits of the page's table."""
  table = rich.table.Table(
    box=rich.box.ASCII2 if ascii_only else rich.box.SIMPLE_HEAD,
    pad_edge=ascii_only,
    padding=(0, 1),
  )
  table.add_column('people', overflow='fold', min_width=12)
  wanted = [place for place, label in enumerate(human.HEAD) if label in _HUMAN_COLUMNS]
  for place in wanted:
    table.add_column(human.HEAD[place].lower(), justify='right', no_wrap=True)
  for system in found['systems']:
    cells = human.cells(system)
    texts = (str(system['name']), *(str(cells[place]) for place in wanted))
    table.add_row(*(rich.text.Text(plain(text, ascii_only)) for text in texts))
  return table


def print_table(
  summary: Record,
  console: rich.console.Console | None = None,
  *,
  report_path: str | None = None,
) -> None:
  """Prints the outcome, the table, one line per warning, and the report's path.

  Plain ASCII where the console is not a terminal or cannot encode Unicode. Warnings
  and the path are not wrapped, so they can be searched and copied.
  """
  if console is None:
    console = rich.console.Console()
    if not console.is_terminal:
      console = rich.console.Console(width=MAX_COLUMNS)
  ascii_only = not console.is_terminal or console.options.ascii_only
  policies = summary['policies']
  warnings = [finding.sentence for finding in over_optimisation(policies)]
  warnings += [str(warning) for warning in summary.get('warnings') or ()]

  def line(text: str, style: str = '') -> None:
    console.print(rich.text.Text(plain(text, ascii_only), style=style), soft_wrap=True)

  line(headline(policies), style='bold')
  console.print(
    policies_table(summary, ascii_only=ascii_only, width=console.width),
    width=min(console.width, MAX_COLUMNS),
  )
  if (found := summary.get('human')) is not None:
    console.print(
      human_table(found, ascii_only=ascii_only), width=min(console.width, MAX_COLUMNS)
    )
    for text in (human.outcome(found), human.ranking(found)):
      if text is not None:
        line(text)
    line(human.rater_agreement(found))
  for warning in warnings:
    line(f'warning: {warning}', style='red')
  if report_path is not None:
    line(f'report: {report_path}')

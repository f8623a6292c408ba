import io

import pytest
import rich.console

from rest_jax.report.table import policies_table, print_table
from tests.report.example import full_example, minimal_example


def _printed(summary, *, terminal=False, width=120, **options):
  buffer = io.StringIO()
  console = rich.console.Console(
    file=buffer,
    width=width,
    force_terminal=terminal,
    color_system=None,
    legacy_windows=False,
  )
  print_table(summary, console, **options)
  return buffer.getvalue().splitlines()


def test_a_row_has_the_policys_numbers():
  lines = _printed(full_example().summary)
  (row,) = [line for line in lines if line.startswith('| ReST (G=1, I=2)')]
  cells = [cell.strip() for cell in row.strip('|').split('|')]
  assert cells[:7] == [
    'ReST (G=1, I=2)',
    '15.0 %',
    '0.571 +/- 0.006',
    '0.571 +/- 0.008',
    '38.2 +/- 1.2',
    '57.6 +/- 0.9',
    '2.20',
  ]


def test_policies_stand_in_the_order_trained():
  table = policies_table(full_example().summary)
  assert table.row_count == 7
  names = [str(cell) for cell in table.columns[0].cells]
  assert names[0] == 'BC (G=0, I=0)' and names[-1] == 'ReST (G=2, I=3) !'
  assert sum(name.endswith('!') for name in names) == 1


def test_off_a_terminal_all_is_ascii():
  text = '\n'.join(_printed(full_example().summary, report_path='run/report.html'))
  assert text.isascii()
  assert 'The filter tau = 0.9' in text


def test_on_a_terminal_signs_are_kept():
  text = '\n'.join(_printed(full_example().summary, terminal=True))
  assert '0.571 ± 0.006' in text and 'τ = 0.9' in text


@pytest.mark.parametrize('width', [60, 80, 120, 300])
@pytest.mark.parametrize('terminal', [False, True])
def test_the_table_fits_and_is_never_wrapped(width, terminal):
  lines = _printed(full_example().summary, terminal=terminal, width=width)
  table = [line for line in lines if line.startswith(('|', '+', ' '))]
  assert max(map(len, table)) <= min(width, 120)
  assert sum('ReST (G=' in line for line in table) == 6  # one line for each
  assert all('0.655' in line for line in table if 'I=3) !' in line)


def test_warnings_and_path_take_one_line_each():
  summary = full_example().summary
  summary['warnings'].append('a\nlong ' + 'warning ' * 30)
  lines = _printed(summary, width=80, report_path='/a/' + 'b' * 90 + '/report.html')
  warnings = [line for line in lines if line.startswith('warning: ')]
  assert len(warnings) == 3
  assert 'may over-optimise' in warnings[0]
  assert warnings[2].startswith('warning: a long warning')
  assert lines[-1] == 'report: /a/' + 'b' * 90 + '/report.html'


def test_names_are_text_and_not_markup():
  summary = minimal_example().summary
  summary['policies'][0]['name'] = '[red]x[/blue]'
  assert any('[red]x[/blue]' in line for line in _printed(summary))


def test_nulls_leave_columns_out_and_dashes_in():
  summary = minimal_example().summary
  assert len(policies_table(summary).columns) == 1
  summary['policies'].append({'name': 'ReST', 'gold_mean': 0.5})
  (row,) = [line for line in _printed(summary) if line.startswith('| BC')]
  assert row.split('|')[2].strip() == '-'

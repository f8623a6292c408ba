import copy
import io

import numpy as np
import pytest
import rich.console

from rest_jax.report import page, probes
from rest_jax.report.data import ReportData
from rest_jax.report.style import report_style
from tests.report.example import full_example, minimal_example


@pytest.fixture
def data():
  return full_example(num_sources=1)


def _artist(axes, gid):
  (found,) = (artist for artist in axes.findobj() if artist.get_gid() == gid)
  return found


def test_points_are_the_shares_and_the_poor_ones_stand_out(data):
  with report_style():
    drawing = probes.probe_shares(data)
  axes = drawing.panels[0].figure.axes[0]
  names = [tick.get_text() for tick in axes.get_yticklabels()]
  # Without the probe that has no pair.
  assert names == [
    'dropped words',
    'shuffled words',
    'repeated sentence',
    'dropped clause',
  ]
  for gid, places, shares in (
    ('share', [0, 1], [97.6, 100]),
    ('poor-share', [2, 3], [31, 80]),
  ):
    points = _artist(axes, gid)
    np.testing.assert_allclose(points.get_xdata(), shares)
    np.testing.assert_array_equal(points.get_ydata(), places)
  (bars,) = axes.containers[1].lines[2]
  ends = [(segment[0, 0], segment[1, 0]) for segment in bars.get_segments()]
  np.testing.assert_allclose(ends, [(24.9, 37.9), (49, 94.3)])
  assert _artist(axes, 'chance').get_xdata() == [50, 50]
  assert 'repeated sentence 31.0 % (24.9 % to 37.9 %)' in drawing.panels[0].alt


def test_only_a_share_that_is_not_surely_above_a_coins_is_poor(data):
  rows = probes.poor_rows(data.summary['probes'])
  assert [row['name'] for row in rows] == ['repeated_sentence', 'dropped_clause']
  assert probes.warnings(data.summary['probes']) == [
    'reward_model fails the probe repeated_sentence: it ranks 31.0 % of 192 pairs '
    'rightly, not surely more than a coin',
    'reward_model fails the probe dropped_clause: it ranks 80.0 % of 10 pairs '
    'rightly, not surely more than a coin',
  ]


@pytest.mark.parametrize('width', [60, 110])
def test_the_table_fits_and_says_what_it_must(data, width):
  console = rich.console.Console(file=io.StringIO(), width=width)
  probes.print_probes(data.summary['probes'], console)
  printed = console.file.getvalue()
  assert printed.isascii()
  table = printed[: printed.rindex('+') + 1].splitlines()
  assert max(map(len, table)) <= width
  assert len(table) == 5 + 4  # no row is folded
  for expected in (
    'repeated_sentence !',
    '31.0 % (24.9 to 37.9)',
    'probe_reward_model: reward_model ranks 77.1 % rightly',
    'not surely better than a coin (!): repeated_sentence, dropped_clause',
  ):
    assert expected in printed
  assert ('-0.620' in printed) is (width == 110)


def test_a_run_without_probes_has_no_section():
  for summary in (minimal_example().summary, {'policies': [{'name': 'PPO'}]}):
    html = page.render_page(ReportData(summary))
    assert 'id="probes"' not in html and 'Probes' not in html


def test_probes_of_a_refreshed_reward_model_have_a_table_of_their_own(data):
  later = copy.deepcopy(data.summary['probes'])
  later |= {'name': 'probe_reward_model_2', 'scorer': 'reward_model_2'}
  data.summary['grows'][1]['probes'] = later
  html = page.render_page(data)
  assert html.count('id="probes"') == 1
  first = html.index('Probes of reward_model on')
  assert first < html.index('Probes of reward_model_2 on')


def test_examples_show_both_texts_and_mark_the_wrong_ones(data):
  html = page.render_page(data)
  # Of two pairs each of four probes the second has more reward for the worse text.
  assert html.count('<dl class="pair">') == 8 and html.count('class="wrong"') == 4
  calm = copy.deepcopy(data.summary)
  calm['probes']['rows'] = calm['probes']['rows'][:2]
  calm['probes']['rows'][0]['worst'] = []
  html = page.render_page(ReportData(calm))
  assert html.count('class="wrong"') == 1 and 'not surely better' not in html

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex

from rest_jax.report import figures, run_figures
from rest_jax.report.data import ReportData
from rest_jax.report.style import COLOUR, report_style
from tests.report.example import full_example, minimal_example, policies


@pytest.fixture
def data():
  return full_example()


def _axes(panel):
  return panel.figure.axes[0]


def _artist(axes, gid):
  found = [artist for artist in axes.findobj() if artist.get_gid() == gid]
  assert len(found) == 1, (gid, found)
  return found[0]


@pytest.mark.parametrize(
  ('draw', 'panel', 'key', 'interval_key'),
  [
    (figures.policy_scores, 0, 'reward_mean', 'reward_interval'),
    (figures.policy_scores, 1, 'gold_mean', 'gold_interval'),
    (figures.text_quality, 0, 'bleu', 'bleu_interval'),
    (figures.text_quality, 1, 'chrf', 'chrf_interval'),
  ],
)
def test_points_and_error_bars_are_the_policies_values(
  data, draw, panel, key, interval_key
):
  axes = _axes(draw(data).panels[panel])
  points = _artist(axes, key)
  np.testing.assert_array_equal(points.get_xdata(), range(len(policies())))
  np.testing.assert_array_equal(points.get_ydata(), [p[key] for p in policies()])
  (bars,) = axes.containers[0].lines[2]
  ends = [(segment[0, 1], segment[1, 1]) for segment in bars.get_segments()]
  np.testing.assert_allclose(ends, [p[interval_key] for p in policies()], rtol=1e-12)


def test_grow_steps_are_labelled_bands(data):
  axes = _axes(figures.policy_scores(data).panels[0])
  assert [t.get_text() for t in axes.get_xticklabels()] == [
    'BC',
    'I=1',
    'I=2',
    'I=3',
    'I=1',
    'I=2',
    'I=3',
  ]
  texts = {t.get_text(): t.get_position()[0] for t in axes.texts}
  assert texts['Grow 1'] == 2 and texts['Grow 2'] == 5


def test_an_unmeasured_policy_leaves_a_gap(data):
  data.policies[2]['reward_mean'] = None
  data.policies[3]['reward_interval'] = None
  axes = _axes(figures.policy_scores(data).panels[0])
  assert list(_artist(axes, 'reward_mean').get_xdata()) == [0, 1, 3, 4, 5, 6]
  (bars,) = axes.containers[0].lines[2]
  assert np.ptp(bars.get_segments()[2][:, 1]) == 0  # no interval for policy 3


def test_the_over_optimised_step_alone_is_marked(data):
  for panel in figures.policy_scores(data).panels:
    band = _artist(_axes(panel), 'over-optimisation-6')
    assert band.get_x() == 5.5 and band.get_width() == 1
    assert sum(t.get_text() == '▲' for t in _axes(panel).texts) == 1
    assert 'over-optimise' in panel.alt
  assert '▲' in figures.policy_scores(data).caption


def test_no_mark_where_gold_holds(data):
  data.policies[6].update(gold_mean=0.580, gold_interval=[0.573, 0.588])
  drawing = figures.policy_scores(data)
  assert '▲' not in drawing.caption
  for panel in drawing.panels:
    assert all(t.get_text() != '▲' for t in _axes(panel).texts)
    gids = [a.get_gid() or '' for a in _axes(panel).findobj()]
    assert not any(gid.startswith('over-optimisation') for gid in gids)


def test_histogram_shares_thresholds_and_mean(data):
  drawing = run_figures.filter_histograms(data)
  assert len(drawing.panels) == 2
  for panel, histogram, grow in zip(
    drawing.panels, data.histograms, data.grows, strict=True
  ):
    axes = _axes(panel)
    values, edges, _ = _artist(axes, 'candidates').get_data()
    np.testing.assert_allclose(values, np.array(histogram['counts']) / 120, rtol=1e-12)
    np.testing.assert_array_equal(edges, histogram['edges'])
    assert _artist(axes, 'data').get_data().values.sum() == pytest.approx(100)
    assert _artist(axes, 'mean').get_xdata()[0] == grow['mean_reward']
    for entry in grow['thresholds']:
      line = _artist(axes, f'threshold-{entry["improve"]}')
      assert line.get_xdata()[0] == entry['threshold']


def test_thresholds_per_source_are_not_drawn(data):
  for entry in data.grows[0]['thresholds']:
    entry['threshold'] = None
  axes = _axes(run_figures.filter_histograms(data).panels[0])
  gids = [a.get_gid() or '' for a in axes.findobj()]
  assert not any(gid.startswith('threshold') for gid in gids) and 'mean' in gids


def test_an_empty_histogram_and_no_corpus_targets_are_drawn():
  summary = {'policies': [{'name': 'BC'}]}
  histogram = {'grow': 1, 'edges': [0, 0.5, 1], 'counts': [0, 0], 'counts_data': None}
  drawing = run_figures.filter_histograms(ReportData(summary, [histogram]))
  values = _artist(_axes(drawing.panels[0]), 'candidates').get_data().values
  np.testing.assert_array_equal(values, [0, 0])


def test_curves_have_a_panel_for_each_kind_and_metric(data):
  panels = run_figures.training_curves(data).panels
  assert [_axes(p).get_ylabel() for p in panels] == [
    'BC: training loss',
    'BC: evaluation loss',
    'Reward model: training loss',
    'Reward model: Spearman ρ, held out',
    'Improve: evaluation reward',
  ]
  assert len(_axes(panels[-1]).lines) == 6
  curve = data.curves[-1]
  line = _artist(_axes(panels[-1]), curve['stage'])
  np.testing.assert_array_equal(line.get_ydata(), curve['values'])


def test_long_curves_are_averaged_and_keep_their_mean(data):
  curve = data.curves[0]
  assert len(curve['values']) == 900
  line = _artist(_axes(run_figures.training_curves(data).panels[0]), 'bc')
  assert len(line.get_ydata()) == run_figures.MAX_POINTS
  assert np.mean(line.get_ydata()) == pytest.approx(np.mean(curve['values']))
  assert line.get_ydata()[0] == pytest.approx(np.mean(curve['values'][:3]))


def test_kl_is_drawn_against_both_scores(data):
  panels = figures.kl_and_scores(data).panels
  for panel, key in zip(panels, ('reward', 'gold'), strict=True):
    points = _artist(_axes(panel), f'kl-{key}')
    np.testing.assert_array_equal(
      points.get_xdata(), [p['kl_to_bc'] for p in policies()]
    )
    np.testing.assert_array_equal(
      points.get_ydata(), [p[f'{key}_mean'] for p in policies()]
    )


def test_kl_needs_two_policies(data):
  for policy in data.policies[1:]:
    policy['kl_to_bc'] = None
  assert figures.kl_and_scores(data) is None


def test_bars_are_device_time_and_reused_ones_pale(data):
  axes = _axes(run_figures.stage_times(data).panels[0])
  assert axes.get_xlabel() == 'device time (min)'
  for place, stage in enumerate(data.stages):
    bar = _artist(axes, f'time-{place}')
    assert bar.get_width() == pytest.approx(stage['device_seconds'] / 60)
    assert bar.get_alpha() == (0.35 if stage['reused'] else 1.0)


def test_nothing_measured_draws_nothing():
  assert figures.draw_all(minimal_example()) == ()


def test_everything_is_labelled_and_described(data):
  drawings = figures.draw_all(data)
  assert [d.name for d in drawings] == [
    'scores',
    'quality',
    'filters',
    'training',
    'probes',
    'over-optimisation',
    'time',
  ]
  for panel in (p for d in drawings for p in d.panels):
    axes = _axes(panel)
    assert axes.get_ylabel() or axes.get_xlabel()
    assert len(panel.alt) > 40


def test_all_colours_come_from_the_palette(data):
  with report_style():
    panel = figures.policy_scores(data).panels[0]
  known = set(COLOUR.values())
  axes = _axes(panel)
  for line in axes.lines:
    assert to_hex(line.get_color()) in known
  for text in axes.texts:
    assert to_hex(text.get_color()) in known


def test_settings_of_the_caller_and_pyplot_are_left_alone(data):
  before = dict(matplotlib.rcParams)
  figures.draw_all(data)
  assert dict(matplotlib.rcParams) == before


def test_pyplot_is_not_imported():
  code = 'import sys, rest_jax.report.page; print("matplotlib.pyplot" in sys.modules)'
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == 'False'

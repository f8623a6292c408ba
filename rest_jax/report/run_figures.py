"""The report's figures of the run: filters, training curves, time by stage."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from rest_jax.report.data import Record, ReportData, number
from rest_jax.report.drawing import Drawing, Panel, shortened
from rest_jax.report.formatting import duration, percent, score
from rest_jax.report.style import COLOUR, SERIES, new_axes

MAX_POINTS = 300  # of one curve; longer ones are averaged, which keeps the page small

# Metric: (its place among the panels, axis label); others follow under their name.
_METRICS = {
  'loss': (0, 'training loss'),
  'train_loss': (0, 'training loss'),
  'eval_loss': (1, 'evaluation loss'),
  'spearman': (2, 'Spearman ρ, held out'),
  'spearman_in_groups': (3, 'ρ in groups, held out'),
  'reward': (4, 'evaluation reward'),
  'eval_reward': (4, 'evaluation reward'),
  'reward_mean': (4, 'evaluation reward'),
}
_KINDS = {
  'supervise': (0, 'BC'),
  'train_reward': (1, 'Reward model'),
  'train_value': (2, 'Value function'),
  'improve': (3, 'Improve'),
  'online': (4, 'Online'),
}


def _shares(
  counts: Sequence[float],  # [bins]
) -> np.ndarray:  # [bins] float64, percent of their sum
  """Counts as percentages of their sum; all zero where there are none."""
  array = np.asarray(counts, dtype=np.float64)
  return 100.0 * array / max(array.sum(), 1.0)


def _draw_thresholds(axes: Axes, grow: Record | None) -> str:
  """Lines at the mean and at each global threshold; returns them in words."""
  if grow is None:
    return ''
  words = ''
  height = axes.get_xaxis_transform()  # x in data units, y in parts of the height
  mean = number(grow, 'mean_reward')
  if mean is not None:
    axes.axvline(
      mean,
      ymax=0.86,
      color=COLOUR['ink'],
      linewidth=1.2,
      linestyle=(0, (2, 2)),
      gid='mean',
    )
    axes.text(
      mean, 0.87, 'mean', transform=height, ha='center', va='bottom', fontsize=8
    )
    words += f' Mean {score(mean)}.'
  for place, entry in enumerate(grow.get('thresholds') or ()):
    threshold = number(entry, 'threshold')
    if threshold is None:
      continue
    top = 0.99 - 0.06 * (place % 2)  # neighbours' labels do not collide
    axes.axvline(
      threshold,
      ymax=top - 0.01,
      color=COLOUR['alarm'],
      linewidth=1.3,
      gid=f'threshold-{entry["improve"]}',
    )
    axes.text(
      threshold,
      top,
      f'I={entry["improve"]}',
      transform=height,
      ha='center',
      va='bottom',
      fontsize=8,
      color=COLOUR['alarm'],
    )
    kept = number(entry, 'kept_fraction')
    words += f' Threshold of I={entry["improve"]}: {score(threshold)}'
    words += '.' if kept is None else f', keeps {percent(kept)}.'
  return words


def filter_histograms(data: ReportData) -> Drawing | None:
  """Figure 3: the rewards of each Grow's candidates and the filter's thresholds."""
  if not data.histograms:
    return None
  grows = {grow.get('grow'): grow for grow in data.grows}
  panels = []
  for histogram in data.histograms:
    number_of_grow = histogram.get('grow')
    figure, axes = new_axes()
    edges = np.asarray(histogram['edges'], dtype=np.float64)
    axes.stairs(
      _shares(histogram['counts']),
      edges,
      fill=True,
      color=COLOUR['proxy'],
      alpha=0.75,
      label="model's candidates",
      gid='candidates',
    )
    counts_data = histogram.get('counts_data')
    if counts_data is not None and np.sum(counts_data) > 0:
      axes.stairs(
        _shares(counts_data),
        edges,
        color=COLOUR['ink'],
        linewidth=1.3,
        label="corpus's targets",
        gid='data',
      )
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
    axes.set_xlabel(f'reward, Grow {number_of_grow}')
    axes.set_ylabel('share of candidates (%)')
    axes.legend(loc='upper left', handlelength=1.2)
    words = _draw_thresholds(axes, grows.get(number_of_grow))
    panels.append(
      Panel(figure, f'Histogram of rewards after Grow {number_of_grow}.{words}')
    )
  return Drawing(
    'filters',
    'Rewards after each Grow, and what the filter keeps',
    'Each kind is scaled to its own total. Red lines are the thresholds of the '
    'Improve steps (drawn where one threshold holds for all sources; candidates '
    'above it are kept), the dashed line is the mean.',
    tuple(panels),
  )


def _thinned(
  curve: Record,
) -> tuple[np.ndarray, np.ndarray]:  # [points], [points] float64
  """Steps and values, averaged over neighbours where there are too many."""
  steps = np.asarray(curve['steps'], dtype=np.float64)
  values = np.asarray(
    [np.nan if v is None else v for v in curve['values']], dtype=np.float64
  )
  if len(steps) <= MAX_POINTS:
    return steps, values
  parts = [
    (s.mean(), v.mean())
    for s, v in zip(
      np.array_split(steps, MAX_POINTS),
      np.array_split(values, MAX_POINTS),
      strict=True,
    )
  ]
  return np.array([s for s, _ in parts]), np.array([v for _, v in parts])


def training_curves(data: ReportData) -> Drawing | None:
  """Figure 4: one panel for each kind of training stage and metric."""
  kinds = {s.get('name'): s.get('stage') for s in data.stages}

  def panel_of(curve: Record) -> tuple[int, str, int, str]:
    kind = str(kinds.get(curve['stage']) or curve['stage'])
    metric = str(curve['metric'])
    named = shortened(metric.replace('_', ' '), 30)
    kind_place, kind_label = _KINDS.get(
      kind, (len(_KINDS), shortened(kind.replace('_', ' '), 20))
    )
    metric_place, metric_label = _METRICS.get(metric, (len(_METRICS), named))
    return kind_place, kind_label, metric_place, metric_label

  panels = []
  curves = sorted((c for c in data.curves if len(c['steps'])), key=panel_of)
  for (_, kind, _, metric), members in itertools.groupby(curves, key=panel_of):
    figure, axes = new_axes()
    words = []
    for place, curve in enumerate(members):
      steps, values = _thinned(curve)
      stage = str(curve['stage'])
      axes.plot(
        steps,
        values,
        color=SERIES[place % len(SERIES)],
        label=shortened(stage),
        gid=stage,
        linestyle=('-', '--', ':')[place // len(SERIES) % 3],
        marker='o' if len(steps) <= 12 else None,
        markersize=4,
      )
      words.append(f'{stage} from {score(values[0])} to {score(values[-1])}')
    axes.set_xlabel('training step')
    axes.set_ylabel(f'{kind}: {metric}')
    axes.margins(x=0.02, y=0.08)
    if len(words) > 1:
      figure.legend(loc='outside upper center', ncols=3, handlelength=1.4)
    panels.append(Panel(figure, f'{kind}, {metric}: {"; ".join(words)}.'))
  if not panels:
    return None
  return Drawing(
    'training',
    'Training curves',
    'Evaluation metrics are of held-out sources, ρ is the Spearman correlation. Of '
    'Improve, the step with the best evaluation reward is kept.',
    tuple(panels),
  )


def stage_times(data: ReportData) -> Drawing | None:
  """Figure 6: device time and wall time of each stage."""
  timed = []
  for stage in data.stages:
    wall, device = number(stage, 'seconds'), number(stage, 'device_seconds')
    if wall is not None or device is not None:
      timed.append((stage, wall, device))
  if not timed:
    return None
  longest = max(max(wall or 0.0, device or 0.0) for _, wall, device in timed)
  unit, scale = ('s', 1.0) if longest < 180 else ('min', 60.0)
  if longest >= 3 * 3600:
    unit, scale = 'h', 3600.0
  figure, axes = new_axes(height=0.9 + 0.25 * len(timed))
  words = []
  for place, (stage, wall, device) in enumerate(timed):
    reused = bool(stage.get('reused'))
    length = (device if device is not None else wall or 0.0) / scale
    axes.barh(
      place,
      length,
      height=0.62,
      color=COLOUR['proxy'],
      alpha=0.35 if reused else 1.0,
      gid=f'time-{place}',
    )
    label = duration(device if device is not None else wall)
    end = length
    if wall is not None and device is not None and abs(wall - device) > 0.05 * device:
      axes.plot(
        [wall / scale],
        [place],
        marker='|',
        markersize=13,
        markeredgewidth=2,
        color=COLOUR['gold'],
        linestyle='none',
      )
      label += f', wall {duration(wall)}'
      end = max(length, wall / scale)
    label += ', reused' if reused else ''
    axes.annotate(
      label,
      (end, place),
      xytext=(7, 0),
      textcoords='offset points',
      va='center',
      fontsize=8.5,
      color=COLOUR['muted'],
    )
    words.append(f'{stage["name"]} {label}')
  axes.set_yticks(range(len(timed)), [shortened(s['name']) for s, _, _ in timed])
  axes.set_ylim(len(timed) - 0.4, -0.6)
  axes.set_xlim(0, max(longest / scale, 1e-9) * 1.45)
  axes.grid(axis='y', visible=False)
  axes.grid(axis='x', visible=True)
  axes.set_xlabel(f'device time ({unit})')
  alt = f'Device time by stage: {"; ".join(words)}.'
  return Drawing(
    'time',
    'Time by stage',
    'Bars are the time the devices were busy, times their number; the mark | is wall '
    'time where it differs. Pale bars were reused from an earlier run and cost nothing '
    'in this one.',
    (Panel(figure, alt),),
  )

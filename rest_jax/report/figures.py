"""The report's figures of policies: scores, text quality, over-optimisation.

Each function takes the report's data and gives a Drawing, or None where nothing of
it was measured.
"""

from collections.abc import Sequence

from rest_jax.report.data import Record, ReportData, number, short_name
from rest_jax.report.drawing import (
  MAX_NARROW_POLICIES,
  Drawing,
  Panel,
  error_arms,
  policy_points,
  shortened,
  spoken,
)
from rest_jax.report.human import human_ratings
from rest_jax.report.outcome import OverOptimisation, over_optimisation
from rest_jax.report.probes import probe_shares
from rest_jax.report.run_figures import filter_histograms, stage_times, training_curves
from rest_jax.report.style import COLOUR, new_axes, report_style


def _measured(policies: Sequence[Record], key: str) -> bool:
  return any(number(p, key) is not None for p in policies)


def policy_panel(
  policies: Sequence[Record],
  key: str,
  interval_key: str,
  *,
  label: str,
  colour: str,
  marker: str = 'o',
  findings: Sequence[OverOptimisation] = (),
) -> Panel:
  """One measure of every policy; findings are marked by a band and a triangle."""
  wide = len(policies) > MAX_NARROW_POLICIES
  figure, axes = new_axes(wide=wide)
  policy_points(
    axes, policies, key, interval_key, colour=colour, label=label, marker=marker
  )
  alt = spoken(policies, key, f'{label} of each policy', interval_key)
  for finding in findings:
    axes.axvspan(
      finding.index - 0.5,
      finding.index + 0.5,
      color=COLOUR['alarm'],
      alpha=0.13,
      linewidth=0,
      zorder=1,
      gid=f'over-optimisation-{finding.index}',
    )
    axes.text(
      finding.index,
      0.97,
      '▲',
      transform=axes.get_xaxis_transform(),
      ha='center',
      va='top',
      color=COLOUR['alarm'],
      fontsize=10,
    )
    alt += f' Marked: {finding.sentence}'
  return Panel(figure, alt, wide)


def policy_scores(data: ReportData) -> Drawing | None:
  """Figure 1: proxy reward and gold of each policy, and where they part."""
  policies, findings = data.policies, over_optimisation(data.policies)
  panels = []
  for key, label, colour, marker in (
    ('reward', 'proxy reward', COLOUR['proxy'], 'o'),
    ('gold', 'gold measure', COLOUR['gold'], 'D'),
  ):
    if _measured(policies, f'{key}_mean'):
      panels.append(
        policy_panel(
          policies,
          f'{key}_mean',
          f'{key}_interval',
          label=label,
          colour=colour,
          marker=marker,
          findings=findings,
        )
      )
  if not panels:
    return None
  caption = (
    'Means over sampled candidates in the order trained, with 95 % intervals. The '
    'reward model is a proxy; no stage trains on gold.'
  )
  if findings:
    caption += (
      ' ▲ marks a step where gold falls by more than its interval while the proxy '
      'rises.'
    )
  return Drawing('scores', 'Proxy reward and gold', caption, tuple(panels))


def text_quality(data: ReportData) -> Drawing | None:
  """Figure 2: greedy BLEU and chrF of each policy."""
  panels = tuple(
    policy_panel(
      data.policies,
      key,
      f'{key}_interval',
      label=f'{label} (0 to 100)',
      colour=COLOUR[colour],
      marker=marker,
    )
    for key, label, colour, marker in (
      ('bleu', 'BLEU', 'green', 's'),
      ('chrf', 'chrF', 'purple', 'v'),
    )
    if _measured(data.policies, key)
  )
  if not panels:
    return None
  return Drawing(
    'quality',
    'Text quality of the greedy output',
    'Corpus BLEU and chrF of greedy decoding against the references, with 95 % '
    'intervals. The axes do not start at zero.',
    panels,
  )


def kl_and_scores(data: ReportData) -> Drawing | None:
  """Figure 5: how far from BC, and what that bought in proxy and in gold."""
  panels = []
  for key, label, colour, marker in (
    ('reward', 'proxy reward', COLOUR['proxy'], 'o'),
    ('gold', 'gold measure', COLOUR['gold'], 'D'),
  ):
    mean_key = f'{key}_mean'
    measured = [
      (x, y, p)
      for p in data.policies
      if (x := number(p, 'kl_to_bc')) is not None
      and (y := number(p, mean_key)) is not None
    ]
    if len(measured) < 2:
      continue
    figure, axes = new_axes()
    xs, ys = [x for x, _, _ in measured], [y for _, y, _ in measured]
    points = [p for _, _, p in measured]
    chain = [i for i, p in enumerate(points) if p.get('grow') is not None]
    axes.plot(
      [xs[i] for i in chain],
      [ys[i] for i in chain],
      color=colour,
      linewidth=1.2,
      alpha=0.45,
    )
    container = axes.errorbar(
      xs,
      ys,
      xerr=error_arms(points, 'kl_to_bc', 'kl_interval'),
      yerr=error_arms(points, mean_key, f'{key}_interval'),
      fmt=marker,
      color=colour,
      ecolor=colour,
      elinewidth=1.1,
      capsize=0,
    )
    container.lines[0].set_gid(f'kl-{key}')
    for place, (x, y, policy) in enumerate(measured):
      # Neighbours' labels stand on opposite sides of the line, clear of it.
      above = place % 2 == 0
      neighbour = ys[place - 1 if above else min(place + 1, len(ys) - 1)]
      falls = place > 0 and (y < neighbour if above else neighbour < y)
      left = above != falls
      axes.annotate(
        shortened(short_name(policy)),
        (x, y),
        textcoords='offset points',
        xytext=(-6 if left else 6, 6 if above else -6),
        fontsize=8,
        color=COLOUR['ink'],
        ha='right' if left else 'left',
        va='bottom' if above else 'top',
      )
    axes.margins(x=0.14, y=0.18)
    axes.grid(axis='x')
    axes.set_xlabel('KL to BC (nats)')
    axes.set_ylabel(label)
    panels.append(
      Panel(
        figure,
        f'{label} against KL to BC. '
        + spoken(points, 'kl_to_bc', 'KL in nats', 'kl_interval')
        + ' '
        + spoken(points, mean_key, label, f'{key}_interval'),
      )
    )
  if not panels:
    return None
  return Drawing(
    'over-optimisation',
    'Reward bought with distance from BC',
    'Each policy by its KL divergence from BC. Where the proxy climbs with the '
    'distance and gold no longer does, the policy exploits the reward model. Bars are '
    '95 % intervals.',
    tuple(panels),
  )


def draw_all(data: ReportData) -> tuple[Drawing, ...]:
  """Every figure of which something was measured, in the page's order."""
  with report_style():
    drawings = (
      policy_scores(data),
      text_quality(data),
      human_ratings(data.summary.get('human')),
      filter_histograms(data),
      training_curves(data),
      probe_shares(data),
      kl_and_scores(data),
      stage_times(data),
    )
  return tuple(drawing for drawing in drawings if drawing is not None)

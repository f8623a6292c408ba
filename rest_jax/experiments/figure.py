"""The figure of a study: reward and gold of every variant, step by step."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

from rest_jax.report import style

PANELS = (('reward_mean', 'reward'), ('gold_mean', 'gold'))
_MARKERS = ('o', 's', '^', 'D', 'v', 'P')


def curves(
  variants: Sequence[str], records: Sequence[Mapping[str, Any]]
) -> dict[str, list[dict[str, float]]]:
  """For each variant its policies in order, BC first: means over seeds."""
  found: dict[str, list[dict[str, float]]] = {}
  for variant in variants:
    mine = [record for record in records if record['variant'] == variant]
    names = list(dict.fromkeys(record['name'] for record in mine))
    found[variant] = [
      {
        key: float(np.mean([r[key] for r in mine if r['name'] == name]))
        for key, _ in PANELS
      }
      for name in names
    ]
  return {variant: steps for variant, steps in found.items() if steps}


def draw(variants: Sequence[str], records: Sequence[Mapping[str, Any]]) -> str:
  """The figure as an SVG document.

  Two panels, the proxy reward and gold, with a line for each variant from BC (step 0)
  to its last policy. Where the right one turns down while the left one goes up, the
  variant over-optimises. Rewards of variants with different reward models are not on
  one scale; gold is.
  """
  with style.report_style():
    figure = Figure(figsize=style.WIDE_INCHES, layout='constrained')
    axes = figure.subplots(1, 2, sharex=True)
    for place, (variant, steps) in enumerate(curves(variants, records).items()):
      series = len(style.SERIES)
      line = {
        'color': style.SERIES[place % series],
        'marker': _MARKERS[place // series % len(_MARKERS)],
        'linestyle': '-' if place < series else '--',
        'markersize': 5,
      }
      for panel, (key, _) in zip(axes, PANELS, strict=True):
        panel.plot([step[key] for step in steps], label=variant, **line)
    for panel, (_, label) in zip(axes, PANELS, strict=True):
      panel.set_title(label, loc='left')
      panel.set_xlabel('policy, in the order trained; 0 is BC')
      panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside right center')
    buffer = io.StringIO()
    with matplotlib.rc_context({'svg.hashsalt': 'study'}):
      figure.savefig(
        buffer,
        format='svg',
        facecolor=style.COLOUR['surface'],
        metadata=dict.fromkeys(('Date', 'Creator', 'Format', 'Type')),
      )
  return buffer.getvalue()

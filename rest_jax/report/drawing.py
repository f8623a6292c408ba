"""What the figures share: panels, the axis of policies, points with intervals."""

import dataclasses
import itertools
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rest_jax.report.data import Record, interval, number, short_name
from rest_jax.report.formatting import score
from rest_jax.report.style import COLOUR

MAX_NARROW_POLICIES = 14  # more want a panel as wide as the page


@dataclasses.dataclass(frozen=True)
class Panel:
  """One set of axes; panels stand side by side, or stacked on a narrow screen."""

  figure: Figure
  alt: str  # what it shows, in words and numbers
  wide: bool = False  # takes the whole width of the page


@dataclasses.dataclass(frozen=True)
class Drawing:
  """One numbered figure of the report."""

  name: str  # an anchor: letters and hyphens
  title: str
  caption: str
  panels: tuple[Panel, ...]


def shortened(name: object, limit: int = 24) -> str:
  """The name on one line, its middle left out where it is longer than limit."""
  text = ' '.join(str(name).split())
  if len(text) <= limit:
    return text
  tail = (limit - 1) // 2
  return f'{text[: limit - 1 - tail]}…{text[-tail:]}'


def error_arms(
  records: Sequence[Record], mean_key: str, interval_key: str
) -> np.ndarray:  # [2, records] float64, distance to the low and the high end
  """The arms of error bars; zero where no interval was measured."""
  arms = np.zeros((2, len(records)))
  for column, record in enumerate(records):
    mean, bounds = number(record, mean_key), interval(record, interval_key)
    if mean is not None and bounds is not None:
      arms[:, column] = max(mean - bounds[0], 0.0), max(bounds[1] - mean, 0.0)
  return arms


def policy_axis(axes: Axes, policies: Sequence[Record]) -> None:
  """One slot for each policy in order, with the Grow steps as bands."""
  ticks = []
  losses = {p.get('loss') for p in policies if p.get('grow')}
  for policy in policies:
    grow, improve = policy.get('grow'), policy.get('improve')
    if grow is None or improve is None:
      tick = textwrap.fill(shortened(policy['name'], 14), 7)
    else:
      tick = 'BC' if grow == 0 else f'I={improve}'
      if grow and len(losses) > 1:
        tick += f'\n{shortened(policy.get("loss"), 10)}'
    ticks.append(tick)
  axes.set_xticks(range(len(policies)), ticks)
  axes.set_xlim(-0.5, len(policies) - 0.5)
  places = range(len(policies))
  runs = itertools.groupby(places, key=lambda i: policies[i].get('grow'))
  for order, (grow, run) in enumerate(runs):
    members = list(run)
    low, high = members[0] - 0.5, members[-1] + 0.5
    if order % 2:
      axes.axvspan(low, high, color=COLOUR['band'], linewidth=0, zorder=0)
    if grow:
      heading = f'Grow {grow}' if len(policies) <= 8 * len(members) else f'G={grow}'
      axes.text(
        (low + high) / 2,
        1.02,
        heading,
        transform=axes.get_xaxis_transform(),
        ha='center',
        va='bottom',
        color=COLOUR['muted'],
        fontsize=8.5,
      )


def policy_points(
  axes: Axes,
  policies: Sequence[Record],
  mean_key: str,
  interval_key: str | None,
  *,
  colour: str,
  label: str,
  marker: str = 'o',
) -> None:
  """A point with its interval for each policy measured, joined in order trained.

  Policies outside Algorithm 1 stand apart, unjoined. The points' artist carries
  `mean_key` as its gid.
  """
  policy_axis(axes, policies)
  means = {
    i: mean for i, p in enumerate(policies) if (mean := number(p, mean_key)) is not None
  }
  chain = [i for i in means if policies[i].get('grow') is not None]
  axes.plot(
    chain,
    [means[i] for i in chain],
    color=colour,
    linewidth=1.2,
    alpha=0.45,
    zorder=2,
  )
  arms = (
    None
    if interval_key is None
    else error_arms([policies[i] for i in means], mean_key, interval_key)
  )
  points = axes.errorbar(
    list(means),
    list(means.values()),
    yerr=arms,
    fmt=marker,
    color=colour,
    ecolor=colour,
    elinewidth=1.4,
    capsize=3.5,
    capthick=1.4,
    zorder=3,
  )
  points.lines[0].set_gid(mean_key)
  axes.set_ylabel(label)
  axes.margins(y=0.16)


def spoken(
  policies: Sequence[Record], key: str, what: str, interval_key: str | None = None
) -> str:
  """'what: BC 0.541 (0.536 to 0.546), G=1 I=1 0.560 (...)', for alt texts."""
  parts = []
  for policy in policies:
    value = number(policy, key)
    if value is None:
      continue
    text = f'{short_name(policy)} {score(value)}'
    bounds = interval(policy, interval_key) if interval_key else None
    if bounds:
      text += f' ({score(bounds[0])} to {score(bounds[1])})'
    parts.append(text)
  return f'{what}: {", ".join(parts)}.'

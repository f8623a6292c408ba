"""What do ReST and the online learners pay for what they reach?

    python -m benchmarks.online_cost runs/seed_1 runs/grpo_1 runs/ppo_1 \\
      --figure docs/online_cost.svg

Finished runs that share BC and the reward model. What a run pays is all that it needs
beyond these: Grow, scores, value and refreshed reward models, Improves, or the online
stage. Device-seconds are taken from each stage's record and summed in order; the reward
on held-out sources is that of the training's own evaluations, spread over its stage by
the clock. Evaluations of finished policies, from which gold comes, are not counted.
"""

import argparse
import io
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmarks import measuring
from rest_jax import paths
from rest_jax.report import style
from rest_jax.training import events

PAID = (  # stages
  'grow',
  'score',
  'choose',
  'train_reward',
  'train_value',
  'improve',
  'online',
)
BEFORE = ('rating_samples', 'ratings', 'reward_model')  # artifacts that runs share


class Run(NamedTuple):
  """One line of each panel."""

  name: str
  rows: list[dict[str, Any]]  # a policy each, BC first
  curve: list[tuple[float, float]]  # device-seconds, reward on held-out sources


def read(model_dir: pathlib.Path) -> Run:
  """The costs and figures of a finished run.

  Raises:
    ValueError: it has no summary yet.
  """
  summary = paths.read_json(model_dir / 'report' / 'summary.json')
  policies = {one['artifact']: one for one in summary['policies']}
  (bc, *_) = summary['policies']
  rows, curve = [_row(bc, 0.0, 0.0, 0, None)], []
  seconds = device_seconds = 0.0
  peak, energy = 0, 0.0
  for stage in summary['stages']:
    if stage['stage'] not in PAID or stage['name'] in BEFORE:
      continue
    curve += _curve(model_dir / stage['name'], device_seconds, stage['device_seconds'])
    seconds += stage['seconds']
    device_seconds += stage['device_seconds']
    peak = max(peak, stage['peak_memory_bytes'] or 0)
    joules = stage['energy_joules']
    energy = None if joules is None or energy is None else energy + joules
    if stage['name'] in policies:
      found = policies[stage['name']]
      rows.append(_row(found, seconds, device_seconds, peak, energy))
  return Run(rows[-1]['policy'].split(' (')[0], rows, curve)


def _row(
  policy: Mapping[str, Any],
  seconds: float,
  device_seconds: float,
  peak: int,
  energy: float | None,
) -> dict[str, Any]:
  return {
    'policy': policy['name'],
    'seconds': seconds,
    'device-seconds': device_seconds,
    'peak memory, GB': 1e-9 * peak,
    'energy, J': energy,
    'reward': policy['reward_mean'],
    'gold': policy['gold_mean'],
    'KL to BC': policy['kl_to_bc'],
  }


def _curve(
  artifact: pathlib.Path, start: float, device_seconds: float
) -> list[tuple[float, float]]:
  """The policy's evaluations in a stage, from `start` on; of another stage none."""
  if not (artifact / 'events').is_dir():
    return []
  lines = [x for x in events.read_metrics(artifact / 'events') if 'eval_reward' in x]
  if not lines:  # of a reward or value model
    return []
  first, last = lines[0]['wall_time'], lines[-1]['wall_time']
  whole = max(last - first, 1e-9)
  return [
    (start + device_seconds * (x['wall_time'] - first) / whole, x['eval_reward'])
    for x in lines
  ]


def draw(runs: Sequence[Run]) -> str:
  """Reward on held-out sources and gold over device-seconds, as an SVG document."""
  with style.report_style():
    figure = Figure(figsize=style.WIDE_INCHES, layout='constrained')
    left, right = figure.subplots(1, 2, sharex=True)
    for run, colour in zip(runs, itertools.cycle(style.SERIES), strict=False):
      left.plot(*zip(*run.curve, strict=True), color=colour, label=run.name)
      right.plot(
        [row['device-seconds'] for row in run.rows],
        [row['gold'] for row in run.rows],
        color=colour,
        marker='o',
        label=run.name,
      )
    left.set_title('reward on held-out sources', loc='left')
    right.set_title('gold', loc='left')
    for panel in (left, right):
      panel.set_xlabel('device-seconds beyond BC and the reward model')
    right.legend(loc='lower right')
    text = io.StringIO()
    figure.savefig(text, format='svg', metadata={'Date': None})
  return text.getvalue()


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
  """Prints a row for each policy of each run; returns them."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('model_dirs', nargs='+', type=pathlib.Path)
  parser.add_argument('--figure', type=pathlib.Path)
  given = parser.parse_args(argv)
  runs = [read(folder) for folder in given.model_dirs]
  rows = [row for run in runs for row in run.rows]
  if given.figure:
    given.figure.write_text(draw(runs))
  measuring.report('What do ReST and the online learners pay?', rows)
  return rows


if __name__ == '__main__':
  main()

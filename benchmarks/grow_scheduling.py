"""How well does Grow use 1 to 1,024 hosts, and what does a lost host cost?

    python -m benchmarks.grow_scheduling --figure docs/grow_scheduling.svg

Nothing is sampled: `benchmarks.grow_simulation` runs the protocol of claims, losses
and restarts in virtual time, over the blocks that `rest_jax.stages.shard_blocks` cuts
of the paper's largest Grow, WMT 2020 Zh-En: 890 million candidates, N = 25. What a chip
does is the TPU compiler's estimate for T5 1.1 base (benchmarks/README.md), a larger
policy than the paper's, and is varied. Every figure is a model's, none is measured.
"""

import argparse
import dataclasses
import pathlib
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from benchmarks import grow_simulation, measuring
from rest_jax.planning import storage
from rest_jax.report import style
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import shard_blocks

HOSTS = (1, 4, 16, 64, 256, 1024)
BETWEEN_LOSSES_H = (float('inf'), 100.0, 24.0, 6.0)  # of one host
TICKETS = (1, 2, 4, 8, 16, 32, 64, 128)
RATES = (0.03, 0.25, 1.0)  # times the estimate
DRAIN_STEPS = 64  # that a call takes at its end, when lanes empty and none is filled

# The compiler's estimate, v5p, T5 1.1 base, bfloat16, 32 sources x 16 slots a chip.
TOKENS_A_SECOND_AND_CHIP, ROWS_A_CHIP = 282_730, 512
CHIPS_A_HOST = 4
# Measured at N = 25 on Multi30k: a step serves all candidates that share the prefix.
TOKENS_A_STEP = 1 / 0.60
# Measured on 2026-11-25: 77,000 candidates of 10 tokens are detokenised, counted and
# written for each second of one core. Longer ones take longer.
HOST_CANDIDATES_A_SECOND = 50_000
# Measured on 2026-11-25 with four processes on two busy cores: a request takes 0.5 ms,
# and the service answers 6,000 a second.
LATENCY_S, SERVICE_S = 5e-4, 1.6e-4


@dataclasses.dataclass(frozen=True)
class Workload:
  """A Grow to schedule.

  Attributes:
    sources, num_samples: how many, and N.
    mean_length, length_sigma: of a candidate, lognormal over sources, in tokens.
    shard_sigma: of the shards' means, lognormal: a corpus comes in parts.
    sources_per_shard: of one file.
    lanes: of the sampler on a host.
    tickets: that a lane works off in a block.
    rate: times the compiler's estimate.
    seed: of the lengths.
  """

  sources: int = 35_600_000
  num_samples: int = 25
  mean_length: float = 29.0
  length_sigma: float = 0.55
  shard_sigma: float = 0.1
  sources_per_shard: int = 1024
  lanes: int = CHIPS_A_HOST * ROWS_A_CHIP
  tickets: int = sampler_lib.SamplerSettings().tickets
  rate: float = 1.0
  seed: int = 0

  def block_tokens(self) -> np.ndarray:
    """Tokens of the candidates of each block, [blocks]."""
    full, rest = divmod(self.sources, self.sources_per_shard)
    rows = [self.sources_per_shard] * full + [rest] * bool(rest)
    nowhere = epath.Path('.')
    tasks = [shard_blocks.Task(nowhere, count, nowhere) for count in rows]
    settings = sampler_lib.SamplerSettings(batch_size=self.lanes, tickets=self.tickets)
    blocks = shard_blocks.blocks(tasks, self.num_samples, settings)
    rng = np.random.default_rng(self.seed)
    counts = np.array(rows)
    # The sum over a shard's sources of lognormal lengths, by its mean and deviation.
    deviation = self.mean_length * np.sqrt(np.expm1(self.length_sigma**2))
    sums = rng.normal(self.mean_length * counts, deviation * np.sqrt(counts))
    sums *= rng.lognormal(-(self.shard_sigma**2) / 2, self.shard_sigma, len(counts))
    starts = np.cumsum([0, *(len(block) for block in blocks[:-1])])
    return self.num_samples * np.add.reduceat(np.maximum(sums, counts), starts)

  def work_s(self, tokens: np.ndarray) -> np.ndarray:
    """Seconds of each block on a host of speed 1: the slower of chips and host."""
    chips = CHIPS_A_HOST * TOKENS_A_SECOND_AND_CHIP * TOKENS_A_STEP * self.rate
    step = ROWS_A_CHIP / (TOKENS_A_SECOND_AND_CHIP * self.rate)
    writing = tokens / self.mean_length / HOST_CANDIDATES_A_SECOND
    return np.maximum(tokens / chips + DRAIN_STEPS * step, writing)

  def parquet_bytes(self) -> float:
    """Of D_g, as `rest_jax.planning` reckons it."""
    tokens = self.sources * self.num_samples * self.mean_length
    return self.sources * storage.BYTES_A_SOURCE + tokens * storage.BYTES_A_TOKEN


def point(
  workload: Workload,
  hosts: int,
  between_h: float,
  protocol: grow_simulation.Protocol,
  repeats: int,
) -> dict[str, Any]:
  """Simulates one setting several times, with other speeds and losses each time."""
  work_s = workload.work_s(workload.block_tokens())
  found = []
  for seed in range(repeats if hosts > 1 or between_h < float('inf') else 1):
    # Hosts differ by 5 %: cores, clocks, neighbours.
    speeds = np.random.default_rng(seed).lognormal(0.0, 0.05, hosts)
    losses = grow_simulation.random_losses(hosts, 3600 * between_h, seed)
    found.append(grow_simulation.simulate(work_s, speeds, losses, protocol))
  seconds = [one.seconds for one in found]
  return {
    'hosts': hosts,
    'between losses, h': between_h,
    'rate': workload.rate,
    'tickets': workload.tickets,
    'blocks': len(work_s),
    'a block, s': float(np.median(work_s)),
    'minutes': statistics.mean(seconds) / 60,
    'longest, minutes': max(seconds) / 60,
    'efficiency': statistics.mean(one.efficiency(hosts) for one in found),
    'host-hours': statistics.mean(seconds) * hosts / 3600,
    'host-hours lost': statistics.mean(one.lost_s for one in found) / 3600,
    'starts': statistics.mean(one.starts for one in found),
    'requests': statistics.mean(one.requests for one in found),
  }


def tables(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
  """Every question's rows."""
  base = grow_simulation.Protocol(latency_s=LATENCY_S, service_s=SERVICE_S)
  survive = dataclasses.replace(base, survive=True)
  wmt = Workload(sources=args.sources)
  slow = dataclasses.replace(wmt, rate=RATES[0])

  def run(workload: Workload, hosts: int, between: float, protocol: Any) -> Any:
    return point(workload, hosts, between, protocol, args.repeats)

  found: dict[str, list[dict[str, Any]]] = {}
  found['hosts'] = [
    run(dataclasses.replace(wmt, rate=rate), hosts, float('inf'), base)
    for rate in RATES
    for hosts in args.hosts
  ]
  measuring.say('hosts: done')
  found['blocks'] = [
    run(dataclasses.replace(slow, tickets=tickets), hosts, 24.0, base)
    for hosts in args.hosts[-4:]
    for tickets in TICKETS
  ]
  measuring.say('blocks: done')
  found['losses'] = [
    {'hosts that survive': protocol.survive, **run(slow, hosts, between, protocol)}
    for between in BETWEEN_LOSSES_H
    for hosts in args.hosts
    for protocol in (base, survive)
  ]
  measuring.say('losses: done')
  small = dataclasses.replace(wmt, tickets=1)
  found['claims'] = [
    {
      'asked': 'by name' if by_name else 'by number',
      **run(small, hosts, float('inf'), dataclasses.replace(base, by_name=by_name)),
    }
    for hosts in args.hosts
    for by_name in (True, False)
  ]
  return found


def draw(found: dict[str, list[dict[str, Any]]], path: str) -> None:
  """Efficiency over hosts, over the size of a block, and under losses."""
  with style.report_style():
    figure = Figure(figsize=(11.4, 4.2), layout='constrained')
    hosts_axes, blocks_axes, losses_axes = figure.subplots(1, 3, sharey=True)
    for colour, rate in zip(style.SERIES, RATES, strict=False):
      rows = [row for row in found['hosts'] if row['rate'] == rate]
      hosts_axes.plot(*_xy(rows, 'hosts'), 'o-', color=colour, label=f'{rate:g} x')
    hosts_axes.set_title('no losses, by the rate of a chip')
    several = sorted({row['hosts'] for row in found['blocks']})
    for colour, hosts in zip(style.SERIES, several, strict=False):
      rows = [row for row in found['blocks'] if row['hosts'] == hosts]
      label = f'{hosts:,} host{"s" * (hosts > 1)}'
      blocks_axes.plot(*_xy(rows, 'tickets'), 'o-', color=colour, label=label)
    blocks_axes.set_title(f'by the size of a block: {RATES[0]:g} x, lost every 24 h')
    for colour, between in zip(style.SERIES, BETWEEN_LOSSES_H, strict=False):
      for survives, line in ((False, 'o-'), (True, 'o:')):
        rows = [
          row
          for row in found['losses']
          if row['between losses, h'] == between
          and row['hosts that survive'] == survives
        ]
        name = 'none' if between == float('inf') else f'every {between:g} h'
        label = None if survives else name
        losses_axes.plot(*_xy(rows, 'hosts'), line, color=colour, label=label)
    losses_axes.set_title(f'by losses of each host, {RATES[0]:g} x')
    losses_axes.plot(
      [], [], 'o:', color=style.COLOUR['muted'], label='if hosts survive'
    )
    for axes, label in ((hosts_axes, 'hosts'), (losses_axes, 'hosts')):
      axes.set_xscale('log', base=4)
      axes.set_xticks(sorted({row['hosts'] for row in found['hosts']}))
      axes.xaxis.set_major_formatter('{x:,.0f}')
      axes.set_xlabel(label)
    blocks_axes.set_xscale('log', base=2)
    blocks_axes.set_xticks(TICKETS)
    blocks_axes.xaxis.set_major_formatter('{x:,.0f}')
    blocks_axes.set_xlabel('tickets a lane in a block')
    hosts_axes.set_ylabel('part of the hosts’ time that is kept')
    hosts_axes.set_ylim(0, 1.02)
    for axes in (hosts_axes, blocks_axes, losses_axes):
      axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.2), ncols=3)
      axes.minorticks_off()
    figure.savefig(path, facecolor='white', metadata={'Date': None})


def _xy(rows: Sequence[dict[str, Any]], key: str) -> tuple[list[Any], list[Any]]:
  return [row[key] for row in rows], [row['efficiency'] for row in rows]


def main(argv: Sequence[str] | None = None) -> dict[str, list[dict[str, Any]]]:
  """Simulates, prints a table for each question, draws the figure."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--sources', default=Workload.sources, type=int)
  parser.add_argument('--hosts', default=HOSTS, type=int, nargs='*')
  parser.add_argument('--repeats', default=5, type=int, help='speeds and losses drawn')
  parser.add_argument('--figure', type=pathlib.Path, help='file to draw into')
  args = parser.parse_args(sys.argv[1:] if argv is None else argv)
  found = tables(args)
  workload = Workload(sources=args.sources)
  for question, rows in found.items():
    measuring.report(
      question,
      rows,
      sources=args.sources,
      candidates=args.sources * workload.num_samples,
      gigabytes=workload.parquet_bytes() / 1e9,
    )
  if args.figure is not None:
    draw(found, str(args.figure))
  return found


if __name__ == '__main__':
  main()

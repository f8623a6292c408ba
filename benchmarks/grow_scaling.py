"""How do time and memory of our sampler grow with N, source length and sources?

    python -m benchmarks.grow_scaling

A random policy of the paper's IWSLT shape, candidates of exactly 24 tokens. One
quantity varies at a time. Each point runs in a process of its own: `first_seconds`
is a pass that compiles (less where the compilation cache knows the programs),
`seconds` the median of the passes after it. `sampling_mb` is the peak resident
memory of those passes less what was resident before the first, `process_mb` the
peak of the whole process; on an accelerator `device_mb` is JAX's peak there. The
groups are let go as they come, as Grow does after writing them: memory must not
grow with the number of sources.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import measuring, ours, rivals

VARIED = ('num_samples', 'source_length', 'num_sources')


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
  arguments = list(sys.argv[1:] if argv is None else argv)
  args = _parser().parse_args(arguments)
  if args.point:
    print(json.dumps(_measure(args)))
    return []
  rows = []
  for point in _points(args):
    found = measuring.in_child(
      'benchmarks.grow_scaling', [*arguments, '--point', json.dumps(point)]
    )
    rows.append({**point, **found})
    measuring.say(str(rows[-1]))
  measuring.report(
    f'candidates of exactly {args.num_tokens} tokens; one quantity varies at a time',
    rows,
    config=ours.config_of(args.shape).to_dict(),
    precision=args.precision,
    settings=args.settings,
    repeats=args.repeats,
  )
  return rows


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--num_samples', default=[1, 5, 25, 100, 400], type=int, nargs='*', help='N'
  )
  parser.add_argument(
    '--source_length', default=[8, 16, 32, 64, 128], type=int, nargs='*'
  )
  parser.add_argument('--num_sources', default=[16, 64, 256], type=int, nargs='*')
  parser.add_argument(
    '--centre',
    default='{"num_samples": 25, "source_length": 16, "num_sources": 32}',
    type=json.loads,
    help='what does not vary, as JSON (default: %(default)s)',
  )
  parser.add_argument('--num_tokens', default=24, type=int, help='of a candidate')
  parser.add_argument('--repeats', default=3, type=int)
  parser.add_argument('--precision', default='float32')
  parser.add_argument('--settings', default='{}', type=json.loads)
  parser.add_argument(
    '--shape', default='{}', help='fields of T5Config to replace, as a JSON object'
  )
  # The process of one point.
  parser.add_argument('--point', type=json.loads, help=argparse.SUPPRESS)
  return parser


def _points(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
  """What to measure, in the order of the table."""
  if sorted(args.centre) != sorted(VARIED):
    raise ValueError(f'--centre names {sorted(args.centre)}; it must name {VARIED}')
  for name in VARIED:
    for value in getattr(args, name):
      yield {'varies': name, **args.centre, name: value}


def _measure(args: argparse.Namespace) -> dict[str, Any]:
  """One point, in this process."""
  point = args.point
  policy = ours.random_policy(ours.config_of(args.shape)).with_dtype(args.precision)
  sampler = ours.OurSampler(policy, settings=args.settings)
  source_tokens = ours.random_sources(
    point['num_sources'],
    length=point['source_length'],
    vocab_size=policy.config.vocab_size,
  )

  def draw() -> int:
    return sampler.count_tokens(
      source_tokens,
      num_samples=point['num_samples'],
      limits=rivals.Limits(most=args.num_tokens, least=args.num_tokens),
    )

  before = measuring.resident_bytes()
  first = measuring.timed(draw)
  process = measuring.peak_bytes()
  measuring.reset_peak()
  turns = [measuring.timed(draw) for _ in range(args.repeats)]
  expected = point['num_sources'] * point['num_samples'] * args.num_tokens
  assert {turn.result for turn in turns} == {expected}, turns
  seconds = statistics.median(turn.seconds for turn in turns)
  row = {
    'first_seconds': first.seconds,
    'seconds': seconds,
    'samples_per_s': point['num_sources'] * point['num_samples'] / seconds,
    'tokens_per_s': expected / seconds,
    'sampling_mb': 1e-6 * (measuring.peak_bytes() - before),
    'process_mb': 1e-6 * max(process, measuring.peak_bytes()),
  }
  on_device = measuring.device_peak_bytes()
  return row if on_device is None else row | {'device_mb': 1e-6 * on_device}


if __name__ == '__main__':
  main()

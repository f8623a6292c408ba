"""How fast does Grow sample a trained policy, candidates ending where they end?

    python -m benchmarks.grow_natural --policy MODEL_DIR/bc --sources val.de.gz \\
      --num_samples 25 100

All lines of a text file, encoded with the policy's vocabulary. First every rival's
greedy outputs are held against ours: a float32 rival must agree on 99 % of them.
Then the samplers are tuned and warmed up, and the rounds interleave. A rival's
sampled lengths must not lie more than 4 standard errors from ours, in float32; the
sampled tokens of the first sources are scored with the policy itself, so that
`nats_per_token`, the mean log-probability, is comparable between samplers.

Ratios are seconds over ours, the median of the rounds and their extremes. Ours also
detokenises and records log-probabilities; the rivals return tokens. `memory_mb` is
what sampling takes beyond weights and libraries, in a process of its own.
`of_ceiling` is the share of the machine's matrix-product rate in that type,
measured in the same run, that the decoder's operations make use of (see
`ceiling.token_flops`: 2 x parameters met + attention, encoder left out).
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import comparison, measuring, ours, rivals
from rest_jax.data import text_files


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
  arguments = list(sys.argv[1:] if argv is None else argv)
  args = _parser().parse_args(arguments)
  policy = ours.make_policy(args.policy, args.shape)
  source_tokens = _sources(args, policy)
  work = comparison.Work(
    source_tokens, args.num_samples[0], rivals.Limits(most=args.max_tokens)
  )
  if args.memory_of:
    some = source_tokens[-args.memory_sources :]
    work = dataclasses.replace(work, source_tokens=some)
    print(json.dumps(comparison.peak_of_sampling(policy, work, args)))
    return []
  samplers = comparison.make_samplers(policy, args)
  # Random weights decide between near ties: rounding may tip them.
  equal = comparison.check_greedy(
    samplers, source_tokens, work.limits, strict=bool(args.policy)
  )
  every = []
  for num_samples in args.num_samples:
    work = dataclasses.replace(work, num_samples=num_samples)
    rows, drawn = comparison.compare(samplers, work, policy, repeats=args.repeats)
    nats = _nats(policy, source_tokens[: args.scored_sources], drawn)
    base = samplers[0].name
    for sampler, row in zip(samplers, rows, strict=True):
      name = sampler.name
      row['greedy_equal'] = equal.get(name)
      row['length_deviation'] = comparison.deviations(drawn[base], drawn[name])
      row['nats_per_token'] = float(np.mean(nats[name]))
      row['nats_deviation'] = comparison.standard_errors(nats[name] - nats[base])
      if not args.no_memory:
        row['memory_mb'] = 1e-6 * comparison.measure_memory(
          sampler, 'benchmarks.grow_natural', arguments, num_samples
        )
      row['setting'] = row.pop('setting')  # the longest cell, last
    measuring.report(
      f'{len(source_tokens)} sources, {num_samples} candidates each',
      rows,
      config=policy.config.to_dict(),
      repeats=args.repeats,
      max_tokens=args.max_tokens,
    )
    _check_lengths(rows)
    every += rows
  return every


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  comparison.add_arguments(parser)
  parser.add_argument('--policy', help='folder of a policy; without, a random one')
  parser.add_argument('--sources', help='text file, plain or .gz; without, random')
  parser.add_argument('--num_sources', type=int, help='the first so many lines only')
  parser.add_argument('--num_samples', default=[25, 100], type=int, nargs='+')
  parser.add_argument(
    '--max_tokens', default=64, type=int, help='of a candidate (default: %(default)s)'
  )
  parser.add_argument(
    '--scored_sources', default=100, type=int, help='for nats_per_token'
  )
  parser.add_argument(
    '--memory_sources', default=256, type=int, help='the longest, for memory_mb'
  )
  parser.add_argument(
    '--shape', default='{}', help='fields of T5Config of a random policy, as JSON'
  )
  return parser


def _sources(args: argparse.Namespace, policy: ours.Policy) -> list[list[int]]:
  """The sources' tokens; the memory's child gets them by rising length."""
  if args.sources:
    lines = [line for line in text_files.lines(args.sources) if line]
    encoded = policy.vocabulary.encode_batch(lines[: args.num_sources])
    tokens = [row.tolist() for row in encoded]
  else:
    vocab_size = policy.config.vocab_size
    tokens = ours.random_sources(
      args.num_sources or 64, length=16, vocab_size=vocab_size
    )
  return sorted(tokens, key=len) if args.memory_of else tokens


def _nats(
  policy: ours.Policy,
  source_tokens: Sequence[Sequence[int]],
  drawn: dict[str, rivals.Candidates],
) -> dict[str, np.ndarray]:
  """Each sampler's mean log-probability per token and source [sources], in nats."""
  some = {name: found[: len(source_tokens)] for name, found in drawn.items()}
  scorer = ours.log_prob_scorer(
    policy.with_dtype('float32'),
    source_length=max(map(len, source_tokens)),
    target_length=max(len(t) for found in some.values() for c in found for t in c),
  )
  nats = {}
  for name, found in some.items():
    scores = scorer(ours.with_candidates(source_tokens, found))
    lengths = [np.array([len(tokens) for tokens in source]) for source in found]
    nats[name] = np.array(
      [np.average(s, weights=n) for s, n in zip(scores, lengths, strict=True)]
    )
  return nats


def _check_lengths(rows: Sequence[dict[str, Any]]) -> None:
  """Stops where a float32 rival samples from another distribution than ours."""
  exact = [row for row in rows[1:] if rivals.is_exact(row['sampler'])]
  for row in exact if rivals.is_exact(rows[0]['sampler']) else []:
    if abs(row['length_deviation']) > comparison.MOST_DEVIATIONS:
      raise SystemExit(
        f'the mean length of {row["sampler"]}, {row["mean_length"]:.3f}, lies '
        f'{row["length_deviation"]:.1f} standard errors from that of '
        f'{rows[0]["sampler"]}, {rows[0]["mean_length"]:.3f}: they do not sample the '
        'same distribution'
      )


if __name__ == '__main__':
  main()

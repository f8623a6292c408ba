"""How many tokens a second when every candidate has the same length?

A random policy of the paper's IWSLT shape (6 + 6 layers, width 512, vocabulary
8,000), 16 sources of 16 tokens, 25 candidates each, exactly 24 tokens: EOS is
forbidden to all. So nobody gains from dropping what has finished, and what is
compared is the decoder step and the draw. Temperature 0.8, no top-k.

    python -m benchmarks.grow_fixed

Ratios are seconds over ours, the median of the rounds. `of_ceiling` is the share
of the machine's matrix-product rate in that type, measured in the same run, that
the decoder's operations make use of (see `ceiling.token_flops`).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import comparison, measuring, ours, rivals


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
  arguments = list(sys.argv[1:] if argv is None else argv)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  comparison.add_arguments(parser)
  parser.add_argument('--num_sources', default=16, type=int)
  parser.add_argument('--num_samples', default=25, type=int)
  parser.add_argument('--source_length', default=16, type=int)
  parser.add_argument('--num_tokens', default=24, type=int, help='of a candidate')
  parser.add_argument(
    '--shape', default='{}', help='fields of T5Config to replace, as a JSON object'
  )
  args = parser.parse_args(arguments)

  policy = ours.random_policy(ours.config_of(args.shape))
  work = comparison.Work(
    ours.random_sources(
      args.num_sources, length=args.source_length, vocab_size=policy.config.vocab_size
    ),
    args.num_samples,
    rivals.Limits(most=args.num_tokens, least=args.num_tokens),
  )
  if args.memory_of:
    print(json.dumps(comparison.peak_of_sampling(policy, work, args)))
    return []
  samplers = comparison.make_samplers(policy, args)
  # The likeliest tokens of random weights lie close together: rounding decides some.
  equal = comparison.check_greedy(
    samplers, work.source_tokens, work.limits, strict=False
  )
  rows, drawn = comparison.compare(samplers, work, policy, repeats=args.repeats)
  for sampler, row in zip(samplers, rows, strict=True):
    lengths = {len(tokens) for found in drawn[sampler.name] for tokens in found}
    assert lengths == {args.num_tokens}, f'{sampler.name} drew lengths {lengths}'
    row['greedy_equal'] = equal.get(sampler.name)
    if not args.no_memory:
      row['memory_mb'] = 1e-6 * comparison.measure_memory(
        sampler, 'benchmarks.grow_fixed', arguments, args.num_samples
      )
    row['setting'] = row.pop('setting')  # the longest cell, last
  measuring.report(
    f'{args.num_sources} sources of {args.source_length} tokens, {args.num_samples} '
    f'candidates of exactly {args.num_tokens} tokens',
    rows,
    config=policy.config.to_dict(),
    repeats=args.repeats,
  )
  return rows


if __name__ == '__main__':
  main()

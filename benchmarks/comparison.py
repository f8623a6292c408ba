"""Our sampler against its rivals on the same weights and sources, in one process."""

import argparse
import dataclasses
import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import ceiling, measuring, ours, rivals, t5x_rival

Sampler = ours.OurSampler | rivals.Rival

# What quantised kernels are multiplied in, by their name in `ours.QUANTISED`.
MULTIPLIED = {
  'int8_weights': 'float32',
  'int8_both': 'int8',
  'bfloat16_weights': 'bfloat16',
}
LEAST_EQUAL = 0.99  # of the greedy outputs, between samplers in float32
MOST_DEVIATIONS = 4.0  # chance alone exceeds them once in 16,000 comparisons


@dataclasses.dataclass(frozen=True)
class Work:
  """What every sampler does in a round."""

  source_tokens: list[list[int]]
  num_samples: int
  limits: rivals.Limits
  temperature: float = 0.8

  def draw(self, sampler: Sampler, seed: int) -> rivals.Candidates:
    """One round of one sampler."""
    return sampler.sample(
      self.source_tokens,
      num_samples=self.num_samples,
      limits=self.limits,
      temperature=self.temperature,
      seed=seed,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options that all comparisons have."""
  parser.add_argument(
    '--rivals',
    default='transformers,ctranslate2,ctranslate2_int8',
    type=names,
    help='comma-separated, a type after the underscore, float32 without: '
    "transformers, transformers_bfloat16, ctranslate2, ctranslate2_int8, t5x, ... ''"
    ' runs ours alone (default: %(default)s)',
  )
  parser.add_argument(
    '--t5x', type=pathlib.Path, help='root of a T5X checkout, which t5x needs'
  )
  parser.add_argument(
    '--precision',
    default='float32',
    type=names,
    help='types that ours computes in, comma-separated: float32, bfloat16, or kernels '
    'in fewer bits: bfloat16_weights (`quantisation.Bfloat16`), int8_weights, '
    'int8_both (`quantisation.Int8`, without and with inputs); the first is what '
    'ratios are taken to (default: %(default)s)',
  )
  parser.add_argument('--repeats', default=3, type=int, help='rounds that are timed')
  parser.add_argument(
    '--settings',
    default='{}',
    type=json.loads,
    help="fields of ours' SamplerSettings, as a JSON object",
  )
  parser.add_argument(
    '--device', default='cpu', help="where the rivals run, 'cpu' or 'cuda'"
  )
  parser.add_argument(
    '--no_memory', action='store_true', help='leave out the runs that measure memory'
  )
  # A process of its own measures one sampler's memory.
  parser.add_argument('--memory_of', help=argparse.SUPPRESS)
  parser.add_argument('--chosen', type=json.loads, help=argparse.SUPPRESS)


def names(text: str) -> list[str]:
  """A comma-separated list, '' being an empty one."""
  return [name.strip() for name in text.split(',') if name.strip()]


def our_names(args: argparse.Namespace) -> list[str]:
  """Ours, one for each type: 'ours' in float32, 'ours_bfloat16'."""
  if not args.precision:
    raise ValueError("--precision is empty: name a type, such as 'float32'")
  return ['ours' + ('' if t == 'float32' else f'_{t}') for t in args.precision]


def make_sampler(name: str, policy: ours.Policy, args: argparse.Namespace) -> Sampler:
  """Makes one sampler by name."""
  first, _, dtype = name.partition('_')
  if first == 'ours':
    return ours.OurSampler(
      policy.with_precision(dtype or 'float32'), name=name, settings=args.settings
    )
  if first == 't5x':
    if args.t5x is None:
      raise ValueError(f'{name} needs --t5x: the root of a T5X checkout')
    return t5x_rival.T5XRival(
      policy.config, policy.params, checkout=args.t5x, dtype=dtype or 'float32'
    )
  return rivals.make(name, policy.config, policy.params, device=args.device)


def make_samplers(policy: ours.Policy, args: argparse.Namespace) -> list[Sampler]:
  """All samplers, the one that ratios are taken to first.

  Raises:
    SystemExit: a rival is not installed; says which.
  """
  try:
    return [
      make_sampler(name, policy, args) for name in [*our_names(args), *args.rivals]
    ]
  except rivals.MissingRival as error:
    raise SystemExit(str(error)) from error


def check_greedy(
  samplers: Sequence[Sampler],
  source_tokens: Sequence[Sequence[int]],
  limits: rivals.Limits,
  *,
  strict: bool = True,
) -> dict[str, float]:
  """The share of the sources whose greedy output equals that of the first sampler.

  Raises:
    SystemExit: it is below LEAST_EQUAL where both compute in float32, and `strict`.
  """
  base = samplers[0].greedy(source_tokens, limits=limits)
  shares = {}
  for sampler in samplers[1:]:
    found = sampler.greedy(source_tokens, limits=limits)
    equal = [a == b for a, b in zip(base, found, strict=True)]
    shares[sampler.name] = float(np.mean(equal))
    measuring.say(f'{sampler.name}: {shares[sampler.name]:.2%} equal greedy outputs')
    exact = rivals.is_exact(samplers[0].name) and rivals.is_exact(sampler.name)
    if strict and exact and shares[sampler.name] < LEAST_EQUAL:
      raise SystemExit(
        f'only {shares[sampler.name]:.2%} of the greedy outputs of {sampler.name} '
        f'equal those of {samplers[0].name}; {LEAST_EQUAL:.0%} are needed: the '
        'weights or the settings differ, and speeds say nothing'
      )
  return shares


def compare(
  samplers: Sequence[Sampler], work: Work, policy: ours.Policy, *, repeats: int
) -> tuple[list[dict[str, Any]], dict[str, rivals.Candidates]]:
  """Tunes the samplers, which warms them up and compiles ours, times all in turns.

  Returns:
    A row per sampler, and what each drew in the last round.
  """
  for sampler in samplers:
    sampler.tune(work.source_tokens, num_samples=work.num_samples, limits=work.limits)
  types = {sampler.name: _type_of(sampler.name) for sampler in samplers}
  measured = {dtype: ceiling.matmul_gflops(dtype) for dtype in types.values() if dtype}
  turns = measuring.interleave(
    {sampler.name: functools.partial(work.draw, sampler) for sampler in samplers},
    repeats=repeats,
  )
  for dtype in measured:  # the machine may have been slower before
    measured[dtype] = max(measured[dtype], ceiling.matmul_gflops(dtype))
  rows = []
  for sampler in samplers:
    drawn = turns[sampler.name][-1].result
    gflops = measured.get(types[sampler.name] or '')
    row = _row(sampler, turns[sampler.name], drawn)
    row |= measuring.ratios(turns[samplers[0].name], turns[sampler.name])
    if gflops:
      needed = ceiling.token_flops(
        policy.config,
        source_length=float(np.mean([len(t) for t in work.source_tokens])),
        target_length=row['mean_length'],
      )
      row['of_ceiling'] = row['tokens_per_s'] * needed * 1e-9 / gflops
      row['ceiling_gflops'] = gflops
    rows.append(row)
  return rows, {name: turn[-1].result for name, turn in turns.items()}


def _type_of(name: str) -> str | None:
  """The type whose matrix ceiling a sampler is held against."""
  dtype = name.partition('_')[2] or 'float32'
  dtype = MULTIPLIED.get(dtype, dtype)
  return dtype if dtype in ceiling.SUMS else None


def _row(
  sampler: Sampler, turns: Sequence[measuring.Turn], drawn: rivals.Candidates
) -> dict[str, Any]:
  lengths = np.array([len(tokens) for found in drawn for tokens in found])
  ended = [tokens[-1] == rivals.EOS_ID for found in drawn for tokens in found]
  # Every round draws anew: its tokens belong to its time.
  rates = [
    sum(len(tokens) for found in turn.result for tokens in found) / turn.seconds
    for turn in turns
  ]
  seconds = measuring.median_seconds(turns)
  return {
    'sampler': sampler.name,
    'seconds': seconds,
    'samples_per_s': len(lengths) / seconds,
    'tokens_per_s': float(np.median(rates)),
    'mean_length': float(lengths.mean()),
    'unfinished': 1 - float(np.mean(ended)),
    'setting': sampler.setting,
  }


def deviations(base: rivals.Candidates, other: rivals.Candidates) -> float:
  """How far the mean lengths lie apart, in standard errors.

  Sources are the units: the difference of a source's two mean lengths, averaged,
  over its standard error. 0 where nothing differs.
  """
  differences = np.array(
    [
      np.mean([len(t) for t in b]) - np.mean([len(t) for t in a])
      for a, b in zip(base, other, strict=True)
    ]
  )
  return standard_errors(differences)


def standard_errors(differences: np.ndarray) -> float:
  """The mean of some differences [sources] over its standard error.

  0 for fewer than two differences and where all are 0; infinite where all are the
  same other number.
  """
  if len(differences) < 2 or not differences.any():
    return 0.0
  error = differences.std(ddof=1) / np.sqrt(len(differences))
  return float(differences.mean() / error) if error else float('inf')


def measure_memory(
  sampler: Sampler, module: str, arguments: Sequence[str], num_samples: int
) -> int:
  """The memory that a sampler needs beyond weights and libraries, in bytes.

  Measured in a process of its own, in which `peak_of_sampling` runs.
  """
  extra = ['--memory_of', sampler.name, '--num_samples', str(num_samples)]
  if isinstance(sampler, rivals.Rival):
    extra += ['--chosen', json.dumps(sampler.chosen)]
  found = measuring.in_child(module, [*arguments, *extra])
  measuring.say(f'{sampler.name}: {found["bytes"] / 1e6:,.0f} MB to sample')
  return found['bytes']


def peak_of_sampling(
  policy: ours.Policy, work: Work, args: argparse.Namespace
) -> dict[str, int]:
  """The child's side: peak resident memory while sampling, less that before.

  Before: the sampler is built, its weights loaded. A first pass over a few sources
  compiles and warms up; what it leaves behind counts, its own peak does not. On an
  accelerator it is JAX's peak there instead.
  """
  sampler = make_sampler(args.memory_of, policy, args)
  if isinstance(sampler, rivals.Rival) and args.chosen is not None:
    sampler.use(args.chosen)
  before = measuring.resident_bytes()
  some = dataclasses.replace(work, source_tokens=work.source_tokens[-8:])
  some.draw(sampler, seed=0)
  measuring.reset_peak()
  work.draw(sampler, seed=1)
  on_device = measuring.device_peak_bytes()
  host = measuring.peak_bytes() - before
  return {'bytes': host if on_device is None else on_device}

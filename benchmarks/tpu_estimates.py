"""What the TPU compiler says of a program, read, compared and put in a table."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Estimate:
  """What the compiler says about one step, for one chip.

  Attributes:
    milliseconds: None where the compiler's number is not positive.
    rows: candidates that the step advances on a chip.
    bytes_accessed, flops: of the step.
    argument_bytes, temp_bytes, output_bytes: memory; outputs that take the place
      of an argument (the cache) are not counted again.
    megacycles: sum over the instructions of the step, without loops' bodies.
    loops: while loops, whose bodies the estimate counts once.
    moves_milliseconds: more than `milliseconds`, at most, where rows go back.
  """

  milliseconds: float | None
  rows: int
  bytes_accessed: float
  flops: float
  argument_bytes: int
  temp_bytes: int
  output_bytes: int
  megacycles: float
  loops: int
  moves_milliseconds: float | None = 0.0

  @property
  def tokens_per_s(self) -> float | None:
    """Tokens a second and chip; None where unknown."""
    return None if self.milliseconds is None else 1e3 * self.rows / self.milliseconds


def read_estimate(
  cost: Mapping[str, float], memory: Any, text: str, rows: int
) -> Estimate:
  """Reads the compiler's analyses.

  Args:
    cost: of `cost_analysis()`.
    memory: of `memory_analysis()`.
    text: of `as_text()`.
    rows: candidates on a chip.
  """
  milliseconds = 1e3 * cost.get('optimal_seconds', 0.0)
  # The entry computation comes last; loops and fusions are computations before it.
  entry = text[text.rfind('ENTRY ') :] if 'ENTRY ' in text else ''
  cycles = re.findall(r'"estimated_cycles":"(\d+)"', entry)
  return Estimate(
    milliseconds=milliseconds if 0 < milliseconds < math.inf else None,
    rows=rows,
    bytes_accessed=cost.get('bytes accessed', math.nan),
    flops=cost.get('flops', math.nan),
    argument_bytes=memory.argument_size_in_bytes,
    temp_bytes=memory.temp_size_in_bytes,
    output_bytes=memory.output_size_in_bytes - memory.alias_size_in_bytes,
    megacycles=sum(map(int, cycles)) / 1e6,
    loops=len(re.findall(r' while\(%', text)),
  )


def with_moves(step: Estimate, moves: Estimate, steps: int) -> Estimate:
  """The estimate of a step, with its part of what is done after each `steps`-th."""
  part = moves.milliseconds
  return dataclasses.replace(
    step,
    moves_milliseconds=None if part is None else part / steps,
    temp_bytes=max(step.temp_bytes, moves.temp_bytes),
    loops=step.loops + moves.loops,
  )


def _number(value: float | None, form: str) -> str:
  return 'unknown' if value is None or math.isnan(value) else format(value, form)


def _bound(mark: str, text: str) -> str:
  return text if text == 'unknown' else mark + text


def ratio(ours: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> float | None:
  """Tokens a second of one result over another's; None where unknown."""
  if theirs is None or not theirs['tokens_per_s'] or not ours['tokens_per_s']:
    return None
  return float(ours['tokens_per_s'] / theirs['tokens_per_s'])


def cycles_ratio(
  ours: Mapping[str, Any], theirs: Mapping[str, Any] | None
) -> float | None:
  """As `ratio`, by cycles for a candidate's token; None where unknown."""
  if theirs is None or not theirs['megacycles'] or not ours['megacycles']:
    return None
  ours_each = ours['megacycles'] / ours['rows']
  return float(theirs['megacycles'] / theirs['rows'] / ours_each)


def table(results: Sequence[Mapping[str, Any]]) -> str:
  """A Markdown table of the results of one chip; '>' marks a lower bound."""
  head = (
    'size | N | model | variant | sources | GB accessed | TFLOP | arguments GB | '
    'temp GB | ms | moves ms | tokens/s | times T5X | Mcycles | times T5X by cycles'
  )
  lines = [f'| {head} |', '|' + '---|' * (head.count('|') + 1)]
  for row in results:
    least, most = ('>', '<') if row['loops'] else ('', '')
    cells = [
      row['size'],
      str(row['samples']),
      str(row['model']),
      row['variant'],
      str(row['sources']),
      _number(row['bytes_accessed'] / 1e9, '.2f'),
      _number(row['flops'] / 1e12, '.2f'),
      _number(row['argument_bytes'] / 1e9, '.2f'),
      _number(row['temp_bytes'] / 1e9, '.2f'),
      _bound(least, _number(row['milliseconds'], '.2f')),
      _number(row['moves_milliseconds'], '.2f'),
      _bound(most, _number(row['tokens_per_s'], ',.0f')),
      _bound(most, _number(row['times_t5x'], '.2f')),
      _bound(least, _number(row['megacycles'], '.1f')),
      _bound(most, _number(row['times_t5x_by_cycles'], '.2f')),
    ]
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)

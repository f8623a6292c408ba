"""What precompile prints."""

from collections.abc import Callable, Hashable, Mapping, Sequence

from rich import console as rich_console
from rich import table as rich_table

from rest_jax.planning import precompile, run_programs, tpu
from rest_jax.planning import programs as programs_lib
from rest_jax.stages import artifact

WIDTH = 132  # columns, where the output is not a terminal
SHORT = {
  'all-reduce': 'reduce',
  'all-gather': 'gather',
  'reduce-scatter': 'scatter',
  'all-to-all': 'to all',
  'collective-permute': 'permute',
}


def report(
  run: artifact.Run,
  topology: str,
  json_path: str | None = None,
  compiler: Callable[..., precompile.Estimate] = precompile.compile_program,
) -> bool:
  """Compiles all programs of a run and prints what came out.

  Args:
    run: after its algorithm has gone through it, as a dry run, on the mesh of the
      topology's devices.
    topology: such as 'v5p:8x8x16'.
    json_path: where to write the figures too.
    compiler: as `precompile.compile_program`.

  Returns:
    Whether every program was compiled and fits.
  """
  chip = tpu.chip_of(topology)
  found = run_programs.of_run(run)
  estimates = precompile.compile_all(found, chip, say, compiler)
  print_programs(topology, estimates)
  hours = precompile.stage_hours(found.uses, estimates)
  print_hours(hours, run.mesh.size)
  print_problems(found.problems)
  left = skipped(found, [entry.artifact.name for entry in run.history])
  if left:
    say(f'nothing compiled for: {", ".join(left)}')
  if json_path is not None:
    precompile.write_json(json_path, topology, estimates.values(), {'hours': hours})
  return not found.problems and all(one.fits(chip) for one in estimates.values())


def print_programs(
  topology: str, estimates: Mapping[Hashable, precompile.Estimate]
) -> None:
  """The table of programs, and what to do about those that do not fit."""
  chip = tpu.chip_of(topology)
  table = rich_table.Table(
    title=f'the TPU compiler on {topology}: estimates, not measurements',
    caption='a chip. GB sent: in rings, kinds above 1 %. ms: compute (~ by cycles, > '
    'at peak) + collectives at link speed, not overlapped. Steps of the sampler and of '
    'beam search: one token',
  )
  names = ('program', 'mesh', 'GiB', 'fits', 'TFLOP', 'GB sent', 'ms', 'tokens/s')
  for name in names:
    table.add_column(name, overflow='fold', justify='left')
  for one in estimates.values():
    table.add_row(*_row(one, chip))
  _console().print(table)
  for one in estimates.values():
    if one.refusal:
      _console().print(f'{one.program}: the compiler refuses it: {one.refusal}')
    elif not one.fits(chip):
      advice = precompile.remedy(one, chip)
      _console().print(f'{one.program} does not fit into {topology}: {advice}')


def _row(one: precompile.Estimate, chip: tpu.Chip) -> list[str]:
  room = precompile.USABLE * chip.memory_gib
  used = None if one.used_bytes is None else one.used_bytes / tpu.GIB
  axes = ' '.join(f'{axis}={n}' for axis, n in one.mesh.items() if n > 1)
  if one.refusal:
    gib = 'refused'
  elif one.compiled:
    gib = f'{used:.2f}: {_gib(one.argument_bytes)} in, {_gib(one.temp_bytes)} temp'
    gib += f', {_gib(one.held_bytes)} beside' if one.held_bytes else ''
  else:
    gib = 'more' if used is None else f'{used:.2f}'
  spare = '' if used is None else f', {abs(room - used):.2f} GiB '
  fits = f'yes{spare}left' if one.fits(chip) else f'NO{spare and spare + "over"}'
  sent: dict[str, float] = {}
  for collective in one.collectives:
    before = sent.get(collective.kind, 0.0)
    sent[collective.kind] = before + collective.sent_bytes
  total = sum(sent.values())
  moved = ', '.join(
    f'{SHORT[kind]} {n / 1e9:.3g}' for kind, n in sent.items() if n > 0.01 * total
  )
  parts = [None if x is None else 1e3 * x for x in (one.compute_s, one.links_s)]
  mark = '>' if one.at_peak else '~' if one.by_cycles else ''
  return [
    one.program,
    axes or 'one chip',
    gib,
    fits,
    f'{one.flops / 1e12:.3g}',
    moved or '-',
    mark + ' + '.join('unknown' if ms is None else f'{ms:.3g}' for ms in parts),
    _rate(one),
  ]


def _rate(one: precompile.Estimate) -> str:
  if not one.tokens:
    return '-'  # it moves arrays
  return 'unknown' if one.tokens_per_s is None else f'{one.tokens_per_s:,.0f}'


def print_hours(hours: Mapping[str, float | None], chips: int) -> None:
  """Hours of each artifact and of all."""
  table = rich_table.Table(
    title='hours at most, by these estimates (not measured)',
    caption='every step at the longest bucket, every candidate of full length; reading,'
    ' writing, ingest and held-out data of supervise, train_reward and train_value are'
    ' left out',
  )
  for name in ('artifact', 'hours', 'chip hours'):
    table.add_column(name)
  for name, value in hours.items():
    table.add_row(name, *_hours(value, chips))
  known = [value for value in hours.values() if value is not None]
  table.add_row('all that is known', *_hours(sum(known), chips))
  _console().print(table)


def print_problems(problems: Sequence[tuple[str, str]]) -> None:
  """What could not be compiled since the mesh does not allow it; each line once."""
  for text, names in _by_text(problems).items():
    _console().print(f'{", ".join(names)}: {text}')


def skipped(found: programs_lib.Programs, artifacts: Sequence[str]) -> list[str]:
  """The artifacts of which no program was compiled."""
  known = {use.artifact for use in found.uses} | {name for name, _ in found.problems}
  return [name for name in artifacts if name not in known]


def print_table(table: rich_table.Table) -> None:
  """Prints a table."""
  _console().print(table)


def say(text: str) -> None:
  """Prints a line."""
  _console().print(text)


def _by_text(problems: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
  found: dict[str, list[str]] = {}
  for name, text in problems:
    found.setdefault(text, []).append(name)
  return found


def _hours(value: float | None, chips: int) -> tuple[str, ...]:
  if value is None:
    return 'unknown', 'unknown'
  return tuple(
    f'{x:,.2f}' if x >= 0.01 or not x else '< 0.01' for x in (value, value * chips)
  )


def _gib(count: int | None) -> str:
  return f'{(count or 0) / tpu.GIB:.2f}'


def _console() -> rich_console.Console:
  console = rich_console.Console(highlight=False, markup=False, soft_wrap=False)
  if not console.is_terminal:
    console = rich_console.Console(highlight=False, markup=False, width=WIDTH)
  return console

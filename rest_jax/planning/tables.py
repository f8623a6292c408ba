"""The plan's figures as tables: bytes on a device, arithmetic, the size of D_g."""

from collections.abc import Mapping
from typing import Any

from rich import console as rich_console
from rich import table as rich_table

from rest_jax.planning import memory, storage
from rest_jax.stages import artifact, plan

UNKNOWN = 'unknown'


def print_needs(run: artifact.Run) -> None:
  """Prints what the stages of a planned run hold on a device, and how large D_g is."""
  needs = memory.by_stage(run)
  console = plan.console()
  if needs:
    _print_memory(console, needs, run.mesh.size)
  sizes = storage.grow_sizes(run)
  if sizes:
    _print_sizes(console, sizes)
  total, unknown = storage.disk_bytes(run, needs)
  more = f' and {", ".join(unknown)}, {UNKNOWN} until ingested' if unknown else ''
  console.print(f'MODEL_DIR will grow by about {in_words(total)}{more}')
  for problem in memory.misfits(run):
    console.print(f'[bold red]problem:[/] {problem}', highlight=False)


def _print_memory(
  console: rich_console.Console, needs: Mapping[str, memory.Memory], devices: int
) -> None:
  table = rich_table.Table(
    title='on each device, without activations and what the compiler sets aside'
  )
  columns = ('parameters', 'optimiser', 'gradients', 'others', 'decoder', 'at once')
  for column in ('artifact', *columns, 'TFLOP'):
    table.add_column(column, overflow='fold')
  for names, one in _alike(needs):
    flops = '' if one.flops is None else f'{one.flops / 1e12:,.3g}'
    parts = (one.parameters, one.optimiser, one.gradients, one.others, one.cache)
    table.add_row(
      names, *(in_words(x) if x else '' for x in parts), in_words(one.total), flops
    )
  console.print(table)
  console.print(
    'others: the best parameters so far and the models that are read; decoder: the '
    "sampler's keys, values and candidates; TFLOP: the matrix products of a training "
    f'step as it is traced, on {devices} device{"s" * (devices > 1)} together'
  )


def _print_sizes(
  console: rich_console.Console, sizes: Mapping[str, storage.GrowSize]
) -> None:
  table = rich_table.Table(title='size of the group sets')
  for column in ('artifact', 'sources x N', 'tokens', 'Parquet', 'how it is known'):
    table.add_column(column, overflow='fold')
  for names, one in _alike(sizes):
    sources = UNKNOWN if one.sources is None else f'{one.sources:,}'
    table.add_row(
      names,
      f'{sources} x {one.samples:,}',
      UNKNOWN if one.tokens is None else f'{one.tokens:,}',
      UNKNOWN if one.bytes is None else in_words(one.bytes),
      one.how,
    )
  console.print(table)


def _alike(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
  """The different values, each under its first name, as 'grow_1 and 2 alike'."""
  names: dict[Any, list[str]] = {}
  for name, value in values.items():
    names.setdefault(value, []).append(name)
  return [
    (f'{first} and {len(more)} alike' if more else first, value)
    for value, (first, *more) in names.items()
  ]


def in_words(size: float) -> str:
  """Bytes with a unit: '1.5 GB', powers of 1000."""
  for unit in ('B', 'kB', 'MB', 'GB', 'TB'):
    if abs(size) < 1000:
      return f'{size:,.3g} {unit}'
    size /= 1000
  return f'{size:,.4g} PB'

"""Tries mesh shapes and batch sizes under the TPU compiler, and ranks them.

All shapes that divide are listed; those whose parameters and state alone do not fit,
by their shapes, are passed over; of the others the narrowest are compiled, since wide
fsdp and model axes are paid for in collectives. Then the batch of the best grows.
"""

import dataclasses
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from rich import table as rich_table

from rest_jax.planning import memory, precompile, precompile_table, run_programs, tpu
from rest_jax.planning import programs as programs_lib
from rest_jax.stages import artifact
from rest_jax.training import mesh as mesh_lib

BATCH_SCALES = (2.0, 4.0, 8.0)
# Of a chip, what parameters, state, gradients and other models may take by shapes.
MOST_HELD = 0.85


@dataclasses.dataclass(frozen=True)
class Tried:
  """One mesh and batch, and what the compiler says of it.

  Attributes:
    config: of the mesh.
    batch_scale: of the batch sizes of training in the gin files.
    train, sample: the training step and Grow's decoder step; None where the mesh
      does not allow the program.
    problem: why it does not.
  """

  config: mesh_lib.MeshConfig
  batch_scale: float
  train: precompile.Estimate | None = None
  sample: precompile.Estimate | None = None
  problem: str = ''

  def fits(self, chip: tpu.Chip) -> bool:
    """Whether both programs were compiled and fit."""
    return all(one is not None and one.fits(chip) for one in (self.train, self.sample))

  @property
  def tokens_per_s(self) -> float:
    """Of training, a chip; 0 where unknown."""
    return (self.train.tokens_per_s if self.train else None) or 0.0


def mesh_shapes(
  chips: int, *, chips_per_host: int, heads: int
) -> list[mesh_lib.MeshConfig]:
  """All shapes whose model axis fits into a host and divides the heads.

  From the narrowest fsdp x model on.
  """
  found = []
  for model in _divisors(math.gcd(chips_per_host, heads)):
    for fsdp in _divisors(chips // model):
      found.append(mesh_lib.MeshConfig(chips // model // fsdp, fsdp, model))
  return sorted(found, key=lambda one: (one.fsdp * one.model, one.model))


def rank(
  run: artifact.Run,
  topology: str,
  *,
  num_meshes: int = 6,
  compile_program: Callable[..., precompile.Estimate] = precompile.compile_program,
  say: Callable[[str], None] = lambda text: None,
) -> list[Tried]:
  """The meshes and batches that were tried, the best first.

  Args:
    run: after its algorithm has gone through it, as a dry run, on the devices of
      the topology; left with another mesh.
    topology: such as 'v5p:4x4x4'.
    num_meshes: how many are compiled.
    compile_program: as `precompile.compile_program`.
    say: takes lines of progress.

  Raises:
    ValueError: the run trains nothing.
  """
  chip = tpu.chip_of(topology)
  devices = list(run.mesh.devices.flat)
  stage, config = _largest_training(run)
  hosts = len({device.process_index for device in devices})
  shapes = mesh_shapes(
    len(devices), chips_per_host=len(devices) // hosts, heads=config.num_heads
  )
  known: dict[Hashable, precompile.Estimate] = {}

  def one_of(
    found: programs_lib.Programs, start: str, mesh: Any
  ) -> precompile.Estimate | None:
    for program in found.programs.values():
      if program.name.startswith(start) and program.mesh == mesh:
        if program.identity not in known:
          say(f'compiling {program.name} on {dict(program.mesh.shape)}')
          known[program.identity] = compile_program(program, chip)
        return known[program.identity]
    return None

  def attempt(shape: mesh_lib.MeshConfig, scale: float) -> Tried:
    run.mesh = mesh = mesh_lib.make_mesh(shape, devices)
    found = run_programs.of_run(run, batch_scale=scale)
    problems = '; '.join(dict.fromkeys(text for _, text in found.problems))
    train = one_of(found, f'{stage} step', mesh)
    if train is None or not train.fits(chip):
      return Tried(shape, scale, train, None, problems)
    sample = one_of(found, 'sampler step', programs_lib.one_host(mesh))
    return Tried(shape, scale, train, sample, problems)

  tried: list[Tried] = []
  for shape in shapes:
    run.mesh = mesh_lib.make_mesh(shape, devices)
    if sum(one.train is not None for one in tried) >= num_meshes:
      break
    needs = memory.by_stage(run)
    held = max((need.total for need in needs.values()), default=0)
    if held > MOST_HELD * chip.memory_bytes:
      continue
    tried.append(attempt(shape, 1.0))
  best = max(tried, key=lambda one: (one.fits(chip), one.tokens_per_s), default=None)
  if best is not None and best.fits(chip):
    for scale in BATCH_SCALES:
      larger = attempt(best.config, scale)
      tried.append(larger)
      if not larger.fits(chip):
        break
  return sorted(tried, key=lambda one: (one.fits(chip), one.tokens_per_s), reverse=True)


def print_ranked(topology: str, tried: Sequence[Tried]) -> None:
  """The table of what was tried."""
  chip = tpu.chip_of(topology)
  table = rich_table.Table(
    title=f'meshes and batches on {topology}, by tokens/s of training: estimates of '
    'the compiler, not measurements',
    caption='tokens/s of a chip; batch: times BATCH_SIZE',
  )
  names = ('data', 'fsdp', 'model', 'batch', 'fits', 'GiB', 'training', 'Grow', 'why')
  for name in names:
    table.add_column(name, overflow='fold')
  for one in tried:
    used = one.train.used_bytes if one.train else None
    shape = (one.config.data, one.config.fsdp, one.config.model)
    table.add_row(
      *map(str, shape),
      f'{one.batch_scale:g}',
      'yes' if one.fits(chip) else 'no',
      '-' if used is None else f'{used / tpu.GIB:.1f}',
      _rate(one.train),
      _rate(one.sample),
      one.problem,
    )
  precompile_table.print_table(table)
  if tried and tried[0].fits(chip):
    best = tried[0].config
    precompile_table.say(
      f'the first as gin: --gin.mesh.MeshConfig.data={best.data} '
      f'--gin.mesh.MeshConfig.fsdp={best.fsdp} --gin.mesh.MeshConfig.model={best.model}'
    )
  elif not tried:
    precompile_table.say(
      'on no mesh would parameters and state fit: take more chips, or a smaller model'
    )


def _largest_training(run: artifact.Run) -> tuple[str, Any]:
  """The training that holds most, and its model's shape."""
  entries = {entry.artifact.name: entry for entry in run.history}
  for stage in ('improve', 'supervise'):
    for entry in run.history:
      config = memory.model_config(entry, entries)
      if entry.artifact.stage == stage and config is not None:
        return stage, config
  raise ValueError(
    '--tune has nothing to rank: the run has no supervise and no improve'
  )


def _rate(one: precompile.Estimate | None) -> str:
  if one is None:
    return '-'
  return 'unknown' if one.tokens_per_s is None else f'{one.tokens_per_s:,.0f}'


def _divisors(number: int) -> list[int]:
  return [n for n in range(1, number + 1) if number % n == 0]

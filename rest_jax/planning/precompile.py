"""Compiles every program of a run for a pod that is not there, and says what it needs.

Everything here is the compiler's word, not a measurement: memory is what it laid out,
times are its estimates. Its time leaves collectives out; they are reckoned from the
bytes that each chip sends, at the speed of its links, and added as if nothing
overlapped. Its `optimal_seconds` has come out negative for some programs: it is taken
as unknown there, and the cycles that the back end writes to each instruction stand in.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from rest_jax import paths
from rest_jax.planning import arithmetic, compiled_text, tpu
from rest_jax.planning import programs as programs_lib

# What the runtime keeps for itself: v5e's compiler gives programs 15.75 GiB of 16.
USABLE = 0.984
# By how the names of programs begin, all but those of training: what makes them small.
_LOWER = {
  'sampler': 'SamplerSettings.batch_size',
  'beam': 'SamplerSettings.batch_size, or evaluate.evaluate.beams',
  'scorer': 'batch_size of score or train_reward',
  'divergence': 'evaluate.evaluate.num_samples, or TASK_FEATURE_LENGTHS',
}


@dataclasses.dataclass(frozen=True)
class Estimate:
  """What the compiler says of one execution of a program, for one chip.

  Attributes:
    program: its name.
    chips: of its mesh.
    mesh: devices along each axis.
    argument_bytes, temp_bytes, output_bytes, code_bytes: memory; outputs that take
      the place of an argument are not counted again. None where it does not fit.
    held_bytes: of other arrays that lie on the chip meanwhile.
    used_bytes: the sum, or what the compiler said when it refused.
    flops: of the matrix products in the program as it is traced, over the chips.
    bytes_accessed: the compiler's, bodies of loops counted once.
    collectives: by kind and number of participants, loops counted in full.
    optimal_s: the compiler's `optimal_seconds`, loops' bodies once; None if unknown.
    cycles: the compiler's, of all instructions, loops counted in full.
    compute_s: `optimal_s` times `repetition`; where that is unknown the cycles at the
      chip's clock (`by_cycles`). None where both are unknown.
    links_s: time of the collectives at the speed of the chip's links.
    repetition: cycles with loops in full, over cycles with their bodies counted once.
    unknown_loops: whose length the program decides while it runs; counted once.
    at_peak: whether `compute_s` is the matrix products at the chip's peak, which both
      estimates stayed below: what a loop of unknown length holds is counted once.
    refusal: why the compiler refused the program, if not for its size.
    tokens: of all chips.
    compile_s: what compiling took here.
  """

  program: str
  chips: int
  mesh: Mapping[str, int]
  argument_bytes: int | None
  temp_bytes: int | None
  output_bytes: int | None
  code_bytes: int | None
  held_bytes: int
  used_bytes: float | None
  flops: float
  bytes_accessed: float | None
  collectives: tuple[compiled_text.Collective, ...]
  optimal_s: float | None
  cycles: int
  compute_s: float | None
  by_cycles: bool
  links_s: float | None
  repetition: float
  unknown_loops: int
  at_peak: bool
  refusal: str
  tokens: int
  compile_s: float

  @property
  def compiled(self) -> bool:
    """Whether the compiler found room for it."""
    return self.argument_bytes is not None

  def fits(self, chip: tpu.Chip) -> bool:
    """Whether it and what lies beside it fit into the chip's memory."""
    room = USABLE * chip.memory_bytes
    return self.compiled and (self.used_bytes or 0) <= room

  @property
  def seconds(self) -> float | None:
    """Compute and collectives, one after the other; None where unknown."""
    if self.compute_s is None or self.links_s is None:
      return None
    return self.compute_s + self.links_s

  @property
  def tokens_per_s(self) -> float | None:
    """Tokens a second and chip."""
    return None if not self.seconds else self.tokens / self.seconds / self.chips


def compile_program(
  program: programs_lib.Program,
  chip: tpu.Chip,
  *,
  keep_text: Callable[[str], None] = lambda text: None,
) -> Estimate:
  """Compiles one program and reads what the compiler says of it.

  Args:
    program: of `run_programs.of_run`.
    chip: of the topology.
    keep_text: takes the text of the compiled program.
  """
  started = time.monotonic()
  traced = program.trace()
  chips = program.mesh.size
  flops = arithmetic.matrix_flops(traced.jaxpr.jaxpr) / chips
  common: dict[str, Any] = {
    'program': program.name,
    'chips': chips,
    'mesh': dict(program.mesh.shape),
    'held_bytes': program.held_bytes,
    'flops': flops,
    'tokens': program.tokens,
  }
  try:
    compiled = tpu.compile_traced(traced)
  except tpu.RefusedError as error:
    found = refused(program, '' if error.too_large else str(error).splitlines()[0])
    used = error.used_bytes
    return dataclasses.replace(
      found,
      flops=flops,
      used_bytes=None if used is None else used + program.held_bytes,
      compile_s=time.monotonic() - started,
    )
  sizes, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
  whole = compiled.as_text() or ''
  keep_text(whole)
  text = compiled_text.read(
    whole, one_turn=program.one_turn, branch_share=program.branch_share
  )
  seconds = known_seconds(cost)
  compute = text.cycles / chip.clock_hz or None
  if seconds is not None:
    compute = seconds * text.repetition
  least = flops / chip.peak_flops
  at_peak = compute is not None and compute < least
  outputs = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
  parts = (
    sizes.argument_size_in_bytes,
    sizes.temp_size_in_bytes,
    outputs,
    sizes.generated_code_size_in_bytes,
  )
  return Estimate(
    **common,
    argument_bytes=parts[0],
    temp_bytes=parts[1],
    output_bytes=parts[2],
    code_bytes=parts[3],
    used_bytes=float(sum(parts) + program.held_bytes),
    bytes_accessed=cost.get('bytes accessed'),
    collectives=text.collectives,
    optimal_s=seconds,
    cycles=text.cycles,
    compute_s=least if at_peak else compute,
    at_peak=at_peak,
    refusal='',
    by_cycles=seconds is None,
    links_s=text.sent_bytes / chip.link_bytes_per_s,
    repetition=text.repetition,
    unknown_loops=text.loops_of_unknown_length,
    compile_s=time.monotonic() - started,
  )


def refused(program: programs_lib.Program, reason: str) -> Estimate:
  """What is known of a program that was not compiled; '' is for its size."""
  return Estimate(
    program=program.name,
    chips=program.mesh.size,
    mesh=dict(program.mesh.shape),
    argument_bytes=None,
    temp_bytes=None,
    output_bytes=None,
    code_bytes=None,
    held_bytes=program.held_bytes,
    used_bytes=None,
    flops=math.nan,
    bytes_accessed=None,
    collectives=(),
    optimal_s=None,
    cycles=0,
    compute_s=None,
    by_cycles=False,
    links_s=None,
    repetition=1.0,
    unknown_loops=0,
    at_peak=False,
    refusal=reason,
    tokens=program.tokens,
    compile_s=0.0,
  )


def known_seconds(cost: Mapping[str, float]) -> float | None:
  """The compiler's `optimal_seconds`; None where it is not positive, a bug of it."""
  seconds = cost.get('optimal_seconds', 0.0)
  return seconds if 0 < seconds < math.inf else None


def compile_all(
  found: programs_lib.Programs,
  chip: tpu.Chip,
  say: Callable[[str], None] = lambda text: None,
  compiler: Callable[[programs_lib.Program, tpu.Chip], Estimate] = compile_program,
) -> dict[Hashable, Estimate]:
  """Compiles the programs one after the other, by identity."""
  estimates = {}
  for number, (identity, program) in enumerate(found.programs.items(), start=1):
    say(f'compiling {number} of {len(found.programs)}: {program.name}')
    estimates[identity] = compiler(program, chip)
  return estimates


def stage_hours(
  uses: Iterable[programs_lib.Use], estimates: Mapping[Hashable, Estimate]
) -> dict[str, float | None]:
  """Hours of each artifact by the estimates, at most; None where one is unknown.

  Every training step at the longest bucket, every candidate of full length, nothing
  shared among candidates; time of the host, of reading and of writing is left out.
  """
  hours: dict[str, float | None] = {}
  for use in uses:
    seconds = estimates[use.program].seconds
    so_far = hours.get(use.artifact, 0.0)
    if use.executions == 0:
      hours[use.artifact] = so_far
    elif seconds is None or use.executions is None or so_far is None:
      hours[use.artifact] = None
    else:
      hours[use.artifact] = so_far + use.executions * seconds / use.at_once / 3600
  return hours


def remedy(estimate: Estimate, chip: tpu.Chip) -> str:
  """What to change where a program does not fit."""
  arguments = estimate.argument_bytes
  held = (arguments or 0) + estimate.held_bytes
  if arguments is not None and held > 0.5 * USABLE * chip.memory_bytes:
    return (
      'parameters and state alone take most of it: spread them, with a larger fsdp or '
      'model axis (mesh.MeshConfig)'
    )
  kind = estimate.program.partition(' ')[0]
  if kind in _LOWER:
    return (
      f'lower {_LOWER[kind]}; or spread the parameters with a larger model axis, no '
      'wider than a host (mesh.MeshConfig)'
    )
  return (
    'raise num_microbatches or lower the batch size; set T5Config.remat = True; or '
    'spread the parameters with a larger fsdp or model axis (mesh.MeshConfig)'
  )


def write_json(
  path: str, topology: str, estimates: Iterable[Estimate], extra: Mapping[str, Any]
) -> None:
  """Writes what was found, for programs to read."""
  rows: Sequence[Mapping[str, Any]] = [
    {
      **dataclasses.asdict(one),
      'seconds': one.seconds,
      'tokens_per_s': one.tokens_per_s,
      'sent_bytes': sum(c.sent_bytes for c in one.collectives),
    }
    for one in estimates
  ]
  record = {'kind': 'estimate', 'topology': topology, **extra, 'programs': rows}
  paths.write_text_atomic(paths.as_path(path), json.dumps(record, indent=1))

"""TPU chips, and the TPU compiler, which works without any TPU.

libtpu, from the package index, holds the whole compiler. Told a topology such as
'v5p:8x8x16' it compiles for those 1,024 chips on any machine, and says what a program
needs. JAX is imported inside functions: `prepare` has to come before.
"""

import contextlib
import dataclasses
import importlib.util
import os
import re
from typing import Any

GIB = 2**30
ENVIRONMENT = {
  'JAX_PLATFORMS': 'cpu',  # a TPU that is here is left alone
  'TPU_SKIP_MDS_QUERY': '1',  # no machine of Google's cloud is asked what it is
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_ACCELERATOR_TYPE': 'v5p-8',  # else libtpu complains; the topology decides
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_STDERR_LOG_LEVEL': '3',
  # Larger stacks: with its own, 64 KB or so, libtpu 0.0.42.1 ends in a stack overflow
  # on some training steps (T5 1.1 base on v5e:16x16).
  'LIBTPU_INIT_ARGS': '--fibers_default_thread_stack_size=4194304 '
  '--default_thread_stack_size=4194304',
}


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip of a generation, as Google's documents describe it.

  Source: docs.cloud.google.com/tpu/docs, the pages of v4, v5e, v5p and v6e (read on
  2026-11-25); links are half of the bandwidth that they give for both ways. The page
  of v4 gives none: 300 GB/s is an assumption.

  Attributes:
    name: as topologies begin.
    memory_gib: of the chip; the runtime keeps a little of it.
    peak_flops: a second, in bfloat16.
    memory_bytes_per_s: between the chip and its memory.
    link_bytes_per_s: between the chip and its neighbours, all links together, one
      way.
    clock_hz: cycles a second: peak_flops over what its matrix units of 128 x 128 do in
      a cycle. For v6e an assumption, the clock of v5p.
  """

  name: str
  memory_gib: int
  peak_flops: float
  memory_bytes_per_s: float
  link_bytes_per_s: float
  clock_hz: float

  @property
  def memory_bytes(self) -> int:
    """Bytes of memory."""
    return self.memory_gib * GIB


CHIPS = {
  chip.name: chip
  for chip in (
    Chip('v4', 32, 275e12, 1200e9, 300e9, 1.05e9),
    Chip('v5e', 16, 197e12, 819e9, 200e9, 1.5e9),
    Chip('v5p', 95, 459e12, 2765e9, 600e9, 1.75e9),
    Chip('v6e', 32, 918e12, 1638e9, 400e9, 1.75e9),
  )
}

# By the kind of device: those of which a program needs the whole slice, see
# `programs.one_host`.
LIMITED_ROUTING = {'TPU v5 lite': 'v5e', 'TPU v6 lite': 'v6e'}


def prepare() -> None:
  """Sets the environment so that JAX neither looks for a TPU nor takes one.

  To be called before JAX is imported.
  """
  for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  os.environ['JAX_PLATFORMS'] = 'cpu'


def require_libtpu() -> None:
  """Raises ValueError where the TPU compiler is not installed."""
  if importlib.util.find_spec('libtpu') is None:
    raise ValueError(
      'the TPU compiler is not installed (libtpu is not found; no TPU is needed for '
      "it): pip install 'rest_jax[tpu]', or 'jax[tpu]' in the version of your jax"
    )


def chip_of(topology: str) -> Chip:
  """The chip of a topology such as 'v5e:4x4'.

  Raises:
    ValueError: not of that form, or of an unknown chip.
  """
  name, _, shape = topology.partition(':')
  if name not in CHIPS or not re.fullmatch(r'\d+(x\d+){1,2}', shape):
    raise ValueError(
      f'--topology={topology!r} must be a chip ({", ".join(CHIPS)}), a colon and the '
      'chips along each axis: v5e:4x4 (16 chips), v6e:16x16, v5p:8x8x16 (1,024 chips)'
    )
  return CHIPS[name]


def devices(topology: str) -> list[Any]:
  """The described chips, in the order that JAX would list them in.

  Raises:
    ValueError: no such topology, or libtpu is not installed.
  """
  chip_of(topology)
  require_libtpu()
  import jax
  from jax.experimental import topologies

  with _quiet():
    try:
      found = topologies.get_topology_desc(platform='tpu', topology_name=topology)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
      first = str(error).splitlines()[0]
      raise ValueError(
        f'--topology={topology!r}: the TPU compiler knows none like it ({first}). '
        'Sizes along an axis are multiples of those of one host, 2x2 (v5e, v6e) or '
        '2x2x1 (v4, v5p)'
      ) from error
  return list(found.devices)


class RefusedError(Exception):
  """The compiler refuses a program: too large for the memory, or else.

  Attributes:
    too_large: whether it does not fit into a chip's memory.
    used_bytes: what it would use; None where the compiler does not say.
  """

  def __init__(self, text: str):
    super().__init__(text)
    self.too_large = 'RESOURCE_EXHAUSTED' in text or 'Ran out of memory' in text
    self.used_bytes = used_bytes(text)


def compile_traced(traced: Any) -> Any:
  """Compiles what `jax.jit(...).trace(...)` returned.

  Raises:
    RefusedError: it does not fit into the memory of a chip, or the compiler has
      another reason.
  """
  import jax

  with _quiet():
    try:
      return traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
      raise RefusedError(str(error)) from error


def used_bytes(text: str) -> float | None:
  """What a program would use, from the compiler's refusal; None if it is not said."""
  match = re.search(r'Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm', text)
  if match is None:
    return None
  return float(match[1]) * 1024 ** (' KMGT'.index(match[2]) if match[2] else 0)


@contextlib.contextmanager
def _quiet() -> Any:
  """Inside, what libtpu writes to standard error is dropped, however it is written."""
  saved = os.dup(2)
  nowhere = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(nowhere, 2)
    yield
  finally:
    os.dup2(saved, 2)
    os.close(saved)
    os.close(nowhere)

"""Programs that a run compiles, and what of the plan they follow from.

`run_programs` collects those of a run; what each kind of work compiles is in
`training_programs`, `sampling_programs` and `scoring_programs`. A program of a stage is
the one of its longest lengths (training: one for each bucket). Stages that work
`apart`, or on the first host alone, run on the mesh of one host, see `docs/hosts.md`.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import jax

from rest_jax.data import buckets
from rest_jax.models import t5
from rest_jax.planning import shapes, tpu
from rest_jax.stages import artifact
from rest_jax.training import mesh as mesh_lib


@dataclasses.dataclass(frozen=True)
class Program:
  """One program, ready to be compiled.

  Attributes:
    name: such as 'improve step [128, 4, 128]'.
    mesh: of the devices that it runs on.
    trace: makes what `jax.jit(...).trace(...)` returns.
    tokens: target positions that one execution handles, on the whole mesh, padding
      included; for a program that loops until it is done, in one turn of its loop; 0
      for one that moves arrays.
    held_bytes: of arrays that lie on each device meanwhile and are no argument.
    one_turn: whether the figures are of one turn of its loop of unknown length.
    branch_share: how often a choice inside it is taken, see `compiled_text.read`.
    identity: equal for programs so alike that the largest stands for all.
    size: by which of them is the largest.
  """

  name: str
  mesh: jax.sharding.Mesh
  trace: Callable[[], Any] = dataclasses.field(compare=False)
  tokens: int
  held_bytes: int = 0
  one_turn: bool = False
  branch_share: float = 1.0
  identity: Hashable = None
  size: int = 0


@dataclasses.dataclass(frozen=True)
class Use:
  """That a stage executes a program.

  Attributes:
    artifact: of the stage, such as 'improve_1_2'.
    program: its identity.
    executions: at most; None where no stage says how many.
    at_once: meshes of the program's that work side by side (hosts in Grow).
  """

  artifact: str
  program: Hashable
  executions: float | None
  at_once: int = 1


@dataclasses.dataclass
class Programs:
  """What `run_programs.of_run` found.

  Attributes:
    programs: by identity, in the order of the run.
    uses: who executes them.
    problems: (artifact, what is wrong): programs that the mesh does not allow.
  """

  programs: dict[Hashable, Program] = dataclasses.field(default_factory=dict)
  uses: list[Use] = dataclasses.field(default_factory=list)
  problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)

  def add(
    self, artifact: str, program: Program, executions: float | None, at_once: int
  ) -> None:
    """Adds a program of an artifact, or its use alone where a larger one is there."""
    known = self.programs.get(program.identity, program)
    larger = max(known, program, key=lambda one: one.size)
    held = max(known.held_bytes, program.held_bytes)
    self.programs[program.identity] = dataclasses.replace(larger, held_bytes=held)
    self.uses.append(Use(artifact, program.identity, executions, at_once))


Made = Iterator[tuple[Program, float | None]]  # programs and their executions


@dataclasses.dataclass(frozen=True)
class Context:
  """One line of the plan with all that its programs depend on.

  Attributes:
    run: the planned run.
    mesh: that the stage runs on.
    entry: the line.
    entries: all lines, by name.
    config: of the stage's model.
    batch_scale: multiplies the batch sizes of training.
  """

  run: artifact.Run
  mesh: jax.sharding.Mesh
  entry: artifact.HistoryEntry
  entries: Mapping[str, artifact.HistoryEntry]
  config: t5.T5Config
  batch_scale: float = 1.0

  @property
  def stage(self) -> str:
    """The kind of stage."""
    return self.entry.artifact.stage

  @property
  def said(self) -> Mapping[str, Any]:
    """The stage's parameters and how its work is cut."""
    return {**self.entry.params, **self.entry.cut}

  @property
  def lengths(self) -> tuple[int, int]:
    """The longest source and target."""
    return buckets.feature_lengths(self.said['task_feature_lengths'])

  @property
  def undropped(self) -> t5.T5Config:
    """The model's shape for programs without dropout, which all are but training's."""
    return dataclasses.replace(self.config, dropout_rate=0.0)

  def params(self, module: Any) -> Any:
    """Shapes and shardings of a module's parameters."""
    return shapes.params(module, self.config, self.mesh, self.run.rules)


def one_host(mesh: jax.sharding.Mesh) -> jax.sharding.Mesh:
  """The mesh of the first host's devices, on which Grow and scoring run.

  The compiler refuses programs of some chips of a v5e or v6e slice ("on platforms with
  limited ICI routing device assignment should include all slice devices"): there the
  host is described as a slice of its own.

  Raises:
    ValueError: the model axis is wider than a host.
  """
  local = mesh_lib.local_mesh(mesh)
  chip = tpu.LIMITED_ROUTING.get(local.devices.flat[0].device_kind)
  shape = {1: '1x1', 4: '2x2', 8: '2x4'}.get(local.size)
  if chip is None or shape is None or local.size == mesh.size:
    return local
  devices = _host_devices(f'{chip}:{shape}')
  return mesh_lib.make_mesh(mesh_lib.MeshConfig(*local.devices.shape), devices)


@functools.cache
def _host_devices(topology: str) -> list[Any]:
  return tpu.devices(topology)


def precision(quantisation: Any) -> tuple[str, ...]:
  """What names say of kernels in fewer bits: nothing, ('int8',) or ('bfloat16',)."""
  return () if quantisation is None else (type(quantisation).__name__.lower(),)


def sized(*sizes: int) -> str:
  """'[8, 128]', for names."""
  return f'[{", ".join(map(str, sizes))}]'

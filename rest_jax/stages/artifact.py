"""The one mechanism: a stage is a function from artifacts to one artifact.

An artifact is a directory of MODEL_DIR, complete or absent. It is written under
`MODEL_DIR/.work/`, where a kill leaves what is done for the next start to go on
from, and is published in one step. Its `stage.json` holds what made it. The same
stage, version, parameters and inputs have the same fingerprint, and a finished
artifact with that fingerprint is reused: resuming, re-running and sharing are
one thing.
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
from etils import epath

from rest_jax import paths
from rest_jax.stages import cost as cost_lib
from rest_jax.stages import fingerprint as fingerprint_lib
from rest_jax.stages import progress as progress_lib
from rest_jax.training import hosts as hosts_lib
from rest_jax.training import mesh as mesh_lib

# How the hosts of a run build an artifact, where there are several:
#   first     the first host alone, on its own devices; the others wait
#   apart     every host on its own devices, each its own shards (`hosts.share`)
#   together  all in step, on the mesh of all devices
Teamwork = Literal['first', 'apart', 'together']

STAGE_FILE = paths.MARKER
CONFIG_FILE = 'config.gin'
WORK_DIR = '.work'
COST_FILE = 'cost.json'
VERSIONED_PACKAGES = (
  'rest_jax',
  'jax',
  'flax',
  'optax',
  'orbax-checkpoint',
  'sentencepiece',
  'sacrebleu',
  'numpy',
  'pyarrow',
)


@dataclasses.dataclass(frozen=True)
class Artifact:
  """The result of a stage; `finished` is False while it is only planned."""

  name: str
  stage: str
  path: epath.Path
  fingerprint: str
  finished: bool

  @property
  def record(self) -> dict[str, Any]:
    """The contents of the artifact's stage.json."""
    return _read_record(self.path)

  @property
  def results(self) -> dict[str, Any]:
    """The figures that the stage wrote down about its result."""
    return self.record['results']


@dataclasses.dataclass(frozen=True)
class HistoryEntry:
  """One line of the run's plan: a stage, and what became of it."""

  artifact: Artifact
  outcome: str  # 'reused', 'built' or 'planned'
  size: Mapping[str, Any]  # what the stage says of its size, for the plan
  params: Mapping[str, Any]  # as `Run.stage` was given them
  inputs: Mapping[str, Artifact]
  cut: Mapping[str, Any]
  teamwork: Teamwork = 'first'


@dataclasses.dataclass(frozen=True)
class Awaited:
  """A file that people have yet to make: their ratings of some samples."""

  samples: Artifact  # finished
  file: str
  remedy: str  # a sentence: what to do


class Work:
  """An unfinished artifact, in the hands of the stage that builds it.

  Of several hosts each has its own object, of the same directories. Files of the
  artifact are written by one host; in work that all do together by the first.

  Args:
    name: of the artifact.
    directory: of the work; made if absent.
    num_devices: those whose time this host counts.
  """

  def __init__(self, name: str, directory: epath.Path, num_devices: int):
    self.name = name
    self.path = directory / 'artifact'  # becomes the artifact
    self.scratch = directory / 'scratch'  # goes when the artifact is published
    host = f'host_{hosts_lib.index()}'
    self.host_scratch = self.scratch / host  # as scratch, this host's alone
    self.results: dict[str, Any] = {}  # JSON values for stage.json
    self.path.mkdir(parents=True, exist_ok=True)
    self.host_scratch.mkdir(parents=True, exist_ok=True)
    self._cost_path = self.host_scratch / COST_FILE
    self._meter = cost_lib.Meter(num_devices, self._previous_cost())
    self.save_cost()  # an attempt that is killed at once is one, too

  def devices(self) -> contextlib.AbstractContextManager[None]:
    """Counts the time inside the context as device time."""
    return self._meter.devices()

  def count(self, **totals: int) -> None:
    """Says what this attempt has done so far; part of the cost, not of the result."""
    self._meter.count(**totals)

  def cost(self) -> cost_lib.Cost:
    """Returns what the stage has cost so far, earlier attempts included."""
    return self._meter.cost()

  def save_cost(self) -> None:
    """Writes the cost so far down, so that a kill does not lose it."""
    text = json.dumps(dataclasses.asdict(self.cost()))
    paths.write_text_atomic(self._cost_path, text)

  def _previous_cost(self) -> cost_lib.Cost | None:
    if not self._cost_path.exists():
      return None
    return cost_lib.Cost(**json.loads(self._cost_path.read_text()))

  def cost_of_all(self) -> cost_lib.Cost:
    """What the stage has cost all hosts, those of earlier attempts included.

    To be called by every host, when each has done its part.
    """
    own = json.dumps(dataclasses.asdict(self.cost()))
    costs = {
      f'host_{index}': cost_lib.Cost(**json.loads(text))
      for index, text in enumerate(hosts_lib.gather('cost', own))
    }
    for folder in self.scratch.glob('host_*'):  # there may have been more hosts once
      if folder.name not in costs and (folder / COST_FILE).exists():
        text = (folder / COST_FILE).read_text()
        costs[folder.name] = cost_lib.Cost(**json.loads(text))
    return cost_lib.total(list(costs.values()))


class Run:
  """One MODEL_DIR in use: finds, builds and publishes artifacts.

  Args:
    model_dir: the directory of the run; made if absent.
    reuse_from: other runs' directories whose finished artifacts with the same
      fingerprints serve here too, in place (a sweep shares its BC policy so).
    mesh: all devices of all hosts.
    logical_axis_rules: which axis of the mesh each logical axis of an array is
      spread over; changes no result beyond rounding.
    only: the kinds of stages or names of artifacts that may be built, such as
      {'grow'}; None means all. Others are reused or planned.
    dry_run: build nothing, plan everything.
    config_text: the gin configuration, kept with each artifact as `config.gin`.
  """

  def __init__(
    self,
    model_dir: str,
    *,
    mesh: jax.sharding.Mesh,
    logical_axis_rules: mesh_lib.Rules = mesh_lib.DEFAULT_RULES,
    reuse_from: Sequence[str] = (),
    only: frozenset[str] | None = None,
    dry_run: bool = False,
    config_text: str = '',
  ):
    self.model_dir = paths.as_path(model_dir)
    self.mesh = mesh  # in a stage's `build`, of the devices that it runs on
    # Tuples, since compiled programs are looked up by them.
    self.rules: mesh_lib.Rules = tuple(
      (axis, tuple(mesh_axes) if isinstance(mesh_axes, list) else mesh_axes)
      for axis, mesh_axes in logical_axis_rules
    )
    self.config_text = config_text
    self._roots = [self.model_dir, *(paths.as_path(root) for root in reuse_from)]
    self._only = only
    self.dry_run = dry_run
    self.history: list[HistoryEntry] = []
    self.awaited: Awaited | None = None  # what has to come before the rest
    if not dry_run:
      self.model_dir.mkdir(parents=True, exist_ok=True)

  def stage(
    self,
    stage: str,
    *,
    name: str,
    version: int,
    params: Mapping[str, Any],
    inputs: Mapping[str, Artifact | None],
    build: Callable[[Work], None],
    size: Mapping[str, Any] | None = None,
    cut: Mapping[str, Any] | None = None,
    replaceable: bool = False,
    teamwork: Teamwork = 'first',
  ) -> Artifact:
    """Returns the artifact that the stage makes of these inputs and parameters.

    Args:
      stage: the kind of stage, such as 'grow'.
      name: the artifact's directory under MODEL_DIR, such as 'grow_1'.
      version: the stage's own format version.
      params: all that decides the result; what does not (batch sizes of the
        sampler, mesh, hosts) stays out. Values as `fingerprint.describe` takes.
      inputs: the artifacts it reads; None for an optional one that is absent.
      build: writes into `work.path`; called only when there is no finished
        artifact. It must go on from what it finds there.
      size: what the plan says of the stage's size, such as {'samples': 8000}.
      cut: how the work is cut (microbatches, lanes), which decides no result; with
        `params` it is what a plan reckons memory by.
      replaceable: an artifact of other parameters is replaced instead of being
        an error. Only for views of other artifacts, such as the report.
      teamwork: who builds it, see `Teamwork`; decides nothing else.

    Raises:
      ValueError: MODEL_DIR holds an artifact of that name made otherwise, or
        the artifact is damaged.
    """
    present = {key: value for key, value in inputs.items() if value is not None}
    identity = {
      'stage': stage,
      'version': version,
      'params': fingerprint_lib.describe(params),
      'inputs': {key: value.fingerprint for key, value in present.items()},
    }
    print_ = fingerprint_lib.fingerprint(identity)
    for entry in self.history:  # asked for twice in one run
      if (entry.artifact.name, entry.artifact.fingerprint) == (name, print_):
        return entry.artifact
    said = {
      'size': size or {},
      'params': params,
      'inputs': present,
      'cut': cut or {},
      'teamwork': teamwork,
    }
    found = self._find(name, print_)
    directory = self.model_dir / WORK_DIR / f'{name}-{print_[:12]}'
    if found is not None:
      # A kill right after publication can leave the work directory behind.
      if hosts_lib.is_primary():
        paths.remove_tree(directory)
      return self._log(Artifact(name, stage, found, print_, True), 'reused', said)
    path = self.model_dir / name
    if path.exists() and not (replaceable and _is_made_by(path, stage)):
      _refuse(path, identity)
    ready = all(value.finished for value in present.values())
    allowed = self._only is None or bool({stage, name} & self._only)
    if self.dry_run or not ready or not allowed:
      return self._log(Artifact(name, stage, path, print_, False), 'planned', said)
    progress_lib.say(f'{name}: started ({stage})')
    started = _now()
    hosts_lib.barrier(f'{name} begins')  # what lies there is seen alike by all
    work = Work(name, directory, self._devices_counted(teamwork))
    if teamwork != 'first' or hosts_lib.is_primary():
      with self._devices_for(teamwork):
        build(work)
    cost = dataclasses.asdict(work.cost_of_all())
    if hosts_lib.is_primary():
      record = {
        **identity,
        'name': name,
        'fingerprint': print_,
        'input_names': {key: value.name for key, value in present.items()},
        'versions': versions(),
        'started': started,
        'finished': _now(),
        'cost': cost,
        'results': work.results,
      }
      self._publish(work, directory, path, record)
    hosts_lib.barrier(f'{name} ends')
    progress_lib.say(f'{name}: finished in {cost["seconds"]:,.1f} s')
    return self._log(Artifact(name, stage, path, print_, True), 'built', said)

  def wait(
    self, stage: str, *, name: str, samples: Artifact, file: str, remedy: str
  ) -> Artifact:
    """Plans the artifact of a file that people have yet to make.

    Whatever does not depend on it can be looked at and built by other modes.

    Args:
      stage, name: as in `stage`.
      samples: what people rate.
      file: where their ratings are expected.
      remedy: a sentence: what is missing, and what to do.

    Raises:
      ValueError: the remedy, where the run would go on to build this; or the file was
        read before, and is gone.
    """
    path = self.model_dir / name
    if path.exists():
      raise ValueError(f'{path} was read from {file}, which is gone: put it back')
    if self._only is None and not self.dry_run:
      raise ValueError(remedy)
    if samples.finished:
      self.awaited = Awaited(samples, file, remedy)
    inputs = {'samples': samples}
    print_ = fingerprint_lib.fingerprint({'file': file, 'samples': samples.fingerprint})
    said = {'size': {'waits for': file}, 'params': {}, 'inputs': inputs, 'cut': {}}
    return self._log(Artifact(name, stage, path, print_, False), 'planned', said)

  def _publish(
    self, work: Work, directory: epath.Path, path: epath.Path, record: dict[str, Any]
  ) -> None:
    """Makes finished work the artifact, in one step."""
    paths.write_text_atomic(work.path / CONFIG_FILE, self.config_text)
    record['files'] = _file_sizes(work.path)
    # A kill just before publication leaves a record, which is written anew.
    record['files'].pop(STAGE_FILE, None)
    paths.write_json_atomic(work.path / STAGE_FILE, record)
    if path.exists():  # a replaceable artifact: out of the way in one step
      paths.remove_tree(directory / 'replaced')
      paths.publish(path, directory / 'replaced')
    paths.publish(work.path, path)
    paths.remove_tree(directory)

  @contextlib.contextmanager
  def _devices_for(self, teamwork: Teamwork) -> Iterator[None]:
    """Inside, `mesh` is the mesh of the devices that the stage runs on."""
    whole = self.mesh
    if teamwork != 'together':
      self.mesh = mesh_lib.local_mesh(whole)
    alone = hosts_lib.untimed() if teamwork == 'first' else contextlib.nullcontext()
    try:
      with alone:
        yield
    finally:
      self.mesh = whole

  def _devices_counted(self, teamwork: Teamwork) -> int:
    """The devices whose time this host counts, so that each is counted once."""
    if teamwork != 'together':
      return len(self.mesh.local_devices)
    return self.mesh.size if hosts_lib.is_primary() else 0

  def _find(self, name: str, print_: str) -> epath.Path | None:
    for root in self._roots:
      path = root / name
      if (path / STAGE_FILE).exists():
        record = _read_record(path)
        if record.get('fingerprint') == print_:
          _check_files(path, record['files'])
          return path
    return None

  def _log(self, artifact: Artifact, outcome: str, said: Mapping[str, Any]) -> Artifact:
    self.history.append(HistoryEntry(artifact, outcome, **said))
    if outcome == 'reused' and not self.dry_run:
      progress_lib.say(f'{artifact.name}: reused')
    return artifact


def read_finished(path: paths.PathLike, *, stage: str) -> Artifact:
  """Returns a finished artifact, of any run, by its path.

  Raises:
    ValueError: there is none, of another stage, or one that is damaged.
  """
  folder = paths.as_path(path)
  if not (folder / STAGE_FILE).exists():
    raise ValueError(
      f'{folder} has no {STAGE_FILE}: it is not a finished artifact. Give the '
      f'directory of a finished {stage}'
    )
  record = _read_record(folder)
  if record['stage'] != stage:
    raise ValueError(
      f'{folder} was made by the stage {record["stage"]!r}; a {stage!r} is needed'
    )
  _check_files(folder, record['files'])
  return Artifact(folder.name, stage, folder, record['fingerprint'], True)


def versions() -> dict[str, str]:
  """Returns the versions of Python and of the packages that decide results."""
  found = {'python': platform.python_version()}
  for package in VERSIONED_PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[package] = importlib.metadata.version(package)
  return found


def _refuse(path: epath.Path, identity: Mapping[str, Any]) -> None:
  """Explains why what lies at `path` is not what the run would put there."""
  if not (path / STAGE_FILE).exists():
    raise ValueError(
      f'{path} exists and has no {STAGE_FILE}: it is not a finished artifact. '
      'Choose another MODEL_DIR, or move that directory away'
    )
  record = _read_record(path)
  old = {key: record.get(key) for key in identity}
  changed = fingerprint_lib.differences(old, identity)
  raise ValueError(
    f'{path} was made with other settings: {"; ".join(changed)}. An artifact is '
    'never overwritten: choose another --gin.MODEL_DIR (REUSE_FROM shares what '
    'has not changed), restore the settings, or remove that directory'
  )


def _is_made_by(path: epath.Path, stage: str) -> bool:
  """Tells whether a finished artifact of this kind lies at `path`."""
  return (path / STAGE_FILE).exists() and _read_record(path)['stage'] == stage


def _read_record(path: epath.Path) -> dict[str, Any]:
  file = path / STAGE_FILE
  try:
    record = json.loads(file.read_text())
    missing = {'fingerprint', 'files', 'results', 'cost', 'stage'} - set(record)
  except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
    raise ValueError(
      f'{file} is damaged ({error}): remove {path} and run again'
    ) from error
  if missing:
    raise ValueError(
      f'{file} is damaged (it lacks {sorted(missing)}): remove {path} and run again'
    )
  return record


def _file_sizes(path: epath.Path, prefix: str = '') -> dict[str, int]:
  """Returns the size in bytes of every file under `path`."""
  sizes: dict[str, int] = {}
  for entry in sorted(path.iterdir()):
    if entry.is_dir():
      sizes |= _file_sizes(entry, f'{prefix}{entry.name}/')
    else:
      sizes[prefix + entry.name] = entry.stat().length
  return sizes


def _check_files(path: epath.Path, sizes: Mapping[str, int]) -> None:
  """Raises ValueError where a file of a finished artifact is gone or cut."""
  for name, size in sizes.items():
    file = path / name
    found = file.stat().length if file.exists() else None
    if found != size:
      state = 'is missing' if found is None else f'has {found} bytes'
      raise ValueError(
        f'{path} is damaged: {name} {state}, {STAGE_FILE} says {size} bytes. '
        f'Remove {path} and run again; what it was made from is kept'
      )


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')

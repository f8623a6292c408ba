"""Checks of one host: its devices, versions, memory, and what it may write."""

import contextlib
import dataclasses
import glob
import hashlib
import importlib.metadata
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import psutil
from packaging import requirements

from rest_jax import paths
from rest_jax.planning import memory, storage, tables
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact
from rest_jax.training import mesh as mesh_lib

Status = Literal['ok', 'warning', 'failed']
SEVERITY: Mapping[str, int] = {'ok': 0, 'warning': 1, 'failed': 2}

# Whose versions the table shows; all that setup.py asks for are compared.
SHOWN = ('jax', 'jaxlib', 'libtpu', 'flax', 'orbax-checkpoint')
_ACCELERATORS = ('/dev/accel[0-9]*', '/dev/nvidia[0-9]*')
# Activations come on top of what `memory` counts.
_MOST_OF_A_DEVICE = 0.6
_SPARE_DISK = 1.5
# A candidate on the host: two arrays and a text of Python's, then each token.
_HOST_BYTES_A_CANDIDATE, _HOST_BYTES_A_TOKEN = 400, 12


@dataclasses.dataclass(frozen=True)
class Check:
  """What was looked at, what was found, and what to do about it."""

  name: str
  status: Status
  found: str
  remedy: str = ''


def devices() -> Check:
  """Which devices JAX has, and whether it overlooks an accelerator."""
  local = jax.local_devices()
  kind, platform = local[0].device_kind, local[0].platform
  found = f'{len(local)} x {kind} ({platform})'
  nodes = [node for pattern in _ACCELERATORS for node in glob.glob(pattern)]
  if platform == 'cpu' and nodes:
    return Check(
      'devices',
      'failed',
      f'{found}, though {nodes[0]} is there',
      "install the accelerator's jax: pip install 'rest_jax[tpu]' or 'rest_jax[cuda]', "
      'and unset JAX_PLATFORMS',
    )
  return Check('devices', 'ok', found)


def mesh(run: artifact.Run) -> list[Check]:
  """Whether the mesh divides the batches, and leaves each host a whole policy."""
  counts = ' x '.join(f'{axis}={size}' for axis, size in run.mesh.shape.items())
  problems = memory.misfits(run)
  try:
    mesh_lib.local_mesh(run.mesh)
  except ValueError as error:
    problems.append(str(error))
  if problems:
    remedy = 'change the mesh (mesh.MeshConfig) or the batch size'
    return [Check('mesh', 'failed', problem, remedy) for problem in problems]
  return [Check('mesh', 'ok', f'{counts} takes all {run.mesh.size} devices')]


def device_memory(needs: Mapping[str, memory.Memory]) -> Check:
  """Whether the stage that holds most fits a device."""
  name = 'device memory'
  if not needs:
    return Check(name, 'ok', 'no stage on devices is left to reckon')
  stage = max(needs, key=lambda key: needs[key].total)
  need = needs[stage].total
  stats = jax.local_devices()[0].memory_stats() or {}
  limit = stats.get('bytes_limit')
  told = f'{stage} holds {tables.in_words(need)} a device'
  if limit is None:
    return Check(name, 'ok', f'{told}; the device does not say how much it has')
  told += f' of {tables.in_words(limit)}, without activations'
  remedy = (
    'spread it: a larger fsdp or model axis; or a smaller SamplerSettings.batch_size '
    'where the decoder is what is large (--dry_run shows which)'
  )
  if need > limit:
    return Check(name, 'failed', told, remedy)
  if need > _MOST_OF_A_DEVICE * limit:
    return Check(name, 'warning', f'{told}: little is left for them', remedy)
  return Check(name, 'ok', told)


def versions() -> Check:
  """Whether what is installed is what setup.py, and jax itself, ask for."""
  found = {name: _version(name) for name in SHOWN}
  told = ', '.join(f'{name} {version}' for name, version in found.items() if version)
  try:
    asked = importlib.metadata.requires('rest_jax') or []
  except importlib.metadata.PackageNotFoundError:
    return Check(
      'versions',
      'warning',
      f'{told}; rest_jax is not installed, so nothing says which are right',
      'pip install -e . in the checkout',
    )
  wrong = [*_unmet(asked, ''), *_unmet(_requires('jax'), '', only=('jaxlib',))]
  if found['libtpu']:
    wrong += _unmet(_requires('jax'), 'tpu', only=('jaxlib', 'libtpu'))
  if wrong:
    remedy = 'pip install -r requirements.lock, or -e . in the checkout'
    return Check('versions', 'failed', '; '.join(wrong), remedy)
  return Check('versions', 'ok', told)


def _version(name: str) -> str | None:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None


def _requires(name: str) -> list[str]:
  try:
    return importlib.metadata.requires(name) or []
  except importlib.metadata.PackageNotFoundError:
    return []


def _unmet(asked: list[str], extra: str, only: tuple[str, ...] = ()) -> list[str]:
  """What is not installed as a package asks for it, in words."""
  wrong = []
  for text in asked:
    wanted = requirements.Requirement(text)
    if only and wanted.name not in only:
      continue
    # What stands without an extra's condition holds for every extra.
    if wanted.marker and not wanted.marker.evaluate({'extra': extra}):
      continue
    version = _version(wanted.name)
    if version is None:
      wrong.append(f'{wanted.name} is missing ({wanted.name}{wanted.specifier})')
    elif not wanted.specifier.contains(version, prereleases=True):
      wrong.append(f'{wanted.name} {version} is installed, not {wanted.specifier}')
  return wrong


def settings(config_text: str) -> Check:
  """The gin configuration by its hash, so that hosts can be compared."""
  digest = hashlib.sha256(config_text.encode()).hexdigest()
  return Check('settings', 'ok', f'gin configuration {digest[:12]}')


def writing(model_dir: paths.PathLike) -> Check:
  """Writes, reads, publishes and removes a small object in MODEL_DIR."""
  folder = paths.as_path(model_dir)
  probe = folder / f'.doctor-{uuid.uuid4().hex[:12]}'
  word = uuid.uuid4().bytes
  step = 'write'
  try:
    try:
      paths.write_bytes_atomic(probe / 'aside' / 'probe', word)
      step = 'read'
      if (probe / 'aside' / 'probe').read_bytes() != word:
        raise OSError('what was read back is not what was written')
      step = 'rename'
      moved = paths.publish(probe / 'aside', probe / 'published', marker='probe')
      if (moved / 'probe').read_bytes() != word or (probe / 'aside').exists():
        raise OSError('the object is not where it was renamed to')
    finally:
      paths.remove_tree(probe)
    step = 'remove'
    if probe.exists():
      raise OSError(f'{probe} is still there')
  except Exception as error:
    return Check(
      'MODEL_DIR',
      'failed',
      f'cannot {step} in {folder}: {error}',
      'choose another --gin.MODEL_DIR, or give this user the right to write there'
      + ('' if not paths.is_remote(folder) else ' (and see README.md, Installing)'),
    )
  return Check('MODEL_DIR', 'ok', f'{folder}: written, read, renamed, removed')


@contextlib.contextmanager
def without_a_trace(model_dir: paths.PathLike) -> Iterator[None]:
  """Afterwards, folders that were made inside and are empty are gone again."""
  folder = paths.as_path(model_dir)
  made: list[pathlib.Path] = []
  if not paths.is_remote(folder):  # a store has no folders
    local = pathlib.Path(os.fspath(folder))
    made = [one for one in (local, *local.parents) if not one.exists()]
  try:
    yield
  finally:
    with contextlib.suppress(OSError):
      for one in made:
        one.rmdir()


def disk(
  model_dir: paths.PathLike, run: artifact.Run, needs: Mapping[str, memory.Memory]
) -> Check:
  """Whether the disk has room for what the run will write."""
  need, unknown = storage.disk_bytes(run, needs)
  told = f'the run will write about {tables.in_words(need)}'
  if unknown:
    told += f', and {", ".join(unknown)}, of unknown size until ingested'
  if paths.is_remote(model_dir):
    return Check('disk', 'ok', f'{told}; an object store names no limit')
  folder = pathlib.Path(os.fspath(paths.as_path(model_dir)))
  there = next(one for one in (folder, *folder.parents) if one.exists())
  free = shutil.disk_usage(there).free
  told = f'{tables.in_words(free)} free at {there}; {told}'
  remedy = 'make room, or choose another --gin.MODEL_DIR'
  if free < need:
    return Check('disk', 'failed', told, remedy)
  if free < _SPARE_DISK * need or unknown:
    return Check('disk', 'warning', told, remedy)
  return Check('disk', 'ok', told)


def host_memory(run: artifact.Run, needs: Mapping[str, memory.Memory]) -> Check:
  """Whether the host has memory for the samples in work, and on a CPU the arrays."""
  available = available_memory()
  block = max([_block_bytes(entry) for entry in run.history], default=0.0)
  need, what = block, 'Grow holds two blocks of samples'
  if jax.local_devices()[0].platform == 'cpu' and needs:
    need += max(one.total for one in needs.values()) * len(jax.local_devices())
    what = 'arrays of the devices, which are CPUs, and two blocks of samples'
  told = (
    f'{tables.in_words(available)} available; {what}: about {tables.in_words(need)}'
  )
  remedy = 'a host with more memory, or a smaller SamplerSettings.batch_size'
  if need > available:
    return Check('host memory', 'failed', told, remedy)
  if need > _MOST_OF_A_DEVICE * available:
    return Check('host memory', 'warning', told, remedy)
  return Check('host memory', 'ok', told)


def available_memory() -> int:
  """Bytes that this process may still take, a container's limit included."""
  available = int(psutil.virtual_memory().available)
  try:
    group = pathlib.Path('/sys/fs/cgroup')
    limit = int((group / 'memory.max').read_text())
    used = int((group / 'memory.current').read_text())
  except (OSError, ValueError):  # no container, or one without a limit
    return available
  return min(available, max(0, limit - used))


def _block_bytes(entry: artifact.HistoryEntry) -> float:
  """The samples of the block in work and of the one that is written, on the host."""
  if entry.artifact.stage != 'grow' or entry.artifact.finished:
    return 0.0
  settings: sampler_lib.SamplerSettings = entry.cut['sampler']
  samples = entry.params['num_samples']
  sources = settings.sources_of_call(samples)
  if entry.params['num_sources'] is not None:
    sources = min(sources, entry.params['num_sources'])
  length: int = entry.params['target_length']
  each = _HOST_BYTES_A_CANDIDATE + _HOST_BYTES_A_TOKEN * length
  return 2.0 * sources * samples * each


def plan_of(run: artifact.Run) -> Any:
  """`memory.by_stage`, or nothing where the mesh leaves a host no whole policy."""
  try:
    return memory.by_stage(run)
  except ValueError:
    return {}  # `mesh` says why

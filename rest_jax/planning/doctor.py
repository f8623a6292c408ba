"""`--run_mode=doctor`: is everything there that the run needs, on every host?

Each host looks at itself (`checks`), then all of them at one another: do they see one
MODEL_DIR, do their clocks agree, does a sum over all devices come out right. The first
host prints one table; every host ends with the same status.
"""

import contextlib
import dataclasses
import json
import socket
import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich import table as rich_table

from rest_jax import paths
from rest_jax.planning import checks
from rest_jax.planning.checks import Check
from rest_jax.stages import artifact, plan
from rest_jax.training import hosts
from rest_jax.training import mesh as mesh_lib

# Clocks further apart confuse logs; much further apart, what ages files.
SKEW_WARNING_S, SKEW_FAILED_S = 3.0, 60.0
COLLECTIVE_REPEATS = 5
COLLECTIVE_ELEMENTS = 1 << 18  # float32, 1 MiB a device
_ALIKE = ('devices', 'versions', 'settings')
_STYLES = {'ok': 'green', 'warning': 'yellow', 'failed': 'bold red'}

_MISTAKES = (ValueError, TypeError, OSError)  # of settings, as main.py reports them
# Goes through the algorithm on a mesh, None for the run's own, and builds nothing.
Planner = Callable[[jax.sharding.Mesh | None], artifact.Run]


def examine(planner: Planner, model_dir: paths.PathLike, config_text: str) -> int:
  """Looks at everything and prints a table; with several hosts all call it.

  Args:
    planner: see `Planner`; its ValueError is a finding.
    model_dir: where the run is to write.
    config_text: the gin configuration.

  Returns:
    The exit status: 1 if something failed, on whichever host.
  """
  hosts.barrier('doctor begins')
  tidy = checks.without_a_trace(model_dir)
  with tidy if hosts.is_primary() else contextlib.nullcontext():
    merged = merge(_examine(planner, model_dir, config_text))
  if hosts.is_primary():
    _print(merged)
  return int(any(check.status == 'failed' for check in merged))


def _examine(
  planner: Planner, model_dir: paths.PathLike, config_text: str
) -> list[Check]:
  """This host's findings."""
  found = [checks.devices(), checks.versions(), checks.settings(config_text)]
  run, planned = _plan(planner)
  found += planned
  if run is not None:
    needs = checks.plan_of(run)
    found += [
      checks.device_memory(needs),
      checks.host_memory(run, needs),
      checks.disk(model_dir, run, needs),
    ]
  found += [checks.writing(model_dir), seen_by_all(model_dir), clocks()]
  found.append(collective(mesh_lib.make_mesh()))
  return found


def _plan(planner: Planner) -> tuple[artifact.Run | None, list[Check]]:
  """The planned run, on all devices as they come where its own mesh does not fit."""
  try:
    run = planner(None)
    return run, checks.mesh(run)
  except _MISTAKES as error:
    wrong = _sentence(error)
  try:
    run = planner(mesh_lib.make_mesh())
  except _MISTAKES as error:
    remedy = 'what --run_mode=rest would stop at, too'
    return None, [Check('plan', 'failed', _sentence(error), remedy)]
  return run, [Check('mesh', 'failed', wrong, 'change mesh.MeshConfig')]


def _sentence(error: Exception) -> str:
  """The error's own words, without gin's trail."""
  return str(error).split('\n  In call to configurable')[0].strip()


def seen_by_all(model_dir: paths.PathLike) -> Check:
  """Whether what the first host writes into MODEL_DIR is seen by every host."""
  name = 'shared MODEL_DIR'
  if hosts.count() == 1:
    return Check(name, 'ok', 'one host')
  (word, *_) = hosts.gather('doctor word', uuid.uuid4().hex)
  file = paths.as_path(model_dir) / f'.doctor-{word}'
  wrong = ''
  try:
    if hosts.is_primary():
      paths.write_text_atomic(file, word)
  except Exception as error:
    wrong = str(error)
  hosts.barrier('doctor wrote')
  try:
    if not wrong and file.read_text() != word:
      wrong = f'{file} holds something else'
  except Exception as error:
    wrong = str(error)
  hosts.barrier('doctor read')
  if hosts.is_primary():
    paths.remove_tree(file)
  if wrong:
    return Check(
      name,
      'failed',
      f'what the first host writes to {model_dir} is not seen here: {wrong}',
      'choose a MODEL_DIR that all hosts reach: a network disk or gs://',
    )
  return Check(name, 'ok', f'all {hosts.count()} hosts see {model_dir}')


def clocks() -> Check:
  """How far the hosts' clocks are apart, each read as all leave a barrier."""
  if hosts.count() == 1:
    return Check('clocks', 'ok', 'one host')
  hosts.barrier('doctor clocks')
  said = hosts.gather('doctor clock', f'{time.time()!r} {socket.gethostname()}')
  times = [float(text.split(' ', 1)[0]) for text in said]
  names = [text.split(' ', 1)[1] for text in said]
  typical = statistics.median_low(times)
  # The one furthest from the others; of two either may be the wrong one.
  worst = max(range(len(times)), key=lambda host: abs(times[host] - typical))
  apart = max(times) - min(times)
  told = f'{len(times)} hosts, at most {apart:.2f} s apart'
  if apart <= SKEW_WARNING_S:
    return Check('clocks', 'ok', told)
  ahead = 'ahead of' if times[worst] > typical else 'behind'
  return Check(
    'clocks',
    'failed' if apart > SKEW_FAILED_S else 'warning',
    f'{told}: host {worst} ({names[worst]}) is {abs(times[worst] - typical):.1f} s '
    f'{ahead} the others',
    'set the clock by NTP (chronyc tracking; timedatectl set-ntp true)',
  )


def collective(mesh: jax.sharding.Mesh) -> Check:
  """A sum over all devices whose result is known, and how long it takes."""
  axes = mesh.axis_names
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(axes))
  shape = (mesh.size, COLLECTIVE_ELEMENTS)
  expected = mesh.size * (mesh.size + 1) / 2

  def rows(index: Any) -> np.ndarray:  # row r holds r + 1
    numbers = np.arange(mesh.size, dtype=np.float32)[index[0]] + 1
    return np.repeat(numbers[:, None], COLLECTIVE_ELEMENTS, axis=1)

  spec = sharding.spec
  total = jax.jit(
    jax.shard_map(
      lambda x: jax.lax.psum(x, axes), mesh=mesh, in_specs=spec, out_specs=spec
    )
  )
  try:
    numbers = jax.make_array_from_callback(shape, sharding, rows)
    result = jax.block_until_ready(total(numbers))
    seconds = []
    for _ in range(COLLECTIVE_REPEATS):
      started = time.perf_counter()
      jax.block_until_ready(total(numbers))
      seconds.append(time.perf_counter() - started)
    wrong = [
      f'{shard.device} has {float(jnp.max(shard.data)):g}'
      for shard in result.addressable_shards
      if not bool(jnp.all(shard.data == expected))
    ]
  except jax.errors.JaxRuntimeError as error:
    wrong = [str(error).splitlines()[0]]
  if wrong:
    return Check(
      'collective',
      'failed',
      f'a sum over {mesh.size} devices is not {expected:g}: {"; ".join(wrong[:3])}',
      'look at the network between the hosts, and at that device',
    )
  mebibytes = COLLECTIVE_ELEMENTS * 4 >> 20
  return Check(
    'collective',
    'ok',
    f'sum of {mebibytes} MiB over {mesh.size} devices is right, '
    f'{1e3 * statistics.median(seconds):.2f} ms',
  )


def merge(own: Sequence[Check]) -> list[Check]:
  """All hosts' checks as one list, the same on every host.

  A check on which hosts differ gives the worst, and says whose it is; those that are
  well and differ in words only (memory, times) give the first host's.
  """
  text = json.dumps([dataclasses.asdict(check) for check in own])
  said = hosts.gather('doctor', f'{socket.gethostname()} {text}')
  names = [one.split(' ', 1)[0] for one in said]
  by_host = [[Check(**c) for c in json.loads(one.split(' ', 1)[1])] for one in said]
  merged = []
  for name in dict.fromkeys(check.name for checks_ in by_host for check in checks_):
    of_hosts = [
      (host, check)
      for host, checks_ in enumerate(by_host)
      for check in checks_
      if check.name == name
    ]
    worst = max((c.status for _, c in of_hosts), key=lambda s: checks.SEVERITY[s])
    # Several problems of one kind are several rows.
    rows: dict[tuple[str, str], list[int]] = {}
    for host, check in of_hosts:
      if check.status == worst:
        rows.setdefault((check.found, check.remedy), []).append(host)
    for (found, remedy), where in list(rows.items())[: 1 if worst == 'ok' else None]:
      if worst != 'ok' and len(where) < len(by_host):
        whose = ', '.join(f'{host} ({names[host]})' for host in where)
        found = f'host {whose}: {found}'
      merged.append(Check(name, worst, found, remedy))
  merged += _unlike(by_host, names)
  return merged


def _unlike(by_host: Sequence[Sequence[Check]], names: Sequence[str]) -> list[Check]:
  """Hosts whose devices, versions or settings are not those of the first."""
  unlike = []
  for host, own in enumerate(by_host):
    for first, check in zip(by_host[0], own, strict=False):
      if check.name in _ALIKE and check.found != first.found:
        unlike.append(
          Check(
            'alike',
            'failed',
            f'host {host} ({names[host]}) has {check.found}, the first {first.found}',
            'start the same command, installed alike, on machines of one kind',
          )
        )
  if not unlike and len(names) > 1:
    return [
      Check(
        'alike', 'ok', f'{len(names)} hosts with equal devices, versions and settings'
      )
    ]
  return unlike


def _print(merged: Sequence[Check]) -> None:
  table = rich_table.Table(title='doctor')
  for column in ('check', 'status', 'found', 'remedy'):
    table.add_column(column, overflow='fold')
  for check in merged:
    status = f'[{_STYLES[check.status]}]{check.status}[/]'
    table.add_row(check.name, status, check.found, check.remedy)
  plan.console().print(table, highlight=False)
  counts = [sum(c.status == status for c in merged) for status in checks.SEVERITY]
  plan.console().print(
    ', '.join(
      f'{n} {status}' for n, status in zip(counts, checks.SEVERITY, strict=True)
    )
  )

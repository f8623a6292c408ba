"""Checkpoints: finished policies in T5X's layout, and training that goes on.

A finished policy is a directory that T5X, or Orbax alone, reads:

    checkpoint_<step>/state/    {'target': params,
                                 'state': {'step': [] int32, 'param_states': {}}}

  orbax.checkpoint.PyTreeCheckpointer().restore('.../checkpoint_<step>/state')

It appears in one step, complete. Training in progress is kept by
`TrainingCheckpoints` in Orbax's own layout, one directory per step. For s3:// Orbax
reads and writes local copies of either (`checkpoint_copies`).
"""

import json
import logging as standard_logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from flax import linen as nn

from rest_jax import paths
from rest_jax.training import checkpoint_copies

PREFIX = 'checkpoint_'
ITEM = 'state'
_NAME = re.compile(rf'{PREFIX}(\d+)')


def _handler(**options: Any) -> ocp.PyTreeCheckpointHandler:
  return ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_zarr3=False, **options)


def _is_not_raised_as_well(record: standard_logging.LogRecord) -> bool:
  """Orbax's threads log, with a trace each, the errors that `wait` raises."""
  return not (record.module == 'future' and 'orbax' in record.pathname)


def _is_shared(arrays: Any) -> bool:
  """Whether arrays, or shardings, lie on other hosts' devices too."""
  leaves = jax.tree.leaves(arrays)
  return any(not getattr(x, 'is_fully_addressable', True) for x in leaves)


def _alone() -> ocp.options.MultiprocessingOptions:
  """Says that this host is alone with its work: otherwise Orbax waits for all."""
  index = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=index, active_processes={index}, barrier_sync_key_prefix=f'host{index}'
  )


def _checkpointer(*, shared: bool = False) -> ocp.Checkpointer:
  """For what all hosts write or read together, or this one alone."""
  if jax.process_count() == 1 or shared:
    return ocp.Checkpointer(_handler())
  alone = _alone()
  return ocp.Checkpointer(
    _handler(multiprocessing_options=alone), multiprocessing_options=alone
  )


def save_params(path: paths.PathLike, params: Any, *, step: int) -> epath.Path:
  """Writes parameters as `path`/checkpoint_<step>, in T5X's layout.

  A checkpoint of the same step is replaced. With several hosts those call it whose
  devices hold the parameters.

  Args:
    path: the directory that holds the checkpoints; made if absent.
    params: nested dictionaries of arrays, unboxed.
    step: of training; part of the name, and stored.

  Returns:
    The checkpoint's directory.
  """
  target = paths.as_path(path) / f'{PREFIX}{int(step)}'
  shared = _is_shared(params)
  by_first = shared and paths.is_s3(target)
  if by_first:
    params = checkpoint_copies.gathered(params)
  if params is not None:
    tree = {
      'target': params,
      'state': {'step': np.asarray(step, np.int32), 'param_states': {}},
    }
    with (
      checkpoint_copies.replaced(_absolute(target) / ITEM) as folder,
      _checkpointer(shared=shared and not by_first) as checkpointer,
    ):
      checkpointer.save(folder, ocp.args.PyTreeSave(tree), force=True)
  if by_first:
    ocp.multihost.sync_global_processes(f'written_{step}')
  return target


def _absolute(path: epath.Path) -> epath.Path:
  return path if paths.is_remote(path) else path.resolve()


def step_of(path: paths.PathLike) -> int:
  """The step of a checkpoint, from its directory's name.

  Raises:
    ValueError: the name is not checkpoint_<step>.
  """
  name = paths.as_path(path).name
  match = _NAME.fullmatch(name)
  if not match:
    raise ValueError(f'{name!r} is not the name of a checkpoint, {PREFIX}<step>')
  return int(match.group(1))


def latest_checkpoint(directory: paths.PathLike) -> epath.Path:
  """The complete checkpoint of the highest step in a directory.

  Raises:
    ValueError: there is none.
  """
  folder = paths.as_path(directory)
  names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
  found = [
    folder / name
    for name in names
    if _NAME.fullmatch(name) and checkpoint_copies.is_whole(folder / name / ITEM)
  ]
  if not found:
    raise ValueError(
      f'{folder} holds no checkpoint ({PREFIX}<step>/{ITEM}): check the path; a '
      'checkpoint whose writing was cut short does not count'
    )
  return max(found, key=step_of)


def load_params(
  path: paths.PathLike, *, abstract: Any = None, shardings: Any = None
) -> Any:
  """Reads the parameters of a checkpoint; an optimiser's state in it is not read.

  Args:
    path: a directory checkpoint_<step>, ours or T5X's.
    abstract: arrays or shapes that the parameters must match, name by name; they
      are read as its types. Without, any parameters are read as they are.
    shardings: like `abstract`; each device reads its own part. Without,
      parameters are NumPy arrays.

  Raises:
    ValueError: there is no such checkpoint; its parameters are not those of
      `abstract` (names the first one, what was expected, what was found); or it
      is damaged.
  """
  folder = _item(path)
  with checkpoint_copies.fetched(folder) as local:
    stored = _stored_shapes(folder, local)
    if abstract is None:
      abstract = stored
    abstract = nn.meta.unbox(abstract)
    _check_match(folder, _flat(stored), _flat(abstract))
    if shardings is None:
      shardings = jax.tree.map(lambda _: None, abstract)
      restore_args = jax.tree.map(_restore_arg, abstract)
    else:
      restore_args = jax.tree.map(_restore_arg, abstract, shardings)
    copied = local != folder
    try:
      return _restore(local, abstract, restore_args, copied=copied)
    except Exception as error:
      name = _first_unreadable(local, _flat(restore_args), copied=copied)
      raise ValueError(
        f'{folder} is damaged: parameter {name!r} cannot be read '
        f'({_first_line(error)}). A file in it was cut short or lost: use another '
        'checkpoint, or make this one again'
      ) from error


def _restore_arg(leaf: Any, sharding: Any = None) -> ocp.RestoreArgs:
  if sharding is None:
    return ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
  return ocp.ArrayRestoreArgs(
    sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype
  )


def _restore(folder: epath.Path, item: Any, restore_args: Any, *, copied: bool) -> Any:
  """Reads a folder that all hosts reach, or a copy of this host's own."""
  args = ocp.args.PyTreeRestore(
    item={'target': item},
    restore_args={'target': restore_args},
    partial_restore=True,
  )
  shardings = [getattr(arg, 'sharding', None) for arg in jax.tree.leaves(restore_args)]
  with _checkpointer(shared=_is_shared(shardings) and not copied) as checkpointer:
    return checkpointer.restore(folder, args)['target']


def _item(path: paths.PathLike) -> epath.Path:
  folder = paths.as_path(path)
  folder = _absolute(folder if folder.name == ITEM else folder / ITEM)
  if not folder.exists():
    raise ValueError(
      f'{folder} does not exist: give the directory {PREFIX}<step> of a finished '
      'checkpoint'
    )
  return folder


def stored_shapes(path: paths.PathLike) -> Any:
  """Shapes and types of the parameters in a checkpoint, without reading them.

  Args:
    path: a directory checkpoint_<step>, ours or T5X's.

  Raises:
    ValueError: there is no such checkpoint, or its list of parameters is damaged.
  """
  folder = _item(path)
  with checkpoint_copies.fetched(folder) as local:
    return _stored_shapes(folder, local)


def _stored_shapes(folder: epath.Path, local: epath.Path) -> Any:
  """As `stored_shapes`, of a folder that Orbax reads in another place."""
  try:
    with _checkpointer() as checkpointer:
      tree = checkpointer.metadata(local).item_metadata.tree
  except Exception as error:
    raise ValueError(
      f'{folder} is damaged: its list of parameters cannot be read '
      f'({_first_line(error)}). Use another checkpoint, or make this one again'
    ) from error
  if 'target' not in tree:
    raise ValueError(
      f'{folder} holds {sorted(tree)} and no parameters under "target": it is not a '
      'checkpoint of T5X or of this package'
    )
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree['target']
  )


def _flat(tree: Any) -> dict[str, Any]:
  """{'encoder/layers_0/.../kernel': leaf}, sorted by name."""
  pairs = jax.tree_util.tree_leaves_with_path(tree)
  named = {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in pairs
  }
  return dict(sorted(named.items()))


def _check_match(
  folder: epath.Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
  """Raises ValueError for the first parameter, by name, that does not match."""
  advice = (
    'The checkpoint belongs to a model of another configuration: load it with its '
    'own, or choose another checkpoint'
  )
  for name in sorted({*stored, *wanted}):
    if name not in stored:
      text = f'lacks parameter {name!r} of shape {tuple(wanted[name].shape)}'
    elif name not in wanted:
      text = (
        f'holds parameter {name!r} of shape {tuple(stored[name].shape)}, which the '
        'model does not have'
      )
    elif tuple(stored[name].shape) != tuple(wanted[name].shape):
      text = (
        f'holds parameter {name!r} with shape {tuple(stored[name].shape)}; the model '
        f'expects {tuple(wanted[name].shape)}'
      )
    else:
      continue
    raise ValueError(f'{folder} {text}. {advice}')


def _first_unreadable(
  folder: epath.Path, restore_args: Mapping[str, Any], *, copied: bool
) -> str:
  """Reads one parameter after the other until one fails."""
  for name, arg in restore_args.items():
    tree: Any = arg
    for key in reversed(name.split('/')):
      tree = {key: tree}
    try:
      _restore(folder, jax.tree.map(lambda _: 0, tree), tree, copied=copied)
    except Exception:
      return name
  return 'unknown: each can be read by itself'


def _first_line(error: BaseException) -> str:
  lines = str(error).strip().splitlines()
  return lines[0][:200] if lines else type(error).__name__


class MismatchError(ValueError):
  """A checkpoint is whole, and of another model or optimiser."""


class Snapshot(NamedTuple):
  """What a checkpoint of training in progress holds."""

  state: Any  # TrainState
  best_params: Any | None  # None: the state's own, or nothing is being compared
  record: dict[str, Any]  # JSON: history and what else the loop must know


class TrainingCheckpoints:
  """Checkpoints of training in progress: asynchronous, sharded, the latest few.

  A kill while one is written leaves the earlier ones. One that cannot be read
  is moved to `unreadable/` beside the directory, with a warning, and the one
  before it is used. With several hosts all call every method.

  Args:
    directory: made if absent.
    keep: how many to keep, at least 1; 2 and more can survive a damaged one.
  """

  def __init__(self, directory: paths.PathLike, *, keep: int = 2):
    if keep < 1:
      raise ValueError(f'keep={keep} must be at least 1')
    self.directory = _absolute(paths.as_path(directory))
    self._keep = keep
    self._manager: Any = None
    self._folder = self.directory  # Orbax's
    self._mirror: checkpoint_copies.Mirror | None = None
    if paths.is_s3(self.directory):
      self._mirror = checkpoint_copies.Mirror(self.directory, keep=keep)
      self._folder = self._mirror.folder

  def save(self, step: int, snapshot: Snapshot) -> None:
    """Starts to write a checkpoint; the arrays may be donated when it returns."""
    arrays: Any = {'state': snapshot.state._asdict()}
    if snapshot.best_params is not None:
      arrays['best_params'] = snapshot.best_params
    if self._mirror is not None and jax.process_count() > 1:
      arrays = checkpoint_copies.gathered(arrays)
      if arrays is None:
        return
    items = {name: ocp.args.PyTreeSave(tree) for name, tree in arrays.items()}
    items['record'] = ocp.args.JsonSave(snapshot.record)
    if self._mirror is not None:
      self._mirror.wait()  # for what Orbax is about to remove, perhaps
    manager = self._open()
    manager.save(step, args=ocp.args.Composite(**items), force=True)
    if self._mirror is not None:
      self._mirror.send(step, manager.wait_until_finished)

  def restore(self, abstract_state: Any) -> tuple[int, Snapshot] | None:
    """The newest readable checkpoint, into the shardings of `abstract_state`.

    Returns:
      (step, snapshot); None where there is none.

    Raises:
      ValueError: a checkpoint is whole but its arrays are not the state's: the
        model or the optimiser has changed.
    """
    self.wait()  # a step is listed from the moment its writing begins
    if self._mirror is not None:
      ocp.multihost.sync_global_processes('sent')  # by the first host
    for step in self._steps():
      try:
        return step, self._restore(step, abstract_state)
      except MismatchError:
        raise
      except Exception as error:
        aside = self.directory.parent / 'unreadable' / str(step)
        logging.warning(
          'checkpoint %s cannot be read (%s): it is moved to %s, and training goes on '
          'from the one before it, or from the start',
          self.directory / str(step),
          _first_line(error),
          aside,
        )
        self._move_aside(step, aside)
    return None

  def _steps(self) -> Iterator[int]:
    """The newest first, each where Orbax can read it when it is asked for."""
    if self._mirror is None:
      yield from sorted(self._open().all_steps(), reverse=True)
      return
    for step in checkpoint_copies.steps(self.directory):
      self._close_manager()  # it looks into the folder once
      self._mirror.fetch(step)
      yield step

  def wait(self) -> None:
    """Waits until what was saved is on disk; raises what went wrong there."""
    if self._mirror is not None:
      self._mirror.wait()  # for Orbax, too
    elif self._manager is not None:
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, and releases the threads."""
    try:
      if self._mirror is not None:
        self._mirror.wait()
    finally:
      self._close_manager()
      if self._mirror is not None:
        self._mirror.close()

  def _close_manager(self) -> None:
    if self._manager is not None:
      manager, self._manager = self._manager, None
      manager.close()

  def _open(self) -> Any:
    if self._manager is None:
      logging.get_absl_logger().addFilter(_is_not_raised_as_well)
      several: dict[str, Any] = {}
      options: dict[str, Any] = {}
      if self._mirror is not None and jax.process_count() > 1:
        several = {'multiprocessing_options': _alone()}
        options = {**several, 'create': False}
        self._folder.mkdir(parents=True, exist_ok=True)
      self._manager = ocp.CheckpointManager(
        self._folder,
        options=ocp.CheckpointManagerOptions(
          max_to_keep=self._keep, cleanup_tmp_directories=True, **options
        ),
        item_names=('state', 'best_params', 'record'),
        item_handlers={
          'state': _handler(**several),
          'best_params': _handler(**several),
          'record': ocp.JsonCheckpointHandler(**several),
        },
      )
    return self._manager

  def _move_aside(self, step: int, aside: epath.Path) -> None:
    self._close_manager()
    if jax.process_index() == 0:
      paths.remove_tree(aside)
      folder = self.directory / str(step)
      if paths.is_remote(folder):  # a store has no rename, and no empty folders
        paths.copy_tree(folder, aside)
        checkpoint_copies.remove(folder)
        paths.remove_tree(self._folder / str(step))
      else:
        aside.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(aside)
    ocp.multihost.sync_global_processes(f'unreadable_{step}')

  def _restore(self, step: int, abstract_state: Any) -> Snapshot:
    folder = self._folder / str(step)
    wanted = abstract_state._asdict()
    stored = self._open().item_metadata(step)['state'].tree
    _check_state(self.directory / str(step), stored, wanted)
    items = {
      'state': _pytree_restore(wanted),
      'record': ocp.args.JsonRestore(),
    }
    has_best = (folder / 'best_params').exists()
    if has_best:
      items['best_params'] = _pytree_restore(wanted['params'])
    found = self._open().restore(step, args=ocp.args.Composite(**items))
    record = found['record']
    if not isinstance(record, dict):
      raise ValueError(f'its record is {json.dumps(record)[:40]}, not an object')
    state = type(abstract_state)(**found['state'])
    return Snapshot(state, found['best_params'] if has_best else None, record)


def _pytree_restore(wanted: Any) -> Any:
  args = jax.tree.map(lambda x: _restore_arg(x, x.sharding), wanted)
  return ocp.args.PyTreeRestore(item=wanted, restore_args=args)


def _check_state(folder: epath.Path, stored: Any, wanted: Any) -> None:
  found = {name: tuple(leaf.shape) for name, leaf in _flat(stored).items()}
  expected = {name: tuple(leaf.shape) for name, leaf in _flat(wanted).items()}
  for name in sorted({*found, *expected}):
    if found.get(name) != expected.get(name):
      raise MismatchError(
        f'{folder}: {name!r} has shape {found.get(name, "(absent)")} and '
        f'{expected.get(name, "(absent)")} is expected: the model or the optimiser has '
        'changed since. Restore the settings, or remove that directory to start over'
      )

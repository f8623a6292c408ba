"""T5X's checkpoints from before Orbax: flax msgpack and TensorStore.

    checkpoint_<step>/checkpoint        msgpack {'version', 'optimizer': {'target', ..}}
    checkpoint_<step>/target.a.b.c/     zarr, one for each large parameter

In `target` a small parameter is an array; a large one is a TensorStore specification,
a dictionary with a 'driver', of which only the path is read: whatever stored it, the
array lies beside the file now. The optimiser's state is not read.

Source: the checkpoints module of T5X; the public T5, mT5 and Flan-T5 ones are so.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import tensorstore as ts
from etils import epath
from flax import serialization, traverse_util

from rest_jax import paths
from rest_jax.training import checkpoint_copies

FILE = 'checkpoint'
VERSIONS = (2, 3)
_REMEDY = 'Copy it again, or use another checkpoint'


def read_params(directory: paths.PathLike) -> dict[str, Any]:
  """The parameters, as nested dictionaries of float32 NumPy arrays.

  Args:
    directory: checkpoint_<step>.

  Raises:
    ValueError: a file is missing or damaged, or is of another version; names the
      parameter where it is one's.
  """
  folder = paths.as_path(directory)
  target = _target(folder / FILE)
  flat = {name: _read(folder, name, leaf) for name, leaf in _leaves(target)}
  return traverse_util.unflatten_dict(flat, sep='/')


def _target(file: epath.Path) -> Mapping[str, Any]:
  try:
    content = serialization.msgpack_restore(file.read_bytes())
  except Exception as error:  # msgpack's own errors have no common base
    raise ValueError(
      f'{file} is damaged ({error or type(error).__name__}). {_REMEDY}'
    ) from error
  version = content.get('version') if isinstance(content, dict) else None
  if version not in VERSIONS:
    raise ValueError(
      f'{file} has version {version!r}; known versions: {VERSIONS}. Convert it with '
      'the T5X that wrote it'
    )
  optimiser = content.get('optimizer')
  target = optimiser.get('target') if isinstance(optimiser, dict) else None
  if not isinstance(target, dict) or not target:
    raise ValueError(f'{file} holds no parameters under optimizer/target. {_REMEDY}')
  return target


def _leaves(tree: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  for key, value in tree.items():
    if isinstance(value, dict) and 'driver' not in value:
      yield from _leaves(value, f'{prefix}{key}/')
    else:
      yield prefix + key, value


def _read(folder: epath.Path, name: str, leaf: Any) -> np.ndarray:
  if isinstance(leaf, dict):
    leaf = _read_array(folder / _relative_path(folder, name, leaf), name)
  value = np.asarray(leaf)
  if value.dtype.kind != 'f' and value.dtype != ml_dtypes.bfloat16:
    raise ValueError(
      f'{folder}: parameter {name!r} is of type {value.dtype}, not a float. {_REMEDY}'
    )
  return value.astype(np.float32)


def _relative_path(folder: epath.Path, name: str, spec: Mapping[str, Any]) -> str:
  store = spec.get('kvstore')
  found = spec.get('path') or (store.get('path') if isinstance(store, dict) else None)
  if not isinstance(found, str):
    raise ValueError(
      f'{folder}: the specification of parameter {name!r} names no path: {spec}. '
      f'{_REMEDY}'
    )
  return found.rstrip('/').rsplit('/', 1)[-1]


def _read_array(path: epath.Path, name: str) -> np.ndarray:
  try:
    with checkpoint_copies.fetched(path) as local:
      base = local if paths.is_remote(local) else f'file://{local.resolve()}'
      spec = {
        'driver': 'zarr',
        'kvstore': f'{base}/',
        # Else a chunk whose file is missing would be read as zeros.
        'fill_missing_data_reads': False,
      }
      return ts.open(spec, open=True, read=True).result().read().result()
  except (ValueError, OSError) as error:
    reason = str(error).splitlines()[0][:200]
    raise ValueError(
      f'parameter {name!r} cannot be read from {path} ({reason}). {_REMEDY}'
    ) from error

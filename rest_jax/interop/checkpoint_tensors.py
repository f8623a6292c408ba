"""Files of named tensors in the safetensors format, as NumPy arrays.

    8 bytes     length of the header, little-endian
    header      JSON: {name: {'dtype', 'shape', 'data_offsets': [begin, end]}, ...}
    the rest    the tensors' bytes, row by row, where data_offsets say

Source: the format's description in the safetensors repository. Read here and not by
its package, since a tensor is then mapped from a local file when it is used, is read
from gs:// and s3:// as well, and what is wrong with a file can be named.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from etils import epath

from rest_jax import paths

SINGLE_FILE = 'model.safetensors'
INDEX_FILE = 'model.safetensors.index.json'

_DTYPES: dict[str, np.dtype] = {
  'F64': np.dtype(np.float64),
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
  'I64': np.dtype(np.int64),
  'I32': np.dtype(np.int32),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_METADATA = '__metadata__'
_MAX_HEADER_BYTES = 100_000_000  # the library's own limit
_REMEDY = 'Copy the file again, or use another checkpoint'


class _Place(NamedTuple):
  """Where a tensor lies in its file."""

  dtype: np.dtype
  shape: tuple[int, ...]
  begin: int  # bytes from the start of the file
  size: int  # bytes


class TensorFile(Mapping[str, np.ndarray]):
  """The tensors of one file; each is read when it is asked for.

  Args:
    path: the file.

  Raises:
    ValueError: the file is missing, cut short, or not of the format.
  """

  def __init__(self, path: paths.PathLike):
    self._path = paths.as_path(path)
    self._places = _read_places(self._path)
    self._mapped: np.ndarray | None = None

  def __getitem__(self, name: str) -> np.ndarray:
    place = self._places[name]
    return self._bytes(place).view(place.dtype).reshape(place.shape)

  def __iter__(self) -> Iterator[str]:
    return iter(self._places)

  def __len__(self) -> int:
    return len(self._places)

  def _bytes(self, place: _Place) -> np.ndarray:
    if paths.is_remote(self._path):
      with paths.open_binary(self._path) as handle:
        handle.seek(place.begin)
        return np.frombuffer(handle.read(place.size), np.uint8)
    if not place.size:
      return np.zeros(0, np.uint8)
    if self._mapped is None:
      self._mapped = np.memmap(self._path, np.uint8, 'r')
    return np.asarray(self._mapped[place.begin : place.begin + place.size])


class ShardedTensors(Mapping[str, np.ndarray]):
  """The tensors of several files, which an index names.

  Args:
    index: `model.safetensors.index.json`, whose `weight_map` says which file holds
      a tensor.

  Raises:
    ValueError: the index or a file is missing or damaged, or a file lacks a tensor
      that the index places there.
  """

  def __init__(self, index: paths.PathLike):
    folder = paths.as_path(index).parent
    content = paths.read_json(index)
    places = content.get('weight_map') if isinstance(content, dict) else None
    if not isinstance(places, dict):
      raise ValueError(f'{index} has no weight_map: it is not an index. {_REMEDY}')
    files = {name: TensorFile(folder / name) for name in sorted(set(places.values()))}
    for tensor, file in sorted(places.items()):
      if tensor not in files[file]:
        raise ValueError(
          f'{folder / file} lacks the tensor {tensor!r} that {INDEX_FILE} places in '
          f'it. {_REMEDY}'
        )
    self._files = {tensor: files[file] for tensor, file in places.items()}

  def __getitem__(self, name: str) -> np.ndarray:
    return self._files[name][name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._files)

  def __len__(self) -> int:
    return len(self._files)


def open_tensors(directory: paths.PathLike) -> Mapping[str, np.ndarray]:
  """The tensors of a model's directory, in one file or in several.

  Raises:
    ValueError: there are none, or a file is damaged.
  """
  folder = paths.as_path(directory)
  if (folder / INDEX_FILE).exists():
    return ShardedTensors(folder / INDEX_FILE)
  if (folder / SINGLE_FILE).exists():
    return TensorFile(folder / SINGLE_FILE)
  raise ValueError(
    f'{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}: save the model as '
    'safetensors (in Transformers save_pretrained, with safe_serialization=True before '
    'version 5)'
  )


def write_tensors(path: paths.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
  """Writes tensors as one file, in the order of their names.

  Raises:
    ValueError: a type that is not written here.
  """
  header: dict[str, Any] = {_METADATA: {'format': 'pt'}}
  begin = 0
  for name in sorted(tensors):
    tensor = tensors[name]
    if tensor.dtype not in _NAMES:
      raise ValueError(
        f'tensor {name!r} is {tensor.dtype}; known types: {", ".join(map(str, _NAMES))}'
      )
    header[name] = {
      'dtype': _NAMES[tensor.dtype],
      'shape': list(tensor.shape),
      'data_offsets': [begin, begin + tensor.nbytes],
    }
    begin += tensor.nbytes
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)  # the data begins at a multiple of 8
  with paths.open_atomic(path, 'wb') as handle:
    handle.write(len(text).to_bytes(8, 'little'))
    handle.write(text)
    for name in sorted(tensors):
      handle.write(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8))


def _read_places(path: epath.Path) -> dict[str, _Place]:
  if not path.exists():
    raise ValueError(f'{path} does not exist: a part of the checkpoint is missing')
  size = path.stat().length
  with paths.open_binary(path) as handle:
    length = int.from_bytes(handle.read(8), 'little')
    if size < 8 or not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
      raise ValueError(
        f'{path} is not a safetensors file, or was cut short: it has {size} bytes, and '
        f'its first eight ask for a header of {length}. {_REMEDY}'
      )
    text = handle.read(length)
  try:
    header = json.loads(text)
    header.pop(_METADATA, None)
    return {
      name: _place(path, name, entry, 8 + length, size)
      for name, entry in header.items()
    }
  except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError) as error:
    raise ValueError(
      f'the header of {path} is damaged ({error!r}). {_REMEDY}'
    ) from error


def _place(
  path: epath.Path, name: str, entry: Mapping[str, Any], data: int, file_size: int
) -> _Place:
  if entry['dtype'] not in _DTYPES:
    raise ValueError(
      f'{path}: tensor {name!r} has the type {entry["dtype"]!r}; known types: '
      f'{", ".join(_DTYPES)}. Save the model in one of them'
    )
  dtype, shape = _DTYPES[entry['dtype']], tuple(entry['shape'])
  begin, end = entry['data_offsets']
  wanted = math.prod(shape) * dtype.itemsize
  if end - begin != wanted:
    raise ValueError(
      f'{path}: tensor {name!r} of shape {shape} takes {wanted} bytes; its header '
      f'gives it {end - begin}. {_REMEDY}'
    )
  if data + end > file_size:
    raise ValueError(
      f'{path} was cut short at {file_size} bytes: tensor {name!r} of shape {shape} '
      f'ends at byte {data + end}. {_REMEDY}'
    )
  return _Place(dtype, shape, data + begin, wanted)

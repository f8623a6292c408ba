"""Starting from a checkpoint of the T5 family, whoever wrote it.

The format is recognised by the files:

    config.json                     Hugging Face: safetensors, one file or sharded
    checkpoint_<step>/state/        Orbax: T5X's default, and ours
    checkpoint_<step>/checkpoint    T5X's legacy format

T5X's may be of its minimal or of its scalable T5 (see `checkpoint_layouts`). What
comes out has the layout of the model that is asked for.
"""

import dataclasses
import enum
import hashlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from rest_jax import paths
from rest_jax.interop import (
  checkpoint_layouts,
  checkpoint_tensors,
  huggingface,
  legacy_checkpoint,
)
from rest_jax.models import stacking, t5
from rest_jax.training import checkpoints

CONFIG_FILE = 'config.json'
OUR_CONFIG_FILE = 'model.json'
# What `identity` reads of each file: so much, so often.
_SAMPLE_BYTES, _SAMPLE_PERIOD_BYTES = 2**16, 2**24
# What a checkpoint's files cannot be wrong about without another function.
_DECIDING = (
  'vocab_size',
  'emb_dim',
  'num_heads',
  'head_dim',
  'mlp_dim',
  'num_encoder_layers',
  'num_decoder_layers',
  'mlp_activations',
  'logits_via_embedding',
  'relative_attention_num_buckets',
  'relative_attention_max_distance',
  'relative_bias_per_layer',
)


class Format(enum.Enum):
  """Who wrote a checkpoint."""

  HUGGING_FACE = 'Hugging Face'
  ORBAX = 'Orbax'
  LEGACY = 'legacy T5X'


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A checkpoint that was found.

  Attributes:
    format: who wrote it.
    folder: with config.json, or checkpoint_<step>.
    artifact: the directory with model.json, where a run here made it.
  """

  format: Format
  folder: epath.Path
  artifact: epath.Path | None = None


def find(path: paths.PathLike) -> Checkpoint:
  """Recognises a checkpoint.

  Args:
    path: a Hugging Face model's directory; checkpoint_<step>; or a directory of
      those, such as a T5X MODEL_DIR or an artifact here, whose highest step counts.

  Raises:
    ValueError: there is none.
  """
  folder = paths.as_path(path)
  if not folder.is_dir():
    raise ValueError(
      f'{folder} is not a directory: give that of a Hugging Face model, or '
      'checkpoint_<step>'
    )
  if (folder / CONFIG_FILE).exists():
    return Checkpoint(Format.HUGGING_FACE, folder)
  if folder.name == checkpoints.ITEM and _format(folder.parent):
    folder = folder.parent
  if not _format(folder):
    steps = [entry for entry in folder.iterdir() if _is_step(entry) and _format(entry)]
    if not steps:
      raise ValueError(
        f'{folder} is no checkpoint of the T5 family: it holds neither {CONFIG_FILE} '
        f'(Hugging Face) nor {checkpoints.ITEM}/ (Orbax) nor the file '
        f'{legacy_checkpoint.FILE!r} (legacy T5X), nor checkpoint_<step> with one of '
        'them'
      )
    folder = max(steps, key=checkpoints.step_of)
  found = _format(folder)
  assert found is not None
  artifact = folder.parent if (folder.parent / OUR_CONFIG_FILE).exists() else None
  return Checkpoint(found, folder, artifact)


def _is_step(entry: epath.Path) -> bool:
  return re.fullmatch(rf'{checkpoints.PREFIX}\d+', entry.name) is not None


def _format(folder: epath.Path) -> Format | None:
  if (folder / checkpoints.ITEM).is_dir():
    return Format.ORBAX
  if (folder / legacy_checkpoint.FILE).is_file():
    return Format.LEGACY
  return None


def identity(path: paths.PathLike) -> dict[str, Any]:
  """JSON values that name a checkpoint's content in a fingerprint.

  Of each file the name, the size, 64 KiB at every 16 MiB and the last 64 KiB count,
  not where it lies: reading all of a large model took minutes. A change of one tensor
  that lies between two samples goes unseen; training changes all of them.
  """
  found = find(path)
  digest = hashlib.sha256()
  for file in _files(found.folder):
    size = file.stat().length
    digest.update(f'{file.relative_to(found.folder)} {size}\n'.encode())
    with paths.open_binary(file) as handle:
      last = max(0, size - _SAMPLE_BYTES)
      for start in (*range(0, size, _SAMPLE_PERIOD_BYTES), last):
        handle.seek(start)
        digest.update(handle.read(_SAMPLE_BYTES))
  return {'format': found.format.value, 'sha256': digest.hexdigest()}


def _files(folder: epath.Path) -> list[epath.Path]:
  found = []
  for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
    found += _files(entry) if entry.is_dir() else [entry]
  return found


def model_config(
  path: paths.PathLike,
  *,
  dtype: str = 'float32',
  dropout_rate: float | None = None,
  scan_layers: bool = False,
  remat: bool = False,
  cache_layout: str = 'rows_first',
  int8_cache: bool = False,
) -> t5.T5Config:
  """The shape that a checkpoint itself tells: a Hugging Face one, or a run's here.

  Args:
    path: as for `find`.
    dtype, scan_layers, remat, cache_layout, int8_cache: see T5Config.
    dropout_rate: None takes the checkpoint's.

  Raises:
    ValueError: the checkpoint is T5X's, whose shape is a gin file's.
  """
  stored = _stored_config(find(path))
  if stored is None:
    raise ValueError(
      f'{path} is a T5X checkpoint, which does not tell its shape: give one of '
      'gin_configs/models/'
    )
  return dataclasses.replace(
    stored,
    dtype=dtype,
    dropout_rate=stored.dropout_rate if dropout_rate is None else dropout_rate,
    scan_layers=scan_layers,
    remat=remat,
    cache_layout=cache_layout,
    int8_cache=int8_cache,
  )


def _stored_config(found: Checkpoint) -> t5.T5Config | None:
  if found.format is Format.HUGGING_FACE:
    fields = paths.read_json(found.folder / CONFIG_FILE)
    return huggingface.config_from_huggingface(fields)
  if found.artifact is not None:
    return t5.T5Config.from_dict(paths.read_json(found.artifact / OUR_CONFIG_FILE))
  return None


def restore(
  path: paths.PathLike,
  config: t5.T5Config,
  shardings: Any,
  *,
  rows: np.ndarray | None = None,
) -> Any:
  """The parameters of a checkpoint, float32, on the devices.

  Orbax checkpoints of the model's own layout are read by each device, its part.
  Others pass through the host: mapped from the file (float32 of Hugging Face) or
  read once, and given to the devices parameter by parameter.

  Args:
    path: as for `find`.
    config: the model's shape.
    shardings: of its parameters, a tree.
    rows: for each id of the model the checkpoint's id, where they differ (see
      `Vocabulary.checkpoint_rows`); None keeps the order.

  Raises:
    ValueError: the checkpoint is missing, partial, damaged or of another shape; names
      the file, or the first parameter and what was expected.
  """
  found = find(path)
  _check_config(found, config)
  shapes = t5.parameter_shapes(config)
  if found.artifact is not None:
    rows = None  # made here, in our order
  if found.format is Format.ORBAX and rows is None:
    stored = checkpoints.stored_shapes(found.folder)
    if _has_layout(stored, config):
      return checkpoints.load_params(found.folder, abstract=shapes, shardings=shardings)
  flat = _in_our_layout(found, config)
  _check_shapes(found, {name: leaf.shape for name, leaf in flat.items()}, _flat(shapes))
  if rows is not None:
    _reorder(flat, rows)
  placed = {}
  for name, sharding in _flat(shardings).items():
    placed[name] = _place(np.asarray(flat.pop(name), np.float32), sharding)
  return traverse_util.unflatten_dict(placed, sep='/')


def _check_config(found: Checkpoint, config: t5.T5Config) -> None:
  stored = _stored_config(found)
  if stored is None:
    return
  for name in _DECIDING:
    theirs, ours = getattr(stored, name), getattr(config, name)
    if theirs != ours:
      raise ValueError(
        f'{found.folder}: {name} is {theirs!r} in the checkpoint and {ours!r} in '
        'MODEL. Bind MODEL = @initial_checkpoint.model_config(), as '
        'gin_configs/huggingface.gin does, or choose the model file that fits'
      )


def _read(found: Checkpoint, config: t5.T5Config) -> dict[str, Any]:
  if found.format is Format.HUGGING_FACE:
    looped = dataclasses.replace(config, scan_layers=False)
    tensors = checkpoint_tensors.open_tensors(found.folder)
    try:
      return huggingface.params_from_huggingface(tensors, looped)
    except ValueError as error:
      raise ValueError(f'{found.folder}: {error}') from error
  if found.format is Format.LEGACY:
    return legacy_checkpoint.read_params(found.folder)
  tree: dict[str, Any] = checkpoints.load_params(found.folder)
  return tree


def _has_layout(stored: Mapping[str, Any], config: t5.T5Config) -> bool:
  """Whether layers, heads and biases lie as the model has them."""
  flat = _flat(stored)
  shared = 'encoder/relpos_bias/rel_embedding' in flat
  if shared == config.relative_bias_per_layer:
    return False
  ranks = {1, 2, 3} if config.scan_layers else {1, 2}
  return stacking.is_stacked(flat) == config.scan_layers and all(
    len(leaf.shape) in ranks for leaf in flat.values()
  )


def _in_our_layout(found: Checkpoint, config: t5.T5Config) -> dict[str, Any]:
  tree = _read(found, config)
  try:
    return checkpoint_layouts.in_our_layout(tree, config)
  except ValueError as error:
    raise ValueError(f'{found.folder}: {error}') from error


def _check_shapes(
  found: Checkpoint, stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
  """Raises ValueError for the first parameter, by name, that does not match."""
  for name in sorted({*stored, *wanted}):
    has = tuple(stored[name]) if name in stored else None
    expected = tuple(wanted[name].shape) if name in wanted else None
    if has == expected:
      continue
    if has is None:
      text = f'lacks parameter {name!r} of shape {expected}'
    elif expected is None:
      text = f'holds parameter {name!r} of shape {has}, which the model does not have'
    else:
      text = f'holds parameter {name!r} with shape {has}; the model expects {expected}'
    raise ValueError(
      f'{found.folder} ({found.format.value}) {text}. Choose the model file of '
      'gin_configs/models/ that the checkpoint belongs to, or set MODEL'
    )


def _reorder(flat: dict[str, Any], rows: np.ndarray) -> None:
  embedding = flat['token_embedder/embedding']
  flat['token_embedder/embedding'] = embedding[rows]
  if 'decoder/logits_dense/kernel' in flat:
    flat['decoder/logits_dense/kernel'] = flat['decoder/logits_dense/kernel'][:, rows]


def _place(value: np.ndarray, sharding: Any) -> jax.Array:
  """Gives each device its part."""
  return jax.make_array_from_callback(value.shape, sharding, lambda part: value[part])


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
  return traverse_util.flatten_dict(tree, sep='/')

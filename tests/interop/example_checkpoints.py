"""Checkpoints as other programs write them, for tests."""

import json

import ml_dtypes
import numpy as np
import tensorstore as ts
from flax import serialization, traverse_util

from rest_jax.interop import checkpoint_tensors, huggingface
from rest_jax.models import t5
from rest_jax.training import checkpoints

CONFIG = t5.T5Config(
  vocab_size=24,
  emb_dim=8,
  num_heads=2,
  head_dim=3,
  mlp_dim=10,
  num_encoder_layers=1,
  num_decoder_layers=2,
)


def make_params(config, seed=0):
  """Random parameters, float32 NumPy arrays."""
  rng = np.random.default_rng(seed)
  shapes = traverse_util.flatten_dict(t5.parameter_shapes(config), sep='/')
  drawn = {
    name: rng.normal(size=leaf.shape).astype(np.float32)
    for name, leaf in shapes.items()
  }
  return traverse_util.unflatten_dict(drawn, sep='/')


def write_legacy(folder, params, *, step=7, small=('scale',), dtype=np.float32):
  """T5X's format of version 3: msgpack beside zarr, chunked and gzipped.

  Parameters whose last name is in `small` lie in the msgpack file.
  """
  target = folder / f'checkpoint_{step}'
  target.mkdir(parents=True)
  inline = {}
  for name, value in traverse_util.flatten_dict(params, sep='/').items():
    value = np.asarray(value, dtype)
    if name.split('/')[-1] in small:
      inline[name] = value
      continue
    path = 'target.' + name.replace('/', '.')
    metadata = {
      'shape': list(value.shape),
      'chunks': [-(-size // 2) for size in value.shape],
      'compressor': {'id': 'gzip'},
      'dtype': 'bfloat16' if dtype == ml_dtypes.bfloat16 else value.dtype.str,
    }
    store = {'driver': 'file', 'path': str(target / path)}
    spec = {'driver': 'zarr', 'kvstore': store, 'metadata': metadata}
    ts.open(spec, create=True).result().write(value).result()
    inline[name] = {
      'driver': 'zarr',
      'dtype': np.dtype(dtype).name,
      'kvstore': {'driver': 'gfile', 'path': path},
      'metadata': metadata,
    }
  content = {
    'version': 3,
    'optimizer': {
      'target': traverse_util.unflatten_dict(inline, sep='/'),
      'state': {'step': np.int32(step), 'param_states': {}},
    },
  }
  (target / 'checkpoint').write_bytes(serialization.msgpack_serialize(content))
  return target


def write_orbax(folder, params, *, step=7):
  """T5X's default format."""
  return checkpoints.save_params(folder, params, step=step)


def write_huggingface(folder, params, config, *, dtype=np.float32, shards=1):
  """A directory as `save_pretrained` leaves it, tied copies left out."""
  folder.mkdir(parents=True, exist_ok=True)
  fields = huggingface.config_to_huggingface(config)
  (folder / 'config.json').write_text(json.dumps(fields))
  state = huggingface.params_to_huggingface(params, config)
  state = {
    name: value.astype(dtype)
    for name, value in state.items()
    if 'embed_tokens' not in name
  }
  if shards == 1:
    checkpoint_tensors.write_tensors(folder / 'model.safetensors', state)
    return folder
  places = {
    name: f'model-{i % shards + 1:05d}-of-{shards:05d}.safetensors'
    for i, name in enumerate(state)
  }
  for file in sorted(set(places.values())):
    held = {name: state[name] for name, place in places.items() if place == file}
    checkpoint_tensors.write_tensors(folder / file, held)
  index = json.dumps({'metadata': {}, 'weight_map': places})
  (folder / 'model.safetensors.index.json').write_text(index)
  return folder

"""The two layouts of T5X's parameters, and ours between them.

    minimal     layers_i, one relative position bias a stack, heads merged:
                query/kernel [embed, heads * head_dim]
    scalable    layers stacked on axis 1, a bias in every layer, heads split:
                query/kernel [embed, layers, heads, head_dim],
                out/kernel [heads, layers, head_dim, embed]

Our layers are looped or stacked, our heads merged, and where the bias lies is the
model's affair (`T5Config.relative_bias_per_layer`). Functions take and give flat
dictionaries of NumPy arrays by name.

Source: `examples/t5` and `examples/scalable_t5` of T5X.
"""

import re
from typing import Any, TypeAlias

import numpy as np
from flax import traverse_util

from rest_jax.models import stacking, t5

Flat: TypeAlias = dict[str, Any]

MINIMAL = 'minimal'
SCALABLE = 'scalable'
LAYOUTS = (MINIMAL, SCALABLE)

_PROJECTIONS = ('query/kernel', 'key/kernel', 'value/kernel')
_OUT = 'out/kernel'
_BIAS = 'relpos_bias/rel_embedding'
_LAYER_BIAS = re.compile(rf'^(encoder|decoder)/(layers_\d+|encoder|decoder)/{_BIAS}$')


def join_heads(flat: Flat) -> Flat:
  """Merges split heads of every attention kernel; merged ones stay as they are."""
  rank = 3 if stacking.is_stacked(flat) else 2
  joined = dict(flat)
  for name, leaf in flat.items():
    if leaf.ndim != rank + 1:
      continue
    if name.endswith(_OUT):
      # [heads, (layers,) head_dim, embed] -> [heads, head_dim, (layers,) embed]
      leaf = np.moveaxis(leaf, -2, 1)
      joined[name] = leaf.reshape(-1, *leaf.shape[2:])
    elif name.endswith(_PROJECTIONS):  # [embed, (layers,) heads, head_dim]
      joined[name] = leaf.reshape(*leaf.shape[:-2], -1)
  return joined


def split_heads(flat: Flat, config: t5.T5Config) -> Flat:
  """The inverse of `join_heads`."""
  heads = config.num_heads, config.head_dim
  split = dict(flat)
  for name, leaf in flat.items():
    if name.endswith(_OUT):
      split[name] = np.moveaxis(leaf.reshape(*heads, *leaf.shape[1:]), 1, -2)
    elif name.endswith(_PROJECTIONS):
      split[name] = leaf.reshape(*leaf.shape[:-1], *heads)
  return split


def share_biases(flat: Flat) -> Flat:
  """Puts one bias a stack where every layer has the same one.

  Raises:
    ValueError: the biases of a stack's layers differ.
  """
  shared = {name: leaf for name, leaf in flat.items() if not _LAYER_BIAS.match(name)}
  for name in sorted(set(flat) - set(shared)):
    side, layer, _ = name.split('/', 2)
    leaf = flat[name]
    # Stacked: [heads, layers, buckets]
    tables = np.moveaxis(leaf, 1, 0) if layer in ('encoder', 'decoder') else [leaf]
    for table in tables:
      first = shared.setdefault(f'{side}/{_BIAS}', table)
      if not np.array_equal(table, first):
        raise ValueError(
          f'{name!r}: the layers have relative position biases that differ, as in '
          "umT5 and in T5X's scalable T5, and the model has one for each stack: set "
          't5.T5Config.relative_bias_per_layer = True'
        )
  return shared


def repeat_biases(flat: Flat, config: t5.T5Config) -> Flat:
  """Gives each looped layer its stack's bias, which computes the same."""
  repeated = dict(flat)
  sizes = {'encoder': config.num_encoder_layers, 'decoder': config.num_decoder_layers}
  for side, size in sizes.items():
    table = repeated.pop(f'{side}/{_BIAS}')
    repeated |= {f'{side}/layers_{i}/{_BIAS}': table for i in range(size)}
  return repeated


def in_t5x_layout(params: Any, config: t5.T5Config, layout: str) -> dict[str, Any]:
  """Our parameters, looped or stacked, as T5X's example models name and shape them.

  Args:
    params: nested dictionaries of NumPy arrays; a head's are passed on.
    config: the model's shape.
    layout: 'minimal' or 'scalable'.

  Raises:
    ValueError: an unknown layout, or minimal for a model with a bias per layer.
  """
  if layout not in LAYOUTS:
    raise ValueError(f'layout {layout!r} is unknown; known: {", ".join(LAYOUTS)}')
  looped = stacking.unstack_layers(params) if config.scan_layers else params
  flat = traverse_util.flatten_dict(looped, sep='/')
  if layout == MINIMAL:
    if config.relative_bias_per_layer:
      raise ValueError(
        "the model has a relative position bias in every layer, which T5X's minimal "
        f'T5 does not compute: export it as {SCALABLE!r}'
      )
    return traverse_util.unflatten_dict(flat, sep='/')
  if not config.relative_bias_per_layer:
    flat = repeat_biases(flat, config)
  stacked = stacking.stack_layers(traverse_util.unflatten_dict(flat, sep='/'))
  flat = split_heads(traverse_util.flatten_dict(stacked, sep='/'), config)
  return traverse_util.unflatten_dict(flat, sep='/')


def in_our_layout(params: Any, config: t5.T5Config) -> Flat:
  """T5X's parameters of either layout, flat, as the model has them.

  Raises:
    ValueError: biases that the model has no place for, or a layer that lacks a
      parameter.
  """
  flat = join_heads(traverse_util.flatten_dict(params, sep='/'))
  if not config.relative_bias_per_layer:
    flat = share_biases(flat)
  stacked = stacking.is_stacked(flat)
  if stacked == config.scan_layers:
    return flat
  tree = traverse_util.unflatten_dict(flat, sep='/')
  tree = stacking.unstack_layers(tree) if stacked else stacking.stack_layers(tree)
  return traverse_util.flatten_dict(tree, sep='/')

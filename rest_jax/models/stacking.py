"""Moving parameters between looped layers and scanned, stacked ones."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

# Stacked layers live on this axis of every parameter, as in T5X.
LAYER_AXIS = 1

_LOOPED = re.compile(r'^(encoder|decoder)/layers_(\d+)/(.+)$')
_SCANNED = re.compile(r'^(encoder|decoder)/(encoder|decoder)/(.+)$')


def is_stacked(names: Iterable[str]) -> bool:
  """Whether parameters of these names ('encoder/encoder/...') are of a scan."""
  return any(_SCANNED.match(name) for name in names)


def _stack(leaves: Sequence[Any]) -> Any:
  if any(isinstance(leaf, jax.Array) for leaf in leaves):
    return jnp.stack(leaves, axis=LAYER_AXIS)
  return np.stack(leaves, axis=LAYER_AXIS)


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
  """Looped to scanned: `encoder/layers_i/x` become `encoder/encoder/x`.

  Layer i is index i of axis 1. Works on NumPy arrays (stays on the host) and
  JAX arrays; other parameters pass unchanged. A tree that is scanned already
  comes back as it is.

  Raises:
    ValueError: when a stack's layers do not count up from 0, or do not hold
      the same parameters.
  """
  stacked: dict[str, Any] = {}
  layers: dict[str, dict[int, Any]] = {}
  for name, leaf in traverse_util.flatten_dict(params, sep='/').items():
    match = _LOOPED.match(name)
    if not match:
      stacked[name] = leaf
      continue
    side, index, rest = match.groups()
    layers.setdefault(f'{side}/{side}/{rest}', {})[int(index)] = leaf
  sizes: dict[str, int] = {}
  for name, by_index in layers.items():
    side = name.split('/')[0]
    sizes[side] = max(sizes.get(side, 0), max(by_index) + 1)
  for name, by_index in layers.items():
    side = name.split('/')[0]
    missing = [i for i in range(sizes[side]) if i not in by_index]
    if missing:
      rest = name.split('/', 2)[2]
      raise ValueError(
        f'parameter {side}/layers_{missing[0]}/{rest} is absent; every layer of '
        'a stack must hold the same parameters. Complete the tree.'
      )
    stacked[name] = _stack([by_index[i] for i in range(sizes[side])])
  return traverse_util.unflatten_dict(stacked, sep='/')


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
  """Scanned to looped, the inverse of `stack_layers`."""
  looped: dict[str, Any] = {}
  for name, leaf in traverse_util.flatten_dict(params, sep='/').items():
    match = _SCANNED.match(name)
    if not match:
      looped[name] = leaf
      continue
    side, _, rest = match.groups()
    for i in range(leaf.shape[LAYER_AXIS]):
      looped[f'{side}/layers_{i}/{rest}'] = leaf[:, i]
  return traverse_util.unflatten_dict(looped, sep='/')

"""Stacked and looped parameter trees hold the same numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.models import stacking


def make_tree():
  rng = np.random.default_rng(0)
  layers = {f'layers_{i}': {'mlp': {'wo': rng.normal(size=(2, 3))}} for i in range(11)}
  return {
    'token_embedder': {'embedding': rng.normal(size=(4, 2))},
    'encoder': {**layers, 'encoder_norm': {'scale': np.ones(2)}},
    'decoder': {'layers_0': {'norm': {'scale': np.arange(2.0)}}},
  }


def test_stacking_and_back_changes_nothing():
  tree = make_tree()
  back = stacking.unstack_layers(stacking.stack_layers(tree))
  np.testing.assert_equal(back, tree)


def test_layer_i_is_index_i_of_axis_1():
  tree = make_tree()
  stacked = stacking.stack_layers(tree)
  kernel = stacked['encoder']['encoder']['mlp']['wo']
  assert kernel.shape == (2, 11, 3)
  assert isinstance(kernel, np.ndarray)
  # Sorted by name, layers_10 would come before layers_2.
  for i in range(11):
    np.testing.assert_array_equal(
      kernel[:, i], tree['encoder'][f'layers_{i}']['mlp']['wo']
    )
  assert stacked['decoder']['decoder']['norm']['scale'].shape == (2, 1)


def test_jax_arrays_stay_jax_arrays():
  tree = {'encoder': {f'layers_{i}': {'s': jnp.full(3, float(i))} for i in range(2)}}
  stacked = stacking.stack_layers(tree)['encoder']['encoder']['s']
  np.testing.assert_array_equal(np.asarray(stacked), [[0, 1], [0, 1], [0, 1]])
  assert not isinstance(stacked, np.ndarray)


def test_a_missing_layer_is_named():
  tree = make_tree()
  del tree['encoder']['layers_4']
  with pytest.raises(ValueError, match='encoder/layers_4/mlp/wo is absent'):
    stacking.stack_layers(tree)

"""A program of its own, since the number of devices is fixed when JAX starts.

Trains the example on one device and on meshes of eight, and prints as JSON how
far apart parameters and metrics end, and how arrays lie.
"""

import functools
import json

import jax
import numpy as np

from rest_jax.training import mesh as mesh_lib
from rest_jax.training import optimiser as optimiser_lib
from rest_jax.training import step as step_lib
from tests.training import example

SHAPES = {'data': (8, 1, 1), 'fsdp': (1, 8, 1), 'model': (1, 1, 8), 'all': (2, 2, 2)}


def train(mesh, num_microbatches, optimiser):
  loss_fn = functools.partial(example.loss_fn, dropout_rate=0.2)
  step = step_lib.make_train_step(
    loss_fn, optimiser, mesh=mesh, num_microbatches=num_microbatches
  )
  rng = jax.random.key(1)
  state = step_lib.init_state(example.init_fn, optimiser, mesh, rng=jax.random.key(0))
  born = jax.tree.map(lambda x: x.sharding, state)
  abstract = step_lib.abstract_state(example.init_fn, optimiser, mesh)
  assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding == s, abstract, born))
  consumed = state
  for index in range(3):
    batch = step.put_batch(example.batch_fn(index))
    state, metrics = step(state, batch, step.key(1) if index else rng)
  assert all(x.is_deleted() for x in jax.tree.leaves(consumed))
  assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding == s, state, born))
  return state, jax.device_get(metrics), step


def main():
  assert len(jax.devices()) == 8
  results = {}
  for name, optimiser in {
    'adamw': optimiser_lib.adamw(0.05, weight_decay=0.1, clip_norm=1.0),
    'adafactor': optimiser_lib.adafactor(0.05, min_dim_size_to_factor=4),
  }.items():
    for parts in (1, 2):
      one = mesh_lib.make_mesh(devices=jax.devices()[:1])
      state, metrics, _ = train(one, parts, optimiser)
      expected = jax.device_get(state.params)
      for axis, shape in SHAPES.items():
        mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(*shape))
        if parts > 1 and axis not in ('fsdp', 'all'):
          continue
        state, found, step = train(mesh, parts, optimiser)
        gap = jax.tree.map(
          lambda a, b: float(np.max(np.abs(a - b))), jax.device_get(state.params), expected
        )
        results[f'{name}-{parts}-{axis}'] = {
          'params': max(jax.tree.leaves(gap)),
          'metrics': max(abs(float(found[key] - metrics[key])) for key in metrics),
          'second': [list(s.data.shape) for s in state.params['second'].addressable_shards],
          'second_moments': sorted(
            str(x.sharding.spec)
            for x in jax.tree.leaves(state.opt_state)
            if x.shape == (example.EMBED, example.HIDDEN)
          ),
          'compilations': step.num_compilations,
        }
  moved = {n: float(np.max(np.abs(expected[n]))) for n in expected}
  print(json.dumps({'results': results, 'size': max(moved.values())}))


if __name__ == '__main__':
  main()

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

ADAMW = optimiser_lib.adamw(0.05, weight_decay=0.1, clip_norm=1.0)
ADAFACTOR = optimiser_lib.adafactor(0.05, min_dim_size_to_factor=4)
# Name: optimiser, microbatches, meshes (data, fsdp, model) to compare with one device.
CASES = {
  'adamw': (ADAMW, 1, [(2, 2, 2), (1, 1, 8)]),
  'adafactor': (ADAFACTOR, 2, [(4, 2, 1)]),
}


def train(mesh, num_microbatches, optimiser):
  loss_fn = functools.partial(example.loss_fn, dropout_rate=0.2)
  step = step_lib.make_train_step(
    loss_fn, optimiser, mesh=mesh, num_microbatches=num_microbatches
  )
  state = step_lib.init_state(example.init_fn, optimiser, mesh, rng=jax.random.key(0))
  born = jax.tree.map(lambda x: x.sharding, state)
  abstract = step_lib.abstract_state(example.init_fn, optimiser, mesh)
  assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding == s, abstract, born))
  consumed, rng = state, step.key(1)
  for index in range(3):
    batch = step.put_batch(example.batch_fn(index))
    state, metrics = step(state, batch, rng)
  assert all(x.is_deleted() for x in jax.tree.leaves(consumed))
  assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding == s, state, born))
  return state, jax.device_get(metrics), step


def shard_shape(x):
  (shape,) = {shard.data.shape for shard in x.addressable_shards}
  return list(shape)


def main():
  assert len(jax.devices()) == 8
  results = {}
  for name, (optimiser, num_microbatches, shapes) in CASES.items():
    one = mesh_lib.make_mesh(devices=jax.devices()[:1])
    state, expected_metrics, _ = train(one, num_microbatches, optimiser)
    expected = jax.device_get(state.params)
    for shape in shapes:
      mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(*shape))
      state, metrics, step = train(mesh, num_microbatches, optimiser)
      gaps = jax.tree.map(lambda a, b: np.max(np.abs(a - b)), state.params, expected)
      width = (example.EMBED, example.HIDDEN)
      results[f'{name} {shape}'] = {
        'params': float(max(jax.tree.leaves(gaps))),
        'metrics': max(abs(float(metrics[n] - expected_metrics[n])) for n in metrics),
        'shard': shard_shape(state.params['second']),
        'moment_shards': [
          shard_shape(x) for x in jax.tree.leaves(state.opt_state) if x.shape == width
        ],
        'compilations': step.num_compilations,
      }
  print(json.dumps(results))


if __name__ == '__main__':
  main()

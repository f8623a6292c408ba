"""A program of its own, since the number of devices is fixed when JAX starts.

Prints as JSON what planning says one device holds, and what it does hold.
"""

import functools
import json

import jax

from rest_jax.models import quantisation, t5
from rest_jax.planning import shapes
from rest_jax.sampling import decoder, sampler
from rest_jax.stages import policies
from rest_jax.training import mesh as mesh_lib
from rest_jax.training import online_objectives
from rest_jax.training import optimiser as optimiser_lib
from rest_jax.training import step as step_lib

CONFIG = t5.T5Config(
  vocab_size=64,
  emb_dim=16,
  num_heads=4,
  head_dim=4,
  mlp_dim=32,
  num_encoder_layers=2,
  num_decoder_layers=2,
)
MESHES = [(8, 1, 1), (2, 2, 2), (1, 1, 8)]  # eight devices do not divide the heads


def held(tree):
  """Bytes on the first device."""
  first = jax.devices()[0]
  return sum(
    shard.data.nbytes
    for leaf in jax.tree.leaves(tree)
    for shard in leaf.addressable_shards
    if shard.device == first
  )


def main():
  found = []
  for shape in MESHES:
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(*shape))
    for layout, scan in (('rows_first', False), ('rows_last', True)):
      config = t5.T5Config.from_dict(
        CONFIG.to_dict() | {'cache_layout': layout, 'scan_layers': scan}
      )
      sizes = {'source_length': 12, 'length': 10}
      settings = sampler.SamplerSettings(batch_size=16, slots=2)
      lanes = decoder.empty_lanes(
        config, mesh, batch=16, slots=2, share=3, limit=10, **sizes
      )
      said = shapes.lanes(config, mesh, settings=settings, share=3, **sizes)
      found.append((f'{layout} {shape}', shapes.device_bytes(said), held(lanes)))
    init_fn = policies.init_fn(t5.T5, CONFIG)
    make_optimiser = functools.partial(
      optimiser_lib.adafactor, 0.1, min_dim_size_to_factor=8
    )
    optimiser = make_optimiser()
    abstract = step_lib.abstract_state(init_fn, optimiser, mesh)
    state = step_lib.init_state(init_fn, optimiser, mesh, rng=jax.random.key(0))
    for part in ('params', 'opt_state'):
      said, real = getattr(abstract, part), getattr(state, part)
      found.append((f'{part} {shape}', shapes.device_bytes(said), held(real)))
    params = shapes.params(t5.T5, CONFIG, mesh, mesh_lib.DEFAULT_RULES)
    fewer = quantisation.quantise(state.params, quantisation.Int8())
    said = shapes.quantised(params, quantisation.Int8())
    found.append((f'int8 {shape}', shapes.device_bytes(said), held(fewer)))
    ppo = online_objectives.Ppo()
    start = ppo.start(state.params, CONFIG)
    said = shapes.state(
      t5.T5, CONFIG, ppo, make_optimiser, mesh, mesh_lib.DEFAULT_RULES
    )
    real = step_lib.state_from_params(start, optimiser, mesh)
    for part in ('params', 'opt_state'):
      sizes = shapes.device_bytes(getattr(said, part)), held(getattr(real, part))
      found.append((f'PPO {part} {shape}', *sizes))
  print(json.dumps(found))


if __name__ == '__main__':
  main()

"""A program of its own, since the number of devices is fixed when JAX starts.

Samples on one device and on meshes of eight, and prints as JSON which candidates
differ and how far their log-probabilities are apart.
"""

import dataclasses
import functools
import json

import jax
import numpy as np

from rest_jax.sampling import draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.training import mesh as mesh_lib
from tests.sampling import test_sampler as example

# data, fsdp, model; with a model axis, lanes are spread over it for the draw.
MESHES = {
  (8, 1, 1): 'rows_first',
  (2, 4, 1): 'rows_first',
  (2, 2, 2): 'rows_last',
}


def sample(mesh, cache_layout='rows_first'):
  # As a policy is read: each parameter straight into its shards.
  params = example._params()
  boxed = jax.eval_shape(
    functools.partial(example.t5.T5(example.CONFIG).init, jax.random.key(0)),
    np.ones((1, 1), np.int32),
    np.ones((1, 1, 1), np.int32),
  )['params']
  params = jax.device_put(params, mesh_lib.param_shardings(mesh, boxed))
  sampler = sampler_lib.Sampler(
    params,
    dataclasses.replace(example.CONFIG, cache_layout=cache_layout),
    example.LetterVocabulary(),
    mesh=mesh,
    source_length=16,
    target_length=example.LIMIT,
    decoding=draws.Decoding(temperature=1.0),
    seed=3,
    grow_step=1,
    settings=sampler_lib.SamplerSettings(batch_size=16, share=6),
  )
  return sampler.sample_in_order(example._groups(11), 6)


def main():
  assert len(jax.devices()) == 8
  expected = sample(mesh_lib.make_mesh(devices=jax.devices()[:1]))
  results = {}
  for shape, layout in MESHES.items():
    found = sample(mesh_lib.make_mesh(mesh_lib.MeshConfig(*shape)), layout)
    different, gap, count = 0, 0.0, 0
    for one, two in zip(expected, found, strict=True):
      assert one.source_id == two.source_id
      candidates = zip(
        one.tokens, two.tokens, one.token_log_probs, two.token_log_probs, strict=True
      )
      for tokens, other, log_probs, other_log_probs in candidates:
        count += 1
        if not np.array_equal(tokens, other):
          different += 1
          continue
        gap = max(gap, float(np.abs(log_probs - other_log_probs).max()))
    results[str(shape)] = {'different': different, 'count': count, 'gap': gap}
  print(json.dumps(results))


if __name__ == '__main__':
  main()

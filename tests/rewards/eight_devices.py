"""A program of its own, since the number of devices is fixed when JAX starts.

Scores on one device and on meshes of eight, and prints as JSON how far apart the
logits are.
"""

import json

import jax
import numpy as np

from rest_jax.training import mesh as mesh_lib
from tests.rewards import test_regression_checkpoint as example

MESHES = ((8, 1, 1), (2, 2, 2))  # data, fsdp, model


def main():
  assert len(jax.devices()) == 8
  texts = [text for text in example.texts() if len(text) > 60]  # two programs each
  one = mesh_lib.make_mesh(devices=jax.devices()[:1])
  expected = example.scorer(mesh=one).logits(texts)
  gaps = {}
  for shape in MESHES:
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(*shape))
    found = example.scorer(mesh=mesh).logits(texts)
    gaps[str(shape)] = float(np.abs(found - expected).max())
  print(json.dumps({'range': float(np.ptp(expected)), 'gaps': gaps}))


if __name__ == '__main__':
  main()

"""A program of its own, since the number of devices is fixed when JAX starts.

    python -m tests.rewards.eight_devices regression|learned

Scores on one device and on meshes of eight, and prints as JSON how far apart the
scores are.
"""

import functools
import json
import sys

import jax
import numpy as np

from rest_jax.models import reward
from rest_jax.training import mesh as mesh_lib
from tests.models import test_reward
from tests.rewards import test_learned, test_regression_checkpoint

MESHES = ((8, 1, 1), (2, 2, 2))  # data, fsdp, model


def regression(mesh, setting):
  """Logits of an imported checkpoint, batches of so many tokens."""
  texts = [text for text in test_regression_checkpoint.texts() if len(text) > 60]
  scorer = test_regression_checkpoint.scorer(mesh=mesh, batch_tokens=setting)
  return scorer.logits(texts)  # two programs each


def learned(mesh, setting):
  """Scores of a learned reward model, batches of so many trees."""
  groups = [group for group in test_learned.make_groups() if group.tokens]
  # As a reward model is read: each parameter straight into its shards.
  boxed = jax.eval_shape(
    functools.partial(reward.RewardT5(test_learned.CONFIG).init, jax.random.key(0)),
    np.ones((1, 1), np.int32),
    np.ones((1, 1, 1), np.int32),
  )['params']
  params = jax.device_put(
    test_reward.make_params(), mesh_lib.param_shardings(mesh, boxed)
  )
  scores = test_learned.score(groups, mesh=mesh, params=params, batch_size=setting)
  return np.concatenate(scores)


# The scorer, and two cuts of its work.
CASES = {'regression': (regression, (512, 64)), 'learned': (learned, (4, 16))}


def main(name):
  assert len(jax.devices()) == 8
  scores, settings = CASES[name]
  expected = scores(mesh_lib.make_mesh(devices=jax.devices()[:1]), settings[0])
  gaps = {}
  for shape in MESHES:
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(*shape))
    for setting in settings:
      found = scores(mesh, setting)
      gaps[f'{shape}, {setting}'] = float(np.abs(found - expected).max())
  print(json.dumps({'range': float(np.ptp(expected)), 'gaps': gaps}))


if __name__ == '__main__':
  main(sys.argv[1])

"""A training run as a program, which kills itself when it is told to.

  python -m tests.training.killed_run DIRECTORY [STEP]

Without STEP it runs to its end and writes the final parameters, the best ones and
the history to DIRECTORY/result.npz. With it, it dies by SIGKILL when the batch of
that step is made: while other steps, and a checkpoint perhaps, are under way.
"""

import functools
import json
import os
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax import paths
from rest_jax.training import events as events_lib
from rest_jax.training import loop
from rest_jax.training import mesh as mesh_lib
from rest_jax.training import optimiser as optimiser_lib
from rest_jax.training import step as step_lib
from tests.training import example

NUM_STEPS = 60
LOG_PERIOD_STEPS = 4


def evaluate(params):
  batch = example.batch_fn(10_000)
  loss, weight, _ = example.loss_fn(params, batch, jax.random.key(0))
  return {'loss': float(loss / weight), 'nothing': float('nan')}


def run(directory, kill_step=None):
  mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
  # The rate is high, so that the best parameters are not the last.
  optimiser = optimiser_lib.adamw(
    optimiser_lib.inverse_square_root_schedule(0.3, 10), clip_norm=1.0
  )
  loss_fn = functools.partial(example.loss_fn, dropout_rate=0.3)

  def batch_fn(step):
    if step == kill_step:
      os.kill(os.getpid(), signal.SIGKILL)
    return example.batch_fn(step)

  with events_lib.EventWriter(directory) as events:
    return loop.fit(
      state=step_lib.init_state(
        example.init_fn, optimiser, mesh, rng=jax.random.key(0)
      ),
      train_step=step_lib.make_train_step(loss_fn, optimiser, mesh=mesh),
      batch_fn=batch_fn,
      num_steps=NUM_STEPS,
      work_dir=directory,
      seed=3,
      evaluate=evaluate,
      eval_period_steps=6,
      checkpoint_period_steps=7,
      log_period_steps=LOG_PERIOD_STEPS,
      events=events,
    )


def main(directory, kill_step=None):
  result = run(directory, kill_step)
  arrays = {f'last/{k}': np.asarray(v) for k, v in result.state.params.items()}
  arrays |= {f'best/{k}': np.asarray(v) for k, v in result.best_params.items()}
  opt_leaves = jax.tree.leaves(result.state.opt_state)
  arrays |= {f'opt/{i}': np.asarray(x) for i, x in enumerate(opt_leaves)}
  story = json.dumps([result.history, result.best_step, result.best_metric])
  with paths.open_atomic(paths.as_path(directory) / 'result.npz', 'wb') as file:
    np.savez(file, story=story, **arrays)
  assert jnp.isfinite(result.best_metric)


if __name__ == '__main__':
  main(sys.argv[1], *map(int, sys.argv[2:]))

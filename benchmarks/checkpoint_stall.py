"""How long does a checkpoint keep training from its next step?

    python -m benchmarks.checkpoint_stall --models toy_multi30k t5_1_1_small

A fresh training state, Adafactor's and the best parameters included, is saved as
training saves it. The stall is what `TrainingCheckpoints.save` takes, after which the
arrays may be donated to the next step; the writing goes on in threads for as long as
the last column says. Checkpoints are written one after the other, each when the one
before it is on disk.
"""

import argparse
import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import gin
import jax

from benchmarks import measuring
from rest_jax import main as command
from rest_jax.models import t5
from rest_jax.stages import policies
from rest_jax.training import checkpoints, mesh, optimiser
from rest_jax.training import step as step_lib


def measure(model: str, vocab_size: int, repeats: int) -> dict[str, Any]:
  """One row: a model of gin_configs/models."""
  command.parse_gin(
    [f'gin_configs/models/{model}.gin'], [f't5.T5Config.vocab_size = {vocab_size}']
  )
  config = gin.get_configurable(t5.T5Config)()
  state = step_lib.init_state(
    policies.init_fn(t5.T5, config),
    optimiser.Adafactor()(),
    mesh.make_mesh(devices=jax.devices()[:1]),
    rng=jax.random.key(0),
  )
  jax.block_until_ready(state)
  stalls, writes = [], []
  with tempfile.TemporaryDirectory() as folder:
    kept = checkpoints.TrainingCheckpoints(folder)
    for number in range(repeats + 1):  # the first opens files and starts threads
      snapshot = checkpoints.Snapshot(state, state.params, {'history': []})
      began = time.perf_counter()
      kept.save(number, snapshot)
      stalls.append(time.perf_counter() - began)
      kept.wait()
      writes.append(time.perf_counter() - began)
    kept.close()
    newest = pathlib.Path(folder) / str(repeats)
    size = sum(file.stat().st_size for file in newest.rglob('*') if file.is_file())
  return {
    'model': model,
    'parameters': t5.count_parameters(config),
    'checkpoint, MB': size / 1e6,
    'stall, s': statistics.median(stalls[1:]),
    'most': max(stalls[1:]),
    'on disk after, s': statistics.median(writes[1:]),
  }


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
  """Prints the table; returns its rows."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--models', nargs='+', default=['toy_multi30k', 't5_1_1_small'])
  parser.add_argument('--vocab_size', type=int, default=32_128)
  parser.add_argument('--repeats', type=int, default=3)
  given = parser.parse_args(argv)
  rows = [measure(model, given.vocab_size, given.repeats) for model in given.models]
  measuring.report('How long does a checkpoint keep training waiting?', rows)
  return rows


if __name__ == '__main__':
  main()

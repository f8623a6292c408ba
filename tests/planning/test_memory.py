"""What a device is said to hold, against what it does hold."""

import json
import os
import subprocess
import sys

import jax
import numpy as np

from rest_jax import main
from rest_jax.models import t5
from rest_jax.planning import memory, shapes
from rest_jax.stages import artifact
from rest_jax.training import mesh as mesh_lib
from tests import devices, minimal_run


def planned(tmp_path, *bindings, files=()):
  """The smallest run, gone through and not built."""
  import gin

  given = [*minimal_run.BINDINGS, f'MODEL_DIR = {str(tmp_path / "x")!r}', *bindings]
  main.parse_gin([minimal_run.GIN_FILE, *files], given)
  run = gin.get_configurable(artifact.Run)(dry_run=True)
  gin.query_parameter('ALGORITHM/macro.value').scoped_configurable_fn(run)
  return run


def test_a_device_holds_what_was_foreseen():
  environment = os.environ | {
    'XLA_FLAGS': devices.xla_flags(8),
    'JAX_PLATFORMS': 'cpu',
  }
  done = subprocess.run(
    [sys.executable, '-m', 'tests.planning.eight_devices'],
    cwd=minimal_run.ROOT,
    env=environment,
    capture_output=True,
    text=True,
    timeout=240,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  found = json.loads(done.stdout.splitlines()[-1])
  assert len(found) == 3 * 7
  for name, foreseen, held in found:
    assert foreseen == held > 0, name


def test_every_stage_on_devices_is_there(tmp_path):
  run = planned(tmp_path, files=['gin_configs/value.gin'])
  found = memory.by_stage(run)
  assert {'bc', 'rating_samples', 'reward_model', 'grow_1', 'score_2', 'value_1'} <= (
    found.keys()
  )
  params = 4 * t5.count_parameters(run.history[1].params['config'])
  bc, improve, grow = found['bc'], found['improve_1_1'], found['grow_1']
  assert bc.parameters == bc.gradients == grow.parameters == params
  assert 0 < bc.optimiser and bc.cache == 0 < grow.cache
  assert bc.total == 3 * params + bc.optimiser
  # The start, the best so far and the reward model, which is a little larger.
  assert 3 * params < improve.others < 3.1 * params
  assert improve.total == params + improve.optimiser + improve.others + max(
    params, improve.cache
  )
  assert not (tmp_path / 'x').exists()


def test_what_samples_and_judges_is_there(tmp_path):
  files = ['gin_configs/experiments/algorithms/ppo.gin', 'gin_configs/best_of_n.gin']
  found = memory.by_stage(planned(tmp_path, 'ONLINE_BATCH = 4', files=files))
  bc, scorer, ppo = found['bc'], found['score_1'].parameters, found['online']
  head = 4 * (16 + 1)  # of the critic, which else has the policy's shapes
  assert ppo.parameters == 2 * bc.parameters + head
  # The best of both, the reference and the reward model.
  assert ppo.others == ppo.parameters + bc.parameters + scorer
  assert ppo.optimiser > 1.9 * ppo.parameters and ppo.flops > 0 < ppo.cache
  assert ppo.trained_bytes == bc.trained_bytes
  evaluate, pool = found['evaluate_online'], found['best_of_n_bc']
  assert evaluate.parameters == bc.parameters == pool.parameters
  assert evaluate.others == bc.parameters + scorer and pool.others == scorer
  assert 0 < evaluate.cache < pool.cache  # two candidates a source, two hundred


def test_a_batch_of_an_online_learner_is_looked_at_too(tmp_path):
  files = ['gin_configs/experiments/algorithms/rloo.gin']
  run = planned(tmp_path, 'online.online.num_microbatches = 3', files=files)
  assert any(
    problem.startswith('online: batch_size=20 is no multiple of') and '21 is' in problem
    for problem in memory.misfits(run)
  )


def test_microbatches_hold_a_second_gradient(tmp_path):
  run = planned(tmp_path, 'supervise.supervise.num_microbatches = 2')
  bc = memory.by_stage(run)['bc']
  assert bc.gradients == 2 * bc.parameters


def test_what_the_mesh_does_not_divide_is_named(tmp_path, monkeypatch):
  run = planned(
    tmp_path,
    'BATCH_SIZE = 12',
    'supervise.supervise.num_microbatches = 3',
    'train_reward.train_reward.batch_size = 8',
  )
  assert not memory.misfits(run)
  monkeypatch.setattr(mesh_lib, 'batch_shards', lambda mesh: 8)
  first, second = memory.misfits(run)
  assert first.startswith('bc: batch_size=12 is no multiple of') and '24 is' in first
  assert 'x 3 microbatches' in first
  assert second.startswith('improve_1_1, improve_1_2, improve_2_1: batch_size=12')


def test_the_shape_of_a_model_is_its_policys(tmp_path):
  run = planned(tmp_path)
  entries = {entry.artifact.name: entry for entry in run.history}
  config = entries['bc'].params['config']
  for name in ('improve_2_1', 'score_2', 'reward_model', 'evaluate_improve_1_1'):
    assert memory.model_config(entries[name], entries) is config
  assert memory.model_config(entries['corpus'], entries) is None


def test_bytes_are_those_of_one_shard():
  mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
  leaf = jax.ShapeDtypeStruct(
    (3, 5), np.dtype('bfloat16'), sharding=mesh_lib.replicated(mesh)
  )
  assert shapes.device_bytes({'a': leaf, 'b': [leaf]}) == 2 * 3 * 5 * 2

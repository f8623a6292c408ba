"""The export stage: a policy and a reward model, by name."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from rest_jax import paths
from rest_jax.interop import checkpoint_tensors, initial_checkpoint
from rest_jax.models import reward
from rest_jax.stages import export, policies
from rest_jax.training import checkpoints
from tests.interop import test_initial_checkpoint as initial
from tests.stages import untrained

LENGTHS = {'inputs': 24, 'targets': 16}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A run with a policy and a reward model, neither trained."""
  run = untrained.run(tmp_path_factory.mktemp('export'))
  corpus = untrained.corpus(run, num_validation=8, num_test=8)
  bc = untrained.policy(run, corpus)
  config = policies.load_config(bc.path)

  def build(work):
    params = jax.jit(policies.init_fn(reward.RewardT5, config))(jax.random.key(1))
    policies.save_model(
      work.path,
      config=config,
      params=nn.meta.unbox(params),
      vocabulary=bc.path / policies.VOCABULARY_FILE,
      step=5,
    )
    scale = {'mean': 2.0, 'stddev': 0.5}
    paths.write_json_atomic(work.path / 'rating_scale.json', scale)

  reward_model = run.stage(
    'train_reward',
    name='reward_model',
    version=1,
    params={},
    inputs={'policy': bc},
    build=build,
  )
  return run, bc, reward_model


def start(made, **options):
  run, bc, reward_model = made
  return export.export(
    run, policies=[bc], others=[reward_model], task_feature_lengths=LENGTHS, **options
  )


def test_a_policy_is_there_in_both_formats(made):
  _, bc, _ = made
  found = start(made)
  assert found.name == 'export_bc' and found.results['model'] == 'bc'
  config = policies.load_config(bc.path)
  params = checkpoints.load_params(checkpoints.latest_checkpoint(bc.path))
  for name in ('huggingface', 't5x'):
    initial.assert_equal(initial.restore(found.path / name, config), params)
  assert initial_checkpoint.model_config(found.path / 'huggingface') == config
  text = (found.path / 't5x' / 'model.gin').read_text()
  assert f"'{found.path}/t5x/checkpoint_0'" in text  # where it lies when it is done
  assert not list(found.path.glob('huggingface/reward*'))
  assert start(made) == found  # reused


def test_a_reward_model_keeps_its_head(made):
  _, _, reward_model = made
  found = start(made, policy='reward_model')
  assert found.name == 'export_reward_model'
  latest = checkpoints.latest_checkpoint(reward_model.path)
  params = checkpoints.load_params(latest)
  config = policies.load_config(reward_model.path)
  body = {k: v for k, v in params.items() if k not in ('head', 'likelihood')}
  folder = found.path / 'huggingface'
  initial.assert_equal(initial.restore(folder, config), body)
  head = checkpoint_tensors.TensorFile(folder / 'reward_head.safetensors')
  np.testing.assert_array_equal(head['head.kernel'], params['head']['kernel'])
  weight = params['likelihood']['weight']
  np.testing.assert_array_equal(head['likelihood.weight'], weight)
  assert paths.read_json(folder / 'reward.json')['mean'] == 2.0
  whole = checkpoints.load_params(found.path / 't5x' / 'checkpoint_5')
  jax.tree.map(np.testing.assert_array_equal, whole, params)
  # Hence it is not taken for a policy.
  with pytest.raises(ValueError, match="holds parameter 'head/bias'"):
    initial.restore(found.path / 't5x', config)


def test_other_formats_replace_what_was_there(made):
  first = start(made)
  only = start(made, formats=('huggingface',), dtype='bfloat16')
  assert only.name == first.name and not (only.path / 't5x').exists()
  tensors = checkpoint_tensors.open_tensors(only.path / 'huggingface')
  assert tensors['shared.weight'].dtype.name == 'bfloat16'
  scalable = start(made, formats=['t5x'], layout='scalable')
  shapes = checkpoints.stored_shapes(scalable.path / 't5x' / 'checkpoint_0')
  assert 'relpos_bias' in shapes['encoder']['encoder']
  config = policies.load_config(made[1].path)
  params = checkpoints.load_params(checkpoints.latest_checkpoint(made[1].path))
  initial.assert_equal(initial.restore(scalable.path / 't5x', config), params)


def test_what_cannot_be_exported_is_named(made):
  with pytest.raises(ValueError, match=r"policy 'best' is not .* bc, reward_model"):
    start(made, policy='best')
  for formats in ((), ('t5x', 'onnx')):
    with pytest.raises(ValueError, match=r'formats=.* must be some of'):
      start(made, formats=formats)

"""What the plan says a run compiles, against what its stages execute."""

import gin
import jax
import jax.numpy as jnp
import pytest

from rest_jax import main
from rest_jax.models import quantisation
from rest_jax.planning import memory, run_programs
from rest_jax.rewards import learned
from rest_jax.stages import artifact
from tests import minimal_run
from tests.planning import stand_ins

PPO = 'gin_configs/experiments/algorithms/ppo.gin'
BEST_OF_N = 'gin_configs/best_of_n.gin'
ONLINE = (
  'ONLINE_BATCH = 4',
  'ONLINE_SOURCES = 8',
  'ONLINE_GROUP = 2',
  'ONLINE_SAMPLES = 32',
  'evaluate.evaluate.beams = 2',
)
# All lengths are the longest, and some prefix trees the largest.
SHORT = (
  "TASK_FEATURE_LENGTHS = {'inputs': 16, 'targets': 16}",
  'VOCAB_SIZE = 500',
  'NUM_TRAIN = 400',
  'NUM_TEST = 60',
  'REWARD_STEPS = 2',
  'rating/grow.grow.num_sources = 16',
  'rating/grow.grow.num_samples = 12',
  'train_reward.train_reward.batch_size = 32',
  'train_reward.train_reward.held_out_fraction = 0.3',
)


def planned(model_dir, *bindings, files=(PPO, BEST_OF_N), **options):
  """A run after its algorithm has gone through it."""
  given = [*minimal_run.BINDINGS, f'MODEL_DIR = {str(model_dir)!r}', *bindings]
  main.parse_gin([minimal_run.GIN_FILE, *files], given)
  run = gin.get_configurable(artifact.Run)(**options)
  gin.query_parameter('ALGORITHM/macro.value').scoped_configurable_fn(run)
  return run


def names(found):
  return [program.name for program in found.programs.values()]


@pytest.fixture
def texts(tmp_path):
  """A folder that takes the text of whatever JAX compiles."""
  folder = tmp_path / 'texts'
  jax.config.update('jax_dump_ir_to', str(folder))
  yield folder
  jax.config.update('jax_dump_ir_to', '')


def test_a_run_executes_what_is_planned(tmp_path, monkeypatch, texts):
  executed = stand_ins.Executed()
  executed.install(monkeypatch)
  # As if each call had enough to score for whole batches.
  monkeypatch.setattr(learned, '_batch_of', lambda total, fewest, most: most)
  run = planned(
    tmp_path / 'run',
    *ONLINE,
    *SHORT,
    files=(PPO,),
    only=frozenset('ingest supervise grow score train_reward online evaluate'.split()),
  )
  left = [e.artifact.name for e in run.history if not e.artifact.finished]
  assert left == ['report']
  found = run_programs.of_run(run)
  assert not found.problems
  plan = {
    stand_ins.signature(program.trace()): program.name
    for program in found.programs.values()
  }
  assert len(plan) == len(found.programs)
  assert not [name for key, name in plan.items() if key not in executed.networks]
  # Shorter lengths, smaller trees and the like have programs of the same functions.
  networks = {name for (name, _), network in executed.networks.items() if network}
  assert networks == {name for name, _ in plan}
  # Nothing else that was compiled has a matrix product.
  compiled = list(texts.rglob('*.mlir'))
  assert compiled
  assert not [path.name for path in compiled if 'dot_general' in path.read_text()]


def test_online_evaluation_and_best_of_n_have_their_programs(tmp_path):
  pool = 'POOL_SAMPLES = 16'
  run = planned(tmp_path / 'x', *ONLINE, pool, dry_run=True)
  found = run_programs.of_run(run)
  assert not found.problems
  assert sorted(names(found)) == [
    'beam encode [4, 24]',
    'beam extend [4, 2, 24]',
    'beam step [4, 2, 24, 24]',
    'divergence [32, 2, 24, 24]',
    'online annotation [4, 2, 24, 24]',
    'online step [4, 2, 24, 24]',
    'sampler encode [1, 24]',
    'sampler extend [8, 1, 24]',
    'sampler step [8, 1, 24, 24]',
    'sampler step [8, 1, 24, 24] greedy',
    'scorer encode [128, 24]',
    'scorer encode [32, 24]',
    'scorer trees [32, 128, 24]',
    'scorer trees [8, 128, 24]',
    'supervise held-out batch [8, 1, 24, 24]',
    'supervise step [8, 1, 24, 24]',
    'train_reward step [8, 4, 24, 24]',
  ]
  by_name = {program.name: identity for identity, program in found.programs.items()}
  executions = {(use.artifact, use.program): use.executions for use in found.uses}
  # 32 candidates in phases of 8 x 2, two updates each.
  assert executions['online', by_name['online step [4, 2, 24, 24]']] == 2 * 2
  assert executions['online', by_name['online annotation [4, 2, 24, 24]']] == 2 * 2
  # Of 24 test sources, 4 at a time, a token in each turn.
  beam = by_name['beam step [4, 2, 24, 24]']
  assert executions['evaluate_online', beam] == 24 / 4 * 24
  pools = by_name['scorer trees [32, 128, 24]']
  assert executions['best_of_n_bc', pools] == 24 * 16 * 24 / (32 * 128)
  # The greedy decoder has one candidate for each source.
  greedy = found.programs[by_name['sampler step [8, 1, 24, 24] greedy']]
  assert greedy.size == 1
  # The reward model and BC lie beside it.
  assert greedy.held_bytes == memory.by_stage(run)['evaluate_online'].others
  # What trains lies beside its own sampling: a critic, the optimiser's moments, the
  # best of both, the reference and the reward model.
  sampler = found.programs[by_name['sampler step [8, 1, 24, 24]']]
  assert sampler.held_bytes > 4 * greedy.held_bytes


def test_grow_from_fewer_bits_is_compiled_as_such(tmp_path):
  run = planned(tmp_path / 'x', files=(), dry_run=True)
  before = memory.by_stage(run)['grow_2'].parameters
  grown = next(e for e in run.history if e.artifact.name == 'grow_2')
  grown.params['quantisation'] = quantisation.Int8()
  found = run_programs.of_run(run)
  step = next(p for p in found.programs.values() if p.name.endswith('24] int8'))
  kinds = {leaf.dtype for leaf in jax.tree.leaves(step.trace().args_info)}
  assert jnp.dtype('int8') in kinds
  # The other samplers, Improve's and evaluation's, have the policy as it is.
  assert 'sampler step [8, 1, 24, 24]' in names(found)
  assert {use.artifact for use in found.uses if use.program == step.identity} == {
    'grow_2'
  }
  assert memory.by_stage(run)['grow_2'].parameters < before


def test_a_score_by_fewer_bits_is_compiled_as_such(tmp_path):
  run = planned(tmp_path / 'x', files=(), dry_run=True)
  before = memory.by_stage(run)['score_2'].parameters
  scored = next(e for e in run.history if e.artifact.name == 'score_2')
  scored.params['quantisation'] = quantisation.Bfloat16()
  found = run_programs.of_run(run)
  name = 'scorer trees [32, 128, 24] bfloat16'
  trees = next(p for p in found.programs.values() if p.name == name)
  kinds = {leaf.dtype for leaf in jax.tree.leaves(trees.trace().args_info)}
  assert jnp.dtype('bfloat16') in kinds
  assert {use.artifact for use in found.uses if use.program == trees.identity} == {
    'score_2'
  }
  assert memory.by_stage(run)['score_2'].parameters < 0.6 * before


def test_a_reward_model_that_reads_references_has_longer_sources(tmp_path):
  reference = 'gin_configs/reference_reward.gin'
  run = planned(tmp_path / 'x', files=(reference,), dry_run=True)
  found = names(run_programs.of_run(run))
  # 'source: ', ' reference: ' and 24 + 24 tokens; a byte, and a word's beginning.
  length = 8 + 1 + 12 + 1 + 24 - 1 + 24
  assert f'train_reward step [8, 4, {length}, 24]' in found
  assert f'scorer trees [32, 128, {length}]' in found
  assert 'sampler step [8, 1, 24, 24]' in found
  longer = memory.by_stage(run)['reward_model'].flops
  assert longer > memory.by_stage(run)['bc'].flops


def test_what_the_mesh_does_not_allow_is_a_problem_with_its_remedy(tmp_path):
  run = planned(tmp_path / 'x', *ONLINE, dry_run=True)
  online = next(e for e in run.history if e.artifact.name == 'online')
  online.cut['num_microbatches'] = 3
  found = run_programs.of_run(run)
  assert [name for name, _ in found.problems] == ['online']
  assert 'make it a multiple of 3' in found.problems[0][1]
  assert 'beam step [4, 2, 24, 24]' in names(found)

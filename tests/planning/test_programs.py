"""The programs of the smallest run, on eight described devices that are CPUs."""

import gin
import jax
import pytest

from rest_jax import main
from rest_jax.planning import (
  compiled_text,
  precompile,
  precompile_table,
  run_programs,
  tpu,
  training_programs,
)
from rest_jax.planning import programs as programs_lib
from rest_jax.stages import artifact
from rest_jax.training import mesh as mesh_lib
from tests import minimal_run
from tests.planning import estimates

CHIP = tpu.CHIPS['v5e']


def planned(tmp_path, *bindings):
  main.parse_gin(
    [minimal_run.GIN_FILE],
    [*minimal_run.BINDINGS, f'MODEL_DIR = {str(tmp_path / "run")!r}', *bindings],
  )
  with mesh_lib.described_devices(jax.devices()[:1]):
    run = gin.get_configurable(artifact.Run)(dry_run=True)
    gin.query_parameter('ALGORITHM/macro.value').scoped_configurable_fn(run)
  return run


def of_name(found, start):
  return next(p for p in found.programs.values() if p.name.startswith(start))


def test_every_stage_that_computes_has_its_programs(tmp_path):
  found = run_programs.of_run(planned(tmp_path))
  names = sorted(program.name for program in found.programs.values())
  assert names == [
    'divergence [32, 2, 24, 24]',
    'improve step [8, 2, 24, 24]',
    'sampler encode [1, 24]',
    'sampler extend [8, 1, 24]',
    'sampler step [8, 1, 24, 24]',
    'sampler step [8, 1, 24, 24] greedy',
    'scorer encode [128, 24]',
    'scorer encode [32, 24]',  # of train_reward's held-out ratings, by its batch size
    'scorer trees [32, 128, 24]',
    'scorer trees [8, 128, 24]',
    'supervise held-out batch [8, 1, 24, 24]',
    'supervise step [8, 1, 24, 24]',
    'train_reward step [8, 4, 24, 24]',
  ]
  assert not found.problems
  assert not (tmp_path / 'run').exists()


def test_a_program_compiles_from_shapes_alone(tmp_path):
  found = run_programs.of_run(planned(tmp_path))
  program = of_name(found, 'divergence')
  estimate = precompile.compile_program(program, CHIP)
  assert estimate.fits(CHIP)
  assert estimate.flops > 0
  assert estimate.tokens == 32 * 2 * 24
  assert estimate.held_bytes == program.held_bytes > 4 * 300 * 16  # the reward model


def test_a_step_counts_what_lies_beside_it(tmp_path):
  found = run_programs.of_run(planned(tmp_path))
  # The best parameters, those at the start and the reward model's; BC has the first.
  improve, supervise = (of_name(found, f'{s} step') for s in ('improve', 'supervise'))
  assert 3 * supervise.held_bytes < improve.held_bytes < 3.1 * supervise.held_bytes
  # A sampler of Improve's parameters has the optimiser's state there as well.
  held = of_name(found, 'sampler step').held_bytes
  assert held > improve.held_bytes


def test_a_sampler_is_read_for_one_turn_of_its_loop(tmp_path, monkeypatch):
  asked, texts = [], []

  def read(text, **options):
    asked.append(options)
    return compiled_text.Text((), 10, 5, 1)

  monkeypatch.setattr(compiled_text, 'read', read)
  found = run_programs.of_run(planned(tmp_path))
  for name in ('sampler encode', 'sampler step', 'scorer encode'):
    precompile.compile_program(of_name(found, name), CHIP, keep_text=texts.append)
  turns = [options['one_turn'] for options in asked]
  assert turns == [False, True, False]  # encoding, the decoder's loop, the scorer
  assert all('ENTRY' in text for text in texts)


def test_a_batch_that_the_mesh_does_not_divide_is_named_with_the_remedy():
  mesh = jax.sharding.AbstractMesh((2, 4, 3), mesh_lib.AXES)
  shape = (24, 1, 8, 8)
  batch = training_programs.abstract_batch('supervise', object(), shape, mesh)
  assert batch['encoder_input_tokens'].sharding.shard_shape((24, 8)) == (3, 8)
  with pytest.raises(ValueError, match=r'24 sources in 2 microb.* a multiple of 16'):
    training_programs.abstract_batch('supervise', object(), shape, mesh, 2)


def test_a_problem_is_kept_and_the_rest_is_planned(tmp_path):
  run = planned(tmp_path)
  few = next(e for e in run.history if e.artifact.name == 'bc')
  few.cut['num_microbatches'] = 3
  found = run_programs.of_run(run)
  assert [name for name, _ in found.problems] == ['bc']
  assert 'multiple of 3' in found.problems[0][1]
  assert any(p.name.startswith('improve') for p in found.programs.values())


def test_hours_follow_from_executions():
  one = estimates.estimate(compute_s=1.5, links_s=0.5)
  unknown = estimates.estimate(compute_s=None, links_s=0.5)
  uses = [
    programs_lib.Use('a', 'one', 3600.0, 2),
    programs_lib.Use('a', 'one', 1800.0),
    programs_lib.Use('a', 'unknown', 0.0),
    programs_lib.Use('b', 'unknown', 1.0),
    programs_lib.Use('c', 'one', None),
  ]
  hours = precompile.stage_hours(uses, {'one': one, 'unknown': unknown})
  assert hours == {'a': 3600 * 2 / 2 / 3600 + 1.0, 'b': None, 'c': None}


def test_hours_of_a_small_run_are_not_none_at_all(capsys):
  precompile_table.print_hours({'a': 0.003, 'b': 2.5, 'c': None}, 64)
  lines = capsys.readouterr().out.splitlines()
  rows = [[cell.strip() for cell in line.split('│')[1:-1]] for line in lines]
  assert ['a', '< 0.01', '0.19'] in rows and ['b', '2.50', '160.00'] in rows
  assert ['c', 'unknown', 'unknown'] in rows
  assert ['all that is known', '2.50', '160.19'] in rows


@pytest.mark.parametrize('seconds', [-1.0, 0.0, float('inf'), float('nan')])
def test_an_estimate_that_is_not_positive_is_unknown(seconds):
  assert precompile.known_seconds({'optimal_seconds': seconds}) is None
  assert precompile.known_seconds({'optimal_seconds': 2.0}) == 2.0


def test_what_is_held_beside_a_program_counts_in_whether_it_fits():
  room = int(precompile.USABLE * CHIP.memory_bytes)
  assert estimates.estimate(used_bytes=room).fits(CHIP)
  assert not estimates.estimate(used_bytes=room + 1).fits(CHIP)
  refused = estimates.estimate(argument_bytes=None, used_bytes=room)
  assert not refused.fits(CHIP)

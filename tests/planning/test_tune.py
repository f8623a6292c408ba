"""Which meshes are tried, and how they are ranked, with a compiler of our own."""

import dataclasses

import gin
import jax
import pytest

from rest_jax import main
from rest_jax.planning import tpu, tune
from rest_jax.stages import artifact
from rest_jax.training import mesh as mesh_lib
from tests import minimal_run
from tests.planning import estimates


def test_shapes_multiply_to_the_chips_and_stay_inside_a_host():
  found = tune.mesh_shapes(16, chips_per_host=4, heads=6)
  assert {dataclasses.astuple(one) for one in found} == {
    (16, 1, 1), (8, 2, 1), (4, 4, 1), (2, 8, 1), (1, 16, 1),
    (8, 1, 2), (4, 2, 2), (2, 4, 2), (1, 8, 2),
  }  # fmt: skip
  assert dataclasses.astuple(found[0]) == (16, 1, 1)  # the narrowest first


def planned(tmp_path):
  main.parse_gin(
    [minimal_run.GIN_FILE],
    [*minimal_run.BINDINGS, f'MODEL_DIR = {str(tmp_path / "run")!r}'],
  )
  with mesh_lib.described_devices(jax.devices()[:1]):
    run = gin.get_configurable(artifact.Run)(dry_run=True)
    gin.query_parameter('ALGORITHM/macro.value').scoped_configurable_fn(run)
  return run


def test_the_batch_of_the_best_grows_until_it_does_not_fit(tmp_path):
  compiled = []

  def compile_program(program, chip):
    compiled.append(program.name)
    fits = '[32, ' not in program.name  # four times the batch of 8
    # A larger batch takes longer, but not in proportion.
    return estimates.estimate(
      program=program.name,
      argument_bytes=1 if fits else None,
      tokens=program.tokens,
      compute_s=program.tokens**0.5,
      links_s=0.0,
      chips=1,
    )

  tried = tune.rank(planned(tmp_path), 'v5e:2x2', compile_program=compile_program)
  assert [one.batch_scale for one in tried] == [2.0, 1.0, 4.0]
  assert [one.fits(tpu.CHIPS['v5e']) for one in tried] == [True, True, False]
  assert tried[0].tokens_per_s == pytest.approx((16 * 2 * 24) ** 0.5)
  assert sum(name.startswith('sampler step') for name in compiled) == 1  # once for all


def test_both_programs_have_to_fit():
  slow = tune.Tried(
    mesh_lib.MeshConfig(4), 1.0, estimates.estimate(), estimates.estimate()
  )
  lost = dataclasses.replace(slow, train=estimates.estimate(argument_bytes=None))
  chip = tpu.CHIPS['v5e']
  assert slow.fits(chip)
  assert not lost.fits(chip)
  assert not dataclasses.replace(slow, sample=None).fits(chip)

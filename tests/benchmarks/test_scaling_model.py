"""The model's arithmetic on one made-up row, by hand."""

import pytest

from benchmarks import scaling_model
from rest_jax.planning import tpu

ROW = {
  'size': 'base',
  'topology': 'v5p:4x4x4',
  'program_kind': 'improve step',
  'fits': True,
  'chips': 64,
  'mesh': {'data': 16, 'fsdp': 4, 'model': 1},
  'compute_s': 0.1,
  'flops': 0.5 * 989e12 * 0.2,
  'tokens': 6400,
  'collectives': [
    {'kind': 'all-gather', 'group': 4, 'times': 3, 'bytes': 60_000_000_000},
    {'kind': 'all-reduce', 'group': 16, 'times': 3, 'bytes': 16_000_000_000},
  ],
}


def test_only_groups_along_the_data_axis_grow():
  sizes = [one.group for one in scaling_model.collectives_at(ROW, 64)]
  assert sizes == [4, 64]


def test_a_step_lies_between_all_overlapped_and_nothing_at_half_speed():
  step = scaling_model.tpu_step(ROW, 64)
  links = (60e9 * 3 / 4 + 2 * 16e9 * 15 / 16) / tpu.CHIPS['v5p'].link_bytes_per_s
  assert links == pytest.approx(0.125)
  assert step.best == pytest.approx(0.125)  # more than the compute
  assert step.worst == pytest.approx(0.1 + 2 * 0.125)


def test_without_a_data_axis_nothing_is_reduced_along_it():
  step = scaling_model.tpu_step(ROW, 4)
  assert step.best == pytest.approx(0.1)
  assert step.worst == pytest.approx(0.1 + 2 * 45e9 / 600e9)


def test_strong_scaling_shares_out_the_compute_and_not_the_collectives():
  whole, half = (scaling_model.tpu_step(ROW, 64, share=s) for s in (1.0, 0.5))
  assert whole.worst - half.worst == pytest.approx(0.05)


def test_without_fsdp_nodes_of_gpus_reduce_an_eighth_over_the_network():
  row = {**ROW, 'mesh': {'data': 16, 'fsdp': 1, 'model': 1}}
  row['collectives'] = row['collectives'][1:]
  one, two = scaling_model.gpu_step(row, 8), scaling_model.gpu_step(row, 16)
  assert one.best == pytest.approx(0.2)
  assert one.worst == pytest.approx(0.2 * 5 / 3 + 2 * 2 * 16e9 * 7 / 8 / 450e9)
  assert two.worst - one.worst == pytest.approx(2 * (2 * 2e9 / 2) / 50e9)


def test_with_fsdp_each_gpu_reduces_its_part_over_the_network():
  one, two = scaling_model.gpu_step(ROW, 8), scaling_model.gpu_step(ROW, 16)
  assert one.worst == pytest.approx(0.2 * 5 / 3 + 2 * 45e9 / 450e9)
  assert two.worst - one.worst == pytest.approx(2 * (2 * 16e9 / 2) / 50e9)


def test_the_reference_is_the_largest_that_fits():
  larger = {**ROW, 'chips': 1024, 'fits': False}
  smaller = {**ROW, 'chips': 4}
  unspread = {**ROW, 'chips': 256, 'mesh': {'data': 1, 'fsdp': 256, 'model': 1}}
  found = scaling_model.reference([smaller, ROW, larger, unspread], 'base', 'v5p')
  assert found is ROW
  assert scaling_model.reference([ROW], 'base', 'v5e') is None


def test_the_table_has_a_line_for_each_count():
  lines = scaling_model.table([ROW], ['base', 'xl']).splitlines()
  assert len(lines) == 2 + len(scaling_model.CHIPS['v5p'])  # fsdp of 4 fits no node
  row = {**ROW, 'mesh': {'data': 8, 'fsdp': 8, 'model': 1}}
  lines = scaling_model.table([row], ['base']).splitlines()
  assert len(lines) == 2 + 3 + len(scaling_model.GPUS)  # not on 4 chips

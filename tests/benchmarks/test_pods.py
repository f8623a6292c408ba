"""The cases of the table and how a row is shown; nothing is compiled."""

import pytest

from benchmarks import pods
from rest_jax.planning import tpu
from tests.planning import estimates


def test_every_case_spreads_over_its_chips_and_xxl_is_not_tried_on_four():
  found = list(pods.cases(pods.SIZES, pods.TOPOLOGIES))
  assert {case.size for case in found} == set(pods.SIZES)
  for case in found:
    axes = dict(part.split('=') for part in case.mesh.split(', '))
    chips = 1
    for size in case.topology.partition(':')[2].split('x'):
      chips *= int(size)
    assert chips % (int(axes['fsdp']) * int(axes['model'])) == 0
    assert int(axes['model']) <= 4  # chips of a host
    tpu.chip_of(case.topology)
  assert ('xxl', 'v5e:2x2') not in {case[:2] for case in found}


@pytest.mark.parametrize(
  'changes, shown',
  [({}, '| 500 |'), ({'by_cycles': True}, '~500'), ({'at_peak': True}, '>500')],
)
def test_a_row_shows_where_its_time_is_from(changes, shown):
  one = estimates.estimate(compute_s=0.5, links_s=0.25, **changes)
  row = {**vars(one), 'size': 'base', 'topology': 'v5e:2x2', 'fits': True}
  row['collectives'] = [{'kind': 'all-reduce', 'group': 4, 'times': 1, 'bytes': 2e9}]
  row['tokens_per_s'] = one.tokens_per_s
  line = pods.table([row]).splitlines()[-1]
  assert shown in line
  assert 'all-reduce 3' in line
  assert line.endswith(f'| {8 / 0.75 / 4:,.0f} |')


def test_without_libtpu_it_says_so(monkeypatch, tmp_path):
  def absent():
    raise ValueError('the TPU compiler is not installed')

  monkeypatch.setattr(tpu, 'require_libtpu', absent)
  with pytest.raises(ValueError, match='not installed'):
    pods.main(['--json', str(tmp_path / 'x.jsonl')])

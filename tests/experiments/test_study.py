"""Studies: what a study file may bind, and two variants run from end to end."""

import json

import pytest

from rest_jax.experiments import study
from tests import minimal_run


def test_variants_hold_files_and_bindings():
  (one,), rows = study.study({'GOLD (sum)': ('a/b.gin', 'NUM_SAMPLES = 4')})
  assert one == study.Variant('GOLD (sum)', ('a/b.gin',), ('NUM_SAMPLES = 4',))
  assert one.folder == 'gold_sum' and rows == 'all'


@pytest.mark.parametrize(
  ('variants', 'rows', 'told'),
  [
    ({}, 'all', 'at least one variant'),
    ({'A b': (), 'a-b': ()}, 'all', 'a folder of its own'),
    ({'A': ()}, 'best', "'all' or 'last'"),
  ],
)
def test_a_study_that_cannot_be_right_is_refused(variants, rows, told):
  with pytest.raises(ValueError, match=told):
    study.study(variants, rows)


def test_a_study_runs_its_variants_and_tells_what_failed(tmp_path_factory, tmp_path):
  finished = minimal_run.finished(tmp_path_factory)
  file = tmp_path / 'study.gin'
  file.write_text(
    'from __gin__ import dynamic_registration\n'
    'from rest_jax.experiments import study\n'
    "study.study.variants = {'one': ('THRESHOLDS = ((0.6,),)',),\n"
    "  'none': ('gin_configs/experiments/algorithms/bc.gin',),\n"
    "  'wrong': ('THRESHOLDS = ((0.01,),)',)}\n"
  )
  (tmp_path / 'seed_0').symlink_to(finished)
  bindings = [
    *minimal_run.BINDINGS,
    f'MODEL_DIR = {str(tmp_path / "study")!r}',
    f'REUSE_FROM = ({str(tmp_path)!r} "/seed_{{seed}}",)',
  ]
  status = study.run_study(
    str(file), [minimal_run.GIN_FILE], bindings, ['.'], seeds=[0]
  )
  assert status == 1  # one of three failed
  found = json.loads((tmp_path / 'study' / 'study.json').read_text())
  assert list(found['failures']) == ['wrong, seed 0']
  assert 'must exceed the mean reward' in found['failures']['wrong, seed 0']
  names = [(p['variant'], p['name']) for p in found['policies']]
  assert names == [
    ('one', 'BC (G=0, I=0)'),
    ('one', 'ReST (G=1, I=1)'),
    ('none', 'BC (G=0, I=0)'),
  ]
  # The first Improve is the finished run's own, and nothing was made again.
  assert not (tmp_path / 'study' / 'one' / 'seed_0' / 'grow_1').exists()
  costs = [p['device_seconds'] for p in found['policies']]
  assert costs[0] == costs[2] == 0 < costs[1]
  text = (tmp_path / 'study' / 'study.md').read_text()
  assert '| one | ReST (G=1, I=1) | 1 |' in text and 'wrong, seed 0 failed' in text

"""Everything runs where TensorFlow and SeqIO are not installed, and the same."""

import numpy as np
import pytest

from tests import minimal_run


@pytest.fixture(scope='module')
def streamed(tmp_path_factory):
  """The MODEL_DIR of a run whose Improve steps were streamed through SeqIO."""
  return minimal_run.finished(tmp_path_factory)


@pytest.fixture(scope='module')
def bare(streamed, tmp_path_factory):
  """Grow, score and Improve where nothing can import TensorFlow or SeqIO."""
  model_dir = tmp_path_factory.mktemp('bare') / 'run'
  model_dir.mkdir()
  for name in ('corpus', 'bc', 'rating_samples', 'ratings', 'reward_model'):
    (model_dir / name).symlink_to(streamed / name)
  done = minimal_run.start_program(
    model_dir, '--block', 'rest', 'THRESHOLDS = ((0.6,),)'
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert done.stdout.splitlines()[-1] == 'loaded'
  return model_dir


def test_every_stage_ran_without_them(bare):
  built = {path.name for path in bare.iterdir() if not path.is_symlink()}
  assert {'grow_1', 'score_1', 'improve_1_1', 'evaluate_improve_1_1', 'report'} <= built


def test_the_artifacts_are_those_of_the_other_run(bare, streamed):
  expected = minimal_run.fingerprints(streamed)
  for name, fingerprint in minimal_run.fingerprints(bare).items():
    assert fingerprint == expected[name], name


def test_improve_is_bit_equal_to_the_one_streamed_through_seqio(bare, streamed):
  one = minimal_run.params(streamed, 'improve_1_1')
  two = minimal_run.params(bare, 'improve_1_1')
  start = minimal_run.params(streamed, 'bc')
  assert any((start[key] != one[key]).any() for key in one)
  for key in one:
    np.testing.assert_array_equal(one[key], two[key], err_msg=key)
  names = ('curves', 'steps', 'best_step', 'filter')
  streamed_results = minimal_run.record(streamed, 'improve_1_1')['results']
  bare_results = minimal_run.record(bare, 'improve_1_1')['results']
  assert {n: bare_results[n] for n in names} == {n: streamed_results[n] for n in names}

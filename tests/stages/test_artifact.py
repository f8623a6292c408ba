"""Artifacts: complete or absent, reused by fingerprint, never overwritten."""

import json

import jax
import pytest

from rest_jax.stages import artifact
from rest_jax.training import mesh as mesh_lib

TEXT = 'abcdefgh'


def _run(model_dir, **options):
  mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
  return artifact.Run(str(model_dir), mesh=mesh, **options)


class Builder:
  """A stage that writes TEXT a letter a file, and dies before a given one."""

  def __init__(self, die_before=None):
    self.die_before = die_before
    self.written = []

  def __call__(self, work):
    for letter in TEXT:
      if letter == self.die_before:
        work.save_cost()
        raise KeyboardInterrupt
      file = work.path / 'letters' / letter
      if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_text(letter)
        self.written.append(letter)
    (work.scratch / 'notes').write_text('not for the artifact')
    work.results['letters'] = len(TEXT)


def _stage(run, build=None, *, stage='spell', name='word', inputs=None, **options):
  given = {'version': 1, 'params': {'steps': 5}} | options
  build = build or Builder()
  return run.stage(stage, name=name, inputs=inputs or {}, build=build, **given)


def _files(directory):
  return {
    str(path.relative_to(directory)): path.read_bytes()
    for path in directory.rglob('*')
    if path.is_file()
  }


def test_a_finished_artifact_holds_its_files_and_its_record(tmp_path):
  found = _stage(_run(tmp_path, config_text='A = 1'))
  assert found.finished and found.results == {'letters': 8}
  assert set(_files(tmp_path / 'word')) == {
    *(f'letters/{letter}' for letter in TEXT),
    'stage.json',
    'config.gin',
  }
  assert (tmp_path / 'word' / 'config.gin').read_text() == 'A = 1'
  assert not list((tmp_path / '.work').iterdir())
  record = found.record
  assert record['params'] == {'steps': 5} and record['cost']['attempts'] == 1
  assert record['fingerprint'] == found.fingerprint
  assert {'jax', 'numpy', 'python'} <= set(record['versions'])


def test_the_same_settings_are_reused_and_nothing_is_built(tmp_path):
  first = _stage(_run(tmp_path))
  run, again = _run(tmp_path), Builder()
  assert _stage(run, again) == first
  assert again.written == []
  assert [entry.outcome for entry in run.history] == ['reused']


@pytest.mark.parametrize(
  ('change', 'told'),
  [
    ({'params': {'steps': 6}}, 'params.steps was 5 and is 6'),
    ({'version': 2}, 'version was 1 and is 2'),
    ({'stage': 'shout'}, "stage was 'spell' and is 'shout'"),
  ],
)
def test_other_settings_are_refused_and_nothing_is_touched(tmp_path, change, told):
  _stage(_run(tmp_path))
  before = _files(tmp_path)
  build = Builder()
  with pytest.raises(ValueError, match=told):
    _stage(_run(tmp_path), build, **change)
  assert _files(tmp_path) == before and build.written == []


def test_another_input_is_another_artifact(tmp_path):
  one = _stage(_run(tmp_path), name='one')
  two = _stage(_run(tmp_path), name='two', params={'steps': 6})
  _stage(_run(tmp_path), inputs={'source': one})
  with pytest.raises(ValueError, match=r'inputs.source was') as error:
    _stage(_run(tmp_path), inputs={'source': two})
  assert one.fingerprint in str(error.value) and two.fingerprint in str(error.value)


def _truncate(path):
  (path / 'letters' / 'c').write_text('')


def _remove(path):
  (path / 'letters' / 'c').unlink()


@pytest.mark.parametrize(
  ('damage', 'told'),
  [
    (_truncate, 'letters/c has 0 bytes, stage.json says 1 bytes'),
    (_remove, 'letters/c is missing'),
    (lambda path: (path / 'stage.json').write_text('{"ver'), 'stage.json is damaged'),
    (lambda path: (path / 'stage.json').write_text('{}'), 'stage.json is damaged'),
    (lambda path: (path / 'stage.json').write_text('[]'), 'stage.json is damaged'),
    (lambda path: (path / 'stage.json').write_bytes(b'\xff'), 'stage.json is damaged'),
  ],
)
def test_a_damaged_artifact_is_named_and_left_alone(tmp_path, damage, told):
  _stage(_run(tmp_path))
  damage(tmp_path / 'word')
  before = _files(tmp_path)
  with pytest.raises(ValueError, match=told):
    _stage(_run(tmp_path))
  assert _files(tmp_path) == before


def test_a_directory_that_is_no_artifact_is_left_alone(tmp_path):
  (tmp_path / 'word').mkdir()
  (tmp_path / 'word' / 'thesis.txt').write_text('years of work')
  with pytest.raises(ValueError, match=r'word exists and has no stage.json'):
    _stage(_run(tmp_path))
  assert (tmp_path / 'word' / 'thesis.txt').read_text() == 'years of work'


def test_what_a_kill_leaves_is_gone_on_from(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    _stage(_run(tmp_path), Builder(die_before='d'))
  assert not (tmp_path / 'word').exists()
  second = Builder()
  found = _stage(_run(tmp_path), second)
  assert second.written == list('defgh')
  assert found.record['cost']['attempts'] == 2
  _stage(_run(tmp_path / 'fresh'))
  expected = _files(tmp_path / 'fresh' / 'word')
  assert _files(tmp_path / 'word').keys() == expected.keys()


def test_a_kill_just_before_publication_does_no_harm(tmp_path, monkeypatch):
  def die(source, target):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(artifact.paths, 'publish', die)
    _stage(_run(tmp_path))
  assert list(tmp_path.glob('.work/*/artifact/stage.json'))
  _stage(_run(tmp_path))
  again = Builder()
  assert _stage(_run(tmp_path), again).finished and again.written == []


def test_work_of_other_settings_is_not_gone_on_from(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    _stage(_run(tmp_path), Builder(die_before='d'))
  second = Builder()
  _stage(_run(tmp_path), second, params={'steps': 6})
  assert second.written == list(TEXT)


def test_the_cost_of_all_attempts_is_added(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    _stage(_run(tmp_path), Builder(die_before='d'))
  (saved,) = (tmp_path / '.work').glob('*/scratch/host_0/cost.json')
  earlier = json.loads(saved.read_text()) | {'seconds': 1000.0, 'device_seconds': 40.0}
  saved.write_text(json.dumps(earlier))
  cost = _stage(_run(tmp_path)).record['cost']
  assert 1000 < cost['seconds'] < 1100 and cost['device_seconds'] == 40


def test_another_runs_artifact_serves_in_place(tmp_path):
  first = _stage(_run(tmp_path / 'a'))
  run, build = _run(tmp_path / 'b', reuse_from=[str(tmp_path / 'a')]), Builder()
  found = _stage(run, build)
  assert found.path == first.path and build.written == []
  assert not (tmp_path / 'b' / 'word').exists()
  # With other settings it is no hindrance, and stays as it was.
  other = _stage(run, build, params={'steps': 6})
  assert other.path == run.model_dir / 'word' and first.results == {'letters': 8}


def test_a_dry_run_plans_all_and_builds_nothing(tmp_path):
  run, build = _run(tmp_path / 'new', dry_run=True), Builder()
  first = _stage(run, build, size={'samples': 8})
  second = _stage(run, build, name='next', inputs={'source': first})
  assert not first.finished and not second.finished and build.written == []
  assert [entry.outcome for entry in run.history] == ['planned', 'planned']
  assert run.history[0].size == {'samples': 8}
  assert not (tmp_path / 'new').exists()


def test_only_some_stages_may_build(tmp_path):
  run = _run(tmp_path, only=frozenset({'spell', 'by_name'}))
  built = _stage(run)
  not_allowed = _stage(run, stage='shout', name='loud')
  assert _stage(run, stage='shout', name='by_name').finished
  # An allowed stage whose input is not there yet is planned too.
  waiting = _stage(run, name='waiting', inputs={'source': not_allowed})
  assert (built.finished, not_allowed.finished, waiting.finished) == (
    True,
    False,
    False,
  )
  outcomes = [entry.outcome for entry in run.history]
  assert outcomes == ['built', 'planned', 'built', 'planned']


def test_only_a_view_is_replaced(tmp_path):
  _stage(_run(tmp_path), replaceable=True)
  found = _stage(_run(tmp_path), replaceable=True, params={'steps': 6})
  assert found.finished and found.record['params'] == {'steps': 6}


def test_no_other_stages_artifact_is_replaced(tmp_path):
  _stage(_run(tmp_path))
  with pytest.raises(ValueError, match=r"stage was 'spell' and is 'shout'"):
    _stage(_run(tmp_path), stage='shout', replaceable=True)


def test_a_file_of_the_users_is_not_replaced_by_a_view(tmp_path):
  (tmp_path / 'word').mkdir()
  (tmp_path / 'word' / 'thesis.txt').write_text('years of work')
  with pytest.raises(ValueError, match=r'no stage.json'):
    _stage(_run(tmp_path), replaceable=True)
  assert (tmp_path / 'word' / 'thesis.txt').exists()

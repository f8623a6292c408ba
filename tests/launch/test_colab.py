"""The notebook runs from its first cell to its last, small, and shows its figures."""

import json
import os
import pathlib

import nbclient
import nbformat
import pytest

from tests import minimal_run

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
NOTEBOOK = ROOT / 'launch' / 'colab' / 'rest_quickstart.ipynb'
SMALLER = (*minimal_run.BINDINGS, 'THRESHOLDS = ((0.6,),)')


def printed(cell):
  return ''.join(o.text for o in cell.outputs if o.output_type == 'stream')


def pictures(cell):
  return [o for o in cell.outputs if 'image/png' in o.get('data', {})]


@pytest.fixture(scope='module')
def executed(tmp_path_factory):
  """The cells by name, and the folder that they wrote."""
  work = tmp_path_factory.mktemp('notebook')
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  patch = pytest.MonkeyPatch()
  with patch.context() as m:
    settings = {
      'WORK': str(work),
      'SMALLER': [f'--gin_bindings={binding}' for binding in SMALLER],
    }
    m.setenv('REST_JAX_NOTEBOOK', json.dumps(settings))
    m.setenv(
      'PYTHONPATH', os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    )
    m.delenv('MPLBACKEND', raising=False)  # the kernel has its own
    where = {'metadata': {'path': work}}
    nbclient.NotebookClient(
      notebook, timeout=280, kernel_name='python3', resources=where
    ).execute()
  if save := os.environ.get('REST_JAX_SAVE_NOTEBOOK'):
    nbformat.write(notebook, save)
  return {cell.id: cell for cell in notebook.cells}, work


def test_it_is_kept_without_what_it_printed():
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  nbformat.validate(notebook)
  for cell in notebook.cells:
    if cell.cell_type == 'code':
      assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.slow
def test_it_runs_the_main_job_and_shows_figures(executed):
  cells, work = executed
  assert 'reward' in printed(cells['first']) and (work / 'first' / 'report').exists()
  assert len(pictures(cells['show'])) >= 2
  assert 'source_id' in printed(cells['candidates'])


@pytest.mark.slow
def test_the_own_reward_runs_again_only_what_depends_on_it(executed):
  cells, work = executed
  assert len(pictures(cells['own'])) >= 2
  built = {path.parent.name for path in (work / 'own').glob('*/stage.json')}
  assert {'score_1', 'improve_1_1', 'report'} <= built
  assert built.isdisjoint({'corpus', 'bc', 'grow_1'})
  first, own = (
    json.loads((work / run / 'score_1' / 'stage.json').read_text())
    for run in ('first', 'own')
  )
  assert first['fingerprint'] != own['fingerprint']


@pytest.mark.slow
def test_it_ends_in_the_command_for_a_pod(executed):
  cells, _ = executed
  assert 'queued-resources create rest' in printed(cells['pod'])

"""What T5X's users type: it works, or one sentence says what to write instead."""

import re

import gin
import pytest

from rest_jax import main, t5x_names
from rest_jax.stages import fingerprint
from rest_jax.training import objectives
from tests import minimal_run

LOCAL = 'gin_configs/runs/local.gin'
TASK = 'gin_configs/data/seqio_task.gin'
DOCUMENT = (minimal_run.ROOT / 'docs' / 'gin.md').read_text()
HEADER = 'from __gin__ import dynamic_registration\n'


def rows(section):
  """Names in the first column of a table of docs/gin.md."""
  text = DOCUMENT.split(f'## {section}\n')[1].split('\n## ')[0]
  firsts = [line.split('|')[1] for line in text.splitlines() if line.startswith('| `')]
  return [name for first in firsts for name in re.findall('`([^`]+)`', first)]


def binding_names():
  """The full names: a row may leave out the class of the row before."""
  names, last = [], ''
  for name in rows('Bindings'):
    own = name.lstrip('.')
    last = last if name.startswith('.') else name.rsplit('.', 1)[0]
    full = f'{last}.{own}' if name.startswith('.') else name
    names.append(full.replace('.*', '.dtype'))
  return names


def refused(files, bindings=()):
  with pytest.raises(ValueError) as error:
    main.parse_gin(files, bindings)
  assert '\n' not in str(error.value)
  return str(error.value)


@pytest.mark.parametrize('name', rows('Macros'))
def test_each_macro_of_the_table_works_or_says_what_to_write(name):
  try:
    main.parse_gin([LOCAL], [f'{name} = 1'])
  except ValueError as error:
    assert str(error).startswith(f"{name} is a macro of T5X's: ")
    assert name in t5x_names.MACROS
  else:
    assert gin.query_parameter(f'{name}/macro.value') == 1
    assert re.search(rf'%{name}\b', gin.config_str()), 'nothing reads it'


@pytest.mark.parametrize('name', binding_names())
def test_each_binding_of_the_table_says_what_to_write(name, tmp_path):
  sentence = f"{name} is a name of T5X's: "
  assert sentence in refused([LOCAL], [f'{name} = 1'])
  assert sentence in refused([LOCAL], [f'some_scope/t5x.{name} = 1']).replace(
    't5x.', ''
  )
  file = tmp_path / 'run.gin'
  file.write_text(f'{HEADER}{name} = 1\n')
  assert f'run.gin: line 2: {sentence}' in refused([LOCAL, str(file)])


def test_the_table_of_bindings_is_read():
  names = binding_names()
  assert 'partitioning.PjitPartitioner.dcn_mesh_shape' in names and len(names) > 10


@pytest.mark.parametrize('name', sorted(t5x_names.MACROS))
def test_a_macro_of_t5xs_in_a_file_is_no_silent_nothing(name, tmp_path):
  file = tmp_path / 'run.gin'
  file.write_text(f'{name} = None\n')
  said = refused([LOCAL, str(file)])
  assert name in said and t5x_names.MACROS[name] in said and 'nothing reads' in said
  file.write_text(f'{name} = 3\nNUM_SAMPLES = %{name}\n')  # a macro of the user's own
  main.parse_gin([LOCAL, str(file)], [])


def test_a_task_file_takes_t5xs_macros():
  main.parse_gin(
    [LOCAL, TASK], ["MIXTURE_OR_TASK_NAME = 'a'", 'USE_CACHED_TASKS = True']
  )
  from rest_jax.data import corpora

  corpus = gin.get_configurable(corpora.SeqioTask)()
  assert corpus.name == 'a' and corpus.use_cached
  assert 'use_cached' not in corpus.identity()


def test_z_loss_and_label_smoothing_reach_behavioural_cloning():
  main.parse_gin([LOCAL], ['Z_LOSS = 1e-4', 'LABEL_SMOOTHING = 0.1'])
  made = gin.get_configurable(objectives.BehaviouralCloning)()
  assert made == objectives.BehaviouralCloning(label_smoothing=0.1, z_loss=1e-4)
  # Without them artifacts keep the fingerprints that they had without the macros.
  main.parse_gin([LOCAL], [])
  made = gin.get_configurable(objectives.BehaviouralCloning)()
  plain = fingerprint.describe(objectives.BehaviouralCloning())
  assert fingerprint.describe(made) == plain


@pytest.mark.parametrize(
  'text',
  [
    'from t5x import partitioning\npartitioning.PjitPartitioner.num_partitions = 2\n',
    'import t5x.examples.t5.network\n',
    "include 't5x/configs/runs/finetune.gin'\n",
    "include 'gin_configs/t5x/improve.gin'\n",
  ],
)
def test_a_file_for_t5x_is_told_apart(tmp_path, text):
  file = tmp_path / 'run.gin'
  file.write_text(HEADER + text)
  assert 'gin_configs/runs/' in refused([LOCAL, str(file)])
  assert 'gin_configs/runs/' in refused(['t5x/examples/t5/t5_1_1/base.gin'])


def test_an_installed_t5x_changes_nothing(tmp_path, monkeypatch):
  """A file that imports it would parse, and bind what no stage calls."""
  (tmp_path / 't5x').mkdir()
  (tmp_path / 't5x' / '__init__.py').write_text('')
  (tmp_path / 't5x' / 'partitioning.py').write_text('def f(num=1): pass\n')
  monkeypatch.syspath_prepend(tmp_path)
  file = tmp_path / 'run.gin'
  file.write_text(HEADER + 'from t5x import partitioning\npartitioning.f.num = 2\n')
  outer = tmp_path / 'outer.gin'
  outer.write_text(f"include '{file}'\n")
  for name in (file, outer):
    assert f'{name} imports t5x' in refused([LOCAL, str(name)])


def test_other_mistakes_are_reported_as_before(tmp_path):
  for binding in ('grow.grow.num_sample = 1', 'optimiser.Adafactor.nothing = 1'):
    with pytest.raises(ValueError, match='--gin_bindings') as error:
      main.parse_gin([LOCAL], [binding])
    assert 'T5X' not in str(error.value)
  folder = tmp_path / 't5x'  # a user's folder of that name
  folder.mkdir()
  (folder / 'run.gin').write_text('A = = 3\n')
  with pytest.raises(ValueError, match='run') as error:
    main.parse_gin([LOCAL, str(folder / 'run.gin')], [])
  assert 'T5X' not in str(error.value)


@pytest.mark.parametrize('mode', sorted(t5x_names.RUN_MODES))
def test_run_modes_of_t5xs_name_ours(mode, tmp_path):
  main.parse_gin([LOCAL], [f'MODEL_DIR = {str(tmp_path / "x")!r}'])
  with pytest.raises(
    ValueError, match=rf"unknown run mode '{mode}': it is T5X's; .*rest"
  ):
    main.run(mode, dry_run=True)


def test_the_advice_names_what_there_is():
  """Bindings, macros and files that a sentence tells to write exist."""
  main.parse_gin([LOCAL, TASK], [])
  macros = main._macros()
  sentences = ' '.join([*t5x_names.MACROS.values(), *t5x_names.BINDINGS.values()])
  told = set(re.findall(r'\b[A-Z][A-Z_]{4,}\b', sentences))
  assert told <= macros and len(told) > 10
  for name in re.findall(r'\b([a-z_]+\.\w+\.\w+)\b', sentences):
    gin.bind_parameter(name, 1)
  for file in re.findall(r'gin_configs/[\w/.]+', f'{sentences} {t5x_names.OWN_FILES}'):
    assert (minimal_run.ROOT / file.rstrip('.')).exists(), file

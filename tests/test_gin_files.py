"""Every gin file parses, and the plan of every run file can be made."""

import gin
import pytest

from rest_jax import main
from tests import minimal_run

CONFIGS = minimal_run.ROOT / 'gin_configs'
MODELS = sorted((CONFIGS / 'models').glob('*.gin'))
DATA = sorted((CONFIGS / 'data').glob('*.gin'))
RUNS = sorted((CONFIGS / 'runs').glob('*.gin'))
# What only a user can know, by the end of the macro's name.
SPLITS = ('TRAIN_FILES', 'VALIDATION_FILES', 'TEST_FILES')
RATINGS = 'source\tcandidate\trating\nein Hund\ta dog\t5\n'


def _name(path):
  return path.stem


def _required():
  """Returns the names of the macros that are still to be set."""
  return {
    name
    for (name, selector), bound in gin.config._CONFIG.items()
    if selector == 'gin.macro' and str(bound.get('value')) == '%gin.REQUIRED'
  }


@pytest.fixture
def placeholders(tmp_path):
  """Bindings for macros without a default, and tiny files behind them."""
  for language, text in (('de', 'ein Hund\n'), ('en', 'a dog\n')):
    (tmp_path / f'text.{language}').write_text(text)
  (tmp_path / 'ratings.tsv').write_text(RATINGS)
  pair = (str(tmp_path / 'text.de'), str(tmp_path / 'text.en'))
  known = {name: pair for name in SPLITS}
  known |= {
    'MODEL_DIR': str(tmp_path / 'run'),
    'SOURCE_FILES': pair[0],
    'RATINGS_FILE': str(tmp_path / 'ratings.tsv'),
    'VOCAB_SIZE': 500,
  }

  def bindings():
    return [f'{name} = {known[name]!r}' for name in sorted(_required() & set(known))]

  return bindings


def test_there_are_files_of_every_kind():
  assert MODELS and DATA and RUNS


@pytest.mark.parametrize('path', MODELS, ids=_name)
def test_a_model_file_makes_a_model_beside_rest(path):
  main.parse_gin(['gin_configs/rest.gin', str(path)], [])
  if 'VOCAB_SIZE' in _required():
    main.parse_gin(['gin_configs/rest.gin', str(path)], ['VOCAB_SIZE = 500'])
  # The same macro sizes the embedding and the vocabulary that ingest trains.
  size = gin.query_parameter('VOCAB_SIZE/macro.value')
  from rest_jax.models import t5

  config = gin.get_configurable(t5.T5Config)()
  assert config.vocab_size == size > 0


@pytest.mark.parametrize('path', DATA, ids=_name)
def test_a_data_file_binds_what_rest_needs(path):
  files = ['gin_configs/rest.gin', 'gin_configs/models/tiny.gin']
  main.parse_gin(files, [])
  needed = {'CORPUS', 'RATER'}
  assert needed <= _required()
  main.parse_gin([*files, str(path)], [])
  assert needed - _required(), 'it binds neither a corpus nor a rater'


@pytest.mark.parametrize('path', RUNS, ids=_name)
def test_the_plan_of_a_run_file_can_be_printed(path, placeholders, capsys):
  main.parse_gin([str(path)], [])
  main.parse_gin([str(path)], placeholders())
  if unknown := _required():
    pytest.fail(f'give placeholders for {sorted(unknown)}')
  main.require_macros()
  assert main.run('rest', dry_run=True) == 0
  printed = capsys.readouterr().out
  for name in ('corpus', 'bc', 'reward_model', 'grow_1', 'improve_1_1', 'report'):
    assert name in printed


@pytest.mark.parametrize('path', RUNS, ids=_name)
def test_the_thresholds_of_a_run_file_rise(path):
  from rest_jax import rest

  main.parse_gin([str(path)], [])
  rest.check_thresholds(gin.query_parameter('THRESHOLDS/macro.value'))

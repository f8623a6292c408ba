"""Every gin file parses, and the plan of every run file can be made."""

import ast
import json

import gin
import pytest

from rest_jax import main, rest
from rest_jax.experiments import study
from rest_jax.models import t5
from rest_jax.rewards import consensus, inputs
from rest_jax.stages import fingerprint
from tests import minimal_run
from tests.interop import example_checkpoints
from tests.stages import untrained

pytestmark = pytest.mark.slow  # a plan of each run file

CONFIGS = minimal_run.ROOT / 'gin_configs'
MODELS = sorted((CONFIGS / 'models').glob('*.gin'))
DATA = sorted((CONFIGS / 'data').glob('*.gin'))
RUNS = sorted((CONFIGS / 'runs').glob('*.gin'))
# Each is given after a run file; a study names several.
OVERLAYS = sorted((CONFIGS / 'experiments').glob('*/*.gin'))
STUDIES = sorted((CONFIGS / 'experiments').glob('*.gin'))
REWARDS = sorted((CONFIGS / 'rewards').glob('*.gin'))
ONLINE = [
  CONFIGS / 'experiments' / 'algorithms' / f'{n}.gin' for n in ('ppo', 'grpo', 'rloo')
]
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
def parse(tmp_path):
  """Parses files with what only a user can know, and tiny files behind it."""
  for language, text in (('de', 'ein Hund\n'), ('en', 'a dog\n')):
    (tmp_path / f'text.{language}').write_text(text)
  (tmp_path / 'ratings.tsv').write_text(RATINGS)
  pair = (str(tmp_path / 'text.de'), str(tmp_path / 'text.en'))
  always = {f'{split}_FILES': pair for split in ('TRAIN', 'VALIDATION', 'TEST')}
  always |= {
    'MODEL_DIR': str(tmp_path / 'run'),
    'SOURCE_FILES': pair[:1],
    **{
      name: str(tmp_path / 'ratings.tsv')
      for name in ('RATINGS_FILE', 'HELD_OUT_RATINGS_FILE', 'TEST_RATINGS_FILE')
    },
  }
  needed = {
    'VOCAB_SIZE': 500,
    'TFDS_NAME': 'wmt16_translate/ro-en:1.0.0',
    'SOURCE_LANGUAGE': 'ro',
    'TARGET_LANGUAGE': 'en',
    'MIXTURE_OR_TASK_NAME': 'nothing',
  }
  reward = tmp_path / 'reward.gin'
  reward.write_text(
    'from __gin__ import dynamic_registration\n'
    'from tests import minimal_run\n'
    'REWARD_FN = @minimal_run.reward\n'
  )

  def parse_all(*files):
    main.parse_gin(files, [])
    if 'REWARD_FN' in _required():
      files = [*files, str(reward)]
      main.parse_gin(files, [])
    given = {k: v for k, v in always.items() if k in main._macros()}
    given |= {k: v for k, v in needed.items() if k in _required()}
    main.parse_gin(files, [f'{name} = {value!r}' for name, value in given.items()])
    if unknown := _required():
      pytest.fail(f'this test has no placeholder for {sorted(unknown)}')
    main.require_macros()

  return parse_all


def test_there_are_files_of_every_kind():
  assert MODELS and DATA and RUNS and REWARDS and OVERLAYS and STUDIES


@pytest.mark.parametrize('path', MODELS, ids=_name)
def test_a_model_file_makes_a_model_beside_rest(path):
  main.parse_gin(['gin_configs/rest.gin', str(path)], [])
  if 'VOCAB_SIZE' in _required():
    main.parse_gin(['gin_configs/rest.gin', str(path)], ['VOCAB_SIZE = 500'])
  # The same macro sizes the embedding and the vocabulary that ingest trains.
  size = gin.query_parameter('VOCAB_SIZE/macro.value')
  config = gin.get_configurable(t5.T5Config)()
  assert config.vocab_size == size > 0


@pytest.mark.parametrize('path', DATA, ids=_name)
def test_the_plan_of_a_data_file_can_be_printed(path, parse, capsys):
  files = ['gin_configs/rest.gin', 'gin_configs/models/tiny.gin']
  main.parse_gin([*files, str(path)], [])
  if 'CORPUS' in _required():  # it adds to a corpus
    files.append('gin_configs/data/everyday.gin')
  parse(*files, str(path))
  assert main.run('rest', dry_run=True) == 0
  assert 'reward_model' in capsys.readouterr().out


@pytest.mark.parametrize('path', RUNS, ids=_name)
def test_the_plan_of_a_run_file_can_be_printed(path, parse, capsys):
  parse(str(path))
  assert main.run('rest', dry_run=True) == 0
  printed = capsys.readouterr().out
  for name in ('corpus', 'bc', 'reward_model', 'grow_1', 'improve_1_1', 'report'):
    assert name in printed


@pytest.fixture
def reward_files(tmp_path):
  """For each file of rewards, the files and bindings that a user would give."""
  finished = untrained.run(tmp_path / 'finished')
  corpus = untrained.corpus(finished, num_validation=12, num_test=12)
  reward_model = untrained.reward_model(finished, corpus).path
  scores = tmp_path / 'normaliser.json'
  scores.write_text(json.dumps({'kind': 'min_max', 'low': 0.0, 'high': 6.0}))
  golden = minimal_run.ROOT / 'tests' / 'goldens' / 'regression_mt5'
  small = tmp_path / 'small.gin'  # the golden's vocabulary is smaller than mT5's
  small.write_text(
    'from __gin__ import dynamic_registration\n'
    'from rest_jax.rewards import regression_checkpoint\n'
    "regression_checkpoint.Convention.template = '{candidate}'\n"
    'regression_checkpoint.Convention.token = 91\n'
    'CONVENTION = @regression_checkpoint.Convention()\n'
  )
  own = tmp_path / 'own.gin'
  own.write_text(
    'from __gin__ import dynamic_registration\n'
    'from rest_jax.rewards import text\n'
    "include 'gin_configs/rewards/scorer.gin'\n"
    'SCORER = @text.ChrfReward()\n'
  )
  runs = {
    f'{which}_{kind}': str(path)
    for which in ('FIRST', 'SECOND')
    for kind, path in (('REWARD_MODEL', reward_model), ('SCORES', scores))
  }
  return {
    'scorer': ([str(own)], {}),
    'metricx': (
      ['gin_configs/rewards/metricx.gin', str(small)],
      {'CHECKPOINT': str(golden)},
    ),
    'external': (
      ['gin_configs/rewards/external.gin'],
      {'COMMAND': ('python', 'my_scorer.py'), 'COMMAND_VERSION': '1'},
    ),
    'ensemble': (['gin_configs/rewards/ensemble.gin'], runs),
    'random': (['gin_configs/rewards/random.gin'], {}),
    'shuffled': (
      ['gin_configs/rewards/shuffled.gin'],
      {'REWARD_MODEL': str(reward_model)},
    ),
  }


def test_a_reward_file_binds_its_scorer_to_all_stages_that_score(
  reward_files, tmp_path, capsys
):
  assert set(reward_files) == {path.stem for path in REWARDS}
  kinds = {
    'scorer': 'chrf',
    'metricx': 'regression_checkpoint',
    'external': 'external',
    'ensemble': 'penalised',
    'random': 'random',
    'shuffled': 'shuffled_in_groups',
  }
  for name, (files, macros) in reward_files.items():
    macros['MODEL_DIR'] = str(tmp_path / 'run')
    bindings = [f'{key} = {value!r}' for key, value in macros.items()]
    main.parse_gin(['gin_configs/runs/local.gin', *files], bindings)
    main.require_macros()
    assert main.run('rest', dry_run=True) == 0
    assert 'score_1' in capsys.readouterr().out
    scorers = [
      fingerprint.describe(gin.get_bindings(f'{stage}.{stage}')['scorer'])
      for stage in ('score', 'improve', 'evaluate', 'online', 'best_of_n')
    ]
    assert all(scorer == scorers[0] for scorer in scorers)
    assert scorers[0]['scorer'] == kinds[name]


@pytest.mark.parametrize('path', OVERLAYS, ids=lambda p: f'{p.parent.stem}/{p.stem}')
def test_the_plan_of_an_experiment_can_be_printed(path, parse, capsys):
  parse('gin_configs/runs/local.gin', str(path))
  assert main.run('rest', dry_run=True) == 0
  assert 'evaluate_bc' in capsys.readouterr().out


@pytest.mark.parametrize('path', STUDIES, ids=_name)
def test_the_variants_of_a_study_can_be_read(path, parse):
  main.parse_gin([str(path)], [])
  variants, _ = gin.get_configurable(study.study)()
  for variant in variants:
    for file in variant.files:
      assert (minimal_run.ROOT / file).is_file(), (variant.name, file)
    main.parse_gin(['gin_configs/runs/local.gin', *variant.files], variant.bindings)


@pytest.mark.parametrize('path', STUDIES, ids=_name)
def test_a_study_names_no_variant_twice(path):
  # A dictionary keeps the last of two equal keys, and says nothing.
  tables = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Dict)]
  assert tables
  for table in tables:
    names = [ast.literal_eval(key) for key in table.keys if key is not None]
    assert sorted(names) == sorted(set(names))


def test_a_refresh_joins_a_run(parse, capsys, tmp_path):
  parse('gin_configs/runs/local.gin', 'gin_configs/refresh.gin')
  assert main.run('rest', dry_run=True) == 0
  printed = capsys.readouterr().out
  for name in ('score_2_stale', 'chosen_2', 'ratings_2', 'reward_model_2'):
    assert name in printed
  assert 'chosen_1' not in printed


def test_a_refresh_by_people_waits_for_their_ratings(parse, capsys, tmp_path):
  files = ['gin_configs/runs/local.gin', 'gin_configs/refresh_by_people.gin']
  ratings = str(tmp_path / 'ratings_{grow_step}.tsv')
  main.parse_gin(files, [f'RATINGS = {ratings!r}', f'MODEL_DIR = {str(tmp_path)!r}'])
  assert main.run('rest', dry_run=True) == 0
  printed = capsys.readouterr().out
  assert 'waits for' in printed and 'reward_model_2' in printed


def test_best_of_n_joins_a_run(parse, capsys):
  parse('gin_configs/runs/local.gin', 'gin_configs/best_of_n.gin')
  assert main.run('rest', dry_run=True) == 0
  printed = capsys.readouterr().out
  assert 'best_of_n_bc' in printed and 'best_of_n_improve_2_2' in printed
  assert 'best_of_n_improve_1_1' not in printed


def test_best_of_n_of_every_policy(parse, capsys):
  parse('gin_configs/runs/local.gin', 'gin_configs/best_of_n.gin')
  gin.parse_config('BEST_OF_N_EVERY_POLICY = True')
  assert main.run('best_of_n', dry_run=True) == 0
  printed = capsys.readouterr().out
  for policy in ('bc', 'improve_1_1', 'improve_2_1', 'improve_2_2'):
    assert f'best_of_n_{policy}' in printed


@pytest.mark.parametrize('path', ONLINE, ids=_name)
def test_best_of_n_joins_an_online_learner(path, parse, capsys):
  parse('gin_configs/runs/local.gin', str(path), 'gin_configs/best_of_n.gin')
  assert main.run('best_of_n', dry_run=True) == 0
  printed = capsys.readouterr().out
  assert 'best_of_n_bc' in printed and 'best_of_n_online' in printed


def test_best_of_n_takes_another_utility(parse, tmp_path):
  own = tmp_path / 'own.gin'
  own.write_text(
    'from __gin__ import dynamic_registration\n'
    'from tests.rewards import test_consensus\n'
    'MBR_UTILITY = @test_consensus.same_length\n'
  )
  found = []
  for files in ((), (str(own),)):
    parse('gin_configs/runs/local.gin', 'gin_configs/best_of_n.gin', *files)
    utility = gin.get_bindings('best_of_n.best_of_n')['utility']
    scorer = consensus.MinimumBayesRiskReward(utility=utility)
    found.append(scorer.identity()['utility'])
  assert found[0] == 'chrf'
  assert found[1]['function'].endswith('test_consensus.same_length')


@pytest.mark.parametrize('path', ONLINE, ids=_name)
@pytest.mark.parametrize('run', RUNS, ids=_name)
def test_an_online_learner_takes_the_place_of_improve(path, run, parse, capsys):
  parse(str(run), str(path))
  assert main.run('rest', dry_run=True) == 0
  printed = capsys.readouterr().out
  assert 'evaluate_online' in printed and 'improve' not in printed
  objective = gin.query_parameter('online.online.objective').scoped_configurable_fn()
  assert objective.name == path.stem.upper()


@pytest.mark.parametrize('path', RUNS, ids=_name)
def test_value_models_join_a_run(path, parse, capsys):
  parse(str(path), 'gin_configs/value.gin')
  assert main.run('rest', dry_run=True) == 0
  assert 'value_1' in capsys.readouterr().out


def test_rating_by_hand_joins_a_run(parse, capsys):
  parse('gin_configs/runs/local.gin', 'gin_configs/annotate.gin')
  assert main.run('human_evaluation', dry_run=True) == 0
  assert 'human_evaluation' in capsys.readouterr().out
  # Its mode serves what is finished: here nothing is.
  with pytest.raises(ValueError, match='no finished evaluation to rate'):
    main.run('annotate', dry_run=False)
  with pytest.raises(ValueError, match='human_evaluation can build nothing yet'):
    main.run('human_evaluation', dry_run=False)


def test_rating_by_hand_joins_another_algorithm(parse, capsys):
  algorithm = 'gin_configs/experiments/algorithms/ppo.gin'
  parse('gin_configs/runs/local.gin', algorithm, 'gin_configs/annotate.gin')
  assert main.run('human_evaluation', dry_run=True) == 0
  assert 'human_evaluation' in capsys.readouterr().out


def test_rating_by_hand_comes_with_its_file(parse):
  parse('gin_configs/runs/local.gin')
  with pytest.raises(ValueError, match=r'another --gin_file=gin_configs/annotate\.gin'):
    main.run('annotate', dry_run=False)
  with pytest.raises(ValueError, match=r'another --gin_file=gin_configs/annotate\.gin'):
    main.run('human_evaluation', dry_run=False)


@pytest.mark.parametrize('policy', ['None', '"bc"', '"reward_model"'])
def test_export_joins_a_run(parse, capsys, policy):
  parse('gin_configs/runs/local.gin', 'gin_configs/export.gin')
  gin.parse_config(f'EXPORT_POLICY = {policy}')
  assert main.run('export', dry_run=True) == 0
  last = {'None': 'improve_2_2'}.get(policy, policy.strip('"'))
  assert f'export_{last}' in capsys.readouterr().out


def test_a_hugging_face_model_joins_a_run(parse, tmp_path, capsys):
  config = example_checkpoints.CONFIG
  example_checkpoints.write_huggingface(
    tmp_path / 'model', example_checkpoints.make_params(config), config
  )
  (tmp_path / 'model' / 'tokenizer_config.json').write_text(
    '{"tokenizer_class": "ByT5Tokenizer"}'
  )
  files = ['gin_configs/runs/local.gin', 'gin_configs/huggingface.gin']
  main.parse_gin(files, [])
  assert _required() == {'INITIAL_CHECKPOINT_PATH'}
  main.parse_gin(
    files,
    [
      f'INITIAL_CHECKPOINT_PATH = {str(tmp_path / "model")!r}',
      f'MODEL_DIR = {str(tmp_path / "run")!r}',
    ],
  )
  main.require_macros()
  assert main.run('supervise', dry_run=True) == 0
  assert f'{t5.count_parameters(config):,}' in capsys.readouterr().out


def test_a_reward_model_may_read_references(parse):
  parse('gin_configs/runs/local.gin', 'gin_configs/reference_reward.gin')
  name = 'rest_jax.stages.train_reward.train_reward.reward_input'
  reference = gin.query_parameter(name)
  assert reference.configurable.wrapped is inputs.SourceAndReference


@pytest.mark.parametrize(
  ('run', 'name'), [('local', 'probe_reward_model'), ('own_reward', 'probe_reward')]
)
def test_probes_join_a_run_before_its_first_grow(parse, capsys, run, name):
  parse(f'gin_configs/runs/{run}.gin', 'gin_configs/probe.gin')
  assert main.run('rest', dry_run=True) == 0
  printed = capsys.readouterr().out
  assert printed.index('reward_model ') < printed.index(f'{name} ')
  assert printed.index(f'{name} ') < printed.index('grow_1 ')


def test_probes_of_a_refreshed_reward_model_come_before_its_rewards(parse, capsys):
  files = [f'gin_configs/{name}.gin' for name in ('runs/local', 'refresh', 'probe')]
  parse(*files)
  assert main.run('rest', dry_run=True) == 0
  printed = capsys.readouterr().out
  order = ('reward_model_2 ', 'probe_reward_model_2 ', 'score_2 ')
  places = [printed.index(f' {name}') for name in order]
  assert places == sorted(places)


@pytest.mark.parametrize('path', RUNS, ids=_name)
def test_the_thresholds_of_a_run_file_rise(path):
  main.parse_gin([str(path)], [])
  rest.check_thresholds(gin.query_parameter('THRESHOLDS/macro.value'))

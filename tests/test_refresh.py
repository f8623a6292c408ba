"""A refresh of the reward model between Grow steps, with ratings by people."""

import json
import types

import pytest

from rest_jax import refresh
from rest_jax.data import group_store, judgements
from tests import minimal_run
from tests.stages import untrained

FILES = ('gin_configs/refresh_by_people.gin', 'gin_configs/probe.gin')
PAGE = (*FILES, 'gin_configs/annotate.gin')


@pytest.fixture
def chosen_and_refreshed(tmp_path):
  """Calls refresh with stages that take notes, as often as it is told."""
  calls = {}

  def note(run, *, name, **inputs):
    calls[name] = inputs
    return types.SimpleNamespace(name=name)

  def call(only=None, *, dry_run=False):
    current = untrained.run(tmp_path / 'run', only=only, dry_run=dry_run)
    chosen = untrained.run(tmp_path / 'run').stage(
      'choose',
      name='chosen_2',
      version=1,
      params={},
      inputs={},
      build=lambda work: None,
    )
    refreshed = refresh.refresh(
      current,
      grow_step=2,
      corpus=None,
      policy=None,
      samples=None,
      rewards=None,
      reward_model='old',
      rated=(refresh.RatedSet('s', 'r'),),
      choose=lambda run, **_: chosen,
      train_reward=note,
      read_ratings=note,
      ratings_file=str(tmp_path / 'ratings_{grow_step}.tsv'),
    )
    return current, refreshed

  return calls, call


def test_a_refresh_by_people_says_what_to_rate_and_goes_on_when_it_is_rated(
  chosen_and_refreshed, tmp_path
):
  calls, call = chosen_and_refreshed
  told = r'ratings_2\.tsv is not there.*chosen_2.*annotate\.gin.*to_rate\.tsv'
  with pytest.raises(ValueError, match=told):
    call()
  assert not calls
  (tmp_path / 'ratings_2.tsv').write_text('there')
  current, (reward_model, rated) = call()
  assert reward_model.name == 'reward_model_2' and len(rated) == 2
  assert calls['ratings_2']['path'] == str(tmp_path / 'ratings_2.tsv')
  fit = calls['reward_model_2']
  assert fit['reward_model'] == 'old' and fit['samples'][0] == 's'
  # Of what was chosen the file may hold a part, in another order.
  assert [one.name for one in fit['samples'][1:]] == ['ratings_2']
  assert [getattr(one, 'name', one) for one in fit['ratings']] == ['r', 'ratings_2']
  assert current.awaited is None


@pytest.mark.parametrize(
  'options', [{'only': frozenset()}, {'only': frozenset({'score'})}, {'dry_run': True}]
)
def test_where_no_ratings_are_needed_they_are_planned(chosen_and_refreshed, options):
  calls, call = chosen_and_refreshed
  current, _ = call(**options)
  planned = calls['reward_model_2']['ratings'][-1]
  assert (planned.name, planned.finished) == ('ratings_2', False)
  assert current.awaited.samples.name == 'chosen_2'
  assert current.awaited.file.endswith('ratings_2.tsv')


def test_ratings_that_were_read_and_are_gone_are_asked_back(
  chosen_and_refreshed, tmp_path
):
  (tmp_path / 'run' / 'ratings_2').mkdir(parents=True)
  with pytest.raises(ValueError, match=r'read from .*ratings_2\.tsv, which is gone'):
    chosen_and_refreshed[1](only=frozenset())


def test_a_refresh_needs_one_kind_of_rater():
  arguments = dict.fromkeys(
    ('grow_step', 'corpus', 'policy', 'samples', 'rewards', 'reward_model', 'rated')
  )
  with pytest.raises(ValueError, match='either rate'):
    refresh.refresh(None, **arguments, choose=None, train_reward=None)


def _shown(rater):
  """{source: texts} of all that the page shows a rater."""
  tasks = [
    rater.task(place).json()['task'] for place in range(rater.task().json()['total'])
  ]
  return {t['source']: {c['text'] for c in t['candidates']} for t in tasks}


def _rate(rater, tasks):
  """Rates so many sources by the length of the candidates."""
  for _ in range(tasks):
    for candidate in rater.task().json()['task']['candidates']:
      assert rater.rate(candidate['id'], len(candidate['text']) % 7).status_code == 200


def test_what_was_chosen_is_rated_on_the_page_and_the_run_goes_on(
  tmp_path_factory, tmp_path, monkeypatch, capsys
):
  pytest.importorskip('starlette', reason='comes with the extra `annotate`')
  pytest.importorskip('httpx2', reason="starlette's test client needs it")
  from rest_jax.annotation import server
  from tests.annotation.rater import Rater

  model_dir, file = tmp_path / 'run', tmp_path / 'ratings_2.jsonl'
  bindings = [
    f'REUSE_FROM = ({str(minimal_run.finished(tmp_path_factory))!r},)',
    f'RATINGS = {str(tmp_path / "ratings_{grow_step}.jsonl")!r}',
    "REFRESH_RATER = 'rater'",
    'REFRESH_SOURCES = 3',
    'REFRESH_CANDIDATES = 2',
    'PROBE_SOURCES = 3',
    'PROBE_SAMPLES = 0',
    'THRESHOLDS = ((0.6, 0.7), ())',  # Grow 2 improves nothing
  ]

  def start(mode='rest', files=FILES, **options):
    return minimal_run.start(model_dir, mode, bindings, files=files, **options)

  assert 'ratings_2' in start(dry_run=True)  # nothing is chosen yet
  with pytest.raises(ValueError, match=r'ratings_2\.jsonl is not there'):
    start()
  plan = start(dry_run=True)
  assert 'reward_model_2' in plan and 'waits for' in plan
  capsys.readouterr()
  start('evaluate')  # what needs no ratings
  assert 'ratings_2.jsonl is not there' in capsys.readouterr().err

  def serve_to(visit):
    """The page, until Ctrl-C."""

    def serve(app, *, host, port, ready):
      del host
      ready(port)
      visit(Rater(app, 'anna'))
      raise KeyboardInterrupt

    monkeypatch.setattr(server, 'serve', serve)
    with pytest.raises(KeyboardInterrupt):
      start('annotate', PAGE)
    return capsys.readouterr().err

  chosen = {
    group.source: set(group.texts)
    for group in group_store.iterate_groups(model_dir / 'chosen_2')
  }
  count = sum(map(len, chosen.values()))
  shown = []

  def one_source(rater):
    shown.append(_shown(rater))
    _rate(rater, 1)

  assert f'of {count} candidates are rated' in serve_to(one_source)
  assert shown == [chosen] and not file.exists()
  told = serve_to(lambda rater: _rate(rater, len(chosen) - 1))
  assert f'wrote {count} ratings to {file}' in told
  read = judgements.Ratings(source_id_column='source_id', rater_column='rater')(file)
  assert {(one.source, one.candidate) for one in read} == {
    (source, text) for source, texts in chosen.items() for text in texts
  }
  assert all(one.rating == len(one.candidate) % 7 for one in read)

  assert 'ReST (G=1, I=2)' in start()
  ratings = minimal_run.record(model_dir, 'ratings_2')
  assert ratings['results']['candidates'] == count
  inputs = minimal_run.record(model_dir, 'reward_model_2')['inputs']
  assert ratings['fingerprint'] in json.dumps(inputs)
  first, second = minimal_run.summary(model_dir)['grows']
  assert first['stale_gold_agreement'] is None
  for key, name in (
    ('stale_gold_agreement', 'score_2_stale'),
    ('gold_agreement', 'score_2'),
  ):
    assert (
      second[key] == minimal_run.record(model_dir, name)['results']['gold_agreement']
    )
  assert second['probes']['name'] == 'probe_reward_model_2'
  # Only so can the test tell one from the other.
  assert second['stale_gold_agreement'] != second['gold_agreement']

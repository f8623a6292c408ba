"""From artifacts to a study, from ratings to figures, files and the report."""

import json

import numpy as np
import pytest

from rest_jax.annotation import database, protocol
from rest_jax.data import group_store, judgements
from rest_jax.stages import annotate, human_evaluation
from tests.annotation import study
from tests.stages import untrained

NUM_SOURCES = 4


def _evaluation(current, name, word, reward_mean):
  """What an evaluation leaves, without a policy."""

  def build(work):
    groups = [study.group(i, [f'{word} {i}']) for i in range(NUM_SOURCES)]
    rewards = [np.array([0.1 * i], np.float32) for i in range(NUM_SOURCES)]
    study.write_system(work.path, groups, rewards)
    greedy = [study.group(i, [f'greedy {word} {i}']) for i in range(NUM_SOURCES)]
    group_store.write_group_set(work.path / 'greedy', greedy)
    work.results['reward_mean'] = reward_mean

  return current.stage(
    'evaluate', name=name, version=1, params={'word': word}, inputs={}, build=build
  )


@pytest.fixture
def made(tmp_path):
  """A run with two evaluations."""
  current = untrained.run(tmp_path / 'run')
  evaluations = [
    _evaluation(current, 'evaluate_bc', 'bad', 0.5),
    _evaluation(current, 'evaluate_improve_1_1', 'good', 0.6),
  ]
  return current, evaluations


@pytest.fixture
def begin(monkeypatch):
  """Calls annotate, whose server stops at once."""

  def serve(app, *, host, port, ready):
    del app, host
    ready(port or 4321)

  monkeypatch.setattr(annotate.server, 'serve', serve)

  def start(current, **options):
    annotate.annotate(current, **options)
    return database.Database(annotate.database_path(current, options.get('database')))

  return start


def _rate(kept, raters=('anna', 'ben')):
  """Good candidates get 5, bad ones 3; Ben is stricter by one."""
  for source in kept.items().sources:
    for candidate in source.candidates:
      for severity, rater in enumerate(raters):
        rating = (5 if 'good' in candidate.text else 3) - severity
        kept.rate(
          f'{rater}/{candidate.candidate_id}',
          rater=rater,
          candidate_id=candidate.candidate_id,
          rating=rating,
        )


def test_the_study_is_of_all_finished_evaluations(made, begin, capsys):
  kept = begin(made[0], port=0)
  outputs = kept.items().outputs
  assert {o.system for o in outputs} == {'evaluate_bc', 'evaluate_improve_1_1'}
  assert all(o.reward is not None for o in outputs)
  printed = capsys.readouterr().out
  assert (
    'rate at http://127.0.0.1:4321/\n' in printed and 'annotation.sqlite' in printed
  )


def test_greedy_outputs_have_no_rewards(made, begin):
  kept = begin(made[0], systems=('evaluate_bc/greedy',))
  assert all(o.reward is None for o in kept.items().outputs)
  assert {c.text[:6] for s in kept.items().sources for c in s.candidates} == {'greedy'}


def test_a_grow_is_rated_with_its_score(made, begin):
  current, _ = made

  def grow(work):
    groups = [study.group(i, ['a', 'b']) for i in range(3)]
    study.write_system(work.path, groups)

  def score(work):
    groups = [study.group(i, ['a', 'b']) for i in range(3)]
    study.write_system(work.path, groups, [np.array([1, 2], np.float32)] * 3)

  samples = current.stage(
    'grow', name='grow_1', version=1, params={}, inputs={}, build=grow
  )
  inputs = {'samples': samples}
  current.stage(
    'score', name='score_1', version=1, params={}, inputs=inputs, build=score
  )
  kept = begin(current, systems=('grow_1',), num_candidates=2)
  assert sorted(o.reward for o in kept.items().outputs) == [1, 1, 1, 2, 2, 2]
  _rate(kept)
  found = human_evaluation.human_evaluation(current, evaluations=made[1]).results
  (system,) = found['systems']
  assert system['difference'] is None and system['rating_mean'] == 2.5


def test_other_machines_get_a_token(made, begin, capsys):
  begin(made[0], host='0.0.0.0')
  assert 'http://<this machine>:8765/?token=' in capsys.readouterr().out
  with pytest.raises(ValueError, match='can be guessed'):
    begin(made[0], token='short')


def test_the_same_settings_go_on_and_others_are_refused(made, begin, tmp_path):
  kept = begin(made[0])
  _rate(kept)
  assert begin(made[0]).ratings() == kept.ratings()
  for other in ({'seed': 1}, {'protocol': protocol.Protocol(view='single')}):
    with pytest.raises(ValueError, match='holds ratings of another study: '):
      begin(made[0], **other)
  begin(made[0], seed=1, database=str(tmp_path / 'other.sqlite'))


def test_a_study_goes_on_when_more_policies_are_evaluated(made, begin):
  kept = begin(made[0])
  _evaluation(made[0], 'evaluate_improve_1_2', 'better', 0.7)
  assert begin(made[0]).items() == kept.items()


def test_ratings_of_another_run_are_refused(made, begin, tmp_path):
  _rate(begin(made[0]))
  current = untrained.run(tmp_path / 'other')
  other = _evaluation(current, 'evaluate_bc', 'another', 0.5)
  path = str(annotate.database_path(made[0], None))
  with pytest.raises(ValueError, match='ratings of another evaluate_bc than this run'):
    human_evaluation.human_evaluation(current, evaluations=[other], database=path)


def test_an_unknown_system_lists_those_there_are(made, begin):
  with pytest.raises(ValueError, match=r"'grow_7'.*evaluate_bc, evaluate_improve_1_1"):
    begin(made[0], systems=('grow_7',))
  with pytest.raises(ValueError, match='is not a directory'):
    begin(made[0], systems=('evaluate_bc/beam',))


def test_a_run_without_evaluations_says_so(tmp_path, begin):
  with pytest.raises(ValueError, match='no finished evaluation to rate'):
    begin(untrained.run(tmp_path / 'empty'))


def test_people_are_asked_before_they_are_evaluated(made, begin):
  current, evaluations = made
  with pytest.raises(ValueError, match='no rating yet: rate with --run_mode=annotate'):
    human_evaluation.human_evaluation(current, evaluations=evaluations)
  begin(current)
  with pytest.raises(ValueError, match='no rating yet'):
    human_evaluation.human_evaluation(current, evaluations=evaluations)


def test_the_figures_of_a_study(made, begin):
  current, evaluations = made
  _rate(begin(current))
  results = human_evaluation.human_evaluation(current, evaluations=evaluations).results
  bc, improved = results['systems']
  assert (results['num_raters'], results['num_ratings']) == (2, 4 * NUM_SOURCES)
  assert bc['rating_mean'] == 2.5 and improved['rating_mean'] == 4.5
  assert improved['difference'] == 2.0 and improved['difference_interval'] == [2, 2]
  assert (improved['wins'], improved['win_rate']) == (1.0, 1.0)
  assert bc['difference'] is None and improved['baseline'] == 'evaluate_bc'
  assert (bc['rank_by_humans'], bc['rank_by_reward']) == (2, 2)
  assert improved['reward_mean'] == 0.6
  # Each unit's two ratings differ by 1: as many squared differences as ratings.
  n = 4 * NUM_SOURCES
  pooled = np.repeat([3, 2, 5, 4], NUM_SOURCES)
  expected = ((pooled[:, None] - pooled) ** 2).sum() / (n - 1)
  assert results['agreement']['alpha'] == pytest.approx(1 - n / expected)
  (pair,) = results['agreement']['pairs']
  assert pair['raters'] == ['anna', 'ben'] and pair['spearman'] == pytest.approx(1)
  # Both of a source have the same reward: nothing inside groups.
  assert results['reward_agreement']['pairs'] == 2 * NUM_SOURCES
  assert results['reward_agreement']['spearman_in_groups'] is None


def test_the_files_train_a_reward_model(made, begin):
  current, evaluations = made
  kept = begin(current)
  _rate(kept)
  path = human_evaluation.human_evaluation(current, evaluations=evaluations).path
  for name in ('ratings.tsv', 'ratings.jsonl'):
    read = judgements.Ratings(rater_column='rater')(path / name)
    assert len(read) == 4 * NUM_SOURCES
    assert {r.rating for r in read if 'good' in r.candidate} == {4.0, 5.0}


def test_the_artifact_follows_the_ratings(made, begin):
  current, evaluations = made
  kept = begin(current)
  _rate(kept, raters=('anna',))
  first = human_evaluation.human_evaluation(current, evaluations=evaluations)
  later = untrained.run(current.model_dir)
  again = human_evaluation.human_evaluation(later, evaluations=evaluations)
  assert later.history[-1].outcome == 'reused'
  assert again.fingerprint == first.fingerprint
  _rate(kept)
  more = human_evaluation.human_evaluation(current, evaluations=evaluations)
  assert current.history[-1].outcome == 'built'
  assert more.results['num_raters'] == 2
  assert json.loads(json.dumps(more.results)) == more.results


def test_a_baseline_that_was_not_rated_is_named(made, begin):
  current, evaluations = made
  _rate(begin(current))
  with pytest.raises(ValueError, match="baseline='evaluate_x' was not rated"):
    human_evaluation.human_evaluation(
      current, evaluations=evaluations, baseline='evaluate_x'
    )


def test_a_study_barely_begun_gives_what_it_can(made, begin):
  current, evaluations = made
  kept = begin(current)
  candidate = kept.items().sources[0].candidates[0]
  kept.rate('1', rater='anna', candidate_id=candidate.candidate_id, rating=3)
  results = human_evaluation.human_evaluation(current, evaluations=evaluations).results
  assert results['num_ratings'] == 1
  assert all(s['rating_mean'] is None for s in results['systems'])
  assert results['agreement']['alpha'] is None

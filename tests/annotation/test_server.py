"""The page's calls, as a rater's browser makes them."""

import concurrent.futures
import html

import pytest

pytest.importorskip('starlette', reason='comes with the extra `annotate`')
pytest.importorskip('httpx2', reason="starlette's test client needs it")

from rest_jax.annotation import guard, protocol, server
from tests.annotation import study
from tests.annotation.rater import Rater


@pytest.fixture
def kept(tmp_path):
  return study.create(tmp_path)


def make_app(kept, view='side_by_side', rules=None, **options):
  rules = rules or guard.access('127.0.0.1', None, study='test')
  return server.make_app(study.study(kept, view, **options), rules)


@pytest.fixture
def app(kept):
  return make_app(kept)


def test_a_rater_signs_in_rates_all_and_is_done(app, kept):
  anna = Rater(app, 'anna')
  seen = []
  for done in range(study.NUM_SOURCES):
    state = anna.task().json()
    assert (state['place'], state['done']) == (done, done)
    seen.append(state['task']['source'])
    for candidate in state['task']['candidates']:
      assert candidate['rating'] is None
      assert anna.rate(candidate['id'], 4).json() == {'saved': True}
  assert sorted(seen) == sorted(s.source for s in kept.items().sources)
  last = anna.task().json()
  assert last['task'] is None and last['done'] == last['total'] == study.NUM_SOURCES
  assert len(kept.ratings_of('anna')) == 2 * study.NUM_SOURCES - 1


def test_what_a_rater_gets_says_nothing_of_who_made_it(app):
  anna = Rater(app, 'anna')
  tasks = ''.join(anna.task(place).text for place in range(study.NUM_SOURCES))
  text = tasks + anna.client.get('/').text
  assert 'evaluate' not in text and 'reward' not in text
  assert 'reference 1' not in tasks and '"reference":null' in tasks
  assert set(anna.task().json()['task']['candidates'][0]) == {'id', 'text', 'rating'}


def test_a_new_server_goes_on_where_the_last_stopped(app, kept):
  anna = Rater(app, 'anna')
  first = anna.task().json()['task']
  for candidate in first['candidates']:
    anna.rate(candidate['id'], 3)
  second = anna.task().json()['task']
  anna.rate(second['candidates'][0]['id'], 5)
  again = Rater(make_app(kept), 'Anna ').task().json()
  assert again['place'] == again['done'] == 1
  assert again['task']['source'] == second['source']
  assert [c['rating'] for c in again['task']['candidates']] == [5, None]
  assert Rater(make_app(kept), 'anna').task(0).json()['task']['candidates'] == [
    {**candidate, 'rating': 3} for candidate in first['candidates']
  ]


def test_two_raters_have_their_own_orders_and_ratings(app, kept):
  anna, ben = Rater(app, 'anna'), Rater(app, 'ben')

  def order(rater):
    return [
      rater.task(p).json()['task']['candidates'][0]['id']
      for p in range(study.NUM_SOURCES)
    ]

  assert order(anna) != order(ben)
  candidate = anna.task().json()['task']['candidates'][0]['id']
  anna.rate(candidate, 1)
  ben.rate(candidate, 6)
  assert kept.ratings_of('anna') == {candidate: 1}
  assert kept.ratings_of('ben') == {candidate: 6}
  assert anna.undo().json()['candidate_id'] == candidate
  assert kept.ratings_of('ben') == {candidate: 6}


def test_undo_says_where_to_go_back_to(app):
  anna = Rater(app, 'anna')
  assert anna.undo().json() == {'candidate_id': None, 'place': None}
  candidates = anna.task(3).json()['task']['candidates']
  anna.rate(candidates[0]['id'], 2)
  assert anna.undo().json() == {'candidate_id': candidates[0]['id'], 'place': 3}


def test_a_submission_sent_by_many_at_once_counts_once(app, kept):
  anna = Rater(app, 'anna')
  candidate = anna.task().json()['task']['candidates'][0]['id']

  def submit(_):
    return Rater(app, 'anna').rate(candidate, 5, submission_id='ab' * 16).status_code

  with concurrent.futures.ThreadPoolExecutor(6) as pool:
    assert set(pool.map(submit, range(12))) == {200}
  assert kept.ratings_of('anna') == {candidate: 5}
  anna.undo()
  assert kept.ratings_of('anna') == {}  # there was one to undo


def test_the_same_id_for_another_rating_is_a_conflict(app, kept):
  anna = Rater(app, 'anna')
  candidate = anna.task().json()['task']['candidates'][0]['id']
  assert anna.rate(candidate, 5, submission_id='ab' * 16).status_code == 200
  assert anna.rate(candidate, 4, submission_id='ab' * 16).status_code == 409
  assert kept.ratings_of('anna') == {candidate: 5}


def test_a_window_left_open_by_another_rater_cannot_rate_for_the_new_one(app, kept):
  anna = Rater(app, 'anna')
  candidate = anna.task().json()['task']['candidates'][0]['id']
  assert anna.post('/api/sign_in', rater='ben').status_code == 200
  answer = anna.rate(candidate, 5)  # still says 'anna'
  assert answer.status_code == 409 and 'signed in as ben' in answer.json()['error']
  assert kept.ratings() == []


def test_without_a_name_there_is_nothing_to_rate(app):
  nobody = Rater(app, None)
  assert 'Your name' in nobody.client.get('/').text
  assert nobody.task().status_code == 401
  assert nobody.rate('x', 1, rater='anna').status_code == 409
  anna = Rater(app, 'anna')
  assert 'Your name' not in anna.client.get('/').text
  assert anna.post('/api/sign_out').status_code == 200
  assert anna.task().status_code == 401


@pytest.mark.parametrize(
  ('given', 'kept_as'),
  [('  Anna  B. ', 'anna b.'), ('Zoë-9', 'zoë-9'), ('a' * 40, 'a' * 40)],
)
def test_a_name_is_kept_in_one_form(app, given, kept_as):
  rater = Rater(app, None)
  assert rater.post('/api/sign_in', rater=given).json() == {'rater': kept_as}
  assert rater.task().json()['rater'] == kept_as


@pytest.mark.parametrize('name', ['', ' ', 'a' * 41, '<b>', 'a;b', 'a\x00b', None, 3])
def test_other_names_are_refused(app, name):
  answer = Rater(app, None).post('/api/sign_in', rater=name)
  assert answer.status_code == 400 and 'letters' in answer.json()['error']


@pytest.mark.parametrize(
  'body',
  [
    {'rating': 7},
    {'rating': True},
    {'rating': '3'},
    {'rating': None},
    {'candidate_id': 'nobody'},
    {'candidate_id': None},
    {'submission_id': 'short'},
    {'submission_id': None},
    {'submission_id': ['ab' * 16]},
  ],
)
def test_a_wrong_rating_is_refused_and_nothing_written(app, kept, body):
  anna = Rater(app, 'anna')
  candidate = anna.task().json()['task']['candidates'][0]['id']
  good = {'submission_id': 'ab' * 16, 'candidate_id': candidate, 'rating': 3}
  answer = anna.post('/api/rate', rater='anna', **(good | body))
  assert answer.status_code == 400 and answer.json()['error']
  assert kept.ratings() == []


@pytest.mark.parametrize('body', ['', '{', '[]', '3', '[' * 3000])
def test_a_body_that_is_no_object_is_refused(app, body):
  headers = {'content-type': 'application/json'}
  answer = Rater(app, 'anna').client.post('/api/rate', content=body, headers=headers)
  assert answer.status_code == 400


@pytest.mark.parametrize(
  ('place', 'status'), [('-1', 400), ('x', 400), ('9' * 10, 400), ('999', 200)]
)
def test_a_place_off_the_list(app, place, status):
  answer = Rater(app, 'anna').task(place)
  assert answer.status_code == status
  if status == 200:
    assert answer.json()['task'] is None


def test_one_at_a_time(kept):
  anna = Rater(make_app(kept, 'single'), 'anna')
  state = anna.task().json()
  assert state['total'] == 2 * study.NUM_SOURCES - 1
  assert len(state['task']['candidates']) == 1


def test_the_reference_is_shown_where_asked_for(kept):
  anna = Rater(make_app(kept, show_reference=True), 'anna')
  assert anna.task().json()['task']['reference'].startswith('reference ')


def test_what_the_page_says_is_escaped(kept):
  app = make_app(kept, question=study.HOSTILE, anchors={0: study.HOSTILE})
  page = Rater(app, 'anna').client.get('/')
  assert study.HOSTILE not in page.text
  assert page.text.count(html.escape(study.HOSTILE)[:20]) >= 2
  # Texts come as JSON, which no browser takes for a page.
  states = [Rater(app, 'anna').task(p) for p in range(study.NUM_SOURCES)]
  hostile = next(s for s in states if 'script' in s.text)
  assert hostile.headers['content-type'] == 'application/json'
  assert hostile.headers['x-content-type-options'] == 'nosniff'


def test_the_page_loads_its_own_files_alone(app):
  anna = Rater(app, 'anna')
  page = anna.client.get('/').text
  assert 'src="/annotate.js"' in page and 'href="/annotate.css"' in page
  assert '//' not in page.replace('<!DOCTYPE', '')
  for name, kind in (('annotate.js', 'text/javascript'), ('annotate.css', 'text/css')):
    answer = anna.client.get(f'/{name}')
    assert answer.headers['content-type'].startswith(kind)
    assert 'http' not in answer.text


def test_an_anchor_off_the_scale_is_named():
  with pytest.raises(ValueError, match=r'anchors of \[7\]'):
    protocol.Protocol(anchors={7: 'too good'})


def test_a_taken_port_is_said_with_the_remedy(app):
  import socket

  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    with pytest.raises(ValueError, match=f'cannot listen on 127.0.0.1:{port} .*PORT'):
      server.serve(app, host='127.0.0.1', port=port, ready=print)

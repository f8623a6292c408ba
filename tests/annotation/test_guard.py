"""Who may ask, from where, and how much they may send."""

import pytest

pytest.importorskip('starlette', reason='comes with the extra `annotate`')
pytest.importorskip('httpx2', reason="starlette's test client needs it")

from rest_jax.annotation import guard
from tests.annotation import study
from tests.annotation.rater import BASE, Rater
from tests.annotation.test_server import make_app

OUTSIDE = 'http://192.0.2.7:8765'
TOKEN = 'a token of enough characters'


@pytest.fixture
def kept(tmp_path):
  return study.create(tmp_path)


@pytest.fixture
def outside(kept):
  """An application that other machines reach."""
  return make_app(kept, rules=guard.access('0.0.0.0', TOKEN, study='x'))


@pytest.mark.parametrize(
  ('host', 'loopback'),
  [
    ('127.0.0.1', True),
    ('127.9.9.9', True),
    ('localhost', True),
    ('::1', True),
    ('[::1]', True),
    ('0.0.0.0', False),
    ('::', False),
    ('192.168.1.4', False),
    ('example.org', False),
    ('', False),
  ],
)
def test_loopback_alone_needs_no_token(host, loopback):
  assert guard.is_loopback(host) == loopback
  rules = guard.access(host, None, study='x')
  assert (rules.token is None) == loopback
  assert guard.access(host, TOKEN, study='x').token == TOKEN


def test_made_tokens_differ_and_short_ones_are_refused():
  made = {guard.access('0.0.0.0', None, study='x').token for _ in range(9)}
  assert len(made) == 9 and all(len(token) >= 32 for token in made)
  with pytest.raises(ValueError, match='7 characters and can be guessed'):
    guard.access('127.0.0.1', 'guessed', study='x')


def test_without_the_token_nothing_is_answered(outside):
  nobody = Rater(outside, None, base=OUTSIDE)
  for path in ('/', '/api/task', '/annotate.js', '/gone', '/?token=', '/?token=wrong'):
    answer = nobody.client.get(path)
    assert answer.status_code == 403, path
    assert TOKEN not in answer.text and 'set-cookie' not in answer.headers
  for path in ('/api/sign_in', '/api/rate', f'/api/rate?token={TOKEN}'):
    assert nobody.post(path, rater='anna').status_code == 403, path
  nobody.client.cookies.set('rest_jax_x', TOKEN + 'x')
  assert nobody.client.get('/').status_code == 403


def test_the_token_moves_from_the_address_into_a_cookie(outside, kept):
  anna = Rater(outside, None, base=OUTSIDE)
  answer = anna.client.get('/', params={'token': TOKEN})
  assert answer.status_code == 303 and answer.headers['location'] == '/'
  cookie = answer.headers['set-cookie'].lower()
  assert 'httponly' in cookie and 'samesite=lax' in cookie
  assert anna.client.get('/').status_code == 200
  assert anna.post('/api/sign_in', rater='anna').status_code == 200
  anna.name = 'anna'
  candidate = anna.task().json()['task']['candidates'][0]['id']
  assert anna.rate(candidate, 3).status_code == 200
  assert kept.ratings_of('anna') == {candidate: 3}


def test_tokens_are_compared_in_constant_time(outside, monkeypatch):
  compared = []

  def compare(a, b):
    compared.append((a, b))
    return a == b

  monkeypatch.setattr(guard.hmac, 'compare_digest', compare)
  Rater(outside, None, base=OUTSIDE).client.get('/?token=wrong')
  Rater(outside, None, base=OUTSIDE).client.get('/')
  assert compared == [(b'wrong', TOKEN.encode()), (b'', TOKEN.encode())]


def test_a_token_guards_loopback_too_where_one_is_given(kept):
  app = make_app(kept, rules=guard.access('127.0.0.1', TOKEN, study='x'))
  assert Rater(app, None).client.get('/').status_code == 403
  assert Rater(app, None).client.get(f'/?token={TOKEN}').status_code == 303


@pytest.mark.parametrize(
  ('host', 'status'),
  [
    ('127.0.0.1:8765', 200),
    ('localhost:8765', 200),
    ('[::1]:8765', 200),
    ('LOCALHOST', 200),
    ('evil.example:8765', 403),
    ('127.0.0.1.evil.example', 403),
    ('localhost.evil.example', 403),
    ('', 403),
  ],
)
def test_on_loopback_foreign_names_are_refused(kept, host, status):
  # DNS rebinding: evil.example resolves to 127.0.0.1.
  anna = Rater(make_app(kept), None)
  assert anna.client.get('/', headers={'host': host}).status_code == status


@pytest.mark.parametrize(
  'origin',
  [
    'http://evil.example',
    'http://127.0.0.1:9999',
    'http://localhost:8765',
    'null',
    '',
    None,
  ],
)
def test_only_the_page_itself_may_post(kept, origin):
  anna = Rater(make_app(kept), 'anna')
  candidate = anna.task().json()['task']['candidates'][0]['id']
  del anna.client.headers['origin']
  if origin is not None:
    anna.client.headers['origin'] = origin
  assert anna.rate(candidate, 3).status_code == 403
  assert anna.post('/api/sign_in', rater='ben').status_code == 403
  assert kept.ratings() == []
  anna.client.headers['origin'] = BASE
  assert anna.rate(candidate, 3).status_code == 200


@pytest.mark.parametrize(
  'kind', ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data', '']
)
def test_a_form_of_another_site_cannot_be_taken_for_the_page(kept, kind):
  anna = Rater(make_app(kept), 'anna')
  headers = {'content-type': kind}
  answer = anna.client.post('/api/sign_out', content='{}', headers=headers)
  assert answer.status_code == 415


@pytest.mark.parametrize('declared', [True, False])
def test_a_large_body_is_refused(kept, declared):
  anna = Rater(make_app(kept), 'anna')
  body = b'{"rater": "' + b'a' * guard.MAX_BODY_BYTES + b'"}'

  def in_pieces():
    yield from (body[i : i + 1000] for i in range(0, len(body), 1000))

  answer = anna.client.post(
    '/api/sign_in',
    content=body if declared else in_pieces(),
    headers={'content-type': 'application/json'},
  )
  assert answer.status_code == 413
  assert ('content-length' in answer.request.headers) == declared


def test_every_answer_has_the_headers(kept):
  anna = Rater(make_app(kept), 'anna')
  answers = [
    anna.client.get('/'),
    anna.client.get('/annotate.js'),
    anna.task(),
    anna.client.get('/gone'),
    anna.client.get('/api/rate'),
    anna.client.get('/', headers={'host': 'evil.example'}),
    anna.rate('nobody', 3),
  ]
  assert [a.status_code for a in answers] == [200, 200, 200, 404, 405, 403, 400]
  for answer in answers:
    policy = answer.headers['content-security-policy']
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy and 'unsafe' not in policy
    assert answer.headers['cache-control'] == 'no-store'
    assert answer.headers['referrer-policy'] == 'no-referrer'

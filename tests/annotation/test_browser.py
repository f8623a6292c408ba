"""The page in a real browser, driven by the keyboard alone.

Needs playwright, which the extra `dev` has, and a Chromium: the system's, or the one
that `playwright install chromium` fetches. Skipped without.
"""

import contextlib
import http.client
import http.server
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading

import pytest

pytest.importorskip('playwright', reason='comes with the extra `dev`')
pytest.importorskip('starlette', reason='comes with the extra `annotate`')

from playwright import sync_api

from rest_jax.annotation import database
from tests import minimal_run
from tests.annotation import study

NUM_CANDIDATES = 2 * study.NUM_SOURCES - 1  # source 1 has one text of both policies
SIZES = {'desk': (1280, 800), 'phone': (390, 844)}


def launch(playwright):
  """A Chromium of this machine; skips where there is none."""
  names = ('chromium', 'chromium-browser', 'google-chrome')
  found = next(filter(None, map(shutil.which, names)), None)
  found = found or playwright.chromium.executable_path
  if not pathlib.Path(found).exists():
    pytest.skip(
      f'no browser: neither {", ".join(names)} on the path, nor {found}: '
      'apt-get install chromium, or playwright install chromium'
    )
  # Chromium has no sandbox for root, as in a container.
  arguments = ['--no-sandbox'] if os.geteuid() == 0 else []
  return playwright.chromium.launch(executable_path=found, args=arguments)


@pytest.fixture(scope='module')
def browser():
  with sync_api.sync_playwright() as playwright:
    started = launch(playwright)
    yield started
    started.close()


class Server:
  """The study's server, in a process that can be killed and started anew."""

  def __init__(self, path, view, token=None):
    self.path, self.view, self.token = path, view, token
    with socket.create_server(('127.0.0.1', 0)) as free:
      self.port = free.getsockname()[1]
    self.process = None
    self.start()

  @property
  def address(self):
    return f'http://127.0.0.1:{self.port}/'

  def start(self):
    program = [sys.executable, '-m', 'tests.annotation.study']
    self.process = subprocess.Popen(
      [
        *program,
        str(self.path),
        str(self.port),
        self.view,
        *filter(None, [self.token]),
      ],
      cwd=minimal_run.ROOT,
      stdout=subprocess.PIPE,
      text=True,
    )
    assert self.process.stdout.readline().strip() == str(self.port)

  def kill(self):
    self.process.send_signal(signal.SIGKILL)
    self.process.wait()
    self.process.stdout.close()


@pytest.fixture
def serve(tmp_path):
  started = []

  def start(view='side_by_side', token=None):
    started.append(Server(tmp_path / f'{view}.sqlite', view, token))
    return started[-1]

  yield start
  for server in started:
    if server.process.poll() is None:
      server.kill()


class Line(http.server.ThreadingHTTPServer):
  """The way to a server, on which the first answers to ratings get lost.

  Attributes:
    written: the ratings that the server has answered, lost answers among them.
  """

  daemon_threads = True

  def __init__(self, server, num_lost):
    super().__init__(('127.0.0.1', 0), Forward)
    self.server, self.view, self.num_lost = server, server.view, num_lost
    self.address = f'http://127.0.0.1:{self.server_port}/'
    self.written = []


class Forward(http.server.BaseHTTPRequestHandler):
  """Asks the server what the browser asks; one connection a request."""

  def do_GET(self):
    line = self.server
    sent = self.rfile.read(int(self.headers.get('Content-Length', 0)))
    asked = http.client.HTTPConnection('127.0.0.1', line.server.port, timeout=60)
    with contextlib.closing(asked):
      asked.request(self.command, self.path, sent, dict(self.headers))
      answer = asked.getresponse()
      content = answer.read()
    if self.path == '/api/rate':
      line.written.append(sent)
      if len(line.written) <= line.num_lost:
        return  # the connection ends without an answer
    self.send_response(answer.status)
    for name, value in answer.getheaders():
      self.send_header(name, value)
    self.end_headers()
    self.wfile.write(content)

  do_POST = do_GET

  def log_message(self, *said):
    pass


@contextlib.contextmanager
def losing(server, num_lost):
  """A line to the server that loses the first answers to ratings."""
  with Line(server, num_lost) as line:
    thread = threading.Thread(target=line.serve_forever, daemon=True)
    thread.start()
    yield line
    line.shutdown()
    thread.join()


@contextlib.contextmanager
def open_page(browser, server, *, size=SIZES['desk'], rater='anna'):
  """A page on which the rater has signed in; nothing may go wrong on it."""
  context = browser.new_context(viewport={'width': size[0], 'height': size[1]})
  page = context.new_page()
  page.set_default_timeout(60_000)  # a busy machine
  wrong, asked = [], []
  page.on('pageerror', lambda error: wrong.append(str(error)))
  page.on(
    'console',
    lambda said: wrong.append(said.text) if 'Content Security' in said.text else None,
  )
  page.on('request', lambda request: asked.append(request.url))
  page.goto(server.address)
  page.wait_for_selector('#name:focus')
  page.keyboard.type(rater)
  page.keyboard.press('Enter')
  wait_for(page, f'0 of {total(server)}')
  yield page
  assert wrong == []
  assert all(url.startswith((server.address, 'data:')) for url in asked), asked
  context.close()


def total(server):
  return study.NUM_SOURCES if server.view == 'side_by_side' else NUM_CANDIDATES


def until(page, condition):
  """Waits for a condition; the page's own policy forbids playwright to wait inside."""
  for _ in range(1200):  # a minute, on a busy machine
    if condition():
      return
    page.wait_for_timeout(50)
  raise AssertionError(f'never came to be: {page.inner_text("body")}')


def wait_for(page, progress):
  """Waits until the page says how far the rater is."""
  until(page, lambda: page.inner_text('#progress-text').startswith(progress))


def wait_for_another(page, source):
  """Waits until the source shown is another, or there is none."""
  until(
    page,
    lambda: page.is_visible('#finished') or page.inner_text('#source') != source,
  )


def current(page):
  """The number of candidates, and the one that digits go to."""
  cards = page.locator('.candidate')
  chosen = [
    'current' in cards.nth(i).get_attribute('class') for i in range(cards.count())
  ]
  assert chosen.count(True) == 1
  return len(chosen), chosen.index(True)


def rating_of(page, place):
  """What the page shows as the rating of a candidate, or None."""
  card = page.locator('.candidate').nth(place)
  pressed = card.locator('button[aria-pressed=true]')
  texts = pressed.all_inner_texts()  # at once: it may be let go between two looks
  return int(texts[0]) if texts else None


def go_to_two(page):
  """Goes to a source with two candidates."""
  while page.locator('.candidate').count() < 2:
    source = page.inner_text('#source')
    page.keyboard.press('ArrowRight')
    wait_for_another(page, source)


def rows(server):
  with contextlib.closing(sqlite3.connect(server.path)) as connection:
    return connection.execute(
      'SELECT candidate_id, rating, retracted_by IS NULL FROM submissions '
      'ORDER BY number'
    ).fetchall()


def wait_for_rows(page, server, count):
  """Waits until the server has written so many submissions."""
  until(page, lambda: len(rows(server)) >= count)
  assert len(rows(server)) == count


def test_rating_correcting_and_undoing_by_keys(browser, serve):
  server = serve()
  with open_page(browser, server) as page:
    go_to_two(page)
    assert current(page) == (2, 0)
    page.keyboard.press('4')
    assert current(page) == (2, 1) and rating_of(page, 0) == 4
    page.keyboard.press('ArrowUp')
    page.keyboard.press('5')  # a correction; the open candidate is chosen again
    assert current(page) == (2, 1) and rating_of(page, 0) == 5
    page.keyboard.press('0')
    assert rating_of(page, 1) == 0
    wait_for_rows(page, server, 3)
    page.keyboard.press('u')
    until(page, lambda: page.locator('.rated').count() == 1)
    assert current(page) == (2, 1) and rating_of(page, 1) is None
    page.keyboard.press('Backspace')  # undoes the correction: 4 stands again
    until(page, lambda: rating_of(page, 0) == 4)
    assert [row[2] for row in rows(server)] == [1, 0, 0]
    page.keyboard.press('ArrowDown')
    assert current(page) == (2, 1)
    page.keyboard.press('Enter')  # not all rated: it stays and says so
    page.wait_for_selector('#alert:not([hidden])')
    page.keyboard.press('2')
    wait_for_rows(page, server, 4)
    page.keyboard.press('Enter')
    wait_for(page, '1 of 6')


def test_no_rating_is_lost_or_doubled_when_the_server_is_killed(browser, serve):
  server = serve()
  with open_page(browser, server) as page:
    go_to_two(page)
    page.keyboard.press('3')
    wait_for_rows(page, server, 1)
    server.kill()
    page.keyboard.press('6')  # goes to nobody, and waits on the page
    page.wait_for_selector('text=The server does not answer')
    page.keyboard.press('ArrowUp')
    page.keyboard.press('1')  # a correction behind it
    server.start()
    page.wait_for_selector('#alert[hidden]', state='attached')
    wait_for_rows(page, server, 3)
    assert [row[1] for row in rows(server)] == [3, 6, 1]
    page.keyboard.press('Enter')
    wait_for(page, '1 of 6')
    # Killed again, with a rating under way, and the page itself is loaded anew.
    go_to_two(page)
    server.kill()
    page.keyboard.press('2')
    page.wait_for_selector('text=The server does not answer')
    server.start()
    page.reload()
    wait_for(page, '1 of 6')
    wait_for_rows(page, server, 4)
    # To the end: every source, whatever was left out on the way.
    while not page.is_visible('#finished'):
      source, count = page.inner_text('#source'), page.locator('.candidate').count()
      for place in range(count):
        if rating_of(page, place) is None:
          page.keyboard.press('5')
      page.keyboard.press('Enter')
      wait_for_another(page, source)
      if 'left to rate' in page.inner_text('main'):
        page.keyboard.press('Enter')
        page.wait_for_selector('#work:not([hidden])')
    wait_for(page, '6 of 6')
  written = rows(server)
  assert len(written) == NUM_CANDIDATES + 1  # one correction
  assert len({candidate for candidate, _, _ in written}) == NUM_CANDIDATES
  assert len(database.Database(server.path).ratings_of('anna')) == NUM_CANDIDATES


def test_a_rating_whose_answer_is_lost_counts_once(browser, serve):
  server = serve()
  with losing(server, 2) as line, open_page(browser, line) as page:
    go_to_two(page)
    page.keyboard.press('4')
    until(page, lambda: len(line.written) == 3)
    page.wait_for_selector('#alert[hidden]', state='attached')
    assert line.written[1:] == line.written[:1] * 2  # the same submission
    assert [row[1] for row in rows(server)] == [4]
    page.keyboard.press('u')  # there is one to undo
    until(page, lambda: rating_of(page, 0) is None)
    assert [row[2] for row in rows(server)] == [0]


def test_the_token_opens_the_page_and_leaves_the_address(browser, serve):
  token = 'a-token-of-enough-characters'
  server = serve(token=token)
  context = browser.new_context()
  page = context.new_page()
  assert page.goto(server.address).status == 403
  assert page.goto(f'{server.address}?token={token}x').status == 403
  page.goto(f'{server.address}?token={token}')
  page.wait_for_selector('#name:focus')
  assert page.url == server.address
  page.keyboard.type('anna')
  page.keyboard.press('Enter')
  wait_for(page, '0 of 6')
  page.keyboard.press('4')
  wait_for_rows(page, server, 1)
  context.close()


def test_one_at_a_time_a_digit_is_all_it_takes(browser, serve):
  server = serve('single')
  with open_page(browser, server) as page:
    for done in range(NUM_CANDIDATES):
      wait_for(page, f'{done} of {NUM_CANDIDATES}')
      page.keyboard.press(str(done % 7))
    wait_for(page, f'{NUM_CANDIDATES} of {NUM_CANDIDATES}')
    page.wait_for_selector('#finished:not([hidden])')
    page.keyboard.press('u')
    wait_for(page, f'{NUM_CANDIDATES - 1} of {NUM_CANDIDATES}')
    page.keyboard.press('3')
    wait_for(page, f'{NUM_CANDIDATES} of {NUM_CANDIDATES}')
  assert len(database.Database(server.path).ratings_of('anna')) == NUM_CANDIDATES


@pytest.mark.parametrize('size', SIZES)
def test_texts_are_shown_as_they_are_and_fit(browser, serve, size):
  server = serve()
  with open_page(browser, server, size=SIZES[size]) as page:
    found = False
    for place in range(study.NUM_SOURCES):
      source = page.inner_text('#source')
      found |= source == study.HOSTILE
      width = page.evaluate('document.documentElement.scrollWidth')
      assert width <= SIZES[size][0]
      assert page.locator('#work img, #work script').count() == 0
      # What a screen reader says: the text, and seven ratings of each candidate.
      for card in page.locator('.candidate').all():
        text = card.locator('.text').inner_text().strip()
        assert card.get_attribute('aria-label').strip().endswith(f': {text}')
      for name in ('0', '6'):
        buttons = page.get_by_role('button', name=name, exact=True)
        assert buttons.count() == page.locator('.candidate').count()
      if place < study.NUM_SOURCES - 1:
        page.keyboard.press('ArrowRight')
        wait_for_another(page, source)
    assert found
    assert page.title() == 'Rate candidates'

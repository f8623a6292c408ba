"""The external scorer: what it exchanges, and every way in which that can fail."""

import json
import os
import re
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from rest_jax.rewards import external
from tests import minimal_run
from tests.rewards import test_text

# Answers with the length of each candidate, and writes down what it was asked.
SCORER = """
import json, os, sys
folder = sys.argv[1]
with open(folder + '/starts', 'a') as file:
  print(os.getpid(), file=file)
def answer(request, scores):
  print(json.dumps({'id': request['id'], 'scores': scores}), flush=True)
def lengths(request):
  return [float(len(row['candidate'])) for row in request['rows']]
def starts():
  return len(open(folder + '/starts').readlines())
def requests():
  for line in sys.stdin:
    with open(folder + '/requests', 'a') as file:
      file.write(line)
    yield json.loads(line)
"""
ANSWER_ALL = 'for request in requests(): answer(request, lengths(request))'


@pytest.fixture
def make(tmp_path, monkeypatch):
  """make(program, **options) -> scorer; all are ended."""
  monkeypatch.setattr(external.line_process, 'PATIENCE_S', 0.2)
  made = []

  def make_scorer(program=ANSWER_ALL, **options):
    path = tmp_path / f'scorer_{len(made)}.py'
    path.write_text(SCORER + textwrap.dedent(program))
    command = (sys.executable, '-S', '-E', str(path), str(tmp_path))
    options = {'version': '1', 'batch_size': 2, 'timeout_s': 30.0} | options
    made.append(external.ExternalScorer(command, **options))
    return made[-1]

  yield make_scorer
  for scorer in made:
    scorer.end()


def _groups(*sizes, start=0):
  """Groups whose candidates all differ in length."""
  lengths = iter(range(start, 10_000))
  return [
    test_text._group(['x' * next(lengths) for _ in range(size)], source_id=f's/{i}')
    for i, size in enumerate(sizes)
  ]


def _starts(tmp_path):
  return [int(line) for line in (tmp_path / 'starts').read_text().splitlines()]


def _check(scorer, groups):
  rewards = scorer(groups)
  test_text._assert_arrays(rewards, groups)
  for values, group in zip(rewards, groups, strict=True):
    assert values.tolist() == [len(text) for text in group.texts]


def test_every_candidate_gets_its_score(make, tmp_path):
  scorer = make()
  _check(scorer, _groups(3, 0, 1, 5))
  _check(scorer, _groups(2, start=20))
  _check(scorer, [])
  assert len(_starts(tmp_path)) == 1
  asked = [
    json.loads(line) for line in (tmp_path / 'requests').read_text().splitlines()
  ]
  assert [request['id'] for request in asked] == [0, 1, 2, 3, 4, 5]
  assert [len(request['rows']) for request in asked] == [2, 2, 2, 2, 1, 2]
  row = {'source': 'die Katze', 'candidate': 'x', 'reference': 'the cat'}
  assert asked[0]['rows'][1] == row


def test_scorers_of_one_command_share_a_program(make, tmp_path):
  one = make()
  _check(one, _groups(2))
  settings = {'batch_size': 2, 'timeout_s': 30.0}
  command = one.identity()['command']
  _check(external.ExternalScorer(command, version='2', **settings), _groups(3))
  assert len(_starts(tmp_path)) == 1


def test_equal_rows_are_sent_once_a_call(make, tmp_path):
  groups = [test_text._group(['ab', 'c', 'ab']), test_text._group(['ab', 'd'])]
  groups.append(test_text._group(['ab'], reference=None))
  _check(make(), groups)
  asked = (tmp_path / 'requests').read_text().splitlines()
  rows = [row for line in asked for row in json.loads(line)['rows']]
  assert [(row['candidate'], row['reference']) for row in rows] == [
    ('ab', 'the cat'), ('c', 'the cat'), ('d', 'the cat'), ('ab', None),
  ]  # fmt: skip


def test_answers_may_come_in_any_order_and_in_pieces(make):
  # Answers each three requests backwards, the lines cut in the middle.
  program = """
waiting = []
for request in requests():
  waiting.append(request)
  if len(waiting) == 3:
    for request in reversed(waiting):
      line = json.dumps({'id': request['id'], 'scores': lengths(request)})
      for part in (line[:7], line[7:] + chr(10)):
        sys.stdout.write(part)
        sys.stdout.flush()
    waiting = []
"""
  _check(make(program, max_in_flight=3), _groups(5, 4, 3))


def test_only_so_many_requests_wait_at_once(make, tmp_path):
  # Fails if a fourth request lies in its input while it holds three.
  program = """
import select, time
waiting = []
for line in iter(sys.stdin.buffer.raw.readline, b''):
  waiting.append(json.loads(line))
  if len(waiting) == 3:
    time.sleep(0.02)
    assert not select.select([sys.stdin], [], [], 0)[0], 'a fourth'
    for request in waiting: answer(request, lengths(request))
    waiting = []
"""
  _check(make(program, max_in_flight=3, batch_size=1, max_restarts=0), _groups(6))
  with pytest.raises(ChildProcessError, match='a fourth'):
    make(program, max_in_flight=4, batch_size=1, max_restarts=0)(_groups(8))


def test_full_pipes_block_neither_side(make):
  # Each request and each answer is larger than a pipe, and stderr is, too.
  program = """
for request in requests():
  print('y' * 100_000, file=sys.stderr)
  line = json.dumps({'id': request['id'], 'scores': lengths(request)})
  print(line + ' ' * 200_000, flush=True)
"""
  groups = [test_text._group(['x' * (100_000 + i) for i in range(6)])]
  _check(make(program), groups)


def test_a_program_that_dies_is_started_again_and_nothing_is_lost(make, tmp_path):
  # Twice it dies: with one request answered, and in the middle of an answer.
  program = """
for number, request in enumerate(requests()):
  if starts() == 1 and number == 1:
    os.kill(os.getpid(), 9)
  if starts() == 2 and number == 2:
    sys.stdout.write('{"id": ')
    sys.exit(3)
  answer(request, lengths(request))
"""
  _check(make(program), _groups(7, 6))
  assert len(_starts(tmp_path)) == 3


def test_a_program_that_dies_between_calls_is_started_again(make, tmp_path):
  scorer = make('request = next(requests()); answer(request, lengths(request))')
  _check(scorer, _groups(2))
  while _alive(_starts(tmp_path)[0]):
    time.sleep(0.01)
  _check(scorer, _groups(2, start=5))
  assert len(_starts(tmp_path)) == 2


def test_a_program_that_always_dies_is_given_up_with_its_reasons(make, tmp_path):
  # It answers all but one request.
  program = """
for request in requests():
  if request['id'] == 2:
    print('first line', file=sys.stderr)
    raise SystemExit('no memory for row 4')
  answer(request, lengths(request))
"""
  with pytest.raises(ChildProcessError) as error:
    make(program, max_in_flight=1)(_groups(4, 4))
  message = str(error.value)
  assert 'exit status 1' in message and 'started again 2 times' in message
  assert 'first line\n  no memory for row 4' in message
  assert "source 'die Katze', candidate 'xxxx'" in message
  assert len(_starts(tmp_path)) == 3
  with pytest.raises(ChildProcessError, match='was ended by SIGTERM'):
    make('next(requests()); os.kill(os.getpid(), 15)', max_restarts=0)(_groups(2))


@pytest.mark.parametrize(
  ('reply', 'message'),
  [
    ("print('loading', flush=True)", r"line 2 of its output: not JSON .*'loading'"),
    ("print('[1]', flush=True)", r"line 2 .*'\[1\]' is not"),
    ('answer(request, [1.0])', 'line 2 .*: 1 scores for the 2 rows of request 1'),
    ('answer(request, [1.0] * 3)', 'line 2 .*: 3 scores for the 2 rows of request 1'),
    ("answer(request, 'all good')", "'all good' scores for the 2 rows"),
    ("answer({'id': 9}, [1.0, 2.0])", 'id 9, only under 1'),
    ("answer({'id': 0}, [1.0, 2.0])", 'id 0, only under 1'),
    ("answer({'id': True}, [1.0, 2.0])", 'id True, only under 1'),
    ("answer(request, [1.0, float('nan')])", "nan of row 1 .*candidate 'xxx'"),
    ("answer(request, [float('inf'), 1.0])", "inf of row 0 .*candidate 'xx'"),
    ('answer(request, [1e39, 1.0])', 'score 1e.39 of row 0'),
    ('answer(request, [None, 1.0])', 'score None of row 0'),
    ('answer(request, [True, 1.0])', 'score True of row 0'),
    ("answer(request, ['1', 1.0])", "score '1' of row 0"),
  ],
)
def test_an_answer_that_breaks_the_protocol_is_named(make, tmp_path, reply, message):
  program = f"""
for request in requests():
  if request['id'] == 1 and starts() == 1:
    {reply}
  else:
    answer(request, lengths(request))
"""
  scorer = make(program, max_in_flight=1)
  with pytest.raises(ValueError, match=message):
    scorer(_groups(4))
  # What it still had to say belongs to nobody: the next call has a program of its own.
  _check(scorer, _groups(4, start=50))
  assert len(_starts(tmp_path)) == 2


def test_one_answer_too_many_is_found_by_the_next_call(make):
  scorer = make("""
for request in requests():
  answer(request, lengths(request))
  answer(request, lengths(request))
""")
  with pytest.raises(ValueError, match='id 0, only under'):
    for _ in range(2):
      scorer(_groups(2))


def test_a_program_that_is_silent_for_too_long_is_ended(make, tmp_path):
  program = """
import time
print('warming up', file=sys.stderr, flush=True)
for request in requests():
  time.sleep(60)
"""
  with pytest.raises(TimeoutError, match=r'0\.3 s.*candidate .*\n.*warming up'):
    make(program, timeout_s=0.3)(_groups(3))
  assert not _alive(_starts(tmp_path)[0])


def test_a_program_that_cannot_start():
  with pytest.raises(ValueError, match=r'no_such_program.*cannot be started'):
    external.ExternalScorer(('no_such_program',), version='1')(_groups(1))


def test_it_ends_with_all_that_it_started(make, tmp_path):
  # It does not end when its input does, ignores SIGTERM, and has a child.
  program = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(['sleep', '60'])
open(folder + '/child', 'w').write(str(child.pid))
request = next(requests())
answer(request, lengths(request))
for line in sys.stdin: pass
time.sleep(60)
"""
  scorer = make(program)
  _check(scorer, _groups(2))
  scorer.end()
  assert not _alive(_starts(tmp_path)[0])
  child = int((tmp_path / 'child').read_text())
  for _ in range(200):
    if not _alive(child):
      break
    time.sleep(0.01)
  assert not _alive(child)


def test_it_ends_with_python(make, tmp_path):
  scorer = make()
  code = f"""
from rest_jax.rewards import external
from tests.rewards import test_text
command = {scorer.identity()['command']!r}
external.ExternalScorer(command, version='1')([test_text._group(['a'])])
"""
  subprocess.run([sys.executable, '-c', code], cwd=minimal_run.ROOT, check=True)
  assert not _alive(_starts(tmp_path)[0])


def test_the_identity_is_command_and_version(make):
  one = make()
  command = one.identity()['command']
  same = external.ExternalScorer(command, version='1', batch_size=9, timeout_s=1.0)
  other = external.ExternalScorer(command, version='2')
  assert one.identity() == same.identity() != other.identity()
  assert one.identity() == {'scorer': 'external', 'command': command, 'version': '1'}


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'command': 'python x.py'}, 'must be a sequence of words'),
    ({'command': ()}, 'must be a sequence of words'),
    ({'version': ''}, "version='' must be a text"),
    ({'batch_size': 0}, 'batch_size=0 must be at least 1'),
    ({'max_in_flight': 0}, 'max_in_flight=0 must be at least 1'),
    ({'max_restarts': -1}, 'max_restarts=-1 must be at least 0'),
    ({'timeout_s': 0}, 'timeout_s=0 must be above 0'),
  ],
)
def test_arguments_that_cannot_be(options, message):
  with pytest.raises(ValueError, match=message):
    external.ExternalScorer(**{'command': ('x',), 'version': '1'} | options)


def test_the_example_of_the_documentation_works(tmp_path):
  text = (minimal_run.ROOT / 'docs' / 'scorers.md').read_text()
  blocks = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  path = tmp_path / 'my_scorer.py'
  path.write_text(next(block for block in blocks if '# my_scorer.py' in block))
  scorer = external.ExternalScorer((sys.executable, str(path)), version='1')
  groups = [
    test_text._group(['the cat', 'a dog', '']),
    test_text._group(['cat the'], reference=None),
  ]
  rewards = scorer(groups)
  scorer.end()
  np.testing.assert_allclose(rewards[0], [1.0, 0.0, 0.0])
  np.testing.assert_allclose(rewards[1], [0.0])


def _alive(process):
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  # A child of ours that nobody has waited for is no longer running.
  with open(f'/proc/{process}/stat') as file:
    return file.read().rpartition(')')[2].split()[0] != 'Z'

"""Ratings are kept once, in order, through kills and threads."""

import concurrent.futures
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from rest_jax.annotation import database
from tests import minimal_run
from tests.annotation import study


@pytest.fixture
def kept(tmp_path):
  return study.create(tmp_path)


@pytest.fixture
def candidates(kept):
  return [c.candidate_id for s in kept.items().sources for c in s.candidates]


def _rows(kept, query='SELECT COUNT(*) FROM submissions'):
  with contextlib.closing(sqlite3.connect(kept.path)) as connection:
    return connection.execute(query).fetchall()


def test_items_come_back(tmp_path, kept):
  drawn = study.draw(tmp_path / 'again')
  found = kept.items()
  assert [s.source for s in found.sources] == [s.source for s in drawn.sources]
  assert [s.shared for s in found.sources] == [s.shared for s in drawn.sources]
  assert [set(s.candidates) for s in found.sources] == [
    set(s.candidates) for s in drawn.sources
  ]
  assert found.outputs == drawn.outputs
  assert _rows(kept, 'PRAGMA journal_mode') == [('wal',)]


def test_a_correction_replaces_and_undo_brings_back(kept, candidates):
  kept.rate('1', rater='anna', candidate_id=candidates[0], rating=2)
  kept.rate('2', rater='anna', candidate_id=candidates[1], rating=6)
  kept.rate('3', rater='anna', candidate_id=candidates[0], rating=5)
  assert kept.ratings_of('anna') == {candidates[0]: 5, candidates[1]: 6}
  assert kept.undo('u1', rater='anna') == candidates[0]
  assert kept.ratings_of('anna') == {candidates[0]: 2, candidates[1]: 6}
  assert kept.undo('u2', rater='anna') == candidates[1]
  assert kept.undo('u3', rater='anna') == candidates[0]
  assert kept.ratings_of('anna') == {}
  assert kept.undo('u4', rater='anna') is None
  assert _rows(kept) == [(3,)]  # the log forgets nothing


def test_what_is_sent_twice_counts_once(kept, candidates):
  for _ in range(2):
    kept.rate('1', rater='anna', candidate_id=candidates[0], rating=2)
  kept.rate('2', rater='anna', candidate_id=candidates[1], rating=3)
  for _ in range(2):
    assert kept.undo('u', rater='anna') == candidates[1]
  assert kept.ratings_of('anna') == {candidates[0]: 2}
  # A late repetition of what was undone does not bring it back.
  kept.rate('2', rater='anna', candidate_id=candidates[1], rating=3)
  assert kept.ratings_of('anna') == {candidates[0]: 2}
  assert _rows(kept) == [(2,)]


def test_an_id_cannot_be_used_for_something_else(kept, candidates):
  kept.rate('1', rater='anna', candidate_id=candidates[0], rating=2)
  for changed in ({'rating': 3}, {'rater': 'ben'}, {'candidate_id': candidates[1]}):
    given = {'rater': 'anna', 'candidate_id': candidates[0], 'rating': 2} | changed
    with pytest.raises(database.Conflict):
      kept.rate('1', **given)
  kept.undo('u', rater='anna')
  with pytest.raises(database.Conflict):
    kept.undo('u', rater='ben')
  assert kept.ratings() == [] and _rows(kept) == [(1,)]


def test_raters_do_not_touch_one_another(kept, candidates):
  kept.rate('1', rater='anna', candidate_id=candidates[0], rating=2)
  kept.rate('2', rater='ben', candidate_id=candidates[0], rating=4)
  assert kept.undo('u', rater='anna') == candidates[0]
  assert [(r.rater, r.rating) for r in kept.ratings()] == [('ben', 4)]


@pytest.mark.parametrize('rating', [-1, 7, 3.0, True, '3', None])
def test_a_rating_off_the_scale_is_refused(kept, candidates, rating):
  with pytest.raises(ValueError, match='must be a whole number, 0 to 6'):
    kept.rate('1', rater='anna', candidate_id=candidates[0], rating=rating)
  assert _rows(kept) == [(0,)]


def test_an_unknown_candidate_is_refused(kept):
  with pytest.raises(ValueError, match="candidate 'nobody' is not in this study"):
    kept.rate('1', rater='anna', candidate_id='nobody', rating=1)


def test_the_file_itself_refuses_doubles_and_bad_ratings(kept, candidates):
  insert = (
    'INSERT INTO submissions (submission_id, rater, candidate_id, rating, submitted) '
    "VALUES (?, 'anna', ?, ?, 'now')"
  )
  kept.rate('1', rater='anna', candidate_id=candidates[0], rating=2)
  with contextlib.closing(sqlite3.connect(kept.path)) as connection:
    connection.execute('PRAGMA foreign_keys = ON')
    for values in (
      ('1', candidates[0], 2),
      ('2', candidates[0], 7),
      ('3', candidates[0], 2.5),
      ('4', 'nobody', 2),
    ):
      with pytest.raises(sqlite3.IntegrityError):
        connection.execute(insert, values)


def test_many_threads_at_once_write_each_rating_once(kept, candidates):
  def submit(index):
    kept.rate(
      f'{index % 24}',
      rater=f'rater {index % 3}',
      candidate_id=candidates[index % len(candidates[:8])],
      rating=index % 24 % 7,
    )

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(submit, list(range(24)) * 4))
  assert _rows(kept) == [(24,)]
  assert len(kept.ratings()) == 24  # 3 raters, 8 candidates


def test_two_undos_at_once_retract_two_submissions(kept, candidates):
  for place, candidate in enumerate(candidates[:6]):
    kept.rate(str(place), rater='anna', candidate_id=candidate, rating=1)
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    undone = list(pool.map(lambda u: kept.undo(u, rater='anna'), ['a', 'b', 'a', 'b']))
  assert undone[0] == undone[2] and undone[1] == undone[3] and undone[0] != undone[1]
  assert len(kept.ratings_of('anna')) == 4


WRITER = """
import sys
from rest_jax.annotation import database
kept = database.Database(sys.argv[1])
ids = sys.argv[2].split(',')
for number in range(10**6):
  kept.rate(str(number), rater='anna', candidate_id=ids[number % len(ids)], rating=1)
  print(number, flush=True)
"""


def test_what_was_acknowledged_survives_sigkill(kept, candidates):
  arguments = [sys.executable, '-c', WRITER, str(kept.path), ','.join(candidates)]
  with subprocess.Popen(
    arguments, stdout=subprocess.PIPE, text=True, cwd=minimal_run.ROOT
  ) as writer:
    for _ in range(20):
      last = writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    last = (writer.stdout.read().split('\n')[:-1] or [last])[-1]
  acknowledged = int(last) + 1
  # One more may have been written, and not yet acknowledged.
  assert _rows(kept)[0][0] in (acknowledged, acknowledged + 1)
  assert _rows(kept, 'PRAGMA integrity_check') == [('ok',)]


def test_the_fingerprint_follows_the_ratings(kept, candidates):
  empty = kept.fingerprint()
  kept.rate('1', rater='anna', candidate_id=candidates[0], rating=2)
  assert kept.fingerprint() != empty
  kept.undo('u', rater='anna')
  assert kept.fingerprint() == empty


def test_a_file_that_is_no_study_is_named(tmp_path):
  with pytest.raises(ValueError, match=r'gone\.sqlite does not exist'):
    database.Database(tmp_path / 'gone.sqlite')
  (tmp_path / 'text.sqlite').write_text('no database at all, but long enough' * 99)
  with pytest.raises(ValueError, match=r'text\.sqlite is not a file of ratings'):
    database.Database(tmp_path / 'text.sqlite')
  with pytest.raises(ValueError, match='SQLite needs a local disk'):
    database.Database('gs://bucket/ratings.sqlite')


def test_a_study_is_never_overwritten(tmp_path, kept):
  with pytest.raises(FileExistsError):
    database.create(kept.path, kept.items(), {})

"""Ratings in SQLite: a log that only grows, and a view of what stands.

One file holds a whole study: the items, who made what, and every rating.

    study        identity of the study, as JSON
    sources      source_id, source, reference, shared
    candidates   candidate_id, source_id, text
    outputs      system, source_id, sample, candidate_id, reward
    submissions  number, submission_id, rater, candidate_id, rating, submitted,
                 retracted_by, retracted
    ratings      view: for each rater and candidate the last submission not retracted

Nothing is counted twice: a submission carries an id that its sender made up, so that
sending it again changes nothing; and for a rater and candidate one rating stands. A
rating is on the disk (WAL, synchronous FULL) before it is acknowledged.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import pathlib
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from rest_jax import paths
from rest_jax.annotation import items as items_lib

FORMAT_VERSION = 1
MAX_RATING = 6  # the scale runs from 0
BUSY_TIMEOUT_S = 30.0

_SCHEMA = f"""
CREATE TABLE study (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  format INTEGER NOT NULL,
  identity TEXT NOT NULL
);
CREATE TABLE sources (
  place INTEGER PRIMARY KEY,
  source_id TEXT NOT NULL UNIQUE,
  source TEXT NOT NULL,
  reference TEXT,
  shared INTEGER NOT NULL CHECK (shared IN (0, 1))
);
CREATE TABLE candidates (
  candidate_id TEXT PRIMARY KEY,
  source_id TEXT NOT NULL REFERENCES sources (source_id),
  text TEXT NOT NULL,
  UNIQUE (source_id, text)
);
CREATE TABLE outputs (
  system TEXT NOT NULL,
  source_id TEXT NOT NULL REFERENCES sources (source_id),
  sample INTEGER NOT NULL,
  candidate_id TEXT NOT NULL REFERENCES candidates (candidate_id),
  reward REAL,
  PRIMARY KEY (system, source_id, sample)
);
CREATE TABLE submissions (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  submission_id TEXT NOT NULL UNIQUE,
  rater TEXT NOT NULL,
  candidate_id TEXT NOT NULL REFERENCES candidates (candidate_id),
  rating INTEGER NOT NULL CHECK (
    typeof(rating) = 'integer' AND rating BETWEEN 0 AND {MAX_RATING}
  ),
  submitted TEXT NOT NULL,
  retracted_by TEXT UNIQUE,
  retracted TEXT
);
CREATE UNIQUE INDEX standing
  ON submissions (rater, candidate_id, number) WHERE retracted_by IS NULL;
CREATE VIEW ratings AS
  SELECT rater, candidate_id, rating, submitted, MAX(number) AS number
  FROM submissions WHERE retracted_by IS NULL
  GROUP BY rater, candidate_id;
"""


class Conflict(Exception):
  """An id was used before for something else; nothing was changed."""


@dataclasses.dataclass(frozen=True)
class Rating:
  """What a rater thinks of a candidate."""

  rater: str
  candidate_id: str
  rating: int  # 0 to MAX_RATING
  submitted: str  # when, ISO 8601 in UTC


class Database:
  """A study's file.

  Args:
    path: a file on a local disk that `create` has made.

  Raises:
    ValueError: it is not there, or is not a study.
  """

  def __init__(self, path: paths.PathLike):
    self.path = local_file(path)
    if not self.path.is_file():
      raise ValueError(f'{self.path} does not exist: begin with --run_mode=annotate')
    try:
      with self._connect() as connection:
        row = connection.execute('SELECT format, identity FROM study').fetchone()
    except sqlite3.DatabaseError as error:
      raise ValueError(
        f'{self.path} is not a file of ratings ({error}): name another, or move it away'
      ) from error
    if row is None or row[0] != FORMAT_VERSION:
      raise ValueError(
        f'{self.path} has format {row and row[0]}, this version reads {FORMAT_VERSION}'
      )
    self.identity: dict[str, Any] = json.loads(row[1])

  def items(self) -> items_lib.Items:
    """What is rated, in the order drawn."""
    with self._connect() as connection:
      candidates: dict[str, list[items_lib.Candidate]] = {}
      for source_id, *values in connection.execute(
        'SELECT source_id, candidate_id, text FROM candidates ORDER BY candidate_id'
      ):
        candidates.setdefault(source_id, []).append(items_lib.Candidate(*values))
      sources = tuple(
        items_lib.Source(
          source_id, text, reference, bool(shared), tuple(candidates[source_id])
        )
        for source_id, text, reference, shared in connection.execute(
          'SELECT source_id, source, reference, shared FROM sources ORDER BY place'
        )
      )
      outputs = tuple(
        items_lib.Output(*values)
        for values in connection.execute(
          'SELECT system, source_id, sample, candidate_id, reward FROM outputs '
          'ORDER BY rowid'
        )
      )
    return items_lib.Items(sources, outputs)

  def rate(
    self, submission_id: str, *, rater: str, candidate_id: str, rating: int
  ) -> None:
    """Writes a rating down; a correction is one more rating of the same candidate.

    Raises:
      Conflict: the id was used for another rating.
      ValueError: no such candidate, or a rating that is not on the scale.
    """
    # A bool is an int to Python.
    if type(rating) is not int or not 0 <= rating <= MAX_RATING:
      raise ValueError(f'rating {rating!r} must be a whole number, 0 to {MAX_RATING}')
    with self._connect() as connection, _transaction(connection):
      known = connection.execute(
        'SELECT 1 FROM candidates WHERE candidate_id = ?', (candidate_id,)
      ).fetchone()
      if known is None:
        raise ValueError(f'candidate {candidate_id!r} is not in this study')
      connection.execute(
        'INSERT INTO submissions (submission_id, rater, candidate_id, rating, '
        'submitted) VALUES (?, ?, ?, ?, ?) ON CONFLICT (submission_id) DO NOTHING',
        (submission_id, rater, candidate_id, rating, _now()),
      )
      written = connection.execute(
        'SELECT rater, candidate_id, rating FROM submissions WHERE submission_id = ?',
        (submission_id,),
      ).fetchone()
      if written != (rater, candidate_id, rating):
        raise Conflict(f'submission {submission_id!r} is another rating already')

  def undo(self, submission_id: str, *, rater: str) -> str | None:
    """Retracts the rater's last submission that stands.

    What it had corrected stands again. Sent again with the same id it retracts
    nothing more.

    Returns:
      The candidate concerned; None where the rater has nothing to retract.

    Raises:
      Conflict: the id was used by another rater.
    """
    with self._connect() as connection, _transaction(connection):
      done = connection.execute(
        'SELECT rater, candidate_id FROM submissions WHERE retracted_by = ?',
        (submission_id,),
      ).fetchone()
      if done is not None:
        if done[0] != rater:
          raise Conflict(f'submission {submission_id!r} is of another rater')
        return done[1]
      last = connection.execute(
        'SELECT number, candidate_id FROM submissions '
        'WHERE rater = ? AND retracted_by IS NULL ORDER BY number DESC LIMIT 1',
        (rater,),
      ).fetchone()
      if last is None:
        return None
      connection.execute(
        'UPDATE submissions SET retracted_by = ?, retracted = ? WHERE number = ?',
        (submission_id, _now(), last[0]),
      )
      return last[1]

  def ratings_of(self, rater: str) -> dict[str, int]:
    """{candidate_id: rating} of what stands of a rater."""
    with self._connect() as connection:
      return dict(
        connection.execute(
          'SELECT candidate_id, rating FROM ratings WHERE rater = ?', (rater,)
        )
      )

  def ratings(self) -> list[Rating]:
    """All that stands, by rater and candidate."""
    with self._connect() as connection:
      return [
        Rating(*values)
        for values in connection.execute(
          'SELECT rater, candidate_id, rating, submitted FROM ratings '
          'ORDER BY rater, candidate_id'
        )
      ]

  def fingerprint(self) -> str:
    """A hash of the study and of the ratings that stand, when they came left out."""
    content = {
      'identity': self.identity,
      'ratings': [(r.rater, r.candidate_id, r.rating) for r in self.ratings()],
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()

  @contextlib.contextmanager
  def _connect(self) -> Iterator[sqlite3.Connection]:
    with _connection(self.path) as connection:
      yield connection


def create(
  path: paths.PathLike, items: items_lib.Items, identity: Mapping[str, Any]
) -> Database:
  """Makes a study's file, whole or not at all.

  Args:
    path: on a local disk; must not exist.
    items: what is rated.
    identity: JSON values that tell this study from another.

  Raises:
    ValueError: the path is remote.
    FileExistsError: there is a file.
  """
  target = local_file(path)
  if target.exists():
    raise FileExistsError(f'{target} exists: open it instead')
  with paths.write_aside(target) as aside, _connection(aside) as connection:
    connection.executescript(_SCHEMA)
    with _transaction(connection):
      connection.execute(
        'INSERT INTO study VALUES (1, ?, ?)',
        (FORMAT_VERSION, json.dumps(dict(identity), sort_keys=True)),
      )
      connection.executemany(
        'INSERT INTO sources VALUES (?, ?, ?, ?, ?)',
        [
          (place, s.source_id, s.source, s.reference, int(s.shared))
          for place, s in enumerate(items.sources)
        ],
      )
      connection.executemany(
        'INSERT INTO candidates VALUES (?, ?, ?)',
        [
          (candidate.candidate_id, source.source_id, candidate.text)
          for source in items.sources
          for candidate in source.candidates
        ],
      )
      connection.executemany(
        'INSERT INTO outputs VALUES (?, ?, ?, ?, ?)',
        [dataclasses.astuple(output) for output in items.outputs],
      )
    # One file to rename; WAL is turned on where it comes to rest.
    connection.execute('PRAGMA journal_mode = DELETE')
  with _connection(target) as connection:
    connection.execute('PRAGMA journal_mode = WAL')
  return Database(target)


def local_file(path: paths.PathLike) -> pathlib.Path:
  """The path as a file of this machine.

  Raises:
    ValueError: it lies on an object store.
  """
  if paths.is_remote(path):
    raise ValueError(
      f'{path} is remote, and SQLite needs a local disk: set ANNOTATION_DATABASE'
    )
  return pathlib.Path(path).expanduser()


@contextlib.contextmanager
def _connection(path: paths.PathLike) -> Iterator[sqlite3.Connection]:
  """A connection for one use: threads share none."""
  # Without isolation_level the module begins and commits nothing by itself.
  connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
  try:
    connection.execute('PRAGMA foreign_keys = ON')
    connection.execute('PRAGMA synchronous = FULL')
    yield connection
  finally:
    connection.close()


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
  """All or nothing; IMMEDIATE, so that a reader never has to become a writer."""
  connection.execute('BEGIN IMMEDIATE')
  try:
    yield
  except BaseException:
    connection.execute('ROLLBACK')
    raise
  connection.execute('COMMIT')


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')

"""Score: files are read and written beside the scorer, and a failure loses little."""

import pathlib
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from rest_jax.data import group_store, reward_store, shards
from rest_jax.rewards import compose, external, text
from rest_jax.stages import artifact, score
from rest_jax.training import mesh as mesh_lib
from tests import minimal_run
from tests.rewards import test_learned

SHARDS, PER_SHARD = 4, 3


def _run(model_dir):
  mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
  return artifact.Run(str(model_dir), mesh=mesh)


def _group(i):
  texts = tuple('a' * (i + j) for j in range(1 + i % 3))
  return group_store.Group(
    source_id=f's/{i}',
    source='x',
    source_tokens=np.array([5, 1], np.int32),
    reference=None,
    texts=texts,
    tokens=tuple(np.array([5, 1], np.int32) for _ in texts),
    token_log_probs=None,
    finished=np.ones(len(texts), bool),
    origins=('model',) * len(texts),
  )


@pytest.fixture
def samples(tmp_path):
  return make_samples(tmp_path)


def make_samples(directory):
  groups = [_group(i) for i in range(SHARDS * PER_SHARD)]

  def build(work):
    group_store.write_group_set(work.path, groups, num_shards=SHARDS)

  return _run(directory / 'inputs').stage(
    'grow', name='grow_1', version=1, params={}, inputs={}, build=build
  )


class Scorer:
  """The length of a text; calls `during(i)` while it scores its i-th shard."""

  name = 'length'

  def __init__(self, during=lambda call: None):
    self.scored = []
    self._during = during

  def identity(self):
    return {'scorer': self.name}

  def __call__(self, groups):
    self._during(len(self.scored))
    self.scored.append([group.source_id for group in groups])
    return [np.array([len(t) for t in g.texts], np.float32) for g in groups]


def _score(model_dir, samples, scorer):
  return score.score(
    _run(model_dir),
    name='score_1',
    samples=samples,
    scorer=scorer,
    num_gold_sources=0,
    task_feature_lengths={'inputs': 8, 'targets': 8},
  )


def _rewards(folder):
  return [
    (source_id, values.tolist())
    for path in shards.list_shards(folder, reward_store.KIND)
    for source_id, values in zip(
      reward_store.read_rewards(path).source_ids,
      reward_store.read_rewards(path).rewards,
      strict=True,
    )
  ]


EXPECTED = [
  (f's/{i}', [float(i + j) for j in range(1 + i % 3)])
  for i in range(SHARDS * PER_SHARD)
]


def test_the_learned_model_scores_a_shard_twice_alike(tmp_path):
  groups = [group for group in test_learned.make_groups() if group.tokens]

  def build(work):
    group_store.write_group_set(work.path, groups, num_shards=2)

  samples = _run(tmp_path / 'inputs').stage(
    'grow', name='grow_1', version=1, params={}, inputs={}, build=build
  )

  def scored(name):
    scorer = test_learned.make_scorer()
    scorer.identity = lambda: {'learned': 1}
    found = _score(tmp_path / name, samples, scorer)
    files = shards.list_shards(found.path, reward_store.KIND)
    return _rewards(found.path), [file.read_bytes() for file in files]

  rewards, files = scored('first')
  assert scored('second') == (rewards, files) and len(files) == 2
  # What the scorer says of all at once, within rounding: other trees share a batch.
  for (_, found), expected in zip(rewards, test_learned.score(groups), strict=True):
    np.testing.assert_allclose(found, expected, atol=2e-5)


def _until(condition):
  """Waits for what another thread does; a hang ends after 20 seconds."""
  end = time.monotonic() + 20
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.001)


def test_files_are_read_and_written_while_the_scorer_is_at_work(
  tmp_path, samples, monkeypatch
):
  reads, read = [], group_store.read_groups

  def reading(path, **options):
    reads.append(path.name)
    return read(path, **options)

  def during(call):
    # The next shard is read, no other, and the last one is written.
    _until(lambda: len(reads) == min(call + 2, SHARDS))
    _until(lambda: len(list(tmp_path.glob('run/.work/*/scratch/rewards-*'))) == call)

  monkeypatch.setattr(group_store, 'read_groups', reading)
  found = _score(tmp_path / 'run', samples, Scorer(during))
  assert _rewards(found.path) == EXPECTED


def test_a_failure_loses_the_shard_in_work_alone(tmp_path, samples):
  def during(call):
    if call == 2:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    _score(tmp_path / 'run', samples, Scorer(during))
  scorer = Scorer()
  found = _score(tmp_path / 'run', samples, scorer)
  ids = [f's/{i}' for i in range(SHARDS * PER_SHARD)]
  assert scorer.scored == [ids[6:9], ids[9:]]
  assert _rewards(found.path) == EXPECTED
  assert found.record['cost']['attempts'] == 2


# The length of each candidate, by a program that writes down its process and its rows.
EXTERNAL = """
import json, os, sys
for line in sys.stdin:
  request = json.loads(line)
  with open(sys.argv[1], 'a') as log:
    for row in request['rows']: print(os.getpid(), len(row['candidate']), file=log)
  scores = [len(row['candidate']) for row in request['rows']]
  print(json.dumps({'id': request['id'], 'scores': scores}), flush=True)
"""
# Dies by SIGKILL as the second shard's rewards are about to take their name.
KILLED = """
import pathlib, sys
from rest_jax.rewards import external
from tests import minimal_run
from tests.stages import test_score
minimal_run._kill_at(r'/scratch/rewards-')
folder = pathlib.Path(sys.argv[1])
scorer = external.ExternalScorer(sys.argv[2:], version='1', batch_size=2)
test_score._score(folder / 'run', test_score.make_samples(folder), scorer)
"""


def test_a_kill_with_an_external_scorer_loses_no_row_and_leaves_no_program(tmp_path):
  (tmp_path / 'scorer.py').write_text(EXTERNAL)
  log = tmp_path / 'log'
  command = [sys.executable, '-S', '-E', str(tmp_path / 'scorer.py'), str(log)]
  done = subprocess.run(
    [sys.executable, '-c', KILLED, str(tmp_path), *command],
    cwd=minimal_run.ROOT,
    capture_output=True,
    text=True,
    timeout=250,
    check=False,
  )
  assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
  process = int(log.read_text().split()[0])
  _until(lambda: not pathlib.Path(f'/proc/{process}').exists())
  rows = len(log.read_text().splitlines())
  scorer = external.ExternalScorer(command, version='1', batch_size=2)
  found = _score(tmp_path / 'run', make_samples(tmp_path), scorer)
  assert _rewards(found.path) == EXPECTED
  assert found.record['cost']['attempts'] == 2
  # The first shard was not scored again; of equal texts one is sent.
  again = [int(line.split()[1]) for line in log.read_text().splitlines()[rows:]]
  expected = []
  for start in range(PER_SHARD, len(EXPECTED), PER_SHARD):
    shard = [
      value for _, values in EXPECTED[start : start + PER_SHARD] for value in values
    ]
    expected += dict.fromkeys(shard)
  assert again == expected
  assert found.record['params']['scorer']['command'] == command
  scorer.end()


def test_scoring_again_gives_the_same_rewards(tmp_path, samples):
  (tmp_path / 'scorer.py').write_text(EXTERNAL)
  command = [sys.executable, '-S', str(tmp_path / 'scorer.py'), str(tmp_path / 'log')]
  members = [external.ExternalScorer(command, version='1'), Scorer()]
  scorer = compose.Ensemble(members, combine=compose.Mean((1.0, 3.0)))
  one, two = (_score(tmp_path / name, samples, scorer) for name in ('one', 'two'))
  assert _rewards(one.path) == _rewards(two.path) == EXPECTED
  assert one.fingerprint == two.fingerprint
  members[0].end()


def test_what_was_scored_before_is_not_in_the_rate(tmp_path, samples, capsys):
  def during(call):
    if call == 2:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    _score(tmp_path / 'run', samples, Scorer(during))
  capsys.readouterr()
  _score(tmp_path / 'run', samples, Scorer(lambda call: time.sleep(0.2)))
  (line,) = (x for x in capsys.readouterr().err.splitlines() if '12/12' in x)
  # Six sources in at least 0.4 s; with all twelve it could say up to 30.
  assert int(line.split(', ')[1].removesuffix(' sources/s')) <= 15


def test_a_shard_that_cannot_be_written_is_named(tmp_path, samples, monkeypatch):
  write = reward_store.write_rewards

  def failing(path, *args, **options):
    if 'rewards-00001' in path.name:
      raise OSError(28, 'No space left on device')
    write(path, *args, **options)

  monkeypatch.setattr(reward_store, 'write_rewards', failing)
  with pytest.raises(OSError, match=r'rewards-00001-of-00004.*could not be written'):
    _score(tmp_path / 'run', samples, Scorer())
  assert not (tmp_path / 'run' / 'score_1').exists()
  names = [thread.name for thread in threading.enumerate()]
  assert not any(name.startswith('shard-') for name in names)


def test_a_scorer_of_per_candidate_texts_goes_through(tmp_path, samples):
  scorer = text.PerCandidate(_letters)
  assert _rewards(_score(tmp_path / 'run', samples, scorer).path) == EXPECTED


def _letters(source, candidate, reference):
  del source, reference
  return float(len(candidate))

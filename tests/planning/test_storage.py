"""The size of D_g and of MODEL_DIR: reckoned, then compared with a real run's."""

import dataclasses
import json

import pytest

from rest_jax.planning import memory, storage, tables
from tests import minimal_run
from tests.planning import test_memory


def parquet_bytes(folder):
  return sum(file.stat().st_size for file in folder.rglob('*.parquet'))


def test_nothing_is_said_of_a_corpus_that_nobody_read(tmp_path):
  run = test_memory.planned(tmp_path, 'grow.grow.num_sources = None')
  sizes = storage.grow_sizes(run)
  assert sizes['grow_1'] == storage.GrowSize(samples=3)
  assert sizes['grow_1'].candidates is None and 'ingested' in sizes['grow_1'].how
  _, unknown = storage.disk_bytes(run, memory.by_stage(run))
  assert unknown == ['grow_1', 'grow_2']


def test_without_a_corpus_gin_gives_the_most(tmp_path):
  size = storage.grow_sizes(test_memory.planned(tmp_path))['grow_1']
  # 24 sources of 3 candidates of at most 24 tokens.
  assert (size.sources, size.candidates, size.tokens) == (24, 72, 72 * 24)
  assert size.bytes == round(24 * 160 + 72 * 24 * 7.6)
  assert 'the longest that gin allows' in size.how


def test_with_a_corpus_its_references_tell(tmp_path):
  minimal_run.start(tmp_path / 'x', run_mode='ingest')
  size = storage.grow_sizes(test_memory.planned(tmp_path))['grow_1']
  split = minimal_run.record(tmp_path / 'x', 'corpus')['results']['splits']['train']
  assert size.sources == 24 < split['sources'] and 'references' in size.how
  mean = split['target_tokens'] / split['sources']
  assert size.tokens == round(72 * mean) < 72 * 24
  own = parquet_bytes(tmp_path / 'x' / 'corpus' / 'train') / split['sources']
  assert size.bytes == round(24 * own + 72 * mean * 7.6)
  # More than there are cannot be sampled.
  run = test_memory.planned(tmp_path, 'grow.grow.num_sources = 1000')
  assert storage.grow_sizes(run)['grow_1'].sources == split['sources']


def finished(run, folder):
  """The run, its first group set finished by hand."""
  results = {'sources': 24, 'tokens': 720, 'candidates': 72}
  files = {'groups-00000-of-00001.parquet': 5000, 'config.gin': 700}
  record = {'fingerprint': '', 'files': files, 'results': results}
  (folder / 'grow_1').mkdir(parents=True)
  text = json.dumps(record | {'cost': {}, 'stage': 'grow'})
  (folder / 'grow_1' / 'stage.json').write_text(text)
  run.history = [
    dataclasses.replace(
      entry, artifact=dataclasses.replace(entry.artifact, finished=True)
    )
    if entry.artifact.name == 'grow_1'
    else entry
    for entry in run.history
  ]
  return run


def test_a_finished_set_tells_of_the_next_and_takes_no_more_disk(tmp_path):
  run = test_memory.planned(tmp_path)
  needs = memory.by_stage(run)
  before = storage.grow_sizes(run)
  left = storage.disk_bytes(run, needs)[0]
  sizes = storage.grow_sizes(finished(run, tmp_path / 'x'))
  assert sizes['grow_1'] == storage.GrowSize(3, 24, 720, 5000, 'finished')
  assert sizes['grow_2'].tokens == 720 and 'the last samples' in sizes['grow_2'].how
  saved = before['grow_1'].bytes + before['grow_2'].bytes - sizes['grow_2'].bytes
  assert left - storage.disk_bytes(run, needs)[0] == pytest.approx(saved, abs=2)


def test_a_disk_has_room_for_models_and_for_checkpoints(tmp_path):
  run = test_memory.planned(tmp_path, 'THRESHOLDS = ((0.6,),)')
  needs = memory.by_stage(run)
  total, unknown = storage.disk_bytes(run, needs)
  models = [needs[name] for name in ('bc', 'reward_model', 'improve_1_1')]
  sizes = storage.grow_sizes(run)
  samples = sum(size.bytes for size in sizes.values())
  rewards = sum(s.candidates + s.sources for s in sizes.values()) * 9.2
  checkpoint = max(2 * m.trained_bytes + m.optimiser for m in models)
  expected = sum(m.trained_bytes for m in models) + 3 * checkpoint + samples + rewards
  assert total == pytest.approx(expected, abs=2) and unknown == []


def test_the_dry_run_prints_it(tmp_path):
  printed = minimal_run.start(tmp_path / 'x', dry_run=True)
  assert 'on each device, without activations' in printed
  assert 'grow_1 and 1 alike' in printed and '24 x 3' in printed
  assert 'MODEL_DIR will grow by about' in printed and 'problem' not in printed


@pytest.mark.parametrize(
  ('size', 'words'),
  [(0, '0 B'), (999, '999 B'), (1500, '1.5 kB'), (2e9, '2 GB'), (1.5e16, '15 PB')],
)
def test_bytes_in_words(size, words):
  assert tables.in_words(size) == words

"""Hundreds of tiny shards through Grow and score: memory, threads and files stay flat.

A stub draws long candidates and a stub scores them, so that what is kept too long
shows: all candidates together are many times what may be held at once.
"""

import dataclasses
import os
import pathlib
import sys
import threading
import types
import weakref

import jax
import numpy as np
import pytest

from rest_jax.data import group_store, shards
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, grow, policies, score
from rest_jax.training import mesh as mesh_lib

SHARDS, PER_SHARD, SAMPLES = 200, 2, 4
TOKENS = 4000  # of a candidate, with its log-probabilities 32 kB
LANES, TICKETS = 8, 4
BLOCK = LANES * TICKETS * SAMPLES  # candidates
WARM_UP = 0.25  # of the shards
ALL_BYTES = SHARDS * PER_SHARD * SAMPLES * TOKENS * 8


class Live:
  """Counts what is alive of all that it was shown."""

  def __init__(self):
    self._refs = {}
    self.total = self.most = 0

  def show(self, thing):
    ref = weakref.ref(thing, lambda ref: self._refs.pop(id(ref)))
    self._refs[id(ref)] = ref
    self.total += 1
    self.most = max(self.most, len(self._refs))

  def __len__(self):
    return len(self._refs)


class Probe:
  """Memory, threads and files of this process after every so many sources."""

  def __init__(self):
    self.sources = 0
    self.rss_bytes = []  # after the warm-up

  def advance(self, sources):
    self.sources += sources
    if self.sources >= WARM_UP * SHARDS * PER_SHARD and self.sources % 16 == 0:
      pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
      self.rss_bytes.append(pages * os.sysconf('SC_PAGE_SIZE'))

  def growth_bytes(self):
    """From the first quarter of what was measured to the last, medians."""
    quarter = len(self.rss_bytes) // 4
    first, last = self.rss_bytes[:quarter], self.rss_bytes[-quarter:]
    return float(np.median(last) - np.median(first))


class Sampler:
  """Takes the place of the sampler: the last source is complete first."""

  live: Live
  probe: Probe

  def __init__(self, *args, **options):
    del args, options
    self.counts = sampler_lib.Counts()

  def sample(self, groups, num_samples):
    for row in reversed(range(len(groups))):
      tokens = [np.full(TOKENS, 2 + i, np.int32) for i in range(num_samples)]
      log_probs = [np.full(TOKENS, -1.0, np.float32) for _ in range(num_samples)]
      for array in tokens:
        self.live.show(array)
      self.counts.tokens += TOKENS * num_samples
      self.counts.steps += TOKENS
      self.probe.advance(1)
      samples = dataclasses.replace(
        groups[row],
        texts=('x',) * num_samples,
        tokens=tuple(tokens),
        token_log_probs=tuple(log_probs),
        finished=np.zeros(num_samples, bool),
        origins=('model',) * num_samples,
      )
      del tokens, log_probs, array
      yield row, samples
      del samples


class Scorer:
  """Takes the place of a reward model."""

  name = 'stub'

  def __init__(self, live, probe):
    self._live, self._probe = live, probe

  def identity(self):
    return {'scorer': self.name}

  def __call__(self, groups):
    self._live.show(groups[0])
    self._probe.advance(len(groups))
    return [np.zeros(group.num_candidates, np.float32) for group in groups]


def _threads_and_files():
  threads = [t for t in threading.enumerate() if t.name.startswith('shard-')]
  return len(threads), len(os.listdir('/proc/self/fd'))


def _input(run, stage, name, num_shards):
  tokens = np.array([5, 1], np.int32)
  sources = [
    group_store.pair(f'train/{i}', 'x', tokens, 'y', tokens)
    for i in range(num_shards * PER_SHARD)
  ]

  def build(work):
    group_store.write_group_set(work.path / 'train', sources, num_shards=num_shards)
    work.results['splits'] = {'train': {'sources': len(sources)}}

  return run.stage(stage, name=name, version=1, params={}, inputs={}, build=build)


def _pass(folder, num_shards, monkeypatch):
  """Grow, then score; returns what was alive and what was measured of each."""
  mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
  run = artifact.Run(str(folder), mesh=mesh)
  corpus = _input(run, 'ingest', 'corpus', num_shards)
  model = types.SimpleNamespace(params={}, config=None, vocabulary=None)
  monkeypatch.setattr(policies, 'load_model', lambda *args: model)
  monkeypatch.setattr(sampler_lib, 'Sampler', Sampler)
  Sampler.live, Sampler.probe = Live(), Probe()
  lengths = {'inputs': 8, 'targets': TOKENS}
  samples = grow.grow(
    run,
    name='grow_1',
    corpus=corpus,
    policy=corpus,
    num_samples=SAMPLES,
    task_feature_lengths=lengths,
    sampler=sampler_lib.SamplerSettings(batch_size=LANES, tickets=TICKETS),
  )
  scorer = Scorer(Live(), Probe())
  score.score(
    run,
    name='score_1',
    samples=samples,
    scorer=scorer,
    num_gold_sources=0,
    task_feature_lengths=lengths,
  )
  return (samples, Sampler.live, Sampler.probe, scorer._live, scorer._probe)


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc/self')
def test_memory_threads_and_files_do_not_grow_with_the_corpus(tmp_path, monkeypatch):
  _pass(tmp_path / 'first', 4, monkeypatch)  # what is made once and kept
  before = _threads_and_files()
  samples, drawn, growing, read, scoring = _pass(tmp_path / 'soak', SHARDS, monkeypatch)
  assert _threads_and_files() == before
  assert len(shards.list_shards(samples.path)) == SHARDS
  assert samples.results['candidates'] == drawn.total == SHARDS * PER_SHARD * SAMPLES
  assert samples.results['distinct'] == drawn.total
  # The block in work, and one block's worth that waits to be written or is.
  assert drawn.most <= 2 * BLOCK and len(drawn) == 0
  # The shard in work and the one read ahead, which is not shown yet.
  assert read.total == SHARDS and read.most == 1 and len(read) == 0
  for probe in (growing, scoring):
    assert probe.sources == SHARDS * PER_SHARD
    # Samples that were kept would make it 0.56 of all; measured: below 0.03.
    assert probe.growth_bytes() < ALL_BYTES / 4, probe.growth_bytes()

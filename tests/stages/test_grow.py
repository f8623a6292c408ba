"""Grow: the same samples to the bit after a failure, however its shards are cut.

The policy is of the smallest size and not trained. Files are written by a thread
beside the sampler, so what a failure leaves depends on the moment; what the finished
stage holds does not.
"""

import dataclasses
import shutil
import time

import numpy as np
import pytest

from rest_jax.data import group_store, shards
from rest_jax.sampling import draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import grow
from tests.stages import untrained

LENGTHS = {'inputs': 32, 'targets': 48}
SOURCES, SAMPLES, PER_SHARD = 36, 3, 4
SETTINGS = sampler_lib.SamplerSettings(batch_size=4, share=1)
BLOCK = 5 * PER_SHARD * SAMPLES // 4  # tickets of a lane: five shards are a block


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
  """The corpus and the policy that are grown from."""
  run = untrained.run(tmp_path_factory.mktemp('grow') / 'inputs')
  corpus = untrained.corpus(
    run, num_validation=6, num_test=6, sources_per_shard=PER_SHARD, overlong='truncate'
  )
  return {'corpus': corpus, 'policy': untrained.policy(run, corpus)}


def _grow(model_dir, inputs, tickets=BLOCK, **changed):
  options = {
    'name': 'grow_1',
    'num_samples': SAMPLES,
    'num_sources': SOURCES,
    'task_feature_lengths': LENGTHS,
    # Candidates of many lengths, although nothing was learned.
    'decoding': draws.Decoding(temperature=4.0, top_k=60),
    'sampler': dataclasses.replace(SETTINGS, tickets=tickets),
  }
  return grow.grow(untrained.run(model_dir), **inputs, **(options | changed))


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory, inputs):
  return _grow(tmp_path_factory.mktemp('grow') / 'undisturbed', inputs)


def _files(folder):
  """{name: bytes} of the shards."""
  return {path.name: path.read_bytes() for path in folder.glob('groups-*')}


def test_the_shards_are_those_of_the_corpus_with_samples_and_data(inputs, undisturbed):
  found = shards.list_shards(undisturbed.path)
  assert len(found) == SOURCES // PER_SHARD
  for path, source in zip(
    found, shards.list_shards(inputs['corpus'].path / 'train'), strict=False
  ):
    groups = group_store.read_groups(path)
    sources = group_store.read_groups(source)
    assert [g.source_id for g in groups] == [g.source_id for g in sources]
    for group, data in zip(groups, sources, strict=True):
      assert group.origins == ('model',) * SAMPLES + ('data',)
      assert group.texts[-1] == data.texts[0]
      assert np.isnan(group.token_log_probs[-1]).all()
      assert not any(np.isnan(values).any() for values in group.token_log_probs[:-1])


def test_the_results_count_what_is_there(undisturbed):
  groups = list(group_store.iterate_groups(undisturbed.path))
  drawn = [[tuple(t) for t in group.tokens[:SAMPLES]] for group in groups]
  tokens = sum(len(t) for group in drawn for t in group)
  distinct = sum(len(set(group)) for group in drawn)
  unfinished = sum(t[-1] != 1 for group in drawn for t in group)
  assert 0 < unfinished < SOURCES * SAMPLES  # both kinds are there
  assert undisturbed.results == {
    'sources': SOURCES,
    'candidates': SOURCES * SAMPLES,
    'data_candidates': SOURCES,
    'tokens': tokens,
    'unfinished': unfinished,
    'distinct': distinct,
    'mean_length': tokens / (SOURCES * SAMPLES),
    'unfinished_fraction': unfinished / (SOURCES * SAMPLES),
    'duplicate_fraction': 1 - distinct / (SOURCES * SAMPLES),
  }


def test_the_cost_holds_the_decoders_steps_and_rows(undisturbed):
  counts = undisturbed.record['cost']['counts']
  longest = max(
    len(tokens)
    for group in group_store.iterate_groups(undisturbed.path)
    for tokens in group.tokens[:SAMPLES]
  )
  assert counts['decoder_steps'] >= longest
  # Every step decodes each lane's slots, or a quarter of them at a block's end.
  steps, lanes = counts['decoder_steps'], SETTINGS.batch_size
  assert steps * lanes / 4 <= counts['decoder_rows'] <= steps * lanes


class Failing:
  """Group shards of some numbers can be written; the disk is full for the others."""

  def __init__(self, patch, numbers):
    self.names = {shards.shard_path('x', i, SOURCES // PER_SHARD).name for i in numbers}
    self.write = group_store.write_groups
    patch.setattr(group_store, 'write_groups', self)

  def __call__(self, path, groups):
    if path.name not in self.names:
      raise OSError(28, 'No space left on device')
    self.write(path, groups)


def _fail(model_dir, inputs, numbers):
  """A Grow that can write the shards of these numbers only; returns what it left."""
  with pytest.MonkeyPatch.context() as patch:
    Failing(patch, numbers)
    with pytest.raises(OSError, match=r'groups-.*parquet could not be written.*space'):
      _grow(model_dir, inputs)
  (folder,) = model_dir.glob('.work/grow_1-*/artifact')
  return folder


def test_after_a_failure_the_files_are_the_same_bytes(tmp_path, inputs, undisturbed):
  written = set(_files(_fail(tmp_path, inputs, (0, 1, 2, 4))))
  assert written <= {path.name for path in shards.list_shards(undisturbed.path)[:5]}
  again = _grow(tmp_path, inputs)
  assert _files(again.path) == _files(undisturbed.path)
  assert again.results == undisturbed.results
  assert again.record['cost']['attempts'] == 2


# Blocks are 0 to 4 and 5 to 8; the shards of a block end in no certain order.
@pytest.mark.parametrize(
  ('left', 'again'),
  [
    ((3,), range(9)),
    ((0, 1, 2, 4), range(9)),
    ((0, 1, 2, 3, 4), range(5, 9)),
    ((0, 1, 2, 3, 4, 6, 8), range(5, 9)),
  ],
)
def test_blocks_that_a_kill_left_undone_are_sampled_whole(
  tmp_path, inputs, undisturbed, left, again
):
  folder = _fail(tmp_path, inputs, ())
  paths = shards.list_shards(undisturbed.path)
  for number in left:
    shutil.copy(paths[number], folder)
  sampled = []
  sample = sampler_lib.Sampler.sample

  def spy(self, groups, num_samples):
    sampled.extend(group.source_id for group in groups)
    return sample(self, groups, num_samples)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sampler_lib.Sampler, 'sample', spy)
    found = _grow(tmp_path, inputs)
  # Shard 3 sampled alone has log-probabilities with other last bits.
  assert _files(found.path) == _files(undisturbed.path)
  assert found.results == undisturbed.results
  ids = [group.source_id for group in group_store.iterate_groups(found.path)]
  assert sampled == [
    ids[row]
    for number in again
    for row in range(number * PER_SHARD, (number + 1) * PER_SHARD)
  ]


def test_the_samples_are_the_same_shard_by_shard(tmp_path, inputs, undisturbed):
  alone = _grow(tmp_path, inputs, tickets=1)
  assert set(_files(alone.path)) == set(_files(undisturbed.path))
  one = group_store.iterate_groups(undisturbed.path)
  two = group_store.iterate_groups(alone.path)
  for a, b in zip(one, two, strict=True):
    assert a.texts == b.texts
    for x, y in zip(a.token_log_probs, b.token_log_probs, strict=True):
      # Other neighbours, other padding: float32 sums in another order.
      np.testing.assert_allclose(x, y, atol=1e-5)


def _until(condition):
  """Waits for what another thread does; a hang ends after 20 seconds."""
  end = time.monotonic() + 20
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.001)


def test_files_are_read_and_written_while_the_sampler_is_at_work(
  tmp_path, inputs, undisturbed, monkeypatch
):
  reads = []
  read, sample = group_store.read_groups, sampler_lib.Sampler.sample

  def reading(path, **options):
    reads.append(path.name)
    return read(path, **options)

  def sampling(self, groups, num_samples):
    if groups[0].source_id == first:  # the second block is read meanwhile
      _until(lambda: len(reads) == SOURCES // PER_SHARD)
    else:  # the first block is written meanwhile
      _until(lambda: len(list(tmp_path.glob('.work/*/artifact/groups-*'))) == 5)
    return sample(self, groups, num_samples)

  first = next(group_store.iterate_groups(undisturbed.path)).source_id
  monkeypatch.setattr(group_store, 'read_groups', reading)
  monkeypatch.setattr(sampler_lib.Sampler, 'sample', sampling)
  assert _files(_grow(tmp_path, inputs).path) == _files(undisturbed.path)


@pytest.mark.parametrize('terminal', [True, False])
def test_progress_shows_samples_and_tokens_a_second(
  tmp_path, inputs, monkeypatch, capsys, terminal
):
  if terminal:
    monkeypatch.setenv('FORCE_COLOR', '1')
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('COLUMNS', '160')
  found = _grow(tmp_path, inputs, num_sources=8)
  told = capsys.readouterr().err
  assert 'tokens/s' in told
  # The rate covers every token: the last one told is the whole work's.
  plain = [line for line in told.splitlines() if line.startswith('grow_1: 24/24')]
  assert len(plain) == (0 if terminal else 1)  # and no line for each source
  if not terminal:
    seconds, rate = (float(word.replace(',', '')) for word in (
      plain[0].split(' samples/s, ')[1].split(' s, ')[0], plain[0].split()[-2]
    ))  # fmt: skip
    tokens = found.results['tokens']
    assert tokens / (seconds + 0.1) <= rate <= tokens / max(seconds - 0.5, 0.01)

"""Ingest: a shard is what is kept of consecutive pairs, whoever makes it and when."""

import dataclasses

import pytest

from rest_jax import paths
from rest_jax.data import corpora, group_store, pairs, shards
from rest_jax.rewards import text
from rest_jax.stages import grow, ingest, score
from tests.stages import untrained

WORDS = ('ein', 'Hund', 'und', 'eine', 'Katze', 'sehen', 'das', 'rote', 'Haus')
LENGTHS = {'inputs': 40, 'targets': 40}


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Ten pairs a split; those that are named are too long."""

  too_long: tuple[int, ...] = ()
  splits = pairs.SPLITS

  def __call__(self, split):
    for index in range(10):
      words = 30 if index in self.too_long else 2
      source = ' '.join(WORDS[(index + j) % len(WORDS)] for j in range(words))
      yield corpora.Pair(source, f'{source} .')

  def identity(self):
    return dataclasses.asdict(self)


def make(run, too_long=(), **options):
  return ingest.ingest(
    run,
    corpus=Corpus(too_long),
    vocab_size=20,
    byte_fallback=False,
    task_feature_lengths=LENGTHS,
    sources_per_shard=4,
    **options,
  )


def ids(path):
  return [
    [group.source_id for group in group_store.read_groups(shard)]
    for shard in shards.list_shards(path)
  ]


def test_a_shard_holds_what_is_kept_of_its_pairs(tmp_path):
  corpus = make(untrained.run(tmp_path), too_long=(1, 8))
  assert ids(corpus.path / 'train') == [
    [f'train/{i:08d}' for i in kept] for kept in ([0, 2, 3], [4, 5, 6, 7], [9])
  ]
  counts = corpus.results['splits']['train']
  assert counts['pairs'] == 10 and counts['sources'] == 8 and counts['dropped'] == 2
  groups = list(group_store.iterate_groups(corpus.path / 'train'))
  assert counts['source_tokens'] == sum(len(g.source_tokens) for g in groups)
  assert counts['target_tokens'] == sum(len(g.tokens[0]) for g in groups)
  assert counts['truncated'] == 0


def test_truncation_is_counted(tmp_path):
  corpus = make(untrained.run(tmp_path), too_long=(1, 8), overlong='truncate')
  counts = corpus.results['splits']['train']
  assert (counts['sources'], counts['truncated'], counts['dropped']) == (10, 2, 0)
  groups = list(group_store.iterate_groups(corpus.path / 'train'))
  assert max(len(g.source_tokens) for g in groups) == LENGTHS['inputs']


def test_a_shard_that_keeps_nothing_is_grown_and_scored(tmp_path):
  run = untrained.run(tmp_path)
  corpus = make(run, too_long=(4, 5, 6, 7))
  assert [len(shard) for shard in ids(corpus.path / 'train')] == [4, 0, 2]
  policy = untrained.policy(run, corpus)
  grown = grow.grow(
    run,
    name='grow_1',
    corpus=corpus,
    policy=policy,
    num_samples=2,
    task_feature_lengths=LENGTHS,
  )
  assert grown.results['sources'] == 6 and grown.results['candidates'] == 12
  scored = score.score(
    run,
    name='score_1',
    samples=grown,
    scorer=text.ChrfReward(),
    task_feature_lengths=LENGTHS,
  )
  assert scored.results['candidates'] == 18  # the six references too


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
  run = untrained.run(tmp_path / 'run')
  write, written = group_store.write_groups, []

  def fail_at_last(path, groups):
    if 'validation' in str(path) and '00002-of' in str(path):
      raise OSError(28, 'No space left on device')
    written.append(str(path))
    write(path, groups)

  monkeypatch.setattr(group_store, 'write_groups', fail_at_last)
  with pytest.raises(OSError, match='No space'):
    make(run, too_long=(2,))
  before = len(written)
  assert before == 3 + 2
  monkeypatch.setattr(
    group_store,
    'write_groups',
    lambda path, groups: (written.append(str(path)), write(path, groups)),
  )
  corpus = make(run, too_long=(2,))
  assert len(written) == 9 and len(set(written)) == 9
  other = make(untrained.run(tmp_path / 'other'), too_long=(2,))
  assert other.results == corpus.results
  for split in pairs.SPLITS:
    for one, two in zip(
      *(shards.list_shards(made.path / split) for made in (corpus, other)), strict=True
    ):
      assert paths.content_hash(one) == paths.content_hash(two)


def test_the_vocabulary_is_trained_on_a_share(tmp_path, monkeypatch):
  seen = []
  train = ingest.vocabularies.train_sentencepiece

  def spy(texts, *arguments, **options):
    seen.extend(texts)
    return train(iter(seen), *arguments, **options)

  monkeypatch.setattr(ingest.vocabularies, 'train_sentencepiece', spy)
  make(untrained.run(tmp_path), vocabulary_sentences=7)
  every = [t for pair in Corpus()('train') for t in (pair.source, pair.reference)]
  assert seen == every[::3]

"""Ingest: a corpus becomes group sets of one candidate each, and a vocabulary.

train/ validation/ test/   group sets; the reference is the one candidate
vocabulary.model           SentencePiece, trained here or brought along
corpus.json                what was read, cut and dropped
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent import futures
from typing import Any

import numpy as np

from rest_jax import paths
from rest_jax.data import (
  brought_vocabularies,
  buckets,
  corpora,
  group_store,
  shards,
  vocabularies,
)
from rest_jax.stages import artifact, policies
from rest_jax.stages import progress as progress_lib
from rest_jax.training import hosts

VERSION = 2
OVERLONG = ('drop', 'truncate')
SPLITS = ('train', 'validation', 'test')
_COUNTED = (
  'pairs',
  'sources',
  'dropped',
  'truncated',
  'source_tokens',
  'target_tokens',
)
_READERS = 32  # of small files, which an object store answers slowly


def ingest(
  run: artifact.Run,
  *,
  name: str = 'corpus',
  corpus: Any,
  vocab_size: int = 32_000,
  byte_fallback: bool = True,
  vocabulary_path: str | None = None,
  extra_ids: int | None = None,
  vocabulary_from: artifact.Artifact | None = None,
  source_prefix: str = '',
  task_feature_lengths: Mapping[str, int],
  overlong: str = 'drop',
  sources_per_shard: int = 1024,
  vocabulary_sentences: int = 5_000_000,
) -> artifact.Artifact:
  """Reads a corpus into group sets.

  A shard holds what is kept of so many consecutive pairs, so that shards are made one
  by one: a kill loses one, and of several hosts each makes the next that no other has
  taken. All read the text, which is quick beside encoding it.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact.
    corpus: one of `data.corpora`: `splits`, `identity()`, and called with a
      split's name it yields `corpora.Pair`.
    vocab_size: of the SentencePiece model to train on the train split.
    vocabulary_path: a vocabulary to use instead of training one: a SentencePiece
      model, the directory of a Hugging Face model, or 'byt5'.
    extra_ids: sentinels to append to its pieces, T5's 100; None takes what the
      directory's files say, and none without.
    vocabulary_from: an earlier corpus whose vocabulary to use instead.
    byte_fallback: whether the trained vocabulary spells unknown characters in
      bytes, at the price of 256 pieces.
    source_prefix: what the model reads before each source, such as MADLAD-400's
      '<2en> ' or T5's 'translate German to English: '. The stored text of a source
      goes without.
    task_feature_lengths: T5X's {'inputs': ..., 'targets': ...}: the most tokens of
      a source and of a target, EOS included.
    overlong: what to do with a longer pair: 'drop' it or 'truncate' the side
      that is too long. Either way it is counted and reported.
    sources_per_shard: sources in one Parquet file at most, the unit of work of Grow
      and score and what a kill can lose there.
    vocabulary_sentences: a vocabulary is trained on no more than so many sentences,
      every so-manieth of the train split.

  Raises:
    ValueError: an empty corpus, one that lacks a split, or an argument out of range.
  """
  if overlong not in OVERLONG:
    raise ValueError(f'overlong={overlong!r} must be one of {OVERLONG}')
  source_length, target_length = buckets.feature_lengths(task_feature_lengths)
  missing = sorted(set(SPLITS) - set(corpus.splits))
  if missing and vocabulary_from is None:
    raise ValueError(
      f'the corpus has no {" and no ".join(missing)} split: a run trains on train, '
      'chooses by validation and reports on test; give all three'
    )
  # Grow unites a second corpus with D, so its ids begin with its name.
  id_prefix = '' if vocabulary_from is None else f'{name}/'
  params = {
    'corpus': corpus,
    'vocab_size': vocab_size,
    'vocabulary_path': vocabulary_path,
    'byte_fallback': byte_fallback,
    'task_feature_lengths': dict(task_feature_lengths),
    'overlong': overlong,
    'sources_per_shard': sources_per_shard,
    'vocabulary_sentences': vocabulary_sentences,
  }
  if vocabulary_path is not None or vocabulary_from is not None:
    # Decided by the vocabulary that is brought.
    params['vocab_size'] = params['vocabulary_sentences'] = None
  brought = None
  if vocabulary_path is not None:
    brought = brought_vocabularies.bring(vocabulary_path, extra_ids=extra_ids)
    params['vocabulary_sha256'] = brought.identity()['sha256']
  elif extra_ids is not None:
    raise ValueError(
      f'extra_ids={extra_ids} go with a vocabulary that is brought along, and none is: '
      'set VOCABULARY, or leave EXTRA_IDS at None'
    )
  if source_prefix:
    params['source_prefix'] = source_prefix

  def write_vocabulary(file: Any) -> None:
    if vocabulary_from is not None:
      taken = (vocabulary_from.path / policies.VOCABULARY_FILE).read_bytes()
      paths.write_bytes_atomic(file, taken)
    elif brought is not None:
      brought.save(file)
    else:
      progress_lib.say(f'{name}: training a vocabulary of {vocab_size:,} pieces')
      stride = -(-_count(_texts(corpus('train'))) // vocabulary_sentences)
      vocabularies.train_sentencepiece(
        itertools.islice(_texts(corpus('train')), 0, None, max(1, stride)),
        file,
        vocab_size=vocab_size,
        byte_fallback=byte_fallback,
      )

  def build(work: artifact.Work) -> None:
    file = work.path / policies.VOCABULARY_FILE
    if hosts.is_primary() and not file.exists():
      with hosts.untimed():
        write_vocabulary(file)
    hosts.barrier(f'{name} has its vocabulary')
    writer = _SplitWriter(
      work,
      vocabularies.Vocabulary.load(file),
      source_length,
      target_length,
      overlong,
      sources_per_shard,
      id_prefix,
      source_prefix,
    )
    splits = {}
    for split in corpus.splits:
      counts = writer.write(split, corpus)
      if counts is None:  # the first host knows
        continue
      splits[split] = counts
      progress_lib.say(f'{name}: {split}: {_sentence(counts)}')
      if not counts['sources']:
        raise ValueError(
          f'the corpus has no pair in its {split} split of at most {source_length} '
          f'source and {target_length} target tokens: {_sentence(counts)}'
        )
    if not splits:
      return
    work.results.update(splits=splits, vocabulary_size=writer.vocabulary.size)
    paths.write_text_atomic(
      work.path / 'corpus.json',
      json.dumps({'corpus': params['corpus'].identity(), **work.results}, indent=1),
    )

  inputs = {'vocabulary': vocabulary_from}
  return run.stage(
    'ingest',
    name=name,
    version=VERSION,
    params=params,
    inputs=inputs,
    build=build,
    teamwork='apart',
  )


def source_prefix_of(corpus: artifact.Artifact) -> str:
  """What the sources of a finished corpus were read with in front."""
  prefix: str = corpus.record['params'].get('source_prefix', '')
  return prefix


class _SplitWriter:
  """Encodes pairs and writes them as shards of a group set."""

  def __init__(
    self,
    work: artifact.Work,
    vocabulary: vocabularies.Vocabulary,
    source_length: int,
    target_length: int,
    overlong: str,
    sources_per_shard: int,
    id_prefix: str,
    source_prefix: str,
  ):
    self.vocabulary = vocabulary
    self._work = work
    self._limits = source_length, target_length
    self._overlong = overlong
    self._sources_per_shard = sources_per_shard
    self._id_prefix = id_prefix
    self._source_prefix = source_prefix

  def write(self, split: str, corpus: Any) -> dict[str, int] | None:
    """Writes one split; tells the first host what was read, dropped and truncated."""
    total, size = _count(corpus(split)), self._sources_per_shard
    num_shards = -(-total // size)
    directory, notes = self._work.path / split, self._work.scratch / split
    # An object store has no folder where no object is.
    there = {entry.name for entry in notes.iterdir()} if notes.is_dir() else set()
    hosts.barrier(f'{self._work.name}/{split} is seen')  # by all alike
    names = [f'{index}.json' for index in range(num_shards)]  # of what each holds
    left = [index for index in range(num_shards) if names[index] not in there]
    done = total - sum(min(size, total - index * size) for index in left)
    blocks = enumerate(_blocks(corpus(split), size))
    with progress_lib.progress(
      f'{self._work.name}: {split}', total, unit='pairs', done=done
    ) as advance:
      for number in hosts.share(f'{self._work.name}/{split}', len(left)):
        index = left[number]
        block = next(block for at, block in blocks if at == index)
        groups, counts = self._groups(block, split, index * size)
        shard = shards.shard_path(directory, index, num_shards)
        group_store.write_groups(shard, groups)
        paths.write_json_atomic(notes / names[index], counts)
        advance(len(block))
    hosts.barrier(f'{self._work.name}/{split} is written')
    if not hosts.is_primary():
      return None
    with futures.ThreadPoolExecutor(_READERS) as pool:
      found = list(pool.map(lambda name: paths.read_json(notes / name), names))
    return {key: sum(one[key] for one in found) for key in _COUNTED}

  def _groups(
    self, pairs: list[corpora.Pair], split: str, first: int
  ) -> tuple[list[group_store.Group], dict[str, int]]:
    """What is kept of consecutive pairs, and what became of them."""
    counts = dict.fromkeys(_COUNTED, 0) | {'pairs': len(pairs)}
    prefix = self._source_prefix
    sources = self.vocabulary.encode_batch([prefix + pair.source for pair in pairs])
    references = self.vocabulary.encode_batch([pair.reference or '' for pair in pairs])
    groups = []
    for index, (pair, source, reference) in enumerate(
      zip(pairs, sources, references, strict=True), start=first
    ):
      known = pair.reference is not None
      source, long_source = _truncate(source, self._limits[0])
      reference, long_reference = _truncate(reference, self._limits[1])
      if long_source or (long_reference and known):
        if self._overlong == 'drop':
          counts['dropped'] += 1
          continue
        counts['truncated'] += 1
      counts['sources'] += 1
      counts['source_tokens'] += len(source)
      counts['target_tokens'] += len(reference) if known else 0
      groups.append(
        group_store.pair(
          f'{self._id_prefix}{split}/{index:08d}',
          pair.source,
          source,
          pair.reference,
          reference if known else None,
          renderings=pair.renderings,
        )
      )
    return groups, counts


def _count(things: Iterable[Any]) -> int:
  return sum(1 for _ in things)


def _truncate(tokens: np.ndarray, limit: int) -> tuple[np.ndarray, bool]:
  """Cuts to `limit` tokens, EOS kept at the end."""
  if len(tokens) <= limit:
    return tokens, False
  return np.concatenate([tokens[: limit - 1], tokens[-1:]]), True


def _blocks(pairs: Iterable[corpora.Pair], size: int) -> Iterator[list[corpora.Pair]]:
  block = []
  for pair in pairs:
    block.append(pair)
    if len(block) == size:
      yield block
      block = []
  if block:
    yield block


def _texts(pairs: Iterable[corpora.Pair]) -> Iterator[str]:
  for pair in pairs:
    yield pair.source
    if pair.reference is not None:
      yield pair.reference


def _sentence(counts: dict[str, int]) -> str:
  return (
    f'{counts["sources"]:,} of {counts["pairs"]:,} pairs kept, '
    f'{counts["dropped"]:,} too long and dropped, {counts["truncated"]:,} truncated'
  )

"""Ingest: a corpus becomes group sets of one candidate each, and a vocabulary.

train/ validation/ test/   group sets; the reference is the one candidate
vocabulary.model           SentencePiece, trained here or brought along
corpus.json                what was read, cut and dropped
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

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

VERSION = 1
OVERLONG = ('drop', 'truncate')
SPLITS = ('train', 'validation', 'test')


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
) -> artifact.Artifact:
  """Reads a corpus into group sets.

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
    sources_per_shard: sources in one Parquet file, the unit of work of Grow and
      score and what a kill can lose there.

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
  }
  if vocabulary_path is not None or vocabulary_from is not None:
    params['vocab_size'] = None  # decided by the vocabulary that is brought
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

  def build(work: artifact.Work) -> None:
    file = work.path / policies.VOCABULARY_FILE
    if vocabulary_from is not None:
      file.write_bytes((vocabulary_from.path / policies.VOCABULARY_FILE).read_bytes())
    elif brought is not None:
      brought.save(file)
    else:
      progress_lib.say(f'{name}: training a vocabulary of {vocab_size:,} pieces')
      texts = _texts(corpus('train'))
      vocabularies.train_sentencepiece(
        texts, file, vocab_size=vocab_size, byte_fallback=byte_fallback
      )
    writer = _SplitWriter(
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
      splits[split] = writer.write(work.path / split, split, corpus(split))
      progress_lib.say(f'{name}: {split}: {_sentence(splits[split])}')
      if not splits[split]['sources']:
        raise ValueError(
          f'the corpus has no pair in its {split} split of at most {source_length} '
          f'source and {target_length} target tokens: {_sentence(splits[split])}'
        )
    work.results.update(splits=splits, vocabulary_size=writer.vocabulary.size)
    paths.write_text_atomic(
      work.path / 'corpus.json',
      json.dumps({'corpus': params['corpus'].identity(), **work.results}, indent=1),
    )

  inputs = {'vocabulary': vocabulary_from}
  return run.stage(
    'ingest', name=name, version=VERSION, params=params, inputs=inputs, build=build
  )


def source_prefix_of(corpus: artifact.Artifact) -> str:
  """What the sources of a finished corpus were read with in front."""
  prefix: str = corpus.record['params'].get('source_prefix', '')
  return prefix


class _SplitWriter:
  """Encodes pairs and writes them as shards of a group set."""

  def __init__(
    self,
    vocabulary: vocabularies.Vocabulary,
    source_length: int,
    target_length: int,
    overlong: str,
    sources_per_shard: int,
    id_prefix: str,
    source_prefix: str,
  ):
    self.vocabulary = vocabulary
    self._limits = source_length, target_length
    self._overlong = overlong
    self._sources_per_shard = sources_per_shard
    self._id_prefix = id_prefix
    self._source_prefix = source_prefix

  def write(
    self, directory: epath.Path, split: str, pairs: Iterable[corpora.Pair]
  ) -> dict[str, int]:
    """Writes one split; returns what was read, dropped and truncated."""
    counts = {'pairs': 0, 'sources': 0, 'dropped': 0, 'truncated': 0}
    counts |= {'source_tokens': 0, 'target_tokens': 0}
    paths.remove_tree(directory)  # what a kill left; reading is quick
    directory.mkdir(parents=True)
    # Shards are named only when their number is known; until then by index.
    written: list[epath.Path] = []
    groups: list[group_store.Group] = []
    for block in _blocks(pairs, self._sources_per_shard):
      groups += self._groups(block, split, counts)
      while len(groups) >= self._sources_per_shard:
        shard, groups = self._cut(groups)
        written.append(self._write_part(directory, len(written), shard))
    if groups:
      written.append(self._write_part(directory, len(written), groups))
    for index, part in enumerate(written):
      part.rename(shards.shard_path(directory, index, len(written)))
    return counts

  def _cut(
    self, groups: list[group_store.Group]
  ) -> tuple[list[group_store.Group], list[group_store.Group]]:
    return groups[: self._sources_per_shard], groups[self._sources_per_shard :]

  def _write_part(
    self, directory: epath.Path, index: int, groups: list[group_store.Group]
  ) -> epath.Path:
    path = directory / f'part-{index:05d}'
    group_store.write_groups(path, groups)
    return path

  def _groups(
    self, pairs: list[corpora.Pair], split: str, counts: dict[str, int]
  ) -> list[group_store.Group]:
    prefix = self._source_prefix
    sources = self.vocabulary.encode_batch([prefix + pair.source for pair in pairs])
    references = self.vocabulary.encode_batch([pair.reference or '' for pair in pairs])
    groups = []
    for pair, source, reference in zip(pairs, sources, references, strict=True):
      source_id = f'{self._id_prefix}{split}/{counts["pairs"]:08d}'
      counts['pairs'] += 1
      source, long_source = _truncate(source, self._limits[0])
      reference, long_reference = _truncate(reference, self._limits[1])
      if long_source or (long_reference and pair.reference is not None):
        if self._overlong == 'drop':
          counts['dropped'] += 1
          continue
        counts['truncated'] += 1
      counts['sources'] += 1
      counts['source_tokens'] += len(source)
      counts['target_tokens'] += len(reference) if pair.reference is not None else 0
      known = pair.reference is not None
      groups.append(
        group_store.pair(
          source_id,
          pair.source,
          source,
          pair.reference,
          reference if known else None,
          renderings=pair.renderings,
        )
      )
    return groups


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

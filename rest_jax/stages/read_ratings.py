"""Read ratings: files of human judgements become groups with their ratings."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rest_jax import paths
from rest_jax.data import buckets, group_store, judgements, vocabularies
from rest_jax.stages import artifact, ingest, policies
from rest_jax.stages import progress as progress_lib
from rest_jax.stages import rated as rated_lib

VERSION = 1


def read_ratings(
  run: artifact.Run,
  *,
  name: str = 'ratings',
  corpus: artifact.Artifact,
  samples: artifact.Artifact | None = None,
  path: str,
  held_out_path: str | None = None,
  reader: judgements.Reader = judgements.Ratings(),
  task_feature_lengths: Mapping[str, int],
) -> artifact.Artifact:
  """Reads judged candidates.

  Candidates of one source (and reference) form a group; several ratings of one
  candidate are averaged, and what each rater gave is kept beside. A candidate or source
  over the length limit is dropped and counted.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact.
    corpus: whose vocabulary to use.
    samples: the group set whose candidates were judged, where it is one of the run's:
      groups keep their ids, and every judgement must be of a candidate there. A
      judgement finds its source by its source_id, or else by the text.
    path: the file, plain or .gz; its content is part of the fingerprint.
    held_out_path: another file, for `train_reward` to choose the best parameters by,
      in place of a share of the sources.
    reader: of the files, such as `judgements.Ratings`, `judgements.Preferences` or
      `multidimensional_quality.MqmErrors`.
    task_feature_lengths: T5X's {'inputs': ..., 'targets': ...}, in tokens.

  Returns:
    A group set and a reward set in one directory, those of held_out_path below it.

  Raises:
    ValueError: what is wrong with the file, and in which line.
  """
  limits = buckets.feature_lengths(task_feature_lengths)
  params = {
    'sha256': paths.content_hash(path),
    **reader.identity(),
    'task_feature_lengths': dict(task_feature_lengths),
  }
  if held_out_path is not None:
    params['held_out_sha256'] = paths.content_hash(held_out_path)

  def build(work: artifact.Work) -> None:
    vocabulary = vocabularies.Vocabulary.load(corpus.path / policies.VOCABULARY_FILE)

    source_prefix = ingest.source_prefix_of(corpus)

    def read(file: str, id_prefix: str) -> _Read:
      judged = reader(file)
      if samples is None:
        rated = _encode(judgements.group(judged), id_prefix, vocabulary, source_prefix)
      else:
        rated = _match(judged, samples)
      return _fit(rated, limits, len(judged), file)

    found = read(path, 'rated')
    rated_lib.write(work.path, found.rated)
    work.results.update(found.counts)
    if held_out_path is not None:
      held_out = read(held_out_path, 'held_out')
      rated_lib.write(work.path / rated_lib.HELD_OUT_DIR, held_out.rated)
      work.results.update({rated_lib.HELD_OUT_DIR: held_out.counts})
    progress_lib.say(
      f'{name}: {found.counts["ratings"]:,} ratings of '
      f'{found.counts["candidates"]:,} candidates, '
      f'{found.counts["dropped_candidates"]:,} candidates too long and dropped'
    )

  return run.stage(
    'ingest',
    name=name,
    version=VERSION,
    params=params,
    inputs={'corpus': corpus, 'samples': samples},
    build=build,
  )


class _Read(NamedTuple):
  """What a file holds."""

  rated: list[rated_lib.RatedGroup]
  counts: dict[str, int]


def _encode(
  judged: Sequence[judgements.Judged],
  id_prefix: str,
  vocabulary: vocabularies.Vocabulary,
  source_prefix: str,
) -> list[rated_lib.RatedGroup]:
  """Groups of the texts in a file."""
  rated = []
  for index, one in enumerate(judged):
    tokens = vocabulary.encode_batch(list(one.candidates))
    group = group_store.Group(
      source_id=f'{id_prefix}/{index:08d}',
      source=one.source,
      source_tokens=vocabulary.encode(source_prefix + one.source),
      reference=one.reference,
      texts=one.candidates,
      tokens=tuple(tokens),
      token_log_probs=None,
      finished=np.ones(len(tokens), bool),
      origins=('data',) * len(tokens),
    )
    rated.append(rated_lib.RatedGroup(group, one.ratings, one.by_rater))
  return rated


def _match(
  judged: Sequence[judgements.Judgement], samples: artifact.Artifact
) -> list[rated_lib.RatedGroup]:
  """The groups of a set, with the candidates that were judged.

  Raises:
    ValueError: a judgement of a source or a candidate that the set does not hold:
      names file and line.
  """
  groups = {
    group.source_id: group for group in group_store.iterate_groups(samples.path)
  }
  ids: dict[str, str] = {}  # of the first group with a source
  for group in groups.values():
    ids.setdefault(group.source, group.source_id)
  by_id: dict[str, list[judgements.Judgement]] = {}
  for one in judged:
    source_id = ids.get(one.source) if one.source_id is None else one.source_id
    if source_id not in groups:
      what = 'source' if one.source_id is None else 'source_id'
      raise ValueError(
        f'{one.where}: {what} {getattr(one, what)!r} is not in {samples.name}: judge '
        'its candidates, or read the file without samples'
      )
    group = groups[source_id]
    if one.source != group.source:
      raise ValueError(
        f'{one.where}: {samples.name} has another source under {source_id!r}, '
        f'{group.source!r}, than the file, {one.source!r}'
      )
    if one.candidate not in group.texts:
      raise ValueError(
        f'{one.where}: candidate {one.candidate!r} matches none of the '
        f'{group.num_candidates} samples of source {source_id!r} in {samples.name}: it '
        'must be the same text, letter by letter'
      )
    by_id.setdefault(source_id, []).append(one)
  rated = []
  for source_id, ones in by_id.items():
    group = groups[source_id]
    # A reference in the file is not the set's: the groups are those of the set.
    plain = [dataclasses.replace(one, reference=None) for one in ones]
    (found,) = judgements.group(plain)
    taken = group_store.take(group, [group.texts.index(x) for x in found.candidates])
    rated.append(rated_lib.RatedGroup(taken, found.ratings, found.by_rater))
  return rated


def _fit(
  rated: Sequence[rated_lib.RatedGroup],
  limits: tuple[int, int],
  num_ratings: int,
  path: str,
) -> _Read:
  """Drops what is longer than the limits, and counts it."""
  kept = []
  for group, ratings, by_rater in rated:
    fits = np.array([len(tokens) <= limits[1] for tokens in group.tokens])
    fits &= len(group.source_tokens) <= limits[0]
    if fits.any():
      kept.append(
        rated_lib.RatedGroup(
          group_store.take(group, fits), ratings[fits], by_rater[fits]
        )
      )
  candidates = sum(len(one.ratings) for one in kept)
  dropped = sum(len(one.ratings) for one in rated) - candidates
  if not kept:
    raise ValueError(
      f'all {dropped:,} rated candidates of {path} exceed the limits of {limits[0]} '
      f'source and {limits[1]} target tokens: raise TASK_FEATURE_LENGTHS'
    )
  return _Read(
    kept,
    {
      'ratings': num_ratings,
      'sources': len(kept),
      'candidates': candidates,
      'dropped_candidates': dropped,
    },
  )

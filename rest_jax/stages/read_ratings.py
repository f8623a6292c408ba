"""Read ratings: a file of human judgements becomes groups with their ratings."""

from collections.abc import Mapping

import numpy as np

from rest_jax import paths
from rest_jax.data import (
  buckets,
  group_store,
  reward_store,
  shards,
  text_files,
  vocabularies,
)
from rest_jax.stages import artifact, ingest, policies
from rest_jax.stages import progress as progress_lib

VERSION = 1


def read_ratings(
  run: artifact.Run,
  *,
  name: str = 'ratings',
  corpus: artifact.Artifact,
  path: str,
  source_column: str = 'source',
  candidate_column: str = 'candidate',
  rating_column: str = 'rating',
  task_feature_lengths: Mapping[str, int],
) -> artifact.Artifact:
  """Reads rated candidates from a tab-separated file or JSON lines.

  Candidates of one source form a group; several ratings of one candidate are
  averaged. A candidate or source over the length limit is dropped and counted.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact.
    corpus: whose vocabulary to use.
    path: the file, plain or .gz; its content is part of the fingerprint.
    source_column, candidate_column, rating_column: their names in the file.
    task_feature_lengths: T5X's {'inputs': ..., 'targets': ...}, in tokens.

  Returns:
    A group set and a reward set in one directory.

  Raises:
    ValueError: what is wrong with the file, and in which line.
  """
  limits = buckets.feature_lengths(task_feature_lengths)
  params = {
    'sha256': paths.content_hash(path),
    'columns': [source_column, candidate_column, rating_column],
    'task_feature_lengths': dict(task_feature_lengths),
  }

  def build(work: artifact.Work) -> None:
    rated = text_files.read_ratings(
      path,
      source_column=source_column,
      candidate_column=candidate_column,
      rating_column=rating_column,
    )
    by_source: dict[str, dict[str, list[float]]] = {}
    for row in rated:
      candidates = by_source.setdefault(row.source, {})
      candidates.setdefault(row.candidate, []).append(row.rating)
    vocabulary = vocabularies.Vocabulary.load(corpus.path / policies.VOCABULARY_FILE)
    prefix = ingest.source_prefix_of(corpus)
    groups, ratings, dropped = [], [], 0
    for index, (source, judged) in enumerate(by_source.items()):
      source_tokens = vocabulary.encode(prefix + source)
      tokens = vocabulary.encode_batch(list(judged))
      fits = [len(source_tokens) <= limits[0] and len(t) <= limits[1] for t in tokens]
      dropped += len(fits) - sum(fits)
      if not any(fits):
        continue
      group = group_store.Group(
        source_id=f'rated/{index:08d}',
        source=source,
        source_tokens=source_tokens,
        reference=None,
        texts=tuple(judged),
        tokens=tuple(tokens),
        token_log_probs=None,
        finished=np.ones(len(tokens), bool),
        origins=('data',) * len(tokens),
      )
      groups.append(group_store.take(group, np.array(fits)))
      means = np.array([np.mean(values) for values in judged.values()], np.float32)
      ratings.append(means[fits])
    if not groups:
      raise ValueError(
        f'all {dropped:,} rated candidates of {path} exceed the limits '
        f'{dict(task_feature_lengths)}: raise TASK_FEATURE_LENGTHS'
      )
    group_store.write_group_set(work.path, groups)
    reward_store.write_rewards(
      shards.shard_path(work.path, 0, 1, reward_store.KIND),
      [group.source_id for group in groups],
      ratings,
    )
    work.results.update(
      ratings=len(rated),
      sources=len(groups),
      candidates=int(sum(len(values) for values in ratings)),
      dropped_candidates=dropped,
    )
    progress_lib.say(
      f'{name}: {len(rated):,} ratings of {work.results["candidates"]:,} candidates, '
      f'{dropped:,} candidates too long and dropped'
    )

  return run.stage(
    'ingest',
    name=name,
    version=VERSION,
    params=params,
    inputs={'corpus': corpus},
    build=build,
  )

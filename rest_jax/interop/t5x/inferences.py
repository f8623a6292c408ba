"""What `t5x.infer` wrote, as a group set: a Grow of T5X's in our store.

Needs no T5X. Each line of T5X's JSON has `inputs` with the `source_id` that
`tasks.grow_task` gave it, and `prediction_tokens`, which gin_configs/t5x/grow.gin asks
for: [num_decodes, length] or, for one decode, [length].
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rest_jax import paths
from rest_jax.data import group_store, vocabularies


def group_set_from_inferences(
  files: Sequence[paths.PathLike],
  group_dir: paths.PathLike,
  directory: paths.PathLike,
  *,
  vocabulary_path: paths.PathLike,
  seed: int = 0,
  num_shards: int = 1,
) -> int:
  """Writes the samples of `t5x.infer` as a group set.

  T5X sorts the samples of a source by their score. They are put in an order that is
  drawn from `seed` and the source's id, so that the first K of a group are K fair
  samples again, as in a Grow of ours. Their log-probabilities are null: T5X keeps
  sums, and ours are per token.

  Args:
    files: T5X's JSON lines, one file for each shard.
    group_dir: the group set whose sources were sampled from.
    directory: of the new group set; holds the sources in the order of `group_dir`.
    vocabulary_path: of the policy.
    seed: of the order.
    num_shards: of the new group set.

  Returns:
    How many sources it holds.

  Raises:
    ValueError: a line is not as described, a source occurs twice or is not in
      `group_dir`.
  """
  vocabulary = vocabularies.Vocabulary.load(vocabulary_path)
  samples: dict[str, list[np.ndarray]] = {}
  for file in files:
    for source_id, candidates in _lines(file):
      if source_id in samples:
        raise ValueError(f'{file}: source_id {source_id!r} occurs twice in {files}')
      order = np.random.default_rng([seed, zlib.crc32(source_id.encode())])
      samples[source_id] = [candidates[i] for i in order.permutation(len(candidates))]
  groups = [
    _group(source, samples.pop(source.source_id), vocabulary)
    for source in group_store.iterate_groups(group_dir)
    if source.source_id in samples
  ]
  if samples:
    raise ValueError(
      f'source_id {min(samples)!r} and {len(samples) - 1} others are not in '
      f'{group_dir}: give the group set that grow_task read'
    )
  group_store.write_group_set(directory, groups, num_shards=num_shards)
  return len(groups)


def _lines(file: paths.PathLike) -> Iterator[tuple[str, list[np.ndarray]]]:
  """Yields each line's source_id and candidates, cut after EOS or before padding."""
  with paths.as_path(file).open() as lines:
    for number, line in enumerate(lines, 1):
      record = json.loads(line)
      try:
        source_id, rows = record['inputs']['source_id'], record['prediction_tokens']
      except KeyError as error:
        raise ValueError(
          f'{file}:{number} lacks {error}: infer from tasks.grow_task with the '
          'bindings of gin_configs/t5x/grow.gin (output_ids and include_all_inputs)'
        ) from error
      if rows and not isinstance(rows[0], list):
        rows = [rows]
      yield source_id, [_until_end(row) for row in rows]


def _until_end(row: Sequence[int]) -> np.ndarray:
  """Tokens [length] int32: EOS is part of a candidate, padding is not."""
  tokens = np.asarray(row, np.int32)
  ends = np.flatnonzero(tokens == vocabularies.EOS_ID)
  # An unfinished candidate fills the row: a 0 before its end was drawn, and is kept.
  return tokens[: ends[0] + 1] if len(ends) else tokens


def _group(
  source: group_store.Group,
  candidates: list[np.ndarray],
  vocabulary: vocabularies.Vocabulary,
) -> group_store.Group:
  fields: dict[str, Any] = {
    'texts': tuple(vocabulary.decode_batch(candidates)),
    'tokens': tuple(candidates),
    'token_log_probs': None,
    'finished': np.array([vocabularies.EOS_ID in t[-1:] for t in candidates], bool),
    'origins': ('model',) * len(candidates),
  }
  return group_store.Group(
    source_id=source.source_id,
    source=source.source,
    source_tokens=source.source_tokens,
    reference=source.reference,
    renderings=source.renderings,
    **fields,
  )

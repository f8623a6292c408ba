"""The sampler around the decoder loop: groups in, groups with candidates out."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from rest_jax.data import buckets, group_store, vocabularies
from rest_jax.models import t5
from rest_jax.sampling import decoder, draws
from rest_jax.training import mesh as mesh_lib


@dataclasses.dataclass(frozen=True)
class SamplerSettings:
  """How the sampler cuts its work; no value here changes the samples.

  Attributes:
    batch_size: sources decoded together.
    max_samples: candidates of one source decoded together; more take turns.
  """

  batch_size: int = 32
  max_samples: int = 64

  def __post_init__(self) -> None:
    if self.batch_size < 1 or self.max_samples < 1:
      raise ValueError(
        f'batch_size={self.batch_size} and max_samples={self.max_samples} must be '
        'at least 1'
      )


class Sampler:
  """Draws candidates from one policy.

  Args:
    params: the policy's parameters, on the mesh.
    config: the policy's shape.
    vocabulary: to detokenise.
    mesh: groups are spread over its data and fsdp axes.
    source_length: the most tokens of a source, EOS included.
    target_length: the most tokens of a candidate, EOS included.
    decoding: temperature, top-k, top-p.
    seed, grow_step: the run's part of the candidates' identities.
    settings: how the work is cut.
  """

  def __init__(
    self,
    params: Any,
    config: t5.T5Config,
    vocabulary: vocabularies.Vocabulary,
    *,
    mesh: jax.sharding.Mesh,
    source_length: int,
    target_length: int,
    decoding: draws.Decoding,
    seed: int,
    grow_step: int,
    settings: SamplerSettings = SamplerSettings(),
  ):
    self._params = params
    self._config = config
    self._vocabulary = vocabulary
    self._mesh = mesh
    self._source_lengths = buckets.lengths_up_to(source_length)
    self._target_length = target_length
    self._decoding = decoding
    self._seed = seed
    self._grow_step = grow_step
    self._settings = settings

  def sample(
    self, groups: Sequence[group_store.Group], num_samples: int
  ) -> Iterator[tuple[int, group_store.Group]]:
    """Yields each group's index with `num_samples` candidates in place of its own.

    Sources of like length are decoded together, so the order is not the given
    one. The candidates have origin 'model'; duplicates are kept.
    """
    lengths = [len(group.source_tokens) for group in groups]
    order = np.argsort(lengths, kind='stable')
    size = self._settings.batch_size
    for start in range(0, len(order), size):
      rows = order[start : start + size]
      parts = [
        self._batch([groups[row] for row in rows], first, count)
        for first, count in self._turns(num_samples)
      ]
      for place, row in enumerate(rows):
        yield int(row), self._with_candidates(groups[row], parts, place)

  def sample_in_order(
    self, groups: Sequence[group_store.Group], num_samples: int
  ) -> list[group_store.Group]:
    """Returns what `sample` yields, in the order of the given groups."""
    drawn = dict(self.sample(groups, num_samples))
    return [drawn[row] for row in range(len(groups))]

  def _turns(self, num_samples: int) -> Iterator[tuple[int, int]]:
    """Cuts the candidates into (first, count) that are decoded together."""
    size = self._settings.max_samples
    for first in range(0, num_samples, size):
      yield first, min(size, num_samples - first)

  def _batch(
    self, groups: Sequence[group_store.Group], first: int, count: int
  ) -> decoder.Samples:
    rows = self._settings.batch_size
    longest = max(len(group.source_tokens) for group in groups)
    source_length = buckets.bucket(longest, self._source_lengths)
    tokens = np.zeros((rows, source_length), np.int32)
    words = np.zeros((rows, 2), np.uint32)
    words[: len(groups)] = draws.source_words([group.source_id for group in groups])
    for row, group in enumerate(groups):
      tokens[row, : len(group.source_tokens)] = group.source_tokens
    batch = mesh_lib.put_batch(self._mesh, {'tokens': tokens, 'words': words})
    samples = decoder.sample(
      self._params,
      batch['tokens'],
      batch['words'],
      np.int32(self._seed),
      np.int32(self._grow_step),
      np.int32(first),
      config=self._config,
      num_samples=count,
      limit=self._target_length,
      num_tokens=self._vocabulary.size,
      decoding=self._decoding,
    )
    return jax.device_get(samples)

  def _with_candidates(
    self, group: group_store.Group, parts: Sequence[decoder.Samples], row: int
  ) -> group_store.Group:
    drawn = np.concatenate([part.tokens[row] for part in parts])
    log_probs = np.concatenate([part.token_log_probs[row] for part in parts])
    lengths = np.count_nonzero(drawn, axis=1).tolist()  # [samples]
    tokens = [drawn[i, :length] for i, length in enumerate(lengths)]
    return dataclasses.replace(
      group,
      texts=tuple(self._vocabulary.decode_batch(tokens)),
      tokens=tuple(tokens),
      token_log_probs=tuple(log_probs[i, :n] for i, n in enumerate(lengths)),
      finished=np.concatenate([part.finished[row] for part in parts]),
      origins=('model',) * len(tokens),
    )

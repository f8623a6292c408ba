"""What the encoder of a reward model reads: the source, or source and reference.

Either way one encoding serves all candidates of a group. What a reward model was
trained with is written into its artifact, so that scoring reads the same.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rest_jax.data import group_store, vocabularies

_EOS = 1


class RewardInput(Protocol):
  """What every reward input is."""

  def __call__(
    self,
    group: group_store.Group,
    vocabulary: vocabularies.Vocabulary,
    target_length: int,
  ) -> np.ndarray:
    """The encoder's tokens for a group: [length] int32, ends with EOS."""
    ...

  def longest(
    self, vocabulary: vocabularies.Vocabulary, source_length: int, target_length: int
  ) -> int:
    """The most tokens that come of sources and references of at most so many."""
    ...

  def to_dict(self) -> dict[str, Any]:
    """JSON-able, with the key `kind`; `from_dict` reads it back."""
    ...


@dataclasses.dataclass(frozen=True)
class Source:
  """The source alone: a reward for sampling, where there is no reference."""

  def __call__(
    self,
    group: group_store.Group,
    vocabulary: vocabularies.Vocabulary,
    target_length: int,
  ) -> np.ndarray:
    """The source's tokens."""
    del vocabulary, target_length
    return group.source_tokens

  def longest(
    self, vocabulary: vocabularies.Vocabulary, source_length: int, target_length: int
  ) -> int:
    """The source's length."""
    del vocabulary, target_length
    return source_length

  def to_dict(self) -> dict[str, Any]:
    """JSON-able: kind."""
    return {'kind': 'source'}


@dataclasses.dataclass(frozen=True)
class SourceAndReference:
  """'source: ' source ' reference: ' reference, each part in tokens of its own.

  A judge of candidates that may look at a reference; it scores only what has one. A
  reference beyond the limit of targets is cut, its EOS kept.

  Args:
    source_prefix, reference_prefix: texts before the two.
  """

  source_prefix: str = 'source: '
  reference_prefix: str = ' reference: '

  def __call__(
    self,
    group: group_store.Group,
    vocabulary: vocabularies.Vocabulary,
    target_length: int,
  ) -> np.ndarray:
    """The tokens of all four parts.

    Raises:
      ValueError: the group has no reference.
    """
    if group.reference is None:
      raise ValueError(
        f'source {group.source_id!r} has no reference, and this reward model reads '
        'source and reference: score samples that have references, or train one with '
        'train_reward.reward_input = @inputs.Source()'
      )
    reference = vocabulary.encode(group.reference)
    if len(reference) > target_length:
      reference = np.append(reference[: target_length - 1], reference[-1:])
    source_prefix, reference_prefix = self._prefixes(vocabulary)
    parts = (source_prefix, _open(group.source_tokens), reference_prefix, reference)
    return np.concatenate(parts).astype(np.int32)

  def longest(
    self, vocabulary: vocabularies.Vocabulary, source_length: int, target_length: int
  ) -> int:
    """The lengths of all parts, less the source's EOS."""
    prefixes = sum(len(tokens) for tokens in self._prefixes(vocabulary))
    return prefixes + source_length - 1 + target_length

  def _prefixes(self, vocabulary: vocabularies.Vocabulary) -> list[np.ndarray]:
    texts = (self.source_prefix, self.reference_prefix)
    return [_open(tokens) for tokens in vocabulary.encode_batch(texts)]

  def to_dict(self) -> dict[str, Any]:
    """JSON-able: kind and both prefixes."""
    return {'kind': 'source_and_reference', **dataclasses.asdict(self)}


def from_dict(values: Mapping[str, Any]) -> RewardInput:
  """Reads back what `to_dict` of any input wrote.

  Raises:
    ValueError: unknown or missing kind.
  """
  kinds: dict[str, Any] = {
    'source': Source,
    'source_and_reference': SourceAndReference,
  }
  settings = dict(values)
  kind = settings.pop('kind', None)
  if kind not in kinds:
    known = ', '.join(kinds)
    raise ValueError(f'unknown reward input {kind!r}; known: {known}')
  made: RewardInput = kinds[kind](**settings)
  return made


def encoder_groups(
  groups: Sequence[group_store.Group],
  reward_input: RewardInput,
  vocabulary: vocabularies.Vocabulary,
  target_length: int,
) -> list[group_store.Group]:
  """The groups with the encoder's tokens in place of the source's."""
  return [
    dataclasses.replace(
      group, source_tokens=reward_input(group, vocabulary, target_length)
    )
    for group in groups
  ]


def _open(tokens: np.ndarray) -> np.ndarray:
  """Tokens without the EOS at their end."""
  return tokens[:-1] if len(tokens) and tokens[-1] == _EOS else tokens

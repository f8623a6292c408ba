"""What a corpus is: pairs of source and reference, per split, counted."""

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Protocol

SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class Pair:
  """A source with what is known about its translation."""

  source: str
  reference: str | None
  renderings: tuple[str, ...] = ()  # correct translations, where the corpus has them


class Corpus(Protocol):
  """What every corpus is."""

  @property
  def splits(self) -> tuple[str, ...]:
    """The splits it has, of SPLITS."""

  def __call__(self, split: str) -> Iterator[Pair]:
    """Iterates over a split's pairs, always in the same order."""

  def identity(self) -> dict[str, Any]:
    """JSON values that enter a fingerprint."""


class CountedPairs(Iterator[Pair]):
  """Pairs without blank ones, and how many there were.

  Args:
    pairs: what to filter: a pair whose source or (given) reference is blank is
      skipped and counted.
    max_pairs: read no further than this many kept pairs; None for all.
    where: names the origin in messages.

  `counts`: 'pairs' kept and 'blank' skipped, complete once the iterator ended.

  Raises:
    ValueError: on ending, when not a single pair was kept.
  """

  def __init__(
    self, pairs: Iterator[Pair], *, where: str, max_pairs: int | None = None
  ):
    self.counts = {'pairs': 0, 'blank': 0}
    self._where = where
    self._kept = self._filter(pairs, max_pairs)

  def _filter(
    self, pairs: Iterator[Pair], max_pairs: int | None
  ) -> Generator[Pair, None, None]:
    for pair in pairs:
      reference = pair.reference
      if not pair.source.strip() or (reference is not None and not reference.strip()):
        self.counts['blank'] += 1
      elif max_pairs is None or self.counts['pairs'] < max_pairs:
        self.counts['pairs'] += 1
        yield pair
    if not self.counts['pairs']:
      raise ValueError(
        f'{self._where} holds no pair ({self.counts["blank"]} blank): an empty '
        'corpus cannot be used; check the files'
      )

  def __iter__(self) -> Iterator[Pair]:
    return self

  def __next__(self) -> Pair:
    return next(self._kept)


def check_split(split: str, splits: Sequence[str]) -> None:
  """Raises ValueError for a split that a corpus does not have."""
  if split not in splits:
    raise ValueError(f'split {split!r} is unknown here; known: {list(splits)}')


def check_max_pairs(max_pairs: int | None) -> None:
  """Raises ValueError for a limit that would leave nothing."""
  if max_pairs is not None and max_pairs < 1:
    raise ValueError(f'max_pairs {max_pairs} must be at least 1, or None for all')

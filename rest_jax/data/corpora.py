"""Corpora: where pairs of source and reference come from.

A corpus is a frozen dataclass: `corpus(split)` iterates over `Pair`s, `splits`
names what it has, `identity()` gives the JSON values that enter a fingerprint
(contents of files by hash, so that moving a file changes nothing). What is
skipped is counted: `corpus(split).counts` once the iterator has ended.

All corpora have their names here. Those out of TensorFlow Datasets and SeqIO are
written in `tensorflow_corpora`, and import TensorFlow when they are read.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rest_jax import paths
from rest_jax.data import everyday, judgements, text_files
from rest_jax.data.pairs import SPLITS as SPLITS
from rest_jax.data.pairs import Corpus as Corpus
from rest_jax.data.pairs import CountedPairs as CountedPairs
from rest_jax.data.pairs import Pair as Pair
from rest_jax.data.pairs import check_max_pairs, check_split
from rest_jax.data.tensorflow_corpora import SeqioTask as SeqioTask
from rest_jax.data.tensorflow_corpora import TfdsTranslation as TfdsTranslation


@dataclasses.dataclass(frozen=True)
class EverydayCorpus:
  """The embedded German to English corpus, made from a seed.

  No source occurs in two splits. References, those of the validation split too,
  are imperfect as real ones are; `renderings` hold the correct translations.
  Validation and test do not depend on `num_train`.

  Args:
    num_train: sources to train on.
    num_validation: sources to validate on.
    num_test: sources to test on; 0 for no such split.
    seed: which corpus.
    rates: how often references are wrong, and how.
  """

  num_train: int
  num_validation: int
  num_test: int = 0
  seed: int = 0
  rates: everyday.ImperfectionRates = dataclasses.field(
    default_factory=everyday.ImperfectionRates
  )

  def __post_init__(self) -> None:
    if self.num_train < 1 or self.num_validation < 0 or self.num_test < 0:
      raise ValueError(
        f'EverydayCorpus needs num_train >= 1 and no negative size; got {self}'
      )

  @property
  def splits(self) -> tuple[str, ...]:
    """The splits that have sources."""
    return tuple(split for split in SPLITS if self._num(split))

  def _num(self, split: str) -> int:
    return int(getattr(self, f'num_{split}'))

  def _split_seed(self, split: str) -> int:
    digest = hashlib.sha256(f'{self.seed}/{split}'.encode()).digest()
    return int.from_bytes(digest[:4], 'big')

  def __call__(self, split: str) -> Iterator[Pair]:
    """Yields the split's pairs, always the same."""
    check_split(split, self.splits)
    excluded: set[str] = set()
    for name in reversed(SPLITS):  # train last: its size leaves the others alone
      sentences = everyday.generate(
        self._num(name), seed=self._split_seed(name), excluded=frozenset(excluded)
      )
      if name == split:
        break
      excluded.update(sentence.source for sentence in sentences)
    seed = self._split_seed(split)
    for sentence in sentences:
      reference = everyday.imperfect_reference(sentence, rates=self.rates, seed=seed)
      yield Pair(sentence.source, reference, tuple(sentence.renderings))

  def identity(self) -> dict[str, Any]:
    """All parameters, and a hash of some sentences for the generator's version."""
    sample = everyday.generate(8, seed=self._split_seed('identity'))
    text = '\n'.join(line for s in sample for line in (s.source, *s.renderings))
    return {
      **dataclasses.asdict(self),
      'sample_sha256': hashlib.sha256(text.encode()).hexdigest(),
    }


@dataclasses.dataclass(frozen=True)
class ParallelTextFiles:
  """Line-aligned text files, plain or .gz, as WMT and Multi30k come.

  Args:
    train: (source file, target file).
    validation: the same, or None.
    test: the same, or None.
    encoding: of all files; newlines must be single bytes (not UTF-16).
    max_pairs: use the first so many pairs of each split; None for all.

  Pairs with a blank side are counted and skipped. Iterating raises ValueError for
  a missing file, bytes that do not decode (names file and line), files of
  different lengths (names both with their counts) and a corpus without any pair.
  """

  train: tuple[str, str]
  validation: tuple[str, str] | None = None
  test: tuple[str, str] | None = None
  encoding: str = 'utf-8'
  max_pairs: int | None = None

  def __post_init__(self) -> None:
    check_max_pairs(self.max_pairs)
    for split in SPLITS:
      files = getattr(self, split)
      if files is None:
        continue
      if isinstance(files, str) or len(files) != 2:
        raise ValueError(f'{split}={files!r} must be (source file, target file)')
      object.__setattr__(self, split, tuple(map(str, files)))

  @property
  def splits(self) -> tuple[str, ...]:
    """The splits that have files."""
    return tuple(split for split in SPLITS if getattr(self, split) is not None)

  def __call__(self, split: str) -> CountedPairs:
    """Reads the split's pairs."""
    check_split(split, self.splits)
    source, target = getattr(self, split)
    pairs = (
      Pair(*lines)
      for lines in text_files.parallel_lines(source, target, encoding=self.encoding)
    )
    return CountedPairs(
      pairs, where=f'{source} with {target}', max_pairs=self.max_pairs
    )

  def identity(self) -> dict[str, Any]:
    """Parameters and content hashes."""
    return _file_identity(self, lambda split: getattr(self, split))


@dataclasses.dataclass(frozen=True)
class SourceText:
  """Monolingual sources, one a line, without references: ReST allows x ~ p(x).

  Args:
    train: files, plain or .gz, read one after the other.
    validation: likewise.
    test: likewise.
    encoding: of all files.
    max_pairs: use the first so many sources of each split; None for all.
  """

  train: tuple[str, ...]
  validation: tuple[str, ...] = ()
  test: tuple[str, ...] = ()
  encoding: str = 'utf-8'
  max_pairs: int | None = None

  def __post_init__(self) -> None:
    check_max_pairs(self.max_pairs)
    for split in SPLITS:
      files = getattr(self, split)
      files = (files,) if isinstance(files, str) else tuple(map(str, files))
      object.__setattr__(self, split, files)

  @property
  def splits(self) -> tuple[str, ...]:
    """The splits that have files."""
    return tuple(split for split in SPLITS if getattr(self, split))

  def __call__(self, split: str) -> CountedPairs:
    """Reads the split's sources; blank lines are counted and skipped."""
    check_split(split, self.splits)
    files = getattr(self, split)
    pairs = (
      Pair(line, None)
      for file in files
      for line in text_files.lines(file, encoding=self.encoding)
    )
    return CountedPairs(pairs, where=', '.join(files), max_pairs=self.max_pairs)

  def identity(self) -> dict[str, Any]:
    """Parameters and content hashes."""
    return _file_identity(self, lambda split: getattr(self, split))


@dataclasses.dataclass(frozen=True)
class BestRated:
  """The best rated candidate of each source, out of files of judgements.

  For sources that have no other translation: a policy to start from is cloned from
  what raters liked best. Its references are then machine translations, no gold.

  Args:
    train, validation, test: files, as a reader of `judgements` takes them.
    reader: of these files. Of equal ratings the first candidate is taken.
    max_pairs: use the first so many sources of each split; None for all.
  """

  train: str
  validation: str | None = None
  test: str | None = None
  reader: judgements.Reader = dataclasses.field(default_factory=judgements.Ratings)
  max_pairs: int | None = None

  def __post_init__(self) -> None:
    check_max_pairs(self.max_pairs)

  @property
  def splits(self) -> tuple[str, ...]:
    """The splits that have a file."""
    return tuple(split for split in SPLITS if getattr(self, split) is not None)

  def __call__(self, split: str) -> CountedPairs:
    """Reads the split's pairs."""
    check_split(split, self.splits)
    path = getattr(self, split)
    pairs = (
      Pair(one.source, one.candidates[int(one.ratings.argmax())])
      for one in judgements.group(self.reader(path))
    )
    return CountedPairs(pairs, where=path, max_pairs=self.max_pairs)

  def identity(self) -> dict[str, Any]:
    """The reader, and content hashes."""
    return {
      'reader': self.reader.identity(),
      'max_pairs': self.max_pairs,
      'sha256': {
        split: paths.content_hash(text_files.existing(getattr(self, split)))
        for split in self.splits
      },
    }


def _file_identity(
  corpus: Any, files_of: Callable[[str], Sequence[str]]
) -> dict[str, Any]:
  hashes: Mapping[str, list[str]] = {
    split: [paths.content_hash(text_files.existing(file)) for file in files_of(split)]
    for split in corpus.splits
  }
  return {
    'encoding': corpus.encoding,
    'max_pairs': corpus.max_pairs,
    'sha256': dict(hashes),
  }

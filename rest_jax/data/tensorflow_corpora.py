"""Corpora out of TensorFlow Datasets and SeqIO; TensorFlow is imported when used."""

import dataclasses
import difflib
import importlib
from collections.abc import Iterator
from typing import Any

from rest_jax.data import pairs as pairs_lib


@dataclasses.dataclass(frozen=True)
class TfdsTranslation:
  """A translation data set of TensorFlow Datasets, such as 'wmt_t2t_translate/de-en'.

  Args:
    name: of the data set with its configuration and, best, its version.
    source_language: key of the source text in an example.
    target_language: key of the reference.
    train: TFDS split, slices allowed: 'train[:90%]'.
    validation: the same, or None.
    test: the same, or None.
    data_dir: where TFDS keeps its data; None for its default.
    download: prepare the data set on first use where it is not there yet.
    max_pairs: use the first so many pairs of each split; None for all.
  """

  name: str
  source_language: str
  target_language: str
  train: str = 'train'
  validation: str | None = 'validation'
  test: str | None = None
  data_dir: str | None = None
  download: bool = True
  max_pairs: int | None = None

  def __post_init__(self) -> None:
    pairs_lib.check_max_pairs(self.max_pairs)

  @property
  def splits(self) -> tuple[str, ...]:
    """The splits that are named."""
    return tuple(split for split in pairs_lib.SPLITS if getattr(self, split))

  def _builder(self) -> Any:
    import tensorflow_datasets as tfds

    builder = tfds.builder(self.name, data_dir=self.data_dir)
    features = builder.info.features
    for language in (self.source_language, self.target_language):
      if features is None or language not in features:
        raise ValueError(
          f'{self.name} has no language {language!r}; known: {sorted(features or ())}'
        )
    return builder

  def __call__(self, split: str) -> pairs_lib.CountedPairs:
    """Reads the split's pairs, in the stored order.

    Raises:
      ValueError: an unknown split or language, or data that are not prepared
        where `download` is False.
    """
    pairs_lib.check_split(split, self.splits)
    import tensorflow_datasets as tfds

    builder = self._builder()
    if not builder.info.splits:
      if not self.download:
        raise ValueError(
          f'{self.name} is not prepared in {builder.data_dir}: set download=True or '
          'data_dir'
        )
      builder.download_and_prepare()
    dataset = builder.as_dataset(split=getattr(self, split), shuffle_files=False)
    pairs = (
      pairs_lib.Pair(
        _text(example[self.source_language]), _text(example[self.target_language])
      )
      for example in tfds.as_numpy(dataset)
    )
    where = f'{self.name} {getattr(self, split)}'
    return pairs_lib.CountedPairs(pairs, where=where, max_pairs=self.max_pairs)

  def identity(self) -> dict[str, Any]:
    """Parameters, and the data set's full name with its version.

    TFDS versions its data; the contents are not hashed.
    """
    fields = dataclasses.asdict(self)
    del fields['data_dir'], fields['download']
    return {**fields, 'full_name': self._builder().info.full_name}


@dataclasses.dataclass(frozen=True)
class SeqioTask:
  """The text pairs of a registered SeqIO task or mixture.

  Text is read from `<feature>_pretokenized` where the task keeps it, from the
  feature where that is a string, and else decoded from its tokens.

  Args:
    name: of the task or mixture.
    module_to_import: the Python module that registers it, or None.
    source_feature: feature with the source.
    target_feature: feature with the reference; None for sources alone.
    train: the task's split.
    validation: the same, or None.
    test: the same, or None.
    max_pairs: use the first so many pairs of each split; None for all.
    use_cached: read what SeqIO cached of the task offline; the pairs are the same, so
      it is no part of `identity`.
  """

  name: str
  module_to_import: str | None = None
  source_feature: str = 'inputs'
  target_feature: str | None = 'targets'
  train: str = 'train'
  validation: str | None = 'validation'
  test: str | None = None
  max_pairs: int | None = None
  use_cached: bool = False

  def __post_init__(self) -> None:
    pairs_lib.check_max_pairs(self.max_pairs)

  @property
  def splits(self) -> tuple[str, ...]:
    """The splits that are named."""
    return tuple(split for split in pairs_lib.SPLITS if getattr(self, split))

  def __call__(self, split: str) -> pairs_lib.CountedPairs:
    """Reads the split's pairs once, unshuffled.

    Raises:
      ValueError: an unknown task, split or feature, or a module that does not
        import; lists the names that are known.
    """
    pairs_lib.check_split(split, self.splits)
    if self.module_to_import is not None:
      try:
        importlib.import_module(self.module_to_import)
      except ModuleNotFoundError as error:
        raise ValueError(
          f'module_to_import {self.module_to_import!r} cannot be imported ({error}): '
          'install it, or put its folder on PYTHONPATH'
        ) from error
    provider = find_provider(self.name)
    theirs = getattr(self, split)
    if theirs not in provider.splits:
      raise ValueError(
        f'{self.name} has no split {theirs!r}; known: {sorted(provider.splits)}'
      )
    arguments: dict[str, Any] = {'split': theirs, 'shuffle': False, 'num_epochs': 1}
    if self.use_cached:
      arguments['use_cached'] = True
    if not hasattr(provider, 'source'):  # a mixture drops other features by default
      arguments['copy_pretokenized'] = True
    try:
      dataset = provider.get_dataset(sequence_length=None, **arguments)
    except AssertionError as error:  # how SeqIO says that there is no cache
      raise ValueError(
        f'{self.name} cannot be read from a cache ({error}): cache it with '
        'seqio_cache_tasks and seqio.add_global_cache_dirs, or set '
        'USE_CACHED_TASKS = False'
      ) from error
    return pairs_lib.CountedPairs(
      self._pairs(provider, dataset),
      where=f'SeqIO {self.name} {theirs}',
      max_pairs=self.max_pairs,
    )

  def _pairs(self, provider: Any, dataset: Any) -> Iterator[pairs_lib.Pair]:
    features = set(dataset.element_spec)
    for name in (self.source_feature, self.target_feature):
      if name is not None and not features & {name, f'{name}_pretokenized'}:
        raise ValueError(
          f'{self.name} has no feature {name!r}; known: {sorted(features)}'
        )

    def read(example: dict[str, Any], name: str) -> str:
      value: Any = example.get(f'{name}_pretokenized', example.get(name))
      if isinstance(value, bytes | str):
        return _text(value)
      vocabulary = provider.output_features[name].vocabulary
      return vocabulary.decode([int(token) for token in value])

    target = self.target_feature
    for example in dataset.as_numpy_iterator():
      source = read(example, self.source_feature)
      yield pairs_lib.Pair(source, None if target is None else read(example, target))

  def identity(self) -> dict[str, Any]:
    """Parameters; the contents are not hashed, so rename a task whose data change."""
    fields = dataclasses.asdict(self)
    del fields['use_cached']
    return fields


def _text(value: bytes | str) -> str:
  return value.decode('utf-8') if isinstance(value, bytes) else value


def find_provider(name: str) -> Any:
  """The SeqIO task or mixture of a name.

  Raises:
    ValueError: there is none; lists the nearest names.
  """
  import seqio

  known = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
  if name not in known:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or sorted(known)[:5]
    raise ValueError(
      f'SeqIO knows no task or mixture {name!r} among {len(known)}; the nearest are '
      f'{near}: import the module that registers it (module_to_import)'
    )
  return seqio.get_mixture_or_task(name)

"""The group store as SeqIO tasks, and batches out of any SeqIO task or mixture.

TensorFlow and SeqIO are imported inside the functions. Two forms of one Improve
step's data (the same kept candidates and rewards):

  <name>        an example is a row of `batches`: `inputs` [source_length], `targets`
                [slots, target_length] padded with 0, `target_lengths` [slots],
                `rewards` [slots]. Feed it to `TaskBatches`, which mixes it with any
                other task.
  <name>_pairs  an example is one pair: `inputs` and `targets` of rank 1, as every
                SeqIO trainer expects, and a scalar `rewards`. It mixes in any
                seqio.Mixture.
"""

import contextlib
import difflib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from rest_jax import paths
from rest_jax.data import (
  batches,
  corpora,
  group_store,
  row_index,
  row_order,
  vocabularies,
)
from rest_jax.data.task_batches import TaskBatches as TaskBatches
from rest_jax.data.task_batches import batches_from_task as batches_from_task

# The dtype and shape of each feature.
Spec = dict[str, tuple[Any, tuple[int | None, ...]]]

EVERYDAY_TASK = 'rest_jax_everyday_de_en'


def seqio_vocabulary(path: paths.PathLike | None) -> Any:
  """The SeqIO twin of a stored vocabulary; None stands for bytes."""
  import seqio

  if path is None:
    return seqio.ByteVocabulary(extra_ids=0)
  vocabulary = vocabularies.Vocabulary.load(path)
  if isinstance(vocabulary, vocabularies.ByteVocabulary):
    return seqio.ByteVocabulary(extra_ids=0)
  if vocabulary.checkpoint_rows(vocabulary.size) is not None:
    raise ValueError(
      f"{path} has SentencePiece's own order of special tokens, which is put into ours "
      'here and not by SeqIO: leave MIX_WITH empty with this vocabulary'
    )
  return seqio.SentencePieceVocabulary(str(path))


def register_improve_task(
  name: str,
  group_dir: paths.PathLike,
  *,
  vocabulary_path: paths.PathLike | None,
  samples: int,
  buckets: Sequence[tuple[int, int]],
  reward_dir: paths.PathLike | None = None,
  keep_fn: row_index.KeepFn | None = None,
  overlong: row_index.Overlong = 'error',
  window_row_groups: int | None = None,
  replace: bool = False,
) -> tuple[str, str]:
  """Registers the data of one Improve step: tasks `name` and `name`_pairs.

  The split is 'train'. Without shuffling an epoch has the stored order, with it
  the order that `row_order` draws from SeqIO's seed (0 where SeqIO gives none);
  `repeat` goes on with the next epoch's order.

  Args:
    name: of the task.
    group_dir: a group set.
    vocabulary_path: the vocabulary that made its tokens; None for bytes.
    samples: candidates in a row; see `batches.GroupBatches` for the rest.
    buckets: (source_length, target_length) pairs.
    reward_dir: a reward set, or None.
    keep_fn: a filter, or None.
    overlong: 'error', 'truncate' or 'drop'.
    window_row_groups: bounds the memory.
    replace: takes the place of tasks of the same names.

  Returns:
    The names of the two tasks.

  Raises:
    ValueError: what GroupBatches raises; a name that is taken or not allowed.
  """
  import seqio
  import tensorflow as tf

  with contextlib.suppress(RuntimeError):  # too late: TensorFlow has started
    tf.config.set_visible_devices([], 'GPU')  # the accelerators are JAX's
  rows = batches.GroupBatches(
    group_dir,
    batch=1,
    samples=samples,
    buckets=buckets,
    reward_dir=reward_dir,
    keep_fn=keep_fn,
    overlong=overlong,
    window_row_groups=window_row_groups,
  )
  features: Spec = {
    'inputs': (tf.int32, (None,)),
    'targets': (tf.int32, (None, None)),
    'target_lengths': (tf.int32, (None,)),
  }
  pair_features: Spec = {'inputs': (tf.int32, (None,)), 'targets': (tf.int32, (None,))}
  if reward_dir is not None:
    features['rewards'] = (tf.float32, (None,))
    pair_features['rewards'] = (tf.float32, ())
  vocabulary = seqio_vocabulary(vocabulary_path)
  limits = rows.buckets[-1]
  forms: list[tuple[str, Any, dict[str, Any], int, int | None]] = [
    (name, _row_example, features, 2, None),
    (f'{name}_pairs', _pair_examples, pair_features, 1, seqio.SHUFFLE_BUFFER_SIZE),
  ]
  for task_name, examples_fn, spec, rank, buffer_size in forms:
    source = _row_source(rows, examples_fn, spec, limits, window_row_groups)
    _add_task(
      task_name,
      replace=replace,
      source=source,
      preprocessors=[],
      output_features={
        'inputs': seqio.Feature(vocabulary, add_eos=False),
        'targets': seqio.Feature(vocabulary, add_eos=False, rank=rank),
      },
      shuffle_buffer_size=buffer_size,
    )
  return name, f'{name}_pairs'


def _add_task(name: str, *, replace: bool, **arguments: Any) -> None:
  import seqio

  if name in seqio.TaskRegistry.names():
    if not replace:
      raise ValueError(
        f'a SeqIO task {name!r} exists already: choose another name, or set '
        'replace=True'
      )
    seqio.TaskRegistry.remove(name)
  seqio.TaskRegistry.add(name, **arguments)


def register_mixture(name: str, rates: Sequence[tuple[str, float]]) -> str:
  """Registers a mixture of (task or mixture, rate) pairs, in place of an older one.

  Raises:
    ValueError: a name that SeqIO does not know.
  """
  import seqio

  known = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
  for task, _ in rates:
    if task not in known:
      near = difflib.get_close_matches(task, known) or sorted(known)[:5]
      raise ValueError(
        f'no SeqIO task or mixture {task!r} is registered; near it: {", ".join(near)}. '
        'Import the module that registers it in a gin file'
      )
  if name in seqio.MixtureRegistry.names():
    seqio.MixtureRegistry.remove(name)
  seqio.MixtureRegistry.add(name, list(rates))
  return name


Example = dict[str, np.ndarray]


def _cut_row(
  rows: batches.GroupBatches, row: int, limits: tuple[int, int]
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray | None]:
  """A row with overlong texts cut as `batches.fill_row` cuts them."""
  found = rows.reader.row(row)
  source, candidates, rewards = found.source_tokens, found.candidates, found.rewards
  if len(source) > limits[0]:
    source = np.append(source[: limits[0] - 1], vocabularies.EOS_ID)
  return source.astype(np.int32), [c[: limits[1]] for c in candidates], rewards


def _row_example(
  rows: batches.GroupBatches, row: int, limits: tuple[int, int]
) -> Iterator[Example]:
  source, candidates, rewards = _cut_row(rows, row, limits)
  lengths = np.array([len(tokens) for tokens in candidates], np.int32)
  targets = np.zeros((len(candidates), int(lengths.max())), np.int32)
  for slot, tokens in enumerate(candidates):
    targets[slot, : len(tokens)] = tokens
  example = {'inputs': source, 'targets': targets, 'target_lengths': lengths}
  if rewards is not None:
    example['rewards'] = rewards
  yield example


def _pair_examples(
  rows: batches.GroupBatches, row: int, limits: tuple[int, int]
) -> Iterator[Example]:
  source, candidates, rewards = _cut_row(rows, row, limits)
  for slot, tokens in enumerate(candidates):
    example = {'inputs': source, 'targets': tokens}
    if rewards is not None:
      example['rewards'] = rewards[slot]
    yield example


def _row_source(
  rows: batches.GroupBatches,
  examples_fn: Callable[..., Iterator[Example]],
  spec: Spec,
  limits: tuple[int, int],
  window_row_groups: int | None,
) -> Any:
  """A seqio.DataSource over the rows; the class needs SeqIO to be imported."""
  import seqio
  import tensorflow as tf

  signature = {key: tf.TensorSpec(shape, dtype) for key, (dtype, shape) in spec.items()}

  class RowSource(seqio.DataSource):
    """Rows of a group store, shuffled by `row_order`."""

    buckets = rows.buckets

    def __init__(self) -> None:
      super().__init__(splits=('train',), caching_permitted=False)

    @property
    def supports_arbitrary_sharding(self) -> bool:
      return False

    @property
    def performs_internal_shuffling(self) -> bool:
      return True

    def list_shards(self, split: str) -> Sequence[str]:
      return [split]

    def num_input_examples(self, split: str) -> int | None:
      # Not told: SeqIO would cache a small set in memory and repeat one order.
      del split
      return None

    def get_dataset(  # one epoch at a time, a new order whenever it is repeated
      self,
      split: str = 'train',
      shuffle: bool = True,
      seed: int | None = None,
      shard_info: Any = None,
      **unused: Any,
    ) -> Any:
      if shard_info is not None and shard_info.num_shards > 1:
        raise ValueError('shard the examples, not the source: it is one stream')
      order = self._order(1, 0 if seed is None else int(seed), shuffle)
      epochs = itertools.count()

      def epoch() -> Iterator[Example]:
        for row in order.rows_in_epoch(next(epochs)).tolist():
          yield from examples_fn(rows, row, limits)

      return tf.data.Dataset.from_generator(epoch, output_signature=signature)

    def dataset_from_step(
      self,
      step: int,
      *,
      batch: int,
      seed: int,
      shuffle: bool,
      places: np.ndarray | None,
    ) -> Any:
      """Batch after batch from a training step on, of each the rows at `places`."""
      order = self._order(batch, seed, shuffle)

      def stream() -> Iterator[Example]:
        for row in order.stream(step, places):
          yield from examples_fn(rows, row, limits)

      return tf.data.Dataset.from_generator(stream, output_signature=signature)

    def _order(self, batch: int, seed: int, shuffle: bool) -> row_order.Order:
      return row_order.Order(
        rows.index,
        batch=batch,
        seed=seed,
        shuffle=shuffle,
        window_row_groups=window_row_groups,
      )

  return RowSource()


def register_corpus_tasks(
  corpus_dir: paths.PathLike, name: str, *, replace: bool = False
) -> str:
  """Registers a corpus artifact as one task with its splits.

  Features: the stored tokens `inputs` and `targets`, and the texts
  `inputs_pretokenized` and `targets_pretokenized`. A source gives an example per
  candidate; one without any gives none.

  Args:
    corpus_dir: has `vocabulary.model` and group sets `train`, `validation`, `test`.
    name: of the task.
    replace: takes the place of a task of the same name.

  Raises:
    ValueError: no split there, no vocabulary, or a name that is taken.
  """
  import seqio
  import tensorflow as tf

  folder = paths.as_path(corpus_dir)
  sets = {split: folder / split for split in corpora.SPLITS}
  sets = {split: path for split, path in sets.items() if path.is_dir()}
  if not sets:
    raise ValueError(f'{folder} has none of {corpora.SPLITS}: is it a corpus artifact?')
  signature = {
    'inputs': tf.TensorSpec((None,), tf.int32),
    'targets': tf.TensorSpec((None,), tf.int32),
    'inputs_pretokenized': tf.TensorSpec((), tf.string),
    'targets_pretokenized': tf.TensorSpec((), tf.string),
  }

  def dataset_fn(split: str, shuffle_files: bool, seed: int | None = None) -> Any:
    def examples() -> Iterator[dict[str, Any]]:
      for group in group_store.iterate_groups(sets[split]):
        for text, tokens in zip(group.texts, group.tokens, strict=True):
          yield {
            'inputs': group.source_tokens,
            'targets': tokens,
            'inputs_pretokenized': group.source,
            'targets_pretokenized': text,
          }

    return tf.data.Dataset.from_generator(examples, output_signature=signature)

  vocabulary = seqio_vocabulary(folder / 'vocabulary.model')
  feature = seqio.Feature(vocabulary, add_eos=False)  # EOS is stored
  _add_task(
    name,
    replace=replace,
    source=seqio.FunctionDataSource(
      dataset_fn,
      splits=tuple(sets),
      num_input_examples={s: group_store.num_groups(path) for s, path in sets.items()},
    ),
    preprocessors=[],
    output_features={'inputs': feature, 'targets': feature},
  )
  return name


def register_everyday_task(
  corpus: corpora.EverydayCorpus,
  *,
  vocabulary_path: paths.PathLike | None = None,
  name: str = EVERYDAY_TASK,
  replace: bool = False,
) -> str:
  """Registers the embedded corpus; without a vocabulary its tokens are bytes."""
  import seqio
  import tensorflow as tf

  spec = tf.TensorSpec((), tf.string)

  def dataset_fn(split: str, shuffle_files: bool, seed: int | None = None) -> Any:
    def examples() -> Iterator[dict[str, Any]]:
      for pair in corpus(split):
        yield {'inputs': pair.source, 'targets': pair.reference}

    signature = {'inputs': spec, 'targets': spec}
    return tf.data.Dataset.from_generator(examples, output_signature=signature)

  feature = seqio.Feature(seqio_vocabulary(vocabulary_path), add_eos=True)
  sizes = {split: int(getattr(corpus, f'num_{split}')) for split in corpus.splits}
  _add_task(
    name,
    replace=replace,
    source=seqio.FunctionDataSource(
      dataset_fn, splits=corpus.splits, num_input_examples=sizes
    ),
    preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
    output_features={'inputs': feature, 'targets': feature},
  )
  return name

"""The learned reward model: scores groups, each source encoded once."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.data import buckets, group_store, prefix_trees
from rest_jax.models import reward, t5
from rest_jax.training import mesh as mesh_lib


@dataclasses.dataclass(frozen=True)
class RatingScale:
  """The affine map between ratings and what the head is trained to predict.

  prediction = (rating - mean) / stddev
  """

  mean: float
  stddev: float

  @classmethod
  def fit(cls, ratings: np.ndarray) -> 'RatingScale':
    """Fits mean and standard deviation; a constant rating has nothing to teach."""
    ratings = np.asarray(ratings, np.float64)
    if not np.isfinite(ratings).all():
      raise ValueError('the ratings hold a value that is not finite: drop that row')
    if ratings.size == 0 or ratings.std() == 0:
      found = f'all are {ratings.flat[0]}' if ratings.size else 'there are none'
      raise ValueError(
        f'a reward model needs ratings that differ; of {ratings.size} ratings {found}'
      )
    return cls(float(ratings.mean()), float(ratings.std()))

  def standardise(self, ratings: np.ndarray) -> np.ndarray:
    """Returns what the head should predict for these ratings."""
    return ((ratings - self.mean) / self.stddev).astype(np.float32)

  def restore(self, predictions: np.ndarray) -> np.ndarray:
    """Returns predictions on the scale of the ratings."""
    return (predictions * self.stddev + self.mean).astype(np.float32)


# A block is encoded, then decoded. Larger blocks leave fewer batches half empty: one
# of 27 with 1,000 sources of eight samples of 16 tokens. The encodings of 1,024
# sources of 64 tokens, 1,024 wide, take 256 MiB in float32.
_BATCHES_PER_BLOCK = 8  # encoder batches

# A call with little to score is cut into smaller batches, down to these: what the last
# of four leaves empty is little, and a device is busy with one.
_FEWEST_BATCHES = 4
_FEWEST_SOURCES = 16
_FEWEST_POSITIONS = 512


def _batch_of(total: int, fewest: int, most: int) -> int:
  """How many of `total` to compute at a time: a power of two, or `most`."""
  share = -(-total // _FEWEST_BATCHES)
  return min(most, max(fewest, 1 << (share - 1).bit_length()))


EncoderGroups = Callable[[Sequence[group_store.Group]], Sequence[group_store.Group]]


@functools.partial(jax.jit, static_argnames=('config',))
def _encode(params: Any, tokens: jax.Array, *, config: t5.T5Config) -> jax.Array:
  return reward.RewardT5(config).apply({'params': params}, tokens, method='encode')


def _take(encoded: jax.Array, rows: jax.Array, *, length: int) -> jax.Array:
  """The encodings of a batch of trees, [rows, length, embed]."""
  return encoded[rows, :length]


_predict = functools.partial(jax.jit, static_argnames=('config',))(reward.predict_trees)


class _TreeBatch(NamedTuple):
  """Trees that are scored together, and what they are padded to."""

  trees: np.ndarray  # [chosen] int64
  rows: int
  nodes: int
  source_length: int


class LargestProgram(NamedTuple):
  """A program of `LearnedReward`, for plans."""

  name: str  # 'encode' or 'trees'
  trace: Callable[[], Any]  # gives what `jax.jit(...).trace(...)` does
  shape: tuple[int, ...]
  tokens: int  # positions that one execution computes
  rows: int  # sources or trees among them


class LearnedReward:
  """Scores groups with a trained reward model, no shared prefix twice.

  A source is encoded once; its candidates are decoded as prefix trees, each a row of
  a batch. All batches have about as many positions, so that small trees have many
  rows, and trees of one size follow each other, so that padding is little.

  Programs compiled at most: an encoder for each of `buckets.sizes_up_to` of the
  source length, and a decoder for each of `buckets.sizes_up_to` of the nodes, with
  each of `buckets.lengths_up_to` of the source length that is below two thirds of it
  or the whole: for 40 tokens and 128 nodes 4 encoders and 9 decoders, for 128 tokens
  9 and 27. Sizes that no tree has are not compiled. Calls with little to score have
  smaller programs, one family for each halving of the batch.

  Args:
    params: of `reward.RewardT5`, on the mesh.
    config: the model's shape.
    scale: back to the scale of the ratings that it was trained on.
    mesh: trees are spread over its data and fsdp axes.
    batch_size: trees of max_nodes scored together, fewer where a call has not four
      times as many; changes no score beyond rounding.
    max_nodes: distinct prefixes in one tree; larger groups have several, and repeat
      what these share: 1 % of all prefixes at 128, 5 % at 64 (eight samples of 16
      tokens, Multi30k).
    source_length, target_length: the most tokens, EOS included.
    encoder_groups: groups -> groups with what the encoder reads in place of their
      source tokens (see `inputs`); None leaves them.
  """

  name = 'learned'

  def __init__(
    self,
    params: Any,
    config: t5.T5Config,
    scale: RatingScale,
    *,
    mesh: jax.sharding.Mesh,
    batch_size: int = 32,
    max_nodes: int = 128,
    source_length: int,
    target_length: int,
    encoder_groups: EncoderGroups | None = None,
  ):
    self._encoder_groups = encoder_groups
    self._params = params
    self._config = config
    self._scale = scale
    self._mesh = mesh
    self._take = jax.jit(
      _take,
      static_argnames=('length',),
      out_shardings=mesh_lib.batch_sharding(mesh),
    )
    self._positions = batch_size * max_nodes
    self._max_nodes = max_nodes
    self._sources = self._whole_rows(4 * batch_size)  # encoded at once
    self._target_length = target_length
    self._encoder_lengths = buckets.sizes_up_to(source_length)
    # Decoding reads a longer source at little cost: near the limit, one program.
    self._source_lengths = [
      length
      for length in buckets.lengths_up_to(source_length)
      if length == source_length or 3 * length < 2 * source_length
    ]
    self._tree_sizes = buckets.sizes_up_to(max(max_nodes, target_length))

  def __call__(self, groups: Sequence[group_store.Group]) -> list[np.ndarray]:
    """Returns [samples] float32 rewards per group, on the ratings' scale.

    A candidate without any token has the prediction 0, the ratings' mean.
    """
    rewards = [np.zeros(len(group.tokens), np.float32) for group in groups]
    if self._encoder_groups is not None:
      groups = self._encoder_groups(groups)
    filled = [row for row, group in enumerate(groups) if group.tokens]
    filled.sort(key=lambda row: len(groups[row].source_tokens))
    block = self._sources * _BATCHES_PER_BLOCK
    for start in range(0, len(filled), block):
      rows = filled[start : start + block]
      for row, values in zip(rows, self._block([groups[i] for i in rows]), strict=True):
        rewards[row] = self._scale.restore(values)
    return rewards

  def largest_programs(self) -> Iterator[LargestProgram]:
    """The programs of the longest sources and trees; the others are smaller.

    They are traced for the shapes of the parameters, which may be shapes alone.
    """
    spread = mesh_lib.batch_sharding(self._mesh)

    def batch(shape: tuple[int, ...], dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct(shape, dtype, sharding=spread)

    config, length = self._config, self._source_lengths[-1]
    sources = batch((self._sources, length))
    yield LargestProgram(
      'encode',
      functools.partial(_encode.trace, self._params, sources, config=config),
      sources.shape,
      self._sources * length,
      self._sources,
    )
    size = self._tree_sizes[-1]
    rows = self._rows(size, self._positions)
    nodes, edges = batch((rows, 1, size)), batch((rows, 1, 2 * size))
    trees = {
      'encoder_input_tokens': batch((rows, length)),
      'decoder_input_tokens': nodes,
      'decoder_positions': nodes,
      'subtree_ends': nodes,
      'edge_nodes': edges,
      'edge_tokens': edges,
    }
    encoded = batch((rows, length, config.emb_dim), config.dtype)
    yield LargestProgram(
      'trees',
      functools.partial(_predict.trace, self._params, encoded, trees, config=config),
      (rows, size, length),
      rows * size,
      rows,
    )

  def _block(self, groups: Sequence[group_store.Group]) -> list[np.ndarray]:
    """Predictions for groups in the order of their sources' lengths."""
    longest = max(len(tokens) for group in groups for tokens in group.tokens)
    buckets.bucket(longest, (self._target_length,))  # refuses what is longer
    forest = prefix_trees.build(
      [group.tokens for group in groups], max_nodes=self._max_nodes
    )
    lengths = np.array([len(group.source_tokens) for group in groups])
    width = buckets.bucket(lengths[-1], self._source_lengths)
    sources = np.zeros((len(groups), width), np.int32)
    for row, group in enumerate(groups):
      sources[row, : lengths[row]] = group.source_tokens
    encoded = self._encode(sources, lengths)
    pending = [
      (batch.trees, self._start(forest, batch, sources, encoded))
      for batch in self._batches(forest, lengths)
    ]
    predictions = np.zeros(forest.edge_offsets[-1] + 1, np.float32)  # the last: empty
    for trees, values in pending:
      for tree, row in zip(trees, np.asarray(mesh_lib.fetch(values)), strict=False):
        edges = slice(*forest.edge_offsets[tree : tree + 2])
        predictions[edges] = row[0, : edges.stop - edges.start]
    # A candidate without tokens is in tree -1, where the edges end.
    ends = forest.edge_offsets[forest.candidate_trees] + forest.last_edges()
    counts = [len(group.tokens) for group in groups]
    return np.split(predictions[ends], np.cumsum(counts)[:-1])

  def _batches(
    self, forest: prefix_trees.Forest, lengths: np.ndarray
  ) -> Iterator[_TreeBatch]:
    """Yields batches of trees.

    Trees come by source length and then from the largest, those that are padded
    alike together; only the last batch of all has rows to spare, or one where the
    next trees are so large that they need fewer rows.
    """
    sizes = [buckets.bucket(size, self._tree_sizes) for size in forest.sizes()]
    widths = [
      buckets.bucket(length, self._source_lengths) for length in lengths[forest.groups]
    ]
    positions = _batch_of(sum(sizes), _FEWEST_POSITIONS, self._positions)
    order = np.lexsort((np.negative(sizes), np.array(widths)))
    start = 0
    while start < len(order):
      stop, size = start, 0
      while stop < len(order):
        larger = max(size, sizes[order[stop]])
        if stop - start >= self._rows(larger, positions):
          break
        stop, size = stop + 1, larger
      rows = self._rows(size, positions)
      yield _TreeBatch(order[start:stop], rows, size, widths[order[stop - 1]])
      start = stop

  def _start(
    self,
    forest: prefix_trees.Forest,
    batch: _TreeBatch,
    sources: np.ndarray,  # [sources of the block, longest] int32
    encoded: jax.Array,  # [at least the sources of the block, longest, embed]
  ) -> jax.Array:  # [rows, 1, 2 * nodes] float32, on its way
    """Starts one batch of trees."""
    trees, rows, nodes, length = batch
    arrays = prefix_trees.tree_batch(forest, trees, rows=rows, nodes=nodes)
    groups = np.zeros(rows, np.int32)
    groups[: len(trees)] = forest.groups[trees]
    arrays['encoder_input_tokens'] = sources[groups, :length]
    placed = mesh_lib.put_batch(self._mesh, arrays)
    return _predict(
      self._params,
      self._take(encoded, groups, length=length),
      placed,
      config=self._config,
    )

  def _encode(self, sources: np.ndarray, lengths: np.ndarray) -> jax.Array:
    """The encodings [at least sources, source_length, embed] of a block."""
    parts = []
    rows = self._whole_rows(_batch_of(len(sources), _FEWEST_SOURCES, self._sources))
    for start in range(0, len(sources), rows):
      longest = lengths[start : start + rows].max()
      length = buckets.bucket(longest, self._encoder_lengths)
      tokens = np.zeros((rows, length), np.int32)
      part = sources[start : start + rows, :length]
      tokens[: len(part)] = part
      placed = mesh_lib.put_batch(self._mesh, {'tokens': tokens})['tokens']
      encoded = _encode(self._params, placed, config=self._config)
      spare = sources.shape[1] - length
      parts.append(jnp.pad(encoded, ((0, 0), (0, spare), (0, 0))))
    # Few shapes, whatever the number of sources, for the programs that read it.
    wanted = 1 << (len(parts) - 1).bit_length()
    return jnp.concatenate(parts + parts[:1] * (wanted - len(parts)))

  def _rows(self, size: int, positions: int) -> int:
    """Trees of `size` nodes in a batch of `positions`."""
    return self._whole_rows(positions // size)

  def _whole_rows(self, rows: int) -> int:
    """So many rows that the mesh divides them, at least one a device."""
    shards = mesh_lib.batch_shards(self._mesh)
    return max(shards, rows // shards * shards)

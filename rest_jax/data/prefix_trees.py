"""Candidates of a group as prefix trees: what they share is computed once.

A decoder that reads a candidate y computes one position per *proper prefix* y[:t],
the one that predicts y[t]. Candidates of one source share many: of eight drawn at
temperature 0.8 about two thirds of all prefixes are distinct. A **tree** holds each
distinct proper prefix of its candidates as a **node**:

    node   a prefix; its input is the prefix's last token, at the root the decoder's
           start 0; its depth is the prefix's length, the decoder position
    edge   a node and the token that follows: where a log-probability is read. Edge i
           below the number of nodes leads to node i (edge 0, to the root, is nothing
           that a candidate has); the others lead to ends, which are no nodes

Nodes are in preorder, so the nodes under node i are those from i to before
`subtree_ends[i]`: node j attends to i where i <= j < subtree_ends[i].

A large group is cut into several trees, candidates in lexicographic order; a cut
repeats the prefix that the candidates on its two sides share. Equal candidates are
never apart.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

# Padded tokens that are laid out together, which bounds the memory: 100 bytes each.
_CHUNK_CELLS = 1 << 20


class Tree(NamedTuple):
  """One tree, views into a Forest."""

  group: int  # whose candidates it holds
  tokens: np.ndarray  # [nodes] int32, the decoder's inputs
  depths: np.ndarray  # [nodes] int32, the decoder's positions
  parents: np.ndarray  # [nodes] int32; the root's is itself
  subtree_ends: np.ndarray  # [nodes] int32
  edge_nodes: np.ndarray  # [edges] int32, the node that predicts
  edge_tokens: np.ndarray  # [edges] int32, the token predicted; 0 on edge 0


@dataclasses.dataclass(frozen=True, eq=False)
class Forest:
  """The trees of several groups, in flat arrays.

  Nodes and edges count from 0 in each tree. Candidates are those of all groups in
  their own order. A candidate without any token is in no tree.
  """

  groups: np.ndarray  # [trees] int64, rising
  node_offsets: np.ndarray  # [trees + 1] int64
  tokens: np.ndarray  # [nodes of all trees] int32
  depths: np.ndarray  # likewise
  subtree_ends: np.ndarray
  edge_offsets: np.ndarray  # [trees + 1] int64
  edge_nodes: np.ndarray  # [edges of all trees] int32
  edge_tokens: np.ndarray
  candidate_trees: np.ndarray  # [candidates] int64, -1 without tokens
  token_offsets: np.ndarray  # [candidates + 1] int64, into token_edges
  token_edges: np.ndarray  # [tokens of all candidates] int32, in the candidate's tree

  @property
  def num_trees(self) -> int:
    """Trees of all groups."""
    return len(self.groups)

  def tree(self, index: int) -> Tree:
    """One tree."""
    nodes = slice(*self.node_offsets[index : index + 2])
    edges = slice(*self.edge_offsets[index : index + 2])
    edge_nodes = self.edge_nodes[edges]
    return Tree(
      int(self.groups[index]),
      self.tokens[nodes],
      self.depths[nodes],
      edge_nodes[: nodes.stop - nodes.start],
      self.subtree_ends[nodes],
      edge_nodes,
      self.edge_tokens[edges],
    )

  def sizes(self) -> np.ndarray:
    """[trees] int64: nodes that `tree_batch` needs room for (it has 2 edges each)."""
    edges = np.diff(self.edge_offsets)
    return np.maximum(np.diff(self.node_offsets), -(-edges // 2))

  def last_edges(self) -> np.ndarray:
    """[candidates] int64: the edge of each candidate's last token; 0 without any."""
    last = np.zeros(len(self.candidate_trees), np.int64)
    full = self.candidate_trees >= 0
    last[full] = self.token_edges[self.token_offsets[1:][full] - 1]
    return last

  def token_nodes(self) -> np.ndarray:
    """[tokens of all candidates] int64: the node that predicts each token."""
    lengths = np.diff(self.token_offsets)
    trees = np.repeat(self.candidate_trees, lengths)
    return self.edge_nodes[self.edge_offsets[trees] + self.token_edges]


def build(candidates: Sequence[Sequence[np.ndarray]], *, max_nodes: int) -> Forest:
  """Builds the trees of several groups.

  Args:
    candidates: per group its candidates' tokens, each [length] int32, not negative.
    max_nodes: nodes of a tree at most, and half its edges. A group with a candidate
      of more tokens than that may have trees of as many nodes.

  Raises:
    ValueError: max_nodes is below 1.
  """
  if max_nodes < 1:
    raise ValueError(f'max_nodes {max_nodes} must be at least 1')
  parts = [
    _build(candidates[start:stop], start, max_nodes)
    for start, stop in _chunks(candidates)
  ]
  return parts[0] if len(parts) == 1 else _join(parts)


def _chunks(candidates: Sequence[Sequence[np.ndarray]]) -> Iterator[tuple[int, int]]:
  """Ranges of groups whose candidates fill no more than _CHUNK_CELLS, or one group."""
  start = count = longest = 0
  for index, group in enumerate(candidates):
    longest = max(longest, max(map(len, group), default=0))
    count += len(group)
    if index > start and count * longest > _CHUNK_CELLS:
      yield start, index
      start, count, longest = index, len(group), max(map(len, group), default=0)
  yield start, len(candidates)


def _join(parts: Sequence[Forest]) -> Forest:
  """Forests of consecutive groups as one."""

  def flat(name: str) -> np.ndarray:
    return np.concatenate([getattr(part, name) for part in parts])

  def offsets(name: str) -> np.ndarray:
    return _offsets(np.concatenate([np.diff(getattr(part, name)) for part in parts]))

  first_trees = np.cumsum([0, *(part.num_trees for part in parts)])
  shifted = [
    np.where(part.candidate_trees < 0, -1, part.candidate_trees + first)
    for part, first in zip(parts, first_trees, strict=False)
  ]
  return Forest(
    groups=flat('groups'),
    node_offsets=offsets('node_offsets'),
    tokens=flat('tokens'),
    depths=flat('depths'),
    subtree_ends=flat('subtree_ends'),
    edge_offsets=offsets('edge_offsets'),
    edge_nodes=flat('edge_nodes'),
    edge_tokens=flat('edge_tokens'),
    candidate_trees=np.concatenate(shifted),
    token_offsets=offsets('token_offsets'),
    token_edges=flat('token_edges'),
  )


def _offsets(lengths: np.ndarray) -> np.ndarray:
  """[num + 1] int64, where each run begins, and the end."""
  return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _filled(lengths: np.ndarray, longest: int) -> np.ndarray:
  """[rows, longest] bool, which cells of a padded matrix hold a token."""
  return np.arange(longest) < lengths[:, None]


def _build(
  candidates: Sequence[Sequence[np.ndarray]], first_group: int, max_nodes: int
) -> Forest:
  """The trees of some groups, as matrices [candidates with tokens, length]."""
  every = [tokens for group in candidates for tokens in group]
  lengths = np.fromiter(map(len, every), np.int64, len(every))
  owners = first_group + np.repeat(
    np.arange(len(candidates)), [len(group) for group in candidates]
  )
  full = np.flatnonzero(lengths)
  rows = _sorted_rows(
    np.concatenate([np.zeros(0, np.int32), *every]), lengths[full], owners[full]
  )
  starts = _tree_starts(rows, max_nodes)
  # How many first prefixes, nodes and edges, a row shares with the row before it.
  shared_edges = np.where(starts, 0, rows.common)
  shared = np.minimum(shared_edges + 1, np.append(0, rows.lengths[:-1]))
  shared[starts] = 0
  trees = np.cumsum(starts) - 1  # [rows], the tree of each
  nodes = _Nodes(rows, starts, trees, shared)
  ends = _Ends(rows, starts, trees, shared_edges, nodes)

  # The edges of a tree: those to its nodes, then those to its ends.
  num_nodes, num_ends = np.diff(nodes.offsets), np.bincount(trees[ends.rows])
  edge_offsets = _offsets(num_nodes + num_ends)
  edge_nodes = np.empty(edge_offsets[-1], np.int32)
  edge_tokens = np.empty(edge_offsets[-1], np.int32)
  places = np.arange(nodes.offsets[-1]) + np.repeat(
    edge_offsets[:-1] - nodes.offsets[:-1], num_nodes
  )
  edge_nodes[places], edge_tokens[places] = nodes.parents, nodes.tokens
  last = rows.lengths[ends.rows] - 1
  places = edge_offsets[trees[ends.rows]] + ends.edges[ends.rows]
  edge_nodes[places] = nodes.index[ends.rows, last]
  edge_tokens[places] = rows.tokens[ends.rows, last]

  # Back to the candidates' own order.
  token_edges = np.empty(rows.tokens.shape, np.int32)
  token_edges[rows.order, :-1] = nodes.index[:, 1:]
  token_edges[rows.order, rows.lengths - 1] = ends.edges
  candidate_trees = np.full(len(every), -1)
  candidate_trees[full[rows.order]] = trees
  return Forest(
    groups=rows.groups[starts],
    node_offsets=nodes.offsets,
    tokens=nodes.tokens,
    depths=nodes.depths,
    subtree_ends=nodes.subtree_ends,
    edge_offsets=edge_offsets,
    edge_nodes=edge_nodes,
    edge_tokens=edge_tokens,
    candidate_trees=candidate_trees,
    token_offsets=_offsets(lengths),
    token_edges=token_edges[_filled(lengths[full], rows.tokens.shape[1])],
  )


class _Rows(NamedTuple):
  """Candidates with tokens, sorted by group and then lexicographically."""

  order: np.ndarray  # [rows] int64, which candidate each row is
  tokens: np.ndarray  # [rows, length] int32, -1 after the end
  lengths: np.ndarray  # [rows] int64
  groups: np.ndarray  # [rows] int64
  common: np.ndarray  # [rows] int64, first tokens in common with the row before


def _sorted_rows(
  flat: np.ndarray,  # [tokens of all] int32
  lengths: np.ndarray,  # [rows] int64, none 0
  groups: np.ndarray,  # [rows] int64
) -> _Rows:
  """Sorts candidates, a prefix before what continues it."""
  longest = int(lengths.max(initial=1))
  tokens = np.full((len(lengths), longest), -1, np.int32)
  tokens[_filled(lengths, longest)] = flat
  # Big-endian numbers sort as strings of bytes, five times as fast as by columns.
  keys = np.empty((len(lengths), longest + 1), '>u4')
  keys[:, 0], keys[:, 1:] = groups, tokens + 1
  strings = keys.view(np.dtype((np.void, 4 * (longest + 1))))[:, 0]
  order = np.argsort(strings, kind='stable')
  tokens, lengths, groups = tokens[order], lengths[order], groups[order]
  common = np.zeros(len(lengths), np.int64)
  differ = tokens[1:] != tokens[:-1]
  first = np.where(differ.any(axis=1), differ.argmax(axis=1), longest)
  common[1:] = np.minimum(first, lengths[1:])
  common[1:][groups[1:] != groups[:-1]] = 0
  return _Rows(order, tokens, lengths, groups, common)


def _tree_starts(rows: _Rows, max_nodes: int) -> np.ndarray:
  """[rows] bool: where a tree begins, the last one being full or the group over."""
  starts = np.ones(len(rows.lengths), bool)
  starts[1:] = rows.groups[1:] != rows.groups[:-1]
  firsts = np.flatnonzero(starts)
  longest = np.maximum.reduceat(rows.lengths, firsts) if len(firsts) else firsts
  limits = np.repeat(
    np.maximum(longest, max_nodes), np.diff(np.append(firsts, len(starts)))
  )
  nodes = edges = before = 0
  table = zip(
    starts.tolist(),
    rows.lengths.tolist(),
    rows.common.tolist(),
    limits.tolist(),
    strict=True,
  )
  for row, (first, length, common, limit) in enumerate(table):
    nodes += length - min(common + 1, before)
    edges += length - common
    if first or nodes > limit or edges > 2 * limit:
      starts[row] = True
      nodes, edges = length, length + 1
    before = length
  return starts


class _Nodes:
  """The nodes of sorted rows; a row makes those that it does not share, a chain."""

  def __init__(
    self, rows: _Rows, starts: np.ndarray, trees: np.ndarray, shared: np.ndarray
  ):
    num_rows, longest = rows.tokens.shape
    depth = np.arange(longest)
    made = _offsets(rows.lengths - shared)  # [rows + 1], nodes made before each row
    self.offsets = np.append(made[:-1][starts], made[-1])
    breaks = depth >= shared[:, None]  # at this depth nothing is shared with before
    row = np.arange(num_rows)[:, None]
    # The row that made the node which each row has at each depth.
    maker = np.maximum.accumulate(np.where(breaks, row, 0), axis=0)
    base = made[:-1] - shared  # node at depth 0, were it made by this row
    # [rows, length], counted in the tree; past the candidate's end of no meaning.
    self.index = (base[maker] + depth - self.offsets[trees][:, None]).astype(np.int32)
    # The first later row without that node: what was made before it is beneath.
    later = np.full((num_rows + 1, longest), num_rows)
    later[:-1] = np.where(breaks, row, num_rows)
    later = np.minimum.accumulate(later[::-1], axis=0)[::-1][1:]
    own, depths = np.nonzero(breaks & (depth < rows.lengths[:, None]))
    tree_start = self.offsets[trees[own]]
    self.depths = depths.astype(np.int32)
    self.subtree_ends = (made[later[own, depths]] - tree_start).astype(np.int32)
    above = np.maximum(depths - 1, 0)
    root = depths == 0
    self.tokens = np.where(root, 0, rows.tokens[own, above]).astype(np.int32)
    self.parents = np.where(root, 0, self.index[own, above]).astype(np.int32)


class _Ends:
  """Where candidates end: at an edge of their own, or at one to a node."""

  def __init__(
    self,
    rows: _Rows,
    starts: np.ndarray,
    trees: np.ndarray,
    shared_edges: np.ndarray,
    nodes: _Nodes,
  ):
    num_rows = len(rows.lengths)
    # Does the next row of the tree begin with this whole row, and go on?
    following = np.append(shared_edges[1:], 0) == rows.lengths
    next_lengths = np.append(rows.lengths[1:], 0)
    equal = following & (next_lengths == rows.lengths)
    continued = np.flatnonzero(following & ~equal)
    # [ends], the rows (of equal ones the last) that have an edge to no node.
    self.rows = np.flatnonzero(~following)
    earlier = np.cumsum(~following) - ~following
    edges = earlier - np.repeat(earlier[starts], np.bincount(trees))
    edges += np.diff(nodes.offsets)[trees]
    edges[continued] = nodes.index[continued + 1, rows.lengths[continued]]
    # Equal rows end where the last of them does.
    last = np.where(equal, num_rows, np.arange(num_rows))
    last = np.minimum.accumulate(last[::-1])[::-1]
    self.edges = edges[last].astype(np.int32)  # [rows], in the tree


def tree_batch(
  forest: Forest,
  trees: np.ndarray,  # [chosen] int64
  *,
  rows: int,
  nodes: int,
) -> dict[str, np.ndarray]:
  """Some trees as arrays of fixed shape, one a row; the rows after them are empty.

  Returns:
    decoder_input_tokens, decoder_positions, subtree_ends [rows, 1, nodes] and
    edge_nodes, edge_tokens [rows, 1, 2 * nodes], all int32. The second axis is that
    of several trees of one source. A padding node is its own tree; padding edges
    predict 0 at the root.

  Raises:
    ValueError: more trees than rows, or a tree larger than `nodes` (see `sizes`).
  """
  largest = int(forest.sizes()[trees].max(initial=0))
  if len(trees) > rows or largest > nodes:
    raise ValueError(
      f'{len(trees)} trees of up to {largest} nodes do not fit in {rows} rows of '
      f'{nodes}: take fewer, or build them with a smaller max_nodes'
    )
  batch = {
    'decoder_input_tokens': np.zeros((rows, 1, nodes), np.int32),
    'decoder_positions': np.zeros((rows, 1, nodes), np.int32),
    'subtree_ends': np.zeros((rows, 1, nodes), np.int32),
    'edge_nodes': np.zeros((rows, 1, 2 * nodes), np.int32),
    'edge_tokens': np.zeros((rows, 1, 2 * nodes), np.int32),
  }
  batch['subtree_ends'][:] = np.arange(1, nodes + 1)

  def fill(name: str, offsets: np.ndarray, values: np.ndarray) -> None:
    out = batch[name][: len(trees), 0]
    places = offsets[trees][:, None] + np.arange(out.shape[1])
    filled = places < offsets[trees + 1][:, None]
    out[filled] = values[places[filled]]

  fill('decoder_input_tokens', forest.node_offsets, forest.tokens)
  fill('decoder_positions', forest.node_offsets, forest.depths)
  fill('subtree_ends', forest.node_offsets, forest.subtree_ends)
  fill('edge_nodes', forest.edge_offsets, forest.edge_nodes)
  fill('edge_tokens', forest.edge_offsets, forest.edge_tokens)
  return batch

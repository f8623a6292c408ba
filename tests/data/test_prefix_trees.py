"""Prefix trees against dictionaries of prefixes."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from rest_jax.data import prefix_trees


def _arrays(groups):
  return [[np.array(tokens, np.int32) for tokens in group] for group in groups]


# Few tokens, so that prefixes, duplicates and candidates inside others are frequent.
GROUPS = st.lists(
  st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=8), max_size=4
)


def _slow_node_count(group):
  """Distinct proper prefixes."""
  return len({tuple(tokens[:t]) for tokens in group for t in range(len(tokens))})


def _check(groups, forest):
  """Every token of every candidate is read where its prefix says."""
  flat = [(g, list(tokens)) for g, group in enumerate(groups) for tokens in group]
  assert len(forest.candidate_trees) == len(flat)
  token_nodes = forest.token_nodes()
  for index, (group, tokens) in enumerate(flat):
    start, stop = forest.token_offsets[index : index + 2]
    assert stop - start == len(tokens)
    if not tokens:
      assert forest.candidate_trees[index] == -1
      assert forest.last_edges()[index] == 0
      continue
    tree = forest.tree(forest.candidate_trees[index])
    assert tree.group == group
    edges = forest.token_edges[start:stop]
    assert edges[-1] == forest.last_edges()[index]
    assert 0 not in edges
    assert tree.edge_tokens[edges].tolist() == tokens
    nodes = tree.edge_nodes[edges]
    assert nodes.tolist() == token_nodes[start:stop].tolist()
    for t, node in enumerate(nodes):
      prefix, path = [], []
      while node:
        prefix.append(int(tree.tokens[node]))
        path.append(int(node))
        node = tree.parents[node]
      assert prefix[::-1] == tokens[:t]
      assert tree.depths[nodes[t]] == t
      # The edges before it are those to the nodes on its way.
      assert path[::-1] == edges[:t].tolist()


def _check_trees(forest):
  """What holds inside every tree, by walking the parents."""
  for index in range(forest.num_trees):
    tree = forest.tree(index)
    num_nodes, num_edges = len(tree.tokens), len(tree.edge_nodes)
    assert (tree.tokens[0], tree.depths[0], tree.parents[0]) == (0, 0, 0)
    assert (tree.parents[1:] < np.arange(1, num_nodes)).all()
    np.testing.assert_array_equal(tree.edge_nodes[:num_nodes], tree.parents)
    np.testing.assert_array_equal(tree.edge_tokens[:num_nodes], tree.tokens)
    edges = set(zip(tree.edge_nodes[1:], tree.edge_tokens[1:], strict=True))
    assert len(edges) == num_edges - 1  # each once
    for i in range(num_nodes):
      above = {i}
      while i:
        i = int(tree.parents[i])
        above.add(i)
      node = max(above)
      j = np.arange(num_nodes)
      seen = (j <= node) & (node < tree.subtree_ends)
      assert set(np.flatnonzero(seen).tolist()) == above
    assert forest.sizes()[index] == max(num_nodes, -(-num_edges // 2))


@hypothesis.given(GROUPS)
def test_an_uncut_tree_has_every_prefix_once(groups):
  forest = prefix_trees.build(_arrays(groups), max_nodes=100)
  _check(groups, forest)
  _check_trees(forest)
  filled = [g for g, group in enumerate(groups) if any(group)]
  assert forest.groups.tolist() == filled
  assert np.diff(forest.node_offsets).tolist() == [
    _slow_node_count(groups[g]) for g in filled
  ]


@hypothesis.given(GROUPS, st.integers(1, 7))
def test_cut_trees_hold_every_candidate(groups, max_nodes):
  forest = prefix_trees.build(_arrays(groups), max_nodes=max_nodes)
  _check(groups, forest)
  _check_trees(forest)
  for index in range(forest.num_trees):
    group = groups[forest.groups[index]]
    limit = max(max_nodes, max(map(len, group)))
    assert forest.sizes()[index] <= limit
  # Equal candidates are in one tree.
  where = {}
  flat = [(g, tuple(tokens)) for g, group in enumerate(groups) for tokens in group]
  for key, tree in zip(flat, forest.candidate_trees.tolist(), strict=True):
    assert where.setdefault(key, tree) == tree


def test_a_tree_by_hand():
  # a = 5, b = 6, EOS = 1: 'a b', 'a', 'a b' again, and 'a b b' without EOS.
  groups = [[[5, 6, 1], [5, 1], [5, 6, 1], [5, 6, 6]]]
  forest = prefix_trees.build(_arrays(groups), max_nodes=8)
  assert forest.num_trees == 1
  tree = forest.tree(0)
  assert tree.tokens.tolist() == [0, 5, 6]
  assert tree.depths.tolist() == [0, 1, 2]
  assert tree.parents.tolist() == [0, 0, 1]
  assert tree.subtree_ends.tolist() == [3, 3, 3]
  assert tree.edge_nodes.tolist() == [0, 0, 1, 1, 2, 2]
  assert tree.edge_tokens.tolist() == [0, 5, 6, 1, 1, 6]
  assert forest.token_edges.tolist() == [1, 2, 4, 1, 3, 1, 2, 4, 1, 2, 5]
  assert forest.token_nodes().tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 0, 1, 2]
  assert forest.last_edges().tolist() == [4, 3, 4, 5]


def test_chunks_make_the_same_forest(monkeypatch):
  rng = np.random.default_rng(0)
  groups = [
    [rng.integers(0, 3, rng.integers(0, 6)).tolist() for _ in range(rng.integers(6))]
    for _ in range(9)
  ]
  whole = prefix_trees.build(_arrays(groups), max_nodes=5)
  monkeypatch.setattr(prefix_trees, '_CHUNK_CELLS', 30)
  assert len(list(prefix_trees._chunks(_arrays(groups)))) > 2
  parts = prefix_trees.build(_arrays(groups), max_nodes=5)
  for name, values in vars(whole).items():
    np.testing.assert_array_equal(getattr(parts, name), values, err_msg=name)


def test_nothing_makes_no_tree():
  for groups in ([], [[]], [[], [[]]]):
    forest = prefix_trees.build(_arrays(groups), max_nodes=5)
    assert forest.num_trees == 0 and forest.sizes().size == 0
    assert forest.last_edges().tolist() == [0] * sum(map(len, groups))


def test_a_batch_holds_the_trees_and_harmless_padding():
  groups = [[[5, 6, 1], [5, 1]], [[7, 1]]]
  forest = prefix_trees.build(_arrays(groups), max_nodes=8)
  batch = prefix_trees.tree_batch(forest, np.array([1, 0]), rows=3, nodes=4)
  assert {name: x.shape for name, x in batch.items()} == {
    'decoder_input_tokens': (3, 1, 4),
    'decoder_positions': (3, 1, 4),
    'subtree_ends': (3, 1, 4),
    'edge_nodes': (3, 1, 8),
    'edge_tokens': (3, 1, 8),
  }
  assert {x.dtype for x in batch.values()} == {np.dtype(np.int32)}
  tokens = [[0, 7, 0, 0], [0, 5, 6, 0], [0, 0, 0, 0]]
  assert batch['decoder_input_tokens'][:, 0].tolist() == tokens
  positions = [[0, 1, 0, 0], [0, 1, 2, 0], [0, 0, 0, 0]]
  assert batch['decoder_positions'][:, 0].tolist() == positions
  ends = [[2, 2, 3, 4], [3, 3, 3, 4], [1, 2, 3, 4]]
  assert batch['subtree_ends'][:, 0].tolist() == ends
  assert batch['edge_tokens'][1, 0].tolist() == [0, 5, 6, 1, 1, 0, 0, 0]
  assert batch['edge_nodes'][1, 0].tolist() == [0, 0, 1, 1, 2, 0, 0, 0]
  assert not batch['edge_nodes'][2].any()


def test_what_does_not_fit_is_refused():
  forest = prefix_trees.build(_arrays([[[5, 6, 1]], [[7, 1]]]), max_nodes=8)
  with pytest.raises(ValueError, match='2 trees of up to 3 nodes do not fit in 1'):
    prefix_trees.tree_batch(forest, np.arange(2), rows=1, nodes=4)
  with pytest.raises(ValueError, match=r'2 trees of up to 3 nodes.*rows of 2'):
    prefix_trees.tree_batch(forest, np.arange(2), rows=2, nodes=2)
  with pytest.raises(ValueError, match='max_nodes 0 must be at least 1'):
    prefix_trees.build([], max_nodes=0)

"""Prefix trees give every candidate what its padded row gives it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.data import prefix_trees
from rest_jax.models import reward, t5, trees
from tests.models import test_reward, test_t5

SCANNED = dataclasses.replace(test_t5.DEEP, scan_layers=True)
# Two sources. Of the first, prefixes are shared, one candidate is twice there and one
# inside another, which has no EOS; some are longer than the exact distances' half of
# the position buckets, 16.
GROUPS = [
  [
    [5, 6, 7, 1],
    [5, 6, 1],
    [5, 6, 7, 1],
    [5, 6],
    [9, *[8] * 19, 1],
    [9, *[8] * 10, *[4] * 9],
  ],
  [[4, 1], [5, 6, 7, 8, 1], [5, 6, 9, 1], [1]],
]
SOURCES = np.array([[7, 3, 9, 1], [8, 1, 0, 0]], np.int32)
MAX_NODES, NODES, TREES = 22, 32, 3


def make_trees(max_nodes=MAX_NODES, nodes=NODES, per_source=TREES):
  """A forest, and its trees as [sources, per_source, nodes] with their places."""
  arrays = [[np.array(tokens, np.int32) for tokens in group] for group in GROUPS]
  forest = prefix_trees.build(arrays, max_nodes=max_nodes)
  # [sources * per_source, 1, ...]: tree k of source s in row s * per_source + k.
  rank = [list(forest.groups[:i]).count(g) for i, g in enumerate(forest.groups)]
  places = forest.groups * per_source + rank
  rows = len(GROUPS) * per_source
  batch = prefix_trees.tree_batch(
    forest, np.arange(forest.num_trees), rows=rows, nodes=nodes
  )
  moved = prefix_trees.tree_batch(forest, np.arange(0), rows=rows, nodes=nodes)
  for name in batch:
    moved[name][places] = batch[name][: forest.num_trees]
    moved[name] = moved[name].reshape(len(GROUPS), per_source, -1)
  return forest, moved, places


def make_rows(length=24):
  """The same candidates, padded: inputs, targets and weights [2, 6, length]."""
  shape = (len(GROUPS), max(map(len, GROUPS)), length)
  inputs, targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
  weights = np.zeros(shape, np.float32)
  for row, group in enumerate(GROUPS):
    for slot, tokens in enumerate(group):
      targets[row, slot, : len(tokens)] = tokens
      inputs[row, slot, 1 : len(tokens)] = tokens[:-1]
      weights[row, slot, : len(tokens)] = 1
  return inputs, targets, weights


@pytest.mark.parametrize(
  'config',
  [test_t5.CONFIG, SCANNED, test_t5.PER_LAYER],
  ids=['loop', 'scan', 'bias per layer'],
)
def test_logits_of_a_tree_are_those_of_the_padded_rows(config):
  params = test_t5.make_params(config)
  inputs, _, weights = make_rows()
  encoded = test_t5.call(config, 'encode')(params, SOURCES)
  padded = np.asarray(test_t5.call(config, 'decode')(params, encoded, SOURCES, inputs))
  forest, batch, places = make_trees()
  assert np.bincount(forest.groups).tolist() == [3, 1]  # cut, and several in a row
  mask = trees.ancestors(jnp.asarray(batch['subtree_ends']))
  found = decode(config)(params, encoded, batch, mask)
  assert found.shape == (2, TREES, NODES, 40) and found.dtype == jnp.float32
  found = np.asarray(found).reshape(-1, NODES, 40)
  expected = padded[weights > 0]  # [tokens of all, vocab], in the candidates' order
  lengths = np.diff(forest.token_offsets)
  rows = places[np.repeat(forest.candidate_trees, lengths)]
  # Positions from the nodes' order instead of their depths are 0.6 away.
  test_t5.assert_close(found[rows, forest.token_nodes()], expected)


def decode(config):
  def apply(params, encoded, batch, mask):
    return t5.T5(config).apply(
      {'params': params},
      encoded,
      SOURCES,
      batch['decoder_input_tokens'],
      decoder_positions=batch['decoder_positions'],
      decoder_mask=mask,
      method='decode',
    )

  return jax.jit(apply, **test_t5.QUICK)


def test_a_chain_has_the_logits_of_a_sequence():
  # Positions and a mask that say what is the case without them.
  params, (source, target) = test_t5.make_params(test_t5.CONFIG), test_t5.make_tokens()
  length = target.shape[2]
  positions = np.broadcast_to(np.arange(length, dtype=np.int32), target.shape)
  mask = np.broadcast_to(np.tri(length, dtype=bool), (*target.shape, length))
  encoded = test_t5.call(test_t5.CONFIG, 'encode')(params, source)

  @functools.partial(jax.jit, **test_t5.QUICK)
  def features(params, **options):
    return t5.T5(test_t5.CONFIG).apply(
      {'params': params}, encoded, source, target, method='decode_features', **options
    )

  found = features(params, decoder_positions=positions, decoder_mask=mask)
  np.testing.assert_allclose(found, features(params), atol=2e-6)


def test_positions_and_mask_come_together():
  params, (source, target) = test_t5.make_params(test_t5.CONFIG), test_t5.make_tokens()
  model, encoded = t5.T5(test_t5.CONFIG), jnp.zeros((*source.shape, 16))
  mask = jnp.ones((*target.shape, target.shape[2]), bool)
  for options in (
    {'decoder_positions': target},
    {'decoder_mask': mask},
    {'decoder_positions': target[0], 'decoder_mask': mask},
    {'decoder_positions': target, 'decoder_mask': mask[:, :, 0]},
  ):
    with pytest.raises(ValueError, match='need both'):
      model.apply(
        {'params': params}, encoded, source, target, method='decode', **options
      )


def test_ancestors_are_the_nodes_on_the_way_to_the_root():
  # 0 -> 1 -> 2, 0 -> 3, and a padding node.
  mask = trees.ancestors(jnp.array([[[4, 3, 3, 4, 5]]], jnp.int32))
  expected = [
    [1, 0, 0, 0, 0],
    [1, 1, 0, 0, 0],
    [1, 1, 1, 0, 0],
    [1, 0, 0, 1, 0],
    [0, 0, 0, 0, 1],
  ]
  np.testing.assert_array_equal(mask[0, 0], np.array(expected, bool))


def test_edges_read_log_probabilities_and_their_sums():
  logits = np.random.default_rng(0).normal(size=(1, 1, 3, 4)).astype(np.float32)
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  nodes = jnp.array([[[0, 0, 1, 2, 2, 0]]], jnp.int32)  # 0 -> 1 -> 2 and ends
  tokens = jnp.array([[[0, 3, 2, 1, 2, 3]]], jnp.int32)
  found = trees.edge_log_probs(jnp.asarray(logits), nodes, tokens)
  expected = log_probs[0, 0][nodes[0, 0], tokens[0, 0]]
  np.testing.assert_allclose(found[0, 0], expected, atol=1e-6)
  mask = trees.ancestors(jnp.array([[[3, 3, 3]]], jnp.int32))
  sums = trees.path_sums(found, nodes, mask)[0, 0]
  a, b = expected[1], expected[2]  # the edges to nodes 1 and 2
  by_hand = [a, a + b, a + b + expected[3], a + b + expected[4], expected[5]]
  # With edge 0 counted, all would differ by its log-probability.
  np.testing.assert_allclose(sums[1:], by_hand, rtol=1e-6)


def test_an_index_out_of_range_is_not_a_number():
  logits = jnp.zeros((1, 1, 2, 4))
  nodes, tokens = jnp.array([[[0, 2, 0]]]), jnp.array([[[4, 0, 3]]])
  found = trees.edge_log_probs(logits, nodes, tokens)
  np.testing.assert_array_equal(np.isnan(found[0, 0]), [True, True, False])


@functools.partial(jax.jit, **test_t5.QUICK)
def predict_trees(params, batch):
  model = reward.RewardT5(test_reward.CONFIG)
  encoded = model.apply({'params': params}, SOURCES, method='encode')
  batch = batch | {'encoder_input_tokens': SOURCES}
  return reward.predict_trees(params, encoded, batch, config=test_reward.CONFIG)


@pytest.mark.parametrize(
  'options',
  [{}, {'max_nodes': 100, 'nodes': 64, 'per_source': 1}],
  ids=['cut', 'whole'],
)
def test_rewards_are_those_of_the_padded_rows(options):
  params = test_reward.make_params()
  inputs, targets, weights = make_rows()
  rows = {
    'encoder_input_tokens': SOURCES,
    'decoder_input_tokens': inputs,
    'decoder_target_tokens': targets,
    'decoder_loss_weights': weights,
  }
  padded = np.asarray(test_reward.PREDICT(params, rows, config=test_reward.CONFIG))
  forest, batch, places = make_trees(**options)
  found = np.asarray(predict_trees(params, batch))
  found = found.reshape(-1, found.shape[-1])
  found = found[places[forest.candidate_trees], forest.last_edges()]
  # Sums of up to 21 log-probabilities of size 5, in another order.
  np.testing.assert_allclose(found, padded[weights.any(-1)], atol=2e-5)


def test_padding_changes_no_reward():
  params = test_reward.make_params()
  forest, batch, places = make_trees()
  where = places[forest.candidate_trees], forest.last_edges()

  def read(batch):
    found = np.asarray(predict_trees(params, batch))
    return found.reshape(-1, found.shape[-1])[where]

  expected = read(batch)
  dirty = {name: values.copy() for name, values in batch.items()}
  for tree, place in enumerate(places):
    source, row = divmod(place, TREES)
    nodes = slice(forest.node_offsets[tree + 1] - forest.node_offsets[tree], None)
    edges = slice(forest.edge_offsets[tree + 1] - forest.edge_offsets[tree], None)
    dirty['decoder_input_tokens'][source, row, nodes] = 11
    dirty['decoder_positions'][source, row, nodes] = 3
    dirty['edge_nodes'][source, row, edges] = 10**6
    dirty['edge_tokens'][source, row, edges] = 7
  assert any((dirty[name] != batch[name]).any() for name in batch)
  np.testing.assert_array_equal(read(dirty), expected)

"""Running a decoder over prefix trees, and reading candidates from its results.

A row of decoder tokens is a tree of candidates' prefixes in preorder instead of one
candidate, as `rest_jax.data.prefix_trees` lays it out: a node attends to the nodes
on its way to the root, at their depths as positions. So each node has the features
and logits that a padded row has after the same prefix.
"""

import jax
import jax.numpy as jnp


def ancestors(
  subtree_ends: jax.Array,  # [batch, trees, nodes] int32, from the node's own + 1
) -> jax.Array:  # [batch, trees, nodes, nodes] bool, from which node to which
  """Whether the second node is the first, or on its way to the root.

  i <= j < subtree_ends[i] for nodes j, i in preorder: the decoder's mask.
  """
  shape = (*subtree_ends.shape, subtree_ends.shape[-1])
  node = jax.lax.broadcasted_iota(subtree_ends.dtype, shape, 2)
  ancestor = jax.lax.broadcasted_iota(subtree_ends.dtype, shape, 3)
  return (ancestor <= node) & (node < subtree_ends[:, :, None, :])


def edge_log_probs(
  logits: jax.Array,  # [batch, trees, nodes, vocab] float32 or bfloat16
  edge_nodes: jax.Array,  # [batch, trees, edges] int32
  edge_tokens: jax.Array,  # [batch, trees, edges] int32
) -> jax.Array:  # [batch, trees, edges] float32, nats
  """Log-probability of each edge's token at its node.

  logits[node, token] - log(sum_v exp(logits[node, v])), summed in float32. One
  normaliser a node, whatever its number of edges, and no second array of the logits'
  size. Indices out of range give NaN.
  """
  log_z = jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1)

  def read(
    logits: jax.Array, log_z: jax.Array, nodes: jax.Array, tokens: jax.Array
  ) -> jax.Array:
    chosen = logits.at[nodes, tokens].get(mode='fill', fill_value=jnp.nan)
    chosen_z = log_z.at[nodes].get(mode='fill', fill_value=jnp.nan)
    return chosen.astype(jnp.float32) - chosen_z

  # Mapped, not indexed by row, so that rows of a sharded batch stay where they are.
  return jax.vmap(jax.vmap(read))(logits, log_z, edge_nodes, edge_tokens)


def path_sums(
  values: jax.Array,  # [batch, trees, edges] float32
  edge_nodes: jax.Array,  # [batch, trees, edges] int32
  mask: jax.Array,  # [batch, trees, nodes, nodes] bool, from `ancestors`
) -> jax.Array:  # [batch, trees, edges] float32
  """Sums of the edges' values from the root up to each edge, itself included.

  The edge with a node's index leads to it; that of index 0, to the root, counts 0.
  """
  to_nodes = values[:, :, : mask.shape[-1]].at[:, :, 0].set(0.0)
  # Chosen, not multiplied: whatever a padding node holds stays there.
  at_nodes = jnp.sum(jnp.where(mask, to_nodes[:, :, None, :], 0.0), axis=-1)
  before = jnp.take_along_axis(at_nodes, edge_nodes, axis=2)
  return before + values

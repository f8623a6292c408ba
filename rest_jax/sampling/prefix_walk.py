"""How a slot walks the tree of its candidates' prefixes, each node decoded once.

Depth first:

    the candidates at the deepest node that is not done share one decoder step and
    draw their next tokens from its one distribution; those that drew the leader's
    token walk on with it, the others wait; when a branch has ended, the slot goes
    back to the deepest that waits.

Going back costs nothing: whatever the branch wrote to the cache lies at or after the
position that is written next. So equal prefixes, and equal candidates, are computed
once, no cache is ever copied, and a slot never idles while its share has work.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rest_jax.data import vocabularies


class Candidates(NamedTuple):
  """What each slot owns. An empty place is done from the start."""

  uniforms: jax.Array  # [batch, slots, share, limit] float32, one for each token
  tokens: jax.Array  # [batch, slots, share, length] int32, 0 after the last
  log_probs: jax.Array  # [batch, slots, share, length] float32 nats, untempered
  num_tokens: jax.Array  # [batch, slots, share] int32, drawn so far
  num_known: jax.Array  # [batch, slots, share] int32, of `tokens`, drawn before
  walking: jax.Array  # [batch, slots, share] bool, at the slot's node
  done: jax.Array  # [batch, slots, share] bool, ended, or out of cache


def draw(
  candidates: Candidates,
  draw_fn: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
) -> Candidates:
  """Gives one token more to each candidate that is at its slot's node.

  Args:
    candidates: of all slots.
    draw_fn: from uniform numbers [batch, slots, share] to tokens drawn at the slots'
      nodes and their log-probabilities.
  """
  walking, at = candidates.walking, candidates.num_tokens
  length = candidates.tokens.shape[-1]
  uniform = jnp.take_along_axis(
    candidates.uniforms, jnp.minimum(at, length - 1)[..., None], axis=-1
  )[..., 0]
  drawn, log_prob = draw_fn(uniform)
  positions = jnp.arange(length)[None, None, None]
  here = positions == at[..., None]  # [batch, slots, share, length]
  known = at < candidates.num_known
  before = jnp.sum(jnp.where(here, candidates.tokens, 0), axis=-1)
  drawn = jnp.where(known, before, drawn)
  write = here & (walking & ~known)[..., None]
  num_tokens = at + walking.astype(at.dtype)
  ended = walking & ((drawn == vocabularies.EOS_ID) | (num_tokens == length))
  return candidates._replace(
    tokens=jnp.where(write, drawn[..., None], candidates.tokens),
    log_probs=jnp.where(write, log_prob[..., None], candidates.log_probs),
    num_tokens=num_tokens,
    done=candidates.done | ended,
  )


def choose_node(
  candidates: Candidates,
) -> tuple[Candidates, jax.Array, jax.Array]:
  """Chooses each slot's next node: the deepest that is left, the first of them.

  Those that wait at the greatest depth left the walk at one and the same node, so
  their last token tells them apart.

  Returns:
    The candidates, their `walking` renewed; the node's token and its position,
    [batch, slots] int32.
  """
  depth = jnp.where(candidates.done, -1, candidates.num_tokens)
  deepest = jnp.max(depth, axis=-1, keepdims=True)  # [batch, slots, 1]
  leader = jnp.argmax(depth, axis=-1)[..., None]  # the first of the deepest
  last = jnp.take_along_axis(
    candidates.tokens, jnp.maximum(candidates.num_tokens - 1, 0)[..., None], axis=-1
  )[..., 0]
  token = jnp.take_along_axis(last, leader, axis=-1)  # [batch, slots, 1]
  walking = ~candidates.done & (depth == deepest) & (last == token)
  position = jnp.maximum(deepest, 0)
  return candidates._replace(walking=walking), token[..., 0], position[..., 0]

"""Draws with the vocabulary in front: the tokens of `draws.draw`, to the last."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.sampling import draws, vocab_first

ROWS = (3, 2)  # batch, slots


def both(vocab: int, num_draws: int, decoding: draws.Decoding, *, by_row: bool = False):
  random = np.random.default_rng(vocab)
  logits = jnp.asarray(random.normal(0, 3, (*ROWS, vocab)), jnp.float32)
  uniform = jnp.asarray(random.random((*ROWS, num_draws)), jnp.float32)
  allowed = (jnp.arange(vocab) > 0)[None, None]
  if by_row:
    allowed &= jnp.asarray(random.random((*ROWS, vocab)) < 0.5)

  def run(module):
    return jax.jit(
      lambda logits, uniform: module.draw_with_log_probs(
        logits, allowed, uniform, decoding
      )
    )(logits, uniform)

  return run(draws), run(vocab_first)


# Fewer than a block; some of the last row of columns missing; a whole number of blocks;
# rows of columns missing altogether (257 tokens have two blocks, so nine rows).
@pytest.mark.parametrize('vocab', [5, 40, 256, 257, 1000])
@pytest.mark.parametrize('num_draws', [1, 7])
def test_the_same_tokens(vocab, num_draws):
  (tokens, log_probs), (others, other_log_probs) = both(
    vocab, num_draws, draws.Decoding()
  )
  assert others.dtype == tokens.dtype == jnp.int32
  assert others.shape == (*ROWS, num_draws)
  np.testing.assert_array_equal(tokens, others)
  # The normaliser is summed in another order; log-probabilities are below 16.
  np.testing.assert_allclose(log_probs, other_log_probs, atol=4e-6)


@pytest.mark.parametrize(
  'settings', [{}, {'top_k': 9}, {'top_p': 0.6}, {'temperature': 0.0}]
)
def test_the_same_tokens_when_cut_and_when_rows_differ_in_what_is_allowed(settings):
  (tokens, log_probs), (others, other_log_probs) = both(
    300, 3, draws.Decoding(**settings), by_row=True
  )
  np.testing.assert_array_equal(tokens, others)
  np.testing.assert_allclose(log_probs, other_log_probs, atol=4e-6)


def test_a_token_of_no_mass_is_never_drawn_even_at_the_ends():
  logits = jnp.zeros((1, 1, 300)).at[..., 7].set(500.0)  # it would outweigh all
  allowed = jnp.zeros((1, 1, 300), bool).at[..., jnp.array([130, 131])].set(True)
  ends = jnp.array([[[0.0, np.nextafter(np.float32(1), np.float32(0))]]])
  tokens, log_probs = vocab_first.draw_with_log_probs(
    logits, allowed, ends, draws.Decoding()
  )
  assert tokens.tolist() == [[[130, 131]]]
  np.testing.assert_allclose(log_probs, -500.0)

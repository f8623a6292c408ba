"""Offline actor-critic (OAC): policy gradient with the behaviour policy's values."""

import jax
import jax.numpy as jnp

from rest_jax.losses.behavioural_cloning import LossSums, kept_weights


def offline_actor_critic_loss(
  log_probs: jax.Array,  # [batch, samples, length] float32, nats
  returns: jax.Array,  # [batch, samples, length] float32
  values: jax.Array,  # [batch, samples, length] float32, V(s_t)
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  keep: jax.Array,  # [batch, samples] bool, the filter's verdict
) -> LossSums:
  """Policy loss of the kept candidates, each token weighted with its advantage.

  -sum(keep * w * stop_gradient(G_t - V(s_t)) * log pi(y_t)) / sum(keep * w)

  as its numerator and denominator: the caller adds both up over microbatches and
  devices and divides once. The gradient with respect to log_probs is
  -keep * w * (G_t - V(s_t)), and nothing reaches the value function, which has its
  own parameters and its own loss (`values.value_loss`).

  A token whose candidate did better than V expected is pushed up, one that did worse
  is pushed down, and without bound: log pi of a bad token may fall to -inf. A filter
  leaves few of the latter, if V is that of all candidates.

  Args:
    log_probs: of the policy in training.
    returns: `returns.monte_carlo_returns`, from a reward at the last token.
    values: the frozen value model's output at each decoder position, which has seen
      the source and the tokens before t: the value of the behaviour policy.
    weights, keep: as in behavioural_cloning_loss. All kept is the paper's OAC.

  Source: Mathieu et al. 2021 (StarCraft II Unplugged), as ReST (arXiv:2308.08998,
  appendix A.8) uses it: no V-trace, no importance weights, Monte Carlo returns.
  Departure: normalised per kept token.

  Advantages of 0 everywhere (returns equal to values) give a loss of 0, with a zero
  gradient. Nothing kept gives two zeros: divide by max(weight_sum, 1). Where the
  weight is 0 or the candidate dropped, all arrays may be -inf or NaN.

  Raises:
    ValueError: when traced: ranks, shapes or dtypes are not as above.
  """
  kept = kept_weights(log_probs, weights, keep)
  if not returns.shape == values.shape == log_probs.shape:
    raise ValueError(
      f'returns {returns.shape} and values {values.shape} must have the shape of '
      f'log_probs {log_probs.shape}, [batch, samples, length]; '
      'returns.monte_carlo_returns spreads one reward over its tokens.'
    )
  advantages = returns.astype(jnp.float32) - values.astype(jnp.float32)
  used = kept != 0
  # Selected before any product: 0 * inf is NaN, in the value and in the gradient.
  log_probs = jnp.where(used, log_probs.astype(jnp.float32), jnp.float32(0))
  advantages = jnp.where(used, jax.lax.stop_gradient(advantages), jnp.float32(0))
  return LossSums(-jnp.sum(kept * advantages * log_probs), jnp.sum(kept))

"""Behaviour V-MPO (BVMPO): V-MPO on offline data, held near the BC policy.

Three steps:

    e_step = top_half_weights(advantages, weights, keep, log_temperature, epsilon=...)
    divergence = behaviour_kl(logits, behaviour_logits)
    sums = bvmpo_loss(log_probs, divergence, e_step, weights, keep, kl_weight=...)

Which batch: the E-step compares tokens with one another. Its half, its softmax and
its mean are over all rows of the arrays that it is given, on all devices (they are
arrays of one program, so nothing has to be gathered by hand). A train step that cuts
its batch into microbatches calls its loss on one microbatch at a time: an E-step
inside the loss is then over that microbatch alone, and the result is the mean of the
microbatches' losses, weighted by their tokens, which is not the loss of the whole
batch. For the whole batch use one microbatch, or, since advantages do not depend on
the policy's parameters, take the E-step before the batch is cut and hand its token
weights on with the rows. `bvmpo_loss` itself may be summed over any cut.

Source: Song et al. 2020 (arXiv:1909.12238) and ReST (arXiv:2308.08998), appendix A.8.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.losses.behavioural_cloning import kept_weights

# Below it float32 would divide the advantages by 0.
MIN_TEMPERATURE = 1e-8
# Stands for log 0 in the KL; no KL of logits below 1e19 is above the other.
_LOWEST = np.float32(-1e38)
_NO_KL = np.float32(1e20)


class EStep(NamedTuple):
  """What the advantages of a batch say: which tokens to learn, and how sharply."""

  token_weights: jax.Array  # [batch, samples, length] float32; sum(keep * w) in all
  temperature_loss: jax.Array  # [] float32, of log_temperature alone
  num_chosen: jax.Array  # [] int32, tokens in the better half


class BVMPOSums(NamedTuple):
  """The loss is loss_sum / weight_sum over the whole batch; the parts are its terms."""

  loss_sum: jax.Array  # [] float32, the three parts below, weighted and added
  weight_sum: jax.Array  # [] float32, kept tokens
  policy_loss_sum: jax.Array  # [] float32, nats
  kl_sum: jax.Array  # [] float32, nats; before kl_weight
  temperature_loss_sum: jax.Array  # [] float32


def annealed_kl_weight(
  step: jax.Array | int,  # [] int, 0 at the first
  *,
  num_steps: int,
  start: float = 1.0,
  end: float = 1e-5,
) -> jax.Array:  # [] float32
  """lambda, from `start` at step 0 to `end` at num_steps, and `end` ever after.

  lambda = start^(1 - d) * end^d,   d = min(step / num_steps, 1)

  Geometric: each decade takes the same number of steps. The paper names the two ends
  and not the path; a linear one would stay above 0.01 for 99 % of the steps.

  Raises:
    ValueError: num_steps is below 1, or start or end not positive.
  """
  if num_steps < 1:
    raise ValueError(f'num_steps={num_steps} must be at least 1: the steps of the run.')
  if not (start > 0 and end > 0):
    raise ValueError(
      f'start={start} and end={end} must be positive, as the path is geometric; take '
      'a small end, such as 1e-5, for none.'
    )
  done = jnp.minimum(jnp.asarray(step, jnp.float32) / num_steps, jnp.float32(1))
  return jnp.power(jnp.float32(start), 1 - done) * jnp.power(jnp.float32(end), done)


def top_half_weights(
  advantages: jax.Array,  # [batch, samples, length] float32, G_t - V(s_t)
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  keep: jax.Array,  # [batch, samples] bool, the filter's verdict
  log_temperature: jax.Array | float,  # [] float32, log eta
  *,
  epsilon: float,
) -> EStep:
  """E-step: a softmax of the better half of the advantages, and its temperature.

  Of the n kept tokens (of weight > 0), D is the ceil(n / 2) with the largest
  advantages, with all that tie with the last of them. Then, with w the weights and
  eta = max(exp(log_temperature), MIN_TEMPERATURE),

      psi_t = w_t exp(A_t / eta) / sum_D w exp(A / eta)     in D, 0 elsewhere
      temperature_loss = eta * epsilon
                         + eta * log(sum_D w exp(A / eta) / sum_D w)

  token_weights are psi_t * sum(keep * w): their mean per kept token is 1, so that the
  policy loss is on the scale of behavioural cloning. The temperature loss is convex
  in eta, and least where KL(psi || w / sum_D w) = epsilon; a constant advantage gives
  psi uniform over all kept tokens and a KL of 0, and lowers eta to its minimum,
  where its gradient ends.

  No gradient reaches the advantages or flows through token_weights; temperature_loss
  has one with respect to log_temperature.

  Args:
    advantages: per token; `returns.monte_carlo_returns` less a value model's values.
    weights, keep: as in behavioural_cloning_loss.
    log_temperature: a learned scalar, trained with the policy; 0 starts at eta = 1.
    epsilon: the bound on the KL, in nats, positive.

  Source: psi and the temperature loss of Song et al. 2020. Departures: eta is kept
  positive by its logarithm, not by a projection; weights may be fractions; the half
  is of the tokens that exist.

  Nothing kept gives token_weights of 0 and a temperature loss of 0 with a zero
  gradient. Masked advantages may be NaN. One token is its own better half.

  Raises:
    ValueError: epsilon is not positive; when traced: ranks, shapes or dtypes are not
      as above.
  """
  if not epsilon > 0:
    raise ValueError(f'epsilon={epsilon} must be positive: a bound in nats, as 0.1.')
  kept = kept_weights(advantages, weights, keep)
  used = kept > 0
  advantages = jax.lax.stop_gradient(advantages.astype(jnp.float32))
  ranked = jnp.sort(jnp.where(used, advantages, -jnp.inf), axis=None)[::-1]
  half = (jnp.sum(used, dtype=jnp.int32) + 1) // 2
  threshold = ranked[jnp.maximum(half - 1, 0)]
  # Not `advantages >= threshold`, which would drop a kept NaN: it has to show.
  chosen = used & ~(advantages < threshold)

  floor = jnp.float32(math.log(MIN_TEMPERATURE))
  eta = jnp.exp(jnp.maximum(jnp.asarray(log_temperature, jnp.float32), floor))
  # The largest advantage is taken out of exp, where it would overflow.
  largest = jnp.max(jnp.where(chosen, advantages, -jnp.inf))
  below = jnp.where(chosen, advantages - largest, jnp.float32(0))  # at most 0
  mass = jnp.where(chosen, kept, jnp.float32(0))
  terms = mass * jnp.exp(below / eta)
  total, chosen_sum = jnp.sum(terms), jnp.sum(mass)
  empty = chosen_sum == 0
  one = jnp.float32(1)
  safe_total = jnp.where(empty, one, total)
  log_mean = jnp.log(safe_total) - jnp.log(jnp.where(empty, one, chosen_sum))
  loss = eta * epsilon + jnp.where(empty, jnp.float32(0), largest) + eta * log_mean
  return EStep(
    token_weights=jax.lax.stop_gradient(terms / safe_total * jnp.sum(kept)),
    temperature_loss=jnp.where(empty, jnp.float32(0), loss),
    num_chosen=jnp.sum(chosen, dtype=jnp.int32),
  )


def bvmpo_loss(
  log_probs: jax.Array,  # [batch, samples, length] float32, nats
  divergence: jax.Array,  # [batch, samples, length] float32, nats
  e_step: EStep,
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  keep: jax.Array,  # [batch, samples] bool, the filter's verdict
  *,
  kl_weight: jax.Array | float,  # [] float32, lambda
) -> BVMPOSums:
  """M-step: maximum likelihood under the E-step's weights, near the BC policy.

  loss_sum   = -sum(token_weights * log pi(y_t))
               + kl_weight * sum(keep * w * KL_t)
               + temperature_loss * sum(keep * w)
  weight_sum = sum(keep * w)

  The caller adds both up over microbatches and devices and divides once; divided, the
  terms are V-MPO's -sum(psi log pi), the mean KL of a token, and the temperature loss.
  The KL holds at every kept token, in the better half or not.

  Args:
    log_probs: of the policy in training.
    divergence: `behaviour_kl` at each token.
    e_step: of `top_half_weights`; its token_weights for these rows. See the module's
      docstring for the batch that it was taken over.
    weights, keep: those of the E-step.
    kl_weight: lambda, such as `annealed_kl_weight`.

  Source: ReST, appendix A.8. Its KL to the BC policy takes the place of V-MPO's
  trust region around the last policy, so there is no second dual variable. The value
  function is trained apart (`values.value_loss`).

  Nothing kept gives zeros, and zero gradients: divide by max(weight_sum, 1). Where
  the weight is 0 or the candidate dropped, log_probs and divergence may be -inf or
  NaN. A log_prob of -inf outside the better half does no harm either.

  Raises:
    ValueError: when traced: ranks, shapes or dtypes are not as above.
  """
  kept = kept_weights(log_probs, weights, keep)
  token_weights = e_step.token_weights
  if not divergence.shape == token_weights.shape == log_probs.shape:
    raise ValueError(
      f'divergence {divergence.shape} and token_weights {token_weights.shape} must '
      f'have the shape of log_probs {log_probs.shape}, [batch, samples, length].'
    )
  used = kept != 0
  zero = jnp.float32(0)
  # Selected before any product: 0 * inf is NaN, in the value and in the gradient.
  psi = jnp.where(used, token_weights, zero)
  policy_sum = -jnp.sum(psi * jnp.where(psi != 0, log_probs.astype(jnp.float32), zero))
  kl_sum = jnp.sum(kept * jnp.where(used, divergence.astype(jnp.float32), zero))
  weight_sum = jnp.sum(kept)
  temperature_sum = e_step.temperature_loss * weight_sum
  loss_sum = policy_sum + kl_weight * kl_sum + temperature_sum
  return BVMPOSums(loss_sum, weight_sum, policy_sum, kl_sum, temperature_sum)


def behaviour_kl(
  logits: jax.Array,  # [batch, samples, length, vocab] float32 or bfloat16
  behaviour_logits: jax.Array,  # [batch, samples, length, vocab], likewise
) -> jax.Array:  # [batch, samples, length] float32, nats
  """KL(pi_beta || pi) of the next token, exact over the whole vocabulary.

  KL_t = sum_v beta_v (log beta_v - log pi_v)

  pi = softmax(logits) is in training, beta = softmax(behaviour_logits) is frozen and
  untempered. It is *not* estimated from the drawn token, and it is the direction that
  covers: a token that pi forbids (a logit of -inf) and beta does not makes it infinite,
  with a finite gradient. A token with beta = 0 adds nothing.

  Sums are taken in float32. Only both logits and their normalisers are kept for the
  backward pass, which makes the gradient in one elementwise step,

      d logits = g * (pi - beta),

  and exactly 0 at a token whose incoming gradient is 0: logits of padding do not
  reach the parameters, even if they are infinite or NaN. None reaches
  behaviour_logits. Reverse-mode only: the derivative is a custom_vjp.

  Raises:
    ValueError: when traced: the shapes differ or are not of rank 4, or the logits are
      not floats.
  """
  if logits.ndim != 4 or behaviour_logits.shape != logits.shape:
    raise ValueError(
      f'logits {logits.shape} and behaviour_logits {behaviour_logits.shape} must both '
      'be [batch, samples, length, vocab]: one vocabulary for both policies.'
    )
  for array in (logits, behaviour_logits):
    if not jnp.issubdtype(array.dtype, jnp.floating):
      raise ValueError(f'logits must be floating point, got {array.dtype}.')
  return _behaviour_kl(logits, behaviour_logits)


@jax.custom_vjp
def _behaviour_kl(logits: jax.Array, behaviour_logits: jax.Array) -> jax.Array:
  return _kl_forward(logits, behaviour_logits)[0]


def _kl_forward(
  logits: jax.Array, behaviour_logits: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
  x, y = logits.astype(jnp.float32), behaviour_logits.astype(jnp.float32)
  log_z = jax.nn.logsumexp(x, axis=-1)
  behaviour_log_z = jax.nn.logsumexp(y, axis=-1)
  log_pi, log_beta = x - log_z[..., None], y - behaviour_log_z[..., None]
  # Bounded, a token that both forbid adds 0 * 0. Selecting it away would make XLA's
  # CPU backend write the terms of the sum, as large as the logits, to memory first.
  bounded = jnp.maximum(log_beta, _LOWEST) - jnp.maximum(log_pi, _LOWEST)
  kl = jnp.sum(jnp.exp(log_beta) * bounded, axis=-1)
  kl = jnp.where(kl > _NO_KL, jnp.float32(jnp.inf), kl)
  return kl, (logits, behaviour_logits, log_z, behaviour_log_z)


def _kl_backward(
  residuals: tuple[jax.Array, ...], gradient: jax.Array
) -> tuple[jax.Array, None]:
  logits, behaviour_logits, log_z, behaviour_log_z = residuals
  pi = jnp.exp(logits.astype(jnp.float32) - log_z[..., None])
  beta = jnp.exp(behaviour_logits.astype(jnp.float32) - behaviour_log_z[..., None])
  gradient = gradient[..., None]
  d_logits = jnp.where(gradient == 0, jnp.float32(0), gradient * (pi - beta))
  return d_logits.astype(logits.dtype), None


_behaviour_kl.defvjp(_kl_forward, _kl_backward)

"""GOLD: an off-policy policy gradient whose rewards come from the frozen BC model.

In three steps, so that each may be replaced:

    rewards = product_rewards(reference_log_probs)   # GOLD-p, or
    rewards = sum_rewards(reference_log_probs)       # GOLD-s
    returns = future_returns(rewards, weights, past_the_end=1.0)  # 10.0 for GOLD-p
    sums = gold_loss(log_probs, returns, weights, keep)

`gold_p_returns` and `gold_s_returns` are the first two steps at once.

Source: Pang & He 2021 (arXiv:2009.07839), Algorithm 1, and the authors' code, whose
names are given below in brackets. What ReST (arXiv:2308.08998, appendix A.8) calls
GOLD is this on the candidates that its filter keeps.
"""

import math

import jax
import jax.numpy as jnp

from rest_jax.losses import returns as returns_lib
from rest_jax.losses.behavioural_cloning import LossSums, kept_weights


def product_rewards(
  reference_log_probs: jax.Array,  # [batch, samples, length] float32, nats
  *,
  baseline: float = -10.0,
  floor: float = 1.0,
) -> jax.Array:  # [batch, samples, length] float32
  """Token rewards of GOLD-p: log-probabilities, which add up to a log of a product.

  r_t = max(log p_MLE(y_t | s_t) - baseline, floor)

  `baseline` [b, q_baseline] is a bound from below: subtracted, it makes likely tokens
  good instead of less bad, and `floor` [c, trunc_min] keeps every reward positive, so
  that no token of a kept candidate is pushed down. The defaults are the authors'; an
  impossible token (-inf) gets the floor, a certain one -baseline = 10.

  baseline = 0 with floor = -math.inf leaves bare log-probabilities: all returns are
  negative then, and the loss pushes down what the BC model finds unlikely.

  Departure: the authors take log(p + 1e-10), which the floor hides.

  Raises:
    ValueError: baseline is not finite, or floor is NaN or +inf.
  """
  _check_finite(baseline=baseline)
  _check_floor(floor)
  rewards = reference_log_probs.astype(jnp.float32) - baseline
  return jax.lax.stop_gradient(jnp.maximum(rewards, jnp.float32(floor)))


def sum_rewards(
  reference_log_probs: jax.Array,  # [batch, samples, length] float32, nats
  *,
  floor: float = 0.1,
) -> jax.Array:  # [batch, samples, length] float32, in [floor, 1]
  """Token rewards of GOLD-s: probabilities, which give credit to parts.

  r_t = max(p_MLE(y_t | s_t), floor)

  No baseline. `floor` [c, trunc_min] is the authors' value for IWSLT 2014 De-En.

  Raises:
    ValueError: floor is NaN or +inf.
  """
  _check_floor(floor)
  probs = jnp.exp(reference_log_probs.astype(jnp.float32))
  return jax.lax.stop_gradient(jnp.maximum(probs, jnp.float32(floor)))


def future_returns(
  token_rewards: jax.Array,  # [batch, samples, length] float32
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  *,
  past_the_end: float,
  num_future_tokens: int = 5,
  discount: float = 1.0,
) -> jax.Array:  # [batch, samples, length] float32
  """The return of a token: its own reward and those of the next k tokens.

  R_t = sum_{i=0..k} discount^i r_{t+i},   k = num_future_tokens

  Six terms with k = 5, as in the authors' code [suffix_num]. A text that has ended
  is taken to go on with certain tokens, r = `past_the_end`: with 0 in their place the
  last tokens, EOS before all, would get a sixth of the others' weight. The authors
  do so where a batch ends. Departure: on a batch's padding they read p_MLE of the
  padding, so that a return depends on the batch's width; ours does not.

  Positions of weight 0 count as past the end, may hold anything, and get 0.

  Args:
    token_rewards: of product_rewards or sum_rewards, or any other.
    weights: as in the loss.
    past_the_end: reward of a token with p_MLE = 1: 1 for sum_rewards, -baseline for
      product_rewards; 0 cuts the sum at the last token.
    num_future_tokens: k, at least 0.
    discount: in [0, 1]; the authors take 1.

  Raises:
    ValueError: an option is out of its range; when traced: ranks or shapes are not
      as above.
  """
  returns_lib.check_fraction('discount', discount)
  _check_finite(past_the_end=past_the_end)
  if num_future_tokens < 0:
    raise ValueError(
      f'num_future_tokens={num_future_tokens} must be at least 0, which leaves the '
      "token's own reward alone; 5 is usual."
    )
  if weights.ndim != 3 or token_rewards.shape != weights.shape:
    raise ValueError(
      f'token_rewards {token_rewards.shape} and weights {weights.shape} must both be '
      '[batch, samples, length].'
    )
  exists = weights > 0
  certain = jnp.float32(past_the_end)
  rewards = jnp.where(exists, token_rewards.astype(jnp.float32), certain)
  length = rewards.shape[-1]
  # [batch, samples, length + k]
  padded = jnp.pad(
    rewards, ((0, 0), (0, 0), (0, num_future_tokens)), constant_values=past_the_end
  )
  returns = jnp.zeros_like(rewards)
  for i in range(num_future_tokens + 1):
    returns += discount**i * padded[..., i : i + length]
  return jax.lax.stop_gradient(jnp.where(exists, returns, jnp.float32(0)))


def gold_p_returns(
  reference_log_probs: jax.Array,  # [batch, samples, length] float32, nats
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  *,
  baseline: float = -10.0,
  floor: float = 1.0,
  num_future_tokens: int = 5,
  discount: float = 1.0,
) -> jax.Array:  # [batch, samples, length] float32
  """future_returns of product_rewards; see there for the options."""
  rewards = product_rewards(reference_log_probs, baseline=baseline, floor=floor)
  return future_returns(
    rewards,
    weights,
    past_the_end=max(-baseline, floor),
    num_future_tokens=num_future_tokens,
    discount=discount,
  )


def gold_s_returns(
  reference_log_probs: jax.Array,  # [batch, samples, length] float32, nats
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  *,
  floor: float = 0.1,
  num_future_tokens: int = 5,
  discount: float = 1.0,
) -> jax.Array:  # [batch, samples, length] float32
  """future_returns of sum_rewards; see there for the options."""
  return future_returns(
    sum_rewards(reference_log_probs, floor=floor),
    weights,
    past_the_end=max(1.0, floor),
    num_future_tokens=num_future_tokens,
    discount=discount,
  )


def gold_loss(
  log_probs: jax.Array,  # [batch, samples, length] float32, nats
  returns: jax.Array,  # [batch, samples, length] float32
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  keep: jax.Array,  # [batch, samples] bool, the filter's verdict
  *,
  rewards: jax.Array | None = None,  # [batch, samples] float32
  lower_bound: float = 0.2,
) -> LossSums:
  """GOLD's policy loss over the kept candidates.

  -sum(keep * w * omega_t * R_t * log pi(y_t)) / sum(keep * w),
  omega_t = max(stop_gradient(pi(y_t)), lower_bound)

  as its numerator and denominator: the caller adds both up over microbatches and
  devices and divides once. The importance weight omega (of a token, with the unknown
  behaviour policy's probability taken as constant) and R_t are constants: the
  gradient with respect to log_probs is -keep * w * omega_t * R_t. The bound [u,
  iw_min] keeps unlikely tokens in training; 0.2 is the authors' value for IWSLT 2014
  De-En, and 1 makes every omega 1. With that and R_t = 1 this is behavioural cloning.

  `rewards` multiply the returns of their candidate, R(x, y) R_t, for rewards
  normalised to [0, 1]; without them, a candidate's reward counts through `keep` alone.

  Source: Pang & He 2021, Algorithm 1. Departures: omega is of the current policy, not
  of a copy that is renewed every few thousand updates; normalised per kept token, as
  every loss here; `keep` and `rewards` are ReST's (GOLD trains on demonstrations
  alone). No label smoothing.

  Nothing kept gives two zeros, and a zero gradient: divide by max(weight_sum, 1).
  Where the weight is 0 or the candidate dropped, all arrays may be -inf or NaN:
  neither value nor gradient sees them.

  Raises:
    ValueError: lower_bound is not in [0, 1]; when traced: ranks, shapes or dtypes are
      not as above.
  """
  if not 0 <= lower_bound <= 1:
    raise ValueError(
      f'lower_bound={lower_bound} must lie in [0, 1], as a probability does; 0 turns '
      'it off, 1 turns importance weighting off.'
    )
  kept = kept_weights(log_probs, weights, keep)
  if returns.shape != log_probs.shape:
    raise ValueError(
      f'returns {returns.shape} must have the shape of log_probs {log_probs.shape}, '
      '[batch, samples, length].'
    )
  used = kept != 0
  # Selected before any product: 0 * inf is NaN, in the value and in the gradient.
  log_probs = jnp.where(used, log_probs.astype(jnp.float32), jnp.float32(0))
  returns = jnp.where(used, returns.astype(jnp.float32), jnp.float32(0))
  if rewards is not None:
    if rewards.shape != keep.shape:
      raise ValueError(
        f'rewards {rewards.shape} must be [batch, samples] = {keep.shape}.'
      )
    returns *= rewards.astype(jnp.float32)[..., None]
  omega = jnp.maximum(jnp.exp(log_probs), jnp.float32(lower_bound))
  factors = jnp.where(used, kept * omega * returns, jnp.float32(0))
  factors = jax.lax.stop_gradient(factors)
  return LossSums(-jnp.sum(factors * log_probs), jnp.sum(kept))


def _check_finite(**options: float) -> None:
  for name, value in options.items():
    if not math.isfinite(value):
      raise ValueError(f'{name}={value} must be a finite number.')


def _check_floor(floor: float) -> None:
  if not floor < math.inf:
    raise ValueError(f'floor={floor} must be a number below inf; -inf turns it off.')

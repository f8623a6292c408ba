"""Returns and advantages of candidates, token by token.

The state s_t of token t is the source and the tokens before it, the action is token
t. A value model's output at decoder position t has seen exactly s_t, so that it is
V(s_t). A candidate ends after its last token of weight > 0, and the value of what
follows is 0.
"""

import jax
import jax.numpy as jnp


def monte_carlo_returns(
  rewards: jax.Array,  # [batch, samples] float32, one per finished candidate
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  *,
  discount: float = 1.0,
) -> jax.Array:  # [batch, samples, length] float32, in units of the rewards
  """Discounted return of every token, from a reward at the last token alone.

  G_t = discount^(T - t) R,   T the candidate's last token

  so the last token, EOS in a finished candidate, has G_T = R. Positions of weight 0
  get 0 and are not counted as steps; what `rewards` holds for an empty slot does not
  matter. No gradient reaches the rewards.

  Source: ReST (arXiv:2308.08998), appendix A.8: the target of its value function.

  Raises:
    ValueError: discount is not in [0, 1]; when traced: ranks or shapes are not as
      above.
  """
  check_fraction('discount', discount)
  _check_rewards(rewards, weights)
  exists = weights > 0
  count = jnp.sum(exists, axis=-1, keepdims=True, dtype=jnp.int32)
  # Tokens still to come after this one: T - t.
  remaining = count - jnp.cumsum(exists, axis=-1, dtype=jnp.int32)
  factors = jnp.power(jnp.float32(discount), remaining.astype(jnp.float32))
  returns = factors * rewards.astype(jnp.float32)[..., None]
  return jax.lax.stop_gradient(jnp.where(exists, returns, jnp.float32(0)))


def rewards_at_last_token(
  rewards: jax.Array,  # [batch, samples] float32, one per candidate
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
) -> jax.Array:  # [batch, samples, length] float32
  """Token rewards r_t: each candidate's reward at its last token, 0 elsewhere.

  Add token-wise penalties to them before `generalised_advantages`. An empty slot has
  none, whatever its reward. No gradient reaches the rewards.

  Raises:
    ValueError: when traced: ranks or shapes are not as above.
  """
  _check_rewards(rewards, weights)
  exists = weights > 0
  rank = jnp.cumsum(exists, axis=-1, dtype=jnp.int32)  # 1 at the first token
  is_last = exists & (rank == rank[..., -1:])
  rewards = rewards.astype(jnp.float32)[..., None]
  return jax.lax.stop_gradient(jnp.where(is_last, rewards, jnp.float32(0)))


def generalised_advantages(
  token_rewards: jax.Array,  # [batch, samples, length] float32
  values: jax.Array,  # [batch, samples, length] float32, V(s_t)
  weights: jax.Array,  # [batch, samples, length] float32, 0 on padding
  *,
  discount: float = 1.0,
  trace_decay: float = 0.95,
) -> jax.Array:  # [batch, samples, length] float32, in units of the rewards
  """Generalised advantage estimates (GAE).

  delta_t = r_t + discount V(s_{t+1}) - V(s_t)
  A_t     = delta_t + discount * trace_decay * A_{t+1}

  with V = A = 0 after the candidate's last token. A + values are the targets of the
  value function (the lambda-returns). With trace_decay = 1 and the reward at the last
  token, A is `monte_carlo_returns` less the values; with 0, A is delta. Nothing is
  bootstrapped where a candidate was cut by the length limit: it ends there.

  Positions of weight 0 get 0, are skipped, and may hold anything. No gradient reaches
  rewards and values: the result is constant.

  Source: Schulman et al. 2016 (arXiv:1506.02438).

  Raises:
    ValueError: discount or trace_decay is not in [0, 1]; when traced: ranks or shapes
      are not as above.
  """
  check_fraction('discount', discount)
  check_fraction('trace_decay', trace_decay)
  if weights.ndim != 3 or not token_rewards.shape == values.shape == weights.shape:
    raise ValueError(
      f'token_rewards {token_rewards.shape}, values {values.shape} and weights '
      f'{weights.shape} must all be [batch, samples, length]; see '
      'rewards_at_last_token for one reward per candidate.'
    )

  def earlier(
    following: tuple[jax.Array, jax.Array], token: tuple[jax.Array, ...]
  ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    next_advantage, next_value = following  # both [batch, samples]
    reward, value, exists = token
    delta = reward + discount * next_value - value
    advantage = delta + discount * trace_decay * next_advantage
    carry = (
      jnp.where(exists, advantage, next_advantage),
      jnp.where(exists, value, next_value),
    )
    return carry, jnp.where(exists, advantage, jnp.float32(0))

  arrays = (token_rewards.astype(jnp.float32), values.astype(jnp.float32), weights > 0)
  # [batch, samples, length] -> [length, batch, samples], from the last token on.
  tokens = tuple(jnp.moveaxis(jax.lax.stop_gradient(x), -1, 0) for x in arrays)
  zeros = jnp.zeros(weights.shape[:2], jnp.float32)
  _, advantages = jax.lax.scan(earlier, (zeros, zeros), tokens, reverse=True)
  return jnp.moveaxis(advantages, 0, -1)


def check_fraction(name: str, value: float) -> None:
  """Refuses what is not in [0, 1].

  Raises:
    ValueError: value is not in [0, 1].
  """
  if not 0 <= value <= 1:
    raise ValueError(f'{name}={value} must lie in [0, 1]; 1 forgets nothing.')


def _check_rewards(rewards: jax.Array, weights: jax.Array) -> None:
  if weights.ndim != 3 or rewards.shape != weights.shape[:2]:
    raise ValueError(
      f'rewards {rewards.shape} must be [batch, samples] and weights {weights.shape} '
      '[batch, samples, length]; a plain batch has samples = 1: rewards[:, None], '
      'weights[:, None].'
    )

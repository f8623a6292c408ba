"""Log-probabilities of chosen tokens, without a second array of the logits' size."""

import jax
import jax.numpy as jnp


def token_log_probs(
  logits: jax.Array,  # [batch, samples, length, vocab] float32 or bfloat16
  targets: jax.Array,  # [batch, samples, length] int32
) -> jax.Array:  # [batch, samples, length] float32, nats
  """Natural log-probability of each target token under its logits.

  log_probs = logits[target] - log(sum_v exp(logits[v]))

  See `log_probs_and_log_z`, of which this is the first result.
  """
  return log_probs_and_log_z(logits, targets)[0]


def log_probs_and_log_z(
  logits: jax.Array,  # [batch, samples, length, vocab] float32 or bfloat16
  targets: jax.Array,  # [batch, samples, length] int32
) -> tuple[jax.Array, jax.Array]:  # both [batch, samples, length] float32, nats
  """Log-probability of each target and the log of the softmax's normaliser.

  log_z = log(sum_v exp(logits[v]));  log_probs = logits[target] - log_z

  Sums are taken in float32, whatever the logits' type. Only the logits and log_z
  are kept for the backward pass, which makes its gradient in the logits' type in
  one elementwise step,

      d logits = g_log_probs * onehot(target) + (g_log_z - g_log_probs) * softmax,

  and exactly 0 at a token whose two incoming gradients are 0: logits of padding do
  not reach the parameters, even if they are infinite or NaN. A logit of -inf (a
  forbidden token) has probability 0 and gradient 0; a *target* with a logit of -inf
  has log_prob -inf. A target outside [0, vocab) gives NaN.

  Reverse-mode only (jax.grad, jax.vjp): the derivative is a custom_vjp.

  Raises:
    ValueError: when traced: the ranks or shapes are not as above, targets are not
      integers, or logits not floats.
  """
  if logits.ndim != 4 or targets.shape != logits.shape[:-1]:
    raise ValueError(
      f'logits {logits.shape} must be [batch, samples, length, vocab] and targets '
      f'{targets.shape} their first three axes; a plain batch has samples = 1: '
      'logits[:, None], targets[:, None].'
    )
  if not jnp.issubdtype(targets.dtype, jnp.integer):
    raise ValueError(f'targets must be integers, got {targets.dtype}.')
  if not jnp.issubdtype(logits.dtype, jnp.floating):
    raise ValueError(f'logits must be floating point, got {logits.dtype}.')
  return _log_probs_and_log_z(logits, targets)


@jax.custom_vjp
def _log_probs_and_log_z(
  logits: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
  log_z = jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1)
  # Gathered in the forward pass: XLA's CPU backend would write a masked sum's
  # terms to memory first. With a sharded vocabulary it becomes one all-reduce of
  # [batch, samples, length], as a masked sum would.
  known = (targets >= 0) & (targets < logits.shape[-1])
  index = jnp.where(known, targets, jnp.zeros((), targets.dtype))[..., None]
  chosen = jnp.take_along_axis(logits, index, axis=-1)[..., 0].astype(jnp.float32)
  target_logits = jnp.where(known, chosen, jnp.float32(jnp.nan))
  return target_logits - log_z, log_z


def _forward(
  logits: jax.Array, targets: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
  log_probs, log_z = _log_probs_and_log_z(logits, targets)
  return (log_probs, log_z), (logits, targets, log_z)


def _backward(
  residuals: tuple[jax.Array, jax.Array, jax.Array],
  gradients: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, None]:
  logits, targets, log_z = residuals
  g_log_probs, g_log_z = (g[..., None] for g in gradients)
  softmax = jnp.exp(logits.astype(jnp.float32) - log_z[..., None])
  # A comparison instead of a scatter: it fuses into the same loop.
  vocab = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
  is_target = vocab == targets[..., None]
  d_logits = jnp.where(is_target, g_log_probs, jnp.float32(0))
  d_logits += (g_log_z - g_log_probs) * softmax
  silent = (g_log_probs == 0) & (g_log_z == 0)
  return jnp.where(silent, jnp.float32(0), d_logits).astype(logits.dtype), None


_log_probs_and_log_z.defvjp(_forward, _backward)

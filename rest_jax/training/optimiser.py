"""Optimisers and learning-rate schedules.

An optimiser here is an optax chain whose last link multiplies by minus the
learning rate and remembers it, so that it can be reported. The train step
multiplies the update once more by the state's `learning_rate_scale`, an array:
one compiled step serves all Improve steps, each with its lower rate.

Schedules map the number of updates done so far, 0 first, to a learning rate.
With W warmup steps, the update after t others has the warmup factor

    w(t) = min(1, (t + 1) / W)        (1 where W = 0)

so that the first update already moves, and the full rate is reached in the W-th.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Schedule = Callable[[Any], Any]  # [] int32 updates done -> [] float32 rate


def _check(**values: float | None) -> None:
  for name, value in values.items():
    if value is not None and value < 0:
      raise ValueError(f'{name}={value} must not be negative')


def _warmup(step: Any, warmup_steps: int) -> jax.Array:
  """[] float32, w(t)."""
  return jnp.minimum(1.0, (jnp.float32(step) + 1.0) / max(warmup_steps, 1))


def constant_schedule(learning_rate: float, warmup_steps: int = 0) -> Schedule:
  """rate(t) = learning_rate * w(t)."""
  _check(learning_rate=learning_rate, warmup_steps=warmup_steps)
  return lambda step: learning_rate * _warmup(step, warmup_steps)


def inverse_square_root_schedule(
  learning_rate: float, warmup_steps: int = 0
) -> Schedule:
  """rate(t) = learning_rate * w(t) * sqrt(W / max(t + 1, W)), W at least 1.

  Source: the Transformer's (arXiv:1706.03762, section 5.3), written with its
  highest rate. T5's 1/sqrt(max(t, 10^4)) has no warmup: it is close to
  learning_rate=0.01, warmup_steps=10000 from the end of the warmup on.
  """
  _check(learning_rate=learning_rate, warmup_steps=warmup_steps)
  warmup = max(warmup_steps, 1)

  def rate(step: Any) -> jax.Array:
    decay = jnp.sqrt(warmup / jnp.maximum(jnp.float32(step) + 1.0, warmup))
    return learning_rate * _warmup(step, warmup_steps) * decay

  return rate


def _done(step: Any, warmup_steps: int, num_steps: int) -> jax.Array:
  """[] float32, d(t): the part of the decay that is done."""
  length = num_steps - warmup_steps
  return jnp.clip((jnp.float32(step) - warmup_steps) / length, 0.0, 1.0)


def _check_decay(
  learning_rate: float, warmup_steps: int, num_steps: int, end_fraction: float
) -> None:
  _check(learning_rate=learning_rate, warmup_steps=warmup_steps)
  if num_steps <= warmup_steps:
    raise ValueError(
      f'num_steps={num_steps} must exceed warmup_steps={warmup_steps}: the decay '
      'follows the warmup'
    )
  if not 0.0 <= end_fraction <= 1.0:
    raise ValueError(f'end_fraction={end_fraction} must be from 0 to 1')


def linear_decay_schedule(
  learning_rate: float,
  warmup_steps: int = 0,
  *,
  num_steps: int,
  end_fraction: float = 0.0,
) -> Schedule:
  """rate(t) = learning_rate * w(t) * (1 - (1 - end_fraction) * d(t)).

  d(t) = clip((t - W) / (num_steps - W), 0, 1): the end is reached just after the
  last update, so that no update is spent on a rate of 0.
  """
  _check_decay(learning_rate, warmup_steps, num_steps, end_fraction)

  def rate(step: Any) -> jax.Array:
    decay = 1.0 - (1.0 - end_fraction) * _done(step, warmup_steps, num_steps)
    return learning_rate * _warmup(step, warmup_steps) * decay

  return rate


def cosine_decay_schedule(
  learning_rate: float,
  warmup_steps: int = 0,
  *,
  num_steps: int,
  end_fraction: float = 0.0,
) -> Schedule:
  """As `linear_decay_schedule`, with (1 - cos(pi d)) / 2 in place of d.

  Source: arXiv:1608.03983, without restarts.
  """
  _check_decay(learning_rate, warmup_steps, num_steps, end_fraction)

  def rate(step: Any) -> jax.Array:
    done = (1.0 - jnp.cos(jnp.pi * _done(step, warmup_steps, num_steps))) / 2.0
    decay = 1.0 - (1.0 - end_fraction) * done
    return learning_rate * _warmup(step, warmup_steps) * decay

  return rate


class LearningRateState(NamedTuple):
  """State of `scale_by_schedule`."""

  num_updates: jax.Array  # [] int32
  learning_rate: jax.Array  # [] float32, of the latest update


def scale_by_schedule(learning_rate: float | Schedule) -> optax.GradientTransformation:
  """Multiplies by minus the learning rate, and remembers that rate."""
  schedule = (
    learning_rate if callable(learning_rate) else constant_schedule(learning_rate)
  )

  def init(params: Any) -> LearningRateState:
    del params
    return LearningRateState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32))

  def update(
    updates: Any, state: LearningRateState, params: Any = None
  ) -> tuple[Any, LearningRateState]:
    del params
    rate = jnp.asarray(schedule(state.num_updates), jnp.float32)
    updates = jax.tree.map(lambda u: -rate.astype(u.dtype) * u, updates)
    return updates, LearningRateState(optax.safe_increment(state.num_updates), rate)

  return optax.GradientTransformation(init, update)


def learning_rate_of(opt_state: Any) -> jax.Array | None:
  """[] float32, the rate of the latest update; None for an optimiser not ours."""
  is_ours = lambda node: isinstance(node, LearningRateState)
  for node in jax.tree.leaves(opt_state, is_leaf=is_ours):
    if is_ours(node):
      return node.learning_rate
  return None


def _matrices(params: Any) -> Any:
  """True for parameters of rank 2 and more: norms and biases do not decay."""
  return jax.tree.map(lambda p: p.ndim >= 2, params)


def adafactor(
  learning_rate: float | Schedule,
  *,
  clip_norm: float | None = None,
  decay_rate: float = 0.8,
  min_dim_size_to_factor: int = 128,
  clipping_threshold: float | None = 1.0,
  multiply_by_parameter_scale: bool = True,
  epsilon: float = 1e-30,
  weight_decay: float = 0.0,
) -> optax.GradientTransformation:
  """Adafactor: second moments of matrices kept as one row and one column.

  Source: arXiv:1804.04235, without momentum, as T5 uses it. The same numbers as
  `optax.adafactor`. Departure: weight decay is multiplied by the learning rate.

  Args:
    learning_rate: relative to each parameter's root mean square (at least 1e-3)
      where `multiply_by_parameter_scale`; a number or a schedule.
    clip_norm: largest global norm of the gradient; None does not clip.
    decay_rate: c in the second moments' decay 1 - t^-c.
    min_dim_size_to_factor: smaller matrices keep their second moments whole.
    clipping_threshold: largest root mean square of a parameter's update before
      the learning rate; None does not clip.
    multiply_by_parameter_scale: see `learning_rate`.
    epsilon: added to squared gradients.
    weight_decay: added to the update as weight_decay * parameter, matrices only.
  """
  _check(clip_norm=clip_norm, weight_decay=weight_decay)
  links = [
    optax.scale_by_factored_rms(
      decay_rate=decay_rate,
      min_dim_size_to_factor=min_dim_size_to_factor,
      epsilon=epsilon,
    )
  ]
  if clipping_threshold is not None:
    links.append(optax.clip_by_block_rms(clipping_threshold))
  if multiply_by_parameter_scale:
    links.append(optax.scale_by_param_block_rms())
  return _chain(links, learning_rate, clip_norm, weight_decay)


def adamw(
  learning_rate: float | Schedule,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  epsilon: float = 1e-8,
  weight_decay: float = 0.0,
  clip_norm: float | None = None,
) -> optax.GradientTransformation:
  """Adam with decoupled weight decay, of parameters of rank 2 and more only.

  Source: arXiv:1711.05101. weight_decay=0 is Adam (arXiv:1412.6980).

  Args:
    learning_rate: a number or a schedule.
    b1: decay of the first moments.
    b2: decay of the second moments.
    epsilon: added to the root of the second moments.
    weight_decay: added to the update, before the learning rate, as
      weight_decay * parameter.
    clip_norm: largest global norm of the gradient; None does not clip.
  """
  _check(clip_norm=clip_norm, weight_decay=weight_decay, b1=b1, b2=b2)
  links = [optax.scale_by_adam(b1=b1, b2=b2, eps=epsilon)]
  return _chain(links, learning_rate, clip_norm, weight_decay)


def _chain(
  links: list[optax.GradientTransformation],
  learning_rate: float | Schedule,
  clip_norm: float | None,
  weight_decay: float,
) -> optax.GradientTransformation:
  """clip -> links -> weight decay -> learning rate."""
  first = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
  last = [optax.add_decayed_weights(weight_decay, _matrices)] if weight_decay else []
  return optax.chain(*first, *links, *last, scale_by_schedule(learning_rate))


# The two optimisers as plain values: what a gin file binds, and what can be
# compared and fingerprinted, which a chain of closures cannot. Calling one
# builds the optax chain.


@dataclasses.dataclass(frozen=True)
class Adafactor:
  """Settings of `adafactor`; `schedule` is one of this module's, or alike."""

  learning_rate: float = 1e-3
  warmup_steps: int = 0
  schedule: Callable[..., Schedule] = constant_schedule
  clip_norm: float | None = None
  decay_rate: float = 0.8
  weight_decay: float = 0.0

  def __call__(self) -> optax.GradientTransformation:
    """Builds the optimiser."""
    return adafactor(
      self.schedule(self.learning_rate, self.warmup_steps),
      clip_norm=self.clip_norm,
      decay_rate=self.decay_rate,
      weight_decay=self.weight_decay,
    )


@dataclasses.dataclass(frozen=True)
class AdamW:
  """Settings of `adamw`; `schedule` is one of this module's, or alike."""

  learning_rate: float = 1e-3
  warmup_steps: int = 0
  schedule: Callable[..., Schedule] = constant_schedule
  clip_norm: float | None = 1.0
  b1: float = 0.9
  b2: float = 0.999
  weight_decay: float = 0.0

  def __call__(self) -> optax.GradientTransformation:
    """Builds the optimiser."""
    return adamw(
      self.schedule(self.learning_rate, self.warmup_steps),
      b1=self.b1,
      b2=self.b2,
      weight_decay=self.weight_decay,
      clip_norm=self.clip_norm,
    )

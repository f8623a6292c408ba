"""Objectives: a loss of `losses`, bound to models, as the train step takes it.

An objective is a small frozen object: `name` for tables, and
`loss_fn(config)(params, batch, rng) -> (loss_sum, weight_sum, metrics)`. What else an
objective of the policy may say of itself is in `PolicyObjective`; the losses of
Improve beside behavioural cloning are in `offline_objectives`, those that learn from
pairs in `preference_objectives`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.losses import behavioural_cloning
from rest_jax.models import t5
from rest_jax.training import step as step_lib

# Names of frozen models: as `needs` lists them, and as a loss finds their parameters.
REFERENCE = 'reference_policy'  # the BC policy
VALUE = 'value_model'  # the behaviour policy's values, of `train_value`

Configs = Mapping[str, t5.T5Config]


class Objective(Protocol):
  """What every objective is."""

  name: ClassVar[str]

  def loss_fn(self, config: t5.T5Config) -> step_lib.LossFn:
    """Returns the loss of a model of this shape."""
    ...


class PolicyObjective:
  """What an objective of Improve may say of itself; these are the defaults.

  Attributes:
    name: for tables.
    needs: frozen models whose parameters the loss reads beside the batch's features.
    whole_groups: whether it compares a source's candidates with one another, so that
      all that are kept must lie in one row.
  """

  name: ClassVar[str]
  needs: ClassVar[tuple[str, ...]] = ()
  whole_groups: ClassVar[bool] = False

  def loss_fn(self, config: t5.T5Config, frozen: Configs | None = None) -> Any:
    """Returns the loss of a policy of this shape.

    Args:
      config: the policy's.
      frozen: the shapes of the models that it `needs`.
    """
    raise NotImplementedError

  def start(self, params: Any) -> Any:
    """The policy's parameters -> those to train: with what else is learnt."""
    return params

  def policy(self, params: Any) -> Any:
    """The parameters in training -> the policy's."""
    return params

  def features(
    self, batch: dict[str, np.ndarray], *, done: float
  ) -> dict[str, np.ndarray]:
    """Adds to a batch, on the host, what the loss reads besides.

    Args:
      batch: features of `data.batches`, with rewards.
      done: the part of this Improve's steps that lies behind, in [0, 1).
    """
    return batch


def policy_logits(
  params: Any, batch: Mapping[str, jax.Array], rng: jax.Array, config: t5.T5Config
) -> jax.Array:  # [batch, samples, length, vocab]
  """Logits of the policy in training, with dropout where it has any."""
  return t5.T5(config).apply(
    {'params': params},
    batch['encoder_input_tokens'],
    batch['decoder_input_tokens'],
    enable_dropout=config.dropout_rate > 0,
    rngs={'dropout': rng},
  )


@dataclasses.dataclass(frozen=True)
class BehaviouralCloning(PolicyObjective):
  """Negative log-likelihood of the kept candidates, the paper's default.

  Attributes:
    label_smoothing, z_loss: T5X's, see losses.behavioural_cloning.
  """

  name: ClassVar[str] = 'BC'
  label_smoothing: float = 0.0
  z_loss: float = 0.0

  def loss_fn(
    self, config: t5.T5Config, frozen: Configs | None = None
  ) -> step_lib.LossFn:
    """Features used: the tokens, decoder_loss_weights, keep."""

    def loss(
      params: Any, batch: Mapping[str, jax.Array], rng: jax.Array
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
      targets, weights = batch['decoder_target_tokens'], batch['decoder_loss_weights']
      logits = policy_logits(params, batch, rng, config)
      sums = behavioural_cloning.behavioural_cloning_loss_from_logits(
        logits,
        targets,
        weights,
        batch['keep'],
        label_smoothing=self.label_smoothing,
        z_loss=self.z_loss,
      )
      kept = weights * batch['keep'][..., None]
      right = (jnp.argmax(logits, axis=-1) == targets) * kept
      metrics = {'accuracy': (jnp.sum(right), jnp.sum(kept))}
      return sums.loss_sum, sums.weight_sum, metrics

    return loss


@dataclasses.dataclass(frozen=True)
class WeightedSum(PolicyObjective):
  """Several objectives at once: loss = sum_i w_i * loss_i, each a mean of its own.

  All read the same batch; a network that several of them evaluate alike is evaluated
  once (XLA merges equal computations). With microbatches each mean is over a
  microbatch, and their weighted mean over the batch.

  Attributes:
    parts: (objective, weight) pairs; none may add parameters of its own.

  Raises:
    ValueError: no part, a weight that is not positive, or a part that is trained
      with parameters of its own.
  """

  name: ClassVar[str] = 'sum'
  parts: tuple[tuple[PolicyObjective, float], ...] = ()

  def __post_init__(self) -> None:
    object.__setattr__(self, 'parts', tuple((part, w) for part, w in self.parts))
    if not self.parts or not all(weight > 0 for _, weight in self.parts):
      raise ValueError(
        f'WeightedSum(parts={self.parts!r}) must hold (objective, weight) pairs with '
        'positive weights'
      )
    for part, _ in self.parts:
      if type(part).start is not PolicyObjective.start:
        raise ValueError(
          f'{part} trains parameters of its own and cannot be a part of a WeightedSum'
        )

  @property
  def needs(self) -> tuple[str, ...]:  # type: ignore[override]
    """What any part needs."""
    return tuple(dict.fromkeys(name for part, _ in self.parts for name in part.needs))

  @property
  def whole_groups(self) -> bool:  # type: ignore[override]
    """Whether any part compares candidates."""
    return any(part.whole_groups for part, _ in self.parts)

  def features(
    self, batch: dict[str, np.ndarray], *, done: float
  ) -> dict[str, np.ndarray]:
    """Adds what each part adds."""
    for part, _ in self.parts:
      batch = part.features(batch, done=done)
    return batch

  def loss_fn(
    self, config: t5.T5Config, frozen: Configs | None = None
  ) -> step_lib.LossFn:
    """Features used: those of the parts."""
    losses = [(part.loss_fn(config, frozen), weight) for part, weight in self.parts]

    def loss(
      params: Any, batch: Mapping[str, jax.Array], rng: jax.Array
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
      total, metrics = jnp.zeros(()), {}
      rows = jnp.sum(batch['decoder_loss_weights'] * batch['keep'][..., None])
      for (part_loss, weight), (part, _) in zip(losses, self.parts, strict=True):
        loss_sum, weight_sum, found = part_loss(params, batch, rng)
        # Nothing to learn from is a loss of 0, not a division by it.
        mean = loss_sum / jnp.where(weight_sum > 0, weight_sum, 1.0)
        total += weight * mean * rows
        metrics[f'loss_{part.name.lower()}'] = (loss_sum, weight_sum)
        metrics |= {f'{part.name.lower()}_{k}': v for k, v in found.items()}
      return total, rows, metrics

    return loss

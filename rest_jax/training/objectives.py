"""Objectives: a loss of `losses`, bound to a model, as the train step takes it.

An objective is a small frozen object: `name` for tables, and
`loss_fn(config)(params, batch, rng) -> (loss_sum, weight_sum, metrics)`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from rest_jax.losses import behavioural_cloning, regression
from rest_jax.models import reward, t5
from rest_jax.training import step as step_lib


class Objective(Protocol):
  """What every objective is."""

  name: ClassVar[str]

  def loss_fn(self, config: t5.T5Config) -> step_lib.LossFn:
    """Returns the loss of a model of this shape."""
    ...


@dataclasses.dataclass(frozen=True)
class BehaviouralCloning:
  """Negative log-likelihood of the kept candidates, the paper's default.

  Attributes:
    label_smoothing, z_loss: T5X's, see losses.behavioural_cloning.
  """

  name: ClassVar[str] = 'BC'
  label_smoothing: float = 0.0
  z_loss: float = 0.0

  def loss_fn(self, config: t5.T5Config) -> step_lib.LossFn:
    """Features used: the tokens, decoder_loss_weights, keep."""

    def loss(
      params: Any, batch: Mapping[str, jax.Array], rng: jax.Array
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
      targets, weights = batch['decoder_target_tokens'], batch['decoder_loss_weights']
      logits = t5.T5(config).apply(
        {'params': params},
        batch['encoder_input_tokens'],
        batch['decoder_input_tokens'],
        enable_dropout=config.dropout_rate > 0,
        rngs={'dropout': rng},
      )
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
class Regression:
  """Squared error between the head's value and the standardised rating."""

  name: ClassVar[str] = 'regression'

  def loss_fn(self, config: t5.T5Config) -> step_lib.LossFn:
    """Features used: the tokens, decoder_loss_weights, keep, ratings."""

    def loss(
      params: Any, batch: Mapping[str, jax.Array], rng: jax.Array
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
      predictions = reward.predict(
        params,
        batch,
        config=config,
        dropout_rng=rng if config.dropout_rate > 0 else None,
      )
      sums = regression.regression_loss(predictions, batch['ratings'], batch['keep'])
      return sums.loss_sum, sums.weight_sum, {}

    return loss

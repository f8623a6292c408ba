"""The value function's objective: each token's value against its return."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from rest_jax.losses import returns, values
from rest_jax.models import heads, t5
from rest_jax.training import step as step_lib


@dataclasses.dataclass(frozen=True)
class ValueRegression:
  """Squared error of V(s_t) to the Monte Carlo return, see losses.values.

  The model in training predicts (G_t - mean) / stddev, so that a step of Adafactor,
  which is relative to a parameter's size, is as long as it is for a reward model,
  whatever the scale of the rewards; `on_reward_scale` puts both into its head.

  Attributes:
    discount: of the returns; that of the losses that will read the values.
    mean, stddev: of the rewards; `train_value` measures and sets them.

  Raises:
    ValueError: discount is not in [0, 1].
  """

  name: ClassVar[str] = 'value'
  discount: float = 1.0
  mean: float = 0.0
  stddev: float = 1.0

  def __post_init__(self) -> None:
    returns.check_fraction('discount', self.discount)

  def loss_fn(self, config: t5.T5Config) -> step_lib.LossFn:
    """Features used: the tokens, decoder_loss_weights, keep, rewards."""

    def loss(
      params: Any, batch: Mapping[str, Any], rng: jax.Array
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
      weights, keep = batch['decoder_loss_weights'], batch['keep']
      predicted = heads.ScalarHeadT5(config).apply(
        {'params': params},
        batch['encoder_input_tokens'],
        batch['decoder_input_tokens'],
        enable_dropout=config.dropout_rate > 0,
        rngs={'dropout': rng},
      )
      targets = returns.monte_carlo_returns(
        batch['rewards'], weights, discount=self.discount
      )
      targets = (targets - self.mean) / self.stddev
      sums = values.value_loss(predicted, targets, weights, keep)
      kept = weights * keep[..., None]  # [batch, samples, length]
      errors = jnp.sum(kept * jnp.abs(predicted - targets))
      return *sums, {'absolute_error': (errors, sums.weight_sum)}

    return loss


def on_reward_scale(params: Any, objective: ValueRegression) -> Any:
  """Parameters of ScalarHeadT5 that give V, of those that give (V - mean) / stddev."""
  head = params['head']
  kernel = objective.stddev * head['kernel']
  bias = objective.stddev * head['bias'] + objective.mean
  return {**params, 'head': {'kernel': kernel, 'bias': bias}}

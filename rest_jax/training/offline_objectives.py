"""The offline RL losses of Improve, bound to the policy and its frozen models.

    Gold               off-policy policy gradient on the BC model's log-probabilities
    OfflineActorCritic advantages of Monte Carlo returns over a value model
    BehaviourVMPO      the better half of the advantages, held near BC
    RewardWeighted     likelihood, weighted by the exponential of reward or advantage

The equations, their sources and the departures are those of the functions of
`rest_jax.losses` that each names.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.losses import (
  bvmpo,
  gold,
  offline_actor_critic,
  returns,
  reward_weighted,
  token_log_probs,
)
from rest_jax.models import heads, t5
from rest_jax.training import objectives
from rest_jax.training import step as step_lib

Batch = Mapping[str, Any]


def frozen_logits(
  name: str, batch: Batch, frozen: objectives.Configs | None
) -> jax.Array:  # [batch, samples, length, vocab]
  """Logits of a frozen policy, without dropout and without a gradient."""
  config = dataclasses.replace(_config(name, frozen), dropout_rate=0.0)
  logits = t5.T5(config).apply(
    {'params': batch[name]},
    batch['encoder_input_tokens'],
    batch['decoder_input_tokens'],
  )
  return jax.lax.stop_gradient(logits)


def frozen_log_probs(
  name: str, batch: Batch, frozen: objectives.Configs | None
) -> jax.Array:  # [batch, samples, length] float32, nats
  """A frozen policy's log-probabilities of the target tokens."""
  logits = frozen_logits(name, batch, frozen)
  return token_log_probs.token_log_probs(logits, batch['decoder_target_tokens'])


def frozen_values(
  batch: Batch, frozen: objectives.Configs | None
) -> jax.Array:  # [batch, samples, length] float32
  """V(s_t) of the frozen value model at every target token."""
  config = _config(objectives.VALUE, frozen)
  values = heads.ScalarHeadT5(dataclasses.replace(config, dropout_rate=0.0)).apply(
    {'params': batch[objectives.VALUE]},
    batch['encoder_input_tokens'],
    batch['decoder_input_tokens'],
  )
  return jax.lax.stop_gradient(values)


def policy_log_probs(
  params: Any, batch: Batch, rng: jax.Array, config: t5.T5Config
) -> jax.Array:  # [batch, samples, length] float32, nats
  """The log-probabilities of the target tokens under the policy in training."""
  logits = objectives.policy_logits(params, batch, rng, config)
  return token_log_probs.token_log_probs(logits, batch['decoder_target_tokens'])


@dataclasses.dataclass(frozen=True)
class Gold(objectives.PolicyObjective):
  """GOLD (Pang & He 2021), see losses.gold.

  Attributes:
    returns_fn: gold_p_returns (the product form, the log-probabilities' sum) or
      gold_s_returns (the sum form, the probabilities' sum).
    num_future_tokens: k, how far a token's return looks ahead.
    lower_bound: of the importance weights.
    reward_weighted: whether returns are also multiplied by the candidate's reward.
  """

  name: ClassVar[str] = 'GOLD'
  needs: ClassVar[tuple[str, ...]] = (objectives.REFERENCE,)
  returns_fn: Callable[..., jax.Array] = gold.gold_p_returns
  num_future_tokens: int = 5
  lower_bound: float = 0.2
  reward_weighted: bool = False

  def loss_fn(
    self, config: t5.T5Config, frozen: objectives.Configs | None = None
  ) -> step_lib.LossFn:
    """Features used: those of BehaviouralCloning, and rewards if weighted by them."""

    def loss(params: Any, batch: Batch, rng: jax.Array) -> step_lib.Sums:
      weights, keep = batch['decoder_loss_weights'], batch['keep']
      log_probs = policy_log_probs(params, batch, rng, config)
      reference = frozen_log_probs(objectives.REFERENCE, batch, frozen)
      token_returns = self.returns_fn(
        reference, weights, num_future_tokens=self.num_future_tokens
      )
      sums = gold.gold_loss(
        log_probs,
        token_returns,
        weights,
        keep,
        rewards=batch['rewards'] if self.reward_weighted else None,
        lower_bound=self.lower_bound,
      )
      kept = weights * keep[..., None]
      mean_return = (jnp.sum(kept * token_returns), jnp.sum(kept))
      return sums.loss_sum, sums.weight_sum, {'return': mean_return}

    return loss


@dataclasses.dataclass(frozen=True)
class OfflineActorCritic(objectives.PolicyObjective):
  """OAC (Mathieu et al. 2021), see losses.offline_actor_critic.

  Attributes:
    discount: of the Monte Carlo returns; that of the value model.
  """

  name: ClassVar[str] = 'OAC'
  needs: ClassVar[tuple[str, ...]] = (objectives.VALUE,)
  discount: float = 1.0

  def loss_fn(
    self, config: t5.T5Config, frozen: objectives.Configs | None = None
  ) -> step_lib.LossFn:
    """Features used: the tokens, decoder_loss_weights, keep, rewards."""

    def loss(params: Any, batch: Batch, rng: jax.Array) -> step_lib.Sums:
      weights, keep = batch['decoder_loss_weights'], batch['keep']
      log_probs = policy_log_probs(params, batch, rng, config)
      targets = returns.monte_carlo_returns(
        batch['rewards'], weights, discount=self.discount
      )
      values = frozen_values(batch, frozen)
      sums = offline_actor_critic.offline_actor_critic_loss(
        log_probs, targets, values, weights, keep
      )
      kept = weights * keep[..., None]
      advantage = (jnp.sum(kept * (targets - values)), jnp.sum(kept))
      return sums.loss_sum, sums.weight_sum, {'advantage': advantage}

    return loss


@dataclasses.dataclass(frozen=True)
class BehaviourVMPO(objectives.PolicyObjective):
  """BVMPO, see losses.bvmpo. The temperature is trained with the policy.

  With microbatches, the E-step's half and softmax are of one microbatch.

  Attributes:
    epsilon: bound on the KL of the E-step, in nats.
    initial_temperature: eta at the first step, in units of the rewards.
    discount: of the Monte Carlo returns; that of the value model.
    kl_start, kl_end: lambda at the first and the last step, geometric between.
  """

  name: ClassVar[str] = 'BVMPO'
  needs: ClassVar[tuple[str, ...]] = (objectives.REFERENCE, objectives.VALUE)
  epsilon: float = 0.1
  initial_temperature: float = 0.1
  discount: float = 1.0
  kl_start: float = 1.0
  kl_end: float = 1e-5

  def start(self, params: Any) -> Any:
    """Adds the logarithm of the temperature to what is trained."""
    leaf = jax.tree.leaves(params)[0]
    log_temperature = jnp.full((), math.log(self.initial_temperature), jnp.float32)
    sharding = getattr(leaf, 'sharding', None)
    if isinstance(sharding, jax.sharding.NamedSharding):
      whole = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
      log_temperature = jax.device_put(log_temperature, whole)
    return {'policy': params, 'log_temperature': log_temperature}

  def policy(self, params: Any) -> Any:
    """The policy's parameters alone."""
    return params['policy']

  def features(
    self, batch: dict[str, np.ndarray], *, done: float
  ) -> dict[str, np.ndarray]:
    """Adds kl_weight [] float32, lambda."""
    weight = bvmpo.annealed_kl_weight(
      jnp.float32(done), num_steps=1, start=self.kl_start, end=self.kl_end
    )
    return {**batch, 'kl_weight': np.asarray(weight, np.float32)}

  def loss_fn(
    self, config: t5.T5Config, frozen: objectives.Configs | None = None
  ) -> step_lib.LossFn:
    """Features used: the tokens, decoder_loss_weights, keep, rewards, kl_weight."""

    def loss(params: Any, batch: Batch, rng: jax.Array) -> step_lib.Sums:
      weights, keep = batch['decoder_loss_weights'], batch['keep']
      logits = objectives.policy_logits(params['policy'], batch, rng, config)
      log_probs = token_log_probs.token_log_probs(
        logits, batch['decoder_target_tokens']
      )
      targets = returns.monte_carlo_returns(
        batch['rewards'], weights, discount=self.discount
      )
      e_step = bvmpo.top_half_weights(
        targets - frozen_values(batch, frozen),
        weights,
        keep,
        params['log_temperature'],
        epsilon=self.epsilon,
      )
      reference = frozen_logits(objectives.REFERENCE, batch, frozen)
      sums = bvmpo.bvmpo_loss(
        log_probs,
        bvmpo.behaviour_kl(logits, reference),
        e_step,
        weights,
        keep,
        kl_weight=batch['kl_weight'],
      )
      one = jnp.ones(())
      metrics = {
        'kl_to_reference': (sums.kl_sum, sums.weight_sum),
        'temperature': (jnp.exp(params['log_temperature']), one),
      }
      return sums.loss_sum, sums.weight_sum, metrics

    return loss


def group_mean(batch: Batch, frozen: objectives.Configs | None) -> jax.Array:
  """Baseline of `RewardWeighted`: the mean reward of the row's kept candidates."""
  return reward_weighted.group_means(batch['rewards'], batch['keep'])


def highest_reward(batch: Batch, frozen: objectives.Configs | None) -> jax.Array:
  """Baseline of reward-weighted regression (Peters & Schaal 2007): 1.

  Weights exp((R - 1) / temperature) are those of exp(R / temperature) but for a factor
  that they have in common. With no baseline, rewards of up to 1 and a temperature of
  0.2, all that a threshold of 0.6 keeps would be capped at the same weight.
  """
  return jnp.ones_like(batch['rewards'])


@dataclasses.dataclass(frozen=True)
class RewardWeighted(objectives.PolicyObjective):
  """Reward-weighted regression, see losses.reward_weighted.

  Attributes:
    baseline_fn: highest_reward (of normalised rewards) or group_mean.
    temperature: beta, in units of the rewards.
    max_weight: the cap of a candidate's weight.
  """

  name: ClassVar[str] = 'RWR'
  baseline_fn: Callable[..., jax.Array] = highest_reward
  temperature: float = 0.2
  max_weight: float = 20.0

  def loss_fn(
    self, config: t5.T5Config, frozen: objectives.Configs | None = None
  ) -> step_lib.LossFn:
    """Features used: the tokens, decoder_loss_weights, keep, rewards."""
    return functools.partial(
      _weighted_loss, self, self.baseline_fn, config=config, frozen=frozen
    )


@dataclasses.dataclass(frozen=True)
class AdvantageWeighted(objectives.PolicyObjective):
  """Advantage-weighted regression (Peng et al. 2019): the baseline is V(x).

  Attributes:
    temperature, max_weight: see RewardWeighted.
  """

  name: ClassVar[str] = 'AWR'
  needs: ClassVar[tuple[str, ...]] = (objectives.VALUE,)
  temperature: float = 0.2
  max_weight: float = 20.0

  def loss_fn(
    self, config: t5.T5Config, frozen: objectives.Configs | None = None
  ) -> step_lib.LossFn:
    """Features used: the tokens, decoder_loss_weights, keep, rewards."""
    return functools.partial(
      _weighted_loss, self, _first_value, config=config, frozen=frozen
    )


def _first_value(batch: Batch, frozen: objectives.Configs | None) -> jax.Array:
  """V(x) at every candidate of the source [batch, samples]."""
  return frozen_values(batch, frozen)[..., 0]


def _weighted_loss(
  objective: RewardWeighted | AdvantageWeighted,
  baseline_fn: Callable[..., jax.Array],
  params: Any,
  batch: Batch,
  rng: jax.Array,
  *,
  config: t5.T5Config,
  frozen: objectives.Configs | None,
) -> step_lib.Sums:
  sums = reward_weighted.reward_weighted_loss(
    policy_log_probs(params, batch, rng, config),
    batch['rewards'],
    baseline_fn(batch, frozen),
    batch['decoder_loss_weights'],
    batch['keep'],
    temperature=objective.temperature,
    max_weight=objective.max_weight,
  )
  return sums.loss_sum, sums.weight_sum, {}


def _config(name: str, frozen: objectives.Configs | None) -> t5.T5Config:
  assert frozen is not None and name in frozen, f'the loss was not given the {name}'
  return frozen[name]

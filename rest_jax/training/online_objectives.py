"""The online learners: PPO, GRPO and RLOO, on candidates of the policy itself.

What a phase of `training.online` learns from is a rollout: the features of
`data.batches` with rewards and behaviour_log_probs, the log-probabilities that the
policy had when it drew the candidates, at temperature 1. Three functions make an
algorithm of them:

    annotate     networks, once a phase: reference_log_probs, a critic's old_values
    advantages   arithmetic, once a phase, on all of its candidates
    loss_fn      what every update minimises

The equations and their sources are those of `losses.policy_gradient`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from rest_jax.losses import policy_gradient, returns
from rest_jax.models import heads, t5
from rest_jax.training import objectives, offline_objectives
from rest_jax.training import step as step_lib

Batch = Mapping[str, Any]
Features = dict[str, jax.Array]


class OnlineObjective:
  """What every online learner is; these are the defaults.

  Attributes:
    name: for tables.
    on_policy: whether each update must be on candidates of the very policy that it
      changes, since the loss has no ratio to another one's.
  """

  name: ClassVar[str]
  on_policy: ClassVar[bool] = False

  def start(self, params: Any, config: t5.T5Config) -> Any:
    """The policy's parameters -> those to train: with a critic's, if there is one."""
    return params

  def policy(self, params: Any) -> Any:
    """The parameters in training -> the policy's."""
    return params

  def annotate(self, params: Any, batch: Batch, config: t5.T5Config) -> Features:
    """What networks say of a rollout.

    Args:
      params: the parameters in training.
      batch: features of the rollout, and the reference policy's parameters under
        `objectives.REFERENCE`; it has the policy's shape.
      config: the policy's shape.
    """
    frozen = {objectives.REFERENCE: config}
    reference = offline_objectives.frozen_log_probs(objectives.REFERENCE, batch, frozen)
    return {'reference_log_probs': reference}

  def advantages(self, batch: Batch) -> Features:
    """Adds `advantages` and what else follows from a whole phase's features."""
    raise NotImplementedError

  def loss_fn(self, config: t5.T5Config) -> step_lib.LossFn:
    """Returns the loss of a policy of this shape; reads the features above."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Rloo(OnlineObjective):
  """REINFORCE with the mean of the other candidates as baseline (RLOO).

  The KL to the reference is part of the reward: R - kl_weight * sum_t k1_t.

  Attributes:
    kl_weight: of that penalty, in units of the rewards.
  """

  name: ClassVar[str] = 'RLOO'
  on_policy: ClassVar[bool] = True
  kl_weight: float = 0.02

  def advantages(self, batch: Batch) -> Features:
    """Leave-one-out advantages [batch, samples]."""
    shaped = _shaped_rewards(batch, self.kl_weight)
    totals = jnp.sum(shaped, axis=-1)
    advantages = policy_gradient.leave_one_out_advantages(totals, batch['keep'])
    return {'advantages': advantages}

  def loss_fn(self, config: t5.T5Config) -> step_lib.LossFn:
    """Features used: the tokens, decoder_loss_weights, keep, advantages."""

    def loss(params: Any, batch: Batch, rng: jax.Array) -> step_lib.Sums:
      log_probs = offline_objectives.policy_log_probs(params, batch, rng, config)
      sums = policy_gradient.reinforce_loss(
        log_probs, batch['advantages'], batch['decoder_loss_weights'], batch['keep']
      )
      return sums.loss_sum, sums.weight_sum, {}

    return loss


@dataclasses.dataclass(frozen=True)
class Grpo(OnlineObjective):
  """Group-relative policy optimisation, the clipped surrogate and k3 to BC.

  Attributes:
    advantages_fn: standardised_advantages, or centred_advantages with
      normalisation=per_candidate_sum for Dr. GRPO.
    normalisation: of the tokens, see losses.policy_gradient.
    clip_range: of the ratio to the behaviour policy.
    kl_weight: of k3.
  """

  name: ClassVar[str] = 'GRPO'
  advantages_fn: Callable[..., jax.Array] = policy_gradient.standardised_advantages
  normalisation: policy_gradient.Normalisation = policy_gradient.per_candidate
  clip_range: float = 0.2
  kl_weight: float = 0.04

  def advantages(self, batch: Batch) -> Features:
    """Advantages inside the group, [batch, samples]."""
    return {'advantages': self.advantages_fn(batch['rewards'], batch['keep'])}

  def loss_fn(self, config: t5.T5Config) -> step_lib.LossFn:
    """Features used: those of Rloo, behaviour_ and reference_log_probs."""

    def loss(params: Any, batch: Batch, rng: jax.Array) -> step_lib.Sums:
      weights, keep = batch['decoder_loss_weights'], batch['keep']
      log_probs = offline_objectives.policy_log_probs(params, batch, rng, config)
      sums = _surrogate(self, log_probs, batch, self.normalisation)
      kl = policy_gradient.k3_loss(
        log_probs,
        batch['reference_log_probs'],
        weights,
        keep,
        normalisation=self.normalisation,
      )
      loss_sum = sums.loss_sum + self.kl_weight * kl.loss_sum
      return loss_sum, sums.weight_sum, _surrogate_metrics(sums)

    return loss


@dataclasses.dataclass(frozen=True)
class Ppo(OnlineObjective):
  """Proximal policy optimisation, with a critic of its own.

  The critic is an encoder-decoder that starts from BC with a head of zeros, and is
  trained beside the policy; they share no parameter. The KL to the reference is part
  of the token rewards.

  Equal rewards do not give equal advantages, as they do in RLOO and GRPO. While the
  critic says 0, a token's advantage is the reward times (discount * trace_decay)^k, k
  tokens before the end: early ends are preferred. Later it is what the critic is
  still wrong by, which whitening, and an optimiser that divides by the gradient's
  size, bring back to a whole step: the policy goes on wandering, held by the KL.

  Attributes:
    clip_range: of the ratio to the behaviour policy.
    kl_weight: of the penalty a token, in units of the rewards.
    discount, trace_decay: of the advantages (GAE).
    whiten: whether the advantages of a phase are brought to mean 0 and deviation 1.
    value_clip_range: how far a value may gain by moving; math.inf does not clip.
    value_weight: of the critic's loss.
  """

  name: ClassVar[str] = 'PPO'
  clip_range: float = 0.2
  kl_weight: float = 0.02
  discount: float = 1.0
  trace_decay: float = 0.95
  whiten: bool = True
  value_clip_range: float = math.inf
  value_weight: float = 0.5

  def start(self, params: Any, config: t5.T5Config) -> Any:
    """Adds a critic that knows what the policy knows and says 0."""
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    candidates = jax.ShapeDtypeStruct((1, 1, 1), jnp.int32)
    init = jax.eval_shape(
      heads.ScalarHeadT5(config).init, jax.random.key(0), tokens, candidates
    )
    critic = heads.warm_start(nn.meta.unbox(init['params']), params)
    whole = _replicated(params)
    critic['head'] = {
      name: jax.device_put(jnp.zeros(leaf.shape, leaf.dtype), whole)
      for name, leaf in critic['head'].items()
    }
    return {'policy': params, 'critic': critic}

  def policy(self, params: Any) -> Any:
    """The policy's parameters alone."""
    return params['policy']

  def annotate(self, params: Any, batch: Batch, config: t5.T5Config) -> Features:
    """Adds the critic's values when the candidates were drawn."""
    values = _values(params['critic'], batch, config)
    return {**super().annotate(params, batch, config), 'old_values': values}

  def advantages(self, batch: Batch) -> Features:
    """Advantages and the critic's targets, [batch, samples, length]."""
    weights = batch['decoder_loss_weights'] * batch['keep'][..., None]
    advantages = returns.generalised_advantages(
      _shaped_rewards(batch, self.kl_weight),
      batch['old_values'],
      weights,
      discount=self.discount,
      trace_decay=self.trace_decay,
    )
    targets = advantages + batch['old_values']
    if self.whiten:
      advantages = _whitened(advantages, weights)
    return {'advantages': advantages, 'returns': targets}

  def loss_fn(self, config: t5.T5Config) -> step_lib.LossFn:
    """Features used: those of Grpo, old_values, returns."""

    def loss(params: Any, batch: Batch, rng: jax.Array) -> step_lib.Sums:
      log_probs = offline_objectives.policy_log_probs(
        params['policy'], batch, rng, config
      )
      sums = _surrogate(self, log_probs, batch, policy_gradient.per_token)
      value = policy_gradient.clipped_value_loss(
        _values(params['critic'], batch, config),
        batch['old_values'],
        batch['returns'],
        batch['decoder_loss_weights'],
        batch['keep'],
        clip_range=self.value_clip_range,
      )
      # Both are means over the kept tokens.
      loss_sum = sums.loss_sum + self.value_weight * value.loss_sum
      metrics = {'value_loss': (value.loss_sum, value.weight_sum)}
      return loss_sum, sums.weight_sum, metrics | _surrogate_metrics(sums)

    return loss


def _shaped_rewards(batch: Batch, kl_weight: float) -> jax.Array:
  """Token rewards [batch, samples, length], less the KL to the reference."""
  return policy_gradient.kl_shaped_rewards(
    batch['rewards'],
    batch['behaviour_log_probs'],
    batch['reference_log_probs'],
    batch['decoder_loss_weights'],
    batch['keep'],
    kl_weight=kl_weight,
  )


def _surrogate(
  objective: Grpo | Ppo,
  log_probs: jax.Array,
  batch: Batch,
  normalisation: policy_gradient.Normalisation,
) -> policy_gradient.SurrogateSums:
  return policy_gradient.clipped_surrogate_loss(
    log_probs,
    batch['behaviour_log_probs'],
    batch['advantages'],
    batch['decoder_loss_weights'],
    batch['keep'],
    clip_range=objective.clip_range,
    normalisation=normalisation,
  )


def _surrogate_metrics(sums: policy_gradient.SurrogateSums) -> dict[str, Any]:
  return {
    'clipped': (sums.clipped_sum, sums.token_sum),
    'kl_to_behaviour': (sums.kl_sum, sums.token_sum),
  }


def _values(params: Any, batch: Batch, config: t5.T5Config) -> jax.Array:
  """V(s_t) [batch, samples, length] at every target token."""
  return heads.ScalarHeadT5(config).apply(
    {'params': params}, batch['encoder_input_tokens'], batch['decoder_input_tokens']
  )


def _whitened(advantages: jax.Array, weights: jax.Array) -> jax.Array:
  """Mean 0 and deviation 1 over the tokens of weight 1; 0 elsewhere.

  Deviations below 1e-4, of advantages that are all but equal, count as 1e-4.
  """
  count = jnp.maximum(jnp.sum(weights), 1)
  mean = jnp.sum(weights * advantages) / count
  variance = jnp.sum(weights * jnp.square(advantages - mean)) / count
  return weights * (advantages - mean) / jnp.maximum(jnp.sqrt(variance), 1e-4)


def _replicated(params: Any) -> Any:
  """Where a small array beside these parameters goes: on every device."""
  sharding = getattr(jax.tree.leaves(params)[0], 'sharding', None)
  if isinstance(sharding, jax.sharding.NamedSharding):
    return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
  return sharding

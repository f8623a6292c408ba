"""The policy as a T5X model whose loss is one of our objectives.

`PolicyModel` stands where T5X's gin files have `models.EncoderDecoderModel`, with
`rest_jax.models.t5.T5` as its module. Parameters have the names, shapes and logical
axes of T5X's minimal T5, so its partitioner and checkpoints work as ever.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from clu import metrics as clu_metrics
from flax import core, traverse_util
from flax import linen as nn
from flax.linen import partitioning as flax_partitioning
from t5x import decoding, models
from t5x import metrics as t5x_metrics

from rest_jax import paths
from rest_jax.interop.t5x import frozen as frozen_lib
from rest_jax.models import t5
from rest_jax.training import objectives

Batch = Mapping[str, jax.Array]


def groups_of(batch: Batch) -> dict[str, jax.Array]:
  """T5X's pairs as groups of one candidate, with the features of `data.batches`.

  decoder_* [batch, length] -> [batch, 1, length], rewards [batch] -> [batch, 1].
  `keep` is False for rows without a target: T5X pads its last evaluation batch so.
  """
  groups = {
    name: value if name == 'encoder_input_tokens' else value[:, None]
    for name, value in batch.items()
  }
  weights = groups['decoder_loss_weights'].astype(jnp.float32)
  return {
    **groups,
    'decoder_loss_weights': weights,
    'keep': jnp.any(weights > 0, axis=-1),
  }


def _check_objective(objective: objectives.PolicyObjective) -> None:
  own = objectives.PolicyObjective
  reasons = {
    'compares the candidates of a source, and T5X reads pairs': objective.whole_groups,
    'trains parameters of its own': type(objective).start is not own.start,
    'adds features on the host': type(objective).features is not own.features,
  }
  for reason, holds in reasons.items():
    if holds:
      raise ValueError(
        f'the objective {objective.name} {reason}: train with improve.improve here, or '
        'choose BehaviouralCloning, Gold, RewardWeighted, OfflineActorCritic or a sum'
      )


class PolicyModel(models.EncoderDecoderModel):
  """A `t5x.models.EncoderDecoderModel` around `T5` and an objective.

  The loss is loss_sum / max(weight_sum, 1), the mean per kept token or candidate as
  in our own train step; with `loss_normalizing_factor` it is loss_sum divided by that
  number. Departure from T5X, whose default is the sum. T5X adds up the gradients of
  microbatches: with them, set the factor, so that the parts have one denominator.

  Sampling folds `seed` and the sources of the batch into T5X's key, which knows no
  seed and is the same in every shard.

  Args:
    module: the policy; its config's `dropout_rate` is that of training.
    input_vocabulary, output_vocabulary: SeqIO's, see `tasks.vocabulary`.
    optimizer_def: T5X's optimiser.
    objective: of a policy, that compares no candidates and trains the policy alone.
    frozen: the artifacts of the models that it needs, by name: see `frozen.load`.
    decode_fn: T5X's; bind `decoding.temperature_sample`, whose defaults are greedy.
    feature_converter_cls: T5X's default, or `features.RewardedPairs` for an
      objective that reads rewards.
    loss_normalizing_factor: a number, or None.
    default_decoder_params: T5X's `models.DecoderParams`.
    seed: of sampling.

  Raises:
    ValueError: an objective that T5X's trainer cannot serve, or a factor that is not
      positive.
  """

  def __init__(
    self,
    module: t5.T5,
    input_vocabulary: Any,
    output_vocabulary: Any,
    optimizer_def: Any,
    *,
    objective: objectives.PolicyObjective = objectives.BehaviouralCloning(),
    frozen: Mapping[str, paths.PathLike] | None = None,
    decode_fn: Callable[..., Any] = decoding.temperature_sample,
    feature_converter_cls: Callable[..., Any] | None = None,
    loss_normalizing_factor: float | None = None,
    default_decoder_params: Any = None,
    seed: int = 0,
  ):
    _check_objective(objective)
    factor = loss_normalizing_factor
    if factor is not None and not (isinstance(factor, int | float) and factor > 0):
      raise ValueError(
        f'loss_normalizing_factor={factor!r} must be a positive number, or None for '
        'the mean per kept token'
      )
    super().__init__(
      module=module,
      input_vocabulary=input_vocabulary,
      output_vocabulary=output_vocabulary,
      optimizer_def=optimizer_def,
      decode_fn=decode_fn,
      feature_converter_cls=feature_converter_cls,
      loss_normalizing_factor=factor,
      default_decoder_params=default_decoder_params,
    )
    self._objective = objective
    self._frozen = frozen_lib.load(objective.needs, frozen or {})
    self._seed = seed

  def get_initial_variables(
    self,
    rng: jax.Array,
    input_shapes: Mapping[str, tuple[int, ...]],
    input_types: Mapping[str, Any] | None = None,
  ) -> Any:
    """Initial parameters, and `params_axes`: the names of their axes for T5X."""
    del input_types
    source = jnp.ones(input_shapes['encoder_input_tokens'], jnp.int32)
    # [batch, length] -> [batch, 1, length]
    target = jnp.ones(input_shapes['decoder_input_tokens'], jnp.int32)[:, None]
    boxed = core.unfreeze(self.module.init(rng, source, target))['params']
    axes = {
      (*path[:-1], f'{path[-1]}_axes'): flax_partitioning.AxisMetadata(names=box.names)
      for path, box in traverse_util.flatten_dict(boxed).items()
    }
    return core.freeze(
      {
        'params': nn.meta.unbox(boxed),
        'params_axes': traverse_util.unflatten_dict(axes),
      }
    )

  def loss_fn(
    self, params: Any, batch: Batch, dropout_rng: jax.Array | None
  ) -> tuple[jax.Array, dict[str, Any]]:
    """The objective's loss, and metrics for T5X; without a key no dropout.

    Raises:
      ValueError: the objective reads a feature that the batch lacks.
    """
    config, rng = self.module.config, dropout_rng
    if rng is None:
      config, rng = dataclasses.replace(config, dropout_rate=0.0), jax.random.key(0)
    groups = groups_of(batch)
    try:
      configs, others = self._frozen
      fn = self._objective.loss_fn
      loss = fn(config, configs) if configs else fn(config)
      sums = loss(core.unfreeze(params), {**groups, **others}, rng)
    except KeyError as error:
      raise ValueError(
        f'the objective {self._objective.name} reads the feature {error}, which this '
        f'batch lacks; it has {", ".join(sorted(groups))}. For rewards bind '
        'PolicyModel.feature_converter_cls = @features.RewardedPairs'
      ) from error
    loss_sum, weight_sum, pairs = sums
    factor = self._loss_normalizing_factor
    mean = loss_sum / (jnp.maximum(weight_sum, 1.0) if factor is None else factor)
    rows = jnp.array(groups['keep'].shape[0])
    metrics = {
      'loss': t5x_metrics.AveragePerStep(total=mean),
      'loss_per_weight': clu_metrics.Average(total=loss_sum, count=weight_sum),
      'timing/seqs_per_second': t5x_metrics.TimeRate.from_model_output(numerator=rows),
      'timing/steps_per_second': t5x_metrics.StepsPerTime.from_model_output(),
    }
    metrics |= {
      name: clu_metrics.Average(total=total, count=count)
      for name, (total, count) in pairs.items()
    }
    return mean, metrics

  def _compute_logits(
    self,
    params: Any,
    batch: Batch,
    dropout_rng: jax.Array | None = None,
    mutable: Any = False,
    other_variables: Any = None,
  ) -> Any:  # [batch, length, vocab] float32; with the variables where mutable
    result = self.module.apply(
      {'params': params, **(other_variables or {})},
      batch['encoder_input_tokens'],
      batch['decoder_input_tokens'][:, None],
      enable_dropout=dropout_rng is not None,
      rngs=None if dropout_rng is None else {'dropout': dropout_rng},
      mutable=mutable,
    )
    logits, *variables = result if mutable else (result,)
    logits = logits[:, 0]  # [batch, 1, length, vocab] -> [batch, length, vocab]
    return (logits, *variables) if mutable else logits

  def predict_batch_with_aux(
    self, params: Any, batch: Batch, rng: jax.Array | None = None, **arguments: Any
  ) -> Any:
    """As T5X, with a key that depends on `seed` and on the batch's sources."""
    rng = jax.random.PRNGKey(0) if rng is None else rng
    sources = batch['encoder_input_tokens'].astype(jnp.uint32)  # [batch, length]
    places = jnp.arange(1, sources.size + 1, dtype=jnp.uint32).reshape(sources.shape)
    # Multiplied by an odd number, so that the high bits count as well; it may wrap.
    digest = jnp.sum(sources * places * jnp.uint32(2654435761), dtype=jnp.uint32)
    rng = jax.random.fold_in(jax.random.fold_in(rng, self._seed), digest)
    return super().predict_batch_with_aux(params, batch, rng=rng, **arguments)

  # ---- Decoding: our cache under T5X's decode functions ------------------------
  # T5X maps over every array of the cache but `cache_index`, batch axis first. The
  # keys and values of the source are projected once; T5X's own model does it anew for
  # every token.

  def _decoding_module(self) -> t5.T5:
    config = self.module.config
    return t5.T5(
      dataclasses.replace(config, cache_layout='rows_first', int8_cache=False)
    )

  def _swap_layers(self, cache: Any) -> Any:
    """[layers, batch, ...] <-> [batch, layers, ...] where layers are scanned."""
    if not self.module.config.scan_layers:
      return cache
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), cache)

  def _compute_kv_cache(
    self,
    params: Any,
    encoded_inputs: jax.Array,  # [batch, source_length, embed]
    encoder_input_tokens: jax.Array,  # [batch, source_length]
    decoder_input_tokens: jax.Array,  # [batch, length]
    prefill_decoder_prompt: bool = False,
  ) -> tuple[dict[str, Any], None]:
    """An empty past and the source's keys and values."""
    del encoder_input_tokens, prefill_decoder_prompt  # the latter is False: no prefill
    module = self._decoding_module()
    batch, length = decoder_input_tokens.shape
    cross = module.apply(
      {'params': params}, encoded_inputs, method=module.cross_keys_values
    )
    cache = {
      'past': self._swap_layers(module.init_cache(batch, 1, length)),
      'cross': self._swap_layers(cross),
      'cache_index': jnp.zeros((), jnp.int32),
    }
    return cache, None

  def _compute_logits_from_slice(
    self,
    decoding_state: Any,
    params: Any,
    encoded_inputs: jax.Array,
    raw_inputs: jax.Array,  # [batch * num_decodes, source_length]
    max_decode_length: int,
  ) -> tuple[jax.Array, dict[str, Any]]:
    """Logits [batch * num_decodes, vocab] after one more token, and the cache."""
    del encoded_inputs, max_decode_length
    module, cache = self._decoding_module(), dict(decoding_state.cache)
    tokens = decoding_state.cur_token  # [batch * num_decodes, 1]
    logits, past = module.apply(
      {'params': params},
      tokens,
      jnp.full_like(tokens, cache['cache_index']),
      self._swap_layers(cache['past']),
      self._swap_layers(cache['cross']),
      raw_inputs != 0,
      method=module.decode_step,
    )
    cache |= {'past': self._swap_layers(past), 'cache_index': cache['cache_index'] + 1}
    return logits[:, 0], cache

"""Train the value function: the return to expect, at every token of a candidate."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rest_jax.data import batches, buckets, source_split
from rest_jax.losses import returns
from rest_jax.models import heads, t5
from rest_jax.rewards import agreement
from rest_jax.stages import artifact, fitting, policies
from rest_jax.training import mesh as mesh_lib
from rest_jax.training import value_objectives

VERSION = 1
POSITIONS = ('first', 'middle', 'last')  # tokens whose values meet the rewards


def train_value(
  run: artifact.Run,
  *,
  name: str,
  policy: artifact.Artifact,
  samples: artifact.Artifact,
  rewards: artifact.Artifact,
  optimiser: Any,
  objective: value_objectives.ValueRegression = value_objectives.ValueRegression(),
  num_steps: int,
  batch_size: int,
  task_feature_lengths: Mapping[str, int],
  eval_period_steps: int,
  start_from_policy: bool = True,
  held_out_fraction: float = 0.1,
  num_eval_sources: int = 512,
  max_samples: int = 8,
  window_row_groups: int | None = 8,
  patience: int | None = None,
  num_microbatches: int = 1,
  checkpoint_period_steps: int = 1000,
  seed: int = 0,
) -> artifact.Artifact:
  """Fits a value model to a Grow's candidates and their rewards.

  All candidates are used and no filter applies: the values are those of the policy
  that made the set. Sources are held out whole; the best parameters are those of the
  lowest squared error on held-out sources; losses are in units of the rewards'
  variance, 1 is what the mean reward gives. Batches are read as they are needed, so
  that memory does not grow with the set.

  Results, for `train` and `held_out` sources: the agreement of V with the rewards at
  the first token (of the source alone), the middle and the last one, the squared
  error and the explained variance over all tokens, see `measure`.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact, such as 'value_1'.
    policy: gives the shape, the vocabulary and the start.
    samples, rewards: D_g and its scores, normalised where they are for Improve.
    optimiser: of `training`.
    objective: with the discount.
    num_steps, batch_size: training steps, and rows in each.
    task_feature_lengths: T5X's {'inputs': ..., 'targets': ...}, in tokens.
    eval_period_steps, patience: as in supervise.
    start_from_policy: False starts from random parameters.
    held_out_fraction: of the sources.
    num_eval_sources: about so many held-out sources choose the parameters, and about
      as many of each side are measured; all where there are fewer.
    max_samples: candidates of one source in a row.
    window_row_groups: shuffles inside windows, see GroupBatches.
    num_microbatches, checkpoint_period_steps, seed: as in supervise.

  Raises:
    ValueError: held_out_fraction is not between 0 and 1, or a side has no source.
  """
  if not 0 < held_out_fraction < 1:
    raise ValueError(f'held_out_fraction={held_out_fraction} must be between 0 and 1')
  params = {
    'optimiser': optimiser,
    'objective': objective,
    'num_steps': num_steps,
    'batch_size': batch_size,
    'task_feature_lengths': dict(task_feature_lengths),
    'eval_period_steps': eval_period_steps,
    'start_from_policy': start_from_policy,
    'held_out_fraction': held_out_fraction,
    'num_eval_sources': num_eval_sources,
    'max_samples': max_samples,
    'window_row_groups': window_row_groups,
    'patience': patience,
    'seed': seed,
  }

  def build(work: artifact.Work) -> None:
    start = policies.load_model(policy.path, t5.T5, run)
    config = start.config

    def candidates(low: float, high: float) -> batches.GroupBatches:
      return batches.GroupBatches(
        samples.path,
        reward_dir=rewards.path,
        source_fn=source_split.Between(low, high, seed),
        batch=batch_size,
        samples=max_samples,
        buckets=buckets.training_buckets(task_feature_lengths),
        seed=seed,
        window_row_groups=window_row_groups,
        places=mesh_lib.host_rows(run.mesh, batch_size),
      )

    train = candidates(held_out_fraction, 1.0)
    part = min(1.0, num_eval_sources / train.counts.sources)
    held_out = candidates(0.0, min(held_out_fraction, part))
    measured = candidates(max(held_out_fraction, 1.0 - part), 1.0)
    slot_rewards = train.index.slot_reward
    assert slot_rewards is not None
    scaled = dataclasses.replace(
      objective,
      mean=float(slot_rewards.mean()),
      stddev=float(slot_rewards.std()) or 1.0,  # constant rewards need no scale
    )

    def measure_on(data: batches.GroupBatches, value_params: Any) -> dict[str, Any]:
      return measure(
        data,
        value_objectives.on_reward_scale(value_params, scaled),
        config=config,
        discount=objective.discount,
        mesh=run.mesh,
      )

    def evaluate(value_params: Any) -> dict[str, float]:
      found = measure_on(held_out, value_params)
      values = {
        'held_out_loss': found['squared_error'] / scaled.stddev**2,
        'explained_variance': found['explained_variance'],
        **{key: found['last'][key] for key in ('spearman', 'spearman_in_groups')},
      }
      return {key: value for key, value in values.items() if value is not None}

    fitted = fitting.fit(
      work,
      run,
      module=heads.ScalarHeadT5,
      config=config,
      objective=scaled,
      optimiser=optimiser,
      batch_fn=train.batch,
      settings=fitting.FitSettings(
        num_steps=num_steps,
        eval_period_steps=eval_period_steps,
        patience=patience,
        num_microbatches=num_microbatches,
        checkpoint_period_steps=checkpoint_period_steps,
        seed=seed,
      ),
      warm_start=(lambda initial: heads.warm_start(initial, start.params))
      if start_from_policy
      else None,
      evaluate=evaluate,
      eval_metric='held_out_loss',
      mode='min',
    )
    policies.save_model(
      work.path,
      config=config,
      params=value_objectives.on_reward_scale(fitted.best_params, scaled),
      vocabulary=policy.path / policies.VOCABULARY_FILE,
      step=fitted.best_step,
    )
    work.results.update(
      fitted.results(),
      discount=objective.discount,
      train=measure_on(measured, fitted.best_params),
      held_out=measure_on(held_out, fitted.best_params),
      train_candidates=train.counts.kept_candidates,
    )

  return run.stage(
    'train_value',
    name=name,
    version=VERSION,
    params=params,
    inputs={'policy': policy, 'samples': samples, 'rewards': rewards},
    build=build,
    teamwork='together',
    cut={'num_microbatches': num_microbatches},
    size={'steps': num_steps},
  )


def measure(
  data: batches.GroupBatches,
  params: Any,
  *,
  config: t5.T5Config,
  discount: float,
  mesh: jax.sharding.Mesh,
) -> dict[str, Any]:
  """How well values foretell the returns of a set's candidates.

  Args:
    data: the candidates, with rewards.
    params: of ScalarHeadT5, on the mesh.
    config: the model's shape.
    discount: of the returns.
    mesh: where the batches go.

  Returns:
    `first`, `middle` and `last`: `agreement.Agreement` of V at that token with the
      candidate's reward, as a mapping. The first value knows the source alone, so it
      ranks nothing inside a group; the last has seen all but the last token. The
      middle of n tokens is the one with n // 2 before it.
    `squared_error`: mean of (V - G)^2 over all tokens.
    `explained_variance`: 1 - Var(G - V) / Var(G) over all tokens; None where all
      returns are equal.
    `tokens`: their number.
  """
  index = data.index
  assert index.slot_reward is not None
  found = np.zeros((len(POSITIONS), index.row_slots[-1]))  # [positions, slots]
  moments = np.zeros(5)
  for bucket in range(len(data.buckets)):
    rows = np.flatnonzero(index.row_bucket == bucket)
    for begin in range(0, len(rows), data.batch_size):
      mine = rows[begin : begin + data.batch_size]
      batch = data.batch_of_rows(mine, bucket)
      placed = mesh_lib.put_batch(mesh, batch)
      pair = values_and_returns(params, placed, config=config, discount=discount)
      # [candidates, length] each: the kept slots stand in the order of the index.
      values, targets = (
        x.astype(np.float64)[batch['keep']] for x in mesh_lib.fetch(pair)
      )
      mask = batch['decoder_loss_weights'][batch['keep']] > 0
      slots = np.concatenate([np.arange(*index.row_slots[r : r + 2]) for r in mine])
      lengths = mask.sum(axis=-1)
      places = np.stack([np.zeros_like(lengths), lengths // 2, lengths - 1])
      found[:, slots] = np.take_along_axis(values, places.T, axis=-1).T
      moments += _moments(values[mask], targets[mask])
  bounds = index.source_slots()
  # Equal values are rounded in each place by themselves, and must not rank anything:
  # those of equal prefixes here, those of the source alone below.
  step = 1e-5 * (index.slot_reward.std() or 1.0)
  found = np.round(found / step) * step
  found[0] = np.repeat(found[0, bounds[:-1]], np.diff(bounds))
  target = np.split(index.slot_reward, bounds[1:-1])
  agreements = {
    position: agreement.agreement(np.split(values, bounds[1:-1]), target).to_dict()
    for position, values in zip(POSITIONS, found, strict=True)
  }
  return {**agreements, **_errors(moments)}


def _moments(
  values: np.ndarray,  # [tokens] float64
  targets: np.ndarray,  # [tokens] float64
) -> np.ndarray:  # [5] float64
  """Number of tokens; sums of G - V, (G - V)^2, G, G^2."""
  rest = targets - values
  return np.array(
    [len(rest), rest.sum(), (rest**2).sum(), targets.sum(), (targets**2).sum()]
  )


def _errors(moments: np.ndarray) -> dict[str, Any]:
  """`measure`'s results of the sums of `_moments`."""
  tokens = moments[0]
  bias, squared_error, mean, square = moments[1:] / tokens
  variance = square - mean**2
  # Beyond the rounding of float32 rewards there is something to explain.
  varies = variance > 1e-12 * square
  unexplained = (squared_error - bias**2) / variance if varies else None
  return {
    'squared_error': float(squared_error),
    'explained_variance': None if unexplained is None else float(1 - unexplained),
    'tokens': int(tokens),
  }


@functools.partial(jax.jit, static_argnames=('config', 'discount'))
def values_and_returns(
  params: Any, batch: Mapping[str, jax.Array], *, config: t5.T5Config, discount: float
) -> tuple[jax.Array, jax.Array]:  # both [batch, samples, length] float32
  """V(s_t) and the return at every token of a batch, without dropout."""
  without_dropout = dataclasses.replace(config, dropout_rate=0.0)
  values = heads.ScalarHeadT5(without_dropout).apply(
    {'params': params}, batch['encoder_input_tokens'], batch['decoder_input_tokens']
  )
  targets = returns.monte_carlo_returns(
    batch['rewards'], batch['decoder_loss_weights'], discount=discount
  )
  return values, targets

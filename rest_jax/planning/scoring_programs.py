"""What judging compiles: the learned reward model, and the divergence from BC."""

import functools

import jax

from rest_jax.data import batches, buckets
from rest_jax.models import reward, t5
from rest_jax.planning import memory, samplings, shapes
from rest_jax.planning import programs as programs_lib
from rest_jax.rewards import learned
from rest_jax.sampling import divergence
from rest_jax.stages import score as score_stage
from rest_jax.training import mesh as mesh_lib


def score(
  context: programs_lib.Context,
  *,
  batch_size: int,
  num_sources: float | None,
  num_candidates: float | None,
  held_bytes: int = 0,
) -> programs_lib.Made:
  """Encoding and prefix trees of the reward model.

  Args:
    context: the stage that scores.
    batch_size: of `learned.LearnedReward`.
    num_sources, num_candidates: to score in all; None where nothing says it.
    held_bytes: on each device meanwhile.
  """
  config, mesh = context.undropped, context.mesh
  source_length, target_length = buckets.feature_lengths(
    memory.reward_lengths(context.entry, context.entries)
  )
  quantisation = context.said.get('quantisation')
  scorer = learned.LearnedReward(
    shapes.quantised(context.params(reward.RewardT5), quantisation),
    config,
    learned.RatingScale(0.0, 1.0),
    mesh=mesh,
    batch_size=batch_size,
    source_length=source_length,
    target_length=target_length,
  )
  for name, trace, shape, tokens, rows in scorer.largest_programs():
    program = programs_lib.Program(
      f'scorer {name} {programs_lib.sized(*shape)}'
      + ''.join(f' {mark}' for mark in programs_lib.precision(quantisation)),
      mesh,
      trace,
      tokens=tokens,
      held_bytes=held_bytes,
      identity=('score', name, config, mesh, shape, quantisation),
    )
    if name == 'encode':
      yield program, num_sources and num_sources / rows
    else:
      yield program, num_candidates and num_candidates * target_length / tokens


def score_stored(context: programs_lib.Context) -> programs_lib.Made:
  """Of the stage `score`: all candidates of a group set."""
  if 'reward_model' not in context.entry.inputs:
    return
  samples = context.entries[context.entry.inputs['samples'].name]
  sources = samplings.num_sources(samples, context.entries)
  yield from score(
    context,
    batch_size=context.said['batch_size'],
    num_sources=sources,
    num_candidates=sources and sources * samples.params['num_samples'],
  )


def score_sampled(context: programs_lib.Context, held_bytes: int) -> programs_lib.Made:
  """Of stages that score what they have sampled themselves.

  Args:
    context: the stage.
    held_bytes: on each device meanwhile, the reward model aside.
  """
  if 'reward_model' not in context.entry.inputs:
    return
  for sampling in samplings.of_stage(context.entry, context.entries):
    if sampling.scored:
      sources = sampling.num_sources and sampling.num_sources * sampling.times
      yield from score(
        context,
        batch_size=score_stage.BATCH_SIZE,
        num_sources=sources,
        num_candidates=sources and sources * sampling.num_samples,
        held_bytes=held_bytes,
      )


def diverge(context: programs_lib.Context, held_bytes: int) -> programs_lib.Made:
  """Both policies on a batch of a policy's samples."""
  mesh, said = context.mesh, context.said
  base = memory.model_config(
    context.entries[context.entry.inputs['bc'].name], context.entries
  )
  base_config = context.config if base is None else base
  source_length, target_length = context.lengths
  rows = divergence.whole_rows(mesh)
  shape = (rows, said['num_samples'], source_length, target_length)
  spread = mesh_lib.batch_sharding(mesh)
  batch = jax.tree.map(
    lambda x: shapes.placed(x, spread),
    jax.eval_shape(
      lambda: batches.empty_batch(
        batch=rows,
        samples=said['num_samples'],
        source_length=source_length,
        target_length=target_length,
      )
    ),
  )
  program = programs_lib.Program(
    f'divergence {programs_lib.sized(*shape)}',
    mesh,
    functools.partial(
      divergence.batch_kl.trace,
      context.params(t5.T5),
      shapes.params(t5.T5, base_config, mesh, context.run.rules),
      batch,
      config=context.config,
      base_config=base_config,
    ),
    tokens=rows * said['num_samples'] * target_length,
    held_bytes=held_bytes,
    identity=('divergence', context.config, base_config, mesh, shape),
  )
  sources = samplings.num_sources(context.entry, context.entries)
  yield program, sources and -(-sources // rows)

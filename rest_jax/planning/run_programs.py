"""Which programs a run compiles, from its plan alone: shapes in, traces out."""

from collections.abc import Callable, Mapping

from rest_jax.models import heads, reward, t5
from rest_jax.planning import memory, samplings, shapes
from rest_jax.planning import programs as programs_lib
from rest_jax.planning import sampling_programs as sampling
from rest_jax.planning import scoring_programs as scoring
from rest_jax.planning import training_programs as training
from rest_jax.stages import artifact
from rest_jax.stages import score as score_stage


def of_run(run: artifact.Run, *, batch_scale: float = 1.0) -> programs_lib.Programs:
  """The programs of a run.

  Args:
    run: after its algorithm has gone through it, as a dry run.
    batch_scale: multiplies the batch sizes of training.
  """
  found = programs_lib.Programs()
  entries = {entry.artifact.name: entry for entry in run.history}
  for name, entry in entries.items():
    config = memory.model_config(entry, entries)
    stage = entry.artifact.stage
    if config is None or stage not in _MAKERS:
      continue
    try:
      together = entry.teamwork == 'together'
      mesh = run.mesh if together else programs_lib.one_host(run.mesh)
      context = programs_lib.Context(run, mesh, entry, entries, config, batch_scale)
      # Hosts share out what they do apart, and wait for what the first does alone.
      at_once = run.mesh.size // mesh.size if entry.teamwork == 'apart' else 1
      for program, executions in _MAKERS[stage](context):
        found.add(name, program, executions, at_once)
    except ValueError as error:
      found.problems.append((name, str(error)))
  return found


def _supervise(context: programs_lib.Context) -> programs_lib.Made:
  yield from training.train(context, t5.T5)
  yield from training.held_out_loss(context, t5.T5)


def _train_reward(context: programs_lib.Context) -> programs_lib.Made:
  yield from training.train(context, reward.RewardT5)
  # Held-out ratings, as many as there are: not counted.
  yield from scoring.score(
    context,
    batch_size=context.said['batch_size'],
    num_sources=0.0,
    num_candidates=0.0,
    held_bytes=training.held(context, reward.RewardT5).beside_params,
  )


def _train_value(context: programs_lib.Context) -> programs_lib.Made:
  yield from training.train(context, heads.ScalarHeadT5)
  yield from training.held_out_values(context, heads.ScalarHeadT5)


def _improve(context: programs_lib.Context) -> programs_lib.Made:
  yield from training.train(context, t5.T5)
  yield from _held_out(context)


def _online(context: programs_lib.Context) -> programs_lib.Made:
  yield from training.online(context)
  yield from _held_out(context)


def _held_out(context: programs_lib.Context) -> programs_lib.Made:
  """Samples and their scores, the train state at their side."""
  held = training.held(context, t5.T5)
  yield from sampling.sample(context, held.beside_params)
  scorer = shapes.device_bytes(context.params(reward.RewardT5))
  yield from scoring.score_sampled(context, held.state + held.others - scorer)


def _evaluate(context: programs_lib.Context) -> programs_lib.Made:
  """Samples, greedy outputs and beams; scores; the divergence from BC."""
  policy = shapes.device_bytes(context.params(t5.T5))
  base = policy if 'bc' in context.entry.inputs else 0
  scorer = 0
  if 'reward_model' in context.entry.inputs:
    scorer = shapes.device_bytes(context.params(reward.RewardT5))
  yield from sampling.sample(context, scorer + base)
  yield from sampling.search(context, scorer + base)
  yield from scoring.score_sampled(context, policy + base)
  if base:
    yield from scoring.diverge(context, scorer)


def _probe(context: programs_lib.Context) -> programs_lib.Made:
  """Samples, if any, and the scores of two texts for each probe beside them."""
  scorer = 0
  if 'reward_model' in context.entry.inputs:
    scorer = shapes.device_bytes(context.params(reward.RewardT5))
  policy = 0
  if context.said['num_samples']:
    policy = shapes.device_bytes(context.params(t5.T5))
    yield from sampling.sample(context, scorer)
  if scorer:
    sources = samplings.num_sources(context.entry, context.entries)
    texts = 2 * len(context.said['probes']) + context.said['num_samples']
    yield from scoring.score(
      context,
      batch_size=score_stage.BATCH_SIZE,
      num_sources=sources,
      num_candidates=sources and sources * texts,
      held_bytes=policy,
    )


_MAKERS: Mapping[str, Callable[[programs_lib.Context], programs_lib.Made]] = {
  'supervise': _supervise,
  'train_reward': _train_reward,
  'train_value': _train_value,
  'improve': _improve,
  'online': _online,
  'grow': sampling.sample,
  'score': scoring.score_stored,
  'evaluate': _evaluate,
  'best_of_n': _evaluate,
  'probe': _probe,
}

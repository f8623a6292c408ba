"""Online reinforcement learning over artifacts: the rivals of `rest`.

Everything but the learner is ReST's: corpus, BC, reward model, the first Grow's
normaliser, evaluation. In MODEL_DIRs that name one another in REUSE_FROM they are
the same artifacts.
"""

from rest_jax import rest
from rest_jax.stages import artifact
from rest_jax.stages import report as report_stage


def online_rl(
  run: artifact.Run,
  *,
  ingest: rest.Stage,
  supervise: rest.Stage,
  sample_to_rate: rest.Stage,
  rate: rest.Stage,
  train_reward: rest.Stage,
  grow: rest.Stage,
  score: rest.Stage,
  online: rest.Stage,
  evaluate: rest.Stage,
  report: rest.Stage,
  ingest_sources: rest.Stage | None = None,
  read_ratings: rest.Stage | None = None,
  best_of_n: rest.Stage | None = None,
  human_evaluation: rest.Stage | None = None,
  probe: rest.Stage | None = None,
) -> artifact.Artifact:
  """Trains BC further on candidates of its own and returns the report.

  Args:
    run: the MODEL_DIR in use.
    online: the learner: PPO, GRPO or RLOO.
    ingest, ..., report, ingest_sources, read_ratings, probe, best_of_n,
      human_evaluation: as in `rest.rest`. Source-only text is part of the first Grow;
      the learner's sources are the corpus's.

  Returns:
    The report's artifact.
  """
  corpus, sources, bc, reward_model, _, probed = rest.begin(
    run,
    ingest=ingest,
    supervise=supervise,
    sample_to_rate=sample_to_rate,
    rate=rate,
    train_reward=train_reward,
    ingest_sources=ingest_sources,
    read_ratings=read_ratings,
    probe=probe,
  )
  # Nothing learns from the first Grow here: it fits the map of rewards to [0, 1].
  samples = grow(
    run, name='grow_1', corpus=corpus, sources=sources, policy=bc, grow_step=1
  )
  rewards = score(
    run,
    name='score_1',
    samples=samples,
    reward_model=reward_model,
    normaliser_from=None,
  )
  learnt = online(
    run,
    corpus=corpus,
    policy=bc,
    reward_model=reward_model,
    first_rewards=rewards,
  )
  trained = []
  selections = []
  for step, policy in enumerate((bc, learnt)):
    evaluation = evaluate(
      run,
      name=f'evaluate_{policy.name}',
      corpus=corpus,
      policy=policy,
      bc=bc,
      reward_model=reward_model,
      rewards=rewards,
    )
    name = learnt.results['loss_name'] if step and learnt.finished else None
    trained.append(report_stage.Trained(policy, evaluation, step, step, name))
    if best_of_n is not None:
      selection = best_of_n(
        run,
        name=f'best_of_n_{policy.name}',
        corpus=corpus,
        policy=policy,
        reward_model=reward_model,
        rewards=rewards,
      )
      selections.append(report_stage.Selected(policy, selection))
  human = human_evaluation and human_evaluation(
    run, evaluations=[one.evaluation for one in trained]
  )
  return report(
    run,
    corpus=corpus,
    reward_model=reward_model,
    trained=trained,
    grown=[report_stage.Grown(1, samples, rewards)],
    human=human,
    selected=selections,
    probed=probed,
  )

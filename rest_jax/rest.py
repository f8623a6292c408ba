"""Reinforced Self-Training: Algorithm 1 of arXiv:2308.08998, over artifacts.

Every name below is a directory of MODEL_DIR. A stage whose artifact is there
already, made of the same inputs and parameters, is not run again.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rest_jax import filters
from rest_jax.refresh import RatedSet, Refreshed
from rest_jax.stages import artifact
from rest_jax.stages import report as report_stage

Stage = Callable[..., artifact.Artifact]


def rest(
  run: artifact.Run,
  *,
  ingest: Stage,
  supervise: Stage,
  sample_to_rate: Stage,
  rate: Stage,
  train_reward: Stage,
  grow: Stage,
  score: Stage,
  improve: Stage,
  evaluate: Stage,
  report: Stage,
  thresholds: Sequence[Sequence[float]],
  filter_fn: Callable[[float], Any] = filters.GlobalThreshold,
  ingest_sources: Stage | None = None,
  read_ratings: Stage | None = None,
  refresh: Callable[..., Refreshed] | None = None,
  train_value: Stage | None = None,
  learner: Stage | None = None,
  probe: Stage | None = None,
  best_of_n: Stage | None = None,
  best_of_n_every_policy: bool = False,
  human_evaluation: Stage | None = None,
  export: Stage | None = None,
) -> artifact.Artifact:
  """Runs ReST and returns the report.

  Args:
    run: the MODEL_DIR in use, on its mesh.
    ingest, ..., report: the stages, with their own parameters bound.
    sample_to_rate, rate: how candidates come to ratings for the reward model.
    thresholds: for each Grow step the rising thresholds of its Improve steps. A row
      without any grows and scores alone.
    filter_fn: makes the filter F(x, y; τ) of a threshold.
    read_ratings: reads a file of ratings, in place of sample_to_rate and rate.
    ingest_sources: reads source-only text for Grow, x ~ p(x); None grows on D.
    refresh: refits the reward model on ratings of each later Grow's samples; the
      policies are evaluated by the first reward model all the same.
    train_value: fits a value model to each Grow, for the losses that need one.
    learner: makes the policy that every Improve starts from: `supervise` itself as in
      ReST-EM, or an untrained one. None starts from the policy before it.
    probe: asks the reward model about pairs of texts, and each that a refresh leaves;
      may refuse to go on with it. None asks nothing.
    best_of_n: how BC and the last policy do by the best of N samples; None skips it.
    best_of_n_every_policy: whether the policies between these two are asked as well.
    human_evaluation: what people's ratings of the policies say; None skips it.
    export: writes a model for Hugging Face and T5X; None skips it.

  Returns:
    The report's artifact.
  """
  check_thresholds(thresholds)
  begun = begin(
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
  corpus, sources, bc, reward_model, rated, _ = begun

  start = learner and learner(run, corpus=corpus)
  policy = bc
  policies = [(0, 0, bc)]
  grown: list[report_stage.Grown] = []
  for g, grow_thresholds in enumerate(thresholds, start=1):
    # Grow: D_g = {(x, y) : x ~ D, y ~ policy} ∪ D, each pair with its reward.
    samples = grow(
      run,
      name=f'grow_{g}',
      corpus=corpus,
      sources=sources,
      policy=policy,
      grow_step=g,
    )
    stale = probed = None
    if refresh is not None and grown:
      stale = score(
        run,
        name=f'score_{g}_stale',
        samples=samples,
        reward_model=reward_model,
        normaliser_from=grown[0].rewards,
      )
      reward_model, rated = refresh(
        run,
        grow_step=g,
        corpus=corpus,
        policy=bc,
        samples=samples,
        rewards=stale,
        reward_model=reward_model,
        rated=rated,
      )
      probed = probe and probe(run, corpus=corpus, policy=bc, reward_model=reward_model)
    rewards = score(
      run,
      name=f'score_{g}',
      samples=samples,
      reward_model=reward_model,
      normaliser_from=grown[0].rewards if grown else None,
    )
    value_model = train_value and train_value(
      run, name=f'value_{g}', policy=bc, samples=samples, rewards=rewards
    )
    grown.append(report_stage.Grown(g, samples, rewards, value_model, stale, probed))
    previous_threshold = None
    for i, threshold in enumerate(grow_thresholds, start=1):
      # Improve: minimise E_{D_g}[F(x, y; τ_i) · L(x, y; θ)], τ_i rising.
      policy = improve(
        run,
        name=f'improve_{g}_{i}',
        corpus=corpus,
        policy=start or policy,
        samples=samples,
        rewards=rewards,
        reward_model=reward_model,
        first_rewards=grown[0].rewards,
        reference=bc,
        value_model=value_model,
        grow_step=g,
        improve_step=i,
        threshold=threshold,
        previous_threshold=previous_threshold,
        filter_fn=filter_fn,
      )
      policies.append((g, i, policy))
      previous_threshold = threshold

  trained = []
  for g, i, policy in policies:
    evaluation = evaluate(
      run,
      name=f'evaluate_{policy.name}',
      corpus=corpus,
      policy=policy,
      bc=bc,
      reward_model=begun.reward_model,
      rewards=grown[0].rewards,
    )
    trained.append(report_stage.Trained(policy, evaluation, g, i))
  if export is not None:
    reward_models = {one.name: one for one in (begun.reward_model, reward_model)}
    export(
      run,
      policies=[policy for *_, policy in policies],
      others=list(reward_models.values()),
    )
  selections = []
  if best_of_n is not None:
    asked = [policy for *_, policy in policies]
    if not best_of_n_every_policy:
      asked = asked[:1] + asked[1:][-1:]
    for policy in asked:
      selection = best_of_n(
        run,
        name=f'best_of_n_{policy.name}',
        corpus=corpus,
        policy=policy,
        reward_model=begun.reward_model,
        rewards=grown[0].rewards,
      )
      selections.append(report_stage.Selected(policy, selection))
  human = human_evaluation and human_evaluation(
    run, evaluations=[one.evaluation for one in trained]
  )
  return report(
    run,
    corpus=corpus,
    reward_model=begun.reward_model,
    trained=trained,
    grown=grown,
    human=human,
    selected=selections,
    probed=begun.probed,
  )


class Begun(NamedTuple):
  """What every algorithm starts from."""

  corpus: artifact.Artifact
  sources: artifact.Artifact | None  # source-only text
  bc: artifact.Artifact
  reward_model: artifact.Artifact
  rated: tuple[RatedSet, ...]  # what the reward model was trained on
  probed: artifact.Artifact | None  # what probes of the reward found


def begin(
  run: artifact.Run,
  *,
  ingest: Stage,
  supervise: Stage,
  sample_to_rate: Stage,
  rate: Stage,
  train_reward: Stage,
  ingest_sources: Stage | None,
  read_ratings: Stage | None,
  probe: Stage | None,
) -> Begun:
  """The corpus, BC, the reward model and its probes; arguments as in `rest`."""
  corpus = ingest(run)
  sources = ingest_sources and ingest_sources(run, vocabulary_from=corpus)

  # Line 1: train the policy on D by negative log-likelihood.
  bc = supervise(run, corpus=corpus)

  # The reward model, from a file of ratings or from ratings of BC's candidates.
  if read_ratings is not None:
    rated = ratings = read_ratings(run, corpus=corpus)
  else:
    rated = sample_to_rate(run, corpus=corpus, policy=bc, grow_step=0)
    ratings = rate(run, samples=rated)
  reward_model = train_reward(run, policy=bc, samples=rated, ratings=ratings)
  probed = probe and probe(run, corpus=corpus, policy=bc, reward_model=reward_model)
  return Begun(corpus, sources, bc, reward_model, (RatedSet(rated, ratings),), probed)


def check_thresholds(thresholds: Sequence[Sequence[float]]) -> None:
  """Raises ValueError where the thresholds cannot be right, before any work.

  There is at least one Grow, and each Improve has a higher threshold than the one
  before it; whether they suit the rewards is checked when those are known.
  """
  if not thresholds:
    raise ValueError(
      f'thresholds={thresholds!r} must hold one row for each Grow step, such as '
      '((0.7, 0.8, 0.9), (0.8, 0.9)); ((),) grows once and improves nothing'
    )
  for row in thresholds:
    if any(b <= a for a, b in itertools.pairwise(row)):
      raise ValueError(
        f'the thresholds {tuple(row)} of one Grow step must rise from each Improve '
        f'to the next: {tuple(sorted(set(row)))} would work'
      )

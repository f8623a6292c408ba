"""Refresh: rate samples of the newest policy and fit the reward model to them as well.

The paper (arXiv:2308.08998, section 6) names it as what it did not do: the reward model
is asked about candidates ever further from those it learnt from.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rest_jax import paths
from rest_jax.stages import artifact
from rest_jax.stages import choose as choose_stage

Stage = Callable[..., artifact.Artifact]


class RatedSet(NamedTuple):
  """Candidates and their ratings."""

  samples: artifact.Artifact
  ratings: artifact.Artifact


class Refreshed(NamedTuple):
  """What a refresh leaves."""

  reward_model: artifact.Artifact
  rated: tuple[RatedSet, ...]  # old and new


def refresh(
  run: artifact.Run,
  *,
  grow_step: int,
  corpus: artifact.Artifact,
  policy: artifact.Artifact,
  samples: artifact.Artifact,
  rewards: artifact.Artifact,
  reward_model: artifact.Artifact,
  rated: Sequence[RatedSet],
  choose: Stage,
  train_reward: Stage,
  rate: Stage | None = None,
  read_ratings: Stage | None = None,
  ratings_file: str | None = None,
) -> Refreshed:
  """Chooses samples, has them rated, and goes on training the reward model.

  Give `rate`, for raters that are a program, or `read_ratings` with `ratings_file`,
  for people: then the run stops until the file is there, and says what to rate. Run
  modes that need no ratings, such as annotate, find the rest planned.

  Args:
    run: the MODEL_DIR in use.
    grow_step: g; artifacts are chosen_g, ratings_g and reward_model_g.
    corpus: D.
    policy: BC, for the reward model's shape.
    samples: Grow's, of the newest policy.
    rewards: of `samples` by the reward model so far.
    reward_model: the reward model so far, to go on from.
    rated: what it was trained on; the new ratings are added.
    choose, train_reward, rate, read_ratings: the stages, with their own parameters.
    ratings_file: path of the ratings, with '{grow_step}' in it.

  Raises:
    ValueError: not one of `rate` and `read_ratings`, or ratings that are not there yet.
  """
  if (rate is None) == (read_ratings is None):
    raise ValueError(
      'refresh.refresh needs either rate (a program) or read_ratings and ratings_file '
      '(people): gin_configs/refresh.gin and gin_configs/refresh_by_people.gin'
    )
  chosen = choose(run, name=f'chosen_{grow_step}', samples=samples, rewards=rewards)
  if rate is not None:
    ratings = rate(run, name=f'ratings_{grow_step}', samples=chosen)
    newest = RatedSet(chosen, ratings)
  else:
    assert read_ratings is not None
    if not ratings_file:
      raise ValueError('refresh.refresh.ratings_file must name the file of ratings')
    file, name = ratings_file.format(grow_step=grow_step), f'ratings_{grow_step}'
    if paths.as_path(file).exists():
      ratings = read_ratings(run, name=name, corpus=corpus, samples=chosen, path=file)
    else:
      ratings = run.wait(
        'ingest', name=name, samples=chosen, file=file, remedy=_remedy(chosen, file)
      )
    # It holds the candidates as well: those that were rated, in the file's order.
    newest = RatedSet(ratings, ratings)
  together = (*rated, newest)
  refitted = train_reward(
    run,
    name=f'reward_model_{grow_step}',
    policy=policy,
    samples=[one.samples for one in together],
    ratings=[one.ratings for one in together],
    reward_model=reward_model,
  )
  return Refreshed(refitted, together)


def _remedy(chosen: artifact.Artifact, file: str) -> str:
  return (
    f'{file} is not there: it holds the ratings of {chosen.name}. Either rate on the '
    'page, with --gin_file=gin_configs/annotate.gin and --run_mode=annotate besides, '
    f'which writes {file}; or fill in the column rating of '
    f'{chosen.path / choose_stage.FILE} and save it as {file}. Then give the same '
    'command again'
  )

"""Human evaluation: what the ratings of `annotate` say, as figures and as files.

results          in stage.json: systems, raters' agreement, the reward model's
ratings.tsv      every rating that stands, for read_ratings or a spreadsheet
ratings.jsonl    the same, texts untouched
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from rest_jax.annotation import database as database_lib
from rest_jax.annotation import exports
from rest_jax.annotation import items as items_lib
from rest_jax.evaluation import human, rater_agreement
from rest_jax.rewards import agreement
from rest_jax.stages import annotate, artifact
from rest_jax.stages import progress as progress_lib

VERSION = 1
NUM_VALUES = database_lib.MAX_RATING + 1


def human_evaluation(
  run: artifact.Run,
  *,
  name: str = 'human_evaluation',
  evaluations: Sequence[artifact.Artifact],
  database: str | None = None,
  baseline: str = 'evaluate_bc',
  seed: int = 0,
) -> artifact.Artifact:
  """Evaluates policies by the ratings that people have given so far.

  The artifact is a view of the file of ratings: it is written anew when they change.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact.
    evaluations: of the run's policies, for the reward model's opinion; those that
      are not finished are left out.
    database: the file; None is MODEL_DIR/annotation.sqlite.
    baseline: the system that the others are compared with; its greedy outputs where
      these were rated. With one system alone there is no comparison.
    seed: of the bootstrap.

  Raises:
    ValueError: no ratings yet, ratings of another run, or several systems without the
      baseline.
  """
  evaluations = [e for e in evaluations if e.finished] or evaluations
  path = annotate.database_path(run, database)
  kept = database_lib.Database(path) if path.exists() else None
  params = {
    'ratings': kept and kept.fingerprint(),
    'baseline': baseline,
    'seed': seed,
  }

  def build(work: artifact.Work) -> None:
    ratings = kept.ratings() if kept else []
    if not kept or not ratings:
      raise ValueError(
        f'{path} holds no rating yet: rate with --run_mode=annotate, or leave '
        'gin_configs/annotate.gin out of this command'
      )
    _check_systems(path, kept.identity['systems'], evaluations)
    items = kept.items()
    table = _Table(items, ratings)
    rewards = {e.name: e.results['reward_mean'] for e in evaluations}
    work.results.update(
      num_ratings=len(ratings),
      num_raters=len(table.raters),
      num_sources=table.num_sources_rated,
      num_candidates=len({rating.candidate_id for rating in ratings}),
      systems=_systems(table, rewards, baseline, seed),
      agreement=_agreement(table, seed),
      reward_agreement=_reward_agreement(items, ratings),
    )
    exports.write_jsonl(work.path / 'ratings.jsonl', items, ratings)
    changed = exports.write_tsv(work.path / 'ratings.tsv', items, ratings)
    note = f'; {changed} rows of ratings.tsv lost a tab or newline' if changed else ''
    progress_lib.say(
      f'{name}: {len(ratings):,} ratings, {len(table.raters)} rater(s){note}'
    )

  return run.stage(
    'human_evaluation',
    name=name,
    version=VERSION,
    params=params,
    inputs={evaluation.name: evaluation for evaluation in evaluations},
    build=build,
    replaceable=True,
  )


def _check_systems(
  path: Any, systems: Mapping[str, str], evaluations: Sequence[artifact.Artifact]
) -> None:
  """Raises ValueError where the run's evaluations are not those that were rated."""
  prints = {evaluation.name: evaluation.fingerprint for evaluation in evaluations}
  for system, print_ in systems.items():
    owner = system.partition('/')[0]
    if prints.get(owner, print_) != print_:
      raise ValueError(
        f'{path} holds ratings of another {owner} than this run has: name the file of '
        'this run with ANNOTATION_DATABASE'
      )


class _Table:
  """Ratings as arrays: a row for each rater."""

  def __init__(self, items: items_lib.Items, ratings: Sequence[database_lib.Rating]):
    self.raters = sorted({rating.rater for rating in ratings})
    self.systems = list(dict.fromkeys(output.system for output in items.outputs))
    candidates = [
      (place, c) for place, s in enumerate(items.sources) for c in s.candidates
    ]
    columns = {c.candidate_id: column for column, (_, c) in enumerate(candidates)}
    self.sources = [place for place, _ in candidates]  # of each candidate
    # [raters, candidates]
    self.by_candidate = np.full((len(self.raters), len(candidates)), np.nan)
    rows = {rater: row for row, rater in enumerate(self.raters)}
    for rating in ratings:
      column = columns[rating.candidate_id]
      self.by_candidate[rows[rating.rater], column] = rating.rating
    rated = np.isfinite(self.by_candidate).any(axis=0)
    self.num_sources_rated = len(set(np.array(self.sources)[rated].tolist()))
    self._columns = self._outputs(items, columns)

  def _outputs(
    self, items: items_lib.Items, columns: Mapping[str, int]
  ) -> dict[str, np.ndarray]:
    """For each system [sources, samples]: the candidate's column, -1 for none."""
    places = {source.source_id: place for place, source in enumerate(items.sources)}
    samples = 1 + max(output.sample for output in items.outputs)
    found = {s: np.full((len(places), samples), -1) for s in self.systems}
    for output in items.outputs:
      place = places[output.source_id]
      found[output.system][place, output.sample] = columns[output.candidate_id]
    return found

  def of(self, system: str) -> np.ndarray:
    """[raters, sources, samples] ratings of a system's outputs, NaN where none."""
    columns = self._columns[system]
    return np.where(columns >= 0, self.by_candidate[:, columns], np.nan)


def _baseline(systems: Sequence[str], baseline: str) -> str | None:
  """The baseline among the systems; None where nothing can be compared."""
  for system in systems:
    if system.partition('/')[0] == baseline:
      return system
  if len(systems) == 1:
    return None
  raise ValueError(
    f'baseline={baseline!r} was not rated; there are {", ".join(systems)}: choose one'
  )


def _systems(
  table: _Table, rewards: Mapping[str, float], baseline: str, seed: int
) -> list[dict[str, Any]]:
  """One record for each system, in the study's order."""
  base = _baseline(table.systems, baseline)
  found = []
  for system in table.systems:
    record: dict[str, Any] = {
      'system': system,
      'reward_mean': rewards.get(system.partition('/')[0]),
      'baseline': base,
      'num_sources': 0,
      'rating_mean': None,
      'rating_interval': None,
      'compared_sources': 0,
      'difference': None,
      'difference_interval': None,
      'win_rate': None,
      'win_rate_interval': None,
      'wins': None,
      'ties': None,
      'losses': None,
    }
    mean = human.mean_rating(table.of(system), seed=seed)
    if mean is not None:
      interval, record['num_sources'] = mean
      record['rating_mean'] = interval.mean
      record['rating_interval'] = [interval.low, interval.high]
    compared = None
    if base is not None and system != base:
      compared = human.compare(table.of(system), table.of(base), seed=seed)
    if compared is not None:
      record |= {
        'compared_sources': compared.num_sources,
        'difference': compared.difference.mean,
        'difference_interval': [compared.difference.low, compared.difference.high],
        'win_rate': compared.win_rate.mean,
        'win_rate_interval': [compared.win_rate.low, compared.win_rate.high],
        'wins': compared.wins,
        'ties': compared.ties,
        'losses': compared.losses,
      }
    found.append(record)
  _rank(found, 'rating_mean', 'rank_by_humans')
  _rank(found, 'reward_mean', 'rank_by_reward')
  return found


def _rank(systems: Sequence[dict[str, Any]], key: str, rank_key: str) -> None:
  """Adds ranks by a measure, 1 the highest; None for all unless all have it."""
  values = [system[key] for system in systems]
  ranks: Sequence[Any] = [None] * len(values)
  if len(values) > 1 and None not in values:
    ranks = scipy.stats.rankdata([-value for value in values], method='min')
  for system, rank in zip(systems, ranks, strict=True):
    system[rank_key] = None if rank is None else int(rank)


def _agreement(table: _Table, seed: int) -> dict[str, Any]:
  """How far the raters agree with one another."""
  ratings = table.by_candidate
  alpha = rater_agreement.krippendorff_alpha(
    ratings, table.sources, num_values=NUM_VALUES, seed=seed
  )
  pairs = rater_agreement.pairwise_spearman(ratings)
  known = [pair.spearman for pair in pairs if pair.spearman is not None]
  return {
    'alpha': None if alpha is None else alpha.mean,
    'alpha_interval': None if alpha is None else [alpha.low, alpha.high],
    'candidates': int((np.isfinite(ratings).sum(axis=0) > 1).sum()),
    'mean_spearman': float(np.mean(known)) if known else None,
    'pairs': [
      {
        'raters': [table.raters[pair.first], table.raters[pair.second]],
        'candidates': pair.units,
        'spearman': pair.spearman,
      }
      for pair in pairs
    ],
  }


def _reward_agreement(
  items: items_lib.Items, ratings: Sequence[database_lib.Rating]
) -> dict[str, Any] | None:
  """The reward model's ranking of the rated candidates against the raters'.

  None where no rated candidate was scored, as greedy outputs are not.
  """
  rewards = {o.candidate_id: o.reward for o in items.outputs if o.reward is not None}
  given: dict[str, list[int]] = {}
  for rating in ratings:
    given.setdefault(rating.candidate_id, []).append(rating.rating)
  predicted, target = [], []
  for source in items.sources:
    both = [
      (rewards[c.candidate_id], np.mean(given[c.candidate_id]))
      for c in source.candidates
      if c.candidate_id in rewards and c.candidate_id in given
    ]
    if both:
      columns = np.array(both, np.float64).T
      predicted.append(columns[0])
      target.append(columns[1])
  return agreement.agreement(predicted, target).to_dict() if predicted else None

"""Score: every candidate of a group set gets its reward, in files of its own."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rest_jax import paths
from rest_jax.data import buckets, columns, group_store, reward_store
from rest_jax.data import shards as shards_lib
from rest_jax.models import quantisation as quantisation_lib
from rest_jax.models import reward
from rest_jax.rewards import agreement, learned, normalisers, text
from rest_jax.rewards import inputs as inputs_lib
from rest_jax.stages import artifact, overlap, policies
from rest_jax.stages import progress as progress_lib
from rest_jax.training import hosts

VERSION = 1
NORMALISER_FILE = normalisers.FILE_NAME
SCALE_FILE = 'rating_scale.json'
INPUT_FILE = 'reward_input.json'  # absent where the source alone is read
HISTOGRAM_BINS = 50
BATCH_SIZE = 32  # of a learned reward model, see `score`; of held-out samples always

Scorer = Callable[[Sequence[group_store.Group]], list[np.ndarray]]


def score(
  run: artifact.Run,
  *,
  name: str,
  samples: artifact.Artifact,
  reward_model: artifact.Artifact | None = None,
  scorer: Any = None,
  normaliser: Callable[[np.ndarray], Any] | None = None,
  normaliser_from: artifact.Artifact | None = None,
  num_gold_sources: int = 500,
  task_feature_lengths: Mapping[str, int],
  batch_size: int = BATCH_SIZE,
  quantisation: quantisation_lib.Int8 | quantisation_lib.Bfloat16 | None = None,
) -> artifact.Artifact:
  """Scores a group set with a learned reward model or any other scorer.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact, such as 'score_1'.
    samples: the group set.
    reward_model: the learned reward model.
    scorer: instead of it, or in its place: a callable object of `rewards.text`,
      or any with `name`, `identity()` and groups -> [samples] arrays.
    normaliser: fits a map of rewards to [0, 1], such as `EmpiricalCdf.fit`, on
      all of this set; None leaves rewards as they are.
    normaliser_from: an earlier score whose fitted map is used instead (that of
      the first Grow, so that thresholds mean the same throughout).
    num_gold_sources: sources on which the rewards are compared with the gold
      measure; evenly spread over the set. 0 compares none.
    task_feature_lengths: T5X's {'inputs': ..., 'targets': ...}: the padded lengths;
      they change no score.
    batch_size: prefix trees of 128 nodes that are scored together, more where they
      are smaller (`learned.LearnedReward`, which this sizes; another scorer does
      not read it); changes no score beyond rounding.
    quantisation: score by the reward model with kernels of 8 bits, or in bfloat16:
      another, near one (benchmarks/README.md). None leaves it as it is; another scorer
      does not read it.

  Returns:
    A reward set, with the histogram and the mean of the rewards in its results.

  Raises:
    ValueError: neither a reward model nor a scorer is given.
  """
  if scorer is None and reward_model is None:
    raise ValueError(f'{name}: give a reward_model or a scorer')
  if scorer is not None:
    reward_model = quantisation = None
  params = {
    'scorer': scorer,
    'normaliser': normaliser if normaliser_from is None else None,
    'num_gold_sources': num_gold_sources,
  }
  if quantisation is not None:  # absent otherwise: fingerprints stay what they were
    params['quantisation'] = quantisation

  def build(work: artifact.Work) -> None:
    score_groups = scorer or load_reward_model(
      reward_model,
      run,
      task_feature_lengths=task_feature_lengths,
      batch_size=batch_size,
      quantisation=quantisation,
    )
    shards = shards_lib.list_shards(samples.path)
    _score_shards(work, score_groups, shards)
    hosts.barrier(f'{name} is scored')
    if not hosts.is_primary():
      return
    raw = [_raw_path(work, index, len(shards)) for index in range(len(shards))]
    fitted = None
    if normaliser_from is not None:
      fitted = load_normaliser(normaliser_from)
    elif normaliser is not None:
      fitted = normaliser(np.concatenate([_flat(path) for path in raw]))
    if fitted is not None:
      paths.write_json_atomic(work.path / NORMALISER_FILE, fitted.to_dict())
    summary = _Summary(len(shards), num_gold_sources)
    for index, (shard, path) in enumerate(zip(shards, raw, strict=True)):
      rewards = reward_store.read_rewards(path)
      normalised = fitted and [fitted(values) for values in rewards.rewards]
      reward_store.write_rewards(
        shards_lib.shard_path(work.path, index, len(shards), 'rewards'),
        rewards.source_ids,
        rewards.rewards,
        normalised=normalised,
        ratings=rewards.ratings,
      )
      summary.add(shard, normalised or rewards.rewards)
    work.results.update(summary.results())

  inputs = {
    'samples': samples,
    'reward_model': reward_model,
    'normaliser_from': normaliser_from,
  }
  return run.stage(
    'score',
    name=name,
    version=VERSION,
    params=params,
    inputs=inputs,
    build=build,
    cut={
      'task_feature_lengths': dict(task_feature_lengths),
      'batch_size': batch_size,
    },
    teamwork='apart',
  )


def load_reward_model(
  reward_model: artifact.Artifact | None,
  run: artifact.Run,
  *,
  task_feature_lengths: Mapping[str, int],
  batch_size: int = BATCH_SIZE,
  quantisation: quantisation_lib.Int8 | quantisation_lib.Bfloat16 | None = None,
) -> learned.LearnedReward:
  """Reads a trained reward model as a scorer; `quantisation` as in `score`."""
  assert reward_model is not None, 'a scorer takes its place'
  source_length, target_length = buckets.feature_lengths(task_feature_lengths)
  model = policies.load_model(reward_model.path, reward.RewardT5, run)
  params = model.params
  if quantisation is not None:
    params = quantisation_lib.quantise(params, quantisation)
  scale = learned.RatingScale(**paths.read_json(reward_model.path / SCALE_FILE))
  reward_input = load_reward_input(reward_model)
  return learned.LearnedReward(
    params,
    model.config,
    scale,
    mesh=run.mesh,
    batch_size=batch_size,
    source_length=reward_input.longest(model.vocabulary, source_length, target_length),
    target_length=target_length,
    encoder_groups=functools.partial(
      inputs_lib.encoder_groups,
      reward_input=reward_input,
      vocabulary=model.vocabulary,
      target_length=target_length,
    ),
  )


def load_reward_input(reward_model: artifact.Artifact) -> inputs_lib.RewardInput:
  """Reads what the encoder of a trained reward model reads."""
  file = reward_model.path / INPUT_FILE
  if not file.exists():
    return inputs_lib.Source()
  return inputs_lib.from_dict(paths.read_json(file))


def load_normaliser(rewards: artifact.Artifact) -> Any:
  """Reads the normaliser that a score fitted or used.

  Raises:
    ValueError: that score did not normalise.
  """
  file = rewards.path / NORMALISER_FILE
  if not file.exists():
    raise ValueError(
      f'{rewards.name} has no {NORMALISER_FILE}: score it with a normaliser, such '
      'as score.score.normaliser = @normalisers.EmpiricalCdf.fit'
    )
  return normalisers.from_dict(paths.read_json(file))


def _raw_path(work: artifact.Work, index: int, num_shards: int) -> Any:
  return shards_lib.shard_path(work.scratch, index, num_shards, 'rewards')


def _score_shards(
  work: artifact.Work, score_groups: Scorer, shards: Sequence[Any]
) -> None:
  """Scores shard by shard into scratch; those that are there are done.

  The next shard is read, and the last one's rewards are written, meanwhile. Of
  several hosts each takes the next that no other has taken.
  """
  rows = [columns.num_rows(shard) for shard in shards]
  raw = [_raw_path(work, index, len(shards)) for index in range(len(shards))]
  earlier = shards_lib.names(work.scratch)
  hosts.barrier(f'{work.name} is seen')  # by all alike, before any writes
  left = [index for index, path in enumerate(raw) if path.name not in earlier]
  done = sum(rows) - sum(rows[index] for index in left)
  mine = (left[number] for number in hosts.share(f'{work.name}/shards', len(left)))

  def read(index: int) -> list[group_store.Group]:
    return group_store.read_groups(shards[index])

  with (
    progress_lib.progress(work.name, sum(rows), unit='sources', done=done) as advance,
    overlap.Writer() as writer,
    overlap.read_ahead(read, mine, ahead=1 if hosts.count() == 1 else 0) as found,
  ):
    for index, groups in found:
      write = _score_shard(work, score_groups, groups, raw[index])
      del groups
      writer.put(raw[index], write)
      advance(rows[index])


def _score_shard(
  work: artifact.Work,
  score_groups: Scorer,
  groups: Sequence[group_store.Group],
  path: Any,
) -> Callable[[], None]:
  """Scores one shard; returns what writes it, and holds no candidate."""
  ratings = None
  with work.devices():
    if hasattr(score_groups, 'ratings'):
      ratings = score_groups.ratings(groups)
      rewards = [values.mean(axis=1) for values in ratings]
    else:
      rewards = score_groups(groups)
  check_rewards(groups, rewards)
  source_ids = [group.source_id for group in groups]

  def write() -> None:
    reward_store.write_rewards(path, source_ids, rewards, ratings=ratings)
    work.save_cost()

  return write


def check_rewards(
  groups: Sequence[group_store.Group], rewards: Sequence[np.ndarray]
) -> None:
  """Raises ValueError where a scorer's answer is not one number per candidate."""
  if len(rewards) != len(groups):
    raise ValueError(f'the scorer gave {len(rewards)} answers to {len(groups)} groups')
  for group, values in zip(groups, rewards, strict=True):
    if np.shape(values) != (group.num_candidates,):
      raise ValueError(
        f'the scorer gave shape {np.shape(values)} for source {group.source_id}, '
        f'which has {group.num_candidates} candidates'
      )
    if not np.isfinite(values).all():
      bad = int(np.flatnonzero(~np.isfinite(values))[0])
      raise ValueError(
        f'the scorer gave {values[bad]} to candidate {bad} of source '
        f'{group.source_id}, {group.texts[bad]!r}: rewards must be finite'
      )


def _flat(path: Any) -> np.ndarray:
  rewards = reward_store.read_rewards(path).rewards
  return np.concatenate([np.zeros(0, np.float32), *rewards])


class _Summary:
  """Accumulates what the results say about a scored set."""

  def __init__(self, num_shards: int, num_gold_sources: int):
    self._per_shard = -(-num_gold_sources // num_shards)
    self._sum = {'model': 0.0, 'data': 0.0}
    self._count = {'model': 0, 'data': 0}
    self._rewards: dict[str, list[np.ndarray]] = {'model': [], 'data': []}
    self._predicted: list[np.ndarray] = []
    self._gold: list[np.ndarray] = []

  def add(self, shard: Any, rewards: Sequence[np.ndarray]) -> None:
    """Adds one shard's rewards, normalised where the set is."""
    groups = group_store.read_groups(shard, columns=['origins'])
    flat = np.concatenate([np.zeros(0, np.float32), *rewards])
    origins = np.array([o for group in groups for o in group.origins])
    for origin in self._rewards:
      self._rewards[origin].append(flat[origins == origin])
    rows = np.unique(np.linspace(0, len(groups) - 1, self._per_shard).astype(int))
    self._compare(shard, rows if self._per_shard else rows[:0], rewards)

  def _compare(self, shard: Any, rows: np.ndarray, rewards: Sequence[Any]) -> None:
    """Compares the policy's candidates of some rows with the gold measure."""
    fields = ['texts', 'origins', 'reference', 'renderings']
    groups = group_store.read_groups(shard, columns=fields, rows=rows)
    for row, group in zip(rows, groups, strict=True):
      if group.reference is None and not group.renderings:
        continue
      drawn = [i for i, origin in enumerate(group.origins) if origin == 'model']
      self._predicted.append(np.asarray(rewards[row])[drawn])
      self._gold.append(text.Gold()([group_store.take(group, drawn)])[0])

  def results(self) -> dict[str, Any]:
    """Returns JSON values for stage.json."""
    by_origin = {key: np.concatenate(values) for key, values in self._rewards.items()}
    every = np.concatenate(list(by_origin.values()))
    edges = np.linspace(every.min(), every.max() + 1e-6, HISTOGRAM_BINS + 1)
    compared = None
    if self._gold:
      compared = agreement.agreement(self._predicted, self._gold).to_dict()
    return {
      'candidates': int(every.size),
      'mean_reward': float(every.mean(dtype=np.float64)),
      'max_reward': float(every.max()),
      'mean_reward_model': _mean(by_origin['model']),
      'mean_reward_data': _mean(by_origin['data']),
      'histogram': {
        'edges': edges.tolist(),
        'counts': np.histogram(by_origin['model'], edges)[0].tolist(),
        'counts_data': np.histogram(by_origin['data'], edges)[0].tolist(),
      },
      'gold_agreement': compared,
    }


def _mean(values: np.ndarray) -> float | None:
  return float(values.mean(dtype=np.float64)) if values.size else None

"""Choose: which samples of the newest policy a rater should see.

groups-*.parquet  the chosen sources with their chosen candidates
to_rate.tsv       the same for people: source_id, source, candidate, an empty rating
"""

import hashlib
import heapq
from typing import Any

import numpy as np

from rest_jax import paths
from rest_jax.data import group_store, reward_store
from rest_jax.rewards import acquisition as acquisition_lib
from rest_jax.stages import artifact
from rest_jax.stages import progress as progress_lib

VERSION = 1
FILE = 'to_rate.tsv'
HEAD = ('source_id', 'source', 'candidate', 'rating')


def choose(
  run: artifact.Run,
  *,
  name: str,
  samples: artifact.Artifact,
  rewards: artifact.Artifact,
  acquisition: acquisition_lib.Acquisition = acquisition_lib.Random(),
  num_sources: int = 500,
  num_candidates: int = 4,
) -> artifact.Artifact:
  """Chooses candidates to be rated.

  Of each source the `num_candidates` different texts of the highest priority, of the
  sources the `num_sources` whose chosen candidates have the highest mean priority.
  Equal priorities are ordered by a hash of the id. Only the policy's own samples are
  chosen; memory holds what is chosen and one shard.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact, such as 'chosen_2'.
    samples: a Grow of the newest policy.
    rewards: what the reward model in use says of them.
    acquisition: of `rewards.acquisition`.
    num_sources, num_candidates: how many at most.

  Returns:
    A group set, which `score` (simulated raters) or `read_ratings` (people) rates.

  Raises:
    ValueError: a number below 1, or no sample to choose from.
  """
  if num_sources < 1 or num_candidates < 1:
    raise ValueError(
      f'num_sources={num_sources} and num_candidates={num_candidates} must be at '
      'least 1'
    )
  params = {
    'acquisition': acquisition,
    'num_sources': num_sources,
    'num_candidates': num_candidates,
  }

  def build(work: artifact.Work) -> None:
    # (priority, tie, place in the set, group); the smallest goes first.
    best: list[tuple[float, int, int, group_store.Group]] = []
    place = 0
    pairs = list(reward_store.paired_shards(samples.path, rewards.path))
    with progress_lib.progress(name, len(pairs), unit='shards') as advance:
      for group_path, reward_path in pairs:
        groups = [_own(group) for group in group_store.read_groups(group_path)]
        values = reward_store.read_rewards(reward_path).for_training()
        kept = [(g, v[i]) for (g, i), v in zip(groups, values, strict=True) if len(i)]
        priorities = acquisition([g for g, _ in kept], [v for _, v in kept])
        for (group, _), priority in zip(kept, priorities, strict=True):
          order = np.argsort(-priority, kind='stable')[:num_candidates]
          mean = float(priority[order].mean())
          entry = (mean, _tie(group), place, group_store.take(group, order))
          place += 1
          if len(best) < num_sources:
            heapq.heappush(best, entry)
          else:
            heapq.heappushpop(best, entry)
        advance(1)
    if not best:
      raise ValueError(f'{samples.name} holds no sample of the policy to choose from')
    chosen = [group for *_, group in sorted(best, key=lambda entry: entry[2])]
    group_store.write_group_set(work.path, chosen)
    paths.write_text_atomic(work.path / FILE, _table(chosen))
    work.results.update(
      sources=len(chosen),
      candidates=sum(len(group.texts) for group in chosen),
      seen_sources=place,
    )

  return run.stage(
    'choose',
    name=name,
    version=VERSION,
    params=params,
    inputs={'samples': samples, 'rewards': rewards},
    build=build,
    size={'sources at most': num_sources, 'candidates each': num_candidates},
  )


def _own(group: group_store.Group) -> tuple[group_store.Group, np.ndarray]:
  """The policy's different texts in a group, and their places."""
  first: dict[str, int] = {}
  for place, (text, origin) in enumerate(zip(group.texts, group.origins, strict=True)):
    if origin == 'model':
      first.setdefault(text, place)
  places = np.array(list(first.values()), np.int64)
  return group_store.take(group, places), places


def _tie(group: group_store.Group) -> int:
  digest = hashlib.blake2b(group.source_id.encode(), digest_size=7).digest()
  return int.from_bytes(digest, 'little')


def _table(groups: list[group_store.Group]) -> str:
  """The file for people: what would break a line of it becomes a space."""
  rows: list[tuple[Any, ...]] = [HEAD]
  for group in groups:
    for text in group.texts:
      rows.append((group.source_id, group.source, text, ''))
  return ''.join('\t'.join(' '.join(str(c).split()) for c in r) + '\n' for r in rows)

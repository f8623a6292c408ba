"""Groups with random contents, and sets of them on disk."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rest_jax.data import group_store, shards


def _make_group(
  number: int,
  samples: int = 3,
  *,
  max_length: int = 9,
  seed: int = 0,
  log_probs: bool = True,
) -> group_store.Group:
  """A group whose candidates all differ: the first token counts them."""
  rng = np.random.default_rng([seed, number])
  tokens = []
  for candidate in range(samples):
    length = int(rng.integers(2, max_length + 1))
    body = rng.integers(3, 60, length).astype(np.int32)
    body[0] = 100 * number + candidate + 3
    body[-1] = 1
    tokens.append(body)
  source = rng.integers(3, 60, int(rng.integers(2, max_length + 1))).astype(np.int32)
  source[0] = number + 3
  source[-1] = 1
  values = tuple(-rng.random(len(t)).astype(np.float32) for t in tokens)
  return group_store.Group(
    source_id=f'train/{number:08d}',
    source=f'Quelle {number}',
    source_tokens=source,
    reference=None if number % 3 == 0 else f'reference {number}',
    texts=tuple(f'candidate {number}.{c} ü' for c in range(samples)),
    tokens=tuple(tokens),
    token_log_probs=values if log_probs else None,
    finished=rng.random(samples) < 0.5,
    origins=tuple('data' if c == 0 else 'model' for c in range(samples)),
    renderings=tuple(f'rendering {i}' for i in range(number % 3)),
  )


@pytest.fixture(scope='session')
def make_group() -> Callable[..., group_store.Group]:
  return _make_group


@pytest.fixture(scope='session')
def write_sets() -> Callable[..., list[np.ndarray]]:
  """Writes groups and random rewards as two sets; returns the rewards."""

  def write(
    folder: Any, groups: list[group_store.Group], num_shards: int = 2
  ) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    rewards = [rng.random(len(g.tokens)).astype(np.float32) for g in groups]
    group_store.write_group_set(folder / 'groups', groups, num_shards=num_shards)
    for index, (start, stop) in enumerate(shards.ranges(len(groups), num_shards)):
      group_store.write_rewards(
        group_store.shard_path(folder / 'rewards', index, num_shards, 'rewards'),
        [group.source_id for group in groups[start:stop]],
        rewards[start:stop],
      )
    return rewards

  return write

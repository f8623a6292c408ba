"""A small study: two policies' samples of a few sources, hostile texts among them.

`python -m tests.annotation.study DATABASE PORT [VIEW [TOKEN]]` serves it, for browser
tests.
"""

import pathlib
import sys
import tempfile

import numpy as np

from rest_jax.annotation import database, guard, items, protocol, server
from rest_jax.data import group_store, reward_store, shards

HOSTILE = '<script>document.title = "owned"</script><img src=x onerror=alert(1)>'
SEED = 3
NUM_SOURCES = 6


def group(index, texts, *, origins=None):
  """A group of the given candidates."""
  count = len(texts)
  return group_store.Group(
    source_id=f'test/{index:08d}',
    source=HOSTILE if index == 0 else f'Quelle {index}',
    source_tokens=np.array([5, 1], np.int32),
    reference=f'reference {index}',
    texts=tuple(texts),
    tokens=tuple(np.array([7, 1], np.int32) for _ in texts),
    token_log_probs=None,
    finished=np.ones(count, bool),
    origins=tuple(origins or ('model',) * count),
  )


def write_system(directory, groups, rewards=None, *, num_shards=2):
  """Writes a group set, and its rewards beside it."""
  group_store.write_group_set(directory, groups, num_shards=num_shards)
  if rewards is None:
    return
  for index, (start, stop) in enumerate(shards.ranges(len(groups), num_shards)):
    reward_store.write_rewards(
      shards.shard_path(directory, index, num_shards, reward_store.KIND),
      [one.source_id for one in groups[start:stop]],
      rewards[start:stop],
    )


def systems(directory, num_sources=NUM_SOURCES):
  """BC and an improved policy, two samples a source; source 1 they give alike."""
  made = []
  for name, word in (('evaluate_bc', 'bad'), ('evaluate_improve_1_1', 'good')):
    groups = []
    for index in range(num_sources):
      first = (
        'the same' if index == 1 else f'{word} {index} {HOSTILE if not index else ""}'
      )
      groups.append(group(index, [first, f'{word} {index} again']))
    rewards = [np.array([0.1 * i, 0.2], np.float32) for i in range(num_sources)]
    write_system(directory / name, groups, rewards)
    made.append(items.System(name, directory / name, directory / name))
  return made


def draw(directory, **options):
  """The study's items."""
  given = {'num_sources': None, 'num_candidates': 1, 'num_shared': 2, 'seed': SEED}
  return items.choose(systems(directory), **(given | options))


def create(directory, **options):
  """A new file of ratings."""
  drawn = draw(directory / 'systems', **options)
  return database.create(directory / 'ratings.sqlite', drawn, {'seed': SEED})


def study(kept, view='side_by_side', **options):
  """The study that a database holds."""
  return server.Study(kept, protocol.Protocol(view=view, **options), seed=SEED)


def main(path, port, view='side_by_side', token=None):
  """Serves the study, making its file at the first start."""
  target = pathlib.Path(path)
  if target.exists():
    kept = database.Database(target)
  else:
    with tempfile.TemporaryDirectory() as folder:
      kept = database.create(target, draw(pathlib.Path(folder)), {'seed': SEED})
  rules = guard.access('127.0.0.1', token, study='test')
  server.serve(
    server.make_app(study(kept, view), rules),
    host='127.0.0.1',
    port=int(port),
    ready=lambda bound: print(bound, flush=True),
  )


if __name__ == '__main__':
  main(*sys.argv[1:])

"""Ends hosts at random moments of every stage, and looks at what is left of the run.

  python -m tests.survival [--hosts=2,4] [--rounds=2] [--seed=0] FOLDER

A round is one MODEL_DIR. For every stage that is not finished the hosts are started
(how many is drawn from --hosts), and at a random moment after the stage has begun one
of them gets SIGKILL, or, one time in three, SIGTERM. When all stages have been
disturbed the run is left to finish, and what it has made is compared with an
undisturbed run of one host. Takes half a minute or more for each stage; the tests do a
few of these. Other flags are handed to rest_jax.main.
"""

import argparse
import pathlib
import random
import signal
import sys
import time

import numpy as np

from rest_jax.data import group_store, reward_store
from tests import minimal_run, several_hosts

# Training on another number of devices sums in another order: rounding of float32.
TOLERANCE = 1e-5
TRAINED = ('bc', 'reward_model', 'improve_', 'online')
LIFE_AFTER_A_DEATH_S = 90  # for the others to notice, and to end
BINDINGS = ('THRESHOLDS = ((0.6,),)',)


def differences(one, two, of=None):
  """What is not equal in two MODEL_DIRs, or in some of their artifacts, in words."""
  found = []
  names, expected = minimal_run.fingerprints(two), minimal_run.fingerprints(one)
  for name in sorted(of or {**names, **expected}):
    if names.get(name) != expected.get(name):
      found.append(f'{name}: fingerprints {names.get(name)} and {expected.get(name)}')
    else:
      found += [f'{name}: {text}' for text in _compare(one, two, name)]
  work = two / '.work'
  if work.exists() and (left := list(work.iterdir())):
    found.append(f'left in .work: {[path.name for path in left]}')
  return found


def _compare(one, two, name):
  if name.startswith(TRAINED):
    left, right = (minimal_run.params(root, name) for root in (one, two))
    for key in left:
      gap = np.abs(left[key] - right[key]).max()
      if not gap <= TOLERANCE:
        yield f'{key} differs by {gap}'
  for kind in ('groups', reward_store.KIND):
    left, right = (sorted((root / name).rglob(f'{kind}-*')) for root in (one, two))
    if [path.name for path in left] != [path.name for path in right]:
      yield f'shards {[path.name for path in left]} and {[p.name for p in right]}'
    same = _same_groups if kind == 'groups' else _same_rewards
    for a, b in zip(left, right, strict=False):
      if not same(a, b):
        yield f'{a.name} differs'
  counted = ('sources', 'candidates', 'data_candidates', 'tokens', 'distinct')
  left, right = (minimal_run.record(root, name)['results'] for root in (one, two))
  for key in counted:
    if left.get(key) != right.get(key):
      yield f'{key}: {left.get(key)} and {right.get(key)}'


def _same_groups(one, two):
  left, right = group_store.read_groups(one), group_store.read_groups(two)
  return len(left) == len(right) and all(
    (a.source_id, a.texts, a.origins) == (b.source_id, b.texts, b.origins)
    and all(
      np.allclose(x, y, atol=TOLERANCE, rtol=0, equal_nan=True)
      for x, y in zip(a.token_log_probs or (), b.token_log_probs or (), strict=True)
    )
    for a, b in zip(left, right, strict=True)
  )


def _same_rewards(one, two):
  left, right = reward_store.read_rewards(one), reward_store.read_rewards(two)
  return left.source_ids == right.source_ids and all(
    np.allclose(x, y, atol=TOLERANCE, rtol=0)
    for x, y in zip(left.rewards, right.rewards, strict=True)
  )


def disturb(hosts, name, after_s, victim, number):
  """Ends one host so long after a stage has begun; returns all exit statuses."""
  end = time.monotonic() + 300
  while f'{name}: started' not in hosts.logs[0].read_text():
    if any(process.poll() is not None for process in hosts.processes):
      raise RuntimeError(f'a host ended before {name} began\n{hosts.printed()}')
    if time.monotonic() > end:
      raise RuntimeError(f'{name} did not begin\n{hosts.printed()}')
    time.sleep(0.05)
  time.sleep(after_s)
  hosts.processes[victim].send_signal(number)
  return hosts.wait(LIFE_AFTER_A_DEATH_S)


def play(folder, undisturbed, counts, rng, flags):
  """One round; returns what was wrong."""
  model_dir = folder / 'run'
  order = sorted(
    minimal_run.fingerprints(undisturbed),
    key=lambda name: minimal_run.record(undisturbed, name)['finished'],
  )
  wrong = []
  for name in order:
    if (model_dir / name).exists():
      continue
    count = rng.choice(counts)
    seconds = minimal_run.record(undisturbed, name)['cost']['seconds']
    after_s = rng.uniform(0, 1.5 * seconds + 0.5)
    victim = rng.randrange(count)
    number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
    hosts = several_hosts.Hosts(
      folder / f'at_{name}', model_dir, count, *flags, bindings=BINDINGS
    )
    statuses = disturb(hosts, name, after_s, victim, number)
    print(
      f'{name}: {number.name} to host {victim} of {count} after {after_s:.2f} s; '
      f'ended with {statuses}',
      flush=True,
    )
    if number == signal.SIGTERM and set(statuses) not in ({143}, {0}):
      wrong.append(f'{name}: SIGTERM ended the hosts with {statuses}')
      print(hosts.printed())
  count = rng.choice(counts)
  several_hosts.run(folder / 'rest', model_dir, count, *flags, bindings=BINDINGS)
  return wrong + differences(undisturbed, model_dir)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--hosts', default='2,4')
  parser.add_argument('--rounds', type=int, default=1)
  parser.add_argument('--seed', type=int, default=0)
  given, flags = parser.parse_known_args()
  counts = [int(count) for count in given.hosts.split(',')]
  rng = random.Random(given.seed)
  undisturbed = given.folder / 'undisturbed' / 'run'
  if not (undisturbed / 'report').exists():
    several_hosts.run(undisturbed.parent, undisturbed, 1, *flags, bindings=BINDINGS)
  wrong = []
  for index in range(given.rounds):
    print(f'round {index}', flush=True)
    folder = given.folder / f'seed_{given.seed}_round_{index}'
    found = play(folder, undisturbed, counts, rng, flags)
    print('\n'.join(found) or 'the same as undisturbed', flush=True)
    wrong += found
  return 1 if wrong else 0


if __name__ == '__main__':
  sys.exit(main())

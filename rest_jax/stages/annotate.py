"""Annotate: people rate what policies made of held-out sources, or a Grow's samples.

Not a stage that makes an artifact: it serves a page from what the run holds already,
and keeps ratings in one SQLite file (`annotation.database`) until someone stops it.
`stages/human_evaluation.py` reads that file. Where a refresh waits for ratings, the
page is of the samples that it chose, and the ratings are written where it looks.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

from rest_jax import paths
from rest_jax.annotation import database as database_lib
from rest_jax.annotation import exports, guard, items, server
from rest_jax.annotation import protocol as protocol_lib
from rest_jax.stages import artifact
from rest_jax.stages import fingerprint as fingerprint_lib
from rest_jax.stages import progress as progress_lib

DATABASE_FILE = 'annotation.sqlite'
RATED_STAGES = ('evaluate', 'grow', 'choose')  # whose samples people may rate


def annotate(
  run: artifact.Run,
  *,
  systems: Sequence[str] = (),
  database: str | None = None,
  num_sources: int | None = 100,
  num_candidates: int | None = 1,
  num_shared_sources: int = 20,
  min_rated: int | None = None,
  protocol: protocol_lib.Protocol = protocol_lib.Protocol(),
  seed: int = 0,
  host: str = '127.0.0.1',
  port: int = 8765,
  token: str | None = None,
) -> None:
  """Serves the page until Ctrl-C.

  The first start draws the sources and writes the file; later ones go on with it.

  Args:
    run: a run whose stages have been looked up (`run.history`).
    systems: group sets of the run to rate, side by side: 'evaluate_bc' (samples of a
      policy), 'evaluate_bc/greedy' (its greedy outputs), 'grow_1', 'chosen_2'. None
      named takes what a refresh waits for (`run.awaited`); or else the samples of
      every evaluation that is finished at the first start.
    database: the file; None is MODEL_DIR/annotation.sqlite, and of what a refresh
      waits for MODEL_DIR/chosen_<g>.sqlite.
    num_sources, num_candidates: how much of each system, see `items.choose`. What a
      refresh waits for is rated whole.
    num_shared_sources: how many of the sources every rater gets first, so that raters
      can be compared before any has finished.
    min_rated: how many candidates must be rated for a refresh to go on; None: all.
    protocol: what raters are told and shown.
    seed: of the sources drawn and of each rater's order.
    host, port: where to listen; port 0 takes a free one.
    token: that raters have to show; None makes one up unless `host` is loopback.

  Raises:
    ValueError: a system that is not there, a file of another study, an address that
      cannot be listened on.
  """
  awaited = run.awaited
  if awaited is not None and tuple(systems) in ((), (awaited.samples.name,)):
    systems = (awaited.samples.name,)
    num_sources = num_candidates = None
    database = database or str(run.model_dir / f'{awaited.samples.name}.sqlite')
  else:
    awaited = None
  path = database_path(run, database)
  kept = database_lib.Database(path) if path.exists() else None
  # Evaluations that came later do not change a study that has begun.
  names = systems or (list(kept.identity['systems']) if kept else _evaluations(run))
  chosen = [_system(run, name) for name in names]
  identity = {
    'systems': {system.name: print_ for system, print_ in chosen},
    'num_sources': num_sources,
    'num_candidates': num_candidates,
    'num_shared_sources': num_shared_sources,
    'protocol': protocol.identity(),
    'seed': seed,
  }
  if kept is not None:
    changed = fingerprint_lib.differences(kept.identity, identity)
    if changed:
      raise ValueError(
        f'{path} holds ratings of another study: {"; ".join(changed)}. Restore the '
        'settings, or begin another file with ANNOTATION_DATABASE'
      )
  else:
    drawn = items.choose(
      [system for system, _ in chosen],
      num_sources=num_sources,
      num_candidates=num_candidates,
      num_shared=num_shared_sources,
      seed=seed,
    )
    kept = database_lib.create(path, drawn, identity)
  rules = guard.access(host, token, study=items.digest(str(path.resolve())))
  study = server.Study(kept, protocol, seed=seed)
  with contextlib.ExitStack() as ending:

    def ready(bound_port: int) -> None:
      print(_address(host, bound_port, rules), flush=True)
      print(f'ratings: {path}; Ctrl-C stops, the same command goes on', flush=True)
      if awaited is not None:
        print(f'once all is rated, Ctrl-C writes {awaited.file}', flush=True)
        ending.callback(_export, kept, awaited.file, min_rated)

    server.serve(server.make_app(study, rules), host=host, port=port, ready=ready)


def database_path(run: artifact.Run, database: str | None) -> Any:
  """The file of ratings that a run uses.

  Raises:
    ValueError: it would lie on an object store.
  """
  return database_lib.local_file(database or run.model_dir / DATABASE_FILE)


def _export(kept: database_lib.Database, file: str, min_rated: int | None) -> None:
  """Writes the ratings that a refresh waits for, once there are enough of them."""
  items, ratings = kept.items(), kept.ratings()
  total = sum(len(source.candidates) for source in items.sources)
  rated = len({rating.candidate_id for rating in ratings})
  needed = total if min_rated is None else min(min_rated, total)
  told = f'{rated:,} of {total:,} candidates are rated'
  if paths.as_path(file).exists():
    progress_lib.say(f'{told}; {file} is there already and was left as it is')
  elif rated < max(needed, 1):
    progress_lib.say(
      f'{told}; {file} is written when {needed:,} are (ANNOTATION_MIN_RATED), and the '
      'page is stopped'
    )
  else:
    exports.write_jsonl(file, items, ratings)
    progress_lib.say(
      f'{told}; wrote {len(ratings):,} ratings to {file}: the run goes on by its own '
      'command. To rate more first, remove that file and serve the page again'
    )


def _address(host: str, port: int, rules: guard.Access) -> str:
  """What to open."""
  shown = f'[{host}]' if ':' in host and not host.startswith('[') else host
  if shown in ('0.0.0.0', '[::]'):
    shown = '<this machine>'
  query = '' if rules.token is None else f'?token={rules.token}'
  return f'rate at http://{shown}:{port}/{query}'


def _evaluations(run: artifact.Run) -> list[str]:
  """The finished evaluations of a run."""
  found = [
    entry.artifact.name
    for entry in run.history
    if entry.artifact.stage == 'evaluate' and entry.artifact.finished
  ]
  if not found:
    raise ValueError(
      f'{run.model_dir} has no finished evaluation to rate: --run_mode=rest makes '
      'them; ANNOTATION_SYSTEMS may name a Grow in their place'
    )
  return found


def _system(run: artifact.Run, name: str) -> tuple[items.System, str]:
  """The system of a name such as 'evaluate_bc/greedy', and a fingerprint for it."""
  finished = {e.artifact.name: e.artifact for e in run.history if e.artifact.finished}
  owner, _, folder = name.partition('/')
  if owner not in finished:
    known = sorted(n for n, a in finished.items() if a.stage in RATED_STAGES)
    raise ValueError(
      f'ANNOTATION_SYSTEMS names {owner!r}, which is not a finished artifact of '
      f'{run.model_dir}; there are {", ".join(known) or "none"}'
    )
  made = finished[owner]
  rewards: paths.PathLike | None = None
  if not folder:
    if made.stage == 'evaluate':
      rewards = made.path
    scores = [
      a.path
      for a in finished.values()
      if a.stage == 'score' and a.record['input_names'].get('samples') == owner
    ]
    rewards = scores[0] if scores else rewards
  directory = made.path / folder if folder else made.path
  return items.System(name, directory, rewards), made.fingerprint

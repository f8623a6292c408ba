r"""The command line of studies.

    python -m rest_jax.experiments --study=gin_configs/experiments/losses.gin \
        --gin_file=gin_configs/runs/local.gin --gin.MODEL_DIR="'runs/losses'" \
        --seeds=0,1,2

A study is a gin file that binds `study.study.variants`: for each variant's name the gin
files and bindings that are read after those of the command line. In
bindings '{seed}' stands for the seed: --gin.REUSE_FROM="('runs/seed_{seed}',)". The
table is printed and written to MODEL_DIR as study.md and study.json.
"""

import sys
from collections.abc import Sequence

from absl import app, flags

from rest_jax import main
from rest_jax.experiments import study

_STUDY = flags.DEFINE_string('study', None, 'Gin file that binds the variants.')
_SEEDS = flags.DEFINE_list('seeds', ['0'], 'Comma-separated values of RANDOM_SEED.')


def _main(argv: Sequence[str]) -> int:
  """Parses the flags and runs; a user's mistake ends in one clear sentence."""
  values = flags.FLAGS
  try:
    if len(argv) > 1:
      raise ValueError(f'unknown arguments {argv[1:]}: see --help')
    if not _STUDY.value or not values.gin_file:
      raise ValueError(
        'give --study=gin_configs/experiments/losses.gin, or another study, and the '
        'run that it varies: --gin_file=gin_configs/runs/local.gin'
      )
    if not all(seed.strip().isdecimal() for seed in _SEEDS.value):
      raise ValueError(f'--seeds={",".join(_SEEDS.value)} must be whole numbers: 0,1,2')
    return study.run_study(
      _STUDY.value,
      values.gin_file,
      values.gin_bindings,
      values.gin_search_paths,
      [int(seed) for seed in _SEEDS.value],
      dry_run=values.dry_run,
    )
  except (ValueError, TypeError, OSError) as error:
    return main.fail(error)
  except KeyboardInterrupt:
    print('\nstopped; the same command goes on from here', file=sys.stderr)
    return 130


if __name__ == '__main__':
  try:
    arguments = main.rewrite_gin_args(sys.argv)
  except ValueError as mistake:
    sys.exit(main.fail(mistake))
  app.run(_main, argv=arguments)

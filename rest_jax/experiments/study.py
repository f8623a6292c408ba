"""Studies: variants of one run, for several seeds.

Every variant is a run of its own in MODEL_DIR/<variant>/seed_<seed>, which reuses what
the variants before it have made of the same inputs: corpus, BC, reward model and the
first Grow are made once a seed. Started again, a study goes on where it was stopped.
"""

import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import gin

from rest_jax import main, paths
from rest_jax.experiments import table


@dataclasses.dataclass(frozen=True)
class Variant:
  """A name, and what is read after the command line's files and bindings."""

  name: str
  files: tuple[str, ...]
  bindings: tuple[str, ...]

  @property
  def folder(self) -> str:
    """The name as a directory: 'GOLD (product)' -> 'gold_product'."""
    return re.sub(r'[^a-z0-9.=]+', '_', self.name.lower()).strip('_')


def study(
  variants: Mapping[str, Sequence[str]],
  rows: str = 'all',
) -> tuple[list[Variant], str]:
  """What a study file binds.

  Args:
    variants: for each name gin files, and bindings such as 'NUM_SAMPLES = 16'.
    rows: 'all' policies of a variant, or its 'last' alone.

  Raises:
    ValueError: no variant, two that share a folder, or another `rows`.
  """
  found = [
    Variant(
      name,
      files=tuple(item for item in items if item.endswith('.gin')),
      bindings=tuple(item for item in items if not item.endswith('.gin')),
    )
    for name, items in variants.items()
  ]
  folders = [variant.folder for variant in found]
  if not found or len(set(folders)) < len(folders):
    raise ValueError(
      f'study.study.variants must name at least one variant, each with a folder '
      f'of its own: {dict(zip(variants, folders, strict=True))}'
    )
  if rows not in ('all', 'last'):
    raise ValueError(f"study.study.rows={rows!r} must be 'all' or 'last'")
  return found, rows


def run_study(
  study_file: str,
  files: Sequence[str],
  bindings: Sequence[str],
  search_paths: Sequence[str],
  seeds: Sequence[int],
  *,
  dry_run: bool = False,
) -> int:
  """Runs every variant for every seed and writes the table; the exit status.

  Args:
    study_file: binds `study.study.variants`.
    files: the run that the variants vary.
    bindings: read after them; in these and the variants' '{seed}' stands for the seed.
    search_paths: where gin files are looked for.
    seeds: RANDOM_SEED of each run.
    dry_run: print the plans and build nothing.
  """
  main.parse_gin([study_file], [], search_paths)
  variants, rows = gin.get_configurable(study)()
  main.parse_gin(files, bindings, search_paths)
  root = paths.as_path(gin.query_parameter('MODEL_DIR/macro.value'))
  records: list[dict[str, Any]] = []
  failures: dict[str, str] = {}
  for seed in seeds:
    made: list[str] = []
    common = _of_seed(bindings, seed)
    main.parse_gin(files, common, search_paths)
    reuse = tuple(gin.query_parameter('REUSE_FROM/macro.value'))
    for variant in variants:
      directory = root / variant.folder / f'seed_{seed}'
      print(f'study: {variant.name}, seed {seed}: {directory}', flush=True)
      sources = (*made, *reuse)
      own = [
        f'MODEL_DIR = {str(directory)!r}',
        f'REUSE_FROM = {sources!r}',
        f'RANDOM_SEED = {seed}',
      ]
      try:
        main.parse_gin(files, common, search_paths)
        main.parse_more(variant.files, [*_of_seed(variant.bindings, seed), *own])
        main.require_macros()
        main.run('rest', dry_run=dry_run)
      except (ValueError, FloatingPointError) as error:
        failures[f'{variant.name}, seed {seed}'] = main.plain_message(error)
        print(f'study: {variant.name}, seed {seed} failed: {error}', file=sys.stderr)
      else:
        made.append(str(directory))
        if not dry_run:
          records += table.policies_of(variant.name, seed, directory, sources)
      if not dry_run:
        table.write(root, [v.name for v in variants], records, failures, rows)
  if not dry_run:
    print((root / 'study.md').read_text())
  for name, message in failures.items():
    print(f'study: {name} failed: {message}', file=sys.stderr)
  return 1 if failures else 0


def _of_seed(bindings: Sequence[str], seed: int) -> list[str]:
  """The bindings with the seed in place of '{seed}'."""
  return [binding.replace('{seed}', str(seed)) for binding in bindings]

"""The table of a study: a row for each policy of each variant.

Where there are several seeds, ± is the standard deviation over them; with one, half of
the 95 % bootstrap interval over sources.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from rest_jax import paths
from rest_jax.experiments import figure
from rest_jax.report import outcome

# Results of the table: key of summary.json's policies, head, digits.
COLUMNS = (
  ('kept_fraction', 'kept', 2),
  ('reward_mean', 'reward', 3),
  ('gold_mean', 'gold', 3),
  ('bleu', 'BLEU', 1),
  ('chrf', 'chrF', 1),
  ('kl_to_bc', 'KL', 2),
  ('length_ratio', 'length', 2),
  ('distinct_2', 'distinct-2', 3),
  ('device_seconds', 'device s', 0),
)
INTERVALS = {
  'reward_mean': 'reward_interval',
  'gold_mean': 'gold_interval',
  'bleu': 'bleu_interval',
  'chrf': 'chrf_interval',
  'kl_to_bc': 'kl_interval',
}
# Inputs of a policy that its training needs and that all variants share.
SHARED_STAGES = ('ingest', 'supervise', 'train_reward')
# Inputs that only fix the scale of the rewards.
SCALES = ('first_rewards', 'normaliser_from')


def policies_of(
  variant: str, seed: int, directory: epath.Path, reused: Sequence[str]
) -> list[dict[str, Any]]:
  """The policies of a finished run, with what each cost beyond BC."""
  summary = paths.read_json(directory / 'report' / 'summary.json')
  roots = [directory, *(paths.as_path(path) for path in reused)]
  return [
    {
      'variant': variant,
      'seed': seed,
      **policy,
      'device_seconds': device_seconds(policy['artifact'], roots),
    }
    for policy in summary['policies']
  ]


def device_seconds(artifact: str, roots: Sequence[epath.Path]) -> float:
  """Device time of all stages that a policy needed, beyond BC and the reward model.

  A stage that several variants share is counted whole for each of them, as if each had
  been run alone. The Grow whose rewards only fix the scale is not counted.
  """
  done: dict[str, float] = {}

  def visit(name: str, fingerprint: str | None) -> None:
    for root in roots:
      file = root / name / 'stage.json'
      if file.exists():
        record = paths.read_json(file)
        if fingerprint in (None, record['fingerprint']):
          break
    else:
      raise ValueError(f'no finished {name} in {", ".join(map(str, roots))}')
    if record['stage'] in SHARED_STAGES or record['fingerprint'] in done:
      return
    done[record['fingerprint']] = record['cost']['device_seconds'] or 0.0
    for key, below in record['input_names'].items():
      if key not in SCALES:
        visit(below, record['inputs'][key])

  visit(artifact, None)
  return sum(done.values())


def write(
  root: epath.Path,
  variants: Sequence[str],
  records: Sequence[Mapping[str, Any]],
  failures: Mapping[str, str],
  rows: str,
) -> None:
  """Writes study.json, study.md and study.svg."""
  found = {'policies': list(records), 'failures': dict(failures)}
  paths.write_json_atomic(root / 'study.json', found)
  lines = [*markdown(variants, records, rows), '', *findings(variants, records)]
  lines += [f'\n{name} failed: {message}' for name, message in failures.items()]
  paths.write_text_atomic(root / 'study.md', '\n'.join(lines) + '\n')
  if records:
    paths.write_text_atomic(root / 'study.svg', figure.draw(variants, records))


def findings(
  variants: Sequence[str], records: Sequence[Mapping[str, Any]]
) -> list[str]:
  """Where each variant's gold is highest, and where it parts from the reward."""
  lines = []
  for variant in variants:
    mine = [record for record in records if record['variant'] == variant]
    for seed in dict.fromkeys(record['seed'] for record in mine):
      policies = [record for record in mine if record['seed'] == seed]
      best = max(policies, key=lambda policy: policy['gold_mean'])
      line = (
        f'- {variant}, seed {seed}: gold is highest at {best["name"]}, '
        f'{best["gold_mean"]:.3f}, and {policies[-1]["gold_mean"]:.3f} at the last.'
      )
      parted = outcome.over_optimisation(policies)
      lines.append(' '.join([line, *(finding.sentence for finding in parted)]))
  return lines


def markdown(
  variants: Sequence[str], records: Sequence[Mapping[str, Any]], rows: str
) -> list[str]:
  """The table's lines: BC once, then the policies of each variant."""
  head = ['variant', 'policy', 'seeds', *(label for _, label, _ in COLUMNS)]
  lines = [f'| {" | ".join(head)} |', '|' + '---|' * len(head)]
  groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
  for record in records:
    base = record.get('grow') == 0
    key = ('BC', '') if base else (record['variant'], record['name'])
    group = groups.setdefault(key, [])
    # BC is the same in every variant of a seed.
    if not base or record['seed'] not in {one['seed'] for one in group}:
      group.append(record)
  for variant in ('BC', *variants):
    names = [name for owner, name in groups if owner == variant]
    for name in names if rows == 'all' else names[-1:]:
      group = groups[variant, name]
      cells = [_cell(group, key, digits) for key, _, digits in COLUMNS]
      lines.append(f'| {" | ".join([variant, name, str(len(group)), *cells])} |')
  return lines


def _cell(group: Sequence[Mapping[str, Any]], key: str, digits: int) -> str:
  """Mean over seeds, with the spread: see the module."""
  values = [one[key] for one in group if one.get(key) is not None]
  if not values:
    return '-'
  text = f'{np.mean(values):.{digits}f}'
  if len(values) > 1:
    return f'{text} ± {np.std(values, ddof=1):.{digits}f}'
  bounds = group[0].get(INTERVALS.get(key, ''))
  return f'{text} ± {(bounds[1] - bounds[0]) / 2:.{digits}f}' if bounds else text

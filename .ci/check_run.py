"""Checks what a finished run left behind, and that a second start reused it.

    python .ci/check_run.py RUN --remember FILE    after the first start
    python .ci/check_run.py RUN --unchanged FILE   after the second

The first call writes to FILE when each stage was published; the second requires
that no stage was added, removed or published again. The report alone is: it lists
what was reused, which the second call requires of every stage.
"""

import argparse
import json
import math
import pathlib
import sys
from typing import Any

# Of every evaluated policy; the reward model is a proxy, so gold is here too.
MEASURES = (
  'reward_mean',
  'gold_mean',
  'bleu',
  'chrf',
  'length_ratio',
  'distinct_2',
  'copy_rate',
  'kl_to_bc',
)
STAGES = {
  'ingest',
  'supervise',
  'train_reward',
  'grow',
  'score',
  'improve',
  'evaluate',
  'report',
}


def published(run: pathlib.Path) -> dict[str, int]:
  """For each finished artifact but the report, when stage.json was written (ns)."""
  return {
    path.parent.name: path.stat().st_mtime_ns
    for path in run.glob('*/stage.json')
    if path.parent.name != 'report'
  }


def reuse_problems(
  run: pathlib.Path, before: dict[str, int], after: dict[str, int]
) -> list[str]:
  """What the second start built again, in sentences."""
  problems = []
  names = sorted({*before, *after})
  if changed := [name for name in names if before.get(name) != after.get(name)]:
    problems.append(f'the second start built again instead of reusing: {changed}')
  summary = json.loads((run / 'report' / 'summary.json').read_text(encoding='utf-8'))
  stages = summary.get('stages') or []
  if built := [stage['name'] for stage in stages if not stage['reused']]:
    problems.append(f'the second report says that these were not reused: {built}')
  return problems


def summary_problems(summary: dict[str, Any]) -> list[str]:
  """What is missing from summary.json, in sentences; empty when all is there."""
  problems = []
  policies = summary.get('policies') or []
  steps = [(policy.get('grow'), policy.get('improve')) for policy in policies]
  if (0, 0) not in steps or not any(grow and improve for grow, improve in steps):
    problems.append(f'policies {steps} lack BC (0, 0) or any Improve step')
  for policy in policies:
    for measure in MEASURES:
      value = policy.get(measure)
      if not isinstance(value, int | float) or not math.isfinite(value):
        problems.append(f'{policy.get("name")!r}: {measure} is {value!r}')
  if not problems and not any(_better(policy, policies[0]) for policy in policies):
    problems.append('no Improve raises both reward_mean and gold_mean over BC')
  for key in ('grows', 'stages'):
    if not summary.get(key):
      problems.append(f'{key} is {summary.get(key)!r}')
  stages = {stage.get('stage') for stage in summary.get('stages') or []}
  # The report is being written when the summary lists what was done before it.
  if missing := STAGES - {'report'} - stages:
    problems.append(f'stages lack {sorted(missing)}')
  return problems


def _better(policy: dict[str, Any], bc: dict[str, Any]) -> bool:
  return all(policy[measure] > bc[measure] for measure in ('reward_mean', 'gold_mean'))


def run_problems(run: pathlib.Path) -> list[str]:
  """What is wrong with the run's folder, in sentences."""
  summary_file, page = run / 'report' / 'summary.json', run / 'report' / 'report.html'
  if not summary_file.is_file():
    return [f'{summary_file} is missing']
  problems = summary_problems(json.loads(summary_file.read_text(encoding='utf-8')))
  if not page.is_file() or '</html>' not in page.read_text(encoding='utf-8'):
    problems.append(f'{page} is missing or cut short')
  records = [json.loads(path.read_text()) for path in run.glob('*/stage.json')]
  if missing := STAGES - {record['stage'] for record in records}:
    problems.append(f'no finished artifact of the stages {sorted(missing)}')
  return problems


def main() -> int:
  """Returns the exit status: 0 where nothing is wrong."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('run', type=pathlib.Path)
  mode = parser.add_mutually_exclusive_group(required=True)
  mode.add_argument('--remember', type=pathlib.Path)
  mode.add_argument('--unchanged', type=pathlib.Path)
  args = parser.parse_args()
  problems = run_problems(args.run)
  stages = published(args.run)
  if args.remember:
    args.remember.write_text(json.dumps(stages))
  else:
    before = json.loads(args.unchanged.read_text())
    if not problems:
      problems = reuse_problems(args.run, before, stages)
  for problem in problems:
    print(f'check_run: {problem}', file=sys.stderr)
  if not problems:
    print(f'check_run: {len(stages)} artifacts and the report are as they must be')
  return 1 if problems else 0


if __name__ == '__main__':
  sys.exit(main())

"""What a run would do, and what it did: the plan and its outcome in words."""

from collections.abc import Collection

from rich import console as rich_console
from rich import table as rich_table

from rest_jax import paths
from rest_jax.report import table as report_table
from rest_jax.stages import artifact

# The gin file that brings the stages of a mode, where it is not the run's own.
MODE_FILES = {
  'best_of_n': 'gin_configs/best_of_n.gin',
  'choose': 'gin_configs/refresh.gin',
  'export': 'gin_configs/export.gin',
  'human_evaluation': 'gin_configs/annotate.gin',
  'online': 'gin_configs/experiments/algorithms/grpo.gin',
  'probe': 'gin_configs/probe.gin',
  'train_value': 'gin_configs/value.gin',
}
PLAN_WIDTH = 110  # columns, where the output is not a terminal


def print_plan(run: artifact.Run) -> None:
  """Prints every stage of the run, what would become of it, and its size."""
  table = rich_table.Table(title=f'plan for {run.model_dir}')
  for column in ('artifact', 'stage', 'outcome', 'size'):
    table.add_column(column, overflow='fold')
  for entry in run.history:
    outcome = {'planned': 'to build'}.get(entry.outcome, entry.outcome)
    size = ', '.join(f'{key} {_number(value)}' for key, value in entry.size.items())
    table.add_row(entry.artifact.name, entry.artifact.stage, outcome, size)
  console().print(table)
  mesh = dict(run.mesh.shape)
  console().print(f'mesh {mesh} of {run.mesh.size} {run.mesh.devices.flat[0].platform}')


def require_progress(run: artifact.Run, mode: str, only: Collection[str]) -> None:
  """Raises ValueError where a mode could build nothing of its kind.

  Raises:
    ValueError: no stage of the mode is finished; the message names the stages
      that have to come first, or says that the run has none of the kind.
  """
  finished = [e for e in run.history if e.artifact.finished]
  if any({e.artifact.stage, e.artifact.name} & set(only) for e in finished):
    return
  missing = [e.artifact for e in run.history if e.outcome == 'planned']
  before = []
  for planned in missing:
    if {planned.stage, planned.name} & set(only):
      break
    before.append(f'{planned.name} ({planned.stage})')
  else:
    file = MODE_FILES.get(mode)
    hint = f'; it comes with another --gin_file={file}' if file else ''
    raise ValueError(f'--run_mode={mode}: this run has no stage of the kind{hint}')
  raise ValueError(
    f'--run_mode={mode} can build nothing yet in {run.model_dir}: not finished '
    f'before it: {", ".join(before)}. Run those modes first, or --run_mode=rest'
  )


def print_result(report: artifact.Artifact) -> None:
  """Prints the table of a finished report."""
  summary = paths.read_json(report.path / 'summary.json')
  report_table.print_table(summary, report_path=str(report.path / 'report.html'))


def _number(value: object) -> str:
  return f'{value:,}' if isinstance(value, int) else str(value)


def console() -> rich_console.Console:
  """What plans are printed on: the terminal, or plain lines of PLAN_WIDTH."""
  found = rich_console.Console()
  return found if found.is_terminal else rich_console.Console(width=PLAN_WIDTH)

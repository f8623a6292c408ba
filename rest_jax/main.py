r"""The gin command line: T5X's flags and macros, ReST's run modes.

    python -m rest_jax.main --gin_file=gin_configs/runs/local.gin \
        --gin.MODEL_DIR="'runs/local'"

`--run_mode=rest` runs the whole of ALGORITHM, Algorithm 1 unless a gin file says
otherwise; every other mode builds the stages of that kind only, from what MODEL_DIR
already holds. `--dry_run` prints the plan.
"""

import contextlib
import difflib
import errno
import os
import pathlib
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gin
from absl import app, flags, logging
from gin import resource_reader

from rest_jax import t5x_names
from rest_jax.planning import tpu

if TYPE_CHECKING:
  from rest_jax.stages import artifact

# For each mode the kinds of stages, or names of artifacts, that it may build.
RUN_MODES: dict[str, frozenset[str] | None] = {
  'rest': None,
  'ingest': frozenset({'ingest'}),
  'supervise': frozenset({'ingest', 'supervise'}),
  'train_reward': frozenset({'rating_samples', 'ratings', 'train_reward'}),
  'probe': frozenset({'probe'}),
  'grow': frozenset({'grow'}),
  'score': frozenset({'score'}),
  'choose': frozenset({'choose'}),
  'train_value': frozenset({'train_value'}),
  'improve': frozenset({'improve'}),
  'evaluate': frozenset({'evaluate'}),
  'online': frozenset({'online'}),
  'best_of_n': frozenset({'best_of_n'}),
  'doctor': frozenset(),  # builds nothing: looks at the machines
  'annotate': frozenset(),  # builds nothing: serves a page on what is finished
  'human_evaluation': frozenset({'human_evaluation', 'report'}),
  'export': frozenset({'export'}),
  'report': frozenset({'report'}),
  'precompile': frozenset(),  # builds nothing: compiles for --topology
}
CACHE_DIR = '~/.cache/rest_jax/xla'  # compiled programs, shared by all runs
# Where gin files are looked for besides --gin_search_paths.
GIN_ROOTS = (pathlib.Path(__file__).parent.parent, pathlib.Path(__file__).parent)
_NO_SPACE = os.strerror(errno.ENOSPC)  # as libraries quote it
_GIN_ERRORS = (ValueError, SyntaxError, ImportError, AttributeError, NameError)

_GIN_FILE = flags.DEFINE_multi_string(
  'gin_file', None, 'Gin file to read; may be given several times, later ones win.'
)
_GIN_BINDINGS = flags.DEFINE_multi_string(
  'gin_bindings', [], "A gin binding, as MODEL_DIR='runs/a'; also --gin.NAME=VALUE."
)
_GIN_SEARCH_PATHS = flags.DEFINE_list(
  'gin_search_paths', ['.'], 'Comma-separated directories to look for gin files in.'
)
_RUN_MODE = flags.DEFINE_string(
  'run_mode', 'rest', f'What to run: {", ".join(RUN_MODES)}.'
)
_DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Print the plan (stages, what is reused, sizes); build nothing.'
)
_TOPOLOGY = flags.DEFINE_string(
  'topology', None, 'For precompile: a TPU topology, such as v5p:8x8x16. Needs no TPU.'
)
_TUNE = flags.DEFINE_bool(
  'tune', False, 'For precompile: rank meshes and batch sizes on the topology instead.'
)
_TUNE_MESHES = flags.DEFINE_integer(
  'tune_meshes', 6, 'For --tune: how many meshes to compile.'
)
_PRECOMPILE_JSON = flags.DEFINE_string(
  'precompile_json', None, 'For precompile: a file to write the figures to as well.'
)
_TFDS_DATA_DIR = flags.DEFINE_string(
  'tfds_data_dir', None, 'Where TensorFlow Datasets keeps its data sets.'
)
_MULTIHOST = flags.DEFINE_bool(
  'multihost', False, 'Join the other hosts, as found from the cluster.'
)
flags.DEFINE_alias('multiprocess_gpu', 'multihost')  # T5X's name of it
_COORDINATOR_ADDRESS = flags.DEFINE_string(
  'coordinator_address', None, 'host:port of the first host; with the two below.'
)
_PROCESS_COUNT = flags.DEFINE_integer('process_count', None, 'How many hosts.')
_PROCESS_INDEX = flags.DEFINE_integer('process_index', None, 'Which of them this is.')
_HOST_TIMEOUT_S = flags.DEFINE_float(
  'host_timeout_s', 1800.0, 'A host that does not advance for so long ends the run.'
)
_HEARTBEAT_TIMEOUT_S = flags.DEFINE_integer(
  'heartbeat_timeout_s', 100, 'A host that is not heard of for so long has died.'
)


def rewrite_gin_args(args: Sequence[str]) -> list[str]:
  """Turns T5X's --gin.NAME=VALUE into --gin_bindings=NAME=VALUE."""
  pattern = re.compile(r'^--gin\.([^=]+)=(.*)$', re.DOTALL)
  rewritten = []
  for arg in args:
    match = pattern.match(arg)
    if match:
      rewritten.append(f'--gin_bindings={match.group(1)} = {match.group(2)}')
    elif arg.startswith('--gin.'):
      raise ValueError(f'{arg!r} binds nothing: write --gin.NAME=VALUE')
    else:
      rewritten.append(arg)
  return rewritten


def parse_gin(
  files: Sequence[str], bindings: Sequence[str], search_paths: Sequence[str] = ('.',)
) -> None:
  """Reads gin files and bindings into gin's global state, cleared first.

  Raises:
    ValueError: a file that is not there, a macro that no file defines, or a
      binding that gin cannot make sense of.
  """
  gin.clear_config()
  gin.config._FILE_READERS[1:] = [(resource_reader.system_path_reader, _in_package)]
  for path in [*search_paths, *(str(root) for root in GIN_ROOTS)]:
    gin.add_config_file_search_path(path)
  parse_more(files, bindings)


def parse_more(files: Sequence[str], bindings: Sequence[str]) -> None:
  """Reads files, then bindings, after what was read before; errors as `parse_gin`."""
  for file in files:
    try:
      parsed = gin.parse_config_file(file)
    except OSError as error:
      raise ValueError(_unknown_file(file, error)) from error
    except _GIN_ERRORS as error:
      advice = t5x_names.advice(str(error))
      raise ValueError(f'gin file {file}: {_located(advice, error)}') from error
    if _imports_t5x(parsed):  # it is installed, and what the file binds does nothing
      raise ValueError(f'gin file {file} imports t5x: {t5x_names.OWN_FILES}')
  known = _macros()
  for binding in bindings:
    macro = binding.partition('=')[0].strip()
    if macro in t5x_names.MACROS and macro not in known:
      raise ValueError(f"{macro} is a macro of T5X's: {t5x_names.MACROS[macro]}")
    try:
      gin.parse_config(binding)
    except _GIN_ERRORS as error:
      advice = t5x_names.advice(binding)
      raise ValueError(f'--gin_bindings={binding!r}: {advice or error}') from error
    for macro in sorted(_macros() - known):
      near = difflib.get_close_matches(macro, known, n=3) or sorted(known)
      raise ValueError(
        f'no gin file of this run defines the macro {macro}, so setting it would '
        f'change nothing; did you mean {", ".join(near)}?'
      )
  for macro in sorted(known & t5x_names.MACROS.keys()):
    # A file may define any macro; one of T5X's that nothing reads is a mistake.
    if not re.search(rf'%{macro}\b', gin.config_str()):
      raise ValueError(
        f"a gin file of this run sets T5X's macro {macro}, which nothing reads: "
        f'{t5x_names.MACROS[macro]}'
      )


def require_macros() -> None:
  """Raises ValueError where a macro that has no default was not set."""
  missing = sorted(
    name
    for (name, selector), bound in gin.config._CONFIG.items()
    if selector == 'gin.macro' and str(bound.get('value')) == '%gin.REQUIRED'
  )
  if missing:
    raise ValueError(
      f'{", ".join(missing)} must be set, in the run file or as '
      + ' '.join(f'--gin.{name}=...' for name in missing)
    )


def run(run_mode: str, *, dry_run: bool) -> int:
  """Runs the parsed gin configuration; returns the exit status."""
  # Imported here so that --help and a wrong flag answer at once.
  from rest_jax.planning import tables
  from rest_jax.stages import artifact, lock, plan, progress
  from rest_jax.training import events, hosts

  logging.set_verbosity(logging.WARNING)
  events.enable_compilation_cache(CACHE_DIR)
  if run_mode not in RUN_MODES:
    known = f'choose {", ".join(RUN_MODES)}'
    if run_mode in t5x_names.RUN_MODES:
      known = f"it is T5X's; {t5x_names.RUN_MODES[run_mode]}; {known}"
    raise ValueError(f'unknown run mode {run_mode!r}: {known}')
  only = RUN_MODES[run_mode]
  make_run = gin.get_configurable(artifact.Run)
  if run_mode == 'precompile':
    return _precompile(make_run)
  if run_mode == 'doctor':
    return _doctor(make_run)
  current = make_run(only=only, dry_run=dry_run, config_text=gin.config_str())
  algorithm = gin.query_parameter('ALGORITHM/macro.value').scoped_configurable_fn
  if dry_run or run_mode == 'annotate':
    algorithm(current)
    if run_mode == 'annotate':
      _annotate(current)
    elif hosts.is_primary():
      plan.print_plan(current)
      tables.print_needs(current)
    return 0
  with contextlib.ExitStack() as held:
    if hosts.is_primary():
      held.enter_context(lock.hold(current.model_dir))
    hosts.barrier('locked')
    result = algorithm(current)
  if only is not None:
    # A report alone is not what another mode is for.
    plan.require_progress(current, run_mode, only - {'report'} or only)
    if current.awaited:
      progress.say(current.awaited.remedy)
  if result.finished and hosts.is_primary():
    plan.print_result(result)
  return 0


def _precompile(make_run: Any) -> int:
  """Compiles the run's programs for --topology; 1 where one does not fit."""
  from rest_jax.planning import crashes, precompile_table
  from rest_jax.training import mesh

  topology = _TOPOLOGY.value
  if topology is None:
    raise ValueError(
      '--run_mode=precompile needs --topology, such as v5e:4x4 or v5p:8x8x16'
    )
  status = crashes.supervise(crashes.own_command())
  if status is not None:
    return status
  compiler = crashes.Journal(os.environ[crashes.JOURNAL]).compile_program
  with mesh.described_devices(tpu.devices(topology)):
    current = make_run(dry_run=True, config_text=gin.config_str())
    gin.query_parameter('ALGORITHM/macro.value').scoped_configurable_fn(current)
    if _TUNE.value:
      from rest_jax.planning import tune

      tried = tune.rank(
        current,
        topology,
        num_meshes=_TUNE_MESHES.value,
        compile_program=compiler,
        say=precompile_table.say,
      )
      tune.print_ranked(topology, tried)
      return 0 if tried and tried[0].fits(tpu.chip_of(topology)) else 1
    path = _PRECOMPILE_JSON.value
    return 0 if precompile_table.report(current, topology, path, compiler) else 1


def _doctor(make_run: Any) -> int:
  """Looks at machines and settings; the exit status says whether all is well."""
  from rest_jax.planning import doctor
  from rest_jax.stages import artifact

  model_dir = gin.query_parameter('MODEL_DIR/macro.value')

  def planner(mesh: Any) -> 'artifact.Run':
    # gin would make the run's own mesh even where another is given.
    planned: artifact.Run = (
      make_run(only=frozenset(), dry_run=True)
      if mesh is None
      else artifact.Run(model_dir, mesh=mesh, only=frozenset(), dry_run=True)
    )
    gin.query_parameter('ALGORITHM/macro.value').scoped_configurable_fn(planned)
    return planned

  return doctor.examine(planner, model_dir, gin.config_str())


def _annotate(run: 'artifact.Run') -> None:
  """Serves the page for raters, as gin has bound it."""
  from rest_jax.stages import annotate

  if 'ANNOTATION_SYSTEMS' not in _macros():
    raise ValueError(
      '--run_mode=annotate comes with another --gin_file=gin_configs/annotate.gin'
    )
  gin.get_configurable(annotate.annotate)(run)


def main(argv: Sequence[str]) -> int:
  """Parses gin and runs; a user's mistake ends in one clear sentence."""
  try:
    if len(argv) > 1:
      raise ValueError(f'unknown arguments {argv[1:]}: see --help')
    if not _GIN_FILE.value:
      raise ValueError('no gin file: give --gin_file=gin_configs/runs/local.gin')
    if _TFDS_DATA_DIR.value:
      os.environ['TFDS_DATA_DIR'] = _TFDS_DATA_DIR.value
    if _RUN_MODE.value == 'precompile':
      tpu.prepare()  # before a gin file brings JAX in
    parse_gin(_GIN_FILE.value, _GIN_BINDINGS.value, _GIN_SEARCH_PATHS.value)
    require_macros()
    return run_on_hosts(_RUN_MODE.value, dry_run=_DRY_RUN.value)
  except (ValueError, TypeError, OSError, FloatingPointError) as error:
    return fail(error)


def run_on_hosts(run_mode: str, *, dry_run: bool) -> int:
  """As `run`, with the other hosts where flags name them; all end alike."""
  from rest_jax.training import hosts, preemption

  address = _COORDINATOR_ADDRESS.value
  count, index = _PROCESS_COUNT.value, _PROCESS_INDEX.value
  try:
    if _MULTIHOST.value or any(x is not None for x in (address, count, index)):
      hosts.join(
        coordinator_address=address,
        process_count=count,
        process_index=index,
        timeout_s=_HOST_TIMEOUT_S.value,
        heartbeat_timeout_s=_HEARTBEAT_TIMEOUT_S.value,
      )
    preemption.install()
    status = run(run_mode, dry_run=dry_run)
  except (KeyboardInterrupt, preemption.Stopped) as stop:
    preemption.ignore()  # a second signal, such as srun's, does not disturb the end
    told = 130 if isinstance(stop, KeyboardInterrupt) else preemption.STATUS
    print('\nstopped; the same command goes on from here', file=sys.stderr)
    hosts.end_all('was told to stop; the same command goes on from here', told)
    return told
  except BaseException as error:
    ending = hosts.status_of(error)
    if hosts.count() > 1:  # the others would wait for ever
      hosts.end_all(plain_message(error), ending, details=traceback.format_exc())
    if ending != hosts.LOST:
      raise
    traceback.print_exc()
    return ending
  hosts.part()
  return status


def console() -> None:
  """The `rest_jax` console script."""
  try:
    argv = rewrite_gin_args(sys.argv)
  except ValueError as error:
    sys.exit(fail(error))
  app.run(main, argv=argv)


def fail(error: Exception) -> int:
  """Prints the error and how the command can be seen to fail in full."""
  if os.environ.get('REST_JAX_TRACEBACK'):
    raise error
  message = plain_message(error)
  if getattr(error, 'errno', None) == errno.ENOSPC or _NO_SPACE in message:
    message = f'the disk is full: make room, and the same command goes on ({message})'
  print(f'\nerror: {message}', file=sys.stderr)
  command = shlex.join(sys.argv)
  print(f'(REST_JAX_TRACEBACK=1 shows where; command: {command})', file=sys.stderr)
  return 1


def plain_message(error: BaseException) -> str:
  """The error's own sentence, without the configurables that gin was calling."""
  return str(error).split('\n  In call to configurable')[0].rstrip()


def _in_package(path: str) -> bool:
  """Whether a gin file is in a package that can be imported.

  As gin asks, which stops at a folder on PYTHONPATH that is no package, such as the
  checkout's gin_configs.
  """
  try:
    return os.path.isfile(resource_reader._parse_config_path(path))
  except (ImportError, TypeError, ValueError):
    return False


def _macros() -> set[str]:
  """Returns the names of all macros bound so far."""
  return {scope for scope, selector in gin.config._CONFIG if selector == 'gin.macro'}


def _located(advice: str | None, error: Exception) -> str:
  """Gin's error, or the advice with the line that gin names."""
  if advice is None:
    return str(error)
  line = re.search(r', (line \d+)', str(error))
  return f'{line[1]}: {advice}' if line else advice


def _imports_t5x(parsed: Any) -> bool:
  """Whether a parsed gin file, or one that it includes, imports T5X."""
  own = any(str(name).split('.')[0] == 't5x' for name in parsed.imports)
  return own or any(_imports_t5x(included) for included in parsed.includes)


def _unknown_file(file: str, error: Exception) -> str:
  known = sorted(
    str(path.relative_to(root))
    for root in GIN_ROOTS
    for path in (root / 'gin_configs').rglob('*.gin')
  )
  near = difflib.get_close_matches(file, known, n=3, cutoff=0.4) or known[:5]
  included = re.search(r'Unable to open file: (\S+?)\.? ', str(error))
  if t5x_names.is_t5x_file(included[1] if included else file):
    return f'gin file {file} is, or includes, one of T5X: {t5x_names.OWN_FILES}'
  reason = str(error).splitlines()[0].rstrip('.')
  return (
    f'cannot read gin file {file!r}, or one that it includes ({reason}); near it: '
    f'{", ".join(near)}'
  )


if __name__ == '__main__':
  console()

"""The rules of the house that no other tool checks: floors, imports, paths."""

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'rest_jax'

# From the top down. A room may import rooms of its own floor and of lower floors.
FLOORS = (
  {'main', 't5x_names', 'experiments'},
  {'rest', 'refresh', 'online_rl'},
  {'planning'},
  {'stages'},
  {
    'training',
    'sampling',
    'rewards',
    'data',
    'evaluation',
    'report',
    'interop',
    'annotation',
  },
  {'paths'},
  {'models', 'losses', 'filters', 'thresholds'},
)
# The bottom floor is arrays in, arrays out: nothing there reads or writes a file.
PURE = FLOORS[-1]

TENSORFLOW = {'seqio', 't5x', 'tensorflow', 'tensorflow_datasets', 'tensorflow_text'}
TENSORFLOW_ROOMS = {'data', 'interop'}  # inside functions; interop at the top too
WEB = {'starlette', 'uvicorn'}  # an extra: inside functions of one room
WEB_ROOM = 'annotation'
GIN_ROOMS = {'main', 'experiments', 'interop'}

MODULES = sorted(PACKAGE.rglob('*.py'))


def room(path: pathlib.Path) -> str:
  """'data' for rest_jax/data/group_store.py, 'rest' for rest_jax/rest.py."""
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def floor(name: str) -> int:
  """The floor's index, 0 at the top."""
  for index, rooms in enumerate(FLOORS):
    if name in rooms:
      return index
  known = ', '.join(sorted(set().union(*FLOORS)))
  raise AssertionError(f'rest_jax/{name} is on no floor of FLOORS (known: {known})')


def is_type_checking(node: ast.AST) -> bool:
  return isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test)


def imports(tree: ast.AST, *, nested: bool) -> Iterator[tuple[str, int]]:
  """Dotted names imported (`from a import b` gives 'a.b') and their lines.

  Without `nested` only what runs when the module is imported: not the bodies of
  functions, and not what is imported for type checkers alone.
  """
  for node in ast.iter_child_nodes(tree):
    if isinstance(node, ast.Import):
      yield from ((alias.name, node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'line {node.lineno}: relative import; name the package'
      yield from ((f'{node.module}.{a.name}', node.lineno) for a in node.names)
    elif nested or not (
      isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
      or is_type_checking(node)
    ):
      yield from imports(node, nested=nested)


def all_imports(*, nested: bool) -> Iterator[tuple[pathlib.Path, str, int]]:
  for path in MODULES:
    tree = ast.parse(path.read_text(encoding='utf-8'))
    for name, line in imports(tree, nested=nested):
      yield path, name, line


def where(path: pathlib.Path, line: int) -> str:
  return f'{path.relative_to(ROOT)}:{line}'


def test_imports_go_down_only() -> None:
  wrong = []
  for path, name, line in all_imports(nested=True):
    parts = name.split('.')
    if parts[0] != 'rest_jax' or len(parts) == 1 or path == PACKAGE / '__init__.py':
      continue
    here, there = room(path), parts[1]
    if there.startswith('__'):  # rest_jax.__version__
      continue
    if floor(there) < floor(here):
      wrong.append(f'{where(path, line)}: {here} imports {there}, which is above it')
  assert not wrong, '\n'.join(wrong)


def test_every_room_is_on_a_floor() -> None:
  for path in MODULES:
    if path != PACKAGE / '__init__.py':
      floor(room(path))


def test_rooms_do_not_import_one_another_in_a_circle() -> None:
  graph: dict[str, set[str]] = {}
  for path, name, _ in all_imports(nested=True):
    parts = name.split('.')
    if parts[0] == 'rest_jax' and len(parts) > 1 and path.parent != PACKAGE:
      graph.setdefault(room(path), set()).add(parts[1])
  graph = {key: values - {key} for key, values in graph.items()}
  done: set[str] = set()

  def visit(name: str, trail: tuple[str, ...]) -> None:
    assert name not in trail, ' -> '.join([*trail[trail.index(name) :], name])
    if name not in done:
      for other in sorted(graph.get(name, ())):
        visit(other, (*trail, name))
      done.add(name)

  for name in sorted(graph):
    visit(name, ())


def test_importing_the_package_imports_nothing() -> None:
  tree = ast.parse((PACKAGE / '__init__.py').read_text(encoding='utf-8'))
  assert not list(imports(tree, nested=True))


def test_the_core_runs_without_tensorflow() -> None:
  wrong = [
    f'{where(path, line)}: imports {name} when the module is imported; move it into '
    'the function that needs it'
    for path, name, line in all_imports(nested=False)
    if name.split('.')[0] in TENSORFLOW and room(path) != 'interop'
  ] + [
    f'{where(path, line)}: imports {name}; only {sorted(TENSORFLOW_ROOMS)} may'
    for path, name, line in all_imports(nested=True)
    if name.split('.')[0] in TENSORFLOW and room(path) not in TENSORFLOW_ROOMS
  ]
  assert not wrong, '\n'.join(wrong)


def test_the_core_runs_without_a_web_server() -> None:
  wrong = [
    f'{where(path, line)}: imports {name} when the module is imported; move it into '
    'the function that needs it'
    for path, name, line in all_imports(nested=False)
    if name.split('.')[0] in WEB
  ] + [
    f'{where(path, line)}: imports {name}; only {WEB_ROOM} may'
    for path, name, line in all_imports(nested=True)
    if name.split('.')[0] in WEB and room(path) != WEB_ROOM
  ]
  assert not wrong, '\n'.join(wrong)


def test_gin_stays_at_the_entry() -> None:
  wrong = [
    f'{where(path, line)}: imports gin; only {sorted(GIN_ROOMS)} may'
    for path, name, line in all_imports(nested=True)
    if name.split('.')[0] == 'gin' and room(path) not in GIN_ROOMS
  ]
  assert not wrong, '\n'.join(wrong)


def test_pure_rooms_do_not_touch_files() -> None:
  files = {'os', 'pathlib', 'etils', 'fsspec', 'io', 'shutil', 'tempfile'}
  wrong = [
    f'{where(path, line)}: imports {name}; {room(path)} is arrays in, arrays out'
    for path, name, line in all_imports(nested=True)
    if room(path) in PURE and name.split('.')[0] in files
  ]
  assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('path', MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_says_what_it_is_for(path: pathlib.Path) -> None:
  tree = ast.parse(path.read_text(encoding='utf-8'))
  docstring = ast.get_docstring(tree)
  assert docstring, f'{path.relative_to(ROOT)} has no docstring'
  assert path.name != 'utils.py', 'name a module for what it holds'


def test_every_folder_of_modules_is_a_package() -> None:
  folders = {path.parent for path in MODULES}
  missing = [
    str(folder.relative_to(ROOT))
    for folder in sorted(folders)
    if not (folder / '__init__.py').is_file()
  ]
  assert not missing, f'no __init__.py in {missing}'


# Machine paths, and hosts of package registries, would tie the project to a place.
# Written so that this file does not hold what it looks for.
FORBIDDEN = re.compile(
  r'(?<![\w.}~/-])/(?:work|root|home)/'
  r'|(?:py' + r'pi\.org|python' + r'hosted|registry\.npm' + r'js|file:/' + r'//)'
)
TEXT_SUFFIXES = {
  '.cfg', '.css', '.gin', '.html', '.ipynb', '.j2', '.js', '.json', '.lock', '.md',
  '.py', '.sh', '.slurm', '.svg', '.toml', '.tsv', '.txt', '.yaml', '.yml', '',
}  # fmt: skip
SKIPPED_FOLDERS = {'build', 'dist', 'runs', 'node_modules', '__pycache__'}


def text_files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """The project's text files: not environments, caches and what runs write."""
  for path in sorted(folder.iterdir()):
    hidden = path.name.startswith('.') and path.name not in {'.ci', '.gitignore'}
    if hidden and path.suffix != '.yaml':
      continue
    if path.is_dir():
      if path.name not in SKIPPED_FOLDERS and path.suffix != '.egg-info':
        yield from text_files(path)
    elif path.suffix in TEXT_SUFFIXES:
      yield path


def test_no_machine_paths_and_no_registry_hosts() -> None:
  wrong = []
  for path in text_files(ROOT):
    lines = path.read_text(encoding='utf-8').splitlines()
    wrong += [
      f'{where(path, number)}: {match.group()!r} ties the project to one machine'
      for number, line in enumerate(lines, 1)
      if (match := FORBIDDEN.search(line))
    ]
  assert not wrong, '\n'.join(wrong)

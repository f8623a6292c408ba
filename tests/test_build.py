"""BUILD and setup.py say what the tree holds.

`python tests/test_build.py --write` writes BUILD anew from the tree: a py_library
for each room of rest_jax, a py_binary for the command line, and a py_test for each
file of tests, with the dependencies that their imports name.
"""

import ast
import dataclasses
import fnmatch
import pathlib
import re
import runpy
import sys
from collections.abc import Iterable, Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / 'BUILD'
INIT = 'rest_jax/__init__.py'
MAIN = 'rest_jax/main.py'
CONFTEST = 'tests/conftest.py'
GIN_FILES = 'gin_configs/**/*.gin'
# Tests that read the tree itself, and what of it a sandbox must hold for them.
TREE_TESTS = ('tests/test_build.py', 'tests/test_house.py')
TREE = ('*.*', 'BUILD', 'launch/**/*', 'rest_jax/**/*', 'tests/**/*', GIN_FILES)

# Distributions whose name is not that of the module they hold. `None` for modules
# that requirements.lock leaves out, on purpose.
DISTRIBUTIONS = {
  'absl': 'absl-py',
  'yaml': 'pyyaml',
  'gin': 'gin-config',
  'google': 'protobuf',
  'ml_dtypes': 'ml-dtypes',
  'orbax': 'orbax-checkpoint',
  'moto': None,
  's3fs': None,
  't5x': None,
  'torch': None,
  'transformers': None,
  'tensorflow_datasets': 'tensorflow-datasets',
  'tensorflow_text': 'tensorflow-text',
}

HEADER = """\
# Bazel targets of rest_jax: a library for each room, the command line, the tests.
#
# The workspace supplies @rules_python and a @pip hub made from requirements.lock.
# Written by hand or by `python tests/test_build.py --write`; tests/test_build.py
# fails, and names the lines, when this file and the tree disagree.

load("@pip//:requirements.bzl", "requirement")
load("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")

package(default_visibility = ["//visibility:public"])

licenses(["notice"])

exports_files([
    "LICENSE",
    "requirements.lock",
])
"""


@dataclasses.dataclass(frozen=True)
class Target:
  """One rule of BUILD; `deps` holds ':label' and distribution names alike."""

  rule: str
  name: str
  srcs: frozenset[str]
  deps: frozenset[str] = frozenset()
  data: frozenset[str] = frozenset()  # patterns of files
  main: str | None = None
  args: tuple[str, ...] = ()


# What the tree holds.


def library_of(path: str) -> str:
  """The py_library a file of rest_jax belongs to: one for each room."""
  if path == INIT:
    return 'package'
  return path.split('/')[1].removesuffix('.py')


def module_file(parts: list[str]) -> str | None:
  """The file of the longest module that a dotted name begins with, or None."""
  for length in range(len(parts), 0, -1):
    base = '/'.join(parts[:length])
    for file in (f'{base}.py', f'{base}/__init__.py'):
      if (ROOT / file).is_file():
        return file
  return None


def imported_names(path: str) -> Iterator[str]:
  """Dotted names that a file imports anywhere in it."""
  for node in ast.walk(ast.parse((ROOT / path).read_text(encoding='utf-8'))):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def dependencies(paths: Iterable[str], own: str) -> frozenset[str]:
  """Labels and distributions that the imports of these files name."""
  found = set()
  for path in paths:
    for name in imported_names(path):
      parts = name.split('.')
      if parts[0] == 'rest_jax':
        found.add(':package')
        found.add(f':{library_of(module_file(parts) or INIT)}')
      elif parts[0] == 'tests':
        found.add(':tests_support')
      elif parts[0] == 'benchmarks':
        found.add(':benchmarks')
      elif parts[0] not in sys.stdlib_module_names:
        found.add(DISTRIBUTIONS.get(parts[0], parts[0]))
  return frozenset(dep for dep in found if dep is not None and dep != f':{own}')


def files(pattern: str) -> list[str]:
  return sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.glob(pattern)
    if path.is_file() and '__pycache__' not in path.parts
  )


def data_patterns(folder: str) -> frozenset[str]:
  """Patterns for the files below a folder that are not Python."""
  patterns = set()
  for file in files(f'{folder}/**/*'):
    if not file.endswith(('.py', '.typed')):
      parent, _, base = file.rpartition('/')
      patterns.add(f'{parent}/*.{base.rpartition(".")[2]}')
  return frozenset(patterns)


def tree_targets() -> dict[str, Target]:
  """The targets that the tree calls for, by name and in BUILD's order."""
  rooms: dict[str, set[str]] = {}
  for path in files('rest_jax/**/*.py'):
    rooms.setdefault(library_of(path), set()).add(path)
  targets = [
    Target(
      'py_library',
      name,
      frozenset(srcs),
      dependencies(srcs, name) | ({':package'} if name != 'package' else set()),
      data_patterns(f'rest_jax/{name}'),
    )
    for name, srcs in sorted(rooms.items())
  ]
  targets.append(
    Target(
      'py_binary',
      'rest_jax_main',
      frozenset({MAIN}),
      frozenset({':main'}),
      frozenset({GIN_FILES}),
      main=MAIN,
    )
  )
  scripts = frozenset(files('benchmarks/*.py'))
  deps = dependencies(scripts, 'benchmarks')
  targets.append(Target('py_library', 'benchmarks', scripts, deps))
  tests = files('tests/**/*.py')
  support = frozenset(t for t in tests if not t.rpartition('/')[2].startswith('test_'))
  targets.append(
    Target(
      'py_library',
      'tests_support',
      support,
      dependencies(support, 'tests_support')
      | {'pytest', 'pytest-timeout', 'pytest-xdist'},
      data_patterns('tests') | {'pyproject.toml'},
    )
  )
  for path in tests:
    if path not in support:
      targets.append(test_target(path))
  return {target.name: target for target in targets}


def test_target(path: str) -> Target:
  """The py_test of one file: conftest.py, run as a script, is pytest."""
  gin_files = {GIN_FILES} if ':main' in dependencies([path], '') else set()
  return Target(
    'py_test',
    path.removesuffix('.py').replace('/', '_'),
    frozenset({path, CONFTEST}),
    dependencies([path], '') - {'pytest'} | {':tests_support'},
    frozenset(TREE if path in TREE_TESTS else gin_files),
    main=CONFTEST,
    args=(path,),
  )


test_target.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test


# What BUILD says.


def string_list(node: ast.expr) -> list[str]:
  """Strings of a list, of glob([...]) and of a sum; requirement('x') gives 'x'."""
  if isinstance(node, ast.BinOp):
    return string_list(node.left) + string_list(node.right)
  if isinstance(node, ast.Call):
    return string_list(node.args[0])
  if isinstance(node, ast.List):
    return [string for item in node.elts for string in string_list(item)]
  return [ast.literal_eval(node)]


def build_targets() -> list[Target]:
  """The targets of BUILD, which is also Python to ast."""
  targets = []
  for node in ast.parse(BUILD.read_text(encoding='utf-8')).body:
    assert isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    rule = ast.unparse(node.value.func)
    if not rule.startswith('py_'):
      continue
    given = {str(keyword.arg): keyword.value for keyword in node.value.keywords}
    lists = {
      key: string_list(given[key]) if key in given else []
      for key in ('srcs', 'deps', 'data', 'args')
    }
    targets.append(
      Target(
        rule,
        ast.literal_eval(given['name']),
        srcs=frozenset(lists['srcs']),
        deps=frozenset(lists['deps']),
        data=frozenset(lists['data']),
        main=ast.literal_eval(given['main']) if 'main' in given else None,
        args=tuple(lists['args']),
      )
    )
  return targets


def render(target: Target) -> str:
  """A rule as buildifier writes it."""
  lines = [f'{target.rule}(', f'    name = "{target.name}",']

  def add(key: str, items: list[str], wrap: str = '{}') -> None:
    if len(items) == 1:
      lines.append(f'    {key} = {wrap.format(f"[{items[0]}]")},')
    elif items:
      inner = ''.join(f'        {item},\n' for item in items)
      lines.append(f'    {key} = {wrap.format(f"[{chr(10)}{inner}    ]")},')

  add('srcs', [f'"{src}"' for src in sorted(target.srcs)])
  add('args', [f'"{arg}"' for arg in target.args])
  patterns = any('*' in item for item in target.data)
  add('data', [f'"{p}"' for p in sorted(target.data)], 'glob({})' if patterns else '{}')
  if target.main:
    lines.append(f'    main = "{target.main}",')
  labels = sorted(dep for dep in target.deps if dep.startswith(':'))
  others = sorted(dep for dep in target.deps if not dep.startswith(':'))
  add('deps', [f'"{d}"' for d in labels] + [f'requirement("{d}")' for d in others])
  return '\n'.join([*lines, ')'])


def write() -> None:
  """Writes BUILD from the tree."""
  parts = [HEADER, *(render(target) + '\n' for target in tree_targets().values())]
  BUILD.write_text('\n'.join(parts), encoding='utf-8')


# The tests.


def difference(name: str, kind: str, said: frozenset[str], held: frozenset[str]) -> str:
  lines = [f'  {kind}: add    "{item}"' for item in sorted(held - said)]
  lines += [f'  {kind}: remove "{item}"' for item in sorted(said - held)]
  return '\n'.join([f'{name}:', *lines]) if lines else ''


def test_build_agrees_with_the_tree() -> None:
  said = {target.name: target for target in build_targets()}
  held = tree_targets()
  problems = [f'add:\n{render(held[name])}' for name in held if name not in said]
  problems += [f'remove {name}: nothing in the tree' for name in said.keys() - held]
  for name in sorted(said.keys() & held.keys()):
    for kind in ('srcs', 'deps', 'data'):
      problems.append(
        difference(name, kind, getattr(said[name], kind), getattr(held[name], kind))
      )
    for kind in ('rule', 'main', 'args'):
      want, got = getattr(held[name], kind), getattr(said[name], kind)
      if want != got:
        problems.append(f'{name}:\n  {kind}: {got!r} must be {want!r}')
  problems = [problem for problem in problems if problem]
  problems.append('or run: python tests/test_build.py --write')
  assert len(problems) == 1, 'BUILD and the tree disagree\n' + '\n'.join(problems)


def test_every_module_is_in_exactly_one_library() -> None:
  libraries = [t for t in build_targets() if t.rule == 'py_library']
  listed = sorted(src for library in libraries for src in library.srcs)
  support = [path for path in listed if path.startswith(('benchmarks/', 'tests/'))]
  assert [path for path in listed if path not in support] == files('rest_jax/**/*.py')


def test_names_labels_and_files_exist() -> None:
  targets = build_targets()
  names = [target.name for target in targets]
  assert len(names) == len(set(names)), 'two targets share a name'
  for target in targets:
    for dep in target.deps:
      assert not dep.startswith(':') or dep[1:] in names, f'{target.name}: no {dep}'
    for file in target.srcs:
      assert (ROOT / file).is_file(), f'{target.name}: no {file}'
    assert target.main is None or target.main in target.srcs
    for pattern in target.data:
      assert files(pattern), f'{target.name}: no file matches {pattern}'


def test_requirements_are_pinned() -> None:
  lock = (ROOT / 'requirements.lock').read_text(encoding='utf-8')
  pinned = {name.lower() for name in re.findall(r'^([\w.-]+)==', lock, re.MULTILINE)}
  wanted = {
    dep.lower().replace('_', '-')  # as the lock writes all names
    for target in build_targets()
    for dep in target.deps
    if dep[0] != ':'
  }
  missing = wanted - pinned
  assert not missing, f'{sorted(missing)} not in requirements.lock: see CONTRIBUTING.md'


def test_libraries_have_no_circle() -> None:
  deps = {target.name: sorted(target.deps) for target in build_targets()}
  done: set[str] = set()

  def visit(name: str, trail: tuple[str, ...]) -> None:
    assert name not in trail, ' -> '.join([*trail[trail.index(name) :], name])
    if name not in done:
      for dep in deps[name]:
        if dep.startswith(':'):
          visit(dep[1:], (*trail, name))
      done.add(name)

  for name in deps:
    visit(name, ())


def test_rendering_and_reading_agree() -> None:
  target = Target(
    'py_test',
    'a',
    frozenset({'x.py', 'y.py'}),
    frozenset({':b', 'jax'}),
    frozenset({'d/*.gin'}),
    main='x.py',
    args=('y.py',),
  )
  expected = (
    'py_test(\n    name = "a",\n'
    '    srcs = [\n        "x.py",\n        "y.py",\n    ],\n'
    '    args = ["y.py"],\n    data = glob(["d/*.gin"]),\n    main = "x.py",\n'
    '    deps = [\n        ":b",\n        requirement("jax"),\n    ],\n)'
  )
  assert render(target) == expected


@pytest.fixture(scope='module')
def setup() -> dict[str, object]:
  """The names that setup.py defines; it sets nothing up when not the main script."""
  return runpy.run_path(str(ROOT / 'setup.py'), run_name='setup_py')


def test_setup_names_every_package(setup: dict) -> None:
  folders = {path.rpartition('/')[0] for path in files('rest_jax/**/*.py')}
  expected = {folder.replace('/', '.') for folder in folders}
  if (ROOT / 'gin_configs').is_dir():
    expected.add('rest_jax.gin_configs')
  assert set(setup['packages']()) == expected


def test_setup_packs_every_data_file(setup: dict) -> None:
  patterns = [
    f'{package.replace(".", "/")}/{pattern}'
    for package, patterns in setup['PACKAGE_DATA'].items()
    for pattern in patterns
  ]
  left_out = [
    file
    for file in files('rest_jax/**/*')
    if not file.endswith('.py')
    and not any(fnmatch.fnmatch(file, pattern) for pattern in patterns)
  ]
  assert not left_out, f'add to PACKAGE_DATA of setup.py: {left_out}'


def test_version_is_the_package_s(setup: dict) -> None:
  import rest_jax

  assert setup['read_version']() == rest_jax.__version__


if __name__ == '__main__':
  if sys.argv[1:] != ['--write']:
    sys.exit('usage: python tests/test_build.py --write')
  write()

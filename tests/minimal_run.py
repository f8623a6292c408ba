"""ReST end to end on the embedded corpus, as small as it can be and still be it.

  python -m tests.minimal_run MODEL_DIR [--kill=REGEX] [--block] [MODE [BINDING ...]]

With --kill the program dies by SIGKILL as the second file or directory whose final
path matches is about to take its name: the first is done, the second half done.
With --block nothing can import TensorFlow or SeqIO.
"""

import contextlib
import fcntl
import importlib.abc
import importlib.util
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np

from rest_jax import main

ROOT = pathlib.Path(__file__).resolve().parent.parent
GIN_FILE = 'gin_configs/runs/local.gin'
POLICIES = ('bc', 'improve_1_1', 'improve_1_2', 'improve_2_1')
BINDINGS = (
  'NUM_TRAIN = 225',
  'NUM_VALIDATION = 24',
  'NUM_TEST = 24',
  'VOCAB_SIZE = 300',
  'DROPOUT_RATE = 0.1',
  # Few lengths, hence few programs to compile: a third of the pairs is too long.
  'TASK_FEATURE_LENGTHS = {"inputs": 24, "targets": 24}',
  'THRESHOLDS = ((0.6, 0.7), (0.7,))',
  'NUM_SAMPLES = 3',
  'BATCH_SIZE = 8',
  'TRAIN_STEPS = 10',
  'REWARD_STEPS = 3',
  'IMPROVE_STEPS = 4',
  'EVAL_PERIOD = 2',
  'EVAL_SAMPLES = 2',
  't5.T5Config.emb_dim = 16',
  't5.T5Config.num_heads = 2',
  't5.T5Config.head_dim = 8',
  't5.T5Config.mlp_dim = 32',
  't5.T5Config.num_encoder_layers = 1',
  't5.T5Config.num_decoder_layers = 1',
  'ingest.ingest.sources_per_shard = 8',
  'supervise.supervise.bucket_shares = (1.0,)',
  'supervise.supervise.eval_period_steps = 5',
  'supervise.supervise.checkpoint_period_steps = 3',
  'supervise/optimiser.Adafactor.warmup_steps = 3',
  'rating/grow.grow.num_sources = 40',
  'train_reward.train_reward.batch_size = 8',
  'train_reward.train_reward.checkpoint_period_steps = 1',
  'reward/optimiser.Adafactor.warmup_steps = 1',
  'grow.grow.num_sources = 24',
  'improve.improve.num_eval_sources = 12',
  'improve.improve.patience = None',
  'improve.improve.checkpoint_period_steps = 1',
  'sampler.SamplerSettings.batch_size = 8',
)


def start(model_dir, run_mode='rest', bindings=(), *, files=(), dry_run=False):
  """Runs in this process; returns what the command printed on stdout."""
  given = [*BINDINGS, f'MODEL_DIR = {str(model_dir)!r}', *bindings]
  main.parse_gin([GIN_FILE, *files], given)
  main.require_macros()
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    assert main.run(run_mode, dry_run=dry_run) == 0
  return printed.getvalue()


def start_program(model_dir, *arguments):
  """Runs as a program; returns the finished process."""
  return subprocess.run(
    [sys.executable, '-m', 'tests.minimal_run', str(model_dir), *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=250,
    check=False,
  )


def finished(tmp_path_factory):
  """The MODEL_DIR of an undisturbed run, one for all tests: they only read it."""
  folder = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    folder = folder.parent  # of all workers
  model_dir = folder / 'minimal_run'
  with open(f'{model_dir}.lock', 'w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
    if not (model_dir / 'report' / 'stage.json').exists():
      start(model_dir)
  return model_dir


def reward(source, candidate, reference):
  """A reward of a user's own."""
  del source, reference
  return float(len(candidate))


def summary(model_dir):
  return json.loads((model_dir / 'report' / 'summary.json').read_text())


def record(model_dir, name):
  return json.loads((model_dir / name / 'stage.json').read_text())


def fingerprints(model_dir):
  """Returns {artifact: fingerprint} of all that is finished, views left out."""
  found = {path.parent.name for path in model_dir.glob('*/stage.json')} - {'report'}
  return {name: record(model_dir, name)['fingerprint'] for name in sorted(found)}


def load_model(model_dir, name):
  """Reads the trained model of an artifact."""
  from etils import epath

  from rest_jax.models import reward, t5
  from rest_jax.stages import artifact, policies
  from rest_jax.training import mesh

  module = reward.RewardT5 if name == 'reward_model' else t5.T5
  run = artifact.Run(str(model_dir), mesh=mesh.make_mesh())
  return policies.load_model(epath.Path(model_dir) / name, module, run)


def params(model_dir, name):
  """Returns {path: array} of a trained model."""
  import jax

  tree = jax.device_get(load_model(model_dir, name).params)
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def _kill_at(pattern):
  """Dies as the second matching path is about to be published by a rename."""
  seen = set()

  def hook(event, arguments):
    if event == 'os.rename' and re.search(pattern, os.fspath(arguments[1])):
      seen.add(arguments[1])
      if len(seen) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

  sys.addaudithook(hook)


class _Blocker(importlib.abc.MetaPathFinder):
  """Hides TensorFlow and SeqIO, from find_spec as from import."""

  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in ('tensorflow', 'seqio', 'tensorflow_datasets', 't5x'):
      raise ModuleNotFoundError(f'{name} is blocked', name=name)
    return


def _block():
  blocker = _Blocker()
  sys.meta_path.insert(0, blocker)
  find_spec = importlib.util.find_spec

  def hidden(name, package=None):
    try:
      return find_spec(name, package)
    except ModuleNotFoundError:
      return None

  importlib.util.find_spec = hidden


def run_program(model_dir, *arguments):
  for argument in arguments:
    if argument.startswith('--kill='):
      _kill_at(argument.removeprefix('--kill='))
    if argument == '--block':
      _block()
  plain = [a for a in arguments if not a.startswith('--')]
  start(model_dir, *plain[:1], bindings=plain[1:])
  loaded = [m for m in ('tensorflow', 'seqio') if m in sys.modules]
  print('loaded', *loaded)


if __name__ == '__main__':
  run_program(*sys.argv[1:])

"""Does memory stay flat over hundreds of shards of Grow and score?

    python -m benchmarks.soak --shards 400

A tiny random policy and reward model, real stages: sampler, Parquet, threads and all.
The resident memory of the process is read once a second and held against the shards
that are written by then. The first fifth is warm-up (programs, caches, pools). The
slope is Theil and Sen's with its 95 % interval, in kB a shard; the readings follow one
another closely, so that interval is too narrow and the drift over all says more.
"""

import argparse
import contextlib
import dataclasses
import pathlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from scipy import stats

from benchmarks import measuring
from rest_jax import paths
from rest_jax.data import corpora, shards
from rest_jax.models import reward, t5
from rest_jax.rewards import normalisers
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, grow, ingest, policies, score
from rest_jax.training import mesh as mesh_lib

PERIOD_S = 1.0
WARM_UP = 0.2  # of the shards
LENGTHS = {'inputs': 32, 'targets': 16}
CONFIG = t5.T5Config(
  vocab_size=300,
  emb_dim=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=32,
  num_encoder_layers=1,
  num_decoder_layers=1,
)


@dataclasses.dataclass
class Readings:
  """Resident bytes, and the shards written and programs compiled by then."""

  shards: list[int] = dataclasses.field(default_factory=list)
  resident: list[int] = dataclasses.field(default_factory=list)
  programs: list[int] = dataclasses.field(default_factory=list)

  def row(self, stage: str, total: int) -> dict[str, Any]:
    """What they say, from the end of the warm-up on."""
    written, resident = np.array(self.shards), np.array(self.resident) / 1e3
    warm = written >= WARM_UP * total
    programs = np.array(self.programs)[warm]
    written, resident = written[warm], resident[warm]
    quarter = max(1, len(resident) // 4)
    slope, _, low, high = stats.theilslopes(resident, written)
    drift = np.median(resident[-quarter:]) - np.median(resident[:quarter])
    return {
      'stage': stage,
      'shards': total,
      'readings': len(resident),
      'kB a shard': float(slope),
      'from': float(low),
      'to': float(high),
      'MB, median': float(np.median(resident)) / 1e3,
      'MB, most': float(resident.max()) / 1e3,
      'drift, MB': float(drift) / 1e3,
      'programs compiled meanwhile': int(programs[-1] - programs[0]),
    }


@contextlib.contextmanager
def read(count: Callable[[], int]) -> Iterator[Readings]:
  """Reads memory once a period while the block runs."""
  found, ended = Readings(), threading.Event()
  compiled = 0

  def heard(event: str, _: float, **__: Any) -> None:
    nonlocal compiled
    compiled += 'backend_compile' in event

  jax.monitoring.register_event_duration_secs_listener(heard)

  def watch() -> None:
    while not ended.wait(PERIOD_S):
      found.shards.append(count())
      found.resident.append(measuring.resident_bytes())
      found.programs.append(compiled)

  thread = threading.Thread(target=watch, daemon=True)
  thread.start()
  try:
    yield found
  finally:
    ended.set()
    thread.join()
    jax.monitoring.unregister_event_duration_listener(heard)


def _models(
  run: artifact.Run, corpus: artifact.Artifact
) -> tuple[artifact.Artifact, artifact.Artifact]:
  """A policy and a reward model with the initial weights of their shape."""

  def save(work: artifact.Work, module: Any) -> None:
    init = jax.jit(policies.init_fn(module, CONFIG))
    policies.save_model(
      work.path,
      config=CONFIG,
      params=nn.meta.unbox(init(jax.random.key(0))),
      vocabulary=corpus.path / policies.VOCABULARY_FILE,
      step=0,
    )

  def reward_model(work: artifact.Work) -> None:
    save(work, reward.RewardT5)
    scale = {'mean': 3.0, 'stddev': 2.0}
    paths.write_json_atomic(work.path / score.SCALE_FILE, scale)

  common: dict[str, Any] = {'version': 1, 'params': {}, 'inputs': {'corpus': corpus}}
  return (
    run.stage('supervise', name='bc', build=lambda work: save(work, t5.T5), **common),
    run.stage('train_reward', name='reward_model', build=reward_model, **common),
  )


def soak(folder: str, args: argparse.Namespace) -> list[dict[str, Any]]:
  """Grows and scores; returns what was read of each."""
  run = artifact.Run(folder, mesh=mesh_lib.make_mesh())
  corpus = ingest.ingest(
    run,
    corpus=corpora.EverydayCorpus(
      num_train=args.shards * args.sources_per_shard, num_validation=4, num_test=4
    ),
    vocab_size=CONFIG.vocab_size,
    byte_fallback=False,
    task_feature_lengths=LENGTHS,
    overlong='truncate',
    sources_per_shard=args.sources_per_shard,
  )
  policy, reward_model = _models(run, corpus)

  def written(name: str, part: str) -> int:
    pattern = f'{artifact.WORK_DIR}/{name}-*/{part}'
    return sum(len(shards.names(path)) for path in run.model_dir.glob(pattern))

  started = time.monotonic()
  with read(lambda: written('grow_1', 'artifact')) as growing:
    samples = grow.grow(
      run,
      name='grow_1',
      corpus=corpus,
      policy=policy,
      num_samples=args.num_samples,
      task_feature_lengths=LENGTHS,
      sampler=sampler_lib.SamplerSettings(batch_size=args.batch_size),
    )
  with read(lambda: written('score_1', 'scratch')) as scoring:
    score.score(
      run,
      name='score_1',
      samples=samples,
      reward_model=reward_model,
      normaliser=normalisers.EmpiricalCdf.fit,
      num_gold_sources=0,
      task_feature_lengths=LENGTHS,
    )
  measuring.say(f'{time.monotonic() - started:,.0f} s')
  num = len(shards.list_shards(samples.path))
  return [growing.row('grow', num), scoring.row('score', num)]


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
  """Soaks in a temporary folder and prints what was read."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--shards', default=400, type=int)
  parser.add_argument('--sources_per_shard', default=256, type=int)
  parser.add_argument('--num_samples', default=8, type=int)
  parser.add_argument('--batch_size', default=64, type=int, help='lanes')
  args = parser.parse_args(sys.argv[1:] if argv is None else argv)
  with tempfile.TemporaryDirectory() as folder:
    rows = soak(str(pathlib.Path(folder) / 'run'), args)
  measuring.report(
    'resident memory over shards',
    rows,
    sources_per_shard=args.sources_per_shard,
    num_samples=args.num_samples,
    config=CONFIG.to_dict(),
  )
  return rows


if __name__ == '__main__':
  main()

"""Probe: what a reward says of pairs whose better text is known, before it is used.

probes.json      a row per probe, with the pairs of the lowest gap
probes.parquet   every pair: probe, source_id, source, better, worse, reward_better,
                 reward_worse
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rest_jax import paths
from rest_jax.data import buckets, columns, group_store, vocabularies
from rest_jax.models import t5
from rest_jax.report import probes as probes_report
from rest_jax.rewards import probes as probes_lib
from rest_jax.rewards import probing
from rest_jax.sampling import draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, held_out, policies, score

VERSION = 1
SUMMARY_FILE = 'probes.json'
PAIRS_FILE = 'probes.parquet'
SCHEMA = pa.schema(
  [
    *((name, pa.string()) for name in ('probe', 'source_id', 'source')),
    *((name, pa.string()) for name in ('better', 'worse')),
    *((name, pa.float32()) for name in ('reward_better', 'reward_worse')),
  ],
  metadata={'rest_jax.probes': '1'},
)
_PAIRS_PER_ROW_GROUP = 16_384


def probe(
  run: artifact.Run,
  *,
  name: str | None = None,
  corpus: artifact.Artifact,
  policy: artifact.Artifact,
  reward_model: artifact.Artifact,
  scorer: Any = None,
  minimum: Mapping[str, float] | None = None,
  probes: Sequence[probes_lib.Probe] = probes_lib.ALL,
  split: str = 'validation',
  num_sources: int | None = 500,
  num_samples: int = 4,
  num_worst: int = 5,
  task_feature_lengths: Mapping[str, int],
  decoding: draws.Decoding = draws.Decoding(),
  seed: int = 0,
  sampler: sampler_lib.SamplerSettings = sampler_lib.SamplerSettings(),
) -> artifact.Artifact:
  """Probes a reward model or any other scorer, and prints the table.

  The artifact is finished before its shares are held against `minimum`, so that a
  refused run can be looked at, and goes on at once where the minimum is lowered.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact; 'probe_' and the name of the reward model or the scorer.
    corpus: D, whose `split` gives sources with references.
    policy: whose samples stand beside the reference, and whose vocabulary reads.
    reward_model: the learned reward model.
    scorer: another scorer in its place. Bind what score, improve and evaluate have.
    minimum: by probe, or 'overall' for the mean over probes, the least share of pairs
      ranked rightly; below one of them ValueError stops the run. None asks for none.
    probes: what to apply, functions of your own (`rewards.probes.Probe`) among them.
    split: not the training data of the reward model.
    num_sources: the first so many; None takes all.
    num_samples: candidates of the policy for each source, for `sampled_candidates`
      and for scorers that read whole groups; 0 samples none.
    num_worst: pairs with the lowest gap to show for each probe.
    task_feature_lengths: T5X's {'inputs': ..., 'targets': ...}, in tokens; pairs with
      a longer text are left out and counted.
    decoding: how candidates are drawn.
    seed: of the probes and the samples.
    sampler: how the work is cut; changes no sample.

  Raises:
    ValueError: a minimum that no probe has, two probes of one name, a split without
      references, or a share below its minimum.
  """
  names = [probing.name_of(one) for one in probes]
  if len(set(names)) < len(names) or not names:
    raise ValueError(f'the probes {names} must be some, with names of their own')
  minimum = minimum or {}
  probing.check_minimum(minimum, probes)
  judge = reward_model.name if scorer is None else str(scorer.name)
  source_length, target_length = buckets.feature_lengths(task_feature_lengths)
  params = {
    'scorer': scorer,
    'probes': list(probes),
    'split': split,
    'num_sources': num_sources,
    'num_samples': num_samples,
    'num_worst': num_worst,
    'task_feature_lengths': dict(task_feature_lengths),
    'decoding': decoding,
    'seed': seed,
  }

  def build(work: artifact.Work) -> None:
    score_groups = scorer or score.load_reward_model(
      reward_model, run, task_feature_lengths=task_feature_lengths
    )

    def checked(groups: Sequence[group_store.Group]) -> Sequence[np.ndarray]:
      rewards = score_groups(groups)
      score.check_rewards(groups, rewards)
      return rewards

    groups = _groups(corpus, split, num_sources)
    vocabulary = vocabularies.Vocabulary.load(corpus.path / policies.VOCABULARY_FILE)
    samples: dict[str, tuple[str, ...]] = {}
    with work.devices():
      if num_samples:
        model = policies.load_model(policy.path, t5.T5, run)
        # The draws with which evaluate begins.
        drawn = sampler_lib.Sampler(
          model.params,
          model.config,
          vocabulary,
          mesh=run.mesh,
          source_length=source_length,
          target_length=target_length,
          decoding=decoding,
          seed=seed,
          grow_step=held_out.EVALUATION_STEP,
          settings=sampler,
        ).sample_in_order(groups, num_samples)
        samples = {group.source_id: group.texts for group in drawn}
      answers = probing.ask(
        checked,
        groups,
        samples=samples,
        probes=probes,
        vocabulary=vocabulary,
        target_length=target_length,
        seed=seed,
      )
    work.results.update(
      scorer=judge,
      split=split,
      num_sources=len(groups),
      **probing.summarise(answers, num_worst=num_worst),
    )
    paths.write_json_atomic(work.path / SUMMARY_FILE, work.results)
    rows = [pair.to_dict() for pair in answers.judged]
    columns.write_table(
      work.path / PAIRS_FILE,
      pa.Table.from_pylist(rows, schema=SCHEMA),
      row_group_size=_PAIRS_PER_ROW_GROUP,
    )

  inputs = {
    'corpus': corpus,
    'policy': policy if num_samples else None,
    'reward_model': reward_model if scorer is None else None,
  }
  probed = run.stage(
    'probe',
    name=name or f'probe_{judge}',
    version=VERSION,
    params=params,
    inputs=inputs,
    build=build,
    cut={'sampler': sampler},
    size={'probes': len(names)},
  )
  if probed.finished and not run.dry_run:
    probes_report.print_probes({'name': probed.name, **probed.results})
    require_minimum(probed, minimum)
  return probed


def require_minimum(probed: artifact.Artifact, minimum: Mapping[str, float]) -> None:
  """Raises ValueError where a share is below its minimum."""
  results = probed.results
  failed = probing.failures(results, minimum)
  if failed:
    raise ValueError(
      f'{results["scorer"]} is not probed well enough to go on with: '
      f'{"; ".join(failed)}. All pairs are in {probed.path / PAIRS_FILE}. To go on, '
      'train a better reward model in another MODEL_DIR (REUSE_FROM shares the '
      'policy), lower probe.probe.minimum, or leave it out'
    )


def _groups(
  corpus: artifact.Artifact, split: str, num_sources: int | None
) -> list[group_store.Group]:
  """The first sources of a split."""
  known = sorted(corpus.results['splits'])
  if split not in known:
    raise ValueError(f'{corpus.name} has no split {split!r}; known: {known}')
  groups: list[group_store.Group] = []
  for group in group_store.iterate_groups(corpus.path / split):
    if num_sources is not None and len(groups) >= num_sources:
      break
    groups.append(group)
  return groups

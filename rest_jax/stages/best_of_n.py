"""Best-of-N: a policy on held-out sources, with N samples to choose from.

One pool of samples per source answers for every N up to its size.

groups-*.parquet     the pools
rewards-*.parquet    their rewards, plain and normalised
gold/                their gold measures, as a reward set
minimum_bayes_risk/  their mean utility against the rest of the pool, likewise
<judge>/             what another judge says of them, likewise
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rest_jax.data import group_store, reward_store, shards
from rest_jax.evaluation import best_of_n as estimators
from rest_jax.evaluation import intervals, minimum_bayes_risk, text_metrics
from rest_jax.models import t5
from rest_jax.rewards import agreement, consensus, text
from rest_jax.sampling import draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, policies
from rest_jax.stages import held_out as held_out_lib
from rest_jax.stages import progress as progress_lib
from rest_jax.training import hosts

VERSION = 1
REWARD = 'reward'
GOLD = text.Gold.name
MINIMUM_BAYES_RISK = consensus.MinimumBayesRiskReward.name
SOURCES_PER_SHARD = 64  # sampled together; what a kill can lose
# Corpus scores: what they add up, and the score of the sums.
_METRICS = {
  'bleu': (intervals.bleu_counts, intervals.bleu_of_counts),
  'chrf': (intervals.chrf_counts, intervals.chrf_of_counts),
}


def best_of_n(
  run: artifact.Run,
  *,
  name: str,
  corpus: artifact.Artifact,
  policy: artifact.Artifact,
  reward_model: artifact.Artifact,
  rewards: artifact.Artifact,
  scorer: Any = None,
  judges: Sequence[Any] = (),
  utility: minimum_bayes_risk.Utility = minimum_bayes_risk.chrf_utilities,
  split: str = 'test',
  num_sources: int | None = None,
  num_samples: int = 200,
  numbers: Sequence[int] = estimators.NUMBERS,
  num_draws: int = 32,
  task_feature_lengths: Mapping[str, int],
  decoding: draws.Decoding = draws.Decoding(),
  seed: int = 0,
  sampler: sampler_lib.SamplerSettings = sampler_lib.SamplerSettings(),
) -> artifact.Artifact:
  """Evaluates a policy that answers with the best of N samples, by several judges.

  The judges: 'reward', the reward model on its own scale (the normalised one ties
  all that exceeds the first Grow's best); 'minimum_bayes_risk', the mean utility
  against the other N - 1 samples; 'gold', what a perfect judge would reach; and any of
  `judges`.

  Results hold `rows`, one per judge and N: reward_mean (normalised, as evaluate has
  it), raw_reward_mean, gold_mean, bleu and chrf of the selected candidates, each
  with its 95 % bootstrap interval over sources. Rewards and gold are exact means
  over all subsets of N for judges of single candidates, and means over `num_draws`
  subsets for minimum Bayes risk. BLEU and chrF are means over `num_draws` corpora
  of selected candidates; bleu_stddev and chrf_stddev tell how far these lie apart.
  `gold_spearman_in_groups` says how each judge ranks a pool, against gold.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact, such as 'best_of_n_bc'.
    corpus: D, whose `split` no stage trains on or selects by.
    policy: to evaluate.
    reward_model: the proxy.
    rewards: the first Grow's score, which holds the normaliser.
    scorer: another scorer in the reward model's place.
    judges: further scorers to choose by, each under its own name.
    utility: of minimum Bayes risk, chrF or a plain function of (candidates,
      pseudo-references), see evaluation.minimum_bayes_risk.
    split, num_sources, task_feature_lengths, decoding, seed: what is sampled, see
      held_out.load.
    num_samples: M, the size of each pool.
    numbers: the N; those above M are left out.
    num_draws: corpora, and subsets for minimum Bayes risk, drawn for each N.
    sampler: how the work is cut; changes no sample.

  Raises:
    ValueError: no N is within M, two judges have one name, or the utility is not a
      plain function or answers with anything but a finite matrix.
  """
  by_utility = consensus.MinimumBayesRiskReward(utility=utility)
  numbers = estimators.numbers_up_to(num_samples, numbers)
  names = [REWARD, GOLD, MINIMUM_BAYES_RISK, *(judge.name for judge in judges)]
  if len(set(names)) < len(names):
    raise ValueError(f'{name}: the judges {names} need names of their own')
  params = {
    'scorer': scorer,
    'judges': list(judges),
    'split': split,
    'num_sources': num_sources,
    'num_samples': num_samples,
    'numbers': list(numbers),
    'num_draws': num_draws,
    'task_feature_lengths': dict(task_feature_lengths),
    'decoding': decoding,
    'seed': seed,
  }
  if by_utility.identity() != consensus.MinimumBayesRiskReward().identity():
    params[MINIMUM_BAYES_RISK] = by_utility

  def build(work: artifact.Work) -> None:
    held_out = held_out_lib.load(
      run,
      corpus=corpus,
      reward_model=reward_model,
      rewards=rewards,
      scorer=scorer,
      split=split,
      num_sources=num_sources,
      num_samples=num_samples,
      task_feature_lengths=task_feature_lengths,
      decoding=decoding,
      seed=seed,
      settings=sampler,
    )
    model = policies.load_model(policy.path, t5.T5, run)
    _sample(work, held_out, model, by_utility, judges)
    hosts.barrier(f'{name} is sampled')
    if not hosts.is_primary():
      return
    pools = _read(work, names)
    selections = _select(work, pools, numbers, num_draws, seed, utility)
    work.results.update(
      rows=_rows(work, pools, selections, numbers, num_draws, seed),
      gold_spearman_in_groups=_agreements(pools),
      num_sources=len(pools.groups),
      samples_per_source=num_samples,
      num_draws=num_draws,
      **_signatures(pools.groups),
    )

  inputs = {
    'corpus': corpus,
    'policy': policy,
    'reward_model': reward_model if scorer is None else None,
    'rewards': rewards,
  }
  return run.stage(
    'best_of_n',
    name=name,
    version=VERSION,
    params=params,
    inputs=inputs,
    build=build,
    cut={'sampler': sampler},
    size={'samples a source': num_samples},
    teamwork='apart',
  )


@dataclasses.dataclass(frozen=True)
class _Pools:
  """Every source's pool, and what was said of it."""

  groups: list[group_store.Group]
  judged: dict[str, list[np.ndarray]]  # by judge, per source [samples]
  rewards: list[np.ndarray]  # normalised, per source [samples]


def _sample(
  work: artifact.Work,
  held_out: held_out_lib.HeldOut,
  model: policies.Model,
  by_utility: consensus.MinimumBayesRiskReward,
  judges: Sequence[Any],
) -> None:
  """Samples and judges shard by shard; the shards that are there are done.

  Of several hosts each takes the next shard that no other has taken.
  """
  num_shards = max(1, -(-len(held_out.groups) // SOURCES_PER_SHARD))
  ranges = shards.ranges(len(held_out.groups), num_shards)
  earlier = shards.names(work.path)
  hosts.barrier(f'{work.name} is seen')  # by all alike, before any writes
  # The rewards are the last file of a shard to be written.
  paths = [
    shards.shard_path(work.path, index, num_shards, reward_store.KIND)
    for index in range(num_shards)
  ]
  left = [index for index, path in enumerate(paths) if path.name not in earlier]
  total = len(held_out.groups) * held_out.num_samples
  remaining = sum(ranges[i][1] - ranges[i][0] for i in left) * held_out.num_samples
  with progress_lib.progress(
    work.name, total, unit='samples', done=total - remaining
  ) as advance:
    for number in hosts.share(f'{work.name}/shards', len(left)):
      index = left[number]
      (start, stop), path = ranges[index], paths[index]
      part = dataclasses.replace(held_out, groups=held_out.groups[start:stop])
      with work.devices():
        samples = part.sample(model.params, model.config)
        rewards = part.scorer(samples)
        others = {judge.name: judge(samples) for judge in judges}
      others[GOLD] = text.Gold()(samples)
      others[MINIMUM_BAYES_RISK] = by_utility(samples)
      ids = [group.source_id for group in samples]
      group_store.write_groups(shards.shard_path(work.path, index, num_shards), samples)
      for name, values in others.items():
        reward_store.write_rewards(work.path / name / path.name, ids, values)
      normalised = [held_out.normaliser(values) for values in rewards]
      reward_store.write_rewards(path, ids, rewards, normalised=normalised)
      work.save_cost()
      advance((stop - start) * held_out.num_samples)


def _read(work: artifact.Work, names: Sequence[str]) -> _Pools:
  """Reads what `_sample` wrote."""
  judged, normalised = {}, []
  for name in names:
    folder = work.path if name == REWARD else work.path / name
    paths = shards.list_shards(folder, reward_store.KIND)
    found = [reward_store.read_rewards(path) for path in paths]
    judged[name] = [values for shard in found for values in shard.rewards]
    if name == REWARD:
      normalised = [values for shard in found for values in shard.for_training()]
  fields = ['texts', 'reference']
  groups = list(group_store.iterate_groups(work.path, columns=fields))
  return _Pools(groups, judged, normalised)


def _select(
  work: artifact.Work,
  pools: _Pools,
  numbers: Sequence[int],
  num_draws: int,
  seed: int,
  utility: minimum_bayes_risk.Utility,
) -> dict[str, list[np.ndarray]]:
  """Per judge and source the selection, [numbers, samples]."""
  selections = {
    name: [estimators.selection_probabilities(v, numbers) for v in values]
    for name, values in pools.judged.items()
    if name != MINIMUM_BAYES_RISK
  }
  # Among N samples, the others of these N are the pseudo-references, not the pool.
  selections[MINIMUM_BAYES_RISK] = by_consensus = []
  description = f'{work.name}: minimum Bayes risk'
  total = len(pools.groups)
  with progress_lib.progress(description, total, unit='sources') as advance:
    for group in pools.groups:
      utilities = minimum_bayes_risk.utility_matrix(group.texts, utility)
      rng = estimators.source_rng(seed, group.source_id)
      by_consensus.append(
        minimum_bayes_risk.selection_probabilities(
          utilities, numbers, num_draws=num_draws, rng=rng
        )
      )
      advance(1)
  return selections


def _rows(
  work: artifact.Work,
  pools: _Pools,
  selections: Mapping[str, Sequence[np.ndarray]],
  numbers: Sequence[int],
  num_draws: int,
  seed: int,
) -> list[dict[str, Any]]:
  """JSON values, one row per judge and N."""
  values = {
    'reward': pools.rewards,
    'raw_reward': pools.judged[REWARD],
    'gold': pools.judged[GOLD],
  }
  known = [i for i, group in enumerate(pools.groups) if group.reference is not None]
  corpora = {
    metric: estimators.CorpusPool(
      [pools.groups[i].source_id for i in known],
      [pools.groups[i].texts for i in known],
      [pools.groups[i].reference or '' for i in known],
      counts_fn=counts_fn,
      score_fn=score_fn,
    )
    for metric, (counts_fn, score_fn) in _METRICS.items()
  }
  rows = []
  description = f'{work.name}: curves'
  with progress_lib.progress(description, len(selections), unit='judges') as advance:
    for judge, selection in selections.items():
      part: list[dict[str, Any]] = [{'judge': judge, 'n': n} for n in numbers]
      for row, means in zip(
        part, estimators.curve(selection, values, seed=seed), strict=True
      ):
        for name, interval in means.items():
          row[f'{name}_mean'] = interval.mean
          row[f'{name}_interval'] = [interval.low, interval.high]
      for metric, corpus in corpora.items():
        if not known:  # source-only text
          for row in part:
            row |= dict.fromkeys(_keys(metric))
          continue
        estimates = corpus.curve(
          [selection[i] for i in known], num_draws=num_draws, seed=seed
        )
        for row, found in zip(part, estimates, strict=True):
          ends = [found.interval.low, found.interval.high]
          figures = (found.interval.mean, ends, found.stddev)
          row |= dict(zip(_keys(metric), figures, strict=True))
      rows += part
      advance(1, note=judge)
  return rows


def _keys(metric: str) -> tuple[str, str, str]:
  return metric, f'{metric}_interval', f'{metric}_stddev'


def _agreements(pools: _Pools) -> dict[str, float | None]:
  """Mean Spearman inside the pools of each judge with the gold measure.

  Minimum Bayes risk stands for itself on the whole pool; None is undefined.
  """
  gold = pools.judged[GOLD]
  means: dict[str, float | None] = {}
  for name, values in pools.judged.items():
    if name != GOLD:
      found = agreement.correlations_in_groups(values, gold).spearman
      defined = found[np.isfinite(found)]
      means[name] = float(defined.mean()) if defined.size else None
  return means


def _signatures(groups: Sequence[group_store.Group]) -> dict[str, str | None]:
  """SacreBLEU's signatures, where there are references."""
  references = [group.reference for group in groups if group.reference is not None]
  if not references:
    return dict.fromkeys(('bleu_signature', 'chrf_signature'))
  one = references[:1]
  return {
    'bleu_signature': text_metrics.corpus_bleu(one, one).signature,
    'chrf_signature': text_metrics.corpus_chrf(one, one).signature,
  }

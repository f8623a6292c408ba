"""Evaluate: a policy on held-out sources, by proxy, by gold and by text metrics.

groups-*.parquet    the sampled candidates
rewards-*.parquet   their normalised rewards
gold/               their gold measures, as a reward set
greedy/             the greedy outputs
beam/               the outputs of beam search, where it is asked for
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rest_jax.data import group_store, reward_store, shards
from rest_jax.evaluation import intervals, text_metrics
from rest_jax.models import t5
from rest_jax.rewards import agreement, text
from rest_jax.sampling import divergence, draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, policies
from rest_jax.stages import held_out as held_out_lib
from rest_jax.stages import progress as progress_lib

VERSION = 2
_DISTINCT = (1, 2, 3)  # the n of distinct-n


def evaluate(
  run: artifact.Run,
  *,
  name: str,
  corpus: artifact.Artifact,
  policy: artifact.Artifact,
  bc: artifact.Artifact,
  reward_model: artifact.Artifact,
  rewards: artifact.Artifact,
  scorer: Any = None,
  split: str = 'test',
  num_sources: int | None = None,
  num_samples: int = 4,
  task_feature_lengths: Mapping[str, int],
  decoding: draws.Decoding = draws.Decoding(),
  seed: int = 0,
  beams: int = 0,
  sampler: sampler_lib.SamplerSettings = sampler_lib.SamplerSettings(),
) -> artifact.Artifact:
  """Evaluates a policy.

  Means are over samples, each source weighing the same; BLEU and chrF are of
  greedy outputs, and of those of beam search, against the references. Intervals are
  95 % bootstrap intervals over sources.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact, such as 'evaluate_bc'.
    corpus: D, whose `split` no stage trains on or selects by.
    policy: to evaluate.
    bc: the supervised policy, to which the divergence is measured.
    reward_model: the proxy.
    rewards: the first Grow's score, which holds the normaliser.
    scorer: another scorer in the reward model's place.
    split, num_sources, num_samples, task_feature_lengths, decoding, seed: what is
      sampled, see held_out.load.
    beams: also searches with so many beams (`sampling.beam`) and reports beam_bleu
      and beam_chrf; 0 does not.
    sampler: how the work is cut; changes no sample.

  Raises:
    ValueError: `beams` is negative.
  """
  if beams < 0:
    raise ValueError(f'beams={beams} must be at least 0 (0 is no beam search)')
  params = {
    'scorer': scorer,
    'split': split,
    'num_sources': num_sources,
    'num_samples': num_samples,
    'task_feature_lengths': dict(task_feature_lengths),
    'decoding': decoding,
    'seed': seed,
    **({'beams': beams} if beams else {}),
  }

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
    num_parts = 5 if beams else 4
    with (
      progress_lib.progress(name, num_parts, unit='parts') as advance,
      work.devices(),
    ):
      samples = held_out.sample(model.params, model.config)
      advance(1, note='sampled')
      greedy = held_out.greedy(model.params, model.config)
      advance(1, note='decoded greedily')
      searched = None
      if beams:
        searched = held_out.beam_search(model.params, model.config, beams)
        advance(1, note=f'searched with {beams} beams')
      proxy = held_out.rewards(samples)
      advance(1, note='scored')
      base = policies.load_model(bc.path, t5.T5, run)
      kl = divergence.sequence_kl(
        (model.config, model.params),
        (base.config, base.params),
        samples,
        mesh=run.mesh,
      )
      advance(1, note='compared with BC')
    gold = text.Gold()(samples)
    _write(work, samples, proxy, gold, greedy)
    work.results.update(
      _sampled(samples, proxy, gold, kl, seed), **_against_references(greedy, seed)
    )
    if searched is not None:
      group_store.write_group_set(work.path / 'beam', searched)
      work.results.update(_against_references(searched, seed, prefix='beam_'))

  inputs = {
    'corpus': corpus,
    'policy': policy,
    'bc': bc,
    'reward_model': reward_model if scorer is None else None,
    'rewards': rewards,
  }
  return run.stage(
    'evaluate',
    name=name,
    version=VERSION,
    params=params,
    inputs=inputs,
    build=build,
    cut={'sampler': sampler},
  )


def _write(
  work: artifact.Work,
  samples: Sequence[group_store.Group],
  proxy: Sequence[np.ndarray],
  gold: Sequence[np.ndarray],
  greedy: Sequence[group_store.Group],
) -> None:
  """Writes what a person, or the report, looks at."""
  ids = [group.source_id for group in samples]
  group_store.write_group_set(work.path, samples)
  reward_store.write_rewards(shards.shard_path(work.path, 0, 1, 'rewards'), ids, proxy)
  reward_store.write_rewards(
    shards.shard_path(work.path / 'gold', 0, 1, 'rewards'), ids, gold
  )
  group_store.write_group_set(work.path / 'greedy', greedy)


def _sampled(
  samples: Sequence[group_store.Group],
  proxy: Sequence[np.ndarray],
  gold: Sequence[np.ndarray],
  kl: Sequence[np.ndarray],
  seed: int,
) -> dict[str, Any]:
  """Figures of the sampled candidates."""
  texts = [group.texts for group in samples]
  flat = list(itertools.chain.from_iterable(texts))
  sources = [group.source for group in samples for _ in group.texts]
  references = [group.reference or '' for group in samples for _ in group.texts]
  exact = [text.exact_matches(group) for group in samples]
  ranks = agreement.agreement(proxy, gold).to_dict()
  return {
    **_mean('reward', proxy, seed),
    **_mean('gold', gold, seed),
    'exact_match': float(np.mean([values.mean() for values in exact])),
    'kl_to_bc': (interval := intervals.bootstrap_mean(kl, seed=seed)).mean,
    'kl_interval': [interval.low, interval.high],
    'length_ratio': text_metrics.length_ratio(flat, references),
    **{f'distinct_{n}': text_metrics.distinct_n(texts, n) for n in _DISTINCT},
    'copy_rate': text_metrics.copy_rate(flat, sources),
    'repetition_rate': text_metrics.repetition_rate(flat),
    'reward_gold_spearman': ranks['spearman'],
    'reward_gold_spearman_in_groups': ranks['spearman_in_groups'],
    'unfinished_fraction': 1 - float(np.mean([g.finished.mean() for g in samples])),
    'num_sources': len(samples),
    'num_samples': len(flat),
  }


def _mean(name: str, values: Sequence[np.ndarray], seed: int) -> dict[str, Any]:
  interval = intervals.bootstrap_mean(values, seed=seed)
  return {
    f'{name}_mean': interval.mean,
    f'{name}_interval': [interval.low, interval.high],
  }


def _against_references(
  outputs: Sequence[group_store.Group], seed: int, *, prefix: str = ''
) -> dict[str, Any]:
  """BLEU and chrF of one output for each source, where there are references."""
  pairs = [(g.texts[0], g.reference) for g in outputs if g.reference is not None]
  figures: dict[str, Any] = dict.fromkeys(
    ('bleu', 'bleu_interval', 'chrf', 'chrf_interval')
  )
  if pairs:
    candidates, references = (list(side) for side in zip(*pairs, strict=True))
    bleu = intervals.bootstrap_bleu(candidates, references, seed=seed)
    chrf = intervals.bootstrap_chrf(candidates, references, seed=seed)
    figures = {
      'bleu': bleu.mean,
      'bleu_interval': [bleu.low, bleu.high],
      'chrf': chrf.mean,
      'chrf_interval': [chrf.low, chrf.high],
      'bleu_signature': text_metrics.corpus_bleu(candidates, references).signature,
      'chrf_signature': text_metrics.corpus_chrf(candidates, references).signature,
    }
  return {prefix + key: value for key, value in figures.items()}

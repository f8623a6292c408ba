"""Evaluate: a policy on held-out sources, by proxy, by gold and by text metrics.

groups-*.parquet    the sampled candidates
rewards-*.parquet   their normalised rewards
gold/               their gold measures, as a reward set
greedy/             the greedy outputs
beam/               the outputs of beam search, where it is asked for
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from rest_jax.data import group_store, reward_store, shards
from rest_jax.evaluation import intervals, text_metrics
from rest_jax.models import t5
from rest_jax.rewards import agreement, text
from rest_jax.sampling import divergence, draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, policies
from rest_jax.stages import held_out as held_out_lib
from rest_jax.stages import progress as progress_lib
from rest_jax.training import hosts

VERSION = 2
# Of several hosts each takes about so many parts of the sources, one after the other,
# so that a slow one holds up the others for one part at most; none smaller than this.
PARTS_OF_A_HOST = 4
SOURCES_OF_A_PART = 4
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

  Several hosts share out the sources, each with copies of the models on its own
  devices.

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
    base = policies.load_model(bc.path, t5.T5, run)
    parts = shards.ranges(len(held_out.groups), _num_parts(len(held_out.groups)))
    folder = work.scratch / f'{len(parts)}_parts'
    done = shards.names(folder / 'kl')
    hosts.barrier(f'{name} is seen')  # by all alike, before any writes
    left = [i for i in range(len(parts)) if _kl_path(folder, i, parts).name not in done]
    steps = 5 if beams else 4
    with progress_lib.progress(name, len(left) * steps, unit='parts') as advance:
      for number in hosts.share(f'{name}/parts', len(left)):
        start, stop = parts[left[number]]
        part = dataclasses.replace(held_out, groups=held_out.groups[start:stop])
        with work.devices():
          answers = _answer(part, model, base, beams, advance)
        _write_part(folder, left[number], parts, answers)
    hosts.barrier(f'{name} is sampled')
    if not hosts.is_primary():
      return
    answers = _read_parts(folder, beams)
    gold = text.Gold()(answers.samples)
    _write(work, answers, gold)
    work.results.update(
      _sampled(answers.samples, answers.rewards, gold, answers.kl, seed),
      **_against_references(answers.greedy, seed),
    )
    if beams:
      work.results.update(_against_references(answers.searched, seed, prefix='beam_'))

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
    teamwork='apart',
  )


class _Answers(NamedTuple):
  """What a policy answers to some sources, and what is said of it; a row for each."""

  samples: list[group_store.Group]
  greedy: list[group_store.Group]
  searched: list[group_store.Group]  # empty without beam search
  rewards: list[np.ndarray]  # [samples] float32, normalised
  kl: list[np.ndarray]  # [samples] float32, nats


def _num_parts(num_sources: int) -> int:
  """Into how many parts the sources are cut; one host does all of them at once."""
  if hosts.count() == 1:
    return 1
  return max(1, min(num_sources // SOURCES_OF_A_PART, PARTS_OF_A_HOST * hosts.count()))


def _answer(
  held_out: held_out_lib.HeldOut,
  model: policies.Model,
  base: policies.Model,
  beams: int,
  advance: Callable[..., None],
) -> _Answers:
  """Lets the policy answer, and compares it with BC, the base."""
  samples = held_out.sample(model.params, model.config)
  advance(1, note='sampled')
  greedy = held_out.greedy(model.params, model.config)
  advance(1, note='decoded greedily')
  searched: list[group_store.Group] = []
  if beams:
    searched = held_out.beam_search(model.params, model.config, beams)
    advance(1, note=f'searched with {beams} beams')
  rewards = held_out.rewards(samples)
  advance(1, note='scored')
  kl = divergence.sequence_kl(
    (model.config, model.params),
    (base.config, base.params),
    samples,
    mesh=held_out.mesh,
    source_length=held_out.source_length,
    target_length=held_out.target_length,
  )
  advance(1, note='compared with BC')
  return _Answers(samples, greedy, searched, rewards, kl)


def _kl_path(folder: epath.Path, index: int, parts: Sequence[Any]) -> epath.Path:
  """The last file of a part to be written."""
  return shards.shard_path(folder / 'kl', index, len(parts), reward_store.KIND)


def _write_part(
  folder: epath.Path, index: int, parts: Sequence[Any], answers: _Answers
) -> None:
  ids = [group.source_id for group in answers.samples]
  for name in ('samples', 'greedy', 'searched'):
    path = shards.shard_path(folder / name, index, len(parts))
    if groups := getattr(answers, name):
      group_store.write_groups(path, groups)
  path = shards.shard_path(folder / 'rewards', index, len(parts), reward_store.KIND)
  reward_store.write_rewards(path, ids, answers.rewards)
  reward_store.write_rewards(_kl_path(folder, index, parts), ids, answers.kl)


def _read_parts(folder: epath.Path, beams: int) -> _Answers:
  """Reads what `_write_part` wrote of all parts."""

  def groups(name: str) -> list[group_store.Group]:
    return list(group_store.iterate_groups(folder / name))

  def values(name: str) -> list[np.ndarray]:
    paths = shards.list_shards(folder / name, reward_store.KIND)
    return [x for path in paths for x in reward_store.read_rewards(path).rewards]

  return _Answers(
    samples=groups('samples'),
    greedy=groups('greedy'),
    searched=groups('searched') if beams else [],
    rewards=values('rewards'),
    kl=values('kl'),
  )


def _write(work: artifact.Work, answers: _Answers, gold: Sequence[np.ndarray]) -> None:
  """Writes what a person, or the report, looks at."""
  ids = [group.source_id for group in answers.samples]
  group_store.write_group_set(work.path, answers.samples)
  for folder, values in ((work.path, answers.rewards), (work.path / 'gold', gold)):
    reward_store.write_rewards(shards.shard_path(folder, 0, 1, 'rewards'), ids, values)
  group_store.write_group_set(work.path / 'greedy', answers.greedy)
  if answers.searched:
    group_store.write_group_set(work.path / 'beam', answers.searched)


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

"""Report: the table, summary.json and report.html of a whole run."""

import shlex
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rest_jax import paths
from rest_jax.data import group_store, reward_store, shards
from rest_jax.report import data as report_data
from rest_jax.report import page
from rest_jax.report import probes as probes_report
from rest_jax.stages import artifact

VERSION = 2
# The curves that a reader looks at; the others are in metrics.jsonl.
SHOWN_CURVES = {
  'loss': 'loss',
  'eval_held_out_loss': 'eval_loss',
  'eval_spearman': 'spearman',
  'eval_spearman_in_groups': 'spearman_in_groups',
  'eval_reward': 'eval_reward',
}
POLICY_KEYS = (
  'reward_mean',
  'reward_interval',
  'gold_mean',
  'gold_interval',
  'exact_match',
  'bleu',
  'bleu_interval',
  'chrf',
  'chrf_interval',
  'length_ratio',
  'distinct_1',
  'distinct_2',
  'distinct_3',
  'copy_rate',
  'repetition_rate',
  'kl_to_bc',
  'kl_interval',
  'reward_gold_spearman',
  'reward_gold_spearman_in_groups',
  'unfinished_fraction',
  'num_sources',
  'num_samples',
)


class Trained(NamedTuple):
  """A policy and where in Algorithm 1 it stands."""

  policy: artifact.Artifact
  evaluation: artifact.Artifact
  grow: int  # 0 for BC
  improve: int
  algorithm: str | None = None  # another than ReST: its name in tables

  @property
  def name(self) -> str:
    """As tables call it."""
    return self.algorithm or policy_name(self.grow, self.improve)


class Grown(NamedTuple):
  """A Grow step's set and its rewards."""

  grow: int
  samples: artifact.Artifact
  rewards: artifact.Artifact
  value_model: artifact.Artifact | None = None
  stale: artifact.Artifact | None = None  # rewards before the reward model's refresh
  probed: artifact.Artifact | None = None  # what probes of the refreshed one found


class Selected(NamedTuple):
  """A policy and what Best-of-N makes of it."""

  policy: artifact.Artifact
  selection: artifact.Artifact


def report(
  run: artifact.Run,
  *,
  name: str = 'report',
  corpus: artifact.Artifact,
  reward_model: artifact.Artifact,
  trained: Sequence[Trained],
  grown: Sequence[Grown],
  human: artifact.Artifact | None = None,
  selected: Sequence[Selected] = (),
  probed: artifact.Artifact | None = None,
  num_groups: int = 12,
  seed: int | None = None,
) -> artifact.Artifact:
  """Writes what the run has shown so far.

  The report is a view: it is written anew whenever anything in it has changed,
  the list of what was reused included. Policies that are not evaluated yet are
  left out.

  Args:
    run: the MODEL_DIR in use.
    name: of the artifact.
    corpus, reward_model, trained, grown, selected: what the run made.
    human, probed: what people's ratings say, and what probes of the reward found
      before the first Grow;
      None, or not finished, leaves it out.
    num_groups: sample groups of each policy to show.
    seed: of the run, to be written down.
  """
  # Without any evaluation the report waits for all of them.
  trained = [t for t in trained if t.evaluation.finished] or trained
  grown = [g for g in grown if g.rewards.finished]
  inputs = {t.evaluation.name: t.evaluation for t in trained}
  selected = [s for s in selected if s.selection.finished]
  inputs |= {g.rewards.name: g.rewards for g in grown}
  valued = [
    (g.grow, g.value_model)
    for g in grown
    if g.value_model is not None and g.value_model.finished
  ]
  inputs |= {value_model.name: value_model for _, value_model in valued}
  if human is not None and human.finished:
    inputs[human.name] = human
  else:
    human = None
  inputs |= {s.selection.name: s.selection for s in selected}
  for found in (probed, *(g.probed for g in grown)):
    if found is not None and found.finished:
      inputs[found.name] = found
  history = [entry for entry in run.history if entry.artifact.finished]
  outcomes = [(entry.artifact.name, entry.outcome) for entry in history]
  params = {'num_groups': num_groups, 'outcomes': outcomes}

  def build(work: artifact.Work) -> None:
    probes = _probes(probed)
    summary = {
      'policies': [_policy(t) for t in trained],
      'stages': [_stage(entry) for entry in history],
      'reward_model': _reward_model(reward_model, grown),
      'grows': [_grow(g, trained) for g in grown],
      'value_models': [_value_model(g, value_model) for g, value_model in valued],
      **({'human': _human(human, trained)} if human is not None else {}),
      'best_of_n': [_selected(s, trained) for s in selected],
      **({'probes': probes} if probes else {}),
      'warnings': _warnings(trained, grown, probed),
      'settings': _settings(run, corpus, trained, seed),
    }
    paths.write_json_atomic(work.path / 'summary.json', summary)
    data = report_data.ReportData(
      summary=summary,
      histograms=[{'grow': g.grow, **g.rewards.results['histogram']} for g in grown],
      curves=[curve for entry in history for curve in _curves(entry)],
      groups=[group for t in trained for group in _groups(t, num_groups)],
    )
    paths.write_text_atomic(work.path / 'report.html', page.render_page(data))

  return run.stage(
    'report',
    name=name,
    version=VERSION,
    params=params,
    inputs=inputs,
    build=build,
    replaceable=True,
  )


def policy_name(grow: int, improve: int) -> str:
  """The paper's names: 'BC (G=0, I=0)', 'ReST (G=1, I=2)'."""
  return f'{"ReST" if grow else "BC"} (G={grow}, I={improve})'


def _policy(trained: Trained) -> dict[str, Any]:
  """One row of the policies' table."""
  record = trained.policy.record
  results = trained.evaluation.results
  kept = record['results'].get('filter')
  return {
    'name': trained.name,
    'grow': trained.grow,
    'improve': trained.improve,
    'loss': record['results']['loss_name'],
    'threshold': record['params'].get('threshold'),
    'kept_fraction': kept and kept['kept_fraction'],
    **{key: results[key] for key in POLICY_KEYS},
    'artifact': trained.policy.name,
    **({'drawn': record['results']['drawn']} if 'drawn' in record['results'] else {}),
  }


def _stage(entry: artifact.HistoryEntry) -> dict[str, Any]:
  record = entry.artifact.record
  return {
    'name': entry.artifact.name,
    'stage': entry.artifact.stage,
    **record['cost'],
    'reused': entry.outcome == 'reused',
  }


def _reward_model(
  reward_model: artifact.Artifact, grown: Sequence[Grown]
) -> dict[str, Any] | None:
  if not reward_model.finished:
    return None
  kind = None
  if grown:
    kind = paths.read_json(grown[0].rewards.path / 'normaliser.json')['kind']
  found = reward_model.results['held_out']
  return {
    **found,
    'num_pairs': int(found['pairs']),
    'num_groups': int(found['groups_used']),
    'normaliser': kind,
  }


def _value_model(grow: int, value_model: artifact.Artifact) -> dict[str, Any]:
  keys = ('discount', 'best_step', 'train', 'held_out')
  return {
    'name': value_model.name,
    'grow': grow,
    **{key: value_model.results[key] for key in keys},
  }


def _grow(grown: Grown, trained: Sequence[Trained]) -> dict[str, Any]:
  samples, rewards = grown.samples.results, grown.rewards.results
  thresholds = []
  for one in trained:
    if one.grow == grown.grow and one.algorithm is None:
      kept = one.policy.results['filter']
      thresholds.append(
        {
          'improve': one.improve,
          'threshold': one.policy.record['params']['threshold'],
          'kept_fraction': kept['kept_fraction'],
          'sources_left': kept['kept_sources'],
          'emptied_sources': kept['emptied_sources'],
          'kept_tokens': kept['kept_tokens'],
          'tokens': kept['tokens'],
        }
      )
  return {
    'name': grown.samples.name,
    'grow': grown.grow,
    'num_sources': samples['sources'],
    'num_candidates': samples['candidates'],
    'mean_reward': rewards['mean_reward'],
    'mean_reward_model': rewards['mean_reward_model'],
    'mean_reward_data': rewards['mean_reward_data'],
    'gold_agreement': rewards['gold_agreement'],
    'stale_gold_agreement': (
      grown.stale.results['gold_agreement']
      if grown.stale is not None and grown.stale.finished
      else None
    ),
    **({'probes': probes} if (probes := _probes(grown.probed)) else {}),
    'unfinished_fraction': samples['unfinished_fraction'],
    'duplicate_fraction': samples['duplicate_fraction'],
    'mean_length': samples['mean_length'],
    'thresholds': thresholds,
  }


def _human(human: artifact.Artifact, trained: Sequence[Trained]) -> dict[str, Any]:
  """What people's ratings say, with the policies' names and without the raters'."""
  by_evaluation = {t.evaluation.name: t for t in trained}
  results = human.results
  owners = [system['system'].partition('/')[0] for system in results['systems']]

  def named(system: str) -> str:
    owner, _, outputs = system.partition('/')
    one = by_evaluation.get(owner)
    name = owner if one is None else one.name
    return f'{name}, {outputs}' if outputs else name

  systems = []
  for system, owner in zip(results['systems'], owners, strict=True):
    one = by_evaluation.get(owner)
    if one is not None and (one.algorithm or owners.count(owner) > 1):
      one = None  # no place of its own on the axis of Algorithm 1
    systems.append(
      {
        **system,
        'name': named(system['system']),
        'baseline': system['baseline'] and named(system['baseline']),
        'grow': one and one.grow,
        'improve': one and one.improve,
      }
    )
  pairs = len(results['agreement']['pairs'])
  rater_agreement = {**results['agreement'], 'pairs': pairs}
  return {**results, 'systems': systems, 'agreement': rater_agreement}


def _selected(selected: Selected, trained: Sequence[Trained]) -> dict[str, Any]:
  """One policy's rows of Best-of-N."""
  names = {t.policy.name: t.name for t in trained}
  results = selected.selection.results
  return {
    'policy': names.get(selected.policy.name, selected.policy.name),
    'artifact': selected.selection.name,
    'rows': results['rows'],
    'num_sources': results['num_sources'],
    'samples_per_source': results['samples_per_source'],
  }


def _probes(probed: artifact.Artifact | None) -> dict[str, Any] | None:
  """What the probes found, under the artifact's name."""
  if probed is None or not probed.finished:
    return None
  return {'name': probed.name, **probed.results}


def _warnings(
  trained: Sequence[Trained],
  grown: Sequence[Grown],
  probed: artifact.Artifact | None,
) -> list[str]:
  """Sentences about what a reader should not overlook."""
  warnings = []
  for one in trained:
    fit = one.policy.results
    if one.grow and fit['best_step'] == 0:
      warnings.append(
        f'{one.name} is the policy that it started from: '
        'no evaluation of this Improve step raised the held-out reward'
      )
    if one.evaluation.results['unfinished_fraction'] > 0.05:
      share = one.evaluation.results['unfinished_fraction']
      warnings.append(
        f'{share:.0%} of the samples of {one.name} reached '
        'the length limit before they ended'
      )
  for one_grow in grown:
    inside = (one_grow.rewards.results['gold_agreement'] or {}).get(
      'spearman_in_groups'
    )
    if inside is not None and inside < 0.2:
      warnings.append(
        f'inside the groups of Grow {one_grow.grow} the reward ranks candidates '
        f'nearly unlike the gold measure (Spearman {inside:.2f}): a filter chooses '
        'there, and has little to go by'
      )
  for found in (probed, *(one_grow.probed for one_grow in grown)):
    if probes := _probes(found):
      warnings += probes_report.warnings(probes)
  return warnings


def _settings(
  run: artifact.Run,
  corpus: artifact.Artifact,
  trained: Sequence[Trained],
  seed: int | None,
) -> dict[str, Any]:
  model = trained[0].policy.record
  return {
    'seed': seed,
    'versions': artifact.versions(),
    'devices': sorted({device.device_kind for device in jax.devices()}),
    'device_count': jax.device_count(),
    'mesh': dict(run.mesh.shape),
    'command': shlex.join(sys.argv),
    'corpus': {'name': corpus.record['params']['corpus']['type'], **corpus.results},
    'model': {
      'parameters': model['results'].get('parameters'),
      **(model['params'].get('config') or {}),
    },
  }


def _curves(entry: artifact.HistoryEntry) -> list[dict[str, Any]]:
  """The training curves that a stage wrote down, if it trained anything."""
  curves = entry.artifact.results.get('curves', {})
  return [
    {'stage': entry.artifact.name, 'metric': SHOWN_CURVES[metric], **curve}
    for metric, curve in curves.items()
    if metric in SHOWN_CURVES
  ]


def _groups(trained: Trained, num_groups: int) -> list[dict[str, Any]]:
  """The same sample groups for every policy, for the browser in the page."""
  path = trained.evaluation.path
  shard = shards.shard_path(path, 0, 1)
  rows = np.arange(min(num_groups, trained.evaluation.results['num_sources']))
  groups = group_store.read_groups(shard, rows=rows)
  rewards = reward_store.read_rewards(shards.shard_path(path, 0, 1, 'rewards')).rewards
  gold = reward_store.read_rewards(
    shards.shard_path(path / 'gold', 0, 1, 'rewards')
  ).rewards
  shown = []
  for row, group in zip(rows, groups, strict=True):
    log_probs = group.token_log_probs or ()
    shown.append(
      {
        'policy': trained.name,
        'source_id': group.source_id,
        'source': group.source,
        'reference': group.reference,
        'renderings': list(group.renderings),
        'candidates': [
          {
            'text': text,
            'reward': float(rewards[row][i]),
            'gold': float(gold[row][i]),
            'log_prob': float(log_probs[i].sum()) if log_probs else None,
            'kept': None,
          }
          for i, text in enumerate(group.texts)
        ],
      }
    )
  return shown

"""Made-up runs to draw: a full one that over-optimises, and the smallest one.

`python -m tests.report.example PAGE.html` writes the full one, to look at.
"""

import pathlib
import random
import sys
from typing import Any

from rest_jax.report.data import ReportData

HOSTILE = '<script>alert("x")</script> & <img src=x onerror=alert(1)> \'"'
_NOUNS = ('dog', 'child', 'woman', 'cyclist', 'band', 'goalkeeper', 'painter')
_VERBS = ('crosses', 'watches', 'paints', 'follows', 'remembers', 'leaves')
_PLACES = ('the old bridge', 'a busy street', 'the lake', 'a small stage', 'the field')


def _policy(
  grow: int, improve: int, *, reward: float, gold: float, bleu: float, kl: float
) -> dict[str, Any]:
  name = f'BC (G={grow}, I={improve})' if grow == 0 else f'ReST (G={grow}, I={improve})'
  threshold = None if improve == 0 else 0.6 + 0.1 * improve
  return {
    'name': name,
    'grow': grow,
    'improve': improve,
    'loss': 'behavioural_cloning',
    'threshold': threshold,
    'kept_fraction': threshold and round(0.95 - threshold, 3),
    'reward_mean': reward,
    'reward_interval': [reward - 0.006, reward + 0.006],
    'gold_mean': gold,
    'gold_interval': [gold - 0.007, gold + 0.008],
    'exact_match': gold - 0.3,
    'bleu': bleu,
    'bleu_interval': [bleu - 1.1, bleu + 1.2],
    'chrf': bleu + 19.4,
    'chrf_interval': [bleu + 18.5, bleu + 20.2],
    'length_ratio': 0.98 - 0.02 * improve,
    'distinct_1': 0.108 - 0.2 * kl / 100,
    'distinct_2': 0.412 - 0.5 * kl / 100,
    'distinct_3': 0.655 - 0.6 * kl / 100,
    'copy_rate': 0.012,
    'repetition_rate': 0.004 + kl / 900,
    'kl_to_bc': kl,
    'kl_interval': [kl * 0.93, kl * 1.07],
    'reward_gold_spearman': 0.602 - kl / 50,
    'reward_gold_spearman_in_groups': 0.361 - kl / 45,
    'num_sources': 512,
    'num_samples': 4096,
  }


def policies() -> list[dict[str, Any]]:
  """BC, two Grow steps with three Improve steps each; the last one over-optimises."""
  return [
    _policy(0, 0, reward=0.540, gold=0.545, bleu=38.8, kl=0.0),
    _policy(1, 1, reward=0.558, gold=0.563, bleu=37.7, kl=1.3),
    _policy(1, 2, reward=0.571, gold=0.571, bleu=38.2, kl=2.2),
    _policy(1, 3, reward=0.583, gold=0.573, bleu=38.4, kl=3.1),
    _policy(2, 1, reward=0.606, gold=0.586, bleu=39.0, kl=4.4),
    _policy(2, 2, reward=0.628, gold=0.584, bleu=38.9, kl=5.9),
    _policy(2, 3, reward=0.655, gold=0.558, bleu=37.1, kl=8.2),
  ]


def _stages() -> list[dict[str, Any]]:
  rows = [
    ('corpus', 'ingest', 41.0, 0.0),
    ('bc', 'supervise', 2260.0, 2210.0),
    ('reward-model', 'train_reward', 160.0, 151.0),
    ('grow-1', 'grow', 610.0, 604.0),
    ('score-1', 'score', 88.0, 84.0),
    ('improve-1-1', 'improve', 420.0, 410.0),
    ('improve-1-2', 'improve', 310.0, 301.0),
    ('improve-1-3', 'improve', 250.0, 241.0),
    ('grow-2', 'grow', 622.0, 611.0),
    ('score-2', 'score', 87.0, 84.0),
    ('improve-2-1', 'improve', 405.0, 399.0),
    ('improve-2-2', 'improve', 300.0, 288.0),
    ('improve-2-3', 'improve', 240.0, 232.0),
    ('evaluate', 'evaluate', 330.0, 300.0),
  ]
  return [
    {
      'name': name,
      'stage': stage,
      'seconds': seconds,
      'device_seconds': device,
      'peak_memory_bytes': int(1.1e9 + 4e5 * seconds),
      'energy_joules': None,
      'reused': place < 3,
    }
    for place, (name, stage, seconds, device) in enumerate(rows)
  ]


def _grow(grow: int) -> dict[str, Any]:
  kept = {1: 0.404, 2: 0.227, 3: 0.101}
  return {
    'name': f'grow-{grow}',
    'grow': grow,
    'num_sources': 1500,
    'num_candidates': 12_000,
    'mean_reward': 0.50 + 0.04 * grow,
    'unfinished_fraction': 0.0031,
    'duplicate_fraction': 0.143,
    'mean_length': 16.4,
    'thresholds': [
      {
        'improve': i,
        'threshold': 0.6 + 0.1 * i,
        'kept_fraction': kept[i],
        'sources_left': 1500 - 320 * i,
        'emptied_sources': 320 * i,
        'kept_tokens': int(220_000 * kept[i]),
        'tokens': 220_000,
      }
      for i in (1, 2, 3)
    ],
  }


def _histogram(rng: random.Random, grow: int, num_bins: int = 40) -> dict[str, Any]:
  counts, counts_data = [0] * num_bins, [0] * num_bins
  for _ in range(12_000):
    counts[int(num_bins * rng.betavariate(2.4 + grow, 2.6))] += 1
  for _ in range(1_500):
    counts_data[int(num_bins * rng.betavariate(5, 2.2))] += 1
  return {
    'grow': grow,
    'edges': [i / num_bins for i in range(num_bins + 1)],
    'counts': counts,
    'counts_data': counts_data,
  }


def _curves(rng: random.Random) -> list[dict[str, Any]]:
  curves = []

  def add(
    stage: str, metric: str, num: int, start: float, end: float, noise: float
  ) -> None:
    values = [
      end + (start - end) * 0.02 ** (i / num) + rng.gauss(0, noise) for i in range(num)
    ]
    curves.append(
      {
        'stage': stage,
        'metric': metric,
        'steps': [10 * (i + 1) for i in range(num)],
        'values': values,
      }
    )

  add('bc', 'loss', 900, 7.8, 1.6, 0.09)
  add('bc', 'eval_loss', 12, 5.2, 1.9, 0.02)
  add('reward-model', 'loss', 200, 0.09, 0.02, 0.004)
  add('reward-model', 'spearman', 10, 0.1, 0.6, 0.01)
  for grow in (1, 2):
    for improve in (1, 2, 3):
      base = 0.50 + 0.04 * grow + 0.012 * improve
      add(f'improve-{grow}-{improve}', 'reward', 8, base, base + 0.016, 0.002)
  return curves


def _probes() -> dict[str, Any]:
  """Five probes: one failed, one that a coin would pass, one without a pair."""
  rows = [
    ('dropped_words', 250, 0.976, [0.949, 0.989], 0.0, 1.24),
    ('shuffled_words', 255, 1.0, [0.985, 1.0], 0.0, 4.31),
    ('repeated_sentence', 192, 0.31, [0.249, 0.379], 0.02, -0.62),
    ('dropped_clause', 10, 0.8, [0.49, 0.943], 0.0, 0.93),
    ('copied_source', 0, None, None, None, None),
  ]
  return {
    'name': 'probe_reward_model',
    'scorer': 'reward_model',
    'split': 'validation',
    'num_sources': 255,
    'overall': 0.7715,
    'rows': [
      {
        'name': name,
        'pairs': pairs,
        'sources': pairs,
        'share': share,
        'interval': interval,
        'ties': ties,
        'gap': gap,
        'not_applicable': 255 - pairs,
        'left_out': 0,
        'worst': [
          {
            'source_id': f'validation/{place:08d}',
            'source': f'Ein Satz Nummer {place} über den See.',
            'better': 'A sentence about the lake.',
            'worse': HOSTILE if place else 'A sentence. A sentence.',
            'reward_better': 3.25 - place,
            'reward_worse': 2.75,
          }
          for place in range(2 if pairs else 0)
        ],
      }
      for name, pairs, share, interval, ties, gap in rows
    ],
  }


def _groups(rng: random.Random, num_sources: int) -> list[dict[str, Any]]:
  groups = []
  names = [policy['name'] for policy in policies()]
  for place in range(num_sources):
    words = [
      f'A {noun} {verb} {where}.'
      for noun in rng.sample(_NOUNS, 2)
      for verb in rng.sample(_VERBS, 2)
      for where in rng.sample(_PLACES, 2)
    ]
    for policy in (names[0], names[3], names[-1]):
      candidates = []
      for text in words:
        reward = min(max(rng.gauss(0.58, 0.2), 0.0), 1.0)
        candidates.append(
          {
            'text': text,
            'reward': reward,
            'gold': min(max(reward + rng.gauss(-0.05, 0.18), 0.0), 1.0),
            'log_prob': -rng.uniform(4, 28),
            'kept': None if policy == names[0] else reward > 0.7,
          }
        )
      if place == 1:
        candidates[0]['text'] = HOSTILE
      groups.append(
        {
          'policy': policy,
          'source_id': f'validation/{place:08d}',
          'source': f'Ein Satz Nummer {place} über den See und die Straße.',
          'reference': words[0],
          'renderings': words[1:3] if place % 2 else [],
          'candidates': candidates,
        }
      )
  return groups


def full_example(seed: int = 0, num_sources: int = 12) -> ReportData:
  """Everything measured but energy; proxy and gold part ways at the last step."""
  rng = random.Random(seed)
  summary = {
    'policies': policies(),
    'stages': _stages(),
    'reward_model': {
      'spearman': 0.602,
      'kendall': 0.431,
      'pearson': 0.588,
      'spearman_in_groups': 0.361,
      'kendall_in_groups': 0.274,
      'pearson_in_groups': 0.349,
      'num_pairs': 4096,
      'num_groups': 512,
      'normaliser': 'empirical CDF',
    },
    'grows': [_grow(1), _grow(2)],
    'probes': _probes(),
    'warnings': ['The filter τ = 0.9 of G=2 I=3 emptied 64.0 % of the sources.'],
    'settings': {
      'seed': 7,
      'versions': {'rest_jax': '0.1.0', 'jax': '0.10.2', 'flax': '0.12.8'},
      'devices': ['cpu:0', 'cpu:1'],
      'device_count': 2,
      'started': '2025-01-31 09:12 UTC',
      'command': 'rest_jax --gin_file=runs/everyday.gin --gin.SEED=7',
      'corpus': {
        'name': 'everyday',
        'train': 29000,
        'validation': 512,
        'vocabulary': 4000,
      },
      'model': {
        'num_layers': '2 + 2',
        'emb_dim': 192,
        'num_heads': 4,
        'dtype': 'float32',
        'positions': {'kind': 'relative', 'buckets': 32},
      },
    },
  }
  return ReportData(
    summary=summary,
    histograms=[_histogram(rng, 1), _histogram(rng, 2)],
    curves=_curves(rng),
    groups=_groups(rng, num_sources),
  )


def human_ratings() -> dict[str, Any]:
  """What people say of three policies: the last is best by reward, not by them."""
  systems = []
  for place, rating in enumerate((3.10, 3.62, 2.71)):
    policy = policies()[3 * place]
    compared = place > 0
    system: dict[str, Any] = {
      'name': policy['name'] if place < 2 else HOSTILE,
      'system': f'evaluate_{place}',
      'baseline': policies()[0]['name'],
      'grow': policy['grow'],
      'improve': policy['improve'],
      'num_sources': 100,
      'rating_mean': rating,
      'rating_interval': [rating - 0.21, rating + 0.19],
      'difference': rating - 3.10 if compared else None,
      'difference_interval': [rating - 3.25, rating - 2.95] if compared else None,
      'win_rate': 0.5 + (rating - 3.1) / 2 if compared else None,
      'win_rate_interval': [0.4, 0.6] if compared else None,
      'wins': 0.5 if compared else None,
      'ties': 0.3 if compared else None,
      'losses': 0.2 if compared else None,
      'rank_by_humans': (2, 1, 3)[place],
      'rank_by_reward': (3, 2, 1)[place],
    }
    systems.append(system)
  return {
    'num_ratings': 540,
    'num_raters': 2,
    'num_sources': 100,
    'num_candidates': 290,
    'systems': systems,
    'agreement': {
      'alpha': 0.612,
      'alpha_interval': [0.53, 0.69],
      'candidates': 250,
      'mean_spearman': 0.655,
      'pairs': 1,
    },
    'reward_agreement': {'spearman': 0.41, 'spearman_in_groups': 0.22},
  }


def minimal_example() -> ReportData:
  """BC alone, every measure null."""
  policy = dict.fromkeys(policies()[0])
  policy.update(name='BC (G=0, I=0)', grow=0, improve=0)
  stage = dict.fromkeys(_stages()[0])
  stage.update(name='bc', stage='supervise', reused=False)
  return ReportData(
    summary={
      'policies': [policy],
      'stages': [stage],
      'reward_model': None,
      'grows': [],
      'warnings': [],
      'settings': {'seed': None, 'corpus': None},
    }
  )


if __name__ == '__main__':
  from rest_jax.report.page import render_page

  pathlib.Path(sys.argv[1]).write_text(render_page(full_example()), encoding='utf-8')

"""Asks a scorer what it thinks of probes' pairs, and counts its answers.

All texts of one source, the worse ones of every probe and the better ones, are
candidates of one group: a learned scorer encodes the source once, and a scorer that
reads whole groups has the policy's samples (origin 'model') among them.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rest_jax.data import vocabularies
from rest_jax.data.group_store import Group
from rest_jax.rewards import probes as probes_lib
from rest_jax.rewards import text

OVERALL = 'overall'  # stands for all probes in a minimum
_NORMAL_QUANTILE = 1.959964  # of 97.5 %


@dataclasses.dataclass(frozen=True)
class Judged:
  """One pair and the rewards of its two texts."""

  probe: str
  source_id: str
  source: str
  better: str
  worse: str
  reward_better: float
  reward_worse: float

  @property
  def gap(self) -> float:
    """By how much the better text has more reward; below 0 is ranked wrongly."""
    return self.reward_better - self.reward_worse

  @property
  def rightly(self) -> float:
    """1 where the better text has the higher reward, 1/2 for a tie, else 0."""
    return (1 + float(np.sign(self.gap))) / 2

  def to_dict(self) -> dict[str, Any]:
    """JSON-able: its fields."""
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Answers:
  """What a scorer said of all pairs.

  Attributes:
    judged: every pair that was scored, source by source.
    not_applicable: by probe, sources to which it does not apply.
    left_out: by probe, pairs that the model cannot read: a text has more tokens than
      it may, or its vocabulary writes both texts alike.
  """

  judged: list[Judged]
  not_applicable: dict[str, int]
  left_out: dict[str, int]


def name_of(probe: probes_lib.Probe) -> str:
  """The function's name."""
  return str(getattr(probe, '__name__', probe))


def ask(
  score_groups: Callable[[Sequence[Group]], Sequence[np.ndarray]],
  groups: Sequence[Group],
  *,
  samples: Mapping[str, Sequence[str]],
  probes: Sequence[probes_lib.Probe],
  vocabulary: vocabularies.Vocabulary,
  target_length: int,
  seed: int,
) -> Answers:
  """Makes every probe's pairs of every source, and scores them.

  The probed text is a correct translation: the reference, unless renderings are known
  and it is none of them; then the first of these. It is the `reference` of the groups
  that the scorer sees.

  Args:
    score_groups: the scorer.
    groups: sources with references, such as a corpus's split.
    samples: texts of a policy's candidates by source_id; none where it has no entry.
    probes: what to apply.
    vocabulary: of the scorer.
    target_length: the most tokens of a text, EOS included.
    seed: of the probes' random numbers, with each probe's name and the source_id.

  Raises:
    ValueError: no group has a reference.
  """
  groups = [group for group in groups if group.reference is not None]
  if not groups:
    raise ValueError(
      'no source has a reference, which probes are made of: probe on a corpus with '
      'references'
    )
  materials = _materials(groups, samples)
  not_applicable = {name_of(probe): 0 for probe in probes}
  left_out = dict(not_applicable)
  asked: list[tuple[Group, list[tuple[str, probes_lib.Pair]]]] = []
  for group, material in zip(groups, materials, strict=True):
    pairs: list[tuple[str, probes_lib.Pair]] = []
    for probe in probes:
      name = name_of(probe)
      found = probe(material, probes_lib.source_rng(seed, name, group.source_id))
      not_applicable[name] += not found
      pairs += [(name, pair) for pair in found]
    texts = list(dict.fromkeys(itertools.chain(*(pair for _, pair in pairs))))
    tokens = dict(zip(texts, vocabulary.encode_batch(texts), strict=True))
    readable = []
    for name, pair in pairs:
      first, second = (tokens[side] for side in pair)
      longest = max(len(first), len(second))
      if longest > target_length or np.array_equal(first, second):
        left_out[name] += 1
      else:
        readable.append((name, pair))
    if readable:
      asked.append((_group(group, material, readable, tokens), readable))
  rewards = score_groups([group for group, _ in asked])
  judged = []
  for (group, pairs), values in zip(asked, rewards, strict=True):
    reward = dict(zip(group.texts, map(float, values), strict=True))
    for name, (better, worse) in pairs:
      judged.append(
        Judged(
          name,
          group.source_id,
          group.source,
          better,
          worse,
          reward[better],
          reward[worse],
        )
      )
  return Answers(judged, not_applicable, left_out)


def summarise(answers: Answers, *, num_worst: int) -> dict[str, Any]:
  """JSON values: a row per probe, and `overall`, the mean of their shares.

  A row: `pairs` and `sources`; `share` ranked rightly, a tie counting half and each
  source weighing the same, with its 95 % `interval`; `ties`, a share of the pairs;
  `gap`, the mean of the better text's reward minus the worse one's, in the scorer's
  units; `not_applicable` sources and `left_out` pairs (see Answers); `worst`, the
  pairs with the lowest gap, no source twice. A probe without a pair has null figures,
  and does not count overall.
  """
  rows = [
    _row(
      name,
      [pair for pair in answers.judged if pair.probe == name],
      num_worst,
    )
    | {
      'not_applicable': answers.not_applicable[name],
      'left_out': answers.left_out[name],
    }
    for name in answers.not_applicable
  ]
  shares = [row['share'] for row in rows if row['share'] is not None]
  return {OVERALL: float(np.mean(shares)) if shares else None, 'rows': rows}


def share_interval(share: float, num_sources: int) -> tuple[float, float]:
  """Wilson's 95 % interval of a share (Wilson 1927).

      (p + z²/2n ± z √(p (1 - p) / n + z²/4n²)) / (1 + z²/n)

  Unlike a bootstrap's it has a width at shares of 0 and 1. Values between 0 and 1,
  such as ties that count half, vary no more than p (1 - p), so for them it is wide
  enough.
  """
  z, n = _NORMAL_QUANTILE, num_sources
  centre = share + z**2 / (2 * n)
  half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
  low, high = ((centre + side * half) / (1 + z**2 / n) for side in (-1, 1))
  # Rounding may not take the ends beyond the share itself.
  return max(min(low, share), 0.0), min(max(high, share), 1.0)


def check_minimum(
  minimum: Mapping[str, float], probes: Sequence[probes_lib.Probe]
) -> None:
  """Raises ValueError for an unknown probe or a share outside of [0, 1]."""
  known = [*map(name_of, probes), OVERALL]
  for name, least in minimum.items():
    if name not in known:
      raise ValueError(
        f'minimum names {name!r}, which is no probe; known: {", ".join(known)}'
      )
    if not 0 <= least <= 1:
      raise ValueError(
        f'minimum of {name} is {least}: a share ranked rightly lies in [0, 1], as 0.9'
      )


def failures(summary: Mapping[str, Any], minimum: Mapping[str, float]) -> list[str]:
  """What falls short of its minimum, as phrases; a probe without a pair does."""
  rows = {row['name']: row for row in summary['rows']}
  found = []
  for name, least in minimum.items():
    if name == OVERALL:
      share, of = summary[OVERALL], f'{len(rows)} probes'
    else:
      share, of = rows[name]['share'], f'{rows[name]["pairs"]:,} pairs'
    if share is None:
      found.append(f'{name} has no pair, and at least {least:.1%} is asked for')
    elif share < least:
      found.append(
        f'{name}: {share:.1%} of {of}, and at least {least:.1%} is asked for'
      )
  return found


def _materials(
  groups: Sequence[Group], samples: Mapping[str, Sequence[str]]
) -> list[probes_lib.Material]:
  correct = [text.correct_texts(group) for group in groups]
  references = [
    group.reference if group.reference in known else known[0]
    for group, known in zip(groups, correct, strict=True)
  ]
  # By name, so that the place of a source in the set decides nothing.
  by_name = sorted(range(len(groups)), key=lambda place: groups[place].source_id)
  return [
    probes_lib.Material(
      source=group.source,
      reference=references[place],
      correct=correct[place],
      others=tuple(references[other] for other in by_name if other != place),
      samples=tuple(samples.get(group.source_id, ())),
    )
    for place, group in enumerate(groups)
  ]


def _group(
  group: Group,
  material: probes_lib.Material,
  pairs: Sequence[tuple[str, probes_lib.Pair]],
  tokens: Mapping[str, np.ndarray],
) -> Group:
  """The texts of one source's pairs, each once, as candidates."""
  texts = tuple(dict.fromkeys(itertools.chain(*(pair for _, pair in pairs))))
  drawn = set(material.samples)
  return dataclasses.replace(
    group,
    reference=material.reference,
    texts=texts,
    tokens=tuple(tokens[one] for one in texts),
    token_log_probs=None,
    finished=np.ones(len(texts), bool),
    origins=tuple('model' if one in drawn else 'data' for one in texts),
  )


def _row(name: str, judged: Sequence[Judged], num_worst: int) -> dict[str, Any]:
  """The figures of one probe."""
  by_source: dict[str, list[Judged]] = {}
  for pair in judged:
    by_source.setdefault(pair.source_id, []).append(pair)
  row: dict[str, Any] = {'name': name, 'pairs': len(judged), 'sources': len(by_source)}
  row |= dict.fromkeys(('share', 'interval', 'ties', 'gap'))
  if judged:
    share = float(
      np.mean([np.mean([p.rightly for p in s]) for s in by_source.values()])
    )
    row['share'] = share
    row['interval'] = list(share_interval(share, len(by_source)))
    row['ties'] = float(np.mean([pair.gap == 0 for pair in judged]))
    row['gap'] = float(
      np.mean([np.mean([p.gap for p in s]) for s in by_source.values()])
    )
  lowest = [min(pairs, key=lambda pair: pair.gap) for pairs in by_source.values()]
  lowest.sort(key=lambda pair: pair.gap)  # stable: ties stay in the sources' order
  row['worst'] = [pair.to_dict() for pair in lowest[:num_worst]]
  return row

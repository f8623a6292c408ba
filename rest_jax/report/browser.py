"""Which sample groups, and how much of each, the page shows."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

from rest_jax.report.data import Record, number

MAX_CANDIDATES = 16  # of one group: its best and worst by reward, and between
MAX_TEXT_CHARACTERS = 2_000
BYTES_FOR_GROUPS = 800_000  # of the page's 1.5 MB
_MARKUP_PER_CANDIDATE = 450  # bytes around one candidate's text; measured: 400
_MARKUP_PER_GROUP = 900  # measured: 800


@dataclasses.dataclass(frozen=True)
class ShownCandidate:
  """A candidate as the page shows it."""

  order: int  # place in which it was drawn
  text: str
  reward: float | None
  gold: float | None
  log_prob: float | None  # nats
  kept: bool | None  # None: no filter was applied
  reward_bar: float  # percent of the bar's length
  gold_bar: float
  best_reward: bool  # the highest of its group
  best_gold: bool


@dataclasses.dataclass(frozen=True)
class ShownGroup:
  """A group as the page shows it, candidates by falling reward."""

  policy: str
  source_id: str
  source: str
  reference: str | None
  renderings: tuple[str, ...]
  candidates: tuple[ShownCandidate, ...]
  num_hidden: int  # candidates left out
  mean_reward: float | None  # over all candidates, hidden ones too

  @property
  def best(self) -> ShownCandidate | None:
    """The candidate of the highest reward."""
    return self.candidates[0] if self.candidates else None


def _cut(text: str) -> str:
  if len(text) <= MAX_TEXT_CHARACTERS:
    return text
  rest = len(text) - MAX_TEXT_CHARACTERS
  return f'{text[:MAX_TEXT_CHARACTERS]}… ({rest:,} more characters)'


def score_range(groups: Sequence[Record], key: str) -> tuple[float, float]:
  """The scale of the score bars: 0 to 1 where all scores fit, else their range."""
  scores = [
    value
    for group in groups
    for candidate in group['candidates']
    if (value := number(candidate, key)) is not None
  ]
  if not scores or (min(scores) >= 0 and max(scores) <= 1):
    return 0.0, 1.0
  return min(scores), max(scores)


def _bar(value: float | None, low: float, high: float) -> float:
  if value is None or high <= low:
    return 0.0
  return round(100 * (value - low) / (high - low), 1)


def _spread(num_items: int, limit: int) -> list[int]:
  """At most `limit` places out of num_items, evenly from the first to the last."""
  if num_items <= limit:
    return list(range(num_items))
  return [round(i * (num_items - 1) / (limit - 1)) for i in range(limit)]


def shown_group(
  group: Record, reward_range: tuple[float, float], gold_range: tuple[float, float]
) -> ShownGroup:
  """One group, cut to what the page has room for."""
  candidates = list(enumerate(group['candidates']))
  rewards = {order: number(c, 'reward') for order, c in candidates}
  golds = {order: number(c, 'gold') for order, c in candidates}
  known_rewards = [r for r in rewards.values() if r is not None]
  top_reward = max(known_rewards, default=math.inf)
  top_gold = max((g for g in golds.values() if g is not None), default=math.inf)

  def falling(item: tuple[int, Record]) -> float:
    reward = rewards[item[0]]
    return math.inf if reward is None else -reward

  ranked = sorted(candidates, key=falling)
  shown = tuple(
    ShownCandidate(
      order=order,
      text=_cut(str(candidate['text'])),
      reward=rewards[order],
      gold=golds[order],
      log_prob=number(candidate, 'log_prob'),
      kept=candidate.get('kept'),
      reward_bar=_bar(rewards[order], *reward_range),
      gold_bar=_bar(golds[order], *gold_range),
      best_reward=rewards[order] == top_reward,
      best_gold=golds[order] == top_gold,
    )
    for order, candidate in (ranked[i] for i in _spread(len(ranked), MAX_CANDIDATES))
  )
  reference = group.get('reference')
  return ShownGroup(
    policy=str(group['policy']),
    source_id=str(group['source_id']),
    source=_cut(str(group['source'])),
    reference=None if reference is None else _cut(str(reference)),
    renderings=tuple(_cut(str(r)) for r in group.get('renderings') or ()),
    candidates=shown,
    num_hidden=len(ranked) - len(shown),
    mean_reward=sum(known_rewards) / len(known_rewards) if known_rewards else None,
  )


def _num_bytes(group: ShownGroup) -> int:
  """About how much of the page a group takes."""
  texts = [group.source, group.reference or '', *group.renderings]
  texts += [candidate.text for candidate in group.candidates]
  # Escaping makes "<" four bytes and "&" five.
  size = sum(len(t.encode()) + 4 * sum(t.count(c) for c in '<>&"\'') for t in texts)
  best = group.candidates[0].text if group.candidates else ''
  size += len(best.encode())  # shown twice: also in the group's closed state
  markup = _MARKUP_PER_GROUP + _MARKUP_PER_CANDIDATE * len(group.candidates)
  return size + markup


def shown_groups(
  groups: Sequence[Record], num_bytes: int = BYTES_FOR_GROUPS
) -> tuple[tuple[ShownGroup, ...], int]:
  """The groups the page has room for, in the order given, and how many are not.

  Where room is short, policies take turns, so each keeps its first groups.
  """
  ranges = score_range(groups, 'reward'), score_range(groups, 'gold')
  by_policy: dict[str, list[int]] = {}
  for place, group in enumerate(groups):
    by_policy.setdefault(str(group['policy']), []).append(place)
  turns = itertools.zip_longest(*by_policy.values())
  chosen: dict[int, ShownGroup] = {}
  for place in itertools.chain.from_iterable(turns):
    if place is None:
      continue
    candidate_group = shown_group(groups[place], *ranges)
    num_bytes -= _num_bytes(candidate_group)
    if num_bytes < 0:
      break
    chosen[place] = candidate_group
  kept = tuple(chosen[place] for place in sorted(chosen))
  return kept, len(groups) - len(kept)

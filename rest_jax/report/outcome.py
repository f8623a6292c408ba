"""What the numbers say: the run in one sentence, and where proxy and gold part."""

import dataclasses
from collections.abc import Sequence

from rest_jax.report.data import Record, half_interval, number
from rest_jax.report.formatting import score


@dataclasses.dataclass(frozen=True)
class OverOptimisation:
  """A policy whose gold fell from an earlier policy's while the proxy rose."""

  index: int  # place of the policy in the order trained
  name: str
  earlier_name: str  # the policy it is compared with
  gold_from: float
  gold_to: float
  gold_half: float  # half of the 95 % interval that the fall exceeds
  reward_from: float
  reward_to: float

  @property
  def sentence(self) -> str:
    """The finding for a banner or a terminal."""
    return (
      f'{self.name} may over-optimise the reward model: from {self.earlier_name}, '
      f'gold falls from {score(self.gold_from)} to {score(self.gold_to)} (more than '
      f'its interval of ± {score(self.gold_half)}) while the proxy reward rises from '
      f'{score(self.reward_from)} to {score(self.reward_to)}.'
    )


def _parting(
  policies: Sequence[Record], earlier: int, later: int
) -> OverOptimisation | None:
  """The finding that policy `later` parts from `earlier`, or None."""
  a, b = policies[earlier], policies[later]
  gold_from, gold_to = number(a, 'gold_mean'), number(b, 'gold_mean')
  reward_from, reward_to = number(a, 'reward_mean'), number(b, 'reward_mean')
  halves = [half_interval(p, 'gold_interval') for p in (a, b)]
  known = [half for half in halves if half is not None]
  if (
    gold_from is None
    or gold_to is None
    or reward_from is None
    or reward_to is None
    or not known
  ):
    return None
  gold_half = max(known)
  if gold_from - gold_to <= gold_half or reward_to <= reward_from:
    return None
  return OverOptimisation(
    index=later,
    name=str(b['name']),
    earlier_name=str(a['name']),
    gold_from=gold_from,
    gold_to=gold_to,
    gold_half=gold_half,
    reward_from=reward_from,
    reward_to=reward_to,
  )


def over_optimisation(policies: Sequence[Record]) -> list[OverOptimisation]:
  """The steps at which gold falls by more than its interval as the proxy rises.

  Each policy of Algorithm 1 is compared with the step before it and with the
  earlier policy of the highest gold, so a slow slide is found as well as a sudden
  drop; a slide is named once, where it first exceeds the interval. A policy outside
  Algorithm 1 (`grow` null) is compared with the first policy, from which it starts.

  "Its interval" is the larger of the two policies' half-widths. This is a warning,
  not a test: the intervals are of means over the same sources, so a paired test
  would be sharper. Unmeasured values, or no interval at all, give no finding.
  """
  findings: list[OverOptimisation] = []
  chain: list[int] = []  # places of the policies of Algorithm 1 seen so far
  sliding = False  # the slide that holds here has been named
  for later, policy in enumerate(policies):
    if later and policy.get('grow') is None:
      finding = _parting(policies, 0, later)
      if finding:
        findings.append(finding)
      continue
    if chain:
      sudden = _parting(policies, chain[-1], later)
      golds = {i: number(policies[i], 'gold_mean') for i in chain}
      measured = {i: gold for i, gold in golds.items() if gold is not None}
      best = max(measured, key=lambda i: measured[i]) if measured else None
      slow = None if best is None else _parting(policies, best, later)
      found = sudden or (None if sliding else slow)
      if found:
        findings.append(found)
      sliding = sudden is not None or slow is not None
    chain.append(later)
  return findings


def _change(first: Record, last: Record, key: str, label: str) -> tuple[str, str]:
  """A verb and the phrase 'label from a to b'; ('', '') where unmeasured."""
  a, b = number(first, f'{key}_mean'), number(last, f'{key}_mean')
  if a is None or b is None:
    return '', ''
  halves = [half_interval(p, f'{key}_interval') for p in (first, last)]
  half = max((h for h in halves if h is not None), default=0.0)
  if abs(b - a) <= half:
    return 'hardly moves', f'{label} ({score(a)} to {score(b)}, within its interval)'
  return 'raises' if b > a else 'lowers', f'{label} from {score(a)} to {score(b)}'


def headline(policies: Sequence[Record]) -> str:
  """The run's outcome in one sentence.

  Compares the last policy of Algorithm 1, not the best one (which would choose on
  the very numbers reported), with the first. A change no larger than the larger of
  the two half-intervals "hardly moves".
  """
  first = policies[0]
  chain = [p for p in policies if p.get('grow') is not None] or list(policies)
  last = chain[-1]
  if last is first:
    parts = [
      f'{label} {score(value)}'
      for key, label in (('reward', 'reward'), ('gold', 'gold'))
      if (value := number(first, f'{key}_mean')) is not None
    ]
    measured = f' reaches {" and ".join(parts)}' if parts else ' was trained'
    return f'{first["name"]}{measured}; no ReST step has been evaluated yet.'
  changes = [_change(first, last, key, key) for key in ('reward', 'gold')]
  changes = [(verb, phrase) for verb, phrase in changes if verb]
  if not changes:
    return f'{last["name"]} was trained; neither reward nor gold was measured.'
  if len(changes) == 1:
    joined = f'{changes[0][0]} {changes[0][1]}'
  else:
    (verb, phrase), (gold_verb, gold_phrase) = changes
    if verb == gold_verb:
      joined = f'{verb} {phrase} and {gold_phrase}'
    else:
      joined = f'{verb} {phrase} but {gold_verb} {gold_phrase}'
  than = 'over' if all(verb == 'raises' for verb, _ in changes) else 'against'
  base = 'BC' if first.get('grow') == 0 else first['name']
  return f'{last["name"]} {joined} {than} {base}.'

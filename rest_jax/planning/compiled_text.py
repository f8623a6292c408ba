"""What the text of a compiled program says: loops, cycles and collectives.

The compiler's own sums count the body of a loop once, however often it runs. Here
each computation counts as often as it is executed: bodies by the number of turns
that their condition states, where it states one.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

KINDS = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)
_ITEM_BITS = {'pred': 8, 'bf16': 16, 's4': 4, 'u4': 4, 'c64': 64, 'c128': 128}
_COMPUTATION = re.compile(r'^(ENTRY )?(%[\w.\-]+) \(')
_SHAPE = re.compile(r'\b(pred|bf16|c64|c128|[suf]\d+\w*)\[([\d,]*)\]')
_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?(%[\w.\-]+) = (.*)$')
_KIND = re.compile(rf'\s({"|".join(KINDS)})(-start)?\(')
_WHILE = re.compile(r'\swhile\(.*condition=(%[\w.\-]+), body=(%[\w.\-]+)')
_RUN = re.compile(r'\s(call|conditional|async-start)\(')
_CALLED = re.compile(
  r'(calls|to_apply|called_computations|branch_computations|true_computation|'
  r'false_computation)=(\{[^}]*\}|%[\w.\-]+)'
)


@dataclasses.dataclass(frozen=True)
class Collective:
  """All collectives of one kind and one number of participants, of one execution.

  Attributes:
    kind: such as 'all-reduce'.
    group: chips that take part together.
    times: how often the kind is executed.
    bytes: of the largest side (what is reduced, or what is gathered), on a chip.
  """

  kind: str
  group: int
  times: int
  bytes: int

  @property
  def sent_bytes(self) -> float:
    """What each chip sends where the group is a ring.

    (n - 1) / n of the bytes to gather or to scatter, twice that to reduce, all of
    them to permute.
    """
    if self.kind == 'collective-permute':
      return float(self.bytes)
    part = self.bytes * (self.group - 1) / self.group
    return 2 * part if self.kind == 'all-reduce' else part


@dataclasses.dataclass(frozen=True)
class Text:
  """What the text of one program says, for one chip.

  Attributes:
    collectives: by kind and group.
    cycles: the compiler's estimates, summed over what is executed, or over one turn
      of the loops of unknown length alone.
    cycles_once: over the whole program, with every loop's body counted once.
    loops_of_unknown_length: their bodies count once.
  """

  collectives: tuple[Collective, ...]
  cycles: int
  cycles_once: int
  loops_of_unknown_length: int

  @property
  def sent_bytes(self) -> float:
    """What each chip sends in all collectives."""
    return sum(one.sent_bytes for one in self.collectives)

  @property
  def repetition(self) -> float:
    """Cycles over those with loops counted once; 1 where the compiler gives none."""
    return self.cycles / self.cycles_once if self.cycles_once else 1.0


def read(text: str, *, one_turn: bool = False, branch_share: float = 1.0) -> Text:
  """Reads `compiled.as_text()`.

  Args:
    text: of it.
    one_turn: whether the cycles are those of one turn of loops of unknown length.
    branch_share: how often the branches of a choice are taken, for the cycles.
  """
  computations, entry = _computations(text)
  if entry is None:
    return Text((), 0, 0, 0)
  times: collections.Counter[str] = collections.Counter()
  timed: dict[str, float] = {}  # how often, where it is not inside a fusion
  turn: dict[str, float] = {}  # the same in one turn of loops of unknown length
  unknown = 0
  waiting = [(entry, 1, 1.0, False)]  # name, turns, share of them that is timed
  while waiting:
    name, turns, share, in_turn = waiting.pop()
    times[name] += turns
    if share:
      timed[name] = timed.get(name, 0.0) + turns * share
      turn[name] = turn.get(name, 0.0) + turns * share * in_turn
    for line in computations.get(name, ()):
      loop = _WHILE.search(line)
      if loop is not None:
        length = _turns(computations.get(loop[1], []))
        unknown += length is None
        inside = in_turn or length is None
        waiting.append((loop[2], turns * (length or 1), share, inside))
        continue
      part = share if _RUN.search(line) else 0.0  # else it is part of one instruction
      part *= branch_share if ' conditional(' in line else 1.0
      for called in _called(line):
        waiting.append((called, turns, part, in_turn))
  cycles = {name: _cycles(computations[name]) for name in timed if name in computations}
  return Text(
    collectives=tuple(_collectives(computations, times)),
    cycles=round(
      sum(n * (turn if one_turn else timed)[name] for name, n in cycles.items())
    ),
    cycles_once=sum(cycles.values()),
    loops_of_unknown_length=unknown,
  )


def shape_bytes(text: str) -> list[int]:
  """Bytes of each array that a type names, such as '(f32[8,128], bf16[4])'."""
  sizes = []
  for kind, dimensions in _SHAPE.findall(text):
    digits = re.search(r'\d+', kind)
    bits = _ITEM_BITS.get(kind) or (int(digits[0]) if digits else 8)
    count = math.prod(int(n) for n in dimensions.split(',') if n)
    sizes.append(count * bits // 8)
  return sizes


def _computations(text: str) -> tuple[dict[str, list[str]], str | None]:
  """The lines of each computation, and the name of the entry."""
  found: dict[str, list[str]] = {}
  entry = name = None
  for line in text.splitlines():
    start = _COMPUTATION.match(line)
    if start is not None and line.rstrip().endswith('{'):
      name = start[2]
      found[name] = []
      entry = name if start[1] else entry
    elif line.startswith('}'):
      name = None
    elif name is not None:
      found[name].append(line)
  return found, entry


def _called(line: str) -> Iterator[str]:
  for _, names in _CALLED.findall(line):
    yield from re.findall(r'%[\w.\-]+', names)


def _turns(condition: list[str]) -> int | None:
  """How often a loop runs whose condition compares a counter from 0 with a constant."""
  root = next((line for line in condition if line.lstrip().startswith('ROOT')), '')
  compared = re.search(r' compare\(%[\w.\-]+, (%[\w.\-]+)\), direction=(LT|LE)\b', root)
  if compared is None:
    return None
  for line in condition:
    constant = re.match(
      rf'\s*{re.escape(compared[1])} = s32\[\]\S* constant\((\d+)\)', line
    )
    if constant is not None:
      return int(constant[1]) + (compared[2] == 'LE')
  return None


def _cycles(lines: list[str]) -> int:
  return sum(
    int(n) for line in lines for n in re.findall(r'"estimated_cycles":"(\d+)"', line)
  )


def _collectives(
  computations: Mapping[str, list[str]], times: Mapping[str, int]
) -> Iterator[Collective]:
  counted: collections.Counter[tuple[str, int]] = collections.Counter()
  moved: collections.Counter[tuple[str, int]] = collections.Counter()
  for name, turns in times.items():
    for line in computations.get(name, ()):
      instruction = _INSTRUCTION.match(line)
      found = instruction and _KIND.search(instruction[2])
      if not instruction or not found:
        continue
      kind, started = found[1], found[2]
      result = shape_bytes(instruction[2][: found.start()])
      # The type of a '-start' holds operands and results.
      size = sum(result) if not started else max(result, default=0)
      if kind == 'all-reduce' and 'all-reduce-scatter' in name:
        kind = 'reduce-scatter'  # that is how the compiler fuses one
      group = group_size(line)
      if kind == 'reduce-scatter' and 'all-reduce-scatter' not in name:
        size *= group  # its result is one part
      counted[kind, group] += turns
      moved[kind, group] += size * turns
  for kind, group in sorted(counted):
    yield Collective(kind, group, counted[kind, group], moved[kind, group])


def group_size(line: str) -> int:
  """Chips that take part together in a collective; 2 for a permutation.

  Three notations: {{0,1},{2,3}}, [groups,size]<=[...], and a mesh with the axes
  along which a group lies.
  """
  listed = re.search(r'replica_groups=\{\{([\d,]*)\}', line)
  if listed:
    return len(listed[1].split(','))
  iota = re.search(r'replica_groups=\[(\d+),(\d+)\]', line)
  if iota:
    return int(iota[2])
  mesh = re.search(r'replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}', line)
  if mesh:
    sizes = {k: int(v) for k, v in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
    return math.prod(sizes[axis] for axis in re.findall(r"'([^']+)'", mesh[2]))
  return 2

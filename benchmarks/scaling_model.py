"""How training would scale from 4 chips to 1,024, and on 8 to 64 H100s: a model.

NOTHING HERE IS MEASURED. Compute and the bytes of every collective are those of the
largest program that `benchmarks.pods` compiled for a chip; the rest is arithmetic.

Weak scaling keeps the batch of a chip, strong scaling the batch of all; the data axis
is what grows, fsdp and model stay. Of a step:

    compute     as compiled; in strong scaling in proportion to the rows of a chip
    collectives bytes as compiled; a ring of g sends (g - 1) / g of what it gathers or
                scatters and twice that of what it reduces; g follows the data axis
    step        from max(compute, links)         all overlapped, links at full speed
                to   compute + 2 x links         nothing overlapped, links at half speed

    python -m benchmarks.scaling_model --json pods.jsonl

Links, one way and all of a chip's together: TPUs as in `rest_jax.planning.tpu`.
H100 SXM: 989 TFLOP/s in bfloat16 and NVLink of 450 GB/s (NVIDIA's data sheet, 900 GB/s
both ways), eight GPUs in a node; between nodes InfiniBand of 400 Gbit/s = 50 GB/s for a
GPU (the DGX H100's network). Nothing is compiled for a GPU: compute there is the traced
matrix products at MFU of the peak, from 0.5 to 0.3. What is reduced along data runs
inside the nodes first, then 1 / 8 of it between them; with fsdp, which stays inside a
node, each GPU has its part.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rest_jax.planning import compiled_text, tpu

H100_PEAK_FLOPS = 989e12
H100_MFU = (0.5, 0.3)  # the best and the worst that the range spans
NVLINK_BYTES_PER_S = 450e9
NETWORK_BYTES_PER_S = 50e9
NODE = 8  # GPUs
CHIPS = {'v5e': (4, 16, 64, 256), 'v6e': (4, 16, 64, 256), 'v5p': (4, 64, 256, 1024)}
GPUS = (8, 16, 32, 64)


@dataclasses.dataclass(frozen=True)
class Step:
  """A training step, from its best to its worst, in seconds."""

  best: float
  worst: float


def along_data(row: Mapping[str, Any], group: int) -> bool:
  """Whether a group of that size lies along the data axis, alone or with others."""
  data, fsdp, model = (row['mesh'][axis] for axis in ('data', 'fsdp', 'model'))
  others = {1, fsdp, model, fsdp * model}
  return data > 1 and group % data == 0 and group // data in others


def collectives_at(row: Mapping[str, Any], data: int) -> list[compiled_text.Collective]:
  """A row's collectives with another data axis."""
  was = row['mesh']['data']
  found = []
  for fields in row['collectives']:
    one = compiled_text.Collective(**fields)
    if along_data(row, one.group):
      one = dataclasses.replace(one, group=one.group // was * data)
    found.append(one)
  return found


def tpu_step(row: Mapping[str, Any], chips: int, *, share: float = 1.0) -> Step:
  """A step on `chips` of the row's kind.

  Args:
    row: of `benchmarks.pods`, an Improve step.
    chips: a multiple of fsdp x model.
    share: rows of a chip, over the row's.
  """
  chip = tpu.chip_of(row['topology'])
  inner = row['mesh']['fsdp'] * row['mesh']['model']
  sent = sum(one.sent_bytes for one in collectives_at(row, max(1, chips // inner)))
  compute, links = share * row['compute_s'], sent / chip.link_bytes_per_s
  return Step(max(compute, links), compute + 2 * links)


def gpu_step(row: Mapping[str, Any], gpus: int, *, share: float = 1.0) -> Step:
  """A step on H100s: fsdp of eight inside each node, data between the nodes.

  Args:
    row: of `benchmarks.pods`, an Improve step with fsdp of 1 or 8 and model of 1.
    gpus: at most 8, or a multiple of it.
    share: rows of a GPU, over those of a chip of the row.
  """
  nodes = max(1, gpus // NODE)
  inside = outside = 0.0
  for one in collectives_at(row, row['mesh']['data']):
    if not along_data(row, one.group):  # of parameters spread over fsdp
      inside += one.sent_bytes
      continue
    whole = row['mesh']['fsdp'] == 1  # else each GPU of a node has a part as it is
    if whole:
      inside += dataclasses.replace(one, group=min(NODE, gpus)).sent_bytes
    between = one.bytes // NODE if whole else one.bytes
    outside += dataclasses.replace(one, group=nodes, bytes=between).sent_bytes
  links = inside / NVLINK_BYTES_PER_S + outside / NETWORK_BYTES_PER_S
  fast, slow = (share * row['flops'] / H100_PEAK_FLOPS / mfu for mfu in H100_MFU)
  return Step(max(fast, links), slow + 2 * links)


def reference(
  rows: Sequence[Mapping[str, Any]], size: str, chip: str
) -> Mapping[str, Any] | None:
  """The row of the most chips of a kind that fits and whose data axis is in use."""
  known = [
    row
    for row in rows
    if row['size'] == size
    and row['topology'].startswith(f'{chip}:')
    and row['program_kind'] == 'improve step'
    and row['fits']
    and row['compute_s']
    and row['mesh']['data'] > 1  # else nothing says what is reduced along it
  ]
  return max(known, key=lambda row: row['chips'], default=None)


def table(rows: Sequence[Mapping[str, Any]], sizes: Sequence[str]) -> str:
  """Tokens a second, of all chips, and efficiency: weak, then strong scaling."""
  head = (
    'size | chips | tokens/s a chip, weak | efficiency, weak | tokens/s of all, weak '
    '| speed-up, strong'
  )
  lines = [f'| {head} |', '|' + '---|' * (head.count('|') + 1)]
  for size in sizes:
    for chip, counts in {**CHIPS, 'H100': GPUS}.items():
      row = reference(rows, size, 'v5p' if chip == 'H100' else chip)
      on_gpus = chip == 'H100'
      if row is None or (on_gpus and row['mesh']['fsdp'] not in (1, NODE)):
        continue
      step = gpu_step if on_gpus else tpu_step
      inner = 1 if on_gpus else row['mesh']['fsdp'] * row['mesh']['model']
      usable = [count for count in counts if count % inner == 0]
      alone = _compute_alone(row, on_gpus=on_gpus)
      tokens = row['tokens'] / row['chips']
      for count in usable:
        weak, first = step(row, count), step(row, usable[0])
        strong = step(row, count, share=usable[0] / count)
        cells = [
          size,
          f'{count} {chip}',
          _range(tokens / weak.worst, tokens / weak.best, ',.0f'),
          _range(alone.worst / weak.worst, alone.best / weak.best, '.0%'),
          _range(count * tokens / weak.worst, count * tokens / weak.best, ',.0f'),
          _range(first.worst / strong.worst, first.best / strong.best, '.1f')
          + f' of {count // usable[0]}',
        ]
        lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)


def _compute_alone(row: Mapping[str, Any], *, on_gpus: bool) -> Step:
  """A step without any collective."""
  if not on_gpus:
    return Step(row['compute_s'], row['compute_s'])
  return Step(*(row['flops'] / H100_PEAK_FLOPS / mfu for mfu in H100_MFU))


def _range(low: float, high: float, form: str) -> str:
  return f'{format(low, form)} to {format(high, form)}'


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--json', type=pathlib.Path, required=True)
  parser.add_argument('--sizes', nargs='+', default=('base', 'large', 'xl', 'xxl'))
  args = parser.parse_args(argv)
  rows = [json.loads(line) for line in args.json.read_text().splitlines()]
  print('A MODEL from compiled programs and link speeds; nothing is measured\n')
  print(table(rows, args.sizes))
  return 0


if __name__ == '__main__':
  sys.exit(main())

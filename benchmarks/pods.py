"""What T5 1.1 needs on TPU pods, and how fast it would be, by the TPU compiler.

Compiles the Improve step and Grow's decoder step of each size for described
topologies, as `--run_mode=precompile` does, and appends a JSON line for each program.
No TPU is needed, and nothing here is measured: see docs/planning.md. Each program of
the larger sizes takes minutes. What the file holds already is not compiled again.

    pip install 'rest_jax[tpu]'
    python -m benchmarks.pods --json pods.jsonl
    python -m benchmarks.pods --json pods.jsonl --table
"""

import argparse
import dataclasses
import gzip
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rest_jax.planning import tpu

SIZES = ('base', 'large', 'xl', 'xxl')
TOPOLOGIES = ('v5e:2x2', 'v5e:16x16', 'v6e:16x16', 'v5p:4x4x4', 'v5p:8x8x16')
PROGRAMS = ('improve step', 'sampler step')
LENGTH = 128  # tokens of source and target
SAMPLES_PER_ROW = 4
SLOTS = 16  # rows of the decoder for each source in flight


class Case(NamedTuple):
  """One size on one topology, with the mesh and the batch that suit it."""

  size: str
  topology: str
  mesh: str  # of MeshConfig, data takes what is left
  sources_per_chip: float  # in a training batch
  lanes_per_host: int  # sources decoded together


# The axes are the narrowest that leave room. `model` stays inside a host, since Grow
# runs there; XXL needs it, and XL where the chip is small.
MESHES = {
  'base': {
    'v5e': 'fsdp=1, model=1',
    'v6e': 'fsdp=1, model=1',
    'v5p': 'fsdp=1, model=1',
  },
  'large': {
    'v5e': 'fsdp=4, model=1',
    'v6e': 'fsdp=1, model=1',
    'v5p': 'fsdp=1, model=1',
  },
  'xl': {
    'v5e': 'fsdp=64, model=4',
    'v6e': 'fsdp=16, model=4',
    'v5p': 'fsdp=8, model=1',
  },
  'xxl': {
    'v5e': 'fsdp=64, model=4',
    'v6e': 'fsdp=64, model=4',
    'v5p': 'fsdp=16, model=4',
  },
}


def cases(sizes: Sequence[str], names: Sequence[str]) -> Iterator[Case]:
  """The cases of the table; what cannot fit by far is left out."""
  for size in sizes:
    for topology in names:
      if topology == 'v5e:2x2' and size in ('xl', 'xxl'):
        continue  # 64 GiB in all: less than parameters, copies and state
      chip = topology.partition(':')[0]
      lanes = {'base': 128, 'large': 128, 'xl': 64, 'xxl': 64}[size]
      yield Case(size, topology, MESHES[size][chip], 8, lanes)


def plan(case: Case, chips: int) -> Any:
  """The run of a case, planned on the described devices in use."""
  import gin

  from rest_jax import main
  from rest_jax.stages import artifact

  files = ('rest', f'models/t5_1_1_{case.size}', 'data/everyday')
  main.parse_gin(
    [f'gin_configs/{name}.gin' for name in files],
    [
      "MODEL_DIR = 'nothing is written'",
      f'BATCH_SIZE = {round(case.sources_per_chip * chips)}',
      f"TASK_FEATURE_LENGTHS = {{'inputs': {LENGTH}, 'targets': {LENGTH}}}",
      f'improve.improve.samples_per_row = {SAMPLES_PER_ROW}',
      f'sampler.SamplerSettings.batch_size = {case.lanes_per_host}',
      f'sampler.SamplerSettings.slots = {SLOTS}',
      "t5.T5Config.cache_layout = 'rows_last'",
      't5.T5Config.scan_layers = True',
      't5.T5Config.remat = True',
      *(f'mesh.MeshConfig.{axis}' for axis in case.mesh.split(', ')),
    ],
  )
  run = gin.get_configurable(artifact.Run)(dry_run=True)
  gin.query_parameter('ALGORITHM/macro.value').scoped_configurable_fn(run)
  return run


def compile_case(
  case: Case, kinds: Sequence[str], texts: pathlib.Path | None
) -> Iterator[dict[str, Any]]:
  """Compiles the programs of a case; yields a row for each.

  Args:
    case: what to compile.
    kinds: how the names of its programs begin.
    texts: a folder for what the compiler writes, a few MB for each program.
  """
  from rest_jax.planning import precompile, run_programs
  from rest_jax.training import mesh

  chip = tpu.chip_of(case.topology)
  devices = tpu.devices(case.topology)
  with mesh.described_devices(devices):
    run = plan(case, len(devices))
    found = run_programs.of_run(run)
  done: set[str] = set()
  # Grow's sampler is on one host; the one of Improve's evaluation is on all.
  for program in sorted(found.programs.values(), key=lambda one: one.mesh.size):
    kind = next((kind for kind in kinds if program.name.startswith(kind)), None)
    if kind is None or kind in done:
      continue
    done.add(kind)
    name = f'{case.size} {case.topology} {case.mesh} {kind}.txt.gz'.replace(' ', '_')

    def keep(text: str, name: str = name) -> None:
      if texts is not None:
        texts.mkdir(parents=True, exist_ok=True)
        (texts / name).write_bytes(gzip.compress(text.encode(), 3))

    one = precompile.compile_program(program, chip, keep_text=keep)
    yield {
      'kind': 'estimate',
      **case._asdict(),
      'program_kind': kind,
      **dataclasses.asdict(one),
      'fits': one.fits(chip),
      'seconds': one.seconds,
      'tokens_per_s': one.tokens_per_s,
      'sent_bytes': sum(c.sent_bytes for c in one.collectives),
    }


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """The rows of a file."""
  if not path.exists():
    return []
  return [json.loads(line) for line in path.read_text().splitlines()]


def main(argv: Sequence[str] | None = None) -> int:
  """Compiles what the file lacks, or prints the table of what it has."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--json', type=pathlib.Path, required=True)
  parser.add_argument('--sizes', nargs='+', default=SIZES, choices=SIZES)
  parser.add_argument('--topologies', nargs='+', default=TOPOLOGIES)
  parser.add_argument('--programs', nargs='+', default=PROGRAMS, choices=PROGRAMS)
  parser.add_argument('--mesh', help="in place of the table's, as 'fsdp=4, model=1'")
  parser.add_argument('--texts', type=pathlib.Path, help='a folder: keep the programs')
  parser.add_argument('--table', action='store_true', help='compile nothing')
  args = parser.parse_args(argv)
  if not args.table:
    tpu.prepare()
    tpu.require_libtpu()
    known = {
      (row['size'], row['topology'], row['mesh_text'], row['program_kind'])
      for row in read(args.json)
    }
    for case in cases(args.sizes, args.topologies):
      if args.mesh:
        case = case._replace(mesh=args.mesh)
      key = (case.size, case.topology, case.mesh)
      wanted = [kind for kind in args.programs if (*key, kind) not in known]
      for row in compile_case(case, wanted, args.texts) if wanted else ():
        line = json.dumps({**row, 'mesh_text': case.mesh})
        with args.json.open('a') as file:
          file.write(line + '\n')
        print(f'{key} {row["program"]}: {row["compile_s"]:.0f} s', flush=True)
  print(table(read(args.json)))
  return 0


def table(rows: Sequence[dict[str, Any]]) -> str:
  """A Markdown table."""
  head = (
    'size | topology | mesh | program | GiB a chip | fits | TFLOP | GB sent a chip | '
    'ms compute | ms links | tokens/s a chip'
  )
  lines = [f'| {head} |', '|' + '---|' * (head.count('|') + 1)]
  for row in rows:
    sent: dict[str, float] = {}
    for one in row['collectives']:
      collective = _collective(one)
      before = sent.get(collective.kind, 0.0)
      sent[collective.kind] = before + collective.sent_bytes
    most = max(sent.values(), default=0.0)
    shown = ', '.join(
      f'{kind} {n / 1e9:.3g}' for kind, n in sent.items() if n > 0.01 * most
    )
    mark = '>' if row['at_peak'] else '~' if row['by_cycles'] else ''
    cells = [
      row['size'],
      row['topology'],
      ' '.join(f'{axis}={n}' for axis, n in row['mesh'].items() if n > 1) or '-',
      row['program'],
      'unknown' if row['used_bytes'] is None else f'{row["used_bytes"] / 2**30:.1f}',
      'yes' if row['fits'] else 'no',
      f'{row["flops"] / 1e12:.3g}',
      shown or '-',
      'unknown' if row['compute_s'] is None else f'{mark}{1e3 * row["compute_s"]:.3g}',
      'unknown' if row['links_s'] is None else f'{1e3 * row["links_s"]:.3g}',
      'unknown' if row['tokens_per_s'] is None else f'{row["tokens_per_s"]:,.0f}',
    ]
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)


def _collective(fields: dict[str, Any]) -> Any:
  from rest_jax.planning import compiled_text

  return compiled_text.Collective(**fields)


if __name__ == '__main__':
  sys.exit(main())

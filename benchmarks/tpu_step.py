"""What would a decoding step cost on a TPU, by the TPU compiler's own estimate?

No TPU is needed: libtpu compiles for a described topology. One step of T5 1.1 in
bfloat16 with a whole-vocabulary draw and the token's log-probability, for

    grouped     `T5.decode_step`: candidates share their source's keys and values
    rows_last   the same with `cache_layout='rows_last'`, made for TPUs. Rows that walk
                straight on, as T5X's do, need no moves; for rows that go back to share
                prefixes they are compiled apart, and stated as a step's part at most
    int8_cache  as rows_last, keys and values of the past in 8 bits
    replicated  as rows_last with a copy of the source's keys and values for each
                candidate
    t5x         `decode` of T5X's minimal T5, which projects them at every step

The figures are ESTIMATES of the compiler, not measurements. Milliseconds are its
`optimal_seconds`, which has come out negative for some programs: what is not
positive is unknown. It counts the body of a loop once, however often it runs, so
a step that holds a loop has a lower bound in place of an estimate, marked '>'.
A second estimate stands beside it: the cycles that the compiler's back end writes
to each instruction, summed. Compare them within one chip only.

    pip install "jax[tpu]==0.10.2"
    python -m benchmarks.tpu_step --t5x PATH_OF_A_T5X_CHECKOUT
"""

import os

# Before JAX is imported: no TPU is looked for, and several runs may share libtpu.
os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')

import argparse
import dataclasses
import functools
import importlib.util
import itertools
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import t5x_rival, tpu_estimates
from rest_jax.models import rows_last, t5
from rest_jax.sampling import decoder, draws, vocab_first
from rest_jax.stages import policies
from rest_jax.training import mesh as mesh_lib

TOPOLOGIES = {'v5e': 'v5e:2x2', 'v5p': 'v5p:2x2x1', 'v6e': 'v6e:2x2'}
VOCAB_SIZE = 32128
SHAPES: dict[str, dict[str, int]] = {
  'base': {'emb_dim': 768, 'num_heads': 12, 'mlp_dim': 2048, 'num_decoder_layers': 12},
  'large': {
    'emb_dim': 1024,
    'num_heads': 16,
    'mlp_dim': 2816,
    'num_decoder_layers': 24,
  },
  'xl': {'emb_dim': 2048, 'num_heads': 32, 'mlp_dim': 5120, 'num_decoder_layers': 24},
}
VOCAB = ('spread', 'copied', 'rows')
VARIANTS = ('t5x', 'replicated', 'grouped', 'rows_last', 'int8_cache')


def libtpu_reason() -> str | None:
  """Why no TPU program can be compiled here; None if it can."""
  if importlib.util.find_spec('libtpu') is None:
    return 'libtpu is absent: pip install "jax[tpu]"'
  return None


def topology_mesh(chip: str, model: int = 1) -> Mesh:
  """A mesh over a described topology, `model` chips along the model axis.

  Raises:
    ValueError: an unknown chip.
  """
  from jax.experimental import topologies

  if chip not in TOPOLOGIES:
    raise ValueError(f'unknown chip {chip!r}; known: {", ".join(TOPOLOGIES)}')
  topology = topologies.get_topology_desc(
    platform='tpu', topology_name=TOPOLOGIES[chip]
  )
  return mesh_lib.make_mesh(mesh_lib.MeshConfig(model=model), topology.devices)


def _place(mesh: Mesh, tree: Any, axis: int | None) -> Any:
  """Shapes of `tree` on the mesh, `axis` spread over data (None: copied)."""

  def one(leaf: Any) -> jax.ShapeDtypeStruct:
    spec: list[str | None] = [None] * len(leaf.shape)
    if axis is not None and leaf.shape:
      spec[axis] = 'data'
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  return jax.tree.map(one, tree)


def _place_axes(mesh: Mesh, leaf: Any, names: Iterable[Any]) -> jax.ShapeDtypeStruct:
  """Shape on the mesh, as the sampler spreads keys and values."""
  sharding = decoder.past_sharding(mesh, leaf, names)
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _place_params(mesh: Mesh, config: t5.T5Config, vocab: str | None) -> dict[str, Any]:
  """The decoder's parameters in bfloat16, on the mesh as the rules say.

  Args:
    mesh: of `topology_mesh`.
    config: the model's shape.
    vocab: the mesh axis that the vocabulary is spread over, if any.
  """
  rules = [('vocab', vocab), *mesh_lib.DEFAULT_RULES]
  if vocab is None:
    rules = [rule for rule in mesh_lib.DEFAULT_RULES if rule[0] != 'vocab']
  boxed = policies.abstract_params(t5.T5, config)
  placed: dict[str, Any] = jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    _in_bfloat16(nn.meta.unbox(boxed)),
    mesh_lib.param_shardings(mesh, boxed, rules),
  )
  placed.pop('encoder')
  return placed


def _in_bfloat16(tree: Any) -> Any:
  def one(leaf: Any) -> jax.ShapeDtypeStruct:
    dtype = jnp.bfloat16 if leaf.dtype == jnp.float32 else leaf.dtype
    return jax.ShapeDtypeStruct(leaf.shape, dtype)

  return jax.tree.map(one, tree)


def _compile(
  step: Callable[..., Any], args: Sequence[Any], rows: int, cache: int = 1
) -> tpu_estimates.Estimate:
  """Compiles a step whose argument number `cache` is written in place."""
  compiled = jax.jit(step, donate_argnums=cache).lower(*args).compile()
  cost: Any = compiled.cost_analysis() or {}
  text = compiled.as_text() or ''
  return tpu_estimates.read_estimate(cost, compiled.memory_analysis(), text, rows)


def model_config(size: str, num_layers: int | None = None) -> t5.T5Config:
  """T5 1.1 of that size in bfloat16, if asked with fewer layers.

  Raises:
    ValueError: an unknown size.
  """
  if size not in SHAPES:
    raise ValueError(f'unknown size {size!r}; known: {", ".join(SHAPES)}')
  shape: dict[str, Any] = dict(SHAPES[size])
  if num_layers is not None:
    shape['num_decoder_layers'] = num_layers
  return t5.T5Config(
    VOCAB_SIZE,
    head_dim=64,
    num_encoder_layers=shape['num_decoder_layers'],
    dtype='bfloat16',
    **shape,
  )


def compile_ours(
  mesh: Mesh,
  config: t5.T5Config,
  *,
  sources: int,
  samples: int,
  source_length: int,
  cache_length: int,
  vocab: str = 'spread',
) -> tpu_estimates.Estimate:
  """Compiles `T5.decode_step` and a draw for `sources` per chip.

  `samples=1` with a source for every candidate is the replicated variant; `vocab`
  is one of VOCAB.
  """
  model = t5.T5(config)
  batch = sources * mesh.size
  params = _place_params(mesh, config, 'model' if vocab == 'spread' else None)
  everywhere = None
  if vocab == 'rows':
    everywhere = NamedSharding(mesh, PartitionSpec(mesh_lib.AXES))
  cache = jax.eval_shape(lambda: model.init_cache(batch, samples, cache_length))
  cache = jax.tree.map(
    functools.partial(_place_axes, mesh), cache, t5.cache_axes(cache)
  )
  # The projected keys and values, in whatever layout the model keeps them.
  encoded = jax.ShapeDtypeStruct((batch, source_length, config.emb_dim), config.dtype)
  cross = jax.eval_shape(
    lambda params, encoded: model.apply(
      {'params': params}, encoded, method='cross_keys_values'
    ),
    params,
    encoded,
  )
  names = ('layers',) * config.scan_layers + ('batch', 'heads', 'source_length', 'kv')
  cross = jax.tree.map(lambda leaf: _place_axes(mesh, leaf, names), cross)
  rows = jax.ShapeDtypeStruct((batch, samples), jnp.int32)
  mask = jax.ShapeDtypeStruct((batch, source_length), jnp.bool_)
  uniform = jax.ShapeDtypeStruct((batch, samples, 1), jnp.float32)

  def step(
    params: Any,
    cache: Any,
    cross: Any,
    tokens: jax.Array,
    positions: jax.Array,
    mask: jax.Array,
    uniform: jax.Array,
  ) -> tuple[jax.Array, jax.Array, Any]:
    logits, cache = model.apply(
      {'params': params},
      tokens,
      positions,
      cache,
      cross,
      mask,
      everywhere,
      method=_unflushed,
    )
    every = jnp.ones((1, 1, logits.shape[-1]), bool)
    layout = {'rows_first': draws, 'rows_last': vocab_first}[config.cache_layout]
    drawn, log_probs = layout.draw_with_log_probs(
      logits, every, uniform, draws.Decoding()
    )
    return drawn, log_probs, cache

  args = (
    params,
    cache,
    cross,
    *_place(mesh, (rows, rows, mask, uniform), 0),
  )
  estimate = _compile(step, args, sources * samples)
  if config.cache_layout != 'rows_last':
    return estimate
  moves = _compile(rows_last.move, (cache,), sources * samples, cache=0)
  return tpu_estimates.with_moves(estimate, moves, rows_last.SPARE)


def _unflushed(
  model: t5.T5,
  tokens: jax.Array,
  positions: jax.Array,
  cache: Any,
  cross: Any,
  mask: jax.Array,
  everywhere: NamedSharding | None,
) -> tuple[jax.Array, Any]:
  """As `T5.decode_step`, less what it does between steps, now and then.

  Sources may be spread over all chips for what follows the layers.
  """
  x = model.token_embedder(tokens[:, :, None])
  x, cache = model.decoder.step(x, positions, cache, cross, mask)
  features = x[:, :, 0]
  if everywhere is not None:
    features = jax.lax.with_sharding_constraint(features, everywhere)
  return model._step_logits(features), cache


def compile_t5x(
  mesh: Mesh,
  checkout: pathlib.Path,
  config: t5.T5Config,
  *,
  sources: int,
  samples: int,
  source_length: int,
  cache_length: int,
) -> tpu_estimates.Estimate:
  """Compiles T5X's step and `jax.random.categorical`, which it draws with."""
  module = t5x_rival.network_of(checkout, config, jnp.bfloat16)
  rows = sources * samples * mesh.size
  ids = jax.ShapeDtypeStruct((rows, cache_length), jnp.int32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  variables = jax.eval_shape(
    lambda key, ids: module.init(key, ids, ids, ids, enable_dropout=False, decode=True),
    key,
    ids,
  )
  encoded = jax.ShapeDtypeStruct((rows, source_length, config.emb_dim), jnp.bfloat16)
  source = jax.ShapeDtypeStruct((rows, source_length), jnp.int32)
  token = jax.ShapeDtypeStruct((rows, 1), jnp.int32)

  def step(
    params: Any,
    cache: Any,
    token: jax.Array,
    encoded: jax.Array,
    source: jax.Array,
    key: jax.Array,
  ) -> tuple[jax.Array, jax.Array, Any]:
    logits, written = module.apply(
      {'params': params, 'cache': cache},
      encoded,
      source,
      token,
      token,
      enable_dropout=False,
      decode=True,
      max_decode_length=cache_length,
      mutable=['cache'],
      method=module.decode,
    )
    logits = logits[:, 0]
    drawn = jax.random.categorical(key, logits / draws.Decoding().temperature)
    log_probs = jax.nn.log_softmax(logits)
    log_probs = jnp.take_along_axis(log_probs, drawn[:, None], 1)
    return drawn, log_probs, written['cache']

  params = _place(mesh, _in_bfloat16(variables['params']), None)
  args = (
    params,
    _place(mesh, variables['cache'], 0),
    *_place(mesh, (token, encoded, source), 0),
    _place(mesh, key, None),
  )
  return _compile(step, args, sources * samples)


def out_of_memory(error: Exception) -> bool:
  """Whether the compiler found that the program does not fit in the chip."""
  return any(word in str(error) for word in ('RESOURCE_EXHAUSTED', 'Ran out of memory'))


def fit(
  compile_for: Callable[[int], tpu_estimates.Estimate], sources: int
) -> tuple[int, tpu_estimates.Estimate] | None:
  """The estimate for `sources`, or for the first half, quarter, ... that fits."""
  while sources:
    try:
      return sources, compile_for(sources)
    except jax.errors.JaxRuntimeError as error:
      if not out_of_memory(error):
        raise
      sources //= 2
  return None


def compare(
  chip: str,
  size: str,
  samples: int,
  model: int,
  args: argparse.Namespace,
) -> list[dict[str, Any]]:
  """Results of all variants for one chip, size, N and number of model shards."""
  mesh = topology_mesh(chip, model)
  config = model_config(size, args.layers)
  results: list[dict[str, Any]] = []
  rival = None
  for variant in args.variants:
    if variant == 't5x' and (args.t5x is None or model > 1):
      continue
    started = time.monotonic()

    def compile_for(sources: int, variant: str = variant) -> tpu_estimates.Estimate:
      sizes = {'source_length': args.length, 'cache_length': args.length}
      if variant == 't5x':
        return compile_t5x(
          mesh, args.t5x, config, sources=sources, samples=samples, **sizes
        )
      copies = samples if variant == 'replicated' else 1
      ours = config
      if variant in ('rows_last', 'int8_cache', 'replicated'):
        ours = dataclasses.replace(
          config, cache_layout='rows_last', int8_cache=variant == 'int8_cache'
        )
      return compile_ours(
        mesh,
        ours,
        sources=sources * copies,
        samples=samples // copies,
        vocab=args.vocab,
        **sizes,
      )

    fitted = fit(compile_for, args.sources)
    if fitted is None:
      print(f'{chip} {size} N={samples} {variant}: not even one source fits')
      continue
    sources, found = fitted
    row = {
      'chip': chip,
      'size': size,
      'samples': samples,
      'model': model,
      'vocab': args.vocab,
      'sources': sources,
      'variant': variant,
      **dataclasses.asdict(found),
      'tokens_per_s': found.tokens_per_s,
    }
    if variant == 't5x':
      rival = row
    row['times_t5x'] = tpu_estimates.ratio(row, rival)
    row['times_t5x_by_cycles'] = tpu_estimates.cycles_ratio(row, rival)
    results.append(row)
    seconds = time.monotonic() - started
    name = f'{chip} {size} N={samples} model={model} {variant}'
    print(f'{name}: compiled in {seconds:.0f} s', flush=True)
  return results


def main(argv: Sequence[str] | None = None) -> int:
  """Compiles, prints a table for each chip, and JSON lines if asked."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--t5x', type=pathlib.Path, help='root of a T5X checkout')
  parser.add_argument('--chips', nargs='+', default=['v5p'], choices=list(TOPOLOGIES))
  parser.add_argument('--sizes', nargs='+', default=['base'], choices=list(SHAPES))
  parser.add_argument('--samples', nargs='+', type=int, default=[16, 64, 256])
  parser.add_argument(
    '--model',
    nargs='+',
    type=int,
    default=[1],
    help="chips along the mesh's model axis, of the topology's four",
  )
  parser.add_argument(
    '--vocab',
    default='spread',
    choices=VOCAB,
    help='along the model axis: vocabulary spread, copied, or copied and rows spread',
  )
  parser.add_argument('--variants', nargs='+', default=VARIANTS, choices=VARIANTS)
  parser.add_argument('--sources', type=int, default=32, help='per chip')
  parser.add_argument('--length', type=int, default=64, help='of source and target')
  parser.add_argument('--layers', type=int, help='fewer decoder layers, to try out')
  parser.add_argument('--json', type=pathlib.Path, help='append results as JSON lines')
  args = parser.parse_args(argv)
  reason = libtpu_reason()
  if reason:
    print(f'skipped: {reason}')
    return 0
  if args.t5x is None:
    print('t5x skipped: no checkout given (--t5x PATH)')
  # T5X first, since the others are divided by it.
  args.variants = [variant for variant in VARIANTS if variant in args.variants]
  print('ESTIMATES of the TPU compiler for one decoding step, not measurements')
  for chip in args.chips:
    results: list[dict[str, Any]] = []
    for size in args.sizes:
      for samples, model in itertools.product(args.samples, args.model):
        found = compare(chip, size, samples, model, args)
        results += found
        if args.json:
          with args.json.open('a') as file:
            for row in found:
              file.write(json.dumps({'kind': 'estimate', **row}) + '\n')
    print(
      f'\n{TOPOLOGIES[chip]}, estimates, per chip:\n{tpu_estimates.table(results)}\n'
    )
  return 0


if __name__ == '__main__':
  sys.exit(main())

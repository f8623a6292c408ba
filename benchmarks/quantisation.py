"""How far do kernels in fewer bits, an 8-bit cache and bfloat16 move the samples?

    python -m benchmarks.quantisation --policy MODEL_DIR/bc \\
      --sources val.de.gz --references val.en.gz --num_sources 200

Each variant of the policy draws its own candidates, with the random numbers of the
float32 policy. The columns:

- `bytes_a_parameter`: of the stored parameters, scales included.
- `kl_token`, `kl_sequence`: KL(float32 || variant) in nats. At each prefix of the
  float32 policy's candidates (drawn at the temperature) the divergence of the
  untempered next token is summed over the vocabulary; the sums of a candidate's
  prefixes are averaged over candidates, and divided by the mean length. A variant
  with an 8-bit cache decodes the prefixes step by step, as it would when it samples.
- `same`: the share of candidates that equal float32's with the same number.
- `chrf`: mean sentence chrF to the reference, 0 to 100, of the variant's candidates;
  `chrf_change`: less that of float32, paired by source.
- `length`, `length_change`: tokens of a candidate, EOS included.
- `distinct_2`: of as many bigrams as the smallest set has.
- `nats_off`: mean |recorded - teacher-forced| log-probability of a token, both under
  the variant: what is recorded is the policy's own, up to rounding.

Brackets are 95 % bootstrap intervals over sources.
"""

import argparse
import dataclasses
import functools
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import comparison, measuring, ours, rivals
from rest_jax.data import batches, group_store, text_files
from rest_jax.evaluation import chrf, intervals, text_metrics
from rest_jax.models import quantisation, t5
from rest_jax.sampling import divergence
from rest_jax.training import mesh as mesh_lib

_CACHE = {'cache_layout': 'rows_last', 'int8_cache': True}

# By name: fields of the config, and how kernels are quantised.
VARIANTS: dict[
  str, tuple[dict[str, Any], quantisation.Int8 | quantisation.Bfloat16 | None]
] = {
  **{name: ({}, settings) for name, settings in ours.QUANTISED.items()},
  'int8_cache': (_CACHE, None),
  'bfloat16': ({'dtype': 'bfloat16'}, None),
  'bfloat16_int8_weights': ({'dtype': 'bfloat16'}, quantisation.Int8()),
  'bfloat16_int8_cache': ({'dtype': 'bfloat16', **_CACHE}, None),
}
CHECKED_SOURCES = 32  # for nats_off


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
  args = _parser().parse_args(argv)
  policy = ours.make_policy(args.policy, args.shape).with_dtype('float32')
  source_tokens, references = _sources(args, policy)
  drawn, rows = {}, []
  for name, variant in variants(policy, args.variants).items():
    samples = ours.OurSampler(variant).groups(
      source_tokens,
      num_samples=args.num_samples,
      limits=rivals.Limits(most=args.max_tokens),
      temperature=args.temperature,
    )
    drawn[name] = samples
    base = drawn['float32']
    rows.append(
      {
        'policy': name,
        'bytes_a_parameter': quantisation.bytes_a_parameter(variant.params),
        **divergences(policy, variant, base),
        **changes(base, samples, references),
        'nats_off': nats_off(variant, samples[:CHECKED_SOURCES]),
      }
    )
    measuring.say(str(rows[-1]))
  size = min(_num_bigrams(samples) for samples in drawn.values())
  for row, samples in zip(rows, drawn.values(), strict=True):
    texts = [group.texts for group in samples]
    row['distinct_2'] = text_metrics.distinct_n(texts, 2, num_ngrams=size)
  measuring.report(
    f'{len(source_tokens)} sources, {args.num_samples} candidates each at temperature '
    f'{args.temperature}',
    rows,
    config=policy.config.to_dict(),
    max_tokens=args.max_tokens,
    qwix=importlib.metadata.version('qwix'),
  )
  return rows


def variants(policy: ours.Policy, names: Sequence[str]) -> dict[str, ours.Policy]:
  """The float32 policy first, then those of VARIANTS that are named."""
  found = {'float32': policy}
  for name in names:
    if name not in VARIANTS:
      raise ValueError(f'unknown variant {name!r}; known: {", ".join(VARIANTS)}')
    fields, settings = VARIANTS[name]
    config = dataclasses.replace(policy.config, **fields)
    found[name] = dataclasses.replace(policy, config=config)
    if settings is not None:
      found[name] = found[name].with_weights(settings)
  return found


def divergences(
  policy: ours.Policy, variant: ours.Policy, samples: Sequence[group_store.Group]
) -> dict[str, str]:
  """KL(policy || variant) per token and per sequence, with intervals."""
  pair = (policy.config, policy.params), (variant.config, variant.params)
  if variant.config.int8_cache:
    kl = stepped_kl(*pair, samples)
  else:
    kl = divergence.sequence_kl(
      *pair,
      samples,
      mesh=mesh_lib.make_mesh(),
      source_length=max(len(group.source_tokens) for group in samples),
      target_length=max(len(t) for group in samples for t in group.tokens),
    )
  mean_length = np.mean(_lengths(samples))
  found = {}
  for name, unit in (('kl_token', mean_length), ('kl_sequence', 1.0)):
    found[name] = str(intervals.bootstrap_mean([x / unit for x in kl], seed=0))
  return found


def stepped_kl(
  policy: divergence.Policy,
  variant: divergence.Policy,
  samples: Sequence[group_store.Group],
  *,
  batch_size: int = 32,
) -> list[np.ndarray]:
  """As `divergence.sequence_kl`, on one device, the variant decoded step by step."""
  divergences: list[np.ndarray] = []
  for start in range(0, len(samples), batch_size):
    groups = samples[start : start + batch_size]
    batch = batches.group_batch(
      groups,
      samples=max(group.num_candidates for group in samples),
      source_length=max(len(group.source_tokens) for group in samples),
      target_length=max(len(tokens) for group in samples for tokens in group.tokens),
    )
    kl = np.asarray(
      _stepped_kl(
        policy[1], variant[1], batch, config=policy[0], other_config=variant[0]
      )
    )
    divergences += [kl[row, : group.num_candidates] for row, group in enumerate(groups)]
  return divergences


@functools.partial(jax.jit, static_argnames=('config', 'other_config'))
def _stepped_kl(
  params: Any,
  other_params: Any,
  batch: dict[str, jax.Array],
  *,
  config: t5.T5Config,
  other_config: t5.T5Config,
) -> jax.Array:  # [batch, samples] float32, nats
  source, tokens = batch['encoder_input_tokens'], batch['decoder_input_tokens']
  logits = t5.T5(config).apply({'params': params}, source, tokens)
  other = functools.partial(t5.T5(other_config).apply, {'params': other_params})
  cross = other(other(source, method='encode'), method='cross_keys_values')

  def step(cache: Any, position: jax.Array) -> tuple[Any, jax.Array]:
    at = jnp.full(tokens.shape[:2], position)
    args = tokens[:, :, position], at, cache, cross, source != 0
    other_logits, cache = other(*args, method='decode_step')
    return cache, divergence.token_kl(logits[:, :, position], other_logits)

  cache = t5.T5(other_config).init_cache(*tokens.shape)
  _, kl = jax.lax.scan(step, cache, jnp.arange(tokens.shape[2], dtype=jnp.int32))
  return jnp.sum(jnp.moveaxis(kl, 0, -1) * batch['decoder_loss_weights'], axis=-1)


def changes(
  base: Sequence[group_store.Group],
  samples: Sequence[group_store.Group],
  references: Sequence[str] | None,
) -> dict[str, Any]:
  """What became of the candidates: how many are the same, chrF and length."""
  equal = [
    np.mean([np.array_equal(a, b) for a, b in zip(x.tokens, y.tokens, strict=True)])
    for x, y in zip(base, samples, strict=True)
  ]
  found: dict[str, Any] = {'same': float(np.mean(equal))}
  measures = {'length': (_lengths(base), _lengths(samples))}
  if references:
    measures['chrf'] = (_chrf(base, references), _chrf(samples, references))
  for name, (before, after) in measures.items():
    found[name] = str(intervals.bootstrap_mean(after, seed=0))
    change = intervals.bootstrap_difference(after, before, seed=0)
    found[f'{name}_change'] = str(change)
  return found


def nats_off(policy: ours.Policy, samples: Sequence[group_store.Group]) -> float:
  """Mean |recorded - teacher-forced| log-probability of the tokens, in nats."""
  batch = batches.group_batch(
    samples,
    samples=samples[0].num_candidates,
    source_length=max(len(group.source_tokens) for group in samples),
    target_length=max(len(tokens) for group in samples for tokens in group.tokens),
  )

  @jax.jit
  def forced(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    inputs = batch['encoder_input_tokens'], batch['decoder_input_tokens']
    logits = t5.T5(policy.config).apply({'params': params}, *inputs)
    targets = batch['decoder_target_tokens'][..., None]
    chosen = jax.numpy.take_along_axis(logits, targets, axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)

  log_probs = np.asarray(forced(policy.params, batch))
  off = [
    np.abs(recorded - log_probs[row, slot, : len(recorded)])
    for row, group in enumerate(samples)
    for slot, recorded in enumerate(group.token_log_probs or ())
  ]
  return float(np.mean(np.concatenate(off)))


def _lengths(samples: Sequence[group_store.Group]) -> np.ndarray:
  """Mean tokens of a candidate, by source."""
  return np.array([np.mean([len(t) for t in group.tokens]) for group in samples])


def _chrf(
  samples: Sequence[group_store.Group], references: Sequence[str]
) -> np.ndarray:
  """Mean sentence chrF of a source's candidates, 0 to 100, by source."""
  means = [
    100 * np.mean([chrf.sentence_chrf(text, reference) for text in group.texts])
    for group, reference in zip(samples, references, strict=True)
  ]
  return np.array(means)


def _num_bigrams(samples: Sequence[group_store.Group]) -> int:
  words = (text_metrics.words(text) for group in samples for text in group.texts)
  return sum(max(len(found) - 1, 0) for found in words)


def _sources(
  args: argparse.Namespace, policy: ours.Policy
) -> tuple[list[list[int]], list[str] | None]:
  if not args.sources:
    vocab_size = policy.config.vocab_size
    return ours.random_sources(args.num_sources, length=16, vocab_size=vocab_size), None
  lines = list(text_files.lines(args.sources))[: args.num_sources]
  tokens = [row.tolist() for row in policy.vocabulary.encode_batch(lines)]
  if not args.references:
    return tokens, None
  return tokens, list(text_files.lines(args.references))[: args.num_sources]


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--policy', help='folder of a policy; without, a random one')
  parser.add_argument('--sources', help='text file, plain or .gz; without, random')
  parser.add_argument('--references', help='aligned with the sources, for chrF')
  parser.add_argument('--num_sources', default=200, type=int, help='the first lines')
  parser.add_argument('--num_samples', default=16, type=int)
  parser.add_argument('--temperature', default=0.8, type=float)
  parser.add_argument(
    '--max_tokens', default=64, type=int, help='of a candidate (default: %(default)s)'
  )
  parser.add_argument(
    '--variants',
    default='int8_weights,int8_both,bfloat16_weights,bfloat16',
    type=comparison.names,
    help=f'comma-separated, of {", ".join(VARIANTS)} (default: %(default)s)',
  )
  parser.add_argument(
    '--shape', default='{}', help='fields of T5Config of a random policy, as JSON'
  )
  return parser


if __name__ == '__main__':
  main(sys.argv[1:])

"""The sampler: same samples however the work is cut, and honest log-probabilities."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import linen as nn

from rest_jax.data import batches, group_store
from rest_jax.models import cpu_products, t5
from rest_jax.sampling import decoder, draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.training import mesh as mesh_lib

CONFIG = t5.T5Config(
  vocab_size=40,
  emb_dim=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=32,
  num_encoder_layers=1,
  num_decoder_layers=2,
)
LIMIT = 20  # passes through two cache lengths


class LetterVocabulary:
  """Token i is the i-th letter after '0'; the model's embedding is larger."""

  size = 36

  def decode_batch(self, tokens):
    return [''.join(chr(48 + t) for t in row if t > 1) for row in tokens]


@functools.cache
def _params(seed=0):
  tokens = jnp.ones((1, 1), jnp.int32)
  init = jax.jit(t5.T5(CONFIG).init)
  boxed = init(jax.random.key(seed), tokens, tokens[:, None])
  params = nn.meta.unbox(boxed['params'])
  # Larger logits, so that the draws are far from uniform.
  kernel = params['decoder']['logits_dense']['kernel'] * 3
  return params | {'decoder': params['decoder'] | {'logits_dense': {'kernel': kernel}}}


def _groups(num=7, seed=0):
  rng = np.random.default_rng(seed)
  groups = []
  for i in range(num):
    length = int(rng.integers(2, 9))
    tokens = np.append(rng.integers(2, 36, length), 1).astype(np.int32)
    groups.append(group_store.pair(f's/{i}', 'x', tokens, None, None))
  return groups


# Every (lanes, slots, share) is compiled for anew: the tests share (4, 1, 6).
def _sampler(*, params=None, decoding=None, limit=LIMIT, config=CONFIG, **settings):
  cut = {'batch_size': 4, 'share': 6} | settings
  return sampler_lib.Sampler(
    _params() if params is None else params,
    config,
    LetterVocabulary(),
    mesh=mesh_lib.make_mesh(),
    source_length=16,
    target_length=limit,
    decoding=decoding or draws.Decoding(temperature=1.0),
    seed=3,
    grow_step=1,
    settings=sampler_lib.SamplerSettings(**cut),
  )


def _sample(groups, num_samples, **options):
  return _sampler(**options).sample_in_order(groups, num_samples)


def _tokens(samples):
  return [[tuple(t.tolist()) for t in group.tokens] for group in samples]


def test_same_samples_however_the_work_is_cut():
  groups = _groups()
  samples = _tokens(_sample(groups, 6))
  assert len({t for group in samples for t in group}) > 30  # they do differ
  for settings in (
    {'batch_size': 1},
    {'batch_size': 64},  # more lanes than sources, and given up at the end
    {'share': 4},  # three and three
    {'slots': 2, 'share': 2},  # two rows for a source, and a last turn of half
    {'batch_size': 8, 'loops': 2},  # a thread and some of the sources for each
  ):
    assert _tokens(_sample(groups, 6, **settings)) == samples, settings
  reverse = _tokens(_sample(groups[::-1], 6))
  assert reverse[::-1] == samples
  # More candidates leave the first ones as they were.
  assert [group[:6] for group in _tokens(_sample(groups, 12))] == samples


def test_the_cache_layout_changes_no_sample():
  config = dataclasses.replace(CONFIG, cache_layout='rows_last')
  groups = _groups(12)
  one, other = _sample(groups, 6), _sample(groups, 6, config=config)
  assert _tokens(one) == _tokens(other)
  for a, b in zip(one, other, strict=True):
    for first, last in zip(a.token_log_probs, b.token_log_probs, strict=True):
      # float32 sums in another order; log-probabilities here are below 20.
      np.testing.assert_allclose(first, last, atol=2e-5)


def test_log_probs_are_those_of_teacher_forcing_untempered():
  groups = _groups()
  params = _params()
  decoding = draws.Decoding(temperature=0.7, top_k=10)
  samples = _sample(groups, 6, params=params, decoding=decoding)
  batch = batches.group_batch(samples, samples=6, source_length=16, target_length=LIMIT)
  logits = jax.jit(t5.T5(CONFIG).apply)(
    {'params': params}, batch['encoder_input_tokens'], batch['decoder_input_tokens']
  )
  log_probs = np.asarray(jax.nn.log_softmax(logits))
  for row, group in enumerate(samples):
    for slot, (tokens, recorded) in enumerate(
      zip(group.tokens, group.token_log_probs, strict=True)
    ):
      expected = log_probs[row, slot, np.arange(len(tokens)), tokens]
      # float32 sums in another order; log-probabilities here are below 20.
      np.testing.assert_allclose(recorded, expected, atol=2e-5)


def test_candidates_follow_the_policy_exactly():
  """Whole sequences against their exact probabilities, walked depth first."""
  group = _groups(1)[0]
  decoding = draws.Decoding(temperature=0.8, top_k=5)
  repeats = [dataclasses.replace(group, source_id=f'r/{i}') for i in range(2000)]
  samples = _sample(
    repeats, 6, decoding=decoding, batch_size=64, limit=2, params=_params(4)
  )
  pairs = [tuple(t.tolist()) for g in samples for t in g.tokens]
  apply = functools.partial(t5.T5(CONFIG).apply, {'params': _params(4)})
  source = jnp.asarray(group.source_tokens)[None]

  def probabilities(prefix):
    inputs = jnp.array([[[0, *prefix]]], jnp.int32)
    logits = np.asarray(apply(source, inputs))[0, 0, -1].astype(np.float64)
    logits[0] = -np.inf
    logits[36:] = -np.inf
    logits[logits < np.sort(logits)[-5]] = -np.inf
    masses = np.exp((logits - logits.max()) / 0.8)
    return masses / masses.sum()

  expected = {}
  first = probabilities(())
  for one in np.flatnonzero(first):
    if one == decoder.EOS_ID:
      expected[(1,)] = first[1]
      continue
    second = probabilities((one,))
    for two in np.flatnonzero(second):
      expected[(int(one), int(two))] = first[one] * second[two]
  assert set(pairs) <= set(expected)
  counts = np.array([pairs.count(pair) for pair in expected])
  chances = np.array(list(expected.values())) * len(pairs)
  rare = chances < 5
  counts = np.append(counts[~rare], counts[rare].sum())
  chances = np.append(chances[~rare], chances[rare].sum())
  used = chances > 0
  p_value = scipy.stats.chisquare(counts[used], chances[used]).pvalue
  assert p_value > 1e-4  # a right sampler fails once in 10,000


def test_eos_waits_for_min_tokens():
  def lengths(min_tokens):
    decoding = draws.Decoding(temperature=5.0, min_tokens=min_tokens)
    samples = _sample(_groups(), 6, decoding=decoding)
    return sorted(len(t) for group in samples for t in group.tokens)

  assert lengths(0)[0] < 6
  assert 6 <= lengths(5)[0] < 12  # five, and EOS


def test_equal_prefixes_are_computed_once():
  groups = _groups(16)
  sampler = _sampler(decoding=draws.Decoding(temperature=0.5), batch_size=16)
  samples = sampler.sample_in_order(groups, 6)
  nodes = sum(
    len({tuple(t[:n]) for t in group.tokens for n in range(len(t))})
    for group in samples
  )
  tokens = sum(len(t) for group in samples for t in group.tokens)
  assert sampler.counts.tokens == tokens > 1.2 * nodes
  assert sampler.counts.candidates == 96
  # All lanes are taken from the first step, so the steps are those of the busiest
  # (and those that candidates longer than the first cache walk again).
  assert nodes <= sampler.counts.rows


def test_loops_count_what_one_counts():
  one, two = _sampler(), _sampler(batch_size=8, loops=2)
  groups = _groups(16)
  first, second = (sampler.sample_in_order(groups, 6) for sampler in (one, two))
  assert _tokens(first) == _tokens(second)
  assert two.counts.tokens == one.counts.tokens
  assert two.counts.candidates == one.counts.candidates == 96
  # Steps of four lanes each, in both; the loops' ends idle more.
  assert two.counts.rows == 4 * two.counts.steps >= one.counts.rows


def test_more_loops_than_sources():
  groups = _groups(2)
  found = _sample(groups, 6, batch_size=12, loops=3)
  assert _tokens(found) == _tokens(_sample(groups, 6))


def test_each_core_of_a_cpu_has_a_loop_if_it_has_the_rows(monkeypatch):
  monkeypatch.setattr(sampler_lib.cpu_cores, 'count', lambda: 4)
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(data=1), jax.devices()[:1])

  def loops(**settings):
    return sampler_lib.SamplerSettings(**settings).loops_on(mesh)

  assert loops() == 4
  assert loops(batch_size=200) == 3
  assert loops(batch_size=100) == 1
  assert loops(batch_size=8, slots=25) == 3
  assert loops(batch_size=2, slots=200) == 2
  assert loops(batch_size=8, loops=8) == 8
  with pytest.raises(ValueError, match='loops=9 must not be more than batch_size=8'):
    loops(batch_size=8, loops=9)


def test_loops_are_for_one_cpu_device():
  device = types.SimpleNamespace(platform='tpu', device_kind='TPU v5')
  cpu = types.SimpleNamespace(platform='cpu', device_kind='cpu')
  for devices in ([device], [cpu, cpu]):
    mesh = types.SimpleNamespace(size=len(devices), devices=np.array(devices))
    assert sampler_lib.SamplerSettings().loops_on(mesh) == 1
    assert sampler_lib.SamplerSettings(loops=1).loops_on(mesh) == 1
    with pytest.raises(ValueError, match='loops=2: several loops are for the cores'):
      sampler_lib.SamplerSettings(loops=2).loops_on(mesh)


def test_a_candidate_ends_with_eos_or_is_flagged_unfinished():
  samples = _sample(_groups(), 6)
  flags = np.concatenate([group.finished for group in samples])
  assert flags.any() and not flags.all()
  for group in samples:
    for tokens, finished in zip(group.tokens, group.finished, strict=True):
      assert finished == (tokens[-1] == 1)
      assert len(tokens) == LIMIT or finished
      assert 0 not in tokens and 1 not in tokens[:-1] and tokens.max() < 36
    assert group.texts == tuple(LetterVocabulary().decode_batch(group.tokens))
    assert set(group.origins) == {'model'}


def test_duplicates_are_kept():
  samples = _sample(_groups(2), 6, decoding=draws.GREEDY)
  for group in samples:
    assert len(group.tokens) == 6 and len({t.tobytes() for t in group.tokens}) == 1


def test_the_loop_is_compiled_once_for_a_shape():
  groups, advance = _groups(12), decoder.programs(cpu_products.OPTIONS).advance
  _sample(groups, 6)
  compiled = advance._cache_size()
  _sample(groups[::-1], 6, params=_params(seed=9))
  assert advance._cache_size() == compiled > 0


def test_a_second_call_compiles_nothing():
  groups, compiled = _groups(12), []

  def heard(event, _, **__):
    if 'backend_compile' in event:
      compiled.append(event)

  _sample(groups, 6)
  jax.monitoring.register_event_duration_secs_listener(heard)
  try:
    # Grow makes a call for every block of shards: a program each would pile up.
    _sample(groups, 6)
    assert not compiled
    jax.jit(lambda x: x + 1)(np.float32(0))
    assert compiled  # so they are heard
  finally:
    jax.monitoring.unregister_event_duration_listener(heard)


def test_cache_lengths_double_until_the_limit():
  assert decoder.cache_lengths(100) == (16, 24, 32, 48, 64, 96, 100)
  assert decoder.cache_lengths(5) == (5,)
  with pytest.raises(ValueError, match='at least 1'):
    decoder.cache_lengths(0)


def test_shares_are_even_and_leave_every_slot_several():
  settings = sampler_lib.SamplerSettings(batch_size=8, share=32)
  assert settings.share_of(25, 1000) == 25
  assert settings.share_of(100, 1000) == 25  # four of 25, not three of 32 and one of 4
  assert settings.share_of(25, 4) == 4  # 100 candidates for 8 slots, three times
  assert settings.share_of(1, 1) == 1
  several = sampler_lib.SamplerSettings(batch_size=8, slots=4)
  assert several.share_of(24, 1000) == 6  # not all of a source in one slot of four
  with pytest.raises(ValueError, match='share=0'):
    sampler_lib.SamplerSettings(share=0)


def test_a_source_longer_than_any_bucket_is_refused():
  group = dataclasses.replace(_groups(1)[0], source_tokens=np.ones(40, np.int32))
  with pytest.raises(ValueError, match='longer than the longest length'):
    _sample([group], 2)

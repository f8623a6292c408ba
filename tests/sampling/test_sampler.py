"""The sampler: same samples however the work is cut, and honest log-probabilities."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rest_jax.data import batches, group_store
from rest_jax.models import t5
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


# Every pair (batch_size, candidates of a turn) is a program to compile: the tests
# share (4, 6), (4, 4) and (4, 2).
def _sample(groups, num_samples, *, params=None, decoding=None, **settings):
  cut = {'batch_size': 4, 'max_samples': 6} | settings
  sampler = sampler_lib.Sampler(
    _params() if params is None else params,
    CONFIG,
    LetterVocabulary(),
    mesh=mesh_lib.make_mesh(),
    source_length=16,
    target_length=LIMIT,
    decoding=decoding or draws.Decoding(temperature=1.0),
    seed=3,
    grow_step=1,
    settings=sampler_lib.SamplerSettings(**cut),
  )
  return sampler.sample_in_order(groups, num_samples)


def _tokens(samples):
  return [[tuple(t.tolist()) for t in group.tokens] for group in samples]


def test_same_samples_however_the_work_is_cut():
  groups = _groups()
  samples = _tokens(_sample(groups, 6))
  assert len({t for group in samples for t in group}) > 30  # they do differ
  for settings in (
    {'batch_size': 1},
    {'batch_size': 7},
    {'max_samples': 2},
    {'max_samples': 4},  # a last turn of two
  ):
    assert _tokens(_sample(groups, 6, **settings)) == samples, settings
  reverse = _tokens(_sample(groups[::-1], 6))
  assert reverse[::-1] == samples
  # More candidates leave the first ones as they were.
  assert [group[:6] for group in _tokens(_sample(groups, 10))] == samples


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


def test_a_candidate_ends_with_eos_or_is_flagged_unfinished():
  samples = _sample(_groups(), 8)
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
  samples = _sample(_groups(2), 5, decoding=draws.GREEDY)
  for group in samples:
    assert len(group.tokens) == 5 and len({t.tobytes() for t in group.tokens}) == 1


def test_the_loop_is_compiled_once_for_a_shape():
  groups = _groups(12)
  _sample(groups, 6)
  compiled = decoder.sample._cache_size()
  _sample(groups[::-1], 6, params=_params(seed=9))
  assert decoder.sample._cache_size() == compiled


def test_cache_lengths_double_until_the_limit():
  assert decoder.cache_lengths(100) == [16, 32, 64, 100]
  assert decoder.cache_lengths(5) == [5]
  with pytest.raises(ValueError, match='at least 1'):
    decoder.cache_lengths(0)


def test_a_source_longer_than_any_bucket_is_refused():
  group = dataclasses.replace(_groups(1)[0], source_tokens=np.ones(40, np.int32))
  with pytest.raises(ValueError, match='longer than the longest length'):
    _sample([group], 2)

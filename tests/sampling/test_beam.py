"""Beam search against exhaustive and slow searches, by hand, and against greedy."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rest_jax.data import group_store
from rest_jax.models import t5
from rest_jax.sampling import beam, draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.training import mesh as mesh_lib

CONFIG = t5.T5Config(
  vocab_size=8,
  emb_dim=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=32,
  num_encoder_layers=1,
  num_decoder_layers=1,
)
SCANNED = dataclasses.replace(CONFIG, scan_layers=True, num_decoder_layers=2)
NUM_TOKENS = 7  # the embedding has a row more
LIMIT = 20  # passes through two cache lengths


class LetterVocabulary:
  """Token i is the i-th letter after '0'."""

  size = NUM_TOKENS

  def decode_batch(self, tokens):
    return [''.join(chr(48 + t) for t in row if t > 1) for row in tokens]


@functools.cache
def _params(seed=0, scan_layers=False):
  config = SCANNED if scan_layers else CONFIG
  tokens = jnp.ones((1, 1), jnp.int32)
  init = jax.jit(t5.T5(config).init)
  params = nn.meta.unbox(init(jax.random.key(seed), tokens, tokens[:, None])['params'])
  # Larger logits, so that prefixes are far from equally probable; EOS less so.
  kernel = params['decoder']['logits_dense']['kernel'] * 1.5
  return params | {'decoder': params['decoder'] | {'logits_dense': {'kernel': kernel}}}


def _sources(num=7, seed=0):
  rng = np.random.default_rng(seed)
  rows = np.zeros((num, 8), np.int32)
  for row in rows:
    length = int(rng.integers(2, 8))
    row[:length] = rng.integers(2, NUM_TOKENS, length)
    row[length] = 1
  return rows


def _groups(num=7):
  return [
    group_store.pair(f's/{i}', 'x', row[row != 0], None, None)
    for i, row in enumerate(_sources(num))
  ]


def _search(sources, *, params=None, config=CONFIG, **options):
  options = {'num_tokens': NUM_TOKENS, 'beams': 3, 'limit': LIMIT} | options
  params = _params() if params is None else params
  return jax.device_get(beam.beam_search(params, sources, config=config, **options))


def _found(found, row):
  """The beams of a source that are not empty, as (tokens, score, finished)."""
  columns = (found.tokens, found.num_tokens, found.scores, found.finished)
  return [
    (tuple(tokens[:size].tolist()), float(score), bool(finished))
    for tokens, size, score, finished in zip(*(c[row] for c in columns), strict=True)
    if size
  ]


def _penalty(num_tokens, alpha):
  return ((5 + num_tokens) / 6) ** alpha


@functools.partial(jax.jit, static_argnames=('config',))
def _log_probs(params, sources, inputs, config=CONFIG):
  logits = t5.T5(config).apply({'params': params}, sources, inputs)
  return jax.nn.log_softmax(logits)


def _assert_same_beams(found, expected):
  assert [(tokens, finished) for tokens, _, finished in found] == [
    (tokens, finished) for tokens, _, finished in expected
  ]
  # float32 sums of up to 20 log-probabilities below 10.
  np.testing.assert_allclose(
    [score for _, score, _ in found], [score for _, score, _ in expected], atol=1e-4
  )


def test_enough_beams_find_what_exhaustive_search_finds():
  """All 13 sequences with EOS and all 27 at the limit of 3, each in its place."""
  sources = _sources(4)
  letters = (2, 3, 4)
  found = _search(sources, num_tokens=5, beams=45, limit=3, alpha=0.8)
  ended = [
    (*start, 1) for n in range(3) for start in itertools.product(letters, repeat=n)
  ]
  at_limit = list(itertools.product(letters, repeat=3))
  for row, source in enumerate(sources):

    def scored(sequences, source=source):
      inputs = np.array([[0, *s[:-1], 0, 0, 0][:3] for s in sequences], np.int32)
      log_probs = np.asarray(_log_probs(_params(), source[None], inputs[None]))[0]
      results = []
      for i, tokens in enumerate(sequences):
        total = log_probs[i, np.arange(len(tokens)), tokens].sum()
        results.append((tokens, total / _penalty(len(tokens), 0.8), tokens[-1] == 1))
      return sorted(results, key=lambda result: -result[1])

    expected = scored(ended) + scored(at_limit)
    assert len(expected) == 40
    _assert_same_beams(_found(found, row), expected)
  # Five beams are empty.
  assert np.all(found.scores[:, 40:] == -np.inf) and not found.tokens[:, 40:].any()
  assert not found.finished[:, 40:].any() and not found.log_probs[:, 40:].any()


def _slow_search(source, beams, limit, alpha, params, config=CONFIG):
  """The same rules with lists, every prefix computed anew, and no early end."""
  live, ended = [((), 0.0)], []
  for step in range(limit):
    inputs = np.zeros((1, beams, limit), np.int32)
    for i, (tokens, _) in enumerate(live):
      inputs[0, i, 1 : step + 1] = tokens
    log_probs = np.asarray(_log_probs(params, source[None], inputs, config=config))
    extensions = [
      ((*tokens, token), total + float(log_probs[0, i, step, token]))
      for i, (tokens, total) in enumerate(live)
      for token in range(1, NUM_TOKENS)
    ]
    extensions = sorted(extensions, key=lambda e: -e[1])[: 2 * beams]
    ended += [
      (tokens, total / _penalty(step + 1, alpha), True)
      for tokens, total in extensions
      if tokens[-1] == 1
    ]
    ended = sorted(ended, key=lambda e: -e[1])[:beams]
    live = [e for e in extensions if e[0][-1] != 1][:beams]
  live = [(tokens, total / _penalty(limit, alpha), False) for tokens, total in live]
  return (ended + live)[:beams]


@pytest.mark.parametrize('alpha', [0.0, 0.6, 2.0])
def test_few_beams_find_what_the_rules_say(alpha):
  sources = _sources()
  found = _search(sources, alpha=alpha)
  for row, source in enumerate(sources):
    _assert_same_beams(
      _found(found, row), _slow_search(source, 3, LIMIT, alpha, _params())
    )


def test_a_scanned_model_is_searched_alike():
  params = _params(2, scan_layers=True)
  sources = _sources(3)
  found = _search(sources, params=params, config=SCANNED)
  for row, source in enumerate(sources):
    expected = _slow_search(source, 3, LIMIT, 0.6, params, SCANNED)
    _assert_same_beams(_found(found, row), expected)


def test_rows_last_is_searched_alike():
  config = dataclasses.replace(CONFIG, cache_layout='rows_last')
  first, last = _search(_sources()), _search(_sources(), config=config)
  np.testing.assert_array_equal(first.tokens, last.tokens)
  np.testing.assert_allclose(first.scores, last.scores, atol=1e-4)


def _bigrams(rows):
  """A model whose next token depends on the last alone, by given probabilities.

  The decoder's layers add nothing to the stream, so a feature is the normalised
  embedding: token i is sqrt(embed) along axis i.
  """
  params = t5.parameter_shapes(CONFIG)
  params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params)
  width = CONFIG.emb_dim
  table = np.full((width, CONFIG.vocab_size), -40.0, np.float32)
  table[:, EOS] = -80.0
  for token, probabilities in rows.items():
    for following, probability in probabilities.items():
      table[token, following] = math.log(probability)
  params['token_embedder']['embedding'] = jnp.eye(CONFIG.vocab_size, width)
  params['decoder']['decoder_norm']['scale'] = jnp.ones(width)
  params['decoder']['logits_dense']['kernel'] = jnp.asarray(table / math.sqrt(width))
  return params


def _search_bigrams(rows, **options):
  source = np.array([[2, 1]], np.int32)
  options = {'beams': 2, 'limit': 4} | options
  return _search(source, params=_bigrams(rows), **options)


A, B, C, EOS = 2, 3, 4, 1


def test_scores_worked_by_hand_where_greedy_goes_astray():
  rows = {
    0: {A: 0.6, B: 0.4},
    A: {EOS: 0.5, A: 0.25, B: 0.25},
    B: {EOS: 0.9, A: 0.1},
  }
  found = _search_bigrams(rows)
  # 0.4 * 9/10 = 9/25 and 0.6 * 1/2 = 3/10, of two tokens each with EOS. Without EOS
  # counted the penalty would be 1 and the scores -1.0217 and -1.2040.
  scores = [math.log(9 / 25) / (7 / 6) ** 0.6, math.log(3 / 10) / (7 / 6) ** 0.6]
  assert scores == pytest.approx([-0.931396, -1.097611], abs=1e-6)
  _assert_same_beams(
    _found(found, 0), [((B, EOS), scores[0], True), ((A, EOS), scores[1], True)]
  )
  np.testing.assert_allclose(
    found.log_probs[0, :, :2], np.log([[2 / 5, 9 / 10], [3 / 5, 1 / 2]]), atol=1e-5
  )
  greedy = _search_bigrams(rows, beams=1)
  _assert_same_beams(_found(greedy, 0), [((A, EOS), scores[1], True)])


def test_length_normalisation_prefers_the_longer_by_hand():
  # EOS at once 2/5; A EOS 3/5 * 1/4 = 3/20; A B C EOS 3/5 * 3/4 * 1 * 4/5 = 9/25.
  rows = {0: {EOS: 0.4, A: 0.6}, A: {B: 0.75, EOS: 0.25}}
  rows |= {B: {C: 1}, C: {EOS: 0.8, A: 0.2}}
  expected = [
    ((EOS,), math.log(2 / 5), True),
    ((A, B, C, EOS), math.log(9 / 25), True),
  ]
  plain = _search_bigrams(rows, alpha=0.0)
  _assert_same_beams(_found(plain, 0), expected)
  # -0.8011 and -0.9163: the penalties are 1.2755 and 1.
  expected = [
    ((A, B, C, EOS), math.log(9 / 25) / (9 / 6) ** 0.6, True),
    ((EOS,), math.log(2 / 5), True),
  ]
  normalised = _search_bigrams(rows, alpha=0.6)
  _assert_same_beams(_found(normalised, 0), expected)


def test_a_search_ends_when_nothing_better_can_come():
  rows = {0: {A: 0.6, B: 0.4}, A: {EOS: 0.98, C: 0.02}, B: {EOS: 0.98, C: 0.02}}
  rows[C] = {C: 0.5, EOS: 0.5}
  found = _search_bigrams(rows)
  # After two steps the best sum is ln(0.012) = -4.42; over (9/6)^0.6 that is -3.47,
  # and the worst of the two that ended scores ln(0.392) / (7/6)^0.6 = -0.85.
  assert found.steps == 2
  assert [tokens for tokens, *_ in _found(found, 0)] == [(A, EOS), (B, EOS)]


def test_without_eos_within_the_limit_beams_are_unfinished():
  rows = {0: {A: 0.5, B: 0.5}, A: {A: 0.75, B: 0.25}, B: {B: 1}}
  found = _search_bigrams(rows, alpha=1.0)
  # B B B B 1/2 and A A A A 27/128, over 9/6.
  expected = [
    ((B,) * 4, math.log(1 / 2) * 6 / 9, False),
    ((A,) * 4, math.log(27 / 128) * 6 / 9, False),
  ]
  _assert_same_beams(_found(found, 0), expected)
  # One with EOS goes before a better one without; the latter takes the place left.
  rows = {0: {EOS: 0.1, A: 0.9}, A: {A: 1}}
  found = _search_bigrams(rows, alpha=1.0)
  expected = [
    ((EOS,), math.log(1 / 10), True),
    ((A,) * 4, math.log(9 / 10) * 6 / 9, False),
  ]
  _assert_same_beams(_found(found, 0), expected)


def _beam_search(groups, **options):
  options = {'beams': 3, 'batch_size': 4, 'target_length': 16} | options
  search = beam.BeamSearch(
    _params(),
    CONFIG,
    LetterVocabulary(),
    mesh=mesh_lib.make_mesh(),
    source_length=18,
    **options,
  )
  return search.search(groups)


def _tokens(groups):
  return [tuple(group.tokens[0].tolist()) for group in groups]


def test_one_beam_is_greedy():
  groups = _groups(9)
  sampler = sampler_lib.Sampler(
    _params(),
    CONFIG,
    LetterVocabulary(),
    mesh=mesh_lib.make_mesh(),
    source_length=18,
    target_length=16,
    decoding=draws.GREEDY,
    seed=0,
    grow_step=0,
    settings=sampler_lib.SamplerSettings(batch_size=2),
  )
  greedy = sampler.sample_in_order(groups, 1)
  searched = _beam_search(groups, beams=1)
  assert _tokens(searched) == _tokens(greedy)
  for one, other in zip(searched, greedy, strict=True):
    assert one.source_id == other.source_id and one.texts == other.texts
    assert one.finished.tolist() == other.finished.tolist()
    assert one.origins == other.origins and one.reference == other.reference
    np.testing.assert_allclose(
      one.token_log_probs[0], other.token_log_probs[0], atol=1e-5
    )
  assert {bool(group.finished[0]) for group in searched} == {True, False}
  assert _tokens(_beam_search(groups)) != _tokens(greedy)


def test_candidates_do_not_depend_on_the_batch_and_its_padding():
  groups = _groups()
  searched = _beam_search(groups)
  assert [group.source_id for group in searched] == [g.source_id for g in groups]
  reverse = _beam_search(groups[::-1])
  assert _tokens(reverse)[::-1] == _tokens(searched)
  # All lie in the next bucket now, with the longest source.
  long = dataclasses.replace(
    groups[0], source_tokens=np.array([2] * 17 + [1], np.int32)
  )
  padded = _beam_search([long, *groups], batch_size=8)
  assert _tokens(padded)[1:] == _tokens(searched)
  assert _beam_search([]) == []


def test_a_row_of_padding_costs_no_step_and_changes_nothing():
  sources = _sources(2)
  both = _search(sources, alpha=0.0)
  padded = _search(np.concatenate([sources, np.zeros((2, 8), np.int32)]), alpha=0.0)
  assert padded.steps == both.steps < LIMIT
  assert not padded.tokens[2:].any() and not padded.finished[2:].any()
  for row in range(2):
    _assert_same_beams(_found(padded, row), _found(both, row))


def test_what_cannot_be_is_refused():
  with pytest.raises(ValueError, match='beams=0 must be at least 1'):
    _search(_sources(), beams=0)
  with pytest.raises(ValueError, match=r'alpha=-0\.5 must be finite'):
    _search(_sources(), alpha=-0.5)
  with pytest.raises(ValueError, match='at least 1 token'):
    _search(_sources(), limit=0)
  with pytest.raises(ValueError, match='batch_size=0 must be a positive multiple'):
    _beam_search(_groups(), batch_size=0)
  group = dataclasses.replace(_groups(1)[0], source_tokens=np.ones(40, np.int32))
  with pytest.raises(ValueError, match='longer than the longest length'):
    _beam_search([group])

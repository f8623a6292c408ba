"""Draws of tokens: exact distribution, identity, cuts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rest_jax.sampling import draws

VOCAB = 300  # not a multiple of the block, and more than two blocks
NUM_DRAWS = 200_000
EVERY = jnp.ones(VOCAB, bool)
GREEDY = {'temperature': 0.0}
P_VALUE = 1e-4  # a right sampler fails a test of this level once in 10,000


def _logits(seed: int = 0, spread: float = 2.0) -> np.ndarray:
  return np.random.default_rng(seed).normal(0, spread, VOCAB).astype(np.float32)


def _draw(logits: np.ndarray, decoding: draws.Decoding, num: int = NUM_DRAWS):
  uniform = jax.random.uniform(jax.random.key(1), (1, num))

  @jax.jit
  def some(u):
    return draws.draw(jnp.asarray(logits), EVERY, u, decoding)

  return np.asarray(jax.lax.map(some, uniform[0].reshape(-1, 100))).reshape(-1)


def _softmax(logits: np.ndarray) -> np.ndarray:
  exp = np.exp(logits.astype(np.float64) - logits.max())
  return exp / exp.sum()


def _chi_square_p(tokens: np.ndarray, probabilities: np.ndarray) -> float:
  """Pools tokens with an expected count under 5, as the test requires."""
  counts = np.bincount(tokens, minlength=VOCAB)
  expected = probabilities * tokens.size
  rare = expected < 5
  counts = np.append(counts[~rare], counts[rare].sum())
  expected = np.append(expected[~rare], expected[rare].sum())
  used = expected > 0
  assert counts[~used].sum() == 0
  return scipy.stats.chisquare(counts[used], expected[used]).pvalue


@pytest.mark.parametrize('temperature', [1.0, 0.8, 2.0])
def test_draws_follow_the_tempered_distribution(temperature):
  logits = _logits()
  tokens = _draw(logits, draws.Decoding(temperature=temperature))
  assert _chi_square_p(tokens, _softmax(logits / temperature)) > P_VALUE
  # The likeliest mistake, forgetting the temperature, is far outside.
  if temperature != 1.0:
    assert _chi_square_p(tokens, _softmax(logits)) < P_VALUE


def test_top_k_draws_among_the_k_most_probable():
  logits = _logits()
  tokens = _draw(logits, draws.Decoding(temperature=0.8, top_k=20))
  scaled = logits / np.float32(0.8)
  kept = np.where(scaled >= np.sort(scaled)[-20], scaled, -np.inf)
  assert np.unique(tokens).size <= 20
  assert _chi_square_p(tokens, _softmax(kept)) > P_VALUE


def test_top_p_draws_among_the_fewest_that_reach_p():
  logits = _logits()
  tokens = _draw(logits, draws.Decoding(temperature=1.0, top_p=0.7))
  p = _softmax(logits)
  order = np.argsort(-p)
  size = int(np.searchsorted(np.cumsum(p[order]), 0.7)) + 1
  kept = np.full(VOCAB, -np.inf, np.float32)
  kept[order[:size]] = logits[order[:size]]
  assert set(np.unique(tokens)) <= set(order[:size])
  assert _chi_square_p(tokens, _softmax(kept)) > P_VALUE


def test_top_p_keeps_the_most_probable_token_at_least():
  logits = np.zeros(VOCAB, np.float32)
  logits[7] = 20.0
  tokens = _draw(logits, draws.Decoding(temperature=1.0, top_p=1e-6), num=100)
  assert set(tokens) == {7}


def test_a_hand_worked_inverse_cdf():
  # Masses 1/4, 1/2, 0, 1/4: the running sums are 1/4, 3/4, 3/4, 1.
  logits = jnp.log(jnp.array([0.25, 0.5, 0.0, 0.25]))
  uniform = jnp.array([0.0, 0.24, 0.26, 0.74, 0.76, 0.999])
  every = jnp.ones(4, bool)
  tokens = draws.draw(logits, every, uniform, draws.Decoding(temperature=1.0))
  assert tokens.tolist() == [0, 0, 1, 1, 3, 3]


@pytest.mark.parametrize('settings', [{}, {'top_k': 3}, {'top_p': 0.9}, GREEDY])
def test_a_token_of_no_mass_is_never_drawn_even_at_the_ends(settings):
  allowed = np.zeros((1, VOCAB), bool)
  allowed[0, [130, 131]] = True
  logits = np.zeros((1, VOCAB), np.float32)
  logits[0, 7] = 500.0  # of no account, though it would outweigh all
  for value in (0.0, np.nextafter(np.float32(1), np.float32(0))):
    uniform = jnp.full((1, 1), value)
    decoding = draws.Decoding(**settings)
    token = draws.draw(jnp.asarray(logits), jnp.asarray(allowed), uniform, decoding)
    assert int(token[0, 0]) in (130, 131)


def test_greedy_takes_the_most_probable():
  logits = jnp.asarray(_logits())[None]
  token = draws.draw(logits, EVERY[None], jnp.zeros((1, 1)), draws.GREEDY)
  assert int(token[0, 0]) == int(np.argmax(logits))


def test_uniforms_depend_on_identity_and_not_on_place():
  words = jnp.asarray(draws.source_words(['a', 'b', 'c']))
  candidates = jnp.broadcast_to(jnp.arange(4), (3, 4))
  keys = draws.candidate_keys(5, 2, words, candidates)
  every = np.asarray(draws.uniforms(keys, 5))
  assert every.shape == (3, 4, 5)
  moved = draws.candidate_keys(5, 2, words[::-1], candidates[:, ::-1])
  np.testing.assert_array_equal(np.asarray(draws.uniforms(moved, 5)), every[::-1, ::-1])
  # A longer limit leaves the earlier positions as they were.
  np.testing.assert_array_equal(np.asarray(draws.uniforms(keys, 9))[..., :5], every)
  assert np.unique(every).size == every.size
  other_step = draws.candidate_keys(5, 3, words, candidates)
  other_seed = draws.candidate_keys(6, 2, words, candidates)
  for other in (other_step, other_seed):
    assert not np.any(np.asarray(draws.uniforms(other, 5)) == every)


def test_uniforms_are_uniform_over_candidates_and_positions():
  words = jnp.asarray(draws.source_words([f's{i}' for i in range(100)]))
  keys = draws.candidate_keys(0, 1, words, jnp.broadcast_to(jnp.arange(20), (100, 20)))
  values = np.asarray(draws.uniforms(keys, 10))
  assert scipy.stats.kstest(values.ravel(), 'uniform').pvalue > P_VALUE
  assert values.min() >= 0 and values.max() < 1


@pytest.mark.parametrize(
  ('settings', 'rule'),
  [
    ({'temperature': -1.0}, 'temperature=-1.0'),
    ({'temperature': float('nan')}, 'temperature=nan'),
    ({'top_k': -1}, 'top_k=-1'),
    ({'top_p': 0.0}, 'top_p=0.0'),
    ({'top_p': 1.5}, 'top_p=1.5'),
    ({'min_tokens': -1}, 'min_tokens=-1'),
  ],
)
def test_settings_out_of_range_are_refused(settings, rule):
  with pytest.raises(ValueError, match=rule):
    draws.Decoding(**settings)

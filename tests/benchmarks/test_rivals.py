"""The rivals compute what we compute; skipped where they are not installed."""

import dataclasses
import importlib.machinery
import pathlib

import jax
import numpy as np
import pytest

from benchmarks import ours, rivals, scoring, t5x_rival
from rest_jax.models import t5

CONFIG = t5.T5Config(
  vocab_size=40,
  emb_dim=16,
  num_heads=2,
  head_dim=12,  # heads * head_dim is not emb_dim
  mlp_dim=32,
  num_encoder_layers=2,
  num_decoder_layers=2,
)
LIMITS = rivals.Limits(most=9)
NEEDED = {
  'transformers': ('torch', 'transformers'),
  'ctranslate2': ('torch', 'transformers', 'ctranslate2'),
  't5x': ('t5x',),
}


# Not `importlib.util`'s: the rival puts a t5x of its own into `sys.modules`.
_spec = importlib.machinery.PathFinder.find_spec


def _need(name):
  for package in NEEDED[name]:
    if _spec(package) is None:
      pytest.skip(f'{package} is not installed: see benchmarks/requirements.txt')


def _make(name, policy):
  """By name; T5X's checkout is the one that can be imported."""
  _need(name)
  if name != 't5x':
    return rivals.make(name, policy.config, policy.params)
  (package,) = _spec('t5x').submodule_search_locations
  checkout = pathlib.Path(package).parent
  return t5x_rival.T5XRival(policy.config, policy.params, checkout=checkout)


def test_a_folder_without_t5x_is_refused(tmp_path):
  with pytest.raises(ValueError, match='root of a T5X checkout'):
    t5x_rival.module(tmp_path, 'decoding')


def _policy(*, tied):
  policy = ours.random_policy(dataclasses.replace(CONFIG, logits_via_embedding=tied))
  rng = np.random.default_rng(0)

  def widen(leaf):  # far from a near tie, and all parameters matter
    scale = 0.25 if leaf.ndim == 2 else 0.2
    noise = rng.normal(0.0 if leaf.ndim == 2 else 1.0, scale, leaf.shape)
    return np.asarray(noise, np.float32)

  params = jax.tree.map(widen, policy.params)
  if not tied:
    # A logit of 0 for padding, which the rivals may draw and ours may not.
    params['decoder']['logits_dense']['kernel'][:, 0] = 0.0
  return dataclasses.replace(policy, params=params)


def _sources():
  rng = np.random.default_rng(1)
  return [[*rng.integers(3, 40, n).tolist(), 1] for n in (4, 1, 12, 7, 7, 3)]


@pytest.mark.parametrize('tied', [False, True])
@pytest.mark.parametrize('name', list(NEEDED))
@pytest.mark.filterwarnings('default')  # the libraries' own
def test_greedy_outputs_agree(name, tied):
  policy = _policy(tied=tied)
  rival = _make(name, policy)
  sampler = ours.OurSampler(policy)
  expected = sampler.greedy(_sources(), limits=LIMITS)
  assert rival.greedy(_sources(), limits=LIMITS) == expected
  assert len({tuple(tokens) for tokens in expected}) > 1
  # Without EOS, to the last token.
  fixed = rivals.Limits(most=6, least=6)
  expected = sampler.greedy(_sources(), limits=fixed)
  assert {len(tokens) for tokens in expected} == {6}
  assert rival.greedy(_sources(), limits=fixed) == expected


@pytest.mark.parametrize('name', list(NEEDED))
@pytest.mark.filterwarnings('default')
def test_first_tokens_are_drawn_from_the_tempered_distribution(name):
  policy = _policy(tied=False)
  rival = _make(name, policy)
  source = _sources()[0]
  start = np.zeros((1, 1, 1), np.int32)
  logits = t5.T5(policy.config).apply(
    {'params': policy.params}, np.array([source]), start
  )
  masses = np.exp(np.asarray(logits[0, 0, 0], np.float64) / 0.8)
  probabilities = masses / masses.sum()
  num = 2000
  (drawn,) = rival.sample(
    [source], num_samples=num, limits=rivals.Limits(most=2), temperature=0.8, seed=3
  )
  assert len(drawn) == num
  counts = np.bincount([tokens[0] for tokens in drawn], minlength=40)
  expected = probabilities * num
  common = expected >= 5
  observed = np.append(counts[common], counts[~common].sum())
  expected = np.append(expected[common], expected[~common].sum() + 1e-9)
  chi_square = ((observed - expected) ** 2 / np.maximum(expected, 1)).sum()
  # Five standard deviations above the mean of chi-square; at temperature 1 it is
  # many times that.
  freedom = len(observed) - 1
  assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


# Greedy outputs cannot tell whether tied logits are scaled; these can.
@pytest.mark.parametrize('tied', [False, True])
@pytest.mark.parametrize('name', scoring.EXACT)
@pytest.mark.filterwarnings('default')
def test_sequence_log_probabilities_agree(name, tied):
  _need(name.partition('_')[0])
  policy = _policy(tied=tied)
  rng = np.random.default_rng(2)
  candidates = [
    [[*rng.integers(3, 40, n).tolist(), 1] for n in rng.integers(0, 8, 3)]
    for _ in _sources()
  ]
  groups = ours.with_candidates(_sources(), candidates)
  score = ours.log_prob_scorer(policy, source_length=16, target_length=9)
  expected = [
    means * [len(tokens) for tokens in group.tokens]
    for means, group in zip(score(groups), groups, strict=True)
  ]
  scorer = scoring.make(name, policy)
  scorer.batch = 4
  found = scorer(groups)
  # Float32 sums of up to 8 tokens of some 5 nats.
  np.testing.assert_allclose(
    np.concatenate(found), np.concatenate(expected), atol=2e-4, rtol=0
  )

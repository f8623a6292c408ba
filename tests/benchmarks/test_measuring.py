"""The benchmarks' own arithmetic: turns, ratios, tables, operations of a token."""

import types

import numpy as np
import pytest

from benchmarks import ceiling, comparison, measuring
from rest_jax.models import t5


def test_rounds_rotate_the_order():
  order = []
  calls = {
    name: lambda number, name=name: order.append((number, name)) for name in 'ab'
  }
  turns = measuring.interleave(calls, repeats=3)
  assert order == [(0, 'a'), (0, 'b'), (1, 'b'), (1, 'a'), (2, 'a'), (2, 'b')]
  assert [len(turns[name]) for name in 'ab'] == [3, 3]
  with pytest.raises(ValueError, match='repeats=0'):
    measuring.interleave(calls, repeats=0)


def test_ratios_are_taken_round_by_round():
  base = [measuring.Turn(s, None) for s in (1.0, 2.0, 4.0)]
  other = [measuring.Turn(s, None) for s in (3.0, 8.0, 4.0)]
  # Ratios 3, 4, 1; the ratio of the medians would be 2.
  expected = {'ratio': 3.0, 'ratio_min': 1.0, 'ratio_max': 4.0}
  assert measuring.ratios(base, other) == expected
  assert measuring.median_seconds(other) == 4.0


def test_tables_line_up_and_leave_what_is_unknown_empty():
  text = measuring.table([{'a': 1234.5, 'b': 'x'}, {'a': 0.12345, 'c': 2000}])
  assert text.splitlines() == [
    '|      a | b |     c |',
    '|-------:|--:|------:|',
    '|  1,234 | x |       |',
    '| 0.1235 |   | 2,000 |',
  ]


def test_operations_of_a_token_of_the_papers_shape():
  config = t5.T5Config(
    vocab_size=8000,
    emb_dim=512,
    num_heads=4,
    head_dim=128,
    mlp_dim=1024,
    num_encoder_layers=6,
    num_decoder_layers=6,
  )
  # A layer: 6 attention matrices of 512 x 512 and 3 of 512 x 1,024; logits 512 x 8,000.
  matrices = 6 * (6 * 512 * 512 + 3 * 512 * 1024) + 512 * 8000
  attention = 4 * 6 * 512 * (16 + 12)
  found = ceiling.token_flops(config, source_length=16, target_length=24)
  assert found == 2 * matrices + attention
  assert 45e6 < found < 47e6  # what a parameter count says: 46 million


def test_the_ceiling_is_a_rate():
  assert ceiling.matmul_gflops('float32', seconds=0.0) > 0


def test_length_deviations_are_in_standard_errors_of_the_sources():
  base = [[[5, 1]], [[5, 1]], [[5, 1]]]
  other = [[[5, 1]], [[5, 5, 1]], [[5, 5, 5, 1], [5, 5, 1, 1]]]
  # Differences 0, 1, 2: mean 1, deviation 1, standard error 1 / sqrt(3).
  assert comparison.deviations(base, other) == pytest.approx(np.sqrt(3))
  assert comparison.deviations(base, base) == 0.0
  assert comparison.standard_errors(np.ones(3)) == np.inf


def test_a_float32_rival_that_disagrees_stops_the_comparison():
  def sampler(name, tokens):
    return types.SimpleNamespace(name=name, greedy=lambda sources, limits: tokens)

  ours = sampler('ours', [[3, 1], [4, 1]])
  same = sampler('transformers', [[3, 1], [4, 1]])
  coarse = sampler('ctranslate2_int8', [[3, 1], [5, 1]])
  wrong = sampler('ctranslate2', [[3, 1], [5, 1]])
  shares = comparison.check_greedy([ours, same, coarse], [[2], [2]], None)
  assert shares == {'transformers': 1.0, 'ctranslate2_int8': 0.5}
  with pytest.raises(SystemExit, match=r'50.00% of the greedy outputs of ctranslate2'):
    comparison.check_greedy([ours, wrong], [[2], [2]], None)
  # bfloat16 may differ.
  ours.name = 'ours_bfloat16'
  assert comparison.check_greedy([ours, wrong], [[2], [2]], None)['ctranslate2'] == 0.5

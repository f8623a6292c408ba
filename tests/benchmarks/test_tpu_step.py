"""The TPU estimates: what is read from the compiler, and how it is shown."""

import types

import jax
import pytest

from benchmarks import tpu_estimates, tpu_step
from rest_jax.models import t5

MEMORY = types.SimpleNamespace(
  argument_size_in_bytes=500,
  temp_size_in_bytes=70,
  output_size_in_bytes=310,
  alias_size_in_bytes=300,
)
# As compiled text has it: the type of a loop's state holds comments with '='.
LOOP = '  %while.3 = (s32[], /*index=5*/s32[5]) while(%tuple.52), body=%wide.while_body'


def estimate(
  seconds: float, text: str = '', rows: int = 2048
) -> tpu_estimates.Estimate:
  cost = {'optimal_seconds': seconds, 'bytes accessed': 5e9, 'flops': 2e12}
  return tpu_estimates.read_estimate(cost, MEMORY, text, rows)


def result(found: tpu_estimates.Estimate, **changes: object) -> dict[str, object]:
  return {
    'size': 'base',
    'samples': 64,
    'model': 1,
    'variant': 'grouped',
    'sources': 32,
    'times_t5x': 2.0,
    'times_t5x_by_cycles': 3.0,
    'rows': found.rows,
    'megacycles': found.megacycles,
    'bytes_accessed': found.bytes_accessed,
    'flops': found.flops,
    'argument_bytes': found.argument_bytes,
    'temp_bytes': found.temp_bytes,
    'milliseconds': found.milliseconds,
    'tokens_per_s': found.tokens_per_s,
    'loops': found.loops,
    'moves_milliseconds': found.moves_milliseconds,
    **changes,
  }


def test_estimate_is_read():
  found = estimate(4e-3)
  assert found.milliseconds == pytest.approx(4.0)
  assert found.tokens_per_s == pytest.approx(512_000)  # 2,048 rows in 4 ms
  assert (found.bytes_accessed, found.flops) == (5e9, 2e12)
  assert found.output_bytes == 10  # what is written in place is not counted twice
  assert found.loops == 0


@pytest.mark.parametrize('seconds', [0.0, -3.0, float('nan'), float('inf')])
def test_no_positive_estimate_is_unknown(seconds: float):
  found = estimate(seconds)
  assert found.milliseconds is None
  assert found.tokens_per_s is None


def test_cycles_of_the_entry_are_summed():
  line = '  %a = s32[] add(%p, %p), backend_config={"estimated_cycles":"1500000"}\n'
  found = estimate(
    1e-3, f'%body (p: s32[]) {{\n{line}}}\nENTRY %main {{\n{line}{line}}}'
  )
  assert found.megacycles == 3.0  # 4.5 with the body, 1.5 with one instruction


def test_ratio_by_cycles_is_for_each_row():
  ours = result(estimate(1e-3, rows=10), megacycles=2.0)
  theirs = result(estimate(1e-3, rows=20), megacycles=16.0)
  assert tpu_estimates.cycles_ratio(ours, theirs) == pytest.approx(4.0)
  assert tpu_estimates.cycles_ratio(result(estimate(1e-3)), theirs) is None


def test_loops_are_counted():
  body = '%wide.while_body (p: s32[]) -> s32[] {\n  %a = s32[] add(%p, %p)\n}\n'
  assert estimate(1e-3, body + LOOP + '\n' + LOOP).loops == 2


def test_a_step_bears_its_part_of_the_moves():
  found = tpu_estimates.with_moves(estimate(4e-3), estimate(2e-3), 8)
  assert found.milliseconds == pytest.approx(4.0)  # what is not always done is apart
  assert found.moves_milliseconds == pytest.approx(0.25)
  assert found.temp_bytes == 70  # one after the other, in the same memory
  unknown = tpu_estimates.with_moves(estimate(4e-3), estimate(-1.0), 8)
  assert unknown.moves_milliseconds is None


def test_ratio():
  fast, slow = result(estimate(1e-3)), result(estimate(4e-3))
  assert tpu_estimates.ratio(fast, slow) == pytest.approx(4.0)
  assert tpu_estimates.ratio(fast, None) is None
  assert tpu_estimates.ratio(fast, result(estimate(-1.0))) is None


def test_table_marks_bounds_and_unknowns():
  rows = [
    result(estimate(4e-3), megacycles=1.5),
    result(estimate(4e-3, LOOP), megacycles=1.5),
    result(
      estimate(-1.0, LOOP), megacycles=1.5, times_t5x=None, times_t5x_by_cycles=None
    ),
  ]
  head, rule, plain, bound, unknown = tpu_estimates.table(rows).splitlines()
  assert head.count('|') == rule.count('|') == plain.count('|') == bound.count('|')
  assert plain.endswith('| 4.00 | 0.00 | 512,000 | 2.00 | 1.5 | 3.00 |')
  assert bound.endswith('| >4.00 | 0.00 | <512,000 | <2.00 | >1.5 | <3.00 |')
  assert unknown.endswith('| unknown | 0.00 | unknown | unknown | >1.5 | unknown |')


def test_sources_are_halved_until_they_fit():
  asked = []

  def compile_for(sources: int) -> tpu_estimates.Estimate:
    asked.append(sources)
    if sources > 8:
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: 20 GB of 16 GB hbm')
    return estimate(1e-3)

  found = tpu_step.fit(compile_for, 32)
  assert found is not None
  assert found[0] == 8
  assert asked == [32, 16, 8]


def test_nothing_fits():
  def compile_for(sources: int) -> tpu_estimates.Estimate:
    raise jax.errors.JaxRuntimeError('Ran out of memory in memory space hbm')

  assert tpu_step.fit(compile_for, 4) is None


def test_other_errors_of_the_compiler_are_not_hidden():
  def compile_for(sources: int) -> tpu_estimates.Estimate:
    raise jax.errors.JaxRuntimeError('INTERNAL: something else')

  with pytest.raises(jax.errors.JaxRuntimeError, match='something else'):
    tpu_step.fit(compile_for, 4)


def test_unknown_names_list_the_known():
  with pytest.raises(ValueError, match='base, large, xl'):
    tpu_step.model_config('huge')
  with pytest.raises(ValueError, match='v5e, v5p, v6e'):
    tpu_step.topology_mesh('v1')


def test_without_libtpu_it_says_so_and_stops(monkeypatch, capsys):
  monkeypatch.setattr(tpu_step, 'libtpu_reason', lambda: 'libtpu is absent')
  assert tpu_step.main([]) == 0
  assert 'skipped: libtpu is absent' in capsys.readouterr().out


def test_a_step_compiles_for_a_tpu():
  reason = tpu_step.libtpu_reason()
  if reason:
    pytest.skip(reason)
  config = t5.T5Config(
    256, emb_dim=128, num_heads=2, mlp_dim=128, num_decoder_layers=1, dtype='bfloat16'
  )
  found = tpu_step.compile_ours(
    tpu_step.topology_mesh('v5e'),
    config,
    sources=2,
    samples=4,
    source_length=8,
    cache_length=8,
  )
  assert found.rows == 8
  # A matrix product for each row: the projections of self- and cross-attention
  # (4 + 2), the feed-forward block (3) and the logits (2), of 128 x 128.
  assert found.flops >= 2 * 8 * 11 * 128 * 128
  assert found.argument_bytes > 0
  assert found.megacycles > 0

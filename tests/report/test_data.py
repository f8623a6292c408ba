import pytest

from rest_jax.report import data, formatting


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'summary': {}}, 'at least one evaluated policy'),
    ({'summary': {'policies': [{'grow': 0}]}}, 'policy 0 has no name'),
    (
      {'histograms': [{'grow': 3, 'edges': [0, 1], 'counts': [1, 2]}]},
      r'grow 3 has 2 edges and 2 counts',
    ),
    (
      {'curves': [{'stage': 'bc', 'metric': 'loss', 'steps': [1], 'values': []}]},
      "'loss' of 'bc' has 1 steps and 0 values",
    ),
  ],
)
def test_mistakes_are_named(arguments, message):
  with pytest.raises(ValueError, match=message):
    data.ReportData(**{'summary': {'policies': [{'name': 'BC'}]}, **arguments})


def test_what_was_not_measured_is_none():
  record = {'a': None, 'b': float('nan'), 'c': float('inf'), 'd': 0, 'e': [0.1, None]}
  assert [data.number(record, k) for k in 'abcdz'] == [None, None, None, 0.0, None]
  assert data.interval(record, 'e') is None and data.half_interval(record, 'z') is None
  assert data.half_interval({'i': [0.25, 0.75]}, 'i') == 0.25


@pytest.mark.parametrize(
  ('policy', 'expected'),
  [
    ({'name': 'x', 'grow': 0, 'improve': 0}, 'BC'),
    ({'name': 'x', 'grow': 2, 'improve': 0}, 'G=2 I=0'),
    ({'name': 'PPO', 'grow': None, 'improve': None}, 'PPO'),
  ],
)
def test_short_names(policy, expected):
  assert data.short_name(policy) == expected


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    (formatting.score(0.12345), '0.123'),
    (formatting.score(-0.5, 1), '−0.5'),
    (formatting.score(38.76, 3), '38.8'),
    (formatting.score(None), '–'),
    (formatting.percent(0.2491), '24.9 %'),
    (formatting.count(16_000_000), '16,000,000'),
    (formatting.duration(0), '0 s'),
    (formatting.duration(0.85), '850 ms'),
    (formatting.duration(59.9), '59.9 s'),
    (formatting.duration(59.97), '1 min 00 s'),
    (formatting.duration(3599.6), '1 h 00 min'),
    (formatting.duration(11_230), '3 h 07 min'),
    (formatting.memory(1023), '1023 B'),
    (formatting.memory(3.42 * 2**30), '3.42 GiB'),
    (formatting.energy(1.25e6), '1.25 MJ'),
    (formatting.energy(None), '–'),
  ],
)
def test_formatting(text, expected):
  assert text == expected

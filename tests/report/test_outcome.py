import pytest

from rest_jax.report.outcome import headline, over_optimisation


def _policy(place, reward, gold, half=0.01, grow=1):
  return {
    'name': f'P{place}',
    'grow': grow if place else 0,
    'improve': place,
    'reward_mean': reward,
    'reward_interval': [reward - 0.01, reward + 0.01],
    'gold_mean': gold,
    'gold_interval': None if half is None else [gold - half, gold + half],
  }


def _run(*pairs, half=0.01):
  return [_policy(i, reward, gold, half) for i, (reward, gold) in enumerate(pairs)]


def _found(policies):
  return [(f.index, f.earlier_name) for f in over_optimisation(policies)]


def test_a_sudden_fall_of_gold_under_a_rising_proxy_is_found():
  assert _found(_run((0.5, 0.5), (0.6, 0.55), (0.7, 0.53))) == [(2, 'P1')]


@pytest.mark.parametrize(
  'pairs',
  [
    [(0.5, 0.50), (0.6, 0.55), (0.7, 0.56)],  # both rise
    [(0.5, 0.50), (0.6, 0.55), (0.7, 0.541)],  # gold falls inside its interval
    [(0.5, 0.50), (0.6, 0.55), (0.55, 0.53)],  # both fall
    [(0.5, 0.50), (0.6, 0.55), (0.6, 0.53)],  # the proxy stands still
    [(0.5, 0.50)],
  ],
)
def test_nothing_else_is_found(pairs):
  assert _found(_run(*pairs)) == []


def test_a_slow_slide_is_named_once_where_it_exceeds_the_interval():
  run = _run((0.5, 0.5), (0.6, 0.594), (0.61, 0.588), (0.62, 0.582), (0.63, 0.578))
  assert _found(run) == [(3, 'P1')]  # 0.594 - 0.582 = 0.012 > 0.01, a step is 0.006


def test_a_second_sudden_fall_is_named_too():
  run = _run((0.5, 0.6), (0.6, 0.58), (0.7, 0.56))
  assert _found(run) == [(1, 'P0'), (2, 'P1')]


def test_the_larger_half_interval_decides():
  run = _run((0.5, 0.6), (0.6, 0.57))
  run[0]['gold_interval'] = [0.56, 0.64]
  assert _found(run) == []


@pytest.mark.parametrize(
  'change',
  [
    {'gold_mean': None},
    {'reward_mean': None},
    {'gold_mean': float('nan')},
  ],
)
def test_what_was_not_measured_is_no_finding(change):
  run = _run((0.5, 0.6), (0.6, 0.5))
  assert _found(run) == [(1, 'P0')]
  run[1].update(change)
  assert _found(run) == []


def test_no_interval_is_no_finding():
  assert _found(_run((0.5, 0.6), (0.6, 0.5), half=None)) == []


def test_an_online_baseline_is_compared_with_bc_and_not_with_rest():
  run = _run((0.5, 0.5), (0.6, 0.6))
  online = _policy(2, 0.7, 0.51)
  online.update(grow=None, improve=None)
  assert _found([*run, online]) == []
  online.update(gold_mean=0.45, gold_interval=[0.44, 0.46])
  assert _found([*run, online]) == [(2, 'P0')]


@pytest.mark.parametrize(
  ('last', 'expected'),
  [
    (
      (0.6, 0.55),
      'P1 raises reward from 0.500 to 0.600 and gold from 0.500 to 0.550 over BC.',
    ),
    (
      (0.6, 0.45),
      'P1 raises reward from 0.500 to 0.600 but lowers gold from 0.500 to '
      '0.450 against BC.',
    ),
    (
      (0.6, 0.505),
      'P1 raises reward from 0.500 to 0.600 but hardly moves gold (0.500 '
      'to 0.505, within its interval) against BC.',
    ),
    ((0.6, None), 'P1 raises reward from 0.500 to 0.600 over BC.'),
    ((None, None), 'P1 was trained; neither reward nor gold was measured.'),
  ],
)
def test_headline(last, expected):
  run = _run((0.5, 0.5), (0.1, 0.1))
  run[1].update(reward_mean=last[0], gold_mean=last[1])
  assert headline(run) == expected


def test_headline_is_of_the_last_step_and_not_of_the_best():
  assert headline(_run((0.5, 0.5), (0.9, 0.9), (0.6, 0.6))).startswith('P2 raises')


def test_headline_of_bc_alone():
  assert headline(_run((0.5, 0.4))) == (
    'P0 reaches reward 0.500 and gold 0.400; no ReST step has been evaluated yet.'
  )

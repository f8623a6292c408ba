"""The simulation against cases by hand, and against two real processes."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from benchmarks import grow_scheduling, grow_simulation
from benchmarks.grow_simulation import Protocol, simulate
from tests import minimal_run, several_hosts

FAST = Protocol(start_s=0.0, heartbeat_s=10.0, return_s=50.0)


def claims(outcome):
  return [tuple(claim) for claim in outcome.claims]


def test_blocks_go_to_whoever_is_free():
  found = simulate([4, 4, 4, 4, 4], [1.0, 2.0], protocol=FAST)
  # Host 0 takes 4 s for a block, host 1 takes 2 s.
  assert claims(found) == [(0, 0, 0), (0, 1, 1), (2, 1, 2), (4, 0, 3), (4, 1, 4)]
  assert found.seconds == 8 and found.worked_s == 14 and found.starts == 1
  assert found.efficiency(2) == 14 / 16 and found.lost_s == 0


def test_two_real_processes_claim_so():
  case = {'work_s': [3, 1, 4, 1, 5, 9, 2, 6], 'speeds': [1.0, 2.3], 'start_s': 7.0}
  expected = simulate(
    case['work_s'], case['speeds'], protocol=Protocol(start_s=case['start_s'])
  )
  port = several_hosts.free_port()
  processes = [
    subprocess.Popen(
      [
        sys.executable,
        *('-m', 'tests.benchmarks.claiming_hosts', str(port), '2', str(index)),
        json.dumps(case),
      ],
      cwd=minimal_run.ROOT,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'},
      stdout=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  try:
    printed = [process.communicate(timeout=200)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
      process.wait()
  found = [tuple(c) for text in printed for c in json.loads(text.splitlines()[-1])]
  assert sorted(found) == sorted(claims(expected))
  assert [len(json.loads(text.splitlines()[-1])) for text in printed] == [2, 6]


def test_a_host_that_dies_takes_all_blocks_in_work_along():
  # At 5 host 1 dies; at 15 host 0 is ended. Before that it finishes blocks 0 and 2.
  found = simulate([6, 6, 6, 6], [1.0, 1.0], [(5.0, 1)], FAST)
  first = [(0, 0, 0), (0, 1, 1), (6, 0, 2), (12, 0, 3)]
  # All start again when host 1 is back, at 55: blocks 1 and 3 are left.
  assert claims(found) == [*first, (55, 0, 1), (55, 1, 3)]
  assert found.seconds == 61 and found.starts == 2
  assert found.lost_s == 5 + 3 and found.worked_s == 4 * 6


def test_a_host_that_dies_at_the_end_is_waited_for():
  # Both blocks are written when host 1 dies, and host 0 is not yet told so.
  found = simulate([2, 6], [1.0, 1.0], [(6.0, 0)], FAST)
  assert found.starts == 2 and found.seconds == 56


def test_losses_while_all_are_down_are_none():
  found = simulate([6, 6], [1.0, 1.0], [(5.0, 1), (20.0, 0), (54.0, 1)], FAST)
  assert found.starts == 2


def test_hosts_that_survive_lose_one_block():
  protocol = Protocol(start_s=0.0, heartbeat_s=10.0, return_s=50.0, survive=True)
  found = simulate([6, 6, 6, 6], [1.0, 1.0], [(5.0, 1)], protocol)
  # Block 1 is free again at 15, when host 0 is at work on block 3.
  assert claims(found) == [(0, 0, 0), (0, 1, 1), (6, 0, 2), (12, 0, 3), (18, 0, 1)]
  assert found.seconds == 24 and found.lost_s == 5 and found.starts == 1


def test_a_survivor_that_waits_takes_the_lost_block():
  protocol = Protocol(start_s=0.0, heartbeat_s=10.0, return_s=50.0, survive=True)
  found = simulate([6, 6], [1.0, 1.0], [(5.0, 1)], protocol)
  assert claims(found) == [(0, 0, 0), (0, 1, 1), (15, 0, 1)]
  assert found.seconds == 21


@pytest.mark.parametrize(('by_name', 'requests'), [(False, 10 + 3), (True, 30)])
def test_asking_by_name_asks_for_every_block_at_every_host(by_name, requests):
  found = simulate([1] * 10, [1.0] * 3, protocol=Protocol(by_name=by_name))
  assert found.requests == requests


def test_the_service_answers_one_after_the_other():
  protocol = Protocol(start_s=0.0, latency_s=1.0, service_s=2.0)
  found = simulate([10, 10, 10], [1.0] * 3, protocol=protocol)
  assert [when for when, *_ in found.claims] == [2, 4, 6]


def test_nothing_is_lost_and_nothing_done_twice():
  for survive in (False, True):
    protocol = Protocol(10, 5, 20, survive=survive)
    losses = grow_simulation.random_losses(4, 300.0, seed=1)
    found = simulate(
      [10 + i % 7 for i in range(60)], [0.9, 1, 1, 1.2], losses, protocol
    )
    assert {block for *_, block in found.claims} == set(range(60))
    assert found.lost_s > 0
    alone = simulate([10 + i % 7 for i in range(60)], [0.9, 1, 1, 1.2], (), protocol)
    assert alone.seconds < found.seconds


@pytest.mark.parametrize('survive', [False, True])
def test_losses_faster_than_starts_end_no_grow(survive):
  protocol = Protocol(start_s=100.0, return_s=50.0, survive=survive, patience_s=1e5)
  losses = ((10.0 * i, i % 2) for i in range(10**6))
  found = simulate([60.0] * 4, [1.0, 1.0], losses, protocol)
  assert found.seconds == float('inf') and found.efficiency(2) == 0


def test_losses_come_as_often_as_they_should():
  found = grow_simulation.random_losses(10, 100.0, seed=0)
  times = [next(found)[0] for _ in range(4000)]
  assert times == sorted(times)
  assert times[-1] / 4000 == pytest.approx(10.0, rel=0.06)  # 4 standard errors
  assert not list(grow_simulation.random_losses(10, float('inf'), seed=0))


def test_a_workload_is_cut_as_grow_cuts_it():
  # 10 shards and a rest; 8 lanes of 4 tickets: blocks of two shards.
  workload = grow_scheduling.Workload(
    sources=170, num_samples=25, sources_per_shard=16, lanes=8, tickets=4
  )
  tokens = workload.block_tokens()
  assert len(tokens) == 6
  assert tokens.sum() == pytest.approx(170 * 25 * 29, rel=0.25)  # 3 deviations
  # A candidate is written by the host as slowly as the chips make it fast.
  fast, slow = (
    dataclasses.replace(workload, rate=r).work_s(tokens) for r in (50, 0.01)
  )
  assert fast == pytest.approx(tokens / 29 / 50_000)
  chips = 4 * 282_730 * 0.01 / 0.6
  assert slow == pytest.approx(tokens / chips + 64 * 512 / 2827.3)


def test_the_script_runs_and_draws(tmp_path, capsys):
  figure = tmp_path / 'figure.svg'
  few = ['--sources', '20000', '--hosts', '1', '4', '--repeats', '1']
  found = grow_scheduling.main([*few, '--figure', str(figure)])
  assert set(found) == {'hosts', 'blocks', 'losses', 'claims'}
  assert all(row['minutes'] > 0 for rows in found.values() for row in rows)
  assert figure.stat().st_size > 10_000
  assert capsys.readouterr().out.count('"question"') == 4

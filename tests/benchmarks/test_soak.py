"""What the soak says of readings whose leak is known."""

import numpy as np
import pytest

from benchmarks import soak


def readings(leak_bytes_a_shard):
  noise = np.random.default_rng(0).normal(0, 2e5, 200)
  shards = np.arange(200)
  # The first shards take memory that is kept: the warm-up.
  resident = 5e8 + 1e7 * np.minimum(shards, 30) + leak_bytes_a_shard * shards + noise
  return soak.Readings(shards.tolist(), resident.tolist(), [3] * 50 + [5] * 150)


@pytest.mark.parametrize('leak_kb', [0.0, 20.0])
def test_a_leak_is_found_and_the_warm_up_is_none(leak_kb):
  row = readings(1e3 * leak_kb).row('grow', 200)
  assert row['from'] < leak_kb < row['to'] and row['to'] - row['from'] < 2
  # Between the medians of the first and the last quarter lie 120 shards.
  assert row['drift, MB'] == pytest.approx(0.120 * leak_kb, abs=0.1)
  assert row['readings'] == 160 and row['programs compiled meanwhile'] == 2


def test_memory_is_read_while_the_block_runs(monkeypatch):
  monkeypatch.setattr(soak, 'PERIOD_S', 0.001)
  with soak.read(lambda: 7) as found:
    while len(found.resident) < 3:
      pass
  assert set(found.shards) == {7} and min(found.resident) > 1e6

"""What can be said of TPUs without their compiler, and with it where it is."""

import importlib.util

import pytest

from rest_jax.planning import tpu


@pytest.mark.parametrize('name', ['v5p', 'v7:2x2', 'v5e:4', 'v5e:2x2x2x2', 'v5e:axb'])
def test_an_unknown_topology_names_the_known(name):
  with pytest.raises(ValueError, match=r'v4, v5e, v5p, v6e.*v5p:8x8x16'):
    tpu.chip_of(name)


def test_chips_have_the_memory_that_they_are_sold_with():
  sold = {'v4:2x2x1': 32, 'v5e:2x2': 16, 'v5p:2x2x1': 95, 'v6e:2x2': 32}
  for name, gib in sold.items():
    assert tpu.chip_of(name).memory_bytes == gib * 2**30


def test_without_libtpu_it_says_how_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r"pip install 'rest_jax\[tpu\]'"):
    tpu.devices('v5e:2x2')


def test_the_refusal_of_the_compiler_is_read():
  text = (
    'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory '
    'space hbm. Used 17.50G of 15.75G hbm. Exceeded hbm capacity by 1.75G.'
  )
  assert tpu.used_bytes(text) == 17.5 * 2**30
  assert tpu.used_bytes('RESOURCE_EXHAUSTED: of something else') is None

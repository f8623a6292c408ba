"""How a test starts a program that sees so many devices on a CPU."""

import os


def xla_flags(count: int) -> str:
  """The tests' own XLA_FLAGS, with `count` devices."""
  flags = os.environ.get('XLA_FLAGS', '')
  return f'{flags} --xla_force_host_platform_device_count={count}'.lstrip()

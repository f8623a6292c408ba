"""An estimate to vary in tests."""

from rest_jax.planning import precompile


def estimate(**fields):
  """One that fits, with these fields in place of its own."""
  return precompile.Estimate(
    **{
      'program': 'improve step',
      'chips': 4,
      'mesh': {'data': 4},
      'argument_bytes': 1,
      'temp_bytes': 1,
      'output_bytes': 0,
      'code_bytes': 0,
      'held_bytes': 0,
      'used_bytes': 2,
      'flops': 1.0,
      'bytes_accessed': 1.0,
      'collectives': (),
      'optimal_s': None,
      'cycles': 0,
      'compute_s': None,
      'by_cycles': False,
      'links_s': None,
      'repetition': 1.0,
      'unknown_loops': 0,
      'at_peak': False,
      'refusal': '',
      'tokens': 8,
      'compile_s': 0.0,
      **fields,
    }
  )

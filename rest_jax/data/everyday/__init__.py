"""Everyday German to English from our own synchronous grammar.

The embedded corpus: no download, every correct English rendering of each German
sentence is known, so quality can be measured against something no reward model saw.
"""

from rest_jax.data.everyday.grammar import (
  Sentence,
  generate,
  num_distinct_lower_bound,
  num_lemmas,
)
from rest_jax.data.everyday.imperfections import ImperfectionRates, imperfect_reference
from rest_jax.data.everyday.raters import SimulatedRaters, exact_match, gold, judgement

__all__ = [
  'ImperfectionRates',
  'Sentence',
  'SimulatedRaters',
  'exact_match',
  'generate',
  'gold',
  'imperfect_reference',
  'judgement',
  'num_distinct_lower_bound',
  'num_lemmas',
]

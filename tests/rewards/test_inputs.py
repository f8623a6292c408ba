"""What a reward model's encoder reads."""

import dataclasses

import numpy as np
import pytest

from rest_jax.data import group_store
from rest_jax.rewards import inputs


class Letters:
  """Each letter is a token; EOS follows."""

  def encode(self, text):
    return np.array([*map(ord, text), 1], np.int32)

  def encode_batch(self, texts):
    return [self.encode(text) for text in texts]


VOCABULARY = Letters()
BOTH = inputs.SourceAndReference(source_prefix='s:', reference_prefix='|r:')
GROUP = group_store.pair(
  '7', 'ein Hund', VOCABULARY.encode('ein Hund'), 'a dog', VOCABULARY.encode('a dog')
)


def test_source_and_reference_stand_behind_their_prefixes_with_one_eos():
  tokens = BOTH(GROUP, VOCABULARY, 10)
  assert tokens.dtype == np.int32
  np.testing.assert_array_equal(tokens, VOCABULARY.encode('s:ein Hund|r:a dog'))
  # The limits are those of source and reference: 9 and 6 tokens.
  assert BOTH.longest(VOCABULARY, 9, 6) == len(tokens)


def test_a_reference_beyond_the_limit_is_cut_and_keeps_its_eos():
  tokens = BOTH(GROUP, VOCABULARY, 4)
  np.testing.assert_array_equal(tokens, VOCABULARY.encode('s:ein Hund|r:a d'))
  assert len(tokens) == BOTH.longest(VOCABULARY, 9, 4)


def test_the_source_alone_is_the_source():
  source = inputs.Source()
  assert source(GROUP, VOCABULARY, 4) is GROUP.source_tokens
  assert source.longest(VOCABULARY, 9, 4) == 9


def test_groups_keep_their_candidates():
  (group,) = inputs.encoder_groups([GROUP], BOTH, VOCABULARY, 10)
  assert group.source == GROUP.source and group.tokens == GROUP.tokens
  np.testing.assert_array_equal(group.source_tokens, BOTH(GROUP, VOCABULARY, 10))


def test_no_reference_is_an_error_that_names_the_source():
  without = dataclasses.replace(GROUP, reference=None)
  with pytest.raises(ValueError, match="source '7' has no reference"):
    BOTH(without, VOCABULARY, 10)


@pytest.mark.parametrize('reward_input', [inputs.Source(), BOTH])
def test_what_is_written_is_read_again(reward_input):
  assert inputs.from_dict(reward_input.to_dict()) == reward_input


def test_an_unknown_kind_lists_the_known_ones():
  with pytest.raises(ValueError, match="'image'; known: source, source_and_reference"):
    inputs.from_dict({'kind': 'image'})

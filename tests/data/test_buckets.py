"""Lengths that programs are compiled for."""

import pytest

from rest_jax.data import buckets


def test_lengths_double_up_to_the_limit():
  assert buckets.lengths_up_to(100) == (32, 64, 100)
  assert buckets.lengths_up_to(64) == (32, 64)
  assert buckets.lengths_up_to(32) == (32,)
  assert buckets.lengths_up_to(5) == (5,)


def test_sizes_are_four_to_a_doubling():
  up_to_128 = (16, 24, 32, 48, 64, 80, 96, 112, 128)
  assert buckets.sizes_up_to(128) == up_to_128
  assert buckets.sizes_up_to(300) == (*up_to_128, 160, 192, 224, 256, 300)
  assert buckets.sizes_up_to(40) == (16, 24, 32, 40)
  assert buckets.sizes_up_to(16) == (16,)
  assert buckets.sizes_up_to(3) == (3,)


def test_a_bucket_is_the_first_that_holds_the_length():
  assert [buckets.bucket(n, (4, 8, 10)) for n in (1, 4, 5, 8, 9, 10)] == [
    4,
    4,
    8,
    8,
    10,
    10,
  ]
  with pytest.raises(ValueError, match=r'11 tokens is longer than the longest.*10'):
    buckets.bucket(11, (4, 8, 10))


def test_training_buckets_are_shares_of_the_longest():
  lengths = {'inputs': 40, 'targets': 20}
  assert buckets.training_buckets(lengths) == ((40, 20),)
  assert buckets.training_buckets(lengths, (0.25, 0.5, 1.0)) == (
    (10, 5),
    (20, 10),
    (40, 20),
  )
  # One token and EOS always fit.
  assert buckets.training_buckets({'inputs': 4, 'targets': 2}, (0.1, 1.0))[0] == (2, 2)


@pytest.mark.parametrize(
  'shares', [(), (0.5,), (0.5, 0.5, 1.0), (1.0, 0.5), (0.7, 2.0)]
)
def test_shares_that_do_not_rise_to_1_are_refused(shares):
  with pytest.raises(ValueError, match=r'must rise to 1.0'):
    buckets.training_buckets({'inputs': 8, 'targets': 8}, shares)


@pytest.mark.parametrize(
  ('lengths', 'told'),
  [
    ({'inputs': 8}, r"has \['inputs'\], but must have"),
    ({'inputs': 8, 'targets': 8, 'extra': 8}, "'extra'"),
    ({'inputs': 8, 'targets': 1}, r"\['targets'\]=1 must be a whole number"),
    ({'inputs': 8.0, 'targets': 8}, r"\['inputs'\]=8.0 must be a whole number"),
  ],
)
def test_feature_lengths_are_two_whole_numbers(lengths, told):
  with pytest.raises(ValueError, match=told):
    buckets.feature_lengths(lengths)


def test_feature_lengths_are_source_and_target():
  assert buckets.feature_lengths({'targets': 3, 'inputs': 9}) == (9, 3)

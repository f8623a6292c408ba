"""Lengths that programs are compiled for: few, because each costs a compilation."""

from collections.abc import Mapping, Sequence

SHORTEST = 32  # tokens; below it padding costs less than another compilation
FEATURES = ('inputs', 'targets')


def lengths_up_to(limit: int) -> tuple[int, ...]:
  """Returns the padded lengths for sequences of at most `limit` tokens, rising.

  They double from SHORTEST; the last is the limit itself.
  """
  lengths = []
  length = SHORTEST
  while length < limit:
    lengths.append(length)
    length *= 2
  return (*lengths, limit)


def sizes_up_to(limit: int) -> tuple[int, ...]:
  """Returns padded sizes for at most `limit` items, denser than lengths, rising.

  16, 24, 32, 48, 64, 80, 96, 112, 128, 160 and so on, four to a doubling; the last
  is the limit itself.
  """
  sizes = []
  size = 16
  while size < limit:
    sizes.append(size)
    doubled = 1 << size.bit_length()  # the next power of two
    size += 8 if size < 32 else max(16, doubled // 8)
  return (*sizes, limit)


def bucket(length: int, lengths: Sequence[int]) -> int:
  """Returns the first of the rising `lengths` that holds `length` tokens.

  Raises:
    ValueError: `length` exceeds the last.
  """
  for size in lengths:
    if length <= size:
      return size
  raise ValueError(
    f'a sequence of {length} tokens is longer than the longest length that may be '
    f'compiled, {max(lengths)}: raise it, or truncate at ingest'
  )


def feature_lengths(task_feature_lengths: Mapping[str, int]) -> tuple[int, int]:
  """Returns (source_length, target_length) of T5X's TASK_FEATURE_LENGTHS.

  Raises:
    ValueError: other features than 'inputs' and 'targets', or a length below 2
      (one token and EOS).
  """
  if set(task_feature_lengths) != set(FEATURES):
    raise ValueError(
      f'TASK_FEATURE_LENGTHS has {sorted(task_feature_lengths)}, but must have '
      f"{list(FEATURES)}: for example {{'inputs': 128, 'targets': 128}}"
    )
  for feature, length in task_feature_lengths.items():
    if not isinstance(length, int) or length < 2:
      raise ValueError(
        f'TASK_FEATURE_LENGTHS[{feature!r}]={length!r} must be a whole number of '
        'tokens, at least 2 (one token and EOS)'
      )
  return task_feature_lengths['inputs'], task_feature_lengths['targets']


def training_buckets(
  task_feature_lengths: Mapping[str, int], shares: Sequence[float] = (1.0,)
) -> tuple[tuple[int, int], ...]:
  """Returns rising (source_length, target_length) pairs for training batches.

  Args:
    task_feature_lengths: the longest.
    shares: rising shares of the longest, ending with 1; (0.25, 0.5, 1.0) makes
      three buckets.
  """
  if not shares or shares[-1] != 1.0 or sorted(set(shares)) != list(shares):
    raise ValueError(f'bucket shares {shares!r} must rise to 1.0')
  source_length, target_length = feature_lengths(task_feature_lengths)
  return tuple(
    (max(2, round(source_length * share)), max(2, round(target_length * share)))
    for share in shares
  )

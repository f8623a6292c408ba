"""Names of shards: `groups-00003-of-00012.parquet`, ranges of sources.

A shard's name depends on the set and on nothing else, so the number of hosts
that write or read it does not matter.
"""

import itertools
import re

from etils import epath

from rest_jax import paths

_NAME = re.compile(r'(?P<kind>[a-z_]+)-(?P<index>\d{5})-of-(?P<num>\d{5})\.parquet')


def shard_path(
  directory: paths.PathLike, index: int, num_shards: int, kind: str = 'groups'
) -> epath.Path:
  """The path of shard `index` of `num_shards`.

  Args:
    directory: the set's folder.
    index: 0 to num_shards - 1.
    num_shards: 1 to 99,999.
    kind: 'groups' or 'rewards'.

  Raises:
    ValueError: an index out of range, or a number with more than five digits.
  """
  if not 0 <= index < num_shards <= 99_999:
    raise ValueError(
      f'shard {index} of {num_shards}: needs 0 <= index < num_shards <= 99999'
    )
  return paths.as_path(directory) / f'{kind}-{index:05d}-of-{num_shards:05d}.parquet'


def names(directory: paths.PathLike) -> frozenset[str]:
  """The names of the shards in a folder, of whichever set; none if it is not there.

  One listing, where asking for each would be a request for each on an object store.
  """
  folder = paths.as_path(directory)
  found = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
  return frozenset(name for name in found if _NAME.fullmatch(name))


def list_shards(directory: paths.PathLike, kind: str = 'groups') -> list[epath.Path]:
  """All shards of a set, in order.

  Raises:
    ValueError: the folder is missing, holds no shard, lacks some (they are
      named), or mixes sets of different sizes.
  """
  folder = paths.as_path(directory)
  if not folder.is_dir():
    raise ValueError(f'{folder} is not a directory: no {kind} set there')
  found: dict[int, set[int]] = {}
  for entry in folder.iterdir():
    match = _NAME.fullmatch(entry.name)
    if match and match['kind'] == kind:
      found.setdefault(int(match['num']), set()).add(int(match['index']))
  if not found:
    raise ValueError(
      f'{folder} holds no shard {kind}-00000-of-NNNNN.parquet: is it a {kind} set, '
      'and has the stage that writes it finished?'
    )
  if len(found) > 1:
    raise ValueError(
      f'{folder} mixes {kind} sets of {sorted(found)} shards: remove the stale ones'
    )
  ((num, present),) = found.items()
  missing = sorted(set(range(num)) - present)
  if missing:
    names = [shard_path(folder, index, num, kind).name for index in missing[:3]]
    more = f' and {len(missing) - 3} more' if len(missing) > 3 else ''
    raise ValueError(
      f'{folder} lacks {", ".join(names)}{more}: the set is incomplete; let the '
      'stage that writes it finish'
    )
  return [shard_path(folder, index, num, kind) for index in range(num)]


def ranges(num: int, num_shards: int) -> list[tuple[int, int]]:
  """Cuts `num` items into `num_shards` half-open ranges whose sizes differ by 1.

  Raises:
    ValueError: fewer than one shard.
  """
  if num_shards < 1:
    raise ValueError(f'num_shards {num_shards} must be at least 1')
  bounds = [num * shard // num_shards for shard in range(num_shards + 1)]
  return list(itertools.pairwise(bounds))

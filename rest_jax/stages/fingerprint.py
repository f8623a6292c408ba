"""Fingerprints: the same inputs and parameters name the same artifact.

A fingerprint is the SHA-256 of a canonical JSON text. `describe` turns the
values that a stage takes as parameters into that JSON.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def describe(value: Any) -> Any:
  """Returns the JSON value that stands for `value` in a fingerprint.

  Objects with an `identity()` method are described by their type's name and
  what it returns, dataclasses by their fields, functions by their qualified
  name, partials by function and arguments.

  Raises:
    TypeError: for a value that has no stable description, such as a lambda or
      an object without `identity`; its memory address would change each run.
  """
  if value is None or isinstance(value, bool | int | str):
    return value
  if isinstance(value, float):
    return value if np.isfinite(value) else repr(value)
  if isinstance(value, np.generic):
    return describe(value.item())
  if isinstance(value, np.ndarray):
    return value.tolist()
  if isinstance(value, Mapping):
    return {str(key): describe(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [describe(item) for item in value]
  if isinstance(value, set | frozenset):
    return sorted(describe(item) for item in value)
  if hasattr(value, 'identity') and not isinstance(value, type):
    return {'type': type_name(type(value)), **describe(value.identity())}
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return {'type': type_name(type(value)), **describe(fields)}
  if isinstance(value, functools.partial):
    return {
      'partial': describe(value.func),
      'args': describe(value.args),
      'keywords': describe(value.keywords),
    }
  if callable(value) and '<' not in getattr(value, '__qualname__', '<'):
    return type_name(value)
  raise TypeError(
    f'{value!r} has no stable description for a fingerprint: pass a named '
    'function, a dataclass, or an object with an identity() method that returns '
    'JSON values'
  )


def type_name(value: Any) -> str:
  """Returns the module-qualified name of a class or a function."""
  return f'{value.__module__}.{value.__qualname__}'


def fingerprint(identity: Mapping[str, Any]) -> str:
  """Returns 64 hexadecimal digits that name `identity` (JSON values)."""
  text = json.dumps(identity, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()


def differences(old: Any, new: Any, *, prefix: str = '') -> list[str]:
  """Lists where two JSON values differ, as 'a.b was 1 and is 2'."""
  if isinstance(old, Mapping) and isinstance(new, Mapping):
    lines = []
    for key in sorted(set(old) | set(new)):
      path = f'{prefix}.{key}' if prefix else key
      lines += differences(old.get(key), new.get(key), prefix=path)
    return lines
  return [] if old == new else [f'{prefix} was {old!r} and is {new!r}']

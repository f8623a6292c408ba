"""Numbers as people read them; what was not measured is a dash."""

MISSING = '–'


def score(value: float | None, digits: int = 3) -> str:
  """'0.541'; digits are those after the point, fewer for large numbers."""
  if value is None:
    return MISSING
  if abs(value) >= 10:
    digits = min(digits, 1)
  return f'{value:.{digits}f}'.replace('-', '−')


def percent(value: float | None) -> str:
  """A fraction as '24.9 %'."""
  return MISSING if value is None else f'{100 * value:.1f} %'.replace('-', '−')


def count(value: float | None) -> str:
  """'16,000,000'."""
  return MISSING if value is None else f'{value:,.0f}'


def duration(seconds: float | None) -> str:
  """'850 ms', '12.3 s', '4 min 05 s', '3 h 07 min'."""
  if seconds is None:
    return MISSING
  if 0 < seconds < 1:
    return f'{1000 * seconds:.0f} ms'
  if seconds == 0:
    return '0 s'
  if seconds < 59.95:
    return f'{seconds:.1f} s'
  whole = round(seconds)
  if whole < 3600:
    return f'{whole // 60} min {whole % 60:02d} s'
  minutes = round(seconds / 60)
  return f'{minutes // 60:,} h {minutes % 60:02d} min'


def _with_prefix(value: float, base: float, units: tuple[str, ...]) -> str:
  place = 0
  while abs(value) >= base and place < len(units) - 1:
    value /= base
    place += 1
  digits = f'{value:.0f}' if abs(value) >= 100 else f'{value:.3g}'
  return f'{digits} {units[place]}'


def memory(num_bytes: float | None) -> str:
  """'3.42 GiB'."""
  if num_bytes is None:
    return MISSING
  return _with_prefix(num_bytes, 1024, ('B', 'KiB', 'MiB', 'GiB', 'TiB'))


def energy(joules: float | None) -> str:
  """'1.2 MJ'."""
  if joules is None:
    return MISSING
  return _with_prefix(joules, 1000, ('J', 'kJ', 'MJ', 'GJ'))

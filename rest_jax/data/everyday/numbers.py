"""Numbers, clock times, dates and prices in words, German and English.

Every function returns the German wording, or pairs of the German wording and
all English wordings with the canonical one first.
"""

_GERMAN_UNITS = (
  'null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn '
  'vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn'
).split()
_GERMAN_TENS = (
  '- - zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig'
).split()
_ENGLISH_UNITS = (
  'zero one two three four five six seven eight nine ten eleven twelve thirteen '
  'fourteen fifteen sixteen seventeen eighteen nineteen'
).split()
_ENGLISH_TENS = ('- - twenty thirty forty fifty sixty seventy eighty ninety').split()
_ENGLISH_ORDINALS = {
  'one': 'first',
  'two': 'second',
  'three': 'third',
  'five': 'fifth',
  'eight': 'eighth',
  'nine': 'ninth',
  'twelve': 'twelfth',
}
MONTHS = (
  ('Januar', 'January'),
  ('Februar', 'February'),
  ('März', 'March'),
  ('April', 'April'),
  ('Mai', 'May'),
  ('Juni', 'June'),
  ('Juli', 'July'),
  ('August', 'August'),
  ('September', 'September'),
  ('Oktober', 'October'),
  ('November', 'November'),
  ('Dezember', 'December'),
)
DAYS_OF_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
Wording = tuple[str, tuple[str, ...]]  # German, all English wordings


def german_number(number: int) -> str:
  """Cardinal in words, 0 to 999,999: 21 is 'einundzwanzig', 1 is 'eins'.

  Raises:
    ValueError: outside 0 to 999,999.
  """
  if not 0 <= number <= 999_999:
    raise ValueError(f'number must be in 0 to 999999, got {number}')
  if number < 20:
    return _GERMAN_UNITS[number]
  if number < 100:
    tens, units = divmod(number, 10)
    if not units:
      return _GERMAN_TENS[tens]
    return ('ein' if units == 1 else _GERMAN_UNITS[units]) + 'und' + _GERMAN_TENS[tens]
  unit, word = (100, 'hundert') if number < 1000 else (1000, 'tausend')
  head, rest = divmod(number, unit)
  head_word = german_number(head)
  if head_word.endswith('eins'):
    head_word = head_word[:-1]
  return head_word + word + (german_number(rest) if rest else '')


def english_number(number: int) -> tuple[str, ...]:
  """Cardinal in words, 0 to 999,999, all wordings: with and without 'and'.

  Raises:
    ValueError: outside 0 to 999,999.
  """
  if not 0 <= number <= 999_999:
    raise ValueError(f'number must be in 0 to 999999, got {number}')
  if number < 20:
    return (_ENGLISH_UNITS[number],)
  if number < 100:
    tens, units = divmod(number, 10)
    return (_ENGLISH_TENS[tens] + (f'-{_ENGLISH_UNITS[units]}' if units else ''),)
  unit, word = (100, 'hundred') if number < 1000 else (1000, 'thousand')
  head, rest = divmod(number, unit)
  heads = english_number(head)
  if head == 1:
    heads += ('a',)
  if not rest:
    return tuple(f'{h} {word}' for h in heads)
  links = (' and ', ' ') if rest < 100 else (' ',)
  return tuple(
    f'{h} {word}{link}{r}'
    for link in links
    for h in heads
    for r in english_number(rest)
  )


def german_ordinal(number: int) -> str:
  """Ordinal stem, 1 to 99, without ending: 3 is 'dritt', 21 'einundzwanzigst'."""
  irregular = {1: 'erst', 3: 'dritt', 7: 'siebt', 8: 'acht'}
  if number in irregular:
    return irregular[number]
  return german_number(number) + ('t' if number < 20 else 'st')


def english_ordinal(number: int) -> str:
  """Ordinal, 1 to 99: 'third', 'twelfth', 'twenty-first', 'thirtieth'."""
  word = english_number(number)[0]
  head, dash, last = word.rpartition('-')
  if last in _ENGLISH_ORDINALS:
    last = _ENGLISH_ORDINALS[last]
  elif last.endswith('y'):
    last = last[:-1] + 'ieth'
  else:
    last += 'th'
  return head + dash + last


def clock(hour: int, minute: int, *, official: bool = False) -> Wording:
  """A clock time without preposition: (4, 30) is 'halb fünf'.

  Args:
    hour: 1 to 12.
    minute: 0, 5, ..., 55.
    official: the wording hour first ('vier Uhr dreißig').

  Raises:
    ValueError: hour or minute outside its range.
  """
  if not 1 <= hour <= 12 or minute not in range(0, 60, 5):
    raise ValueError(
      f'clock needs hour 1 to 12 and a multiple of 5 minutes, got {hour}:{minute}'
    )
  following = hour % 12 + 1
  german_hour, german_next = german_number(hour), german_number(following)
  english_hour, english_next = english_number(hour)[0], english_number(following)[0]
  uhr = ('ein' if hour == 1 else german_hour) + ' Uhr'
  if minute == 0:
    return (uhr if official else german_hour), (
      (f"{english_hour} o'clock", english_hour)
      if official
      else (english_hour, f"{english_hour} o'clock")
    )
  digits = (
    f'{english_hour} {english_number(minute)[0]}'
    if minute >= 10
    else f'{english_hour} oh five'
  )
  distance = min(minute, 60 - minute)
  near_german = german_hour if minute <= 30 else german_next
  near_english = english_hour if minute <= 30 else english_next
  side_german = 'nach' if minute <= 30 else 'vor'
  sides = ('past', 'after') if minute <= 30 else ('to', 'before')
  english: tuple[str, ...]
  if minute == 30:
    german, english = f'halb {german_next}', (f'half past {english_hour}', digits)
  elif distance == 15:
    german = f'Viertel {side_german} {near_german}'
    english = (
      f'a quarter {sides[0]} {near_english}',
      f'quarter {sides[0]} {near_english}',
      digits,
    )
  else:
    german = f'{german_number(distance)} {side_german} {near_german}'
    if distance == 25:
      german = f'fünf {"vor" if minute == 25 else "nach"} halb {german_next}'
    count = english_number(distance)[0]
    english = tuple(f'{count} {side} {near_english}' for side in sides) + (digits,)
  if official:
    return f'{uhr} {german_number(minute)}', (digits, *english[:-1])
  return german, english


def date(day: int, month: int) -> tuple[str, str, tuple[str, ...]]:
  """('dritten Mai', 'dritte Mai', ('May third', 'the third of May', ...)).

  The first form follows 'am' or 'den', the second 'der'.

  Raises:
    ValueError: the month has no such day.
  """
  if not 1 <= month <= 12 or not 1 <= day <= DAYS_OF_MONTH[month - 1]:
    raise ValueError(f'no such date: day {day} of month {month}')
  german, english = MONTHS[month - 1]
  stem, ordinal = german_ordinal(day), english_ordinal(day)
  return (
    f'{stem}en {german}',
    f'{stem}e {german}',
    (f'the {ordinal} of {english}', f'{english} {ordinal}', f'{english} the {ordinal}'),
  )


def price(euros: int, cents: int) -> Wording:
  """A price: (12, 50) is 'zwölf Euro fünfzig', (0, 80) 'achtzig Cent'."""
  if not euros and not cents:
    raise ValueError('a price needs euros or cents, got 0 and 0')
  cent_word = english_number(cents)[0]
  if not euros:
    german = 'einen' if cents == 1 else german_number(cents)
    return f'{german} Cent', (f'{cent_word} cent{"s" if cents > 1 else ""}',)
  german = 'einen' if euros == 1 else german_number(euros)
  words = english_number(euros)[:2]
  plural = 'euro' if euros == 1 else 'euros'
  if not cents:
    return f'{german} Euro', tuple(f'{word} {plural}' for word in words)
  english = tuple(
    wording
    for word in words
    for wording in (
      f'{word} {plural} fifty' if cents == 50 else f'{word} {plural} {cent_word}',
      f'{word} {plural} and {cent_word} cents',
    )
  )
  if euros == 1:
    german = 'einen'
  return f'{german} Euro {german_number(cents)}', english


def count_of(number: int, german_one: str) -> str:
  """The German cardinal before a noun, with 1 agreeing as `german_one`."""
  return german_one if number == 1 else german_number(number)

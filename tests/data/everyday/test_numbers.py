"""Numbers, clock times, dates and prices in words."""

import pytest

from rest_jax.data.everyday import numbers

HUNDRED = '''
null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn
fünfzehn sechzehn siebzehn achtzehn neunzehn zwanzig einundzwanzig zweiundzwanzig
dreiundzwanzig vierundzwanzig fünfundzwanzig sechsundzwanzig siebenundzwanzig
achtundzwanzig neunundzwanzig dreißig einunddreißig
'''.split()  # fmt: skip
TENS = {
  40: ('vierzig', 'forty'), 50: ('fünfzig', 'fifty'), 60: ('sechzig', 'sixty'),
  70: ('siebzig', 'seventy'), 80: ('achtzig', 'eighty'), 90: ('neunzig', 'ninety'),
}  # fmt: skip


def test_german_numbers_to_thirty_one():
  assert [numbers.german_number(n) for n in range(32)] == HUNDRED


def test_numbers_to_a_hundred():
  seen = set()
  for number in range(100):
    german, (english,) = numbers.german_number(number), numbers.english_number(number)
    seen.add((german, english))
    tens, units = divmod(number, 10)
    if number > 39 and units:
      assert (
        german == ('ein' if units == 1 else HUNDRED[units]) + 'und' + TENS[10 * tens][0]
      )
      assert english == f'{TENS[10 * tens][1]}-{numbers.english_number(units)[0]}'
    elif number > 39:
      assert (german, english) == TENS[number]
  assert len({german for german, _ in seen}) == len({e for _, e in seen}) == 100


@pytest.mark.parametrize(
  ('number', 'german', 'english'),
  [
    (100, 'einhundert', ('one hundred', 'a hundred')),
    (101, 'einhunderteins', ('one hundred and one', 'a hundred and one',
                             'one hundred one', 'a hundred one')),
    (321, 'dreihunderteinundzwanzig', ('three hundred and twenty-one',
                                       'three hundred twenty-one')),
    (1000, 'eintausend', ('one thousand', 'a thousand')),
    (21_000, 'einundzwanzigtausend', ('twenty-one thousand',)),
    (2512, 'zweitausendfünfhundertzwölf', ('two thousand five hundred and twelve',
                                           'two thousand five hundred twelve')),
  ],
)  # fmt: skip
def test_hundreds_and_thousands(number, german, english):
  assert numbers.german_number(number) == german
  assert numbers.english_number(number) == english


@pytest.mark.parametrize(
  ('time', 'german', 'english'),
  [
    ((4, 30), 'halb fünf', ('half past four', 'four thirty')),
    ((12, 30), 'halb eins', ('half past twelve', 'twelve thirty')),
    ((3, 15), 'Viertel nach drei',
     ('a quarter past three', 'quarter past three', 'three fifteen')),
    ((8, 45), 'Viertel vor neun',
     ('a quarter to nine', 'quarter to nine', 'eight forty-five')),
    ((12, 50), 'zehn vor eins', ('ten to one', 'ten before one', 'twelve fifty')),
    ((7, 25), 'fünf vor halb acht',
     ('twenty-five past seven', 'twenty-five after seven', 'seven twenty-five')),
    ((7, 35), 'fünf nach halb acht',
     ('twenty-five to eight', 'twenty-five before eight', 'seven thirty-five')),
    ((1, 5), 'fünf nach eins', ('five past one', 'five after one', 'one oh five')),
    ((8, 0), 'acht', ('eight', "eight o'clock")),
  ],
)  # fmt: skip
def test_clock(time, german, english):
  assert numbers.clock(*time) == (german, english)


def test_official_clock():
  assert numbers.clock(1, 0, official=True) == ('ein Uhr', ("one o'clock", 'one'))
  german, english = numbers.clock(4, 30, official=True)
  assert german == 'vier Uhr dreißig'
  assert english[0] == 'four thirty' and 'half past four' in english


def test_clock_times_differ():
  times = [numbers.clock(h, m)[0] for h in range(1, 13) for m in range(0, 60, 5)]
  assert len(set(times)) == 144


def test_dates():
  assert numbers.date(3, 5)[:2] == ('dritten Mai', 'dritte Mai')
  assert numbers.date(1, 1)[:2] == ('ersten Januar', 'erste Januar')
  assert numbers.date(7, 3)[1] == 'siebte März'
  assert numbers.date(21, 12)[0] == 'einundzwanzigsten Dezember'
  assert numbers.date(3, 5)[2] == ('the third of May', 'May third', 'May the third')
  assert [numbers.english_ordinal(n) for n in (2, 5, 8, 9, 12, 20, 22, 30)] == [
    'second', 'fifth', 'eighth', 'ninth', 'twelfth', 'twentieth', 'twenty-second',
    'thirtieth',
  ]  # fmt: skip


def test_prices():
  assert numbers.price(12, 50) == (
    'zwölf Euro fünfzig', ('twelve euros fifty', 'twelve euros and fifty cents')
  )  # fmt: skip
  assert numbers.price(1, 0) == ('einen Euro', ('one euro',))
  assert numbers.price(0, 80) == ('achtzig Cent', ('eighty cents',))


@pytest.mark.parametrize(
  'call',
  [
    lambda: numbers.german_number(-1),
    lambda: numbers.english_number(1_000_000),
    lambda: numbers.clock(13, 0),
    lambda: numbers.clock(3, 7),
    lambda: numbers.date(30, 2),
    lambda: numbers.price(0, 0),
  ],
)
def test_out_of_range(call):
  with pytest.raises(ValueError, match=r'got|no such date'):
    call()

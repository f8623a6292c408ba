"""Imperfect references: a correct rendering, damaged as translators damage it.

Real training pairs are not all correct. Each kind of error strikes a reference
independently with its own probability; where it cannot apply (no noun whose number
could be wrong) or would leave a correct rendering, nothing happens.
"""

import dataclasses
import random
import re
from collections.abc import Callable

from rest_jax.data.everyday import english, nouns, numbers, verbs, words
from rest_jax.data.everyday.grammar import Sentence

_ATTEMPTS = 8  # draws until a damage leaves the set of correct renderings


@dataclasses.dataclass(frozen=True)
class ImperfectionRates:
  """Probability per sentence of each kind of error; 0 to 1.

  Attributes:
    dropped_words: a word is missing.
    added_words: a word is doubled, or a function word is slipped in.
    swapped_words: two neighbouring words change places.
    wrong_number: a noun in the singular for the plural, or the reverse.
    wrong_tense: a verb in another tense or person.
    wrong_sense: a word of the same class with another meaning.
    untranslated_words: a word stays German.
  """

  dropped_words: float = 0.08
  added_words: float = 0.05
  swapped_words: float = 0.05
  wrong_number: float = 0.08
  wrong_tense: float = 0.10
  wrong_sense: float = 0.10
  untranslated_words: float = 0.08

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      rate = getattr(self, field.name)
      if not 0 <= rate <= 1:
        raise ValueError(
          f'{field.name} is a probability, 0 to 1; got {rate}. Rates are per '
          'sentence, not per cent.'
        )


def _exchange(pairs: dict[str, set[str]], a: str, b: str) -> None:
  pairs.setdefault(a, set()).add(b)


def _number_pairs() -> dict[str, tuple[str, ...]]:
  pairs: dict[str, set[str]] = {}
  for listed in nouns.NOUNS.values():
    for noun in listed:
      if noun.plural is None or noun.gender == 'p':
        continue
      for one, many in zip(noun.english, noun.english_plural, strict=False):
        one, many = one.split()[-1], many.split()[-1]
        if one != many:
          _exchange(pairs, one, many)
          _exchange(pairs, many, one)
  for one, many in (
    ('this', 'these'),
    ('that', 'those'),
    ('is', 'are'),
    ('has', 'have'),
  ):
    _exchange(pairs, one, many)
    _exchange(pairs, many, one)
  return {word: tuple(sorted(others)) for word, others in pairs.items()}


def _tense_pairs() -> dict[str, tuple[str, ...]]:
  pairs: dict[str, set[str]] = {}
  heads = {head for verb in verbs.VERBS for head, _ in verb.english} - {
    'be',
    'have',
    'do',
  }
  heads |= {
    'like',
    'cost',
    'lie',
    'stand',
    'hang',
    'put',
    'belong',
    'hurt',
    'last',
    'rain',
    'snow',
    'hope',
    'want',
    'think',
    'believe',
    'start',
    'leave',
    'prefer',
  }
  for head in heads:
    past, third = english.verb_form(head, 'past'), english.verb_form(head, 's')
    for other in {past, third} - {head}:
      _exchange(pairs, other, past if other != past else third)
      _exchange(pairs, other, head)
    if past != head:
      _exchange(pairs, head, past)
    _exchange(pairs, english.verb_form(head, 'ing'), head)
  for a, b in (
    ('is', 'was'),
    ('are', 'were'),
    ('am', 'was'),
    ('was', 'is'),
    ('were', 'are'),
    ('has', 'had'),
    ('have', 'had'),
    ('had', 'has'),
    ('will', 'would'),
    ('can', 'could'),
    ('could', 'can'),
    ('does', 'did'),
    ('do', 'did'),
    ('did', 'does'),
    ("don't", "didn't"),
    ("doesn't", "didn't"),
    ("didn't", "doesn't"),
    ("isn't", "wasn't"),
    ("aren't", "weren't"),
    ("wasn't", "isn't"),
    ("can't", "couldn't"),
    ("won't", "didn't"),
    ('wants', 'wanted'),
    ('must', 'had to'),
  ):
    _exchange(pairs, a, b)
  return {word: tuple(sorted(others)) for word, others in pairs.items()}


def _sense_sets() -> dict[str, tuple[str, ...]]:
  """Words that may be mistaken for one another, keyed by each of them."""
  groups: list[set[str]] = []
  for listed in nouns.NOUNS.values():
    groups.append({noun.english[0] for noun in listed if ' ' not in noun.english[0]})
    groups.append(
      {
        noun.english_plural[0]
        for noun in listed
        if noun.plural is not None and ' ' not in noun.english_plural[0]
      }
    )
  groups += [
    {adjective.english[0] for adjective in words.ADJECTIVES},
    {'yesterday', 'today', 'tomorrow'},
    {'often', 'always', 'sometimes', 'rarely'},
    {wordings[0] for _, wordings in words.CITIES},
    {wordings[0] for _, wordings in words.COUNTRIES},
    {name for _, (name,) in words.WEEKDAYS},
    {name for _, name in numbers.MONTHS},
    {english.numbers_word(n) for n in range(2, 13)},
    {'because', 'although', 'if', 'when'},
    {'he', 'she'},
    {'him', 'her', 'them'},
    {'his', 'her', 'their', 'our', 'my', 'your'},
    {'buy', 'sell', 'order', 'bring'},
    {'bought', 'sold', 'ordered', 'brought'},
    {'call', 'visit', 'ask', 'invite'},
    {'called', 'visited', 'asked', 'invited'},
    {'open', 'close'},
    {'go', 'come'},
    {'going', 'coming'},
    {'read', 'write'},
  ]
  pairs: dict[str, set[str]] = {}
  for group in groups:
    for word in group:
      pairs.setdefault(word, set()).update(group - {word})
  return {word: tuple(sorted(others)) for word, others in pairs.items() if others}


def _german_sources() -> dict[str, tuple[str, ...]]:
  """English word -> German surface forms that may have been left standing."""
  found: dict[str, set[str]] = {}
  for listed in nouns.NOUNS.values():
    for noun in listed:
      for one in noun.english:
        _exchange(found, one.split()[-1], noun.lemma)
      if noun.plural is not None:
        for many in noun.english_plural:
          _exchange(found, many.split()[-1], noun.plural)
  for table in (
    words.CITIES,
    words.COUNTRIES,
    words.OFTEN,
    words.PAST,
    words.FUTURE,
    words.TODAY,
    words.WEEKDAYS,
  ):
    for german, wordings in table:
      if ' ' not in german:
        for wording in wordings:
          if ' ' not in wording and wording != german:
            _exchange(found, wording, german)
  return {word: tuple(sorted(forms)) for word, forms in found.items()}


_NUMBER, _TENSE = _number_pairs(), _tense_pairs()
_SENSE, _GERMAN = _sense_sets(), _german_sources()
_SLIPPED_IN = ('the', 'a', 'to', 'of', 'it', 'very', 'there', 'also')
_WORD = re.compile(r"^([\w'’-]+)(\W*)$")
_Damage = Callable[[random.Random, list[str], Sentence], list[str] | None]


def _drop(
  rng: random.Random, tokens: list[str], sentence: Sentence
) -> list[str] | None:
  del sentence
  if len(tokens) < 3:
    return None
  position = rng.randrange(len(tokens))
  return tokens[:position] + tokens[position + 1 :]


def _add(rng: random.Random, tokens: list[str], sentence: Sentence) -> list[str] | None:
  del sentence
  position = rng.randrange(len(tokens))
  if rng.random() < 0.5:
    return tokens[: position + 1] + [tokens[position]] + tokens[position + 1 :]
  return [*tokens[:position], rng.choice(_SLIPPED_IN), *tokens[position:]]


def _swap(
  rng: random.Random, tokens: list[str], sentence: Sentence
) -> list[str] | None:
  del sentence
  if len(tokens) < 2:
    return None
  position = rng.randrange(len(tokens) - 1)
  swapped = list(tokens)
  swapped[position : position + 2] = swapped[position + 1], swapped[position]
  return swapped


def _replace(
  rng: random.Random,
  tokens: list[str],
  table: dict[str, tuple[str, ...]],
) -> list[str] | None:
  """Replaces one word that is in the table, keeping a comma behind it."""
  places = []
  for position, token in enumerate(tokens):
    match = _WORD.match(token)
    if match and match.group(1) in table:
      places.append((position, match.group(1), match.group(2)))
  if not places:
    return None
  position, word, comma = rng.choice(places)
  changed = list(tokens)
  changed[position] = rng.choice(table[word]) + comma
  return changed


def _number(
  rng: random.Random, tokens: list[str], sentence: Sentence
) -> list[str] | None:
  del sentence
  return _replace(rng, tokens, _NUMBER)


def _tense(
  rng: random.Random, tokens: list[str], sentence: Sentence
) -> list[str] | None:
  del sentence
  return _replace(rng, tokens, _TENSE)


def _sense(
  rng: random.Random, tokens: list[str], sentence: Sentence
) -> list[str] | None:
  del sentence
  return _replace(rng, tokens, _SENSE)


def _keep_german(
  rng: random.Random,
  tokens: list[str],
  sentence: Sentence,
) -> list[str] | None:
  source = set(re.findall(r'[\w-]+', sentence.source))
  table = {}
  for token in tokens:
    word = token.rstrip(',')
    forms = tuple(
      form
      for form in _GERMAN.get(word, ())
      if form in source or form.capitalize() in source
    )
    if forms:
      table[word] = forms
  return _replace(rng, tokens, table)


_DAMAGES: dict[str, _Damage] = {
  'dropped_words': _drop,
  'added_words': _add,
  'swapped_words': _swap,
  'wrong_number': _number,
  'wrong_tense': _tense,
  'wrong_sense': _sense,
  'untranslated_words': _keep_german,
}
_CAPITALS = frozenset(
  {
    'I',
    "I'm",
    "I'll",
    "I'd",
    "I've",
    *words.WOMEN,
    *words.MEN,
    *(name for _, (name,) in words.WEEKDAYS),
    *(name for _, name in numbers.MONTHS),
    *(wordings[0] for _, wordings in words.CITIES + words.COUNTRIES),
  }
)


def _split(text: str) -> tuple[list[str], str]:
  """Words with the sentence's own capital taken off, and the final mark."""
  tokens = text[:-1].split(' ')
  if tokens[0].rstrip(',').removesuffix("'s") not in _CAPITALS:
    tokens[0] = tokens[0][0].lower() + tokens[0][1:]
  return tokens, text[-1]


def _join(tokens: list[str], mark: str) -> str:
  text = ' '.join(tokens).rstrip(',')
  return text[0].upper() + text[1:] + mark


def imperfect_reference(
  sentence: Sentence, *, rates: ImperfectionRates, seed: int
) -> str:
  """One correct rendering drawn at random, damaged with the given rates.

  The result depends on (sentence.source, seed) and the rates alone. With the
  default rates about two in five references are not among the correct renderings.
  """
  rng = random.Random(f'imperfect/{seed}/{sentence.source}')
  text = rng.choice(sentence.renderings)
  correct = set(sentence.renderings)
  for name, damage in _DAMAGES.items():
    if rng.random() >= getattr(rates, name):
      continue
    tokens, mark = _split(text)
    for _ in range(_ATTEMPTS):
      changed = damage(rng, tokens, sentence)
      if changed is None:
        break
      candidate = _join(changed, mark)
      if candidate != text and candidate not in correct:
        text = candidate
        break
  return text

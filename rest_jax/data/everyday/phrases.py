"""Noun phrases in both languages at once: nouns, pronouns, names, possessives.

A possessive determiner carries its reading: 'ihr' alone may be her or their,
'ihr:her' and 'ihr:their' are bound to a subject that says which.
"""

import functools
import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from rest_jax.data.everyday import english, morphology, nouns, numbers, words

T = TypeVar('T')
NOUNS = nouns.NOUNS


class Phrase(NamedTuple):
  """A noun phrase; `german` holds nominative, accusative, dative."""

  german: tuple[str, str, str]
  english: english.Wordings  # as a subject
  english_object: english.Wordings
  person: int = 2  # German agreement: 0 ich ... 5 sie
  english_person: int = 2
  is_pronoun: bool = False
  is_indefinite: bool = False
  owner: str = ''  # the possessive that refers back to it
  lemma: str = ''
  initial: english.Wordings = ()  # as the first words of a sentence, if different


PRONOUNS: dict[str, Phrase] = {}
for _key, _german, _english, _object, _person, _owner in (
  ('ich', ('ich', 'mich', 'mir'), 'I', ('me',), 0, 'mein'),
  ('du', ('du', 'dich', 'dir'), 'you', ('you',), 1, 'dein'),
  ('er', ('er', 'ihn', 'ihm'), 'he', ('him',), 2, 'sein'),
  ('sie', ('sie', 'sie', 'ihr'), 'she', ('her', 'them'), 2, 'ihr:her'),
  ('wir', ('wir', 'uns', 'uns'), 'we', ('us',), 3, 'unser'),
  ('ihr', ('ihr', 'euch', 'euch'), 'you', ('you',), 4, 'euer'),
  ('sie_plural', ('sie', 'sie', 'ihnen'), 'they', ('them', 'her'), 5, 'ihr:their'),
  ('Sie', ('Sie', 'Sie', 'Ihnen'), 'you', ('you',), 5, 'Ihr'),
):
  PRONOUNS[_key] = Phrase(
    _german,
    (_english,),
    _object,
    _person,
    1 if _key == 'Sie' else _person,
    True,
    False,
    _owner,
    _key,
    ('they', 'you') if _key == 'sie_plural' else (),
  )
THINGS = {  # es, ihn, sie for a thing
  'm': Phrase(('er', 'ihn', 'ihm'), ('it',), ('it',), 2, 2, True),
  'f': Phrase(('sie', 'sie', 'ihr'), ('it',), ('it', 'them'), 2, 2, True),
  'n': Phrase(('es', 'es', 'ihm'), ('it',), ('it',), 2, 2, True),
  'p': Phrase(('sie', 'sie', 'ihnen'), ('they',), ('them', 'it'), 5, 5, True),
}
_POSSESSIVES = {
  'mein': ('my',),
  'dein': ('your',),
  'sein': ('his',),
  'ihr': ('her', 'their'),
  'ihr:her': ('her',),
  'ihr:their': ('their',),
  'unser': ('our',),
  'euer': ('your',),
  'Ihr': ('your',),
}


@functools.cache
def _cumulative(size: int) -> tuple[float, ...]:
  """Cumulative Zipf-like weights 1 / (rank + 3)."""
  total, sums = 0.0, []
  for rank in range(size):
    total += 1.0 / (rank + 3)
    sums.append(total)
  return tuple(sums)


def zipf(rng: random.Random, items: Sequence[T]) -> T:
  """Draws an item with probability falling in its rank."""
  return rng.choices(items, cum_weights=_cumulative(len(items)))[0]


@functools.lru_cache(maxsize=1 << 16)
def noun_phrase(
  noun: nouns.Noun,
  determiner: str,
  adjective: words.Adjective | None = None,
  is_plural: bool = False,
  count: int = 0,
) -> Phrase:
  """Determiner, adjective and noun in both languages.

  Args:
    noun: the noun.
    determiner: 'der', 'ein', 'kein', 'dies', 'jed', a possessive, or '' (none).
    adjective: attributive, or None.
    is_plural: German plural; nouns with only a plural are always so.
    count: 2 or more puts the number in words before the plural.
  """
  is_plural = is_plural or noun.gender == 'p'
  gender = 'p' if is_plural else noun.gender
  article_word = determiner.split(':')[0]
  forms = []
  for case in (morphology.NOMINATIVE, morphology.ACCUSATIVE, morphology.DATIVE):
    parts = [morphology.determiner(article_word, gender, case)]
    if count:
      parts.append(numbers.german_number(count))
    if adjective is not None:
      parts.append(morphology.adjective(adjective.german, article_word, gender, case))
    parts.append(
      morphology.noun(
        noun.lemma,
        noun.plural,
        gender,
        case,
        weak=noun.weak,
        is_plural=is_plural,
      )
    )
    forms.append(' '.join(part for part in parts if part))
  heads = noun.english_plural if is_plural else noun.english
  if determiner in ('unser', 'euer', 'ihr:their') and noun.lemma.startswith('Freund'):
    heads = ('friends',) if is_plural else ('friend',)
  if adjective is not None:
    heads = tuple(f'{word} {head}' for head in heads for word in adjective.english)
  if count:
    heads = tuple(f'{numbers.english_number(count)[0]} {head}' for head in heads)
  many = is_plural or noun.lemma == 'Gemüse'
  counted = not (is_plural or noun.is_mass)
  initial: english.Wordings = ()
  if determiner in _POSSESSIVES:
    readings = _POSSESSIVES[determiner]
    wordings = tuple(f'{owner} {head}' for owner in readings for head in heads)
    if determiner == 'ihr':
      initial = wordings + tuple(f'your {head}' for head in heads)
  elif determiner == 'der':
    wordings = tuple(f'the {head}' for head in heads)
    if noun.lemma in MEALS and adjective is None:
      wordings = heads + wordings
  elif determiner == 'dies':
    wordings = tuple(f'{"these" if many else "this"} {head}' for head in heads)
  elif determiner == 'jed':
    wordings = tuple(f'every {head}' for head in heads)
  elif determiner == 'ein' and counted:
    wordings = tuple(english.article(head) for head in heads)
  elif determiner == 'welch':
    wordings = tuple(f'{which} {head}' for which in ('which', 'what') for head in heads)
  elif determiner == 'kein':
    wordings = tuple(f'no {head}' for head in heads)
  else:
    wordings = heads
  objects = wordings
  if determiner == 'kein':  # the English negation is in the verb
    objects = (
      tuple(english.article(head) for head in heads)
      if counted
      else heads + tuple(f'any {head}' for head in heads)
    )
  return Phrase(
    (forms[0], forms[1], forms[2]),
    wordings,
    objects,
    person=5 if is_plural else 2,
    english_person=5 if many else 2,
    is_indefinite=determiner in ('', 'ein', 'kein') or (count > 0 and not determiner),
    owner='ihr:their' if is_plural else 'ihr:her' if gender == 'f' else 'sein',
    lemma=noun.lemma,
    initial=initial,
  )


MEALS = frozenset({'Mittagessen', 'Abendessen'})  # cook (the) dinner
_ODD = frozenset(
  [('jung', word) for word in ('Baby', 'Kind', 'Junge', 'Mädchen')]
  + [('alt', word) for word in ('Baby', 'Kind', 'Junge', 'Mädchen')]
  + [('berühmt', word) for word in ('Wohnung', 'Büro')]
  + [('reich', word) for word in ('Kind', 'Junge', 'Mädchen', 'Leute')]
  + [('streng', word) for word in ('Kind', 'Junge', 'Mädchen', 'Baby')]
  + [
    ('süß', word)
    for word in (
      'Brot',
      'Käse',
      'Ei',
      'Suppe',
      'Fleisch',
      'Fisch',
      'Salat',
      'Pizza',
      'Wurst',
      'Kartoffel',
      'Reis',
      'Nudeln',
      'Schinken',
      'Butter',
      'Gurke',
      'Gemüse',
    )
  ]
  + [(word, meal) for word in ('frisch', 'warm') for meal in MEALS]
  + [('frisch', word) for word in ('Schokolade', 'Eis', 'Keks', 'Reis', 'Suppe')]
  + [('warm', word) for word in ('T-Shirt', 'Krawatte', 'Rock', 'Bluse', 'Hut')]
  + [('heiß', word) for word in ('Bier', 'Saft', 'Limonade', 'Wein')]
  + [('klein', 'Baby'), ('schön', 'Wort'), ('kalt', 'Mittagessen')]
)


@functools.cache
def adjectives_for(noun_class: str, noun: nouns.Noun) -> tuple[words.Adjective, ...]:
  """The adjectives that fit a noun, and would not wince beside it."""
  return tuple(
    adjective
    for adjective in words.ADJECTIVES
    if noun_class in adjective.classes and (adjective.german, noun.lemma) not in _ODD
  )

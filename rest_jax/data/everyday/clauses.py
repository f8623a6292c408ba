"""One clause, linearised in German and English from the same pieces.

German: the finite verb is second, first or last; what stands between the
brackets is ordered by rank (pronouns, time, dative, definite accusative,
negation, manner, place, indefinite accusative, direction). English: subject,
verb group, objects, manner, place, time.
"""

import dataclasses
import functools

from rest_jax.data.everyday import english, morphology, phrases, words
from rest_jax.data.everyday.english import Wordings

# Ranks in the German middle field.
REFLEXIVE, PRONOUN_ACCUSATIVE, PRONOUN_DATIVE, TIME, OFTEN, DATIVE, DEFINITE = range(7)
NEGATION, MANNER, PLACE, INDEFINITE, PREPOSITIONAL, DIRECTION, FIXED = range(7, 14)
CORE_WORDINGS = 12


@functools.cache
def tail_of(tail: str, objects: Wordings) -> Wordings:
  """The words behind the verb, once per wording of the object."""
  return tuple(tail % wording for wording in objects) if '%s' in tail else (tail,)


@dataclasses.dataclass(slots=True)
class Clause:
  """A clause before linearisation; `finite_of` chooses the German finite verb."""

  subject: phrases.Phrase
  german: morphology.Conjugation
  patterns: tuple[tuple[str, str], ...]  # English (head, tail with objects filled in)
  aspects: tuple[str, ...] = ('simple',)
  tense: str = 'present'  # present, preterite, perfect, future
  modal: morphology.Conjugation | None = None
  middle: list[tuple[int, str]] = dataclasses.field(default_factory=list)
  reflexive: bool = False
  negated_english: bool = False
  adverb: Wordings = ('',)  # English mid-position, with its leading space
  time: words.Adverbial | None = None
  place: Wordings = ()  # English
  manner: Wordings = ()
  ending: Wordings = ()  # English at the very end: yet
  topic: str = ''
  pronouns_first: bool = False  # dative pronouns before a subject noun
  bound: bool = False  # a possessive tells which 'sie' the subject is

  # German

  def _brackets(self) -> tuple[str, str, str]:
    """Finite verb, words of the right bracket, and both joined verb-final."""
    person, verb = self.subject.person, self.german
    if self.modal is not None:
      forms = self.modal.preterite if self.tense == 'preterite' else self.modal.present
      return forms[person], verb.infinitive, f'{verb.infinitive} {forms[person]}'
    if self.tense == 'perfect':
      auxiliary = morphology.SEIN if verb.auxiliary == 'sein' else morphology.HABEN
      finite = auxiliary.present[person]
      return finite, verb.participle, f'{verb.participle} {finite}'
    if self.tense == 'future':
      finite = morphology.WERDEN.present[person]
      return finite, verb.infinitive, f'{verb.infinitive} {finite}'
    finite = (verb.preterite if self.tense == 'preterite' else verb.present)[person]
    return finite, verb.prefix, verb.prefix + finite

  def _items(self, *, skip_time: bool = False) -> list[tuple[int, str]]:
    items = list(self.middle)
    if self.reflexive:
      items.append((REFLEXIVE, morphology.REFLEXIVE[self.subject.person]))
    if self.time is not None and not skip_time:
      items.append((TIME, self.time[0]))
    items.sort(key=lambda item: item[0])
    return items

  def _middle(self) -> list[str]:
    return [text for _, text in self._items()]

  def _after_subject(self, *, skip_time: bool = False) -> list[str]:
    """The subject and what follows it; sich goes before a subject noun."""
    items = self._items(skip_time=skip_time)
    first = -1
    if not self.subject.is_pronoun:
      first = PRONOUN_DATIVE if self.pronouns_first else REFLEXIVE
    return [
      *(text for rank, text in items if rank <= first),
      self.subject.german[0],
      *(text for rank, text in items if rank > first),
    ]

  def german_statement(self, *, front: str = '', front_time: bool = False) -> str:
    """Verb-second, beginning with the subject, the time or the words `front`."""
    finite, end, _ = self._brackets()
    if front_time and self.time is not None:
      front = self.time[0]
    if front:
      parts = [front, finite, *self._after_subject(skip_time=front_time)]
    else:
      parts = [self.subject.german[0], finite, *self._middle()]
    return ' '.join([*parts, end] if end else parts)

  def german_question(self) -> str:
    """Verb-first: a yes/no question, or what follows a question word."""
    finite, end, _ = self._brackets()
    parts = [finite, *self._after_subject()]
    return ' '.join([*parts, end] if end else parts)

  def german_subordinate(self) -> str:
    """Verb-final, without the conjunction."""
    return ' '.join([*self._after_subject(), self._brackets()[2]])

  def german_zu(self) -> str:
    """Infinitive with zu; the reflexive agrees with the subject."""
    return ' '.join([*self._middle(), self.german.zu_infinitive])

  def german_infinitive(self) -> str:
    """Bare infinitive with its objects."""
    return ' '.join([*self._middle(), self.german.infinitive])

  def german_imperative(self, address: str) -> str:
    """Imperative to 'du', 'ihr' or 'Sie'."""
    verb = self.german
    middle = self._middle()
    if address == 'Sie':
      parts = [verb.infinitive[len(verb.prefix) :], 'Sie', *middle]
    else:
      parts = [verb.imperative[address == 'ihr'], *middle]
    return ' '.join([*parts, verb.prefix] if verb.prefix else parts)

  # English

  def _core(self, *, question: bool = False, initial: bool = False) -> Wordings:
    subject = self.subject
    subjects = subject.english
    if initial and subject.initial and not self.bound:
      subjects = subject.initial
    pronoun = subject.is_pronoun
    found: dict[str, None] = {}
    patterns, adverbs = self.patterns, self.adverb
    for aspect in self.aspects:
      for head, tail in patterns:
        is_be = head == 'be'
        for template, form in english.groups(
          aspect,
          subject.english_person,
          negated=self.negated_english,
          question=question,
          pronoun=pronoun,
          is_be=is_be,
        ):
          for adverb in adverbs:
            for words_ in subjects:
              found[english.compose(template, form, words_, adverb, head, tail)] = None
    return tuple(found)[: 2 * CORE_WORDINGS]

  def english_slots(
    self,
    *,
    front_time: bool = False,
    question: bool = False,
    initial: bool = False,
    may_front: bool = True,
  ) -> list[list[Wordings]]:
    """One or two orders of slots: time at the end, and time first."""
    core = self._core(question=question, initial=initial)
    slots = [core]
    for extra in (self.manner, self.place):
      if extra:
        slots.append(extra)
    if self.time is None:
      return [slots + [self.ending] if self.ending else slots]
    time = self.time[1]
    last = [*slots, time]
    if question or not may_front or self.ending:
      return [last + [self.ending] if self.ending else last]
    return [[time, *slots], last] if front_time else [last, [time, *slots]]

  def english_infinitive(self) -> list[Wordings]:
    """'to call his mother', with manner, place and time."""
    negation = 'not ' if self.negated_english else ''
    core = tuple(
      dict.fromkeys(f'{negation}to {head}{tail}' for head, tail in self.patterns)
    )
    return [
      slot
      for slot in (
        core,
        self.manner,
        self.place,
        self.time[1] if self.time else (),
        self.ending,
      )
      if slot
    ]

  def english_imperative(self) -> list[Wordings]:
    """'call him', or "don't call him"."""
    negations = ("don't ", 'do not ') if self.negated_english else ('',)
    core = tuple(
      dict.fromkeys(
        f'{negation}{head}{tail}'
        for negation in negations
        for head, tail in self.patterns
      )
    )
    return [
      slot
      for slot in (core, self.manner, self.place, self.time[1] if self.time else ())
      if slot
    ]


def renderings(orders: list[list[Wordings]], mark: str = '.') -> tuple[str, ...]:
  """All sentences of the given slot orders, alternating between the orders."""
  lists = [english.product(slots) for slots in orders]
  if len(lists) == 1:
    chosen = lists[0]
  else:
    chosen = [text for texts in zip(*lists, strict=True) for text in texts]
  unique = dict.fromkeys([text[0].upper() + text[1:] + mark for text in chosen])
  return tuple(unique)[: english.MAX_RENDERINGS]

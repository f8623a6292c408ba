"""English verb groups: every aspect, negation, contraction and question form.

A group is a pair (template, form): the template takes the subject and an adverb
(' often' or '') in this order, the form names the verb form that follows. The
adverb stands behind the first auxiliary, or before the verb where there is none.
"""

import functools
import itertools
import re

from rest_jax.data.everyday import numbers

Wordings = tuple[str, ...]  # all correct wordings, canonical first

_IRREGULAR = {
  'be': ('was', 'been'),
  'begin': ('began', 'begun'),
  'bring': ('brought',) * 2,
  'buy': ('bought',) * 2,
  'come': ('came', 'come'),
  'cut': ('cut',) * 2,
  'do': ('did', 'done'),
  'drink': ('drank', 'drunk'),
  'drive': ('drove', 'driven'),
  'eat': ('ate', 'eaten'),
  'fall': ('fell', 'fallen'),
  'feed': ('fed',) * 2,
  'find': ('found',) * 2,
  'fly': ('flew', 'flown'),
  'forget': ('forgot', 'forgotten'),
  'get': ('got', 'gotten'),
  'give': ('gave', 'given'),
  'go': ('went', 'gone'),
  'have': ('had',) * 2,
  'keep': ('kept',) * 2,
  'know': ('knew', 'known'),
  'lend': ('lent',) * 2,
  'lose': ('lost',) * 2,
  'meet': ('met',) * 2,
  'pay': ('paid',) * 2,
  'put': ('put',) * 2,
  'read': ('read',) * 2,
  'ride': ('rode', 'ridden'),
  'run': ('ran', 'run'),
  'see': ('saw', 'seen'),
  'sell': ('sold',) * 2,
  'send': ('sent',) * 2,
  'show': ('showed', 'shown'),
  'shut': ('shut',) * 2,
  'sing': ('sang', 'sung'),
  'sleep': ('slept',) * 2,
  'speak': ('spoke', 'spoken'),
  'swim': ('swam', 'swum'),
  'take': ('took', 'taken'),
  'tell': ('told',) * 2,
  'think': ('thought',) * 2,
  'understand': ('understood',) * 2,
  'wake': ('woke', 'woken'),
  'wear': ('wore', 'worn'),
  'write': ('wrote', 'written'),
  'hang': ('hung',) * 2,
  'stand': ('stood',) * 2,
  'lie': ('lay', 'lain'),
  'sit': ('sat',) * 2,
  'leave': ('left',) * 2,
  'cost': ('cost',) * 2,
  'become': ('became', 'become'),
  'make': ('made',) * 2,
  'say': ('said',) * 2,
  'fix': ('fixed',) * 2,
}
_DOUBLING = {
  'stop',
  'plan',
  'shop',
  'jog',
  'get',
  'swim',
  'run',
  'put',
  'cut',
  'shut',
  'forget',
  'begin',
  'sit',
  'hug',
}
_AN = re.compile(r'(?i)(?!(uni|use|euro|one\b|once))[aeiou]|hour|honest')


def numbers_word(number: int) -> str:
  """The canonical English cardinal: 21 is 'twenty-one'."""
  return numbers.english_number(number)[0]


def article(phrase: str) -> str:
  """Puts 'a' or 'an' before a phrase: 'an apple', 'a university', 'an hour'."""
  return ('an ' if _AN.match(phrase) else 'a ') + phrase


@functools.cache
def verb_form(verb: str, form: str) -> str:
  """One of base, s, ing, past, participle; '' for the form 'none'."""
  if form == 'none':
    return ''
  if form == 'base':
    return verb
  if form == 's':
    if verb == 'have':
      return 'has'
    if re.search('([sxz]|ch|sh|[^aeiou]o|^go|^do)$', verb):
      return verb + 'es'
    return verb[:-1] + 'ies' if re.search('[^aeiou]y$', verb) else verb + 's'
  doubled = verb + verb[-1] if verb in _DOUBLING else verb
  if form == 'ing':
    if verb == 'lie':
      return 'lying'
    if verb.endswith('e') and verb not in ('be', 'see'):
      return verb[:-1] + 'ing'
    return doubled + 'ing'
  if verb in _IRREGULAR:
    return _IRREGULAR[verb][0 if form == 'past' else 1]
  if verb.endswith('e'):
    return verb + 'd'
  return verb[:-1] + 'ied' if re.search('[^aeiou]y$', verb) else doubled + 'ed'


# aspect: (auxiliary, words between auxiliary and verb, form of the verb). The
# auxiliaries do and did vanish from affirmative statements.
_ASPECTS = {
  'simple': ('do', '', 'base'),
  'past': ('did', '', 'base'),
  'progressive': ('be', '', 'ing'),
  'past_progressive': ('was', '', 'ing'),
  'perfect': ('have', '', 'participle'),
  'future': ('will', '', 'base'),
  'going_to': ('be', 'going to', 'base'),
  'can': ('can', '', 'base'),
  'could': ('could', '', 'base'),
  'must': ('must', '', 'base'),
  'may': ('may', '', 'base'),
  'should': ('should', '', 'base'),
  'would_like': ('would', 'like to', 'base'),
  'have_to': ('do', 'have to', 'base'),
  'had_to': ('did', 'have to', 'base'),
  'need_to': ('do', 'need to', 'base'),
  'want_to': ('do', 'want to', 'base'),
  'wanted_to': ('did', 'want to', 'base'),
  'allowed': ('be', 'allowed to', 'base'),
  'was_allowed': ('was', 'allowed to', 'base'),
  'supposed': ('be', 'supposed to', 'base'),
  'was_supposed': ('was', 'supposed to', 'base'),
  'was_able': ('was', 'able to', 'base'),
  'would_rather': ('would', 'rather', 'base'),
  'like_doing': ('do', 'like', 'ing'),
  'like_to': ('do', 'like to', 'base'),
  'would_love': ('would', 'love to', 'base'),
  'would': ('would', '', 'base'),
}
_INFLECTED = {
  'be': ('am', 'are', 'is', 'are', 'are', 'are'),
  'was': ('was', 'were', 'was', 'were', 'were', 'were'),
  'have': ('have', 'have', 'has', 'have', 'have', 'have'),
  'do': ('do', 'do', 'does', 'do', 'do', 'do'),
}
_SHORT = {
  'am': "'m",
  'are': "'re",
  'is': "'s",
  'have': "'ve",
  'has': "'s",
  'will': "'ll",
  'would': "'d",
}
_NEGATED = {
  'can': ("can't", 'cannot'),
  'will': ("won't", 'will not'),
  'may': ('may not',),
  'am': ('am not',),
}


def _negations(auxiliary: str) -> Wordings:
  return _NEGATED.get(auxiliary, (f"{auxiliary}n't", f'{auxiliary} not'))


@functools.cache
def groups(
  aspect: str,
  person: int,
  *,
  negated: bool = False,
  question: bool = False,
  pronoun: bool = False,
  is_be: bool = False,
) -> tuple[tuple[str, str], ...]:
  """All wordings of one aspect as (template, form).

  Args:
    aspect: a key of the table above.
    person: 0 I, 1 you, 2 he, 3 we, 4 you, 5 they.
    negated: with not; statements have the contraction first.
    question: auxiliary before the subject.
    pronoun: the subject is a pronoun, so 'he is' may become "he's".
    is_be: the verb is 'be', which is its own auxiliary.
  """
  if is_be and aspect in ('progressive', 'simple'):
    auxiliary, rest, form = 'be', '', 'none'
  elif is_be and aspect in ('past', 'past_progressive'):
    auxiliary, rest, form = 'was', '', 'none'
  else:
    auxiliary, rest, form = _ASPECTS[aspect]
  finite = _INFLECTED.get(auxiliary, (auxiliary,) * 6)[person]
  rest = f' {rest}' if rest else ''
  if question:
    if not negated:
      return ((f'{finite} %s%s{rest}', form),)
    short = "aren't" if finite == 'am' else _negations(finite)[0]
    return ((f'{short} %s%s{rest}', form),)
  if negated:
    found = [(f'%s {word}%s{rest}', form) for word in _negations(finite)]
    if pronoun and finite == 'am':
      found.insert(0, (f"%s'm not%s{rest}", form))
    elif pronoun and finite in ('is', 'are'):
      found.append((f'%s{_SHORT[finite]} not%s{rest}', form))
    return tuple(found)
  if auxiliary in ('do', 'did'):
    inflected = 'past' if auxiliary == 'did' else 's' if person == 2 else 'base'
    if not rest:
      return (('%s%s', inflected),)
    head, _, tail = rest.strip().partition(' ')
    return ((f'%s%s {verb_form(head, inflected)} {tail}'.rstrip(), form),)
  found = [(f'%s {finite}%s{rest}', form)]
  if pronoun and finite in _SHORT:
    found.append((f'%s{_SHORT[finite]}%s{rest}', form))
  return tuple(found)


def compose(
  template: str, form: str, subject: str, adverb: str, head: str, tail: str
) -> str:
  """Subject, verb group, verb and the words behind it."""
  words = template % (subject, adverb)
  verb = verb_form(head, form)
  return f'{words} {verb}{tail}' if verb else f'{words}{tail}'


MAX_RENDERINGS = 32


@functools.cache
def _index_order(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
  """The index tuples of a product, those nearest the canonical first."""
  indices = itertools.product(*(range(size) for size in shape))
  ordered = sorted(indices, key=lambda index: (sum(map(bool, index)), sum(index)))
  return tuple(ordered[:MAX_RENDERINGS])


def product(slots: list[Wordings]) -> list[str]:
  """Joins one wording of each slot by spaces, at most MAX_RENDERINGS of them.

  The first takes every canonical wording; where the product is larger than the
  bound, those that depart from it in the fewest slots are kept.
  """
  shape = tuple(len(slot) for slot in slots)
  return [
    ' '.join([slot[i] for slot, i in zip(slots, index, strict=True) if slot[i]])
    for index in _index_order(shape)
  ]


def sentence(text: str, mark: str = '.') -> str:
  """Capitalises the first letter and adds the final mark."""
  return text[0].upper() + text[1:] + mark

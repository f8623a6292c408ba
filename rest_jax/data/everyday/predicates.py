"""Draws verb clauses: verb, objects by semantic class, tense, modality, adverbials.

`verb_clause` is the one way from the verb table to a `Clause`; statements,
questions, imperatives and subordinate clauses all start from it.
"""

import random

from rest_jax.data.everyday import (
  clauses,
  morphology,
  objects,
  phrases,
  referents,
  verbs,
  words,
)
from rest_jax.data.everyday.clauses import Clause

_FRAMES = ('a', '-', 'p', 'da', 'dir', 'd', 'f', 'loc')
_FRAME_SUMS = (40, 55, 67, 77, 87, 93, 97, 100)
BY_FRAME = {
  frame: tuple(verb for verb in verbs.VERBS if verb.frame == frame) for frame in _FRAMES
}
ACTIONS = {  # may be wanted, tried, ordered
  frame: tuple(verb for verb in listed if not set(verb.flags) & set('SXN'))
  for frame, listed in BY_FRAME.items()
}
_MODALS = ('müssen', 'können', 'wollen', 'sollen', 'möchten', 'dürfen')
_MODAL_SUMS = (27, 54, 74, 84, 94, 100)
_MODAL_ASPECTS = {
  'müssen': ('have_to', 'must'),
  'können': ('can',),
  'wollen': ('want_to',),
  'sollen': ('should', 'supposed'),
  'möchten': ('would_like',),
  'dürfen': ('may', 'allowed', 'can'),
}
_NEGATED_MODAL_ASPECTS = {
  'müssen': ('have_to', 'need_to'),
  'möchten': ('want_to',),
  'dürfen': ('allowed', 'must', 'may'),
}
_PRETERITE_ASPECTS = {
  'müssen': ('had_to',),
  'können': ('could', 'was_able'),
  'wollen': ('wanted_to',),
  'sollen': ('was_supposed',),
  'dürfen': ('was_allowed',),
}
_LONG_AGO = words.PAST[6:8]  # last year, last summer


def pick_verb(
  rng: random.Random, *, actions: bool = False, frame: str = ''
) -> verbs.Verb:
  """Draws a verb, the frequent ones more often; `actions` can be intended."""
  if not frame:
    frame = rng.choices(_FRAMES, cum_weights=_FRAME_SUMS)[0]
  listed = (ACTIONS if actions else BY_FRAME)[frame]
  return phrases.zipf(rng, listed or ACTIONS['-'])


def _set_present(
  rng: random.Random, clause: Clause, verb: verbs.Verb, *, may_negate: bool, timed: bool
) -> tuple[bool, bool]:
  """Chooses time and aspect of a present clause; (negated, generic)."""
  once, stative = 'O' in verb.flags, verb.is_stative
  negated = may_negate and rng.random() < 0.16
  if stative:
    clause.aspects = ('simple',)
    return negated, False
  base = ('simple', 'progressive') if 'H' in verb.flags else ('progressive', 'simple')
  clause.aspects = base
  draw = rng.random() if timed else 1.0
  if draw < 0.13 and not once and 'X' not in verb.flags:
    clause.time, clause.aspects = phrases.zipf(rng, words.HABIT), ('simple',)
    return False, True
  if draw < 0.26 and not once:
    german, english = phrases.zipf(rng, words.OFTEN)
    clause.adverb = tuple(f' {word}' for word in english)
    clause.middle.append((clauses.OFTEN, german))
    clause.aspects = ('simple',)
    return False, True
  if 'X' in verb.flags or draw < 0.44:
    clause.time = phrases.zipf(rng, words.FUTURE)
    clause.aspects = ('future', 'going_to', 'progressive')
    if 'X' in verb.flags:
      clause.aspects = ('future', 'going_to')
    return negated, False
  if draw < 0.52:
    clause.time, clause.aspects = phrases.zipf(rng, words.NOW), ('progressive',)
    return False, False
  if draw < 0.57:
    clause.time = words.TODAY[0]
    clause.aspects = ('progressive', 'future')
    return negated, False
  if draw < 0.62 and verb.frame in ('a', '-') and not once:
    clause.middle.append((clauses.MANNER, 'gern'))
    clause.aspects = ('like_to', 'like_doing')
    return False, True
  return negated, False


def _set_perfect(
  rng: random.Random, clause: Clause, verb: verbs.Verb, *, may_negate: bool, timed: bool
) -> bool:
  """Chooses time and aspect of a perfect clause; returns negated."""
  clause.aspects = ('past', 'perfect')
  draw = rng.random() if timed else 1.0
  if verb.places == 'live':
    if draw < 0.4:
      clause.time, clause.aspects = rng.choice(_LONG_AGO), ('past',)
    return False
  if draw < 0.45:
    clause.time, clause.aspects = phrases.zipf(rng, words.PAST), ('past',)
  elif draw < 0.50:
    clause.time = words.TODAY[0]
  elif draw < 0.57 and not verb.is_stative:
    clause.middle.append((clauses.NEGATION, 'schon'))
    clause.adverb, clause.aspects = (' already',), ('perfect', 'past')
    return False
  elif draw < 0.60 and 'O' not in verb.flags:
    clause.middle.append((clauses.NEGATION, 'noch nie'))
    clause.adverb, clause.aspects = (' never',), ('perfect',)
    return False
  elif draw < 0.63:
    clause.middle.append((clauses.OFTEN, 'gerade'))
    clause.adverb, clause.aspects = (' just',), ('perfect', 'past')
    return False
  elif draw < 0.67 and verb.frame in ('-', 'd'):
    clause.middle.append((clauses.NEGATION, 'noch nicht'))
    clause.ending, clause.aspects = ('yet',), ('perfect', 'past')
    clause.negated_english = True
    return False
  return may_negate and rng.random() < 0.14


def _set_modal(
  rng: random.Random,
  clause: Clause,
  verb: verbs.Verb,
  *,
  past: bool,
  may_negate: bool,
  timed: bool,
) -> tuple[bool, bool]:
  """Chooses the modal verb, its time and English; (negated, generic)."""
  modal = rng.choices(_MODALS, cum_weights=_MODAL_SUMS)[0]
  if past and modal == 'möchten':
    modal = 'wollen'
  clause.modal = morphology.MODALS[modal]
  negated = may_negate and rng.random() < 0.16
  draw = rng.random() if timed else 1.0
  if past:
    clause.tense = 'preterite'
    clause.aspects = _PRETERITE_ASPECTS[modal]
    if negated and modal == 'können':
      clause.aspects = ('could',)
    if draw < 0.5:
      clause.time = phrases.zipf(rng, words.PAST_DAYS)
    return negated, False
  clause.aspects = _MODAL_ASPECTS[modal]
  if negated:
    clause.aspects = _NEGATED_MODAL_ASPECTS.get(modal, clause.aspects)
  if draw < 0.3:
    clause.time = phrases.zipf(rng, words.FUTURE)
  elif draw < 0.38:
    clause.time = words.TODAY[0]
  elif draw < 0.46 and 'O' not in verb.flags and modal in ('müssen', 'können'):
    clause.time = phrases.zipf(rng, words.HABIT)
    return False, True
  return negated, False


def verb_clause(
  rng: random.Random,
  *,
  subject: phrases.Phrase | None = None,
  tense: str = '',
  question: bool = False,
  may_negate: bool = True,
  timed: bool = True,
  placed: bool = True,
  actions: bool = False,
  frame: str = '',
  verb: verbs.Verb | None = None,
  it: bool = False,
) -> Clause:
  """Draws a clause with a verb of the table.

  Args:
    rng: the source of chance.
    subject: a person; drawn when None.
    tense: present, perfect, future, modal, modal_past, or '' for any.
    question: draws subjects that are asked about.
    may_negate: allows nicht and kein.
    timed: allows a time adverbial.
    placed: allows an optional place and manner.
    actions: only verbs that can be intended (for zu and imperatives).
    frame: restricts the verb frame.
    verb: this verb instead of a drawn one.
    it: a thing may be a pronoun (es, ihn, sie).
  """
  if subject is None:
    subject = referents.subject(rng, question=question)
  given = verb is not None
  verb = verb or pick_verb(rng, actions=actions, frame=frame)
  flags = verb.flags
  while not given and (
    (tense in ('present', 'bare') and 'X' in flags)
    or (tense == 'perfect' and 'S' in flags and 'P' not in flags)
    or (tense in ('modal', 'modal_past', 'future') and set(flags) & set('SN'))
  ):
    verb = pick_verb(rng, actions=actions, frame=frame)
    flags = verb.flags
  if not tense:
    draw = rng.random()
    if 'S' in flags:
      tense = 'present' if draw < 0.65 or 'P' not in flags else 'perfect'
    elif 'X' in flags:
      tense = 'perfect' if draw < 0.75 or 'N' in flags else 'modal'
    elif 'N' in flags:
      tense = 'present' if draw < 0.5 else 'perfect'
    else:
      tense = (
        'present'
        if draw < 0.44
        else 'perfect'
        if draw < 0.72
        else 'modal'
        if draw < 0.9
        else 'future'
        if draw < 0.95
        else 'modal_past'
      )
  clause = Clause(subject, verb.german, verb.english, reflexive=verb.reflexive)
  clause.topic = {
    'a': 'accusative object',
    'd': 'dative object',
    'da': 'two objects',
    'p': 'prepositional object',
    'dir': 'direction',
    'loc': 'location',
  }.get(verb.frame, 'no object')
  generic, negated = False, False
  if tense == 'present':
    negated, generic = _set_present(
      rng, clause, verb, may_negate=may_negate, timed=timed
    )
  elif tense == 'perfect':
    clause.tense = 'perfect'
    negated = _set_perfect(rng, clause, verb, may_negate=may_negate, timed=timed)
  elif tense == 'future':
    clause.tense, clause.aspects = 'future', ('future', 'going_to')
    negated = may_negate and rng.random() < 0.14
    if timed and rng.random() < 0.7:
      clause.time = phrases.zipf(rng, words.FUTURE)
  elif tense in ('modal', 'modal_past'):
    negated, generic = _set_modal(
      rng, clause, verb, past=tense == 'modal_past', may_negate=may_negate, timed=timed
    )
  elif tense == 'bare':  # infinitives and imperatives set their own verb group
    negated = may_negate and rng.random() < 0.12
  took_kein = objects.add_objects(
    rng, clause, verb, generic=generic, negated=negated, it=it
  )
  clause.negated_english = clause.negated_english or negated
  if negated and not took_kein:
    clause.middle.append((clauses.NEGATION, 'nicht'))
  if took_kein and clause.aspects == ('progressive', 'simple'):
    clause.aspects = ('simple', 'progressive')
  objects.add_place(rng, clause, verb, allowed=placed and not negated)
  return clause

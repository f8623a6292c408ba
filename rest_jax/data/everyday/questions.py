"""Questions with and without question words, imperatives, wishes.

Each function draws one sentence and returns (German, English wordings, topic).
"""

import random

from rest_jax.data.everyday import (
  clauses,
  english,
  morphology,
  phrases,
  predicates,
  referents,
  verbs,
)
from rest_jax.data.everyday.clauses import Clause
from rest_jax.data.everyday.descriptions import Drawn, ask
from rest_jax.data.everyday.phrases import NOUNS


def yes_no(rng: random.Random) -> Drawn:
  """'Hast du gestern deine Mutter angerufen?'"""
  subject = referents.subject(rng, question=True)
  clause = predicates.verb_clause(
    rng, subject=subject, may_negate=rng.random() < 0.3, it=True
  )
  clause.topic = 'yes/no question'
  return ask(clause)


def _timeless(
  rng: random.Random,
  tense: str,
  *,
  verb: verbs.Verb | None = None,
  frame: str = '',
  actions: bool = False,
  placed: bool = True,
) -> Clause:
  subject = referents.subject(rng, question=True)
  return predicates.verb_clause(
    rng,
    subject=subject,
    tense=tense,
    timed=False,
    may_negate=False,
    verb=verb,
    frame=frame,
    actions=actions,
    placed=placed,
  )


def when_or_why(rng: random.Random) -> Drawn:
  """'Wann kommt der Zug an?', 'Warum hast du nicht gewartet?'"""
  tense = rng.choice(('present', 'perfect', 'perfect', 'modal'))
  if rng.random() < 0.5:
    clause = _timeless(rng, tense, actions=True)
    if tense == 'present':
      clause.aspects = ('simple', 'progressive', 'future')
    elif tense == 'perfect':
      clause.aspects = ('past',)
    elif tense == 'modal':
      while clause.modal is morphology.MODALS['dürfen']:
        clause = _timeless(rng, tense, actions=True)
    clause.topic = 'w-question'
    return ask(clause, 'wann', ('when',))
  subject = referents.subject(rng, question=True)
  clause = predicates.verb_clause(
    rng, subject=subject, tense=tense, timed=False, placed=False
  )
  clause.topic = 'w-question'
  if tense == 'perfect':
    clause.aspects = ('past', 'perfect')
  return ask(clause, 'warum', ('why',))


_WHERE = tuple(
  v
  for v in verbs.VERBS
  if v.places
  in ('meet', 'work', 'play', 'swim', 'sleep', 'shop', 'live', 'study', 'learn')
  and v.frame in ('a', '-', 'loc')
  and not set(v.flags) & set('X')
)


def where(rng: random.Random) -> Drawn:
  """'Wo wohnst du?', 'Wohin fährt deine Schwester?'"""
  tense = rng.choice(('present', 'perfect', 'modal'))
  if rng.random() < 0.5:
    clause = _timeless(rng, tense, frame='dir', placed=False)
    clause.middle.clear()
    clause.place = ()
    if clause.german.infinitive == 'kommen':
      return where(rng)
    clause.patterns = tuple(
      (head, f'{tail}{to}') for to in ('', ' to') for head, tail in clause.patterns
    )
    clause.topic = 'w-question'
    return ask(clause, 'wohin', ('where',))
  verb = phrases.zipf(rng, _WHERE)
  if ('N' in verb.flags and tense == 'modal') or 'S' in verb.flags:
    tense = 'present'
  clause = _timeless(rng, tense, verb=verb, placed=False)
  if verb.frame == 'loc':
    clause.middle = [item for item in clause.middle if item[0] != clauses.DIRECTION]
    clause.place = ()
  elif any(rank in (clauses.PRONOUN_ACCUSATIVE,) for rank, _ in clause.middle):
    return where(rng)
  clause.topic = 'w-question'
  return ask(clause, 'wo', ('where',))


_WHAT_VERBS = tuple(
  v
  for v in predicates.BY_FRAME['a']
  if v.object_classes[0]
  in (
    'food',
    'drink',
    'readable',
    'owned',
    'writable',
    'dish',
    'clothes',
    'thing',
    'language',
    'sport',
  )
  and v.german.infinitive not in ('waschen', 'probieren', 'schneiden', 'sprechen')
)
_WHOM_VERBS = tuple(
  v
  for v in (*predicates.BY_FRAME['a'], *predicates.BY_FRAME['d'])
  if (v.object_classes or ('',))[0] == 'persons'
)


def who_or_what(rng: random.Random) -> Drawn:
  """'Was hast du gekauft?', 'Wen besucht ihr?', 'Wer wohnt hier?'"""
  tense = rng.choice(('present', 'perfect', 'perfect', 'modal'))
  draw = rng.random()
  if draw < 0.36:  # subject
    who = phrases.Phrase(('wer', '', ''), ('who',), (), is_pronoun=False)
    clause = predicates.verb_clause(rng, subject=who, tense=tense, may_negate=False)
    if (
      clause.reflexive
      or 'perfect' in clause.aspects[:1]
      or any(' ' == text[:1] or not text for _, text in clause.middle)
    ):
      return who_or_what(rng)
    clause.topic = 'w-question'
    german = clause.german_statement()
    slots = clause.english_slots(may_front=False)
    return english.sentence(german, '?'), clauses.renderings(slots, '?'), clause.topic
  person = draw < 0.66
  verb = phrases.zipf(rng, _WHOM_VERBS if person else _WHAT_VERBS)
  if 'S' in verb.flags:
    tense = 'perfect' if 'P' in verb.flags and rng.random() < 0.5 else 'present'
  elif 'X' in verb.flags:
    tense = 'perfect'
  subject = referents.subject(rng, question=True)
  clause = predicates.verb_clause(
    rng,
    subject=subject,
    tense=tense,
    verb=verb,
    may_negate=False,
    timed=rng.random() < 0.6,
  )
  keep = (clauses.TIME, clauses.OFTEN, clauses.PLACE)
  clause.middle = [(rank, text) for rank, text in clause.middle if rank in keep]
  clause.adverb = (
    clause.adverb if any(rank == clauses.OFTEN for rank, _ in clause.middle) else ('',)
  )
  if 'like_to' in clause.aspects:
    clause.aspects = ('progressive', 'simple')
  if clause.ending:
    clause.ending, clause.negated_english = (), False
  if tense == 'perfect' and clause.adverb == ('',) and clause.time is None:
    clause.aspects = ('past', 'perfect')  # schon, noch nie went with the object
  stripped = []
  for (head, tail), moves in zip(verb.english, verb.moves_particle, strict=True):
    tail = tail.replace(' %s', '')
    if not moves:
      stripped.append((head, tail))
  clause.patterns = tuple(stripped) or tuple(
    (head, tail.replace(' %s', '')) for head, tail in verb.english[:1]
  )
  clause.topic = 'w-question'
  if person:
    german = 'wem' if verb.frame == 'd' else 'wen'
    return ask(clause, german, ('who', 'whom'))
  return ask(clause, 'was', ('what',))


def which(rng: random.Random) -> Drawn:
  """'Welches Buch liest du?', 'Wie viele Äpfel habt ihr gegessen?'"""
  verb = phrases.zipf(
    rng,
    [
      v
      for v in predicates.BY_FRAME['a']
      if v.object_classes[0]
      in (
        'food',
        'readable',
        'clothes',
        'device',
        'show',
        'vehicle',
        'language',
        'writable',
      )
    ],
  )
  noun = phrases.zipf(rng, NOUNS[verb.object_classes[0]])
  tense = rng.choice(('present', 'perfect', 'perfect', 'modal'))
  if 'S' in verb.flags:
    tense = 'present'
  subject = referents.subject(rng, question=True)
  clause = predicates.verb_clause(
    rng,
    subject=subject,
    tense=tense,
    verb=verb,
    may_negate=False,
    timed=False,
    placed=False,
  )
  clause.middle = []
  clause.patterns = tuple(
    (head, tail.replace(' %s', '')) for head, tail in verb.english[:2]
  )
  clause.topic = 'w-question'
  if rng.random() < 0.4 and noun.plural and not noun.is_mass:
    adjective = None
    found = phrases.noun_phrase(noun, '', adjective, True)
    return ask(
      clause,
      f'wie viele {found.german[1]}',
      tuple(f'how many {word}' for word in found.english),
    )
  plural = noun.gender == 'p' or (not noun.is_mass and rng.random() < 0.3)
  found = phrases.noun_phrase(noun, 'welch', None, plural)
  if verb.object_classes[0] == 'language':
    return ask(clause, 'welche Sprache', ('which language', 'what language'))
  return ask(clause, found.german[1], found.english)


def preposition_question(rng: random.Random) -> Drawn:
  """'Mit wem hast du gesprochen?', 'Auf wen wartest du?'"""
  verb = phrases.zipf(
    rng, [v for v in predicates.BY_FRAME['p'] if v.object_classes[0] == 'persons']
  )
  clause = predicates.verb_clause(
    rng,
    subject=referents.subject(rng, question=True),
    verb=verb,
    may_negate=False,
    tense=rng.choice(('present', 'perfect')) if 'S' not in verb.flags else 'present',
    timed=False,
    placed=False,
  )
  clause.middle = []
  clause.patterns = tuple(
    (head, tail.replace(' %s', ''))
    for head, tail in verb.english
    if tail.endswith('%s') or head == 'talk'
  )
  who = 'wen' if verb.case == 'a' else 'wem'
  clause.topic = 'w-question'
  return ask(clause, f'{verb.preposition} {who}', ('who', 'whom'))

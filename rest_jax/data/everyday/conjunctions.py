"""Two clauses in one sentence: weil, obwohl, wenn, als, bevor, aber, und, als.

Each function draws one sentence and returns (German, English wordings, topic).
"""

import random
import re

from rest_jax.data.everyday import (
  clauses,
  english,
  morphology,
  phrases,
  predicates,
  referents,
  verbs,
  words,
)
from rest_jax.data.everyday.clauses import Clause
from rest_jax.data.everyday.descriptions import Drawn
from rest_jax.data.everyday.english import Wordings
from rest_jax.data.everyday.phrases import NOUNS, PRONOUNS


def plain_slots(clause: Clause, *, initial: bool = False) -> list[Wordings]:
  """The clause's English in one order, for use inside a longer sentence."""
  return clause.english_slots(may_front=False, initial=initial)[0]


def speaker(rng: random.Random) -> phrases.Phrase:
  """A short subject: who says, knows or sees something."""
  draw = rng.random()
  if draw < 0.6:
    return PRONOUNS[rng.choice(('ich', 'ich', 'er', 'sie', 'wir'))]
  return referents.name(rng) if draw < 0.8 else referents.kin(rng, 'mein')


_DUTIES = tuple(
  verb
  for word in (
    'arbeiten lernen einkaufen kochen putzen aufräumen helfen machen anrufen abholen '
    'besuchen waschen packen reparieren'
  ).split()
  for verb in verbs.VERBS
  if verb.german.infinitive == word and verb.frame in ('a', 'd', '-')
)


def _state(rng: random.Random, subject: phrases.Phrase) -> Clause:
  """A state that may be a reason: ill, no time, has to work."""
  clause = Clause(subject, morphology.SEIN, ())
  draw = rng.random()
  if draw < 0.4:
    german, wordings = rng.choice(
      (
        ('krank', ('sick', 'ill')),
        ('müde', ('tired',)),
        ('sehr müde', ('very tired',)),
        ('noch müde', ('still tired',)),
        ('zu müde', ('too tired',)),
      )
    )
    clause.middle.append((clauses.FIXED, german))
    clause.patterns = tuple(('be', f' {word}') for word in wordings)
  elif draw < 0.7:
    german, wordings = rng.choice(
      (
        ('keine Zeit', ('no time',)),
        ('Bauchschmerzen', ('a stomach ache',)),
        ('Kopfschmerzen', ('a headache',)),
        ('Fieber', ('a fever',)),
        ('viel Arbeit', ('a lot of work',)),
        ('wenig Zeit', ('little time',)),
      )
    )
    clause.german = morphology.HABEN
    clause.middle.append((clauses.FIXED, german))
    clause.patterns = tuple(('have', f' {word}') for word in wordings)
    if german.startswith('kein'):
      clause.negated_english = True
      clause.patterns = tuple(('have', f' {w.removeprefix("no ")}') for w in wordings)
  else:
    clause = predicates.verb_clause(
      rng,
      subject=subject,
      verb=phrases.zipf(rng, _DUTIES),
      tense='bare',
      timed=False,
      may_negate=False,
      placed=False,
    )
    clause.modal, clause.aspects = morphology.MODALS['müssen'], ('have_to', 'must')
    clause.patterns = clause.patterns[:2]
  return clause


def combine(
  rng: random.Random,
  main: Clause,
  conjunction: str,
  sub: Clause,
  heads: Wordings,
  topic: str,
  *,
  sub_first_chance: float,
) -> Drawn:
  """Joins main and subordinate clause in either order, with inversion."""
  if sub.subject.lemma == 'sie_plural' and main.subject.lemma == 'sie_plural':
    main.bound = True  # otherwise 'you ... they'
  sub_german = f'{conjunction} {sub.german_subordinate()}'
  main_slots, sub_slots = plain_slots(main), plain_slots(sub)
  named_first = (
    not sub.subject.is_pronoun
    and main.subject.is_pronoun
    and (main.subject.person in (2, 5) and sub.subject.person == main.subject.person)
  )
  if named_first or rng.random() < sub_first_chance:
    german = f'{sub_german}, ' + main.german_statement(front='\0')[2:]
    last = tuple(f'{word},' for word in sub_slots[-1])
    orders = [
      [heads, *sub_slots[:-1], last, *main_slots],
      [*main_slots, heads, *sub_slots],
    ]
    if named_first:  # 'he ... when Paul' would be somebody else
      orders.pop()
  else:
    german = f'{main.german_statement()}, {sub_german}'
    main_slots = plain_slots(main, initial=True)
    orders = [[*main_slots, heads, *sub_slots]]
  return english.sentence(german), clauses.renderings(orders), topic


def nameable_subject(rng: random.Random) -> phrases.Phrase:
  """A person who can be taken up as er, sie (not es)."""
  while True:
    subject = referents.subject(rng)
    if subject.lemma not in (
      'Kind',
      'Mädchen',
      'Baby',
      'Eltern',
      'Großeltern',
      'Leute',
    ):
      return subject


def pronoun_for(subject: phrases.Phrase) -> phrases.Phrase:
  """The pronoun that takes the subject up in a second clause."""
  if subject.is_pronoun:
    return subject
  if subject.person == 5:
    return PRONOUNS['sie_plural']
  return PRONOUNS['sie' if subject.owner == 'ihr:her' else 'er']


def reason(rng: random.Random) -> Drawn:
  """'Er kann nicht ins Kino gehen, weil er arbeiten muss.', and obwohl."""
  subject = nameable_subject(rng)
  other = pronoun_for(subject)
  state = _state(rng, other)
  if re.search('krank|müde|gesund', subject.german[0]):
    return reason(rng)
  if rng.random() < 0.62:
    draw = rng.random()
    if draw < 0.55:
      main = predicates.verb_clause(
        rng,
        subject=subject,
        tense='bare',
        actions=True,
        timed=False,
        placed=False,
        may_negate=False,
        frame=rng.choice(('a', 'dir', '-', 'd')),
      )
      main.modal, main.aspects = morphology.MODALS['können'], ('can',)
      main.negated_english = True
      main.middle = [
        (clauses.DEFINITE, text)
        if rank == clauses.INDEFINITE and text.startswith(('drei', 'zwei'))
        else (rank, text)
        for rank, text in main.middle
      ]
      if any(rank == clauses.INDEFINITE for rank, _ in main.middle):
        return reason(rng)
      main.middle.append((clauses.NEGATION, 'nicht'))
    else:
      german, head, tail = rng.choice(
        (
          ('zu Hause', 'stay', ' at home'),
          ('im Bett', 'stay', ' in bed'),
          ('hier', 'stay', ' here'),
        )
      )
      main = Clause(
        subject,
        morphology.strong('bleiben', 'bleibt', 'blieb', 'geblieben', auxiliary='sein'),
        ((head, tail),),
        ('progressive', 'simple'),
      )
      main.middle.append((clauses.PLACE, german))
      if rng.random() < 0.5:
        main.time = words.TODAY[0]
        main.aspects = ('progressive', 'future')
    return combine(
      rng, main, 'weil', state, ('because', 'since'), 'weil', sub_first_chance=0.15
    )
  main = predicates.verb_clause(
    rng,
    subject=subject,
    tense='present',
    actions=True,
    timed=rng.random() < 0.4,
    may_negate=False,
    frame=rng.choice(('a', 'dir', '-', 'd', 'p')),
  )
  return combine(
    rng,
    main,
    'obwohl',
    state,
    ('although', 'even though', 'though'),
    'obwohl',
    sub_first_chance=0.35,
  )


_HOME = (
  'lesen kochen lernen arbeiten fernsehen aufräumen putzen schlafen backen'.split()
)
_OUT = 'joggen wandern schwimmen spielen gehen fahren besuchen tanzen'.split()
# A condition: the words of its clause, English, the verbs that may follow from it.
_HAVING: tuple[tuple[str, Wordings, list[str]], ...] = (
  ('Zeit', ('time',), []),
  ('frei', ('the day off', 'time off'), _OUT + _HOME),
  ('genug Geld', ('enough money',), 'kaufen bestellen mieten reisen fliegen'.split()),
)
_BEING: tuple[tuple[str, Wordings, list[str]], ...] = (
  ('müde', ('tired',), 'schlafen ausruhen trinken duschen'.split()),
  ('hungrig', ('hungry',), 'essen kochen bestellen'.split()),
  ('wieder gesund', ('healthy again', 'well again'), _OUT + ['arbeiten', 'helfen']),
)
_RAINING: tuple[tuple[str, Wordings, list[str]], ...] = (
  ('regnen', ('rain',), _HOME),
  ('schneien', ('snow',), _HOME),
)
_WEATHER: tuple[tuple[str, Wordings, list[str]], ...] = (
  ('gut', ('good', 'nice'), _OUT),
  ('schön', ('nice', 'beautiful'), _OUT),
  ('schlecht', ('bad',), _HOME),
)
_IT = phrases.Phrase(('es', 'es', ''), ('it',), ('it',), 2, 2, True)


def _premise(
  rng: random.Random, subject: phrases.Phrase
) -> tuple[Clause, Wordings, list[str]]:
  """The wenn-clause, its conjunctions, and the verbs that may follow from it.

  No verbs means any verb.
  """
  draw = rng.random()
  if draw < 0.35:
    german, wordings, follow = rng.choice(_HAVING)
    clause = Clause(
      subject, morphology.HABEN, tuple(('have', f' {w}') for w in wordings)
    )
    clause.middle.append((clauses.FIXED, german))
    return clause, ('if', 'when'), follow
  if draw < 0.55:
    infinitive, wordings, follow = rng.choice(_RAINING)
    clause = Clause(_IT, morphology.weak(infinitive), ((wordings[0], ''),))
    clause.aspects = ('simple', 'progressive')
    if rng.random() < 0.2:
      clause.middle.append((clauses.NEGATION, 'nicht'))
      clause.negated_english = True
      follow = _OUT
    return clause, ('if', 'when'), follow
  if draw < 0.75:
    subject, table = phrases.noun_phrase(NOUNS['weather'][0], 'der'), _WEATHER
  elif draw < 0.92:
    table = _BEING
  else:
    home = morphology.strong('kommen', 'kommt', 'kam', 'gekommen', auxiliary='sein')
    clause = Clause(subject, home, (('come', ' home'),))
    clause.middle.append((clauses.DIRECTION, 'nach Hause'))
    return clause, ('when', 'if'), [*_HOME, 'essen', 'trinken', 'anrufen']
  german, wordings, follow = rng.choice(table)
  clause = Clause(subject, morphology.SEIN, tuple(('be', f' {w}') for w in wordings))
  clause.middle.append((clauses.FIXED, german))
  return clause, ('if', 'when') if table is _WEATHER else ('when', 'if'), follow


def condition(rng: random.Random) -> Drawn:
  """'Wenn es regnet, bleiben wir zu Hause.'"""
  subject = nameable_subject(rng)
  other = pronoun_for(subject)
  named_in_premise = rng.random() < 0.4
  sub, heads, follow = _premise(rng, subject if named_in_premise else other)
  fitting = [
    v for v in verbs.VERBS if v.german.infinitive in follow and v.frame != 'da'
  ]
  shared = sub.subject in (subject, other)
  main = predicates.verb_clause(
    rng,
    subject=other if shared and named_in_premise else subject,
    verb=phrases.zipf(rng, fitting) if fitting else None,
    tense='bare',
    timed=False,
    placed=False,
    may_negate=False,
    actions=True,
    frame=rng.choice(('a', '-', 'dir', 'd')),
  )
  main.aspects = ('future', 'simple', 'going_to')
  if rng.random() < 0.35:
    main.modal, main.aspects = rng.choice(
      (
        (morphology.MODALS['können'], ('can',)),
        (morphology.MODALS['wollen'], ('want_to',)),
      )
    )
  chance = 0.65
  if shared and not subject.is_pronoun:
    chance = 1.0 if named_in_premise else 0.15
  return combine(rng, main, 'wenn', sub, heads, 'wenn', sub_first_chance=chance)

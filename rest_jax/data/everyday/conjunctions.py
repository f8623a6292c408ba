"""Two clauses in one sentence: weil, obwohl, wenn, als, bevor, aber, und, als.

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
  words,
)
from rest_jax.data.everyday.clauses import Clause
from rest_jax.data.everyday.descriptions import Drawn
from rest_jax.data.everyday.english import Wordings
from rest_jax.data.everyday.phrases import NOUNS, PRONOUNS


def plain_slots(clause: Clause, **kwargs) -> list[Wordings]:
  """The clause's slots in one order, for use inside a longer sentence."""
  return clause.english_slots(may_front=False, **kwargs)[0]


def speaker(rng: random.Random) -> phrases.Phrase:
  draw = rng.random()
  if draw < 0.6:
    return PRONOUNS[rng.choice(('ich', 'ich', 'er', 'sie', 'wir'))]
  return referents.name(rng) if draw < 0.8 else referents.kin(rng, 'mein')


def _state(rng: random.Random, subject: phrases.Phrase) -> Clause:
  """A state that may be a reason: ill, no time, has to work."""
  clause = Clause(subject, morphology.SEIN, ())
  draw = rng.random()
  if draw < 0.4:
    german, wordings = rng.choice((
        ('krank', ('sick', 'ill')), ('müde', ('tired',)), ('sehr müde', ('very tired',)),
        ('noch müde', ('still tired',)), ('zu müde', ('too tired',))))
    clause.middle.append((clauses.FIXED, german))
    clause.patterns = tuple(('be', f' {word}') for word in wordings)
  elif draw < 0.7:
    german, wordings = rng.choice((
        ('keine Zeit', ('no time',)), ('Bauchschmerzen', ('a stomach ache',)),
        ('Kopfschmerzen', ('a headache',)), ('Fieber', ('a fever',)),
        ('viel Arbeit', ('a lot of work',)), ('wenig Zeit', ('little time',))))
    clause.german = morphology.HABEN
    clause.middle.append((clauses.FIXED, german))
    clause.patterns = tuple(('have', f' {word}') for word in wordings)
    if german.startswith('kein'):
      clause.negated_english = True
      clause.patterns = tuple(('have', f' {w.removeprefix("no ")}') for w in wordings)
  else:
    clause = predicates.verb_clause(
        rng, subject=subject, tense='present', timed=False, may_negate=False,
        placed=False, actions=True, frame=rng.choice(('a', '-', 'd')))
    clause.modal, clause.aspects = morphology.MODALS['müssen'], ('have_to', 'must')
    clause.patterns = clause.patterns[:2]
  return clause


def _combine(rng: random.Random, main: Clause, conjunction: str,
             sub: Clause, heads: Wordings, topic: str, *,
             sub_first_chance: float) -> Drawn:
  """Joins main and subordinate clause in either order, with inversion."""
  if sub.subject.lemma == 'sie_plural' and main.subject.lemma == 'sie_plural':
    main.bound = True  # otherwise 'you ... they'
  sub_german = f'{conjunction} {sub.german_subordinate()}'
  main_slots, sub_slots = plain_slots(main), plain_slots(sub)
  named_first = not sub.subject.is_pronoun and main.subject.is_pronoun and (
      main.subject.person in (2, 5) and sub.subject.person == main.subject.person)
  if named_first or rng.random() < sub_first_chance:
    german = f'{sub_german}, ' + main.german_statement(front='\0')[2:]
    last = tuple(f'{word},' for word in sub_slots[-1])
    orders = [[heads, *sub_slots[:-1], last, *main_slots],
              [*main_slots, heads, *sub_slots]]
    if named_first:  # 'he ... when Paul' would be somebody else
      orders.pop()
  else:
    german = f'{main.german_statement()}, {sub_german}'
    main_slots = plain_slots(main, initial=True)
    orders = [[*main_slots, heads, *sub_slots]]
  return english.sentence(german), clauses.renderings(orders), topic


def _subject(rng: random.Random) -> phrases.Phrase:
  """A person who can be taken up as er, sie (not es)."""
  while True:
    subject = referents.subject(rng)
    if subject.lemma not in ('Kind', 'Mädchen', 'Baby', 'Eltern', 'Großeltern', 'Leute'):
      return subject


def _pronoun_for(subject: phrases.Phrase) -> phrases.Phrase:
  """The pronoun that takes the subject up in a second clause."""
  if subject.is_pronoun:
    return subject
  if subject.person == 5:
    return PRONOUNS['sie_plural']
  return PRONOUNS['sie' if subject.owner == 'ihr:her' else 'er']


def reason(rng: random.Random) -> Drawn:
  """'Er kann nicht ins Kino gehen, weil er arbeiten muss.', and obwohl."""
  subject = _subject(rng)
  other = _pronoun_for(subject)
  state = _state(rng, other)
  if rng.random() < 0.62:
    draw = rng.random()
    if draw < 0.55:
      main = predicates.verb_clause(
          rng, subject=subject, tense='bare', actions=True, timed=False,
          placed=False, may_negate=False, frame=rng.choice(('a', 'dir', '-', 'd')))
      main.modal, main.aspects = morphology.MODALS['können'], ('can',)
      main.negated_english = True
      main.middle = [
          (clauses.DEFINITE, text) if rank == clauses.INDEFINITE and
          text.startswith(('drei', 'zwei')) else (rank, text)
          for rank, text in main.middle]
      if any(rank == clauses.INDEFINITE for rank, _ in main.middle):
        return reason(rng)
      main.middle.append((clauses.NEGATION, 'nicht'))
    else:
      german, head, tail = rng.choice((
          ('zu Hause', 'stay', ' at home'), ('im Bett', 'stay', ' in bed'),
          ('hier', 'stay', ' here')))
      main = Clause(subject, morphology.strong(
          'bleiben', 'bleibt', 'blieb', 'geblieben', auxiliary='sein'),
          ((head, tail),), ('progressive', 'simple'))
      main.middle.append((clauses.PLACE, german))
      if rng.random() < 0.5:
        main.time = words.TODAY[0]
        main.aspects = ('progressive', 'future')
    return _combine(rng, main, 'weil', state, ('because', 'since'), 'weil',
                    sub_first_chance=0.15)
  main = predicates.verb_clause(
      rng, subject=subject, tense='present', actions=True, timed=rng.random() < 0.4,
      may_negate=False, frame=rng.choice(('a', 'dir', '-', 'd', 'p')))
  return _combine(rng, main, 'obwohl', state, ('although', 'even though', 'though'),
                  'obwohl', sub_first_chance=0.35)


def condition(rng: random.Random) -> Drawn:
  """'Wenn es regnet, bleiben wir zu Hause.'"""
  subject = _subject(rng)
  other = _pronoun_for(subject)
  draw = rng.random()
  it = phrases.Phrase(('es', 'es', ''), ('it',), ('it',), 2, 2, True)
  weather = phrases.noun_phrase(NOUNS['weather'][0], 'der')
  heads: Wordings = ('if', 'when')
  if draw < 0.35:
    german, tail = rng.choice((('Zeit', ' time'), ('genug Geld', ' enough money'),
                               ('frei', ' time off'), ('Zeit', ' time')))
    sub = Clause(other, morphology.HABEN, (('have', tail),))
    sub.middle.append((clauses.FIXED, german))
    if german == 'frei':
      sub.patterns = (('have', ' the day off'), ('have', ' time off'), ('be', ' off'))
  elif draw < 0.55:
    german, verb = rng.choice((('regnen', 'rain'), ('schneien', 'snow')))
    sub = Clause(it, morphology.weak(german), ((verb, ''),), ('simple', 'progressive'))
    if rng.random() < 0.2:
      sub.middle.append((clauses.NEGATION, 'nicht'))
      sub.negated_english = True
  elif draw < 0.75:
    german, wordings = rng.choice((('gut', ('good', 'nice')), ('schön', ('nice', 'beautiful')),
                                   ('schlecht', ('bad',))))
    sub = Clause(weather, morphology.SEIN, tuple(('be', f' {w}') for w in wordings))
    sub.middle.append((clauses.FIXED, german))
  elif draw < 0.9:
    german, wordings = rng.choice((('müde', ('tired',)), ('hungrig', ('hungry',)),
                                   ('wieder gesund', ('healthy again', 'well again'))))
    sub = Clause(other, morphology.SEIN, tuple(('be', f' {w}') for w in wordings))
    sub.middle.append((clauses.FIXED, german))
    heads = ('when', 'if')
  else:
    sub = Clause(other, morphology.strong(
        'kommen', 'kommt', 'kam', 'gekommen', auxiliary='sein'), (('come', ' home'),))
    sub.middle.append((clauses.DIRECTION, 'nach Hause'))
    heads = ('when', 'if')
  main = predicates.verb_clause(
      rng, subject=subject if rng.random() < 0.6 else other, tense='present',
      timed=False, may_negate=False, actions=True, frame=rng.choice(('a', '-', 'dir', 'd')))
  main.aspects = ('future', 'simple', 'going_to')
  if rng.random() < 0.35:
    main.modal, main.aspects = rng.choice((
        (morphology.MODALS['können'], ('can',)),
        (morphology.MODALS['wollen'], ('want_to',))))
  if main.subject is not other and not main.subject.is_pronoun and sub.subject is other:
    main.subject = other
    sub.subject = subject
    if main.bound:
      return condition(rng)
  return _combine(rng, main, 'wenn', sub, heads, 'wenn', sub_first_chance=0.65)


_WHEN_YOUNG = (
    ('klein', (('be', ' little'), ('be', ' small'))), ('jung', (('be', ' young'),)),
    ('ein Kind', (('be', ' a child'), ('be', ' a kid'))),
)


def past_time(rng: random.Random) -> Drawn:
  """'Als ich nach Hause kam, schlief mein Vater.' (preterite)"""
  subject = referents.subject(rng)
  while subject.person in (1, 4) or subject.lemma in (
      'Baby', 'Kind', 'Mädchen', 'Junge'):
    subject = referents.subject(rng)
  if rng.random() < 0.45:
    if subject.person in (3, 5):
      return past_time(rng)
    german, patterns = rng.choice(_WHEN_YOUNG)
    sub = Clause(subject, morphology.SEIN, patterns, ('past',), 'preterite')
    sub.middle.append((clauses.FIXED, german))
    main_subject = _pronoun_for(subject)
    draw = rng.random()
    if draw < 0.4:
      place, english_place = phrases.zipf(rng, words.PLACES['live'])
      main = Clause(main_subject, morphology.weak('wohnen'), (('live', ''),), ('past',),
                    'preterite')
      main.middle.append((clauses.DIRECTION, place))
      main.place = english_place
    elif draw < 0.75:
      noun = phrases.zipf(rng, NOUNS['sport'] + NOUNS['instrument'])
      main = Clause(main_subject, morphology.weak('spielen'), tuple(
          ('play', f' {w}') for w in noun.english), ('past',), 'preterite')
      main.middle.append((clauses.INDEFINITE, noun.lemma))
      often = rng.choice((('oft', 'often'), ('gern', ''), ('jeden Tag', '')))
      if often[0] == 'jeden Tag':
        main.time = ('jeden Tag', ('every day',))
      elif often[0] == 'oft':
        main.middle.append((clauses.OFTEN, 'oft'))
        main.adverb = (' often',)
      else:
        main.middle.append((clauses.OFTEN, 'gern'))
        main.patterns = tuple((
            'like', f' {to} {w}') for to in ('to play', 'playing') for w in noun.english)
    else:
      noun = phrases.zipf(rng, NOUNS['animal'][:5])
      found = phrases.noun_phrase(noun, 'ein')
      main = Clause(main_subject, morphology.HABEN,
                    (('have', f' {found.english[0]}'),), ('past',), 'preterite')
      main.middle.append((clauses.INDEFINITE, found.german[1]))
    return _combine(rng, main, 'als', sub, ('when',), 'als', sub_first_chance=0.75)
  came = rng.choice((
      ('nach Hause', ('home',)), ('ins Zimmer', ('into the room',)),
      ('in die Küche', ('into the kitchen',)), ('ins Büro', ('into the office', 'to the office'))))
  sub = Clause(subject, morphology.strong(
      'kommen', 'kommt', 'kam', 'gekommen', auxiliary='sein'), (('come', ''),),
      ('past',), 'preterite')
  sub.middle.append((clauses.DIRECTION, came[0]))
  sub.place = came[1]
  if rng.random() < 0.15:
    main = Clause(phrases.Phrase(('es', '', ''), ('it',), (), is_pronoun=True),
                  morphology.weak('regnen'), (('rain', ''),), ('past_progressive',), 'preterite')
  else:
    doer = speaker(rng)
    if doer.lemma == subject.lemma or doer.lemma in ('er', 'sie') and not (
        subject.lemma in ('ich', 'wir')):
      doer = referents.kin(rng, 'mein')
    if doer.lemma == subject.lemma:
      return past_time(rng)
    verb = phrases.zipf(rng, [
        v for v in predicates.verbs.VERBS if v.german.infinitive in (
            'lesen', 'schlafen', 'essen', 'kochen', 'schreiben', 'arbeiten', 'fernsehen',
            'telefonieren', 'putzen', 'frühstücken', 'trinken', 'lernen')
        and v.frame in ('a', '-')])
    main = predicates.verb_clause(
        rng, subject=doer, verb=verb, tense='bare', may_negate=False, placed=False)
    main.tense, main.aspects = 'preterite', ('past_progressive',)
    if rng.random() < 0.3:
      main.middle.append((clauses.OFTEN, 'gerade'))
      main.adverb = (' just', '')
  return _combine(rng, main, 'als', sub, ('when',), 'als', sub_first_chance=0.65)


_EVENTS_AFTER = (
    ('ins Bett gehen', 'ins Bett', 'gehen geht ging gegangen', ('go', ' to bed')),
    ('nach Hause gehen', 'nach Hause', 'gehen geht ging gegangen', ('go', ' home')),
    ('zur Arbeit gehen', 'zur Arbeit', 'gehen geht ging gegangen', ('go', ' to work')),
    ('zur Arbeit fahren', 'zur Arbeit', 'fahren fährt fuhr gefahren', ('go', ' to work')),
    ('nach Hause kommen', 'nach Hause', 'kommen kommt kam gekommen', ('come', ' home')),
    ('in den Urlaub fahren', 'in den Urlaub', 'fahren fährt fuhr gefahren', ('go', ' on vacation')),
)


def before(rng: random.Random) -> Drawn:
  """'Bevor ich ins Bett gehe, lese ich ein Buch.'"""
  subject = _subject(rng)
  other = _pronoun_for(subject)
  _, place, parts, pattern = phrases.zipf(rng, _EVENTS_AFTER)
  sub = Clause(other, morphology.strong(*parts.split(), auxiliary='sein'), (pattern,))
  sub.middle.append((clauses.DIRECTION, place))
  main = predicates.verb_clause(
      rng, subject=subject, tense='present', timed=False, may_negate=False,
      placed=False, actions=True, frame=rng.choice(('a', '-', 'a', 'd')))
  if 'Arbeit' not in place and main.german.infinitive in ('frühstücken', 'aufstehen'):
    return before(rng)
  if main.german.infinitive in ('schlafen', 'einkaufen', 'spielen', 'umziehen',
                                'zurückkommen', 'ankommen'):
    return before(rng)
  main.aspects = ('simple', 'future')
  if rng.random() < 0.4:
    main.modal, main.aspects = rng.choice((
        (morphology.MODALS['müssen'], ('have_to', 'must')),
        (morphology.MODALS['wollen'], ('want_to',))))
  if subject is not other and rng.random() < 0.4 and not main.bound:
    main.subject, sub.subject = other, subject
    drawn = _combine(rng, main, 'bevor', sub, ('before',), 'bevor', sub_first_chance=1)
    return drawn
  return _combine(rng, main, 'bevor', sub, ('before',), 'bevor', sub_first_chance=(
      0.3 if subject is other else 0.0))


def contrast(rng: random.Random) -> Drawn:
  """'Ich trinke Kaffee, aber meine Schwester trinkt Tee.'"""
  verb = phrases.zipf(rng, [
      v for v in predicates.BY_FRAME['a'] if v.german.infinitive in (
          'trinken', 'essen', 'kaufen', 'lesen', 'spielen', 'lernen', 'sprechen',
          'kochen', 'bestellen', 'hören', 'brauchen', 'schreiben') and 'O' not in v.flags])
  first_subject, second_subject = referents.subject(rng), referents.subject(rng)
  if first_subject.lemma == second_subject.lemma or any(
      {first_subject.lemma, second_subject.lemma} <= same
      for same in ({'ich', 'wir'}, {'du', 'ihr'})):
    return contrast(rng)
  tense = 'perfect' if rng.random() < 0.3 and 'S' not in verb.flags else 'present'
  first, second = (
      predicates.verb_clause(
          rng, subject=subject, verb=verb, tense=tense, timed=False, placed=False,
          may_negate=False)
      for subject in (first_subject, second_subject))
  if first.middle[-1][1].split()[-1] == second.middle[-1][1].split()[-1] or any(
      rank == clauses.PRONOUN_ACCUSATIVE for c in (first, second) for rank, _ in c.middle):
    return contrast(rng)
  first.aspects = second.aspects = first.aspects[:1] if tense == 'perfect' else first.aspects
  text, heads = rng.choice(((', aber', (', but',)), (' und', (' and', ', and'))))
  german = f'{first.german_statement()}{text} {second.german_statement()}'
  wordings: dict[str, None] = {}
  for one_aspect in first.aspects:
    first.aspects = second.aspects = (one_aspect,)
    left = english.product(plain_slots(first, initial=True))[:6]
    right = english.product(plain_slots(second))[:6]
    for head in heads:
      for a in left:
        for b in right:
          wordings[english.sentence(f'{a}{head} {b}')] = None
  return english.sentence(german), tuple(wordings)[:english.MAX_RENDERINGS], 'coordination'


def preference(rng: random.Random) -> Drawn:
  """'Ich trinke lieber Tee als Kaffee.'"""
  subject = referents.subject(rng)
  noun_class, infinitive, verb = rng.choice((
      ('drink', 'trinken trinkt trank getrunken', 'drink'),
      ('food', 'essen isst aß gegessen', 'eat'),
      ('sport', 'spielen spielt spielte gespielt', 'play')))
  first, second = (phrases.zipf(rng, NOUNS[noun_class]) for _ in range(2))
  if first.lemma == second.lemma:
    return preference(rng)
  a, b = (phrases.noun_phrase(n, '', None, not n.is_mass) for n in (first, second))
  german_verb = morphology.strong(*infinitive.split())
  clause = Clause(subject, german_verb, (), topic='preference')
  clause.middle.append((clauses.MANNER, f'lieber {a.german[1]} als {b.german[1]}'))
  x, y = a.english_object[0], b.english_object[0]
  clause.patterns = (
      ('prefer', f' {x} to {y}'), ('prefer', f' {english.verb_form(verb, "ing")} {x} to {y}'),
      ('like', f' {x} better than {y}'), ('like', f' {x} more than {y}'))
  rather = Clause(subject, german_verb, ((verb, f' {x} than {y}'),), ('would_rather',))
  initial = subject.initial
  wordings = (*clauses.renderings([clause.english_slots(initial=bool(initial))[0]]),
              *clauses.renderings([rather.english_slots(initial=bool(initial))[0]]))
  return english.sentence(clause.german_statement()), wordings, 'preference'

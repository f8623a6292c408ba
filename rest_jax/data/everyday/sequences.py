"""Two clauses: als, bevor, aber, und, lieber ... als.

Each function draws one sentence and returns (German, English wordings, topic).
"""

import random

from rest_jax.data.everyday import (
  clauses,
  conjunctions,
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
from rest_jax.data.everyday.phrases import NOUNS

_WHEN_YOUNG = (
  ('klein', (('be', ' little'), ('be', ' small'))),
  ('jung', (('be', ' young'),)),
  ('ein Kind', (('be', ' a child'), ('be', ' a kid'))),
)


def past_time(rng: random.Random) -> Drawn:
  """'Als ich nach Hause kam, schlief mein Vater.' (preterite)"""
  subject = referents.subject(rng)
  while subject.person in (1, 4) or subject.lemma in (
    'Baby',
    'Kind',
    'Mädchen',
    'Junge',
  ):
    subject = referents.subject(rng)
  if rng.random() < 0.45:
    if subject.person in (3, 5):
      return past_time(rng)
    german, patterns = rng.choice(_WHEN_YOUNG)
    sub = Clause(subject, morphology.SEIN, patterns, ('past',), 'preterite')
    sub.middle.append((clauses.FIXED, german))
    main_subject = conjunctions.pronoun_for(subject)
    draw = rng.random()
    if draw < 0.4:
      place, english_place = phrases.zipf(rng, words.PLACES['live'])
      main = Clause(
        main_subject, morphology.weak('wohnen'), (('live', ''),), ('past',), 'preterite'
      )
      main.middle.append((clauses.DIRECTION, place))
      main.place = english_place
    elif draw < 0.75:
      noun = phrases.zipf(rng, NOUNS['sport'] + NOUNS['instrument'])
      main = Clause(
        main_subject,
        morphology.weak('spielen'),
        tuple(('play', f' {w}') for w in noun.english),
        ('past',),
        'preterite',
      )
      main.middle.append((clauses.INDEFINITE, noun.lemma))
      often = rng.choice((('oft', 'often'), ('gern', ''), ('jeden Tag', '')))
      if often[0] == 'jeden Tag':
        main.time = ('jeden Tag', ('every day',))
      elif often[0] == 'oft':
        main.middle.append((clauses.OFTEN, 'oft'))
        main.adverb = (' often',)
      else:
        main.middle.append((clauses.OFTEN, 'gern'))
        main.patterns = tuple(
          ('like', f' {to} {w}') for to in ('to play', 'playing') for w in noun.english
        )
    else:
      noun = phrases.zipf(rng, NOUNS['animal'][:5])
      found = phrases.noun_phrase(noun, 'ein')
      main = Clause(
        main_subject,
        morphology.HABEN,
        (('have', f' {found.english[0]}'),),
        ('past',),
        'preterite',
      )
      main.middle.append((clauses.INDEFINITE, found.german[1]))
    return conjunctions.combine(
      rng, main, 'als', sub, ('when',), 'als', sub_first_chance=0.75
    )
  came = rng.choice(
    (
      ('nach Hause', ('home',)),
      ('ins Zimmer', ('into the room',)),
      ('in die Küche', ('into the kitchen',)),
      ('ins Büro', ('into the office', 'to the office')),
    )
  )
  sub = Clause(
    subject,
    morphology.strong('kommen', 'kommt', 'kam', 'gekommen', auxiliary='sein'),
    (('come', ''),),
    ('past',),
    'preterite',
  )
  sub.middle.append((clauses.DIRECTION, came[0]))
  sub.place = came[1]
  if rng.random() < 0.15:
    main = Clause(
      phrases.Phrase(('es', '', ''), ('it',), (), is_pronoun=True),
      morphology.weak('regnen'),
      (('rain', ''),),
      ('past_progressive',),
      'preterite',
    )
  else:
    doer = conjunctions.speaker(rng)
    if doer.lemma == subject.lemma or (
      doer.lemma in ('er', 'sie') and subject.lemma not in ('ich', 'wir')
    ):
      doer = referents.kin(rng, 'mein')
    if doer.lemma == subject.lemma or {doer.lemma, subject.lemma} == {'ich', 'wir'}:
      return past_time(rng)
    verb = phrases.zipf(
      rng,
      [
        v
        for v in verbs.VERBS
        if v.german.infinitive
        in (
          'lesen',
          'schlafen',
          'essen',
          'kochen',
          'schreiben',
          'arbeiten',
          'fernsehen',
          'telefonieren',
          'putzen',
          'frühstücken',
          'trinken',
          'lernen',
        )
        and v.frame in ('a', '-')
      ],
    )
    main = predicates.verb_clause(
      rng, subject=doer, verb=verb, tense='bare', may_negate=False, placed=False
    )
    main.tense, main.aspects = 'preterite', ('past_progressive',)
    if rng.random() < 0.3:
      main.middle.append((clauses.OFTEN, 'gerade'))
      main.adverb = (' just', '')
  return conjunctions.combine(
    rng, main, 'als', sub, ('when',), 'als', sub_first_chance=0.65
  )


_EVENTS_AFTER = (
  ('ins Bett gehen', 'ins Bett', 'gehen geht ging gegangen', ('go', ' to bed')),
  ('nach Hause gehen', 'nach Hause', 'gehen geht ging gegangen', ('go', ' home')),
  ('zur Arbeit gehen', 'zur Arbeit', 'gehen geht ging gegangen', ('go', ' to work')),
  ('zur Arbeit fahren', 'zur Arbeit', 'fahren fährt fuhr gefahren', ('go', ' to work')),
  ('nach Hause kommen', 'nach Hause', 'kommen kommt kam gekommen', ('come', ' home')),
  (
    'in den Urlaub fahren',
    'in den Urlaub',
    'fahren fährt fuhr gefahren',
    ('go', ' on vacation'),
  ),
)


def before(rng: random.Random) -> Drawn:
  """'Bevor ich ins Bett gehe, lese ich ein Buch.'"""
  subject = conjunctions.nameable_subject(rng)
  other = conjunctions.pronoun_for(subject)
  _, place, parts, pattern = phrases.zipf(rng, _EVENTS_AFTER)
  sub = Clause(other, morphology.strong(*parts.split(), auxiliary='sein'), (pattern,))
  sub.middle.append((clauses.DIRECTION, place))
  main = predicates.verb_clause(
    rng,
    subject=subject,
    tense='present',
    timed=False,
    may_negate=False,
    placed=False,
    actions=True,
    frame=rng.choice(('a', '-', 'a', 'd')),
  )
  if 'Arbeit' not in place and main.german.infinitive in ('frühstücken', 'aufstehen'):
    return before(rng)
  if main.german.infinitive in (
    'schlafen',
    'einkaufen',
    'spielen',
    'umziehen',
    'zurückkommen',
    'ankommen',
  ):
    return before(rng)
  main.aspects = ('simple', 'future')
  if rng.random() < 0.4:
    main.modal, main.aspects = rng.choice(
      (
        (morphology.MODALS['müssen'], ('have_to', 'must')),
        (morphology.MODALS['wollen'], ('want_to',)),
      )
    )
  if subject is not other and rng.random() < 0.4 and not main.bound:
    main.subject, sub.subject = other, subject
    return conjunctions.combine(
      rng, main, 'bevor', sub, ('before',), 'bevor', sub_first_chance=1
    )
  return conjunctions.combine(
    rng,
    main,
    'bevor',
    sub,
    ('before',),
    'bevor',
    sub_first_chance=(0.3 if subject is other else 0.0),
  )


def contrast(rng: random.Random) -> Drawn:
  """'Ich trinke Kaffee, aber meine Schwester trinkt Tee.'"""
  verb = phrases.zipf(
    rng,
    [
      v
      for v in predicates.BY_FRAME['a']
      if v.german.infinitive
      in (
        'trinken',
        'essen',
        'kaufen',
        'lesen',
        'spielen',
        'lernen',
        'sprechen',
        'kochen',
        'bestellen',
        'hören',
        'brauchen',
        'schreiben',
      )
      and 'O' not in v.flags
    ],
  )
  first_subject, second_subject = referents.subject(rng), referents.subject(rng)
  if first_subject.lemma == second_subject.lemma or any(
    {first_subject.lemma, second_subject.lemma} <= same
    for same in ({'ich', 'wir'}, {'du', 'ihr'})
  ):
    return contrast(rng)
  tense = 'perfect' if rng.random() < 0.3 and 'S' not in verb.flags else 'present'
  first, second = (
    predicates.verb_clause(
      rng,
      subject=subject,
      verb=verb,
      tense=tense,
      timed=False,
      placed=False,
      may_negate=False,
    )
    for subject in (first_subject, second_subject)
  )
  if first.middle[-1][1].split()[-1] == second.middle[-1][1].split()[-1] or any(
    rank == clauses.PRONOUN_ACCUSATIVE for c in (first, second) for rank, _ in c.middle
  ):
    return contrast(rng)
  first.aspects = second.aspects = (
    first.aspects[:1] if tense == 'perfect' else first.aspects
  )
  text, heads = rng.choice(((', aber', (', but',)), (' und', (' and', ', and'))))
  german = f'{first.german_statement()}{text} {second.german_statement()}'
  wordings: dict[str, None] = {}
  for one_aspect in first.aspects:
    first.aspects = second.aspects = (one_aspect,)
    left = english.product(conjunctions.plain_slots(first, initial=True))[:6]
    right = english.product(conjunctions.plain_slots(second))[:6]
    for head in heads:
      for a in left:
        for b in right:
          wordings[english.sentence(f'{a}{head} {b}')] = None
  return (
    english.sentence(german),
    tuple(wordings)[: english.MAX_RENDERINGS],
    'coordination',
  )


def preference(rng: random.Random) -> Drawn:
  """'Ich trinke lieber Tee als Kaffee.'"""
  subject = referents.subject(rng)
  noun_class, infinitive, verb = rng.choice(
    (
      ('drink', 'trinken trinkt trank getrunken', 'drink'),
      ('food', 'essen isst aß gegessen', 'eat'),
      ('sport', 'spielen spielt spielte gespielt', 'play'),
    )
  )
  first, second = (phrases.zipf(rng, NOUNS[noun_class]) for _ in range(2))
  if first.lemma == second.lemma:
    return preference(rng)
  a, b = (phrases.noun_phrase(n, '', None, not n.is_mass) for n in (first, second))
  german_verb = morphology.strong(*infinitive.split())
  clause = Clause(subject, german_verb, (), topic='preference')
  clause.middle.append((clauses.MANNER, f'lieber {a.german[1]} als {b.german[1]}'))
  x, y = a.english_object[0], b.english_object[0]
  clause.patterns = (
    ('prefer', f' {x} to {y}'),
    ('prefer', f' {english.verb_form(verb, "ing")} {x} to {y}'),
    ('like', f' {x} better than {y}'),
    ('like', f' {x} more than {y}'),
  )
  rather = Clause(subject, german_verb, ((verb, f' {x} than {y}'),), ('would_rather',))
  initial = subject.initial
  wordings = (
    *clauses.renderings([clause.english_slots(initial=bool(initial))[0]]),
    *clauses.renderings([rather.english_slots(initial=bool(initial))[0]]),
  )
  return english.sentence(clause.german_statement()), wordings, 'preference'

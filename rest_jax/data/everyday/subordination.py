"""Complex sentences: dass, ob, indirect questions, zu, um zu, relative clauses.

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
from rest_jax.data.everyday.english import Wordings
from rest_jax.data.everyday.phrases import PRONOUNS

_THINK = (  # German six persons; English (he, others), may drop 'that'
  (
    'glaube glaubst glaubt glauben glaubt glauben',
    ('thinks', 'believes'),
    ('think', 'believe'),
  ),
  ('weiß weißt weiß wissen wisst wissen', ('knows',), ('know',)),
  ('hoffe hoffst hofft hoffen hofft hoffen', ('hopes',), ('hope',)),
  ('denke denkst denkt denken denkt denken', ('thinks',), ('think',)),
  ('sage sagst sagt sagen sagt sagen', ('says',), ('say',)),
)
_IMPERSONAL = (
  ('es ist schön', ('it is nice', "it's nice", 'it is great')),
  ('es ist schade', ('it is a pity', "it's a pity", 'it is a shame')),
  ('ich bin sicher', ('I am sure', "I'm sure", 'I am certain')),
  ('ich bin froh', ('I am glad', "I'm glad", 'I am happy')),
  ('es ist gut', ('it is good', "it's good")),
  ('es tut mir leid', ('I am sorry', "I'm sorry")),
)


def _inner_subject(rng: random.Random) -> phrases.Phrase:
  draw = rng.random()
  if draw < 0.6:
    return referents.subject(rng)
  return PRONOUNS[rng.choice(('er', 'sie', 'wir', 'du', 'sie_plural', 'ich'))]


def that(rng: random.Random) -> Drawn:
  """'Ich glaube, dass sie morgen nach Hause kommt.'"""
  inner = predicates.verb_clause(
    rng, subject=_inner_subject(rng), placed=rng.random() < 0.4
  )
  draw = rng.random()
  that_: Wordings = ('that', '')
  if draw < 0.6:
    forms, he, they = phrases.zipf(rng, _THINK)
    speaker = conjunctions.speaker(rng)
    if speaker.lemma == inner.subject.lemma:
      speaker = referents.name(rng)
    finite = forms.split()[speaker.person]
    main = f'{speaker.german[0]} {finite}'
    verbs_ = he if speaker.english_person == 2 else they
    slot = tuple(f'{who} {verb}' for who in speaker.english for verb in verbs_)
  else:
    main, slot = rng.choice(_IMPERSONAL)
    if main in ('es ist schade', 'es tut mir leid') and not inner.negated_english:
      main, slot = _IMPERSONAL[rng.choice((2, 3, 4))]
  return (
    english.sentence(f'{main}, dass {inner.german_subordinate()}'),
    clauses.renderings([[slot, that_, *conjunctions.plain_slots(inner)]]),
    'dass',
  )


_ASKING = (
  ('ich weiß nicht', ("I don't know", 'I do not know'), '.'),
  ('weißt du', ('do you know',), '?'),
  ('wissen Sie', ('do you know',), '?'),
  ('er fragt', ('he asks', 'he is asking'), '.'),
  ('sie möchte wissen', ('she would like to know', 'she wants to know'), '.'),
  ('wir wissen nicht', ("we don't know", 'we do not know'), '.'),
  ('kannst du mir sagen', ('can you tell me',), '?'),
)


_WHETHER: Wordings = ('if', 'whether')
_WHEN_WHY: tuple[tuple[str, Wordings], ...] = (('wann', ('when',)), ('warum', ('why',)))


def indirect_question(rng: random.Random) -> Drawn:
  """'Weißt du, wann sie nach Hause kommt?', 'Ich weiß nicht, ob er arbeitet.'"""
  main, slot, mark = phrases.zipf(rng, _ASKING)
  if rng.random() < 0.55:
    inner = predicates.verb_clause(
      rng, subject=_inner_subject(rng), placed=rng.random() < 0.4
    )
    text, heads = 'ob', _WHETHER
  else:
    text, heads = rng.choice(_WHEN_WHY)
    tense = rng.choice(('present', 'perfect', 'modal'))
    inner = predicates.verb_clause(
      rng,
      subject=_inner_subject(rng),
      tense=tense,
      timed=False,
      may_negate=False,
      placed=False,
      actions=True,
    )
    if tense == 'present' and text == 'wann':
      inner.aspects = ('simple', 'progressive', 'future')
    elif tense == 'perfect':
      inner.aspects = ('past',)
  if (
    (main == 'weißt du' and inner.subject.lemma == 'du')
    or (main.startswith('ich') and inner.subject.lemma == 'ich' and text != 'ob')
    or (main.startswith('wissen Sie') and inner.subject.lemma in ('du', 'ihr'))
  ):
    return indirect_question(rng)
  return (
    english.sentence(f'{main}, {text} {inner.german_subordinate()}', mark),
    clauses.renderings([[slot, heads, *conjunctions.plain_slots(inner)]], mark),
    'indirect question',
  )


_TRYING = (  # German finite forms six persons, rest; English he, others, gerund?
  (
    'versuche versuchst versucht versuchen versucht versuchen',
    '',
    ('is trying', 'tries'),
    ('are trying', 'try'),
    ('am trying', 'try'),
  ),
  (
    'habe hast hat haben habt haben',
    'vergessen',
    ('forgot', 'has forgotten'),
    ('forgot', 'have forgotten'),
    ('forgot', 'have forgotten'),
  ),
  (
    'habe hast hat haben habt haben',
    'keine Zeit',
    ("doesn't have time", 'has no time'),
    ("don't have time", 'have no time'),
    ("don't have time", 'have no time'),
  ),
  (
    'hoffe hoffst hofft hoffen hofft hoffen',
    '',
    ('hopes', 'is hoping'),
    ('hope', 'are hoping'),
    ('hope', 'am hoping'),
  ),
  (
    'habe hast hat haben habt haben',
    'versprochen',
    ('promised', 'has promised'),
    ('promised', 'have promised'),
    ('promised', 'have promised'),
  ),
  (
    'plane planst plant planen plant planen',
    '',
    ('is planning', 'plans'),
    ('are planning', 'plan'),
    ('am planning', 'plan'),
  ),
  (
    'habe hast hat haben habt haben',
    'versucht',
    ('tried', 'has tried'),
    ('tried', 'have tried'),
    ('tried', 'have tried'),
  ),
)
_EASY = (
  ('es ist schwer', ('it is hard', "it's hard", 'it is difficult')),
  ('es ist schön', ('it is nice', "it's nice")),
  ('es ist wichtig', ('it is important', "it's important")),
  ('es ist leicht', ('it is easy', "it's easy")),
  ('es macht Spaß', ('it is fun', "it's fun")),
  ('es ist verboten', ('it is forbidden', "it's forbidden", 'it is prohibited')),
)


def zu_infinitive(rng: random.Random) -> Drawn:
  """'Ich habe vergessen, dich anzurufen.', 'Es ist schwer, Deutsch zu lernen.'"""
  if rng.random() < 0.72:
    forms, rest, he, they, i = phrases.zipf(rng, _TRYING)
    subject = referents.subject(rng)
    inner = predicates.verb_clause(
      rng,
      subject=subject,
      tense='bare',
      actions=True,
      may_negate=False,
      placed=rng.random() < 0.4,
    )
    if rest == '' and rng.random() < 0.2:
      inner.time = phrases.zipf(rng, words.FUTURE)
    finite = forms.split()[subject.person]
    main = f'{subject.german[0]} {finite} {rest}'.rstrip()
    verbs_ = (i, they, he, they, they, they)[subject.english_person]
    starts = subject.initial if subject.initial and not inner.bound else subject.english
    slot = tuple(f'{who} {verb}' for verb in verbs_ for who in starts)
  else:
    main, slot = phrases.zipf(rng, _EASY)
    inner = predicates.verb_clause(
      rng,
      subject=phrases.Phrase(
        ('man', 'einen', 'einem'), ('one',), ('one',), owner='', lemma='man'
      ),
      tense='bare',
      actions=True,
      may_negate=False,
      placed=rng.random() < 0.5,
      frame=rng.choice(('a', '-', 'd', 'dir', 'a')),
    )
    if main in ('es ist verboten',) and inner.patterns[0][0] not in (
      'smoke',
      'swim',
      'sing',
      'eat',
      'drink',
      'play',
      'cook',
      'dance',
    ):
      main, slot = _EASY[0]
  return (
    english.sentence(f'{main}, {inner.german_zu()}'),
    clauses.renderings([[slot, *inner.english_infinitive()]]),
    'zu',
  )


_ERRANDS = (  # where to, English, verbs that make sense there
  (
    'in die Stadt',
    ('into town', 'to town', 'to the city'),
    ('kaufen', 'treffen', 'einkaufen'),
  ),
  ('zum Supermarkt', ('to the supermarket',), ('kaufen', 'einkaufen')),
  ('in die Bibliothek', ('to the library',), ('lesen', 'lernen', 'arbeiten')),
  ('in den Park', ('to the park',), ('spielen', 'treffen', 'joggen', 'lesen')),
  ('nach Hause', ('home',), ('kochen', 'schlafen', 'fernsehen', 'lernen', 'essen')),
  ('auf den Markt', ('to the market',), ('kaufen',)),
  ('ins Café', ('to the café',), ('frühstücken', 'treffen', 'trinken')),
)


def purpose(rng: random.Random) -> Drawn:
  """'Sie geht in die Stadt, um Schuhe zu kaufen.'"""
  subject = referents.subject(rng)
  german, wordings, infinitives = phrases.zipf(rng, _ERRANDS)
  infinitive = rng.choice(infinitives)
  pool = [
    v
    for v in verbs.VERBS
    if v.german.infinitive == infinitive
    and v.frame in ('a', '-')
    and (infinitive != 'spielen' or v.object_classes[:1] == ('sport',))
    and (infinitive != 'lernen' or v.frame == '-' or 'Bib' in german)
  ]
  verb = rng.choice(pool)
  if infinitive == 'kaufen':
    verb = pool[0] if german != 'in die Stadt' or rng.random() < 0.4 else pool[1]
  inner = predicates.verb_clause(
    rng, subject=subject, verb=verb, tense='bare', may_negate=False, placed=False
  )
  if infinitive == 'kaufen' and german != 'in die Stadt':
    found = referents.thing(rng, ('food',), subject, generic=True)
    inner.middle = [(clauses.INDEFINITE, found.german[1])]
    inner.patterns = tuple(('buy', f' {o}') for o in found.english_object)
    inner.bound = False
  main = Clause(
    subject,
    morphology.strong('gehen', 'geht', 'ging', 'gegangen', auxiliary='sein'),
    (('go', ''),),
    ('progressive', 'simple'),
  )
  main.middle.append((clauses.DIRECTION, german))
  main.place, main.bound = wordings, inner.bound
  draw = rng.random()
  if draw < 0.4:
    main.tense, main.aspects = 'perfect', ('past',)
    if draw < 0.2:
      main.time = phrases.zipf(rng, words.PAST[:9])
  elif draw < 0.55:
    main.time = phrases.zipf(rng, words.FUTURE[:4])
    main.aspects = ('future', 'progressive', 'going_to')
  front = main.time is not None and rng.random() < 0.5
  text = main.german_statement(front_time=front)
  to = tuple(
    dict.fromkeys(
      f'{start}{head}{tail}'
      for start in ('to ', 'in order to ')
      for head, tail in inner.patterns
    )
  )
  orders = [
    [*slots, to] for slots in main.english_slots(front_time=front, initial=not front)
  ]
  return (
    english.sentence(f'{text}, um {inner.german_zu()}'),
    clauses.renderings(orders),
    'um zu',
  )

"""Weather, positions, likes, belonging, well-being.

Each function draws one sentence and returns (German, English wordings, topic).
"""

import random

from rest_jax.data.everyday import (
  clauses,
  english,
  morphology,
  phrases,
  referents,
  words,
)
from rest_jax.data.everyday.clauses import Clause
from rest_jax.data.everyday.descriptions import (
  Drawn,
  ask,
  described_thing,
  finish,
  state_or_ask,
)
from rest_jax.data.everyday.english import Wordings
from rest_jax.data.everyday.phrases import NOUNS

IT = phrases.Phrase(('es', 'es', 'ihm'), ('it',), ('it',), 2, 2, True)
_WEATHER_VERBS = (('regnen', 'rain'), ('schneien', 'snow'))
_WEATHER_ADJECTIVES = (
  ('kalt', 'cold'),
  ('warm', 'warm'),
  ('heiß', 'hot'),
  ('sonnig', 'sunny'),
  ('windig', 'windy'),
  ('kühl', 'cool'),
  ('dunkel', 'dark'),
  ('neblig', 'foggy'),
)


def weather(rng: random.Random) -> Drawn:
  """'Morgen wird es in Berlin regnen.', 'Gestern war es sehr kalt.'"""
  verbal = rng.random() < 0.45
  tense = rng.choice(('present', 'past', 'future', 'present'))
  if verbal:
    german, wording = _WEATHER_VERBS[rng.random() < 0.35]
    clause = Clause(IT, morphology.weak(german), ((wording, ''),), topic='weather')
    if rng.random() < 0.25 and tense != 'future':
      clause.middle.append((clauses.MANNER, 'stark'))
      clause.patterns = ((wording, ' hard'), (wording, ' heavily'))
    clause.aspects = ('progressive', 'simple')
    if tense == 'past':
      clause.tense, clause.aspects = 'perfect', ('past', 'past_progressive')
  else:
    german, wording = phrases.zipf(rng, _WEATHER_ADJECTIVES)
    degree, english_degree = rng.choice(
      (('', ''), ('', ''), ('sehr ', 'very '), ('zu ', 'too '))
    )
    clause = Clause(
      IT, morphology.SEIN, (('be', f' {english_degree}{wording}'),), topic='weather'
    )
    clause.middle.append((clauses.FIXED, degree + german))
    if tense == 'past':
      clause.tense, clause.aspects = 'preterite', ('past',)
  if tense == 'future':
    clause.time = phrases.zipf(
      rng, words.FUTURE[:3] + words.FUTURE[6:7] + words.FUTURE[-7:]
    )
    clause.aspects = ('future', 'going_to')
    if not verbal and rng.random() < 0.6:
      clause.german = morphology.WERDEN
      clause.patterns += tuple(('get', tail) for _, tail in clause.patterns)
    else:
      clause.tense = 'future'
  elif tense == 'past' and rng.random() < 0.8:
    clause.time = phrases.zipf(rng, words.PAST[:5] + words.PAST[8:9] + words.PAST[-7:])
    if verbal:
      clause.aspects = ('past', 'past_progressive')
  elif tense == 'present' and rng.random() < 0.4:
    clause.time = rng.choice((words.TODAY[0], words.NOW[0], words.TODAY[0]))
  if rng.random() < 0.4:
    place = phrases.zipf(
      rng,
      words.PLACES['study']
      + (('hier', ('here',)), ('in den Bergen', ('in the mountains',))),
    )
    clause.place = place[1]
    clause.middle.append((clauses.PLACE, place[0]))
  if rng.random() < 0.12:
    clause.negated_english = True
    clause.middle.append((clauses.NEGATION, 'nicht'))
    clause.middle = [  # 'in Berlin nicht stark'
      (clauses.OFTEN if rank == clauses.PLACE else rank, text)
      for rank, text in clause.middle
    ]
  if rng.random() < 0.1:
    return ask(clause)
  return finish(clause, front_time=clause.time is not None and rng.random() < 0.6)


_LIKED = ('food', 'drink', 'town', 'media', 'printed', 'clothes', 'animal', 'persons')


def liking(rng: random.Random) -> Drawn:
  """'Ich mag keinen Käse.', 'Dieses Kleid gefällt meiner Mutter.'"""
  draw = rng.random()
  subject = referents.subject(rng)
  if draw < 0.45:
    noun_class = phrases.zipf(rng, _LIKED)
    clause = Clause(subject, morphology.MODALS['mögen'], (), topic='likes')
    negated = rng.random() < 0.25
    if noun_class == 'persons':
      found = referents.persons_object(rng, subject)
    elif noun_class in ('food', 'drink', 'animal'):
      noun = phrases.zipf(rng, NOUNS[noun_class])
      found = phrases.noun_phrase(
        noun, 'kein' if negated else '', None, not noun.is_mass
      )
    else:
      found = described_thing(rng, noun_class)
    kein = found.german[1].startswith('kein')
    wordings = found.english_object[:1] if kein else found.english_object
    clause.patterns = tuple(('like', f' {word}') for word in wordings)
    clause.middle.append(
      (
        clauses.PRONOUN_ACCUSATIVE if found.is_pronoun else clauses.DEFINITE,
        found.german[1],
      )
    )
    clause.bound = True if found.german[1].startswith('ihr') else False
    if negated:
      clause.negated_english = True
      if not kein:
        clause.middle.append((clauses.NEGATION, 'nicht'))
    return state_or_ask(rng, clause)
  verb = morphology.strong('gefallen', 'gefällt', 'gefiel', 'gefallen')
  tastes = draw < 0.65
  if tastes:
    verb = morphology.weak('schmecken')
  person = (
    referents.persons_object(rng, phrases.PRONOUNS['ich'])
    if rng.random() < 0.5
    else (phrases.PRONOUNS[rng.choice(('ich', 'du', 'wir', 'ich', 'er', 'sie'))])
  )
  thing = described_thing(
    rng,
    rng.choice(('dish', 'food', 'baked'))
    if tastes
    else (rng.choice(('clothes', 'media', 'town', 'home', 'printed', 'bag'))),
    determiner=('der' if rng.random() < 0.6 else 'dies'),
  )
  clause = Clause(thing, verb, (), topic='likes', pronouns_first=True)
  clause.middle.append(
    (clauses.PRONOUN_DATIVE if person.is_pronoun else clauses.DATIVE, person.german[2])
  )
  question = rng.random() < 0.25 and person.lemma not in ('ich', 'wir')
  past = rng.random() < 0.35
  if past:
    clause.tense = 'perfect'
  negated = rng.random() < 0.2
  if negated:
    clause.middle.append((clauses.NEGATION, 'nicht'))
  elif not question and rng.random() < 0.4:
    clause.middle.append((clauses.MANNER, 'sehr gut' if tastes else 'sehr'))
  much = any(text.startswith('sehr') for _, text in clause.middle)
  aspects = ('past',) if past else ('simple',)
  objects = thing.english_object
  ends = (' a lot', ' very much') if much else ('',)
  liked = Clause(
    person,
    verb,
    tuple(('like', f' {o}{end}') for o in objects for end in ends),
    aspects,
    negated_english=negated,
  )
  wordings = clauses.renderings(
    [liked.english_slots(question=question)[0]], '?' if question else '.'
  )
  german = clause.german_question() if question else clause.german_statement()
  return english.sentence(german, '?' if question else '.'), wordings, 'likes'


def belonging(rng: random.Random) -> Drawn:
  """'Dieser Schlüssel gehört meinem Bruder.', 'Das ist das Auto meiner Tante.'"""
  noun_class = phrases.zipf(
    rng, ('owned', 'vehicle', 'bag', 'printed', 'clothes', 'home')
  )
  if rng.random() < 0.6:
    thing = described_thing(rng, noun_class, determiner=rng.choice(('der', 'dies')))
    person = referents.persons_object(rng, IT)
    clause = Clause(
      thing,
      morphology.weak('gehören'),
      tuple(
        ('belong', f' to {who}')
        for who in (
          person.english_object[:1] if person.is_pronoun else person.english_object
        )
      ),
      topic='belonging',
    )
    clause.middle.append((clauses.DATIVE, person.german[2]))
    if rng.random() < 0.2:
      clause.negated_english = True
      clause.middle.append((clauses.NEGATION, 'nicht'))
    return state_or_ask(rng, clause)
  noun = phrases.zipf(rng, NOUNS[noun_class])
  thing = phrases.noun_phrase(noun, 'der')
  owner_noun = phrases.zipf(
    rng, [n for n in NOUNS['kin'] if n.lemma not in ('Eltern', 'Großeltern')]
  )
  owner = rng.choice(('mein', 'mein', 'dein', 'unser', 'sein'))
  who = phrases.noun_phrase(owner_noun, owner)
  genitive = (
    morphology.determiner(owner, owner_noun.gender, morphology.GENITIVE)
    + ' '
    + morphology.noun(
      owner_noun.lemma,
      None,
      owner_noun.gender,
      morphology.GENITIVE,
      weak=owner_noun.weak,
    )
  )
  ist = 'sind' if thing.person == 5 else 'ist'
  owned = tuple(
    f"{w}'s {h}"
    for w in who.english
    for h in (noun.english_plural if thing.person == 5 else noun.english)
  )
  if rng.random() < 0.5:
    are: Wordings = (
      ('those are', 'these are')
      if thing.person == 5
      else ('that is', "that's", 'this is')
    )
    return (
      f'Das {ist} {thing.german[0]} {genitive}.',
      clauses.renderings([[are, owned]]),
      'genitive',
    )
  pool = list(phrases.adjectives_for(noun_class, noun))
  if not pool:
    return belonging(rng)
  adjective = phrases.zipf(rng, pool)
  are = ('are',) if thing.person == 5 else ('is',)
  return (
    english.sentence(f'{thing.german[0]} {genitive} {ist} {adjective.german}'),
    clauses.renderings([[owned, are, adjective.english]]),
    'genitive',
  )


_PAINS = (
  ('der Kopf', 'head', 0),
  ('der Rücken', 'back', 0),
  ('der Hals', 'throat', 0),
  ('der Bauch', 'stomach', 0),
  ('das Knie', 'knee', 0),
  ('der Arm', 'arm', 0),
  ('die Hand', 'hand', 0),
  ('die Füße', 'feet', 1),
  ('die Augen', 'eyes', 1),
)
_FEELINGS = (
  ('gut', ('fine', 'well', 'doing well')),
  ('nicht gut', ('not well', 'not doing well')),
  ('besser', ('better', 'doing better', 'feeling better')),
  ('sehr gut', ('very well', 'doing very well')),
  ('schlecht', ('not well', 'doing badly', 'unwell')),
)
_MY = {
  'ich': 'my',
  'du': 'your',
  'er': 'his',
  'sie': 'her',
  'wir': 'our',
  'ihr': 'your',
  'sie_plural': 'their',
  'Sie': 'your',
}


def wellbeing(rng: random.Random) -> Drawn:
  """'Mir tut der Kopf weh.', 'Wie geht es deiner Mutter?'"""
  draw = rng.random()
  if draw < 0.35:
    key = rng.choice(('ich', 'ich', 'er', 'sie', 'du'))
    dative = phrases.PRONOUNS[key].german[2]
    part, wording, plural = phrases.zipf(rng, _PAINS)
    tut = 'tun' if plural else 'tut'
    hurts = ('hurt',) if plural else ('hurts', 'is hurting')
    slots: list[Wordings] = [(f'{_MY[key]} {wording}',), hurts]
    if rng.random() < 0.4:
      time = rng.choice((words.TODAY[0], words.TODAY[0], words.NOW[0]))
      return (
        english.sentence(f'{dative} {tut} {time[0]} {part} weh'),
        clauses.renderings([[*slots, time[1]], [time[1], *slots]]),
        'well-being',
      )
    return (
      english.sentence(f'{dative} {tut} {part} weh'),
      clauses.renderings([slots]),
      'well-being',
    )
  person = referents.persons_object(rng, IT)
  dative = person.german[2]
  be = ('am', 'are', 'is', 'are', 'are', 'are')[person.english_person]
  if draw < 0.65:
    if person.lemma in ('ich', 'wir'):
      return wellbeing(rng)
    return (
      f'Wie geht es {dative}?',
      clauses.renderings(
        [
          [(f'how {be}',), person.english],
          [(f'how {be}',), tuple(f'{w} doing' for w in person.english)],
        ],
        '?',
      ),
      'well-being',
    )
  german, wordings = phrases.zipf(rng, _FEELINGS)
  today = rng.random() < 0.3
  heute = ' heute' if today else ''
  clause = Clause(person, morphology.SEIN, tuple(('be', f' {w}') for w in wordings))
  if person.is_pronoun and rng.random() < 0.7:
    text = f'{dative} geht es{heute} {german}'
    if person.lemma == 'Sie':  # at the start nothing tells ihnen from Ihnen
      clause.subject = phrases.PRONOUNS['sie_plural']
  else:
    text = f'es geht {dative}{heute} {german}'
  slots = clause.english_slots(initial=text.startswith(dative))[0]
  orders = [[*slots, ('today',)], [('today',), *slots]] if today else [slots]
  return english.sentence(text), clauses.renderings(orders), 'well-being'

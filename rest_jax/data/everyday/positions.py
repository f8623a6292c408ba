"""Where things are and where they are put: liegen and legen, dative and accusative.

Each function draws one sentence and returns (German, English wordings, topic).
"""

import dataclasses
import random

from rest_jax.data.everyday import (
  clauses,
  english,
  morphology,
  phrases,
  referents,
)
from rest_jax.data.everyday.clauses import Clause
from rest_jax.data.everyday.descriptions import (
  Drawn,
  ask,
  state_or_ask,
)
from rest_jax.data.everyday.phrases import NOUNS

_LYING = (
  'Buch',
  'Zeitung',
  'Schlüssel',
  'Brief',
  'Handy',
  'Stift',
  'Heft',
  'Tasche',
  'Katze',
  'Geldbeutel',
  'Pass',
  'Foto',
  'Ball',
  'Jacke',
  'Messer',
  'Löffel',
)
_STANDING = (
  'Glas',
  'Tasse',
  'Flasche',
  'Lampe',
  'Koffer',
  'Teller',
  'Stuhl',
  'Computer',
  'Kiste',
  'Korb',
)
_HANGING = ('Bild', 'Spiegel', 'Mantel', 'Uhr', 'Foto', 'Jacke')
_SPOTS = {  # preposition: (English, nouns)
  'auf': (('on',), ('Tisch', 'Stuhl', 'Bett', 'Sofa', 'Teppich', 'Schrank')),
  'unter': (('under',), ('Tisch', 'Bett', 'Stuhl', 'Sofa')),
  'neben': (
    ('next to', 'beside'),
    ('Bett', 'Lampe', 'Computer', 'Tür', 'Sofa', 'Tisch'),
  ),
  'in': (('in',), ('Tasche', 'Koffer', 'Küche', 'Schrank', 'Auto', 'Kiste', 'Garage')),
  'hinter': (('behind',), ('Tür', 'Schrank', 'Sofa', 'Lampe')),
  'vor': (('in front of',), ('Tür', 'Fenster', 'Spiegel', 'Schrank', 'Bett')),
}
_WALLS = {
  'über': (('above', 'over'), ('Sofa', 'Bett', 'Tisch')),
  'in': (('in',), ('Küche', 'Wohnzimmer', 'Schlafzimmer', 'Büro', 'Schrank')),
  'neben': (('next to', 'beside'), ('Fenster', 'Tür', 'Spiegel')),
  'an': (('on',), ('Tür',)),
}
_BY_LEMMA = {noun.lemma: noun for listed in NOUNS.values() for noun in listed}
_PUT = {
  'lie': (('liegen', 'liegt', 'lag', 'gelegen'), 'legen'),
  'stand': (('stehen', 'steht', 'stand', 'gestanden'), 'stellen'),
  'hang': (('hängen', 'hängt', 'hing', 'gehangen'), 'hängen'),
}


def position(rng: random.Random) -> Drawn:
  """'Das Buch liegt auf dem Tisch.', 'Er legt das Buch auf den Tisch.'"""
  kind, lemmas, spots = phrases.zipf(
    rng,
    (('lie', _LYING, _SPOTS), ('stand', _STANDING, _SPOTS), ('hang', _HANGING, _WALLS)),
  )
  noun = _BY_LEMMA[rng.choice(lemmas)]
  if noun.lemma == 'Uhr':  # one that hangs is no watch
    noun = dataclasses.replace(noun, english=('clock',), english_plural=('clocks',))
  preposition = rng.choice(tuple(spots))
  if kind == 'hang' and (noun.lemma in ('Mantel', 'Jacke')) != (preposition in 'an'):
    preposition = 'an' if noun.lemma in ('Mantel', 'Jacke') else 'in'
  heads, places = spots[preposition]
  place = _BY_LEMMA[rng.choice(places)]
  if (
    noun.lemma == place.lemma
    or (place.lemma == 'Tasche' and noun.lemma in ('Katze', 'Jacke'))
    or (place.lemma in ('Lampe', 'Computer') and kind == 'stand')
  ):
    return position(rng)
  if kind == 'stand' and (
    noun.lemma in ('Stuhl', 'Kiste', 'Koffer', 'Korb', 'Computer')
    and (preposition == 'auf' or place.lemma in ('Tasche', 'Koffer'))
  ):
    return position(rng)
  spot = phrases.noun_phrase(place, 'der')
  puts = rng.random() < 0.45
  if puts and noun.lemma == 'Katze':
    return position(rng)
  case = morphology.ACCUSATIVE if puts else morphology.DATIVE
  german_spot = morphology.with_preposition(preposition, spot.german[case])
  english_spot = tuple(f'{head} {word}' for head in heads for word in spot.english)
  parts, causative = _PUT[kind]
  if puts:
    subject = referents.subject(rng)
    found = phrases.noun_phrase(
      noun, rng.choice(('der', 'der', 'dies', subject.owner)), None, rng.random() < 0.15
    )
    verbs_ = ('hang', 'put') if kind == 'hang' else ('put',)
    clause = Clause(
      subject,
      morphology.weak(causative),
      tuple((v, f' {o}') for v in verbs_ for o in found.english_object),
      ('progressive', 'simple'),
      topic='position',
    )
    clause.middle.append((clauses.DEFINITE, found.german[1]))
    clause.bound = found.german[1].startswith('ihr')
    draw = rng.random()
    if draw < 0.4:
      clause.tense, clause.aspects = 'perfect', ('past', 'perfect')
    elif draw < 0.55:
      clause.modal = morphology.MODALS['müssen']
      clause.aspects = ('have_to', 'must')
    where = 'wohin'
  else:
    found = phrases.noun_phrase(
      noun, rng.choice(('der', 'der', 'ein', 'mein', 'dein')), None, rng.random() < 0.15
    )
    clause = Clause(
      found,
      morphology.strong(*parts),
      (('be', ''), (kind, '')),
      ('simple', 'progressive'),
      topic='position',
    )
    if kind == 'hang':
      clause.patterns = (('hang', ''), ('be', ''))
      clause.aspects = ('progressive', 'simple')
    if kind == 'stand':
      clause.patterns = (('be', ''), ('stand', ''))
    if rng.random() < 0.1 and not found.is_indefinite:
      clause.negated_english = True
      clause.middle.append((clauses.NEGATION, 'nicht'))
    where = 'wo'
  if not found.is_indefinite and rng.random() < 0.15 and not clause.negated_english:
    if clause.subject.lemma not in ('ich', 'wir') or not puts:
      return ask(clause, where, ('where',))
  if rng.random() < 0.2 and not puts and clause.patterns and not clause.negated_english:
    german = clause.german_statement(front=german_spot)
    be = 'are' if found.english_person == 5 else 'is'
    orders = [[*clause.english_slots()[0], english_spot]]
    if found.is_indefinite:
      orders = [
        [(f'there {be}',), found.english, english_spot],
        [english_spot, (f'there {be}',), found.english],
      ]
      return english.sentence(german), clauses.renderings(orders), 'position'
    return english.sentence(german), clauses.renderings(orders), 'position'
  clause.middle.append((clauses.DIRECTION, german_spot))
  clause.place = english_spot
  return state_or_ask(rng, clause, 0.1)

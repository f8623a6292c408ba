"""Relative clauses, with the pronoun as subject or as object.

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
  words,
)
from rest_jax.data.everyday.descriptions import Drawn
from rest_jax.data.everyday.phrases import NOUNS

_RELATIVE = {
  'm': ('der', 'den', 'dem'),
  'f': ('die', 'die', 'der'),
  'n': ('das', 'das', 'dem'),
  'p': ('die', 'die', 'denen'),
}
_RELATIVE_VERBS = tuple(
  v
  for v in predicates.BY_FRAME['a']
  if v.german.infinitive
  in (
    'kaufen',
    'lesen',
    'suchen',
    'finden',
    'brauchen',
    'bestellen',
    'reparieren',
    'verkaufen',
    'schreiben',
    'verlieren',
    'mieten',
    'essen',
    'tragen',
    'backen',
  )
)


def relative(rng: random.Random) -> Drawn:
  """'Das ist der Mann, der in Berlin wohnt.', 'Das Buch, das ich lese, ist gut.'"""
  if rng.random() < 0.45:
    noun = phrases.zipf(rng, NOUNS['person'])
    gender = noun.gender
    head = phrases.noun_phrase(noun, 'der')
    who = phrases.Phrase(
      (_RELATIVE[gender][0], '', ''),
      ('who', 'that'),
      (),
      5 if gender == 'p' else 2,
      head.english_person,
      True,
      owner=head.owner,
    )
    inner = predicates.verb_clause(
      rng,
      subject=who,
      may_negate=False,
      tense=rng.choice(('present', 'perfect')),
      timed=rng.random() < 0.6,
    )
    inner.aspects = inner.aspects[:2]
    slots = conjunctions.plain_slots(inner)
    slots = [
      tuple(w for w in slots[0] if "who'" not in w and "that'" not in w),
      *slots[1:],
    ]
    german = inner.german_subordinate()
    if rng.random() < 0.6:
      are = 'sind' if gender == 'p' else 'ist'
      starts = (
        ('those are', 'these are')
        if gender == 'p'
        else ('that is', "that's", 'this is')
      )
      return (
        f'Das {are} {head.german[0]}, {german}.',
        clauses.renderings([[starts, head.english, *slots]]),
        'relative clause',
      )
    knows = conjunctions.speaker(rng)
    parts, wording = rng.choice(
      (('kennen kennt kannte gekannt', 'know'), ('sehen sieht sah gesehen', 'see'))
    )
    forms = morphology.strong(*parts.split())
    know = tuple(
      f'{k} {english.verb_form(wording, "s" if knows.english_person == 2 else "base")}'
      for k in knows.english
    )
    return (
      english.sentence(
        f'{knows.german[0]} {forms.present[knows.person]} {head.german[1]}, {german}'
      ),
      clauses.renderings([[know, head.english, *slots]]),
      'relative clause',
    )
  verb = phrases.zipf(rng, _RELATIVE_VERBS)
  noun_class = phrases.zipf(rng, [c for c in verb.object_classes if c != 'persons'])
  noun = phrases.zipf(rng, NOUNS[noun_class])
  head = phrases.noun_phrase(noun, 'der')
  tense = 'perfect' if 'X' in verb.flags or rng.random() < 0.65 else 'present'
  inner = predicates.verb_clause(
    rng,
    subject=referents.subject(rng),
    verb=verb,
    may_negate=False,
    placed=False,
    tense=tense,
    timed=False,
  )
  inner.middle = []
  if tense == 'perfect' and rng.random() < 0.6:
    inner.time, inner.aspects = phrases.zipf(rng, words.PAST), ('past',)
  inner.patterns = tuple((h, t.replace(' %s', '')) for h, t in verb.english[:2])
  inner.aspects = inner.aspects[:2]
  slots = [('that', 'which', ''), *conjunctions.plain_slots(inner)]
  german = f'{_RELATIVE[noun.gender][1]} {inner.german_subordinate()}'
  if rng.random() < 0.5:
    plural = noun.gender == 'p'
    starts = ('those are', 'these are') if plural else ('that is', "that's", 'this is')
    return (
      f'Das {"sind" if plural else "ist"} {head.german[0]}, {german}.',
      clauses.renderings([[starts, head.english, *slots]]),
      'relative clause',
    )
  pool = [a for a in phrases.adjectives_for(noun_class, noun) if a.german != 'hungrig']
  if not pool:
    return relative(rng)
  adjective = phrases.zipf(rng, pool)
  past = tense == 'perfect' and noun_class in ('food', 'baked', 'dish', 'drink')
  plural_german, plural_english = head.person == 5, head.english_person == 5
  if past:
    ist = 'waren' if plural_german else 'war'
    is_ = 'were' if plural_english else 'was'
  else:
    ist, is_ = ('sind' if plural_german else 'ist'), ('are' if plural_english else 'is')
  ends = tuple(f'{is_} {word}' for word in adjective.english)
  return (
    english.sentence(f'{head.german[0]}, {german}, {ist} {adjective.german}'),
    clauses.renderings([[head.english, *slots, ends]]),
    'relative clause',
  )

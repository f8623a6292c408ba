"""Word order: the same clause as statement, question, subordinate clause, ..."""

import pytest

from rest_jax.data.everyday import clauses, english, morphology, phrases, verbs, words
from rest_jax.data.everyday.clauses import Clause

CALL = next(v for v in verbs.VERBS if v.german.infinitive == 'anrufen')
REST = next(v for v in verbs.VERBS if v.german.infinitive == 'ausruhen')
GO = next(v for v in verbs.VERBS if v.german.infinitive == 'zurückfahren')
TOMORROW = ('morgen', ('tomorrow',))
HE = phrases.PRONOUNS['er']


def call_her(**kwargs):
  clause = Clause(HE, CALL.german, (('call', ' his mother'),), **kwargs)
  clause.middle.append((clauses.DEFINITE, 'seine Mutter'))
  return clause


def test_separable_verb_splits_in_the_main_clause():
  clause = call_her(time=TOMORROW)
  assert clause.german_statement() == 'er ruft morgen seine Mutter an'
  assert clause.german_statement(front_time=True) == 'morgen ruft er seine Mutter an'
  assert clause.german_question() == 'ruft er morgen seine Mutter an'


def test_separable_verb_elsewhere():
  clause = call_her()
  assert clause.german_subordinate() == 'er seine Mutter anruft'
  assert clause.german_zu() == 'seine Mutter anzurufen'
  assert clause.german_infinitive() == 'seine Mutter anrufen'
  assert clause.german_imperative('du') == 'ruf seine Mutter an'
  assert clause.german_imperative('ihr') == 'ruft seine Mutter an'
  assert clause.german_imperative('Sie') == 'rufen Sie seine Mutter an'


@pytest.mark.parametrize(
  ('tense', 'modal', 'main', 'subordinate'),
  [
    ('present', None, 'er ruft seine Mutter an', 'er seine Mutter anruft'),
    ('preterite', None, 'er rief seine Mutter an', 'er seine Mutter anrief'),
    ('perfect', None, 'er hat seine Mutter angerufen', 'er seine Mutter angerufen hat'),
    ('future', None, 'er wird seine Mutter anrufen', 'er seine Mutter anrufen wird'),
    ('present', 'müssen', 'er muss seine Mutter anrufen',
     'er seine Mutter anrufen muss'),
    ('preterite', 'wollen', 'er wollte seine Mutter anrufen',
     'er seine Mutter anrufen wollte'),
  ],
)  # fmt: skip
def test_brackets(tense, modal, main, subordinate):
  clause = call_her(tense=tense, modal=morphology.MODALS[modal] if modal else None)
  assert clause.german_statement() == main
  assert clause.german_subordinate() == subordinate


def test_sein_perfect_and_direction():
  clause = Clause(HE, GO.german, GO.english, ('past',), 'perfect')
  clause.middle += [(clauses.DIRECTION, 'nach Rom'), (clauses.MANNER, 'mit dem Zug')]
  clause.time = ('gestern', ('yesterday',))
  assert (
    clause.german_statement() == 'er ist gestern mit dem Zug nach Rom zurückgefahren'
  )


def test_middle_field_order():
  clause = Clause(HE, CALL.german, (('give', ' it'),), time=TOMORROW)
  clause.middle += [
    (clauses.INDEFINITE, 'ein Buch'), (clauses.NEGATION, 'nicht'),
    (clauses.PRONOUN_DATIVE, 'ihr'), (clauses.PLACE, 'im Park'),
  ]  # fmt: skip
  assert clause.german_statement() == 'er ruft ihr morgen nicht im Park ein Buch an'


def test_reflexive_before_a_noun_behind_a_pronoun():
  man = phrases.noun_phrase(phrases.NOUNS['person'][0], 'der')
  for subject, expected in (
    (man, 'morgen ruht sich der Mann aus'),
    (HE, 'morgen ruht er sich aus'),
    (phrases.PRONOUNS['ich'], 'morgen ruhe ich mich aus'),
  ):
    clause = Clause(subject, REST.german, REST.english, reflexive=True, time=TOMORROW)
    assert clause.german_statement(front_time=True) == expected
  assert clause.german_zu() == 'mich morgen auszuruhen'


@pytest.mark.parametrize(
  ('aspect', 'person', 'negated', 'question', 'texts'),
  [
    ('simple', 2, False, False, ['he reads']),
    ('simple', 2, True, False, ["he doesn't read", 'he does not read']),
    ('simple', 2, False, True, ['does he read']),
    ('progressive', 2, False, False, ['he is reading', "he's reading"]),
    ('progressive', 2, True, True, ["isn't he reading"]),
    ('perfect', 2, False, False, ['he has read', "he's read"]),
    ('past', 2, True, False, ["he didn't read", 'he did not read']),
    ('future', 2, True, False, ["he won't read", 'he will not read']),
    ('can', 2, True, False, ["he can't read", 'he cannot read']),
    ('have_to', 2, False, False, ['he has to read']),
    ('have_to', 2, False, True, ['does he have to read']),
    ('had_to', 2, True, False, ["he didn't have to read", 'he did not have to read']),
    ('going_to', 2, False, False, ['he is going to read', "he's going to read"]),
    ('like_doing', 2, False, False, ['he likes reading']),
    ('wanted_to', 2, False, False, ['he wanted to read']),
  ],
)  # fmt: skip
def test_english_verb_groups(aspect, person, negated, question, texts):
  groups = english.groups(
    aspect, person, negated=negated, question=question, pronoun=True
  )
  assert [english.compose(t, f, 'he', '', 'read', '') for t, f in groups] == texts


def test_english_be_is_its_own_auxiliary():
  def said(aspect, person, subject, **kwargs):
    groups = english.groups(aspect, person, pronoun=True, is_be=True, **kwargs)
    return [english.compose(t, f, subject, '', 'be', ' late') for t, f in groups]

  assert said('simple', 0, 'I') == ['I am late', "I'm late"]
  assert said('simple', 0, 'I', negated=True) == ["I'm not late", 'I am not late']
  assert said('past', 5, 'they', question=True) == ['were they late']
  assert said('future', 2, 'he') == ['he will be late', "he'll be late"]


def test_english_adverb_stands_behind_the_first_auxiliary():
  for aspect, expected in (
    ('simple', 'he often reads'), ('perfect', 'he has often read'),
    ('have_to', 'he often has to read'),
  ):  # fmt: skip
    template, form = english.groups(aspect, 2)[0]
    assert english.compose(template, form, 'he', ' often', 'read', '') == expected


@pytest.mark.parametrize(
  ('verb', 'forms'),
  [
    ('go', 'goes going went gone'), ('study', 'studies studying studied studied'),
    ('plan', 'plans planning planned planned'),
    ('write', 'writes writing wrote written'),
    ('see', 'sees seeing saw seen'), ('play', 'plays playing played played'),
    ('watch', 'watches watching watched watched'), ('have', 'has having had had'),
    ('visit', 'visits visiting visited visited'), ('fix', 'fixes fixing fixed fixed'),
  ],
)  # fmt: skip
def test_english_verb_forms(verb, forms):
  kinds = ('s', 'ing', 'past', 'participle')
  assert [english.verb_form(verb, kind) for kind in kinds] == forms.split()


def test_articles_and_plurals():
  from rest_jax.data.everyday import nouns

  assert english.article('apple') == 'an apple'
  assert english.article('umbrella') == 'an umbrella'
  assert english.article('university') == 'a university'
  assert english.article('hour') == 'an hour'
  assert english.article('ID card') == 'an ID card'
  assert [nouns.english_plural(w) for w in ('key', 'city', 'bus', 'church', 'box')] == [
    'keys', 'cities', 'buses', 'churches', 'boxes'
  ]  # fmt: skip


def test_product_keeps_the_canonical_first_and_the_nearest_of_many():
  slots = [tuple(f'{letter}{i}' for i in range(4)) for letter in 'abcd']
  found = english.product(slots)
  assert found[0] == 'a0 b0 c0 d0'
  assert len(found) == len(set(found)) == english.MAX_RENDERINGS
  for text in ('a3 b0 c0 d0', 'a0 b3 c0 d0', 'a0 b0 c3 d0', 'a0 b0 c0 d3'):
    assert text in found  # 32 in plain product order would hold no a1


def test_words_of_the_lexicon_are_reachable():
  classes = set(phrases.NOUNS)
  for verb in verbs.VERBS:
    known = classes | {'persons', *words.DIRECTIONS}
    assert set(verb.object_classes) <= known, verb.german.infinitive
    assert not verb.places or verb.places in words.PLACES, verb.german.infinitive
  for adjective in words.ADJECTIVES:
    assert adjective.classes & classes, adjective.german

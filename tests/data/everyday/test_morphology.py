"""German paradigms checked by hand against a school grammar."""

import pytest

from rest_jax.data.everyday import morphology, nouns, phrases, verbs, words

GENDERS = 'mfnp'


@pytest.mark.parametrize(
  ('word', 'table'),
  [
    # masculine, feminine, neuter, plural; nominative accusative dative genitive
    ('der', 'der den dem des | die die der der | das das dem des | die die den der'),
    ('kein', 'kein keinen keinem keines | keine keine keiner keiner '
             '| kein kein keinem keines | keine keine keinen keiner'),
    ('dies', 'dieser diesen diesem dieses | diese diese dieser dieser '
             '| dieses dieses diesem dieses | diese diese diesen dieser'),
    ('euer', 'euer euren eurem eures | eure eure eurer eurer '
             '| euer euer eurem eures | eure eure euren eurer'),
    ('unser', 'unser unseren unserem unseres | unsere unsere unserer unserer '
              '| unser unser unserem unseres | unsere unsere unseren unserer'),
  ],
)  # fmt: skip
def test_determiners(word, table):
  for gender, row in zip(GENDERS, table.split('|'), strict=True):
    found = [morphology.determiner(word, gender, case) for case in range(4)]
    assert found == row.split()


@pytest.mark.parametrize(
  ('determiner', 'table'),
  [
    ('der', 'gute guten guten guten | gute gute guten guten '
            '| gute gute guten guten | guten guten guten guten'),
    ('mein', 'guter guten guten guten | gute gute guten guten '
             '| gutes gutes guten guten | guten guten guten guten'),
    ('', 'guter guten gutem guten | gute gute guter guter '
         '| gutes gutes gutem guten | gute gute guten guter'),
  ],
)  # fmt: skip
def test_adjective_endings(determiner, table):
  for gender, row in zip(GENDERS, table.split('|'), strict=True):
    found = [morphology.adjective('gut', determiner, gender, case) for case in range(4)]
    assert found == row.split()


def test_adjective_stems():
  assert morphology.adjective('teuer', 'der', 'm', 0) == 'teure'
  assert morphology.adjective('hoch', 'ein', 'n', 0) == 'hohes'
  assert morphology.adjective('lecker', 'ein', 'm', 0) == 'leckerer'
  assert morphology.adjective('sauber', '', 'f', 2) == 'sauberer'
  # two books: ein has no plural, so the ending is strong
  assert morphology.adjective('neu', 'ein', 'p', 0) == 'neue'


NOUNS = {
  (noun.lemma, noun_class): noun
  for noun_class, listed in nouns.NOUNS.items()
  for noun in listed
}


@pytest.mark.parametrize(
  ('key', 'determiner', 'is_plural', 'german', 'english'),
  [
    (('Mann', 'person'), 'der', False, 'der Mann/den Mann/dem Mann', 'the man'),
    (('Mann', 'person'), 'der', True, 'die Männer/die Männer/den Männern', 'the men'),
    (('Junge', 'person'), 'ein', False, 'ein Junge/einen Jungen/einem Jungen', 'a boy'),
    (('Nachbar', 'kin'), 'mein', False,
     'mein Nachbar/meinen Nachbarn/meinem Nachbarn', 'my neighbor'),
    (('Apfel', 'food'), 'ein', False, 'ein Apfel/einen Apfel/einem Apfel', 'an apple'),
    (('Frau', 'person'), 'dies', False, 'diese Frau/diese Frau/dieser Frau',
     'this woman'),
    (('Auto', 'vehicle'), 'der', True, 'die Autos/die Autos/den Autos', 'the cars'),
    (('Kind', 'person'), 'unser', True, 'unsere Kinder/unsere Kinder/unseren Kindern',
     'our children'),
    (('Brot', 'food'), '', False, 'Brot/Brot/Brot', 'bread'),
  ],
)  # fmt: skip
def test_noun_phrases(key, determiner, is_plural, german, english):
  phrase = phrases.noun_phrase(NOUNS[key], determiner, None, is_plural)
  assert phrase.german == tuple(german.split('/'))
  assert phrase.english[0] == english


def test_noun_phrase_with_adjective_and_number():
  old = next(a for a in words.ADJECTIVES if a.german == 'alt')
  phrase = phrases.noun_phrase(NOUNS['Auto', 'vehicle'], 'ein', old)
  assert phrase.german == ('ein altes Auto', 'ein altes Auto', 'einem alten Auto')
  assert phrase.english == ('an old car',)
  phrase = phrases.noun_phrase(NOUNS['Auto', 'vehicle'], '', old, True, 3)
  assert phrase.german == ('drei alte Autos', 'drei alte Autos', 'drei alten Autos')
  assert phrase.english == ('three old cars',)
  assert phrase.person == 5


def test_genitives():
  def genitive(noun):
    return morphology.noun(
      noun.lemma, noun.plural, noun.gender, morphology.GENITIVE, weak=noun.weak
    )

  assert genitive(NOUNS['Vater', 'kin']) == 'Vaters'
  assert genitive(NOUNS['Freund', 'kin']) == 'Freundes'
  assert genitive(NOUNS['Kollege', 'kin']) == 'Kollegen'
  assert genitive(NOUNS['Mutter', 'kin']) == 'Mutter'


@pytest.mark.parametrize(
  ('preposition', 'phrase', 'joined'),
  [
    ('in', 'dem Park', 'im Park'), ('in', 'das Kino', 'ins Kino'),
    ('zu', 'der Schule', 'zur Schule'), ('zu', 'dem Arzt', 'zum Arzt'),
    ('an', 'dem Text', 'am Text'), ('von', 'dem Urlaub', 'vom Urlaub'),
    ('auf', 'den Bus', 'auf den Bus'), ('in', 'die Stadt', 'in die Stadt'),
    ('mit', 'dem Jungen', 'mit dem Jungen'), ('an', 'mich', 'an mich'),
  ],
)  # fmt: skip
def test_prepositions_contract(preposition, phrase, joined):
  assert morphology.with_preposition(preposition, phrase) == joined


def conjugation(infinitive):
  return next(v.german for v in verbs.VERBS if v.german.infinitive == infinitive)


@pytest.mark.parametrize(
  ('infinitive', 'present', 'participle', 'imperatives'),
  [
    ('kaufen', 'kaufe kaufst kauft kaufen kauft kaufen', 'gekauft', 'kauf kauft'),
    ('lesen', 'lese liest liest lesen lest lesen', 'gelesen', 'lies lest'),
    ('essen', 'esse isst isst essen esst essen', 'gegessen', 'iss esst'),
    ('nehmen', 'nehme nimmst nimmt nehmen nehmt nehmen', 'genommen', 'nimm nehmt'),
    ('fahren', 'fahre fährst fährt fahren fahrt fahren', 'gefahren', 'fahr fahrt'),
    ('arbeiten', 'arbeite arbeitest arbeitet arbeiten arbeitet arbeiten', 'gearbeitet',
     'arbeite arbeitet'),
    ('öffnen', 'öffne öffnest öffnet öffnen öffnet öffnen', 'geöffnet', 'öffne öffnet'),
    ('tanzen', 'tanze tanzt tanzt tanzen tanzt tanzen', 'getanzt', 'tanz tanzt'),
    ('einladen', 'lade lädst lädt laden ladet laden', 'eingeladen', 'lade ladet'),
    ('aufräumen', 'räume räumst räumt räumen räumt räumen', 'aufgeräumt', 'räum räumt'),
    ('verkaufen', 'verkaufe verkaufst verkauft verkaufen verkauft verkaufen',
     'verkauft',
     'verkauf verkauft'),
    ('reparieren', 'repariere reparierst repariert reparieren repariert reparieren',
     'repariert', 'repariere repariert'),
    ('wandern', 'wandere wanderst wandert wandern wandert wandern', 'gewandert',
     'wandere wandert'),
    ('helfen', 'helfe hilfst hilft helfen helft helfen', 'geholfen', 'hilf helft'),
    ('fernsehen', 'sehe siehst sieht sehen seht sehen', 'ferngesehen', 'sieh seht'),
  ],
)  # fmt: skip
def test_verb_paradigms(infinitive, present, participle, imperatives):
  verb = conjugation(infinitive)
  assert verb.present == tuple(present.split())
  assert verb.participle == participle
  assert verb.imperative == tuple(imperatives.split())


def test_zu_infinitives_and_auxiliaries():
  assert conjugation('anrufen').zu_infinitive == 'anzurufen'
  assert conjugation('kaufen').zu_infinitive == 'zu kaufen'
  assert conjugation('zurückfahren').zu_infinitive == 'zurückzufahren'
  assert conjugation('zurückfahren').auxiliary == 'sein'
  assert conjugation('lesen').auxiliary == 'haben'


@pytest.mark.parametrize(
  ('verb', 'forms'),
  [
    (morphology.SEIN, 'war warst war waren wart waren'),
    (morphology.HABEN, 'hatte hattest hatte hatten hattet hatten'),
    (morphology.MODALS['können'], 'konnte konntest konnte konnten konntet konnten'),
    (morphology.strong('gehen', 'geht', 'ging', 'gegangen'),
     'ging gingst ging gingen gingt gingen'),
  ],
)  # fmt: skip
def test_preterites(verb, forms):
  assert verb.preterite == tuple(forms.split())


def test_comparison():
  by_german = {adjective.german: adjective for adjective in words.ADJECTIVES}
  assert by_german['groß'].comparative == 'größer'
  assert by_german['gut'].english_comparative == ('better',)
  assert by_german['teuer'].comparative == 'teurer'
  assert by_german['interessant'].superlative == 'interessantest'
  assert by_german['spannend'].superlative == 'spannendst'
  assert words.compare('big') == ('bigger', 'biggest')
  assert words.compare('heavy') == ('heavier', 'heaviest')
  assert words.compare('expensive') == ('more expensive', 'most expensive')
  assert words.compare('large') == ('larger', 'largest')
  assert words.compare('clean') == ('cleaner', 'cleanest')

"""Every probe by hand: all that it can make of one short sentence."""

import itertools

import numpy as np
import pytest

from rest_jax.rewards import probes

MATERIAL = probes.Material(
  source='Der Hund bellt.',
  reference='The dog barks.',
  correct=('The dog barks.', 'The dog is barking.'),
  others=('A cat sleeps!',),
  samples=('A dog barks.', 'The dog is barking.', 'A dog barks.', 'Dogs.'),
)


def _with(**changed):
  fields = {
    'source': MATERIAL.source,
    'reference': MATERIAL.reference,
    'correct': (changed.get('reference', MATERIAL.reference),),
    'others': MATERIAL.others,
  }
  return probes.Material(**(fields | changed))


def _worse(probe, material, seeds=400):
  """All worse texts that some seed gives; the better one is always the reference."""
  found = set()
  for seed in range(seeds):
    for pair in probe(material, np.random.default_rng(seed)):
      assert pair.better == material.reference != pair.worse
      found.add(pair.worse)
  return found


@pytest.mark.parametrize(
  ('probe', 'expected'),
  [
    (probes.dropped_words, {'dog barks.', 'The barks.', 'The dog.'}),
    (probes.added_sentence, {'The dog barks. A cat sleeps!'}),
    (
      probes.added_words,
      {'The dog barks A.', 'The dog barks cat.', 'The dog barks sleeps.'},
    ),
    (
      probes.replaced_word,
      {f'{w} dog barks.' for w in ('A', 'cat', 'sleeps')}
      | {f'The {w} barks.' for w in ('A', 'cat', 'sleeps')}
      | {f'The dog {w}.' for w in ('A', 'cat', 'sleeps')},
    ),
    (probes.repeated_sentence, {'The dog barks. The dog barks.'}),
    (probes.repeated_phrase, {'The dog The dog barks.', 'The dog barks dog barks.'}),
    (
      probes.repeated_word,
      {'The The dog barks.', 'The dog dog barks.', 'The dog barks barks.'},
    ),
    (
      probes.shuffled_words,
      {
        'The barks dog.',
        'dog The barks.',
        'dog barks The.',
        'barks The dog.',
        'barks dog The.',
      },
    ),
    (probes.unrelated_sentence, {'A cat sleeps!'}),
    (probes.missing_punctuation, {'The dog barks'}),
    (probes.copied_source, {'Der Hund bellt.'}),
    (probes.empty_output, {''}),
    (probes.sampled_candidates, {'A dog barks.', 'Dogs.'}),
  ],
  ids=lambda value: getattr(value, '__name__', ''),
)
def test_a_probe_makes_these_and_no_others(probe, expected):
  assert _worse(probe, MATERIAL) == expected


def test_a_clause_ends_at_a_mark_between_clauses():
  text = 'He came home, at 3:15, saw the dog, and left early.'
  # Not '3.': a mark inside a word; not 'at 3:15' alone: what is cut off is the rest.
  assert _worse(probes.dropped_clause, _with(reference=text)) == {
    'He came home.',
    'He came home, at 3:15.',
    'He came home, at 3:15, saw the dog.',
  }


def test_gibberish_has_the_lengths_and_letters_of_the_reference():
  found = _worse(probes.gibberish, MATERIAL, seeds=50)
  assert len(found) == 50
  for text in found:
    assert text.endswith('.') and [len(w) for w in text[:-1].split(' ')] == [3, 3, 5]
    assert set(text) <= set('thedogbarks .')


def test_punctuation_inside_words_stays():
  material = _with(reference="\"Don't go - it's 3.5 o'clock,\" he said (twice)!")
  assert _worse(probes.missing_punctuation, material) == {
    "Don't go it's 3.5 o'clock he said twice"
  }


def test_a_script_without_spaces_is_cut_into_characters():
  material = _with(
    source='He came home and saw it.',
    reference='他回家，看见了。',
    others=('猫睡觉。',),
  )
  assert _worse(probes.dropped_clause, material) == {'他回家。'}
  assert _worse(probes.added_sentence, material) == {'他回家，看见了。猫睡觉。'}
  assert _worse(probes.added_words, material) == {
    f'他回家，看见了{c}。' for c in '猫睡觉'
  }
  for text in _worse(probes.shuffled_words, material, seeds=20):
    assert text[-1] == '。' and sorted(text) == sorted('他回家，看见了。')


NOT_APPLICABLE = {
  'no clause': (probes.dropped_clause, {}),
  'one word before the mark': (probes.dropped_clause, {'reference': 'Yes, he came.'}),
  'one word after it': (probes.dropped_clause, {'reference': 'Be on time, please!'}),
  'two words': (probes.dropped_words, {'reference': 'Dogs bark.'}),
  'no other to add': (probes.added_sentence, {'others': ()}),
  'none to add words of': (probes.added_words, {'others': ()}),
  'the other is short': (probes.added_words, {'others': ('Cats sleep.',)}),
  'none to replace by': (probes.replaced_word, {'others': ()}),
  'one word to replace': (probes.replaced_word, {'reference': 'Hello!'}),
  'two words to repeat': (probes.repeated_phrase, {'reference': 'Dogs bark.'}),
  'one word': (probes.repeated_word, {'reference': 'Hello!'}),
  'one word to shuffle': (probes.shuffled_words, {'reference': 'Hello!'}),
  'equal words': (probes.shuffled_words, {'reference': 'No no no.'.lower()}),
  'every order is correct': (
    probes.shuffled_words,
    {'reference': 'Anna Bert', 'correct': ('Anna Bert', 'Bert Anna')},
  ),
  'no other': (probes.unrelated_sentence, {'others': ()}),
  'the other is correct here': (
    probes.unrelated_sentence,
    {'correct': ('The dog barks.', 'A  cat sleeps!')},
  ),
  'one letter': (probes.gibberish, {'reference': 'Aa a!'}),
  'no punctuation': (probes.missing_punctuation, {'reference': "It isn't"}),
  'the source is correct': (probes.copied_source, {'source': 'The dog barks.'}),
  'no samples': (probes.sampled_candidates, {}),
  'a perfect policy': (probes.sampled_candidates, {'samples': ('The dog  barks.',)}),
}


@pytest.mark.parametrize('case', NOT_APPLICABLE)
def test_it_does_not_apply(case):
  probe, changed = NOT_APPLICABLE[case]
  assert _worse(probe, _with(**changed), seeds=30) == set()


@pytest.mark.parametrize('probe', probes.ALL, ids=lambda probe: probe.__name__)
def test_any_text_can_be_probed(probe):
  for text in ('a', '...', '!', ' a  b ', 'No.\nYes', '他', 'x' * 500):
    for pair in probe(_with(reference=text), np.random.default_rng(0)):
      assert ' '.join(pair.worse.split()) != ' '.join(text.split())


def test_random_numbers_are_of_the_names_alone():
  def draws(*names):
    return probes.source_rng(*names).integers(2**40, size=4).tolist()

  assert draws(0, 'shuffled_words', 'test/7') == draws(0, 'shuffled_words', 'test/7')
  names = itertools.product((0, 1), ('shuffled_words', 'gibberish'), ('a', 'b'))
  assert len({tuple(draws(*name)) for name in names}) == 8

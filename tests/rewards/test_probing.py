"""Scorers with a planted flaw are caught by the probe for it; an oracle passes."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from rest_jax.data import group_store, vocabularies
from rest_jax.rewards import probes, probing, text

BYTES = vocabularies.ByteVocabulary()
SENTENCES = (
  ('Der Hund bellt laut, und die Katze schläft.', 'The dog barks, the cat sleeps.'),
  ('Gestern kam sie spät nach Hause.', 'Yesterday she came home late.'),
  ('Das Kind liest ein Buch über Schiffe.', 'The child reads a book about ships.'),
  ('Wir essen heute keinen Fisch.', 'We are not eating fish today.'),
  ('Morgen fahren alle an den See.', 'Tomorrow everyone goes to the lake.'),
)
SAMPLES = ('A dog barks.', 'She came home.')


def _group(place, source, target, **changed):
  pair = group_store.pair(
    f'test/{place}', source, BYTES.encode(source), target, BYTES.encode(target or '')
  )
  return dataclasses.replace(pair, **changed)


GROUPS = [_group(place, *pair) for place, pair in enumerate(SENTENCES)]


def _ask(scorer, groups=GROUPS, **changed):
  options = {
    'samples': {group.source_id: SAMPLES for group in groups},
    'probes': probes.ALL,
    'vocabulary': BYTES,
    'target_length': 200,
    'seed': 0,
  }
  return probing.ask(scorer, groups, **(options | changed))


def _shares(scorer):
  summary = probing.summarise(_ask(scorer), num_worst=2)
  assert {row['name'] for row in summary['rows']} == {p.__name__ for p in probes.ALL}
  return {row['name']: row['share'] for row in summary['rows']}, summary


def length(source, candidate, reference):
  """Likes length."""
  del source, reference
  return len(candidate)


def copying(source, candidate, reference):
  """Likes words of the source, and is else an oracle."""
  copied = sum(word in source.split() for word in candidate.split())
  return copied - 1 + (candidate == reference)


def bag_of_words(source, candidate, reference):
  """Likes the reference's words, each once, in any order."""
  del source
  mine, theirs = (sorted(side.split()) for side in (candidate, reference))
  return float(set(mine) == set(theirs) and len(mine) == len(theirs))


def constant(source, candidate, reference):
  """Likes all texts alike."""
  del source, candidate, reference
  return 1.0


def test_the_oracle_passes_every_probe():
  shares, summary = _shares(text.ChrfReward())
  assert shares == dict.fromkeys(shares, 1.0) and summary['overall'] == 1.0
  assert all(row['gap'] > 0 and row['ties'] == 0 for row in summary['rows'])


def test_a_love_of_length_is_caught():
  shares, _ = _shares(text.PerCandidate(length))
  longer = ('added_sentence', 'added_words', 'repeated_word', 'repeated_phrase')
  assert {shares[name] for name in (*longer, 'repeated_sentence')} == {0.0}
  assert shares['shuffled_words'] == shares['gibberish'] == 0.5  # of equal length
  shorter = ('dropped_words', 'dropped_clause', 'empty_output', 'missing_punctuation')
  assert {shares[name] for name in shorter} == {1.0}


def test_a_love_of_copying_is_caught_by_that_probe_alone():
  shares, _ = _shares(text.PerCandidate(copying))
  assert [name for name, share in shares.items() if share < 1] == ['copied_source']
  assert shares['copied_source'] == 0


def test_blindness_to_order_is_caught_by_that_probe_alone():
  # Words carry their marks, so that a moved one may show; those left are ties.
  shares, summary = _shares(text.PerCandidate(bag_of_words))
  assert 0.5 <= shares['shuffled_words'] < 1
  assert [name for name, share in shares.items() if share < 1] == ['shuffled_words']
  (row,) = (r for r in summary['rows'] if r['name'] == 'shuffled_words')
  assert row['ties'] == pytest.approx(2 * (1 - row['share']))


def test_a_constant_is_a_coin():
  shares, summary = _shares(text.PerCandidate(constant))
  assert shares == dict.fromkeys(shares, 0.5) and summary['overall'] == 0.5
  assert all(row['ties'] == 1 and row['gap'] == 0 for row in summary['rows'])


def test_pairs_come_of_identity():
  scorer = text.PerCandidate(length)
  one = sorted(map(str, _ask(scorer).judged))
  assert one == sorted(map(str, _ask(scorer, GROUPS[::-1]).judged))
  assert one != sorted(map(str, _ask(scorer, seed=1).judged))
  # A probe's pairs do not hang on the other probes.
  alone = _ask(scorer, probes=(probes.shuffled_words,)).judged
  assert {str(pair) for pair in alone} <= set(one) and len(alone) == len(GROUPS)


def test_a_source_is_one_group_that_holds_each_text_once():
  seen = []

  def scorer(groups):
    seen.extend(groups)
    return [np.zeros(len(group.texts), np.float32) for group in groups]

  _ask(scorer)
  assert [group.source_id for group in seen] == [g.source_id for g in GROUPS]
  for group in seen:
    assert len(set(group.texts)) == len(group.texts) == group.num_candidates
    drawn = [t for t, o in zip(group.texts, group.origins, strict=True) if o == 'model']
    assert set(drawn) == set(SAMPLES)
    for one, tokens in zip(group.texts, group.tokens, strict=True):
      np.testing.assert_array_equal(tokens, BYTES.encode(one))


def test_what_the_model_cannot_read_is_left_out_and_counted():
  longest = max(len(BYTES.encode(group.reference)) for group in GROUPS)
  answers = _ask(text.ChrfReward(), target_length=longest)
  assert answers.left_out['repeated_sentence'] == len(GROUPS)
  assert answers.left_out['dropped_words'] == 0
  assert answers.not_applicable['dropped_clause'] == 4
  row = probing.summarise(answers, num_worst=1)['rows'][
    [p.__name__ for p in probes.ALL].index('repeated_sentence')
  ]
  assert (row['pairs'], row['share'], row['interval'], row['gap']) == (0, *[None] * 3)

  class Deaf(vocabularies.ByteVocabulary):
    """Writes no punctuation."""

    def encode_batch(self, texts):
      return super().encode_batch([one.replace('.', '') for one in texts])

  deaf = _ask(
    text.ChrfReward(), vocabulary=Deaf(), probes=(probes.missing_punctuation,)
  )
  # The first has a comma as well.
  assert deaf.left_out == {'missing_punctuation': 4} and len(deaf.judged) == 1


def test_a_wrong_reference_gives_way_to_a_known_rendering():
  right = ('The dog is barking.', 'A dog barks.')
  group = _group(0, 'Der Hund bellt.', 'The dogs barks.', renderings=right)
  answers = _ask(text.ChrfReward(), [group], probes=(probes.sampled_candidates,))
  # Of the samples 'A dog barks.' is correct.
  assert [(p.better, p.worse) for p in answers.judged] == [
    ('The dog is barking.', 'She came home.')
  ]
  assert answers.judged[0].reward_better == 1


def test_without_references_there_is_nothing_to_probe():
  group = dataclasses.replace(GROUPS[0], reference=None)
  with pytest.raises(ValueError, match='no source has a reference'):
    _ask(text.ChrfReward(), [group])


def _judged(source_id, better, worse):
  return probing.Judged('one', source_id, '', 'b', 'w', better, worse)


def test_a_row_by_hand():
  # Source a: right, wrong, right, a tie -> 5/8; source b: right -> 1. Mean 13/16.
  judged = [
    *(
      _judged('a', better, worse) for better, worse in ((2, 1), (1, 3), (5, 1), (2, 2))
    ),
    _judged('b', 4, 1),
  ]
  answers = probing.Answers(judged, {'one': 3, 'none': 5}, {'one': 2, 'none': 0})
  summary = probing.summarise(answers, num_worst=2)
  one, none = summary['rows']
  assert (one['pairs'], one['sources'], one['ties']) == (5, 2, 0.2)
  assert one['share'] == summary['overall'] == 13 / 16
  assert one['gap'] == (3 / 4 + 3) / 2
  assert (one['not_applicable'], one['left_out']) == (3, 2)
  assert one['interval'] == list(probing.share_interval(13 / 16, 2))
  # The lowest gap of each source.
  assert one['worst'] == [judged[1].to_dict(), judged[4].to_dict()]
  assert (none['pairs'], none['share'], none['worst']) == (0, None, [])


@pytest.mark.parametrize(('right', 'sources'), [(0, 5), (3, 10), (199, 200), (7, 7)])
def test_the_interval_is_wilsons(right, sources):
  expected = scipy.stats.binomtest(right, sources).proportion_ci(method='wilson')
  low, high = probing.share_interval(right / sources, sources)
  assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-6)
  assert 0 <= low <= right / sources <= high <= 1


def test_a_minimum_is_checked_before_any_work():
  probing.check_minimum({'copied_source': 0.9, 'overall': 1}, probes.ALL)
  with pytest.raises(ValueError, match=r"'copied'.*known: dropped_clause, .*overall"):
    probing.check_minimum({'copied': 0.9}, probes.ALL)
  with pytest.raises(ValueError, match=r'copied_source is 90: .*\[0, 1\]'):
    probing.check_minimum({'copied_source': 90}, probes.ALL)


def test_what_falls_short_is_named():
  rows = [
    {'name': 'copied_source', 'share': 0.71, 'pairs': 1255},
    {'name': 'gibberish', 'share': 0.9, 'pairs': 3},
    {'name': 'dropped_clause', 'share': None, 'pairs': 0},
  ]
  summary = {'overall': 0.805, 'rows': rows}
  assert probing.failures(summary, {'gibberish': 0.9, 'overall': 0.805}) == []
  assert probing.failures(summary, {}) == []
  minimum = {'copied_source': 0.9, 'dropped_clause': 0.1, 'overall': 0.81}
  assert probing.failures(summary, minimum) == [
    'copied_source: 71.0% of 1,255 pairs, and at least 90.0% is asked for',
    'dropped_clause has no pair, and at least 10.0% is asked for',
    'overall: 80.5% of 3 probes, and at least 81.0% is asked for',
  ]

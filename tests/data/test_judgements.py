"""Readers of human judgements: three formats, and what is wrong with a file."""

import gzip
import json
import re

import numpy as np
import pytest

from rest_jax.data import corpora, judgements, multidimensional_quality

NONE = np.nan
HEADER = 'source\tcandidate\trating'
Judgement = judgements.Judgement
READ = judgements.Ratings()
MQM = multidimensional_quality.MqmErrors()


def write(path, lines):
  text = ''.join(line + '\n' for line in lines)
  if path.suffix == '.gz':
    path.write_bytes(gzip.compress(text.encode()))
  else:
    path.write_text(text)
  return path


def refused(reader, path, message):
  """Reads what is wrong: the error names the whole path, and then says `message`."""
  told = f'^{re.escape(str(path))}(, | )({message})'
  with pytest.raises(ValueError, match=told):
    reader(path)


def found(tmp_path, reader, lines):
  """(candidate, rater, rating) of what a reader finds."""
  return [
    (one.candidate, one.rater, pytest.approx(one.rating))
    for one in reader(write(tmp_path / 'file', lines))
  ]


def test_ratings(tmp_path):
  rows = [('a "quoted', 'b', '1.5'), ('a', '', '-2')]
  table = ['extra\tsource\trating\tcandidate']
  table += [f'\t{source}\t{rating}\t{text}' for source, text, rating in rows]
  expected = [Judgement(s, c, float(r)) for s, c, r in rows]
  for name in ('r.tsv', 'r.tsv.gz'):
    assert READ(write(tmp_path / name, [*table, ''])) == expected
  objects = [
    json.dumps({'source': s, 'candidate': c, 'rating': float(r)}) for s, c, r in rows
  ]
  assert READ(write(tmp_path / 'r.jsonl.gz', objects)) == expected
  renamed = write(tmp_path / 'm.tsv', ['src\tcandidate\tmean', 'a\tb\t3'])
  reader = judgements.Ratings(source_column='src', rating_column='mean')
  assert reader(renamed) == [Judgement('a', 'b', 3.0)]


def test_raters_by_row_by_list_and_by_column(tmp_path):
  rows = [HEADER + '\twho\tref', 'x\ta\t70\tann\tr', 'x\ta\t50\tbob\t']
  reader = judgements.Ratings(rater_column='who', reference_column='ref')
  assert reader(write(tmp_path / 'rows', rows)) == [
    Judgement('x', 'a', 70, 'ann', 'r'),
    Judgement('x', 'a', 50, 'bob'),
  ]
  lists = [HEADER, 'x\ta\t[70, 50.5]', 'x\tb\t[8]']
  assert found(tmp_path, READ, lists) == [
    ('a', '0', 70),
    ('a', '1', 50.5),
    ('b', '0', 8),
  ]
  named = [HEADER + '\twho', 'x\ta\t[70, 50]\t["ann", "bob"]']
  by_name = judgements.Ratings(rater_column='who')
  assert found(tmp_path, by_name, named) == [('a', 'ann', 70), ('a', 'bob', 50)]
  columns = ['source\tcandidate\tann\tbob', 'x\ta\t70\t', 'x\tb\t1\t2']
  by_column = judgements.Ratings(rating_column=('ann', 'bob'))
  assert found(tmp_path, by_column, columns) == [
    ('a', 'ann', 70),
    ('b', 'ann', 1),
    ('b', 'bob', 2),
  ]


def test_raters_are_normalised_each_by_its_own_ratings(tmp_path):
  # ann: mean 20, standard deviation 10; bob gives 7 whatever he reads.
  lines = [HEADER + '\twho', 'x\ta\t10\tann', 'x\tb\t30\tann', 'x\ta\t7\tbob']
  lines += ['y\ta\t7\tbob']
  reader = judgements.Ratings(rater_column='who', normalise_raters=True)
  assert found(tmp_path, reader, lines) == [
    ('a', 'ann', -1),
    ('b', 'ann', 1),
    ('a', 'bob', 0),
    ('a', 'bob', 0),
  ]
  reader = judgements.Ratings(normalise_raters=True)
  path = write(tmp_path / 'r', [HEADER, 'x\ta\t1'])
  refused(reader, path, 'line 2: nothing says who rated')


def test_preferences(tmp_path):
  lines = [
    '{"source": "x", "chosen": "a", "rejected": "b", "reference": "r"}',
    '{"source": "x", "chosen": "c", "rejected": "a", "reference": "r", "rater": "ann"}',
    '{"source": "x", "chosen": "c", "rejected": "a", "source_id": "7"}',
  ]
  read = judgements.Preferences()(write(tmp_path / 'p.jsonl', lines))
  assert read[:2] == [
    Judgement('x', 'a', 1, 'comparison 1', 'r'),
    Judgement('x', 'b', 0, 'comparison 1', 'r'),
  ]
  assert read[4].source_id == '7'
  with_reference, without = judgements.group(read)
  assert with_reference.candidates == ('a', 'b', 'c')
  assert with_reference.ratings.tolist() == [0.5, 0, 1]  # how often each won
  np.testing.assert_array_equal(with_reference.by_rater, [[1, 0], [0, NONE], [NONE, 1]])
  assert without.reference is None and without.candidates == ('c', 'a')


def test_groups_hold_means_over_judgements_and_by_rater():
  (group,) = judgements.group(
    [
      Judgement('x', 'a', 1, 'ann'),
      Judgement('x', 'b', 5, 'bob'),
      Judgement('x', 'a', 3, 'ann'),
      Judgement('x', 'a', 8, None),
    ]
  )
  assert group.candidates == ('a', 'b') and group.ratings.tolist() == [4, 5]
  np.testing.assert_array_equal(group.by_rater, [[2, NONE], [NONE, 5]])


def mqm(system, rater, target, category, severity, source='Q', segment='1'):
  cells = (system, 'd', '0', segment, rater, source, target, category, severity)
  return '\t'.join(cells)


MQM_HEADER = '\t'.join(multidimensional_quality.COLUMNS)


def test_mqm_sums_a_rater_s_errors_with_the_standard_weights(tmp_path):
  lines = [
    MQM_HEADER,
    mqm('A', 'r1', 'the <v>cat</v>', 'Accuracy/Mistranslation', 'Major'),
    mqm('A', 'r1', 'the cat<v></v>', 'Fluency/Punctuation', 'Minor'),
    mqm('A', 'r2', 'the cat', 'No-error', 'No-error', source='<v>Q</v>'),
    mqm('B', 'r1', 'a cat', 'Style/Awkward', 'minor'),
    mqm('B', 'r1', 'a cat', 'Fluency/Punctuation', 'Major'),
    mqm('B', 'r2', 'a cat', 'Non-translation!', 'Major'),
    mqm('B', 'r2', 'a cat', 'Style/Awkward', 'Neutral'),
  ]
  assert found(tmp_path, MQM, lines) == [
    ('the cat', 'r1', -5.1),
    ('the cat', 'r2', 0),
    ('a cat', 'r1', -6),
    ('a cat', 'r2', -25),
  ]
  (group,) = judgements.group(MQM(write(tmp_path / 'm', lines)))
  np.testing.assert_allclose(group.ratings, [-2.55, -15.5], rtol=1e-6)
  np.testing.assert_allclose(group.by_rater, [[-5.1, 0], [-6, -25]], rtol=1e-6)


@pytest.mark.parametrize(
  ('lines', 'message'),
  [
    (['source\tcandidate\tscore', 'a\tb\t1'], r"line 1: no column 'rating'.*'score'"),
    ([HEADER, 'a\tb\t1', 'a\tb\tx'], r"line 3: rating 'x' is not"),
    ([HEADER, 'a\tb\tnan'], r"line 2: rating 'nan' is not"),
    ([HEADER, 'a\tb\t[1, "x"]'], r"line 2: rating 'x' is not"),
    ([HEADER, 'a\tb\t[1, '], r"line 2: rating '\[1, ' is not"),
    ([HEADER, 'a\tb\tc\t1'], r'line 2: 4 tab-separated .* has 3'),
    (['{"source": "a", "candidate": "b", "rating": 1}', '{'], 'line 2: not JSON'),
    (['{"source": "a", "candidate": "b", "rating": true}'], 'line 1: rating True is'),
    (
      ['{"source": "a", "candidate": null, "rating": 1}'],
      'line 1: candidate None must',
    ),
    (['{"source": "a", "candidate": "b", "rating": 1}', '3'], 'line 2: a JSON object'),
    (['{"source": "a", "rating": 1}'], "line 1: no column 'candidate'"),
    ([HEADER], 'holds no rating'),
    ([], 'holds no rating'),
  ],
)
def test_bad_ratings(tmp_path, lines, message):
  refused(READ, write(tmp_path / 'r.tsv', lines), message)


@pytest.mark.parametrize(
  ('settings', 'row', 'message'),
  [
    ({'rating_range': (0, 100)}, 'x\ta\t101\tann\t1', r'line 2: .*outside .* 0 to 100'),
    ({'rating_range': (0, 100)}, 'x\ta\t[5, -1]\tann\t1', r'line 2: .* -1 is outside'),
    ({'rater_column': 'who'}, 'x\ta\t[1, 2]\tann\t1', r"line 2: 2 ratings .* 'ann'"),
    ({'rater_column': 'name'}, 'x\ta\t1\tann\t1', r"line 1: no column 'name'"),
    (
      {'id_column': 'id'},
      'x\ta\t1\tann\t9',
      r'line 3: .* judged before, in .*r\.tsv, line 2',
    ),
    (
      {'id_column': 'id', 'rater_column': 'who'},
      'x\ta\t1\tann\t9',
      r'line 3: .* judged before, in .*r\.tsv, line 2',
    ),
  ],
)
def test_bad_rows_by_what_is_declared(tmp_path, settings, row, message):
  lines = [f'{HEADER}\twho\tid', row, 'x\tb\t2\tann\t9']
  refused(judgements.Ratings(**settings), write(tmp_path / 'r.tsv', lines), message)


def test_an_id_may_come_back_with_another_rater(tmp_path):
  lines = [f'{HEADER}\twho\tid', 'x\ta\t1\tann\t9', 'x\ta\t2\tbob\t9']
  reader = judgements.Ratings(rater_column='who', id_column='id')
  assert found(tmp_path, reader, lines) == [('a', 'ann', 1), ('a', 'bob', 2)]


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'rating_range': (1, 0)}, 'must be .lowest, highest'),
    ({'rating_column': ('a', 'b'), 'rater_column': 'c'}, 'leave rater_column out'),
  ],
)
def test_bad_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    judgements.Ratings(**settings)


@pytest.mark.parametrize(
  ('lines', 'message'),
  [
    (['{"source": "x", "chosen": "a"}'], "line 1: no column 'rejected'"),
    (['{"source": "x", "chosen": "a", "rejected": "a"}'], "line 1: .* both 'a'"),
    (['{"source": "x", "chosen": 1, "rejected": "a"}'], 'line 1: chosen 1 must be a'),
    (
      [
        '{"source": "x", "chosen": "a", "rejected": "b", "rater": "ann"}',
        '{"source": "x", "chosen": "b", "rejected": "a", "rater": "ann"}',
      ],
      r'line 2: this was judged before, in .*p\.jsonl, line 1',
    ),
    ([], 'holds no preference'),
  ],
)
def test_bad_preferences(tmp_path, lines, message):
  refused(judgements.Preferences(), write(tmp_path / 'p.jsonl', lines), message)


@pytest.mark.parametrize(
  ('lines', 'message'),
  [
    ([MQM_HEADER.replace('severity', 'weight')], "line 1: no column 'severity'"),
    (
      [MQM_HEADER, mqm('A', 'r', 't', 'Style', 'Serious')],
      "line 2: severity 'serious' is unknown; known: .*'major'",
    ),
    (
      [MQM_HEADER, mqm('A', 'r', 't', 'c', 'Major'), mqm('A', 'r', 'u', 'c', 'Minor')],
      r'line 3: .* those of .*m\.tsv, line 2, but the texts differ',
    ),
    ([MQM_HEADER], 'holds no judgement'),
  ],
)
def test_bad_mqm(tmp_path, lines, message):
  refused(MQM, write(tmp_path / 'm.tsv', lines), message)


def test_identities_tell_readers_apart_and_keep_that_of_plain_ratings():
  # What artifacts that were made before have in their stage.json.
  assert READ.identity() == {'columns': ['source', 'candidate', 'rating']}
  readers = [
    READ,
    judgements.Ratings(normalise_raters=True),
    judgements.Ratings(rating_range=(0, 1)),
    judgements.Preferences(),
    MQM,
    multidimensional_quality.MqmErrors(max),
  ]
  assert len({json.dumps(reader.identity()) for reader in readers}) == len(readers)


def test_the_best_rated_candidates_are_a_corpus(tmp_path):
  lines = [HEADER, 'x\ta\t1', 'x\tb\t3', 'y\tc\t0', 'x\ta\t4']
  train = str(write(tmp_path / 'r.tsv', lines))
  corpus = corpora.BestRated(train, validation=train)
  assert corpus.splits == ('train', 'validation')
  assert list(corpus('train')) == [corpora.Pair('x', 'b'), corpora.Pair('y', 'c')]
  assert corpus.identity()['reader'] == READ.identity()
  json.dumps(corpus.identity())
  assert len(list(corpora.BestRated(train, max_pairs=1)('train'))) == 1

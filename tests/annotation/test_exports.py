"""Ratings as files, which read_ratings reads back."""

import json

import pytest

from rest_jax.annotation import database, exports, items
from rest_jax.data import judgements
from tests.annotation import study

READER = judgements.Ratings(rater_column='rater', source_id_column='source_id')


@pytest.fixture(scope='module')
def rated(tmp_path_factory):
  kept = study.create(tmp_path_factory.mktemp('study'))
  drawn = kept.items()
  for place, source in enumerate(drawn.sources):
    for candidate in source.candidates:
      for rater, rating in (('anna', place), ('ben', 6)):
        identifier = f'{rater} {candidate.candidate_id}'
        kept.rate(
          identifier, rater=rater, candidate_id=candidate.candidate_id, rating=rating
        )
  return drawn, kept.ratings()


@pytest.mark.parametrize('kind', ['tsv', 'jsonl'])
def test_read_ratings_reads_what_is_written(tmp_path, rated, kind):
  path = tmp_path / f'ratings.{kind}'
  getattr(exports, f'write_{kind}')(path, *rated)
  drawn, ratings = rated
  by_id = {
    c.candidate_id: (s.source, c.text) for s in drawn.sources for c in s.candidates
  }
  expected = [(*by_id[r.candidate_id], float(r.rating), r.rater) for r in ratings]
  read = READER(path)
  assert [(r.source, r.candidate, r.rating, r.rater) for r in read] == expected
  assert {r.source_id for r in read} == {s.source_id for s in drawn.sources}
  assert len(expected) == 2 * (2 * study.NUM_SOURCES - 1)


def test_rows_name_rater_and_systems(tmp_path, rated):
  exports.write_jsonl(tmp_path / 'ratings.jsonl', *rated)
  text = (tmp_path / 'ratings.jsonl').read_text(encoding='utf-8')
  rows = [json.loads(line) for line in text.split('\n')[:-1]]
  assert tuple(rows[0]) == exports.COLUMNS
  same = [row for row in rows if row['candidate'] == 'the same']
  assert [row['rater'] for row in same] == ['anna', 'ben']
  assert same[0]['systems'] == ['evaluate_bc', 'evaluate_improve_1_1']


def test_tabs_and_newlines_become_spaces_in_tsv_alone(tmp_path):
  texts = ('a\tb\nc\rd', 'plain', 'line\u2028separator')
  candidates = tuple(items.Candidate(str(i), t) for i, t in enumerate(texts))
  drawn = items.Items((items.Source('s', 'x\ty', None, True, candidates),), ())
  drawn = items.Items(
    drawn.sources,
    tuple(items.Output('bc', 's', i, str(i), None) for i in range(len(texts))),
  )
  ratings = [database.Rating('anna', str(i), i, 'now') for i in range(len(texts))]
  assert exports.write_tsv(tmp_path / 'r.tsv', drawn, ratings) == 3  # the source's tab
  exports.write_jsonl(tmp_path / 'r.jsonl', drawn, ratings)
  tsv, jsonl = (READER(tmp_path / f'r.{k}') for k in ('tsv', 'jsonl'))
  assert [r.candidate for r in tsv] == ['a b c d', 'plain', texts[2]]
  assert [r.candidate for r in jsonl] == list(texts)
  assert {r.source for r in jsonl} == {'x\ty'}

"""Read ratings: files of judgements, of texts of their own or of a run's samples."""

import dataclasses
import json
import re

import numpy as np
import pytest

from rest_jax.data import group_store, judgements
from rest_jax.stages import policies, read_ratings
from rest_jax.stages import rated as rated_lib
from tests.stages import untrained

LENGTHS = {'inputs': 32, 'targets': 48}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A run, its corpus, and samples: each source's text forwards and backwards."""
  current = untrained.run(tmp_path_factory.mktemp('ratings'))
  corpus = untrained.corpus(current, num_validation=4, num_test=4)
  vocabulary = policies.vocabularies.Vocabulary.load(
    corpus.path / policies.VOCABULARY_FILE
  )
  groups = []
  for group in group_store.iterate_groups(corpus.path / 'validation'):
    texts = (group.texts[0], 'a dog', 'a dog')  # drawn twice
    groups.append(
      dataclasses.replace(
        group,
        texts=texts,
        tokens=tuple(vocabulary.encode_batch(texts)),
        finished=np.ones(3, bool),
        origins=('model',) * 3,
      )
    )

  def build(work):
    group_store.write_group_set(work.path, groups)

  samples = current.stage(
    'grow', name='grow_1', version=1, params={}, inputs={'corpus': corpus}, build=build
  )
  return current, corpus, samples, groups


def read(made, tmp_path, name, rows, *, matched=False, **settings):
  current, corpus, samples, _ = made
  file = tmp_path / 'ratings.jsonl'
  file.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return read_ratings.read_ratings(
    current,
    name=name,
    corpus=corpus,
    samples=samples if matched else None,
    path=str(file),
    task_feature_lengths=LENGTHS,
    **settings,
  )


def row(source, candidate, rating=1, **more):
  return {'source': source, 'candidate': candidate, 'rating': rating} | more


def test_texts_of_their_own_become_groups(made, tmp_path):
  rows = [row('x', 'a', 1), row('y', 'c', 5), row('x', 'b', 2), row('x', 'a', 4)]
  rows += [row('x', 'an ' * 60, 3), row('z ' * 60, 'd', 3)]
  ratings = read(made, tmp_path, 'plain', rows)
  first, second = rated_lib.read(ratings.path, ratings.path)
  assert first.group.texts == ('a', 'b') and first.ratings.tolist() == [2.5, 2]
  assert [first.group.source_id, second.group.source_id] == [
    'rated/00000000',
    'rated/00000001',
  ]
  assert first.judgements.shape == (2, 0)  # nothing says who rated
  assert ratings.results == {
    'ratings': 6,
    'sources': 2,
    'candidates': 3,
    'dropped_candidates': 2,
  }
  told = r'all 1 rated candidates of .*ratings\.jsonl exceed the limits'
  with pytest.raises(ValueError, match=told):
    read(made, tmp_path, 'long', rows[-1:])


def test_raters_and_references_are_kept(made, tmp_path):
  rows = [row('x', 'a', [1, 2], ref='r'), row('x', 'b', [3, 1], ref='r')]
  reader = judgements.Ratings(reference_column='ref')
  ratings = read(made, tmp_path, 'raters', rows, reader=reader)
  (one,) = rated_lib.read(ratings.path, ratings.path)
  assert one.group.reference == 'r'
  assert one.judgements.tolist() == [[1, 2], [3, 1]]


def test_a_held_out_file_lies_below(made, tmp_path):
  held_out = tmp_path / 'held_out.jsonl'
  held_out.write_text(json.dumps(row('w', 'e', 7)))
  ratings = read(
    made, tmp_path, 'two_files', [row('x', 'a')], held_out_path=str(held_out)
  )
  below = ratings.path / rated_lib.HELD_OUT_DIR
  (one,) = rated_lib.read(below, below)
  assert (one.group.source, one.ratings.tolist()) == ('w', [7])
  assert ratings.results['held_out']['candidates'] == 1


def test_samples_that_were_judged_keep_their_ids_and_tokens(made, tmp_path):
  groups = made[3]
  rows = [
    row(groups[1].source, groups[1].texts[0], 5),
    row(groups[0].source, 'a dog', 2, id=groups[0].source_id),
    row(groups[1].source, 'a dog', 3, reference='of the rater'),
  ]
  reader = judgements.Ratings(source_id_column='id', reference_column='reference')
  rows = [{'id': None, 'reference': None} | one for one in rows]
  ratings = read(made, tmp_path, 'matched', rows, matched=True, reader=reader)
  found = rated_lib.read(ratings.path, ratings.path)
  assert [one.group.source_id for one in found] == [
    groups[1].source_id,
    groups[0].source_id,
  ]
  assert [one.ratings.tolist() for one in found] == [[5, 3], [2]]
  assert found[0].group.reference == groups[1].reference
  np.testing.assert_array_equal(found[0].group.tokens[0], groups[1].tokens[0])
  assert ratings.record['input_names'] == {'corpus': 'corpus', 'samples': 'grow_1'}


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'id': 'validation/99'}, r"line 2: source_id 'validation/99' is not in grow_1"),
    ({'source': 'kein Satz'}, r"line 2: source 'kein Satz' is not in grow_1"),
    (
      {'source': 'kein Satz', 'id': 'OF THE FIRST'},
      r"line 2: grow_1 has another source under .*, than the file, 'kein Satz'",
    ),
    ({'candidate': 'a dog.'}, r"line 2: candidate 'a dog.' matches none of the 3"),
  ],
)
def test_judgements_of_what_is_not_there_are_refused(made, tmp_path, change, message):
  first = made[3][0]
  if change.get('id') == 'OF THE FIRST':
    change = change | {'id': first.source_id}
  good = row(first.source, 'a dog', id=None)
  reader = judgements.Ratings(source_id_column='id')
  told = f'^{re.escape(str(tmp_path / "ratings.jsonl"))}, {message}'
  with pytest.raises(ValueError, match=told):
    read(made, tmp_path, 'bad', [good, good | change], matched=True, reader=reader)

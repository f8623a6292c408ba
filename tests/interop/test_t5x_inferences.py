"""What `t5x.infer` writes becomes a group set; needs no T5X."""

import json

import numpy as np
import pytest

from rest_jax.data import group_store, vocabularies
from rest_jax.interop.t5x import inferences

IDS = [f'train/{i:08d}' for i in range(3)]
# Three samples of the first source and of the last; the second was not inferred.
PREDICTIONS = {
  IDS[2]: [[7, 8, 9, 10], [5, 1, 0, 0], [6, 6, 1, 0]],
  IDS[0]: [[20, 1, 0, 0], [21, 1, 0, 0], [22, 1, 0, 0]],
}


@pytest.fixture
def folder(tmp_path):
  """Sources with references, a byte vocabulary, and two shards of T5X's lines."""
  vocabulary = vocabularies.ByteVocabulary()
  vocabulary.save(tmp_path / 'vocabulary.model')
  groups = [
    group_store.pair(
      source_id, text, vocabulary.encode(text), f'ref {text}', vocabulary.encode('r')
    )
    for source_id, text in zip(IDS, ('ein', 'zwei', 'drei'), strict=True)
  ]
  group_store.write_group_set(tmp_path / 'sources', groups)
  for number, (source_id, tokens) in enumerate(PREDICTIONS.items()):
    write(tmp_path / f'lines-{number}', source_id, prediction_tokens=tokens)
  return tmp_path


def write(path, source_id, **fields):
  line = {'inputs': {'source_id': source_id}, 'prediction': ['x'], **fields}
  path.write_text(json.dumps(line) + '\n')


def read(folder, files=('lines-0', 'lines-1'), *, seed=0):
  inferences.group_set_from_inferences(
    [folder / file for file in files],
    folder / 'sources',
    folder / f'groups-{seed}',
    vocabulary_path=folder / 'vocabulary.model',
    seed=seed,
  )
  return list(group_store.iterate_groups(folder / f'groups-{seed}'))


def test_samples_come_back_by_source_cut_at_their_end(folder):
  first, last = read(folder)
  assert (first.source_id, last.source_id) == (IDS[0], IDS[2])
  assert last.reference == 'ref drei' and last.source == 'drei'
  found = {
    tuple(tokens.tolist()): bool(f)
    for tokens, f in zip(last.tokens, last.finished, strict=True)
  }
  # One never ended: it has no EOS. The others keep theirs and lose the padding.
  assert found == {(7, 8, 9, 10): False, (5, 1): True, (6, 6, 1): True}
  vocabulary = vocabularies.ByteVocabulary()
  assert list(last.texts) == [vocabulary.decode(tokens) for tokens in last.tokens]
  assert last.origins == ('model',) * 3 and last.token_log_probs is None


def test_the_order_is_not_t5xs_and_comes_from_seed_and_source(folder):
  orders = [
    [g.tokens[0].tolist() for g in read(folder, seed=seed)] for seed in range(9)
  ]
  firsts = {first[0] for first, _ in orders}
  assert len(firsts) > 1, 'the candidate with the lowest score is always first'
  shuffled = read(folder, ('lines-1', 'lines-0'), seed=0)  # another order of shards
  assert [g.tokens[0].tolist() for g in shuffled] == orders[0]


def test_one_decode_is_a_group_of_one(folder):
  write(folder / 'one', IDS[1], prediction_tokens=[9, 1])
  (group,) = read(folder, ['one'])
  np.testing.assert_array_equal(group.tokens[0], [9, 1])


def test_what_is_not_described_is_refused(folder):
  with pytest.raises(ValueError, match=r"source_id 'train/00000002' occurs twice"):
    read(folder, ('lines-0', 'lines-0'))
  write(folder / 'alien', 'test/1', prediction_tokens=[[9, 1]])
  with pytest.raises(ValueError, match=r"'test/1' and 0 others are not in .*sources"):
    read(folder, ['alien'])
  write(folder / 'texts', IDS[0])
  with pytest.raises(
    ValueError, match=r"texts:1 lacks 'prediction_tokens': infer from"
  ):
    read(folder, ['texts'])

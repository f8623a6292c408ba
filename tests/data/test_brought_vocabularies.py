"""Vocabularies that come with a model, and SentencePiece's own order of ids."""

import io
import json

import numpy as np
import pytest
import sentencepiece

from rest_jax.data import brought_vocabularies, vocabularies
from tests.data.test_vocabularies import TEXTS


def train(path, *, library_order=False, vocab_size=300, **options):
  """A model with our special tokens, or with SentencePiece's own."""
  if not library_order:
    return vocabularies.train_sentencepiece(TEXTS, path, vocab_size=vocab_size)
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TEXTS),
    model_writer=model,
    vocab_size=vocab_size,
    minloglevel=2,
    **({'byte_fallback': True} | options),
  )
  path.write_bytes(model.getvalue())
  return vocabularies.Vocabulary.load(path)


def test_sentinels_are_those_of_seqio(tmp_path):
  path = tmp_path / 'spiece.model'
  plain = train(path)
  found = brought_vocabularies.bring(path, extra_ids=100)
  assert found.size == plain.size + 100
  assert found.encode('<extra_id_0> red').tolist()[0] == found.size - 1
  text = 'the <extra_id_0> is <extra_id_99>'
  tokens = found.encode(text)
  assert found.decode(tokens) == text
  assert found.size - 1 in tokens and tokens.tolist()[-2] == plain.size
  # Nothing else changes.
  for line in TEXTS[:3]:
    np.testing.assert_array_equal(found.encode(line), plain.encode(line))
  seqio = pytest.importorskip('seqio', reason='whose order is followed')
  theirs = seqio.SentencePieceVocabulary(str(path), extra_ids=100)
  assert theirs.vocab_size == found.size
  for line in (text, 'red <extra_id_57> big'):
    assert theirs.encode(line) == found.encode(line).tolist()[:-1]


def test_sentinels_are_not_appended_twice(tmp_path):
  path = tmp_path / 'spiece.model'
  train(path)
  brought_vocabularies.bring(path, extra_ids=3).save(path)
  assert brought_vocabularies.bring(path, extra_ids=0).size == 303
  with pytest.raises(ValueError, match='extra_ids=3, but the vocabulary holds'):
    brought_vocabularies.bring(path, extra_ids=3)
  with pytest.raises(ValueError, match='extra_ids=-1 must'):
    brought_vocabularies.append_sentinels(b'', -1)


@pytest.mark.parametrize(
  ('fields', 'rows', 'size'),
  [
    ({'extra_ids': 100}, 512, 400),
    ({'extra_ids': 0}, 512, 300),
    ({'additional_special_tokens': ['<extra_id_0>', '<extra_id_1>']}, 512, 302),
    ({'extra_ids': 100}, 300, 300),  # the embedding has no rows for them
    (None, 512, 300),
  ],
)
def test_a_directory_tells_its_sentinels(tmp_path, fields, rows, size):
  train(tmp_path / 'spiece.model')
  (tmp_path / 'config.json').write_text(json.dumps({'vocab_size': rows}))
  if fields is not None:
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(fields))
  assert brought_vocabularies.bring(tmp_path).size == size
  if rows == 512:
    assert brought_vocabularies.bring(tmp_path, extra_ids=5).size == 305


def test_bytes_by_name_and_by_directory(tmp_path):
  text = json.dumps({'tokenizer_class': 'ByT5Tokenizer', 'extra_ids': 125})
  (tmp_path / 'tokenizer_config.json').write_text(text)
  for path in ('byt5', tmp_path):
    found = brought_vocabularies.bring(path)
    assert found.size == 259
    assert found.encode('aé').tolist() == [100, 198, 172, 1]
  with pytest.raises(ValueError, match='extra_ids=125 go with SentencePiece'):
    brought_vocabularies.bring('byt5', extra_ids=125)


def test_a_directory_without_a_vocabulary_says_what_it_looked_for(tmp_path):
  with pytest.raises(ValueError, match=r'no SentencePiece model \(spiece\.model'):
    brought_vocabularies.bring(tmp_path)


def test_sentencepiece_s_own_order_is_put_into_ours(tmp_path):
  path = tmp_path / 'spm.model'
  found = train(path, library_order=True)
  processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
  assert (processor.unk_id(), processor.bos_id(), processor.eos_id()) == (0, 1, 2)
  for text in [*TEXTS[:3], 'Grüße, 世界!']:
    tokens = found.encode(text).tolist()
    assert tokens == [*processor.encode(text), vocabularies.EOS_ID]
    assert min(tokens[:-1]) > 2 and found.decode(tokens) == text
  rows = found.checkpoint_rows(310)
  assert rows.tolist() == [0, 2, 1, *range(3, 310)]
  # The row that our EOS reads is that of theirs.
  assert rows[vocabularies.EOS_ID] == processor.eos_id()
  assert found.size == 300 and found.model_bytes() == path.read_bytes()
  plain = train(tmp_path / 'spiece.model')
  assert plain.checkpoint_rows(310) is None


def test_an_unknown_character_is_unk_in_either_order(tmp_path):
  found = train(tmp_path / 'm', library_order=True, vocab_size=45, byte_fallback=False)
  assert found.encode('世').tolist()[1:] == [vocabularies.UNK_ID, vocabularies.EOS_ID]
  assert found.count_unknown('the 世 cat') == 1
  assert '⁇' in found.decode(found.encode('the 世 cat'))


def test_other_special_tokens_are_refused(tmp_path):
  with pytest.raises(ValueError, match='has special tokens'):
    train(tmp_path / 'm', library_order=True, bos_id=3)

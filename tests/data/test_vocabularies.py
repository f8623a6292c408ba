"""Vocabularies: round trips, special tokens, training that explains itself."""

import pickle

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from rest_jax.data import vocabularies

TEXTS = [
  f'{who} {does} {what} {number}.'
  for who in ('der kleine Hund', 'eine Frau', 'the boy', 'ein Mädchen')
  for does in ('sieht', 'kauft', 'sees', 'finds')
  for what in ('das Haus', 'den Baum', 'a red car', 'two birds')
  for number in range(6)
]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  path = tmp_path_factory.mktemp('v') / 'vocabulary.model'
  return vocabularies.train_sentencepiece(TEXTS, path, vocab_size=300), path


def test_special_tokens_and_round_trip(trained):
  vocabulary, path = trained
  assert vocabulary.size == 300
  processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
  assert (processor.pad_id(), processor.eos_id(), processor.unk_id()) == (0, 1, 2)
  assert processor.bos_id() == -1
  for text in [*TEXTS[:5], 'Grüße, 世界!', '']:
    tokens = vocabulary.encode(text)
    assert tokens.dtype == np.int32 and tokens[-1] == 1 and (tokens > 1)[:-1].all()
    assert vocabulary.decode(tokens) == text
    assert vocabulary.round_trips(text) and vocabulary.count_unknown(text) == 0
    assert tokens.tolist() == [*processor.encode(text), 1]
  assert not vocabulary.round_trips('two  spaces')


def test_decoding_stops_at_eos_and_skips_pads(trained):
  for vocabulary in (trained[0], vocabularies.ByteVocabulary()):
    tokens = vocabulary.encode('the boy')
    padded = np.concatenate([[0], tokens, [0, 0], tokens])
    assert vocabulary.decode(padded) == 'the boy'
    assert vocabulary.decode(tokens[:-1].tolist()) == 'the boy'
    assert vocabulary.decode_batch([]) == [] == vocabulary.encode_batch([])
    few = [[], [1], tokens]
    assert vocabulary.decode_batch(few) == ['', '', 'the boy']
    # A long list is decoded by a thread, a short one without.
    assert vocabulary.decode_batch(20 * few) == 20 * ['', '', 'the boy']
    batch = vocabulary.encode_batch(['the boy', ''])
    assert [row.tolist() for row in batch] == [tokens.tolist(), [1]]
    for bad in (vocabulary.size, -1):
      with pytest.raises(ValueError, match=f'token {bad} is not in the vocabulary'):
        vocabulary.decode([5, bad])
    assert pickle.loads(pickle.dumps(vocabulary)).identity() == vocabulary.identity()


def test_unknown_characters_are_countable(tmp_path):
  path = tmp_path / 'x.model'
  vocabulary = vocabularies.train_sentencepiece(
    TEXTS, path, vocab_size=44, byte_fallback=False
  )
  assert vocabulary.count_unknown('the 世 boy 世') == 2
  assert not vocabulary.round_trips('the 世 boy')


@given(st.text(max_size=20))
def test_bytes_round_trip(text):
  vocabulary = vocabularies.ByteVocabulary()
  tokens = vocabulary.encode(text)
  assert tokens.tolist() == [b + 3 for b in text.encode()] + [1]
  assert vocabulary.decode(tokens) == text


def test_bytes_that_are_no_text():
  vocabulary = vocabularies.ByteVocabulary()
  assert vocabulary.decode([0xC3 + 3, ord('a') + 3, 2]) == '\ufffda'


def test_training_is_deterministic(tmp_path, trained):
  path = tmp_path / 'again.model'
  vocabularies.train_sentencepiece(iter(TEXTS), path, vocab_size=300)
  assert path.read_bytes() == trained[1].read_bytes()


def test_load_and_save(tmp_path, trained):
  for vocabulary in (trained[0], vocabularies.ByteVocabulary()):
    path = tmp_path / 'copy.model'
    vocabulary.save(path)
    loaded = vocabularies.Vocabulary.load(path)
    assert type(loaded) is type(vocabulary)
    assert loaded.identity() == vocabulary.identity()
    assert loaded.encode('a boy').tolist() == vocabulary.encode('a boy').tolist()
  path.write_bytes(b'something else')
  with pytest.raises(ValueError, match=r'copy\.model is not a SentencePiece model'):
    vocabularies.Vocabulary.load(path)
  with pytest.raises(ValueError, match='does not exist'):
    vocabularies.Vocabulary.load(tmp_path / 'none')


def test_other_special_tokens_are_refused(tmp_path):
  with open(tmp_path / 'x.model', 'wb') as handle:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(TEXTS),
      model_writer=handle,
      vocab_size=44,
      pad_id=3,
      minloglevel=2,
    )
  with pytest.raises(ValueError, match=r"'unk': 0.*--pad_id=0"):
    vocabularies.Vocabulary.load(tmp_path / 'x.model')


def test_impossible_trainings(tmp_path):
  path = tmp_path / 'x.model'
  train = vocabularies.train_sentencepiece
  with pytest.raises(ValueError, match='holds no text'):
    train(['', ' '], path, vocab_size=300)
  with pytest.raises(ValueError, match=r'at most (\d+)') as caught:
    train(TEXTS, path, vocab_size=5000)
  most = int(str(caught.value).split('at most ')[1].split(';')[0])
  assert train(TEXTS, path, vocab_size=most).size == most
  with pytest.raises(ValueError, match=r'less than the (\d+) tokens.*byte_fallback'):
    train(TEXTS, path, vocab_size=100)
  with pytest.raises(ValueError, match=r"known: .*'unigram'"):
    train(TEXTS, path, vocab_size=300, model_type='wordpiece')
  with pytest.raises(ValueError, match='character_coverage 0'):
    train(TEXTS, path, vocab_size=300, character_coverage=0)

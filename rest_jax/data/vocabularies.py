"""Vocabularies: text to token ids and back. Pad 0, EOS 1, UNK 2, always.

`Vocabulary.load(path)` opens what `train_sentencepiece` or `Vocabulary.save`
wrote. Token 0 is also the decoder's start. A SentencePiece model with the library's
own order (UNK 0, BOS 1, EOS 2, no pad; MADLAD-400's) is put into ours, and the rows
of its checkpoints with it (`checkpoint_rows`).
"""

import abc
import hashlib
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import sentencepiece

from rest_jax import paths

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2

_OUR_ORDER = {'pad': PAD_ID, 'eos': EOS_ID, 'unk': UNK_ID, 'bos': -1}
# With pad -1 id 0 is free to be padding and the start: UNK, which byte fallback leaves
# unused, is what T5X pads MADLAD-400 with.
_LIBRARY_ORDER = {'pad': -1, 'eos': 2, 'unk': 0, 'bos': 1}

MODEL_TYPES = ('unigram', 'bpe', 'char')

_BYTE_MODEL = b'rest_jax byte vocabulary\n'
# Sequences for which a thread takes less time to start than to save: 8 take 23 us one
# by one and 40 in a list, 25 take 71 and 63.
_WORTH_A_THREAD = 20


class Vocabulary(abc.ABC):
  """What every vocabulary does; see SentencePieceVocabulary and ByteVocabulary."""

  @staticmethod
  def load(path: paths.PathLike) -> 'Vocabulary':
    """Opens a vocabulary file.

    Raises:
      ValueError: the file is missing, is no SentencePiece model, or has other
        special tokens than pad 0, EOS 1, UNK 2.
    """
    target = paths.as_path(path)
    if not target.exists():
      raise ValueError(f'{target} does not exist: give a SentencePiece model file')
    model = target.read_bytes()
    if model == _BYTE_MODEL:
      return ByteVocabulary()
    return SentencePieceVocabulary(model, name=str(target))

  @property
  @abc.abstractmethod
  def size(self) -> int:
    """Number of token ids, special ones included."""

  @abc.abstractmethod
  def model_bytes(self) -> bytes:
    """The content of the vocabulary's file."""

  @abc.abstractmethod
  def _pieces(self, texts: Sequence[str]) -> Iterable[Sequence[int]]:
    """Token ids of each text, without EOS."""

  @abc.abstractmethod
  def _texts(self, tokens: list[list[int]]) -> list[str]:
    """The text of each list of ids, all below `size`, none PAD or EOS."""

  def checkpoint_rows(self, num_rows: int) -> np.ndarray | None:
    """For each of our ids the id in the vocabulary's own order; None: the same.

    Args:
      num_rows: of the embedding, at least `size`.
    """
    del num_rows
    return None

  def save(self, path: paths.PathLike) -> None:
    """Writes the vocabulary's file, in one step."""
    paths.write_bytes_atomic(path, self.model_bytes())

  def identity(self) -> dict[str, Any]:
    """JSON values that name this vocabulary in a fingerprint."""
    digest = hashlib.sha256(self.model_bytes()).hexdigest()
    return {'size': self.size, 'sha256': digest}

  def encode(self, text: str) -> np.ndarray:
    """Token ids of `text`, [length] int32, ending with EOS ('' is EOS alone)."""
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Token ids of each text, [length_i] int32, ending with EOS."""
    return [np.array([*ids, EOS_ID], np.int32) for ids in self._pieces(texts)]

  def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
    """The text up to the first EOS; pads are skipped."""
    return self.decode_batch([tokens])[0]

  def decode_batch(self, tokens: Iterable[Sequence[int] | np.ndarray]) -> list[str]:
    """The text of each sequence up to its first EOS; pads are skipped.

    Raises:
      ValueError: an id outside of the vocabulary.
    """
    rows = [_until_eos(np.asarray(row).reshape(-1).tolist()) for row in tokens]
    size = self.size
    for row in rows:
      if row and not (min(row) >= 0 and max(row) < size):
        bad = next(token for token in row if not 0 <= token < size)
        raise ValueError(
          f'token {bad} is not in the vocabulary of {size}: use the vocabulary '
          'that the tokens were made with, and let the sampler draw from it only'
        )
    return self._texts(rows)

  def count_unknown(self, text: str) -> int:
    """Number of UNK tokens in the text: what the vocabulary cannot express."""
    return int(np.count_nonzero(self.encode(text) == UNK_ID))

  def round_trips(self, text: str) -> bool:
    """Whether decoding the encoded text gives it back, character by character."""
    return self.decode(self.encode(text)) == text


def _until_eos(tokens: list[int]) -> list[int]:
  # Lists: the rows are short, and NumPy's calls take four times as long.
  if EOS_ID in tokens:
    tokens = tokens[: tokens.index(EOS_ID)]
  return [token for token in tokens if token != PAD_ID] if PAD_ID in tokens else tokens


class SentencePieceVocabulary(Vocabulary):
  """A SentencePiece model.

  Args:
    model: the model file's bytes.
    name: what to call it in messages.

  Raises:
    ValueError: the bytes are no model, or its special tokens are others.
  """

  def __init__(self, model: bytes, *, name: str = 'the model'):
    self._model = model
    self._processor = sentencepiece.SentencePieceProcessor()
    try:
      self._processor.LoadFromSerializedProto(model)
    except RuntimeError as error:
      raise ValueError(
        f'{name} is not a SentencePiece model: it was cut short or is another file'
      ) from error
    found = {
      'pad': self._processor.pad_id(),
      'eos': self._processor.eos_id(),
      'unk': self._processor.unk_id(),
      'bos': self._processor.bos_id(),
    }
    if found not in (_OUR_ORDER, _LIBRARY_ORDER):
      raise ValueError(
        f'{name} has special tokens {found}; pad 0, eos 1, unk 2 are needed, or the '
        f"library's own {_LIBRARY_ORDER}: train it with train_sentencepiece, or with "
        '--pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1'
      )
    self._reordered = found == _LIBRARY_ORDER

  @property
  def size(self) -> int:
    """Number of token ids, special ones included."""
    return self._processor.get_piece_size()

  def model_bytes(self) -> bytes:
    """The model file's bytes."""
    return self._model

  def checkpoint_rows(self, num_rows: int) -> np.ndarray | None:
    """See Vocabulary: EOS and BOS, whose row becomes UNK's, change places."""
    if not self._reordered:
      return None
    rows = np.arange(num_rows)
    rows[[EOS_ID, UNK_ID]] = _LIBRARY_ORDER['eos'], _LIBRARY_ORDER['bos']
    return rows

  def _pieces(self, texts: Sequence[str]) -> Iterable[Sequence[int]]:
    ids = self._processor.encode(list(texts), out_type=int, num_threads=1)
    if not self._reordered:
      return ids
    unknown = _LIBRARY_ORDER['unk']  # no text gives BOS or EOS
    return [[UNK_ID if id_ == unknown else id_ for id_ in row] for row in ids]

  def _texts(self, tokens: list[list[int]]) -> list[str]:
    if self._reordered:
      unknown = _LIBRARY_ORDER['unk']
      tokens = [[unknown if id_ == UNK_ID else id_ for id_ in row] for row in tokens]
    # The library starts a thread for a list of sequences, and none for a single one.
    if len(tokens) < _WORTH_A_THREAD:
      return [self._processor.decode(row) for row in tokens]
    return self._processor.decode(tokens, num_threads=1)

  def __reduce__(self) -> tuple[Any, ...]:
    return SentencePieceVocabulary, (self._model,)


class ByteVocabulary(Vocabulary):
  """UTF-8 bytes, shifted by the 3 special tokens: ByT5's ids without its extra ones.

  Every text round-trips. Bytes that are no UTF-8 (a sampler may draw them) decode
  to U+FFFD.
  """

  size = 3 + 256

  def model_bytes(self) -> bytes:
    """A line that `Vocabulary.load` knows."""
    return _BYTE_MODEL

  def _pieces(self, texts: Sequence[str]) -> Iterable[Sequence[int]]:
    for text in texts:
      yield [byte + 3 for byte in text.encode('utf-8')]

  def _texts(self, tokens: list[list[int]]) -> list[str]:
    return [
      bytes(token - 3 for token in row if token >= 3).decode('utf-8', 'replace')
      for row in tokens
    ]


def train_sentencepiece(
  texts: Iterable[str],
  path: paths.PathLike,
  *,
  vocab_size: int,
  model_type: str = 'unigram',
  character_coverage: float = 1.0,
  byte_fallback: bool = True,
  normalisation: str = 'nmt_nfkc',
  max_sentence_bytes: int = 16_384,
) -> Vocabulary:
  """Trains a SentencePiece model on `texts` and writes it, in one step.

  One thread and no sampling of sentences: the same texts in the same order give
  the same file, byte for byte.

  Args:
    texts: sentences of all languages; streamed, blank ones skipped.
    path: the model file, `vocabulary.model` in a corpus artifact.
    vocab_size: exact number of tokens, with 3 special and (with byte_fallback)
      256 byte tokens.
    model_type: 'unigram', 'bpe' or 'char'.
    character_coverage: share of characters that get a token, in (0, 1].
    byte_fallback: spell other characters as bytes instead of UNK, so that every
      text survives (after normalisation).
    normalisation: a SentencePiece rule: 'nmt_nfkc', 'nfkc', 'identity', ...
    max_sentence_bytes: longer sentences are left out of the training.

  Returns:
    The vocabulary.

  Raises:
    ValueError: no text, an unknown model_type, or a vocab_size that the corpus
      cannot support (says the largest or smallest that works).
  """
  if model_type not in MODEL_TYPES:
    raise ValueError(f'model_type {model_type!r} is unknown; known: {MODEL_TYPES}')
  if not 0 < character_coverage <= 1:
    raise ValueError(f'character_coverage {character_coverage} must be in (0, 1]')
  filled = (text for text in texts if text.strip())
  first = next(filled, None)
  if first is None:
    raise ValueError('the corpus holds no text: nothing to train a vocabulary on')
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=_iterate(first, filled),
      model_writer=model,
      vocab_size=vocab_size,
      model_type=model_type,
      character_coverage=character_coverage,
      byte_fallback=byte_fallback,
      normalization_rule_name=normalisation,
      max_sentence_length=max_sentence_bytes,
      pad_id=PAD_ID,
      eos_id=EOS_ID,
      unk_id=UNK_ID,
      bos_id=-1,
      num_threads=1,
      minloglevel=2,
    )
  except RuntimeError as error:
    raise ValueError(_explain(str(error), vocab_size, byte_fallback)) from error
  paths.write_bytes_atomic(path, model.getvalue())
  return Vocabulary.load(path)


def _iterate(first: str, rest: Iterable[str]) -> Iterator[str]:
  return itertools.chain([first], rest)


def _explain(message: str, vocab_size: int, byte_fallback: bool) -> str:
  """Turns SentencePiece's message into the value, the rule and the remedy."""
  most = re.search(r'value <= (\d+)', message)
  if most:
    return (
      f'vocab_size {vocab_size} is more than the corpus supports: at most '
      f'{most[1]}; lower it or give more text'
    )
  least = re.search(r'smaller than required_chars\. \d+ vs (\d+)', message)
  if least:
    cause = ' (256 of them for byte_fallback)' if byte_fallback else ''
    return (
      f'vocab_size {vocab_size} is less than the {least[1]} tokens for the '
      f"corpus's characters{cause}: raise it, or lower character_coverage"
    )
  return f'SentencePiece cannot train on this corpus: {message}'

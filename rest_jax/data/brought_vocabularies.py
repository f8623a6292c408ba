"""Vocabularies that come with a model: a file, a Hugging Face directory, or 'byt5'."""

import re
from collections.abc import Mapping
from typing import Any

import sentencepiece
from etils import epath

from rest_jax import paths
from rest_jax.data import vocabularies

BYT5 = 'byt5'
# What a SentencePiece model is called in the directories of models.
MODEL_FILES = ('spiece.model', 'sentencepiece.model', 'spm.model', 'vocabulary.model')
TOKENIZER_FILE = 'tokenizer_config.json'
_CONFIG_FILE = 'config.json'
_SENTINEL = re.compile(r'<extra_id_(\d+)>')


def bring(
  path: paths.PathLike, *, extra_ids: int | None = None
) -> vocabularies.Vocabulary:
  """Opens a vocabulary that was made elsewhere.

  Args:
    path: a SentencePiece model; a directory that holds one, such as a Hugging Face
      model's or one of a run here; or 'byt5', for UTF-8 bytes.
    extra_ids: sentinels `<extra_id_0>`, ... to append; None takes what the directory's
      tokenizer_config.json says, and none for a file.

  Raises:
    ValueError: there is no vocabulary, it cannot be read, or it has sentinels already.
  """
  if str(path) == BYT5:
    return _bytes(extra_ids)
  target = paths.as_path(path)
  fields: Mapping[str, Any] = {}
  if target.is_dir():
    if (target / TOKENIZER_FILE).exists():
      fields = paths.read_json(target / TOKENIZER_FILE)
    if str(fields.get('tokenizer_class')).startswith('ByT5'):
      return _bytes(extra_ids)
    target = _model_file(target)
  vocabulary = vocabularies.Vocabulary.load(target)
  count = _sentinels(target, fields, vocabulary) if extra_ids is None else extra_ids
  if not count:
    return vocabulary
  model = append_sentinels(vocabulary.model_bytes(), count)
  return vocabularies.SentencePieceVocabulary(model, name=str(target))


def append_sentinels(model: bytes, count: int) -> bytes:
  """A SentencePiece model with `<extra_id_{count - 1}>` ... `<extra_id_0>` at the end.

  As SeqIO does it: user-defined pieces with a space in front, the first sentinel last.
  Serialised protocol buffers that are joined have their repeated fields joined, and
  the pieces are one (field 1 of the model: 1 text, 2 score, 3 type), so the bytes of
  the new ones are appended.

  Raises:
    ValueError: the count is not positive, or the model has sentinels.
  """
  if count < 1:
    raise ValueError(f'extra_ids={count} must be at least 0')
  processor = sentencepiece.SentencePieceProcessor()
  processor.LoadFromSerializedProto(model)
  if any(
    _SENTINEL.search(processor.id_to_piece(id_))
    for id_ in range(processor.get_piece_size())
  ):
    raise ValueError(
      f'extra_ids={count}, but the vocabulary holds sentinels <extra_id_0>, ... '
      "already, as mT5's does: leave EXTRA_IDS at None or 0"
    )
  user_defined = 4
  for number in reversed(range(count)):
    text = f'▁<extra_id_{number}>'.encode()
    piece = b'\x0a' + bytes([len(text)]) + text  # 1: text
    piece += b'\x15' + bytes(4)  # 2: score, float32 0
    piece += bytes([0x18, user_defined])  # 3: type
    model += b'\x0a' + bytes([len(piece)]) + piece
  return model


def _bytes(extra_ids: int | None) -> vocabularies.Vocabulary:
  # ByT5's sentinels are no text: the rows above 258 are the embedding's own affair.
  if extra_ids:
    raise ValueError(
      f"extra_ids={extra_ids} go with SentencePiece; ByT5's rows above its 259 ids are "
      'never text: leave EXTRA_IDS at None'
    )
  return vocabularies.ByteVocabulary()


def _model_file(folder: epath.Path) -> epath.Path:
  for name in MODEL_FILES:
    if (folder / name).exists():
      return folder / name
  raise ValueError(
    f'{folder} holds no SentencePiece model ({", ".join(MODEL_FILES)}) and is not '
    "ByT5's: give the model's spiece.model itself; a tokenizer.json cannot be read here"
  )


def _sentinels(
  target: epath.Path, fields: Mapping[str, Any], vocabulary: vocabularies.Vocabulary
) -> int:
  """How many sentinels tokenizer_config.json adds to the pieces of the model."""
  if b'<extra_id_0>' in vocabulary.model_bytes():
    return 0
  names = set(_SENTINEL.findall(str(fields)))
  count = fields.get('extra_ids', len(names))
  config = target.parent / _CONFIG_FILE
  if count and config.exists():
    rows = paths.read_json(config).get('vocab_size')
    # MADLAD-400's names a hundred for which its embedding has no rows.
    if rows is not None and vocabulary.size + count > rows:
      return 0
  return int(count)

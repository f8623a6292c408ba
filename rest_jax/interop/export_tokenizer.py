"""The tokenizer files of a Hugging Face model, from a vocabulary.

SentencePiece: `spiece.model`, and `tokenizer.json`, which the library reads without
SentencePiece; every piece is an ordinary one there, sentinels included, since then
both give the same ids. Bytes: ByT5's tokenizer, which needs no file, without its
sentinels, which a text could spell.
"""

import base64
import importlib
from typing import Any

import sentencepiece

from rest_jax import paths
from rest_jax.data import vocabularies

SENTENCEPIECE_FILE = 'spiece.model'
_SPACE = '▁'


def write_tokenizer(
  directory: paths.PathLike,
  vocabulary: vocabularies.Vocabulary,
  *,
  max_length: int,
) -> None:
  """Writes what `transformers.AutoTokenizer` needs.

  Args:
    directory: of the model.
    vocabulary: whose ids the model has.
    max_length: of a source, in tokens.

  Raises:
    ValueError: a SentencePiece model of another kind than unigram.
  """
  folder = paths.as_path(directory)
  common = {'model_max_length': max_length, 'clean_up_tokenization_spaces': False}
  if isinstance(vocabulary, vocabularies.ByteVocabulary):
    special = {'eos_token': '</s>', 'pad_token': '<pad>', 'unk_token': '<unk>'}
    fields = {'tokenizer_class': 'ByT5Tokenizer', 'extra_ids': 0}
    paths.write_json_atomic(folder / 'tokenizer_config.json', fields | special | common)
    return
  model = vocabulary.model_bytes()
  processor = sentencepiece.SentencePieceProcessor()
  processor.LoadFromSerializedProto(model)
  special = special_tokens(processor)
  paths.write_json_atomic(
    folder / 'tokenizer.json', tokenizer_json(model, processor, special)
  )
  paths.write_bytes_atomic(folder / SENTENCEPIECE_FILE, model)
  fields = {'tokenizer_class': 'PreTrainedTokenizerFast', 'extra_ids': 0}
  paths.write_json_atomic(folder / 'tokenizer_config.json', fields | special | common)
  paths.write_json_atomic(folder / 'special_tokens_map.json', special)


def special_tokens(processor: sentencepiece.SentencePieceProcessor) -> dict[str, str]:
  """The texts of pad, EOS and UNK; without a pad, that of BOS pads, as MADLAD-400's."""
  pad = processor.pad_id() if processor.pad_id() >= 0 else processor.bos_id()
  ids = {'eos': processor.eos_id(), 'pad': pad, 'unk': processor.unk_id()}
  return {f'{name}_token': processor.id_to_piece(id_) for name, id_ in ids.items()}


def tokenizer_json(
  model: bytes,
  processor: sentencepiece.SentencePieceProcessor,
  special: dict[str, str],
) -> dict[str, Any]:
  """The `tokenizer.json` that gives the ids of a unigram SentencePiece model.

  Raises:
    ValueError: the model is of another kind.
  """
  proto = _parse(model)
  if proto.trainer_spec.model_type != proto.trainer_spec.UNIGRAM:
    raise ValueError(
      'the vocabulary is a SentencePiece model of another kind than unigram, which has '
      "no tokenizer.json here: export with formats = ('t5x',)"
    )
  rules = proto.normalizer_spec
  steps: list[dict[str, Any]] = []
  if rules.precompiled_charsmap:
    charsmap = base64.b64encode(rules.precompiled_charsmap).decode()
    steps.append({'type': 'Precompiled', 'precompiled_charsmap': charsmap})
  if rules.remove_extra_whitespaces:
    steps.append({'type': 'Strip', 'strip_left': True, 'strip_right': True})
    steps.append({'type': 'Replace', 'pattern': {'Regex': ' {2,}'}, 'content': ' '})
  eos = special['eos_token']
  eos_id = processor.eos_id()
  piece = {'Sequence': {'id': 'A', 'type_id': 0}}
  end = {'SpecialToken': {'id': eos, 'type_id': 0}}
  other = {'Sequence': {'id': 'B', 'type_id': 0}}
  decoder = [
    {'type': 'Replace', 'pattern': {'String': _SPACE}, 'content': ' '},
    {'type': 'ByteFallback'},
    {'type': 'Fuse'},
  ]
  if rules.add_dummy_prefix:
    decoder.append({'type': 'Strip', 'content': ' ', 'start': 1, 'stop': 0})
  return {
    'version': '1.0',
    'truncation': None,
    'padding': None,
    'added_tokens': [
      _added(processor.piece_to_id(text), text)
      for text in sorted(set(special.values()), key=processor.piece_to_id)
    ],
    'normalizer': {'type': 'Sequence', 'normalizers': steps} if steps else None,
    'pre_tokenizer': {
      'type': 'Metaspace',
      'replacement': _SPACE,
      'prepend_scheme': 'always' if rules.add_dummy_prefix else 'never',
      'split': True,
    },
    'post_processor': {
      'type': 'TemplateProcessing',
      'single': [piece, end],
      'pair': [piece, end, other, end],
      'special_tokens': {eos: {'id': eos, 'ids': [eos_id], 'tokens': [eos]}},
    },
    'decoder': {'type': 'Sequence', 'decoders': decoder},
    'model': {
      'type': 'Unigram',
      'unk_id': processor.unk_id(),
      'vocab': [[entry.piece, entry.score] for entry in proto.pieces],
      'byte_fallback': proto.trainer_spec.byte_fallback,
    },
  }


def _added(id_: int, text: str) -> dict[str, Any]:
  plain = dict.fromkeys(('single_word', 'lstrip', 'rstrip', 'normalized'), False)
  return {'id': id_, 'content': text, **plain, 'special': True}


def _parse(model: bytes) -> Any:
  # By name: its classes are made when it is imported, so type checkers find none.
  protos = importlib.import_module('sentencepiece.sentencepiece_model_pb2')
  return protos.ModelProto.FromString(model)

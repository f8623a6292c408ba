"""Corpora of files and the embedded one: pairs, counts, messages, identity."""

import gzip
import json

import pytest

from rest_jax.data import corpora, text_files


def write(path, lines, encoding='utf-8'):
  data = ''.join(line + '\n' for line in lines).encode(encoding)
  path.write_bytes(gzip.compress(data) if path.suffix == '.gz' else data)
  return str(path)


def test_parallel_files(tmp_path):
  source = write(tmp_path / 'a.de.gz', ['eins', '', 'drei\u2028x', ' vier ', 'fünf'])
  target = write(tmp_path / 'a.en', ['one', 'two', 'three', ' ', 'five'])
  corpus = corpora.ParallelTextFiles(train=(source, target), test=[source, target])
  assert corpus.splits == ('train', 'test')
  pairs = corpus('train')
  assert [(p.source, p.reference) for p in pairs] == [
    ('eins', 'one'),
    ('drei\u2028x', 'three'),
    ('fünf', 'five'),
  ]
  assert pairs.counts == {'pairs': 3, 'blank': 2}
  few = corpora.ParallelTextFiles(train=(source, target), max_pairs=2)
  assert [p.source for p in few('train')] == ['eins', 'drei\u2028x']
  assert few.identity() != corpus.identity()
  with pytest.raises(ValueError, match=r"'validation' is unknown.*\['train', 'test'\]"):
    corpus('validation')


def test_identity_follows_contents(tmp_path):
  first = write(tmp_path / 'a', ['x'])
  second = write(tmp_path / 'b', ['y'])
  moved = write(tmp_path / 'c', ['x'])
  make = corpora.ParallelTextFiles
  identity = make((first, second)).identity()
  assert identity == make((moved, second)).identity()
  assert identity != make((second, second)).identity()
  json.dumps(identity)


def test_bad_parallel_files(tmp_path):
  two = write(tmp_path / 'two', ['a', 'b'])
  three = write(tmp_path / 'three', ['a', 'b', 'c'])
  for files, message in [
    ((two, three), 'two has 2 lines but .*three has 3'),
    ((three, two), 'three has 3 lines but .*two has 2'),
    ((two, str(tmp_path / 'none')), 'none is not a file'),
  ]:
    with pytest.raises(ValueError, match=message):
      list(corpora.ParallelTextFiles(files)('train'))
    with pytest.raises(ValueError, match=message):  # a limit hides nothing
      list(corpora.ParallelTextFiles(files, max_pairs=1)('train'))
  (tmp_path / 'latin').write_bytes('a\nf\xfcnf\n'.encode('latin-1'))
  latin = str(tmp_path / 'latin')
  with pytest.raises(ValueError, match=r'latin, line 2: byte 0xfc is not utf-8'):
    list(corpora.ParallelTextFiles((latin, two))('train'))
  corpus = corpora.ParallelTextFiles((latin, two), encoding='latin-1')
  assert [pair.source for pair in corpus('train')] == ['a', 'fünf']
  with pytest.raises(ValueError, match="'klingon' is unknown"):
    list(corpora.ParallelTextFiles((two, two), encoding='klingon')('train'))
  blank = write(tmp_path / 'blank', ['', ' '])
  with pytest.raises(ValueError, match=r'holds no pair \(2 blank\)'):
    list(corpora.ParallelTextFiles((blank, two))('train'))
  whole = gzip.compress(b'a\nb\n' * 500)
  (tmp_path / 'cut.gz').write_bytes(whole[:-9])
  with pytest.raises(ValueError, match=r'cut\.gz, after line .* damaged'):
    list(corpora.SourceText((str(tmp_path / 'cut.gz'),))('train'))
  (tmp_path / 'no.gz').write_bytes(b'plain')
  with pytest.raises(ValueError, match=r'no\.gz, after line 0: .* damaged'):
    list(corpora.SourceText((str(tmp_path / 'no.gz'),))('train'))
  with pytest.raises(ValueError, match=r'must be .source file, target file'):
    corpora.ParallelTextFiles('ab')
  with pytest.raises(ValueError, match='max_pairs 0'):
    corpora.ParallelTextFiles((two, two), max_pairs=0)


def test_line_ends_and_byte_order_mark(tmp_path):
  path = tmp_path / 'a'
  path.write_bytes(b'\xef\xbb\xbfone\r\ntwo\nthree')
  assert list(text_files.lines(path)) == ['one', 'two', 'three']


def test_source_text(tmp_path):
  files = [write(tmp_path / 'a', ['x', '', 'y']), write(tmp_path / 'b.gz', ['z'])]
  corpus = corpora.SourceText(tuple(files), validation=files[1])
  pairs = corpus('train')
  assert list(pairs) == [corpora.Pair(text, None) for text in 'xyz']
  assert pairs.counts == {'pairs': 3, 'blank': 1}
  assert corpus.splits == ('train', 'validation')
  assert len(corpus.identity()['sha256']['train']) == 2


def test_everyday():
  corpus = corpora.EverydayCorpus(60, 20, 10, seed=3)
  assert corpus.splits == ('train', 'validation', 'test')
  assert corpora.EverydayCorpus(5, 5).splits == ('train', 'validation')
  splits = {split: list(corpus(split)) for split in corpus.splits}
  assert [len(pairs) for pairs in splits.values()] == [60, 20, 10]
  sources = [pair.source for pairs in splits.values() for pair in pairs]
  assert len(set(sources)) == 90
  assert all(pair.renderings for pairs in splits.values() for pair in pairs)
  for pairs in (splits['train'], splits['validation']):  # references are imperfect
    wrong = sum(pair.reference not in pair.renderings for pair in pairs)
    assert 0 < wrong < len(pairs)
  assert list(corpus('train')) == splits['train']
  larger = corpora.EverydayCorpus(90, 20, 10, seed=3)
  assert list(larger('validation')) == splits['validation']
  other = corpora.EverydayCorpus(60, 20, 10, seed=4)
  assert list(other('train')) != splits['train']
  assert other.identity() != corpus.identity() == corpus.identity()
  json.dumps(corpus.identity())
  with pytest.raises(ValueError, match='num_train >= 1'):
    corpora.EverydayCorpus(0, 5)

"""Corpora out of TensorFlow Datasets and SeqIO, on data made here."""

import json
import sys

import pytest

from rest_jax.data import corpora

tf = pytest.importorskip('tensorflow', reason='TensorFlow is not installed')
tfds = pytest.importorskip('tensorflow_datasets', reason='TFDS is not installed')
seqio = pytest.importorskip('seqio', reason='SeqIO is not installed')

PAIRS = [('eins', 'one'), ('zwei', 'two'), ('', 'nothing'), ('drei', 'three')]


class TinyTranslation(tfds.core.GeneratorBasedBuilder):
  """Four pairs in German and English."""

  VERSION = tfds.core.Version('1.2.3')
  code_path = None  # TFDS would look for this file's resources

  def _info(self):
    return self.dataset_info_from_configs(
      features=tfds.features.Translation(languages=('de', 'en'))
    )

  def _split_generators(self, dl_manager):
    return {'train': self._examples(PAIRS), 'validation': self._examples(PAIRS[:2])}

  def _examples(self, pairs):
    for key, (de, en) in enumerate(pairs):
      yield key, {'de': de, 'en': en}

  _generate_examples = _examples


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:  # no look at the public bucket
    patch.setattr(tfds.core.utils.gcs_utils, '_is_gcs_disabled', True)
    yield _prepare(tmp_path_factory)


def _prepare(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  TinyTranslation(data_dir=folder).download_and_prepare()
  return str(folder)


def make(data_dir, **changes):
  arguments = {
    'name': 'tiny_translation',
    'source_language': 'de',
    'target_language': 'en',
    'data_dir': data_dir,
  }
  return corpora.TfdsTranslation(**{**arguments, **changes})


def test_tfds(data_dir, tmp_path):
  corpus = make(data_dir)
  assert corpus.splits == ('train', 'validation')
  pairs = corpus('train')
  found = {(pair.source, pair.reference) for pair in pairs}
  assert found == {pair for pair in PAIRS if pair[0]}
  assert pairs.counts == {'pairs': 3, 'blank': 1}
  assert len(list(make(data_dir, train='train[:50%]', max_pairs=1)('train'))) == 1
  turned = make(data_dir, source_language='en', target_language='de')
  assert {pair.source for pair in turned('validation')} == {'one', 'two'}
  identity = corpus.identity()
  assert identity['full_name'] == 'tiny_translation/1.2.3' and json.dumps(identity)
  with pytest.raises(ValueError, match=r"no language 'fr'; known: \['de', 'en'\]"):
    make(data_dir, target_language='fr')('train')
  with pytest.raises(ValueError, match=r'is not prepared in .*download=True'):
    make(str(tmp_path), download=False)('train')
  assert list(make(str(tmp_path))('train'))


@pytest.fixture(scope='module')
def tasks():
  def dataset_fn(split, shuffle_files, seed=None):
    texts = {'inputs': [p[0] for p in PAIRS], 'targets': [p[1] for p in PAIRS]}
    return tf.data.Dataset.from_tensor_slices(texts)

  feature = seqio.Feature(seqio.ByteVocabulary(extra_ids=0))
  prepare = seqio.preprocessors
  drop = lambda dataset: dataset.map(
    lambda example: {key: example[key] for key in ('inputs', 'targets')}
  )
  for name, steps in {
    'with_text': [prepare.tokenize, prepare.append_eos],
    'tokens_only': [prepare.tokenize, prepare.append_eos, drop],
  }.items():
    seqio.TaskRegistry.add(
      name,
      source=seqio.FunctionDataSource(dataset_fn, splits=['train', 'dev']),
      preprocessors=steps,
      output_features={'inputs': feature, 'targets': feature},
    )
  seqio.MixtureRegistry.add('a_mixture', ['with_text'], default_rate=1.0)


@pytest.mark.parametrize('name', ['with_text', 'tokens_only', 'a_mixture'])
def test_seqio(tasks, name):
  corpus = corpora.SeqioTask(name, validation='dev', test=None)
  assert corpus.splits == ('train', 'validation')
  for split in corpus.splits:
    pairs = corpus(split)
    found = [(pair.source, pair.reference) for pair in pairs]
    assert found == [pair for pair in PAIRS if pair[0]]
    assert pairs.counts == {'pairs': 3, 'blank': 1}
  sources = corpora.SeqioTask(name, target_feature=None, max_pairs=2)
  assert list(sources('train')) == [corpora.Pair(t, None) for t in ('eins', 'zwei')]
  json.dumps(corpus.identity())


def test_a_task_is_read_from_its_cache_where_asked(tasks, monkeypatch):
  given = []
  read = seqio.Task.get_dataset
  monkeypatch.setattr(
    seqio.Task,
    'get_dataset',
    lambda self, **k: given.append(k.get('use_cached', False)) or read(self, **k),
  )
  # This task has no place for a cache, so SeqIO reads it as ever.
  plain, cached = (corpora.SeqioTask('with_text', use_cached=c) for c in (False, True))
  assert list(plain('train')) == list(cached('train')) and given == [False, True]
  assert plain.identity() == cached.identity()
  task = seqio.TaskRegistry.get('with_text')
  seqio.TaskRegistry.add(
    'not_cached',
    source=task.source,
    preprocessors=[seqio.CacheDatasetPlaceholder()],
    output_features=task.output_features,
  )
  with pytest.raises(ValueError, match=r'not_cached cannot be read from a cache.*set'):
    corpora.SeqioTask('not_cached', use_cached=True)('train')


def test_seqio_messages(tasks, tmp_path, monkeypatch):
  with pytest.raises(ValueError, match=r"'with_txt'.*nearest are \['with_text'"):
    corpora.SeqioTask('with_txt')('train')
  with pytest.raises(ValueError, match=r"no split 'validation'; known: \['dev'"):
    corpora.SeqioTask('with_text')('validation')
  with pytest.raises(ValueError, match=r"no feature 'src'; known: \['inputs'"):
    list(corpora.SeqioTask('with_text', source_feature='src')('train'))
  with pytest.raises(ValueError, match="'no_such_tasks' cannot be imported"):
    corpora.SeqioTask('x', module_to_import='no_such_tasks')('train')
  (tmp_path / 'my_tasks.py').write_text(
    'import seqio\n'
    "seqio.MixtureRegistry.add('registered_there', ['with_text'], default_rate=1)\n"
  )
  monkeypatch.syspath_prepend(str(tmp_path))
  corpus = corpora.SeqioTask('registered_there', module_to_import='my_tasks')
  assert len(list(corpus('train'))) == 3
  del sys.modules['my_tasks']

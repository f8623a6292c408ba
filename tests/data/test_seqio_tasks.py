"""SeqIO tasks: the same batches as without TensorFlow, and mixtures."""

import collections
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from rest_jax import filters
from rest_jax.data import batches, corpora, group_store, vocabularies

seqio = pytest.importorskip('seqio', reason='SeqIO is not installed')
tf = pytest.importorskip('tensorflow', reason='TensorFlow is not installed')

from rest_jax.data import seqio_tasks, task_batches  # noqa: E402

SHAPE = {'samples': 3, 'buckets': [(4, 4), (6, 7), (9, 9)]}
KEEP = filters.GlobalThreshold(0.4)


@pytest.fixture(scope='module')
def sets(tmp_path_factory, make_group, write_sets):
  folder = tmp_path_factory.mktemp('sets')
  rng = np.random.default_rng(3)
  groups = [make_group(i, int(rng.integers(0, 7))) for i in range(23)]
  write_sets(folder, groups)
  seqio_tasks.register_improve_task(
    'improve_1',
    folder / 'groups',
    vocabulary_path=None,
    reward_dir=folder / 'rewards',
    keep_fn=KEEP,
    **SHAPE,
  )
  return folder, groups


def expected(sets, **changes):
  arguments = {'reward_dir': sets[0] / 'rewards', 'keep_fn': KEEP, **SHAPE, **changes}
  return batches.GroupBatches(sets[0] / 'groups', **arguments)


def assert_equal_batches(left, right):
  assert left.keys() == right.keys()
  for name, value in left.items():
    np.testing.assert_array_equal(value, right[name], err_msg=name)
    assert value.dtype == right[name].dtype


@pytest.mark.parametrize('shuffle', [True, False])
def test_the_same_batches_as_without_tensorflow(sets, shuffle):
  data = expected(sets, batch=4, seed=5, shuffle=shuffle)
  stream = seqio_tasks.batches_from_task(
    'improve_1', batch=4, seed=5, shuffle=shuffle, **SHAPE
  )
  for step in range(int(3 * data.steps_per_epoch)):  # over the ends of epochs
    assert_equal_batches(data.batch(step), next(stream))


def test_no_tuner_is_waited_for_at_the_end(sets, monkeypatch):
  seen = []
  monkeypatch.setattr(task_batches, 'TaskBatches', lambda data, **_: seen.append(data))
  seqio_tasks.batches_from_task('improve_1', batch=4, **SHAPE)
  assert seen[0].options().autotune.enabled is False


@pytest.mark.parametrize('places', [[0, 1], [2, 3], [1]])
def test_a_host_reads_its_own_rows_alone(sets, places):
  data = expected(sets, batch=4, places=np.array(places))
  stream = seqio_tasks.batches_from_task(
    'improve_1', batch=4, start_step=2, places=np.array(places), **SHAPE
  )
  for step in range(2, int(3 * data.steps_per_epoch)):
    assert_equal_batches(data.batch(step), next(stream))
  assert stream.counts['examples'] == (step - 1) * len(places)


@pytest.mark.parametrize('start', [1, 6, 17])
def test_resuming_at_a_step(sets, start):
  data = expected(sets, batch=4)
  stream = seqio_tasks.batches_from_task(
    'improve_1', batch=4, start_step=start, **SHAPE
  )
  for step in range(start, start + 4):
    assert_equal_batches(data.batch(step), next(stream))


def test_one_epoch_through_seqio_itself(sets):
  data = expected(sets, batch=4)
  task = seqio.get_mixture_or_task('improve_1')

  def rows(**arguments):
    dataset = task.get_dataset(sequence_length=None, split='train', **arguments)
    return [json.dumps(e['targets'].tolist()) for e in dataset.as_numpy_iterator()]

  first = rows(seed=5, num_epochs=1)
  assert len(first) == data.index.num_rows
  twice = rows(seed=5, num_epochs=2)
  assert twice[: len(first)] == first
  assert sorted(twice[len(first) :]) == sorted(first) != twice[len(first) :]
  assert twice[len(first) :] != first  # the second epoch has its own order
  assert rows(seed=6, num_epochs=1) != first


def test_a_mixture_of_one_task_equals_the_task(sets):
  seqio.MixtureRegistry.add('alone', ['improve_1'], default_rate=1.0)
  data = expected(sets, batch=4)
  stream = seqio_tasks.batches_from_task('alone', batch=4, **SHAPE)
  for step in range(int(2 * data.steps_per_epoch)):
    assert_equal_batches(data.batch(step), next(stream))
  resumed = seqio_tasks.batches_from_task('alone', batch=4, start_step=9, **SHAPE)
  assert_equal_batches(data.batch(9), next(resumed))


@pytest.fixture(scope='module')
def ordinary_task():
  """An everyday SeqIO task: text, tokenised, rank 1, no rewards."""

  def dataset_fn(split, shuffle_files, seed=None):
    texts = {'inputs': ['q', 'qq'], 'targets': ['z', 'zzz']}
    return tf.data.Dataset.from_tensor_slices(texts)

  feature = seqio.Feature(seqio.ByteVocabulary(extra_ids=0))
  seqio.TaskRegistry.add(
    'ordinary',
    source=seqio.FunctionDataSource(dataset_fn, splits=['train']),
    preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
    output_features={'inputs': feature, 'targets': feature},
  )
  return 'ordinary'


def test_mixing_with_any_task(sets, ordinary_task):
  seqio.MixtureRegistry.add('mixed', [('improve_1', 3.0), (ordinary_task, 1.0)])
  make = lambda start=0: seqio_tasks.batches_from_task(
    'mixed', batch=4, missing_reward=0.25, start_step=start, **SHAPE
  )
  stream, found = make(), []
  for _ in range(40):
    found.append(next(stream))
  byte_q = ord('q') + 3
  theirs, ours = 0, collections.Counter()
  for batch in found:
    for row, source in enumerate(batch['encoder_input_tokens']):
      if source[0] == byte_q and batch['rewards'][row, 0] == 0.25:
        theirs += 1
        assert batch['keep'][row].tolist() == [True, False, False]
        length = int(batch['decoder_loss_weights'][row, 0].sum())
        target = batch['decoder_target_tokens'][row, 0, :length]
        assert set(target[:-1].tolist()) == {ord('z') + 3} and target[-1] == 1
      else:
        ours[int(source[0]) - 3] += 1
  assert 20 <= theirs <= 60  # of 160 rows, by the rates 40; binomial sd 5.5
  wanted = expected(sets, batch=4)
  sources = {
    int(wanted.reader.row(row).source_tokens[0]) - 3
    for row in range(wanted.index.num_rows)
  }
  assert set(ours) == sources
  resumed = make(7)
  for batch in found[7:10]:
    assert_equal_batches(batch, next(resumed))


def test_pairs_mix_in_seqio_itself(sets, ordinary_task):
  data = expected(sets, batch=4)
  task = seqio.get_mixture_or_task('improve_1_pairs')
  dataset = task.get_dataset(sequence_length=None, split='train', shuffle=False)
  found = [
    (e['inputs'].tolist(), e['targets'].tolist(), float(e['rewards']))
    for e in dataset.as_numpy_iterator()
  ]
  wanted = []
  for row in range(data.index.num_rows):
    found_row = data.reader.row(row)
    for tokens, reward in zip(found_row.candidates, found_row.rewards, strict=True):
      wanted.append((found_row.source_tokens.tolist(), tokens.tolist(), float(reward)))
  assert found == wanted and len(wanted) == data.counts.kept_candidates
  seqio.MixtureRegistry.add(
    'pairs_mixed', ['improve_1_pairs', ordinary_task], default_rate=1.0
  )
  mixture = seqio.get_mixture_or_task('pairs_mixed')
  lengths = {'inputs': 9, 'targets': 9}
  mixed = mixture.get_dataset(lengths, split='train', seed=0)
  converted = seqio.EncDecFeatureConverter(pack=False)(mixed, lengths)
  assert set(next(converted.as_numpy_iterator())) >= {'decoder_target_tokens'}


def test_overlong_examples_are_counted(sets):
  short = {'samples': 3, 'buckets': [(5, 4)]}
  for overlong in ('truncate', 'drop'):
    name = f'improve_{overlong}'
    seqio_tasks.register_improve_task(
      name, sets[0] / 'groups', vocabulary_path=None, overlong=overlong, **short
    )
    arguments = {'reward_dir': None, 'keep_fn': None, 'overlong': overlong, **short}
    data = expected(sets, batch=2, **arguments)
    stream = seqio_tasks.batches_from_task(name, batch=2, **short)
    for step in range(8):
      assert_equal_batches(data.batch(step), next(stream))
  stream = seqio_tasks.batches_from_task('improve_1', batch=2, **short)
  with pytest.raises(ValueError, match=r'last bucket is \(5, 4\)'):
    for _ in range(30):
      next(stream)
  index = expected(sets, batch=2)
  for overlong, verb in (('truncate', 'truncated'), ('drop', 'dropped')):
    stream = seqio_tasks.batches_from_task(
      'improve_1', batch=1, overlong=overlong, shuffle=False, **short
    )
    for _ in range(3):
      next(stream)
    read = [index.reader.row(row) for row in range(stream.counts['examples'])]
    long_sources = sum(len(row.source_tokens) > 5 for row in read)
    gone = sum(
      len(c) > 4 or (overlong == 'drop' and len(row.source_tokens) > 5)
      for row in read
      for c in row.candidates
    )
    assert stream.counts[f'{verb}_sources'] == long_sources
    assert stream.counts[f'{verb}_candidates'] == gone > 0


def test_messages(sets, ordinary_task):
  with pytest.raises(ValueError, match=r"'improve_2'.*nearest are .*'improve_1'"):
    seqio_tasks.batches_from_task('improve_2', batch=4, **SHAPE)
  with pytest.raises(ValueError, match=r"no split 'test'; known: \['train'\]"):
    seqio_tasks.batches_from_task('improve_1', batch=4, split='test', **SHAPE)
  with pytest.raises(ValueError, match='start_step -1'):
    seqio_tasks.batches_from_task('improve_1', batch=4, start_step=-1, **SHAPE)
  with pytest.raises(ValueError, match=r"'improve_1' exists already.*replace=True"):
    seqio_tasks.register_improve_task(
      'improve_1', sets[0] / 'groups', vocabulary_path=None, **SHAPE
    )
  stream = seqio_tasks.batches_from_task(
    'improve_1', batch=4, samples=1, buckets=[(9, 9)]
  )
  with pytest.raises(ValueError, match=r'candidates for 1 slots'):
    for _ in range(9):
      next(stream)
  feature = seqio.Feature(seqio.ByteVocabulary(extra_ids=7))
  seqio.TaskRegistry.add(
    'other_vocabulary',
    source=seqio.get_mixture_or_task('ordinary').source,
    preprocessors=[seqio.preprocessors.tokenize],
    output_features={'inputs': feature, 'targets': feature},
  )
  seqio.MixtureRegistry.add(
    'two_vocabularies', ['improve_1', 'other_vocabulary'], default_rate=1.0
  )
  with pytest.raises(ValueError, match='different vocabularies'):
    seqio_tasks.batches_from_task('two_vocabularies', batch=4, **SHAPE)


def test_corpus_artifact(tmp_path, make_group):
  vocabularies.ByteVocabulary().save(tmp_path / 'vocabulary.model')
  groups = [make_group(i, 1) for i in range(3)]
  group_store.write_group_set(tmp_path / 'train', groups)
  group_store.write_group_set(tmp_path / 'validation', groups[:1])
  name = seqio_tasks.register_corpus_tasks(tmp_path, 'my_corpus')
  task = seqio.get_mixture_or_task(name)
  assert set(task.splits) == {'train', 'validation'}
  assert task.num_input_examples('train') == 3
  corpus = corpora.SeqioTask(name)
  pairs = list(corpus('train'))
  assert [(p.source, p.reference) for p in pairs] == [
    (g.source, g.texts[0]) for g in groups
  ]
  dataset = task.get_dataset(split='train', shuffle=False)
  for group, example in zip(groups, dataset.as_numpy_iterator(), strict=True):
    np.testing.assert_array_equal(example['inputs'], group.source_tokens)
    np.testing.assert_array_equal(example['targets'], group.tokens[0])
  with pytest.raises(ValueError, match='is it a corpus artifact'):
    seqio_tasks.register_corpus_tasks(tmp_path / 'train', 'x')


def test_embedded_corpus(tmp_path):
  corpus = corpora.EverydayCorpus(60, 4)
  seqio_tasks.register_everyday_task(corpus, replace=True)
  read = corpora.SeqioTask('rest_jax_everyday_de_en')
  for split in ('train', 'validation'):
    wanted = [(pair.source, pair.reference) for pair in corpus(split)]
    assert [(pair.source, pair.reference) for pair in read(split)] == wanted
  path = tmp_path / 'vocabulary.model'
  texts = [f'{who} sieht {what}.' for who in ('Anna', 'wir') for what in ('Brot', 'es')]
  vocabulary = vocabularies.train_sentencepiece(texts, path, vocab_size=273)
  seqio_tasks.register_everyday_task(corpus, vocabulary_path=path, replace=True)
  task = seqio.get_mixture_or_task('rest_jax_everyday_de_en')
  dataset = task.get_dataset(split='train', shuffle=False)
  for pair, example in zip(corpus('train'), dataset.as_numpy_iterator(), strict=True):
    np.testing.assert_array_equal(example['inputs'], vocabulary.encode(pair.source))
    np.testing.assert_array_equal(example['targets'], vocabulary.encode(pair.reference))


def test_everything_else_runs_without_tensorflow(sets):
  program = """
    import sys
    for name in ('tensorflow', 'seqio', 'tensorflow_datasets', 'tensorflow_text'):
      sys.modules[name] = None  # any import of it fails
    from rest_jax import paths
    from rest_jax.data import batches, corpora, group_store, vocabularies
    from rest_jax.data import seqio_tasks, task_batches, tensorflow_corpora
    folder = paths.as_path(sys.argv[1])
    vocabulary = vocabularies.ByteVocabulary()
    pairs = list(corpora.SourceText((sys.argv[2],))('train'))
    tokens = vocabulary.encode_batch([pair.source for pair in pairs])
    groups = [
      group_store.pair(str(i), pair.source, t, None, None)
      for i, (pair, t) in enumerate(zip(pairs, tokens, strict=True))
    ]
    group_store.write_group_set(folder / 'written', groups)
    data = batches.GroupBatches(
      folder / 'groups', batch=4, samples=3, buckets=[(9, 9)],
      reward_dir=folder / 'rewards',
    )
    print(int(data.batch(3)['decoder_target_tokens'].sum()))
    try:
      corpora.SeqioTask('x')('train')
    except ImportError as error:
      print('blocked')
  """
  folder = sets[0]
  (folder / 'text').write_text('eins\nzwei\n')
  result = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(program), folder, folder / 'text'],
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  data = expected(sets, batch=4, keep_fn=None, buckets=[(9, 9)])
  total = int(data.batch(3)['decoder_target_tokens'].sum())
  assert result.stdout.split() == [str(total), 'blocked']
  assert group_store.num_groups(folder / 'written') == 2

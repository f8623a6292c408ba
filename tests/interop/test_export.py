"""Exports: bits come back, and Transformers and T5X compute what we do.

What needs PyTorch, Transformers or T5X is left out where they are absent.
"""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util

from rest_jax.data import brought_vocabularies, vocabularies
from rest_jax.interop import (
  checkpoint_layouts,
  checkpoint_tensors,
  export_huggingface,
  export_t5x,
  export_tokenizer,
  huggingface,
  initial_checkpoint,
)
from rest_jax.models import t5
from tests.data import test_brought_vocabularies
from tests.data.test_vocabularies import TEXTS
from tests.interop import test_initial_checkpoint as initial

ROWS = 384
CONFIG = dataclasses.replace(initial.CONFIG, vocab_size=ROWS)
FAMILIES = {
  '1.0': dataclasses.replace(initial.V1_0, vocab_size=ROWS),
  '1.1': CONFIG,
  'umT5': dataclasses.replace(initial.UMT5, vocab_size=ROWS),
}
LENGTHS = {'inputs': 40, 'targets': 12}


def make_params(config, seed=0):
  """Random parameters, large enough that every one matters to the logits."""
  rng = np.random.default_rng(seed)
  shapes = traverse_util.flatten_dict(t5.parameter_shapes(config), sep='/')
  drawn = {
    name: rng.normal(float(name.endswith('scale')), 0.25, leaf.shape)
    for name, leaf in shapes.items()
  }
  return traverse_util.unflatten_dict(
    {name: value.astype(np.float32) for name, value in drawn.items()}, sep='/'
  )


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """SentencePiece models by kind of order."""
  folder = tmp_path_factory.mktemp('vocabularies')
  ours = test_brought_vocabularies.train(folder / 'ours.model')
  library = test_brought_vocabularies.train(
    folder / 'library.model', library_order=True
  )
  return {'ours': ours, 'library': library, 'bytes': vocabularies.ByteVocabulary()}


def write(folder, config, vocabulary, params=None, **options):
  params = make_params(config) if params is None else params
  export_huggingface.write(
    folder, params, config, vocabulary, task_feature_lengths=LENGTHS, **options
  )
  return params


@pytest.mark.parametrize(
  ('family', 'order'),
  [('1.0', 'ours'), ('1.1', 'library'), ('1.1', 'bytes'), ('umT5', 'ours')],
)
def test_hugging_face_and_back(tmp_path, files, family, order):
  config, vocabulary = FAMILIES[family], files[order]
  params = write(tmp_path, config, vocabulary)
  assert initial_checkpoint.model_config(tmp_path) == config
  brought = brought_vocabularies.bring(tmp_path)
  assert brought.model_bytes() == vocabulary.model_bytes()
  rows = brought.checkpoint_rows(ROWS)
  initial.assert_equal(initial.restore(tmp_path, config, rows=rows), params)
  generation = json.loads((tmp_path / 'generation_config.json').read_text())
  assert generation['suppress_tokens'] == [0, *range(vocabulary.size, ROWS)]
  assert generation['max_new_tokens'] == 12
  eos = 2 if order == 'library' else 1
  assert generation['eos_token_id'] == eos and generation['decoder_start_token_id'] == 0
  tensors = checkpoint_tensors.open_tensors(tmp_path)
  # Row 2 of MADLAD-400's order is EOS.
  np.testing.assert_array_equal(
    tensors['shared.weight'][eos], params['token_embedder']['embedding'][1]
  )


@pytest.mark.parametrize(
  ('family', 'layout', 'order'),
  [
    ('1.0', None, 'ours'),
    ('1.1', 'scalable', 'library'),
    ('umT5', None, 'bytes'),
  ],
)
def test_t5x_and_back(tmp_path, files, family, layout, order):
  config, vocabulary = FAMILIES[family], files[order]
  params = make_params(config)
  export_t5x.write(tmp_path, params, config, vocabulary, step=30, layout=layout)
  rows = vocabulary.checkpoint_rows(ROWS)
  initial.assert_equal(initial.restore(tmp_path, config, rows=rows), params)
  scanned = dataclasses.replace(config, scan_layers=True)
  found = initial.restore(tmp_path / 'checkpoint_30', scanned, rows=rows)
  # Scanned to minimal and back.
  again = export_t5x.write(
    tmp_path / 'again',
    jax.tree.map(np.asarray, found),
    scanned,
    vocabulary,
    step=30,
    layout=layout,
  )
  assert again is None
  initial.assert_equal(initial.restore(tmp_path / 'again', config, rows=rows), params)
  text = (tmp_path / 'model.gin').read_text()
  network = 'scalable_t5' if (layout or family) in ('scalable', 'umT5') else 't5'
  assert f'from t5x.examples.{network} import network' in text
  assert f"INITIAL_CHECKPOINT_PATH = '{tmp_path}/checkpoint_30'" in text
  assert (tmp_path / 'vocabulary.model').exists() == (order != 'bytes')


def test_bfloat16_halves_the_file(tmp_path, files):
  params = write(tmp_path, CONFIG, files['ours'], dtype='bfloat16')
  found = initial.restore(tmp_path, CONFIG)
  rounded = jax.tree.map(
    lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32), params
  )
  initial.assert_equal(found, rounded)
  with pytest.raises(ValueError, match="dtype 'float16' is unknown; known types"):
    write(tmp_path, CONFIG, files['ours'], params, dtype='float16')


def test_a_head_is_written_beside_the_model(tmp_path):
  params = {
    'head': {'kernel': np.ones((8, 1), np.float32), 'bias': np.ones(1, np.float32)},
    'likelihood': {'weight': np.full(1, 2, np.float32)},
  }
  export_huggingface.write_head(
    tmp_path, params, rating_scale={'mean': 3.0, 'stddev': 0.5}
  )
  tensors = checkpoint_tensors.TensorFile(tmp_path / 'reward_head.safetensors')
  assert tensors['head.kernel'].shape == (8, 1) and tensors['head.bias'][0] == 1
  assert tensors['likelihood.weight'][0] == 2
  assert json.loads((tmp_path / 'reward.json').read_text())['stddev'] == 0.5


def test_what_t5x_s_models_have_fixed_is_refused(tmp_path, files):
  config = dataclasses.replace(CONFIG, relative_attention_num_buckets=16)
  with pytest.raises(ValueError, match='num_buckets is 16; T5X'):
    export_t5x.write(tmp_path, {}, config, files['ours'], step=1)


def test_other_sentencepiece_models_have_no_tokenizer_json(tmp_path):
  vocabulary = vocabularies.train_sentencepiece(
    TEXTS, tmp_path / 'm', vocab_size=300, model_type='bpe'
  )
  with pytest.raises(ValueError, match='another kind than unigram'):
    export_tokenizer.write_tokenizer(tmp_path, vocabulary, max_length=10)


STRANGE = ['', ' two  spaces ', 'Grüße, 世界!', 'ﬁne ½ \u00a0x', 'a<extra_id_0>b 7']


@pytest.mark.parametrize('order', ['ours', 'library', 'sentinels', 'bytes'])
def test_transformers_tokenises_alike(tmp_path, files, order):
  transformers = pytest.importorskip('transformers', reason='its tokenizers')
  if order == 'sentinels':
    files['ours'].save(tmp_path / 'm.model')
    vocabulary = brought_vocabularies.bring(tmp_path / 'm.model', extra_ids=20)
  else:
    vocabulary = files[order]
  write(tmp_path, CONFIG, vocabulary)
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
  rows = vocabulary.checkpoint_rows(ROWS)
  for text in [*TEXTS[::7], *STRANGE]:
    ours = vocabulary.encode(text)
    theirs = tokenizer(text)['input_ids']
    assert theirs == (ours if rows is None else rows[ours]).tolist()
    assert tokenizer.decode(theirs, skip_special_tokens=True) == vocabulary.decode(ours)


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::FutureWarning')
def test_transformers_computes_the_same_and_decodes_alike(tmp_path, files, family):
  transformers = pytest.importorskip('transformers', reason='its models')
  torch = pytest.importorskip('torch', reason='what they run on')
  # Transformers 5.23 cannot generate with fewer encoder than decoder layers.
  config = dataclasses.replace(FAMILIES[family], num_encoder_layers=2)
  vocabulary = files['ours']
  params = write(tmp_path, config, vocabulary)
  model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
  batch = tokenizer(TEXTS[:40:9], return_tensors='pt', padding=True)
  # Transformers 5 scales umT5's logits as if they were tied.
  factor = 1.0
  if family == 'umT5' and model.config.tie_word_embeddings:
    factor = config.emb_dim**0.5
  target = np.random.default_rng(1).integers(3, 300, (5, 1, 9)).astype(np.int32)
  target[..., 0] = 0
  with torch.no_grad():
    theirs = model(**batch, decoder_input_ids=torch.from_numpy(target[:, 0]).long())
  tokens = batch['input_ids'].numpy().astype(np.int32)
  ours = t5.T5(config).apply({'params': params}, tokens, target)[:, 0]
  np.testing.assert_allclose(theirs.logits.numpy() * factor, ours, rtol=0, atol=2e-5)
  generated = model.generate(**batch, do_sample=False).numpy()[:, 1:]
  greedy = greedy_tokens(params, config, vocabulary, tokens)
  for row, found in zip(greedy, generated, strict=True):
    np.testing.assert_array_equal(row[: len(found)], found[: len(row)])


@pytest.mark.parametrize(
  ('kind', 'tied', 'shard'),
  [('T5', True, '50GB'), ('T5', False, '4KB'), ('MT5', False, '50GB')],
)
@pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::FutureWarning')
def test_what_transformers_saves_is_read(tmp_path, kind, tied, shard):
  transformers = pytest.importorskip('transformers', reason='its models')
  torch = pytest.importorskip('torch', reason='what they run on')
  shape = {'d_model': 8, 'd_kv': 3, 'd_ff': 12, 'num_layers': 2, 'num_heads': 2}
  fields = {'vocab_size': 64, 'tie_word_embeddings': tied, 'dropout_rate': 0.0, **shape}
  if kind == 'T5' and not tied:
    fields['feed_forward_proj'] = 'gated-gelu'
  config = getattr(transformers, f'{kind}Config')(**fields)
  model = getattr(transformers, f'{kind}ForConditionalGeneration')(config).eval()
  if not tied:  # Transformers 5 ties every T5 until weights are loaded.
    model.lm_head.weight = torch.nn.Parameter(torch.randn(64, 8) / 3)
  model.save_pretrained(tmp_path, max_shard_size=shard)
  index = tmp_path / checkpoint_tensors.INDEX_FILE
  assert index.exists() == (shard == '4KB')
  ours = initial_checkpoint.model_config(tmp_path)
  assert ours.logits_via_embedding == tied
  params = initial.restore(tmp_path, ours)
  rng = np.random.default_rng(2)
  source, target = (rng.integers(2, 64, (2, n)).astype(np.int32) for n in (9, 7))
  with torch.no_grad():
    theirs = model(
      input_ids=torch.from_numpy(source).long(),
      decoder_input_ids=torch.from_numpy(target).long(),
    ).logits.numpy()
  found = t5.T5(ours).apply({'params': params}, source, target[:, None])[:, 0]
  np.testing.assert_allclose(found, theirs, rtol=0, atol=2e-5)


def greedy_tokens(params, config, vocabulary, tokens):
  """The most likely tokens one after the other, by whole targets; [rows, 12]."""
  target = np.zeros((len(tokens), 1, 13), np.int32)
  apply = jax.jit(t5.T5(config).apply)
  for position in range(12):
    logits = np.array(apply({'params': params}, tokens, target))[:, 0, position]
    logits[:, 0] = logits[:, vocabulary.size :] = -np.inf
    target[:, 0, position + 1] = logits.argmax(axis=-1)
  rows = target[:, 0, 1:]
  ended = np.cumsum(rows == vocabularies.EOS_ID, axis=1) - (rows == 1) > 0
  return np.where(ended, 0, rows)


@pytest.mark.parametrize(
  ('family', 'layout'),
  [('1.0', 'minimal'), ('1.1', 'minimal'), ('1.1', 'scalable'), ('umT5', 'scalable')],
)
def test_t5x_computes_the_same(family, layout):
  place = 't5' if layout == 'minimal' else 'scalable_t5'
  network = pytest.importorskip(
    f't5x.examples.{place}.network', reason='the models that are compared'
  )
  config = dataclasses.replace(FAMILIES[family], num_encoder_layers=2)
  shared = ('vocab_size', 'emb_dim', 'num_heads', 'head_dim', 'mlp_dim', 'dtype')
  shared += ('num_encoder_layers', 'num_decoder_layers', 'mlp_activations')
  fields = {name: getattr(config, name) for name in shared}
  theirs = network.Transformer(
    network.T5Config(
      **fields, dropout_rate=0.0, logits_via_embedding=config.logits_via_embedding
    )
  )
  params = make_params(config)
  rng = np.random.default_rng(1)
  source, target = (rng.integers(2, ROWS, (3, n)).astype(np.int32) for n in (20, 18))
  source[1, 7:] = 0
  inputs = np.pad(target[:, :-1], ((0, 0), (1, 0)))
  tree = checkpoint_layouts.in_t5x_layout(params, config, layout)
  found = theirs.apply({'params': tree}, source, inputs, target, enable_dropout=False)
  ours = t5.T5(config).apply({'params': params}, source, inputs[:, None])[:, 0]
  np.testing.assert_allclose(found, ours, rtol=0, atol=2e-5)


def test_names_are_those_of_hugging_face(tmp_path, files):
  write(tmp_path, FAMILIES['1.0'], files['ours'])
  tensors = checkpoint_tensors.open_tensors(tmp_path)
  assert 'lm_head.weight' not in tensors  # tied: it would be there twice
  assert not set(tensors) & set(huggingface.EMBEDDING_COPIES)

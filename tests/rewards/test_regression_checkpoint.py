"""Imported checkpoints score as in Transformers, however texts are batched."""

import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from rest_jax.data import group_store
from rest_jax.interop import checkpoint_tensors, huggingface
from rest_jax.models import heads, t5
from rest_jax.rewards import metricx, regression_checkpoint
from rest_jax.training import mesh as mesh_lib
from tests import devices, minimal_run
from tests.interop import test_huggingface
from tests.rewards import test_text

GOLDEN = test_huggingface.GOLDENS / 'regression_mt5'
SCORES = json.loads((GOLDEN / 'scores.json').read_text())
# float32 sums of some hundred terms, in another order; logits go up to 44.
ABSOLUTE = 2e-4


def convention(name='metricx_24', **changes):
  made = getattr(metricx, name)()
  options = {'token': SCORES['token'], 'max_input_tokens': SCORES['longest']}
  return dataclasses.replace(made, **options | changes)


def scorer(*, name='metricx_24', directory=GOLDEN, **options):
  mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
  options = {'mesh': mesh, 'batch_tokens': 512} | options
  return regression_checkpoint.RegressionCheckpoint(
    directory, convention=options.pop('convention', convention(name)), **options
  )


def texts():
  """Texts of many lengths, more than a batch."""
  sources = [row['source'] + row['candidate'] for row in SCORES['rows'][:6]]
  return [f'{source[:i]} candidate: {source}' for source in sources for i in range(9)]


def _group(rows):
  group = test_text._group([row['candidate'] for row in rows])
  first = {key: rows[0][key] for key in ('source', 'reference')}
  return dataclasses.replace(group, **first)


@pytest.mark.parametrize('name', sorted({row['convention'] for row in SCORES['rows']}))
def test_scores_are_those_of_transformers(name, caplog):
  rows = [row for row in SCORES['rows'] if row['convention'] == name]
  with caplog.at_level(logging.WARNING):
    found = scorer(name=name)([_group([row]) for row in rows])
  expected = [1 - row['score'] / 25 for row in rows]
  np.testing.assert_allclose(np.concatenate(found), expected, atol=ABSOLUTE / 25)
  outside = [row for row in rows if row['score'] != row['logit']]
  assert outside, 'nothing is clipped'
  cut = any('1 of 6 inputs have more than' in r.getMessage() for r in caplog.records)
  assert cut == (name != 'metricx_23')  # two English texts are shorter
  unclipped = convention(name, clip=None, worst=0.0, best=1.0)
  found = scorer(convention=unclipped)([_group([row]) for row in rows])
  logits = [row['logit'] for row in rows]
  np.testing.assert_allclose(np.concatenate(found), logits, atol=ABSOLUTE)


def test_metricx_asks_for_its_own_token_and_lengths():
  # mT5's vocabulary of 250,112; the models were trained with these lengths.
  longest = {'metricx_24_qe': 1536, 'metricx_24': 1536, 'metricx_23_qe': 1024}
  for name, length in (longest | {'metricx_23': 1024}).items():
    found = getattr(metricx, name)()
    assert found.token == 250089 and found.max_input_tokens == length
    assert found.clip == (0.0, 25.0) and not found.keep_eos
    assert found.rewards(np.array([-3.0, 5.0, 30.0])).tolist() == [
      1.0, np.float32(0.8), 0.0,
    ]  # fmt: skip


def test_scores_do_not_depend_on_batch_and_order():
  found = scorer().logits(texts())
  assert np.ptp(found) > 5
  alone = scorer(batch_tokens=1).logits(texts())  # each in a batch of its own
  np.testing.assert_allclose(alone, found, atol=ABSOLUTE)
  backwards = scorer().logits(texts()[::-1])
  np.testing.assert_allclose(backwards[::-1], found, atol=ABSOLUTE)
  few = [scorer().logits([text])[0] for text in texts()[-3:]]
  np.testing.assert_allclose(few, found[-3:], atol=ABSOLUTE)
  np.testing.assert_array_equal(scorer().logits(texts()), found)


def test_equal_candidates_are_scored_once(monkeypatch):
  one = scorer(name='metricx_24_qe')
  seen = []
  logits = one.logits
  monkeypatch.setattr(one, 'logits', lambda texts: seen.extend(texts) or logits(texts))
  groups = [
    test_text._group(['a dog', 'a cat', 'a dog']),
    test_text._group([]),
    test_text._group(['a cat', '']),
    dataclasses.replace(test_text._group(['a dog']), source='Hund'),
  ]
  rewards = one(groups)
  test_text._assert_arrays(rewards, groups)
  assert len(seen) == len(set(seen)) == 4
  assert rewards[0][0] == rewards[0][2] != rewards[0][1] == rewards[2][0]
  assert rewards[3][0] != rewards[0][0]
  assert [len(values) for values in one([groups[1]])] == [0]


@pytest.mark.parametrize('name', test_huggingface.NAMES)
def test_the_head_is_a_column_of_the_logits(name):
  # Tied logits are scaled, untied ones are not; the second of two decoder steps.
  config, state = test_huggingface.load(name)
  params = huggingface.params_from_huggingface(state, config)
  tokens = np.load(test_huggingface.GOLDENS / f'{name}.npz')['encoder_input_tokens']
  steps = np.tile(np.array([0, 7], np.int32), (len(tokens), 1, 1))
  logits = jax.jit(t5.T5(config).apply)({'params': params}, tokens, steps)[:, 0, 1, 33]
  head = regression_checkpoint.regression_params(state, config, 33)
  shapes = t5.parameter_shapes(config, heads.ScalarHeadT5)
  assert jax.tree.map(np.shape, head) == jax.tree.map(lambda leaf: leaf.shape, shapes)
  found = regression_checkpoint._predict(
    head,
    tokens,
    config=config,
    decoder_input_tokens=(0, 7),
    mesh=mesh_lib.make_mesh(devices=jax.devices()[:1]),
  )
  np.testing.assert_allclose(found, logits, atol=1e-5)
  assert np.ptp(logits) > 0.1


def test_a_convention_may_keep_eos():
  kept, cut = (scorer(convention=convention(keep_eos=keep)) for keep in (True, False))
  tokens = [one._tokens(['ab', 'ab' * 90]) for one in (kept, cut)]
  for with_eos, without in zip(*tokens, strict=True):
    assert with_eos[-1] == 1 and with_eos.dtype == np.int32
    np.testing.assert_array_equal(with_eos[:-1], without)
  assert [len(row) for row in tokens[0]] == [len(tokens[1][0]) + 1, 48]


def test_bfloat16_is_near():
  long = [text for text in texts() if len(text) > 90]  # one program
  found = scorer(dtype='bfloat16').logits(long)
  expected = scorer().logits(long)
  # Eight bits of a sum whose parts are as large as the largest logit.
  np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
  assert not np.array_equal(found, expected)


# The learned model's scores are of size 10, the logits of the other go up to 44.
@pytest.mark.parametrize(
  ('name', 'atol'), [('regression', ABSOLUTE), ('learned', 2e-5)]
)
def test_eight_devices_score_as_one(name, atol):
  done = subprocess.run(
    [sys.executable, '-m', 'tests.rewards.eight_devices', name],
    cwd=minimal_run.ROOT,
    env=os.environ | {'XLA_FLAGS': devices.xla_flags(8)},
    capture_output=True,
    text=True,
    timeout=250,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  found = json.loads(done.stdout.splitlines()[-1])
  assert found['range'] > 5 and len(found['gaps']) == 4
  assert max(found['gaps'].values()) < atol, found


def test_the_identity_is_of_contents_and_convention(tmp_path):
  identity = scorer().identity()
  json.dumps(identity)
  shutil.copytree(GOLDEN, tmp_path / 'copy')
  copy = scorer(directory=tmp_path / 'copy', batch_tokens=64)
  assert copy.identity() == identity
  assert scorer(convention=convention(token=3)).identity() != identity
  assert scorer(dtype='bfloat16').identity() != identity
  state = dict(checkpoint_tensors.open_tensors(GOLDEN))
  state['lm_head.weight'] = 2 * state['lm_head.weight']
  checkpoint_tensors.write_tensors(tmp_path / 'copy' / 'model.safetensors', state)
  changed = scorer(directory=tmp_path / 'copy')
  assert changed.identity() != identity
  # And the parameters in memory are those of the changed file.
  doubled = 2 * scorer().logits(['ab'])
  np.testing.assert_allclose(changed.logits(['ab']), doubled, rtol=1e-6)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'template': '{source}'}, 'must have {candidate}'),
    ({'template': '{candidate} {target}'}, 'has no other field'),
    ({'token': -1}, 'give the id of a token'),
    ({'decoder_input_tokens': ()}, 'at least one for the decoder'),
    ({'max_input_tokens': 1}, 'must be at least 2'),
    ({'clip': (1.0, 1.0)}, 'must be below'),
    ({'worst': 2.0, 'best': 2.0}, 'finite and differ'),
  ],
)
def test_conventions_that_cannot_be(changes, message):
  with pytest.raises(ValueError, match=message):
    convention(**changes)


def test_what_does_not_fit_is_named(tmp_path):
  with pytest.raises(ValueError, match=r'96 tokens, and .*has token 250089'):
    scorer(convention=metricx.metricx_24())
  with pytest.raises(ValueError, match='no reference'):
    scorer()([test_text._group(['a'], reference=None)])
  scorer(name='metricx_24_qe')([test_text._group(['a'], reference=None)])
  bare = convention(template='{candidate}')
  with pytest.raises(ValueError, match="the text '' has no token"):
    scorer(convention=bare)([test_text._group([''])])
  shutil.copytree(GOLDEN, tmp_path / 'copy')
  (tmp_path / 'copy' / 'spiece.model').unlink()
  with pytest.raises(ValueError, match=r'spiece\.model does not exist'):
    scorer(directory=tmp_path / 'copy')
  vocabulary = GOLDEN / 'spiece.model'
  scorer(directory=tmp_path / 'copy', vocabulary_path=vocabulary)


def test_a_new_model_scores_as_in_transformers(tmp_path):
  reason = 'compares with a live model; the golden does without'
  torch = pytest.importorskip('torch', reason=reason)
  transformers = pytest.importorskip('transformers', reason=reason)
  from tests.goldens import make_regression_goldens

  # Its tokenizer and SentencePiece agree on odd spaces, too.
  tokenizer = transformers.T5Tokenizer.from_pretrained(GOLDEN)
  tokens = scorer(convention=convention(keep_eos=True, max_input_tokens=200))._tokens
  odd = [*texts(), '  two  spaces ', 'source:  candidate: ']
  for text, row in zip(odd, tokens(odd), strict=True):
    assert tokenizer(text)['input_ids'] == row.tolist(), text
  model = make_regression_goldens.make_model()
  for dtype in (torch.float32, torch.bfloat16):
    folder = tmp_path / str(dtype)
    model.to(dtype).save_pretrained(folder, max_shard_size='8KB')
    assert len(list(folder.glob('model-*.safetensors'))) > 2
    read = transformers.MT5ForConditionalGeneration.from_pretrained(
      folder, dtype=torch.float32
    )
    one = scorer(
      directory=folder,
      vocabulary_path=GOLDEN / 'spiece.model',
      convention=convention(max_input_tokens=200),
    )
    expected = [
      make_regression_goldens.score(read, [*row.tolist(), 1])
      for row in one._tokens(texts())
    ]
    np.testing.assert_allclose(one.logits(texts()), expected, atol=ABSOLUTE)


def test_no_group_is_changed():
  group = test_text._group(['a'])
  before = group_store.to_table([group])
  scorer()([group])
  assert group_store.to_table([group]).equals(before)

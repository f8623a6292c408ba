"""Supervise from a checkpoint: taken as it is, trained on, or refused."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from rest_jax.data import vocabularies
from rest_jax.interop import initial_checkpoint
from rest_jax.models import t5
from rest_jax.stages import policies, supervise
from rest_jax.training import optimiser
from tests.interop import example_checkpoints as example
from tests.stages import untrained

CONFIG = dataclasses.replace(example.CONFIG, vocab_size=384)
LENGTHS = {'inputs': 32, 'targets': 48}


def start(run, corpus, path, *, steps=0, config=CONFIG, name='bc'):
  return supervise.supervise(
    run,
    corpus=corpus,
    name=name,
    config=config,
    initial_checkpoint=None if path is None else str(path),
    optimiser=optimiser.Adafactor(
      learning_rate=1e-2,
      warmup_steps=1,
      schedule=functools.partial(optimiser.linear_decay_schedule, num_steps=steps),
    ),
    num_steps=steps,
    batch_size=8,
    task_feature_lengths=LENGTHS,
    eval_period_steps=2,
  )


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """A run with a corpus, and a model with that corpus's vocabulary."""
  folder = tmp_path_factory.mktemp('start')
  run = untrained.run(folder / 'run')
  corpus = untrained.corpus(run, num_validation=8, num_test=8)
  params = jax.tree.map(lambda x: 0.3 * x, example.make_params(CONFIG))
  model = example.write_huggingface(folder / 'model', params, CONFIG)
  vocabulary = corpus.path / policies.VOCABULARY_FILE
  (model / 'spiece.model').write_bytes(vocabulary.read_bytes())
  return run, corpus, params, model


def test_no_steps_take_the_checkpoint_as_it_is(prepared):
  run, corpus, params, model = prepared
  bc = start(run, corpus, model)
  loaded = policies.load_model(bc.path, t5.T5, run)
  jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
  assert loaded.config == CONFIG and loaded.step == 0
  results = bc.results
  assert results['best_step'] == results['steps'] == 0
  assert np.isfinite(results['best_metric'])
  expected = initial_checkpoint.identity(model)
  assert bc.record['params']['initial_checkpoint'] == expected
  assert start(run, corpus, model) == bc  # reused


def test_training_goes_on_from_the_checkpoint(prepared, tmp_path):
  _, corpus, params, model = prepared
  run = untrained.run(tmp_path)
  as_it_is = start(run, corpus, model, name='a')
  trained = start(run, corpus, model, steps=4, name='b')
  assert trained.results['curves']['eval_held_out_loss']['values'][0] == (
    pytest.approx(as_it_is.results['best_metric'])
  )
  assert trained.results['best_metric'] < as_it_is.results['best_metric']
  loaded = policies.load_model(trained.path, t5.T5, run).params
  moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), loaded, params)
  assert max(jax.tree.leaves(moved)) > 1e-3


def test_a_run_s_own_policy_is_a_checkpoint_too(prepared, tmp_path):
  run, corpus, params, model = prepared
  bc = start(run, corpus, model)
  again = start(untrained.run(tmp_path), corpus, bc.path)
  loaded = policies.load_model(again.path, t5.T5, run)
  jax.tree.map(np.testing.assert_array_equal, loaded.params, params)


def test_without_a_checkpoint_the_fingerprint_knows_nothing_of_it(prepared, tmp_path):
  _, corpus, _, _ = prepared
  run = untrained.run(tmp_path, dry_run=True)
  planned = start(run, corpus, None)
  assert planned.fingerprint != start(run, corpus, prepared[3], name='c').fingerprint
  random = start(untrained.run(tmp_path / 'random'), corpus, None)
  assert 'initial_checkpoint' not in random.record['params']


def test_another_vocabulary_is_refused(prepared, tmp_path):
  _, corpus, params, _ = prepared
  model = example.write_huggingface(tmp_path / 'model', params, CONFIG)
  vocabularies.train_sentencepiece(
    ['ein kleiner Satz'] * 3, model / 'spiece.model', vocab_size=272
  )
  with pytest.raises(ValueError, match=r'of 300 ids is not that of .*model, of 272'):
    start(untrained.run(tmp_path / 'run'), corpus, model)
  (model / 'spiece.model').unlink()
  text = json.dumps({'tokenizer_class': 'ByT5Tokenizer'})
  (model / 'tokenizer_config.json').write_text(text)
  with pytest.raises(ValueError, match=r'of 300 ids is not that of .*model, of 259'):
    start(untrained.run(tmp_path / 'run'), corpus, model)


def test_another_shape_is_refused(prepared, tmp_path):
  _, corpus, _, model = prepared
  wider = dataclasses.replace(CONFIG, mlp_dim=12)
  with pytest.raises(ValueError, match='mlp_dim is 10 in the checkpoint and 12 in'):
    start(untrained.run(tmp_path), corpus, model, config=wider)

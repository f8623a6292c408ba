"""The probe stage, with an untrained policy and scorers whose answers are known."""

import json

import pyarrow.parquet as pq
import pytest

from rest_jax.rewards import probes as probes_lib
from rest_jax.rewards import text
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import probe
from tests.stages import untrained

LENGTHS = {'inputs': 32, 'targets': 48}
SETTINGS = sampler_lib.SamplerSettings(batch_size=8)
SOURCES, SAMPLES = 6, 2


def loves_copies(source, candidate, reference):
  """An oracle but for copies of the source, which it loves."""
  return 2.0 if candidate == source else float(candidate == reference)


@pytest.fixture(scope='module')
def house(tmp_path_factory):
  """The MODEL_DIR and what the stage reads, as its arguments."""
  model_dir = tmp_path_factory.mktemp('probe') / 'run'
  run = untrained.run(model_dir)
  corpus = untrained.corpus(run, num_validation=8, num_test=2)
  policy = untrained.policy(run, corpus)
  return model_dir, {'corpus': corpus, 'policy': policy, 'reward_model': policy}


def _probe(run, inputs, **changed):
  options = {
    'scorer': text.PerCandidate(loves_copies, name='copier'),
    'num_sources': SOURCES,
    'num_samples': SAMPLES,
    'task_feature_lengths': LENGTHS,
    'sampler': SETTINGS,
  }
  return probe.probe(run, **inputs, **(options | changed))


@pytest.fixture(scope='module')
def found(house):
  model_dir, inputs = house
  return _probe(untrained.run(model_dir), inputs)


def _row(results, name):
  (row,) = (row for row in results['rows'] if row['name'] == name)
  return row


def test_the_artifact_holds_every_pair_and_the_shares_of_them(found):
  assert found.name == 'probe_copier'
  results = found.results
  assert json.loads((found.path / 'probes.json').read_text()) == results
  pairs = pq.read_table(found.path / 'probes.parquet').to_pylist()
  for row in results['rows']:
    mine = [pair for pair in pairs if pair['probe'] == row['name']]
    assert len(mine) == row['pairs']
    right = [pair['reward_better'] > pair['reward_worse'] for pair in mine]
    if mine:
      assert row['share'] == (0 if row['name'] == 'copied_source' else 1) == min(right)
  assert results['scorer'] == 'copier' and results['split'] == 'validation'
  assert results['num_sources'] == SOURCES
  assert _row(results, 'copied_source')['pairs'] == SOURCES


def test_samples_are_the_policys(found):
  row = _row(found.results, 'sampled_candidates')
  # An untrained policy's samples are neither correct nor alike.
  assert row['pairs'] + row['left_out'] == SOURCES * SAMPLES


def test_without_samples_the_policy_is_no_input(house, tmp_path):
  model_dir, inputs = house
  run = untrained.run(tmp_path, reuse_from=(str(model_dir),))
  probed = _probe(run, inputs, num_samples=0)
  assert set(probed.record['inputs']) == {'corpus'}
  row = _row(probed.results, 'sampled_candidates')
  assert (row['pairs'], row['not_applicable']) == (0, SOURCES)


def test_a_share_below_its_minimum_is_refused_and_a_lower_one_goes_on(
  house, tmp_path, capsys
):
  model_dir, inputs = house
  run = untrained.run(tmp_path, reuse_from=(str(model_dir),))
  minimum = {'copied_source': 0.9, 'gibberish': 0.9}
  with pytest.raises(ValueError, match=r'copier is not .*to go on with') as error:
    _probe(run, inputs, minimum=minimum, seed=5)
  message = str(error.value)
  assert 'copied_source: 0.0% of 6 pairs, and at least 90.0% is asked for' in message
  assert 'gibberish' not in message and 'lower probe.probe.minimum' in message
  # What it was refused by can be looked at, and was printed.
  assert (tmp_path / 'probe_copier' / 'probes.parquet').exists()
  assert 'copied_source !' in capsys.readouterr().out
  again = untrained.run(tmp_path, reuse_from=(str(model_dir),))
  _probe(again, inputs, minimum={'copied_source': 0.0}, seed=5)
  assert [entry.outcome for entry in again.history] == ['reused']
  assert 'copied_source !' in capsys.readouterr().out
  with pytest.raises(ValueError, match='overall: 9'):
    _probe(again, inputs, minimum={'overall': 0.99}, seed=5)


def test_a_plan_asks_for_no_minimum(house, found, capsys):
  model_dir, inputs = house
  run = untrained.run(model_dir, dry_run=True)
  assert _probe(run, inputs, minimum={'copied_source': 1.0}).finished
  assert 'copied_source' not in capsys.readouterr().out


def test_each_reward_model_is_probed_under_its_own_name(house):
  model_dir, inputs = house
  names = []
  for name in ('reward_model', 'reward_model_2'):
    reward_model = untrained.artifact.Artifact(
      name, 'train_reward', model_dir / name, name, False
    )
    run = untrained.run(model_dir, dry_run=True)
    found = _probe(run, inputs | {'reward_model': reward_model}, scorer=None)
    names.append(found.name)
  assert names == ['probe_reward_model', 'probe_reward_model_2']


def my_probe(material, rng):
  """A probe of a user's own."""
  del rng
  return (probes_lib.Pair(material.reference, material.reference.upper()),)


def test_a_probe_of_ones_own_joins(house):
  model_dir, inputs = house
  run = untrained.run(model_dir)
  probed = _probe(run, inputs, name='probe_mine', probes=(my_probe,))
  assert [row['name'] for row in probed.results['rows']] == ['my_probe']
  assert probed.record['params']['probes'] == [f'{__name__}.my_probe']


@pytest.mark.parametrize(
  ('changed', 'told'),
  [
    ({'minimum': {'copied': 0.5}}, "'copied', which is no probe; known: dropped_"),
    ({'probes': (my_probe, my_probe)}, 'names of their own'),
    ({'probes': ()}, 'must be some'),
    (
      {'split': 'dev', 'name': 'probe_dev'},
      r"no split 'dev'; known: \['test', 'train', 'valid",
    ),
  ],
)
def test_what_cannot_be_is_refused(house, changed, told):
  model_dir, inputs = house
  with pytest.raises(ValueError, match=told):
    _probe(untrained.run(model_dir), inputs, **changed)


def test_a_reward_that_is_not_finite_is_named(house):
  model_dir, inputs = house

  class Broken:
    name = 'broken'

    def identity(self):
      return {}

    def __call__(self, groups):
      return [[float('nan')] * len(group.texts) for group in groups]

  with pytest.raises(ValueError, match=r'scorer gave nan .* must be finite'):
    _probe(untrained.run(model_dir), inputs, scorer=Broken(), name='probe_broken')

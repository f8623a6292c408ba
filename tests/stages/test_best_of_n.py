"""The stage best_of_n, on a corpus and a policy of the smallest size.

The policy is not trained, and the reward is a count of letters: what is tested holds
for any.
"""

import itertools
import zlib

import numpy as np
import pytest

from rest_jax.data import group_store, reward_store, shards
from rest_jax.evaluation import intervals, text_metrics
from rest_jax.rewards import normalisers, text
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import best_of_n, grow, score
from tests.stages import untrained

LENGTHS = {'inputs': 32, 'targets': 16}  # one program samples all
SOURCES, SAMPLES, NUMBERS = 5, 12, (1, 2, 5, 10)
SETTINGS = sampler_lib.SamplerSettings(batch_size=8)


def vowels(source, candidate, reference):
  """The reward."""
  del source, reference
  return sum(candidate.count(vowel) for vowel in 'aeiou') / (1 + len(candidate))


def shortest(source, candidate, reference):
  """A judge of a user's own."""
  del source, reference
  return -len(candidate)


@pytest.fixture(scope='module')
def house(tmp_path_factory):
  """What the stage reads, as its arguments, and the MODEL_DIR of it."""
  model_dir = tmp_path_factory.mktemp('best_of_n') / 'run'
  run = untrained.run(model_dir)
  corpus = untrained.corpus(run, num_validation=12, num_test=12)
  policy = untrained.policy(run, corpus)
  samples = grow.grow(
    run,
    name='grow_1',
    corpus=corpus,
    policy=policy,
    num_samples=SAMPLES,
    num_sources=SOURCES,
    with_data=False,
    task_feature_lengths=LENGTHS,
    sampler=SETTINGS,
  )
  scorer = text.PerCandidate(vowels)
  rewards = score.score(
    run,
    name='score_1',
    samples=samples,
    scorer=scorer,
    normaliser=normalisers.EmpiricalCdf.fit,
    num_gold_sources=0,
    task_feature_lengths=LENGTHS,
  )
  return model_dir, {
    'corpus': corpus,
    'policy': policy,
    'reward_model': policy,  # not read, since there is a scorer
    'rewards': rewards,
    'scorer': scorer,
  }


def _best_of_n(run, inputs, **changed):
  options = {
    'name': 'best_of_n_bc',
    'judges': (text.PerCandidate(shortest),),
    'num_sources': SOURCES,
    'num_samples': SAMPLES,
    'num_draws': 8,
    'task_feature_lengths': LENGTHS,
    'sampler': SETTINGS,
  }
  return best_of_n.best_of_n(run, **inputs, **(options | changed))


@pytest.fixture(scope='module')
def found(house):
  model_dir, inputs = house
  return _best_of_n(untrained.run(model_dir), inputs)


def _read(path, kind='rewards'):
  files = shards.list_shards(path, kind)
  return [reward_store.read_rewards(file) for file in files]


def _values(path):
  return [values for shard in _read(path) for values in shard.rewards]


def _row(found, judge, n):
  (row,) = (r for r in found.results['rows'] if (r['judge'], r['n']) == (judge, n))
  return row


JUDGES = ('reward', 'gold', 'shortest', 'minimum_bayes_risk')


def test_there_is_a_row_for_every_judge_and_n(found):
  rows = found.results['rows']
  pairs = [(row['judge'], row['n']) for row in rows]
  assert pairs == list(itertools.product(JUDGES, NUMBERS))
  for row in rows:
    for name in ('reward_mean', 'raw_reward_mean', 'gold_mean', 'bleu', 'chrf'):
      low, high = row[f'{name.removesuffix("_mean")}_interval']
      assert low <= row[name] <= high, (row['judge'], row['n'], name)
    assert row['bleu_stddev'] >= 0 and row['chrf_stddev'] >= 0
  assert found.results['num_sources'] == SOURCES
  assert found.results['samples_per_source'] == SAMPLES
  assert set(found.results['gold_spearman_in_groups']) == set(JUDGES) - {'gold'}


def test_the_artifact_holds_pools_that_join_their_judgements(found):
  groups = list(group_store.iterate_groups(found.path))
  assert [group.num_candidates for group in groups] == [SAMPLES] * SOURCES
  assert len({group.source_id for group in groups}) == SOURCES
  ids = tuple(group.source_id for group in groups)
  for folder in ('', 'gold', 'minimum_bayes_risk', 'shortest'):
    assert [shard.source_ids for shard in _read(found.path / folder)] == [ids]
  gold = text.Gold()(groups)
  np.testing.assert_array_equal(_values(found.path / 'gold'), gold)
  assert np.ptp(np.concatenate(gold)) > 0.01  # there is something to choose


@pytest.mark.parametrize('judge', ['reward', 'gold', 'shortest'])
def test_rows_are_the_mean_over_all_subsets(found, judge):
  judged = _values(found.path / ('' if judge == 'reward' else judge))
  values = {
    'raw_reward_mean': _values(found.path),
    'reward_mean': [v for shard in _read(found.path) for v in shard.normalised],
    'gold_mean': _values(found.path / 'gold'),
  }
  for n in (1, 2, 10):
    subsets = np.array(list(itertools.combinations(range(SAMPLES), n)))
    for name, by_source in values.items():
      means = []
      for mine, value in zip(judged, by_source, strict=True):
        top = mine[subsets] == mine[subsets].max(axis=1, keepdims=True)
        means.append(((top * value[subsets]).sum(1) / top.sum(1)).mean())
      assert _row(found, judge, n)[name] == pytest.approx(np.mean(means), rel=1e-6)


def test_every_judge_is_the_same_with_one_sample_to_choose_from(found):
  first, *others = (_row(found, judge, 1) for judge in JUDGES)
  for other in others:
    for name in ('reward_mean', 'gold_mean', 'bleu', 'chrf'):
      assert other[name] == pytest.approx(first[name], rel=1e-9)


def test_judges_raise_what_they_judge(found):
  rising = lambda judge, name: [_row(found, judge, n)[name] for n in NUMBERS]
  for judge, name in (('reward', 'raw_reward_mean'), ('gold', 'gold_mean')):
    means = rising(judge, name)
    assert means == sorted(means) and means[-1] > means[0]
  # No judge reaches the gold of the perfect one.
  for judge in JUDGES:
    for n in NUMBERS:
      best = _row(found, 'gold', n)['gold_mean']
      assert _row(found, judge, n)['gold_mean'] <= best + 1e-9


class Checksum:
  """A judge of no taste and no ties: different texts have different values."""

  name = 'checksum'

  def identity(self):
    return {}

  def __call__(self, groups):
    return [
      np.array([zlib.crc32(text.encode()) % 2**20 for text in group.texts], np.float32)
      for group in groups
    ]


def test_text_metrics_at_the_whole_pool_are_of_the_selected_texts(house, tmp_path):
  model_dir, inputs = house
  run = untrained.run(tmp_path, reuse_from=(str(model_dir),))
  numbers = (SAMPLES,)
  whole = _best_of_n(run, inputs, numbers=numbers, judges=(Checksum(),))
  groups = list(group_store.iterate_groups(whole.path))
  judged = _values(whole.path / 'checksum')
  best = [g.texts[v.argmax()] for g, v in zip(groups, judged, strict=True)]
  references = [group.reference for group in groups]
  row = _row(whole, 'checksum', SAMPLES)
  expected = text_metrics.corpus_chrf(best, references)
  assert row['chrf'] == pytest.approx(expected.score, rel=1e-9)
  assert row['bleu'] == pytest.approx(
    text_metrics.corpus_bleu(best, references).score, rel=1e-9, abs=1e-9
  )
  interval = intervals.bootstrap_chrf(best, references, seed=0)
  assert row['chrf_interval'] == pytest.approx([interval.low, interval.high])
  assert whole.results['chrf_signature'] == expected.signature


def same_vowels(candidates, pseudo_references):
  """A utility that is not chrF: 1 for texts with equally many vowels, less else."""
  counts = [
    np.array([sum(text.count(vowel) for vowel in 'aeiou') for text in texts])
    for texts in (candidates, pseudo_references)
  ]
  return 1 / (1 + np.abs(counts[0][:, None] - counts[1][None, :]))


def test_minimum_bayes_risk_is_of_the_utility_that_was_given(house, found, tmp_path):
  model_dir, inputs = house
  run = untrained.run(tmp_path, reuse_from=(str(model_dir),))
  changed = _best_of_n(run, inputs, utility=same_vowels)
  groups = list(group_store.iterate_groups(changed.path))
  rewards, expected = _values(changed.path), []
  for group, mine, stored in zip(
    groups, rewards, _values(changed.path / 'minimum_bayes_risk'), strict=True
  ):
    utilities = same_vowels(group.texts, group.texts)
    means = (utilities.sum(axis=1) - 1) / (SAMPLES - 1)
    np.testing.assert_allclose(stored, means, rtol=1e-6)
    expected.append(mine[means > means.max() - 1e-9].mean())
  whole = _best_of_n(run, inputs, name='whole', utility=same_vowels, numbers=(SAMPLES,))
  row = _row(whole, 'minimum_bayes_risk', SAMPLES)
  assert row['raw_reward_mean'] == pytest.approx(np.mean(expected), rel=1e-6)
  # The other judges do not see it, and chrF's artifact does not name it.
  for n in NUMBERS:
    assert _row(changed, 'reward', n) == _row(found, 'reward', n)
  mine, theirs = (_row(one, 'minimum_bayes_risk', 10) for one in (changed, found))
  assert mine['raw_reward_mean'] != theirs['raw_reward_mean']
  added = set(changed.record['params']) - set(found.record['params'])
  assert added == {'minimum_bayes_risk'}


class Stopping:
  """A judge that stops the program at its second shard, as a kill would."""

  name = 'stopping'

  def __init__(self, stop):
    self.stop, self.seen = stop, []

  def identity(self):
    return {}

  def __call__(self, groups):
    if self.seen and self.stop:
      raise KeyboardInterrupt
    self.seen += [group.source_id for group in groups]
    return [np.zeros(len(group.texts), np.float32) for group in groups]


def test_it_goes_on_where_it_was_stopped(house, tmp_path, monkeypatch):
  model_dir, inputs = house
  monkeypatch.setattr(best_of_n, 'SOURCES_PER_SHARD', 2)
  run = untrained.run(tmp_path, reuse_from=(str(model_dir),))
  first, second = Stopping(stop=True), Stopping(stop=False)
  with pytest.raises(KeyboardInterrupt):
    _best_of_n(run, inputs, judges=(first,))
  assert not (tmp_path / 'best_of_n_bc').exists()
  stopped = _best_of_n(run, inputs, judges=(second,))
  assert len(first.seen) == 1 and len(second.seen) == SOURCES - 1
  whole = _best_of_n(untrained.run(model_dir), inputs)
  for judge in ('reward', 'gold', 'minimum_bayes_risk'):
    for n in NUMBERS:
      mine, theirs = _row(stopped, judge, n), _row(whole, judge, n)
      for name in ('raw_reward_mean', 'gold_mean', 'bleu', 'chrf'):
        assert mine[name] == pytest.approx(theirs[name], rel=1e-5), name


def test_it_is_found_again_and_the_cut_of_the_work_does_not_matter(house, found):
  model_dir, inputs = house
  run = untrained.run(model_dir)
  settings = sampler_lib.SamplerSettings(batch_size=4)
  again = _best_of_n(run, inputs, sampler=settings)
  assert again.fingerprint == found.fingerprint
  assert [entry.outcome for entry in run.history] == ['reused']


def test_what_cannot_be_is_refused(house):
  model_dir, inputs = house
  with pytest.raises(ValueError, match=r'no N of \(5, 10\) lies in \[1, 3\]'):
    _best_of_n(untrained.run(model_dir), inputs, num_samples=3, numbers=(5, 10))
  with pytest.raises(ValueError, match='names of their own'):
    _best_of_n(untrained.run(model_dir), inputs, judges=(text.Gold(),))

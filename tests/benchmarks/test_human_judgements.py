"""The comparison of scorers with human ratings, without any model."""

import argparse

import numpy as np
import pytest

from benchmarks import human_judgements
from rest_jax.data import group_store, judgements


class Words:
  """Words are tokens, by their lengths."""

  def encode(self, text):
    return np.array([*map(len, text.split()), 1], np.int32)

  def encode_batch(self, texts):
    return [self.encode(text) for text in texts]


@pytest.fixture
def file(tmp_path):
  lines = ['source\tcandidate\trating\tsystem']
  lines += ['x y\tab\t[1, 3]\t-0.5', 'z\tabcd\t5\t-0.25', 'x y\tabc\t4\t-1']
  path = tmp_path / 'ratings.tsv'
  path.write_text(''.join(line + '\n' for line in lines))
  return str(path)


def test_candidates_are_grouped_with_their_mean_ratings(file):
  groups, ratings = human_judgements.rated_groups(judgements.Ratings(), file, Words())
  assert [group.texts for group in groups] == [('ab', 'abc'), ('abcd',)]
  assert [values.tolist() for values in ratings] == [[2, 4], [5]]
  args = argparse.Namespace(
    ratings=file, source_column='source', candidate_column='candidate'
  )
  numbers = human_judgements.file_column(args, 'system', groups)
  assert [values.tolist() for values in numbers] == [[-0.5, -1], [-0.25]]


def test_the_usual_ratio_of_lengths_is_the_best():
  def group(source, *texts):
    return group_store.Group(
      source_id=source,
      source=source,
      source_tokens=np.array([1], np.int32),
      reference=None,
      texts=texts,
      tokens=tuple(np.array([1], np.int32) for _ in texts),
      token_log_probs=None,
      finished=np.ones(len(texts), bool),
      origins=('data',) * len(texts),
    )

  usual = [group('abcd', 'ab'), group('abcd', 'abcd'), group('ab', 'abcd')]
  # The median ratio is 1: half and double are equally far, log 2.
  (found,) = human_judgements.length_closeness([group('ab', 'a', 'ab', 'abcd')], usual)
  np.testing.assert_allclose(found, [-np.log(2), 0, -np.log(2)])


def test_rows_hold_correlations_with_intervals_and_the_gain_over_likelihood():
  rng = np.random.default_rng(0)
  ratings = [rng.normal(size=1) for _ in range(200)]
  noise = lambda scale: [r + scale * rng.normal(size=1) for r in ratings]
  scores = {'policy_likelihood': noise(5.0), 'good': noise(0.1)}
  likelihood, good = human_judgements.compare(scores, ratings, seed=0, num_resamples=50)
  assert likelihood['over_likelihood'] == ''
  value, low, high = good['spearman'].replace('[', '').strip(']').split()
  assert 0.97 < float(low.strip(',')) < float(value) < float(high) < 1
  gain = good['over_likelihood'].split()
  expected = float(value) - float(likelihood['spearman'].split()[0])
  assert float(gain[0]) == pytest.approx(expected, abs=2e-3)
  assert float(gain[1].strip('[,')) > 0.5

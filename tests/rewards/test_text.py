import functools
import json

import numpy as np
import pytest

from rest_jax.data.group_store import Group
from rest_jax.evaluation import chrf
from rest_jax.rewards import text


def _group(texts, *, reference='the cat', renderings=(), source_id='train/7'):
  return Group(
    source_id=source_id,
    source='die Katze',
    source_tokens=np.array([5, 1], np.int32),
    reference=reference,
    texts=tuple(texts),
    tokens=tuple(np.array([5, 1], np.int32) for _ in texts),
    token_log_probs=None,
    finished=np.ones(len(texts), bool),
    origins=('model',) * len(texts),
    renderings=tuple(renderings),
  )


def shared_words(source, candidate, reference):
  if reference is None:
    return 0
  return len(set(candidate.split()) & set(reference.split()))


def scaled_length(source, candidate, reference, *, scale):
  return scale * len(candidate)


def bad_value(source, candidate, reference):
  return {'nan': float('nan'), 'huge': 1e300, 'none': None, 'text': '0.5'}[candidate]


def two_raters(candidates, correct):
  return [[float(c in correct), len(c)] for c in candidates]


class Raters:
  def __init__(self, shift):
    self.shift = shift

  def identity(self):
    return {'shift': self.shift}

  def __call__(self, candidates, correct):
    return np.full((len(candidates), 3), self.shift) + np.arange(3)


def _assert_arrays(rewards, groups):
  assert len(rewards) == len(groups)
  for values, group in zip(rewards, groups, strict=True):
    assert values.dtype == np.float32 and values.shape == (len(group.texts),)


def test_chrf_compares_with_the_reference_alone():
  groups = [_group(['the cat', 'a dog'], renderings=('a dog',)), _group([])]
  rewards = text.ChrfReward()(groups)
  _assert_arrays(rewards, groups)
  assert rewards[0][0] == 1.0
  assert rewards[0][1] == np.float32(chrf.sentence_chrf('a dog', 'the cat')) < 0.3


def test_gold_is_the_best_rendering_and_the_reference_without_renderings():
  candidates = ['the cat', 'a dog', 'a hog']
  with_renderings = _group(candidates, renderings=('a dog', 'one dog'))
  without = _group(candidates)
  gold, plain = text.Gold()([with_renderings, without])
  assert gold[1] == 1.0 and gold[0] < 0.5
  assert gold[2] == chrf.best_chrf(['a hog'], ('a dog', 'one dog'))[0]
  np.testing.assert_array_equal(plain, text.ChrfReward()([without])[0])


def test_exact_match():
  candidates = ['the  cat ', 'The cat', 'the cat.', 'a cat', '']
  groups = [_group(candidates), _group(candidates, renderings=('a cat',)), _group([])]
  rewards = text.ExactMatch()(groups)
  _assert_arrays(rewards, groups)
  np.testing.assert_array_equal(rewards[0], [1, 0, 0, 0, 0])
  # Renderings are all there is to be right: the reference may be a noisy one.
  np.testing.assert_array_equal(rewards[1], [0, 0, 0, 1, 0])
  only = _group(['a cat', 'x'], reference=None, renderings=('a cat',))
  np.testing.assert_array_equal(text.exact_matches(only), [1, 0])


@pytest.mark.parametrize(
  'scorer',
  [text.ChrfReward(), text.Gold(), text.ExactMatch(), text.RatingScorer(two_raters)],
)
def test_a_missing_reference_is_an_error_with_a_remedy(scorer):
  groups = [_group(['x']), _group(['x'], reference=None, source_id='train/9')]
  with pytest.raises(ValueError, match=r"'train/9' has no reference.*corpus with ref"):
    scorer(groups)


def test_per_candidate_calls_with_source_candidate_and_reference():
  groups = [_group(['the cat', 'cat', 'x']), _group(['the cat'], reference=None)]
  rewards = text.PerCandidate(shared_words)(groups)
  _assert_arrays(rewards, groups)
  np.testing.assert_array_equal(rewards[0], [2, 1, 0])
  np.testing.assert_array_equal(rewards[1], [0])


def test_per_candidate_accepts_array_scalars():
  scorer = text.PerCandidate(scaled_length, parameters={'scale': np.float32(0.5)})
  np.testing.assert_array_equal(scorer([_group(['abc', ''])])[0], [1.5, 0])
  scorer = text.PerCandidate(scaled_length, parameters={'scale': np.array(2)})
  np.testing.assert_array_equal(scorer([_group(['abc'])])[0], [6])


@pytest.mark.parametrize('candidate', ['nan', 'huge', 'none', 'text'])
def test_per_candidate_names_the_source_and_candidate_of_a_bad_answer(candidate):
  group = _group([candidate], source_id='train/00000017')
  with pytest.raises(ValueError, match=r"candidate 0 of source 'train/00000017'") as e:
    text.PerCandidate(bad_value)([group])
  assert f'{candidate!r}' in str(e.value) and 'bad_value' in str(e.value)


def _module(tmp_path, name, source):
  import importlib.util

  path = tmp_path / f'{name}.py'
  path.write_text(source)
  spec = importlib.util.spec_from_file_location('user_reward', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.fn


def test_per_candidate_identity_follows_the_source_of_the_function(tmp_path):
  source = 'def fn(source, candidate, reference):\n  return {}\n'
  one, again, two = (
    text.PerCandidate(_module(tmp_path, f'm{i}', source.format(value))).identity()
    for i, value in enumerate((1, 1, 2))
  )
  assert one == again
  assert one['function'] == two['function'] == 'user_reward.fn'
  assert one['source_sha256'] != two['source_sha256']
  json.dumps(one, allow_nan=False)


def test_per_candidate_identity_holds_the_parameters():
  make = lambda scale: text.PerCandidate(scaled_length, parameters={'scale': scale})
  assert make(1.0).identity() != make(2.0).identity()
  assert make(1.0).name == 'scaled_length'
  assert text.PerCandidate(scaled_length, name='mine').name == 'mine'


def test_per_candidate_sees_through_wrappers_that_say_what_they_wrap():
  @functools.wraps(shared_words)
  def wrapped(*args):
    return shared_words(*args)

  assert (
    text.PerCandidate(wrapped).identity() == text.PerCandidate(shared_words).identity()
  )


def test_per_candidate_refuses_what_it_cannot_tell_apart():
  scale = 3.0

  def captures(source, candidate, reference):
    return scale

  with pytest.raises(ValueError, match='captures scale'):
    text.PerCandidate(captures)
  with pytest.raises(ValueError, match=r'functools\.partial'):
    text.PerCandidate(functools.partial(scaled_length, scale=1))
  with pytest.raises(ValueError, match='plain Python function'):
    text.PerCandidate(len)
  namespace = {}
  exec('def fn(source, candidate, reference): return 1', namespace)
  with pytest.raises(ValueError, match='module file'):
    text.PerCandidate(namespace['fn'])


def test_rating_scorer_means_and_matrix():
  groups = [_group(['a cat', 'x'], renderings=('a cat',)), _group(['the cat'])]
  scorer = text.RatingScorer(two_raters)
  ratings = scorer.ratings(groups)
  np.testing.assert_array_equal(ratings[0], [[1, 5], [0, 1]])
  np.testing.assert_array_equal(ratings[1], [[1, 7]])
  rewards = scorer(groups)
  _assert_arrays(rewards, groups)
  np.testing.assert_array_equal(rewards[0], [3, 0.5])


def test_rating_scorer_identity():
  one, two = (text.RatingScorer(Raters(shift)).identity() for shift in (1, 2))
  assert one == {'scorer': 'ratings', 'raters': {'shift': 1}} and one != two
  plain = text.RatingScorer(two_raters).identity()
  assert plain['raters']['function'].endswith('two_raters')


@pytest.mark.parametrize(
  ('raters', 'message'),
  [
    (lambda c, r: np.zeros(len(c)), r'\[samples, raters\]'),
    (lambda c, r: np.zeros((len(c) + 1, 2)), r'\(3, 2\) for 2 candidates'),
    (lambda c, r: np.zeros((len(c), 0)), r'\[samples, raters\]'),
    (lambda c, r: [[0, 1], [2, np.nan]], 'rater 1 gave nan to candidate 1'),
  ],
)
def test_rating_scorer_errors(raters, message):
  with pytest.raises(ValueError, match=message):
    text.RatingScorer(raters).ratings([_group(['a', 'b'])])


def test_scorers_are_told_apart():
  scorers = [text.ChrfReward(), text.Gold(), text.ExactMatch()]
  identities = [json.dumps(scorer.identity()) for scorer in scorers]
  assert len(set(identities)) == 3
  assert len({scorer.name for scorer in scorers}) == 3

import pytest

from rest_jax.report import browser


def _group(policy='BC', rewards=(0.2, 0.9, 0.5), text='a text', **changes):
  candidates = [
    {'text': text, 'reward': r, 'gold': r, 'log_prob': -1.0, 'kept': None}
    for r in rewards
  ]
  return {
    'policy': policy,
    'source_id': 's',
    'source': 'eine Quelle',
    'reference': None,
    'renderings': [],
    'candidates': candidates,
    **changes,
  }


def test_candidates_fall_by_reward_and_remember_their_order():
  (group,), hidden = browser.shown_groups([_group()])
  assert hidden == 0
  assert [c.order for c in group.candidates] == [1, 2, 0]
  assert [c.reward_bar for c in group.candidates] == [90.0, 50.0, 20.0]
  assert [c.best_reward for c in group.candidates] == [True, False, False]
  assert group.best is group.candidates[0]
  assert group.mean_reward == pytest.approx(1.6 / 3)


def test_unscored_candidates_come_last_and_have_no_bar():
  (group,), _ = browser.shown_groups([_group(rewards=(None, 0.4))])
  assert [c.reward for c in group.candidates] == [0.4, None]
  assert group.candidates[1].reward_bar == 0
  assert not group.candidates[1].best_reward


def test_bars_of_unbounded_scores_span_their_range():
  groups = [_group(rewards=(-3.0, 1.0)), _group(rewards=(0.0, 5.0))]
  shown, _ = browser.shown_groups(groups)
  assert [c.reward_bar for g in shown for c in g.candidates] == [50, 0, 100, 37.5]


def test_many_candidates_are_thinned_from_best_to_worst():
  (group,), _ = browser.shown_groups([_group(rewards=[i / 100 for i in range(100)])])
  assert len(group.candidates) == browser.MAX_CANDIDATES
  assert group.candidates[0].reward == 0.99 and group.candidates[-1].reward == 0.0
  assert group.num_hidden == 84
  assert group.mean_reward == pytest.approx(0.495)  # over all of them


def test_long_texts_are_cut_and_say_so():
  (group,), _ = browser.shown_groups([_group(text='x' * 2_500)])
  assert group.candidates[0].text == 'x' * 2_000 + '… (500 more characters)'


def test_where_room_is_short_policies_take_turns():
  groups = [_group('A', source_id=f'a{i}') for i in range(9)]
  groups += [_group('B', source_id=f'b{i}') for i in range(9)]
  size = browser._num_bytes(browser.shown_group(groups[0], (0, 1), (0, 1)))
  shown, hidden = browser.shown_groups(groups, num_bytes=4 * size)
  assert [g.source_id for g in shown] == ['a0', 'a1', 'b0', 'b1'] and hidden == 14


def test_a_group_without_candidates():
  (group,), _ = browser.shown_groups([_group(rewards=())])
  assert group.best is None and group.mean_reward is None

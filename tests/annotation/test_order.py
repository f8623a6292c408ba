"""In which order raters see what is rated."""

import pytest

from rest_jax.annotation import items, order
from tests.annotation import study


def _sources(num, num_candidates=4, num_shared=5):
  return [
    items.Source(
      f's{i}',
      f'source {i}',
      None,
      i < num_shared,
      tuple(
        items.Candidate(items.digest(i, k), f'{i} {k}') for k in range(num_candidates)
      ),
    )
    for i in range(num)
  ]


def _shown(sources, rater, view='side_by_side', seed=0):
  tasks = order.tasks(sources, rater=rater, seed=seed, view=view)
  return [(t.source.source_id, [c.text for c in t.candidates]) for t in tasks]


def test_an_order_is_the_raters_own_and_stays():
  sources = _sources(30)
  assert _shown(sources, 'anna') == _shown(list(reversed(sources)), 'anna')
  assert _shown(sources, 'anna') != _shown(sources, 'ben')
  assert _shown(sources, 'anna') != _shown(sources, 'anna', seed=1)
  assert _shown(sources, 'anna') != _shown(sources, 'anna', seed=1)
  assert sorted(s for s, _ in _shown(sources, 'anna')) == sorted(
    s.source_id for s in sources
  )


@pytest.mark.parametrize('view', order.VIEWS)
def test_shared_sources_come_first_in_each_raters_order(view):
  sources = _sources(30)
  first = 5 if view == order.SIDE_BY_SIDE else 20
  heads = [[s for s, _ in _shown(sources, r, view)[:first]] for r in ('anna', 'ben')]
  assert set(heads[0]) == set(heads[1]) == {f's{i}' for i in range(5)}
  assert heads[0] != heads[1]


def test_one_at_a_time_shows_every_candidate_once():
  shown = _shown(_sources(10), 'anna', order.SINGLE)
  assert all(len(texts) == 1 for _, texts in shown)
  assert len({texts[0] for _, texts in shown}) == len(shown) == 40


def test_a_systems_place_is_near_uniform():
  # 400 sources of two candidates: the first system's is on the left in about half;
  # 160 is four standard deviations below 200.
  sources = _sources(400, num_candidates=2)
  left = sum(texts[0].endswith(' 0') for _, texts in _shown(sources, 'anna'))
  assert 160 < left < 240


def test_an_id_depends_on_the_text_and_not_on_who_made_it(tmp_path):
  drawn = study.draw(tmp_path)
  forward = {c.candidate_id for s in drawn.sources for c in s.candidates}
  systems = study.systems(tmp_path / 'again')
  backward = items.choose(
    systems[::-1], num_sources=None, num_candidates=1, num_shared=2, seed=study.SEED
  )
  assert forward == {c.candidate_id for s in backward.sources for c in s.candidates}


def test_an_unknown_view_lists_those_there_are():
  with pytest.raises(ValueError, match=r"view='both'.*side_by_side, single"):
    order.tasks([], rater='a', seed=0, view='both')

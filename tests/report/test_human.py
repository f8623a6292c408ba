"""People's ratings in the report: sentences, cells, section and table."""

import dataclasses
import io

import pytest
import rich.console

from rest_jax.report import human, table
from rest_jax.report.page import render_page
from tests.report.example import HOSTILE, full_example, human_ratings


@pytest.fixture
def data():
  example = full_example()
  summary = {**example.summary, 'human': human_ratings()}
  return dataclasses.replace(example, summary=summary)


def test_the_sentence_names_who_is_better_and_who_is_worse():
  found = human.outcome(human_ratings())
  assert found.startswith('2 raters gave 540 ratings of 290 candidates. They find ')
  assert 'ReST (G=1, I=3) better than BC (G=0, I=0) and <script>' in found
  assert found.endswith(' worse than BC (G=0, I=0).')


def test_a_difference_inside_its_interval_is_none():
  ratings = human_ratings()
  for system in ratings['systems'][1:]:
    system['difference_interval'] = [-0.1, 0.1]
  assert 'no policy better or worse than BC' in human.outcome(ratings)
  ratings['systems'][1]['difference_interval'] = [0.1, 0.2]
  assert human.outcome(ratings).endswith('other differences are within their interval.')


def test_rankings_that_differ_are_both_given():
  ratings = human_ratings()
  ratings['systems'][2]['name'] = 'last'
  assert human.ranking(ratings) == (
    'The rankings differ. People, best first: ReST (G=1, I=3), BC (G=0, I=0), last. '
    'The reward model: last, ReST (G=1, I=3), BC (G=0, I=0).'
  )
  for system in ratings['systems']:
    system['rank_by_reward'] = system['rank_by_humans']
  assert 'give one ranking: ReST (G=1, I=3), BC' in human.ranking(ratings)
  ratings['systems'][0]['rank_by_reward'] = None
  assert human.ranking(ratings) is None


def test_agreement_in_words():
  ratings = human_ratings()
  assert human.rater_agreement(ratings) == (
    "Krippendorff's α (interval) 0.61 ± 0.08 over 250 candidates that two or more "
    "rated; mean Spearman's ρ of two raters 0.66. The reward model's ρ with the mean "
    'rating is 0.41 over all, 0.22 among candidates of one source.'
  )
  ratings['agreement']['alpha'] = ratings['reward_agreement'] = None
  assert human.rater_agreement(ratings).startswith('Raters cannot be compared')


def test_cells_have_signs_and_intervals():
  bc, improved, last = (human.cells(system) for system in human_ratings()['systems'])
  assert [str(cell) for cell in improved] == [
    '100',
    '3.62 ± 0.20',
    '+0.52 ± 0.15',
    '76.0 % ± 10.0 %',
    '50.0 %',
    '30.0 %',
    '20.0 %',
    '1',
    '2',
  ]
  assert str(bc[2]) == '–' and str(last[2]) == '−0.39 ± 0.15'
  assert len(bc) == len(human.HEAD)


def test_the_page_has_a_section_and_a_figure(data):
  page = render_page(data)
  assert '<section id="human">' in page and 'href="#human"' in page
  assert 'What people think.' in page and 'id="human-0-' in page
  assert HOSTILE not in page
  assert '#human"' not in render_page(full_example())


def test_the_terminal_has_a_table(data):
  buffer = io.StringIO()
  table.print_table(data.summary, rich.console.Console(file=buffer, width=120))
  text = buffer.getvalue()
  assert text.isascii() and '+0.52 +/- 0.15' in text
  assert 'The rankings differ.' in text and "Krippendorff's alpha" in text

import base64
import hashlib
import html.parser
import re

import pytest

from rest_jax.report.data import ReportData
from rest_jax.report.page import render_page
from tests.report.example import HOSTILE, full_example, minimal_example

_VOID = {'meta', 'link', 'br', 'img', 'input'}


class _Page(html.parser.HTMLParser):
  """Checks nesting; gathers elements, attributes and text."""

  def __init__(self, page):
    super().__init__()
    self.open, self.elements, self.text = [], [], []
    self.feed(page)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag not in _VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open and self.open[-1] == tag, (tag, self.open, self.getpos())
    self.open.pop()

  def handle_data(self, data):
    self.text.append(data)

  def words(self):
    return ' '.join(' '.join(self.text).split())

  def count(self, tag):
    return sum(name == tag for name, _ in self.elements)

  def attributes(self, name):
    return [attrs[name] for _, attrs in self.elements if name in attrs]


@pytest.fixture(scope='module')
def page():
  return render_page(full_example())


def test_full_page_is_well_formed(page):
  parsed = _Page(page)
  assert page.startswith('<!DOCTYPE html>')
  assert parsed.count('figure') == 7
  # Scores 2, quality 2, histograms 2, training 5, probes 1, KL 2, time 1.
  assert parsed.count('svg') == 15
  ids = parsed.attributes('id')
  assert len(ids) == len(set(ids))


def test_page_needs_nothing_else(page):
  parsed = _Page(page)
  assert 'http:' not in page and 'https:' not in page and '@import' not in page
  assert parsed.attributes('src') == []
  assert all(h.startswith('#') or h == 'data:,' for h in parsed.attributes('href'))
  assert all(u.startswith('#') for u in re.findall(r'url\(([^)]*)\)', page))
  targets = {h[1:] for h in parsed.attributes('href') if h.startswith('#')}
  assert targets <= set(parsed.attributes('id'))


def test_page_is_accessible(page):
  parsed = _Page(page)
  assert parsed.count('figcaption') == parsed.count('figure')
  for tag, attributes in parsed.elements:
    if tag == 'svg':
      assert attributes['role'] == 'img' and len(attributes['aria-label']) > 40
    if tag == 'th':
      assert attributes['scope'] in ('col', 'row')
  assert ('html', {'lang': 'en'}) in parsed.elements


def test_hostile_text_is_only_text(page):
  parsed = _Page(page)
  assert parsed.count('script') == 1 and parsed.count('img') == 0
  assert any(HOSTILE in text for text in parsed.text)
  assert not any(k.startswith('on') for _, a in parsed.elements for k in a)


def test_hostile_text_everywhere():
  def poison(value):
    if isinstance(value, dict):
      return {k: poison(v) for k, v in value.items()}
    if isinstance(value, list):
      return [poison(v) for v in value]
    return f'{value}{HOSTILE}</style></title>' if isinstance(value, str) else value

  data = full_example(num_sources=2)
  parsed = _Page(
    render_page(
      ReportData(
        summary=poison(data.summary),
        histograms=data.histograms,
        curves=poison(data.curves),
        groups=poison(data.groups),
      )
    )
  )
  assert parsed.count('script') == 1 and parsed.count('img') == 0
  assert not any(k.startswith('on') for _, a in parsed.elements for k in a)


def test_content_policy_admits_the_one_script(page):
  script = re.search(r'<script>(.*?)</script>', page, re.DOTALL)[1]
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  policy = dict(_Page(page).elements[3][1])['content']
  assert f"script-src 'sha256-{digest}'" in policy
  assert policy.startswith("default-src 'none'")


def test_outcome_table_and_sections(page):
  text = _Page(page).words()
  for expected in (
    'ReST (G=2, I=3) raises reward from 0.540 to 0.655 and gold from 0.545 to 0.558 '
    'over BC.',
    '0.571 ± 0.006',
    "Inside one source's group 0.361 0.274 0.349",
    'G=2 I=3 0.900 10.1 % 540 960 64.0 %',
    'repeated sentence ▲ , not surely better than a coin 192 31.0 % (24.9 to 37.9) '
    '2.0 % −0.620 63 0',
    'improve-2-2 improve 5 min 00 s 4 min 48 s 1.14 GiB – new',
    'rest_jax --gin_file=runs/everyday.gin',
    'The filter τ = 0.9 of G=2 I=3 emptied 64.0 % of the sources.',
  ):
    assert expected in text


def test_the_best_is_bold(page):
  assert '<b>0.655</b>' in page and '<b>0.586</b>' in page
  assert '<b>0.606</b>' not in page and '<b>8.20</b>' not in page


def test_reused_stages_are_not_counted_as_spent(page):
  fresh = [s for s in full_example().stages if not s['reused']]
  assert sum(s['device_seconds'] for s in fresh) == 3554  # all of them: 5915
  text = _Page(page).words()
  assert 'Spent in this run 1 h 01 min 59 min 14 s –' in text


def test_over_optimisation_shows_only_where_it_should(page):
  assert 'Proxy and gold part ways' in page and 'class="flagged"' in page
  data = full_example(num_sources=1)
  data.policies[-1].update(gold_mean=0.59, gold_interval=[0.58, 0.60])
  data.summary['probes'] = None  # which has marks of its own
  calm = render_page(data)
  assert 'Proxy and gold part ways' not in calm and 'class="flagged"' not in calm
  assert '▲' not in calm


def test_minimal_page():
  page = render_page(minimal_example())
  parsed = _Page(page)
  assert parsed.count('svg') == 0 and parsed.count('figure') == 0
  text = ''.join(parsed.text)
  assert 'BC (G=0, I=0) was trained' in text
  for absent in (
    'None',
    'nan',
    'Samples',
    'Probes',
    'Over-optimisation',
    'Grow and filters',
  ):
    assert absent not in re.sub(r"'use strict'.*", '', text, flags=re.DOTALL)


def test_a_lone_name_is_enough():
  _Page(render_page(ReportData({'policies': [{'name': 'PPO'}]})))


def test_not_finite_numbers_are_dashes():
  data = full_example(num_sources=1)
  data.policies[1]['gold_mean'] = float('nan')
  data.stages[4]['device_seconds'] = float('inf')
  text = ''.join(_Page(render_page(data)).text)
  assert 'nan' not in text.split('use strict')[0].replace('finance', '')
  assert 'inf' not in text.split('use strict')[0]


def test_same_data_same_page(page):
  assert render_page(full_example()) == page


def test_a_large_run_stays_under_its_size():
  data = full_example(num_sources=400)
  for group in data.groups:
    for candidate in group['candidates']:
      candidate['text'] *= 12
  page = render_page(data)
  assert len(page.encode()) < 1_500_000
  shown = page.count('<details class="group" data-policy')
  assert f'{1200 - shown} more groups are left out' in page
  assert 80 < shown < 1200  # a few dozen always fit

import itertools
import re

import pytest

from rest_jax.report.style import COLOUR, PALETTE, inline_svg, new_axes, report_style


def _svg(name, alt='a line', title='x'):
  with report_style():
    figure, axes = new_axes()
    axes.plot([0, 1], [0, 1], color=COLOUR['proxy'], marker='o')
    axes.set_title(title)
  return inline_svg(figure, name, alt)


def test_svg_stands_inside_html():
  svg = _svg('one')
  assert svg.startswith('<svg viewBox="0 0 ') and svg.endswith('</svg>')
  for absent in ('http', 'xmlns', 'xlink', '<?xml', 'metadata', '<style', 'DejaVu'):
    assert absent not in svg
  assert '<text' in svg  # text is text


def test_ids_carry_the_name_and_every_reference_has_its_target():
  svg = _svg('one')
  ids = re.findall(r'\bid="([^"]+)"', svg)
  references = re.findall(r'(?:href="#|url\(#)([^")]+)', svg)
  assert len(ids) == len(set(ids)) and references
  assert all(name.startswith('one-') for name in ids)
  assert set(references) <= set(ids)
  assert not set(ids) & set(re.findall(r'\bid="([^"]+)"', _svg('two')))


def test_colours_are_variables_with_a_fallback():
  svg = _svg('one')
  assert f'stroke: var(--proxy, {COLOUR["proxy"]})' in svg
  bare = set(re.findall(r': (#[0-9a-f]{6})', svg))
  assert not bare & set(COLOUR.values())


def test_same_figure_same_bytes():
  assert _svg('one') == _svg('one')


def test_hostile_and_foreign_text():
  svg = _svg('one', alt='"><script>', title='<script>$x^{$ 中文')
  assert '<script' not in svg
  assert '&lt;script&gt;$x^{$ 中文' in svg
  assert 'aria-label="&quot;&gt;&lt;script&gt;"' in svg


def _luminance(colour):
  parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
  linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
  ('theme', 'ground', 'name'),
  list(
    itertools.product(
      (0, 1),
      ('surface', 'page'),
      ('ink', 'muted', 'proxy', 'gold', 'green', 'purple', 'sky', 'alarm'),
    )
  ),
)
def test_contrast_is_enough_for_text(theme, ground, name):
  # WCAG 2.2, success criterion 1.4.3: 4.5 to 1 for small text.
  light, dark = sorted(
    (_luminance(PALETTE[name][theme]), _luminance(PALETTE[ground][theme])),
    reverse=True,
  )
  assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_light_colours_differ():
  assert len(set(COLOUR.values())) == len(COLOUR)

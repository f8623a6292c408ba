"""One palette for page and figures, and figures as themed inline SVG.

Figures are drawn in the light palette; `inline_svg` then turns each colour into a
CSS variable with that colour as its fallback, so a figure follows the page into its
dark theme and still shows by itself. The hues are those of Okabe and Ito (2008),
told apart under the common colour-vision deficiencies, darkened or lightened to
keep a contrast of 4.5 to 1 with their background.
"""

import contextlib
import html
import io
import re
import warnings
from collections.abc import Iterator

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# name: (light, dark). Light colours must differ from each other: see inline_svg.
PALETTE = {
  'page': ('#f6f7f9', '#0e1116'),
  'surface': ('#ffffff', '#161a21'),
  'ink': ('#1d2430', '#e7eaef'),
  'muted': ('#5b6573', '#9ba5b3'),
  'line': ('#dde2e8', '#2c333d'),
  'band': ('#eff2f6', '#1d222b'),
  'proxy': ('#0b63b0', '#5cb2f7'),
  'gold': ('#a85700', '#f2ad3d'),
  'green': ('#00785a', '#3ec99b'),
  'purple': ('#87458f', '#d09ade'),
  'sky': ('#1a7490', '#7fd3ee'),
  'alarm': ('#b0102c', '#ff8089'),
}
COLOUR = {name: light for name, (light, _) in PALETTE.items()}
SERIES = tuple(COLOUR[n] for n in ('proxy', 'gold', 'green', 'purple', 'sky', 'muted'))

PANEL_INCHES = (5.2, 3.0)
WIDE_INCHES = (10.6, 3.2)

_RC = {
  'axes.axisbelow': True,
  'axes.edgecolor': COLOUR['muted'],
  'axes.facecolor': 'none',
  'axes.formatter.useoffset': False,
  'axes.grid': True,
  'axes.grid.axis': 'y',
  'axes.labelcolor': COLOUR['muted'],
  'axes.labelsize': 9,
  'axes.linewidth': 0.8,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'figure.facecolor': 'none',
  'font.family': 'DejaVu Sans',  # the metrics; the page's own font is shown
  'font.size': 9,
  'grid.color': COLOUR['line'],
  'grid.linewidth': 0.8,
  'legend.fontsize': 8.5,
  'legend.frameon': False,
  'lines.linewidth': 1.8,
  'lines.markersize': 6,
  'savefig.facecolor': 'none',
  'svg.fonttype': 'none',  # text stays text: small, selectable, in the page's font
  'text.color': COLOUR['ink'],
  'text.parse_math': False,  # a name may hold a dollar sign
  'xtick.color': COLOUR['muted'],
  'xtick.labelcolor': COLOUR['ink'],
  'xtick.labelsize': 9,
  'xtick.major.size': 0,
  'ytick.color': COLOUR['muted'],
  'ytick.labelcolor': COLOUR['ink'],
  'ytick.labelsize': 9,
  'ytick.major.size': 0,
}


@contextlib.contextmanager
def report_style() -> Iterator[None]:
  """The report's matplotlib settings inside, the caller's again outside."""
  with matplotlib.style.context(_RC, after_reset=True):
    yield


def new_axes(wide: bool = False, height: float | None = None) -> tuple[Figure, Axes]:
  """A figure with one set of axes, outside pyplot; height in inches."""
  width, usual_height = WIDE_INCHES if wide else PANEL_INCHES
  figure = Figure(figsize=(width, height or usual_height), layout='constrained')
  return figure, figure.add_subplot()


def css_variables(theme: int) -> str:
  """'--ink: #1d2430; ...' for theme 0 (light) or 1 (dark)."""
  return ' '.join(f'--{name}: {pair[theme]};' for name, pair in PALETTE.items())


def inline_svg(figure: Figure, name: str, alt: str) -> str:
  """The figure as an <svg> element to stand inside HTML.

  No XML prologue, namespaces, metadata nor fixed size; ids carry `name` as prefix,
  so that several figures share a page; colours of the palette become CSS variables.

  Args:
    figure: drawn within `report_style`.
    name: unique on the page, letters, digits and hyphens.
    alt: what the figure shows, for those who do not see it.
  """
  buffer = io.StringIO()
  # The salt makes ids, and so the whole page, a function of the data.
  with (
    report_style(),
    matplotlib.rc_context({'svg.hashsalt': name}),
    warnings.catch_warnings(),
  ):
    # Names in other scripts are measured with a font that lacks them; the page's
    # fonts, which are the ones shown, need not.
    warnings.filterwarnings('ignore', message='Glyph .* missing from')
    figure.savefig(
      buffer,
      format='svg',
      metadata=dict.fromkeys(('Date', 'Creator', 'Format', 'Type')),
    )
  svg = buffer.getvalue()
  svg = svg[svg.index('<svg') :].rstrip()
  svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
  svg = re.sub(r'<defs>\s*<style.*?</style>\s*</defs>', '', svg, flags=re.DOTALL)
  view_box = re.search(r'viewBox="[^"]*"', svg)
  assert view_box is not None, 'matplotlib wrote an <svg> without a viewBox'
  label = html.escape(alt)
  opening = f'<svg {view_box[0]} role="img" aria-label="{label}">'
  svg = opening + svg[svg.index('>') + 1 :]
  svg = svg.replace('xlink:href=', 'href=')
  svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
  svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
  svg = re.sub(r'url\(#([^)]+)\)', rf'url(#{name}-\1)', svg)
  svg = re.sub(r"(font: [^;\"]*?px) '[^;\"]*", r'\1 sans-serif', svg)
  svg = re.sub(r"font-family: '[^;\"]*", 'font-family: sans-serif', svg)
  for colour_name, light in COLOUR.items():
    svg = svg.replace(f': {light}', f': var(--{colour_name}, {light})')
  return re.sub(r'\s*\n\s*', ' ', svg)  # newlines inside paths, indentation

"""report.html: the whole run on one page that needs nothing but itself."""

import base64
import functools
import hashlib
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import markupsafe

from rest_jax.report import formatting, human
from rest_jax.report import probes as probes_lib
from rest_jax.report.browser import shown_groups
from rest_jax.report.data import Record, ReportData, half_interval, number
from rest_jax.report.figures import draw_all
from rest_jax.report.outcome import headline, over_optimisation
from rest_jax.report.selection import reaching, selection_rows
from rest_jax.report.style import css_variables, inline_svg


class _Measure(NamedTuple):
  """A column of a table of policies."""

  key: str
  label: str
  form: int | str  # digits after the point, 'percent', 'count' or 'text'
  interval_key: str | None = None
  best_is_bold: bool = False  # where higher is better


_QUALITY = (
  _Measure('loss', 'Loss', 'text'),
  _Measure('threshold', 'Threshold', 3),
  _Measure('kept_fraction', 'Kept', 'percent'),
  _Measure('reward_mean', 'Reward', 3, 'reward_interval', True),
  _Measure('gold_mean', 'Gold', 3, 'gold_interval', True),
  _Measure('exact_match', 'Exact match', 'percent', None, True),
  _Measure('bleu', 'BLEU', 1, 'bleu_interval', True),
  _Measure('chrf', 'chrF', 1, 'chrf_interval', True),
  _Measure('kl_to_bc', 'KL to BC', 2, 'kl_interval'),
)
_BEHAVIOUR = (
  _Measure('length_ratio', 'Length ratio', 2),
  _Measure('distinct_1', 'Distinct-1', 3),
  _Measure('distinct_2', 'Distinct-2', 3),
  _Measure('distinct_3', 'Distinct-3', 3),
  _Measure('copy_rate', 'Copied', 'percent'),
  _Measure('repetition_rate', 'Repeating', 'percent'),
  _Measure('reward_gold_spearman', 'ρ overall', 2),
  _Measure('reward_gold_spearman_in_groups', 'ρ in groups', 2),
  _Measure('num_sources', 'Sources', 'count'),
  _Measure('num_samples', 'Samples', 'count'),
)


@functools.cache
def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('rest_jax.report', 'templates'),
    autoescape=True,  # every value: a candidate may be '<script>'
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters.update(
    score=formatting.score,
    percent=formatting.percent,
    count=formatting.count,
    duration=formatting.duration,
    memory=formatting.memory,
    energy=formatting.energy,
  )
  environment.globals['number'] = number
  return environment


def _asset(name: str) -> str:
  templates = importlib.resources.files('rest_jax.report') / 'templates'
  return (templates / name).read_text(encoding='utf-8')


def _content_policy(script: str) -> str:
  """A policy that lets the page load nothing and run this one script alone."""
  digest = hashlib.sha256(script.encode()).digest()
  return (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    f"script-src 'sha256-{base64.b64encode(digest).decode()}'"
  )


def _cell(record: Record, measure: _Measure) -> dict[str, Any]:
  """A cell's text, half-interval (or None), and whether it is left-aligned."""
  if measure.form == 'text':
    text = str(record.get(measure.key) or formatting.MISSING).replace('_', ' ')
    return {'text': text, 'half': None, 'best': False, 'is_text': True}
  value, half = number(record, measure.key), None
  if measure.form == 'percent':
    text = formatting.percent(value)
  elif measure.form == 'count':
    text = formatting.count(value)
  else:
    digits = int(measure.form)
    text = formatting.score(value, digits)
    if measure.interval_key and value is not None:
      half = half_interval(record, measure.interval_key)
  shown_half = None if half is None else formatting.score(half, digits)
  return {'text': text, 'half': shown_half, 'best': False, 'is_text': False}


def _measures(policies: Sequence[Record], measures: Sequence[_Measure]) -> Record:
  """The head and cells of a table.

  Without measures that no policy has, nor words that are the same for all.
  """
  present = [
    m
    for m in measures
    if (
      len({p.get(m.key) for p in policies} - {None}) > 1
      if m.form == 'text'
      else any(number(p, m.key) is not None for p in policies)
    )
  ]
  rows = [[_cell(policy, measure) for measure in present] for policy in policies]
  for column, measure in enumerate(present):
    if not measure.best_is_bold or len(policies) < 2:
      continue
    values = [number(policy, measure.key) for policy in policies]
    highest = max(value for value in values if value is not None)
    for row, value in zip(rows, values, strict=True):
      row[column]['best'] = value == highest
  head = [{'label': m.label, 'is_text': m.form == 'text'} for m in present]
  return {'head': head, 'rows': rows}


def _tiles(data: ReportData) -> list[Record]:
  """The few numbers at the top: the last policy of Algorithm 1 against the first."""
  chain = [p for p in data.policies if p.get('grow') is not None] or data.policies
  first, last = chain[0], chain[-1]
  tiles: list[Record] = []
  for key, label, digits in (
    ('reward_mean', 'Proxy reward', 3),
    ('gold_mean', 'Gold', 3),
    ('bleu', 'Greedy BLEU', 1),
    ('kl_to_bc', 'KL to BC (nats)', 2),
  ):
    value, before = number(last, key), number(first, key)
    if value is None:
      continue
    change = None
    if last is not first and before is not None:
      change = formatting.score(value - before, digits)
      change = change if value < before else f'+{change}'
    tiles.append(
      {
        'label': label,
        'value': formatting.score(value, digits),
        'change': change,
        'base': 'from BC' if first.get('grow') == 0 else f'from {first["name"]}',
      }
    )
  spent = [
    seconds
    for stage in data.stages
    if not stage.get('reused')
    and (seconds := number(stage, 'device_seconds')) is not None
  ]
  if spent:
    tiles.append(
      {
        'label': 'Device time',
        'value': formatting.duration(sum(spent)),
        'change': None,
        'base': 'spent in this run',
      }
    )
  return tiles


def _stage_totals(stages: Sequence[Record]) -> Record:
  """What this run spent: sums over the stages that were not reused."""
  fresh = [stage for stage in stages if not stage.get('reused')]
  totals: dict[str, float | None] = {}
  for key in ('seconds', 'device_seconds', 'energy_joules'):
    values = [number(stage, key) for stage in fresh]
    known = [value for value in values if value is not None]
    # A sum that leaves out an unmeasured stage would be a guess.
    totals[key] = sum(known) if known and len(known) == len(values) else None
  return totals


def _normaliser(reward_model: Record) -> str | None:
  kind = reward_model.get('normaliser')
  return kind.get('kind') if isinstance(kind, Mapping) else kind


def _human(found: Record | None) -> Record | None:
  """The section on people's ratings."""
  if found is None:
    return None
  return {
    'outcome': human.outcome(found),
    'ranking': human.ranking(found),
    'agreement': human.rater_agreement(found),
    'head': human.HEAD,
    'rows': [(system['name'], human.cells(system)) for system in found['systems']],
  }


def render_page(data: ReportData) -> str:
  """The report as one HTML document: no network, no other file, under 1.5 MB.

  The same data gives the same bytes. All text from the data is escaped, and the
  page's content policy forbids every script but its own. Groups beyond the room for
  them are left out, and the page says how many.
  """
  policies = data.policies
  drawings = {
    drawing.name: {
      'order': order,
      'title': drawing.title,
      'caption': drawing.caption,
      'panels': [
        {
          'wide': panel.wide,
          'svg': markupsafe.Markup(
            inline_svg(panel.figure, f'{drawing.name}-{place}', panel.alt)
          ),
        }
        for place, panel in enumerate(drawing.panels)
      ],
    }
    for order, drawing in enumerate(draw_all(data), start=1)
  }
  groups, num_hidden_groups = shown_groups(data.groups)
  findings = over_optimisation(policies)
  losses = {str(p['loss']).replace('_', ' ') for p in policies if p.get('loss')}
  script = _asset('report.js')
  reward_model = data.summary.get('reward_model')
  selections = data.summary.get('best_of_n') or ()
  probed = [data.summary.get('probes'), *(grow.get('probes') for grow in data.grows)]
  return (
    _environment()
    .get_template('report.html.j2')
    .render(
      behaviour=_measures(policies, _BEHAVIOUR),
      content_policy=_content_policy(script),
      css=markupsafe.Markup(_asset('report.css')),
      dark_variables=markupsafe.Markup(css_variables(1)),
      drawings=drawings,
      findings=findings,
      flagged={finding.index for finding in findings},
      grows=data.grows,
      groups=groups,
      headline=headline(policies),
      human=_human(data.summary.get('human')),
      losses=sorted(losses),
      light_variables=markupsafe.Markup(css_variables(0)),
      normaliser=None if reward_model is None else _normaliser(reward_model),
      num_hidden_groups=num_hidden_groups,
      policies=policies,
      probed=[(one, probes_lib.shown_rows(one)) for one in probed if one],
      policy_names=list(dict.fromkeys(group.policy for group in groups)),
      quality=_measures(policies, _QUALITY),
      refreshed=any(grow.get('stale_gold_agreement') for grow in data.grows),
      reward_model=reward_model,
      script=markupsafe.Markup(script),
      selection_rows=selection_rows(selections),
      selection_sentence=reaching(selections),
      selections=selections,
      settings=data.summary.get('settings') or {},
      stages=data.stages,
      tiles=_tiles(data),
      totals=_stage_totals(data.stages),
      value_models=data.summary.get('value_models') or (),
      warnings=list(data.summary.get('warnings') or ()),
    )
    .lstrip()
  )

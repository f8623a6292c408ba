"""People's ratings in the report: a sentence, table cells, and a figure."""

from typing import NamedTuple

from rest_jax.report import formatting
from rest_jax.report.data import Record, half_interval, interval, number
from rest_jax.report.drawing import Drawing, Panel, policy_points, spoken
from rest_jax.report.style import COLOUR, new_axes

HEAD = (
  'Sources',
  'Rating',
  'Difference',
  'Win rate',
  'Wins',
  'Ties',
  'Losses',
  'Rank by people',
  'Rank by reward',
)


class Cell(NamedTuple):
  """A table's cell: a number, and half of its interval or None."""

  text: str
  half: str | None = None

  def __str__(self) -> str:
    return self.text if self.half is None else f'{self.text} ± {self.half}'


def cells(system: Record) -> tuple[Cell, ...]:
  """The cells of a system under HEAD."""

  def scored(key: str, interval_key: str, sign: bool = False) -> Cell:
    value, half = number(system, key), half_interval(system, interval_key)
    text = formatting.score(value, 2)
    if sign and value is not None and value > 0:
      text = f'+{text}'
    return Cell(text, None if half is None else formatting.score(half, 2))

  win_rate = number(system, 'win_rate')
  half = half_interval(system, 'win_rate_interval')
  return (
    Cell(formatting.count(number(system, 'num_sources'))),
    scored('rating_mean', 'rating_interval'),
    scored('difference', 'difference_interval', sign=True),
    Cell(
      formatting.percent(win_rate), None if half is None else formatting.percent(half)
    ),
    *(Cell(formatting.percent(number(system, k))) for k in ('wins', 'ties', 'losses')),
    Cell(formatting.count(number(system, 'rank_by_humans'))),
    Cell(formatting.count(number(system, 'rank_by_reward'))),
  )


def outcome(human: Record) -> str:
  """What people say, in a sentence or two."""
  systems = human['systems']
  first = (
    f'{formatting.count(number(human, "num_raters"))} raters gave '
    f'{formatting.count(number(human, "num_ratings"))} ratings of '
    f'{formatting.count(number(human, "num_candidates"))} candidates.'
  ).replace('1 raters', '1 rater')
  compared = [s for s in systems if number(s, 'difference') is not None]
  if not compared:
    return first
  better = [
    s for s in compared if (i := interval(s, 'difference_interval')) and i[0] > 0
  ]
  worse = [
    s for s in compared if (i := interval(s, 'difference_interval')) and i[1] < 0
  ]
  base = compared[0]['baseline']
  said = [
    f'{", ".join(str(s["name"]) for s in group)} {word} than {base}'
    for group, word in ((better, 'better'), (worse, 'worse'))
    if group
  ]
  if not said:
    return f'{first} They find no policy better or worse than {base}.'
  found = (
    f'They find {" and ".join(said)}; other differences are within their interval.'
  )
  if len(better) + len(worse) == len(compared):
    found = f'They find {" and ".join(said)}.'
  return f'{first} {found}'


def ranking(human: Record) -> str | None:
  """Whether people and the reward model agree on the order; None where unknown."""
  systems = human['systems']
  people = [number(s, 'rank_by_humans') for s in systems]
  reward = [number(s, 'rank_by_reward') for s in systems]
  if len(systems) < 2 or None in people or None in reward:
    return None

  def order(key: str) -> str:
    ranked = sorted(systems, key=lambda s: number(s, key) or 0.0)
    return ', '.join(str(s['name']) for s in ranked)

  if people == reward:
    return f'People and the reward model give one ranking: {order("rank_by_humans")}.'
  return (
    f'The rankings differ. People, best first: {order("rank_by_humans")}. '
    f'The reward model: {order("rank_by_reward")}.'
  )


def rater_agreement(human: Record) -> str:
  """How far raters agree, and the reward model with them, in words."""
  found = human['agreement']
  parts = []
  alpha, half = number(found, 'alpha'), half_interval(found, 'alpha_interval')
  if alpha is None:
    parts.append('Raters cannot be compared: too little was rated by two of them.')
  else:
    shared = formatting.count(number(found, 'candidates'))
    text = f"Krippendorff's α (interval) {formatting.score(alpha, 2)}"
    text += '' if half is None else f' ± {formatting.score(half, 2)}'
    text += f' over {shared} candidates that two or more rated'
    spearman = number(found, 'mean_spearman')
    if spearman is not None:
      text += f"; mean Spearman's ρ of two raters {formatting.score(spearman, 2)}"
    parts.append(f'{text}.')
  reward = human.get('reward_agreement')
  if reward and (rho := number(reward, 'spearman')) is not None:
    text = f"The reward model's ρ with the mean rating is {formatting.score(rho, 2)}"
    inside = number(reward, 'spearman_in_groups')
    if inside is not None:
      text += f' over all, {formatting.score(inside, 2)} among candidates of one source'
    parts.append(f'{text}.')
  return ' '.join(parts)


def human_ratings(human: Record | None) -> Drawing | None:
  """The figure: mean ratings, and differences to the baseline."""
  if human is None:
    return None
  systems = human['systems']
  panels = []
  for key, label in (('rating_mean', 'Mean rating (0 to 6)'), ('difference', None)):
    if all(number(system, key) is None for system in systems):
      continue
    interval_key = 'rating_interval' if key == 'rating_mean' else 'difference_interval'
    if label is None:
      label = f'Rating less that of {systems[0]["baseline"]}'
    figure, axes = new_axes()
    policy_points(
      axes, systems, key, interval_key, colour=COLOUR['purple'], label=label
    )
    if key == 'difference':
      axes.axhline(0.0, color=COLOUR['muted'], linewidth=1.0, linestyle='--', zorder=1)
    panels.append(Panel(figure, spoken(systems, key, label, interval_key)))
  if not panels:
    return None
  return Drawing(
    'human',
    'What people think',
    'Blinded ratings with 95 % bootstrap intervals over sources. A difference compares '
    "one rater's ratings of one source.",
    tuple(panels),
  )

"""How a study is shown to its raters: view, question, scale."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rest_jax.annotation import database, order

# The anchors of the 0 to 6 scale (scalar quality metric: Freitag et al. 2021,
# arXiv:2104.14478; worded as in WMT's direct assessments since 2022).
ANCHORS = {
  0: 'nonsense, or no meaning kept',
  2: 'some of the meaning kept',
  4: 'most of the meaning kept, few grammar mistakes',
  6: 'perfect meaning and grammar',
}


@dataclasses.dataclass(frozen=True)
class Protocol:
  """What raters are told and shown.

  Args:
    view: 'side_by_side' shows all candidates of a source, 'single' one at a time.
    question: one sentence above the source.
    anchors: {rating: meaning} of some ratings, 0 to 6; those between are between.
    show_reference: show the reference, where there is one.

  Raises:
    ValueError: an unknown view, an anchor that is not on the scale.
  """

  view: str = order.SIDE_BY_SIDE
  question: str = 'How good is each candidate as a translation of the source?'
  anchors: Mapping[int, str] = dataclasses.field(default_factory=lambda: dict(ANCHORS))
  show_reference: bool = False

  def __post_init__(self) -> None:
    order.check_view(self.view)
    scale = range(database.MAX_RATING + 1)
    wrong = [rating for rating in self.anchors if rating not in scale]
    if wrong:
      raise ValueError(
        f'anchors of {wrong}: ratings are whole numbers, 0 to {database.MAX_RATING}'
      )

  def identity(self) -> dict[str, Any]:
    """JSON values: ratings under another protocol are not to be mixed."""
    anchors = {str(rating): text for rating, text in sorted(self.anchors.items())}
    return {**dataclasses.asdict(self), 'anchors': anchors}

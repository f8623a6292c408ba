"""Objectives of the reward model: losses of `losses`, bound to `models.reward`.

As `objectives`: `name`, and `loss_fn(config)(params, batch, rng) -> (loss_sum,
weight_sum, metrics)`. Besides, `num_examples(ratings, judgements)` says how much of a
rated group an objective learns from, so that a stage can refuse data that it cannot
learn from. Features used: the tokens, decoder_loss_weights, keep, and

    ratings      [batch, samples] float32, standardised
    preferences  [batch, samples, samples] float32, how often a rater preferred i to j
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.losses import bradley_terry, regression
from rest_jax.models import reward
from rest_jax.models.config import T5Config
from rest_jax.training import step as step_lib

Batch = Mapping[str, jax.Array]


class Term(NamedTuple):
  """A loss of predictions: what a loss_fn returns."""

  loss_sum: jax.Array  # [] float32
  weight_sum: jax.Array  # [] float32
  metrics: dict[str, Any]


class PairMaker(Protocol):
  """Which candidates are compared, and which of two is the better one."""

  def __call__(
    self, predictions: jax.Array, batch: Batch
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns predictions [rows, n], preferences [rows, n, n], mask [rows, n]."""
    ...

  def num_pairs(self, ratings: np.ndarray, judgements: np.ndarray) -> int:
    """Pairs that a group of ratings [samples] and judgements [samples, raters] has."""
    ...


@dataclasses.dataclass(frozen=True)
class Regression:
  """Squared error between the prediction and the standardised rating."""

  name: ClassVar[str] = 'regression'

  def identity(self) -> dict[str, Any]:
    """Under its first name, which the reward models made then have in their record."""
    return {'type': 'rest_jax.training.objectives.Regression'}

  def loss_fn(self, config: T5Config) -> step_lib.LossFn:
    """Features used: ratings."""
    return _loss_fn(config, self.of_predictions)

  def of_predictions(self, predictions: jax.Array, batch: Batch) -> Term:
    """The loss, given predictions [batch, samples]."""
    sums = regression.regression_loss(predictions, batch['ratings'], batch['keep'])
    return Term(sums.loss_sum, sums.weight_sum, {})

  def num_examples(self, ratings: np.ndarray, judgements: np.ndarray) -> int:
    """Every rated candidate is one."""
    del judgements
    return len(ratings)


@dataclasses.dataclass(frozen=True)
class RatingPairs:
  """Pairs of a source's candidates whose ratings differ by more than a margin.

  Attributes:
    margin: in standard deviations of the ratings.
    across_sources: compares the candidates of different sources of a batch as well.
      For ratings that mean the same for every source, such as direct assessment; the
      only pairs where a source has one candidate. A batch that is cut into
      microbatches has the pairs inside of each.
  """

  margin: float = 0.0
  across_sources: bool = False

  def __call__(
    self, predictions: jax.Array, batch: Batch
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Uses the feature `ratings`."""
    ratings, mask = batch['ratings'], batch['keep']
    if self.across_sources:  # all of [batch, samples] is one row
      predictions, ratings, mask = (
        x.reshape(1, -1) for x in (predictions, ratings, mask)
      )
    preferences = bradley_terry.rating_preferences(ratings, mask, margin=self.margin)
    return predictions, preferences, mask

  def num_pairs(self, ratings: np.ndarray, judgements: np.ndarray) -> int:
    """Those of the group at a margin of 0; a candidate is one, across sources."""
    del judgements
    if self.across_sources:
      return len(ratings)
    return int((ratings[:, None] > ratings[None, :]).sum())


@dataclasses.dataclass(frozen=True)
class GivenPairs:
  """Pairs that a rater compared: each preference, or two ratings by one rater."""

  def __call__(
    self, predictions: jax.Array, batch: Batch
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Uses the feature `preferences`."""
    return predictions, batch['preferences'], batch['keep']

  def num_pairs(self, ratings: np.ndarray, judgements: np.ndarray) -> int:
    """Comparisons in the group."""
    del ratings
    return int((judgements[:, None] > judgements[None, :]).sum())


@dataclasses.dataclass(frozen=True)
class BradleyTerry:
  """-log sigmoid(reward of the better - reward of the worse), the mean over pairs.

  Attributes:
    pairs: RatingPairs or GivenPairs.
  """

  name: ClassVar[str] = 'Bradley-Terry'
  pairs: PairMaker = RatingPairs()

  def loss_fn(self, config: T5Config) -> step_lib.LossFn:
    """Features used: those of `pairs`."""
    return _loss_fn(config, self.of_predictions)

  def of_predictions(self, predictions: jax.Array, batch: Batch) -> Term:
    """The loss, given predictions [batch, samples]."""
    sums = bradley_terry.bradley_terry_loss(*self.pairs(predictions, batch))
    accuracy = (sums.correct_sum, sums.weight_sum)
    return Term(sums.loss_sum, sums.weight_sum, {'pair_accuracy': accuracy})

  def num_examples(self, ratings: np.ndarray, judgements: np.ndarray) -> int:
    """Every pair is one."""
    return self.pairs.num_pairs(ratings, judgements)


@dataclasses.dataclass(frozen=True)
class RegressionAndPairs:
  """The weighted sum of Regression and BradleyTerry.

  regression_weight * mean_candidates(squared error) + pairs_weight * mean_pairs(loss)

  The means are over the batch, or over each microbatch, weighed by its candidates.

  Attributes:
    pairs: RatingPairs or GivenPairs.
    regression_weight, pairs_weight: of the two means.
  """

  name: ClassVar[str] = 'regression and Bradley-Terry'
  pairs: PairMaker = RatingPairs()
  regression_weight: float = 1.0
  pairs_weight: float = 1.0

  def loss_fn(self, config: T5Config) -> step_lib.LossFn:
    """Features used: ratings, and those of `pairs`."""
    return _loss_fn(config, self.of_predictions)

  def of_predictions(self, predictions: jax.Array, batch: Batch) -> Term:
    """The loss, given predictions [batch, samples]."""
    fitted = Regression().of_predictions(predictions, batch)
    compared = BradleyTerry(self.pairs).of_predictions(predictions, batch)
    mean = self.regression_weight * _mean(fitted) + self.pairs_weight * _mean(compared)
    metrics = compared.metrics | {'squared_error': fitted[:2]}
    return Term(mean * fitted.weight_sum, fitted.weight_sum, metrics)

  def num_examples(self, ratings: np.ndarray, judgements: np.ndarray) -> int:
    """Every pair is one: what has none is a case for Regression."""
    return self.pairs.num_pairs(ratings, judgements)


def _mean(term: Term) -> jax.Array:
  return term.loss_sum / jnp.maximum(term.weight_sum, 1)


def _loss_fn(
  config: T5Config, of_predictions: Callable[[jax.Array, Batch], Term]
) -> step_lib.LossFn:
  """Predicts the rewards of a batch, once, and hands them to the loss."""

  def loss(
    params: Any, batch: Batch, rng: jax.Array
  ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
    predictions = reward.predict(
      params,
      batch,
      config=config,
      dropout_rng=rng if config.dropout_rate > 0 else None,
    )
    loss_sum, weight_sum, metrics = of_predictions(predictions, batch)
    return loss_sum, weight_sum, metrics

  return loss

"""Preference losses as objectives: DPO and IPO on pairs taken from the groups.

The pairs of a row are made on the host from its rewards, by one of

    BestAgainstWorst        one pair for each source
    AllPairs                every pair whose rewards differ by more than a margin
    RejectionSampledPairs   RSO: pairs of what the optimal policy would draw

Equations, sources and departures are those of losses.preference. The pairs compare
candidates of one row, so a row must hold all that the filter keeps of its source
(`improve.improve.samples_per_row`). A row of one candidate has no pair.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import jax
import numpy as np

from rest_jax.losses import preference
from rest_jax.models import t5
from rest_jax.training import objectives, offline_objectives
from rest_jax.training import step as step_lib

Batch = Mapping[str, Any]


class PairMaker(Protocol):
  """Makes the pairs of a batch's rows."""

  def __call__(self, batch: Mapping[str, np.ndarray]) -> preference.Pairs:
    """Pairs, [batch, pairs] each."""
    ...


@dataclasses.dataclass(frozen=True)
class BestAgainstWorst:
  """A source's best candidate against its worst."""

  def __call__(self, batch: Mapping[str, np.ndarray]) -> preference.Pairs:
    """Pairs [batch, 1]."""
    return preference.best_against_worst(batch['rewards'], batch['keep'])


@dataclasses.dataclass(frozen=True)
class AllPairs:
  """Every pair of a source's candidates.

  Attributes:
    margin: by which their rewards must differ, in units of the (normalised) reward.
  """

  margin: float = 0.0

  def __call__(self, batch: Mapping[str, np.ndarray]) -> preference.Pairs:
    """Pairs [batch, samples * (samples - 1) / 2]."""
    return preference.all_pairs(batch['rewards'], batch['keep'], margin=self.margin)


@dataclasses.dataclass(frozen=True)
class RejectionSampledPairs:
  """RSO's statistical rejection sampling.

  The uniform numbers come from (seed, tokens of the source, place of the candidate in
  its row), so that a source has the same pairs wherever its row lies.

  Attributes:
    beta: of the optimal policy, in units of the (normalised) reward; the paper has
      0.5 for rewards that are logits.
    num_pairs: of each source.
    seed: of the uniform numbers.
  """

  beta: float = 0.2
  num_pairs: int = 4
  seed: int = 0

  def __call__(self, batch: Mapping[str, np.ndarray]) -> preference.Pairs:
    """Pairs [batch, num_pairs]."""
    uniforms = preference.source_uniforms(
      [_source_key(tokens) for tokens in batch['encoder_input_tokens']],
      seed=self.seed,
      grow_step=0,
      num_samples=batch['rewards'].shape[1],
      num_rounds=2 * self.num_pairs,
    )
    return preference.rejection_sampled_pairs(
      batch['rewards'],
      batch['keep'],
      uniforms,
      beta=self.beta,
      num_pairs=self.num_pairs,
    )


def _source_key(tokens: np.ndarray) -> str:
  """Names a source by its tokens, whatever the padding after them."""
  content = tokens[: int(np.count_nonzero(tokens))].astype('<i4').tobytes()
  return hashlib.blake2b(content, digest_size=16).hexdigest()


class _Preference(objectives.PolicyObjective):
  """What DPO and IPO share."""

  needs: ClassVar[tuple[str, ...]] = (objectives.REFERENCE,)
  whole_groups: ClassVar[bool] = True
  pairs_fn: PairMaker
  sequence_fn: Callable[..., jax.Array]

  def features(
    self, batch: dict[str, np.ndarray], *, done: float
  ) -> dict[str, np.ndarray]:
    """Adds chosen, rejected and pair_weights, [batch, pairs] each."""
    pairs = self.pairs_fn(batch)
    return {
      **batch,
      'chosen': pairs.chosen,
      'rejected': pairs.rejected,
      'pair_weights': pairs.weights,
    }

  def pair_loss(self, *arguments: Any) -> preference.PreferenceSums:
    """The loss of the pairs: arguments of losses.preference.dpo_loss."""
    raise NotImplementedError

  def loss_fn(
    self, config: t5.T5Config, frozen: objectives.Configs | None = None
  ) -> step_lib.LossFn:
    """Features used: the tokens, decoder_loss_weights, keep, and the pairs."""

    def loss(params: Any, batch: Batch, rng: jax.Array) -> step_lib.Sums:
      weights, keep = batch['decoder_loss_weights'], batch['keep']
      log_probs = offline_objectives.policy_log_probs(params, batch, rng, config)
      reference = offline_objectives.frozen_log_probs(
        objectives.REFERENCE, batch, frozen
      )
      sums = self.pair_loss(
        self.sequence_fn(log_probs, weights, keep),
        self.sequence_fn(reference, weights, keep),
        keep,
        batch['chosen'],
        batch['rejected'],
        batch['pair_weights'],
      )
      metrics = {
        'margin': (sums.margin_sum, sums.weight_sum),
        'pair_accuracy': (sums.correct_sum, sums.weight_sum),
      }
      return sums.loss_sum, sums.weight_sum, metrics

    return loss


@dataclasses.dataclass(frozen=True)
class DPO(_Preference):
  """Direct preference optimisation, see losses.preference.dpo_loss.

  Attributes:
    beta: strength of the KL constraint to the reference, BC.
    pairs_fn: see the module.
    sequence_fn: what a candidate's log-probability is: sequence_log_probs, or
      mean_token_log_probs (without a bias by length; another beta then).
  """

  name: ClassVar[str] = 'DPO'
  beta: float = 0.1
  pairs_fn: PairMaker = BestAgainstWorst()
  sequence_fn: Callable[..., jax.Array] = preference.sequence_log_probs

  def pair_loss(self, *arguments: Any) -> preference.PreferenceSums:
    """dpo_loss with this beta."""
    return preference.dpo_loss(*arguments, beta=self.beta)


@dataclasses.dataclass(frozen=True)
class IPO(_Preference):
  """Identity preference optimisation, see losses.preference.ipo_loss.

  Attributes:
    tau: strength of the regularisation.
    pairs_fn, sequence_fn: see DPO.
  """

  name: ClassVar[str] = 'IPO'
  tau: float = 0.1
  pairs_fn: PairMaker = BestAgainstWorst()
  sequence_fn: Callable[..., jax.Array] = preference.sequence_log_probs

  def pair_loss(self, *arguments: Any) -> preference.PreferenceSums:
    """ipo_loss with this tau."""
    return preference.ipo_loss(*arguments, tau=self.tau)

"""The report's input: plain records, as they stand in summary.json."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class ReportData:
  """Everything the page and its figures are drawn from.

  Records are mappings of JSON values. A key that is absent, null or not finite
  means "not measured", and shows as a dash; only what is named under Raises is
  required.

  Attributes:
    summary: what summary.json holds:
      `policies`: in the order trained, each {name, grow, improve, loss, threshold,
        kept_fraction, reward_mean, reward_interval [low, high], gold_mean,
        gold_interval, exact_match, bleu, bleu_interval, chrf, chrf_interval,
        length_ratio, distinct_1, distinct_2, distinct_3, copy_rate, repetition_rate,
        kl_to_bc, kl_interval, reward_gold_spearman, reward_gold_spearman_in_groups,
        num_sources, num_samples}. BLEU and chrF run from 0 to 100, KL is in nats,
        rates and fractions run from 0 to 1. Intervals are at 95 %. `grow` is null for
        a policy outside Algorithm 1 (an online baseline).
      `stages`: {name, stage, seconds, device_seconds, peak_memory_bytes,
        energy_joules, reused}.
      `reward_model`: {spearman, kendall, pearson, each also with _in_groups,
        num_pairs, num_groups, normaliser}; null without a learned one.
      `probes`: see report.probes; null where the reward was not probed.
      `grows`: {name, grow, num_sources, num_candidates, mean_reward,
        unfinished_fraction, duplicate_fraction, mean_length (tokens), gold_agreement
        and stale_gold_agreement (before the reward model's refresh): {spearman,
        spearman_in_groups}, probes: of the refreshed one, as above, or absent;
        thresholds: [{improve, threshold, kept_fraction, sources_left,
        emptied_sources, kept_tokens, tokens}]}.
      `human`: where people rated, {num_ratings, num_raters, num_candidates, systems:
        [{name, baseline, grow, improve, num_sources, rating_mean, rating_interval,
        difference, difference_interval, win_rate, win_rate_interval, wins, ties,
        losses, rank_by_humans, rank_by_reward}], agreement: {alpha, alpha_interval,
        candidates, mean_spearman}, reward_agreement: {spearman, spearman_in_groups}};
        absent where nobody did.
      `best_of_n`: one for each policy, BC first: {policy, num_sources,
        samples_per_source, rows: [{judge, n, reward_mean, gold_mean, bleu, chrf, each
        with its interval}]}.
      `value_models`: {name, grow, discount, best_step, train, held_out: {first,
        middle, last: {spearman, kendall, pearson, each also with _in_groups},
        squared_error, explained_variance, tokens}}.
      `warnings`: sentences. `settings`: {seed, versions, devices, device_count,
        started, command, corpus, model}, free in form.
    histograms: one per Grow: {grow, edges [bins + 1], counts [bins] of the model's
      candidates, counts_data [bins] of the corpus's own targets, or null}.
    curves: {stage, metric, steps, values}; `stage` is the name of a summary stage.
    groups: sample groups to browse: {policy, source_id, source, reference,
      renderings, candidates: [{text, reward, gold, log_prob (nats), kept}]}.

  Raises:
    ValueError: no policies; a policy without a name; a histogram whose edges are
      not one more than its counts; a curve whose steps and values differ in number.
  """

  summary: Record
  histograms: Sequence[Record] = ()
  curves: Sequence[Record] = ()
  groups: Sequence[Record] = ()

  def __post_init__(self) -> None:
    policies = self.summary.get('policies')
    if not policies:
      raise ValueError(
        f'summary["policies"] is {policies!r}; a report needs at least one evaluated '
        'policy: evaluate BC first'
      )
    for index, policy in enumerate(policies):
      if not policy.get('name'):
        raise ValueError(
          f'policy {index} has no name: {dict(policy)!r}; give each policy a "name"'
        )
    for histogram in self.histograms:
      num_edges = len(histogram['edges'])
      for key in ('counts', 'counts_data'):
        counts = histogram.get(key)
        if counts is not None and num_edges != len(counts) + 1:
          raise ValueError(
            f'histogram of grow {histogram.get("grow")!r} has {num_edges} edges and '
            f'{len(counts)} {key}; give one edge more than there are counts'
          )
    for curve in self.curves:
      if len(curve['steps']) != len(curve['values']):
        raise ValueError(
          f'curve {curve.get("metric")!r} of {curve.get("stage")!r} has '
          f'{len(curve["steps"])} steps and {len(curve["values"])} values; give one '
          'value for each step'
        )

  @property
  def policies(self) -> Sequence[Record]:
    """The evaluated policies, in the order trained."""
    return self.summary['policies']

  @property
  def stages(self) -> Sequence[Record]:
    """The stages of the run; none where unknown."""
    return self.summary.get('stages') or ()

  @property
  def grows(self) -> Sequence[Record]:
    """The Grow steps; none for BC alone."""
    return self.summary.get('grows') or ()


def number(record: Record, key: str) -> float | None:
  """The record's finite number under key, or None where it was not measured."""
  value = record.get(key)
  if value is None or not math.isfinite(value):
    return None
  return float(value)


def interval(record: Record, key: str) -> tuple[float, float] | None:
  """The record's [low, high] under key, or None where it was not measured."""
  bounds = record.get(key)
  if bounds is None or any(b is None or not math.isfinite(b) for b in bounds):
    return None
  low, high = bounds
  return float(low), float(high)


def half_interval(record: Record, key: str) -> float | None:
  """Half the width of the record's interval, or None."""
  bounds = interval(record, key)
  return None if bounds is None else (bounds[1] - bounds[0]) / 2


def short_name(policy: Record) -> str:
  """'BC', 'G=1 I=2', or the policy's own name outside Algorithm 1."""
  grow, improve = policy.get('grow'), policy.get('improve')
  if grow is None or improve is None:
    return str(policy['name'])
  return 'BC' if grow == 0 else f'G={grow} I={improve}'

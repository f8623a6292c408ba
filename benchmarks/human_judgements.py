"""Does a reward model agree with human raters better than simple baselines do?

    python -m benchmarks.human_judgements --model_dir runs/mlqe \\
      --ratings ro-en.test.tsv.gz --source_column original \\
      --candidate_column translation --rating_column z_scores \\
      --file_columns model_scores \\
      --reward_models reward_model reward_pairs reward_both

The reward models of a run (`gin_configs/runs/mlqe_pe_ro_en.gin`) score the candidates
of a file of ratings that they never saw. Pearson, Spearman and Kendall's tau-b with the
mean rating, over all candidates, beside:

- `length_ratio`: how near the candidate's length is to what is usual, less the distance
  of log(its characters / the source's) from the median of the rated train file.
- `policy_likelihood`: BC's mean log-probability per token.
- `file_columns`: numbers in the file, such as the translating system's own scores.

Brackets are 95 % bootstrap intervals over sources. `over_likelihood` is the difference
in Spearman to policy_likelihood, from the same resamples.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from benchmarks import measuring, ours
from rest_jax.data import group_store, judgements, tables
from rest_jax.rewards import agreement
from rest_jax.stages import artifact, score
from rest_jax.stages import rated as rated_lib
from rest_jax.training import mesh as mesh_lib

LIKELIHOOD = 'policy_likelihood'


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
  args = _parser().parse_args(argv)
  model_dir = epath.Path(args.model_dir)
  policy = ours.load_policy(str(model_dir / 'bc'))
  reader = judgements.Ratings(
    source_column=args.source_column,
    candidate_column=args.candidate_column,
    rating_column=args.rating_column,
  )
  groups, ratings = rated_groups(reader, args.ratings, policy.vocabulary)
  train = rated_lib.read(model_dir / 'ratings', model_dir / 'ratings')
  lengths = {
    'source_length': max(len(group.source_tokens) for group in groups),
    'target_length': max(len(tokens) for group in groups for tokens in group.tokens),
  }
  scores = {
    'length_ratio': length_closeness(groups, [one.group for one in train]),
    LIKELIHOOD: ours.log_prob_scorer(policy, **lengths)(groups),
  }
  for column in args.file_columns:
    scores[column] = file_column(args, column, groups)
  run = artifact.Run(args.model_dir, mesh=mesh_lib.make_mesh())
  for name in args.reward_models:
    path = model_dir / name
    scorer = score.load_reward_model(
      artifact.Artifact(name, 'train_reward', path, '', True),
      run,
      task_feature_lengths={
        'inputs': lengths['source_length'],
        'targets': lengths['target_length'],
      },
    )
    scores[name] = scorer(groups)
  rows = compare(scores, ratings, seed=args.seed)
  measuring.report(
    'Agreement with human ratings', rows, candidates=sum(map(len, ratings))
  )
  return rows


def rated_groups(
  reader: judgements.Reader, path: str, vocabulary: Any
) -> tuple[list[group_store.Group], list[np.ndarray]]:
  """The groups of a file of judgements, and their mean ratings."""
  judged = judgements.group(reader(path))
  groups = [
    group_store.Group(
      source_id=str(index),
      source=one.source,
      source_tokens=vocabulary.encode(one.source),
      reference=one.reference,
      texts=one.candidates,
      tokens=tuple(vocabulary.encode_batch(one.candidates)),
      token_log_probs=None,
      finished=np.ones(len(one.candidates), bool),
      origins=('data',) * len(one.candidates),
    )
    for index, one in enumerate(judged)
  ]
  return groups, [one.ratings for one in judged]


def length_closeness(
  groups: Sequence[group_store.Group], usual: Sequence[group_store.Group]
) -> list[np.ndarray]:
  """Less the distance of the log ratio of lengths from its median in `usual`."""

  def ratios(group: group_store.Group) -> np.ndarray:
    return np.array([np.log(len(t) / len(group.source)) for t in group.texts])

  median = np.median(np.concatenate([ratios(group) for group in usual]))
  return [-np.abs(ratios(group) - median) for group in groups]


def file_column(
  args: argparse.Namespace, column: str, groups: Sequence[group_store.Group]
) -> list[np.ndarray]:
  """The numbers in a column of the file of ratings."""
  named = [args.source_column, args.candidate_column, column]
  rows = tables.rows(args.ratings, named)
  values = {
    (r.cells[named[0]], r.cells[named[1]]): float(r.cells[column]) for r in rows
  }
  return [
    np.array([values[group.source, text] for text in group.texts]) for group in groups
  ]


def compare(
  scores: Mapping[str, Sequence[np.ndarray]],
  ratings: Sequence[np.ndarray],
  *,
  seed: int,
  num_resamples: int = 1000,
) -> list[dict[str, Any]]:
  """A row for each of the scores, likelihood among them."""
  resampled = {
    name: agreement.resampled_correlations(
      values, ratings, seed=seed, num_resamples=num_resamples
    )
    for name, values in scores.items()
  }
  rows = []
  for name, values in resampled.items():
    found = agreement.agreement(scores[name], ratings)
    row: dict[str, Any] = {'scorer': name}
    for place, measure in enumerate(('pearson', 'spearman', 'kendall')):
      row[measure] = _cell(getattr(found, measure), values[:, place])
    gain = values[:, 1] - resampled[LIKELIHOOD][:, 1]
    base = agreement.agreement(scores[LIKELIHOOD], ratings).spearman
    row['over_likelihood'] = (
      '' if name == LIKELIHOOD else _cell(found.spearman - base, gain)
    )
    rows.append(row)
  return rows


def _cell(value: float, resampled: np.ndarray) -> str:
  low, high = np.quantile(resampled, [0.025, 0.975])
  return f'{value:.3f} [{low:.3f}, {high:.3f}]'


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--model_dir', required=True, help='of a run with bc and ratings')
  parser.add_argument('--ratings', required=True, help='the file to compare with')
  parser.add_argument('--source_column', default='source')
  parser.add_argument('--candidate_column', default='candidate')
  parser.add_argument('--rating_column', default='rating')
  parser.add_argument('--file_columns', nargs='*', default=[])
  parser.add_argument('--reward_models', nargs='+', default=['reward_model'])
  parser.add_argument('--seed', type=int, default=0, help='of the bootstrap')
  return parser


if __name__ == '__main__':
  main()

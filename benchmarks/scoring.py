"""How many candidates a second does the reward model score?

    python -m benchmarks.scoring --groups MODEL_DIR/grow_1 --policy MODEL_DIR/bc
    python -m benchmarks.scoring

Ours is `LearnedReward` with a RewardT5 of the policy's weights. The rivals compute
the log-probabilities of the same candidates, teacher-forced, at the batch that is
fastest for them: Transformers over padded pairs of source and candidate, sorted by
length, the encoder run for every pair ('transformers') or once a source
('transformers_shared'), and CTranslate2's `score_batch`. None of them has a reward
head; its cost is one dot product a candidate.

The head is 0 and the weight of the likelihood 1, so that ours returns the mean
log-probability, which times the length must be the rivals' sequence
log-probability. Without --groups the candidates are random tokens whose lengths
spread around their source's.
"""

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import comparison, conversions, measuring, ours, rivals
from rest_jax.data import group_store

BATCHES = (16, 32, 64, 128, 256)  # pairs, among which a rival chooses
EXACT = ('transformers', 'transformers_shared', 'ctranslate2')  # in float32
RIVALS = (*EXACT, 'ctranslate2_int8')
# Sums of float32 in another order, over candidates of hundreds of nats.
ABSOLUTE, RELATIVE = 1e-3, 2e-5

Scores = list[np.ndarray]  # per source [candidates] float32, nats


@dataclasses.dataclass
class Scorer:
  """A rival: `score(pairs, batch)` gives the log-probability of each pair.

  Attributes:
    name: for tables.
    score: takes sources, candidates (flat, as many) and the batch's size.
    batch: pairs scored together.
  """

  name: str
  score: Callable[[list[list[int]], list[list[int]], int], np.ndarray]
  batch: int = BATCHES[0]

  def __call__(self, groups: Sequence[group_store.Group]) -> Scores:
    """Sequence log-probabilities of each group's candidates."""
    pairs = [
      (len(tokens), len(group.source_tokens), row, slot)
      for row, group in enumerate(groups)
      for slot, tokens in enumerate(group.tokens)
    ]
    pairs.sort()
    scores = [np.zeros(len(group.tokens), np.float32) for group in groups]
    found = self.score(
      [groups[row].source_tokens.tolist() for *_, row, _ in pairs],
      [groups[row].tokens[slot].tolist() for *_, row, slot in pairs],
      self.batch,
    )
    for (*_, row, slot), value in zip(pairs, found, strict=True):
      scores[row][slot] = value
    return scores

  def tune(self, groups: Sequence[group_store.Group]) -> None:
    """Keeps the fastest of BATCHES on some of the groups."""
    some = groups[: max(1, -(-2 * max(BATCHES) // len(groups[0].tokens)))]
    times = {}
    for self.batch in BATCHES:
      self(some)
      times[self.batch] = measuring.timed(lambda: self(some)).seconds
      measuring.say(f'{self.name}: {self.batch} pairs, {times[self.batch]:.2f} s')
    self.batch = min(times, key=times.__getitem__)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
  args = _parser().parse_args(argv)
  policy = (
    ours.load_policy(args.policy)
    if args.policy
    else ours.random_policy(ours.config_of(args.shape))
  )
  groups = _read(args.groups) if args.groups else _random_groups(args, policy)
  groups = groups[: args.num_sources]
  lengths = [np.array([len(tokens) for tokens in group.tokens]) for group in groups]

  def our_scores(precision: str) -> Callable[..., Scores]:
    score = ours.log_prob_scorer(
      policy.with_precision(precision),
      source_length=max(len(group.source_tokens) for group in groups),
      target_length=max(len(tokens) for group in groups for tokens in group.tokens),
      **args.settings,
    )
    return lambda groups: [
      mean * n for mean, n in zip(score(groups), lengths, strict=True)
    ]

  try:
    scorers = [make(name, policy, device=args.device) for name in args.rivals]
  except rivals.MissingRival as error:
    raise SystemExit(str(error)) from error
  for scorer in scorers:
    scorer.tune(groups)
  calls: dict[str, Callable[..., Scores]] = {
    name: our_scores(precision)
    for name, precision in zip(comparison.our_names(args), args.precision, strict=True)
  }
  first = [call(groups) for call in calls.values()]  # compiles
  base, expected = next(iter(calls)), first[0]
  calls |= {scorer.name: scorer for scorer in scorers}
  turns = measuring.interleave(
    {name: functools.partial(_call, call, groups) for name, call in calls.items()},
    repeats=args.repeats,
  )
  num_candidates = sum(map(len, lengths))
  num_tokens = int(sum(n.sum() for n in lengths))
  rows: list[dict[str, Any]] = []
  for name in calls:
    seconds = measuring.median_seconds(turns[name])
    flat = np.concatenate(turns[name][-1].result)
    rows.append(
      {
        'scorer': name,
        'seconds': seconds,
        'candidates_per_s': num_candidates / seconds,
        'tokens_per_s': num_tokens / seconds,
        **measuring.ratios(turns[base], turns[name]),
        'nats_per_token': float(flat.sum()) / num_tokens,
        'largest_difference': float(np.abs(flat - np.concatenate(expected)).max()),
      }
    )
  for scorer, row in zip(scorers, rows[len(args.precision) :], strict=True):
    row['pairs_a_batch'] = scorer.batch
    if args.precision[0] == 'float32' and scorer.name in EXACT:
      _check(scorer.name, expected, turns[scorer.name][-1].result)
  measuring.report(
    f'{len(groups)} sources, {num_candidates} candidates, {num_tokens} tokens',
    rows,
    config=policy.config.to_dict(),
    settings=args.settings,
    repeats=args.repeats,
    peak_memory_mb=1e-6 * measuring.peak_bytes(),  # of all together
  )
  return rows


def _call(
  call: Callable[..., Scores], groups: Sequence[group_store.Group], _: int
) -> Scores:
  """One round: every round scores the same."""
  return call(groups)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--rivals',
    default=','.join(RIVALS),
    type=comparison.names,
    help="comma-separated; '' runs ours alone (default: %(default)s)",
  )
  parser.add_argument(
    '--precision',
    default='float32',
    type=comparison.names,
    help='that ours computes in, comma-separated: float32, bfloat16, bfloat16_weights, '
    'int8_weights, int8_both (default: %(default)s); the first is the base of all '
    'ratios',
  )
  parser.add_argument('--repeats', default=3, type=int)
  parser.add_argument(
    '--settings',
    default='{}',
    type=json.loads,
    help='of LearnedReward, such as \'{"max_samples": 32}\'',
  )
  parser.add_argument('--device', default='cpu', help="of the rivals: 'cpu' or 'cuda'")
  parser.add_argument('--policy', help='folder of a policy; without, a random one')
  parser.add_argument('--groups', help='folder of a group set; without, random')
  parser.add_argument('--num_sources', default=64, type=int)
  parser.add_argument('--num_samples', default=25, type=int, help='without --groups')
  parser.add_argument(
    '--source_length', default=[8, 30], type=int, nargs=2, help='without --groups'
  )
  parser.add_argument(
    '--shape', default='{}', help='fields of T5Config of a random policy, as JSON'
  )
  return parser


def _random_groups(
  args: argparse.Namespace, policy: ours.Policy
) -> list[group_store.Group]:
  """Sources of random lengths; a candidate has 0.7 to 1.3 times its source's."""
  rng = np.random.default_rng(0)
  least, most = args.source_length
  sources, candidates = [], []
  for _ in range(args.num_sources):
    length = int(rng.integers(least, most + 1))
    sizes = rng.uniform(0.7, 1.3, args.num_samples) * length
    rows = [
      rng.integers(3, policy.config.vocab_size, max(1, int(size))).tolist()
      for size in [length, *sizes]
    ]
    for row in rows:
      row[-1] = rivals.EOS_ID
    sources.append(rows[0])
    candidates.append(rows[1:])
  return ours.with_candidates(sources, candidates)


def _read(folder: str) -> list[group_store.Group]:
  """A group set with its finished candidates: CTranslate2 scores no others."""
  groups = [
    group
    for shard in group_store.list_shards(folder)
    for group in group_store.read_groups(shard)
  ]
  kept = [group_store.take(group, np.asarray(group.finished)) for group in groups]
  return [group for group in kept if group.tokens]


def make(name: str, policy: ours.Policy, *, device: str = 'cpu') -> Scorer:
  """Makes a rival scorer by name, one of RIVALS or a type of CTranslate2.

  Raises:
    ValueError: an unknown name.
    MissingRival: the rival's package is not installed.
  """
  if name in ('transformers', 'transformers_shared'):
    return _transformers(name, policy, device)
  if name.startswith('ctranslate2'):
    sampler = rivals.make(name, policy.config, policy.params, device=device)
    assert isinstance(sampler, rivals.CTranslate2Rival)
    return Scorer(name, lambda *batch: _score_batch(sampler, *batch))
  raise ValueError(f'no rival is called {name!r}; known: {", ".join(RIVALS)}')


def _score_batch(
  sampler: rivals.CTranslate2Rival,
  sources: list[list[int]],
  candidates: list[list[int]],
  batch: int,
) -> np.ndarray:
  results = sampler.translator.score_batch(
    [[str(token) for token in tokens] for tokens in sources],
    [[str(token) for token in tokens[:-1]] for tokens in candidates],  # adds EOS
    max_batch_size=batch,
    max_input_length=0,
  )
  return np.array([sum(result.log_probs) for result in results], np.float32)


def _transformers(name: str, policy: ours.Policy, device: str) -> Scorer:
  """Transformers' forward pass; 'transformers_shared' encodes a batch's source once."""
  model = conversions.transformers_model(policy.config, policy.params).to(device)
  torch = conversions.module('torch')
  torch.set_num_threads(measuring.num_cores())
  shared = name == 'transformers_shared'

  def score_batch(sources: list[list[int]], candidates: list[list[int]]) -> np.ndarray:
    if shared:
      distinct = sorted({tuple(tokens) for tokens in sources}, key=len)
      places = {tokens: place for place, tokens in enumerate(distinct)}
      rows = torch.tensor([places[tuple(tokens)] for tokens in sources], device=device)
    source = torch.from_numpy(rivals.pad(distinct if shared else sources)).to(device)
    target = torch.from_numpy(rivals.pad(candidates)).to(device)
    mask = source != rivals.PAD_ID
    inputs: dict[str, Any] = {'input_ids': source, 'attention_mask': mask}
    if shared:
      encoded = model.encoder(input_ids=source, attention_mask=mask).last_hidden_state
      inputs = {'encoder_outputs': (encoded[rows],), 'attention_mask': mask[rows]}
    logits = model(
      **inputs,
      decoder_input_ids=torch.nn.functional.pad(target[:, :-1], (1, 0)),
      use_cache=False,
    ).logits
    losses = torch.nn.functional.cross_entropy(
      logits.float().flatten(0, 1),
      target.flatten(),
      ignore_index=rivals.PAD_ID,
      reduction='none',
    )
    return -losses.view(target.shape).sum(-1).cpu().numpy()

  def score(
    sources: list[list[int]], candidates: list[list[int]], batch: int
  ) -> np.ndarray:
    # By length for both; what shares a source comes together when that is encoded
    # once.
    keys = [(len(s), s, len(c)) for s, c in zip(sources, candidates, strict=True)]
    order = list(range(len(sources)))
    if shared:
      order.sort(key=keys.__getitem__)
    scores = np.zeros(len(sources), np.float32)
    with torch.inference_mode():
      for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        scores[rows] = score_batch(
          [sources[row] for row in rows], [candidates[row] for row in rows]
        )
    return scores

  return Scorer(name, score)


def _check(name: str, expected: Scores, found: Scores) -> None:
  """Stops where a float32 rival's log-probabilities are not ours."""
  ours_flat, theirs = np.concatenate(expected), np.concatenate(found)
  wrong = np.abs(theirs - ours_flat) > ABSOLUTE + RELATIVE * np.abs(ours_flat)
  if wrong.any():
    first = int(np.flatnonzero(wrong)[0])
    raise SystemExit(
      f'{name} gives candidate {first} a log-probability of {theirs[first]:.5f}, ours '
      f'is {ours_flat[first]:.5f} ({int(wrong.sum())} of {len(wrong)} differ): the '
      'weights differ, and speeds say nothing'
    )


if __name__ == '__main__':
  main()

"""How many candidates a second does a MetricX-shaped checkpoint score?

    python -m benchmarks.regression_scoring
    python -m benchmarks.regression_scoring --checkpoint DIRECTORY

Ours is `RegressionCheckpoint` with MetricX-24's convention without references. The
rival is Transformers as MetricX's own code calls it, the logits of the whole vocabulary
after one decoder step, but over texts sorted by length, at the batch that is fastest
for it. Both read one directory and tokenise inside the time. Without --checkpoint it is
an mT5 of the small size with random weights; the texts are random, and no two are
equal. Ours computes one column of the logits; otherwise both compute the same.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import comparison, conversions, measuring, ours, rivals
from rest_jax import paths
from rest_jax.data import vocabularies
from rest_jax.interop import checkpoint_tensors, huggingface
from rest_jax.models import t5
from rest_jax.rewards import metricx, regression_checkpoint

BATCHES = (4, 8, 16, 32, 64)  # texts, among which the rival chooses
RIVAL = 'transformers'
SHAPE: dict[str, Any] = {  # mT5 small
  'vocab_size': 250112,
  'emb_dim': 512,
  'num_heads': 6,
  'head_dim': 64,
  'mlp_dim': 1024,
  'num_encoder_layers': 8,
  'num_decoder_layers': 8,
}
ABSOLUTE = 1e-3  # sums of float32 in another order


class Transformers:
  """A checkpoint in Transformers, over texts sorted by length."""

  def __init__(self, directory: str, vocabulary: vocabularies.Vocabulary, token: int):
    transformers = conversions.module('transformers')
    self._torch = conversions.module('torch')
    self._torch.set_num_threads(measuring.num_cores())
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(directory)
    self._model = model.eval()
    self._vocabulary = vocabulary
    self._token = token
    self.batch = BATCHES[0]

  def __call__(self, texts: Sequence[str]) -> np.ndarray:
    """The logit of each text."""
    tokens = [row[:-1].tolist() for row in self._vocabulary.encode_batch(texts)]
    order = sorted(range(len(texts)), key=lambda row: len(tokens[row]))
    logits = np.zeros(len(texts), np.float32)
    with self._torch.inference_mode():
      for start in range(0, len(order), self.batch):
        rows = order[start : start + self.batch]
        padded = self._torch.from_numpy(rivals.pad([tokens[row] for row in rows]))
        found = self._model(
          input_ids=padded,
          attention_mask=padded != rivals.PAD_ID,
          decoder_input_ids=self._torch.zeros((len(rows), 1), dtype=self._torch.long),
          use_cache=False,
        ).logits
        logits[rows] = found[:, 0, self._token].numpy()
    return logits

  def tune(self, texts: Sequence[str]) -> None:
    """Keeps the fastest of BATCHES on some of the texts."""
    some = texts[: max(BATCHES)]
    times = {}
    for self.batch in BATCHES:
      self(some)
      times[self.batch] = measuring.timed(functools.partial(self, some)).seconds
      measuring.say(f'{RIVAL}: {self.batch} texts, {times[self.batch]:.2f} s')
    self.batch = min(times, key=times.__getitem__)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
  args = _parser().parse_args(argv)
  texts = random_texts(args.num_texts, args.length)
  with tempfile.TemporaryDirectory() as temporary:
    directory = args.checkpoint or temporary
    if not args.checkpoint:
      config = t5.T5Config.from_dict(SHAPE | json.loads(args.shape))
      write_random(pathlib.Path(temporary), config, texts)
    path = args.vocabulary or f'{directory}/{regression_checkpoint.VOCABULARY_FILE}'
    score = regression_checkpoint.RegressionCheckpoint(
      directory,
      convention=dataclasses.replace(metricx.metricx_24_qe(), token=args.token),
      vocabulary_path=path,
      batch_tokens=args.batch_tokens,
    )
    vocabulary = vocabularies.Vocabulary.load(path)
    calls: dict[str, Callable[[Sequence[str]], np.ndarray]] = {'ours': score.logits}
    if RIVAL in args.rivals:
      try:
        calls[RIVAL] = theirs = Transformers(directory, vocabulary, args.token)
      except conversions.MissingRival as error:
        raise SystemExit(str(error)) from error
      theirs.tune(texts)
    expected = score.logits(texts)  # reads and compiles
  turns = measuring.interleave(
    {name: functools.partial(_call, call, texts) for name, call in calls.items()},
    repeats=args.repeats,
  )
  lengths = [len(row) - 1 for row in vocabulary.encode_batch(texts)]
  rows: list[dict[str, Any]] = []
  for name in calls:
    seconds = measuring.median_seconds(turns[name])
    gap = float(np.abs(turns[name][-1].result - expected).max())
    if gap > ABSOLUTE:
      raise SystemExit(f'{name} is {gap} from our logits: speeds say nothing')
    rows.append(
      {
        'scorer': name,
        'seconds': seconds,
        'texts_per_s': len(texts) / seconds,
        'tokens_per_s': sum(lengths) / seconds,
        **measuring.ratios(turns['ours'], turns[name]),
        'largest_difference': gap,
      }
    )
  if RIVAL in calls:
    rows[-1]['texts_a_batch'] = theirs.batch
  measuring.report(
    f'{len(texts)} texts of {min(lengths)} to {max(lengths)} tokens',
    rows,
    batch_tokens=args.batch_tokens,
    repeats=args.repeats,
    logits=[float(expected.min()), float(expected.max())],
    peak_memory_mb=1e-6 * measuring.peak_bytes(),  # of both together
  )
  return rows


def _call(
  call: Callable[[Sequence[str]], np.ndarray], texts: Sequence[str], _: int
) -> np.ndarray:
  """One round: every round scores the same."""
  return call(texts)


def random_texts(count: int, length: Sequence[int]) -> list[str]:
  """What MetricX reads of sources and candidates of random letters."""
  rng = np.random.default_rng(0)
  template = metricx.metricx_24_qe().template

  def text() -> str:
    size = int(rng.integers(length[0], length[1] + 1))
    letters = rng.integers(ord('a'), ord('z') + 1, size, dtype=np.uint8)
    return letters.tobytes().decode()

  texts = [template.format(source=text(), candidate=text()) for _ in range(count)]
  assert len(set(texts)) == count, 'make them longer'
  return texts


def write_random(
  directory: pathlib.Path, config: t5.T5Config, texts: Sequence[str]
) -> None:
  """A checkpoint with the initial weights of its shape, as save_pretrained has it."""
  policy = ours.random_policy(config)
  state = huggingface.params_to_huggingface(policy.params, config)
  checkpoint_tensors.write_tensors(directory / checkpoint_tensors.SINGLE_FILE, state)
  fields = huggingface.config_to_huggingface(config)
  paths.write_json_atomic(directory / 'config.json', fields)
  vocabularies.train_sentencepiece(
    texts,
    directory / regression_checkpoint.VOCABULARY_FILE,
    vocab_size=40,
    model_type='char',
    byte_fallback=False,
  )


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--rivals',
    default=RIVAL,
    type=comparison.names,
    help="'' runs ours alone (default: %(default)s)",
  )
  parser.add_argument('--repeats', default=3, type=int)
  parser.add_argument('--checkpoint', help='directory; without, a random one')
  parser.add_argument('--vocabulary', help='spiece.model, where it lies elsewhere')
  parser.add_argument('--token', default=metricx.TOKEN, type=int)
  parser.add_argument('--batch_tokens', default=8192, type=int, help='of ours')
  parser.add_argument('--num_texts', default=128, type=int)
  parser.add_argument(
    '--length', default=[10, 60], type=int, nargs=2, help='letters of each half'
  )
  parser.add_argument(
    '--shape', default='{}', help='fields of T5Config that replace mT5 small, as JSON'
  )
  return parser


if __name__ == '__main__':
  main()

"""Other samplers with our weights: Transformers and CTranslate2.

Each is built from our T5 parameters and used at its best: sources sorted by
length, all cores, no gradients, and the batch that `tune` finds fastest. Sources
are token ids that end with EOS. Candidates come back as token ids with EOS where
it was drawn; neither rival detokenises or records log-probabilities here, both of
which our sampler does.

Neither is kept from drawing padding, nor ids beyond the vocabulary where the
embedding is larger: it would cost them time, and a trained policy gives these
next to no probability.

Needs what benchmarks/requirements.txt lists, but only when a rival is made.
"""

import abc
import dataclasses
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks import conversions, measuring
from benchmarks.conversions import EOS_ID as EOS_ID
from benchmarks.conversions import PAD_ID as PAD_ID
from benchmarks.conversions import MissingRival as MissingRival
from rest_jax.models import t5

TRANSFORMERS_TYPES = ('float32', 'bfloat16', 'float16')
CTRANSLATE2_TYPES = ('float32', 'int8', 'int16', 'bfloat16', 'float16', 'int8_float16')
# Candidates decoded together, among which `tune` chooses.
ROWS = (50, 100, 200, 400, 800, 1600)

Candidates = list[list[list[int]]]  # of each source, of each candidate, its tokens


@dataclasses.dataclass(frozen=True)
class Limits:
  """How long candidates may be: tokens, EOS included.

  Attributes:
    most: no candidate is longer.
    least: EOS is not drawn before so many tokens.
  """

  most: int
  least: int = 0


class Rival(abc.ABC):
  """A sampler that is not ours.

  Attributes:
    name: as `make` takes it.
    chosen: what `tune` found fastest, a JSON value that `use` takes.
    setting: the same in words.
  """

  name: str
  chosen: Any
  setting: str

  @abc.abstractmethod
  def sample(
    self,
    source_tokens: Sequence[Sequence[int]],
    *,
    num_samples: int,
    limits: Limits,
    temperature: float = 0.8,
    seed: int = 0,
  ) -> Candidates:
    """Draws independent candidates of each source from the whole vocabulary."""

  @abc.abstractmethod
  def greedy(
    self, source_tokens: Sequence[Sequence[int]], *, limits: Limits
  ) -> list[list[int]]:
    """Returns the candidate of each source that takes the likeliest tokens."""

  @abc.abstractmethod
  def _settings(self, rows: Iterable[int]) -> Iterable[Any]:
    """The settings among which to choose, for numbers of sources in a batch."""

  @abc.abstractmethod
  def use(self, chosen: Any) -> None:
    """Goes on with a setting."""

  def tune(
    self,
    source_tokens: Sequence[Sequence[int]],
    *,
    num_samples: int,
    limits: Limits,
  ) -> str:
    """Finds the fastest setting on some of the sources, all lengths among them.

    Each setting draws twice, the first time to warm up. The rival keeps the best.
    The sources make twice the largest batch.

    Returns:
      The setting, in words.
    """
    by_length = sorted(source_tokens, key=len)
    num_sources = min(len(by_length), max(2, 2 * max(ROWS) // num_samples))
    spread = np.linspace(0, len(by_length) - 1, num_sources)
    some = [by_length[i] for i in sorted(set(spread.astype(int).tolist()))]
    sizes = {min(len(some), max(1, rows // num_samples)) for rows in ROWS}
    times = {}
    for setting in self._settings(sorted(sizes)):
      self.use(setting)

      def draw() -> Candidates:
        return self.sample(some, num_samples=num_samples, limits=limits)

      draw()
      times[setting] = measuring.timed(draw).seconds
      measuring.say(f'{self.name}: {self.setting}, {times[setting]:.2f} s')
    self.use(min(times, key=times.__getitem__))
    return self.setting


def make(
  name: str, config: t5.T5Config, params: Any, *, device: str = 'cpu'
) -> 'TransformersRival | CTranslate2Rival':
  """Makes a rival by name: its library and, after '_', its type of numbers.

  'transformers', 'transformers_bfloat16', 'ctranslate2', 'ctranslate2_int8', ...
  without a type are float32.

  Raises:
    ValueError: an unknown name.
    MissingRival: the rival's package is not installed.
  """
  library, _, compute_type = name.partition('_')
  compute_type = compute_type or 'float32'
  if library == 'transformers' and compute_type in TRANSFORMERS_TYPES:
    return TransformersRival(config, params, dtype=compute_type, device=device)
  if library == 'ctranslate2' and compute_type in CTRANSLATE2_TYPES:
    return CTranslate2Rival(config, params, compute_type=compute_type, device=device)
  known = [f'transformers_{kind}' for kind in TRANSFORMERS_TYPES]
  known += [f'ctranslate2_{kind}' for kind in CTRANSLATE2_TYPES]
  raise ValueError(f'no rival is called {name!r}; known: {", ".join(known)}')


def is_exact(name: str) -> bool:
  """Whether the rival computes in float32, so that it must agree with ours."""
  return name.partition('_')[2] in ('', 'float32')


class TransformersRival(Rival):
  """Transformers' `generate`.

  Args:
    config: the policy's shape.
    params: the policy's parameters.
    dtype: of parameters and activations.
    device: 'cpu' or 'cuda'.
  """

  def __init__(
    self,
    config: t5.T5Config,
    params: Any,
    *,
    dtype: str = 'float32',
    device: str = 'cpu',
  ):
    self.name = 'transformers' + ('' if dtype == 'float32' else f'_{dtype}')
    self._torch = conversions.module('torch')
    self._generation = conversions.module('transformers').GenerationConfig
    self._torch.set_num_threads(measuring.num_cores())
    model = conversions.transformers_model(config, params)
    self._model = model.to(device, getattr(self._torch, dtype))
    self._device = device
    self.use(8)

  def _settings(self, rows: Iterable[int]) -> Iterable[int]:
    return rows

  def use(self, chosen: int) -> None:
    """Goes on with so many sources a batch."""
    self.chosen = self._batch = chosen
    self.setting = f'{chosen} sources a batch'

  def sample(
    self,
    source_tokens: Sequence[Sequence[int]],
    *,
    num_samples: int,
    limits: Limits,
    temperature: float = 0.8,
    seed: int = 0,
  ) -> Candidates:
    """See Rival; `top_k=0` and `top_p=1` switch both cuts off."""
    self._torch.manual_seed(seed)
    return self._generate(
      source_tokens,
      limits,
      do_sample=True,
      temperature=temperature,
      top_k=0,
      top_p=1.0,
      num_return_sequences=num_samples,
    )

  def greedy(
    self, source_tokens: Sequence[Sequence[int]], *, limits: Limits
  ) -> list[list[int]]:
    """See Rival."""
    found = self._generate(source_tokens, limits, do_sample=False)
    return [candidates[0] for candidates in found]

  def _generate(
    self, source_tokens: Sequence[Sequence[int]], limits: Limits, **options: Any
  ) -> Candidates:
    generation = self._generation(
      max_new_tokens=limits.most,
      min_new_tokens=limits.least or None,
      num_beams=1,
      pad_token_id=PAD_ID,
      eos_token_id=EOS_ID,
      decoder_start_token_id=PAD_ID,
      **options,
    )
    candidates: Candidates = [[] for _ in source_tokens]
    order = sorted(range(len(source_tokens)), key=lambda i: len(source_tokens[i]))
    for start in range(0, len(order), self._batch):
      rows = order[start : start + self._batch]
      tokens = pad([source_tokens[row] for row in rows])
      with self._torch.inference_mode():
        drawn = self._model.generate(
          input_ids=self._torch.from_numpy(tokens).to(self._device),
          attention_mask=self._torch.from_numpy(tokens != PAD_ID).to(self._device),
          generation_config=generation,
        )
      # [sources * samples, 1 + length] -> [sources, samples, length]
      grouped = drawn[:, 1:].reshape(len(rows), -1, drawn.shape[1] - 1).tolist()
      for row, group in zip(rows, grouped, strict=True):
        candidates[row] = [until_eos(candidate) for candidate in group]
    return candidates


class CTranslate2Rival(Rival):
  """CTranslate2's `translate_batch`; its tokens are our ids in decimal.

  It sorts the sources by length itself. Sampling repeats the decoder's state for
  each hypothesis and draws them independently; it returns them by falling score.

  Args:
    config: the policy's shape.
    params: the policy's parameters.
    compute_type: 'float32', 'int8', ...: what CTranslate2 computes in.
    device: 'cpu' or 'cuda'.
  """

  def __init__(
    self,
    config: t5.T5Config,
    params: Any,
    *,
    compute_type: str = 'float32',
    device: str = 'cpu',
  ):
    name = 'ctranslate2' + ('' if compute_type == 'float32' else f'_{compute_type}')
    self.name = name
    self._library = conversions.module('ctranslate2')
    supported = self._library.get_supported_compute_types(device)
    if compute_type not in supported:
      raise ValueError(
        f'CTranslate2 does not compute in {compute_type!r} on this {device}; it '
        f'does in {sorted(supported)}'
      )
    self._folder = tempfile.mkdtemp()
    weakref.finalize(self, shutil.rmtree, self._folder)  # it goes with the rival
    conversions.save_ctranslate2(config, params, self._folder)
    self._options = {'compute_type': compute_type, 'device': device}
    self._threads: tuple[int, int] | None = None
    self.use((8, 1, measuring.num_cores()))

  def _settings(self, rows: Iterable[int]) -> Iterable[tuple[int, int, int]]:
    cores = measuring.num_cores()
    threads = [(1, cores), (cores, 1)] if self._options['device'] == 'cpu' else [(1, 0)]
    return [(size, *pair) for pair in dict.fromkeys(threads) for size in rows]

  def use(self, chosen: Sequence[int]) -> None:
    """Goes on with (sources a batch, batches at once, threads of each)."""
    self.chosen = tuple(chosen)
    self._batch, inter_threads, intra_threads = chosen
    if self._threads != (inter_threads, intra_threads):
      self._threads = inter_threads, intra_threads
      self.translator = self._library.Translator(
        self._folder,
        inter_threads=inter_threads,
        intra_threads=intra_threads,
        **self._options,
      )
    self.setting = (
      f'{self._batch} sources a batch, {inter_threads} batches at once on '
      f'{intra_threads} threads each'
    )

  def sample(
    self,
    source_tokens: Sequence[Sequence[int]],
    *,
    num_samples: int,
    limits: Limits,
    temperature: float = 0.8,
    seed: int = 0,
  ) -> Candidates:
    """See Rival; `sampling_topk=0` draws from the whole vocabulary."""
    self._library.set_random_seed(seed)
    return self._translate(
      source_tokens,
      limits,
      num_hypotheses=num_samples,
      sampling_topk=0,
      sampling_temperature=temperature,
    )

  def greedy(
    self, source_tokens: Sequence[Sequence[int]], *, limits: Limits
  ) -> list[list[int]]:
    """See Rival."""
    return [found[0] for found in self._translate(source_tokens, limits)]

  def _translate(
    self, source_tokens: Sequence[Sequence[int]], limits: Limits, **options: Any
  ) -> Candidates:
    results = self.translator.translate_batch(
      [[str(token) for token in tokens] for tokens in source_tokens],
      max_batch_size=self._batch,
      beam_size=1,
      max_input_length=0,
      max_decoding_length=limits.most,
      min_decoding_length=limits.least,
      return_end_token=True,
      **options,
    )
    return [
      [[int(token) for token in hypothesis] for hypothesis in result.hypotheses]
      for result in results
    ]


def pad(rows: Sequence[Sequence[int]]) -> np.ndarray:
  """Returns [rows, longest] int64, 0 after each row's end."""
  padded = np.zeros((len(rows), max(map(len, rows))), np.int64)
  for row, tokens in enumerate(rows):
    padded[row, : len(tokens)] = tokens
  return padded


def until_eos(tokens: list[int]) -> list[int]:
  """The tokens up to the first EOS, it included."""
  return tokens[: tokens.index(EOS_ID) + 1] if EOS_ID in tokens else tokens

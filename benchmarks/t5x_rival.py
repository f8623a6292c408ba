"""T5X's own sampler with our weights, from a checkout of it.

`decoding.temperature_sample` over the `decode` of its minimal T5, whose parameters have
our names and shapes. As T5X does it: each candidate has a copy of its source's
encoding, the cache has its full length from the start, and a batch goes on until its
longest candidate has ended. Sources are sorted by length and padded to few lengths, so
that few programs are compiled.
"""

import dataclasses
import importlib
import pathlib
import sys
import types
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import rivals
from rest_jax.data import buckets
from rest_jax.models import t5
from rest_jax.sampling import decoder


def module(checkout: pathlib.Path, name: str) -> Any:
  """A module of T5X, without running `t5x/__init__.py` (SeqIO, TensorFlow).

  Args:
    checkout: the root of a T5X checkout.
    name: below t5x, such as 'examples.t5.network'.

  Raises:
    ValueError: no T5X checkout there.
  """
  if not (checkout / 't5x' / 'examples' / 't5' / 'network.py').is_file():
    raise ValueError(
      f'{checkout} holds no t5x/examples/t5/network.py; pass the root of a T5X checkout'
    )
  for package in ('t5x', 't5x.examples', 't5x.examples.t5'):
    if package not in sys.modules:
      made = types.ModuleType(package)
      made.__path__ = [str(checkout.joinpath(*package.split('.')))]
      sys.modules[package] = made
  return importlib.import_module(f't5x.{name}')


def network_of(checkout: pathlib.Path, config: t5.T5Config, dtype: Any) -> Any:
  """T5X's minimal T5 in our shape."""
  network = module(checkout, 'examples.t5.network')
  names = {field.name for field in dataclasses.fields(network.T5Config)}
  fields = {k: v for k, v in dataclasses.asdict(config).items() if k in names}
  return network.Transformer(network.T5Config(**{**fields, 'dtype': dtype}))


class T5XRival(rivals.Rival):
  """T5X's `temperature_sample`, on the first device, all of its cores.

  Args:
    config: the policy's shape.
    params: the policy's parameters.
    checkout: the root of a T5X checkout.
    dtype: of activations.
  """

  def __init__(
    self,
    config: t5.T5Config,
    params: Any,
    *,
    checkout: pathlib.Path,
    dtype: str = 'float32',
  ):
    self.name = 't5x' + ('' if dtype == 'float32' else f'_{dtype}')
    self._network = network_of(checkout, config, dtype)
    self._decoding = module(checkout, 'decoding')
    self._params = jax.device_put(params, jax.devices()[0])
    self._draw = jax.jit(
      self._temperature_sample, static_argnames=('num_samples', 'limits')
    )
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
    limits: rivals.Limits,
    temperature: float = 0.8,
    seed: int = 0,
  ) -> rivals.Candidates:
    """See Rival; `topk=0` and `topp=0` switch both cuts off."""
    candidates: rivals.Candidates = [[] for _ in source_tokens]
    order = sorted(range(len(source_tokens)), key=lambda i: len(source_tokens[i]))
    lengths = decoder.cache_lengths(max(map(len, source_tokens)))
    for start in range(0, len(order), self._batch):
      rows = order[start : start + self._batch]
      longest = buckets.bucket(len(source_tokens[rows[-1]]), lengths)
      tokens = np.zeros((self._batch, longest), np.int32)
      for place in range(self._batch):  # the last batch is filled up with its last
        source = source_tokens[rows[min(place, len(rows) - 1)]]
        tokens[place, : len(source)] = source
      with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
        drawn = self._draw(  # T5X promotes both
          self._params,
          tokens,
          jax.random.fold_in(jax.random.key(seed), start),
          num_samples=num_samples,
          limits=limits,
          temperature=temperature,
        )
      for row, group in zip(rows, np.asarray(drawn).tolist(), strict=False):
        candidates[row] = [rivals.until_eos(candidate) for candidate in group]
    return candidates

  def greedy(
    self, source_tokens: Sequence[Sequence[int]], *, limits: rivals.Limits
  ) -> list[list[int]]:
    """See Rival."""
    found = self.sample(source_tokens, num_samples=1, limits=limits, temperature=0.0)
    return [candidates[0] for candidates in found]

  def _temperature_sample(
    self,
    params: Any,
    tokens: jax.Array,  # [batch, source_length] int32
    rng: jax.Array,
    *,
    num_samples: int,
    limits: rivals.Limits,
    temperature: float,
  ) -> jax.Array:  # [batch, samples, most] int32
    network, decoding = self._network, self._decoding
    start = jnp.zeros((len(tokens), limits.most), jnp.int32)
    encoded = network.apply(
      {'params': params}, tokens, enable_dropout=False, method=network.encode
    )
    _, variables = network.apply(
      {'params': params},
      encoded,
      tokens,
      start,
      start,
      decode=True,
      enable_dropout=False,
      max_decode_length=limits.most,
      mutable=['cache'],
      method=network.decode,
    )
    # [batch, ...] -> [batch * samples, ...]
    encoded, sources = (
      decoding.flat_batch_beam_expand(x, num_samples) for x in (encoded, tokens)
    )

    def logits_of(state: Any) -> tuple[jax.Array, Any]:
      logits, written = network.apply(
        {'params': params, 'cache': state.cache},
        encoded,
        sources,
        state.cur_token,
        state.cur_token,
        enable_dropout=False,
        decode=True,
        max_decode_length=limits.most,
        mutable=['cache'],
        method=network.decode,
      )
      return logits[:, 0], written['cache']

    def forbid_early_end(logits: jax.Array, state: Any) -> jax.Array:
      ids = jnp.arange(logits.shape[-1])
      early = (state.step + 1 < limits.least) & (ids == rivals.EOS_ID)
      return jnp.where(early, decoding.NEG_INF_VALUE, logits)

    drawn, _ = decoding.temperature_sample(
      start,
      variables['cache'],
      logits_of,
      rivals.EOS_ID,
      decode_rng=rng,
      num_decodes=num_samples,
      temperature=temperature,
      topk=0,
      topp=0.0,
      rescale_log_probs=False,
      logit_callback_fn=forbid_early_end if limits.least else None,
    )
    return drawn

"""A Hugging Face T5 or mT5 that was trained to regress, as a scorer.

Such a model reads one text with source and candidate in it, its decoder takes a step
or a few from fixed tokens, and one logit of the last step is the score. MetricX is the
best known; its conventions are in metricx.py.
"""

import dataclasses
import functools
import math
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from rest_jax import paths
from rest_jax.data import buckets, vocabularies
from rest_jax.data.group_store import Group
from rest_jax.interop import checkpoint_tensors, huggingface, initial_checkpoint
from rest_jax.models import heads, t5
from rest_jax.training import mesh as mesh_lib

VOCABULARY_FILE = 'spiece.model'
_FIELDS = ('source', 'candidate', 'reference')


@dataclasses.dataclass(frozen=True)
class Convention:
  """How a checkpoint is asked, and how its answer becomes a reward.

    m = clip(logit of `token` after `decoder_input_tokens`)
    R = (m - worst) / (best - worst)

  Args:
    template: the encoder's text, with {candidate} and, as the model wants them,
      {source} and {reference}.
    token: whose logit is the score.
    decoder_input_tokens: what the decoder reads; the logit is of the last position.
    keep_eos: whether the encoder's tokens end with EOS.
    max_input_tokens: longer inputs are cut at their end, EOS counted whether it is
      kept or not (as Transformers' tokenizers cut).
    clip: bounds of the score; None leaves it as it is.
    worst, best: the scores that become 0 and 1. Where lower is better, worst is the
      larger. 0 and 1 leave the score as it is.

  Raises:
    ValueError: an argument that cannot be.
  """

  template: str
  token: int
  decoder_input_tokens: tuple[int, ...] = (0,)
  keep_eos: bool = True
  max_input_tokens: int = 1024
  clip: tuple[float, float] | None = None
  worst: float = 0.0
  best: float = 1.0

  def __post_init__(self) -> None:
    found = {field for _, field, _, _ in string.Formatter().parse(self.template)}
    unknown = found - {None, *_FIELDS}
    if unknown or 'candidate' not in found:
      raise ValueError(
        f'template={self.template!r} must have {{candidate}}, may have {{source}} and '
        '{reference}, and has no other field'
      )
    if self.token < 0 or not self.decoder_input_tokens:
      raise ValueError(
        f'token={self.token}, decoder_input_tokens={self.decoder_input_tokens}: give '
        'the id of a token, and at least one for the decoder (T5 starts with 0)'
      )
    if self.max_input_tokens < 2:
      raise ValueError(f'max_input_tokens={self.max_input_tokens} must be at least 2')
    if self.clip is not None and not self.clip[0] < self.clip[1]:
      raise ValueError(f'clip={self.clip}: the first must be below the second')
    if self.worst == self.best or not math.isfinite(self.best - self.worst):
      raise ValueError(
        f'worst={self.worst}, best={self.best}: they must be finite and differ'
      )

  @property
  def needs_reference(self) -> bool:
    """Whether the template has a reference in it."""
    return '{reference' in self.template

  def text(self, group: Group, candidate: str) -> str:
    """What the encoder reads.

    Raises:
      ValueError: the reference is wanted and the group has none.
    """
    if self.needs_reference and group.reference is None:
      raise ValueError(
        f'source {group.source_id!r} has no reference, which {self.template!r} wants: '
        'use a reference-free checkpoint and its convention, or a corpus with '
        'references'
      )
    return self.template.format(
      source=group.source, candidate=candidate, reference=group.reference
    )

  def rewards(self, logits: np.ndarray) -> np.ndarray:
    """[n] float32 rewards of [n] logits; computed in float64."""
    scores = np.asarray(logits, np.float64)
    if self.clip is not None:
      scores = np.clip(scores, *self.clip)
    return ((scores - self.worst) / (self.best - self.worst)).astype(np.float32)


class RegressionCheckpoint:
  """Scores candidates with an imported checkpoint, on the mesh.

  Texts that are equal are scored once a call: equal candidates of a source cost as
  much as one. They are sorted by length and cut into batches of about `batch_tokens`
  tokens, spread over the mesh's data and fsdp axes; only the last is not full. Of the
  output layer only the column of the convention's token is kept, so the logits of a
  vocabulary of 250,112 are never computed.

  Programs compiled at most: one for each of `buckets.sizes_up_to` of
  `max_input_tokens`, 28 for 1,024; sizes that no text has are not compiled.

  Args:
    directory: config.json and safetensors files, as save_pretrained leaves them.
    convention: how it is asked.
    vocabulary_path: its SentencePiece model; `spiece.model` in the directory by
      default.
    dtype: of activations, 'float32' or 'bfloat16'; parameters stay in float32.
    mesh: the devices; all of them along `data` by default.
    batch_tokens: tokens scored together, padding included; changes no score beyond
      rounding.
    name: its name in tables.

  Raises:
    ValueError: the directory lacks a file, holds another kind of model, or does not
      fit the convention or the vocabulary.
  """

  def __init__(
    self,
    directory: paths.PathLike,
    *,
    convention: Convention,
    vocabulary_path: paths.PathLike | None = None,
    dtype: str = 'float32',
    mesh: jax.sharding.Mesh | None = None,
    batch_tokens: int = 8192,
    name: str = 'regression_checkpoint',
  ):
    self.name = name
    self._directory = paths.as_path(directory)
    self._convention = convention
    found = initial_checkpoint.find(directory)
    if found.format is not initial_checkpoint.Format.HUGGING_FACE:
      raise ValueError(
        f'{directory} is a checkpoint of {found.format.value}; one of Hugging Face, '
        'with config.json and safetensors files, is needed'
      )
    self._config = initial_checkpoint.model_config(directory, dtype=dtype)
    if vocabulary_path is None:
      vocabulary_path = self._directory / VOCABULARY_FILE
    self._vocabulary = vocabularies.Vocabulary.load(vocabulary_path)
    largest = max(
      convention.token, *convention.decoder_input_tokens, self._vocabulary.size - 1
    )
    if largest >= self._config.vocab_size:
      raise ValueError(
        f'{directory} has a vocabulary of {self._config.vocab_size} tokens, and the '
        f'convention or the SentencePiece model ({self._vocabulary.size} pieces) has '
        f'token {largest}: give those that belong to the checkpoint'
      )
    if self._vocabulary.checkpoint_rows(self._config.vocab_size) is not None:
      raise ValueError(
        f'{vocabulary_path} has the special tokens in another order than T5 and mT5: '
        'give the vocabulary of the checkpoint'
      )
    self._mesh = mesh
    self._batch_tokens = batch_tokens
    self._sizes = buckets.sizes_up_to(convention.max_input_tokens)

  def identity(self) -> dict[str, Any]:
    """The checkpoint's identity, the convention and the type; not where it lies."""
    return {
      'scorer': 'regression_checkpoint',
      'checkpoint': self._checkpoint,
      'vocabulary': self._vocabulary.identity(),
      'convention': _json(dataclasses.asdict(self._convention)),
      'dtype': self._config.dtype,
    }

  @functools.cached_property
  def _checkpoint(self) -> dict[str, Any]:
    return initial_checkpoint.identity(self._directory)

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Rewards, one [samples] float32 array per group."""
    places: dict[str, int] = {}
    indices = []
    for group in groups:
      texts = [self._convention.text(group, candidate) for candidate in group.texts]
      indices.append([places.setdefault(text, len(places)) for text in texts])
    rewards = self._convention.rewards(self.logits(list(places)))
    return [rewards[np.array(index, np.int64)] for index in indices]

  def logits(self, texts: Sequence[str]) -> np.ndarray:
    """The logit of each text that the encoder may read, [texts] float32."""
    mesh = self._mesh or mesh_lib.make_mesh()
    params = _load(
      str(self._directory),
      self._checkpoint['sha256'],
      self._config,
      self._convention.token,
      mesh,
    )
    tokens = self._tokens(texts)
    order = np.argsort([-len(row) for row in tokens], kind='stable')
    pending = []
    for rows, size, count in self._batches(order, tokens, mesh_lib.batch_shards(mesh)):
      batch = np.zeros((count, size), np.int32)
      for place, row in enumerate(rows):
        batch[place, : len(tokens[row])] = tokens[row]
      placed = mesh_lib.put_batch(mesh, {'tokens': batch})['tokens']
      found = _predict(
        params,
        placed,
        config=self._config,
        decoder_input_tokens=self._convention.decoder_input_tokens,
        mesh=mesh,
      )
      pending.append((rows, found))
    logits = np.zeros(len(texts), np.float32)
    for rows, found in pending:
      logits[rows] = np.asarray(mesh_lib.fetch(found))[: len(rows)]
    return logits

  def _tokens(self, texts: Sequence[str]) -> list[np.ndarray]:
    """The encoder's tokens of each text, as the convention cuts and ends them."""
    most = self._convention.max_input_tokens - 1  # without EOS
    tokens, cut = [], 0
    for text, row in zip(texts, self._vocabulary.encode_batch(texts), strict=True):
      pieces = row[:-1]
      cut += len(pieces) > most
      pieces = pieces[:most]
      if self._convention.keep_eos:
        pieces = np.append(pieces, vocabularies.EOS_ID).astype(np.int32)
      if not len(pieces):
        raise ValueError(
          f'the text {text!r} has no token: give the template words of its own, or '
          'keep_eos=True'
        )
      tokens.append(pieces)
    if cut:
      logging.warning(
        '%s: %d of %d inputs have more than max_input_tokens=%d tokens and were cut',
        self.name,
        cut,
        len(texts),
        self._convention.max_input_tokens,
      )
    return tokens

  def _batches(
    self, order: np.ndarray, tokens: Sequence[np.ndarray], shards: int
  ) -> Iterator[tuple[np.ndarray, int, int]]:
    """Yields texts, longest first, their padded length, and the batch's rows."""
    start = 0
    while start < len(order):
      size = buckets.bucket(len(tokens[order[start]]), self._sizes)
      count = max(shards, self._batch_tokens // size // shards * shards)
      yield order[start : start + count], size, count
      start += count


def regression_params(
  state: Mapping[str, np.ndarray], config: t5.T5Config, token: int
) -> dict[str, Any]:
  """Parameters of `heads.ScalarHeadT5` whose scalar is the logit of one token.

  Args:
    state: arrays by Hugging Face name.
    config: the model's shape.
    token: whose column of the output layer becomes the head. Tied logits are divided
      by sqrt(embed).
  """
  params = huggingface.params_from_huggingface(state, config)
  if config.logits_via_embedding:
    column = params['token_embedder']['embedding'][token] / math.sqrt(config.emb_dim)
  else:
    column = params['decoder'].pop('logits_dense')['kernel'][:, token]
  kernel = np.array(column[:, None], np.float32)
  params['head'] = {'kernel': kernel, 'bias': np.zeros(1, np.float32)}
  return params


@functools.cache
def _load(
  directory: str,
  content: str,
  config: t5.T5Config,
  token: int,
  mesh: jax.sharding.Mesh,
) -> Any:
  """Parameters on the mesh, once for all scorers: gin makes one for every stage."""
  del content  # a directory that is written anew is read anew
  tokens = jnp.ones((1, 1), jnp.int32)
  init = heads.ScalarHeadT5(config).init
  boxed = jax.eval_shape(init, jax.random.key(0), tokens, tokens[:, None])['params']
  state = checkpoint_tensors.open_tensors(directory)
  params = regression_params(state, config, token)
  return jax.device_put(params, mesh_lib.param_shardings(mesh, boxed))


@functools.partial(jax.jit, static_argnames=('config', 'decoder_input_tokens', 'mesh'))
def _predict(
  params: Any,
  tokens: jax.Array,  # [batch, length] int32, 0 is padding
  *,
  config: t5.T5Config,
  decoder_input_tokens: tuple[int, ...],
  mesh: jax.sharding.Mesh,
) -> jax.Array:  # [batch] float32
  steps = jnp.array(decoder_input_tokens, jnp.int32)
  # [steps] -> [batch, 1, steps]
  decoder_tokens = jnp.tile(steps[None, None], (tokens.shape[0], 1, 1))
  with mesh_lib.sharding_context(mesh):
    model = heads.ScalarHeadT5(config)
    scalars = model.apply({'params': params}, tokens, decoder_tokens)
  return scalars[:, 0, -1]


def _json(fields: dict[str, Any]) -> dict[str, Any]:
  """Tuples as lists."""
  return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

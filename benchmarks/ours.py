"""Our sampler and scorer behind the calls that the rivals have, and random models."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util

from benchmarks import measuring, rivals
from rest_jax import paths
from rest_jax.data import group_store, vocabularies
from rest_jax.models import quantisation, reward, t5
from rest_jax.rewards import learned
from rest_jax.sampling import draws
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import artifact, policies
from rest_jax.training import mesh as mesh_lib

# The paper's IWSLT shape: 41.9 million parameters.
SHAPE: dict[str, Any] = {
  'vocab_size': 8000,
  'emb_dim': 512,
  'num_heads': 4,
  'head_dim': 128,
  'mlp_dim': 1024,
  'num_encoder_layers': 6,
  'num_decoder_layers': 6,
}


# Kernels in fewer bits, the rest in float32, by what the comparisons call them.
QUANTISED: dict[str, quantisation.Int8 | quantisation.Bfloat16] = {
  'int8_weights': quantisation.Int8(),
  'int8_both': quantisation.Int8(inputs=True),
  'bfloat16_weights': quantisation.Bfloat16(),
}


class IdVocabulary(vocabularies.Vocabulary):
  """Stands for a vocabulary where there is no text: a token's text is its id."""

  def __init__(self, size: int):
    self._size = size

  @property
  def size(self) -> int:
    """Number of token ids."""
    return self._size

  def model_bytes(self) -> bytes:
    """The size."""
    return str(self._size).encode()

  def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
    return [[int(word) for word in text.split()] for text in texts]

  def _texts(self, tokens: list[list[int]]) -> list[str]:
    return [' '.join(map(str, row)) for row in tokens]


@dataclasses.dataclass(frozen=True)
class Policy:
  """What is compared: a shape, its parameters and a vocabulary."""

  config: t5.T5Config
  params: Any
  vocabulary: vocabularies.Vocabulary

  def with_dtype(self, dtype: str) -> 'Policy':
    """The same policy computing in another type."""
    return dataclasses.replace(
      self, config=dataclasses.replace(self.config, dtype=dtype)
    )

  def with_precision(self, name: str) -> 'Policy':
    """The same policy as the comparisons' `--precision` names it."""
    if name in QUANTISED:
      return self.with_weights(QUANTISED[name])
    return self.with_dtype(name)

  def with_weights(
    self, settings: quantisation.Int8 | quantisation.Bfloat16
  ) -> 'Policy':
    """The same policy with kernels of fewer bits."""
    return dataclasses.replace(
      self, params=quantisation.quantise(self.params, settings)
    )


def config_of(text: str) -> t5.T5Config:
  """SHAPE with the fields that a JSON object replaces, for the command line."""
  return t5.T5Config.from_dict({**SHAPE, **json.loads(text)})


def random_policy(config: t5.T5Config, *, seed: int = 0) -> Policy:
  """A policy with the initial weights of its shape."""
  init = jax.jit(policies.init_fn(t5.T5, config))
  params = nn.meta.unbox(init(jax.random.key(seed)))
  return Policy(config, params, IdVocabulary(config.vocab_size))


def make_policy(path: str | None, shape: str) -> Policy:
  """The policy in a folder, or without one a random one of SHAPE with other fields."""
  return load_policy(path) if path else random_policy(config_of(shape))


def load_policy(path: str) -> Policy:
  """The policy of a finished artifact, such as MODEL_DIR/bc.

  Raises:
    ValueError: there is none.
  """
  folder = paths.as_path(path)
  if not (folder / policies.MODEL_FILE).exists():
    raise ValueError(
      f'{folder} has no {policies.MODEL_FILE}: give the folder of a finished policy, '
      'such as MODEL_DIR/bc'
    )
  run = artifact.Run(str(folder.parent), mesh=mesh_lib.make_mesh(), dry_run=True)
  model = policies.load_model(folder, t5.T5, run)
  return Policy(model.config, model.params, model.vocabulary)


def random_sources(
  num_sources: int, *, length: int, vocab_size: int, seed: int = 0
) -> list[list[int]]:
  """Sources of `length` random tokens, EOS included."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(3, vocab_size, (num_sources, length))
  tokens[:, -1] = rivals.EOS_ID
  return tokens.tolist()


def as_groups(
  source_tokens: Sequence[Sequence[int]], *, name: str = 'source'
) -> list[group_store.Group]:
  """Sources as groups without candidates; `name` is part of their identity."""
  return [
    group_store.pair(f'{name}/{row}', '', np.asarray(tokens, np.int32), None, None)
    for row, tokens in enumerate(source_tokens)
  ]


def with_candidates(
  source_tokens: Sequence[Sequence[int]], candidates: rivals.Candidates
) -> list[group_store.Group]:
  """Groups with these candidates, whose texts are left empty."""
  return [
    dataclasses.replace(
      group,
      texts=('',) * len(found),
      tokens=tuple(np.asarray(tokens, np.int32) for tokens in found),
      finished=np.array([tokens[-1] == rivals.EOS_ID for tokens in found], bool),
      origins=('model',) * len(found),
    )
    for group, found in zip(as_groups(source_tokens), candidates, strict=True)
  ]


class OurSampler:
  """`sampling.sampler.Sampler`, its compiled programs kept from call to call.

  Args:
    policy: what to sample from.
    name: what to call it in tables.
    settings: fields of SamplerSettings that differ from their defaults; without
      `batch_size`, `tune` chooses one.

  Attributes:
    name: what to call it in tables.
    setting: how the work is cut.
  """

  def __init__(
    self,
    policy: Policy,
    *,
    name: str = 'ours',
    settings: Mapping[str, Any] | None = None,
  ):
    self.name = name
    self._policy = policy
    most = sampler_lib.SamplerSettings(**(settings or {}))
    self._choices = [most]
    if 'batch_size' not in (settings or {}):
      half = dataclasses.replace(most, batch_size=most.batch_size // 2)
      self._choices.append(half)
    self._use(most)

  def _use(self, settings: sampler_lib.SamplerSettings) -> None:
    """Goes on with these settings."""
    self._settings = settings
    self.setting = str(settings)
    self._samplers: dict[Any, sampler_lib.Sampler] = {}

  def tune(
    self,
    source_tokens: Sequence[Sequence[int]],
    *,
    num_samples: int,
    limits: rivals.Limits,
  ) -> str:
    """As `rivals.Rival.tune`: the default's lanes, or half as many.

    On all of the sources: with some of them more of the lanes would idle.
    """

    def draw() -> rivals.Candidates:
      return self.sample(source_tokens, num_samples=num_samples, limits=limits)

    seconds = []
    for settings in self._choices:
      self._use(settings)
      draw()  # compiles
      if len(self._choices) > 1:
        seconds.append(measuring.timed(draw).seconds)
        measuring.say(f'{self.name}: {self.setting}, {seconds[-1]:.2f} s')
    if seconds:
      self._use(self._choices[int(np.argmin(seconds))])
    return self.setting

  def groups(
    self,
    source_tokens: Sequence[Sequence[int]],
    *,
    num_samples: int,
    limits: rivals.Limits,
    temperature: float = 0.8,
    seed: int = 0,
  ) -> list[group_store.Group]:
    """The groups in the order of the sources, as Grow gets them."""
    sampler = self._sampler(source_tokens, limits, temperature)
    groups = as_groups(source_tokens, name=f'{seed}')
    return sampler.sample_in_order(groups, num_samples)

  def sample(
    self,
    source_tokens: Sequence[Sequence[int]],
    *,
    num_samples: int,
    limits: rivals.Limits,
    temperature: float = 0.8,
    seed: int = 0,
  ) -> rivals.Candidates:
    """As `rivals.Rival.sample`; another seed is another identity of the sources."""
    groups = self.groups(
      source_tokens,
      num_samples=num_samples,
      limits=limits,
      temperature=temperature,
      seed=seed,
    )
    return [[tokens.tolist() for tokens in group.tokens] for group in groups]

  def greedy(
    self, source_tokens: Sequence[Sequence[int]], *, limits: rivals.Limits
  ) -> list[list[int]]:
    """As `rivals.Rival.greedy`."""
    found = self.sample(source_tokens, num_samples=1, limits=limits, temperature=0.0)
    return [candidates[0] for candidates in found]

  def count_tokens(
    self,
    source_tokens: Sequence[Sequence[int]],
    *,
    num_samples: int,
    limits: rivals.Limits,
    temperature: float = 0.8,
  ) -> int:
    """Samples as Grow does, letting each group go; returns the tokens drawn."""
    sampler = self._sampler(source_tokens, limits, temperature)
    drawn = sampler.sample(as_groups(source_tokens), num_samples)
    return sum(len(tokens) for _, group in drawn for tokens in group.tokens)

  def _sampler(
    self,
    source_tokens: Sequence[Sequence[int]],
    limits: rivals.Limits,
    temperature: float,
  ) -> sampler_lib.Sampler:
    longest = max(map(len, source_tokens))
    key = longest, limits, temperature
    if key not in self._samplers:
      self._samplers[key] = sampler_lib.Sampler(
        self._policy.params,
        self._policy.config,
        self._policy.vocabulary,
        mesh=mesh_lib.make_mesh(),
        source_length=longest,
        target_length=limits.most,
        decoding=draws.Decoding(temperature=temperature, min_tokens=limits.least),
        seed=0,
        grow_step=1,
        settings=self._settings,
      )
    return self._samplers[key]


def log_prob_scorer(policy: Policy, **settings: Any) -> learned.LearnedReward:
  """A reward model whose reward is the mean log-probability per token, in nats.

  The policy as a RewardT5: its head is 0, the weight of the likelihood 1. It does
  all the work of a trained one.

  Args:
    policy: untempered.
    **settings: of LearnedReward; source_length and target_length at least.
  """
  width = policy.config.emb_dim
  head = {
    'kernel': np.zeros((width, 1), np.float32),
    'bias': np.zeros(1, np.float32),
  }
  likelihood = {'weight': np.ones(1, np.float32)}
  params = {**policy.params, 'head': head, 'likelihood': likelihood}
  expected = t5.parameter_shapes(policy.config, reward.RewardT5)
  assert {k: v.shape for k, v in traverse_util.flatten_dict(params).items()} == {
    k: v.shape for k, v in traverse_util.flatten_dict(expected).items()
  }
  return learned.LearnedReward(
    jax.device_put(params),
    policy.config,
    learned.RatingScale(mean=0.0, stddev=1.0),
    mesh=mesh_lib.make_mesh(),
    **settings,
  )

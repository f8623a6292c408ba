"""A reward model that another run has trained, as a scorer."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rest_jax import paths
from rest_jax.data import vocabularies
from rest_jax.data.group_store import Group
from rest_jax.rewards import learned
from rest_jax.stages import artifact, policies, score
from rest_jax.training import mesh as mesh_lib

STAGE = 'train_reward'


class RewardArtifact:
  """Scores groups with a finished reward model that is named by its path.

  It is what `score` makes of the run's own reward model, for the places where a
  scorer is wanted: a member of an ensemble, a judge, the reward of another run.

  Args:
    path: the artifact's directory, such as 'runs/first/reward_model'.
    retokenise: tokenise texts with the reward model's vocabulary, where the groups
      have another. Else their tokens are read as they are, which needs the same
      vocabulary; that is checked on every source.
    source_prefix: that of the groups' corpus (`ingest`), which stands before each
      source's tokens and not in its text.
    task_feature_lengths: T5X's {'inputs': ..., 'targets': ...}, the most tokens; by
      default those that it was trained with.
    mesh: the devices; all of them along `data` by default.
    batch_size: as in `score`; changes no score beyond rounding.
    name: its name in tables.

  Raises:
    ValueError: the path holds no finished reward model; or, when called, a source
      has other tokens than this vocabulary gives it, or a text is too long.
  """

  def __init__(
    self,
    path: paths.PathLike,
    *,
    retokenise: bool = False,
    source_prefix: str = '',
    task_feature_lengths: Mapping[str, int] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    batch_size: int = 32,
    name: str = 'reward_artifact',
  ):
    self.name = name
    self._model = artifact.read_finished(path, stage=STAGE)
    self._retokenise, self._source_prefix = retokenise, source_prefix
    if task_feature_lengths is None:
      task_feature_lengths = self._model.record['params']['task_feature_lengths']
    self._lengths = dict(task_feature_lengths)
    self._mesh = mesh
    self._batch_size = batch_size
    self._vocabulary = vocabularies.Vocabulary.load(
      self._model.path / policies.VOCABULARY_FILE
    )

  def identity(self) -> dict[str, Any]:
    """The artifact's fingerprint; not its place, and not the lengths."""
    return {
      'scorer': 'reward_artifact',
      'fingerprint': self._model.fingerprint,
      'retokenise': self._retokenise,
      **({'source_prefix': self._source_prefix} if self._source_prefix else {}),
    }

  def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
    """Rewards on the scale of the ratings, one [samples] float32 array per group."""
    if self._retokenise:
      groups = [self._retokenised(group) for group in groups]
    else:
      self._check_tokens(groups)
    scorer = _load(
      self._model,
      self._mesh or mesh_lib.make_mesh(),
      tuple(sorted(self._lengths.items())),
      self._batch_size,
    )
    return scorer(groups)

  def _retokenised(self, group: Group) -> Group:
    texts = [self._source_prefix + group.source, *group.texts]
    source, *candidates = self._vocabulary.encode_batch(texts)
    return dataclasses.replace(
      group, source_tokens=source, tokens=tuple(candidates), token_log_probs=None
    )

  def _check_tokens(self, groups: Sequence[Group]) -> None:
    """Raises ValueError where sources were tokenised by another vocabulary."""
    texts = [self._source_prefix + group.source for group in groups]
    encoded = self._vocabulary.encode_batch(texts)
    for group, tokens in zip(groups, encoded, strict=True):
      # A source that ingest has cut is the beginning of the whole.
      kept = group.source_tokens[:-1]
      if not np.array_equal(kept, tokens[: len(kept)]):
        raise ValueError(
          f'source {group.source_id!r} has tokens {kept[:8].tolist()}... and the '
          f'vocabulary of {self._model.path} gives {tokens[:8].tolist()}...: the '
          'reward model knows other tokens. Bind retokenise = True, or source_prefix '
          'where the corpus has one'
        )


@functools.cache
def _load(
  model: artifact.Artifact,
  mesh: jax.sharding.Mesh,
  lengths: tuple[tuple[str, int], ...],
  batch_size: int,
) -> learned.LearnedReward:
  """The scorer with its parameters, once for all objects: gin makes several."""
  # A run that builds nothing: it says which mesh the parameters go to.
  run = artifact.Run(str(model.path.parent), mesh=mesh, dry_run=True)
  return score.load_reward_model(
    model, run, task_feature_lengths=dict(lengths), batch_size=batch_size
  )

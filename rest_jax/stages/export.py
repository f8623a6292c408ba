"""Export: a trained model for Hugging Face and T5X.

huggingface/    see `interop.export_huggingface`
t5x/            see `interop.export_t5x`
"""

from collections.abc import Mapping, Sequence

from rest_jax import paths
from rest_jax.data import vocabularies
from rest_jax.interop import export_huggingface, export_t5x
from rest_jax.stages import artifact, score
from rest_jax.stages import policies as policies_lib
from rest_jax.training import checkpoints

VERSION = 1
HUGGING_FACE = 'huggingface'
T5X = 't5x'
FORMATS = (HUGGING_FACE, T5X)
_HEAD = ('head', 'likelihood')  # what a reward model has beside T5


def export(
  run: artifact.Run,
  *,
  policies: Sequence[artifact.Artifact],
  others: Sequence[artifact.Artifact] = (),
  policy: str | None = None,
  formats: Sequence[str] = FORMATS,
  dtype: str = 'float32',
  layout: str | None = None,
  task_feature_lengths: Mapping[str, int],
) -> artifact.Artifact:
  """Writes one of a run's models in formats of other programs.

  Args:
    run: the MODEL_DIR in use.
    policies: of the run, in their order.
    others: its reward model, and what else can be exported.
    policy: the name of the one to export, such as 'improve_2_1' or 'reward_model';
      None is the last policy.
    formats: of 'huggingface' and 't5x'.
    dtype: of Hugging Face's weights, 'float32' or 'bfloat16'. T5X's are float32.
    layout: T5X's 'minimal' or 'scalable'; None chooses by the model.
    task_feature_lengths: the most tokens of a source and of a target, for the
      settings of generation.

  Returns:
    The artifact export_<policy>.

  Raises:
    ValueError: an unknown name or format, or a model that a format cannot carry.
  """
  unknown = sorted(set(formats) - set(FORMATS))
  if unknown or not formats:
    raise ValueError(
      f'formats={tuple(formats)!r} must be some of {FORMATS}, at least one'
    )
  source = _choose(policies, others, policy)
  params = {
    'formats': sorted(formats),
    'dtype': dtype,
    'layout': layout,
    'task_feature_lengths': dict(task_feature_lengths),
  }
  name = f'export_{source.name}'

  def build(work: artifact.Work) -> None:
    config = policies_lib.load_config(source.path)
    latest = checkpoints.latest_checkpoint(source.path)
    tree = checkpoints.load_params(latest)  # on the host: no device is needed
    vocabulary = vocabularies.Vocabulary.load(
      source.path / policies_lib.VOCABULARY_FILE
    )
    if HUGGING_FACE in formats:
      folder = work.path / HUGGING_FACE
      body = {key: value for key, value in tree.items() if key not in _HEAD}
      export_huggingface.write(
        folder,
        body,
        config,
        vocabulary,
        dtype=dtype,
        task_feature_lengths=task_feature_lengths,
      )
      if len(body) < len(tree):
        scale = paths.read_json(source.path / score.SCALE_FILE)
        export_huggingface.write_head(folder, tree, rating_scale=scale)
    if T5X in formats:
      export_t5x.write(
        work.path / T5X,
        tree,
        config,
        vocabulary,
        step=checkpoints.step_of(latest),
        layout=layout,
        location=run.model_dir / name / T5X,
      )
    work.results.update(model=source.name, formats=sorted(formats))

  return run.stage(
    'export',
    name=name,
    version=VERSION,
    params=params,
    inputs={'model': source},
    build=build,
    size={'formats': ' '.join(sorted(formats))},
    replaceable=True,
  )


def _choose(
  policies: Sequence[artifact.Artifact],
  others: Sequence[artifact.Artifact],
  name: str | None,
) -> artifact.Artifact:
  if name is None:
    return policies[-1]
  for model in (*policies, *others):
    if model.name == name:
      return model
  known = ', '.join(model.name for model in (*policies, *others))
  raise ValueError(f'policy {name!r} is not of this run; its models: {known}')

"""T5X's names that mean nothing here, and what to write in their place.

Macros and flags of T5X that work here as they do there are in no table of this
module; docs/gin.md lists both. `main` asks here before it reports a gin error.
"""

import re

# For each macro of T5X's gin files that no file of a run may define.
MACROS: dict[str, str] = {
  'CHECKPOINT_PATH': 'a stage reads the artifacts that its inputs name. To sample '
  'from a checkpoint as it is set INITIAL_CHECKPOINT_PATH, and TRAIN_STEPS = 0',
  'EVALUATOR_NUM_EXAMPLES': 'set improve.improve.num_eval_sources',
  'EVALUATOR_USE_MEMORY_CACHE': 'leave it out: a split is read once, by ingest',
  'EVAL_STEPS': 'an evaluation reads a whole split, or the first sources of it: set '
  'improve.improve.num_eval_sources',
  'EVAL_OUTPUT_DIR': 'set MODEL_DIR: an evaluation is an artifact in it',
  'INFER_OUTPUT_DIR': 'set MODEL_DIR: a Grow is an artifact in it',
  'JSON_WRITE_N_RESULTS': 'leave it out: all samples of an evaluation are kept',
  'LOSS_NORMALIZING_FACTOR': 'leave it out: a loss is the mean per kept token, '
  'whatever the batch. A T5X learning rate for Adafactor holds for it as it is, since '
  "Adafactor's step does not depend on the loss's scale",
  'MIXTURE_OR_TASK_MODULE': 'set MODULE, with gin_configs/data/seqio_task.gin',
  'MIXTURE_OR_TASK_NAME': 'it belongs to gin_configs/data/seqio_task.gin: give that '
  'file after the run file, with --gin_file',
  'OPTIMIZER': 'each training has its own: set supervise.supervise.optimiser = '
  '@supervise/optimiser.AdamW(), or that of train_reward.train_reward (reward/) or '
  'improve.improve (improve/)',
  'TRAIN_STEPS_RELATIVE': 'set TRAIN_STEPS: steps are counted from 0, wherever the '
  'parameters come from; REWARD_STEPS and IMPROVE_STEPS are those of the others',
  'USE_CACHED_TASKS': 'it belongs to gin_configs/data/seqio_task.gin: give that file '
  'after the run file, with --gin_file',
  'USE_HARDWARE_RNG': 'leave it out: samples depend on RANDOM_SEED and the source '
  'alone, on every mesh',
}

_MESH = 'set mesh.MeshConfig.data, .fsdp and .model; -1 on one takes what is left'
_STEPS_OF = 'of supervise.supervise, train_reward.train_reward or improve.improve'
_STAGES = 'set the parameters of the stages: supervise.supervise, improve.improve'
_SCOPES = 'scoped supervise/, reward/ or improve/ for one training'

# For each class of T5X's or parameter of one; the longest name that fits is taken.
BINDINGS: dict[str, str] = {
  'PjitPartitioner': _MESH,
  'PjitPartitioner.num_partitions': 'set mesh.MeshConfig.model',
  'PjitPartitioner.model_parallel_submesh': f'there is no submesh: {_MESH}',
  'PjitPartitioner.ici_mesh_shape': _MESH,
  'PjitPartitioner.dcn_mesh_shape': f'{_MESH}; slices lie along data',
  'PjitPartitioner.logical_axis_rules': 'set LOGICAL_AXIS_RULES; the mesh axes are '
  'data, fsdp and model',
  'standard_logical_axis_rules': 'leave it out, or list rules in LOGICAL_AXIS_RULES',
  'Trainer': 'set the parameters of supervise.supervise, train_reward.train_reward and '
  'improve.improve',
  'Trainer.num_microbatches': f'set num_microbatches {_STEPS_OF}',
  'Trainer.learning_rate_fn': 'set LEARNING_RATE and IMPROVE_LEARNING_RATE; the '
  f'schedule is optimiser.Adafactor.schedule, {_SCOPES}',
  'create_learning_rate_scheduler': 'set LEARNING_RATE and IMPROVE_LEARNING_RATE; the '
  f'schedule is optimiser.Adafactor.schedule, {_SCOPES}',
  'SaveCheckpointConfig': f'set checkpoint_period_steps {_STEPS_OF}',
  'SaveCheckpointConfig.period': f'set checkpoint_period_steps {_STEPS_OF}',
  'SaveCheckpointConfig.keep': 'leave it out: two checkpoints are kept while a stage '
  'trains, and the best parameters alone in its artifact',
  'RestoreCheckpointConfig': 'to start the policy from a checkpoint set '
  'INITIAL_CHECKPOINT_PATH; a stage that was stopped goes on by itself',
  'CheckpointConfig': 'set INITIAL_CHECKPOINT_PATH, or checkpoint_period_steps '
  f'{_STEPS_OF}',
  'DatasetConfig': 'set CORPUS by a file of gin_configs/data/, TASK_FEATURE_LENGTHS '
  'and BATCH_SIZE',
  'DatasetConfig.batch_size': 'set BATCH_SIZE',
  'DatasetConfig.mixture_or_task_name': 'set MIXTURE_OR_TASK_NAME, with '
  'gin_configs/data/seqio_task.gin',
  'DatasetConfig.module': 'set MODULE, with gin_configs/data/seqio_task.gin',
  'DatasetConfig.pack': 'leave it out: rows hold groups of candidates, unpacked',
  'DatasetConfig.seed': 'set RANDOM_SEED',
  'DatasetConfig.split': 'set TRAIN_SPLIT, VALIDATION_SPLIT or TEST_SPLIT, with '
  'gin_configs/data/seqio_task.gin',
  'DatasetConfig.task_feature_lengths': 'set TASK_FEATURE_LENGTHS',
  'DatasetConfig.use_cached': 'set USE_CACHED_TASKS, with '
  'gin_configs/data/seqio_task.gin',
  'temperature_sample': 'set draws.Decoding.temperature, .top_k and .top_p',
  'temperature_sample.temperature': 'set TEMPERATURE, or draws.Decoding.temperature',
  'temperature_sample.topk': 'set draws.Decoding.top_k; its default 0 draws from all '
  "tokens, where T5X's 1 is greedy",
  'temperature_sample.topp': 'set draws.Decoding.top_p; its default 1 draws from all '
  'tokens',
  'beam_search': 'set evaluate.evaluate.beams, see docs/sampling.md',
  'DecoderParams': 'set NUM_SAMPLES, of Grow, or EVAL_SAMPLES, of evaluation',
  'DecoderParams.num_decodes': 'set NUM_SAMPLES, of Grow, or EVAL_SAMPLES, of '
  'evaluation',
  'EncoderDecoderModel': 'MODEL is the shape of a model: @t5.T5Config(), by a file of '
  'gin_configs/models/',
  'EncoderDecoderModel.z_loss': 'set Z_LOSS',
  'EncoderDecoderModel.label_smoothing': 'set LABEL_SMOOTHING',
  'EncoderDecoderModel.loss_normalizing_factor': MACROS['LOSS_NORMALIZING_FACTOR'],
  'network.T5Config': 'set t5.T5Config.emb_dim and so on: fields have the same names',
  'network.Transformer': 'MODEL is the shape of a model: @t5.T5Config()',
  'adafactor.Adafactor': f'set optimiser.Adafactor.decay_rate and so on, {_SCOPES}',
  'SentencePieceVocabulary': 'VOCABULARY takes the path of a SentencePiece model',
  'seqio.Evaluator': 'leave it out: evaluate.evaluate reports its own measures',
  'train_script': _STAGES,
  'train.train': _STAGES,
  'infer_script': 'set the parameters of grow.grow',
  'infer.infer': 'set the parameters of grow.grow',
  'eval_script': 'set the parameters of evaluate.evaluate',
  'gin_utils': 'leave it out: every artifact keeps its config.gin',
}

RUN_MODES: dict[str, str] = {
  'train': 'supervise trains BC, train_reward the reward model, improve a policy',
  'eval': 'the mode is called evaluate',
  'infer': 'the mode is called grow',
}

OWN_FILES = (
  "T5X's gin files bind T5X's own functions and do nothing here: start from a file of "
  "gin_configs/runs/ (docs/gin.md says what each of T5X's names is here). Files of "
  "gin_configs/t5x/ are for T5X's programs: python -m t5x.train --gin_file=..."
)


def advice(text: str) -> str | None:
  """A sentence about one of T5X's names in a binding or a gin error.

  Args:
    text: such as 'train/utils.DatasetConfig.batch_size = 8', or gin's error, which
      quotes the line of the file. The paths that gin mentions do not count.

  Returns:
    None where there is no such name.
  """
  lines = [line for line in text.splitlines() if not line.startswith('  In ')]
  if any(re.search(r"No module named 't5x|^\s*(import|from) t5x\b", x) for x in lines):
    return f'it imports t5x: {OWN_FILES}'
  names = re.findall(r'[A-Za-z_][\w.]*', '\n'.join(lines))
  found = [(k, name) for name in names for k in BINDINGS if f'.{k}.' in f'.{name}.']
  if not found:
    return None
  key, name = max(found, key=lambda pair: len(pair[0]))
  return f"{name} is a name of T5X's: {BINDINGS[key]}"


def is_t5x_file(file: str) -> bool:
  """Whether a path is one of T5X's gin files, as T5X's users include them."""
  return re.match(r'(.*/)?t5x/(configs|examples|contrib)/', file) is not None

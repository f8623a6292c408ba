"""Makes the .npz files beside it: tiny random models of the T5 family, their logits.

Needs PyTorch and Transformers, which nothing else here does:

    python -m pip install torch==2.13.0 transformers==5.23.0 numpy
    python tests/goldens/make_t5_goldens.py [NAME ...]

Each file holds, for one model of Hugging Face Transformers: `config` (JSON),
`state/<name>` (float32 weights), `encoder_input_tokens`
[batch, source_length], `decoder_input_tokens` [batch, length], `logits`
[batch, length, vocab] float32; those of T5 1.0 and 1.1 also
`buckets/{encoder,decoder}`, the bucket of every relative position from -200 to 200.

The weights are drawn here, larger than the library's initial ones, so that
attention is far from uniform and every parameter matters to the logits, yet
small enough that float32 rounding does not grow from layer to layer (with a
deviation of 0.5 PyTorch's own float32 logits were 2e-4 from its float64 ones).
The longest source has 40 tokens: relative positions reach the logarithmic buckets.

The other families are smaller still. What tells them apart: mT5 and umT5 have
configurations of their own, and umT5 a bias per layer; ByT5 has three encoder layers
for each of the decoder; Flan-T5 is a T5 1.1 whose file names its activation twice;
MADLAD-400 pads with 1 and ends with 2.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import transformers
from transformers.models.t5 import modeling_t5

FOLDER = pathlib.Path(__file__).parent
V1_1 = {'feed_forward_proj': 'gated-gelu', 'tie_word_embeddings': False}
SMALL = {
  'vocab_size': 40,
  'd_model': 8,
  'd_kv': 3,
  'd_ff': 12,
  'num_layers': 2,
  'num_decoder_layers': 2,
  'num_heads': 2,
}
# name: class of Transformers, options
VARIANTS = {
  't5_v1_0': ('T5', {'feed_forward_proj': 'relu', 'tie_word_embeddings': True}),
  't5_v1_1': ('T5', V1_1),
  'mt5': ('MT5', SMALL | V1_1),
  'byt5': ('T5', SMALL | V1_1 | {'num_layers': 3, 'num_decoder_layers': 1}),
  'flan_t5': ('T5', SMALL | V1_1 | {'dense_act_fn': 'gelu_new', 'is_gated_act': True}),
  'umt5': ('UMT5', SMALL | V1_1),
  'madlad400': ('T5', SMALL | V1_1 | {'pad_token_id': 1, 'eos_token_id': 2}),
}
# 3 encoder and 2 decoder layers, heads * head_dim != d_model: a swapped or
# reshaped axis cannot go unnoticed.
SHAPE = {
  'vocab_size': 64,
  'd_model': 16,
  'd_kv': 6,
  'd_ff': 24,
  'num_layers': 3,
  'num_decoder_layers': 2,
  'num_heads': 4,
  'dropout_rate': 0.0,
  'decoder_start_token_id': 0,
}


def make(name: str, kind: str, options: dict) -> None:
  """Writes one golden file."""
  rng = np.random.default_rng(0)
  config = getattr(transformers, f'{kind}Config')(**(SHAPE | options))
  model = getattr(transformers, f'{kind}ForConditionalGeneration')(config).eval()
  tied = options['tie_word_embeddings']
  if not tied:  # Transformers 5 ties every T5 until weights are loaded.
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
  if kind == 'UMT5':
    # Transformers 5 sets it for every umT5 and then scales the logits as if they were
    # tied, which they are not: neither in version 4 nor in T5X.
    model.config.tie_word_embeddings = False
  for parameter in model.parameters():
    scale = 0.25 if parameter.ndim == 2 else 0.2
    offset = 0.0 if parameter.ndim == 2 else 1.0
    drawn = rng.normal(offset, scale, parameter.shape).astype(np.float32)
    parameter.data = torch.from_numpy(drawn)
  if tied:
    model.lm_head.weight = model.shared.weight
    model.encoder.embed_tokens.weight = model.shared.weight
    model.decoder.embed_tokens.weight = model.shared.weight
  else:
    assert not torch.equal(model.lm_head.weight, model.shared.weight)

  lengths = (40, 7, 1)
  source = np.zeros((3, 40), np.int32)
  for row, length in enumerate(lengths):
    source[row, :length] = rng.integers(2, config.vocab_size, length)
    source[row, length - 1] = 1
  target = rng.integers(2, config.vocab_size, (3, 36)).astype(np.int32)
  target[:, 0] = 0
  with torch.no_grad():
    logits = model(
      input_ids=torch.from_numpy(source).long(),
      attention_mask=torch.from_numpy(source != 0).long(),
      decoder_input_ids=torch.from_numpy(target).long(),
    ).logits.numpy()

  positions = torch.arange(-200, 201)
  buckets = (
    {}
    if name not in ('t5_v1_0', 't5_v1_1')
    else {
      f'buckets/{side}': modeling_t5.T5Attention._relative_position_bucket(
        positions, bidirectional=side == 'encoder', num_buckets=32, max_distance=128
      )
      .numpy()
      .astype(np.int32)
      for side in ('encoder', 'decoder')
    }
  )
  copies = ('encoder.embed_tokens.weight', 'decoder.embed_tokens.weight')
  state = {
    f'state/{key}': value.numpy()
    for key, value in model.state_dict().items()
    if key not in copies and not (tied and key == 'lm_head.weight')
  }
  # The file of a published T5 1.1 says tie_word_embeddings = False; Transformers
  # 5 writes True and scale_decoder_outputs. Keep what it writes.
  path = FOLDER / f'{name}.npz'
  np.savez_compressed(
    path,
    config=json.dumps(config.to_dict()),
    encoder_input_tokens=source,
    decoder_input_tokens=target,
    logits=logits,
    **buckets,
    **state,
  )
  print(
    f'{path.name}: {path.stat().st_size} bytes, torch {torch.__version__}, '
    f'transformers {transformers.__version__}, logits up to '
    f'{abs(logits).max():.3f}'
  )


if __name__ == '__main__':
  for variant in sys.argv[1:] or VARIANTS:
    make(variant, *VARIANTS[variant])

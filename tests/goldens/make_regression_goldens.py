"""Makes regression_mt5/: a tiny random mT5 as a regression checkpoint, and its scores.

Needs PyTorch and Transformers, which nothing else here does:

    python -m pip install torch==2.13.0 transformers==5.23.0 sentencepiece
    python tests/goldens/make_regression_goldens.py

The directory is what `save_pretrained` of Transformers leaves (config.json and
model.safetensors), a SentencePiece model of 70 pieces beside it, and scores.json: for
each convention of MetricX, with another token, the score of every example. A score is
made as in predict.py and models.py of github.com/google-research/metricx at fc4978e:
the template's text, tokenised and cut, EOS taken off, one decoder step from token 0,
the logit of one token, clipped to [0, 25].

The weights are drawn as in make_t5_goldens.py; the token's row of the output layer is
larger, so that some scores fall outside of [0, 25] on either side.
"""

import io
import json
import pathlib

import numpy as np
import sentencepiece
import torch
import transformers

FOLDER = pathlib.Path(__file__).parent / 'regression_mt5'
TOKEN = 91  # no piece has it, as MetricX's <extra_id_10> occurs in no text
LONGEST = 48  # tokens; some examples are cut
SHAPE = {
  'vocab_size': 96,
  'd_model': 16,
  'd_kv': 6,
  'd_ff': 24,
  'num_layers': 2,
  'num_decoder_layers': 1,
  'num_heads': 2,
  'dropout_rate': 0.0,
}
TEMPLATES = {
  'metricx_24_qe': 'source: {source} candidate: {candidate}',
  'metricx_24': 'source: {source} candidate: {candidate} reference: {reference}',
  'metricx_23_qe': 'candidate: {candidate} source: {source}',
  'metricx_23': 'candidate: {candidate} reference: {reference}',
}
EXAMPLES = (
  ('Ein Hund rennt.', 'A dog runs.', 'A dog is running.'),
  ('Ein Hund rennt.', 'A cat {sleeps}', 'A dog is running.'),
  ('Ein Hund rennt.', '', 'A dog is running.'),
  ('Zwei  Kinder', 'two  children ', 'Two children'),
  ('Straße № ½', 'ﬁne ½', 'street'),
  ('Die Katze schläft auf dem Sofa.' * 4, 'The cat sleeps.' * 4, 'The cat.'),
)


def texts() -> list[str]:
  """What the SentencePiece model is trained on."""
  plain = [text for example in EXAMPLES for text in example]
  return [*plain, *TEMPLATES.values(), 'abcdefghijklmnopqrstuvwxyz']


def make_model() -> transformers.MT5ForConditionalGeneration:
  """A model whose every parameter matters to its scores."""
  rng = np.random.default_rng(1)
  config = transformers.MT5Config(**SHAPE, feed_forward_proj='gated-gelu')
  model = transformers.MT5ForConditionalGeneration(config).eval()
  # Transformers 5 ties every T5 until weights are loaded.
  model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
  for parameter in model.parameters():
    scale, offset = (0.25, 0.0) if parameter.ndim == 2 else (0.2, 1.0)
    drawn = rng.normal(offset, scale, parameter.shape).astype(np.float32)
    parameter.data = torch.from_numpy(drawn)
  row = rng.normal(0, 6.0, SHAPE['d_model']).astype(np.float32)
  model.lm_head.weight.data[TOKEN] = torch.from_numpy(row)
  assert not torch.equal(model.lm_head.weight, model.shared.weight)
  return model


def score(model, tokens: list[int]) -> float:
  """The unclipped score of one input, tokens with EOS."""
  with torch.no_grad():
    logits = model(
      input_ids=torch.tensor([tokens[:-1]]), decoder_input_ids=torch.tensor([[0]])
    ).logits
  return float(logits[0, 0, TOKEN])


def main() -> None:
  """Writes the directory."""
  FOLDER.mkdir(exist_ok=True)
  written = io.BytesIO()  # a file's model would hold its path
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts()),
    model_writer=written,
    vocab_size=70,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    num_threads=1,
    minloglevel=2,
    normalization_rule_name='identity',  # the rule's tables take 230 KiB
  )
  (FOLDER / 'spiece.model').write_bytes(written.getvalue())
  pieces = sentencepiece.SentencePieceProcessor(str(FOLDER / 'spiece.model'))
  model = make_model()
  model.save_pretrained(FOLDER)
  (FOLDER / 'generation_config.json').unlink(missing_ok=True)
  rows = []
  for name, template in TEMPLATES.items():
    for source, candidate, reference in EXAMPLES:
      text = template.format(source=source, candidate=candidate, reference=reference)
      tokens = [*pieces.encode(text)[: LONGEST - 1], 1]
      logit = score(model, tokens)
      rows.append({
        'convention': name,
        'source': source,
        'candidate': candidate,
        'reference': reference,
        'logit': logit,
        'score': min(max(logit, 0.0), 25.0),
      })  # fmt: skip
  text = json.dumps({'token': TOKEN, 'longest': LONGEST, 'rows': rows}, indent=1)
  (FOLDER / 'scores.json').write_text(text + '\n')
  logits = [row['logit'] for row in rows]
  print(
    f'torch {torch.__version__}, transformers {transformers.__version__}, logits from '
    f'{min(logits):.2f} to {max(logits):.2f}, '
    f'{sum(path.stat().st_size for path in FOLDER.iterdir())} bytes'
  )


if __name__ == '__main__':
  main()

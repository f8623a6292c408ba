"""How MetricX checkpoints are asked: conventions for `RegressionCheckpoint`.

MetricX is mT5 with the logit of <extra_id_10> after one decoder step as its score, an
error: clipped to [0, 25], lower is better. Here R = 1 - m / 25. Good translations all
lie near 1, so fit a second scale to the first Grow, `EmpiricalCdf` or `MinMax`, for
thresholds to tell them apart.

Source: github.com/google-research/metricx at fc4978e, metricx23/predict.py,
metricx24/predict.py (templates, EOS cut off), models.py (decoder, token, clipping) and
README.md (longest inputs). MetricX-23 with a reference reads no source.
"""

from rest_jax.rewards.regression_checkpoint import Convention

TOKEN = 250089  # <extra_id_10>
WORST = 25.0


def metricx_24_qe() -> Convention:
  """A MetricX-24 hybrid checkpoint without references."""
  return _convention('source: {source} candidate: {candidate}', 1536)


def metricx_24() -> Convention:
  """A MetricX-24 hybrid checkpoint with references."""
  template = 'source: {source} candidate: {candidate} reference: {reference}'
  return _convention(template, 1536)


def metricx_23_qe() -> Convention:
  """A MetricX-23-QE checkpoint, without references."""
  return _convention('candidate: {candidate} source: {source}', 1024)


def metricx_23() -> Convention:
  """A MetricX-23 checkpoint, which compares with the reference alone."""
  return _convention('candidate: {candidate} reference: {reference}', 1024)


def _convention(template: str, max_input_tokens: int) -> Convention:
  return Convention(
    template=template,
    token=TOKEN,
    keep_eos=False,
    max_input_tokens=max_input_tokens,
    clip=(0.0, WORST),
    worst=WORST,
    best=0.0,
  )

"""The products of a step, counted by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from rest_jax.models import t5
from rest_jax.planning import arithmetic
from rest_jax.training import objectives, offline_objectives
from rest_jax.training import optimiser as optimiser_lib

CONFIG = t5.T5Config(
  vocab_size=50,
  emb_dim=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=32,
  num_encoder_layers=2,
  num_decoder_layers=2,
)
SHAPE = (4, 2, 6, 5)  # batch, samples, source_length, target_length


def test_products_are_counted_as_often_as_they_run():
  def function(x, w):  # [3, 4], [4, 4]
    def body(carry, _):
      return carry @ w, None

    y, _ = jax.lax.scan(body, x, None, length=5)
    y = jax.checkpoint(lambda a: jnp.sin(a) @ w)(y)
    return jax.lax.cond(y[0, 0] > 0, lambda a: a, lambda a: a @ w, y)

  jaxpr = jax.make_jaxpr(function)(jnp.ones((3, 4)), jnp.ones((4, 4)))
  # 5 in the loop, 1 remembered, 1 in the larger branch, 2 * 3 * 4 * 4 each; with the
  # loop's body once, as XLA counts, it would be 3.
  assert arithmetic.matrix_flops(jaxpr.jaxpr) == 7 * 2 * 3 * 4 * 4


def test_a_batched_product_is_counted_once_for_each_member():
  jaxpr = jax.make_jaxpr(lambda a, b: jnp.einsum('bij,bjk->bik', a, b))(
    jnp.ones((6, 2, 3)), jnp.ones((6, 3, 5))
  )
  assert arithmetic.matrix_flops(jaxpr.jaxpr) == 6 * 2 * 2 * 3 * 5


@functools.cache
def flops(config=CONFIG, objective=objectives.BehaviouralCloning(), parts=1):
  optimiser = functools.partial(optimiser_lib.adafactor, 0.1)
  return arithmetic.step_flops(t5.T5, config, objective, optimiser, SHAPE, parts)


def test_a_step_is_three_forward_passes_of_its_products():
  batch, samples, source, target = SHAPE
  config, rows = CONFIG, batch * samples * target
  inner = config.num_heads * config.head_dim

  def attention(queries, keys, width_in, groups):
    return 2 * groups * (2 * queries * keys * inner)

  projections = 2 * config.emb_dim * inner
  mlp = 2 * config.emb_dim * config.mlp_dim * (len(config.mlp_activations) + 1)
  encoder = batch * source * (4 * projections + mlp)
  encoder += attention(source, source, inner, batch)
  decoder = rows * (4 * projections + mlp)
  decoder += attention(target, target, inner, batch * samples)
  decoder += rows * 2 * projections  # of the cross-attention's queries and outputs
  decoder += batch * source * 2 * projections  # its keys and values, once a source
  decoder += attention(samples * target, source, inner, batch)
  forward = 2 * (encoder + decoder) + 2 * rows * config.emb_dim * config.vocab_size
  assert flops() == pytest.approx(3 * forward, rel=0.1)


def test_rematerialised_layers_count_twice():
  config = dataclasses.replace(CONFIG, remat=True)
  # A forward pass of the layers more, at most.
  assert 1.15 < flops(config) / flops() < 1.4


def test_microbatches_cost_what_the_batch_costs():
  # The biases of relative positions, 0.6 % here, are made in each part anew.
  assert flops(parts=2) == pytest.approx(flops(), rel=0.01)


def test_models_that_the_loss_reads_are_counted():
  # OAC evaluates a frozen model without logits, BVMPO the reference as well.
  one = flops(objective=offline_objectives.OfflineActorCritic())
  two = flops(objective=offline_objectives.BehaviourVMPO())
  assert flops() < one < two

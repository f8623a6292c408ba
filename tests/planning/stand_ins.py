"""Stand-ins for jitted functions: traced and written down, neither compiled nor run."""

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.models import cpu_products
from rest_jax.planning import arithmetic
from rest_jax.rewards import learned
from rest_jax.sampling import beam, decoder, divergence
from rest_jax.stages import fitting, rollouts, train_value
from rest_jax.training import loop
from rest_jax.training import step as step_lib

MODULES = (beam, decoder, divergence, fitting, learned, loop, train_value)


def signature(traced):
  """A traced program's name, and the shapes of its arguments in any order."""
  leaves = jax.tree.leaves(traced.args_info)
  sizes = [str(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)) for leaf in leaves]
  return traced.fun_name, tuple(sorted(sizes))


def is_network(traced):
  return arithmetic.matrix_flops(traced.jaxpr.jaxpr) > 0


class Executed:
  """What was called, by signature: whether it is a network.

  Whole numbers that come out are 1: a lane is free at once.
  """

  def __init__(self):
    self.networks = {}
    self._rng = np.random.default_rng(0)

  def seen(self, traced):
    found = signature(traced)
    if found not in self.networks:
      self.networks[found] = is_network(traced)

  def instead_of(self, jitted):
    def call(*args, **kwargs):
      traced = jitted.trace(*args, **kwargs)
      self.seen(traced)
      return jax.tree.map(_answer, traced.out_info)

    call.trace = jitted.trace
    return call

  def install(self, monkeypatch):
    """Takes the place of every jitted function of these modules, and of the steps."""
    for module in MODULES:
      for name, value in vars(module).items():
        if hasattr(value, 'trace') and hasattr(value, 'lower'):
          monkeypatch.setattr(module, name, self.instead_of(value))
    # As on the devices that were planned for.
    monkeypatch.setattr(cpu_products, 'for_decoding', lambda params, *_: (params, ()))
    exchange, annotate_fn = decoder.exchange, rollouts.annotate_fn

    def drawn(params, lanes, incoming, *args, **kwargs):
      lanes, ended = exchange(params, lanes, incoming, *args, **kwargs)
      return lanes, self._candidates(ended, kwargs['config'].vocab_size)

    drawn.trace = exchange.trace
    monkeypatch.setattr(decoder, 'exchange', drawn)
    monkeypatch.setattr(
      rollouts, 'annotate_fn', lambda *args: self.instead_of(annotate_fn(*args))
    )

    def step(train_step, state, batch, rng, frozen=None):
      traced = train_step.traced(state, batch, rng, frozen)
      self.seen(traced)
      _, metrics = traced.out_info
      return state._replace(step=state.step + 1), jax.tree.map(_answer, metrics)

    monkeypatch.setattr(step_lib.TrainStep, '__call__', step)

  def _candidates(self, ended, vocab_size):
    """Different ones of the most tokens, with EOS at the end."""
    tokens = self._rng.integers(2, vocab_size, ended.tokens.shape, np.int32)
    tokens[..., -1] = decoder.EOS_ID
    sizes = np.full(ended.num_tokens.shape, tokens.shape[-1], np.int32)
    return ended._replace(tokens=tokens, num_tokens=sizes)


def _answer(x):
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    return jax.random.key(1)
  if jnp.issubdtype(x.dtype, jnp.floating):  # rewards have to differ
    return jax.device_put(np.random.default_rng(0).random(x.shape).astype(x.dtype))
  return jax.device_put(np.ones(x.shape, x.dtype))

"""A model with a parameter on every mesh axis, small enough to compile in no time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

ROWS, INPUTS, EMBED, HIDDEN, OUTPUTS = 16, 6, 8, 16, 3


class Tiny(nn.Module):
  """Two layers; `OUTPUTS` is divided by no mesh axis of more than one device."""

  dropout_rate: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:  # [batch, inputs]
    init = nn.initializers.normal(0.5)

    def kernel(name: str, shape: tuple[int, int], axes: tuple[str, str]) -> Any:
      return self.param(name, nn.with_logical_partitioning(init, axes), shape)

    x = x @ kernel('first', (INPUTS, EMBED), ('inputs', 'embed'))
    x = nn.with_logical_constraint(x, ('batch', 'embed'))
    x = jnp.tanh(x @ kernel('second', (EMBED, HIDDEN), ('embed', 'mlp')))
    x = nn.with_logical_constraint(x, ('batch', 'mlp'))
    x = nn.Dropout(self.dropout_rate, deterministic=self.dropout_rate == 0)(x)
    x = x @ kernel('third', (HIDDEN, OUTPUTS), ('mlp', 'heads'))
    x = nn.with_logical_constraint(x, ('batch', 'heads'))
    ones = nn.with_logical_partitioning(nn.initializers.ones, ('heads',))
    return x * self.param('scale', ones, (OUTPUTS,))[None]


def init_fn(rng: jax.Array) -> Any:
  """Boxed parameters."""
  return Tiny().init(rng, jnp.ones((1, INPUTS)))['params']


def loss_fn(params: Any, batch: Any, rng: jax.Array, dropout_rate: float = 0.0) -> Any:
  """Squared error, summed, with a metric whose weight is not the loss's."""
  model = Tiny(dropout_rate)
  outputs = model.apply({'params': params}, batch['x'], rngs={'dropout': rng})
  errors = jnp.sum(jnp.square(outputs - batch['y']), axis=-1)  # [batch]
  sums = jnp.sum(errors * batch['weights']), jnp.sum(batch['weights'])
  largest = jnp.sum(jnp.max(jnp.abs(outputs), axis=-1))
  return *sums, {'largest': (largest, jnp.float32(outputs.shape[0]))}


def batch_fn(step: int, rows: int = ROWS) -> dict[str, np.ndarray]:
  """The batch of a step; its weights differ from row to row, some are 0."""
  rng = np.random.default_rng(step)
  x = rng.normal(size=(rows, INPUTS)).astype(np.float32)
  y = np.stack([x[:, 0], x[:, 1] * x[:, 2], np.sin(x[:, 3])], axis=-1)
  weights = rng.integers(0, 3, rows).astype(np.float32)
  return {'x': x, 'y': y.astype(np.float32), 'weights': weights}

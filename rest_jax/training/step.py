"""The train state, and the one compiled step that every loss is trained with.

The loss of a batch is `loss_sum / weight_sum` over the whole batch. Both sums,
and the gradient of the first, are accumulated over microbatches and divided once,
so that neither the number of microbatches nor padding in one of them changes the
result.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rest_jax.training import mesh as mesh_lib
from rest_jax.training import optimiser as optimiser_lib

# What the step reports of itself; a loss function may not use these names.
STEP_METRICS = ('loss', 'grad_norm', 'update_norm', 'learning_rate', 'weight_sum')

Batch = Mapping[str, Any]
Sums = tuple[jax.Array, jax.Array, dict[str, tuple[jax.Array, jax.Array]]]


class LossFn(Protocol):
  """What a step trains on; all sums are over the rows that it is given.

  Beside a batch's features it finds the frozen parameters that the step was given,
  under their names.
  """

  def __call__(self, params: Any, batch: Batch, rng: jax.Array) -> Sums:
    """Returns (loss_sum, weight_sum, {name: (sum, weight)}), each [] float32.

    The weights are not negative. `rng` is for dropout.
    """
    ...


class TrainState(NamedTuple):
  """All that training carries from step to step."""

  step: jax.Array  # [] int32, batches seen: the position in the data as well
  params: Any
  opt_state: Any
  learning_rate_scale: jax.Array  # [] float32, multiplies every update


def _opt_shardings(
  optimiser: optax.GradientTransformation, abstract: Any, shardings: Any, mesh: Mesh
) -> Any:
  """Shardings of the optimiser's state.

  What has a parameter's shape lies as the parameter does; the rest (counts,
  Adafactor's rows and columns, which are small) is replicated.
  """
  whole = mesh_lib.replicated(mesh)
  return optax.tree_map_params(
    optimiser,
    lambda leaf, param, sharding: sharding if leaf.shape == param.shape else whole,
    jax.eval_shape(optimiser.init, abstract),
    abstract,
    shardings,
    transform_non_params=lambda _: whole,
  )


def _state(
  params: Any, optimiser: optax.GradientTransformation, scale: jax.Array
) -> TrainState:
  return TrainState(jnp.zeros((), jnp.int32), params, optimiser.init(params), scale)


def _state_shardings(
  optimiser: optax.GradientTransformation, abstract: Any, shardings: Any, mesh: Mesh
) -> TrainState:
  whole: Any = mesh_lib.replicated(mesh)
  opt_shardings = _opt_shardings(optimiser, abstract, shardings, mesh)
  return TrainState(whole, shardings, opt_shardings, whole)


def init_state(
  init_fn: Callable[[jax.Array], Any],
  optimiser: optax.GradientTransformation,
  mesh: Mesh,
  rules: mesh_lib.Rules = mesh_lib.DEFAULT_RULES,
  *,
  rng: jax.Array,
  learning_rate_scale: float = 1.0,
) -> TrainState:
  """A fresh state, born in its shards: no device ever holds the whole.

  Args:
    init_fn: rng -> parameters, boxed with their logical axes or not.
    optimiser: of `optimiser`.
    mesh: of `mesh.make_mesh`.
    rules: logical to mesh axes.
    rng: key of the parameters. The same key gives the same parameters on every
      mesh.
    learning_rate_scale: multiplies every update.
  """
  boxed = jax.eval_shape(init_fn, rng)
  shardings = _state_shardings(
    optimiser,
    nn.meta.unbox(boxed),
    mesh_lib.param_shardings(mesh, boxed, rules),
    mesh,
  )

  def create(rng: jax.Array, scale: jax.Array) -> TrainState:
    return _state(nn.meta.unbox(init_fn(rng)), optimiser, scale)

  scale = jnp.float32(learning_rate_scale)
  return jax.jit(create, out_shardings=shardings)(rng, scale)


def state_from_params(
  params: Any,
  optimiser: optax.GradientTransformation,
  mesh: Mesh,
  *,
  learning_rate_scale: float = 1.0,
) -> TrainState:
  """A state that starts from given parameters (fine-tuning, Improve).

  The parameters are copied, since a train step consumes its state: the caller's
  stay valid, as a reference policy say. They must lie on the mesh already.
  """
  shardings = jax.tree.map(lambda x: x.sharding, params)
  abstract = jax.eval_shape(lambda tree: tree, params)
  create = jax.jit(
    lambda params, scale: _state(jax.tree.map(jnp.copy, params), optimiser, scale),
    out_shardings=_state_shardings(optimiser, abstract, shardings, mesh),
  )
  return create(params, jnp.float32(learning_rate_scale))


def abstract_state(
  init_fn: Callable[[jax.Array], Any],
  optimiser: optax.GradientTransformation,
  mesh: Mesh,
  rules: mesh_lib.Rules = mesh_lib.DEFAULT_RULES,
) -> TrainState:
  """Shapes, types and shardings of `init_state`'s result; builds no array.

  It is what a dry run prints, what a checkpoint is restored into, and what
  `TrainStep.lower` compiles for.
  """
  boxed = jax.eval_shape(init_fn, jax.random.key(0))
  placed = jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    nn.meta.unbox(boxed),
    mesh_lib.param_shardings(mesh, boxed, rules),
  )
  return abstract_state_from_params(placed, optimiser, mesh)


def abstract_state_from_params(
  params: Any, optimiser: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
  """Shapes, types and shardings of `state_from_params`'s result; builds no array.

  Args:
    params: their shapes and shardings.
    optimiser, mesh: as there.
  """
  shardings = jax.tree.map(lambda x: x.sharding, params)
  scale = jax.ShapeDtypeStruct((), jnp.float32)
  shapes = jax.eval_shape(lambda p, s: _state(p, optimiser, s), params, scale)
  return jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    shapes,
    _state_shardings(optimiser, params, shardings, mesh),
  )


class TrainStep:
  """A compiled step: `state, metrics = train_step(state, batch, rng, frozen)`.

  The state that is passed in is consumed (its buffers become the new one's); the
  frozen parameters of other models, {name: tree}, are not, and are not cut into
  microbatches. `metrics` are [] float32 on the device. It is compiled for the
  shardings of the first state it sees and the shapes of each batch.
  """

  def __init__(
    self, step_fn: Callable[..., tuple[TrainState, dict[str, jax.Array]]], mesh: Mesh
  ):
    self.mesh = mesh
    self._step_fn = step_fn
    self._jitted: Any = None

  def _compiled_for(self, state: TrainState) -> Any:
    if self._jitted is None:
      shardings = jax.tree.map(lambda x: x.sharding, state)
      self._jitted = jax.jit(
        self._step_fn,
        donate_argnums=0,
        out_shardings=(shardings, mesh_lib.replicated(self.mesh)),
      )
    return self._jitted

  def __call__(
    self, state: TrainState, batch: Batch, rng: jax.Array, frozen: Batch | None = None
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update. `rng` is the same key in every step; the step is folded in."""
    return self._compiled_for(state)(state, batch, rng, frozen or {})

  def lower(
    self, state: TrainState, batch: Batch, rng: jax.Array, frozen: Batch | None = None
  ) -> Any:
    """As `jax.jit(...).lower`, for shapes: `abstract_state` and alike batches."""
    return self._compiled_for(state).lower(state, batch, rng, frozen or {})

  def trace(
    self, state: TrainState, batch: Batch, rng: jax.Array, frozen: Batch | None = None
  ) -> Any:
    """The step as a jaxpr, for shapes as `lower` takes them; nothing is compiled."""
    return jax.make_jaxpr(self._step_fn)(state, batch, rng, frozen or {})

  def traced(
    self, state: TrainState, batch: Batch, rng: jax.Array, frozen: Batch | None = None
  ) -> Any:
    """As `jax.jit(...).trace`: what `lower` lowers, and the jaxpr with it."""
    return self._compiled_for(state).trace(state, batch, rng, frozen or {})

  def put_batch(self, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Puts this host's rows of a batch on the mesh."""
    return mesh_lib.put_batch(self.mesh, batch)

  def key(self, seed: int) -> jax.Array:
    """The key of a seed, on every device of the mesh."""
    whole = mesh_lib.replicated(self.mesh)
    return jax.jit(jax.random.key, static_argnums=0, out_shardings=whole)(seed)

  @property
  def num_compilations(self) -> int:
    """How many programs were compiled; one for each shape of batch."""
    return 0 if self._jitted is None else self._jitted._cache_size()


def make_train_step(
  loss_fn: LossFn,
  optimiser: optax.GradientTransformation,
  *,
  mesh: Mesh,
  rules: mesh_lib.Rules = mesh_lib.DEFAULT_RULES,
  num_microbatches: int = 1,
) -> TrainStep:
  """Builds the train step of a loss.

  gradient = (sum over microbatches of d loss_sum / d params) / weight_sum
  params  += learning_rate_scale * optimiser(gradient)

  A batch of weight 0 has nothing to teach: loss and gradient are reported as 0,
  and parameters and the optimiser's state (its count, its moments, weight decay)
  stay as they are. Only `state.step` moves on.

  Metrics: `loss`; `grad_norm`, the global norm before clipping; `update_norm`,
  that of the change of the parameters; `learning_rate`, scale included (only
  with the optimisers of this package); `weight_sum`; and sum / weight of those
  of `loss_fn`, NaN where the weight is 0.

  Args:
    loss_fn: see `LossFn`. Key of microbatch m of step s: fold_in(fold_in(rng, s),
      m).
    optimiser: of `optimiser`, or any other of optax.
    mesh: where state and batches lie.
    rules: logical to mesh axes, for the activations.
    num_microbatches: M parts that are computed one after the other, to save
      memory. Row r goes to microbatch r modulo M, which moves no row between
      devices.

  Raises:
    ValueError: `num_microbatches` is below 1; later, when a step is traced, the
      batch size is not a multiple of num_microbatches * data * fsdp.
  """
  if num_microbatches < 1:
    raise ValueError(f'num_microbatches={num_microbatches} must be at least 1')

  def grad_fn(
    params: Any, batch: Batch, rng: jax.Array, frozen: Batch
  ) -> tuple[Any, Any]:
    def total(params: Any) -> tuple[jax.Array, Any]:
      with mesh_lib.sharding_context(mesh, rules):
        loss_sum, weight_sum, metrics = loss_fn(params, {**batch, **frozen}, rng)
      _check_sums(loss_sum, weight_sum, metrics)
      sums = (loss_sum, weight_sum, metrics)
      return loss_sum, jax.tree.map(jnp.float32, sums)

    grads, sums = jax.grad(total, has_aux=True)(params)
    return grads, sums

  def accumulate(
    params: Any, batch: Batch, rng: jax.Array, frozen: Batch
  ) -> tuple[Any, Any]:
    if num_microbatches == 1:
      return grad_fn(params, batch, jax.random.fold_in(rng, 0), frozen)
    scalars = {name: x for name, x in batch.items() if jnp.ndim(x) == 0}
    rows = {name: x for name, x in batch.items() if jnp.ndim(x) > 0}
    parts = {name: _split(name, x, num_microbatches, mesh) for name, x in rows.items()}

    def add(carry: Any, part: tuple[Any, jax.Array]) -> tuple[Any, None]:
      batch, index = part
      key = jax.random.fold_in(rng, index)
      found = grad_fn(params, {**scalars, **batch}, key, frozen)
      return jax.tree.map(jnp.add, carry, found), None

    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(grad_fn, params, {**scalars, **first}, rng, frozen)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    indices = jnp.arange(num_microbatches)
    return jax.lax.scan(add, zeros, (parts, indices))[0]

  def step_fn(
    state: TrainState, batch: Batch, rng: jax.Array, frozen: Batch
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    rng = jax.random.fold_in(rng, state.step)
    grads, (loss_sum, weight_sum, sums) = accumulate(state.params, batch, rng, frozen)
    empty = weight_sum == 0.0
    divisor = jnp.where(empty, 1.0, weight_sum)
    grads = jax.tree.map(lambda g: _unless(empty, g / divisor.astype(g.dtype)), grads)
    updates, opt_state = optimiser.update(grads, state.opt_state, state.params)
    updates = jax.tree.map(
      lambda u: _unless(empty, u * state.learning_rate_scale.astype(u.dtype)), updates
    )
    opt_state = jax.tree.map(
      lambda old, new: jnp.where(empty, old, new), state.opt_state, opt_state
    )
    metrics = {
      'loss': _unless(empty, loss_sum / divisor),
      'grad_norm': optax.tree.norm(grads),
      'update_norm': optax.tree.norm(updates),
      'weight_sum': weight_sum,
      **{name: value / weight for name, (value, weight) in sums.items()},
    }
    rate = optimiser_lib.learning_rate_of(opt_state)
    if rate is not None:
      metrics['learning_rate'] = rate * state.learning_rate_scale
    params = optax.apply_updates(state.params, updates)
    return TrainState(
      state.step + 1, params, opt_state, state.learning_rate_scale
    ), metrics

  return TrainStep(step_fn, mesh)


def _unless(empty: jax.Array, x: jax.Array) -> jax.Array:
  """`x`, and zeros where the batch was empty, even if x is NaN there."""
  return jnp.where(empty, jnp.zeros_like(x), x)


def _split(name: str, x: jax.Array, parts: int, mesh: Mesh) -> jax.Array:
  """[batch, ...] -> [parts, batch / parts, ...], each part over data and fsdp."""
  shards = mesh_lib.batch_shards(mesh)
  if x.shape[0] % (parts * shards):
    raise ValueError(
      f'{name!r} has {x.shape[0]} rows: with num_microbatches={parts} on '
      f'data x fsdp = {shards} devices the batch size must be a multiple of '
      f'{parts * shards}'
    )
  x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:])  # row r = q * parts + m
  sharding = NamedSharding(mesh, PartitionSpec(None, mesh_lib.BATCH_AXES))
  return jax.lax.with_sharding_constraint(x.swapaxes(0, 1), sharding)


def _check_sums(loss_sum: Any, weight_sum: Any, metrics: Mapping[str, Any]) -> None:
  taken = sorted(set(metrics) & set(STEP_METRICS))
  if taken:
    raise ValueError(
      f'the loss function returns metrics {taken}, names of the train step itself '
      f'({", ".join(STEP_METRICS)}): choose others'
    )
  pairs = {'loss': (loss_sum, weight_sum), **metrics}
  for name, pair in pairs.items():
    if len(pair) != 2 or any(jnp.ndim(x) for x in pair):
      raise ValueError(
        f'metric {name!r} of the loss function is not (sum, weight), two scalars: '
        f'found shapes {[jnp.shape(x) for x in pair]}. Sum over the batch, do not '
        'average'
      )

"""The suite `lab`: all cells of a comparison, beside the loops it replaces.

All train the same 96 cells, the lab's perceptron on the digits with Adam, from the same
weights on the same rows. A run is 100 steps of every cell; drawing is left out. There
are two cases: warm, when all is compiled, and cold, when JAX has forgotten what it had
compiled.

- ours: the grid of `jaxinit.lab`, in blocks of 25 steps, probes and all;
- loop: the best loop: one program that trains a cell for all steps, called for each;
- usual: the usual loop: a jitted step, called from Python for each step of each cell.

No loop waits before it has made all its calls, so that a CPU may work on several. Ours
is to be no slower than the best loop, and twice as fast as the usual one.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxinit
from bench import verify
from bench.cases import Case
from bench.measure import Row, Settings, finish, start
from bench.timing import Contender
from jaxinit import lab
from jaxinit.lab._train.grid import Grid, batches
from jaxinit.lab._tried.experiment import assemble
from jaxinit.lab._tried.settings import Settings as Options

_INITIALIZERS = (
    *("he_normal()", "orthogonal(gain='relu')", "glorot_normal()", "zeros()"),
    *("lecun_uniform()", "normal(0.02)", "normal(1.0)", "sparse(0.8)"),
)
_RATES = (3e-4, 1e-3, 3e-3)
_SHAPE, _TOY_SHAPE = (8, 4, 3), (2, 2, 1)  # initializers, seeds, learning rates
_SIZES, _TOY_SIZES = (100, 20, 64, 64), (4, 3, 8, 16)  # steps, depth, width, batch
_CHECKED = 4  # steps that are verified: more would let rounding grow
_CLOSE = 1e-4


class Perceptron(nn.Module):
    """The lab's network as one writes it."""

    depth: int
    width: int
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Computes logits."""
        for _ in range(self.depth - 1):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.outputs)(x)


def cases(quick: bool) -> list[Case]:
    """Returns the cases; their shape is initializers, seeds and learning rates."""
    cells = f"{np.prod(_SHAPE)} cells {'×'.join(map(str, _SHAPE))}"
    return [
        Case(
            f"{cells}, {_SIZES[0]} steps, {when}",
            _TOY_SIZES if quick else _SIZES,
            _TOY_SHAPE if quick else _SHAPE,
            "float32",
            "normal",
            verify.numbers,
        )
        for when in ("warm", "cold")
    ]


def training(case: Case, settings: Settings) -> Row:
    """Measures the seconds of training all cells."""
    row = start(case)
    steps, *sizes = case.init
    _, ways = _ways(case.shape, _CHECKED, *sizes)
    losses = [way() for way in ways.values()]
    error = max(_error(losses[0], other) for other in losses[1:])
    row["found"] = f"the loops' losses after {_CHECKED} steps, to {error:.0e}"
    row["verified"] = bool(error < _CLOSE)
    if not row["verified"]:
        return row
    cold = case.name.endswith("cold")

    def prepare(repeat: int) -> None:
        reset()
        if cold and not settings.quick:
            forget()
            jax.clear_caches()

    def contender(way: Callable[[], np.ndarray]) -> Contender:
        return Contender(lambda _: way(), prepare, lambda _: None)

    (reset, forget), ways = _ways(case.shape, steps, *sizes)
    contenders = {name: contender(way) for name, way in ways.items()}
    finish(row, settings.race(contenders, warm=not cold))
    return row


def _ways(
    shape: tuple[int, ...], steps: int, depth: int, width: int, batch: int
) -> tuple[tuple[Callable[[], None], ...], dict[str, Callable[[], np.ndarray]]]:
    """Returns functions that train all cells and return their losses. # [cells].

    Before them are one that lets ours begin anew, as the loops always do, and one that
    lets it drop what it has compiled, as JAX does of theirs.
    """
    task = lab.digits()
    inits = tuple(map(jaxinit.parse, _INITIALIZERS[: shape[0]]))
    rates = _RATES[: shape[2]]
    given = Options(
        inits,
        depth=depth,
        width=width,
        seeds=shape[1],
        steps=steps,
        learning_rates=rates,
        batch_size=batch,
    )
    grid = Grid(assemble(task, given))
    begin, probes = grid.state, grid.probes

    def reset() -> None:
        grid.state, grid.losses, grid.probes = begin, (), probes

    def forget() -> None:
        for program in ("_program", "_probe"):
            vars(grid).pop(program, None)

    def ours() -> np.ndarray:
        for _ in grid.run():
            pass
        found: np.ndarray = np.stack(grid.losses).mean(axis=0)
        return found

    plain = Perceptron(depth, width, task.outputs)
    x, y = jnp.asarray(task.x_train), jnp.asarray(task.y_train)
    order = jnp.asarray(batches(len(x), batch, steps))
    cells = [
        (params, optax.adam(rate).init(params), jnp.float32(rate))
        for init in range(shape[0])
        for seed in range(shape[1])
        for params in [_layers(grid.initial["params"], init, seed)]
        for rate in rates
    ]

    def step(carry: Any, rate: jax.Array, rows: jax.Array) -> Any:
        params, state = carry

        def loss(params: Any) -> jax.Array:
            z = plain.apply({"params": params}, x[rows])
            each: jax.Array = optax.softmax_cross_entropy_with_integer_labels(
                z, y[rows]
            )
            return each.mean()

        value, gradient = jax.value_and_grad(loss)(params)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            change, state = optax.adam(rate).update(gradient, state)
        return (optax.apply_updates(params, change), state), value

    @jax.jit
    def train(params: Any, state: Any, rate: jax.Array) -> Any:
        return jax.lax.scan(lambda c, rows: step(c, rate, rows), (params, state), order)

    def loop() -> np.ndarray:
        trained = [train(*cell) for cell in cells]
        return np.array([np.asarray(losses).mean() for _, losses in trained])

    jitted, by_step = jax.jit(step), list(order)

    def usual() -> np.ndarray:
        losses = []
        for params, state, rate in cells:
            carry = params, state
            for rows in by_step:
                carry, loss = jitted(carry, rate, rows)
                losses.append(loss)
        by_cell = np.array(jax.device_get(losses)).reshape(len(cells), steps)
        found: np.ndarray = by_cell.mean(axis=1)
        return found

    return (reset, forget), {"ours": ours, "loop": loop, "usual": usual}


def _layers(params: Any, init: int, seed: int) -> dict[str, Any]:
    """Returns the parameters of a cell of the grid as `Perceptron` has them."""
    params = jax.tree.map(lambda a: a[init, seed], params)
    hidden = params["hidden"]["block"]["Dense_0"]
    layers = [
        params["first"]["Dense_0"],
        *({k: a[i] for k, a in hidden.items()} for i in range(len(hidden["bias"]))),
        params["last"]["Dense_0"],
    ]
    return {f"Dense_{i}": layer for i, layer in enumerate(layers)}


def _error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Computes the largest relative error; losses must be finite in the same cells."""
    finite = np.isfinite(ours)
    if (finite != np.isfinite(theirs)).any() or not finite.any():
        return float("inf")
    return float(np.abs(ours[finite] / theirs[finite] - 1).max())

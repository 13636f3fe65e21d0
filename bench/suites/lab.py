"""The suite `lab`: all cells of a comparison, beside the loops it replaces.

All train the same 96 cells, the lab's perceptron on the digits with Adam, from the same
weights on the same rows. A run is 100 steps of every cell; drawing is left out. There
are two cases: warm, when all is compiled, and cold, when JAX has forgotten what it had
compiled.

- ours: the grid of `jaxinit.lab`, in blocks of 25 steps, probes and all;
- loop: the best loop: one program that trains a cell for all steps, called for each;
- usual: the usual loop: a jitted step, called from Python for each step of each cell.

No loop waits before it has made all its calls, so that a CPU may work on several. The
goal: ours is no slower than the best loop, and twice as fast as the usual one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxinit
from bench.meters.race import Contender
from bench.meters.row import Case, Row, add_times, start_row
from bench.meters.settings import Settings
from jaxinit import lab
from jaxinit.lab._train.grid import Grid
from jaxinit.lab._train.step import batches
from jaxinit.lab._tried.experiment import assemble
from jaxinit.lab._tried.settings import Settings as Options

QUESTION = "a comparison's cells, beside loops over them"

_INITIALIZERS = (
    *("he_normal()", "orthogonal(gain='relu')", "glorot_normal()", "zeros()"),
    *("lecun_uniform()", "normal(0.02)", "normal(1.0)", "sparse(0.8)"),
)
_RATES = (3e-4, 1e-3, 3e-3)
_SHAPE, _TOY_SHAPE = (8, 4, 3), (2, 2, 1)  # initializers, seeds, learning rates
_STEPS, _TOY_STEPS = 100, 4
_SIZES, _TOY_SIZES = (20, 64, 64), (3, 8, 16)  # depth, width, batch
_CHECKED = 4  # steps that are verified: more would let rounding grow
_CLOSE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Cells(Case):
    """What is trained; the shape is initializers, seeds and learning rates.

    Attributes:
      steps: training steps of every cell.
      depth: layers of the perceptron.
      width: outputs of each hidden layer.
      batch: examples of a step.
      cold: whether JAX has forgotten what it had compiled.
    """

    steps: int
    depth: int
    width: int
    batch: int
    cold: bool


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


def cases(quick: bool) -> list[Cells]:
    """Returns the cells, warm and cold; their name says the full size."""
    cells = f"{np.prod(_SHAPE)} cells {'×'.join(map(str, _SHAPE))}"
    depth, width, batch = _TOY_SIZES if quick else _SIZES
    return [
        Cells(
            name=f"{cells}, {_STEPS} steps, {'cold' if cold else 'warm'}",
            shape=_TOY_SHAPE if quick else _SHAPE,
            steps=_TOY_STEPS if quick else _STEPS,
            depth=depth,
            width=width,
            batch=batch,
            cold=cold,
        )
        for cold in (False, True)
    ]


def measure(cells: Cells, settings: Settings) -> Row:
    """Measures the seconds of training all cells."""
    row = start_row(cells)
    checked = _Ways(cells, _CHECKED)
    ours, *loops = (way() for way in checked.by_name.values())
    error = max(_compare_losses(ours, losses) for losses in loops)
    row["found"] = f"the loops' losses after {_CHECKED} steps, to {error:.0e}"
    row["verified"] = bool(error < _CLOSE)
    if not row["verified"]:
        return row
    ways = checked if cells.steps == _CHECKED else _Ways(cells, cells.steps)

    def prepare(repeat: int) -> None:
        ways.reset()
        if cells.cold and not settings.quick:
            ways.forget()
            jax.clear_caches()

    def contender(way: Callable[[], np.ndarray]) -> Contender:
        return Contender(lambda _: way(), prepare, lambda _: None)

    contenders = {name: contender(way) for name, way in ways.by_name.items()}
    add_times(row, settings.race(contenders, warm=not cells.cold))
    return row


class _Ways:
    """The ways to train all cells; each returns the mean loss of every cell."""

    def __init__(self, cells: Cells, steps: int):
        inits, seeds, rates = cells.shape
        task = lab.digits()
        options = Options(
            tuple(map(jaxinit.parse, _INITIALIZERS[:inits])),
            depth=cells.depth,
            width=cells.width,
            seeds=seeds,
            steps=steps,
            learning_rates=_RATES[:rates],
            batch_size=cells.batch,
        )
        self.grid = Grid(assemble(task, options))
        self.begin, self.probes = self.grid.state, self.grid.probes
        self.model = Perceptron(cells.depth, cells.width, task.outputs)
        self.x, self.y = jnp.asarray(task.x_train), jnp.asarray(task.y_train)
        self.order = jnp.asarray(batches(len(self.x), cells.batch, steps))
        self.by_step = list(self.order)
        self.cells = [
            (params, optax.adam(rate).init(params), jnp.float32(rate))
            for init in range(inits)
            for seed in range(seeds)
            for params in [_unstack(self.grid.initial["params"], init, seed)]
            for rate in _RATES[:rates]
        ]
        self.train, self.step = jax.jit(self._train), jax.jit(self._step)

    @property
    def by_name(self) -> dict[str, Callable[[], np.ndarray]]:
        """The ways, by the names of the contenders."""
        return {"ours": self._run_grid, "loop": self._loop, "usual": self._loop_usual}

    def reset(self) -> None:
        """Makes ours start anew, as the loops always do."""
        grid = self.grid
        grid.state, grid.losses, grid.probes = self.begin, (), self.probes

    def forget(self) -> None:
        """Makes ours drop its compiled programs, as JAX drops those of the loops."""
        for program in ("_program", "_probe"):
            vars(self.grid).pop(program, None)

    def _run_grid(self) -> np.ndarray:
        for _ in self.grid.run():
            pass
        losses: np.ndarray = np.stack(self.grid.losses).mean(axis=0)
        return losses

    def _loop(self) -> np.ndarray:
        trained = [self.train(*cell) for cell in self.cells]
        return np.array([np.asarray(losses).mean() for _, losses in trained])

    def _loop_usual(self) -> np.ndarray:
        losses = []
        for params, state, rate in self.cells:
            carry = params, state
            for rows in self.by_step:
                carry, loss = self.step(carry, rate, rows)
                losses.append(loss)
        by_cell = np.array(jax.device_get(losses)).reshape(len(self.cells), -1)
        means: np.ndarray = by_cell.mean(axis=1)
        return means

    def _train(self, params: Any, state: Any, rate: jax.Array) -> Any:
        """Trains a cell for all steps."""
        return jax.lax.scan(
            lambda carry, rows: self._step(carry, rate, rows),
            (params, state),
            self.order,
        )

    def _step(self, carry: Any, rate: jax.Array, rows: jax.Array) -> Any:
        """Trains a cell for one step."""
        params, state = carry

        def compute_loss(params: Any) -> jax.Array:
            logits = self.model.apply({"params": params}, self.x[rows])
            losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(
                logits, self.y[rows]
            )
            return losses.mean()

        loss, gradient = jax.value_and_grad(compute_loss)(params)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            change, state = optax.adam(rate).update(gradient, state)
        return (optax.apply_updates(params, change), state), loss


def _unstack(params: Any, init: int, seed: int) -> dict[str, Any]:
    """Returns the parameters of a cell of the grid as `Perceptron` has them."""
    params = jax.tree.map(lambda a: a[init, seed], params)
    hidden = params["hidden"]["block"]["Dense_0"]
    layers = [
        params["first"]["Dense_0"],
        *({k: a[i] for k, a in hidden.items()} for i in range(len(hidden["bias"]))),
        params["last"]["Dense_0"],
    ]
    return {f"Dense_{i}": layer for i, layer in enumerate(layers)}


def _compare_losses(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Computes the largest relative error; losses must be finite in the same cells."""
    finite = np.isfinite(ours)
    if (finite != np.isfinite(theirs)).any() or not finite.any():
        return float("inf")
    return float(np.abs(ours[finite] / theirs[finite] - 1).max())

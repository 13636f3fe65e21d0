"""The grid: every cell (initializer, seed, learning rate) trained in one program.

Cells come in chunks of equal size, stacked along a leading axis; on an accelerator in
one chunk. A block trains a chunk for some steps: `lax.scan` over steps under `vmap`
over cells. A run is a loop over blocks and chunks, which all call that one executable.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxinit._initializer import Initializer
from jaxinit.lab.data import Task
from jaxinit.lab.layout import Layout
from jaxinit.lab.losses import loss_of, score_of
from jaxinit.lab.model import MLP
from jaxinit.lab.networks import Network
from jaxinit.lab.optimizers import optimizer_of
from jaxinit.lab.precision import kept, mixed
from jaxinit.lab.probe import Probe, moments, probe_of, signals_of
from jaxinit.lab.processes import joined
from jaxinit.lab.rules import Rules
from jaxinit.lab.settings import Settings
from jaxinit.lab.stopping import after_block, map_running, start

_LONGEST_BLOCK = 25  # steps; on two cores a block of the default run takes some seconds
# Cells that one vmap covers. On an accelerator all do. On a CPU a few stay in the
# cache: the default run takes 53 ms a step by 4, and 91 ms all at once (two cores).
# They are a chunk, because a CPU works on several chunks at a time, one on each core.
_TOGETHER_ON_CPU = 4
_UNROLL = 20  # layers of a training step written out: a third faster on a CPU
_PROBED_ROWS = 256  # rows on which signal and gradient are measured at initialisation
_ORDER_SEED = 0  # of the order of the data: the same for every cell, whatever its seed


class Signals(NamedTuple):  # each [initializers, seeds, layers]
    """Standard deviations at initialisation."""

    forward: np.ndarray
    gradient: np.ndarray


class Scores(NamedTuple):  # each [initializers, seeds, learning rates]
    """What a cell has reached."""

    loss: np.ndarray
    test: np.ndarray


class Grid:
    """All cells of a comparison, their state, and the programs that advance it."""

    def __init__(self, task: Task, model: MLP | Network, settings: Settings):
        """Draws the initial parameters of every cell and measures their signals.

        Args:
          task: the data.
          model: what `settings` describe, without its initializer.
          settings: those of the comparison, as they fit the task.
        """
        s = settings
        self.task, self.settings, self.steps = task, s, s.steps
        self.model = model = mixed(model, s.dtype)
        self.shape = len(s.initializers), s.seeds, len(s.learning_rates)
        self._optimizer = optimizer_of(s.optimizer, s.schedule, s.clip, s.steps)
        self._x, self._y = jnp.asarray(task.x_train), jnp.asarray(task.y_train)
        self._loss, self._score = loss_of(task, s.loss), score_of(task)
        self._order = batches(len(task.x_train), s.batch_size, s.steps)
        self._patience = s.early_stopping
        self._apply: Callable[..., Any] = model.apply
        self._layout = self._laid_out()

        keys = jax.vmap(jax.random.key)(jnp.arange(s.seeds))
        drawn = [self._initialise(init)(keys) for init in s.initializers]
        self.initial = kept(jax.tree.map(lambda *a: jnp.stack(a), *drawn), s.dtype)
        self.signals: Signals | None = None
        if isinstance(model, MLP):
            self.signals = Signals(*map(np.asarray, self._measure(model, self.initial)))
        rates = jnp.broadcast_to(jnp.asarray(s.learning_rates), self.shape).ravel()
        by_seed = jnp.broadcast_to(jnp.arange(s.seeds)[:, None], self.shape).ravel()
        rows = self._layout.filled_up()
        self._own = self._layout.split((rates[rows], by_seed[rows]))
        self._chunks = self._start(self.initial)
        self.losses: tuple[np.ndarray, ...] = ()  # by block, each [cells]
        rows = self._order[0]  # of every probe: probes differ by the weights alone
        probe = probe_of(
            model, self._loss, self._optimizer, self._x[rows], self._y[rows]
        )
        placed = self._layout.placed
        self._probe = jax.jit(self._layout.on_cells(probe), out_shardings=placed)
        self.probes: tuple[Probe, ...] = (self._probed(self._chunks),)

    def _initialise(self, init: Initializer | Rules) -> Callable[[jax.Array], Any]:
        """Returns a program: keys [seeds] -> variables by seed."""
        if isinstance(self.model, Network):
            drawn = self.model.drawn(init)
            return jax.jit(jax.vmap(lambda key: drawn(key, self._x[:1])))
        model = self.model.clone(kernel_init=init)

        def one(key: jax.Array) -> Any:
            variables = model.init(key, self._x[:1], train=True)
            return {k: v for k, v in variables.items() if k != "perturbations"}

        return jax.jit(jax.vmap(one))

    def _measure(self, model: MLP, initial: Any) -> tuple[jax.Array, jax.Array]:
        """Measures signal and gradient by layer.

        # each [initializers, seeds, layers]
        """
        x, y = self._x[:_PROBED_ROWS], self._y[:_PROBED_ROWS]
        signals = signals_of(model, self._loss, x, y)

        def one(variables: Any) -> tuple[jax.Array, jax.Array]:
            return signals(variables)

        found: tuple[jax.Array, jax.Array] = jax.jit(jax.vmap(jax.vmap(one)))(initial)
        return found

    def _laid_out(self) -> Layout:
        """Cuts the cells into chunks, as many of a chunk as one vmap covers."""
        s, cells = self.settings, int(np.prod(self.shape))
        mesh = Mesh(np.array(jax.devices(s.device)[: s.devices]), ("cells",))
        if mesh.devices.flat[0].platform == "cpu":
            # Of convolutions with a kernel for each cell CPUs have no fast program.
            wanted = 1 if isinstance(self.model, Network) else _TOGETHER_ON_CPU
            return Layout(cells, min(wanted, cells), mesh)
        return Layout(cells, -(-cells // mesh.size), mesh)

    def _start(self, initial: Any) -> list[Any]:
        """Copies the variables of each initializer and seed to every learning rate."""
        drawn = self._layout.filled_up() // self.shape[-1]

        def spread(array: jax.Array) -> jax.Array:
            return array.reshape(-1, *array.shape[2:])[drawn]

        @functools.partial(jax.jit, out_shardings=self._layout.placed)
        def begun(rates: jax.Array, variables: Any) -> Any:
            state = jax.vmap(lambda rate, p: self._optimizer(rate).init(p))(
                rates, variables["params"]
            )
            return variables, state, start(variables) if self._patience else None

        chunks = self._layout.split(jax.tree.map(spread, initial))
        pairs = zip(self._own, chunks, strict=True)
        return [begun(rates, chunk) for (rates, _), chunk in pairs]

    @property
    def variables(self) -> Any:
        """The variables of all cells, filled up, in the memory of the host."""
        return _joined(chunk[0] for chunk in self._chunks)

    @property
    def state(self) -> Any:
        """What training changes, beside the losses, in the memory of the host."""
        return _joined(self._chunks)

    @state.setter
    def state(self, new: Any) -> None:
        self._chunks = self._layout.split(new)

    @property
    def kept(self) -> Any:
        """The variables that count: with early stopping the best ones of each cell."""
        return _joined(map(_kept, self._chunks))

    @property
    def stopped(self) -> np.ndarray | None:
        """The step after which each cell was stopped, or 0; None without stopping.

        # [initializers, seeds, learning rates]
        """
        if not self._patience:
            return None
        return self.by_cell(_joined(chunk[2].stopped for chunk in self._chunks))

    @property
    def done(self) -> bool:
        """Whether all steps are trained, or all cells have stopped."""
        if self.stopped is not None and self.stopped.all():
            return True
        return len(self.losses) * block_length(self.steps) >= self.steps

    def run(self) -> Iterator[np.ndarray]:
        """Trains all cells block by block, from the first block that has no losses.

        Yields:
          The mean training loss of each cell over the block. # [cells]
        """
        length = block_length(self.steps)
        while not self.done:
            first = len(self.losses) * length
            order = self._order[first : first + length]
            given = (order, first + np.arange(length)), first + length
            # All chunks are called before the first is waited for.
            trained = [
                self._program(*chunk, own, *given)
                for chunk, own in zip(self._chunks, self._own, strict=True)
            ]
            chunks = [chunk for chunk, _ in trained]
            losses = joined([loss for _, loss in trained])[: self._layout.cells]
            probes = self.probes
            if len(self.losses) + 1 in moments(self.steps // length):
                probes = (*probes, self._probed(chunks))
            # One assignment: an interrupt finds all as before the block, or as after.
            self._chunks, self.losses, self.probes = (
                chunks,
                (*self.losses, losses),
                probes,
            )
            yield losses

    @functools.cached_property
    def _program(self) -> Any:
        # Cells stay where they are: elsewhere the second block would compile anew.
        return jax.jit(self._block, out_shardings=self._layout.placed)

    def _block(
        self, variables: Any, state: Any, stopping: Any, own: Any, order: Any, end: Any
    ) -> Any:
        """Trains a chunk for the steps of a block, of which `end` is the last."""
        rows, steps = order
        order = rows, jax.vmap(jax.random.key)(steps)

        def cell(cell: Any) -> Any:
            variables, state, known, own = cell
            (variables, state), losses = jax.lax.scan(
                functools.partial(self._step, own), (variables, state), order
            )
            mean = losses.mean()
            if known is not None:
                x, y = map(jnp.asarray, (self.task.x_valid, self.task.y_valid))
                valid = self._loss(self._apply(variables, x), y)
                known = after_block(known, variables, mean, valid, end, self._patience)
            return (variables, state, known), mean

        def running(cells: Any) -> Any:
            *trained, known, _ = map_running(
                lambda one: (*cell(one)[0], one[-1]),
                cells,
                cells[2].stopped > 0,
                self._layout.together,
            )
            return (*trained, known), known.curve

        layout = self._layout
        spread = layout.on_cells(cell) if stopping is None else layout.spread(running)
        trained: Any = spread((variables, state, stopping, own))
        return trained

    def _probed(self, chunks: list[Any]) -> Probe:
        """Probes all cells. # each [cells, layers]."""
        pairs = zip(chunks, self._own, strict=True)
        found = [self._probe((*chunk[:2], rates)) for chunk, (rates, _) in pairs]
        return Probe(*_joined(found))

    def _step(self, own: Any, carry: Any, order: Any) -> Any:
        """Takes one training step of one cell, which has a rate and a seed of its own.

        Cells of one seed drop out the same, whatever their initializer and rate.
        """
        (variables, state), (rate, seed) = carry, own
        rows, key = order[0], jax.random.fold_in(order[1], seed)
        params = variables["params"]
        fixed = {k: v for k, v in variables.items() if k != "params"}
        x, y = self._x[rows], self._y[rows]

        def loss(params: Any) -> Any:
            variables = {**fixed, "params": params}
            if isinstance(self.model, Network):
                z, updated = self.model.train(variables, x, key)
            else:
                z, updated = self.model.clone(unroll=_UNROLL).apply(
                    variables,
                    x,
                    train=True,
                    mutable=["batch_stats"],
                    rngs={"dropout": key} if self.model.dropout else {},
                )
            return self._loss(z, y), updated

        (value, updated), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        change, state = self._optimizer(rate).update(
            gradient, state, params, value=value
        )
        params = optax.apply_updates(params, change)
        return (dict(updated) | {"params": params}, state), value

    def scores(self) -> Scores:
        """Evaluates every cell on all training rows and on the test rows."""
        x_test, y_test = jnp.asarray(self.task.x_test), jnp.asarray(self.task.y_test)
        apply = self._apply

        @jax.jit
        def evaluate(variables: Any) -> Any:
            def one(variables: Any) -> Any:
                loss = self._loss(apply(variables, self._x), self._y)
                return loss, self._score(apply(variables, x_test), y_test)

            return self._layout.spread(lambda cells: jax.lax.map(one, cells))(variables)

        found = [evaluate(_kept(chunk)) for chunk in self._chunks]
        return Scores(*map(self.by_cell, _joined(found)))

    def by_cell(self, array: np.ndarray) -> np.ndarray:
        """Unstacks cells.

        # [cells, ...] -> [initializers, seeds, learning rates, ...]
        """
        return array[: self._layout.cells].reshape(*self.shape, *array.shape[1:])


def _joined(chunks: Iterable[Any]) -> Any:
    """Joins trees of chunks, leaf by leaf."""
    return jax.tree.map(lambda *leaves: joined(leaves), *chunks)


def _kept(chunk: Any) -> Any:
    """Returns the variables of a chunk that count."""
    variables, _, stopping = chunk
    return variables if stopping is None else stopping.best


def block_length(steps: int) -> int:
    """Returns the steps of a block.

    A divisor of all steps, so that one program serves.
    """
    return max(n for n in range(1, _LONGEST_BLOCK + 1) if steps % n == 0)


def batches(rows: int, batch_size: int, steps: int) -> np.ndarray:  # [steps, batch]
    """Returns row indices of each step: a new permutation every epoch."""
    generator = np.random.default_rng(_ORDER_SEED)
    per_epoch = rows // batch_size
    epochs = [
        generator.permutation(rows)[: per_epoch * batch_size].reshape(
            per_epoch, batch_size
        )
        for _ in range(-(-steps // per_epoch))
    ]
    return np.concatenate(epochs)[:steps]

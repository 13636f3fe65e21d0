"""The grid: every cell (initializer, seed, learning rate) trained in one program.

Cells come in chunks of equal size, stacked along a leading axis; on an accelerator in
one chunk. A block trains a chunk for some steps: `lax.scan` over steps under `vmap`
over cells. A run is a loop over blocks and chunks, which all call that one executable.
"""

import functools
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxinit._initializer import Initializer
from jaxinit.lab.data import Task
from jaxinit.lab.losses import loss_of, score_of
from jaxinit.lab.model import MLP
from jaxinit.lab.networks import Network
from jaxinit.lab.optimizers import optimizer_of
from jaxinit.lab.precision import kept, mixed
from jaxinit.lab.probe import Probe, moments, probe_of, signals_of
from jaxinit.lab.processes import joined
from jaxinit.lab.rules import Rules
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

    def __init__(
        self,
        task: Task,
        model: MLP | Network,
        initializers: tuple[Initializer | Rules, ...],
        seeds: int,
        learning_rates: tuple[float, ...],
        optimizer: str,
        batch_size: int,
        steps: int,
        devices: int = 1,
        schedule: str = "constant",
        clip: float = 0.0,
        loss: str | None = None,
        early_stopping: int = 0,
        device: str | None = None,
        dtype: str = "float32",
    ):
        """Draws the initial parameters of every cell and measures their signals."""
        self.task = task
        self.model = model = mixed(model, dtype)
        self.shape = len(initializers), seeds, len(learning_rates)
        self.steps = steps
        self.initializers, self.learning_rates = initializers, learning_rates
        self._mesh = Mesh(np.array(jax.devices(device)[:devices]), ("cells",))
        self._placed = NamedSharding(self._mesh, PartitionSpec("cells"))
        self._optimizer = optimizer_of(optimizer, schedule, clip, steps)
        self._x, self._y = jnp.asarray(task.x_train), jnp.asarray(task.y_train)
        self._loss, self._score = loss_of(task, loss), score_of(task)
        self._order = batches(len(task.x_train), batch_size, steps)
        self._patience = early_stopping
        self._apply: Callable[..., Any] = model.apply

        keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
        drawn = [self._initialise(init)(keys) for init in initializers]
        self.initial = kept(jax.tree.map(lambda *a: jnp.stack(a), *drawn), dtype)
        self.signals: Signals | None = None
        if isinstance(model, MLP):
            self.signals = Signals(*map(np.asarray, self._measure(model, self.initial)))
        rates = jnp.broadcast_to(jnp.asarray(learning_rates), self.shape).ravel()
        by_seed = jnp.broadcast_to(jnp.arange(seeds)[:, None], self.shape).ravel()
        self._own = self._split((rates[self._filled_up()], by_seed[self._filled_up()]))
        self._chunks = self._start(self.initial)
        self.losses: tuple[np.ndarray, ...] = ()  # by block, each [cells]
        rows = self._order[0]  # of every probe: probes differ by the weights alone
        probe = probe_of(
            model, self._loss, self._optimizer, self._x[rows], self._y[rows]
        )
        self._probe = jax.jit(self._on_cells(probe), out_shardings=self._placed)
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

    @property
    def _cells(self) -> int:
        return int(np.prod(self.shape))

    @property
    def _together(self) -> int:
        """Cells that one vmap covers, on one device."""
        if self._mesh.devices.flat[0].platform == "cpu":
            # Of convolutions with a kernel for each cell CPUs have no fast program.
            wanted = 1 if isinstance(self.model, Network) else _TOGETHER_ON_CPU
            return min(wanted, self._cells)
        return -(-self._cells // self._mesh.size)

    @property
    def _chunk(self) -> int:
        """Cells of a chunk, on all devices."""
        return self._together * self._mesh.size

    def _filled_up(self) -> np.ndarray:
        """Numbers the cells, and some again until all chunks are full.

        Equal chunks are one program; values depend on the devices by rounding only.
        """
        rows = self._chunk
        return np.resize(np.arange(self._cells), -(-self._cells // rows) * rows)

    def _split(self, cells: Any) -> list[Any]:
        """Cuts a tree of all cells, filled up, into chunks on the devices."""
        size = self._chunk
        rows = [slice(i, i + size) for i in range(0, len(self._filled_up()), size)]
        return [
            jax.device_put(
                jax.tree.map(operator.itemgetter(chunk), cells), self._placed
            )
            for chunk in rows
        ]

    def _start(self, initial: Any) -> list[Any]:
        """Copies the variables of each initializer and seed to every learning rate."""
        drawn = self._filled_up() // self.shape[-1]

        def spread(array: jax.Array) -> jax.Array:
            return array.reshape(-1, *array.shape[2:])[drawn]

        @functools.partial(jax.jit, out_shardings=self._placed)
        def begun(rates: jax.Array, variables: Any) -> Any:
            state = jax.vmap(lambda rate, p: self._optimizer(rate).init(p))(
                rates, variables["params"]
            )
            return variables, state, start(variables) if self._patience else None

        chunks = self._split(jax.tree.map(spread, initial))
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
        self._chunks = self._split(new)

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
            losses = joined([loss for _, loss in trained])[: self._cells]
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
        return jax.jit(self._block, out_shardings=self._placed)

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
                self._together,
            )
            return (*trained, known), known.curve

        spread = self._on_cells(cell) if stopping is None else self._spread(running)
        trained: Any = spread((variables, state, stopping, own))
        return trained

    def _probed(self, chunks: list[Any]) -> Probe:
        """Probes all cells. # each [cells, layers]."""
        pairs = zip(chunks, self._own, strict=True)
        found = [self._probe((*chunk[:2], rates)) for chunk, (rates, _) in pairs]
        return Probe(*_joined(found))

    def _on_cells(self, cell: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Returns a function of a chunk that applies one of a cell to each."""
        together = self._together if self._together > 1 else None
        return self._spread(lambda cells: jax.lax.map(cell, cells, batch_size=together))

    def _spread(self, share: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Returns a function of a chunk that each device applies to its own cells."""
        spec = PartitionSpec("cells")
        return jax.shard_map(
            share, mesh=self._mesh, in_specs=spec, out_specs=spec, check_vma=False
        )

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

            return self._spread(lambda cells: jax.lax.map(one, cells))(variables)

        found = [evaluate(_kept(chunk)) for chunk in self._chunks]
        return Scores(*map(self.by_cell, _joined(found)))

    def by_cell(self, array: np.ndarray) -> np.ndarray:
        """Unstacks cells.

        # [cells, ...] -> [initializers, seeds, learning rates, ...]
        """
        return array[: self._cells].reshape(*self.shape, *array.shape[1:])


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

"""The grid: every cell (initializer, seed, learning rate) trained in one program.

Cells come in chunks of equal size, stacked along a leading axis; on an accelerator in
one chunk if its memory holds them. A block trains a chunk for some steps: `lax.scan`
over steps under `vmap` over cells. A run is a loop over blocks and chunks, which all
call that one executable.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxinit._initializer import Initializer
from jaxinit.lab._train import memory
from jaxinit.lab._train.layout import Layout
from jaxinit.lab._train.probe import Probe, moments, probe_of, signals_of
from jaxinit.lab._train.processes import joined
from jaxinit.lab._train.step import step_of
from jaxinit.lab._train.stopping import after_block, map_running, start
from jaxinit.lab._tried._model import MLP
from jaxinit.lab._tried._precision import kept, mixed
from jaxinit.lab._tried.experiment import Experiment
from jaxinit.lab._tried.losses import loss_of, score_of
from jaxinit.lab._tried.networks import Network
from jaxinit.lab._tried.rules import Rules

_LONGEST_BLOCK = 25  # steps; on two cores a block of the default run takes some seconds
# Cells that one vmap covers. On an accelerator all that fit. On a CPU a few stay in the
# cache: the default run takes 53 ms a step by 4, and 91 ms all at once (two cores).
# They are a chunk, because each core works on a chunk of its own.
_TOGETHER_ON_CPU = 4
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

    def __init__(self, experiment: Experiment):
        """Draws the initial parameters of every cell and measures their signals."""
        task, s = experiment.task, experiment.settings
        self.task, self.settings, self.steps = task, s, s.steps
        self.model = model = mixed(experiment.network, s.dtype)
        self.shape = len(s.initializers), s.seeds, len(s.learning_rates)
        self._optimizer = experiment.optimizer
        self._x, self._y = jnp.asarray(task.x_train), jnp.asarray(task.y_train)
        self._loss, self._score = loss_of(task, experiment.loss), score_of(task)
        self._order = batches(len(task.x_train), s.batch_size, s.steps)
        self._patience = s.early_stopping
        self._apply: Callable[..., Any] = model.apply

        keys = jax.vmap(jax.random.key)(jnp.arange(s.seeds))
        drawn = [self._initialise(init)(keys) for init in s.initializers]
        self.initial = kept(jax.tree.map(lambda *a: jnp.stack(a), *drawn), s.dtype)
        self.signals: Signals | None = None
        if isinstance(model, MLP):
            self.signals = Signals(*map(np.asarray, self._measure(model, self.initial)))
        rates = jnp.broadcast_to(jnp.asarray(s.learning_rates), self.shape).ravel()
        by_seed = jnp.broadcast_to(jnp.arange(s.seeds)[:, None], self.shape).ravel()
        trained = model, self._loss, self._optimizer
        self._step = step_of(*trained, self._x, self._y)
        self._varied = rates, by_seed
        self._layout, self._training = self._fitted()
        chunks = self._layout.chunks()
        self._own = [self._layout.take(self._varied, rows) for rows in chunks]
        self._chunks = self._start()
        self.losses: tuple[np.ndarray, ...] = ()  # by block, each [cells]
        rows = self._order[0]  # of every probe: probes differ by the weights alone
        probe = probe_of(*trained, self._x[rows], self._y[rows])
        placed = self._layout.placed
        self._probing = jax.jit(self._layout.on_cells(probe), out_shardings=placed)
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

    def _fitted(self) -> tuple[Layout, Any]:
        """Cuts the cells into chunks; returns the program that trains one, too."""
        s, cells = self.settings, int(np.prod(self.shape))
        mesh = Mesh(np.array(jax.devices(s.device)[: s.devices]), ("cells",))
        share = -(-cells // mesh.size)
        wanted = self._wanted(mesh) if s.chunk is None else min(s.chunk, share)
        room = memory.room(mesh.local_devices)
        if room is None:
            layout = Layout(cells, wanted or share, mesh)
            return layout, self._program_for(layout)
        room -= sum(
            a.nbytes for a in (self._x, self._y, *jax.tree.leaves(self.initial))
        )
        seen = {}

        def need(together: int) -> float:
            layout = Layout(cells, together, mesh)
            program = self._program_for(layout)
            # Compiled here, it is not compiled anew when it is called.
            lowered = program.lower(*self._like(layout), self._rows(0))
            seen[together] = layout, program, memory.needed(lowered)
            return sum(seen[together][2])

        if wanted is None:
            one = jax.tree.leaves(self._like(Layout(cells, 1, mesh)))
            each = 2 * sum(a.size * a.dtype.itemsize for a in one) / mesh.size
            wanted = memory.cells_that_fit(need, share, room, each)
        else:
            need(wanted)
        layout, program, found = seen[wanted]
        held = len(layout.chunks()) * found.held
        away = held + found.working > room
        return dataclasses.replace(layout, away=away), program

    def _wanted(self, mesh: Mesh) -> int | None:
        """Returns the default of the cells that a device trains at once.

        None for as many as fit.
        """
        if mesh.devices.flat[0].platform != "cpu":
            return None
        # Of convolutions with a kernel for each cell CPUs have no fast program.
        few = 1 if isinstance(self.model, Network) else _TOGETHER_ON_CPU
        return min(few, int(np.prod(self.shape)))

    def _like(self, layout: Layout) -> Any:
        """Returns what the program takes of a chunk: shapes, dtypes and places."""
        rows = layout.chunks()[0]

        def begun(initial: Any, own: Any) -> Any:
            variables = jax.tree.map(lambda a: a[rows // self.shape[-1]], initial)
            rates, seeds = (a[rows] for a in own)
            return self._begun(rates, variables), (rates, seeds)

        shapes = jax.eval_shape(begun, self._drawn, self._varied)
        return jax.tree.map(lambda a: a.update(sharding=layout.placed), shapes)

    def _begun(self, rates: jax.Array, variables: Any) -> Any:
        """Returns the state of a chunk before its first step."""
        state = jax.vmap(lambda rate, p: self._optimizer(rate).init(p))(
            rates, variables["params"]
        )
        return variables, state, start(variables) if self._patience else None

    def _start(self) -> list[Any]:
        """Copies the variables of each initializer and seed to every learning rate."""
        layout, found = self._layout, []
        begun = jax.jit(self._begun, out_shardings=layout.placed)
        for (rates, _), rows in zip(self._own, layout.chunks(), strict=True):
            variables = layout.take(self._drawn, rows // self.shape[-1])
            found.append(layout.stored(begun(rates, variables)))
        return found

    @property
    def _drawn(self) -> Any:
        """The initial variables. # [initializers * seeds, ...] per leaf."""
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), self.initial)

    @property
    def variables(self) -> Any:
        """The variables of all cells, in the memory of the host."""
        return self._joined(chunk[0] for chunk in self._chunks)

    @property
    def state(self) -> Any:
        """What training changes, beside the losses, in the memory of the host."""
        return self._joined(self._chunks)

    @state.setter
    def state(self, new: Any) -> None:
        layout = self._layout
        self._chunks = [
            layout.stored(layout.take(new, rows)) for rows in layout.chunks()
        ]

    @property
    def kept(self) -> Any:
        """The variables that count: with early stopping the best ones of each cell."""
        return self._joined(map(_kept, self._chunks))

    @property
    def stopped(self) -> np.ndarray | None:
        """The step after which each cell was stopped, or 0; None without stopping.

        # [initializers, seeds, learning rates]
        """
        if not self._patience:
            return None
        return self.by_cell(self._joined(chunk[2].stopped for chunk in self._chunks))

    @property
    def done(self) -> bool:
        """Whether all steps are trained, or all cells have stopped."""
        return self._ended(self._chunks, len(self.losses))

    def _ended(self, chunks: list[Any], blocks: int) -> bool:
        if self._patience and self._joined(c[2].stopped for c in chunks).all():
            return True
        return blocks * block_length(self.steps) >= self.steps

    @property
    def probe_steps(self) -> np.ndarray:
        """The steps done at each probe."""
        length, blocks = block_length(self.steps), len(self.losses)
        seen = [moment for moment in moments(self.steps // length) if moment <= blocks]
        # A run whose cells have all stopped has a probe at its end, too.
        return length * np.array(seen + [blocks] * (len(self.probes) - len(seen)))

    def run(self) -> Iterator[np.ndarray]:
        """Trains all cells block by block, from the first block that has no losses.

        Yields:
          The mean training loss of each cell over the block. # [cells]
        """
        length = block_length(self.steps)
        while not self.done:
            first = len(self.losses) * length
            program = functools.partial(self._trained, self._program, self._rows(first))
            found = self._layout.each(program, self._chunks, self._own)
            chunks = [chunk for chunk, _ in found]
            losses = self._joined(loss for _, loss in found)
            probes = self.probes
            blocks = len(self.losses) + 1
            if blocks in moments(self.steps // length) or self._ended(chunks, blocks):
                probes = (*probes, self._probed(chunks))
            # One assignment: an interrupt finds all as before the block, or as after.
            self._chunks, self.losses, self.probes = (
                chunks,
                (*self.losses, losses),
                probes,
            )
            yield losses

    def _trained(self, program: Any, given: Any, chunk: Any, own: Any) -> Any:
        """Trains a chunk for a block."""
        chunk, losses = program(chunk, own, given)
        return self._layout.stored(chunk), losses

    def _rows(self, first: int) -> Any:
        """Returns what the program takes of a block: its rows, steps and last step."""
        length = block_length(self.steps)
        order = self._order[first : first + length]
        return order, first + np.arange(length), first + length

    @functools.cached_property
    def _program(self) -> Any:
        return self._compiled(self._training, lambda c, own: (c, own, self._rows(0)))

    @functools.cached_property
    def _probe(self) -> Any:
        return self._compiled(self._probing, lambda c, own: ((*c[:2], own[0]),))

    def _compiled(self, program: Any, function: Callable[[Any, Any], Any]) -> Any:
        """Compiles a program for what a function makes of a chunk and what is its."""
        chunk = self._layout.fetched(self._chunks[0])
        return program.lower(*function(chunk, self._own[0])).compile()

    def _program_for(self, layout: Layout) -> Any:
        """Returns the program that trains a chunk of this layout for a block."""
        block = functools.partial(self._block, layout)
        # Cells stay where they are: elsewhere the second block would compile anew.
        return jax.jit(block, out_shardings=layout.placed)

    def _block(self, layout: Layout, chunk: Any, own: Any, given: Any) -> Any:
        """Trains a chunk for the steps of a block; also returns each cell's loss."""
        rows, steps, end = given
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
                layout.together,
            )
            return (*trained, known), known.curve

        spread = layout.on_cells(cell) if chunk[2] is None else layout.spread(running)
        return spread((*chunk, own))

    def _probed(self, chunks: list[Any]) -> Probe:
        """Probes all cells. # each [cells, layers]."""
        each, probe = self._layout.each, self._probe
        found = each(lambda c, own: probe((*c[:2], own[0])), chunks, self._own)
        return Probe(*self._joined(found))

    def scores(self) -> Scores:
        """Evaluates every cell on all training rows and on the test rows."""
        x_test, y_test = jnp.asarray(self.task.x_test), jnp.asarray(self.task.y_test)
        apply = self._apply

        def one(variables: Any) -> Any:
            loss = self._loss(apply(variables, self._x), self._y)
            return loss, self._score(apply(variables, x_test), y_test)

        spread = self._layout.spread(lambda cells: jax.lax.map(one, cells))
        evaluate = self._compiled(jax.jit(spread), lambda c, _: (_kept(c),))
        each = self._layout.each
        found = each(lambda c, _: evaluate(_kept(c)), self._chunks, self._own)
        return Scores(*map(self.by_cell, self._joined(found)))

    def _joined(self, chunks: Iterable[Any]) -> Any:
        """Joins trees of chunks, leaf by leaf. # [cells, ...] per leaf."""
        cells = self._layout.cells
        return jax.tree.map(lambda *leaves: joined(leaves)[:cells], *chunks)

    def by_cell(self, array: np.ndarray) -> np.ndarray:
        """Unstacks cells.

        # [cells, ...] -> [initializers, seeds, learning rates, ...]
        """
        return array.reshape(*self.shape, *array.shape[1:])


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

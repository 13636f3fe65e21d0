"""The grid: every cell (initializer, seed, learning rate) trained in one program.

Cells come in chunks of equal size, stacked along a leading axis; on an accelerator in
one chunk if its memory holds them. A block trains a chunk for some steps: `lax.scan`
over steps under `vmap` over cells. A run is a loop over blocks and chunks, all of which
call that one executable.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxinit._placement import platform_of
from jaxinit._threads import open_pool
from jaxinit.lab._train import memory
from jaxinit.lab._train._draws import draw_all, drop_perturbations
from jaxinit.lab._train.layout import Layout
from jaxinit.lab._train.probe import Probe, make_probe, make_signals, moments
from jaxinit.lab._train.step import batches, make_step
from jaxinit.lab._train.stopping import after_block, map_running, start
from jaxinit.lab._tried._precision import cast_back, mix_precision
from jaxinit.lab._tried.experiment import Experiment
from jaxinit.lab._tried.losses import make_loss, make_score

_LONGEST_BLOCK = 25  # steps; on two cores a block of the default run takes some seconds
_PROBED_ROWS = 256  # rows on which signal and gradient are measured at initialization


class Signals(NamedTuple):  # each [initializers, seeds, layers]
    """Standard deviations at initialization."""

    forward: np.ndarray
    gradient: np.ndarray


class Scores(NamedTuple):  # each [initializers, seeds, learning rates]
    """The final training loss and the test score of each cell."""

    loss: np.ndarray
    test: np.ndarray


class Grid:
    """All cells of a comparison, their state, and the programs that advance it."""

    def __init__(self, experiment: Experiment, probed: bool = True):
        """Draws the initial parameters of every cell; measures layers if `probed`."""
        task, s = experiment.task, experiment.settings
        self.task, self.settings, self.steps = task, s, s.steps
        self.model = model = mix_precision(experiment.network, s.dtype)
        self.shape = len(s.initializers), s.seeds, len(s.learning_rates)
        self._optimizer = experiment.optimizer
        self._x, self._y = self._take(slice(None))
        self._loss, self._score = make_loss(task, experiment.loss), make_score(task)
        self._order = s.pass_to(batches, rows=len(task.x_train))
        self._patience, self._probed = s.early_stopping, probed

        # In NumPy: outside of programs, JAX would compile one for each operation.
        _, seed, rate = np.indices(self.shape).reshape(3, -1)
        rates = np.asarray(s.learning_rates, jnp.result_type(float))
        self._varied = rates[rate], seed.astype(jnp.result_type(int))
        trained: dict[str, Any] = {
            "model": model,
            "loss": self._loss,
            "optimizer": self._optimizer,
        }
        self._step = s.pass_to(make_step, **trained, x=self._x, y=self._y)
        self._cells = self._describe_cells()
        self._layout, self._training = self._fit_layout()
        x, y = self._take(self._order[0])  # for every probe: only the weights differ
        probe = make_probe(**trained, x=x, y=y)
        self._probing = jax.jit(
            self._layout.map_cells(probe), out_shardings=self._layout.sharding
        )
        self.initial, self.signals = self._draw()
        if not s.random_training:  # then equal weights train alike
            self._layout = self._layout.train_once(self._flatten(self.initial))
        chunks = self._layout.chunks()
        self._own = [self._layout.take(self._varied, rows) for rows in chunks]
        self._chunks = self._start()
        self.losses: tuple[np.ndarray, ...] = ()  # by block, each [cells]
        first = (self._run_probe(self._chunks),) if probed else ()
        self.probes: tuple[Probe, ...] = first

    def _take(self, rows: Any) -> Any:
        """Copies inputs and targets of some training rows from the host."""
        task = self.task
        return jax.device_put((task.x_train[rows], task.y_train[rows]))

    def _describe_cells(self) -> Any:
        """Returns shapes and dtypes. # [initializers * seeds, ...] per leaf."""
        dtype, (count, seeds, _) = self.settings.dtype, self.shape
        x, _ = self._take(slice(1))

        def one(key: jax.Array) -> Any:
            return cast_back(drop_perturbations(self.model.init(key, x)), dtype)

        shapes = jax.eval_shape(one, jax.random.key(0))
        return jax.tree.map(lambda a: a.update(shape=(count * seeds, *a.shape)), shapes)

    def _draw(self) -> tuple[Any, Signals | None]:
        """Draws the initial variables while other programs are compiled.

        Returns:
          The variables, and their signals if the network has layers.
          # [initializers, seeds, ...] per leaf
        """
        s, lowered, measured = self.settings, [self._lower_training()], None
        if self._probed:
            lowered += [self._lower_probing(), self._lower_signals()]
        with open_pool() as pool:
            compiling = [pool.submit(program.compile) for program in lowered]
            drawn = draw_all(
                self.model, s.initializers, s.seeds, self._take(slice(1))[0]
            )
            self._program, *others = (each.result() for each in compiling)
        initial = cast_back(drawn, s.dtype)
        if self._probed:
            self._probe, measure = others
            measured = measure(self._flatten(initial))
        if measured is None:
            return initial, None
        by_init = (np.asarray(a).reshape(*self.shape[:2], -1) for a in measured)
        return initial, Signals(*by_init)

    def _lower_signals(self) -> Any:
        """Lowers the program that measures signal and gradient by layer."""
        rows = self._take(slice(_PROBED_ROWS))
        signals = make_signals(self.model, self._loss, *rows)
        count = len(jax.tree.leaves(self._cells)[0])
        together = math.gcd(count, self._layout.together)
        batch = together if together > 1 else None
        measure = functools.partial(jax.lax.map, signals, batch_size=batch)
        return jax.jit(measure).lower(self._cells)

    def _fit_layout(self) -> tuple[Layout, Any]:
        """Cuts the cells into chunks; also returns the program that trains a chunk."""
        s, cells = self.settings, int(np.prod(self.shape))
        mesh = Mesh(np.array(jax.devices(s.device)[: s.devices]), ("cells",))
        share = -(-cells // mesh.size)
        wanted = self._choose_chunk(mesh) if s.chunk is None else min(s.chunk, share)
        room = memory.measure_room(mesh.local_devices)
        if room is None:
            layout = Layout(cells, wanted or share, mesh)
            return layout, self._build_program(layout)
        held = self._x, self._y, *jax.tree.leaves(self._cells)
        room -= sum(a.size * a.dtype.itemsize for a in held)
        tried = {}

        def need(together: int) -> float:
            layout = Layout(cells, together, mesh)
            program = self._build_program(layout)
            # What is compiled here is not compiled again at the call.
            lowered = program.lower(*self._describe_chunk(layout), self._select_rows(0))
            tried[together] = layout, program, memory.measure_need(lowered)
            return sum(tried[together][2])

        if wanted is None:
            one = jax.tree.leaves(self._describe_chunk(Layout(cells, 1, mesh)))
            each = 2 * sum(a.size * a.dtype.itemsize for a in one) / mesh.size
            wanted = memory.fit_cells(need, share, room, each)
        else:
            need(wanted)
        layout, program, bytes_ = tried[wanted]
        away = len(layout.chunks()) * bytes_.held + bytes_.working > room
        return dataclasses.replace(layout, away=away), program

    def _choose_chunk(self, mesh: Mesh) -> int | None:
        """Returns how many cells a device trains at once; None for all that fit."""
        if platform_of(mesh) != "cpu":
            return None
        return min(self.model.together, int(np.prod(self.shape)))

    def _describe_chunk(self, layout: Layout) -> Any:
        """Returns a chunk as the program takes it: shapes, dtypes and shardings."""
        rows = layout.chunks()[0]

        def begin(initial: Any, own: Any) -> Any:
            variables = jax.tree.map(lambda a: a[rows // self.shape[-1]], initial)
            rates, seeds = (a[rows] for a in own)
            return self._begin(rates, variables), (rates, seeds)

        shapes = jax.eval_shape(begin, self._cells, self._varied)
        return jax.tree.map(lambda a: a.update(sharding=layout.sharding), shapes)

    def _begin(self, rates: jax.Array, variables: Any) -> Any:
        """Returns the state of a chunk before its first step."""
        state = jax.vmap(lambda rate, p: self._optimizer(rate).init(p))(
            rates, variables["params"]
        )
        return variables, state, start(variables) if self._patience else None

    def _start(self) -> list[Any]:
        """Copies the variables of each initializer and seed to every learning rate."""
        layout, chunks, cells = self._layout, [], self._flatten(self.initial)
        begin = jax.jit(self._begin, out_shardings=layout.sharding)
        for (rates, _), rows in zip(self._own, layout.chunks(), strict=True):
            variables = layout.take(cells, rows // self.shape[-1])
            chunks.append(layout.store(begin(rates, variables)))
        return chunks

    def _flatten(self, initial: Any) -> Any:
        """Puts seeds behind initializers. # [initializers * seeds, ...] per leaf."""
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), initial)

    @property
    def variables(self) -> Any:
        """The variables of all cells, in the memory of the host."""
        return self._layout.join(chunk[0] for chunk in self._chunks)

    @property
    def state(self) -> Any:
        """What training changes besides the losses, in the memory of the host."""
        return self._layout.join(self._chunks)

    @state.setter
    def state(self, new: Any) -> None:
        layout = self._layout
        self._chunks = [
            layout.store(layout.take(new, rows)) for rows in layout.chunks()
        ]

    @property
    def final_variables(self) -> Any:
        """The final variables of each cell, with early stopping its best ones."""
        return self._layout.join(map(_select_final, self._chunks))

    @property
    def stopped(self) -> np.ndarray | None:
        """The step after which each cell was stopped, or 0; None without stopping.

        # [initializers, seeds, learning rates]
        """
        if not self._patience:
            return None
        return self.by_cell(
            self._layout.join(chunk[2].stopped for chunk in self._chunks)
        )

    @property
    def done(self) -> bool:
        """Whether all steps are trained, or all cells have stopped."""
        return self._has_ended(self._chunks, len(self.losses))

    def _has_ended(self, chunks: list[Any], blocks: int) -> bool:
        if self._patience and self._layout.join(c[2].stopped for c in chunks).all():
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
            rows = self._select_rows(first)
            train = functools.partial(self._train, self._program, rows)
            trained = self._layout.map_chunks(train, self._chunks, self._own)
            chunks = [chunk for chunk, _ in trained]
            losses = self._layout.join(loss for _, loss in trained)
            probes = self.probes
            blocks = len(self.losses) + 1
            due = blocks in moments(self.steps // length)
            if self._probed and (due or self._has_ended(chunks, blocks)):
                probes = (*probes, self._run_probe(chunks))
            # One assignment: an interrupt sees the state before the block, or after it.
            self._chunks, self.losses, self.probes = (
                chunks,
                (*self.losses, losses),
                probes,
            )
            yield losses

    def _train(self, program: Any, rows: Any, chunk: Any, own: Any) -> Any:
        """Trains a chunk for a block."""
        chunk, losses = program(chunk, own, rows)
        return self._layout.store(chunk), losses

    def _select_rows(self, first: int) -> Any:
        """Returns a block as the program takes it: its rows, steps and last step."""
        length = block_length(self.steps)
        order = self._order[first : first + length]
        return order, first + np.arange(length), first + length

    @functools.cached_property
    def _program(self) -> Any:
        return self._lower_training().compile()

    @functools.cached_property
    def _probe(self) -> Any:
        return self._lower_probing().compile()

    def _lower_training(self) -> Any:
        chunk, own = self._describe_chunk(self._layout)
        return self._training.lower(chunk, own, self._select_rows(0))

    def _lower_probing(self) -> Any:
        chunk, own = self._describe_chunk(self._layout)
        return self._probing.lower((*chunk[:2], own[0]))

    def _build_program(self, layout: Layout) -> Any:
        """Returns the program that trains a chunk of this layout for a block."""
        block = functools.partial(self._train_block, layout)
        # Cells stay where they are: if they moved, the second block would compile anew.
        return jax.jit(block, out_shardings=layout.sharding)

    def _train_block(self, layout: Layout, chunk: Any, own: Any, rows: Any) -> Any:
        """Trains a chunk for the steps of a block; also returns each cell's loss."""
        numbers, steps, end = rows
        order = numbers, jax.vmap(jax.random.key)(steps)

        def cell(cell: Any) -> Any:
            variables, state, known, own = cell
            (variables, state), losses = jax.lax.scan(
                functools.partial(self._step, own), (variables, state), order
            )
            mean = losses.mean()
            if known is not None:
                x, y = map(jnp.asarray, (self.task.x_valid, self.task.y_valid))
                valid = self._loss(self.model.apply(variables, x), y)
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

        spread = layout.map_cells(cell) if chunk[2] is None else layout.spread(running)
        return spread((*chunk, own))

    def _run_probe(self, chunks: list[Any]) -> Probe:
        """Probes all cells. # each [cells, layers]."""
        probe = self._probe
        probes = self._layout.map_chunks(
            lambda c, own: probe((*c[:2], own[0])), chunks, self._own
        )
        return Probe(*self._layout.join(probes))

    def scores(self) -> Scores:
        """Evaluates every cell on all training rows and on the test rows."""
        x_test, y_test = jnp.asarray(self.task.x_test), jnp.asarray(self.task.y_test)
        apply = self.model.apply

        def one(variables: Any) -> Any:
            loss = self._loss(apply(variables, self._x), self._y)
            return loss, self._score(apply(variables, x_test), y_test)

        spread = self._layout.spread(lambda cells: jax.lax.map(one, cells))
        chunk, _ = self._describe_chunk(self._layout)
        evaluate = jax.jit(spread).lower(_select_final(chunk)).compile()
        scores = self._layout.map_chunks(
            lambda c, _: evaluate(_select_final(c)), self._chunks, self._own
        )
        return Scores(*map(self.by_cell, self._layout.join(scores)))

    def by_cell(self, array: np.ndarray) -> np.ndarray:
        """Unstacks cells.

        # [cells, ...] -> [initializers, seeds, learning rates, ...]
        """
        return array.reshape(*self.shape, *array.shape[1:])


def _select_final(chunk: Any) -> Any:
    """Returns the final variables of a chunk, with early stopping the best ones."""
    variables, _, stopping = chunk
    return variables if stopping is None else stopping.best


def block_length(steps: int) -> int:
    """Returns the number of steps in a block.

    It divides the number of all steps, so that one program serves all blocks.
    """
    return max(n for n in range(1, _LONGEST_BLOCK + 1) if steps % n == 0)

"""What a terminal shows during training: a bar, and the best so far."""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.progress import Task as Job
from rich.table import Column as Form
from rich.text import Text

from jaxinit._table import Column, Table
from jaxinit._text import number
from jaxinit._watch import watch
from jaxinit.lab.command import (
    Grid,
    Moment,
    Settings,
    Task,
    TransferResult,
    block_length,
    list_columns,
    median,
)

_LEADERS = 5
_PER_SECOND = 2  # refreshes; one takes some milliseconds, in a thread of its own
_PERIOD = 86_400.0  # seconds that the rate is averaged over


class Leader(NamedTuple):
    """An initializer at the learning rate of its lowest median loss."""

    initializer: str
    learning_rate: float
    loss: float
    diverged: float


_COLUMNS: tuple[Column[Leader], ...] = (
    Column("leading", lambda leader: leader.initializer, left=True, wraps=True),
    Column("training loss", lambda x: number(x.loss) if math.isfinite(x.loss) else "–"),
    Column("learning rate", lambda leader: f"{leader.learning_rate:g}"),
    Column("diverged", lambda leader: f"{100 * leader.diverged:.0f} %"),
)


class SweepScreen:
    """The bar of a transfer, and the best rates so far."""

    def __init__(self, steps: int):
        """Prepares the bar."""
        self.bar = _make_bar()
        self._job = self.bar.add_task("drawing and compiling", total=steps)
        self._result: TransferResult | None = None

    def observe(self, moment: Moment) -> None:
        """Notes how far training has come."""
        now = f"{moment.parameterization}, {moment.result.sweep.varied} {moment.size}"
        self._result = moment.result
        self.bar.update(self._job, completed=moment.done, description=now)

    def __rich__(self) -> Group:
        """Returns the present view."""
        result = self._result
        if result is None or not result.rows:
            return Group(self.bar)
        table = Table.of(list_columns(result), result.rows).rich()
        return Group(self.bar, table)


def _make_bar() -> Progress:
    """Makes a bar that counts steps."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed}/{task.total} steps"),
        _Pace(table_column=Form(no_wrap=True)),
    )
    return Progress(*columns, speed_estimate_period=_PERIOD, expand=True)


class Screen:
    """The bar and the table; rich draws them from its own thread, at its own pace."""

    def __init__(self, task: Task, settings: Settings):
        """Prepares the bar."""
        self._task, self._settings = task, settings
        self.bar = _make_bar()
        self._job = self.bar.add_task("drawing and compiling", total=settings.steps)
        self._losses: tuple[Any, ...] = ()  # by block, each [cells]
        self._seen = 0  # blocks whose numbers have been checked
        self._lost = np.zeros(self._shape, bool)  # cells whose loss was not finite once

    @property
    def _shape(self) -> tuple[int, int, int]:
        s = self._settings
        return len(s.initializers), s.seeds, len(s.learning_rates)

    def observe(self, grid: Grid) -> None:
        """Notes the losses of a block, which are on the host already."""
        self._losses = grid.losses
        done = len(grid.losses) * block_length(grid.steps)
        part = "evaluating" if done >= grid.steps else "training"
        self.bar.update(self._job, completed=done, description=part)

    def leaders(self) -> list[Leader]:
        """Ranks the initializers by the median loss of the last block."""
        losses = self._losses
        if not losses:
            return []
        for block in losses[self._seen :]:
            self._lost |= ~np.isfinite(np.reshape(block, self._shape))
        self._seen = len(losses)
        last = np.reshape(losses[-1], self._shape)
        with np.errstate(invalid="ignore"):
            lost = self._lost | (last > 2 * self._task.chance)
        medians = median(np.where(lost, np.inf, last))  # [initializers, rates]
        best = medians.argmin(axis=1)
        leaders = [
            Leader(
                initializer=repr(init),
                learning_rate=self._settings.learning_rates[best[i]],
                loss=float(medians[i, best[i]]),
                diverged=float(lost[i].mean()),
            )
            for i, init in enumerate(self._settings.initializers)
        ]
        return sorted(leaders, key=lambda leader: leader.loss)

    def __rich__(self) -> Group:
        """Returns the present view."""
        leaders = self.leaders()
        if not leaders:
            return Group(self.bar)
        table = Table.of(_COLUMNS, leaders[:_LEADERS]).rich()
        more = len(leaders) - _LEADERS
        rest = [Text(f"and {more} more", "dim")] if more > 0 else []
        return Group(self.bar, table, *rest)


class _Pace(ProgressColumn):
    """The time so far; from the second block on, steps per second and time left."""

    def render(self, task: Job) -> Text:
        """Writes the times; the first block compiles and tells nothing of the pace."""
        if task.speed is None:
            return Text(str(timedelta(seconds=int(task.elapsed or 0))), "cyan")
        left = timedelta(seconds=math.ceil(task.time_remaining or 0))
        digits = ",.0f" if task.speed >= 100 else ".3g"
        return Text(f"{task.speed:{digits}} steps/s, {left} left", "cyan")


def show_progress(
    task: Task, settings: Settings, quiet: bool
) -> contextlib.AbstractContextManager[list[Callable[[Grid], None]]]:
    """Shows the training of a comparison, as `show_live` does."""
    return show_live(lambda: Screen(task, settings), quiet)


@contextlib.contextmanager
def show_live(
    make: Callable[[], Screen | SweepScreen], quiet: bool
) -> Iterator[list[Callable[[Any], None]]]:
    """Shows training on the terminal, if there is one to show it on.

    Args:
      make: makes what is shown.
      quiet: whether nothing is to be shown.

    Yields:
      The functions to call after each block: none without a terminal.
    """
    console = Console(stderr=True, markup=False, emoji=False)
    if quiet or not sys.stderr.isatty() or console.is_dumb_terminal:
        yield []
        return
    screen = make()
    live = Live(
        screen,
        console=console,
        refresh_per_second=_PER_SECOND,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )
    with watch.closing(live.stop), live:
        yield [screen.observe]

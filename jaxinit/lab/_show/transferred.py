"""`TransferResult`, which `transfer` returns: as text, HTML, JSON, CSV, plot, page."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxinit._import import explain_missing
from jaxinit._result import Result, plain
from jaxinit._table import Table, line
from jaxinit._table import page as join
from jaxinit._text import plural
from jaxinit.lab._atomic import write_bytes
from jaxinit.lab._result.rates import Transferred
from jaxinit.lab._show._transfer_table import make_table
from jaxinit.lab._train._environment import describe_device, read_versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Settings that a transfer does not have, or has under another name.
_NO_SETTINGS = ("initializers", "learning_rates", "target_loss", "early_stopping")


class TransferResult(Transferred, Result):
    """How the best learning rate depends on the size of a network.

    Printed, it is the answer in one sentence over the table; a notebook shows the same.
    It is equal to itself only.

    Attributes:
      sweep: what was to be trained: task, settings, sizes, parameterizations, and log2
        of the learning rates.
      losses: the final loss of each cell, by parameterization and size: the training
        loss, averaged over the last steps. A size whose training was interrupted is
        left out. # each [seeds, rates]
      diverged: whether each cell has diverged: its loss was not finite at some step, or
        in the end more than twice that of chance. # each [seeds, rates]
      last_steps: how many steps the final loss is averaged over.
      seconds: wall time, compilation included.
      rows: a row for each parameterization and size.
      drifts: for each parameterization how far log2 of the best rate moves when the
        size doubles, with an interval of 95 % over seeds.
      answer: this in one sentence.
      interrupted: whether some sizes were not trained to their last step.
    """

    def to_dict(self) -> dict[str, Any]:
        """Returns all numbers as plain Python values."""
        sweep = self.sweep
        left_out = (*_NO_SETTINGS, sweep.varied)
        settings = {k: v for k, v in vars(sweep.settings).items() if k not in left_out}
        return {
            "answer": self.answer,
            "drift": {name: drift._asdict() for name, drift in self.drifts.items()},
            "table": [
                row._asdict() | {"best": row.best._asdict()} for row in self.rows
            ],
            "varied": sweep.varied,
            "sizes": list(sweep.sizes),
            "base": sweep.base,
            "parameterizations": list(sweep.names),
            "log2_learning_rates": list(sweep.exponents),
            "initializer": repr(sweep.settings.initializers[0]),
            "cells": list(self.cells()),
            "last_steps": self.last_steps,
            "task": {"name": sweep.task.name, "chance_loss": sweep.task.chance},
            "settings": plain(settings),
            "interrupted": self.interrupted,
            "seconds": self.seconds,
            "versions": read_versions(),
            "device": describe_device(sweep.settings.device),
        }

    def to_csv(self) -> str:
        """Returns the cells as CSV text, a line for each under a line of names."""
        text, rows = io.StringIO(), list(self.cells())
        names = rows[0] if rows else ()
        writer = csv.DictWriter(text, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def plot(self) -> "Figure":
        """Draws loss against learning rate: a panel a parameterization, a line a size.

        Raises:
          ModuleNotFoundError: if matplotlib is not installed.
        """
        with explain_missing("TransferResult.plot()", "lab"):
            from jaxinit.lab._show._curves import plot
        return plot(self)

    def to_html(self) -> str:
        """Returns the page that `save` writes, which a browser opens offline.

        Raises:
          ModuleNotFoundError: if matplotlib is not installed.
        """
        return self._page("")

    def _page(self, command: str) -> str:
        with explain_missing("TransferResult.to_html()", "lab"):
            from jaxinit.lab._show._transfer_page import page
        return page(self, command)

    def save(self, directory: str | Path, command: str = "") -> list[Path]:
        """Writes results.json, results.csv, loss.png and the page index.html.

        Args:
          directory: where to write them; it is created if it does not exist.
          command: the command that repeats the run, which the page shows.

        Returns:
          The paths of the files. Each replaces the old one as a whole.
        """
        from jaxinit._panels import png

        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        files = {
            "results.json": self.to_json(indent=1).encode(),
            "results.csv": self.to_csv().encode(),
            "loss.png": png(self.plot()),
            "index.html": self._page(command).encode(),
        }
        for name, content in files.items():
            write_bytes(directory / name, content)
        return [directory / name for name in files]

    def _table(self) -> Table:
        return make_table(self)

    def __repr__(self) -> str:
        sweep = self.sweep
        counts = len(sweep.names), len(sweep.sizes), sweep.settings.seeds
        nouns = "parameterization", sweep.varied, "seed"
        return f"TransferResult({' × '.join(map(plural, counts, nouns))})"

    def __str__(self) -> str:
        return f"{self.answer}\n\n{super().__str__()}"

    def _repr_html_(self) -> str:
        table = self._table()
        notes = [line(*note) for note in table.notes]
        return join(line(self.answer, "answer"), table.html(), *notes)

"""The networks of a transfer that are trained to the end, kept in a file.

A run that is killed continues after the last of them. The file also says what the run
was asked to do: only the same run continues.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxinit import _check as check
from jaxinit.lab._atomic import read_bytes, write_bytes
from jaxinit.lab._train._directory import refuse_other
from jaxinit.lab._train.checkpoint import AFRESH, compute_digest, describe_run
from jaxinit.lab._tried._sweep import Sweep

NAME = "trained.json"


class Finished:
    """What a transfer has trained so far.

    Attributes:
      curves: the loss of each block, by parameterization and size.
        # each [seeds, rates, blocks]
    """

    def __init__(self, folder: Path, sweep: Sweep):
        """Begins with nothing; writes nothing yet."""
        self.curves: dict[tuple[str, int], np.ndarray] = {}
        self._path = folder / NAME
        self._run = describe_run(sweep.task, sweep.settings)
        settings = self._run["settings"]
        settings["lr"] = settings.pop("learning_rates")  # as they are called here
        del settings[sweep.varied]
        settings[f"{sweep.varied}s"] = list(sweep.sizes)
        settings |= {"base": sweep.base, "parameterizations": list(sweep.names)}

    def read(self) -> bool:
        """Reads what was trained before; returns whether there is a file.

        Raises:
          ValueError: if the file is of another run, or cannot be read.
        """
        try:
            return self._read()
        except check.Unfit as error:
            raise error.at("transfer") from None

    def _read(self) -> bool:
        try:
            saved: dict[str, Any] = json.loads(read_bytes(self._path))
            if saved.pop("digest") != compute_digest(saved):
                raise ValueError("it is damaged")
        except FileNotFoundError:
            return False
        except (
            OSError,
            ValueError,
            LookupError,
            AttributeError,
            TypeError,
            RecursionError,
        ) as error:
            rule = f"cannot read {self._path.name}: {check.brief(error)}; {AFRESH}."
            raise check.Unfit(rule, out=str(self._path.parent)) from None
        refuse_other(saved["run"], self._run, self._path.parent)
        for name, size, curve in saved["curves"]:
            self.curves[name, size] = np.asarray(curve)
        return True

    def add(self, key: tuple[str, int], curve: np.ndarray) -> None:
        """Adds a network, and writes the file anew."""
        self.curves[key] = curve
        curves = [[*key, curve.tolist()] for key, curve in self.curves.items()]
        content: dict[str, Any] = {"run": self._run, "curves": curves}
        content["digest"] = compute_digest(content)
        write_bytes(self._path, json.dumps(content).encode())

    def remove(self) -> None:
        """Removes the file: all is trained and written, or a run starts anew."""
        self._path.unlink(missing_ok=True)

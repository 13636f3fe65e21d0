"""`Comparison`, which `compare` returns: an outcome as text, HTML, JSON, CSV, plots."""

import json
from typing import TYPE_CHECKING, Any

from jaxinit._import import explain_missing
from jaxinit._text import plural
from jaxinit.lab._result import results
from jaxinit.lab._result.answer import answer
from jaxinit.lab._result.outcome import Outcome, count_cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Comparison(Outcome):
    """The results of a run.

    Printed, it is the answer in one sentence over the table; a notebook shows the same.
    It is equal to itself only.

    Attributes:
      task: the data.
      settings: what was varied and what was fixed.
      signals: standard deviations at initialization, of the layers that
        `jaxinit.check` finds; None if it finds none. # [initializers, seeds, layers]
      curves: training loss, averaged over each block.
        # [initializers, seeds, learning rates, blocks]
      steps: the last step of each block. # [blocks]
      scores: final training loss and test score.
        # [initializers, seeds, learning rates]
      initial: parameters by initializer and seed. # [initializers, seeds, ...] per leaf
      final: parameters of each cell.
        # [initializers, seeds, learning rates, ...] per leaf
      interrupted: whether training ended before its last step.
      seconds: wall time of the parts of the run.
      probes: signal, gradient and updates at a few moments of training; updates are by
        kernel. # [initializers, seeds, learning rates, moments, layers or kernels]
      probe_steps: the steps done at each moment. # [moments]
      health: the verdicts of `jaxinit.check` by initializer, the reason why there are
        none, or None if they were not asked for.
      stopped: with early stopping, the step after which each cell was stopped, or 0;
        from there on its curve stays at its last value, which is nan or infinite if the
        cell has diverged. Scores and final parameters are then those of the block of
        lowest validation loss. # [initializers, seeds, learning rates]
    """

    @property
    def answer(self) -> str:
        """What trains best, what the seeds cannot tell, and what does not train."""
        return answer(self)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the weights, as JSON types.

        Numbers that are not finite become None.
        """
        return results.to_dict(self)

    def to_json(self) -> str:
        """Returns `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def to_html(self) -> str:
        """Returns the page, which a browser opens offline.

        Raises:
          ModuleNotFoundError: if matplotlib or Bokeh is not installed.
        """
        with explain_missing("Comparison.to_html()", "lab"):
            from jaxinit.lab._show.page import page

            return page(self, "")

    def to_csv(self) -> str:
        """Returns the cells as CSV text, a line for each under a line of names.

        Numbers are written in full, those that are not finite as nan, inf or -inf.
        """
        return results.to_csv(self)

    def plot(self, name: str = "loss") -> "Figure":
        """Draws one of the plots of the page, a panel for each initializer.

        Args:
          name: "loss", "loss_by_rate", "sensitivity", "signals", "gradients",
            "updates", "weights", "heatmaps", "biases" or "bias_maps".

        Raises:
          ValueError: if there is no such plot, or no data for it.
          ModuleNotFoundError: if matplotlib is not installed.
        """
        with explain_missing("Comparison.plot()", "lab"):
            from jaxinit.lab._show.figure import plot
        return plot(self, name)

    def __repr__(self) -> str:
        cells, steps = count_cells(self.settings), plural(self.steps_done, "step")
        return f"Comparison({cells}, {steps} on {self.task.name})"

    def __str__(self) -> str:
        from jaxinit.lab._show.table import text

        return text(self)

    def _repr_html_(self) -> str:
        from jaxinit.lab._show.table import html

        return html(self)

"""`SignalReport`, the result of `check`: findings, and the ways to show them."""

import dataclasses
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit import _check as check
from jaxinit._import import explain_missing
from jaxinit._result import plain
from jaxinit._table import document
from jaxinit.signal._judge.findings import Findings, over_seeds
from jaxinit.signal._judge.verdicts import Condition
from jaxinit.signal._report import columns
from jaxinit.signal._report.limits import Limits, find_broken

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class SignalReport(Findings):
    """The health of a model at initialization, over many seeds.

    It prints as a table, in color on a rich console and in notebooks.

    Attributes:
      layers: the layers, in the order of execution.
      findings: the conditions that are wrong, the cause first; empty for a healthy
        model.
      seeds: the number of seeds.
      jacobian: of the Jacobian of output by input, for some seeds, the ``mean_square``
        of the singular values and the ``largest``; empty where the input has no
        derivative.
      loss: the loss of each seed; without a loss, the output times random numbers.
      limit: the factor over all layers beyond which a signal vanishes or explodes.
      unseen: layers that have no row, by the paths of their weights: what they are
        inside of, such as "a while loop".
      training: where `check` took steps, the ``loss`` before each of them and behind
        the last, [seeds, steps + 1], and the ``chance``, that of equal logits at the
        start, if the loss is known to be a cross-entropy; else empty.
      structure: what each parameter does, as `jaxinit.structure` tells it, read from
        the program that was measured.

    Example:
      >>> from jaxinit.signal import check
      >>> init = lambda key: {"w": jaxinit.lecun_normal()(key, (8, 8))}
      >>> model = init, lambda params, x: jnp.tanh(x @ params["w"])
      >>> report = check(model, jnp.eye(8), key=jax.random.key(0), seeds=2)
      >>> report.assert_healthy(std=(0.1, 10.0), saturated=0.5)
      >>> report.to_dict()["layers"][0]["activation"]
      'tanh'
    """

    def table(self, *, all_layers: bool = False, width: int | None = None) -> str:
        """Returns the report as text: layers, findings with cures, singular values.

        Layers stand in the tree of their modules, with means over seeds and standard
        errors; a dash stands for NaN. Zeros, dead and saturated are shares behind the
        activation, and similarity is the cosine between outputs of different inputs.
        Layers that repeat five times or more, alone or with their neighbors, are
        folded: the first and the last stay, and a row between them spans the rest.

        Args:
          all_layers: whether every layer has a row of its own.
          width: the width of the text in characters, 1 or above: the least important
            columns are left out until the others fit; by default all stay.

        Returns:
          Lines of text. ``print(report)`` prints them in the width of the terminal.

        Raises:
          ValueError: if width is below 1.
          TypeError: if an argument has the wrong type.
        """
        try:
            check.boolean(all_layers=all_layers)
            if width is not None:
                check.at_least(1, width=width)
        except check.Unfit as error:
            raise error.at("SignalReport.table") from None
        return columns.write_text(self, all_layers, width)

    def __str__(self) -> str:
        # Without a terminal there is no width to keep to.
        return self.table(width=shutil.get_terminal_size((10**6, 0)).columns)

    def __repr__(self) -> str:
        return f"SignalReport({columns.write_heading(self)})"

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from jaxinit.signal import console

        yield from console.parts(self, options.max_width)

    def _repr_html_(self) -> str:
        return columns.write_html(self)

    def to_html(self) -> str:
        """Returns a page that a browser opens offline: what a notebook shows."""
        return document(repr(self), self._repr_html_())

    def to_dict(self, *, seeds: bool = False) -> dict[str, Any]:
        """Returns the report as JSON types; numbers that are not finite become None.

        Args:
          seeds: whether to add the values of every seed, and the ``sample``.

        Returns:
          The attributes, of layers and findings too. A statistic is a dictionary with
          its ``mean`` over seeds and the ``error`` of that mean, and with
          ``seeds=True`` also ``values``, a list over seeds. ``updates`` of a layer and
          the ``loss`` in ``training`` are lists of these, by step; both, and
          ``unseen``, are there only where the report has them.

        Raises:
          TypeError: if seeds is not True or False.
        """
        try:
            check.boolean(seeds=seeds)
        except check.Unfit as error:
            raise error.at("SignalReport.to_dict") from None

        def statistic(name: str, array: Any) -> dict[str, Any]:
            numbers: dict[str, Any] = {}
            if name != "sample":
                numbers["mean"], numbers["error"] = over_seeds(array)
            if seeds:
                numbers["values"] = np.asarray(array, np.float64).tolist()
            return numbers

        def statistics(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
            by_name = {name: statistic(name, array) for name, array in arrays.items()}
            return {name: numbers for name, numbers in by_name.items() if numbers}

        def by_step(columns: np.ndarray) -> list[dict[str, Any]]:
            return [statistic("", column) for column in columns.T]

        layers = [
            {
                "path": layer.path,
                "kind": layer.kind,
                "shape": layer.shape,
                "fan_in": layer.fan_in,
                "activation": layer.activation,
                "condition": layer.condition,
                "role": layer.role,
                "forward": statistics(layer.forward),
                "backward": statistics(layer.backward),
                "predicted": {k: float(v) for k, v in layer.predicted.items()},
            }
            | ({} if layer.updates is None else {"updates": by_step(layer.updates)})
            for layer in self.layers
        ]
        record: dict[str, Any] = plain(
            {
                "condition": self.condition,
                "healthy": self.healthy,
                "seeds": self.seeds,
                "limit": float(self.limit),
                "loss": statistic("loss", self.loss),
                "jacobian": statistics(self.jacobian),
                "findings": [dataclasses.asdict(finding) for finding in self.findings],
                "layers": layers,
            }
        )
        if self.unseen:
            record["unseen"] = dict(self.unseen)
        if self.training:
            record["training"] = plain(
                {
                    name: by_step(losses) if losses.ndim > 1 else statistic("", losses)
                    for name, losses in self.training.items()
                }
            )
        return record

    def to_json(self, *, indent: int | None = None, seeds: bool = False) -> str:
        """Returns `to_dict` as JSON text; numbers that are not finite become null.

        Args:
          indent: the number of blanks per level; by default the text is one line.
          seeds: as in `to_dict`.

        Returns:
          The text.

        Raises:
          TypeError: if seeds is not True or False.
        """
        return json.dumps(self.to_dict(seeds=seeds), indent=indent, allow_nan=False)

    def plot(self) -> "Figure":
        """Draws the signal on its way through the model. Needs matplotlib.

        The panels show the standard deviations of signal and gradient by depth, with
        the median over seeds, a band that holds 80 % of them and the theory's line; the
        updates over the weights, and the singular values of the Jacobian, if there are
        any; and histograms of the outputs of up to eight layers. Unhealthy layers are
        marked.

        Returns:
          A figure that notebooks show; ``report.plot().savefig("signal.png")`` writes
          it to a file.

        Raises:
          ModuleNotFoundError: if matplotlib is not installed.
        """
        with explain_missing("SignalReport.plot()", "lab"):
            from jaxinit.signal._report.plot import figure
        return figure(self)

    def assert_healthy(
        self,
        *,
        allow: Condition | Collection[Condition] = (),
        limit: float | None = None,
        std: tuple[float, float] | None = None,
        gradient: tuple[float, float] | None = None,
        dead: float | None = None,
        saturated: float | None = None,
    ) -> None:
        """Asserts that a model is healthy, for test suites.

        Findings count unless their condition is allowed. The other arguments set limits
        besides, on each layer's means over seeds; modules are left out.

        Args:
          allow: a condition to tolerate, or several: "dead", "collapsed" and so on.
          limit: above 1; the factor within which the signal's standard deviation stays
            from the first layer to the last but one, and the gradient's norm from the
            last layer to the first. Exact zeros are left to the findings.
          std: the least and the largest standard deviation of a layer's output, 0 or
            above; the largest may be infinite.
          gradient: the least and the largest norm of the gradient at a layer's output
            over that at the last layer's, likewise.
          dead: the largest share of units that are zero for every input, in [0, 1].
          saturated: the largest share of entries where the activation is flat, in
            [0, 1].

        Raises:
          AssertionError: if the model is not healthy; the message names layers, numbers
            and cures.
          ValueError: if a condition is unknown, or a limit out of range.
          TypeError: if an argument has the wrong type.
        """
        try:
            limits = Limits.of(allow, limit, std, gradient, dead, saturated)
        except check.Unfit as error:
            raise error.at("assert_healthy") from None
        if wrong := find_broken(self, limits):
            rule = "assert_healthy(): the model must be healthy, and it is not:"
            raise AssertionError("\n- ".join([rule, *wrong]))

"""Predicts a network of finite depth by mean-field theory, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxinit import _check as check
from jaxinit._gain import Activation
from jaxinit._result import Result
from jaxinit._table import Column, Table
from jaxinit._text import number, plural
from jaxinit.signal.theory._expectation import (
    AnyActivation,
    Expectation,
    check_correlation,
)
from jaxinit.signal.theory._propagation import (
    Dense,
    propagate_gradients,
    propagate_variances,
)


@dataclass(frozen=True, eq=False, repr=False)
class Profile(Result):
    """A prediction by depth; entry l - 1 of each array belongs to layer l.

    It prints as a table, in notebooks too.

    Attributes:
      variance: the variance of z, before the activation. # [depth]
      second_moment: E[f(z)^2], after the activation. # [depth]
      correlation: the correlation between the z of two inputs; None without
        input_correlation. # [depth]
      gradient: the variance of the gradient with respect to z, over that at the last
        layer. # [depth]
    """

    variance: np.ndarray
    second_moment: np.ndarray
    correlation: np.ndarray | None
    gradient: np.ndarray

    def __repr__(self) -> str:
        return f"Profile({plural(len(self.variance), 'layer')})"

    def to_dict(self) -> dict[str, list[float] | None]:
        """Returns the attributes as lists."""
        return {k: None if x is None else x.tolist() for k, x in vars(self).items()}

    def _table(self) -> Table:
        columns = {name: x for name, x in vars(self).items() if x is not None}
        each = enumerate(zip(*columns.values(), strict=True), 1)
        rows = [[str(layer), *map(number, values)] for layer, values in each]
        heads = ["layer", *(name.replace("_", " ") for name in columns)]
        return Table(list(map(Column, heads)), rows)


def profile(
    activation: AnyActivation | list[AnyActivation],
    weight_variance: float | list[float] | np.ndarray,
    bias_variance: float | list[float] | np.ndarray = 0.0,
    *,
    depth: int | None = None,
    widths: Sequence[int] | None = None,
    input_moment: float = 1.0,
    input_correlation: float | None = None,
    derivative: Activation | list[Activation | None] | None = None,
) -> Profile:
    """Predicts variances, correlations and gradients of a wide network by depth.

    Layer l computes z_l = W_l f(z_(l-1)) + b_l, the first one from the input itself:
    z_1 = W_1 x + b_1. An argument that is a list, or an array of one axis, has an entry
    for each layer; lists, widths or depth give the number of layers.

    Args:
      activation: f, as in `MeanField`; that of the last layer matters for
        second_moment only.
      weight_variance: Var[W] * fan_in, 0 or above.
      bias_variance: Var[b], 0 or above.
      depth: the number of layers.
      widths: the number of features of the input and of each layer, depth + 1 of them.
        A gradient grows by fan_out / fan_in where these differ; by default they are
        equal.
      input_moment: the mean square of an entry of an input x, 0 or above.
      input_correlation: for two inputs x and y of that mean square, the mean of x y
        over it, between -1 and 1. It is not centered, unless the inputs are.
      derivative: f', as in `MeanField`.

    Returns:
      A `Profile`.

    Raises:
      ValueError: if lists differ in length, no argument gives the number of layers, or
        a value is out of range.
      TypeError: if an argument has the wrong type.

    Example:
      >>> from jaxinit.signal.theory import profile
      >>> he = profile("relu", 2, depth=50, input_correlation=0.0)
      >>> bool(abs(he.variance / 2 - 1).max() < 1e-6)
      True
      >>> bool(abs(he.gradient - 1).max() < 1e-6), bool(he.correlation[-1] > 0.9)
      (True, True)
      >>> widths = [784, 512, 256, 10]
      >>> profile(["tanh", "tanh", "identity"], 1.0, widths=widths).variance.shape
      (3,)

    References:
      Poole, Lahiri, Raghu, Sohl-Dickstein, Ganguli. Exponential expressivity in deep neural networks through transient chaos. 2016. https://arxiv.org/abs/1606.05340
      Schoenholz, Gilmer, Ganguli, Sohl-Dickstein. Deep Information Propagation. 2017. https://arxiv.org/abs/1611.01232
    """  # noqa: E501
    arguments = {
        "activation": activation,
        "weight_variance": weight_variance,
        "bias_variance": bias_variance,
        "derivative": derivative,
    }
    try:
        layers = _count_layers(depth, widths, arguments)
        each = {name: _spread(value, layers) for name, value in arguments.items()}
        weights = [
            check.not_negative(weight_variance=w) for w in each["weight_variance"]
        ]
        biases = [check.not_negative(bias_variance=b) for b in each["bias_variance"]]
        of = prepare_expectations(each["activation"], each["derivative"])
        moment = check.not_negative(input_moment=input_moment)
        c = 1.0 if input_correlation is None else input_correlation
        deficit = moment * (1 - check_correlation(input_correlation=c))
    except check.Unfit as error:
        raise error.at("profile") from None
    ratios = [1.0] * layers
    if widths is not None:
        ratios = np.divide(widths[1:], widths[:-1]).tolist()
    maps = list(map(Dense, weights, biases, ratios))
    variances, moments = propagate_variances(of, maps, moment)
    distances = []
    if input_correlation is not None:
        for layer, weight, q in zip(of, weights, variances, strict=True):
            distances.append(weight * deficit / q if q else 0.0)
            deficit = layer.half_difference(q, distances[-1])
    return Profile(
        np.array(variances),
        np.array(moments),
        1 - np.array(distances) if distances else None,
        np.array(propagate_gradients(of, maps, variances, 1.0)),
    )


def _spread(value: Any, layers: int) -> list[Any]:
    """Returns the entries of a list, or repeats a single value for each layer."""
    return list(value) if _is_list(value) else [value] * layers


def _is_list(value: Any) -> bool:
    return isinstance(value, list) or np.ndim(value) == 1 and hasattr(value, "dtype")


def _count_layers(
    depth: int | None, widths: Sequence[int] | None, arguments: dict[str, Any]
) -> int:
    """Returns the number of layers that the arguments agree on."""
    lists = {name: value for name, value in arguments.items() if _is_list(value)}
    counts = {name: len(value) for name, value in lists.items()}
    if widths is not None:
        check.sizes(widths=widths)
        counts["widths"], lists["widths"] = len(widths) - 1, widths
    if depth is not None:
        counts["depth"], lists["depth"] = check.at_least(1, depth=depth), depth
    if not counts:
        rule = "needs depth, widths or a list with an entry for each layer."
        raise check.Unfit(rule, depth=depth)
    first, layers = next(iter(counts.items()))
    for name, count in counts.items():
        if count != layers or count < 1:
            rule = f"{name} is for {plural(count, 'layer')}, {first} for {layers}."
            raise check.Unfit(rule, **{name: lists[name]})
    return layers


def prepare_expectations(
    functions: list[Any], derivatives: list[Any]
) -> list[Expectation]:
    """Prepares the expectations of all layers, once for equal activations."""
    names = [f if isinstance(f, str) else id(f) for f in functions]
    prepared: dict[tuple[str | int, int], Expectation] = {}
    for name, function, derivative in zip(names, functions, derivatives, strict=True):
        if (name, id(derivative)) not in prepared:
            prepared[name, id(derivative)] = Expectation(function, derivative)
    return [prepared[name, id(d)] for name, d in zip(names, derivatives, strict=True)]

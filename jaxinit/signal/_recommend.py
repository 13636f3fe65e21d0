"""Recommends an initializer for an activation and architecture, and says why."""

import dataclasses
import functools
import json
import math

from jaxinit import _check as check
from jaxinit import _table, initializers
from jaxinit._gain import ACTIVATIONS, Activation
from jaxinit._gain import gain as gain_of
from jaxinit._initializer import Initializer
from jaxinit.signal.theory import MeanField, critical_weight_variance

LAYERS = ("dense", "conv", "depthwise", "recurrent", "embedding", "attention", "output")
NORMS = ("batch", "layer", "rms", "group", "instance", "weight")


@dataclasses.dataclass(frozen=True, repr=False)
class Recommendation:
    """An initializer and the reason for it.

    Attributes:
      initializer: for the weight; its text can be pasted into code.
      reason: why it suits, in a few sentences.
      reference: the paper that shows it.
    """

    initializer: Initializer
    reason: str
    reference: str

    def __str__(self) -> str:
        return f"{self.initializer}: {self.reason} [{self.reference}]"

    def __repr__(self) -> str:
        return f"Recommendation({self.initializer})"

    def _repr_html_(self) -> str:
        return _table.page(_table.line(str(self)))

    def to_html(self) -> str:
        """Returns a page that a browser opens offline: what a notebook shows."""
        return _table.document(repr(self), self._repr_html_())

    def to_dict(self) -> dict[str, str]:
        """Returns the attributes, the initializer as its text."""
        return {**vars(self), "initializer": repr(self.initializer)}

    def to_json(self, *, indent: int | None = None) -> str:
        """Returns `to_dict` as JSON text.

        Args:
          indent: the number of blanks per level; by default the text is one line.
        """
        return json.dumps(self.to_dict(), indent=indent)


_HE = "He, Zhang, Ren, Sun. Delving Deep into Rectifiers. 2015"
_LECUN = "LeCun, Bottou, Orr, Muller. Efficient BackProp. 1998"
_POOLE = (
    "Schoenholz, Gilmer, Ganguli, Sohl-Dickstein. Deep Information Propagation. 2017"  # noqa: E501
)
_PENNINGTON = "Pennington, Schoenholz, Ganguli. Resurrecting the sigmoid. 2017"
_XIAO = "Xiao, Bahri, Sohl-Dickstein, Schoenholz, Pennington. Dynamical Isometry and a Mean Field Theory of CNNs. 2018"  # noqa: E501
_FIXUP = "Zhang, Dauphin, Ma. Fixup Initialization. 2019"
_GPT2 = "Radford and others. Language Models are Unsupervised Multitask Learners. 2019"
_SAXE = "Saxe, McClelland, Ganguli. Exact solutions to the nonlinear dynamics of learning. 2014"  # noqa: E501
_SELU = (
    "Klambauer, Unterthiner, Mayr, Hochreiter. Self-Normalizing Neural Networks. 2017"  # noqa: E501
)
_SIREN = "Sitzmann and others. Implicit Neural Representations with Periodic Activation Functions. 2020"  # noqa: E501


def recommend(
    activation: str | Activation,
    *,
    layer: str = "dense",
    norm: str | None = None,
    residual: bool = False,
    depth: int | None = None,
) -> Recommendation:
    """Recommends an initializer for the weight of a layer.

    The weight variance is the critical one of mean-field theory, at which signal and
    gradient keep their size through any depth. Where the activation has none, it is
    the one that keeps the variance of the signal.

    Args:
      activation: the activation behind the layer: a name that `jaxinit.gain` knows or
        an elementwise function.
      layer: "dense", "conv", "depthwise", "recurrent" (from step to step), "embedding",
        "attention" (its projections) or "output".
      norm: the normalization behind the layer: "batch", "layer", "rms", "group",
        "instance", "weight", or None.
      residual: whether the layer is the last one of a branch whose output is added to
        the branch's input.
      depth: the number of such branches, 1 or above, if known.

    Returns:
      A `Recommendation`.

    Raises:
      ValueError: if a name is unknown or depth is below 1.
      TypeError: if an argument has the wrong type.

    Example:
      >>> found = jaxinit.signal.recommend("relu")
      >>> found.initializer == jaxinit.he_normal()
      True
      >>> jaxinit.signal.recommend("tanh").initializer == jaxinit.lecun_normal()
      True

    References:
      Schoenholz, Gilmer, Ganguli, Sohl-Dickstein. Deep Information Propagation. 2017. https://arxiv.org/abs/1611.01232
    """  # noqa: E501
    try:
        check.choice(LAYERS, layer=layer)
        if norm is not None:
            check.choice(NORMS, norm=norm)
        check.boolean(residual=residual)
        if depth is not None:
            check.at_least(1, depth=depth)
        if isinstance(activation, str):
            check.choice(tuple(ACTIVATIONS), activation=activation)
    except check.Unfit as error:
        raise error.at("recommend", "activation") from None
    if layer in _WHATEVER_FOLLOWS:
        return _WHATEVER_FOLLOWS[layer]
    if residual and norm is None:
        return _recommend_for_branch(depth)
    variance, why = find_weight_variance(activation)
    if norm is not None:
        why += f" (the {norm} normalization forgives another scale)"
    reference = _choose_reference(activation, variance)
    axes = ""
    if layer == "depthwise":
        axes = " Name groups= so that the fan counts the one channel that feeds."
    if layer == "conv" and activation in ("tanh", "identity", "linear", "hard_tanh"):
        return Recommendation(
            initializers.delta_orthogonal(math.sqrt(variance)),
            f"{why}; orthogonal in the middle tap keeps all singular values equal.",
            _XIAO,
        )
    return Recommendation(choose_builder(variance), why + "." + axes, reference)


_WHATEVER_FOLLOWS = {
    "embedding": Recommendation(
        initializers.normal(0.02),
        "an embedding has no inputs to sum over; small entries let the first "
        "normalization set the scale.",
        _GPT2,
    ),
    "output": Recommendation(
        initializers.lecun_normal(),
        "no activation follows: gain 1 keeps the variance; zeros() is as sound here, "
        "since the layer below is random, and starts at equal outputs.",
        _LECUN,
    ),
    "recurrent": Recommendation(
        initializers.orthogonal(),
        "the same matrix is applied at every step: all its singular values must be 1 "
        "for a gradient to reach back.",
        _SAXE,
    ),
}


def _recommend_for_branch(depth: int | None) -> Recommendation:
    """Recommends an initializer for the last layer of a branch without a norm."""
    if depth is None:
        return Recommendation(
            initializers.zeros(),
            "without normalization, branches that add up make the variance grow with "
            "depth; a last layer of zeros starts each branch closed.",
            _FIXUP,
        )
    scale = 1 / (2 * depth)
    if depth == 1:
        why = (
            "one branch is added: half of the variance keeps the sum near that of the "
        )
        why += "input."
    else:
        why = f"{depth} branches add up: each with 1/{2 * depth} of the variance keeps "
        why += "the sum near that of the input."
    return Recommendation(
        initializers.variance_scaling(scale, "fan_in", "truncated_normal"),
        why,
        _GPT2,
    )


@functools.lru_cache(maxsize=64)
def find_weight_variance(activation: str | Activation) -> tuple[float, str]:
    """Finds the Var[W] * fan_in that suits an activation, and the reason."""
    name = activation if isinstance(activation, str) else "the activation"
    try:
        variance = critical_weight_variance(activation)
        star = MeanField(activation, variance).fixed_point
        if star > 0 or activation in ("identity", "linear", "tanh", "sin", "hard_tanh"):
            return round(variance, 6), (
                f"at weight variance {variance:.3g} / fan_in {name} is critical: "
                "neither signal nor gradient shrinks or grows with depth"
            )
    except ValueError:
        pass
    except Exception:  # of the user's function: `gain` below says which
        if not callable(activation):
            raise
    function = ACTIVATIONS[activation] if isinstance(activation, str) else activation
    variance = gain_of(function) ** 2
    return round(variance, 6), (
        f"{name} leaves 1/{variance:.3g} of the second moment: weight variance "
        f"{variance:.3g} / fan_in makes up for it"
    )


def choose_builder(variance: float) -> Initializer:
    """Returns the named initializer with a weight variance, or else a scaled one."""
    if math.isclose(variance, 2, rel_tol=1e-4):
        return initializers.he_normal()
    if math.isclose(variance, 1, rel_tol=1e-4):
        return initializers.lecun_normal()
    scale = float(f"{variance:.4g}")
    return initializers.variance_scaling(scale, "fan_in", "truncated_normal")


def _choose_reference(activation: str | Activation, variance: float) -> str:
    if activation in ("relu", "leaky_relu", "relu6"):
        return _HE
    if activation == "selu":
        return _SELU
    if activation == "sin":
        return _SIREN
    if activation in ("identity", "linear"):
        return _LECUN
    if activation in ("tanh", "hard_tanh"):
        return _PENNINGTON
    return _POOLE

"""The tables of the page "Which initializer for what": what `recommend` says."""

import jaxinit
from jaxinit._gain import ACTIVATIONS
from jaxinit.signal.theory import profile

ALIASES = {"linear", "swish"}  # of identity and silu
DEPTHS = (10, 50)

# Layer, activation behind it, other arguments of `recommend`.
LAYERS = (
    ("dense", "relu", {}),
    ("dense", "tanh", {}),
    ("convolution", "relu", {"layer": "conv"}),
    ("convolution", "tanh", {"layer": "conv"}),
    ("depthwise convolution", "relu", {"layer": "depthwise"}),
    ("query, key, value projection", "identity", {"layer": "attention"}),
    ("from step to step of a recurrent layer", "tanh", {"layer": "recurrent"}),
    ("embedding", "identity", {"layer": "embedding"}),
    ("readout", "identity", {"layer": "output"}),
)
# Whether and how branches are added, and the same arguments.
BRANCHES = (
    ("plain, no norm", {}),
    ("a norm behind each layer", {"norm": "layer"}),
    ("last layer of a branch, no norm behind it", {"residual": True}),
    ("the same, 10 branches", {"residual": True, "depth": 10}),
    ("the same, 100 branches", {"residual": True, "depth": 100}),
    ("last layer of a branch, a norm behind it", {"residual": True, "norm": "batch"}),
)


def code(init):
    return f"`{init!r}`"


def sentence(reason):
    return f"{reason[0].upper()}{reason[1:].rstrip('.')}"


def write_advice():
    """Returns the rows of each table, by its heads."""
    return {
        ("layer", "behind it", "initializer", "why", "source"): by_layer(),
        ("behind the layer", "initializer", "Var[w] × fan_in", "std after 10 layers")
        + ("after 50", "gradient after 50"): by_activation(),
        ("layer before relu", "initializer", "why", "source"): by_branch(),
    }


def advise(activation, given):
    advice = jaxinit.recommend(activation, **given)
    return code(advice.initializer), sentence(advice.reason), advice.reference


def by_layer():
    return [
        (name, "–" if before == "identity" else before, *advise(before, given))
        for name, before, given in LAYERS
    ]


def by_branch():
    return [(name, *advise("relu", given)) for name, given in BRANCHES]


def by_activation():
    """Returns rows with what theory says of a plain stack of such layers."""
    rows = []
    for name in sorted(ACTIVATIONS.keys() - ALIASES):
        init = jaxinit.recommend(name).initializer
        variance = init.moments((1000, 1000)).variance * 1000
        stack = profile(name, variance, depth=max(DEPTHS))
        stds = [(stack.variance[n - 1] / stack.variance[0]) ** 0.5 for n in DEPTHS]
        factors = [*stds, stack.gradient[0] ** 0.5]
        numbers = [f"×{float(f'{factor:.2g}'):,.6g}" for factor in factors]
        rows.append((f"`{name}`", code(init), f"{variance:.4g}", *numbers))
    return rows

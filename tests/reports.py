"""Reports of signals that are made up: no model is run."""

import numpy as np

from jaxinit.signal import Layer, SignalReport

SEEDS = 4


def layer(path, std=1.0, gradient=1.0, **given):
    """A layer whose seeds differ by a hundredth, up and down in turn."""
    seeds = given.pop("seeds", SEEDS)
    each = 1 + 0.01 * (-1.0) ** np.arange(seeds) * (seeds > 1)
    units = np.random.default_rng(len(path)).normal(size=(seeds, 64))
    with np.errstate(invalid="ignore"):
        sample = std * units
    shares = dict.fromkeys(("activation_zeros", "dead", "saturated"), 0.0)
    activation = given.get("activation", "relu")
    forward = {"distance": 0.5} | (shares if activation else {})
    forward |= {name: given.pop(name) for name in list(shares) if name in given}
    forward |= {"distance": given.pop("distance", 0.5)}
    form = {"kind": "dense", "shape": (32, 64), "fan_in": 64, "activation": activation}
    form |= {"predicted": {}, "condition": "healthy"} | given
    return Layer(
        path,
        forward={name: np.full(seeds, value) for name, value in forward.items()}
        | {"std": std * each, "sample": sample},
        backward={"std": gradient * each, "norm": 8 * gradient * each},
        **form,
    )


def module(path, std=1.0, **given):
    return layer(path, std, kind="module", activation=None, fan_in=0, **given)


def report(*layers, findings=(), jacobian=True, seeds=SEEDS):
    square, largest = np.array([0.81, 1.21]), np.array([1.5, 2.5])
    values = {"mean_square": square, "largest": largest} if jacobian else {}
    return SignalReport(
        tuple(layers), tuple(findings), seeds, values, np.arange(float(seeds)), 100.0
    )


def chain(depth, condition="healthy", start=0, **given):
    """Layers whose signal shrinks by a thousandth, each."""
    return [
        layer(f"Dense_{i}", 1.5 * 0.999**i, condition=condition, **given)
        for i in range(start, start + depth)
    ]

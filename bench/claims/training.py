"""Claims of what initial weights do to training; all are comparisons of `jaxinit.lab`.

Imports of the lab wait until a claim is measured: its packages are an extra.
"""

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import numpy as np

import jaxinit
from bench.claims.claim import Claim, Quantity, between, near

if TYPE_CHECKING:
    from jaxinit.lab import Comparison

_GAUSSIAN = "variance_scaling(1.0, 'fan_in', 'normal')"
_HE = "variance_scaling(2.0, 'fan_in', 'normal')"
_LEARNED = 0.5  # share of the loss of guessing below which a run has learned


class _Branch(nn.Module):
    """x + scale · branch of one or two dense layers, in the form that `nn.scan` takes.

    Fixup's scalar biases are left to the biases of the layers.
    """

    width: int
    layers: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, None]:
        """Maps a signal to the next one; the None is for the scan."""
        scale = self.param("scale", jaxinit.ones(), (), x.dtype)
        z = nn.relu(nn.Dense(self.width, name="first")(x))
        if self.layers == 2:
            z = nn.Dense(self.width, name="second")(z)
        return x + scale * z, None


class Residual(nn.Module):
    """A residual perceptron without norms."""

    depth: int
    width: int
    layers: int = 2

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps inputs to logits."""
        x = nn.Dense(self.width, name="stem")(x)
        blocks = nn.scan(
            _Branch,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        x, _ = blocks(self.width, self.layers, name="blocks")(x)
        return nn.Dense(10, name="head")(nn.relu(x) if self.layers == 2 else x)


# Networks as `compare` takes them: by a name that can be imported.
TOY, SHALLOW, MIDDLE, DEEP = (Residual(depth, 64) for depth in (3, 10, 100, 1000))
REZERO, TOY_REZERO = Residual(32, 256, 1), Residual(3, 32, 1)


def _name(network: str) -> str:
    return f"{__name__}:{network}"


def _learned(result: "Comparison") -> np.ndarray:
    """Tells which runs have learned at the best rate.

    # [initializers, seeds]
    """
    loss = result.at_best(result.scores.loss)
    learned: np.ndarray = (loss < _LEARNED * result.task.chance).astype(float)
    return learned


def _measure_he_depth(quick: bool) -> list[Quantity]:
    from jaxinit import lab

    seeds, steps = (2, 2) if quick else (10, 400)

    def compare(depth: int) -> "Comparison":
        return lab.compare(
            [_GAUSSIAN, _HE],
            depth=min(depth, 4) if quick else depth,
            seeds=seeds,
            steps=steps,
            optimizer="momentum",
            learning_rates=(0.003, 0.01, 0.03),
        )

    result = compare(30)
    xavier, he = _learned(result)
    ratio = result.rows()[0].forward_ratio
    both = _learned(compare(22))
    what = "share of seeds that learn"
    return [
        near(
            "std, layer 30 over layer 1, Xavier",
            ratio,
            2**-14.5,
            within=0.15,
            says="2^−14.5",
        ),
        between(f"{what}, 30 layers, Xavier", xavier, high=0.1),
        between(f"{what}, 30 layers, He", he, 0.9),
        between(f"{what}, 22 layers, Xavier", both[0], 0.9),
        between(f"{what}, 22 layers, He", both[1], 0.9),
    ]


def _measure_fixup(quick: bool) -> list[Quantity]:
    from jaxinit import lab

    networks = {"SHALLOW": 10, "MIDDLE": 100, "DEEP": 1000}
    if quick:
        networks = {"TOY": 3}
    accuracy, diverged = {}, {}
    for network, depth in networks.items():
        small = f"stacked(variance_scaling({2 / depth!r}, 'fan_in', 'normal'))"
        zero = "**/second/kernel: zeros(); head/kernel: zeros()"
        fixup = f"{zero}; **/first/kernel: {small}; {_HE}"
        standard = f"blocks/*/kernel: stacked({_HE}); {_HE}"
        result = lab.compare(
            [fixup, standard],
            model=_name(network),
            seeds=2 if quick else 5,
            steps=21,  # an epoch of the digits
            optimizer="sgd",
            learning_rates=(0.03, 0.1),
        )
        accuracy[depth] = result.at_best(result.scores.test)[0]
        diverged[depth] = result.diverged[1].mean(axis=1)
    first, last = min(accuracy), max(accuracy)
    what = "accuracy after an epoch, Fixup"
    return [
        between(f"{what}, {first} blocks", accuracy[first], 0.5),
        near(
            f"{what}, {last} blocks over {first}",
            accuracy[last] / accuracy[first],
            1,
            within=0.1,
        ),
        between(f"share that diverges, He, {last} blocks", diverged[last], 0.99),
    ]


def _measure_rezero(quick: bool) -> list[Quantity]:
    from jaxinit import lab

    seeds, steps = (2, 10) if quick else (5, 205)
    rates = (3e-4, 1e-3, 3e-3)
    shared: dict[str, Any] = {"seeds": seeds, "steps": steps, "learning_rates": rates}
    kernels = f"blocks/*/kernel: stacked({_HE}); {_HE}"
    network = _name("TOY_REZERO" if quick else "REZERO")
    zero = lab.compare([f"**/scale: 0.0; {kernels}"], model=network, **shared)
    depth, width = (5, 32) if quick else (34, 256)
    plain = lab.compare([_HE], depth=depth, width=width, **shared)
    # The rate at which the median seed arrives first.
    ours, theirs = (
        np.minimum(result.first_steps()[0], steps) for result in (zero, plain)
    )
    ours, theirs = (a[:, np.median(a, axis=0).argmin()] for a in (ours, theirs))
    what = "steps to a loss of 0.5"
    return [
        between(f"{what}, plain over ReZero", theirs / ours, 1, says="faster"),
        between(f"{what}, plain over ReZero, the paper's factor", theirs / ours, 7, 15),
    ]


def _measure_hu(quick: bool) -> list[Quantity]:
    from jaxinit import lab

    def compare(depth: int, width: int) -> np.ndarray:
        result = lab.compare(
            [_GAUSSIAN, "orthogonal()"],
            depth=min(depth, 4) if quick else depth,
            width=min(width, 16) if quick else width,
            activation="identity",
            optimizer="sgd",
            seeds=2 if quick else 10,
            steps=2 if quick else 200,
            learning_rates=(0.0003, 0.001, 0.003, 0.01),
        )
        return _learned(result)

    narrow, wide, shallow = compare(100, 16), compare(100, 256), compare(8, 16)
    what = "share of seeds that learn, 200 steps"
    return [
        between(f"{what}, Gaussian, 100 layers of 16", narrow[0], high=0.5),
        between(f"{what}, Gaussian, 100 layers of 256", wide[0], 0.9),
        between(f"{what}, Gaussian, 8 layers of 16", shallow[0], 0.9),
        between(f"{what}, orthogonal, 100 layers of 16", narrow[1], 0.9),
    ]


def _measure_mup(quick: bool) -> list[Quantity]:
    from jaxinit import lab

    result = lab.transfer(
        widths=(8, 16) if quick else (64, 128, 256),
        parameterizations=("sp", "mup"),
        depth=3,
        lr=(2.0**-6, 2.0**-4) if quick else (2.0**-11, 2.0**-3),
        seeds=2 if quick else 3,
        steps=2 if quick else 100,
    )
    what = "log2 of the best Adam rate, change when the width doubles"
    ranges = {"sp": (-1.5, -0.5), "mup": (-0.3, 0.3)}
    said = {"sp": "−1", "mup": "0"}
    return [
        between(
            f"{what}, {name}",
            drift.slope,
            *ranges[name],
            says=f"about {said[name]}",
            interval=(drift.low, drift.high),
        )
        for name, drift in result.drifts.items()
    ]


CLAIMS = (
    Claim(
        name="he-depth",
        source="He, Zhang, Ren, Sun 2015, Figs. 2–3",
        link="https://arxiv.org/abs/1502.01852",
        claim="A relu network of 30 layers does not learn from Xavier's weights and "
        "learns from He's; one of 22 learns from both.",
        setup="relu layers of 64 on scikit-learn's digits, SGD with momentum, 400 "
        "steps, best of three rates, 10 seeds; learned: a loss below half of guessing. "
        "Xavier's law as the paper has it, N(0, 1/fan_in).",
        training=True,
        measure=_measure_he_depth,
    ),
    Claim(
        name="fixup",
        source="Zhang, Dauphin, Ma 2019, Fig. 3",
        link="https://arxiv.org/abs/1901.09321",
        claim="Residual networks without norms diverge under standard weights as they "
        "grow deep; with Fixup the accuracy after an epoch does not depend on depth.",
        setup="residual perceptrons of width 64, two layers a branch, 10, 100 and 1000 "
        "blocks, an epoch of the digits (21 steps), SGD, best of two rates, 5 seeds; "
        "rules of `compare`.",
        training=True,
        measure=_measure_fixup,
    ),
    Claim(
        name="rezero",
        source="Bachlechner, Majumder, Mao, Cottrell, McAuley 2020, §5 (7–15 times; "
        "from memory)",
        link="https://arxiv.org/abs/2003.04887",
        claim="A fully connected network of 32 layers trains 7 to 15 times faster as "
        "x + α relu(W x) with α = 0.",
        setup="32 hidden layers of 256 on the digits, Adam, best of three rates, 5 "
        "seeds; steps to a training loss of 0.5, beside plain relu layers from He's "
        "weights.",
        training=True,
        measure=_measure_rezero,
    ),
    Claim(
        name="hu",
        source="Hu, Xiao, Pennington 2020, Theorems 1, 2, Fig. 1",
        link="https://arxiv.org/abs/2001.05992",
        claim="Deep linear networks learn from orthogonal weights at any width, from "
        "Gaussian ones only if the width grows with the depth.",
        setup="linear layers on the digits, SGD, 200 steps, best of four rates, 10 "
        "seeds; learned: a loss below half of guessing.",
        training=True,
        measure=_measure_hu,
    ),
    Claim(
        name="mup",
        source="Yang, Hu, Babuschkin, et al. 2022, Fig. 1",
        link="https://arxiv.org/abs/2203.03466",
        claim="Under muP the best learning rate does not depend on the width; under "
        "the standard parameterization it falls.",
        setup="relu perceptrons of 3 layers, 64, 128 and 256 wide, on the digits, "
        "Adam, 100 steps, rates 2^−11 to 2^−3, 3 seeds; `lab.transfer`.",
        training=True,
        measure=_measure_mup,
    ),
)

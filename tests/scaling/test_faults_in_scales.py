"""Coordinate checks of real scales: faults that are planted in them are named.

Each fault is one wrong factor, put into the rows of a `Scale` or around its optimizer.
"""

import dataclasses

import flax.linen as nn
import jax
import optax
import pytest
from planted import TEXT, TOKENS, Factors, Form, Perceptron, Tower, X

import jaxinit
from jaxinit import scaling

pytestmark = pytest.mark.usefixtures("quick_compiler", "standard_promotion")

RULES = [("role:kernel", jaxinit.he_normal()), ("role:gain", 1.0)]
RULES += [("role:embedding", jaxinit.normal()), ("*", 0.0)]
# Nothing is scaled by the models themselves, and branches are not divided either.
PLAIN = Form(table=lambda path, m, depth: Factors(), branch=0.0)


class Reader(nn.Module):
    """Attention in a residual branch, between a table and a readout."""

    width: int

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(TOKENS, self.width, name="embed")(tokens)
        y = nn.LayerNorm(use_bias=False, name="norm")(x)
        attend = nn.MultiHeadAttention(num_heads=1, use_bias=False, name="attend")
        x = nn.LayerNorm(use_bias=False, name="last")(x + attend(y))
        return nn.Dense(TOKENS, use_bias=False, name="readout")(x)


# Updates of queries meet keys as the size of a head, but random parts of them, which
# grow with the number of tokens, as its root. Heads above 4 tokens show the first.
FEW = TEXT[:1, :4]
# How a model is made, the sizes, the batch, what grows, and the number of seeds.
NETS = {
    "net": (lambda width: Perceptron(width, PLAIN), (64, 256), X, "width", 3),
    "reader": (Reader, (64, 512), FEW, "width", 8),
    "tower": (lambda depth: Tower(32, PLAIN, depth), (2, 8), X, "depth", 3),
}


def adamw(scale, **settings):
    return scale.adamw(1e-2, **({"weight_decay": 0.0} | settings))


def check(net, parameterize, optimizer=adamw, **settings):
    make, sizes, x, along, seeds = NETS[net]
    settings = {"rules": RULES, "steps": 3, "seeds": seeds, "along": along} | settings
    settings |= {"key": jax.random.key(0), "scaling": parameterize}
    return scaling.coordinate_check(make, sizes, x, optimizer=optimizer, **settings)


def plant(path, how=scaling.mup, **wrong):
    """A parameterization with wrong factors at a path."""

    def parameterize(base, target, *x):
        scale = how(base, target, *x)
        row = scale[path]
        if "lr" in wrong:
            wrong_lr = wrong["lr"](row)
            changed = {"lr": dict.fromkeys(row.lr, wrong_lr)}
        else:
            changed = {name: of(row) for name, of in wrong.items()}
        rows = [
            dataclasses.replace(each, **changed) if each is row else each
            for each in scale.rows
        ]
        own = scale.forward, scale.notes, scale._base
        return scaling.Scale(scale.parameterization, rows, *own)

    return parameterize


def one(row):
    return 1.0


def scale_muon_twice(scale):
    return optax.chain(scale.muon(1e-2), scale.lr("adam"))


# By what is wrong: the net, the scaling, the optimizer; the condition, and the layers.
FAULTS = {
    "readout init": (
        *("net", plant("readout/kernel", std=one), adamw),
        *("start", ["readout"]),
    ),
    "hidden init": (
        *("net", plant("second/kernel", std=one), adamw),
        *("start", ["second"]),
    ),
    "input rate": (
        *("net", plant("enter/kernel", lr=lambda row: 1 / row.width_out), adamw),
        *("update", ["enter"]),
    ),
    "hidden rate": (
        *("net", plant("first/kernel", lr=one), adamw),
        *("update", ["first"]),
    ),
    "readout rate": (
        *("net", plant("readout/kernel", lr=one), adamw),
        *("update", ["readout"]),
    ),
    "bias rate": (
        *("net", plant("first/bias", lr=lambda row: 1 / row.width_out), adamw),
        *("update", ["first/bias"]),
    ),
    "ε": (
        *("net", plant("first/kernel", eps=one), lambda scale: adamw(scale, eps=0.3)),
        *("update", ["first"]),
    ),
    "weight decay": (
        *("net", plant("second/kernel", decay=one)),
        *(lambda scale: adamw(scale, weight_decay=0.1), "decay", ["second"]),
    ),
    "Muon scaled twice": (
        *("net", scaling.mup, scale_muon_twice),
        *("update", ["first", "second", "readout"]),
    ),
    "embedding rate": (
        *("reader", plant("embed/embedding", lr=lambda row: row.width_out), adamw),
        *("update", ["embed/embedding"]),
    ),
    "attention": (
        "reader",
        lambda *models: scaling.mup(*models, attention="size"),
        *(adamw, "attention", ["attend/q·k"]),
    ),
    "branches": (
        *("tower", scaling.mup, adamw),
        *("stream", ["block/down + stream"]),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_factor_of_a_scale_is_found(name):
    net, parameterize, optimizer, condition, paths = FAULTS[name]
    report = check(net, parameterize, optimizer)
    print(f"| {name} | {report.findings[0].reason} |")
    assert [x.path for x in report.findings] == paths
    assert {x.condition for x in report.findings} == {condition}


@pytest.fixture(scope="module")
def traced():
    """The program of a model is traced by a check alone; without steps to compile."""
    seen = []

    class Net(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x):
            if not self.is_initializing():
                seen.append(self.width)
            x = nn.relu(nn.Dense(self.width, name="enter")(x))
            return nn.Dense(3, name="readout")(x)

    settings = {"key": jax.random.key(0), "steps": 1, "seeds": 2, "base": 16}
    scales = []

    def parameterize(base, target, *x):
        scales.append(scaling.mup(base, target, *x))
        return scales[-1]

    with jax.numpy_dtype_promotion("standard"):
        report = scaling.coordinate_check(
            Net,
            (32, 128),
            X,
            scaling=parameterize,
            optimizer=lambda scale: scale.adamw(1e-2),
            **settings,
        )
    return report, scales, seen, Net


def test_each_model_is_traced_once(traced):
    _, scales, seen, net = traced
    assert sorted(seen) == [16, 32, 128]
    assert scales[1] == scaling.mup(net(16), net(128), X)


def test_what_a_model_draws_is_scaled(traced):
    """The base's standard deviation times the factor, whatever law the model has."""
    report, *_ = traced
    assert not report.notes
    values = {row.path: row.measured.values for row in report.rows}
    start = values["readout"]["output"][..., 0] / values["readout"]["input"][..., 0]
    small, large = start.mean(1)
    assert large / small == pytest.approx(0.5, rel=0.3)  # 1 as the model draws it

"""Coordinate checks name the fault: one wrong factor in a parameterization by hand."""

import dataclasses
import re
from pathlib import Path

import jax
import pytest
from planted import (
    TEXT,
    Form,
    Perceptron,
    Tower,
    Transformer,
    X,
    adamw,
    completep,
    everett,
    muon,
    mup,
    sp,
)

from jaxinit.scaling._coordinate_check import coordinate_check

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compiler", "standard_promotion"),
]

HIDDEN = ["query", "key", "value", "out", "up", "down"]
NETS = {Perceptron: ((64, 256), X), Transformer: ((64, 256), TEXT)}
DEPTHS = (2, 8)


def check(net, form, sizes=None):
    """Over depth for a tower, over width for the others."""
    deep = net is Tower
    widths, x = (DEPTHS, X) if deep else NETS[net]

    def make(size):
        return Tower(64, form, size) if deep else net(size, form)

    def optimize(size):
        if form.muon:
            return muon(form, size)
        return adamw(form, 64, size) if deep else adamw(form, size)

    return coordinate_check(
        make,
        sizes or widths,
        x,
        key=jax.random.key(0),
        scaling=lambda base, target, *x: target.depth if deep else target.width,
        optimizer=optimize,
        along="depth" if deep else "width",
        seeds=4,
        steps=3,
    )


def change(**factors):
    """A fault: these factors in place of those of the table."""
    return lambda own, m, depth: own._replace(
        **{name: of(m, depth) for name, of in factors.items()}
    )


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("table", [mup, everett])
def test_right_tables_transfer(net, table):
    """CompleteP is μP over widths."""
    report = check(net, Form(table=table, wd=0.1))
    report.assert_transfers()
    aligned = [x.path for x in report.findings]
    # The readout of the standard parameterization points where features move.
    assert aligned == (["readout"] if table is everett else [])


def test_completep_transfers_over_depth():
    check(Tower, Form(table=completep, branch=1.0)).assert_transfers(allow=())


@pytest.mark.parametrize("net", NETS)
def test_one_rate_for_all_is_accused(net):
    report = check(net, Form(table=sp))
    accused = {x.path for x in report.findings if x.condition == "update"}
    names = {"first", "second", "readout"}
    if net is Transformer:
        names = {f"block_{i}/{name}" for i in (0, 1) for name in HIDDEN} | {"readout"}
    assert names - accused <= {"block_0/query", "block_0/key"}  # or more than one way
    assert accused <= names


ONE = {"lr": lambda m, depth: 1.0}
# The net, what is wrong, the condition, and the layers that have it.
FAULTS = {
    "readout init": (
        *(Perceptron, {"readout/kernel": change(std=lambda m, depth: 1.0)}, {}),
        *("start", ["readout"]),
    ),
    "readout rate": (
        *(Perceptron, {"readout/kernel": change(**ONE)}, {}),
        *("update", ["readout"]),
    ),
    "hidden init": (
        *(Perceptron, {"second/kernel": change(std=lambda m, depth: 1.0)}, {}),
        *("start", ["second"]),
    ),
    "hidden rate": (
        *(Perceptron, {"first/kernel": change(**ONE)}, {}),
        *("update", ["first"]),
    ),
    "bias rate": (
        *(Perceptron, {"first/bias": change(lr=lambda m, depth: 1 / m)}, {}),
        *("update", ["first/bias"]),
    ),
    "ε": (
        *(Perceptron, {"first/kernel": change(eps=lambda m, depth: 1.0)}, {"eps": 0.3}),
        *("update", ["first"]),
    ),
    "decay": (
        *(Perceptron, {"second/kernel": change(decay=lambda m, depth: 1.0)}),
        *({"wd": 0.1}, "decay", ["second"]),
    ),
    "Muon scaled twice": (
        *(Perceptron, {}, {"muon": lambda width: 64 / width}),
        *("update", ["first", "second"]),
    ),
    "embedding rate": (
        *(Transformer, {"embed/embedding": change(lr=lambda m, depth: m)}, {}),
        *("update", ["embed/embedding"]),
    ),
    "attention": (
        *(Transformer, {}, {"head": 0.5}),
        *("attention", ["block_0/q·k"]),
    ),
    "branches": (
        *(Tower, {}, {"table": completep, "branch": 0.0}),
        *("stream", ["block/down + stream"]),
    ),
    "rate by depth": (
        *(Tower, {"block/up/kernel": change(lr=lambda m, depth: depth)}),
        *({"table": completep, "branch": 1.0}, "update", ["block/up"]),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_one_wrong_factor_is_found(name):
    net, faults, settings, condition, paths = FAULTS[name]
    report = check(net, dataclasses.replace(Form(), faults=faults, **settings))
    assert [x.path for x in report.findings] == paths
    assert {x.condition for x in report.findings} == {condition}
    with pytest.raises(AssertionError, match=re.escape(paths[0])):
        report.assert_transfers()


def test_the_readme_has_no_more_than_these():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert int(re.search(r"(\d+) planted", readme)[1]) <= len(FAULTS)


def test_muon_transfers():
    check(Perceptron, Form(muon=lambda width: 1.0)).assert_transfers(allow=())

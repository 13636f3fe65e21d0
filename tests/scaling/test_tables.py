"""The cells of each table, written apart as exponents of the growth."""

import dataclasses
import functools

import jax.numpy as jnp
import pytest

from jaxinit._structure.result import TracedParameter
from jaxinit.scaling import _tables as tables
from jaxinit.scaling._row import ScaledParameter

H = 0.5
COLUMNS = ("std", "forward", "sgd", "adam", "eps", "decay", "muon")
MUP = {  # Tensor Programs V, table 8; ε, decay and Muon: docstring of `_tables`
    "embedding": (0, 0, 1, 0, -1, 0, 0),
    "input": (0, 0, 1, 0, -1, 0, H),
    "vector": (0, 0, 1, 0, -1, 0, 0),
    "hidden": (-H, 0, 0, -1, -1, 1, 0),
    "readout": (0, -1, 1, 0, -1, 0, 0),
}
STANDARD = {  # Everett and others
    "embedding": (0, 0, H, 0, -H, 0, 0),
    "input": (0, 0, H, 0, -H, 0, H),
    "vector": (0, 0, H, 0, -H, 0, 0),
    "hidden": (-H, 0, -H, -1, -H, 1, 0),
    "readout": (-H, 0, -1, -1, 0, 1, -1),
}
UNALIGNED = {
    **STANDARD,
    "hidden": (-H, 0, 0, -H, -H, H, 0),
    "readout": (-H, 0, -H, -H, 0, H, -H),
}
NTK = {
    "hidden": (0, -H, H, -H, -1, H, H),
    "readout": (0, -H, 0, -H, -H, H, -H),
}
MEAN_FIELD = {
    "hidden": (0, -H, 1, -H, -3 * H, H, H),
    "readout": (0, -1, 1, 0, -1, 0, 0),
}
NINE = (-H, H, 0, -H, -H, H)
CELLS = {
    "mup": (tables.mup, MUP),
    "mup, table 3": (
        functools.partial(tables.mup, form=3),
        {**MUP, "readout": (-1, 0, -1, -1, 0, 1, -1)},
    ),
    "mup, table 9": (
        functools.partial(tables.mup, form=9),
        {
            "embedding": (*NINE, -H),
            "input": (*NINE, 0),
            "vector": (*NINE, -H),
            "hidden": MUP["hidden"],
            "readout": (-H, -H, 0, -H, -H, H, -H),
        },
    ),
    "standard": (tables.standard, STANDARD),
    "standard, no alignment": (
        functools.partial(tables.standard, alignment="none"),
        UNALIGNED,
    ),
    "ntk": (tables.ntk, STANDARD | NTK),
    "ntk, no alignment": (
        functools.partial(tables.ntk, alignment="none"),
        {
            **STANDARD,
            "hidden": (0, -H, 1, 0, -1, 0, H),
            "readout": (0, -H, H, 0, -H, 0, 0),
        },
    ),
    "mean field": (tables.mean_field, MUP | MEAN_FIELD),
    "mean field, no alignment": (
        functools.partial(tables.mean_field, alignment="none"),
        {
            **MUP,
            "hidden": (0, -H, 3 * H, 0, -3 * H, 0, H),
            "readout": (0, -1, 3 * H, H, -1, -H, H),
        },
    ),
    "u-muP": (
        tables.u_mup,
        {**MUP, **MEAN_FIELD, "embedding": (0, 0, H, -H, -1, H, -H)},
    ),
}


def make_row(kind, m_in=1.0, m_out=1.0, shape=(1, 1), base=(1, 1)):
    """Returns a row without factors, of a kernel (inputs, outputs)."""

    def trace(shape):
        axes = {"in_axis": (0,), "out_axis": (1,)} if kind != "vector" else {}
        return TracedParameter(
            path="w", shape=shape, dtype=jnp.float32, roles=(kind,), **axes
        )

    return ScaledParameter(
        path="w",
        base="w",
        traced=trace(shape),
        traced_base=trace(base),
        kind=kind,
        in_block=False,
        width_in=m_in,
        width_out=m_out,
    )


def grow(kind, m):
    """Returns the row of a parameter of which all widths grow m-fold."""
    m_in = m if kind in ("hidden", "readout") else 1
    return make_row(kind, m_in, m if kind != "readout" else 1)


def read(factors):
    return tuple(getattr(factors, name) for name in COLUMNS)


@pytest.mark.parametrize("name", CELLS)
def test_cells(name):
    table, cells = CELLS[name]
    assert set(cells) == set(MUP)
    for kind, exponents in cells.items():
        for m in (1, 2, 4, 8, 0.5):
            expected = [m**exponent for exponent in exponents]
            assert read(table(grow(kind, m))) == pytest.approx(expected), (kind, m)


def test_inputs_and_outputs_of_a_hidden_weight_count_apart():
    row = make_row("hidden", 4, 2)
    found = tables.mup(row)
    assert read(found) == pytest.approx((H, 1, H, 1 / 4, 1 / 2, 4, H**0.5))
    assert tables.standard(row).eps == 2**-0.5


@pytest.mark.parametrize("alpha", [0.5, 0.75, 1.0])
def test_depth(alpha):
    """CompleteP, table 1; SGD and Muon derived."""
    for depth in (1, 2, 8):
        for kind in MUP:
            flat = tables.mup(grow(kind, 4))
            deep = flat.deepen(depth, alpha)
            step = depth ** (alpha - 1)
            expected = dataclasses.replace(
                flat,
                adam=flat.adam * step,
                muon=flat.muon * step,
                eps=flat.eps / depth**alpha,
            )
            assert read(deep) == pytest.approx(read(expected))
            assert deep.sgd == pytest.approx(flat.sgd * depth ** (2 * alpha - 1))


def in_effect(table, kind, m=4):
    factors = table(grow(kind, m))
    return factors.absorb(factors.forward)


def test_absorption():
    """θ moves as abc-symmetry has it, and equal parameterizations become equal."""
    one = tables.Factors(std=2.0, forward=0.5, adam=3.0, muon=5.0, eps=7.0, decay=11.0)
    assert one.absorb(0.5) == tables.Factors(
        std=1.0, forward=1.0, adam=1.5, muon=2.5, eps=14.0, decay=22.0
    )
    assert one.absorb(0.5).sgd == one.sgd * 0.25
    assert read(one.expose(0.3).absorb(0.3)) == pytest.approx(read(one))
    for kind in MUP:
        effects = {name: in_effect(table, kind) for name, (table, _) in CELLS.items()}
        assert {effect.forward for effect in effects.values()} == {1.0}
        for name, other in [
            ("mup, table 3", "mup"),
            ("mup, table 9", "mup"),
            ("mean field", "mup"),
            ("ntk", "standard"),
            ("ntk, no alignment", "standard, no alignment"),
            *([("u-muP", "mup")] if kind != "embedding" else []),
        ]:
            assert read(effects[name]) == pytest.approx(read(effects[other]))


SIZES = [((16, 32), (128, 64)), ((8, 64), (8, 512)), ((64, 10), (256, 10))]
SIZES += [((16, 16), (128, 128)), ((8, 4), (64, 4))]


@pytest.mark.parametrize(("base", "target"), SIZES)
def test_spectral(base, target):
    """Yang, Simon, Bernstein, parametrization 1: from fans alone."""

    def law(fan_in, fan_out):
        std = min(1, (fan_out / fan_in) ** 0.5) / fan_in**0.5
        return std, fan_out / fan_in, 1 / fan_in, (fan_out / fan_in) ** 0.5

    for kind in ("input", "hidden", "readout"):
        found = tables.spectral(make_row(kind, shape=target, base=base))
        std, sgd, adam, muon = (
            new / old for new, old in zip(law(*target), law(*base), strict=True)
        )
        muon = muon if kind != "readout" else adam
        expected = (std, 1, sgd, adam, base[1] / target[1], 1 / adam, muon)
        assert read(found) == pytest.approx(expected)


def test_spectral_of_tables_and_vectors():
    for kind in ("embedding", "vector"):
        found = tables.spectral(make_row(kind, 1, 4, (20, 64), (20, 16)))
        assert read(found) == (1, 1, 4, 1, 1 / 4, 1, 1)

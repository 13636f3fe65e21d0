"""Transfer of learning rates: what is trained, where the best rate lies, its drift."""

import csv
import dataclasses
import io
import json
import re
import weakref

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from commands import refusal, write_models
from flax import nnx
from scales import Scale, mup

import jaxinit
from jaxinit import lab
from jaxinit._initializer import Initializer
from jaxinit._result import plain
from jaxinit.cli import main
from jaxinit.lab import TransferResult
from jaxinit.lab._result.drift import (
    LOST,
    average_ends,
    find_best,
    find_diverged,
    measure_drift,
)
from jaxinit.lab._show._transfer_table import list_remarks
from jaxinit.lab._train import _interrupts as interrupts
from jaxinit.lab._train.grid import Grid
from jaxinit.lab._transfer import train_sweep
from jaxinit.lab._tried._network import Network
from jaxinit.lab._tried._sweep import _list_constants, design_sweep
from jaxinit.lab._tried.optimizers import build_optimizer

pytestmark = pytest.mark.usefixtures("quick_compiler", "short_blocks")

WIDTHS = (8, 32)
TINY = {"depth": 2, "seeds": 2, "steps": 10, "batch_size": 8}
RATES = (2**-6, 1.0)


@pytest.fixture(scope="module")
def short_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxinit.lab._train.grid._LONGEST_BLOCK", 5)
        yield


@pytest.fixture(scope="module")
def steps_seen():
    return []


@pytest.fixture(scope="module")
def result(task, steps_seen):
    """Two widths of a perceptron."""
    return lab.transfer(
        data=task,
        widths=WIDTHS,
        parameterizations=[mup],
        lr=RATES,
        progress=lambda *steps: steps_seen.append(steps),
        **TINY,
    )


def test_all_is_trained_and_told(result, steps_seen):
    assert steps_seen == [(5, 20), (10, 20), (15, 20), (20, 20)]
    shapes = {key: losses.shape for key, losses in result.losses.items()}
    assert shapes == {("mup", 8): (2, 7), ("mup", 32): (2, 7)}
    assert not result.interrupted and result.last_steps == 5
    for row, width in zip(result.rows, WIDTHS, strict=True):
        assert row.parameterization == "mup" and row.size == width
        assert row.best.loss < 0.6 and row.carried >= row.best.loss
    assert re.match(r"Under mup (log2 of|it cannot be told)", result.answer)


def test_a_cell_is_trained_as_by_hand(task, result):
    """The last block of one cell under the scale, written out with optax."""
    experiment = result.sweep.experiments["mup", 32]
    (drawn,) = experiment.settings.initializers
    key, x, y = jax.random.key(1), jnp.asarray(task.x_train), jnp.asarray(task.y_train)
    params = experiment.network.init(key, x[:1])["params"]
    params = jaxinit.reinit(key, params, drawn.rules, structure=drawn.structure)
    stddev = params["last"]["Dense_0"]["kernel"].std() * (32 / 2) ** 0.5
    assert abs(stddev - 0.5) < 0.12  # (8 / 32)^½, to within 3 / sqrt(2 · 64)
    adam = optax.adam(2.0**-4)

    @jax.jit
    def step(params, state, rows):
        def compute_loss(params):
            z = experiment.network.apply({"params": params}, x[rows])
            return optax.softmax_cross_entropy_with_integer_labels(z, y[rows]).mean()

        loss, gradient = jax.value_and_grad(compute_loss)(params)
        change, state = adam.update(gradient, state, params)
        last = change["last"]["Dense_0"]
        last["kernel"] = last["kernel"] / 4  # 32 / 8
        return optax.apply_updates(params, change), state, loss

    generator, losses, state = np.random.default_rng(0), [], adam.init(params)
    while len(losses) < 10:
        for rows in generator.permutation(len(x))[:24].reshape(3, 8):
            with jax.numpy_dtype_promotion("standard"):
                params, state, loss = step(params, state, rows)
            losses.append(loss)
    found = result.losses["mup", 32][1, 2]  # seed 1, 2^-4
    np.testing.assert_allclose(found, np.mean(losses[5:10]), rtol=1e-4)


@pytest.mark.slow
def test_parameterizations_are_one_at_the_base(task):
    found = lab.transfer(
        data=task,
        widths=WIDTHS,
        parameterizations=["sp", mup],
        lr=RATES,
        **TINY | {"depth": 4},
    )
    assert list(found.losses) == [
        (name, width) for width in WIDTHS for name in ("sp", "mup")
    ]
    sp, scaled = (found.losses[name, 8] for name in ("sp", "mup"))
    np.testing.assert_allclose(sp, scaled, rtol=1e-5)
    sp, scaled = (found.losses[name, 32] for name in ("sp", "mup"))
    assert (np.abs(sp / scaled - 1) > 0.02).mean() > 0.5
    assert [row[:2] for row in found.rows] == [
        (name, width) for name in ("sp", "mup") for width in WIDTHS
    ]


def design(task, **given):
    """Designs a sweep of tiny networks."""
    named = {
        "model": "mlp",
        "data": task,
        "task": None,
        "widths": WIDTHS,
        "depths": None,
        "base": None,
        "parameterizations": ["sp"],
        "initializer": "he_normal()",
        "lr": RATES,
        "lr_step": 2.0,
    }
    own = {name: given.pop(name, value) for name, value in named.items()}
    return design_sweep(**own, settings=TINY | given)


def test_notes_of_a_scale_are_remarks(task, result):
    def noted(base, target):
        scale = mup(base, target)
        scale.notes = ("Classes grow, too.",)
        return scale

    sweep = design(task, parameterizations=[noted])
    assert sweep.notes == ("noted: Classes grow, too.",)
    assert sweep.notes[0] in list_remarks(dataclasses.replace(result, sweep=sweep))


def test_what_is_drawn_is_no_constant():
    """Also where it has a single entry."""

    def init(key, x):
        drawn = jax.random.normal(key, (1,))
        return {"params": {"drawn": drawn, "gain": jnp.ones(1), "bias": jnp.zeros(3)}}

    rules = _list_constants(Network(init, None, None), jnp.ones((2, 3)))
    assert [(pattern.args[0], value) for pattern, value in rules] == [
        ("bias", 0.0),
        ("gain", 1.0),
    ]


@pytest.mark.slow
def test_one_grid_is_in_memory_at_a_time(result, monkeypatch):
    alive = weakref.WeakSet()

    class Counted(Grid):
        def __init__(self, *given, **more):
            assert not alive
            super().__init__(*given, **more)
            alive.add(self)

    monkeypatch.setattr("jaxinit.lab._transfer.Grid", Counted)
    again = train_sweep(result.sweep, lambda moment: None)
    for key, losses in result.losses.items():
        np.testing.assert_array_equal(again.losses[key], losses)


def test_a_diverged_run_counts_at_the_base_rate_as_elsewhere(result):
    place = result.rows[0].best.place
    diverged = {key: each.copy() for key, each in result.diverged.items()}
    diverged["mup", 32][0, place] = True
    row = dataclasses.replace(result, diverged=diverged).rows[1]
    other = result.losses["mup", 32][1, place]
    expected = (LOST * result.sweep.task.chance + other) / 2
    np.testing.assert_allclose(row.carried, expected)


# Shown and written.


def test_the_result_has_the_manner_of_all(result):
    assert repr(result) == "TransferResult(1 parameterization × 2 widths × 2 seeds)"
    answer, blank, heads, *_ = str(result).splitlines()
    assert answer == result.answer and not blank
    assert heads.split()[:2] == ["parameterization", "width"]
    page = result._repr_html_()
    assert page.startswith('<div class="jaxinit-report">') and "<td" in page
    told = json.loads(result.to_json())
    assert told == plain(json.loads(json.dumps(result.to_dict(), default=list)))
    assert told["sizes"] == [8, 32] and len(told["cells"]) == 28
    assert told["settings"]["depth"] == 2 and "width" not in told["settings"]
    lines = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert len(lines) == 28 and lines[0]["width"] == "8" and lines[0]["seed"] == "0"
    rate = float(lines[1]["learning_rate"])
    assert rate == 2.0**-5 and float(lines[1]["loss"]) == result.losses["mup", 8][0, 1]


@pytest.mark.slow
def test_a_plot_and_a_page(result, tmp_path):
    figure = result.plot()
    (axis,) = figure.axes
    assert axis.get_title() == "mup"
    assert {"8", "32"} <= {line.get_label() for line in axis.lines}
    files = result.save(tmp_path / "new", "jaxinit transfer --seeds 2")
    assert [file.name for file in files] == [
        *("results.json", "results.csv", "loss.png", "index.html")
    ]
    page = (tmp_path / "new" / "index.html").read_text()
    assert "jaxinit transfer --seeds 2" in page and page.count("<svg") == 1
    assert not re.search(r'(?:src|href)="(?!#)', page) and "http://" not in page
    assert json.loads((tmp_path / "new" / "results.json").read_text())["base"] == 8


# Where the best rate lies.

EXPONENTS = tuple(range(-8, 1))


def bowl(best, seeds=3, spread=0.0, curve=0.3):
    """Losses that a parabola describes, in logarithms. # [seeds, rates]"""
    places = np.array(EXPONENTS) - best + spread * np.arange(-1, seeds - 1)[:, None]
    return np.exp(curve * places**2 - 3)


def test_best_rates_lie_between_those_tried():
    for place in (-5.0, -4.7, -3.55):
        best = find_best(bowl(place), EXPONENTS, chance=10.0)
        assert best.state == "inside" and abs(best.exponent - place) < 1e-9
        assert EXPONENTS[best.place] == round(place)


def test_where_many_rates_do_as_well_all_of_them_are_fitted():
    """The lowest of a flat valley is chance; what lies behind a wall does not count."""
    losses = bowl(-4.3, seeds=1, curve=0.002)
    losses[0, 2] *= 0.99  # at -6, the lowest now, by noise
    best = find_best(losses, EXPONENTS, chance=10.0)
    assert best.place == 2 and abs(best.exponent + 4.3) < 0.5
    steep = bowl(-4.7, seeds=1)
    steep[0, -1] = steep.min()  # as low, far away
    best = find_best(steep, EXPONENTS, chance=10.0)
    assert abs(best.exponent + 4.7) < 1e-9


def test_ends_of_the_grid_and_what_does_not_train_are_told():
    for place, state in ((-9.2, "lowest"), (1.2, "highest")):
        best = find_best(bowl(place), EXPONENTS, chance=10.0)
        assert best.state == state and best.exponent in (-8, 0)
    none = find_best(np.full((2, 9), 2.29), EXPONENTS, chance=2.3)
    assert none.state == "none" and np.isnan(none.exponent)
    lost = bowl(-4.0)
    lost[1, 5:] = np.nan  # one seed diverges above the best rate
    best = find_best(lost, EXPONENTS, chance=2.3)
    assert best.state == "inside" and -4.5 <= best.exponent < -4
    lost[0, 4] = np.inf
    assert find_best(lost, EXPONENTS, chance=2.3).place == 3


def test_a_drift_is_the_slope_over_the_sizes_inside():
    sizes, slope = (64, 128, 256, 512), -0.7
    losses = [bowl(-2 + slope * i, spread=0.1) for i in range(4)]
    drift = measure_drift(losses, sizes, EXPONENTS, chance=10.0)
    assert abs(drift.slope - slope) < 0.01 and drift.sizes == sizes
    assert drift.low < slope < drift.high and drift.high - drift.low < 0.5
    alone = measure_drift([x[:1] for x in losses], sizes, EXPONENTS, chance=10.0)
    assert np.isnan(alone.low) and np.isnan(alone.high)
    losses[3] = bowl(-9.5)
    drift = measure_drift(losses, sizes, EXPONENTS, chance=10.0)
    assert drift.sizes == (64, 128, 256) and abs(drift.slope - slope) < 0.01
    few = measure_drift(losses[2:], sizes[2:], EXPONENTS, chance=10.0)
    assert np.isnan(few.slope) and few.sizes == (256,)


def test_intervals_cover_what_seeds_change():
    """The drift of a law whose best rates vary by seed is in 95 % of intervals."""
    generator, inside = np.random.default_rng(0), 0
    for _ in range(60):
        moves = generator.normal(0, 0.2, (4, 2))
        losses = [
            np.concatenate([bowl(-4 + move, seeds=1, spread=0) for move in row])
            for row in moves
        ]
        drift = measure_drift(losses, (1, 2, 4, 8), EXPONENTS, chance=10.0)
        inside += drift.low <= 0 <= drift.high
    assert inside >= 51  # of 60; 57 are expected, with a deviation of 1.7


def test_ends_are_averages_of_blocks():
    curves = np.arange(40.0).reshape(2, 20)
    ends, steps = average_ends(curves, steps=200)
    assert ends.tolist() == [18.5, 38.5] and steps == 20
    curves[1, 3] = np.nan
    assert find_diverged(curves, ends, chance=10.0).tolist() == [False, True]
    assert find_diverged(curves, ends, chance=9.0).tolist() == [True, True]


# Networks and optimizers.


class Net(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(self.width)(x))
        return nn.Dense(2)(nn.relu(x))


class NnxNet(nnx.Module):
    def __init__(self, width, rngs):
        self.one = nnx.Linear(3, width, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.two = nnx.Linear(width, 2, rngs=rngs)

    def __call__(self, x):
        return self.two(self.drop(nnx.relu(self.one(x))))


def in_nnx(width):
    return lambda rngs: NnxNet(width, rngs)


FEW = {"seeds": 1, "steps": 2, "batch_size": 8, "lr": (0.01, 0.04), "widths": (4, 8)}


@pytest.mark.slow
@pytest.mark.parametrize("factory", [Net, in_nnx])
def test_factories_of_users(task, factory):
    found = lab.transfer(factory, data=task, parameterizations=["sp", mup], **FEW)
    assert len(found.rows) == 4 and np.isfinite(found.losses["mup", 8]).all()
    rules = found.sweep.experiments["sp", 8].settings.initializers[0]
    assert {"input", "readout"} <= {
        r for row in rules.structure.values() for r in row.roles
    }


@pytest.mark.slow
def test_a_transformer_and_depths(task):
    sizes = {"model": "transformer", "task": "text", "depth": 1, "norm": "layer"}
    found = lab.transfer(**sizes, parameterizations=["sp"], **FEW)
    assert [row.size for row in found.rows] == [4, 8]
    few = {**FEW, "depths": (2, 4), "width": 4}
    few.pop("widths")
    found = lab.transfer(data=task, parameterizations=["sp"], **few)
    assert found.sweep.varied == "depth" and "doubling of the depth" not in repr(found)
    assert [e.settings.depth for e in found.sweep.experiments.values()] == [2, 4]


@pytest.mark.parametrize(
    "spec", ["adam(b1=0.8)", "adamw(weight_decay=0.1)", "lion", "momentum"]
)
def test_optimizers_have_factors(spec):
    """Where all factors are 1, they are the lab's own."""

    class One(Scale):
        def __init__(self):
            self.growth = {}

    params = {"w": jnp.ones((2, 3))}
    found = []
    for scale in (None, One()):
        optimizer = build_optimizer(spec, scale=scale)(0.1)
        state = optimizer.init(params)
        found.append(optimizer.update(params, state, params, value=1.0)[0]["w"])
    np.testing.assert_allclose(*found, rtol=1e-6)


def boom(width):
    raise RuntimeError("no such width")


REFUSED = [
    ({"widths": 64}, TypeError, "widths must be a sequence of integers"),
    ({"widths": (8, 8)}, ValueError, "widths has one twice"),
    ({"widths": (0,)}, ValueError, "widths must be 1 or above"),
    ({"depths": (2, 3)}, ValueError, "give widths or depths, not both"),
    ({"width": 8}, ValueError, r"transfer\(width=8\): width varies: give widths"),
    ({"base": 0}, ValueError, "base must be 1 or above"),
    ({"lr": 0.1}, TypeError, "lr must be the lowest and the highest"),
    ({"lr": (0.1, 0.01)}, ValueError, "above 0 and below the highest"),
    ({"lr": (0.1, 0.2)}, ValueError, "there must be 3 learning rates or more"),
    ({"lr_step": 1.0}, ValueError, "lr_step must be above 1"),
    ({"parameterizations": "sp"}, TypeError, "must be a sequence. Put it in brackets"),
    ({"parameterizations": ["spp"]}, ValueError, "Did you mean 'sp'"),
    (
        {"parameterizations": ["sp", "sp"]},
        ValueError,
        "parameterizations has one twice",
    ),
    (
        {"parameterizations": ["mup(forward='model')"]},
        ValueError,
        "would have to multiply what it makes of last/Dense_0/kernel by 0.25. Choose",
    ),
    ({"parameterizations": [3]}, TypeError, "must be names or functions of"),
    ({"target_loss": 0.5}, TypeError, "no such setting of transfer"),
    ({"sedes": 3}, TypeError, r"transfer\(sedes=3\): .*Did you mean 'seeds'"),
    ({"initializer": 3}, TypeError, r"transfer\(initializer=3\): initializers must be"),
    ({"model": 3}, TypeError, "model must be a name, or a function of the size"),
    ({"model": "mpl"}, ValueError, r"transfer\(model='mpl'\): .*Did you mean 'mlp'"),
    (
        {"model": boom, "depth": None},
        ValueError,
        "fails for width 8: RuntimeError: no such width",
    ),
    (
        {"model": boom, "depth": 7},
        ValueError,
        r"transfer\(depth=7\): depth is for the lab's own networks",
    ),
    (
        {"model": boom, "depth": None, "norm": "layer"},
        ValueError,
        "norm is for the lab's own networks",
    ),
    (
        {"lr": (2.0**-200, 1.0)},
        ValueError,
        r"transfer\(lr=\(.*\)\): learning rates must be numbers that float32 holds",
    ),
    ({"batch_size": 1000}, ValueError, r"transfer\(batch_size=1000\): the task has"),
    ({"optimizer": "adam_then_sgd"}, ValueError, "has no factors by parameter"),
    ({"optimizer": "rmsprop"}, ValueError, "has no factors by parameter"),
]


@pytest.mark.parametrize(("given", "kind", "message"), REFUSED)
def test_what_is_refused(task, given, kind, message):
    if "optimizer" in given:
        given = {**given, "parameterizations": [mup]}
    with pytest.raises(kind, match=message):
        design(task, **given)


def test_progress_must_be_a_function(task):
    with pytest.raises(TypeError, match=r"transfer\(progress=3\): progress must be a"):
        lab.transfer(data=task, progress=3)


# The command.

FACTORY = """
import flax.linen as nn


def factory(width):
    return nn.Sequential([nn.Dense(width), nn.relu, nn.Dense(2)])
"""
WORDS = ["transfer", "--widths", "4,8", "--seeds", "1", "--steps", "10", "--lr"]
WORDS += ["2^-6:2^-3", "--batch-size", "8", "--parameterizations", "sp", "--data"]


def test_the_command_prints_and_writes(
    result, data_file, tmp_path, capsys, monkeypatch
):
    """The training itself is `test_an_interrupt_loses_nothing_that_is_done`."""
    swept = []

    def train(sweep, observe, finished):
        swept.append(sweep)
        return result

    monkeypatch.setattr("jaxinit.lab.command.train_sweep", train)
    monkeypatch.setattr("jaxinit._panels.png", lambda figure: b"picture")
    monkeypatch.setattr(TransferResult, "plot", lambda result: None)
    monkeypatch.setattr(
        "jaxinit.lab._show._transfer_page.page", lambda *given: given[1]
    )
    name = write_models(FACTORY, tmp_path, monkeypatch)
    words = [*WORDS, str(data_file), "--model", f"{name}:factory", "--out", "here"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert not err and "Computed in" in out and "Written to here: results.json" in out
    told = json.loads((tmp_path / "here" / "results.json").read_text())
    assert out.startswith(told["answer"][:60]) and len(told["table"]) == 2
    assert "--widths 4,8" in (tmp_path / "here" / "index.html").read_text()
    (sweep,) = swept
    assert sweep.names == ("sp",) and sweep.exponents == (-6, -5, -4, -3)
    assert list(sweep.experiments) == [("sp", 4), ("sp", 8)]
    said = refusal(words, capsys)
    assert "here has results; --overwrite replaces them." in said
    result = dataclasses.replace(result, losses={}, diverged={})
    assert main([*words, "--overwrite"]) == 130  # an interrupt in the first network
    assert "Nothing is written to here." in capsys.readouterr().out
    kept = json.loads((tmp_path / "here" / "results.json").read_text())
    assert kept == told


def agree(asked):
    """Interrupts where the next is False."""
    if not next(asked):
        raise interrupts.Agreed


@pytest.mark.slow
def test_an_interrupt_loses_nothing_that_is_done(data_file, capsys, monkeypatch):
    asked = iter([True, True, False])  # after the first block of the second width
    monkeypatch.setattr("jaxinit.lab._train._interrupts._agree", lambda _: agree(asked))
    words = [*WORDS, str(data_file), "--depth", "2", "--format", "json"]
    assert main(words) == 130
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["interrupted"] and [row["size"] for row in told["table"]] == [4]
    assert "interrupted after 1 of 2 networks" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lr", "2^-3"], "must be LOW:HIGH, such as 2^-12:2^0 or 1e-4:0.1; not"),
        (["--lr", "2^-12:2^5000"], "must be LOW:HIGH, such as 2^-12:2^0 or"),
        (["--widths", "4;8"], "must be integers with commas between"),
        (["--widths", "4", "--depths", "4"], "give widths or depths, not both"),
        (["--target-loss", "1"], "unrecognized arguments: --target-loss"),
        (["--parameterizations", "spp"], "Did you mean 'sp'"),
        (["--parameterizations", "sp(a=1,b=2)"], "sp takes no arguments"),
        (["--parameterizations", "sp(a=(1,(2,3)),b=[4,5])"], "sp takes no arguments"),
    ],
)
def test_words_that_are_refused(data_file, capsys, words, said):
    assert said in refusal(["transfer", "--data", str(data_file), *words], capsys)


def test_the_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        main(["transfer", "--help"])
    out = capsys.readouterr().out
    assert "examples:" in out and "--parameterizations sp,mup" in out
    assert "--batch-size" in out and "--target-loss" not in out


def test_the_recipe_may_be_an_initializer(task):
    sweep = design(task, initializer=jaxinit.lecun_normal())
    assert isinstance(sweep.settings.initializers[0], Initializer)

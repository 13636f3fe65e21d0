"""How the lab trains, second part: losses and chance, dropout, early stopping."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import jaxinit
from jaxinit import lab
from jaxinit.cli import main
from jaxinit.lab._show.page import _list_facts
from jaxinit.lab._show.table import caption
from jaxinit.lab._train.grid import Grid
from jaxinit.lab._train.stopping import after_block, keep, map_running, start
from jaxinit.lab._tried._model import MLP
from jaxinit.lab._tried.data import hold_out, make_task
from jaxinit.lab._tried.experiment import assemble
from jaxinit.lab._tried.losses import (
    DEFAULTS,
    LOSSES,
    compute_chance,
    make_loss,
    read_loss,
)
from jaxinit.lab._tried.tasks import diabetes, memory

TINY = {"depth": 2, "width": 8, "seeds": 2, "batch_size": 8}


def classes(seed=1):
    """Three classes of unequal size, that inputs say little of."""
    generator = np.random.default_rng(seed)
    y = np.repeat([0, 1, 2], [12, 20, 40])
    return make_task("three classes", generator.normal(size=(72, 6)), y)


def targets():
    generator = np.random.default_rng(2)
    x = generator.normal(size=(60, 4))
    return make_task("targets", x, np.exp(x[:, :2]))


@pytest.fixture(scope="module")
def task():
    return classes()


pytestmark = pytest.mark.usefixtures("quick_compiler", "short_runs")


# Losses.


def softmax_loss(z, y):
    z = z - z.max(axis=-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(log_p, y[..., None], -1)[..., 0]


def focal_loss(gamma, alpha=None):
    one, rest = (1, 1) if alpha is None else (alpha, 1 - alpha)

    def each(z, y):
        p = 1 / (1 + np.exp(-z))
        is_class = y[..., None] == np.arange(z.shape[-1])
        right = np.where(is_class, p, 1 - p)
        weight = np.where(is_class, one, rest)
        return (-weight * (1 - right) ** gamma * np.log(right)).mean(-1)

    return each


BY_HAND = {
    "cross_entropy": softmax_loss,
    "binary_cross_entropy": focal_loss(0),
    "focal": focal_loss(2),
    "focal(gamma=0.5)": focal_loss(0.5),
    "focal(gamma=1.5, alpha=0.25)": focal_loss(1.5, 0.25),
    "squared": lambda z, y: (z - y) ** 2,
    "absolute": lambda z, y: np.abs(z - y),
}
OF_TARGETS = ("squared", "absolute")


def test_every_loss_has_a_formula():
    assert {spec.partition("(")[0] for spec in BY_HAND} == set(LOSSES)
    assert set(DEFAULTS.values()) < set(LOSSES)


@pytest.mark.parametrize("spec", BY_HAND)
def test_values(spec, task):
    task = targets() if spec in OF_TARGETS else task
    z = np.random.default_rng(0).normal(size=(len(task.y_train), task.outputs))
    found = jax.jit(make_loss(task, read_loss(spec)))(np.float32(z), task.y_train)
    expected = BY_HAND[spec](z, task.y_train).mean()
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("spec", ["cross_entropy", "binary_cross_entropy", "focal"])
def test_places_without_a_target_count_for_nothing(spec):
    task = memory()
    y = task.y_train[:3]
    z = np.random.default_rng(0).normal(size=(*y.shape, task.outputs))
    found = jax.jit(make_loss(task, read_loss(spec)))(np.float32(z), y)
    expected = BY_HAND[spec](z[y >= 0], y[y >= 0]).mean()
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert compute_chance(task, read_loss(spec)) == pytest.approx(
        compute_chance(task._replace(y_train=task.y_train[:, -5:]), read_loss(spec))
    )


@pytest.mark.parametrize("spec", BY_HAND)
def test_chance_is_the_best_constant_prediction(spec, task):
    task = targets() if spec in OF_TARGETS else task
    rows = len(task.y_train)

    def mean(constant):
        z = np.broadcast_to(constant, (rows, task.outputs))
        return BY_HAND[spec](z, task.y_train).mean()

    given = {"maxiter": 4000, "xatol": 1e-9, "fatol": 1e-12}
    start_at = np.full(task.outputs, -0.1)
    best = minimize(mean, start_at, method="Nelder-Mead", options=given)
    assert compute_chance(task, read_loss(spec)) == pytest.approx(best.fun, rel=1e-6)
    assert compute_chance(task, read_loss(DEFAULTS[task.kind])) == pytest.approx(
        task.chance
    )


def test_a_class_that_is_not_there_costs_nothing(task):
    y = np.zeros_like(task.y_train)
    one = task._replace(y_train=y)
    assert compute_chance(one, read_loss("focal")) == pytest.approx(0, abs=1e-9)


# The run that most tests look at: labels that the inputs say nothing of, so that the
# loss on held-out rows soon rises; and a rate at which every cell diverges.

RATES = (0.03, 1e30)
SPEC, PATIENCE, STEPS = "focal(gamma=1.0)", 10, 100
TUNED = {**TINY, "loss": SPEC, "dropout": 0.25, "schedule": "plateau"}
TUNED |= {"early_stopping": PATIENCE, "steps": STEPS, "learning_rates": RATES}
INITIALIZERS = ["he_normal()", "normal(0.5)"]


@pytest.fixture(scope="module")
def tuned(task):
    return lab.compare(INITIALIZERS, data=task, **TUNED)


@pytest.mark.slow
def test_the_results_speak_in_the_unit_of_the_loss(tuned, task):
    chance = compute_chance(hold_out(task), read_loss(SPEC))
    assert tuned.task.chance == chance < 0.5 < task.chance
    assert tuned.settings.target_loss == pytest.approx(chance / 2, rel=0.05)
    text = caption(tuned)
    for words in (
        f"chance: loss {chance:#.3g} weighted nats a class",
        "loss focal(gamma=1.0), dropout 0.25",
        "stopped after 10 steps without a better validation",
    ):
        assert words in text
    assert f"{chance:#.3g} weighted nats a class" in " ".join(_list_facts(tuned))
    found = tuned.to_dict()
    assert found["task"]["chance_loss"] == chance
    assert found["settings"]["loss"] == SPEC and found["settings"]["dropout"] == 0.25


@pytest.mark.slow
def test_by_default_nothing_of_this_is_there(equal_starts, task):
    plain = equal_starts[0.0]
    assert plain.settings.loss == "cross_entropy" and plain.task.chance == task.chance
    assert plain.settings.target_loss == 0.5 and plain.stopped is None
    text = caption(plain)
    assert "nats;" in text and "dropout" not in text and "stopped" not in text
    assert plain.to_dict()["initializers"][0]["cells"][0]["stopped_at"] is None


# Dropout.


def forward(params, x):
    """Runs a relu perceptron of two layers by hand, without dropout."""
    (k1, b1), (k2, b2) = (
        [np.asarray(block["Dense_0"][name], np.float64) for name in ("kernel", "bias")]
        for block in (params["first"], params["last"])
    )
    return np.maximum(x @ k1 + b1, 0) @ k2 + b2


@pytest.mark.slow
def test_scores_are_those_without_dropout(tuned):
    train, test = tuned.task.x_train, tuned.task.x_test
    for cell in [(0, 0, 0), (0, 1, 0), (1, 0, 0)]:
        params = jax.tree.map(lambda a, cell=cell: a[cell], tuned.final)
        loss = focal_loss(1)(forward(params, train), tuned.task.y_train).mean()
        assert tuned.scores.loss[cell] == pytest.approx(loss, rel=1e-4)
        right = forward(params, test).argmax(-1) == tuned.task.y_test
        assert tuned.scores.test[cell] == pytest.approx(right.mean())


@pytest.fixture(scope="module")
def equal_starts(task):
    """Cells that start equal, of two initializers and three seeds, by dropout."""
    same = ["constant(0.1)", "normal(stddev=0.0, mean=0.1)"]
    given = {**TINY, "data": task, "seeds": 3, "steps": 10, "learning_rates": (0.01,)}
    return {
        0.0: lab.compare(same[:1], **given),
        0.5: lab.compare(same, dropout=0.5, **given),
    }


@pytest.mark.slow
def test_seeds_that_start_equal_train_equal_without_dropout(equal_starts):
    """So the order of the rows is the same for every seed, as nothing else varies."""
    for leaf in (*jax.tree.leaves(equal_starts[0.0].final), equal_starts[0.0].curves):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1, :1], leaf.shape))


def test_a_seed_drops_out_the_same_under_every_initializer(equal_starts):
    for leaf in (*jax.tree.leaves(equal_starts[0.5].final), equal_starts[0.5].curves):
        np.testing.assert_array_equal(leaf[0], leaf[1])
    curves = equal_starts[0.5].curves[0, :, 0]
    assert len(np.unique(curves[:, 0])) == 3
    assert not (curves == equal_starts[0.0].curves[0, :, 0]).any()


@pytest.mark.slow
def test_the_perceptron_drops_units_of_each_hidden_layer():
    """Ones go through identities; what comes out tells how many layers dropped."""
    rate, depth, width = 0.25, 4, 32
    given = (depth, width, width, lambda z: z, "none", jaxinit.identity())
    model, x = MLP(*given, dropout=rate), jnp.ones((64, width))
    variables = MLP(*given).init(jax.random.key(0), x)
    key = {"dropout": jax.random.key(1)}
    out = np.asarray(model.apply(variables, x, train=True, rngs=key))
    scale = (1 / (1 - rate)) ** (depth - 1)
    share = (1 - rate) ** (depth - 1)
    np.testing.assert_allclose(out[out > 0], scale, rtol=1e-5)
    assert abs((out > 0).mean() - share) < 5 * math.sqrt(share * (1 - share) / out.size)
    again = model.apply(variables, x, train=True, rngs=key)
    np.testing.assert_array_equal(out, again)
    np.testing.assert_array_equal(model.apply(variables, x), x)
    np.testing.assert_array_equal(model.apply(variables, x, train=True), x)


# Early stopping.


def test_a_fifth_of_the_rows_is_held_out(task):
    split = hold_out(task)
    assert len(split.x_valid) == len(split.y_valid) == 11
    np.testing.assert_array_equal(np.bincount(split.y_valid), [2, 3, 6])
    both = np.concatenate([split.x_train, split.x_valid])
    rows = {row.tobytes() for row in both}
    assert rows == {row.tobytes() for row in task.x_train} and len(rows) == 54
    np.testing.assert_array_equal(split.x_valid, hold_out(task).x_valid)
    many = task._replace(x_train=np.zeros((9000, 1)), y_train=np.arange(9000) % 3)
    assert len(hold_out(many).x_valid) == pytest.approx(1000, abs=2)
    alone = task._replace(x_train=np.zeros((4, 1)), y_train=np.array([0, 0, 0, 1]))
    assert 1 in hold_out(alone).y_train
    assert len(hold_out(memory()).y_valid) == 205


def tree(value):
    return {"w": np.full(2, value, np.float32)}


@pytest.fixture(scope="module")
def unknown():
    """What a cell knows before its first block."""
    return jax.tree.map(lambda a: a[0], jax.jit(start)({"w": np.zeros((1, 2), "f4")}))


after = jax.jit(after_block)


def test_what_a_cell_knows_after_each_block(unknown):
    known = unknown
    losses = [3.0, 2.0, 2.5, 2.0, 1.0]  # of validation, after blocks of five steps
    seen = []
    for i, loss in enumerate(losses):
        step = np.int32(5 * i + 5)
        training, validation = np.float32(10 * i), np.float32(loss)
        known = after(known, tree(i), training, validation, step, 10)
        numbers = (
            known.loss,
            known.step,
            known.curve,
            known.stopped,
            known.best["w"][0],
        )
        seen.append(tuple(map(float, numbers)))
    assert seen == [
        (3, 5, 0, 0, 0),
        (2, 10, 10, 0, 1),
        (2, 10, 20, 0, 1),
        (2, 10, 30, 20, 1),  # as good as before is no better
        (1, 25, 40, 0, 4),
    ]


@pytest.mark.parametrize(
    ("training", "validation", "curve"),
    [(math.inf, 1.0, math.inf), (math.nan, 1.0, math.nan), (1.0, math.nan, math.nan)],
)
def test_a_cell_that_diverges_is_stopped_and_keeps_its_best(
    unknown, training, validation, curve
):
    numbers = np.float32(training), np.float32(validation), np.int32(5)
    known = after(unknown, tree(7), *numbers, 100)
    assert known.stopped == 5 and not known.best["w"].any()
    np.testing.assert_equal(float(known.curve), curve)


@pytest.mark.parametrize("together", [1, 2, 3])
@pytest.mark.slow
def test_groups_of_stopped_cells_are_not_computed(together):
    computed = []

    def function(cell):
        jax.debug.callback(lambda: computed.append(1))
        return cell + 1

    stopped = jnp.array([True, False, True, True, False, True])
    cells = jnp.arange(6)
    found = map_running(function, cells, stopped, together)
    jax.effects_barrier()
    np.testing.assert_array_equal(found, [0, 2, 2, 3, 5, 5])
    groups = -(-2 // together)
    assert len(computed) in (groups, groups * together)  # once, or for each of a group


def test_random_keys_of_a_cell_can_be_kept():
    one, two = (jax.random.key(i) for i in (1, 2))
    kept = keep(jnp.bool_(True), {"key": one}, {"key": two})
    assert kept["key"] == one


@pytest.fixture(scope="module")
def by_hand(tuned):
    """Trains the same cells to the end, and looks at the held-out rows meanwhile."""
    task, s = tuned.task, tuned.settings
    s = dataclasses.replace(s, early_stopping=0)
    grid = Grid(assemble(task, s))
    blocks = []
    for training in grid.run():
        params = jax.tree.map(grid.by_cell, grid.variables["params"])
        blocks.append((params, training.reshape(grid.shape)))
    return blocks


def test_cells_stop_where_validation_improves_no_more(tuned, by_hand):
    task = tuned.task
    for i, seed in np.ndindex(2, 2):
        cell, best, since = (i, seed, 0), math.inf, 0
        for block, (params, _) in enumerate(by_hand):
            params = jax.tree.map(lambda a, cell=cell: a[cell], params)
            outputs = forward(params, task.x_valid)
            loss = focal_loss(1)(outputs, task.y_valid).mean()
            step = 5 * block + 5
            if loss < best:
                best, since, kept = loss, step, params
            if step - since >= PATIENCE:
                break
        assert tuned.stopped[cell] == step < STEPS
        curve = np.array([training[cell] for _, training in by_hand[: block + 1]])
        np.testing.assert_allclose(tuned.curves[cell][: block + 1], curve, rtol=1e-4)
        np.testing.assert_array_equal(
            tuned.curves[cell][block:], tuned.curves[cell][block]
        )
        final = jax.tree.map(lambda a, cell=cell: a[cell], tuned.final)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
            *(final, kept),
        )
    assert len(set(tuned.stopped[..., 0].ravel())) > 1


def test_cells_that_diverge_stop_at_once_and_count(tuned):
    assert tuned.diverged[..., 1].all() and not tuned.diverged[..., 0].any()
    assert (tuned.stopped[..., 1] == 5).all()
    assert not np.isfinite(tuned.curves[..., 1, :]).any()
    assert [row.diverged for row in tuned.rows()] == [0.5, 0.5]


def test_the_run_ends_when_all_cells_have_stopped(tuned):
    assert tuned.steps_done == tuned.stopped.max() < STEPS
    assert tuned.interrupted is False
    assert tuned.probe_steps.tolist() == [0, 5, 25, 50]
    found = tuned.to_dict()
    cells = [cell for entry in found["initializers"] for cell in entry["cells"]]
    assert [c["stopped_at"] for c in cells] == tuned.stopped.ravel().tolist()
    assert found["task"]["train_rows"] == 43 and found["task"]["validation_rows"] == 11
    names, *lines = tuned.to_csv().splitlines()
    column = names.split(",").index("stopped_at")
    assert [int(line.split(",")[column - len(names.split(","))]) for line in lines] == [
        *tuned.stopped.ravel()
    ]


@pytest.mark.slow
def test_the_end_is_probed_wherever_it_is(tuned):
    s = dataclasses.replace(
        tuned.settings, initializers=tuned.settings.initializers[1:]
    )
    grid = Grid(assemble(tuned.task, s))
    assert [grid.probe_steps.tolist() for _ in grid.run()][3] == [0, 5]
    assert grid.probe_steps.tolist() == [0, 5, 25, tuned.stopped[1].max()]
    last = grid._run_probe(grid._chunks)
    jax.tree.map(np.testing.assert_array_equal, grid.probes[-1], last)
    assert len(grid.probes) == 4


class Killed(BaseException):
    """Ends a run on the spot."""


def assert_same(one, two):
    """All that was measured is equal, bit for bit."""
    for name in (
        *("signals", "scores", "initial", "final", "curves", "steps", "stopped"),
        *("probes", "probe_steps"),
    ):
        ours, theirs = (jax.tree.leaves(getattr(result, name)) for result in (one, two))
        assert len(ours) == len(theirs) > 0
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(task, tmp_path, tuned):
    last = np.unique(tuned.stopped)[-2]  # one cell still trains

    def progress(done, steps):
        if done >= last:
            raise Killed

    given = {"data": task, "out": tmp_path, "save_every": 1, **TUNED}
    with pytest.raises(Killed):
        lab.compare(INITIALIZERS, progress=progress, **given)
    with pytest.raises(ValueError, match=r"compare\(early_stopping=5\): the saved run"):
        lab.compare(INITIALIZERS, resume=True, **{**given, "early_stopping": 5})
    with pytest.raises(
        ValueError, match=r"compare\(dropout=0.0\): the saved run has 0"
    ):
        lab.compare(INITIALIZERS, resume=True, **{**given, "dropout": 0.0})
    with pytest.raises(ValueError, match=r"compare\(loss='focal'\): the saved run has"):
        lab.compare(INITIALIZERS, resume=True, **{**given, "loss": "focal"})
    assert_same(lab.compare(INITIALIZERS, resume=True, **given), tuned)
    found = json.loads((tmp_path / "results.json").read_text())
    ours = json.loads(tuned.to_json())
    assert found | {"seconds": None} == ours | {"seconds": None}
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.slow
def test_results_do_not_depend_on_the_devices(task, tuned):
    many = lab.compare(INITIALIZERS, data=task, devices=3, **TUNED)
    np.testing.assert_array_equal(many.stopped, tuned.stopped)
    np.testing.assert_allclose(many.curves, tuned.curves, rtol=1e-4)
    np.testing.assert_allclose(many.scores.test, tuned.scores.test)


@pytest.mark.slow
def test_a_network_trains_with_everything_at_once(capsys):
    words = "compare --task diabetes --model coordinate --depth 2 --width 4 --seeds 1"
    words += " --steps 5 --lr 0.01 --init he_normal() --loss absolute --dropout 0.5"
    words += " --target-loss 0.25 --early-stopping 100"
    assert main([*words.split(), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["target_loss"] == 0.25
    y = hold_out(diabetes()).y_train.astype(float)
    chance = np.abs(y - np.median(y, 0)).mean()
    assert found["task"]["chance_loss"] == pytest.approx(chance)
    (cell,) = found["initializers"][0]["cells"]
    assert cell["stopped_at"] is None and cell["final_loss"] < 1.5


# Messages.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--loss hinge", "loss must be one of 'cross_entropy', 'binary_cross_entropy'"),
        ("--loss squard", "Did you mean 'squared'?"),
        ("--loss focal(2.0)", "a call with literals such as 'focal(gamma=2.0)'"),
        ("--loss focal(gama=1)", "focal takes gamma, alpha. Did you mean 'gamma'?"),
        (
            "--loss focal(gamma=-1)",
            "(loss='focal(gamma=-1)'): gamma must be 0 or above",
        ),
        ("--loss focal(alpha=1)", "alpha must lie between 0 and 1"),
        ("--loss focal(gamma='a')", "gamma must be a real number"),
        (
            "--loss absolute",
            "(loss='absolute'): is for regression; for digits (1797 scans of 8 x 8) "
            "choose one of cross_entropy, binary_cross_entropy, focal.",
        ),
        (
            "--loss focal --task diabetes",
            "is for classification; for diabetes (442 patients) choose one of squared,",
        ),
        ("--dropout 1", "dropout must lie in [0, 1)."),
        ("--dropout -0.5", "dropout must lie in [0, 1)."),
        ("--dropout nan", "dropout must be finite"),
        (
            "--dropout 0.5 --model optax:adam",
            "(dropout=0.5): dropout is for the lab's own networks; a model of yours",
        ),
        ("--early-stopping -1", "early_stopping must be 0 or above"),
        (
            "--early-stopping 9 --batch-size 1200",
            "the task has 1078 training rows beside those held out only.",
        ),
    ],
)
def test_messages(words, message, capsys):
    assert main(["compare", *words.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith("jaxinit: compare(") and message in err
    assert err.count("\n") == 1


def test_rows_can_be_too_few_to_hold_some_out(task):
    few = task._replace(x_train=task.x_train[:1], y_train=task.y_train[:1])
    said = r"compare\(early_stopping=5\): the task has too few training rows to hold"
    with pytest.raises(ValueError, match=said):
        lab.compare(["zeros()"], data=few, batch_size=1, early_stopping=5)


def test_patience_is_a_number_of_steps(task):
    with pytest.raises(TypeError, match="early_stopping must be an integer"):
        lab.compare(["zeros()"], data=task, early_stopping=1.5)
    with pytest.raises(TypeError, match="dropout must be a real number"):
        lab.compare(["zeros()"], data=task, dropout="0.1")

"""The lab: tasks, the grid beside loops written by hand, and what a run reports."""

import dataclasses
import io
import json
import math
import re
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from marks import slow_but, stable

import jaxinit
from jaxinit import lab
from jaxinit.lab._train.grid import Grid, block_length
from jaxinit.lab._train.step import batches
from jaxinit.lab._tried._model import MLP
from jaxinit.lab._tried.data import digits, load, make_task
from jaxinit.lab._tried.experiment import assemble
from jaxinit.lab._tried.networks import NETWORKS
from jaxinit.lab._tried.optimizers import OPTIMIZERS
from jaxinit.lab._tried.settings import Settings
from jaxinit.lab.files import write

pytestmark = pytest.mark.usefixtures("quick_compiler")

INITIALIZERS = ("he_normal()", "zeros()", "constant(0.1)", "normal(stddev=10000.0)")
HE, ZEROS, CONSTANT, HUGE = range(4)
RATES = (1e-3, 1e-2, 1e30)  # the last one overflows float32 in a step or two
# Most runs here and in test_lab_page have these shapes: their programs are equal.
SMALL = {"depth": 4, "width": 8, "seeds": 2, "steps": 20, "batch_size": 16}


def classes_and_rows():
    """Three clusters, far enough apart to be learnt. # [72], [72, 6]"""
    generator = np.random.default_rng(1)
    y = np.arange(72) % 3
    return y, generator.normal(size=(72, 6)) + 3 * np.eye(3, 6)[y]


def linear_targets(columns=2):
    generator = np.random.default_rng(2)
    x = generator.normal(size=(80, 5))
    return x, x @ generator.normal(size=(5, columns))


@pytest.fixture(scope="module")
def clusters():
    y, x = classes_and_rows()
    return make_task("clusters", x, y)


@pytest.fixture(scope="module")
def result(clusters):
    """A run in which two thirds of the cells fail, in all the ways there are."""
    return lab.compare(INITIALIZERS, data=clusters, learning_rates=RATES, **SMALL)


def layers_of(params, *index):
    """Reads one cell's layers, first to last, as (kernel, bias) in float64."""
    found = []
    for name in ("first", "hidden", "last"):
        if name in params:
            block = params[name]["block"] if name == "hidden" else params[name]
            kernel, bias = (
                np.asarray(block["Dense_0"][part][index], np.float64)
                for part in ("kernel", "bias")
            )
            pairs = zip(kernel, bias, strict=True)
            found += list(pairs) if name == "hidden" else [(kernel, bias)]
    return found


def relu_network(layers, x, y):
    """Runs a relu classifier forth and back by hand.

    Returns the loss, and by layer: outputs, gradients to them, gradients to parameters.
    """
    inputs, outputs, h = [], [], x.astype(np.float64)
    for kernel, bias in layers:
        inputs.append(h)
        outputs.append(h @ kernel + bias)
        h = np.maximum(outputs[-1], 0)
    z = outputs[-1] - outputs[-1].max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    loss = -log_p[np.arange(len(y)), y].mean()
    slope = (np.exp(log_p) - np.eye(z.shape[1])[y]) / len(y)
    slopes, parameters = [], []
    for i in reversed(range(len(layers))):
        slopes.insert(0, slope)
        parameters.insert(0, (inputs[i].T @ slope, slope.sum(axis=0)))
        if i:
            slope = (slope @ layers[i][0].T) * (outputs[i - 1] > 0)
    return loss, outputs, slopes, parameters


# Data.


def rows_of(array):
    return {row.tobytes() for row in array}


def test_digits_are_split_the_same_way_each_time():
    one, two = digits(), digits()
    assert len(one.x_train) + len(one.x_test) == 1797
    assert one.x_train.shape[1] == 64 and one.outputs == 10
    for name in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_each_class_of_the_digits_has_a_quarter_of_its_rows_in_the_test_rows():
    task = digits()
    train, test = np.bincount(task.y_train), np.bincount(task.y_test)
    np.testing.assert_array_equal(test, np.rint(0.25 * (train + test)))


def test_no_row_is_in_both_parts_of_the_split():
    x = np.arange(60.0)[:, None]
    for y in (np.arange(60) % 3, np.arange(60) / 7):
        task = make_task("counted", x, y)
        both = np.concatenate([task.x_train, task.x_test])
        assert len(rows_of(both)) == 60
        assert not rows_of(task.x_train) & rows_of(task.x_test)


def test_images_have_mean_0_per_pixel_and_variance_1_on_average():
    x = digits().x_train.astype(np.float64)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-6)
    assert x.var(axis=0).mean() == pytest.approx(1, abs=1e-6)
    assert x.var(axis=0).std() > 0.1  # pixels keep their contrast


def test_columns_of_tables_have_mean_0_and_variance_1():
    y, x = classes_and_rows()
    task = make_task("table", x * np.arange(1, 7) + 5, y)
    train = task.x_train.astype(np.float64)
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(train.var(axis=0), 1, atol=1e-6)


def test_test_rows_are_standardized_by_the_training_rows():
    y, x = classes_and_rows()
    task, moved = make_task("a", x, y), make_task("b", 7 * x + 3, y)
    np.testing.assert_allclose(task.x_test, moved.x_test, atol=1e-5)
    assert abs(task.x_test.mean(axis=0)).max() > 1e-3


# 0.1 has no exact binary form: the mean of many is not 0.1, and the variance is not 0.
@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, 1e6 / 3])
def test_constant_columns_become_0(value):
    y, x = classes_and_rows()
    task = make_task("table", np.c_[x, np.full(len(x), value)], y)
    np.testing.assert_array_equal(task.x_train[:, -1], 0)
    np.testing.assert_array_equal(task.x_test[:, -1], 0)


@pytest.fixture
def saved(tmp_path):
    def save(**arrays):
        path = tmp_path / "data.npz"
        np.savez(path, **arrays)
        return path

    return save


@pytest.mark.parametrize(
    "names",
    [
        np.array([3, 5, 9]),
        np.array([3, 5, 9], np.uint8),
        np.array(["ant", "bee", "cat"]),
        np.array([b"ant", b"bee", b"cat"]),
    ],
    ids=["int", "uint8", "str", "bytes"],
)
def test_integers_and_strings_are_classes(saved, clusters, names):
    y, x = classes_and_rows()
    task = load(saved(x=x, y=names[y]))
    assert (task.kind, task.outputs, task.name) == ("classification", 3, "data.npz")
    assert task.y_train.dtype == np.int32
    np.testing.assert_array_equal(task.y_train, clusters.y_train)
    np.testing.assert_array_equal(task.x_train, clusters.x_train)


def test_booleans_are_two_classes(saved):
    y, x = classes_and_rows()
    task = load(saved(x=x, y=(y == 1)[:, None]))  # a column is as good as a vector
    assert (task.kind, task.outputs, task.y_test.ndim) == ("classification", 2, 1)
    third = 1 / 3
    entropy = -third * math.log(third) - (1 - third) * math.log(1 - third)
    assert task.chance == pytest.approx(entropy)


@pytest.mark.parametrize("columns", [0, 1, 2], ids=["1-D", "one column", "2-D"])
def test_floats_are_real_targets_standardized_by_column(saved, columns):
    x, y = linear_targets(max(columns, 1))
    task = load(saved(x=x, y=100 * y if columns else 100 * y[:, 0]))
    assert (task.kind, task.outputs) == ("regression", max(columns, 1))
    assert task.y_train.shape == (60, task.outputs)
    assert task.y_test.shape == (20, task.outputs)
    np.testing.assert_allclose(task.y_train.var(axis=0), 1, rtol=1e-5)
    assert task.chance == pytest.approx(1, rel=1e-5)


def test_images_are_flattened(saved):
    y, x = classes_and_rows()
    task = load(str(saved(x=x.reshape(72, 2, 3), y=y)))
    assert task.x_train.shape == (54, 6)
    assert task.x_train.var(axis=0).mean() == pytest.approx(1, abs=1e-5)


Y, X = classes_and_rows()
BROKEN_X = np.where(np.arange(72)[:, None] < 2, np.nan, X)


@pytest.mark.parametrize(
    "arrays, rule",
    [
        ({"a": X}, "the file lacks x and y; it has a."),
        ({"x": X}, "the file lacks y; it has x."),
        ({}, "the file lacks x and y; it has nothing."),
        ({"x": X[:, 0], "y": Y}, "x must be [rows, features] with 8 rows or more"),
        ({"x": X[:7], "y": Y[:7]}, "not shape (7, 6)"),
        ({"x": X[:, :0], "y": Y}, "not shape (72, 0)"),
        ({"x": 1.0, "y": Y}, "not shape ()"),
        ({"x": X.astype(str), "y": Y}, "x must hold real numbers, not <U32"),
        ({"x": X * 1j, "y": Y}, "x must hold real numbers, not complex128"),
        ({"x": BROKEN_X, "y": Y}, "x has NaN or infinite entries, in 2 rows."),
        ({"x": X, "y": Y[1:]}, "y must have an entry for each of the 72 rows of x"),
        ({"x": X, "y": np.c_[Y, Y]}, "not shape (72, 2)"),
        ({"x": X, "y": 1.5}, "not shape ()"),
        ({"x": X, "y": Y * 1j}, "y must hold classes or real targets, not complex128"),
        ({"x": X, "y": BROKEN_X}, "y has NaN or infinite entries."),
        ({"x": X, "y": 0 * Y}, "y must have two classes or more"),
        ({"x": X, "y": np.arange(72) // 71}, "each of two rows or more"),
        ({"x": X, "y": np.array([1, None] * 36)}, "refused: the file is pickled"),
        # A target that never changes leaves nothing to explain: R^2 would be 0 / 0.
        ({"x": X, "y": np.full(72, 0.1)}, "y"),
        ({"x": X, "y": X[:, :0]}, "y"),
    ],
)
def test_arrays_that_are_no_task_are_refused(saved, arrays, rule):
    path = saved(**arrays)
    call = re.escape(f"compare(data={jaxinit._check.show(str(path))}): ")
    with pytest.raises(ValueError, match=f"^{call}.*{re.escape(rule)}"):
        load(path)


def cut_member():
    """An .npz whose array x ends too early."""
    file, array = io.BytesIO(), io.BytesIO()
    np.save(array, X)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", array.getvalue()[:400])
        archive.writestr("y.npy", array.getvalue())
    return file.getvalue()


def single_array():
    file = io.BytesIO()
    np.save(file, X)
    return file.getvalue()


@pytest.mark.parametrize(
    "content, rule",
    [
        (None, "cannot read the file: No such file or directory."),
        (b"", "no .npz file. Write it by np.savez(path, x=x, y=y)."),
        (b"PK\x03\x04 and then no more", "no .npz file."),
        (
            b"\x80\x04pickled",
            "refused: the file is pickled, or no .npz file at all. Unpickling runs",
        ),
        (single_array(), "the file holds one array."),
        (cut_member(), ""),
    ],
    ids=["missing", "empty", "zip", "pickle", "npy", "cut"],
)
def test_files_that_are_no_npz_are_refused(tmp_path, content, rule):
    path = tmp_path / "data.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^compare\(data=.*{re.escape(rule)}"):
        load(path)


def test_a_path_that_speaks_of_pickles_is_not_taken_for_one(tmp_path):
    path = tmp_path / "pickles.npz"
    np.savez(path, a=X)
    with pytest.raises(ValueError, match="the file lacks x and y; it has a."):
        load(path)


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot read the file: Is a directory"):
        load(tmp_path)


# Settings.


@pytest.mark.parametrize(
    "setting, kind, rule",
    [
        ({"depth": 1}, ValueError, "depth must be 2 or above."),
        ({"width": 0}, ValueError, "width must be 1 or above."),
        ({"width": 8.0}, TypeError, "width must be an integer."),
        ({"seeds": 0}, ValueError, "seeds must be 1 or above."),
        ({"steps": 0}, ValueError, "steps must be 1 or above."),
        ({"batch_size": 0}, ValueError, "batch_size must be 1 or above."),
        ({"batch_size": 55}, ValueError, "the task has 54 training rows only."),
        ({"learning_rates": (0.0,)}, ValueError, "learning rates must be above 0."),
        ({"learning_rates": (1, -1e-3)}, ValueError, "learning rates must be above 0."),
        ({"learning_rates": (math.nan,)}, ValueError, "must be finite."),
        ({"learning_rates": ("1",)}, TypeError, "must be a real number."),
        ({"learning_rates": ()}, ValueError, "learning_rates must not be empty."),
        ({"learning_rates": (1, 1.0)}, ValueError, "learning_rates has one twice."),
        ({"learning_rates": 0.1}, TypeError, ""),
        ({"target_loss": math.inf}, ValueError, "target_loss must be finite."),
        ({"initializers": ()}, ValueError, "initializers must not be empty."),
        ({"initializers": ("zeros", "zeros()")}, ValueError, "has one twice."),
        ({"initializers": (5,)}, TypeError, "specs or what a builder returns."),
        ({"initializers": (jaxinit.ones,)}, TypeError, "Call the builder: ones()."),
        ({"model": dict}, ValueError, f"{[*NETWORKS][-1]!r}, 'package.module:Model'."),
        ({"initializers": "he_normal()"}, TypeError, ""),
        ({"norm": "laier"}, ValueError, "Did you mean 'layer'?"),
        ({"norm": None}, ValueError, "one of 'none', 'layer', 'batch', 'post'."),
        ({"optimizer": "adan"}, ValueError, "Did you mean 'adam'"),
        ({"activation": "rellu"}, ValueError, "Did you mean 'relu'"),
        ({"data": 5}, TypeError, "by np.savez(path, x=x, y=y), and give the path."),
    ],
    ids=stable,
)
def test_a_setting_that_breaks_its_rule_is_named(clusters, setting, kind, rule):
    ((name, _),) = setting.items()
    given = {"initializers": ["zeros()"], "data": clusters, "batch_size": 8} | setting
    with pytest.raises(kind, match=rf"^compare\({name}=.*{re.escape(rule)}"):
        lab.compare(given.pop("initializers"), **given)


def test_an_unknown_initializer_is_answered_with_the_nearest_names(clusters):
    with pytest.raises(ValueError, match="'he_norml'. Did you mean 'he_normal'"):
        lab.compare(["zeros()", "he_norml()"], data=clusters)


def test_an_initializer_that_cannot_take_a_kernel_is_found_before_training(
    clusters, monkeypatch
):
    monkeypatch.setattr(Grid, "__init__", None)  # any grid would fail with TypeError
    rule = r"^delta_orthogonal\(\)\(key, shape=\(6, 64\)\): needs a kernel of 3, 4 or 5"
    with pytest.raises(ValueError, match=rule):
        lab.compare(["zeros()", "delta_orthogonal()"], data=clusters, batch_size=8)


# Batches and blocks.


def test_each_epoch_has_each_row_once():
    order = batches(rows=12, batch_size=4, steps=7)
    assert order.shape == (7, 4)
    for epoch in (order[:3], order[3:6]):
        assert sorted(epoch.ravel()) == list(range(12))
    assert (order[:3] != order[3:6]).any()


def test_rows_that_fill_no_batch_wait_for_another_epoch():
    order = batches(rows=10, batch_size=4, steps=40)
    for epoch in order.reshape(20, 8):
        assert len(set(epoch)) == 8
    assert set(order.ravel()) == set(range(10))


def test_the_order_of_the_rows_is_the_same_each_time():
    np.testing.assert_array_equal(batches(50, 16, 9), batches(50, 16, 9))


@pytest.mark.parametrize("steps", [1, 7, 24, 25, 26, 30, 97, 400, 1000])
def test_blocks_divide_the_steps(steps):
    length = block_length(steps)
    assert steps % length == 0 and 1 <= length <= 25


def test_the_default_run_has_blocks_of_25_steps():
    assert block_length(400) == 25


# The grid.


def grid_of(task, inits, **given):
    settings = Settings(inits, **given)
    return Grid(assemble(task, settings))


@pytest.mark.slow
def test_cells_start_from_equal_weights_at_every_learning_rate(clusters):
    specs = ("he_normal()", "orthogonal()", "zeros()", "constant(0.1)")
    inits = tuple(map(jaxinit.parse, specs))
    grid = grid_of(clusters, inits, learning_rates=(0.01, 0.1, 1.0), **SMALL)
    for leaf in map(grid.by_cell, jax.tree.leaves(grid.variables["params"])):
        assert leaf.shape[:3] == (4, 2, 3)
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:, :, :1], leaf.shape))
    kernel = grid.by_cell(grid.variables["params"]["first"]["Dense_0"]["kernel"])
    assert (kernel[0, 0] != kernel[0, 1]).any() and (kernel[0] != kernel[1]).any()


@pytest.mark.slow
def test_initial_weights_are_those_that_flax_draws_for_the_seed(result, clusters):
    model = MLP(4, 8, 3, jax.nn.relu, "none", jaxinit.parse("he_normal()"))
    alone = jax.jit(model.init)(jax.random.key(1), clusters.x_train[:1])["params"]
    drawn = jax.tree.map(lambda a: a[HE, 1], result.initial)
    jax.tree.map(np.testing.assert_array_equal, drawn, alone)


@pytest.mark.slow
def test_signals_are_those_of_a_network_run_by_hand(result, clusters):
    for seed in (0, 1):
        layers = layers_of(result.initial, HE, seed)
        assert [kernel.shape for kernel, _ in layers] == [
            (6, 8),
            (8, 8),
            (8, 8),
            (8, 3),
        ]
        _, outputs, slopes, _ = relu_network(layers, clusters.x_train, clusters.y_train)
        for found, by_hand in (
            (result.signals.forward, outputs),
            (result.signals.gradient, slopes),
        ):
            expected = [array.std() for array in by_hand]
            np.testing.assert_allclose(found[HE, seed], expected, rtol=1e-4)


def test_training_equals_adam_written_by_hand_in_float64(result, clusters):
    rate, steps = 1, SMALL["steps"]
    layers = layers_of(result.initial, HE, 0)
    first = [tuple(map(np.zeros_like, layer)) for layer in layers]
    second, losses = first, []
    for step, rows in enumerate(batches(54, SMALL["batch_size"], steps), start=1):
        x, y = clusters.x_train[rows], clusters.y_train[rows]
        loss, _, _, slopes = relu_network(layers, x, y)
        losses.append(loss)

        def mapped(function, *trees):
            return [
                tuple(function(*parts) for parts in zip(*layer, strict=True))
                for layer in zip(*trees, strict=True)
            ]

        first = mapped(lambda m, g: 0.9 * m + 0.1 * g, first, slopes)
        second = mapped(lambda v, g: 0.999 * v + 0.001 * g * g, second, slopes)
        fair, fair2 = 1 - 0.9**step, 1 - 0.999**step
        size = RATES[rate]
        layers = mapped(
            lambda w, m, v, a=fair, b=fair2, size=size: (
                w - size * (m / a) / (np.sqrt(v / b) + 1e-8)
            ),
            *(layers, first, second),
        )
    for found, expected in zip(
        layers_of(result.final, HE, 0, rate), layers, strict=True
    ):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
    assert result.curves[HE, 0, rate] == pytest.approx([np.mean(losses)], rel=1e-4)
    loss, _, _, _ = relu_network(layers, clusters.x_train, clusters.y_train)
    assert result.scores.loss[HE, 0, rate] == pytest.approx(loss, rel=1e-3)
    _, outputs, _, _ = relu_network(layers, clusters.x_test, clusters.y_test)
    accuracy = (outputs[-1].argmax(axis=1) == clusters.y_test).mean()
    assert result.scores.test[HE, 0, rate] == pytest.approx(accuracy)


BY_NAME = {
    "adam": optax.adam(0.01),
    "adamw": optax.adamw(0.01),
    "lion": optax.lion(0.01),
    "momentum": optax.sgd(0.01, momentum=0.9),
    "rmsprop": optax.rmsprop(0.01),
    "sgd": optax.sgd(0.01),
}


def test_every_optimizer_has_a_loop_to_compare_with():
    assert set(BY_NAME) == set(OPTIMIZERS) - {"adam_then_sgd"}  # in test_lab_tuning


# Adam has its test by hand, and resumed runs and networks take others.
@pytest.mark.parametrize("name", slow_but(["lion"], sorted(BY_NAME)))
@pytest.mark.slow
def test_each_optimizer_trains_as_in_a_plain_loop(clusters, name):
    settings = {"depth": 2, "width": 8, "seeds": 1, "steps": 6, "batch_size": 16}
    settings |= {"activation": "tanh", "optimizer": name, "learning_rates": (0.01,)}
    found = lab.compare(["lecun_normal()"], data=clusters, **settings)
    layers = [
        tuple(jnp.asarray(part, jnp.float32) for part in layer)
        for layer in layers_of(found.initial, 0, 0)
    ]
    state = BY_NAME[name].init(layers)

    def loss(layers, x, y):
        (k1, b1), (k2, b2) = layers
        z = jnp.tanh(x @ k1 + b1) @ k2 + b2
        return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1).mean()

    @jax.jit
    def step(layers, state, x, y):
        slopes = jax.grad(loss)(layers, x, y)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            change, state = BY_NAME[name].update(slopes, state, layers)
        return optax.apply_updates(layers, change), state

    for rows in batches(54, 16, 6):
        x, y = clusters.x_train[rows], clusters.y_train[rows]
        layers, state = step(layers, state, x, y)
    for a, b in zip(layers_of(found.final, 0, 0, 0), layers, strict=True):
        np.testing.assert_allclose(a[0], b[0], atol=2e-5)
        np.testing.assert_allclose(a[1], b[1], atol=2e-5)


@pytest.fixture(scope="module")
def alone(clusters):
    """Two of the cells of `result`, without the others."""
    rates = {"learning_rates": RATES[:2]}
    return [lab.compare(["he_normal()"], data=clusters, **rates, **SMALL) for _ in "ab"]


def test_cells_that_diverge_or_not_leave_their_neighbors_alone(result, alone):
    assert np.isfinite(alone[0].curves).all()
    pairs = [
        (result.curves[HE, :, :2], alone[0].curves[0]),
        (result.scores.loss[HE, :, :2], alone[0].scores.loss[0]),
        (result.scores.test[HE, :, :2], alone[0].scores.test[0]),
        (result.signals.forward[HE], alone[0].signals.forward[0]),
        (result.signals.gradient[HE], alone[0].signals.gradient[0]),
    ]
    for among, single in pairs:
        np.testing.assert_allclose(among, single, rtol=1e-4)


def test_a_run_can_be_repeated_bit_by_bit(alone):
    one, two = alone
    for a, b in ((one.scores, two.scores), (one.signals, two.signals)):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    np.testing.assert_array_equal(one.curves, two.curves)
    jax.tree.map(np.testing.assert_array_equal, one.final, two.final)


def test_cells_that_explode_count_as_diverged(result):
    assert result.diverged[HUGE].all()
    assert result.diverged[HE, :, 2].all()
    assert not np.isfinite(result.curves[HE, :, 2]).any()
    for healthy in (HE, ZEROS, CONSTANT):
        assert not result.diverged[healthy, :, :2].any()
    assert result.rows()[HE].diverged == pytest.approx(1 / 3)
    assert result.rows()[HUGE].diverged == 1


def assert_units_are_equal(layers):
    for kernel, bias in layers[:-1]:  # the units of the last layer are the classes
        # Sums in another order may round differently by column.
        same = np.broadcast_to(kernel[:, :1], kernel.shape)
        np.testing.assert_allclose(kernel, same, rtol=1e-4)
        np.testing.assert_allclose(bias, np.full_like(bias, bias[0]), rtol=1e-4)


@pytest.mark.parametrize("init", [ZEROS, CONSTANT], ids=["zeros", "constant"])
def test_units_that_start_equal_stay_equal(result, init):
    for seed in (0, 1):
        for rate in (0, 1):
            assert_units_are_equal(layers_of(result.final, init, seed, rate))


def test_constant_kernels_move_though_their_units_stay_equal(result):
    kernel, _ = layers_of(result.final, CONSTANT, 0, 1)[1]
    assert abs(kernel - 0.1).min() > 1e-3
    healthy, _ = layers_of(result.final, HE, 0, 1)[1]
    assert healthy.std(axis=1).min() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("norm", slow_but(["batch"], ["layer", "batch"]))
def test_norms_level_the_signal_and_train(clusters, norm):
    inits = (jaxinit.parse("normal(1.0)"),)
    sizes = {"depth": 4, "width": 8, "seeds": 1, "steps": 40, "batch_size": 16}
    grid = grid_of(clusters, inits, norm=norm, learning_rates=(0.01,), **sizes)
    before = jax.tree.map(np.asarray, grid.variables)
    assert ("batch_stats" in before) == (norm == "batch")
    # Eight inputs of second moment 1/2 behind relu: a deviation of 2, where without a
    # norm it would double by the layer.
    np.testing.assert_allclose(grid.signals.forward[0, 0, 1:], 2, rtol=0.5)
    losses = [float(loss[0]) for loss in grid.run()]
    assert len(losses) == 2 and losses[1] < losses[0]
    assert grid.scores().test[0, 0, 0] > 0.8
    if norm == "batch":
        first = jax.tree.map(
            lambda tree: np.asarray(tree)[0],
            (before["batch_stats"]["first"], grid.variables["batch_stats"]["first"]),
        )
        (start, end) = (stats["BatchNorm_0"] for stats in first)
        np.testing.assert_array_equal(start["mean"], 0)
        np.testing.assert_array_equal(start["var"], 1)
        assert (end["mean"] != 0).all() and (end["var"] != 1).all()


@pytest.mark.slow
def test_regression_explains_a_learnable_target():
    x, y = linear_targets()
    task = make_task("linear", x, y)
    settings = {"depth": 3, "width": 16, "seeds": 2, "steps": 100, "batch_size": 20}
    found = lab.compare(["he_normal()"], data=task, learning_rates=(1e-2,), **settings)
    (row,) = found.rows()
    assert row.test_mean > 0.6 and row.final_loss < 0.2
    prediction = [
        np.maximum(np.maximum(task.x_test @ k1 + b1, 0) @ k2 + b2, 0) @ k3 + b3
        for (k1, b1), (k2, b2), (k3, b3) in (
            layers_of(found.final, 0, s, 0) for s in (0, 1)
        )
    ]
    residual = ((np.array(prediction) - task.y_test) ** 2).sum(axis=(1, 2))
    total = ((task.y_test - task.y_test.mean(axis=0)) ** 2).sum()
    np.testing.assert_allclose(
        found.scores.test[0, :, 0], 1 - residual / total, atol=1e-4
    )


# What is known of old.


@pytest.mark.slow
def test_he_keeps_the_signal_through_twenty_relu_layers_and_lecun_loses_it():
    inits = tuple(map(jaxinit.parse, ("he_normal()", "lecun_normal()", "zeros()")))
    grid = grid_of(digits(), inits, seeds=2, steps=1, learning_rates=(0.01,))
    forward, gradient = grid.signals
    he, lecun, zeros = forward[..., -1] / np.where(forward[..., 0], forward[..., 0], 1)
    assert (1 / 3 < he).all() and (he < 3).all()
    assert (lecun < 0.05).all()
    assert not zeros.any()
    assert not gradient[2, :, :-1].any() and gradient[2, :, -1].all()


@pytest.mark.slow
def test_symmetric_starts_stay_at_chance_where_he_learns():
    inits = ["zeros()", "constant(0.01)", "he_normal()"]
    settings = {"depth": 5, "width": 32, "seeds": 1, "steps": 150, "target_loss": 1.0}
    found = lab.compare(inits, learning_rates=(3e-3,), **settings)
    zeros, constant, he = found.rows()
    assert zeros.test_mean < 0.15 and zeros.steps_to_target is None
    assert constant.test_mean < 0.3 and constant.steps_to_target is None
    assert he.test_mean > 0.85 and he.steps_to_target is not None
    for symmetric in (0, 1):
        assert_units_are_equal(layers_of(found.final, symmetric, 0, 0))


# The comparison.


def made_up(result, loss, *, curves=None, test=None, **settings):
    """A comparison of he_normal() alone with these numbers. # loss: [seeds, rates]"""
    loss = np.array(loss, np.float32)[None]
    seeds, rates = loss.shape[1:]
    curves = np.ones((seeds, rates, 3)) if curves is None else curves
    test = np.zeros_like(loss) if test is None else np.array(test, np.float32)[None]
    given = {
        "initializers": result.settings.initializers[:1],
        "seeds": seeds,
        "learning_rates": (0.1, 0.2, 0.3)[:rates],
    }
    return dataclasses.replace(
        result,
        settings=dataclasses.replace(result.settings, **given, **settings),
        curves=np.array(curves, np.float32)[None],
        steps=np.array([10, 20, 30]),
        scores=type(result.scores)(loss, test),
    )


def test_the_best_learning_rate_has_the_lowest_loss(result):
    (row,) = made_up(result, [[0.9, 0.3, 0.5], [0.9, 0.5, 0.4]]).rows()
    assert row.learning_rate == 0.2
    assert row.final_loss == pytest.approx(0.4)
    assert row.diverged == 0


def test_the_best_learning_rate_has_the_least_divergence_first(result):
    nan = math.nan
    (row,) = made_up(result, [[0.9, 0.1, 0.8], [0.9, nan, 0.8]]).rows()
    assert row.learning_rate == 0.3 and row.diverged == pytest.approx(1 / 6)
    chance = result.task.chance
    (row,) = made_up(result, [[0.1, 1.9 * chance], [2.1 * chance, 1.9 * chance]]).rows()
    assert row.learning_rate == 0.2 and row.diverged == pytest.approx(1 / 4)


def test_a_loss_that_was_infinite_on_the_way_is_divergence(result):
    curves = [[[1, math.inf, 1], [1, 1, 1]]]
    found = made_up(result, [[0.1, 0.2]], curves=curves)
    np.testing.assert_array_equal(found.diverged, [[[True, False]]])
    assert found.rows()[0].learning_rate == 0.2


def test_scores_are_mean_and_deviation_over_seeds_at_the_best_rate(result):
    test = [[0.0, 0.6], [0.0, 0.8]]
    (row,) = made_up(result, [[0.5, 0.4], [0.5, 0.4]], test=test).rows()
    assert row.test_mean == pytest.approx(0.7)
    assert row.test_stddev == pytest.approx(0.1)


# A regression that explodes without becoming infinite gets an R^2 of minus a lot.
@pytest.mark.parametrize(
    "loss, test",
    [(3e38, -3e30), (math.inf, -math.inf), (math.nan, math.nan)],
)
def test_scores_beyond_every_scale_make_no_warnings(result, loss, test):
    found = made_up(result, [[loss]] * 2, test=[[test], [0.5 * test]])
    (row,) = found.rows()
    assert row.diverged == 1 and not row.final_loss < 1e38
    json.loads(found.to_json())


def falling(step):
    """A curve of three blocks, at the target 0.5 from this step on."""
    return [0.4 if end >= step else 0.6 for end in (10, 20, 30)]


@pytest.mark.parametrize(
    "reached, median",
    [
        ((10, 20, 30), 20),
        ((10, 30), 20),
        ((10, 20, math.inf), 20),
        ((10, math.inf), None),
        ((10, math.inf, math.inf), None),
        ((math.inf, math.inf), None),
    ],
)
def test_steps_to_target_are_the_median_over_seeds(result, reached, median):
    curves = [[falling(step)] for step in reached]
    found = made_up(result, [[0.3]] * len(reached), curves=curves, target_loss=0.5)
    np.testing.assert_array_equal(found.first_steps()[0, :, 0], reached)
    assert found.rows()[0].steps_to_target == median


def test_ratios_are_geometric_means_over_seeds(result):
    (row, *_) = result.rows()
    forward, gradient = (signal[HE].astype(float) for signal in result.signals)
    ratios = forward[:, -1] / forward[:, 0], gradient[:, 0] / gradient[:, -1]
    assert row.forward_ratio == pytest.approx(np.sqrt(np.prod(ratios[0])))
    assert row.gradient_ratio == pytest.approx(np.sqrt(np.prod(ratios[1])))
    assert math.isnan(result.rows()[ZEROS].forward_ratio)


def only_json(text):
    """Reads JSON, refusing the words NaN and Infinity, which JSON lacks."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_dictionary_is_json_and_has_every_part(result):
    found = only_json(result.to_json())
    assert found == result.to_dict()
    assert set(found) == {
        *("answer", "ranking", "statistics"),
        *("table", "task", "settings", "interrupted", "steps_done", "seconds"),
        *("block_end_steps", "probe_steps", "versions", "device", "initializers"),
    }
    assert found["settings"]["initializers"] == [
        row["initializer"] for row in found["table"]
    ]
    assert found["task"]["train_rows"] == 54 and found["steps_done"] == 20
    assert [len(entry["cells"]) for entry in found["initializers"]] == [6] * 4
    cells = found["initializers"][HE]["cells"]
    assert [cell["diverged"] for cell in cells] == [False, False, True] * 2
    assert cells[2]["final_loss"] is None and cells[2]["loss"] == [None]
    counts = found["initializers"][HE]["weights_before"]["counts"]
    assert sum(counts) == 6 * 8 + 8 * 8 * 2 + 8 * 3


def test_every_weight_that_can_be_trained_can_be_written(result):
    # Bins around a single value of this size are narrower than the spacing of floats.
    huge = jax.tree.map(lambda a: np.full_like(a, 1e30), result.initial)
    only_json(dataclasses.replace(result, initial=huge).to_json())


@pytest.fixture(scope="module")
def written(result, tmp_path_factory):
    directory = tmp_path_factory.mktemp("lab") / "new" / "run"
    return write(result, directory, command="jaxinit compare --init '<script>&'")


PLOTS = ["sensitivity", "signals", "gradients", "updates", "weights", "heatmaps"]
PLOTS += ["biases", "bias_maps"]


def test_writing_makes_numbers_plots_and_a_page(result, written):
    names = [
        "results.json",
        *(f"{name}.png" for name in ["loss", "loss_by_rate", *PLOTS]),
        "index.html",
    ]
    assert [file.name for file in written] == names
    assert only_json(written[0].read_text()) == result.to_dict()
    for file in written[1:-1]:
        assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    "last, interrupted", slow_but([(20, True)], [(20, True), (40, False)], rows=True)
)
@pytest.mark.slow
def test_an_interrupt_keeps_what_was_trained(
    clusters, tmp_path, monkeypatch, last, interrupted
):
    monkeypatch.setattr("jaxinit.lab.files.plots", lambda comparison: {})
    seen = []

    def progress(done, steps):
        seen.append((done, steps))
        if done == last:
            raise KeyboardInterrupt

    settings = {**SMALL, "steps": 40, "learning_rates": RATES[:2]}
    settings |= {"data": clusters, "progress": progress}
    found = lab.compare(["he_normal()"], **settings)
    assert seen == [(20, 40), (40, 40)][: last // 20]
    assert found.steps_done == last and found.curves.shape == (1, 2, 2, last // 20)
    assert np.isfinite(found.scores.loss).all()
    assert found.interrupted is interrupted  # the last step may have been made already
    page = write(found, tmp_path)[-1].read_text()
    assert ("Interrupted: 20 of 40 steps were trained." in page) == interrupted


@pytest.mark.slow
def test_an_interrupt_before_the_first_block_keeps_the_initial_state(
    clusters, tmp_path, monkeypatch
):
    def run(self):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(Grid, "run", run)
    inits = ["he_normal()", "zeros()"]
    found = lab.compare(inits, data=clusters, learning_rates=RATES[:2], **SMALL)
    assert found.interrupted is True and found.steps_done == 0
    assert found.curves.shape == (2, 2, 2, 0)
    assert [row.steps_to_target for row in found.rows()] == [None, None]
    for seed in (0, 1):
        for rate in (0, 1):
            jax.tree.map(
                np.testing.assert_array_equal,
                layers_of(found.final, 0, seed, rate),
                layers_of(found.initial, 0, seed),
            )
    files = write(found, tmp_path)
    names = ["results.json", *(f"{name}.png" for name in PLOTS), "index.html"]
    assert [file.name for file in files] == names
    assert only_json(files[0].read_text())["interrupted"] is True
    assert "Interrupted: 0 of 20 steps were trained." in files[-1].read_text()

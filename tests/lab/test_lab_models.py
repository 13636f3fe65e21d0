"""Networks and tasks of the lab: every pair that makes sense, users' own, messages."""

import sys
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from marks import slow_but

import jaxinit
from jaxinit import lab
from jaxinit._paths import named
from jaxinit.cli import main
from jaxinit.lab._train.probe import make_signals
from jaxinit.lab._tried.losses import choose_loss, make_loss, make_score, read_loss
from jaxinit.lab._tried.networks import NETWORKS, build_network
from jaxinit.lab._tried.rules import is_kernel
from jaxinit.lab._tried.tasks import TASKS, load_task, memory, photograph, text

pytestmark = pytest.mark.usefixtures("quick_compiler")

TINY = {
    "initializers": ["he_normal()"],
    "depth": 2,
    "width": 8,
    "seeds": 1,
    "steps": 2,
    "learning_rates": [1e-3],
    "batch_size": 8,
}


class Row(NamedTuple):
    """What is tested of a network.

    Attributes:
      tasks: those that it is for.
      depth: the depth at which the following are counted.
      drops: places where it drops units in training; None for the perceptron, which has
        a test of its own in test_lab_training.
      layers: products with a kernel, which probes measure.
    """

    tasks: list[str]
    depth: int
    drops: int | None
    layers: int


NUMBERS, TOKENS = ["photograph", "digits", "diabetes"], ["memory", "text"]
ROWS = {
    "mlp": Row(NUMBERS, depth=3, drops=None, layers=3),
    "cnn": Row(["digits"], depth=3, drops=2, layers=3),
    "resnet": Row(["digits"], depth=2, drops=2, layers=6),
    "transformer": Row(TOKENS, depth=2, drops=5, layers=13),
    "lstm": Row(TOKENS, depth=2, drops=3, layers=5),
    "gru": Row(TOKENS, depth=2, drops=3, layers=13),
    "rnn": Row(TOKENS, depth=2, drops=3, layers=5),
    "coordinate": Row(NUMBERS, depth=3, drops=2, layers=3),
}
# These pairs are in the default run, and a transformer on memory by each schedule, in
# test_lab_tuning.
FIRST = [("cnn", "digits")]
PAIRS = slow_but(
    FIRST, [(name, task) for name in ROWS for task in ROWS[name].tasks], rows=True
)


@pytest.mark.parametrize(("model", "task"), PAIRS)
def test_every_network_learns_every_task_it_is_for(model, task, capsys):
    words = f"compare --model {model} --task {task} --init he_normal() --depth 2"
    words += " --width 8 --seeds 1 --steps 2 --lr 1e-3 --batch-size 8"
    assert main(words.split()) == 0
    assert "he_normal()" in capsys.readouterr().out


def test_the_rows_name_every_network_and_task():
    models, tasks = zip(*(pair.values for pair in PAIRS), strict=True)
    assert set(models) == set(NETWORKS) and set(tasks) == set(TASKS)


def build_row(name, dropout=0.0):
    """Builds a network as its row has it; also returns its task."""
    task = load_task(ROWS[name].tasks[0], None)
    sizes = ROWS[name].depth, 8, jax.nn.relu, "none"
    return build_network(name, task, *sizes, dropout), task


@pytest.mark.parametrize("name", [n for n in ROWS if ROWS[n].drops is not None])
@pytest.mark.slow
def test_every_network_drops_units_in_training_only(name):
    (without, task), (dropping, _) = build_row(name), build_row(name, 0.5)
    x, key = jnp.asarray(task.x_train[:1]), jax.random.key(0)
    variables = jax.eval_shape(without.init, key, x)

    def masks(function, *arguments):
        return str(jax.make_jaxpr(function)(*arguments)).count("name=_bernoulli")

    assert masks(dropping.train, variables, x, key) == ROWS[name].drops
    assert masks(without.train, variables, x, key) == 0
    assert masks(dropping.apply, variables, x) == 0


def signals_of(name):
    """Returns what measures the layers of a row's network, and what it measures."""
    network, task = build_row(name)
    x, y = jnp.asarray(task.x_train[:4]), jnp.asarray(task.y_train[:4])
    loss = make_loss(task, read_loss(choose_loss(task, None)))
    return make_signals(network, loss, x, y), network.init, x


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.slow
def test_every_network_shows_its_layers(name):
    measure, init, x = signals_of(name)
    shown = jax.eval_shape(measure, jax.eval_shape(init, jax.random.key(0), x))
    assert {a.shape for a in shown} == {(ROWS[name].layers,)}


@pytest.mark.parametrize("name", slow_but(["cnn"], ["cnn", "resnet", "transformer"]))
@pytest.mark.slow
def test_signals_are_what_flax_captures(name):
    task, row = load_task(ROWS[name].tasks[0], None), ROWS[name]
    sizes = {"depth": row.depth, "width": 8, "outputs": task.outputs}
    between = {"activation": jax.nn.relu, "norm": "none"}
    module = NETWORKS[name].build(task, **sizes, **between)
    measure, init, x = signals_of(name)
    variables = jax.jit(init)(jax.random.key(0), x)

    def is_layer(module, method):
        return isinstance(module, (nn.Dense, nn.Conv))

    run = jax.jit(lambda v, x: module.apply(v, x, capture_intermediates=is_layer)[1])
    captured = jax.tree.leaves(run(variables, x)["intermediates"])
    expected = sorted(float(z.std()) for z in captured)
    shown = jax.jit(measure)(variables)
    np.testing.assert_allclose(np.sort(shown.forward), expected, rtol=1e-4)
    assert (shown.gradient > 0).all()


@pytest.mark.slow
def test_signals_of_a_recurrent_network_are_over_all_times():
    measure, init, x = signals_of("rnn")
    variables = jax.jit(init)(jax.random.key(0), x)
    params = jax.tree.map(lambda a: np.asarray(a, float), variables["params"])
    h, sizes = params["Embed_0"]["embedding"][x], []
    for layer in (0, 1):
        cell = params[f"SimpleCell_{layer}"]
        inputs = h @ cell["i"]["kernel"] + cell["i"]["bias"]
        state, states, recurrent = np.zeros_like(h[:, 0]), [], []
        for time in range(h.shape[1]):
            recurrent.append(state @ cell["h"]["kernel"])
            state = np.tanh(inputs[:, time] + recurrent[-1])
            states.append(state)
        h = np.stack(states, 1)
        sizes += [inputs.std(), np.std(recurrent)]
    last = h @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    shown = jax.jit(measure)(variables)
    np.testing.assert_allclose(
        np.sort(shown.forward), np.sort([*sizes, last.std()]), rtol=1e-4
    )


class Mine(nn.Module):
    """A user's model: a table, a norm, dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(16, name="first")(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        return nn.Dense(10, name="last")(x)


class MineToo(nnx.Module):
    """The same in NNX."""

    def __init__(self, rngs):
        self.first = nnx.Linear(64, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


@pytest.mark.parametrize("name", slow_but(["MineToo"], ["Mine", "MineToo"]))
@pytest.mark.slow
def test_models_of_users(name, monkeypatch):
    monkeypatch.syspath_prepend(str(__import__("pathlib").Path(__file__).parent))
    result = lab.compare(
        ["he_normal()", "zeros()"],
        model=f"test_lab_models:{name}",
        seeds=2,
        steps=30,
        learning_rates=[1e-2],
    )
    he, zeros = result.scores.loss[:, :, 0].mean(axis=1)
    assert he < 0.7 * zeros
    forward, gradient = result.signals
    assert forward.shape == gradient.shape == (2, 2, 2)
    assert 0.3 < result.rows()[0].forward_ratio < 3
    assert not forward[1].any()  # of zeros
    assert not result.kernels(1)[0][0].any()
    before, after = result.kernels(0)
    assert len(before) == 2 and (before[0] != after[0]).any()


class Layerless(nn.Module):
    """A user's model that writes its product as a sum, which is no layer."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.ones, (64, 10))
        return (x[..., None] * kernel).sum(-2)


@pytest.mark.slow
def test_networks_without_layers_have_no_signals(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(__import__("pathlib").Path(__file__).parent))
    given = TINY | {"model": "test_lab_models:Layerless", "out": tmp_path}
    result = lab.compare(**given)
    assert np.isnan(result.rows()[0].forward_ratio) and result.signals is None
    assert np.isnan(result.probes.forward).all()
    probes = result.to_dict()["initializers"][0]["probes"]
    assert list(probes) == ["update_to_weight"]


@pytest.mark.slow
def test_kernels_are_drawn_and_all_else_is_left():
    task = memory()
    made = build_network("transformer", task, 1, 8, jax.nn.relu, "layer")
    x = jnp.asarray(task.x_train[:1])
    stock = jax.jit(made.init)(jax.random.key(0), x)
    drawn = jax.jit(made.redraw_by(jaxinit.constant(2.0)))(jax.random.key(0), x)
    for (path, a), (_, b) in zip(named(stock), named(drawn), strict=True):
        if path.endswith("/kernel"):
            assert (b == 2).all(), path
        else:
            np.testing.assert_array_equal(a, b)
    assert is_kernel("a/kernel", jnp.ones((2, 2))) and not is_kernel("b", jnp.ones(2))
    assert not is_kernel("Embed_0/embedding", jnp.ones((2, 2)))


@pytest.mark.slow
def test_causal_networks_see_the_past_only():
    task = memory()
    x = task.x_train[:1]
    changed = x.copy()
    changed[0, 20] = (x[0, 20] + 1) % task.tokens
    for name in ("transformer", "lstm", "gru", "rnn"):
        made = build_network(name, task, 1, 8, jax.nn.relu, "none")
        variables = jax.jit(made.init)(jax.random.key(0), x)
        one, two = (jax.jit(made.apply)(variables, z) for z in (x, changed))
        np.testing.assert_allclose(one[:, :20], two[:, :20], atol=1e-6)
        assert np.abs(one[:, 20:] - two[:, 20:]).max() > 1e-6


# tasks


@pytest.mark.slow
def test_memory_is_recalled_from_the_beginning():
    task = memory()
    assert task.x_train.shape == task.y_train.shape == (1024, 30)
    np.testing.assert_array_equal(task.x_train[:, :5], task.y_train[:, -5:])
    assert (task.y_train[:, :-5] == -1).all() and task.chance == np.log(8)
    z = jnp.zeros((4, 30, 8))
    y = jnp.asarray(task.y_train[:4])
    assert float(make_loss(task, read_loss("cross_entropy"))(z, y)) == pytest.approx(
        np.log(8)
    )
    perfect = 20.0 * jax.nn.one_hot(y, 8)
    assert float(make_score(task)(perfect, y)) == 1
    assert float(make_score(task)(perfect.at[0, -1].set(0), y)) < 1


def test_text_is_the_next_character(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("abcdefgh" * 100)
    task = text(file)
    assert task.tokens == task.outputs == 8 and task.chance == pytest.approx(np.log(8))
    np.testing.assert_array_equal((task.x_train + 1) % 8, task.y_train)
    assert len(task.x_test) >= 1 and load_task(None, file).name == "words.txt"
    assert len(text().x_train) > 50


def test_the_photograph_has_three_colors():
    task = photograph()
    assert task.kind == "regression" and task.outputs == 3
    assert task.x_train.shape[1] == 2 and len(task.x_train) + len(task.x_test) == 4320


# messages


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model cnm", "model must be one of 'mlp', 'cnn'"),
        ("--task digit", "Did you mean 'digits'?"),
        ("--model nowhere:Model", "there is no module nowhere, neither here nor"),
        ("--model json:nothing", "json has no nothing."),
        ("--model json:__name__", "is neither a Linen module nor an NNX class"),
        ("--model cnn --task memory", "is for a task of images"),
        ("--model lstm", "is for a task of tokens"),
        ("--model coordinate --task text", "is for a task of numbers"),
        ("--task text", "takes numbers, and text (descriptions of data) has tokens"),
        ("--norm post", "post stands in a transformer only"),
        ("--model cnn --norm post", "post stands in a transformer only"),
        ("--model json:nothing --norm post", "post stands in a transformer only"),
        ("--model transformer --task text --width 10", "must be a multiple of 4 heads"),
        ("--model cnn --depth 0", "depth must be 1 or above"),
        ("--task memory --data x.npz", "takes no file of yours"),
        ("--data nothing.txt", "cannot read the file: No such file"),
    ],
)
def test_messages(words, message, capsys):
    assert main(["compare", *words.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith("jaxinit: compare(") and message in err
    assert err.count("\n") == 1


def test_a_text_can_be_too_short(tmp_path, capsys):
    file = tmp_path / "short.txt"
    file.write_text("too short")
    assert main(["compare", "--data", str(file)]) == 2
    assert "must have 513 characters or more" in capsys.readouterr().err
    file.write_bytes(b"\xff\xfe\x00" * 999)
    assert main(["compare", "--data", str(file)]) == 2
    assert "no text in UTF-8" in capsys.readouterr().err


@pytest.mark.slow
def test_models_are_imported_from_the_working_directory(monkeypatch, tmp_path):
    (tmp_path / "own_model.py").write_text(
        "import flax.linen as nn\nModel = nn.Dense(10)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    words = "compare --model own_model:Model --init he_normal() --seeds 1 --steps 1"
    assert main([*words.split(), "--lr", "1e-3"]) == 0


# devices


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "devices"),
    slow_but([(3, 8)], [(1, 2), (1, 8), (3, 2), (3, 8)], rows=True),
)
def test_results_do_not_depend_on_the_devices(seeds, devices):
    """Up to rounding, for grids that fill the devices and grids that do not."""
    settings = TINY | {
        "initializers": ["he_normal()", "lecun_normal()"],
        "seeds": seeds,
    }
    settings |= {"learning_rates": [1e-3, 1e-2, 1e-1], "steps": 4}
    one = lab.compare(devices=1, **settings)
    many = lab.compare(devices=devices, **settings)
    np.testing.assert_allclose(one.curves, many.curves, rtol=1e-5)
    for a, b in zip(one.scores, many.scores, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (one.final, many.final)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_there_are_no_more_devices_than_there_are(capsys):
    assert main(["compare", "--devices", "99"]) == 2
    assert "there are 8 devices only" in capsys.readouterr().err

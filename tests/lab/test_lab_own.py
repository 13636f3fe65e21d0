"""Models of users in the lab: what they are given, and what they must give back."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from marks import slow_but

from jaxinit import lab
from jaxinit.cli import main
from jaxinit.lab._tried.data import make_task

pytestmark = pytest.mark.usefixtures("quick_compiler")

Y = np.arange(60) % 3
IMAGES = np.random.default_rng(0).normal(size=(60, 6, 5, 2)) + Y[:, None, None, None]
TINY = {"seeds": 1, "steps": 2, "learning_rates": [1e-2], "batch_size": 8}


class Convolutions(nn.Module):
    """A network of images that does not take flat ones."""

    outputs: int = 3

    @nn.compact
    def __call__(self, x):
        assert x.shape[1:] == (6, 5, 2)
        x = nn.relu(nn.Conv(4, (3, 3), 2)(x))
        return nn.Dense(self.outputs)(x.reshape(len(x), -1))


Seven = Convolutions(7)


class NnxConvolutions(nnx.Module):
    """The same in NNX."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 4, (3, 3), strides=2, rngs=rngs)
        self.dense = nnx.Linear(36, 3, rngs=rngs)

    def __call__(self, x):
        assert x.shape[1:] == (6, 5, 2)
        return self.dense(nnx.relu(self.conv(x)).reshape(len(x), -1))


class Dense(nn.Module):
    """A dense layer of features."""

    outputs: int = 3

    @nn.compact
    def __call__(self, x):
        assert x.ndim == 2
        return nn.Dense(self.outputs)(x)


def changed(change):
    """A model whose outputs are changed before it returns them."""

    class Changed(nn.Module):
        @nn.compact
        def __call__(self, x):
            return change(nn.Dense(3)(x.reshape(len(x), -1)))

    return Changed()


Nothing = changed(lambda z: None)
Two = changed(lambda z: (z, z))
Mean = changed(lambda z: z.mean(0))
Vector = changed(lambda z: z[:, 0])
Whole = changed(lambda z: z.argmax(-1, keepdims=True) * jnp.ones((1, 3), int))


class Weightless(nn.Module):
    """No parameters."""

    @nn.compact
    def __call__(self, x):
        return x.reshape(len(x), -1)[:, :3]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(__import__("pathlib").Path(__file__).parent))


@pytest.fixture
def images(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, x=IMAGES, y=Y)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", slow_but(["NnxConvolutions"], ["Convolutions", "NnxConvolutions"])
)
def test_models_of_users_are_given_images_in_their_shape(images, name):
    result = lab.compare(
        ["he_normal()"], data=images, model=f"test_lab_own:{name}", **TINY
    )
    assert np.isfinite(result.scores.loss).all()
    assert result.task.x_train.shape == (45, 60)  # flat for all others


@pytest.fixture
def untrained(monkeypatch):
    """Ends runs where training would begin."""
    monkeypatch.setattr("jaxinit.lab.training.train", lambda *_, **__: "would train")


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("mlp", "images"),
        ("cnn", "images"),
        ("resnet", "images"),
        ("test_lab_own:Convolutions", "images"),
        ("test_lab_own:Dense", "features"),
        ("test_lab_own:Ten", "digits"),
    ],
)
def test_every_model_is_given_what_it_takes(images, model, given):
    features = make_task("features", IMAGES[:, 0, 0], Y)
    data = {"images": images, "features": features, "digits": None}[given]
    found = lab.compare(["he_normal()"], data=data, model=model, **TINY)
    assert found == "would train"


Ten = Dense(10)
REFUSED = {
    "Seven": "returns [2, 7] for 2 rows, where images.npz needs [2, 3]: an output for ",
    "Nothing": "must return one array, not NoneType.",
    "Two": "must return one array, not tuple.",
    "Mean": "returns [3] for 2 rows, where images.npz needs [2, 3]",
    "Vector": "returns [2] for 2 rows, where images.npz needs [2, 3]",
    "Whole": "must return real numbers, not int32.",
    "Weightless": "has no parameters to draw.",
    "Dense": "fails on inputs of shape [2, 6, 5, 2]: AssertionError:",
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_do_not_fit_are_refused_before_training(images, capsys, name):
    words = ["compare", "--data", str(images), "--model", f"test_lab_own:{name}"]
    assert main([*words, "--init", "zeros()", "--batch-size", "8"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"jaxinit: compare(model='test_lab_own:{name}'): ")
    assert REFUSED[name] in said and said.count("\n") == 1


def test_a_prediction_that_would_be_broadcast_is_refused(tmp_path, capsys):
    """[rows] minus [rows, 1] is [rows, rows]."""
    path = tmp_path / "targets.npz"
    np.savez(path, x=IMAGES, y=IMAGES[:, 0, 0, 0])
    words = ["compare", "--data", str(path), "--model", "test_lab_own:Vector"]
    assert main([*words, "--init", "zeros()", "--batch-size", "8"]) == 2
    rule = "returns [2] for 2 rows, where targets.npz needs [2, 1]: an output for each "
    assert f"{rule}of its 1 targets." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (
            "--early-stopping 0",
            "must be 1 or above; leave it out to train",
        ),
        ("--early-stopping x", "--early-stopping"),
        (
            "--target-loss=-1",
            "(target_loss=-1.0): target_loss must be 0 or above",
        ),
        ("--target-loss=nan", "target_loss must be finite"),
    ],
)
def test_options_that_mean_nothing(words, rule, capsys):
    try:
        code = main(["compare", *words.split()])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr().err
    assert code == 2 and rule in said and said.count("\n") == 1

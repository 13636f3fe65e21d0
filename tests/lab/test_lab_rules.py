"""Rules of whole models as what a comparison tries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinit
from jaxinit import lab
from jaxinit._paths import named
from jaxinit.cli import main
from jaxinit.lab._tried.networks import build_network
from jaxinit.lab._tried.rules import Rules, read
from jaxinit.lab._tried.tasks import memory

pytestmark = pytest.mark.usefixtures("quick_compiler")

LSTM = "**/hf/bias: 1; **/h?/kernel: orthogonal; he_normal"


def test_an_initializer_alone_is_itself():
    assert read("he_normal") == jaxinit.he_normal()
    assert isinstance(read("he_normal; **/bias: 0"), Rules)


def test_rules_are_values_that_print_as_they_are_read():
    rules = read(LSTM)
    text = "**/hf/bias: 1.0; **/h?/kernel: orthogonal(); he_normal()"
    assert repr(rules) == text and read(text) == rules
    assert repr(read("role: key : 0; he_normal()")) == "role:key: 0.0; he_normal()"
    assert hash(read(text)) == hash(rules) and rules != read("*: 0; " + text)
    assert repr(read("recipes.fixup(6)")) == "recipes.fixup(6)"


@pytest.mark.slow
def test_the_first_part_that_fits_wins_and_the_rest_stays():
    task = memory()
    made = build_network("lstm", task, 1, 8, jax.nn.relu, "none")
    x = jnp.asarray(task.x_train[:1])
    key = jax.random.key(0)
    stock, drawn, usual = (
        dict(named(jax.jit(draw)(key, x)["params"]))
        for draw in (
            made.init,
            made.redraw_by(read(LSTM)),
            made.redraw_by(jaxinit.he_normal()),
        )
    )
    for path, found in drawn.items():
        *_, parent, name = path.split("/")
        if (parent, name) == ("hf", "bias"):
            assert (found == 1).all()
        elif name == "kernel" and parent[0] == "h":
            np.testing.assert_allclose(found @ found.T, np.eye(8), atol=1e-5)
        else:
            same = usual if name == "kernel" else stock
            np.testing.assert_array_equal(found, same[path])


@pytest.mark.slow
def test_recipes_train(capsys):
    words = "compare --model resnet --depth 2 --width 4 --seeds 1 --steps 1 --lr 1e-3"
    assert main([*words.split(), "--init", "recipes.fixup(2)", "--format", "csv"]) == 0
    (line,) = capsys.readouterr().out.splitlines()[1:]
    assert line.startswith("recipes.fixup(2),")
    loss = float(line.split(",")[3])  # the head is 0: chance, and a step
    assert loss == pytest.approx(np.log(10), abs=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipes.fixxup(6)", "there is no recipe 'fixxup'. Did you mean 'fixup' or"),
        ("recipes.fixup()", "recipes.fixup needs layers here"),
        ("recipes.fixup(open)", "a recipe is a call with literals such as"),
        ("recipes.fixup(6", "a recipe is a call with literals such as"),
        ("recipes.fixup({[]: 6})", "a recipe is a call with literals such as"),
        ("recipes.fixup(0)", "recipes.fixup(layers=0): layers must be 1 or above."),
        ("he_normal(); he_norml()", "there is no initializer 'he_norml'"),
        ("kernel:", "malformed"),
        ("he_normal();", "malformed"),
        ("**/conv9/kernel: 0; he_normal()", "**/conv9/kernel fits no parameter"),
        ("role:readout: 0; he_normal()", "role:readout is for transfer, which reads"),
    ],
)
def test_messages(text, message, capsys):
    words = "compare --model resnet --depth 2 --width 4 --init"
    assert main([*words.split(), text]) == 2
    err = capsys.readouterr().err
    assert err.startswith("jaxinit: ") and message in err and err.count("\n") == 1


def test_the_perceptron_takes_no_rules():
    with pytest.raises(ValueError, match="rules are for other models: all layers of"):
        lab.compare(["recipes.fixup(6)"])

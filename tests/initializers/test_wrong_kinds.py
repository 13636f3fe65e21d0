"""Every builder with every wrong kind of every argument: one line, in one form."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import OWN, ROWS
from marks import slow_but

import jaxinit as ji
import jaxinit.torch as jt

KEY = jax.random.key(0)
BASE = {row.init.name: row for row in ROWS[::-1]}  # an initializer of each builder
WRONG = [
    *(None, "x", "", b"x", True, ..., object(), slice(1), range(3), {}, set()),
    *(0, -1, 1.5, 1j, 10**400, -(10**400), float("nan"), float("inf"), 1e308, 1e-320),
    *([1, 2], (1, 2), (), (("a",), ("b",)), ("relu", 1), ("leaky_relu", 1e308)),
    *(np.float64(1e300), jnp.int32(3), np.array([1, 2.0]), jnp.ones(3), np.zeros(0)),
    *(np.array("a"), np.array(object()), np.datetime64("2020"), "float6_e2m3fn"),
    *(int, float, str, np.float32, ji.normal(), ji.normal, jnp.sin, len),
    *(lambda x: x, lambda: 1, KEY, jax.random.PRNGKey(0)),
]


def one_line(error, start):
    text = str(error)
    return re.match(start, text) and "\n" not in text and text.endswith((".", "?"))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * ("he" not in n)) for n in OWN]
)
def test_wrong_kinds_of_arguments(name):
    row, build = BASE[name], OWN[name]
    for argument in inspect.signature(build).parameters:
        for wrong in WRONG:
            named = {**row.init.arguments, argument: wrong}
            try:
                init = build(**named)
            except (ValueError, TypeError) as error:
                assert one_line(error, rf"{re.escape(name)}\(\w+=")
                continue
            assert isinstance(init, ji.Initializer) and init == build(**named)
            start = re.escape(repr(init))
            try:
                init.moments(row.shape)
            except (ValueError, TypeError) as error:
                assert one_line(error, rf"{start}\.moments\(shape=")
            try:
                jax.eval_shape(lambda key, init=init: init(key, row.shape), KEY)
            except (ValueError, TypeError) as error:
                assert one_line(error, rf"{start}\(key, shape")


EACH = [ji.he_normal(), ji.zeros(), ji.orthogonal()]


@pytest.mark.parametrize("init", slow_but(EACH[:1], EACH))
def test_wrong_kinds_at_the_call(init):
    for wrong in WRONG:
        for key, shape, dtype in (
            (wrong, (3, 4), None),
            (KEY, wrong, None),
            (KEY, (3, 4), wrong),
        ):
            try:
                jax.eval_shape(lambda key=key, s=shape, d=dtype: init(key, s, d))
            except (ValueError, TypeError) as error:
                assert one_line(error, re.escape(repr(init)) + r"\((key|key, shape)")


ORDER = "the key comes first, and then the shape. Write init"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ji.he_normal()((3, 4), jnp.float32), rf"\(key=\(3, 4\)\): {ORDER}"),
        (lambda: ji.he_normal()((3, 4)), ORDER),
        (lambda: ji.he_normal()([3, 4], dtype="float32"), ORDER),
        (lambda: ji.he_normal()((3, 4), KEY), ORDER),
        (lambda: ji.zeros()((3, 4), jnp.float32), ORDER),
        (lambda: ji.he_normal()(shape=(3, 4)), r"key=None\): key must be a PRNG key"),
        (lambda: ji.he_normal()(KEY), r"shape=None\): shape must be a tuple of int"),
        (lambda: ji.zeros((3, 4)), r"To draw, write zeros\(key, shape\)"),
        (lambda: ji.uniform(-1, 1), r"dtype=1\): dtype must .*low=\.\.\., high=\.\.\."),
        (lambda: ji.normal(0, 0.02), r"Name the arguments: normal\(stddev=.*mean="),
        (lambda: jt.uniform(-1, 1, 3), r"torch.uniform\(dtype=3\).*\(a=\.\.\., b="),
        (lambda: ji.he_normal(KEY), "in_axis cannot be a PRNG key"),
        (lambda: ji.constant(KEY), "value cannot be a PRNG key: it is given to the in"),
        (lambda: ji.constant(0.5, np.ones(2)), "dtype must be a number type"),
        (lambda: ji.stacked(jnp.sin), r"init must be .* function of \(key, shape, dty"),
        (lambda: ji.scaled_uniform_orthogonal(delta=1), "delta must be True or False"),
        (lambda: ji.truncated_normal(corrected=1), "corrected must be True or False"),
        (
            lambda: ji.he_normal(gain=lambda x, y: x),
            r"the activation fails for an array of numbers \(TypeError: .*missing",
        ),
        (lambda: ji.he_normal(gain=ji.he_normal()), "the activation fails for an arr"),
        (lambda: ji.he_normal(gain=("elu", "a")), r"gain=\('elu', 'a'\)\): param must"),
    ],
)
def test_calls_of_other_libraries(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ji.he_normal(gain="rleu"),
            r"^he_normal\(gain='rleu'\): gain must be one of .* Did you mean 'relu'",
        ),
        (
            lambda: ji.he_normal(gain=("rleu", 1)),
            r"^he_normal\(gain=\('rleu', 1\)\): gain must be one of",
        ),
        (
            lambda: ji.he_normal(gain=("relu", 0.1)),
            r"^he_normal\(gain=\('relu', 0.1\)\): only 'celu', 'elu', 'leaky_relu'",
        ),
        (
            lambda: jt.orthogonal(gain="rleu"),
            r"^torch.orthogonal\(gain='rleu'\): gain must be one of",
        ),
        (
            lambda: jt.kaiming_normal(nonlinearity="rleu"),
            r"^torch.kaiming_normal\(nonlinearity='rleu'\): nonlinearity must be one",
        ),
        (
            lambda: jt.trunc_normal(mean=1e9),
            r"^torch.trunc_normal\(a=-2.0\): less than 1e-05 of a normal law",
        ),
        (
            lambda: ji.stacked(lambda key, shape, dtype: jnp.zeros(3))(KEY, (2, 4, 4)),
            r"shape=\(2, 4, 4\)\): init gives \(3,\) for a layer of shape \(4, 4\)",
        ),
    ],
)
def test_values_say_the_argument_that_was_given(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_misspelt_names_of_the_package():
    near = {
        **{f"{name}_": f"jaxinit.{name}" for name in OWN if name.startswith("torch.")},
        **{name: f"jaxinit.{name}" for name in ("torch.linear", "recipes.gpt2")},
        **{"he_norml": "he_normal", "glorot_normal_": "glorot_normal"},
        **{"Initialiser": "Initializer", "lab2": "lab", "reintt": "reinit"},
    }
    for name, cure in near.items():
        word = name.rpartition(".")[2]
        with pytest.raises(AttributeError, match=rf"'{word}'\. Did you mean '{cure}'"):
            getattr(ji, word)
    for name in ("__path2__", "_ipython_display_", "zzz"):
        with pytest.raises(AttributeError, match=rf"no attribute '{name}'\.$"):
            getattr(ji, name)


def test_torch_names_with_an_underscore():
    names = [name for name in OWN if name.startswith("torch.")]
    for name in names:
        word = name.removeprefix("torch.")
        cure = rf"'{word}_'\. Nothing is filled in place: write {word}\(\.\.\.\)\(key, "
        with pytest.raises(AttributeError, match=cure):
            getattr(jt, f"{word}_")
    with pytest.raises(AttributeError, match="Did you mean 'kaiming_normal'"):
        jt.kaming_normal  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'zzz'\.$"):
        jt.zzz  # noqa: B018
    assert not hasattr(jt, "__wrapped__")

"""Cures name the cause that a model has: its input, its weights, its biases."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from inputs import draw_normal, draw_tokens
from marks import slow_but

import jaxinit as ji

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(0)
X = draw_normal(16, 32)
PIXELS = 255 * jax.random.uniform(jax.random.key(1), (16, 32))
Y = jnp.arange(16)


def mlp(weight, act, depth=5, bias=None, head=None, classes=32):
    """A perceptron of functions: layers, and a head without activation."""

    def init(key):
        *keys, last = jax.random.split(key, depth + 1)
        layers = [{"w": weight(k, (32, 32))} for k in keys]
        if bias is not None:
            layers = [each | {"b": jnp.full(32, bias)} for each in layers]
        return [*layers, {"w": (head or ji.lecun_normal())(last, (32, classes))}]

    def apply(params, x):
        for each in params[:-1]:
            x = act(x @ each["w"] + (each["b"][None] if "b" in each else 0.0))
        return x @ params[-1]["w"]

    return init, apply


HE, LECUN, TANH, RELU = ji.he_normal(), ji.lecun_normal(), jnp.tanh, jax.nn.relu
BAD = jnp.asarray(X).at[3, 2].set(jnp.inf)
STANDARD = r"^standardize the input: \(x - 12\d(\.\d)?\) / 7\d(\.\d)?$"
CASES = {
    "pixels, tanh": (mlp(LECUN, TANH), PIXELS, "saturated", STANDARD),
    "tiny input": (
        mlp(HE, RELU),
        1e-8 * X,
        "vanishing",
        r"^standardize the input: x / 1(\.\d*)?e-08$",
    ),
    "infinite input": (
        mlp(HE, RELU),
        BAD,
        "non-finite",
        "^clean the input: <1 % of its entries are infinite or none$",
    ),
    "nan input": (mlp(HE, RELU), BAD * 0, "non-finite", "^clean the input"),
    "dead by biases": (
        mlp(HE, RELU, bias=-20.0),
        X,
        "dead",
        r"^start the biases at zeros\(\): "
        r'params = jaxinit.reinit\(key, params, \[\("\*\*/b", 0.0\)\]\)$',
    ),
    "dead by weights, no biases": (
        mlp(lambda k, s: -abs(HE(k, s)), RELU),
        abs(X),
        "dead",
        "^draw the weights with mean zero",
    ),
    "dead by weights, zero biases": (
        mlp(lambda k, s: -abs(HE(k, s)), RELU, bias=0.0),
        abs(X),
        "dead",
        "^draw the weights with mean zero",
    ),
    "saturated by weights": (
        mlp(ji.normal(1.0), TANH),
        X,
        "saturated",
        r"^use params = jaxinit.reinit\(key, params, \[\(\"5/w\", None\), "
        r"\(\"\*/w\", jaxinit.lecun_normal\(\)\)\], "
        r"structure=jaxinit.structure\(\(init, apply\), x\)\) \(gain 1\)$",
    ),
    "a square root of less than zero": (
        (mlp(HE, RELU)[0], lambda p, x: jnp.sqrt(x @ p[0]["w"]) @ p[1]["w"]),
        X,
        "non-finite",
        "^look at 1/?w? and before it for a division by zero, a logarithm",
    ),
    "too deep": (
        mlp(LECUN, jax.nn.sigmoid, 20),
        X,
        "vanishing gradient",
        "sigmoid passes on at most a quarter",
    ),
}


@pytest.mark.parametrize("name", slow_but(["pixels, tanh"], CASES))
def test_a_cure_names_the_cause(name):
    model, x, condition, cure = CASES[name]
    report = ji.check(model, x, key=KEY, seeds=2, jacobian=0)
    (finding,) = (f for f in report.findings if f.condition == condition)
    assert re.search(cure, finding.cure), finding
    for each in report.findings:
        assert "less deep" not in each.cure
        assert ("biases" in each.cure) == (name == "dead by biases")


@pytest.mark.slow
def test_standardized_pixels_are_healthy():
    x = (PIXELS - PIXELS.mean()) / PIXELS.std()
    assert ji.check(mlp(LECUN, TANH), x, key=KEY, seeds=2, jacobian=0).healthy


@pytest.mark.slow
def test_no_layer_is_healthy_behind_a_signal_that_has_gone():
    report = ji.check(mlp(LECUN, RELU, 40), X, key=KEY, seeds=2, jacobian=0)
    small = [x for x in report.layers if x.mean("std") < 1e-3]
    assert len(small) > 15 and {x.condition for x in small} == {"vanishing"}
    assert report.findings[0].layers[-1] == report.layers[-1].path


# The loss against chance.


def cross_entropy(z):
    return optax.softmax_cross_entropy_with_integer_labels(z, Y).mean()


LOUD = mlp(HE, RELU, 2, head=ji.normal(8.0), classes=1000)


@pytest.mark.slow
def test_a_loss_above_chance_is_told_with_its_cause():
    """As the issue saw it: 251, where log(classes) is 6.9."""
    given = {"key": KEY, "seeds": 2, "jacobian": 0}
    report = ji.check(LOUD, X, loss=cross_entropy, **given)
    assert report.condition == "loss above chance"
    (finding,) = report.findings
    assert finding.layers == (report.layers[-1].path,)
    assert "where guessing among 1000 classes has 6.9" in finding.reason
    told = float(finding.reason.split("starts at ")[1].split(",")[0])
    assert told > 100 and abs(told / report.loss.mean() - 1) < 0.2
    smaller = re.fullmatch(
        r"use jaxinit.normal\((.*)\) for the weight of .*", finding.cure
    )
    quiet = mlp(HE, RELU, 2, head=ji.normal(float(smaller[1])), classes=1000)
    params = quiet[0](KEY)
    assert cross_entropy(quiet[1](params, X)) < 2 * np.log(1000)


@pytest.mark.slow
def test_without_a_loss_it_is_told_under_a_condition():
    given = {"key": KEY, "seeds": 2, "jacobian": 0}
    report = ji.check(LOUD, X, **given)
    assert report.healthy
    assert "are logits of 1000 classes, a cross-entropy starts at" in report.table()
    quiet = ji.check(mlp(HE, RELU, 2, classes=1000), X, **given)
    assert quiet.healthy and "logits" not in quiet.table()


@pytest.mark.slow
def test_pixels_are_to_blame_for_a_loss_above_chance():
    model = mlp(HE, RELU, 2)
    given = {"key": KEY, "seeds": 2, "jacobian": 0, "loss": cross_entropy}
    (finding,) = ji.check(model, PIXELS, **given).findings
    assert finding.condition == "loss above chance"
    assert finding.cure.startswith("standardize the input: (x - 12")
    assert ji.check(model, (PIXELS - 127) / 74, **given).healthy


# Transformers.

TOKENS = draw_tokens(4, 16)


class Transformer(nn.Module):
    """Pre-norm."""

    kernel: object = nn.initializers.lecun_normal()
    embedding: object = ji.normal(0.02)
    tied: bool = False
    depth: int = 6
    causal: bool = False

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(100, 64, embedding_init=self.embedding, name="embed")
        x = embed(tokens)
        mask = nn.make_causal_mask(tokens) if self.causal else None
        for i in range(self.depth):
            h = nn.LayerNorm()(x)
            attention = nn.MultiHeadDotProductAttention(
                4, kernel_init=self.kernel, name=f"block_{i}_attention"
            )
            x = x + attention(h, h, mask=mask)
            h = nn.gelu(nn.Dense(128, kernel_init=self.kernel)(nn.LayerNorm()(x)))
            x = x + nn.Dense(64, kernel_init=self.kernel)(h)
        x = nn.LayerNorm()(x)
        return embed.attend(x) if self.tied else nn.Dense(100)(x)


def checked(model, seeds=3):
    return ji.check(model, TOKENS, key=KEY, seeds=seeds, jacobian=0)


@pytest.mark.slow
def test_saturated_attention_is_named_by_block_and_cured():
    """A22: kernels of N(0, 1), width 64."""
    report = checked(Transformer(ji.normal(1.0)))
    assert report.condition == "saturated attention"
    (finding, *_) = report.findings
    assert set(finding.layers) == {
        f"block_{i}_attention/{part}" for i in range(6) for part in ("query", "key")
    }
    gain = r"jaxinit.lecun_normal\(\) \(gain 1, not (7\.9|8|8\.1)\)"  # 8 for width 64
    assert re.search(f"{gain} in block_0_attention/query", finding.cure)
    assert checked(Transformer(causal=True)).healthy


@pytest.mark.slow
def test_a_tied_embedding_is_named_and_cured():
    """A22: an embedding of N(0, 1), which is the readout too."""
    report = checked(Transformer(embedding=ji.normal(1.0), tied=True, depth=1))
    assert report.condition == "loss above chance"
    (finding,) = report.findings
    assert finding.layers == ("embed",) and "has 4.6" in finding.reason
    assert finding.cure == "use jaxinit.normal(0.1) for the weight of embed"
    assert checked(Transformer(embedding=ji.normal(0.1), tied=True, depth=1)).healthy
    assert np.isfinite(report.loss).all()

"""Verdicts on attention, on the loss at the start, and on what is to blame."""

from pathlib import Path
from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from inputs import draw_normal
from marks import slow_but

import jaxinit as ji
from jaxinit._adapt.adapt import adapt
from jaxinit.signal._judge.verdicts import VERDICTS, Condition
from jaxinit.signal._measure.chance import compare_to_chance, find_readout
from jaxinit.signal._measure.flow import make_zeros
from jaxinit.signal._measure.program import prepare
from jaxinit.signal._report.plot import _SIGNAL
from jaxinit.signal._trace.attention import find_layers_before
from jaxinit.signal._trace.evaluate import evaluate_plan
from jaxinit.signal._trace.find import plan
from jaxinit.signal._trace.softmax import Graph

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(0)
X = draw_normal(32, 16)
LECUN = nn.initializers.lecun_normal()
WIDTH, HEADS = 64, 4


# The list of verdicts.


def test_every_condition_has_a_verdict_and_a_color_of_its_own():
    names = [verdict.name for verdict in VERDICTS]
    assert {"healthy", *names} == {*get_args(Condition)}
    colors = {verdict.color for verdict in VERDICTS}
    assert len(colors) == len({*names}) == len(names)
    assert _SIGNAL not in colors  # what is healthy has one too


def test_the_page_tables_every_verdict():
    rows = [f"| {v.name} | {v.means} | {v.limit} |\n" for v in VERDICTS]
    page = Path(ji.signal.__file__).with_name("README.md").read_text()
    assert f"|---|---|---|\n{''.join(rows)}\n" in page


# Attention: each spelling gets queries, keys and values [batch, length, heads, size].


def masked(logits, causal):
    below = jnp.tril(jnp.ones(logits.shape[-2:], bool))
    return jnp.where(below, logits, jnp.finfo(logits.dtype).min) if causal else logits


def einsum(softmax):
    def attend(q, k, v, causal):
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        return jnp.einsum("bhqk,bkhd->bqhd", softmax(masked(logits, causal)), v)

    return attend


def by_hand(x):
    e = jnp.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_reciprocal(x):
    e = jnp.exp(x - x.max(-1, keepdims=True))
    return e * (1 / e.sum(-1)[..., None])


def dot_product(q, k, v, causal):
    return jax.nn.dot_product_attention(q, k, v, is_causal=causal)


def of_flax(q, k, v, causal):
    mask = nn.make_causal_mask(jnp.ones(q.shape[:2])) if causal else None
    return nn.dot_product_attention(q, k, v, mask=mask)


def of_nnx(q, k, v, causal):
    mask = nn.make_causal_mask(jnp.ones(q.shape[:2])) if causal else None
    return nnx.dot_product_attention(q, k, v, mask=mask)


def with_bias(q, k, v, causal):
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    bias = jnp.linspace(0, 1, logits.shape[-1])[None, None, None]
    weights = jax.nn.softmax(masked(logits + bias, causal)).astype(jnp.bfloat16)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(v.dtype), v)


SPELLINGS = {
    "jax.nn.softmax": einsum(jax.nn.softmax),
    "by hand": einsum(by_hand),
    "reciprocal": einsum(by_reciprocal),
    "exp log_softmax": einsum(lambda x: jnp.exp(jax.nn.log_softmax(x))),
    "exp logsumexp": einsum(
        lambda x: jnp.exp(x - jax.nn.logsumexp(x, axis=-1, keepdims=True))
    ),
    "jitted": jax.jit(einsum(jax.nn.softmax), static_argnums=3),
    "jitted softmax": einsum(jax.jit(by_hand)),
    "remat": jax.checkpoint(einsum(jax.nn.softmax), static_argnums=3),
    "dot_product_attention": dot_product,
    "flax.linen": of_flax,
    "flax.nnx": of_nnx,
    "bias and bfloat16": with_bias,
}


def layer(attend, causal):
    """One attention, as a function of its weights and an input."""

    def run(weights, x):
        q, k, v = (jnp.einsum("btd,dhs->bths", x, w) for w in weights)
        return attend(q, k, v, causal)

    return run


def weights_of(std, size=WIDTH // HEADS):
    shape = 3, WIDTH, HEADS, size
    return list(std * jax.random.normal(jax.random.key(2), shape))


def measured(run, weights, x):
    """Runs a model and returns the numbers of its attentions, and their layers."""
    count = len(jax.tree.leaves(weights))
    traced = jax.make_jaxpr(run)(weights, x)
    found = plan(traced, [*(frozenset({i}) for i in range(count)), None])
    leaf_of = {site.number: site.leaf for site, _ in found.all_sites()}
    args = [*jax.tree.leaves(weights), x]
    zeros = make_zeros(list(found.all_sites()))
    values = jax.jit(lambda *args: evaluate_plan(found, args, zeros)[1])(*args)
    return [
        (float(values[each.number]["attention_saturated"]), each, values[each.number])
        + (sorted(leaf_of[number] for number in layers),)
        for each, layers in find_layers_before(found, [frozenset()] * len(args))
    ]


def expected(weights, x, causal):
    """The share of rows of which the Jacobian has less than 1/20 of its trace."""
    q, k = (np.einsum("btd,dhs->bhts", x, w) for w in weights[:2])
    logits = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
    length = logits.shape[-1]
    rows = []
    for row in logits.reshape(-1, length, length):
        for t, logit in enumerate(row):
            seen = np.array(logit[: t + 1] if causal else logit, np.float64)
            if len(seen) > 1:
                p = np.exp(seen - seen.max())
                p /= p.sum()
                rows.append(1 - (p**2).sum() < 0.05 * (1 - 1 / len(seen)))
    return np.mean(rows)


@pytest.mark.parametrize("causal", slow_but([False], [False, True]))
@pytest.mark.parametrize(
    "name", slow_but(["jax.nn.softmax", "dot_product_attention"], SPELLINGS)
)
def test_attention_is_found_in_every_spelling(name, causal):
    x = jax.random.normal(jax.random.key(3), (2, 8, WIDTH))
    for std, sick in ((1.0, True), (WIDTH**-0.5, False)):
        weights = weights_of(std)
        ((share, attention, _, layers),) = measured(
            layer(SPELLINGS[name], causal), weights, x
        )
        assert layers == [0, 1] and attention.size == WIDTH // HEADS
        assert share == pytest.approx(expected(weights, x, causal), abs=0.03)
        assert (share > 0.5) is sick


@pytest.mark.parametrize("length", slow_but([8], [2, 8, 32, 128]))
@pytest.mark.parametrize("causal", [False, True])
def test_usual_attention_is_far_from_the_limit(length, causal):
    """With logits of variance 1, hardly a row lets one key have all the weight."""
    x = jax.random.normal(jax.random.key(3), (4, length, WIDTH))
    run = layer(SPELLINGS["jax.nn.softmax"], causal)
    ((share, _, values, _),) = measured(run, weights_of(WIDTH**-0.5), x)
    assert share < 0.05 and abs(values["attention_std"] - 1) < 0.35


def test_a_row_that_sees_one_key_does_not_count():
    x = jax.random.normal(jax.random.key(3), (2, 8, WIDTH))

    def itself(q, k, v, causal):
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / 4
        seen = jnp.where(jnp.eye(8) > 0, logits, -1e9)
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(seen), v)

    ((share, *_),) = measured(layer(itself, False), weights_of(0.1), x)
    assert share == 0


def test_attention_in_a_loop_is_measured_by_step():
    x = jax.random.normal(jax.random.key(3), (2, 8, WIDTH))
    stds = np.array([WIDTH**-0.5, 1.0, WIDTH**-0.5], np.float32)
    weights = stds[:, None, None, None, None] * jnp.stack(weights_of(1.0))

    def run(weights, x):
        def step(x, weights):
            y = layer(SPELLINGS["flax.linen"], False)(list(weights), x)
            return x + 0 * y.reshape(x.shape), None

        return jax.lax.scan(step, x, weights)[0]

    traced = jax.make_jaxpr(run)(weights, x)
    found = plan(traced, [frozenset({0}), None])
    zeros = make_zeros(list(found.all_sites()))
    values = jax.jit(lambda *args: evaluate_plan(found, args, zeros)[1])(weights, x)
    ((attention, layers),) = find_layers_before(found, [frozenset()] * 2)
    shares = values[attention.number]["attention_saturated"]
    assert layers and list(shares > 0.5) == [False, True, False]


ROUTERS = {
    "router": lambda w, x: jax.nn.softmax(x @ w[0]) @ w[1],
    "gates by data": lambda w, x: jnp.einsum(
        "be,bef->bf", jax.nn.softmax(x @ w[0]), jnp.einsum("bd,def->bef", x, w[2])
    ),
    "similarities": lambda w, x: jax.nn.softmax((x @ w[0]) @ (x @ w[0]).T),
    "linear attention": lambda w, x: (x @ w[0]) @ ((x @ w[0]).T @ (x @ w[1])),
}


@pytest.mark.parametrize("name", ROUTERS)
def test_what_is_no_attention_is_not_taken_for_one(name):
    w = [jnp.ones((16, 16)), jnp.ones((16, 16)), jnp.ones((16, 16, 4))]
    traced = jax.make_jaxpr(ROUTERS[name])(w, X)
    origins = [frozenset({0}), frozenset({1}), frozenset({2}), None]
    assert not plan(traced, origins).attentions


# The loss against chance.


@pytest.mark.parametrize("classes", slow_but([10], [2, 10, 1000]))
@pytest.mark.slow
def test_the_loss_to_expect_is_that_of_random_labels(classes):
    z = 1.5 * np.asarray(jax.random.normal(KEY, (400, classes)), np.float64)
    found = compare_to_chance(jnp.asarray(z, jnp.float32))
    losses = np.log(np.exp(z).sum(1)) - z.T  # [labels, examples]
    assert float(found["expected_loss"]) == pytest.approx(losses.mean(), rel=1e-4)
    assert float(found["chance_loss"]) == pytest.approx(np.log(classes), rel=1e-5)


@pytest.mark.slow
def test_the_limit_is_where_softmax_freezes():
    """At s = sqrt(2 log C) the loss is twice that of guessing, in the limit of C."""
    classes = 2**16
    s = np.sqrt(2 * np.log(classes))
    z = s * jax.random.normal(KEY, (64, classes))
    found = compare_to_chance(z)
    ratio = float(found["expected_loss"] / found["chance_loss"])
    assert 1.75 < ratio < 2  # it comes from below: log C + s^2 / 2 is the annealed one
    assert float(compare_to_chance(z / 3)["expected_loss"]) == pytest.approx(
        np.log(classes) + s**2 / 18, rel=0.01
    )


Y = jnp.arange(32) % 10
LOSSES = {
    "optax": lambda z: optax.softmax_cross_entropy_with_integer_labels(z, Y).mean(),
    "optax, one-hot": lambda z: optax.softmax_cross_entropy(
        z, jax.nn.one_hot(Y, 10)
    ).sum(),
    "log_softmax": lambda z: (
        -jnp.take_along_axis(jax.nn.log_softmax(z), Y[:, None], 1).mean()
    ),
    "by hand": lambda z: (
        jnp.log(jnp.exp(z).sum(-1)) - jax.vmap(lambda z, y: z[y])(z, Y)
    ).mean(),
    "vmapped": lambda z: jax.vmap(lambda z, y: jax.nn.logsumexp(z) - z[y])(z, Y).mean(),
    "jitted": jax.jit(
        lambda z: optax.softmax_cross_entropy_with_integer_labels(z, Y).mean()
    ),
    "log of softmax": lambda z: (
        -jnp.log(jnp.take_along_axis(jax.nn.softmax(z), Y[:, None], 1)).mean()
    ),
}
OTHERS = {
    "squares": lambda z: (z**2).mean(),
    "temperature": lambda z: jax.nn.logsumexp(z / 100, axis=-1).mean(),
    "among examples": lambda z: jax.nn.logsumexp(z @ z.T, axis=-1).mean(),
    "softplus": lambda z: jax.nn.softplus(z).mean(),
}


def known(loss):
    traced = jax.make_jaxpr(lambda w, x: x @ w)(jnp.ones((16, 10)), X)
    found = plan(traced, [frozenset({0}), None])
    outputs = [jax.ShapeDtypeStruct((32, 10), jnp.float32)]
    of_arrays = loss and jax.make_jaxpr(lambda parts: loss(*parts))(outputs)
    return find_readout(found, list(found.all_sites()), outputs, of_arrays)


@pytest.mark.parametrize("name", LOSSES)
def test_a_cross_entropy_is_known_by_its_normalizer(name):
    assert known(LOSSES[name]).known and known(LOSSES[name]).classes == 10


@pytest.mark.parametrize("name", OTHERS)
def test_another_loss_is_none(name):
    assert not known(OTHERS[name]).known
    assert not known(None).known


def test_softmax_is_read_through_calls():
    jaxpr = jax.make_jaxpr(jax.jit(jax.nn.log_softmax))(X).jaxpr
    (found, *_) = Graph(jaxpr).find_normalizers()
    assert Graph(jaxpr).find_root(found.of) is jaxpr.invars[0] and found.axis == 1


class Language(nn.Module):
    embedding: object
    tied: bool
    vocabulary: int = 100

    @nn.compact
    def __call__(self, tokens):
        table = nn.Embed(100, 32, embedding_init=self.embedding, name="embed")
        x = nn.LayerNorm()(nn.Dense(32)(table(tokens)))
        return table.attend(x) if self.tied else nn.Dense(self.vocabulary)(x)


@pytest.mark.parametrize(
    ("model", "classes", "name"),
    [
        (Language(ji.normal(1.0), True), 100, "embed"),
        (Language(ji.normal(1.0), False), 100, "Dense_1"),
        (Language(ji.normal(1.0), False, 7), None, "Dense_1"),
    ],
)
def test_outputs_for_each_token_of_a_vocabulary_are_logits(model, classes, name):
    tokens = jnp.zeros((4, 8), jnp.int32)
    found = prepare(adapt(model, (tokens,), {}, ()), (tokens,), KEY)
    paths = {site.number: site.path for site, _ in found.sites}
    assert paths[found.readout.site] == name
    assert (found.readout.classes if found.readout.known else None) == classes

"""No healthy network is accused, no sick one missed; a cure, pasted as it is, cures."""

import dataclasses
import re

import haiku as hk
import jax
import nets
import pytest
from healthy import HEALTHY
from sick import SICK

import jaxinit as ji
from jaxinit._adapt.adapt import adapt
from jaxinit.signal._judge.judge import judge
from jaxinit.signal._judge.paste import find_globs
from jaxinit.signal._judge.verdicts import LIMIT
from jaxinit.signal._measure.seeds import measure

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(0)
NETS = {**HEALTHY, **SICK}
SEEDS = 20
FEW = 1  # in the default run, of the networks below: they compile quickly
DEFAULT = {
    "adapters",
    "adapters, both halves zero",
    "adapters, large",
    "autoencoder",
    "autoencoder, small",
    "autoencoder, large biases",
    "vanilla, radius 0.3",
    "equinox, he",
    "equinox, large",
    "convolutions, he",
    "convolutions, small",
}
QUICK = sorted({net.kind for name, net in NETS.items() if name in DEFAULT})
KINDS = sorted({net.kind for net in NETS.values()})


def judge_seeds(net, seeds):
    """Yields the findings from all seeds together, and those from each."""
    inputs = net.x if isinstance(net.x, tuple) else (net.x,)
    model = adapt(net.model, inputs, {}, ())
    run = measure(model, inputs, KEY, seeds, net.loss, None, 0)
    rest = model.framework(), run.program.paths
    yield judge(run.layers, LIMIT, run.gains, *rest)[1]
    for seed in range(seeds):
        one = slice(seed, seed + 1)

        def take(statistics, one=one):
            return {name: values[one] for name, values in statistics.items()}

        layers = [
            dataclasses.replace(m, forward=take(m.forward), backward=take(m.backward))
            for m in run.layers
        ]
        yield judge(layers, LIMIT, take(run.gains), *rest)[1]


def check_table(kind, seeds, pick=lambda name: True):
    for name, net in NETS.items():
        if net.kind != kind or not pick(name):
            continue
        for findings in judge_seeds(net, seeds):
            if name in HEALTHY:
                assert not findings, (name, findings)
                continue
            assert findings, name
            first = findings[0]
            assert first.condition == net.condition, (name, first)
            assert re.match(net.layer, first.layers[0]), (name, first)
            assert re.search(net.cure, first.cure), (name, first)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_healthy_network_is_accused_and_no_sick_one_missed(kind):
    check_table(kind, SEEDS)


@pytest.mark.parametrize("kind", QUICK)
def test_networks_that_compile_quickly_get_their_verdict(kind):
    check_table(kind, FEW, lambda name: name in DEFAULT)


def test_the_tables_are_as_large_as_promised():
    assert len(HEALTHY) >= 40 and len(SICK) > 60  # as the README says
    assert len({net.kind for net in HEALTHY.values()}) >= 8
    assert len({net.kind for net in SICK.values()}) >= 8
    for table in (HEALTHY, SICK):
        by = [net.framework for net in table.values()]
        every = "linen", "nnx", "equinox", "haiku", "functions"
        assert all(by.count(framework) >= 2 for framework in every)
    assert DEFAULT <= {*NETS} and not {*HEALTHY} & {*SICK}


# Cures.

CODE = re.compile(r"(?:model|params) = jaxinit\.reinit\(.*?\](?:, .*x\))?\)")
ARGUMENT = re.compile(r"(\w+_init)=(.*?\)|.*?shape\))(?= \(gain|, | in |$)")
REBUILT = {  # with what a cure gives to an argument of the layers
    "relu, gain 1 at depth": lambda init: nets.Perceptron(init),
    "norms with gain zero": lambda init: nets.Perceptron(norm=True, gain=init),
    "dead by biases": lambda init: nets.Perceptron(bias=init),
    "pre-norm, normal(1)": lambda init: nets.PreNorm(init),
    "autoencoder, small": lambda init: nets.autoencoder(init),
    "post-norm, normal(1)": lambda init: nets.post_norm(init),
    "post-norm, gains zero": lambda init: nets.post_norm(gain=init),
    "haiku, small": lambda init: nets.haiku_perceptron(init),
    "haiku, dead by biases": lambda init: nets.haiku_perceptron(b_init=init),
    "convolutions, large": lambda init: nets.haiku_convolutions(init),
}
REDRAWN = (
    "equinox, large",
    "equinox, zeros",
    "adapters, both halves zero",
    "graph, small",
    "llama, gated projections zero",
    "llama, gains zero",
    "llama, normal(1)",
)
INPUTS = ("convolutions, tanh, pixels", "mean 100")
IN_DEFAULT_RUN = ("autoencoder, small",)


def paste(name, cure):
    """Does what a cure says; returns the model, its input and its weights, if given."""
    net = SICK[name]
    given = {"jaxinit": ji, "hk": hk, "x": net.x, "key": KEY}
    if found := re.match("standardize the input: (.*)", cure):
        return net.model, eval(found[1], given), None
    if name in REBUILT:
        return REBUILT[name](eval(ARGUMENT.search(cure)[2], given)), net.x, None
    code = CODE.search(cure)[0]
    if net.framework == "equinox":
        given["model"] = net.model(KEY)
        exec(code, given)
        return given["model"], net.x, given["model"]
    given["init"], given["apply"] = net.model
    given["params"] = net.model[0](KEY)
    exec(code, given)
    return net.model, net.x, given["params"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in IN_DEFAULT_RUN))
        for name in (*REBUILT, *REDRAWN, *INPUTS)
    ],
)
def test_a_cure_can_be_pasted_and_the_verdict_is_gone(name):
    net = SICK[name]
    given = {"key": KEY, "seeds": FEW, "jacobian": 0, "loss": net.loss}
    sick = ji.check(net.model, net.x, **given)
    (finding, *_) = sick.findings
    assert finding.condition == net.condition
    model, x, params = paste(name, finding.cure)
    cured = ji.check(model, x, params=params, **given)
    assert net.condition not in {each.condition for each in cured.findings}


@pytest.mark.parametrize(
    ("wanted", "others", "kept", "globs"),
    [
        ({"a/w", "b/w"}, {"a/b"}, [], ["**/w"]),
        ({"a/0/w", "a/1/w"}, {"b/0/w"}, [], ["a/*/w"]),
        ({"a/0/w"}, {"a/1/w"}, [], ["a/0/w"]),
        ({"a/0/w", "b/w"}, {"c/w"}, [], ["a/0/w", "b/w"]),
        ({"a/0/b", "a/1/w"}, {"a/1/b"}, [], ["a/0/b", "a/1/w"]),
        ({"a/0/w", "a/1/w"}, {"a/2/w"}, ["a/2/w"], ["a/*/w"]),
        ({"a/0/w", "a/1/w"}, {"a/2/w", "a/3/w"}, [], ["a/0/w", "a/1/w"]),
    ],
)
def test_globs_match_what_is_wanted(wanted, others, kept, globs):
    every = sorted(wanted | others)
    assert find_globs(wanted, every) == (kept, globs)
    tree = {path: jax.numpy.zeros(3) for path in every}
    rules = [*((path, None) for path in kept), *((glob, 1.0) for glob in globs)]
    drawn = ji.reinit(KEY, tree, rules)
    assert {path for path, value in drawn.items() if value.all()} == wanted

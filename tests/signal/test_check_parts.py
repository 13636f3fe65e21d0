"""`check` in parts: the same statistics in NumPy and in a program, compiled once."""

import contextlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import monitoring
from marks import slow_but

import jaxinit as ji
from jaxinit._jaxpr.spelling import spell_program
from jaxinit.signal._measure import _kept, jacobian, seeds

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(0)
X, IMAGES = (  # by NumPy: what is compiled here, every worker of a run compiles
    np.random.default_rng(1).normal(size=shape).astype(np.float32)
    for shape in ((8, 12), (2, 6, 6, 3))
)
TOKENS = np.arange(12).reshape(2, 6)


class Dense(nn.Module):
    kernel: object = ji.he_normal()
    depth: int = 2
    act: object = nn.relu

    @nn.compact
    def __call__(self, x):
        for _ in range(self.depth):
            x = self.act(nn.LayerNorm()(nn.Dense(12, kernel_init=self.kernel)(x)))
        return nn.Dense(3, kernel_init=self.kernel)(x)


class Images(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.tanh(nn.Conv(4, (3, 3))(x))
        return nn.Dense(3)(x.reshape(len(x), -1))


class Words(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(12, 8)(tokens)
        x = x + nn.MultiHeadDotProductAttention(2)(x, x)
        return nn.Dense(12)(x)


def matrices(dtype, scale=1.0, act=lambda y: y):
    draw = ji.lecun_normal()

    def init(key):
        keys = jax.random.split(key)
        return [(scale * draw(k, (12, 12))).astype(dtype) for k in keys]

    return init, lambda w, x: act(x.astype(dtype) @ w[0]) @ w[1]


MODELS = {
    "dense": (Dense(), X),
    "loop": (nn.RNN(nn.OptimizedLSTMCell(6)), X.reshape(2, 4, 12)),
    "convolutions": (Images(), IMAGES),
    "tokens": (Words(), TOKENS),
    "bfloat16": (matrices(jnp.bfloat16, act=jnp.tanh), X),
    "complex": (matrices(jnp.complex64), X.astype(np.complex64)),
    "infinite": (matrices(np.float32, 1e30), X),
    "nan": (matrices(np.float32, act=jnp.log), X),
    "zeros": (matrices(np.float32, 0.0), X),
}


def report(model, x, key=KEY, **more):
    with jax.numpy_dtype_promotion("standard"):
        return ji.check(model, x, key=key, seeds=2, jacobian=1, **more)


@contextlib.contextmanager
def counting():
    """Names what is compiled meanwhile, even if a cache on disk has it."""
    names = []

    def note(event, seconds, **more):
        if event.endswith("jaxpr_to_mlir_module_duration"):
            names.append(more.get("fun_name"))

    monitoring.register_event_duration_secs_listener(note)
    try:
        yield names
    finally:
        monitoring.unregister_event_duration_listener(note)


@pytest.fixture
def in_program(monkeypatch):
    """Lets no machine hold what flows through a model; says whether it was asked."""
    asked = []

    def forget_memory():
        asked.append(True)
        return 0.0

    def switch():
        monkeypatch.setattr(seeds, "_measure_memory", forget_memory)
        return asked

    return switch


@pytest.mark.parametrize("name", slow_but(["infinite"], MODELS))
def test_both_paths_agree(name, in_program):
    model, x = MODELS[name]
    host = report(model, x)
    asked = in_program()
    device = report(model, x)
    assert asked  # what flows did not fit
    assert len(host.layers) == len(device.layers)
    for a, b in zip(host.layers, device.layers, strict=True):
        for ours, theirs in ((a.forward, b.forward), (a.backward, b.backward)):
            assert ours.keys() == theirs.keys()
            for key, value in ours.items():
                # A mean may cancel: it is known to a share of the size of the entries.
                size = {"mean": "rms", "weight_mean": "weight_std", "sample": "rms"}
                of = np.abs(theirs[size.get(key, key)])
                of = np.where(np.isfinite(of), of, 0).max()
                # XLA may skip the rounding of 16-bit logits within a program.
                share = 1e-4 if (name, key) == ("bfloat16", "expected_loss") else 2e-6
                np.testing.assert_allclose(
                    value, theirs[key], rtol=share, atol=1e-6 * of, err_msg=key
                )
                assert value.dtype == theirs[key].dtype, key
        assert a.condition == b.condition
    assert host.findings == device.findings


@pytest.mark.slow
def test_many_steps_are_summed_up_in_the_program(monkeypatch):
    asked = []
    monkeypatch.setattr(seeds, "_MOST_ROWS", 3)
    monkeypatch.setattr(seeds, "_measure_memory", lambda: asked.append(True))
    report(*MODELS["dense"])
    assert not asked


def test_another_key_compiles_nothing():
    model = Dense(depth=3)
    report(model, X)
    second, third = jax.random.key(5), jax.random.key(6)
    with counting() as names:
        report(model, X, second)
        report(Dense(depth=3), X, third)
    assert names == []


def test_another_initializer_compiles_its_law_alone():
    report(Dense(depth=3), X)
    with counting() as names:
        report(Dense(ji.glorot_uniform(), depth=3), X)
    assert not {"jit(flow)", "jit(multiply)"}.intersection(names)


@pytest.mark.parametrize(
    "other",
    slow_but([{"act": nn.sigmoid}], [{"act": nn.sigmoid}, {"depth": 4}]),
    ids=list,
)
def test_another_model_is_compiled(other):
    report(Dense(depth=3), X)
    with counting() as names:
        report(Dense(**{"depth": 3} | other), X)
    assert {"jit(flow)", "jit(multiply)"} <= set(names)


@pytest.mark.slow
def test_derivatives_tell_equal_models_apart():
    """A rule of its own for the derivative changes no value of the model."""

    def custom(scale):
        @jax.custom_jvp
        def act(y):
            return jnp.maximum(y, 0)

        act.defjvp(lambda ys, ts: (jnp.maximum(ys[0], 0), scale * ts[0]))
        return act

    one, two = (report(matrices(np.float32, act=custom(s)), X) for s in (1.0, 3.0))
    (first, *_), (other, *_) = one.layers, two.layers
    np.testing.assert_array_equal(first.forward["std"], other.forward["std"])
    np.testing.assert_allclose(
        3 * first.backward["std"], other.backward["std"], rtol=1e-5
    )
    np.testing.assert_allclose(
        3 * one.jacobian["largest"], two.jacobian["largest"], rtol=1e-4
    )


@pytest.mark.parametrize("rule", slow_but(["vjp"], ["jvp", "vjp"]))
@pytest.mark.slow
def test_derivatives_tell_equal_layers_of_one_model_apart(rule):
    """The last one is steep above 7 alone: nearly all entries are where it is flat."""

    def custom(slope):
        act = getattr(jax, f"custom_{rule}")(lambda y: jnp.maximum(y, 0) - 0.1)
        if rule == "jvp":
            act.defjvp(lambda ys, ts: (act(ys[0]), slope(ys[0]) * ts[0]))
        else:
            act.defvjp(lambda y: (act(y), y), lambda y, g: (slope(y) * g,))
        return act

    steep = custom(jnp.ones_like), custom(jnp.ones_like)
    acts = *steep, custom(lambda y: (y > 7) * jnp.ones_like(y))
    draw = ji.lecun_normal()

    def run(weights, x):
        for weight, act in zip(weights, acts, strict=True):
            x = act(x @ weight)
        return x

    found = report((lambda key: [draw(key, (12, 12))] * 3, run), X)
    shares = [layer.mean("saturated") for layer in found.layers]
    assert shares[:2] == [0, 0] and shares[2] > 0.99


@pytest.mark.slow
def test_captured_numbers_tell_activations_apart():
    """Within a function that is compiled, and within a loop, too."""

    def bend(slope, jitted=False):
        number = jnp.array(slope)

        def act(y):
            return jnp.where(y > 0, y, number * y)

        return jax.jit(act) if jitted else act

    acts = bend(0.0), bend(0.01), bend(1.5), bend(0.5, True), bend(0.01, True)
    draw = ji.lecun_normal()

    def init(key):
        return [draw(k, (12, 12)) for k in jax.random.split(key, 6)]

    def run(weights, x):
        for weight, act in zip(weights, acts, strict=False):
            x = act(x @ weight)

        def step(x, weight):
            return acts[1](x @ weight), None

        return jax.lax.scan(step, x, weights[5][None])[0]

    found = report((init, run), X)
    known = ["relu", "leaky_relu", "function", "function", "leaky_relu", "leaky_relu"]
    assert [layer.activation for layer in found.layers] == known
    zeros = [layer.mean("activation_zeros") for layer in found.layers]
    assert zeros[0] > 0.3 and not any(zeros[1:])
    bent = bend(0.5)
    assert ji.gain(bent) == pytest.approx((2 / (1 + 0.25)) ** 0.5, rel=1e-5)


def test_constants_tell_programs_apart():
    def trace(c):
        return spell_program(jax.make_jaxpr(lambda x: jax.jit(jnp.add)(x, c))(X))

    assert trace(np.ones(12, "f")) == trace(np.ones(12, "f"))
    assert trace(np.ones(12, "f")) != trace(np.zeros(12, "f"))
    assert trace(jax.random.key(1).size) != trace(2)


def test_what_is_kept_is_bounded():
    _kept.forget()
    for number in range(2 * _kept.MOST):
        assert _kept.keep(number, lambda number=number: number) == number
    assert len(_kept._kept) == _kept.MOST
    newest = 2 * _kept.MOST - 1
    assert _kept.keep(newest, lambda: "made again") == newest
    assert _kept.keep(0, lambda: "made again") == "made again"
    _kept.forget()


def test_a_failure_is_not_kept(monkeypatch):
    class Failing:
        def lower(self, *args):
            return self

        def compile(self):
            raise RuntimeError("no memory")

    _kept.forget()
    with seeds.open_pool(1) as pool, monkeypatch.context() as patch:
        patch.setattr(jax, "jit", lambda function: Failing())
        job = _kept.compile_once(pool, jnp.sin, "sin", X)
    with pytest.raises(RuntimeError, match="no memory"):
        job.result()
    assert not _kept._kept


@pytest.mark.parametrize("first", [0.0, pytest.param(-0.0, marks=pytest.mark.slow)])
def test_zeros_of_either_sign_are_not_one_program(first):
    init, _ = matrices(np.float32)
    losses = [
        report((init, lambda w, x, z=z: jnp.copysign(jnp.abs(x @ w[0]), z)), X).loss
        for z in (first, -first)
    ]
    np.testing.assert_array_equal(losses[0], -losses[1])


def test_an_activation_with_a_backward_pass_of_its_own():
    own = jax.custom_vjp(jax.nn.relu)
    own.defvjp(lambda x: (jax.nn.relu(x), x), lambda x, g: (jnp.where(x > 0, g, 0),))
    found, known = (
        report(matrices(np.float32, act=act), X) for act in (own, jax.nn.relu)
    )
    for one, other in zip(found.layers, known.layers, strict=True):
        assert one.forward.keys() == other.forward.keys()
        for name, value in one.forward.items():
            np.testing.assert_allclose(value, other.forward[name], 1e-6, err_msg=name)


@pytest.mark.parametrize("outputs", slow_but([3], [3, 20]))
@pytest.mark.slow
def test_few_outputs_have_the_singular_values_of_many(outputs, monkeypatch):
    def draw(key):
        keys = jax.random.split(key)
        return [
            ji.he_normal()(k, s)
            for k, s in zip(keys, [(12, 9), (9, outputs)], strict=True)
        ]

    model = draw, lambda w, x: jnp.tanh(x @ w[0]) @ w[1]
    few = report(model, X).jacobian
    _kept.forget()
    monkeypatch.setattr(jacobian, "_FEW", 0)
    many = report(model, X).jacobian
    for name, value in few.items():
        np.testing.assert_allclose(value, many[name], rtol=1e-6, err_msg=name)
    _kept.forget()


@pytest.mark.parametrize(
    "make", slow_but([jax.random.key], [jax.random.key, jax.random.PRNGKey])
)
def test_keys_on_another_device(make):
    key = make(7)
    there = jax.device_put(key, jax.devices()[3])
    found, known = (report(Dense(), X, key=k) for k in (there, key))
    np.testing.assert_array_equal(found.loss, known.loss)

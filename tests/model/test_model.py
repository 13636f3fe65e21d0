"""`jit_init`: bit for bit `jax.jit`, one program for each kind of parameter."""

import functools
import itertools
import math
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from marks import slow_but
from processes import finished, started

import jaxinit
from jaxinit._law import _erf_inv, chunks

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # bench is no part of the installed package

from bench import models  # noqa: E402

X = jnp.ones((2, 4))
TOKENS = jnp.zeros((1, 4), jnp.int32)
KEY = jax.random.key(7)


def plain(leaf):
    keys = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if keys else leaf)


def assert_same(ours, theirs):
    """Asserts that two trees are one, to the last bit."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert getattr(a, "weak_type", None) == getattr(b, "weak_type", None)
        np.testing.assert_array_equal(plain(a), plain(b))


# architectures


class Net(nn.Module):
    """Dense layers, dropout and batch norm: three collections, two streams."""

    kernel: object = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x):
        for _ in range(4):
            x = nn.Dense(4, kernel_init=self.kernel)(x)
            x = nn.BatchNorm(use_running_average=False)(x)
            x = nn.Dropout(0.5, deterministic=False)(nn.relu(x))
        self.variable("cache", "seen", lambda: jnp.zeros((), jnp.int32))
        return x


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.Dense(4)(nn.tanh(nn.Dense(8)(x))), None


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        steps = nn.scan(
            nn.remat(Step),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=3,
        )
        x, _ = steps()(x, None)
        return nn.Dense(2)(x)


class Ensemble(nn.Module):
    @nn.compact
    def __call__(self, x):
        dense = nn.vmap(
            nn.Dense,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            axis_size=3,
        )
        return dense(4)(x)


class Shared(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        table = nn.Embed(8, 4)
        dense = nn.Dense(4)
        return table.attend(dense(dense(table(tokens))))


class Rematted(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(3):
            x, _ = nn.remat(Step)()(x, None)
        return nn.jit(nn.Dense)(3)(x)


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.RNN(nn.LSTMCell(4))(x[None])


class Boxed(nn.Module):
    @nn.compact
    def __call__(self, x):
        kernel = nn.with_partitioning(nn.initializers.he_normal(), (None, "model"))
        return nn.Dense(8, kernel_init=kernel)(x)


def by_hand(key):
    """Laws that no library knows, a weight that needs another, and constants."""
    a, b, c, d, e = jax.random.split(key, 5)
    table = jax.random.laplace(a, (6, 4)) * 0.3
    joint = jax.random.normal(b, (4, 12), jnp.float32)
    first = jax.random.gumbel(c, (4, 4))
    return {
        "table": table,
        "transposed": table.T,
        "q": joint[:, :4] * 0.1,
        "k": joint[:, 4:8] * 0.1,
        "normed": first / jnp.linalg.norm(first),
        "mask": jax.random.bernoulli(d, 0.3, (4, 4)),
        "order": jax.random.permutation(e, 6),
        "half": jax.random.normal(e, (4, 4), jnp.bfloat16),
        "step": 0,
        "rate": jnp.float32(0.1),
        "same": table,
        "key": a,
        "given": key,
    }


def stacked(key):
    """Layers drawn by a loop and by vmap, as plain code does."""

    def layer(key):
        return jax.random.truncated_normal(key, -2, 2, (4, 4)) * 0.5

    keys = jax.random.split(key, 4)
    _, scanned = jax.lax.scan(lambda carry, key: (carry, layer(key)), 0, keys)
    return {"scanned": scanned, "vmapped": jax.vmap(layer)(keys), "one": layer(key)}


def chained(key):
    """Each weight depends on the one before, as where data choose the scale."""
    weights, x = [], jnp.ones((8, 4))
    for k in jax.random.split(key, 3):
        w = jax.random.normal(k, (4, 4))
        x = jnp.tanh(x @ w)
        w = w / x.std()
        weights.append(w)
    return weights


def nnx_stack(key):
    @nnx.split_rngs(splits=3)
    @nnx.vmap(in_axes=0, out_axes=0)
    def layers(rngs):
        return nnx.Linear(4, 4, rngs=rngs)

    return nnx.split(layers(nnx.Rngs(key)))


class Dropped(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)


ARCHITECTURES = {
    "linen": lambda key: Net().init({"params": key, "dropout": key}, X),
    "linen jaxinit": lambda key: Net(jaxinit.he_normal()).init(
        {"params": key, "dropout": key}, X
    ),
    "gpt": lambda key: models.GPT(3, 8, 2, 16, 8).init(key, TOKENS),
    "scanned": lambda key: Scanned().init(key, X),
    "ensemble": lambda key: Ensemble().init(key, X),
    "shared": lambda key: Shared().init(key, TOKENS),
    "remat": lambda key: Rematted().init(key, X),
    "recurrent": lambda key: Recurrent().init(key, X),
    "boxed": lambda key: Boxed().init(key, X),
    "resnet": lambda key: models.ResNet(nnx.Rngs(key), (2, 1), 4, 3),
    "vit": lambda key: models.ViT(nnx.Rngs(key), 2, 8, 2, 4, 8, 3),
    "nnx split": lambda key: nnx.split(Dropped(nnx.Rngs(key))),
    "nnx stack": nnx_stack,
    "by hand": by_hand,
    "stacked": stacked,
    "chained": chained,
}


# Laws in chunks on CPU, and a program for each shape as on every other device.
PLACES = {"laws": None, "slices": SingleDeviceSharding(jax.local_devices()[0])}
FIRST = [("linen", "laws"), ("nnx stack", "slices")]


@pytest.mark.parametrize(
    ("name", "place"),
    slow_but(FIRST, itertools.product(ARCHITECTURES, PLACES), rows=True),
)
def test_bit_for_bit_as_jit(name, place):
    fn = ARCHITECTURES[name]
    init = jaxinit.jit_init(fn, out_shardings=PLACES[place])
    assert_same(init(KEY), jax.jit(fn)(KEY))
    other = jax.random.key(8)
    assert_same(init(other), jax.jit(fn)(other))


KEYED = ["nnx split", "linen", "gpt", "resnet", "by hand"]


@pytest.mark.parametrize("key", [jax.random.PRNGKey(3), jax.random.key(3, impl="rbg")])
@pytest.mark.parametrize("name", slow_but(KEYED[:1], KEYED))
def test_every_kind_of_key(name, key):
    fn = ARCHITECTURES[name]
    assert_same(jaxinit.jit_init(fn)(key), jax.jit(fn)(key))


@pytest.mark.parametrize(
    "name", slow_but(["nnx split"], ["nnx split", "gpt", "by hand", "vit"])
)
def test_in_float64(x64, name):
    fn = ARCHITECTURES[name]
    assert_same(jaxinit.jit_init(fn)(KEY), jax.jit(fn)(KEY))


@pytest.mark.slow
def test_the_bits_of_old_threefry():
    with jax.threefry_partitionable(False):
        fn = ARCHITECTURES["gpt"]
        assert_same(jaxinit.jit_init(fn)(KEY), jax.jit(fn)(KEY))


@pytest.mark.parametrize("dtype", slow_but([jnp.bfloat16], [jnp.bfloat16, jnp.float16]))
def test_narrow_parameters(dtype):
    model, x = nn.Dense(64, param_dtype=dtype), X.astype(dtype)
    init = jaxinit.jit_init(model.init)
    assert_same(init(KEY, x), jax.jit(model.init)(KEY, x))


# programs


def gpt(layers):
    return lambda key: models.GPT(layers, 16, 2, 50, 20).init(key, TOKENS)


def test_equal_parameters_share_a_program():
    plan = jaxinit.jit_init(gpt(5), out_shardings=PLACES["slices"]).plan(KEY)
    found = {part.members[0][0].path: len(part.members) for part in plan.slices}
    assert {k: n for k, n in found.items() if k.endswith("kernel")} == {
        "params/Dense_0/kernel": 1,
        "params/h_0/c_attn/kernel": 5,
        "params/h_0/c_fc/kernel": 5,
        "params/h_0/c_proj/kernel": 5,
        "params/h_0/mlp_out/kernel": 5,
    }
    deeper = jaxinit.jit_init(gpt(9), out_shardings=PLACES["slices"]).plan(KEY)
    assert len(deeper.slices) == len(plan.slices)


def test_a_law_is_one_program_for_all_shapes_and_scales():
    plan = jaxinit.jit_init(gpt(5)).plan(KEY)
    kinds = [(part.kind, len(part.members)) for part in plan.slices]
    assert sorted(kinds) == [
        ("constant", 11),
        ("constant", 31),
        ("law", 2),
        ("law", 21),
    ]


LAWS = {
    "normal": lambda key, shape: jax.random.normal(key, shape) * 0.02,
    "normal 64": lambda key, shape: jax.random.normal(key, shape, jnp.float64) * 0.02,
    "shifted": lambda key, shape: 1 + jax.random.normal(key, shape) * 0.02,
    "twice": lambda key, shape: 3 * (0.7 * jax.random.normal(key, shape)) * 0.3,
    "divided": lambda key, shape: jax.random.normal(key, shape) / 3.0,
    "halved": lambda key, shape: jax.random.uniform(key, shape) / 3.0 * 0.7,
    "uniform": lambda key, shape: jax.random.uniform(key, shape, minval=-0.3),
    "truncated": lambda key, shape: (
        jax.random.truncated_normal(key, -1, 2, shape) * 0.1
    ),
    "laplace": lambda key, shape: jax.random.laplace(key, shape) * 0.3,
    "gumbel": lambda key, shape: jax.random.gumbel(key, shape),
    "logistic": lambda key, shape: jax.random.logistic(key, shape),
    "cauchy": lambda key, shape: jax.random.cauchy(key, shape),
    "exponential": lambda key, shape: jax.random.exponential(key, shape),
    "sign": lambda key, shape: jax.random.rademacher(key, shape, jnp.float32),
    "squashed": lambda key, shape: jnp.tanh(jax.random.normal(key, shape)) ** 3,
    "waves": lambda key, shape: jnp.sin(9 * jax.random.uniform(key, shape)),
    "bits": lambda key, shape: jax.random.bits(key, shape),
    "narrow": lambda key, shape: jax.random.normal(key, shape).astype(jnp.bfloat16),
    "he": lambda key, shape: jaxinit.he_normal()(key, (1, *shape)),
    "he bfloat16": lambda key, shape: jaxinit.he_normal()(
        key, (1, *shape), jnp.bfloat16
    ),
    "jaxinit uniform": lambda key, shape: jaxinit.uniform(low=-0.1)(key, shape),
}


@pytest.mark.parametrize("name", slow_but(["truncated"], LAWS))
def test_laws_of_every_size(x64, name):
    """Around chunk, block and the width of a vector, to the last bit."""
    sizes = (31, 33, 100, 8193, 2**19 + 2**14 + 5)

    def fn(key):
        return [LAWS[name](key, (size,)) for size in sizes]

    assert_same(jaxinit.jit_init(fn)(KEY), jax.jit(fn)(KEY))


def compiled_as_a_law(compute, size):
    """Compiles what computes entries from entries and 0 as programs of laws are."""
    law = law_of(jax.nn.initializers.normal())
    types = (
        jax.ShapeDtypeStruct((size,), np.float32),
        jax.ShapeDtypeStruct((), np.uint32),
    )
    compiled = chunks.compiled(law, jax.jit(compute).lower(*types))
    return lambda x: compiled(x, np.uint32(0))


def law_of(init):
    return jaxinit.jit_init(lambda key: init(key, (64,))).plan(KEY).slices[0].made[0]


@pytest.mark.parametrize("bound", slow_but([2.0], [0.5, 2.0, 2.5]))
def test_the_middle_of_erf_inv_has_the_bits_of_xla(bound):
    """For every number that `jax.random.truncated_normal` can ask for."""
    edge = np.float32(math.erf(bound / math.sqrt(2)))
    ours = compiled_as_a_law(functools.partial(_erf_inv.erf_inv, tails=False), 2**23)
    words = jnp.arange(2**23).astype(np.float32)
    x = jnp.maximum(-edge, words * 2.0**-23 * (2 * edge) - edge)
    np.testing.assert_array_equal(ours(x), jax.jit(lax.erf_inv)(x))


CHUNK = 2**23
ONE = int(np.float32(1).view(np.uint32))
STARTS = [*range(0x33000000, ONE + 1, CHUNK), 0, 2**23, 0x41000000, 0x7F800000]
HALF = [0x3F000000]  # and up to 1


@pytest.mark.parametrize("name", slow_but(["erf_inv"], ["erf_inv", "log1p"]))
@pytest.mark.parametrize(
    "starts", slow_but([STARTS[-5:-4]], [STARTS[-5:-4], STARTS]), ids=len
)
def test_what_is_written_out_has_the_bits_of_xla(name, starts):
    """Of every float32 between -1 and 1, some beyond, and what is no number."""
    ours = compiled_as_a_law(getattr(_erf_inv, name), CHUNK)
    theirs = jax.jit(getattr(lax, name))

    @jax.jit
    def numbers(first):
        words = jnp.arange(CHUNK, dtype=np.uint32) + first
        return lax.bitcast_convert_type(words, np.float32)

    for start in starts:
        for sign in (0, 2**31):
            x = numbers(np.uint32(start + sign))
            found, known = np.asarray(ours(x)), np.asarray(theirs(x))
            if not np.array_equal(found.view(np.uint32), known.view(np.uint32)):
                np.testing.assert_array_equal(found, known)  # which takes NaNs for one


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        *[(name, True) for name in ("normal", "truncated", "uniform", "he")],
        ("he bfloat16", False),
    ],
)
def test_emitters_are_chosen_by_what_a_law_computes(name, plain):
    law = law_of(LAWS[name])
    assert chunks._is_plain(law) == plain


@pytest.mark.parametrize("name", ["cauchy", "gumbel", "squashed", "waves"])
def test_what_rounds_by_program_is_no_law(name):
    """XLA has several ways to compute a tangent, say, and the shape chooses."""
    assert law_of(LAWS[name]) is None


def test_a_law_compiles_where_xla_has_other_options(monkeypatch):
    for name in ("_SOON", "_WIDE"):
        monkeypatch.setattr(chunks, name, {"xla_no_such_option": True})
    monkeypatch.setattr(chunks, "KEPT", chunks.Kept())
    init = jax.nn.initializers.normal()
    made = jaxinit.jit_init(lambda key: init(key, (64,)))(KEY)
    assert_same(made, jax.jit(init, static_argnums=1)(KEY, (64,)))


def test_only_what_stays_in_the_middle_is_computed_so():
    def inverted(init):
        plan = jaxinit.jit_init(lambda key: init(key, (64,))).plan(KEY)
        found = _erf_inv.written_out(plan.slices[0].made[0].steps).values()
        return sum(not how.keywords["tails"] for how in found)

    stock, random = jax.nn.initializers, jax.random
    assert inverted(stock.truncated_normal(0.1)) == 1
    assert inverted(jaxinit.truncated_normal(0.1)) == 1
    assert inverted(stock.truncated_normal(0.1, lower=-3.0)) == 0
    assert inverted(stock.normal(0.1)) == 0
    assert inverted(lambda key, n: lax.erf_inv(random.uniform(key, n) * 0.5)) == 1
    assert inverted(lambda key, n: lax.erf_inv(random.uniform(key, n) / 0.5)) == 0


def test_scales_share_and_orders_do_not():
    def fn(key):
        keys = jax.random.split(key, 3)  # equal draws of one key would be one slice
        scales = zip(keys, (0.1, 0.2, 0.3), strict=True)
        return [scale * jax.random.normal(key, (64,)) for key, scale in scales]

    plan = jaxinit.jit_init(fn).plan(KEY)
    assert [(part.kind, len(part.members)) for part in plan.slices] == [("law", 3)]


def test_one_path_is_traced_where_draws_are_fused_anyway():
    init = jaxinit.normal()

    def chosen():
        jaxpr = jax.make_jaxpr(lambda key: init(key, (64,)))(KEY)
        return "branches_platforms" in str(jaxpr)

    seen = []
    jaxinit.jit_init(lambda key: seen.append(chosen()) or init(key, (64,)))(KEY)
    assert seen == [False]
    assert chosen()  # nothing of it stays


@pytest.mark.parametrize(
    "name", slow_but(["scanned"], ["gpt", "scanned", "remat", "vit"])
)
@pytest.mark.slow
def test_nothing_of_the_forward_pass_is_compiled(name):
    init = jaxinit.jit_init(ARCHITECTURES[name], out_shardings=PLACES["slices"])
    for part in init.report(KEY).slices:
        assert " dot(" not in part.executable.as_text(), part.members


def test_what_depends_on_each_other_is_one_program():
    plan = jaxinit.jit_init(chained).plan(KEY)
    assert len(plan.slices) == 1 and len(plan.slices[0].members[0]) == 3
    parts = {
        tuple(o.path for o in member)
        for part in jaxinit.jit_init(by_hand).plan(KEY).slices
        for member in part.members
    }
    assert ("k", "q") in parts and ("same", "transposed") in parts


def test_other_keys_compile_nothing_more():
    init = jaxinit.jit_init(ARCHITECTURES["vit"])
    init(KEY)
    executables = [part.executable for part in init.plan(KEY).slices]
    with jax.log_compiles(False), jax.no_tracing():
        init(jax.random.key(9))
    assert executables == [part.executable for part in init.plan(KEY).slices]


@pytest.mark.slow
def test_no_two_arrays_are_one():
    made = jaxinit.jit_init(by_hand)(KEY)
    assert made["table"].unsafe_buffer_pointer() != made["same"].unsafe_buffer_pointer()


def test_a_loaded_array_can_be_given_away():
    weight = np.arange(64.0, dtype=np.float32).reshape(8, 8)
    init = jaxinit.jit_init(lambda key: {"w": jnp.asarray(weight)})
    for _ in range(2):
        made = init(KEY)["w"]
        np.testing.assert_array_equal(made, weight)
        made.delete()


def test_the_report_reads():
    init = jaxinit.jit_init(Net().init)
    rngs = {"params": KEY, "dropout": KEY}
    before = str(init.plan(rngs, X))
    assert "params/Dense_0/kernel" in before and "× 4×4" in before
    assert "–" in before
    after = str(init.report(rngs, X))
    assert "ms" in after and "programs" in after
    assert repr(init.plan(rngs, X)).startswith("Plan(")


@pytest.mark.slow
def test_a_plan_of_seventy_billion_parameters_allocates_nothing():
    model = models.GPT(80, 8192, 64, 32000, 4096)
    key = jax.eval_shape(lambda: jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    plan = jaxinit.jit_init(model.init).plan(key, tokens)
    assert sum(output.bytes for output in plan.outputs) > 4 * 6.4e10
    assert len(plan.slices) < 13


# calls


STATIC = [{"train": True, "wide": True}, {"train": True}, {"train": False}]


@pytest.mark.parametrize("static", slow_but(STATIC[:1], STATIC), ids=len)
def test_arguments_by_name(static):
    class Moded(nn.Module):
        @nn.compact
        def __call__(self, x, train, wide=False):
            return nn.Dense(8 if wide else 4, use_bias=train)(x)

    model = Moded()
    init = jaxinit.jit_init(model.init, static_argnames=("train", "wide"))
    assert_same(
        init(KEY, X, **static),
        jax.jit(functools.partial(model.init, **static))(KEY, X),
    )


def test_static_arguments():
    def sized(key, size, *, law):
        return getattr(jax.random, law)(key, (size,))

    init = jaxinit.jit_init(sized, static_argnums=1, static_argnames="law")
    expected = jax.jit(lambda key: jax.random.normal(key, (5,)))(KEY)
    assert_same(init(KEY, 5, law="normal"), expected)
    assert_same(init(KEY, size=5, law="normal"), expected)


@pytest.mark.parametrize("name", slow_but(["stacked"], ["stacked", "scanned"]))
@pytest.mark.slow
def test_within_other_programs(name):
    fn = ARCHITECTURES[name]
    init = jaxinit.jit_init(fn)
    assert_same(jax.jit(init)(KEY), jax.jit(fn)(KEY))
    keys = jax.random.split(KEY, 2)
    stacked = jax.vmap(init)(keys)
    for i, key in enumerate(keys):
        assert_same(jax.tree.map(lambda x, i=i: x[i], stacked), jax.jit(fn)(key))
    assert_same(jax.eval_shape(init, KEY), jax.eval_shape(fn, KEY))


class Functional:
    """A module that holds a function and a string, as Equinox's do."""

    def __init__(self, weight, activation, name, rate):
        self.parts = weight, activation, name, rate


jax.tree_util.register_pytree_node(
    Functional, lambda f: (f.parts, None), lambda _, parts: Functional(*parts)
)


def test_what_jit_cannot_return_comes_back_as_it_is():
    def build(key):
        return Functional(jax.random.normal(key, (4, 4)), jnp.tanh, "first", 0.5)

    init = jaxinit.jit_init(build)
    for key in (KEY, jax.random.key(1)):
        weight, activation, name, rate = init(key).parts
        assert activation is jnp.tanh and name == "first" and rate == 0.5
        expected = jax.jit(lambda key: jax.random.normal(key, (4, 4)))(key)
        np.testing.assert_array_equal(weight, expected)


def test_arguments_stay_on_their_device():
    device = jax.devices()[3]
    made = jaxinit.jit_init(ARCHITECTURES["gpt"])(jax.device_put(KEY, device))
    assert {leaf.device for leaf in jax.tree.leaves(made)} == {device}


def test_a_model_that_fails_says_so_itself():
    class Broken(nn.Module):
        @nn.compact
        def __call__(self, x):
            raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="no such layer"):
        jaxinit.jit_init(Broken().init)(KEY, X)


# shardings


def mesh_of(count):
    return jax.make_mesh((count,), ("model",), devices=jax.devices()[:count])


SHARDED = ["linen", "vit", "scanned", "by hand"]


@pytest.mark.parametrize(
    ("name", "count"),
    slow_but(
        [("scanned", 8)],
        itertools.product(SHARDED, (1, 2, 8)),
        rows=True,
    ),
)
def test_values_do_not_depend_on_the_devices(name, count):
    fn, mesh = ARCHITECTURES[name], mesh_of(count)

    def place(leaf):
        wide = leaf.ndim and not leaf.shape[-1] % count and leaf.dtype == jnp.float32
        spec = PartitionSpec(*[None] * (leaf.ndim - 1), "model") if wide else ()
        return NamedSharding(mesh, spec if wide else PartitionSpec())

    shardings = jax.tree.map(place, jax.eval_shape(fn, KEY))
    init = jaxinit.jit_init(fn, out_shardings=shardings)
    made = init(KEY)
    assert_same(made, jax.jit(fn)(KEY))
    for leaf, sharding in zip(
        jax.tree.leaves(made), jax.tree.leaves(shardings), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    collectives = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
    for part in init.plan(KEY).slices:
        if name != "by hand":  # whose norm is over all of a weight
            text = part.executable.as_text()
            assert not [word for word in collectives if word in text]


def test_each_device_fills_its_own_shard():
    sharding = NamedSharding(mesh_of(8), PartitionSpec("model"))
    init = jaxinit.jit_init(
        lambda key: jax.random.normal(key, (4096, 64)), out_shardings=sharding
    )
    memory = init.report(KEY).slices[0].executable.memory_analysis()
    assert memory.output_size_in_bytes <= 4096 * 64 * 4 / 8 + 64
    assert memory.temp_size_in_bytes < 4096 * 64 * 4 / 8


@pytest.mark.slow
def test_one_sharding_for_all_and_shardings_of_boxes():
    mesh = mesh_of(8)
    everywhere = NamedSharding(mesh, PartitionSpec())
    fn = ARCHITECTURES["boxed"]
    made = jaxinit.jit_init(fn, out_shardings=everywhere)(KEY)
    assert_same(made, jax.jit(fn)(KEY))
    shardings = nn.get_sharding(jax.eval_shape(fn, KEY), mesh)
    made = jaxinit.jit_init(fn, out_shardings=shardings)(KEY)
    kernel = made["params"]["Dense_0"]["kernel"].value
    assert kernel.sharding.spec == PartitionSpec(None, "model")
    partly = {"params": everywhere, "batch_stats": None, "cache": None}
    fn = ARCHITECTURES["linen"]
    assert_same(jaxinit.jit_init(fn, out_shardings=partly)(KEY), jax.jit(fn)(KEY))


@pytest.mark.slow
def test_processes_agree(tmp_path):
    """Two processes with a device each fill one model; each holds its own shard."""
    finished(started("two_processes.py", tmp_path))
    whole = jax.jit(ARCHITECTURES["gpt"])(KEY)
    for path, leaf in jax.tree_util.tree_leaves_with_path(whole):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        shards = [np.load(tmp_path / f"{rank}.npz")[name] for rank in range(2)]
        axis = next((i for i, n in enumerate(shards[0].shape) if n < leaf.shape[i]), 0)
        found = np.concatenate(shards, axis) if leaf.shape != shards[0].shape else None
        np.testing.assert_array_equal(shards[0] if found is None else found, leaf)


# keys


def keys_of_all_kinds(key):
    """Keys split, folded and taken apart in every way, one by one and by vmap."""
    several = jax.random.split(key, 5)
    grid = jax.random.split(several[0], (2, 3))
    folded = jax.vmap(jax.random.fold_in)(several, jnp.arange(5) - 1)
    pairs = jax.vmap(jax.random.split)(several[1:4])
    return several, grid[1, ::2], folded, pairs, jax.random.fold_in(grid[0, 0], 2**31)


KEYS = {"typed": KEY, "legacy": jax.random.PRNGKey(3)}
OF_JAX = list(itertools.product(KEYS, [True, False]))


@pytest.mark.parametrize(
    ("kind", "by_index"), slow_but([OF_JAX[0], OF_JAX[-1]], OF_JAX, rows=True)
)
@pytest.mark.slow
def test_keys_are_those_of_jax(kind, by_index):
    key = KEYS[kind]
    with jax.threefry_partitionable(by_index):
        made = jaxinit.jit_init(keys_of_all_kinds)(key)
        assert_same(made, jax.jit(keys_of_all_kinds)(key))


@pytest.mark.slow
def test_deriving_keys_compiles_nothing(caplog):
    def init(key):
        keys = jax.random.split(key, 37)
        return [jax.random.split(key, 31)[30] for key in keys[2::7]]

    with jax.log_compiles():
        made = jaxinit.jit_init(init)(KEY)
        assert "Compiling" not in caplog.text
        expected = jax.jit(init)(KEY)
        assert "Compiling" in caplog.text
    assert_same(made, expected)


# what can go wrong


def test_messages():
    with pytest.raises(TypeError, match=r"jit_init\(init_fn=3\): init_fn must be a fu"):
        jaxinit.jit_init(3)

    def branches(key):
        x = jax.random.normal(key, ())
        return x if x > 0 else -x

    with pytest.raises(TypeError, match=r"jit_init\(.*branches\): init_fn must be a "):
        jaxinit.jit_init(branches)(KEY)
    mesh = mesh_of(8)
    odd = NamedSharding(mesh, PartitionSpec("model"))
    with pytest.raises(ValueError, match=r"weight of shape \(6, 2\) does not fit its"):
        jaxinit.jit_init(
            lambda key: {"weight": jax.random.normal(key, (6, 2))}, out_shardings=odd
        )(KEY)
    with pytest.raises(ValueError, match=r"out_shardings must have the tree of what"):
        jaxinit.jit_init(
            lambda key: {"weight": jax.random.normal(key, (6, 2))},
            out_shardings={"kernel": odd},
        )(KEY)

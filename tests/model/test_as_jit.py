"""`jit_init` is `jax.jit`: types of results, flags, and other transformations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from marks import slow_but

import jaxinit
from jaxinit._adapt.adapt import adapt
from jaxinit.signal._measure._draw import prepare_draw
from jaxinit.signal._measure.program import prepare

KEY = jax.random.key(3)
LOADED = np.linspace(0, 1, 40, dtype=np.float32)
HELD = jnp.arange(5)


def drawn(key):
    return jax.random.normal(key, (40,))


def facts(leaf):
    keys = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    values = np.asarray(jax.random.key_data(leaf) if keys else leaf)
    weak = getattr(leaf, "weak_type", None)
    kind = leaf.dtype, leaf.shape, weak, leaf.sharding, leaf.committed
    return kind, values.tobytes()


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        assert facts(a) == facts(b), jax.tree_util.keystr(path)


def everything(key, x, table):
    """Results of every kind that `jax.jit` returns."""
    w = drawn(key)
    return {
        "numbers": (1, 2.5, True, 1j, np.float32(2), np.int8(3)),
        "nothing": [None, (), {}],
        "loaded": [LOADED, LOADED * 2, np.arange(3), np.ones((0, 3), np.float16)],
        "held": HELD,
        "arguments": [key, x, table, x],
        "again": [w, w, w.T],
        "weak": [jnp.full((40,), 2.0), jnp.full((40,), 3), lax.full((40,), 1.0)],
        "weak law": lax.convert_element_type(w, float),
        "filled": [jnp.zeros(40), jnp.ones((40, 2), jnp.bfloat16), jnp.zeros(40, int)],
        "computed": [jnp.ones(40) * 1e-30 * 1e-30, jnp.ones(40) / 0.0, -jnp.zeros(40)],
        "integers": jnp.full(40, 7) // 2,
        "keys": jax.random.split(key, 3),
        "legacy": jax.random.key_data(key),
    }


ARGUMENTS = (jnp.float32(2), np.ones((3, 2), np.float32))


@pytest.mark.slow
def test_types_of_every_kind_of_result():
    init, jitted = jaxinit.jit_init(everything), jax.jit(everything)
    assert_same(init(KEY, *ARGUMENTS), jitted(KEY, *ARGUMENTS))
    placed = jax.device_put(KEY, jax.devices()[3])
    assert_same(init(placed, *ARGUMENTS), jitted(placed, *ARGUMENTS))


def test_results_that_are_arguments_are_arrays_of_their_own():
    table = np.ones(2**12, np.float32)
    init = jaxinit.jit_init(lambda key, x: (key, x))
    x = jnp.ones(8)
    key, same = init(KEY, x)
    same.delete()
    assert not x.is_deleted() and not KEY.is_deleted()
    _, made = init(KEY, table)
    made.block_until_ready()
    table[:] = 2
    assert made[0] == 1


def test_arrays_of_numpy_are_those_of_the_first_call():
    vector, number = np.full(40, 2.0, np.float32), np.array(2.0, np.float32)

    def init(key):
        step = lambda total, _: (total + vector, None)  # noqa: E731
        return {
            "itself": vector,
            "computed": vector + 1,
            "filled": jnp.full(40, number),
            "scaled": drawn(key) * number,
            "in a loop": lax.scan(step, jnp.zeros(40), None, 3)[0],
        }

    ours, jitted = jaxinit.jit_init(init), jax.jit(init)
    expected = jitted(KEY)
    assert_same(ours(KEY), expected)
    vector[:], number[...] = 14, 14
    assert_same(jitted(KEY), expected)
    assert_same(ours(KEY), expected)


# within transformations, of which the function closes over a value


def by_grad(compiled):
    return jax.grad(lambda s: compiled(lambda key: drawn(key) * s)(KEY).sum())(2.0)


def by_vmap(compiled):
    return jax.vmap(lambda s: compiled(lambda key: drawn(key) * s)(KEY))(
        jnp.arange(3.0)
    )


def by_jit(compiled):
    return jax.jit(lambda s: compiled(lambda key: drawn(key) * s)(KEY))(2.0)


def by_jit_of_nothing(compiled):
    return jax.jit(lambda: compiled(drawn)(KEY))()


def by_scan(compiled):
    def step(s, _):
        made = compiled(lambda key: {"w": drawn(key) * s})(KEY)
        return made["w"].mean(), made

    return lax.scan(step, jnp.float32(1), None, 3)


def by_cond(compiled):
    first = lambda s: compiled(lambda key: drawn(key) + s)(KEY)  # noqa: E731
    return lax.cond(jnp.float32(1) > 0, first, lambda s: jnp.zeros(40), jnp.float32(1))


def by_jvp(compiled):
    return jax.jvp(lambda s: compiled(lambda key: drawn(key) * s)(KEY), (2.0,), (1.0,))


def by_remat(compiled):
    made = lambda s: compiled(lambda key: jnp.sin(s * drawn(key)))(KEY).sum()  # noqa: E731
    return jax.grad(jax.checkpoint(made))(2.0)


def by_eval_shape(compiled):
    shapes = jax.eval_shape(lambda s: compiled(lambda key: drawn(key) * s)(KEY), 2.0)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def by_vmapped_jit_of_keys(compiled):
    return jax.vmap(lambda s: jax.jit(lambda key: compiled(drawn)(key) * s)(KEY))(
        jnp.arange(2.0)
    )


WITHIN = [
    *(by_cond, by_eval_shape, by_grad, by_jit, by_jit_of_nothing, by_jvp, by_remat),
    *(by_scan, by_vmap, by_vmapped_jit_of_keys),
]


@pytest.mark.parametrize(
    "transform",
    slow_but([by_grad, by_scan], WITHIN),
    ids=lambda f: f.__name__,
)
def test_a_function_may_close_over_a_traced_value(transform):
    assert_same(transform(jaxinit.jit_init), transform(jax.jit))


# flags

FLAGS = {
    "no jit": lambda: jax.disable_jit(),
    "leaks": lambda: jax.checking_leaks(),
    "nans": lambda: jax.debug_nans(True),
    "infs": lambda: jax.debug_infs(True),
    "key reuse": lambda: jax.debug_key_reuse(True),
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
    "types": lambda: jax.numpy_dtype_promotion("standard"),
    "old threefry": lambda: jax.threefry_partitionable(False),
}


@pytest.mark.parametrize("flag", slow_but(["no jit", "key reuse", "types"], FLAGS))
def test_flags(flag):
    def init(key):
        return {"w": jaxinit.he_normal()(key, (8, 8)), "b": jnp.zeros(8)}

    function = jaxinit.jit_init(init)
    with FLAGS[flag]():
        assert_same(function(jax.random.key(3)), jax.jit(init)(jax.random.key(3)))
        shardings = jax.sharding.SingleDeviceSharding(jax.devices()[1])
        placed = jaxinit.jit_init(init, out_shardings=shardings)(jax.random.key(3))
        assert {leaf.sharding for leaf in jax.tree.leaves(placed)} == {shardings}


def test_what_debugging_looks_for_is_seen():
    init = jaxinit.jit_init(lambda key: jnp.log(drawn(key)))
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="nan"):
        init(jax.random.key(3))
    twice = jaxinit.jit_init(lambda key: (drawn(key), drawn(key) + 1))
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        twice(jax.random.key(3))


HE, LECUN = jaxinit.he_normal(), nn.initializers.lecun_normal()


@pytest.mark.slow
@pytest.mark.parametrize("kernel", slow_but([HE], [HE, LECUN]))
def test_the_weights_that_check_draws(kernel):
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            for width in (32, 32, 16, 16):
                x = nn.Dense(width, kernel_init=kernel)(x)
            return x

    x, key = jnp.ones((4, 32)), jax.random.key(3)
    model = adapt(Plain(), (x,), {}, ("dropout",))
    program = prepare(model, (x,), key)
    draw, types = prepare_draw(program, None)
    found = draw(key)
    wanted = jax.tree.leaves(jax.jit(model.init)(jax.random.split(key, 3)[0]))
    for a, b in zip(wanted, jax.tree.leaves(found.stored), strict=True):
        np.testing.assert_array_equal(a, b)
    assert jax.tree.structure(found) == jax.tree.structure(types)

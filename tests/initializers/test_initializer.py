"""The central form: values, arguments, keys, dtypes, the public decorator."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import slow_but

import jaxinit as ji
from jaxinit._initializer import REGISTRY

KEY = jax.random.key(0)


@ji.initializer
def rademacher(scale=1.0, dtype=None):
    """Builds signs, as a user of the decorator would."""

    def draw(key, shape, dtype):
        return jax.random.rademacher(key, shape, dtype) * np.asarray(scale, dtype)

    return draw


@ji.initializer
def gelu_normal(dtype=None):
    """Builds a composition of another builder."""
    return ji.he_normal(gain="gelu")


@ji.initializer(random=False)
def halves():
    """Builds a composition without randomness."""
    return ji.constant(0.5)


def test_a_users_initializer_has_everything():
    init = rademacher(0.5)
    assert repr(init) == "rademacher(scale=0.5)" and ji.parse(repr(init)) == init
    w = init(KEY, (4, 4), jnp.bfloat16)
    assert w.dtype == jnp.bfloat16 and set(w.ravel().tolist()) == {-0.5, 0.5}
    assert init.moments((4, 4)) is None
    assert gelu_normal() != ji.he_normal(gain="gelu")
    same = gelu_normal()(KEY, (8, 8)) == ji.he_normal(gain="gelu")(KEY, (8, 8))
    assert same.all()
    assert gelu_normal().moments((8, 8)) == ji.he_normal(gain="gelu").moments((8, 8))
    assert halves(None, (2,)).tolist() == [0.5, 0.5]


def test_a_taken_name_is_refused_and_a_redefinition_is_not():
    def normal():
        return None

    normal.__module__ = "somewhere.else"
    with pytest.raises(
        ValueError, match=r"taken by jaxinit\.initializers\._distribution"
    ):
        ji.initializer(normal)

    def rademacher(scale=1.0):
        return lambda key, shape, dtype: jnp.zeros(shape, dtype)

    assert ji.initializer(rademacher) is REGISTRY["rademacher"]


def test_a_lambda_is_not_registered():
    """No spec can name it, and two of them are no clash."""
    known = dict(REGISTRY)
    builder = ji.initializer(
        lambda scale=1.0: lambda key, shape, dtype: jnp.ones(shape)
    )
    other = eval("lambda: None", {"__name__": "somewhere.else"})
    ji.initializer(other)
    assert REGISTRY == known and builder(2.0)(KEY, (2, 3)).shape == (2, 3)


def test_arguments_need_names():
    def unnamed(*scales):
        return None

    with pytest.raises(
        TypeError, match=r"every argument needs a name .*unlike \*scales"
    ):
        ji.initializer(unnamed)


def test_equality_is_of_values():
    assert ji.normal(1) == ji.normal(1.0) == ji.normal(np.float32(1))
    assert ji.normal(jnp.float32(0.5)) == ji.normal(0.5)
    assert ji.he_normal(-2) == ji.he_normal(in_axis=-2) == ji.kaiming_normal()
    assert ji.normal(dtype=jnp.bfloat16) == ji.normal(dtype="bfloat16")
    assert ji.normal(dtype=float) == ji.normal(dtype=jnp.float32)
    assert (
        ji.constant([1, 2]) == ji.constant((1.0, 2.0)) == ji.constant(np.array([1, 2]))
    )
    assert ji.constant(float("nan")) == ji.constant(float("nan"))
    assert ji.constant(1j) == ji.constant(1j) != ji.constant(-1j)
    assert ji.constant(2**60 + 1) != ji.constant(2**60)
    assert ji.constant(0.0) != ji.constant(-0.0)
    assert ji.normal() != ji.normal(0.02) and ji.normal() != "normal()"
    assert ji.he_normal() != ji.variance_scaling(2.0, "fan_in", "truncated_normal")
    assert ji.he_normal(gain=jax.nn.gelu) == ji.he_normal(gain=jax.nn.gelu)
    assert ji.he_normal(gain=jax.nn.gelu) != ji.he_normal(gain=jax.nn.silu)


def test_large_arrays_compare_by_content():
    a, b = np.arange(100.0), np.arange(100.0)
    assert ji.constant(a) == ji.constant(b) and hash(ji.constant(a)) == hash(
        ji.constant(b)
    )
    b[3] = 7
    assert ji.constant(a) != ji.constant(b)
    init = ji.constant(a)
    a[0] = 5  # the initializer keeps its own copy
    assert init(None, (100,))[0] == 0
    assert repr(init) == "constant(value=<array float64[100]>)"
    assert ji.constant(np.zeros((0, 3)))(None, (0, 3)).shape == (0, 3)


def test_is_immutable():
    init = ji.normal()
    with pytest.raises(AttributeError, match="is immutable"):
        init.arguments = {}
    with pytest.raises(TypeError, match="does not support item assignment"):
        init.arguments["stddev"] = 2.0
    with pytest.raises(AttributeError, match="is immutable"):
        del init.arguments
    with pytest.raises(ValueError, match="read-only"):
        ji.constant(np.arange(100.0)).arguments["value"][0] = 1


def test_dtype_of_the_call_wins_over_that_of_the_builder():
    assert ji.normal(dtype="float16")(KEY, (2,)).dtype == jnp.float16
    assert ji.normal(dtype="float16")(KEY, (2,), jnp.bfloat16).dtype == jnp.bfloat16
    assert ji.zeros(dtype=int)(None, (2,)).dtype == jnp.int32
    assert ji.normal()(KEY, (2,), float).dtype == jnp.float32


def test_float64_without_x64_warns_as_jax_does():
    with pytest.warns(UserWarning, match="float64 .*not available"):
        assert ji.normal()(KEY, (2,), np.float64).dtype == jnp.float32


def test_builders_without_randomness_work_both_ways():
    for build in (ji.zeros, ji.ones, ji.identity):
        direct = build(KEY, (3, 3), jnp.bfloat16)
        assert (direct == build()(KEY, (3, 3), jnp.bfloat16)).all()
        assert (build(key=KEY, shape=(3, 3)) == build()(None, (3, 3))).all()
        assert build(None, shape=[3, 3]).shape == (3, 3)


def test_random_builders_say_that_they_build():
    with pytest.raises(
        TypeError, match=r"he_normal builds an initializer.*\(key, shape\)"
    ):
        ji.he_normal(KEY, (3, 3))
    with pytest.raises(TypeError, match=r"or kernel_init=he_normal\(\.\.\.\) in a"):
        ji.he_normal(KEY, (3, 3), np.float32)
    with pytest.raises(TypeError, match="normal builds an initializer"):
        ji.normal(key=KEY, shape=(3,))


def test_wrong_arguments_name_the_builder():
    with pytest.raises(
        TypeError, match=r"constant\(value, dtype\): missing a required"
    ):
        ji.constant()
    with pytest.raises(TypeError, match=r"normal\(.*\): got an unexpected keyword"):
        ji.normal(std=1)
    with pytest.raises(TypeError, match="'std'. Did you mean 'stddev'?"):
        ji.normal(std=1)
    with pytest.raises(TypeError, match=r"'value'. Did you mean 'value'?"):
        ji.constant(valeu=1)


def test_a_draw_of_another_shape_is_refused():
    @ji.initializer
    def turned():
        return lambda key, shape, dtype: jax.random.normal(key, shape[::-1], dtype)

    assert turned()(KEY, (3, 3)).shape == (3, 3)
    said = r"shape=\(2, 3\)\): draw must return an array of this shape, not \(3, 2\)"
    for call in (turned(), jax.jit(turned(), static_argnums=1)):
        with pytest.raises(ValueError, match=r"^turned\(\)\(key, " + said):
            call(KEY, (2, 3))


def test_keys():
    refused = [
        0,
        None,
        "key",
        jnp.zeros(2),
        np.zeros(3, np.uint32),
        jax.random.split(KEY),
    ]
    for key in refused:
        with pytest.raises((TypeError, ValueError), match="key must be"):
            ji.normal()(key, (2,))
    batch = jax.random.split(jax.random.PRNGKey(0), 3)
    with pytest.raises(
        ValueError, match=r"one key, not an array of keys\. Use jax\.vmap"
    ):
        ji.normal()(batch, (2,))


any_shape = given(st.lists(st.integers(0, 5), max_size=4))


@settings(max_examples=5)
@any_shape
def test_any_shape_of_independent_entries(shape):
    assert_any_container(shape)


@pytest.mark.slow
@settings(max_examples=20)
@any_shape
def test_many_shapes_of_independent_entries(shape):
    assert_any_container(shape)


def assert_any_container(shape):
    for container in (tuple, list, np.array):
        shape_ = container(shape) if shape else ()
        assert ji.normal()(KEY, shape_).shape == tuple(shape)


@pytest.mark.parametrize(
    "shape", [3, np.int64(3), np.array(3), jnp.int32(3), (np.int32(3),), [3]], ids=repr
)
@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(0)], ids=["typed", "legacy"])
def test_shapes_that_jax_takes(shape, key):
    """An integer is the shape of a vector, in every place where JAX takes it."""
    expected = jax.nn.initializers.zeros(key, shape, jnp.float32)
    for found in (
        ji.zeros(key, shape, jnp.float32),
        ji.zeros(key=key, shape=shape),
        ji.zeros(key, shape=shape),
        ji.zeros()(None, shape),
        ji.constant(0.0)(key, shape),
        ji.torch.zeros(key, shape),
    ):
        np.testing.assert_array_equal(found, expected, strict=True)
    assert ji.normal()(key, shape).shape == ji.zeros(None, shape).shape == (3,)


def test_whatever_stands_for_a_key_that_is_ignored():
    assert ji.zeros(None, 5, jnp.float32).shape == (5,)
    assert ji.ones(object(), (2, 3), jnp.float32).shape == (2, 3)  # Flax: a stream
    assert ji.constant(np.zeros(2, np.uint32), float) == ji.constant([0, 0], float)


@pytest.mark.parametrize("shape", [True, 3.0, "ab", b"a", (2.5,), (None,), None, {2}])
def test_shapes_that_are_none(shape):
    with pytest.raises(TypeError, match="shape must be a tuple of integers"):
        ji.normal()(KEY, shape)


@pytest.mark.parametrize("shape", [2**63, (2, 10**30), (2**40, 2**40), (2**57,)])
@pytest.mark.parametrize("init", [ji.normal(), ji.he_normal(), ji.zeros()], ids=repr)
def test_sizes_that_no_array_has(init, shape):
    with pytest.raises(
        ValueError, match=r"shape=.*(below 2\^63|2\^56 entries|two axes)"
    ):
        init(KEY, shape)


ACTIVATIONS = [jax.nn.silu, jax.nn.relu, jax.nn.gelu, jnp.tanh, jnp.sin, jax.lax.tanh]


@pytest.mark.parametrize("gain", [*ACTIVATIONS, functools.partial(jax.nn.elu, alpha=2)])
def test_initializers_of_functions_pickle(gain):
    for init in (ji.he_normal(gain=gain), ji.stacked(ji.orthogonal(gain=gain))):
        again = pickle.loads(pickle.dumps(init))
        assert again == init and hash(again) == hash(init) and repr(again) == repr(init)
        assert " at 0x" not in repr(init)
    assert b"jax._src" not in pickle.dumps(ji.he_normal(gain=jax.nn.relu))


def test_equal_partial_functions_make_equal_initializers():
    def of(slope):
        function = functools.partial(jax.nn.leaky_relu, negative_slope=slope)
        return ji.he_normal(gain=function)

    assert of(0.2) == of(0.2) != of(0.3)
    assert repr(of(0.2)) == "he_normal(gain=partial(leaky_relu, negative_slope=0.2))"


def test_functions_without_a_name_do_not_pickle():
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(ji.he_normal(gain=lambda x: x))


def test_sharding_arguments():
    with pytest.raises(TypeError, match="out_sharding must be a jax.sharding.Sharding"):
        ji.normal()(KEY, (8,), None, "x")
    with pytest.raises(ValueError, match=r"needs a mesh\. Pass a NamedSharding"):
        ji.normal()(KEY, (8,), None, jax.sharding.PartitionSpec("x"))
    single = jax.sharding.SingleDeviceSharding(jax.devices()[3])
    w = ji.normal()(KEY, (8,), None, single)
    assert w.devices() == {jax.devices()[3]}
    assert (np.asarray(w) == np.asarray(ji.normal()(KEY, (8,)))).all()


def test_sharding_inside_jit_with_and_without_an_entered_mesh():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    for init in (ji.normal(), ji.ones()):
        draw = jax.jit(lambda key, init=init: init(key, (8, 4), None, sharding))
        expected = init(KEY, (8, 4))
        for w in (draw(KEY), init(KEY, (8, 4), None, sharding)):
            assert w.sharding.is_equivalent_to(sharding, 2)
            np.testing.assert_array_equal(w, expected)


EACH = [ji.normal(), ji.orthogonal(), ji.ones()]


@pytest.mark.parametrize("init", slow_but(EACH[:1], EACH))
def test_explicit_sharding_enters_its_mesh(init):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    w = init(KEY, (8, 4), out_sharding=sharding)
    assert w.sharding.is_equivalent_to(sharding, 2)
    np.testing.assert_array_equal(w, init(KEY, (8, 4)))


def test_no_device_draws_more_than_its_shard():
    """Independent entries need no communication: the program has no collectives."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    draw = jax.jit(lambda key: ji.he_normal()(key, (64, 32), None, sharding))
    text = draw.lower(KEY).compile().as_text()
    assert "f32[8,32]" in text and "f32[64,32]" not in text
    assert not [word for word in ("all-", "collective", "permute") if word in text]


def test_gradients_and_tracing():
    @jax.jit
    def step(key, x):
        w = ji.he_normal(gain=jax.nn.gelu)(key, (4, 4))  # quadrature under a trace
        return (w * x).sum()

    assert jnp.isfinite(jax.grad(step, 1)(KEY, 2.0))
    with pytest.raises(
        TypeError, match=r"stddev must be known .*not traced\. Multiply"
    ):
        jax.jit(lambda s: ji.normal(s)(KEY, (2,)))(1.0)
    with pytest.raises(TypeError, match="value must be known .*not traced"):
        jax.jit(lambda s: ji.constant(s)(KEY, (2,)))(1.0)


def test_jax_jit_takes_an_initializer():
    expected = ji.he_normal()(KEY, (8, 4))
    for _ in range(2):  # the second one finds the first by its weak reference
        jitted = jax.jit(ji.he_normal(), static_argnums=(1,))
        np.testing.assert_array_equal(jitted(KEY, (8, 4)), expected)

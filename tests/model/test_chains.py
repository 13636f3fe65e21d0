"""`jit_init` is `jax.jit`, bit for bit, whatever is done to a draw."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chains import chains
from marks import slow_but

import jaxinit
from jaxinit._law import laws

KEY = jax.random.key(5)
normal = jax.random.normal


def assert_bits(function, key=KEY):
    """Asserts that `jit_init` fills, by name, what `jax.jit` does, to the last bit."""
    ours, theirs = jaxinit.jit_init(function)(key), jax.jit(function)(key)
    assert ours.keys() == theirs.keys()
    for name, x in theirs.items():
        y = ours[name]
        assert (y.dtype, y.shape, y.weak_type) == (x.dtype, x.shape, x.weak_type), name
    bits = {name: np.asarray(x).tobytes() for name, x in theirs.items()}
    other = [name for name, y in ours.items() if np.asarray(y).tobytes() != bits[name]]
    assert not other


def of_each(functions):
    """Makes one function of a key of several, each with a key of its own."""

    def run(key):
        keys = jax.random.split(key, len(functions))
        return {str(n): f(k) for (n, f), k in zip(functions.items(), keys, strict=True)}

    return run


FACTORS = (0.3, 0.9, 0.7, 1 / 3, 1.1, 0.6)
STOCK = {
    "normal": jax.nn.initializers.normal(0.02),
    "truncated": jax.nn.initializers.truncated_normal(0.02),
    "uniform": jax.nn.initializers.uniform(0.02),
    "ours": jaxinit.he_normal(),
}


def scaled(name, count):
    def run(key):
        drawn = STOCK[name](key, (64, 64))
        return functools.reduce(lambda x, c: x * c, FACTORS[:count], drawn)

    return run


@pytest.mark.parametrize("name", slow_but(["truncated"], STOCK))
@pytest.mark.slow
def test_factors_are_joined_in_the_order_of_xla(name):
    assert_bits(of_each({count: scaled(name, count) for count in (1, 2, 3, 4, 6)}))


def test_several_factors_are_still_a_law():
    for name in STOCK:
        (program,) = jaxinit.jit_init(scaled(name, 2)).plan(KEY).slices
        assert program.kind == "law" and program.made[0].scale is not None


def test_factors_are_joined_in_pairs():
    a, b, c, d, e = map(np.float32, (0.1, 0.3, 0.7, 0.9, 1.1))
    assert laws._joined([a, b, c]) == (a * b) * c
    assert laws._joined([a, b, c, d]) == (a * b) * (c * d)
    assert laws._joined([a, b, c, d, e]) == ((a * b) * (c * d)) * e
    assert laws._joined([]) is None
    assert laws._joined([np.float32(1e-30), np.float32(1e-30)]) is None


SMALL = {
    f"{name} {size}": functools.partial(draw, size)
    for size in (128,)
    for name, draw in {
        "cauchy": lambda size, key: jax.random.cauchy(key, (size,)),
        "maxwell": lambda size, key: jax.random.maxwell(key, (size,)),
        "tangent": lambda size, key: jnp.tan(normal(key, (size,))),
        "tanh": lambda size, key: jnp.tanh(normal(key, (size,))) ** 3,
        "subnormal": lambda size, key: normal(key, (size,)) * 1e-38,
        "almost": lambda size, key: normal(key, (size,)) * 1e-37,
        "twice": lambda size, key: normal(key, (size,)) * 1e-20 * 1e-20,
        "moved": lambda size, key: (normal(key, (size,)) * 0.3).reshape(2, -1) + 1,
        "narrow": lambda size, key: normal(key, (size,)).astype(jnp.bfloat16) * 3 + 1,
        "nothing": lambda size, key: normal(key, (size,)) * 0.0,
    }.items()
}
FEW = ["tanh 128", "subnormal 128", "moved 128"]


@pytest.mark.parametrize(
    "names",
    slow_but([FEW], [FEW, [name for name in SMALL if name not in FEW]]),
    ids=len,
)
def test_few_entries_and_small_numbers(names):
    assert_bits(of_each({name: SMALL[name] for name in names}))


def test_equal_draws_of_one_key():
    """XLA has them once, and so may round what is made of them in another way."""

    def init(key):
        first, second, third = (normal(key, (200,)) for _ in range(3))
        return {
            "scaled": first * 0.3,
            "shifted": second * 0.3 + 1,
            "sum": third + 2 * jnp.exp(third),
            "ours": jaxinit.normal(0.3)(jax.random.fold_in(key, 3), (200,)),
            "again": 1 + jaxinit.normal(0.3)(jax.random.fold_in(key, 3), (200,)),
        }

    assert_bits(init)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(0, 80, 10))
def test_chains(seed):
    assert_bits(chains(range(seed, seed + 10)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1030, 10))
def test_chains_of_narrow_floats(seed):
    assert_bits(chains(range(seed, seed + 10), dtypes=("bfloat16", "float16")))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2030, 10))
def test_chains_of_wide_and_complex_numbers(x64, seed):
    dtypes = ("float64", "complex64", "complex128")
    assert_bits(chains(range(seed, seed + 10), dtypes=dtypes))

"""Faults of initializers, each caught by the assertion that is meant for it.

A mutant is a right initializer with one fault in it. What is right passes every
assertion, under several keys.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but
from scipy import stats

import jaxinit as ji
from jaxinit import testing

pytestmark = pytest.mark.usefixtures("quick_compiler")

SHAPE = (24, 40)
STD = (2 / 24) ** 0.5
right = jax.jit(jax.nn.initializers.normal(STD), static_argnums=(1, 2))

independent = testing.assert_independent
distinct = testing.assert_distinct
float64 = testing.assert_float64
moments = functools.partial(
    testing.assert_moments, mean=0.0, variance=STD**2, within=1 / 25
)
law = functools.partial(testing.assert_law, law=stats.norm(0, STD))
bfloat16 = functools.partial(testing.assert_distinct, dtype="bfloat16")
every_dtype = testing.assert_same_in_every_dtype


def entries(change):
    """Makes a mutant that changes the entries of the right weight."""
    return lambda key, shape, dtype=float: change(right(key, shape, dtype))


def keyed(change):
    """Makes a mutant that changes the two words of the key."""

    def init(key, shape, dtype=float):
        words = change(jax.random.key_data(key))
        return right(jax.random.wrap_key_data(words), shape, dtype)

    return init


def halves(w, axis, sign=1):
    half = jnp.split(w, 2, axis)[0]
    return jnp.concatenate([half, sign * half], axis)


def shifted_rows(w):
    return jnp.stack([jnp.roll(w[0], i) for i in range(len(w))])


def one_scale(key, shape, dtype=float):
    """A scale for each weight, drawn from the key, that all its entries share."""
    one, other = jax.random.split(key)
    return right(one, shape, dtype) * jnp.exp(jax.random.normal(other, (), dtype))


def shared_sizes(key, shape, dtype=float):
    """Columns of the same magnitudes and signs of their own."""
    one, other = jax.random.split(key)
    signs = jax.random.rademacher(other, shape, dtype)
    return jnp.abs(halves(right(one, shape, dtype), 1)) * signs


def sign_by_key(key, shape, dtype=float):
    """Neighboring keys give one weight with another sign."""
    words = jax.random.key_data(key)
    even = jax.random.wrap_key_data(words & ~jnp.uint32(1))
    return jnp.where(words[1] & 1, -1, 1).astype(dtype) * right(even, shape, dtype)


def holes(w):
    return jnp.where(jnp.arange(w.size).reshape(w.shape) % 200 == 7, 0, w)


def through(narrow):
    return entries(lambda w: w.astype(narrow).astype(w.dtype))


def other_in_bfloat16(key, shape, dtype=float):
    other = jax.random.fold_in(key, 1) if dtype == jnp.bfloat16 else key
    return right(other, shape, jnp.float32).astype(dtype)


def wider(key, shape, dtype=float):
    return right(key, shape, jnp.float32).astype(dtype)


def moved_in_float64(key, shape, dtype=jnp.float32):
    return right(key, shape, dtype) + STD / 5 * (jnp.dtype(dtype) == np.float64)


def uniform(key, shape, dtype=float):
    return STD * 3**0.5 * jax.random.uniform(key, shape, dtype, -1, 1)


def stateful():
    calls = itertools.count()
    return lambda key, shape: right(jax.random.fold_in(key, next(calls)), shape)


def other_deviation(factor):
    return lambda key, shape, dtype=float: factor * right(key, shape, dtype)


def twice_in_float64(key, shape, dtype=jnp.float32):
    return (1 + (jnp.dtype(dtype) == np.float64)) * right(key, shape, dtype)


truncated = jax.nn.initializers.truncated_normal
MUTANTS = {
    "entries sorted": (
        independent,
        entries(lambda w: jnp.sort(w.ravel()).reshape(w.shape)),
    ),
    "rows sorted": (independent, entries(lambda w: jnp.sort(w, 1))),
    "columns sorted": (independent, entries(lambda w: jnp.sort(w, 0))),
    "antithetic columns": (independent, entries(lambda w: halves(w, 1, -1))),
    "antithetic rows": (independent, entries(lambda w: halves(w, 0, -1))),
    "repeated columns": (independent, entries(lambda w: halves(w, 1))),
    "repeated rows": (independent, entries(lambda w: halves(w, 0))),
    "one column twice": (independent, entries(lambda w: w.at[:, 7].set(w[:, 31]))),
    "one row twice": (independent, entries(lambda w: w.at[3].set(w[17]))),
    "mirrored": (independent, entries(lambda w: jnp.concatenate([w[:12], w[11::-1]]))),
    "circulant": (independent, entries(shifted_rows)),
    "smoothed": (independent, entries(lambda w: (w + jnp.roll(w, 1, 1)) / 2**0.5)),
    "columns share magnitudes": (independent, shared_sizes),
    "a scale of each weight": (independent, one_scale),
    "256 distinct keys": (independent, keyed(lambda k: k & jnp.uint32(15))),
    "first word of the key ignored": (independent, keyed(lambda k: k.at[0].set(0))),
    "second word of the key ignored": (independent, keyed(lambda k: k.at[1].set(0))),
    "high bits ignored": (independent, keyed(lambda k: k & jnp.uint32(2**31 - 1))),
    "words of the key added": (
        independent,
        keyed(lambda k: k.at[0].set(0).at[1].add(k[0])),
    ),
    "sign by the key": (independent, sign_by_key),
    "a zero row": (distinct, entries(lambda w: w.at[5].set(0))),
    "a zero column": (distinct, entries(lambda w: w.at[:, 5].set(0))),
    "half a percent of zeros": (distinct, entries(holes)),
    "clipped": (distinct, entries(lambda w: jnp.clip(w, -2 * STD, 2 * STD))),
    "few bits": (distinct, entries(lambda w: jnp.round(w * 2**12) / 2**12)),
    "drawn in float16": (distinct, through(jnp.float16)),
    "drawn in bfloat16": (bfloat16, jax.nn.initializers.normal(STD)),
    "bfloat16 has another key": (every_dtype, other_in_bfloat16),
    "float64 with twice the deviation": (float64, twice_in_float64),
    "float64 with another mean": (float64, moved_in_float64),
    "float64 drawn in float32": (float64, wider),
    "fan plus one": (moments, other_deviation((24 / 25) ** 0.5)),
    "fan minus one": (moments, other_deviation((24 / 23) ** 0.5)),
    "fan of the other axis": (moments, other_deviation((24 / 40) ** 0.5)),
    "a shifted mean": (moments, entries(lambda w: w + STD / 10)),
    "truncated without correction": (moments, truncated(STD)),
    "a uniform law": (functools.partial(law, shape=(64, 64)), uniform),
    "a truncated law": (
        functools.partial(law, shape=(400, 400)),
        truncated(STD / 0.87962566),
    ),
    "absolute values": (law, entries(jnp.abs)),
    "a state": (testing.assert_pure, stateful()),
    "no key": (
        testing.assert_pure,
        lambda key, shape, dtype=float: right(jax.random.key(3), shape, dtype),
    ),
}


def run(assertion, init, shape=SHAPE, **options):
    given = getattr(assertion, "keywords", {})
    assertion(init, **({"shape": shape} | given | options))


# One fault of each kind: of entries, rows and columns, keys, dtypes, moments and laws.
FIRST = [
    *("antithetic rows", "one column twice", "second word of the key ignored"),
    *("a zero row", "bfloat16 has another key", "float64 drawn in float32"),
    *("fan plus one", "a truncated law", "a state", "no key"),
]


@pytest.mark.parametrize("name", slow_but(FIRST, MUTANTS))
def test_mutants_are_caught(name):
    assertion, init = MUTANTS[name]
    if name != "a state":  # one program of a mutant runs faster than its operations
        init = jax.jit(init, static_argnums=(1, 2))
    with pytest.raises(AssertionError, match="must"):
        run(assertion, init)


RIGHT = {
    "independent": independent,
    "distinct": distinct,
    "bfloat16": bfloat16,
    "float64": float64,
    "moments": moments,
    "law": law,
}


@pytest.mark.parametrize("seed", slow_but([1], range(1, 6)))
@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.slow
def test_what_is_right_passes(name, seed):
    run(RIGHT[name], ji.normal(STD), key=jax.random.key(seed))


INDEPENDENT = [
    *(ji.normal(), ji.uniform(), ji.truncated_normal(), ji.he_uniform()),
    *(ji.normal(dtype="complex64"), ji.glorot_normal(dtype="complex64")),
    *(
        ji.torch.linear(),
        ji.uniform(low=-2, high=-1),
        ji.lecun_normal(dtype="bfloat16"),
    ),
]


@pytest.mark.parametrize("init", slow_but([ji.uniform()], INDEPENDENT), ids=repr)
@pytest.mark.parametrize(
    "shape", slow_but([(3, 3, 8, 16)], [(3, 3, 8, 16), (9, 64)]), ids=str
)
def test_independent_laws_pass(init, shape):
    for seed in range(3):
        independent(init, shape, key=jax.random.key(seed))
        if init.arguments.get("dtype") is None:
            distinct(init, shape, key=jax.random.key(seed))


@pytest.mark.slow
def test_keys_of_every_kind():
    independent(ji.normal(), SHAPE, key=jax.random.PRNGKey(0))
    independent(ji.normal(), (8, 16), key=jax.random.key(0, impl="rbg"))


def test_constants_do_not_depend_on_the_key():
    with pytest.raises(AssertionError, match="split key 0 and split key 1 give one"):
        independent(ji.ones(), SHAPE)


def layers(shares):
    """Makes an init function of four layers, of which some share a key."""

    def init(key):
        keys = jax.random.split(key, 4)
        w = [right(keys[0 if i in shares else i], (20, 30 + i)) for i in range(4)]
        return {f"layer_{i}": {"kernel": w[i], "bias": jnp.zeros(30)} for i in range(4)}

    return init


def test_layers_that_share_a_key_are_caught():
    testing.assert_layers_independent(layers(()))
    with pytest.raises(AssertionError, match=r"layer_0/kernel and layer_2/kernel must"):
        testing.assert_layers_independent(layers((0, 2)))
    stack = lambda key: {"a": jnp.stack([right(key, SHAPE)] * 3)}  # noqa: E731
    with pytest.raises(AssertionError, match=r"a\[0\] and a\[1\] must not correlate"):
        testing.assert_layers_independent(stack)
    with pytest.raises(ValueError, match="needs two random weights of 16 entries"):
        testing.assert_layers_independent(lambda key: right(key, SHAPE))
    with pytest.raises(TypeError, match="init must be a function of a key"):
        testing.assert_layers_independent({"a": 3})

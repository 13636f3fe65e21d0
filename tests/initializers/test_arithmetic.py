"""Arithmetic on initializers: JAX's jitted composition, as a value like any other."""

import math
import operator
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but
from numpy.testing import assert_array_equal as same

import jaxinit as ji

he, jax_he = ji.he_normal(), jax.nn.initializers.he_normal()
KEY = jax.random.key(0)
# Every expression of one, two and three operations that users write, by its spec.
EXPRESSIONS = [
    ("he_normal() * 0.3", lambda w: w * 0.3),
    ("he_normal() / 3", lambda w: w / 3),
    ("-he_normal()", operator.neg),
    ("he_normal() + 0.1", lambda w: w + 0.1),
    ("he_normal() - 0.1", lambda w: w - 0.1),
    ("-he_normal() + 1", lambda w: 1 - w),
    ("he_normal() * 0.3 * 0.7", lambda w: w * 0.3 * 0.7),
    ("he_normal() * 0.3 / 0.7", lambda w: w * 0.3 / 0.7),
    ("he_normal() / 0.3 * 0.7", lambda w: w / 0.3 * 0.7),
    ("he_normal() * 0.3 + 0.1", lambda w: w * 0.3 + 0.1),
    ("(he_normal() + 0.3) * 0.7", lambda w: (w + 0.3) * 0.7),
    ("-(he_normal() + 1) / 2", lambda w: -(w + 1) / 2),
    ("-(he_normal() * 2)", lambda w: -(w * 2)),
    ("-(-he_normal())", lambda w: operator.neg(-w)),
]
SHAPES = [(37, 64), (3, 5)]


SOON = [EXPRESSIONS[0], EXPRESSIONS[7], EXPRESSIONS[10]]


@pytest.mark.parametrize("spec, computed", slow_but(SOON, EXPRESSIONS, rows=True))
def test_bits_of_jax_wherever_it_is_drawn(spec, computed):
    init = computed(he)
    assert (repr(init), ji.parse(spec)) == (spec, init)
    jitted = jax.jit(lambda key: [computed(jax_he(key, shape)) for shape in SHAPES])(
        KEY
    )
    filled = ji.jit_init(lambda key: [init(key, shape) for shape in SHAPES])(KEY)
    for shape, expected, whole in zip(SHAPES, jitted, filled, strict=True):
        same(init(KEY, shape), expected, strict=True)
        same(whole, expected, strict=True)


def test_values_like_any_others():
    halves = [he * 0.5, 0.5 * he, he * np.float32(0.5), jnp.float32(0.5) * he]
    halves += [pickle.loads(pickle.dumps(halves[0])), ji.parse("0.5 * he_normal")]
    assert len(set(halves)) == 1 and +he is he
    assert he * 0.5 != he / 2 and he * 0.5 != he and -he != he and he + 0.0 != he - 0.0
    assert (he * 0.5).name == "he_normal" and (he * 0.5 + 1).source == he
    odd = [0.1 + 0.2, 1e-300, -0.0, 10**30, np.uint8(3), jnp.bfloat16(0.5), -1 + 0j]
    for number in odd:
        for init in (he * number, he + number, he - number, (he - number) * -1):
            assert ji.parse(repr(init)) == init == pickle.loads(pickle.dumps(init))
    narrow = ji.normal(1.0, jnp.bfloat16) * 0.3
    rounded = (ji.normal(1.0) * 0.3)(KEY, (64,)).astype(jnp.bfloat16)
    same(narrow(KEY, (64,)), rounded)  # one rounding, of the builder's own dtype


@pytest.mark.parametrize(
    "init, mean, variance",
    [
        (ji.normal(2.0, mean=1.0) * -3, -3.0, 36.0),
        (ji.normal(2.0, mean=1.0) / 2 + 1, 1.5, 1.0),
        (1 - ji.uniform(low=0.0, high=1.0), 0.5, 1 / 12),
        (ji.normal(2.0) * (3 + 4j), 0.0, 100.0),
        (ji.sparse(0.75, 0.2) * 5, 0.0, 0.25),
    ],
)
def test_moments_follow(init, mean, variance):
    stated = init.moments((64, 64))
    np.testing.assert_allclose(stated, (mean, variance), rtol=1e-12)
    kind = jnp.complex64 if isinstance(init.arguments["number"], complex) else None
    weight = np.asarray(init(KEY, (64, 64), kind), complex)
    assert abs(weight.mean() - mean) < 5 * math.sqrt(variance) / 64
    assert abs(weight.var() / variance - 1) < 0.1


def test_moments_of_numbers_beyond_the_type():
    assert (ji.normal() * 1e200).moments(3).variance == math.inf


@pytest.mark.parametrize(
    "wrong, error, said",
    [
        (
            lambda: he * he,
            TypeError,
            r"he_normal\(\) \* he_normal\(\): the factor must",
        ),
        (lambda: he + np.ones(3), TypeError, "the offset must be one number"),
        (lambda: he * math.nan, ValueError, "must be finite"),
        (lambda: he / 0, ValueError, "the divisor must not be 0"),
        (lambda: he * True, ValueError, "no boolean"),
        (lambda: he - True, ValueError, "no boolean"),
        (lambda: he * 10**400, ValueError, "must be finite"),
        (lambda: he * complex(1.7e308, 1.7e308), ValueError, "must be finite"),
        (lambda: he * KEY, TypeError, "the factor must be a number"),
        (lambda: he - np.str_("2"), TypeError, r"- np.str_.*offset must be a number"),
        (lambda: he - he, TypeError, r"he_normal\(\) - he_normal\(\): the offset must"),
        (
            lambda: (ji.zeros() * 1e39)(KEY, 3),
            ValueError,
            r"factor 1e\+39 is no number",
        ),
        (lambda: (ji.ones() / 1e-42)(KEY, 3), ValueError, "leave what"),
        (lambda: (ji.zeros() / 1e-42)(KEY, 3), ValueError, "divisor 1e-42 is no"),
        (lambda: (ji.normal(1e-50) * 1e50)(KEY, 3), ValueError, "1e-50 round to 0"),
        (lambda: (he * 1e39 / 1e39)(KEY, (4, 4)), ValueError, "leave what"),
        (lambda: he * "2", TypeError, "Initializer"),
        (lambda: 1 / he, TypeError, "Initializer"),
        (lambda: jax.jit(lambda c: (he * c)(KEY, (3, 3)))(2.0), TypeError, "known"),
        (lambda: (ji.ones() * 2)(None, 3, int), ValueError, "needs a float"),
        (lambda: (he * 2j)(KEY, (4, 4)), ValueError, "needs a complex dtype"),
        (lambda: (he * 1e-42)(KEY, (4, 4)), ValueError, "round to 0"),
        (lambda: (he * 1e6)(KEY, (4, 4), jnp.float16), ValueError, "leave what"),
        (lambda: ji.parse("he_normal() ** 2"), ValueError, "not a literal"),
        (lambda: ji.parse("1 + 2"), ValueError, "a spec is a call"),
        (lambda: ji.parse("he_normal() * sgd"), ValueError, "no initializer 'sgd'"),
    ],
)
def test_wrong_operands(wrong, error, said):
    with pytest.raises(error, match=said):
        wrong()


@pytest.mark.slow
def test_calls_of_other_libraries():
    init = ji.nd(ji.lecun_normal() * 0.5)
    jitted = jax.nn.initializers.lecun_normal(0, (1, 2))
    expected = jax.jit(lambda key: jitted(key, (8, 4, 2)) * 0.5)(KEY)
    same(init(KEY, (8, 4, 2), jnp.float32, 0, (1, 2)), expected)
    assert init == ji.nd(ji.lecun_normal() * 0.5) and "nd(lecun" in repr(init)
    same(ji.nd(ji.normal())(KEY, (3,)), ji.normal()(KEY, (3,)))
    both = ji.concatenated([he * 2, jax_he, ji.masked(he, True)], axis=0) + 1
    turned = ji.he_normal(in_axis=1, out_axis=0)
    named = ji.concatenated([turned * 2, jax_he, ji.masked(turned, True)], axis=0) + 1
    same(ji.nd(both)(KEY, (6, 3), None, 1, 0), named(KEY, (6, 3)))
    hk = pytest.importorskip("haiku")
    layer = hk.transform(
        lambda x: hk.Linear(4, w_init=ji.haiku(he), b_init=ji.haiku(ji.ones()))(x)
    )
    drawn = layer.init(KEY, jnp.ones((1, 6)))["linear"]
    assert drawn["b"].sum() == 4 and ji.haiku(he) == ji.haiku(ji.he_normal())
    for wrong in (ji.nd, ji.haiku):
        with pytest.raises(TypeError, match="init must be an initializer of jaxinit"):
            wrong(jax_he)


@pytest.mark.slow
def test_rules_read_through_an_operation():
    params = {"dense": {"kernel": jnp.zeros((48, 32)), "bias": jnp.zeros(48)}}
    with pytest.raises(ValueError, match="layout|stack"):
        ji.reinit(KEY, params, [("**/kernel", he * 0.5), ("**/bias", 0)])
    drawn = ji.reinit(KEY, {"w": jnp.zeros((64, 64))}, [("w", ji.orthogonal() * 2)])
    np.testing.assert_allclose(drawn["w"] @ drawn["w"].T, 4 * np.eye(64), atol=1e-4)

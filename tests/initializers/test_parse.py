"""Specs: text to initializer and back, and no text that does anything else."""

import inspect
import math

import jax
import pytest
from catalogue import OWN
from hypothesis import example, given, settings
from hypothesis import strategies as st

import jaxinit as ji
from jaxinit._initializer import REGISTRY
from jaxinit.testing import specs

numbers = st.one_of(
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=True, allow_infinity=True),
    st.complex_numbers(allow_nan=False),
    st.booleans(),
)
literals = st.recursive(
    st.one_of(numbers, st.text(max_size=8), st.none(), st.sampled_from(list(OWN))),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)
names = st.one_of(st.sampled_from(sorted(REGISTRY)), st.text(max_size=6))
arguments = st.sampled_from(
    ["stddev", "gain", "mode", "dtype", "value", "scale", "mean"]
)


def call_text(name, args, named):
    parts = [*map(repr, args), *(f"{key}={value!r}" for key, value in named.items())]
    return f"{name}({', '.join(parts)})"


calls = st.builds(
    call_text,
    names,
    st.lists(literals, max_size=3),
    st.dictionaries(arguments, literals, max_size=2),
)
grammar = st.text("abc_()[]{},.=+-*/'\"0123456789ejnormalinfnan \n\\#", max_size=40)


texts = st.one_of(calls, grammar, st.text(max_size=60))


@settings(max_examples=40)
@given(texts)
@example("\0")
@example("normal(" * 500)
@example("normal(" + "-" * 3000 + "1)")
@example("constant(" + "(" * 150 + ")" * 150 + ")")
@example("constant(9" + "9" * 3000 + ")")
@example("constant(value=[[1], [2, 3]])")
@example("normal('\\d')")
@example("normal(1if 1else 2)")
@example("normal(*[1])")
@example("normal(**{})")
@example("normal(f'{1}')")
@example("normal(...)")
@example("normal(b'x')")
@example("normal(dtype='f4,f8')")
@example("he_normal(gain=('relu', 1))")
@example("he_normal(gain=he_normal())")
def test_any_text_gives_an_initializer_or_a_value_error(text):
    assert_parsed_or_refused(text)


@pytest.mark.slow
@settings(max_examples=600)
@given(texts)
def test_many_texts_give_an_initializer_or_a_value_error(text):
    assert_parsed_or_refused(text)


def assert_parsed_or_refused(text):
    try:
        init = ji.parse(text)
    except ValueError as error:
        assert str(error).startswith("parse(")
        assert "\n" not in str(error)
    else:
        assert isinstance(init, ji.Initializer)
        assert ji.parse(repr(init)) == init


@settings(max_examples=50)
@given(specs())
def test_round_trip_of_specs(spec):
    init = ji.parse(spec)
    assert ji.parse(repr(init)) == init


@pytest.mark.slow
@settings(max_examples=300)
@given(specs())
def test_round_trip_of_many_specs(spec):
    init = ji.parse(spec)
    assert ji.parse(repr(init)) == init


@given(st.floats(0, 1e30), st.floats(-1e30, 1e30))
def test_round_trip_of_numbers(stddev, mean):
    init = ji.normal(stddev, mean=mean)
    assert ji.parse(repr(init)) == init


@given(st.recursive(numbers, lambda inner: st.lists(inner, min_size=2, max_size=2)))
def test_round_trip_of_values(value):
    try:
        init = ji.constant(value)
    except TypeError:  # rows of different lengths
        return
    assert ji.parse(repr(init)) == init


def test_a_range_is_its_numbers():
    assert ji.constant(range(3)) == ji.constant((0, 1, 2))
    assert ji.parse(repr(ji.constant(range(3)))) == ji.constant(range(3))


def test_forms():
    assert ji.parse("zeros") == ji.parse(" zeros() ") == ji.zeros()
    assert ji.parse("normal(0.02)") == ji.normal(0.02)
    assert ji.parse("constant([1, -2.5, +3])") == ji.constant([1, -2.5, 3])
    assert ji.parse("constant((1+2j))") == ji.constant(1 + 2j)
    assert ji.parse("constant(-inf)") == ji.constant(-math.inf)
    assert ji.parse(
        "he_normal(gain=('leaky_relu', 0.2), mode='fan_out')"
    ) == ji.he_normal(gain=("leaky_relu", 0.2), mode="fan_out")


def test_aliases_are_the_same_builders_and_parse():
    for alias, name in {
        "xavier_uniform": "glorot_uniform",
        "xavier_normal": "glorot_normal",
        "kaiming_uniform": "he_uniform",
        "kaiming_normal": "he_normal",
    }.items():
        assert getattr(ji, alias) is getattr(ji, name)
        assert ji.parse(alias) == ji.parse(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "he_norml()",
            r"there is no initializer 'he_norml'\. Did you mean 'he_normal'",
        ),
        ("zzz()", r"there is no initializer 'zzz'\.$"),
        ("normal(", r"malformed \("),
        ("1 + 1", "a spec is a call, like"),
        ("normal(x)", "'x' is not a literal"),
        ("he_normal(gain=gelu)", "A string needs quotes: 'gelu'.$"),
        ("normal(stddev=1 + 1)", "'1 \\+ 1' is not a literal"),
        ("normal(-'a')", "\"'a'\" is not a number"),
        ("normal(-True)", "'True' is not a number"),
        ("__import__('os').system('true')", "is not a literal|there is no"),
        ("normal(**{'stddev': 1})", "\\*\\* is not a literal"),
        ("normal(stddev=-1)", r"normal\(stddev=-1\): stddev must be 0 or above"),
        ("normal(stddev='a')", "stddev must be a real number"),
        ("constant", r"constant\(value, dtype\): missing a required argument"),
        ("normal(1" + " " * 5000 + ")", "at most 4000 characters"),
        ("constant(" + "-" * 3900 + "1)", "nested too deeply|malformed"),
    ],
)
def test_messages(text, message):
    with pytest.raises(ValueError, match=message):
        ji.parse(text)


@pytest.mark.parametrize(
    "arguments",
    [
        "None, (20000, 20000)",
        "None, [20000, 20000], 'float32'",
        "None, (20000, 20000), None, None",
        "key=None, shape=(20000, 20000)",
        "None, shape=(20000, 20000)",
        "0, 400000000, 'float32'",
    ],
)
def test_no_spec_draws(arguments, monkeypatch):
    def drawn(*given):
        raise AssertionError("parse draws")

    monkeypatch.setattr(ji._initializer, "fill", drawn)
    calls = [f"{name}({arguments})" for name in REGISTRY]
    for text in [*calls, *(f"stacked({call})" for call in calls)]:
        try:
            assert isinstance(ji.parse(text), ji.Initializer)
        except ValueError as error:
            assert str(error).startswith("parse(")


def test_a_spec_that_would_draw_says_so():
    for spec in ("zeros(None, (20000, 20000))", "ones(key=None, shape=(2, 3))"):
        with pytest.raises(
            ValueError, match="a spec draws nothing: .* no key and shape"
        ):
            ji.parse(spec)
    for spec in ("normal(None, (2, 3))", "normal()(None, (2, 3))"):
        with pytest.raises(ValueError, match="a spec draws nothing|is not a literal"):
            ji.parse(spec)


HUGE = ["1e154", "1e200", "1e308", "1e400", "nan", "-1e308", "5e-324", "9" * 400]
HUGE += ["('leaky_relu', 1e200)", "('elu', 1e308)", "('celu', -1e308)", "(1e308, 1)"]


@pytest.mark.parametrize("number", HUGE)
def test_numbers_without_a_square(number):
    """Every number of every builder: an initializer with moments, or a ValueError."""
    for name in OWN:
        for argument in inspect.signature(REGISTRY[name]).parameters:
            text = f"{name}({argument}={number})"
            try:
                init = ji.parse(text)
            except ValueError as error:
                assert str(error).startswith("parse(") and "\n" not in str(error)
                continue
            for shape in ((3, 4), (3, 4, 8), (3,)):
                try:
                    init.moments(shape)
                except ValueError as error:
                    assert ".moments(shape=" in str(error)


@pytest.mark.parametrize("name", ["he_normal", "orthogonal", "torch.xavier_normal"])
def test_gains_without_a_square(name):
    for number in ("1e308", "1e155", "1e-200"):
        rule = rf"{name}\(gain=.*\): gain is squared, and must be 0 or between 1e-154"
        with pytest.raises(ValueError, match=rule):
            ji.parse(f"{name}(gain={number})")


def test_only_strings():
    with pytest.raises(TypeError, match=r"parse\(spec=3\): spec must be a string"):
        ji.parse(3)


def test_functions_print_by_name_and_are_not_parsed():
    init = ji.he_normal(gain=jax.nn.gelu)
    assert repr(init) == "he_normal(gain=gelu)"
    with pytest.raises(ValueError, match="'gelu' is not a literal"):
        ji.parse(repr(init))

"""Strategies for hypothesis: keys, shapes and specs."""

import inspect
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import jax

from jaxinit import _check as check
from jaxinit import _value
from jaxinit._initializer import REGISTRY
from jaxinit._spec import parse
from jaxinit.initializers import normal
from jaxinit.testing._case import import_needed, name_call

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

IMPLEMENTATIONS = ("threefry2x32", "rbg", "unsafe_rbg")  # that JAX documents
_DTYPES = ("float32", "bfloat16", "float16")
_GAINS = ("relu", "gelu", "tanh", ("leaky_relu", 0.2))
_MOST_TRIED = 100  # combinations of values of required arguments


def keys(impl: str | None = None) -> "SearchStrategy[jax.Array]":
    """Returns a strategy of PRNG keys, typed and legacy.

    Legacy keys do not name their implementation, and so have JAX's default one.

    Args:
      impl: "threefry2x32", "rbg" or "unsafe_rbg"; by default all of them.

    Returns:
      A strategy of keys.

    Raises:
      ValueError: if there is no such implementation.
      ImportError: if hypothesis is not installed.

    Example:
      >>> from hypothesis import given, settings
      >>> @settings(max_examples=5, deadline=None)
      ... @given(key=jaxinit.testing.keys())
      ... def test_normal_takes_any_key(key):
      ...     assert jaxinit.normal()(key, (3,)).shape == (3,)
      >>> test_normal_takes_any_key()
    """
    st = import_needed("keys", "hypothesis.strategies")
    with name_call("keys"):
        if impl is not None:
            check.choice(IMPLEMENTATIONS, impl=impl)
    impls = IMPLEMENTATIONS if impl is None else (impl,)
    seeds = st.integers(0, 2**31 - 1)
    found = st.builds(
        lambda seed, impl: jax.random.key(seed, impl=impl),
        seeds,
        st.sampled_from(impls),
    )
    default = str(jax.random.key_impl(jax.random.key(0)))
    if default in impls:
        found |= st.builds(jax.random.PRNGKey, seeds)
    return found  # type: ignore[no-any-return]


def shapes(
    min_rank: int = 0, max_rank: int = 4, min_size: int = 0, max_size: int = 8
) -> "SearchStrategy[tuple[int, ...]]":
    """Returns a strategy of shapes.

    Args:
      min_rank: the least number of axes, 0 or above.
      max_rank: the largest number of axes.
      min_size: the least size of an axis, 0 or above.
      max_size: the largest size of an axis.

    Returns:
      A strategy of tuples of integers.

    Raises:
      ValueError: if a bound is negative, or a largest is below its least.
      TypeError: if a bound is not an integer.
      ImportError: if hypothesis is not installed.

    Example:
      >>> from hypothesis import given, settings
      >>> @settings(max_examples=5, deadline=None)
      ... @given(shape=jaxinit.testing.shapes(min_rank=2))
      ... def test_zeros_take_any_shape(shape):
      ...     assert jaxinit.zeros(None, shape).shape == shape
      >>> test_zeros_take_any_shape()
    """
    st = import_needed("shapes", "hypothesis.strategies")
    with name_call("shapes"):
        check.at_least(0, min_rank=min_rank)
        check.at_least(min_rank, max_rank=max_rank)
        check.at_least(0, min_size=min_size)
        check.at_least(min_size, max_size=max_size)
    sizes = st.integers(min_size, max_size)
    found = st.lists(sizes, min_size=min_rank, max_size=max_rank).map(tuple)
    return found  # type: ignore[no-any-return]


def specs() -> "SearchStrategy[str]":
    """Returns a strategy of specs that `parse` reads.

    Every builder that is registered takes part, yours included, if its required
    arguments can be guessed. Arguments are drawn from their default and annotation:
    choices, flags, dtypes, numbers and gains; axes and counts, whose meaning depends on
    a shape, stay at their defaults. Arguments that a builder refuses are left out.

    Returns:
      A strategy of texts such as ``"he_normal(gain='gelu')"``.

    Raises:
      ImportError: if hypothesis is not installed.

    Example:
      >>> from hypothesis import given, settings
      >>> @settings(max_examples=5, deadline=None)
      ... @given(spec=jaxinit.testing.specs())
      ... def test_specs_are_read(spec):
      ...     assert isinstance(jaxinit.parse(spec), jaxinit.Initializer)
      >>> test_specs_are_read()
    """
    st = import_needed("specs", "hypothesis.strategies")
    guessed = {name: _required(name) for name in sorted(REGISTRY)}
    known = {name: given for name, given in guessed.items() if given is not None}
    numbers = st.floats(-2, 2, allow_subnormal=False)

    def values(parameter: inspect.Parameter) -> Any:
        if choices := _choices(parameter):
            return st.sampled_from(choices)
        return numbers | st.sampled_from(_GAINS)

    def draw_spec(draw: Any) -> str:
        name = draw(st.sampled_from(list(known)))
        arguments = known[name]
        for parameter in inspect.signature(REGISTRY[name]).parameters.values():
            if draw(st.booleans()):
                tried = {**arguments, parameter.name: draw(values(parameter))}
                arguments = tried if _is_read(name, tried) else arguments
        return _text(name, arguments)

    return st.composite(draw_spec)()  # type: ignore[no-any-return]


def _choices(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """Returns the values of an argument, if it has few; else none."""
    hint = parameter.annotation
    for part in (hint, *get_args(hint)):  # a choice, or a union with one
        if get_origin(part) is Literal:
            return get_args(part)
    if isinstance(parameter.default, bool):
        return False, True
    return _DTYPES if parameter.name == "dtype" else ()


def _required(name: str) -> dict[str, Any] | None:
    """Returns values for the arguments without default, or None if none fit."""
    parameters = inspect.signature(REGISTRY[name]).parameters.values()
    required = [p for p in parameters if p.default is p.empty]
    guesses = (0.5, 1, 2, 100, normal(), (normal(),), (True, False))
    tried = itertools.product(*(_choices(p)[:1] or guesses for p in required))
    for values in itertools.islice(tried, _MOST_TRIED):
        arguments = {p.name: v for p, v in zip(required, values, strict=True)}
        if _is_read(name, arguments):
            return arguments
    return None


def _text(name: str, arguments: Mapping[str, Any]) -> str:
    given = (f"{key}={_value.spell(value)}" for key, value in arguments.items())
    return f"{name}({', '.join(given)})"


def _is_read(name: str, arguments: Mapping[str, Any]) -> bool:
    try:
        parse(_text(name, arguments))
    except Exception:  # a builder of yours may raise anything
        return False
    return True

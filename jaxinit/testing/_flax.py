"""The assertion that an initializer works where Flax takes one."""

from collections.abc import Callable
from typing import Any

import jax
from jax.typing import DTypeLike

from jaxinit import _value
from jaxinit._import import explain_missing
from jaxinit._initializer import Initializer, Shape
from jaxinit.testing._case import Case, Init, difference, open_case


def assert_plugs_into_flax(
    init: Init,
    shape: Shape,
    dtype: DTypeLike | None = None,
    *,
    rebuild: Callable[[], Init] | None = None,
    key: jax.Array | None = None,
) -> None:
    """Asserts that an initializer works where Flax takes one.

    It is tried as a Linen param, plain, boxed by `nn.with_partitioning` and lifted by
    `nn.vmap` and `nn.scan`; as an `nnx.Param` drawn from `nnx.Rngs`; and, if
    ``rebuild`` is given, in a static argument of `jax.jit`, where equal modules must
    compile once.

    Args:
      init: the initializer.
      shape: sizes of the weight.
      dtype: dtype of the weight; by default the initializer's own.
      rebuild: builds an equal initializer; by default an initializer of jaxinit is
        built again, and the compilations of others are not counted.
      key: the key; by default ``jax.random.key(0)``.

    Raises:
      AssertionError: if a parameter has a wrong shape, dtype or value, or equal modules
        compile twice.
      ValueError: if an argument is out of range.
      TypeError: if an argument is of the wrong type.

    Example:
      >>> jaxinit.testing.assert_plugs_into_flax(jaxinit.he_normal(), (4, 5))
    """
    with explain_missing("assert_plugs_into_flax", "lab"):
        from flax import nnx
    with open_case("assert_plugs_into_flax", init, shape, key) as case:
        kind = None if dtype is None else _value.as_dtype(dtype)
        arguments = (case.shape,) if kind is None else (case.shape, kind)
        expected = jax.eval_shape(lambda key: case.draw(key, kind), case.key)
        layer, cell = _make_modules(arguments)

        def variable(init: Init) -> Any:
            return nnx.eval_shape(lambda: cell(init, nnx.Rngs(case.key)))

        _assert_places(case, expected, layer, variable(init))
        if rebuild is None and isinstance(init, Initializer):
            rebuild = lambda: init._build(**init.arguments)  # noqa: E731
        if rebuild is not None:
            again = rebuild()
            graphs = [nnx.graphdef(variable(one)) for one in (init, again)]
            traces = _count_traces(layer(init), layer(again), case.key)
            if traces > 1 or graphs[0] != graphs[1]:
                rule = "modules of equal initializers must be equal, and compile once."
                raise case.failure(rule, "They compile twice.")


def _make_modules(arguments: tuple[Any, ...]) -> tuple[Any, Any]:
    """Makes a module of Linen and one of NNX; each has one parameter ``w``."""
    import flax.linen as nn
    from flax import nnx

    class Layer(nn.Module):
        weight_init: Any

        @nn.compact
        def __call__(self, carry: Any) -> tuple[Any, None]:
            self.param("w", self.weight_init, *arguments)
            return carry, None

    class Cell(nnx.Module):
        def __init__(self, weight_init: Init, rngs: nnx.Rngs):
            self.weight_init = weight_init
            self.w = nnx.Param(weight_init(rngs.params(), *arguments))

    return Layer, Cell


def _assert_places(case: Case, expected: Any, layer: Any, cell: Any) -> None:
    """Asserts shape and dtype of the parameter in each place where Flax draws one."""
    import flax.linen as nn

    def param(module: Any) -> Any:
        return module(case.init).init(case.key, 0)["params"]["w"]

    lift: dict[str, Any] = {
        "variable_axes": {"params": 0},
        "split_rngs": {"params": True},
    }
    mapped = nn.vmap(layer, in_axes=None, axis_size=2, **lift)
    scanned = nn.scan(layer, length=2, **lift)
    names = tuple(f"axis {axis}" for axis in range(len(case.shape)))
    plain = param(layer)
    boxed = param(lambda init: layer(nn.with_partitioning(init, names)))
    stacked = (2, *expected.shape)
    for place, found, sizes in (
        ("a Linen param", plain, expected.shape),
        ("nn.vmap", jax.eval_shape(lambda: param(mapped)), stacked),
        ("nn.scan", jax.eval_shape(lambda: param(scanned)), stacked),
        ("an nnx.Param", cell.w.get_value(), expected.shape),
    ):
        if (found.shape, found.dtype) != (sizes, expected.dtype):
            rule = f"{place} must be {expected.dtype}{list(sizes)}."
            came = f"It is {found.dtype}{list(found.shape)}."
            raise case.failure(rule, came)
    if boxed.names != names or difference(boxed.value, plain):
        rule = "nn.with_partitioning must box the same value with its names."
        raise case.failure(rule, f"It gives {boxed.names}.")


def _count_traces(first: Any, second: Any, key: jax.Array) -> int:
    """Counts how often two modules are traced as a static argument of `jax.jit`."""
    traces = 0

    def started(module: Any, key: jax.Array) -> Any:
        nonlocal traces
        traces += 1
        return module.init(key, 0)

    jitted = jax.jit(started, static_argnums=0)
    for module in (first, second):
        jitted.eval_shape(module, key)
    return traces

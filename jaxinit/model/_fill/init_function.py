"""`jit_init`: `jax.jit` for init functions, one program for each kind of parameter."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from jaxinit import _check as check
from jaxinit import _paths, _placement
from jaxinit._adapt.kinds import find_modules
from jaxinit._jaxpr.equation import is_divided
from jaxinit._jaxpr.tracers import trace_quietly
from jaxinit.model._fill.plan import Plan
from jaxinit.model._fill.programs import Output
from jaxinit.random.backends import find_unasked, of_bits

_DATA = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)


def jit_init(
    init_fn: Callable[..., Any],
    *,
    out_shardings: Any = None,
    static_argnums: int | Sequence[int] | None = (),
    static_argnames: str | Sequence[str] | None = (),
) -> "InitFunction":
    """Compiles an init function, as `jax.jit` does, once for each kind of parameter.

    `jax.jit` compiles every parameter's draw, although most are the same program on
    another key, and the forward pass on top. Here the function is traced, keys are
    derived, and each parameter is cut out with the equations that it needs: a slice.
    Equal slices share one program; programs compile side by side, and the first ones
    fill meanwhile. Draws of `jax.random` take this library's paths. Values are bit for
    bit those of ``jax.jit(init_fn)``. Parameters that depend on each other share one
    program, at worst one for all, which is then as fast as `jax.jit`.

    Args:
      init_fn: any function that JAX can trace: ``model.init`` of Flax Linen, ``lambda
        key: Model(rngs=nnx.Rngs(key))`` of Flax NNX (also within ``nnx.split``), a
        constructor of Equinox, or a plain function. If `jax.jit` cannot return the
        result, because it holds functions or strings, its arrays are filled and
        everything else comes back as it is. A variable that a model of NNX shares
        between layers stays shared, unless out_shardings are given.
      out_shardings: shardings of the result, a prefix of its tree, as for `jax.jit`;
        every device fills its own shard.
      static_argnums: positions of arguments that are part of the program.
      static_argnames: names of such arguments.

    Returns:
      A function of the same arguments. Its ``plan(*args)`` tells, without drawing, into
      which slices the program is cut, and ``report(*args)`` how long each takes.

    Raises:
      TypeError: if init_fn is not callable, or an argument has the wrong type; at the
        call, if JAX cannot trace it.
      ValueError: if init_fn lacks a static argument; at the call, if out_shardings do
        not fit the result.

    Example:
      >>> import flax.linen as nn
      >>> model = nn.Sequential([nn.Dense(64) for _ in range(20)])
      >>> init, x = jaxinit.jit_init(model.init), jnp.ones((1, 64))
      >>> params = init(jax.random.key(0), x)
      >>> same = jax.jit(model.init)(jax.random.key(0), x)
      >>> jax.tree.all(jax.tree.map(jnp.array_equal, params, same))
      True
      >>> len(init.plan(jax.random.key(0), x).slices)  # of 20 kernels and 20 biases
      2
    """
    _check_function(init_fn)
    try:
        jax.jit(init_fn, out_shardings=out_shardings)  # refuses wrong shardings
        return InitFunction(init_fn, out_shardings, static_argnums, static_argnames)
    except (TypeError, ValueError) as error:
        given = {
            "out_shardings": out_shardings,
            "static_argnums": static_argnums,
            "static_argnames": static_argnames,
        }
        shown = ", ".join(f"{k}={check.show(v)}" for k, v in given.items() if v)
        reason = str(error).splitlines()[0]
        raise type(error)(
            f"jit_init({shown}): these must be as for jax.jit. {reason}"
        ) from None


def _check_function(init_fn: Any) -> None:
    if not callable(init_fn):
        rule = "init_fn must be a function, such as model.init."
        raise check.Unfit(rule, TypeError, init_fn=init_fn).at("jit_init")
    if isinstance(init_fn, find_modules("flax.linen")):
        rule = "init_fn must be a function, and this is a module. Pass model.init."
        raise check.Unfit(rule, TypeError, init_fn=type(init_fn)).at("jit_init")


class InitFunction:
    """The result of `jit_init`: a function that fills what an init function returns.

    Attributes:
      init_fn: the function.
    """

    def __init__(
        self,
        init_fn: Callable[..., Any],
        out_shardings: Any,
        static_argnums: int | Sequence[int] | None,
        static_argnames: str | Sequence[str] | None,
    ):
        """Takes the arguments of `jit_init`."""
        functools.update_wrapper(self, init_fn)
        self.init_fn = init_fn
        self._shardings = out_shardings
        self._static = _static(init_fn, static_argnums, static_argnames)
        numbers, names = self._static
        self._jitted = jax.jit(
            _packed(init_fn, out_shardings is None),
            static_argnums=sorted(numbers) or None,
            static_argnames=sorted(names) or None,
        )
        self._plans: dict[Any, Plan] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Fills the result of ``init_fn(*args, **kwargs)``."""
        if (
            _placement.is_traced()
            or _placement.is_debugged()
            or jax.config.jax_disable_jit  # type: ignore[attr-defined]
        ):
            return self._by_jit(args, kwargs)
        mesh = _placement.explicit_mesh()
        if mesh is None:
            return _unpacked(self._filled(args, kwargs))
        types = self._jitted.trace(*args, **kwargs)
        if is_divided(types.jaxpr.jaxpr):  # it needs types with shardings
            return self._by_jit(args, kwargs)
        with _placement.automatic():
            made = self._filled(*self._untyped(args, kwargs))
        made = jax.tree.map(functools.partial(_typed, mesh), made, types.out_info)
        return _unpacked(made)

    def _filled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        leaves = self._leaves(args, kwargs)
        return self._laid(self._planned(args, kwargs, leaves).fill(leaves))

    def _by_jit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Returns what `jax.jit` does: within other programs, and to debug."""
        return _unpacked(self._laid(self._jitted(*args, **kwargs)))

    def _laid(self, made: Any) -> Any:
        """Places results as asked; those that are arguments would stay in place."""
        if self._shardings is None:
            return made
        leaves, tree = jax.tree.flatten(made)
        places = [output.sharding for output in self._outputs(made)]
        return jax.tree.unflatten(tree, map(_constrained, leaves, places))

    def plan(self, *args: Any, **kwargs: Any) -> Plan:
        """Returns the slices of ``init_fn(*args, **kwargs)``, and fills nothing.

        Args:
          *args: the arguments, or `jax.ShapeDtypeStruct` in their place.
          **kwargs: arguments by name, likewise.
        """
        with _placement.automatic():
            args, kwargs = self._untyped(args, kwargs)
            return self._planned(args, kwargs, self._leaves(args, kwargs))

    def report(self, *args: Any, **kwargs: Any) -> Plan:
        """Returns the slices with the seconds that compiling and filling each took.

        Everything is filled once, one slice after another, and thrown away.
        """
        with _placement.automatic():
            args, kwargs = self._untyped(args, kwargs)
            leaves = self._leaves(args, kwargs)
            plan = self._planned(args, kwargs, leaves)
            plan.measure(leaves)
        return plan

    def __repr__(self) -> str:
        name = getattr(self.init_fn, "__qualname__", repr(self.init_fn))
        return f"jit_init({name})"

    def _leaves(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """Returns the arguments that are data, in the order of the traced program."""
        numbers, names = self._static_of(args)
        positional = tuple(a for i, a in enumerate(args) if i not in numbers)
        named = {k: v for k, v in kwargs.items() if k not in names}
        return jax.tree.leaves((positional, named))

    def _static_of(self, args: tuple[Any, ...]) -> tuple[set[int], set[str]]:
        """Returns positions and names of the static arguments."""
        numbers, names = self._static
        return {n % len(args) if n < 0 else n for n in numbers}, names

    def _untyped(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments, with data on meshes whose axes are automatic."""
        if _placement.current_mesh().empty:
            return args, kwargs
        numbers, names = self._static_of(args)

        def change(is_static: bool, value: Any) -> Any:
            return value if is_static else jax.tree.map(_placement.untyped, value)

        positional = tuple(change(i in numbers, a) for i, a in enumerate(args))
        return positional, {k: change(k in names, v) for k, v in kwargs.items()}

    def _planned(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Any]
    ) -> Plan:
        placed = tuple(map(placed_of, leaves))
        places = (*placed, *jax.tree.leaves(self._shardings))
        backend = find_unasked(_placement.platform_of(*places))
        try:
            with of_bits(backend.written_out):
                traced = self._jitted.trace(*args, **kwargs)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
            reason = str(error).splitlines()[0]
            raise TypeError(
                f"{self!r}: init_fn must be a function that JAX can trace, as for "
                f"jax.jit. {reason} Name arguments that choose the program in "
                "static_argnames, and keep numpy out of init_fn."
            ) from error
        mesh = _placement.current_mesh()
        token = id(traced.jaxpr), placed, mesh  # the plan holds the jaxpr: its id stays
        if token not in self._plans:
            outputs = self._outputs(traced.out_info)
            tree = jax.tree.structure(traced.out_info)
            self._plans[token] = Plan(traced.jaxpr, outputs, tree, placed, mesh)
        return self._plans[token]

    def _outputs(self, result: Any) -> list[Output]:
        """Returns name, type and placement of every array of the result."""
        found = [(_paths.text(keys), leaf) for keys, leaf in _paths.leaves(result)]
        shardings: list[Any] = [None] * len(found)
        if self._shardings is not None:
            shardings = self._spread(result)
        outputs = []
        for (name, leaf), sharding in zip(found, shardings, strict=True):
            sharding = _placement.named(sharding)
            if isinstance(sharding, Sharding):
                try:
                    sharding.shard_shape(leaf.shape)
                except ValueError as error:
                    raise ValueError(
                        f"{self!r}: {name} of shape {leaf.shape} does not fit its "
                        f"sharding. {error}"
                    ) from None
            outputs.append(Output(name, leaf.shape, leaf.dtype, sharding))
        return outputs

    def _spread(self, result: Any) -> list[Any]:
        """Returns a sharding, or None, for every array of the result."""

        def ends(x: Any) -> bool:
            return x is None or isinstance(x, (Sharding, PartitionSpec))

        try:
            spread = jax.tree.map(
                lambda sharding, part: [sharding] * len(jax.tree.leaves(part)),
                self._shardings,
                result,
                is_leaf=ends,
            )
        except ValueError as error:
            raise ValueError(
                f"{self!r}: out_shardings must have the tree of what init_fn returns, "
                f"or a prefix of it. {str(error).splitlines()[0]}"
            ) from None
        lists = jax.tree.leaves(spread, is_leaf=lambda x: isinstance(x, list))
        return [sharding for each in lists for sharding in each]


def _constrained(leaf: Any, place: Any) -> Any:
    if place is None:
        return leaf
    traced = isinstance(leaf, jax.core.Tracer)
    if traced:
        return jax.jit(lambda x: x, out_shardings=place)(leaf)
    return jax.device_put(leaf, place)


def _typed(mesh: Mesh, made: Any, info: Any) -> Any:
    """Returns an array on an explicit mesh, as a program in that mesh returns it."""
    place = made.sharding
    if isinstance(place, NamedSharding):
        if place.mesh == mesh:
            return made
        if any(place.spec):
            return jax.device_put(made, NamedSharding(mesh, place.spec))
    spec = getattr(info.sharding, "spec", PartitionSpec())
    return jax.device_put(made, NamedSharding(mesh, spec))


class _Packed:
    """A result that `jax.jit` cannot return: its arrays by name, the rest as it is.

    It holds leaves that are not data, or a variable of NNX that is shared.
    """

    def __init__(self, arrays: Sequence[Any], fixed: tuple[Any, ...]):
        self.arrays, self.fixed = arrays, fixed  # fixed: names, tree, leaves, way back


jax.tree_util.register_pytree_with_keys(
    _Packed,
    lambda packed: (
        zip(map(jax.tree_util.GetAttrKey, packed.fixed[0]), packed.arrays, strict=True),
        packed.fixed,
    ),
    lambda fixed, arrays: _Packed(tuple(arrays), fixed),
)


def _packed(init_fn: Callable[..., Any], with_ties: bool) -> Callable[..., Any]:
    """Makes an init function return what `jax.jit` can return."""

    @functools.wraps(init_fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        merge = None

        def shared_once(*args: Any, **kwargs: Any) -> Any:
            nonlocal merge
            result = init_fn(*args, **kwargs)
            state, way_back = _paths.split(result)
            tied = len(jax.tree.leaves(state)) < len(jax.tree.leaves(result))
            merge = way_back if tied else None
            return state if tied else result

        result = trace_quietly(shared_once if with_ties else init_fn, args, kwargs)
        found, tree = jax.tree_util.tree_flatten_with_path(result)
        if merge is None and all(isinstance(leaf, _DATA) for _, leaf in found):
            return result
        drawn = [isinstance(leaf, (jax.Array, np.ndarray)) for _, leaf in found]
        arrays = [one for one, is_drawn in zip(found, drawn, strict=True) if is_drawn]
        names = tuple(_paths.text(path) for path, _ in arrays)
        rest = tuple(
            None if is_drawn else leaf
            for (_, leaf), is_drawn in zip(found, drawn, strict=True)
        )
        fixed = (names, tree, tuple(drawn), rest, merge)
        return _Packed([leaf for _, leaf in arrays], fixed)

    return run


def _unpacked(result: Any) -> Any:
    """Returns what the init function itself would have returned."""
    if not isinstance(result, _Packed):
        return result
    _, tree, drawn, rest, merge = result.fixed
    arrays = iter(result.arrays)
    leaves = [next(arrays) if d else one for d, one in zip(drawn, rest, strict=True)]
    whole = jax.tree.unflatten(tree, leaves)
    return whole if merge is None else merge(whole)


def placed_of(leaf: Any) -> Sharding | None:
    """Returns the sharding that an array, or its stand-in, was given on purpose."""
    traced = isinstance(leaf, jax.core.Tracer)
    if traced or not getattr(leaf, "committed", True):
        return None
    placed: Sharding | None = getattr(leaf, "sharding", None)
    return placed


def _static(
    init_fn: Callable[..., Any],
    numbers: int | Sequence[int] | None,
    names: str | Sequence[str] | None,
) -> tuple[set[int], set[str]]:
    """Returns positions and names of static arguments, each completed by the other."""
    found = {numbers} if isinstance(numbers, int) else set(numbers or ())
    named = {names} if isinstance(names, str) else set(names or ())
    if not all(isinstance(number, int) for number in found):
        raise TypeError("static_argnums must be integers.")
    try:
        parameters = inspect.signature(init_fn).parameters.values()
    except (TypeError, ValueError):  # functions written in C have no signature
        return found, named
    order = [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD]
    by_name = {order.index(name) for name in named if name in order}
    return found | by_name, named | {order[i] for i in found if -1 < i < len(order)}

"""What a model becomes: functions of arrays, for `check` and for training."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name

from jaxinit._adapt.inputs import ARRAYS, Restore, split_arrays
from jaxinit._jaxpr.tracers import trace_quietly

Params = Any  # a pytree of arrays

TAG = "jaxinit:"  # begins the names of outputs of modules in a traced model


@dataclasses.dataclass(frozen=True)
class Model:
    """A model as two functions.

    Attributes:
      init: makes the parameters, and whatever else the model stores, from a key.
      apply: computes the output from both, a key for noise, and the inputs.
      framework: returns what the model is written in, once init was traced: "linen",
        "nnx", "equinox", "haiku" or "functions".
      restore: makes what the framework's own call returns of what `init` makes, once
        that was traced: variables of Linen, a model of NNX or Equinox, parameters.
    """

    init: Callable[[jax.Array], tuple[Params, Any]]
    apply: Callable[..., Any]
    framework: Callable[[], str] = lambda: "functions"
    restore: Callable[[Params, Any], Any] = lambda params, rest: params


class Split(NamedTuple):
    """A model of NNX or Equinox, taken apart.

    Attributes:
      params: its parameters.
      rest: what else it stores.
      restore: makes a model of both.
      call: computes the output from a model, a key for noise, the inputs and the
        keywords of the call.
    """

    params: Params
    rest: Any
    restore: Callable[[Params, Any], Any]
    call: Callable[[Any, jax.Array, tuple[Any, ...], Mapping[str, Any]], Any]


class Trainable(NamedTuple):
    """A model as three functions; the caller need not choose its mode by arguments.

    Attributes:
      init: makes variables, "params" among them, from a key and inputs.
      apply: computes outputs from variables and inputs, in evaluation.
      train: computes them in training, with a key for dropout; also returns the
        collections that changed, parameters aside.
    """

    init: Callable[[jax.Array, jax.Array], Any]
    apply: Callable[[Any, jax.Array], jax.Array]
    train: Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any]]


@dataclasses.dataclass(frozen=True)
class Call:
    """How a model is called.

    Attributes:
      inputs: example inputs.
      arguments: keywords of the call.
      streams: names of the random streams beside ``params``.
    """

    inputs: tuple[Any, ...]
    arguments: Mapping[str, Any]
    streams: tuple[str, ...]

    def rngs(self, key: jax.Array, *before: str) -> dict[str, jax.Array]:
        """Makes a key for each stream."""
        names = (*before, *self.streams)
        return dict(zip(names, jax.random.split(key, len(names)), strict=True))


class OfArrays(NamedTuple):
    """A model whose inputs and results are arrays; what else they hold is fixed.

    Attributes:
      init: makes what the model stores, from a key and the arrays of the inputs.
      apply: computes the arrays of the output, from what the model stores, a key for
        noise and the arrays of the inputs; `init` is traced first.
      arrays: those of the inputs, or their shapes.
      restore: makes an output of its arrays, once `apply` has been traced.
    """

    init: Callable[..., Any]
    apply: Callable[..., list[Any]]
    arrays: list[Any]
    restore: Restore


def of_arrays(
    make: Callable[[tuple[Any, ...]], Model], inputs: tuple[Any, ...]
) -> OfArrays:
    """Splits the arrays, or their shapes, off the inputs and outputs of a model.

    Args:
      make: makes the model for inputs, which may be traced.
      inputs: the inputs of its call.
    """
    arrays, with_arrays = split_arrays(inputs, (*ARRAYS, jax.ShapeDtypeStruct))
    models: list[Model] = []
    restores: list[Restore] = []

    def init(key: jax.Array, *arrays: Any) -> Any:
        models[:] = [make(with_arrays(arrays))]
        return models[0].init(key)

    def apply(params: Any, rest: Any, key: jax.Array, *arrays: Any) -> list[Any]:
        given = params, rest, key, *with_arrays(arrays)
        parts, whole = split_arrays(trace_quietly(models[0].apply, given, {}))
        restores[:] = [whole]
        return parts

    def restore(parts: Sequence[Any]) -> Any:
        return restores[0](parts)

    return OfArrays(init, apply, arrays, restore)


def tag_output(value: Any, path: str) -> Any:
    """Tags the output of a module with its path, for `jaxinit.signal._trace`."""

    def tag(leaf: Any) -> Any:
        return checkpoint_name(leaf, TAG + path) if hasattr(leaf, "dtype") else leaf

    return jax.tree.map(tag, value)


def bind_axes(model: Model, axes: tuple[str, ...]) -> Model:
    """Binds the axis names that a model reads, as `jax.vmap` does, each to size 1."""
    for axis in axes:
        init, apply = _bind_axis(model.init, axis), _bind_axis(model.apply, axis)
        model = dataclasses.replace(model, init=init, apply=apply)
    return model


def _bind_axis(function: Callable[..., Any], axis: str) -> Callable[..., Any]:
    restores: list[Restore] = []

    def inner(args: Any) -> list[Any]:
        arrays, whole = split_arrays(function(*args))
        restores[:] = [whole]
        return arrays

    mapped = jax.vmap(inner, in_axes=None, axis_name=axis, axis_size=1)

    def run(*args: Any) -> Any:
        arrays = mapped(args)
        return restores[0]([array.reshape(array.shape[1:]) for array in arrays])

    return run

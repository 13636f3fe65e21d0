"""What a model becomes: functions of arrays, for `check` and for training."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name

from jaxinit._adapt.inputs import Restore, split_arrays

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
    """

    init: Callable[[jax.Array], tuple[Params, Any]]
    apply: Callable[..., Any]
    framework: Callable[[], str] = lambda: "functions"


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


def tag_output(value: Any, path: str) -> Any:
    """Tags the output of a module with its path, for `jaxinit.signal._trace`."""

    def tag(leaf: Any) -> Any:
        return checkpoint_name(leaf, TAG + path) if hasattr(leaf, "dtype") else leaf

    return jax.tree.map(tag, value)


def bind_axes(model: Model, axes: tuple[str, ...]) -> Model:
    """Binds the axis names that a model reads, as `jax.vmap` does, each to size 1."""
    for axis in axes:
        bound = _bind_axis(model.init, axis), _bind_axis(model.apply, axis)
        model = Model(*bound, model.framework)
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

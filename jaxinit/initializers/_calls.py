"""Initializers as other libraries call them."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import jax
from jax.typing import DTypeLike

from jaxinit import _check as check
from jaxinit._arithmetic import change_inner
from jaxinit._axes import Axes
from jaxinit._initializer import Initializer


@dataclass(frozen=True)
class _WithAxes:
    init: Initializer

    def __call__(
        self,
        key: jax.Array,
        shape: tuple[int, ...],
        dtype: DTypeLike | None = None,
        in_axis: Axes = -2,
        out_axis: Axes = -1,
    ) -> jax.Array:
        named = _name_axes(self.init, in_axis, out_axis)
        weight: jax.Array = named(key, shape, dtype)
        return weight

    def __repr__(self) -> str:
        return f"nd({self.init!r})"


def _name_axes(init: Any, in_axis: Axes, out_axis: Axes) -> Any:
    """Returns the initializer that reads its fans off these axes, if it has fans."""
    if not isinstance(init, Initializer):
        return init
    if init.is_combined or "in_axis" not in init.arguments:
        return change_inner(init, lambda part: _name_axes(part, in_axis, out_axis))
    axes = {"in_axis": in_axis, "out_axis": out_axis}
    return init._build(**{**init.arguments, **axes})


def nd(init: Initializer) -> Any:
    """Returns an initializer as MaxText and T5X call it: they name axes at the call.

    Args:
      init: an initializer. What axes it names gives way to those of the call; a law
        without fans takes no notice of them, nor do laws within `stacked`, `centered`
        and `transposed`, whose axes are other ones.

    Returns:
      A function ``(key, shape, dtype=None, in_axis=-2, out_axis=-1) -> Array``, equal
      to another for an equal init.

    Raises:
      TypeError: if init is not one of jaxinit's initializers.

    Example:
      >>> w = nd(lecun_normal())(jax.random.key(0), (64, 8, 16), None, 0, (1, 2))
      >>> abs(float(w.var()) * 64 - 1) < 0.05
      True
    """
    return _WithAxes(_checked("nd", init))


@dataclass(frozen=True)
class _WithoutKey:
    init: Initializer

    def __call__(self, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
        hk = import_module("haiku")  # it is there, since Haiku calls
        return self.init(hk.next_rng_key() if self.init._random else None, shape, dtype)

    def __repr__(self) -> str:
        return f"haiku({self.init!r})"


def haiku(init: Initializer) -> Any:
    """Returns an initializer in the form of Haiku, for ``w_init=`` and ``b_init=``.

    Args:
      init: an initializer.

    Returns:
      A function ``(shape, dtype) -> Array`` that takes the key from the transformed
      function that it runs in, equal to another for an equal init.

    Raises:
      TypeError: if init is not one of jaxinit's initializers.

    Example:
      >>> import haiku as hk
      >>> net = hk.transform(lambda x: hk.Linear(8, w_init=haiku(he_normal()))(x))
      >>> params = net.init(jax.random.key(0), jnp.ones((1, 64)))
      >>> params["linear"]["w"].shape
      (64, 8)
    """
    return _WithoutKey(_checked("haiku", init))


def _checked(name: str, init: Any) -> Initializer:
    if not isinstance(init, Initializer):
        rule = "must be an initializer of jaxinit, such as he_normal()."
        raise TypeError(f"{name}(init={check.show(init)}): init {rule}")
    return init

"""Backends: the programs that draw a law's values, and which of them a call takes.

A law is a function from random bits to values. A backend makes the bits and applies it.
`BACKENDS` is the one list: the choice, the names and the errors of ``impl``, and what
`jit_init` writes out, follow from it. No kernel is taken unasked, until one is measured
to win: ``python -m bench kernels``.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax import lax

from jaxinit import _check as check
from jaxinit.random import threefry

Impl = Literal["jax", "fused", "pallas", "paired"]  # the names in BACKENDS
Own = Callable[[jax.Array], jax.Array]
# True while `jit_init` traces: it expands Threefry itself, so that each law is traced
# once, over bits that JAX draws, and not once for each of two platforms.
of_bits = jax.make_user_context(default_value=False)

# Sizes at which XLA spreads the fused loop over threads, which costs 20 us, but not yet
# the smaller loops of JAX (two cores, JAX 0.10).
_SPREAD_TOO_SOON = range(7, 21)


class Call(NamedTuple):
    """What is drawn.

    Attributes:
      shape: sizes of the array.
      dtype: its dtype.
      own: draws it by `jax.random`.
      law: turns bits, 32 for an entry of 4 bytes and else 64, and numbers into values.
      numbers: scalars that the law takes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    own: Own
    law: Callable[..., jax.Array]
    numbers: tuple[jax.Array, ...]

    @property
    def unsigned(self) -> np.dtype:
        """The type of an entry's bits."""
        return np.dtype(f"uint{8 * self.dtype.itemsize}")

    def of(self, bits: jax.Array) -> jax.Array:
        """Returns the values that the law gives bits."""
        return self.law(bits, *self.numbers)


class Backend(NamedTuple):
    """A program that draws.

    Attributes:
      draw: draws a call's values from a key.
      bits: how many an entry may have; () if the backend draws whatever JAX does.
      unasked: platforms on which it is taken unless ``impl`` says otherwise; JAX's own
        is elsewhere.
      same: whether its values are those of `jax.random`.
      written_out: whether it computes Threefry entry by entry, as `jit_init` then does.
    """

    draw: Callable[[jax.Array, Call], jax.Array]
    bits: tuple[int, ...] = ()
    unasked: tuple[str, ...] = ()
    same: bool = True
    written_out: bool = False


def _draw_by_jax(key: jax.Array, call: Call) -> jax.Array:
    """Draws by `jax.random`, which lowers Threefry separately for each platform."""
    return call.own(key)


def _draw_fused(key: jax.Array, call: Call) -> jax.Array:
    """Draws with Threefry written out, so that XLA makes one pass of bits and law."""
    return call.of(threefry.bits(key, call.shape, call.unsigned))


def _draw_by_kernel(key: jax.Array, call: Call, paired: Own | None = None) -> jax.Array:
    """Draws by one kernel for GPU and TPU, interpreted elsewhere."""
    from jaxinit.random import _kernel  # Pallas costs time to import

    shape, dtype, _, law, numbers = call
    made: jax.Array = _kernel.draw(key, shape, dtype, law, *numbers, paired=paired)
    return made


def _draw_paired(key: jax.Array, call: Call) -> jax.Array:
    """Draws two entries from each block of Threefry, which halves the work.

    Without a GPU or TPU a program of XLA gives the same values.
    """

    def elsewhere(key: jax.Array) -> jax.Array:
        return call.of(threefry.paired(key, call.shape))

    return _draw_by_kernel(key, call, elsewhere)


BACKENDS: dict[Impl, Backend] = {
    "jax": Backend(_draw_by_jax),
    "fused": Backend(_draw_fused, bits=(32, 64), unasked=("cpu",), written_out=True),
    "pallas": Backend(_draw_by_kernel, bits=(32,)),
    "paired": Backend(_draw_paired, bits=(32,), same=False),
}


def find_unasked(platform: str) -> Backend:
    """Returns the backend that draws on a platform unless ``impl`` says otherwise."""
    found = (each for each in BACKENDS.values() if platform in each.unasked)
    return next(found, BACKENDS["jax"])


def _draw_by(backend: Backend, call: Call, key: jax.Array) -> jax.Array:
    return backend.draw(key, call)


def draw(
    key: jax.Array,
    shape: tuple[int, ...],
    dtype: np.dtype,
    impl: Impl | None,
    own: Own,
    law: Callable[..., jax.Array],
    *numbers: jax.Array,
) -> jax.Array:
    """Draws values by a backend; the arguments are those of `Call`.

    None takes that of the platform, if it supports the dtype, gives JAX's values and is
    no slower; else JAX's.
    """
    call = Call(shape, dtype, own, law, numbers)
    if impl is not None:
        return BACKENDS[impl].draw(key, call)
    unasked: dict[str, Any] = {
        platform: functools.partial(_draw_by, backend, call)
        for backend in BACKENDS.values()
        for platform in backend.unasked
        if 8 * dtype.itemsize in backend.bits
    }
    small = math.prod(shape) in _SPREAD_TOO_SOON
    if not unasked or small or not threefry.fits(key):
        return own(key)
    if of_bits.value:
        return call.of(threefry.deferred(key, shape, call.unsigned))
    found: jax.Array = lax.platform_dependent(key, **unasked, default=own)
    return found


def check_impl(impl: Impl | None, key: jax.Array, dtype: np.dtype) -> None:
    """Checks that a backend can draw the dtype from the key."""
    if impl is None:
        return
    check.choice(tuple(BACKENDS), impl=impl)
    backend = BACKENDS[impl]
    if not backend.bits:
        return
    generator = str(jax.random.key_impl(key))
    if generator != "threefry2x32":
        rule = f"needs a threefry2x32 key, not one of {generator}. "
        rule += "Write jax.random.key(0, impl='threefry2x32'), or leave impl out."
        raise check.Unfit(rule, impl=impl)
    if backend.same and not threefry.fits(key):
        rule = "gives the values of jax_threefry_partitionable, which is off. "
        rule += "Set it, or leave impl out."
        raise check.Unfit(rule, impl=impl)
    bits = 8 * np.zeros(0, dtype).real.itemsize
    if bits not in backend.bits:
        fit = " or ".join(map(str, backend.bits))
        rule = f"draws real numbers of {fit} bits, and {dtype.name} has {bits}. "
        rule += "Leave impl out, or choose another dtype."
        raise check.Unfit(rule, impl=impl)

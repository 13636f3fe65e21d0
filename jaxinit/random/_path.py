"""Paths: the programs that draw a law's values, and which of them a call takes.

A law is a function from random bits to values. A path makes the bits and applies it:

- "jax": the one of `jax.random`, which lowers Threefry separately for each platform;
- "fused": Threefry written out, so that XLA makes one pass of bits and law;
- "pallas": the same as a kernel for GPU and TPU, interpreted elsewhere;
- "paired": the kernel with two entries from each block of Threefry, which halves the
  work and gives other values; elsewhere a program of XLA that gives the same.

All but the last give the values of `jax.random`. No kernel is taken unasked, until one
is measured to win: ``python -m bench kernels``.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

import jax
import numpy as np
from jax import lax

from jaxinit import _check as check
from jaxinit.random import _threefry

Impl = Literal["jax", "fused", "pallas", "paired"]
IMPLS = get_args(Impl)
# True while `jit_init` traces: it expands Threefry itself, so that each law is traced
# once, over bits that JAX draws, and not once for each of two platforms.
of_bits = jax.make_user_context(default_value=False)
_BITS = {"fused": (32, 64), "pallas": (32,), "paired": (32,)}  # bits an entry may have

# Sizes at which XLA spreads the fused loop over threads, which costs 20 us, but not yet
# the smaller loops of JAX (two cores, JAX 0.10).
_SPREAD_TOO_SOON = range(7, 21)


def draw(
    key: jax.Array,
    shape: tuple[int, ...],
    dtype: np.dtype,
    impl: Impl | None,
    own: Callable[[jax.Array], jax.Array],
    law: Callable[..., jax.Array],
    *numbers: jax.Array,
) -> jax.Array:
    """Draws values by a path.

    The law takes bits, 32 for an entry of 4 bytes and else 64, and the numbers. JAX's
    path is `own`. None takes the fused path on CPU, if it supports the dtype, gives
    JAX's values and is no slower; else JAX's.
    """
    unsigned = np.dtype(f"uint{8 * dtype.itemsize}")

    def fused(key: jax.Array) -> jax.Array:
        return law(_threefry.bits(key, shape, unsigned), *numbers)

    def reference(key: jax.Array) -> jax.Array:
        return law(_threefry.paired(key, shape), *numbers)

    if impl is None:
        small = math.prod(shape) in _SPREAD_TOO_SOON
        if dtype.itemsize < 4 or small or not _threefry.fits(key):
            return own(key)
        if of_bits.value:
            return law(_threefry.deferred(key, shape, unsigned), *numbers)
        found: jax.Array = lax.platform_dependent(key, cpu=fused, default=own)
        return found
    if impl == "jax":
        return own(key)
    if impl == "fused":
        return fused(key)
    from jaxinit.random import _kernel  # Pallas costs time to import

    paired = reference if impl == "paired" else None
    made: jax.Array = _kernel.draw(key, shape, dtype, law, *numbers, paired=paired)
    return made


def check_impl(impl: Impl | None, key: jax.Array, dtype: np.dtype) -> None:
    """Checks that a path can draw the dtype from the key."""
    if impl is None:
        return
    check.choice(IMPLS, impl=impl)
    if impl == "jax":
        return
    generator = str(jax.random.key_impl(key))
    if generator != "threefry2x32":
        rule = f"needs a threefry2x32 key, not one of {generator}. "
        rule += "Write jax.random.key(0, impl='threefry2x32'), or leave impl out."
        raise check.Unfit(rule, impl=impl)
    if impl != "paired" and not _threefry.fits(key):
        rule = "gives the values of jax_threefry_partitionable, which is off. "
        rule += "Set it, or leave impl out."
        raise check.Unfit(rule, impl=impl)
    bits = 8 * np.zeros(0, dtype).real.itemsize
    if bits not in _BITS[impl]:
        fit = " or ".join(map(str, _BITS[impl]))
        rule = f"draws real numbers of {fit} bits, and {dtype.name} has {bits}. "
        rule += "Leave impl out, or choose another dtype."
        raise check.Unfit(rule, impl=impl)

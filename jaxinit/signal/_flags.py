"""JAX's flags for debugging: for the code of users, not for what measures it."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Switches off what would stop programs that look at sick models.

    Numbers that are not finite are among what is measured. Programs are compiled ahead
    of time, which cannot go without `jax.jit`, and put equal draws into loops, where
    JAX cannot see that each has a key of its own.
    """
    with (
        jax.disable_jit(False),
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.debug_key_reuse(False),
    ):
        yield

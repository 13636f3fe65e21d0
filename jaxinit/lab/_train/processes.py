"""The processes of `jax.distributed` that train one grid; each runs the same program.

All compute; only the first prints and writes, and all read what it has written.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils


def join(*where: str) -> None:
    """Joins the other processes, before JAX has computed anything.

    Args:
      where: nothing, for a cluster that JAX detects, or three words: address and port
        of the first process, the number of processes, the number of this one.

    Raises:
      ValueError: if the words are others, or there is no such cluster.
    """
    shown = " ".join(["--distributed", *where])
    if len(where) not in (0, 3) or not all(word.isdigit() for word in where[1:]):
        rule = "takes ADDRESS:PORT, the number of processes and of this one, or nothing"
        raise ValueError(f"{shown}: {rule}.")
    try:
        if where:
            jax.distributed.initialize(where[0], int(where[1]), int(where[2]))
        else:
            jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{shown}: {str(error).splitlines()[0]}") from error


def is_first() -> bool:
    """Returns whether this process is the one that prints and writes."""
    return jax.process_index() == 0


def meet(name: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def take_least(number: float) -> float:
    """Returns the least of the numbers that the processes call this with."""
    if jax.process_count() == 1:
        return number
    return float(multihost_utils.process_allgather(np.float32(number)).min())


def join_chunks(chunks: Sequence[jax.Array]) -> Any:
    """Joins chunks, whose parts other processes may hold; all must call this.

    # each [cells, ...] -> [all cells, ...], in the memory of the host
    """
    if jnp.issubdtype(chunks[0].dtype, jax.dtypes.prng_key):  # NumPy has no such dtype
        return jnp.concatenate(chunks)
    if not chunks[0].is_fully_addressable:
        gathered = []
        for chunk in chunks:  # which may lie in the memory of the host
            here = jax.device_put(chunk, chunk.sharding.with_memory_kind("device"))
            gathered.append(multihost_utils.process_allgather(here, tiled=True))
        return np.concatenate(gathered)
    return np.concatenate([np.asarray(chunk) for chunk in chunks])
